"""Scaled dot-product attention of heads, and the masks that go with it: the contract of encoders and decoders."""

import tensorflow as tf

from tf_pipeline.layers.relative import relative_positions


def attention_bias(
    attention_mask: tf.Tensor | None,
    dtype: tf.DType,
    *,
    queries: tf.Tensor | int,
    keys: tf.Tensor | int,
    offset: tf.Tensor | int = 0,
    causal: bool = False,
    window: int | None = None,
) -> tf.Tensor | None:
    """Turn 0/1 masks and positions into an addend of attention scores: 0 if visible, the dtype's minimum if hidden.

    The minimum rather than minus infinity keeps fully masked rows finite: they attend evenly, as in PyTorch.

    Args:
        attention_mask: ``[batch, keys]``, ``[batch, queries, keys]`` or ``[batch, heads or 1, queries, keys]``, nonzero
            where a key may be seen; ``None`` where every key may be. A mask of rank 4 is taken as it is, whatever
            ``causal`` and ``window`` say, as in PyTorch.
        dtype: dtype of the scores.
        queries: number of queries of each sequence, a scalar.
        keys: number of keys of each sequence, a scalar: the capacity, if they are a cache.
        offset: position of the first query among the keys, a scalar: the number of tokens cached before it.
        causal: whether a query sees no key that comes after it, and so no free slot of a cache either.
        window: number of keys that a query sees up to itself if ``causal``, else the distance to the farthest on
            either side, if there is a limit (config: ``sliding_window``).

    Returns:
        ``[batch or 1, heads or 1, queries or 1, keys]`` in ``dtype``, or ``None`` if nothing is hidden.
    """
    visible = None
    if attention_mask is not None:
        axes = {2: (1, 2), 3: (1,), 4: ()}[attention_mask.shape.rank]
        visible = tf.not_equal(attention_mask, tf.zeros([], attention_mask.dtype))
        for axis in axes:
            visible = tf.expand_dims(visible, axis)
    if (causal or window is not None) and (visible is None or attention_mask.shape.rank < 4):
        near = _visible_by_distance(relative_positions(queries, keys, offset), causal, window)[tf.newaxis, tf.newaxis]
        visible = near if visible is None else visible & near
    if visible is None:
        return None
    return tf.where(visible, tf.constant(0.0, dtype), tf.constant(dtype.min, dtype))


def _visible_by_distance(relative: tf.Tensor, causal: bool, window: int | None) -> tf.Tensor:
    if not causal:
        return tf.abs(relative) <= window
    return relative <= 0 if window is None else (relative <= 0) & (relative > -window)


def attend(query, key, value, scale, bias=None, dropout=None, visible=None, wide_scores=False, softcap=None):
    """Attention of heads over keys (https://arxiv.org/abs/1706.03762).

    Keys and values may be fewer heads than queries, each of which then serves as many consecutive heads of queries
    (https://arxiv.org/abs/2305.13245), and may be a cache with free slots, which the bias hides. Nothing is copied.

    Args:
        query: ``[batch, heads, queries, size]``.
        key: ``[batch, key heads, keys, size]``; ``heads`` is a multiple of ``key heads``.
        value: ``[batch, key heads, keys, value size]``.
        scale: factor of the scores, usually ``1 / sqrt(size)``.
        bias: added to the scores, broadcast to ``[batch, heads, queries, keys]``: the result of
            :func:`attention_bias`, scores of relative positions.
        dropout: applied to the probabilities.
        visible: bool, broadcast to the scores: those that are hidden are replaced by the dtype's minimum. Unlike scores
            with a bias of that, they have no gradient in a row that sees nothing.
        wide_scores: whether half precision computes scores and probabilities in float32, and rounds the latter.
        softcap: scores ``s`` become ``softcap * tanh(s / softcap)`` before the bias is added, if it is given.

    Returns:
        The context ``[batch, heads, queries, value size]`` and the probabilities ``[batch, heads, queries, keys]``.

    Raises:
        ValueError: if the heads of queries cannot be shared out among those of keys.
    """
    heads, shared = query.shape[1], key.shape[1]
    grouped = query.shape.rank == 4 and None not in (heads, shared) and heads != shared
    if grouped and heads % shared:
        raise ValueError(f"{heads} heads of queries cannot share {shared} heads of keys.")
    if wide_scores and query.dtype.size < 4:
        query, key = tf.cast(query, tf.float32), tf.cast(key, tf.float32)
        bias = None if bias is None else tf.cast(bias, tf.float32)
    query *= tf.constant(scale, query.dtype)
    scores = tf.matmul(_regroup(query, shared) if grouped else query, key, transpose_b=True)
    scores = _regroup(scores, heads) if grouped else scores
    if softcap is not None:
        scores = tf.tanh(scores / tf.constant(softcap, scores.dtype)) * tf.constant(softcap, scores.dtype)
    if bias is not None:
        scores += bias
    if visible is not None:
        scores = tf.where(visible, scores, tf.constant(scores.dtype.min, scores.dtype))
    probabilities = tf.cast(tf.nn.softmax(scores), value.dtype)
    if dropout is not None:
        probabilities = dropout(probabilities)
    context = tf.matmul(_regroup(probabilities, shared) if grouped else probabilities, value)
    return _regroup(context, heads) if grouped else context, probabilities


def _regroup(x: tf.Tensor, heads: int) -> tf.Tensor:
    """``[batch, a, b, size]`` to ``[batch, heads, a * b / heads, size]``; moves no data."""
    shape = tf.shape(x)
    return tf.reshape(x, [shape[0], heads, x.shape[1] * shape[2] // heads, shape[3]])
