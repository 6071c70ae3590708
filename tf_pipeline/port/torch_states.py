"""The states in which a PyTorch model keeps the text that it has read: found, taken out by name, and put back.

Models keep them in many ways: in the layers of a ``Cache``, in lists and dictionaries of a cache of their own, in a
list of tensors, in attributes of modules. All are found by looking at the tensors that a run of the model leaves
behind.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from tf_pipeline.port.capture_step import SlotsLayer, cache_argument
from tf_pipeline.port.errors import UncachedError
from tf_pipeline.port.sample import token_ids
from tf_pipeline.reference.outputs import CACHES

# Rows and tokens of the text that a model is tried with.
ROWS, _TOKENS = 3, 5
# The argument of RWKV, a list of states: two of the last token, then numerators, denominators and running maxima.
LISTED, _OF_LAST_TOKEN, _MAXIMA = "state", (0, 1), "held_4"


class TorchStates:
    """The states of a model.

    Args:
        model: a PyTorch model, which is run on a short text.
        config: its config.

    Attributes:
        examples: the states behind that text by name, each with the axis of rows first. Keys and values of attention,
            whose names are ``slots``, are ``[rows, heads, tokens, size]``.
        slots: see ``examples``.
        settles: whether the first run of the model changes it, as RWKV halves weights for inference. The change is
            undone but for the weights.
        initial: values of the elements of states before any text, of those that do not start as zeros.

    Raises:
        UncachedError: if it keeps none, or in a form that is not known.
    """

    def __init__(self, model: torch.nn.Module, config: PreTrainedConfig):
        flags = _flags(model)
        self._argument, cache = _run(model, config)
        self.settles = _flags(model) != flags
        for module, (name, value) in ((module, item) for module, own in flags.items() for item in own.items()):
            setattr(module, name, value)
        self._cache = cache
        held = dict(_tensors(cache, ""))
        self._parts = {name: part for name, part in _module_states(model).items() if len(part[2])}
        held |= {name: tensor for name, (_, _, tensor) in self._parts.items()}
        self.examples = {name: x for name, x in held.items() if x.ndim > 1 and len(x) == ROWS and x.is_floating_point()}
        self.slots = {name for name in self.examples if name.endswith(("_keys", "_values"))}
        if wrong := [x.shape for name in self.slots if (x := self.examples[name]).ndim != 4 or x.shape[2] != _TOKENS]:
            raise UncachedError(f"{type(model).__name__} caches tensors of {[tuple(shape) for shape in wrong[:3]]}.")
        if not self.examples:
            raise UncachedError(f"{type(model).__name__} fills no cache.")
        self.initial = {_MAXIMA: -1e30} if self._argument == LISTED else {}
        forget(model)

    def put(self, states: Mapping[str, torch.Tensor], held: int, filled: bool) -> dict[str, Any]:
        """Give a model states.

        Args:
            states: those of :attr:`examples`, those of :attr:`slots` with more tokens.
            held: number of tokens that were read.
            filled: whether attention sees the filled slots alone.

        Returns:
            The arguments to call the model with.
        """
        for name, (module, attribute, _) in self._parts.items():
            setattr(module, attribute, states[name].clone())
        cache = _rebuilt(self._cache, "", states, held, filled)
        if self._argument == LISTED:
            cache = [_WithTokenAxis(x) if i in _OF_LAST_TOKEN else x for i, x in enumerate(cache)]
        return {self._argument: cache, "use_cache": True}

    def take(self, arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The states behind a call with the result of :meth:`put`; those in attributes are taken away."""
        cache = arguments[self._argument]
        if self._argument == LISTED:
            cache = [x.tensor if isinstance(x, _WithTokenAxis) else x for x in cache]
        held = dict(_tensors(cache, ""))
        for name, (module, attribute, _) in self._parts.items():
            held[name] = getattr(module, attribute)
            setattr(module, attribute, None)
        return {name: held[name] for name in self.examples}


class _WithTokenAxis:
    """A state of all layers ``[rows, size, layers]`` that gives that of one with an axis for the token.

    RWKV's code for one token leaves that axis out, which is right for a single row alone.
    """

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def __getitem__(self, place: Any) -> torch.Tensor:
        return self.tensor[place].unsqueeze(1)

    def __setitem__(self, place: Any, value: torch.Tensor) -> None:
        self.tensor[place] = value


def first_arguments(model: torch.nn.Module, config: PreTrainedConfig) -> dict[str, Any]:
    """The arguments by which a model keeps states from its first token on.

    The argument among them that takes the states is to be given again with further tokens; a model that makes its own
    cache returns it under the same name.
    """
    forget(model)
    argument, cache = _run(model, config)
    forget(model)
    own = cache is not None and type(cache) is not DynamicCache
    return {argument: None if own else DynamicCache(config=model.config), "use_cache": True}


def forget(model: torch.nn.Module) -> None:
    """Take states away that a model keeps in attributes of its modules."""
    for module, attribute, _ in _module_states(model).values():
        setattr(module, attribute, None)


def _run(model: torch.nn.Module, config: PreTrainedConfig) -> tuple[str, Any]:
    """The name of the argument that takes states, and the states behind a short text."""
    ids = token_ids(config.get_text_config(), (ROWS, _TOKENS), torch.Generator().manual_seed(0))
    taken = inspect.signature(type(model).forward).parameters
    options = {"attention_mask": torch.ones_like(ids)} if "attention_mask" in taken else {}
    argument = LISTED if LISTED in taken else cache_argument(type(model))
    with torch.no_grad():
        outputs = model(ids, **options, use_cache=True, return_dict=True)
        cache = next((value for name in CACHES if (value := outputs.get(name)) is not None), None)
        if cache is None:  # the model takes a cache and makes none
            cache = DynamicCache(config=model.config)
            model(ids, **options, use_cache=True, **{argument: cache})
    return argument, cache


def _flags(model: torch.nn.Module) -> dict[torch.nn.Module, dict[str, bool]]:
    """The attributes of modules that are true or false."""
    return {
        module: {name: value for name, value in vars(module).items() if isinstance(value, bool)}
        for module in model.modules()
    }


def _module_states(model: torch.nn.Module) -> dict[str, tuple[torch.nn.Module, str, torch.Tensor]]:
    """Modules and attributes that hold tensors which are neither parameters nor buffers, by a name for each."""
    return {
        f"{path}.{attribute}".replace(".", "_"): (module, attribute, value)
        for path, module in model.named_modules()
        for attribute, value in vars(module).items()
        if torch.is_tensor(value) and attribute.endswith(("state", "states"))
    }


def _children(holder: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a cache, or of a part of it, by key."""
    if isinstance(holder, Mapping):
        yield from holder.items()
    elif isinstance(holder, (list, tuple)):
        yield from enumerate(holder)
    elif not isinstance(holder, (PreTrainedConfig, type)) and type(holder).__module__.startswith("transformers"):
        yield from vars(holder).items()
    elif isinstance(holder, SlotsLayer):
        yield from vars(holder).items()


def _tensors(holder: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a cache, by the path to each."""
    for key, part in _children(holder):
        path = f"{name}_{key}" if name else str(key)
        if torch.is_tensor(part):
            yield f"held_{path}", part
        else:
            yield from _tensors(part, path)


def _rebuilt(holder: Any, name: str, states: Mapping[str, torch.Tensor], held: int, filled: bool) -> Any:
    """A copy of a cache with other tensors, and slots in place of the keys and values of attention."""
    parts = {}
    for key, part in _children(holder):
        path = f"{name}_{key}" if name else str(key)
        if torch.is_tensor(part):
            parts[key] = states.get(f"held_{path}", part).clone()
        else:
            parts[key] = _rebuilt(part, path, states, held, filled)
    if not parts:
        return holder
    if isinstance(holder, (list, tuple, dict)):
        return parts if isinstance(holder, dict) else type(holder)(parts.values())
    result = copy.copy(holder)
    vars(result).update(parts)
    if isinstance(holder, DynamicLayer) and torch.is_tensor(holder.keys):
        slots = SlotsLayer(result.keys, result.values, held, filled)
        if not isinstance(holder, LinearAttentionCacheLayerMixin):
            return slots
        result.__class__ = _with_slots(type(holder))
        vars(result).update(vars(slots))
    return result


def _with_slots(layer_class: type) -> type:
    """The class of layers that hold other states too, with slots for keys and values."""
    return type(f"Slots{layer_class.__name__}", (SlotsLayer, layer_class), {"is_compileable": False})
