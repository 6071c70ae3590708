"""Qwen2 (https://arxiv.org/abs/2407.10671): Llama with biases in attention, and windows in some layers."""

from tf_pipeline.models import llama


class Qwen2Attention(llama.LlamaAttention):
    """Attention with biases, but for the output's."""

    def biases(self, config) -> tuple[bool, bool]:
        """Of queries, keys and values."""
        return True, False


class Qwen2DecoderLayer(llama.LlamaDecoderLayer):
    """One layer."""

    attention_class = Qwen2Attention


class TFQwen2Model(llama.TFLlamaModel):
    """The body. See :class:`~tf_pipeline.models.llama.TFLlamaModel`."""

    layer_class = Qwen2DecoderLayer

    def layer_windows(self) -> list[int | None]:
        """Those of ``layer_types``."""
        return llama.windows_of_layers(self.config)


class TFQwen2ForCausalLM(llama.TFLlamaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.llama.TFLlamaForCausalLM`."""


class TFQwen2ForSequenceClassification(llama.TFLlamaForSequenceClassification):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""


class TFQwen2ForTokenClassification(llama.TFLlamaForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.llama.TFLlamaForTokenClassification`."""


class TFQwen2ForQuestionAnswering(llama.TFLlamaForQuestionAnswering):
    """Finds an answer in a context. See :class:`~tf_pipeline.models.llama.TFLlamaForQuestionAnswering`."""
