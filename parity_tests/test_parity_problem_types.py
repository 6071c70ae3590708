"""Heads are compared with labels of every kind that they take, and with those that do not count."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tf_pipeline
from parity_tests.checkpoint_helpers import checkpoint
from parity_tests.families import DISTINCT, FAMILY, HEADS, OWN_CLASSES
from parity_tests.test_mutations_families import only_the_verdict  # noqa: F401
from parity_tests.tiers import exhaustive
from tf_pipeline import compare
from tf_pipeline.cli.main import app
from tf_pipeline.parity.inputs import random_inputs
from tf_pipeline.parity.labels import ROWS, all_ignored, configured, labelled_settings

BERT = "TFBertForSequenceClassification"
CLASSIFIERS = [name for name in HEADS if name in OWN_CLASSES and name.endswith("ForSequenceClassification")]
KINDS = [
    (kind, count)
    for kind in (None, "regression", "single_label_classification", "multi_label_classification")
    for count in (1, 2, 3)
    if (kind, count) != ("single_label_classification", 1)  # refused by transformers
]


def losses_equal(name: str, **changes) -> set[str]:
    """Compare outputs and gradients of a class in float64; returns the settings whose loss was compared."""
    source = checkpoint(name, num_hidden_layers=1, **changes)
    report = compare(source, dtypes=["float64"], mode="eager", groups=["outputs", "gradients"])
    report.raise_if_unequal()
    return {check.setting for check in report.checks if check.name == "loss"}


@pytest.mark.parametrize("count", exhaustive([1, 3], [3]))
def test_kinds_of_problems(count):
    kind = "multi_label_classification"
    settings = losses_equal(BERT, problem_type=kind, num_labels=count)
    guessed = {"kind guessed from floats", "kind guessed, all ignored", "class labels", "class labels, all ignored"}
    always = {"multi-label", "multi-label, no attention_mask", "regression", "kind guessed"}
    assert settings == always | (guessed if count > 1 else set())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        *((BERT, *problem) for problem in KINDS),  # of other families they are in test_models.py
        *((name, None, 3) for name in CLASSIFIERS[::4] if name != BERT),
    ],
)
def test_kinds_of_problems_in_every_family(name, kind, count):
    assert len(losses_equal(name, problem_type=kind, num_labels=count)) >= 3


@pytest.mark.slow
def test_command_compares_a_classifier_of_several_labels(tmp_path):
    folder = checkpoint(BERT, problem_type="multi_label_classification", num_labels=3)
    report = tmp_path / "parity.json"
    result = CliRunner().invoke(
        app, ["parity", str(folder), "--only", "outputs", "--dtype", "float64", "--json", str(report)]
    )
    assert result.exit_code == 0, result.output
    losses = {check["setting"] for check in json.loads(report.read_text())["checks"] if check["name"] == "loss"}
    assert {"multi-label", "class labels", "regression"} <= losses


@pytest.mark.parametrize(
    "name",
    exhaustive(
        [name for name in HEADS if name in DISTINCT],
        [
            "TFAlbertForPreTraining", "TFRobertaForSequenceClassification", "TFElectraForMultipleChoice",
            "TFLlamaForCausalLM", "TFBertForTokenClassification", "TFModernBertForQuestionAnswering",
        ],
    ),
)  # fmt: skip
def test_labels_count_and_do_not(name):
    """In every setting something counts, and where labels can be ignored something is."""
    from parity_tests.tiny import tiny_config

    model = getattr(tf_pipeline, name)(tiny_config(FAMILY[name], name, num_hidden_layers=1))
    inputs = random_inputs(model, batch=2)
    settings = labelled_settings(model, inputs)
    assert settings
    for setting, (labelled, changes) in settings.items():
        length = labelled.get("decoder_input_ids", labelled["input_ids"]).shape[-1]
        assert len(labelled["input_ids"]) == ROWS
        for label in model.label_names:
            value = labelled[label]
            if not np.issubdtype(value.dtype, np.integer):
                continue
            ignored = value >= length if label.endswith("_positions") else value == -100
            assert not ignored.all(), (setting, label)
            assert ignored.any() or name.endswith("ElectraForPreTraining"), (setting, label)
        with configured(changes, model):
            assert np.isfinite(model(labelled).loss)
        nothing = all_ignored({label: labelled[label] for label in model.label_names}, length)
        if nothing is not None and "ElectraForPreTraining" not in name:
            with configured(changes, model):
                loss = model(labelled | nothing).loss
            assert np.isnan(loss) or loss == 0


def test_config_is_as_before_whatever_happens():
    """PyTorch writes the kind that it guesses into the config."""
    model, other = (torch.nn.Module() for _ in range(2))
    for part in (model, other):
        part.config = type("Config", (), {"problem_type": None})()
    with pytest.raises(KeyError), configured({"problem_type": "regression"}, model, other):
        model.config.problem_type = "single_label_classification"
        assert other.config.problem_type == "regression"
        raise KeyError
    assert model.config.problem_type is None and other.config.problem_type is None
