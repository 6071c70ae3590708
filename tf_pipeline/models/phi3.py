"""Phi-3 (https://arxiv.org/abs/2404.14219): Llama whose projections are stored together, with dropout and a window."""

import keras
import tensorflow as tf

from tf_pipeline.layers import Dropout, Linear, add_residual, get_activation, split_heads
from tf_pipeline.models import llama


class Phi3Attention(llama.LlamaAttention):
    """Attention whose queries, keys and values are one projection."""

    def add_projections(self, config, dtype) -> None:
        """Construct the projections."""
        hidden, std, wide = config.hidden_size, config.initializer_range, self.heads * self.size
        self.o_proj = Linear(wide, hidden, std, use_bias=False, dtype=dtype)
        self.qkv_proj = Linear(hidden, wide + 2 * self.kv_heads * self.size, std, use_bias=False, dtype=dtype)

    def projections(self, rows, length):
        """Queries, keys and values."""
        sizes = [heads * self.size for heads in (self.heads, self.kv_heads, self.kv_heads)]
        query, key, value = tf.split(self.qkv_proj(rows), sizes, axis=-1)
        return (
            split_heads(query, length, self.heads),
            split_heads(key, length, self.kv_heads),
            split_heads(value, length, self.kv_heads),
        )


class Phi3MLP(keras.layers.Layer):
    """The feed-forward layer, whose first half gates the second."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, wide, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.gate_up_proj = Linear(size, 2 * wide, std, use_bias=False, dtype=dtype)
        self.down_proj = Linear(wide, size, std, use_bias=False, dtype=dtype)
        self.activation = get_activation(config.hidden_act)

    def call(self, rows):
        gate, wide = tf.split(self.gate_up_proj(rows), 2, axis=-1)
        return self.down_proj(self.activation(gate) * wide)


class Phi3DecoderLayer(llama.LlamaDecoderLayer):
    """One layer, with dropout of its results."""

    attention_class, mlp_class = Phi3Attention, Phi3MLP

    def __init__(self, config, index, dtype=None):
        super().__init__(config, index, dtype=dtype)
        self.resid_attn_dropout = Dropout(config.resid_pdrop, dtype=dtype)
        self.resid_mlp_dropout = Dropout(config.resid_pdrop, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities, cache = self.self_attn(self.input_layernorm(rows), inputs=inputs, training=training)
        rows = add_residual(self.resid_attn_dropout(attended, training=training), rows)
        fed = self.resid_mlp_dropout(self.mlp(self.post_attention_layernorm(rows)), training=training)
        return add_residual(fed, rows), probabilities, cache


class TFPhi3Model(llama.TFLlamaModel):
    """The body. See :class:`~tf_pipeline.models.llama.TFLlamaModel`."""

    layer_class = Phi3DecoderLayer

    def layer_windows(self) -> list[int | None]:
        """The same for all layers (config: ``sliding_window``)."""
        return [self.config.sliding_window] * self.config.num_hidden_layers


class TFPhi3ForCausalLM(llama.TFLlamaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.llama.TFLlamaForCausalLM`."""


class TFPhi3ForSequenceClassification(llama.TFLlamaForSequenceClassification):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""


class TFPhi3ForTokenClassification(llama.TFLlamaForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.llama.TFLlamaForTokenClassification`."""
