"""The inputs of ``generate``, checked and completed."""

import warnings
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_pipeline.generation.config import GenerationConfig, tokens_of
from tf_pipeline.generation.guidance import NEGATIVE, SCALE
from tf_pipeline.inputs import as_tensor

# Models that PyTorch's `generate` gives other inputs than the text so far.
_READ_DIFFERENTLY = {
    "xlnet": "a place to fill and a permutation mask behind the text",
    "xlm": "a mask token behind the text",
    "flaubert": "a mask token behind the text",
}

# Values of a generation config by which PyTorch's Whisper chooses tokens behind the first.
_BEGINNINGS = ("lang_to_id", "task_to_id", "no_timestamps_token_id", "forced_decoder_ids")


def prepared_prompts(model, given: Mapping[str, Any], config: GenerationConfig) -> dict[str, tf.Tensor]:
    """Inputs that a :class:`~tf_pipeline.generation.stepper.Stepper` reads first.

    Args:
        model: the model.
        given: inputs of the call.
        config: the options of the call.

    Raises:
        ValueError: for prompts that cannot be continued.
    """
    if (kind := model.config.model_type) in _READ_DIFFERENTLY:
        raise ValueError(
            f"{type(model).__name__} generates in PyTorch from {_READ_DIFFERENTLY[kind]}, which is not supported here."
        )
    has_encoder = "decoder_input_ids" in model.tensor_names
    if model.main_input_name != "input_ids":
        return _heard(model, given, config, has_encoder)
    ids = _ids(model, "input_ids", given.get("input_ids"), None if has_encoder else config.bos_token_id)
    mask = _mask(model, ids, given.get("attention_mask"), config, has_encoder)
    prompts = {"input_ids": ids, "attention_mask": mask}
    if given.get("token_type_ids") is not None:
        prompts["token_type_ids"] = _like(ids, "token_type_ids", given["token_type_ids"])
    if has_encoder:
        prompts["decoder_input_ids"] = _decoder_ids(model, given.get("decoder_input_ids"), tf.shape(ids)[0], config)
    return prompts | _guidance(model, ids, given, config, has_encoder)


def _guidance(
    model, ids: tf.Tensor, given: Mapping[str, Any], config: GenerationConfig, has_encoder: bool
) -> dict[str, tf.Tensor]:
    """Inputs of :class:`~tf_pipeline.generation.guidance.Guided`, whose other prompt is the last token by default."""
    scale, others = config.guidance_scale, {name: given[name] for name in NEGATIVE if given.get(name) is not None}
    if scale is None or scale == 1:
        if others:
            raise ValueError(f"{next(iter(others))} has a meaning with guidance_scale alone; give that too, not 1.")
        return {}
    if has_encoder:
        raise ValueError(f"guidance_scale={scale}: {type(model).__name__} has an encoder; only decoders are guided.")
    negative, mask = NEGATIVE
    if mask in others and negative not in others:
        raise ValueError(f"{mask} is given without {negative}.")
    against = _ids(model, negative, others[negative], None) if others else tf.ensure_shape(ids[:, -1:], [None, 1])
    if not against.shape[:1].is_compatible_with(ids.shape[:1]):
        raise ValueError(f"{negative} has {against.shape[0]} rows, but input_ids have {ids.shape[0]}.")
    shown = _like(against, mask, others[mask], negative) if mask in others else tf.ones_like(against)
    return {negative: against, mask: shown, SCALE: tf.constant(scale, tf.float32)}


def _heard(model, given: Mapping[str, Any], config: GenerationConfig, has_encoder: bool) -> dict[str, tf.Tensor]:
    """The inputs of a model that transcribes sound or describes images."""
    if not has_encoder:
        raise ValueError(f"{type(model).__name__} does not generate: its text begins with {model.main_input_name}.")
    given = {name: as_tensor(name, value) for name, value in given.items() if value is not None}
    start = given.pop("decoder_input_ids", None)
    prompts = model.check(given)
    name = model.main_input_name
    prompts[name] = tf.cast(prompts[name], model.compute_dtype)
    for option, neutral in (("encoder_repetition_penalty", 1.0), ("encoder_no_repeat_ngram_size", 0)):
        if getattr(config, option) != neutral:
            warnings.warn(f"{option} has no effect: the encoder reads no tokens.", stacklevel=4)
            setattr(config, option, neutral)
    return prompts | {"decoder_input_ids": _decoder_ids(model, start, tf.shape(prompts[name])[0], config)}


def _ids(model, name: str, value: Any, start: int | None) -> tf.Tensor:
    if value is None:
        if start is None:
            raise ValueError(f"{type(model).__name__} needs {name}, because its generation_config has no bos_token_id.")
        value = [[start]]
    ids = as_tensor(name, value)
    if not ids.dtype.is_integer:
        hint = " Encode text first: tokenizer(text, return_tensors='tf')." if ids.dtype == tf.string else ""
        raise ValueError(f"{name} has dtype {ids.dtype.name}, but ids are integers.{hint}")
    if ids.shape.rank != 2:
        hint = f" Add the batch dimension with tf.expand_dims({name}, axis=0)." if ids.shape.rank == 1 else ""
        raise ValueError(f"{name} has shape {tuple(ids.shape)}, but generate takes [batch, seq].{hint}")
    if 0 in ids.shape:
        raise ValueError(f"{name} has shape {tuple(ids.shape)}: there is no token to go on from.")
    size = getattr(model.config.get_text_config(decoder=True), "vocab_size", None)
    if size and tf.executing_eagerly() and not 0 <= (wrong := _outlier(ids)) < size:
        raise ValueError(
            f"{name} holds {wrong}, which is outside 0 … {size - 1} (vocab_size={size} in the config). Do the "
            "tokenizer and the model belong together?"
        )
    return tf.cast(ids, tf.int32)


def _outlier(ids: tf.Tensor) -> int:
    least = int(tf.reduce_min(ids))
    return least if least < 0 else int(tf.reduce_max(ids))


def _like(ids: tf.Tensor, name: str, value: Any, ids_name: str = "input_ids") -> tf.Tensor:
    value = as_tensor(name, value)
    if not value.shape.is_compatible_with(ids.shape):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but generate takes that of {ids_name}, {tuple(ids.shape)}."
        )
    return tf.cast(value, tf.int32)


def _mask(model, ids: tf.Tensor, given: Any, config: GenerationConfig, has_encoder: bool) -> tf.Tensor:
    """The attention mask: the given one, or that of the padding if it shows, as in PyTorch."""
    ends, pad = tokens_of(config.eos_token_id), config.pad_token_id
    is_batch = ids.shape[0] is None or ids.shape[0] > 1
    if given is not None:
        mask = _like(ids, "attention_mask", given)
    elif has_encoder or pad is None or pad in ends:
        mask = tf.ones_like(ids)
        if not has_encoder and is_batch and ends and tf.executing_eagerly():
            warnings.warn(
                "Several prompts without an attention_mask, and padding cannot be told from the end of a text "
                f"(pad_token_id={pad}, eos_token_id={config.eos_token_id}): all ids are taken for text.",
                stacklevel=5,
            )
    else:
        mask = tf.cast(ids != pad, tf.int32)
    if not tf.executing_eagerly():
        return mask
    if not has_encoder and is_batch and bool(tf.reduce_any(mask[:, -1] == 0)):
        warnings.warn(
            "Prompts are padded on the right, so that what is generated follows padding. Set padding_side='left' of "
            "the tokenizer.",
            stacklevel=5,
        )
    if "attention_mask" not in model.tensor_names and bool(tf.reduce_any(mask == 0)):
        raise ValueError(f"{type(model).__name__} takes no attention_mask; give prompts of one length.")
    return mask


def _decoder_ids(model, given: Any, rows: tf.Tensor, config: GenerationConfig) -> tf.Tensor:
    """The decoder's prompt: the start token, and behind it the given ids."""
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    if start is None:
        raise ValueError(
            f"{type(model).__name__} needs decoder_start_token_id or bos_token_id in its generation_config."
        )
    first = tf.broadcast_to(tf.reshape(tf.constant(start, tf.int32), [-1, 1]), [rows, 1])
    if given is None:
        _refuse_to_guess(model, config)
        return first
    ids = _ids(model, "decoder_input_ids", given, None)
    if model.config.model_type == "whisper":
        return ids
    # PyTorch puts the start token in front unless some row has it already.
    starts = tf.reduce_any(ids[:, :1] == first)
    if tf.executing_eagerly():
        return ids if starts else tf.concat([first, ids], 1)
    return tf.cond(starts, lambda: ids, lambda: tf.concat([first, ids], 1))


def _refuse_to_guess(model, config: GenerationConfig) -> None:
    """Refuse to begin a text of Whisper with the start token alone, if others say the language and the task.

    PyTorch chooses them by arguments of its own, or by a first look at the sound.
    """
    said = [name for name in _BEGINNINGS if getattr(config, name, None) is not None]
    if model.config.model_type == "whisper" and said:
        raise ValueError(
            f"{type(model).__name__} begins its text with tokens of a language and a task ({said[0]} in its "
            "generation_config): pass them as decoder_input_ids, such as those of <|startoftranscript|><|en|>"
            "<|transcribe|><|notimestamps|>."
        )
