"""Capture one step of a decoder, which reads tokens behind those that a cache holds.

The cache has a fixed number of slots. Its keys and values are inputs and outputs of the graph, and new ones are
written at a position (``tf_pipeline.write``), so that shapes stay as they are from token to token. One graph reads
prompts, into an empty cache, and single tokens.

Attention sees all slots, of which the model's own mask hides those that are free. Code that takes the number of keys
for the length of the text gets the filled slots alone (``filled``), which TensorFlow has to copy for each token.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sympy
import torch
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from tf_pipeline.port.capture import (
    Captured,
    Writer,
    attention_implementation,
    build,
    by_name,
    explained,
    export,
)
from tf_pipeline.port.errors import PortError, UncachedError
from tf_pipeline.port.graph import Graph, Input, Node
from tf_pipeline.port.sample import token_ids
from tf_pipeline.port.step import PAST, misfit, most_tokens, slot_names

# Sizes of the example: no two the same, none that a model might compute with.
_BATCH, _NEW, _HELD, _CAPACITY = 3, 5, 7, 23
# Sizes that conditions of the code are tried at.
_SIZES = [
    {"batch": batch, "new": new, "past": past, "capacity": past + new + free}
    for batch, new, past, free in itertools.product((1, 2, 5), (1, 2, 33), (1, 2, 64, 300), (0, 1, 57))
]
# Names that classes have for the argument that takes a cache.
_CACHES = ("cache", "past_key_values")
# Inputs of a step that are not its cache.
_TEXTS = ("input_ids", "attention_mask", "position_ids")


@torch.library.custom_op("tf_pipeline::write", mutates_args=())
def write(buffer: torch.Tensor, new: torch.Tensor, start: int) -> torch.Tensor:
    """A copy of ``buffer`` ``[batch, heads, slots, size]`` that holds ``new`` in the slots from ``start``."""
    result = buffer.clone()
    result[:, :, start : start + new.shape[2]] = new
    return result


@write.register_fake
def _(buffer, new, start):
    return torch.empty_like(buffer)


class SlotsLayer(CacheLayerMixin):
    """The keys and values of one layer in a fixed number of slots, of which the first are filled.

    Args:
        keys: ``[batch, heads, slots, size]``.
        values: ``[batch, heads, slots, size]``.
        held: number of filled slots.
        filled: whether attention sees the filled slots alone.
    """

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, held: int, filled: bool):
        super().__init__()
        self.keys, self.values, self.held, self.filled = keys, values, held, filled
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the slots are there."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):
        """Write tokens behind the others, and return the slots that attention sees."""
        self.keys = torch.ops.tf_pipeline.write(self.keys, key_states, self.held)
        self.values = torch.ops.tf_pipeline.write(self.values, value_states, self.held)
        self.held = self.held + key_states.shape[2]
        seen = slice(self.held if self.filled else None)
        return self.keys[:, :, seen], self.values[:, :, seen]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of slots that attention sees with the next tokens, and the position of the first."""
        return (self.held + query_length if self.filled else self.keys.shape[2]), 0

    def get_seq_length(self) -> int:
        """Number of filled slots."""
        return self.held

    def get_max_length(self) -> int:
        """Number of slots."""
        return self.keys.shape[2]


class StepModule(torch.nn.Module):
    """A language model that takes its cache as tensors by name, and returns it so with the last token's logits.

    Args:
        model: the PyTorch model.
        names: inputs, which become the signature that ``torch.export`` reads.
        filled: whether attention sees the filled slots alone.
    """

    def __init__(self, model: torch.nn.Module, names: list[str], filled: bool):
        super().__init__()
        self.model, self.output_class, self.filled = model, "", filled
        taken = inspect.signature(type(model).forward).parameters
        self.options = {"return_dict": True, "use_cache": True}
        if "logits_to_keep" in taken:
            self.options["logits_to_keep"] = 1
        self.cache_name = cache_argument(type(model))
        self.forward = by_name(self._run, names)

    def _run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        held = inputs[PAST].shape[0]
        count = sum(name.startswith("keys_") for name in inputs)
        layers = [SlotsLayer(*(inputs[name] for name in slot_names(i)), held, self.filled) for i in range(count)]
        texts = {name: value for name, value in inputs.items() if name in _TEXTS}
        if self.filled and "attention_mask" in texts:
            texts["attention_mask"] = texts["attention_mask"][:, : held + texts["input_ids"].shape[1]]
        outputs = self.model(**texts, **{self.cache_name: Cache(layers=layers)}, **self.options)
        self.output_class = type(outputs).__name__
        results = {"logits": outputs.logits[:, -1]}
        for i, layer in enumerate(layers):
            results |= dict(zip(slot_names(i), (layer.keys, layer.values), strict=True))
        return results


def cache_argument(model_class: type) -> str:
    """The name of the argument of a class that takes a cache.

    Raises:
        UncachedError: if it takes none.
    """
    taken = inspect.signature(model_class.forward).parameters
    name = next((name for name in _CACHES if name in taken), None)
    if name is None:
        raise UncachedError(f"{model_class.__name__} takes no cache of keys and values.")
    return name


def capture_step(model_class: type, config: PreTrainedConfig, whole: Graph, filled: bool = False) -> Captured:
    """Capture one step of a PyTorch class with a config; the weights do not matter.

    Args:
        model_class: a class of ``transformers`` that predicts tokens from those before them.
        config: its config.
        whole: the graph that computes a whole text, whose parameters the step shares.
        filled: whether attention sees the filled slots alone; see the module's docstring.

    Raises:
        PortError: if it has no cache of keys and values, or ``torch.export`` cannot capture it; the message says why.
    """
    return capture_by(_capture_as, model_class, config, whole, filled)


def capture_by(
    capture_as: Callable[..., Captured], model_class: type, config: PreTrainedConfig, whole: Graph, filled: bool
) -> Captured:
    """Capture a step in the dtype that the class allows.

    Args:
        capture_as: captures it with a model in that dtype and the same in float32.
        model_class: as for :func:`capture_step`.
        config: the same.
        whole: the same.
        filled: the same.

    Raises:
        PortError: as :func:`capture_step`.
    """
    attention = attention_implementation(model_class, config)
    cache_argument(model_class)
    failure: Exception | None = None
    precise = build(model_class, config, attention, torch.float32).eval()
    for dtype in (torch.bfloat16, torch.float32):
        try:
            model = build(model_class, config, attention, dtype).eval()
            captured = capture_as(model, precise, config, whole, filled)
        except PortError:
            raise
        except Exception as error:  # torch.export raises whatever the model's code makes of symbolic sizes
            failure = error
            continue
        if reason := misfit(captured.graph, whole):
            raise PortError(f"The step of {model_class.__name__} does not fit its graph: {reason}.")
        return captured
    raise explained(model_class, failure) from failure


def _capture_as(model, precise, config: PreTrainedConfig, whole: Graph, filled: bool) -> Captured:
    inputs = _example(model, config)
    wrapper = StepModule(model, list(inputs), filled)
    program = export(wrapper, inputs, _is_open)
    return StepWriter(program, wrapper, precise, inputs, most_tokens(whole)).write()


def _is_open(name: str, axis: int) -> bool:
    return axis in ((0, 2) if name.startswith(("keys_", "values_")) else (0, 1))


def _example(model: torch.nn.Module, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Inputs of a step: a few tokens behind a few others, one row of which is padded."""
    generator = torch.Generator().manual_seed(0)
    shapes = _slot_shapes(model, config)
    taken = inspect.signature(type(model).forward).parameters
    mask = torch.ones(_BATCH, _CAPACITY, dtype=torch.int64)
    mask[1, :2] = 0
    inputs = {
        "input_ids": token_ids(config.get_text_config(), (_BATCH, _NEW), generator),
        "attention_mask": mask,
        "position_ids": (_HELD + torch.arange(_NEW)).expand(_BATCH, _NEW).clone(),
    }
    inputs = {name: value for name, value in inputs.items() if name in taken}
    inputs[PAST] = torch.zeros(_HELD)
    for i, pair in enumerate(shapes):
        for name, (heads, size, dtype) in zip(slot_names(i), pair, strict=True):
            inputs[name] = torch.randn(_BATCH, heads, _CAPACITY, size, generator=generator).to(dtype)
    return inputs


def _slot_shapes(model: torch.nn.Module, config: PreTrainedConfig) -> list[list[tuple[int, int, torch.dtype]]]:
    """Heads, sizes and dtypes of the keys and values of each layer, as the model itself fills its cache."""
    ids = token_ids(config.get_text_config(), (_BATCH, _NEW), torch.Generator().manual_seed(0))
    cache = DynamicCache(config=model.config)
    options = {"attention_mask": torch.ones_like(ids), "use_cache": True, cache_argument(type(model)): cache}
    try:
        with torch.no_grad():
            model(ids, **options)
    except ValueError as error:
        raise UncachedError(f"{type(model).__name__} refuses a cache of keys and values: {error}") from error
    return shapes_of(cache, type(model), _BATCH, _NEW)


def shapes_of(cache: Cache, model_class: type, batch: int, length: int) -> list[list[tuple[int, int, torch.dtype]]]:
    """Heads, sizes and dtypes of the keys and values of each layer of a cache.

    Args:
        cache: filled by PyTorch's model.
        model_class: its class.
        batch: number of rows.
        length: number of tokens that it holds.

    Raises:
        UncachedError: if it holds something else.
    """
    shapes = []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer) or not layer.is_initialized or hasattr(layer, "conv_states"):
            raise UncachedError(f"{model_class.__name__} caches more than keys and values ({type(layer).__name__}).")
        pair = (layer.keys, layer.values)
        if any(part.ndim != 4 or part.shape[::2] != (batch, length) for part in pair):
            raise UncachedError(f"{model_class.__name__} caches tensors of {[tuple(x.shape) for x in pair]}.")
        shapes.append([(part.shape[1], part.shape[3], part.dtype) for part in pair])
    if not shapes:
        raise UncachedError(f"{model_class.__name__} fills no cache.")
    return shapes


class StepWriter(Writer):
    """Turns an exported step into a graph.

    Args:
        most: maximum number of tokens that the model takes; ``None`` without a limit.
    """

    sizes = _SIZES

    def __init__(self, program, wrapper: StepModule, precise: torch.nn.Module, names: Iterable[str], most: int | None):
        super().__init__(program, wrapper, precise, dict.fromkeys(names), training=False)
        self.most = most

    def _inputs(self) -> dict[str, Input]:
        inputs = super()._inputs()
        inputs[PAST] = Input("int32", [])  # of the tensor, only the size is read
        return inputs

    def _axis_names(self, name: str, value: torch.Tensor) -> list[str]:
        if name == PAST:
            return [PAST]
        return (
            ["batch", {"attention_mask": "capacity"}.get(name, "new")] if value.ndim == 2 else ["batch", "", "capacity"]
        )

    def _is_open(self, name: str, axis: int) -> bool:
        return _is_open(name, axis) and (name != PAST or axis == 0)

    def _node(self, fx_node: torch.fx.Node) -> Node | None:
        op = str(fx_node.target)
        if op == "aten.sym_size.int" and fx_node.args[0].name == PAST:
            self.references[fx_node.name] = f"%{PAST}"
            return None
        if op == "aten._assert_scalar.default":
            self._check_open(fx_node.args[0])
            return None
        return super()._node(fx_node)

    def _check_open(self, condition: Any) -> None:
        """Refuse a condition that does not hold for every text that fits into the slots."""
        if not self._is_limit(condition):
            return
        named = self._named(condition.meta["val"].node.expr)
        fit = [sizes for sizes in self.sizes if self.most is None or sizes["capacity"] <= self.most]
        last = {} if self.most is None else {"new": 1, "past": self.most - 1, "capacity": self.most}
        for sizes in [*fit, {**self.sizes[-1], **last}]:
            if named.subs({symbol: sizes.get(str(symbol)) for symbol in named.free_symbols}) != sympy.true:
                raise PortError(
                    f"{type(self.wrapper.model).__name__} takes only {self._in_words(condition.meta['val'])}."
                )

    def _limits(self) -> dict[str, list[int | None]]:
        limits = super()._limits()
        # PyTorch takes every open size for 2 or more, which leaves less for the others. The gate tries 0 and 1.
        last = math.inf if self.most is None else self.most - 2
        if closed := {name: (a, b) for name, (a, b) in limits.items() if a > 4 or (b or math.inf) < last}:
            raise PortError(f"{type(self.wrapper.model).__name__} takes only sizes within {closed} from step to step.")
        return limits

    def _notes(self) -> list[str]:
        return []
