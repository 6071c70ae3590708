"""Low-rank updates of layers (https://arxiv.org/abs/2106.09685), with the values and the arithmetic of ``peft``."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
        sizes: of its inputs (rows, for a table) and outputs.
        rank: of the update.
        scaling: its factor.
        dropout: rate of dropout of the inputs; a table has none.
        init: ``True`` for ``peft``'s initial values, of no effect; ``"gaussian"`` for a normal ``a``; ``False`` for
            random values of both.
        is_table: whether the module looks up ids.
        padding_idx: row of a table that gets no gradient.
        rows_are_inputs: whether PyTorch keeps the weight ``[in, out]``, as tables and GPT-2's ``Conv1D`` are.
        leaf: the layer that is updated, whose dtypes count.

    Attributes:
        active: whether it counts.
    """

    def __init__(
        self,
        target: str,
        sizes: tuple[int, int],
        rank: int,
        scaling: float,
        dropout: float,
        init: bool | str,
        is_table: bool,
        padding_idx: int | None,
        rows_are_inputs: bool,
        leaf: keras.layers.Layer,
    ):
        super().__init__(dtype=_policy(leaf), name="lora")
        self.target, self.sizes, self.rank, self.scaling = target, sizes, rank, scaling
        self.is_table, self.padding_idx, self.rows_are_inputs = is_table, padding_idx, rows_are_inputs
        self.active = False
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy) if dropout and not is_table else None
        starts = _initializers(sizes[0], rank, init, is_table)
        self.a = self.add_weight(shape=(sizes[0], rank), initializer=starts[0], name="a")
        self.b = self.add_weight(shape=(rank, sizes[1]), initializer=starts[1], name="b")
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


class Adaptable:
    """A leaf whose outputs adapters update. Mixed into layers.

    Attributes:
        adapters: its updates by adapter, ``None`` if it has had none.
    """

    adapters: dict[str, LoraUpdate] | None = None

    def add_adapter(self, name: str, update: LoraUpdate) -> None:
        """Keep an update, whose variables are this layer's from now on."""
        self._tracker.unlock()
        if self.adapters is None:
            self.adapters = {}
        self.adapters[name] = update
        self._tracker.lock()

    def remove_adapter(self, name: str) -> None:
        """Let go of an update, if there is one of this name."""
        if self.adapters and name in self.adapters:
            self._tracker.unlock()
            self.adapters.pop(name)
            self._tracker.lock()

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
