"""The byte-pair-encoding model (Sennrich et al., 2016): merge the pair of lowest rank until no pair can be merged.

All words of a batch take their next merge in the same step. Equal pairs of a word are merged together where the ranks
allow it, and before the first step words are cut where no token of the vocabulary reaches across, so steps are few.

Example: the merges ``e r``, ``l o`` and ``lo w``, of ranks 0, 1 and 2, on the words "lower" and "low"::

    l o w | e r | l o w     "lower" is cut before "e", because no merge brings "w" and "e" together
    lo w  | er  | lo w      step 1: every part takes its merge of lowest rank
    low   | er  | low       step 2: "er" has no merge left, the others take ``lo w``
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tokenizers

from tf_pipeline.tokenization.in_graph.byte_level import spell, utf8_length
from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.tables import (
    ADDED,
    BYTE,
    CODE_POINTS,
    CodePointTable,
    SparseMatrix,
    Trie,
    flexible,
)
from tf_pipeline.tokenization.in_graph.text import Text, last_true, next_true
from tf_pipeline.tokenization.in_graph.tokens import Tokens, tokens_of

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_NEVER = np.iinfo(np.int32).max


class BPE:
    """Merges the characters of words.

    Args:
        model: the ``model`` of tokenizer.json.

    Raises:
        UnsupportedTokenizer: for dropout and for options that no supported family uses.
    """

    def __init__(self, model: dict[str, Any]):
        for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(option):
                raise UnsupportedTokenizer(f"BPE with {option}={model[option]!r} is not compiled.")
        vocabulary = model["vocab"]
        self._fuse = bool(model.get("fuse_unk"))
        self._unknown = vocabulary.get(model["unk_token"], -1) if model.get("unk_token") is not None else -1
        if model.get("unk_token") is not None and self._unknown < 0:
            raise UnsupportedTokenizer(f"BPE whose unknown token {model['unk_token']!r} is not in its vocabulary.")
        self._bytes = _byte_tokens(vocabulary) if model.get("byte_fallback") else None
        ids = np.full(CODE_POINTS, -1, np.int64)
        for token, i in vocabulary.items():
            if len(token) == 1:
                ids[ord(token)] = i
        self._symbols = CodePointTable(ids, -1)
        self._compile_merges(model, vocabulary)
        self._whole = Trie(_whole_words(model) if model.get("ignore_merges") else [])

    def _compile_merges(self, model: dict[str, Any], vocabulary: dict[str, int]) -> None:
        merges = _merges(model)
        ranks = {(vocabulary[left], vocabulary[right]): rank for rank, (left, right) in enumerate(merges)}
        results = np.array([vocabulary[left + right] for left, right in merges] or [0], np.int32)
        pairs = np.array([*ranks] or np.zeros([0, 2]), np.int64).reshape(-1, 2)
        size = max(vocabulary.values()) + 1
        order = np.array([*ranks.values()], np.int64)
        self._merges = SparseMatrix(pairs[:, 0], pairs[:, 1], order, size)
        self._results = tf.constant(results)
        # Together is as good as one by one if a new token takes part in later merges only.
        made, used = np.full(size, -1), np.full(size, len(merges) + 1)
        np.maximum.at(made, results[order], order)
        for side in (0, 1):
            np.minimum.at(used, pairs[:, side], order)
        self._together = bool((made < used).all())
        first_symbols = {token for token in vocabulary if len(token) == 1 or _BYTE_TOKEN.fullmatch(token)}
        first_symbols.add(model.get("unk_token"))
        neighbours = np.array(
            sorted(_neighbours(merges, vocabulary, first_symbols)) or np.zeros([0, 2]), np.int64
        ).reshape(-1, 2)
        self._neighbours = SparseMatrix(neighbours[:, 0], neighbours[:, 1], np.zeros(len(neighbours)), size)

    def __call__(self, text: Text) -> Tokens:
        """Tokens of the words of a text."""
        text, ids = self._initial(text if self._whole.empty else self._whole_words(text))
        ids = self._merge(text, ids, (ids >= 0) & ~text.is_added)
        at = tf.cast(tf.where(ids >= 0)[:, 0], tf.int32)
        following = tf.concat([at[1:], tf.fill([1], tf.size(ids))], 0)[: tf.size(at)]
        last = tf.minimum(following, tf.gather(next_true(text.is_end), at)) - 1
        return tokens_of(text, tf.gather(ids, at), at, last)

    def _initial(self, text: Text) -> tuple[Text, tf.Tensor]:
        """The text with one entry for every first symbol, and their ids, -1 for ``END``."""
        ids = self._symbols(text.codes)
        if self._bytes is not None:
            text = spell(text, (ids < 0) & ~text.is_end & ~text.is_added, BYTE)
            ids = self._symbols(text.codes)
            byte = tf.gather(self._bytes, tf.clip_by_value(text.codes - BYTE, 0, 255))
            ids = tf.where((text.codes >= BYTE) & ~text.is_added, byte, ids)
        missing = (ids < 0) & ~text.is_end & ~text.is_added
        ids = tf.where(text.is_added, text.codes - ADDED, ids)
        if self._unknown < 0:  # Hugging Face drops such characters
            keep = ~missing
            text = Text(*tf.cond(tf.reduce_any(missing), lambda: _closed_up(text, missing).parts(), text.parts))
        elif self._fuse:
            keep = ~missing | ~tf.concat([[False], missing[:-1]], 0)
            reach = tf.where(missing, tf.gather(text.end, tf.maximum(next_true(~missing) - 1, 0)), text.end)
            text = dataclasses.replace(text, end=reach)
        else:
            keep = tf.ones_like(missing)
        ids = tf.where(missing, self._unknown, ids)
        return text.select(tf.where(keep)[:, 0]), tf.boolean_mask(ids, keep)

    def _whole_words(self, text: Text) -> Text:
        """Words that are tokens which merges do not lead to become one entry, as added tokens are."""
        heads = tf.cast(tf.where(text.begins & ~text.is_end)[:, 0], tf.int32)
        lengths, ids = self._whole.longest_matches(text.codes, positions=heads)
        whole = (lengths > 0) & (heads + lengths == tf.gather(next_true(text.is_end), heads))
        at, lengths, ids = (tf.boolean_mask(values, whole) for values in (heads, lengths, ids))
        codes = tf.tensor_scatter_nd_update(text.codes, at[:, None], ADDED + ids)
        end = tf.tensor_scatter_nd_update(text.end, at[:, None], tf.gather(text.end, at + lengths - 1))
        settled = tf.gather(codes >= ADDED, tf.maximum(last_true(text.begins), 0))
        keep = ~settled | text.begins | text.is_end
        return dataclasses.replace(text, codes=codes, end=end).select(tf.where(keep)[:, 0])

    def _merge(self, text: Text, ids: tf.Tensor, mergeable: tf.Tensor) -> tf.Tensor:
        """Ids of tokens at the entries where they start, -1 elsewhere."""
        left, right = tf.where(mergeable, ids, 0)[:-1], ids[1:]
        joined = (self._neighbours(left, right) >= 0) & mergeable[:-1] & mergeable[1:] & ~text.begins[1:]
        part = tf.cumsum(tf.cast(~tf.concat([[False], joined], 0), tf.int32))
        several = tf.concat([joined, [False]], 0) | tf.concat([[False], joined], 0)
        at = tf.cast(tf.where(several)[:, 0], tf.int32)
        part = tf.gather(part, at)
        part = tf.cumsum(tf.cast(tf.concat([part[:1] < 0, part[1:] != part[:-1]], 0), tf.int32))
        size = tf.reduce_max(tf.concat([part, [0]], 0)) + 1

        def body(at, symbols, part, ids):
            same = part[1:] == part[:-1]
            order = tf.where(same, self._merges(symbols[:-1], symbols[1:]), -1)
            rank = tf.where(order < 0, _NEVER, order)
            best = tf.math.unsorted_segment_min(rank, part[:-1], size)
            chosen = self._taken((order >= 0) & (rank == tf.gather(best, part[:-1])), part)
            took, gone = tf.concat([chosen, [False]], 0), tf.concat([[False], chosen], 0)
            new = tf.concat([tf.gather(self._results, tf.maximum(order, 0)), [0]], 0)
            symbols = tf.where(gone, -1, tf.where(took, new, symbols))
            ids = tf.tensor_scatter_nd_update(ids, at[:, None], symbols)
            left = tf.where(~gone & (tf.gather(best, part) < _NEVER))[:, 0]
            return tf.gather(at, left), tf.gather(symbols, left), tf.gather(part, left), ids

        state = (at, tf.gather(ids, at), part, ids)
        return tf.while_loop(lambda at, *_: tf.size(at) > 0, body, state, flexible(state))[3]

    def _taken(self, chosen: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
        """Of pairs of the lowest rank, those to merge in this step; pairs that overlap are equal ones in a run."""
        places = tf.range(tf.size(chosen))
        before = tf.concat([tf.zeros_like(chosen[:1]), chosen[:-1]], 0)
        if self._together:
            return chosen & ((places - last_true(chosen & ~before)) % 2 == 0)
        first = tf.math.unsorted_segment_min(tf.where(chosen, places, _NEVER), part[:-1], tf.reduce_max(part) + 1)
        return chosen & (places == tf.gather(first, part[:-1]))


def _closed_up(text: Text, missing: tf.Tensor) -> Text:
    """Places as Hugging Face counts them: in bytes of a word that closes up where a character is dropped."""
    width = utf8_length(text.codes)
    byte = tf.cumsum(width, exclusive=True)
    dropped = tf.cumsum(tf.where(missing, width, 0), exclusive=True)
    byte -= dropped - tf.gather(dropped, last_true(text.begins))
    owner = tf.repeat(tf.range(tf.size(width)), width)
    first, last = tf.gather(owner, byte), tf.gather(owner, byte + width - 1)
    return dataclasses.replace(text, start=tf.gather(text.start, first), end=tf.gather(text.end, last))


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Merges in order, which older files write as one string."""
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]


def _byte_tokens(vocabulary: dict[str, int]) -> tf.Tensor:
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    missing = [token for token in tokens if token not in vocabulary]
    if missing:
        raise UnsupportedTokenizer(f"Byte fallback without {missing[0]} in the vocabulary is not compiled.")
    return tf.constant([vocabulary[token] for token in tokens])


def _neighbours(
    merges: Iterable[tuple[str, str]], vocabulary: dict[str, int], first_symbols: set[str]
) -> set[tuple[int, int]]:
    """Pairs of first symbols that some merge brings together; between any others no token reaches across."""

    def ends(token: str, side: int) -> list[int]:
        # The byte tokens of a fallback and the unknown token are first symbols of several characters.
        return [vocabulary[symbol] for symbol in {token[side], token} & first_symbols]

    return {(a, b) for left, right in merges for a in ends(left, -1) for b in ends(right, 0)}


def _whole_words(model: dict[str, Any]) -> list[tuple[str, int]]:
    """Tokens that their own merges do not lead to, as can be with ``ignore_merges``."""
    plain = tokenizers.models.BPE(
        vocab=model["vocab"], merges=_merges(model), unk_token=model.get("unk_token"),
        fuse_unk=bool(model.get("fuse_unk")), byte_fallback=bool(model.get("byte_fallback")),
    )  # fmt: skip
    return [(token, i) for token, i in model["vocab"].items() if token and [t.id for t in plain.tokenize(token)] != [i]]
