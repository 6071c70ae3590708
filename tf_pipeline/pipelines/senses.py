"""The base of pipelines whose inputs are images or sounds."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.inputs import check_signal
from tf_pipeline.pipelines.base import Rows, Stages
from tf_pipeline.pipelines.batching import windows
from tf_pipeline.pipelines.media import as_image, as_sound, is_medium, named

# Rows in a batch if nothing else is asked for, and batches of which the inputs are in memory at a time.
BATCH, BATCHES = 8, 4


class SensePipeline(Stages):
    """Processor, model and post-processing for one task on images or sounds.

    ``preprocess``, ``forward`` and ``postprocess`` do one input in three stages. Calling the pipeline does any number:
    rows of one shape are run together, through one compiled graph; results come in the order of the inputs.

    A task declares its needs by the attributes of :class:`~tf_pipeline.pipelines.base.Stages`, and by:

    - ``own_inputs``: inputs of the model that it makes itself;
    - ``reads``: the inputs of its models, in words, if they have more than images or sounds.

    Args:
        model: a ported model of this package.
        batch_size: maximum number of rows in a batch, 8 if not given.
        device: device of the model, as :func:`~tf_pipeline.pipelines.base.device_name` takes it.
        engine: what runs the model: see :mod:`tf_pipeline.engines`.
        **parameters: the processors by name, such as ``image_processor``, and defaults for the arguments of a call.

    Raises:
        TypeError: for an argument that the task does not have.
        ValueError: for a value out of range, a processor that is missing, or a device that is not there.
    """

    own_inputs: tuple[str, ...] = ()
    reads = ""

    def __init__(
        self, model, batch_size: int | None = None, device=None, engine: str = "tensorflow", **parameters: Any
    ):
        for name in self.processors:
            if parameters.get(name) is None:
                raise ValueError(f"{self.task} needs {' and '.join(self.processors)}; {name} is missing.")
            setattr(self, name, parameters.pop(name))
        self._signature = model.default_signature()
        if not model.signal_shapes or self._signature.keys() - {*model.signal_shapes, *self.own_inputs}:
            raise ValueError(
                f"{type(model).__name__} reads {', '.join(model.tensor_names)}, but {self.task} takes models that read "
                f"{self.reads or f'{self.unit}s and nothing else'}; {self.auto_class().__name__} loads them."
            )
        super().__init__(model, batch_size, device, engine, **parameters)
        self.input_names = tuple(model.signal_shapes)
        self._compiled = self._compile(self._run_model, self._signature)

    # ------------------------------------------------------------------------------------------------ the stages

    def rows_of(self, value: Any, **preprocess_kwargs: Any) -> list[dict[str, Any]]:
        """The rows of one input: inputs of the model, each ``[1, …]``, and values that go round it."""
        raise NotImplementedError

    def encode(self, inputs: list[Any], **preprocess_kwargs: Any) -> Rows:
        """Prepare many inputs.

        Raises:
            ValueError: for what is no image or sound, or of a shape that the model does not take.
        """
        rows, owners = [], []
        for owner, value in enumerate(inputs):
            found = self.rows_of(value, **preprocess_kwargs)
            rows += found
            owners += [owner] * len(found)
        for row in rows:
            for name in self.input_names:
                self._check_shape(name, row[name].shape)
        names = [name for name in self.beside if rows and name in rows[0]]
        return Rows(
            {name: [row[name] for row in rows] for name in self.input_names},
            owners,
            {name: [row[name] for row in rows] for name in names},
        )

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a shape that an input of the model cannot have."""
        check_signal(self.model, name, tf.TensorSpec(shape))

    def preprocess(self, inputs: Any, **parameters: Any) -> dict[str, Any]:
        """First stage: read and prepare one input, ``[1, …]``; ``parameters`` are those of a call."""
        rows = self.encode([inputs], **self._split(parameters)[0])
        tensors = {name: column[0] for name, column in rows.columns.items()} | rows.shared
        beside = {name: values[0] for name, values in rows.beside.items()}
        return {name: tf.constant(value) for name, value in tensors.items()} | beside

    def forward(self, model_inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Second stage: run the model, compiled; its tensors are float32 or wider."""
        refuse_if_forked(type(self).__name__)
        beside = {name: model_inputs[name] for name in self.beside if name in model_inputs}
        return {**self._run_rows({name: model_inputs[name] for name in self._signature}), **beside}

    def _run_rows(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._compiled({name: tf.cast(value, self._signature[name].dtype) for name, value in inputs.items()})

    # ------------------------------------------------------------------------------------------------ all at once

    def is_single(self, inputs: Any) -> bool:
        """Whether this is one input rather than several."""
        return super().is_single(inputs) or is_medium(inputs)

    def _elements(self, inputs: Iterable[Any]) -> Iterator[Any]:
        return iter(inputs)  # a tensor is one image or sound

    def _windows(self, inputs: Iterable[Any], batch_size: int | None) -> Iterator[list[Any]]:
        return windows(inputs, BATCHES * (batch_size or BATCH))

    def _sizes(self, rows: Rows, offset: int) -> list[Any]:
        columns = [rows.columns[name] for name in self.input_names]
        return [tuple(value.shape for value in row) for row in zip(*columns, strict=True)]

    def _batches(self, rows: Rows, sizes: Sequence[Any], batch_size: int | None) -> Iterator[list[int]]:
        most = batch_size or BATCH
        for size in dict.fromkeys(sizes):
            alike = [row for row, other in enumerate(sizes) if other == size]
            yield from (alike[start : start + most] for start in range(0, len(alike), most))

    def _run_batch(self, rows: Rows, batch: list[int]) -> Iterator[dict[str, Any]]:
        inputs = {name: np.concatenate([column[row] for row in batch]) for name, column in rows.columns.items()}
        outputs = self._run_rows(inputs | rows.shared)
        arrays = {name: np.asarray(outputs[name]) for name in self.output_names if name in outputs}
        for place, row in enumerate(batch):
            beside = {name: values[row] for name, values in rows.beside.items()}
            yield {name: value[place : place + 1] for name, value in arrays.items()} | beside

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Save the model and its processors in a folder, from which the pipeline can be made again."""
        self.model.save_pretrained(save_directory)
        for name in self.processors:
            getattr(self, name).save_pretrained(save_directory)


class ImagePipeline(SensePipeline):
    """A pipeline of images."""

    unit = "image"
    processors = ("image_processor",)

    def rows_of(self, value: Any, timeout: float | None = None, **processor_kwargs: Any) -> list[dict[str, Any]]:
        """The pixels of an image, ``[1, channels, height, width]``."""
        image = as_image(value, timeout)
        try:
            pixels = self.image_processor(image, return_tensors="np", **processor_kwargs)
        except Exception as error:  # whatever the processor makes of an image
            processor = type(self.image_processor).__name__
            raise ValueError(
                f"{processor} cannot prepare {named(image)}: {' '.join(str(error).split()):.200}"
            ) from error
        return [{name: pixels[name] for name in self.input_names}]


class SoundPipeline(SensePipeline):
    """A pipeline of sounds."""

    unit = "sound"
    processors = ("feature_extractor",)

    def rows_of(self, value: Any) -> list[dict[str, Any]]:
        """The samples of a sound, ``[1, samples]``, or the features that the model reads."""
        return [self.features(as_sound(value, self.feature_extractor.sampling_rate))]

    def features(self, sound: np.ndarray) -> dict[str, Any]:
        """Inputs of the model, each ``[1, …]``, from one sound ``[samples]``."""
        rate = self.feature_extractor.sampling_rate
        features = self.feature_extractor(sound, sampling_rate=rate, return_tensors="np")
        return {name: features[name] for name in self.input_names}
