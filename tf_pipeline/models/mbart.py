"""mBART (https://arxiv.org/abs/2001.08210): BART in many languages, whose layers normalise their inputs."""

import tensorflow as tf

from tf_pipeline.models import bart
from tf_pipeline.shifts import behind_last


class MBartBlock(bart.BartBlock):
    """One layer, which normalises the inputs of its parts."""

    norm_first = True


class MBartStack(bart.BartStack):
    """The encoder, or the decoder, with a normalisation at its end too."""

    block_class = MBartBlock
    normalises_last = True


class LanguageFirst:
    """A decoder that starts from the last token that is not padding, which tells the language."""

    def shifted_right(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids ``[batch, seq]``, padded on the right, one place later behind the last token; padding where -100."""
        if self.config.pad_token_id is None:
            raise ValueError(
                f"{type(self).__name__} needs pad_token_id to make decoder_input_ids; the config has none."
            )
        return behind_last(ids, self.config)


class TFMBartModel(LanguageFirst, bart.TFBartModel):
    """The body. See :class:`~tf_pipeline.models.bart.TFBartModel`."""

    stack_class = MBartStack


class TFMBartForConditionalGeneration(LanguageFirst, bart.TFBartForConditionalGeneration):
    """Writes a text from another. See :class:`~tf_pipeline.models.bart.TFBartForConditionalGeneration`."""


class TFMBartForSequenceClassification(LanguageFirst, bart.TFBartForSequenceClassification):
    """Scores a text by its end. See :class:`~tf_pipeline.models.bart.TFBartForSequenceClassification`."""


class TFMBartForQuestionAnswering(LanguageFirst, bart.TFBartForQuestionAnswering):
    """Finds an answer in a text. See :class:`~tf_pipeline.models.bart.TFBartForQuestionAnswering`."""


class TFMBartForCausalLM(bart.TFBartForCausalLM):
    """The decoder alone. See :class:`~tf_pipeline.models.bart.TFBartForCausalLM`."""
