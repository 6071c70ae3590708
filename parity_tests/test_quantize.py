"""Keras' quantization of every family: what becomes integers, how near the outputs are, files and exports."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from parity_tests import port_helpers
from parity_tests.families import MODELS
from parity_tests.keras_helpers import tiny_inputs, tiny_model
from parity_tests.test_adapters import head_for
from parity_tests.tiers import exhaustive
from tf_pipeline import TFAutoModel
from tf_pipeline.checkpoint import named_leaves
from tf_pipeline.layers import Embedding, Linear, VocabularyProjector

# Largest RMS error of the logits, as a part of their own RMS, with random weights of standard deviation 0.2.
NEAR = {"int8": 0.1, "int4": 1.2}


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize(
    ("family", "mode"),
    exhaustive(itertools.product(MODELS, ["int8", "int4"]), [("bert", "int8"), ("gpt2", "int4")]),
)
def test_families_are_quantized_and_saved(family, mode, tmp_path):
    model = tiny_model(head_for(family))
    inputs = tiny_inputs(model)
    exact = model(inputs).logits
    model.quantize(mode)
    for path, leaf in named_leaves(model):
        if isinstance(leaf, (Linear, Embedding)) or (isinstance(leaf, VocabularyProjector) and not leaf.tied):
            assert leaf.quantization_mode == mode, path
    logits = model(inputs).logits
    assert 0 < rms(logits - exact) < NEAR[mode] * rms(exact)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs).logits, logits)


@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_is_scored_by_what_integers_stand_for(tied, tmp_path):
    model = tiny_model("TFGPT2LMHeadModel", tie_word_embeddings=tied)
    states = tf.random.stateless_normal([2, 3, 32], [1, 2])
    layer = model.transformer.wte if tied else model.lm_head
    weight = (layer.embeddings if tied else layer.kernel).numpy()
    model.quantize("int8", filters="wte|lm_head")
    scale = np.abs(weight).max(1, keepdims=True) / 127
    expected = states.numpy() @ (np.round(weight / scale) * scale).T
    np.testing.assert_allclose(model.prediction_logits(states), expected, rtol=1e-4, atol=1e-4)
    assert not [v for v in model.variables if v.shape == weight.shape and v.dtype == "float32"]


def test_positions_are_looked_up_in_integers():
    model = tiny_model("TFBertModel")
    inputs = tiny_inputs(model)
    model.quantize("int8", filters="position_embeddings")
    positions = np.arange(7)[np.newaxis].astype("int32")
    np.testing.assert_array_equal(
        model(inputs).last_hidden_state, model(inputs | {"position_ids": positions}).last_hidden_state
    )


@pytest.mark.slow
def test_exports_generation_and_blocks(tmp_path):
    model = tiny_model("TFGPT2LMHeadModel", tie_word_embeddings=False)
    inputs = tiny_inputs(model)
    before = model.generate(inputs["input_ids"], max_new_tokens=4, do_sample=False)
    assert before.shape == (4, 11)
    model.quantize(config=keras.quantizers.Int4QuantizationConfig(block_size=16))
    logits = model(inputs).logits
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs).logits, logits)
    written = loaded.generate(inputs["input_ids"], max_new_tokens=4, do_sample=False)
    np.testing.assert_array_equal(model.generate(inputs["input_ids"], max_new_tokens=4, do_sample=False), written)
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    values = {name: tf.constant(inputs[name], tf.int32) for name in model.default_signature()}
    np.testing.assert_allclose(served.serve(values)["logits"], model(values).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["gptq", "awq", "float8", "int2", None])
def test_other_modes_are_refused(mode):
    # Keras itself refuses some before the model is asked.
    words = {"gptq": "GPTQ", "awq": "AWQ", "int2": "mode=int2", None: "either `mode` or `config`"}
    with pytest.raises(ValueError, match=words.get(mode, f"takes 'int8' or 'int4', and not {mode!r}")):
        tiny_model("TFBertModel").quantize(mode)


def test_what_has_become_something_else_is_refused():
    model = tiny_model("TFGPT2LMHeadModel", tie_word_embeddings=False)
    model.quantize("int8", filters="lm_head")
    with pytest.raises(ValueError, match="lm_head is quantized already"):
        model.lm_head.quantize("int8")
    model.enable_lora(2, ["c_attn"])
    with pytest.raises(ValueError, match="The model has adapters"):
        model.quantize("int8")


@pytest.mark.slow
def test_ported_models_are_refused():
    port_helpers.shared_cache()
    model = TFAutoModel.from_pretrained(port_helpers.checkpoint("opt"))
    with pytest.raises(ValueError, match="TFOPTModel is ported"):
        model.quantize("int8")
