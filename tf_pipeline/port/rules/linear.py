"""Matrix products."""

from collections.abc import Sequence

import tensorflow as tf

from tf_pipeline.layers.products import dense
from tf_pipeline.port.rules.registry import Number, constant, rule, size_of, sizes_of


@rule("linear.default")
def linear(x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor | None = None, *, kernel: bool = False) -> tf.Tensor:
    """``x @ weight.T + bias`` for ``[..., in]`` and a weight ``[out, in]``, or ``[in, out]`` if it is a ``kernel``.

    Schema::

        aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor
    """
    if weight.shape.rank == 1:
        return tf.linalg.matvec(x, weight)
    return dense(x, weight, bias, transposed=not kernel)


@rule("addmm.default")
def addmm(bias: tf.Tensor, x: tf.Tensor, weight: tf.Tensor, *, beta: Number = 1, alpha: Number = 1) -> tf.Tensor:
    """``beta * bias + alpha * (x @ weight)``.

    Schema::

        aten::addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor
    """
    product = tf.matmul(x, weight)
    if alpha != 1:
        product *= constant(alpha, x.dtype)
    return product + (bias if beta == 1 else bias * constant(beta, x.dtype))


@rule("baddbmm.default")
def baddbmm(x: tf.Tensor, first: tf.Tensor, second: tf.Tensor, *, beta: Number = 1, alpha: Number = 1) -> tf.Tensor:
    """``beta * x + alpha * (first @ second)`` for batches of matrices; ``x`` does not count if ``beta`` is 0.

    Schema::

        aten::baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor
    """
    product = tf.matmul(first, second)
    product = product if alpha == 1 else product * constant(alpha, product.dtype)
    return product if beta == 0 else product + (x if beta == 1 else x * constant(beta, x.dtype))


@rule("mm.default", "bmm.default")
def mm(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The product of matrices, or of batches of them.

    Schemas::

        aten::mm(Tensor self, Tensor mat2) -> Tensor
        aten::bmm(Tensor self, Tensor mat2) -> Tensor
    """
    return tf.matmul(x, other)


@rule("matmul.default")
def matmul(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """NumPy's product: batches are broadcast, vectors are rows on the left and columns on the right.

    Schema::

        aten::matmul(Tensor self, Tensor other) -> Tensor
    """
    if x.shape.rank == 1 and other.shape.rank == 1:
        return tf.reduce_sum(x * other)
    if other.shape.rank == 1:
        return tf.linalg.matvec(x, other)
    if x.shape.rank == 1:
        return tf.squeeze(tf.matmul(x[tf.newaxis], other), -2)
    if x.shape.rank > 2 and other.shape.rank == 2 and other.shape.is_fully_defined():
        return dense(x, other)
    return tf.matmul(x, other)


@rule("mv.default")
def mv(x: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """A matrix times a vector.

    Schema::

        aten::mv(Tensor self, Tensor vec) -> Tensor
    """
    return tf.linalg.matvec(x, vector)


@rule("dot.default", "vdot.default")
def dot(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The sum of products of two vectors.

    Schemas::

        aten::dot(Tensor self, Tensor tensor) -> Tensor
        aten::vdot(Tensor self, Tensor other) -> Tensor
    """
    return tf.reduce_sum(x * other)


@rule("outer.default", "ger.default")
def outer(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Every product of two vectors' elements.

    Schemas::

        aten::outer(Tensor self, Tensor vec2) -> Tensor
        aten::ger(Tensor self, Tensor vec2) -> Tensor
    """
    return x[:, tf.newaxis] * other[tf.newaxis, :]


@rule("einsum.default")
def einsum(equation: str, tensors: Sequence[tf.Tensor], path: Sequence[int] | None = None) -> tf.Tensor:
    """Einstein's summation.

    Schema::

        aten::einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor
    """
    return tf.einsum(equation.replace(" ", ""), *tensors)


@rule("_grouped_mm.default")
def grouped_mm(
    x: tf.Tensor, weights: tf.Tensor, offs: tf.Tensor | None = None, bias: tf.Tensor | None = None, *_, **__
) -> tf.Tensor:
    """Rows ``[rows, in]`` in groups, each times the weight of its group ``[groups, in, out]``.

    ``offs`` is where each group ends; rows beyond the last group give zeros. Each group is one matrix product of its
    own rows, so that the work does not grow with the number of groups.

    Schema::

        aten::_grouped_mm(Tensor self, Tensor mat2, Tensor? offs=None, Tensor? bias=None, ScalarType? out_dtype=None) ->
            Tensor
    """
    if weights.shape.rank != 3 or x.shape.rank != 2 or offs is None:
        raise NotImplementedError("_grouped_mm of other than rows and a weight for each group")
    groups = weights.shape[0]
    ends = tf.unstack(tf.cast(offs, tf.int32), groups)
    starts = [tf.constant(0), *ends[:-1]]
    parts = [tf.matmul(x[start:end], weights[i]) for i, (start, end) in enumerate(zip(starts, ends, strict=True))]
    rest = tf.zeros(tf.stack([size_of(x, 0) - ends[-1], size_of(weights, 2)]), x.dtype)
    return tf.reshape(tf.concat([*parts, rest], 0), tf.stack([size_of(x, 0), size_of(weights, 2)]))


@rule("cross.default", "linalg_cross.default")
def cross(x: tf.Tensor, other: tf.Tensor, *, dim: int = -1) -> tf.Tensor:
    """The cross product of vectors of three along an axis.

    Schemas::

        aten::cross(Tensor self, Tensor other, int? dim=None) -> Tensor
        aten::linalg_cross(Tensor self, Tensor other, *, int dim=-1) -> Tensor
    """
    a, b = tf.unstack(x, axis=dim), tf.unstack(other, axis=dim)
    parts = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    return tf.stack(parts, dim)


@rule("kron.default")
def kron(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Kronecker's product of matrices.

    Schema::

        aten::kron(Tensor self, Tensor other) -> Tensor
    """
    product = tf.einsum("ij,kl->ikjl", x, other)
    (a, b), (c, d) = sizes_of(x), sizes_of(other)
    return tf.reshape(product, tf.stack([a * c, b * d]))
