"""Batches for ``fit`` from rows of texts: tokenized, of like lengths, padded to their longest, in a new order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline import heads
from tf_pipeline.arguments import whole_number
from tf_pipeline.data.collators import to_tensor
from tf_pipeline.data.sources import rows_of
from tf_pipeline.data.tasks import TASKS, Feature, Task
from tf_pipeline.data.tokenized import signature_of
from tf_pipeline.inputs import without_autotuning

# Batches whose rows are sorted by length together, before they are cut into batches again.
BUCKET = 50


def prepare(
    rows: Any,
    model: Any,
    tokenizer: Any,
    batch_size: int = 8,
    shuffle: bool = False,
    seed: int = 0,
    max_length: int | None = None,
    bucket: bool | None = None,
    drop_remainder: bool = False,
    stream: bool = False,
    buffer_size: int = 10_000,
    **options: Any,
) -> tf.data.Dataset:
    """Batches of inputs and labels for ``fit``, ``evaluate`` and ``predict`` of a model.

    The head of the model is the task, and decides which keys a row needs:

    - text classification: ``text`` and ``label`` (a name or number of a class; a number; a list of classes), and
      ``text_pair`` for pairs;
    - token classification: ``tokens``, a list of words, and ``labels``, one for each, which are aligned to pieces;
    - question answering: ``question``, ``context`` and ``answers``, as in SQuAD; contexts are read in windows;
    - masked language models: ``text``; tokens are masked again for every epoch;
    - causal language models: ``text``, or ``prompt`` and ``completion``;
    - encoder–decoders: ``text`` and ``target``.

    Args:
        rows: a ``.jsonl``, ``.csv``, ``.tsv`` or ``.txt`` file, a list of dictionaries, a dictionary of columns, a
            DataFrame, a data set of ``datasets`` or ``tf.data``, or a function that returns an iterator of rows.
        model: one of ours, with a head for one of these tasks.
        tokenizer: its tokenizer, a fast one.
        batch_size: rows per batch.
        shuffle: whether to draw a new order for every epoch.
        seed: of orders, masks and spans: the same for the same number of the epoch. The first iteration of the data set
            is epoch 0; :class:`tf_pipeline.callbacks.EpochOrder` makes it that of ``fit``.
        max_length: of a text, in tokens.
        bucket: whether batches are of texts of like lengths; by default, with ``shuffle``. Without it the order of the
            rows is kept.
        drop_remainder: whether to leave out a last batch that is not full.
        stream: read and tokenize the rows again in every epoch rather than keep their tokens, for data that is larger
            than memory. They are shuffled within a buffer then.
        buffer_size: rows of that buffer.
        **options: of the task: ``label_all_tokens`` (token classification); ``doc_stride`` (question answering);
            ``mlm_probability``, ``whole_word`` (masked language models); ``pack`` (causal language models);
            ``prefix``, ``max_target_length``, ``corrupt_spans``, ``noise_density``, ``mean_span_length``
            (encoder–decoders). See :mod:`tf_pipeline.data.tasks`.

    Returns:
        A data set of inputs by name, or of pairs of them and of the labels; of known length, unless rows are streamed.

    Raises:
        RowError: for a row that cannot be used; the message names its line, if it comes from a file.
        TypeError: for data of another kind, and unknown options.
        ValueError: if there are no rows, for a model without such a head, and values out of their range.
    """
    task = task_of(model)(tokenizer, model, max_length, **options)
    batch_size, buffer_size = whole_number("batch_size", batch_size, 1), whole_number("buffer_size", buffer_size, 1)
    seed, read = whole_number("seed", seed, 0), rows_of(rows)
    batches = Batches(task, batch_size, shuffle, seed, shuffle if bucket is None else bucket, drop_remainder)
    count = None
    if stream:
        batches.order = lambda random: _buffered(task.features(read()), buffer_size if shuffle else 1, random)
        first = list(islice(task.features(read()), 2))
    else:
        kept = list(task.features(read()))
        batches.order = lambda random: (
            kept[i] for i in (random.permutation(len(kept)) if shuffle else range(len(kept)))
        )
        first, count = kept[:2], len(kept) // batch_size if drop_remainder else -(-len(kept) // batch_size)
    if not first:
        raise ValueError("There are no rows.")
    if count == 0:
        raise ValueError(f"There are {len(kept)} rows, which do not fill a batch of {batch_size}.")
    signature = tf.nest.map_structure(signature_of, batches.tensors(first, np.random.default_rng(seed)))
    made = tf.data.Dataset.from_generator(batches, output_signature=signature)
    if count is not None:
        made = made.apply(tf.data.experimental.assert_cardinality(count))
    made = without_autotuning(made.prefetch(tf.data.AUTOTUNE))
    made.batches = batches
    return made


def task_of(model: Any) -> type[Task]:
    """The class that makes batches for a model.

    Raises:
        ValueError: if its head is none of the tasks'.
    """
    head = heads.head_of(type(model).__name__)
    name = "text2text-generation" if head is heads.SEQ_TO_SEQ_LM else getattr(head, "task", None)
    if name not in TASKS:
        raise ValueError(f"{type(model).__name__} has no head that rows are prepared for: {', '.join(TASKS)}.")
    return TASKS[name]


class Batches:
    """Draws the batches of one epoch after another.

    Attributes:
        epoch: number of the next epoch.
        order: a function that returns the rows of an epoch in their order, given a generator.
    """

    order: Callable[[np.random.Generator], Iterable[Feature]]

    def __init__(self, task: Task, batch_size: int, shuffle: bool, seed: int, bucket: bool, drop_remainder: bool):
        self.task, self.batch_size, self.seed = task, batch_size, seed
        self.shuffle, self.bucket, self.drop_remainder = shuffle, bucket, drop_remainder
        self.epoch = 0

    def __call__(self) -> Iterator[Any]:
        """The batches of the next epoch, as tensors."""
        random = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        for features in self._cut(self.order(random), random):
            yield self.tensors(features, random)

    def _cut(self, features: Iterable[Feature], random: np.random.Generator) -> Iterator[list[Feature]]:
        features = iter(features)
        while window := list(islice(features, self.batch_size * (BUCKET if self.bucket else 1))):
            if self.bucket:
                window.sort(key=lambda feature: len(feature["input_ids"]))
            cut = [window[i : i + self.batch_size] for i in range(0, len(window), self.batch_size)]
            if self.drop_remainder and len(cut[-1]) < self.batch_size:
                cut.pop()
            if self.bucket and self.shuffle:
                cut = [cut[i] for i in random.permutation(len(cut))]
            yield from cut

    def tensors(self, features: Sequence[Feature], random: np.random.Generator) -> Any:
        """Inputs by name, or a pair of them and of the labels."""
        batch = {name: to_tensor(array) for name, array in self.task.batch(features, random).items()}
        labels = {name: batch.pop(name) for name in self.task.model.label_names if name in batch}
        if not labels:
            return batch
        return batch, next(iter(labels.values())) if len(labels) == 1 else labels


def _buffered(features: Iterable[Feature], size: int, random: np.random.Generator) -> Iterator[Feature]:
    """Rows in an order that is drawn within a buffer."""
    buffer: list[Feature] = []
    for feature in features:
        if len(buffer) < size:
            buffer.append(feature)
            continue
        place = int(random.integers(size))
        buffer[place], feature = feature, buffer[place]
        yield feature
    yield from (buffer[i] for i in (random.permutation(len(buffer)) if size > 1 else range(len(buffer))))
