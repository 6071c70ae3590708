"""What the README and the page of models promise is there."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.tiny import OTHER_TYPES
from tf_pipeline.auto import model_table, supported_models
from tf_pipeline.pipelines import supported_tasks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
PIPELINES = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")


def test_the_table_of_models_is_the_codes():
    assert f"\n\n{model_table()}\n\n" in MODELS, "put what `python -m tf_pipeline.auto` prints into docs/models.md"
    assert f"{len(supported_models())} families are written in Keras" in README
    assert all(f"`{name}`" in model_table() for names in supported_models().values() for name in names)


@pytest.mark.parametrize("task", supported_tasks())
def test_every_task_is_named(task):
    assert f"`{task}`" in PIPELINES


def test_coverage_is_what_was_measured():
    results = json.loads((ROOT / "docs" / "coverage.json").read_text(encoding="utf-8"))
    outcomes = [result["outcome"] for name, result in results.items() if name not in OTHER_TYPES]
    equal = outcomes.count("equal")
    share = equal / (equal + outcomes.count("refused"))
    words, short = " ".join(MODELS.split()), " ".join(README.split())
    assert f"Of the {len(outcomes)} text architectures of" in words
    assert f"{equal} are equal to PyTorch, {share:.1%} of those that `torch.export` captures" in words
    assert (
        f"of the {len(outcomes)} text architectures of `transformers`, {equal} are equal to PyTorch as ports" in short
    )


def test_numbers_are_the_same_on_every_page():
    results = json.loads((ROOT / "docs" / "coverage.json").read_text(encoding="utf-8"))
    outcomes = [result["outcome"] for name, result in results.items() if name not in OTHER_TYPES]
    families, equal, texts = len(supported_models()), outcomes.count("equal"), len(outcomes)
    index, comparison, port = (
        " ".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").split())
        for name in ("index", "comparison", "port")
    )
    assert f"{families} are written in Keras; of the {texts} text architectures of `transformers`, {equal} are" in index
    assert f"| {families} in Keras, and {equal} of {texts} for text as [ports]" in comparison
    assert f"; {families} have a module of their own here" in port
    assert f"[{len(supported_tasks())} names](pipelines.md#tasks)" in comparison


def test_it_is_short_and_has_the_commands_that_ci_runs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r"readme_command '([^']+)'", script)
    assert len(commands) == 2
    for command in commands:
        assert sum(command in line for line in README.splitlines()) == 1
    assert len(README.splitlines()) < 120 and README.count("```python") == 3
