"""BART (https://arxiv.org/abs/1910.13461), and the layers of the families that follow it.

Attribute paths are the keys of ``transformers`` checkpoints. Families differ in where they normalise, in their
positions and in the factors of their words: each says so in a :class:`BartStack` and a :class:`BartBlock` of its own.
"""

import copy
import math
import re
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline import heads
from tf_pipeline.auto import TFAutoModel
from tf_pipeline.decoder import CausalLM, DecoderBody, TFDecoderPreTrainedModel
from tf_pipeline.encoder_decoder import (
    EncoderDecoderBody,
    Seq2SeqClassificationHead,
    Seq2SeqLM,
    Seq2SeqQuestionAnswering,
    Seq2SeqSequenceClassification,
    Stack,
    StackInputs,
)
from tf_pipeline.layers import (
    Bias,
    Dropout,
    Embedding,
    LayerCache,
    LayerNorm,
    Linear,
    Parameter,
    VocabularyProjector,
    add_residual,
    attend,
    get_activation,
    merge_heads,
    split_heads,
)
from tf_pipeline.model import TFPreTrainedModel

LAYER_NORM_EPS = 1e-5  # PyTorch's default


def initial_std(config) -> float:
    """Standard deviation of initial weights: ``init_std``, unless the config has an ``initializer_range`` as well."""
    return getattr(config, "initializer_range", config.init_std)


def scaled(vectors: tf.Tensor, scale: float) -> tf.Tensor:
    """``vectors`` times ``scale``, in their own dtype."""
    return vectors if scale == 1 else vectors * tf.constant(scale, vectors.dtype)


class BartAttention(keras.layers.Layer):
    """Attention to the half's own tokens, or to the encoder's."""

    def __init__(self, config, num_heads, dtype=None):
        super().__init__(dtype=dtype)
        size, std, self.num_heads = config.d_model, initial_std(config), num_heads
        if size % num_heads:
            raise ValueError(f"d_model {size} is not a multiple of the number of attention heads {num_heads}.")
        self.k_proj = Linear(size, size, std, dtype=dtype)
        self.v_proj = Linear(size, size, std, dtype=dtype)
        self.q_proj = Linear(size, size, std, dtype=dtype)
        self.out_proj = Linear(size, size, std, dtype=dtype)
        self.dropout = Dropout(config.attention_dropout, dtype=dtype)

    def keys_and_values(self, rows, length) -> LayerCache:
        """Of rows ``[batch * length, hidden]``."""
        return LayerCache(*(split_heads(part(rows), length, self.num_heads) for part in (self.k_proj, self.v_proj)))

    def call(self, rows, length, cache, bias, training=None):
        query = split_heads(self.q_proj(rows), length, self.num_heads)
        context, probabilities = attend(
            query, cache.keys, cache.values, query.shape[-1] ** -0.5, bias, lambda x: self.dropout(x, training=training)
        )
        return self.out_proj(merge_heads(context)), probabilities


class BartBlock(keras.layers.Layer):
    """One layer of either half, called as :class:`~tf_pipeline.encoder_decoder.StackInputs` says.

    A decoder's that is called with :class:`~tf_pipeline.decoder.DecoderInputs` has no encoder to attend to.

    Attributes:
        norm_first: whether the inputs of attention and feed-forward layers are normalised, rather than the sums.
    """

    norm_first = False

    def __init__(self, config, is_decoder, dtype=None):
        super().__init__(dtype=dtype)
        half = "decoder" if is_decoder else "encoder"
        size, std, self.is_decoder = config.d_model, initial_std(config), is_decoder
        num_heads, wide = getattr(config, f"{half}_attention_heads"), getattr(config, f"{half}_ffn_dim")
        self.self_attn = BartAttention(config, num_heads, dtype=dtype)
        self.self_attn_layer_norm = LayerNorm(size, LAYER_NORM_EPS, dtype=dtype)
        if is_decoder:
            self.encoder_attn = BartAttention(config, num_heads, dtype=dtype)
            self.encoder_attn_layer_norm = LayerNorm(size, LAYER_NORM_EPS, dtype=dtype)
        self.fc1 = Linear(size, wide, std, dtype=dtype)
        self.fc2 = Linear(wide, size, std, dtype=dtype)
        self.final_layer_norm = LayerNorm(size, LAYER_NORM_EPS, dtype=dtype)
        self.activation = get_activation(config.activation_function)
        self.activation_dropout = Dropout(config.activation_dropout, dtype=dtype)
        self.dropout = Dropout(config.dropout, dtype=dtype)
        self.layerdrop = Dropout(getattr(config, f"{half}_layerdrop"), dtype=dtype)

    def call(self, rows, inputs, training=None):
        normal = self.before(self.self_attn_layer_norm, rows)
        cache = inputs.remember(*self.self_attn.keys_and_values(normal, inputs.length))
        attended, attentions = self.self_attn(
            normal, length=inputs.length, cache=cache, bias=inputs.bias, training=training
        )
        states, crossed = self.after(self.self_attn_layer_norm, attended, rows, training), ()
        if self.is_decoder and isinstance(inputs, StackInputs):
            states, *crossed = self.cross(states, inputs, training)
        inner = self.activation(self.fc1(self.before(self.final_layer_norm, states)))
        forwarded = self.fc2(self.activation_dropout(inner, training=training))
        states = self.after(self.final_layer_norm, forwarded, states, training)
        states = states if self.is_decoder else self.within_range(states)
        return self.unless_dropped(states, rows, training), attentions, cache, *crossed

    def cross(self, rows, inputs, training):
        """Attend to the encoder's tokens, whose keys and values are computed once."""
        normal, cross = self.before(self.encoder_attn_layer_norm, rows), inputs.cross
        if cross is None:
            cross = self.encoder_attn.keys_and_values(inputs.encoded, inputs.source)
        attended, attentions = self.encoder_attn(
            normal, length=inputs.length, cache=cross, bias=inputs.source_bias, training=training
        )
        return self.after(self.encoder_attn_layer_norm, attended, rows, training), attentions, cross

    def before(self, norm, rows):
        """Rows of the residual stream as a branch reads them: normalised, if that comes first."""
        return norm(rows) if self.norm_first else rows

    def after(self, norm, branch, rows, training):
        """Rows of the residual stream with a branch's result: normalised, unless that comes first."""
        total = add_residual(self.dropout(branch, training=training), rows)
        return total if self.norm_first else norm(total)

    def within_range(self, rows):
        """Cut float16 so that more can be added to it: always with ``norm_first``, else if some number is infinite."""
        if rows.dtype != tf.float16:
            return rows
        least = tf.constant(rows.dtype.max - 1000, rows.dtype)
        overflows = self.norm_first | ~tf.reduce_all(tf.math.is_finite(rows))
        limit = tf.where(overflows, least, tf.constant(rows.dtype.max, rows.dtype))
        return tf.clip_by_value(rows, -limit, limit)

    def unless_dropped(self, states, rows, training):
        """Return the new states, or at random in training the old rows: LayerDrop, https://arxiv.org/abs/1909.11556."""
        if not training or not self.layerdrop.rate:
            return states
        return tf.where(self.layerdrop(tf.ones([1], rows.dtype), training=True) > 0, states, rows)


class BartStack(Stack):
    """The encoder, or the decoder.

    Attributes:
        block_class: class of the layers.
        normalises_embeddings: whether there is a normalisation before the first layer.
        normalises_last: whether there is one behind the last layer.
        first_position: row of the first position in the table.
    """

    block_class = BartBlock
    normalises_embeddings = True
    normalises_last = False
    first_position = 2

    def __init__(self, config, is_decoder, has_words=False, dtype=None):
        super().__init__(dtype=dtype)
        size, self.is_decoder = config.d_model, is_decoder
        self.scale = math.sqrt(size) if config.scale_embedding else 1.0
        if has_words:
            words = self.num_words(config)
            self.embed_tokens = Embedding(words, size, initial_std(config), config.pad_token_id, dtype=dtype)
        self.add_positions(config)
        count = config.decoder_layers if is_decoder else config.encoder_layers
        self.layers_ = [self.block_class(config, is_decoder, dtype=dtype) for _ in range(count)]
        if self.normalises_embeddings:
            self.layernorm_embedding = LayerNorm(size, LAYER_NORM_EPS, dtype=dtype)
        if self.normalises_last:
            self.layer_norm = LayerNorm(size, LAYER_NORM_EPS, dtype=dtype)
        self.dropout = Dropout(config.dropout, dtype=dtype)

    @property
    def blocks(self) -> list[BartBlock]:
        """The layers."""
        return self.layers_

    def num_words(self, config) -> int:
        """Size of the vocabulary of the half."""
        return config.vocab_size

    def add_positions(self, config) -> None:
        """Construct the table of positions."""
        rows = config.max_position_embeddings + self.first_position
        self.embed_positions = Embedding(rows, config.d_model, initial_std(config), dtype=self.dtype_policy)

    def positions(self, vectors, offset, input_ids) -> tf.Tensor:
        """Vectors ``[batch or 1, seq, hidden]`` of positions from ``offset`` on."""
        return self.embed_positions((tf.range(tf.shape(vectors)[1]) + offset + self.first_position)[tf.newaxis])

    def word_vectors(self, words: Embedding, input_ids: tf.Tensor) -> tf.Tensor:
        """Rows of the table ``words``, times the root of their size if ``scale_embedding``."""
        return scaled(words(input_ids), self.scale)

    def embed(self, vectors, offset=0, training=False, input_ids=None):
        """Sum of words and positions."""
        hidden_states = vectors + self.positions(vectors, offset, input_ids)
        if self.normalises_embeddings:
            hidden_states = self.layernorm_embedding(hidden_states)
        return self.dropout(hidden_states, training=training)

    def finish(self, hidden_states, training=False):
        """The last normalisation, if there is one."""
        return self.layer_norm(hidden_states) if self.normalises_last else hidden_states


class FinalLogitsBias(Bias):
    """A bias of the vocabulary ``[1, vocab]`` that is not trained, as PyTorch stores it; zero in most checkpoints."""

    def build(self, input_shape=None):
        """Create the row."""
        self.value = self.add_weight(shape=(1, self.dim), initializer=self.initializer, name="bias", trainable=False)

    def checkpoint_parameters(self):
        """The row, under the layer's own path."""
        return (Parameter("", (1, self.dim), "value", "initializer"),)


class TFBartPreTrainedModel(TFPreTrainedModel):
    """Base of all BART models, and of those of the families that follow it, which are subclasses of them."""

    base_model_prefix = "model"
    tensor_names = ("input_ids", "attention_mask", "inputs_embeds")
    least_config = TFPreTrainedModel.least_config | {
        "decoder_layers": 0, "decoder_attention_heads": 1, "encoder_ffn_dim": 1, "decoder_ffn_dim": 1, "init_std": 0,
    }  # fmt: skip
    implied_keys = re.compile(r"^final_logits_bias$")
    # Numbers of the checkpoint's version, in checkpoints of old.
    ignored_keys = re.compile(r"(^|\.)(en|de)coder\.version$")


class TFBartModel(EncoderDecoderBody, TFBartPreTrainedModel):
    """The body: an encoder and a decoder. Without inputs of its own, the decoder reads the text one place later.

    Attributes:
        stack_class: class of the two halves.
    """

    tensor_names = EncoderDecoderBody.tensor_names
    decoder_reads = ("input_ids",)
    stack_class = BartStack

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        if self.shares_words:
            self.shared = Embedding(
                config.vocab_size, config.d_model, initial_std(config), config.pad_token_id, dtype=dtype
            )
        self.ties_words = self.shares_words and config.tie_word_embeddings
        self.encoder = self.stack_class(config, is_decoder=False, has_words=not self.ties_words, dtype=dtype)
        self.decoder = self.stack_class(config, is_decoder=True, has_words=not self.ties_words, dtype=dtype)

    @property
    def shares_words(self) -> bool:
        """Whether the halves share one vocabulary."""
        return True

    def words(self, decoder: bool) -> Embedding:
        """The word embeddings of a half."""
        return self.shared if self.ties_words else (self.decoder if decoder else self.encoder).embed_tokens

    def word_vectors(self, input_ids: tf.Tensor, decoder: bool) -> tf.Tensor:
        """Vectors of a half's words."""
        return (self.decoder if decoder else self.encoder).word_vectors(self.words(decoder), input_ids)

    def tied_weights(self) -> dict[str, str]:
        """Both halves have the word embeddings, under names of their own."""
        halves = ("encoder", "decoder") if self.ties_words else ()
        return {f"{half}.embed_tokens.weight": "shared.weight" for half in halves}


class BartHead(TFBartPreTrainedModel):
    """Base of the heads over a whole body, which is held as ``model``."""

    tensor_names = EncoderDecoderBody.tensor_names

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.model = TFAutoModel.model_class(config)(config, dtype=self.dtype_policy)

    def tied_weights(self) -> dict[str, str]:
        """Those of the body."""
        return {f"model.{alias}": f"model.{key}" for alias, key in self.model.tied_weights().items()}


class TFBartForConditionalGeneration(Seq2SeqLM, BartHead):
    """Writes a text from another. Labels: ``[batch, target]``, -100 where nothing counts."""

    decoder_reads = ("labels", "input_ids")
    has_bias = True

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        words = self.model.words(decoder=True).input_dim
        if self.has_bias:
            self.final_logits_bias = FinalLogitsBias(words, dtype=self.dtype_policy)
        self.lm_head = VocabularyProjector(
            config.d_model,
            words,
            initial_std(config),
            config.tie_word_embeddings,
            use_bias=False,
            dtype=self.dtype_policy,
        )

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, target, hidden]`` to ``[batch, target, vocab]``."""
        logits = self.lm_head(hidden_states, self.model.words(decoder=True).table())
        return self.final_logits_bias(logits) if self.has_bias else logits

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        words = "shared" if self.model.ties_words else "decoder.embed_tokens"
        own = {"lm_head.weight": f"model.{words}.weight"} if self.config.tie_word_embeddings else {}
        return super().tied_weights() | own


class TFBartForSequenceClassification(Seq2SeqSequenceClassification, BartHead):
    """Scores a text by its end. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.classification_head = Seq2SeqClassificationHead(config, initial_std(config), dtype=self.dtype_policy)


class TFBartForQuestionAnswering(Seq2SeqQuestionAnswering, BartHead):
    """Finds an answer in a text. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        config = copy.deepcopy(config)
        config.num_labels = 2  # whatever the checkpoint says, as in PyTorch: the config's default is 3
        super().__init__(config, **kwargs)
        self.qa_outputs = Linear(config.d_model, 2, initial_std(config), dtype=self.dtype_policy)


class BartDecoderBody(DecoderBody, keras.layers.Layer):
    """A decoder without an encoder; padding takes positions, too."""

    def __init__(self, config, stack_class, dtype=None):
        super().__init__(dtype=dtype)
        self.decoder = stack_class(config, is_decoder=True, has_words=True, dtype=dtype)
        for block in self.blocks:  # whose attention to an encoder is not used
            block.encoder_attn.trainable = block.encoder_attn_layer_norm.trainable = False

    @property
    def blocks(self) -> list[BartBlock]:
        """The layers."""
        return self.decoder.blocks

    def embed(self, input_ids=None, inputs_embeds=None, position_ids=None, training=False):
        """Sum of words and positions, which are the same in all rows."""
        vectors = inputs_embeds
        if vectors is None:
            vectors = self.decoder.word_vectors(self.decoder.embed_tokens, input_ids)
        return self.decoder.embed(vectors, 0 if position_ids is None else position_ids[0, 0], training)

    def finish(self, hidden_states):
        """The last normalisation, if there is one."""
        return self.decoder.finish(hidden_states)

    def prompt_positions(self, mask):
        """Positions of all tokens, counted from the left."""
        return tf.broadcast_to(tf.range(tf.shape(mask)[1]), tf.shape(mask))


@heads.head_of("BartForCausalLM")
class TFBartForCausalLM(CausalLM, TFBartPreTrainedModel, TFDecoderPreTrainedModel):
    """The decoder alone, which predicts the next token. Labels ``[batch, seq]`` are not shifted, as in PyTorch.

    There is no encoder to attend to; the weights of that attention are kept for the round trip.
    """

    def __init__(self, config, **kwargs: Any):
        config = copy.deepcopy(config)
        config.is_decoder, config.is_encoder_decoder = True, False
        super().__init__(config, **kwargs)
        dtype, stack_class = self.dtype_policy, TFAutoModel.model_class(config).stack_class
        self.model = BartDecoderBody(config, stack_class, dtype=dtype)
        self.lm_head = VocabularyProjector(
            config.d_model,
            config.vocab_size,
            initial_std(config),
            config.tie_word_embeddings,
            use_bias=False,
            dtype=dtype,
        )

    @property
    def num_mask_heads(self) -> int:
        """Number of heads that an attention mask of rank 4 may tell apart (config: ``decoder_attention_heads``)."""
        return self.config.decoder_attention_heads

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        return {"lm_head.weight": "model.decoder.embed_tokens.weight"} if self.config.tie_word_embeddings else {}

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        return self.lm_head(hidden_states, self.model.decoder.embed_tokens.table())
