"""Read the config of a checkpoint, change its values, and explain invalid ones."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from tf_pipeline.arguments import MODEL_ARGUMENTS, ArgumentError, refuse_unknown
from tf_pipeline.hub import HUB_OPTIONS, repository_file, split_hub_options

# Arguments of from_pretrained, for messages.
_ARGUMENTS = ("config", "dtype", "ignore_mismatched_sizes", "output_loading_info", "use_safetensors", "variant")


class AutoConfig(transformers.AutoConfig):
    """Hugging Face's ``AutoConfig``, whose errors say which file or connection is missing."""

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, **kwargs: Any) -> PreTrainedConfig:
        """Read ``config.json`` of a local folder or hub id; other keywords change its values.

        ``trust_remote_code=True`` lets a checkpoint of an architecture that ``transformers`` lacks bring its own code.

        Raises:
            RepositoryError: if it cannot be found.
            OSError: if it is not valid JSON, or no JSON object.
            ValueError: if it names no known ``model_type``, if the architecture refuses a value, or if ``source`` is a
                file of weights.
        """
        if not isinstance(source, (str, os.PathLike)):
            raise ValueError(f"A config is read from a folder or a hub id, but this is {source!r:.80}.")
        if str(source).endswith((".safetensors", ".bin")):
            raise ValueError(f"{source} holds weights and no config; pass config= as well, or the folder of both.")
        hub_options = split_hub_options(options := dict(kwargs))
        kwargs = options | hub_options
        path = Path(source)
        if not path.is_file():
            path = repository_file(source, "config.json", **hub_options)
        values = _checked_json(path)
        own = {name: value for name, value in kwargs.items() if name != "trust_remote_code"}
        with clear_errors(str(path), values | own):
            if not _is_known(source, **own) and _is_ported(source, **hub_options):
                return PreTrainedConfig.from_pretrained(source, **own)  # the graph says what the code would
            return transformers.AutoConfig.from_pretrained(source, **{"trust_remote_code": False} | kwargs)


def _checked_json(path: Path) -> dict[str, Any]:
    """The values of a ``config.json``, which has to be an object with a name for its architecture."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(f"{path} is not a valid JSON file: {error}.") from error
    if not isinstance(values, dict):
        raise OSError(f"{path} holds {values!r:.80} rather than a JSON object.")
    if not isinstance(name := values.get("model_type", ""), str):
        raise ValueError(f"{path} has model_type {name!r:.80}, which is not a name.")
    for key in ("dtype", "torch_dtype"):
        if not isinstance(values.get(key), str | dict | None):
            raise ValueError(f"{path} has {key}={values[key]!r:.80}, but it has to be the name of a dtype.")
    return values


def _culprit(values: Mapping[str, Any]) -> str:
    """The first value without which the config's class takes the others."""
    for key in values:
        others = {name: value for name, value in values.items() if name != key}
        with contextlib.suppress(Exception):
            transformers.AutoConfig.for_model(**others)
            return f"{key}={values[key]!r:.80}"
    return "a value"


@contextlib.contextmanager
def clear_errors(where: str, values: Mapping[str, Any] | None = None, what: str = "a value"):
    """Turn the errors of a config's class about values into one that says where the values are from.

    Args:
        where: their file.
        values: the values, to find the wrong one among them.
        what: the wrong value, if the values are not given.

    Raises:
        ValueError: for every error about a value.
        ArgumentError: for one about a caller's argument, as it is.
    """
    try:
        yield
    except ArgumentError:
        raise
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except (StrictDataclassError, AttributeError, LookupError, ArithmeticError, TypeError) as error:
        what = _culprit(values) if values else what
        raise ValueError(f"{where} has {what}, which its architecture does not take. {error}") from error


def _is_ported(source: str | os.PathLike, **hub_options: Any) -> bool:
    return (
        not os.path.isfile(source) and repository_file(source, "graph.json", required=False, **hub_options) is not None
    )


def _is_known(source: str | os.PathLike, **kwargs: Any) -> bool:
    """Whether ``transformers`` has the architecture of a checkpoint."""
    values, _ = PreTrainedConfig.get_config_dict(source, **kwargs)
    return values.get("model_type") in transformers.CONFIG_MAPPING


def load_config(source: Any, hub_options: dict[str, Any], changes: dict[str, Any]) -> tuple[PreTrainedConfig, bool]:
    """Read a config and change values of it.

    Args:
        source: a config, a folder or a hub id.
        hub_options: options of the hub, such as ``revision``.
        changes: values to set.

    Returns:
        The config, and whether the changes alter the number of layers.

    Raises:
        TypeError: for a value that the config does not have.
    """
    if isinstance(source, PreTrainedConfig):
        config = type(source).from_dict(source.to_dict())
    else:
        config = AutoConfig.from_pretrained(source, **hub_options)
    if unknown := [name for name in changes if not _is_value(config, name)]:
        values = [name for name in (*config.to_dict(), *config.attribute_map) if not name.startswith("_")]
        known = [*values, "num_labels", *HUB_OPTIONS, *_ARGUMENTS, *MODEL_ARGUMENTS]
        refuse_unknown(
            f"{type(config).__name__} has no value {', '.join(unknown)}, and from_pretrained", unknown, known
        )
    layers = getattr(config, "num_hidden_layers", None)
    where = str(source) if isinstance(source, (str, os.PathLike)) else "The config"
    for name, value in changes.items():
        with clear_errors(where, what=f"{name}={value!r:.80}"):
            setattr(config, name, value)
    with clear_errors(where):
        config.validate()
    return config, getattr(config, "num_hidden_layers", None) != layers


def text_value(config: PreTrainedConfig, key: str) -> Any:
    """A value of a config, or of its part that is about texts; ``None`` if neither has it."""
    return getattr(config if hasattr(config, key) else config.get_text_config(), key, None)


def _is_value(config: PreTrainedConfig, name: str) -> bool:
    # `torch_dtype` is a property that would change the config but not the model, whose argument is `dtype`.
    private = name.startswith("_") or name == "torch_dtype"
    return not private and hasattr(config, name) and not callable(getattr(config, name))
