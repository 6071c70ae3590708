"""Adapters of ported models: which operations of a graph are PyTorch's modules, and their updates."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_pipeline import checkpoint
from tf_pipeline.layers.lora import Target
from tf_pipeline.port.graph import LINEAR, Graph, Node

ADDMM, EMBEDDING = "aten.addmm.default", "aten.embedding.default"
# Places of the weight and of the inputs among the arguments of an operator.
_WEIGHTS, _INPUTS = {LINEAR: 1, ADDMM: 2, EMBEDDING: 0}, {LINEAR: 0, ADDMM: 1, EMBEDDING: 1}


def module_of(node: Node, graph: Graph) -> str | None:
    """PyTorch's name of the linear layer, ``Conv1D`` or table of embeddings that an operation is, if it is one."""
    if node.op not in _WEIGHTS or len(node.args) <= _WEIGHTS[node.op]:
        return None
    reference = node.args[_WEIGHTS[node.op]]
    if not isinstance(reference, str) or not reference.startswith("%p.") or not reference.endswith(".weight"):
        return None
    key = reference.removeprefix("%p.")
    alias = f"{node.module}.weight"
    return node.module if graph.tied.get(alias, alias) == key else key.removesuffix(".weight")


def graph_targets(model) -> dict[str, Target]:
    """The modules that may be updated, by PyTorch's names."""
    graph, targets = model.graph, {}
    slots = dict(checkpoint.named_slots(model))
    for node in graph.nodes:
        name = module_of(node, graph)
        if name is None or name in targets:
            continue
        key = node.args[_WEIGHTS[node.op]].removeprefix("%p.")
        shape = tuple(graph.parameters[key].shape)
        if len(shape) != 2:
            continue
        rows_are_inputs, is_table = node.op != LINEAR, node.op == EMBEDDING
        shares = "" if key == f"{name}.weight" and key not in graph.tied.values() else key.removesuffix(".weight")
        padding = node.args[2] if is_table and len(node.args) > 2 and node.args[2] >= 0 else None
        sizes = shape if rows_are_inputs else shape[::-1]
        targets[name] = Target(slots[key].layer, sizes, rows_are_inputs, is_table, padding, shares)
    return targets


def updates_of(graph: Graph, slots: Callable[[], Mapping[str, checkpoint.Slot]]) -> Callable:
    """The function that adds the updates of adapters to the results of operations; see ``Interpreter``.

    Args:
        graph: the graph of the model.
        slots: returns its parameters by key.
    """

    def updated(node: Node, result: tf.Tensor, args: list[Any], training: bool) -> tf.Tensor:
        name = module_of(node, graph)
        if name is None:
            return result
        leaf = slots()[node.args[_WEIGHTS[node.op]].removeprefix("%p.")].layer
        return leaf.updated(result, args[_INPUTS[node.op]], training, name) if leaf.adapters else result

    return updated
