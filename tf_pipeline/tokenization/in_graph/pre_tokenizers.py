"""Pre-tokenizers of tokenizer.json: each type is a function from its JSON to a function on ``Text``."""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.byte_level import as_bytes
from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer, compiled_by
from tf_pipeline.tokenization.in_graph.mapping import repeated
from tf_pipeline.tokenization.in_graph.regex import Regex, chunks, literal, pieces
from tf_pipeline.tokenization.in_graph.tables import CODE_POINTS, CodePointTable
from tf_pipeline.tokenization.in_graph.text import Text, follow, longest_section

Stage = Callable[[Text], Text]

# OpenAI's expression for GPT-2, which ByteLevel has built in.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def compile_pre_tokenizer(component: dict[str, Any] | None) -> list[Stage]:
    """Stages that split a text into words.

    Raises:
        UnsupportedTokenizer: for a type or an option that is not compiled.
    """
    if component is None:
        return []
    return compiled_by(_TYPES, component["type"], "Pre-tokenizer")(component)


def _sequence(component: dict[str, Any]) -> list[Stage]:
    return [stage for part in component["pretokenizers"] for stage in compile_pre_tokenizer(part)]


def _bert(component: dict[str, Any]) -> list[Stage]:
    dropped, alone = _kinds("BertPreTokenizer")
    return [_splitter(_Characters(dropped), "Removed"), _splitter(_Characters(alone), "Isolated")]


def _whitespace(component: dict[str, Any]) -> list[Stage]:
    # Runs of other characters are cut off from words, but not from each other.
    dropped, others = _kinds("Whitespace")
    return [_splitter(_Characters(dropped), "Removed"), _splitter(_Characters(others), "Contiguous")]


def _whitespace_split(component: dict[str, Any]) -> list[Stage]:
    return [_splitter(_Characters(whitespace()), "Removed")]


def _punctuation(component: dict[str, Any]) -> list[Stage]:
    return [_splitter(_Characters(_kinds("Punctuation", behavior="isolated")[1]), component["behavior"])]


def _digits(component: dict[str, Any]) -> list[Stage]:
    digits = _kinds("Digits", individual_digits=True)[1]
    return [_splitter(_Characters(digits), "Isolated" if component["individual_digits"] else "Contiguous")]


def _delimiter(component: dict[str, Any]) -> list[Stage]:
    return [_splitter(literal(component["delimiter"]), "Removed")]


def pattern_of(what: str, component: dict[str, Any]) -> Regex:
    """The ``pattern`` of a component, a string or a regular expression.

    Args:
        what: name of the component in the message.
        component: of tokenizer.json.

    Raises:
        UnsupportedTokenizer: for a pattern that matches nothing at all, which would cut the text everywhere.
    """
    ((kind, pattern),) = component["pattern"].items()
    compiled = literal(pattern) if kind == "String" else Regex(pattern)
    if compiled.nullable:
        raise UnsupportedTokenizer(
            f"{what} with the pattern {pattern!r}, which the empty string matches, is not compiled."
        )
    return compiled


def _split(component: dict[str, Any]) -> list[Stage]:
    compiled = pattern_of("Pre-tokenizer 'Split'", component)
    return [_splitter(compiled, component["behavior"], component.get("invert", False))]


def _byte_level(component: dict[str, Any]) -> list[Stage]:
    stages: list[Stage] = []
    if component["add_prefix_space"]:
        stages.append(partial(prepend, prefix=" "))
    if component.get("use_regex", True):
        stages.append(_splitter(Regex(_GPT2), "Isolated"))
    return [*stages, as_bytes]


def _metaspace(component: dict[str, Any]) -> list[Stage]:
    mark, scheme = component["replacement"], component.get("prepend_scheme", "always")
    if len(mark) != 1 or scheme not in ("always", "first", "never"):
        raise UnsupportedTokenizer(f"Pre-tokenizer 'Metaspace' with {mark!r} and {scheme!r} is not compiled.")
    stages: list[Stage] = [lambda text: text.with_codes(tf.where(text.codes == ord(" "), ord(mark), text.codes))]
    if scheme != "never":
        stages.append(partial(prepend, prefix=mark, only_at_start=scheme == "first"))
    if component.get("split", True):
        stages.append(_splitter(literal(mark), "MergedWithNext"))
    return stages


_TYPES: dict[str, Callable[[dict[str, Any]], list[Stage]]] = {
    "BertPreTokenizer": _bert,
    "ByteLevel": _byte_level,
    "CharDelimiterSplit": _delimiter,
    "Digits": _digits,
    "Metaspace": _metaspace,
    "Punctuation": _punctuation,
    "Sequence": _sequence,
    "Split": _split,
    "Whitespace": _whitespace,
    "WhitespaceSplit": _whitespace_split,
}


class _Characters:
    """Matches every single character of a set."""

    def __init__(self, inside: np.ndarray):
        self._inside = CodePointTable(inside.astype(np.int64))

    def ends(self, text: Text) -> tf.Tensor:
        """The end of the match at every place, -1 where there is none."""
        return tf.where(self._inside(text.codes) != 0, tf.range(1, tf.size(text.codes) + 1), -1)


@lru_cache(maxsize=32)
def _kinds(name: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two sets, bool ``[0x110000]``: characters that a pre-tokenizer drops, and those that it cuts off from letters."""
    dropped, alone = np.zeros(CODE_POINTS, bool), np.zeros(CODE_POINTS, bool)
    pre_tokenizer = getattr(tokenizers.pre_tokenizers, name)(**options)
    for codes in chunks():
        text = "a" + "".join(f"{chr(code)}a" for code in codes)
        covered, starts = pieces(pre_tokenizer, text)
        dropped[codes], alone[codes] = ~covered[1::2], (covered & starts)[1::2]
    return dropped, alone


@cache
def whitespace() -> np.ndarray:
    """True for code points that are white space to ``tokenizers``, bool ``[0x110000]``."""
    space = np.zeros(CODE_POINTS, bool)
    for codes in chunks():
        space[codes] = ~pieces(tokenizers.pre_tokenizers.WhitespaceSplit(), "".join(map(chr, codes)))[0]
    return space


def prepend(text: Text, prefix: str, only_at_start: bool = False, unless_there: bool = True) -> Text:
    """Put a prefix, which comes from where the first character does, before sections."""
    first = text.begins & ~text.is_end & ~text.is_added
    if unless_there:
        first &= text.codes != ord(prefix)
    if only_at_start:
        first &= text.start == 0
    source, within, lengths = repeated(tf.where(first, 1 + len(prefix), 1))
    new, index = text.select(source), tf.minimum(within, len(prefix) - 1)
    inserted = tf.gather(tf.constant([*map(ord, prefix)]), index)
    return new.with_codes(tf.where((lengths > 1) & (within < len(prefix)), inserted, new.codes))


def _splitter(pattern: Regex | _Characters, behavior: str, invert: bool = False) -> Stage:
    if behavior not in ("Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext"):
        raise UnsupportedTokenizer(f"Split behavior {behavior!r} is not compiled.")

    def split(text: Text) -> Text:
        starts, after, inside = matches(text, pattern)
        if behavior == "Removed":
            return text.sections(starts | after, keep=text.is_added | (inside == invert))
        if behavior == "Isolated":
            return text.sections(starts | after)
        if behavior == "Contiguous":
            return text.sections(inside != tf.concat([[False], inside[:-1]], 0))
        # To merge the text between matches with the next match is to merge matches with the text before them.
        return text.sections(starts if (behavior == "MergedWithNext") != invert else after)

    return split


def matches(text: Text, pattern: Regex | _Characters) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Matches from left to right that do not overlap.

    Returns:
        Three bool ``[n]``: whether a match starts here, whether one ended right before, whether it is part of one.
    """
    places = tf.range(tf.size(text.codes))
    ends = pattern.ends(text)
    starts = ends > places
    if not isinstance(pattern, _Characters):
        starts &= follow(tf.where(starts, ends, places + 1), longest_section(text), text.begins)
    return spans(starts, ends)


def spans(starts: tf.Tensor, ends: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of spans given by starts and ends: the starts, the places right after them, and the places they cover."""
    edges = tf.boolean_mask(ends, starts)
    after = tf.tensor_scatter_nd_update(tf.zeros_like(ends), edges[:, None], tf.ones_like(edges))
    inside = tf.cumsum(tf.cast(starts, tf.int32) - after) > 0
    return starts, tf.cast(after, tf.bool), inside
