"""OLMo 2 (https://arxiv.org/abs/2501.00656): Llama that normalises results of layers, queries and keys."""

import tensorflow as tf

from tf_pipeline.layers import RMSNorm, add_residual, split_heads
from tf_pipeline.models import llama


def norm(size: int, config, dtype) -> RMSNorm:
    """A normalisation that rounds half precision once."""
    return RMSNorm(size, config.rms_norm_eps, scale_in_float32=True, dtype=dtype)


class Olmo2Attention(llama.LlamaAttention):
    """Attention of normalised queries and keys, all heads together."""

    def add_projections(self, config, dtype) -> None:
        """Construct the projections and the normalisations."""
        super().add_projections(config, dtype)
        self.q_norm = norm(self.heads * self.size, config, dtype)
        self.k_norm = norm(self.kv_heads * self.size, config, dtype)

    def projections(self, rows, length):
        """Queries, keys and values."""
        return (
            split_heads(self.q_norm(self.q_proj(rows)), length, self.heads),
            split_heads(self.k_norm(self.k_proj(rows)), length, self.kv_heads),
            split_heads(self.v_proj(rows), length, self.kv_heads),
        )


class Olmo2DecoderLayer(llama.LlamaDecoderLayer):
    """One layer, which normalises its results rather than its inputs."""

    attention_class = Olmo2Attention

    def add_norms(self, config, dtype) -> None:
        """Construct the normalisations."""
        self.post_attention_layernorm = norm(config.hidden_size, config, dtype)
        self.post_feedforward_layernorm = norm(config.hidden_size, config, dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities, cache = self.self_attn(rows, inputs=inputs, training=training)
        rows = add_residual(self.post_attention_layernorm(attended), rows)
        return add_residual(self.post_feedforward_layernorm(self.mlp(rows)), rows), probabilities, cache


class TFOlmo2Model(llama.TFLlamaModel):
    """The body. See :class:`~tf_pipeline.models.llama.TFLlamaModel`."""

    layer_class = Olmo2DecoderLayer

    def new_norm(self) -> RMSNorm:
        """The last normalisation."""
        return norm(self.config.hidden_size, self.config, self.dtype_policy)

    def rotary_tables(self, positions: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """The same table for all layers; half precision is turned in float32."""
        dtype = tf.as_dtype(self.compute_dtype)
        return [self.rotary(positions, tf.float32 if dtype.size < 4 else dtype)] * len(self.blocks)


class TFOlmo2ForCausalLM(llama.TFLlamaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.llama.TFLlamaForCausalLM`."""


class TFOlmo2ForSequenceClassification(llama.TFLlamaForSequenceClassification):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""
