"""Decoders of tokenizer.json as TensorFlow ops: tokens or ids go in, texts come out."""

import json
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_pipeline.tokenization.in_graph.byte_level import alphabet
from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer, compiled_by
from tf_pipeline.tokenization.in_graph.text import changes

# Inputs of a stage: strings [n], the text that each belongs to, int32 [n], ascending, and how many texts there are.
Stage = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

# Replacements of `clean_up_tokenization` of transformers, in this order.
CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
# WordPiece's own decoder has one more, before "'s".
_WORDPIECE_CLEAN_UP = (*CLEAN_UP[:7], (" do not", " don't"), *CLEAN_UP[7:])


def compile_decoder(tokenizer: Any, clean_up_tokenization_spaces: bool | None = None) -> "InGraphDecoder":
    """Compile the decoder, which turns ids back into text.

    Args:
        tokenizer: a fast tokenizer of ``transformers``.
        clean_up_tokenization_spaces: as of its ``decode``; by default the tokenizer's own.

    Raises:
        UnsupportedTokenizer: for a decoder with a part that cannot be compiled exactly; the message names the part.
    """
    with tf.init_scope(), tf.device("/CPU:0"):
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = tokenizer.clean_up_tokenization_spaces
        return InGraphDecoder(tokenizer, clean_up_tokenization_spaces)


class InGraphDecoder(tf.Module):
    """The vocabulary and the decoder of a tokenizer. ``compile_decoder`` makes it."""

    def __init__(self, tokenizer: Any, clean_up_tokenization_spaces: bool):
        super().__init__(name="in_graph_decoder")
        backend = tokenizer.backend_tokenizer
        vocabulary = backend.get_vocab(with_added_tokens=True)
        tokens = [""] * (max(vocabulary.values()) + 1)
        for token, index in vocabulary.items():
            tokens[index] = token
        special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        self.vocabulary = tf.constant(tokens)
        self._known = tf.constant([token in vocabulary for token in tokens])
        self._special = tf.constant([token in special for token in tokens])
        self._stages = _compile(json.loads(backend.to_str())["decoder"])
        cleans = clean_up_tokenization_spaces and (
            type(backend.model).__name__ != "BPE"
            or tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
        )
        self._clean_up = CLEAN_UP if cleans else ()

    def tokens(self, ids: tf.Tensor) -> tf.Tensor:
        """The tokens of ids, as ``convert_ids_to_tokens``; ids beyond the vocabulary are empty."""
        size = tf.size(self.vocabulary)
        return tf.where(ids < size, tf.gather(self.vocabulary, tf.minimum(ids, size - 1)), "")

    def join(self, tokens: tf.Tensor, row: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Texts from tokens, as ``convert_tokens_to_string``.

        Args:
            tokens: string ``[n]``.
            row: int32 ``[n]``, ascending: the text that each belongs to.
            rows: scalar, how many texts there are.

        Returns:
            String ``[rows]``.
        """
        for stage in self._stages:
            tokens, row = stage(tokens, row, rows)
        return tf.strings.unsorted_segment_join(tokens, row, rows)

    def decode(self, ids: tf.Tensor, keep: tf.Tensor, skip_special_tokens: bool | tf.Tensor) -> tf.Tensor:
        """Texts from ids, as the tokenizer's ``decode``.

        Args:
            ids: int32 ``[rows, length]``.
            keep: bool ``[rows, length]``, which of them count.
            skip_special_tokens: whether special tokens are left out; a bool, or bool ``[rows]``.

        Returns:
            String ``[rows]``.
        """
        within = tf.minimum(ids, tf.size(self.vocabulary) - 1)
        skip = tf.reshape(tf.convert_to_tensor(skip_special_tokens), [-1, 1])
        keep &= (ids == within) & tf.gather(self._known, within) & ~(skip & tf.gather(self._special, within))
        row = tf.cast(tf.where(keep)[:, 0], tf.int32)
        text = self.join(tf.boolean_mask(tf.gather(self.vocabulary, within), keep), row, tf.shape(ids)[0])
        return _replaced(text, self._clean_up)


def _compile(description: dict[str, Any] | None) -> list[Stage]:
    if description is None:
        return [_joined_by_spaces]
    if description["type"] == "Sequence":
        return [stage for part in description["decoders"] for stage in _compile(part)]
    return [compiled_by(_DECODERS, description["type"], "Decoder")(description)]


def _replaced(text: tf.Tensor, pairs) -> tf.Tensor:
    for old, new in pairs:
        text = tf.strings.regex_replace(text, re.escape(old), new)
    return text


def _joined_by_spaces(tokens: tf.Tensor, row: tf.Tensor, rows: tf.Tensor):
    return tf.where(changes(row), tokens, tf.strings.join([" ", tokens])), row


def _word_piece(description: dict[str, Any]) -> Stage:
    prefix = description["prefix"].encode()

    def stage(tokens, row, rows):
        continues = (tf.strings.substr(tokens, 0, len(prefix)) == prefix) & ~changes(row)
        start = tf.where(continues, len(prefix), 0)
        bare = tf.strings.substr(tokens, start, tf.strings.length(tokens) - start)
        tokens = tf.where(continues | changes(row), bare, tf.strings.join([" ", tokens]))
        return _replaced(tokens, _WORDPIECE_CLEAN_UP if description["cleanup"] else ()), row

    return stage


def _byte_level(description: dict[str, Any]) -> Stage:
    letters = [-1] * 0x200
    for byte, letter in enumerate(alphabet()):
        letters[ord(letter)] = byte
    values = tf.constant(letters)
    strings = tf.constant([bytes([byte]) for byte in range(256)])

    def stage(tokens, row, rows):
        codes = tf.strings.unicode_decode(tokens, "UTF-8")
        byte = tf.gather(values, tf.minimum(codes.flat_values, 0x1FF))
        byte = tf.where(codes.flat_values < 0x200, byte, -1)
        place, count = codes.value_rowids(), tf.size(tokens)
        # As in `tokenizers`, a token with one character that is no letter of the alphabet is text already.
        text = tf.math.unsorted_segment_min(byte, place, count) < 0
        spelt = tf.strings.unsorted_segment_join(tf.gather(strings, tf.maximum(byte, 0)), place, count)
        joined = tf.strings.unsorted_segment_join(tf.where(text, tokens, spelt), row, rows)
        return valid_utf8(joined), tf.range(rows)

    return stage


def _metaspace(description: dict[str, Any]) -> Stage:
    mark = re.escape(description["replacement"])
    begins = "" if description.get("prepend_scheme", "always") != "never" else " "

    def stage(tokens, row, rows):
        spaced, bare = (tf.strings.regex_replace(tokens, mark, by) for by in (" ", begins))
        return tf.where(changes(row), bare, spaced), row

    return stage


def _replace(description: dict[str, Any]) -> Stage:
    if "String" not in description["pattern"]:
        raise UnsupportedTokenizer("Decoder 'Replace' is compiled for a string, not for a regular expression.")
    pair = (description["pattern"]["String"], description["content"].replace("\\", "\\\\"))
    return lambda tokens, row, rows: (_replaced(tokens, [pair]), row)


def _strip(description: dict[str, Any]) -> Stage:
    character = re.escape(description["content"])
    patterns = [f"^(?:{character}){{0,{description['start']}}}", f"(?:{character}){{0,{description['stop']}}}$"]

    def stage(tokens, row, rows):
        for pattern in patterns:
            tokens = tf.strings.regex_replace(tokens, pattern, "", replace_global=False)
        return tokens, row

    return stage


def _fuse(description: dict[str, Any]) -> Stage:
    return lambda tokens, row, rows: (tf.strings.unsorted_segment_join(tokens, row, rows), tf.range(rows))


def valid_utf8(text: tf.Tensor) -> tf.Tensor:
    """Strings as ``bytes.decode("utf-8", "replace")`` reads them."""
    codes = tf.strings.unicode_decode(text, "UTF-8", errors="replace", replacement_char=0xFFFD)
    return tf.strings.unicode_encode(codes, "UTF-8")


_DECODERS: dict[str, Callable[[dict[str, Any]], Stage]] = {
    "ByteLevel": _byte_level,
    "Fuse": _fuse,
    "Metaspace": _metaspace,
    "Replace": _replace,
    "Strip": _strip,
    "WordPiece": _word_piece,
}
