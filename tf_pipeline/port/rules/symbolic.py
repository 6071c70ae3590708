"""Arithmetic on sizes, which are Python integers or scalar int32 tensors, and the checks of an export."""

import math
import operator
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_pipeline.port.rules.registry import is_static, rule


def _sized(on_numbers: Callable, on_tensors: Callable, name: str) -> None:
    """A rule that stays with Python numbers as long as it gets them."""

    def compute(*values: Any) -> Any:
        return on_tensors(*values) if any(map(tf.is_tensor, values)) else on_numbers(*values)

    rule(f"sym.{name}")(compute)


def _floats(function: Callable) -> Callable:
    return lambda *values: function(*(tf.cast(value, tf.float64) for value in values))


for _name, _numbers, _tensors in (
    ("add", operator.add, operator.add), ("sub", operator.sub, operator.sub), ("mul", operator.mul, operator.mul),
    ("floordiv", operator.floordiv, tf.math.floordiv), ("mod", operator.mod, tf.math.floormod),
    ("pow", operator.pow, tf.pow), ("neg", operator.neg, tf.negative),
    ("truediv", operator.truediv, _floats(tf.truediv)),
    ("eq", operator.eq, tf.equal), ("ne", operator.ne, tf.not_equal), ("lt", operator.lt, tf.less),
    ("le", operator.le, tf.less_equal), ("gt", operator.gt, tf.greater), ("ge", operator.ge, tf.greater_equal),
    ("and_", operator.and_, tf.logical_and), ("or_", operator.or_, tf.logical_or),
    ("sym_not", operator.not_, tf.logical_not), ("sym_max", max, tf.maximum), ("sym_min", min, tf.minimum),
    ("sym_float", float, _floats(tf.identity)), ("sym_sqrt", math.sqrt, _floats(tf.sqrt)),
    ("ceil", math.ceil, lambda x: tf.cast(tf.math.ceil(x), tf.int32)),
    ("floor", math.floor, lambda x: tf.cast(tf.floor(x), tf.int32)),
    ("trunc", math.trunc, lambda x: tf.cast(x, tf.int32)), ("sym_int", int, lambda x: tf.cast(x, tf.int32)),
    ("round", round, lambda x: tf.cast(tf.round(x), tf.int32)),
):  # fmt: skip
    _sized(_numbers, _tensors, _name)


@rule("sym.sym_sum")
def sym_sum(values: list[Any]) -> Any:
    """The sum of sizes."""
    return sum(values[1:], values[0])


@rule("sym.sym_ite")
def sym_ite(condition: Any, then: Any, otherwise: Any) -> Any:
    """One of two sizes."""
    if tf.is_tensor(condition):
        return tf.where(condition, then, otherwise)
    return then if condition else otherwise


@rule("sym.getitem")
def getitem(values: Any, index: int) -> Any:
    """One of several results."""
    return values[index]


@rule("_local_scalar_dense.default", "item.default")
def item(x: tf.Tensor) -> tf.Tensor:
    """The only element, as a size if it is a whole number.

    Schemas::

        aten::_local_scalar_dense(Tensor self) -> Scalar
        aten::item(Tensor self) -> Scalar
    """
    value = tf.reshape(x, [])
    return tf.cast(value, tf.int32) if value.dtype.is_integer else value


@rule("_assert_scalar.default")
def assert_scalar(condition: Any, message: str) -> tf.Operation | None:
    """Refuse sizes that the exported computation does not cover: while tracing if they are known, else when run.

    Schema::

        aten::_assert_scalar(Scalar self, str assert_msg) -> ()
    """
    if is_static(condition):
        if not condition:
            raise ValueError(message)
        return None
    if tf.is_tensor(condition):
        return tf.debugging.assert_equal(tf.cast(condition, tf.bool), True, message=message)
    return None


@rule(
    "_assert_tensor_metadata.default", "_assert_async.msg", "sym_constrain_range_for_size.default",
    "sym_constrain_range.default",
)  # fmt: skip
def nothing(*_: Any, **__: Any) -> None:
    """Leave out checks that PyTorch makes of its own tensors.

    Schemas::

        aten::_assert_tensor_metadata(Tensor a, SymInt[]? size=None, SymInt[]? stride=None, ScalarType? dtype=None, *,
            Device? device=None, Layout? layout=None) -> ()
        aten::_assert_async.msg(Tensor self, str assert_msg) -> ()
        aten::sym_constrain_range_for_size(Scalar size, *, int? min=None, int? max=None) -> ()
        aten::sym_constrain_range(Scalar size, *, int? min=None, int? max=None) -> ()
    """
