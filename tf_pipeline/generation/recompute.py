"""Any model that predicts tokens as a stepper, without a cache."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tf_pipeline.generation.stepper import gathered
from tf_pipeline.tracing import compiled


class Read(NamedTuple):
    """The state of :class:`Recomputing`.

    Attributes:
        ids: the tokens that were read, int32 ``[rows, capacity]``; zeros behind.
        mask: 1 where it is text, int32 ``[rows, capacity]``.
        types: the token types, int32 ``[rows, capacity]``, of a model that was given some, or else ``()``.
        source: inputs of the encoder, such as int32 ``[rows, source]``; empty without an encoder.
        length: number of columns that are filled, a scalar.
    """

    ids: tf.Tensor
    mask: tf.Tensor
    types: Any
    source: dict[str, tf.Tensor]
    length: tf.Tensor


class Recomputing:
    """A :class:`~tf_pipeline.generation.stepper.Stepper` over any model that is called with ids and returns logits.

    The whole text so far is computed again for every token, and so are the outputs of an encoder. The model is
    traced once, for the prompt and all tokens, and for all loops that this object is in.

    Args:
        model: the model.
    """

    def __init__(self, model):
        self._has_encoder = "decoder_input_ids" in model.tensor_names
        self._taken, self._shapes = model.tensor_names, model.signal_shapes
        self._run = compiled(lambda inputs: model(inputs, training=False).logits[:, -1])

    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, Read]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`.

        Of ``token_type_ids``, if they are among the inputs, the continuation has those of the last column.
        """
        inputs = dict(inputs)
        ids = inputs.pop("decoder_input_ids" if self._has_encoder else "input_ids")
        mask = tf.ones_like(ids) if self._has_encoder else inputs.pop("attention_mask")
        types = () if self._has_encoder else inputs.pop("token_type_ids", ())
        length = tf.shape(ids)[1]

        def with_room(x: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.pad(x, [[0, 0], [0, capacity - length]]), [None, capacity])

        state = Read(*tf.nest.map_structure(with_room, (ids, mask, types)), source=inputs, length=length)
        return self._logits(state), state

    def step(self, tokens: tf.Tensor, state: Read) -> tuple[tf.Tensor, Read]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        here = tf.range(tf.shape(state.ids)[1]) == state.length
        types = state.types
        if tf.is_tensor(types):
            types = tf.where(here, types[:, state.length - 1, tf.newaxis], types)
        ids, mask = tf.where(here, tokens[:, tf.newaxis], state.ids), tf.where(here, 1, state.mask)
        state = state._replace(ids=ids, mask=mask, types=types, length=state.length + 1)
        return self._logits(state), state

    def reorder(self, state: Read, rows: tf.Tensor) -> Read:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        return gathered(state, rows)

    def _logits(self, state: Read) -> tf.Tensor:
        ids, mask = state.ids[:, : state.length], state.mask[:, : state.length]
        if self._has_encoder:
            inputs = {**state.source, "decoder_input_ids": ids}
        else:
            inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
            if tf.is_tensor(state.types):
                inputs["token_type_ids"] = state.types[:, : state.length]
        inputs = {name: value for name, value in inputs.items() if name in self._taken}
        specs = {name: tf.TensorSpec(self._shapes.get(name, [None, None]), x.dtype) for name, x in inputs.items()}
        return self._run.get_concrete_function(specs)(inputs)


def positions(mask: tf.Tensor) -> tf.Tensor:
    """Positions counted over text, and 0 at padding, as ``generate`` of PyTorch counts them; int32 ``[rows, seq]``."""
    return tf.maximum(tf.cumsum(mask, axis=1) - 1, 0) * mask
