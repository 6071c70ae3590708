"""Times of Whisper's tokens are those that ``transformers`` computes from the same attentions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.whisper.generation_whisper import (
    WhisperGenerationMixin,
    _dynamic_time_warping,
    _median_filter,
)

from tf_pipeline.pipelines.whisper_words import first_columns, median_filtered, token_times

POSITIONS, WIDTH = 40, 7


def attentions(seed: int, tokens: int) -> np.ndarray:
    """Attention of three heads, which follows a sound that is said at a changing speed."""
    drawn = np.random.default_rng(seed)
    places = np.sort(drawn.uniform(0, POSITIONS, tokens))[:, np.newaxis]
    scores = -((np.arange(POSITIONS) - places) ** 2) / 20 + drawn.normal(0, 1, (3, tokens, POSITIONS))
    return torch.from_numpy(scores).softmax(-1).numpy().astype(np.float32)


def expected(values: np.ndarray, frames: int) -> np.ndarray:
    """PyTorch's times of the tokens behind the first two, from attention of as many steps as there are tokens."""
    model = SimpleNamespace(config=SimpleNamespace(decoder_layers=1, median_filter_width=WIDTH))
    steps = np.concatenate([np.ones((3, 2, POSITIONS), np.float32), values], axis=1)
    outputs = {"cross_attentions": [[torch.from_numpy(steps)[np.newaxis]]], "sequences": torch.zeros(1, 1)}
    return WhisperGenerationMixin._extract_token_timestamps(
        model, _Outputs(outputs), [(0, 0), (0, 1), (0, 2)], num_frames=torch.tensor([frames]), num_input_ids=2
    )[0, 2:].numpy()


class _Outputs(dict):
    __getattr__ = dict.__getitem__


# The sound fills the window, ends in it, or ended before it; and has fewer positions than the median looks at.
@pytest.mark.parametrize("frames", [80, 61, 30, 9, 6, 5, 3, 1, 0, -1, -13, -40, -200])
def test_times_are_those_of_pytorch(frames):
    found = set()
    for seed in range(3):
        for tokens in (1, 2, 5, 17, 60):
            values = attentions(seed, tokens)
            times = token_times(values, frames, WIDTH)
            assert times.dtype == np.float32 and times.shape == (tokens + 1,)
            np.testing.assert_array_equal(times, expected(values, frames))
            found |= {*times.tolist()}
    assert len(found) > 9 or frames < 30


def test_times_of_no_tokens_and_of_heads_that_do_not_move():
    nothing = token_times(np.zeros((3, 0, POSITIONS), np.float32), 80, WIDTH)
    np.testing.assert_array_equal(nothing, expected(np.zeros((3, 0, POSITIONS), np.float32), 80))
    for still in (slice(None), slice(5, 9), slice(30, None)):  # no deviation: not a number
        values = attentions(0, 9)
        values[1, :, still] = 0
        np.testing.assert_array_equal(token_times(values, 80, WIDTH), expected(values, 80))


@pytest.mark.parametrize("width", [1, 3, 7])
def test_medians_are_those_of_pytorch(width):
    for positions in (1, 2, 3, 4, 8, 30):
        values = np.random.default_rng(positions).normal(size=(2, 3, positions)).astype(np.float32)
        values[0, 0, 0] = np.nan
        filtered = _median_filter(torch.from_numpy(values), width).numpy()
        np.testing.assert_array_equal(median_filtered(values, width), filtered)


def test_ways_are_those_of_pytorch():
    """Of costs that are often alike, so that ties decide."""
    drawn = np.random.default_rng(0)
    for rows in (1, 2, 3, 9):
        for columns in (0, 1, 2, 9, 20):
            for _ in range(4):
                costs = drawn.integers(-2, 3, (rows, columns)) + drawn.integers(0, 2) * drawn.normal(size=(1, columns))
                text, time = _dynamic_time_warping(costs)
                np.testing.assert_array_equal(first_columns(costs), time[np.diff(text, prepend=-1) > 0])
