"""Qwen3 (https://arxiv.org/abs/2505.09388): Llama with normalised queries and keys, and windows in some layers."""

from tf_pipeline.layers import RMSNorm
from tf_pipeline.models import llama


class Qwen3Attention(llama.LlamaAttention):
    """Attention of queries and keys that are normalised in each head."""

    def add_projections(self, config, dtype) -> None:
        """Construct the projections and the normalisations."""
        super().add_projections(config, dtype)
        self.q_norm = RMSNorm(self.size, config.rms_norm_eps, dtype=dtype)
        self.k_norm = RMSNorm(self.size, config.rms_norm_eps, dtype=dtype)

    def projections(self, rows, length):
        """Queries, keys and values."""
        query, key, value = super().projections(rows, length)
        return self.q_norm(query), self.k_norm(key), value


class Qwen3DecoderLayer(llama.LlamaDecoderLayer):
    """One layer."""

    attention_class = Qwen3Attention


class TFQwen3Model(llama.TFLlamaModel):
    """The body. See :class:`~tf_pipeline.models.llama.TFLlamaModel`."""

    layer_class = Qwen3DecoderLayer

    def layer_windows(self) -> list[int | None]:
        """Those of ``layer_types``."""
        return llama.windows_of_layers(self.config)


class TFQwen3ForCausalLM(llama.TFLlamaForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.llama.TFLlamaForCausalLM`."""


class TFQwen3ForSequenceClassification(llama.TFLlamaForSequenceClassification):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""


class TFQwen3ForTokenClassification(llama.TFLlamaForTokenClassification):
    """Labels each token. See :class:`~tf_pipeline.models.llama.TFLlamaForTokenClassification`."""


class TFQwen3ForQuestionAnswering(llama.TFLlamaForQuestionAnswering):
    """Finds an answer in a context. See :class:`~tf_pipeline.models.llama.TFLlamaForQuestionAnswering`."""
