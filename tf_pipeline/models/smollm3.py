"""SmolLM3 (https://huggingface.co/blog/smollm3): Llama some of whose layers know no positions (NoPE)."""

import tensorflow as tf

from tf_pipeline.models import llama


class TFSmolLM3Model(llama.TFLlamaModel):
    """The body. See :class:`~tf_pipeline.models.llama.TFLlamaModel`."""

    def layer_windows(self) -> list[int | None]:
        """Those of ``layer_types``."""
        return llama.windows_of_layers(self.config)

    def rotary_tables(self, positions: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor] | None]:
        """A table for the layers whose entry in ``no_rope_layers`` is not 0."""
        turned = self.config.no_rope_layers
        return [table if turn else None for table, turn in zip(super().rotary_tables(positions), turned, strict=False)]


class TFSmolLM3ForCausalLM(llama.TFLlamaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.llama.TFLlamaForCausalLM`."""


class TFSmolLM3ForSequenceClassification(llama.TFLlamaForSequenceClassification):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""


class TFSmolLM3ForTokenClassification(llama.TFLlamaForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.llama.TFLlamaForTokenClassification`."""


class TFSmolLM3ForQuestionAnswering(llama.TFLlamaForQuestionAnswering):
    """Finds an answer in a context. See :class:`~tf_pipeline.models.llama.TFLlamaForQuestionAnswering`."""
