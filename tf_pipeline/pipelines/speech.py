"""Transcribe speech: the base of pipelines that read sounds, whole or in pieces."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_pipeline.pipelines.base import OfManyRows
from tf_pipeline.pipelines.media import as_sound
from tf_pipeline.pipelines.senses import SoundPipeline


class SpeechPipeline(OfManyRows, SoundPipeline):
    """Reads a sound, cuts it into pieces that overlap if asked for, and keeps what else a dictionary holds."""

    task = "automatic-speech-recognition"
    processors = ("feature_extractor", "tokenizer")
    beside = ("stride", "extra")

    @classmethod
    def auto_class(cls) -> type:
        """CTC, or an encoder of sounds with a decoder."""
        from tf_pipeline.auto import SpeechRecognitionModels

        return SpeechRecognitionModels

    @property
    def samples_per_frame(self) -> int:
        """Number of samples for each frame that the model scores."""
        return getattr(self.model.config, "inputs_to_logits_ratio", 1)

    def _pieces(self, chunk: float | None, strides: float | Sequence[float] | None) -> tuple[int, int, int] | None:
        """Numbers of samples in a piece, and at its start and its end whose text is left out; multiples of a frame.

        ``None`` stands for a sound that is read as a whole.
        """
        if not chunk:
            if strides is not None:
                raise ValueError(f"stride_length_s is {strides!r}, and there are no pieces: pass chunk_length_s= too.")
            return None
        strides = chunk / 6 if strides is None else strides
        seconds = (chunk, *([strides] * 2 if isinstance(strides, (int, float)) else strides))
        if len(seconds) != 3 or not all(isinstance(x, (int, float)) and x >= 0 for x in seconds):
            raise ValueError(
                f"chunk_length_s is {chunk!r} and stride_length_s {strides!r}, but they have to be a number of "
                "seconds, and a number or a pair of numbers."
            )
        rate, frame = self.feature_extractor.sampling_rate, self.samples_per_frame
        samples = tuple(round(x * rate / frame) * frame for x in seconds)
        if samples[0] <= samples[1] + samples[2]:
            raise ValueError(
                f"Chunk length must be superior to stride length: pieces of {chunk} seconds, of which "
                f"{seconds[1]} and {seconds[2]} are left out, leave nothing."
            )
        return samples

    def rows_of(self, value: Any, pieces: tuple[int, int, int] | None = None) -> list[dict[str, Any]]:
        """The pieces of a sound, or the whole."""
        rate = self.feature_extractor.sampling_rate
        sound = as_sound(value, rate)
        known = ("raw", "array", "sampling_rate", "path", "stride")
        extra = {name: one for name, one in value.items() if name not in known} if isinstance(value, Mapping) else {}
        stride = value.get("stride") if isinstance(value, Mapping) else None
        if pieces is not None:
            return [
                self.features(sound[start : start + length]) | {"stride": (length, left, right), "extra": extra}
                for start, length, left, right in _cut(len(sound), *pieces)
            ]
        if stride is not None:
            ratio = rate / value["sampling_rate"]
            stride = (len(sound), *(round(samples * ratio) for samples in stride))
            if stride[1] + stride[2] > len(sound):
                raise ValueError(f"Stride is too large for input: {stride[1:]} of {len(sound)} samples.")
        return [self.features(sound) | {"stride": stride, "extra": extra}]

    def preprocess(self, inputs: Any, **parameters: Any) -> list[dict[str, Any]]:
        """First stage: read one sound and cut it into pieces, each ``[1, samples]``; ``parameters`` as in a call."""
        rows = self.rows_of(inputs, **self._split(parameters)[0])
        return [row | {name: tf.constant(row[name]) for name in self.input_names} for row in rows]

    @staticmethod
    def extras(model_outputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """The other keys of a dictionary that was given, as often as there are pieces."""
        extra = defaultdict(list)
        for outputs in model_outputs:
            for name, value in (outputs.get("extra") or {}).items():
                extra[name].append(value)
        return dict(extra)


def _cut(samples: int, piece: int, left: int, right: int) -> Iterator[tuple[int, int, int, int]]:
    """The start and length of the pieces of a sound, and the samples at both ends that count in their neighbours."""
    for start in range(0, samples, piece - left - right):
        is_last = start + piece >= samples
        length = min(piece, samples - start)
        before = left if start else 0
        if length > before:
            yield start, length, before, 0 if is_last else right
        if is_last:
            break
