"""Which tests run by default, and which only in the exhaustive suite (``pytest -m slow``)."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def exhaustive(values: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Values for ``pytest.mark.parametrize``, all of which but the ``quick`` ones are marked slow."""
    values = list(values)
    assert all(value in values for value in quick), f"{quick} are not all among the values"
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
