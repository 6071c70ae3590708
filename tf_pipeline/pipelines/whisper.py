"""Transcribe speech with Whisper: the language and the task are the first tokens of the text."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import tensorflow as tf
from transformers.models.whisper.tokenization_whisper import TASK_IDS, TO_LANGUAGE_CODE

from tf_pipeline.generation.config import tokens_of
from tf_pipeline.pipelines.generating import Prompts, Settings, Writing
from tf_pipeline.pipelines.speech import SpeechPipeline
from tf_pipeline.pipelines.whisper_times import TimesInPairs, finished_tokens
from tf_pipeline.pipelines.whisper_words import FEATURES, SECONDS, token_times

# Values of a GenerationConfig that `generate` itself does not know; they are about the first tokens.
_OF_BEGINNINGS = ("language", "task")
# Options of Whisper's own `generate` that choose among several tries, or tell a window what was said before it.
_OF_TRIES = (
    "compression_ratio_threshold", "condition_on_prev_tokens", "logprob_threshold", "no_speech_threshold",
    "prompt_condition_type", "prompt_ids",
)  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass
class SpokenPrompts(Prompts):
    """Features of sounds, the tokens that each text begins with, and which times are asked for: any, those of words.

    ``None`` among the tokens stands for the language to be heard.
    """

    beginning: Sequence[int | None] = field(default=(), kw_only=True)
    has_times: bool = field(default=False, kw_only=True)
    has_words: bool = field(default=False, kw_only=True)


class WhisperPipeline(Writing, SpeechPipeline):
    """Texts of sounds by Whisper.

    A sound is given as :func:`~tf_pipeline.pipelines.media.as_sound` takes it. One that is longer than a window (30
    seconds) is read window after window, each from the last time that was written, greedily or with beams, without the
    further tries at higher temperatures that ``generate`` of PyTorch makes if it is asked for. Arguments of a call:

    - ``chunk_length_s``: seconds of pieces to read by themselves instead; their texts are joined where they agree.
    - ``stride_length_s``: seconds at both ends of a piece that its neighbours have too, by default a sixth of a piece.
    - ``generate_kwargs``: options of ``generate``, and ``language`` (such as ``"french"`` or ``"fr"``; the likeliest
      one of the sound if not given) and ``task`` (``"transcribe"``, or ``"translate"``, to English).
    - ``return_timestamps``: ``True`` for chunks with the seconds at which they start and end, by the model's own tokens
      of time, or ``"word"`` for words, by its attention to the sound, for which each window is read once more.
    - ``return_language``: whether to return chunks of one language each.
    - ``ignore_warning``: do not warn of pieces.

    The answer is ``{"text": …}``, with ``chunks`` if times or languages are asked for, and the other keys of a
    dictionary that was given.
    """

    engines = ()  # the loop of `generate` is TensorFlow's
    own_inputs = ("decoder_input_ids", "decoder_attention_mask")
    beside = (*SpeechPipeline.beside, "num_frames")
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
            ValueError: for a value out of range, for times that the checkpoint does not have, and for arguments of a
                language model.
        """
        options = dict(generate_kwargs or {})
        given = {"decoder_kwargs": decoder_kwargs} | {name: options.pop(name, None) for name in _OF_TRIES}
        for name, value in given.items():
            if value:
                raise ValueError(f"{name}={value!r:.80} is not supported for Whisper: leave it out.")
        # In generate_kwargs they are written, and not shown, as in PyTorch's pipeline.
        shown = self._times(return_timestamps, getattr(self.model.generation_config, "return_timestamps", None))
        has_times, has_words = bool(self._times(shown, options.pop("return_timestamps", None))), shown == "word"
        pieces = self._pieces(chunk_length_s, stride_length_s)
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
        language, task = (options.pop(name, None) for name in _OF_BEGINNINGS)
        if has_words and (task or getattr(self.model.generation_config, "task", None)) == "translate":
            logger.warning("The times of words may be wrong: those of a translation come in another order.")
        encoding = {"pieces": pieces, "settings": self._settings(options), "beginning": self._beginning(language, task)}
        return encoding | {"has_times": has_times, "has_words": has_words}, {
            "return_timestamps": shown or None,
            "return_language": return_language,
        }

    def _times(self, *asked: Any) -> bool | str:
        """The first of some values that asks for times, ``True`` or ``"word"``; ``False`` if none does.

        Raises:
            ValueError: for another value, or if the checkpoint does not have what these times take.
        """
        wanted = next(filter(None, asked), False)
        if wanted not in (True, False, "word"):
            raise ValueError(
                f"return_timestamps={wanted!r:.80} is not supported for Whisper, which gives times of segments, True, "
                "or of words, 'word'."
            )
        if wanted:
            self._first_time()
        if wanted == "word":
            self._heads()
        return wanted

    def _first_time(self) -> int:
        """The token of the time 0, behind that for none."""
        silent = getattr(self.model.generation_config, "no_timestamps_token_id", None)
        if silent is None:
            raise ValueError(
                "Times, which sounds of more than a window need, take no_timestamps_token_id in the checkpoint's "
                "generation_config.json."
            )
        return silent + 1

    def _heads(self) -> tuple[tuple[int, int], ...]:
        """The layers and heads of the decoder whose attention follows the sound.

        Raises:
            ValueError: if the checkpoint names none, or ones that the model does not have, if it is ported without
                attentions, or if the width of its median filter is even.
        """
        model = self.model
        given = getattr(model.generation_config, "alignment_heads", None)
        if given is not None and not (isinstance(given, list | tuple) and all(map(_is_pair, given))):
            raise ValueError(
                f"alignment_heads of generation_config.json is {given!r:.80}, but has to be a list of pairs."
            )
        named = tuple(map(tuple, given or ()))
        if not named:
            raise ValueError(
                "Times of words take alignment_heads in the checkpoint's generation_config.json: the pairs of a layer "
                "and a head whose attention follows the sound. return_timestamps=True gives times of segments."
            )
        if "cross_attentions" not in model.graph.outputs:
            raise ValueError(
                f"{type(model).__name__} is ported without the attentions that times of words take; "
                "return_timestamps=True gives times of segments."
            )
        layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
        if wrong := {*named}.difference(product(range(layers), range(heads))):
            raise ValueError(
                f"alignment_heads of generation_config.json names {[*min(wrong)]}, but the decoder has {layers} layers "
                f"of {heads} heads."
            )
        width = model.config.median_filter_width
        if width < 1 or width % 2 == 0:
            raise ValueError(f"median_filter_width of config.json is {width!r}, but has to be an odd number.")
        return named

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
        """Inputs of the model from one sound ``[samples]``, of a window or of all that is longer, and their frames."""
        extractor, options = self.feature_extractor, {}
        if len(sound) > extractor.n_samples:
            self._first_time()
            options = {"truncation": False, "padding": "longest"}
        features = extractor(
            sound, sampling_rate=extractor.sampling_rate, return_tensors="np", return_attention_mask=True, **options
        )
        inputs = {name: features[name] for name in self.input_names}
        return inputs | {"num_frames": int(features["attention_mask"].sum())}

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        super()._check_shape(name, (*shape[:-1], min(shape[-1], self._window)))

    @property
    def _window(self) -> int:
        """Frames of features that the model reads at a time."""
        return self.feature_extractor.nb_max_frames

    def encode(
        self,
        inputs: list[Any],
        settings: Settings,
        beginning: Sequence[int | None],
        has_times: bool = False,
        has_words: bool = False,
        **options: Any,
    ) -> Prompts:
        """Prepare many sounds."""
        rows = super().encode(inputs, **options)
        spoken = {"settings": settings, "beginning": beginning, "has_times": has_times, "has_words": has_words}
        return SpokenPrompts(rows.columns, rows.owners, rows.beside, **spoken)

    def forward(self, model_inputs: Mapping[str, Any], **parameters: Any) -> dict[str, Any]:
        """Second stage: ``generate``, on the features of one piece; ``parameters`` are those of a call.

        Returns:
            ``tokens`` int32 ``[1, seq]`` behind those that the text begins with, their ``token_timestamps`` float32
            ``[1, seq]`` if words are to have times, and what else ``preprocess`` gave.
        """
        encoding, _ = self._split(parameters)
        features = {name: np.asarray(model_inputs[name]) for name in self.input_names}
        frames = [model_inputs["num_frames"]] if encoding["has_words"] else None
        options = (encoding[name] for name in ("settings", "beginning", "has_times"))
        (written,) = self._written(features, *options, frames)
        return written | {name: model_inputs[name] for name in self.beside if name in model_inputs}

    def _run_batch(self, rows: SpokenPrompts, batch: list[int]) -> Iterator[dict[str, Any]]:
        features = {name: np.concatenate([column[row] for row in batch]) for name, column in rows.columns.items()}
        frames = [rows.beside["num_frames"][row] for row in batch] if rows.has_words else None
        found = self._written(features, rows.settings, rows.beginning, rows.has_times, frames)
        for row, written in zip(batch, found, strict=True):
            yield written | {name: values[row] for name, values in rows.beside.items()}

    def _written(
        self,
        features: Mapping[str, np.ndarray],
        settings: Settings,
        beginning: Sequence[int | None],
        has_times: bool,
        frames: Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:
        """The tokens of each row, and its language's if there is one; a row of several windows has times.

        ``frames``, of the sound of each row, asks for the time at which each token ends.
        """
        rows, length = len(next(iter(features.values()))), next(iter(features.values())).shape[-1]
        has_times |= length > self._window
        if has_times and beginning[-1] == self._first_time() - 1:
            beginning = beginning[:-1]
        begin = np.array([[-1 if token is None else token for token in beginning]] * rows, np.int32)
        if None in beginning:
            start = {name: value[..., : self._window] for name, value in features.items()}
            begin[:, beginning.index(None)] = self._detect_language(start, rows)
        if has_times:
            texts = self._with_times(features, settings, begin, frames)
        else:
            texts = [{"tokens": text} for text in self._without_times(features, settings, begin)]
        languages = [*(getattr(self.model.generation_config, "lang_to_id", None) or {}).values()]
        return [
            {name: values[np.newaxis] for name, values in text.items()}
            | {"language": [token for token in first.tolist() if token in languages][:1]}
            for text, first in zip(texts, begin, strict=True)
        ]

    def _without_times(
        self, features: Mapping[str, np.ndarray], settings: Settings, begin: np.ndarray
    ) -> list[np.ndarray]:
        """The new tokens of each row of one window."""
        width = begin.shape[1]
        texts = self._write(features, settings, width, decoder_input_ids=begin)[:, 0]
        return [self._ended(text[width:], settings.config) for text in texts]

    def _with_times(
        self,
        features: Mapping[str, np.ndarray],
        settings: Settings,
        begin: np.ndarray,
        frames: Sequence[int] | None = None,
    ) -> list[dict[str, np.ndarray]]:
        """The new tokens of each row, window after window, without those that end a window's text.

        With them the seconds at which they end, if the ``frames`` of the sounds are given.
        """
        (name, sounds), first = next(iter(features.items())), self._first_time()
        ends, settings = tokens_of(settings.config.eos_token_id), self._in_pairs(settings, begin.shape[1])
        per_time = self._window // self.model.config.max_source_positions
        total, places = sounds.shape[-1], [0] * len(sounds)
        texts: list[list[dict[str, np.ndarray]]] = [[] for _ in sounds]
        while rows := [row for row, place in enumerate(places) if place < total]:
            windows = {name: self._windows_from(sounds, rows, places)}
            written = self._without_times(windows, settings, begin[rows])
            found = [{"tokens": tokens} for tokens in written]
            if frames is not None:
                times = self._token_times(windows, begin[rows], written, [frames[row] - places[row] for row in rows])
                offsets = [np.float32(places[row] * SECONDS / FEATURES) for row in rows]
                for text, seconds, offset in zip(found, times, offsets, strict=True):
                    text["token_timestamps"] = seconds + offset
            for row, text in zip(rows, found, strict=True):
                tokens = text["tokens"]
                tokens = tokens[:-1] if len(tokens) and tokens[-1] in ends else tokens
                kept, passed = finished_tokens(tokens, first, min(total - places[row], self._window), per_time)
                texts[row].append({key: values[: len(kept)] for key, values in text.items()})
                places[row] += passed
        return [{key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in texts]

    def _in_pairs(self, settings: Settings, width: int) -> Settings:
        """Options by which times are written in pairs behind the ``width`` tokens that a text begins with."""
        latest = getattr(self.model.generation_config, "max_initial_timestamp_index", None)
        pairs = TimesInPairs(width, self._first_time(), tokens_of(settings.config.eos_token_id)[0], latest)
        own = [pairs, *(settings.options.get("logits_processor") or ())]
        return replace(settings, options=settings.options | {"logits_processor": own})

    def _windows_from(self, sounds: np.ndarray, rows: Sequence[int], places: Sequence[int]) -> np.ndarray:
        """A window of some sounds, each from its place on, filled up with zeros."""
        windows = np.zeros((len(rows), *sounds.shape[1:-1], self._window), sounds.dtype)
        for window, row in zip(windows, rows, strict=True):
            part = sounds[row][..., places[row] : places[row] + self._window]
            window[..., : part.shape[-1]] = part
        return windows

    def _token_times(
        self,
        features: Mapping[str, np.ndarray],
        begin: np.ndarray,
        texts: Sequence[np.ndarray],
        frames: Sequence[int],
    ) -> list[np.ndarray]:
        """The seconds at which the tokens of some texts end, each of one window, from the attention to the sound.

        Args:
            features: of the windows.
            begin: tokens that the texts begin with, int ``[rows, width]``.
            texts: the tokens behind them, of which the last had no influence on the others.
            frames: features between the start of each window and the end of its sound.
        """
        width, longest = begin.shape[1], max(map(len, texts))
        ids = np.zeros((len(texts), width + max(longest - 1, 0)), np.int32)
        ids[:, :width] = begin
        for row, text in zip(ids, texts, strict=True):
            row[width : width + len(text[:-1])] = text[:-1]
        inputs = {name: tf.cast(value, self.model.compute_dtype) for name, value in features.items()}
        inputs |= {"decoder_input_ids": tf.constant(ids), "decoder_attention_mask": tf.ones_like(ids)}
        attentions = self._attending(self._heads())(inputs).numpy()
        filter_width = self.model.config.median_filter_width
        return [
            token_times(followed[:, width : width + len(text[:-1])], left, filter_width)
            for followed, text, left in zip(attentions, texts, frames, strict=True)
        ]

    def _attending(self, heads: tuple[tuple[int, int], ...]) -> Any:
        """A compiled function of the model's inputs: the attention ``[rows, heads, tokens, positions]`` of heads."""
        if heads not in self._functions:
            self._functions[heads] = self._compile(partial(self._read_heads, heads), self._signature)
        return self._functions[heads]

    @cached_property
    def _functions(self) -> dict[Any, Any]:
        return {}

    def _read_heads(self, heads: Sequence[tuple[int, int]], inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        layers = self._run_model(inputs, output_attentions=True).cross_attentions
        return tf.stack([layers[layer][:, head] for layer, head in heads], axis=1)

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
        self,
        model_outputs: Sequence[Mapping[str, Any]],
        return_timestamps: bool | str | None = None,
        return_language: bool | None = None,
    ) -> dict[str, Any]:
        """The tokens of the pieces of a sound to its text."""
        pieces = []
        for outputs in model_outputs:
            piece = {name: np.asarray(outputs[name]) for name in ("tokens", "token_timestamps") if name in outputs}
            if return_language:  # a token that takes no time
                before = {"tokens": [outputs["language"]], "token_timestamps": np.zeros((1, len(outputs["language"])))}
                piece = {
                    name: np.concatenate([np.asarray(before[name], values.dtype), values], axis=1)
                    for name, values in piece.items()
                }
            pieces.append(piece)
            if outputs.get("stride") is not None:
                pieces[-1]["stride"] = tuple(x / self.feature_extractor.sampling_rate for x in outputs["stride"])
        text, optional = self.tokenizer._decode_asr(
            pieces,
            return_timestamps=return_timestamps,
            return_language=return_language,
            time_precision=self.feature_extractor.chunk_length / self.model.config.max_source_positions,
        )
        return {"text": text, **optional} | self.extras(model_outputs)


def _is_pair(value: Any) -> bool:
    """Whether a value names a layer and a head."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(number) is int for number in value)
