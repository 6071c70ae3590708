"""Truncation, templates and padding: from flat tokens to rows of one length."""

import dataclasses

import tensorflow as tf

from tf_pipeline.tokenization.in_graph.post_processors import Sequence, Special, Template, Trimmer
from tf_pipeline.tokenization.in_graph.tokens import Tokens

TRUNCATION = ("longest_first", "only_first", "only_second", "do_not_truncate")


@dataclasses.dataclass(frozen=True)
class Shape:
    """Truncation and padding of rows.

    Attributes:
        truncation: one of ``TRUNCATION``.
        max_length: tokens of a row at most, special ones included; None without truncation.
        truncation_side: side on which tokens are cut off, ``"left"`` or ``"right"``.
        windows: whether tokens that are cut off become further rows.
        stride: tokens that neighbouring windows share.
        padding: ``"longest"`` of the batch, or ``"max_length"``.
        padding_side: ``"left"`` or ``"right"``.
        multiple: row lengths are multiples of this.
    """

    truncation: str = "do_not_truncate"
    max_length: int | None = None
    truncation_side: str = "right"
    windows: bool = False
    stride: int = 0
    padding: str = "longest"
    padding_side: str = "right"
    multiple: int = 1


def assemble(tokens: Tokens, batch: tf.Tensor, template: Template, shape: Shape, pad: Special, trimmer: Trimmer | None):
    """Rows of a batch.

    Args:
        tokens: tokens of ``batch`` texts, and after them of their pairs if the template has a place for them.
        batch: scalar, the number of texts.
        template: the parts of a row.
        shape: how rows are cut and filled up.
        pad: the id and type of padding.
        trimmer: trims offsets, if there is one.

    Returns:
        A dictionary of int32 ``[rows, length]`` (``offset_mapping`` has one more axis, of 2), all that there is to
        know; ``overflow_to_sample_mapping`` is ``[rows]``.
    """
    texts = sum(isinstance(part, Sequence) for part in template)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(tokens.row), tokens.row, batch * texts)
    counts = tf.reshape(counts, [texts, -1])
    begin = tf.reshape(tf.cumsum(tf.reshape(counts, [-1]), exclusive=True), [texts, -1])
    room = None if shape.max_length is None else shape.max_length - (len(template) - texts)
    kept = counts if shape.truncation == "do_not_truncate" else _kept(counts, room, shape.truncation)
    sample = tf.range(batch)
    skipped = tf.zeros_like(counts) if shape.truncation_side == "right" else counts - kept
    if shape.windows:
        sample, skipped, kept = _windows(counts, kept, shape)
    begin = tf.gather(begin, sample, axis=1) + skipped
    grid = _Grid(template, begin, kept, shape, tf.size(tokens.ids))
    return grid.features(tokens, pad, trimmer) | {"overflow_to_sample_mapping": sample}


def _kept(counts: tf.Tensor, room: int, truncation: str) -> tf.Tensor:
    """Number of tokens that stay, int32 ``[texts, batch]``."""
    if counts.shape[0] == 1:
        return tf.minimum(counts, room)
    shorter = tf.reduce_min(counts, 0)
    longer = tf.where(shorter > room, shorter, tf.maximum(shorter, room - shorter))
    halves = shorter + longer > room
    shorter, longer = tf.where(halves, room // 2, shorter), tf.where(halves, room // 2 + room % 2, longer)
    first_longer = counts[0] > counts[1]
    both = tf.stack([tf.where(first_longer, longer, shorter), tf.where(first_longer, shorter, longer)])
    both = tf.where(tf.reduce_sum(counts, 0) > room, tf.minimum(both, counts), counts)
    if truncation == "longest_first":
        return both
    cut = 0 if truncation == "only_first" else 1
    left = tf.minimum(counts[cut], room - counts[1 - cut])
    one = tf.stack([left, counts[1]] if cut == 0 else [counts[0], left])
    # Where the other text alone is too long Hugging Face raises; a server answers with both cut.
    return tf.where((left > 0) | (counts[cut] == 0) & (left == 0), one, both)


def _windows(counts: tf.Tensor, kept: tf.Tensor, shape: Shape) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One row for every window of the text that is cut: its sample, and tokens skipped and kept of each text."""
    cut = 1 if shape.truncation == "only_second" else 0
    step = tf.maximum(kept[cut] - shape.stride, 1)
    more = tf.maximum(counts[cut] - kept[cut], 0)
    number = 1 + tf.where(kept[cut] > 0, (more + step - 1) // step, 0)
    sample = tf.repeat(tf.range(tf.size(number)), number)
    index = tf.range(tf.size(sample)) - tf.gather(tf.cumsum(number, exclusive=True), sample)
    counts, kept = tf.gather(counts, sample, axis=1), tf.gather(kept, sample, axis=1)
    moved = index * tf.gather(step, sample)
    if shape.truncation_side == "right":
        first = moved
        size = tf.minimum(kept[cut], counts[cut] - first)
    else:
        stop = counts[cut] - moved
        first = tf.maximum(stop - kept[cut], 0)
        size = stop - first
    skipped, sizes = [first], [size]
    if counts.shape[0] == 2:
        other = tf.zeros_like(first) if shape.truncation_side == "right" else counts[1 - cut] - kept[1 - cut]
        skipped.insert(1 - cut, other)
        sizes.insert(1 - cut, kept[1 - cut])
    return sample, tf.stack(skipped), tf.stack(sizes)


class _Grid:
    """The token, special token or padding at every place of the rows."""

    def __init__(self, template: Template, begin: tf.Tensor, kept: tf.Tensor, shape: Shape, size: tf.Tensor):
        self._specials = [part for part in template if isinstance(part, Special)]
        rows = tf.shape(kept)[1]
        parts, source, special = [], [], 0
        for part in template:
            if isinstance(part, Special):
                parts.append(tf.ones([rows], tf.int32))
                source.append(tf.fill([rows], size + special))
                special += 1
            else:
                parts.append(kept[part.index])
                source.append(begin[part.index])
        lengths = tf.add_n(parts)
        width = tf.reduce_max(tf.concat([lengths, [0]], 0))
        if shape.padding == "max_length":
            width = tf.maximum(width, shape.max_length)
        width = (width + shape.multiple - 1) // shape.multiple * shape.multiple
        place = tf.broadcast_to(tf.range(width), [rows, width])
        offset = width - lengths if shape.padding_side == "left" else tf.zeros_like(lengths)
        padding = size + len(self._specials)
        self._source, self._first = tf.fill([rows, width], padding), tf.zeros([rows, width], tf.bool)
        self._type, self._sequence = tf.fill([rows, width], -1), tf.fill([rows, width], -1)
        for part, length, start in zip(template, parts, source, strict=True):
            within = place - offset[:, None]
            here = (within >= 0) & (within < length[:, None])
            self._source = tf.where(here, start[:, None] + within, self._source)
            self._type = tf.where(here, part.type_id, self._type)
            if isinstance(part, Sequence):
                self._sequence = tf.where(here, part.index, self._sequence)
                self._first |= here & (within == 0)
            offset += length
        self._real = self._source != padding

    def features(self, tokens: Tokens, pad: Special, trimmer: Trimmer | None) -> dict[str, tf.Tensor]:
        """Every output."""

        def read(values, special, filler):
            special = [special] * len(self._specials) if isinstance(special, int) else special
            return tf.gather(tf.concat([values, tf.constant([*special, filler], tf.int32)], 0), self._source)

        ids = read(tokens.ids, [special.id for special in self._specials], pad.id)
        start, end = read(tokens.start, 0, 0), read(tokens.end, 0, 0)
        if trimmer is not None:
            new_start, new_end = trimmer(tf.where(self._sequence >= 0, ids, 0), start, end, self._first)
            inside = self._sequence >= 0
            start, end = tf.where(inside, new_start, start), tf.where(inside, new_end, end)
        return {
            "input_ids": ids,
            "attention_mask": tf.cast(self._real, tf.int32),
            "token_type_ids": tf.where(self._real, self._type, pad.type_id),
            "offset_mapping": tf.stack([start, end], -1),
            "special_tokens_mask": tf.cast(self._sequence < 0, tf.int32),
            "sequence_ids": self._sequence,
            "word_ids": read(tokens.word, -1, -1),
        }
