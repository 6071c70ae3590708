"""Keys and values of tokens that were computed before, so that the next token costs one token.

A cache is a tree of plain tensors: it goes through ``tf.while_loop``, ``tf.function`` and SavedModel. There are two
kinds. One grows by concatenation; ``past_key_values`` holds it. The other has a fixed number of slots: one for
each token to come, or, where a layer sees a window alone, as many as the window has, which are written round and round.
"""

from typing import NamedTuple

import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


class LayerCache(NamedTuple):
    """Keys and values of one layer.

    Attributes:
        keys: ``[batch, kv_heads, slots, size]``.
        values: ``[batch, kv_heads, slots, size]``.
    """

    keys: tf.Tensor
    values: tf.Tensor


class Cache(NamedTuple):
    """Keys and values of all layers.

    Attributes:
        layers: of each layer.
        length: int32 scalar, the number of tokens that were written, padding included.
        cross: of each layer's attention over an encoder, which no token is added to.
    """

    layers: tuple[LayerCache, ...]
    length: tf.Tensor
    cross: tuple[LayerCache, ...] = ()


def extend(cache: LayerCache, new: LayerCache) -> LayerCache:
    """The cache with further tokens at its end, in new buffers."""
    return LayerCache(*(tf.concat(pair, axis=2) for pair in zip(cache, new, strict=True)))


def allocate(cache: LayerCache, length: tf.Tensor, slots: int) -> LayerCache:
    """Move the tokens of a prompt into a fixed number of slots.

    Args:
        cache: of the prompt, ``length`` slots.
        length: number of its tokens, a scalar.
        slots: number of slots to make. If the prompt is longer, its last tokens are kept; token ``t`` is in slot
            ``t mod slots``.

    Returns:
        A cache of ``slots`` slots; free ones hold finite numbers, which :func:`tokens_in_slots` tells apart.
    """
    held = tf.maximum(tokens_in_slots(length - 1, slots), 0)
    return LayerCache(*(_with_slots(tf.gather(part, held, axis=2), slots) for part in cache))


def _with_slots(x: tf.Tensor, slots: int) -> tf.Tensor:
    """The same tensor, whose shape is known but for the batch."""
    return tf.ensure_shape(x, [None, x.shape[1], slots, x.shape[3]])


def tokens_in_slots(last: tf.Tensor, slots: int) -> tf.Tensor:
    """Index of the token that each slot holds.

    Args:
        last: index of the last token that was written, a scalar.
        slots: number of slots.

    Returns:
        int32 ``[slots]``; negative for free slots.
    """
    return last - tf.math.floormod(last - tf.range(slots), slots)


def write(cache: LayerCache, new: LayerCache, slot: tf.Tensor) -> LayerCache:
    """Put tokens of each row into slots.

    In a graph this is done in place, as long as nothing else reads the old cache; it costs as much as the tokens do.

    Args:
        cache: of a fixed number of slots.
        new: keys and values of the tokens, ``[batch, kv_heads, tokens, size]``.
        slot: the first slot, int32 scalar.

    Returns:
        A cache of the same shape.
    """
    return LayerCache(*(write_slots(old, token, slot) for old, token in zip(cache, new, strict=True)))


def write_slots(buffer: tf.Tensor, new: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
    """Put keys or values of tokens into slots, as :func:`write` does.

    Args:
        buffer: ``[batch, kv_heads, slots, size]``.
        new: ``[batch, kv_heads, tokens, size]``.
        slot: the first slot, int32 scalar.

    Returns:
        A tensor of the shape of ``buffer``.
    """
    new = tf.cast(new, buffer.dtype)
    if GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        # XLA's own, which is in place too; it compiles the other one for known slots alone.
        return tf.ensure_shape(dynamic_update_slice(buffer, new, tf.stack([0, 0, slot, 0])), buffer.shape)
    # Of TensorFlow's own ops this one alone takes over a buffer that a loop carries: a scatter copies it for each
    # token, and a choice by tf.where reads and writes all of it.
    begin, end = tf.stack([0, 0, slot]), tf.stack([0, 0, slot + tf.shape(new)[2]])
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=buffer, begin=begin, end=end, strides=[1, 1, 1], value=new, begin_mask=0b011, end_mask=0b011
    )


def reorder(cache: Cache, rows: tf.Tensor) -> Cache:
    """Gather rows of the batch, which may repeat: the beams that go on.

    Args:
        cache: of ``batch`` rows.
        rows: int32 ``[n]``.

    Returns:
        A cache of ``n`` rows.
    """

    def gathered(layers: tuple[LayerCache, ...]) -> tuple[LayerCache, ...]:
        return tuple(LayerCache(*(tf.gather(part, rows) for part in layer)) for layer in layers)

    return Cache(gathered(cache.layers), cache.length, gathered(cache.cross))
