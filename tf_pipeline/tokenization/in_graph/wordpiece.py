"""The WordPiece model: the longest piece from the left, again and again (Wu et al., 2016).

The longest match at every place of a batch is looked up first; then all words are walked side by side.

Example: the pieces "un", "##aff" and "##able" on the words "unaffable" and "unfit"::

    place            u n a f f a b l e    u n f i t
    longest match    2 0 3 0 0 4 0 0 0    2 0 0 0 0
    step 1           "un"                 "un"
    step 2               "##aff"          no piece starts with "f": the word is [UNK]
    step 3                     "##able"
"""

from typing import Any

import tensorflow as tf

from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.tables import ADDED, Trie, flexible
from tf_pipeline.tokenization.in_graph.text import Text, last_true, next_true
from tf_pipeline.tokenization.in_graph.tokens import Tokens, tokens_of


class WordPiece:
    """Splits words into pieces.

    Args:
        model: the ``model`` of tokenizer.json.

    Raises:
        UnsupportedTokenizer: if the unknown token is not in the vocabulary.
    """

    def __init__(self, model: dict[str, Any]):
        vocabulary, prefix = model["vocab"], model["continuing_subword_prefix"]
        if model["unk_token"] not in vocabulary:
            raise UnsupportedTokenizer(f"WordPiece without its unknown token {model['unk_token']!r} is not compiled.")
        self._unknown, self._longest = vocabulary[model["unk_token"]], model["max_input_chars_per_word"]
        pieces = [(piece, i) for piece, i in vocabulary.items() if piece]
        inner = [(piece[len(prefix) :], i) for piece, i in pieces if piece.startswith(prefix) and piece != prefix]
        self._trie = Trie(pieces, inner)

    def __call__(self, text: Text) -> Tokens:
        """Tokens of the words of a text."""
        lengths, ids = self._trie.longest_matches(text.codes, tf.where(text.begins, 0, 1))
        heads = text.begins & ~text.is_end
        first = tf.cast(tf.where(heads)[:, 0], tf.int32)
        stop = tf.gather(next_true(text.is_end), first)
        added = tf.gather(text.is_added, first)
        failed, starts = self._walk(lengths, first, stop, (stop - first <= self._longest) & ~added)
        # A word with a part that is no piece is one unknown token, as is one that is too long.
        whole = failed | added
        ids = tf.tensor_scatter_nd_update(ids, first[:, None], tf.where(failed, self._unknown, tf.gather(ids, first)))
        ids = tf.where(text.is_added, text.codes - ADDED, ids)
        lengths = tf.tensor_scatter_nd_update(
            lengths, first[:, None], tf.where(whole, stop - first, tf.gather(lengths, first))
        )
        of_whole = tf.tensor_scatter_nd_update(tf.zeros_like(starts), first[:, None], whole)
        of_whole = tf.gather(of_whole, tf.maximum(last_true(heads), 0))
        at = tf.cast(tf.where(tf.where(of_whole, heads, starts) & ~text.is_end)[:, 0], tf.int32)
        return tokens_of(text, tf.gather(ids, at), at, at + tf.gather(lengths, at) - 1)

    def _walk(self, lengths, first, stop, possible) -> tuple[tf.Tensor, tf.Tensor]:
        """Go from piece to piece in all words at once: which words fail, bool ``[words]``, and where pieces start."""
        words = tf.cast(tf.where(possible)[:, 0], tf.int32)

        def body(words, at, failed, starts):
            size = tf.gather(lengths, at)
            failed = tf.tensor_scatter_nd_update(failed, words[:, None], size == 0)
            starts = tf.tensor_scatter_nd_update(starts, at[:, None], size > 0)
            left = tf.where((size > 0) & (at + size < tf.gather(stop, words)))[:, 0]
            return tf.gather(words, left), tf.gather(at + size, left), failed, starts

        state = (words, tf.gather(first, words), ~possible, tf.zeros_like(lengths, tf.bool))
        return tf.while_loop(lambda words, *_: tf.size(words) > 0, body, state, flexible(state))[2:]
