"""Decoders of tokenizer.json as TensorFlow ops: tokens or ids go in, texts come out."""

import json
import re
from collections.abc import Callable
from string import hexdigits
from typing import Any

import tensorflow as tf

from tf_pipeline.tokenization.in_graph.byte_level import alphabet
from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer, compiled_by
from tf_pipeline.tokenization.in_graph.text import changes

# Inputs of a stage: strings [n], the text that each belongs to, int32 [n], ascending, and how many texts there are.
Stage = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

# Tokens of byte fallback.
_BYTE = "<0x[0-9A-Fa-f]{2}>"
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
        description = json.loads(backend.to_str())["decoder"]
        self._stages = _compile(description)
        spells = '"ByteFallback"' in json.dumps(description)
        self._bytes = tf.constant([spells and bool(re.fullmatch(_BYTE, token)) for token in tokens])
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

    def settled(self, ids: tf.Tensor, keep: tf.Tensor, skip_special_tokens: bool) -> tf.Tensor:
        """Beginnings of what :meth:`decode` gives that stay as they are, whatever tokens follow.

        Left out are half a character, bytes that the next may prove wrong, and what clean-up may join to the next word.

        Args:
            ids: as for :meth:`decode`.
            keep: as for :meth:`decode`.
            skip_special_tokens: as for :meth:`decode`.

        Returns:
            String ``[rows]``.
        """
        within = tf.minimum(ids, tf.size(self.vocabulary) - 1)
        may_change = tf.gather(self._bytes, within) | ~keep
        if skip_special_tokens:
            may_change |= tf.gather(self._special, within)
        is_open = tf.math.cumprod(tf.cast(may_change, tf.int32), axis=1, reverse=True) > 0
        text = self.decode(ids, keep & ~is_open, skip_special_tokens)
        text = tf.strings.regex_replace(text, "\ufffd+$", "")
        return tf.strings.regex_replace(text, "\\s*\\S*$", "") if self._clean_up else text


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


def _byte_fallback(description: dict[str, Any]) -> Stage:
    strings = tf.constant([bytes([byte]) for byte in range(256)])
    digits = tf.constant([int(chr(code), 16) if chr(code) in hexdigits else 0 for code in range(128)])

    def stage(tokens, row, rows):
        is_byte = tf.strings.regex_full_match(tokens, _BYTE)
        spelt = tf.strings.substr(tf.where(is_byte, tokens, "<0x00>"), 3, 2)
        codes = tf.gather(digits, tf.cast(tf.reshape(tf.io.decode_raw(spelt, tf.uint8), [-1, 2]), tf.int32))
        tokens = tf.where(is_byte, tf.gather(strings, 16 * codes[:, 0] + codes[:, 1]), tokens)
        # Bytes side by side are one text, of which every byte is U+FFFD if any is wrong.
        begins = changes(row) | ~is_byte | changes(is_byte)
        run = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        runs = tf.reduce_sum(tf.cast(begins, tf.int32))
        joined = tf.strings.unsorted_segment_join(tokens, run, runs)
        is_wrong = tf.gather(valid_utf8(joined) != joined, run) & is_byte
        tokens = tf.where(is_wrong, "\ufffd", tokens)
        return tf.strings.unsorted_segment_join(tokens, run, runs), tf.boolean_mask(row, begins)

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
    "ByteFallback": _byte_fallback,
    "ByteLevel": _byte_level,
    "Fuse": _fuse,
    "Metaspace": _metaspace,
    "Replace": _replace,
    "Strip": _strip,
    "WordPiece": _word_piece,
}
