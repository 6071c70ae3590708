"""The tester is tested: deliberate mistakes in a model are caught, placed and named.

Each at Hugging Face's default initialisation too, where biases are zero and weights so small that float32 alone would
see little of most of them.
"""

import math
import re

import keras
import pytest
import tensorflow as tf

import tf_pipeline
from tf_pipeline import encoder, losses
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.layers import LayerNorm, activations, attention
from tf_pipeline.layers import core as core_layers
from tf_pipeline.models import bert
from tf_pipeline.parity import compare

pytestmark = pytest.mark.slow

# In the order of a finding: what comes after the group that is to show a mistake would not be looked at.
GROUPS = ("weights", "outputs", "gradients")

CLASSIFIER = "TFBertForSequenceClassification"
MASKED_LM = "TFBertForMaskedLM"
CAUSAL_LM = "TFBertLMHeadModel"


def wrong_gelu(patch):
    patch.setattr(bert, "get_activation", lambda name: activations.gelu)


def epsilon(patch):
    own = LayerNorm.__init__
    patch.setattr(LayerNorm, "__init__", lambda self, dim, eps, dtype=None: own(self, dim, 1e-12, dtype))


def bias_missing(patch):
    own = bert.dot_product_attention

    def call(self, rows, inputs, training=None):
        value = self.value(rows) - self.value.bias
        return own(self.query(inputs.computed(rows)), self.key(rows), value, inputs, self.num_heads)

    patch.setattr(bert.BertSelfAttention, "call", call)


def transposed_kernel(patch):
    own = bert.dot_product_attention

    def call(self, rows, inputs, training=None):
        key = tf.matmul(rows, self.key.kernel, transpose_b=True) + self.key.bias
        return own(self.query(inputs.computed(rows)), key, self.value(rows), inputs, self.num_heads)

    patch.setattr(bert.BertSelfAttention, "call", call)


def swapped_query_and_key(patch):
    own = bert.dot_product_attention
    patch.setattr(bert, "dot_product_attention", lambda query, key, *rest: own(key, query, *rest))


def missing_scale(patch):
    own = bert.dot_product_attention

    def unscaled(query, key, *rest):
        return own(query * tf.constant(math.sqrt(query.shape[-1] // rest[2]), query.dtype), key, *rest)

    patch.setattr(bert, "dot_product_attention", unscaled)


def mask_constant(patch):
    def small(attention_mask, dtype, **options):
        bias = attention.attention_bias(attention_mask, dtype, **options)
        return None if bias is None else tf.maximum(bias, tf.constant(-1e4, dtype))

    patch.setattr(encoder, "attention_bias", small)


def mask_ignored(patch):
    patch.setattr(encoder, "attention_bias", lambda mask, dtype, **options: None)


def mask_ignored_on_the_left(patch):
    def blind(mask, dtype, **options):
        if mask is not None:
            mask = tf.reverse(tf.math.cumsum(tf.reverse(tf.cast(mask, tf.int32), [1]), axis=1), [1])
        return attention.attention_bias(mask, dtype, **options)

    patch.setattr(encoder, "attention_bias", blind)


def position_offset(patch):
    def off_by_one(table, position_ids, length):
        return tf.roll(table.table(), -1, axis=0)[tf.newaxis, :length]

    patch.setattr(bert, "position_vectors", off_by_one)


def token_types_ignored(patch):
    own = bert.BertEmbeddings.call

    def call(self, input_ids=None, token_type_ids=None, **kwargs):
        return own(self, input_ids, token_type_ids=None, **kwargs)

    patch.setattr(bert.BertEmbeddings, "call", call)


def dropout_left_on(patch):
    own = keras.layers.Dropout.call
    patch.setattr(keras.layers.Dropout, "call", lambda self, inputs, training=False: own(self, inputs, training=True))


def unbiased_variance(patch):
    def call(self, x):
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_sum(centred**2, axis=-1, keepdims=True) / tf.constant(self.dim - 1, x.dtype)
        normal = centred * tf.math.rsqrt(variance + tf.constant(self.epsilon, x.dtype))
        return normal * tf.cast(self.gamma, x.dtype) + tf.cast(self.beta, x.dtype)

    patch.setattr(LayerNorm, "call", call)


def no_residual(patch):
    def call(self, rows, residual, training=None):
        return self.LayerNorm(self.dropout(self.dense(rows), training=training))

    patch.setattr(bert.BertSelfOutput, "call", call)


def pooler_without_tanh(patch):
    patch.setattr(bert.BertPooler, "call", lambda self, hidden_states: self.dense(hidden_states[:, 0]))


def wrongly_tied(patch):
    own = core_layers.Embedding.table
    patch.setattr(core_layers.Embedding, "table", lambda self: tf.roll(own(self), 1, axis=0))


def labels_not_shifted(patch):
    patch.setattr(
        bert.TFBertLMHeadModel,
        "task_loss",
        staticmethod(lambda outputs, labels, config: losses.cross_entropy(outputs.logits, labels["labels"])),
    )


def ignored_labels_counted(patch):
    def counted(outputs, labels, config):
        return losses.cross_entropy(outputs.logits, tf.maximum(labels["labels"], 0))

    patch.setattr(bert.TFBertForMaskedLM, "task_loss", staticmethod(counted))


def blocked_gradient(patch):
    own = bert.BertIntermediate.call
    patch.setattr(bert.BertIntermediate, "call", lambda self, rows: own(self, tf.stop_gradient(rows)))


def weights_swapped_on_loading(patch):
    own = tf_pipeline.TFBertForSequenceClassification.from_pretrained

    def load(*args, **kwargs):
        model = own(*args, **kwargs)
        slots = dict(named_slots(model))
        one, other = (slots[f"bert.encoder.layer.1.attention.self.{part}.weight"].variable for part in ("query", "key"))
        kept = tf.identity(one.value)
        one.assign(other.value)
        other.assign(kept)
        return model

    patch.setattr(tf_pipeline.TFBertForSequenceClassification, "from_pretrained", load)


# The mistake, the model, the group and the first tensor that shows it, a key that feeds it, and what the hint says.
MUTATIONS = {
    "wrong GELU": (wrong_gelu, CLASSIFIER, "outputs", "hidden_states.1", "layer.0.intermediate", "is 'gelu' in ours"),
    "epsilon": (epsilon, CLASSIFIER, "outputs", "hidden_states.0", "embeddings.LayerNorm", "epsilon .* 1e-12 in ours"),
    "bias missing": (bias_missing, CLASSIFIER, None, None, "layer.0.attention.self.value.bias", "is not added"),
    "transposed kernel": (
        transposed_kernel, CLASSIFIER, "outputs", "attentions.0", "self.key.weight", "self.key.weight is transposed",
    ),
    "query and key swapped": (
        swapped_query_and_key, CLASSIFIER, "outputs", "attentions.0", "self.query", "query and .*key are swapped",
    ),
    "missing scale": (missing_scale, CLASSIFIER, "outputs", "attentions.0", "self.query", "lack the scale of 1/2.8"),
    "mask constant": (mask_constant, CLASSIFIER, "outputs", "attentions.0", "self.query", "constant that hides"),
    "mask ignored": (mask_ignored, CLASSIFIER, "outputs", "attentions.0", "self.query", "attention mask is ignored"),
    "mask ignored on the left": (
        mask_ignored_on_the_left, CLASSIFIER, "outputs", "attentions.0", "self.query", "mask is ignored on the left",
    ),
    "position offset": (
        position_offset, CLASSIFIER, "outputs", "hidden_states.0", "position_embeddings", r"positions are off by \+1",
    ),
    "token types ignored": (
        token_types_ignored, CLASSIFIER, "outputs", "hidden_states.0", "embeddings", "token types are ignored",
    ),
    "dropout left on": (dropout_left_on, CLASSIFIER, "outputs", "hidden_states.0", "embeddings", "dropout is left on"),
    "unbiased variance": (unbiased_variance, CLASSIFIER, "outputs", "hidden_states.0", "embeddings.LayerNorm", None),
    "no residual": (no_residual, CLASSIFIER, "outputs", "hidden_states.1", "layer.0.output", None),
    "pooler without tanh": (pooler_without_tanh, CLASSIFIER, "outputs", "logits", "pooler.dense", "in the head"),
    "wrongly tied": (wrongly_tied, MASKED_LM, "outputs", "logits", "cls.predictions", "the weight it is tied to"),
    "labels not shifted": (labels_not_shifted, CAUSAL_LM, "outputs", "loss", None, "labels are not shifted"),
    "-100 counted": (ignored_labels_counted, MASKED_LM, "outputs", "loss", None, "labels of -100 are counted"),
    "blocked gradient": (blocked_gradient, CLASSIFIER, "gradients", None, None, "gradient"),
    "weights swapped on loading": (
        weights_swapped_on_loading, CLASSIFIER, "weights", "bert.encoder.layer.1.attention.self.key.weight",
        "self.key.weight", "two parameters are swapped",
    ),
}  # fmt: skip


@pytest.fixture
def folder(checkpoint):
    """Checkpoints by class and standard deviation."""
    return lambda name, std: checkpoint("bert", name, std=std, layer_norm_eps=1e-3, num_hidden_layers=2)


@pytest.mark.parametrize("std", [0.0, 0.2], ids=["default initialisation", "std 0.2"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_is_caught_placed_and_named(folder, monkeypatch, mutation, std):
    mutate, class_name, group, name, key, hint = MUTATIONS[mutation]
    mutate(monkeypatch)
    groups = GROUPS[: GROUPS.index(group) + 1] if group else GROUPS
    report = compare(folder(class_name, std), dtypes=["float64"], mode="eager", groups=groups)
    assert not report.passed
    finding = report.finding
    assert group is None or finding.check.group == group, finding.lines()
    assert name is None or finding.check.name == name, finding.lines()
    assert key is None or any(key in fed for fed in finding.keys), finding.lines()
    if hint:
        assert any(re.search(hint, text) for text in finding.hints), finding.lines()


def test_without_a_mutation_nothing_is_found(folder):
    for class_name in (CLASSIFIER, MASKED_LM, CAUSAL_LM):
        for std in (0.0, 0.2):
            report = compare(folder(class_name, std), dtypes=["float64"], mode="eager", groups=GROUPS)
            assert report.passed and report.finding is None
