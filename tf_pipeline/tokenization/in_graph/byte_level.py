"""Characters as bytes of UTF-8, and GPT-2's alphabet of 256 printable characters that stand for bytes."""

from functools import cache

import tensorflow as tf

from tf_pipeline.tokenization.in_graph.mapping import repeated
from tf_pipeline.tokenization.in_graph.text import Text


@cache
def alphabet() -> str:
    """The character of every byte: printable Latin-1 stands for itself, the rest is counted on from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


def as_bytes(text: Text) -> Text:
    """Write every character as the letters of its bytes."""
    text = spell(text, ~text.is_end & ~text.is_added, 0)
    letters = tf.gather(tf.constant([*map(ord, alphabet())]), tf.minimum(text.codes, 255))
    return text.with_codes(tf.where(text.is_end | text.is_added, text.codes, letters))


def utf8_length(codes: tf.Tensor) -> tf.Tensor:
    """The number of bytes of every code point, int32 of the same shape."""
    return 1 + sum(tf.cast(codes >= limit, tf.int32) for limit in (0x80, 0x800, 0x10000))


def spell(text: Text, chosen: tf.Tensor, offset: int) -> Text:
    """Put the bytes of some characters in their place, as codes from ``offset`` on.

    Args:
        text: the text.
        chosen: bool ``[n]``, which.
        offset: the code of byte 0.
    """
    source, within, lengths = repeated(tf.where(chosen, utf8_length(text.codes), 1))
    new = text.select(source)
    bits = tf.bitwise.right_shift(new.codes, 6 * (lengths - 1 - within))
    lead = tf.gather(tf.constant([0, 0, 0xC0, 0xE0, 0xF0]), lengths)
    byte = tf.where(within == 0, lead + bits, 0x80 + tf.bitwise.bitwise_and(bits, 0x3F))
    return new.with_codes(tf.where(tf.gather(chosen, source), offset + byte, new.codes))
