"""The engine that judges is judged: it has to see what is wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tf_pipeline
from parity_tests.tiers import exhaustive
from tf_pipeline.judging.rules import judge_envelope, judge_float64
from tf_pipeline.parity import Report, compare, compare_outputs
from tf_pipeline.parity.inputs import random_inputs
from tf_pipeline.parity.run import TensorFlowRunner

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=(4, 100))
NOISE = RNG.normal(size=TRUTH.shape) * 1e-7


def envelope(ours, theirs=TRUTH + NOISE):
    return judge_envelope("x", "test", "float32", ours, theirs, TRUTH)


def test_float64_rule():
    assert judge_float64("x", "test", TRUTH + 9e-11, TRUTH).passed
    assert not judge_float64("x", "test", TRUTH + 1.2e-9, TRUTH).passed
    assert judge_float64("x", "test", 1000 * TRUTH + 1e-8, 1000 * TRUTH).passed  # relative to the tensor's scale


def test_envelope_rule():
    assert envelope(TRUTH - NOISE).passed
    assert not envelope(TRUTH + 30 * NOISE).passed
    spike = TRUTH.copy()
    spike[2, 7] += 1e-5  # one element far out
    assert not envelope(spike).passed
    assert envelope(TRUTH + 1e-8, theirs=TRUTH).passed  # the floor: a perfect PyTorch result does not fail us
    assert envelope(TRUTH - NOISE).ratio == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "judge",
    [
        lambda ours, truth: judge_float64("x", "test", ours, truth),
        lambda ours, truth: judge_envelope("x", "test", "float32", ours, truth, truth),
    ],
    ids=["float64", "envelope"],
)
def test_what_cannot_be_compared_is_unequal(judge):
    assert not judge(np.empty((0, 3)), np.empty((0, 3))).passed
    assert not judge(np.zeros((2, 3)), np.zeros((3, 2))).passed
    nan = TRUTH.copy()
    nan[0, 0] = np.nan
    assert not judge(nan, TRUTH).passed
    assert not judge(TRUTH, nan).passed
    assert judge(nan, nan).passed


def test_an_empty_report_is_not_equal():
    assert not Report().passed
    with pytest.raises(AssertionError, match="Nothing was compared"):
        Report().raise_if_unequal()


def perturbed(model, key, change):
    from tf_pipeline.checkpoint import named_slots

    variable = dict(named_slots(model))[key].variable
    variable.assign(change(variable.value))


@pytest.mark.parametrize(
    ("key", "first"),
    exhaustive(
        [
            ("embeddings.LayerNorm.bias", "hidden_states.0"),
            ("encoder.layer.1.attention.self.key.bias", "attentions.1"),
            ("encoder.layer.1.output.dense.weight", "hidden_states.2"),
            ("pooler.dense.bias", "pooler_output"),
        ],
        [
            ("encoder.layer.1.attention.self.key.bias", "attentions.1"),
            ("encoder.layer.1.output.dense.weight", "hidden_states.2"),
        ],
    ),
)
def test_the_first_difference_is_found_where_it_arises(checkpoint, monkeypatch, key, first):
    """A parameter off by 1e-6 of itself is seen at float64, and at the tensor it feeds."""
    folder = checkpoint("bert", "TFBertModel")
    own = tf_pipeline.TFBertModel.from_pretrained
    model = own(folder, dtype="float64")
    # key.bias alone shifts all scores of a query alike, which softmax undoes; a weight does not.
    key = key.replace("key.bias", "key.weight")
    perturbed(model, key, lambda value: value * (1 + 1e-6))
    monkeypatch.setattr(tf_pipeline.TFBertModel, "from_pretrained", lambda *args, **kwargs: model)
    report = compare_outputs(folder, "TFBertModel", settings={"s": random_inputs(model)}, dtypes=["float64"])
    # hidden states come first in the report, attentions after; take the first of its kind
    names = [check.name for check in report.failures]
    assert first in names
    layer = int(first.split(".")[1]) if "." in first else None
    if first.startswith("hidden"):
        assert not {f"hidden_states.{index}" for index in range(layer)} & set(names)
    if first.startswith("attentions"):
        assert not {f"attentions.{index}" for index in range(layer)} & set(names)


def test_runner_modes():
    with pytest.raises(ValueError, match="eager, function, xla, saved"):
        TensorFlowRunner(None, "jit")


def test_compare_needs_something_to_compare_on(checkpoint):
    with pytest.raises(ValueError, match="texts"):
        compare(checkpoint("bert", "TFBertModel"), texts=[])


@pytest.mark.slow
def test_two_comparisons_give_the_same_numbers(checkpoint):
    folder = checkpoint("distilbert", "TFDistilBertForSequenceClassification")
    groups = ["weights", "outputs", "gradients", "invariance", "round trip"]
    one, other = (compare(folder, groups=groups, rms_factor=3.0) for _ in range(2))
    assert one.passed and one.checks == other.checks


def test_what_our_model_raises_is_a_difference(checkpoint, monkeypatch):
    """Not an error of the comparison: PyTorch's model took the same inputs."""
    folder = checkpoint("bert", "TFBertModel")
    own = tf_pipeline.TFBertModel.forward

    def forward(self, **inputs):
        if inputs.get("inputs_embeds") is not None:
            raise NotImplementedError("no embeddings here")
        return own(self, **inputs)

    monkeypatch.setattr(tf_pipeline.TFBertModel, "forward", forward)
    report = compare(folder, dtypes=["float64"], groups=["outputs"])
    assert not report.passed and len(report.failures) == 1
    assert report.finding.check.setting == "inputs_embeds" and "no embeddings here" in report.finding.check.problem


def test_groups_that_are_not_asked_for_are_listed(checkpoint):
    report = compare(checkpoint("bert", "TFBertModel"), groups=["weights"])
    assert {skip.group for skip in report.skipped} >= {"outputs", "training", "pipeline"}
    assert {check.group for check in report.checks} == {"weights"}
    assert all(check.elements > 0 for check in report.checks)
    assert report.environment["versions"]["torch"] and report.environment["cores"]


def suite(checkpoint, *arguments):
    """Run pytest with ``--checkpoint`` in a process of its own."""
    command = [sys.executable, "-m", "pytest", "parity_tests", "--checkpoint", checkpoint, "-n", "0", "-q", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)


@pytest.mark.slow
def test_the_suite_takes_a_checkpoint_of_ones_own(checkpoint):
    """One test for each group, and nothing else."""
    result = suite(checkpoint("bert", "TFBertModel"), "--checkpoint-class", "TFBertModel", "-k", "weights or round")
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout and "TFBertModel: weights" in result.stdout


@pytest.mark.slow
def test_the_suite_fails_for_a_checkpoint_that_cannot_be_compared(tmp_path):
    result = suite(tmp_path, "-k", "weights")
    assert result.returncode == 1 and "config.json" in result.stdout
