"""ELECTRA (https://arxiv.org/abs/2003.10555): the body, the generator's and the discriminator's heads, and the others.

The layers are BERT's, after embeddings that may be narrower. Attribute paths are the keys of ``transformers``
checkpoints.
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
    head_outputs,
)
from tf_pipeline.heads import head_of
from tf_pipeline.layers import LayerNorm, Linear, SequenceSummary, VocabularyProjector, get_activation
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.models.bert import BertEmbeddings, BertEncoder, classifier_dropout
from tf_pipeline.models.roberta import ClassificationHead
from tf_pipeline.outputs import BaseModelOutput, LogitsOutput


class ElectraForPreTrainingOutput(LogitsOutput):
    """``logits`` are ``[batch, seq]``: positive where the token looks replaced."""


class ElectraDiscriminatorPredictions(keras.layers.Layer):
    """One score a token."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = config.hidden_size, config.initializer_range
        self.dense = Linear(size, size, std, dtype=dtype)
        self.activation = get_activation(config.hidden_act)
        self.dense_prediction = Linear(size, 1, std, dtype=dtype)

    def call(self, hidden_states):
        return tf.squeeze(self.dense_prediction(self.activation(self.dense(hidden_states))), axis=-1)


class ElectraGeneratorPredictions(keras.layers.Layer):
    """The layer before the vocabulary. The activation is GELU whatever ``hidden_act`` is."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.LayerNorm = LayerNorm(config.embedding_size, config.layer_norm_eps, dtype=dtype)
        self.dense = Linear(config.hidden_size, config.embedding_size, config.initializer_range, dtype=dtype)
        self.activation = get_activation("gelu")

    def call(self, hidden_states):
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class TFElectraPreTrainedModel(TFPreTrainedModel):
    """Base class of all ELECTRA models."""

    base_model_prefix = "electra"
    supported_config = {
        "add_cross_attention": (False,),
        "is_encoder_decoder": (False,),
        "position_embedding_type": ("absolute", None),
    }

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        if not self.config.tie_word_embeddings or not hasattr(self, "generator_lm_head"):
            return {}
        return {"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"}

    def add_generator_head(self) -> None:
        """Construct the body and the generator's head on it."""
        config, dtype = self.config, self.dtype_policy
        self.electra = TFElectraModel(config, dtype=dtype)
        self.generator_predictions = ElectraGeneratorPredictions(config, dtype=dtype)
        self.generator_lm_head = VocabularyProjector(
            config.embedding_size,
            config.vocab_size,
            config.initializer_range,
            tied=config.tie_word_embeddings,
            dtype=dtype,
        )

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``, in models that have the generator's head."""
        table = self.electra.embeddings.word_embeddings.table()
        return self.generator_lm_head(self.generator_predictions(hidden_states), table)


class TFElectraModel(EncoderBody, TFElectraPreTrainedModel):
    """The body."""

    output_class = BaseModelOutput

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        size, std = config.embedding_size, config.initializer_range
        self.embeddings = BertEmbeddings(config, size, dtype=self.dtype_policy)
        if size != config.hidden_size:
            self.embeddings_project = Linear(size, config.hidden_size, std, dtype=self.dtype_policy)
        self.encoder = BertEncoder(config, dtype=self.dtype_policy)

    def embed(self, training: bool = False, **tokens: Any) -> tf.Tensor:
        """The vectors ``[batch, seq, hidden]`` that enter the first layer."""
        embeddings = super().embed(training=training, **tokens)
        return self.embeddings_project(embeddings) if hasattr(self, "embeddings_project") else embeddings


@head_of("ElectraForPreTraining")
class TFElectraForPreTraining(TFElectraPreTrainedModel):
    """The discriminator: was each token replaced? Labels: ``[batch, seq]``, 1 where it was, else 0.

    The loss is over the tokens that the attention mask shows.
    """

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.electra = TFElectraModel(config, dtype=self.dtype_policy)
        self.discriminator_predictions = ElectraDiscriminatorPredictions(config, dtype=self.dtype_policy)

    def forward(self, **inputs: Any) -> ElectraForPreTrainingOutput:
        """One logit a token."""
        body = self.electra.forward(**inputs)
        logits = self.discriminator_predictions(body.last_hidden_state)
        return head_outputs(ElectraForPreTrainingOutput, body, logits=logits)


class TFElectraForMaskedLM(MaskedLM, TFElectraPreTrainedModel):
    """The generator: predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_generator_head()


class TFElectraForCausalLM(CausalLM, TFElectraPreTrainedModel):
    """Predicts the next token; the config should say ``is_decoder=True``. Labels ``[batch, seq]`` are shifted here."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_generator_head()


class TFElectraForSequenceClassification(SequenceClassification, TFElectraPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dropout = classifier_dropout(config, self.dtype_policy)
        self.electra = TFElectraModel(config, dtype=self.dtype_policy)
        self.classifier = ClassificationHead(config, dropout, "gelu", dtype=self.dtype_policy)

    def text_logits(self, body: BaseModelOutput, training: bool = False) -> tf.Tensor:
        """``[batch, num_labels]``."""
        return self.classifier(body.last_hidden_state, training=training)


class TFElectraForMultipleChoice(MultipleChoice, TFElectraPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    supported_config = {"summary_proj_to_labels": (False, None)}

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.electra = TFElectraModel(config, dtype=dtype)
        self.sequence_summary = SequenceSummary(config, dtype=dtype)
        self.classifier = Linear(config.hidden_size, 1, std, dtype=dtype)
        self.reads_first_token = config.summary_type == "first"

    def text_logits(self, body: BaseModelOutput, training: bool = False) -> tf.Tensor:
        """``[batch * choices, 1]``."""
        return self.classifier(self.sequence_summary(body.last_hidden_state, training=training))


class TFElectraForTokenClassification(TokenClassification, TFElectraPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.electra = TFElectraModel(config, dtype=dtype)
        self.dropout = classifier_dropout(config, dtype)
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFElectraForQuestionAnswering(QuestionAnswering, TFElectraPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.electra = TFElectraModel(config, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy)
