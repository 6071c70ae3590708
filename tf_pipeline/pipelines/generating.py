"""The base of pipelines whose model writes text: tokenizer, ``generate``, and the tokenizer again."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.generation.config import REFUSED, GenerationConfig, options_of, resolved, tokens_of
from tf_pipeline.generation.guidance import NEGATIVE
from tf_pipeline.pipelines.base import Pipeline, Rows
from tf_pipeline.pipelines.batching import batches_by_length

# Arguments of `generate` that are no values of a GenerationConfig.
_CALL = ("generation_config", "logits_processor", "stopping_criteria", "streamer", "seed", "tokenizer")
# Defaults of a pipeline for these hold if it samples.
_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
# Options that a tokenizer of many languages sets.
_OF_TOKENIZER = ("forced_bos_token_id",)
_RESULTS = ("return_dict_in_generate", "output_scores", "output_logits")


@dataclass
class Settings:
    """Options of ``generate`` for a call of a pipeline.

    Attributes:
        options: arguments of ``generate``.
        config: all options, the checkpoint's included, to look at.
        is_default_length: whether nobody but the pipeline says how long a text may become.
        uses_total: whether a text's length is limited with its prompt, so that prompts of different lengths leave
            room for different numbers of tokens.
    """

    options: dict[str, Any]
    config: GenerationConfig
    is_default_length: bool
    uses_total: bool


@dataclass
class Prompts(Rows):
    """Tokenized inputs, and the options of ``generate``."""

    settings: Settings | None = field(default=None, kw_only=True)


class Writing:
    """The part of a pipeline that calls ``generate``: its options, and the tokens that it writes.

    Attributes:
        default_options: options where nobody says anything.
    """

    default_options: Mapping[str, Any] = {}
    # Options that the checkpoint has for the task, and whether the model writes from a start token, not from a prompt.
    _specific: Mapping[str, Any] = {}
    _has_encoder = True

    def _settings(self, options: dict[str, Any]) -> Settings:
        """Options of ``generate`` for a call that gives some."""
        if asked := [name for name in _RESULTS if options.get(name)]:
            raise ValueError(f"{asked[0]}: a pipeline answers with texts; call pipe.model.generate for more.")
        given = options.get("generation_config")
        higher = {**(_set_values(given) if isinstance(given, GenerationConfig) else {}), **options}
        specific = {name: value for name, value in self._specific.items() if name not in higher}
        if "max_new_tokens" in higher:
            specific.pop("max_length", None)
        known = _set_values(self.model.generation_config) | specific | higher
        added = {name: value for name, value in self.default_options.items() if name not in known}
        if "max_length" in known:  # which the number of new tokens would override
            added.pop("max_new_tokens", None)
        is_default_length = "max_new_tokens" in added
        if not (known | added).get("do_sample"):
            added = {name: value for name, value in added.items() if name not in _SAMPLING}
        if known.get("pad_token_id") is None and self.tokenizer.pad_token_id is not None:
            added["pad_token_id"] = self.tokenizer.pad_token_id
        merged = added | specific | options
        values = {name: value for name, value in merged.items() if name not in (*_CALL, *NEGATIVE)}
        config = resolved(self.model.generation_config, given, values, self.task, set())
        has_totals = config.max_new_tokens is None or (config.min_length and config.min_new_tokens is None)
        return Settings(merged, config, is_default_length, bool(has_totals) and not self._has_encoder)

    def _write(self, inputs: Mapping[str, np.ndarray], settings: Settings, width: int, **more: Any) -> np.ndarray:
        """Texts ``[rows, texts, seq]`` for inputs ``[rows, …]``, which begin with ``width`` tokens.

        Args:
            inputs: of the model.
            settings: options of ``generate``.
            width: number of tokens that a text begins with.
            **more: further arguments of ``generate``.
        """
        refuse_if_forked(type(self).__name__)
        options, limit = settings.options | more, self.model.max_generated_length
        if settings.is_default_length and limit is not None and width <= limit:
            options["max_new_tokens"] = min(options["max_new_tokens"], limit + 1 - width)
        if settings.config.stop_strings:
            options.setdefault("tokenizer", self.tokenizer)
        options["logits_processor"] = [*(options.get("logits_processor") or ()), _numbers]
        if self.engine == "openvino":
            precision, quantize, required = self._conversion
            options |= {"engine": "openvino" if required else "auto", "precision": precision, "quantize": quantize}
        try:
            with tf.device(self.device):
                sequences = self.model.generate(dict(inputs), **options).numpy()
        except tf.errors.InvalidArgumentError as error:
            for name, value in _NO_NUMBERS.items():
                if name in str(error):
                    self.check_numbers(np.full(1, value), "logits")
            raise
        return sequences.reshape(len(next(iter(inputs.values()))), -1, sequences.shape[-1])

    def _ended(self, tokens: np.ndarray, config: GenerationConfig) -> np.ndarray:
        """New tokens of a text up to its end; behind it, a batch is filled up."""
        ends = tokens_of(config.eos_token_id)
        if not ends:
            return tokens
        places = np.flatnonzero(np.isin(tokens, ends))
        if len(places):
            return tokens[: places[0] + 1]
        pad = config.pad_token_id if config.pad_token_id is not None else ends[0]
        filled = np.flatnonzero((tokens != pad) & (tokens >= 0))
        return tokens[: filled[-1] + 1] if len(filled) else tokens[:0]


class GeneratingPipeline(Writing, Pipeline):
    """Tokenizer, ``generate`` and decoding.

    Options of ``generate`` are arguments of a call or of the pipeline. Where neither they nor a ``generation_config=``
    say anything, the checkpoint's ``task_specific_params`` for the task hold, then its ``generation_config.json``, then
    the defaults of the task.

    Args:
        model: a model of this package that predicts tokens.
        tokenizer: its Hugging Face tokenizer.
        batch_size: maximum number of texts in a batch; by default only ``token_budget`` counts.
        token_budget: maximum number of tokens in a batch, padding and new ones included.
        task: name of the task if it says more than the class, such as ``"translation_en_to_fr"``.
        **parameters: see :class:`~tf_pipeline.pipelines.base.Pipeline`.
    """

    engines = ("openvino",)

    def __init__(
        self,
        model,
        tokenizer,
        batch_size: int | None = None,
        token_budget: int = 8192,
        task: str | None = None,
        **parameters: Any,
    ):
        if not model.can_generate():
            raise ValueError(
                f"{type(model).__name__} predicts no tokens; load it with {self.auto_class().__name__} for {self.task}."
            )
        self.named_task = task or self.task
        specific = dict((getattr(model.config, "task_specific_params", None) or {}).get(self.named_task) or {})
        self.prefix: str = specific.pop("prefix", None) or getattr(model.config, "prefix", None) or ""
        self._specific = specific
        self._has_encoder = "decoder_input_ids" in model.tensor_names
        super().__init__(model, tokenizer, batch_size, token_budget, **parameters)
        self.input_names = ("input_ids", "attention_mask")

    @classmethod
    def argument_names(cls) -> list[str]:
        """Names of the arguments of a call: those of the task and those of ``generate``."""
        return [*super().argument_names(), *options_of(GenerationConfig()), *_CALL, *NEGATIVE, *REFUSED]

    def settings(self, **parameters: Any) -> Settings:
        """The options of ``generate`` for a call with some arguments."""
        return self._split(parameters)[0]["settings"]

    # ------------------------------------------------------------------------------------------------ the stages

    def forward(self, model_inputs: Mapping[str, Any], **parameters: Any) -> dict[str, Any]:
        """Second stage: ``generate``, on int ``[1, seq]`` inputs; ``parameters`` are those of a call.

        Returns:
            ``generated_sequence`` int32 ``[1, texts, seq]``, ``input_ids``, and the other values of ``preprocess``.
        """
        settings = self.settings(**parameters)
        inputs = {name: np.asarray(model_inputs[name]) for name in self.input_names if name in model_inputs}
        inputs.setdefault("attention_mask", np.ones_like(inputs["input_ids"]))
        beside = {name: value for name, value in model_inputs.items() if name not in inputs}
        texts = self._generate(inputs, settings, beside)[0]
        return {"generated_sequence": texts[np.newaxis], "input_ids": inputs["input_ids"], **beside}

    def _generate(self, inputs: Mapping[str, np.ndarray], settings: Settings, beside: Mapping[str, Any]) -> np.ndarray:
        """Texts ``[rows, texts, seq]`` for inputs ``[rows, seq]``, and the values that go round the model."""
        width = 1 if self._has_encoder else inputs["input_ids"].shape[1]
        return self._write(inputs, settings, width, **{name: beside[name] for name in _OF_TOKENIZER if name in beside})

    def encode(self, inputs: list[Any], settings: Settings, **tokenizer_kwargs: Any) -> Prompts:
        """Tokenize many inputs at once, one row for each."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ all at once

    def _batches(self, rows: Prompts, lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
        settings = rows.settings
        if settings.options.get("streamer") is not None:
            batch_size = 1
        new = settings.config.max_new_tokens or settings.config.max_length or 0
        costs = [length + (new if settings.config.max_new_tokens else max(0, new - length)) for length in lengths]
        if settings.uses_total or "attention_mask" not in self.model.tensor_names:
            least = 0
        elif settings.is_default_length and not self._has_encoder and self.model.max_generated_length is not None:
            least = self.model.max_generated_length + 1 - new  # a longer prompt leaves room for fewer new tokens
        else:
            least = max(lengths, default=0)
        alike: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(lengths):
            alike[max(length, least)].append(row)
        for length in sorted(alike, reverse=True):
            for batch in batches_by_length([costs[row] for row in alike[length]], self.token_budget, batch_size):
                yield [alike[length][place] for place in batch]

    def _run_batch(self, rows: Prompts, batch: list[int]) -> Iterator[dict[str, Any]]:
        inputs = self._batch(rows, batch)
        texts = self._generate(inputs, rows.settings, {name: values[batch[0]] for name, values in rows.beside.items()})
        # The token that the decoder starts from is no new one, and may be one that ends a text.
        width = 1 if self._has_encoder else inputs["input_ids"].shape[1]
        for place, row in enumerate(batch):
            ids = np.asarray(rows.columns["input_ids"][row], np.int32)
            beside = {name: values[row] for name, values in rows.beside.items()}
            written = [
                np.concatenate(
                    [text[:width] if self._has_encoder else ids, self._ended(text[width:], rows.settings.config)]
                )
                for text in texts[place]
            ]
            yield {"generated_sequence": [written], "input_ids": ids[np.newaxis], **beside}

    def _check_length(self, length: int, what: str = "The text", multiple: int | None = None) -> None:
        if self.model.max_length is not None:
            super()._check_length(length, what, multiple)

    @property
    def trace_count(self) -> int:
        """Number of graphs that the model generates with; new prompts of about a length add none."""
        kept = vars(self.model).get("_generation_graphs")
        return 0 if kept is None else sum(1 for key in kept.made if key[0] not in ("stepper", "step"))


# Messages of assertions about logits, and the values that they are of.
_NO_NUMBERS = {"The logits hold NaN.": np.nan, "The logits hold infinity.": np.inf}


def _numbers(input_ids: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """A logits processor that fails for NaN and infinity, of which tokens would be chosen without a word."""
    wrong = (tf.math.is_nan(scores), tf.equal(scores, np.inf))
    messages = zip(wrong, _NO_NUMBERS, strict=True)
    with tf.control_dependencies([tf.debugging.Assert(~tf.reduce_any(x), [message]) for x, message in messages]):
        return tf.identity(scores)


def choice(name: str, value: Any, allowed: range) -> int:
    """The number of a choice that is given as a number or as a member of an enumeration.

    Raises:
        ValueError: if it is not among those that are allowed.
    """
    number = getattr(value, "value", value)
    if number not in allowed:
        raise ValueError(f"{name} is {value!r:.80}, but has to be a number from 0 to {allowed[-1]}.")
    return int(number)


def _set_values(config: GenerationConfig) -> dict[str, Any]:
    """The options that a config says anything about."""
    values = options_of(config)
    return {name: value for name, value in values.items() if value is not None and name != "transformers_version"}
