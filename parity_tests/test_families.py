"""What a family has of its own: each option of its config, each way of counting positions, each kind of head."""

import numpy as np
import pytest

import tf_pipeline
from parity_tests.checkpoint_helpers import (
    assert_same_outputs,
    checkpoint,
    ours,
    run_both,
    twin,
)
from parity_tests.families import FAMILY
from tf_pipeline.parity.inputs import random_inputs
from tf_pipeline.parity.tiny import tiny_config


def honoured(class_name, change, inputs=None, relevant=True):
    """A checkpoint made with the change gives PyTorch's outputs; read without the change, other ones.

    ``relevant=False`` is for changes of the parameters' number or shape, which cannot be read otherwise.
    """
    source = checkpoint(class_name, **change)
    model, expected = (load(class_name, source, dtype="float64") for load in (ours, twin))
    assert_same_outputs(model, expected, inputs)
    if relevant:
        usual = tiny_config(FAMILY[class_name], class_name)
        other = ours(class_name, source, dtype="float64", **{key: getattr(usual, key) for key in change})
        mine, theirs = run_both(other, expected, inputs)
        assert max(np.abs(a - b).max() for a, b in zip(mine, theirs, strict=True)) > 1e-6


def refused(class_name, message, **change):
    with pytest.raises(ValueError, match=message):
        getattr(tf_pipeline, class_name)(tiny_config(FAMILY[class_name], class_name, **change))


def assert_padding_changes_nothing(class_name, side, atol=1e-12, **options):
    """Without any positions given, a padded row is the row alone."""
    model = ours(class_name, checkpoint(class_name, **options), dtype="float64")
    inputs = random_inputs(model, padding=side)
    padded = model(**inputs).last_hidden_state.numpy()
    for row, mask in enumerate(inputs["attention_mask"] != 0):
        alone = {key: value[row : row + 1, mask] for key, value in inputs.items()}
        np.testing.assert_allclose(padded[row, mask], model(**alone).last_hidden_state.numpy()[0], atol=atol)


# ------------------------------------------------------------------------------------------------------- RoBERTa


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("body", ["TFRobertaModel", "TFXLMRobertaModel", "TFCamembertModel"])
def test_positions_skip_padding(body, side):
    assert_padding_changes_nothing(body, side)


@pytest.mark.parametrize("pad", [0, 1, 5])
def test_positions_count_from_the_padding_id(pad):
    honoured("TFRobertaModel", {"pad_token_id": pad}, relevant=pad != 1)


def test_padding_in_the_middle_keeps_its_position():
    source = checkpoint("TFRobertaModel")
    ids = np.array([[1, 7, 1, 1, 9, 4, 1]])
    assert_same_outputs(*(load("TFRobertaModel", source, dtype="float64") for load in (ours, twin)), {"input_ids": ids})


def test_embeddings_are_all_tokens():
    vectors = np.random.default_rng(0).normal(size=(2, 6, 32))
    source = checkpoint("TFRobertaModel")
    model, expected = (load("TFRobertaModel", source, dtype="float64") for load in (ours, twin))
    assert_same_outputs(model, expected, {"inputs_embeds": vectors})


def test_positions_of_padding_are_no_tokens():
    model = ours("TFRobertaModel", checkpoint("TFRobertaModel"))
    assert model.max_length == 46
    assert np.isfinite(model(np.full((1, 46), 5)).last_hidden_state).all()
    with pytest.raises(ValueError, match=r"longer than the 46 positions of TFRobertaModel.*max_length=46"):
        model(np.full((1, 47), 5))


def test_positions_need_a_padding_id():
    refused(
        "TFRobertaModel",
        r"counts positions from pad_token_id \+ 1, but the config's pad_token_id is None",
        pad_token_id=None,
    )


@pytest.mark.parametrize(
    "class_name, change",
    [
        ("TFRobertaModel", {"is_decoder": True}),
        ("TFRobertaModel", {"layer_norm_eps": 0.1}),
        ("TFRobertaModel", {"hidden_act": "relu"}),
        ("TFRobertaForMaskedLM", {"hidden_act": "relu"}),
        ("TFRobertaForSequenceClassification", {"is_decoder": True}),
        ("TFXLMRobertaModel", {"hidden_act": "relu"}),
        ("TFCamembertForCausalLM", {"is_decoder": False}),
    ],
)
def test_roberta_options(class_name, change):
    honoured(class_name, change)


@pytest.mark.parametrize("body", ["TFRobertaModel", "TFXLMRobertaModel", "TFCamembertModel"])
def test_roberta_refuses_cross_attention(body):
    refused(body, rf"{body} does not implement add_cross_attention=True", add_cross_attention=True)


def test_a_head_has_the_body_of_its_family():
    for prefix in ("TFRoberta", "TFXLMRoberta", "TFCamembert"):
        name = f"{prefix}ForTokenClassification"
        model = getattr(tf_pipeline, name)(tiny_config(FAMILY[name], name))
        assert type(model.roberta) is getattr(tf_pipeline, f"{prefix}Model")
