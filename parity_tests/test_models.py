"""Every family and head, on random checkpoints, against PyTorch's own classes."""

import numpy as np
import pytest
import tensorflow as tf
from transformers import BertConfig

import tf_pipeline
from parity_tests import families
from parity_tests.tiers import exhaustive
from parity_tests.tiny import TINY_CONFIGS, random_checkpoint
from tf_pipeline.auto import supported_models
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.judging import rules
from tf_pipeline.parity import compare_outputs, run
from tf_pipeline.parity.inputs import random_inputs


def classes(names, quick=families.CLASSES):
    """Parameters of a test of classes and their families, of which those that are not quick are marked slow."""
    pairs = [
        pytest.param(families.FAMILY[name], name, marks=() if name in quick else pytest.mark.slow, id=name)
        for name in names
    ]
    return pytest.mark.parametrize(("family", "name"), pairs)


BODIES = classes(families.BODIES)
PADDINGS = ("right", "left", None)
STAND_INS = [name for name in families.DISTINCT if name in families.STAND_INS]


def _heads_in_modes():
    """Classes, modes and paddings; what is no body of a family of its own has one padding by default."""
    slow = pytest.mark.slow
    for mode, names in (("eager", families.DISTINCT), ("function", families.BODIES)):
        for name in names:
            marks = () if mode == "eager" and name in families.BODIES else slow
            yield pytest.param(families.FAMILY[name], name, mode, PADDINGS, id=f"{name}-{mode}", marks=marks)
    for name in STAND_INS:
        if name not in families.BODIES:
            yield pytest.param(families.FAMILY[name], name, "eager", ("left",), id=f"{name}-left")


HEADS_IN_MODES = pytest.mark.parametrize(("family", "name", "mode", "paddings"), _heads_in_modes())
# Heads differ in what they make of the body's states: of all of these or of the first, of choices, of both.
OWN_HEADS = classes(families.OWN_CLASSES, quick=(*families.BODIES, "TFBertForMultipleChoice", "TFGPT2DoubleHeadsModel"))
FIRST_TOKEN_HEADS = classes(
    families.OWN_CLASSES,
    quick=(
        "TFBertForSequenceClassification", "TFBertForPreTraining", "TFBertForMultipleChoice", "TFAlbertForPreTraining",
        "TFElectraForPreTraining", "TFGPT2DoubleHeadsModel", "TFDebertaV2Model",
    ),
)  # fmt: skip
SOME_BODIES = classes(families.BODIES, quick=("TFAlbertModel", "TFGPT2Model"))


def settings_for(model, paddings=PADDINGS, **options):
    labels = bool(model.label_names)
    return {
        f"{padding} padding" if padding else "no mask": random_inputs(model, padding=padding, labels=labels, **options)
        for padding in paddings
    }


def test_every_family_has_a_tiny_config():
    assert set(TINY_CONFIGS) == set(supported_models())


@HEADS_IN_MODES
def test_heads_equal_torch(family, name, mode, paddings, checkpoint, judge):
    """Hidden states, attentions, logits, loss and gradients at float64; the same but gradients at float32."""
    folder = checkpoint(family, name)
    model = getattr(tf_pipeline, name).from_pretrained(folder)
    report = compare_outputs(
        folder,
        name,
        settings=settings_for(model, paddings),
        mode=mode,
        rms_factor=rules.HARSH_RMS_FACTOR,
        gradients=bool(model.label_names),
    )
    judge(report, f"{family}: random, std 0.2")
    names = {check.name for check in report.checks}
    half = "encoder_" if "encoder_last_hidden_state" in names else ""
    kinds = ("hidden_states.0", "hidden_states.3", "attentions.0", "attentions.2")
    assert {f"{half}{kind}" for kind in kinds} <= names
    if half:
        assert {"decoder_hidden_states.2", "decoder_attentions.1", "cross_attentions.1"} <= names
    if model.label_names:
        assert "loss" in names
        prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
        first = next(key for key, _ in named_slots(model) if key.startswith(prefix))
        assert f"gradient.{first}" in names  # of the word embeddings


@BODIES
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["xla"])
def test_modes_equal_torch(family, name, mode, checkpoint, judge):
    folder = checkpoint(family, name)
    model = getattr(tf_pipeline, name).from_pretrained(folder)
    inputs = {"left padding": random_inputs(model, padding="left", labels=bool(model.label_names))}
    judge(
        compare_outputs(folder, name, settings=inputs, mode=mode, rms_factor=rules.HARSH_RMS_FACTOR),
        f"{family}: {mode}",
    )


@SOME_BODIES
@pytest.mark.parametrize("dtype", exhaustive(["bfloat16", "float16"], ["bfloat16"]))
def test_half_precision_inside_torchs_own_error(family, name, dtype, checkpoint, judge):
    folder = checkpoint(family, name)
    model = getattr(tf_pipeline, name).from_pretrained(folder)
    report = compare_outputs(
        folder,
        name,
        settings=settings_for(model, batch=16),
        dtypes=[dtype],
        mode="eager",
        rms_factor=rules.HARSH_RMS_FACTOR,
    )
    judge(report, f"{family}: {dtype}")


@SOME_BODIES
def test_default_initialisation_stays_in_the_narrow_envelope(family, name, checkpoint, judge):
    folder = checkpoint(family, name, std=0.0)
    model = getattr(tf_pipeline, name).from_pretrained(folder)
    judge(
        compare_outputs(folder, name, settings=settings_for(model), mode="eager"), f"{family}: default initialisation"
    )


@SOME_BODIES
def test_positions_types_and_embeddings_given(family, name, checkpoint, judge):
    folder = checkpoint(family, name)
    model = getattr(tf_pipeline, name).from_pretrained(folder)
    rng = np.random.default_rng(0)
    embedded = random_inputs(model)
    shape = embedded.pop("input_ids").shape
    embedded["inputs_embeds"] = rng.normal(size=(*shape, model.embedding_size))
    positions = random_inputs(model) | {"position_ids": rng.integers(0, model.num_positions or 99, shape)}
    settings = {"position_ids": positions} if "position_ids" in model.tensor_names else {}
    settings |= {
        "inputs_embeds": embedded,
        "longest": random_inputs(model, batch=2, length=model.max_length or 99),
        "one token": random_inputs(model, batch=1, length=1, padding=None),
        "33 rows": random_inputs(model, batch=33, length=5),
    }
    judge(
        compare_outputs(folder, name, settings=settings, mode="eager", rms_factor=rules.HARSH_RMS_FACTOR),
        f"{family}: inputs",
    )


@classes(
    [name for name in families.OWN_CLASSES if getattr(tf_pipeline, name).input_rank == 3],
    quick=["TFGPT2DoubleHeadsModel"],
)
def test_positions_of_choices(family, name, checkpoint, judge):
    folder = checkpoint(family, name)
    model = getattr(tf_pipeline, name).from_pretrained(folder)
    inputs = random_inputs(model)
    limit = model.num_positions or 99
    inputs["position_ids"] = np.random.default_rng(0).integers(0, limit, inputs["input_ids"].shape)
    settings = {"position_ids": inputs}
    judge(
        compare_outputs(folder, name, settings=settings, mode="eager", rms_factor=rules.HARSH_RMS_FACTOR),
        f"{family}: inputs",
    )


@pytest.mark.slow  # those of BERT are in test_parity_problem_types.py, too
@pytest.mark.parametrize(("problem_type", "dtype"), [("regression", float), ("multi_label_classification", float)])
@pytest.mark.parametrize("family", families.OWN_FAMILIES)
def test_losses_of_each_problem_type(family, problem_type, dtype, checkpoint, judge):
    name = next(name for name in supported_models()[family] if name.endswith("ForSequenceClassification"))
    folder = checkpoint(family, name, problem_type=problem_type)
    model = getattr(tf_pipeline, name).from_pretrained(folder)
    inputs = random_inputs(model)
    labels = np.random.default_rng(0).integers(0, 2, (5, 5)).astype(dtype)
    judge(
        compare_outputs(
            folder, name, settings={problem_type: inputs | {"labels": labels}}, mode="eager", gradients=True
        ),
        f"{family}: problem types",
    )


def test_regression_to_one_number(checkpoint, judge):
    folder = checkpoint("bert", "TFBertForSequenceClassification", num_labels=1)
    model = tf_pipeline.TFBertForSequenceClassification.from_pretrained(folder)
    settings = {"regression": random_inputs(model) | {"labels": np.linspace(-1, 1, 5)}}
    judge(
        compare_outputs(folder, "TFBertForSequenceClassification", settings=settings, mode="eager", gradients=True),
        "bert: problem types",
    )


@OWN_HEADS
def test_a_batch_is_its_rows(family, name, checkpoint):
    """Batched equals one by one, and padding on the right changes nothing for real tokens."""
    model = getattr(tf_pipeline, name).from_pretrained(checkpoint(family, name), dtype="float64")
    inputs = random_inputs(model, batch=4)
    together = run.TensorFlowRunner(model, "eager")(inputs)
    for row in range(4):
        mask = inputs["attention_mask"][row : row + 1]
        length = int(mask.sum(-1).max())
        alone = {
            key: value[row : row + 1] if key.startswith(("decoder_", "mc_")) else value[row : row + 1, ..., :length]
            for key, value in inputs.items()
        }
        result = run.TensorFlowRunner(model, "eager")(alone)
        real = mask.reshape(-1, mask.shape[-1])[:, :length] != 0
        for key, value in result.items():
            value, whole = (_by_rows(key, side) for side in (value, together[key]))
            rows = len(value)  # several for the states of multiple choice, whose choices are rows of the body
            whole = _cut(key, whole[row * rows : (row + 1) * rows], mask.shape[-1], length)
            np.testing.assert_allclose(_real(key, whole, real), _real(key, value, real), atol=1e-12)


def _by_rows(key, value):
    """Vectors of tokens of choices, as rows of the body."""
    return value.reshape(-1, *value.shape[2:]) if value.ndim == 4 and "attentions" not in key else value


def _cut(key, value, full, length):
    """Drop the positions beyond ``length`` of ``full`` from the token axes."""
    for axis in (2, 3) if "attentions" in key else (1,):
        if value.ndim > axis and value.shape[axis] == full:
            value = np.take(value, range(length), axis)
    return value


def _real(key, value, rows):
    if "attentions" in key:
        value = np.moveaxis(value, 1, 2)
    return value[rows] if value.shape[:2] == rows.shape else value


@FIRST_TOKEN_HEADS
@pytest.mark.parametrize("padding", exhaustive(["right", "left"], ["left"]))
def test_logits_do_not_depend_on_what_else_is_returned(family, name, padding, checkpoint):
    """Heads that read the first token alone compute no other in the last layer, unless hidden states are asked for."""
    model = getattr(tf_pipeline, name).from_pretrained(checkpoint(family, name), dtype="float64")
    inputs = random_inputs(model, padding=padding, labels=bool(model.label_names))
    plain, full = model(**inputs), model(**inputs, output_hidden_states=True)
    for key in plain.keys() - {"last_hidden_state"}:
        np.testing.assert_allclose(plain[key], full[key], atol=1e-12)


@classes(families.MASKED_LMS, quick=families.MASKED_LMS[::3])
def test_scores_at_some_tokens_alone(family, name, checkpoint):
    model = getattr(tf_pipeline, name).from_pretrained(checkpoint(family, name), dtype="float64")
    inputs = random_inputs(model)
    places = np.random.default_rng(0).integers(0, inputs["input_ids"].shape[1], (5, 3))
    expected = np.take_along_axis(model(**inputs).logits.numpy(), places[..., np.newaxis], 1)
    np.testing.assert_allclose(model(**inputs, mask_positions=places).logits, expected, atol=1e-12)
    with pytest.raises(ValueError, match="leave them out, or mask_positions"):
        model(**inputs, labels=inputs["input_ids"], mask_positions=places)
    for wrong in (-1, 13):
        with pytest.raises(ValueError, match=rf"mask_positions holds {wrong}, .* \(the text has 13 tokens\)"):
            model(**inputs, mask_positions=np.full((5, 1), wrong))


def test_first_token_alone_with_causal_and_square_masks(checkpoint):
    folder = checkpoint("bert", "TFBertForSequenceClassification", is_decoder=True)
    model = tf_pipeline.TFBertForSequenceClassification.from_pretrained(folder, dtype="float64")
    inputs = random_inputs(model)
    square = inputs["attention_mask"][:, None, :] * np.random.default_rng(0).integers(0, 2, (5, 13, 13))
    for mask in (inputs["attention_mask"], square, square[:, None]):
        given = inputs | {"attention_mask": mask}
        plain, full = model(**given), model(**given, output_attentions=True)
        np.testing.assert_allclose(plain.logits, full.logits, atol=1e-12)


@classes(
    [name for name in families.BODIES if name != "TFBartModel"],  # whose positions count padding
    quick=("TFBertModel", "TFGPT2Model", "TFLlamaModel", "TFRobertaModel"),
)
def test_left_padding_with_positions_is_no_padding(family, name, checkpoint):
    """Given positions from the mask, padding changes nothing, whether positions would count it or not."""
    model = getattr(tf_pipeline, name).from_pretrained(checkpoint(family, name), dtype="float64")
    inputs = random_inputs(model, padding="left")
    mask = inputs["attention_mask"]
    if "position_ids" in model.tensor_names:
        inputs["position_ids"] = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    given = inputs.keys() & {"decoder_input_ids"}
    padded = model(**inputs).last_hidden_state.numpy()
    for row in range(len(mask)):
        kept = mask[row] != 0
        alone = {
            key: inputs[key][row : row + 1] if key in given else inputs[key][row : row + 1, kept] for key in inputs
        }
        expected = model(**alone).last_hidden_state.numpy()[0]
        np.testing.assert_allclose(padded[row] if given else padded[row, kept], expected, atol=1e-12)


def test_a_mask_of_ones_is_no_mask(checkpoint):
    model = tf_pipeline.TFBertModel.from_pretrained(checkpoint("bert", "TFBertModel"), dtype="float64")
    ids = random_inputs(model, padding=None)["input_ids"]
    with_mask = model(ids, attention_mask=np.ones_like(ids))
    np.testing.assert_array_equal(with_mask[0].numpy(), model(ids)[0].numpy())


def test_without_its_mask_a_padded_batch_is_wrong(checkpoint):
    """The course's experiment: padding that is attended to changes the result."""
    model = tf_pipeline.TFBertModel.from_pretrained(checkpoint("bert", "TFBertModel"), dtype="float64")
    inputs = random_inputs(model)
    masked = model(**inputs)[0].numpy()
    unmasked = model(inputs["input_ids"], token_type_ids=inputs["token_type_ids"])[0].numpy()
    np.testing.assert_allclose(masked[0], unmasked[0], atol=1e-12)  # the full row
    assert np.abs(masked[1:, 0] - unmasked[1:, 0]).max() > 1e-2


@pytest.mark.parametrize("layers", exhaustive([1, 2, 12], [1]))
def test_hidden_states_at_the_default_width(layers, tmp_path, judge):
    """A BERT of width 768: every hidden state is batch × seq × 768, and equal."""
    config = BertConfig(num_hidden_layers=layers, vocab_size=500)
    random_checkpoint(tmp_path, "TFBertModel", config, std=0.0)
    model = tf_pipeline.TFBertModel.from_pretrained(tmp_path)
    inputs = random_inputs(model, batch=3, length=16)
    outputs = model(**inputs, output_hidden_states=True)
    assert outputs.last_hidden_state.shape == (3, 16, 768)
    assert [state.shape for state in outputs.hidden_states] == [(3, 16, 768)] * (layers + 1)
    report = compare_outputs(tmp_path, "TFBertModel", settings={"right padding": inputs}, mode="eager")
    judge(report, f"bert: {layers} layers of 768")


def test_outputs_are_indexed_three_ways(checkpoint):
    model = tf_pipeline.TFBertForSequenceClassification.from_pretrained(
        checkpoint("bert", "TFBertForSequenceClassification")
    )
    inputs = random_inputs(model, labels=True)
    outputs = model(**inputs)
    assert outputs[0] is outputs.loss is outputs["loss"]
    assert outputs[1] is outputs.logits is outputs["logits"]
    assert outputs.hidden_states is None and list(outputs) == ["loss", "logits"]
    assert isinstance(model(**inputs, return_dict=False), tuple)
    with pytest.raises(AttributeError, match="pooler_output"):
        outputs.pooler_output  # noqa: B018
    assert tf.nest.flatten(outputs)[1] is outputs.logits or len(tf.nest.flatten(outputs)) == 2


@pytest.mark.parametrize("kind", exhaustive([list, tuple], [list]))
def test_inputs_in_a_list(kind, checkpoint):
    model = tf_pipeline.TFBertForSequenceClassification.from_pretrained(
        checkpoint("bert", "TFBertForSequenceClassification")
    )
    inputs = random_inputs(model)
    given = [inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    expected = model(**inputs).logits
    np.testing.assert_array_equal(model(kind(given)).logits, expected)
    np.testing.assert_array_equal(model(kind(map(tf.constant, given))).logits, expected)
    np.testing.assert_array_equal(model(kind(given[:1])).logits, model(given[0]).logits)
    np.testing.assert_array_equal(model(kind(given[0])).logits, model(given[0]).logits)  # rows, not inputs
    np.testing.assert_allclose(model.predict(kind(given), verbose=0)["logits"], expected, atol=1e-5)
    with pytest.raises(TypeError, match="once"):
        model(kind(given), attention_mask=given[1])


def test_inputs_of_choices_in_a_list(checkpoint):
    name = "TFBertForMultipleChoice"
    model = getattr(tf_pipeline, name).from_pretrained(checkpoint("bert", name))
    inputs = random_inputs(model)
    given = [inputs["input_ids"], inputs["attention_mask"]]
    np.testing.assert_array_equal(model(given).logits, model(*given).logits)
    np.testing.assert_array_equal(model(list(given[0])).logits, model(given[0]).logits)
