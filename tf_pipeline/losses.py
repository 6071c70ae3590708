"""The loss each head computes from labels, equal to PyTorch's: means over the labels that are not -100.

Every function takes a model's outputs, its labels by name and its config, and returns a scalar. The log-softmax is
taken in float32 for half-precision logits, as the causal and token losses of ``transformers`` do.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

from tf_pipeline.inputs import check_range

IGNORE_INDEX = -100
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, ignore_index: int | tf.Tensor = IGNORE_INDEX, name: str = "labels"
) -> tf.Tensor:
    """Mean cross entropy over the labels that are not ``ignore_index``, as ``torch.nn.CrossEntropyLoss``.

    Args:
        logits: ``[..., classes]``.
        labels: integers ``[...]``.
        ignore_index: label that does not count.
        name: of the labels, for messages.

    Returns:
        A scalar; NaN if no label counts, as in PyTorch.

    Raises:
        ValueError: for a label that is no class, where its value is at hand.
    """
    logits = _at_least_float32(tf.reshape(logits, [-1, tf.shape(logits)[-1]]))
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    counted = tf.not_equal(labels, tf.cast(ignore_index, tf.int32))
    labels = tf.where(counted, labels, 0)
    check_range(name, labels, logits.shape[-1], f"(the classes of the logits); {IGNORE_INDEX} leaves a label out.")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    losses = tf.where(counted, losses, tf.zeros_like(losses))
    return tf.reduce_sum(losses) / tf.cast(tf.math.count_nonzero(counted), losses.dtype)


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


def sequence_classification(outputs, labels: Mapping[str, tf.Tensor], config) -> tf.Tensor:
    """Mean squared error, cross entropy or binary cross entropy of ``[batch, num_labels]``, by the problem type."""
    logits, target = _at_least_float32(outputs.logits), labels["labels"]
    kind = problem_type(config, target)
    if kind == "single_label_classification":
        return cross_entropy(logits, target)
    target = tf.reshape(tf.cast(target, logits.dtype), tf.shape(logits))
    if kind == "regression":
        return tf.reduce_mean(tf.math.squared_difference(logits, target))
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, logits))


def classification(outputs, labels: Mapping[str, tf.Tensor], config) -> tf.Tensor:
    """Cross entropy of ``logits`` ``[..., classes]`` and ``labels`` ``[...]``: tokens, choices, masked tokens."""
    return cross_entropy(outputs.logits, labels["labels"])


def attended_classification(outputs, labels: Mapping[str, tf.Tensor], config) -> tf.Tensor:
    """Cross entropy of ``logits`` ``[..., classes]`` and ``labels`` ``[...]`` over tokens whose attention mask is 1."""
    target = labels["labels"]
    if (mask := labels.get("attention_mask")) is not None:
        target = tf.where(tf.equal(mask, tf.ones([], mask.dtype)), target, tf.cast(IGNORE_INDEX, target.dtype))
    return cross_entropy(outputs.logits, target)


def causal_lm(outputs, labels: Mapping[str, tf.Tensor], config) -> tf.Tensor:
    """Cross entropy of each position's logits ``[batch, seq, vocab]`` and the next position's label."""
    return cross_entropy(outputs.logits[:, :-1], labels["labels"][:, 1:])


def pre_training(outputs, labels: Mapping[str, tf.Tensor], config) -> tf.Tensor | None:
    """Masked-language loss plus that of a pair of texts; ``None`` unless both labels are given, as in PyTorch.

    The outputs have the words' logits and then the pair's; the pair's label is the one that is not ``labels``.
    """
    if len(labels) < 2:
        return None
    words, pair = (logits for name, logits in outputs.items() if name.endswith("_logits"))
    ((name, pair_label),) = ((name, label) for name, label in labels.items() if name != "labels")
    return cross_entropy(words, labels["labels"]) + cross_entropy(pair, pair_label, name=name)


def replaced_tokens(outputs, labels: Mapping[str, tf.Tensor], config) -> tf.Tensor:
    """Mean binary cross entropy of ``logits`` ``[batch, seq]`` over the tokens whose attention mask is 1.

    Raises:
        ValueError: for an attention mask that is not ``[batch, seq]``, which does not tell padding from tokens.
    """
    logits = _at_least_float32(outputs.logits)
    each = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels["labels"], logits.dtype), logits)
    if (mask := labels.get("attention_mask")) is None:
        return tf.reduce_mean(each)
    if mask.shape.rank != 2:
        raise ValueError(f"The loss takes an attention_mask [batch, seq], but it has shape {tuple(mask.shape)}.")
    counted = tf.equal(mask, tf.ones([], mask.dtype))
    total = tf.reduce_sum(tf.where(counted, each, tf.zeros_like(each)))
    return total / tf.cast(tf.math.count_nonzero(counted), each.dtype)


def question_answering(outputs, labels: Mapping[str, tf.Tensor], config) -> tf.Tensor | None:
    """Mean of the cross entropies of start and end; positions past the sequence do not count."""
    if len(labels) < 2:
        return None
    length = tf.shape(outputs.start_logits)[1]
    losses = []
    for name in ("start", "end"):
        positions = tf.reshape(tf.cast(labels[f"{name}_positions"], tf.int32), [-1])
        losses.append(cross_entropy(outputs[f"{name}_logits"], tf.clip_by_value(positions, 0, length), length))
    return (losses[0] + losses[1]) / tf.constant(2.0, losses[0].dtype)


Loss = Callable[..., tf.Tensor | None]
