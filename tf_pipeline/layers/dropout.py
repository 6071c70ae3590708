"""Dropout, as Keras' layer and as a loop of a training step."""

import functools
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_pipeline.layers.fused import is_fusing, loops


class Dropout(keras.layers.Dropout):
    """Keras' dropout; where a training step is made of loops, one of them, whose draws are not Keras'."""

    def call(self, inputs, training=False):
        """Drop elements of ``inputs`` if ``training``."""
        if is_fusing() and training and 0 < self.rate < 1 and self.noise_shape is None:
            return drop(inputs, self.rate, self.seed_generator.next())
        return super().call(inputs, training=training)


def drop(x: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Set elements to zero at random and divide the others by ``1 - rate``; the gradient draws the same again.

    Args:
        x: floats of any shape.
        rate: probability of a zero, from 0 to below 1.
        seed: two integers; the same ones draw the same elements.
    """
    return _dropout_of(rate)(x, tf.cast(seed, tf.uint32))


@functools.cache
def _dropout_of(rate: float) -> Callable[..., tf.Tensor]:
    def dropped(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        places = tf.bitcast(tf.range(tf.size(x)), tf.uint32)
        key = _mixed(seed[1] + _mixed(seed[0]))  # differs from layer to layer, where counts of calls are the same
        bits = _mixed(tf.bitwise.bitwise_xor(_mixed(places + seed[0]), key))
        is_kept = tf.reshape(bits >= tf.constant(math.floor(rate * 2**32), bits.dtype), tf.shape(x))
        return tf.where(is_kept, x * tf.constant(1 / (1 - rate), x.dtype), tf.zeros([], x.dtype))

    def with_gradients(x: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return dropped(x, seed), lambda upstream: (dropped(upstream, seed), None)

    return loops(with_gradients)


def _mixed(x: tf.Tensor) -> tf.Tensor:
    """Random bits, uint32, each of which depends on all bits of ``x`` (https://github.com/skeeto/hash-prospector)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, x.dtype)))
        x *= tf.constant(factor, x.dtype)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, x.dtype)))
