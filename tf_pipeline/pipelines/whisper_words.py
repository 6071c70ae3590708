"""Find when each token of Whisper was said, from the attention of the decoder to the sound.

Follows ``_extract_token_timestamps`` of ``transformers``.
"""

import numpy as np

# Seconds between two positions of the encoder, and features for each of them.
SECONDS, FEATURES = 0.02, 2


def token_times(attentions: np.ndarray, frames: int, width: int) -> np.ndarray:
    """Return the seconds at which tokens end, and once more the last one, for a token that no attention is known of.

    Args:
        attentions: float ``[heads, tokens, positions]``, by which each token was chosen.
        frames: of features that the sound still has. Negative behind its end: so many are cut off the window, and as
            many again, as in PyTorch.
        width: odd number of positions whose median is taken.

    Returns:
        Float32 ``[tokens + 1]``; 0 if there are no tokens.
    """
    if not attentions.shape[1]:
        return np.zeros(1, np.float32)
    for _ in range(2):
        attentions = attentions[..., : frames // FEATURES]
    with np.errstate(invalid="ignore", divide="ignore"):  # of one token there is no deviation
        attentions = (attentions - attentions.mean(-2, keepdims=True)) / attentions.std(-2, keepdims=True)
    followed = median_filtered(attentions, width).mean(0)
    times = (first_columns(-followed.astype(np.float64)) * SECONDS).astype(np.float32)
    return np.append(times, times[-1])


def median_filtered(values: np.ndarray, width: int) -> np.ndarray:
    """Replace values ``[…, positions]`` by the median of those around them, mirrored at both ends.

    Args:
        values: of which those with no more positions than half a width stay as they are; NaN counts as the greatest.
        width: odd number of values.
    """
    half = width // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    return np.sort(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)[..., half]


def first_columns(costs: np.ndarray) -> np.ndarray:
    """Return the first column of each row on the cheapest way from the first cell to the last (dynamic time warping).

    A way goes to the right, down, or both. Sums are kept in float32 and ties go to the right, as in PyTorch's pipeline.

    Args:
        costs: float64 ``[rows, columns]``.

    Returns:
        Int ``[rows]``; -1 where no way is known, because costs are NaN or there are no columns.
    """
    rows, columns = costs.shape
    steps = _steps(costs)
    first = np.empty(rows, np.int64)
    row, column = rows, columns
    while row > 0:
        first[row - 1] = column - 1
        step = steps[row, column]
        row, column = row - (step != _RIGHT), column - (step != _DOWN)
    return first


_BOTH, _DOWN, _RIGHT = 0, 1, 2


def _steps(costs: np.ndarray) -> np.ndarray:
    """The last step of the cheapest way to each cell, int8 ``[rows + 1, columns + 1]``, diagonal after diagonal."""
    rows, columns = costs.shape
    steps = np.full((rows + 1, columns + 1), _RIGHT, np.int8)
    steps[:, 0] = _DOWN
    mirrored = costs[:, ::-1]
    # Sums by row on the last diagonal but one, and on the last one.
    earlier, last = (np.full(rows + 1, np.inf, np.float32) for _ in range(2))
    earlier[0] = 0
    for diagonal in range(2, rows + columns + 1):
        cells = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        both, down, right = earlier[cells - 1], last[cells - 1], last[cells]
        step = np.where((down < both) & (down < right), _DOWN, _RIGHT)
        step[(both < down) & (both < right)] = _BOTH
        sums = np.full(rows + 1, np.inf, np.float32)
        sums[cells] = mirrored.diagonal(columns + 1 - diagonal) + np.choose(step, (both, down, right))
        steps[cells, diagonal - cells] = step
        earlier, last = last, sums
    return steps
