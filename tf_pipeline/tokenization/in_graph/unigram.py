"""The Unigram model (Kudo, 2018): of all ways to split a word into pieces, the one of the highest total score.

Scores are added in float64 and ties go to the piece that starts first, as in `tokenizers`.

Example: the pieces "a" (-2), "b" (-2), "c" (-3), "ab" (-3) and "bc" (-1) on the word "abc"::

    after a      "a"  -2                                             best -2, last piece of length 1
    after ab     "ab" -3,  or "b" after "a"   -2 - 2 = -4            best -3, last piece of length 2
    after abc    "bc" after "a" -2 - 1 = -3,  or "c" -3 - 3 = -6     best -3, last piece of length 2

Read backwards, the last piece is "bc", and the one before it "a": the tokens are "a", "bc".
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.tables import ADDED, Trie, flexible
from tf_pipeline.tokenization.in_graph.text import Text, next_true
from tf_pipeline.tokenization.in_graph.tokens import Tokens, tokens_of

_UNKNOWN_PENALTY = 10.0  # an unknown character scores so much less than the worst piece


class Unigram:
    """Splits words into pieces by Viterbi's algorithm, all words of a batch side by side.

    Args:
        model: the ``model`` of tokenizer.json.

    Raises:
        UnsupportedTokenizer: for a model without an unknown token, or with byte fallback.
    """

    def __init__(self, model: dict[str, Any]):
        if model["unk_id"] is None:
            raise UnsupportedTokenizer("Unigram without an unknown token is not compiled.")
        if model.get("byte_fallback"):
            raise UnsupportedTokenizer("Unigram with byte_fallback=True is not compiled.")
        scores = np.array([score for _, score in model["vocab"]], np.float64)
        self._unknown = model["unk_id"]
        self._scores, self._penalized = tf.constant(scores), float(scores.min() - _UNKNOWN_PENALTY)
        self._trie = Trie([(piece, i) for i, (piece, _) in enumerate(model["vocab"]) if piece])

    def __call__(self, text: Text) -> Tokens:
        """Tokens of the words of a text."""
        ids, scores = self._candidates(text)
        first = tf.cast(tf.where(text.begins & ~text.is_end)[:, 0], tf.int32)
        stop = tf.gather(next_true(text.is_end), first)
        lengths = self._best(scores, first, stop)
        tokens = self._back(ids, lengths, first, stop)
        tokens = tf.where(text.is_added, text.codes - ADDED, tokens)
        at = tf.cast(tf.where(tokens >= 0)[:, 0], tf.int32)
        pieces = tf.gather(tokens, at)
        # Neighbouring unknown pieces of a word are one.
        unknown = (pieces == self._unknown) & ~tf.gather(text.is_added, at)
        before = tf.concat([tf.zeros_like(unknown[:1]), unknown[:-1]], 0)
        kept = tf.where(~(unknown & before & ~tf.gather(text.begins, at)))[:, 0]
        at, pieces = tf.gather(at, kept), tf.gather(pieces, kept)
        following = tf.concat([at[1:], tf.fill([1], tf.size(text.codes))], 0)[: tf.size(at)]
        return tokens_of(text, pieces, at, tf.minimum(following, tf.gather(next_true(text.is_end), at)) - 1)

    def _candidates(self, text: Text) -> tuple[tf.Tensor, tf.Tensor]:
        """Pieces by the entry right after them, ``[n, longest]``, the longest first: ids and scores."""
        ends, lengths, ids = self._trie.all_matches(text.codes)
        longest = tf.reduce_max(tf.concat([lengths, [1]], 0))
        size = tf.size(text.codes)
        cells = tf.stack([ends, longest - lengths], 1)
        pieces = tf.tensor_scatter_nd_update(tf.fill([size, longest], -1), cells, ids)
        scores = tf.where(pieces >= 0, tf.gather(self._scores, tf.maximum(pieces, 0)), -np.inf)
        # A character that is no piece by itself may be unknown.
        alone = tf.concat([pieces[:, :-1], tf.where(pieces[:, -1:] < 0, self._unknown, pieces[:, -1:])], 1)
        penalized = tf.where(pieces[:, -1:] < 0, tf.constant(self._penalized, tf.float64), scores[:, -1:])
        return alone, tf.concat([scores[:, :-1], penalized], 1)

    def _best(self, scores: tf.Tensor, first: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """The length of the last piece of the best path to every entry, int32 ``[n]``."""
        size, longest = tf.shape(scores)[0], tf.shape(scores)[1]
        back = longest - tf.range(longest)

        def body(step, at, stop, best, lengths):
            at = at + 1
            starts = at[:, None] - back
            # Before its first character a word has no path.
            paths = tf.where(back <= step, tf.gather(best, tf.maximum(starts, 0)), -np.inf)
            totals = paths + tf.gather(scores, at)
            chosen = tf.argmax(totals, 1, tf.int32)  # the first of equals, which starts first
            best = tf.tensor_scatter_nd_update(best, at[:, None], tf.reduce_max(totals, 1))
            lengths = tf.tensor_scatter_nd_update(lengths, at[:, None], longest - chosen)
            left = tf.where(at < stop)[:, 0]
            return step + 1, tf.gather(at, left), tf.gather(stop, left), best, lengths

        state = (tf.constant(1), first, stop, tf.zeros([size], tf.float64), tf.zeros([size], tf.int32))
        return tf.while_loop(lambda _, at, *__: tf.size(at) > 0, body, state, flexible(state))[4]

    def _back(self, ids: tf.Tensor, lengths: tf.Tensor, first: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Walk from the ends of words to their starts: the id of every piece where it starts, -1 elsewhere."""
        longest = tf.shape(ids)[1]

        def body(at, first, tokens):
            length = tf.gather(lengths, at)
            pieces = tf.gather_nd(ids, tf.stack([at, longest - length], 1))
            at -= length
            tokens = tf.tensor_scatter_nd_update(tokens, at[:, None], pieces)
            left = tf.where(at > first)[:, 0]
            return tf.gather(at, left), tf.gather(first, left), tokens

        state = (stop, first, tf.fill(tf.shape(lengths), -1))
        return tf.while_loop(lambda at, *_: tf.size(at) > 0, body, state, flexible(state))[2]
