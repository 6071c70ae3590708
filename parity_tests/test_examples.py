"""The examples' index names them all, and the notebook is made of them and runs."""

import ast
import json
import re

import nbclient
import nbformat
import pytest

from parity_tests.course_notebook import EXAMPLES, NOTEBOOK, notebook, scripts

INDEX = (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_the_index_lists_every_example():
    listed = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\) \|", INDEX, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)
def test_a_script_is_short_and_says_which_question_it_answers(script):
    source = script.read_text(encoding="utf-8")
    question = re.search(
        r"^Question: (.*?)\n\n?\Z", ast.get_docstring(ast.parse(source)) + "\n", re.DOTALL | re.MULTILINE
    )
    assert len(source.splitlines()) <= 66
    assert " ".join(question[1].split()) in " ".join(INDEX.split())


def test_the_notebook_is_made_of_the_scripts():
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert stored == notebook(), "run python -m parity_tests.course_notebook"
    nbformat.validate(nbformat.from_dict(stored))
    assert all(not cell["outputs"] for cell in stored["cells"] if cell["cell_type"] == "code")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    run = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(run, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.text for cell in run.cells if cell.cell_type == "code" for output in cell.outputs if "text" in output
    )
    assert "The pipeline says [{'label': 'POSITIVE'" in printed and "mean over all windows" in printed
