"""ALBERT (https://arxiv.org/abs/1909.11942): the body and all its heads.

Layers of a group share their parameters, and the embeddings are narrower than the layers. Attribute paths are the keys
of ``transformers`` checkpoints.
"""

from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.encoder import (
    EncoderBody,
    MaskedLM,
    MultipleChoice,
    PreTraining,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from tf_pipeline.heads import head_of
from tf_pipeline.layers import (
    Dropout,
    LayerNorm,
    Linear,
    VocabularyHead,
    add_residual,
    dot_product_attention,
    get_activation,
    run_layers,
)
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.models.bert import BertEmbeddings
from tf_pipeline.outputs import BaseModelOutputWithPooling, ModelOutput


class AlbertForPreTrainingOutput(ModelOutput):
    """``prediction_logits`` ``[batch, seq, vocab]`` and ``sop_logits`` ``[batch, 2]``."""

    loss: Any
    prediction_logits: Any
    sop_logits: Any
    hidden_states: tuple | None
    attentions: tuple | None


class AlbertAttention(keras.layers.Layer):
    """Projections, attention, output projection, residual and normalisation."""

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
        self.dense = Linear(size, size, std, dtype=dtype)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.attention_dropout = Dropout(config.attention_probs_dropout_prob, dtype=dtype)
        self.output_dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, rows, inputs, training=None):
        queries = inputs.computed(rows)
        query, key, value = self.query(queries), self.key(rows), self.value(rows)
        context, probabilities = dot_product_attention(
            query, key, value, inputs, self.num_heads, self.attention_dropout, training
        )
        attended = self.output_dropout(self.dense(context), training=training)
        return self.LayerNorm(add_residual(attended, queries)), probabilities


class AlbertLayer(keras.layers.Layer):
    """One transformer layer, called as :class:`~tf_pipeline.layers.LayerInputs` says."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        self.full_layer_layer_norm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.attention = AlbertAttention(config, dtype=dtype)
        self.ffn = Linear(size, config.intermediate_size, std, dtype=dtype)
        self.ffn_output = Linear(config.intermediate_size, size, std, dtype=dtype)
        self.activation = get_activation(config.hidden_act)
        # Checkpoints and configs know it, but PyTorch does not apply it either.
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attention(rows, inputs=inputs, training=training)
        hidden_states = self.ffn_output(self.activation(self.ffn(attended)))
        return self.full_layer_layer_norm(add_residual(hidden_states, attended)), probabilities


class AlbertLayerGroup(keras.layers.Layer):
    """The layers that every layer of a group runs through (config: ``inner_group_num``)."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.albert_layers = [AlbertLayer(config, dtype=dtype) for _ in range(config.inner_group_num)]


class AlbertTransformer(keras.layers.Layer):
    """The wide embeddings and the layers, with ``num_hidden_groups`` different sets of weights."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        self.embedding_hidden_mapping_in = Linear(config.embedding_size, size, std, dtype=dtype)
        self.albert_layer_groups = [AlbertLayerGroup(config, dtype=dtype) for _ in range(config.num_hidden_groups)]
        layers_per_group = config.num_hidden_layers / config.num_hidden_groups
        self.group_of_layer = [int(index / layers_per_group) for index in range(config.num_hidden_layers)]

    def call(self, embeddings, inputs, training=None, **options):
        hidden_states = self.embedding_hidden_mapping_in(embeddings)
        layers = [layer for group in self.group_of_layer for layer in self.albert_layer_groups[group].albert_layers]
        return run_layers(layers, hidden_states, inputs, training=training, **options)


class AlbertMLMHead(VocabularyHead):
    """Scores over the vocabulary."""

    def __init__(self, config, dtype=None):
        super().__init__(config, config.embedding_size, dtype=dtype)
        self.LayerNorm = LayerNorm(config.embedding_size, config.layer_norm_eps, dtype=dtype)
        self.dense = Linear(config.hidden_size, config.embedding_size, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.hidden_act)

    def transformed(self, hidden_states):
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class AlbertSOPHead(keras.layers.Layer):
    """Tells whether two texts are in their order (0) or swapped (1)."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.dropout = Dropout(config.classifier_dropout_prob, dtype=dtype)
        self.classifier = Linear(config.hidden_size, config.num_labels, config.initializer_range, dtype=dtype)

    def call(self, pooled, training=None):
        return self.classifier(self.dropout(pooled, training=training))


class TFAlbertPreTrainedModel(TFPreTrainedModel):
    """Base class of all ALBERT models."""

    base_model_prefix = "albert"
    supported_config = {
        "is_decoder": (False,),
        "is_encoder_decoder": (False,),
        "position_embedding_type": ("absolute", None),
    }

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        if not self.config.tie_word_embeddings or not hasattr(self, "predictions"):
            return {}
        return {
            "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
            "predictions.decoder.bias": "predictions.bias",
        }

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``, in models that have the language-model head."""
        return self.predictions(hidden_states, self.albert.embeddings.word_embeddings.table())

    def text_logits(self, body: BaseModelOutputWithPooling, training: bool = False) -> tf.Tensor:
        """Scores of a text from its pooled first token, in models that have a classifier of texts."""
        return self.classifier(self.dropout(body.pooler_output, training=training))

    def new_dropout(self) -> Dropout:
        """The dropout before a classifier (config: ``classifier_dropout_prob``)."""
        return Dropout(self.config.classifier_dropout_prob, dtype=self.dtype_policy)


class AlbertPooler(Linear):
    """The first token, projected and squashed."""

    def __init__(self, config, dtype=None):
        super().__init__(config.hidden_size, config.hidden_size, config.initializer_range, dtype=dtype)

    def call(self, hidden_states, training=None):
        return tf.tanh(super().call(hidden_states[:, 0], training=training))


class TFAlbertModel(EncoderBody, TFAlbertPreTrainedModel):
    """The body: hidden states, and a pooled first token unless ``add_pooling_layer=False``."""

    def __init__(self, config, add_pooling_layer: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = BertEmbeddings(config, config.embedding_size, dtype=self.dtype_policy)
        self.encoder = AlbertTransformer(config, dtype=self.dtype_policy)
        self.pooler = AlbertPooler(config, dtype=self.dtype_policy) if add_pooling_layer else None

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"add_pooling_layer": self.pooler is not None}


@head_of("AlbertForPreTraining")
class TFAlbertForPreTraining(PreTraining, TFAlbertPreTrainedModel):
    """Masked-language and sentence-order heads.

    Labels: ``labels`` ``[batch, seq]`` and ``sentence_order_label`` ``[batch]``; the loss takes both.
    """

    supported_config = {"num_labels": (2,)}
    output_class = AlbertForPreTrainingOutput

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.albert = TFAlbertModel(config, dtype=self.dtype_policy)
        self.predictions = AlbertMLMHead(config, dtype=self.dtype_policy)
        self.sop_classifier = AlbertSOPHead(config, dtype=self.dtype_policy)

    def pair_logits(self, pooled: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, hidden]`` to the logits of "in order" and "swapped"."""
        return self.sop_classifier(pooled, training=training)


class TFAlbertForMaskedLM(MaskedLM, TFAlbertPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.albert = TFAlbertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.predictions = AlbertMLMHead(config, dtype=self.dtype_policy)


class TFAlbertForSequenceClassification(SequenceClassification, TFAlbertPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.albert = TFAlbertModel(config, dtype=dtype)
        self.dropout = self.new_dropout()
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFAlbertForMultipleChoice(MultipleChoice, TFAlbertPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.albert = TFAlbertModel(config, dtype=self.dtype_policy)
        self.dropout = self.new_dropout()
        self.classifier = Linear(config.hidden_size, 1, config.initializer_range, dtype=self.dtype_policy)


class TFAlbertForTokenClassification(TokenClassification, TFAlbertPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.albert = TFAlbertModel(config, add_pooling_layer=False, dtype=dtype)
        self.dropout = self.new_dropout()
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFAlbertForQuestionAnswering(QuestionAnswering, TFAlbertPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.albert = TFAlbertModel(config, add_pooling_layer=False, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy)
