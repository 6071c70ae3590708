"""Products and lookups of the weights of layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

# Rows from which on a product with a transposed matrix is computed as it is written.
_FEW_ROWS = 512

_FOR_ANOTHER_ENGINE: ContextVar[bool] = ContextVar("for_another_engine", default=False)


@contextmanager
def for_another_engine() -> Iterator[None]:
    """Trace products as they are written, for an engine that lays the weights out itself."""
    token = _FOR_ANOTHER_ENGINE.set(True)
    try:
        yield
    finally:
        _FOR_ANOTHER_ENGINE.reset(token)


def dense(x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor | None = None, transposed: bool = False) -> tf.Tensor:
    """``x @ weight + bias``, tokens flattened so that the product is one plain matrix multiply.

    Args:
        x: ``[..., in]``.
        weight: ``[in, out]``, or ``[out, in]`` if ``transposed``.
        bias: ``[out]``.
        transposed: whether the weight is stored as ``torch.nn.Linear`` stores it.

    Returns:
        ``[..., out]``.
    """
    features = weight.shape[::-1] if transposed else weight.shape
    rows = x if x.shape.rank == 2 else tf.reshape(x, [-1, features[0]])
    outputs = _times_transposed(rows, weight) if transposed else tf.matmul(rows, weight)
    if bias is not None:
        outputs = tf.nn.bias_add(outputs, bias)
    if rows is x:
        return outputs
    return tf.reshape(outputs, tf.concat([tf.shape(x)[:-1], [features[1]]], 0))


def _times_transposed(rows: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """``rows [n, in] @ weight.T`` for a weight ``[out, in]``.

    A second factor that is to be transposed is copied for the product. Few rows are cheaper to transpose than the
    embeddings of a vocabulary: for 50,257 tokens of 768 in float32, 2 rows took a sixth of the time on an AMD EPYC, 8
    to 32 rows a third to a half, and 256 rows 0.6; for 30,522 tokens, 512 rows took 0.8 of it, and 1,024 as long.
    """

    def swapped() -> tf.Tensor:
        return tf.transpose(tf.matmul(weight, rows, transpose_b=True))

    def plain() -> tf.Tensor:
        return tf.matmul(rows, weight, transpose_b=True)

    if _FOR_ANOTHER_ENGINE.get():
        return plain()
    count = rows.shape[0]
    if count is not None:
        return swapped() if count < _FEW_ROWS else plain()
    return tf.cond(tf.shape(rows)[0] < _FEW_ROWS, swapped, plain)


def gather_rows(table: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Rows of ``table`` ``[num, ...]`` by ``indices`` ``[...]``, with a gradient that is dense, as PyTorch's is.

    That of ``tf.gather`` has a slice for each index, and Keras' optimizers square and clip the slices of a row that is
    read twice before they are added up. The gradient of a reshape is a tensor.
    """
    shape = table.shape if table.shape.is_fully_defined() else tf.shape(table)
    return tf.gather(tf.reshape(table, shape), indices)


def lookup(
    table: tf.Tensor, ids: tf.Tensor, padding_idx: int | None = None, dtype: tf.DType | str | None = None
) -> tf.Tensor:
    """Rows of ``table`` ``[num, dim]`` by ``ids`` ``[...]``, as ``[..., dim]`` in ``dtype``.

    The row ``padding_idx`` gets no gradient. An id outside the table is an error on CPU; where XLA would clamp it
    silently, the vector is NaN.
    """
    vectors = tf.cast(gather_rows(table, ids), dtype or table.dtype)
    if padding_idx is not None:
        # Not by `tf.custom_gradient`, which TensorFlow registers for good, with the graph and all that the graph holds.
        padding = tf.equal(ids, tf.cast(padding_idx, ids.dtype))[..., tf.newaxis]
        vectors = tf.where(padding, tf.stop_gradient(vectors), vectors)
    in_table = (ids >= 0) & (ids < table.shape[0])
    poison = tf.where(in_table, tf.constant(0.0, vectors.dtype), tf.constant(float("nan"), vectors.dtype))
    return vectors + poison[..., tf.newaxis]
