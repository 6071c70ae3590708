"""The style of docstrings and guides, as far as it can be told by a pattern, and the operators that rules name."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from tf_pipeline.port.rules import RULES

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "tf_pipeline").rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
GUIDES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "tf_pipeline").rglob("README.md")),
]
# Paragraphs, items and headings; tables, code and generated pages have lines of any length.
WIDEST = 140

# A docstring starts with a verb or with the thing returned.
FIRST_WORDS = re.compile(r"(what|where|which|how|by)\b", re.IGNORECASE)
_EACH = "batch|family|file|head|layer|line|mask|row|second|task|text|token|window|word"
PHRASES = {
    "again, or from scratch": re.compile(r"\banew\b", re.IGNORECASE),
    "differently": re.compile(
        r"\botherwise than\b|\b(comes?|came|comput\w+|counted|named?|read|round(ed|s)|written)( out)? otherwise\b",
        re.IGNORECASE,
    ),
    "maximum number of, or at most": re.compile(
        r"(^ *(- )?[`\w]+: (the )?|^)most (characters|rows|spans|texts|tokens)\b", re.IGNORECASE | re.MULTILINE
    ),
    "per": re.compile(rf"\b(lists?|numbers|one|rows|texts|tokens|values?|vectors?|once) an? ({_EACH})\b"),
    "next to, or besides": re.compile(r"(?<!`)\bbeside\b(?![`:])", re.IGNORECASE),
}


@cache
def docstrings() -> list[tuple[str, str]]:
    """Places and texts of the docstrings of modules and examples, their classes and functions, nested ones included."""
    return [
        (f"{path.relative_to(ROOT)}:{node.body[0].lineno}", text)
        for path in SOURCES + EXAMPLES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if (text := ast.get_docstring(node)) is not None
    ]


def complaints(text: str) -> list[str]:
    """The phrases of a text that have a plainer form, each with that form."""
    return [f"{hit.group()!r}: {better}" for better, phrase in PHRASES.items() for hit in phrase.finditer(text)]


def test_docstrings_start_with_a_verb_or_the_thing_returned():
    wrong = [f"{place}: {text.splitlines()[0]}" for place, text in docstrings() if FIRST_WORDS.match(text)]
    assert not wrong, "\n".join(wrong)


def test_docstrings_are_plain():
    wrong = [f"{place}: {complaint}" for place, text in docstrings() for complaint in complaints(text)]
    assert not wrong, "\n".join(wrong)


def test_guides_are_plain():
    wrong = [
        f"{path.name}: {complaint}" for path in GUIDES for complaint in complaints(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_guides_are_wrapped():
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in GUIDES
        if path.name != "coverage.md"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > WIDEST and not line.startswith(("|", "<!--", "{"))
    ]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize(
    "text",
    [
        "Draw anew.",
        "It rounds otherwise.",
        "Done otherwise than there.",
        "Most tokens of it.",
        "Args:\n    n: most texts.",
        "One vector a text.",
        "A file beside it.",
    ],
)
def test_each_phrase_is_noticed(text):
    assert complaints(text)


@pytest.mark.parametrize(
    "text",
    ["One of these, otherwise none.", "Most of the tokens.", "Reads a text or a token.", "``beside`` it; besides."],
)
def test_other_phrases_pass(text):
    assert not complaints(text)


def schema(operator: str) -> str:
    """PyTorch's schema of an operator such as ``aten.add.Tensor``."""
    _, name, overload = operator.split(".")
    return str(getattr(getattr(torch.ops.aten, name), overload)._schema)


def test_rules_show_the_schemas_of_their_operators():
    written = {name: rule.function.__doc__ for name, rule in RULES.items() if name.startswith("aten.")}
    written = {name: " ".join(text.split()) for name, text in written.items() if text}
    assert len(written) > 300
    # Releases of PyTorch add arguments, so that only names and overloads are the same in all of them.
    exact = torch.__version__.startswith("2.13.")
    missing = [
        expected
        for name, text in written.items()
        if (expected := schema(name) if exact else schema(name).partition("(")[0] + "(") not in text
    ]
    assert not missing, "\n".join(missing)
