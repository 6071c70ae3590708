"""Makes ``examples/course.ipynb`` from the numbered scripts: ``python -m parity_tests.course_notebook``.

The docstring of a script becomes a heading, and each part after ``# %%`` a cell of text and one of code.
"""

import ast
import json
import re
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "course.ipynb"

INTRODUCTION = """# From a text to its label, step by step

The experiments of chapter 2 of the Hugging Face course, on TensorFlow and Keras. Made from the numbered scripts in this
folder by `python -m parity_tests.course_notebook`; change those. Run all cells from the top: nothing is downloaded."""


def scripts() -> list[Path]:
    """The numbered scripts, in order."""
    return sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))


def cells_of(script: Path) -> list[tuple[str, str]]:
    """Kind and text of each cell that a script makes."""
    source = script.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    first, *paragraphs = docstring.split("\n\n")
    number, title = script.stem.split("_", 1)
    heading = f"## {int(number)}. {title.replace('_', ' ').capitalize()}"
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


def notebook() -> dict:
    """The notebook, without outputs."""
    cells = [("markdown", INTRODUCTION), *(cell for script in scripts() for cell in cells_of(script))]
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
    NOTEBOOK.write_text(json.dumps(notebook(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
