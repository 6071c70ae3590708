"""CamemBERT (https://arxiv.org/abs/1911.03894): RoBERTa trained on other texts, under its own name in configs."""

from tf_pipeline.models import roberta


class TFCamembertModel(roberta.TFRobertaModel):
    """The body. See :class:`~tf_pipeline.models.roberta.TFRobertaModel`."""


class TFCamembertForCausalLM(roberta.TFRobertaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.roberta.TFRobertaForCausalLM`."""

    body_class = TFCamembertModel


class TFCamembertForMaskedLM(roberta.TFRobertaForMaskedLM):
    """Predicts masked tokens. See :class:`~tf_pipeline.models.roberta.TFRobertaForMaskedLM`."""

    body_class = TFCamembertModel


class TFCamembertForSequenceClassification(roberta.TFRobertaForSequenceClassification):
    """Scores a text or a pair. See :class:`~tf_pipeline.models.roberta.TFRobertaForSequenceClassification`."""

    body_class = TFCamembertModel


class TFCamembertForMultipleChoice(roberta.TFRobertaForMultipleChoice):
    """Chooses among texts. See :class:`~tf_pipeline.models.roberta.TFRobertaForMultipleChoice`."""

    body_class = TFCamembertModel


class TFCamembertForTokenClassification(roberta.TFRobertaForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.roberta.TFRobertaForTokenClassification`."""

    body_class = TFCamembertModel


class TFCamembertForQuestionAnswering(roberta.TFRobertaForQuestionAnswering):
    """Finds an answer in a context. See :class:`~tf_pipeline.models.roberta.TFRobertaForQuestionAnswering`."""

    body_class = TFCamembertModel
