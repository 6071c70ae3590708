"""The command line, and that asking for help costs nothing."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from parity_tests.checkpoint_helpers import WITHOUT_TORCH
from parity_tests.conftest import ASSETS
from tf_pipeline.cli.main import app
from tf_pipeline.cli.options import as_options
from tf_pipeline.pipelines.tasks import TASKS

HEAVY = ("tensorflow", "torch", "keras", "transformers")
COURSE = "I've been waiting for a HuggingFace course my whole life."


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, list(arguments), input=stdin)


HELP = """
import sys
from tf_pipeline.cli.main import main
sys.argv = ["tf-pipeline", *{arguments}]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        "import tf_pipeline",
        "import tf_pipeline.cli.main",
        *(
            HELP.format(arguments=arguments)
            for arguments in (
                ["--help"],
                ["run", "--help"],
                ["parity", "--help"],
                ["export", "--help"],
                ["train", "--help"],
            )
        ),
    ],
)
def test_importing_and_help_load_nothing_heavy(code):
    check = f"{code}\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "ner", "--model", "", "a"],
        ["run", "ner", "--dtype=", "a"],
        ["run", "ner", "--input", "rows", "--output", ""],
        ["run", "ner", "--input", ""],
        ["train", "ner", "--model", "m", "--train", "rows.jsonl", "--output", ""],
        ["convert", "folder", ""],
        ["port", "", "folder"],
        ["export", "", "folder"],
        ["batch", "ner", "in", ""],
        ["parity", ""],
    ],
)
def test_a_name_that_is_empty_is_refused(arguments, tmp_path, monkeypatch):
    """As that of a shell's variable that is not set; a path would be the current folder, a model the default one."""
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2 and "it is empty" in result.stderr, result.stderr
    assert not list(tmp_path.iterdir())


def test_texts_may_be_empty(monkeypatch):
    monkeypatch.setattr("tf_pipeline.cli.run.answer_rows", lambda *given: 1 / 0)
    result = run("run", "question-answering", "--context", "", "--input", __file__)
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.slow
def test_without_torch_everything_but_parity_works():
    code = WITHOUT_TORCH + (
        "import tf_pipeline\n"
        f"print(tf_pipeline.pipeline('sentiment-analysis')({COURSE!r}))\n"
        "print(len(tf_pipeline.pipeline('feature-extraction')('a b', pooling='mean')))\n"
        "import sys; assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "POSITIVE" in result.stdout


def test_the_list_of_commands_is_not_cut():
    lines = run("--help").stdout.partition("Commands:")[2].splitlines()
    assert len(lines) > 7 and all(line.endswith(".") and not line.endswith("...") for line in lines if line)


def test_run_prints_labels_and_scores():
    result = run("run", "sentiment-analysis", COURSE)
    assert result.exit_code == 0
    assert "POSITIVE" in result.stdout and "NEGATIVE" in result.stdout and "0." in result.stdout


def test_run_json_and_top_k():
    result = run("run", "sentiment-analysis", "--json", "--top-k", "1", COURSE, "I hate this so much!")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row[0]["label"] for row in rows] == ["POSITIVE", "NEGATIVE"]
    assert all(len(row) == 1 and 0.5 < row[0]["score"] <= 1 for row in rows)


def test_run_reads_standard_input():
    result = run("run", "text-classification", "--json", stdin=f"{COURSE}\n\nI hate this so much!\n")
    assert len(result.stdout.splitlines()) == 2


def test_run_feature_extraction():
    result = run("run", "feature-extraction", "--pooling", "mean", "A sentence.")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)) == 384


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "sentiment-analysis", "--model", "/nowhere/at/all", "text"), "/nowhere/at/all"),
        (("run", "sentiment-analysis", "--dtype", "int3", "text"), "int3"),
        (("run", "sentiment-analysis", "--no-truncation", "word " * 600), "truncation"),
        (("run", "sentiment-analysis"), "no text"),
    ],
)
def test_errors_are_one_line_and_a_status(arguments, message):
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("summarise", "text"), "supported are"),
        (("zero-shot-classification", "text"), "Pass --candidate-labels"),
        (("sentiment-analysis", "--top-k", "0", "text"), "--top-k is 0, but has to be a whole number of at least 1."),
        (("sentiment-analysis", "--dtype", "int3", "text"), "--dtype 'int3' is not supported"),
        (("sentiment-analysis", "--function", "tanh", "text"), "--function"),
        (("feature-extraction", "--pooling", "max", "text"), "--pooling 'max' is not one of"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own_and_names_options(arguments, message):
    result = run("run", *arguments)
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize("command", [["export", str(ASSETS), "out"], ["port", str(ASSETS), "out"], ["parity", "x"]])
def test_an_unknown_task_is_wrong_usage(command):
    result = run(*command, "--task", "summarise")
    assert result.exit_code == 2 and "supported are" in result.stderr


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stride reads a text, which aggregation_strategy='none' cannot.", "--stride reads a text, which "
         "--aggregation-strategy none cannot."),
        ("A text has a stride; pass truncation=True.", "A text has a stride; pass --truncation."),
        ("`align_to_words`, align_to_words=False", "--align-to-words, --no-align-to-words"),
        ("ignore_labels and realign_to_words", "--ignore-label and realign_to_words"),
    ],
)  # fmt: skip
def test_messages_about_arguments_name_options(said, meant):
    names = ("stride", "aggregation_strategy", "truncation", "align_to_words", "ignore_labels")
    assert as_options(said, {name: name for name in names}) == meant


@pytest.mark.parametrize("command", ["run", "export", "parity", "port", "convert"])
def test_help_breaks_no_name(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(command, "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80 and not any(line.endswith(("-", "…")) for line in lines)
    parameters = typer.main.get_command(app).commands[command].params
    shown = {word.strip(",") for line in lines for word in line.split()}
    assert {option for one in parameters for option in (*one.opts, *one.secondary_opts)} <= shown
    if command == "run":
        assert set(TASKS) <= {word.strip(".,:()[]") for word in shown}


def test_version():
    assert run("--version").stdout.startswith("tf-pipeline 0.")


@pytest.mark.slow
def test_parity_command(minilm, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("One text.\n\nAnd another, a bit longer.\n")
    out, page = tmp_path / "report.json", tmp_path / "report.html"
    only = ["--only", "outputs", "--only", "weights"]
    result = run("parity", str(minilm), "--texts", str(texts), *only, "--json", str(out), "--report", str(page))
    assert result.exit_code == 0, result.stderr
    assert "equals PyTorch" in " ".join(result.stdout.split()) and "float32" in result.stdout
    content = json.loads(out.read_text())
    assert content["passed"] and {check["group"] for check in content["checks"]} == {"weights", "outputs"}
    assert min(check["elements"] for check in content["checks"]) > 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_parity_command_finds_a_difference(minilm, monkeypatch):
    from tf_pipeline.layers import activations
    from tf_pipeline.models import bert

    monkeypatch.setattr(bert, "get_activation", lambda name: activations.gelu_tanh)
    result = run("parity", str(minilm), "--dtype", "float64", "--only", "outputs")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())
    assert "First difference: hidden_states.1 " in said  # the embeddings and the attention are still right
    assert "encoder.layer.0.intermediate.dense.weight" in said
    assert "hint: the activation is 'gelu_new' in ours" in said


def test_parity_command_by_task():
    result = run("parity", str(ASSETS), "--task", "sentiment-analysis", "--only", "weights")
    assert result.exit_code == 0 and "TFDistilBertForSequenceClassification" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("parity", "/nowhere/at/all"), "/nowhere/at/all"),
        (("parity", "CHECKPOINT", "--class", "TFNoSuchModel"), "TFNoSuchModel"),
        (("parity", "CHECKPOINT", "--task", "summarise"), "supported are"),
        (("parity", "CHECKPOINT", "--mode", "jit"), "eager, function, xla"),
        (("parity", "CHECKPOINT", "--dtype", "int8"), "int8"),
        (("parity", "CHECKPOINT", "--only", "colours"), "There is no group 'colours'"),
        (("parity", "CHECKPOINT", "--only", "weights", "--json", "/nowhere/report.json"), "/nowhere/report.json"),
        (("parity", "NO WEIGHTS"), "has no weights"),
    ],
)
def test_parity_command_that_cannot_compare(minilm, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text((minilm / "config.json").read_text())
    places = {"CHECKPOINT": minilm, "NO WEIGHTS": tmp_path / "empty"}
    result = run(*[str(places.get(argument, argument)) for argument in arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_parity_of_a_checkpoint_larger_than_memory(minilm, monkeypatch):
    monkeypatch.setattr(sys.modules["tf_pipeline.parity.compare"], "available_memory", lambda: 10**8)
    result = run("parity", str(minilm))
    assert result.exit_code == 2
    assert "22,713,728 parameters: two models in float64 take 0.4 GB, but 0.1 GB" in " ".join(result.stderr.split())


def test_training_is_left_out_where_memory_does_not_hold_it(minilm, monkeypatch):
    monkeypatch.setattr(sys.modules["tf_pipeline.parity.compare"], "available_memory", lambda: 5 * 10**8)
    result = run("parity", str(minilm), "--only", "training", "--only", "weights")
    assert result.exit_code == 0
    assert "The memory does not hold both models with gradients" in " ".join(result.stdout.split())


def test_parity_without_torch_says_so(minilm, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("parity", str(minilm))
    assert result.exit_code == 2
    assert 'pip install "tf-pipeline[parity]"' in result.stderr


def test_export_writes_a_version_and_prints_its_signatures(tmp_path):
    result = run(
        "export", str(ASSETS), str(tmp_path / "m"), "--no-text", "--no-warmup", "--version", "3", "--name", "film"
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "m" / "3" / "saved_model.pb").exists() and "serving_default" in result.stdout
    assert "/v1/models/film:predict" in (tmp_path / "m" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--stride", "3"], 2, "--stride is an option of token-classification, not of text-classification"),
        (["--batch-sizes", "one"], 2, "such as 1,32; got 'one'"),
        (["--task", "image-classification"], 1, "cannot be exported"),
        (["--task", "fill-mask"], 1, "would be random"),
        (["--server-version", "9.9.9"], 1, "9.9"),
    ],
)
def test_export_says_what_was_wrong(tmp_path, arguments, status, message):
    result = run("export", str(ASSETS), str(tmp_path / "m"), *arguments, "--no-text")
    shown = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code == status and message in shown
    assert not (tmp_path / "m").exists()
