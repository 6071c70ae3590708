"""The corpus is what it claims to be; our tokenizers equal Hugging Face's on it; and faults on our side are caught."""

import hashlib
import json
import os
import re
import subprocess
import sys
import unicodedata

import pytest
import tensorflow as tf
import tokenizers
import torch
import transformers

from parity_tests.conftest import ASSETS
from parity_tests.tiers import thinned
from tf_pipeline.parity import corpus as corpus_module
from tf_pipeline.parity.corpus import SENTENCES, adversarial_texts, sentences
from tf_pipeline.parity.report import Report
from tf_pipeline.parity.tokenization import SETTINGS, check_tokenization
from tf_pipeline.tokenization import AutoTokenizer
from tf_pipeline.tokenization.auto import TensorFlowTensors

# Of the corpus as it is; whoever changes the corpus changes this. Any other change is an accident.
DIGEST = "a2c574ae57c94bc9f71f1b7e9ac18e3117b0af23f7ef3aba033e1f9a1a08ba90"
SCRIPTS = {
    "LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "TAMIL",
    "TELUGU", "THAI", "KHMER", "GEORGIAN", "ARMENIAN", "ETHIOPIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL",
}  # fmt: skip


def digest(texts):
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------- corpus


def test_the_corpus_is_large_and_distinct():
    texts = adversarial_texts()
    assert len(texts) == len(set(texts)) >= 2000
    assert all(isinstance(text, str) for text in texts)
    longer = adversarial_texts(len(texts) + 500)
    assert len(longer) == len(set(longer)) == len(texts) + 500 and longer[: len(texts)] == texts


def test_the_corpus_is_the_same_everywhere():
    assert digest(adversarial_texts()) == digest(adversarial_texts()) == DIGEST
    code = (
        "import hashlib, json, runpy, sys; texts = runpy.run_path(sys.argv[1])['adversarial_texts']();"
        "print(hashlib.sha256(json.dumps(texts).encode()).hexdigest())"
    )
    for seed in ("1", "31337"):
        command = [sys.executable, "-c", code, corpus_module.__file__]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        assert (
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
            == DIGEST
        )


def test_the_languages_and_scripts():
    assert len(SENTENCES) >= 20 and len(sentences()) == len(set(sentences())) == 3 * len(SENTENCES)
    # Of the written sentences, not of what is drawn at random.
    names = {unicodedata.name(c, "?").split()[0] for c in "".join(sentences())}
    assert names >= SCRIPTS, SCRIPTS - names


def test_every_kind_of_trap_is_there():
    texts = set(adversarial_texts())
    characters = set("".join(texts))
    assert {unicodedata.category(c) for c in characters} == {
        "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
        "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn",
    }  # fmt: skip
    spaces = {chr(i) for i in range(0x110000) if chr(i).isspace()}
    assert characters >= spaces | {chr(i) for i in (*range(0x20), *range(0x7F, 0xA0))}
    assert characters >= set(
        "\u200b\u200c\u200d\u200e\u202e\u2066\u2060\ufeff\u00ad\ufffd\ufffe\uffff\U0010ffff\ufe0f\u20e3"
    )
    assert not any(0xD800 <= ord(c) <= 0xDFFF for c in characters)  # no UTF-8 form, so no tokenizer takes them
    assert {
        "",
        " ",
        "\n",
        "\r\n",
        "[CLS]",
        "[cls]",
        "<s></s>",
        "##ing",
        "Ġx",
        "\u2581x",
        "ẞß",
        "don't",
        "don\u2019t",
    } <= texts
    assert max(map(len, texts)) >= 5000 and max(len(word) for text in texts for word in text.split()) >= 1000
    forms = [[unicodedata.is_normalized(form, text) for text in texts] for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert all(0.05 < sum(form) / len(texts) < 0.98 for form in forms)


def test_what_cannot_be_seen_is_escaped():
    source = open(corpus_module.__file__, encoding="utf-8").read()
    hidden = {
        c for c in source if c not in " \n" and unicodedata.category(c) in ("Cc", "Cf", "Co", "Cn", "Zs", "Zl", "Zp")
    }
    assert not hidden, [f"{ord(c):x}" for c in hidden]
    assert not set(source) & set("\u034f\u115f\u1160\u3164\uffa0\ufe0e\ufe0f\u17b4\u180b")


# ----------------------------------------------------------------------------------------------------------- equality


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory):
    """A WordPiece model with the frame of BERT, small so that it is loaded in no time."""
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(sentences(), vocab_size=1200, show_progress=False)
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    outputs = ["input_ids", "token_type_ids", "attention_mask"]
    return saved(tokenizer._tokenizer, tmp_path_factory, model_input_names=outputs, **names)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A byte-level BPE with the frame of RoBERTa."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator(sentences(), vocab_size=900, special_tokens=special, show_progress=False)
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    return saved(tokenizer._tokenizer, tmp_path_factory, cls_token="<s>", sep_token="</s>", **names)


@pytest.fixture(scope="module")
def without_padding(tmp_path_factory):
    """A byte-level BPE as bare as GPT-2's: no padding token, no special tokens around a text."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(sentences(), 600, special_tokens=["<|endoftext|>"], show_progress=False)
    return saved(tokenizer._tokenizer, tmp_path_factory, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def unigram(tmp_path_factory):
    """A Unigram model on NFKC text, padded on the left, with the frame of XLNet: special tokens at the end."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.normalizer = tokenizers.normalizers.NFKC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    special = ["<unk>", "<pad>", "<sep>", "<cls>"]
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=1500, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2",
        pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", 2), ("<cls>", 3)],
    )
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "sep_token": "<sep>", "cls_token": "<cls>"}
    return saved(tokenizer, tmp_path_factory, padding_side="left", truncation_side="left", **names)


def saved(tokenizer, tmp_path_factory, **options):
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_minilm_on_the_whole_corpus(minilm, judge):
    report = Report()
    check_tokenization(report, minilm, texts=["A text of the caller's own."])
    judge(report, "tokenizers on the corpus")
    assert not report.skipped
    assert {check.setting for check in report.checks} >= {setting.name for setting in SETTINGS}
    assert {check.name for check in report.checks} >= {
        "input_ids", "attention_mask", "token_type_ids", "offset_mapping", "special_tokens_mask", "word_ids",
        "sequence_ids", "overflow_to_sample_mapping", "length", "tokens", "text", "text of random ids", "refusal",
    }  # fmt: skip
    assert {check.group for check in report.checks} == {"tokenization"}
    rows = {(check.setting, check.name): check.shape[0] for check in report.checks}
    assert rows["not padded", "input_ids"] == rows["longest, left", "input_ids"] == len(adversarial_texts()) + 1
    assert rows["windows", "input_ids"] > 1400 and rows["alone", "input_ids"] >= 50


@pytest.mark.parametrize("name", thinned(["bundled", "word_piece", "byte_level", "unigram"], 4))
def test_other_fast_tokenizers(name, request, judge):
    report = Report()
    folder = ASSETS if name == "bundled" else request.getfixturevalue(name)
    check_tokenization(report, folder, corpus=adversarial_texts()[::5])
    judge(report, "tokenizers on the corpus")
    assert not report.skipped


def test_a_tokenizer_without_padding_token(without_padding, judge):
    report = Report()
    check_tokenization(report, without_padding, corpus=adversarial_texts()[::8])
    judge(report, "tokenizers on the corpus")
    assert {skip.what for skip in report.skipped} == {setting.name for setting in SETTINGS if setting.padded}
    assert {check.setting for check in report.checks} >= {"alone", "windows", "pairs, only_first", "cut on the left"}


def test_a_slow_tokenizer_has_no_offsets(tmp_path, judge):
    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    report = Report()
    check_tokenization(report, tmp_path, corpus=adversarial_texts()[::40])
    judge(report, "tokenizers on the corpus")
    assert {skip.what for skip in report.skipped} >= {"offsets", "windows"}
    assert not any("offset" in check.name or "windows" in check.setting for check in report.checks)


def test_a_checkpoint_without_tokenizer_is_skipped(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    report = Report()
    check_tokenization(report, tmp_path)
    assert not report.checks
    assert [skip.what for skip in report.skipped] == ["tokenizer"] and "has no tokenizer" in report.skipped[0].reason


def test_a_tokenizer_that_nobody_can_load_is_skipped(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer.json").write_text("{")
    report = Report()
    check_tokenization(report, tmp_path)
    assert not report.checks and [skip.what for skip in report.skipped] == ["tokenizer"]


def test_a_tokenizer_that_we_alone_cannot_load_fails(word_piece, monkeypatch):
    monkeypatch.setattr("tf_pipeline.tokenization.auto.with_tensorflow", lambda _: 1 / 0)
    report = Report()
    check_tokenization(report, word_piece)
    assert not report.passed and "division by zero" in str(report.failures[0])


def test_numpy_is_the_reference_without_torch(word_piece, monkeypatch):
    monkeypatch.setattr("tf_pipeline.parity.tokenization.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("torch.tensor", lambda *args, **options: 1 / 0)
    report = Report()
    check_tokenization(report, word_piece, corpus=sentences())
    assert report.passed and not report.skipped


# ------------------------------------------------------------------------------- faults on our side, which are caught

FAULT_CORPUS = [*adversarial_texts()[::25], *sentences()[:12], "rain " * 60]


def calls(change):
    """A fault in the arguments of a call: ``change(args, options)``."""
    original = TensorFlowTensors.__call__

    def call(self, *args, **options):
        return original(self, *change(args, options), **options)

    return {"__call__": call}


def results(change):
    """A fault in the result of a call: ``change(result)``."""
    original = TensorFlowTensors.__call__

    def call(self, *args, **options):
        result = original(self, *args, **options)
        change(result)
        return result

    return {"__call__": call}


def set_option(name, value):
    def change(args, options):
        if name in options:
            options[name] = value(options[name])
        return args

    return change


def without_special_tokens(args, options):
    options["add_special_tokens"] = False
    return args


def swapped(args, options):
    return args[::-1]


def stripped(args, options):
    return [part.strip() if isinstance(part, str) else [text.strip() for text in part] for part in args]


def each(name, change):
    """Change the tensor of an output."""

    def changed(result):
        if tf.is_tensor(result.get(name)):
            result[name] = change(result[name])

    return changed


def no_token_types(result):
    result.pop("token_type_ids", None)


def one_more_output(result):
    result["position_ids"] = result["input_ids"]


def decoding(change):
    original = TensorFlowTensors.batch_decode
    return {"batch_decode": lambda self, *args, **options: [change(t) for t in original(self, *args, **options)]}


def one_text_refused():
    original = TensorFlowTensors.__call__

    def call(self, *args, **options):
        if any(sentences()[0] in part for part in args):
            raise ValueError("I do not like it.")
        return original(self, *args, **options)

    return {"__call__": call}


def nothing_refused():
    original = TensorFlowTensors.__call__

    def call(self, *args, **options):
        try:
            return original(self, *args, **options)
        except Exception:
            return original(self, *args)

    return {"__call__": call}


OTHER_SIDE = {"left": "right", "right": "left"}


def option(name, value):
    return lambda: calls(set_option(name, value))


def output(name, change):
    return lambda: results(each(name, change))


# Name of the fault: what it puts into our class, and the settings and output in which it has to be seen.
FAULTS = {
    "padding on the wrong side": (option("padding_side", OTHER_SIDE.get), "longest, left", "input_ids"),
    "padding side ignored": (option("padding_side", lambda _: "right"), "max_length, left", "input_ids"),
    "cut one too short": (option("max_length", lambda n: n - 1), "cut on the right", "input_ids"),
    "cut one too long": (option("max_length", lambda n: n + 1), "pairs, only_second", "input_ids"),
    "cut on the wrong side": (option("truncation_side", OTHER_SIDE.get), "cut on the left", "input_ids"),
    "truncation side ignored": (option("truncation_side", lambda _: "right"), "cut on the left", "input_ids"),
    "multiple of 7": (option("pad_to_multiple_of", lambda n: n - 1), "multiple of 8", "input_ids"),
    "stride ignored": (option("stride", lambda _: 0), "windows", "input_ids"),
    "special tokens missing": (lambda: calls(without_special_tokens), "not padded", "input_ids"),
    "texts stripped": (lambda: calls(stripped), "not padded", "offset_mapping"),
    "parts of pairs swapped": (lambda: calls(swapped), "pairs, whole", "input_ids"),
    "token types dropped": (lambda: results(no_token_types), "not padded", "token_type_ids"),
    "one more output": (lambda: results(one_more_output), "longest, right", "position_ids"),
    "token types of zeros": (output("token_type_ids", tf.zeros_like), "pairs, whole", "token_type_ids"),
    "offsets shifted": (output("offset_mapping", lambda t: t + 1), "alone", "offset_mapping"),
    "a mask of ones": (output("attention_mask", tf.ones_like), "longest, right", "attention_mask"),
    "special tokens mask inverted": (
        output("special_tokens_mask", lambda t: 1 - t), "special tokens mask", "special_tokens_mask"
    ),
    "int64": (output("input_ids", lambda t: tf.cast(t, tf.int64)), "alone", "input_ids"),
    "an array": (output("input_ids", lambda t: t.numpy()), "alone", "input_ids"),
    "PyTorch's tensor": (output("input_ids", lambda t: torch.tensor(t.numpy())), "alone", "input_ids"),
    "decoding differs": (lambda: decoding(str.title), "decode with special tokens", "text"),
    "special tokens are decoded": (
        lambda: {"batch_decode": lambda self, ids, **_: [self.decode(row) for row in ids]},
        "decode without special tokens",
        "text",
    ),
    "tokens differ": (
        lambda: {"convert_ids_to_tokens": lambda self, ids, **_: [str(i) for i in ids]}, "not padded", "tokens"
    ),
    "a text refused": (one_text_refused, "not padded", "input_ids"),
    "nothing refused": (nothing_refused, "pairs, only_first too short", "refusal"),
}  # fmt: skip


@pytest.mark.parametrize("fault", thinned(FAULTS, 6))
def test_faults_are_caught(fault, word_piece, monkeypatch):
    make, setting, name = FAULTS[fault]
    for attribute, faulty in make().items():
        monkeypatch.setattr(TensorFlowTensors, attribute, faulty, raising=False)
    report = Report()
    check_tokenization(report, word_piece, corpus=FAULT_CORPUS)
    caught = {(check.setting, check.name): check for check in report.failures}
    assert not report.passed and (setting, name) in caught, list(caught)
    message = str(caught[setting, name])
    assert setting in message and name in message
    # The text, or the pair, that differs is quoted.
    quoted = re.search(r" entry \d+ for \(?(.+)", message, re.DOTALL)[1]
    assert any(quoted.startswith(repr(text)[:40]) for text in (*FAULT_CORPUS, "Rain.")), message


@pytest.mark.parametrize("name", ["byte_level", "unigram"])
def test_faults_of_text_are_caught_where_spaces_count(name, request, monkeypatch):
    folder = request.getfixturevalue(name)
    for attribute, faulty in calls(stripped).items():
        monkeypatch.setattr(TensorFlowTensors, attribute, faulty)
    report = Report()
    check_tokenization(report, folder, corpus=[" rain", "rain ", "rain"])
    assert {("not padded", "input_ids"), ("longest, left", "input_ids")} <= {
        (c.setting, c.name) for c in report.failures
    }


def test_faults_reach_our_side_alone(minilm, monkeypatch):
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)
    expected = theirs(sentences()[:5])["input_ids"]
    for attribute, faulty in calls(without_special_tokens).items():
        monkeypatch.setattr(TensorFlowTensors, attribute, faulty)
    assert theirs(sentences()[:5])["input_ids"] == expected
    assert AutoTokenizer.from_pretrained(minilm)(sentences()[:5])["input_ids"] != expected
