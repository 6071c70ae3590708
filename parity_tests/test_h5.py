"""Checkpoints that version 4 of ``transformers`` saved for TensorFlow are read, and converted for PyTorch."""

import json
import logging
import shutil
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

import tf_pipeline
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline.cli.main import app
from tf_pipeline.convert import convert
from tf_pipeline.readers import CheckpointError, TensorFlowReader

ARCHIVE = Path(__file__).parent / "data" / "h5.zip"
with zipfile.ZipFile(ARCHIVE) as archive:
    NAMES = sorted({name.partition("/")[0] for name in archive.namelist()})
PORTED = ("TFXLNetForSequenceClassification",)
BERT = "TFBertForMaskedLM"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with a folder for each of ``NAMES``."""
    folder = tmp_path_factory.mktemp("h5")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


def inputs_and_outputs(folder: Path) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(folder / f"{name}.npz")) for name in ("inputs", "outputs")]


def assert_computes(outputs, expected) -> None:
    """Require PyTorch's or our outputs to be those of version 4, to what float32 allows."""
    compared = [name for name in expected if name in outputs]
    assert compared
    for name in compared:
        value = np.asarray(outputs[name].detach() if torch.is_tensor(outputs[name]) else outputs[name])
        np.testing.assert_allclose(value, expected[name], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", thinned([name for name in NAMES if name not in PORTED], 3))
def test_computes_what_version_4_did(saved, name, caplog):
    inputs, expected = inputs_and_outputs(saved / name)
    with caplog.at_level(logging.WARNING):
        model = getattr(tf_pipeline, name.removesuffix(" sharded")).from_pretrained(saved / name)
    assert "random" not in caplog.text and "newly" not in caplog.text
    assert_computes(model(inputs), expected)


@pytest.mark.parametrize("name", exhaustive(NAMES, ["TFBertForMaskedLM sharded", "TFGPT2LMHeadModel"]))
def test_converted_for_pytorch(saved, name, tmp_path):
    result = CliRunner().invoke(app, ["convert", str(saved / name), str(tmp_path / "out")])
    assert result.exit_code == 0 and "tensors, in" in result.stderr, result.output
    inputs, expected = inputs_and_outputs(saved / name)
    torch_class = getattr(transformers, name.removesuffix(" sharded").removeprefix("TF"))
    model, report = torch_class.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    with torch.no_grad():
        outputs = model.eval()(**{key: torch.tensor(value) for key, value in inputs.items()})
    assert_computes(outputs, expected)
    ours = getattr(tf_pipeline, f"TF{torch_class.__name__}", None)
    if ours is not None:
        assert_computes(ours.from_pretrained(tmp_path / "out")(inputs), expected)


def test_safetensors_and_bin_come_first(saved, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(saved / BERT, folder)
    convert(folder, folder)
    with h5py.File(folder / "tf_model.h5", "a") as file:
        file["bert/tf_bert_for_masked_lm/bert/encoder/layer_._0/attention/self/query/kernel:0"][:] = 9
    model = tf_pipeline.TFBertForMaskedLM.from_pretrained(folder)
    inputs, expected = inputs_and_outputs(saved / BERT)
    assert_computes(model(inputs), expected)
    other = tf_pipeline.TFBertForMaskedLM.from_pretrained(folder / "tf_model.h5", config=folder / "config.json")
    assert not np.allclose(other(inputs).logits, expected["logits"], atol=1e-3)


def test_converted_in_place_and_in_shards(saved, tmp_path):
    shutil.copytree(saved / BERT, tmp_path / "one")
    (tmp_path / "one" / "vocab.txt").write_text("mine")
    names = convert(tmp_path / "one", tmp_path / "two", max_shard_size="1KB")
    index = json.loads((tmp_path / "two" / "model.safetensors.index.json").read_text())
    assert sorted(index["weight_map"]) == names and len(set(index["weight_map"].values())) > 2
    assert (tmp_path / "two" / "vocab.txt").read_text() == "mine"
    whole, parts = (transformers.BertForMaskedLM.from_pretrained(path) for path in (
        convert(tmp_path / "one", tmp_path / "one") and tmp_path / "one", tmp_path / "two"
    ))  # fmt: skip
    assert all(torch.equal(value, parts.state_dict()[key]) for key, value in whole.state_dict().items())


@pytest.mark.parametrize("there", ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"])
def test_another_checkpoint_is_kept_unless_asked(saved, tmp_path, there):
    out = tmp_path / "out"
    out.mkdir()
    (out / there).write_text("of another checkpoint")
    command = ["convert", str(saved / BERT), str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and there in result.stderr and "--overwrite" in result.stderr
    with pytest.raises(FileExistsError, match=there):
        convert(saved / BERT, out)
    with pytest.raises(FileExistsError, match=there):
        tf_pipeline.port.port(saved / BERT, out)
    assert CliRunner().invoke(app, ["port", *command[1:]]).exit_code == 1
    assert [path.name for path in out.iterdir()] == [there] and (out / there).read_text() == "of another checkpoint"
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
    assert tf_pipeline.TFBertForMaskedLM.from_pretrained(out)


def test_from_tf_is_accepted(saved):
    model = tf_pipeline.TFAutoModelForMaskedLM.from_pretrained(saved / BERT, from_tf=True)
    assert type(model).__name__ == BERT


def test_a_model_to_port_says_to_convert(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="tf-pipeline convert"):
        tf_pipeline.TFAutoModelForSequenceClassification.from_pretrained(saved / PORTED[0])


OTHER_FILE = Path(tempfile.mkdtemp()) / "other.h5"
with h5py.File(OTHER_FILE, "w") as other:
    other["x"] = np.zeros([2, 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no such file"), "was not written by save_pretrained"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "was not written by save_pretrained|cut off"),
        (lambda path: h5py.File(path, "w").close(), "was not written by save_pretrained"),
        (lambda path: _write(path, {"a/separable/depthwise_kernel:0": np.zeros([3, 2, 1])}), "separable convolution"),
        (lambda path: _write(path, {}), "holds no weights"),
        (lambda path: _write(path, {":0": np.zeros(2)}), ":0 is no name"),
        (lambda path: h5py.File(path, "w").attrs.update(layer_names=5), "was not written by save_pretrained"),
        (lambda path: _write(path, {"a/b/kernel:0": np.array([b"text"])}), "is an array of"),
        (lambda path: _write(path, {"a/b/kernel:0": h5py.ExternalLink(str(OTHER_FILE), "x")}), "is in another file"),
        (lambda path: _write(path, {"a/b/kernel:0": None}), "is in another file"),
        (lambda path: _write(path, {"a/b/kernel:0": "group"}), "is no array"),
    ],
)
def test_files_that_are_none(saved, tmp_path, damage, message):
    shutil.copytree(saved / BERT, tmp_path / "damaged")
    damage(tmp_path / "damaged" / "tf_model.h5")
    with pytest.raises(CheckpointError, match=message):
        tf_pipeline.TFBertForMaskedLM.from_pretrained(tmp_path / "damaged")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "damaged"), str(tmp_path / "out")])
    assert result.exit_code == 1 and not (tmp_path / "out").exists()


def test_names_and_axes(tmp_path):
    values = {
        "model/encoder/layer_._3/conv/kernel:0": np.arange(24.0).reshape(2, 3, 4),
        "model/pre___head/norm/gamma:0": np.ones(3),
        "model/head/norm/moving_mean:0": np.zeros(3),
        "model/attn/c_attn/bias:0": np.arange(3.0)[np.newaxis],
        "final_logits_bias:0": np.arange(3.0)[np.newaxis],
    }
    _write(tmp_path / "tf_model.h5", values)
    reader = TensorFlowReader([tmp_path / "tf_model.h5"])
    assert {key: reader.shape(key) for key in reader} == {
        "encoder.layer.3.conv.weight": (4, 3, 2), "head.norm.weight": (3,), "head.norm.running_mean": (3,),
        "attn.c_attn.bias": (3,), "final_logits_bias": (1, 3),
    }  # fmt: skip
    np.testing.assert_array_equal(
        reader["encoder.layer.3.conv.weight"], values["model/encoder/layer_._3/conv/kernel:0"].transpose(2, 1, 0)
    )


def _write(path: Path, values: dict[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("layer")
        group.attrs["weight_names"] = [name.encode() for name in values]
        for name, value in values.items():
            if value is None:  # bytes of any file
                group.create_dataset(name, (2, 2), "f4", external=[(__file__, 0, 16)])
            elif isinstance(value, str):
                group.create_group(name)
            elif isinstance(value, h5py.ExternalLink):
                group[name] = value
            else:
                group.create_dataset(name, data=value)
        file.attrs["layer_names"] = [b"layer"]
