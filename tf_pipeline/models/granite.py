"""Granite (https://huggingface.co/ibm-granite): Llama with factors of its own in four places."""

import tensorflow as tf

from tf_pipeline.layers import add_residual
from tf_pipeline.models import llama


def times(x: tf.Tensor, factor: float) -> tf.Tensor:
    """The product, in the dtype of ``x``."""
    return x * tf.constant(factor, x.dtype)


class GraniteAttention(llama.LlamaAttention):
    """Attention whose scores have a factor of the config's (``attention_multiplier``)."""

    def __init__(self, config, index, dtype=None):
        super().__init__(config, index, dtype=dtype)
        self.scale = config.attention_multiplier


class GraniteDecoderLayer(llama.LlamaDecoderLayer):
    """One layer, with a factor of its results (config: ``residual_multiplier``)."""

    attention_class = GraniteAttention

    def __init__(self, config, index, dtype=None):
        super().__init__(config, index, dtype=dtype)
        self.factor = config.residual_multiplier

    def call(self, rows, inputs, training=None):
        attended, probabilities, cache = self.self_attn(self.input_layernorm(rows), inputs=inputs, training=training)
        rows = add_residual(times(attended, self.factor), rows)
        fed = times(self.mlp(self.post_attention_layernorm(rows)), self.factor)
        return add_residual(fed, rows), probabilities, cache


class TFGraniteModel(llama.TFLlamaModel):
    """The body, with a factor of the embeddings (config: ``embedding_multiplier``)."""

    layer_class = GraniteDecoderLayer

    def embed(self, input_ids=None, inputs_embeds=None, position_ids=None, training=False) -> tf.Tensor:
        """Word embeddings."""
        return times(super().embed(input_ids, inputs_embeds), self.config.embedding_multiplier)


class TFGraniteForCausalLM(llama.TFLlamaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.llama.TFLlamaForCausalLM`."""

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``, divided by ``logits_scaling``."""
        logits = super().prediction_logits(hidden_states)
        return logits / tf.constant(self.config.logits_scaling, logits.dtype)
