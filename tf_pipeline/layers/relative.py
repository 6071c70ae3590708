"""Relative positions: which bucket a distance falls into.

Distances are whole numbers, and beyond some of them the bucket stays the same. So the buckets are computed once, in
NumPy's float32 as PyTorch computes them, and looked up: no logarithm that rounds otherwise can put a token elsewhere.
"""

import math

import numpy as np
import tensorflow as tf


def relative_positions(length: tf.Tensor) -> tf.Tensor:
    """How far each key comes after each query: int32 ``[query, key]``."""
    steps = tf.range(length)
    return steps[tf.newaxis, :] - steps[:, tf.newaxis]


def bidirectional_buckets(relative: tf.Tensor, num_buckets: int = 32, max_distance: int = 128) -> tf.Tensor:
    """T5's buckets (https://arxiv.org/abs/1910.10683): half of them for keys that come later.

    Args:
        relative: int32 positions of keys relative to queries.
        num_buckets: number of buckets.
        max_distance: distance from which all fall into one.

    Returns:
        int32 of the same shape, ``0 … num_buckets - 1``.
    """
    half = num_buckets // 2
    exact = half // 2  # distances up to here have a bucket each; those beyond share, on a logarithmic scale
    distances = np.arange(max_distance + 1)
    scaled = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact), dtype=np.float32)
    shared = exact + (scaled / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)).astype(np.int64)
    table = np.where(distances < exact, distances, np.minimum(shared, half - 1)).astype(np.int32)
    buckets = tf.gather(table, tf.minimum(tf.abs(relative), max_distance))
    return buckets + tf.where(relative > 0, half, 0)
