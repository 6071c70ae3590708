"""Compare a port with PyTorch before anybody uses it, and refuse it if they differ."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from transformers import PreTrainedConfig

from tf_pipeline.checkpoint import LoadingReport, named_slots
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.judging.tensors import judge_envelopes, real_arrays, real_positions
from tf_pipeline.port.capture import Captured, shared_tensors
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import ATTENTION, COMPUTE, Graph, Input, Node
from tf_pipeline.port.interpret import Interpreter
from tf_pipeline.port.limits import with_position_limits
from tf_pipeline.port.sample import boundaries, sample_inputs
from tf_pipeline.reference.loading import load_torch_model, load_with_report
from tf_pipeline.reference.outputs import flatten
from tf_pipeline.reference.running import run_reference

# Rows, positions, positions of the decoder and the padded side of each comparison; none is the captured example's. Then
# follow lengths beyond what the config names.
SHAPES = ((1, 1, 1, None), (5, 17, 9, "right"), (2, 24, 5, "left"))

Arrays = dict[str, np.ndarray]


def check(
    captured: Captured,
    model_class: type,
    config: PreTrainedConfig,
    source: str | os.PathLike | None = None,
    **options: Any,
) -> list[Check]:
    """Prove that a captured graph computes what PyTorch does, and learn whether its attentions are PyTorch's.

    Compared are all outputs at the shapes of :func:`shapes`, unlike the example and padded on either side: in float64
    to 1e-10, with PyTorch's upcasts to float32 lifted, and in float32 inside the envelope of PyTorch's own rounding.

    Args:
        captured: the graph; its attentions are added to its outputs if they are equal.
        model_class: PyTorch's class.
        config: its config.
        source: the checkpoint whose weights are compared; random ones if not given.
        **options: hub options.

    Returns:
        The checks.

    Raises:
        PortError: if something is unequal, naming the first node that is.
    """
    single = load_torch_model(model_class, source, config, torch.float32, attn_implementation="eager", **options)
    weights = {key: tensor.detach().numpy().copy() for key, tensor in shared_tensors(single)}
    captured.graph.limits = with_position_limits(captured)
    sizes = shapes(captured, config)
    usual = min(1, len(sizes) - 1)  # several rows, one of them padded, if the graph takes that
    captured.graph.sample = list(sizes[usual])
    samples = [_sample(captured.graph, single, config, shape, seed) for seed, shape in enumerate(sizes, 1)]
    _choose_attention(captured, single, samples[usual])
    theirs = [run_reference(single, inputs) for inputs in samples]
    double = single.double()
    truths = [run_reference(double, inputs) for inputs in samples]
    _offer_attentions(captured, weights, samples[-1], truths[-1])
    checks = list(_judged(captured, weights, samples, theirs, truths, 3.0 if source is None else 2.0))
    if failures := [check for check in checks if not check.passed]:
        place = first_difference(captured, weights, double, samples)
        raise PortError(
            f"{captured.graph.model_class} cannot be ported: the graph does not compute what PyTorch does.{place}\n"
            + "\n".join(f"  {check}" for check in failures[:5])
        )
    return checks


def compare_loaded(model, report: LoadingReport, model_class: type, source: str | os.PathLike, **options: Any) -> None:
    """Prove that a loaded model is PyTorch's of the same checkpoint: every weight, and what it computes.

    Weights are compared bit for bit, in the dtype of the model's variables. What both start at random is given to
    PyTorch too. Outputs are compared at one shape, in the dtypes float64 and float32.

    Args:
        model: a ported model, just loaded.
        report: what loading it said.
        model_class: PyTorch's class.
        source: the checkpoint.
        **options: hub options.

    Raises:
        PortError: naming weights that differ or that only PyTorch's model has from the checkpoint, or outputs.
    """
    exact = model.variable_dtype == "float64"
    theirs, seen = load_with_report(
        model_class, source, model.config, torch.float64 if exact else torch.float32,
        ignore_mismatched_sizes=bool(report.mismatched), **options,
    )  # fmt: skip
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
    if model.compute_dtype in ("float64", "float32"):
        compare_outputs(model, theirs)


def compare_outputs(model, theirs: torch.nn.Module, seed: int = 2) -> None:
    """Compare what two models of the same weights compute from inputs of the shape ``graph.sample``.

    Args:
        model: a ported model that computes in float64 or float32.
        theirs: PyTorch's, in the same dtype.
        seed: seed of the inputs.

    Raises:
        PortError: naming the outputs that differ.
    """
    dtype = theirs.dtype
    inputs = _sample(model.graph, theirs, model.config, model.graph.sample, seed)
    own = run_reference(theirs, inputs)
    truth = run_reference(theirs.double(), inputs)
    theirs.to(dtype)
    ours = flatten(model({name: value.numpy() for name, value in inputs.items()}, output_hidden_states=True))
    names = {name for name in truth if name in ours}
    arrays = list(real_arrays(ours, *({name: x[name] for name in names} for x in (own, truth)), _mask(inputs)))
    if model.compute_dtype == "float64":
        checks = [rules.judge_float64(name, "loaded", *pair[::2]) for name, pair in arrays]
    else:
        checks = list(judge_envelopes([("loaded", name, pair) for name, pair in arrays], "float32", 2.0))
    if failures := [str(check) for check in checks if not check.passed]:
        raise PortError(
            f"{type(model).__name__} cannot be ported: loaded, it does not compute what PyTorch does.\n"
            + "\n".join(failures[:5])
        )


def _choose_attention(captured: Captured, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> None:
    """Compare with the fused attention that PyTorch runs by default where its plain one computes something else."""
    if not any(node.op == "aten.scaled_dot_product_attention.default" for node in captured.graph.nodes):
        return
    plain = run_reference(model, inputs)
    _set_attention(model, "sdpa")
    fused = run_reference(model, inputs)
    plain = {name: value for name, value in plain.items() if name in fused}
    pairs = [(a, b) for _, (a, b, _) in real_arrays(plain, fused, fused, _mask(inputs))]
    if all(np.allclose(a, b, 0.0, 0.01 * max(1.0, np.abs(b).max(initial=0)), equal_nan=True) for a, b in pairs):
        _set_attention(model, "eager")
    else:
        captured.graph.notes.append("PyTorch's eager attention computes something else; this is its default, sdpa.")


def _set_attention(model: torch.nn.Module, implementation: str) -> None:
    """Choose PyTorch's attention by the config, which counts also where ``set_attn_implementation`` refuses to."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = implementation


def shapes(captured: Captured, config: PreTrainedConfig) -> list[tuple[int, int, int, str | None]]:
    """Rows, positions, positions of the decoder and padded side of each comparison, of lengths that a graph takes."""
    (least, most), (_, last) = (captured.graph.limits.get(axis, [1, None]) for axis in ("length", "decoder_length"))
    taken = [length for length in captured.lengths if least <= length <= (most or length)] or [least]
    seen = max(length for _, length, _, _ in SHAPES)
    longer = [length + 1 for length in boundaries(config) if length >= seen]
    every = [*SHAPES, *((2, length, 3, ("right", "left")[i % 2]) for i, length in enumerate(longer))]
    fitted = [(rows, min(taken, key=lambda x, n=n: abs(x - n)), min(m, last or m), side) for rows, n, m, side in every]
    return list(dict.fromkeys(fitted))


def _sample(
    graph: Graph, model: torch.nn.Module, config: PreTrainedConfig, shape, seed: int
) -> dict[str, torch.Tensor]:
    """Random inputs of a graph, of a shape of :func:`shapes`."""
    inputs = sample_inputs(model, config, *shape, seed)
    return {name: value for name, value in inputs.items() if name in graph.inputs}


class GraphRunner:
    """Runs a captured graph with TensorFlow, as one graph of open axes that is traced once for all shapes.

    Args:
        captured: the graph and its constants.
        weights: arrays by checkpoint key.
        dtype: dtype that the graph runs in.
        outputs: references by name, instead of the graph's own outputs.
    """

    def __init__(
        self, captured: Captured, weights: Mapping[str, np.ndarray], dtype: str, outputs: dict[str, Any] | None = None
    ):
        graph = captured.graph if outputs is None else replace(captured.graph, outputs=outputs)
        interpreter = Interpreter(graph, dtype)
        # Made outside of the function, which would hold them as constants and be optimized over all of them.
        held = {
            key: tf.constant(weights[key], dtype if spec.dtype == COMPUTE else None)
            for key, spec in graph.parameters.items()
        }
        constants = {key: tf.constant(value) for key, value in captured.constants.items()}
        signature = {
            name: tf.TensorSpec([None if isinstance(size, str) else size for size in spec.shape], _kind(spec), name)
            for name, spec in graph.inputs.items()
        }

        @tf.function(autograph=False, input_signature=[signature])
        def compute(tensors):
            return interpreter.run(tuple(graph.outputs), tensors, held.__getitem__, constants.__getitem__)

        self._compute = compute

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Arrays:
        """Every output, as float64 arrays by name."""
        return flatten(self._compute({name: tf.constant(value.numpy()) for name, value in inputs.items()}))


def _kind(spec: Input) -> str:
    """The dtype of an example input: floats are given in float32."""
    return "float32" if spec.dtype == COMPUTE else spec.dtype


def _mask(inputs: Mapping[str, torch.Tensor]) -> np.ndarray | None:
    return inputs["attention_mask"].numpy() if "attention_mask" in inputs else None


def _shape(inputs: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    return tuple(next(iter(inputs.values())).shape)


def _offer_attentions(captured: Captured, weights, inputs, truth: Arrays) -> None:
    """Add the attention nodes' probabilities to the outputs where they are what PyTorch calls attentions."""
    nodes = [n.name for n in captured.graph.nodes if n.op == "aten.scaled_dot_product_attention.default"]
    wanted = {name: value for name, value in truth.items() if _is_attention(name)}
    if not nodes or not wanted:
        return
    outputs = {name: f"%{name}{ATTENTION}" for name in nodes}
    ours, mask = GraphRunner(captured, weights, "float64", outputs)(inputs), _mask(inputs)
    found: dict[str, list[str]] = {}
    for name, value in wanted.items():
        real = real_positions("attentions", value, mask)
        node = next((n for n, x in ours.items() if _equal(real_positions("attentions", x, mask), real)), None)
        if node is None:
            return
        del ours[node]
        found.setdefault(name.split(".")[0], []).append(f"%{node}{ATTENTION}")
    captured.graph.outputs |= found


def _is_attention(name: str) -> bool:
    return name.split(".")[0].endswith("attentions")


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.abs(a - b).max(initial=0) <= rules.FLOAT64_TOLERANCE


def _judged(captured: Captured, weights, samples, theirs, truths, rms_factor: float) -> Iterator[Check]:
    """Every tensor at every shape in both dtypes."""
    double, single = (GraphRunner(captured, weights, dtype) for dtype in ("float64", "float32"))
    narrow = []
    for inputs, own, truth in zip(samples, theirs, truths, strict=True):
        setting, mask = " × ".join(map(str, _shape(inputs))), _mask(inputs)
        exact = double(inputs)
        truth = {name: value for name, value in truth.items() if name in exact or not _is_attention(name)}
        for name, (ours, _, expected) in real_arrays(exact, truth, truth, mask):
            yield rules.judge_float64(name, setting, ours, expected)
        own = {name: own[name] for name in truth}
        narrow += [(setting, name, arrays) for name, arrays in real_arrays(single(inputs), own, truth, mask)]
    yield from judge_envelopes(narrow, "float32", rms_factor)


def first_difference(captured: Captured, weights, model: torch.nn.Module, samples) -> str:
    """Where the graph departs from PyTorch: the first module whose output differs, in words."""
    ends = _last_nodes(captured.graph)
    order = {node.name: place for place, node in enumerate(captured.graph.nodes)}
    for inputs in samples:
        seen = _module_outputs(model, inputs)
        places = {name: node for name, node in ends.items() if torch.is_tensor(seen.get(name))}
        outputs = {node.name: f"%{node.name}" for node in places.values()}
        ours, mask = GraphRunner(captured, weights, "float64", outputs)(inputs), _mask(inputs)
        for name, node in sorted(places.items(), key=lambda item: order[item[1].name]):
            pair = [real_positions(node.name, x, mask) for x in (ours[node.name], seen[name].double().numpy())]
            if pair[0].shape != pair[1].shape or not rules.judge_float64(node.name, "", *pair).passed:
                return f" The first that differs is {node.name} ({node.op}) in {name}, at inputs of {_shape(inputs)}."
    return ""


def _last_nodes(graph: Graph) -> dict[str, Node]:
    """The node that ends each module, by the module's path."""
    ends: dict[str, Node] = {}
    for node in graph.nodes:
        parts = node.module.split(".") if node.module and isinstance(node.dtype, str) else []
        ends |= {".".join(parts[:depth]): node for depth in range(1, len(parts) + 1)}
    return ends


def _module_outputs(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What every module of a PyTorch model returned last."""
    seen: dict[str, Any] = {}

    def remember(name: str):
        # A copy, as the layer behind it may add to the tensor in place.
        return lambda module, arguments, output: seen.update(
            {name: output.clone() if torch.is_tensor(output) else output}
        )

    hooks = [module.register_forward_hook(remember(name)) for name, module in model.named_modules() if name]
    try:
        run_reference(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
