"""BERT (https://arxiv.org/abs/1810.04805): the body and all its heads.

Attribute paths are the keys of ``transformers`` checkpoints.
"""

import logging
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline import losses
from tf_pipeline.layers import (
    Bias,
    Embedding,
    LayerNorm,
    Linear,
    VocabularyProjector,
    add_residual,
    attention_bias,
    dot_product_attention,
    flatten_choices,
    get_activation,
    position_vectors,
    run_layers,
)
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import (
    BaseModelOutputWithPooling,
    CausalLMOutput,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    PreTrainingOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

logger = logging.getLogger(__name__)


class BertEmbeddings(keras.layers.Layer):
    """Sum of word, type and position embeddings, normalised."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, size, std, config.pad_token_id, dtype=dtype)
        self.position_embeddings = Embedding(config.max_position_embeddings, size, std, dtype=dtype)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size, std, dtype=dtype)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, input_ids, token_type_ids=None, position_ids=None, inputs_embeds=None, training=None):
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
        self.dropout = keras.layers.Dropout(config.attention_probs_dropout_prob, dtype=dtype)

    def call(self, rows, queries, lengths, bias=None, training=None):
        query, key, value = self.query(queries), self.key(rows), self.value(rows)
        return dot_product_attention(query, key, value, lengths, self.num_heads, bias, self.dropout, training)


class BertSelfOutput(keras.layers.Layer):
    """Projection, residual and normalisation, after attention and after the feed-forward layer alike."""

    def __init__(self, config, in_features, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(in_features, config.hidden_size, config.initializer_range, dtype=dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, hidden_states, residual, training=None):
        return self.LayerNorm(add_residual(self.dropout(self.dense(hidden_states), training=training), residual))


class BertAttention(keras.layers.Layer):
    """Self-attention with its output projection."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.self_ = BertSelfAttention(config, dtype=dtype)
        self.output_ = BertSelfOutput(config, config.hidden_size, dtype=dtype)

    def call(self, rows, queries, lengths, bias=None, training=None):
        context, probabilities = self.self_(rows, queries, lengths=lengths, bias=bias, training=training)
        return self.output_(context, queries, training=training), probabilities


class BertIntermediate(keras.layers.Layer):
    """The wide half of the feed-forward layer."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(config.hidden_size, config.intermediate_size, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.hidden_act)

    def call(self, hidden_states):
        return self.activation(self.dense(hidden_states))


class BertLayer(keras.layers.Layer):
    """One transformer layer, computed for ``queries``: some or all of the rows."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.attention = BertAttention(config, dtype=dtype)
        self.intermediate = BertIntermediate(config, dtype=dtype)
        self.output_ = BertSelfOutput(config, config.intermediate_size, dtype=dtype)

    def call(self, rows, queries, lengths, bias=None, training=None):
        attended, probabilities = self.attention(rows, queries, lengths=lengths, bias=bias, training=training)
        return self.output_(self.intermediate(attended), attended, training=training), probabilities


class BertEncoder(keras.layers.Layer):
    """The stack of layers; returns every hidden state and every attention."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.layer = [BertLayer(config, dtype=dtype) for _ in range(config.num_hidden_layers)]

    def call(self, hidden_states, bias=None, first_token_only=False, training=None):
        return run_layers(self.layer, hidden_states, bias, first_token_only, training)


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


class BertLMPredictionHead(keras.layers.Layer):
    """Scores over the vocabulary.

    PyTorch has the bias twice, as ``bias`` and as ``decoder.bias``. Tied, they are one; untied, only the second counts,
    and the first is kept for the round trip.
    """

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std, self.tied = config.hidden_size, config.initializer_range, config.tie_word_embeddings
        self.transform = BertPredictionHeadTransform(config, dtype=dtype)
        self.decoder = VocabularyProjector(size, config.vocab_size, std, self.tied, use_bias=not self.tied, dtype=dtype)
        self.bias = Bias(config.vocab_size, dtype=dtype)

    def call(self, hidden_states, word_embeddings):
        scores = self.decoder(self.transform(hidden_states), word_embeddings)
        return self.bias(scores) if self.tied else scores


class BertHeads(keras.layers.Layer):
    """What checkpoints call ``cls``: the language-model head, the next-sentence head, or both."""

    def __init__(self, config, predictions=True, seq_relationship=False, dtype=None):
        super().__init__(dtype=dtype)
        if predictions:
            self.predictions = BertLMPredictionHead(config, dtype=dtype)
        if seq_relationship:
            self.seq_relationship = Linear(config.hidden_size, 2, config.initializer_range, dtype=dtype)


class TFBertPreTrainedModel(TFPreTrainedModel):
    """What all BERT models share."""

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


class TFBertModel(TFBertPreTrainedModel):
    """The body: hidden states, and a pooled first token unless ``add_pooling_layer=False``."""

    def __init__(self, config, add_pooling_layer: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = BertEmbeddings(config, dtype=self.dtype_policy)
        self.encoder = BertEncoder(config, dtype=self.dtype_policy)
        self.pooler = BertPooler(config, dtype=self.dtype_policy) if add_pooling_layer else None

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"add_pooling_layer": self.pooler is not None}

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        output_hidden_states=False,
        output_attentions=False,
        first_token_only=False,
        training=False,
    ) -> BaseModelOutputWithPooling:
        """See :meth:`tf_pipeline.model.TFPreTrainedModel.__call__`.

        ``first_token_only`` spares the last layer all but the first token, for heads that read no other; the last
        hidden state is ``[batch, 1, hidden]`` then, unless hidden states or attentions are to be returned too.
        """
        embeddings = self.embeddings(
            input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            training=training,
        )
        causal_length = tf.shape(embeddings)[1] if self.config.is_decoder else None
        bias = attention_bias(attention_mask, embeddings.dtype, causal_length)
        first_token_only = first_token_only and not (output_hidden_states or output_attentions)
        hidden_states, attentions = self.encoder(
            embeddings, bias=bias, first_token_only=first_token_only, training=training
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states[-1],
            pooler_output=self.pooler(hidden_states[-1]) if self.pooler is not None else None,
            hidden_states=hidden_states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )


def classifier_dropout(config, dtype) -> keras.layers.Dropout:
    """The dropout before a classifier: ``classifier_dropout``, else ``hidden_dropout_prob``."""
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return keras.layers.Dropout(rate, dtype=dtype)


class TFBertForPreTraining(TFBertPreTrainedModel):
    """Masked-language and next-sentence heads.

    Labels: ``labels`` ``[batch, seq]`` and ``next_sentence_label`` ``[batch]``; the loss takes both.
    """

    label_names = ("labels", "next_sentence_label")
    task_loss = staticmethod(losses.pre_training)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, dtype=self.dtype_policy)
        self.cls = BertHeads(config, seq_relationship=True, dtype=self.dtype_policy)

    def forward(self, **inputs: Any) -> PreTrainingOutput:
        """Both heads' logits."""
        outputs = self.bert.forward(**inputs)
        return PreTrainingOutput(
            prediction_logits=self.prediction_logits(outputs.last_hidden_state),
            seq_relationship_logits=self.cls.seq_relationship(outputs.pooler_output),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class TFBertLMHeadModel(TFBertPreTrainedModel):
    """Predicts the next token; the config should say ``is_decoder=True``. Labels ``[batch, seq]`` are shifted here."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.causal_lm)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        if not config.is_decoder:
            logger.warning("%s without is_decoder=True in its config sees the tokens it predicts.", type(self).__name__)
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.cls = BertHeads(config, dtype=self.dtype_policy)

    def forward(self, **inputs: Any) -> CausalLMOutput:
        """Next-token logits."""
        outputs = self.bert.forward(**inputs)
        logits = self.prediction_logits(outputs.last_hidden_state)
        return CausalLMOutput(logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


class TFBertForMaskedLM(TFBertPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.cls = BertHeads(config, dtype=self.dtype_policy)

    def forward(self, **inputs: Any) -> MaskedLMOutput:
        """Token logits."""
        outputs = self.bert.forward(**inputs)
        logits = self.prediction_logits(outputs.last_hidden_state)
        return MaskedLMOutput(logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


class TFBertForNextSentencePrediction(TFBertPreTrainedModel):
    """Tells whether the second text follows the first (0) or not (1). Labels: ``[batch]``."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, dtype=self.dtype_policy)
        self.cls = BertHeads(config, predictions=False, seq_relationship=True, dtype=self.dtype_policy)

    def forward(self, **inputs: Any) -> NextSentencePredictorOutput:
        """Logits of "follows" and "does not"."""
        outputs = self.bert.forward(first_token_only=True, **inputs)
        logits = self.cls.seq_relationship(outputs.pooler_output)
        return NextSentencePredictorOutput(
            logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class TFBertForSequenceClassification(TFBertPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.sequence_classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, dtype=self.dtype_policy)
        self.dropout = classifier_dropout(config, self.dtype_policy)
        self.classifier = Linear(
            config.hidden_size, config.num_labels, config.initializer_range, dtype=self.dtype_policy
        )

    def forward(self, training=False, **inputs: Any) -> SequenceClassifierOutput:
        """Logits from the pooled first token."""
        outputs = self.bert.forward(first_token_only=True, training=training, **inputs)
        logits = self.classifier(self.dropout(outputs.pooler_output, training=training))
        return SequenceClassifierOutput(
            logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class TFBertForMultipleChoice(TFBertPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    input_rank = 3
    label_names = ("labels",)
    task_loss = staticmethod(losses.classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, dtype=self.dtype_policy)
        self.dropout = classifier_dropout(config, self.dtype_policy)
        self.classifier = Linear(config.hidden_size, 1, config.initializer_range, dtype=self.dtype_policy)

    def forward(self, training=False, **inputs: Any) -> MultipleChoiceModelOutput:
        """One logit per choice."""
        inputs, choices = flatten_choices(inputs)
        outputs = self.bert.forward(first_token_only=True, training=training, **inputs)
        logits = self.classifier(self.dropout(outputs.pooler_output, training=training))
        return MultipleChoiceModelOutput(
            logits=tf.reshape(logits, [-1, choices]),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class TFBertForTokenClassification(TFBertPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.dropout = classifier_dropout(config, self.dtype_policy)
        self.classifier = Linear(
            config.hidden_size, config.num_labels, config.initializer_range, dtype=self.dtype_policy
        )

    def forward(self, training=False, **inputs: Any) -> TokenClassifierOutput:
        """Logits of each token."""
        outputs = self.bert.forward(training=training, **inputs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state, training=training))
        return TokenClassifierOutput(logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


class TFBertForQuestionAnswering(TFBertPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    label_names = ("start_positions", "end_positions")
    supported_config = TFBertPreTrainedModel.supported_config | {"num_labels": (2,)}
    task_loss = staticmethod(losses.question_answering)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.bert = TFBertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy)

    def forward(self, **inputs: Any) -> QuestionAnsweringModelOutput:
        """Start and end logits of each token."""
        outputs = self.bert.forward(**inputs)
        start_logits, end_logits = tf.unstack(self.qa_outputs(outputs.last_hidden_state), axis=-1)
        return QuestionAnsweringModelOutput(
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
