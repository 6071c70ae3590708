"""Classify texts by labels that are chosen when they are asked for."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.pipelines.base import ChunkPipeline, Rows
from tf_pipeline.pipelines.calls import as_text
from tf_pipeline.pipelines.text_classification import softmax

logger = logging.getLogger(__name__)


class ZeroShotClassificationPipeline(ChunkPipeline):
    """Scores labels of any kind with a model of natural language inference.

    Each label is put into a hypothesis, and the model tells whether the text entails it: a text runs the model once per
    label. A long text is cut, its hypothesis never.

    Arguments of a call: ``candidate_labels`` (a list, or a string with commas; also by position),
    ``hypothesis_template`` (``"This example is {}."`` by default; the label goes where the braces are) and
    ``multi_label`` (off: the scores of all labels add up to 1, a softmax over their entailment logits; on, or with a
    single label: each is by itself, entailment against contradiction).

    The answer is a dictionary: ``sequence``, ``labels``, best first, and their ``scores``.
    """

    task = "zero-shot-classification"
    beside = ("candidate_label", "sequence")

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.entailment_id == -1:
            logger.warning(
                "Failed to determine 'entailment' label id from the label2id mapping in the model config. Setting to "
                "-1. Define a descriptive label2id mapping in the model config to ensure correct outputs."
            )

    @classmethod
    def auto_class(cls) -> type:
        """Sequence classification."""
        from tf_pipeline.auto import TFAutoModelForSequenceClassification

        return TFAutoModelForSequenceClassification

    @property
    def entailment_id(self) -> int:
        """The label that starts with "entail", or -1."""
        config = self.model.config
        names = (config.label2id or {label: index for index, label in config.id2label.items()}).items()
        return next((index for label, index in names if label.lower().startswith("entail")), -1)

    def sanitize_parameters(
        self,
        candidate_labels: str | Sequence[str] | None = None,
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        multi_class: bool | None = None,
    ):
        """See the class."""
        if multi_class is not None:
            logger.warning(
                "The `multi_class` argument has been deprecated and renamed to `multi_label`. `multi_class` will be "
                "removed in a future version of Transformers."
            )
            multi_label = multi_class
        labels = candidate_labels
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",") if label.strip()]
        if labels is not None and (not len(labels) or not all(isinstance(label, str) for label in labels)):
            raise ValueError(
                "You must include at least one label and at least one sequence: candidate_labels is a list of strings "
                f"or a string with commas; got {candidate_labels!r}."
            )
        if labels and not _takes_one_label(hypothesis_template, labels[0]):
            raise ValueError(
                f'The provided hypothesis_template "{hypothesis_template}" was not able to be formatted with the '
                "target labels. Make sure the passed template includes formatting syntax such as {} where the label "
                "should go, once."
            )
        return {"labels": labels, "template": hypothesis_template}, {"multi_label": multi_label}

    def __call__(self, sequences, *args: Any, **parameters: Any):
        """See the class and :class:`Pipeline`; ``candidate_labels`` may come second."""
        if len(args) > 1 or (args and "candidate_labels" in parameters):
            raise ValueError(f"Unable to understand extra arguments {args}")
        if args:
            parameters["candidate_labels"] = args[0]
        return super().__call__(sequences, **parameters)

    def encode(self, inputs: list[Any], labels: Sequence[str] | None, template: str) -> Rows:
        """Tokenize each text with each hypothesis."""
        if labels is None:
            raise ValueError("Pass candidate_labels: the labels to choose from, as a list or a string with commas.")
        texts = [as_text(one) for one in inputs]
        if not all(texts):
            raise ValueError("You must include at least one label and at least one sequence: a text is empty.")
        hypotheses = [template.format(label) for label in labels]
        pairs = {
            "text": [text for text in texts for _ in hypotheses],
            "text_pair": hypotheses * len(texts),
        }
        try:
            encoded, layout = self._tokenize(pairs, {"truncation": "only_first"})
        except Exception as error:
            # The tokenizer refuses to cut a text to nothing; the message is all there is to tell this by.
            if "too short" not in str(error):
                raise
            if len(texts) > 1:
                return _joined([self.encode([text], labels, template) for text in texts])
            encoded, layout = self._tokenize(pairs, {"truncation": False})
        return Rows(
            {name: encoded[name] for name in self.input_names},
            [owner for owner in range(len(texts)) for _ in hypotheses],
            {"candidate_label": list(labels) * len(texts), "sequence": pairs["text"]},
            **layout,
        )

    def postprocess(self, model_outputs: list[Mapping[str, Any]], multi_label: bool = False) -> dict[str, Any]:
        """Logits ``[1, num_labels]`` of each label's hypothesis to the ranked labels."""
        labels = [outputs["candidate_label"] for outputs in model_outputs]
        logits = np.concatenate([self.read(outputs, "logits") for outputs in model_outputs])
        entailment = self.entailment_id
        if multi_label or len(labels) == 1:
            contradiction = -1 if entailment == 0 else 0
            scores = softmax(logits[:, [contradiction, entailment]])[:, 1]
        else:
            scores = softmax(logits[:, entailment])
        order = scores.argsort()[::-1]
        return {
            "sequence": model_outputs[0]["sequence"],
            "labels": [labels[place] for place in order],
            "scores": scores[order].tolist(),
        }

    def facts(self) -> dict[str, Any]:
        """The model's labels and which of them is entailment."""
        return {"labels": list(self.model.config.id2label.values()), "entailment_id": self.entailment_id}


def _takes_one_label(template: Any, label: str) -> bool:
    try:
        return template.format(label) != template
    except (IndexError, KeyError, ValueError, AttributeError):  # braces for more, for names, or without an end
        return False


def _joined(parts: list[Rows]) -> Rows:
    """Rows of several inputs, each encoded by itself, as one."""
    first = parts[0]
    return Rows(
        {name: [row for part in parts for row in part.columns[name]] for name in first.columns},
        [owner for owner, part in enumerate(parts) for _ in range(len(part))],
        {name: [value for part in parts for value in part.beside[name]] for name in first.beside},
        first.side,
        first.multiple,
    )
