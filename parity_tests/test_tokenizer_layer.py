"""``TFTokenizer``: a tokenizer as a Keras layer, in models, ``tf.data`` and files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, TFTokenizer
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

TEXTS = ["A good film.", "東京 was bad, very bad, and long!", ""]


@pytest.fixture(scope="module")
def layer():
    return TFTokenizer.from_pretrained(BUNDLED_CHECKPOINT, truncation=True, max_length=8, padding_side="left")


@pytest.fixture(scope="module")
def expected():
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT, padding_side="left")
    return tokenizer(TEXTS, padding=True, truncation=True, max_length=8, return_tensors="np")


def assert_ids(actual, expected):
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(actual[name], expected[name])


def test_calls_and_data(layer, expected):
    assert_ids(layer(tf.constant(TEXTS)), expected)
    assert_ids(layer(TEXTS), expected)
    for text in ("a text", tf.constant("a text")):
        with pytest.raises(ValueError, match=r"takes texts \[batch\], and this is one: pass a list"):
            layer(text)
    assert_ids(next(iter(tf.data.Dataset.from_tensor_slices(TEXTS).batch(3).map(layer))), expected)
    pairs = layer(tf.constant(["a"]), tf.constant(["b"]))
    assert pairs["input_ids"].shape == (1, 5)


def test_in_a_model_and_its_file(layer, expected, tmp_path):
    model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
    text = keras.Input([], dtype="string")
    tokens = layer(text)
    assert {name: (x.shape, x.dtype) for name, x in tokens.items()}["input_ids"] == ((None, None), "int32")
    whole = keras.Model(text, model(tokens).logits)
    logits = whole(tf.constant(TEXTS))
    wanted = model({name: expected[name] for name in ("input_ids", "attention_mask")}).logits
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)
    whole.save(tmp_path / "strings.keras")
    loaded = keras.models.load_model(tmp_path / "strings.keras")
    np.testing.assert_allclose(loaded(tf.constant(TEXTS)), logits, rtol=1e-6, atol=1e-6)


def test_config(layer, expected):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.name == layer.name and again.options == layer.options
    assert_ids(again(tf.constant(TEXTS)), expected)


def test_options_are_checked_at_once():
    with pytest.raises(ValueError, match="truncation and padding='max_length' need max_length"):
        TFTokenizer.from_pretrained(BUNDLED_CHECKPOINT, truncation=True)
    with pytest.raises(TypeError, match="trunkation"):
        TFTokenizer.from_pretrained(BUNDLED_CHECKPOINT, trunkation=True)
