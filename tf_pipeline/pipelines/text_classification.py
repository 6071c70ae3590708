"""Classify texts or pairs of texts."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_pipeline.arguments import tokenizer_arguments, whole_number
from tf_pipeline.pipelines.base import Pipeline, Rows
from tf_pipeline.pipelines.calls import TextClassificationCalls, old_pair

FUNCTIONS = ("sigmoid", "softmax", "none")
_INSTEAD_OF_ALL_SCORES = (
    "`return_all_scores` is now deprecated, if want a similar functionality use `top_k=None` instead of "
    "`return_all_scores=True` or `top_k=1` instead of `return_all_scores=False`."
)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logistic function, element by element."""
    return 1.0 / (1.0 + np.exp(-logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def checked_function(name: Any) -> str | None:
    """The name of a function to apply, in lower case; ``None`` for the one that the config asks for.

    Raises:
        ValueError: for an unknown one.
    """
    name = getattr(name, "value", name)  # of an enumeration
    if name is None:
        return None
    if str(name).lower() not in FUNCTIONS:
        raise ValueError(f"function_to_apply {name!r} is not one of {', '.join(FUNCTIONS)}.")
    return name.lower()


def checked_top_k(top_k: Any) -> int | None:
    """A number of labels; ``None`` for all.

    Raises:
        ValueError: for no such number.
    """
    return None if top_k is None else whole_number("top_k", top_k, 1)


def default_function(config: Any) -> str:
    """The activation that a config asks for."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def label_scores(config: Any, logits: np.ndarray, function: str, in_own_order: bool = False) -> list[dict[str, Any]]:
    """Labels with their scores, from logits ``[num_labels]``: best first, or in the order of the config."""
    scores = {"sigmoid": sigmoid, "softmax": softmax, "none": lambda x: x}[function](logits)
    order = range(len(scores)) if in_own_order else np.argsort(-scores, kind="stable")
    return [{"label": config.id2label[int(i)], "score": float(scores[i])} for i in order]


class TextClassificationPipeline(TextClassificationCalls, Pipeline):
    """Labels and scores for texts; also known as ``sentiment-analysis``.

    Arguments of a call: ``top_k`` (number of labels, ``None`` for all; best first) and ``function_to_apply``
    (``"sigmoid"``, ``"softmax"`` or ``"none"``; by default none for regression, sigmoid for multi-label or a single
    label, else softmax), and those of the tokenizer. ``return_all_scores``, which ``top_k`` replaced, gives all labels
    in the order of the config.

    A lone text gives ``[{"label": …, "score": …}]``, and a call with ``top_k`` the sorted list; a list gives one
    dictionary per text, or with ``top_k`` one list per text.
    """

    tokenizer_arguments = True
    has_labels = True

    @classmethod
    def auto_class(cls) -> type:
        """Sequence classification."""
        from tf_pipeline.auto import TFAutoModelForSequenceClassification

        return TFAutoModelForSequenceClassification

    _has_warned = False

    def sanitize_parameters(
        self,
        top_k: Any = "",
        function_to_apply: str | None = None,
        return_all_scores: bool | None = None,
        text_pair: str | None = None,
        **tokenizer_kwargs: Any,
    ):
        """See the class; every other argument goes to the tokenizer."""
        task_kwargs: dict[str, Any] = {}
        if top_k != "":  # not given: the one best label, not in a list
            task_kwargs["top_k"] = checked_top_k(top_k)
        elif return_all_scores is not None:
            if not self._has_warned:
                warnings.warn(_INSTEAD_OF_ALL_SCORES, UserWarning, stacklevel=5)
            self._has_warned = True
            task_kwargs["in_own_order"] = bool(return_all_scores)
        if function_to_apply is not None:
            task_kwargs["function_to_apply"] = checked_function(function_to_apply)
        pair = {} if text_pair is None else {"text_pair": text_pair}
        return pair | tokenizer_arguments(tokenizer_kwargs), task_kwargs

    def encode(self, inputs: list[Any], text_pair: str | None = None, **tokenizer_kwargs: Any) -> Rows:
        """Tokenize texts or pairs; ``[["text", "pair"]]`` is how pairs were once written."""
        if text_pair is not None:
            inputs = [{"text": one, "text_pair": text_pair} for one in inputs]
        return super().encode([old_pair(one) for one in inputs], **tokenizer_kwargs)

    def default_function(self) -> str:
        """The activation that the config asks for."""
        return default_function(self.model.config)

    def postprocess(
        self,
        model_outputs: Mapping[str, Any],
        function_to_apply: str | None = None,
        top_k: int | None | str = "",
        in_own_order: bool = False,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Logits ``[1, num_labels]`` to the best label with its score, or to a sorted list if ``top_k`` is given.

        With ``in_own_order``, all labels in the order of the config.
        """
        logits = self.read(model_outputs, "logits")[0]
        function = function_to_apply or self.default_function()
        ranked = label_scores(self.model.config, logits, function, in_own_order)
        if in_own_order:
            return ranked
        return ranked[0] if top_k == "" else ranked[:top_k]
