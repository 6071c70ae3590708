"""Learn from PyTorch how a checkpoint stores the parameters of a model, and how it would be saved again.

PyTorch's own conversions are run on tensors of the meta device, which have shapes and no values, and what they do is
recorded as operators. So nothing here knows any architecture, and a large model costs no more than a small one.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from tf_pipeline.port.graph import COMPUTE, Conversion, Layout, Node
from tf_pipeline.reference.loading import caching_off

Shapes = Mapping[str, Iterable[int]]


def find_layouts(model_class: type, config: PreTrainedConfig, stored: Shapes | None = None) -> list[Layout]:
    """Find the layout of a checkpoint, and that of a file saved by a model that was loaded from it.

    Args:
        model_class: PyTorch's class.
        config: its config.
        stored: shapes of the checkpoint's tensors by name; by default those that PyTorch writes of a new model.

    Returns:
        The layout of ``stored``, and that of the file saved after it, if it is another.
    """
    if stored is None:
        stored = _written(_meta_model(model_class, config))[1]
    layouts: list[Layout] = []
    while all(set(stored) != set(layout.stored) for layout in layouts):
        layout, stored = _layout(_meta_model(model_class, config), stored)
        layouts.append(layout)
    return layouts


def _meta_model(model_class: type, config: PreTrainedConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return model_class._from_config(caching_off(config))


def _layout(model: torch.nn.Module, stored: Shapes) -> tuple[Layout, dict[str, list[int]]]:
    """The layout of some tensors, and the tensors that PyTorch writes after loading them."""
    transforms = get_model_conversion_mapping(model)
    loading, unexpected = _loaded(model, transforms, stored)
    report = SimpleNamespace(missing_keys=set(), unexpected_keys=set(unexpected))
    model._adjust_missing_and_unexpected_keys(report)
    model._weight_conversions = [transform for transform in transforms if transform.was_used()]
    saving, written = _written(model)
    unused = sorted(unexpected[key] for key in report.unexpected_keys)
    return Layout({name: list(shape) for name, shape in stored.items()}, unused, loading, saving), written


def _loaded(model: torch.nn.Module, transforms: list, stored: Shapes) -> tuple[Conversion, dict[str, str]]:
    """Conversion to parameters, as ``from_pretrained`` makes them, and names by the keys that the model lacks."""
    expected, prefix = model.state_dict(), model.base_model_prefix
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    tensors = {name: torch.empty(tuple(stored[name]), device="meta") for name in sorted(stored, key=dot_natural_key)}
    groups: dict[str, Any] = {}
    unexpected: dict[str, str] = {}
    for name, tensor in tensors.items():
        key, pattern = rename_source_key(name, renamings, converters, prefix, expected)
        if key not in expected and name in expected:  # it has the new name already
            key, pattern = rename_source_key(name, [], [], prefix, expected)
        if key not in expected:
            unexpected[key] = name
            continue
        new = WeightRenaming(name, key) if pattern is None else deepcopy(by_pattern[pattern])
        groups.setdefault(key, new).add_tensor(key, name, name if pattern is None else pattern, tensor)
    with _Recorder(tensors) as recorder:
        made: dict[str, Any] = {}
        for key, group in groups.items():
            made |= group.convert(key, model=model, config=model.config)
    return recorder.conversion({key: value for key, value in made.items() if key in expected}), unexpected


def _written(model: torch.nn.Module) -> tuple[Conversion, dict[str, list[int]]]:
    """Conversion to the tensors that ``save_pretrained`` writes, and their shapes."""
    ignored = set(model._keys_to_ignore_on_save or ())
    tensors = {key: tensor for key, tensor in model.state_dict().items() if key not in ignored}
    tensors = remove_tied_weights_from_state_dict(tensors, model)
    with _Recorder(tensors) as recorder:
        written = revert_weight_conversion(model, tensors)
    return recorder.conversion(written), {name: list(_single(tensor).shape) for name, tensor in written.items()}


def _single(value: Any) -> torch.Tensor:
    return value[0] if isinstance(value, list) else value


class _Recorder(TorchDispatchMode):
    """Writes down the operators that are run.

    Args:
        given: tensors by name.
    """

    def __init__(self, given: Mapping[str, torch.Tensor]):
        super().__init__()
        self._references = {id(tensor): f"%p.{name}" for name, tensor in given.items()}
        self._alive: list[Any] = [given]  # so that no tensor gets the identity of another
        self._nodes: list[Node] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        """Run an operator and write it down."""
        result = operator(*args, **(kwargs or {}))
        arguments = {key: self._encode(value) for key, value in (kwargs or {}).items() if key != "memory_format"}
        several = isinstance(result, (list, tuple))
        shape = [list(x.shape) for x in result] if several else list(result.shape)
        dtype = [COMPUTE] * len(result) if several else COMPUTE
        reference = self._add(str(operator), self._encode(args), arguments, dtype, shape)
        for place, tensor in enumerate(result if several else [result]):
            item = self._add("sym.getitem", [reference, place], {}, COMPUTE, shape[place]) if several else reference
            self._references[id(tensor)] = item
            self._alive.append(tensor)
        return result

    def _add(self, op: str, args: list, kwargs: dict, dtype: Any, shape: Any) -> str:
        name = f"{op.split('.')[1]}_{len(self._nodes)}"
        self._nodes.append(Node(name, op, args, kwargs, dtype, shape))
        return f"%{name}"

    def _encode(self, value: Any) -> Any:
        if torch.is_tensor(value):
            return self._references[id(value)]
        return [self._encode(item) for item in value] if isinstance(value, (list, tuple)) else value

    def conversion(self, made: Mapping[str, Any]) -> Conversion:
        """Everything that was written down."""
        outputs = {name: self._references[id(_single(value))] for name, value in made.items()}
        return Conversion(outputs, self._nodes)
