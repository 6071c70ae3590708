"""mT5 (https://arxiv.org/abs/2010.11934): T5 1.1 trained on many languages, under its own name in configs."""

import re

from tf_pipeline.models import t5


class TFMT5Model(t5.TFT5Model):
    """The body. See :class:`~tf_pipeline.models.t5.TFT5Model`."""


class TFMT5ForConditionalGeneration(t5.TFT5ForConditionalGeneration):
    """Writes a text from another. See :class:`~tf_pipeline.models.t5.TFT5ForConditionalGeneration`."""

    scale = 1.0


class TFMT5EncoderModel(t5.TFT5EncoderModel):
    """The encoder alone. See :class:`~tf_pipeline.models.t5.TFT5EncoderModel`."""

    ignored_keys = re.compile(r"(?!)")  # PyTorch reports the other half as not used


class TFMT5ForSequenceClassification(t5.TFT5ForSequenceClassification):
    """Scores a text by its end. See :class:`~tf_pipeline.models.t5.TFT5ForSequenceClassification`."""


class TFMT5ForTokenClassification(t5.TFT5ForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.t5.TFT5ForTokenClassification`."""

    ignored_keys = re.compile(r"(?!)")


class TFMT5ForQuestionAnswering(t5.TFT5ForQuestionAnswering):
    """Finds an answer in a text. See :class:`~tf_pipeline.models.t5.TFT5ForQuestionAnswering`."""
