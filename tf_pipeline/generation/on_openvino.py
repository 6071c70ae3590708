"""Generation whose step OpenVINO computes: TensorFlow reads the prompts and chooses the tokens, Python goes round."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow as tf

from tf_pipeline.engines import Conversion, OpenVinoFunction, OpenVinoSteps
from tf_pipeline.generation.loop import Compiled, Loop, Progress, open_specs, read
from tf_pipeline.generation.search import Rules
from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.generation.streaming import drive
from tf_pipeline.tracing import Following, compiled

_LEAST_CAPACITY = 128


def wide_bucket(capacity: int, limit: int | None) -> int:
    """The capacity of a step of OpenVINO's: a power of two, because each has the weights in memory once more.

    Args:
        capacity: tokens that there has to be room for.
        limit: maximum number that the model can read.
    """
    wide = max(_LEAST_CAPACITY, 1 << (capacity - 1).bit_length())
    return wide if limit is None else min(wide, limit)


def _checksum(variable: tf.Tensor) -> tf.Tensor:
    """Two numbers, int64 ``[2]``, that change with a variable's values.

    The sum of all bits sees the smallest change of a single value; a product with two vectors sees changes that cancel
    one another in a sum, such as values that are negated or change places.
    """
    value = tf.cast(variable, tf.int8) if variable.dtype == tf.bool else tf.convert_to_tensor(variable)
    size = value.dtype.size
    if size < 4 and value.shape.num_elements() % (4 // size) == 0:
        bits = tf.bitcast(tf.reshape(value, [-1, 4 // size]), tf.int32)
    else:
        bits = tf.bitcast(value, {8: tf.int64, 4: tf.int32, 2: tf.int16, 1: tf.int8}[size])
    table = tf.reshape(value, [-1, *value.shape[-1:]] if value.shape.rank else [1, 1])
    table = table if table.dtype.is_floating else tf.cast(table, tf.float32)
    rows, columns = (tf.range(1.0, size + 1.0) for size in table.shape)
    form = tf.linalg.matvec(table, tf.cast(tf.cos(columns), table.dtype)) * tf.cast(tf.sin(rows), table.dtype)
    form = tf.cast(tf.reduce_sum(form), tf.float64)
    return tf.stack([tf.cast(tf.reduce_sum(bits), tf.int64), tf.bitcast(form, tf.int64)])


class Step:
    """A step of a model as a function that OpenVINO computes; made again when the weights have changed.

    The checksums of all weights are compared before each call, so that a change by anybody is seen. That reads the
    weights once or twice, and each token of the text reads them again.

    Args:
        model: the model.
        stepper: its stepper.
        progress: specs of the progress before a step.
        conversion: how OpenVINO computes.
    """

    def __init__(self, model: Any, stepper: Stepper, progress: Progress, conversion: Conversion):
        parts = (progress.tokens, progress.rows, progress.model)
        specs = tf.nest.flatten(parts)
        self._first = len(specs) - len(tf.nest.flatten(progress.model))
        self._fed: dict[int, str] = {}

        def run(*given: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens, rows, state = tf.nest.pack_sequence_as(parts, given)
            logits, after = read(stepper, tokens, rows, state)
            pairs = enumerate(zip(tf.nest.flatten(state), tf.nest.flatten(after), strict=True), self._first)
            changed = {place: new for place, (old, new) in pairs if new is not old}
            self._fed.update({place: f"next_{place}" for place in changed})
            return {"logits": logits, **{self._fed[place]: new for place, new in changed.items()}}

        signature = [tf.TensorSpec(x.shape, x.dtype, f"given_{place}") for place, x in enumerate(specs)]
        checksums = compiled(lambda: tf.stack([_checksum(weight.value) for weight in model.weights]))
        make = partial(OpenVinoFunction, run, *signature, **conversion._asdict())
        self._function = Following(make, lambda: checksums().numpy().tobytes())

    def begin(self, progress: Progress) -> OpenVinoSteps | None:
        """The steps behind a prompt; ``None`` if TensorFlow has to compute them."""
        return self._function.steps(tf.nest.flatten((progress.tokens, progress.rows, progress.model)), self._fed)

    def given(self, progress: Progress) -> dict[int, Any]:
        """The inputs of a step, by place, that no step before has made."""
        return dict(enumerate(tf.nest.flatten((progress.tokens, progress.rows))))


class OnOpenVino(Compiled):
    """A :class:`~tf_pipeline.generation.loop.Loop` whose steps OpenVINO computes.

    Args:
        loop: the loop.
        inputs: specs of its inputs.
        rules: example of its rules; values do not matter.
        step: makes the step for specs of the progress.
    """

    def __init__(self, loop: Loop, inputs: Mapping[str, tf.TensorSpec], rules: Rules, step: Callable[[Progress], Step]):
        super().__init__(loop, inputs, rules)
        specs = self.start.get_concrete_function().structured_outputs
        self._step = step(specs)
        logits = tf.TensorSpec([None, None], tf.float32)
        choose = lambda progress, logits, *given: loop.choose(progress, logits, (), *given)  # noqa: E731
        self._choose = compiled(choose, open_specs(specs._replace(model=())), logits, *self._specs)
        self.run = partial(drive, self)

    def advance(self, progress: Progress, inputs: Mapping[str, tf.Tensor], rules: Rules, halt: tf.Tensor) -> Progress:
        """See :meth:`~tf_pipeline.generation.loop.Loop.advance`; the model's state is that of OpenVINO."""
        steps = progress.model if isinstance(progress.model, OpenVinoSteps) else self._step.begin(progress)
        if steps is None:
            return super().advance(progress, inputs, rules, halt)
        logits = tf.constant(steps(self._step.given(progress))["logits"])
        return self._choose(progress._replace(model=()), logits, inputs, rules, halt)._replace(model=steps)
