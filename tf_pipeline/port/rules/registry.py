"""The register of rules, and the few conversions that all of them share."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# A size or an index: a Python integer, or a scalar int32 tensor where the axis is open.
Size = int | tf.Tensor
Number = bool | int | float | tf.Tensor


@dataclass(frozen=True)
class Rule:
    """Computation of an operator.

    Attributes:
        function: computes it.
        extras: those of ``out_dtype``, ``training``, ``attentions`` and ``pieces`` that it takes.
    """

    function: Callable[..., Any]
    extras: frozenset[str]


RULES: dict[str, Rule] = {}
_EXTRAS = frozenset({"out_dtype", "training", "attentions", "pieces"})


def rule(*operators: str) -> Callable[[Callable], Callable]:
    """Register a function for operators, named as ``"add.Tensor"`` for ``aten.add.Tensor``, others in full."""

    def register(function: Callable) -> Callable:
        extras = _EXTRAS & set(inspect.signature(function).parameters)
        for operator in operators:
            name = operator if operator.startswith(("sym.", "tf_pipeline.")) else f"aten.{operator}"
            if name in RULES:
                raise ValueError(f"{name} has two rules.")
            RULES[name] = Rule(function, extras)
        return function

    return register


def find_rule(operator: str) -> Rule | None:
    """The rule of an operator, such as ``"aten.add.Tensor"``, or ``None``."""
    return RULES.get(operator)


def constant(value: Any, dtype: tf.DType) -> tf.Tensor:
    """A Python number in a dtype, without the detour over float32 that a cast would take."""
    if tf.is_tensor(value):
        return tf.cast(value, dtype)
    if dtype.is_integer or dtype.is_bool:
        return tf.constant(dtype.as_numpy_dtype(value), dtype)
    return tf.constant(value, dtype)


def promote(*values: Any) -> list[tf.Tensor]:
    """Values in the dtype that PyTorch would compute them in: of tensors the widest, of numbers the tensors' own.

    Zero-dimensional tensors count like numbers when a tensor with axes is of the same kind.
    """
    dtype = promoted_dtype(values)
    return [constant(value, dtype) for value in values]


def promoted_dtype(values: Sequence[Any]) -> tf.DType:
    """The dtype that PyTorch's type promotion gives; see :func:`promote`."""
    tensors = [value for value in values if tf.is_tensor(value)]
    with_axes = [tensor.dtype for tensor in tensors if tensor.shape.rank]
    scalars = [tensor.dtype for tensor in tensors if not tensor.shape.rank]
    dtypes = with_axes or scalars
    if with_axes and scalars and max(map(_kind, scalars)) > max(map(_kind, with_axes)):
        dtypes = scalars
    dtype = max(dtypes, key=_width) if dtypes else tf.int64
    if {tf.float16, tf.bfloat16} <= set(dtypes) and dtype.size == 2:
        dtype = tf.float32
    kind = max((_number_kind(value) for value in values if not tf.is_tensor(value)), default=0)
    if kind > _kind(dtype):
        return tf.float32 if kind == 2 else tf.int64
    return dtype


def _kind(dtype: tf.DType) -> int:
    return 2 if dtype.is_floating else 3 if dtype.is_complex else 0 if dtype.is_bool else 1


def _number_kind(value: Any) -> int:
    return 0 if isinstance(value, bool) else 2 if isinstance(value, float) else 1


def _width(dtype: tf.DType) -> tuple[int, int]:
    return _kind(dtype), dtype.size


def axis_of(x: tf.Tensor, dim: int) -> int:
    """A non-negative axis; the only axis of a scalar is 0, as in PyTorch."""
    return dim % max(1, x.shape.rank)


def axes_of(x: tf.Tensor, dim: int | Sequence[int] | None) -> list[int]:
    """Non-negative axes: all of them for ``None`` or none given."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.shape.rank))
    return [axis_of(x, d) for d in ([dim] if isinstance(dim, int) else dim)]


def size_of(x: tf.Tensor, axis: int) -> Size:
    """Size of an axis: a Python integer if it is known."""
    static = x.shape[axis]
    return tf.shape(x)[axis] if static is None else static


def sizes_of(x: tf.Tensor) -> list[Size]:
    """Sizes of all axes."""
    dynamic = None
    sizes: list[Size] = []
    for axis, static in enumerate(x.shape):
        if static is None and dynamic is None:
            dynamic = tf.shape(x)
        sizes.append(dynamic[axis] if static is None else static)
    return sizes


def as_shape(sizes: Sequence[Size]) -> Any:
    """Sizes as a shape that TensorFlow takes: a list if all are known, else an int32 vector."""
    if all(isinstance(size, int) for size in sizes):
        return list(sizes)
    return tf.stack([tf.cast(size, tf.int32) for size in sizes])


def is_static(size: Any) -> bool:
    """Whether a size is a Python integer."""
    return isinstance(size, int)
