"""Activations, norms and dropout as loops: values, gradients and training steps of the plain operations."""

import gc
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from parity_tests.tiers import exhaustive
from tf_pipeline import training
from tf_pipeline.layers import ACTIVATIONS, Dropout, LayerNorm, RMSNorm, core, fused, get_activation
from tf_pipeline.layers.dropout import drop
from tf_pipeline.tracing import compiled

CLASSES = [
    "TFBertForSequenceClassification", "TFT5ForConditionalGeneration", "TFGPT2LMHeadModel", "TFLlamaForCausalLM",
    "TFBartForConditionalGeneration", "TFDistilBertForMaskedLM", "TFMPNetForMaskedLM", "TFModernBertForMaskedLM",
    "TFDebertaV2ForMaskedLM", "TFElectraForMaskedLM", "TFAlbertForMaskedLM", "TFGemma2ForCausalLM",
    "TFRobertaForTokenClassification", "TFPhi3ForCausalLM", "TFOlmo2ForCausalLM",
]  # fmt: skip

NORMS = {
    "layer norm": lambda dtype: LayerNorm(6, 1e-12, dtype=dtype),
    "layer norm without bias": lambda dtype: LayerNorm(6, 1e-12, dtype=dtype, use_bias=False),
    "RMS norm": lambda dtype: RMSNorm(6, 1e-6, dtype=dtype),
    "Gemma's RMS norm": lambda dtype: RMSNorm(6, 1e-6, unit_offset=True, scale_in_float32=True, dtype=dtype),
    "RMS norm without weight": lambda dtype: RMSNorm(6, 1e-6, use_scale=False, dtype=dtype),
}


@pytest.fixture
def loops_of(monkeypatch):
    """The functions whose loops are called."""
    called = []
    own = fused.is_fusing

    def is_fusing():
        if own():
            called.append(inspect.stack()[1].function)
        return own()

    for module in ("activations", "core", "dropout"):
        monkeypatch.setattr(f"tf_pipeline.layers.{module}.is_fusing", is_fusing)
    return called


def value_and_gradients(layer, x, upstream, enabled, variables=()):
    """Value and gradients in a graph of unknown shape, as ``fit`` traces it."""

    def run(x, upstream):
        with fused.fusing(enabled), tf.GradientTape() as tape:
            tape.watch(x)
            value = layer(x)
        return value, *tape.gradient(value, [x, *(variable.value for variable in variables)], upstream)

    specs = [tf.TensorSpec([None] * (x.ndim - 1) + [x.shape[-1]], x.dtype)] * 2
    return [np.asarray(one, "float64") for one in compiled(run, *specs)(x, upstream)]


def assert_same_loops(layer, shape, dtype, variables=()):
    """Float64 to its last digits, and half precision to one rounding of the plain operations' several."""
    random = np.random.default_rng(0)
    x, upstream = (tf.cast(random.normal(size=shape) * 2, dtype) for _ in range(2))
    plain, loops = (value_and_gradients(layer, x, upstream, enabled, variables) for enabled in (False, True))
    bound = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 0.03, "float16": 0.004}[dtype]
    for one, other in zip(loops, plain, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound * np.abs(other).max())


@pytest.mark.parametrize("dtype", exhaustive(["float64", "float32", "bfloat16", "float16"], ["float64", "bfloat16"]))
@pytest.mark.parametrize("name", exhaustive(sorted(ACTIVATIONS), ["gelu", "silu"]))
def test_activations(name, dtype, loops_of):
    assert_same_loops(get_activation(name), (3, 5, 8), dtype)
    assert loops_of == ["_activate"]


@pytest.mark.parametrize("dtype", exhaustive(["float64", "mixed_bfloat16", "bfloat16"], ["float64"]))
@pytest.mark.parametrize("name", NORMS)
def test_norms(name, dtype, loops_of):
    layer = NORMS[name](dtype)
    layer.create_variables()
    random = np.random.default_rng(1)
    for variable in layer.weights:
        variable.assign(random.normal(size=variable.shape))
    assert_same_loops(layer, (11, 6), dtype.removeprefix("mixed_"), layer.trainable_variables)
    assert loops_of == ["call"]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout(rate):
    seed = tf.constant([3, 4])
    x = tf.random.stateless_uniform([64, 8, 500], [1, 2], 1.0, 2.0, tf.float64)
    dropped = drop(x, rate, seed)
    is_kept = dropped.numpy() != 0
    np.testing.assert_allclose(dropped.numpy()[is_kept], x.numpy()[is_kept] / (1 - rate), rtol=1e-15)
    spread = np.sqrt(rate * (1 - rate) / x.numpy().size)
    assert abs(is_kept.mean() - (1 - rate)) < 5 * spread
    for axis in range(3):  # no row, column or block is favoured
        means = is_kept.mean(axis=tuple(other for other in range(3) if other != axis))
        assert np.abs(means - (1 - rate)).max() < 6 * spread * np.sqrt(len(means))
    np.testing.assert_array_equal(drop(x, rate, seed), dropped)
    for other in ([4, 4], [3, 5], [4, 3]):  # the counter of a generator and its seed
        kept_then = drop(x, rate, tf.constant(other)).numpy() != 0
        for shift in (-1, 0, 1):
            together = np.corrcoef(is_kept.ravel(), np.roll(kept_then.ravel(), shift))[0, 1]
            assert abs(together) < 5 / np.sqrt(x.numpy().size)


def test_a_dropout_layer_draws_again_at_each_call_and_its_gradient_does_not():
    layer, x = Dropout(0.4, seed=5), tf.ones([40, 50])
    with fused.fusing():
        with tf.GradientTape() as tape:
            tape.watch(x)
            first = layer(x, training=True)
        np.testing.assert_array_equal(tape.gradient(first, x), first)  # of ones: the same factors
        assert np.any(layer(x, training=True) != first)
        np.testing.assert_array_equal(Dropout(0.4, seed=5)(x, training=True), first)
        np.testing.assert_array_equal(layer(x), x)
        for rate in (0.0, 1.0):
            np.testing.assert_array_equal(Dropout(rate)(x, training=True), x * (1 - rate))
        rows = Dropout(0.4, noise_shape=(None, 1))(x, training=True).numpy()
    assert all(len(set(row)) == 1 for row in rows)


def trained(class_name, jit_compile, dropout=False, recomputes=False, batches=2, **arguments):
    """Losses and weights after ``fit``, the last batch of which is smaller."""
    model = tiny_model(class_name, "float64", dropout=dropout)
    if recomputes:
        model.gradient_checkpointing_enable()
    model.compile(keras.optimizers.SGD(0.01), jit_compile=jit_compile, **arguments)
    data = tiny_inputs(model, 3 * batches - 1) | tiny_labels(model, 3 * batches - 1)
    losses = model.fit(data, batch_size=3, shuffle=False, verbose=0, epochs=2).history["loss"]
    return [np.array(losses), *model.get_weights()]


@pytest.mark.parametrize("class_name", exhaustive(CLASSES, ["TFBertForSequenceClassification"]))
def test_fit(class_name, monkeypatch, loops_of):
    plain = trained(class_name, False)
    assert loops_of == []
    monkeypatch.setattr(training, "_MANY_WEIGHTS", 0)
    loops = trained(class_name, "auto")
    assert "call" in loops_of
    for one, other in zip(loops, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10 * max(1, np.abs(other).max()))


@pytest.mark.slow
def test_fit_with_recomputed_layers_draws_the_same(monkeypatch):
    monkeypatch.setattr(training, "_MANY_WEIGHTS", 0)
    kept = trained("TFBertForSequenceClassification", "auto", dropout=True)
    again = trained("TFBertForSequenceClassification", "auto", dropout=True, recomputes=True)
    for one, other in zip(again, kept, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


def test_only_long_steps_of_one_shape_are_loops(monkeypatch, loops_of):
    trained("TFBertForSequenceClassification", "auto", batches=1)
    assert loops_of == []  # a small model
    monkeypatch.setattr(training, "_MANY_WEIGHTS", 0)
    trained("TFBertForSequenceClassification", "auto", batches=1, run_eagerly=True)
    assert loops_of == []
    model = tiny_model("TFBertForSequenceClassification")
    model.compile("sgd")
    batch = tiny_inputs(model) | tiny_labels(model)
    specs = {name: tf.TensorSpec([None] * value.ndim, value.dtype) for name, value in batch.items()}
    lengths = tf.data.Dataset.from_generator(lambda: [batch], output_signature=specs)
    model.fit(lengths, verbose=0)
    assert loops_of == []
    model.evaluate(batch, verbose=0)
    model.predict(batch, verbose=0)
    assert loops_of == []
    model.train_on_batch(batch)
    assert loops_of


def test_jit_compile_is_kept(tmp_path):
    model = tiny_model("TFBertForSequenceClassification")
    for value in ("auto", False):
        model.compile("sgd", jit_compile=value)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded._fuses_loops is (value == "auto") and loaded.jit_compile is False
    for value in ("always", None, np.array([True, False])):
        with pytest.raises(ValueError, match='jit_compile is True, False or "auto"; got '):
            model.compile("sgd", jit_compile=value)


def test_threads_that_begin_together():
    """TensorFlow makes the gradients of a function at their first use, without a lock."""
    together = threading.Barrier(4)

    def gradient():
        layer = LayerNorm(8, 1e-5)
        layer.create_variables()
        together.wait()

        def step(x):
            with fused.fusing(), tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.reduce_sum(tf.sin(layer(x)))
                return tape.gradient(value, x)

        return compiled(step)(tf.reshape(tf.range(48.0), [2, 3, 8]))

    for _ in range(3):  # each finds no loops
        core._layer_norm_loop.cache_clear()
        with ThreadPoolExecutor(4) as threads:
            results = [threads.submit(gradient) for _ in range(4)]
        assert all(np.array_equal(one.result(), results[0].result()) for one in results)


@pytest.mark.slow
def test_models_share_loops(monkeypatch):
    """``tf.custom_gradient`` keeps each of its traces for good."""
    from tensorflow.python.framework import ops

    monkeypatch.setattr(training, "_MANY_WEIGHTS", 0)

    def kept(jit_compile):
        """How many a further model leaves behind."""
        counts = []
        for _ in range(3):
            trained("TFBertForSequenceClassification", jit_compile, dropout=True, batches=1)
            gc.collect()
            counts.append(len(ops.gradient_registry.list()))
        return counts[-1] - counts[-2]

    assert kept("auto") == kept(False)
