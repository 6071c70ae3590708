"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf).

Attribute paths are the keys of ``transformers`` checkpoints.
"""

import math
import re
from collections.abc import Mapping
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
    decoder_outputs,
)
from tf_pipeline.heads import head_of
from tf_pipeline.inputs import INPUT_NAMES, check_places
from tf_pipeline.layers import (
    Conv1D,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    SequenceSummary,
    VocabularyProjector,
    add_residual,
    attend,
    flatten_choices,
    get_activation,
    merge_heads,
    position_vectors,
    split_heads,
)
from tf_pipeline.outputs import GPT2DoubleHeadsModelOutput


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
        self.attn_dropout = Dropout(config.attn_pdrop, dtype=dtype)
        self.resid_dropout = Dropout(config.resid_pdrop, dtype=dtype)

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
        self.dropout = Dropout(config.resid_pdrop, dtype=dtype)

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
        self.drop = Dropout(config.embd_pdrop, dtype=dtype)
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


def _leading(inputs: Mapping[str, Any]) -> str | None:
    """The input that says what the texts are, if there is one."""
    return next((name for name in ("input_ids", "inputs_embeds") if name in inputs), None)


@head_of("GPT2DoubleHeadsModel")
class TFGPT2DoubleHeadsModel(TFGPT2LMHeadModel):
    """Predicts the next token, and chooses among texts.

    Inputs are ``[batch, choices, seq]``, or ``[batch, seq]`` for one score a text. Labels: ``labels`` of the shape of
    the ids are shifted here, ``mc_labels`` are ``[batch]``. A call returns ``loss`` and ``mc_loss``; ``fit`` trains by
    their sum.

    ``mc_token_ids``, int ``[batch, choices]``, are the places of the tokens by which texts are chosen: by default the
    last, which may be padding. They are read if the config's ``summary_type`` is ``"cls_index"``. As in PyTorch, the
    config's ``num_labels`` becomes 1.
    """

    tensor_names = (*INPUT_NAMES, "mc_token_ids")

    def __init__(self, config, **kwargs: Any):
        config.num_labels = 1
        super().__init__(config, **kwargs)
        self.multiple_choice_head = SequenceSummary(config, dtype=self.dtype_policy)

    def default_signature(self) -> dict[str, tf.TensorSpec]:
        """Inputs of an exported model, with places of tokens."""
        spec = tf.TensorSpec([None] * (self.input_rank - 1), tf.int32, "mc_token_ids")
        return super().default_signature() | {"mc_token_ids": spec}

    def rank_of_ids(self, inputs: Mapping[str, Any]) -> int:
        """2 for texts without choices, else 3."""
        name = _leading(inputs)
        rank = None if name is None else inputs[name].shape.rank
        return 2 if rank == 2 + (name == "inputs_embeds") else self.input_rank

    def check(self, inputs: Mapping[str, Any], *args: Any, **options: Any) -> dict[str, Any]:
        """Refuse inputs of a wrong shape or value, and places that are not one for each text."""
        tokens = {name: value for name, value in inputs.items() if name != "mc_token_ids"}
        checked = super().check(tokens, *args, **options)
        if (places := inputs.get("mc_token_ids")) is not None:
            name = _leading(inputs)
            ids = inputs[name] if name == "input_ids" else inputs[name][..., 0]
            checked["mc_token_ids"] = check_places("mc_token_ids", places, name, ids)
        return checked

    def forward(
        self, mc_token_ids: tf.Tensor | None = None, training: bool = False, **inputs: Any
    ) -> GPT2DoubleHeadsModelOutput:
        """Scores of every token of the vocabulary, and of each text."""
        shape = tf.shape(inputs[_leading(inputs)])[: self.rank_of_ids(inputs)]
        has_choices = self.rank_of_ids(inputs) == 3
        rows = flatten_choices(inputs)[0] if has_choices else inputs
        body = self.transformer.forward(training=training, **rows)
        logits, last = self.prediction_logits(body.last_hidden_state), body.last_hidden_state
        if has_choices:
            logits, last = (tf.reshape(x, tf.concat([shape, tf.shape(x)[-1:]], 0)) for x in (logits, last))
            if body.hidden_states:
                body = type(body)(body, hidden_states=(*body.hidden_states[:-1], last))
        scores = self.multiple_choice_head(last, mc_token_ids, training=training)
        scores = tf.squeeze(scores, -1) if scores.shape[-1] == 1 else scores
        return decoder_outputs(GPT2DoubleHeadsModelOutput, body, logits=logits, mc_logits=scores)

    def named_losses(self, outputs: GPT2DoubleHeadsModelOutput, labels: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The loss of each kind of labels that is given, by itself."""
        names = {"loss": "labels", "mc_loss": "mc_labels"}
        return {
            name: self.compute_task_loss(outputs, {label: labels[label]})
            for name, label in names.items()
            if label in labels
        }


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
