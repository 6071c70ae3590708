"""Relative positions: which bucket a distance falls into, and scores by distance.

Distances are whole numbers, and beyond some of them the bucket stays the same. So the buckets are computed once, in
NumPy's float32 as PyTorch computes them, and looked up: no logarithm that rounds differently can put a token elsewhere.
"""

import math

import numpy as np
import tensorflow as tf


def relative_positions(
    queries: tf.Tensor | int, keys: tf.Tensor | int | None = None, offset: tf.Tensor | int = 0
) -> tf.Tensor:
    """Distances from each query to each key, positive if the key comes later.

    Args:
        queries: number of queries, a scalar.
        keys: number of keys, a scalar; by default as many as queries.
        offset: position of the first query among the keys, a scalar.

    Returns:
        int32 ``[queries, keys]``.
    """
    rows, columns = tf.range(queries), tf.range(queries if keys is None else keys)
    return columns[tf.newaxis, :] - (rows if isinstance(offset, int) and offset == 0 else rows + offset)[:, tf.newaxis]


def bidirectional_buckets(relative: tf.Tensor, num_buckets: int = 32, max_distance: int = 128) -> tf.Tensor:
    """T5's buckets (https://arxiv.org/abs/1910.10683): half of them for keys that come later.

    Args:
        relative: int32 positions of keys relative to queries.
        num_buckets: number of buckets.
        max_distance: distance from which all fall into one.

    Returns:
        int32 of the same shape, ``0 … num_buckets - 1``.

    Raises:
        ValueError: if the buckets would not be logarithmic.
    """
    half = num_buckets // 2
    buckets = _t5_buckets(tf.abs(relative), half, max_distance)
    return buckets + tf.where(relative > 0, half, 0)


def causal_buckets(relative: tf.Tensor, num_buckets: int = 32, max_distance: int = 128) -> tf.Tensor:
    """T5's buckets of a decoder, all of them for keys that come before; arguments as for the other kind."""
    return _t5_buckets(tf.maximum(-relative, 0), num_buckets, max_distance)


def _t5_buckets(distances: tf.Tensor, num_buckets: int, max_distance: int) -> tf.Tensor:
    exact = num_buckets // 2  # distances up to here have a bucket each; those beyond share, on a logarithmic scale
    if not 0 < exact < max_distance:
        raise ValueError(
            f"{num_buckets} buckets of distances (relative_attention_num_buckets, halved if keys may come later) do "
            f"not fit relative_attention_max_distance {max_distance}: half of them has to be at least 1 and less."
        )
    each = np.arange(max_distance + 1)
    scaled = np.log(np.maximum(each, 1).astype(np.float32) / np.float32(exact), dtype=np.float32)
    shared = scaled / np.float32(math.log(max_distance / exact)) * np.float32(num_buckets - exact)
    shared = np.minimum(exact + shared.astype(np.int64), num_buckets - 1)
    table = np.where(each < exact, each, shared).astype(np.int32)
    return tf.gather(table, tf.minimum(distances, max_distance))


def log_buckets(relative: tf.Tensor, num_buckets: int, max_distance: int) -> tf.Tensor:
    """DeBERTa's buckets (https://arxiv.org/abs/2006.03654), signed and symmetric.

    Args:
        relative: int32 positions.
        num_buckets: distances from here on share the last bucket (config: ``position_buckets``).
        max_distance: distance whose bucket is the last (config: ``max_relative_positions``).

    Returns:
        int32 of the same shape, ``-num_buckets … num_buckets``.

    Raises:
        ValueError: if the buckets would not be logarithmic.
    """
    exact = num_buckets // 2  # distances up to here have a bucket each
    if not 0 < exact < max_distance - 1:
        raise ValueError(
            f"position_buckets {num_buckets} do not fit max_relative_positions {max_distance}, or, without them, "
            "max_position_embeddings: half the buckets has to be at least 1 and less than the farthest distance."
        )
    distances = np.arange(1 + math.ceil(exact * ((max_distance - 1) / exact) ** (2 + 2 / exact)))
    scale = np.log(np.float32((max_distance - 1) / exact))
    scaled = np.log(np.maximum(distances, exact).astype(np.float32) / np.float32(exact))
    shared = np.ceil(scaled / scale * np.float32(exact - 1)).astype(np.int64) + exact
    table = np.minimum(np.where(distances <= exact, distances, shared), num_buckets).astype(np.int32)
    table = table[: np.argmax(table == num_buckets) + 1] if num_buckets in table else table
    return tf.sign(relative) * tf.gather(table, tf.minimum(tf.abs(relative), len(table) - 1))


def scores_by_distance(scores: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Arrange scores of a token with every distance as scores of a token with every other token.

    Args:
        scores: ``[..., tokens, 2 * length - 1]``; the last axis runs from the token ``length - 1`` places before to the
            one ``length - 1`` places after.
        length: number of tokens of the sequence; the rows may be fewer, from the first on.

    Returns:
        ``[..., tokens, length]``: row ``i`` is ``length`` of the scores from place ``length - 1 - i`` on. No gather:
        the rows are read again with a stride that is one less.
    """
    shape = tf.shape(scores)
    rows, width = shape[-2], shape[-1]
    flat = tf.reshape(scores, tf.concat([shape[:-2], [rows * width]], 0))
    # One row's width more, so that there is enough to read after the places skipped at the start.
    flat = tf.concat([flat, tf.zeros(tf.concat([shape[:-2], [width]], 0), scores.dtype)], axis=-1)
    stride = tf.maximum(width - 1, 1)
    flat = flat[..., length - 1 : length - 1 + rows * stride]
    return tf.reshape(flat, tf.concat([shape[:-2], [rows, stride]], 0))[..., :length]
