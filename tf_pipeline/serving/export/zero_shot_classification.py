"""Signature of zero-shot-classification: labels come with each text."""

from typing import Any

import tensorflow as tf

from tf_pipeline.serving.export.base import TEXT, ExportedTask, padded

# Stands for the label while a hypothesis is taken apart.
_LABEL = "\ue000"


class ExportedZeroShotClassification(ExportedTask):
    """``labels`` and ``scores``, ``[batch, L]``, best first, and ``num_labels`` ``[batch]``.

    Labels are one string for each text, with commas between them, because a server joins requests of any number of
    labels to a batch that way. Rows of fewer labels than others end in ``""`` and 0.
    """

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        if encoding["labels"] is not None:
            raise TypeError(f"{self.pipe.value.task} is exported without candidate_labels: they come with each text.")
        self._parts = _parts(encoding["template"])
        self._multi_label = answering["multi_label"]

    def comparison(self) -> dict[str, Any]:
        """Some labels."""
        return {"candidate_labels": "politics, public health, café, 7"}

    def text_signatures(self):
        """See :class:`ExportedTask`."""
        return {"serving_default": (self._classify, {"text": TEXT, "candidate_labels": TEXT})}

    def _classify(self, text: tf.Tensor, candidate_labels: tf.Tensor) -> dict[str, tf.Tensor]:
        label, row = _split(candidate_labels)
        rows = tf.shape(text)[0]
        encoded = self.encode(tf.gather(text, row), self._hypotheses(label), truncation="only_first")
        logits = self.run_model(encoded)["logits"]
        entailment, contradiction = self.pipe.value.entailment_id, self.pipe.value.contradiction_id
        count = tf.math.unsorted_segment_sum(tf.ones_like(row), row, rows)
        labels, for_it, against_it = (
            padded(values, row, rows) for values in (label, logits[:, entailment], logits[:, contradiction])
        )
        real = tf.sequence_mask(count, tf.shape(labels)[1])
        alone = tf.sigmoid(for_it - against_it)
        if not self._multi_label:
            among = tf.nn.softmax(tf.where(real, for_it, for_it.dtype.min))
            alone = tf.where((count == 1)[:, tf.newaxis], alone, among)
        best = tf.math.top_k(tf.where(real, alone, -1.0), tf.shape(labels)[1])
        return {
            "labels": tf.gather(labels, best.indices, batch_dims=1),
            "scores": tf.maximum(best.values, 0.0),
            "num_labels": count,
        }

    def _hypotheses(self, label: tf.Tensor) -> tf.Tensor:
        first, *others = (tf.fill(tf.shape(label), part) for part in self._parts)
        return tf.strings.join([first, *(piece for part in others for piece in (label, part))])


def _parts(template: str) -> list[str]:
    """The text before, between and behind the places of the label.

    Raises:
        ValueError: for a template that does more than to put the label there.
    """
    parts = template.format(_LABEL).split(_LABEL)
    if template.format("two words") != "two words".join(parts):
        raise ValueError(f"hypothesis_template={template!r} changes the label, which cannot be exported: use {{}}.")
    return parts


def _split(candidate_labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels ``[n]`` without the space around them, and the row of each, int32 ``[n]``, ascending."""
    pieces = tf.strings.split(candidate_labels, ",")
    label, row = tf.strings.strip(pieces.values), tf.cast(pieces.value_rowids(), tf.int32)
    real = label != ""
    return tf.boolean_mask(label, real), tf.boolean_mask(row, real)
