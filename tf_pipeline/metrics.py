"""Metrics of tasks: as Keras metrics where logits and labels suffice, as functions of arrays or texts where not.

Classes that are :class:`keras.metrics.Metric` go into ``compile(metrics=[…])``. :class:`SpanF1` goes into
``KerasMetricCallback``. The functions of texts, :func:`squad` and :func:`rouge`, judge what a pipeline answers.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.arguments import whole_number
from tf_pipeline.losses import IGNORE_INDEX


@keras.saving.register_keras_serializable(package="tf_pipeline")
class Accuracy(keras.metrics.Metric):
    """Share of the labels that have the largest logit; labels of -100 do not count, unlike in Keras' own.

    Logits are ``[..., classes]``, labels ``[...]``.

    Args:
        shift: whether a logit predicts the next position's label, as those of causal language models.
        name: of the metric.
        dtype: of Keras.
    """

    def __init__(self, shift: bool = False, name: str = "accuracy", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.shift = shift
        self.right = self.add_variable((), "zeros", name="right")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch."""
        labels, logits, weights = _counted(y_true, y_pred, self.shift, sample_weight, self.dtype)
        self.right.assign_add(
            tf.reduce_sum(weights * tf.cast(tf.argmax(logits, -1, labels.dtype) == labels, self.dtype))
        )
        self.total.assign_add(tf.reduce_sum(weights))

    def result(self) -> Any:
        """The share of what was counted; 0 if nothing was."""
        return tf.math.divide_no_nan(self.right.value, self.total.value)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"shift": self.shift}


@keras.saving.register_keras_serializable(package="tf_pipeline")
class Perplexity(keras.metrics.Metric):
    """``exp`` of the mean cross entropy of the labels that are not -100, over all batches together.

    Args:
        shift: whether a logit predicts the next position's label, as those of causal language models.
        name: of the metric.
        dtype: of Keras.
    """

    def __init__(self, shift: bool = False, name: str = "perplexity", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.shift = shift
        self.loss = self.add_variable((), "zeros", name="loss")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the losses of a batch."""
        labels, logits, weights = _counted(y_true, y_pred, self.shift, sample_weight, self.dtype)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), tf.cast(logits, self.dtype))
        self.loss.assign_add(tf.reduce_sum(weights * losses))
        self.total.assign_add(tf.reduce_sum(weights))

    def result(self) -> Any:
        """The perplexity of what was counted; 1 if nothing was."""
        return tf.exp(tf.math.divide_no_nan(self.loss.value, self.total.value))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"shift": self.shift}


@keras.saving.register_keras_serializable(package="tf_pipeline")
class F1(keras.metrics.Metric):
    """The harmonic mean of precision and recall of classes, as ``sklearn.metrics.f1_score``.

    Labels are ``[...]``, of which -100 do not count, or, of several labels, the numbers 0.0 and 1.0 ``[batch,
    num_classes]``: a label is predicted then where the logit is above 0.

    Args:
        num_classes: number of classes, at least 2.
        average: ``"macro"``, the mean over classes; ``"micro"``, of all decisions together; ``"binary"``, of class 1.
        name: of the metric.
        dtype: of Keras.

    Raises:
        ValueError: for another average, fewer classes, or ``"binary"`` of more than two.
    """

    def __init__(self, num_classes: int, average: str = "macro", name: str = "f1", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        if average not in ("macro", "micro", "binary"):
            raise ValueError(f"average {average!r:.80} is not supported; use 'macro', 'micro' or 'binary'.")
        self.num_classes, self.average = whole_number("num_classes", num_classes, 2), average
        if average == "binary" and num_classes != 2:
            raise ValueError(f"average='binary' is for 2 classes, and there are {num_classes}.")
        # Rows: those found, those predicted, those that there are.
        self.counts = self.add_variable((3, num_classes), "zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch."""
        logits = tf.convert_to_tensor(y_pred)
        if tf.convert_to_tensor(y_true).dtype.is_floating and len(y_true.shape) == len(logits.shape):
            truth, found = tf.cast(y_true, self.dtype), tf.cast(logits > 0, self.dtype)
            weights = tf.ones_like(truth[..., :1]) if sample_weight is None else sample_weight
            weights = tf.reshape(tf.cast(weights, self.dtype), [-1, 1])
        else:
            labels, logits, weights = _counted(y_true, y_pred, False, sample_weight, self.dtype)
            truth = tf.one_hot(tf.reshape(labels, [-1]), self.num_classes, dtype=self.dtype)
            found = tf.one_hot(tf.reshape(tf.argmax(logits, -1), [-1]), self.num_classes, dtype=self.dtype)
            weights = tf.reshape(weights, [-1, 1])
        parts = [tf.reduce_sum(weights * part, 0) for part in (truth * found, found, truth)]
        self.counts.assign_add(tf.stack(parts))

    def result(self) -> Any:
        """The score of what was counted; a class that neither is there nor was predicted does not count."""
        counts = tf.convert_to_tensor(self.counts)
        if self.average == "micro":
            counts = tf.reduce_sum(counts, 1, keepdims=True)
        scores = tf.math.divide_no_nan(2 * counts[0], counts[1] + counts[2])
        if self.average == "binary":
            return scores[1]
        present = tf.cast(counts[1] + counts[2] > 0, self.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(scores), tf.reduce_sum(present))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"num_classes": self.num_classes, "average": self.average}


def _counted(y_true: Any, y_pred: Any, shift: bool, sample_weight: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """Labels as integers, logits, and the weights of the labels, 0 where they are -100."""
    labels, logits = tf.cast(y_true, tf.int32), tf.convert_to_tensor(y_pred)
    if len(labels.shape) == len(logits.shape):  # [..., 1], which Keras makes of labels [batch]
        labels = tf.squeeze(labels, -1)
    weights = tf.cast(labels != IGNORE_INDEX, dtype)
    if sample_weight is not None:
        given = tf.cast(sample_weight, dtype)
        extra = len(weights.shape) - len(given.shape)
        given = tf.reshape(given, tf.concat([tf.shape(given), tf.ones([extra], tf.int32)], 0)) if extra > 0 else given
        weights *= tf.reshape(given, tf.shape(weights)) if extra < 0 else given
    return (labels[:, 1:], logits[:, :-1], weights[:, 1:]) if shift else (labels, logits, weights)


# ------------------------------------------------------------------------------------------------------------ spans


_SPAN_TAG = re.compile("O|[BIES](-.*)?", re.DOTALL)


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities of a row of tags as ``seqeval`` finds them: kind, first and last place.

    Tags are a letter of ``B``, ``I``, ``E``, ``S`` or ``O``, and a kind behind a hyphen. An ``I`` that follows another
    kind or nothing starts an entity too.

    Raises:
        ValueError: for another tag.
    """
    found, start, before = [], 0, ("O", "_")
    for place, tag in enumerate([*tags, "O"]):
        if not is_span_tag(tag):
            raise ValueError(f"The tag {tag!r:.80} is none of entities, which are O, B-X, I-X, E-X and S-X.")
        letter, kind = tag[0], tag[1:].split("-", 1)[-1] or "_"
        ends = (
            before[0] in "ES"
            or (before[0] in "BI" and letter in "BSO")
            or (before[0] not in "O." and before[1] != kind)
        )
        starts = letter in "BS" or (before[0] in "ESO" and letter in "EI") or (letter not in "O." and before[1] != kind)
        if ends:
            found.append((before[1], start, place - 1))
        start = place if starts else start
        before = (letter, kind)
    return found


def is_span_tag(tag: str) -> bool:
    """Whether a tag is ``O``, or one of ``B``, ``I``, ``E`` and ``S``, alone or with a kind behind a hyphen."""
    return _SPAN_TAG.fullmatch(tag) is not None


def span_scores(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, and the accuracy of tags, as ``seqeval`` counts them.

    Args:
        predicted: tags of each text.
        truth: the right ones.

    Returns:
        ``precision``, ``recall``, ``f1`` and ``accuracy``; 0 where there is nothing to count.
    """
    found = {(row, *span) for row, tags in enumerate(predicted) for span in spans(tags)}
    there = {(row, *span) for row, tags in enumerate(truth) for span in spans(tags)}
    right = len(found & there)
    pairs = [one == other for row, others in zip(predicted, truth, strict=True)
             for one, other in zip(row, others, strict=True)]  # fmt: skip
    return {
        "precision": right / len(found) if found else 0.0,
        "recall": right / len(there) if there else 0.0,
        "f1": 2 * right / (len(found) + len(there)) if right else 0.0,
        "accuracy": float(np.mean(pairs)) if pairs else 0.0,
    }


class SpanF1:
    """:func:`span_scores` of logits ``[batch, seq, labels]`` and labels ``[batch, seq]``, for ``KerasMetricCallback``.

    Args:
        id2label: names of the labels, as in the config.
    """

    def __init__(self, id2label: Mapping[int, str]):
        self.id2label = dict(id2label)

    def __call__(self, pair: tuple[Any, Any]) -> dict[str, float]:
        """The scores; labels of -100 and their logits are left out."""
        logits, labels = (np.asarray(one) for one in pair)
        best = logits.argmax(-1)
        named = [
            [
                [self.id2label[int(one)] for one in row[known]]
                for row, known in zip(rows, labels != IGNORE_INDEX, strict=True)
            ]
            for rows in (best, labels)
        ]
        return span_scores(*named)


# ------------------------------------------------------------------------------------------------------------ texts

_ARTICLES, _PUNCTUATION = re.compile(r"\b(a|an|the)\b"), str.maketrans("", "", string.punctuation)


def squad(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact match and F1 of words, from 0 to 1, as SQuAD's own script counts them, each over the best of the answers.

    Case, punctuation, articles and spaces do not count. A question without answers is right where ``""`` is predicted.

    Source: https://arxiv.org/abs/1606.05250, section 6.1.
    """
    scores = [
        max((_match(text, answer) for answer in (known or [""])), key=lambda score: (score[1], score[0]))
        for text, known in zip(predicted, answers, strict=True)
    ]
    exact, f1 = np.mean(scores, axis=0) if scores else (0.0, 0.0)
    return {"exact_match": float(exact), "f1": float(f1)}


def _match(text: str, answer: str) -> tuple[float, float]:
    ours, theirs = (_ARTICLES.sub(" ", one.lower().translate(_PUNCTUATION)).split() for one in (text, answer))
    common = sum((Counter(ours) & Counter(theirs)).values())
    same = float(ours == theirs)
    return same, 2 * common / (len(ours) + len(theirs)) if ours and theirs else same


def rouge(predicted: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """F1 of common words, pairs of words and longest sequences (ROUGE-1, -2, -L, -Lsum), from 0 to 1, with stemming.

    Raises:
        ImportError: where ``rouge-score`` is not installed.
    """
    try:
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise ImportError('ROUGE needs the package rouge-score: pip install "tf-pipeline[train]".') from error
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(known, text) for text, known in zip(predicted, references, strict=True)]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) if scores else 0.0 for name in names}
