"""Tiny PyTorch checkpoints, made once a run, and what compares a loaded model with PyTorch's."""

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import transformers

import tf_pipeline
from benchmarks.reload import hide_torch
from parity_tests.families import FAMILY
from parity_tests.tiny import random_checkpoint, tiny_config
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import widen_tables

WEIGHTS = "model.safetensors"

_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-checkpoints-")


def new_folder() -> Path:
    """An empty folder that goes when the run ends."""
    return Path(tempfile.mkdtemp(dir=_FOLDER.name))


_MADE: dict[str, Path] = {}


def checkpoint(class_name: str, **changes) -> Path:
    """The folder of a random PyTorch checkpoint for one of our classes; shared, so nobody writes to it."""
    key = repr((class_name, sorted(changes.items())))
    if key not in _MADE:
        config = tiny_config(FAMILY[class_name], class_name, **changes)
        _MADE[key] = Path(random_checkpoint(new_folder(), class_name, config))
    return _MADE[key]


def edited(source: Path, edit: Callable[[dict], None] = lambda tensors: None, **config_changes) -> Path:
    """A copy of a checkpoint whose tensors went through ``edit`` and whose config.json has other values."""
    folder = new_folder()
    tensors = safetensors.torch.load_file(source / WEIGHTS)
    edit(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text()) | config_changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def copied(source: Path, *without: str) -> Path:
    """A copy of a checkpoint's files, but for those named."""
    return Path(shutil.copytree(source, new_folder(), dirs_exist_ok=True, ignore=lambda *_: without))


def ours(class_name: str, source, **kwargs):
    """Our class, loaded."""
    return getattr(tf_pipeline, class_name).from_pretrained(source, **kwargs)


def twin(class_name: str, source, **kwargs):
    """PyTorch's class, loaded as float32 unless asked otherwise, with its plain attention."""
    torch_class = getattr(transformers, class_name.removeprefix("TF"))
    return torch_class.from_pretrained(source, **({"dtype": "float32", "attn_implementation": "eager"} | kwargs))


def weights(model) -> dict[str, np.ndarray]:
    """Every weight of one of our models by checkpoint key, in PyTorch's layout."""
    return {key: slot.read() for key, slot in named_slots(model)}


def assert_same_weights(model, torch_model) -> None:
    """Require that both models hold the same keys and the same bits."""
    state = {key: value for key, value in torch_model.state_dict().items() if not key.endswith("position_ids")}
    mine = weights(model)
    assert set(mine) == set(state) - set(model.tied_weights())
    for key, value in mine.items():
        assert str(value.dtype) == str(state[key].dtype).removeprefix("torch."), key
        assert value.shape == tuple(state[key].shape), key
        assert value.tobytes() == state[key].contiguous().view(torch.uint8).numpy().tobytes(), key


def example_inputs(model, batch: int = 2, length: int = 7) -> dict[str, np.ndarray]:
    """Token ids and a mask with a padded row."""
    shape = (batch, length) if model.input_rank == 2 else (batch, 3, length)
    ids = np.random.default_rng(0).integers(2, model.config.vocab_size, shape)
    mask = np.ones(shape, np.int64)
    mask[0, ..., length - 2 :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(model, "reads_end_token", False):
        ids[ids == model.config.eos_token_id] += 1
        ids[:, -1] = model.config.eos_token_id
    elif "decoder_input_ids" in model.tensor_names:
        inputs["decoder_input_ids"] = ids[:, ::-2].copy()
    return inputs


def run_both(model, torch_model, inputs=None, torch_inputs=None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every tensor that both models return for the same inputs, hidden states included."""
    inputs = example_inputs(model) if inputs is None else inputs
    torch_inputs = {name: torch.tensor(value) for name, value in (torch_inputs or inputs).items()}
    first = model(inputs, output_hidden_states=True)
    widen_tables(torch_model)
    with torch.no_grad(), lifted_upcasts(torch_model):
        second = torch_model.eval()(**torch_inputs, output_hidden_states=True)
    names = [name for name in first if not name.endswith("hidden_states")]
    states = [name for name in first if name.endswith("hidden_states")]
    return (
        [np.asarray(first[name]) for name in names] + [np.asarray(x) for name in states for x in first[name]],
        [second[name].numpy() for name in names] + [x.numpy() for name in states for x in second[name]],
    )


def assert_same_outputs(model, torch_model, inputs=None, torch_inputs=None) -> None:
    """Require every output of two float64 models to agree to 1e-10."""
    for mine, theirs in zip(*run_both(model, torch_model, inputs, torch_inputs), strict=True):
        assert mine.dtype == theirs.dtype == np.float64
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10 * max(1.0, np.abs(theirs).max()))


# Prepended to a child's code, makes torch as absent as if it had never been installed.
WITHOUT_TORCH = f"{inspect.getsource(hide_torch)}\nhide_torch()\n"
