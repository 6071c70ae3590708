"""Random texts over tokenizers of all kinds: ids, offsets and words of the graph are those of Hugging Face."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from parity_tests.fuzzing import BEHAVIORS, FLAGS, STACKS, stack, texts
from parity_tests.tiers import thinned
from tf_pipeline.tokenization.in_graph import UnsupportedTokenizer, compile_tokenizer, verify
from tf_pipeline.tokenization.in_graph.regex import EVERY
from tf_pipeline.tokenization.in_graph.text import Text
from tf_pipeline.tokenization.in_graph.verification import added_token_texts

QUICK, ALL = 80, 25_000


@pytest.fixture
def agree(record_property):
    """Fail unless a compiled tokenizer does on all texts what it was made of does, and count the texts."""

    def checked(tokenizer, texts, what):
        report = verify(compile_tokenizer(tokenizer), tokenizer, texts)
        differ = max(report.counts.values())
        record_property("parity", [f"random texts: {what}", report.texts, differ, 0, 0])
        assert report.texts == len(texts) and report.equal, str(report)

    return checked


@pytest.mark.parametrize("number", thinned([3, 2, 5, 7, 10], 5))
def test_random_texts(number, agree):
    tokenizer = stack(number)
    agree(tokenizer, texts(tokenizer, QUICK, seed=number), "quick")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(STACKS))
def test_many_random_texts(number, agree):
    tokenizer = stack(number)
    agree(tokenizer, texts(tokenizer, ALL // STACKS, seed=1000 + number), "25,000 over 20 tokenizers")


def test_stacks_have_all_flags_and_behaviors():
    tokenizers = [stack(number) for number in range(STACKS)]
    added = [token for tokenizer in tokenizers for token in tokenizer.get_added_tokens_decoder().values()]
    assert len({tuple(getattr(token, flag) for flag in FLAGS) for token in added}) == 2 ** len(FLAGS)
    parts = [
        part for tokenizer in tokenizers for part in json.loads(tokenizer.to_str())["pre_tokenizer"]["pretokenizers"]
    ]
    splits = {(part["behavior"], part["invert"]) for part in parts if part["type"] == "Split"}
    assert len(splits) == 2 * len(BEHAVIORS)


def _characters(pre_tokenizer, *added: AddedToken) -> Tokenizer:
    """A BPE model of single letters, with added tokens."""
    model = models.BPE({c: i for i, c in enumerate("[UNK] abcdefghijklmnopqrstuvwxyz")}, [], unk_token=" ")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_tokens(list(added))
    return tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("invert", [True, False])
@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_splitting_leaves_added_tokens_alone(behavior, invert, agree):
    tokenizer = _characters(pre_tokenizers.Split(Regex("[a-z]+"), behavior, invert), AddedToken("[S]", special=True))
    agree(tokenizer, ["a[S]b", "[S]", " [S] ", "[S][S]", "a [S]-b", "-[S]-[S]a", "ab"], "added tokens in splits")


@pytest.mark.slow
def test_neighbors_of_single_words(agree):
    tokenizer = _characters(pre_tokenizers.WhitespaceSplit(), AddedToken("ab", single_word=True))
    neighbors = "a_-.²³¹¼½¾\u200c\u200d٣Ⅷ雨\u0301 "
    agree(tokenizer, [f"{c}ab" for c in neighbors] + [f"ab{c}" for c in neighbors], "neighbors of a single word")


@pytest.mark.slow
def test_all_neighbors_of_single_words(agree):
    """Every code point right before and right after a token that has to be a word of its own."""
    tokenizer = _characters(pre_tokenizers.WhitespaceSplit(), AddedToken("ab", single_word=True))
    for pattern in (" {}ab", " ab{}"):
        joined = ["".join(pattern.format(chr(code)) for code in codes) for codes in np.array_split(EVERY, 1024)]
        agree(tokenizer, joined, "1,112,064 neighbors of a single word, joined")


REFUSED = {
    "'x\\*', which the empty string matches": {"pre_tokenizer": pre_tokenizers.Split(Regex("x*"), "isolated")},
    "'Replace' with the pattern": {"normalizer": normalizers.Replace(Regex(r"\s*(?=a)"), " ")},
    "'<m>' with normalized=True and lstrip": {
        "normalizer": normalizers.Lowercase(),
        "post_processor": processors.ByteLevel(trim_offsets=True),
    },
    "Unigram with trim_offsets": {
        "model": models.Unigram([("a", 0.0)], 0, False),
        "post_processor": processors.ByteLevel(trim_offsets=True),
    },
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_would_not_be_exact_is_refused(said):
    tokenizer = _characters(pre_tokenizers.WhitespaceSplit(), AddedToken("<m>", lstrip=True))
    for name, part in REFUSED[said].items():
        setattr(tokenizer, name, part)
    with pytest.raises(UnsupportedTokenizer, match=said):
        compile_tokenizer(tokenizer)


@pytest.mark.slow
def test_texts_of_an_export_show_added_tokens(monkeypatch):
    """The texts that an export compares tell a tokenizer that loses added tokens."""
    tokenizer = _characters(
        pre_tokenizers.Split(Regex("[a-z]+"), "removed", invert=True),
        AddedToken("[S]"), AddedToken("w", single_word=True), AddedToken("<m>", lstrip=True, special=True),
    )  # fmt: skip
    texts = added_token_texts(tokenizer)
    compiled = compile_tokenizer(tokenizer)
    assert verify(compiled, tokenizer, texts).equal
    for name in ("[S]", "w", "<m>"):
        assert {name, name * 2, f"²{name}", f"{name}\u200d", f" {name}", f"{name}\n"} <= set(texts)
    monkeypatch.setattr(Text, "is_added", property(lambda text: tf.zeros_like(text.codes, tf.bool)))
    report = verify(compile_tokenizer(tokenizer), tokenizer, texts)
    assert report.counts["input_ids"] > 100
