"""The compiled loop: a prompt is read, tokens are chosen and read until all texts have ended.

One graph serves every prompt, batch and option value of a model, a capacity and a choice of options: lengths and values
are tensors in it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tf_pipeline.generation.search import Prompt, Rules, Search, Turn
from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.tracing import compiled

_LEAST_CAPACITY = 64


def bucket(length: int, limit: int | None = None) -> int:
    """The capacity for texts of a length: the next multiple of 64, or above 512 of an eighth of the next power of two.

    Args:
        length: tokens that are read.
        limit: maximum number that the model can read.
    """
    step = max(_LEAST_CAPACITY, (1 << max(length - 1, 0).bit_length()) // 8)
    capacity = -(-length // step) * step
    return capacity if limit is None else min(capacity, limit)


def text_of(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The text that is continued, int32 ``[rows, seq]``: the decoder's, of a model that has an encoder."""
    return inputs["decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"]


class Progress(NamedTuple):
    """Progress of the texts that are being generated.

    Attributes:
        model: state of the stepper.
        search: state of the search.
        tokens: the tokens that the model reads next, int32 ``[rows]``.
        rows: the rows whose states go on; see :class:`~tf_pipeline.generation.search.Turn`.
        scores: of the last token, ``[rows, vocab]``, or ``()`` if nobody asked.
        logits: the same, not processed.
    """

    model: Any
    search: Any
    tokens: tf.Tensor
    rows: Any
    scores: Any
    logits: Any


class Loop:
    """Generation with one stepper and one search.

    Args:
        stepper: the model.
        search: the way to choose tokens.
        capacity: tokens that the model's state has room for. The last token of a text is not read.
        copies: rows for each row of the prompt: beams, or texts that are drawn.
        keeps_scores: whether to return the scores of each token.
        keeps_logits: whether to return the logits of each token.
    """

    def __init__(
        self, stepper: Stepper, search: Search, capacity: int, copies: int, keeps_scores: bool, keeps_logits: bool
    ):
        self.stepper, self.search, self.capacity, self.copies = stepper, search, capacity, copies
        self.keeps = {"scores": keeps_scores, "logits": keeps_logits}

    def prompt(self, inputs: Mapping[str, tf.Tensor], rules: Rules) -> Prompt:
        """The prompts that the search starts from."""
        text = text_of(inputs)
        first = tf.zeros(tf.shape(text)[:1], tf.int32)
        if "decoder_input_ids" not in inputs:
            first = tf.argmax(tf.cast(inputs["attention_mask"] != 0, tf.int32), axis=1, output_type=tf.int32)
        source = inputs.get("input_ids", text[:, :0])  # an encoder may read no tokens
        prompt = Prompt(text, first, source, tf.broadcast_to(rules.most, tf.shape(first)))
        return tf.nest.map_structure(lambda x: tf.repeat(x, self.copies, axis=0), prompt)

    def start(self, inputs: Mapping[str, tf.Tensor], rules: Rules, halt: tf.Tensor | bool = False) -> Progress:
        """Read the prompt and choose the first token.

        Args:
            inputs: as for :meth:`~tf_pipeline.generation.stepper.Stepper.prefill`.
            rules: settings of the search.
            halt: whether the first token is the last one.
        """
        prompt = self.prompt(inputs, rules)
        logits, model = self.stepper.prefill(inputs, self.capacity)
        if self.copies > 1:
            rows = tf.repeat(tf.range(tf.shape(logits)[0]), self.copies)
            logits, model = tf.gather(logits, rows), self.stepper.reorder(model, rows)
        search = self.search.start(prompt, self.capacity + 1, rules)
        return self.progress(
            model, self.search.advance(search, logits, prompt, rules, tf.convert_to_tensor(halt)), logits
        )

    def advance(
        self, progress: Progress, inputs: Mapping[str, tf.Tensor], rules: Rules, halt: tf.Tensor | bool = False
    ) -> Progress:
        """Read the last token and choose the next one."""
        logits, model = read(self.stepper, progress.tokens, progress.rows, progress.model)
        return self.choose(progress, logits, model, inputs, rules, halt)

    def choose(
        self,
        progress: Progress,
        logits: tf.Tensor,
        model: Any,
        inputs: Mapping[str, tf.Tensor],
        rules: Rules,
        halt: tf.Tensor | bool = False,
    ) -> Progress:
        """Choose the next token from logits ``[rows, vocab]``, behind which the model's state is ``model``."""
        turn = self.search.advance(
            progress.search, logits, self.prompt(inputs, rules), rules, tf.convert_to_tensor(halt)
        )
        return self.progress(model, turn, logits, progress)

    def progress(self, model: Any, turn: Turn, logits: tf.Tensor, before: Progress | None = None) -> Progress:
        """The progress after a turn; that before it, if there is any, tells the shapes."""
        kept = {"scores": turn.scores, "logits": tf.cast(logits, tf.float32)}
        kept = {name: value if self.keeps[name] else () for name, value in kept.items()}
        after = Progress(model, turn.state, turn.tokens, turn.rows, **kept)
        return after if before is None else tf.nest.map_structure(_of_shape, after, before)

    def run(self, inputs: Mapping[str, tf.Tensor], rules: Rules) -> dict[str, tf.Tensor]:
        """Generate to the end.

        Returns:
            The result of :meth:`~tf_pipeline.generation.search.Search.finish`, and ``scores`` and ``logits``, float32
            ``[new tokens, rows, vocab]``, if they are kept.
        """
        progress = self.start(inputs, rules)
        arrays = {name: tf.TensorArray(tf.float32, 1, dynamic_size=True) for name in self.keeps if self.keeps[name]}
        _, progress, arrays = tf.while_loop(
            lambda count, progress, arrays: ~self.search.is_over(progress.search),
            lambda count, progress, arrays: self.go_on(count, progress, arrays, inputs, rules),
            (1, progress, recorded(arrays, progress, 0)),
        )
        return self.search.finish(progress.search, rules) | {name: array.stack() for name, array in arrays.items()}

    def go_on(
        self, count: tf.Tensor, progress: Progress, arrays: dict, inputs: Mapping[str, tf.Tensor], rules: Rules
    ) -> tuple[tf.Tensor, Progress, dict]:
        """Choose the next token, or several.

        Args:
            count: number of new tokens so far.
            progress: of their texts.
            arrays: scores and logits of each token, as far as they are kept.
            inputs: as for :meth:`run`.
            rules: as for :meth:`run`.

        Returns:
            The first three, afterwards.
        """
        progress = self.advance(progress, inputs, rules)
        return count + 1, progress, recorded(arrays, progress, count)


def read(stepper: Stepper, tokens: tf.Tensor, rows: Any, state: Any) -> tuple[tf.Tensor, Any]:
    """Read a token of each row, int32 ``[rows]``, after the states were reordered by ``rows``, unless these are ``()``.

    Returns:
        Logits ``[rows, vocab]``, and the new state.
    """
    return stepper.step(tokens, stepper.reorder(state, rows) if tf.is_tensor(rows) else state)


def recorded(arrays: dict[str, tf.TensorArray], progress: Progress, count: tf.Tensor | int) -> dict:
    """The arrays of a loop with the scores and logits of a token, the ``count``-th new one."""
    return {name: array.write(count, getattr(progress, name)) for name, array in arrays.items()}


def _of_shape(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """A tensor that is known to have the shape that it had a token ago, as loops ask for."""
    return tf.ensure_shape(new, old.shape) if tf.is_tensor(new) else new


class Compiled:
    """A :class:`Loop` as graphs: the whole, or one token at a time.

    Args:
        loop: the loop.
        inputs: specs of its inputs.
        rules: example of its rules; values do not matter.
    """

    def __init__(self, loop: Loop, inputs: Mapping[str, tf.TensorSpec], rules: Rules):
        self.loop = loop
        specs = (dict(inputs), tf.nest.map_structure(_spec, rules))
        self.run: Callable = compiled(loop.run, *specs)
        halt = tf.TensorSpec([], tf.bool)
        self.start: Callable = compiled(loop.start, *specs, halt)
        self._advance: Callable | None = None
        self._specs = (*specs, halt)

    def advance(self, progress: Progress, inputs: Mapping[str, tf.Tensor], rules: Rules, halt: tf.Tensor) -> Progress:
        """See :meth:`Loop.advance`."""
        if self._advance is None:
            specs = open_specs(self.start.get_concrete_function().structured_outputs)
            self._advance = compiled(self.loop.advance, specs, *self._specs)
        return self._advance(progress, inputs, rules, halt)


def _spec(value: tf.Tensor) -> tf.TensorSpec:
    """A spec of any sizes, but of this rank and dtype."""
    return tf.TensorSpec([None] * value.shape.rank, value.dtype)


def open_specs(progress: Progress) -> Progress:
    """Specs of a progress without the names that outputs of a graph have."""
    return tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), progress)
