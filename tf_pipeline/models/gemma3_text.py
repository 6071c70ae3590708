"""Gemma 3 for texts (https://arxiv.org/abs/2503.19786): Gemma 2 with normalised queries and keys.

Scores are not capped. Layers that see a window have rotary frequencies of their own.
"""

import tensorflow as tf

from tf_pipeline.layers import RotaryEmbedding
from tf_pipeline.models import gemma2


class Gemma3Attention(gemma2.Gemma2Attention):
    """Attention of queries and keys that are normalised in each head."""

    def __init__(self, config, index, dtype=None):
        super().__init__(config, index, dtype=dtype)
        self.softcap = None  # PyTorch's does not read attn_logit_softcapping either

    def add_projections(self, config, dtype) -> None:
        """Construct the projections and the normalisations."""
        super().add_projections(config, dtype)
        self.q_norm = gemma2.norm(self.size, config, dtype)
        self.k_norm = gemma2.norm(self.size, config, dtype)

    def projections(self, rows, length):
        """Queries, keys and values."""
        query, key, value = super().projections(rows, length)
        return self.q_norm(query), self.k_norm(key), value


class Gemma3DecoderLayer(gemma2.Gemma2DecoderLayer):
    """One layer."""

    attention_class = Gemma3Attention


class TFGemma3TextModel(gemma2.TFGemma2Model):
    """The body. See :class:`~tf_pipeline.models.gemma2.TFGemma2Model`."""

    layer_class = Gemma3DecoderLayer

    def new_rotary(self) -> dict[str, RotaryEmbedding]:
        """Of each type of layers."""
        return {kind: RotaryEmbedding(self.config, kind) for kind in sorted(set(self.config.layer_types))}

    def rotary_tables(self, positions: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """The table of each layer's type."""
        tables = {kind: rotary(positions, tf.as_dtype(self.compute_dtype)) for kind, rotary in self.rotary.items()}
        return [tables[kind] for kind in self.config.layer_types[: len(self.blocks)]]


class TFGemma3ForCausalLM(gemma2.TFGemma2ForCausalLM):
    """Predicts the next token. See :class:`~tf_pipeline.models.gemma2.TFGemma2ForCausalLM`."""


class TFGemma3TextForSequenceClassification(gemma2.TFGemma2ForSequenceClassification):
    """Scores a text by its last token. See :class:`~tf_pipeline.models.llama.TFLlamaForSequenceClassification`."""
