"""Uses of tables of vectors besides looking up words."""

from typing import Any

import numpy as np
import tensorflow as tf


def position_vectors(table, position_ids: tf.Tensor | None, length: tf.Tensor) -> tf.Tensor:
    """Rows of a learned position table.

    Args:
        table: an :class:`~tf_pipeline.layers.Embedding` of ``[max_positions, hidden]``.
        position_ids: ``[batch or 1, seq]``, or ``None`` to count from 0.
        length: number of tokens, a scalar.

    Returns:
        ``[batch or 1, seq, hidden]``. Without ``position_ids`` the rows are a slice, which fails under XLA too, where
        a gather beyond the table would be clamped silently.
    """
    if position_ids is not None:
        return table(position_ids)
    if table.adapters or table.quantization_mode:
        return table(tf.range(length)[tf.newaxis])
    rows = tf.slice(tf.convert_to_tensor(table.embeddings), [0, 0], [length, table.output_dim])
    return tf.cast(rows, table.compute_dtype)[tf.newaxis]


def sinusoidal_positions(shape: tuple[int, int], dtype: Any = None) -> tf.Tensor:
    """Initial position table ``[positions, dim]`` of sines and cosines in turn, rounded to float32 as in PyTorch."""
    positions, dim = shape
    angles = np.arange(positions)[:, None] / np.power(10000, 2 * (np.arange(dim) // 2) / dim)
    table = np.where(np.arange(dim) % 2 == 0, np.sin(angles), np.cos(angles))
    return tf.cast(tf.constant(table, tf.float32), dtype or tf.float32)


def token_positions(
    input_ids: tf.Tensor | None, inputs_embeds: tf.Tensor | None, padding_idx: int, offset: tf.Tensor | int = 0
) -> tf.Tensor:
    """Positions that count tokens from ``padding_idx + 1`` and skip padding, as RoBERTa's do.

    Args:
        input_ids: ``[batch, seq]``; padding, on whichever side, keeps the position ``padding_idx``.
        inputs_embeds: ``[batch, seq, hidden]``, where there are no ids: all of them count.
        padding_idx: id of the padding token (config: ``pad_token_id``).
        offset: number of tokens before them, a scalar.

    Returns:
        int32 ``[batch or 1, seq]``.
    """
    if input_ids is None:
        return tf.range(tf.shape(inputs_embeds)[1])[tf.newaxis] + padding_idx + 1 + offset
    real = tf.cast(tf.not_equal(input_ids, tf.cast(padding_idx, input_ids.dtype)), tf.int32)
    return (tf.cumsum(real, axis=1) + offset) * real + padding_idx


def flatten_choices(inputs: dict[str, Any]) -> tuple[dict[str, Any], tf.Tensor]:
    """Merge the first two axes of ``[batch, choices, seq, ...]`` inputs; returns them and the number of choices."""
    tensors = {name: value for name, value in inputs.items() if tf.is_tensor(value)}
    leading = tensors.get("input_ids", tensors.get("inputs_embeds"))
    if "position_ids" in tensors:  # which may be one row for all
        tensors["position_ids"] = tf.broadcast_to(tensors["position_ids"], tf.shape(leading)[:3])
    flat = {name: tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], 0)) for name, value in tensors.items()}
    for name, value in tensors.items():
        flat[name].set_shape([None, *value.shape[2:]])
    return inputs | flat, tf.shape(leading)[1]
