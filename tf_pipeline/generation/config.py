"""Options of ``generate``: those of ``transformers`` 5.24, each honoured, refused by name, or unknown."""

import copy
import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from transformers.generation.configuration_utils import GenerationConfig

from tf_pipeline.arguments import Explained, refuse_unknown, settled

# Defaults if neither the caller nor the checkpoint says anything.
DEFAULTS: dict[str, Any] = {
    "max_length": 20,
    "min_length": 0,
    "do_sample": False,
    "num_beams": 1,
    "early_stopping": False,
    "length_penalty": 1.0,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "remove_invalid_values": False,
    "output_scores": False,
    "return_dict_in_generate": False,
}

_BOTH = (True, False)
_ASSISTED = "no second model proposes tokens; prompt_lookup_num_tokens= lets the prompt do so."
_CACHE = "a model that has a cache has one kind of it, of a fixed capacity."
_COMPILED = "generation is compiled once for each capacity; see docs/generation.md."
_NOT_KEPT = "only tokens, scores and logits are kept; call the model on the sequences."

REFUSED = {
    "penalty_alpha": Explained("transformers 5 has no contrastive search; sample with top_k= and top_p=.", (0, 0.0)),
    "dola_layers": Explained("transformers 5 has no DoLa; repetition_penalty=1.2 is what it was used with."),
    "num_beam_groups": Explained("transformers 5 has no groups of beams; sample with num_beams=.", (1,)),
    "diversity_penalty": Explained("transformers 5 has no groups of beams; sample with num_beams=.", (0, 0.0)),
    "constraints": Explained("transformers 5 has no constrained beams; use sequence_bias=."),
    "force_words_ids": Explained("transformers 5 has no constrained beams; use sequence_bias=."),
    "low_memory": Explained("beams are computed together.", (False,)),
    "watermarking_config": Explained("write it as a logits_processor= of TensorFlow ops."),
    "token_healing": Explained("end the prompt at the end of a word.", (False,)),
    "assistant_model": Explained(_ASSISTED),
    "assistant_tokenizer": Explained(_ASSISTED),
    "assistant_early_exit": Explained(_ASSISTED),
    "assistant_ensemble_weight": Explained(_ASSISTED),
    "is_assistant": Explained(_ASSISTED, (False,)),
    "use_mtp": Explained(_ASSISTED, (False,)),
    "speculation_type": Explained(_ASSISTED),
    "cache_implementation": Explained(_CACHE, ("dynamic", "static", "hybrid", "hybrid_chunked", "sliding_window")),
    "cache_config": Explained(_CACHE),
    "max_cache_len": Explained(_CACHE),
    "past_key_values": Explained(_CACHE),
    "use_cache": Explained(_CACHE, _BOTH),
    "prefill_chunk_size": Explained("the prompt is read at once."),
    "compile_config": Explained(_COMPILED),
    "disable_compile": Explained(_COMPILED, (False,)),
    "continuous_batching_config": Explained("a batch is done when its last text is."),
    "output_attentions": Explained(_NOT_KEPT, (False,)),
    "output_hidden_states": Explained(_NOT_KEPT, (False,)),
    "prefix_allowed_tokens_fn": Explained("write it as a logits_processor= of TensorFlow ops."),
    "synced_gpus": Explained("that is PyTorch's machinery.", _BOTH),
    "custom_generate": Explained("that is PyTorch code; write a search like those in tf_pipeline.generation.search."),
    "trust_remote_code": Explained("no code is loaded.", (False,)),
    "inputs_embeds": Explained("prompts are token ids: pass input_ids=."),
    "position_ids": Explained("positions are counted from attention_mask."),
    "decoder_attention_mask": Explained("the decoder sees all of decoder_input_ids."),
    "encoder_outputs": Explained("pass the encoder's input_ids and attention_mask."),
    "labels": Explained("there is nothing to learn; call the model to get a loss."),
}

# Of the same kind, but without meaning unless an option is given that is refused.
_IDLE = (
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind",
)  # fmt: skip


def options_of(config: GenerationConfig) -> dict[str, Any]:
    """All values that a config has, those of a checkpoint's own included."""
    return {name: value for name, value in vars(config).items() if not name.startswith("_")}


def resolved(
    stored: GenerationConfig, given: GenerationConfig | None, options: Mapping[str, Any], caller: str, inputs: set[str]
) -> GenerationConfig:
    """The options of a call: the caller's, then those of a config that was passed, the checkpoint's, the defaults.

    Args:
        stored: of the checkpoint.
        given: the argument ``generation_config``.
        options: keyword arguments that are no inputs of the model.
        caller: who takes the options, for messages.
        inputs: names of inputs, for messages.

    Returns:
        A config with nothing left to honour but the options of this package. ``max_length`` is ``None`` unless
        somebody asked for it.

    Raises:
        TypeError: for an unknown option; the message lists similar names.
        ValueError: for an option that is not supported or a value that makes no sense.
    """
    if given is not None and not isinstance(given, GenerationConfig):
        raise TypeError(
            f"generation_config is a {type(given).__name__}, but has to be a GenerationConfig; pass "
            "attention_mask= and other inputs by name."
        )
    known = options_of(GenerationConfig())
    refuse_unknown(caller, options, [*known, *inputs], [*REFUSED, *_IDLE])
    options = settled(options, REFUSED)
    config = GenerationConfig() if given is None else copy.deepcopy(given)
    stored = options_of(stored)
    if options.get("max_new_tokens", config.max_new_tokens) is not None and options.get("max_length") is None:
        stored["max_length"] = None  # the call counts new tokens instead
    config.update(**stored, defaults_only=True, allow_custom_entries=True)
    config.update(**{name: value for name, value in DEFAULTS.items() if name != "max_length"}, defaults_only=True)
    _check_values(options)
    config.update(**options)
    settled(options_of(config), REFUSED)
    _check_values(options_of(config))
    if config.exponential_decay_length_penalty is not None and config.eos_token_id is None:
        raise ValueError("exponential_decay_length_penalty raises the score of eos_token_id, which is not set.")
    return config


def _check_values(values: Mapping[str, Any]) -> None:
    for name, (is_sound, rule) in _RULES.items():
        value = values.get(name)
        if value is not None and not is_sound(value):
            raise ValueError(f"{name} is {value!r:.80}, but has to be {rule}.")


def check_tokens(config: GenerationConfig, vocabulary: int) -> None:
    """Require that tokens with a score of their own are in the vocabulary.

    Raises:
        ValueError: naming the first that is not.
    """
    biased = config.sequence_bias or []
    words = list(biased) if isinstance(biased, Mapping) else [tokens for tokens, _ in biased]
    named = {
        "sequence_bias": sum(map(list, words), []),
        "bad_words_ids": sum(map(list, config.bad_words_ids or []), []),
        "forced_bos_token_id": tokens_of(config.forced_bos_token_id),
        "forced_eos_token_id": tokens_of(config.forced_eos_token_id),
    }
    for name, tokens in named.items():
        if outside := [token for token in tokens if token >= vocabulary]:
            raise ValueError(f"{name} has token {outside[0]}, which is outside 0 … {vocabulary - 1} (vocab_size).")


def tokens_of(value: Any) -> list[int]:
    """The token ids of an option that takes one, several or ``None``."""
    return [] if value is None else np.reshape(value, -1).tolist()


def bounded(value: Any) -> np.ndarray:
    """Whole numbers of any size, int32: what is greater than any token or length is the greatest of them."""
    return np.asarray(np.minimum(value, np.iinfo(np.int32).max), np.int32)


def lengths(config: GenerationConfig, prompt: int, positions: int | None, is_decoder_input: bool) -> tuple[int, int]:
    """The greatest and the least length of a text, the prompt counted, with PyTorch's warnings.

    Args:
        config: the result of :func:`resolved`.
        prompt: columns of the prompt.
        positions: ``max_position_embeddings`` of the model's config, which caps the default.
        is_decoder_input: whether the prompt is called ``decoder_input_ids``.

    Raises:
        ValueError: if the prompt leaves no room.
    """
    is_default = config.max_length is None
    if config.max_new_tokens is not None:
        most = config.max_new_tokens + prompt
        if not is_default:
            warnings.warn(
                f"max_new_tokens={config.max_new_tokens} is heeded, and max_length={config.max_length} is not.",
                stacklevel=4,
            )
    elif is_default:
        most = min(DEFAULTS["max_length"] + prompt, positions or np.inf)
        warnings.warn(
            f"Generating up to {DEFAULTS['max_length']} tokens, the default; set max_new_tokens to choose.",
            stacklevel=4,
        )
    else:
        most = config.max_length
    if prompt >= most:
        name = "decoder_input_ids" if is_decoder_input else "input_ids"
        raise ValueError(
            f"{name} have {prompt} columns already, but max_length is {most}, prompt included. Set max_new_tokens to "
            "count new tokens alone."
        )
    least = (config.min_length or 0) if config.min_new_tokens is None else config.min_new_tokens + prompt
    if least > most:
        name = "min_length" if config.min_new_tokens is None else "min_new_tokens"
        warnings.warn(
            f"{name}={getattr(config, name)} cannot be reached: texts end at {most} tokens, with the prompt.",
            stacklevel=4,
        )
    return int(most), least


# -------------------------------------------------------------------------------------------------------------- values


def _is_whole(least: int):
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not np.isnan(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are_tokens(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray)) and all(map(_is_whole(0), value))


def _are_words(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) > 0 and all(_are_tokens(word) and len(word) for word in value)
    )


def _is_token(value: Any) -> bool:
    return _is_whole(0)(value) or (_are_tokens(value) and len(value) > 0)


def _are_biases(value: Any) -> bool:
    if not isinstance(value, (Mapping, list, tuple)) or not value:
        return False
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    return all(len(pair) == 2 and _are_tokens(pair[0]) and len(pair[0]) and _is_number(pair[1]) for pair in pairs)


def _is_decay(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and _is_whole(0)(value[0]) and _is_positive(value[1])


_COUNT = (_is_whole(0), "a whole number, 0 or more")
_ONE_OR_MORE = (_is_whole(1), "a whole number, 1 or more")
_POSITIVE = (_is_positive, "a number greater than 0")
_SHARE = (_is_share, "a number from 0 to 1")
_FLAG = (_is_flag, "True or False")
_TOKENS = (_are_tokens, "a list of token ids")
_TOKEN = (_is_token, "a token id or a list of some")

_RULES = {
    "max_length": _ONE_OR_MORE,
    "max_new_tokens": _ONE_OR_MORE,
    "min_length": _COUNT,
    "min_new_tokens": _COUNT,
    "prompt_lookup_num_tokens": _ONE_OR_MORE,
    "max_matching_ngram_size": _ONE_OR_MORE,
    "max_time": (lambda x: _is_number(x) and x >= 0, "a number of seconds"),
    "stop_strings": (
        lambda x: bool(x) and all(isinstance(s, str) and s for s in ([x] if isinstance(x, str) else x)),
        "a text or a list of some",
    ),
    "do_sample": _FLAG,
    "num_beams": _ONE_OR_MORE,
    "num_return_sequences": _ONE_OR_MORE,
    "length_penalty": (_is_number, "a number"),
    "temperature": (_is_positive, "a number greater than 0; leave do_sample out for the likeliest tokens"),
    "top_k": _COUNT,
    "top_p": _SHARE,
    "min_p": _SHARE,
    "top_h": (lambda x: _is_share(x) and x > 0, "a number greater than 0, and 1 at the most"),
    "typical_p": _POSITIVE,
    "epsilon_cutoff": _SHARE,
    "eta_cutoff": _SHARE,
    "repetition_penalty": _POSITIVE,
    "encoder_repetition_penalty": _POSITIVE,
    "no_repeat_ngram_size": _COUNT,
    "encoder_no_repeat_ngram_size": _COUNT,
    "bad_words_ids": (_are_words, "a list of lists of token ids"),
    "sequence_bias": (_are_biases, "a dictionary of tuples of token ids and numbers, or a list of such pairs"),
    "suppress_tokens": _TOKENS,
    "begin_suppress_tokens": _TOKENS,
    "forced_bos_token_id": (_is_whole(0), "a token id"),
    "forced_eos_token_id": _TOKEN,
    "exponential_decay_length_penalty": (_is_decay, "a pair of a number of tokens and a factor greater than 0"),
    "guidance_scale": (_is_number, "a number"),
    "renormalize_logits": _FLAG,
    "remove_invalid_values": _FLAG,
    "pad_token_id": (_is_whole(-1), "a token id"),
    "eos_token_id": (lambda x: all(map(_is_whole(-1), np.reshape(x, -1).tolist())), _TOKEN[1]),
    "return_dict_in_generate": _FLAG,
    "output_scores": _FLAG,
    "output_logits": _FLAG,
}
