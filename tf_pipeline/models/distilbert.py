"""DistilBERT (https://arxiv.org/abs/1910.01108): the body and all its heads.

Attribute paths are the keys of ``transformers`` checkpoints.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline import losses
from tf_pipeline.inputs import INPUT_NAMES
from tf_pipeline.layers import (
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
    BaseModelOutput,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

LAYER_NORM_EPS = 1e-12  # not in the config: fixed by the architecture


class Embeddings(keras.layers.Layer):
    """Sum of word and position embeddings, normalised."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        std = config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, config.dim, std, config.pad_token_id, dtype=dtype)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.dim, std, dtype=dtype)
        if config.sinusoidal_pos_embds:
            self.position_embeddings.embeddings_initializer = sinusoidal_positions
        self.LayerNorm = LayerNorm(config.dim, LAYER_NORM_EPS, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.dropout, dtype=dtype)

    def call(self, input_ids, position_ids=None, inputs_embeds=None, training=None):
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        positions = position_vectors(self.position_embeddings, position_ids, tf.shape(inputs_embeds)[1])
        return self.dropout(self.LayerNorm(inputs_embeds + positions), training=training)


def sinusoidal_positions(shape, dtype=None) -> tf.Tensor:
    """Initial position table ``[positions, dim]`` of ``sinusoidal_pos_embds``: sines and cosines in turn."""
    positions, dim = shape
    angles = np.arange(positions)[:, None] / np.power(10000, 2 * (np.arange(dim) // 2) / dim)
    table = np.where(np.arange(dim) % 2 == 0, np.sin(angles), np.cos(angles))
    return tf.cast(tf.constant(table, tf.float32), dtype or tf.float32)


class DistilBertSelfAttention(keras.layers.Layer):
    """Projections, attention and output projection."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        if config.dim % config.n_heads:
            raise ValueError(f"dim {config.dim} is not a multiple of n_heads {config.n_heads}.")
        self.num_heads = config.n_heads
        std = config.initializer_range
        self.q_lin = Linear(config.dim, config.dim, std, dtype=dtype)
        self.k_lin = Linear(config.dim, config.dim, std, dtype=dtype)
        self.v_lin = Linear(config.dim, config.dim, std, dtype=dtype)
        self.out_lin = Linear(config.dim, config.dim, std, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.attention_dropout, dtype=dtype)

    def call(self, rows, queries, lengths, bias=None, training=None):
        query, key, value = self.q_lin(queries), self.k_lin(rows), self.v_lin(rows)
        context, probabilities = dot_product_attention(
            query, key, value, lengths, self.num_heads, bias, self.dropout, training
        )
        return self.out_lin(context), probabilities


class FFN(keras.layers.Layer):
    """The feed-forward layer."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.lin1 = Linear(config.dim, config.hidden_dim, config.initializer_range, dtype=dtype)
        self.lin2 = Linear(config.hidden_dim, config.dim, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.activation)
        self.dropout = keras.layers.Dropout(config.dropout, dtype=dtype)

    def call(self, hidden_states, training=None):
        return self.dropout(self.lin2(self.activation(self.lin1(hidden_states))), training=training)


class TransformerBlock(keras.layers.Layer):
    """One transformer layer, computed for ``queries``: some or all of the rows."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.attention = DistilBertSelfAttention(config, dtype=dtype)
        self.sa_layer_norm = LayerNorm(config.dim, LAYER_NORM_EPS, dtype=dtype)
        self.ffn = FFN(config, dtype=dtype)
        self.output_layer_norm = LayerNorm(config.dim, LAYER_NORM_EPS, dtype=dtype)

    def call(self, rows, queries, lengths, bias=None, training=None):
        attended, probabilities = self.attention(rows, queries, lengths=lengths, bias=bias, training=training)
        attended = self.sa_layer_norm(add_residual(attended, queries))
        return self.output_layer_norm(add_residual(self.ffn(attended, training=training), attended)), probabilities


class Transformer(keras.layers.Layer):
    """The stack of layers; returns every hidden state and every attention."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.layer = [TransformerBlock(config, dtype=dtype) for _ in range(config.n_layers)]

    def call(self, hidden_states, bias=None, first_token_only=False, training=None):
        return run_layers(self.layer, hidden_states, bias, first_token_only, training)


class TFDistilBertPreTrainedModel(TFPreTrainedModel):
    """What all DistilBERT models share. There are no token types."""

    base_model_prefix = "distilbert"
    tensor_names = tuple(name for name in INPUT_NAMES if name != "token_type_ids")
    supported_config = {"is_decoder": (False,), "is_encoder_decoder": (False,)}


class TFDistilBertModel(TFDistilBertPreTrainedModel):
    """The body."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = Embeddings(config, dtype=self.dtype_policy)
        self.transformer = Transformer(config, dtype=self.dtype_policy)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        inputs_embeds=None,
        output_hidden_states=False,
        output_attentions=False,
        first_token_only=False,
        training=False,
    ) -> BaseModelOutput:
        """See :meth:`tf_pipeline.model.TFPreTrainedModel.__call__`.

        ``first_token_only`` spares the last layer all but the first token, for heads that read no other; the last
        hidden state is ``[batch, 1, hidden]`` then, unless hidden states or attentions are to be returned too.
        """
        embeddings = self.embeddings(
            input_ids, position_ids=position_ids, inputs_embeds=inputs_embeds, training=training
        )
        bias = attention_bias(attention_mask, embeddings.dtype)
        first_token_only = first_token_only and not (output_hidden_states or output_attentions)
        hidden_states, attentions = self.transformer(
            embeddings, bias=bias, first_token_only=first_token_only, training=training
        )
        return BaseModelOutput(
            last_hidden_state=hidden_states[-1],
            hidden_states=hidden_states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )


class TFDistilBertForMaskedLM(TFDistilBertPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.distilbert = TFDistilBertModel(config, dtype=dtype)
        self.vocab_transform = Linear(config.dim, config.dim, std, dtype=dtype)
        self.vocab_layer_norm = LayerNorm(config.dim, LAYER_NORM_EPS, dtype=dtype)
        self.vocab_projector = VocabularyProjector(
            config.dim, config.vocab_size, std, tied=config.tie_word_embeddings, dtype=dtype
        )
        self.activation = get_activation(config.activation)

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        if not self.config.tie_word_embeddings:
            return {}
        return {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}

    def forward(self, **inputs: Any) -> MaskedLMOutput:
        """Token logits."""
        outputs = self.distilbert.forward(**inputs)
        hidden_states = self.vocab_layer_norm(self.activation(self.vocab_transform(outputs.last_hidden_state)))
        logits = self.vocab_projector(hidden_states, self.distilbert.embeddings.word_embeddings.table())
        return MaskedLMOutput(logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


class TFDistilBertForSequenceClassification(TFDistilBertPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.sequence_classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.distilbert = TFDistilBertModel(config, dtype=dtype)
        self.pre_classifier = Linear(config.dim, config.dim, std, dtype=dtype)
        self.classifier = Linear(config.dim, config.num_labels, std, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.seq_classif_dropout, dtype=dtype)

    def forward(self, training=False, **inputs: Any) -> SequenceClassifierOutput:
        """Logits from the first token."""
        outputs = self.distilbert.forward(first_token_only=True, training=training, **inputs)
        pooled = tf.nn.relu(self.pre_classifier(outputs.last_hidden_state[:, 0]))
        logits = self.classifier(self.dropout(pooled, training=training))
        return SequenceClassifierOutput(
            logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class TFDistilBertForQuestionAnswering(TFDistilBertPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    label_names = ("start_positions", "end_positions")
    supported_config = TFDistilBertPreTrainedModel.supported_config | {"num_labels": (2,)}
    task_loss = staticmethod(losses.question_answering)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.distilbert = TFDistilBertModel(config, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.dim, 2, config.initializer_range, dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(config.qa_dropout, dtype=self.dtype_policy)

    def forward(self, training=False, **inputs: Any) -> QuestionAnsweringModelOutput:
        """Start and end logits of each token."""
        outputs = self.distilbert.forward(training=training, **inputs)
        logits = self.qa_outputs(self.dropout(outputs.last_hidden_state, training=training))
        start_logits, end_logits = tf.unstack(logits, axis=-1)
        return QuestionAnsweringModelOutput(
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class TFDistilBertForTokenClassification(TFDistilBertPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    label_names = ("labels",)
    task_loss = staticmethod(losses.classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.distilbert = TFDistilBertModel(config, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.dropout, dtype=dtype)
        self.classifier = Linear(config.dim, config.num_labels, config.initializer_range, dtype=dtype)

    def forward(self, training=False, **inputs: Any) -> TokenClassifierOutput:
        """Logits of each token."""
        outputs = self.distilbert.forward(training=training, **inputs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state, training=training))
        return TokenClassifierOutput(logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


class TFDistilBertForMultipleChoice(TFDistilBertPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    input_rank = 3
    label_names = ("labels",)
    task_loss = staticmethod(losses.classification)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.distilbert = TFDistilBertModel(config, dtype=dtype)
        self.pre_classifier = Linear(config.dim, config.dim, std, dtype=dtype)
        self.classifier = Linear(config.dim, 1, std, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.seq_classif_dropout, dtype=dtype)

    def forward(self, training=False, **inputs: Any) -> MultipleChoiceModelOutput:
        """One logit per choice."""
        inputs, choices = flatten_choices(inputs)
        outputs = self.distilbert.forward(first_token_only=True, training=training, **inputs)
        pooled = tf.nn.relu(self.pre_classifier(outputs.last_hidden_state[:, 0]))
        logits = self.classifier(self.dropout(pooled, training=training))
        return MultipleChoiceModelOutput(
            logits=tf.reshape(logits, [-1, choices]),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
