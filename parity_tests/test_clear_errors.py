"""Bad input is refused in words of this package's own: the value, what is wrong with it, and what is supported."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tensorflow as tf
import torch

import tf_pipeline
from parity_tests.checkpoint_helpers import (
    WEIGHTS,
    assert_same_outputs,
    checkpoint,
    copied,
    edited,
    example_inputs,
    ours,
    twin,
    weights,
)
from parity_tests.families import FOLLOWERS, MODELS
from parity_tests.test_arguments import HEADS, INPUTS, TEXT, folder_of
from parity_tests.test_arguments import ours as pipe_of
from tf_pipeline import pipeline
from tf_pipeline.checkpoint import CheckpointError
from tf_pipeline.parity import compare_outputs
from tf_pipeline.parity.inputs import random_inputs
from tf_pipeline.pipelines.tasks import TASKS

BODY, CLASSIFIER = "TFBertModel", "TFBertForSequenceClassification"
INDEX = "model.safetensors.index.json"


def with_text(source: Path, name: str, text: str) -> Path:
    """A copy of a folder with another text in a file."""
    folder = copied(source, *([WEIGHTS] if name == INDEX else []))
    (folder / name).write_text(text)
    return folder


# ------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize("heads", [0, -1, -4])
@pytest.mark.parametrize("class_name", [BODY, "TFDistilBertModel", "TFAlbertModel", "TFModernBertModel"])
def test_sizes_that_are_not_positive(class_name, heads):
    key = "n_heads" if "Distil" in class_name else "num_attention_heads"
    with pytest.raises(ValueError, match=rf"has {key}={heads}, but {class_name} needs a number of at least 1"):
        ours(class_name, edited(checkpoint(class_name), **{key: heads}))


@pytest.mark.parametrize("names", [{0: "a", 7: "b"}, {1: "a", 2: "b"}])
@pytest.mark.parametrize("class_name", [CLASSIFIER, "TFBertForTokenClassification"])
def test_labels_without_names(class_name, names):
    with pytest.raises(ValueError, match=rf"id2label of the config names the labels \[{min(names)}, {max(names)}\]"):
        ours(class_name, edited(checkpoint(class_name), id2label=names, label2id=None))
    ours(BODY, edited(checkpoint(BODY), id2label=names))  # a body has no labels


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "", "{", '{"a":' * 100_000, "\udcff"])
def test_a_config_that_is_no_object(text):
    folder = copied(checkpoint(BODY))
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        OSError, match=rf"{folder}/config\.json (holds .* rather than a JSON object|is not a valid JSON)"
    ):
        tf_pipeline.TFAutoModel.from_pretrained(folder)


@pytest.mark.parametrize("key, value", [("num_attention_heads", "4"), ("vocab_size", None), ("id2label", ["a"])])
def test_a_value_of_another_kind(key, value):
    folder = edited(checkpoint(BODY), **{key: value})
    with pytest.raises(ValueError, match=rf"{folder}/config\.json has {key}=.*, which its architecture does not take"):
        tf_pipeline.TFAutoModel.from_pretrained(folder)


@pytest.mark.parametrize("family", sorted(set(MODELS) - {"deberta-v2", "modernbert", "t5", "mt5", "bart", *FOLLOWERS}))
def test_a_body_of_no_layers(family):
    body = MODELS[family][0]
    source = checkpoint(body, **{"n_layers" if family == "distilbert" else "num_hidden_layers": 0})
    model, torch_model = ours(body, source, dtype="float64"), twin(body, source, dtype="float64")
    assert_same_outputs(model, torch_model)
    ids = example_inputs(model)
    states = torch_model(**{name: torch.tensor(x) for name, x in ids.items()}, output_hidden_states=True).hidden_states
    assert len(model(ids, output_hidden_states=True).hidden_states) == len(states) == (family == "mpnet")


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        *((body, ("num_layers", "num_decoder_layers")) for body in ("TFT5Model", "TFMT5Model")),
        ("TFBartModel", ("encoder_layers", "decoder_layers")),
    ],
)
def test_an_encoder_decoder_of_no_layers(body, counts):
    source = checkpoint(body, **dict.fromkeys(counts, 0))
    inputs = random_inputs(ours(body, source))
    report = compare_outputs(source, body, settings={"right padding": inputs}, dtypes=["float64"], mode="eager")
    report.raise_if_unequal()
    assert {"last_hidden_state", "encoder_last_hidden_state"} <= {check.name for check in report.checks}


def test_no_layers_where_pytorch_fails():
    with pytest.raises(ValueError, match="num_hidden_layers=0, but TFDebertaV2Model needs a number of at least 1"):
        tf_pipeline.TFAutoModel.from_pretrained(edited(checkpoint("TFDebertaV2Model"), num_hidden_layers=0))


# -------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", [3, None, [], {}, ""])
def test_an_index_names_files(name):
    folder = with_text(checkpoint(BODY), INDEX, json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=rf"{folder}/{INDEX} is not an index of shards: it names .* as a file"):
        ours(BODY, folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..\\x", "C:\\x"])
def test_an_index_names_only_files_of_its_folder(name):
    folder = with_text(checkpoint(BODY), INDEX, json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=r"the files of an index are in its own folder"):
        ours(BODY, folder)


def test_links_of_an_index(tmp_path):
    """Out of the folder they are refused; the hub's cache has its files in another folder, and is read."""
    source = checkpoint(BODY)
    keys = json.dumps({"weight_map": {"a": "a.safetensors"}})
    folder = with_text(source, INDEX, keys)
    (folder / "a.safetensors").symlink_to(source / WEIGHTS)
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors, which .* names, is a link out of the checkpoint's folder"
    ):
        ours(BODY, folder)
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "f00", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (snapshot / INDEX).write_text(keys)
    (blobs / "123").write_bytes((source / WEIGHTS).read_bytes())
    (snapshot / "a.safetensors").symlink_to("../../blobs/123")
    (snapshot / "config.json").write_text((source / "config.json").read_text())
    for key, value in weights(ours(BODY, source)).items():
        np.testing.assert_array_equal(weights(ours(BODY, snapshot))[key], value)


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_float8_is_read_exactly(dtype, kind):
    folder = copied(checkpoint(BODY))
    state = safetensors.torch.load_file(folder / WEIGHTS)
    state = {key: value.to(getattr(torch, dtype)) for key, value in state.items()}
    if kind == "bin":
        (folder / WEIGHTS).unlink()
        torch.save(state, folder / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(state, folder / WEIGHTS)
    for key, value in weights(ours(BODY, folder)).items():
        np.testing.assert_array_equal(value, state[key].float().numpy(), err_msg=key)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda x: x.to_sparse(), "a tensor of layout torch.sparse_coo"),
        (lambda x: x.to("meta"), "a tensor without values"),
        (lambda x: {"a": x}, "a dict"),
        (lambda x: None, "a NoneType"),
    ],
)
def test_what_is_no_dense_tensor(edit, words):
    folder = copied(checkpoint(BODY), WEIGHTS)
    state = safetensors.torch.load_file(checkpoint(BODY) / WEIGHTS)
    state["pooler.dense.bias"] = edit(state["pooler.dense.bias"])
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError,
        match=rf"{folder}/pytorch_model.bin is not a state dict.* holds {words}.* under 'pooler.dense.bias'",
    ):
        ours(BODY, folder)


def test_a_compressed_archive_is_not_unpacked():
    folder = copied(checkpoint(BODY), WEIGHTS)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("archive/data.pkl", bytes(2**24))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a compressed archive"):
        ours(BODY, folder)


def test_two_shards_with_one_tensor():
    source = checkpoint(BODY)
    folder = with_text(source, INDEX, json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes((source / WEIGHTS).read_bytes())
    with pytest.raises(
        CheckpointError, match=r"b\.safetensors has \['embeddings.LayerNorm.bias', .* other shards have too"
    ):
        ours(BODY, folder)


# -------------------------------------------------------------------------------------------------------- calls


def test_bytes_and_string_tensors_are_texts():
    pipe = pipe_of("text-classification")
    assert pipe(TEXT.encode()) == pipe(tf.constant(TEXT)) == pipe(TEXT)
    assert pipe(TEXT.encode(), top_k=None) == pipe(TEXT, top_k=None)
    with pytest.raises(ValueError, match=r"The bytes b'\\xff' are not a text in UTF-8"):
        pipe(b"\xff")


@pytest.mark.parametrize(
    "given, words",
    [
        ({"max_length": -5}, "max_length is -5, but has to be a whole number of at least 1"),
        ({"max_length": "9"}, "max_length is '9', but has to be a whole number"),
        ({"stride": -1}, "stride is -1, but has to be a whole number of at least 0"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of is 0"),
        ({"pad_to_multiple_of": 100}, "pad_to_multiple_of=100 pads to 100, but TFBert.* takes at most 64"),
        ({"add_special_tokens": "x"}, "add_special_tokens is 'x', but has to be True or False"),
        ({"return_overflowing_tokens": True}, "return_overflowing_tokens=True is not supported"),
        ({"is_split_into_words": True}, "only token-classification takes words"),
    ],
)
def test_arguments_of_the_tokenizer_out_of_range(given, words):
    with pytest.raises(ValueError, match=words):
        pipe_of("text-classification")(TEXT, **given)
    with pytest.raises(ValueError, match=words):
        pipe_of("feature-extraction")(TEXT, tokenize_kwargs=given)


@pytest.mark.parametrize("template", ["{} {}", "{label}", "{", "no label", "{0} {1}", 3, None])
def test_a_template_takes_one_label(template):
    with pytest.raises(ValueError, match="hypothesis_template .* was not able to be formatted"):
        pipe_of("zero-shot-classification")(TEXT, ["a"], hypothesis_template=template)


SPOILT = {
    "bert.encoder.layer.1.output.LayerNorm.bias", "encoder.layer.1.output.LayerNorm.bias",
    "transformer.h.1.mlp.c_proj.bias", "decoder.final_layer_norm.weight",
}  # fmt: skip


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_nan_says_so(task, value):
    def spoil(tensors):
        for key in SPOILT & tensors.keys():
            tensors[key][:] = value

    folder = edited(folder_of(task), spoil)
    pipe = pipeline(task, model=folder, tokenizer=str(folder_of(task)))
    inputs = INPUTS.get(task, (TEXT,))
    with pytest.raises(ValueError, match=rf"{HEADS[task]} gives (NaN|infinity) for this text"):
        pipe(*inputs)


def test_keras_adds_nothing_to_a_message():
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER))
    for call in (
        lambda: model(np.full((1, 50), 5)),
        lambda: model(np.full((1, 5), 500)),
        lambda: model(np.full(5, 5)),
        lambda: model({"attention_mask": np.ones((1, 5))}),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert "Exception encountered" not in str(caught.value) and "\x1b" not in str(caught.value)
        assert "Arguments received" not in str(caught.value)
