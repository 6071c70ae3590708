"""Operators that rearrange: shapes, axes, slices, joins, padding."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_pipeline.port.rules.registry import (
    Number,
    Size,
    as_shape,
    axes_of,
    axis_of,
    constant,
    is_static,
    promote,
    rule,
    size_of,
    sizes_of,
)

# ------------------------------------------------------------------------------------------------------------ shapes


@rule("view.default", "reshape.default", "_unsafe_view.default", "view_copy.default", "_reshape_alias.default")
def view(x: tf.Tensor, size: Sequence[Size], *_: Any) -> tf.Tensor:
    """``x`` in another shape; one open axis is left to TensorFlow, which then knows the others.

    Schemas::

        aten::view(Tensor(a) self, SymInt[] size) -> Tensor(a)
        aten::reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)
        aten::_unsafe_view(Tensor self, SymInt[] size) -> Tensor
        aten::view_copy(Tensor self, SymInt[] size) -> Tensor
        aten::_reshape_alias(Tensor(a) self, SymInt[] size, SymInt[] stride) -> Tensor(a)
    """
    sizes = list(size)
    if -1 not in [s for s in sizes if is_static(s)] and sum(not is_static(s) for s in sizes) == 1:
        # A size of zero elsewhere would leave -1 undetermined.
        if all(s != 0 for s in sizes if is_static(s)):
            sizes = [s if is_static(s) else -1 for s in sizes]
    return tf.reshape(x, as_shape(sizes))


@rule("view.dtype")
def view_dtype(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The same bits as another dtype.

    Schema::

        aten::view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)
    """
    return tf.bitcast(x, dtype)


@rule("flatten.using_ints")
def flatten(x: tf.Tensor, start_dim: int = 0, end_dim: int = -1) -> tf.Tensor:
    """The axes from ``start_dim`` to ``end_dim`` as one.

    Schema::

        aten::flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)
    """
    start, end, sizes = axis_of(x, start_dim), axis_of(x, end_dim), sizes_of(x)
    return view(x, [*sizes[:start], -1, *sizes[end + 1 :]])


@rule("unflatten.int")
def unflatten(x: tf.Tensor, dim: int, sizes: Sequence[Size]) -> tf.Tensor:
    """One axis as several.

    Schema::

        aten::unflatten.int(Tensor(a) self, int dim, SymInt[] sizes) -> Tensor(a)
    """
    own, axis = sizes_of(x), axis_of(x, dim)
    return view(x, [*own[:axis], *sizes, *own[axis + 1 :]])


@rule("squeeze.default", "squeeze.dim", "squeeze.dims")
def squeeze(x: tf.Tensor, dim: int | Sequence[int] | None = None) -> tf.Tensor:
    """Without axes of size 1; an axis of another size stays.

    Schemas::

        aten::squeeze(Tensor(a) self) -> Tensor(a)
        aten::squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)
        aten::squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)
    """
    axes = [axis for axis in axes_of(x, dim) if x.shape.rank and x.shape[axis] == 1]
    return tf.squeeze(x, axes) if axes else x  # no axes would mean all of them


@rule("unsqueeze.default")
def unsqueeze(x: tf.Tensor, dim: int) -> tf.Tensor:
    """With an axis of size 1 more.

    Schema::

        aten::unsqueeze(Tensor(a) self, int dim) -> Tensor(a)
    """
    return tf.expand_dims(x, dim)


def _same_size(first: Size, second: Size) -> bool:
    return first is second or (is_static(first) and is_static(second) and first == second)


@rule("expand.default", "expand_copy.default", "broadcast_to.default")
def expand(x: tf.Tensor, size: Sequence[Size], implicit: bool = False) -> tf.Tensor:
    """``x`` repeated along axes of size 1; -1 keeps an axis.

    Schemas::

        aten::expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)
        aten::expand_copy(Tensor self, SymInt[] size, *, bool implicit=False) -> Tensor
        aten::broadcast_to(Tensor(a) self, SymInt[] size) -> Tensor(a)
    """
    own = [1] * (len(size) - x.shape.rank) + sizes_of(x)
    sizes = [o if is_static(s) and s == -1 else s for s, o in zip(size, own, strict=True)]
    if x.shape.rank == len(size) and all(map(_same_size, sizes, own)):
        return x
    return tf.broadcast_to(x, as_shape(sizes))


@rule("expand_as.default")
def expand_as(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """``x`` in the shape of ``other``.

    Schema::

        aten::expand_as(Tensor(a) self, Tensor other) -> Tensor(a)
    """
    return expand(x, sizes_of(other))


@rule("broadcast_tensors.default")
def broadcast_tensors(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """All tensors in the shape that they have together.

    Schema::

        aten::broadcast_tensors(Tensor[] tensors) -> Tensor[]
    """
    shape = tf.shape(tensors[0])
    for x in tensors[1:]:
        shape = tf.broadcast_dynamic_shape(shape, tf.shape(x))
    return [tf.broadcast_to(x, shape) for x in tensors]


@rule("meshgrid.default", "meshgrid.indexing")
def meshgrid(tensors: Sequence[tf.Tensor], indexing: str = "ij") -> list[tf.Tensor]:
    """Coordinate grids of vectors.

    Schemas::

        aten::meshgrid(Tensor[] tensors) -> Tensor[]
        aten::meshgrid.indexing(Tensor[] tensors, *, str indexing) -> Tensor[]
    """
    return tf.meshgrid(*tensors, indexing=indexing)


@rule("repeat.default", "tile.default")
def repeat(x: tf.Tensor, repeats: Sequence[Size]) -> tf.Tensor:
    """``x`` repeated whole along each axis; missing axes are added in front.

    Schemas::

        aten::repeat(Tensor self, SymInt[] repeats) -> Tensor
        aten::tile(Tensor self, SymInt[] dims) -> Tensor
    """
    missing = len(repeats) - x.shape.rank
    repeats = [1] * -missing + list(repeats)
    return tf.tile(tf.reshape(x, as_shape([1] * missing + sizes_of(x))), as_shape(repeats))


@rule("repeat_interleave.self_int", "repeat_interleave.self_Tensor")
def repeat_interleave(
    x: tf.Tensor, repeats: Size | tf.Tensor, dim: int | None = None, output_size: Size | None = None
) -> tf.Tensor:
    """Each slice repeated before the next; of the flattened tensor if there is no ``dim``.

    Schemas::

        aten::repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *, SymInt? output_size=None) ->
            Tensor
        aten::repeat_interleave.self_Tensor(Tensor self, Tensor repeats, int? dim=None, *, SymInt? output_size=None) ->
            Tensor
    """
    return tf.repeat(x, repeats, axis=dim)


# -------------------------------------------------------------------------------------------------------------- axes


@rule("permute.default", "permute_copy.default")
def permute(x: tf.Tensor, dims: Sequence[int]) -> tf.Tensor:
    """Axes in another order.

    Schemas::

        aten::permute(Tensor(a) self, int[] dims) -> Tensor(a)
        aten::permute_copy(Tensor self, int[] dims) -> Tensor
    """
    return tf.transpose(x, axes_of(x, list(dims))) if dims else x


@rule("transpose.int", "swapaxes.default", "transpose_copy.int")
def transpose(x: tf.Tensor, dim0: int, dim1: int) -> tf.Tensor:
    """Two axes exchanged.

    Schemas::

        aten::transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)
        aten::swapaxes(Tensor(a) self, int axis0, int axis1) -> Tensor(a)
        aten::transpose_copy.int(Tensor self, int dim0, int dim1) -> Tensor
    """
    order = list(range(x.shape.rank))
    if order:
        first, second = axis_of(x, dim0), axis_of(x, dim1)
        order[first], order[second] = order[second], order[first]
    return tf.transpose(x, order)


@rule("t.default", "numpy_T.default", "mT.default", "adjoint.default")
def t(x: tf.Tensor) -> tf.Tensor:
    """The last two axes exchanged.

    Schemas::

        aten::t(Tensor(a) self) -> Tensor(a)
        aten::numpy_T(Tensor(a) self) -> Tensor(a)
        aten::mT(Tensor(a) self) -> Tensor(a)
        aten::adjoint(Tensor(a) self) -> Tensor(a)
    """
    return transpose(x, -1, -2) if x.shape.rank > 1 else x


@rule("movedim.int", "movedim.intlist", "moveaxis.int")
def movedim(x: tf.Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> tf.Tensor:
    """Axes moved to other places.

    Schemas::

        aten::movedim.int(Tensor(a) self, int source, int destination) -> Tensor(a)
        aten::movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)
        aten::moveaxis.int(Tensor(a) self, int source, int destination) -> Tensor(a)
    """
    places = dict(zip(axes_of(x, _listed(destination)), axes_of(x, _listed(source)), strict=True))
    rest = iter(axis for axis in range(x.shape.rank) if axis not in places.values())
    return tf.transpose(x, [places[i] if i in places else next(rest) for i in range(x.shape.rank)])


def _listed(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


@rule("flip.default")
def flip(x: tf.Tensor, dims: Sequence[int]) -> tf.Tensor:
    """Axes reversed.

    Schema::

        aten::flip(Tensor self, int[] dims) -> Tensor
    """
    return tf.reverse(x, axes_of(x, list(dims))) if dims else x


@rule("roll.default")
def roll(x: tf.Tensor, shifts: Sequence[Size] | Size, dims: Sequence[int] | int = ()) -> tf.Tensor:
    """Elements moved along axes, those at the end to the front.

    Schema::

        aten::roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor
    """
    shifts = list(shifts) if isinstance(shifts, (list, tuple)) else [shifts]
    dims = [dims] if isinstance(dims, int) else list(dims)
    if not dims:
        return tf.reshape(tf.roll(tf.reshape(x, [-1]), shifts[0], 0), tf.shape(x))
    return tf.roll(x, as_shape(shifts), axes_of(x, dims))


@rule("diagonal.default", "diagonal_copy.default")
def diagonal(x: tf.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> tf.Tensor:
    """The diagonal of two axes, as the last axis.

    Schemas::

        aten::diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)
        aten::diagonal_copy(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor
    """
    x = movedim(x, [dim1, dim2], [-2, -1])
    return tf.linalg.diag_part(x, k=offset)


@rule("diag_embed.default")
def diag_embed(x: tf.Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> tf.Tensor:
    """Matrices with the last axis on their diagonal.

    Schema::

        aten::diag_embed(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor
    """
    matrices = tf.linalg.diag(x, k=offset)
    return movedim(matrices, [-2, -1], [dim1, dim2])


def _band(x: tf.Tensor, diagonal: Size, below: bool) -> tf.Tensor:
    rows, columns = size_of(x, -2), size_of(x, -1)
    distance = tf.range(columns)[tf.newaxis, :] - tf.range(rows)[:, tf.newaxis]
    return tf.where(distance <= diagonal if below else distance >= diagonal, x, tf.zeros([], x.dtype))


@rule("tril.default")
def tril(x: tf.Tensor, diagonal: Size = 0) -> tf.Tensor:
    """Zero above a diagonal.

    Schema::

        aten::tril(Tensor self, SymInt diagonal=0) -> Tensor
    """
    return _band(x, diagonal, below=True)


@rule("triu.default")
def triu(x: tf.Tensor, diagonal: Size = 0) -> tf.Tensor:
    """Zero below a diagonal.

    Schema::

        aten::triu(Tensor self, SymInt diagonal=0) -> Tensor
    """
    return _band(x, diagonal, below=False)


# ------------------------------------------------------------------------------------------------------------ slices

_LAST = 2**62  # what PyTorch writes for "to the end" is at least this


def _bound(index: Size | None, size: Size, default: Size) -> Size:
    """An index as PyTorch takes it in a slice: negative from the end, kept inside the axis."""
    if index is None:
        return default
    if is_static(index):
        if index >= _LAST:
            return size
        if is_static(size):
            return min(max(index + size if index < 0 else index, 0), size)
        if index == 0:
            return 0
        return tf.minimum(index, size) if index > 0 else tf.maximum(size + index, 0)
    index = tf.where(index < 0, index + size, index)
    return tf.clip_by_value(index, 0, size)


@rule("slice.Tensor", "slice_copy.Tensor")
def slice_tensor(
    x: tf.Tensor, dim: int = 0, start: Size | None = None, end: Size | None = None, step: int = 1
) -> tf.Tensor:
    """``x[start:end:step]`` along an axis.

    Schemas::

        aten::slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)
        aten::slice_copy.Tensor(Tensor self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor
    """
    axis = axis_of(x, dim)
    size = size_of(x, axis)
    start, end = _bound(start, size, 0), _bound(end, size, size)
    if is_static(start) and start == 0 and end is size and step == 1:
        return x
    return x[(slice(None),) * axis + (slice(start, end, step),)]


@rule("narrow.default")
def narrow(x: tf.Tensor, dim: int, start: Size, length: Size) -> tf.Tensor:
    """``length`` elements along an axis, from ``start`` on.

    Schema::

        aten::narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)
    """
    return slice_tensor(x, dim, start, start + length)


@rule("select.int", "select_copy.int")
def select(x: tf.Tensor, dim: int, index: Size) -> tf.Tensor:
    """One element along an axis, without the axis.

    Schemas::

        aten::select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)
        aten::select_copy.int(Tensor self, int dim, SymInt index) -> Tensor
    """
    axis = axis_of(x, dim)
    if not is_static(index):
        return tf.gather(x, tf.where(index < 0, index + size_of(x, axis), index), axis=axis)
    return x[(slice(None),) * axis + (index,)]


@rule("split_with_sizes.default", "split.sizes", "split_with_sizes_copy.default")
def split_with_sizes(x: tf.Tensor, split_sizes: Sequence[Size], dim: int = 0) -> list[tf.Tensor]:
    """Pieces of given sizes along an axis.

    Schemas::

        aten::split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]
        aten::split.sizes(Tensor(a -> *) self, SymInt[] split_size, int dim=0) -> Tensor(a)[]
        aten::split_with_sizes_copy(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]
    """
    return tf.split(x, as_shape(split_sizes), axis_of(x, dim), num=len(split_sizes))


@rule("split.Tensor", "split_copy.Tensor")
def split(x: tf.Tensor, split_size: Size, dim: int = 0, *, pieces: int) -> list[tf.Tensor]:
    """Pieces of one size along an axis; the last may be smaller.

    Schemas::

        aten::split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]
        aten::split_copy.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]
    """
    rest = size_of(x, axis_of(x, dim)) - split_size * (pieces - 1)
    return split_with_sizes(x, [*[split_size] * (pieces - 1), rest], dim)


@rule("chunk.default")
def chunk(x: tf.Tensor, chunks: int, dim: int = 0, *, pieces: int) -> list[tf.Tensor]:
    """At most ``chunks`` pieces along an axis, all but the last of one size.

    Schema::

        aten::chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]
    """
    return split(x, (size_of(x, axis_of(x, dim)) + chunks - 1) // chunks, dim, pieces=pieces)


@rule("tensor_split.sections")
def tensor_split(x: tf.Tensor, sections: int, dim: int = 0) -> list[tf.Tensor]:
    """``sections`` pieces along an axis, the first ones larger by one.

    Schema::

        aten::tensor_split.sections(Tensor(a -> *) self, SymInt sections, int dim=0) -> Tensor(a)[]
    """
    size = size_of(x, axis_of(x, dim))
    sizes = [(size + sections - 1 - i) // sections for i in range(sections)]
    return split_with_sizes(x, sizes, dim)


@rule("unbind.int")
def unbind(x: tf.Tensor, dim: int = 0, *, pieces: int) -> list[tf.Tensor]:
    """Every slice along an axis, without the axis.

    Schema::

        aten::unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]
    """
    return tf.unstack(x, pieces, axis_of(x, dim))


@rule("unfold.default")
def unfold(x: tf.Tensor, dimension: int, size: int, step: int) -> tf.Tensor:
    """Windows along an axis: their number in its place, their elements as a new last axis.

    Schema::

        aten::unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)
    """
    axis = axis_of(x, dimension)
    starts = tf.range(0, size_of(x, axis) - size + 1, step)
    windows = tf.gather(x, starts[:, tf.newaxis] + tf.range(size), axis=axis)
    return movedim(windows, axis + 1, -1)


@rule("as_strided.default")
def as_strided(x: tf.Tensor, size: Sequence[Size], stride: Sequence[Size], storage_offset: Size | None = None):
    """Elements of the flattened tensor at ``storage_offset`` plus a multiple of each stride.

    Schema::

        aten::as_strided(Tensor(a) self, SymInt[] size, SymInt[] stride, SymInt? storage_offset=None) -> Tensor(a)
    """
    index = tf.constant(0) + (storage_offset or 0)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        offsets = tf.range(length) * step
        index = tf.expand_dims(index, -1) + tf.reshape(offsets, [1] * axis + [-1])
    return tf.gather(tf.reshape(x, [-1]), index)


# ------------------------------------------------------------------------------------------------------------- joins


@rule("cat.default", "concat.default", "concatenate.default")
def cat(tensors: Sequence[tf.Tensor], dim: int = 0) -> tf.Tensor:
    """Tensors one after the other along an axis; empty vectors do not count, as in PyTorch.

    Schemas::

        aten::cat(Tensor[] tensors, int dim=0) -> Tensor
        aten::concat(Tensor[] tensors, int dim=0) -> Tensor
        aten::concatenate(Tensor[] tensors, int dim=0) -> Tensor
    """
    rank = max(x.shape.rank for x in tensors)
    tensors = [x for x in tensors if x.shape.rank == rank or x.shape != [0]]
    return tf.concat(promote(*tensors), axis_of(tensors[0], dim))


@rule("stack.default")
def stack(tensors: Sequence[tf.Tensor], dim: int = 0) -> tf.Tensor:
    """Tensors side by side along a new axis.

    Schema::

        aten::stack(Tensor[] tensors, int dim=0) -> Tensor
    """
    return tf.stack(promote(*tensors), dim)


@rule("hstack.default")
def hstack(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Tensors joined along the second axis, vectors along the first.

    Schema::

        aten::hstack(Tensor[] tensors) -> Tensor
    """
    return cat(tensors, 0 if tensors[0].shape.rank == 1 else 1)


@rule("vstack.default")
def vstack(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Tensors joined along the first axis, vectors as rows.

    Schema::

        aten::vstack(Tensor[] tensors) -> Tensor
    """
    return cat([x[tf.newaxis] if x.shape.rank == 1 else x for x in tensors], 0)


@rule("pad.default")
def pad(x: tf.Tensor, pad: Sequence[Size], mode: str = "constant", value: float | None = None) -> tf.Tensor:
    """More elements at both ends, for the last axis first; negative numbers cut.

    Schema::

        aten::pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor
    """
    if mode == "constant":
        return constant_pad(x, pad, 0 if value is None else value)
    paddings = [[0, 0]] * (x.shape.rank - len(pad) // 2) + _pairs(pad)
    if mode == "reflect":
        return tf.pad(x, paddings, "REFLECT")
    for axis, (before, after) in enumerate(paddings):
        size = size_of(x, axis)
        index = tf.range(-before, size + after)
        index = tf.clip_by_value(index, 0, size - 1) if mode == "replicate" else tf.math.floormod(index, size)
        x = tf.gather(x, index, axis=axis) if (before, after) != (0, 0) else x
    return x


def _pairs(pad: Sequence[Size]) -> list[list[Size]]:
    return [[pad[i], pad[i + 1]] for i in range(len(pad) - 2, -1, -2)]


@rule("constant_pad_nd.default")
def constant_pad(x: tf.Tensor, pad: Sequence[Size], value: Number = 0) -> tf.Tensor:
    """``x`` with ``value`` around it; see :func:`pad`.

    Schema::

        aten::constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor
    """
    for axis, (before, after) in enumerate(_pairs(pad), x.shape.rank - len(pad) // 2):
        cut_before = -before if is_static(before) and before < 0 else 0
        cut_after = after if is_static(after) and after < 0 else None
        if cut_before or cut_after:
            x = slice_tensor(x, axis, cut_before, cut_after)
    positive = [[0 if is_static(n) and n < 0 else n for n in pair] for pair in _pairs(pad)]
    paddings = [[0, 0]] * (x.shape.rank - len(positive)) + positive
    if x.dtype.is_bool:
        return tf.cast(tf.pad(tf.cast(x, tf.int8), paddings, constant_values=int(value)), tf.bool)
    return tf.pad(x, paddings, constant_values=constant(value, x.dtype))


# ----------------------------------------------------------------------------------------------------------- complex


@rule("view_as_complex.default")
def view_as_complex(x: tf.Tensor) -> tf.Tensor:
    """The last axis, of two, as real and imaginary part.

    Schema::

        aten::view_as_complex(Tensor(a) self) -> Tensor(a)
    """
    return tf.complex(x[..., 0], x[..., 1])


@rule("view_as_real.default")
def view_as_real(x: tf.Tensor) -> tf.Tensor:
    """Real and imaginary part as a new last axis.

    Schema::

        aten::view_as_real(Tensor(a) self) -> Tensor(a)
    """
    return tf.stack([tf.math.real(x), tf.math.imag(x)], -1)


@rule("complex.default")
def make_complex(real: tf.Tensor, imag: tf.Tensor) -> tf.Tensor:
    """A complex number from its parts.

    Schema::

        aten::complex(Tensor real, Tensor imag) -> Tensor
    """
    return tf.complex(real, imag)


@rule("polar.default")
def polar(absolute: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """A complex number from its absolute value and its angle in radians.

    Schema::

        aten::polar(Tensor abs, Tensor angle) -> Tensor
    """
    return tf.complex(absolute * tf.cos(angle), absolute * tf.sin(angle))


@rule("real.default")
def real(x: tf.Tensor) -> tf.Tensor:
    """The real part.

    Schema::

        aten::real(Tensor(a) self) -> Tensor(a)
    """
    return tf.math.real(x)


@rule("imag.default")
def imag(x: tf.Tensor) -> tf.Tensor:
    """The imaginary part.

    Schema::

        aten::imag(Tensor(a) self) -> Tensor(a)
    """
    return tf.math.imag(x)


@rule("conj.default", "_conj.default")
def conj(x: tf.Tensor) -> tf.Tensor:
    """The complex conjugate.

    Schemas::

        aten::conj(Tensor(a) self) -> Tensor(a)
        aten::_conj(Tensor(a) self) -> Tensor(a)
    """
    return tf.math.conj(x)
