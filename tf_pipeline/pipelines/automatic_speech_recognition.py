"""Transcribe speech."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.pipelines.speech import SpeechPipeline
from tf_pipeline.pipelines.whisper import WhisperPipeline

TIMESTAMPS = ("char", "word")


class AutomaticSpeechRecognitionPipeline(SpeechPipeline):
    """Texts of sounds, by models that score characters for each frame (CTC), such as Wav2Vec2.

    For Whisper, which writes texts, this is a :class:`~tf_pipeline.pipelines.whisper.WhisperPipeline`.

    A sound is given as :func:`~tf_pipeline.pipelines.media.as_sound` takes it; a dictionary may hold ``stride`` too,
    the numbers of samples at its start and its end whose text is left out. Arguments of a call: ``chunk_length_s``
    (seconds of the pieces that a long sound is read in; 0 for the whole), ``stride_length_s`` (seconds at the start and
    the end of a piece whose text is left out: a number or a pair; a sixth of a piece if not given) and
    ``return_timestamps`` (``"char"`` or ``"word"``).

    The answer is ``{"text": …}``, with ``chunks`` if timestamps are asked for, and the other keys of a dictionary that
    was given.
    """

    def __new__(cls, model=None, *args: Any, **kwargs: Any):
        """The pipeline for a model: another one if it is Whisper."""
        if (other := cls.class_for(getattr(model, "config", None))) is not cls:
            return other(model, *args, **kwargs)
        return super().__new__(cls)

    @classmethod
    def class_for(cls, config: Any) -> type:
        """Whisper's pipeline for Whisper."""
        return WhisperPipeline if getattr(config, "model_type", None) == "whisper" else cls

    def sanitize_parameters(
        self,
        chunk_length_s: float | None = None,
        stride_length_s: float | Sequence[float] | None = None,
        return_timestamps: str | None = None,
        ignore_warning: bool | None = None,
        decoder_kwargs: Mapping[str, Any] | None = None,
        return_language: bool | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
    ):
        """See the class; ``ignore_warning`` is about models that write text, and has no effect.

        Raises:
            ValueError: for a value out of range, and arguments of models that write text, or of a language model.
        """
        others = {"decoder_kwargs": decoder_kwargs, "return_language": return_language} | dict(generate_kwargs or {})
        for name, value in others.items():
            if value is not None:
                raise ValueError(f"{name}={value!r:.80} is not supported: {type(self.model).__name__} writes by CTC.")
        if return_timestamps is not None and return_timestamps not in TIMESTAMPS:
            raise ValueError(
                f"return_timestamps is {return_timestamps!r}, but CTC can either predict character level timestamps, "
                "or word level timestamps: 'char' or 'word'."
            )
        pieces = self._pieces(chunk_length_s, stride_length_s)
        return {"pieces": pieces}, {"return_timestamps": return_timestamps}

    # ------------------------------------------------------------------------------------------------ the stages

    def postprocess(
        self, model_outputs: Sequence[Mapping[str, Any]], return_timestamps: str | None = None
    ) -> dict[str, Any]:
        """Logits ``[1, frames, characters]`` of the pieces of a sound to its text."""
        tokens = np.concatenate([self._tokens(outputs) for outputs in model_outputs])
        answer: dict[str, Any] = {"text": self.tokenizer.decode(tokens, skip_special_tokens=False)}
        if return_timestamps:
            answer["chunks"] = self._chunks(tokens, return_timestamps)
        return answer | self.extras(model_outputs)

    def _tokens(self, outputs: Mapping[str, Any]) -> np.ndarray:
        """The likeliest character of each frame ``[frames]`` that counts."""
        tokens = self.read(outputs, "logits")[0].argmax(axis=-1)
        if (stride := outputs.get("stride")) is None:
            return tokens
        length, left, right = stride
        frames = round(length / self.samples_per_frame)
        left, right = (round(samples / length * frames) for samples in (left, right))
        return tokens[left : frames - right]

    def _chunks(self, tokens: np.ndarray, unit: str) -> list[dict[str, Any]]:
        """Characters or words with the seconds at which they start and end."""
        offsets = self.tokenizer.decode(tokens, skip_special_tokens=False, output_char_offsets=True)["char_offsets"]
        if unit == "word":
            offsets = self.tokenizer._get_word_offsets(offsets, self.tokenizer.replace_word_delimiter_char)
        frame, rate = self.samples_per_frame, self.feature_extractor.sampling_rate
        return [
            {"text": one[unit], "timestamp": tuple(one[f"{end}_offset"] * frame / rate for end in ("start", "end"))}
            for one in offsets
        ]
