"""JSON of rows, read strictly: what other readers would refuse or read differently is an error."""

import json
from collections import Counter
from typing import Any

# Digits that Python turns into a number by default (sys.set_int_max_str_digits).
MAX_DIGITS = 4300


def loads(text: str, has_constants: bool = False) -> Any:
    """The JSON value of a text.

    Args:
        text: the text.
        has_constants: whether ``NaN``, ``Infinity`` and ``-Infinity`` are read, which JSON does not have.

    Raises:
        ValueError: for a text that is not JSON, an object that has a key twice, and a value that cannot be held.
    """
    constants = {} if has_constants else {"parse_constant": _refuse_constant}
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=_object, **constants)
    except RecursionError:
        raise ValueError("The row is nested too deeply.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"A number has {len(digits.lstrip('-'))} digits; at most {MAX_DIGITS} are read.")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of which Python would keep the last of equal keys, and others the first."""
    values = dict(pairs)
    if len(values) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"The key {name!r:.80} is there more than once.")
    return values
