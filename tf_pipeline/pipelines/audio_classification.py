"""Classify sounds."""

from collections.abc import Mapping
from typing import Any

from tf_pipeline.pipelines.senses import SoundPipeline
from tf_pipeline.pipelines.text_classification import checked_function, checked_top_k, label_scores


class AudioClassificationPipeline(SoundPipeline):
    """Labels and scores for sounds.

    A sound is given as :func:`~tf_pipeline.pipelines.media.as_sound` takes it. Arguments of a call: ``top_k`` (number
    of labels, all by default; best first) and ``function_to_apply`` (``"sigmoid"``, ``"softmax"`` or ``"none"``; by
    default none for regression, sigmoid for multi-label, else softmax).

    The answer for a sound is a list of ``{"score": …, "label": …}``.
    """

    task = "audio-classification"
    has_labels = True

    @classmethod
    def auto_class(cls) -> type:
        """Classification of sounds."""
        from tf_pipeline.auto import TFAutoModelForAudioClassification

        return TFAutoModelForAudioClassification

    def sanitize_parameters(self, top_k: int | None = None, function_to_apply: str | None = None):
        """See the class."""
        return {}, {"top_k": checked_top_k(top_k), "function_to_apply": checked_function(function_to_apply)}

    def postprocess(
        self, model_outputs: Mapping[str, Any], top_k: int | None = None, function_to_apply: str | None = None
    ) -> list[dict[str, Any]]:
        """Logits ``[1, num_labels]`` to the best labels with their scores."""
        config = self.model.config
        asked = {"regression": "none", "multi_label_classification": "sigmoid"}.get(config.problem_type, "softmax")
        ranked = label_scores(config, self.read(model_outputs, "logits")[0], function_to_apply or asked)
        return [{"score": one["score"], "label": one["label"]} for one in ranked[:top_k]]
