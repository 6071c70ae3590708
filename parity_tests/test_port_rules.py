"""Every rule against PyTorch's own operator: values and gradients, over shapes, dtypes, broadcasting, negative axes.

Each operator has a case: a function that draws arguments. The rule runs on tensors whose axes are all known, and again
in a graph whose axes are all open.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from parity_tests.tiers import exhaustive
from tf_pipeline.port.rules import RULES


def examples(count: int) -> settings:
    """Settings for so many examples, the same every time."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


FEW = 2
MANY_OR_FEW = pytest.mark.parametrize("count", exhaustive([FEW, 8], [FEW]))
FLOATS = ("float64", "float32")
TOLERANCE = {
    "float64": 1e-12,
    "complex128": 1e-12,
    "float32": 2e-6,
    "complex64": 2e-6,
    "bfloat16": 2e-2,
    "float16": 2e-3,
}


class Draw:
    """Draws arguments."""

    def __init__(self, data: Any):
        self.draw = data.draw
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**16)))

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def choice(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def shape(self, low: int = 0, high: int = 4, least: int = 0) -> tuple[int, ...]:
        return tuple(self.draw(st.lists(st.integers(least, 4), min_size=low, max_size=high)))

    def float(
        self, shape: tuple[int, ...], low: float = -2.0, high: float = 2.0, dtype: str | None = None
    ) -> np.ndarray:
        return self.rng.uniform(low, high, shape).astype(dtype or self.choice(*FLOATS))

    def int(self, shape: tuple[int, ...], low: int = -5, high: int = 5) -> np.ndarray:
        return self.rng.integers(low, high, shape)

    def bool(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.random(shape) < 0.5

    def any(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.choice(self.float, self.int, self.bool)(shape)

    def distinct(self, shape: tuple[int, ...], dtype: str | None = None) -> np.ndarray:
        """Floats no two of which are equal, so that an order is the only one."""
        numbers = self.rng.permutation(math.prod(shape)).reshape(shape) / 7.0 - 1.0
        return np.asarray(numbers, dtype or self.choice(*FLOATS))

    def axis(self, x: np.ndarray) -> int:
        return self.integer(-x.ndim, x.ndim - 1) if x.ndim else self.choice(-1, 0)

    def pair(self, kind: str = "float", **limits: float) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays whose shapes broadcast."""
        shape = self.shape()
        other = tuple(1 if self.choice(True, False, False) else size for size in shape)[self.integer(0, len(shape)) :]
        shapes = (shape, other) if self.choice(True, False) else (other, shape)
        if kind != "float":
            return tuple(getattr(self, kind)(s) for s in shapes)
        dtype = self.choice(*FLOATS)
        return tuple(self.float(s, dtype=dtype, **limits) for s in shapes)


Case = Callable[[Draw], tuple[list[Any], dict[str, Any]] | list[Any]]
CASES: dict[str, Case] = {}
# Operators without a gradient worth comparing: whole numbers, orders, steps, and what PyTorch does not differentiate.
NO_GRADIENT: set[str] = set()


def case(*names: str, gradient: bool = True) -> Callable[[Case], Case]:
    def register(function: Case) -> Case:
        for name in names:
            CASES[f"aten.{name}"] = function
            if not gradient:
                NO_GRADIENT.add(f"aten.{name}")
        return function

    return register


# ------------------------------------------------------------------------------------------------------- elementwise

for _names, _low, _high in (
    (
        (
            "neg",
            "abs",
            "sgn",
            "square",
            "exp",
            "expm1",
            "exp2",
            "sin",
            "cos",
            "tan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "sigmoid",
            "erf",
            "erfc",
            "silu",
            "mish",
            "log_sigmoid",
            "relu",
            "atan",
            "hardswish",
            "relu6",
            "selu",
            "positive",
            "clone",
            "alias",
            "contiguous",
        ),
        -2.0,
        2.0,
    ),
    (("reciprocal", "sqrt", "rsqrt", "log", "log2", "log10", "log1p", "lgamma"), 0.1, 3.0),
    (("asin", "acos", "atanh", "erfinv"), -0.9, 0.9),
    (("acosh",), 1.1, 3.0),
):
    for _name in _names:
        case(f"{_name}.default")(lambda d, low=_low, high=_high: [d.float(d.shape(), low, high)])
for _name in (
    "sign",
    "floor",
    "ceil",
    "round",
    "trunc",
    "fix",
    "detach",
    "detach_",
    "conj_physical",
    "lift",
    "lift_fresh",
    "lift_fresh_copy",
    "resolve_conj",
    "resolve_neg",
):
    case(f"{_name}.default", gradient=False)(lambda d: [d.float(d.shape(), -5, 5)])
# PyTorch's own gradients are less exact here: 1/6 in float32, and a short series.
case("hardsigmoid.default", gradient=False)(lambda d: [d.float(d.shape(), -5, 5)])
case("digamma.default", gradient=False)(lambda d: [d.float(d.shape(), 0.1, 3)])
for _name in ("isnan", "isinf", "isfinite"):
    case(f"{_name}.default", gradient=False)(
        lambda d: [np.where(d.bool(s := d.shape()), d.choice(np.nan, np.inf, -np.inf), d.float(s))]
    )
for _name in ("sigmoid", "sqrt", "rsqrt", "exp", "log", "tanh", "cos"):  # whole numbers become floats

    @case(f"{_name}.default#int", gradient=False)
    def _(d):
        return [d.int(d.shape(), 1, 9)]


for _name in ("add", "sub", "rsub"):
    case(f"{_name}.Tensor")(lambda d: ([*d.pair()], {"alpha": d.choice(1, 2)}))
    case(f"{_name}.Scalar")(lambda d: [d.any(d.shape(1)) * 1, d.choice(2, 0.5)])
for _name in ("mul", "multiply"):
    case(f"{_name}.Tensor")(lambda d: [*d.pair()])
    case(f"{_name}.Scalar")(lambda d: [d.any(d.shape(1)), d.choice(2, 0.5)])
for _name in ("div", "true_divide"):
    case(f"{_name}.Tensor")(lambda d: [*d.pair(low=0.5)])
for _name in (
    "minimum.default",
    "maximum.default",
    "min.other",
    "max.other",
    "fmin.default",
    "fmax.default",
    "atan2.default",
):
    case(_name)(lambda d: [*d.pair()])
case("div.Scalar")(lambda d: [d.any(d.shape()), d.choice(3, 0.7)])
case("add.Tensor#bool", gradient=False)(lambda d: [*d.pair("bool")])
case("mul.Tensor#mixed")(lambda d: [d.float((2, 3)), d.int((3,))])
case("add.Tensor#scalar")(lambda d: [d.float((2, 3), dtype="float32"), np.asarray(0.3)])
case("div.Tensor#int", gradient=False)(lambda d: [d.int(s := d.shape()), d.int(s, 1, 5)])
_MODES = ("floor", "trunc", None)
case("div.Tensor_mode", gradient=False)(lambda d: ([*d.pair(low=0.5)], {"rounding_mode": d.choice(*_MODES)}))
case("div.Tensor_mode#int", gradient=False)(
    lambda d: ([d.int(s := d.shape(), -9, 9), d.int(s, 1, 4)], {"rounding_mode": d.choice("floor", "trunc")})
)
case("div.Scalar_mode", gradient=False)(
    lambda d: (
        [d.choice(d.float, d.int)(d.shape(), -9, 9), d.choice(2, -3)],
        {"rounding_mode": d.choice("floor", "trunc")},
    )
)
for _name in ("floor_divide.default", "remainder.Tensor", "fmod.Tensor"):
    case(_name, gradient=False)(lambda d: [*d.pair(low=0.5)])
    case(f"{_name}#int", gradient=False)(lambda d: [d.int(s := d.shape(), -9, 9), d.int(s, 1, 4)])
for _name in ("floor_divide.Scalar", "remainder.Scalar", "fmod.Scalar"):
    case(_name, gradient=False)(lambda d: [d.choice(d.float, d.int)(d.shape(), -9, 9), d.choice(2, -3)])
case("remainder.Scalar_Tensor", gradient=False)(lambda d: [7, d.int(d.shape(), 1, 5)])
case("pow.Tensor_Scalar")(lambda d: [d.float(d.shape(), 0.2, 2), d.choice(2, 3, 0.5, -0.5, -1, 1.7, 2.0)])
case("pow.Tensor_Scalar#int", gradient=False)(lambda d: [d.int(d.shape()), d.choice(2, 3)])
case("pow.Tensor_Tensor")(lambda d: [*d.pair(low=0.2)])
case("pow.Scalar")(lambda d: [d.choice(2, 0.5, 10000.0), d.float(d.shape())])
case("xlogy.Tensor")(lambda d: [*d.pair(low=0.2)])
case("xlogy.Scalar_Other")(lambda d: [d.float(d.shape()), 0.7])
for _name in ("addcmul", "addcdiv"):
    case(f"{_name}.default")(
        lambda d: (
            [d.float((2, 3), dtype="float64"), d.float((3,), 1, 2, "float64"), d.float((2, 1), 1, 2, "float64")],
            {"value": d.choice(1, 0.5)},
        )
    )
case("lerp.Scalar")(lambda d: [*d.pair(), 0.3])
case("lerp.Tensor")(lambda d: [d.float((2, 3), dtype="float64") for _ in range(3)])
case("gelu.default")(lambda d: ([d.float(d.shape())], {"approximate": d.choice("none", "tanh")}))
case("leaky_relu.default")(lambda d: [d.float(d.shape()), d.choice(0.01, 0.3)])
case("elu.default")(lambda d: [d.float(d.shape()), 1.3, 0.9, 0.8])
case("celu.default")(lambda d: [d.float(d.shape()), d.choice(1.0, 0.5)])
case("softplus.default")(lambda d: [d.float(d.shape(), -30, 30), d.choice(1, 2), d.choice(20, 5)])
case("logit.default")(lambda d: [d.float(d.shape(), 0.1, 0.9), d.choice(None, 0.2)])
case("threshold.default")(lambda d: [d.float(d.shape()), 0.2, -1.0])
for _name in ("clamp", "clip"):
    case(f"{_name}.default")(lambda d: [d.float(d.shape()), d.choice(None, -0.5), 0.7])
case("clamp.default#int", gradient=False)(lambda d: [d.int(d.shape()), -2, d.choice(None, 3)])
case("hardtanh.default")(lambda d: [d.float(d.shape()), -0.5, 0.7])
case("clamp.Tensor")(lambda d: [d.float((2, 3), dtype="float64"), np.asarray(-0.5), d.float((3,), 0, 1, "float64")])
for _name, _bound in (("clamp_min", -0.3), ("clamp_max", 0.3)):
    case(f"{_name}.default")(lambda d, bound=_bound: [d.float(d.shape()), bound])
    case(f"{_name}.Tensor")(lambda d, bound=_bound: [d.float((2, 3), dtype="float64"), np.full((3,), bound)])
case("nan_to_num.default", gradient=False)(
    lambda d: [
        np.where(d.bool((4, 4)), d.choice(np.nan, np.inf, -np.inf), d.float((4, 4), dtype="float32")),
        d.choice(None, 1.0),
        d.choice(None, 5.0),
        None,
    ]
)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    case(f"{_name}.Tensor", gradient=False)(lambda d: [*d.pair(d.choice("int", "bool", "float"))])
    case(f"{_name}.Scalar", gradient=False)(lambda d: [d.choice(d.int, d.float)(d.shape()), d.choice(1, 0.5)])
for _name in ("and", "or", "xor"):
    for _operator in (f"bitwise_{_name}", f"__{_name}__"):
        case(f"{_operator}.Tensor", gradient=False)(lambda d: [*d.pair(d.choice("int", "bool"))])
        case(f"{_operator}.Scalar", gradient=False)(lambda d: [d.int(d.shape()), 3])
    case(f"logical_{_name}.default", gradient=False)(lambda d: [*d.pair(d.choice("int", "bool"))])
case("bitwise_not.default", gradient=False)(lambda d: [d.choice(d.int, d.bool)(d.shape())])
case("logical_not.default", gradient=False)(lambda d: [d.any(d.shape())])
for _name in ("bitwise_left_shift", "bitwise_right_shift"):
    case(f"{_name}.Tensor", gradient=False)(lambda d: [d.int((3,)), d.int((3,), 0, 3)])
    case(f"{_name}.Tensor_Scalar", gradient=False)(lambda d: [d.int(d.shape()), 2])
for _name in ("__lshift__", "__rshift__"):
    case(f"{_name}.Tensor", gradient=False)(lambda d: [d.int((3,)), d.int((3,), 0, 3)])
    case(f"{_name}.Scalar", gradient=False)(lambda d: [d.int(d.shape()), 2])
case("where.self")(lambda d: [d.bool((s := d.shape())[-1:]), *(d.float(s, dtype="float32") for _ in range(2))])
case("where.ScalarOther")(lambda d: [d.bool(s := d.shape()), d.float(s), d.choice(0.5, 1)])
case("where.ScalarSelf")(lambda d: [d.bool(s := d.shape()), 0.5, d.float(s)])
case("where.Scalar", gradient=False)(lambda d: [d.bool(d.shape()), 0.5, 2.0])
case("masked_fill.Scalar")(lambda d: [d.float(s := d.shape()), d.bool(s[-1:]), d.choice(0.5, -math.inf)])
case("masked_fill.Tensor")(lambda d: [d.float((2, 3), dtype="float32"), d.bool((2, 1)), np.asarray(0.5, "float32")])
case("_to_copy.default", gradient=False)(
    lambda d: ([d.any(d.shape())], {"dtype": d.choice(torch.float32, torch.int64, torch.bool, torch.float64)})
)
case("to.dtype", gradient=False)(lambda d: [d.any(d.shape()), d.choice(torch.float32, torch.int64, torch.bool)])
case("to.dtype_layout", gradient=False)(lambda d: ([d.any(d.shape())], {"dtype": torch.float64}))
case("to.device", gradient=False)(lambda d: [d.any(d.shape()), torch.device("cpu"), torch.float32])
for _name in ("type_as.default", "to.other"):
    case(_name, gradient=False)(lambda d: [d.any(s := d.shape()), d.any(s)])
case("copy.default", gradient=False)(lambda d: [d.float((2, 3), dtype="float64"), d.float((3,), dtype="float64")])


# ---------------------------------------------------------------------------------------------------------- reductions

for _name in ("sum", "mean"):
    case(f"{_name}.default")(lambda d: [d.float(d.shape())])
for _name, _overload in (("sum", "dim_IntList"), ("mean", "dim")):

    @case(f"{_name}.{_overload}")
    def _(d):
        x = d.float(d.shape(1))
        return [x, d.choice(None, [d.axis(x)], list(range(x.ndim))), d.choice(True, False)]


case("sum.default#int", gradient=False)(lambda d: [d.choice(d.int, d.bool)(d.shape())])
case("prod.default")(lambda d: [d.float(d.shape(), 0.5, 2)])
case("prod.dim_int")(lambda d: [x := d.float(d.shape(1), 0.5, 2), d.axis(x), d.choice(True, False)])
for _name in ("amax", "amin"):
    case(f"{_name}.default")(lambda d: [x := d.distinct(d.shape(1, least=1)), [d.axis(x)], d.choice(True, False)])
for _name in ("max", "min"):
    case(f"{_name}.default")(lambda d: [d.distinct(d.shape(least=1))])
    case(f"{_name}.dim")(lambda d: [x := d.distinct(d.shape(1, least=1)), d.axis(x), d.choice(True, False)])
for _name in ("argmax", "argmin"):
    case(f"{_name}.default", gradient=False)(
        lambda d: [x := d.distinct(d.shape(1, least=1)), d.choice(None, d.axis(x)), d.choice(True, False)]
    )
for _name in ("any", "all"):
    case(f"{_name}.default", gradient=False)(lambda d: [d.choice(d.bool, d.int)(d.shape())])
    case(f"{_name}.dim", gradient=False)(lambda d: [x := d.bool(d.shape(1)), d.axis(x), d.choice(True, False)])
    case(f"{_name}.dims", gradient=False)(lambda d: [x := d.bool(d.shape(1)), [d.axis(x)], d.choice(True, False)])
case("count_nonzero.default", gradient=False)(lambda d: [d.int(d.shape(), 0, 2)])
case("count_nonzero.dim_IntList", gradient=False)(lambda d: [x := d.int(d.shape(1), 0, 2), [d.axis(x)]])
for _name in ("var", "std"):
    case(f"{_name}.default")(lambda d: [d.float((3, 4)), d.choice(True, False)])
    case(f"{_name}.dim")(lambda d: [x := d.float((2, 3, 4)), [d.axis(x)], d.choice(True, False), d.choice(True, False)])
    case(f"{_name}.correction")(
        lambda d: (
            [x := d.float((2, 3, 4)), d.choice(None, [d.axis(x)])],
            {"correction": d.choice(None, 0, 1), "keepdim": d.choice(True, False)},
        )
    )
case("var_mean.correction")(lambda d: ([x := d.float((2, 3, 4)), [d.axis(x)]], {"correction": d.choice(0, 1)}))
case("logsumexp.default")(lambda d: [x := d.float(d.shape(1, least=1)), [d.axis(x)], d.choice(True, False)])
case("linalg_vector_norm.default")(
    lambda d: [
        x := d.float(d.shape(1, least=1), 0.5, 2),
        d.choice(2, 1, math.inf, 3),
        [d.axis(x)],
        d.choice(True, False),
    ]
)
case("norm.ScalarOpt_dim")(lambda d: [x := d.float(d.shape(1, least=1), 0.5, 2), d.choice(None, 2), [d.axis(x)]])
case("norm.Scalar")(lambda d: [d.float(d.shape(1, least=1), 0.5, 2)])
for _name in ("softmax", "log_softmax"):
    case(f"{_name}.int")(
        lambda d: ([x := d.float(d.shape(1, least=1)), d.axis(x)], {"dtype": d.choice(None, torch.float64)})
    )
    case(f"_{_name}.default")(lambda d: [x := d.float(d.shape(1, least=1)), d.axis(x), False])
for _name in ("cumsum", "cumprod"):
    case(f"{_name}.default")(lambda d: [x := d.float(d.shape(1), 0.5, 2), d.axis(x)])
case("cumsum.default#int", gradient=False)(lambda d: [x := d.choice(d.int, d.bool)(d.shape(1)), d.axis(x)])
case("logcumsumexp.default")(lambda d: [x := d.float(d.shape(1, least=1)), d.axis(x)])
case("cummax.default")(lambda d: [x := d.distinct(d.shape(1, least=1)), d.axis(x)])
case("sort.default")(lambda d: [x := d.distinct(d.shape(1)), d.axis(x), d.choice(True, False)])
case("sort.default#equals", gradient=False)(lambda d: [d.int((8,), 0, 1), 0, False])
case("sort.stable", gradient=False)(
    lambda d: ([x := d.int(d.shape(1), 0, 3)], {"stable": True, "dim": d.axis(x), "descending": d.choice(True, False)})
)
case("argsort.default", gradient=False)(lambda d: [x := d.distinct(d.shape(1)), d.axis(x), d.choice(True, False)])
case("argsort.stable", gradient=False)(lambda d: ([x := d.int(d.shape(1), 0, 3)], {"stable": True, "dim": d.axis(x)}))
case("topk.default")(lambda d: [x := d.distinct((3, 4, 5)), d.integer(1, 3), d.axis(x), d.choice(True, False)])
case("kthvalue.default")(lambda d: [x := d.distinct((3, 4)), d.integer(1, 3), d.axis(x), d.choice(True, False)])
case("histc.default", gradient=False)(lambda d: [d.float((20,), -1, 9), d.choice(4, 10), 0, 7])
case("histc.default#range", gradient=False)(lambda d: [d.float((20,)), 5])
case("bincount.default", gradient=False)(lambda d: [d.int((d.integer(0, 9),), 0, 5), None, d.choice(0, 8)])


# -------------------------------------------------------------------------------------------------------------- shapes


def _reshaped(d):
    x = d.float(d.shape(1, least=1))
    return [x, d.choice([-1], list(x.shape[::-1]), [1, -1], [x.size, 1])]


for _name in ("view", "reshape", "_unsafe_view", "view_copy"):
    case(f"{_name}.default")(_reshaped)
case("_reshape_alias.default", gradient=False)(lambda d: [d.float((2, 6)), [3, 4], [4, 1]])
case("view.default#empty", gradient=False)(lambda d: [d.float((0, 3)), [3, 0]])
case("view.dtype", gradient=False)(lambda d: [d.float((3,), dtype="float32"), torch.int32])
case("flatten.using_ints")(lambda d: [d.float((2, 3, 4)), d.choice(0, 1, -3), d.choice(-1, 1, 2)])
case("unflatten.int")(lambda d: [d.float((2, 6, 3)), d.choice(1, -2), [2, 3]])
case("squeeze.default")(lambda d: [d.float((2, 1, 3, 1))])
case("squeeze.dim")(lambda d: [x := d.float((2, 1, 3, 1)), d.axis(x)])
case("squeeze.dims")(lambda d: [d.float((2, 1, 3, 1)), d.choice([1, 3], [-1], [0, 1])])
case("unsqueeze.default")(lambda d: [x := d.float(d.shape()), d.integer(-x.ndim - 1, x.ndim)])
for _name in ("expand", "expand_copy", "broadcast_to"):
    case(f"{_name}.default")(lambda d: [d.float((2, 1, 3)), d.choice([2, 4, 3], [5, -1, 4, -1], [2, 1, 3])])
case("expand_as.default")(lambda d: [d.float((1, 3), dtype="float64"), d.float((2, 3), dtype="float64")])
case("broadcast_tensors.default")(lambda d: [[d.float((2, 1), dtype="float64"), d.float((3,), dtype="float64")]])
case("meshgrid.default")(lambda d: [[d.float((2,), dtype="float64"), d.float((3,), dtype="float64")]])
case("meshgrid.indexing")(
    lambda d: ([[d.float((2,), dtype="float64"), d.float((3,), dtype="float64")]], {"indexing": d.choice("ij", "xy")})
)
for _name in ("repeat", "tile"):
    case(f"{_name}.default")(lambda d: [d.float((2, 3)), d.choice([2, 1], [2, 1, 3], [1, 1, 2, 2])])
case("tile.default#fewer")(lambda d: [d.float((2, 3)), [2]])
case("repeat_interleave.self_int")(lambda d: [d.float((2, 3)), d.integer(1, 3), d.choice(None, 0, -1)])
case("repeat_interleave.self_Tensor")(lambda d: [d.float((3, 2)), d.int((3,), 0, 3), 0])
for _name in ("permute", "permute_copy"):
    case(f"{_name}.default")(lambda d: [d.float((2, 3, 4)), d.choice([2, 0, 1], [-1, 0, 1], [0, 1, 2])])
case("permute.default#scalar")(lambda d: [d.float(()), []])
for _name in ("transpose.int", "swapaxes.default", "transpose_copy.int"):
    case(_name)(lambda d: [x := d.float(d.shape(1)), d.axis(x), d.axis(x)])
case("t.default")(lambda d: [d.float(d.choice((3,), (2, 3)))])
case("numpy_T.default")(lambda d: [d.float((2, 3))])
case("mT.default")(lambda d: [d.float((2, 3, 4))])
case("adjoint.default")(lambda d: [d.float((2, 3, 4))])
for _name in ("movedim.int", "moveaxis.int"):
    case(_name)(lambda d: [x := d.float((2, 3, 4)), d.axis(x), d.axis(x)])
case("movedim.intlist")(lambda d: [d.float((2, 3, 4)), [0, 1], d.choice([1, 0], [-1, 0])])
case("flip.default")(lambda d: [x := d.float(d.shape(1)), d.choice([d.axis(x)], [])])
case("roll.default")(lambda d: [d.float((3, 4)), *d.choice(([1], [0]), ([2, -1], [0, 1]), ([3], []))])
for _name in ("diagonal", "diagonal_copy"):
    case(f"{_name}.default")(lambda d: [d.float((3, 4, 4)), d.choice(0, 1, -1), *d.choice((0, 1), (-2, -1))])
case("diag_embed.default")(lambda d: [d.float((2, 3)), d.choice(0, 1, -1)])
for _name in ("tril", "triu"):
    case(f"{_name}.default")(lambda d: [d.float((*d.shape(0, 1), 3, 4)), d.integer(-3, 3)])
for _name in ("slice", "slice_copy"):
    case(f"{_name}.Tensor")(
        lambda d: [
            x := d.float((5, 4)),
            d.axis(x),
            d.choice(None, 0, 1, -2, 9),
            d.choice(None, 3, -1, 2**63 - 1, -9),
            d.choice(1, 2),
        ]
    )
case("narrow.default")(lambda d: [d.float((5, 4)), 0, d.integer(0, 2), d.integer(0, 3)])
for _name in ("select", "select_copy"):
    case(f"{_name}.int")(lambda d: [x := d.float((3, 3)), d.axis(x), d.integer(-3, 2)])
for _name in ("split_with_sizes.default", "split.sizes", "split_with_sizes_copy.default"):
    case(_name)(lambda d: [d.float((6, 2)), d.choice([1, 2, 3], [6], [0, 6]), 0])
for _name in ("split", "split_copy"):
    case(f"{_name}.Tensor")(lambda d: [x := d.float((5, 4)), d.integer(1, 6), d.axis(x)])
case("chunk.default")(lambda d: [x := d.float((5, 4)), d.integer(1, 3), d.axis(x)])
case("tensor_split.sections")(lambda d: [x := d.float((5, 4)), d.integer(1, 3), d.axis(x)])
case("unbind.int")(lambda d: [x := d.float((2, 3)), d.axis(x)])
case("unfold.default")(lambda d: [x := d.float((6, 5)), d.axis(x), d.integer(1, 3), d.integer(1, 3)])
case("as_strided.default")(lambda d: [d.float((12,)), [2, 3], d.choice([3, 1], [1, 2]), d.choice(None, 2)])
for _name in ("cat", "concat", "concatenate"):
    case(f"{_name}.default")(
        lambda d: [
            [d.float((2, 3), dtype="float64"), d.float((2, 3), dtype="float64"), np.zeros((0,))],
            d.choice(0, -1),
        ]
    )
case("cat.default#mixed", gradient=False)(lambda d: [[d.int((2,)), d.float((3,))]])
case("stack.default")(lambda d: [[d.float((2, 3), dtype="float64") for _ in range(3)], d.integer(-3, 2)])
for _name in ("hstack", "vstack"):
    case(f"{_name}.default")(
        lambda d: [[d.float(s := d.choice((3,), (2, 3)), dtype="float64"), d.float(s, dtype="float64")]]
    )
case("pad.default")(
    lambda d: [
        d.float((2, 3, 4)),
        *d.choice(
            ([1, 2], "constant", 0.5),
            ([0, 0, 1, -1], "constant", None),
            ([1, 2], "reflect"),
            ([1, 2], "replicate"),
            ([2, 1], "circular"),
        ),
    ]
)
case("constant_pad_nd.default")(
    lambda d: [d.float((3, 4)), d.choice([1, 2], [-1, 1, 0, 2], [-1, -1]), d.choice(0, 0.5)]
)
case("constant_pad_nd.default#bool", gradient=False)(lambda d: [d.bool((3, 4)), [1, 2], d.choice(0, 1)])

# ------------------------------------------------------------------------------------------------------------- complex


def _complex(d, shape=(2, 3)):
    return d.float(shape, dtype="float64") + 1j * d.float(shape, dtype="float64")


case("view_as_complex.default", gradient=False)(lambda d: [d.float((3, 2))])
case("complex.default", gradient=False)(lambda d: [d.float((3,), dtype="float32") for _ in range(2)])
case("polar.default", gradient=False)(lambda d: [d.float((3,), dtype="float32") for _ in range(2)])
for _name in ("view_as_real", "real", "imag", "conj", "_conj"):
    case(f"{_name}.default", gradient=False)(lambda d: [_complex(d)])
case("mul.Tensor#complex", gradient=False)(lambda d: [_complex(d), _complex(d, (3,))])
case("fft_fft.default", gradient=False)(lambda d: [_complex(d, (3, 4)), None, d.choice(-1, 0)])
for _name in ("fft_fft2", "fft_fftn"):
    case(f"{_name}.default", gradient=False)(lambda d: [_complex(d, (3, 4)), None, [-2, -1]])
case("_fft_c2c.default", gradient=False)(lambda d: [_complex(d, (3, 4)), d.choice([1], [0, 1]), 0, True])
case("_fft_r2c.default", gradient=False)(lambda d: [d.float((3, 4)), [1], 0, False])

# -------------------------------------------------------------------------------------------------------------- making

_DTYPES = (torch.float32, torch.int64, torch.bool, torch.float64)
for _name in ("zeros", "ones"):
    case(f"{_name}.default", gradient=False)(lambda d: ([list(d.shape())], {"dtype": d.choice(*_DTYPES)}))
case("full.default", gradient=False)(
    lambda d: ([list(d.shape()), d.choice(1, 0.5)], {"dtype": d.choice(torch.float32, None)})
)
for _name in ("zeros_like", "ones_like"):
    case(f"{_name}.default", gradient=False)(lambda d: ([d.any(d.shape())], {"dtype": d.choice(None, *_DTYPES)}))
case("zero.default", gradient=False)(lambda d: [d.any(d.shape())])
case("full_like.default", gradient=False)(lambda d: ([d.any(d.shape()), 1], {"dtype": d.choice(None, *_DTYPES)}))
case("fill.Scalar", gradient=False)(lambda d: [d.float(d.shape()), 0.5])
case("fill.Tensor", gradient=False)(lambda d: [d.float(d.shape()), np.asarray(0.5)])
for _name in ("new_zeros", "new_ones"):
    case(f"{_name}.default", gradient=False)(
        lambda d: ([d.any((2,)), list(d.shape())], {"dtype": d.choice(None, *_DTYPES)})
    )
case("new_full.default", gradient=False)(lambda d: [d.float((2,)), list(d.shape()), 0.5])
case("scalar_tensor.default", gradient=False)(lambda d: ([d.choice(2, 0.1)], {"dtype": d.choice(*_DTYPES)}))
case("arange.default", gradient=False)(
    lambda d: ([d.choice(0, 7, 3.5)], {"dtype": d.choice(None, torch.float32, torch.int64)})
)
case("arange.start", gradient=False)(
    lambda d: ([d.choice(0, 2), d.choice(5, 9)], {"dtype": d.choice(None, torch.float64)})
)
case("arange.start_step", gradient=False)(
    lambda d: ([*d.choice((0, 9, 2), (9, -1, -3), (0.0, 1.0, 0.3))], {"dtype": d.choice(torch.float32, torch.float64)})
)
case("linspace.default", gradient=False)(
    lambda d: ([0.0, d.choice(1.0, -2.0), d.integer(1, 7)], {"dtype": torch.float64})
)
case("eye.default", gradient=False)(lambda d: [d.integer(1, 4)])
case("eye.m", gradient=False)(lambda d: [d.integer(1, 4), d.integer(1, 4)])
case("one_hot.default", gradient=False)(lambda d: [d.int((3, 2), 0, 4), d.choice(-1, 5)])
for _name in ("tril_indices", "triu_indices"):
    case(f"{_name}.default", gradient=False)(lambda d: [d.integer(1, 4), d.integer(1, 4), d.integer(-1, 1)])
case("sym_numel.default", gradient=False)(lambda d: [d.float(d.shape())])
case("sym_size.int", gradient=False)(lambda d: [x := d.float(d.shape(1)), d.axis(x)])

# ------------------------------------------------------------------------------------------------------------ indexing

case("embedding.default")(lambda d: [d.float((5, 3)), d.int(d.shape(), 0, 5), d.choice(-1, 2)])
case("gather.default")(
    lambda d: [
        d.float((3, 4)),
        *d.choice((0, d.int((2, 4), 0, 3)), (-1, d.int((3, 2), 0, 4)), (1, d.int((2, 2), 0, 4))),
    ]
)
case("index_select.default")(lambda d: [d.float((3, 3)), d.choice(0, -1), d.int((4,), 0, 3)])
for _name, _masks in (("index", [[np.array([True, False, True])], [np.eye(3, 4, dtype=bool)]]), ("_unsafe_index", [])):
    case(f"{_name}.Tensor")(
        lambda d, masks=_masks: [
            d.float((3, 4, 5)),
            d.choice(
                [d.int((2,), -3, 3)],
                [None, d.int((2, 2), 0, 4)],
                [d.int((2, 1), 0, 3), d.int((3,), 0, 4)],
                [d.int((2,), 0, 3), None, d.int((2,), 0, 5)],
                [None, d.int((2,), 0, 4), d.int((2,), 0, 5)],
                *masks,
            ),
        ]
    )
for _name, _masks in (("index_put", True), ("_unsafe_index_put", False)):
    case(f"{_name}.default")(
        lambda d, masks=_masks: [
            d.float((4, 3), dtype="float64"),
            *d.choice(
                ([np.array([0, 2])], d.float((2, 3), dtype="float64")),
                ([np.array([0, 2]), np.array([1, 1])], d.float((2,), dtype="float64")),
                *([([d.bool((4, 3))], np.asarray(0.5)), ([d.bool((4,))], np.asarray(0.5))] if masks else []),
            ),
            d.choice(True, False),
        ]
    )
case("scatter.src")(
    lambda d: [d.float((3, 4), dtype="float64"), 1, np.array([[0, 2], [1, 3]]), d.float((2, 2), dtype="float64")]
)
case("scatter.src#longer", gradient=False)(
    lambda d: [d.float((3, 4), dtype="float32"), 1, np.array([[0, 2], [1, 3]]), d.float((3, 4), dtype="float32")]
)
case("scatter.value")(lambda d: [d.float((3, 4)), d.choice(1, -1), np.array([[0, 2], [1, 3]]), 0.5])
case("scatter_add.default")(
    lambda d: [d.float((3, 4), dtype="float64"), 0, d.int((2, 4), 0, 3), d.float((2, 4), dtype="float64")]
)
case("scatter_reduce.two", gradient=False)(
    lambda d: (
        [
            d.float((3, 4), dtype="float64"),
            0,
            d.int((2, 4), 0, 3),
            d.float((3, 4), dtype="float64"),
            d.choice("sum", "mean", "amax", "amin"),
        ],
        {"include_self": d.choice(True, False)},
    )
)
case("scatter_reduce.two#integers", gradient=False)(
    lambda d: (
        [d.int((7,)), 0, d.int((9,), 0, 7), d.int((9,)), d.choice("sum", "mean", "amax", "amin")],
        {"include_self": d.choice(True, False)},
    )
)
case("index_add.default")(
    lambda d: [d.float((3, 4), dtype="float64"), d.choice(0, -2), d.int((5,), 0, 3), d.float((5, 4), dtype="float64")]
)
case("index_copy.default")(
    lambda d: [d.float((3, 4), dtype="float64"), 1, np.array([3, 0]), d.float((3, 2), dtype="float64")]
)
case("index_fill.int_Scalar")(lambda d: [d.float((3, 4)), d.choice(0, -2), np.array([2, 0]), 0.5])
case("index_fill.int_Tensor")(lambda d: [d.float((3, 4), dtype="float64"), 0, np.array([2, 0]), np.asarray(0.5)])
case("slice_scatter.default")(
    lambda d: [
        d.float((5, 4), dtype="float64"),
        *d.choice((d.float((2, 4), dtype="float64"), 0, 1, 5, 2), (d.float((5, 2), dtype="float64"), -1, -2, None)),
    ]
)
case("select_scatter.default")(
    lambda d: [d.float((3, 4), dtype="float64"), d.float((4,), dtype="float64"), 0, d.choice(1, -1)]
)
case("masked_scatter.default")(
    lambda d: [d.float((3, 4), dtype="float64"), d.bool((3, 4)), d.float((12,), dtype="float64")]
)
case("nonzero.default", gradient=False)(lambda d: [d.choice(d.int, d.bool)(d.shape(1))])
case("masked_select.default")(lambda d: [d.float((3, 4)), d.bool(d.choice((3, 4), (4,)))])
case("searchsorted.Tensor", gradient=False)(
    lambda d: (
        [
            *d.choice(
                (np.sort(d.float((5,), dtype="float64")), d.float((2, 3), dtype="float64")),
                (np.sort(d.float((2, 5), dtype="float64")), d.float((2, 3), dtype="float64")),
            )
        ],
        {"right": d.choice(True, False)},
    )
)
case("searchsorted.Scalar", gradient=False)(lambda d: [np.sort(d.float((5,))), 0.3])
case("bucketize.Tensor", gradient=False)(
    lambda d: ([d.int((2, 3), 0, 9), np.array([1, 3, 5])], {"right": d.choice(True, False)})
)
case("bucketize.Scalar", gradient=False)(lambda d: [3, np.array([1, 3, 5])])

# ------------------------------------------------------------------------------------------------------------ products


def _floats(d, *shapes):
    dtype = d.choice(*FLOATS)
    return [d.float(shape, dtype=dtype) for shape in shapes]


case("linear.default")(lambda d: _floats(d, (*d.shape(1, 3), 4), (3, 4), *d.choice([(3,)], [])))
case("linear.default#vector")(lambda d: _floats(d, (2, 4), (4,)))
case("addmm.default")(lambda d: (_floats(d, (3,), (2, 4), (4, 3)), {"beta": d.choice(1, 2), "alpha": d.choice(1, 0.5)}))
case("baddbmm.default")(
    lambda d: (_floats(d, (2, 3, 3), (2, 3, 4), (2, 4, 3)), {"beta": d.choice(0, 1, 2), "alpha": d.choice(1, 0.5)})
)
case("mm.default")(lambda d: _floats(d, (d.integer(0, 3), 4), (4, 3)))
case("bmm.default")(lambda d: _floats(d, (2, 3, 4), (2, 4, 3)))
case("matmul.default")(
    lambda d: _floats(
        d, *d.choice(((4,), (4,)), ((2, 4), (4,)), ((4,), (4, 3)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)))
    )
)
case("mv.default")(lambda d: _floats(d, (3, 4), (4,)))
for _name in ("dot", "vdot"):
    case(f"{_name}.default")(lambda d: _floats(d, (4,), (4,)))
for _name in ("outer", "ger"):
    case(f"{_name}.default")(lambda d: _floats(d, (3,), (4,)))
case("einsum.default")(
    lambda d: [
        *d.choice(
            ("ij, jk -> ik", _floats(d, (2, 3), (3, 4))),
            ("bhid,bhjd->bhij", _floats(d, (1, 2, 3, 4), (1, 2, 5, 4))),
            ("ibnd,snd->ibns", _floats(d, (2, 1, 3, 4), (2, 3, 4))),
        )
    ]
)
case("_grouped_mm.default")(
    lambda d: [d.float((8, 4), dtype="float32"), d.float((3, 4, 8), dtype="float32"), np.array([2, 2, 8], "int32")]
)
for _name in ("cross", "linalg_cross"):
    case(f"{_name}.default")(lambda d: (_floats(d, (2, 3), (2, 3)), {"dim": -1}))
case("kron.default")(lambda d: _floats(d, (2, 3), (3, 2)))


# ------------------------------------------------------------------------------------------------------------- networks


@case("scaled_dot_product_attention.default")
def _attention(d):
    keys, groups = d.integer(1, 4), d.choice(1, 2)
    dtype = d.choice(*FLOATS)
    query, key, value = (
        d.float((2, heads, n, 4), dtype=dtype) for heads, n in ((4, 3), (4 // groups, keys), (4 // groups, keys))
    )
    visible = d.bool((2, 1, 3, keys))
    visible[..., 0] = True  # a query that sees nothing has a test of its own
    causal = d.choice(True, False)
    mask = None if causal else d.choice(None, visible, d.float((3, keys), dtype=dtype))
    return [query, key, value, mask, 0.0, causal], {"scale": d.choice(None, 0.7), "enable_gqa": groups > 1}


case("dropout.default")(lambda d: [d.float(d.shape()), 0.5, False])
case("native_dropout.default")(lambda d: [d.float(d.shape()), 0.5, False])
case("glu.default")(lambda d: [d.float((2, 4)), d.choice(-1, 1, 0)])
case("layer_norm.default")(
    lambda d: [
        *(lambda x, w, b: (x, list(w.shape), *d.choice((w, b), (w, None), (None, None))))(
            *_floats(d, (2, 3, 4), (4,), (4,))
        ),
        1e-5,
    ]
)
case("layer_norm.default#two")(lambda d: [d.float((2, 3, 4)), [3, 4]])
case("rms_norm.default")(
    lambda d: [*(lambda x, w: (x, [4], d.choice(w, None)))(*_floats(d, (2, 3, 4), (4,))), d.choice(None, 1e-5)]
)
# Of a few values that are nearly equal, rounding decides.
case("group_norm.default")(
    lambda d: [*(lambda x, w, b: (x, d.choice(1, 2, 4), w, b))(*_floats(d, (2, 4, 6), (4,), (4,)))]
)
case("instance_norm.default")(
    lambda d: [*(lambda x, w, b: (x, w, b, None, None, True, 0.1, 1e-5, False))(*_floats(d, (2, 4, 6), (4,), (4,)))]
)
case("batch_norm.default", gradient=False)(
    lambda d: [
        *(lambda x, w, b, m, v: (x, w, b, m, abs(v) + 0.5, False, 0.1, 1e-5, False))(
            *_floats(d, (2, 4, 3), *[(4,)] * 4)
        )
    ]
)
case("_native_batch_norm_legit_no_training.default", gradient=False)(
    lambda d: [*(lambda x, w, b, m, v: (x, w, b, m, abs(v) + 0.5, 0.1, 1e-5))(*_floats(d, (2, 4, 3), *[(4,)] * 4))]
)
case("conv1d.default")(
    lambda d: [
        *_floats(d, (2, 4, 9), (6, 4 // (g := d.choice(1, 2)), 3), (6,)),
        [d.integer(1, 2)],
        [d.integer(0, 2)],
        [d.integer(1, 2)],
        g,
    ]
)
case("conv1d.default#steps and gaps")(lambda d: [*_floats(d, (2, 4, 9), (6, 4, 3), (6,)), [2], [1], [2], 1])
case("conv1d.padding")(lambda d: [*_floats(d, (2, 4, 9), (6, 4, d.choice(3, 4)), (6,)), [1], d.choice("same", "valid")])
case("conv2d.default")(
    lambda d: [
        *_floats(d, (2, 4, 5, 6), (4, 4 // (g := d.choice(1, 4)), 3, 2), (4,)),
        [1, 2],
        d.choice([1, 0], [0, 1]),
        [1, 1],
        g,
    ]
)
case("conv2d.padding")(lambda d: [*_floats(d, (2, 3, 5, 6), (4, 3, 3, 3), (4,)), [1, 1], "same"])
case("conv3d.default")(lambda d: [*_floats(d, (1, 2, 4, 4, 4), (3, 2, 2, 2, 2)), None, [2, 2, 2]])
case("convolution.default")(
    lambda d: [*_floats(d, (2, 4, 9), (4, 4, 3), (4,)), [d.integer(1, 2)], [1], [1], d.choice(True, False), [0], 1]
)
case("conv_transpose1d.default")(
    lambda d: [*_floats(d, (2, 3, 5), (3, 4, 3), (4,)), [2], [d.integer(0, 1)], [d.integer(0, 1)]]
)
case("conv_transpose2d.input")(lambda d: [*_floats(d, (1, 3, 4, 4), (3, 2, 2, 2), (2,)), [2, 2]])
case("max_pool1d.default")(lambda d: [d.distinct((2, 3, 8)), [2], d.choice([], [1]), [d.integer(0, 1)]])
case("max_pool2d.default")(lambda d: [d.distinct((1, 2, 6, 6)), [2, 3], [2, 2], [1, 1], 1, d.choice(False, True)])
case("avg_pool1d.default")(
    lambda d: [d.float((2, 3, d.choice(8, 9))), [3], [2], [1], d.choice(False, True), d.choice(True, False)]
)
case("avg_pool2d.default")(
    lambda d: d.choice(
        [d.float((1, 2, 6, 6)), [2, 2], [], [0, 0]],
        [d.float((1, 2, 5, 1)), [4, 3], [], [1, 0], True, d.choice(True, False)],  # a window that reaches over the end
        [d.float((1, 2, 5, 4)), [2, 2], [], [1, 1], True, d.choice(True, False)],  # and one that would lie behind
        [d.float((1, 2, 5, 4)), [3, 2], [2, 2], [1, 1], d.choice(True, False), True, 5],
    )
)
case("adaptive_avg_pool1d.default")(lambda d: [d.float((2, 3, 7)), [d.choice(1, 3, 7)]])
for _name in ("adaptive_avg_pool2d", "_adaptive_avg_pool2d"):
    case(f"{_name}.default")(lambda d: [d.float((1, 2, 5, 6)), [d.choice(1, 2), d.choice(1, 3)]])
case("upsample_nearest1d.vec", gradient=False)(lambda d: [d.float((1, 2, 4)), None, [2.0]])
case("upsample_nearest2d.vec", gradient=False)(
    lambda d: [d.float((1, 2, 4, 3)), *d.choice((None, [2.0, 2.0]), ([6, 5], None))]
)
case("upsample_nearest2d.default", gradient=False)(lambda d: [d.float((1, 2, 4, 3)), [8, 6]])
case("upsample_bilinear2d.vec")(
    lambda d: [
        d.float((2, 2, 4, 3)),
        *d.choice(([6, 5], False, None), ([2, 7], True, None), ([1, 1], True, None), (None, False, [1.5, 2.0])),
    ]
)
case("_weight_norm_interface.default")(lambda d: [*_floats(d, (4, 3, 2), (4, 1, 1)), 0])
case("_weight_norm_interface.default#last")(lambda d: [*_floats(d, (4, 3, 2), (1, 1, 2)), 2])
case("im2col.default")(lambda d: [d.float((2, 3, 6, 5)), [2, 3], d.choice([1, 1], [2, 1]), [1, 0], [1, 2]])

# Random numbers, what is uninitialised, and what only checks: shape and dtype are all there is to compare.
SHAPE_ONLY: dict[str, Case] = {
    "aten.rand.default": lambda d: ([list(d.shape())], {"dtype": torch.float32}),
    "aten.randn.default": lambda d: ([list(d.shape())], {"dtype": torch.float32}),
    "aten.rand_like.default": lambda d: [d.float(d.shape())],
    "aten.randn_like.default": lambda d: [d.float(d.shape())],
    "aten.bernoulli.default": lambda d: [d.float(d.shape(), 0, 1)],
    "aten.bernoulli.p": lambda d: [d.int(d.shape()), 0.5],
    "aten.empty.memory_format": lambda d: ([list(d.shape())], {"dtype": torch.float32}),
    "aten.empty_like.default": lambda d: [d.float(d.shape())],
    "aten.new_empty.default": lambda d: [d.float((2,)), list(d.shape())],
    "aten.new_empty_strided.default": lambda d: [d.float((2,)), [2, 3], [3, 1]],
}
# PyTorch's Python has no entry for these but through others that are tested.
INDIRECT = {"aten.native_layer_norm.default"}
CHECKS = {name for name in RULES if "assert" in name or "sym_constrain" in name or name.startswith("sym.")}
INDIRECT |= {"aten._local_scalar_dense.default", "aten.item.default"}  # a number for PyTorch, a tensor here
INDIRECT |= {"tf_pipeline.write.default"}  # the cache's own operator, which `test_port_steps.py` compares


def _operator(name: str) -> Any:
    _, packet, overload = name.split("#")[0].split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def _map(value: Any, function: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_map(item, function) for item in value]
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    return function(value) if isinstance(value, (np.ndarray, np.generic)) else value


def _arrays(value: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    _map(value, lambda array: found.append(np.asarray(array)))
    return found


def _leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


def run_torch(name: str, args: list, kwargs: dict) -> tuple[list[Any], list[Any]]:
    """PyTorch's results, and its gradients of a weighted sum by each floating argument."""
    given = []

    def tensor(array):
        x = torch.tensor(array)
        if x.is_floating_point() and name not in NO_GRADIENT:
            x.requires_grad_(True)
        given.append(x)
        return x

    results = _leaves(_operator(name)(*_map(args, tensor), **_map(kwargs, tensor)))
    floating = [r for r in results if torch.is_tensor(r) and r.requires_grad]
    if not floating or name in NO_GRADIENT:
        return results, []
    total = sum((r.double() * torch.tensor(weights_for(tuple(r.shape)))).sum() for r in floating)
    gradients = torch.autograd.grad(total, [x for x in given if x.requires_grad], allow_unused=True)
    return results, list(gradients)


def weights_for(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed weights, so that every element of a result has a gradient of its own."""
    return np.random.default_rng(0).normal(size=shape)


def _tf_dtype(dtype: Any) -> Any:
    return tf.as_dtype(str(dtype).removeprefix("torch.")) if isinstance(dtype, torch.dtype) else dtype


def run_rule(name: str, args: list, kwargs: dict, expected: list[Any], open_axes: bool) -> tuple[list[Any], list[Any]]:
    """The rule's results and gradients, as :func:`run_torch` has them."""
    rule = RULES[name.split("#")[0]]
    arrays = _arrays(args) + _arrays(kwargs)
    kwargs = {k: v for k, v in kwargs.items() if not (k == "dtype" and "out_dtype" in rule.extras)}
    extras = {"training": False, "attentions": [], "pieces": len(expected)}
    if torch.is_tensor(expected[0]):
        extras["out_dtype"] = _tf_dtype(expected[0].dtype)
    extras = {key: value for key, value in extras.items() if key in rule.extras}

    def compute(*tensors):
        left = iter(tensors)
        decoded = [_map(value, lambda _: next(left)) for value in (args, kwargs)]
        decoded = [_decode(value) for value in decoded]
        with tf.GradientTape() as tape:
            floating = [x for x in tensors if x.dtype.is_floating]
            tape.watch(floating)
            results = _leaves(rule.function(*decoded[0], **decoded[1], **extras))
            wanted = [
                tf.reduce_sum(tf.cast(r, tf.float64) * weights_for(tuple(e.shape)))
                for r, e in zip(results, expected, strict=False)
                if torch.is_tensor(e) and e.requires_grad
            ]
            total = tf.add_n(wanted) if wanted else None
        if total is None or name in NO_GRADIENT:
            return results, []
        gradients = tape.gradient(total, floating)
        return results, [tf.zeros([]) if g is None else tf.convert_to_tensor(g) for g in gradients]

    tensors = [tf.constant(array) for array in arrays]
    if open_axes:
        signature = [tf.TensorSpec([None] * x.shape.rank, x.dtype) for x in tensors]
        return tf.function(compute, autograph=False).get_concrete_function(*signature)(*tensors)
    return compute(*tensors)


def _decode(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_decode(item) for item in value]
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    return _tf_dtype(value)


def assert_same(name: str, ours: list[Any], theirs: list[Any], what: str) -> None:
    assert len(ours) >= len(theirs), what
    for mine, reference in zip(ours, theirs, strict=False):
        if reference is None or (not torch.is_tensor(reference) and reference == mine):
            continue
        if torch.is_tensor(reference):
            lazy_zero = reference._is_zerotensor()
            reference = torch.zeros(reference.shape) if lazy_zero else reference.detach().resolve_conj()
        reference = np.asarray(reference)
        mine = np.asarray(mine)
        if what == "gradient" and not mine.shape and reference.shape:
            mine = np.broadcast_to(mine, reference.shape)  # no gradient is a gradient of zero
        assert mine.shape == reference.shape, (what, mine.shape, reference.shape)
        tolerance = TOLERANCE.get(str(reference.dtype), 0)
        scale = max(1.0, np.abs(reference[np.isfinite(reference)]).max(initial=0.0)) if tolerance else 1
        np.testing.assert_allclose(
            mine.astype(reference.dtype), reference, rtol=0, atol=tolerance * scale, err_msg=what
        )


# Sizes that the rule has to know to make so many results or to unroll a kernel.
STATIC_ONLY = {
    "upsample_bilinear2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "conv1d",
    "conv2d",
    "_adaptive_avg_pool2d",
    "conv3d",
    "convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "instance_norm",
    "im2col",
    "squeeze",
    "_grouped_mm",
    "linear",
    "scaled_dot_product_attention",
    "embedding",
    "glu",
    "cross",
    "linalg_cross",
    "view_as_complex",
    "matmul",
    "max_pool1d",
    "max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "t",
    "einsum",
    "expand",
    "cat",
    "concat",
    "concatenate",
    "diag_embed",
    "diagonal",
    "diagonal_copy",
    "broadcast_to",
    "expand_copy",
}


@MANY_OR_FEW
@pytest.mark.parametrize(
    "name", exhaustive(sorted(CASES), {name.split("#")[0]: name for name in sorted(CASES)[::-1]}.values())
)
def test_rule_equals_torch(name, count):
    turn = itertools.count(1)

    @examples(count)
    @given(st.data())
    def check(data):
        drawn = CASES[name](Draw(data))
        if next(turn) == 1 and count == FEW:
            return  # the simplest arguments, most often numbers without axes
        args, kwargs = drawn if isinstance(drawn, tuple) else (drawn, {})
        expected, gradients = run_torch(name, args, kwargs)
        for open_axes in (False, True):
            if open_axes and name.split(".")[1] in STATIC_ONLY:
                continue
            results, own = run_rule(name, args, kwargs, expected, open_axes)
            assert_same(name, results, expected, "result")
            assert_same(name, own, gradients, "gradient")

    check()
    assert next(turn) > FEW


@MANY_OR_FEW
@pytest.mark.parametrize("name", sorted(SHAPE_ONLY))
def test_rule_has_torch_shape_and_dtype(name, count):
    @examples(count)
    @given(st.data())
    def check(data):
        drawn = SHAPE_ONLY[name](Draw(data))
        args, kwargs = drawn if isinstance(drawn, tuple) else (drawn, {})
        (expected,), _ = run_torch(name, args, kwargs)
        (result,), _ = run_rule(name, args, kwargs, [expected], open_axes=False)
        assert tuple(result.shape) == tuple(expected.shape)
        assert result.dtype == _tf_dtype(expected.dtype)

    check()


def test_every_rule_has_a_case():
    tested = {name.split("#")[0] for name in CASES} | set(SHAPE_ONLY) | INDIRECT | CHECKS
    assert set(RULES) == tested


@pytest.mark.parametrize("name", ["rand", "randn", "bernoulli", "dropout"])
def test_random_numbers_have_their_distribution(name):
    x = tf.fill([40_000], 0.25)
    if name in ("rand", "randn"):
        values = RULES[f"aten.{name}.default"].function([40_000], out_dtype=tf.float32).numpy()
        assert abs(values.mean() - (0.5 if name == "rand" else 0)) < 0.02
        assert abs(values.std() - (12**-0.5 if name == "rand" else 1)) < 0.02
    elif name == "bernoulli":
        assert abs(RULES["aten.bernoulli.default"].function(x).numpy().mean() - 0.25) < 0.02
    else:
        values = RULES["aten.dropout.default"].function(x, 0.2, True, training=True).numpy()
        assert abs((values == 0).mean() - 0.2) < 0.02
        np.testing.assert_allclose(values[values != 0], 0.25 / 0.8, rtol=1e-6)


def test_a_query_that_sees_nothing_attends_evenly():
    x = np.random.default_rng(0).normal(size=(1, 1, 3, 4))
    visible = np.ones((1, 1, 3, 3), bool)
    visible[0, 0, 1] = False
    rule = RULES["aten.scaled_dot_product_attention.default"].function
    context = rule(*map(tf.constant, (x, x, x, visible)), training=False, attentions=[]).numpy()
    np.testing.assert_allclose(context[0, 0, 1], x[0, 0].mean(0), atol=1e-12)
    assert np.isfinite(context).all()


@pytest.mark.parametrize(
    "name",
    [
        "add.Tensor",
        "mul.Tensor",
        "div.Tensor",
        "softmax.int",
        "layer_norm.default",
        "mean.default",
        "gelu.default",
        "silu.default",
        "rsqrt.default",
        "cumsum.default",
    ],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_as_torch_does(name, dtype):
    x = np.random.default_rng(0).uniform(0.1, 2, (4, 64)).astype(np.float32)
    more = {"softmax.int": [-1], "layer_norm.default": [[64]], "cumsum.default": [-1]}.get(name, [])
    torch_args = [torch.tensor(x).to(getattr(torch, dtype))] * (
        2 if name in ("add.Tensor", "mul.Tensor", "div.Tensor") else 1
    )
    ours = [tf.cast(tf.constant(x), dtype)] * len(torch_args)
    rule = RULES[f"aten.{name}"]
    extras = {"out_dtype": tf.as_dtype(dtype)} if "out_dtype" in rule.extras else {}
    result = tf.cast(rule.function(*ours, *more, **extras), dtype)
    expected = _operator(f"aten.{name}")(*torch_args, *more).float().numpy()
    ulp = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
    np.testing.assert_allclose(tf.cast(result, tf.float32), expected, rtol=1.01 * ulp, atol=0)


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("add", (2, 3), 5),
        ("floordiv", (7, 2), 3),
        ("mod", (-7, 4), 1),
        ("neg", (3,), -3),
        ("sym_max", (2, 5), 5),
        ("sym_min", (2, 5), 2),
        ("pow", (3, 2), 9),
        ("sym_sum", ([1, 2, 3],), 6),
        ("sym_ite", (True, 4, 5), 4),
        ("eq", (3, 3), True),
        ("ge", (2, 3), False),
        ("ceil", (2.2,), 3),
        ("truediv", (7, 2), 3.5),
        ("sym_not", (True,), False),
        ("sym_float", (3,), 3.0),
        ("trunc", (-2.5,), -2),
        ("floor", (-2.5,), -3),
        ("mul", (3, 4), 12),
        ("sub", (3, 4), -1),
        ("ne", (1, 2), True),
        ("lt", (1, 2), True),
        ("le", (2, 2), True),
        ("gt", (1, 2), False),
        ("and_", (True, False), False),
        ("or_", (True, False), True),
        ("round", (2.6,), 3),
        ("sym_int", (2.9,), 2),
        ("sym_sqrt", (9,), 3.0),
    ],
)
def test_sizes_are_computed_alike_as_numbers_and_as_tensors(name, args, expected):
    function = RULES[f"sym.{name}"].function
    assert function(*args) == expected

    def as_tensor(value):
        if isinstance(value, list):
            return [as_tensor(item) for item in value]
        return tf.constant(value)

    assert function(*map(as_tensor, args)).numpy() == expected


def test_a_check_raises_while_tracing_or_when_run():
    check = RULES["aten._assert_scalar.default"].function
    assert check(True, "fine") is None
    with pytest.raises(ValueError, match="length has to be even"):
        check(False, "length has to be even")
    with pytest.raises(tf.errors.InvalidArgumentError, match="length has to be even"):
        check(tf.constant(3) == 2, "length has to be even")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("batch_norm.default", [np.ones((2, 3, 4))] + [np.ones(3)] * 4 + [True, 0.1, 1e-5, False]),
        ("conv_transpose1d.default", [np.ones((1, 2, 5)), np.ones((2, 1, 3)), None, [1], [0], [0], 2]),
        ("scatter_reduce.two", [np.ones((2, 2)), 0, np.zeros((1, 2), int), np.ones((1, 2)), "prod"]),
    ],
)
def test_what_a_rule_does_not_cover_is_refused(name, args):
    with pytest.raises(NotImplementedError):
        RULES[f"aten.{name}"].function(*_map(args, tf.constant))


def test_bfloat16_is_what_ml_dtypes_has():
    assert tf.bfloat16.as_numpy_dtype is bfloat16


def test_a_graph_divides_by_constants_as_torch_does():
    """The optimizer of TensorFlow's graphs would multiply by the reciprocal, and move T5's buckets of distances."""
    x = np.log(np.arange(1, 4096) / 8.0)
    rule = RULES["aten.div.Tensor"].function
    graph = tf.function(lambda v: rule(v, math.log(16), out_dtype=tf.float64), autograph=False)
    np.testing.assert_array_equal(graph(tf.constant(x)), (torch.tensor(x) / math.log(16)).numpy())
