"""Attention as one operator."""

import math

import tensorflow as tf

from tf_pipeline.layers.attention import attend
from tf_pipeline.layers.cache import write_slots
from tf_pipeline.port.rules.neural import dropout
from tf_pipeline.port.rules.registry import Size, constant, rule, size_of


@rule("scaled_dot_product_attention.default")
def scaled_dot_product_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    attn_mask: tf.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    training: bool,
    attentions: list[tf.Tensor],
) -> tf.Tensor:
    """Attention over heads ``[batch, heads, queries or keys, size]``.

    ``attn_mask`` is added to the scores, or if boolean, true where a key may be seen. A query that may see nothing
    attends evenly, as in the ``eager`` attention of ``transformers`` and in the models that have a module of their own;
    PyTorch's fused kernels give zeros there, or NaN.

    Schema::

        aten::scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float
            dropout_p=0., bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = tf.repeat(key, repeats, axis=-3), tf.repeat(value, repeats, axis=-3)
    if is_causal:
        steps = tf.range(size_of(query, -2))[:, tf.newaxis] >= tf.range(size_of(key, -2))[tf.newaxis, :]
        attn_mask = steps if attn_mask is None else steps & attn_mask
    bias = attn_mask
    if attn_mask is not None and attn_mask.dtype.is_bool:
        bias = tf.where(attn_mask, constant(0.0, query.dtype), constant(query.dtype.min, query.dtype))
    context, probabilities = attend(
        query, key, value, scale, bias, lambda p: dropout(p, dropout_p, training, training=training)
    )
    attentions.append(probabilities)
    return context


@rule("tf_pipeline.write.default")
def write(buffer: tf.Tensor, new: tf.Tensor, start: Size) -> tf.Tensor:
    """Slots ``[batch, heads, slots, size]`` that hold the keys or values of new tokens from ``start`` on.

    Schema::

        tf_pipeline::write(Tensor buffer, Tensor new, SymInt start) -> Tensor
    """
    return write_slots(buffer, new, tf.cast(start, tf.int32))
