"""A comparison never passes because nothing was compared, and what is left out has its reason."""

import io

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from rich.console import Console
from typer.testing import CliRunner

import tf_pipeline
from parity_tests.checkpoint_helpers import checkpoint, edited
from parity_tests.conftest import ASSETS
from parity_tests.families import DISTINCT, REPRESENTATIVES
from parity_tests.pipeline_helpers import tiny_with_tokenizer
from parity_tests.tiers import exhaustive
from tf_pipeline import compare
from tf_pipeline.cli.main import app
from tf_pipeline.judging.check import GROUPS
from tf_pipeline.judging.rules import judge_envelope, judge_float64
from tf_pipeline.judging.tensors import real_positions
from tf_pipeline.parity import html
from tf_pipeline.parity.comparison import Comparison
from tf_pipeline.parity.dropout import as_factors, check_dropout
from tf_pipeline.parity.outputs import check_gradients
from tf_pipeline.parity.report import Report
from tf_pipeline.parity.run import TensorFlowRunner
from tf_pipeline.parity.training import torch_steps
from tf_pipeline.reference.loading import torch_model
from tf_pipeline.reference.running import run_torch

BERT = "TFBertForTokenClassification"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tensor_of_nothing_but_nan_is_not_equal(value):
    nothing = np.full((3, 40), value)
    for check in (
        judge_float64("x", "s", nothing, nothing),
        judge_envelope("x", "s", "float32", nothing, nothing, nothing),
    ):
        assert not check.passed and "all NaN or infinite" in check.problem
    nothing[1, 2] = 1.0
    assert judge_float64("x", "s", nothing, nothing).passed


def test_a_checkpoint_of_nan_is_not_equal():
    def spoil(tensors):
        tensors["bert.embeddings.LayerNorm.weight"] *= float("nan")

    report = compare(
        edited(checkpoint(BERT, num_hidden_layers=1), spoil), dtypes=["float64"], mode="eager", groups=["outputs"]
    )
    assert not report.passed
    assert "logits" in {check.name for check in report.failures if "all NaN" in check.problem}


def test_texts_of_one_length_are_padded():
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS)
    folder = tiny_with_tokenizer(BERT, tokenizer)
    for texts in (["One."], ["One.", "Two."]):
        comparison = Comparison(folder, BERT, Report(), texts=texts)
        for side in ("right", "left"):
            mask = comparison.settings[f"{side} padding"]["attention_mask"]
            assert mask.any(axis=1).all() and not mask.all()
        assert comparison.settings["a row masked out"]["attention_mask"].any()
        (labels, _) = comparison.labelled["labels"]
        assert (labels["labels"] != -100).any() and (labels["labels"] == -100).any()


def test_what_pytorch_needs_a_mask_for_is_compared_with_one():
    name, report = "TFModernBertForMultipleChoice", Report()
    comparison = Comparison(checkpoint(name, classifier_pooling="mean"), name, report, dtypes=["float64"])
    inputs = [*comparison.settings.values(), *(labelled.inputs for labelled in comparison.labelled.values())]
    assert all("attention_mask" in given for given in inputs)
    assert "mask omitted" not in comparison.settings and list(comparison.labelled) == ["labels"]
    assert [skip.what for skip in report.skipped if "needs an attention_mask" in skip.reason] == ["no attention_mask"]
    for given in inputs:
        run_torch(comparison.theirs(), given)


def test_other_models_are_compared_without_a_mask_too():
    comparison = Comparison(checkpoint(BERT), BERT, Report(), dtypes=["float64"])
    assert "attention_mask" not in comparison.settings["mask omitted"]
    assert "attention_mask" not in comparison.labelled["labels, no attention_mask"].inputs


def test_between_steps_of_training_pytorch_is_itself():
    comparison = Comparison(checkpoint(BERT), BERT, Report(), dtypes=["float64"])
    steps = torch_steps(torch_model(BERT, checkpoint(BERT), "float64"), comparison.labelled["labels"].inputs, 1)
    for _ in steps:
        assert torch.ones(1).float().dtype is torch.get_default_dtype() is torch.float32


def test_a_group_that_ends_in_an_error_is_not_equal(monkeypatch):
    def broken(self, *args, **kwargs):
        raise OSError("no space")

    monkeypatch.setattr(tf_pipeline.TFBertForTokenClassification, "save_pretrained", broken)
    report = compare(checkpoint(BERT), groups=["weights", "round trip"])
    (failure,) = report.failures
    assert failure.group == "round trip" and "no space" in failure.problem
    assert report.finding.check == failure and report.finding.lines()[0].startswith("Error: ")
    assert not report.passed and "does not equal" not in report.verdict
    others = len(report.checks) - 1
    assert f"in full: comparing round trip ended in an error; the other {others} checks passed." in report.verdict
    assert ">Not compared in full<" in html.render(report)
    done = CliRunner().invoke(app, ["parity", str(checkpoint(BERT)), "--only", "weights", "--only", "round trip"])
    printed = " ".join(done.stdout.split())
    assert done.exit_code == 2 and "ended in an error" in printed and "not equal" not in printed
    report.checks.append(judge_float64("x", "s", np.ones(3), np.zeros(3)))
    assert f"does not equal PyTorch: 1 of {others + 1} checks failed, and comparing round trip" in report.verdict


def test_no_gradient_at_all_is_not_equal():
    report = Report()
    comparison = Comparison(checkpoint(BERT), BERT, report, dtypes=["float64"])
    for parameter in comparison.theirs().parameters():
        parameter.data.zero_()
    for variable in comparison.ours().trainable_variables:
        variable.assign(np.zeros(variable.shape))
    comparison.theirs().classifier.bias.requires_grad_(False)
    check_gradients(comparison)
    assert not report.passed


def test_gradients_too_small_to_say_anything_are_named():
    report = compare(checkpoint(BERT), dtypes=["float64"], groups=["gradients"])
    report.raise_if_unequal()
    small = [skip for skip in report.skipped if "not larger than 1e-10" in skip.reason]
    (skip,) = small  # of all kinds of labels together
    assert "key.bias" in skip.what and skip.what.endswith("(labels, labels, no attention_mask)")  # softmax undoes it


def test_what_is_left_out_is_said_once_for_each_reason():
    report = compare(checkpoint(BERT), dtypes=["float64"], groups=["weights", "generation"])
    report.skip("outputs", "this", "It is small.")
    report.skip("training", "that", "It is small.")
    console = Console(width=1000, record=True, file=io.StringIO())
    report.print(console)
    lines = [line.strip() for line in console.export_text().splitlines() if line.startswith("Not compared")]
    names = ", ".join(name for name in GROUPS if name not in ("weights", "generation"))
    assert lines == [
        f"Not compared: {names}: Not asked for.",
        f"Not compared: generation: {BERT} reads whole texts alone.",
        "Not compared: this, that: It is small.",
    ]


def test_many_shapes_are_not_warned_of(caplog):
    logger = tf.get_logger()
    caplog.set_level("WARNING", logger=logger.name)
    logger.addHandler(caplog.handler)
    runner = TensorFlowRunner(Comparison(checkpoint(BERT, num_hidden_layers=1), BERT, Report()).ours())
    for length in range(1, 9):
        runner({"input_ids": np.ones([1, length], int)})
    logger.removeHandler(caplog.handler)
    assert "retracing" not in caplog.text


def test_dtypes_have_to_be_given():
    with pytest.raises(ValueError, match="Give dtypes"):
        compare(checkpoint(BERT), dtypes=[])


def test_a_model_without_dropout_is_said_to_have_none():
    report = Report()
    check_dropout(Comparison(checkpoint(BERT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), BERT, report))
    assert report.passed
    assert [skip.reason for skip in report.skipped if skip.what == "dropout"] == [
        "The config has PyTorch's model drop nothing."
    ]


def dropout_equal(name: str) -> None:
    report = Report()
    check_dropout(Comparison(checkpoint(name), name, report, dtypes=["float64"]))
    report.raise_if_unequal()


CLASSIFIERS = [name for name in REPRESENTATIVES if name.endswith("ForSequenceClassification")]
OTHER_EMBEDDINGS = "TFRobertaModel"  # calls BERT's, which have to be told that they are trained


@pytest.mark.parametrize(
    "name", exhaustive(sorted({*REPRESENTATIVES, OTHER_EMBEDDINGS}), [*CLASSIFIERS, OTHER_EMBEDDINGS])
)
def test_dropout_is_where_pytorch_has_it(name):
    dropout_equal(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*DISTINCT} - {*REPRESENTATIVES, OTHER_EMBEDDINGS}))
def test_dropout_is_where_pytorch_has_it_in_every_class(name):
    dropout_equal(name)


def test_dropout_is_itself_again_after_a_comparison():
    x = torch.ones(1000)
    with as_factors():
        assert torch.nn.functional.dropout(x, 0.25).unique().tolist() == [1.25]
        assert torch.nn.functional.dropout(x, 0.25, training=False).unique().tolist() == [1.0]
    assert 0.0 in torch.nn.functional.dropout(x, 0.25).unique().tolist()


def test_padding_is_left_out_wherever_the_tokens_are():
    """Hidden states of several streams ``[streams, batch, seq, …]``, and attentions, whose heads come between."""
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    states = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    real = states[mask == 1]
    np.testing.assert_array_equal(real_positions("hidden_states.1", states, mask), real)
    streams = np.stack([states, states + 100, states + 200])
    expected = np.stack([real, real + 100, real + 200], axis=1)
    np.testing.assert_array_equal(real_positions("hidden_states.1", streams, mask), expected)
    attentions = np.stack([states, states], axis=1)  # two heads
    np.testing.assert_array_equal(real_positions("attentions.0", attentions, mask), np.stack([real, real], axis=1))
    np.testing.assert_array_equal(real_positions("logits", states[:, 0], mask), states[:, 0])
