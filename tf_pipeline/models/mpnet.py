"""MPNet (https://arxiv.org/abs/2004.09297): the body and all its heads.

Positions are counted as RoBERTa's, and attention knows relative ones besides. Attribute paths are the keys of
``transformers`` checkpoints.
"""

from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.encoder import (
    EncoderBody,
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from tf_pipeline.inputs import INPUT_NAMES
from tf_pipeline.layers import (
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    add_residual,
    bidirectional_buckets,
    dot_product_attention,
    relative_positions,
    run_layers,
    token_positions,
)
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.models.bert import BertIntermediate, BertPooler, BertSelfOutput
from tf_pipeline.models.roberta import ClassificationHead, RobertaLMHead
from tf_pipeline.outputs import BaseModelOutputWithPooling

PADDING_IDX = 1  # not pad_token_id: fixed by the architecture
NUM_BUCKETS = 32  # not relative_attention_num_buckets, which only sizes the table


class MPNetEmbeddings(keras.layers.Layer):
    """Sum of word and position embeddings, normalised."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, size, std, PADDING_IDX, dtype=dtype)
        self.position_embeddings = Embedding(config.max_position_embeddings, size, std, PADDING_IDX, dtype=dtype)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, input_ids=None, position_ids=None, inputs_embeds=None, training=None):
        if position_ids is None:
            position_ids = token_positions(input_ids, inputs_embeds, PADDING_IDX)
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        embeddings = inputs_embeds + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings), training=training)


class MPNetSelfAttention(keras.layers.Layer):
    """Projections, attention and output projection."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        if size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {size} is not a multiple of num_attention_heads {config.num_attention_heads}."
            )
        self.num_heads = config.num_attention_heads
        self.q = Linear(size, size, std, dtype=dtype)
        self.k = Linear(size, size, std, dtype=dtype)
        self.v = Linear(size, size, std, dtype=dtype)
        self.o = Linear(size, size, std, dtype=dtype)
        self.dropout = Dropout(config.attention_probs_dropout_prob, dtype=dtype)

    def call(self, rows, inputs, training=None):
        query, key, value = self.q(inputs.computed(rows)), self.k(rows), self.v(rows)
        context, probabilities = dot_product_attention(
            query, key, value, inputs, self.num_heads, self.dropout, training
        )
        return self.o(context), probabilities


class MPNetAttention(keras.layers.Layer):
    """Self-attention, residual and normalisation."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.attn = MPNetSelfAttention(config, dtype=dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attn(rows, inputs=inputs, training=training)
        attended = self.dropout(attended, training=training)
        return self.LayerNorm(add_residual(attended, inputs.computed(rows))), probabilities


class MPNetLayer(keras.layers.Layer):
    """One transformer layer, called as :class:`~tf_pipeline.layers.LayerInputs` says."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.attention = MPNetAttention(config, dtype=dtype)
        self.intermediate = BertIntermediate(config, dtype=dtype)
        self.output_ = BertSelfOutput(config, config.intermediate_size, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attention(rows, inputs=inputs, training=training)
        return self.output_(self.intermediate(attended), attended, training=training), probabilities


class MPNetEncoder(keras.layers.Layer):
    """The stack of layers, and the scores of relative positions, which all of them share."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        buckets, heads = config.relative_attention_num_buckets, config.num_attention_heads
        if buckets < NUM_BUCKETS:
            raise ValueError(
                f"relative_attention_num_buckets {buckets} is less than the {NUM_BUCKETS} that MPNet uses."
            )
        self.layer = [MPNetLayer(config, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self.relative_attention_bias = Embedding(buckets, heads, config.initializer_range, dtype=dtype)

    def call(self, hidden_states, inputs, training=None, **options):
        buckets = bidirectional_buckets(relative_positions(inputs.length), NUM_BUCKETS)
        scores = tf.transpose(self.relative_attention_bias(buckets), [2, 0, 1])[tf.newaxis]
        inputs = replace(inputs, bias=scores if inputs.bias is None else scores + inputs.bias)
        return run_layers(self.layer, hidden_states, inputs, training=training, **options)


class TFMPNetPreTrainedModel(TFPreTrainedModel):
    """Base class of all MPNet models. There are no token types."""

    base_model_prefix = "mpnet"
    tensor_names = tuple(name for name in INPUT_NAMES if name != "token_type_ids")
    supported_config = {"is_decoder": (False,), "is_encoder_decoder": (False,)}

    @property
    def max_length(self) -> int:
        """Maximum number of tokens in a sequence: positions up to that of padding are never a token's."""
        return self.num_positions - PADDING_IDX - 1


class TFMPNetModel(EncoderBody, TFMPNetPreTrainedModel):
    """The body: hidden states, and a pooled first token unless ``add_pooling_layer=False``."""

    states_without_layers = True

    def __init__(self, config, add_pooling_layer: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = MPNetEmbeddings(config, dtype=self.dtype_policy)
        self.encoder = MPNetEncoder(config, dtype=self.dtype_policy)
        self.pooler = BertPooler(config, dtype=self.dtype_policy) if add_pooling_layer else None

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"add_pooling_layer": self.pooler is not None}


class TFMPNetForMaskedLM(MaskedLM, TFMPNetPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.mpnet = TFMPNetModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.lm_head = RobertaLMHead(config, dtype=self.dtype_policy)

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        if not self.config.tie_word_embeddings:
            return {}
        return {
            "lm_head.decoder.weight": "mpnet.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        return self.lm_head(hidden_states, self.mpnet.embeddings.word_embeddings.table())


class TFMPNetForSequenceClassification(SequenceClassification, TFMPNetPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dropout = Dropout(config.hidden_dropout_prob, dtype=self.dtype_policy)
        self.mpnet = TFMPNetModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.classifier = ClassificationHead(config, dropout, "tanh", dtype=self.dtype_policy)

    def text_logits(self, body: BaseModelOutputWithPooling, training: bool = False) -> tf.Tensor:
        """``[batch, num_labels]``."""
        return self.classifier(body.last_hidden_state, training=training)


class TFMPNetForMultipleChoice(MultipleChoice, TFMPNetPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.mpnet = TFMPNetModel(config, dtype=self.dtype_policy)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=self.dtype_policy)
        self.classifier = Linear(config.hidden_size, 1, config.initializer_range, dtype=self.dtype_policy)

    def text_logits(self, body: BaseModelOutputWithPooling, training: bool = False) -> tf.Tensor:
        """``[batch * choices, 1]``."""
        return self.classifier(self.dropout(body.pooler_output, training=training))


class TFMPNetForTokenClassification(TokenClassification, TFMPNetPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.mpnet = TFMPNetModel(config, add_pooling_layer=False, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFMPNetForQuestionAnswering(QuestionAnswering, TFMPNetPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.mpnet = TFMPNetModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy)
