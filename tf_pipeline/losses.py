"""The loss each head computes from labels, equal to PyTorch's: means over the labels that are not -100.

Every function takes a model's outputs, its labels by name and its config, and returns a scalar. The log-softmax is
taken in float32 for half-precision logits, as the causal and token losses of ``transformers`` do.

All of them take two options. ``weights``, float ``[batch]`` or of the shape of the labels, multiply the loss of each
label before the sum is divided by the number of labels, as Keras does it; PyTorch's ``weight=`` of classes divides by
the sum of the weights. ``label_smoothing`` is the share of a label that is spread over all classes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_pipeline.inputs import check_range

IGNORE_INDEX = -100
_ONE_EACH = "numbers; give the number of one class, not a one-hot vector, for each of"
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def cross_entropy(
    logits: tf.Tensor,
    labels: tf.Tensor,
    ignore_index: int | tf.Tensor = IGNORE_INDEX,
    name: str = "labels",
    weights: tf.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """Mean cross entropy over the labels that are not ``ignore_index``, as ``torch.nn.CrossEntropyLoss``.

    Args:
        logits: ``[..., classes]``.
        labels: integers ``[...]``.
        ignore_index: label that does not count.
        name: of the labels, for messages.
        weights: of the losses, ``[batch]`` or of the shape of the labels.
        label_smoothing: share of a label that is spread over all classes.

    Returns:
        A scalar; NaN if no label counts, as in PyTorch.

    Raises:
        ValueError: for a label that is no class, and for labels that are not one per row of logits; where only a graph
            knows the values, it raises ``InvalidArgumentError``, of which ``fit`` makes a ``ValueError``.
    """
    logits = _at_least_float32(tf.reshape(logits, [-1, tf.shape(logits)[-1]]))
    weights = None if weights is None else tf.reshape(_like(weights, labels, logits.dtype), [-1])
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    counted = tf.not_equal(labels, tf.cast(ignore_index, tf.int32))
    labels = tf.where(counted, labels, 0)
    labels = _classes(name, labels, logits)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if label_smoothing:
        spread = tf.reduce_logsumexp(logits, -1) - tf.reduce_mean(logits, -1)  # of a label that is all classes alike
        losses = (1 - label_smoothing) * losses + label_smoothing * spread
    return _mean(losses, weights, counted)


def _classes(name: str, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The same labels ``[n]``, required to be classes of logits ``[n, classes]``, in a graph whenever it runs."""
    words = f"(the classes of the logits); {IGNORE_INDEX} leaves a label out."
    if None not in (labels.shape[0], logits.shape[0]) and labels.shape[0] != logits.shape[0]:
        raise ValueError(f"{name} holds {labels.shape[0]} {_ONE_EACH} {logits.shape[0]} rows of logits.")
    if tf.executing_eagerly():
        check_range(name, labels, logits.shape[-1], words)
        return labels
    numbers, (rows, classes) = tf.size(labels), tf.unstack(tf.shape(logits))
    low, high = tf.reduce_min(labels), tf.reduce_max(labels)
    with tf.control_dependencies([
        tf.debugging.Assert(numbers == rows, [f"{name} holds", numbers, _ONE_EACH, rows, "rows of logits."]),
        tf.debugging.Assert(
            (low >= 0) & (high < classes),
            [f"{name} holds", tf.where(low < 0, low, high), "which is outside 0 …", classes - 1, words],
        ),
    ]):  # fmt: skip
        return tf.identity(labels)


def _mean(losses: tf.Tensor, weights: tf.Tensor | None = None, counted: tf.Tensor | None = None) -> tf.Tensor:
    """The sum of losses times weights over the number of those that count."""
    if weights is not None:
        losses = losses * weights
    if counted is None:
        return tf.reduce_mean(losses)
    losses = tf.where(counted, losses, tf.zeros_like(losses))
    return tf.reduce_sum(losses) / tf.cast(tf.math.count_nonzero(counted), losses.dtype)


def _like(weights: Any, labels: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Weights ``[batch]``, ``[batch, 1]`` or of the shape of the labels, in that shape.

    Raises:
        ValueError: for weights of another rank.
    """
    weights = tf.cast(weights, dtype)
    rank, wanted = weights.shape.rank, labels.shape.rank
    if rank is not None and rank > 1 and rank == wanted + 1 and weights.shape[-1] == 1:
        weights, rank = tf.squeeze(weights, -1), wanted
    if rank not in (1, wanted):
        raise ValueError(
            f"sample_weight has the shape {tuple(weights.shape)}, and the labels {tuple(labels.shape)}; it has to be "
            "[batch] or of the shape of the labels."
        )
    weights = tf.reshape(weights, tf.concat([tf.shape(weights), tf.ones([wanted - rank], tf.int32)], 0))
    return tf.broadcast_to(weights, tf.shape(labels))


def class_weights_for(labels: tf.Tensor, class_weight: tf.Tensor) -> tf.Tensor:
    """Weights of labels of any shape, from those of classes ``[n]``; labels from ``n`` on weigh 1.

    Raises:
        ValueError: for labels that are no classes.
    """
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise ValueError(f"class_weight needs labels that are classes, which are integers; got {labels.dtype.name}.")
    last = tf.cast(class_weight.shape[0] - 1, labels.dtype)
    named = tf.gather(class_weight, tf.clip_by_value(labels, tf.zeros_like(last), last))
    return tf.where((labels >= 0) & (labels <= last), named, tf.ones_like(named))


def check_smoothing(value: Any) -> float:
    """The share of labels to spread.

    Raises:
        ValueError: unless it is a number from 0 to below 1.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and 0 <= value < 1):
        raise ValueError(f"label_smoothing has to be a number from 0 to below 1; got {value!r:.80}.")
    return float(value)


def _at_least_float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def check_problem_type(config) -> None:
    """Require a kind of sequence classification that there is, or none.

    Raises:
        ValueError: for a ``problem_type`` that is not one of ``PROBLEM_TYPES``.
    """
    name = getattr(config, "problem_type", None)
    if name not in (None, *PROBLEM_TYPES):
        raise ValueError(f"problem_type {name!r:.80} is not supported; supported are {', '.join(PROBLEM_TYPES)}.")


def problem_type(config, labels: tf.Tensor) -> str:
    """The kind of sequence classification: the config's ``problem_type``, else guessed from labels as PyTorch does.

    Raises:
        ValueError: for a ``problem_type`` that is not one of ``PROBLEM_TYPES``.
    """
    check_problem_type(config)
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "single_label_classification" if labels.dtype.is_integer else "multi_label_classification"


def sequence_classification(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor:
    """Mean squared error, cross entropy or binary cross entropy of ``[batch, num_labels]``, by the problem type."""
    logits, target = _at_least_float32(outputs.logits), labels["labels"]
    kind = problem_type(config, target)
    if kind == "single_label_classification":
        return cross_entropy(logits, target, **options)
    smoothing = options.get("label_smoothing", 0.0)
    if smoothing and kind == "regression":
        raise ValueError("label_smoothing is for classes; the model's problem_type is 'regression'.")
    target = tf.reshape(tf.cast(target, logits.dtype), tf.shape(logits))
    weights = options.get("weights")
    weights = None if weights is None else _like(weights, target, logits.dtype)
    if kind == "regression":
        return _mean(tf.math.squared_difference(logits, target), weights)
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(_smooth(target, smoothing), logits), weights)


def _smooth(target: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Probabilities that are moved towards one half."""
    return target * (1 - smoothing) + smoothing / 2 if smoothing else target


def classification(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor:
    """Cross entropy of ``logits`` ``[..., classes]`` and ``labels`` ``[...]``: tokens, choices, masked tokens."""
    return cross_entropy(outputs.logits, labels["labels"], **options)


def attended_classification(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor:
    """Cross entropy of ``logits`` ``[..., classes]`` and ``labels`` ``[...]`` over tokens whose attention mask is 1."""
    target = labels["labels"]
    if (mask := labels.get("attention_mask")) is not None:
        target = tf.where(tf.equal(mask, tf.ones([], mask.dtype)), target, tf.cast(IGNORE_INDEX, target.dtype))
    return cross_entropy(outputs.logits, target, **options)


def causal_lm(outputs, labels: Mapping[str, tf.Tensor], config, weights: Any = None, **options: Any) -> tf.Tensor:
    """Cross entropy of each position's logits ``[..., seq, vocab]`` and the next position's label."""
    if weights is not None:
        options["weights"] = _like(weights, labels["labels"], _at_least_float32(outputs.logits).dtype)[..., 1:]
    return cross_entropy(outputs.logits[..., :-1, :], labels["labels"][..., 1:], **options)


def double_heads(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor:
    """Loss of the next token plus that of the choice, or the one of them whose labels are given.

    ``labels`` are those of :func:`causal_lm`, ``mc_labels`` ``[batch]`` are of ``mc_logits`` ``[batch, choices]``.
    Weights are ``[batch]``.
    """
    terms = []
    if "labels" in labels:
        terms.append(causal_lm(outputs, {"labels": labels["labels"]}, config, **options))
    if "mc_labels" in labels:
        terms.append(cross_entropy(outputs.mc_logits, labels["mc_labels"], name="mc_labels", **options))
    return tf.add_n(terms)


def pre_training(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor | None:
    """Masked-language loss plus that of a pair of texts; ``None`` unless both labels are given, as in PyTorch.

    The outputs have the words' logits and then the pair's; the pair's label is the one that is not ``labels``. Weights
    are ``[batch]``.
    """
    if len(labels) < 2:
        return None
    words, pair = (logits for name, logits in outputs.items() if name.endswith("_logits"))
    ((name, pair_label),) = ((name, label) for name, label in labels.items() if name != "labels")
    return cross_entropy(words, labels["labels"], **options) + cross_entropy(pair, pair_label, name=name, **options)


def replaced_tokens(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor:
    """Mean binary cross entropy of ``logits`` ``[batch, seq]`` over the tokens whose attention mask is 1.

    Raises:
        ValueError: for an attention mask that is not ``[batch, seq]``, which does not tell padding from tokens.
    """
    logits = _at_least_float32(outputs.logits)
    target = _smooth(tf.cast(labels["labels"], logits.dtype), options.get("label_smoothing", 0.0))
    each = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
    weights = options.get("weights")
    weights = None if weights is None else _like(weights, target, logits.dtype)
    if (mask := labels.get("attention_mask")) is None:
        return _mean(each, weights)
    if mask.shape.rank != 2:
        raise ValueError(f"The loss takes an attention_mask [batch, seq], but it has shape {tuple(mask.shape)}.")
    return _mean(each, weights, tf.equal(mask, tf.ones([], mask.dtype)))


def question_answering(outputs, labels: Mapping[str, tf.Tensor], config, **options: Any) -> tf.Tensor | None:
    """Mean of the cross entropies of start and end; positions past the sequence do not count."""
    if len(labels) < 2:
        return None
    length = tf.shape(outputs.start_logits)[1]
    losses = []
    for name in ("start", "end"):
        positions = tf.reshape(tf.cast(labels[f"{name}_positions"], tf.int32), [-1])
        positions = tf.clip_by_value(positions, 0, length)
        losses.append(cross_entropy(outputs[f"{name}_logits"], positions, length, **options))
    return (losses[0] + losses[1]) / tf.constant(2.0, losses[0].dtype)


Loss = Callable[..., tf.Tensor | None]
