"""SentencePiece's precompiled character map, read as `tokenizers` reads it.

That is not as SentencePiece does: a grapheme cluster of less than six bytes is replaced as a whole by the replacement
of the shortest string that it starts with, marks included; longer ones are replaced character by character.

Example: a map that replaces "a" by "x", on "a" with acute accents (U+0301, two bytes each)::

    a + 1 accent     3 bytes     "x": the cluster starts with "a", so its accent is lost
    a + 3 accents    7 bytes     "x" + 3 accents: the cluster is too long, and only "a" is in the map
"""

import base64
from functools import cache, lru_cache

import numpy as np
import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.byte_level import utf8_length
from tf_pipeline.tokenization.in_graph.mapping import CharacterMap, repeated
from tf_pipeline.tokenization.in_graph.regex import EVERY
from tf_pipeline.tokenization.in_graph.tables import CODE_POINTS, CodePointTable, Trie
from tf_pipeline.tokenization.in_graph.text import Text, last_true, next_true

_EXTENDS, _PREPENDS, _CONTROL = 1, 2, 4
_LARGEST_CLUSTER = 5  # bytes


class Precompiled:
    """A stage that applies a precompiled character map.

    Args:
        charsmap: the map of tokenizer.json, base64 or its bytes.
    """

    def __init__(self, charsmap: str | bytes):
        replacements = read_charsmap(base64.b64decode(charsmap) if isinstance(charsmap, str) else charsmap)
        self._single = CharacterMap({ord(old): new for old, new in replacements.items() if len(old) == 1})
        strings = _shortest(replacements)
        self._trie = Trie([(old, i) for i, old in enumerate(strings)])
        contents = [replacements[old] for old in strings]
        self._lengths = tf.constant([len(new) for new in contents] or [0], tf.int32)
        self._offsets = tf.constant(np.cumsum([0, *(len(new) for new in contents)])[:-1].tolist() or [0], tf.int32)
        self._values = tf.constant([ord(c) for new in contents for c in new] or [0], tf.int32)
        self._kinds = CodePointTable(cluster_kinds())

    def __call__(self, text: Text) -> Text:
        """Normalize a text."""
        joined = self._joined(text, self._kinds(text.codes))
        alone = self._single.lengths(text.codes)
        ones = tf.ones_like(alone)
        counts, old, string = tf.cond(
            tf.reduce_any(joined), lambda: self._clusters(text, joined, alone), lambda: (alone, ones, -ones)
        )
        source, within, new = repeated(counts)
        place, string = self._places(text, counts, old, source, within, new), tf.gather(string, source)
        index = tf.where(string >= 0, tf.gather(self._offsets, tf.maximum(string, 0)) + within, 0)
        single = self._single.characters(tf.gather(text.codes, source), new, tf.where(string >= 0, 0, within))
        return text.select(place).with_codes(tf.where(string >= 0, tf.gather(self._values, index), single))

    def _places(self, text: Text, counts, old, source, within, new) -> tf.Tensor:
        """The entry that each new character is said to come from, with the two slips of `tokenizers`."""
        old = tf.gather(old, source)
        place = source + tf.minimum(within, old - 1)
        # What is dropped counts with the character before it. If that was added to, the last of the added then
        # counts as what is dropped;
        following = source + old
        dropped = tf.gather(tf.concat([counts, [1]], 0), tf.minimum(following, tf.size(counts))) == 0
        place = tf.where((within == new - 1) & (new > old) & dropped, following, place)
        # at the start of a section there is none before, and all places are too early by what is dropped.
        start = last_true(text.begins)
        return place - tf.gather(tf.gather(next_true(counts > 0), start) - start, source)

    def _joined(self, text: Text, kinds: tf.Tensor) -> tf.Tensor:
        """Whether an entry is in one grapheme cluster with the entry before, bool ``[n]``."""

        def has(kind):
            return tf.bitwise.bitwise_and(kinds, kind) != 0

        control = has(_CONTROL) | text.is_end | text.is_added
        extends = has(_EXTENDS)[1:] & ~control[:-1]
        prepended = has(_PREPENDS)[:-1] & ~control[1:]
        newline = (text.codes[:-1] == ord("\r")) & (text.codes[1:] == ord("\n"))
        return tf.concat([[False], (extends | prepended | newline) & ~text.begins[1:]], 0)

    def _clusters(self, text: Text, joined: tf.Tensor, alone: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """For every entry: number of characters it makes, number of entries it uses, and the matching string or -1."""
        places = tf.range(tf.size(joined))
        heads = tf.cast(tf.where(~joined)[:, 0], tf.int32)
        sizes = tf.concat([heads[1:], tf.fill([1], tf.size(joined))], 0) - heads
        before = tf.concat([[0], tf.cumsum(utf8_length(text.codes))], 0)
        width = tf.gather(before, heads + sizes) - tf.gather(before, heads)
        lengths, string = self._trie.longest_matches(text.codes, positions=heads)
        whole = (sizes > 1) & (width <= _LARGEST_CLUSTER) & (lengths > 0) & (lengths <= sizes)
        cluster = last_true(~joined)
        number = tf.cumsum(tf.cast(~joined, tf.int32)) - 1
        replaced = tf.gather(whole, number)
        string, sizes = tf.gather(tf.maximum(string, 0), number), tf.gather(sizes, number)
        # The first entry of a cluster makes all that replaces it.
        made = tf.where(cluster == places, tf.gather(self._lengths, string), 0)
        return tf.where(replaced, made, alone), tf.where(replaced, sizes, 1), tf.where(replaced, string, -1)


def _shortest(replacements: dict[str, str]) -> list[str]:
    """Strings that do not start with another one."""
    return [
        old for old in replacements if len(old) == 1 or not any(old[:i] in replacements for i in range(1, len(old)))
    ]


@lru_cache(maxsize=8)
def read_charsmap(charsmap: bytes) -> dict[str, str]:
    """Replacements of a precompiled character map, read from its double array."""
    size = int.from_bytes(charsmap[:4], "little")
    units, content = np.frombuffer(charsmap[4 : 4 + size], "<u4").astype(np.int64), charsmap[4 + size :]
    labels, result = np.arange(1, 256), {}
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    frontier = [(offsets[0], b"")]
    while frontier:
        positions = np.array([position for position, _ in frontier])[:, None] ^ labels
        inside = positions < len(units)
        children = np.where(inside, units[np.minimum(positions, len(units) - 1)], 0)
        rows, columns = np.nonzero((children & ((1 << 31) | 0xFF)) == labels)
        following = []
        for row, column in zip(rows, columns, strict=True):
            position, key = positions[row, column], frontier[row][1] + bytes([labels[column]])
            child = position ^ offsets[position]
            if units[position] >> 8 & 1:
                start = int(units[child] & ((1 << 31) - 1))
                result[key.decode()] = content[start : content.index(b"\0", start)].decode()
            following.append((child, key))
        frontier = following
    return result


@cache
def cluster_kinds() -> np.ndarray:
    """Roles of every code point in grapheme clusters of ``tokenizers``, bits, ``[0x110000]``.

    Asked of a map of three strings: a cluster that starts with one of them becomes "Z".
    """
    normalizer = tokenizers.normalizers.Precompiled(write_charsmap({"a": "Z", "b\u0301": "Z", "\u0301\u0302": "Z"}))
    kinds = np.zeros(CODE_POINTS, np.int64)
    codes = EVERY[~np.isin(EVERY, [*map(ord, "!abZ")])]

    characters = [*map(chr, codes)]

    def ask(before: str, after: str) -> list[str]:
        # "!" is a cluster of its own, whatever its neighbours, except characters that are prepended to it.
        return normalizer.normalize_str(before + f"{after}!{before}".join(characters) + after).split("!")

    kinds[codes] += [_EXTENDS * (new == "Z") for new in ask("a", "")]
    kinds[codes] += [_PREPENDS * ("Z" not in new) for new in ask("", "b\u0301")]
    kinds[codes] += [_CONTROL * ("Z" in new) for new in ask("", "\u0301\u0302")]
    return kinds


def write_charsmap(replacements: dict[str, str]) -> bytes:
    """A precompiled character map of a few strings, none the start of another."""
    units, content, taken = np.zeros(1 << 14, np.int64), b"", 1
    children: dict[bytes, set[int]] = {}
    for old in map(str.encode, replacements):
        for i in range(len(old)):
            children.setdefault(old[:i], set()).add(old[i])
    place = {b"": 0}
    for key in sorted({*children, *(old.encode() for old in replacements)}, key=len):
        offset, taken = place[key] & ~0xFF ^ taken * 256, taken + 1  # a block of its own
        units[place[key]] |= offset << 10
        for label in children.get(key, ()):
            place[key + bytes([label])] = place[key] ^ offset ^ label
            units[place[key + bytes([label])]] = label
        if key.decode("utf-8", "replace") in replacements:
            units[place[key]] |= 1 << 8
            units[place[key] ^ offset] = len(content) | 1 << 31
            content += replacements[key.decode()].encode() + b"\0"
    return (4 * len(units)).to_bytes(4, "little") + units.astype("<u4").tobytes() + content
