"""DeBERTa v2 and v3 (https://arxiv.org/abs/2006.03654, https://arxiv.org/abs/2111.09543): the body and all its heads.

Attention scores content by content, content by distance (c2p) and distance by content (p2c). Attribute paths are the
keys of ``transformers`` checkpoints.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline import losses
from tf_pipeline.encoder import (
    EncoderBody,
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from tf_pipeline.layers import (
    Bias,
    Conv1d,
    Dropout,
    Embedding,
    LayerInputs,
    LayerNorm,
    Linear,
    VocabularyHead,
    dot_product_attention,
    gather_rows,
    get_activation,
    log_buckets,
    position_vectors,
    run_layers,
    scores_by_distance,
    split_heads,
)
from tf_pipeline.layers.products import dense
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.models.bert import BertIntermediate, BertSelfOutput
from tf_pipeline.outputs import BaseModelOutput


def embedding_size(config) -> int:
    """Size of the word embeddings: ``embedding_size``, else ``hidden_size``."""
    return getattr(config, "embedding_size", config.hidden_size)


def position_span(config) -> tuple[int, int]:
    """Number of buckets (0 if every distance is its own) and the distance from which all are alike."""
    farthest = config.max_relative_positions
    farthest = farthest if farthest > 0 else config.max_position_embeddings
    return max(getattr(config, "position_buckets", -1), 0), farthest


class DebertaV2Embeddings(keras.layers.Layer):
    """Word embeddings, with positions and types if the config has them, projected and normalised."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std = embedding_size(config), config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, size, std, config.pad_token_id, dtype=dtype)
        self.position_embeddings = self.token_type_embeddings = self.embed_proj = None
        if config.position_biased_input:
            self.position_embeddings = Embedding(config.max_position_embeddings, size, std, dtype=dtype)
        if config.type_vocab_size > 0:
            self.token_type_embeddings = Embedding(config.type_vocab_size, size, std, dtype=dtype)
        if size != config.hidden_size:
            self.embed_proj = Linear(size, config.hidden_size, std, use_bias=False, dtype=dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)

    def call(self, input_ids=None, token_type_ids=None, position_ids=None, inputs_embeds=None, training=None):
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if self.position_embeddings is not None:
            embeddings += position_vectors(self.position_embeddings, position_ids, tf.shape(embeddings)[1])
        if self.token_type_embeddings is not None:
            types = tf.zeros([1, 1], tf.int32) if token_type_ids is None else token_type_ids
            embeddings += self.token_type_embeddings(types)
        if self.embed_proj is not None:
            embeddings = self.embed_proj(embeddings)
        return self.dropout(self.LayerNorm(embeddings), training=training)


@dataclass(frozen=True, kw_only=True)
class DebertaV2Inputs(LayerInputs):
    """Inputs of a layer, with the embeddings of distances, if the config has them.

    Attributes:
        distances: the table ``[rows, hidden]``, and which of its rows the distances ``length - 1 … 1 - length`` from
            key to query have: int32 ``[2 * length - 1]``.
    """

    distances: tuple[tf.Tensor, tf.Tensor] | None


class DisentangledSelfAttention(keras.layers.Layer):
    """Attention by content and by distance."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, std, heads = config.hidden_size, config.initializer_range, config.num_attention_heads
        head_size = getattr(config, "attention_head_size", size // heads)
        if head_size * heads != size:
            raise ValueError(
                f"hidden_size {size} is not num_attention_heads {heads} times attention_head_size {head_size!r}."
            )
        kinds = config.pos_att_type or []
        self.num_heads, self.scale = heads, 1.0 / math.sqrt(head_size * (1 + len({"c2p", "p2c"} & set(kinds))))
        self.query_proj = Linear(size, size, std, dtype=dtype)
        self.key_proj = Linear(size, size, std, dtype=dtype)
        self.value_proj = Linear(size, size, std, dtype=dtype)
        self.by_distance = {kind: config.relative_attention and kind in kinds for kind in ("c2p", "p2c")}
        self.share_att_key = getattr(config, "share_att_key", False)
        if config.relative_attention:
            self.pos_dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)
        if self.by_distance["c2p"] and not self.share_att_key:
            self.pos_key_proj = Linear(size, size, std, dtype=dtype)
        if self.by_distance["p2c"] and not self.share_att_key:
            self.pos_query_proj = Linear(size, size, std, dtype=dtype)
        self.dropout = Dropout(config.attention_probs_dropout_prob, dtype=dtype)

    def call(self, rows, inputs, training=None):
        query, key, value = self.query_proj(inputs.computed(rows)), self.key_proj(rows), self.value_proj(rows)
        if any(self.by_distance.values()):
            inputs = replace(inputs, bias=self.distance_scores(query, key, inputs, training))
        return dot_product_attention(query, key, value, inputs, self.num_heads, self.dropout, training, self.scale)

    def distance_scores(self, query, key, inputs, training):
        """Scores by distance ``[batch, heads, queries, length]``, which are added to those by content.

        Args:
            query: ``[batch * queries, hidden]``.
            key: ``[batch * length, hidden]``.
            inputs: the layer's :class:`DebertaV2Inputs`.
            training: whether dropout is active.
        """
        table, places = inputs.distances
        vectors = gather_rows(self.pos_dropout(table, training=training), places)
        scores, scale = [], tf.constant(self.scale, query.dtype)
        if self.by_distance["c2p"]:
            projection = self.key_proj if self.share_att_key else self.pos_key_proj
            scores.append(self._scores(query * scale, projection(vectors), inputs.queries, inputs.length))
        if self.by_distance["p2c"]:
            projection = self.query_proj if self.share_att_key else self.pos_query_proj
            by_key = self._scores(key * scale, projection(vectors[::-1]), inputs.length, inputs.length)
            scores.append(tf.transpose(by_key[..., : inputs.queries], [0, 1, 3, 2]))
        return tf.add_n(scores)

    def _scores(self, rows, vectors, count, length):
        """Scores of ``count`` rows of each sequence with every distance, arranged by the other token."""
        products = tf.matmul(
            split_heads(rows, count, self.num_heads),
            split_heads(vectors, 2 * length - 1, self.num_heads),
            transpose_b=True,
        )
        return scores_by_distance(products, length)


class DebertaV2Attention(keras.layers.Layer):
    """Self-attention with its output projection."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.self_ = DisentangledSelfAttention(config, dtype=dtype)
        self.output_ = BertSelfOutput(config, config.hidden_size, dtype=dtype)

    def call(self, rows, inputs, training=None):
        context, probabilities = self.self_(rows, inputs=inputs, training=training)
        return self.output_(context, inputs.computed(rows), training=training), probabilities


class DebertaV2Layer(keras.layers.Layer):
    """One transformer layer, called as :class:`~tf_pipeline.layers.LayerInputs` says."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        self.attention = DebertaV2Attention(config, dtype=dtype)
        self.intermediate = BertIntermediate(config, dtype=dtype)
        self.output_ = BertSelfOutput(config, config.intermediate_size, dtype=dtype)

    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attention(rows, inputs=inputs, training=training)
        return self.output_(self.intermediate(attended), attended, training=training), probabilities


class ConvLayer(keras.layers.Layer):
    """A convolution of the embeddings, added to the first layer's output (config: ``conv_kernel_size``)."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, width, groups = config.hidden_size, config.conv_kernel_size, getattr(config, "conv_groups", 1)
        self.conv = Conv1d(size, size, width, groups, config.initializer_range, dtype=dtype)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)
        self.activation = get_activation(getattr(config, "conv_act", "tanh"))

    def call(self, embeddings, hidden_states, real=None, training=None):
        added = self.conv(embeddings)
        if real is not None:
            added *= real
        added = self.activation(self.dropout(added, training=training))
        outputs = self.LayerNorm(hidden_states + added)
        return outputs if real is None else outputs * real


class DebertaV2Encoder(keras.layers.Layer):
    """The stack of layers, and the embeddings of distances that all of them read."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size, self.config = config.hidden_size, config
        self.layer = [DebertaV2Layer(config, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self.rel_embeddings = self.LayerNorm = self.conv = None
        if config.relative_attention:
            buckets, farthest = position_span(config)
            self.span = buckets or farthest
            self.rel_embeddings = Embedding(2 * self.span, size, config.initializer_range, dtype=dtype)
        if "layer_norm" in re.split(r"\s*\|\s*", str(getattr(config, "norm_rel_ebd", "none")).lower().strip()):
            self.LayerNorm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        if getattr(config, "conv_kernel_size", 0) > 0:
            self.conv = ConvLayer(config, dtype=dtype)

    def distances(self, length):
        """The table of embeddings of distances, and the row of each: first the key that comes last, last the first."""
        if self.rel_embeddings is None:
            return None
        table = self.rel_embeddings.table()
        relative = tf.range(length - 1, -length, -1)
        buckets, farthest = position_span(self.config)
        relative = log_buckets(relative, buckets, farthest) if buckets else relative
        places = tf.clip_by_value(relative + self.span, 0, 2 * self.span - 1)
        return table if self.LayerNorm is None else self.LayerNorm(table), places

    def call(self, embeddings, real=None, visible=None, first_token_only=False, training=None, **options):
        """``real`` ``[batch, seq, 1]`` is 0 at padding; ``visible`` ``[batch, 1, seq, seq]`` is true at keys to see."""
        length, options = tf.shape(embeddings)[1], {"training": training, **options}
        inputs = DebertaV2Inputs(length=length, visible=visible, distances=self.distances(length))
        if self.conv is None or not self.layer:
            return run_layers(self.layer, embeddings, inputs, first_token_only, **options)
        first = run_layers(self.layer[:1], embeddings, inputs, **options)  # the convolution takes all tokens
        convolved = self.conv(embeddings, first.last_hidden_state, real, training=training)
        outputs = run_layers(self.layer[1:], convolved, inputs, first_token_only, **options)
        if outputs.hidden_states is not None:
            outputs["hidden_states"] = (embeddings, *outputs.hidden_states)
        if outputs.attentions is not None:
            outputs["attentions"] = first.attentions + outputs.attentions
        return outputs


class ContextPooler(keras.layers.Layer):
    """The first token, projected and activated (config: ``pooler_hidden_act``, ``pooler_dropout``)."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        size = config.pooler_hidden_size
        if size != config.hidden_size:
            raise ValueError(f"pooler_hidden_size {size} is not hidden_size {config.hidden_size}.")
        self.dense = Linear(size, size, config.initializer_range, dtype=dtype)
        self.dropout = Dropout(config.pooler_dropout, dtype=dtype)
        self.activation = get_activation(config.pooler_hidden_act)

    def call(self, hidden_states, training=None):
        return self.activation(self.dense(self.dropout(hidden_states[:, 0], training=training)))


class DebertaV2PredictionHeadTransform(keras.layers.Layer):
    """The layer before the vocabulary, ``size`` wide."""

    def __init__(self, config, size, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(config.hidden_size, size, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.hidden_act)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)

    def call(self, hidden_states):
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class LegacyDebertaV2LMPredictionHead(VocabularyHead):
    """Scores over the vocabulary, as ``transformers`` had them first (config: ``legacy``)."""

    def __init__(self, config, dtype=None):
        super().__init__(config, embedding_size(config), dtype=dtype)
        self.transform = DebertaV2PredictionHeadTransform(config, embedding_size(config), dtype=dtype)

    def transformed(self, hidden_states):
        return self.transform(hidden_states)


class DebertaV2LMPredictionHead(DebertaV2PredictionHeadTransform):
    """Scores over the vocabulary, as the checkpoints were trained; always by the word embeddings."""

    def __init__(self, config, dtype=None):
        if embedding_size(config) != config.hidden_size:
            raise ValueError(
                f"legacy=False scores with the word embeddings, but embedding_size {embedding_size(config)} is not "
                f"hidden_size {config.hidden_size}."
            )
        super().__init__(config, config.hidden_size, dtype=dtype)
        self.bias = Bias(config.vocab_size, dtype=dtype)

    def call(self, hidden_states, word_embeddings):
        hidden_states = super().call(hidden_states)
        return self.bias(dense(hidden_states, word_embeddings, transposed=True))


class MLMHead(keras.layers.Layer):
    """The part that checkpoints call ``cls`` or, if not ``legacy``, ``lm_predictions``."""

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        if config.legacy:
            self.predictions = LegacyDebertaV2LMPredictionHead(config, dtype=dtype)
        else:
            self.lm_head = DebertaV2LMPredictionHead(config, dtype=dtype)

    def call(self, hidden_states, word_embeddings):
        head = self.predictions if hasattr(self, "predictions") else self.lm_head
        return head(hidden_states, word_embeddings)


class TFDebertaV2PreTrainedModel(TFPreTrainedModel):
    """Base class of all DeBERTa models."""

    base_model_prefix = "deberta"
    supported_config = {"is_decoder": (False,), "is_encoder_decoder": (False,)}
    least_config = TFPreTrainedModel.least_config | {"num_hidden_layers": 1, "type_vocab_size": 0}
    ignored_keys = re.compile(r"position_embeddings|^mask_predictions\.")

    @property
    def num_positions(self) -> int | None:
        """Rows of the position table, or ``None`` if there is none (config: ``position_biased_input``)."""
        return self.config.max_position_embeddings if self.config.position_biased_input else None

    def add_text_head(self, num_outputs: int) -> None:
        """Construct the body, and a classifier of texts on its first token."""
        config, dtype = self.config, self.dtype_policy
        self.deberta = TFDebertaV2Model(config, dtype=dtype)
        self.pooler = ContextPooler(config, dtype=dtype)
        self.classifier = Linear(config.hidden_size, num_outputs, config.initializer_range, dtype=dtype)
        rate = getattr(config, "cls_dropout", None)
        self.dropout = Dropout(config.hidden_dropout_prob if rate is None else rate, dtype=dtype)

    def text_logits(self, body: BaseModelOutput, training: bool = False) -> tf.Tensor:
        """Scores of a text from its first token, in models that have a classifier of texts."""
        pooled = self.pooler(body.last_hidden_state, training=training)
        return self.classifier(self.dropout(pooled, training=training))


class TFDebertaV2Model(EncoderBody, TFDebertaV2PreTrainedModel):
    """The body."""

    output_class = BaseModelOutput

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = DebertaV2Embeddings(config, dtype=self.dtype_policy)
        self.encoder = DebertaV2Encoder(config, dtype=self.dtype_policy)

    def encode(self, embeddings: tf.Tensor, attention_mask: tf.Tensor | None, **options: Any) -> BaseModelOutput:
        """The last hidden state, and other outputs that are asked for. Padding is zero, and attends to nothing."""
        if attention_mask is None:
            return self.encoder(embeddings, **options)
        if attention_mask.shape.rank != 2:
            raise ValueError(f"DeBERTa takes an attention_mask [batch, seq], not of shape {attention_mask.shape}.")
        real = tf.not_equal(attention_mask, tf.zeros([], attention_mask.dtype))
        visible = (real[:, :, tf.newaxis] & real[:, tf.newaxis, :])[:, tf.newaxis]
        real = tf.cast(real, embeddings.dtype)[..., tf.newaxis]
        return self.encoder(embeddings * real, real=real, visible=visible, **options)


class TFDebertaV2ForMaskedLM(MaskedLM, TFDebertaV2PreTrainedModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted.

    Checkpoints of v3 hold the head that ``legacy=False`` reads.
    """

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.deberta = TFDebertaV2Model(config, dtype=self.dtype_policy)
        setattr(self, "cls" if config.legacy else "lm_predictions", MLMHead(config, dtype=self.dtype_policy))

    def tied_weights(self) -> dict[str, str]:
        """The vocabulary is scored by the word embeddings, unless the config unties them."""
        if not self.config.tie_word_embeddings or not self.config.legacy:
            return {}
        return {
            "cls.predictions.decoder.weight": "deberta.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }

    def prediction_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, vocab]``."""
        head = self.cls if self.config.legacy else self.lm_predictions
        return head(hidden_states, self.deberta.embeddings.word_embeddings.table())


def sequence_loss(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor:
    """The loss of a text's scores; without a ``problem_type``, one that only DeBERTa has.

    Labels below zero do not count then, and labels ``[batch, num_labels]`` are probabilities, which take no options.
    """
    target = labels["labels"]
    if config.problem_type is not None or config.num_labels == 1:
        return losses.sequence_classification(outputs, labels, config, **options)
    if target.shape.rank > 1 and target.shape[-1] != 1:
        if options:
            raise ValueError(f"Labels that are probabilities take no {' and '.join(options)}; set a problem_type.")
        logits = outputs.logits
        return -tf.reduce_mean(tf.reduce_sum(tf.nn.log_softmax(logits) * tf.cast(target, logits.dtype), axis=-1))
    target = tf.reshape(tf.cast(target, tf.int32), [-1])
    loss = losses.cross_entropy(outputs.logits, tf.where(target < 0, losses.IGNORE_INDEX, target), **options)
    return tf.where(tf.reduce_any(target >= 0), loss, tf.zeros_like(loss))


class TFDebertaV2ForSequenceClassification(SequenceClassification, TFDebertaV2PreTrainedModel):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]``; see :func:`sequence_loss`."""

    task_loss = staticmethod(sequence_loss)

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_text_head(config.num_labels)


class TFDebertaV2ForMultipleChoice(MultipleChoice, TFDebertaV2PreTrainedModel):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.add_text_head(1)


class TFDebertaV2ForTokenClassification(TokenClassification, TFDebertaV2PreTrainedModel):
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        self.deberta = TFDebertaV2Model(config, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=dtype)
        self.classifier = Linear(config.hidden_size, config.num_labels, std, dtype=dtype)


class TFDebertaV2ForQuestionAnswering(QuestionAnswering, TFDebertaV2PreTrainedModel):
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``."""

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.deberta = TFDebertaV2Model(config, dtype=self.dtype_policy)
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy)
