"""``benchmarks/fine_tune.py``: its data and measures are right, and every task runs here and in PyTorch."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from parity_tests.pipeline_helpers import tiny_with_tokenizer
from parity_tests.sentences import film_reviews
from tf_pipeline import AutoTokenizer
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module, which finds those of its folder and of the examples as a script does."""
    for folder in ("examples", "benchmarks"):
        monkeypatch.syspath_prepend(str(REPOSITORY / folder))
    return importlib.import_module("fine_tune")


def test_names_are_capitalised_words_within_a_sentence(benchmark):
    row = benchmark.tagged("Juan, I say, met Jean Luc Godard in Paris. He was late.")
    named = {word: tag for word, tag in zip(row["tokens"], row["labels"], strict=True) if tag != "O"}
    assert named == {"jean": "B-NAME", "luc": "I-NAME", "godard": "I-NAME", "paris": "B-NAME"}
    assert benchmark.tagged("Nobody is named here. Nothing is.") is None
    assert benchmark.tagged("A Film For The Whole Family") is None
    assert benchmark.short([{"text": "abc"}, row], 3) == [{"text": "abc"}]


def test_measures(benchmark):
    generator = np.random.default_rng(0)
    found, truth = generator.normal(size=(40, 1)).astype(np.float32), generator.integers(0, 9, 40)  # with ties
    table = pandas.DataFrame({"found": found[:, 0], "truth": truth})
    np.testing.assert_array_equal(benchmark.ranks(truth), table["truth"].rank())
    scores = benchmark.correlation([found[:30], found[30:]], [truth[:30], truth[30:]])
    assert scores["Pearson"] == pytest.approx(table.corr().loc["found", "truth"])
    assert scores["Spearman"] == pytest.approx(table.rank().corr().loc["found", "truth"])
    assert scores["MSE"] == pytest.approx(((table["found"] - table["truth"]) ** 2).mean())
    logits = [np.eye(3)[[[1, 2, 0]]], np.eye(3)[[[1, 0]]]]  # batches of two lengths
    labels = [np.array([[1, 2, -100]]), np.array([[0, 1]])]
    assert benchmark.span_f1(logits, labels) == {"span F1": 0.5}
    assert benchmark.accuracy(logits[:1], [np.array([[1, 2, 1]])]) == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.slow
def test_every_task_runs(benchmark, monkeypatch, tmp_path, capsys):
    lines = [f"{i}\t{(-1) ** i * (1 + i % 3)}\t{text}" for i, text in enumerate(film_reviews()[:200])]
    (tmp_path / "movieReviewSnippets_GroundTruth.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    source = tiny_with_tokenizer("TFBertModel", tokenizer, 0.05, num_hidden_layers=1, max_position_embeddings=128)
    report = tmp_path / "report.json"
    asked = ["--data", tmp_path, "--model", source, "--rows", 32, "--judged", 9, "--epochs", 1, "--batch", 8,
             "--seeds", 0, "--json", report]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["fine_tune.py", *map(str, asked)])
    benchmark.main()
    found = json.loads(report.read_text())["found"]
    assert {name: set(measures) for name, measures in found.items()} == {
        "sentiment": {"accuracy"}, "regression": {"Pearson", "Spearman", "MSE"}, "tokens": {"span F1"},
        "lora": {"accuracy"},
    }  # fmt: skip
    for measures in found.values():
        for sides in measures.values():
            assert {side: len(values) for side, values in sides.items()} == {"tf_pipeline": 1, "PyTorch": 1}
    assert "sentiment" in capsys.readouterr().out
