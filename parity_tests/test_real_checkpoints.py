"""The real MiniLM, the bundled classifier and a BERT of full size, in every respect, against PyTorch's own classes."""

import json

import pytest
from transformers import BertConfig

from parity_tests.conftest import ASSETS
from parity_tests.tiny import random_checkpoint
from tf_pipeline.parity import GROUPS, compare
from tf_pipeline.pipelines import pipeline

COURSE = ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"]
# Tokenization has a file of its own, and these models write nothing.
REST = [group for group in GROUPS if group not in ("tokenization", "generation")]


@pytest.mark.slow
def test_minilm_equals_torch_in_every_respect(minilm, reviews, judge):
    report = judge(compare(minilm, "TFBertModel", texts=COURSE + reviews[:4], groups=REST), "MiniLM, every respect")
    assert {check.group for check in report.checks} == set(REST)
    assert next(c for c in report.checks if c.name == "hidden_states.6").shape[-1] == 384
    assert all(check.elements > 0 for check in report.checks)
    assert {"unpadded", "right padding", "left padding"} <= {check.setting for check in report.checks}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_minilm_in_half_precision(minilm, reviews, judge, dtype):
    judge(compare(minilm, "TFBertModel", texts=reviews[:6], dtypes=[dtype], groups=["outputs"]), f"MiniLM, {dtype}")


@pytest.mark.slow
def test_bundled_checkpoint_equals_torch_in_every_respect(reviews, judge):
    report = judge(compare(ASSETS, texts=COURSE + reviews[:4], groups=REST), "bundled checkpoint, every respect")
    assert {check.group for check in report.checks} == set(REST)
    assert {"labels", "scores"} <= {check.name for check in report.checks if check.group == "pipeline"}


@pytest.mark.slow
def test_a_bert_of_full_size_equals_torch(tmp_path, judge):
    """12 layers of 768 in float32, without a tokenizer; smaller models are compared in every dtype and respect."""
    random_checkpoint(tmp_path, "TFBertForSequenceClassification", BertConfig(vocab_size=1000), std=0.0)
    report = compare(tmp_path, groups=["weights", "outputs"], dtypes=["float32"])
    judge(report, "bert: 12 layers of 768")
    assert next(c for c in report.checks if c.name == "hidden_states.12").shape[-1] == 768
    assert any("no tokenizer" in skip.reason for skip in report.skipped)


def test_bundled_checkpoint_answers_the_course():
    pipe = pipeline("sentiment-analysis")
    assert [answer["label"] for answer in pipe(COURSE)] == ["POSITIVE", "NEGATIVE"]


def test_bundled_checkpoint_is_small_and_described():
    size = sum(file.stat().st_size for file in ASSETS.iterdir())
    assert size <= 10_000_000
    card = (ASSETS / "README.md").read_text(encoding="utf-8").lower()
    assert all(word in card for word in ("license", "accuracy", "split", "neutral", "hutto"))
    config = json.loads((ASSETS / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
