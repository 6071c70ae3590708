"""``generate``, which every model that predicts tokens has."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_pipeline.arguments import EngineError
from tf_pipeline.engines import conversion_of
from tf_pipeline.generation.call import Own, prepared_call, run, wrapped
from tf_pipeline.generation.config import GenerationConfig, resolved
from tf_pipeline.generation.guidance import NEGATIVE
from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.heads import Head, head_of
from tf_pipeline.hub import repository_file
from tf_pipeline.tracing import compiled

_FILE = "generation_config.json"
# Inputs of ``generate`` next to the one that a model is called with first.
_INPUTS = ("attention_mask", "token_type_ids", "decoder_input_ids", *NEGATIVE)


class GenerationMixin:
    """Gives ``generate`` to models that predict tokens. Mixed into :class:`~tf_pipeline.model.TFPreTrainedModel`."""

    def can_generate(self) -> bool:
        """Whether the model has a head whose tokens continue a text."""
        head = self._head()
        return head is not None and head.generates

    def _head(self) -> Head | None:
        return next((head for base in type(self).__mro__ if (head := head_of(base.__name__))), None)

    @property
    def generation_config(self) -> GenerationConfig | None:
        """The options of ``generate`` that hold unless a call changes them; ``None`` for a model without it.

        They are those of the checkpoint's ``generation_config.json``, or, without one, those in the model's config.
        """
        if "_generation_config" not in vars(self) and self.can_generate():
            vars(self)["_generation_config"] = GenerationConfig.from_model_config(self.config)
        return vars(self).get("_generation_config")

    @generation_config.setter
    def generation_config(self, config: GenerationConfig) -> None:
        vars(self)["_generation_config"] = config

    def _load_generation_config(self, source: Any, **hub_options: Any) -> None:
        """Read the options that lie next to a checkpoint."""
        if self.can_generate() and (path := repository_file(source, _FILE, required=False, **hub_options)):
            self.generation_config = GenerationConfig.from_pretrained(str(path.parent))

    def _save_generation_config(self, folder: Path) -> None:
        if self.can_generate():
            self.generation_config.save_pretrained(folder)

    @property
    def max_generated_length(self) -> int | None:
        """Maximum number of tokens that the model reads of a text that it writes; ``None`` without a limit."""
        return self.max_length

    def stepper(self) -> Stepper | None:
        """The model as one that reads token after token with a cache, if it has one."""
        return self if isinstance(self, Stepper) else None

    @tf.autograph.experimental.do_not_convert  # in a user's tf.function; the loop is made of TensorFlow's own ops
    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Callable] | None = None,
        stopping_criteria: Sequence[Callable] | None = None,
        streamer: Any = None,
        tokenizer: Any = None,
        seed: int | Sequence[int] | None = None,
        engine: str = "tensorflow",
        precision: str = "float32",
        quantize: str | None = None,
        **options: Any,
    ) -> Any:
        """Continue texts, or write them from the text that an encoder read.

        Prompts are padded on the left. The first call of a kind compiles a graph, which serves all prompts of about
        a length; see ``docs/generation.md``.

        Args:
            inputs: ``input_ids``, int ``[batch, seq]``, or of a model that hears, ``input_features``; or the dictionary
                that a tokenizer or processor returns.
            generation_config: options instead of the checkpoint's.
            logits_processor: callables of ``input_ids`` ``[rows, seq]`` and float32 scores ``[rows, vocab]`` that
                return scores, made of TensorFlow ops.
            stopping_criteria: callables of ``input_ids`` and ``None`` that return bool ``[rows]``: whose text ends.
            streamer: gets each token as soon as it is chosen, by ``put`` and ``end``, as those of ``transformers``.
            tokenizer: for ``stop_strings``.
            seed: makes sampling repeatable: a number, or two.
            engine: what computes the step of each token: ``"tensorflow"``, ``"openvino"``, or ``"auto"`` for OpenVINO
                where it is installed and runs the model, and there is one text and one beam.
            precision: dtype that OpenVINO computes in: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
            quantize: ``"int8"`` for weights that OpenVINO keeps as eight-bit integers.
            **options: inputs (``attention_mask``, ``decoder_input_ids``, ``token_type_ids``, and with
                ``guidance_scale`` also ``negative_prompt_ids`` and ``negative_prompt_attention_mask``) and values of
                ``GenerationConfig``, such as ``max_new_tokens``, ``num_beams`` or ``do_sample``.

        Returns:
            int32 ``[batch * num_return_sequences, seq]``: the prompt and its continuation, or the decoder's prompt
            and its continuation. With ``return_dict_in_generate=True`` a class of
            :mod:`tf_pipeline.generation.outputs`.

        Raises:
            TypeError: for an unknown option.
            ValueError: if the model predicts no tokens, or for prompts or options that cannot be honoured.
            EngineError: for an engine that cannot run this model or call.
        """
        self._require_head()
        if engine == "xla":
            raise EngineError("engine='xla' does not run generate; use tensorflow or openvino.")
        conversion = conversion_of(engine, precision, quantize, self.compute_dtype)
        given, options = self._split(inputs, options)
        names = {self.main_input_name, *_INPUTS}
        config = resolved(self.generation_config, generation_config, options, f"{type(self).__name__}.generate", names)
        own = Own(_callables("logits_processor", logits_processor), _callables("stopping_criteria", stopping_criteria))
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise ValueError(f"streamer is {streamer!r:.80}, but has to have put and end, as a TextStreamer has.")
        call = prepared_call(self, given, config, own, tokenizer, seed, conversion=conversion)
        return wrapped(run(self, call, streamer, config.max_time), call, config)

    def generate_signature(self, **options: Any) -> tf.types.experimental.PolymorphicFunction:
        """``generate`` with options of one's own as a signature of a SavedModel.

        Args:
            **options: of :meth:`generate`. Without ``seed``, sampling draws differently each time.

        Returns:
            A ``tf.function`` of ``input_ids`` and ``attention_mask``, int32 ``[batch, seq]`` of any size, or of the
            sound that a model takes, that returns ``sequences``, and other outputs that the options ask for, by name.

        Raises:
            ValueError: for a model of any number of positions, without ``max_length``.
        """
        specs = {name: tf.TensorSpec([None, None], tf.int32, name) for name in ("input_ids", "attention_mask")}
        if self.main_input_name != "input_ids":
            name = self.main_input_name
            specs = {name: tf.TensorSpec(self.signal_shapes[name], self.compute_dtype, name)}

        def generate(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return dict(self.generate(inputs, **options, return_dict_in_generate=True))

        return compiled(generate, specs)

    def _require_head(self) -> None:
        if not self.can_generate():
            raise ValueError(
                f"{type(self).__name__} predicts no tokens; load it with TFAutoModelForCausalLM or …Seq2SeqLM."
            )

    def _split(self, inputs: Any, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The inputs and the other arguments of a call."""
        main = self.main_input_name
        given = dict(inputs) if isinstance(inputs, Mapping) else {} if inputs is None else {main: inputs}
        named = {name: options.pop(name) for name in (main, *_INPUTS) if name in options}
        if twice := given.keys() & named.keys():
            raise TypeError(f"{sorted(twice)[0]} is given twice.")
        given |= named
        accepted = {main, *NEGATIVE, *(name for name in _INPUTS if name in self.tensor_names)}
        accepted |= {"attention_mask"} if main == "input_ids" else set()
        if isinstance(self, Stepper):
            accepted -= {"token_type_ids"}
        if unknown := [name for name in given if name not in accepted and given[name] is not None]:
            names, takes = ", ".join(map(str, unknown)), ", ".join(sorted(accepted))
            raise TypeError(f"{type(self).__name__}.generate does not take {names}; it takes {takes}.")
        return given, options


def _callables(name: str, value: Any) -> tuple[Callable, ...]:
    """The callables of a list, which may be absent."""
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(map(callable, value)):
        raise ValueError(f"{name} is {value!r:.80}, but has to be a list of callables.")
    return tuple(value)
