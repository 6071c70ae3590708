"""RoBERTa (https://arxiv.org/abs/1907.11692): the body and all its heads.

The layers are BERT's; positions are counted differently, and the heads are its own. Attribute paths are the keys of
``transformers`` checkpoints.
"""

from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.encoder import (
    CausalLM,
    EncoderBody,
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from tf_pipeline.layers import Dropout, LayerNorm, Linear, VocabularyHead, get_activation, token_positions
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.models.bert import BertEmbeddings, BertEncoder, BertPooler, classifier_dropout
from tf_pipeline.outputs import BaseModelOutputWithPooling


class RobertaEmbeddings(BertEmbeddings):
    """BERT's, with positions that count tokens and skip padding."""

    def __init__(self, config, dtype=None):
        if config.pad_token_id is None:
            raise ValueError("RoBERTa counts positions from pad_token_id + 1, but the config's pad_token_id is None.")
        super().__init__(config, config.hidden_size, config.pad_token_id, dtype=dtype)
        self.padding_idx = config.pad_token_id

    def call(self, input_ids=None, token_type_ids=None, position_ids=None, inputs_embeds=None, training=None):
        if position_ids is None:
            position_ids = token_positions(input_ids, inputs_embeds, self.padding_idx)
        # Keras gives ``training`` only to a call that names it.
        return super().call(input_ids, token_type_ids, position_ids, inputs_embeds, training=training)


class RobertaLMHead(VocabularyHead):
    """Scores over the vocabulary. The activation is GELU whatever ``hidden_act`` is."""

    def __init__(self, config, dtype=None):
        super().__init__(config, config.hidden_size, dtype=dtype)
        self.dense = Linear(config.hidden_size, config.hidden_size, config.initializer_range, dtype=dtype)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)
        self.activation = get_activation("gelu")

    def transformed(self, hidden_states):
        return self.layer_norm(self.activation(self.dense(hidden_states)))


class ClassificationHead(keras.layers.Layer):
    """Two layers on the first token. The activation between them is the architecture's, not the config's."""

    def __init__(self, config, dropout, activation, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        self.dense = Linear(size, size, std, dtype=dtype)
        self.dropout = dropout
        self.out_proj = Linear(size, config.num_labels, std, dtype=dtype)
        self.activation = get_activation(activation)

    def call(self, hidden_states, training=None):
        first = self.dropout(hidden_states[:, 0], training=training)
        return self.out_proj(self.dropout(self.activation(self.dense(first)), training=training))


class TFRobertaPreTrainedModel(TFPreTrainedModel):
    """Base class of all RoBERTa models and of those with the same architecture, whose heads are subclasses of these."""

    base_model_prefix = "roberta"
    # The class of the body, where it is not this module's.
    body_class: type["TFRobertaModel"] | None = None
    supported_config = {
        "add_cross_attention": (False,),
        "is_encoder_decoder": (False,),
        "position_embedding_type": ("absolute", None),
    }

    @property
    def max_length(self) -> int:
        """Maximum number of tokens in a sequence: positions up to that of padding are never a token's."""
        return self.num_positions - self.config.pad_token_id - 1

    def new_body(self, add_pooling_layer: bool = False) -> "TFRobertaModel":
        """The body for a head: that of its family."""
        body_class = self.body_class or TFRobertaModel
        return body_class(self.config, add_pooling_layer=add_pooling_layer, dtype=self.dtype_policy)

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        if not self.config.tie_word_embeddings or not hasattr(self, "lm_head"):
            return {}
        return {
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``, in models that have the language-model head."""
        return self.lm_head(hidden_states, self.roberta.embeddings.word_embeddings.table())


class TFRobertaModel(EncoderBody, TFRobertaPreTrainedModel):
    """The body: hidden states, and a pooled first token unless ``add_pooling_layer=False``."""

    def __init__(self, config, add_pooling_layer: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = RobertaEmbeddings(config, dtype=self.dtype_policy)
        self.encoder = BertEncoder(config, dtype=self.dtype_policy)
        self.pooler = BertPooler(config, dtype=self.dtype_policy) if add_pooling_layer else None

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"add_pooling_layer": self.pooler is not None}


class TFRobertaForCausalLM(CausalLM, TFRobertaPreTrainedModel):
    """Predicts the next token; the config should say ``is_decoder=True``. Labels ``[batch, seq]`` are shifted here."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.roberta = self.new_body()
        self.lm_head = RobertaLMHead(config, dtype=self.dtype_policy)


class TFRobertaForMaskedLM(MaskedLM, TFRobertaPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.roberta = self.new_body()
        self.lm_head = RobertaLMHead(config, dtype=self.dtype_policy)


class TFRobertaForSequenceClassification(SequenceClassification, TFRobertaPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dropout = classifier_dropout(config, self.dtype_policy)
        self.roberta = self.new_body()
        self.classifier = ClassificationHead(config, dropout, "tanh", dtype=self.dtype_policy)

    def text_logits(self, body: BaseModelOutputWithPooling, training: bool = False) -> tf.Tensor:
        """``[batch, num_labels]``."""
        return self.classifier(body.last_hidden_state, training=training)


class TFRobertaForMultipleChoice(MultipleChoice, TFRobertaPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.roberta = self.new_body(add_pooling_layer=True)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=self.dtype_policy)
        self.classifier = Linear(config.hidden_size, 1, config.initializer_range, dtype=self.dtype_policy)

    def text_logits(self, body: BaseModelOutputWithPooling, training: bool = False) -> tf.Tensor:
        """``[batch * choices, 1]``."""
        return self.classifier(self.dropout(body.pooler_output, training=training))


class TFRobertaForTokenClassification(TokenClassification, TFRobertaPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.roberta = self.new_body()
        self.dropout = classifier_dropout(config, dtype)
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFRobertaForQuestionAnswering(QuestionAnswering, TFRobertaPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.roberta = self.new_body()
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy)
