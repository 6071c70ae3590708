"""Computation that architecture families share."""

from tf_pipeline.layers.activations import ACTIVATIONS, get_activation
from tf_pipeline.layers.attention import add_residual, attention_bias, dot_product_attention, run_layers, split_heads
from tf_pipeline.layers.core import (
    Bias,
    Conv1D,
    Embedding,
    LayerNorm,
    Linear,
    Parameter,
    TruncatedNormal,
    VocabularyHead,
    VocabularyProjector,
)
from tf_pipeline.layers.embeddings import flatten_choices, position_vectors, token_positions
from tf_pipeline.layers.relative import bidirectional_buckets, log_buckets, relative_positions, scores_by_distance
from tf_pipeline.layers.rotary import rotary_table, rotate

__all__ = [
    "ACTIVATIONS",
    "Bias",
    "Conv1D",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Parameter",
    "TruncatedNormal",
    "VocabularyHead",
    "VocabularyProjector",
    "add_residual",
    "attention_bias",
    "bidirectional_buckets",
    "dot_product_attention",
    "flatten_choices",
    "get_activation",
    "log_buckets",
    "position_vectors",
    "relative_positions",
    "rotary_table",
    "rotate",
    "run_layers",
    "scores_by_distance",
    "split_heads",
    "token_positions",
]
