"""Write down what is said with Whisper: the language and the task are the first tokens of the text."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from transformers.models.whisper.tokenization_whisper import TASK_IDS, TO_LANGUAGE_CODE

from tf_pipeline.pipelines.generating import Prompts, Settings, Writing
from tf_pipeline.pipelines.speech import SpeechPipeline

# Values of a GenerationConfig that `generate` itself does not know; they are about the first tokens.
_OF_BEGINNINGS = ("language", "task")

logger = logging.getLogger(__name__)


@dataclass
class SpokenPrompts(Prompts):
    """Features of sounds, and the tokens that each text begins with; ``None`` stands for the language to be heard."""

    beginning: Sequence[int | None] = field(default=(), kw_only=True)


class WhisperPipeline(Writing, SpeechPipeline):
    """Texts of sounds by Whisper.

    A sound is given as :func:`~tf_pipeline.pipelines.media.as_sound` takes it, and may be as long as the feature
    extractor reads at a time (30 seconds), or longer if it is read in pieces. Arguments of a call:

    - ``chunk_length_s``: seconds of the pieces, 0 for the whole. The texts of pieces are joined where they agree.
    - ``stride_length_s``: seconds at both ends of a piece that its neighbours have too, by default a sixth of a piece.
    - ``generate_kwargs``: options of ``generate``, and ``language`` (such as ``"french"`` or ``"fr"``; the likeliest
      one of the sound if not given) and ``task`` (``"transcribe"``, or ``"translate"``, to English).
    - ``return_language``: whether to return chunks of one language each.
    - ``ignore_warning``: do not warn of pieces.

    The answer is ``{"text": …}``, with ``chunks`` if languages are asked for, and the other keys of a dictionary that
    was given. Timestamps are not supported.
    """

    engines = ()  # the loop of `generate` is TensorFlow's
    own_inputs = {
        name: tf.TensorSpec([None, None], tf.int32, name) for name in ("decoder_input_ids", "decoder_attention_mask")
    }
    default_options = {"max_new_tokens": 256, "num_beams": 5}

    def sanitize_parameters(
        self,
        chunk_length_s: float | None = None,
        stride_length_s: float | Sequence[float] | None = None,
        return_timestamps: bool | str | None = None,
        ignore_warning: bool | None = None,
        decoder_kwargs: Mapping[str, Any] | None = None,
        return_language: bool | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
    ):
        """See the class.

        Raises:
            ValueError: for a value out of range, for timestamps, and for arguments of a language model.
        """
        options = dict(generate_kwargs or {})
        timestamps = return_timestamps or options.pop("return_timestamps", None)
        for name, value in (("decoder_kwargs", decoder_kwargs), ("return_timestamps", timestamps)):
            if value:
                raise ValueError(f"{name}={value!r:.80} is not supported for Whisper: leave it out.")
        pieces = self._pieces(chunk_length_s, stride_length_s) if chunk_length_s else None
        if pieces is not None and pieces[0] > self.feature_extractor.n_samples:
            raise ValueError(
                f"chunk_length_s is {chunk_length_s!r}, but Whisper reads at most "
                f"{self.feature_extractor.chunk_length} seconds at a time."
            )
        if pieces is not None and not ignore_warning:
            logger.warning(
                "chunk_length_s reads the pieces of a sound by themselves: words may be lost or doubled where they are "
                "joined. ignore_warning=True says that this is known."
            )
        beginning = self._beginning(*(options.pop(name, None) for name in _OF_BEGINNINGS))
        encoding = {"pieces": pieces, "settings": self._settings(options), "beginning": beginning}
        return encoding, {"return_language": return_language}

    def _beginning(self, language: str | None, task: str | None) -> list[int | None]:
        """The tokens that texts begin with; ``None`` in place of a language that is not known yet.

        Raises:
            ValueError: for a language or a task that the model does not have.
        """
        config = self.model.generation_config
        languages, tasks = (getattr(config, name, None) for name in ("lang_to_id", "task_to_id"))
        language, task = language or getattr(config, "language", None), task or getattr(config, "task", None)
        if (language or task) and not getattr(config, "is_multilingual", True):
            raise ValueError(f"{type(self.model).__name__} is of one language: leave out language and task.")
        tokens = [config.decoder_start_token_id]
        if not language and not task:
            forced = [getattr(one, "forced_decoder_ids", None) for one in (config, self.model.config)]
            pairs = next(filter(None, forced), ())
            tokens += [token for place, (position, token) in enumerate(pairs, 1) if position == place]
            # Without a list of languages there is none to be heard.
            tokens = [token for place, token in enumerate(tokens) if token is not None or (languages and place == 1)]
        if language:
            tokens[1:2] = [self._language_id(language, languages)]
        elif languages and len(tokens) == 1:
            tokens.append(None)
        if task:
            if task not in TASK_IDS or task not in (tasks or ()):
                raise ValueError(f"The task {task!r:.80} is not supported; {', '.join(tasks or ()) or 'none'} can be.")
            tokens.append(tasks[task])
        elif language and tasks and not set(tasks.values()) & set(tokens):
            tokens.append(tasks["transcribe"])
        silent = getattr(config, "no_timestamps_token_id", None)
        if silent is not None and tokens[-1] != silent:
            tokens.append(silent)
        return tokens

    def _language_id(self, language: Any, known: Mapping[str, int] | None) -> int:
        name = str(language).lower()
        for token in (name, f"<|{TO_LANGUAGE_CODE.get(name, name)}|>"):
            if token in (known or ()):
                return known[token]
        words = ", ".join(token.strip("<|>") for token in known or ()) or "none"
        raise ValueError(f"The language {language!r:.80} is not supported by this checkpoint; it has {words}.")

    # ------------------------------------------------------------------------------------------------ the stages

    def rows_of(self, value: Any, **options: Any) -> list[dict[str, Any]]:
        """The features of a sound, or of its pieces, each ``[1, features, frames]``."""
        return super().rows_of(value, pieces=options.get("pieces"))

    def features(self, sound: np.ndarray) -> dict[str, Any]:
        """Inputs of the model from one sound ``[samples]``.

        Raises:
            ValueError: for a sound that is too long.
        """
        extractor = self.feature_extractor
        if len(sound) > extractor.n_samples:
            seconds = len(sound) / extractor.sampling_rate
            raise ValueError(
                f"The sound has {seconds:.1f} seconds, but Whisper reads {extractor.chunk_length} at a time: pass "
                f"chunk_length_s={extractor.chunk_length} to read it in pieces."
            )
        return super().features(sound)

    def encode(self, inputs: list[Any], settings: Settings, beginning: Sequence[int | None], **options: Any) -> Prompts:
        """Prepare many sounds."""
        rows = super().encode(inputs, **options)
        return SpokenPrompts(rows.columns, rows.owners, rows.beside, settings=settings, beginning=beginning)

    def forward(self, model_inputs: Mapping[str, Any], **parameters: Any) -> dict[str, Any]:
        """Second stage: ``generate``, on the features of one piece; ``parameters`` are those of a call.

        Returns:
            ``tokens`` int32 ``[1, seq]`` behind those that the text begins with, and what else ``preprocess`` gave.
        """
        encoding, _ = self._split(parameters)
        features = {name: np.asarray(model_inputs[name]) for name in self.input_names}
        (written,) = self._written(features, encoding["settings"], encoding["beginning"])
        return written | {name: model_inputs[name] for name in self.beside if name in model_inputs}

    def _run_batch(self, rows: SpokenPrompts, batch: list[int]) -> Iterator[dict[str, Any]]:
        features = {name: np.concatenate([column[row] for row in batch]) for name, column in rows.columns.items()}
        for row, written in zip(batch, self._written(features, rows.settings, rows.beginning), strict=True):
            yield written | {name: values[row] for name, values in rows.beside.items()}

    def _written(
        self, features: Mapping[str, np.ndarray], settings: Settings, beginning: Sequence[int | None]
    ) -> list[dict[str, Any]]:
        """The tokens of each row, and its language's if there is one."""
        rows = len(next(iter(features.values())))
        begin = np.array([[-1 if token is None else token for token in beginning]] * rows, np.int32)
        if None in beginning:
            begin[:, beginning.index(None)] = self._detect_language(features, rows)
        texts = self._write(features, settings, begin.shape[1], decoder_input_ids=begin)[:, 0]
        languages = [*(getattr(self.model.generation_config, "lang_to_id", None) or {}).values()]
        return [
            {
                "tokens": self._ended(text[begin.shape[1] :], settings.config)[np.newaxis],
                "language": [token for token in first.tolist() if token in languages][:1],
            }
            for text, first in zip(texts, begin, strict=True)
        ]

    def _detect_language(self, features: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """The likeliest language token behind the start token, int ``[rows]``."""
        config = self.model.generation_config
        start = tf.fill([rows, 1], tf.constant(config.decoder_start_token_id, tf.int32))
        inputs = {name: tf.cast(value, self.model.compute_dtype) for name, value in features.items()}
        inputs |= {"decoder_input_ids": start, "decoder_attention_mask": tf.ones_like(start)}
        logits = self.read(self._compiled(inputs), "logits")[:, -1]
        languages = np.array([*config.lang_to_id.values()])
        return languages[logits[:, languages].argmax(axis=-1)]

    def postprocess(
        self, model_outputs: Sequence[Mapping[str, Any]], return_language: bool | None = None
    ) -> dict[str, Any]:
        """The tokens of the pieces of a sound to its text."""
        pieces = []
        for outputs in model_outputs:
            tokens = np.asarray(outputs["tokens"])
            if return_language:
                tokens = np.concatenate([np.array([outputs["language"]], tokens.dtype), tokens], axis=1)
            pieces.append({"tokens": tokens})
            if outputs.get("stride") is not None:
                pieces[-1]["stride"] = tuple(x / self.feature_extractor.sampling_rate for x in outputs["stride"])
        text, optional = self.tokenizer._decode_asr(
            pieces,
            return_timestamps=None,
            return_language=return_language,
            time_precision=self.feature_extractor.chunk_length / self.model.config.max_source_positions,
        )
        return {"text": text, **optional} | self.extras(model_outputs)
