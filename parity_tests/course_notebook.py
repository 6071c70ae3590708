"""Makes the notebooks of the course from the scripts: ``python -m parity_tests.course_notebook``.

The docstring of a script becomes a heading, and each part after ``# %%`` a cell of text and one of code. With
``--outputs`` the notebooks are run, and what they print is written to ``examples/outputs.json``, which the site shows.
"""

import ast
import json
import re
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "course.ipynb"
CHAPTER_1 = EXAMPLES / "chapter_1.ipynb"
OUTPUTS = EXAMPLES / "outputs.json"

INTRODUCTION = """# From a text to its label, step by step

The experiments of chapter 2 of the Hugging Face course, on TensorFlow and Keras. Made from the numbered scripts in this
folder by `python -m parity_tests.course_notebook`; change those. Run all cells from the top: nothing is downloaded."""


INTRODUCTION_1 = """# Pipelines, one after the other

Chapter 1 of the Hugging Face course, on TensorFlow and Keras. Made from `chapter_1_pipelines.py` by
`python -m parity_tests.course_notebook`; change that. Run all cells from the top: nothing is downloaded."""


def scripts() -> list[Path]:
    """The numbered scripts, in order."""
    return sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))


def cells_of(script: Path) -> list[tuple[str, str]]:
    """Kind and text of each cell that a script makes."""
    source = script.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    first, *paragraphs = docstring.split("\n\n")
    number, title = script.stem.split("_", 1) if script.stem[0].isdigit() else ("", "The pipelines")
    heading = f"## {number.lstrip('0')}{'. ' if number else ''}{title.replace('_', ' ').capitalize()}"
    cells = [("markdown", "\n\n".join([heading, first, *(f"*{text}*" for text in paragraphs)]))]
    body = source.split('"""', 2)[2].strip()
    for part in re.split(r"^# %% ", "# %% \n" + body, flags=re.MULTILINE)[1:]:
        title, _, code = part.partition("\n")
        # A comment that goes on over several lines.
        while code.startswith("# ") and title:
            line, code = code.split("\n", 1) if "\n" in code else (code, "")
            title += " " + line.removeprefix("# ")
        if title.strip():
            cells.append(("markdown", title.strip()))
        if code.strip():
            cells.append(("code", code.strip()))
    return cells


def notebooks() -> dict[Path, dict]:
    """The notebooks by their files, without outputs."""
    chapter_2 = [("markdown", INTRODUCTION), *(cell for script in scripts() for cell in cells_of(script))]
    chapter_1 = [("markdown", INTRODUCTION_1), *cells_of(EXAMPLES / "chapter_1_pipelines.py")]
    return {NOTEBOOK: _notebook(chapter_2), CHAPTER_1: _notebook(chapter_1)}


def printed(file: Path) -> dict[str, str]:
    """Run a notebook, and return the texts that its cells print, by their ids, without the folder of the package."""
    import nbclient
    import nbformat

    run = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(run, timeout=600, resources={"metadata": {"path": folder}}).execute()
    texts = {
        cell.id: "".join(one.text for one in cell.outputs if one.get("name") == "stdout")
        for cell in run.cells
        if cell.cell_type == "code"
    }
    return {name: re.sub(r"\S*/(?=tf_pipeline/)", "…/", text) for name, text in texts.items() if text}


def _notebook(cells: list[tuple[str, str]]) -> dict:
    return {
        "cells": [
            {"cell_type": kind, "id": f"cell-{place:03}", "metadata": {}, "source": text.splitlines(keepends=True)}
            | ({"execution_count": None, "outputs": []} if kind == "code" else {})
            for place, (kind, text) in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


if __name__ == "__main__":
    for file, content in notebooks().items():
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if "--outputs" in sys.argv:
        text = json.dumps({file.name: printed(file) for file in notebooks()}, indent=1, ensure_ascii=False)
        OUTPUTS.write_text(text + "\n", encoding="utf-8")
