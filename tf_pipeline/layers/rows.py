"""Layers of encoders, with the tokens of all sequences as the rows of one matrix.

A dense layer is then one plain matrix product, into which TensorFlow fuses the bias and the activation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from tf_pipeline.layers.attention import attend
from tf_pipeline.outputs import BaseModelOutput


@dataclass(frozen=True, kw_only=True)
class LayerInputs:
    """Inputs of a transformer layer besides its rows ``[batch * length, hidden]``.

    A layer is called as ``layer(rows, inputs=inputs, training=training)``. It returns the new rows of the tokens that
    it is to compute, ``[batch * queries, hidden]``, and its attentions ``[batch, heads, queries, length]``. Families
    whose layers take more, such as rotary tables, add fields in a subclass.

    Attributes:
        length: number of tokens of each sequence, padding included, a scalar; all of them are keys.
        bias: added to the scores, broadcast to ``[batch, heads, queries, length]``, or ``None``; the result of
            :func:`~tf_pipeline.layers.attention_bias`, for one.
        visible: bool, broadcast to the scores, or ``None``; see :func:`~tf_pipeline.layers.attend`.
        first_token_only: whether the layer computes the first token of each sequence alone.
    """

    length: tf.Tensor
    bias: tf.Tensor | None = None
    visible: tf.Tensor | None = None
    first_token_only: bool = False

    @property
    def queries(self) -> tf.Tensor | int:
        """Number of tokens of each sequence that the layer computes."""
        return 1 if self.first_token_only else self.length

    def computed(self, rows: tf.Tensor) -> tf.Tensor:
        """Rows of the tokens that the layer computes: ``[batch * length, size]`` to ``[batch * queries, size]``."""
        return tf.reshape(rows, [-1, self.length, rows.shape[-1]])[:, 0] if self.first_token_only else rows

    def of_first_token(self) -> "LayerInputs":
        """The same inputs of a layer that computes the first token of each sequence alone."""
        bias, visible = (None if mask is None else mask[:, :, :1] for mask in (self.bias, self.visible))
        return replace(self, bias=bias, visible=visible, first_token_only=True)


def run_layers(
    layers: Sequence[Callable],
    hidden_states: tf.Tensor,
    inputs: LayerInputs | Sequence[LayerInputs],
    first_token_only: bool = False,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    training: bool | None = None,
) -> BaseModelOutput:
    """Run layers one after the other.

    Args:
        layers: called as :class:`LayerInputs` says; one may occur several times.
        hidden_states: ``[batch, seq, hidden]``.
        inputs: of all layers, or of each.
        first_token_only: whether the last layer computes the first token of each sequence alone.
        output_hidden_states: whether all hidden states are returned, the given ones first.
        output_attentions: whether the attentions of all layers are returned.
        training: whether dropout is active.

    Returns:
        The last hidden state ``[batch, seq or 1, hidden]``, and the hidden states and attentions that were asked for.
    """
    size = hidden_states.shape[-1]
    rows, all_states, all_attentions = tf.reshape(hidden_states, [-1, size]), [hidden_states], []
    each = [inputs] * len(layers) if isinstance(inputs, LayerInputs) else list(inputs)
    if first_token_only and each:
        each[-1] = each[-1].of_first_token()
    for layer, layer_inputs in zip(layers, each, strict=True):
        rows, attentions = layer(rows, inputs=layer_inputs, training=training)
        hidden_states = tf.reshape(rows, [-1, layer_inputs.queries, size])
        if output_hidden_states:
            all_states.append(hidden_states)
        if output_attentions:
            all_attentions.append(attentions)
    return BaseModelOutput(
        last_hidden_state=hidden_states,
        hidden_states=tuple(all_states) if output_hidden_states else None,
        attentions=tuple(all_attentions) if output_attentions else None,
    )


def split_heads(rows: tf.Tensor, length: tf.Tensor | int, num_heads: int) -> tf.Tensor:
    """``[batch * length, heads * size]`` to ``[batch, heads, length, size]``."""
    x = tf.reshape(rows, [-1, length, num_heads, rows.shape[-1] // num_heads])
    return tf.transpose(x, [0, 2, 1, 3])


def merge_heads(x: tf.Tensor) -> tf.Tensor:
    """``[batch, heads, length, size]`` to ``[batch * length, heads * size]``."""
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, x.shape[1] * x.shape[3]])


def dot_product_attention(query, key, value, inputs, num_heads, dropout=None, training=None, scale=None):
    """Attention over already projected rows (https://arxiv.org/abs/1706.03762).

    Args:
        query: ``[batch * queries, heads * size]``.
        key: ``[batch * length, heads * size]``.
        value: ``[batch * length, heads * size]``.
        inputs: the layer's :class:`LayerInputs`.
        num_heads: number of heads.
        dropout: a Keras dropout layer for the probabilities.
        training: whether dropout is active.
        scale: factor of the scores; by default ``1 / sqrt(size)``.

    Returns:
        The context ``[batch * queries, heads * size]`` and the probabilities ``[batch, heads, queries, length]``.
    """
    context, probabilities = attend(
        split_heads(query, inputs.queries, num_heads),
        split_heads(key, inputs.length, num_heads),
        split_heads(value, inputs.length, num_heads),
        1.0 / math.sqrt(query.shape[-1] // num_heads) if scale is None else scale,
        inputs.bias,
        None if dropout is None else lambda x: dropout(x, training=training),
        inputs.visible,
    )
    return merge_heads(context), probabilities


def add_residual(branch: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
    """The sum of two matrices ``[tokens, hidden]``, one of which a dense layer has just computed.

    TensorFlow would fuse the sum into the product, and oneDNN's kernel for that doubles the rounding error of a single
    row, of which the last layer of a classifier consists for a single text. The reshape keeps them apart and moves no
    data.
    """
    return tf.reshape(branch, tf.shape(residual)) + residual
