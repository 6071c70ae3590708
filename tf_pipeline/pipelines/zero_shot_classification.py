"""Classify texts by labels that are chosen when they are asked for."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.pipelines.base import ChunkPipeline, Rows
from tf_pipeline.pipelines.calls import ZeroShotClassificationCalls, as_labels, check_template, texts_with_labels
from tf_pipeline.pipelines.text_classification import softmax

logger = logging.getLogger(__name__)


class ZeroShotClassificationPipeline(ZeroShotClassificationCalls, ChunkPipeline):
    """Scores labels of any kind with a model of natural language inference.

    Each label is put into a hypothesis, and the model tells whether the text entails it: a text runs the model once per
    label. A long text is cut, its hypothesis never.

    Arguments of a call: ``candidate_labels`` (a list, or a string with commas; also by position),
    ``hypothesis_template`` (``"This example is {}."`` by default; the label goes where the braces are) and
    ``multi_label`` (off: the scores of all labels add up to 1, a softmax over their entailment logits; on, or with a
    single label: each is by itself, entailment against contradiction).

    The answer is a dictionary: ``sequence``, ``labels``, best first, and their ``scores``.
    """

    beside = ("candidate_label", "sequence")
    has_labels = True

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

    @property
    def contradiction_id(self) -> int:
        """The label that is weighed against entailment: the first, or the last if that is entailment."""
        return -1 if self.entailment_id == 0 else 0

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
        labels = as_labels(candidate_labels)
        check_template(hypothesis_template, labels)
        return {"labels": labels, "template": hypothesis_template}, {"multi_label": multi_label}

    def encode(self, inputs: list[Any], labels: Sequence[str] | None, template: str) -> Rows:
        """Tokenize each text with each hypothesis."""
        texts = texts_with_labels(inputs, labels)
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
        if multi_label or len(labels) == 1:
            scores = softmax(logits[:, [self.contradiction_id, self.entailment_id]])[:, 1]
        else:
            scores = softmax(logits[:, self.entailment_id])
        order = scores.argsort()[::-1]
        return {
            "sequence": model_outputs[0]["sequence"],
            "labels": [labels[place] for place in order],
            "scores": scores[order].tolist(),
        }

    def facts(self) -> dict[str, Any]:
        """The model's labels and which of them is entailment."""
        return super().facts() | {"entailment_id": self.entailment_id}


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
