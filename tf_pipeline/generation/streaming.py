"""Generation one token at a time, driven from Python: for streams and for a limit of time."""

import time
from typing import Any

import tensorflow as tf

from tf_pipeline.generation.loop import Compiled
from tf_pipeline.generation.search import Rules


def drive(
    compiled: Compiled, inputs: dict[str, tf.Tensor], rules: Rules, streamer: Any = None, max_time: float | None = None
) -> dict[str, Any]:
    """Generate to the end, and hand over each token on the way.

    Args:
        compiled: the graphs of one token.
        inputs: the prompts.
        rules: settings of the search.
        streamer: gets the prompt, int32 ``[rows, seq]``, and then the tokens, int32 ``[rows]``, as arrays; ``end`` is
            called after the last one.
        max_time: seconds after which the next token is the last one.

    Returns:
        The result of :meth:`~tf_pipeline.generation.loop.Loop.run`; ``scores`` and ``logits`` are lists.
    """
    search, began = compiled.loop.search, time.monotonic()
    kept: dict[str, list] = {name: [] for name, is_kept in compiled.loop.keeps.items() if is_kept}

    def is_late() -> tf.Tensor:
        return tf.constant(max_time is not None and time.monotonic() - began > max_time)

    if streamer is not None:
        streamer.put(compiled.loop.prompt(inputs, rules).ids.numpy())
    progress = compiled.start(inputs, rules, is_late())
    while True:
        for name, values in kept.items():
            values.append(getattr(progress, name))
        if streamer is not None:
            streamer.put(progress.tokens.numpy())
        if search.is_over(progress.search):
            break
        progress = compiled.advance(progress, inputs, rules, is_late())
    if streamer is not None:
        streamer.end()
    return search.finish(progress.search, rules) | kept
