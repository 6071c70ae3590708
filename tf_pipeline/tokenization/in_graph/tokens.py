"""The result of a tokenization model: a flat list of tokens."""

import dataclasses

import tensorflow as tf

from tf_pipeline.tokenization.in_graph.text import Text


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The tokens of a batch, in order.

    Attributes:
        ids: int32 ``[n]``.
        start: int32 ``[n]`` code points from the start of the text.
        end: int32 ``[n]`` exclusive.
        word: int32 ``[n]`` the word of its text, counted from 0.
        row: int32 ``[n]`` the text of the batch.
    """

    ids: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    word: tf.Tensor
    row: tf.Tensor


def tokens_of(text: Text, ids: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> Tokens:
    """Tokens that reach from one entry of a text to another, both included, ``[n]``."""
    section = tf.cumsum(tf.cast(text.is_end, tf.int32), exclusive=True)
    # Sections are numbered through the batch; the first of a row has to be 0.
    first_of_row = tf.math.segment_min(section, text.row)
    row = tf.gather(text.row, first)
    word = tf.gather(section, first) - tf.gather(first_of_row, row)
    return Tokens(ids, tf.gather(text.start, first), tf.gather(text.end, last), word, row)
