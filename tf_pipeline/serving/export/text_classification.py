"""Signatures of text-classification: texts, pairs, and the classify API's ``tf.Example``."""

from typing import Any

import tensorflow as tf

from tf_pipeline.serving.export.base import TEXT, ExportedTask


class ExportedTextClassification(ExportedTask):
    """Labels ``[batch, K]`` and scores ``[batch, K]``, best first; K is ``top_k``, or all labels."""

    has_labels = True

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        super()._configure(encoding, answering)
        if answering.get("in_own_order"):
            raise ValueError(
                "return_all_scores=True is not supported in an export, whose labels are best first: leave it out; all "
                "labels are given unless top_k says fewer."
            )
        pipe = self.pipe.value
        self._function = answering.get("function_to_apply") or pipe.default_function()
        top_k = answering.get("top_k")
        self._top_k = min(top_k, len(self.labels)) if isinstance(top_k, int) else len(self.labels)

    def local_options(self) -> dict[str, Any]:
        """All labels by default, with texts cut to the model's length."""
        return {"top_k": None, "truncation": True} | self.options

    def text_signatures(self):
        """See :class:`ExportedTask`."""
        return {
            "serving_default": (self._classify, {"text": TEXT}),
            "pairs": (self._classify, {"text": TEXT, "text_pair": TEXT}),
            "classify": (self._classify_examples, {"inputs": TEXT}),
        }

    def _classify(self, text: tf.Tensor, text_pair: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        logits = self.run_model(self.encode(text, text_pair))["logits"]
        scores = {"sigmoid": tf.sigmoid, "softmax": tf.nn.softmax, "none": tf.identity}[self._function](logits)
        best = tf.math.top_k(scores, self._top_k)
        return {"labels": tf.gather(tf.constant(self.labels), best.indices), "scores": best.values}

    def _classify_examples(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string, "")})
        answers = self._classify(features["text"])
        return {"classes": answers["labels"], "scores": answers["scores"]}
