"""ModernBERT (https://arxiv.org/abs/2412.13663): the body and all its heads.

Positions are rotary, most layers attend within a window, and normalisation comes before attention. Attribute paths are
the keys of ``transformers`` checkpoints.
"""

import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.encoder import (
    EncoderBody,
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from tf_pipeline.inputs import INPUT_NAMES
from tf_pipeline.layers import (
    Dropout,
    Embedding,
    LayerInputs,
    LayerNorm,
    Linear,
    RotaryEmbedding,
    TruncatedNormal,
    VocabularyProjector,
    add_residual,
    attention_bias,
    dot_product_attention,
    get_activation,
    rotate_rows,
    run_layers,
)
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import BaseModelOutput


def initializer(config, std: float) -> TruncatedNormal:
    """Normal values cut off at ``initializer_cutoff_factor`` standard deviations."""
    return TruncatedNormal(std, config.initializer_cutoff_factor)


def output_std(config) -> float:
    """Standard deviation of initial weights that write to the residual stream."""
    return config.initializer_range / math.sqrt(2.0 * config.num_hidden_layers)


def norm(config, dtype) -> LayerNorm:
    """A normalisation (config: ``norm_eps``, ``norm_bias``)."""
    return LayerNorm(config.hidden_size, config.norm_eps, use_bias=config.norm_bias, dtype=dtype)


class ModernBertEmbeddings(keras.layers.Layer):
    """Word embeddings, normalised."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        std = config.initializer_range
        self.tok_embeddings = Embedding(config.vocab_size, config.hidden_size, std, config.pad_token_id, dtype=dtype)
        self.tok_embeddings.embeddings_initializer = initializer(config, std)
        self.norm = norm(config, dtype)
        self.drop = Dropout(config.embedding_dropout, dtype=dtype)

    def call(self, input_ids=None, inputs_embeds=None, training=None):
        embeddings = self.tok_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        return self.drop(self.norm(embeddings), training=training)


class ModernBertMLP(keras.layers.Layer):
    """The feed-forward layer, one half of which gates the other."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, wide, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.Wi = Linear(size, 2 * wide, initializer(config, config.initializer_range), use_bias=bias, dtype=dtype)
        self.Wo = Linear(wide, size, initializer(config, output_std(config)), use_bias=bias, dtype=dtype)
        self.activation = get_activation(config.hidden_activation)
        self.drop = Dropout(config.mlp_dropout, dtype=dtype)

    def call(self, rows, training=None):
        hidden_states, gate = tf.split(self.Wi(rows), 2, axis=-1)
        return self.Wo(self.drop(self.activation(hidden_states) * gate, training=training))


@dataclass(frozen=True, kw_only=True)
class ModernBertInputs(LayerInputs):
    """Inputs of a layer, with the rotary table of all tokens: cosines and sines ``[batch or 1, length, 1, size]``."""

    rotary: tuple[tf.Tensor, tf.Tensor]

    @property
    def rotary_of_queries(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The table of the tokens that the layer computes."""
        return tuple(part[:, :1] for part in self.rotary) if self.first_token_only else self.rotary


class ModernBertAttention(keras.layers.Layer):
    """Attention of queries and keys that are turned by their positions."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, bias = config.hidden_size, config.attention_bias
        if size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {size} is not a multiple of num_attention_heads {config.num_attention_heads}."
            )
        self.num_heads = config.num_attention_heads
        self.Wqkv = Linear(size, 3 * size, initializer(config, config.initializer_range), use_bias=bias, dtype=dtype)
        self.Wo = Linear(size, size, initializer(config, output_std(config)), use_bias=bias, dtype=dtype)
        self.out_drop = None
        if config.attention_dropout > 0:
            self.out_drop = Dropout(config.attention_dropout, dtype=dtype)

    def call(self, rows, inputs, training=None):
        query, key, value = tf.split(self.Wqkv(rows), 3, axis=-1)
        query = rotate_rows(inputs.computed(query), inputs.rotary_of_queries, inputs.queries, self.num_heads)
        key = rotate_rows(key, inputs.rotary, inputs.length, self.num_heads)
        # The probabilities' dropout has the same rate as the output's.
        context, probabilities = dot_product_attention(
            query, key, value, inputs, self.num_heads, self.out_drop, training
        )
        outputs = self.Wo(context)
        return outputs if self.out_drop is None else self.out_drop(outputs, training=training), probabilities


class ModernBertEncoderLayer(keras.layers.Layer):
    """One transformer layer, called as :class:`~tf_pipeline.layers.LayerInputs` says."""

    def __init__(self, config, index, dtype=None):
        super().__init__(dtype=dtype)
        self.attn_norm = norm(config, dtype) if index > 0 else None  # the embeddings come normalised
        self.attn = ModernBertAttention(config, dtype=dtype)
        self.mlp_norm = norm(config, dtype)
        self.mlp = ModernBertMLP(config, dtype=dtype)

    def call(self, rows, inputs, training=None):
        normal = rows if self.attn_norm is None else self.attn_norm(rows)
        attended, probabilities = self.attn(normal, inputs=inputs, training=training)
        hidden_states = add_residual(attended, inputs.computed(rows))
        return add_residual(self.mlp(self.mlp_norm(hidden_states), training=training), hidden_states), probabilities


class ModernBertPredictionHead(keras.layers.Layer):
    """The layer before every classifier (config: ``classifier_activation``, ``classifier_bias``)."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, init = config.hidden_size, initializer(config, output_std(config))
        self.dense = Linear(size, size, init, use_bias=config.classifier_bias, dtype=dtype)
        self.activation = get_activation(config.classifier_activation)
        self.norm = norm(config, dtype)

    def call(self, hidden_states):
        return self.norm(self.activation(self.dense(hidden_states)))


class TFModernBertPreTrainedModel(TFPreTrainedModel):
    """Base class of all ModernBERT models. There are no token types, and nothing limits the length."""

    base_model_prefix = "model"
    tensor_names = tuple(name for name in INPUT_NAMES if name != "token_type_ids")
    supported_config = {"is_decoder": (False,), "is_encoder_decoder": (False,)}

    @property
    def num_positions(self) -> None:
        """None: positions are computed."""
        return None

    def add_head(self, num_outputs: int) -> None:
        """Construct the body, and a classifier on its output."""
        config, dtype = self.config, self.dtype_policy
        self.model = TFModernBertModel(config, dtype=dtype)
        self.head = ModernBertPredictionHead(config, dtype=dtype)
        self.drop = Dropout(config.classifier_dropout, dtype=dtype)
        init = initializer(config, config.hidden_size**-0.5)
        self.classifier = Linear(config.hidden_size, num_outputs, init, dtype=dtype)

    def scores(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[..., hidden]`` to ``[..., outputs]``, in models that have a classifier."""
        return self.classifier(self.drop(self.head(hidden_states), training=training))


class TFModernBertModel(EncoderBody, TFModernBertPreTrainedModel):
    """The body."""

    output_class = BaseModelOutput
    encoder_inputs = ("position_ids",)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.windows = {"full_attention": None, "sliding_attention": config.local_attention // 2}
        kinds = sorted(set(config.layer_types))
        if unknown := [kind for kind in kinds if kind not in self.windows]:
            names = ", ".join(map(str, unknown))
            raise ValueError(f"ModernBERT has no layer_types {names}; it has {', '.join(self.windows)}.")
        self.rotary = {kind: RotaryEmbedding(config, kind) for kind in kinds}
        self.embeddings = ModernBertEmbeddings(config, dtype=self.dtype_policy)
        self.layers_ = [
            ModernBertEncoderLayer(config, index, dtype=self.dtype_policy) for index in range(config.num_hidden_layers)
        ]
        self.final_norm = norm(config, self.dtype_policy)

    def encode(
        self, embeddings: tf.Tensor, attention_mask: tf.Tensor | None, position_ids=None, **options: Any
    ) -> BaseModelOutput:
        """The last hidden state, normalised, and the hidden states and attentions that are asked for."""
        length, dtype = tf.shape(embeddings)[1], embeddings.dtype
        positions = tf.range(length)[tf.newaxis] if position_ids is None else position_ids
        wide = tf.float32 if dtype.size < 4 else dtype  # in which PyTorch turns half precision too
        inputs = {
            kind: ModernBertInputs(
                length=length,
                bias=attention_bias(attention_mask, dtype, queries=length, keys=length, window=self.windows[kind]),
                rotary=rotary(positions, wide, heads_axis=2),
            )
            for kind, rotary in self.rotary.items()
        }
        kinds = self.config.layer_types[: len(self.layers_)]
        outputs = run_layers(self.layers_, embeddings, [inputs[kind] for kind in kinds], **options)
        outputs["last_hidden_state"] = last = self.final_norm(outputs.last_hidden_state)
        if outputs.hidden_states is not None:
            outputs["hidden_states"] = (*outputs.hidden_states[:-1], last)
        return outputs


class TFModernBertForMaskedLM(MaskedLM, TFModernBertPreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted."""

    supported_config = {"sparse_prediction": (False,)}

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, init = self.dtype_policy, initializer(config, output_std(config))
        self.model = TFModernBertModel(config, dtype=dtype)
        self.head = ModernBertPredictionHead(config, dtype=dtype)
        self.decoder = VocabularyProjector(
            config.hidden_size, config.vocab_size, init, config.tie_word_embeddings, config.decoder_bias, dtype=dtype
        )

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        return {"decoder.weight": "model.embeddings.tok_embeddings.weight"} if self.config.tie_word_embeddings else {}

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        return self.decoder(self.head(hidden_states), self.model.embeddings.tok_embeddings.table())


def mean_of_tokens(hidden_states: tf.Tensor, attention_mask: tf.Tensor | None) -> tf.Tensor:
    """The mean ``[batch, hidden]`` of the tokens that the mask ``[batch, seq]`` shows; all without one."""
    if attention_mask is None:
        return tf.reduce_mean(hidden_states, axis=1)
    if attention_mask.shape.rank != 2:
        raise ValueError(f"The mean of tokens takes an attention_mask [batch, seq], not {attention_mask.shape}.")
    weights = tf.cast(attention_mask, hidden_states.dtype)[..., tf.newaxis]
    return tf.reduce_sum(hidden_states * weights, axis=1) / tf.reduce_sum(weights, axis=1)


class TFModernBertForSequenceClassification(SequenceClassification, TFModernBertPreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression.

    It reads the first token or the mean of all (config: ``classifier_pooling``).
    """

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_head(config.num_labels)
        self.reads_first_token = config.classifier_pooling == "cls"

    def pool(self, body: BaseModelOutput, attention_mask: tf.Tensor | None) -> tf.Tensor:
        """``[batch, hidden]``."""
        states = body.last_hidden_state
        return states[:, 0] if self.reads_first_token else mean_of_tokens(states, attention_mask)

    def text_logits(self, pooled: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, num_labels]``."""
        return self.scores(pooled, training=training)


class TFModernBertForMultipleChoice(MultipleChoice, TFModernBertPreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``.

    It reads the first token that is not padding or the mean of all (config: ``classifier_pooling``).
    """

    reads_first_token = False

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_head(1)

    def pool(self, body: BaseModelOutput, attention_mask: tf.Tensor | None) -> tf.Tensor:
        """``[batch * choices, hidden]``."""
        states = body.last_hidden_state
        if self.config.classifier_pooling == "mean":
            return mean_of_tokens(states, attention_mask)
        return (
            states[:, 0]
            if attention_mask is None
            else tf.gather(states, tf.argmax(attention_mask, axis=1), batch_dims=1)
        )

    def text_logits(self, pooled: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch * choices, 1]``."""
        return self.scores(pooled, training=training)


class TFModernBertForTokenClassification(TokenClassification, TFModernBertPreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_head(config.num_labels)

    def token_logits(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, num_labels]``."""
        return self.scores(hidden_states, training=training)


class TFModernBertForQuestionAnswering(QuestionAnswering, TFModernBertPreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_head(2)

    def span_logits(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, 2]``."""
        return self.scores(hidden_states, training=training)
