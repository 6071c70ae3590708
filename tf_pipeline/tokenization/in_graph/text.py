"""A batch of texts as flat tensors: one entry for every character, whatever it was made of."""

import dataclasses

import tensorflow as tf

from tf_pipeline.tokenization.in_graph.tables import ADDED, END


@dataclasses.dataclass(frozen=True)
class Text:
    """The characters of a batch, row after row, in sections that do not see each other.

    A section is the text between added tokens and, later, one word. ``END`` closes each, and one more ``END`` comes
    last, so there is always an entry. An added token is a section of one entry, ``ADDED`` + its id.

    Attributes:
        codes: int32 ``[n]`` code points.
        start: int32 ``[n]`` where in its text, in code points, each comes from.
        end: int32 ``[n]`` the end of that, exclusive.
        row: int32 ``[n]`` the text of the batch.
    """

    codes: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    row: tf.Tensor

    @property
    def is_end(self) -> tf.Tensor:
        """Bool ``[n]``: not a character, but the end of a section."""
        return self.codes == END

    @property
    def is_added(self) -> tf.Tensor:
        """Bool ``[n]``: an added token."""
        return self.codes >= ADDED

    @property
    def begins(self) -> tf.Tensor:
        """Bool ``[n]``: the first entry of a section."""
        return tf.concat([[True], self.is_end[:-1]], 0)

    def select(self, indices: tf.Tensor) -> "Text":
        """The entries at ``indices``."""
        return Text(*(tf.gather(part, indices) for part in self.parts()))

    def with_codes(self, codes: tf.Tensor) -> "Text":
        """The same places with other characters."""
        return dataclasses.replace(self, codes=codes)

    def parts(self) -> tuple[tf.Tensor, ...]:
        """The four tensors."""
        return self.codes, self.start, self.end, self.row

    def sections(self, begins: tf.Tensor, keep: tf.Tensor | None = None) -> "Text":
        """Lay out again.

        Args:
            begins: bool ``[n]``, whether a section begins at an entry, besides those that begin there already.
            keep: bool ``[n]``, whether an entry stays.

        Returns:
            The text without empty sections.
        """
        section = tf.cumsum(tf.cast(begins | self.begins, tf.int32))
        keep = ~self.is_end if keep is None else keep & ~self.is_end
        kept = tf.where(keep)[:, 0]
        section = tf.gather(section, kept)
        last = tf.concat([section[1:] != section[:-1], tf.ones_like(section[:1], tf.bool)], 0)
        source = tf.repeat(tf.range(tf.size(kept)), 1 + tf.cast(last, tf.int32))
        second = tf.concat([tf.zeros_like(source[:1], tf.bool), source[1:] == source[:-1]], 0)
        text = self.select(tf.gather(kept, source))
        return text.with_codes(tf.where(second, END, text.codes))._closed()

    def _closed(self) -> "Text":
        last = (END, 0, 0, tf.reduce_max(tf.concat([self.row, [0]], 0)))
        return Text(*(tf.concat([part, [value]], 0) for part, value in zip(self.parts(), last, strict=True)))


def decode(texts: tf.Tensor) -> Text:
    """Characters of UTF-8 strings ``[batch]``.

    Invalid bytes become U+FFFD as in ``bytes.decode("utf-8", "replace")``.
    """
    codes = tf.strings.unicode_decode(texts, "UTF-8", errors="replace", replacement_char=0xFFFD)
    row = tf.cast(codes.value_rowids(), tf.int32)
    index = tf.range(tf.size(row))
    start = index - tf.gather(tf.cast(codes.row_splits, tf.int32), row)
    text = Text(codes.flat_values, start, start + 1, row)._closed()
    return text.sections(changes(text.row))


def changes(values: tf.Tensor) -> tf.Tensor:
    """Whether each differs from the one before it, bool ``[n]``; the first does."""
    return tf.concat([tf.ones_like(values[:1], tf.bool), values[1:] != values[:-1]], 0)


def follow(following: tf.Tensor, longest: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
    """Mark the places that a walk meets, in a number of steps that grows with the logarithm of its length.

    Args:
        following: int32 ``[n]`` the next place after each, further on; past the last place means the end.
        longest: scalar, at least the number of steps of a walk.
        starts: bool ``[n]`` where walks begin.

    Returns:
        Bool ``[n]``.
    """
    size = tf.size(following)
    following = tf.concat([tf.minimum(following, size), [size]], 0)
    visited = tf.concat([tf.cast(starts, tf.int32), [0]], 0)

    def body(steps, visited, following):
        reached = tf.tensor_scatter_nd_max(visited, following[:, None], visited)
        return steps * 2, reached, tf.gather(following, following)

    state = (tf.constant(1), visited, following)
    visited = tf.while_loop(lambda steps, *_: steps <= longest, body, state)[1]
    return tf.cast(visited[:-1], tf.bool)


def longest_section(text: Text) -> tf.Tensor:
    """The largest number of entries of a section, ``END`` included."""
    ends = tf.where(text.is_end)[:, 0]
    return tf.cast(tf.reduce_max(tf.concat([ends[:1] + 1, ends[1:] - ends[:-1]], 0)), tf.int32)


def next_true(flags: tf.Tensor) -> tf.Tensor:
    """The first place at or after each where ``flags`` is true, int32 ``[n]``; n where there is none."""
    places = tf.concat([tf.cast(tf.where(flags)[:, 0], tf.int32), [tf.size(flags)]], 0)
    return tf.gather(places, tf.cumsum(tf.cast(flags, tf.int32), exclusive=True))


def last_true(flags: tf.Tensor) -> tf.Tensor:
    """The last place at or before each where ``flags`` is true, int32 ``[n]``; -1 where there is none."""
    places = tf.concat([[-1], tf.cast(tf.where(flags)[:, 0], tf.int32)], 0)
    return tf.gather(places, tf.cumsum(tf.cast(flags, tf.int32)))
