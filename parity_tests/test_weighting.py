"""Weights of texts, tokens and classes, and label smoothing, with the model's own loss: the numbers of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline import losses

CLASSIFIER, TAGGER = "TFBertForSequenceClassification", "TFBertForTokenClassification"
MASKED, CAUSAL, SEQ2SEQ = "TFBertForMaskedLM", "TFGPT2LMHeadModel", "TFT5ForConditionalGeneration"
OF_TEXTS = np.array([2.0, 0.0, 0.5, 1.25], "float32")


def sparse_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)


class ShiftedLoss(keras.losses.Loss):
    """Keras' loss of the next token."""

    def call(self, y_true, y_pred):
        shifted = tf.concat([y_true[:, 1:], tf.fill([tf.shape(y_true)[0], 1], -100)], 1)
        return sparse_loss().call(shifted, y_pred)


def setting(name, seed=0):
    """Inputs and labels, some of which do not count."""
    model = tiny_model(name)
    inputs, labels = tiny_inputs(model), tiny_labels(model)["labels"]
    if labels.ndim > 1:
        labels = np.where(np.random.default_rng(seed).random(labels.shape) < 0.3, -100, labels)
    return inputs, labels


def after_a_step(name, x, y, loss=None, weighted_metrics=None, compile_options=(), **options):
    """Loss, metrics and parameters after one step of gradient descent."""
    model = tiny_model(name)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True, weighted_metrics=weighted_metrics,
                  **dict(compile_options))  # fmt: skip
    history = model.fit(x, y, epochs=1, batch_size=4, shuffle=False, verbose=0, **options).history
    return [np.array([*history.values()]), *model.get_weights()]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def weights_of(kind, labels):
    return OF_TEXTS if kind == "texts" else np.random.default_rng(1).uniform(0, 3, labels.shape).astype("float32")


@pytest.mark.parametrize(
    ("name", "kind"),
    thinned(
        [(CLASSIFIER, "texts"), (TAGGER, "texts"), (MASKED, "texts"), (TAGGER, "labels"), (MASKED, "labels"),
         (SEQ2SEQ, "labels"), (CAUSAL, "texts")],
        3,
    ),
)  # fmt: skip
def test_weights_are_those_of_a_keras_loss(name, kind):
    inputs, labels = setting(name)
    weights = weights_of(kind, labels)
    loss = ShiftedLoss() if name == CAUSAL else sparse_loss()
    if name == CAUSAL:  # whose masks Keras counts before the wrapped loss has made them
        counted = (labels[:, 1:] != -100).sum()
        model = tiny_model(name)
        each = sparse_loss().call(labels[:, 1:], model(inputs).logits[:, :-1]).numpy()
        expected = (each * np.where(labels[:, 1:] != -100, weights[:, None], 0)).sum() / counted
        assert after_a_step(name, inputs, labels, sample_weight=weights)[0] == pytest.approx(expected, rel=1e-5)
        return
    assert_equal(
        after_a_step(name, inputs, labels, sample_weight=weights),
        # Keras does not spread weights of texts over masked tokens by itself.
        after_a_step(name, inputs, labels, loss, sample_weight=weights.reshape(4, -1) if labels.ndim > 1 else weights),
    )


@pytest.mark.parametrize("way", exhaustive(["among the inputs", "column", "data set", "graph"], ["graph"]))
def test_every_way_to_give_weights(way):
    inputs, labels = setting(CLASSIFIER)
    expected = after_a_step(CLASSIFIER, inputs, labels, sample_weight=OF_TEXTS)
    plain = after_a_step(CLASSIFIER, inputs, labels)
    assert abs(expected[0] - plain[0]) > 1e-3
    if way == "among the inputs":
        actual = after_a_step(CLASSIFIER, inputs | {"labels": labels}, None, sample_weight=OF_TEXTS)
    elif way == "column":
        actual = after_a_step(CLASSIFIER, inputs, labels, sample_weight=OF_TEXTS[:, None])
    elif way == "data set":
        batches = tf.data.Dataset.from_tensors((inputs, labels, OF_TEXTS))
        model = tiny_model(CLASSIFIER)
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        actual = [np.array([model.fit(batches, verbose=0).history["loss"]]), *model.get_weights()]
    else:
        model = tiny_model(CLASSIFIER)
        model.compile(keras.optimizers.SGD(0.1))
        history = model.fit(inputs, labels, batch_size=4, sample_weight=OF_TEXTS, verbose=0).history
        actual = [np.array([history["loss"]]), *model.get_weights()]
    assert_equal(actual, expected)


@pytest.mark.slow
def test_evaluation_is_weighted_by_texts_alone():
    inputs, labels = setting(CLASSIFIER)
    model = tiny_model(CLASSIFIER)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    each = [float(model(dict({k: v[i : i + 1] for k, v in inputs.items()}, labels=labels[i : i + 1])).loss)
            for i in range(4)]  # fmt: skip
    weighted, plain = float(np.dot(each, OF_TEXTS)) / 4, np.mean(each)
    data = inputs | {"labels": labels}
    assert model.evaluate(data, sample_weight=OF_TEXTS, verbose=0) == pytest.approx(weighted, rel=1e-5)
    assert model.test_on_batch(data, sample_weight=OF_TEXTS) == pytest.approx(weighted, rel=1e-5)
    assert model.train_on_batch(data, sample_weight=OF_TEXTS) == pytest.approx(weighted, rel=1e-5)
    history = model.fit(
        inputs, labels, class_weight={0: 5.0, 1: 5.0, 2: 5.0, 3: 5.0, 4: 5.0}, verbose=0,
        validation_data=(data, None, OF_TEXTS),
    ).history  # fmt: skip
    assert history["loss"][0] == pytest.approx(5 * plain, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(weighted, rel=1e-5)


def test_weights_of_classes_are_those_of_a_keras_loss():
    inputs, labels = setting(CLASSIFIER)
    options = {"class_weight": {0: 0.5, int(labels[0]): 3.0}, "weighted_metrics": ["accuracy"]}
    ours = after_a_step(CLASSIFIER, inputs, labels, **options)
    assert_equal(ours, after_a_step(CLASSIFIER, inputs, labels, sparse_loss(), **options))
    assert_equal(after_a_step(CLASSIFIER, inputs | {"labels": labels}, None, **options), ours)


@pytest.mark.parametrize("name", exhaustive([TAGGER, MASKED], [TAGGER]))
def test_weights_of_the_classes_of_tokens(name):
    inputs, labels = setting(name)
    table = {int(labels.max()): 3.0, 0: 0.25}
    weights = np.vectorize(lambda label: table.get(label, 1.0))(labels).astype("float32")
    expected = after_a_step(name, inputs, labels, sample_weight=weights)
    assert_equal(after_a_step(name, inputs, labels, class_weight=table), expected)
    other = after_a_step(name, inputs, labels)
    assert abs(other[0] - expected[0]) > 1e-3


@pytest.mark.slow
def test_weights_of_classes_change_from_one_fit_to_the_next():
    inputs, labels = setting(CLASSIFIER)
    model = tiny_model(CLASSIFIER)
    model.compile(keras.optimizers.SGD(0.0))

    def loss(**options):
        return model.fit(inputs, labels, verbose=0, **options).history["loss"][0]

    plain, everyone = loss(), dict.fromkeys(range(5), 2.0)
    assert loss(class_weight=everyone) == pytest.approx(2 * plain, rel=1e-5)
    assert loss(class_weight=dict.fromkeys(range(5), 3)) == pytest.approx(3 * plain, rel=1e-5)
    assert loss() == pytest.approx(plain, rel=1e-5)
    on_batch = model.train_on_batch(inputs, labels, class_weight=everyone)
    assert on_batch == pytest.approx(2 * plain, rel=1e-5)


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
@pytest.mark.parametrize("of_labels", [False, True])
def test_weights_of_regression_and_of_several_labels(kind, of_labels):
    model = tiny_model(CLASSIFIER, num_labels=3, problem_type=kind)
    inputs = tiny_inputs(model)
    targets = np.random.default_rng(0).integers(0, 2, [4, 3]).astype("float32")
    weights = weights_of("labels", targets) if of_labels else OF_TEXTS
    logits = torch.tensor(np.asarray(model(inputs).logits))
    function = torch.nn.MSELoss if kind == "regression" else torch.nn.BCEWithLogitsLoss
    each = function(reduction="none")(logits, torch.tensor(targets)).numpy()
    model.compile("sgd", run_eagerly=True)
    loss = model.test_on_batch(inputs, targets, sample_weight=weights)
    assert loss == pytest.approx(np.mean(each * weights.reshape(4, -1)), rel=1e-5)


def test_both_ends_of_an_answer_have_the_weight_of_their_text():
    model = tiny_model("TFBertForQuestionAnswering")
    inputs, labels = tiny_inputs(model), tiny_labels(model)
    outputs = model(inputs)
    counted = [labels[f"{end}_positions"] < 7 for end in ("start", "end")]
    each = [
        torch.nn.functional.cross_entropy(
            torch.tensor(np.asarray(outputs[f"{end}_logits"])), torch.tensor(labels[f"{end}_positions"]).long(),
            reduction="none", ignore_index=7,
        ).numpy()
        for end in ("start", "end")
    ]  # fmt: skip
    model.compile("sgd", run_eagerly=True)
    loss = model.test_on_batch(inputs, labels, sample_weight=OF_TEXTS)
    expected = [(one * OF_TEXTS).sum() / known.sum() for one, known in zip(each, counted, strict=True)]
    assert loss == pytest.approx(float(np.mean(expected)), rel=1e-5)


def test_replaced_tokens_and_pairs():
    for name in ("TFElectraForPreTraining", "TFBertForPreTraining", "TFGPT2DoubleHeadsModel"):
        model = tiny_model(name)
        inputs, labels = tiny_inputs(model), tiny_labels(model)
        model.compile("sgd", run_eagerly=True)
        y = labels if len(labels) > 1 else labels["labels"]
        plain = model.test_on_batch(inputs, y)
        assert model.test_on_batch(inputs, y, sample_weight=np.full(4, 3.0)) == pytest.approx(3 * plain, rel=1e-5)


@pytest.mark.parametrize("name", exhaustive([CLASSIFIER, TAGGER, CAUSAL], [TAGGER, CAUSAL]))
def test_label_smoothing_is_pytorchs(name):
    inputs, labels = setting(name)
    model = tiny_model(name)
    logits, targets = np.asarray(model(inputs).logits), labels
    if name == CAUSAL:
        logits, targets = logits[:, :-1], targets[:, 1:]
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits.reshape(-1, logits.shape[-1])), torch.tensor(targets.reshape(-1)).long(),
        label_smoothing=0.2,
    )  # fmt: skip
    model.compile("sgd", label_smoothing=0.2, run_eagerly=True)
    assert model.train_on_batch(inputs, labels) == pytest.approx(float(expected), rel=1e-5)


def test_label_smoothing_of_several_labels_is_that_of_a_keras_loss(tmp_path):
    model = tiny_model(CLASSIFIER, num_labels=3, problem_type="multi_label_classification")
    inputs, targets = tiny_inputs(model), np.random.default_rng(0).integers(0, 2, [4, 3]).astype("float32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2)
    expected = float(loss(targets, model(inputs).logits))
    model.compile("sgd", label_smoothing=0.2, run_eagerly=True)
    assert model.test_on_batch(inputs, targets) == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.test_on_batch(inputs, targets) == pytest.approx(expected, rel=1e-5)


def test_compiling_again_without_a_loss_is_back_at_the_heads_own():
    model = tiny_model(CLASSIFIER)
    inputs, labels = setting(CLASSIFIER)
    model.compile("sgd", lambda y_true, y_pred: tf.constant(7.0))
    model.compile("sgd", run_eagerly=True)
    assert model.test_on_batch(inputs, labels) == pytest.approx(
        float(model(inputs | {"labels": labels}).loss), rel=1e-5
    )


def test_what_is_refused():
    model = tiny_model(CLASSIFIER, num_labels=3)
    inputs, labels = tiny_inputs(model), np.array([0, 1, 2, 1])
    for value in (1.0, -0.1, float("nan"), "0.1", True):
        with pytest.raises(ValueError, match="label_smoothing has to be a number from 0 to below 1; got"):
            model.compile("sgd", label_smoothing=value)
    with pytest.raises(ValueError, match="give it to the loss that you pass"):
        model.compile("sgd", sparse_loss(), label_smoothing=0.1)
    model.compile("sgd", run_eagerly=True)
    for weights, message in (
        ({3: 1.0}, "names the class 3; the model has 3, from 0"),
        ({-1: 1.0}, "class of class_weight is -1"),
        ({0: float("inf")}, "finite"),
        ([1.0, 2.0], "numbers by class"),
        ({}, "numbers by class"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(inputs, labels, class_weight=weights, verbose=0)
    with pytest.raises(ValueError, match="cannot be given together"):
        model.fit(inputs, labels, class_weight={0: 2.0}, sample_weight=OF_TEXTS, verbose=0)
    batches = tf.data.Dataset.from_tensors((inputs, labels, OF_TEXTS))
    with pytest.raises(ValueError, match="weights of its own"):
        model.fit(batches, class_weight={0: 2.0}, verbose=0)
    with pytest.raises(ValueError, match="batches have no labels"):
        model.train_on_batch(inputs, class_weight={0: 2.0})
    with pytest.raises(ValueError, match=r"sample_weight has the shape \(4, 2\), and the labels \(4,\)"):
        model.train_on_batch(inputs, labels, sample_weight=np.ones([4, 2]))
    with pytest.raises(ValueError, match="takes one sample_weight, and got 2"):
        model.compute_loss(inputs, labels, model(inputs), {"one": OF_TEXTS, "two": OF_TEXTS})
    with pytest.raises(ValueError, match="TFBertForQuestionAnswering has start_positions, end_positions"):
        answers = tiny_model("TFBertForQuestionAnswering")
        answers.compile("sgd")
        answers.fit(inputs, class_weight={0: 1.0}, verbose=0)
    regression = tiny_model(CLASSIFIER, num_labels=1)
    regression.compile("sgd", label_smoothing=0.1, run_eagerly=True)
    with pytest.raises(ValueError, match="problem_type is 'regression'"):
        regression.train_on_batch(inputs, np.ones(4, "float32"))
    with pytest.raises(ValueError, match="problem_type is 'regression'"):
        regression.train_on_batch(inputs, np.ones(4, "float32"), class_weight={0: 1.0})
    with pytest.raises(ValueError, match="which are integers; got float32"):
        losses.class_weights_for(tf.constant([0.5]), tf.constant([1.0]))
    deberta = tiny_model("TFDebertaV2ForSequenceClassification", num_labels=3)
    deberta.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="take no weights"):
        deberta.train_on_batch(tiny_inputs(deberta), np.full([4, 3], 1 / 3, "float32"), sample_weight=OF_TEXTS)
