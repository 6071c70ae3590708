"""A ported model that reads token after token, with a cache: the graph of one step as a stepper."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tf_pipeline.generation.recompute import positions
from tf_pipeline.generation.stepper import gathered
from tf_pipeline.port.graph import PAST, Graph


def slot_names(layer: int) -> tuple[str, str]:
    """Names of the keys and values of a layer among inputs and outputs of a step."""
    return f"keys_{layer}", f"values_{layer}"


def slot_shapes(graph: Graph) -> dict[str, tuple[int, int]]:
    """Heads and size of the slots of a step, by name."""
    return {name: tuple(spec.shape[1::2]) for name, spec in graph.inputs.items() if name in graph.outputs}


def empty_slots(
    shapes: Mapping[str, tuple[int, int]], kinds: Mapping[str, tf.DType], rows: tf.Tensor, capacity: int
) -> dict[str, tf.Tensor]:
    """Slots ``[rows, heads, capacity, size]`` that hold nothing.

    Args:
        shapes: the result of :func:`slot_shapes`.
        kinds: dtypes by name.
        rows: number of texts.
        capacity: number of tokens that they have room for.
    """
    return {
        name: tf.ensure_shape(tf.zeros([rows, heads, capacity, size], kinds[name]), [None, heads, capacity, size])
        for name, (heads, size) in shapes.items()
    }


def most_tokens(whole: Graph) -> int | None:
    """Maximum number of tokens of a text that the model of a graph writes; ``None`` without a limit."""
    axis = "decoder_length" if "decoder_input_ids" in whole.inputs else "length"
    return whole.limits.get(axis, [1, None])[1]


def misfit(step: Graph, whole: Graph) -> str:
    """Reason that a step does not belong to the model of a graph, in words; empty if it does."""
    used = {name.removeprefix("p.") for node in step.nodes for name in node.references() if name.startswith("p.")}
    shapes = {key: spec.shape for key, spec in whole.parameters.items()}
    if step.model_class != whole.model_class or not (PAST in step.inputs or step.states):
        return f"it is no step of {whole.model_class}"
    if wrong := sorted(key for key in used if shapes.get(key) != step.parameters[key].shape):
        return f"it reads other parameters: {wrong[:3]}"
    # The model holds these in the form that `linear` reads.
    if wrong := sorted((used & whole.kernels()) - step.kernels()):
        return f"it reads matrices in another form: {wrong[:3]}"
    return ""


class Held(NamedTuple):
    """The state of :class:`CachedSteps`.

    Attributes:
        slots: keys and values by name, ``[rows, heads, capacity, size]``.
        mask: int32 ``[rows, capacity]``, 0 where a prompt is padded.
        positions: int32 ``[rows]``, of the next token.
        length: int32 scalar, the number of filled slots.
    """

    slots: dict[str, tf.Tensor]
    mask: tf.Tensor
    positions: tf.Tensor
    length: tf.Tensor


class CachedSteps:
    """A :class:`~tf_pipeline.generation.stepper.Stepper` over the graph of one step.

    Args:
        graph: its inputs are tokens, mask and positions as far as the model takes them, the number of filled slots,
            and slots; its outputs the logits of the last token, and the slots with the new tokens.
        run: computes all outputs by name from all inputs by name.
        dtype: the dtype that a graph's name for it stands for.
    """

    def __init__(
        self,
        graph: Graph,
        run: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Any]],
        dtype: Callable[[str], tf.DType],
    ):
        self._run = run
        self._kinds = {name: dtype(spec.dtype) for name, spec in graph.inputs.items()}
        self._slots = slot_shapes(graph)

    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, Held]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        ids, places, state = self._begun(inputs, capacity)
        rows, length = tf.unstack(tf.shape(ids))
        slots = empty_slots(self._slots, self._kinds, rows, capacity)
        return self._read(ids, places, state._replace(slots=slots), length)

    def _begun(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, tf.Tensor, Held]:
        """Tokens and positions ``[rows, prompt]`` of prompts, and the state before them, without its slots."""
        ids = inputs["input_ids"]
        mask = tf.cast(inputs.get("attention_mask", tf.ones_like(ids)), tf.int32)
        room = tf.pad(mask, [[0, 0], [0, capacity - tf.shape(ids)[1]]], constant_values=1)
        room = tf.ensure_shape(room, [None, capacity])
        return ids, positions(mask), Held({}, room, tf.reduce_sum(mask, axis=1), tf.constant(0))

    def step(self, tokens: tf.Tensor, state: Held) -> tuple[tf.Tensor, Held]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        after = state._replace(positions=state.positions + 1)
        return self._read(tokens[:, tf.newaxis], state.positions[:, tf.newaxis], after, 1)

    def reorder(self, state: Held, rows: tf.Tensor) -> Held:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        return gathered(state, rows)

    def _read(self, ids: tf.Tensor, places: tf.Tensor, state: Held, count: tf.Tensor | int) -> tuple[tf.Tensor, Held]:
        """Logits of the token behind some, and the state that holds these too."""
        inputs = {"input_ids": ids, "attention_mask": state.mask, "position_ids": places, PAST: state.length}
        inputs |= state.slots
        outputs = self._run({name: tf.cast(inputs[name], kind) for name, kind in self._kinds.items()})
        slots = {name: tf.ensure_shape(outputs[name], old.shape) for name, old in state.slots.items()}
        return outputs["logits"], state._replace(slots=slots, length=state.length + count)
