"""Added tokens, special ones among them, found in the text itself before anything else looks at it."""

from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.pre_tokenizers import spans, whitespace
from tf_pipeline.tokenization.in_graph.regex import chunks
from tf_pipeline.tokenization.in_graph.tables import ADDED, CODE_POINTS, CodePointTable, Trie
from tf_pipeline.tokenization.in_graph.text import Text, follow, last_true, longest_section, next_true

_WORD, _SPACE = 1, 2


class AddedTokens:
    """A stage that makes sections of one entry out of added tokens.

    Of overlapping tokens the leftmost counts, and of those that start together the longest.

    Args:
        tokens: entries of tokenizer.json's ``added_tokens``, with the ``pattern`` to look for.
        trim: whether the white space of ``rstrip`` is left out of offsets; ``Trimmer`` leaves out that of ``lstrip``.

    Raises:
        UnsupportedTokenizer: for tokens that are empty, that are equal, or that a neighbour's ``rstrip`` could cut.
    """

    def __init__(self, tokens: list[dict[str, Any]], trim: bool):
        patterns = [token["pattern"] for token in tokens]
        _check(tokens, patterns)
        self._trim = trim
        self._trie = Trie([(pattern, i) for i, pattern in enumerate(patterns)])
        self._ids = tf.constant([token["id"] for token in tokens] or [0], tf.int32)
        self._flags = {
            name: tf.constant([bool(token[name]) for token in tokens] or [False])
            for name in ("single_word", "lstrip", "rstrip")
        }
        kinds = whitespace().astype(np.int64) * _SPACE
        if any(token["single_word"] for token in tokens):
            kinds += word_characters().astype(np.int64) * _WORD
        self._kinds = CodePointTable(kinds)

    def __call__(self, text: Text) -> Text:
        """Find the tokens in all sections that are not added tokens."""
        if self._trie.empty:
            return text
        lengths, tokens = self._trie.longest_matches(text.codes)
        changed = tf.cond(tf.reduce_any(lengths > 0), lambda: self._mark(text, lengths, tokens).parts(), text.parts)
        return Text(*changed)

    def _mark(self, text: Text, lengths: tf.Tensor, found: tf.Tensor) -> Text:
        places = tf.range(tf.size(lengths))
        kinds = self._kinds(text.codes)
        starts = (lengths > 0) & follow(places + tf.maximum(lengths, 1), longest_section(text), text.begins)
        starts &= ~tf.gather(self._flags["single_word"], tf.maximum(found, 0)) | self._alone(text, lengths, kinds)
        at = tf.cast(tf.where(starts)[:, 0], tf.int32)
        token = tf.gather(found, at)
        last = at + tf.gather(lengths, at)
        first, end = self._stripped(text, kinds, at, last, token)
        # An added token is its first entry, which reaches to its last.
        ends = tf.tensor_scatter_nd_update(tf.fill(tf.shape(places), -1), first[:, None], end)
        codes = tf.tensor_scatter_nd_update(text.codes, first[:, None], ADDED + tf.gather(self._ids, token))
        until = tf.gather(text.end, (last if self._trim else end) - 1)
        until = tf.tensor_scatter_nd_update(text.end, first[:, None], until)
        starts, after, inside = spans(ends >= 0, ends)
        return Text(codes, text.start, until, text.row).sections(starts | after, keep=starts | ~inside)

    def _alone(self, text: Text, lengths: tf.Tensor, kinds: tf.Tensor) -> tf.Tensor:
        """Whether no character of a word of the same section is right before or after a match."""
        word = tf.bitwise.bitwise_and(kinds, _WORD) != 0
        before = tf.concat([[False], word[:-1]], 0)  # END and added tokens are no letters
        after = tf.gather(word, tf.minimum(tf.range(tf.size(lengths)) + lengths, tf.size(lengths) - 1))
        return ~before & ~after

    def _stripped(self, text: Text, kinds, first, end, token) -> tuple[tf.Tensor, tf.Tensor]:
        """Widen matches over white space, to the left not over the match before."""
        solid = tf.bitwise.bitwise_and(kinds, _SPACE) == 0
        end = tf.where(tf.gather(self._flags["rstrip"], token), tf.gather(next_true(solid), end), end)
        previous = tf.concat([[0], end[:-1]], 0)
        # One past the last entry that is not white space, END included.
        left = tf.gather(tf.concat([[-1], last_true(solid)], 0), first) + 1
        left = tf.maximum(left, previous)
        return tf.where(tf.gather(self._flags["lstrip"], token), left, first), end


@cache
def word_characters() -> np.ndarray:
    r"""True for code points that belong to a word next to a token with ``single_word``, bool ``[0x110000]``.

    These are not the members of ``\w``: that is asked of another library, which differs on ``²`` and U+200D.
    """
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"": 0}, unk_token=""))
    tokenizer.add_tokens([tokenizers.AddedToken("!", single_word=True)])
    word = np.zeros(CODE_POINTS, bool)
    for codes in chunks():
        encoding = tokenizer.encode("".join(f" !{chr(code)}" for code in codes))
        starts = np.array(encoding.offsets)[np.array(encoding.ids) == tokenizer.token_to_id("!"), 0]
        word[codes] = ~np.isin(3 * np.arange(len(codes)) + 1, starts)
    return word


def _check(tokens: list[dict[str, Any]], patterns: list[str]) -> None:
    for token, pattern in zip(tokens, patterns, strict=True):
        if not pattern:
            raise UnsupportedTokenizer(f"Added token {token['content']!r} is empty once normalized.")
        if patterns.count(pattern) > 1:
            raise UnsupportedTokenizer(f"Several added tokens look like {pattern!r} once normalized.")
    space = whitespace()
    leading = [pattern for pattern in patterns if space[ord(pattern[0])]]
    if leading and any(token["rstrip"] for token in tokens):
        raise UnsupportedTokenizer(f"An added token with rstrip next to {leading[0]!r}, which starts with white space.")
