"""Compare a port with PyTorch before anybody uses it, and refuse it if they differ."""

import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from tf_pipeline.checkpoint import LoadingReport, named_slots
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.judging.tensors import are_few, judge_envelopes, real_positions
from tf_pipeline.port.capture import Captured
from tf_pipeline.port.complete import (
    FUSED_ALONE,
    Measured,
    in_turn,
    is_attention,
    not_finite,
    reads_fixed_signals,
    sample,
    set_attention,
    token_mask,
)
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import Graph, Node
from tf_pipeline.port.runner import Arrays, GraphRunner
from tf_pipeline.reference.loading import load_with_report
from tf_pipeline.reference.outputs import named_tensors
from tf_pipeline.reference.precision import in_float64
from tf_pipeline.reference.running import reference_tensors

logger = logging.getLogger(__name__)

# Most numbers of the attention over several signals of a fixed size. Where there are more, that over one is compared,
# and of several signals all else.
MOST_ATTENTION = 2**26


def check(captured: Captured, measured: Measured) -> list[Check]:
    """Prove that a captured graph computes the same as PyTorch.

    Compared are all outputs at shapes unlike the example's and padded on either side: in float64 to 1e-10, with
    PyTorch's upcasts to float32 lifted, and in float32 inside the envelope of PyTorch's own rounding. Attention that is
    larger than :data:`MOST_ATTENTION` is compared for one row alone.

    Args:
        captured: the graph, completed by :func:`tf_pipeline.port.complete.complete`.
        measured: PyTorch's results.

    Returns:
        The checks.

    Raises:
        PortError: if something is unequal, naming the first node that is.
    """
    checks = list(_judged(captured, measured))
    if failures := [check for check in checks if not check.passed]:
        place = first_difference(captured, measured.weights, measured.model, measured.samples)
        raise PortError(
            f"{captured.graph.model_class} cannot be ported: the graph does not compute what PyTorch does.{place}\n"
            + "\n".join(f"  {check}" for check in failures[:5])
        )
    return checks


def without_least_length(captured: Captured, measured: Measured, config: PreTrainedConfig) -> Captured:
    """A proven graph of texts without its least length, where shorter ones are equal too.

    PyTorch states the lengths for which its own guards hold, which can be stricter than the computation.
    """
    least, most = captured.graph.limits.get("length", [1, None])
    if least == 1 or "input_ids" not in captured.graph.inputs:
        return captured
    rows, _, decoder_length, _ = captured.graph.sample
    open_graph = replace(captured.graph, limits=captured.graph.limits | {"length": [1, most]})
    shorter = replace(captured, graph=open_graph)
    sizes = [(rows, length, decoder_length, "right") for length in sorted({1, least // 2, least - 1})]
    try:
        samples = [sample(open_graph, measured.model, config, size, seed) for seed, size in enumerate(sizes, 1)]
        checks = list(_judged(shorter, replace(measured, samples=samples)))
    except Exception:  # whatever either framework says of a text that is too short
        return captured
    return shorter if all(check.passed for check in checks) else captured


def compare_loaded(model, report: LoadingReport, model_class: type, source: str | os.PathLike, **options: Any) -> bool:
    """Prove that a loaded model is PyTorch's of the same checkpoint: every weight, and the results.

    Weights are compared bit for bit, in the dtype of the model's variables. Weights that both start at random are given
    to PyTorch too. Outputs are compared at one shape, in the dtypes float64 and float32.

    Args:
        model: a ported model, just loaded.
        report: the report of loading it.
        model_class: PyTorch's class.
        source: the checkpoint.
        **options: hub options.

    Returns:
        Whether this is proven: it cannot be if weights are NaN or infinite.

    Raises:
        PortError: naming weights that differ or that only PyTorch's model has from the checkpoint, or outputs.
    """
    exact = model.variable_dtype == "float64"
    theirs, seen = load_with_report(
        model_class, source, model.config, torch.float64 if exact else torch.float32,
        ignore_mismatched_sizes=bool(report.mismatched), **options,
    )  # fmt: skip
    theirs = theirs.double() if exact else theirs  # XLNet makes some of its weights float32 whatever it is asked for
    fresh = {*report.missing, *(key for key, *_ in report.mismatched)}
    not_there = {*seen["missing_keys"], *(key for key, *_ in seen["mismatched_keys"])}
    ignored = re.compile("|".join(theirs._keys_to_ignore_on_load_missing or ()) or "(?!)")
    if lost := sorted(key for key in fresh - not_there if not ignored.search(key)):
        raise PortError(f"{source} was not read as PyTorch reads it: it has {lost[:5]} under other names.")
    tensors = theirs.state_dict(keep_vars=True)
    for key, slot in named_slots(model):
        ours = slot.read()
        if key in fresh:
            tensors[key].data.copy_(torch.from_numpy(ours.astype("float64")))
        elif not np.array_equal(ours, tensors[key].detach().numpy().astype(ours.dtype), equal_nan=True):
            raise PortError(f"{source} was not read as PyTorch reads it: {key} differs from PyTorch's.")
    if FUSED_ALONE in model.graph.notes:
        set_attention(theirs, "sdpa")
    if spoiled := not_finite(theirs):
        logger.warning("%s holds NaN or infinity in %s: its outputs are not compared with PyTorch's.", source, spoiled)
    elif model.compute_dtype in ("float64", "float32"):
        compare_outputs(model, theirs)
    return not spoiled


def compare_outputs(
    model, theirs: torch.nn.Module, seed: int = 2, run: Callable[[Arrays], Arrays] | None = None
) -> None:
    """Compare the results of two models of the same weights on inputs of the shape ``graph.sample``.

    Args:
        model: a ported model that computes in float64 or float32.
        theirs: PyTorch's, in the same dtype.
        seed: seed of the inputs.
        run: computes the model's outputs by name from its inputs by name, if not the model itself does, but a copy of
            it elsewhere.

    Raises:
        PortError: naming the outputs that differ.
    """
    dtype = theirs.dtype
    inputs = sample(model.graph, theirs, model.config, model.graph.sample, seed)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    ours = dict(named_tensors(model(arrays, output_hidden_states=True)) if run is None else run(arrays))
    attentions = any(map(is_attention, ours))
    own = reference_tensors(theirs, inputs, attentions)
    truth = reference_tensors(theirs.double(), inputs, attentions)
    theirs.to(dtype)
    pairs = in_turn([name for name in truth if name in ours], (ours, own, truth), token_mask(inputs))
    if model.compute_dtype == "float64":
        checks = [rules.judge_float64(name, "loaded", *pair[::2]) for name, pair in pairs]
    else:
        checks = list(judge_envelopes((("loaded", name, pair) for name, pair in pairs), "float32", rules.RMS_FACTOR))
    if failures := [str(check) for check in checks if not check.passed]:
        raise PortError(
            f"{type(model).__name__} cannot be ported: loaded, it does not compute what PyTorch does.\n"
            + "\n".join(failures[:5])
        )


def _judged(captured: Captured, measured: Measured) -> Iterator[Check]:
    """Every tensor at every shape in both dtypes.

    The outputs of one shape and dtype are held at a time, and each is let go of when it was compared.
    """
    double, single = _runners(captured, measured)
    attentions = any(map(is_attention, captured.graph.outputs))
    rms_factor = rules.HARSH_RMS_FACTOR if measured.is_random else rules.RMS_FACTOR
    few, seen = [], {}
    for inputs in measured.samples:
        setting, mask = _setting(inputs), token_mask(inputs)
        if attentions and _is_large(captured.graph, inputs, seen):
            attentions, outputs = False, {x: y for x, y in captured.graph.outputs.items() if not is_attention(x)}
            double, single = _runners(captured, measured, outputs)
        with in_float64(measured.model) as model:
            truth = reference_tensors(model, inputs, attentions)
        seen = seen or {name: tuple(value.shape) for name, value in truth.items()}
        exact = double.tensors(inputs)
        names = [name for name in truth if name in exact or not is_attention(name)]
        for name, (ours, expected) in in_turn(names, (exact, dict(truth)), mask):
            yield rules.judge_float64(name, setting, ours, expected)
        own = reference_tensors(measured.model, inputs, attentions)
        for name, arrays in in_turn(names, (single.tensors(inputs), own, truth), mask):
            if are_few(arrays):
                few.append((setting, name, arrays))
            else:
                yield rules.judge_envelope(name, setting, "float32", *arrays, rms_factor)
    yield from judge_envelopes(few, "float32", rms_factor)


def _runners(captured: Captured, measured: Measured, outputs: dict[str, Any] | None = None) -> list[GraphRunner]:
    return [GraphRunner(captured, measured.weights, dtype, outputs) for dtype in ("float64", "float32")]


def _is_large(graph: Graph, inputs: Mapping[str, torch.Tensor], seen: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the attention over these signals is too large to be compared, by the shapes of outputs of one row."""
    one = sum(math.prod(shape) for name, shape in seen.items() if is_attention(name))
    return reads_fixed_signals(graph) and _shape(inputs)[0] * one > MOST_ATTENTION


def _setting(inputs: Mapping[str, torch.Tensor]) -> str:
    """The shape of inputs in words: of the main one, and of a decoder's."""
    words = " × ".join(map(str, _shape(inputs)))
    return f"{words} → {inputs['decoder_input_ids'].shape[1]}" if "decoder_input_ids" in inputs else words


def _shape(inputs: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    return tuple(next(iter(inputs.values())).shape)


def first_difference(captured: Captured, weights, model: torch.nn.Module, samples) -> str:
    """Name the first module whose output differs between the graph and PyTorch, in words."""
    ends = _last_nodes(captured.graph)
    order = {node.name: place for place, node in enumerate(captured.graph.nodes)}
    for inputs in samples:
        with in_float64(model):
            seen = _module_outputs(model, inputs)
        places = {name: node for name, node in ends.items() if name in seen}
        outputs = {node.name: f"%{node.name}" for node in places.values()}
        ours, mask = GraphRunner(captured, weights, "float64", outputs)(inputs), token_mask(inputs)
        for name, node in sorted(places.items(), key=lambda item: order[item[1].name]):
            pair = [real_positions(node.name, x, mask) for x in (ours[node.name], seen[name].double().numpy())]
            if pair[0].shape != pair[1].shape or not rules.judge_float64(node.name, "", *pair).passed:
                return f" The first that differs is {node.name} ({node.op}) in {name}, at inputs of {_shape(inputs)}."
    return ""


def _last_nodes(graph: Graph) -> dict[str, Node]:
    """The node that ends each module, by the module's path."""
    ends: dict[str, Node] = {}
    for node in graph.nodes:
        of_token = len(node.shape or ()) == 3 and node.shape[:2] == ["batch", 1]
        comparable = isinstance(node.dtype, str) and (of_token or not graph.states)
        parts = node.module.split(".") if node.module and comparable else []
        ends |= {".".join(parts[:depth]): node for depth in range(1, len(parts) + 1)}
    return ends


def _module_outputs(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The last output of every module of a PyTorch model that returns one tensor."""
    seen: dict[str, torch.Tensor] = {}

    def remember(name: str):
        def keep(module, arguments, output) -> None:
            if torch.is_tensor(output):
                seen[name] = output.clone()  # as the layer behind it may add to the tensor in place

        return keep

    hooks = [module.register_forward_hook(remember(name)) for name, module in model.named_modules() if name]
    try:
        reference_tensors(model, inputs, attentions=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
