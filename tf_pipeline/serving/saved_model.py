"""Read a SavedModel without running it: its graphs, and inputs and outputs of its signatures."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tensorflow.core.framework import function_pb2, node_def_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

INIT_SIGNATURE = "__saved_model_init_op"


def read_saved_model(path: str | os.PathLike) -> saved_model_pb2.SavedModel:
    """Parse ``saved_model.pb``.

    Args:
        path: folder of a SavedModel; for TensorFlow Serving that is the version's, such as ``model/1``.

    Returns:
        The protocol buffer.

    Raises:
        FileNotFoundError: if there is no ``saved_model.pb``; the message says where to look instead.
        ValueError: if the file is not a SavedModel.
    """
    file = Path(path) / "saved_model.pb"
    if not file.is_file():
        versions = sorted(inner.parent.name for inner in Path(path).glob("*/saved_model.pb"))
        hint = f" The folder has {', '.join(versions)}: give one of these." if versions else ""
        raise FileNotFoundError(f"{path} is no SavedModel: it has no saved_model.pb.{hint}")
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except Exception as error:  # protobuf's DecodeError, of which there are several
        raise ValueError(f"{file} is not a SavedModel: {error}") from error
    if not saved_model.meta_graphs:
        raise ValueError(f"{file} is not a SavedModel: there is no graph in it.")
    return saved_model


def dtype_name(dtype: int) -> str:
    """Name of a ``DataType``, such as ``int64``."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def shape_of(info: meta_graph_pb2.TensorInfo) -> tuple[int | None, ...] | None:
    """Dimensions of a signature's tensor, None for unknown ones; None if even their number is unknown."""
    if info.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)


def shown_shape(info: meta_graph_pb2.TensorInfo) -> str:
    """Dimensions as ``saved_model_cli`` shows them: -1 for an unknown one."""
    shape = shape_of(info)
    return "unknown rank" if shape is None else f"({', '.join('-1' if dim is None else str(dim) for dim in shape)})"


def signatures(meta_graph: meta_graph_pb2.MetaGraphDef) -> dict[str, meta_graph_pb2.SignatureDef]:
    """The signatures that can be called, by name; ``serving_default`` first."""
    names = sorted(meta_graph.signature_def, key=lambda name: (name != "serving_default", name))
    return {name: meta_graph.signature_def[name] for name in names if name != INIT_SIGNATURE}


@dataclass(frozen=True)
class Scope:
    """The graph itself, or one function of its library.

    Attributes:
        name: empty for the graph.
        nodes: its nodes by name.
        arguments: names of a function's arguments.
    """

    name: str
    nodes: dict[str, node_def_pb2.NodeDef]
    arguments: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"function {self.name}" if self.name else "the graph"


@dataclass(frozen=True)
class Call:
    """A node that calls a function.

    Attributes:
        scope: scope of the node.
        inputs: for each argument of the function the tensors that it may be.
    """

    scope: Scope
    inputs: tuple[tuple[str, ...], ...]


class Graph:
    """All nodes of a meta graph, and which function calls which.

    Args:
        meta_graph: of a SavedModel.
    """

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef):
        library = meta_graph.graph_def.library.function
        self.functions: dict[str, function_pb2.FunctionDef] = {f.signature.name: f for f in library}
        self.scopes = {"": Scope("", {node.name: node for node in meta_graph.graph_def.node})}
        for name, function in self.functions.items():
            arguments = [argument.name for argument in function.signature.input_arg]
            self.scopes[name] = Scope(name, {node.name: node for node in function.node_def}, arguments)

    def __iter__(self) -> Iterator[tuple[Scope, node_def_pb2.NodeDef]]:
        for scope in self.scopes.values():
            for node in scope.nodes.values():
                yield scope, node

    def sources(self, tensors: Iterable[str]) -> list[node_def_pb2.NodeDef]:
        """Nodes of the graph itself that tensors or operations are computed from, and these."""
        nodes, sources, left = self.scopes[""].nodes, {}, list(tensors)
        while left:
            name = left.pop().removeprefix("^").partition(":")[0]
            if name in nodes and name not in sources:
                sources[name] = nodes[name]
                left += nodes[name].input
        return list(sources.values())

    @cached_property
    def _calls(self) -> dict[str, list[Call]]:
        """Calls of each function."""
        calls: dict[str, list[Call]] = {name: [] for name in self.functions}
        for scope, node in self:
            for called in _functions_of(node):
                if called in calls:
                    calls[called].append(Call(scope, _arguments(node, len(self.scopes[called].arguments))))
        return calls

    def depends_on_values(self, scope: Scope, tensor: str) -> bool:
        """Whether a tensor is computed from the values of a signature's inputs, and not only from its shapes."""
        seen, left = set(), [(scope, tensor)]
        while left:
            scope, tensor = left.pop()
            name = tensor.partition(":")[0]
            if (scope.name, name) in seen or name.startswith("^"):
                continue
            seen.add((scope.name, name))
            if name in scope.arguments:
                place = scope.arguments.index(name)
                if not self._calls[scope.name]:  # a function that only a program could call
                    return True
                left += [(call.scope, source) for call in self._calls[scope.name] for source in call.inputs[place]]
                continue
            node = scope.nodes[name]
            if node.op in ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "_Arg"):
                return True
            if node.op not in ("Shape", "ShapeN", "Size", "Rank"):
                left += [(scope, source) for source in node.input]
        return False


def _functions_of(node: node_def_pb2.NodeDef) -> list[str]:
    """Names of the functions that a node calls."""
    names = [node.op]
    for value in node.attr.values():
        names += [value.func.name] if value.HasField("func") else [func.name for func in value.list.func]
    return names


def _arguments(node: node_def_pb2.NodeDef, count: int) -> tuple[tuple[str, ...], ...]:
    """Sources of each argument of a called function: one input of the node, or any if we cannot tell."""
    inputs = tuple(source for source in node.input if not source.startswith("^"))
    if node.op in ("If", "StatelessIf", "Case", "StatelessCase"):
        given = inputs[1:]  # the first chooses the branch
    elif node.op in ("While", "StatelessWhile"):
        given = ()  # an iteration's output is the next one's argument, and may come from any
    else:
        given = inputs
    if len(given) == count:
        return tuple((source,) for source in given)
    return (inputs,) * count
