"""Limits on the length of an input, beyond which a position lies outside its table."""

from dataclasses import replace

import numpy as np
import tensorflow as tf

from tf_pipeline.port.graph import Graph, Node, references
from tf_pipeline.port.interpret import Interpreter

# Operators that read rows of a table, with the places of the table and the index among the arguments.
_LOOKUPS = {"aten.embedding.default": (0, 1), "aten.index_select.default": (0, 2), "aten.index.Tensor": (0, 1)}
_SHORT, _LONG = 8, 12


def with_position_limits(captured) -> dict[str, list[int | None]]:
    """The limits of a captured graph, and those that its tables of positions set.

    The index of each lookup is computed for inputs of several lengths. Where the largest index grows with the length,
    the end of the table is the end of the length.

    Args:
        captured: a :class:`~tf_pipeline.port.capture.Captured`.
    """
    limits = {name: list(bounds) for name, bounds in captured.graph.limits.items()}
    for axis in ("length", "decoder_length"):
        if axis not in limits or captured.graph.states:
            continue
        for node in captured.graph.nodes:
            most = _most(captured, node, axis)
            if most is not None:
                limits[axis][1] = most if limits[axis][1] is None else min(most, limits[axis][1])
    return limits


def _most(captured, node: Node, axis: str) -> int | None:
    """The greatest size of ``axis`` for which a lookup stays in its table, or ``None`` if it has no say in it."""
    graph = captured.graph
    if node.op not in _LOOKUPS:
        return None
    table, index = (node.args[i] for i in _LOOKUPS[node.op])
    if isinstance(index, list) and len(index) == 1:
        (index,) = index
    if not isinstance(index, str) or not _is_counted(graph, index):
        return None
    rows = _rows(graph, table)
    first, second = (_largest_index(captured, index, axis, size) for size in (_SHORT, _LONG))
    if rows is None or second - first != _LONG - _SHORT:
        return None
    most = rows - 1 - first + _SHORT
    # Buckets of distances grow with the length at first, and then no more.
    return most if _largest_index(captured, index, axis, most + 1) == rows else None


def _rows(graph: Graph, table: str) -> int | None:
    name = table[1:]
    if name[:2] in ("p.", "c."):
        spec = (graph.parameters if name[0] == "p" else graph.constants)[name[2:]]
        return spec.shape[0]
    shape = graph.by_name[name].shape
    return shape[0] if shape and isinstance(shape[0], int) else None


def _is_counted(graph: Graph, reference: str) -> bool:
    """Whether an index is computed from inputs and constants alone, not from the model's weights."""
    trial = replace(graph, outputs={"index": reference})
    used = {name for node in trial.needed(("index",)) for name in node.references()} | set(references(reference))
    return not any(name.startswith("p.") for name in used) and "input_ids" not in references(reference)


def _largest_index(captured, reference: str, axis: str, size: int) -> int:
    trial = replace(captured.graph, outputs={"index": reference})
    trial.nodes = [node for node in trial.needed(("index",)) if not node.op.startswith("aten._assert")]
    inputs = {}
    for name, spec in trial.inputs.items():
        own = [1, *(size if s == axis else s if isinstance(s, int) else _SHORT for s in spec.shape[1:])]
        value = np.full(own, _ordinary_token(trial))
        if spec.default == "positions":
            value = np.broadcast_to(np.arange(own[-1]), own)
        elif spec.default is not None:
            value = np.full(own, 1 if spec.default == "ones" else 0)
        inputs[name] = tf.constant(value)
    read = lambda key: tf.constant(captured.constants[key])  # noqa: E731
    index = Interpreter(trial, "float32").run(("index",), inputs, read, read)["index"]
    return int(tf.reduce_max(index))


def _ordinary_token(graph: Graph) -> int:
    """A token that is not padding: the last of the largest table."""
    return max((spec.shape[0] for spec in graph.parameters.values() if len(spec.shape) == 2), default=2) - 1
