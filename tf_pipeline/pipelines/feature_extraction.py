"""Turn texts into vectors."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_pipeline.arguments import RETURN_TENSORS, check_choice, tokenizer_arguments
from tf_pipeline.pipelines.base import Pipeline
from tf_pipeline.pipelines.calls import in_form

POOLINGS = ("mean", "cls")


class FeatureExtractionPipeline(Pipeline):
    """Hidden states of a body, or one pooled vector per text.

    Arguments of a call: ``truncation``, ``tokenize_kwargs``, ``return_tensors``, and beyond Hugging Face's ``pooling``
    (``"mean"`` over the tokens or ``"cls"``, the first one) and ``normalize`` (vectors of length 1).

    The answer for a text is a nested list ``[1, seq, hidden]``, or ``[hidden]`` if pooled; with ``return_tensors=True``
    or ``"tf"`` a tensor, with ``"np"`` an array.
    """

    task = "feature-extraction"
    output_names = ("last_hidden_state",)
    per_token = True
    tokenizer_arguments = "tokenize_kwargs"

    @classmethod
    def auto_class(cls) -> type:
        """The body."""
        from tf_pipeline.auto import TFAutoModel

        return TFAutoModel

    def sanitize_parameters(
        self, truncation=None, tokenize_kwargs=None, return_tensors=False, pooling=None, normalize=False
    ):
        """See the class; other arguments of the tokenizer belong into ``tokenize_kwargs``."""
        tokenizer_kwargs = tokenizer_arguments(tokenize_kwargs or {})
        if truncation is not None:
            if "truncation" in tokenizer_kwargs:
                raise ValueError("truncation is given twice: as an argument and in tokenize_kwargs.")
            tokenizer_kwargs["truncation"] = truncation
        check_choice("return_tensors", return_tensors, RETURN_TENSORS)
        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}.")
        return tokenizer_kwargs, {"return_tensors": return_tensors, "pooling": pooling, "normalize": normalize}

    def postprocess(
        self,
        model_outputs: Mapping[str, Any],
        return_tensors: bool | str = False,
        pooling: str | None = None,
        normalize=False,
    ):
        """Hidden states ``[1, seq, hidden]`` as they are, or pooled to ``[hidden]``."""
        features = self.read(model_outputs, "last_hidden_state")
        if pooling is not None:
            features = features[0].mean(axis=0) if pooling == "mean" else features[0, 0]
        if normalize:
            features = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
        return in_form(features, return_tensors)
