"""Classify images by labels that are chosen when they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.pipelines.base import NO_TOKENS, Rows, check_fit
from tf_pipeline.pipelines.calls import as_labels, check_template, given_labels
from tf_pipeline.pipelines.senses import ImagePipeline
from tf_pipeline.pipelines.text_classification import sigmoid, softmax
from tf_pipeline.tokenization import with_tensorflow

# What the model's tokenizer may leave out, as its config may ask it to, and the value that stands for it.
_LEFT_OUT = {"attention_mask": np.ones_like, "token_type_ids": np.zeros_like}


class ZeroShotImageClassificationPipeline(ImagePipeline):
    """Scores labels of any kind for images, by a model that reads texts and images, such as CLIP or SigLIP.

    Each label is put into a text, and the model tells how well the text fits the image. The texts are read once for
    each batch of images.

    An image is given as :func:`~tf_pipeline.pipelines.media.as_image` takes it. Arguments of a call:
    ``candidate_labels`` (a list, or a string with commas; also by position), ``hypothesis_template`` (``"This is a
    photo of {}."`` by default; the label goes where the braces are), ``timeout`` (seconds to wait for the web) and
    ``tokenizer_kwargs`` (arguments of the tokenizer, such as ``{"truncation": True}``; texts are padded to the longest,
    and for SigLIP to 64 tokens, as it was trained).

    The answer for an image is a list of ``{"score": …, "label": …}``, best first: scores of all labels add up to 1, a
    softmax over the logits; for SigLIP each is by itself, a sigmoid.
    """

    task = "zero-shot-image-classification"
    output_names = ("logits_per_image",)
    processors = ("image_processor", "tokenizer")
    beside = ("candidate_labels",)
    own_inputs = ("input_ids", *_LEFT_OUT)
    reads = "texts and images"
    tokenizer_arguments = "tokenizer_kwargs"

    def __init__(self, model, *args: Any, tokenizer: Any = None, **kwargs: Any):
        if tokenizer is not None:
            check_fit(model, tokenizer)
            tokenizer = with_tensorflow(tokenizer)
        super().__init__(model, *args, tokenizer=tokenizer, **kwargs)

    @classmethod
    def auto_class(cls) -> type:
        """Encoders of texts and of images."""
        from tf_pipeline.auto import TFAutoModelForZeroShotImageClassification

        return TFAutoModelForZeroShotImageClassification

    def __call__(self, image: Any = None, candidate_labels: Any = None, *, images: Any = None, **parameters: Any):
        """See the class and :class:`~tf_pipeline.pipelines.calls.Calls`; images may also be given by name."""
        image = image if images is None else images
        if image is None:
            raise ValueError("Cannot call the zero-shot-image-classification pipeline without an images argument!")
        if candidate_labels is not None:
            parameters["candidate_labels"] = candidate_labels
        return super().__call__(image, **parameters)

    def sanitize_parameters(
        self,
        candidate_labels: str | Sequence[str] | None = None,
        hypothesis_template: str = "This is a photo of {}.",
        timeout: float | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
    ):
        """See the class."""
        labels = as_labels(candidate_labels)
        check_template(hypothesis_template, labels)
        texts = {"labels": labels, "template": hypothesis_template, "tokenizer_kwargs": dict(tokenizer_kwargs or {})}
        return texts | {"timeout": timeout}, {}

    @property
    def is_siglip(self) -> bool:
        """Whether the model scores each text by itself, and reads texts of one length."""
        return "siglip" in self.model.config.model_type

    def encode(
        self,
        inputs: list[Any],
        labels: Sequence[str] | None,
        template: str,
        tokenizer_kwargs: Mapping[str, Any],
        timeout: float | None = None,
    ) -> Rows:
        """Prepare many images, and the texts of the labels, which all images share."""
        labels = given_labels(labels)
        shared = self._texts([template.format(label) for label in labels], tokenizer_kwargs)
        rows = super().encode(inputs, timeout=timeout)
        rows.shared, rows.beside = shared, {"candidate_labels": [list(labels)] * len(rows)}
        return rows

    def _texts(self, texts: list[str], tokenizer_kwargs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The model's inputs of texts, each int32 ``[texts, seq]``."""
        kwargs: dict[str, Any] = {"padding": True}
        if self.is_siglip:
            kwargs = {"padding": "max_length", "max_length": 64, "truncation": True}
        kwargs |= tokenizer_kwargs
        longest = self.model.max_length or self.tokenizer.model_max_length
        if kwargs.get("truncation"):
            kwargs = {"max_length": min(longest, self.tokenizer.model_max_length)} | kwargs
        encoded = self.tokenizer(texts, **kwargs | {"return_tensors": "np"})
        ids = np.asarray(encoded["input_ids"])
        if not ids.shape[1]:
            raise ValueError(f"The text of a label {NO_TOKENS}")
        if ids.shape[1] > longest:
            raise ValueError(
                f"The texts of the labels have up to {ids.shape[1]} tokens, but {type(self.model).__name__} takes at "
                f'most {longest}. Pass tokenizer_kwargs={{"truncation": True}} to cut them.'
            )
        names = [name for name in self.own_inputs if name in self._signature]
        filled = {name: encoded[name] if name in encoded else _LEFT_OUT[name](ids) for name in names}
        return {name: np.asarray(value, np.int32) for name, value in filled.items()}

    def postprocess(self, model_outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Logits ``[1, texts]`` of the labels' texts to the ranked labels."""
        logits = self.read(model_outputs, "logits_per_image")[0]
        scores = (sigmoid if self.is_siglip else softmax)(logits).tolist()
        ranked = sorted(zip(scores, model_outputs["candidate_labels"], strict=True), key=lambda pair: -pair[0])
        return [{"score": score, "label": label} for score, label in ranked]
