"""Metrics of tasks against seqeval, scikit-learn, rouge-score's numbers and plain counting."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from parity_tests.keras_helpers import tiny_inputs, tiny_model
from tf_pipeline.callbacks import KerasMetricCallback
from tf_pipeline.metrics import F1, Accuracy, Perplexity, SpanF1, rouge, span_scores, spans, squad

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=[6, 9, 5]).astype("float32")
LABELS = np.where(RANDOM.random([6, 9]) < 0.3, -100, RANDOM.integers(0, 5, [6, 9]))


def over_batches(metric, *arrays):
    """The metric of a set, given in two batches of different sizes."""
    for part in (slice(0, 4), slice(4, None)):
        metric.update_state(*(array[part] for array in arrays))
    return float(metric.result())


def test_accuracy_leaves_labels_out():
    expected = (LOGITS.argmax(-1) == LABELS)[LABELS != -100].mean()
    assert over_batches(Accuracy(), LABELS, LOGITS) == pytest.approx(expected)
    moved = (LOGITS[:, :-1].argmax(-1) == LABELS[:, 1:])[LABELS[:, 1:] != -100].mean()
    assert over_batches(Accuracy(shift=True), LABELS, LOGITS) == pytest.approx(moved)
    weights = np.array([0, 1, 2, 0, 0, 3.0])
    counted = np.broadcast_to(weights[:, None], LABELS.shape) * (LABELS != -100)
    expected = (counted * (LOGITS.argmax(-1) == LABELS)).sum() / counted.sum()
    assert over_batches(Accuracy(), LABELS, LOGITS, weights) == pytest.approx(expected)
    assert float(Accuracy().result()) == 0


def test_perplexity_is_of_all_batches_together():
    for shift in (False, True):
        logits, labels = (LOGITS[:, :-1], LABELS[:, 1:]) if shift else (LOGITS, LABELS)
        known = labels != -100
        chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = np.exp(
            -np.log(np.take_along_axis(chances, np.maximum(labels, 0)[..., None], -1)[..., 0][known]).mean()
        )
        assert over_batches(Perplexity(shift=shift), LABELS, LOGITS) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_f1_is_that_of_scikit_learn(average):
    sklearn = pytest.importorskip("sklearn.metrics")
    known = LABELS != -100
    expected = sklearn.f1_score(LABELS[known], LOGITS.argmax(-1)[known], average=average)
    assert over_batches(F1(5, average), LABELS, LOGITS) == pytest.approx(expected)
    texts = LOGITS[:, 0], np.maximum(LABELS[:, 0], 0)
    expected = sklearn.f1_score(texts[1], texts[0].argmax(-1), average=average)
    assert over_batches(F1(5, average), texts[1], texts[0]) == pytest.approx(expected)
    several = (RANDOM.random([6, 5]) < 0.5).astype("float32")
    expected = sklearn.f1_score(several, LOGITS[:, 1] > 0, average=average, zero_division=0)
    assert over_batches(F1(5, average), several, LOGITS[:, 1]) == pytest.approx(expected)


def test_f1_of_two_classes():
    sklearn = pytest.importorskip("sklearn.metrics")
    labels = np.array([0, 1, 1, 0, 1, 1])
    expected = sklearn.f1_score(labels, LOGITS[:, 2, :2].argmax(-1))
    assert 0 < over_batches(F1(2, "binary"), labels, LOGITS[:, 2, :2]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="for 2 classes, and there are 3"):
        F1(3, "binary")
    with pytest.raises(ValueError, match="average 'mean' is not supported"):
        F1(3, "mean")


def test_metrics_while_training(tmp_path):
    model = tiny_model("TFBertForTokenClassification")
    inputs, labels = tiny_inputs(model), RANDOM.integers(0, 5, [4, 7]).astype("int32")
    labels[:, 0] = -100
    model.compile("sgd", metrics=[Accuracy(), F1(5), Perplexity()], run_eagerly=True)
    values = model.evaluate(inputs, labels, return_dict=True, verbose=0)
    right = (np.asarray(model(inputs).logits).argmax(-1) == labels)[labels != -100]
    assert values["accuracy"] == pytest.approx(right.mean())
    assert values["perplexity"] == pytest.approx(np.exp(values["loss"]), rel=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(inputs, labels, return_dict=True, verbose=0) == pytest.approx(values, rel=1e-5)
    classifier = tiny_model("TFBertForSequenceClassification")
    classifier.compile("sgd", metrics=[Accuracy(), F1(5)], run_eagerly=True)
    answers = RANDOM.integers(0, 5, 4)
    expected = (np.asarray(classifier(inputs).logits).argmax(-1) == answers).mean()
    assert classifier.evaluate(inputs, answers, return_dict=True, verbose=0)["accuracy"] == pytest.approx(expected)


def test_spans_are_those_of_seqeval():
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    tags = ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("PER", "LOC", "A-B")), "B", "I"]
    rows = [[tags[i] for i in RANDOM.integers(0, len(tags), RANDOM.integers(0, 12))] for _ in range(2000)]
    for row in rows:
        assert spans(row) == labeling.get_entities(row), row
    simple = [["O", "B-X", "I-X", "B-Y"][i] for i in RANDOM.integers(0, 4, 12 * 500)]
    predicted = [simple[i : i + 12] for i in range(0, len(simple), 12)]
    truth = [[tag if RANDOM.random() < 0.8 else "O" for tag in row] for row in predicted]
    ours = span_scores(predicted, truth)
    assert ours["f1"] == pytest.approx(labeling.f1_score(truth, predicted))
    assert ours["precision"] == pytest.approx(labeling.precision_score(truth, predicted))
    assert ours["recall"] == pytest.approx(labeling.recall_score(truth, predicted))
    assert ours["accuracy"] == pytest.approx(labeling.accuracy_score(truth, predicted))


def test_spans_by_hand():
    assert spans(["B-X", "I-X", "O", "I-Y", "I-X"]) == [("X", 0, 1), ("Y", 3, 3), ("X", 4, 4)]
    scores = span_scores([["B-X", "I-X", "O"]], [["B-X", "O", "O"]])
    assert scores == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": pytest.approx(2 / 3)}
    for tag in ("LABEL_1", "NOUN", ""):
        with pytest.raises(ValueError, match=f"The tag '{tag}' is none of entities"):
            spans(["O", tag])
    assert span_scores([], [])["f1"] == span_scores([["O"]], [["O"]])["f1"] == 0.0


def test_spans_in_the_callback():
    names = {0: "O", 1: "B-X", 2: "I-X", 3: "B-Y", 4: "I-Y"}
    model = tiny_model("TFBertForTokenClassification")
    inputs, labels = tiny_inputs(model), RANDOM.integers(0, 5, [4, 7]).astype("int32")
    labels[:, -2:] = -100
    model.compile("sgd", run_eagerly=True)
    rows = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(3)
    history = model.fit(inputs, labels, callbacks=[KerasMetricCallback(SpanF1(names), rows)], verbose=0).history
    best = np.asarray(model(inputs).logits).argmax(-1)[:, :5]
    tags = [[[names[int(i)] for i in row] for row in array] for array in (best, labels[:, :5])]
    assert history["f1"] == [span_scores(*tags)["f1"]] and history["accuracy"] == [(best == labels[:, :5]).mean()]


def test_answers_as_squad_counts_them():
    scores = squad(
        ["The  Cat!", "a red house", "nothing", "", "x"], [["cat"], ["green", "red houses"], ["all"], [], []]
    )
    f1 = [1, 0.5, 0, 1, 0]  # "red house" and "red houses" share one of two words each
    assert scores == {"exact_match": pytest.approx(2 / 5), "f1": pytest.approx(sum(f1) / 5)}
    assert squad([], []) == {"exact_match": 0.0, "f1": 0.0}


def test_rouge():
    pytest.importorskip("rouge_score")
    scores = rouge(["the cat sat", "dogs run"], ["the cat sat", "a dog ran"])
    assert scores["rouge1"] == pytest.approx((1 + 2 * 1 / 5) / 2)  # dogs and dog have one stem
    assert scores["rouge2"] == pytest.approx(0.5) and set(scores) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}


def test_rouge_needs_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rouge_score", None)
    with pytest.raises(ImportError, match='pip install "tf-pipeline'):
        rouge(["a"], ["b"])
