"""Unicode normalization where it is more than a look-up: the order of combining marks, and composition.

The tables are asked of the installed ``tokenizers``. Both stages first look whether a batch needs them at all.
"""

import unicodedata
from functools import cache

import numpy as np
import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.mapping import CharacterMap, probed
from tf_pipeline.tokenization.in_graph.regex import EVERY
from tf_pipeline.tokenization.in_graph.tables import CODE_POINTS, CodePointTable, SparseMatrix, flexible
from tf_pipeline.tokenization.in_graph.text import Text

_LAST_CLASS = "\u0345"  # the only character of the highest combining class, 240


@cache
def combining_classes() -> np.ndarray:
    """The canonical combining class of every code point to ``tokenizers``, int64 ``[0x110000]``.

    Classes never change; that an older Unicode version does not know a character shows in its not being reordered.
    """
    normalizer = tokenizers.normalizers.NFD()
    classes = np.zeros(CODE_POINTS, np.int64)
    classes[ord(_LAST_CLASS)] = 240
    for code in map(int, EVERY):
        value = unicodedata.combining(chr(code))
        if 0 < value < 240:
            end = normalizer.normalize_str(chr(code))
            if normalizer.normalize_str(_LAST_CLASS + chr(code)) == end + _LAST_CLASS:
                classes[code] = value
    return classes


@cache
def compositions() -> dict[tuple[int, int], int]:
    """The character that each pair of characters composes to."""
    nfc, pairs = tokenizers.normalizers.NFC(), {}
    for code in map(int, EVERY):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            first, second = (int(part, 16) for part in parts)
            if nfc.normalize_str(chr(first) + chr(second)) == chr(code):
                pairs[first, second] = code
    for code in range(0xAC00, 0xAC00 + 11172):  # Hangul syllables follow a formula
        lead, vowel, tail = (code - 0xAC00) // 588, (code - 0xAC00) % 588 // 28, (code - 0xAC00) % 28
        if tail:
            pairs[code - tail, 0x11A7 + tail] = code
        else:
            pairs[0x1100 + lead, 0x1161 + vowel] = code
    return pairs


class Ordering:
    """A stage that decomposes characters, then puts combining marks in canonical order.

    Args:
        decompose: the map that decomposes.
    """

    def __init__(self, decompose: CharacterMap):
        self._decompose, self._classes = decompose, CodePointTable(combining_classes())

    def __call__(self, text: Text) -> Text:
        """Decompose a text."""
        return self.with_classes(text)[0]

    def with_classes(self, text: Text) -> tuple[Text, tf.Tensor, tf.Tensor]:
        """The decomposed text, the combining class of every entry, and whether it is the first of an old one."""
        text, first = self._decompose.expand(text)
        classes = self._classes(text.codes)
        disordered = (classes[1:] > 0) & (classes[:-1] > classes[1:])

        def order():
            # Stable: by the run between two characters of class 0, then by class.
            key = tf.cumsum(tf.cast(classes == 0, tf.int32)) * 256 + classes
            chosen = tf.argsort(key, stable=True)
            # As in `tokenizers`, the places in the original text stay in order: the n-th character that stands for
            # one of the original takes the n-th place.
            ordered = tf.gather(first, chosen)
            places = tf.gather(tf.where(first)[:, 0], tf.cumsum(tf.cast(ordered, tf.int32)) - 1)
            moved = text.select(places).with_codes(tf.gather(text.codes, chosen))
            return *moved.parts(), tf.gather(classes, chosen), ordered

        *parts, classes, first = tf.cond(tf.reduce_any(disordered), order, lambda: (*text.parts(), classes, first))
        return Text(*parts), classes, first


class Composition:
    """A stage that composes characters after decomposing them.

    Args:
        form: ``"NFC"`` or ``"NFKC"``.
    """

    def __init__(self, form: str):
        decomposed = probed(getattr(tokenizers.normalizers, form.replace("C", "D"))())
        self._decompose = Ordering(CharacterMap(decomposed))
        pairs = compositions()
        rows = {first: row for row, first in enumerate(dict.fromkeys(first for first, _ in pairs), 1)}
        columns = {second: column for column, second in enumerate(dict.fromkeys(second for _, second in pairs), 1)}
        self._rows, self._columns = (CodePointTable(_dense(index)) for index in (rows, columns))
        keys = np.array([(rows[first], columns[second]) for first, second in pairs])
        self._pairs = SparseMatrix(keys[:, 0], keys[:, 1], np.array([*pairs.values()]), len(rows) + 1)
        settled = np.ones(CODE_POINTS, np.int64)
        settled[[*probed(getattr(tokenizers.normalizers, form)()), *columns]] = 0
        settled[combining_classes() > 0] = 0
        self._settled = CodePointTable(settled, 1)

    def __call__(self, text: Text) -> Text:
        """Normalize a text."""
        settled = tf.reduce_all(self._settled(text.codes) != 0)
        return Text(*tf.cond(settled, text.parts, lambda: self._normalize(text).parts()))

    def _normalize(self, old: Text) -> Text:
        text, classes, first = self._decompose.with_classes(old)
        # A group begins where nothing before can be composed with, so groups are composed side by side.
        joins = (classes > 0) | (self._columns(text.codes) > 0)
        heads = tf.cast(tf.where(~joins | text.begins)[:, 0], tf.int32)
        sizes = tf.concat([heads[1:], tf.fill([1], tf.size(classes))], 0) - heads
        several = tf.where(sizes > 1)[:, 0]
        heads, sizes = tf.gather(heads, several), tf.gather(sizes, several)
        codes, keep, firsts = self._compose(text.codes, classes, tf.cast(first, tf.int32), heads, sizes)
        codes, firsts = tf.boolean_mask(codes, keep), tf.boolean_mask(firsts, keep)
        # As in `tokenizers`, a character takes as many places as it has first ones in it, but names the first of them.
        places = tf.cumsum(firsts, exclusive=True) - tf.cast(firsts == 0, tf.int32)
        return old.select(places).with_codes(codes)

    def _compose(self, codes, classes, firsts, heads, sizes) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Compose groups, which begin with a starter: codes, a mask of those that stay, and ``firsts`` added up."""

        def body(step, starters, previous, codes, keep, firsts, heads, sizes):
            # `starters` is the current starter of each group; `previous` the class of what stays after it, or -1.
            at = heads + step
            kind = tf.gather(classes, at)
            composed = self._pairs(self._rows(tf.gather(codes, starters)), self._columns(tf.gather(codes, at)))
            joined = (composed >= 0) & (previous < kind) & (tf.gather(classes, starters) == 0)
            places = tf.boolean_mask(starters, joined)[:, None]
            codes = tf.tensor_scatter_nd_update(codes, places, tf.boolean_mask(composed, joined))
            keep = tf.tensor_scatter_nd_update(keep, at[:, None], ~joined)
            firsts = tf.tensor_scatter_nd_add(firsts, places, tf.gather(firsts, tf.boolean_mask(at, joined)))
            starters = tf.where(~joined & (kind == 0), at, starters)
            previous = tf.where(joined, previous, tf.where(kind == 0, -1, kind))
            left = tf.where(sizes > step + 1)[:, 0]
            starters, previous, heads, sizes = (tf.gather(x, left) for x in (starters, previous, heads, sizes))
            return step + 1, starters, previous, codes, keep, firsts, heads, sizes

        keep = tf.ones_like(codes, tf.bool)
        state = (tf.constant(1), heads, tf.fill(tf.shape(heads), -1), codes, keep, firsts, heads, sizes)
        result = tf.while_loop(lambda step, starters, *_: tf.size(starters) > 0, body, state, flexible(state))
        return result[3:6]


def _dense(index: dict[int, int]) -> np.ndarray:
    values = np.zeros(CODE_POINTS, np.int64)
    values[[*index]] = [*index.values()]
    return values
