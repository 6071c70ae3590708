"""Decoder inputs from labels, in the ways that PyTorch's encoder–decoders make them."""

from collections.abc import Callable, Mapping

import tensorflow as tf
from transformers import PreTrainedConfig

from tf_pipeline.losses import IGNORE_INDEX


def behind_start(labels: tf.Tensor, config: PreTrainedConfig) -> tf.Tensor:
    """Labels ``[batch, seq]`` one place later, behind ``decoder_start_token_id``, and padding where they are -100.

    Raises:
        ValueError: if the config has no such token.
    """
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise ValueError("Labels make no decoder inputs: the config has no decoder_start_token_id.")
    first = tf.fill([tf.shape(labels)[0], 1], tf.cast(start, labels.dtype))
    return _padded(tf.concat([first, labels[:, :-1]], 1), config)


def behind_last(labels: tf.Tensor, config: PreTrainedConfig) -> tf.Tensor:
    """Labels ``[batch, seq]`` one place later, behind their own last token, which names a language."""
    ids = _padded(labels, config)
    is_token = tf.cast(ids != tf.cast(config.pad_token_id, ids.dtype), tf.int32)
    last = tf.reduce_sum(is_token, axis=1, keepdims=True) - 1
    return tf.concat([tf.gather(ids, tf.maximum(last, 0), batch_dims=1), ids[:, :-1]], 1)


def _padded(ids: tf.Tensor, config: PreTrainedConfig) -> tf.Tensor:
    return tf.where(ids == IGNORE_INDEX, tf.cast(config.pad_token_id, ids.dtype), ids)


SHIFTS: Mapping[str, Callable[[tf.Tensor, PreTrainedConfig], tf.Tensor]] = {
    "behind start": behind_start,
    "behind last": behind_last,
}
