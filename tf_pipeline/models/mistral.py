"""Mistral (https://arxiv.org/abs/2310.06825): Llama without biases, whose layers all see a window."""

from tf_pipeline.models import llama


class MistralAttention(llama.LlamaAttention):
    """Attention without biases."""

    def biases(self, config) -> tuple[bool, bool]:
        """None."""
        return False, False


class MistralDecoderLayer(llama.LlamaDecoderLayer):
    """One layer."""

    attention_class = MistralAttention


class TFMistralModel(llama.TFLlamaModel):
    """The body. See :class:`~tf_pipeline.models.llama.TFLlamaModel`."""

    layer_class = MistralDecoderLayer

    def layer_windows(self) -> list[int | None]:
        """The same for all layers (config: ``sliding_window``)."""
        return [self.config.sliding_window] * self.config.num_hidden_layers


class TFMistralForCausalLM(llama.TFLlamaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.llama.TFLlamaForCausalLM`."""


class TFMistralForSequenceClassification(llama.TFLlamaForSequenceClassification):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""


class TFMistralForTokenClassification(llama.TFLlamaForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.llama.TFLlamaForTokenClassification`."""


class TFMistralForQuestionAnswering(llama.TFLlamaForQuestionAnswering):
    """Finds an answer in a context. See :class:`~tf_pipeline.models.llama.TFLlamaForQuestionAnswering`."""

    base_model_prefix = "model"
