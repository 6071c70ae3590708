"""Every model as Keras users meet it: functional API, fit, predict, freezing, dtypes, files, export, graphs.

Whether the numbers are right is the other tests' matter; here they must be the same however Keras comes by them.
Steps that do not have to be traced run eagerly, which takes a tenth of the time.
"""

import subprocess
import sys
import warnings
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tf_pipeline
from parity_tests.families import BODIES, CLASSES, DISTINCT, HEADS, MODELS, OWN_FAMILIES, REPRESENTATIVES
from parity_tests.keras_helpers import (
    assert_same_outputs,
    assert_same_values,
    symbols,
    tiny_inputs,
    tiny_labels,
    tiny_model,
)
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline import metrics, optimization, registry
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.inputs import own_words_of_graphs
from tf_pipeline.reference.outputs import total_loss
from tf_pipeline.tokenization import layer
from tf_pipeline.tracing import compiled as compiled_function

CLASSIFIER = "TFBertForSequenceClassification"

# One class for each structure of inputs and outputs, where a test of all would only be slower.
STRUCTURES = (
    "TFBertModel",
    "TFBertForPreTraining",
    "TFBertForMultipleChoice",
    "TFBertForQuestionAnswering",
    "TFDistilBertForTokenClassification",
    "TFGPT2DoubleHeadsModel",
)
# Two that stand for them: the most outputs, and choices. What takes long to trace has the first alone.
FEW = ("TFBertForPreTraining", "TFBertForMultipleChoice")
ONE = FEW[:1]


def _parametrized(names, quick):
    """All of BERT and what other families have of their own; those that are not among the quick ones are slow."""
    names = [name for name in names if name.startswith("TFBert") or name in REPRESENTATIVES or name in STRUCTURES]
    return pytest.mark.parametrize("name", exhaustive(names, quick))


SOME_CLASSES, SOME_HEADS = _parametrized(CLASSES, FEW), _parametrized(HEADS, ONE)
SOME_STRUCTURES = pytest.mark.parametrize("name", exhaustive(STRUCTURES, FEW))
LONG_STRUCTURES = pytest.mark.parametrize("name", exhaustive(STRUCTURES, ONE))
HEAD_STRUCTURES = pytest.mark.parametrize("name", exhaustive(STRUCTURES[1:], ONE))


def compiled(name, optimizer="sgd", **options):
    """A model that trains eagerly, its inputs and its labels."""
    compile_options = {key: options.pop(key) for key in ("loss", "metrics", "weighted_metrics") if key in options}
    model = tiny_model(name, **options)
    model.compile(optimizer, run_eagerly=True, **compile_options)
    return model, tiny_inputs(model), tiny_labels(model)


def reported(model, x, y=None, **options):
    """What a test step reports for one batch."""
    model.reset_metrics()
    return model.test_on_batch(x, y, return_dict=True, **options)


def output_of(script, *arguments):
    """What a script prints in a Python process of its own."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def class_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)


def values(model):
    return {variable.path: variable.numpy() for variable in model.weights}


# ----------------------------------------------------------------------------------------- functional API, predict


@SOME_CLASSES
def test_functional_api(name):
    model = tiny_model(name)
    inputs = tiny_inputs(model)
    tensors = symbols(model, inputs)
    functional = keras.Model(tensors, model(tensors))
    assert_same_outputs(functional(inputs), model(inputs))


@LONG_STRUCTURES
def test_functional_api_by_keyword_and_integer(name):
    model = tiny_model(name)
    inputs = tiny_inputs(model)
    tensors = symbols(model, inputs)
    functional = keras.Model(tensors, {"first": model(**tensors)[0]})
    assert_same_values(functional(inputs), {"first": model(**inputs)[0]})


@LONG_STRUCTURES
def test_predict_joins_batches_and_tolerates_labels(name):
    model = tiny_model(name)
    inputs = tiny_inputs(model, batch=5)
    predicted = model.predict(inputs | tiny_labels(model, batch=5), batch_size=2, verbose=0)
    assert all(isinstance(value, np.ndarray) for value in predicted.values())
    assert_same_outputs(predicted, model(inputs))


def test_predict_in_steps_takes_all_rows():
    model = tiny_model("TFBertModel")
    inputs = tiny_inputs(model, batch=7)
    assert_same_outputs(model.predict(inputs, steps=2, verbose=0), model(inputs))


def test_predict_of_a_functional_model_keeps_the_output_class():
    model = tiny_model("TFBertForQuestionAnswering")
    inputs = tiny_inputs(model, batch=5)
    functional = keras.Model(tensors := symbols(model, inputs), model(tensors))
    functional.compile(run_eagerly=True)
    assert_same_outputs(functional.predict(inputs, batch_size=2, verbose=0), model(inputs))


def test_predict_of_hidden_states():
    model = tiny_model(CLASSIFIER, output_hidden_states=True, output_attentions=True)
    model.compile(run_eagerly=True)
    predicted = model.predict(tiny_inputs(model, batch=5), batch_size=2, verbose=0)
    assert [state.shape for state in predicted.hidden_states] == [(5, 7, 32)] * 2
    assert predicted.attentions[0].shape == (5, 4, 7, 7)


@SOME_STRUCTURES
def test_static_shapes_survive(name):
    """Layers that need a static shape, such as Flatten and Conv1D, can follow a model."""
    model = tiny_model(name)
    inputs = tiny_inputs(model)
    fixed = {key: keras.Input(value.shape[1:], dtype="int32") for key, value in inputs.items()}
    shapes = {key: tensor.shape for key, tensor in model(fixed).items()}
    assert shapes == {key: (None, *value.shape[1:]) for key, value in model(inputs).items()}


def test_embeddings_as_a_symbolic_input():
    model = tiny_model("TFBertModel")
    vectors = keras.Input([None, 32])
    functional = keras.Model(vectors, model(inputs_embeds=vectors).last_hidden_state)
    given = np.random.default_rng(0).normal(size=(2, 5, 32)).astype("float32")
    np.testing.assert_allclose(functional(given), model(inputs_embeds=given)[0], atol=3e-6)


# --------------------------------------------------------------------------------------------------------- training


@SOME_HEADS
def test_fit_without_a_loss(name):
    """The first loss reported is the model's own, it falls, and evaluate gives what the model gives."""
    model = tiny_model(name)
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=name not in (CLASSIFIER, "TFBertForMultipleChoice"))
    batch = tiny_inputs(model) | tiny_labels(model)
    before = float(total_loss(model(batch)))
    losses = model.fit(batch, epochs=4, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(before, rel=1e-5)
    assert losses[-1] < losses[0]
    assert model.evaluate(batch, verbose=0) == pytest.approx(float(total_loss(model(batch))), rel=1e-5)


def test_data_is_not_tuned_while_it_is_read(monkeypatch):
    """The end of what is read would wait for TensorFlow's thread that tunes, unless the user has asked for it."""
    tuned, iterate = [], tf.data.Dataset.__iter__
    monkeypatch.setattr(
        tf.data.Dataset, "__iter__", lambda data: tuned.append(data.options().autotune.enabled) or iterate(data)
    )
    model = tiny_model(CLASSIFIER)
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    batch = tiny_inputs(model) | tiny_labels(model)
    made, asked = tf.data.Dataset.from_tensor_slices(batch).batch(2), tf.data.Options()
    asked.autotune.enabled = True
    for data, expected in ((batch, False), (made, False), (made.with_options(asked), True)):
        for call in (partial(model.fit, validation_data=data), model.evaluate, model.predict):
            tuned.clear()
            call(data, verbose=0)
            assert set(tuned) == {expected}
    made = model.prepare_tf_dataset([{"input_ids": [5, 6, 7], "labels": 0}] * 3, batch_size=2)
    assert made.options().autotune.enabled is False


@SOME_HEADS
def test_every_way_to_give_labels(name):
    model, inputs, labels = compiled(name)
    expected = pytest.approx(float(total_loss(model(**inputs, **labels))), rel=1e-5)
    in_order = tuple(labels.values()) if len(labels) > 1 else next(iter(labels.values()))
    batches = tf.data.Dataset.from_tensor_slices
    for x, y in ((inputs | labels, None), (inputs, labels), (inputs, in_order)):
        assert reported(model, x, y)["loss"] == expected
    assert model.evaluate(batches(inputs | labels).batch(4), verbose=0) == expected
    assert model.evaluate(batches((inputs, in_order)).batch(4), verbose=0) == expected


def test_training_on_a_dataset_of_batches():
    model = tiny_model(CLASSIFIER)
    model.compile(keras.optimizers.SGD(0.05), steps_per_execution=2)
    batch = tiny_inputs(model, batch=8) | tiny_labels(model, batch=8)
    data = tf.data.Dataset.from_tensor_slices(batch).batch(2)
    history = model.fit(data, epochs=3, validation_data=data, shuffle=False, verbose=0).history
    assert history["val_loss"][-1] < history["val_loss"][0]


@HEAD_STRUCTURES
def test_labels_that_are_missing(name):
    model, inputs, _ = compiled(name)
    with pytest.raises(ValueError, match=f"no labels.*{model.label_names[0]}.*loss="):
        model.train_on_batch(inputs)


def test_a_body_needs_a_loss():
    model = tiny_model("TFBertModel")
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="pass loss="):
        model.train_on_batch(tiny_inputs(model), np.zeros(4))


# The logits of Electra's head have no axis of classes.
@_parametrized(
    [name for name in HEADS if name != "TFElectraForPreTraining"], (*ONE, "TFDistilBertForTokenClassification")
)
def test_a_loss_and_metrics_of_ones_own(name):
    """They see the logits and the labels, by the names of the outputs where there are several."""
    model = tiny_model(name)
    inputs, labels = tiny_inputs(model), {key: value % 5 for key, value in tiny_labels(model).items()}
    logits = {key: value for key, value in model(inputs).items() if key.endswith("logits")}
    targets = dict(zip(logits, labels.values(), strict=True))
    for key, value in targets.items():
        value %= logits[key].shape[-1]
    expected = {key: float(class_loss()(targets[key], logits[key])) for key in logits}
    accuracy = {key: np.mean(np.argmax(logits[key], -1) == targets[key]) for key in logits}
    if len(logits) == 1:
        model.compile("sgd", class_loss(), metrics=["accuracy"], run_eagerly=True)
        accuracy = {"accuracy": next(iter(accuracy.values()))}
    else:
        losses, metrics = {key: class_loss() for key in logits}, {key: ["accuracy"] for key in logits}
        model.compile("sgd", losses, metrics=metrics, run_eagerly=True)
        accuracy = {f"{key}_accuracy": value for key, value in accuracy.items()}
    for x, y in ((inputs | labels, None), (inputs, labels), (inputs, targets), (inputs, tuple(labels.values()))):
        results = reported(model, x, y)
        assert results["loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
        assert {key: results[key] for key in accuracy} == pytest.approx(accuracy)
    model.train_on_batch(inputs, labels)
    assert reported(model, inputs, labels)["loss"] != results["loss"]


def test_a_loss_of_ones_own_for_a_head_without_label_names(monkeypatch):
    """As CTC's, whose labels go to the loss as they are."""
    model = tiny_model("TFBertForTokenClassification")
    inputs, labels = tiny_inputs(model), tiny_labels(model)["labels"]
    monkeypatch.setattr(type(model), "label_names", ())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    model.compile("sgd", loss, run_eagerly=True)
    expected = float(loss(labels, model(inputs).logits))
    assert float(model.train_on_batch(inputs, labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("run_eagerly", exhaustive([True, False], [False]))
def test_labels_that_are_no_classes(run_eagerly):
    """Refused in the graph of ``fit`` too, with the value, and without TensorFlow's trace of the graph."""
    model = tiny_model(CLASSIFIER)
    inputs, classes = tiny_inputs(model, batch=2), model.config.num_labels
    model.compile("sgd", run_eagerly=run_eagerly)
    one_hot = np.eye(classes, dtype=int)[:2]
    for labels, message in (
        (
            np.array([0, classes + 2]),
            f"^labels holds {classes + 2},? which is outside 0 … {classes - 1} .*leaves a label out.$",
        ),
        (one_hot, f"^labels holds {2 * classes} numbers; .* not a one-hot vector, for each of 2 rows of logits.$"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(inputs, labels, verbose=0)
    with pytest.raises(ValueError, match=f"^labels holds {classes}"):
        model.test_on_batch(inputs, np.array([0, classes]))
    with pytest.raises(ValueError, match=f"labels holds {2 * classes} numbers.*not a one-hot vector.* 2 rows"):
        model(inputs, labels=one_hot)


def test_texts_that_are_too_long_in_a_graph():
    model = tiny_model(CLASSIFIER)
    call = compiled_function(lambda ids: model(ids).logits, tf.TensorSpec([None, None], tf.int32))
    with pytest.raises(ValueError, match="^The sequence is longer than the .*or split it into windows.$"):
        with own_words_of_graphs():
            call(tf.ones([2, model.max_length + 1], tf.int32))


def test_labels_that_are_strings():
    model, inputs, _ = compiled(CLASSIFIER)
    model.compile("sgd")
    for x, y in (
        (inputs, ["good", "bad", "bad", "good"]),
        (inputs, np.array(["good", "bad", "bad", "good"])),
        (inputs | {"labels": ["good", "bad", "bad", "good"]}, None),
    ):
        with pytest.raises(ValueError, match=r"labels are strings, such as 'good', .*model\.config\.label2id\[label\]"):
            model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="labels are strings, .*label2id"):
        model.fit(tf.data.Dataset.from_tensors((inputs, tf.constant(["good"] * 4))), verbose=0)
    with pytest.raises(ValueError, match="labels are strings, such as 'good'"):
        model(inputs, labels=["good"] * 4)


@pytest.mark.parametrize("kind", exhaustive([None, "tf"], [None]))
def test_what_a_tokenizer_returns_is_taken_as_it_is(kind):
    """Without ``dict()``, and without ``return_tensors=``; labels may be a list."""
    model, inputs, labels = compiled(CLASSIFIER)
    values = {name: np.asarray(value) for name, value in inputs.items()}
    makes = {None: np.ndarray.tolist, "tf": tf.constant}[kind]
    encoded = transformers.BatchEncoding({name: makes(value) for name, value in values.items()})
    numbers = np.asarray(labels["labels"])
    expected = reported(model, values | {"labels": numbers})
    assert reported(model, encoded, numbers.tolist()) == pytest.approx(expected)
    losses = model.fit(encoded, numbers.tolist(), validation_data=(encoded, numbers.tolist()), verbose=0).history
    assert np.isfinite(losses["val_loss"]).all() and np.isfinite(model.train_on_batch(encoded, numbers.tolist()))
    logits = model(values).logits
    for predict in (model.predict_on_batch, model.predict):
        np.testing.assert_allclose(predict(encoded).logits, logits, atol=1e-6)
    with pytest.raises(ValueError, match="padding=True"):
        model.predict(transformers.BatchEncoding({"input_ids": [[1, 2], [3]]}))


def test_names_of_version_4_for_the_own_loss():
    model, inputs, labels = compiled(CLASSIFIER)
    expected = model(inputs, **labels).loss
    np.testing.assert_allclose(model.hf_compute_loss(labels["labels"], model(inputs).logits), expected, rtol=1e-6)
    for loss in ("passthrough", model.hf_compute_loss, model.compute_loss):
        model.compile("sgd", loss, run_eagerly=True)
        assert reported(model, inputs | labels)["loss"] == pytest.approx(float(expected))
    with pytest.raises(TypeError, match="hf_compute_loss"):
        model.compute_loss(labels["labels"], model(inputs).logits)
    answers = tiny_model("TFBertForQuestionAnswering")
    with pytest.raises(ValueError, match="start_positions=…, end_positions=…"):
        answers.hf_compute_loss(labels, None)


def test_labels_that_are_floats(recwarn):
    """They are taken for several labels, as by PyTorch, which one-hot vectors do not mean."""
    model, inputs, labels = compiled(CLASSIFIER)
    one_hot = np.eye(model.config.num_labels, dtype="float32")[np.asarray(labels["labels"])]
    with pytest.warns(UserWarning, match="argmax.*multi_label_classification"):
        model.fit(inputs, one_hot, verbose=0)
    recwarn.clear()
    model.config.problem_type = "multi_label_classification"
    model.compile("sgd", run_eagerly=True)
    model.fit(inputs, one_hot, verbose=0)
    assert not [one for one in recwarn if "argmax" in str(one.message)]


def test_metrics_without_a_loss():
    model, inputs, labels = compiled(CLASSIFIER, metrics=["accuracy"])
    expected = np.mean(np.argmax(model(inputs).logits, -1) == labels["labels"])
    assert reported(model, inputs | labels)["accuracy"] == pytest.approx(expected)


def test_sample_weights():
    """They weigh a loss of one's own; test_weighting.py has those of the head's."""
    model, inputs, labels = compiled(CLASSIFIER, loss=class_loss())
    first_only = np.array([1.0, 0.0, 0.0, 0.0])
    expected = float(class_loss()(labels["labels"][:1], model(inputs).logits[:1])) / 4
    loss = reported(model, inputs, labels["labels"], sample_weight=first_only)["loss"]
    assert loss == pytest.approx(expected, rel=1e-5)


def test_regularizers_count():
    model, inputs, labels = compiled(CLASSIFIER)
    before = float(model(inputs | labels).loss)
    model.classifier.kernel.regularizer = keras.regularizers.L2(0.5)
    expected = before + 0.5 * float(tf.reduce_sum(tf.square(model.classifier.kernel.value)))
    assert reported(model, inputs | labels)["loss"] == pytest.approx(expected, rel=1e-5)


@HEAD_STRUCTURES
def test_freezing(name):
    model, inputs, labels = compiled(name, keras.optimizers.Adam(0.01))
    embeddings = getattr(model.base_model, "embeddings", model.get_input_embeddings())
    embeddings.trainable = False
    frozen = {weight.path for weight in embeddings.weights}
    assert {weight.path for weight in model.trainable_weights} == set(values(model)) - frozen
    before = values(model)
    model.train_on_batch(inputs | labels)
    unchanged = {path for path, value in values(model).items() if np.array_equal(value, before[path])}
    # Scores of choices are compared with each other, so what is added to all of them has no gradient.
    assert unchanged - ({"classifier/bias"} if model.input_rank == 3 else set()) == frozen

    model.base_model.trainable = False
    model.compile("sgd", run_eagerly=True)
    assert {weight.path for weight in model.trainable_weights} == {
        path for path in before if not path.startswith(f"{model.base_model_prefix}/")
    }


@pytest.mark.parametrize("name", exhaustive([name for name in HEADS if name in DISTINCT], ONE))
def test_every_trainable_variable_has_a_gradient(name):
    model = tiny_model(name)
    with tf.GradientTape() as tape:
        loss = total_loss(model(tiny_inputs(model) | tiny_labels(model), training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    none = [v.path for v, gradient in zip(model.trainable_variables, gradients, strict=True) if gradient is None]
    assert none == []


@LONG_STRUCTURES
def test_dropout(name):
    model = tiny_model(name, dropout=True)
    inputs = tiny_inputs(model)
    assert np.abs(model(inputs, training=True)[0] - model(inputs)[0]).max() > 1e-3
    assert_same_outputs(model(inputs), model(inputs, training=False), atol=0)
    without = tiny_model(name)
    assert_same_outputs(without(inputs, training=True), without(inputs), atol=0)


def test_callbacks(tmp_path):
    model = tiny_model(CLASSIFIER)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    batch = tiny_inputs(model) | tiny_labels(model)
    unlearnable = batch | {"labels": (batch["labels"] + 1) % 5}
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    stop = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    history = model.fit(batch, epochs=9, validation_data=(unlearnable,), callbacks=[best, stop], verbose=0).history
    assert len(history["loss"]) < 9
    saved = keras.models.load_model(tmp_path / "best.keras")
    assert_same_outputs(saved(batch), model(batch), atol=0)
    assert saved.evaluate(unlearnable, verbose=0) == pytest.approx(min(history["val_loss"]), rel=1e-5)


@pytest.mark.slow
def test_fit_under_xla():
    model = tiny_model(CLASSIFIER)
    model.compile(keras.optimizers.SGD(0.05), jit_compile=True)
    assert model.jit_compile
    losses = model.fit(tiny_inputs(model) | tiny_labels(model), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


TWO_REPLICAS = """
import contextlib
import keras, numpy as np, tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model

results = []
for scope in (contextlib.nullcontext(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()):
    with scope:
        model = tiny_model("TFBertForSequenceClassification")
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=isinstance(scope, contextlib.nullcontext))
    batch = tiny_inputs(model) | tiny_labels(model)
    losses = model.fit(batch, batch_size=4, shuffle=False, verbose=0).history["loss"]
    results.append([np.array(losses), *model.get_weights()])
assert model.distribute_strategy.num_replicas_in_sync == 2
print(max(np.abs(one - other).max() for one, other in zip(*results)))
"""


@pytest.mark.slow
def test_two_replicas_train_as_one_device():
    """In a process of its own, because devices are fixed once TensorFlow runs."""
    assert float(output_of(TWO_REPLICAS)) < 1e-6


# ----------------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    thinned(
        [
            (CLASSIFIER, "mixed_bfloat16", 0.2),
            (CLASSIFIER, "bfloat16", 0.2),
            (CLASSIFIER, "float16", 0.02),
            (CLASSIFIER, "float64", 1e-4),
            ("TFDistilBertForMaskedLM", "mixed_bfloat16", 0.2),
            ("TFBertForPreTraining", "mixed_float16", 0.02),
            ("TFGPT2DoubleHeadsModel", "mixed_bfloat16", 0.2),
        ],
        7,
    ),
)
def test_dtypes(name, dtype, tolerance):
    model, inputs, labels = compiled(name, keras.optimizers.SGD(0.05), dtype=dtype)
    reference = tiny_model(name)
    for weight, value in zip(model.weights, reference.weights, strict=True):
        weight.assign(tf.cast(value, weight.dtype))
    stored, computed = ("float32", dtype[6:]) if dtype.startswith("mixed_") else (dtype, dtype)
    assert {weight.dtype for weight in model.weights} == {stored}
    outputs = model(inputs)
    assert {value.dtype.name for value in outputs.values()} == {computed}
    assert_same_values({k: tf.cast(v, "float32") for k, v in outputs.items()}, reference(inputs), atol=tolerance)
    before = reported(model, inputs | labels)["loss"]
    for _ in range(3):
        model.train_on_batch(inputs | labels)
    assert reported(model, inputs | labels)["loss"] < before


# ------------------------------------------------------------------------------------------------------------ files


@SOME_CLASSES
def test_keras_file(name, tmp_path):
    model = tiny_model(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.config.to_dict() == model.config.to_dict() and loaded.name == model.name
    assert_same_outputs(loaded(tiny_inputs(model)), model(tiny_inputs(model)), atol=0)
    assert type(loaded) is type(model)


FRESH_PROCESS = """
import {}
import sys, numpy as np
folder = sys.argv[1]
model = keras.models.load_model(f"{{folder}}/model.keras")
assert type(model.optimizer).__name__ == "AdamWeightDecay", model.optimizer
np.testing.assert_array_equal(model.predict(np.ones([2, 7], "int32"), verbose=0), np.load(f"{{folder}}/expected.npy"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ["keras, tf_pipeline", "tf_pipeline, keras"])
def test_a_keras_file_loads_after_the_package_alone(order, tmp_path):
    """A functional model around a body, with the optimizer and metrics, whichever package is imported first."""
    body = tiny_model("TFDistilBertModel")
    ids = keras.Input([7], dtype="int32", name="input_ids")
    model = keras.Model(ids, keras.layers.Dense(2)(body({"input_ids": ids}).last_hidden_state[:, 0]))
    optimizer, _ = tf_pipeline.create_optimizer(1e-3, 10, 2, weight_decay_rate=0.1)
    model.compile(optimizer, "mse", metrics=[metrics.F1(2)])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "expected.npy", model.predict(np.ones([2, 7], "int32"), verbose=0))
    output_of(FRESH_PROCESS.format(order), str(tmp_path))


def test_keras_knows_every_class_by_name():
    names = {name for _, name in registry._classes()}
    assert {name for names in tf_pipeline.supported_models().values() for name in names} <= names
    for module in (metrics, optimization, layer):
        for value in vars(module).values():
            if getattr(value, "__module__", "") == module.__name__ and isinstance(value, type):
                saved = keras.saving.get_registered_name(value)
                assert ">" not in saved or saved.removeprefix("tf_pipeline>") in names, saved


@HEAD_STRUCTURES
def test_keras_file_keeps_the_optimizer(name, tmp_path):
    """Both models take the same next step."""
    model, inputs, labels = compiled(name, keras.optimizers.Adam(0.01))
    model.train_on_batch(inputs | labels)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.train_on_batch(inputs | labels)
    assert loaded.optimizer.iterations == 2
    assert_same_outputs(loaded(inputs), model(inputs), atol=0)


@pytest.mark.parametrize("dtype", exhaustive(["mixed_bfloat16", "float64"], ["mixed_bfloat16"]))
def test_keras_file_keeps_the_dtype(dtype, tmp_path):
    model = tiny_model(CLASSIFIER, dtype=dtype)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.dtype_policy == model.dtype_policy
    assert np.array_equal(loaded(tiny_inputs(model)).logits, model(tiny_inputs(model)).logits)


@pytest.mark.parametrize("name", exhaustive([CLASSIFIER, "TFDistilBertForMaskedLM"], ["TFDistilBertForMaskedLM"]))
def test_weights_file(name, tmp_path):
    model, other = tiny_model(name), tiny_model(name)
    model.save_weights(tmp_path / "model.weights.h5")
    for weight in other.weights:
        weight.assign(tf.zeros_like(weight))
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_outputs(other(tiny_inputs(model)), model(tiny_inputs(model)), atol=0)


def test_a_checkpoint_of_tensorflow_holds_every_weight(tmp_path):
    model, other = tiny_model(CLASSIFIER), tiny_model(CLASSIFIER)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "point")
    for weight in other.weights:
        weight.assign(tf.zeros_like(weight))
    tf.train.Checkpoint(model=other).restore(path).assert_existing_objects_matched()
    assert_same_outputs(other(tiny_inputs(model)), model(tiny_inputs(model)), atol=0)


@pytest.mark.parametrize(
    "name",
    exhaustive(
        ["TFBertModel", "TFBertForTokenClassification", "TFDistilBertForMultipleChoice"],
        ["TFBertForTokenClassification"],
    ),
)
def test_a_body_in_a_functional_model_in_a_file(name, tmp_path):
    """The body of a head too, which may lack the pooler that the body alone has."""
    body = tiny_model(name).base_model
    inputs = tiny_inputs(body) | {"extra": np.ones((4, 3), "float32")}
    tensors = {**symbols(body, tiny_inputs(body)), "extra": keras.Input([3], name="extra")}
    hidden = body({key: value for key, value in tensors.items() if key != "extra"}).last_hidden_state
    joined = keras.layers.concatenate([keras.layers.GlobalAveragePooling1D()(hidden), tensors["extra"]])
    model = keras.Model(tensors, keras.layers.Dense(2)(joined))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(loaded(inputs), model(inputs))
    assert type(loaded.get_layer(body.name)) is type(body)
    assert keras.models.clone_model(model)(inputs).shape == (4, 2)


@SOME_CLASSES
def test_clone(name):
    model = tiny_model(name)
    inputs = tiny_inputs(model)
    copy = keras.models.clone_model(model)  # from_config(get_config())
    copy.set_weights(model.get_weights())
    assert copy.config.to_dict() == model.config.to_dict()
    assert_same_outputs(copy(inputs), model(inputs), atol=0)


def test_int8_quantization_and_its_file(tmp_path):
    model = tiny_model(CLASSIFIER)
    inputs = tiny_inputs(model)
    exact = model(inputs).logits
    model.quantize("int8", filters="query|classifier")
    modes = {layer.path: layer.quantization_mode for layer in model._flatten_layers()}
    assert [path for path, mode in modes.items() if mode] == ["bert/encoder/layer/0/attention/self/query", "classifier"]
    assert 0 < np.abs(model(inputs).logits - exact).max() < 0.1
    model.save(tmp_path / "model.keras")
    assert_same_outputs(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs), atol=0)


def test_frozen_layers_stay_frozen_in_a_file(tmp_path):
    model, inputs, labels = compiled(CLASSIFIER, keras.optimizers.Adam(0.01))
    model.bert.trainable = False
    model.bert.encoder.layer[0].trainable = True
    model.fit(inputs | labels, verbose=0)
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras skips an optimizer of other variables, with a warning
        loaded = keras.models.load_model(tmp_path / "model.keras")
    trained = [weight.path for weight in model.trainable_weights]
    assert [weight.path for weight in loaded.trainable_weights] == trained and 2 < len(trained) < len(model.weights)
    assert loaded.train_on_batch(inputs | labels) == pytest.approx(model.train_on_batch(inputs | labels), rel=1e-5)
    assert_same_values(values(loaded), values(model))


def test_lora_and_its_file(tmp_path):
    model, inputs, labels = compiled(CLASSIFIER)
    model.bert.trainable = False
    query = model.bert.encoder.layer[0].attention.self_.query
    query.trainable = True
    query.enable_lora(2)
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    before = values(model)
    model.train_on_batch(inputs | labels)
    changed = {path for path, value in values(model).items() if not np.array_equal(value, before[path])}
    assert changed == {f"classifier/{w}" for w in ("kernel", "bias")} | {
        f"bert/encoder/layer/0/attention/self/query/{w}" for w in ("bias", "lora_kernel_b")
    }
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="optimizer"):  # Keras merges the update, so its optimizer state is dropped
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_outputs(loaded(inputs), model(inputs))


# -------------------------------------------------------------------------------------------- graphs, SavedModels


@LONG_STRUCTURES
def test_exported_model(name, tmp_path):
    model = tiny_model(name)
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    signature = served.signatures["serving_default"]
    for batch, length in ((4, 7), (1, 3)):
        given = tiny_inputs(model, batch, length)
        inputs = {key: tf.constant(given[key]) for key in model.default_signature()}
        assert_same_values(served.serve(inputs), model(inputs))
        assert_same_values(signature(**inputs), model(inputs))


@LONG_STRUCTURES
def test_inside_a_tf_function_of_unknown_shape(name):
    model = tiny_model(name)
    inputs = {key: tf.constant(x) for key, x in tiny_inputs(model).items()}
    signature = {key: tf.TensorSpec([None] * x.shape.rank, tf.int32) for key, x in inputs.items()}

    @tf.function(input_signature=[signature])
    def run(inputs):
        return model(**inputs, output_hidden_states=True, output_attentions=True)

    assert list(run(inputs)) == list(model(inputs)) + ["hidden_states", "attentions"]
    expected = model(inputs, output_hidden_states=True, output_attentions=True)
    for actual, wanted in zip(tf.nest.flatten(run(inputs)), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=3e-6)
    assert type(run(inputs)) is type(expected)


@pytest.mark.parametrize(
    "name", exhaustive(["TFBertForMultipleChoice", "TFDistilBertForMaskedLM"], ["TFDistilBertForMaskedLM"])
)
def test_under_xla(name):
    model = tiny_model(name)
    inputs = {key: tf.constant(x) for key, x in tiny_inputs(model).items()}
    assert_same_outputs(tf.function(model, jit_compile=True)(inputs), model(inputs))


def test_an_unknown_rank_says_how_to_state_it():
    model = tiny_model("TFBertModel")
    run = tf.function(model, input_signature=[tf.TensorSpec(None, tf.int32)])
    with pytest.raises(ValueError, match="tf.ensure_shape"):
        run(tf.ones([2, 3], tf.int32))


# -------------------------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize("name", exhaustive(DISTINCT, BODIES[::3]))
def test_variables_and_their_paths(name):
    """Paths are unique and read like the checkpoint's keys; torch has as many parameters, and a bias that is none."""
    model = tiny_model(name)
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) == len(paths)
    for key, slot in named_slots(model):
        layer = key.removesuffix(f".{slot.parameter.name}").replace(".", "/")
        assert slot.variable.path == f"{layer}/{slot.variable.name}"
    with torch_meta():
        reference = getattr(transformers, name.removeprefix("TF"))(model.config)
    held = [*reference.parameters(), *(x for key, x in reference.named_buffers() if key == "final_logits_bias")]
    assert model.count_params() == sum(x.numel() for x in held)


def torch_meta():
    return pytest.importorskip("torch").device("meta")


def test_paths_do_not_depend_on_how_the_model_was_made(tmp_path):
    model = tiny_model(CLASSIFIER)
    model.save_pretrained(tmp_path)
    loaded = tf_pipeline.TFBertForSequenceClassification.from_pretrained(tmp_path)
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]
    assert "bert/encoder/layer/0/attention/self/query/kernel" in [weight.path for weight in loaded.weights]


@pytest.mark.parametrize("name", thinned([MODELS[family][-1] for family in OWN_FAMILIES], 4))
def test_summary(name, capsys):
    model = tiny_model(name)
    model.summary(expand_nested=True)
    printed = capsys.readouterr().out
    assert f"Total params: {model.count_params():,}" in printed
    if model.base_model is model:  # its layers lie beside the head
        assert model.get_layer("encoder") is model.encoder and "encoder" in printed
    else:
        assert model.get_layer(model.base_model_prefix) is model.base_model and model.base_model_prefix in printed


class WithExtraLayer(tf_pipeline.TFBertForSequenceClassification):
    def __init__(self, config, **options):
        super().__init__(config, **options)
        self.extra = keras.layers.Dense(2)

    def forward(self, **inputs):
        outputs = super().forward(**inputs)
        outputs["logits"] = self.extra(outputs.logits)
        return outputs


def test_a_subclass_with_a_keras_layer_of_its_own():
    model = WithExtraLayer(tiny_model(CLASSIFIER).config)
    assert model(tiny_inputs(model)).logits.shape == (4, 2)


@pytest.mark.parametrize("name", exhaustive(BODIES, ["TFBertModel"]))
def test_gradients_are_tensors(name):
    """Keras' optimizers square and clip slices of a table before they add up those of one row."""
    model = tiny_model(name)
    inputs = {key: value[:, :1].repeat(5, axis=1) for key, value in tiny_inputs(model).items()}
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(value) for value in tf.nest.flatten(model(inputs)[0])])
    gradients = tape.gradient(total, [variable.value for variable in model.trainable_variables])
    assert all(isinstance(value, tf.Tensor | None) for value in gradients)
    assert sum(value is not None for value in gradients) > 5


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()])
def test_a_loss_of_probabilities_is_warned_of(loss):
    model = tiny_model(CLASSIFIER)
    with pytest.warns(UserWarning, match="TFBertForSequenceClassification gives logits: pass from_logits=True"):
        model.compile("sgd", loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.compile("sgd")


def test_an_interrupted_training_counts_as_a_change_of_weights():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, inputs, labels = compiled(CLASSIFIER, keras.optimizers.SGD(0.1))
    before = model.weight_changes
    with pytest.raises(KeyboardInterrupt):
        model.fit(inputs | labels, verbose=0, callbacks=[Interrupt()])
    assert model.weight_changes > before
