"""DistilBERT (https://arxiv.org/abs/1910.01108): the body and all its heads.

Attribute paths are the keys of ``transformers`` checkpoints.
"""

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
    VocabularyProjector,
    add_residual,
    dot_product_attention,
    get_activation,
    position_vectors,
    run_layers,
    sinusoidal_positions,
)
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import BaseModelOutput

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
        self.dropout = Dropout(config.dropout, dtype=dtype)

    def call(self, input_ids=None, position_ids=None, inputs_embeds=None, training=None):
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        positions = position_vectors(self.position_embeddings, position_ids, tf.shape(inputs_embeds)[1])
        return self.dropout(self.LayerNorm(inputs_embeds + positions), training=training)


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
        self.dropout = Dropout(config.attention_dropout, dtype=dtype)

    def call(self, rows, inputs, training=None):
        query, key, value = self.q_lin(inputs.computed(rows)), self.k_lin(rows), self.v_lin(rows)
        context, probabilities = dot_product_attention(
            query, key, value, inputs, self.num_heads, self.dropout, training
        )
        return self.out_lin(context), probabilities


class FFN(keras.layers.Layer):
    """The feed-forward layer."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.lin1 = Linear(config.dim, config.hidden_dim, config.initializer_range, dtype=dtype)
        self.lin2 = Linear(config.hidden_dim, config.dim, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.activation)
        self.dropout = Dropout(config.dropout, dtype=dtype)

    def call(self, hidden_states, training=None):
        return self.dropout(self.lin2(self.activation(self.lin1(hidden_states))), training=training)


class TransformerBlock(keras.layers.Layer):
    """One transformer layer, called as :class:`~tf_pipeline.layers.LayerInputs` says."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.attention = DistilBertSelfAttention(config, dtype=dtype)
        self.sa_layer_norm = LayerNorm(config.dim, LAYER_NORM_EPS, dtype=dtype)
        self.ffn = FFN(config, dtype=dtype)
        self.output_layer_norm = LayerNorm(config.dim, LAYER_NORM_EPS, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attention(rows, inputs=inputs, training=training)
        attended = self.sa_layer_norm(add_residual(attended, inputs.computed(rows)))
        return self.output_layer_norm(add_residual(self.ffn(attended, training=training), attended)), probabilities


class Transformer(keras.layers.Layer):
    """The stack of layers."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.layer = [TransformerBlock(config, dtype=dtype) for _ in range(config.n_layers)]

    def call(self, hidden_states, inputs, training=None, **options):
        return run_layers(self.layer, hidden_states, inputs, training=training, **options)


class TFDistilBertPreTrainedModel(TFPreTrainedModel):
    """Base class of all DistilBERT models. There are no token types."""

    base_model_prefix = "distilbert"
    tensor_names = tuple(name for name in INPUT_NAMES if name != "token_type_ids")
    supported_config = {"is_decoder": (False,), "is_encoder_decoder": (False,)}

    def text_logits(self, body: BaseModelOutput, training: bool = False) -> tf.Tensor:
        """Scores of a text from its first token, in models that have a classifier of texts."""
        pooled = tf.nn.relu(self.pre_classifier(body.last_hidden_state[:, 0]))
        return self.classifier(self.dropout(pooled, training=training))


class TFDistilBertModel(EncoderBody, TFDistilBertPreTrainedModel):
    """The body."""

    output_class = BaseModelOutput

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = Embeddings(config, dtype=self.dtype_policy)
        self.transformer = Transformer(config, dtype=self.dtype_policy)

    def encode(self, embeddings: tf.Tensor, attention_mask: tf.Tensor | None, **options: Any) -> BaseModelOutput:
        """The last hidden state, and the hidden states and attentions that are asked for."""
        return self.transformer(embeddings, inputs=self.layer_inputs(embeddings, attention_mask), **options)


class TFDistilBertForMaskedLM(MaskedLM, TFDistilBertPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

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

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        hidden_states = self.vocab_layer_norm(self.activation(self.vocab_transform(hidden_states)))
        return self.vocab_projector(hidden_states, self.distilbert.embeddings.word_embeddings.table())


class TFDistilBertForSequenceClassification(SequenceClassification, TFDistilBertPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.distilbert = TFDistilBertModel(config, dtype=dtype)
        self.pre_classifier = Linear(config.dim, config.dim, std, dtype=dtype)
        self.classifier = Linear(config.dim, config.num_labels, std, dtype=dtype)
        self.dropout = Dropout(config.seq_classif_dropout, dtype=dtype)


class TFDistilBertForQuestionAnswering(QuestionAnswering, TFDistilBertPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.distilbert = TFDistilBertModel(config, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.dim, 2, config.initializer_range, dtype=self.dtype_policy)
        self.dropout = Dropout(config.qa_dropout, dtype=self.dtype_policy)

    def span_logits(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, 2]``."""
        return self.qa_outputs(self.dropout(hidden_states, training=training))


class TFDistilBertForTokenClassification(TokenClassification, TFDistilBertPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.distilbert = TFDistilBertModel(config, dtype=dtype)
        self.dropout = Dropout(config.dropout, dtype=dtype)
        self.classifier = Linear(config.dim, config.num_labels, config.initializer_range, dtype=dtype)


class TFDistilBertForMultipleChoice(MultipleChoice, TFDistilBertPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.distilbert = TFDistilBertModel(config, dtype=dtype)
        self.pre_classifier = Linear(config.dim, config.dim, std, dtype=dtype)
        self.classifier = Linear(config.dim, 1, std, dtype=dtype)
        self.dropout = Dropout(config.seq_classif_dropout, dtype=dtype)
