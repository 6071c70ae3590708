"""Capture one step of an encoder–decoder, whose decoder reads tokens behind those that a cache holds.

The graph has two parts (:mod:`tf_pipeline.port.cross_step`), which share nothing but inputs: from the encoder's last
states the keys and values that the decoder attends to, which are computed once; and from these, the decoder's tokens
and slots, the logits. The encoder is not in it: the graph that computes a whole text has it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import Cache, EncoderDecoderCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_outputs import BaseModelOutput

from tf_pipeline.port.capture import Captured, export
from tf_pipeline.port.capture_step import SlotsLayer, StepModule, StepWriter, cache_argument, capture_by, shapes_of
from tf_pipeline.port.cross_step import ENCODED, LAST_STATES, cross_names
from tf_pipeline.port.errors import UncachedError
from tf_pipeline.port.graph import COMPUTE, Graph, Node
from tf_pipeline.port.sample import token_ids
from tf_pipeline.port.step import PAST, most_tokens, slot_names

# Sizes of the example: no two the same, none that a model might compute with.
_BATCH, _NEW, _HELD, _CAPACITY, _SOURCE = 3, 5, 7, 23, 13
# Inputs that the sizes of open axes are read off, and the place of the axis.
_HOLDERS = {"batch": ("decoder_input_ids", 0), "source": ("attention_mask", 1)}


class FreshLayer(CacheLayerMixin):
    """The keys and values of one layer whose cache is empty: it keeps the first that it is given, as they are."""

    is_sliding = False

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: nothing is allocated."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):
        """Keep keys and values."""
        self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of tokens that attention sees with the next ones, and the position of the first."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Number of tokens before: none."""
        return 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class CrossModule(StepModule):
    """A language model that takes its cache, and the keys and values of the source, as tensors by name.

    It returns the cache in that form with the last token's logits, and makes the keys and values of the source from the
    encoder's states.
    """

    def _run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        count = sum(name.startswith("keys_") for name in inputs)
        results = self._crossed(inputs, count)
        ids, held = inputs["decoder_input_ids"], inputs[PAST].shape[0]
        layers = [SlotsLayer(*(inputs[name] for name in slot_names(i)), held, self.filled) for i in range(count)]
        crossed = [[inputs[name] for name in cross_names(i)] for i in range(count)]
        crossed = [SlotsLayer(*pair, pair[0].shape[2], filled=False) for pair in crossed]
        outputs = self._decoded(inputs, ids, layers, crossed)
        self.output_class = type(outputs).__name__
        results["logits"] = outputs.logits[:, -1]
        for i, layer in enumerate(layers):
            results |= dict(zip(slot_names(i), (layer.keys, layer.values), strict=True))
        return results

    def _crossed(self, inputs: Mapping[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
        """The keys and values of the source, as the model makes them for its first token."""
        first = torch.zeros(inputs["decoder_input_ids"].shape[0], 1, dtype=torch.int64)
        layers = [FreshLayer() for _ in range(count)]
        self._decoded(inputs, first, [FreshLayer() for _ in range(count)], layers)
        return {
            name: value
            for i, layer in enumerate(layers)
            for name, value in zip(cross_names(i), (layer.keys, layer.values), strict=True)
        }

    def _decoded(self, inputs: Mapping[str, torch.Tensor], ids: torch.Tensor, own: list, crossed: list) -> Any:
        given = {name: inputs[name] for name in ("attention_mask",) if name in inputs}
        given[self.cache_name] = EncoderDecoderCache(Cache(layers=own), Cache(layers=crossed))
        return self.model(decoder_input_ids=ids, encoder_outputs=Encoded(inputs[ENCODED]), **given, **self.options)


class Encoded(BaseModelOutput):
    """The encoder's last states, and ``None`` for all else that the encoder of a model returns."""

    def __getattr__(self, name: str) -> None:
        """Nothing, where there is no such field."""
        if name.startswith("__"):
            raise AttributeError(name)


def capture_cross(model_class: type, config: PreTrainedConfig, whole: Graph, filled: bool = False) -> Captured:
    """Capture one step of an encoder–decoder; see :func:`~tf_pipeline.port.capture_step.capture_step`.

    Raises:
        PortError: as there, and if the whole graph does not have the encoder's last states.
    """
    return capture_by(_capture_as, model_class, config, whole, filled)


def _capture_as(model, precise, config: PreTrainedConfig, whole: Graph, filled: bool) -> Captured:
    inputs = _example(model, config, whole)
    fixed = isinstance(_encoded(whole, model).shape[1], int)
    wrapper = CrossModule(model, list(inputs), filled)
    program = export(wrapper, inputs, lambda name, axis: _axes(name, fixed)[axis] is not None)
    return _CrossWriter(program, wrapper, precise, inputs, most_tokens(whole), fixed).write()


def _axes(name: str, fixed: bool) -> list[str | None]:
    """Names of the axes of an input that may have any size, ``None`` for the others."""
    source = None if fixed else "source"
    if name == PAST:
        return [PAST]
    if name.startswith(("keys_", "values_")):
        return ["batch", None, "capacity", None]
    if name.startswith("cross_"):
        return ["batch", None, source, None]
    return {ENCODED: ["batch", source, None], "attention_mask": ["batch", source]}.get(name, ["batch", "new"])


def _encoded(whole: Graph, model: torch.nn.Module) -> Node:
    """The node of a whole graph that computes the encoder's last states."""
    reference = whole.outputs.get(LAST_STATES)
    node = whole.by_name.get(str(reference).removeprefix("%"))
    if node is None or not node.shape or len(node.shape) != 3:
        raise UncachedError(f"{type(model).__name__} does not return the last states of an encoder.")
    return node


def _example(model: torch.nn.Module, config: PreTrainedConfig, whole: Graph) -> dict[str, torch.Tensor]:
    """Inputs of a step: a few tokens behind a few others, over sources one of which is padded."""
    generator = torch.Generator().manual_seed(0)
    node = _encoded(whole, model)
    source = node.shape[1] if isinstance(node.shape[1], int) else _SOURCE
    dtype = model.dtype if node.dtype == COMPUTE else getattr(torch, node.dtype)
    ids = token_ids(config.get_text_config(decoder=True), (_BATCH, _NEW), generator)
    inputs = {"decoder_input_ids": ids}
    if "attention_mask" in whole.inputs:
        inputs["attention_mask"] = torch.ones(_BATCH, source, dtype=torch.int64)
        inputs["attention_mask"][1, -2:] = 0
    inputs[PAST] = torch.zeros(_HELD)
    inputs[ENCODED] = torch.randn(_BATCH, source, node.shape[2], generator=generator).to(dtype)
    own, crossed = _shapes(model, inputs, source)
    for names, shapes, slots in ((slot_names, own, _CAPACITY), (cross_names, crossed, source)):
        for i, pair in enumerate(shapes):
            for name, (heads, size, kind) in zip(names(i), pair, strict=True):
                inputs[name] = torch.randn(_BATCH, heads, slots, size, generator=generator).to(kind)
    return inputs


def _shapes(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], source: int) -> tuple[list, list]:
    """Heads, sizes and dtypes of each layer's slots, and of its keys and values of the source."""
    given = {name: inputs[name] for name in ("decoder_input_ids", "attention_mask") if name in inputs}
    name = cache_argument(type(model))
    with torch.no_grad():
        outputs = model(**given, encoder_outputs=Encoded(inputs[ENCODED]), use_cache=True, return_dict=True)
    cache = getattr(outputs, name, None)
    if not isinstance(cache, EncoderDecoderCache):
        raise UncachedError(f"{type(model).__name__} fills a cache of another kind ({type(cache).__name__}).")
    return (
        shapes_of(cache.self_attention_cache, type(model), _BATCH, _NEW),
        shapes_of(cache.cross_attention_cache, type(model), _BATCH, source),
    )


class _CrossWriter(StepWriter):
    """Turns an exported step of an encoder–decoder into a graph.

    Args:
        fixed: whether all sources are of one length.
    """

    sizes = [sizes | {"source": source} for sizes in StepWriter.sizes for source in (1, 2, 37)]

    def __init__(self, program, wrapper, precise, names, most: int | None, fixed: bool):
        super().__init__(program, wrapper, precise, names, most)
        self.names, self.fixed = set(names), fixed

    def _axis_names(self, name: str, value: torch.Tensor) -> list[str]:
        return [axis or "" for axis in _axes(name, self.fixed)]

    def _is_open(self, name: str, axis: int) -> bool:
        return _axes(name, self.fixed)[axis] is not None

    def _node(self, fx_node: torch.fx.Node) -> Node | None:
        """As for other steps; sizes are those of inputs that both parts have."""
        node = super()._node(fx_node)
        if node is None or node.op != "aten.sym_size.int" or fx_node.args[0].name not in self.names:
            return node
        axis = _axes(fx_node.args[0].name, self.fixed)[fx_node.args[1]]
        holder = _HOLDERS.get(axis)
        return (
            node if holder is None or holder[0] not in self.names else replace(node, args=[f"%{holder[0]}", holder[1]])
        )
