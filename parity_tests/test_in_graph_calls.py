"""Calls of a compiled tokenizer: options as of Hugging Face's call, bad bytes, SavedModels, refusals."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from parity_tests.conftest import ASSETS
from parity_tests.sentences import film_reviews
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline.parity.corpus import adversarial_texts
from tf_pipeline.tokenization.in_graph import UnsupportedTokenizer, compile_tokenizer, verify
from tf_pipeline.tokenization.in_graph.pre_tokenizers import matches
from tf_pipeline.tokenization.in_graph.regex import Regex as InGraphRegex
from tf_pipeline.tokenization.in_graph.text import decode

TEXTS = [
    "",
    " ",
    "Rain.",
    "[MASK] in a [SEP]text",
    "雨のため closed",
    "It rained; nobody asked why the bridge was shut.",
]
OPTIONS = [
    {},
    {"padding_side": "left"},
    {"padding": "max_length", "max_length": 40, "truncation": True},
    {"padding": "max_length", "max_length": 40, "truncation": True, "padding_side": "left"},
    {"pad_to_multiple_of": 8},
    {"truncation": True, "max_length": 7},
    {"truncation": True, "max_length": 7, "truncation_side": "left"},
    {"truncation": "only_first", "max_length": 7},
    {"add_special_tokens": False},
    {"add_special_tokens": False, "truncation": True, "max_length": 5},
]
PAIRS = [
    {},
    {"add_special_tokens": False},
    *({"truncation": True, "max_length": length} for length in (5, 6, 12, 13, 30)),
    {"truncation": "longest_first", "max_length": 12, "truncation_side": "left"},
    {"truncation": "only_first", "max_length": 24},
    {"truncation": "only_second", "max_length": 24},
    {"truncation": "only_second", "max_length": 24, "truncation_side": "left", "padding_side": "left"},
]
WINDOWS = [
    {"max_length": 12, "stride": 0},
    {"max_length": 12, "stride": 4},
    {"max_length": 12, "stride": 9},
    {"max_length": 12, "stride": 4, "truncation_side": "left"},
    {"max_length": 30, "stride": 3},
]
ASKED = {"return_offsets_mapping": True, "return_special_tokens_mask": True}


@pytest.fixture(scope="module")
def theirs():
    return transformers.AutoTokenizer.from_pretrained(ASSETS)


@pytest.fixture(scope="module")
def compiled(theirs):
    return compile_tokenizer(theirs)


def expected(tokenizer, *texts, truncation_side="right", **options):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.truncation_side = truncation_side
    options = {"padding": True, "return_tensors": "np", "return_token_type_ids": True, **ASKED, **options}
    return tokenizer(*map(list, texts), **options)


def assert_same(ours, theirs):
    assert set(theirs) <= set(ours)
    for name, value in theirs.items():
        assert ours[name].dtype == tf.int32
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(compiled, theirs, options):
    assert_same(compiled(TEXTS, **ASKED, **options), expected(theirs, TEXTS, **options))


@pytest.mark.parametrize("options", thinned(PAIRS, 2), ids=str)
def test_pairs(compiled, theirs, options):
    first, second = film_reviews()[:24], film_reviews()[24:48]
    if options.get("truncation") == "only_first":
        second = ["Short."] * len(first)
    elif options.get("truncation") == "only_second":
        first = ["Short."] * len(second)
    assert_same(compiled(first, second, **ASKED, **options), expected(theirs, first, second, **options))


@pytest.mark.parametrize("options", thinned(WINDOWS, 2), ids=str)
def test_windows(compiled, theirs, options):
    options = options | {"return_overflowing_tokens": True}
    texts = ["", *film_reviews()[:16], " ".join(film_reviews()[16:20])]
    assert_same(
        compiled(texts, truncation=True, **ASKED, **options), expected(theirs, texts, truncation=True, **options)
    )
    questions = ["Is it good?"] * len(texts)
    pairs = options | {"max_length": options["max_length"] + 6, "truncation": "only_second"}
    assert_same(compiled(questions, texts, **ASKED, **pairs), expected(theirs, questions, texts, **pairs))


def test_words_and_sequences(compiled, theirs):
    first, second = film_reviews()[:8], TEXTS + TEXTS[:2]
    ours = compiled(first, second, return_word_ids=True, return_sequence_ids=True)
    encoded = theirs(first, second, padding=True)
    for i in range(8):
        for name, values in (("word_ids", encoded.word_ids(i)), ("sequence_ids", encoded.sequence_ids(i))):
            assert ours[name][i].numpy().tolist() == [-1 if value is None else value for value in values]


def test_what_hugging_face_refuses_is_cut_on_both_sides(compiled, theirs):
    first, second = [film_reviews()[0] * 3, "Short."], ["Short.", "Short."]
    with pytest.raises(Exception, match="[Tt]runcat"):
        theirs.backend_tokenizer.enable_truncation(8, strategy="only_second")
        theirs.backend_tokenizer.encode(first[0], second[0])
    theirs.backend_tokenizer.no_truncation()
    ours = compiled(first, second, truncation="only_second", max_length=8)
    assert_same(ours, {"input_ids": expected(theirs, first, second, truncation=True, max_length=8)["input_ids"]})


def test_invalid_utf8_harms_no_other_row(compiled):
    random = np.random.default_rng(0)
    bad = [
        b"rain\xff wind",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80x",
        b"\xc0\x80",
        b"a\x00b",
        b"\xef\xbb\xbfa",
    ]
    bad += [random.choice([0x41, 0x80, 0xBF, 0xC3, 0xE2, 0xF0, 0xFF], 9).astype(np.uint8).tobytes() for _ in range(500)]
    good = [text.encode() for text in TEXTS]
    ours = compiled(tf.constant(bad + good), return_offsets_mapping=True)
    same = compiled([text.decode("utf-8", "replace") for text in bad + good], return_offsets_mapping=True)
    assert_same(ours, {name: value.numpy() for name, value in same.items()})


def test_empty_batches(compiled):
    assert compiled(tf.constant([], tf.string))["input_ids"].shape[0] == 0
    assert compiled(["", ""])["input_ids"].shape == (2, 2)
    assert compiled(["", ""], add_special_tokens=False)["input_ids"].shape == (2, 0)


LOADED = """
import json, sys
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
rows = serve(text=tf.constant(json.load(open(sys.argv[2]))))
assert not {name.partition(".")[0] for name in sys.modules} & {"tf_pipeline", "tensorflow_text", "tokenizers"}
json.dump({name: value.numpy().tolist() for name, value in rows.items()}, open(sys.argv[3], "w"))
"""


@pytest.mark.slow
def test_saved_model_in_a_process_of_its_own(compiled, tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = compiled

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def serve(self, text):
            return self.tokenizer(text, truncation=True, max_length=32, return_offsets_mapping=True)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def windows(self, text):
            return self.tokenizer(text, truncation=True, max_length=32, return_overflowing_tokens=True, stride=4)

    module = Module()
    signatures = {"serving_default": module.serve, "windows": module.windows}
    tf.saved_model.save(module, tmp_path / "model", signatures=signatures)
    texts = adversarial_texts()[::10]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    command = [sys.executable, "-c", LOADED, *(str(tmp_path / name) for name in ("model", "texts.json", "rows.json"))]
    subprocess.run(command, check=True, cwd=tmp_path)
    rows = json.loads((tmp_path / "rows.json").read_text())
    for name, value in module.serve(tf.constant(texts)).items():
        assert value.numpy().tolist() == rows[name]
    _assert_servable(tmp_path / "model" / "saved_model.pb")


def _assert_servable(path):
    """Only ops of TensorFlow itself, none that runs Python, keeps state, or fails on what a user sends."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs[0].graph_def
    ops = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    forbidden = {"PyFunc", "EagerPyFunc", "PyFuncStateless", "Assert", "CheckNumerics", "_XlaMustCompile"}
    assert not [op for op in ops if op in forbidden or "HashTable" in op or "Sentencepiece" in op or "Wordpiece" in op]
    assert len(ops) > 30
    # Tables are stored once, however many signatures there are.
    assert path.stat().st_size < 6_000_000


@pytest.mark.parametrize("count", exhaustive([600, 3000], [600]))
def test_added_tokens(count):
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2, "##b": 3, "##a": 4}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([
        "<x>", "<x>y", AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True),
        AddedToken("<lr>", lstrip=True, rstrip=True), AddedToken("w", single_word=True),
    ])  # fmt: skip
    tokenizer.add_tokens([AddedToken("AB"), AddedToken("ba", normalized=False), AddedToken("İx", normalized=True)])
    random = np.random.default_rng(0)
    parts = [
        "<x>",
        "<x>y",
        "<l>",
        "<r>",
        "<lr>",
        "w",
        "a",
        "b",
        " ",
        "  ",
        "AB",
        "ab",
        "ba",
        "İx",
        "é",
        "_",
        "\n",
        "<x",
    ]
    texts = ["".join(random.choice(parts, random.integers(1, 9))) for _ in range(count)]
    report = verify(compile_tokenizer(tokenizer), tokenizer, texts)
    assert report.equal, str(report)


PATTERNS = [
    r"\w+|[^\w\s]+", r"\p{Lu}?\p{Ll}*", r"[a-z]{2}|\p{N}{2,}|\s+", r"(?:ra|in)?n", r"\d{1,3}(?!\d)", r"[^\s]+\s*(?=w)",
    r"a*aa", r"[ab]*b", r"\p{L}++\s?+", r"(?i:RAIN|é)x?", "・| ",
]  # fmt: skip


@pytest.mark.parametrize("pattern", thinned(PATTERNS, 4))
def test_regular_expressions(pattern):
    texts = [*adversarial_texts()[::7], "aaaa aab baab abab", "Rain rainrain 12345 1 22"]
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    text = decode(tf.constant([text.encode() for text in texts]))
    inside = matches(text, InGraphRegex(pattern))[2].numpy()
    rows = zip(*(part.numpy()[~text.is_end.numpy()] for part in (text.row, text.start)), strict=True)
    ours = {place for place, matched in zip(rows, inside[~text.is_end.numpy()], strict=True) if matched}
    kept = {
        (i, j) for i, t in enumerate(texts) for _, (start, end) in split.pre_tokenize_str(t) for j in range(start, end)
    }
    everywhere = {(i, j) for i, t in enumerate(texts) for j in range(len(t))}
    assert ours == everywhere - kept and ours


def _with(**parts) -> Tokenizer:
    tokenizer = Tokenizer(parts.pop("model", models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


BEHAVIORS = ("removed", "isolated", "contiguous", "merged_with_previous", "merged_with_next")
STAGES = {
    **{f"split, {b}": {"pre_tokenizer": pre_tokenizers.Split(Regex("[ab]c?| "), b)} for b in BEHAVIORS},
    "split, kept": {"pre_tokenizer": pre_tokenizers.Split(Regex(r"\w+"), "removed", invert=True)},
    "split at a string": {"pre_tokenizer": pre_tokenizers.Split(". ", "merged_with_previous")},
    "whitespace": {"pre_tokenizer": pre_tokenizers.Whitespace()},
    "punctuation": {"pre_tokenizer": pre_tokenizers.Punctuation("merged_with_previous")},
    "digits": {"pre_tokenizer": pre_tokenizers.Digits(individual_digits=False)},
    "each digit": {"pre_tokenizer": pre_tokenizers.Digits(individual_digits=True)},
    "delimiter": {"pre_tokenizer": pre_tokenizers.CharDelimiterSplit("i")},
    "NFD": {"normalizer": normalizers.NFD()},
    "NFKD": {"normalizer": normalizers.NFKD()},
    "NFKC": {"normalizer": normalizers.NFKC()},
    "Nmt": {"normalizer": normalizers.Nmt()},
    "strip": {"normalizer": normalizers.Strip(left=True, right=False)},
    "replace": {"normalizer": normalizers.Replace("in", "xyz")},
    "prepend": {"normalizer": normalizers.Prepend("ab")},
    "bytes": {"normalizer": normalizers.ByteLevel()},
}


@pytest.mark.parametrize("stage", exhaustive(STAGES, ["split at a string", "NFD"]))
def test_stage(stage):
    """A vocabulary of single characters shows every character that a stage makes, and every word."""
    letters = sorted({c for text in adversarial_texts()[::5] for c in text} | {chr(i) for i in range(0x100, 0x144)})
    vocabulary = {"[UNK]": 0} | {letter: i for i, letter in enumerate(letters, 1)}
    model = models.BPE(vocabulary, [], unk_token="[UNK]")
    tokenizer = _with(model=model, **STAGES[stage])
    report = verify(compile_tokenizer(tokenizer), tokenizer, adversarial_texts()[::5])
    offsets = report.counts.pop("offset_mapping")
    assert not any(report.counts.values()), str(report)
    assert offsets == 0, str(report)


REFUSED = {
    "'UnicodeScripts'": _with(pre_tokenizer=pre_tokenizers.UnicodeScripts()),
    "'WordLevel'": _with(model=models.WordLevel({"a": 0}, unk_token="a")),
    "dropout=0.5": _with(model=models.BPE({"a": 0}, [], dropout=0.5)),
    "end_of_word_suffix='</w>'": _with(model=models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>")),
    "<0x00>": _with(model=models.BPE({"a": 0}, [], byte_fallback=True)),
    "without its unknown token": _with(model=models.WordPiece({"a": 0}, unk_token="[UNK]")),
    "without an unknown token": _with(model=models.Unigram([("a", 0.0)], None, False)),
    "Unigram with byte_fallback": _with(model=models.Unigram([("a", 0.0)], 0, True)),
    "a lazy quantifier": _with(pre_tokenizer=pre_tokenizers.Split(Regex("a+?"), "isolated")),
    "look-ahead at more": _with(pre_tokenizer=pre_tokenizers.Split(Regex("a(?!bc)"), "isolated")),
    "a repeated group": _with(normalizer=normalizers.Replace(Regex("(?:ab)+"), "c")),
    "repeats a text": _with(
        post_processor=processors.TemplateProcessing(single="$A $A", pair="$A $B", special_tokens=[])
    ),
}


@pytest.mark.parametrize("part", REFUSED)
def test_what_is_not_compiled_is_named(part):
    with pytest.raises(UnsupportedTokenizer, match=part.replace("(", r"\(")):
        compile_tokenizer(REFUSED[part])


def test_slow_tokenizers_are_refused():
    with pytest.raises(UnsupportedTokenizer, match="object is not a fast tokenizer"):
        compile_tokenizer(object())


ERRORS = {
    "truncation='middle'": {"truncation": "middle", "max_length": 9},
    "padding=False": {"padding": False},
    "padding_side='up'": {"padding_side": "up"},
    "truncation_side='up'": {"truncation_side": "up"},
    "need max_length": {"truncation": True},
    "leaves no room": {"truncation": True, "max_length": 2},
    "needs text_pair": {"truncation": "only_second", "max_length": 9},
    "needs truncation": {"return_overflowing_tokens": True},
    "stride=7": {"truncation": True, "max_length": 9, "return_overflowing_tokens": True, "stride": 7},
}


@pytest.mark.parametrize("said", ERRORS)
def test_errors(compiled, said):
    with pytest.raises(ValueError, match=said):
        compiled(["Rain."], **ERRORS[said])


def test_padding_needs_a_token(theirs):
    bare = copy.deepcopy(theirs)
    bare.pad_token = None
    with pytest.raises(ValueError, match="no padding token"):
        compile_tokenizer(bare)(["Rain."])


def test_verify_finds_differences(compiled, theirs):
    other = copy.deepcopy(theirs)
    other.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    report = verify(compiled, other, ["rain", "Rain", "RAIN", "wind"])
    assert not report.equal and report.counts["input_ids"] == 2 and report.texts == 4
    assert {difference.text for difference in report.differences} == {"Rain", "RAIN"}
    assert "2 input_ids differ" in str(report)
    assert not verify(compiled, theirs, []).equal
