"""Classifier-free guidance: a text is steered away from one that continues another prompt."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tf_pipeline.generation.stepper import Stepper

SCALE = "guidance_scale"
# Inputs of the other prompt, and the names that a stepper has for them.
NEGATIVE = {"negative_prompt_ids": "input_ids", "negative_prompt_attention_mask": "attention_mask"}


class Pair(NamedTuple):
    """The state of :class:`Guided`.

    Attributes:
        prompt: state of the stepper behind the prompts.
        negative: its state behind the other prompts.
        scale: float32 scalar.
    """

    prompt: Any
    negative: Any
    scale: tf.Tensor


class Guided:
    """A :class:`~tf_pipeline.generation.stepper.Stepper` that reads two prompts for each text.

    Its logits are ``negative + scale * (prompt - negative)``, of log-probabilities of the two
    (https://arxiv.org/abs/2306.17806).

    Args:
        stepper: reads both.
        capacity: tokens that the state behind the other prompts has room for.
    """

    def __init__(self, stepper: Stepper, capacity: int):
        self._stepper, self._capacity = stepper, capacity

    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, Pair]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`; the inputs have those of ``NEGATIVE`` and the scale."""
        other = {name: inputs[key] for key, name in NEGATIVE.items()}
        own = {name: value for name, value in inputs.items() if name not in (*NEGATIVE, SCALE)}
        logits, state = self._stepper.prefill(own, capacity)
        against, negative = self._stepper.prefill(other, self._capacity)
        return _guided(logits, against, inputs[SCALE]), Pair(state, negative, inputs[SCALE])

    def step(self, tokens: tf.Tensor, state: Pair) -> tuple[tf.Tensor, Pair]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        logits, prompt = self._stepper.step(tokens, state.prompt)
        against, negative = self._stepper.step(tokens, state.negative)
        return _guided(logits, against, state.scale), Pair(prompt, negative, state.scale)

    def reorder(self, state: Pair, rows: tf.Tensor) -> Pair:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        prompt, negative = (self._stepper.reorder(part, rows) for part in (state.prompt, state.negative))
        return Pair(prompt, negative, state.scale)


def _guided(logits: tf.Tensor, negative: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    wanted, other = (tf.nn.log_softmax(tf.cast(x, tf.float32)) for x in (logits, negative))
    return scale * (wanted - other) + other
