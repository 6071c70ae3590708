"""Complete a captured graph with facts from PyTorch's results: the lengths it takes, a sample, its attentions."""

import contextlib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from transformers import PreTrainedConfig

from tf_pipeline.judging.rules import FLOAT64_TOLERANCE
from tf_pipeline.judging.tensors import real_positions
from tf_pipeline.losses import IGNORE_INDEX
from tf_pipeline.port.capture import Captured
from tf_pipeline.port.graph import ATTENTION, Graph
from tf_pipeline.port.limits import with_position_limits
from tf_pipeline.port.runner import GraphRunner, Weights, weights_of
from tf_pipeline.port.sample import SIGNALS, boundaries, sample_inputs
from tf_pipeline.reference.loading import load_torch_model
from tf_pipeline.reference.outputs import array, torch_array
from tf_pipeline.reference.precision import in_float64
from tf_pipeline.reference.running import reference_tensors
from tf_pipeline.shifts import SHIFTS

# Rows, positions, positions of the decoder and the padded side of each comparison; none is the captured example's. Then
# follow lengths beyond those that the config names.
SHAPES = ((1, 1, 1, None), (5, 17, 9, "right"), (2, 24, 5, "left"))
# The same for images and sounds of one size without texts, of which neither the length nor padding means anything.
# Rows are few, as attention over a whole sound can be larger than the model.
MOST_SIGNALS = 2
SIGNAL_SHAPES = ((1, 1, 9, None), (MOST_SIGNALS, 1, 5, None), (MOST_SIGNALS, 1, 1, None))

# The note of a graph that is compared with the fused attention.
FUSED_ALONE = "PyTorch's eager attention computes something else; this is its default, sdpa."
FUSED = "aten.scaled_dot_product_attention.default"


@dataclass(frozen=True)
class Measured:
    """Measures of a captured graph: a model and inputs. Results are computed when they are compared, and not kept.

    Attributes:
        model: PyTorch's model, in float32.
        weights: copies of its weights by checkpoint key.
        samples: inputs, one dictionary for each of :func:`shapes`.
        is_random: whether the weights are random rather than a checkpoint's.
    """

    model: torch.nn.Module
    weights: Weights
    samples: list[dict[str, torch.Tensor]]
    is_random: bool


def complete(
    captured: Captured,
    model_class: type,
    config: PreTrainedConfig,
    source: str | os.PathLike | None = None,
    **options: Any,
) -> tuple[Captured, Measured]:
    """Add to a graph the limits of its tables, the shape of a usual sample, and attentions where they are PyTorch's.

    Args:
        captured: the graph, which is left as it is.
        model_class: PyTorch's class.
        config: its config.
        source: the checkpoint whose weights are run; random ones if not given, or if some of its are NaN or infinite.
        **options: hub options.

    Returns:
        The completed graph, and what :func:`tf_pipeline.port.gate.check` judges it by.
    """
    load = partial(load_torch_model, model_class, config=config, dtype=torch.float32, attn_implementation="eager")
    # Whether weights of other sizes are an error is said when the checkpoint is loaded.
    model = load(source=source, ignore_mismatched_sizes=True, **options) if source is not None else load(source=None)
    if source is not None and not_finite(model):  # which would spread, and leave nothing to compare
        source, model = None, load(source=None)
    weights = weights_of(model)
    graph = replace(captured.graph, limits=with_position_limits(captured))
    captured = replace(captured, graph=graph)
    sizes = shapes(captured, config)
    usual = min(1, len(sizes) - 1)  # several rows, one of them padded, if the graph takes that
    graph.sample = list(sizes[usual])
    samples = [sample(graph, model, config, shape, seed) for seed, shape in enumerate(sizes, 1)]
    if _fused_attention(captured, model, samples[usual]):
        graph.notes = [*graph.notes, FUSED_ALONE]
    graph.shift = label_shift(model, config, samples[usual])
    measured = Measured(model, weights, samples, is_random=source is None)
    graph.outputs = graph.outputs | _attentions(captured, measured)
    return captured, measured


def label_shift(model: torch.nn.Module, config: PreTrainedConfig, inputs: Mapping[str, torch.Tensor]) -> str:
    """Name of the way in which a PyTorch model makes its decoder's inputs from labels; empty if it has none of ours."""
    if "decoder_input_ids" not in inputs or "labels" not in inspect.signature(model.forward).parameters:
        return ""
    labels = inputs["decoder_input_ids"].clone()
    labels[0, -1] = IGNORE_INDEX
    others = {name: value for name, value in inputs.items() if not name.startswith("decoder_")}

    def logits(**made: torch.Tensor) -> np.ndarray:
        return torch_array(reference_tensors(model, others | made, attentions=False)["logits"])

    try:
        theirs = logits(labels=labels)
    except Exception:  # whatever the code makes of labels: they are refused then
        return ""
    for name, shift in SHIFTS.items():
        with contextlib.suppress(Exception):  # such as ids that the config does not have
            ids = torch.from_numpy(shift(tf.constant(labels.numpy()), config).numpy())
            ours = logits(decoder_input_ids=ids)
            if np.allclose(ours, theirs, rtol=0.0, atol=1e-4 * np.abs(theirs).max(initial=0)):
                return name
    return ""


def not_finite(model: torch.nn.Module) -> list[str]:
    """The parameters of a PyTorch model that hold NaN or infinity."""
    return [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]


def shapes(captured: Captured, config: PreTrainedConfig) -> list[tuple[int, int, int, str | None]]:
    """Rows, positions, positions of the decoder and padded side of each comparison, of lengths that a graph takes."""
    if reads_fixed_signals(captured.graph):
        last = captured.graph.limits.get("decoder_length", [1, None])[1]
        most = 1 if "decoder_input_ids" not in captured.graph.inputs else last
        return list(dict.fromkeys((rows, n, min(m, most or m), side) for rows, n, m, side in SIGNAL_SHAPES))
    (least, most), (_, last) = (captured.graph.limits.get(axis, [1, None]) for axis in ("length", "decoder_length"))
    taken = [length for length in captured.lengths if least <= length <= (most or length)] or [least]
    seen = max(length for _, length, _, _ in SHAPES)
    longer = [length + 1 for length in boundaries(config) if length >= seen]
    every = [*SHAPES, *((2, length, 3, ("right", "left")[i % 2]) for i, length in enumerate(longer))]
    fitted = [(rows, min(taken, key=lambda x, n=n: abs(x - n)), min(m, last or m), side) for rows, n, m, side in every]
    return list(dict.fromkeys(fitted))


def reads_fixed_signals(graph: Graph) -> bool:
    """Whether a graph reads images or sounds of one size, and no texts."""
    signals = [spec.shape[1:] for name, spec in graph.inputs.items() if name in SIGNALS]
    fixed = all(isinstance(size, int) for shape in signals for size in shape)
    return bool(signals) and fixed and "input_ids" not in graph.inputs


def sample(graph: Graph, model: torch.nn.Module, config: PreTrainedConfig, shape, seed: int) -> dict[str, torch.Tensor]:
    """Random inputs of a graph, of a shape of :func:`shapes`."""
    inputs = sample_inputs(model, config, *shape, seed)
    return {name: value for name, value in inputs.items() if name in graph.inputs}


def _fused_attention(captured: Captured, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Choose PyTorch's attention: its default, the fused one, where its plain one computes something else."""
    if not any(node.op == FUSED for node in captured.graph.nodes):
        return False
    plain = reference_tensors(model, inputs, attentions=False)
    set_attention(model, "sdpa")
    fused = reference_tensors(model, inputs)
    pairs = (pair for _, pair in in_turn(plain.keys() & fused.keys(), (plain, fused), token_mask(inputs)))
    if all(np.allclose(a, b, 0.0, 0.01 * max(1.0, np.abs(b).max(initial=0)), equal_nan=True) for a, b in pairs):
        set_attention(model, "eager")
        return False
    return True


def set_attention(model: torch.nn.Module, implementation: str) -> None:
    """Choose PyTorch's attention by the config, which counts also where ``set_attn_implementation`` refuses to."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = implementation


def _attentions(captured: Captured, measured: Measured) -> dict[str, list[str]]:
    """The attention nodes' probabilities as outputs, if they are PyTorch's attentions."""
    # Of one row, if attention is large.
    inputs, model = measured.samples[0 if reads_fixed_signals(captured.graph) else -1], measured.model
    nodes = [node.name for node in captured.graph.nodes if node.op == FUSED]
    if not nodes or captured.graph.states or model.config._attn_implementation != "eager":  # states: of single tokens
        return {}
    with in_float64(model):
        truth = reference_tensors(model, inputs)
    wanted = {name: value for name, value in truth.items() if is_attention(name)}
    if not wanted:
        return {}
    outputs = {name: f"%{name}{ATTENTION}" for name in nodes}
    ours, mask = GraphRunner(captured, measured.weights, "float64", outputs).tensors(inputs), token_mask(inputs)
    found: dict[str, list[str]] = {}
    for name in list(wanted):
        real = real_positions("attentions", array(wanted.pop(name)), mask)
        node = next((n for n, x in ours.items() if _equal(real_positions("attentions", array(x), mask), real)), None)
        if node is None:
            return {}
        del ours[node]
        found.setdefault(name.split(".")[0], []).append(f"%{node}{ATTENTION}")
    return found


def in_turn(
    names: Iterable[str], results: Sequence[dict[str, Any]], mask: np.ndarray | None
) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    """Each tensor of several results as float64 arrays over the positions that hold tokens.

    It is taken out of the results, so that none is held after it was compared.

    Args:
        names: names of the tensors.
        results: tensors of either framework by name; a tensor that one lacks is empty there.
        mask: the mask of real tokens.
    """
    for name in names:
        arrays = (array(result.pop(name)) if name in result else np.empty(0) for result in results)
        yield name, tuple(real_positions(name, value, mask) for value in arrays)


def is_attention(name: str) -> bool:
    """Whether an output of PyTorch's holds attention probabilities."""
    return name.split(".")[0].endswith("attentions")


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.abs(a - b).max(initial=0) <= FLOAT64_TOLERANCE


def token_mask(inputs: Mapping[str, torch.Tensor]) -> np.ndarray | None:
    """The mask of real tokens among some inputs, if there is one."""
    return inputs["attention_mask"].numpy() if "attention_mask" in inputs else None
