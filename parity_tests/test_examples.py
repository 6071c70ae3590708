"""The examples' index names them all, and the notebook is made of them and runs."""

import ast
import json
import re

import nbformat
import pytest

from parity_tests.course_notebook import EXAMPLES, NOTEBOOK, OUTPUTS, notebooks, printed, scripts

INDEX = (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_the_index_lists_every_example():
    listed = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\) \|", INDEX, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))


def test_the_index_asks_questions():
    questions = re.findall(r"^\| \[[^\]]+\]\([^)]+\) \| (.*) \|$", INDEX, flags=re.MULTILINE)
    assert len(questions) == INDEX.count("\n| [")
    assert not [text for text in questions if not re.match(r"[A-Z]", text) or "?" not in text]


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)
def test_a_script_is_short_and_says_which_question_it_answers(script):
    source = script.read_text(encoding="utf-8")
    question = re.search(
        r"^Question: (.*?)\n\n?\Z", ast.get_docstring(ast.parse(source)) + "\n", re.DOTALL | re.MULTILINE
    )
    assert len(source.splitlines()) <= 66
    assert f"| {' '.join(question[1].split())} |".replace("``", "`") in INDEX


@pytest.mark.parametrize("file", notebooks(), ids=lambda file: file.name)
def test_a_notebook_is_made_of_the_scripts(file):
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert stored == notebooks()[file], "run python -m parity_tests.course_notebook"
    nbformat.validate(nbformat.from_dict(stored))
    assert all(not cell["outputs"] for cell in stored["cells"] if cell["cell_type"] == "code")


def test_outputs_are_of_cells_that_there_are():
    for name, texts in json.loads(OUTPUTS.read_text(encoding="utf-8")).items():
        cells = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]
        assert texts and set(texts) <= {cell["id"] for cell in cells if cell["cell_type"] == "code"}


def words(texts: dict[str, str]) -> dict[str, list[str]]:
    """Words of an output that no rounding changes: whole ones with small letters alone."""
    return {name: re.findall(r"(?<![\w'])[a-z_]{4,}(?![\w'])", text.split("[{")[0]) for name, text in texts.items()}


@pytest.mark.slow
def test_the_course_runs_and_prints_what_the_site_shows():
    texts = printed(NOTEBOOK)
    whole = "".join(texts.values())
    assert "The pipeline says [{'label': 'POSITIVE'" in whole and "mean over all windows" in whole
    assert words(texts) == words(json.loads(OUTPUTS.read_text(encoding="utf-8"))[NOTEBOOK.name])
