"""One call of ``generate``: its inputs and options made tensors, the graph that they need, and the result."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_pipeline.arguments import EngineError, whole_number
from tf_pipeline.engines import Conversion
from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.generation import outputs
from tf_pipeline.generation.config import DEFAULTS, GenerationConfig, bounded, check_tokens, lengths, tokens_of
from tf_pipeline.generation.guidance import SCALE, Guided
from tf_pipeline.generation.lookup import MATCHING, LookupLoop, ReadsAhead
from tf_pipeline.generation.loop import Compiled, Loop, Progress, bucket, text_of
from tf_pipeline.generation.on_openvino import OnOpenVino, Step, wide_bucket
from tf_pipeline.generation.processors import prepared
from tf_pipeline.generation.prompts import prepared_prompts
from tf_pipeline.generation.recompute import Recomputing
from tf_pipeline.generation.search import BeamSearch, Rules, Sampling, Search
from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.generation.stopping import Stopping, stop_tables
from tf_pipeline.generation.streaming import drive
from tf_pipeline.inputs import waiting


class Own(NamedTuple):
    """A caller's own processors and stopping criteria."""

    processors: tuple[Callable, ...] = ()
    criteria: tuple[Callable, ...] = ()


class Call(NamedTuple):
    """A call, ready to run.

    Attributes:
        inputs: the prompts.
        rules: option values as tensors.
        loop: the loop to run.
        key: tells graphs apart.
        conversion: how OpenVINO computes the steps; ``None`` if TensorFlow does.
    """

    inputs: dict[str, tf.Tensor]
    rules: Rules
    loop: Loop
    key: tuple
    conversion: Conversion | None = None


def prepared_call(
    model,
    given: dict[str, Any],
    config: GenerationConfig,
    own: Own,
    tokenizer: Any = None,
    seed: Any = None,
    longest: int | None = None,
    conversion: Conversion | None = None,
) -> Call:
    """Make a call of inputs and options.

    Args:
        model: the model.
        given: its inputs.
        config: the options, of which lengths may be changed.
        own: a caller's own processors and criteria.
        tokenizer: for stop strings.
        seed: see :meth:`~tf_pipeline.generation.mixin.GenerationMixin.generate`.
        longest: maximum columns of prompts whose length only the graph knows; the rest of the model's positions is room
            for new tokens.
        conversion: how OpenVINO computes the steps, if it does.

    Raises:
        ValueError: for prompts or options that cannot be honoured.
    """
    inputs = prepared_prompts(model, given, config)
    check_tokens(config, model.config.get_text_config(decoder=True).vocab_size)
    inputs, most, capacity = _lengths(model, inputs, config, longest)
    conversion = _suited(conversion, config, text_of(inputs).shape[0])
    if conversion is not None:
        capacity = wide_bucket(capacity, model.max_generated_length)
    ends = tokens_of(config.eos_token_id)
    pad = config.pad_token_id if config.pad_token_id is not None else (*ends, 0)[0]
    rules = Rules(
        ends=tf.constant(bounded(ends)),
        pad=tf.constant(bounded(pad)),
        most=most,
        seed=_seed(seed),
        length_penalty=tf.constant(config.length_penalty, tf.float64),
        stops_when_full=tf.constant(config.early_stopping is True),
        hopes=tf.constant(config.early_stopping == "never"),
        options=prepared(config),
        stops=stop_tables(config.stop_strings, tokenizer),
        returned=tf.constant(config.num_return_sequences),
    )
    beams, is_random, stopping = config.num_beams, config.do_sample, Stopping(own.criteria)
    search: Search = Sampling(is_random, bool(ends), own.processors, stopping)
    if beams > 1:
        search = BeamSearch(is_random, beams, own.processors, stopping)
    copies = beams if beams > 1 else config.num_return_sequences
    kept = [bool(config.return_dict_in_generate and flag) for flag in (config.output_scores, config.output_logits)]
    stepper = _kept(model, ("stepper", "token_type_ids" in inputs), lambda: _stepper(model, inputs))
    if isinstance(stepper, Recomputing):
        inputs = model.long_enough(inputs)  # others read token after token
    room = 0
    if SCALE in inputs:
        inputs, room = _negative_capacity(inputs, most, capacity, model.max_generated_length)
        stepper = Guided(stepper, room)
    key = (capacity, room, copies, beams, is_random, bool(ends), tf.is_tensor(rules.stops), own, *kept)
    loop = Loop(stepper, search, capacity, copies, *kept)
    if config.prompt_lookup_num_tokens is not None:
        inputs = _alone(inputs, copies, beams)
        lookup = (config.prompt_lookup_num_tokens, config.max_matching_ngram_size or MATCHING)
        loop, key = LookupLoop(_ahead(stepper, model, capacity), search, capacity, *kept, *lookup), (*key, *lookup)
    return Call(inputs, rules, loop, (*key, *rules.options, *inputs), conversion)


def _suited(conversion: Conversion | None, config: GenerationConfig, rows: int | None) -> Conversion | None:
    """The conversion of a call; ``None`` if TensorFlow runs it, as is faster for several rows.

    Raises:
        EngineError: naming what OpenVINO cannot do, if it is required.
    """
    if conversion is None:
        return None
    is_default = (conversion.precision, conversion.quantize) == ("float32", None)  # what TensorFlow can run too
    if not conversion.required and is_default:
        is_lone = (rows, config.num_beams, config.num_return_sequences) == (1, 1, 1)  # of more, OpenVINO is slower
        is_able = tf.executing_eagerly() and config.prompt_lookup_num_tokens is None
        return conversion if is_lone and is_able else None
    if not tf.executing_eagerly():
        raise EngineError(
            'engine="openvino" needs Python between tokens; leave it out inside a tf.function and a signature.'
        )
    if config.prompt_lookup_num_tokens is not None:
        raise EngineError('prompt_lookup_num_tokens reads several tokens at once, which engine="openvino" does not do; '
                          "leave one of them out.")  # fmt: skip
    return conversion


def _alone(inputs: dict[str, tf.Tensor], copies: int, beams: int) -> dict[str, tf.Tensor]:
    """The inputs, once they are known to be those of one text, of which one is to be made.

    Raises:
        ValueError: if not.
    """
    hint = "Leave prompt_lookup_num_tokens out."
    if copies > 1:
        name = "num_beams" if beams > 1 else "num_return_sequences"
        raise ValueError(f"{name} has to be 1 when doing assisted generate, but is {copies}. {hint}")
    rows = text_of(inputs).shape[0]
    message = f"assisted generate is only supported for batch_size = 1. {hint}"
    if rows not in (1, None):
        raise ValueError(message)
    return waiting(inputs, [tf.debugging.assert_equal(tf.shape(text_of(inputs))[0], 1, message)])


def _ahead(stepper: Stepper, model, capacity: int) -> ReadsAhead:
    """The stepper, if it can read tokens on trial.

    Raises:
        ValueError: if not.
    """
    if not isinstance(stepper, ReadsAhead):
        how = " with guidance_scale" if isinstance(stepper, Guided) else ""
        raise ValueError(
            f"prompt_lookup_num_tokens: {type(model).__name__} reads one token at a time{how}; only decoders that are "
            "not ported and have no encoder read several. Leave it out."
        )
    stepper.check_ahead(capacity)
    return stepper


def _stepper(model, inputs: dict[str, tf.Tensor]) -> Stepper:
    """The model with its cache; without one, or with token types, it computes the text so far again for every token."""
    stepper = None if "token_type_ids" in inputs else model.stepper()
    return Recomputing(model) if stepper is None else stepper


def _lengths(
    model, inputs: dict[str, tf.Tensor], config: GenerationConfig, longest: int | None
) -> tuple[dict, tf.Tensor, int]:
    """The inputs, once they are known to fit, the greatest length of a text, the prompt counted, and the capacity.

    Raises:
        ValueError: if the model cannot read such a text.
    """
    has_encoder = "decoder_input_ids" in inputs
    prompt = text_of(inputs).shape[1]
    limit = model.max_generated_length
    if prompt is None:
        return _open_lengths(model, inputs, config, limit, longest)
    most, least = lengths(config, prompt, getattr(model.config, "max_position_embeddings", None), has_encoder)
    config.min_length = least
    # The last token is not read.
    if limit is not None and most - 1 > limit:
        raise ValueError(
            f"The prompt of {prompt} tokens and {most - prompt} new ones are more than the {limit} positions of "
            f"{type(model).__name__} (max_position_embeddings), of which the last new one takes none. Lower "
            "max_new_tokens, or shorten the prompt."
        )
    return inputs, tf.constant(most, tf.int32), bucket(most - 1, limit)


def _negative_capacity(
    inputs: dict[str, tf.Tensor], most: tf.Tensor, capacity: int, limit: int | None
) -> tuple[dict, int]:
    """The inputs, once the new tokens are known to fit behind the prompt that guides, and the capacity for these.

    Raises:
        ValueError: if they do not fit, or the length of that prompt is not known while a graph is traced.
    """
    length = inputs["negative_prompt_ids"].shape[1]
    if length is None:
        raise ValueError("The length of negative_prompt_ids has to be known while a graph is traced.")
    if length == 1:
        return inputs, capacity
    if limit is not None:
        last = most - 1 - tf.shape(inputs["input_ids"])[1] + length
        message = f"negative_prompt_ids and new tokens exceed {limit} positions (max_position_embeddings)."
        if tf.executing_eagerly() and last > limit:
            raise ValueError(message)
        inputs = waiting(inputs, [tf.debugging.assert_less_equal(last, limit, message)])
    return inputs, bucket(capacity + length, limit)


def _open_lengths(
    model, inputs: dict[str, tf.Tensor], config: GenerationConfig, limit: int | None, longest: int | None
) -> tuple[dict, tf.Tensor, int]:
    """The same of a prompt whose length only the graph knows."""
    prompt = tf.shape(text_of(inputs))[1]
    if config.max_new_tokens is None and config.max_length is not None:
        most, largest = tf.constant(config.max_length), config.max_length - 1
    elif limit is None and longest is None:
        raise ValueError(
            "The length of input_ids is not known while the graph is traced, so that max_length has to be given."
        )
    else:
        new = DEFAULTS["max_length"] if config.max_new_tokens is None else config.max_new_tokens
        most, largest = prompt + new, limit if longest is None else longest + new - 1
    if config.min_new_tokens is not None:
        config.min_length = 0
    if limit is not None and largest > limit:
        raise ValueError(f"max_length={largest + 1} is more than the {limit} positions of {type(model).__name__}.")
    checks = [
        tf.debugging.assert_less(prompt, most, "The prompt leaves no room below max_length."),
        tf.debugging.assert_less_equal(most - 1, largest, f"Prompt and new tokens exceed {largest} positions."),
    ]
    return waiting(inputs, checks), tf.cast(most, tf.int32), bucket(largest, limit)


def _seed(seed: Any) -> tf.Tensor:
    """Two numbers: given, made from one, or drawn, so that ``tf.random.set_seed`` makes them repeatable."""
    if seed is None:
        return tf.random.uniform([2], tf.int32.min, tf.int32.max, tf.int32)
    if tf.is_tensor(seed):
        return tf.reshape(tf.cast(seed, tf.int32), [2])
    numbers = [seed, 0] if np.ndim(seed) == 0 else list(seed)
    if len(numbers) != 2:
        raise ValueError(f"seed is {seed!r:.80}, but has to be a whole number, or two.")
    return tf.constant([whole_number("seed", number, 0) % 2**31 for number in numbers], tf.int32)


def run(model, call: Call, streamer: Any = None, max_time: float | None = None) -> dict[str, Any]:
    """Generate.

    Raises:
        ForkedProcessError: in a process that was forked from one in which TensorFlow ran.
        ValueError: if a graph is asked for an option that needs Python, or beams for a stream.
    """
    refuse_if_forked("generate")
    is_driven = streamer is not None or max_time is not None
    if not tf.executing_eagerly():
        if is_driven:
            raise ValueError("streamer and max_time need Python between tokens; leave them out inside a tf.function.")
        return call.loop.run(call.inputs, call.rules)
    if streamer is not None and isinstance(call.loop.search, BeamSearch):
        raise ValueError("A streamer needs num_beams=1: with beams, tokens change until the end.")
    compiled = _compiled(model, call)
    if is_driven:
        return drive(compiled, call.inputs, call.rules, streamer, max_time)
    return compiled.run(call.inputs, call.rules)


def _compiled(model, call: Call) -> Compiled:
    specs = {
        name: tf.TensorSpec(model.signal_shapes.get(name, [None] * value.shape.rank), value.dtype, name)
        for name, value in call.inputs.items()
    }
    if call.conversion is None:
        return _kept(model, call.key, lambda: Compiled(call.loop, specs, call.rules))
    step = partial(_step, model, call)
    return _kept(model, (*call.key, call.conversion), lambda: OnOpenVino(call.loop, specs, call.rules, step))


def _step(model, call: Call, progress: Progress) -> Step:
    """The step of a call on OpenVINO, which calls of other options share."""
    specs = tf.nest.flatten((progress.tokens, progress.rows, progress.model))
    key = ("step", type(call.loop.stepper), call.conversion, *((tuple(spec.shape), spec.dtype) for spec in specs))
    return _kept(model, key, lambda: Step(model, call.loop.stepper, progress, call.conversion))


@dataclass
class Kept:
    """Holds what was made of a model; no tuple or list, in which Keras' ``load_weights`` would find the model again.

    Attributes:
        state: of the model, while which it holds.
        made: what was made, by key.
    """

    state: tuple
    made: dict[Any, Any] = field(default_factory=dict)


def _kept(model, key: Any, make: Callable[[], Any]) -> Any:
    """Make something of a model once, and keep it until the model changes, as by adapters or quantization."""
    state = (model.changes, *(id(variable) for variable in model.variables))
    # Past Keras, which would track and save it.
    kept = vars(model).get("_generation_graphs")
    if kept is None or kept.state != state:
        kept = vars(model)["_generation_graphs"] = Kept(state)
    if key not in kept.made:
        kept.made[key] = make()
    return kept.made[key]


def wrapped(results: dict[str, Any], call: Call, config: GenerationConfig) -> Any:
    """The result of ``generate``: ``sequences``, or an output with the results that were asked for."""
    if not config.return_dict_in_generate:
        return results["sequences"]
    if not config.output_scores:
        results = {name: value for name, value in results.items() if name != "sequences_scores"}
    if tf.executing_eagerly():
        results |= {name: tuple(results[name]) for name in ("scores", "logits") if name in results}
    kind = "EncoderDecoder" if "decoder_input_ids" in call.inputs else "DecoderOnly"
    if isinstance(call.loop.search, BeamSearch):
        kind = f"Beam{kind}"
    return getattr(outputs, f"Generate{kind}Output")(results)
