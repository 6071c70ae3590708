"""T5 (https://arxiv.org/abs/1910.10683), its version 1.1, and FLAN-T5.

Attribute paths are the keys of ``transformers`` checkpoints. In float16 the second half of each feed-forward layer, and
from it on the residual stream, is float32, as in PyTorch: its sums are too large for half precision.
"""

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.auto import TFAutoModel, TFAutoModelForTextEncoding
from tf_pipeline.encoder import TokenClassification
from tf_pipeline.encoder_decoder import (
    EncoderDecoderBody,
    LayerResult,
    Seq2SeqClassificationHead,
    Seq2SeqLM,
    Seq2SeqQuestionAnswering,
    Seq2SeqSequenceClassification,
    Stack,
)
from tf_pipeline.layers import (
    Dropout,
    Embedding,
    LayerCache,
    Linear,
    RMSNorm,
    VocabularyProjector,
    add_residual,
    attend,
    bidirectional_buckets,
    causal_buckets,
    get_activation,
    merge_heads,
    relative_positions,
    split_heads,
)
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import BaseModelOutput


def initial_std(config, size: int) -> float:
    """Standard deviation of initial weights that take vectors of a size."""
    return config.initializer_factor * size**-0.5


def wide_policy(policy: keras.DTypePolicy) -> Any:
    """The dtype policy of layers whose results overflow in float16."""
    return "float32" if policy.compute_dtype == "float16" else policy


def add(branch: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """The sum in the wider dtype of the two; in float16, the largest numbers in place of infinities."""
    dtype = branch.dtype if branch.dtype.size > rows.dtype.size else rows.dtype
    total = add_residual(tf.cast(branch, dtype), tf.cast(rows, dtype))
    if dtype != tf.float16:
        return total
    limit = tf.where(tf.reduce_any(tf.math.is_inf(total)), tf.constant(dtype.max - 1000, dtype), dtype.max)
    return tf.clip_by_value(total, -limit, limit)


class T5LayerNorm(RMSNorm):
    """Takes the residual stream in the dtype that it has."""

    def __init__(self, config, dtype=None):
        super().__init__(config.d_model, config.layer_norm_epsilon, dtype=dtype)
        self.autocast = False


class T5Attention(keras.layers.Layer):
    """Attention without a factor of its scores; the first layer of a half has scores by distance, for all of them."""

    def __init__(self, config, has_relative_attention_bias=False, dtype=None):
        super().__init__(dtype=dtype)
        size, inner = config.d_model, config.num_heads * config.d_kv
        self.num_heads = config.num_heads
        self.q = Linear(size, inner, initial_std(config, size * config.d_kv), use_bias=False, dtype=dtype)
        self.k = Linear(size, inner, initial_std(config, size), use_bias=False, dtype=dtype)
        self.v = Linear(size, inner, initial_std(config, size), use_bias=False, dtype=dtype)
        self.o = Linear(inner, size, initial_std(config, inner), use_bias=False, dtype=dtype)
        if has_relative_attention_bias:
            buckets = config.relative_attention_num_buckets
            self.relative_attention_bias = Embedding(buckets, self.num_heads, initial_std(config, size), dtype=dtype)
        self._dropout = Dropout(config.dropout_rate, dtype=dtype)

    def keys_and_values(self, rows, length) -> LayerCache:
        """Of rows ``[batch * length, hidden]``."""
        return LayerCache(*(split_heads(part(rows), length, self.num_heads) for part in (self.k, self.v)))

    def call(self, rows, length, cache, bias, training=None):
        query = split_heads(self.q(rows), length, self.num_heads)
        context, probabilities = attend(
            query, cache.keys, cache.values, 1.0, bias, lambda x: self._dropout(x, training=training)
        )
        return self.o(merge_heads(context)), probabilities


class T5LayerSelfAttention(keras.layers.Layer):
    """Attention to the half's own tokens."""

    def __init__(self, config, has_relative_attention_bias=False, dtype=None):
        super().__init__(dtype=dtype, autocast=False)
        self.SelfAttention = T5Attention(config, has_relative_attention_bias, dtype=dtype)
        self.layer_norm = T5LayerNorm(config, dtype=dtype)
        self.dropout = Dropout(config.dropout_rate, dtype=dtype)

    def call(self, rows, inputs, training=None):
        normal = self.layer_norm(rows)
        cache = inputs.remember(*self.SelfAttention.keys_and_values(normal, inputs.length))
        attended, probabilities = self.SelfAttention(
            normal, length=inputs.length, cache=cache, bias=inputs.bias, training=training
        )
        return add(self.dropout(attended, training=training), rows), probabilities, cache


class T5LayerCrossAttention(keras.layers.Layer):
    """Attention to the encoder's tokens, whose keys and values are computed once."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype, autocast=False)
        self.EncDecAttention = T5Attention(config, dtype=dtype)
        self.layer_norm = T5LayerNorm(config, dtype=dtype)
        self.dropout = Dropout(config.dropout_rate, dtype=dtype)

    def call(self, rows, inputs, training=None):
        normal, cross = self.layer_norm(rows), inputs.cross
        if cross is None:
            cross = self.EncDecAttention.keys_and_values(inputs.encoded, inputs.source)
        attended, probabilities = self.EncDecAttention(
            normal, length=inputs.length, cache=cross, bias=inputs.source_bias, training=training
        )
        return add(self.dropout(attended, training=training), rows), probabilities, cross


class T5DenseActDense(keras.layers.Layer):
    """The feed-forward layer; with ``feed_forward_proj="gated-…"`` one half of it gates the other."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, wide = config.d_model, config.d_ff
        for name in ("wi_0", "wi_1") if config.is_gated_act else ("wi",):
            setattr(self, name, Linear(size, wide, initial_std(config, size), use_bias=False, dtype=dtype))
        std, policy = initial_std(config, wide), wide_policy(self.dtype_policy)
        self.wo = Linear(wide, size, std, use_bias=False, dtype=policy)
        self.dropout = Dropout(config.dropout_rate, dtype=dtype)
        self.is_gated, self.activation = config.is_gated_act, get_activation(config.dense_act_fn)

    def call(self, rows, training=None):
        inner = self.activation(self.wi_0(rows)) * self.wi_1(rows) if self.is_gated else self.activation(self.wi(rows))
        return self.wo(self.dropout(inner, training=training))


class T5LayerFF(keras.layers.Layer):
    """The feed-forward layer with its norm and residual."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype, autocast=False)
        self.DenseReluDense = T5DenseActDense(config, dtype=dtype)
        self.layer_norm = T5LayerNorm(config, dtype=dtype)
        self.dropout = Dropout(config.dropout_rate, dtype=wide_policy(self.dtype_policy))

    def call(self, rows, training=None):
        forwarded = self.DenseReluDense(self.layer_norm(rows), training=training)
        return add(self.dropout(forwarded, training=training), rows)


class T5Block(keras.layers.Layer):
    """One layer, called as :class:`~tf_pipeline.encoder_decoder.StackInputs` says."""

    def __init__(self, config, is_decoder, has_relative_attention_bias=False, dtype=None):
        super().__init__(dtype=dtype, autocast=False)
        self.layer = [T5LayerSelfAttention(config, has_relative_attention_bias, dtype=dtype)]
        if is_decoder:
            self.layer.append(T5LayerCrossAttention(config, dtype=dtype))
        self.layer.append(T5LayerFF(config, dtype=dtype))

    def call(self, rows, inputs, training=None):
        attending, *crossing, forward = self.layer
        rows, attentions, cache = attending(rows, inputs=inputs, training=training)
        crossed = ()
        for layer in crossing:
            rows, *crossed = layer(rows, inputs=inputs, training=training)
        return LayerResult(forward(rows, training=training), attentions, cache, *crossed)


class T5Stack(Stack):
    """The encoder, or the decoder; which layers know distances, the first one says for all."""

    def __init__(self, config, is_decoder, dtype=None):
        super().__init__(dtype=dtype)
        count = config.num_decoder_layers if is_decoder else config.num_layers
        self.block = [T5Block(config, is_decoder, index == 0, dtype=dtype) for index in range(count)]
        self.final_layer_norm = T5LayerNorm(config, dtype=dtype)
        self.dropout = Dropout(config.dropout_rate, dtype=dtype)
        self.buckets = causal_buckets if is_decoder else bidirectional_buckets
        self.bucket_sizes = config.relative_attention_num_buckets, config.relative_attention_max_distance
        self.buckets(tf.constant(0), *self.bucket_sizes)  # refuses sizes that do not fit

    @property
    def blocks(self) -> list[T5Block]:
        """The layers."""
        return self.block

    def embed(self, vectors, offset=0, training=False, input_ids=None):
        """The vectors themselves: T5 has no absolute positions."""
        return self.dropout(vectors, training=training)

    def finish(self, hidden_states, training=False):
        """The last normalisation."""
        return self.dropout(self.final_layer_norm(hidden_states), training=training)

    def position_bias(self, queries, keys, offset):
        """Scores by bucket of the distance."""
        if not self.block:
            return None
        buckets = self.buckets(relative_positions(queries, keys, offset), *self.bucket_sizes)
        scores = self.block[0].layer[0].SelfAttention.relative_attention_bias(buckets)
        return tf.transpose(scores[tf.newaxis], [0, 3, 1, 2])  # OpenVINO mistakes the axes of a single query otherwise


class TFT5PreTrainedModel(TFPreTrainedModel):
    """Base of all T5 models, and of those of mT5, which are subclasses of them."""

    base_model_prefix = "transformer"
    tensor_names = ("input_ids", "attention_mask", "inputs_embeds")
    supported_config = {"is_decoder": (False,)}
    least_config = TFPreTrainedModel.least_config | {
        "d_kv": 1, "d_ff": 1, "num_decoder_layers": 0, "layer_norm_epsilon": 0, "initializer_factor": 0,
        "relative_attention_num_buckets": 4, "relative_attention_max_distance": 2,
    }  # fmt: skip
    # Heads that lie next to the two halves.
    optional_body = re.compile(r"^(lm_head|qa_outputs)\.")
    # Scores of distances between the two halves, in checkpoints of old.
    ignored_keys = re.compile(r"(^|\.)decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$")

    def add_body(self, has_decoder: bool = True) -> None:
        """Construct the word embeddings and the halves."""
        config, dtype = self.config, self.dtype_policy
        self.shared = Embedding(config.vocab_size, config.d_model, config.initializer_factor, dtype=dtype)
        self.encoder = T5Stack(config, is_decoder=False, dtype=dtype)
        if has_decoder:
            self.decoder = T5Stack(config, is_decoder=True, dtype=dtype)

    def word_vectors(self, input_ids: tf.Tensor, decoder: bool) -> tf.Tensor:
        """The same embeddings for both halves."""
        return self.shared(input_ids)

    def tied_weights(self) -> dict[str, str]:
        """Both halves have the word embeddings, under names of their own."""
        prefix = "" if self.base_model is self else f"{self.base_model_prefix}."
        halves = [half for half in ("encoder", "decoder") if hasattr(self.base_model, half)]
        return {f"{prefix}{half}.embed_tokens.weight": f"{prefix}shared.weight" for half in halves}


class TFT5Model(EncoderDecoderBody, TFT5PreTrainedModel):
    """The body: an encoder and a decoder."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_body()


class TFT5ForConditionalGeneration(Seq2SeqLM, EncoderDecoderBody, TFT5PreTrainedModel):
    """Writes a text from another. Labels: ``[batch, target]``, -100 where nothing counts.

    The vocabulary is scored by the word embeddings, or, if ``tie_lm_head=False``, by weights of its own. A checkpoint
    that has both, as those of version 1.1 do, decides; the config cannot tell.
    """

    def __init__(self, config, tie_lm_head: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_body()
        std = config.initializer_factor
        self.lm_head = VocabularyProjector(
            config.d_model, config.vocab_size, std, tie_lm_head, use_bias=False, dtype=self.dtype_policy
        )

    @property
    def scale(self) -> float:
        """Factor of the states that are scored; 1 since version 1.1, whose configs do not tie the embeddings."""
        return self.config.d_model**-0.5 if self.config.scale_decoder_outputs else 1.0

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, target, hidden]`` to ``[batch, target, vocab]``."""
        scaled = hidden_states * tf.constant(self.scale, hidden_states.dtype)
        return self.lm_head(scaled, self.shared.table())

    def tied_weights(self) -> dict[str, str]:
        """The word embeddings score the vocabulary too, unless the checkpoint had others."""
        return super().tied_weights() | ({"lm_head.weight": "shared.weight"} if self.lm_head.tied else {})

    def _open_weights(self, reader, source, **hub_options: Any):
        reader = super()._open_weights(reader, source, **hub_options)
        keys = {key.removeprefix(f"{self.base_model_prefix}."): key for key in reader}
        words = next((keys[key] for key in ("shared.weight", *super().tied_weights()) if key in keys), None)
        if words is not None and "lm_head.weight" in keys:
            self.lm_head.tied = np.array_equal(reader[words], reader[keys["lm_head.weight"]])
        return reader

    def get_config(self) -> dict[str, Any]:
        """As of other models, and whether the embeddings are tied."""
        return super().get_config() | {"tie_lm_head": self.lm_head.tied}


class TFT5EncoderModel(TFT5PreTrainedModel):
    """The encoder alone."""

    # PyTorch passes over the other half without a word.
    ignored_keys = re.compile(r"^decoder\.")

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_body(has_decoder=False)

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None, **options: Any) -> BaseModelOutput:
        """Hidden states of a text."""
        vectors = self.word_vectors(input_ids, decoder=False) if inputs_embeds is None else inputs_embeds
        return self.encoder.encode(vectors, attention_mask, **options)


class TFT5ForSequenceClassification(Seq2SeqSequenceClassification, TFT5PreTrainedModel):
    """Scores a text by its end. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.transformer = TFAutoModel.model_class(config)(config, dtype=self.dtype_policy)
        std = initial_std(config, config.d_model)
        self.classification_head = Seq2SeqClassificationHead(config, std, dtype=self.dtype_policy)


class TFT5ForTokenClassification(TokenClassification, TFT5PreTrainedModel):
    """Labels each token from the encoder's states. Labels: ``[batch, seq]``, -100 where none counts."""

    ignored_keys = re.compile(r"^(transformer\.)?decoder\.")

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.transformer = TFAutoModelForTextEncoding.model_class(config)(config, dtype=self.dtype_policy)
        self.dropout = Dropout(config.classifier_dropout, dtype=self.dtype_policy)
        self.classifier = Linear(config.d_model, config.num_labels, config.initializer_factor, dtype=self.dtype_policy)


class TFT5ForQuestionAnswering(Seq2SeqQuestionAnswering, EncoderDecoderBody, TFT5PreTrainedModel):
    """Finds an answer in a text. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_body()
        self.qa_outputs = Linear(config.d_model, 2, initial_std(config, config.d_model), dtype=self.dtype_policy)
