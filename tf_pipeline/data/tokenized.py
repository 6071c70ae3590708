"""Data sets for ``fit`` from rows that are tokenized already."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.arguments import whole_number
from tf_pipeline.data.collators import DataCollatorWithPadding, DefaultDataCollator, to_tensor
from tf_pipeline.inputs import refuse_strings, without_autotuning

# Columns of a tokenizer that collators which mask take, and models do not.
_OF_MASKS = {"offset_mapping", "special_tokens_mask"}


def prepare_tf_dataset(
    dataset: Any,
    input_names: Sequence[str],
    label_names: Sequence[str] = (),
    batch_size: int = 8,
    shuffle: bool = True,
    tokenizer: Any = None,
    collate_fn: Callable[..., Mapping[str, Any]] | None = None,
    collate_fn_args: Mapping[str, Any] | None = None,
    drop_remainder: bool | None = None,
    prefetch: bool = True,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Batches for ``fit``, ``evaluate`` and ``predict`` from tokenized rows; see ``model.prepare_tf_dataset``.

    Args:
        dataset: ``datasets.Dataset``, a list of dictionaries, a dictionary of columns (what a tokenizer returns, for
            example), or a pandas DataFrame.
        input_names: inputs of the model; other columns are left out, but for labels, and for what ``collate_fn`` asks
            for with a ``KeyError``, as a function that masks whole words asks for their numbers.
        label_names: the model's labels.
        batch_size: rows per batch.
        shuffle: whether to draw a new order for every epoch.
        tokenizer: pads the rows of a batch, if there is no ``collate_fn``; without either, rows are of one length.
        collate_fn: makes a batch of rows, such as a collator of this module.
        collate_fn_args: further arguments of it.
        drop_remainder: whether to leave out a last batch that is not full; by default, if the order is new for every
            epoch and there are full batches.
        prefetch: make the next batch while one is computed.
        seed: makes the orders repeatable; without it, they follow ``keras.utils.set_random_seed``.

    Returns:
        A data set of known length of inputs by name, or of pairs of them and of the labels: a tensor if there is one,
        else tensors by name.

    Raises:
        TypeError: for data of another kind.
        ValueError: if there are no rows, or no column that the model takes, and for labels that are strings.
    """
    rows = _Rows(dataset)
    batch_size = whole_number("batch_size", batch_size, 1)
    if not len(rows):
        raise ValueError("The data set has no rows.")
    taken = {*input_names, *label_names, "label", "label_ids"}
    if getattr(collate_fn, "mlm", False):
        taken |= _OF_MASKS
    if not any(name in input_names for name in rows.columns):
        raise ValueError(
            f"The data set has the columns {', '.join(rows.columns)}, and none is an input of the model "
            f"({', '.join(input_names)}). Tokenize the texts first."
        )
    for name, value in rows.at([0])[0].items():
        if name in (*label_names, "label", "label_ids"):
            refuse_strings(value)
    if collate_fn is None:
        padded = DefaultDataCollator if tokenizer is None else partial(DataCollatorWithPadding, tokenizer)
        collate_fn = padded(return_tensors="np")  # tensors are made below
    full, rest = divmod(len(rows), batch_size)
    if drop_remainder is None:
        drop_remainder = shuffle and full > 0
    count = full + (rest > 0 and not drop_remainder)
    if not count:
        raise ValueError(f"The data set has {len(rows)} rows, which do not fill a batch of {batch_size}.")

    def batch_of(places: Sequence[int]) -> dict[str, Any] | tuple[dict[str, Any], Any]:
        picked = [{name: value for name, value in row.items() if name in taken} for row in rows.at(places)]
        batch = collate_fn(picked, **(collate_fn_args or {}))
        batch = {
            name: to_tensor(value)
            for name, value in batch.items()
            if value is not None and (name in input_names or name in label_names)
        }
        labels = {name: batch.pop(name) for name in [*label_names] if name in batch}
        if not labels:
            return batch
        return batch, next(iter(labels.values())) if len(labels) == 1 else labels

    draws = np.random.default_rng(np.random.randint(2**31) if seed is None else seed)

    def batches() -> Iterator[Any]:
        order = draws.permutation(len(rows)) if shuffle else np.arange(len(rows))
        for start in range(0, count * batch_size, batch_size):
            yield batch_of(order[start : start + batch_size].tolist())

    first = _first_batch(partial(batch_of, range(min(2, len(rows)))), taken, rows.columns)
    signature = tf.nest.map_structure(signature_of, first)
    made = tf.data.Dataset.from_generator(batches, output_signature=signature)
    made = made.apply(tf.data.experimental.assert_cardinality(count))
    return without_autotuning(made.prefetch(tf.data.AUTOTUNE) if prefetch else made)


def _first_batch(batch: Callable[[], Any], taken: set[str], columns: Sequence[str]) -> Any:
    """A batch, made again with each further column that the user's function looks up; ``taken`` has them then."""
    while True:
        try:
            return batch()
        except KeyError as error:
            missed = error.args[0] if error.args else None
            if missed not in columns or missed in taken:
                raise
            taken.add(missed)


def signature_of(value: tf.Tensor) -> tf.TensorSpec:
    """Tensors of a batch of any size and length."""
    return tf.TensorSpec([None] * min(value.shape.rank, 2) + list(value.shape[2:]), value.dtype)


class _Rows:
    """Rows by their places, of data of several kinds."""

    def __init__(self, data: Any):
        if hasattr(data, "to_dict") and hasattr(data, "columns"):  # a DataFrame
            data = {str(name): list(data[name]) for name in data.columns}
        if hasattr(data, "column_names"):  # datasets.Dataset
            self.columns = list(data.column_names)
        elif hasattr(data, "items"):
            self.columns = list(data)
        elif isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
            self.columns = list(data[0]) if data else []
        else:
            raise TypeError(
                f"{type(data).__name__} is not supported; give a datasets.Dataset, a list of dictionaries, a "
                "dictionary of columns or a DataFrame."
            )
        self._data = data

    def __len__(self) -> int:
        return len(self._data[self.columns[0]]) if self._by_column() and self.columns else len(self._data)

    def _by_column(self) -> bool:
        return hasattr(self._data, "items")

    def at(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows, each a dictionary."""
        if isinstance(self._data, Sequence):
            return [dict(self._data[place]) for place in places]
        if self._by_column():
            return [{name: self._data[name][place] for name in self.columns} for place in places]
        columns = self._data[list(places)]
        return [{name: columns[name][i] for name in columns} for i in range(len(places))]
