"""Turn images into vectors."""

from collections.abc import Mapping
from typing import Any

from tf_pipeline.arguments import RETURN_TENSORS, check_choice
from tf_pipeline.pipelines.calls import in_form
from tf_pipeline.pipelines.senses import ImagePipeline


class ImageFeatureExtractionPipeline(ImagePipeline):
    """Hidden states of a body that reads images, or the vector that it pools them to.

    An image is given as :func:`~tf_pipeline.pipelines.media.as_image` takes it. Arguments of a call: ``pool`` (the
    pooled vector rather than the hidden states), ``return_tensors``, ``image_processor_kwargs`` (arguments of the image
    processor) and ``timeout`` (seconds to wait for the web).

    The answer for an image is a nested list with a leading axis of 1; with ``return_tensors=True`` a tensor.
    """

    task = "image-feature-extraction"
    output_names = ("last_hidden_state", "pooler_output")

    @classmethod
    def auto_class(cls) -> type:
        """The body."""
        from tf_pipeline.auto import TFAutoModel

        return TFAutoModel

    def sanitize_parameters(
        self,
        image_processor_kwargs: Mapping[str, Any] | None = None,
        return_tensors: bool | str | None = None,
        pool: bool | None = None,
        timeout: float | None = None,
    ):
        """See the class."""
        check_choice("return_tensors", return_tensors, RETURN_TENSORS)
        processor_kwargs = dict(image_processor_kwargs or {})
        return processor_kwargs | {"timeout": timeout}, {"return_tensors": return_tensors, "pool": bool(pool)}

    def postprocess(self, model_outputs: Mapping[str, Any], return_tensors: Any = False, pool: bool = False):
        """Hidden states ``[1, …]`` as they are, or the pooled vector."""
        if pool and "pooler_output" not in model_outputs:
            raise ValueError(f"No pooled output: {type(self.model).__name__} has no pooler. Leave pool out.")
        features = self.read(model_outputs, "pooler_output" if pool else "last_hidden_state")
        return in_form(features, return_tensors)
