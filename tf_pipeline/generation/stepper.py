"""Models as generation sees them: one call for the prompt, one call for each further token."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import tensorflow as tf


@runtime_checkable
class Stepper(Protocol):
    """A model that reads a text piece by piece. Its ``state`` is a pytree of tensors."""

    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, Any]:
        """Read the prompts.

        Args:
            inputs: int32 ``input_ids`` and ``attention_mask``, ``[rows, prompt]``, padded on the left; for a model
                with an encoder also ``decoder_input_ids`` ``[rows, start]``.
            capacity: tokens that the state has room for, those of the prompt counted.

        Returns:
            The logits of the token after the prompt, ``[rows, vocab]``, and the state.
        """
        ...

    def step(self, tokens: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Read one more token of each row, int32 ``[rows]``; returns what :meth:`prefill` does."""
        ...

    def reorder(self, state: Any, rows: tf.Tensor) -> Any:
        """The state of other rows, int32 ``[n]``; rows may be repeated and left out."""
        ...


class Read(NamedTuple):
    """The state of :class:`Recomputing`.

    Attributes:
        ids: what was read, int32 ``[rows, capacity]``; zeros behind.
        mask: which of it is text, int32 ``[rows, capacity]``.
        types: the token types, int32 ``[rows, capacity]``, of a model that was given some, or else ``()``.
        source: inputs of the encoder, each int32 ``[rows, source]``; empty without an encoder.
        length: how many columns are filled, a scalar.
    """

    ids: tf.Tensor
    mask: tf.Tensor
    types: Any
    source: dict[str, tf.Tensor]
    length: tf.Tensor


class Recomputing:
    """A :class:`Stepper` over any model that is called with ids and returns logits: it reads all anew for each token.

    Args:
        model: the model. An encoder, if it has one, reads the source anew for each token too.
    """

    def __init__(self, model):
        self.model = model
        self._has_encoder = "decoder_input_ids" in model.tensor_names

    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, Read]:
        """See :class:`Stepper`; ``inputs`` may have ``token_type_ids``, whose last column is that of what follows."""
        inputs = dict(inputs)
        text = {"ids": inputs.pop("decoder_input_ids" if self._has_encoder else "input_ids"), "types": ()}
        text["mask"] = tf.ones_like(text["ids"]) if self._has_encoder else inputs.pop("attention_mask")
        if not self._has_encoder and "token_type_ids" in inputs:
            text["types"] = inputs.pop("token_type_ids")
        length = tf.shape(text["ids"])[1]
        room = [[0, 0], [0, capacity - length]]
        text = {name: tf.pad(value, room) if tf.is_tensor(value) else value for name, value in text.items()}
        text = {
            name: tf.ensure_shape(value, [None, capacity]) if tf.is_tensor(value) else value
            for name, value in text.items()
        }
        state = Read(source=inputs, length=length, **text)
        return self._logits(state), state

    def step(self, tokens: tf.Tensor, state: Read) -> tuple[tf.Tensor, Read]:
        """See :class:`Stepper`."""
        here = tf.range(tf.shape(state.ids)[1]) == state.length
        state = state._replace(
            ids=tf.where(here, tokens[:, tf.newaxis], state.ids),
            mask=tf.where(here, 1, state.mask),
            types=tf.where(here, state.types[:, state.length - 1, tf.newaxis], state.types)
            if tf.is_tensor(state.types)
            else (),
            length=state.length + 1,
        )
        return self._logits(state), state

    def reorder(self, state: Read, rows: tf.Tensor) -> Read:
        """See :class:`Stepper`."""
        return tf.nest.map_structure(lambda x: x if x.shape.rank == 0 else tf.gather(x, rows), state)

    def _logits(self, state: Read) -> tf.Tensor:
        ids, mask = state.ids[:, : state.length], state.mask[:, : state.length]
        if self._has_encoder:
            inputs = {**state.source, "decoder_input_ids": ids}
        else:
            inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
            if tf.is_tensor(state.types):
                inputs["token_type_ids"] = state.types[:, : state.length]
        inputs = {name: value for name, value in inputs.items() if name in self.model.tensor_names}
        return self.model(inputs, training=False).logits[:, -1]


def positions(mask: tf.Tensor) -> tf.Tensor:
    """Positions counted over text, and 0 at padding, as ``generate`` of PyTorch counts them; int32 ``[rows, seq]``."""
    return tf.maximum(tf.cumsum(mask, axis=1) - 1, 0) * mask
