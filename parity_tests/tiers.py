"""Which tests run by default, and which only in the exhaustive suite (``pytest -m slow``)."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from tf_pipeline.pipelines.tasks import TASKS

# Tasks in tests of all of them, without those whose code another shares, and one whose model takes long to port.
QUICK_TASKS = TASKS.keys() - {
    "audio-classification", "automatic-speech-recognition", "image-feature-extraction", "summarization",
    "table-question-answering", "text2text-generation", "zero-shot-image-classification",
}  # fmt: skip


def exhaustive(values: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Values for ``pytest.mark.parametrize``, all of which but the ``quick`` ones are marked slow."""
    values = list(values)
    assert all(value in values for value in quick), f"{quick} are not all among the values"
    return [value if value in quick else _slow(value) for value in values]


def thinned(values: Iterable[Any], step: int) -> list[Any]:
    """Values for ``pytest.mark.parametrize``, of which the first of every ``step`` runs by default."""
    values = list(values)
    return exhaustive(values, values[::step])


def _slow(value: Any) -> Any:
    """A parameter, or a tuple of several, that runs in the exhaustive suite alone."""
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
