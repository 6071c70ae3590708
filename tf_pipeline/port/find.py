"""Find the graph of an architecture: next to the checkpoint, in the cache, or by porting it from PyTorch."""

import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import transformers
from transformers import PreTrainedConfig

from tf_pipeline import checkpoint
from tf_pipeline.files import atomic_folder
from tf_pipeline.hub import repository_file
from tf_pipeline.port.errors import PortError, UncachedError
from tf_pipeline.port.graph import (
    CONSTANTS,
    GRAPH,
    GRAPH_FILES,
    STEP,
    STEP_CONSTANTS,
    STEP_FILES,
    VERSION,
    Graph,
    GraphError,
    Layout,
)
from tf_pipeline.port.layout import ConvertedReader, fits
from tf_pipeline.port.step import misfit
from tf_pipeline.readers import TensorFlowReader

logger = logging.getLogger(__name__)

Constants = Mapping[str, np.ndarray]

# Values of a config that do not change the computation: names, and options of calls and of training.
_IRRELEVANT = (
    "_attn_implementation",
    "_commit_hash",
    "_name_or_path",
    "aggregation_labels",
    "architectures",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "initializer_range",
    "label2id",
    "no_aggregation_label_index",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)


# Ids of tokens, which few models compute with, and which users set for ``generate``.
_TOKENS = re.compile(r"_token_ids?$")


class FoundGraph(NamedTuple):
    """A graph, the values of its constants, whether it lies next to the checkpoint, and the step that lies there."""

    graph: Graph
    constants: Constants
    beside: bool = False
    step: "FoundGraph | None" = None


def find_graph(
    torch_name: str, config: PreTrainedConfig, source: str | os.PathLike | None = None, **hub_options: Any
) -> FoundGraph:
    """The graph of a PyTorch class with a config, and its constants.

    Args:
        torch_name: PyTorch's class, such as ``"XLNetModel"``.
        config: the config.
        source: the checkpoint, which may have a graph next to it and on whose weights a new graph is tried.
        **hub_options: options of the hub, such as ``revision``.

    Raises:
        GraphError: if the checkpoint's own graph is damaged or of another class.
        PortError: if there is no graph yet and it cannot be made; the message says why.
    """
    if source is not None and not Path(source).is_file():
        path = repository_file(source, GRAPH, required=False, **hub_options)
        if path is not None:
            graph, constants = Graph.read(path, repository_file(source, CONSTANTS, **hub_options))
            changed = _changed(graph, torch_name, config)
            if not changed or not _port_again(source, graph, torch_name, changed):
                return FoundGraph(graph, constants, True, _step_beside(source, graph, **hub_options))
    if (found := _read_cached(torch_name, config)) is not None:
        return found
    found = make_graph(torch_name, config, source, **hub_options)
    remember(*found[:2], torch_name, config)
    return found


def _changed(graph: Graph, torch_name: str, config: PreTrainedConfig) -> dict[str, str]:
    """The values, by key, in which a class with a config differs from those of a graph, as far as it knows them."""
    known, values = graph.config | {"class": graph.model_class}, computed_with(config) | {"class": torch_name}
    return {key: f"{key}={value!r:.60}" for key, value in values.items() if key in known and known[key] != value}


def _port_again(source: str | os.PathLike, graph: Graph, torch_name: str, changed: Mapping[str, str]) -> bool:
    """Whether to port a checkpoint again whose config differs from its graph's, which a warning says.

    Raises:
        PortError: if it has to be, and PyTorch is not installed.
    """
    why = f"{source} holds a graph of other values than {', '.join(changed.values())}"
    if "class" in changed:
        why = f"{source} holds the graph of {graph.model_class}, not of {torch_name}"
    if importlib.util.find_spec("torch") is not None:
        logger.warning("%s: it is ported again.", why)
        return True
    if all(map(_TOKENS.search, changed)):
        logger.warning("%s, and computes with its own.", why)
        return False
    raise PortError(
        f"{why}: PyTorch, which is not installed here, would have to port it again. Make the change where it is: "
        "`tf-pipeline port CHECKPOINT FOLDER`."
    )


def computed_with(config: PreTrainedConfig) -> dict[str, Any]:
    """The values of a config that a graph computes with, as JSON has them; labels by their number."""
    values = _relevant(config.to_dict())
    values["id2label"] = len(values.get("id2label") or ())
    values.pop("model_type", None)  # which a config of unknown code does not have; the class says it
    return json.loads(json.dumps(values, sort_keys=True, default=str))


def _relevant(values: Any) -> Any:
    """Values of a config and of those within it, without those that do not change the computation."""
    if not isinstance(values, Mapping):
        return values
    return {str(key): _relevant(value) for key, value in values.items() if key not in _IRRELEVANT}


def _step_beside(source: str | os.PathLike, whole: Graph, **hub_options: Any) -> FoundGraph | None:
    path = repository_file(source, STEP, required=False, **hub_options)
    if path is None:
        return None
    step = FoundGraph(*Graph.read(path, repository_file(source, STEP_CONSTANTS, **hub_options)))
    if misfit(step.graph, whole):
        raise GraphError(f"{path} does not belong to the graph next to it. Port the checkpoint again.")
    return step


def remembered_step(torch_name: str, config: PreTrainedConfig, whole: Graph) -> FoundGraph | None:
    """The step of a class with a config that was captured before, if any; arguments are those of :func:`find_step`."""
    step = _read_cached(torch_name, config, STEP_FILES)
    return None if step is None or misfit(step.graph, whole) else step


def find_step(
    torch_name: str,
    config: PreTrainedConfig,
    whole: Graph,
    source: str | os.PathLike,
    constants: Constants | None = None,
) -> FoundGraph | None:
    """The graph of one step of a language model: one that is remembered, or captured now and proven.

    Args:
        torch_name: PyTorch's class, such as ``"OPTForCausalLM"``.
        config: the config.
        whole: the graph that computes a whole text.
        source: the checkpoint, whose own code may hold the class.
        constants: values of the constants of ``whole``, of an encoder–decoder.

    Returns:
        The step; ``None`` if PyTorch is not installed.

    Raises:
        PortError: if it cannot be captured or is not equal to PyTorch; the message says why.
    """
    if (step := remembered_step(torch_name, config, whole)) is not None:
        return step
    if importlib.util.find_spec("torch") is None:
        return None
    captured = _make_step(torch_name, config, whole, source, constants)
    remember(captured.graph, captured.constants, torch_name, config, STEP_FILES)
    return FoundGraph(captured.graph, captured.constants)


def _make_step(
    torch_name: str,
    config: PreTrainedConfig,
    whole: Graph,
    source: str | os.PathLike,
    constants: Constants | None = None,
):
    """Capture a step: of models that cache keys and values alone for any number of tokens, of others for one."""
    logger.info("Capturing the step of %s from PyTorch, for generation.", torch_name)
    torch_class = find_torch_class(torch_name, config, source)
    if "decoder_input_ids" in whole.inputs:
        from tf_pipeline.port.capture_cross import capture_cross
        from tf_pipeline.port.gate_cross import check_cross

        return _proven_step(capture_cross, partial(check_cross, constants=constants), torch_class, config, whole)
    from tf_pipeline.port.capture_scan import capture_token
    from tf_pipeline.port.capture_step import capture_step
    from tf_pipeline.port.gate_step import check_step

    try:
        return _proven_step(capture_step, check_step, torch_class, config, whole)
    except UncachedError:
        return _proven_step(capture_token, check_step, torch_class, config, whole)


def _proven_step(
    capture_step: Callable[..., Any],
    check_step: Callable[..., Any],
    torch_class: type,
    config: PreTrainedConfig,
    whole: Graph,
):
    """Capture a step whose attention sees all slots, or, if that is not equal to PyTorch, the filled ones alone."""
    torch_name, failure = torch_class.__name__, None
    for filled in (False, True):
        try:
            captured = capture_step(torch_class, config, whole, filled)
            check_step(captured, torch_class, config, whole)
            return captured
        except UncachedError:
            raise
        except PortError as error:
            failure = error
        except Exception as error:  # whatever the code makes of a cache: the model generates without one
            failure = PortError(f"{torch_name} raised {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    raise failure


def remember(
    graph: Graph,
    constants: Constants,
    torch_name: str,
    config: PreTrainedConfig,
    files: tuple[str, str] = GRAPH_FILES,
) -> None:
    """Keep a graph for the next load of a class with a config, in files of these names."""
    try:
        with atomic_folder(_cache_folder(torch_name, config, files), seal=files[0]) as staging:
            graph.write(staging, constants, files)
    except OSError as error:
        logger.warning("%s of %s is not remembered: %s.", files[0], torch_name, error)


def make_graph(
    torch_name: str, config: PreTrainedConfig, source: str | os.PathLike | None = None, **hub_options: Any
) -> FoundGraph:
    """Port an architecture from PyTorch, and prove it equal; see :func:`find_graph`."""
    require_torch(torch_name)
    if source is not None and _is_of_tensorflow(source, **hub_options):
        raise PortError(
            f"{source} has tf_model.h5 alone, which PyTorch does not read, and {torch_name} is ported from PyTorch: "
            "`tf-pipeline convert CHECKPOINT FOLDER` first, and load that folder."
        )
    from tf_pipeline.port.torch_layout import find_layouts

    logger.warning("Porting %s from PyTorch; this takes a moment, and is remembered.", torch_name)
    torch_class = find_torch_class(torch_name, config, source)
    captured = _proven(torch_class, config, source, **hub_options)
    captured.graph.layouts, captured.graph.config = find_layouts(torch_class, config), computed_with(config)
    return FoundGraph(captured.graph, captured.constants)


def _is_of_tensorflow(source: str | os.PathLike, **hub_options: Any) -> bool:
    try:
        return isinstance(checkpoint.open_checkpoint(source, **hub_options), TensorFlowReader)
    except checkpoint.CheckpointError:
        return False


def _proven(torch_class: type, config: PreTrainedConfig, source: str | os.PathLike | None, **hub_options: Any):
    """Capture a class, and prove the graph equal to PyTorch."""
    from tf_pipeline.port.complete import complete
    from tf_pipeline.port.gate import check, without_least_length
    from tf_pipeline.port.gate_step import check_step

    captured = _captured(torch_class, config)
    captured, measured = complete(captured, torch_class, config, source, **hub_options)
    check(captured, measured)
    captured = without_least_length(captured, measured, config)
    if captured.graph.states and "logits" in captured.graph.outputs:
        check_step(captured, torch_class, config, captured.graph)
    return captured


def _captured(torch_class: type, config: PreTrainedConfig):
    """Capture a class as a graph of whole texts, or, if that cannot be and it keeps states, of one token."""
    from tf_pipeline.port import capture, capture_scan

    ways = [capture.capture, capture_scan.capture_scan]
    if capture_scan.loops_over_tokens(torch_class, config):
        ways.reverse()
    try:
        return ways[0](torch_class, config)
    except PortError as first:
        try:
            return ways[1](torch_class, config)
        except PortError as second:
            raise (second if isinstance(first, UncachedError) else first) from None


def require_torch(torch_name: str) -> None:
    """Refuse to port without PyTorch.

    Raises:
        PortError: with advice.
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
    if (found_class := getattr(transformers, name, None)) is not None:
        return found_class
    references = (getattr(config, "auto_map", None) or {}).values()
    reference = next((r for r in references if isinstance(r, str) and r.endswith(f".{name}")), None)
    if reference is None or not _is_own(config):
        raise PortError(f"transformers {transformers.__version__} has no class {name}.")
    return transformers.dynamic_module_utils.get_class_from_dynamic_module(reference, str(source))


def cache_root() -> Path:
    """Folder of ported graphs: ``$TF_PIPELINE_CACHE``, or ``~/.cache/tf_pipeline``."""
    return Path(os.environ.get("TF_PIPELINE_CACHE") or Path.home() / ".cache" / "tf_pipeline")


def _cache_folder(torch_name: str, config: PreTrainedConfig, files: tuple[str, str] = GRAPH_FILES) -> Path:
    """One folder for each class, config and code that makes graphs, and for each of the two graphs."""
    made_by = [VERSION, _code(), transformers.__version__, _own_code(config)]
    key = json.dumps([torch_name, computed_with(config), *made_by], sort_keys=True)
    kind = "-step" if files == STEP_FILES else ""
    return cache_root() / "ports" / f"{torch_name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}{kind}"


@cache
def _code() -> str:
    """A digest of the code that makes graphs: those that other code made are not used."""
    here = Path(__file__).parent
    files = sorted(file for folder in (here, here.parent / "reference") for file in folder.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _own_code(config: PreTrainedConfig) -> str:
    """A digest, or the commit, of the code that a checkpoint brings; empty for an architecture of ``transformers``."""
    if not _is_own(config):
        return ""
    source = config._name_or_path
    files = sorted(Path(source).rglob("*.py")) if source and os.path.isdir(source) else []
    if not files:
        return str(getattr(config, "_commit_hash", None))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _is_own(config: PreTrainedConfig) -> bool:
    """Whether a config is of a class that a checkpoint brings."""
    return type(config).__module__.startswith("transformers_modules")


def _read_cached(torch_name: str, config: PreTrainedConfig, files: tuple[str, str] = GRAPH_FILES) -> FoundGraph | None:
    graph, constants = (_cache_folder(torch_name, config, files) / name for name in files)
    if not graph.is_file():
        return None
    try:
        return FoundGraph(*Graph.read(graph, constants))
    except (GraphError, OSError) as error:
        logger.warning("%s is ported again: what was remembered is damaged (%s).", graph.parent.name, error)
        return None


def open_weights(model, reader, source: str | os.PathLike, **hub_options: Any):
    """The checkpoint's tensors by the model's keys, whatever they are called in its files.

    Args:
        model: a ported model.
        reader: the tensors as they are stored.
        source: the checkpoint.
        **hub_options: options of the hub, such as ``revision``.

    Raises:
        CheckpointError: if only PyTorch knows how they are stored, and it is not installed.
    """
    layout = _known_layout(model.graph, reader)
    if layout is None and importlib.util.find_spec("torch") is not None:
        from tf_pipeline.port.torch_layout import find_layouts

        torch_class = find_torch_class(model.torch_name(), model.config, source)
        learned = find_layouts(torch_class, model.config, {name: reader.shape(name) for name in reader})
        known = [set(one.stored) for one in learned]
        model.graph.layouts[:] = [one for one in model.graph.layouts if set(one.stored) not in known] + learned
        layout = learned[0]
    if layout is None:
        _refuse_other_names(model, reader, source)
        return reader
    model.use_layout(layout)
    return ConvertedReader(reader, layout)


def _known_layout(graph: Graph, reader) -> Layout | None:
    return next((layout for layout in graph.layouts if fits(layout, reader)), None)


def _refuse_other_names(model, reader, source: str | os.PathLike) -> None:
    """Refuse to start a parameter at random that the checkpoint may have under another name."""
    slots = dict(checkpoint.named_slots(model))
    names = checkpoint.match_names(model, slots, reader)
    missing, unused = sorted(set(slots) - set(names)), sorted(set(names) - set(slots))
    if missing and unused:
        raise checkpoint.CheckpointError(
            f"{source} has no {missing[:3]} …, but {unused[:3]} …, and only PyTorch knows whether these are the same. "
            "Where it is installed, `tf-pipeline port CHECKPOINT FOLDER` writes a folder that needs no PyTorch."
        )


def check_loaded(model, report: checkpoint.LoadingReport, source: str | os.PathLike, **hub_options: Any) -> None:
    """Compare a model with PyTorch's of the same checkpoint, if that was not done for checkpoints of its layout.

    Nothing is compared where PyTorch is not installed, or if the graph lies next to the checkpoint: it was written
    there by a model that had been compared.

    Raises:
        PortError: if they are not the same; the message names the weights or outputs.
    """
    layout = model.layout
    if model.graph_beside or layout is None or layout.compared or importlib.util.find_spec("torch") is None:
        return
    from tf_pipeline.port.gate import compare_loaded

    torch_class = find_torch_class(model.torch_name(), model.config, source)
    if not compare_loaded(model, report, torch_class, source, **hub_options):
        return
    layouts = model.graph.layouts
    layouts[layouts.index(layout)] = compared = replace(layout, compared=True)
    model.use_layout(compared)
    remember(model.graph, model.constants(), model.torch_name(), model.config)
