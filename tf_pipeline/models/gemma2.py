"""Gemma 2 (https://arxiv.org/abs/2408.00118): Llama with norms around both halves of a layer, and soft caps.

Every other layer sees a window.
"""

import tensorflow as tf

from tf_pipeline.layers import RMSNorm, add_residual
from tf_pipeline.models import llama


def norm(size: int, config, dtype) -> RMSNorm:
    """A normalisation whose factor is one more than its weight."""
    return RMSNorm(size, config.rms_norm_eps, unit_offset=True, scale_in_float32=True, dtype=dtype)


class Gemma2Attention(llama.LlamaAttention):
    """Attention with capped scores (config: ``query_pre_attn_scalar``, ``attn_logit_softcapping``)."""

    def __init__(self, config, index, dtype=None):
        super().__init__(config, index, dtype=dtype)
        self.scale, self.softcap = config.query_pre_attn_scalar**-0.5, config.attn_logit_softcapping


class Gemma2DecoderLayer(llama.LlamaDecoderLayer):
    """One layer, which normalises its inputs and its results."""

    attention_class = Gemma2Attention

    def add_norms(self, config, dtype) -> None:
        """Construct the normalisations."""
        self.input_layernorm = norm(config.hidden_size, config, dtype)
        self.post_attention_layernorm = norm(config.hidden_size, config, dtype)
        self.pre_feedforward_layernorm = norm(config.hidden_size, config, dtype)
        self.post_feedforward_layernorm = norm(config.hidden_size, config, dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities, cache = self.self_attn(self.input_layernorm(rows), inputs=inputs, training=training)
        rows = add_residual(self.post_attention_layernorm(attended), rows)
        fed = self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(rows)))
        return add_residual(fed, rows), probabilities, cache


class TFGemma2PreTrainedModel(llama.TFLlamaPreTrainedModel):
    """Base class of all Gemma 2 models."""

    supported_config = {"use_bidirectional_attention": (False, None)}


class TFGemma2Model(llama.TFLlamaModel, TFGemma2PreTrainedModel):
    """The body; embeddings of words, and not those that are given, are multiplied by the root of their size."""

    layer_class = Gemma2DecoderLayer

    def new_norm(self) -> RMSNorm:
        """The last normalisation."""
        return norm(self.config.hidden_size, self.config, self.dtype_policy)

    def layer_windows(self) -> list[int | None]:
        """Those of ``layer_types``."""
        return llama.windows_of_layers(self.config)

    def embed(self, input_ids=None, inputs_embeds=None, position_ids=None, training=False) -> tf.Tensor:
        """Word embeddings."""
        if inputs_embeds is not None:
            return inputs_embeds
        words = self.embed_tokens(input_ids)
        return words * tf.constant(self.config.hidden_size**0.5, words.dtype)


class TFGemma2ForCausalLM(llama.TFLlamaForCausalLM, TFGemma2PreTrainedModel):
    """Predicts the next token, with capped scores (config: ``final_logit_softcapping``)."""

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        logits = super().prediction_logits(hidden_states)
        if self.config.final_logit_softcapping is None:
            return logits
        cap = tf.constant(self.config.final_logit_softcapping, logits.dtype)
        return cap * tf.tanh(logits / cap)


class TFGemma2ForSequenceClassification(llama.TFLlamaForSequenceClassification, TFGemma2PreTrainedModel):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""


class TFGemma2ForTokenClassification(llama.TFLlamaForTokenClassification, TFGemma2PreTrainedModel):
    """Labels each token. See :class:`~tf_pipeline.models.llama.TFLlamaForTokenClassification`."""
