"""Find the graph of an architecture: beside the checkpoint, in the cache, or by porting it from PyTorch."""

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from transformers import PreTrainedConfig

from tf_pipeline import checkpoint
from tf_pipeline.files import atomic_folder
from tf_pipeline.hub import repository_file
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import CONSTANTS, GRAPH, VERSION, Graph, GraphError, read_constants

logger = logging.getLogger(__name__)

Constants = Mapping[str, np.ndarray]

# Values of a config that change nothing in what is computed.
_IRRELEVANT = (
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "architectures",
    "label2id",
    "finetuning_task",
)


def find_graph(
    torch_name: str, config: PreTrainedConfig, source: str | os.PathLike | None = None, **hub_options: Any
) -> tuple[Graph, Constants]:
    """The graph of a PyTorch class with a config, and its constants.

    Args:
        torch_name: PyTorch's class, such as ``"XLNetModel"``.
        config: the config.
        source: the checkpoint, which may have a graph beside it and on whose weights a new graph is tried.
        **hub_options: where on the hub.

    Raises:
        GraphError: if the checkpoint's own graph is damaged or of another class.
        PortError: if there is none yet and it cannot be made; the message says why.
    """
    if source is not None and not Path(source).is_file():
        path = repository_file(source, GRAPH, required=False, **hub_options)
        if path is not None:
            graph = Graph.read(path)
            if graph.model_class == torch_name:
                return graph, read_constants(graph, repository_file(source, CONSTANTS, **hub_options))
            logger.warning(
                "%s holds the graph of %s, not of %s, which is ported anew.", source, graph.model_class, torch_name
            )
    cached = _cache_folder(torch_name, config)
    if (found := _read_cached(cached)) is not None:
        return found
    graph, constants = make_graph(torch_name, config, source, **hub_options)
    try:
        with atomic_folder(cached, seal=GRAPH) as staging:
            graph.write(staging, constants)
    except OSError as error:
        logger.warning("The graph of %s is not remembered: %s.", torch_name, error)
    return graph, constants


def make_graph(
    torch_name: str, config: PreTrainedConfig, source: str | os.PathLike | None = None, **hub_options: Any
) -> tuple[Graph, Constants]:
    """Port an architecture from PyTorch, and prove it equal; see :func:`find_graph`."""
    require_torch(torch_name)
    from tf_pipeline.port.capture import capture
    from tf_pipeline.port.gate import check

    logger.warning("Porting %s from PyTorch; this takes a moment, and is remembered.", torch_name)
    torch_class = find_torch_class(torch_name, config, source)
    captured = capture(torch_class, config)
    check(captured, torch_class, config, source, **hub_options)
    return captured.graph, captured.constants


def require_torch(torch_name: str) -> None:
    """Refuse to port without PyTorch.

    Raises:
        PortError: saying what to do instead.
    """
    if importlib.util.find_spec("torch") is None:
        raise PortError(
            f"{torch_name} has no module of its own in tf_pipeline and is ported from PyTorch, which is not installed "
            "here. Port it once where it is, and load the folder that makes: `tf-pipeline port CHECKPOINT FOLDER`; or "
            "install it: pip install torch."
        )


def find_torch_class(name: str, config: PreTrainedConfig, source: str | os.PathLike | None = None) -> type:
    """PyTorch's class of a name: one of ``transformers``, or of a checkpoint whose own code is trusted.

    Raises:
        PortError: if there is none.
    """
    if (found := getattr(transformers, name, None)) is not None:
        return found
    references = (getattr(config, "auto_map", None) or {}).values()
    reference = next((r for r in references if isinstance(r, str) and r.endswith(f".{name}")), None)
    if reference is None or not type(config).__module__.startswith("transformers_modules"):
        raise PortError(f"transformers {transformers.__version__} has no class {name}.")
    return transformers.dynamic_module_utils.get_class_from_dynamic_module(reference, str(source))


def cache_root() -> Path:
    """Where ported graphs are kept: ``$TF_PIPELINE_CACHE``, or ``~/.cache/tf_pipeline``."""
    return Path(os.environ.get("TF_PIPELINE_CACHE") or Path.home() / ".cache" / "tf_pipeline")


def _cache_folder(torch_name: str, config: PreTrainedConfig) -> Path:
    """One folder for each class, config and version of what makes graphs."""
    values = {key: value for key, value in config.to_dict().items() if key not in _IRRELEVANT}
    values["id2label"] = len(values.get("id2label") or ())
    key = json.dumps([torch_name, values, VERSION, transformers.__version__], sort_keys=True, default=str)
    return cache_root() / "ports" / f"{torch_name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _read_cached(folder: Path) -> tuple[Graph, Constants] | None:
    if not (folder / GRAPH).is_file():
        return None
    try:
        graph = Graph.read(folder / GRAPH)
        return graph, read_constants(graph, folder / CONSTANTS)
    except (GraphError, OSError) as error:
        logger.warning("%s is ported again: what was remembered is damaged (%s).", folder.name, error)
        return None


def open_weights(model, reader, source: str | os.PathLike, **hub_options: Any):
    """The checkpoint's tensors by the model's keys: read as they are, or by PyTorch where it stores them otherwise.

    Raises:
        CheckpointError: if there are none, or they have to be read by PyTorch and it is not installed.
    """
    slots = dict(checkpoint.named_slots(model))
    missing = set(slots) - set(checkpoint.match_names(model, slots, reader))
    if not [key for key in missing if model.in_body(key)]:
        return reader
    if importlib.util.find_spec("torch") is None:
        raise checkpoint.CheckpointError(
            f"{source} stores {sorted(missing)[:3]} … under other names, which only PyTorch knows to convert. Where it "
            "is installed, `tf-pipeline port CHECKPOINT FOLDER` writes a folder that needs no conversion."
        )
    from tf_pipeline.port.torch_weights import read_by_torch

    return read_by_torch(
        find_torch_class(model.torch_name(), model.config, source), source, model.config, **hub_options
    )
