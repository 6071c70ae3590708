"""Find anything that would keep a SavedModel from working in a stock TensorFlow Serving, without running it."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tensorflow.core.framework import node_def_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tf_pipeline.serving.saved_model import (
    Graph,
    Scope,
    dtype_name,
    read_saved_model,
    shape_of,
    signatures,
)

# Ops of TensorFlow Text that the official server is known to link, in all versions of the table.
_TEXT_OPS = frozenset(
    "SentencepieceOp SentencepieceTokenizeOp SentencepieceTokenizeWithOffsetsOp SentencepieceDetokenizeOp "
    "SentencepieceVocabSizeOp SentencepieceIdToStringOp SentencepieceStringToIdOp CaseFoldUTF8 NormalizeUTF8 "
    "NormalizeUTF8WithOffsetsMap FindSourceOffsets RegexSplitWithOffsets WordpieceTokenizeWithOffsets "
    "FastWordpieceTokenizeWithOffsets TFText>FastWordpieceDetokenize FastBertNormalize TFText>ByteSplitWithOffsets "
    "TFText>ByteSplitByOffsets TFText>FastSentencepieceTokenize TFText>FastSentencepieceDetokenize".split()
)
_PYTHON = re.compile(r"(Eager)?PyFunc(Stateless)?$")
_COMPILED = re.compile(r"_?(Xla|TPU)")
_STATE = re.compile(
    r"\w*(Mutable(Dense)?HashTable|Barrier|Queue|Accumulator|Iterator|Reader|Stage|Unstage|Mutex)|Stack($|V2|Close|Pop|Push)"
)
_WITHOUT_EFFECT = ("debug_name",)  # name of a variable in TensorFlow's messages
_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_DEVICE = re.compile(r"/(?:device:)?([A-Za-z_]+):(?:\d+|\*)")
_CPU = {"cpu", "job", "replica", "task"}


@dataclass(frozen=True)
class Problem:
    """Something a server would refuse, or do wrong.

    Attributes:
        what: the thing, such as ``op PyFunc``.
        where: function and node, signature and tensor, or file.
        why: the effect in a server.
        remedy: a way to correct it.
    """

    what: str
    where: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}, in {self.where}: {self.why} {self.remedy}"


class OpTable:
    """Ops that each version of TensorFlow knows, as collected by ``benchmarks/serving_ops.py``.

    The table holds registered ops. It does not tell whether a registered op has a kernel for a dtype.
    """

    def __init__(self):
        table = json.loads(Path(__file__).with_name("ops.json").read_text(encoding="utf-8"))
        self.versions: list[str] = table["versions"]
        self.first_with_op = {op: version for version, ops in table["ops"].items() for op in ops}
        self.removed: dict[str, list[str]] = table["removed"]
        self.attributes = {
            (op, name): version
            for version, ops in table["attributes"].items()
            for op, names in ops.items()
            for name in names
        }
        self.types = {
            (op, name, dtype): version
            for version, ops in table["types"].items()
            for op, names in ops.items()
            for name, dtypes in names.items()
            for dtype in dtypes
        }

    def place(self, server_version: str) -> int:
        """Place of a server's version among those of the table.

        Raises:
            ValueError: for a version that the table does not cover.
        """
        version = ".".join(server_version.split(".")[:2])
        if version not in self.versions:
            raise ValueError(
                f"server_version={server_version!r} is not covered; {self.versions[0]} to {self.versions[-1]} are."
            )
        return self.versions.index(version)

    def has_op(self, op: str, place: int) -> bool:
        """Whether the version at ``place`` registers an op."""
        if op in _TEXT_OPS:
            return True
        gone = any(op in self.removed.get(version, ()) for version in self.versions[: place + 1])
        return op in self.first_with_op and self.versions.index(self.first_with_op[op]) <= place and not gone

    def newer(self, version: str | None, place: int) -> bool:
        """Whether something came after the version at ``place``."""
        return version is not None and self.versions.index(version) > place


_table = cache(OpTable)


@dataclass(frozen=True)
class _Model:
    """One meta graph under examination."""

    folder: Path
    meta_graph: meta_graph_pb2.MetaGraphDef
    graph: Graph
    place: int

    @property
    def version(self) -> str:
        return _table().versions[self.place]


def lint(path: str | os.PathLike, server_version: str = "2.19") -> list[Problem]:
    """Look for anything that a stock TensorFlow Serving of a version would refuse or do wrong.

    Every meta graph, signature and function is read; nothing is executed. Looked for are ops and attributes that the
    version does not know, Python and compiled functions, state outside variables, assertions on values that a caller
    sends, devices other than the CPU, assets that will not be found, and signatures that cannot be called or batched.

    An assertion fails a whole batch, so it may look at shapes only: rows of one batch have the same shape. A model's
    own check of the sequence length is one. Where the shape itself comes out of a caller's text, as with a tokenizer in
    the graph, it is truncation that keeps the assertion from failing; that is not checked here.

    Args:
        path: folder of a SavedModel, such as ``model/1``.
        server_version: version of TensorFlow Serving, such as ``"2.19"`` or ``"2.19.1"``.

    Returns:
        The findings; an empty list if there is nothing.

    Raises:
        FileNotFoundError: if there is no SavedModel.
        ValueError: if the file is not a SavedModel, or the version is not covered.
    """
    place = _table().place(server_version)
    meta_graphs = read_saved_model(path).meta_graphs
    problems = []
    if not any(list(meta_graph.meta_info_def.tags) == ["serve"] for meta_graph in meta_graphs):
        problems.append(_no_serving_graph([list(meta_graph.meta_info_def.tags) for meta_graph in meta_graphs]))
    for meta_graph in meta_graphs:
        model = _Model(Path(path), meta_graph, Graph(meta_graph), place)
        for check in _CHECKS:
            problems += check(model)
    return problems


def _no_serving_graph(tags: list[list[str]]) -> Problem:
    return Problem(
        "no graph with the tag serve",
        "saved_model.pb",
        f"A server loads the graph with that tag alone; there are {tags}.",
        "Save with tf.saved_model.save.",
    )


# ------------------------------------------------------------------------------------------------------------- nodes


def _grouped(nodes: Iterable[tuple[str, Scope, str]], why: str | Callable, remedy: str) -> Iterator[Problem]:
    """One problem for all nodes that have the same fault."""
    groups: dict[str, list[str]] = {}
    for what, scope, node in nodes:
        groups.setdefault(what, []).append(f"{scope}, node {node}" if node else str(scope))
    for what, places in groups.items():
        others = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield Problem(what, places[0] + others, why, remedy)


def _named(model: _Model, pattern: re.Pattern) -> Iterator[tuple[str, Scope, str]]:
    for scope, node in model.graph:
        if pattern.match(node.op) and node.op in _table().first_with_op:
            yield f"op {node.op}", scope, node.name


def _is_set(attributes, name: str) -> bool:
    return name in attributes and attributes[name].b  # to ask for one that is not there would create it


def _check_ops(model: _Model) -> Iterator[Problem]:
    unknown, late = [], []
    for scope, node in model.graph:
        if node.op in model.graph.functions or _table().has_op(node.op, model.place):
            continue
        first = _table().first_with_op.get(node.op)
        if _table().newer(first, model.place):
            late.append((f"op {node.op} of TensorFlow {first}", scope, node.name))
        else:
            unknown.append((f"op {node.op}", scope, node.name))
    yield from _grouped(
        late, f"TensorFlow Serving {model.version} does not have it.", "Serve with a newer version, or do without it."
    )
    yield from _grouped(
        unknown,
        f"TensorFlow Serving {model.version} does not link it: it is an op of another library, or of another version.",
        "Use ops of TensorFlow alone; compile_tokenizer makes tokenizers of these.",
    )


def _check_attributes(model: _Model) -> Iterator[Problem]:
    table, attributes, dtypes = _table(), [], []
    for scope, node in model.graph:
        for name, value in node.attr.items():
            since = table.attributes.get((node.op, name))
            if table.newer(since, model.place) and name not in _WITHOUT_EFFECT:
                attributes.append((f"attribute {name} of op {node.op}, of TensorFlow {since}", scope, node.name))
            dtype = types_pb2.DataType.Name(value.type) if value.HasField("type") else None
            since = table.types.get((node.op, name, dtype))
            if table.newer(since, model.place):
                what = f"{name}={dtype_name(value.type)} of op {node.op}, of TensorFlow {since}"
                dtypes.append((what, scope, node.name))
    yield from _grouped(
        attributes,
        f"TensorFlow Serving {model.version} ignores it: the model computes something else, or does not load.",
        "Serve with that version or a newer one, or leave the attribute at its default.",
    )
    yield from _grouped(
        dtypes,
        f"TensorFlow Serving {model.version} does not have the op for this dtype.",
        "Serve with that version or a newer one, or cast.",
    )


def _check_python(model: _Model) -> Iterator[Problem]:
    yield from _grouped(
        _named(model, _PYTHON),
        "It calls a Python function, which stays behind in the process that saved the model.",
        "Write what tf.py_function or tf.numpy_function does with TensorFlow's ops.",
    )


def _check_compiled(model: _Model) -> Iterator[Problem]:
    compiled = list(_named(model, _COMPILED))
    marks = ("_XlaMustCompile", "_XlaCompile")
    for scope, node in model.graph:
        compiled += [(f"{mark} on op {node.op}", scope, node.name) for mark in marks if _is_set(node.attr, mark)]
    for name, function in model.graph.functions.items():
        scope = model.graph.scopes[name]
        compiled += [(f"{mark} on a function", scope, "") for mark in marks if _is_set(function.attr, mark)]
    yield from _grouped(
        compiled,
        "A server runs XLA only where it is told to, and has no TPU: the first request fails.",
        "Export functions made with jit_compile=False.",
    )


def _check_state(model: _Model) -> Iterator[Problem]:
    yield from _grouped(
        _named(model, _STATE),
        "It holds state outside variables, which is not restored, or which requests share and change.",
        "Keep tables in constants or variables.",
    )


def _check_variables(model: _Model) -> Iterator[Problem]:
    """A session restores what ``saver_def`` names; the objects that a Python program would restore tell nothing."""
    filled = model.graph.sources([model.meta_graph.saver_def.restore_op_name])
    restored = {_variable_name(node) for node in filled if node.op in _VARIABLES}
    read = [info.name for signature in signatures(model.meta_graph).values() for info in signature.outputs.values()]
    lost = [
        node for node in model.graph.sources(read) if node.op in _VARIABLES and _variable_name(node) not in restored
    ]
    yield from _grouped(
        [("a variable that is not restored", model.graph.scopes[""], node.name) for node in lost],
        "A server restores variables by saver_def, which leaves this one out; the first request fails.",
        "Track TensorFlow's own variables when saving: [variable.value for variable in model.variables].",
    )


def _variable_name(node: node_def_pb2.NodeDef) -> str:
    return (node.attr["shared_name"].s.decode() if "shared_name" in node.attr else "") or node.name


def _check_assertions(model: _Model) -> Iterator[Problem]:
    asserts = [
        (f"op {node.op}", scope, node.name) for scope, node in model.graph if node.op.startswith("CheckNumerics")
    ]
    for scope, node in model.graph:
        if node.op == "Assert" and model.graph.depends_on_values(scope, node.input[0]):
            asserts.append(("op Assert", scope, node.name))
    yield from _grouped(
        asserts,
        "It looks at values that callers send, so one bad row fails the requests of everybody in its batch.",
        "Mark the row in the output instead, for example with NaN; assertions on shapes are fine.",
    )


def _check_devices(model: _Model) -> Iterator[Problem]:
    devices = []
    for scope, node in model.graph:
        if any(device.lower() not in _CPU for device in _DEVICE.findall(node.device)):
            devices.append((f"device {node.device}", scope, node.name))
    yield from _grouped(
        devices, "The server may not have this device.", "Export without tf.device, or with tf.device('/CPU:0')."
    )


# -------------------------------------------------------------------------------------------- signatures and assets


def _check_assets(model: _Model) -> Iterator[Problem]:
    folder = model.folder / "assets"
    for asset in model.meta_graph.asset_file_def:
        name = asset.filename
        if os.path.isabs(name) or re.match(r"[A-Za-z]:[\\/]|\\\\|\w+://", name) or ".." in re.split(r"[\\/]", name):
            why = "The path leads out of the SavedModel, so it means nothing on another machine."
        elif not (folder / name).is_file():
            why = f"{folder / name} is missing."
        else:
            continue
        yield Problem(f"asset {name}", "asset_file_def", why, "Track files with tf.saved_model.Asset, and save again.")


def _check_signatures(model: _Model) -> Iterator[Problem]:
    signature_defs = signatures(model.meta_graph)
    if "serving_default" not in signature_defs:
        yield Problem(
            "no signature serving_default",
            f"the signatures {sorted(signature_defs)}",
            "A request that names no signature fails.",
            "Name one of the signatures serving_default.",
        )
    for name, signature in signature_defs.items():
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for key in sorted(tensors):
                where = f"signature {name}, {kind} {key}"
                yield from _check_tensor(tensors[key], where)
                if kind == "output" and key.endswith("_bytes"):
                    yield Problem(
                        f"output name {key}",
                        where,
                        "The REST API answers with base64 wherever a name ends in _bytes.",
                        "Name it otherwise.",
                    )


def _check_tensor(info: meta_graph_pb2.TensorInfo, where: str) -> Iterator[Problem]:
    """A tensor of a signature has to be a dense one of a plain dtype, with an open batch in front."""
    if info.WhichOneof("encoding") != "name":
        what = f"encoding {info.WhichOneof('encoding')}"
        yield Problem(what, where, "Requests carry dense tensors only.", "Take or give a dense tensor.")
        return
    plain = dtype_name(info.dtype)
    if info.dtype > 100 or plain in ("invalid", "resource", "variant"):
        yield Problem(f"dtype {plain}", where, "A request cannot carry it.", "Give the tensor a plain dtype.")
    shape = shape_of(info)
    remedy = "Give it the shape [None, …], the first dimension being the batch."
    if shape is None:
        yield Problem("unknown rank", where, "Server-side batching needs to know the batch dimension.", remedy)
    elif not shape:
        yield Problem("a scalar", where, "Server-side batching joins and splits tensors along the batch.", remedy)
    elif shape[0] is not None:
        why = f"The shape is {list(shape)}: the batch is fixed, so requests of other sizes and batching fail."
        yield Problem(f"batch size {shape[0]}", where, why, remedy)


_CHECKS = (
    _check_ops,
    _check_attributes,
    _check_python,
    _check_compiled,
    _check_state,
    _check_variables,
    _check_assertions,
    _check_devices,
    _check_assets,
    _check_signatures,
)
