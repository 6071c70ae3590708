"""``return_tensors="tf"`` gives what Hugging Face's tokenizers give PyTorch: ids, masks, types and offsets."""

import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
import transformers

from parity_tests.conftest import ASSETS
from tf_pipeline import AutoTokenizer

COURSE = ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"]
ODD = [
    "", " ", "\t\n", "Ünïcödé — naïve café", "数学 mixed with 中文", "🤗🤗 emoji 👩‍👩‍👧", "a" * 150, "ß ﬁ ½ ™ Σς",
    "[MASK] and [CLS] written out", "snake_case, kebab-case, camelCase!?", "עברית ועוד", "e\u0301",
    "\u200b zero width",
]  # fmt: skip

PADDING = [
    {"padding": "longest"},
    {"padding": True, "padding_side": "left"},
    {"padding": "max_length", "max_length": 40, "truncation": True},
    {"padding": "max_length", "max_length": 40, "truncation": True, "padding_side": "left"},
    {"padding": True, "pad_to_multiple_of": 8},
    {"padding": True, "truncation": True, "max_length": 7},
    {"padding": True, "add_special_tokens": False},
    {"padding": True, "return_token_type_ids": False},
    {"padding": True, "return_special_tokens_mask": True, "return_length": True},
]
PAIRS = [
    {"truncation": "only_first", "max_length": 16},
    {"truncation": "only_second", "max_length": 16},
    {"truncation": "longest_first", "max_length": 12},
    {"truncation": True, "max_length": 12, "truncation_side": "left"},
    {"truncation": False},
]


@pytest.fixture(scope="module", params=["minilm", "bundled"])
def tokenizers(request, minilm):
    folder = minilm if request.param == "minilm" else ASSETS
    return AutoTokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert tf.is_tensor(ours[name]) and ours[name].dtype == tf.int32
        np.testing.assert_array_equal(ours[name].numpy(), value.numpy())


@pytest.mark.parametrize("options", PADDING, ids=str)
def test_single_texts(tokenizers, reviews, options):
    ours, theirs = tokenizers
    texts = COURSE + ODD + reviews[:100]
    options = {"return_offsets_mapping": True} | options
    assert_same(ours(texts, return_tensors="tf", **options), theirs(texts, return_tensors="pt", **options))


@pytest.mark.parametrize("options", PAIRS, ids=str)
def test_pairs(tokenizers, reviews, options):
    ours, theirs = tokenizers
    first, second = reviews[:60], reviews[60:120]
    if options["truncation"] == "only_first":  # what is cut has to be long enough to be cut
        first, second = [text for text in first if len(text) > 60], "Short."
    elif options["truncation"] == "only_second":
        first, second = "Short.", [text for text in second if len(text) > 60]
    first = [first] * len(second) if isinstance(first, str) else first
    second = [second] * len(first) if isinstance(second, str) else second
    side = options.get("truncation_side", "right")
    theirs.truncation_side = side
    plain = {name: value for name, value in options.items() if name != "truncation_side"}
    expected = theirs(first, second, padding=True, return_tensors="pt", return_offsets_mapping=True, **plain)
    theirs.truncation_side = "right"
    result = ours(first, second, padding=True, return_tensors="tf", return_offsets_mapping=True, **options)
    assert_same(result, expected)
    assert ours.truncation_side == "right"
    if options["truncation"] and options.get("truncation_side") is None:
        assert result["input_ids"].shape[1] <= options["max_length"]


def test_sides_as_attributes(tokenizers):
    ours = copy.deepcopy(tokenizers[0])
    by_argument = ours(COURSE, padding=True, padding_side="left", return_tensors="tf")["input_ids"]
    cut = ours(COURSE, truncation=True, max_length=5, truncation_side="left")["input_ids"]
    ours.padding_side = ours.truncation_side = "left"
    np.testing.assert_array_equal(ours(COURSE, padding=True, return_tensors="tf")["input_ids"], by_argument)
    assert ours(COURSE, truncation=True, max_length=5)["input_ids"] == cut
    assert by_argument[1, 0] == ours.pad_token_id
    assert cut[0][1:-1] == ours(COURSE[0], add_special_tokens=False)["input_ids"][-3:]


def test_overflowing_windows(tokenizers):
    ours, theirs = tokenizers
    options = {
        "truncation": True, "max_length": 8, "stride": 2, "return_overflowing_tokens": True, "padding": "max_length"
    }  # fmt: skip
    assert_same(ours(COURSE, return_tensors="tf", **options), theirs(COURSE, return_tensors="pt", **options))


def test_one_text_gets_a_batch_axis(tokenizers):
    ours, theirs = tokenizers
    assert_same(ours(COURSE[0], return_tensors="tf"), theirs(COURSE[0], return_tensors="pt"))
    assert ours(COURSE[0], return_tensors="tf")["input_ids"].shape[0] == 1


def test_encode_decode_and_pad_take_and_give_tensors(tokenizers):
    ours, theirs = tokenizers
    ids = ours.encode(COURSE[1], return_tensors="tf")
    assert ids.dtype == tf.int32 and ids[0].numpy().tolist() == theirs.encode(COURSE[1])
    assert ours.decode(ids[0]) == theirs.decode(theirs.encode(COURSE[1]))
    assert ours.decode(ids[0], skip_special_tokens=True) == "i hate this so much!"
    batch = ours(COURSE, padding=True, return_tensors="tf")["input_ids"]
    assert ours.batch_decode(batch) == theirs.batch_decode(batch.numpy().tolist())
    padded = ours.pad({"input_ids": [[5, 6], [7]]}, return_tensors="tf")
    assert_same(padded, theirs.pad({"input_ids": [[5, 6], [7]]}, return_tensors="pt"))
    again = ours.pad([{"input_ids": ids[0]}, {"input_ids": ids[0][:3]}], return_tensors="tf")
    assert again["attention_mask"].numpy().sum() == ids.shape[1] + 3


def test_everything_else_is_hugging_faces(tokenizers):
    ours, theirs = tokenizers
    assert ours(COURSE).data == theirs(COURSE).data
    assert ours(COURSE, padding=True, return_tensors="np")["input_ids"].dtype == np.int64
    assert isinstance(ours, type(theirs)) and type(ours).__name__ == type(theirs).__name__
    assert ours.tokenize(COURSE[0]) == theirs.tokenize(COURSE[0])
    assert len(ours) == len(theirs) and ours.vocab == theirs.vocab


def test_save_pickle_and_copy(tokenizers, tmp_path):
    ours, _ = tokenizers
    ours.save_pretrained(tmp_path)
    expected = ours(COURSE, padding=True, return_tensors="tf")["input_ids"]
    for other in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours), AutoTokenizer.from_pretrained(tmp_path)):
        np.testing.assert_array_equal(other(COURSE, padding=True, return_tensors="tf")["input_ids"], expected)
    reloaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert reloaded(COURSE)["input_ids"] == ours(COURSE)["input_ids"]


def test_threads_do_not_share_truncation(tokenizers, monkeypatch):
    ours, _ = tokenizers
    original = type(ours).set_truncation_and_padding

    def slowly(self, *args, **kwargs):
        original(self, *args, **kwargs)
        time.sleep(0.02)

    monkeypatch.setattr(type(ours), "set_truncation_and_padding", slowly)
    options = [{}, {"truncation": True, "max_length": 4}, {"truncation": True, "max_length": 6}] * 2
    with ThreadPoolExecutor(len(options)) as pool:
        lengths = list(pool.map(lambda one: len(ours("a film about a film", **one)["input_ids"]), options))
    assert lengths == [7, 4, 6] * 2


def test_errors(tokenizers, tmp_path):
    ours, _ = tokenizers
    with pytest.raises(ValueError, match="padding=True"):
        ours(COURSE, return_tensors="tf")
    with pytest.raises(ValueError, match="truncation_side 'middle'"):
        ours(COURSE, truncation_side="middle")
    with pytest.raises(OSError, match="has no tokenizer"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="from_pretrained"):
        AutoTokenizer()


@pytest.mark.parametrize("kind", ["jax", "pytorch", 3])
def test_other_tensors_are_refused_and_those_of_tensorflow_named(kind):
    with pytest.raises(ValueError, match=rf"return_tensors is {kind!r}, but has to be one of tf, pt, np"):
        AutoTokenizer.from_pretrained(ASSETS)("a", return_tensors=kind)
