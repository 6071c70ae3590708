"""The real MiniLM and the bundled classifier, on real sentences, against PyTorch's own classes."""

import json

import pytest

from parity_tests.conftest import ASSETS
from tf_pipeline.parity import compare
from tf_pipeline.pipelines import pipeline

COURSE = ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"]


def test_minilm_equals_torch(minilm, reviews, judge):
    report = compare(minilm, "TFBertModel", texts=COURSE + reviews[:30])
    judge(report, "MiniLM, real sentences")
    assert {check.setting for check in report.checks} == {"unpadded", "right padding", "left padding"}
    assert next(c for c in report.checks if c.name == "hidden_states.6").shape[-1] == 384


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_minilm_in_other_modes(minilm, reviews, judge, mode):
    judge(compare(minilm, "TFBertModel", texts=reviews[:8], mode=mode), f"MiniLM, {mode}")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_minilm_in_half_precision(minilm, reviews, judge, dtype):
    judge(compare(minilm, "TFBertModel", texts=reviews[:12], dtypes=[dtype]), f"MiniLM, {dtype}")


def test_bundled_checkpoint_equals_torch(reviews, judge):
    judge(compare(ASSETS, texts=COURSE + reviews[:60]), "bundled checkpoint, real sentences")


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
