"""Operators that reduce, accumulate, order and count."""

import math
from collections.abc import Sequence

import tensorflow as tf

from tf_pipeline.port.rules.elementwise import cast
from tf_pipeline.port.rules.registry import Number, Size, axes_of, axis_of, constant, rule, size_of

Dims = int | Sequence[int] | None


@rule("sum.default", "sum.dim_IntList")
def sum_(x: tf.Tensor, dim: Dims = None, keepdim: bool = False, *, out_dtype: tf.DType, **_) -> tf.Tensor:
    """The sum over axes, in float32 for half precision.

    Schemas::

        aten::sum(Tensor self, *, ScalarType? dtype=None) -> Tensor
        aten::sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
    """
    x = tf.cast(x, out_dtype)
    wide = tf.cast(x, tf.float32) if out_dtype.is_floating and out_dtype.size < 4 else x
    return tf.reduce_sum(wide, axes_of(x, dim), keepdim)


@rule("mean.default", "mean.dim")
def mean(x: tf.Tensor, dim: Dims = None, keepdim: bool = False, *, out_dtype: tf.DType, **_) -> tf.Tensor:
    """The mean over axes, in float32 for half precision.

    Schemas::

        aten::mean(Tensor self, *, ScalarType? dtype=None) -> Tensor
        aten::mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
    """
    wide = tf.cast(x, tf.float32 if out_dtype.size < 4 else out_dtype)
    return tf.reduce_mean(wide, axes_of(x, dim), keepdim)


@rule("prod.default", "prod.dim_int")
def prod(x: tf.Tensor, dim: int | None = None, keepdim: bool = False, *, out_dtype: tf.DType, **_) -> tf.Tensor:
    """The product over an axis.

    Schemas::

        aten::prod(Tensor self, *, ScalarType? dtype=None) -> Tensor
        aten::prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
    """
    return tf.reduce_prod(tf.cast(x, out_dtype), axes_of(x, dim), keepdim)


@rule("amax.default", "max.default")
def amax(x: tf.Tensor, dim: Dims = None, keepdim: bool = False) -> tf.Tensor:
    """The largest over axes.

    Schemas::

        aten::amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor
        aten::max(Tensor self) -> Tensor
    """
    return tf.reduce_max(x, axes_of(x, dim), keepdim)


@rule("amin.default", "min.default")
def amin(x: tf.Tensor, dim: Dims = None, keepdim: bool = False) -> tf.Tensor:
    """The smallest over axes.

    Schemas::

        aten::amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor
        aten::min(Tensor self) -> Tensor
    """
    return tf.reduce_min(x, axes_of(x, dim), keepdim)


@rule("max.dim")
def max_dim(x: tf.Tensor, dim: int, keepdim: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest along an axis, and where.

    Schema::

        aten::max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)
    """
    return amax(x, dim, keepdim), argmax(x, dim, keepdim)


@rule("min.dim")
def min_dim(x: tf.Tensor, dim: int, keepdim: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """The smallest along an axis, and where.

    Schema::

        aten::min.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)
    """
    return amin(x, dim, keepdim), argmin(x, dim, keepdim)


def _place(x: tf.Tensor, dim: int | None, keepdim: bool, function) -> tf.Tensor:
    x = cast(x, tf.int32) if x.dtype.is_bool else x
    if dim is None:
        place = function(tf.reshape(x, [-1]), 0, output_type=tf.int64)
        return tf.reshape(place, [1] * x.shape.rank) if keepdim else place
    place = function(x, axis_of(x, dim), output_type=tf.int64)
    return tf.expand_dims(place, dim) if keepdim else place


@rule("argmax.default")
def argmax(x: tf.Tensor, dim: int | None = None, keepdim: bool = False) -> tf.Tensor:
    """Index of the largest element, the first among equals.

    Schema::

        aten::argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor
    """
    return _place(x, dim, keepdim, tf.argmax)


@rule("argmin.default")
def argmin(x: tf.Tensor, dim: int | None = None, keepdim: bool = False) -> tf.Tensor:
    """Index of the smallest element, the first among equals.

    Schema::

        aten::argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor
    """
    return _place(x, dim, keepdim, tf.argmin)


@rule("any.default", "any.dim", "any.dims")
def any_(x: tf.Tensor, dim: Dims = None, keepdim: bool = False) -> tf.Tensor:
    """Whether any is true.

    Schemas::

        aten::any(Tensor self) -> Tensor
        aten::any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor
        aten::any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor
    """
    return tf.reduce_any(cast(x, tf.bool), axes_of(x, dim), keepdim)


@rule("all.default", "all.dim", "all.dims")
def all_(x: tf.Tensor, dim: Dims = None, keepdim: bool = False) -> tf.Tensor:
    """Whether all are true.

    Schemas::

        aten::all(Tensor self) -> Tensor
        aten::all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor
        aten::all.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor
    """
    return tf.reduce_all(cast(x, tf.bool), axes_of(x, dim), keepdim)


@rule("count_nonzero.default", "count_nonzero.dim_IntList")
def count_nonzero(x: tf.Tensor, dim: Dims = None) -> tf.Tensor:
    """Number of elements that are not zero.

    Schemas::

        aten::count_nonzero(Tensor self, int? dim=None) -> Tensor
        aten::count_nonzero.dim_IntList(Tensor self, int[] dim) -> Tensor
    """
    return tf.math.count_nonzero(x, axes_of(x, dim), dtype=tf.int64)


def _moments(x: tf.Tensor, dim: Dims, correction: Number | None, keepdim: bool) -> tuple[tf.Tensor, tf.Tensor]:
    axes = axes_of(x, dim)
    wide = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
    centre = tf.reduce_mean(wide, axes, keepdims=True)
    squares = tf.reduce_sum(tf.square(wide - centre), axes, keepdims=keepdim)
    count = constant(1, wide.dtype)
    for axis in axes:
        count *= constant(size_of(x, axis), wide.dtype)
    freedom = tf.maximum(count - constant(1 if correction is None else correction, wide.dtype), constant(0, wide.dtype))
    return squares / freedom, centre if keepdim else tf.squeeze(centre, axes)


@rule("var.correction", "var.dim", "var.default")
def var(
    x: tf.Tensor,
    dim: Dims | bool = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Number | None = None,
):
    """The variance over axes; the sum of squares is divided by the number of elements less ``correction``.

    Schemas::

        aten::var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor
        aten::var.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor
        aten::var(Tensor self, bool unbiased=True) -> Tensor
    """
    if isinstance(dim, bool):  # the overload without axes
        dim, unbiased = None, dim
    return _moments(x, dim, int(unbiased) if correction is None else correction, keepdim)[0]


@rule("std.correction", "std.dim", "std.default")
def std(
    x: tf.Tensor,
    dim: Dims | bool = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Number | None = None,
):
    """The standard deviation over axes; see :func:`var`.

    Schemas::

        aten::std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor
        aten::std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor
        aten::std(Tensor self, bool unbiased=True) -> Tensor
    """
    return tf.sqrt(var(x, dim, unbiased, keepdim, correction=correction))


@rule("var_mean.correction")
def var_mean(x: tf.Tensor, dim: Dims = None, *, correction: Number | None = None, keepdim: bool = False):
    """Variance and mean over axes; see :func:`var`.

    Schema::

        aten::var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) ->
            (Tensor, Tensor)
    """
    return _moments(x, dim, correction, keepdim)


@rule("logsumexp.default")
def logsumexp(x: tf.Tensor, dim: Dims, keepdim: bool = False) -> tf.Tensor:
    """The logarithm of the sum of exponentials over axes.

    Schema::

        aten::logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor
    """
    return tf.reduce_logsumexp(x, axes_of(x, dim), keepdim)


@rule("linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.Scalar")
def vector_norm(
    x: tf.Tensor, order: Number | None = 2, dim: Dims = None, keepdim: bool = False, *, out_dtype: tf.DType, **_
) -> tf.Tensor:
    """The norm over axes: the Euclidean one, or of another order.

    Schemas::

        aten::linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, ScalarType?
            dtype=None) -> Tensor
        aten::norm.ScalarOpt_dim(Tensor self, Scalar? p, int[1] dim, bool keepdim=False) -> Tensor
        aten::norm.Scalar(Tensor self, Scalar p=2) -> Tensor
    """
    x, axes = tf.cast(x, out_dtype), axes_of(x, dim)
    if order in (None, 2):
        return tf.sqrt(tf.reduce_sum(tf.square(x), axes, keepdim))
    if order == math.inf:
        return tf.reduce_max(tf.abs(x), axes, keepdim)
    if order == 1:
        return tf.reduce_sum(tf.abs(x), axes, keepdim)
    return tf.pow(tf.reduce_sum(tf.pow(tf.abs(x), order), axes, keepdim), constant(1 / order, out_dtype))


@rule("softmax.int", "_softmax.default")
def softmax(x: tf.Tensor, dim: int, *_, out_dtype: tf.DType, **__) -> tf.Tensor:
    """Softmax along an axis, in float32 for half precision.

    Schemas::

        aten::softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor
        aten::_softmax(Tensor self, int dim, bool half_to_float) -> Tensor
    """
    wide = tf.cast(x, tf.float32 if out_dtype.size < 4 else out_dtype)
    return tf.nn.softmax(wide, dim) if x.shape.rank else tf.ones_like(wide)


@rule("log_softmax.int", "_log_softmax.default")
def log_softmax(x: tf.Tensor, dim: int, *_, out_dtype: tf.DType, **__) -> tf.Tensor:
    """The logarithm of the softmax along an axis, in float32 for half precision.

    Schemas::

        aten::log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor
        aten::_log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor
    """
    return tf.nn.log_softmax(tf.cast(x, tf.float32 if out_dtype.size < 4 else out_dtype), dim)


# ------------------------------------------------------------------------------------------------------ accumulation


@rule("cumsum.default")
def cumsum(x: tf.Tensor, dim: int, *, out_dtype: tf.DType, **_) -> tf.Tensor:
    """The sum of the elements so far.

    Schema::

        aten::cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor
    """
    x = tf.cast(x, out_dtype)
    wide = tf.cast(x, tf.float32) if out_dtype.is_floating and out_dtype.size < 4 else x
    return tf.cumsum(wide, axis_of(x, dim)) if x.shape.rank else x


@rule("cumprod.default")
def cumprod(x: tf.Tensor, dim: int, *, out_dtype: tf.DType, **_) -> tf.Tensor:
    """The product of the elements so far.

    Schema::

        aten::cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor
    """
    return tf.math.cumprod(tf.cast(x, out_dtype), axis_of(x, dim))


@rule("logcumsumexp.default")
def logcumsumexp(x: tf.Tensor, dim: int) -> tf.Tensor:
    """The logarithm of the sum of the exponentials so far.

    Schema::

        aten::logcumsumexp(Tensor self, int dim) -> Tensor
    """
    return tf.math.cumulative_logsumexp(x, axis_of(x, dim))


@rule("cummax.default")
def cummax(x: tf.Tensor, dim: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest so far, and where; the last of equals, as in PyTorch.

    Schema::

        aten::cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)
    """
    axis = axis_of(x, dim)
    size = size_of(x, axis)
    moved = tf.experimental.numpy.moveaxis(x, axis, -1)
    steps = tf.range(size)
    past = steps[tf.newaxis, :] <= steps[:, tf.newaxis]
    lowest = tf.constant(x.dtype.min, x.dtype)
    table = tf.where(past, moved[..., tf.newaxis, :], lowest)
    largest = tf.reduce_max(table, -1)
    last = tf.reduce_max(tf.where(past & (table == largest[..., tf.newaxis]), steps, -1), -1)
    back = [tf.experimental.numpy.moveaxis(value, -1, axis) for value in (largest, tf.cast(last, tf.int64))]
    return back[0], back[1]


# ------------------------------------------------------------------------------------------------------------- order


def _last(x: tf.Tensor, dim: int) -> list[int]:
    """The order of axes that exchanges ``dim`` and the last axis."""
    order = list(range(x.shape.rank))
    axis = axis_of(x, dim)
    order[axis], order[-1] = order[-1], order[axis]
    return order


def _sortable(x: tf.Tensor) -> tf.Tensor:
    return cast(x, tf.int32) if x.dtype.is_bool else x


@rule("sort.default", "sort.stable")
def sort(x: tf.Tensor, *arguments, dim: int = -1, descending: bool = False, **_) -> tuple[tf.Tensor, tf.Tensor]:
    """Elements in order along an axis, and where they were; equals stay in order.

    Schemas::

        aten::sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)
        aten::sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) -> (Tensor values, Tensor
            indices)
    """
    positional = [value for value in arguments if value is not None]
    flags = positional[1:] if len(positional) > 1 and isinstance(positional[0], bool) else positional
    dim, descending = [*flags, *[dim, descending][len(flags) :]][:2]
    if not x.shape.rank:
        return x, tf.zeros([], tf.int64)
    direction = "DESCENDING" if descending else "ASCENDING"
    places = tf.argsort(_sortable(x), axis_of(x, dim), direction, stable=True)
    return _gather_along(x, places, dim), tf.cast(places, tf.int64)


def _gather_along(x: tf.Tensor, places: tf.Tensor, dim: int) -> tf.Tensor:
    order = _last(x, dim)
    x, places = tf.transpose(x, order), tf.transpose(places, order)
    return tf.transpose(tf.gather(x, places, batch_dims=x.shape.rank - 1), order)


@rule("argsort.default", "argsort.stable")
def argsort(x: tf.Tensor, *arguments, **options) -> tf.Tensor:
    """Indices that put the elements in order; see :func:`sort`.

    Schemas::

        aten::argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor
        aten::argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) -> Tensor
    """
    return sort(x, *arguments, **options)[1]


@rule("topk.default")
def topk(x: tf.Tensor, k: Size, dim: int = -1, largest: bool = True, sorted: bool = True):
    """The ``k`` largest along an axis in order, and where they are.

    Schema::

        aten::topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor
            indices)
    """
    order = _last(x, dim)
    moved = tf.transpose(x, order)
    values, places = tf.math.top_k(moved if largest else -moved, k)
    values = values if largest else -values
    return tf.transpose(values, order), tf.cast(tf.transpose(places, order), tf.int64)


@rule("kthvalue.default")
def kthvalue(x: tf.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """The ``k``-th smallest along an axis, and where it is.

    Schema::

        aten::kthvalue(Tensor self, SymInt k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)
    """
    values, places = sort(x, dim)
    axis = axis_of(x, dim)
    pick = [tf.gather(value, k - 1, axis=axis) for value in (values, places)]
    pick = [tf.expand_dims(value, axis) for value in pick] if keepdim else pick
    return pick[0], pick[1]


# ------------------------------------------------------------------------------------------------------------- counts


@rule("histc.default")
def histc(x: tf.Tensor, bins: int = 100, min: Number = 0, max: Number = 0) -> tf.Tensor:
    """Number of elements in each of ``bins`` equal intervals; those outside do not count.

    Schema::

        aten::histc(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor
    """
    x = tf.reshape(x, [-1])
    if min == max:
        low, high = tf.reduce_min(x), tf.reduce_max(x)
        low, high = tf.where(low == high, low - 1, low), tf.where(low == high, high + 1, high)
    else:
        low, high = constant(min, x.dtype), constant(max, x.dtype)
    place = tf.cast(tf.floor((x - low) * constant(bins, x.dtype) / (high - low)), tf.int32)
    place = tf.minimum(place, bins - 1)
    counted = (x >= low) & (x <= high)
    ones = tf.cast(counted, x.dtype)
    return tf.math.unsorted_segment_sum(ones, tf.where(counted, place, 0), bins)


@rule("bincount.default")
def bincount(x: tf.Tensor, weights: tf.Tensor | None = None, minlength: Size = 0) -> tf.Tensor:
    """Number of times that each number from 0 on occurs.

    Schema::

        aten::bincount(Tensor self, Tensor? weights=None, SymInt minlength=0) -> Tensor
    """
    largest = tf.reduce_max(tf.concat([tf.cast(x, tf.int32), [-1]], 0)) + 1
    ones = tf.ones_like(x, tf.int64) if weights is None else weights
    return tf.math.unsorted_segment_sum(ones, x, tf.maximum(largest, minlength))
