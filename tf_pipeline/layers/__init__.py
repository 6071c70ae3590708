"""Computation that architecture families share."""

from tf_pipeline.layers.activations import ACTIVATIONS, get_activation
from tf_pipeline.layers.attention import attend, attention_bias
from tf_pipeline.layers.cache import Cache, LayerCache
from tf_pipeline.layers.core import (
    Bias,
    Conv1D,
    Conv1d,
    Embedding,
    LayerNorm,
    Linear,
    Parameter,
    RMSNorm,
    TruncatedNormal,
    VocabularyHead,
    VocabularyProjector,
)
from tf_pipeline.layers.dropout import Dropout
from tf_pipeline.layers.embeddings import flatten_choices, position_vectors, sinusoidal_positions, token_positions
from tf_pipeline.layers.products import gather_rows
from tf_pipeline.layers.relative import (
    bidirectional_buckets,
    causal_buckets,
    log_buckets,
    relative_positions,
    scores_by_distance,
)
from tf_pipeline.layers.rotary import RotaryEmbedding, rotate, rotate_rows
from tf_pipeline.layers.rows import (
    LayerInputs,
    add_residual,
    dot_product_attention,
    merge_heads,
    run_layers,
    split_heads,
)
from tf_pipeline.layers.summary import SequenceSummary

__all__ = [
    "ACTIVATIONS",
    "Bias",
    "Cache",
    "Conv1D",
    "Conv1d",
    "Dropout",
    "Embedding",
    "LayerCache",
    "LayerInputs",
    "LayerNorm",
    "Linear",
    "Parameter",
    "RMSNorm",
    "RotaryEmbedding",
    "SequenceSummary",
    "TruncatedNormal",
    "VocabularyHead",
    "VocabularyProjector",
    "add_residual",
    "attend",
    "attention_bias",
    "bidirectional_buckets",
    "causal_buckets",
    "dot_product_attention",
    "flatten_choices",
    "gather_rows",
    "get_activation",
    "log_buckets",
    "merge_heads",
    "position_vectors",
    "relative_positions",
    "rotate",
    "rotate_rows",
    "run_layers",
    "scores_by_distance",
    "sinusoidal_positions",
    "split_heads",
    "token_positions",
]
