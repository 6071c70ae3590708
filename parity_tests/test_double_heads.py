"""GPT-2 with two heads: texts with and without choices, places of tokens, two losses, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import tf_pipeline
from parity_tests.checkpoint_helpers import assert_same_outputs, checkpoint, ours, twin
from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from parity_tests.tiers import exhaustive
from tf_pipeline.parity.inputs import random_inputs
from tf_pipeline.pipelines import pipeline

NAME = "TFGPT2DoubleHeadsModel"


@pytest.fixture(scope="module")
def models():
    """Ours and PyTorch's, in float64, from one checkpoint."""
    return tuple(load(NAME, checkpoint(NAME), dtype="float64") for load in (ours, twin))


@pytest.fixture(scope="module")
def given(models):
    """Padded texts ``[5, 3, 13]`` with labels."""
    return random_inputs(models[0], labels=True)


def first_text(given):
    """The choices of the first text as texts of their own, of which the third is right."""
    return {name: value[0] for name, value in given.items() if name != "mc_labels"} | {"mc_labels": np.array([2])}


def test_texts_without_choices(models, given):
    inputs = first_text(given)
    assert models[0](**inputs).mc_logits.shape == (3,)
    assert_same_outputs(*models, inputs)
    assert_same_outputs(*models, {name: inputs[name] for name in ("input_ids", "attention_mask")})


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_last_token_is_read_by_default_if_it_is_padding_too(models, side):
    model = models[0]
    inputs = random_inputs(model, padding=side)
    del inputs["mc_token_ids"]
    assert_same_outputs(*models, inputs)
    scores = model(**inputs, mc_token_ids=np.full((5, 3), 12)).mc_logits
    np.testing.assert_array_equal(model(**inputs).mc_logits, scores)


@pytest.mark.parametrize("has_choices", [True, False])
def test_embeddings_of_texts_are_what_their_ids_are(models, given, has_choices):
    inputs = dict(given) if has_choices else first_text(given)
    expected = models[0](**inputs)
    inputs["inputs_embeds"] = tf.gather(models[0].transformer.wte.table(), inputs.pop("input_ids"))
    for name, value in models[0](**inputs).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-12)


@pytest.mark.parametrize("name", exhaustive(["TFBertForMultipleChoice", NAME], ["TFBertForMultipleChoice"]))
def test_positions_may_be_one_row_for_all(name):
    model = ours(name, checkpoint(name), dtype="float64")
    inputs, scores = random_inputs(model), {"TFBertForMultipleChoice": "logits", NAME: "mc_logits"}[name]
    for shape in ((1, 3, 13), (1, 1, 13)):
        row = np.random.default_rng(1).integers(0, 48, shape)
        every = model(**inputs, position_ids=np.broadcast_to(row, (5, 3, 13)))
        np.testing.assert_array_equal(model(**inputs, position_ids=row)[scores], every[scores])


def test_a_cache_of_choices(models, given):
    model, inputs = models[0], {name: given[name] for name in ("input_ids", "attention_mask")}
    whole = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in whole.hidden_states] == [(15, 13, 32)] * 3 + [(5, 3, 13, 32)]
    first = model(inputs["input_ids"][..., :8], attention_mask=inputs["attention_mask"][..., :8], use_cache=True)
    assert first.past_key_values.layers[0].keys.shape == (15, 4, 8, 8)
    rest = inputs | {"input_ids": inputs["input_ids"][..., 8:]}
    second = model(**rest, past_key_values=first.past_key_values)
    np.testing.assert_allclose(second.logits, whole.logits[..., 8:, :], atol=1e-12)
    np.testing.assert_allclose(second.mc_logits, whole.mc_logits, atol=1e-12)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a column for each token of past_key_values"):
        model(
            rest["input_ids"],
            attention_mask=given["attention_mask"][..., :5],
            past_key_values=first.past_key_values,
        )


def test_texts_are_continued_as_by_pytorch(models):
    inputs = {name: value[0] for name, value in random_inputs(models[0], padding="left").items()}
    prompts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 5, "do_sample": False}
    theirs = models[1].generate(**{name: torch.tensor(value) for name, value in prompts.items()}, **options)
    np.testing.assert_array_equal(models[0].generate(**prompts, **options), theirs)


def test_each_kind_of_labels_has_its_loss(models, given):
    tensors = {name: value for name, value in given.items() if not name.endswith("labels")}
    words, choice = {"labels": given["labels"]}, {"mc_labels": given["mc_labels"]}
    both = models[0](**tensors, **words, **choice)
    assert list(both) == ["loss", "mc_loss", "logits", "mc_logits"]
    assert models[0](**given, return_dict=False)[1] == both.mc_loss
    for labels, name, missing in ((words, "loss", "mc_loss"), (choice, "mc_loss", "loss")):
        outputs = models[0](**tensors, **labels)
        assert outputs[name] == both[name] and missing not in outputs


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of the head whose labels are left out
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("labels",), marks=pytest.mark.slow),
        pytest.param(("mc_labels",), marks=pytest.mark.slow),
        ("labels", "mc_labels"),
    ],
)
def test_fit_takes_the_sum_of_the_losses(kinds):
    model = tiny_model(NAME)
    inputs, labels = tiny_inputs(model), {name: tiny_labels(model)[name] for name in kinds}
    outputs = model(**inputs, **labels)
    expected = sum(float(outputs[name]) for name in ("loss", "mc_loss") if name in outputs)
    model.compile(keras.optimizers.SGD(0.05))
    for x, y in ((inputs | labels, None), (inputs, labels)):
        assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert model.fit(inputs | labels, verbose=0).history["loss"] == [pytest.approx(expected, rel=1e-5)]
    assert model.evaluate(inputs | labels, verbose=0) < expected


def torch_losses(outputs, labels, **options):
    """PyTorch's cross entropies of both heads, and their labels."""
    for logits, targets in (
        (outputs.logits[..., :-1, :], labels["labels"][..., 1:]),
        (outputs.mc_logits, labels["mc_labels"]),
    ):
        rows = torch.tensor(np.asarray(logits)).reshape(-1, logits.shape[-1])
        each = torch.nn.functional.cross_entropy(rows, torch.tensor(targets.reshape(-1)).long(), **options)
        yield each.numpy(), targets


def test_weights_of_texts_weigh_both_losses():
    model, weights = tiny_model(NAME), np.array([0.0, 2.0, 0.5, 1.0], "float32")
    inputs, labels = tiny_inputs(model), tiny_labels(model)
    expected = sum(
        float((each.reshape(4, -1) * weights[:, None]).sum() / (targets != -100).sum())
        for each, targets in torch_losses(model(inputs), labels, reduction="none")
    )
    model.compile("sgd", run_eagerly=True)
    assert model.test_on_batch(inputs, labels, sample_weight=weights) == pytest.approx(expected, rel=1e-5)


def test_both_kinds_of_labels_are_smoothed():
    model = tiny_model(NAME)
    inputs, labels = tiny_inputs(model), tiny_labels(model)
    expected = sum(float(loss) for loss, _ in torch_losses(model(inputs), labels, label_smoothing=0.2))
    model.compile("sgd", label_smoothing=0.2, run_eagerly=True)
    assert model.test_on_batch(inputs, labels) == pytest.approx(expected, rel=1e-5)


def test_the_config_has_one_label():
    model = tiny_model(NAME, num_labels=5)
    assert model.config.num_labels == 1 and model.multiple_choice_head.summary.weights[0].shape == (32, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mc_token_ids": np.zeros((5, 3))}, "mc_token_ids has dtype float64, but places are integers"),
        ({"mc_token_ids": np.zeros((5, 2), int)}, r"mc_token_ids has shape \(5, 2\), but .* one place for each text"),
        ({"mc_token_ids": np.zeros(5, int)}, r"mc_token_ids has shape \(5,\), but input_ids of shape \(5, 3, 13\)"),
        ({"mc_token_ids": np.full((5, 3), 13)}, r"mc_token_ids holds 13, .* 0 … 12 \(the text has 13 tokens\)"),
        ({"mc_token_ids": np.full((5, 3), -1)}, "mc_token_ids holds -1"),
        ({"mc_labels": np.full(5, 3)}, "mc_labels holds 3, which is outside 0 … 2"),
        ({"attention_mask": np.ones((5, 13), int)}, r"attention_mask has shape .* takes \[batch, choices, seq\]"),
        ({"input_ids": np.ones(13, int)}, r"takes \[batch, choices, seq\]"),
        ({"input_ids": np.ones((5, 13), int)}, r"attention_mask has shape \(5, 3, 13\)"),
        ({"input_ids": np.ones((5, 3, 49), int), "attention_mask": None}, "longer than the 48 positions"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(models, given, change, message):
    tensors = {name: given[name] for name in ("input_ids", "attention_mask")} | change
    with pytest.raises(ValueError, match=message):
        models[0](**tensors)


def test_places_that_do_not_fit_are_refused_in_a_graph(models):
    specs = [tf.TensorSpec([None] * 3, tf.int32), tf.TensorSpec([None] * 2, tf.int32)]
    call = tf.function(lambda ids, places: models[0](ids, mc_token_ids=places).mc_logits, input_signature=specs)
    ids = np.full((2, 3, 5), 7, "int32")
    places = np.array([[0, 1, 2], [4, 3, 2]], "int32")
    np.testing.assert_allclose(call(ids, places), models[0](ids, mc_token_ids=places).mc_logits, atol=1e-12)
    with pytest.raises(tf.errors.InvalidArgumentError, match="mc_token_ids does not fit input_ids"):
        call(ids, places[:, :2])
    specs = [tf.TensorSpec(None, tf.int32)]
    unknown = tf.function(lambda places: models[0](ids, mc_token_ids=places), input_signature=specs)
    with pytest.raises(ValueError, match=r"mc_token_ids has no known rank; .*\[None, None\]"):
        unknown(places)


def test_it_is_for_no_task_and_no_auto_class(models):
    with pytest.raises(ValueError, match="GPT2DoubleHeadsModel does not tell the task; name one"):
        pipeline(model=str(checkpoint(NAME)))
    with pytest.raises(ValueError, match="not for .*: that needs TFGPT2LMHeadModel"):
        tf_pipeline.TFAutoModelForCausalLM.check_head(models[0], "text-generation")
    with pytest.raises(ValueError, match="a model of another architecture"):
        tf_pipeline.TFAutoModelForMultipleChoice.check_head(models[0], "choosing")
    with pytest.raises(ValueError, match="does not support model_type 'gpt2'"):
        tf_pipeline.TFAutoModelForMultipleChoice.from_pretrained(checkpoint(NAME))
