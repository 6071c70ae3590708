"""Gradient checkpointing: the gradients of a model that keeps its activations, dropout included, in less memory."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from parity_tests.tiers import exhaustive
from tf_pipeline.recompute import blocks_of

CLASSES = [
    "TFBertForSequenceClassification", "TFT5ForConditionalGeneration", "TFGPT2LMHeadModel", "TFLlamaForCausalLM",
    "TFBartForConditionalGeneration", "TFDistilBertForMaskedLM", "TFMPNetForMaskedLM", "TFModernBertForMaskedLM",
    "TFDebertaV2ForMaskedLM", "TFElectraForMaskedLM", "TFAlbertForMaskedLM", "TFGemma2ForCausalLM",
    "TFQwen3ForCausalLM",
]  # fmt: skip


def gradients(model, traced=False):
    """Loss and gradients of one batch in training, from the same draws."""
    data = tiny_inputs(model) | tiny_labels(model)
    for layer in model._flatten_layers():
        if getattr(layer, "seed_generator", None) is not None:
            layer.seed_generator.state.assign([7, 11])

    def step():
        with tf.GradientTape() as tape:
            loss = model(data, training=True).loss
        return loss, tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    loss, found = (tf.function(step) if traced else step)()
    return [np.asarray(loss), *(None if one is None else tf.convert_to_tensor(one).numpy() for one in found)]


def counted(model):
    """A list that grows with each run of a block's first layer."""
    runs = []
    for block in blocks_of(model):
        inner = next(child for child in block._flatten_layers(include_self=False) if child.built or child.variables)
        own = inner.call
        inner.__dict__["call"] = lambda *args, own=own, **kwargs: runs.append(1) or own(*args, **kwargs)
    return runs


@pytest.mark.parametrize("class_name", exhaustive(CLASSES, ["TFT5ForConditionalGeneration"]))
def test_gradients_are_equal(class_name):
    layers = {"num_hidden_layers": 2} if "T5" not in class_name else {"num_layers": 2}
    model = tiny_model(class_name, dtype="float64", dropout=True, **layers)
    expected = gradients(model)
    other = gradients(model)
    np.testing.assert_array_equal(expected[0], other[0])  # the draws are set
    blocks = blocks_of(model)
    assert len(blocks) >= 1 and not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    runs = counted(model)
    actual = gradients(model)
    assert len(runs) >= 2 * len(blocks)  # once forwards and once more
    for one, two in zip(actual, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-12 * max(1, np.abs(two).max()))


def test_in_a_graph_and_in_fit():
    def losses(recomputed):
        model = tiny_model("TFBertForSequenceClassification", dropout=True, num_hidden_layers=2)
        if recomputed:
            model.gradient_checkpointing_enable()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=not recomputed)
        return model.fit(tiny_inputs(model) | tiny_labels(model), epochs=3, verbose=0).history["loss"]

    assert losses(True) == pytest.approx(losses(False), rel=1e-5)


def test_it_can_be_turned_off():
    model = tiny_model("TFBertForSequenceClassification")
    model.gradient_checkpointing_enable()
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    runs = counted(model)
    gradients(model)
    once = len(runs)
    model.gradient_checkpointing_enable()
    gradients(model)
    assert len(runs) - once >= 2 * once > 0
    hidden = model(tiny_inputs(model), output_hidden_states=True, output_attentions=True)
    assert len(hidden.hidden_states) == 2 and len(hidden.attentions) == 1  # not in training


def test_a_model_without_layers_is_refused():
    class Flat(keras.Model):
        pass

    from tf_pipeline import recompute

    with pytest.raises(ValueError, match="Flat has no stack of layers"):
        recompute.enable(Flat())


PEAK = """
import sys, keras, numpy as np
from parity_tests.memory import peak
from transformers import BertConfig
from tf_pipeline import TFBertForSequenceClassification
config = BertConfig(hidden_size=128, num_hidden_layers=12, num_attention_heads=4, intermediate_size=512, vocab_size=100)
model = TFBertForSequenceClassification(config)
if sys.argv[1] == "again":
    model.gradient_checkpointing_enable()
model.compile(keras.optimizers.SGD(0.1))
small = {"input_ids": np.ones([1, 8], "int32"), "labels": np.zeros([1], "int32")}
model.fit(small, verbose=0)
before = peak()
model.fit({"input_ids": np.ones([16, 256], "int32"), "labels": np.zeros([16], "int32")}, batch_size=16, verbose=0)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_is_that_of_one_layer():
    peaks = {}
    for kind in ("kept", "again"):
        done = subprocess.run([sys.executable, "-c", PEAK, kind], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks[kind] = int(done.stdout.split()[-1])
    assert peaks["again"] < 0.5 * peaks["kept"], peaks
