"""Checkpoints whose keys are not the names of PyTorch's attributes: renamed, joined and split tensors."""

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import tf_pipeline
from parity_tests.checkpoint_helpers import WEIGHTS, WITHOUT_TORCH, copied, edited, new_folder
from parity_tests.port_helpers import checkpoint, shared_cache, torch_name, use_cache_of
from parity_tests.tiers import exhaustive
from tf_pipeline.checkpoint import CheckpointError, named_slots, open_checkpoint
from tf_pipeline.port import find, gate
from tf_pipeline.port.errors import PortError

CAUSAL, MASKED = "TFAutoModelForCausalLM", "TFAutoModelForMaskedLM"
TOKENS = "TFAutoModelForTokenClassification"
# A head of another name, tied and not; experts that are joined; projections that are split; prefixes; nothing renamed;
# positions that are stored.
RENAMED = exhaustive(
    [
        ("gpt_neox", CAUSAL), ("esm", MASKED), ("mixtral", CAUSAL), ("umt5", "TFAutoModelForSeq2SeqLM"),
        ("mra", "TFAutoModel"),
    ],
    [("gpt_neox", CAUSAL)],
)  # fmt: skip
TRAINED = [("gpt_neox", CAUSAL), ("mixtral", CAUSAL)]
IDS = np.arange(5, 15)[np.newaxis]


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


@cache
def loaded(model_type: str, auto: str):
    """Our model and PyTorch's of one checkpoint."""
    folder = checkpoint(model_type, auto)
    return getattr(tf_pipeline, auto).from_pretrained(folder), twin(folder, auto)


def twin(folder: Path, auto: str):
    config = transformers.AutoConfig.from_pretrained(folder)
    torch_class = getattr(transformers, torch_name(config, auto))
    model, report = torch_class.from_pretrained(folder, output_loading_info=True)
    return model.eval(), {key: value for key, value in report.items() if value}


def inputs_of(model) -> dict[str, np.ndarray]:
    return {"input_ids": IDS} | ({"decoder_input_ids": IDS[:, :4]} if "decoder_input_ids" in model.graph.inputs else {})


def assert_same_outputs(model, torch_model) -> None:
    inputs = inputs_of(model)
    with torch.no_grad():
        theirs = torch_model(**{name: torch.from_numpy(value) for name, value in inputs.items()})[0].numpy()
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(model(**inputs)[0].numpy(), theirs, atol=2e-5 * scale, rtol=0)


def assert_same_files(ours: Path, theirs: Path) -> None:
    mine, others = open_checkpoint(ours), open_checkpoint(theirs)
    assert set(mine) == set(others)
    for name in others:
        assert mine.dtype(name) == others.dtype(name), name
        assert mine[name].shape == others[name].shape, name
        assert mine[name].tobytes() == others[name].tobytes(), name


@pytest.mark.parametrize(("model_type", "auto"), RENAMED)
def test_the_loaded_model_is_pytorchs(model_type, auto, caplog):
    model, (torch_model, report) = loaded(model_type, auto)
    assert not report
    assert "newly initialized" not in caplog.text
    assert_same_outputs(model, torch_model)
    assert model.layout.compared


@pytest.mark.parametrize(("model_type", "auto"), RENAMED)
def test_what_is_saved_is_what_pytorch_saves(model_type, auto, tmp_path):
    model, (torch_model, _) = loaded(model_type, auto)
    model.save_pretrained(tmp_path / "ours")
    torch_model.save_pretrained(tmp_path / "theirs")
    assert_same_files(tmp_path / "ours", tmp_path / "theirs")
    _, report = twin(tmp_path / "ours", auto)
    assert not report


SAVE_AGAIN = """
import sys
import keras
import numpy as np
import tf_pipeline
model = getattr(tf_pipeline, sys.argv[3]).from_pretrained(sys.argv[1])
ids = np.arange(5, 15)[np.newaxis].repeat(2, 0)
inputs = {"input_ids": ids, "labels": ids}
model.compile(keras.optimizers.SGD(0.5))
model.fit(inputs, verbose=0)
model.save_pretrained(sys.argv[2])
assert "torch" not in sys.modules
np.save(sys.argv[2] + "/answer.npy", model(ids[:1])[0].numpy())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "auto"), TRAINED)
def test_trained_and_saved_without_torch(model_type, auto, tmp_path):
    loaded(model_type, auto)[0].save_pretrained(tmp_path / "first")
    arguments = [str(tmp_path / "first"), str(tmp_path / "second"), auto]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + SAVE_AGAIN, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = open_checkpoint(tmp_path / "first"), open_checkpoint(tmp_path / "second")
    assert set(first) == set(second)
    assert sum(not np.array_equal(first[name], second[name]) for name in first) > len(first) / 2
    torch_model, report = twin(tmp_path / "second", auto)
    assert not report
    with torch.no_grad():
        theirs = torch_model(torch.from_numpy(IDS))[0].numpy()
    np.testing.assert_allclose(np.load(tmp_path / "second" / "answer.npy"), theirs, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.slow
def test_a_remembered_layout_needs_no_torch(monkeypatch):
    model, _ = loaded("mixtral", CAUSAL)
    monkeypatch.setattr(find.importlib.util, "find_spec", lambda name: None)
    again = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(checkpoint("mixtral", CAUSAL))
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


def test_other_names_are_learned_where_torch_is_and_refused_where_it_is_not(monkeypatch):
    loaded("gpt_neox", CAUSAL)

    def rename(tensors):
        tensors["lm_head.weight"] = tensors.pop("embed_out.weight")

    folder = edited(checkpoint("gpt_neox", CAUSAL), rename)
    with monkeypatch.context() as patch:
        patch.setattr(find.importlib.util, "find_spec", lambda name: None)
        plain = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)  # PyTorch's own names need nobody's help
    assert_same_outputs(plain, twin(folder, CAUSAL)[0])

    def hide(tensors):
        tensors["unheard.weight"] = tensors.pop("embed_out.weight")

    with monkeypatch.context() as patch:
        patch.setattr(find.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(CheckpointError, match=r"has no \['lm_head.weight'\] …, but \['unheard.weight'\]"):
            tf_pipeline.TFAutoModelForCausalLM.from_pretrained(edited(checkpoint("gpt_neox", CAUSAL), hide))
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)
    assert "lm_head.weight" in model.layout.stored
    again = new_folder()
    model.save_pretrained(again)
    twin(folder, CAUSAL)[0].save_pretrained(again / "theirs")
    assert_same_files(again, again / "theirs")


@pytest.mark.slow
def test_a_head_that_the_checkpoint_cannot_have_starts_fresh(caplog):
    folder = checkpoint("gpt_neox")
    model, report = tf_pipeline.TFAutoModelForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert report.missing == ["classifier.bias", "classifier.weight"]
    assert "newly initialized: ['classifier.bias', 'classifier.weight']" in caplog.text
    theirs = {key: value.numpy() for key, value in twin(folder, TOKENS)[0].state_dict().items()}
    for key, slot in named_slots(model):
        if key not in report.missing:
            np.testing.assert_array_equal(slot.read(), theirs[key], key)
    of_another_head = tf_pipeline.TFAutoModelForTokenClassification.from_pretrained(
        checkpoint("gpt_neox", CAUSAL), output_loading_info=True
    )[1]
    assert of_another_head.missing == report.missing
    assert of_another_head.unused == ["embed_out.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda outputs: outputs.pop("lm_head.weight"), r"it has \['lm_head.weight'\] under other names"),
        (
            lambda outputs: outputs.update({"lm_head.weight": "%p.gpt_neox.embed_in.weight"}),
            "lm_head.weight differs from PyTorch's",
        ),
    ],
)
def test_a_wrong_layout_is_noticed(monkeypatch, change, message):
    folder = checkpoint("gpt_neox", CAUSAL)
    loaded("gpt_neox", CAUSAL)
    known = find._known_layout

    def wrong(graph, reader):
        layout = known(graph, reader)
        outputs = dict(layout.loading.outputs)
        change(outputs)
        graph.layouts.append(replace(layout, loading=replace(layout.loading, outputs=outputs), compared=False))
        return graph.layouts[-1]

    monkeypatch.setattr(find, "_known_layout", wrong)
    with pytest.raises(PortError, match=message):
        tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)


def test_outputs_are_compared_too(monkeypatch):
    model, (torch_model, _) = loaded("gpt_neox", CAUSAL)
    gate.compare_outputs(model, twin(checkpoint("gpt_neox", CAUSAL), CAUSAL)[0])
    forward = type(model).forward

    def wrong(self, **inputs):
        outputs = forward(self, **inputs)
        return self.output_type(dict(outputs) | {"logits": outputs.logits * 1.001})

    monkeypatch.setattr(type(model), "forward", wrong)
    with pytest.raises(PortError, match="loaded, it does not compute what PyTorch does"):
        gate.compare_outputs(model, twin(checkpoint("gpt_neox", CAUSAL), CAUSAL)[0])


@pytest.mark.slow
def test_shards_are_read_and_written(tmp_path):
    model, (torch_model, _) = loaded("mixtral", CAUSAL)
    torch_model.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    again = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)
    again.save_pretrained(tmp_path / "ours", max_shard_size="60KB")
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    assert_same_files(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize("model_type", exhaustive(["gpt_neox", "mixtral"], ["gpt_neox"]))
def test_a_folder_in_bfloat16_is_bit_for_bit(model_type, tmp_path):
    folder = copied(checkpoint(model_type, CAUSAL), WEIGHTS)
    tensors = safetensors.torch.load_file(checkpoint(model_type, CAUSAL) / WEIGHTS)
    half = {name: value.bfloat16() for name, value in tensors.items()}
    safetensors.torch.save_file(half, folder / WEIGHTS, metadata={"format": "pt"})
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    model.save_pretrained(tmp_path)
    assert_same_files(tmp_path, folder)
