"""What the README promises is there."""

import re
from pathlib import Path

import pytest

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


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_examples_compile():
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        compile(block, "README.md", "exec")
