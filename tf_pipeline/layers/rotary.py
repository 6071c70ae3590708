"""Rotary position embeddings (https://arxiv.org/abs/2104.09864)."""

import numpy as np
import tensorflow as tf


def rotary_table(positions: tf.Tensor, theta: float, size: int, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Cosines and sines of the angles by which positions turn pairs of numbers.

    Args:
        positions: integers ``[batch or 1, seq]``.
        theta: base of the wavelengths (config: ``rope_theta``).
        size: size of a head, even.
        dtype: dtype of the states; half precision is turned in float32, as in PyTorch.

    Returns:
        Two tensors ``[batch or 1, seq, 1, size]``.
    """
    dtype = tf.float32 if dtype.size < 4 else dtype
    frequencies = tf.constant(theta ** -(np.arange(0, size, 2) / size), dtype)
    angles = tf.cast(positions, dtype)[..., tf.newaxis] * frequencies
    angles = tf.concat([angles, angles], axis=-1)[:, :, tf.newaxis]
    return tf.cos(angles), tf.sin(angles)


def rotate(rows: tf.Tensor, table: tuple[tf.Tensor, tf.Tensor], length: tf.Tensor, num_heads: int) -> tf.Tensor:
    """Turn queries or keys ``[batch * length, heads * size]`` by their positions.

    The halves of a head are the pairs: its first number with the first of its second half, and so on.
    """
    cosines, sines = table
    shape = [-1, length, num_heads, rows.shape[-1] // num_heads]
    x = tf.cast(tf.reshape(rows, shape), cosines.dtype)
    first, second = tf.split(x, 2, axis=-1)
    turned = x * cosines + tf.concat([-second, first], axis=-1) * sines
    return tf.reshape(tf.cast(turned, rows.dtype), [-1, rows.shape[-1]])
