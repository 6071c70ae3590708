"""XLM-RoBERTa (https://arxiv.org/abs/1911.02116): RoBERTa trained on other texts, under its own name in configs."""

from tf_pipeline.models import roberta


class TFXLMRobertaModel(roberta.TFRobertaModel):
    """The body. See :class:`~tf_pipeline.models.roberta.TFRobertaModel`."""


class TFXLMRobertaForCausalLM(roberta.TFRobertaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.roberta.TFRobertaForCausalLM`."""

    body_class = TFXLMRobertaModel


class TFXLMRobertaForMaskedLM(roberta.TFRobertaForMaskedLM):
    """Predicts masked tokens. See :class:`~tf_pipeline.models.roberta.TFRobertaForMaskedLM`."""

    body_class = TFXLMRobertaModel


class TFXLMRobertaForSequenceClassification(roberta.TFRobertaForSequenceClassification):
    """Scores a text or a pair. See :class:`~tf_pipeline.models.roberta.TFRobertaForSequenceClassification`."""

    body_class = TFXLMRobertaModel


class TFXLMRobertaForMultipleChoice(roberta.TFRobertaForMultipleChoice):
    """Chooses among texts. See :class:`~tf_pipeline.models.roberta.TFRobertaForMultipleChoice`."""

    body_class = TFXLMRobertaModel


class TFXLMRobertaForTokenClassification(roberta.TFRobertaForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.roberta.TFRobertaForTokenClassification`."""

    body_class = TFXLMRobertaModel


class TFXLMRobertaForQuestionAnswering(roberta.TFRobertaForQuestionAnswering):
    """Finds an answer in a context. See :class:`~tf_pipeline.models.roberta.TFRobertaForQuestionAnswering`."""

    body_class = TFXLMRobertaModel
