"""Cut tokenized texts into batches of like length, so that little padding is computed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def batches_by_length(lengths: Sequence[int], token_budget: int, batch_size: int | None = None) -> Iterator[list[int]]:
    """Yield groups of indices, longest texts first, so that a batch too large for memory fails at once.

    Args:
        lengths: number of tokens of each text.
        token_budget: most tokens in a batch, padding included; a longer text gets a batch of its own.
        batch_size: most texts in a batch, if given.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, lengths[order[start]]))
        if batch_size is not None:
            rows = min(rows, batch_size)
        yield order[start : start + rows]
        start += rows


def pad_rows(rows: Sequence[Sequence[int]], value: int, side: str, multiple: int | None = None) -> np.ndarray:
    """Stack rows of unequal length into an int32 array ``[rows, longest]``, filled up with ``value`` on ``side``."""
    length = max(map(len, rows))
    if multiple:
        length = -(-length // multiple) * multiple
    padded = np.full((len(rows), length), value, np.int32)
    for target, row in zip(padded, rows, strict=True):
        if side == "right":
            target[: len(row)] = row
        else:
            target[length - len(row) :] = row
    return padded


def padding_values(tokenizer: Any) -> dict[str, int]:
    """What each input is padded with."""
    return {
        "input_ids": tokenizer.pad_token_id or 0,
        "token_type_ids": tokenizer.pad_token_type_id,
        "attention_mask": 0,
    }
