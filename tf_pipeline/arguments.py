"""Arguments that ``transformers`` has and this package spells differently, needs not or cannot honour.

A name is accepted, explained or unknown: nothing that a caller asks for is passed over in silence.
"""

import difflib
import math
import operator
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple


class EngineError(ValueError):
    """An engine that cannot run a model, or computes something else; the message says what can be done."""


class ArgumentError(ValueError):
    """A value that an argument cannot have."""


class Explained(NamedTuple):
    """An argument of ``transformers`` that is not one here.

    Attributes:
        reason: its replacement, as a sentence.
        allowed: values that ask for the default behaviour; ``None``, which stands for "not given", always does.
    """

    reason: str
    allowed: Container = ()


_BOTH = (True, False)
_PLACES = "load the model under `with tf.device(…)`, or in the scope of a tf.distribute strategy."
_PYTORCH_ONLY = "that is PyTorch's machinery; this is TensorFlow."
_NO_MEDIA = "tasks on images or sounds take it, each the one that prepares its inputs."

# Of from_pretrained, of transformers 4.57 and 5.
MODEL_ARGUMENTS = {
    "from_pt": Explained("every checkpoint is read as PyTorch's.", _BOTH),
    "from_tf": Explained("tf_model.h5 is read if there are no other weights.", _BOTH),
    "from_flax": Explained("transformers 4 converts Flax's weights.", (False,)),
    "low_cpu_mem_usage": Explained("weights are never twice in memory.", _BOTH),
    "_fast_init": Explained("variables are made from the checkpoint.", _BOTH),
    "weights_only": Explained("a .bin file is read with weights_only=True, because it could run code.", (True,)),
    "disable_mmap": Explained("safetensors files are always mapped.", (False,)),
    "attn_implementation": Explained(
        "attention is computed in one way, equal to 'eager' and 'sdpa'.", ("eager", "sdpa")
    ),
    "experts_implementation": Explained(_PYTORCH_ONLY),
    "trust_remote_code": Explained("TFAutoModel… classes take it; this class has its own code.", (False,)),
    "code_revision": Explained("a checkpoint's own code is read at the same revision as its weights."),
    "device_map": Explained(_PLACES),
    "max_memory": Explained(_PLACES),
    "offload_folder": Explained(_PLACES),
    "offload_state_dict": Explained(_PLACES, (False,)),
    "offload_buffers": Explained(_PLACES, (False,)),
    "device_mesh": Explained(_PLACES),
    "distributed_config": Explained(_PLACES),
    "tp_plan": Explained(_PLACES),
    "tp_size": Explained(_PLACES),
    "quantization_config": Explained("call model.quantize('int8') after loading."),
    "load_in_8bit": Explained("call model.quantize('int8') after loading.", (False,)),
    "load_in_4bit": Explained("call model.quantize('int4') after loading.", (False,)),
    "state_dict": Explained("save the tensors as model.safetensors next to config.json, and load that folder."),
    "key_mapping": Explained("rename the tensors with safetensors.numpy.load_file and save_file."),
    "gguf_file": Explained("transformers.AutoModel reads it; its save_pretrained writes safetensors."),
    "generation_config": Explained("pass its values to generate()."),
    "adapter_name": Explained("merge the adapter with peft's merge_and_unload() and save the result.", ("default",)),
    "adapter_kwargs": Explained("merge the adapter with peft's merge_and_unload() and save the result.", ({},)),
    "fusion_config": Explained(_PYTORCH_ONLY),
    "use_kernels": Explained(_PYTORCH_ONLY, (False,)),
    "kernel_config": Explained(_PYTORCH_ONLY),
    "allow_all_kernels": Explained(_PYTORCH_ONLY, (False,)),
    "mirror": Explained("set the environment variable HF_ENDPOINT."),
    "proxies": Explained("set the environment variable HTTPS_PROXY."),
    "resume_download": Explained("downloads are always resumed.", _BOTH),
    "tqdm_class": Explained("set HF_HUB_DISABLE_PROGRESS_BARS=1 to have no progress bars."),
    "return_unused_kwargs": Explained("AutoConfig.from_pretrained takes it.", (False,)),
    "_from_pipeline": Explained("transformers uses it for statistics.", ()),
    "_from_auto": Explained("transformers uses it for statistics.", _BOTH),
    "_commit_hash": Explained("pass revision=."),
}

# Of save_pretrained.
_SAVED_WHOLE = "the model itself is saved."
SAVE_ARGUMENTS = {
    "safe_serialization": Explained("weights are written as safetensors, which transformers 4 and 5 read.", (True,)),
    "signatures": Explained("model.export(folder, input_signature=…) writes a SavedModel with signatures of your own."),
    "state_dict": Explained(_SAVED_WHOLE),
    "save_function": Explained(_SAVED_WHOLE),
    "is_main_process": Explained("call it in the main process alone.", (True,)),
    "save_peft_format": Explained("LoRA is merged into the weights.", (True,)),
    "variant": Explained("rename the file: model.fp16.safetensors is read by variant='fp16'."),
}

# Of pipeline() and of the pipelines' classes.
PIPELINE_ARGUMENTS = {
    "framework": Explained("the model runs in TensorFlow; transformers.pipeline runs it in PyTorch.", ("tf",)),
    "device_map": Explained("pass device=, or a model that was loaded in the scope of a tf.distribute strategy."),
    "feature_extractor": Explained(_NO_MEDIA),
    "image_processor": Explained(_NO_MEDIA),
    "video_processor": Explained(_NO_MEDIA),
    "processor": Explained(_NO_MEDIA),
    "modelcard": Explained("answers do not depend on it."),
    "args_parser": Explained("override the pipeline's encode() to read inputs differently."),
    "pipeline_class": Explained("make the object with it: pipeline_class(model=…, tokenizer=…)."),
    "binary_output": Explained("answers are Python objects; pickle.dumps makes bytes of them.", (False,)),
    "num_workers": Explained("it is a number of processes, and texts are tokenized on all cores.", range(2**16)),
    "code_revision": MODEL_ARGUMENTS["code_revision"],
    "_commit_hash": MODEL_ARGUMENTS["_commit_hash"],
}

_ONE_ROW = "a pipeline answers a text from one row; call pipe.tokenizer for this."

# Of a tokenizer's call, and a pipeline's treatment of those that it cannot pass on.
TOKENIZER_ARGUMENTS = (
    "add_special_tokens", "padding", "truncation", "max_length", "stride", "pad_to_multiple_of", "padding_side",
    "truncation_side", "split_special_tokens", "verbose",
)  # fmt: skip
TOKENIZER_EXPLAINED = {
    "return_tensors": Explained("a pipeline makes the tensors itself.", ("tf", "np")),
    "return_attention_mask": Explained("the mask is always made: it keeps padding out of answers.", (True,)),
    "return_token_type_ids": Explained("they are made for the models that take them.", (True,)),
    "return_overflowing_tokens": Explained(_ONE_ROW, (False,)),
    "return_special_tokens_mask": Explained(_ONE_ROW, (False,)),
    "return_offsets_mapping": Explained(_ONE_ROW, (False,)),
    "return_length": Explained(_ONE_ROW, (False,)),
    "is_split_into_words": Explained("only token-classification takes words; join them to a text.", (False,)),
    "text_target": Explained("a pipeline takes no targets."),
    "text_pair_target": Explained("a pipeline takes no targets."),
}
_LEAST = {"max_length": 1, "stride": 0, "pad_to_multiple_of": 1}
_MOST = 2**31 - 1
_CHOICES = {"padding": (True, False, "longest", "max_length", "do_not_pad"), "padding_side": ("left", "right")}
_FLAGS = ("add_special_tokens", "split_special_tokens", "verbose")


def settled(arguments: Mapping[str, Any], table: Mapping[str, Explained]) -> dict[str, Any]:
    """Arguments without those of a table that ask for the default behaviour.

    Raises:
        ValueError: for one that asks for more; the message names its replacement.
    """
    for name, value in arguments.items():
        if name in table and value is not None and value not in table[name].allowed:
            raise ValueError(f"{name}={value!r:.80} is not supported: {table[name].reason}")
    return {name: value for name, value in arguments.items() if name not in table}


# Names that a message lists.
_FEW = 20


def refuse_unknown(
    caller: str, names: Iterable[str], known: Iterable[str], others: Iterable[str] = (), hint: str = ""
) -> None:
    """Require that all names are known.

    Args:
        caller: the function or class that takes them.
        names: names of arguments.
        known: those that there are.
        others: further ones, which the message does not list.
        hint: a sentence for the end of the message.

    Raises:
        TypeError: naming the first unknown argument and similar ones, or else all if they are few.
    """
    known = list(known)
    taken = [*known, *others]
    for name in names:
        if name not in taken:
            near = difflib.get_close_matches(name, taken) or [other for other in known if name in other]
            mean = f"; did you mean {' or '.join(near)}?" if near else "."
            if not near and len(known) <= _FEW:
                mean = f"; it takes {', '.join(known)}."
            raise TypeError(f"{caller} takes no argument {name!r}{mean}{hint}")


def tokenizer_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a tokenizer that a pipeline passes on.

    Raises:
        TypeError: for a name that tokenizers do not have.
        ValueError: for a value that a pipeline or a tokenizer cannot honour.
    """
    refuse_unknown("The tokenizer of a pipeline", given, (*TOKENIZER_ARGUMENTS, *TOKENIZER_EXPLAINED))
    arguments = settled(given, TOKENIZER_EXPLAINED)
    for name, value in arguments.items():
        if name in _LEAST and value is not None:
            whole_number(name, value, _LEAST[name], _MOST)
        if name in _CHOICES:
            check_choice(name, value)
        if name in _FLAGS and not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r:.80}, but has to be True or False.")
    return arguments


# Of a feature extractor's call.
RETURN_TENSORS = (True, False, "tf", "np")


def check_choice(name: str, value: Any, allowed: Sequence[Any] = ()) -> None:
    """Require one of some values, by default of an argument of tokenizers; ``None`` stands for "not given".

    Raises:
        ValueError: for another one.
    """
    allowed = allowed or _CHOICES[name]
    value = getattr(value, "value", value)  # of an enumeration
    if value is not None and not (isinstance(value, (str, bool)) and value in allowed):
        raise ValueError(f"{name} is {value!r:.80}, but has to be one of {', '.join(map(repr, allowed))}.")


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The value, if it is a whole number that is large enough, and not too large.

    Raises:
        ValueError: if it is not.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ValueError(f"{name} is {value!r:.80}, but has to be a whole number of at least {least}.")
    if most is not None and number > most:
        raise ValueError(f"{name} is {value!r:.80}, but has to be a whole number of at most {most}.")
    return number


def real_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """The value, if it is a finite number within limits.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r:.80}, but has to be a finite number.")
    if not least <= value <= most:
        limits = [
            f"{word} {limit:g}" for word, limit in (("at least", least), ("at most", most)) if math.isfinite(limit)
        ]
        raise ValueError(f"{name} is {value!r:.80}, but has to be {' and '.join(limits)}.")
    return int(value) if isinstance(value, Integral) else float(value)


def renamed(arguments: dict[str, Any], old: str, new: str) -> None:
    """Move the value of an argument's former name, if it is there, to its present one.

    Raises:
        ValueError: if both are given and differ.
    """
    value = arguments.pop(old, None)
    if value is None:
        return
    warnings.warn(f"`{old}` is deprecated; use `{new}` instead.", FutureWarning, stacklevel=4)
    if arguments.setdefault(new, value) is None:
        arguments[new] = value
    if arguments[new] != value:
        raise ValueError(f"{new}={arguments[new]!r} and {old}={value!r} contradict each other; pass {new} alone.")
