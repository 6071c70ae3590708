"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf).

Attribute paths are the keys of ``transformers`` checkpoints.
"""

import math
import re
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.decoder import (
    CausalLM,
    DecoderBody,
    QuestionAnswering,
    SequenceClassification,
    TFDecoderPreTrainedModel,
    TokenClassification,
    classifier_dropout,
)
from tf_pipeline.layers import (
    Conv1D,
    Embedding,
    LayerNorm,
    Linear,
    VocabularyProjector,
    add_residual,
    attend,
    get_activation,
    merge_heads,
    position_vectors,
    split_heads,
)


def residual_std(config) -> float:
    """Standard deviation of initial weights that write to the residual stream, which each layer does twice."""
    return config.initializer_range / math.sqrt(2 * config.n_layer)


class GPT2Attention(keras.layers.Layer):
    """Attention with its projections.

    Scores are divided by the root of the head size if ``scale_attn_weights``, and by the number of the layer if
    ``scale_attn_by_inverse_layer_idx``; half precision takes them in float32 if ``reorder_and_upcast_attn``.
    """

    def __init__(self, config, index, dtype=None):
        super().__init__(dtype=dtype)
        size, self.num_heads = config.n_embd, config.n_head
        if size % self.num_heads:
            raise ValueError(f"n_embd {size} is not a multiple of n_head {self.num_heads}.")
        self.scale = (size // self.num_heads) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= index + 1
        self.upcast = config.reorder_and_upcast_attn
        self.c_attn = Conv1D(size, 3 * size, config.initializer_range, dtype=dtype)
        self.c_proj = Conv1D(size, size, residual_std(config), dtype=dtype)
        self.attn_dropout = keras.layers.Dropout(config.attn_pdrop, dtype=dtype)
        self.resid_dropout = keras.layers.Dropout(config.resid_pdrop, dtype=dtype)

    def call(self, rows, inputs, training=None):
        parts = tf.split(self.c_attn(rows), 3, axis=-1)
        query, key, value = (split_heads(part, inputs.length, self.num_heads) for part in parts)
        cache = inputs.remember(key, value)
        context, probabilities = attend(
            query, cache.keys, cache.values, self.scale, inputs.bias,
            lambda x: self.attn_dropout(x, training=training), wide_scores=self.upcast,
        )  # fmt: skip
        return self.resid_dropout(self.c_proj(merge_heads(context)), training=training), probabilities, cache


class GPT2MLP(keras.layers.Layer):
    """The feed-forward layer, ``n_inner`` wide, or four times ``n_embd``."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size = config.n_embd
        wide = 4 * size if config.n_inner is None else config.n_inner
        self.c_fc = Conv1D(size, wide, config.initializer_range, dtype=dtype)
        self.c_proj = Conv1D(wide, size, residual_std(config), dtype=dtype)
        self.activation = get_activation(config.activation_function)
        self.dropout = keras.layers.Dropout(config.resid_pdrop, dtype=dtype)

    def call(self, rows, training=None):
        return self.dropout(self.c_proj(self.activation(self.c_fc(rows))), training=training)


class GPT2Block(keras.layers.Layer):
    """One layer, called as :class:`~tf_pipeline.decoder.DecoderInputs` says."""

    def __init__(self, config, index, dtype=None):
        super().__init__(dtype=dtype)
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.attn = GPT2Attention(config, index, dtype=dtype)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.mlp = GPT2MLP(config, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities, cache = self.attn(self.ln_1(rows), inputs=inputs, training=training)
        rows = add_residual(attended, rows)
        return add_residual(self.mlp(self.ln_2(rows), training=training), rows), probabilities, cache


class TFGPT2PreTrainedModel(TFDecoderPreTrainedModel):
    """Base class of all GPT-2 models."""

    base_model_prefix = "transformer"
    supported_config = {"add_cross_attention": (False,)}
    least_config = TFDecoderPreTrainedModel.least_config | {"n_inner": 1}
    # Buffers of causal masks, in checkpoints of old.
    ignored_keys = re.compile(r"(^|\.)h\.\d+\.attn\.(bias|masked_bias)$")


class TFGPT2Model(DecoderBody, TFGPT2PreTrainedModel):
    """The body. Token types, if there are any, are embedded as words are."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.wte = Embedding(config.vocab_size, config.n_embd, std, dtype=dtype)
        self.wpe = Embedding(config.n_positions, config.n_embd, std, dtype=dtype)
        self.drop = keras.layers.Dropout(config.embd_pdrop, dtype=dtype)
        self.h = [GPT2Block(config, index, dtype=dtype) for index in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)

    @property
    def blocks(self) -> list[GPT2Block]:
        """The layers."""
        return self.h

    def embed(self, input_ids=None, inputs_embeds=None, token_type_ids=None, position_ids=None, training=False):
        """Sum of word, position and type embeddings."""
        embeddings = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        embeddings += position_vectors(self.wpe, position_ids, tf.shape(embeddings)[1])
        if token_type_ids is not None:
            embeddings += self.wte(token_type_ids)
        return self.drop(embeddings, training=training)

    def finish(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """The last normalisation."""
        return self.ln_f(hidden_states)


class TFGPT2LMHeadModel(CausalLM, TFGPT2PreTrainedModel):
    """Predicts the next token. Labels ``[batch, seq]`` are shifted here."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.transformer = TFGPT2Model(config, dtype=dtype)
        self.lm_head = VocabularyProjector(
            config.n_embd, config.vocab_size, std, config.tie_word_embeddings, use_bias=False, dtype=dtype
        )

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        return {"lm_head.weight": "transformer.wte.weight"} if self.config.tie_word_embeddings else {}

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        return self.lm_head(hidden_states, self.transformer.wte.table())


class TFGPT2ForSequenceClassification(SequenceClassification, TFGPT2PreTrainedModel):
    """Scores a text by its last token. Labels: ``[batch]``, or ``[batch, num_labels]`` if multi-label or regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.transformer = TFGPT2Model(config, dtype=dtype)
        self.score = Linear(config.n_embd, config.num_labels, std, use_bias=False, dtype=dtype)


class TFGPT2ForTokenClassification(TokenClassification, TFGPT2PreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.transformer = TFGPT2Model(config, dtype=dtype)
        self.dropout = classifier_dropout(config, dtype)
        self.classifier = Linear(config.n_embd, config.num_labels, std, dtype=dtype)


class TFGPT2ForQuestionAnswering(QuestionAnswering, TFGPT2PreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.transformer = TFGPT2Model(config, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.n_embd, 2, config.initializer_range, dtype=self.dtype_policy)
