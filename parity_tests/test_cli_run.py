"""``tf-pipeline run``: every task on texts and on files, and what becomes of rows that fail."""

import json
from types import SimpleNamespace

import pytest
import transformers

from parity_tests.pipeline_helpers import (
    CONLL,
    decoder_checkpoint,
    encoder_decoder_checkpoint,
    labels_of,
    tiny_with_tokenizer,
)
from parity_tests.sense_helpers import checkpoint_of, file_of
from parity_tests.table_helpers import ACTORS, OPERATIONS, QUERIES, table_checkpoint
from parity_tests.test_cli import run
from parity_tests.tiers import exhaustive
from tf_pipeline.cli.run import OPTIONS
from tf_pipeline.pipelines import pipeline
from tf_pipeline.pipelines.tasks import MEDIA, TASKS

HEADS = {
    "token-classification": ("TFBertForTokenClassification", labels_of(CONLL)),
    "question-answering": ("TFBertForQuestionAnswering", {}),
    "fill-mask": ("TFBertForMaskedLM", {}),
    "zero-shot-classification": (
        "TFBertForSequenceClassification",
        labels_of(["contradiction", "neutral", "entailment"]),
    ),
    "text-classification": ("TFBertForSequenceClassification", labels_of(["BAD", "GOOD"])),
    "feature-extraction": ("TFBertModel", {}),
}
QUESTION = {"question": "Who works?", "context": "Sylvain works in Brooklyn."}
TABLE = {"table": ACTORS, "query": QUERIES}
SCORES = (["--top-k", "2", "--function", "sigmoid"], {"top_k": 2, "function_to_apply": "sigmoid"})
# Task: options, the pipeline's arguments, good rows, and the inputs they stand for.
CASES = {
    "token-classification": (
        ["--aggregation-strategy", "max", "--stride", "8", "--ignore-label", "PER", "--ignore-label", "O"],
        {"aggregation_strategy": "max", "stride": 8, "ignore_labels": ["PER", "O"]},
        ["Sylvain works.", {"text": "東京 🤗 e\u0301lan", "id": 7}],
        ["Sylvain works.", "東京 🤗 e\u0301lan"],
    ),
    "question-answering": (
        ["--top-k", "2", "--max-answer-len", "3", "--no-align-to-words", "--handle-impossible-answer"],
        {"top_k": 2, "max_answer_len": 3, "align_to_words": False, "handle_impossible_answer": True},
        [QUESTION, QUESTION | {"id": "a"}],
        [QUESTION, QUESTION],
    ),
    "fill-mask": (
        ["--top-k", "2", "--target", "good", "--target", "bad", "--target", "fine"],
        {"top_k": 2, "targets": ["good", "bad", "fine"]},
        ["A [MASK].", {"text": "[MASK] or [MASK]"}],
        ["A [MASK].", "[MASK] or [MASK]"],
    ),
    "zero-shot-classification": (
        ["--candidate-labels", "art, sport", "--hypothesis-template", "So {}.", "--multi-label"],
        {"candidate_labels": ["art", "sport"], "hypothesis_template": "So {}.", "multi_label": True},
        ["A goal!", {"text": "A painting."}],
        ["A goal!", "A painting."],
    ),
    "text-classification": (
        ["--top-k", "1", "--function", "sigmoid"],
        {"top_k": 1, "function_to_apply": "sigmoid"},
        ["Fine.", {"text": "Bad.", "label": 1}],
        ["Fine.", "Bad."],
    ),
    "feature-extraction": (
        ["--pooling", "cls", "--normalize"],
        {"pooling": "cls", "normalize": True},
        ["Fine.", {"text": "Bad."}],
        ["Fine.", "Bad."],
    ),
    "text-generation": (
        ["--top-k", "0", "--temperature", "0.5", "--max-new-tokens", "5", "--seed", "1"],
        {"top_k": 0, "temperature": 0.5, "max_new_tokens": 5, "seed": 1},
        ["Once", {"messages": [{"role": "user", "content": "Hi"}]}],
        ["Once", [{"role": "user", "content": "Hi"}]],
    ),
    **{
        task: (
            ["--max-new-tokens", "5", "--num-beams", "2", "--num-return-sequences", "2"],
            {"max_new_tokens": 5, "num_beams": 2, "num_return_sequences": 2},
            ["Fine.", {"text": "Bad."}],
            ["Fine.", "Bad."],
        )
        for task in ("text2text-generation", "summarization", "translation")
    },
    **{
        task: (
            options,
            arguments,
            [file_of(task, 0), {MEDIA[task]: file_of(task, 1), "id": 1}],
            [file_of(task, 0), file_of(task, 1)],
        )
        for task, options, arguments in (
            ("image-classification", *SCORES),
            ("audio-classification", *SCORES),
            ("image-feature-extraction", ["--pool"], {"pool": True}),
            (
                "zero-shot-image-classification",
                ["--candidate-labels", "cat, a dog", "--hypothesis-template", "So {}."],
                {"candidate_labels": ["cat", "a dog"], "hypothesis_template": "So {}."},
            ),
            (
                "automatic-speech-recognition",
                ["--chunk-length-s", "0.1", "--stride-length-s", "0.02"],
                {"chunk_length_s": 0.1, "stride_length_s": 0.02},
            ),
        )
    },
    "table-question-answering": (
        ["--sequential", "--no-truncation"],
        {"sequential": True, "truncation": False},
        [TABLE, TABLE | {"query": QUERIES[0], "id": 1}],
        [TABLE, TABLE | {"query": QUERIES[0]}],
    ),
}


@pytest.fixture(scope="module")
def models(minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    made = {}

    def make(task):
        if task in MEDIA:
            return str(checkpoint_of(task))
        if task == "text-generation":
            return str(decoder_checkpoint())
        if task == "table-question-answering":
            return str(table_checkpoint(**OPERATIONS))
        if task not in HEADS:
            return str(encoder_decoder_checkpoint())
        if task not in made:
            class_name, values = HEADS[task]
            made[task] = str(tiny_with_tokenizer(class_name, tokenizer, **values))
        return made[task]

    return make


def written(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_every_task_has_its_options():
    assert set(OPTIONS) == set(CASES) == set(TASKS)


@pytest.mark.parametrize("task", exhaustive(CASES, ["text-classification"]))
def test_a_file_with_good_and_bad_rows(models, tmp_path, task):
    options, arguments, good, inputs = CASES[task]
    bad = ["{no json\n", {"other": 1}, 5, {"text": ["a"], "question": 1, "context": "b"}, None]
    rows = [json.dumps(good[0]) + "\n", bad[0], "\n", *bad[1:], good[1]]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    result = run("run", task, "--model", models(task), *options, "--input", source, "--output", str(target))
    assert result.exit_code == 3, result.output
    lines = written(target)
    assert [line["line"] for line in lines] == [1, 8]
    expected = [pipeline(task, model=models(task))(one, **arguments) for one in inputs]
    assert_near([line["result"] for line in lines], expected)
    letters = written(tmp_path / "out.errors.jsonl")
    assert sorted(letter["line"] for letter in letters) == [2, 4, 5, 6, 7]
    assert all(list(letter) == ["line", "error", "input"] and letter["error"] for letter in letters)
    assert next(letter["input"] for letter in letters if letter["line"] == 2) == "{no json"
    assert next(letter["input"] for letter in letters if letter["line"] == 4) == {"other": 1}
    assert not list(tmp_path.glob("*.unfinished"))
    assert "2 answered" in result.stderr and "5 failed" in result.stderr


def assert_near(ours, theirs):
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_near(one, other)
    else:
        assert ours == (pytest.approx(theirs, abs=1e-5) if isinstance(theirs, float) else theirs)


@pytest.mark.parametrize("task", CASES)
def test_options_are_arguments_and_rows_are_inputs(task, tmp_path, monkeypatch):
    """Whatever a pipeline makes of them; here it is none."""
    options, arguments, rows, inputs = CASES[task]
    given, seen = {}, []

    def made(task, **arguments):
        given.update(arguments)
        return SimpleNamespace(stream=lambda inputs: map(seen.append, inputs))

    monkeypatch.setattr("tf_pipeline.cli.run.pipeline", made)
    source = write(tmp_path / "in.jsonl", [json.dumps(row) + "\n" for row in rows])
    result = run("run", task, "--model", str(tmp_path), *options, "--input", source)
    assert result.exit_code == 0, result.output
    if "candidate_labels" in arguments:  # which the pipeline splits
        arguments = arguments | {"candidate_labels": ", ".join(arguments["candidate_labels"])}
    assert {name: given[name] for name in arguments} == arguments
    assert seen == inputs


@pytest.mark.parametrize("task", exhaustive(CASES, ["question-answering", "token-classification"]))
def test_texts_on_the_command_line(models, tmp_path, task):
    options, _, _, inputs = CASES[task]
    texts = {
        "question-answering": ["--question", "Who?", "Sylvain works."],
        "table-question-answering": ["--table", str(tmp_path / "actors.csv"), "Who is the oldest?"],
    }.get(task, inputs[:1])
    (tmp_path / "actors.csv").write_text("actors,age\nbrad pitt,56\n,45\n")
    arguments = ("run", task, "--model", models(task), *options, *texts)
    table, lines = run(*arguments), run(*arguments, "--json")
    assert table.exit_code == lines.exit_code == 0, table.output + lines.output
    assert json.loads(lines.stdout) and len(lines.stdout.splitlines()) == 1
    first = str(texts[-1])[:6]
    assert task.endswith("feature-extraction") or first in table.stdout


def test_too_long_a_text_among_many(models, tmp_path):
    rows = ["fine", "word " * 600, *["good"] * 20, "word " * 700]
    source, target = write(tmp_path / "in.jsonl", [json.dumps(row) + "\n" for row in rows]), tmp_path / "out.jsonl"
    arguments = ["run", "text-classification", "--model", models("text-classification"), "--input", source]
    result = run(*arguments, "--output", str(target), "--no-truncation")
    assert result.exit_code == 3
    assert [line["line"] for line in written(target)] == [1, *range(3, 23)]
    letters = written(tmp_path / "out.errors.jsonl")
    assert [letter["line"] for letter in letters] == [2, 23] and "602 tokens" in letters[0]["error"]
    assert letters[0]["input"] == rows[1]
    result = run(*arguments, "--output", str(target), "--overwrite")  # cut, so that nothing fails and old errors go
    assert result.exit_code == 0 and len(written(target)) == 23
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_without_an_output_lines_are_printed(models, tmp_path):
    source = write(tmp_path / "in.jsonl", ['"good"\n', "oops\n"])
    result = run("run", "text-classification", "--model", models("text-classification"), "--input", source)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["line"] == 1 and json.loads(result.stderr)["line"] == 2


def test_pairs_words_and_bytes_that_are_no_text(models, tmp_path):
    pair = {"text": "a", "text_pair": "b"}
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(json.dumps("é", ensure_ascii=False).encode("latin-1") + b"\n" + json.dumps([1]).encode() + b"\n")
    with source.open("a") as file:
        file.write(json.dumps(pair) + "\n" + json.dumps(pair) + "\n")
    model = models("text-classification")
    result = run("run", "text-classification", "--model", model, "--input", str(source), "--output", str(target))
    assert result.exit_code == 3
    assert [line["line"] for line in written(target)] == [3, 4]
    assert_near(written(target)[0]["result"], pipeline("text-classification", model=model)(pair, top_k=None))
    write(
        source, [json.dumps(row) + "\n" for row in (["two", "words"], {"words": ["two", "words"]}, "w", {"words": [1]})]
    )
    model = models("token-classification")
    options = ["--is-split-into-words", "--ignore-label", "none"]
    arguments = ["--input", str(source), "--output", str(target), "--overwrite"]
    result = run("run", "ner", "--model", model, *options, *arguments)
    assert result.exit_code == 3
    answers = [line["result"] for line in written(target)]
    assert answers[0] == answers[1] and answers[0][1]["start"] == 4


def test_one_question_for_all_contexts(models, tmp_path):
    source, target = (
        write(tmp_path / "in.jsonl", ['"Ann came."\n', '{"context": "Bob came."}\n']),
        tmp_path / "out.jsonl",
    )
    options = ["--question", "Who came?", "--input", source, "--output", str(target)]
    result = run("run", "question-answering", "--model", models("question-answering"), *options)
    assert result.exit_code == 0, result.output
    assert len(written(target)) == 2


@pytest.mark.slow
def test_one_table_for_all_questions(models, tmp_path):
    (tmp_path / "actors.csv").write_text('actors,"born, in"\nbrad pitt,1963\nnobody,\n')
    table = {"actors": ["brad pitt", "nobody"], "born, in": ["1963", ""]}
    rows = [json.dumps(row) + "\n" for row in ("Who is old?", {"query": ["Who?", "Which?"]}, TABLE, {"text": "a"}, 3)]
    source, target, task = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", "table-question-answering"
    options = ["--table", str(tmp_path / "actors.csv"), "--input", source, "--output", str(target)]
    result = run("run", task, "--model", models(task), *options)
    assert result.exit_code == 3, result.output
    pipe = pipeline(task, model=models(task))
    expected = [pipe(table, "Who is old?"), pipe(table, ["Who?", "Which?"]), pipe(ACTORS, QUERIES)]
    assert_near([line["result"] for line in written(target)], expected)
    letters = written(tmp_path / "out.errors.jsonl")
    assert [letter["error"] for letter in letters] == [
        "A row is an object with the keys table and query; got an object with 'text'.",
        "A row is an object with the keys table and query; got a number.",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["table-question-answering", "Who?"], 2, "Give --table, the file that the questions are about, or --input"),
        (["table-question-answering", "--table", "/nowhere", "Who?"], 2, "'/nowhere' is no CSV file that can be read"),
        (["fill-mask", "--sequential", "x"], 2, "option of table-question-answering, not of fill-mask"),
        (["text-classification", "--candidate-labels", "a", "x"], 2, "zero-shot-image-classification, not of text"),
        (["fill-mask", "--pooling", "mean", "x"], 2, "option of feature-extraction"),
        (["question-answering", "--question", "a"], 2, "no text"),
        (["question-answering", "a"], 2, "Give --question and --context"),
        (["text-classification", "--output", "x.jsonl", "a"], 2, "--output needs --input"),
        (["text-classification", "--input", "SOURCE", "a"], 2, "not both"),
        (["text-classification", "--input", "SOURCE", "--output", "SOURCE"], 1, "overwrite the input"),
        (["text-classification", "--input", "SOURCE", "--output", "/nowhere/out.jsonl"], 1, "/nowhere/out.jsonl"),
        (["text-classification", "--input", "/nowhere"], 2, "/nowhere"),
        (["text-classification", "--function", "relu", "a"], 2, "sigmoid, softmax, none"),
    ],
)
def test_wrong_usage(models, tmp_path, arguments, status, message):
    source = write(tmp_path / "in.jsonl", ['"a"\n'])
    arguments = [source if argument == "SOURCE" else argument for argument in arguments]
    result = run("run", *arguments, "--model", models(arguments[0]))
    assert result.exit_code == status
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert (tmp_path / "in.jsonl").read_text() == '"a"\n'


@pytest.mark.parametrize(
    ("task", "asked"),
    [("translation_en_to_fr", "translation_en_to_fr"), ("translation", "translation"), ("ner", "token-classification")],
)
def test_a_run_is_told_from_one_of_other_languages(task, asked, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr("tf_pipeline.cli.run.answer_rows", lambda *given: found.append(given[4]) or 1 / 0)
    (tmp_path / "rows.jsonl").write_text('"a"')
    options = ["--input", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    run("run", task, *options, "--model", str(encoder_decoder_checkpoint()))
    assert found[0]["task"] == asked


def test_an_interruption_leaves_an_earlier_output(models, tmp_path, monkeypatch):
    source, target = write(tmp_path / "in.jsonl", ['"a"\n']), tmp_path / "out.jsonl"
    target.write_text("earlier")
    monkeypatch.setattr("tf_pipeline.cli.rows._answer_all", lambda *_: 1 / 0)
    arguments = ["--input", source, "--output", str(target), "--overwrite"]
    result = run("run", "text-classification", "--model", models("text-classification"), *arguments)
    assert isinstance(result.exception, ZeroDivisionError) and target.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
