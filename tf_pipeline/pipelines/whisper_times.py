"""Apply Whisper's timestamp rules: which timestamp tokens are allowed, and the start of the next window.

Follows ``WhisperTimeStampLogitsProcessor`` and ``_retrieve_segment`` of ``transformers``.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

_OUT = float("-inf")


class TimesInPairs(NamedTuple):
    """A logits processor: times come in pairs, and never go back.

    Attributes:
        begin: number of tokens that a text begins with.
        first: the token of the time 0.
        end: the token that ends a text.
        latest: how many times after 0 a text may begin with; ``None`` for any.
    """

    begin: int
    first: int
    end: int
    latest: int | None

    def __call__(self, input_ids: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Scores ``[rows, vocab]`` of the token behind ``input_ids`` ``[rows, length]``, the impossible ruled out."""
        new = input_ids[:, self.begin :]
        count, is_time = tf.shape(new)[1], new >= self.first
        padded = tf.pad(is_time, [[0, 0], [2, 0]])
        closes = padded[:, -1:] & ((count < 2) | padded[:, -2:-1])
        opens = padded[:, -1:] & ~closes
        last = tf.reduce_max(tf.where(is_time, new, -1), axis=1, keepdims=True)
        least = tf.where(opens, last, last + 1)

        tokens = tf.range(tf.shape(scores)[1])[tf.newaxis]
        times = tokens >= self.first
        is_out = tokens == self.first - 1
        is_out |= times & (closes | (tokens < least))
        is_out |= opens & (tokens < self.end)
        is_first = tf.equal(count, 0)
        is_out |= is_first & ~times
        if self.latest is not None:
            is_out |= is_first & (tokens > self.first + self.latest)
        scores = tf.where(is_out, _OUT, scores)
        # A time is written where some time is likelier than any one word.
        logarithms = tf.nn.log_softmax(scores)
        some_time = tf.reduce_logsumexp(logarithms[:, self.first :], axis=1, keepdims=True)
        best_word = tf.reduce_max(logarithms[:, : self.first], axis=1, keepdims=True)
        return tf.where((some_time > best_word) & ~times, _OUT, scores)


def finished_tokens(tokens: np.ndarray, first: int, frames: int, frames_per_time: int) -> tuple[np.ndarray, int]:
    """Return the tokens to keep from a window, and the number of frames they cover.

    What follows the last pair of times is unfinished, and is heard again, unless one time alone ends the text.

    Args:
        tokens: int ``[seq]``, without the token that ends a text.
        first: the token of the time 0.
        frames: of features in the window.
        frames_per_time: of features between two times.
    """
    is_time = tokens >= first
    pairs = np.flatnonzero(is_time[:-1] & is_time[1:])
    if not len(pairs) or is_time[-2:].tolist() == [False, True]:
        return tokens, frames
    return tokens[: pairs[-1] + 2], int(tokens[pairs[-1]] - first) * frames_per_time
