"""Low-rank updates of layers (https://arxiv.org/abs/2106.09685), with the values and the arithmetic of ``peft``."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.layers.dropout import Dropout
from tf_pipeline.layers.products import dense, lookup


@dataclass(frozen=True)
class Target:
    """A module that may be updated.

    Attributes:
        leaf: the layer that computes it.
        sizes: of its inputs (rows, for a table) and outputs.
        rows_are_inputs: whether PyTorch keeps its weight ``[in, out]``.
        is_table: whether it looks up ids.
        padding_idx: row of a table that gets no gradient.
        shares: key of a weight that another module has too; empty if it has its own.
    """

    leaf: Any
    sizes: tuple[int, int]
    rows_are_inputs: bool = False
    is_table: bool = False
    padding_idx: int | None = None
    shares: str = ""


class LoraUpdate(keras.layers.Layer):
    """One adapter's update of one layer: ``dropout(x) @ a @ b * scaling``, or ``a[ids] @ b * scaling`` of a table.

    In half precision, its weights and its products are float32.

    Args:
        target: PyTorch's name of the module that is updated.
        place: the module, whose dtypes count.
        rank: of the update.
        scaling: its factor.
        dropout: rate of dropout of the inputs; a table has none.
        init: ``True`` for ``peft``'s initial values, of no effect; ``"gaussian"`` for a normal ``a``; ``False`` for
            random values of both.

    Attributes:
        active: whether it counts.
    """

    def __init__(self, target: str, place: Target, rank: int, scaling: float, dropout: float, init: bool | str):
        super().__init__(dtype=_policy(place.leaf), name="lora")
        self.target, self.scaling = target, scaling
        self.is_table, self.padding_idx, self.rows_are_inputs = place.is_table, place.padding_idx, place.rows_are_inputs
        self.active = False
        drops = dropout and not place.is_table
        self.dropout = Dropout(dropout, dtype=self.dtype_policy) if drops else None
        inputs, outputs = place.sizes
        starts = _initializers(inputs, rank, init, place.is_table)
        self.a = self.add_weight(shape=(inputs, rank), initializer=starts[0], name="a")
        self.b = self.add_weight(shape=(rank, outputs), initializer=starts[1], name="b")
        self.built = True

    def call(self, inputs, training=None):
        """Compute the addend of the outputs for inputs ``[..., in]``, or ids ``[...]`` of a table."""
        if self.is_table:
            vectors = lookup(tf.convert_to_tensor(self.a), inputs, self.padding_idx, self.compute_dtype)
        else:
            x = inputs if self.dropout is None else self.dropout(inputs, training=training)
            vectors = dense(x, tf.convert_to_tensor(self.a))
        outputs = dense(vectors, tf.convert_to_tensor(self.b))
        return outputs * tf.constant(self.scaling, outputs.dtype)

    def delta(self) -> np.ndarray:
        """The addend of the weight ``[in, out]``."""
        return (self.a.numpy() @ self.b.numpy()) * self.a.numpy().dtype.type(self.scaling)


def _policy(leaf: keras.layers.Layer) -> str:
    if tf.as_dtype(leaf.variable_dtype).size < 4:
        return "float32"
    return leaf.compute_dtype if leaf.compute_dtype == leaf.variable_dtype else f"mixed_{leaf.compute_dtype}"


def _initializers(size: int, rank: int, init: bool | str, is_table: bool) -> tuple[Any, Any]:
    """Initial values of ``a`` and ``b``: those of ``torch.nn.Linear`` and zeros; of tables, zeros and normal ones."""
    initializers = keras.initializers
    if is_table:
        normal = initializers.RandomNormal(stddev=1.0)
        return (initializers.Zeros() if init else normal), normal
    even = [initializers.RandomUniform(-bound, bound) for bound in (1 / math.sqrt(size), 1 / math.sqrt(rank))]
    if init == "gaussian":
        even[0] = initializers.RandomNormal(stddev=1 / rank)
    return even[0], initializers.Zeros() if init else even[1]


@contextlib.contextmanager
def unlocked(layer: keras.layers.Layer) -> Iterator[None]:
    """Let a layer that is built have other layers and variables within a ``with`` block."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


class Adaptable:
    """A leaf whose outputs adapters update. Mixed into layers.

    Attributes:
        adapters: its updates by adapter, ``None`` if it has had none.
    """

    adapters: dict[str, LoraUpdate] | None = None

    def add_adapter(self, name: str, update: LoraUpdate) -> None:
        """Keep an update, whose variables are this layer's from now on."""
        with unlocked(self):
            if self.adapters is None:
                self.adapters = {}
            self.adapters[name] = update

    def remove_adapter(self, name: str) -> None:
        """Let go of an update, if there is one of this name."""
        if self.adapters and name in self.adapters:
            with unlocked(self):
                self.adapters.pop(name)

    def active_updates(self) -> list[LoraUpdate]:
        """The updates that count."""
        return [update for update in (self.adapters or {}).values() if update.active]

    def updated(self, outputs: tf.Tensor, inputs: tf.Tensor, training: bool | None = None, target: str | None = None):
        """The layer's outputs with the updates that count; if several modules share the layer, those of one."""
        result = outputs
        for update in self.active_updates():
            if target is None or update.target == target:
                added = update(inputs, training=training)
                result = tf.cast(result, added.dtype) + added
        return tf.cast(result, outputs.dtype)
