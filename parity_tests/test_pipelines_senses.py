"""Pipelines of images and sounds against those of ``transformers``, on the same tiny random checkpoints."""

import base64
import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset

import tf_pipeline
from benchmarks.tiny import tiny_config
from parity_tests.checkpoint_helpers import new_folder
from parity_tests.pipeline_helpers import answer_without_torch, assert_same_answers, torch_pipeline
from parity_tests.sense_helpers import RATE, image, image_checkpoint, sound, sound_checkpoint, sound_file
from parity_tests.tiers import thinned
from tf_pipeline import pipeline
from tf_pipeline.parity import compare
from tf_pipeline.pipelines.media import as_sound, resampled
from tf_pipeline.port import port

NEAR = 2e-5


@cache
def ours(task: str, folder, **options):
    return pipeline(task, model=folder, **options)


@cache
def theirs(task: str, folder):
    return torch_pipeline(task, folder)


def as_bytes(picture) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------------- image-classification

CLASSES = "image-classification"
QUICK_ARGUMENTS = [{}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"top_k": 100, "function_to_apply": "none"}]


@pytest.mark.parametrize("arguments", QUICK_ARGUMENTS, ids=str)
def test_classes_of_images(arguments):
    pictures = [image(seed, 40 + 9 * seed) for seed in range(5)]
    pipe, other = ours(CLASSES, image_checkpoint()), theirs(CLASSES, image_checkpoint())
    expected = [other(picture, **arguments) for picture in pictures]
    assert_same_answers(pipe(pictures, **arguments), expected, NEAR)
    assert_same_answers(pipe(pictures, batch_size=2, **arguments), expected, NEAR)
    assert_same_answers(list(pipe((one for one in pictures), **arguments)), expected, NEAR)
    assert_same_answers(pipe(pictures[0], **arguments), expected[0], NEAR)
    assert pipe.trace_count == 1


SIZES = {"swin": 224}  # several windows


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["vit", "convnext", "dinov2", "clip"])
def test_classes_of_images_by_other_models(model_type):
    folder = image_checkpoint(model_type, size=SIZES.get(model_type, 48))
    pictures = [image(seed) for seed in range(3)]
    expected = theirs(CLASSES, folder)(pictures)
    assert_same_answers(ours(CLASSES, folder)(pictures), expected, NEAR)


def test_an_image_is_read_from_wherever_it_is(tmp_path):
    pipe, picture = ours(CLASSES, image_checkpoint()), image(1)
    path = tmp_path / "cat.png"
    path.write_bytes(as_bytes(picture))
    expected = pipe(picture)
    array = np.asarray(picture)
    encoded = base64.b64encode(as_bytes(picture)).decode()
    for one in (str(path), path, as_bytes(picture), encoded, array, array.transpose(2, 0, 1), tf.constant(array)):
        assert pipe(one) == expected
    assert list(pipe(tf.data.Dataset.from_tensors(array))) == [expected]
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned back when it is read
    turned.save(tmp_path / "turned.png", exif=exif)
    assert pipe(tmp_path / "turned.png") == expected


def test_images_of_several_sizes_keep_their_order():
    pipe = ours(CLASSES, image_checkpoint())
    own = pipeline(CLASSES, model=pipe.model, image_processor=transformers.ViTImageProcessorPil(do_resize=False))
    pictures = [image(0), image(1, 64, 64), image(2), image(3, 64, 64), image(4)]
    torch_model = theirs(CLASSES, image_checkpoint()).model
    other = transformers.pipeline(CLASSES, model=torch_model, image_processor=own.image_processor)
    assert_same_answers(own(pictures), [other(picture) for picture in pictures], NEAR)
    assert own.trace_count == 1


def test_the_stages_one_by_one():
    pipe, picture = ours(CLASSES, image_checkpoint()), image(2)
    encoded = pipe.preprocess(picture)
    assert encoded["pixel_values"].shape == (1, 3, 48, 48)
    outputs = pipe.forward(encoded)
    np.testing.assert_allclose(outputs["logits"], pipe.model(encoded["pixel_values"]).logits, atol=NEAR)
    assert_same_answers(pipe.postprocess(outputs), pipe(picture), NEAR)
    assert "labels=['cat', " in repr(pipe)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ("no-such-file.png", "'no-such-file.png' is no image"),
        (b"no image", "b'no image' is no image"),
        (3, "3 is no image|Inputs are"),
        (np.zeros((2, 5, 5, 3)), r"shape \(2, 5, 5, 3\).* is no image"),
        (np.zeros((0, 5, 3)), r"shape \(0, 5, 3\).* is no image"),
        (np.array([["a"]]), "is no image"),
        ("http://127.0.0.1:9/cat.png", "127.0.0.1:9/cat.png' is no image"),
    ],
    ids=str,
)
def test_what_is_no_image_is_named(wrong, words):
    pipe = ours(CLASSES, image_checkpoint())
    with pytest.raises(ValueError, match=words):
        pipe([wrong], timeout=5)
    answers = list(pipe.stream([image(0), wrong, image(1)], timeout=5))
    assert isinstance(answers[1], ValueError)
    assert_same_answers([answers[0], answers[2]], pipe([image(0), image(1)]), NEAR)


def test_processors_that_are_missing_or_of_no_use():
    pipe = ours(CLASSES, image_checkpoint())
    with pytest.raises(ValueError, match="needs its image processor too: pass image_processor="):
        pipeline(CLASSES, model=pipe.model)
    with pytest.raises(ValueError, match="feature_extractor=.* is not supported: image-classification has inputs"):
        pipeline(CLASSES, model=pipe.model, image_processor=pipe.image_processor, feature_extractor=object())
    with pytest.raises(ValueError, match="image_processor=.* is not supported: text-class"):
        pipeline("text-classification", image_processor=object())
    with pytest.raises(OSError, match="has no image_processor: none of preprocessor_config.json, "):
        pipeline(CLASSES, model=image_checkpoint(), image_processor=_config_folder("vit"))
    with pytest.raises(ValueError, match="image-classification needs image_processor; image_processor is missing"):
        type(pipe)(pipe.model)
    with pytest.raises(ValueError, match="top_k is 0"):
        pipe(image(0), top_k=0)
    with pytest.raises(ValueError, match="function_to_apply 'tanh' is not one of"):
        pipe(image(0), function_to_apply="tanh")


@pytest.mark.slow
def test_a_ported_folder_needs_no_torch(tmp_path):
    pipe, picture = ours(CLASSES, image_checkpoint()), image(3)
    port(image_checkpoint(), tmp_path / "ported", task=CLASSES)
    pipe.save_pretrained(tmp_path / "saved")
    assert pipeline(CLASSES, model=tmp_path / "saved")(picture) == pipe(picture)
    (tmp_path / "cat.png").write_bytes(as_bytes(picture))
    assert_same_answers(answer_without_torch(tmp_path, CLASSES, "cat.png"), pipe(picture), NEAR)


def test_losses_of_images():
    pipe = ours(CLASSES, image_checkpoint())
    pixels = np.random.default_rng(0).normal(size=(3, 3, 48, 48)).astype("float32")
    labels = np.array([1, 0, 6])
    loss = theirs(CLASSES, image_checkpoint()).model(torch.tensor(pixels), torch.tensor(labels)).loss
    got = pipe.model({"pixel_values": pixels, "labels": labels}).loss
    np.testing.assert_allclose(got, loss.detach().numpy(), rtol=1e-5)
    assert type(pipe.model).__name__ == "TFResNetForImageClassification"
    with pytest.raises(ValueError, match="TFAutoModelForImageClassification does not support model_type 'gpt2'"):
        tf_pipeline.TFAutoModelForImageClassification.from_config(transformers.GPT2Config())


# ------------------------------------------------------------------------------------------- image-feature-extraction

FEATURES = "image-feature-extraction"


@pytest.mark.parametrize("model_type", ["vit", *(pytest.param(t, marks=pytest.mark.slow) for t in ("resnet", "swin"))])
def test_features_of_images(model_type):
    folder = image_checkpoint(model_type, "Model", SIZES.get(model_type, 48))
    pipe, other, pictures = ours(FEATURES, folder), theirs(FEATURES, folder), [image(seed) for seed in range(3)]
    assert_near(pipe(pictures), other(pictures))
    assert_near(pipe(pictures[0], pool=True), other(pictures[0], pool=True))
    tensor = pipe(pictures[1], return_tensors=True)
    assert tf.is_tensor(tensor) and tensor.dtype == tf.float32
    assert_near(tensor, other(pictures[1], return_tensors=True).numpy())
    grey = {"image_processor_kwargs": {"do_normalize": False}}
    assert_near(pipe(pictures[2], **grey), other(pictures[2], **grey))
    assert pipe.trace_count == 1


def test_features_of_images_that_do_not_fit():
    pipe = ours(FEATURES, image_checkpoint("vit", "Model"))
    words = r"pixel_values has shape \(1, 3, 40, 50\), but TFViTModel takes \[batch, 3, 48, 48\]"
    with pytest.raises(ValueError, match=words):
        pipe(image(0), image_processor_kwargs={"size": {"height": 40, "width": 50}})
    without = {name: value for name, value in pipe.forward(pipe.preprocess(image(0))).items() if "pool" not in name}
    with pytest.raises(ValueError, match="TFViTModel has no pooler"):
        pipe.postprocess(without, pool=True)


def assert_near(got, expected) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=NEAR * max(1.0, np.abs(expected).max()))


# --------------------------------------------------------------------------------------- automatic-speech-recognition

SPEECH = "automatic-speech-recognition"


@pytest.mark.parametrize(
    "arguments",
    thinned(
        [
            {"chunk_length_s": 0.08, "stride_length_s": 0.02, "return_timestamps": "word"},
            {},
            {"return_timestamps": "char"},
            {"return_timestamps": "word"},
            {"chunk_length_s": 0.1},
            {"chunk_length_s": 0.07, "stride_length_s": (0.01, 0.005)},
        ],
        6,
    ),
    ids=str,
)
def test_texts_of_sounds(arguments):
    pipe, other = ours(SPEECH, sound_checkpoint()), theirs(SPEECH, sound_checkpoint())
    sounds = [sound(0), sound(1), sound(2, 5123), sound(3, 3001), sound(4)]
    expected = [other(one, **arguments) for one in sounds]
    assert all(len(answer["text"]) > 20 for answer in expected)
    assert pipe(sounds, **arguments) == expected
    assert list(pipe(iter(sounds), batch_size=2, **arguments)) == expected
    assert pipe(sounds[2], **arguments) == expected[2]
    assert pipe.trace_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["hubert", "unispeech"])
def test_texts_of_sounds_by_other_models(model_type):
    folder = sound_checkpoint(model_type)
    sounds = [sound(0), sound(1, 5000)]
    arguments = {"return_timestamps": "char"}
    expected = [theirs(SPEECH, folder)(one, **arguments) for one in sounds]
    assert ours(SPEECH, folder)(sounds, **arguments) == expected


def test_a_sound_is_read_from_wherever_it_is():
    pipe, one, path = ours(SPEECH, sound_checkpoint()), sound(1), Path(sound_file(1))
    expected = pipe(one)
    stereo, rate = np.stack([one, one]), {"sampling_rate": RATE}
    for same in (str(path), path, path.read_bytes(), stereo, tf.constant(one), torch.tensor(one), {"raw": one} | rate):
        assert pipe(same) == expected
    assert pipe({"array": one, "path": "a.wav", "speaker": 3} | rate) == expected | {"speaker": [3]}
    assert list(pipe(tf.data.Dataset.from_tensors(one))) == [expected]
    cut = {"raw": one, "sampling_rate": RATE, "stride": (400, 600)}
    assert pipe(cut) == theirs(SPEECH, sound_checkpoint())(cut)


@pytest.mark.parametrize("rate", [8000, 44100, 22050])
def test_sounds_of_other_sampling_rates(rate):
    """A tone far below both limits is the same tone at another rate, but for the ends."""
    tone = lambda rate: np.sin(2 * np.pi * 440 * np.arange(rate // 5) / rate)  # noqa: E731
    got, expected = resampled(tone(rate), rate, RATE), tone(RATE)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got[200:-200], expected[200:-200], atol=2e-3)
    pipe = ours(SPEECH, sound_checkpoint())
    assert pipe({"raw": tone(rate), "sampling_rate": rate}) == pipe(got)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32])
def test_integers_of_another_sampling_rate_do_not_wrap_around(dtype):
    numbers = np.iinfo(dtype)
    wave = np.where(np.arange(8000) // 40 % 2, numbers.max, numbers.min)
    got = as_sound({"array": wave.astype(dtype), "sampling_rate": 8000}, RATE)
    assert got.dtype == np.float32
    np.testing.assert_allclose(
        got, as_sound({"array": wave.astype("f8"), "sampling_rate": 8000}, RATE), rtol=1e-5, atol=1
    )


def test_data_sets_of_pytorch_hold_many_inputs():
    images = [np.asarray(image(seed)) for seed in range(3)]
    pipe = ours("image-classification", image_checkpoint())
    expected = pipe(images)
    for data in (Subset(images, [0, 1, 2]), ConcatDataset([images[:1], images[1:]]), map(torch.tensor, images)):
        assert list(pipe(data)) == expected
    loader = DataLoader(images, batch_size=None)
    assert list(pipe(loader)) == expected
    assert pipe(torch.nn.Parameter(torch.tensor(images[0]).float())) == pipe(images[0].astype("f4"))


@pytest.mark.parametrize(
    "wrong, words",
    [
        ("no-such.wav", "'no-such.wav' is no sound"),
        (b"no sound", "b'no sound' is no sound"),
        (3, "3 is no sound"),
        (np.zeros((9000, 3), "f4"), r"shape \(9000, 3\) is no sound"),
        (np.zeros(3, "f4"), r"input_values has shape \(1, 3\), but TFWav2Vec2ForCTC takes \[batch, \d+ or more\]"),
        ({"raw": np.zeros(9)}, r"got the keys raw"),
        ({"raw": np.zeros(9), "sampling_rate": 0}, "sampling_rate is 0"),
        ("http://127.0.0.1:9/a.wav", "127.0.0.1:9/a.wav' is no sound"),
    ],
    ids=str,
)
def test_what_is_no_sound_is_named(wrong, words):
    pipe = ours(SPEECH, sound_checkpoint())
    with pytest.raises(ValueError, match=words):
        pipe([wrong])
    answers = list(pipe.stream([sound(0), wrong, sound(1)]))
    assert isinstance(answers[1], ValueError) and [answers[0], answers[2]] == pipe([sound(0), sound(1)])


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"return_timestamps": True}, "return_timestamps is True"),
        ({"return_language": True}, "return_language=True is not supported: TFWav2Vec2ForCTC writes by CTC"),
        ({"generate_kwargs": {"num_beams": 2}}, "num_beams=2 is not supported"),
        ({"decoder_kwargs": {"beam_width": 2}}, "decoder_kwargs=.* is not supported"),
        ({"chunk_length_s": 0.1, "stride_length_s": 0.05}, "Chunk length must be superior to stride length"),
        ({"chunk_length_s": -1}, "chunk_length_s is -1"),
        ({"chunk_length_s": 1, "stride_length_s": "a"}, "stride_length_s 'a'"),
        ({"stride_length_s": 1}, "stride_length_s is 1, and there are no pieces: pass chunk_length_s= too"),
    ],
    ids=str,
)
def test_arguments_of_speech_that_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ours(SPEECH, sound_checkpoint())(sound(0), **arguments)


def test_the_stages_of_speech():
    pipe, one = ours(SPEECH, sound_checkpoint()), sound(5)
    pieces = pipe.preprocess(one, chunk_length_s=0.1)
    assert len(pieces) > 2 and pieces[0]["input_values"].shape == (1, 1600)
    assert pipe.postprocess([pipe.forward(piece) for piece in pieces]) == pipe(one, chunk_length_s=0.1)


# ----------------------------------------------------------------------------------------------- audio-classification

HEARD = "audio-classification"


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert"])
@pytest.mark.parametrize("arguments", [{}, {"top_k": 3}, {"function_to_apply": "none"}], ids=str)
def test_classes_of_sounds(model_type, arguments):
    folder = sound_checkpoint(model_type, "ForSequenceClassification")
    pipe, other = ours(HEARD, folder), theirs(HEARD, folder)
    sounds = [sound(0), sound(1, 5000), sound(2)]
    expected = [other(one, **arguments) for one in sounds]
    assert_same_answers(pipe(sounds, **arguments), expected, NEAR)
    assert_same_answers(pipe(sounds[0], **arguments), expected[0], NEAR)
    assert len(pipe(sounds[0], top_k=None)) == 7
    with pytest.raises(ValueError, match="function_to_apply 'tanh' is not one of"):
        pipe(sounds[0], function_to_apply="tanh")


# ---------------------------------------------------------------------------------------------------------- the rest


def test_models_that_read_something_else():
    pipe = ours(CLASSES, image_checkpoint())
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    reader = tf_pipeline.TFAutoModel.from_config(config)
    with pytest.raises(ValueError, match="TFBertModel reads input_ids, .* takes models that read images and nothing"):
        pipeline(CLASSES, model=reader, image_processor=pipe.image_processor)
    with pytest.raises(ValueError, match="does not support model_type 'vit'"):
        pipeline(SPEECH, model=_config_folder("vit"))


def _config_folder(model_type: str):
    folder = new_folder()
    tiny_config(model_type).save_pretrained(folder)
    return folder


def test_parity_compares_no_outputs_of_images():
    folder = image_checkpoint()
    with pytest.raises(ValueError, match="TFResNetForImageClassification reads pixel_values, .* texts alone"):
        compare(folder)
    assert compare(folder, groups=["weights"]).passed
