"""Llama (https://arxiv.org/abs/2302.13971), and the layers that its many relatives change in a few places.

Attribute paths are the keys of ``transformers`` checkpoints.
"""

import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.auto import TFAutoModel
from tf_pipeline.decoder import (
    CausalLM,
    DecoderBody,
    QuestionAnswering,
    SequenceClassification,
    TFDecoderPreTrainedModel,
    TokenClassification,
    classifier_dropout,
)
from tf_pipeline.inputs import INPUT_NAMES
from tf_pipeline.layers import (
    Dropout,
    Embedding,
    Linear,
    RMSNorm,
    RotaryEmbedding,
    VocabularyProjector,
    add_residual,
    attend,
    get_activation,
    merge_heads,
    rotate,
    split_heads,
)


def head_size(config) -> int:
    """Size of a head: ``head_dim``, else the share of ``hidden_size``."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


class LlamaAttention(keras.layers.Layer):
    """Attention of queries and keys that are turned by their positions; several queries share a key.

    Subclasses change :meth:`biases`, :meth:`projections`, ``scale`` or ``softcap``.
    """

    # Scores ``s`` become ``softcap * tanh(s / softcap)``.
    softcap: float | None = None

    def __init__(self, config, index, dtype=None):
        super().__init__(dtype=dtype)
        self.heads, self.kv_heads, self.size = config.num_attention_heads, config.num_key_value_heads, head_size(config)
        if self.heads % self.kv_heads:
            raise ValueError(
                f"num_attention_heads {self.heads} is not a multiple of num_key_value_heads {self.kv_heads}."
            )
        self.scale = self.size**-0.5
        self.add_projections(config, dtype)
        self._dropout = Dropout(config.attention_dropout or 0.0, dtype=dtype)

    def biases(self, config) -> tuple[bool, bool]:
        """Whether the projections of queries, keys and values have a bias, and whether that of the output has one."""
        return config.attention_bias, config.attention_bias

    def add_projections(self, config, dtype) -> None:
        """Construct the projections."""
        hidden, std = config.hidden_size, config.initializer_range
        wide, narrow = self.heads * self.size, self.kv_heads * self.size
        inner, outer = self.biases(config)
        self.q_proj = Linear(hidden, wide, std, use_bias=inner, dtype=dtype)
        self.k_proj = Linear(hidden, narrow, std, use_bias=inner, dtype=dtype)
        self.v_proj = Linear(hidden, narrow, std, use_bias=inner, dtype=dtype)
        self.o_proj = Linear(wide, hidden, std, use_bias=outer, dtype=dtype)

    def projections(self, rows, length) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Queries ``[batch, heads, length, size]``, keys and values ``[batch, kv_heads, length, size]``."""
        return (
            split_heads(self.q_proj(rows), length, self.heads),
            split_heads(self.k_proj(rows), length, self.kv_heads),
            split_heads(self.v_proj(rows), length, self.kv_heads),
        )

    def call(self, rows, inputs, training=None):
        query, key, value = self.projections(rows, inputs.length)
        if inputs.rotary is not None:
            query, key = rotate(query, inputs.rotary), rotate(key, inputs.rotary)
        cache = inputs.remember(key, value)
        context, probabilities = attend(
            query, cache.keys, cache.values, self.scale, inputs.bias,
            lambda x: self._dropout(x, training=training), softcap=self.softcap,
        )  # fmt: skip
        return self.o_proj(merge_heads(context)), probabilities, cache


class LlamaMLP(keras.layers.Layer):
    """The feed-forward layer, one half of which gates the other."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, wide, std = config.hidden_size, config.intermediate_size, config.initializer_range
        bias = getattr(config, "mlp_bias", False)
        self.gate_proj = Linear(size, wide, std, use_bias=bias, dtype=dtype)
        self.up_proj = Linear(size, wide, std, use_bias=bias, dtype=dtype)
        self.down_proj = Linear(wide, size, std, use_bias=bias, dtype=dtype)
        self.activation = get_activation(getattr(config, "hidden_act", None) or config.hidden_activation)

    def call(self, rows):
        return self.down_proj(self.activation(self.gate_proj(rows)) * self.up_proj(rows))


class LlamaDecoderLayer(keras.layers.Layer):
    """One layer, called as :class:`~tf_pipeline.decoder.DecoderInputs` says."""

    attention_class, mlp_class = LlamaAttention, LlamaMLP

    def __init__(self, config, index, dtype=None):
        super().__init__(dtype=dtype)
        self.self_attn = self.attention_class(config, index, dtype=dtype)
        self.mlp = self.mlp_class(config, dtype=dtype)
        self.add_norms(config, dtype)

    def add_norms(self, config, dtype) -> None:
        """Construct the normalisations."""
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities, cache = self.self_attn(self.input_layernorm(rows), inputs=inputs, training=training)
        rows = add_residual(attended, rows)
        return add_residual(self.mlp(self.post_attention_layernorm(rows)), rows), probabilities, cache


def windows_of_layers(config) -> list[int | None]:
    """The window of each layer, where ``layer_types`` says which have one.

    Raises:
        ValueError: for a type of layers that does not exist, or a window of no size.
    """
    sizes = {"full_attention": None, "sliding_attention": config.sliding_window}
    kinds = config.layer_types[: config.num_hidden_layers]
    if unknown := sorted(set(kinds) - set(sizes)):
        names = ", ".join(map(str, unknown))
        raise ValueError(f"{config.model_type} has no layer_types {names}; it has {', '.join(sizes)}.")
    if "sliding_attention" in kinds and not config.sliding_window:
        raise ValueError(f"layer_types have sliding_attention, but sliding_window is {config.sliding_window}.")
    return [sizes[kind] for kind in kinds]


class TFLlamaPreTrainedModel(TFDecoderPreTrainedModel):
    """Base class of all Llama models and of their relatives, whose heads are subclasses of these."""

    base_model_prefix = "model"
    tensor_names = tuple(name for name in INPUT_NAMES if name != "token_type_ids")
    least_config = TFDecoderPreTrainedModel.least_config | {
        "num_key_value_heads": 1, "head_dim": 1, "sliding_window": 1, "rms_norm_eps": 0
    }  # fmt: skip
    # Frequencies, in checkpoints of old.
    ignored_keys = re.compile(r"rotary_emb\.inv_freq$")

    @property
    def num_positions(self) -> None:
        """None: positions are computed."""
        return None

    def new_body(self) -> "TFLlamaModel":
        """The body for a head: that of the config's family."""
        return TFAutoModel.model_class(self.config)(self.config, dtype=self.dtype_policy)

    def new_classifier(self, outputs: int, use_bias: bool = True) -> Linear:
        """A classifier for the body's states."""
        config = self.config
        return Linear(config.hidden_size, outputs, config.initializer_range, use_bias, dtype=self.dtype_policy)


class TFLlamaModel(DecoderBody, TFLlamaPreTrainedModel):
    """The body."""

    layer_class = LlamaDecoderLayer

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, std, config.pad_token_id, dtype=dtype)
        self.layers_ = [self.layer_class(config, index, dtype=dtype) for index in range(config.num_hidden_layers)]
        self.norm = self.new_norm()
        self.rotary = self.new_rotary()
        self._windows = self.layer_windows()

    def new_norm(self) -> RMSNorm:
        """The last normalisation."""
        return RMSNorm(self.config.hidden_size, self.config.rms_norm_eps, dtype=self.dtype_policy)

    def new_rotary(self) -> Any:
        """Make the layer that computes the tables of positions."""
        return RotaryEmbedding(self.config)

    def layer_windows(self) -> Sequence[int | None]:
        """The window of each layer, ``None`` where there is none."""
        return [None] * self.config.num_hidden_layers

    @property
    def windows(self) -> Sequence[int | None]:
        """Number of tokens that each layer sees; ``None`` for all."""
        return self._windows

    def embed(self, input_ids=None, inputs_embeds=None, position_ids=None, training=False) -> tf.Tensor:
        """Word embeddings."""
        return self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds

    def rotary_tables(self, positions: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """The same table for all layers."""
        return [self.rotary(positions, tf.as_dtype(self.compute_dtype))] * len(self.blocks)

    def check_capacity(self, capacity: int) -> None:
        """Refuse to cross the length at which ``longrope`` turns all keys again, which PyTorch then recomputes.

        Raises:
            ValueError: for a capacity beyond ``original_max_position_embeddings``.
        """
        parameters = self.config.rope_parameters
        limit = parameters.get("original_max_position_embeddings")
        if parameters.get("rope_type") == "longrope" and capacity > limit:
            raise ValueError(
                f"capacity is {capacity}, but rope_type 'longrope' has other frequencies beyond {limit} tokens "
                "(original_max_position_embeddings), so that keys cannot be kept; a call of the model takes any length."
            )

    def finish(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """The last normalisation."""
        return self.norm(hidden_states)


class TFLlamaForCausalLM(CausalLM, TFLlamaPreTrainedModel):
    """Predicts the next token. Labels ``[batch, seq]`` are shifted here."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        std, tied = config.initializer_range, config.tie_word_embeddings
        self.model = self.new_body()
        self.lm_head = VocabularyProjector(
            config.hidden_size, config.vocab_size, std, tied, use_bias=False, dtype=self.dtype_policy
        )

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings if the config ties them."""
        return {"lm_head.weight": "model.embed_tokens.weight"} if self.config.tie_word_embeddings else {}

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        return self.lm_head(hidden_states, self.model.embed_tokens.table())


class TFLlamaForSequenceClassification(SequenceClassification, TFLlamaPreTrainedModel):
    """Scores a text by its last token. Labels: ``[batch]``, or ``[batch, num_labels]`` if multi-label or regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.model = self.new_body()
        self.score = self.new_classifier(config.num_labels, use_bias=False)


class TFLlamaForTokenClassification(TokenClassification, TFLlamaPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.model = self.new_body()
        self.dropout = classifier_dropout(config, self.dtype_policy)
        self.score = self.new_classifier(config.num_labels, getattr(config, "token_classification_bias", True))

    def token_logits(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, num_labels]``."""
        return self.score(self.dropout(hidden_states, training=training))


class TFLlamaForQuestionAnswering(QuestionAnswering, TFLlamaPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    base_model_prefix = "transformer"

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        setattr(self, self.base_model_prefix, self.new_body())
        self.qa_outputs = self.new_classifier(2)
