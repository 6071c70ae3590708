"""Cut tokenized texts into batches of like length, so that little padding is computed."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

# Seconds of reading after which inputs that came slowly are answered, however few they are.
PATIENCE = 1.0


def windows(inputs: Iterable[Any], most: int, characters: float = inf, first: int = 1) -> Iterator[list[Any]]:
    """Cut inputs into lists, which grow where inputs are read as they come, so that the first is soon there.

    Inputs that were read before ``inputs`` raises are yielded first.

    Args:
        inputs: a sequence, which is cut into lists as long as possible, or any iterable.
        most: maximum number of inputs in a list.
        characters: number of characters that end a list.
        first: number of inputs in the first list of an iterable; each further one may hold twice as many.
    """
    size = most if isinstance(inputs, Sequence) else min(first, most)
    source = iter(inputs)
    failure = None
    while True:
        window, read, begun = [], 0, time.monotonic()
        try:
            while len(window) < size and read < characters and time.monotonic() < begun + PATIENCE:
                window.append(next(source))
                read += number_of_characters(window[-1])
        except StopIteration:
            size = 0
        except Exception as error:
            size, failure = 0, error
        if window:
            yield window
        if not size:
            break
        size = min(2 * size, most)
    if failure is not None:
        raise failure


def number_of_characters(value: Any) -> int:
    """Characters, or bytes, of an input of whatever form."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return sum(map(number_of_characters, value))
    return len(value) if isinstance(value, (str, bytes)) else 0


def batches_by_length(lengths: Sequence[int], token_budget: int, batch_size: int | None = None) -> Iterator[list[int]]:
    """Yield groups of indices, longest texts first, so that a batch too large for memory fails at once.

    Args:
        lengths: number of tokens of each text.
        token_budget: maximum number of tokens in a batch, padding included; a longer text gets a batch of its own.
        batch_size: maximum number of texts in a batch, if given.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, lengths[order[start]]))
        if batch_size is not None:
            rows = min(rows, batch_size)
        yield order[start : start + rows]
        start += rows


def pad_rows(rows: Sequence[Sequence[Any]], value: int, side: str, multiple: int | None = None) -> np.ndarray:
    """Stack rows of unequal length into an int32 array ``[rows, longest, …]``, filled up with ``value`` on ``side``."""
    length = max(map(len, rows))
    if multiple:
        length = -(-length // multiple) * multiple
    padded = np.full((len(rows), length, *np.shape(rows[0])[1:]), value, np.int32)
    for target, row in zip(padded, rows, strict=True):
        if side == "right":
            target[: len(row)] = row
        else:
            target[length - len(row) :] = row
    return padded


def padding_values(tokenizer: Any) -> dict[str, int]:
    """The value that each input is padded with."""
    return {
        "input_ids": tokenizer.pad_token_id or 0,
        "token_type_ids": tokenizer.pad_token_type_id,
        "attention_mask": 0,
    }
