"""What a family has of its own: each option of its config, each way of counting positions, each kind of head."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

import tf_pipeline
from parity_tests.checkpoint_helpers import (
    assert_same_outputs,
    assert_same_weights,
    checkpoint,
    edited,
    example_inputs,
    ours,
    run_both,
    twin,
)
from parity_tests.families import FAMILY
from parity_tests.tiers import exhaustive, thinned
from parity_tests.tiny import tiny_config
from tf_pipeline.layers import (
    TruncatedNormal,
    bidirectional_buckets,
    log_buckets,
    relative_positions,
    scores_by_distance,
)
from tf_pipeline.parity.inputs import random_inputs

SIDES = exhaustive(["left", "right"], ["left"])


def honoured(class_name, change, inputs=None, relevant=True):
    """A checkpoint made with the change gives PyTorch's outputs; read without the change, other ones.

    ``relevant=False`` is for changes of the parameters' number or shape, which cannot be read otherwise. One layer
    shows most options; those of ALBERT and ModernBERT say which layer is of which kind.
    """
    layers = {} if class_name.startswith(("TFAlbert", "TFModernBert")) else {"num_hidden_layers": 1}
    source = checkpoint(class_name, **layers | change)
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


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "body",
    exhaustive(
        ["TFRobertaModel", "TFXLMRobertaModel", "TFCamembertModel", "TFMPNetModel"], ["TFRobertaModel", "TFMPNetModel"]
    ),
)
def test_positions_skip_padding(body, side):
    assert_padding_changes_nothing(body, side)


@pytest.mark.parametrize("pad", exhaustive([0, 1, 5], [5]))
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
    exhaustive(
        [
            ("TFRobertaModel", {"is_decoder": True}),
            ("TFRobertaModel", {"layer_norm_eps": 0.1}),
            ("TFRobertaModel", {"hidden_act": "relu"}),
            ("TFRobertaForMaskedLM", {"hidden_act": "relu"}),
            ("TFRobertaForSequenceClassification", {"is_decoder": True}),
            ("TFXLMRobertaModel", {"hidden_act": "relu"}),
            ("TFCamembertForCausalLM", {"is_decoder": False}),
        ],
        [
            ("TFRobertaModel", {"is_decoder": True}),
            ("TFRobertaModel", {"layer_norm_eps": 0.1}),
            ("TFRobertaForMaskedLM", {"hidden_act": "relu"}),
        ],
    ),
)
def test_roberta_options(class_name, change):
    honoured(class_name, change)


@pytest.mark.parametrize("body", thinned(["TFRobertaModel", "TFXLMRobertaModel", "TFCamembertModel"], 3))
def test_roberta_refuses_cross_attention(body):
    refused(body, rf"{body} does not implement add_cross_attention=True", add_cross_attention=True)


def test_a_head_has_the_body_of_its_family():
    for prefix in ("TFRoberta", "TFXLMRoberta", "TFCamembert"):
        name = f"{prefix}ForTokenClassification"
        model = getattr(tf_pipeline, name)(tiny_config(FAMILY[name], name))
        assert type(model.roberta) is getattr(tf_pipeline, f"{prefix}Model")


# ------------------------------------------------------------------------------------------------------- ELECTRA

CHOICES = "TFElectraForMultipleChoice"
DOUBLE = "TFGPT2DoubleHeadsModel"


@pytest.mark.parametrize(
    "class_name, change",
    exhaustive(
        [
            (CHOICES, {"summary_type": "last"}),
            (CHOICES, {"summary_type": "mean"}),
            (CHOICES, {"summary_type": "cls_index"}),
            (CHOICES, {"summary_activation": "gelu"}),
            (CHOICES, {"summary_activation": ""}),
            ("TFElectraForPreTraining", {"hidden_act": "gelu"}),
            ("TFElectraForMaskedLM", {"hidden_act": "gelu"}),
            ("TFElectraForCausalLM", {"is_decoder": False}),
            ("TFElectraModel", {"layer_norm_eps": 0.1}),
        ],
        [
            (CHOICES, {"summary_type": "last"}),
            (CHOICES, {"summary_activation": ""}),
            ("TFElectraForPreTraining", {"hidden_act": "gelu"}),
            ("TFElectraForMaskedLM", {"hidden_act": "gelu"}),
            ("TFElectraModel", {"layer_norm_eps": 0.1}),
        ],
    ),
)
def test_electra_options(class_name, change):
    honoured(class_name, change)


@pytest.mark.parametrize("class_name", exhaustive(["TFElectraModel", "TFElectraForMaskedLM"], ["TFElectraForMaskedLM"]))
def test_electra_embeddings_of_the_hidden_size_are_not_projected(class_name):
    honoured(class_name, {"embedding_size": 32}, relevant=False)
    assert not hasattr(ours(class_name, checkpoint(class_name, embedding_size=32)).base_model, "embeddings_project")


def test_electra_summary_without_projection():
    honoured(CHOICES, {"summary_use_proj": False, "summary_last_dropout": 0.0}, relevant=False)


def test_electra_refusals():
    refused(CHOICES, r"summary_type 'attn' is not one of first, last, cls_index, mean", summary_type="attn")
    refused(CHOICES, "does not implement summary_proj_to_labels=True", summary_proj_to_labels=True)
    refused("TFElectraModel", "does not implement add_cross_attention=True", add_cross_attention=True)


def test_electra_embeddings_have_their_own_size():
    model = ours("TFElectraModel", checkpoint("TFElectraModel"))
    with pytest.raises(ValueError, match=r"inputs_embeds has shape \(1, 2, 32\), but embedding_size is 24"):
        model(inputs_embeds=np.zeros((1, 2, 32), np.float32))


def test_replaced_tokens_are_judged_where_the_mask_shows_them():
    """In fit as in a call: the loss knows the mask, however labels are given."""
    name = "TFElectraForPreTraining"
    model = ours(name, checkpoint(name))
    inputs = {key: value.astype("int32") for key, value in random_inputs(model, labels=True).items()}
    labels = inputs.pop("labels")
    hidden = np.where(inputs["attention_mask"] == 1, labels, 1 - labels)
    model.compile("sgd", run_eagerly=True)
    expected = pytest.approx(float(model(**inputs, labels=labels).loss), rel=1e-5)
    assert float(model(**inputs, labels=hidden).loss) == expected
    assert model.test_on_batch(inputs, labels) == expected
    assert model.test_on_batch(inputs | {"labels": hidden}) == expected
    without = {key: value for key, value in inputs.items() if key != "attention_mask"}
    assert float(model(**without, labels=labels).loss) != expected
    with pytest.raises(ValueError, match=r"attention_mask \[batch, seq\], but it has shape \(5, 13, 13\)"):
        model(**without, attention_mask=np.ones((5, 13, 13), "int32"), labels=labels)


# --------------------------------------------------------------------------------------------------------- GPT-2


@pytest.mark.parametrize(
    "change",
    exhaustive(
        [
            {"summary_type": "last"},
            {"summary_type": "first"},
            {"summary_type": "mean"},
            {"summary_activation": "gelu"},
            {"summary_activation": None},
        ],
        [{"summary_type": "first"}, {"summary_type": "mean"}, {"summary_activation": "gelu"}],
    ),
)
def test_gpt2_summary_options(change):
    """As PyTorch's, which takes the first and the last choice, and the mean of choices, where there are any."""
    honoured(DOUBLE, change, relevant="summary_type" not in change)
    inputs = example_inputs(ours(DOUBLE, checkpoint(DOUBLE, num_hidden_layers=1)))
    places = {"mc_token_ids": np.array([1, 2, 3])}  # by which the last token differs from "cls_index"
    honoured(DOUBLE, change, {name: value[0] for name, value in inputs.items()} | places)


@pytest.mark.parametrize("change", [{"summary_use_proj": False}, {"summary_proj_to_labels": False}])
def test_gpt2_summary_without_scores(change):
    """Choices then have vectors instead of one score."""
    honoured(DOUBLE, change, relevant=False)
    model = ours(DOUBLE, checkpoint(DOUBLE, **change))
    assert model(example_inputs(model)).mc_logits.shape == (2, 3, 32)


def test_gpt2_vocabulary_of_two_heads_untied():
    honoured(DOUBLE, {"tie_word_embeddings": False}, relevant=False)


@pytest.mark.parametrize("key", ["summary_first_dropout", "summary_last_dropout"])
def test_gpt2_summary_dropout(key):
    rates = {"summary_first_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = ours(DOUBLE, checkpoint(DOUBLE, **rates | {key: 0.5}))
    inputs = example_inputs(model)
    plain = model(**inputs)
    keras.utils.set_random_seed(0)
    dropped = model(**inputs, training=True)
    np.testing.assert_array_equal(dropped.logits, plain.logits)
    assert np.any(dropped.mc_logits != plain.mc_logits)


def test_gpt2_refusals():
    refused(DOUBLE, "summary_type 'attn' is not one of first, last, cls_index, mean", summary_type="attn")
    refused(DOUBLE, "summary_first_dropout=1.5, but .* needs a probability", summary_first_dropout=1.5)


# --------------------------------------------------------------------------------------------------------- MPNet


@pytest.mark.parametrize("buckets, farthest", [(32, 128), (20, 50), (64, 300)])
def test_buckets_of_every_distance_are_pytorchs(buckets, farthest):
    distances = np.arange(-600, 601)
    mine = bidirectional_buckets(tf.constant(distances, tf.int32), buckets, farthest).numpy()
    theirs = MPNetEncoder.relative_position_bucket(torch.tensor(distances), buckets, farthest).numpy()
    np.testing.assert_array_equal(mine, theirs)
    assert relative_positions(tf.constant(3)).numpy().tolist() == [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]


def test_relative_positions_far_apart():
    """Sequences beyond the distance from which all fall into one bucket."""
    inputs = {"input_ids": np.random.default_rng(0).integers(2, 99, (1, 300))}
    honoured("TFMPNetModel", {"max_position_embeddings": 302}, inputs, relevant=False)


def test_relative_positions_tell_equal_tokens_apart():
    """Without them, and with the absolute positions all the same, the order of tokens would not matter."""
    model = ours("TFMPNetModel", checkpoint("TFMPNetModel"), dtype="float64")
    ids = np.random.default_rng(0).integers(2, 99, (1, 9))
    position_ids = np.full_like(ids, 5)
    forward, backward = (
        model(given, position_ids=position_ids).last_hidden_state.numpy() for given in (ids, ids[:, ::-1])
    )
    assert np.abs(forward - backward[:, ::-1]).max() > 1e-2


def test_mpnet_pads_with_1_whatever_the_config_says():
    honoured("TFMPNetModel", {"pad_token_id": 7}, {"input_ids": np.array([[1, 7, 1, 7, 9]])}, relevant=False)


def test_mpnet_refusals():
    message = "relative_attention_num_buckets 31 is less than the 32 that MPNet uses"
    refused("TFMPNetModel", message, relative_attention_num_buckets=31)
    refused("TFMPNetModel", "hidden_size 32 is not a multiple of num_attention_heads 5", num_attention_heads=5)
    model = ours("TFMPNetModel", checkpoint("TFMPNetModel"))
    with pytest.raises(ValueError, match="longer than the 46 positions"):
        model(np.full((1, 47), 5))
    with pytest.raises(TypeError, match=r"does not take token_type_ids"):
        model(np.full((1, 4), 5), token_type_ids=np.zeros((1, 4), int))


@pytest.mark.parametrize("class_name", thinned(["TFMPNetForMaskedLM", "TFMPNetForSequenceClassification"], 2))
def test_mpnet_options(class_name):
    honoured(class_name, {"hidden_act": "gelu"})
    honoured(class_name, {"layer_norm_eps": 0.1})


# -------------------------------------------------------------------------------------------------------- ALBERT


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_groups": 2},
        {"num_hidden_groups": 3, "inner_group_num": 1},
        {"num_hidden_groups": 3, "num_hidden_layers": 4},
        {"inner_group_num": 3},
        {"embedding_size": 32},
    ],
    ids=str,
)
@pytest.mark.parametrize("class_name", thinned(["TFAlbertModel", "TFAlbertForMaskedLM"], 2))
def test_albert_groups(class_name, change):
    honoured(class_name, change, relevant=False)


def test_albert_layers_share_their_parameters():
    shared, own = (
        tf_pipeline.TFAlbertModel(tiny_config("albert", "TFAlbertModel", num_hidden_groups=groups)) for groups in (1, 3)
    )
    layers = sum(variable.shape.num_elements() for variable in shared.encoder.albert_layer_groups[0].variables)
    assert own.num_parameters() - shared.num_parameters() == 2 * layers
    assert len(shared(np.full((1, 4), 5), output_hidden_states=True).hidden_states) == 1 + 3 * 2


@pytest.mark.parametrize("class_name", thinned(["TFAlbertForMaskedLM", "TFAlbertForSequenceClassification"], 2))
def test_albert_options(class_name):
    honoured(class_name, {"hidden_act": "gelu"})
    honoured(class_name, {"layer_norm_eps": 0.1})


def test_albert_refusals():
    refused("TFAlbertModel", "hidden_size 32 is not a multiple of num_attention_heads 5", num_attention_heads=5)
    refused("TFAlbertForPreTraining", "does not implement num_labels=5 .*supported: 2", num_labels=5)


# ------------------------------------------------------------------------------------------------------- DeBERTa


@pytest.mark.parametrize("buckets, farthest", [(256, 512), (8, 48), (32, 128), (9, 50), (4, 20), (2, 30), (63, 64)])
def test_logarithmic_buckets_are_pytorchs(buckets, farthest):
    """Of distances up to several times the farthest; what is beyond the last bucket is cut to it in both."""
    distances = np.arange(-2100, 2101)
    mine = log_buckets(tf.constant(distances, tf.int32), buckets, farthest).numpy()
    theirs = make_log_bucket_position(torch.tensor(distances), buckets, farthest).long().numpy()
    np.testing.assert_array_equal(np.clip(mine, -buckets, buckets - 1), np.clip(theirs, -buckets, buckets - 1))


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, None])
def test_scores_by_distance(length, rows):
    scores = np.random.default_rng(0).normal(size=(2, 3, rows or length, 2 * length - 1))
    arranged = scores_by_distance(tf.constant(scores), tf.constant(length)).numpy()
    assert arranged.shape == (2, 3, rows or length, length)
    for i in range(rows or length):
        for j in range(length):
            np.testing.assert_array_equal(arranged[..., i, j], scores[..., i, length - 1 - i + j])


DEBERTA = "TFDebertaV2Model"


@pytest.mark.parametrize(
    "change",
    thinned(
        [
            {"share_att_key": True},
            {"pos_att_type": "c2p"},
            {"pos_att_type": "p2c"},
            {"pos_att_type": "c2p|p2c"},
            {"pos_att_type": None},
            {"pos_att_type": "c2p", "share_att_key": True},
            {"relative_attention": False},
            {"relative_attention": False, "pos_att_type": None},
            {"position_buckets": -1},
            {"position_buckets": -1, "max_relative_positions": 5},
            {"position_buckets": 6},
            {"norm_rel_ebd": "none"},
            {"conv_kernel_size": 0},
            {"conv_kernel_size": 5, "conv_groups": 4},
            {"position_biased_input": True},
            {"type_vocab_size": 0},
            {"embedding_size": 24},
        ],
        3,
    ),
    ids=str,
)
def test_deberta_options_of_structure(change):
    honoured(DEBERTA, change, {"input_ids": np.random.default_rng(0).integers(2, 99, (2, 19))}, relevant=False)
    honoured(DEBERTA, change, relevant=False)  # with a mask


@pytest.mark.parametrize(
    "class_name, change",
    exhaustive(
        [
            (DEBERTA, {"conv_act": "tanh"}),
            (DEBERTA, {"hidden_act": "gelu"}),
            (DEBERTA, {"layer_norm_eps": 0.1}),
            ("TFDebertaV2ForSequenceClassification", {"pooler_hidden_act": "gelu"}),
            ("TFDebertaV2ForMultipleChoice", {"pooler_hidden_act": "gelu"}),
            ("TFDebertaV2ForMaskedLM", {"hidden_act": "gelu"}),
        ],
        [
            (DEBERTA, {"conv_act": "tanh"}),
            (DEBERTA, {"layer_norm_eps": 0.1}),
            ("TFDebertaV2ForSequenceClassification", {"pooler_hidden_act": "gelu"}),
            ("TFDebertaV2ForMaskedLM", {"hidden_act": "gelu"}),
        ],
    ),
)
def test_deberta_options(class_name, change):
    honoured(class_name, change)


def test_deberta_distances_far_apart():
    inputs = {"input_ids": np.random.default_rng(0).integers(2, 99, (2, 60))}
    honoured(DEBERTA, {"max_relative_positions": 20}, inputs)


@pytest.mark.parametrize(
    "change",
    exhaustive(
        [{"legacy": False}, {"embedding_size": 24}, {"legacy": False, "hidden_act": "silu"}],
        [{"embedding_size": 24}, {"legacy": False, "hidden_act": "silu"}],
    ),
)
def test_deberta_masked_lm_heads(change, tmp_path):
    name = "TFDebertaV2ForMaskedLM"
    honoured(name, change, relevant=False)
    model = ours(name, checkpoint(name, num_hidden_layers=1, **change))
    assert hasattr(model, "cls") == model.config.legacy != hasattr(model, "lm_predictions")
    model.save_pretrained(tmp_path)
    assert_same_weights(model, twin(name, tmp_path))


def test_the_last_layer_is_the_first_and_convolves():
    name = "TFDebertaV2ForSequenceClassification"
    model = ours(name, checkpoint(name, num_hidden_layers=1), dtype="float64")
    inputs = random_inputs(model)
    np.testing.assert_allclose(model(**inputs).logits, model(**inputs, output_hidden_states=True).logits, atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
def test_distances_do_not_count_padding(side):
    assert_padding_changes_nothing(DEBERTA, side)
    assert ours(DEBERTA, checkpoint(DEBERTA)).max_length is None


@pytest.mark.parametrize("dropout", [None, 0.3])
def test_deberta_dropout_before_a_classifier(dropout):
    name = "TFDebertaV2ForSequenceClassification"
    model = getattr(tf_pipeline, name)(tiny_config("deberta-v2", name, cls_dropout=dropout, hidden_dropout_prob=0.2))
    assert model.dropout.rate == (0.2 if dropout is None else dropout)


@pytest.mark.parametrize("labels", [[2, -1, 4], [-1, -1, -1], [[0.2, 0.3, 0.1, 0.1, 0.3]] * 3], ids=str)
def test_deberta_labels(labels):
    """Without a problem type, negative labels do not count, and rows of labels are probabilities."""
    name = "TFDebertaV2ForSequenceClassification"
    source = checkpoint(name)
    model, expected = (load(name, source, dtype="float64") for load in (ours, twin))
    inputs = random_inputs(model, batch=3)
    theirs = expected(**{key: torch.tensor(value) for key, value in (inputs | {"labels": labels}).items()}).loss.item()
    # PyTorch takes this loss in float32.
    np.testing.assert_allclose(model(**inputs, labels=np.asarray(labels)).loss, theirs, rtol=1e-6)


def test_keys_of_v3_checkpoints_that_nobody_uses():
    name = "TFDebertaV2ForMaskedLM"

    def add(tensors):
        tensors["deberta.embeddings.position_embeddings.weight"] = torch.zeros(48, 32)
        tensors["mask_predictions.dense.weight"] = torch.zeros(32, 32)

    source = edited(checkpoint(name, legacy=False), add)
    _, report = ours(name, source, output_loading_info=True)
    assert (report.missing, report.unused) == ([], [])
    _, report = ours("TFDebertaV2ForTokenClassification", source, output_loading_info=True)
    assert "lm_predictions.lm_head.bias" in report.unused


def test_deberta_refusals():
    refused(DEBERTA, "hidden_size 32 is not num_attention_heads 5 times attention_head_size 6", num_attention_heads=5)
    refused(DEBERTA, "hidden_size 32 is not num_attention_heads 4 times attention_head_size 7", attention_head_size=7)
    refused(DEBERTA, "convolution over 4 tokens changes the length", conv_kernel_size=4)
    refused(DEBERTA, "32 and 32 features cannot be split into 5 groups", conv_groups=5)
    refused("TFDebertaV2ForMultipleChoice", "pooler_hidden_size 16 is not hidden_size 32", pooler_hidden_size=16)
    refused(
        "TFDebertaV2ForMaskedLM",
        "legacy=False .* embedding_size 24 is not hidden_size 32",
        legacy=False,
        embedding_size=24,
    )
    model = ours(DEBERTA, checkpoint(DEBERTA))
    with pytest.raises(ValueError, match=r"DeBERTa takes an attention_mask \[batch, seq\], not of shape \(1, 4, 4\)"):
        model(np.full((1, 4), 5), attention_mask=np.ones((1, 4, 4), int))
    with pytest.raises(ValueError, match="position_buckets 1 do not fit max_relative_positions 48"):
        getattr(tf_pipeline, DEBERTA)(tiny_config("deberta-v2", DEBERTA, position_buckets=1))(np.full((1, 4), 5))


# ---------------------------------------------------------------------------------------------------- ModernBERT

MODERN, LONG = "TFModernBertModel", {"input_ids": np.random.default_rng(0).integers(2, 99, (2, 40))}


@pytest.mark.parametrize(
    "class_name, change",
    [
        (MODERN, {"norm_bias": True}),
        (MODERN, {"attention_bias": True}),
        (MODERN, {"mlp_bias": True}),
        (MODERN, {"pad_token_id": None}),
        (MODERN, {"layer_types": ["sliding_attention"] * 3}),
        ("TFModernBertForMaskedLM", {"decoder_bias": False}),
        ("TFModernBertForMaskedLM", {"classifier_bias": True}),
        ("TFModernBertForTokenClassification", {"classifier_bias": True, "norm_bias": True}),
    ],
)
def test_modernbert_options_of_structure(class_name, change):
    honoured(class_name, change, relevant=False)


@pytest.mark.parametrize(
    "class_name, change",
    [
        (MODERN, {"local_attention": 2}),
        (MODERN, {"local_attention": 5}),
        (MODERN, {"norm_eps": 0.1}),
        (MODERN, {"hidden_activation": "gelu"}),
        (MODERN, {"layer_types": ["full_attention", "full_attention", "sliding_attention"]}),
        ("TFModernBertForSequenceClassification", {"classifier_activation": "gelu"}),
        ("TFModernBertForSequenceClassification", {"classifier_pooling": "mean"}),
        ("TFModernBertForMultipleChoice", {"classifier_pooling": "mean"}),
    ],
)
def test_modernbert_options(class_name, change):
    honoured(class_name, change)


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_each_kind_of_layer_has_its_own_wavelengths(kind):
    usual = tiny_config("modernbert", MODERN).rope_parameters
    assert usual["full_attention"]["rope_theta"] != usual["sliding_attention"]["rope_theta"]
    source = checkpoint(MODERN)
    change = {"rope_parameters": usual | {kind: {"rope_type": "default", "rope_theta": 7.0}}}
    model, expected = (load(MODERN, source, dtype="float64", **change) for load in (ours, twin))
    assert_same_outputs(model, expected, LONG)
    mine, theirs = run_both(model, twin(MODERN, source, dtype="float64"), LONG)
    assert np.abs(mine[0] - theirs[0]).max() > 1e-6


@pytest.mark.parametrize("padding", SIDES)
@pytest.mark.parametrize("name", thinned(["TFModernBertForSequenceClassification", "TFModernBertForMultipleChoice"], 2))
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_knows_padding(name, pooling, padding):
    model, expected = (
        load(name, checkpoint(name), dtype="float64", classifier_pooling=pooling) for load in (ours, twin)
    )
    assert_same_outputs(model, expected, random_inputs(model, padding=padding))
    inputs = random_inputs(model, padding=None)
    visible = {"attention_mask": np.ones_like(inputs["input_ids"])}
    np.testing.assert_allclose(model(**inputs).logits, model(**inputs, **visible).logits, atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
def test_rotary_positions_do_not_mind_padding(side):
    assert_padding_changes_nothing(MODERN, side, atol=1e-11)


def test_a_window_hides_what_is_far_away():
    """In a single layer of local attention a token sees three on either side, and no more."""
    model = ours(MODERN, checkpoint(MODERN, num_hidden_layers=1, layer_types=["sliding_attention"]), dtype="float64")
    ids = LONG["input_ids"][:1]
    changed = ids.copy()
    changed[0, 20] = 5 if ids[0, 20] != 5 else 6
    difference = np.abs(model(ids)[0].numpy() - model(changed)[0].numpy()).max(axis=(0, 2))
    assert np.flatnonzero(difference > 1e-9).tolist() == list(range(17, 24))


def test_modernbert_takes_any_length():
    model = ours(MODERN, checkpoint(MODERN, max_position_embeddings=10))
    assert model.max_length is None
    assert np.isfinite(model(LONG["input_ids"]).last_hidden_state).all()


def test_modernbert_refusals():
    refused(MODERN, "hidden_size 32 is not a multiple of num_attention_heads 5", num_attention_heads=5)
    refused("TFModernBertForMaskedLM", "does not implement sparse_prediction=True", sparse_prediction=True)
    axial = {"rope_type": "axial", "rope_theta": 9.0}
    rope = {kind: dict(axial) for kind in ("full_attention", "sliding_attention")}
    refused(MODERN, "'full_attention' have rope_type 'axial' .* supported types are default,", rope_parameters=rope)
    name = "TFModernBertForSequenceClassification"
    model = ours(name, checkpoint(name), classifier_pooling="mean")
    with pytest.raises(ValueError, match=r"mean of tokens takes an attention_mask \[batch, seq\], not \(1, 4, 4\)"):
        model(np.full((1, 4), 5), attention_mask=np.ones((1, 4, 4), int))


@pytest.mark.parametrize("cutoff", exhaustive([1.0, 2.0, 3.0], [2.0]))
def test_initial_values_are_cut_off(cutoff):
    keras.utils.set_random_seed(0)
    values = TruncatedNormal(0.1, cutoff)((300, 300)).numpy()
    expected = torch.nn.init.trunc_normal_(torch.empty(300, 300), std=0.1, a=-0.1 * cutoff, b=0.1 * cutoff)
    assert 0.99 * 0.1 * cutoff < np.abs(values).max() <= 0.1 * cutoff * (1 + 1e-6)
    np.testing.assert_allclose(values.std(), expected.std().item(), rtol=0.02)
