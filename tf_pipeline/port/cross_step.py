"""A ported encoder–decoder that writes token after token: the source is read once, the decoder has a cache.

Its step is a graph of two parts. One has the inputs ``encoded``, the last states of the encoder, and computes the keys
and values of the source for each layer (``cross_keys_0``, …). The other has these as inputs, the decoder's tokens, the
mask of the source, the number of filled slots and the slots (``keys_0``, …), and computes the logits of the last token
and the slots with the new tokens. The encoder is a part of the graph that computes a whole text.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tf_pipeline.generation.stepper import gathered
from tf_pipeline.port.graph import PAST, Graph
from tf_pipeline.port.step import empty_slots, slot_shapes

# The encoder's last states among the inputs of a step.
ENCODED = "encoded"
# The same among the outputs of the whole graph.
LAST_STATES = "encoder_last_hidden_state"


def cross_names(layer: int) -> tuple[str, str]:
    """Names of the keys and values of the source in a layer among inputs and outputs of a step."""
    return f"cross_keys_{layer}", f"cross_values_{layer}"


def parts(whole: Graph, step: Graph) -> tuple[Graph, Graph, Graph]:
    """The graphs that :class:`CrossSteps` runs: the encoder, the source's keys and values, and one step."""
    crossed = tuple(name for name in step.outputs if name.startswith("cross_"))
    written = tuple(name for name in step.outputs if name not in crossed)
    return whole.part((LAST_STATES,)), step.part(crossed), step.part(written)


class Part:
    """A graph that takes its inputs out of a larger number of tensors.

    Args:
        graph: the graph.
        run: computes the graph's outputs from its inputs by name.
        dtype: the dtype that a graph's name for it stands for.
    """

    def __init__(
        self,
        graph: Graph,
        run: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Any]],
        dtype: Callable[[str], tf.DType],
    ):
        self.graph, self._run = graph, run
        self.kinds = {name: dtype(spec.dtype) for name, spec in graph.inputs.items()}

    def __call__(self, known: Mapping[str, tf.Tensor]) -> Mapping[str, Any]:
        """The outputs by name."""
        return self._run({name: tf.cast(known[name], kind) for name, kind in self.kinds.items()})


class Written(NamedTuple):
    """The state of :class:`CrossSteps`.

    Attributes:
        slots: the decoder's keys and values by name, ``[rows, heads, capacity, size]``.
        source: the mask, keys and values of the source that the decoder reads, by name, ``[rows, …]``.
        length: int32 scalar, the number of filled slots.
    """

    slots: dict[str, tf.Tensor]
    source: dict[str, tf.Tensor]
    length: tf.Tensor


class CrossSteps:
    """A :class:`~tf_pipeline.generation.stepper.Stepper` over the :func:`parts` of an encoder–decoder.

    Args:
        encode: computes the encoder's last states, by the name :data:`LAST_STATES`, from its inputs.
        cross: the keys and values of the source.
        decode: one step of the decoder.
    """

    def __init__(self, encode: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Any]], cross: Part, decode: Part):
        self._encode, self._cross, self._decode = encode, cross, decode
        graph = decode.graph
        self._slots = slot_shapes(graph)
        self._sourced = [name for name in graph.inputs if name not in {*self._slots, "decoder_input_ids", PAST}]

    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, Written]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        known = dict(inputs)
        if "input_ids" in known:
            known.setdefault("attention_mask", tf.ones_like(known["input_ids"]))
        known[ENCODED] = self._encode(known)[LAST_STATES]
        known |= self._cross(known)
        ids = known["decoder_input_ids"]
        slots = empty_slots(self._slots, self._decode.kinds, tf.shape(ids)[0], capacity)
        source = {name: tf.cast(known[name], self._decode.kinds[name]) for name in self._sourced}
        return self._read(ids, Written(slots, source, tf.constant(0)))

    def step(self, tokens: tf.Tensor, state: Written) -> tuple[tf.Tensor, Written]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        return self._read(tokens[:, tf.newaxis], state)

    def reorder(self, state: Written, rows: tf.Tensor) -> Written:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        return gathered(state, rows)

    def _read(self, ids: tf.Tensor, state: Written) -> tuple[tf.Tensor, Written]:
        """Logits of the token behind some, and the state that holds these too."""
        outputs = self._decode({"decoder_input_ids": ids, PAST: state.length, **state.source, **state.slots})
        slots = {name: tf.ensure_shape(outputs[name], old.shape) for name, old in state.slots.items()}
        return outputs["logits"], state._replace(slots=slots, length=state.length + tf.shape(ids)[1])
