"""The one error of compiling a tokenizer, and where it comes from most."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class UnsupportedTokenizer(ValueError):
    """A part of a tokenizer cannot be compiled exactly; the message names it and the supported ones."""


def compiled_by(table: Mapping[str, T], kind: str, what: str) -> T:
    """Find the function that compiles a type of component.

    Args:
        table: all that are compiled, by the type in tokenizer.json.
        kind: the type.
        what: name of the component in the message.

    Raises:
        UnsupportedTokenizer: for a type that is not in the table; the message lists those that are.
    """
    if kind not in table:
        raise UnsupportedTokenizer(f"{what} {kind!r} is not compiled; {', '.join(sorted(table))} are.")
    return table[kind]
