"""Characters replaced one at a time, by none, one or several."""

from collections.abc import Mapping
from functools import cache, lru_cache

import numpy as np
import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.regex import EVERY
from tf_pipeline.tokenization.in_graph.tables import CODE_POINTS, CodePointTable
from tf_pipeline.tokenization.in_graph.text import Text

_SEPARATORS = ("\U0010ffff", "!")  # nothing is joined to them, and what drops the one keeps the other


class CharacterMap:
    """A stage that replaces characters.

    Args:
        replacements: new characters by code point; one that is missing stays.
    """

    def __init__(self, replacements: Mapping[int, str]):
        lengths, shifts = np.ones(CODE_POINTS, np.int64), np.zeros(CODE_POINTS, np.int64)
        tails: dict[str, int] = {}
        values: list[int] = []
        for code, new in replacements.items():
            lengths[code] = len(new)
            if len(new) == 1:
                shifts[code] = ord(new) - code  # a shift, so that most pages of the table are equal
            elif new:
                if new not in tails:
                    tails[new] = len(values)
                    values.extend(map(ord, new))
                shifts[code] = tails[new]
        self._lengths, self._shifts = CodePointTable(lengths, 1), CodePointTable(shifts)
        self._values = tf.constant(values or [0], tf.int32)

    def __call__(self, text: Text) -> Text:
        """Replace all characters of a text."""
        return self.expand(text)[0]

    def expand(self, text: Text) -> tuple[Text, tf.Tensor]:
        """The new text, and which of its entries are the first of an old one, bool ``[n]``."""
        source, within, lengths = repeated(self.lengths(text.codes))
        new = text.select(source)
        return new.with_codes(self.characters(new.codes, lengths, within)), within == 0

    def lengths(self, codes: tf.Tensor) -> tf.Tensor:
        """Number of characters that replace each one, int32 ``[n]``."""
        return self._lengths(codes)

    def characters(self, codes: tf.Tensor, lengths: tf.Tensor, within: tf.Tensor) -> tf.Tensor:
        """The character with index ``within`` of those, ``lengths`` in number, that replace each of ``codes``."""
        shifts = self._shifts(codes)
        several = tf.gather(self._values, tf.where(lengths == 1, 0, shifts + within))
        return tf.where(lengths == 1, codes + shifts, several)


def repeated(counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Repeat entries: for every copy the entry, which copy of it this is, and the number of its copies."""
    source = tf.repeat(tf.range(tf.size(counts)), counts)
    within = tf.range(tf.size(source)) - tf.gather(tf.cumsum(counts, exclusive=True), source)
    return source, within, tf.gather(counts, source)


def probed(normalizer) -> dict[int, str]:
    """Replacements that a normalizer of ``tokenizers`` makes of single code points, without those it leaves alone.

    Args:
        normalizer: one that changes characters one by one.
    """
    return _probed(type(normalizer).__name__, normalizer.__getstate__())


@lru_cache(maxsize=32)
def _probed(name: str, state: bytes) -> dict[int, str]:
    normalizer = getattr(tokenizers.normalizers, name)()
    normalizer.__setstate__(state)
    for separator in _SEPARATORS:
        characters, text = _every_character(separator)
        parts = normalizer.normalize_str(text).split(separator)
        if normalizer.normalize_str(separator) == separator and len(parts) == len(characters):
            return {ord(old): new for old, new in zip(characters, parts, strict=True) if new != old}
    raise UnsupportedTokenizer(f"Normalizer {name!r} does not change characters one at a time.")


@cache
def _every_character(separator: str) -> tuple[list[str], str]:
    characters = [character for character in map(chr, EVERY) if character != separator]
    return characters, separator.join(characters)


def then(first: Mapping[int, str], second: Mapping[int, str]) -> dict[int, str]:
    """One map that applies two, one after the other."""
    result = dict(second)
    for code, new in first.items():
        result[code] = "".join(second.get(ord(c), c) for c in new)
    return result
