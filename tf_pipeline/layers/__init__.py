"""Computation that architecture families share."""

from tf_pipeline.layers.activations import ACTIVATIONS, get_activation
from tf_pipeline.layers.attention import add_residual, attention_bias, dot_product_attention, run_layers
from tf_pipeline.layers.core import Bias, Embedding, LayerNorm, Linear, Parameter, VocabularyHead, VocabularyProjector
from tf_pipeline.layers.embeddings import flatten_choices, position_vectors, token_positions
from tf_pipeline.layers.relative import bidirectional_buckets, relative_positions

__all__ = [
    "ACTIVATIONS",
    "Bias",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Parameter",
    "VocabularyHead",
    "VocabularyProjector",
    "add_residual",
    "attention_bias",
    "bidirectional_buckets",
    "dot_product_attention",
    "flatten_choices",
    "get_activation",
    "position_vectors",
    "relative_positions",
    "run_layers",
    "token_positions",
]
