"""Operators that work element by element: arithmetic, functions, comparisons, choices, casts."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_pipeline.layers.activations import ACTIVATIONS
from tf_pipeline.port.rules.registry import Number, constant, promote, rule

# ------------------------------------------------------------------------------------------------------- arithmetic


def _binary(function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], *operators: str) -> None:
    """A rule whose operands are cast to the dtype of the result first."""

    def compute(x: Number, other: Number, *, out_dtype: tf.DType) -> tf.Tensor:
        return function(constant(x, out_dtype), constant(other, out_dtype))

    rule(*operators)(compute)


_binary(tf.multiply, "mul.Tensor", "mul.Scalar", "multiply.Tensor", "multiply.Scalar")
_binary(tf.minimum, "minimum.default", "min.other", "fmin.default")
_binary(tf.maximum, "maximum.default", "max.other", "fmax.default")
_binary(tf.math.xlogy, "xlogy.Tensor", "xlogy.Scalar_Other")
_binary(tf.math.atan2, "atan2.default")


@rule("add.Tensor", "add.Scalar")
def add(x: Number, other: Number, alpha: Number = 1, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x + alpha * other``; of booleans, whether either is true.

    Schemas::

        aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
        aten::add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
    """
    x, other = constant(x, out_dtype), constant(other, out_dtype)
    if out_dtype.is_bool:
        return x | other
    return x + (other if alpha == 1 else other * constant(alpha, out_dtype))


@rule("sub.Tensor", "sub.Scalar")
def sub(x: Number, other: Number, alpha: Number = 1, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x - alpha * other``.

    Schemas::

        aten::sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
        aten::sub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
    """
    x, other = constant(x, out_dtype), constant(other, out_dtype)
    return x - (other if alpha == 1 else other * constant(alpha, out_dtype))


@rule("rsub.Scalar", "rsub.Tensor")
def rsub(x: tf.Tensor, other: Number, alpha: Number = 1, *, out_dtype: tf.DType) -> tf.Tensor:
    """``other - alpha * x``.

    Schemas::

        aten::rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
        aten::rsub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
    """
    return sub(other, x, alpha, out_dtype=out_dtype)


@rule("div.Tensor", "div.Scalar", "true_divide.Tensor")
def div(x: Number, other: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x / other``, a float.

    Schemas::

        aten::div.Tensor(Tensor self, Tensor other) -> Tensor
        aten::div.Scalar(Tensor self, Scalar other) -> Tensor
        aten::true_divide.Tensor(Tensor self, Tensor other) -> Tensor
    """
    return _divide(constant(x, out_dtype), other)


def _divide(x: tf.Tensor, other: Number) -> tf.Tensor:
    """``x / other`` as it is written.

    TensorFlow's graph optimizer multiplies by the reciprocal of a constant instead, which rounds differently; where the
    quotient becomes a bucket of distances, as in T5, the bucket may then be another.
    """
    divisor = constant(other, x.dtype)
    if tf.is_tensor(other) or other == 0 or not x.dtype.is_floating:
        return x / divisor
    return tf.math.divide_no_nan(x, divisor)


@rule("div.Tensor_mode", "div.Scalar_mode")
def div_mode(x: Number, other: Number, rounding_mode: str | None = None, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x / other``, rounded down (``"floor"``) or towards zero (``"trunc"``).

    Schemas::

        aten::div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor
        aten::div.Scalar_mode(Tensor self, Scalar other, *, str? rounding_mode) -> Tensor
    """
    x, divisor = constant(x, out_dtype), other
    if out_dtype.is_floating or rounding_mode is None:
        quotient = _divide(x, divisor)
        return {"floor": tf.floor, "trunc": _truncate, None: tf.identity}[rounding_mode](quotient)
    other = constant(divisor, out_dtype)
    return tf.math.floordiv(x, other) if rounding_mode == "floor" else tf.truncatediv(x, other)


@rule("floor_divide.default", "floor_divide.Scalar")
def floor_divide(x: Number, other: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x / other`` rounded down.

    Schemas::

        aten::floor_divide(Tensor self, Tensor other) -> Tensor
        aten::floor_divide.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return div_mode(x, other, "floor", out_dtype=out_dtype)


@rule("remainder.Scalar", "remainder.Tensor", "remainder.Scalar_Tensor")
def remainder(x: Number, other: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """The remainder with the sign of ``other``.

    Schemas::

        aten::remainder.Scalar(Tensor self, Scalar other) -> Tensor
        aten::remainder.Tensor(Tensor self, Tensor other) -> Tensor
        aten::remainder.Scalar_Tensor(Scalar self, Tensor other) -> Tensor
    """
    return tf.math.floormod(constant(x, out_dtype), constant(other, out_dtype))


@rule("fmod.Scalar", "fmod.Tensor")
def fmod(x: Number, other: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """The remainder with the sign of ``x``.

    Schemas::

        aten::fmod.Scalar(Tensor self, Scalar other) -> Tensor
        aten::fmod.Tensor(Tensor self, Tensor other) -> Tensor
    """
    x, other = constant(x, out_dtype), constant(other, out_dtype)
    return x - _truncate(x / other) * other if out_dtype.is_floating else x - tf.truncatediv(x, other) * other


@rule("pow.Scalar")
def power_of_number(base: Number, exponent: tf.Tensor, *, out_dtype: tf.DType) -> tf.Tensor:
    """``base ** exponent``: frequencies of positions, whose error grows with the position; rounded once for that.

    Schema::

        aten::pow.Scalar(Scalar self, Tensor exponent) -> Tensor
    """
    return tf.pow(constant(base, tf.float64), tf.cast(exponent, tf.float64))


@rule("pow.Tensor_Scalar", "pow.Tensor_Tensor")
def power(x: Number, exponent: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x ** exponent``; small whole exponents are products, as exact as PyTorch's.

    Schemas::

        aten::pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor
        aten::pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor
    """
    simple = {2: tf.square, 3: lambda v: v * v * v, 0.5: tf.sqrt, -0.5: tf.math.rsqrt, -1: _reciprocal}
    if isinstance(exponent, (int, float)) and exponent in simple and out_dtype.is_floating:
        return simple[exponent](constant(x, out_dtype))
    return tf.pow(constant(x, out_dtype), constant(exponent, out_dtype))


@rule("addcmul.default")
def addcmul(x: tf.Tensor, first: tf.Tensor, second: tf.Tensor, value: Number = 1, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x + value * first * second``.

    Schema::

        aten::addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor
    """
    x, first, second = (tf.cast(v, out_dtype) for v in (x, first, second))
    return x + constant(value, out_dtype) * first * second


@rule("addcdiv.default")
def addcdiv(x: tf.Tensor, first: tf.Tensor, second: tf.Tensor, value: Number = 1, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x + value * first / second``.

    Schema::

        aten::addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor
    """
    x, first, second = (tf.cast(v, out_dtype) for v in (x, first, second))
    return x + constant(value, out_dtype) * first / second


@rule("lerp.Scalar", "lerp.Tensor")
def lerp(x: tf.Tensor, end: tf.Tensor, weight: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """From ``x`` towards ``end`` by ``weight``.

    Schemas::

        aten::lerp.Scalar(Tensor self, Tensor end, Scalar weight) -> Tensor
        aten::lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor
    """
    x, end = tf.cast(x, out_dtype), tf.cast(end, out_dtype)
    return x + constant(weight, out_dtype) * (end - x)


# -------------------------------------------------------------------------------------------------------- functions


def _unary(function: Callable[[tf.Tensor], tf.Tensor], *operators: str) -> None:
    """A rule for a function of one tensor; integers are taken as floats where the result is one."""

    def compute(x: tf.Tensor, *, out_dtype: tf.DType) -> tf.Tensor:
        return function(tf.cast(x, out_dtype) if out_dtype.is_floating else x)

    rule(*operators)(compute)


def _wide(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Half precision is computed in float32 and rounded once, as PyTorch's kernels do."""

    def compute(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(function(tf.cast(x, tf.float32)), x.dtype) if x.dtype.size < 4 else function(x)

    return compute


def _reciprocal(x: tf.Tensor) -> tf.Tensor:
    """``1 / x`` by division: TensorFlow's own reciprocal of 1 is 0.99999994 in float32."""
    return constant(1, x.dtype) / x


def _truncate(x: tf.Tensor) -> tf.Tensor:
    return tf.where(x < 0, tf.math.ceil(x), tf.floor(x)) if x.dtype.is_floating else x


for _name, _function in {
    "neg": tf.negative, "abs": tf.abs, "sign": tf.sign, "sgn": tf.sign, "reciprocal": _reciprocal,
    "sqrt": tf.sqrt, "rsqrt": _wide(tf.math.rsqrt), "square": tf.square, "exp": tf.exp, "expm1": tf.math.expm1,
    "exp2": _wide(lambda x: tf.exp(x * constant(math.log(2.0), x.dtype))), "log": tf.math.log, "log1p": tf.math.log1p,
    "log2": _wide(lambda x: tf.math.log(x) / constant(math.log(2.0), x.dtype)),
    "log10": _wide(lambda x: tf.math.log(x) / constant(math.log(10.0), x.dtype)),
    "sin": tf.sin, "cos": tf.cos, "tan": tf.tan, "asin": tf.asin, "acos": tf.acos, "atan": tf.atan,
    "sinh": tf.sinh, "cosh": tf.cosh, "tanh": tf.tanh, "asinh": tf.asinh, "acosh": tf.acosh, "atanh": tf.atanh,
    "sigmoid": tf.sigmoid, "erf": tf.math.erf, "erfc": tf.math.erfc, "erfinv": tf.math.erfinv,
    "lgamma": tf.math.lgamma, "digamma": tf.math.digamma,
    "floor": tf.floor, "ceil": tf.math.ceil, "round": tf.round, "trunc": _truncate, "fix": _truncate,
    "relu": tf.nn.relu, "relu6": tf.nn.relu6, "log_sigmoid": _wide(tf.math.log_sigmoid),
    "silu": _wide(ACTIVATIONS["silu"]), "mish": _wide(ACTIVATIONS["mish"]),
    "hardsigmoid": lambda x: tf.nn.relu6(x + constant(3.0, x.dtype)) / constant(6.0, x.dtype),
    "hardswish": lambda x: x * tf.nn.relu6(x + constant(3.0, x.dtype)) / constant(6.0, x.dtype),
}.items():  # fmt: skip
    _unary(_function, f"{_name}.default")


@rule("gelu.default")
def gelu(x: tf.Tensor, approximate: str = "none") -> tf.Tensor:
    """GELU (https://arxiv.org/abs/1606.08415): with erf, or ``"tanh"``.

    Schema::

        aten::gelu(Tensor self, *, str approximate="none") -> Tensor
    """
    return ACTIVATIONS["gelu_pytorch_tanh" if approximate == "tanh" else "gelu"](x)


@rule("leaky_relu.default")
def leaky_relu(x: tf.Tensor, negative_slope: float = 0.01) -> tf.Tensor:
    """``x`` where positive, else ``negative_slope * x``.

    Schema::

        aten::leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor
    """
    return tf.where(x > 0, x, x * constant(negative_slope, x.dtype))


@rule("elu.default")
def elu(x: tf.Tensor, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> tf.Tensor:
    """``scale * x`` where positive, else ``scale * alpha * (exp(input_scale * x) - 1)``.

    Schema::

        aten::elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor
    """
    alpha, scale, input_scale = (constant(value, x.dtype) for value in (alpha, scale, input_scale))
    positive = x > 0
    negative = tf.math.expm1(tf.where(positive, tf.zeros_like(x), x) * input_scale)
    return tf.where(positive, x, alpha * negative) * scale


@rule("selu.default")
def selu(x: tf.Tensor) -> tf.Tensor:
    """Scaled ELU (https://arxiv.org/abs/1706.02515).

    Schema::

        aten::selu(Tensor self) -> Tensor
    """
    return elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@rule("celu.default")
def celu(x: tf.Tensor, alpha: float = 1.0) -> tf.Tensor:
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)``.

    Schema::

        aten::celu(Tensor self, Scalar alpha=1.) -> Tensor
    """
    return elu(x, alpha, 1, 1 / alpha)


@rule("softplus.default")
def softplus(x: tf.Tensor, beta: Number = 1, threshold: Number = 20) -> tf.Tensor:
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x`` exceeds ``threshold``.

    Schema::

        aten::softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor
    """
    scaled = x * constant(beta, x.dtype)
    linear = scaled > constant(threshold, x.dtype)
    safe = tf.where(linear, tf.zeros_like(x), scaled)
    return tf.where(linear, x, _wide(tf.math.softplus)(safe) / constant(beta, x.dtype))


@rule("logit.default")
def logit(x: tf.Tensor, eps: float | None = None) -> tf.Tensor:
    """``log(x / (1 - x))``, with ``x`` kept ``eps`` away from 0 and 1.

    Schema::

        aten::logit(Tensor self, float? eps=None) -> Tensor
    """
    if eps is not None:
        x = tf.clip_by_value(x, constant(eps, x.dtype), constant(1 - eps, x.dtype))
    return tf.math.log(x / (constant(1, x.dtype) - x))


@rule("threshold.default")
def threshold(x: tf.Tensor, threshold: Number, value: Number) -> tf.Tensor:
    """``x`` where it exceeds ``threshold``, else ``value``.

    Schema::

        aten::threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor
    """
    return tf.where(x > constant(threshold, x.dtype), x, constant(value, x.dtype))


@rule("clamp.default", "clamp.Tensor", "clip.default", "hardtanh.default")
def clamp(x: tf.Tensor, min: Number | None = None, max: Number | None = None, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x`` kept between ``min`` and ``max``; ``max`` wins if they cross.

    Schemas::

        aten::clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor
        aten::clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor
        aten::clip(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor
        aten::hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor
    """
    x = tf.cast(x, out_dtype)
    if min is not None:
        x = tf.maximum(x, constant(min, out_dtype))
    return x if max is None else tf.minimum(x, constant(max, out_dtype))


@rule("clamp_min.default", "clamp_min.Tensor")
def clamp_min(x: tf.Tensor, min: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x`` but at least ``min``.

    Schemas::

        aten::clamp_min(Tensor self, Scalar min) -> Tensor
        aten::clamp_min.Tensor(Tensor self, Tensor min) -> Tensor
    """
    return clamp(x, min, out_dtype=out_dtype)


@rule("clamp_max.default", "clamp_max.Tensor")
def clamp_max(x: tf.Tensor, max: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x`` but at most ``max``.

    Schemas::

        aten::clamp_max(Tensor self, Scalar max) -> Tensor
        aten::clamp_max.Tensor(Tensor self, Tensor max) -> Tensor
    """
    return clamp(x, None, max, out_dtype=out_dtype)


@rule("nan_to_num.default")
def nan_to_num(
    x: tf.Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> tf.Tensor:
    """``x`` with NaN and the infinities replaced, by default by 0 and the dtype's limits.

    Schema::

        aten::nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor
    """
    x = tf.where(tf.math.is_nan(x), constant(nan or 0.0, x.dtype), x)
    high = constant(x.dtype.max if posinf is None else posinf, x.dtype)
    low = constant(x.dtype.min if neginf is None else neginf, x.dtype)
    return tf.where(tf.math.is_inf(x), tf.where(x > 0, high, low), x)


# --------------------------------------------------------------------------------------------- comparison and logic


def _comparison(function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], name: str) -> None:
    def compute(x: Number, other: Number) -> tf.Tensor:
        return function(*promote(x, other))

    rule(f"{name}.Tensor", f"{name}.Scalar")(compute)


def _ordered(function: Callable) -> Callable:
    """Booleans have no order in TensorFlow."""

    def compute(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        return function(*(tf.cast(v, tf.int32) if v.dtype.is_bool else v for v in (x, other)))

    return compute


_comparison(tf.equal, "eq")
_comparison(tf.not_equal, "ne")
for _name, _function in {"lt": tf.less, "le": tf.less_equal, "gt": tf.greater, "ge": tf.greater_equal}.items():
    _comparison(_ordered(_function), _name)


def _truth(x: Number) -> tf.Tensor:
    x = x if tf.is_tensor(x) else tf.constant(x)
    return x if x.dtype.is_bool else tf.not_equal(x, tf.zeros([], x.dtype))


def _logic(on_bool: Callable, on_integer: Callable | None, *operators: str) -> None:
    """A rule for booleans, and bit by bit for integers."""

    def compute(x: Number, other: Number) -> tf.Tensor:
        x, other = promote(x, other)
        return on_bool(x, other) if x.dtype.is_bool else on_integer(x, other)

    rule(*operators)(compute)


for _name, _on_bool, _on_integer in (
    ("and", tf.logical_and, tf.bitwise.bitwise_and),
    ("or", tf.logical_or, tf.bitwise.bitwise_or),
    ("xor", tf.math.logical_xor, tf.bitwise.bitwise_xor),
):
    _logic(_on_bool, _on_integer, f"bitwise_{_name}.Tensor", f"bitwise_{_name}.Scalar", f"__{_name}__.Tensor",
           f"__{_name}__.Scalar")  # fmt: skip
    rule(f"logical_{_name}.default")(lambda x, other, function=_on_bool: function(_truth(x), _truth(other)))


@rule("bitwise_not.default")
def bitwise_not(x: tf.Tensor) -> tf.Tensor:
    """The opposite of a boolean, the complement of an integer.

    Schema::

        aten::bitwise_not(Tensor self) -> Tensor
    """
    return tf.logical_not(x) if x.dtype.is_bool else tf.bitwise.invert(x)


@rule("bitwise_left_shift.Tensor_Scalar", "bitwise_left_shift.Tensor", "__lshift__.Scalar", "__lshift__.Tensor")
def left_shift(x: tf.Tensor, other: Number) -> tf.Tensor:
    """``x`` shifted left by ``other`` bits.

    Schemas::

        aten::bitwise_left_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor
        aten::bitwise_left_shift.Tensor(Tensor self, Tensor other) -> Tensor
        aten::__lshift__.Scalar(Tensor self, Scalar other) -> Tensor
        aten::__lshift__.Tensor(Tensor self, Tensor other) -> Tensor
    """
    return tf.bitwise.left_shift(*promote(x, other))


@rule("bitwise_right_shift.Tensor_Scalar", "bitwise_right_shift.Tensor", "__rshift__.Scalar", "__rshift__.Tensor")
def right_shift(x: tf.Tensor, other: Number) -> tf.Tensor:
    """``x`` shifted right by ``other`` bits.

    Schemas::

        aten::bitwise_right_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor
        aten::bitwise_right_shift.Tensor(Tensor self, Tensor other) -> Tensor
        aten::__rshift__.Scalar(Tensor self, Scalar other) -> Tensor
        aten::__rshift__.Tensor(Tensor self, Tensor other) -> Tensor
    """
    return tf.bitwise.right_shift(*promote(x, other))


@rule("logical_not.default")
def logical_not(x: tf.Tensor) -> tf.Tensor:
    """Whether ``x`` is zero.

    Schema::

        aten::logical_not(Tensor self) -> Tensor
    """
    return tf.logical_not(_truth(x))


@rule("isnan.default")
def isnan(x: tf.Tensor) -> tf.Tensor:
    """Whether ``x`` is NaN.

    Schema::

        aten::isnan(Tensor self) -> Tensor
    """
    return tf.math.is_nan(x) if x.dtype.is_floating else tf.zeros_like(x, tf.bool)


@rule("isinf.default")
def isinf(x: tf.Tensor) -> tf.Tensor:
    """Whether ``x`` is infinite.

    Schema::

        aten::isinf(Tensor self) -> Tensor
    """
    return tf.math.is_inf(x) if x.dtype.is_floating else tf.zeros_like(x, tf.bool)


@rule("isfinite.default")
def isfinite(x: tf.Tensor) -> tf.Tensor:
    """Whether ``x`` is neither NaN nor infinite.

    Schema::

        aten::isfinite(Tensor self) -> Tensor
    """
    return tf.math.is_finite(x) if x.dtype.is_floating else tf.ones_like(x, tf.bool)


# ------------------------------------------------------------------------------------------------- choices and casts


@rule("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def where(condition: tf.Tensor, x: Number, other: Number, *, out_dtype: tf.DType) -> tf.Tensor:
    """``x`` where ``condition``, else ``other``.

    Schemas::

        aten::where.self(Tensor condition, Tensor self, Tensor other) -> Tensor
        aten::where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor
        aten::where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor
        aten::where.Scalar(Tensor condition, Scalar self, Scalar other) -> Tensor
    """
    return tf.where(_truth(condition), constant(x, out_dtype), constant(other, out_dtype))


@rule("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(x: tf.Tensor, mask: tf.Tensor, value: Number) -> tf.Tensor:
    """``x`` with ``value`` where ``mask``.

    Schemas::

        aten::masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor
        aten::masked_fill.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor
    """
    return tf.where(_truth(mask), constant(value, x.dtype), x)


@rule("_to_copy.default", "to.dtype", "to.dtype_layout", "to.device", "to.other", "type_as.default")
def to_dtype(x: tf.Tensor, *_: Any, out_dtype: tf.DType, **__: Any) -> tf.Tensor:
    """``x`` in another dtype.

    Schemas::

        aten::_to_copy(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None, bool non_blocking=False, MemoryFormat? memory_format=None) -> Tensor
        aten::to.dtype(Tensor(a) self, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat?
            memory_format=None) -> Tensor(a)
        aten::to.dtype_layout(Tensor(a) self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a)
        aten::to.device(Tensor(a) self, Device device, ScalarType dtype, bool non_blocking=False, bool copy=False,
            MemoryFormat? memory_format=None) -> Tensor(a)
        aten::to.other(Tensor(a) self, Tensor other, bool non_blocking=False, bool copy=False, MemoryFormat?
            memory_format=None) -> Tensor(a)
        aten::type_as(Tensor self, Tensor other) -> Tensor
    """
    return cast(x, out_dtype)


def cast(x: Number, dtype: tf.DType) -> tf.Tensor:
    """A cast as PyTorch's: numbers other than zero are true."""
    return _truth(x) if dtype.is_bool else constant(x, dtype)


@rule(
    "clone.default", "alias.default", "contiguous.default", "detach_.default", "lift_fresh_copy.default",
    "lift_fresh.default", "lift.default", "positive.default", "conj_physical.default", "resolve_conj.default",
    "resolve_neg.default",
)  # fmt: skip
def identity(x: tf.Tensor, *_: Any, **__: Any) -> tf.Tensor:
    """``x`` itself.

    Schemas::

        aten::clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor
        aten::alias(Tensor(a) self) -> Tensor(a)
        aten::contiguous(Tensor(a) self, *, MemoryFormat memory_format=0) -> Tensor(a)
        aten::detach_(Tensor(a!) self) -> Tensor(a!)
        aten::lift_fresh_copy(Tensor self) -> Tensor
        aten::lift_fresh(Tensor(a) self) -> Tensor(a)
        aten::lift(Tensor self) -> Tensor
        aten::positive(Tensor(a) self) -> Tensor(a)
        aten::conj_physical(Tensor self) -> Tensor
        aten::resolve_conj(Tensor(a) self) -> Tensor(a)
        aten::resolve_neg(Tensor(a) self) -> Tensor(a)
    """
    return x


@rule("detach.default")
def detach(x: tf.Tensor) -> tf.Tensor:
    """``x`` without its gradient.

    Schema::

        aten::detach(Tensor(a) self) -> Tensor(a)
    """
    return tf.stop_gradient(x)


@rule("copy.default")
def copy(x: tf.Tensor, source: tf.Tensor, non_blocking: bool = False) -> tf.Tensor:
    """``source`` in the shape and dtype of ``x``.

    Schema::

        aten::copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor
    """
    return tf.broadcast_to(cast(source, x.dtype), tf.shape(x))
