"""The graph of a ported model: its computation, written as JSON that a person can read.

``graph.json`` lies next to ``config.json`` and ``model.safetensors``. It names its inputs, the parameters it takes from
the checkpoint (by the checkpoint's own keys), and one operation after the other::

    {"format": "tf_pipeline.port", "version": 2, "class": "XLNetModel", …
     "inputs":     {"input_ids": {"dtype": "int64", "shape": ["batch", "length"], "default": null}, …},
     "parameters": {"word_embedding.weight": {"dtype": "compute", "shape": [32000, 768], "trainable": true,
                                           "mean": 0.0, "deviation": 0.02}, …},
     "constants":  {"inv_freq": {"dtype": "float32", "shape": [32]}, …},
     "outputs":    {"last_hidden_state": "%layer_norm_23", "hidden_states": ["%dropout", …]},
     "checksums":  {"graph": "6a0f…", "constants": "91c2…"},
     "nodes": [
       {"name": "linear", "op": "aten.linear.default", "args": ["%dropout", "%p.query.weight", "%p.query.bias"],
        "dtype": "compute", "shape": ["batch", "length", 768], "module": "layer.0.rel_attn"},
       …],
     "layouts": [
       {"stored":  {"experts.0.w1.weight": [40, 32], …}, "unused": [],
        "loading": {"outputs": {"experts.gate_up_proj": "%cat", …}, "nodes": […]},
        "saving":  {"outputs": {"experts.0.w1.weight": "%split_0", …}, "nodes": […]}},
       …]}

Operations are PyTorch's ATen operators, whose documented schemas explain the arguments. In arguments, ``"%name"``
is the result of an earlier node, ``"%p.key"`` a parameter, ``"%c.key"`` a constant, and an object with one key is what
JSON lacks: ``{"dtype": …}``, ``{"float": "-inf"}`` or ``{"finfo": "min"}``, the least number of the compute dtype
(``"float32.min"``: of the dtype that float32 stands for here).

The first axis of an input is ``"batch"``. Where a model scores texts for images, of which there may be any numbers, it
is ``"texts"`` or ``"images"``.

``"%name.attention"`` stands for the probabilities of an attention node, whose result is the context.

The dtype ``"compute"`` is the one that the model runs in. Every other is fixed, such as the float32 in which a
normalization is computed in half precision; in a float64 model those float32 are float64.

The values of constants, which no checkpoint holds, are in ``graph.safetensors``.

A graph with ``states`` is that of one token, and computes a text in a loop over its tokens
(:mod:`tf_pipeline.port.scan`)::

     "states": {"conv_0": {"dtype": "compute", "shape": ["batch", 64, 4], "following": "%slice_4", "initial": 0.0}, …}

Its inputs are those of the text. From these, its nodes read the column of the token, and from a mask all columns if
there is attention; besides, they read ``"%past"``, the number of tokens before, and the states behind those. Its
outputs are those of the token.

A second graph in ``step.json`` and ``step.safetensors``, of the same form, is a language model that reads tokens behind
those in a cache. :mod:`tf_pipeline.port.step`, and :mod:`tf_pipeline.port.cross_step` for encoder–decoders, describe
its inputs and outputs if it has no states, of which the cache consists otherwise. It is left out if the first graph has
states, and so is a step itself, and if it could not be captured; the notes then give the reason.

Layouts say how checkpoints store the parameters: under which names, and which tensors are joined, split and turned on
the way. In ``loading``, ``"%p.name"`` is a tensor of the file; in ``saving``, a parameter. The first layout is that of
a checkpoint which PyTorch writes.

Checksums are SHA-256: of the graph without them, with its keys sorted and without spaces, and of ``graph.safetensors``.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from tf_pipeline.port.rules import find_rule

FORMAT, VERSION = "tf_pipeline.port", 2
GRAPH, CONSTANTS = "graph.json", "graph.safetensors"
STEP, STEP_CONSTANTS = "step.json", "step.safetensors"
GRAPH_FILES, STEP_FILES = (GRAPH, CONSTANTS), (STEP, STEP_CONSTANTS)
_CHECKSUMS = {"graph", "constants"}
COMPUTE = "compute"
LINEAR = "aten.linear.default"
# The input of a graph of one token, or of several behind others, that says how many were read before.
PAST = "past"
# The axis of inputs and states that has one entry for each token that there is room for.
CAPACITY = "capacity"
# Behind the name of an attention node: its probabilities.
ATTENTION = ".attention"


class GraphError(ValueError):
    """A graph file that cannot be read; the message says why."""


@dataclass(frozen=True)
class Tensor:
    """A tensor by dtype (``"compute"`` or a name of NumPy's) and shape (numbers, and names of open axes)."""

    dtype: str
    shape: list[int | str]


@dataclass(frozen=True)
class Input(Tensor):
    """An input.

    Attributes:
        default: value of an input that is not given: ``"ones"``, ``"zeros"`` or ``"positions"`` (0, 1, 2, …);
            ``None`` if it has to be given.
    """

    default: str | None = None


@dataclass(frozen=True)
class WeightTensor(Tensor):
    """A parameter or stored buffer of the checkpoint.

    Attributes:
        trainable: PyTorch's ``requires_grad``.
        mean: of the values that PyTorch's model starts with.
        deviation: their standard deviation, 0 if all are alike, as in the scale of a normalization.
    """

    trainable: bool = True
    mean: float = 0.0
    deviation: float = 0.02


@dataclass(frozen=True)
class State(Tensor):
    """A tensor that a graph of one token hands on to the next token.

    Attributes:
        following: reference to its value behind the token.
        initial: value of all its elements before the first token.
    """

    following: str = ""
    initial: float = 0.0


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: name of its result in later nodes.
        op: the ATen operator with its overload, such as ``"aten.add.Tensor"``.
        args: positional arguments, encoded as the module's docstring says.
        kwargs: the same by name.
        dtype: dtype of the result, a list for several results, ``None`` for numbers.
        shape: shape of the result, likewise.
        module: path of the PyTorch module that computes it.
    """

    name: str
    op: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    dtype: Any = None
    shape: Any = None
    module: str = ""

    def references(self) -> Iterator[str]:
        """Names of the results that the arguments refer to."""
        yield from references(self.args)
        yield from references(self.kwargs)


def references(value: Any) -> Iterator[str]:
    """Names that an encoded argument refers to."""
    if isinstance(value, str) and value.startswith("%"):
        yield value[1:]
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@dataclass(frozen=True)
class Conversion:
    """Computation of one set of tensors from another.

    Attributes:
        outputs: the reference of each tensor that is made: ``"%p.name"`` if it is one of the other set, else a node.
        nodes: operations in order.
    """

    outputs: dict[str, str]
    nodes: list[Node] = field(default_factory=list)

    def check(self, given: Iterable[str], source: str) -> None:
        """Refuse references to missing tensors, and operators that have no rule.

        Raises:
            GraphError: naming the first.
        """
        _check_nodes(self.nodes, {f"p.{name}" for name in given}, self.outputs, source)


@dataclass(frozen=True)
class Layout:
    """Storage of the parameters in a checkpoint.

    Attributes:
        stored: shapes of everything in its files, by name.
        unused: names that PyTorch reports as unexpected; those that it passes over in silence are not among them.
        loading: makes parameters of the stored tensors; a parameter that is not made is not in the checkpoint.
        saving: makes the tensors that PyTorch writes after it has loaded such a checkpoint.
        compared: whether a checkpoint of this layout was compared with PyTorch after it was loaded.
    """

    stored: dict[str, list[int]]
    unused: list[str]
    loading: Conversion
    saving: Conversion
    compared: bool = False


@dataclass
class Graph:
    """The computation of a ported model; see the module's docstring.

    Attributes:
        model_class: PyTorch's class, such as ``"XLNetForSequenceClassification"``.
        output_class: PyTorch's class of the outputs.
        base_model_prefix: attribute of a head model that holds its body.
        inputs: inputs by name, in the order of PyTorch's signature.
        limits: least and greatest size of open axes, by name; ``None`` for no bound.
        parameters: tensors that the checkpoint holds, by key.
        tied: other names of parameters.
        constants: tensors that the checkpoint does not hold, by key.
        outputs: references by field, lists for tuples.
        nodes: operations in order.
        made_with: versions of the libraries that made the graph.
        notes: facts that a user of the model should know.
        layouts: how checkpoints store the parameters; first that of one which PyTorch writes.
        sample: rows, positions, positions of the decoder and padded side of the inputs to compare loaded models on.
        states: tensors that are handed on from token to token, by name; none if the nodes read the whole text.
        shift: name of the way to make decoder inputs from labels, in :data:`tf_pipeline.shifts.SHIFTS`; empty if
            there is none.
        config: values of the config that the graph computes with.
    """

    model_class: str
    output_class: str
    base_model_prefix: str
    inputs: dict[str, Input]
    limits: dict[str, list[int | None]]
    parameters: dict[str, WeightTensor]
    tied: dict[str, str]
    constants: dict[str, Tensor]
    outputs: dict[str, Any]
    nodes: list[Node]
    made_with: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    layouts: list[Layout] = field(default_factory=list)
    sample: list[int | str | None] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    shift: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    def operators(self) -> set[str]:
        """Every operator that is used."""
        return {node.op for node in self.nodes}

    def kernels(self) -> frozenset[str]:
        """Keys of matrices that only ``linear`` reads, which a model keeps ``[in, out]``: products are faster so."""
        weights = {node.args[1] for node in self.nodes if node.op == LINEAR}
        elsewhere = {
            f"%{name}"
            for node in self.nodes
            for name in references([*node.args[:1], *node.args[2:]] if node.op == LINEAR else node.args)
        }
        keys = {reference.removeprefix("%p.") for reference in weights - elsewhere if reference.startswith("%p.")}
        return frozenset(key for key in keys if len(self.parameters[key].shape) == 2)

    def needed(self, fields: tuple[str, ...]) -> list[Node]:
        """The nodes that some of the outputs depend on, in order; checks are always among them."""
        pending = [name for name in fields for name in references(self.outputs[name])]
        names = self._behind([*pending, *(node.name for node in self._checks())])
        return [node for node in self.nodes if node.name in names]

    def part(self, fields: tuple[str, ...]) -> "Graph":
        """The graph of some of the outputs, with the inputs that these depend on and the checks of such inputs."""
        outputs = {name: self.outputs[name] for name in fields}
        direct = set(references(list(outputs.values())))
        names = self._behind(direct)
        read = self._read(names) | direct
        for node in self._checks():
            if (self._read(behind := self._behind([node.name])) & self.inputs.keys()) <= read:
                names |= behind
        inputs = {name: value for name, value in self.inputs.items() if name in read}
        nodes = [node for node in self.nodes if node.name in names]
        return replace(self, inputs=inputs, outputs=outputs, nodes=nodes, layouts=[])

    def _checks(self) -> list[Node]:
        return [node for node in self.nodes if node.op.startswith("aten._assert")]

    def _behind(self, pending: Iterable[str]) -> set[str]:
        """Names of the nodes that some depend on, these included."""
        pending, names = list(pending), set()
        while pending:
            name = pending.pop().removesuffix(ATTENTION)
            if name in self.by_name and name not in names:
                names.add(name)
                pending.extend(self.by_name[name].references())
        return names

    def _read(self, names: Iterable[str]) -> set[str]:
        """Everything that some nodes refer to."""
        return {reference for name in names for reference in self.by_name[name].references()}

    def one_token(self) -> "Graph":
        """The nodes of a graph with states as a graph of their own: states are inputs and outputs, and PAST an input.

        A graph without states is returned as it is.
        """
        if not self.states:
            return self
        sees_all = any(CAPACITY in state.shape for state in self.states.values())
        columns = {
            name: replace(spec, shape=["batch", CAPACITY if sees_all and name == "attention_mask" else 1])
            for name, spec in self.inputs.items()
        }
        states = {name: Input(state.dtype, state.shape) for name, state in self.states.items()}
        following = {name: state.following for name, state in self.states.items()}
        inputs = columns | {PAST: Input("int32", [])} | states
        return replace(self, inputs=inputs, outputs=self.outputs | following, states={})

    # ------------------------------------------------------------------------------------------------------ files

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values of the constants, as JSON takes it."""
        values = asdict(self)
        for holder in [values, *(layout[name] for layout in values["layouts"] for name in ("loading", "saving"))]:
            holder["nodes"] = [_without_defaults(node) for node in holder["nodes"]]
        if not self.states:
            del values["states"]
        values["class"] = values.pop("model_class")
        return {"format": FORMAT, "version": VERSION, "class": values["class"]} | values

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], source: str = "The graph", checksums: Mapping[str, str] | None = None
    ) -> "Graph":
        """The inverse of :meth:`to_dict`.

        Args:
            values: its result.
            source: its name in messages.
            checksums: the checksums in a file; that of ``"graph"`` is checked.

        Raises:
            GraphError: if it is no graph, one of another version, or one with parts missing.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise GraphError(f"{source} is not a graph of a ported model: its format is not {FORMAT!r}.")
        if values.get("version") != VERSION:
            raise GraphError(
                f"{source} is of version {values.get('version')}, but this release reads version {VERSION}. Port the "
                "checkpoint again: tf-pipeline port."
            )
        if checksums is not None and not (_CHECKSUMS <= set(checksums) and checksums["graph"] == _checksum(values)):
            raise GraphError(f"{source} was altered: its checksum is missing or wrong. Port the checkpoint again.")
        rest = {key: value for key, value in values.items() if key not in ("format", "version", "class")}
        try:
            rest["inputs"] = {key: Input(**value) for key, value in rest["inputs"].items()}
            rest["parameters"] = {key: WeightTensor(**value) for key, value in rest["parameters"].items()}
            rest["constants"] = {key: Tensor(**value) for key, value in rest["constants"].items()}
            rest["states"] = {key: State(**value) for key, value in rest.get("states", {}).items()}
            rest["nodes"] = [Node(**node) for node in rest["nodes"]]
            rest["layouts"] = [_layout(layout) for layout in rest["layouts"]]
            graph = cls(model_class=values["class"], **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise GraphError(f"{source} is incomplete or was changed: {error!r}.") from error
        graph.check(source)
        return graph

    def check(self, source: str = "The graph") -> None:
        """Refuse references to missing tensors, and operators that have no rule.

        Raises:
            GraphError: naming them.
        """
        known = {*self.inputs, *(f"p.{key}" for key in self.parameters), *(f"c.{key}" for key in self.constants)}
        following = {key: state.following for key, state in self.states.items()}
        _check_nodes(self.nodes, known | {PAST, *self.states} if following else known, self.outputs | following, source)
        for layout in self.layouts:
            layout.loading.check(layout.stored, source)
            layout.saving.check([*self.parameters, *self.tied], source)

    def write(
        self,
        folder: str | os.PathLike,
        constants: Mapping[str, np.ndarray],
        files: tuple[str, str] = GRAPH_FILES,
    ) -> None:
        """Write the graph, one node a line, and the values of its constants, to files of these names."""
        # Not `ascontiguousarray`, which gives a scalar an axis.
        tables = save({key: np.array(value, order="C") for key, value in constants.items()})
        (Path(folder) / files[1]).write_bytes(tables)
        values = self.to_dict()
        checksums = {"graph": _checksum(values), "constants": hashlib.sha256(tables).hexdigest()}
        layouts = values.pop("layouts")
        nodes = values.pop("nodes")
        sections = {key: _section(value) for key, value in values.items()}
        sections |= {"checksums": _section(checksums), "nodes": _lines(nodes), "layouts": _lines(layouts)}
        text = "{\n" + ",\n".join(f'"{key}": {value}' for key, value in sections.items()) + "\n}\n"
        (Path(folder) / files[0]).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike, constants: str | os.PathLike) -> tuple["Graph", dict[str, np.ndarray]]:
        """Read ``graph.json`` and ``graph.safetensors``.

        Args:
            path: the graph.
            constants: the values of its constants.

        Returns:
            The graph, and arrays by key.

        Raises:
            GraphError: if a file is cut off, altered or of another version, or refers to missing tensors.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise GraphError(f"{path} is cut off or no JSON ({error}); port the checkpoint again.") from error
        checksums = values.pop("checksums", None) if isinstance(values, dict) else None
        graph = cls.from_dict(values, str(path), {} if checksums is None else checksums)
        return graph, _read_constants(graph, constants, checksums["constants"])


def _read_constants(graph: Graph, path: str | os.PathLike, checksum: str) -> dict[str, np.ndarray]:
    content = Path(path).read_bytes()
    try:
        values = load(content)
    except Exception as error:
        raise GraphError(f"{path} is cut off or corrupt ({error}); port the checkpoint again.") from error
    expected = {key: tuple(tensor.shape) for key, tensor in graph.constants.items()}
    if expected != {key: value.shape for key, value in values.items()}:
        raise GraphError(f"{path} does not belong to the graph next to it: the constants differ.")
    if hashlib.sha256(content).hexdigest() != checksum:
        raise GraphError(
            f"{path} was altered: its checksum is not the one in the graph next to it. Port the checkpoint again."
        )
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    """SHA-256 of a graph."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _layout(values: Mapping[str, Any]) -> Layout:
    conversions = {
        name: Conversion(values[name]["outputs"], [Node(**node) for node in values[name]["nodes"]])
        for name in ("loading", "saving")
    }
    return Layout(**{**values, **conversions})


def _check_nodes(nodes: list[Node], known: set[str], outputs: Mapping[str, Any], source: str) -> None:
    """See :meth:`Graph.check`."""
    if unknown := sorted({node.op for node in nodes if find_rule(node.op) is None}):
        raise GraphError(f"{source} uses operators that have no rule in this release: {', '.join(unknown)}.")
    for node in nodes:
        if missing := set(node.references()) - known:
            raise GraphError(f"{source} is damaged: {node.name} refers to {sorted(missing)}, which is not there.")
        known |= {node.name, node.name + ATTENTION}
    if missing := set(references(list(outputs.values()))) - known:
        raise GraphError(f"{source} is damaged: the outputs refer to {sorted(missing)}, which is not there.")


def _without_defaults(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if value not in ([], {}, None, "")}


def _lines(items: list[Any]) -> str:
    """JSON with one item a line."""
    return "[\n  " + ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]"


def _section(value: Any) -> str:
    """JSON with one entry a line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    entries = (f"  {json.dumps(key)}: {json.dumps(item, ensure_ascii=False)}" for key, item in value.items())
    return "{\n" + ",\n".join(entries) + "\n}"


# ------------------------------------------------------------------------------------------------------------ printing


def listing(graph: Graph) -> Iterator[str]:
    """The graph as lines for a reader: inputs, then each node as ``name: dtype[shape] = op(arguments)``, then outputs.

    A line names the PyTorch module whenever it changes.
    """
    yield f"{graph.model_class}({', '.join(f'{k}: {_typed(v.dtype, v.shape)}' for k, v in graph.inputs.items())})"
    for name, state in graph.states.items():
        yield f"  state {name}: {_typed(state.dtype, state.shape)} = {_argument(state.following)}"
    module = None
    for node in graph.nodes:
        if node.module != module:
            module = node.module
            yield f"  # {module or 'model'}"
        arguments = [_argument(value) for value in node.args]
        arguments += [f"{key}={_argument(value)}" for key, value in node.kwargs.items()]
        operator = node.op.removeprefix("aten.").removesuffix(".default")
        yield f"  {node.name}: {_typed(node.dtype, node.shape)} = {operator}({', '.join(arguments)})"
    for name, value in graph.outputs.items():
        yield f"  return {name} = {_argument(value)}"


def _typed(dtype: Any, shape: Any) -> str:
    if isinstance(dtype, list):
        return f"({', '.join(_typed(d, s) for d, s in zip(dtype, shape, strict=True))})"
    return f"{dtype}[{', '.join(map(str, shape or []))}]" if dtype else "int"


def _argument(value: Any) -> str:
    if isinstance(value, str):
        return value[1:].removeprefix("p.").removeprefix("c.") if value.startswith("%") else repr(value)
    if isinstance(value, dict):
        return str(next(iter(value.values())))
    return f"[{', '.join(map(_argument, value))}]" if isinstance(value, list) else str(value)
