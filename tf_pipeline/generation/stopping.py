"""Ends of a text besides an end token and a maximum length: stop strings, and a user's own criteria."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf


class Stopping:
    """Whether rows end, by stop strings or by criteria of a user.

    Args:
        criteria: callables of ``input_ids`` ``[rows, length]`` and ``None`` that return bool ``[rows]``.
    """

    def __init__(self, criteria: Sequence[Callable] = ()):
        self.criteria = criteria

    def __call__(self, ids: tf.Tensor, length: tf.Tensor, stops: Any) -> tf.Tensor:
        """Judge ids ``[rows, columns]``, of which ``length`` are filled, by the result of :func:`stop_tables`."""
        ended = tf.zeros(tf.shape(ids)[:1], tf.bool)
        if tf.is_tensor(stops):
            ended |= stop_string_met(ids, length, stops)
        for criterion in self.criteria:
            ended |= tf.cast(criterion(ids[:, :length], None), tf.bool)
        return ended


def stop_string_met(ids: tf.Tensor, length: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Whether a stop string ends in the last token of each row, bool ``[rows]``.

    Args:
        ids: int32 ``[rows, columns]``.
        length: number of columns that are filled.
        table: the result of :func:`stop_tables`.
    """
    strings, states, tokens = (tf.shape(table)[axis] for axis in range(3))
    # A token has a character or more, so that no stop string begins before these many.
    first = tf.maximum(length - states, 0)
    which = tf.range(strings)[tf.newaxis, :]

    def read(column, found):
        token = tf.minimum(ids[:, column], tokens - 1)[:, tf.newaxis]
        places = tf.stack(tf.broadcast_dynamic_shape(tf.shape(token), tf.shape(which)))
        index = tf.stack([tf.broadcast_to(which, places), found % states, tf.broadcast_to(token, places)], -1)
        return column + 1, tf.gather_nd(table, index)

    start = tf.zeros([tf.shape(ids)[0], strings], tf.int32)
    _, found = tf.while_loop(
        lambda column, found: column < length,
        read,
        (first, start),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None])),
    )
    return tf.reduce_any(found >= states, axis=-1)


def stop_tables(stop_strings: str | Sequence[str] | None, tokenizer: Any) -> Any:
    """Tables of the effect of each token on the search for each stop string; ``()`` if there are none.

    A state is the number of characters of a stop string that the text ends with. Stop strings are sought in the bytes
    of the text if the tokenizer's tokens are bytes.

    Returns:
        int32 ``[strings, states, vocab + 1]``: the next state, plus the number of states if the string ends in the
        token. The last token stands for all that have no text.

    Raises:
        ValueError: without a tokenizer, or if no token ends a stop string.
    """
    if stop_strings is None:
        return ()
    if not hasattr(tokenizer, "get_vocab"):
        given = "" if tokenizer is None else f"; got {tokenizer!r:.80}"
        raise ValueError(f"stop_strings need the tokenizer: pass tokenizer= to generate{given}.")
    strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
    return tf.constant(_tables(tokenizer, len(tokenizer), strings))


@lru_cache(maxsize=8)
def _tables(tokenizer: Any, size: int, strings: tuple[str, ...]) -> np.ndarray:
    kind = _bytes_kind(tokenizer)
    texts = _token_texts(tokenizer, kind)
    sought = [string if kind is None else string.encode("utf-8") for string in strings]
    states = max(map(len, sought))
    table = np.zeros([len(sought), states, max(texts) + 2], np.int32)
    for place, string in enumerate(sought):
        steps = _automaton(string)
        for token, text in texts.items():
            table[place, : len(string), token] = _run(steps, text, len(string), states)
    if not (table >= states).any():
        raise ValueError(f"No token of the tokenizer ends any of the stop strings {list(strings)}.")
    return table


def _automaton(string: str | bytes) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """For each character, the next state of each state, and whether the string ends there (Knuth, Morris, Pratt)."""
    size = len(string)
    borders = [0] * (size + 1)  # the longest proper prefix of string[:i] that ends it
    for end in range(2, size + 1):
        border = borders[end - 1]
        while border and string[border] != string[end - 1]:
            border = borders[border]
        borders[end] = border + (string[border] == string[end - 1])
    steps = {}
    for character in set(string):
        after, ends = np.zeros(size, np.int32), np.zeros(size, bool)
        for state in range(size):
            matched = state
            while matched and string[matched] != character:
                matched = borders[matched]
            matched += string[matched] == character
            ends[state] = matched == size
            after[state] = borders[size] if ends[state] else matched
        steps[character] = after, ends
    return steps


def _run(steps: dict, text: str | bytes, size: int, states: int) -> np.ndarray:
    """The entry of the table for each state before a token."""
    state, met = np.arange(size, dtype=np.int32), np.zeros(size, bool)
    for character in text:
        if character in steps:
            after, ends = steps[character]
            met |= ends[state]
            state = after[state]
        else:
            state = np.zeros(size, np.int32)
    return state + states * met


def _bytes_kind(tokenizer: Any) -> str | None:
    """``"ByteLevel"`` or ``"ByteFallback"`` if tokens are bytes, as the tokenizer's decoder says."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return None
    try:
        kinds = json.dumps(json.loads(decoder.__getstate__()))
    except (TypeError, ValueError):  # a decoder written in Python
        kinds = ""
    if '"ByteFallback"' in kinds:
        return "ByteFallback"
    return "ByteLevel" if '"ByteLevel"' in kinds else None


def _token_texts(tokenizer: Any, kind: str | None) -> dict[int, str | bytes]:
    """The text of each token inside a sentence; bytes if tokens are bytes."""
    prefix = "abcdef"
    before = tokenizer.convert_ids_to_tokens(tokenizer(prefix, add_special_tokens=False)["input_ids"])
    letters = {letter: byte for byte, letter in _byte_letters().items()} if kind == "ByteLevel" else {}
    texts = {}
    for token, number in tokenizer.get_vocab().items():
        if kind == "ByteLevel" and all(letter in letters for letter in token):
            texts[number] = bytes(letters[letter] for letter in token)
        elif kind == "ByteFallback" and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            texts[number] = bytes.fromhex(token[3:5])
        else:
            text = tokenizer.convert_tokens_to_string([*before, token])
            text = text[text.index(prefix) + len(prefix) :]
            texts[number] = text if kind is None else text.encode("utf-8")
    return texts


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies: itself if it can be printed."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + place) for place, byte in enumerate(others)}
