"""Operators that look up and write by index."""

from collections.abc import Sequence

import tensorflow as tf

from tf_pipeline.layers.products import gather_rows, lookup
from tf_pipeline.port.rules.elementwise import cast
from tf_pipeline.port.rules.registry import Number, Size, axis_of, constant, is_static, promote, rule, size_of, sizes_of
from tf_pipeline.port.rules.shape import slice_tensor


@rule("embedding.default")
def embedding(
    weight: tf.Tensor, indices: tf.Tensor, padding_idx: int = -1, scale_grad: bool = False, sparse: bool = False
) -> tf.Tensor:
    """Rows of a table ``[num, dim]`` by index ``[...]``; the row ``padding_idx`` gets no gradient.

    Schema::

        aten::embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, bool
            sparse=False) -> Tensor
    """
    return lookup(weight, indices, padding_idx if padding_idx >= 0 else None)


def _from_front(index: tf.Tensor, size: Size) -> tf.Tensor:
    """Indices counted from the front."""
    return tf.where(index < 0, index + tf.cast(size, index.dtype), index)


def _coordinates(x: tf.Tensor, index: tf.Tensor, axis: int) -> tf.Tensor:
    """Coordinates in ``x`` of each element of ``index``, which follows ``x`` along all other axes; ``[..., rank]``."""
    shape = tf.shape(index, index.dtype)
    grid = []
    for i in range(x.shape.rank):
        if i == axis:
            grid.append(_from_front(index, size_of(x, axis)))
        else:
            steps = tf.reshape(tf.range(shape[i]), [-1 if i == j else 1 for j in range(x.shape.rank)])
            grid.append(tf.broadcast_to(steps, shape))
    return tf.stack(grid, -1)


@rule("gather.default")
def gather(x: tf.Tensor, dim: int, index: tf.Tensor, sparse_grad: bool = False) -> tf.Tensor:
    """The elements of ``x`` at ``index`` along an axis; ``index`` may be shorter along the others.

    Schema::

        aten::gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor
    """
    if not x.shape.rank:
        return x
    axis = axis_of(x, dim)
    same = all(a is not None and a == b for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True)) if i != axis)
    if same and axis == x.shape.rank - 1:
        return tf.gather(x, _from_front(index, size_of(x, axis)), batch_dims=axis)
    return tf.gather_nd(x, _coordinates(x, index, axis))


@rule("index_select.default")
def index_select(x: tf.Tensor, dim: int, index: tf.Tensor) -> tf.Tensor:
    """The slices of ``x`` at ``index`` along an axis.

    Schema::

        aten::index_select(Tensor self, int dim, Tensor index) -> Tensor
    """
    axis = axis_of(x, dim)
    index = _from_front(index, size_of(x, axis))
    return tf.gather(x, index, axis=axis) if axis else gather_rows(x, index)


def _as_integers(indices: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Masks as the indices of their true elements, one for each of their axes."""
    result: list[tf.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype.is_bool:
            result.extend(tf.unstack(tf.where(index), num=index.shape.rank, axis=-1))
        else:
            result.append(index if index is None else tf.cast(index, tf.int64))
    return result


def _indexed_axes(indices: Sequence[tf.Tensor | None]) -> tuple[list[int], int]:
    """The axes that are indexed, and where the result has the axes of the indices, as in NumPy."""
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    adjacent = axes[-1] - axes[0] == len(axes) - 1
    return axes, axes[0] if adjacent else 0


def _together(x: tf.Tensor, indices: Sequence[tf.Tensor | None], axes: list[int]) -> tf.Tensor:
    """The indices of some axes as coordinates ``[..., axes]``, broadcast against each other."""
    front = [_from_front(indices[axis], size_of(x, axis)) for axis in axes]
    shape = tf.shape(front[0])
    for index in front[1:]:
        shape = tf.broadcast_dynamic_shape(shape, tf.shape(index))
    rank = max(index.shape.rank for index in front)
    coordinates = tf.stack([tf.broadcast_to(index, shape) for index in front], -1)
    return tf.ensure_shape(coordinates, [None] * rank + [len(axes)])


@rule("index.Tensor", "_unsafe_index.Tensor")
def index_tensor(x: tf.Tensor, indices: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """NumPy's indexing by arrays: ``x[indices]``.

    Schemas::

        aten::index.Tensor(Tensor self, Tensor?[] indices) -> Tensor
        aten::_unsafe_index.Tensor(Tensor self, Tensor?[] indices) -> Tensor
    """
    indices = _as_integers(indices)
    axes, place = _indexed_axes(indices)
    rest = [axis for axis in range(x.shape.rank) if axis not in axes]
    moved = tf.transpose(x, axes + rest) if axes != list(range(len(axes))) else x
    if len(axes) == 1:
        index = _from_front(indices[axes[0]], size_of(x, axes[0]))
        result, rank = gather_rows(moved, index), index.shape.rank
    else:
        coordinates = _together(x, indices, axes)
        result, rank = tf.gather_nd(moved, coordinates), coordinates.shape.rank - 1
    if not place:
        return result
    order = [*range(rank, rank + place), *range(rank), *range(rank + place, rank + len(rest))]
    return tf.transpose(result, order)


@rule("index_put.default", "_unsafe_index_put.default")
def index_put(
    x: tf.Tensor, indices: Sequence[tf.Tensor | None], values: tf.Tensor, accumulate: bool = False
) -> tf.Tensor:
    """``x`` with ``values`` written, or added, at ``x[indices]``.

    Schemas::

        aten::index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor
        aten::_unsafe_index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor
    """
    if len(indices) == 1 and indices[0].dtype.is_bool and not values.shape.rank and not accumulate:
        mask = indices[0]
        return tf.where(tf.reshape(mask, sizes_of(mask) + [1] * (x.shape.rank - mask.shape.rank)), values, x)
    indices = _as_integers(indices)
    axes, _ = _indexed_axes(indices)
    rest = [axis for axis in range(x.shape.rank) if axis not in axes]
    if axes != list(range(len(axes))):
        raise NotImplementedError("index_put behind axes that are not indexed")
    coordinates = _together(x, indices, axes)
    shape = tf.concat([tf.shape(coordinates)[:-1], [size_of(x, axis) for axis in rest]], 0)
    updates = tf.broadcast_to(tf.cast(values, x.dtype), shape)
    return _write(x, coordinates, updates, "sum" if accumulate else None)


def _write(x: tf.Tensor, coordinates: tf.Tensor, updates: tf.Tensor, reduction: str | None) -> tf.Tensor:
    """``x`` with updates at coordinates ``[..., axes]``; booleans and half precision by way of a type that can."""
    dtype = x.dtype
    if dtype.is_bool:
        x, updates = tf.cast(x, tf.int32), tf.cast(updates, tf.int32)
    function = {
        None: tf.tensor_scatter_nd_update,
        "sum": tf.tensor_scatter_nd_add,
        "amax": tf.tensor_scatter_nd_max,
        "amin": tf.tensor_scatter_nd_min,
    }[reduction]
    return cast(function(x, coordinates, updates), dtype)


@rule("scatter.src", "scatter.value")
def scatter(x: tf.Tensor, dim: int, index: tf.Tensor, src: tf.Tensor | Number, **_) -> tf.Tensor:
    """``x`` with ``src`` written at ``index`` along an axis.

    Schemas::

        aten::scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
        aten::scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor
    """
    coordinates = _coordinates(x, index, axis_of(x, dim))
    return _write(x, coordinates, _matching(src, index, x.dtype), None)


def _matching(src: tf.Tensor | Number, index: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The part of ``src`` that has an index."""
    if not tf.is_tensor(src) or not src.shape.rank:
        return tf.fill(tf.shape(index), constant(src, dtype))
    return tf.cast(tf.slice(src, [0] * src.shape.rank, tf.shape(index)), dtype)


@rule("scatter_add.default")
def scatter_add(x: tf.Tensor, dim: int, index: tf.Tensor, src: tf.Tensor) -> tf.Tensor:
    """``x`` with ``src`` added at ``index`` along an axis.

    Schema::

        aten::scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
    """
    return _write(x, _coordinates(x, index, axis_of(x, dim)), _matching(src, index, x.dtype), "sum")


@rule("scatter_reduce.two")
def scatter_reduce(
    x: tf.Tensor, dim: int, index: tf.Tensor, src: tf.Tensor, reduce: str, include_self: bool = True
) -> tf.Tensor:
    """``x`` with ``src`` combined at ``index`` along an axis.

    Schema::

        aten::scatter_reduce.two(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True)
            -> Tensor
    """
    if reduce not in ("sum", "mean", "amax", "amin"):
        raise NotImplementedError(f"scatter_reduce by {reduce!r}")
    coordinates, src = _coordinates(x, index, axis_of(x, dim)), _matching(src, index, x.dtype)
    if not include_self:  # what is written to starts from the value that leaves any other as it is
        neutral = {"amax": x.dtype.min, "amin": x.dtype.max}.get(reduce, 0)
        x = _write(x, coordinates, tf.fill(tf.shape(index), constant(neutral, x.dtype)), None)
    if reduce != "mean":
        return _write(x, coordinates, src, reduce)
    counts = _write(tf.fill(tf.shape(x), constant(int(include_self), x.dtype)), coordinates, tf.ones_like(src), "sum")
    divide = tf.divide if x.dtype.is_floating else tf.math.floordiv
    return divide(_write(x, coordinates, src, "sum"), tf.maximum(counts, 1))


@rule("index_add.default")
def index_add(x: tf.Tensor, dim: int, index: tf.Tensor, source: tf.Tensor, alpha: Number = 1) -> tf.Tensor:
    """``x`` with slices of ``source`` added at ``index`` along an axis.

    Schema::

        aten::index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor
    """
    order = list(range(x.shape.rank))
    axis = axis_of(x, dim)
    order[0], order[axis] = order[axis], order[0]
    source = tf.cast(source, x.dtype) * constant(alpha, x.dtype)
    rows = _from_front(index, size_of(x, axis))[:, tf.newaxis]
    return tf.transpose(tf.tensor_scatter_nd_add(tf.transpose(x, order), rows, tf.transpose(source, order)), order)


@rule("index_copy.default", "index_fill.int_Scalar", "index_fill.int_Tensor")
def index_copy(x: tf.Tensor, dim: int, index: tf.Tensor, source: tf.Tensor | Number) -> tf.Tensor:
    """``x`` with slices of ``source``, or one value, at ``index`` along an axis.

    Schemas::

        aten::index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor
        aten::index_fill.int_Scalar(Tensor self, int dim, Tensor index, Scalar value) -> Tensor
        aten::index_fill.int_Tensor(Tensor self, int dim, Tensor index, Tensor value) -> Tensor
    """
    order = list(range(x.shape.rank))
    axis = axis_of(x, dim)
    order[0], order[axis] = order[axis], order[0]
    moved, rows = tf.transpose(x, order), _from_front(index, size_of(x, axis))
    updates = tf.cast(source, x.dtype) if tf.is_tensor(source) else constant(source, x.dtype)
    updates = (
        tf.transpose(updates, order)
        if updates.shape.rank
        else tf.broadcast_to(updates, tf.concat([tf.shape(rows), tf.shape(moved)[1:]], 0))
    )
    return tf.transpose(_write(moved, rows[:, tf.newaxis], updates, None), order)


@rule("slice_scatter.default")
def slice_scatter(
    x: tf.Tensor, src: tf.Tensor, dim: int = 0, start: Size | None = None, end: Size | None = None, step: int = 1
) -> tf.Tensor:
    """``x`` with ``src`` in place of ``x[start:end:step]`` along an axis.

    Schema::

        aten::slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) ->
            Tensor
    """
    axis = axis_of(x, dim)
    steps = slice_tensor(tf.range(size_of(x, axis)), 0, start, end, step)
    return index_copy(x, axis, steps, tf.broadcast_to(tf.cast(src, x.dtype), _with_size(x, axis, tf.size(steps))))


def _with_size(x: tf.Tensor, axis: int, size: Size) -> tf.Tensor:
    return tf.stack([size if i == axis else s for i, s in enumerate(sizes_of(x))])


@rule("select_scatter.default")
def select_scatter(x: tf.Tensor, src: tf.Tensor, dim: int, index: Size) -> tf.Tensor:
    """``x`` with ``src`` in place of one slice along an axis.

    Schema::

        aten::select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor
    """
    axis = axis_of(x, dim)
    chosen = tf.range(size_of(x, axis)) == (index + size_of(x, axis) if is_static(index) and index < 0 else index)
    chosen = tf.reshape(chosen, [-1 if i == axis else 1 for i in range(x.shape.rank)])
    return tf.where(chosen, tf.expand_dims(tf.cast(src, x.dtype), axis), x)


@rule("masked_scatter.default")
def masked_scatter(x: tf.Tensor, mask: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
    """``x`` with the elements of ``source``, one after the other, where ``mask``.

    Schema::

        aten::masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor
    """
    places = tf.where(tf.broadcast_to(mask, tf.shape(x)))
    return _write(x, places, tf.reshape(source, [-1])[: tf.shape(places)[0]], None)


@rule("nonzero.default")
def nonzero(x: tf.Tensor) -> tf.Tensor:
    """Coordinates of the elements that are not zero ``[number, rank]``.

    Schema::

        aten::nonzero(Tensor self) -> Tensor
    """
    return tf.where(cast(x, tf.bool))


@rule("masked_select.default")
def masked_select(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The elements where ``mask``, as a vector.

    Schema::

        aten::masked_select(Tensor self, Tensor mask) -> Tensor
    """
    shape = tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(mask))
    return tf.boolean_mask(tf.broadcast_to(x, shape), tf.broadcast_to(mask, shape))


@rule("searchsorted.Tensor", "searchsorted.Scalar")
def searchsorted(
    sequence: tf.Tensor, values: tf.Tensor | Number, *, out_int32: bool = False, right: bool = False, side=None, **_
) -> tf.Tensor:
    """Places of values in a sorted sequence.

    Schemas::

        aten::searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False, bool right=False, str?
            side=None, Tensor? sorter=None) -> Tensor
        aten::searchsorted.Scalar(Tensor sorted_sequence, Scalar self, *, bool out_int32=False, bool right=False, str?
            side=None, Tensor? sorter=None) -> Tensor
    """
    sequence, values = promote(sequence, values)
    side = side or ("right" if right else "left")
    if sequence.shape.rank == 1:
        flat = tf.searchsorted(sequence, tf.reshape(values, [-1]), side, tf.int64)
        return tf.reshape(flat, tf.shape(values))
    return tf.searchsorted(sequence, values, side, tf.int64)


@rule("bucketize.Tensor", "bucketize.Scalar")
def bucketize(values: tf.Tensor | Number, boundaries: tf.Tensor, *, right: bool = False, **_) -> tf.Tensor:
    """The bucket that each value falls into.

    Schemas::

        aten::bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor
        aten::bucketize.Scalar(Scalar self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor
    """
    return searchsorted(boundaries, values, right=right)
