"""Multi-head scaled dot-product attention and the additive masks that go with it."""

import math

import tensorflow as tf

from tf_pipeline.layers.relative import relative_positions


def attention_bias(
    attention_mask: tf.Tensor | None,
    dtype: tf.DType,
    causal_length: tf.Tensor | None = None,
    window: int | None = None,
    length: tf.Tensor | None = None,
):
    """Turn 0/1 masks into what is added to attention scores: 0 where visible, the dtype's minimum where hidden.

    The minimum rather than minus infinity keeps fully masked rows finite: they attend evenly, as in PyTorch.

    Args:
        attention_mask: ``[batch, key]``, ``[batch, query, key]`` or ``[batch, heads or 1, query, key]``, nonzero where
            a key may be seen; ``None`` where every key may be.
        dtype: dtype of the scores.
        causal_length: number of tokens, if queries may only see keys that do not come after them. A mask by head is
            taken as it is, as in PyTorch.
        window: how far from a query a key may be, if not anywhere.
        length: number of tokens, if there is a window.

    Returns:
        ``[batch, 1 or heads, 1 or query, key]`` in ``dtype``, or ``None`` if nothing is hidden.
    """
    visible = None
    if attention_mask is not None:
        axes = {2: (1, 2), 3: (1,), 4: ()}[attention_mask.shape.rank]
        visible = tf.not_equal(attention_mask, tf.zeros([], attention_mask.dtype))
        for axis in axes:
            visible = tf.expand_dims(visible, axis)
    by_distance = None
    if causal_length is not None:
        by_distance = relative_positions(causal_length) <= 0
    elif window is not None:
        by_distance = tf.abs(relative_positions(length)) <= window
    if by_distance is not None and (visible is None or attention_mask.shape.rank < 4):
        by_distance = by_distance[tf.newaxis, tf.newaxis]
        visible = by_distance if visible is None else visible & by_distance
    if visible is None:
        return None
    return tf.where(visible, tf.constant(0.0, dtype), tf.constant(dtype.min, dtype))


def split_heads(rows: tf.Tensor, length: tf.Tensor | int, num_heads: int) -> tf.Tensor:
    """``[batch * length, heads * size]`` to ``[batch, heads, length, size]``."""
    x = tf.reshape(rows, [-1, length, num_heads, rows.shape[-1] // num_heads])
    return tf.transpose(x, [0, 2, 1, 3])


def merge_heads(x: tf.Tensor) -> tf.Tensor:
    """``[batch, heads, length, size]`` to ``[batch * length, heads * size]``."""
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, x.shape[1] * x.shape[3]])


def dot_product_attention(
    query, key, value, lengths, num_heads, bias=None, dropout=None, training=None, scale=None, visible=None
):
    """Attention over already projected tokens (https://arxiv.org/abs/1706.03762).

    Args:
        query: ``[batch * queries, heads * size]``; ``key`` and ``value`` are ``[batch * keys, heads * size]``.
        key: see ``query``.
        value: see ``query``.
        lengths: number of queries and number of keys of each sequence.
        num_heads: number of heads.
        bias: what is added to the scores: what :func:`attention_bias` returned, scores of relative positions.
        dropout: a Keras dropout layer for the probabilities.
        training: whether dropout is active.
        scale: what the scores are multiplied by; by default ``1 / sqrt(size)``.
        visible: bool, broadcast to the scores ``[batch, heads, queries, keys]``: those that are hidden are replaced by
            the dtype's minimum. Unlike scores with a bias of that, they have no gradient in a row that sees nothing.

    Returns:
        The context ``[batch * queries, heads * size]`` and the probabilities ``[batch, heads, queries, keys]``.
    """
    queries, keys = lengths
    context, probabilities = attend(
        split_heads(query, queries, num_heads),
        split_heads(key, keys, num_heads),
        split_heads(value, keys, num_heads),
        1.0 / math.sqrt(query.shape[-1] // num_heads) if scale is None else scale,
        bias,
        None if dropout is None else lambda x: dropout(x, training=training),
        visible,
    )
    return merge_heads(context), probabilities


def attend(query, key, value, scale, bias=None, dropout=None, visible=None):
    """Attention of heads.

    Args:
        query: ``[batch, heads, queries, size]``.
        key: ``[batch, heads, keys, size]``.
        value: ``[batch, heads, keys, value size]``.
        scale: factor of the scores.
        bias: what is added to the scores, broadcast to ``[batch, heads, queries, keys]``.
        dropout: applied to the probabilities.
        visible: see :func:`dot_product_attention`.

    Returns:
        The context ``[batch, heads, queries, value size]`` and the probabilities ``[batch, heads, queries, keys]``.
    """
    scores = tf.matmul(query * tf.constant(scale, query.dtype), key, transpose_b=True)
    if bias is not None:
        scores += bias
    if visible is not None:
        scores = tf.where(visible, scores, tf.constant(scores.dtype.min, scores.dtype))
    probabilities = tf.nn.softmax(scores)
    if dropout is not None:
        probabilities = dropout(probabilities)
    return tf.matmul(probabilities, value), probabilities


def add_residual(branch: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
    """The sum of two matrices ``[tokens, hidden]``, one of which a dense layer has just computed.

    TensorFlow would fuse the sum into the product, and oneDNN's kernel for that doubles the rounding error of a single
    row, of which the last layer of a classifier consists for a single text. The reshape keeps them apart and moves no
    data.
    """
    return tf.reshape(branch, tf.shape(residual)) + residual


def run_layers(layers, hidden_states, bias=None, first_token_only=False, training=None):
    """Run transformer layers one after the other, with the tokens of all sequences as the rows of one matrix.

    A dense layer is then one plain matrix product, into which TensorFlow fuses the bias and the activation.

    Args:
        layers: called as ``layer(rows, queries, lengths=, bias=, training=)`` with two matrices ``[tokens, hidden]``
            and the number of queries and of rows in a sequence; return the queries' new rows and the attentions.
        hidden_states: ``[batch, seq, hidden]``.
        bias: what :func:`attention_bias` returned, or another ``[..., 1 or query, key]`` that the layers understand; a
            list if each layer has its own.
        first_token_only: whether the last layer computes the first token of each sequence alone.
        training: whether dropout is active.

    Returns:
        All hidden states ``[batch, seq, hidden]``, the given ones first, and all attentions.
    """
    keys, size = tf.shape(hidden_states)[1], hidden_states.shape[-1]
    rows = tf.reshape(hidden_states, [-1, size])
    all_states, all_attentions = [hidden_states], []
    biases = bias if isinstance(bias, list) else [bias] * len(layers)
    for index, (layer, bias) in enumerate(zip(layers, biases, strict=True), start=1):  # a layer may occur several times
        queries, lengths = rows, (keys, keys)
        if first_token_only and index == len(layers):
            queries, lengths = all_states[-1][:, 0], (tf.constant(1), keys)
            bias = bias if bias is None else bias[:, :, :1]
        rows, attentions = layer(rows, queries, lengths=lengths, bias=bias, training=training)
        all_states.append(tf.reshape(rows, [-1, lengths[0], size]))
        all_attentions.append(attentions)
    return tuple(all_states), tuple(all_attentions)
