"""The contract between models that predict tokens one after the other and the searches that choose among them."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import tensorflow as tf

State = TypeVar("State")


@runtime_checkable
class Stepper(Protocol[State]):
    """Predicts the next token of each row, given those before, of which it keeps a state.

    A state is a tree of tensors whose shapes are fixed but for the batch, which is the first axis of all that are no
    scalars. All three methods run eagerly, in graphs of open batch and prompt length, within ``tf.while_loop``, under
    XLA and in a SavedModel.
    """

    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, State]:
        """Read the prompts.

        Args:
            inputs: ``input_ids`` int32 ``[rows, prompt]``, and ``attention_mask`` ``[rows, prompt]``, zero at padding,
                which is on the left; without a mask nothing is padding. Positions count the tokens that are not
                padding. Of a model with an encoder these are the encoder's, and ``decoder_input_ids`` int32 ``[rows,
                start]`` is the text to continue.
            capacity: number of tokens, padding included, that the state is to have room for.

        Returns:
            Logits ``[rows, vocab]`` of the token that follows each prompt, and the state.

        Raises:
            ValueError: for a capacity that the prompt does not fit into, or that the model has no positions for.
        """
        ...

    def step(self, tokens: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Read one more token of each row.

        The given state is used up: in a graph its buffers become those of the new one.

        Args:
            tokens: int32 ``[rows]``.
            state: the result of the last call.

        Returns:
            Logits ``[rows, vocab]`` of the token that follows, and the new state.
        """
        ...

    def reorder(self, state: State, rows: tf.Tensor) -> Any:
        """Gather rows, as beams do.

        Args:
            state: of some rows.
            rows: int32 ``[n]``, which may repeat.

        Returns:
            The state of ``n`` rows.
        """
        ...


def gathered(state: State, rows: tf.Tensor) -> State:
    """Rows of a state.

    Args:
        state: a tree of tensors; scalars are of all rows.
        rows: int32 ``[n]``, which may repeat.

    Returns:
        The state of ``n`` rows.
    """
    return tf.nest.map_structure(lambda x: x if x.shape.rank == 0 else tf.gather(x, rows), state)
