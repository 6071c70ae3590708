"""BERT (https://arxiv.org/abs/1810.04805): the body and all its heads.

Attribute paths are the keys of ``transformers`` checkpoints.
"""

from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.encoder import (
    CausalLM,
    EncoderBody,
    MaskedLM,
    MultipleChoice,
    PreTraining,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
    head_outputs,
)
from tf_pipeline.heads import NEXT_SENTENCE_PREDICTION, head_of
from tf_pipeline.layers import (
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    VocabularyHead,
    add_residual,
    dot_product_attention,
    get_activation,
    position_vectors,
    run_layers,
)
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import BaseModelOutputWithPooling, NextSentencePredictorOutput


class BertEmbeddings(keras.layers.Layer):
    """Sum of word, type and position embeddings of ``size``, normalised."""

    def __init__(self, config, size, position_padding=None, dtype=None):
        super().__init__(dtype=dtype)
        std = config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, size, std, config.pad_token_id, dtype=dtype)
        self.position_embeddings = Embedding(config.max_position_embeddings, size, std, position_padding, dtype=dtype)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size, std, dtype=dtype)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, input_ids=None, token_type_ids=None, position_ids=None, inputs_embeds=None, training=None):
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        if token_type_ids is None:
            token_type_ids = tf.zeros([1, 1], tf.int32)
        embeddings = inputs_embeds + self.token_type_embeddings(token_type_ids)
        embeddings += position_vectors(self.position_embeddings, position_ids, tf.shape(inputs_embeds)[1])
        return self.dropout(self.LayerNorm(embeddings), training=training)


class BertSelfAttention(keras.layers.Layer):
    """Query, key and value projections and the attention over them."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        if size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {size} is not a multiple of num_attention_heads {config.num_attention_heads}."
            )
        self.num_heads = config.num_attention_heads
        self.query = Linear(size, size, std, dtype=dtype)
        self.key = Linear(size, size, std, dtype=dtype)
        self.value = Linear(size, size, std, dtype=dtype)
        self.dropout = Dropout(config.attention_probs_dropout_prob, dtype=dtype)

    def call(self, rows, inputs, training=None):
        query, key, value = self.query(inputs.computed(rows)), self.key(rows), self.value(rows)
        return dot_product_attention(query, key, value, inputs, self.num_heads, self.dropout, training)


class BertSelfOutput(keras.layers.Layer):
    """Projection, residual and normalisation, after attention and after the feed-forward layer alike."""

    def __init__(self, config, in_features, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(in_features, config.hidden_size, config.initializer_range, dtype=dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, hidden_states, residual, training=None):
        return self.LayerNorm(add_residual(self.dropout(self.dense(hidden_states), training=training), residual))


class BertAttention(keras.layers.Layer):
    """Self-attention with its output projection."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.self_ = BertSelfAttention(config, dtype=dtype)
        self.output_ = BertSelfOutput(config, config.hidden_size, dtype=dtype)

    def call(self, rows, inputs, training=None):
        context, probabilities = self.self_(rows, inputs=inputs, training=training)
        return self.output_(context, inputs.computed(rows), training=training), probabilities


class BertIntermediate(keras.layers.Layer):
    """The wide half of the feed-forward layer."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(config.hidden_size, config.intermediate_size, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.hidden_act)

    def call(self, hidden_states):
        return self.activation(self.dense(hidden_states))


class BertLayer(keras.layers.Layer):
    """One transformer layer, called as :class:`~tf_pipeline.layers.LayerInputs` says."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.attention = BertAttention(config, dtype=dtype)
        self.intermediate = BertIntermediate(config, dtype=dtype)
        self.output_ = BertSelfOutput(config, config.intermediate_size, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attention(rows, inputs=inputs, training=training)
        return self.output_(self.intermediate(attended), attended, training=training), probabilities


class BertEncoder(keras.layers.Layer):
    """The stack of layers."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.layer = [BertLayer(config, dtype=dtype) for _ in range(config.num_hidden_layers)]

    def call(self, hidden_states, inputs, training=None, **options):
        return run_layers(self.layer, hidden_states, inputs, training=training, **options)


class BertPooler(keras.layers.Layer):
    """The first token, projected and squashed."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(config.hidden_size, config.hidden_size, config.initializer_range, dtype=dtype)

    def call(self, hidden_states):
        return tf.tanh(self.dense(hidden_states[:, 0]))


class BertPredictionHeadTransform(keras.layers.Layer):
    """The layer before the vocabulary."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(config.hidden_size, config.hidden_size, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.hidden_act)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)

    def call(self, hidden_states):
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class BertLMPredictionHead(VocabularyHead):
    """Scores over the vocabulary."""

    def __init__(self, config, dtype=None):
        super().__init__(config, config.hidden_size, dtype=dtype)
        self.transform = BertPredictionHeadTransform(config, dtype=dtype)

    def transformed(self, hidden_states):
        return self.transform(hidden_states)


class BertHeads(keras.layers.Layer):
    """The part that checkpoints call ``cls``: the language-model head, the next-sentence head, or both."""

    def __init__(self, config, predictions=True, seq_relationship=False, dtype=None):
        super().__init__(dtype=dtype)
        if predictions:
            self.predictions = BertLMPredictionHead(config, dtype=dtype)
        if seq_relationship:
            self.seq_relationship = Linear(config.hidden_size, 2, config.initializer_range, dtype=dtype)


def classifier_dropout(config, dtype) -> Dropout:
    """The dropout before a classifier: ``classifier_dropout``, else ``hidden_dropout_prob``."""
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return Dropout(rate, dtype=dtype)


class TFBertPreTrainedModel(TFPreTrainedModel):
    """Base class of all BERT models."""

    base_model_prefix = "bert"
    supported_config = {
        "add_cross_attention": (False,),
        "is_encoder_decoder": (False,),
        "position_embedding_type": ("absolute", None),
    }

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        if not self.config.tie_word_embeddings or not hasattr(getattr(self, "cls", None), "predictions"):
            return {}
        return {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``, in models that have the language-model head."""
        return self.cls.predictions(hidden_states, self.bert.embeddings.word_embeddings.table())

    def text_logits(self, body: BaseModelOutputWithPooling, training: bool = False) -> tf.Tensor:
        """Scores of a text from its pooled first token, in models that have a classifier."""
        return self.classifier(self.dropout(body.pooler_output, training=training))


class TFBertModel(EncoderBody, TFBertPreTrainedModel):
    """The body: hidden states, and a pooled first token unless ``add_pooling_layer=False``."""

    def __init__(self, config, add_pooling_layer: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = BertEmbeddings(config, config.hidden_size, dtype=self.dtype_policy)
        self.encoder = BertEncoder(config, dtype=self.dtype_policy)
        self.pooler = BertPooler(config, dtype=self.dtype_policy) if add_pooling_layer else None

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"add_pooling_layer": self.pooler is not None}


@head_of("BertForPreTraining")
class TFBertForPreTraining(PreTraining, TFBertPreTrainedModel):
    """Masked-language and next-sentence heads.

    Labels: ``labels`` ``[batch, seq]`` and ``next_sentence_label`` ``[batch]``; the loss takes both.
    """

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, dtype=self.dtype_policy)
        self.cls = BertHeads(config, seq_relationship=True, dtype=self.dtype_policy)

    def pair_logits(self, pooled: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, hidden]`` to the logits of "follows" and "does not"."""
        return self.cls.seq_relationship(pooled)


class TFBertLMHeadModel(CausalLM, TFBertPreTrainedModel):
    """Predicts the next token; the config should say ``is_decoder=True``. Labels ``[batch, seq]`` are shifted here."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.cls = BertHeads(config, dtype=self.dtype_policy)


class TFBertForMaskedLM(MaskedLM, TFBertPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.cls = BertHeads(config, dtype=self.dtype_policy)


@NEXT_SENTENCE_PREDICTION
class TFBertForNextSentencePrediction(TFBertPreTrainedModel):
    """Tells whether the second text follows the first (0) or not (1). Labels: ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, dtype=self.dtype_policy)
        self.cls = BertHeads(config, predictions=False, seq_relationship=True, dtype=self.dtype_policy)

    def forward(self, **inputs: Any) -> NextSentencePredictorOutput:
        """Logits of "follows" and "does not"."""
        outputs = self.bert.forward(first_token_only=True, **inputs)
        return head_outputs(
            NextSentencePredictorOutput, outputs, logits=self.cls.seq_relationship(outputs.pooler_output)
        )


class TFBertForSequenceClassification(SequenceClassification, TFBertPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.bert = TFBertModel(config, dtype=dtype)
        self.dropout = classifier_dropout(config, dtype)
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFBertForMultipleChoice(MultipleChoice, TFBertPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, dtype=self.dtype_policy)
        self.dropout = classifier_dropout(config, self.dtype_policy)
        self.classifier = Linear(config.hidden_size, 1, config.initializer_range, dtype=self.dtype_policy)


class TFBertForTokenClassification(TokenClassification, TFBertPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=dtype)
        self.dropout = classifier_dropout(config, dtype)
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFBertForQuestionAnswering(QuestionAnswering, TFBertPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy)
