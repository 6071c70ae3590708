"""What the README promises is there."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.tiny import OTHER_TYPES
from tf_pipeline.auto import model_table, supported_models
from tf_pipeline.pipelines import supported_tasks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_models_is_the_codes():
    assert f"\n\n{model_table()}\n\n" in README, "put what `python -m tf_pipeline.auto` prints into the README"
    assert all(f"`{name}`" in model_table() for names in supported_models().values() for name in names)


@pytest.mark.parametrize("task", supported_tasks())
def test_every_task_is_named(task):
    assert f"`{task}`" in README


def test_coverage_is_what_was_measured():
    results = json.loads((ROOT / "docs" / "coverage.json").read_text(encoding="utf-8"))
    outcomes = [result["outcome"] for name, result in results.items() if name not in OTHER_TYPES]
    equal = outcomes.count("equal")
    share = equal / (equal + outcomes.count("refused"))
    words = " ".join(README.split())
    assert f"Of the {len(outcomes)} text architectures of" in words
    assert f"{equal} are equal to PyTorch, {share:.1%} of those that `torch.export` captures" in words


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_examples_compile():
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        compile(block, "README.md", "exec")
