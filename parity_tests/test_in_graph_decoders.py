"""Decoders in the graph give what `tokenizers` and `transformers` give, token list by token list."""

import itertools
import random

import pytest
import tensorflow as tf
import tokenizers
import transformers
from tokenizers import decoders

from tf_pipeline.tokenization.in_graph import UnsupportedTokenizer, compile_decoder

PIECES = [
    "Hello", "##llo", "##", "#", "##.", ".", ",", "'", "n't", "'m", "'s", "do", "not", "do not", "▁", "▁the",
    "a▁b", "▁▁", "Ġ", "ĠWorld", "Ã©", "é", "Ã", "©", "日本", "ðŁĺ", "Ģ", " caf", "caf", "\x00", "\\1", "[CLS]", "[SEP]",
    " ", "", "  x  ", "!", "?", " ' ", "'ve", "'re", "<0xE6>", "<0x97>", "<0xA5>", "<0x41>", "<0xff>",
]  # fmt: skip
DECODERS = {
    "none": None,
    "WordPiece": decoders.WordPiece(),
    "WordPiece without clean-up": decoders.WordPiece(prefix="▁▁", cleanup=False),
    "ByteLevel": decoders.ByteLevel(),
    "Metaspace": decoders.Metaspace(),
    "Metaspace, never": decoders.Metaspace(prepend_scheme="never"),
    "Sequence": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Replace("a", "\\1"), decoders.Fuse(), decoders.Strip(" ", 1, 2)]
    ),
    "ByteFallback": decoders.ByteFallback(),
    "Sequence of Llama": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
    "Sequence of strips": decoders.Sequence([decoders.Strip("#", 1, 0), decoders.WordPiece()]),
    "Sequence of bytes": decoders.Sequence([decoders.ByteLevel(), decoders.Strip("H", 1, 0)]),
}


def _tokenizer(decoder, clean_up=False, **options):
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(PIECES))}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="#"))
    if decoder is not None:
        backend.decoder = decoder
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", clean_up_tokenization_spaces=clean_up, **options
    )


def _lists(count=400):
    rng = random.Random(0)
    return [[], *([piece] for piece in PIECES)] + [rng.choices(PIECES, k=rng.randrange(1, 9)) for _ in range(count)]


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_are_joined_as_by_the_tokenizer(name):
    tokenizer, lists = _tokenizer(DECODERS[name]), _lists()
    if name.startswith("Sequence"):  # Strip of `tokenizers` panics where nothing is left
        lists = [[f"{token}." for token in tokens] for tokens in lists if tokens]
    decoder = compile_decoder(tokenizer)
    row = [place for place, tokens in enumerate(lists) for _ in tokens]
    ours = decoder.join(tf.constant([token for tokens in lists for token in tokens]), tf.constant(row), len(lists))
    assert [text.decode() for text in ours.numpy()] == [tokenizer.convert_tokens_to_string(tokens) for tokens in lists]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("clean_up", [False, True])
@pytest.mark.parametrize("name", ["WordPiece", "ByteLevel", "Metaspace"])
def test_ids_are_decoded_as_by_the_tokenizer(name, clean_up, skip):
    tokenizer = _tokenizer(DECODERS[name], clean_up)
    ids = [tokenizer.convert_tokens_to_ids(tokens) for tokens in _lists()]
    ids[3] += [10_000]  # a model's vocabulary may be larger than its tokenizer's
    grid = tf.ragged.constant(ids, dtype=tf.int32)
    keep = tf.sequence_mask(grid.row_lengths())
    ours = tf.function(compile_decoder(tokenizer).decode)(grid.to_tensor(), keep, skip)
    expected = [tokenizer.decode(one, skip_special_tokens=skip) for one in ids]
    assert [text.decode() for text in ours.numpy()] == expected


def test_special_tokens_are_skipped_row_by_row():
    tokenizer = _tokenizer(DECODERS["WordPiece"])
    ids = tf.constant([tokenizer.convert_tokens_to_ids(["[CLS]", "Hello", "[SEP]"])] * 2)
    ours = compile_decoder(tokenizer).decode(ids, tf.ones_like(ids, tf.bool), tf.constant([True, False]))
    assert ours.numpy().tolist() == [b"Hello", b"[CLS] Hello [SEP]"]


@pytest.mark.slow
def test_settled_text_is_where_every_later_text_begins():
    """Token by token; without clean-up, no character waits longer than it has to."""
    kinds = {name: DECODERS[name] for name in ("ByteLevel", "Sequence of Llama", "WordPiece", "Metaspace")}
    for decoder, clean_up in itertools.product(kinds.values(), [False, True]):
        ours = compile_decoder(_tokenizer(decoder, clean_up))
        for tokens in _lists(25):
            ids = tf.constant([_tokenizer(decoder).convert_tokens_to_ids(tokens)], tf.int32)
            ids = tf.repeat(ids, len(tokens) + 1, axis=0)
            keep = tf.sequence_mask(tf.range(len(tokens) + 1), len(tokens))
            whole = ours.decode(ids, keep, True)[-1].numpy().decode()
            settled = ours.settled(ids, keep, True).numpy()
            assert all(whole.startswith(text.decode()) for text in settled)
    ours = compile_decoder(_tokenizer(DECODERS["Sequence of Llama"]))
    ids = tf.constant([_tokenizer(None).convert_tokens_to_ids(["Hello", "▁the", "<0xE6>", "<0x97>", "<0xA5>", "do"])])
    keep = tf.sequence_mask(tf.range(7), 6)
    found = [text.decode() for text in ours.settled(tf.repeat(ids, 7, axis=0), keep, True).numpy()]
    assert found == ["", "Hello", "Hello the", "Hello the", "Hello the", "Hello the", "Hello the日do"]


def test_pattern_of_replace_is_refused():
    tokenizer = _tokenizer(decoders.Replace(tokenizers.Regex("a+"), "b"))
    with pytest.raises(UnsupportedTokenizer, match="not for a regular expression"):
        compile_decoder(tokenizer)
