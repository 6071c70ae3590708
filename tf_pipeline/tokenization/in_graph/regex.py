r"""Regular expressions as TensorFlow ops: for every place of a text at once, where a match that starts there ends.

A place's answer depends on those of later places alone, so an expression is evaluated from its end to its start, each
element in a few ops over the whole batch. Order of alternatives and greediness are those of a backtracking engine.
Supported: alternatives, groups ``(?:…)`` and ``(?i:…)``, character classes in brackets or as escapes (``\s``,
``\p{L}``, …), ``?``, ``*``, ``+``, ``{m}``, ``{m,}``, ``{m,n}`` on a character, ``?`` on a group, possessive ``?+``,
``*+``, ``++``, and ``(?=x)``, ``(?!x)`` of one character. The members of a class are asked of the installed
``tokenizers``.

Example: ``a+b`` on the text "aab", with the end of the match at every place, or -1::

    place             0 (a)   1 (a)   2 (b)   3 (end)
    nothing left        0       1       2       3       the empty rest matches everywhere and ends where it starts
    ``b``              -1      -1       3      -1       a "b" at place 2, and behind it the empty rest
    ``a+b``             3       3      -1      -1       "a"s from place 0 or 1 up to place 2, where ``b`` matches
"""

import dataclasses
import re
from functools import lru_cache

import numpy as np
import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.tables import CODE_POINTS, END, CodePointTable
from tf_pipeline.tokenization.in_graph.text import Text, last_true, next_true

SURROGATES = range(0xD800, 0xE000)
EVERY = np.array([c for c in range(CODE_POINTS) if c not in SURROGATES])
_NO_LIMIT = 1 << 30


def literal(string: str) -> "Regex":
    """An expression that matches a string and nothing else."""
    return Regex("".join(c if c.isalnum() or c.isspace() or ord(c) > 127 or c == "_" else f"\\{c}" for c in string))


@lru_cache(maxsize=256)
def members(pattern: str) -> np.ndarray:
    """True for code points that a pattern of one character matches, bool ``[0x110000]``, asked of ``tokenizers``."""
    result = np.zeros(CODE_POINTS, bool)
    if len(character := re.sub(r"^\\(?=\W)", "", pattern)) == 1 and pattern != ".":
        result[ord(character)] = True
        return result
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed")
    for codes in chunks():
        result[codes] = ~pieces(split, "".join(map(chr, codes)))[0]
    return result


def chunks() -> list[np.ndarray]:
    """Every code point, in arrays so short that `tokenizers` is at its quickest."""
    return np.array_split(EVERY, 256)


def pieces(pre_tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """True for the characters of a text that are in a piece, and for those that start one, both bool ``[n]``."""
    spans = np.array([edges for _, edges in pre_tokenizer.pre_tokenize_str(text)] or [(0, 0)])
    starts, ends = (np.bincount(spans[:, i], minlength=len(text) + 1)[: len(text)] for i in (0, 1))
    return np.cumsum(starts - ends) > 0, starts > 0


@dataclasses.dataclass(frozen=True)
class _Characters:
    """Repetition of one character of a class."""

    pattern: str
    least: int = 1
    most: int = 1
    possessive: bool = False


@dataclasses.dataclass(frozen=True)
class _Ahead:
    """The next character is of a class, or is not."""

    pattern: str
    wanted: bool


@dataclasses.dataclass(frozen=True)
class _Group:
    """Alternatives, each a sequence; with ``optional``, or nothing."""

    alternatives: tuple[tuple, ...]
    optional: bool = False


class Regex:
    """A compiled expression.

    Args:
        pattern: the expression, as written in tokenizer.json.

    Raises:
        UnsupportedTokenizer: for syntax that is not supported.
    """

    def __init__(self, pattern: str):
        self._root = _Parser(pattern).parse()
        self._bits: dict[str, int] = {}
        _collect(self._root, self._bits)
        if len(self._bits) > 31:
            raise UnsupportedTokenizer(f"The regular expression {pattern!r} has more than 31 character classes.")
        values = np.zeros(CODE_POINTS, np.int64)
        for name, bit in self._bits.items():
            values |= members(name).astype(np.int64) << bit
        self._classes = CodePointTable(values)

    @property
    def nullable(self) -> bool:
        """Whether the empty string may match."""
        return _nullable(self._root)

    def ends(self, text: Text) -> tf.Tensor:
        """The end of the match at every place, int32 ``[n]``; -1 where there is none.

        No match leaves its section, and added tokens match nothing.
        """
        classes = self._classes(tf.where(text.is_added, END, text.codes))
        flags = {name: tf.bitwise.bitwise_and(classes, 1 << bit) != 0 for name, bit in self._bits.items()}
        return _ends(self._root, flags, tf.range(tf.size(text.codes)))


def _collect(node, bits: dict[str, int]) -> None:
    if isinstance(node, _Group):
        for part in (part for sequence in node.alternatives for part in sequence):
            _collect(part, bits)
    else:
        bits.setdefault(node.pattern, len(bits))


def _nullable(node) -> bool:
    if isinstance(node, _Group):
        return node.optional or any(all(map(_nullable, sequence)) for sequence in node.alternatives)
    return isinstance(node, _Ahead) or node.least == 0


def _ends(node, flags: dict[str, tf.Tensor], rest: tf.Tensor) -> tf.Tensor:
    """Ends of matches of ``node`` and its successors at every place; ``rest`` are those of its successors alone."""
    if isinstance(node, _Group):
        result = rest if node.optional else tf.fill(tf.shape(rest), -1)
        for sequence in reversed(node.alternatives):
            end = rest
            for part in reversed(sequence):
                end = _ends(part, flags, end)
            result = tf.where(end >= 0, end, result)
        return result
    inside = flags[node.pattern]
    if isinstance(node, _Ahead):
        return tf.where(inside == node.wanted, rest, -1)
    if (node.least, node.most) == (1, 1):
        # The last entry is END, which no class holds.
        return tf.where(inside, tf.concat([rest[1:], [-1]], 0), -1)
    return _repeated(node, inside, rest)


def _repeated(node: _Characters, inside: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
    places = tf.range(tf.size(rest))
    furthest = next_true(~inside)
    if node.most < _NO_LIMIT:
        furthest = tf.minimum(furthest, places + node.most)
    # Greedy: of the places that the class reaches, the last from which the rest matches.
    chosen = furthest if node.possessive else tf.gather(last_true(rest >= 0), furthest)
    matched = chosen >= places + node.least
    return tf.where(matched, tf.gather(rest, tf.maximum(chosen, 0)), -1)


class _Parser:
    """Reads an expression by recursive descent."""

    def __init__(self, pattern: str):
        self._pattern, self._at, self._ignore_case = pattern, 0, False

    def parse(self) -> _Group:
        group = self._alternatives()
        if self._at < len(self._pattern):
            self._refuse("an unmatched )")
        return group

    def _refuse(self, what: str):
        raise UnsupportedTokenizer(
            f"{what} at position {self._at} of the regular expression {self._pattern!r} is not supported; "
            "alternatives, (?:…), (?i:…), character classes, quantifiers on them, and look-ahead at one character are."
        )

    def _take(self, expression: str) -> str | None:
        match = re.compile(expression).match(self._pattern, self._at)
        if not match:
            return None
        self._at = match.end()
        return match.group()

    def _alternatives(self) -> _Group:
        sequences = [self._sequence()]
        while self._take(r"\|"):
            sequences.append(self._sequence())
        return _Group(tuple(sequences))

    def _sequence(self) -> tuple:
        parts = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            parts.append(self._group() if self._pattern[self._at] == "(" else self._characters())
        return tuple(parts)

    def _group(self) -> _Group | _Ahead:
        opening = self._take(r"\(\?:|\(\?i:|\(\?=|\(\?!|\((?!\?)") or self._refuse("this group")
        outer, self._ignore_case = self._ignore_case, self._ignore_case or opening == "(?i:"
        if opening in ("(?=", "(?!"):
            node = _Ahead(self._character(), opening == "(?=")
            self._take(r"\)") or self._refuse("look-ahead at more than one character")
            if self._take(r"[?*+{]"):
                self._refuse("a repeated look-ahead")
        else:
            node = self._alternatives()
            self._take(r"\)") or self._refuse("an unmatched (")
            if self._take(r"\?(?![?+])"):
                node = dataclasses.replace(node, optional=True)
            elif self._take(r"[?*+{]"):
                self._refuse("a repeated group")
        self._ignore_case = outer
        return node

    def _characters(self) -> _Characters:
        pattern = self._character()
        quantifier = self._take(r"[?*+][+?]?|\{\d+(,\d*)?\}") or "{1}"
        if quantifier[1:] == "?":
            self._refuse("a lazy quantifier")
        if quantifier[0] == "{":
            least, _, most = quantifier[1:-1].partition(",")
            most = most or ("" if "," in quantifier else least)
            if self._take(r"[?+*{]"):
                self._refuse("a second quantifier")
            return _Characters(pattern, int(least), int(most) if most else _NO_LIMIT)
        least, most = {"?": (0, 1), "*": (0, _NO_LIMIT), "+": (1, _NO_LIMIT)}[quantifier[0]]
        return _Characters(pattern, least, most, possessive=quantifier[1:] == "+")

    def _character(self) -> str:
        """One class, escape or literal, as a pattern of its own."""
        if self._pattern[self._at] == "[":
            taken = self._class()
        else:
            taken = self._take(r"\\[pP]\{\^?\w+\}|\\x\{[0-9A-Fa-f]+\}|\\[sSdDwWrntfv]|\\[^\w\s]|[^\\^$.?*+{}()|\[\]]")
        if taken is None:
            self._refuse(repr(self._pattern[self._at]))
        return f"(?i:{taken})" if self._ignore_case else taken

    def _class(self) -> str:
        start, depth = self._at, 0
        while self._at < len(self._pattern):
            if self._take(r"\\.|\[:\^?\w+:\]"):
                continue
            depth += {"[": 1, "]": -1}.get(self._pattern[self._at], 0)
            self._at += 1
            if not depth:
                return self._pattern[start : self._at]
        self._refuse("an unmatched [")
