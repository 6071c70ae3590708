"""The collators of ``transformers``, whose batches are tensors of TensorFlow.

``transformers`` 5 collates to NumPy and PyTorch; ``return_tensors="tf"`` works again here, and is the default. Its
classes pad, align and mask in NumPy, and the arrays become int32 and float32 tensors.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import transformers

from tf_pipeline.arguments import check_choice


class _TensorFlowBatches:
    """Adds ``return_tensors="tf"`` to a collator of ``transformers``."""

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        """One batch of several rows.

        Args:
            features: rows as a tokenizer returned them, with their labels.
            return_tensors: ``"tf"``, ``"np"`` or ``"pt"``; by default that of the collator.

        Returns:
            Tensors by name.

        Raises:
            ValueError: for rows of different lengths, if the collator does not pad.
        """
        wanted = return_tensors or self.return_tensors
        with self._returning("np" if wanted == "tf" else wanted):
            try:
                batch = super().__call__(features)
            except ValueError as error:
                if "inhomogeneous" not in str(error):
                    raise
                raise ValueError(
                    f"{type(self).__name__} got rows of different lengths: give a collator with a tokenizer, which "
                    "pads them."
                ) from error
        return {name: to_tensor(value) for name, value in batch.items()} if wanted == "tf" else batch

    @contextlib.contextmanager
    def _returning(self, kind: str) -> Iterator[None]:
        """Let the class beneath, which reads the attribute, return another kind; one thread at a time."""
        with _LOCK:
            own, self.return_tensors = self.return_tensors, kind
            try:
                yield
            finally:
                self.return_tensors = own


_LOCK = threading.RLock()


def to_tensor(value: Any) -> Any:
    """A tensor of the dtypes that models take; ``None`` stays."""
    if value is None:
        return None
    array = np.asarray(value)
    narrow = {"i": np.int32, "u": np.int32, "b": np.int32, "f": np.float32}.get(array.dtype.kind)
    return tf.convert_to_tensor(array.astype(narrow) if narrow else array)


@dataclass
class DefaultDataCollator(_TensorFlowBatches, transformers.DefaultDataCollator):
    """Stacks rows of equal lengths; ``label`` and ``label_ids`` become ``labels``."""

    return_tensors: str = "tf"


def tf_default_data_collator(features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack rows of equal lengths as :class:`DefaultDataCollator` does, under the name of ``transformers`` 4.

    Args:
        features: rows; ``label`` and ``label_ids`` become ``labels``, and strings are left out.

    Returns:
        Tensors ``[batch, …]`` by name, int32 and float32.

    Raises:
        ValueError: for rows of different lengths.
    """
    return DefaultDataCollator()(features)


@dataclass
class DataCollatorWithPadding(_TensorFlowBatches, transformers.DataCollatorWithPadding):
    """Pads rows to the longest of their batch; ``label`` and ``label_ids`` become ``labels``."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForTokenClassification(_TensorFlowBatches, transformers.DataCollatorForTokenClassification):
    """Pads rows and their labels, with -100, to the longest of their batch."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForSeq2Seq(_TensorFlowBatches, transformers.DataCollatorForSeq2Seq):
    """Pads sources and their labels, with -100; with ``model=``, makes ``decoder_input_ids`` of the labels."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForLanguageModeling(_TensorFlowBatches, transformers.DataCollatorForLanguageModeling):
    """Pads rows and masks a share of their tokens; with ``mlm=False``, labels are the tokens themselves.

    ``seed`` makes the masks repeatable.
    """

    return_tensors: str = "tf"


@dataclass
class DataCollatorForWholeWordMask(DataCollatorForLanguageModeling):
    """Pads rows and masks whole words."""

    whole_word_mask: bool = True


@dataclass
class DataCollatorForPermutationLanguageModeling(
    _TensorFlowBatches, transformers.DataCollatorForPermutationLanguageModeling
):
    """Makes the permutations that XLNet is trained with."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForMultipleChoice:
    """Pads the choices of rows: ``[batch, choices, seq]``.

    Attributes:
        tokenizer: the tokenizer that made the rows.
        padding: see ``tokenizer.pad``.
        max_length: see ``tokenizer.pad``.
        pad_to_multiple_of: see ``tokenizer.pad``.
        return_tensors: ``"tf"`` or ``"np"``.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "tf"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        """One batch of several rows, each of whose values is a list of choices."""
        rows = [dict(row) for row in features]
        name = "label" if "label" in rows[0] else "labels"
        labels = [row.pop(name) for row in rows] if name in rows[0] else None
        choices = len(rows[0]["input_ids"])
        flat = [{key: values[i] for key, values in row.items()} for row in rows for i in range(choices)]
        padded = DataCollatorWithPadding(
            self.tokenizer, self.padding, self.max_length, self.pad_to_multiple_of, return_tensors="np"
        )(flat)
        batch = {key: value.reshape(len(rows), choices, -1) for key, value in padded.items()}
        batch |= {} if labels is None else {"labels": np.asarray(labels, np.int64)}
        kind = return_tensors or self.return_tensors
        check_choice("return_tensors", kind, ("tf", "np"))
        return {key: to_tensor(value) for key, value in batch.items()} if kind == "tf" else batch
