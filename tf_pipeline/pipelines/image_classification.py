"""Classify images."""

from collections.abc import Mapping
from typing import Any

from tf_pipeline.pipelines.senses import ImagePipeline
from tf_pipeline.pipelines.text_classification import checked_function, checked_top_k, default_function, label_scores


class ImageClassificationPipeline(ImagePipeline):
    """Labels and scores for images.

    An image is a path, an address on the web, base64, bytes, an image of Pillow or an array. Arguments of a call:
    ``top_k`` (number of labels, 5 by default; best first), ``function_to_apply`` (``"sigmoid"``, ``"softmax"`` or
    ``"none"``; by default none for regression, sigmoid for multi-label or a single label, else softmax) and ``timeout``
    (seconds to wait for the web).

    The answer for an image is a list of ``{"label": …, "score": …}``.
    """

    task = "image-classification"
    has_labels = True

    @classmethod
    def auto_class(cls) -> type:
        """Image classification."""
        from tf_pipeline.auto import TFAutoModelForImageClassification

        return TFAutoModelForImageClassification

    def sanitize_parameters(
        self, top_k: int | None = None, function_to_apply: str | None = None, timeout: float | None = None
    ):
        """See the class."""
        task_kwargs = {"top_k": 5 if top_k is None else checked_top_k(top_k)}
        return {"timeout": timeout}, task_kwargs | {"function_to_apply": checked_function(function_to_apply)}

    def postprocess(
        self, model_outputs: Mapping[str, Any], top_k: int = 5, function_to_apply: str | None = None
    ) -> list[dict[str, Any]]:
        """Logits ``[1, num_labels]`` to the best labels with their scores."""
        config = self.model.config
        logits = self.read(model_outputs, "logits")[0]
        return label_scores(config, logits, function_to_apply or default_function(config))[:top_k]
