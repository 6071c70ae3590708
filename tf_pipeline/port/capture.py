"""Capture a PyTorch model with ``torch.export`` and write it down as a :class:`~tf_pipeline.port.graph.Graph`.

The model is captured in bfloat16 and while training. In bfloat16, because then the dtype that the model runs in and the
float32 that its code asks for by name are told apart, and one graph serves every dtype. While training, because then
dropout is in the graph, and leaving it out again is easy. Where an architecture does not allow one or the other, the
graph says so in its notes.

Composite operators stay whole (``linear``, ``layer_norm``, ``scaled_dot_product_attention``, ``gelu``, …): the graph is
smaller, and each becomes the operation that TensorFlow is fast at.
"""

import contextlib
import inspect
import io
import json
import logging
import math
import operator
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import sympy
import torch
import transformers
from torch.utils._sympy.printers import PythonPrinter
from transformers import PreTrainedConfig

from tf_pipeline.port.errors import MissingRuleError, PortError
from tf_pipeline.port.graph import COMPUTE, Graph, Input, Node, Tensor, WeightTensor
from tf_pipeline.port.rotary import stateless_rotary
from tf_pipeline.port.rules import find_rule
from tf_pipeline.port.sample import (
    LENGTH,
    LONGEST,
    batch_axis,
    boundaries,
    default_inputs,
    example_lengths,
    has_open_images,
    sample_inputs,
    type_sizes,
)
from tf_pipeline.reference.inputs import output_options
from tf_pipeline.reference.loading import caching_off, seeded
from tf_pipeline.reference.outputs import tensors_of

# Arguments that say where and how PyTorch stores a tensor, not its values.
_STORAGE = ("device", "layout", "pin_memory", "memory_format", "non_blocking", "requires_grad")

# Lengths that are looked at to say which ones a graph takes.
_LENGTHS = 2 * LONGEST

_BATCH_NORMALIZATION = torch.nn.modules.batchnorm._BatchNorm


@dataclass
class Captured:
    """A graph, the values of its constants by key, and which lengths of up to 1,024 tokens it takes."""

    graph: Graph
    constants: dict[str, np.ndarray]
    lengths: Collection[int] = range(1, _LENGTHS + 1)


def capture(model_class: type, config: PreTrainedConfig) -> Captured:
    """Capture a PyTorch class with a config; the weights do not matter.

    Args:
        model_class: a class of ``transformers``.
        config: its config.

    Raises:
        PortError: if ``torch.export`` cannot capture it, or an operator has no rule; the message says where.
    """
    attention = attention_implementation(model_class, config)
    try:
        precise = build(model_class, config, attention, torch.float32).eval()
    except Exception as error:  # whatever the model's code makes of the config
        raise explained(model_class, error) from error
    short = example_lengths(precise, config)
    defaults = default_inputs(precise, config, short)
    captured = _capture_by_example(model_class, config, precise, attention, defaults, short)
    beyond = 2 * max(boundaries(config), default=0) + LENGTH
    if len(captured.lengths) == _LENGTHS or beyond == LENGTH:
        return captured
    # The example lies within one block or window, and the graph is right for such texts alone.
    long = example_lengths(precise, config, beyond)
    try:
        other = _capture_by_example(model_class, config, precise, attention, defaults, long)
    except PortError:
        return captured
    return max(captured, other, key=lambda each: len(each.lengths))


def _capture_by_example(
    model_class: type, config: PreTrainedConfig, precise, attention: str, defaults: dict, sizes: dict[str, int]
) -> Captured:
    """Capture a class in the dtype and mode that it allows; see the module's docstring."""
    attempts = ((torch.bfloat16, True), (torch.float32, True), (torch.bfloat16, False), (torch.float32, False))
    failures: list[Exception] = []
    lacks_rule = False
    for dtype, training in attempts:
        if training and lacks_rule:
            continue  # another dtype has the same operators
        try:
            model = build(model_class, config, attention, dtype)
            return _capture_as(model, precise, config, defaults, sizes, attention, training)
        except MissingRuleError:
            if not training:
                raise
            lacks_rule = True  # perhaps of an operator that is only run while training, such as drawing numbers
        except PortError:
            raise
        except Exception as error:  # torch.export raises whatever the model's code makes of symbolic sizes
            failures.append(error)
    raise explained(model_class, failures[-1]) from failures[-1]


def attention_implementation(model_class: type, config: PreTrainedConfig) -> str:
    """The implementation with the cleanest graph: attention as one operator where the class has it.

    Raises:
        PortError: if the config asks for one that cannot be exported.
    """
    asked = getattr(config, "_attn_implementation", None)
    if asked not in (None, "sdpa", "eager"):
        raise PortError(
            f"The config asks for attn_implementation={asked!r}, whose kernels cannot be exported; supported are "
            "'sdpa' and 'eager'. Leave it out, and the better one is chosen."
        )
    return "sdpa" if model_class._supports_sdpa and asked != "eager" else "eager"


def build(model_class: type, config: PreTrainedConfig, attention: str, dtype: torch.dtype) -> torch.nn.Module:
    """A PyTorch model with random weights that returns neither caches nor losses."""
    with seeded():
        return model_class._from_config(caching_off(config), dtype=dtype, attn_implementation=attention)


def by_name(run: Callable[[Mapping[str, Any]], Any], names: Iterable[str]) -> Callable[..., Any]:
    """A function of arguments of these names, which ``torch.export`` reads off its signature.

    Args:
        run: takes the arguments by name.
        names: the names.
    """

    def forward(**inputs):
        return run(inputs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind, default=None) for name in names])
    return forward


class Exported(torch.nn.Module):
    """A model that takes its inputs by name and returns a dictionary of tensors, without caches.

    Args:
        model: the PyTorch model.
        names: inputs, which become the signature that ``torch.export`` reads.
        attentions: whether to return attention probabilities too.
    """

    def __init__(self, model: torch.nn.Module, names: list[str], attentions: bool = False):
        super().__init__()
        self.model = model
        self.options = output_options(model, attentions)
        self.output_class = ""
        self.forward = by_name(self._run, names)

    def _run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        outputs = self.model(**inputs, **self.options)
        self.output_class = type(outputs).__name__
        return tensors_of(outputs)


def train_dropout_only(model: torch.nn.Module) -> None:
    """Training mode, except where it would change more than dropout."""
    model.train()
    for module in model.modules():
        # Layers dropped at random are a branch on a random number, paths are dropped by numbers that have no operator
        # to leave out, and batch statistics are written into the module.
        if hasattr(module, "layerdrop") or _drops_paths(module) or isinstance(module, _BATCH_NORMALIZATION):
            module.training = False
        if isinstance(module, torch.nn.Dropout):
            module.inplace = False  # else random numbers take the place of the operator


def _drops_paths(module: torch.nn.Module) -> bool:
    return type(module).__name__.endswith("DropPath")


def _capture_as(model, precise, config, defaults: dict, sizes: dict, attention: str, training: bool) -> Captured:
    samples = {name: value for name, value in sample_inputs(precise, config, **sizes).items() if name in defaults}
    model.eval()
    if training:
        train_dropout_only(model)
    wrapper = Exported(model, list(samples), attentions=attention == "eager")
    own = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in samples.items()}
    program = export(wrapper, own, partial(_may_be_open, config))
    return Writer(program, wrapper, precise, defaults, training).write()


def _is_open(name: str, axis: int) -> bool:
    """Whether an axis of an input may have any size: the batch, and the length of text and sound."""
    return axis == 0 or name not in ("pixel_values", "input_features")


def _may_be_open(config: PreTrainedConfig, name: str, axis: int) -> bool:
    """As :func:`_is_open`, and the height and width of images, which the code may fix, if they may have any size."""
    if _is_axis_of_types(config, name, axis):
        return False
    return _is_open(name, axis) or (name == "pixel_values" and axis > 1 and has_open_images(config))


def _is_axis_of_types(config: PreTrainedConfig, name: str, axis: int) -> bool:
    """Whether an axis counts the types of a token, of which the config says how many there are."""
    return name == "token_type_ids" and axis == 2 and bool(type_sizes(config))


def export(
    wrapper: torch.nn.Module, inputs: Mapping[str, torch.Tensor], is_open: Callable[[str, int], bool] = _is_open
) -> torch.export.ExportedProgram:
    """Export a module as ATen operators, composite ones as they are.

    Args:
        wrapper: a module that holds the PyTorch model as ``model``, and takes and returns tensors by name.
        inputs: an example of its inputs.
        is_open: whether an axis of an input may have any size.
    """
    from transformers.exporters.exporter_dynamo import apply_patches, reset_model_state

    dynamic = torch.export.Dim.AUTO
    shapes = {
        name: {axis: dynamic for axis in range(value.ndim) if is_open(name, axis)} for name, value in inputs.items()
    }
    with (
        torch.no_grad(), _quiet(), _unrounded_numbers(), _open_one_hot(), apply_patches("dynamo"),
        reset_model_state(wrapper.model), stateless_rotary(wrapper.model),
    ):  # fmt: skip
        program = torch.export.export(
            wrapper, (), inputs, dynamic_shapes=shapes, strict=False, prefer_deferred_runtime_asserts_over_guards=True
        )
        program = program.run_decompositions({})
        decompositions = _own_decompositions(program)
        return program.run_decompositions(decompositions) if decompositions else program


def _own_decompositions(program: torch.export.ExportedProgram) -> dict[Any, Any]:
    """PyTorch's own way to write the operators that have no rule by simpler ones, where it has one."""
    used = {node.target for node in program.graph.nodes if node.op == "call_function"}
    missing = {target for target in used if find_rule(_operator_name(target)) is None}
    known = torch.export.default_decompositions() if missing else {}
    return {target: known[target] for target in missing if target in known}


@contextlib.contextmanager
def _unrounded_numbers():
    """Numbers that the code makes tensors of stay as they are written: a constant is rounded to the example's dtype."""
    tensor = torch.tensor

    def unrounded(data, *, dtype=None, device=None, requires_grad=False, pin_memory=False):
        if isinstance(data, float) and not requires_grad:
            return torch.full((), data, dtype=dtype, device=device)
        return tensor(data, dtype=dtype, device=device, requires_grad=requires_grad, pin_memory=pin_memory)

    torch.tensor = unrounded
    try:
        yield
    finally:
        torch.tensor = tensor


@contextlib.contextmanager
def _open_one_hot():
    """A number of classes that depends on a length stays open; the operator's schema makes a constant of it."""
    functional = torch.nn.functional
    one_hot = functional.one_hot

    def open_one_hot(tensor, num_classes=-1):
        if isinstance(num_classes, torch.SymInt):
            return (tensor[..., None] == torch.arange(num_classes, device=tensor.device)).to(torch.int64)
        return one_hot(tensor, num_classes)

    functional.one_hot = open_one_hot
    try:
        yield
    finally:
        functional.one_hot = one_hot


@contextlib.contextmanager
def _quiet():
    """Silence PyTorch's reports about the error that it raises: stack traces, warnings and pages of its own graphs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def explained(model_class: type, error: Exception) -> PortError:
    """Why a model cannot be captured, in a sentence."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    reason = f"torch.export raised {kind}: {text[:400]}"
    if "data-dependent" in text or "DataDependent" in kind:
        reason = f"its control flow depends on the values of tensors, which a graph cannot follow ({text[:300]})"
    return PortError(f"{model_class.__name__} cannot be ported: {reason}")


class Writer:
    """Turns an exported program into a graph.

    Args:
        program: the program.
        wrapper: the module that was exported, which holds the PyTorch model as ``model``.
        precise: the same model in float32.
        defaults: the default of each input.
        training: whether dropout is in the program.
    """

    def __init__(
        self,
        program,
        wrapper: torch.nn.Module,
        precise: torch.nn.Module,
        defaults: dict[str, str | None],
        training: bool,
    ):
        self.program, self.wrapper, self.defaults, self.training = program, wrapper, defaults, training
        self.dtype = wrapper.model.dtype
        self.references: dict[str, str] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.specs: dict[str, Tensor] = {}
        self.symbols: dict[str, str] = {}
        self.lengths = set(range(1, _LENGTHS + 1))
        # Tables as the model makes them in float32, because bfloat16 would have rounded them.
        self.initial = precise.state_dict()
        self.precise = {**self.initial, **dict(precise.named_buffers())}

    def write(self) -> Captured:
        """The graph.

        Raises:
            PortError: if it would be right for the example alone, or lacks a rule.
        """
        parameters, tied = self._parameters()
        inputs = self._inputs()
        nodes = [node for fx_node in self.program.graph.nodes if (node := self._node(fx_node)) is not None]
        model = self.wrapper.model
        graph = Graph(
            model_class=type(model).__name__,
            output_class=self.wrapper.output_class,
            base_model_prefix=model.base_model_prefix,
            inputs=inputs,
            limits=self._limits(),
            parameters=parameters,
            tied=tied,
            constants=self.specs,
            outputs=self._outputs(),
            nodes=nodes,
            made_with={"torch": torch.__version__, "transformers": transformers.__version__},
            notes=self._notes(),
        )
        graph = replace(graph, nodes=graph.needed(tuple(graph.outputs)))
        used = {name for node in graph.nodes for name in node.references()}
        graph.inputs = {name: value for name, value in inputs.items() if name in used}
        self._check_operators(graph)
        graph.constants = {key: value for key, value in graph.constants.items() if f"c.{key}" in used}
        graph = Graph.from_dict(json.loads(json.dumps(graph.to_dict())))  # as it will be read
        least, most = graph.limits.get("length", [1, None])
        if len(self.lengths) == max(self.lengths, default=-1) < _LENGTHS:  # a table that the code slices, say
            most = graph.limits["length"][1] = min(most or _LENGTHS, len(self.lengths))
        taken = sorted(length for length in self.lengths if least <= length <= (most or length))
        return Captured(graph, {key: self.constants[key] for key in graph.constants}, taken)

    # -------------------------------------------------------------------------------------------------- what it takes

    def _parameters(self) -> tuple[dict[str, WeightTensor], dict[str, str]]:
        """Everything that a checkpoint holds, used or not, and other names of the same tensor."""
        model, first, tied = self.wrapper.model, {}, {}
        parameters: dict[str, WeightTensor] = {}
        for key, tensor in model.named_parameters(remove_duplicate=False):
            if key in (model._keys_to_ignore_on_save or ()):
                continue  # a table of the code's, which no checkpoint holds: a constant
            if id(tensor) in first:
                tied[key] = first[id(tensor)]
                continue
            first[id(tensor)] = key
            parameters[key] = self._weight(key, tensor, tensor.requires_grad)
        persistent = model.state_dict(keep_vars=True)
        for key, tensor in model.named_buffers():
            if key in persistent:
                parameters[key] = self._weight(key, tensor, False)
        self.keys = {key: f"%p.{key}" for key in parameters} | {key: f"%p.{other}" for key, other in tied.items()}
        return parameters, tied

    def _weight(self, key: str, tensor: torch.Tensor, trainable: bool) -> WeightTensor:
        values = self.initial[key].double()
        # Two digits: a sample knows no more, and a person can read them.
        statistics = (values.mean(), values.std(correction=0)) if values.numel() else (0, 0)
        mean, deviation = (float(f"{x:.2g}") for x in statistics)
        return WeightTensor(self._dtype(tensor.dtype), list(tensor.shape), trainable, mean, deviation)

    def _inputs(self) -> dict[str, Input]:
        """Names each placeholder, and each open axis by the input that it is first seen in."""
        kinds = torch.export.graph_signature.InputKind
        placeholders = {node.name: node for node in self.program.graph.nodes if node.op == "placeholder"}
        inputs: dict[str, Input] = {}
        for spec in self.program.graph_signature.input_specs:
            name = spec.arg.name
            if spec.kind is kinds.USER_INPUT:
                self.references[name] = f"%{name}"
                value = placeholders[name].meta["val"]
                self._name_axes(name, value)
                inputs[name] = Input(self._dtype(value.dtype), self._shape(value), self.defaults[name])
            elif spec.kind in (kinds.PARAMETER, kinds.BUFFER) and spec.target.removeprefix("model.") in self.keys:
                self.references[name] = self.keys[spec.target.removeprefix("model.")]
            else:
                self._add_constant(name, spec.target, placeholders[name].meta["val"])
        return inputs

    def _name_axes(self, name: str, value: torch.Tensor) -> None:
        names = self._axis_names(name, value)
        for axis, size in enumerate(value.shape):
            open_axis = self._is_open(name, axis)
            if open_axis and (isinstance(size, int) or self._range(size.node.expr) == (size.node.hint,) * 2):
                what = names[axis] if axis < len(names) else f"axis {axis}"
                raise PortError(
                    f"{type(self.wrapper.model).__name__} cannot be ported: its code fixes the {what} of {name} to "
                    f"that of the example ({size}), so that the graph would be right for no other."
                )
            if not isinstance(size, int):
                self.symbols.setdefault(str(size.node.expr), names[axis] if axis < len(names) else f"size_{axis}")

    def _axis_names(self, name: str, value: torch.Tensor) -> list[str]:
        batch = batch_axis(name, self.defaults)
        if value.ndim == 4:
            return [batch, "channels", "height", "width"]
        prefix = "decoder_" if name.startswith("decoder_") else ""
        return [batch, *["choices"] * (value.ndim == 3 and "input_ids" in name), f"{prefix}length"]

    def _is_open(self, name: str, axis: int) -> bool:
        return _is_open(name, axis) and not _is_axis_of_types(self.wrapper.model.config, name, axis)

    def _add_constant(self, name: str, target: str, placed: torch.Tensor) -> None:
        """A tensor that no checkpoint holds: a table, or a number in the code."""
        key = target.removeprefix("model.")
        value = self.program.constants.get(target)
        if value is None:
            value = self.program.state_dict[target]
        value = self.precise.get(key, value).detach()
        if not value.ndim and isinstance(limit := self._encode_float(value.item()), dict):
            self.references[name] = limit  # such as the least number of bfloat16, made a tensor
            return
        self.constants[key] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        self.specs[key] = Tensor(self._dtype(placed.dtype), list(placed.shape))
        self.references[name] = f"%c.{key}"

    def _range(self, expression) -> tuple[Any, Any]:
        bounds = self.program.range_constraints.get(expression)
        return (bounds.lower, bounds.upper) if bounds is not None else (None, None)

    def _limits(self) -> dict[str, list[int | None]]:
        """The least and the greatest size of each open axis. PyTorch's limit of 2 or more holds for 1 as well."""
        limits: dict[str, list[int | None]] = {}
        for symbol, bounds in self.program.range_constraints.items():
            if (name := self.symbols.get(str(symbol))) is None:
                continue
            lower = int(bounds.lower) if bounds.lower > 2 else 1
            upper = int(bounds.upper) if bounds.upper < 2**31 else None
            before = limits.get(name, [1, None])
            uppers = [value for value in (before[1], upper) if value is not None]
            limits[name] = [max(before[0], lower), min(uppers) if uppers else None]
        return limits

    # -------------------------------------------------------------------------------------------------- what it does

    def _node(self, fx_node: torch.fx.Node) -> Node | None:
        if fx_node.op != "call_function":
            return None
        op = _operator_name(fx_node.target)
        if op == "aten._assert_tensor_metadata.default":
            return None
        if op == "aten._assert_scalar.default" and not self._is_limit(fx_node.args[0]):
            return None
        value = fx_node.meta.get("val")
        self.references[fx_node.name] = f"%{fx_node.name}"
        kwargs = {key: item for key, item in fx_node.kwargs.items() if key not in _STORAGE}
        args = list(fx_node.args)
        if op == "aten._assert_scalar.default":
            args[1] = f"{type(self.wrapper.model).__name__} takes only {self._in_words(args[0].meta['val'])}."
        return Node(
            name=fx_node.name,
            op=op,
            args=[self._encode(item) for item in args],
            kwargs={key: self._encode(item) for key, item in kwargs.items()},
            dtype=_each(value, lambda x: self._dtype(x.dtype)),
            shape=_each(value, self._shape),
            module=_module_path(fx_node),
        )

    def _is_limit(self, condition: Any) -> bool:
        """Whether a check says anything about the sizes of inputs that their names do not.

        That two inputs have the same batch is checked with their names. A condition that does not hold for sizes of 1
        comes from PyTorch's habit of telling those apart, not from the model; that one row and one token are computed
        rightly is compared.
        """
        value = condition.meta["val"] if isinstance(condition, torch.fx.Node) else condition
        expression = getattr(getattr(value, "node", None), "expr", None)
        if expression is None:
            return False
        named = self._named(expression)
        try:
            ones = named.subs(dict.fromkeys(named.free_symbols, 1))
        except ZeroDivisionError:  # a block longer than one token has no part of a text that short
            ones = None
        # That a size is *not* so much keeps PyTorch from treating that one in a simpler way; it is no limit.
        return not isinstance(named, sympy.Ne) and named != sympy.true and ones != sympy.false

    def _named(self, expression):
        """A condition on sizes, with the names of the axes."""
        known = {symbol: self.symbols[str(symbol)] for symbol in expression.free_symbols if str(symbol) in self.symbols}
        return expression.subs({symbol: sympy.Symbol(name) for symbol, name in known.items()})

    def _in_words(self, condition: torch.SymBool) -> str:
        """The sizes for which a condition holds: of one axis as ranges, of several as it is written."""
        named = self._named(condition.node.expr)
        if len(named.free_symbols) == 1:
            (axis,) = named.free_symbols
            sizes = _sizes_of(named)
            if str(axis) == "length" and sizes:
                self.lengths &= set(sizes)
            if ranges := _ranges(sizes, _LENGTHS):
                return f"a {axis} of {ranges}"
        return f"sizes for which {named}"

    def _encode(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return self.references[value.name]
        if isinstance(value, (list, tuple)):
            return [self._encode(item) for item in value]
        if isinstance(value, torch.dtype):
            return {"dtype": self._dtype(value)}
        if isinstance(value, float):
            return self._encode_float(value)
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, (torch.device, torch.layout, torch.memory_format)):
            return None
        raise PortError(f"An argument of type {type(value).__name__} has no place in a graph: {value!r:.100}")

    def _encode_float(self, value: float) -> Any:
        for name in ("min", "max", "tiny", "eps"):
            if value == getattr(torch.finfo(self.dtype), name):
                return {"finfo": name}
        for name in ("min", "max"):  # of scores that the code computes in float32 by name
            if value == getattr(torch.finfo(torch.float32), name):
                return {"finfo": f"float32.{name}"}
        return {"float": repr(value)} if not math.isfinite(value) else value

    def _dtype(self, dtype: torch.dtype) -> str:
        return COMPUTE if dtype == self.dtype else str(dtype).removeprefix("torch.")

    def _shape(self, value: torch.Tensor) -> list[int | str]:
        return [size if isinstance(size, int) else self._size_name(size) for size in value.shape]

    def _size_name(self, size: torch.SymInt | torch.SymBool) -> str:
        text = str(size.node.expr)
        for symbol in sorted(self.symbols, key=len, reverse=True):
            text = text.replace(symbol, self.symbols[symbol])
        return text

    def _outputs(self) -> dict[str, Any]:
        output = next(node for node in self.program.graph.nodes if node.op == "output")
        kind = torch.export.graph_signature.OutputKind.USER_OUTPUT  # not a buffer that the code writes into
        specs = self.program.graph_signature.output_specs
        results = [value for value, spec in zip(output.args[0], specs, strict=True) if spec.kind is kind]
        values = torch.utils._pytree.tree_unflatten(results, self.program.call_spec.out_spec)
        return {name: self._encode(value) for name, value in values.items()}

    def _notes(self) -> list[str]:
        notes = []
        if self.dtype != torch.bfloat16:
            notes.append("Captured in float32: in half precision, what PyTorch computes in float32 is not.")
        if not self.training:
            notes.append("Captured without dropout: training=True computes what inference does.")
        if any(getattr(module, "layerdrop", 0) for module in self.wrapper.model.modules()):
            notes.append("layerdrop is not ported: while training, no layer is left out.")
        if any(_drops_paths(module) for module in self.wrapper.model.modules()):
            notes.append("Stochastic depth is not ported: while training, no path is left out.")
        return notes

    def _check_operators(self, graph: Graph) -> None:
        missing: dict[str, list[str]] = {}
        for node in graph.nodes:
            if find_rule(node.op) is None:
                missing.setdefault(node.op, []).append(node.name)
        if not missing:
            return
        places = {node.name: _source(node) for node in self.program.graph.nodes if node.op == "call_function"}
        lines = [f"  {op}: {', '.join(names[:3])} ({places[names[0]]})" for op, names in sorted(missing.items())]
        raise MissingRuleError(
            f"{graph.model_class} cannot be ported: these operators have no rule:\n" + "\n".join(lines)
        )


@cache
def _sizes_of(condition) -> tuple[int, ...]:
    """The sizes of its only symbol for which a condition holds, by the code with which PyTorch checks its guards.

    Empty if one of its functions has no such code.
    """
    (axis,) = condition.free_symbols
    condition = condition.xreplace({axis: sympy.Symbol("size")})
    try:  # hundreds of times as fast as SymPy
        code = eval(f"lambda size: {PythonPrinter().doprint(condition)}", {"math": math, "torch": torch})
        return tuple(size for size in range(1, _LENGTHS + 1) if _holds(code, size))
    except (ArithmeticError, AssertionError, NameError, NotImplementedError, ValueError):
        return ()


def _holds(code: Callable[[int], bool], size: int) -> bool:
    try:
        return bool(code(size))
    except ZeroDivisionError:  # a block longer than one token has no part of a text that short
        return False


def _ranges(numbers: Collection[int], last: int) -> str:
    """Ascending numbers in words, such as ``"1 to 128 or 200 to 255"``; none are looked at beyond ``last``."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    pairs = list(zip(starts, ends, strict=True))
    words = [f"{a} or more" if b == last else str(a) if a == b else f"{a} to {b}" for a, b in pairs]
    return " or ".join([*words[:3], "…"] if len(words) > 3 else words)


def _each(value: Any, function) -> Any:
    """A property of a tensor, of several, or ``None`` for sizes."""
    if torch.is_tensor(value):
        return function(value)
    if isinstance(value, (list, tuple)):
        return [function(item) if torch.is_tensor(item) else None for item in value]
    return None


def _operator_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    module = getattr(target, "__module__", "")
    if module in ("_operator", "operator", "torch", "math", "builtins") or target is operator.getitem:
        return f"sym.{target.__name__}"
    return f"{module}.{getattr(target, '__name__', target)}"


def _module_path(node: torch.fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return "" if path.startswith("_empty") else path.removeprefix("model").removeprefix(".")


def _source(node: torch.fx.Node) -> str:
    """Place in PyTorch's code that a node comes from."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if 'File "' in line]
    outside_torch = [line for line in lines if "/torch/" not in line] or lines
    return outside_torch[-1].removeprefix("File ") if outside_torch else "of unknown origin"


def shared_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and stored buffers of a PyTorch model by checkpoint key, each once."""
    stored = model.state_dict(keep_vars=True)
    yield from model.named_parameters()
    yield from ((key, tensor) for key, tensor in model.named_buffers() if key in stored)
