"""Ports of models that score texts for images, of which there are as many as a caller likes of each."""

import dataclasses
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

import tf_pipeline
from benchmarks.tiny import tiny_config
from parity_tests.checkpoint_helpers import WITHOUT_TORCH, new_folder
from parity_tests.port_helpers import proven, shared_cache
from parity_tests.sense_helpers import pair_checkpoint, pair_config
from parity_tests.tiers import exhaustive
from tf_pipeline.port import gate, port
from tf_pipeline.port.capture import capture
from tf_pipeline.port.complete import complete
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import Graph
from tf_pipeline.port.mappings import mapping
from tf_pipeline.port.sample import batch_axis, sample_inputs
from tf_pipeline.reference.loading import load_torch_model

TYPES = ["align", "altclip", "blip", "blip-2", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip", "tipsv2"]
OUTPUTS = {
    "logits_per_image": ["images", "texts"], "logits_per_text": ["texts", "images"], "text_embeds": ["texts"],
    "image_embeds": ["images"],
}  # fmt: skip
NEAR = 2e-5


def torch_class(model_type: str) -> type:
    lists = mapping("MODEL_MAPPING_NAMES") | mapping("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES")
    return getattr(transformers, lists[model_type][0])


@cache
def captured_of(model_type: str):
    return capture(torch_class(model_type), pair_config(model_type))


@cache
def models(model_type: str = "clip", dtype: str = "float64"):
    """Our model and PyTorch's of a tiny checkpoint; shared, so nobody changes them."""
    folder = pair_checkpoint(model_type)
    ours = tf_pipeline.TFAutoModelForZeroShotImageClassification.from_pretrained(folder, dtype=dtype)
    return ours, torch_class(model_type).from_pretrained(folder, dtype=torch.float32).to(getattr(torch, dtype)).eval()


def inputs_of(texts: int, images: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Texts of 3 to 9 tokens that end as the tokenizer ends them, and pixels."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, texts)
    ids, mask = rng.integers(3, 300, (texts, 9)), (np.arange(9) < lengths[:, None]).astype("int32")
    ids = np.where(mask == 1, ids, 1)
    ids[np.arange(texts), lengths - 1] = 1
    pixels = rng.normal(size=(images, 3, 32, 32)).astype("float32")
    return {"input_ids": ids.astype("int32"), "attention_mask": mask, "pixel_values": pixels}


def torch_outputs(model, inputs) -> dict[str, np.ndarray]:
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    tensors = {name: x.to(model.dtype) if x.is_floating_point() else x.long() for name, x in tensors.items()}
    with torch.no_grad():
        outputs = model(**tensors)
    return {name: outputs[name].numpy() for name in OUTPUTS}


def check_axes(graph: Graph) -> None:
    """That texts and images are counted by themselves."""
    own = {name: spec.shape[0] for name, spec in graph.inputs.items()}
    assert own.pop("pixel_values") == "images" and set(own.values()) == {"texts"} and "input_ids" in own
    assert graph.limits["texts"] == graph.limits["images"] == [1, None]
    assert list(graph.outputs) == list(OUTPUTS)
    for name, axes in OUTPUTS.items():
        assert graph.by_name[graph.outputs[name][1:]].shape[: len(axes)] == axes


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [*TYPES, "groupvit", "owlvit"])
def test_a_port_takes_any_numbers_of_texts_and_images(model_type):
    captured = captured_of(model_type)
    check_axes(captured.graph)
    assert all(check.passed for check in proven(captured, torch_class(model_type), pair_config(model_type)))


def test_examples_never_have_as_many_images_as_texts():
    config = pair_config("clip", eos_token_id=7)
    model = load_torch_model(torch_class("clip"), None, config, torch.float32)
    numbers = set()
    for batch in (1, 2, 3, 5, 9):
        inputs = sample_inputs(model, config, batch, length=8)
        texts, images = len(inputs["input_ids"]), len(inputs["pixel_values"])
        assert texts == batch != images
        numbers |= {texts, images}
        ends = (inputs["input_ids"] == 7).int()  # which CLIP looks for
        assert ends.sum(1).tolist() == [1] * batch
        assert ends.argmax(1).tolist() == (inputs["attention_mask"].sum(1) - 1).tolist()
    assert 1 in numbers
    assert batch_axis("attention_mask", inputs) == "texts" and batch_axis("pixel_values", inputs) == "images"
    assert batch_axis("decoder_input_ids", ["input_features", "decoder_input_ids"]) == "batch"


def test_a_model_that_reads_texts_alone_is_given_no_images():
    config = tiny_config("flava")
    model = load_torch_model(transformers.FlavaModel, None, config, torch.float32)
    assert "pixel_values" not in sample_inputs(model, config)


@pytest.mark.slow
def test_the_gate_refuses_a_graph_of_other_scores():
    captured, config = captured_of("clip"), pair_config("clip")
    nodes = [
        dataclasses.replace(node, op="aten.neg.default") if node.op == "aten.exp.default" else node
        for node in captured.graph.nodes
    ]
    wrong = dataclasses.replace(captured, graph=dataclasses.replace(captured.graph, nodes=nodes))
    with pytest.raises(PortError, match="does not compute what PyTorch does"):
        gate.check(*complete(wrong, torch_class("clip"), config))


@pytest.mark.parametrize("model_type", exhaustive(["clip", "siglip"], ["clip"]))
@pytest.mark.parametrize("texts, images", [(1, 1), (4, 4), (2, 5), (7, 1)])
def test_outputs_are_those_of_pytorch(model_type, texts, images):
    ours, theirs = models(model_type)
    inputs = inputs_of(texts, images, texts)
    got, expected = ours(inputs), torch_outputs(theirs, inputs)
    assert list(got) == list(OUTPUTS)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-10 * np.abs(value).max())
    compiled = tf.function(ours)({name: tf.constant(value) for name, value in inputs.items()})
    np.testing.assert_allclose(compiled.logits_per_image, got.logits_per_image, rtol=1e-12)


def test_any_auto_class_and_an_export_have_both_inputs(tmp_path):
    ours, _ = models()
    check_axes(ours.graph)
    assert ours.tensor_names == ("input_ids", "attention_mask", "position_ids", "pixel_values")
    assert ours.signal_shapes == {"pixel_values": (None, 3, 32, 32)} and ours.main_input_name == "input_ids"
    body = tf_pipeline.TFAutoModel.from_pretrained(pair_checkpoint(), dtype="float64")
    assert type(body) is type(ours) is tf_pipeline.TFCLIPModel
    inputs = inputs_of(3, 2)
    np.testing.assert_array_equal(body(inputs).logits_per_text, ours(inputs).logits_per_text)
    shapes = {name: spec.shape.as_list() for name, spec in ours.default_signature().items()}
    assert shapes == {"input_ids": [None] * 2, "attention_mask": [None] * 2, "pixel_values": [None, 3, 32, 32]}
    ours.save(tmp_path / "clip.keras")
    again = tf_pipeline.TFCLIPModel.from_pretrained(pair_checkpoint(), dtype="float64")
    again.load_weights(tmp_path / "clip.keras")
    np.testing.assert_array_equal(again(inputs).text_embeds, ours(inputs).text_embeds)


def test_gradients_are_those_of_pytorch():
    ours, theirs = models()
    inputs = inputs_of(3, 2)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(ours(inputs).logits_per_image ** 2)
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    tensors["pixel_values"] = tensors["pixel_values"].double()
    weights = (theirs.visual_projection.weight, theirs.text_projection.weight, theirs.logit_scale)
    expected = torch.autograd.grad((theirs(**tensors).logits_per_image ** 2).sum(), weights)
    own = [layer.value for layer in (ours.visual_projection.weight, ours.text_projection.weight, ours.logit_scale)]
    for got, want in zip(tape.gradient(total, own), expected, strict=True):
        want = want.numpy() if want.ndim == 0 else want.numpy().T
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * np.abs(want).max())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"pixel_values": None}, "TFCLIPModel needs pixel_values too; its processor returns it"),
        ({"input_ids": None}, "Give exactly one of input_ids and inputs_embeds"),
        ({"pixel_values": np.zeros((2, 3, 32, 30))}, r"pixel_values has shape .* takes \[batch, 3, 32, 32\]"),
        ({"pixel_values": np.zeros((3, 32, 32))}, r"pixel_values has shape .* takes \[batch, 3, 32, 32\]"),
        ({"attention_mask": np.ones((2, 9), "int32")}, r"attention_mask has shape \(2, 9\), which does not fit"),
        ({"input_ids": np.full((3, 9), 999)}, "input_ids holds 999, which is outside 0 … .* Do the tokenizer"),
        ({"input_ids": np.full((3, 65), 5), "attention_mask": None}, "longer than the 64 positions of TFCLIPModel"),
    ],
    ids=["no images", "no texts", "size", "one image", "mask", "id", "length"],
)
def test_inputs_that_do_not_fit(change, words):
    inputs = {name: value for name, value in (inputs_of(3, 2) | change).items() if value is not None}
    with pytest.raises(ValueError, match=words):
        models()[0](inputs)


def test_sizes_that_are_known_later_are_checked():
    specs = {name: tf.TensorSpec([None] * value.ndim, value.dtype) for name, value in inputs_of(3, 2).items()}
    specs["pixel_values"] = tf.TensorSpec([None, 3, 32, 32], tf.float32)
    run = tf.function(models()[0], input_signature=[specs])
    inputs = {name: tf.constant(value) for name, value in inputs_of(3, 2).items()}
    assert run(inputs).logits_per_image.shape == (2, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="attention_mask does not fit input_ids"):
        run(inputs | {"attention_mask": tf.ones([2, 9], tf.int32)})


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_a_saved_port_needs_no_torch(model_type, tmp_path):
    port(pair_checkpoint(model_type), tmp_path / "ported", task="zero-shot-image-classification")
    inputs = inputs_of(4, 2)
    np.savez(tmp_path / "inputs.npz", **inputs)
    code = WITHOUT_TORCH + (
        "import numpy as np\n"
        "import tf_pipeline\n"
        "model = tf_pipeline.TFAutoModelForZeroShotImageClassification.from_pretrained('ported')\n"
        "outputs = model(dict(np.load('inputs.npz')))\n"
        "np.savez('outputs.npz', **{name: value.numpy() for name, value in outputs.items()})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = torch_outputs(models(model_type, "float32")[1], inputs)
    for name, value in np.load(tmp_path / "outputs.npz").items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=NEAR * np.abs(expected[name]).max())


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["siglip2", "videoprism"])
def test_models_that_cannot_be_captured_say_so(model_type):
    shared_cache()
    folder = new_folder()
    tiny_config(model_type).save_pretrained(folder)
    config = tf_pipeline.AutoConfig.from_pretrained(folder)
    with pytest.raises(PortError, match="cannot be ported"):
        tf_pipeline.TFAutoModelForZeroShotImageClassification.from_config(config)


def test_types_are_those_that_are_listed():
    listed = mapping("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES")
    assert {*TYPES, "siglip2", "videoprism"} == set(listed)
