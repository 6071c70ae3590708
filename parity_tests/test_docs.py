"""The guides: their code runs, their commands parse, their tables name what exists; the reference is complete."""

import ast
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import keras
import pytest
import tensorflow as tf
import torch
import transformers
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tf_pipeline
from parity_tests.guides import PAGES, ROOT, all_blocks
from tf_pipeline.arguments import MODEL_ARGUMENTS
from tf_pipeline.auto import supported_models
from tf_pipeline.cli.main import app
from tf_pipeline.outputs import ModelOutput
from tf_pipeline.pipelines import supported_tasks
from tf_pipeline.pipelines.factory import pipeline_class
from tf_pipeline.serving.client.answers import REMOTE_TASKS
from tf_pipeline.serving.export import TASKS as EXPORTED

DOCS = ROOT / "docs"
PYTHON, SHELL = all_blocks("python"), all_blocks("sh")
# Blocks that are shown and not run, each with its reason in the page; a new one is a decision.
NOT_RUN = 3
# Programs of commands that are looked at no further.
OTHER_PROGRAMS = {"curl", "bash", "git", "pre-commit", "source", "uv"}


def hooks():
    """The hooks of the site, which need no MkDocs to be imported."""
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------------------------- code


@cache
def results() -> dict[str, list[dict]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_PIPELINE_CACHE": os.environ["TF_PIPELINE_TEST_CACHE"]}
    command = [sys.executable, "-m", "parity_tests.guides"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_python_of_all_pages_runs():
    """All pages in one process, because starting TensorFlow takes longer than most of them."""
    failed = [
        f"{page}:{result['line']}\n{result['error']}"
        for page, ran in results().items()
        for result in ran
        if result["error"]
    ]
    assert not failed, "\n".join(failed)
    assert sum(map(len, results().values())) == len(PYTHON) > 30


def test_few_blocks_are_not_run_and_say_why():
    left_out = [f"{block.page}:{block.line}: {block.reason}" for block in PYTHON if block.reason]
    assert len(left_out) == NOT_RUN, "\n".join(left_out)
    assert all(len(block.reason) > 10 for block in PYTHON if block.reason)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}:{block.line}")
def test_python_compiles_and_imports_what_exists(block):
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("tf_pipeline"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)


def commands(code: str) -> list[list[str]]:
    """Commands of a shell block as words, without comments."""
    joined = code.replace("\\\n", " ")
    return [
        words
        for line in joined.splitlines()
        for part in re.split(r"&&|\|(?![^']*'[^']*$)", line)
        if (words := shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", part.strip()).replace("…", "x"), comments=True))
    ]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}:{block.line}")
def test_commands_parse(block):
    for words in commands(block.code):
        check_command(words)


def check_command(words: list[str]) -> None:
    """Require that a command names a program, a file, an extra or options that exist.

    Raises:
        AssertionError: naming the words.
    """
    program = words[0]
    if program == "tf-pipeline":
        check_ours(words[1:])
    elif program in ("pip", "python", "pytest"):
        for word in words[1:]:
            for names in re.findall(r"^(?:\.|tf-pipeline)\[([\w,-]+)\]$", word):
                assert set(names.split(",")) <= set(requirements()["options.extras_require"]), words
            if re.fullmatch(r".*/.*\.py|parity_tests", word):
                assert (ROOT / word).exists(), words
        if words[1:2] == ["-m"] and words[2].split(".")[0] in ("tf_pipeline", "parity_tests"):
            assert importlib.util.find_spec(words[2]), words
    else:
        assert program in OTHER_PROGRAMS or program.startswith(("./", "cd")), words


def check_ours(words: list[str]) -> None:
    """Require that a command of ours has these options."""
    group = typer.main.get_command(app)
    with group.make_context("tf-pipeline", ["--help"], resilient_parsing=True) as context:
        name, command, rest = group.resolve_command(context, list(words))
        assert command is not None, words
        with command.make_context(name, list(rest), parent=context, resilient_parsing=True):
            pass
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        if name in ("run", "export"):  # their other options are arguments of the tasks' pipelines
            return
        if name == "batch" and "--" in rest:  # behind it are options of Beam's
            rest = rest[: rest.index("--")]
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize(
    "line",
    [
        "tf-pipeline parity x --no-such-option",
        "tf-pipeline no-such-command",
        'pip install ".[no-such-extra]"',
        "python benchmarks/no_such_file.py",
        "no-such-program",
    ],
)
def test_a_wrong_command_is_noticed(line):
    with pytest.raises((AssertionError, typer.BadParameter.__base__)):  # the latter is Click's, for wrong usage
        for words in commands(line):
            check_command(words)


# -------------------------------------------------------------------------------------------------------- tables


MIGRATION = ("from_pytorch.md", "from_keras_hub.md", "from_tf_hub.md")


def rows(page: str) -> list[list[str]]:
    """Cells of the tables of names of a page, without heads."""
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = re.findall(r"^\|(.*)\|$", text, flags=re.MULTILINE)
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [cells for cells in split if not set(cells[0]) <= set("-") and cells[1] != "here"]


@cache
def known_keywords() -> set[str]:
    """Names of arguments that a table may tell to pass."""
    from tf_pipeline.model import TFPreTrainedModel
    from tf_pipeline.pipelines.factory import pipeline

    functions = (pipeline, TFPreTrainedModel.from_pretrained, TFPreTrainedModel.compile, TFPreTrainedModel.generate,
                 TFPreTrainedModel.call, keras.Model.compile, keras.optimizers.AdamW, tf.argmax, tf.math.argmax,
                 transformers.PreTrainedTokenizerBase.__call__)  # fmt: skip
    names = {name for function in functions for name in inspect.signature(function).parameters}
    return names | set(transformers.GenerationConfig().to_dict()) | set(MODEL_ARGUMENTS)


def root_objects() -> dict[str, object]:
    """Objects that the tables speak of, by their usual names."""
    model = tf_pipeline.TFBertModel(
        transformers.BertConfig(
            vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4
        )
    )
    whole = tf_pipeline.TFBertForSequenceClassification(model.config)
    return {
        "keras": keras, "tf": tf, "tf_pipeline": tf_pipeline, "model": whole, "optimizer": keras.optimizers.AdamW(),
        "tokenizer": transformers.PreTrainedTokenizerFast,
    }  # fmt: skip


def check_here(span: str, roots: dict[str, object]) -> None:
    """Require that a span of code in the column "here" names something that exists.

    Raises:
        AssertionError: if not.
    """
    if span.startswith("tf-pipeline"):
        return check_ours(shlex.split(span)[1:])
    if keyword := re.match(r"^(\w+)=(?!=)", span):
        known = known_keywords()
        assert keyword[1] in known, f"{keyword[1]} is no argument of {sorted(known)}"
        return None
    if span in supported_tasks():
        return None
    name = re.match(r"^[A-Za-z_][\w.]*", span)
    assert name, span
    first, *rest = name[0].split(".")
    if first == "outputs":
        assert any(rest[0] in getattr(one, "__annotations__", {}) for one in all_outputs()), span
        return None
    if first in ("input_ids", "attention_mask", "token_type_ids", "enable_lora", "transformers", "eager", "use_cache"):
        return None
    found = roots[first] if first in roots else getattr(tf_pipeline, first)
    for place, part in enumerate(rest):
        if inspect.ismodule(found) and not hasattr(found, part):
            found = importlib.import_module(".".join((found.__name__, part)))
            continue
        assert hasattr(found, part), (span, rest[: place + 1])
        found = getattr(found, part)
    return None


def all_outputs() -> list[type]:
    """Every class of outputs."""
    found, todo = [], [ModelOutput]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += one.__subclasses__()
    return found


@pytest.mark.parametrize("page", MIGRATION)
def test_right_hand_names_exist(page):
    roots, checked = root_objects(), 0
    for cells in rows(page):
        for span in re.findall(r"`([^`]+)`", cells[1]):
            check_here(span, roots)
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("span", ["TFNoSuchModel", "model.no_such_method", "tf_pipeline.tokenization.nothing", "x=1"])
def test_a_name_that_is_missing_is_noticed(span):
    with pytest.raises((AssertionError, AttributeError, ImportError)):
        check_here(span, root_objects())


def test_left_hand_names_of_pytorch_exist():
    for cells in rows("from_pytorch.md"):
        name = re.match(r"`([A-Z]\w+)", cells[0])
        if name and name[1] not in ("DataLoader",):
            assert hasattr(transformers, name[1]), cells[0]
        for span in re.findall(r"`torch\.([\w.]+)", cells[0]):
            found = torch
            for part in span.split("."):
                found = getattr(found, part)


def test_left_hand_names_of_keras_hub_exist():
    pytest.importorskip("keras_hub")
    import keras_hub

    for cells in rows("from_keras_hub.md"):
        for kind, name in re.findall(r"`keras_hub\.(models|samplers)\.(\w+)", cells[0]):
            assert hasattr(getattr(keras_hub, kind), name), cells[0]


def test_tasks_of_coverage_are_those_of_the_pipelines(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    coverage = importlib.import_module("coverage")
    for auto, tasks in coverage.PIPELINES.items():
        for task in tasks:
            assert pipeline_class(task).auto_class().__name__ == auto
            assert (task in REMOTE_TASKS) == (task in EXPORTED)


@pytest.mark.parametrize("name", ["bundled", "minilm"])
def test_a_certificate_says_what_the_page_says(name):
    page = (DOCS / "certificates.md").read_text(encoding="utf-8")
    report = (DOCS / "certificates" / f"{name}.html").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if f"(certificates/{name}.html)" in line)
    count = re.search(r"\| ([\d,]+) \|", row)[1].replace(",", "")
    model = re.search(r"`(TF\w+)`", row)[1]
    assert re.search(rf"all {count}\s+checks passed", report) and model in report


# ----------------------------------------------------------------------------------------------------- reference


@cache
def documented() -> set[str]:
    """The objects of the reference."""
    texts = [path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md")] + [hooks().family_page()]
    return {name for text in texts for name in re.findall(r"^::: (\S+)", text, flags=re.MULTILINE)}


def test_the_reference_has_every_public_name():
    for name in set(tf_pipeline.__all__) - {"__version__", "GenerationConfig"}:
        value = getattr(tf_pipeline, name)
        assert f"{value.__module__}.{value.__name__}" in documented(), name
    for model_type, names in supported_models().items():
        module = model_type.replace("-", "_")
        assert {f"tf_pipeline.models.{module}.{name}" for name in names} <= documented()


@pytest.mark.parametrize("module", ["serving", "port", "tokenization", "tokenization.in_graph", "parity", "pipelines"])
def test_the_reference_has_every_public_name_of_a_package(module):
    package = importlib.import_module(f"tf_pipeline.{module}")
    for name in set(package.__all__) - {"GROUPS", "SAMPLE_TEXTS"}:
        value = getattr(package, name)
        places = {f"{value.__module__}.{value.__name__}", f"{package.__name__}.{name}"}
        assert places & documented(), name


def test_what_the_reference_names_exists():
    for name in documented():
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last) or importlib.util.find_spec(name), name


# ---------------------------------------------------------------------------------------------------------- site


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as they are named where the repository is browsed."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_links_lead_somewhere():
    made = {DOCS / "api" / "families.md"}
    for page in {*PAGES, *ROOT.glob("*.md"), *(DOCS / "api").glob("*.md"), ROOT / "examples" / "README.md"}:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?[^)]*\)", text):
            found = (page.parent / target).resolve() if target else page
            assert found in made or found.exists(), f"{page.name}: {target}"
            inside = found.is_relative_to(DOCS) or str(found.relative_to(ROOT)) in hooks().outside()
            assert inside or not page.is_relative_to(DOCS), f"{page.name}: {target} is no page of the site"
            if anchor and found.suffix == ".md":
                assert anchor in anchors(found), f"{page.name}: {target}#{anchor}"


def test_links_turn_to_pages():
    relink = hooks().relink
    assert relink("[a](../examples/course.ipynb)", "serving.md") == "[a](examples/course.md)"
    assert relink("[a](docs/parity.md#rules)", "project/contributing.md") == "[a](../parity.md#rules)"
    assert relink("[a](01_behind_the_pipeline.py)", "examples/index.md") == "[a](01_behind_the_pipeline.md)"
    assert relink("[a](port.md) [b](https://x.org/a.md)", "serving.md") == "[a](port.md) [b](https://x.org/a.md)"


def test_references_of_docstrings_turn_to_links():
    html = hooks().on_page_content("<p>see :func:<code>~a.b.c</code> and <code>:d</code></p>")
    assert html == '<p>see <autoref identifier="a.b.c" optional><code>a.b.c</code></autoref> and <code>:d</code></p>'


def test_drawings_are_those_of_the_script():
    spec = importlib.util.spec_from_file_location("drawings", DOCS / "site" / "drawings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = {path.stem for path in module.FOLDER.glob("*.svg") if not path.stem.startswith("terminal_")}
    assert drawn == set(module.DRAWINGS)
    for name, draw in module.DRAWINGS.items():
        stored = (module.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
        assert stored == draw().svg(), "run python docs/site/drawings.py"


def test_every_guide_has_its_place_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [path.name for path in DOCS.glob("*.md") if f" {path.name}" not in navigation]
    assert not missing, missing


def test_a_notebook_shows_what_was_printed():
    page = hooks().notebook_page(Path(ROOT / "examples" / "course.ipynb"))
    assert "The pipeline says" in page.split("```text", 1)[1]


# ------------------------------------------------------------------------------------------------------- metadata

# Packages that code imports and no list has, because one that is listed brings them, in the releases that it needs.
BROUGHT = {
    "google": "tensorflow", "grpc": "tensorflow-serving-api", "markupsafe": "jinja2", "sympy": "torch",
    "tokenizers": "transformers",
}  # fmt: skip
PACKAGE_OF = {"PIL": "pillow", "tensorflow_serving": "tensorflow-serving-api"}


@cache
def requirements() -> ConfigParser:
    """The metadata of the package."""
    found = ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def required(text: str) -> set[str]:
    """The names of the packages in a list of requirements."""
    return {canonicalize_name(Requirement(line).name) for line in text.split()}


def test_every_package_that_is_imported_is_required():
    listed = required(requirements()["options"]["install_requires"])
    extras = {name: required(text) for name, text in requirements()["options.extras_require"].items()}
    for name in {"audio", "beam", "openvino", "parity", "serving", "tables", "train", "vision"}:
        listed |= extras[name]
    imported = set()
    for path in (ROOT / "tf_pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    imported -= {*sys.stdlib_module_names, "tf_pipeline"}
    assert set(BROUGHT) <= imported and set(BROUGHT.values()) <= listed
    missing = {canonicalize_name(PACKAGE_OF.get(name, name)) for name in imported - set(BROUGHT)} - listed
    assert not missing, missing


def test_the_quick_start_has_the_extras_of_users():
    extras = set(requirements()["options.extras_require"]) - {"bench", "dev", "docs", "release", "test"}
    page = (DOCS / "quick_start.md").read_text(encoding="utf-8")
    assert {name for name in extras if f"[{name}]" not in page} == set()


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {tf_pipeline.__version__}\n" in citation
    version, released = re.search(
        r"^## (\S+) \((.*)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    ).groups()
    assert version == tf_pipeline.__version__
    dated = re.search(r"^date-released: (.*)$", citation, flags=re.MULTILINE)
    assert released == (dated[1] if dated else "unreleased")


def test_the_lock_has_what_is_required_and_within_its_bounds():
    lines = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [
        *requirements()["options"]["install_requires"].split(),
        *requirements()["options.extras_require"]["test"].split(),
    ]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(pinned[name]), requirement
