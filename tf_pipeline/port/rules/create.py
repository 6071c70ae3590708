"""Operators that make tensors: filled, counted up, random."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_pipeline.port.rules.registry import Number, Size, as_shape, constant, is_static, rule, size_of


def _filled(size: Sequence[Size], value: Number, dtype: tf.DType) -> tf.Tensor:
    return tf.fill(as_shape(size) if size else [], constant(value, dtype))


@rule("full.default")
def full(size: Sequence[Size], fill_value: Number, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """One value everywhere.

    Schema::

        aten::full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device?
            device=None, bool? pin_memory=None) -> Tensor
    """
    return _filled(size, fill_value, out_dtype)


@rule("zeros.default", "empty.memory_format")
def zeros(size: Sequence[Size], *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Zeros; also for tensors that PyTorch leaves uninitialised.

    Schemas::

        aten::zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None) -> Tensor
        aten::empty.memory_format(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
            bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    """
    return _filled(size, 0, out_dtype)


@rule("ones.default")
def ones(size: Sequence[Size], *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Ones.

    Schema::

        aten::ones(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None) -> Tensor
    """
    return _filled(size, 1, out_dtype)


@rule("full_like.default", "fill.Scalar", "fill.Tensor")
def full_like(x: tf.Tensor, fill_value: Number, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """One value in the shape of ``x``.

    Schemas::

        aten::full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device?
            device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
        aten::fill.Scalar(Tensor self, Scalar value) -> Tensor
        aten::fill.Tensor(Tensor self, Tensor value) -> Tensor
    """
    return tf.fill(tf.shape(x), constant(fill_value, out_dtype))


@rule("zeros_like.default", "empty_like.default", "zero.default")
def zeros_like(x: tf.Tensor, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Zeros in the shape of ``x``.

    Schemas::

        aten::zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
        aten::empty_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
        aten::zero(Tensor self) -> Tensor
    """
    return tf.zeros_like(x, out_dtype)


@rule("ones_like.default")
def ones_like(x: tf.Tensor, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Ones in the shape of ``x``.

    Schema::

        aten::ones_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    """
    return tf.ones_like(x, out_dtype)


@rule("new_full.default")
def new_full(x: tf.Tensor, size: Sequence[Size], fill_value: Number, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """One value everywhere.

    Schema::

        aten::new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None,
            Device? device=None, bool? pin_memory=None) -> Tensor
    """
    return _filled(size, fill_value, out_dtype)


@rule("new_zeros.default", "new_empty.default", "new_empty_strided.default")
def new_zeros(x: tf.Tensor, size: Sequence[Size], *_: Any, out_dtype: tf.DType, **__: Any) -> tf.Tensor:
    """Zeros.

    Schemas::

        aten::new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
            bool? pin_memory=None) -> Tensor
        aten::new_empty(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
            bool? pin_memory=None) -> Tensor
        aten::new_empty_strided(Tensor self, SymInt[] size, SymInt[] stride, *, ScalarType? dtype=None, Layout?
            layout=None, Device? device=None, bool? pin_memory=None) -> Tensor
    """
    return _filled(size, 0, out_dtype)


@rule("new_ones.default")
def new_ones(x: tf.Tensor, size: Sequence[Size], *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Ones.

    Schema::

        aten::new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
            bool? pin_memory=None) -> Tensor
    """
    return _filled(size, 1, out_dtype)


@rule("scalar_tensor.default")
def scalar_tensor(value: Number, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """A number as a tensor without axes.

    Schema::

        aten::scalar_tensor(Scalar s, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None) -> Tensor
    """
    return constant(value, out_dtype)


@rule("arange.default")
def arange(end: Number, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """0, 1, 2, … before ``end``.

    Schema::

        aten::arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None) -> Tensor
    """
    return arange_start_step(0, end, 1, out_dtype=out_dtype)


@rule("arange.start")
def arange_start(start: Number, end: Number, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """``start``, ``start + 1``, … before ``end``.

    Schema::

        aten::arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device?
            device=None, bool? pin_memory=None) -> Tensor
    """
    return arange_start_step(start, end, 1, out_dtype=out_dtype)


@rule("arange.start_step")
def arange_start_step(start: Number, end: Number, step: Number = 1, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """``start``, ``start + step``, … before ``end``.

    Schema::

        aten::arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None, Layout? layout=None,
            Device? device=None, bool? pin_memory=None) -> Tensor
    """
    dtype = out_dtype if out_dtype.is_integer or out_dtype in (tf.float32, tf.float64) else tf.float32
    if out_dtype.is_floating and all(not isinstance(value, float) for value in (start, end, step)):
        # Counted in integers, which stay exact where an accumulated float step would not.
        return tf.cast(tf.range(*(constant(value, tf.int64) for value in (start, end, step))), out_dtype)
    return tf.cast(tf.range(*(constant(value, dtype) for value in (start, end, step))), out_dtype)


@rule("linspace.default")
def linspace(start: Number, end: Number, steps: Size, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """``steps`` numbers from ``start`` to ``end``, both included.

    Schema::

        aten::linspace(Scalar start, Scalar end, int steps, *, ScalarType? dtype=None, Layout? layout=None, Device?
            device=None, bool? pin_memory=None) -> Tensor
    """
    return tf.linspace(constant(start, out_dtype), constant(end, out_dtype), steps)


@rule("eye.default", "eye.m")
def eye(n: Size, m: Size | None = None, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Ones on the diagonal.

    Schemas::

        aten::eye(SymInt n, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
            -> Tensor
        aten::eye.m(SymInt n, SymInt m, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None) -> Tensor
    """
    # Not tf.eye, which other engines cannot convert.
    return tf.cast(tf.range(n)[:, tf.newaxis] == tf.range(n if m is None else m), out_dtype)


@rule("one_hot.default")
def one_hot(x: tf.Tensor, num_classes: Size = -1) -> tf.Tensor:
    """Classes as rows of zeros with a one.

    Schema::

        aten::one_hot(Tensor self, int num_classes=-1) -> Tensor
    """
    if is_static(num_classes) and num_classes < 0:
        num_classes = tf.cast(tf.reduce_max(x), tf.int32) + 1
    return tf.one_hot(x, num_classes, dtype=tf.int64)


@rule("tril_indices.default")
def tril_indices(row: Size, col: Size, offset: int = 0, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Row and column of each element on and below a diagonal ``[2, number]``.

    Schema::

        aten::tril_indices(int row, int col, int offset=0, *, ScalarType? dtype=4, Layout? layout=None, Device?
            device=None, bool? pin_memory=None) -> Tensor
    """
    inside = tf.range(col)[tf.newaxis, :] - tf.range(row)[:, tf.newaxis] <= offset
    return tf.cast(tf.transpose(tf.where(inside)), out_dtype)


@rule("triu_indices.default")
def triu_indices(row: Size, col: Size, offset: int = 0, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Row and column of each element on and above a diagonal ``[2, number]``.

    Schema::

        aten::triu_indices(int row, int col, int offset=0, *, ScalarType? dtype=4, Layout? layout=None, Device?
            device=None, bool? pin_memory=None) -> Tensor
    """
    inside = tf.range(col)[tf.newaxis, :] - tf.range(row)[:, tf.newaxis] >= offset
    return tf.cast(tf.transpose(tf.where(inside)), out_dtype)


@rule("rand.default")
def rand(size: Sequence[Size], *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Uniform between 0 and 1.

    Schema::

        aten::rand(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None) -> Tensor
    """
    return tf.random.uniform(as_shape(size), dtype=out_dtype)


@rule("rand_like.default")
def rand_like(x: tf.Tensor, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Uniform between 0 and 1, in the shape of ``x``.

    Schema::

        aten::rand_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    """
    return tf.random.uniform(tf.shape(x), dtype=out_dtype)


@rule("randn.default")
def randn(size: Sequence[Size], *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Standard normal.

    Schema::

        aten::randn(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None) -> Tensor
    """
    return tf.random.normal(as_shape(size), dtype=out_dtype)


@rule("randn_like.default")
def randn_like(x: tf.Tensor, *, out_dtype: tf.DType, **_: Any) -> tf.Tensor:
    """Standard normal, in the shape of ``x``.

    Schema::

        aten::randn_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
            pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    """
    return tf.random.normal(tf.shape(x), dtype=out_dtype)


@rule("bernoulli.default", "bernoulli.p")
def bernoulli(x: tf.Tensor, p: float | None = None, **_: Any) -> tf.Tensor:
    """One with probability ``p``, or with that in ``x``, else zero.

    Schemas::

        aten::bernoulli(Tensor self, *, Generator? generator=None) -> Tensor
        aten::bernoulli.p(Tensor self, float p, *, Generator? generator=None) -> Tensor
    """
    dtype = x.dtype if x.dtype.is_floating and x.dtype.size >= 4 else tf.float32
    chance = tf.cast(x, dtype) if p is None else constant(p, dtype)
    return tf.cast(tf.random.uniform(tf.shape(x), dtype=dtype) < chance, x.dtype)


@rule("sym_size.int")
def sym_size(x: tf.Tensor, dim: int) -> Size:
    """Size of an axis.

    Schema::

        aten::sym_size.int(Tensor self, int dim) -> SymInt
    """
    return size_of(x, dim)


@rule("sym_numel.default")
def sym_numel(x: tf.Tensor) -> Size:
    """Number of elements.

    Schema::

        aten::sym_numel(Tensor self) -> SymInt
    """
    count = x.shape.num_elements()
    return tf.size(x) if count is None else count
