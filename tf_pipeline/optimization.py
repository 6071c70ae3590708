"""Optimizers and learning rates of ``transformers``' recipes, as Keras objects.

Version 4 had them for TensorFlow; version 5 has PyTorch's alone. Steps are PyTorch's: before each, weights decay by the
learning rate times ``weight_decay``, biases and norms do not decay, and ``epsilon`` is added to the square root of the
second moment after the correction of its bias, where Keras' own Adam adds it before.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

# Names of parameters that do not decay in PyTorch's recipe, which also leaves out all layer norms by their class. Norms
# and biases of every family are vectors, so that their rank tells them; these are tables with such a name.
_NOT_DECAYED = ("bias", "layernorm", "rmsnorm", r"(^|/)norm(/|$)", r"_norm(/|$)")

# Paths of what is in a numbered layer, and of tables below the layers.
_LAYER = re.compile(r"(?P<stack>.*?)[/.](?P<number>\d+)([/.]|$)")
_EMBEDDING = re.compile(r"embed|(^|/)(shared|wte|wpe)(/|$)")


@keras.saving.register_keras_serializable(package="tf_pipeline")
class AdamWeightDecay(keras.optimizers.AdamW):
    """AdamW with the steps of ``torch.optim.AdamW``, which leaves biases and norms out of weight decay.

    Args:
        learning_rate: a number or a schedule.
        beta_1: decay of the mean of gradients.
        beta_2: decay of the mean of squared gradients.
        epsilon: number added to the root of the second moment.
        amsgrad: whether to use the maximum of all second moments.
        weight_decay_rate: part of a weight that a step of learning rate 1 takes away.
        include_in_weight_decay: regular expressions of the paths of variables that decay in any case.
        exclude_from_weight_decay: those of variables that do not; by default biases, norms and other vectors.
        layer_decay: factor of the learning rate from one layer to the one below it, such as 0.9; embeddings are below
            the first layer, and what is in no layer, such as a head, has the full rate
            (https://arxiv.org/abs/1801.06146, section 3.2).
        **kwargs: of ``keras.optimizers.Optimizer``: ``clipnorm``, ``global_clipnorm``, ``use_ema``,
            ``gradient_accumulation_steps``, ``name``, …
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay_rate: float = 0.0,
        include_in_weight_decay: Sequence[str] | None = None,
        exclude_from_weight_decay: Sequence[str] | None = None,
        layer_decay: float | None = None,
        name: str = "AdamWeightDecay",
        **kwargs: Any,
    ):
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay is a factor of more than 0 and at most 1; got {layer_decay!r:.80}.")
        # Part of get_config, where it is equal or, for a rate of 0, None.
        if kwargs.pop("weight_decay", None) not in (None, weight_decay_rate):
            raise ValueError("Keras' weight_decay has another name here: pass weight_decay_rate.")
        super().__init__(
            learning_rate, weight_decay_rate, beta_1, beta_2, epsilon, amsgrad=amsgrad, name=name, **kwargs
        )
        self.weight_decay_rate = weight_decay_rate
        self.weight_decay = weight_decay_rate or None  # None makes Keras skip the decay
        self.include_in_weight_decay = include_in_weight_decay
        self.excluded, self.layer_decay = exclude_from_weight_decay, layer_decay
        self._factors: dict[str, float] = {}

    def build(self, variables: Any) -> None:
        """Make the moments of variables, and find their layers.

        Raises:
            ValueError: for variables whose dtype is too narrow for ``epsilon``.
        """
        for dtype in {keras.backend.standardize_dtype(variable.dtype) for variable in variables}:
            # Squares of small gradients are 0 in float16, so that means are divided by epsilon alone.
            if tf.as_dtype(dtype).as_numpy_dtype(self.epsilon * (1 - self.beta_2) ** 0.5) == 0:
                raise ValueError(
                    f"Adam's epsilon of {self.epsilon:g} is 0 in {dtype}, and so are squares of gradients; train in "
                    "mixed_float16, mixed_bfloat16 or bfloat16, or with a larger epsilon, such as 1e-4."
                )
        super().build(variables)
        if self.layer_decay is not None:
            self._factors = _layer_factors([_path(variable) for variable in variables], self.layer_decay)

    def _get_current_learning_rate(self) -> Any:
        """The rate of a schedule at the step of the optimizer, of which accumulated batches are parts."""
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _rate(self, variable: Any, learning_rate: Any, dtype: Any = None) -> Any:
        """The learning rate of a variable."""
        rate = ops.cast(learning_rate, dtype or variable.dtype)
        return rate * self._factors[_path(variable)] if self._factors else rate

    def _apply_weight_decay(self, variables: Any) -> None:
        """Leave it to :meth:`update_step`."""

    def _use_weight_decay(self, variable: Any) -> bool:
        path = _path(variable)
        if not super()._use_weight_decay(variable):  # excluded by Keras' exclude_from_weight_decay()
            return False
        if self.include_in_weight_decay and _matches(self.include_in_weight_decay, path):
            return True
        if self.excluded is not None:
            return not _matches(self.excluded, path)
        return len(variable.shape) > 1 and not _matches(_NOT_DECAYED, path.lower())

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take a step. Slices, such as gradients of ``tf.gather``, are added up first: a row read twice has two."""
        grads = [tf.convert_to_tensor(one) if isinstance(one, tf.IndexedSlices) else one for one in grads]
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Let one variable decay, and change it by its gradient."""
        if self.weight_decay is not None and self._use_weight_decay(variable):
            # Otherwise, all weights of a graph decay first, and are kept as they were for the forward pass.
            with tf.control_dependencies([gradient]):
                decay = self._rate(variable, learning_rate) * ops.convert_to_tensor(self.weight_decay, variable.dtype)
                self.assign_sub(variable, variable * decay)
        # In bfloat16 a beta of 0.999 is 1, and the correction of its bias 0: narrow weights are updated in float32.
        own = keras.backend.standardize_dtype(variable.dtype)
        dtype = keras.backend.result_type(own, "float32")
        beta_1, beta_2, epsilon = (
            ops.convert_to_tensor(value, dtype) for value in (self.beta_1, self.beta_2, self.epsilon)
        )
        gradient, step = ops.cast(gradient, dtype), ops.cast(self.iterations + 1, dtype)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        beta_1_power, beta_2_power = ops.power(beta_1, step), ops.power(beta_2, step)
        rate = self._rate(variable, learning_rate, dtype)
        if own == dtype and not self.amsgrad and not tf.distribute.has_strategy():  # one pass over memory
            tf.raw_ops.ResourceApplyAdam(
                var=_handle(variable),
                m=_handle(mean),
                v=_handle(square),
                beta1_power=beta_1_power,
                beta2_power=beta_2_power,
                lr=rate,
                beta1=beta_1,
                beta2=beta_2,
                epsilon=epsilon * ops.sqrt(1 - beta_2_power),  # added to a root that is not corrected yet
                grad=gradient,
            )
            return
        mean = self._moved(mean, gradient, 1 - beta_1)
        square = self._moved(square, ops.square(gradient), 1 - beta_2)
        if self.amsgrad:
            most = self._velocity_hats[index]
            square = ops.maximum(ops.cast(most, dtype), square)
            self.assign(most, ops.cast(square, own))
        root = ops.sqrt(square / (1 - beta_2_power))
        change = rate / (1 - beta_1_power) * mean / (root + epsilon)
        self.assign(variable, ops.cast(ops.cast(variable, dtype) - change, own))

    def _moved(self, average: Any, value: Any, part: Any) -> Any:
        """Move a moment towards a value by a part of the way; returned before it is rounded to the variable's dtype."""
        before = ops.cast(average, value.dtype)
        after = before + (value - before) * part
        self.assign(average, ops.cast(after, average.dtype))
        return after

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {
            "weight_decay_rate": self.weight_decay_rate,
            "include_in_weight_decay": self.include_in_weight_decay,
            "exclude_from_weight_decay": self.excluded,
            "layer_decay": self.layer_decay,
        }


def _handle(variable: Any) -> tf.Tensor:
    """The resource of Keras' variable, or of TensorFlow's."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def _path(variable: Any) -> str:
    """The path of Keras' variable, or of TensorFlow's."""
    return getattr(variable, "path", None) or variable.name.partition(":")[0]


def _layer_factors(paths: Sequence[str], decay: float) -> dict[str, float]:
    """Factors of learning rates by path: 1 at the top, less for each layer below; stacks of layers count apart."""
    places = {path: _LAYER.match(path) for path in paths}
    heights: dict[str, int] = {}
    for place in filter(None, places.values()):
        heights[place["stack"]] = max(heights.get(place["stack"], 0), int(place["number"]) + 1)
    if not heights:
        raise ValueError("layer_decay is for models with layers, and none of the variables is in a numbered one.")
    factors = {}
    for path, place in places.items():
        if place is not None:
            factors[path] = decay ** (heights[place["stack"]] - int(place["number"]))
        else:
            factors[path] = decay ** (max(heights.values()) + 1) if _EMBEDDING.search(path) else 1.0
    return factors


def _matches(patterns: Sequence[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)


@keras.saving.register_keras_serializable(package="tf_pipeline")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises from 0, and then follows another schedule.

    Args:
        initial_learning_rate: the rate at the end of the rise.
        decay_schedule_fn: the schedule from then on; it counts steps from the end of the rise.
        warmup_steps: number of steps of the rise.
        power: exponent of the rise: 1 is a line.
        name: name of the schedule.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_schedule_fn: Any,
        warmup_steps: int,
        power: float = 1.0,
        name: str | None = None,
    ):
        super().__init__()
        self.initial_learning_rate, self.decay_schedule_fn = initial_learning_rate, decay_schedule_fn
        self.warmup_steps, self.power, self.name = warmup_steps, power, name

    def __call__(self, step: Any) -> Any:
        """The rate at a step, which counts from 0."""
        step = ops.cast(step, keras.backend.floatx())
        rise = self.initial_learning_rate * ops.power(step / max(self.warmup_steps, 1), self.power)
        later = ops.cast(self.decay_schedule_fn(ops.maximum(step - self.warmup_steps, 0)), rise.dtype)
        return ops.where(step < self.warmup_steps, rise, later)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_schedule_fn": keras.saving.serialize_keras_object(self.decay_schedule_fn),
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "WarmUp":
        """The schedule of :meth:`get_config`."""
        schedule = keras.saving.deserialize_keras_object(config["decay_schedule_fn"], custom_objects)
        return cls(**config | {"decay_schedule_fn": schedule})


def create_optimizer(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int = 0,
    min_lr_ratio: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_clipnorm: float | None = None,
    adam_global_clipnorm: float | None = None,
    weight_decay_rate: float = 0.0,
    power: float = 1.0,
    include_in_weight_decay: Sequence[str] | None = None,
    lr_scheduler_type: str = "polynomial",
    layer_decay: float | None = None,
    **kwargs: Any,
) -> tuple[AdamWeightDecay, keras.optimizers.schedules.LearningRateSchedule]:
    """The optimizer and the schedule of ``transformers``' recipes: a rise, a fall, and AdamW.

    Args:
        init_lr: the highest learning rate.
        num_train_steps: number of steps, the rise included.
        num_warmup_steps: number of steps in which the rate rises from 0.
        min_lr_ratio: the rate at the end, as a part of ``init_lr``.
        adam_beta1: decay of the mean of gradients.
        adam_beta2: decay of the mean of squared gradients.
        adam_epsilon: number added to the root of the second moment.
        adam_clipnorm: maximum norm of each gradient.
        adam_global_clipnorm: maximum norm of all gradients together; PyTorch's ``Trainer`` has 1.
        weight_decay_rate: see :class:`AdamWeightDecay`.
        power: exponent of the fall: 1 is a line.
        include_in_weight_decay: see :class:`AdamWeightDecay`.
        lr_scheduler_type: how the rate falls: ``"polynomial"``, ``"linear"``, ``"cosine"``, or ``"constant"`` for not
            at all.
        layer_decay: see :class:`AdamWeightDecay`.
        **kwargs: of ``keras.optimizers.Optimizer``: ``gradient_accumulation_steps``, ``use_ema``, ``ema_momentum``, …

    Returns:
        The optimizer, and its schedule.

    Raises:
        ValueError: for an unknown schedule, or no steps.

    Warns:
        UserWarning: if the rise has more steps than the training, which ends before its highest rate then, as by
            PyTorch's schedules.
    """
    if num_train_steps < 1 or num_warmup_steps < 0:
        raise ValueError(
            f"num_train_steps={num_train_steps} and num_warmup_steps={num_warmup_steps}: a training has at least one "
            "step, and no fewer than 0 are warm-up."
        )
    fall = num_train_steps - num_warmup_steps
    if fall < 0:
        warnings.warn(
            f"A training of {num_train_steps} steps ends within its {num_warmup_steps} steps of warm-up: its rate gets "
            f"to {num_train_steps / num_warmup_steps:.0%} of {init_lr} and does not fall. Pass fewer num_warmup_steps.",
            stacklevel=2,
        )
    schedules = keras.optimizers.schedules
    # A rise over all steps leaves none to fall in, and a schedule divides by their number.
    falls = {
        "polynomial": schedules.PolynomialDecay(init_lr, max(fall, 1), init_lr * min_lr_ratio, power),
        "linear": schedules.PolynomialDecay(init_lr, max(fall, 1), init_lr * min_lr_ratio),
        "cosine": schedules.CosineDecay(init_lr, max(fall, 1), min_lr_ratio),
        "constant": schedules.PiecewiseConstantDecay([0], [init_lr, init_lr]),
    }
    if lr_scheduler_type not in falls:
        raise ValueError(f"lr_scheduler_type {lr_scheduler_type!r} is not supported; use one of {', '.join(falls)}.")
    schedule = falls[lr_scheduler_type]
    if num_warmup_steps:
        schedule = WarmUp(init_lr, schedule, num_warmup_steps)
    optimizer = AdamWeightDecay(
        schedule,
        adam_beta1,
        adam_beta2,
        adam_epsilon,
        weight_decay_rate=weight_decay_rate,
        include_in_weight_decay=include_in_weight_decay,
        clipnorm=adam_clipnorm,
        global_clipnorm=adam_global_clipnorm,
        layer_decay=layer_decay,
        **kwargs,
    )
    return optimizer, schedule
