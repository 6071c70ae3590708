"""Metrics over a whole data set at the end of an epoch, of outputs and of texts that a model writes."""

import numpy as np
import pytest
import tensorflow as tf

from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from tf_pipeline.callbacks import KerasMetricCallback

CLASSIFIER = "TFBertForSequenceClassification"


def trained(model, callback):
    """The history of one epoch with a callback."""
    model.compile("sgd", run_eagerly=True)
    inputs = tiny_inputs(model) | tiny_labels(model)
    return model.fit(inputs, epochs=1, callbacks=[callback], verbose=0).history


def seen_by(metric):
    """A metric that keeps what it gets."""
    kept = []
    return kept, lambda pair: kept.append(pair) or metric(*pair)


def test_predictions_and_labels_are_of_the_whole_set():
    model = tiny_model(CLASSIFIER)
    inputs, labels = tiny_inputs(model, batch=7), tiny_labels(model, batch=7)["labels"]
    kept, metric = seen_by(lambda logits, truth: {"accuracy": np.mean(np.argmax(logits, -1) == truth)})
    history = trained(model, KerasMetricCallback(metric, tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(3)))
    logits, truth = kept[0]
    np.testing.assert_array_equal(truth, labels)
    np.testing.assert_allclose(logits, model(inputs).logits, atol=1e-5)
    assert history["accuracy"] == [np.mean(np.argmax(model(inputs).logits, -1) == labels)]


def test_batches_with_weights():
    model = tiny_model(CLASSIFIER)
    inputs, labels = tiny_inputs(model), tiny_labels(model)["labels"]
    batches = tf.data.Dataset.from_tensors((inputs, labels, np.ones(len(labels), np.float32)))
    kept, metric = seen_by(lambda *_: {})
    trained(model, KerasMetricCallback(metric, batches))
    np.testing.assert_array_equal(kept[0][1], labels)


def test_labels_among_the_inputs_and_several_outputs():
    """Arrays with a number of rows per batch; hidden states of texts of different lengths are filled up."""
    model = tiny_model("TFBertForQuestionAnswering")
    data = tiny_inputs(model) | tiny_labels(model)
    kept, metric = seen_by(lambda *_: {"one": 1.0})
    trained(model, KerasMetricCallback(metric, data, output_cols=["start_logits", "end_logits"], batch_size=2))
    predictions, labels = kept[0]
    assert set(predictions) == {"start_logits", "end_logits"} and set(labels) == {"start_positions", "end_positions"}
    np.testing.assert_array_equal(labels["end_positions"], data["end_positions"])


def test_shorter_batches_are_filled_up():
    model = tiny_model("TFBertForTokenClassification")

    def batches():
        for length in (7, 4):
            yield tiny_inputs(model, 2, length) | tiny_labels(model, 2, length)

    specs = {name: tf.TensorSpec([None, None], value.dtype) for name, value in next(batches()).items()}
    kept, metric = seen_by(lambda *_: {})
    trained(model, KerasMetricCallback(metric, tf.data.Dataset.from_generator(batches, output_signature=specs)))
    logits, labels = kept[0]
    assert logits.shape[:2] == labels.shape == (4, 7)
    assert (labels[2:, 4:] == -100).all() and (logits[2:, 4:] == -100).all() and (logits[:2] != -100).all()


def test_texts_that_the_model_writes():
    model = tiny_model("TFT5ForConditionalGeneration")
    inputs = {name: value for name, value in tiny_inputs(model).items() if not name.startswith("decoder_")}
    labels = tiny_labels(model)["labels"]
    options = {"max_new_tokens": 5, "do_sample": False}
    kept, metric = seen_by(lambda written, _: {"length": written.shape[1]})
    batches = tf.data.Dataset.from_tensor_slices(inputs | {"labels": labels}).batch(3)
    callback = KerasMetricCallback(
        metric, batches, predict_with_generate=True, use_xla_generation=True, generate_kwargs=options
    )
    history = trained(model, callback)
    written, truth = kept[0]
    np.testing.assert_array_equal(truth, labels)
    expected = model.generate(inputs, **options).numpy()
    np.testing.assert_array_equal(written[:, : expected.shape[1]], expected)
    assert history["length"] == [written.shape[1]]


def test_what_is_refused():
    model = tiny_model(CLASSIFIER)
    with pytest.raises(ValueError, match="batch_size"):
        KerasMetricCallback(lambda pair: {}, tiny_inputs(model))
    with pytest.raises(ValueError, match=r"no labels: neither pairs, nor any of labels among input_ids"):
        trained(model, KerasMetricCallback(lambda pair: {}, tiny_inputs(model), batch_size=2))
    data = tiny_inputs(model) | tiny_labels(model)
    with pytest.raises(TypeError, match="numbers by name.*0.5"):
        trained(model, KerasMetricCallback(lambda pair: 0.5, data, batch_size=2))
