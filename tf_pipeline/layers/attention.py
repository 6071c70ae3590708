"""Multi-head scaled dot-product attention and the additive masks that go with it."""

import math

import tensorflow as tf


def attention_bias(attention_mask: tf.Tensor | None, dtype: tf.DType, causal_length: tf.Tensor | None = None):
    """Turn 0/1 masks into what is added to attention scores: 0 where visible, the dtype's minimum where hidden.

    The minimum rather than minus infinity keeps fully masked rows finite: they attend evenly, as in PyTorch.

    Args:
        attention_mask: ``[batch, key]``, ``[batch, query, key]`` or ``[batch, heads or 1, query, key]``, nonzero where
            a key may be seen; ``None`` where every key may be.
        dtype: dtype of the scores.
        causal_length: number of tokens, if queries may only see keys that do not come after them. A mask by head is
            taken as it is, as in PyTorch.

    Returns:
        ``[batch, 1 or heads, 1 or query, key]`` in ``dtype``, or ``None`` if nothing is hidden.
    """
    visible = None
    if attention_mask is not None:
        axes = {2: (1, 2), 3: (1,), 4: ()}[attention_mask.shape.rank]
        visible = tf.not_equal(attention_mask, tf.zeros([], attention_mask.dtype))
        for axis in axes:
            visible = tf.expand_dims(visible, axis)
    if causal_length is not None and (visible is None or attention_mask.shape.rank < 4):
        steps = tf.range(causal_length)
        causal = (steps[:, tf.newaxis] >= steps[tf.newaxis, :])[tf.newaxis, tf.newaxis]
        visible = causal if visible is None else visible & causal
    if visible is None:
        return None
    return tf.where(visible, tf.constant(0.0, dtype), tf.constant(dtype.min, dtype))


def split_heads(x: tf.Tensor, num_heads: int) -> tf.Tensor:
    """``[batch, seq, heads * size]`` to ``[batch, heads, seq, size]``."""
    shape = tf.shape(x)
    return tf.transpose(tf.reshape(x, [shape[0], shape[1], num_heads, x.shape[-1] // num_heads]), [0, 2, 1, 3])


def merge_heads(x: tf.Tensor) -> tf.Tensor:
    """``[batch, heads, seq, size]`` to ``[batch, seq, heads * size]``."""
    shape = tf.shape(x)
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [shape[0], shape[2], x.shape[1] * x.shape[3]])


def dot_product_attention(query, key, value, num_heads, bias=None, dropout=None, training=None):
    """Attention over already projected tensors (https://arxiv.org/abs/1706.03762).

    Args:
        query: ``[batch, query, heads * size]``; ``key`` and ``value`` are ``[batch, key, heads * size]``.
        key: see ``query``.
        value: see ``query``.
        num_heads: number of heads.
        bias: what :func:`attention_bias` returned.
        dropout: a Keras dropout layer for the probabilities.
        training: whether dropout is active.

    Returns:
        The context ``[batch, query, heads * size]`` and the probabilities ``[batch, heads, query, key]``.
    """
    scale = 1.0 / math.sqrt(query.shape[-1] // num_heads)
    query = split_heads(query * tf.constant(scale, query.dtype), num_heads)
    scores = tf.matmul(query, split_heads(key, num_heads), transpose_b=True)
    if bias is not None:
        scores += bias
    probabilities = tf.nn.softmax(scores)
    if dropout is not None:
        probabilities = dropout(probabilities, training=training)
    return merge_heads(tf.matmul(probabilities, split_heads(value, num_heads))), probabilities


def first_token(hidden_states: tf.Tensor, bias: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The first token as the only query: ``[batch, 1, hidden]``, and the rows of ``bias`` that are about it."""
    return hidden_states[:, :1], bias if bias is None else bias[:, :, :1]
