"""Ported encoder–decoders that write token after token: the source is read once, the decoder has a cache."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

from benchmarks import tiny
from parity_tests.checkpoint_helpers import WITHOUT_TORCH, new_folder
from parity_tests.port_helpers import shared_cache, torch_name, use_cache_of
from parity_tests.tiers import exhaustive
from tf_pipeline.generation.recompute import Recomputing
from tf_pipeline.port import gate_cross, port
from tf_pipeline.port.capture import Captured
from tf_pipeline.port.cross_step import CrossSteps, parts
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import STEP, GraphError
from tf_pipeline.port.model import NO_STEP, ported_class
from tf_pipeline.reference.loading import load_torch_model

QUICK = ["plbart"]
# Sparse attention of the encoder, scores by distance with experts, and windows; more of each kind are in
# `benchmarks/coverage.py`.
OTHERS = ["bigbird_pegasus", "switch_transformers", "t5gemma"]
MODELS = exhaustive([*QUICK, *OTHERS], QUICK)
IDS = np.array([[11, 12, 0, 0, 0], [21, 22, 23, 24, 25], [31, 32, 33, 0, 0]])
MASK = (IDS != 0).astype(int)
START = np.array([[3, 41, 42], [3, 43, 44], [3, 45, 46]])
WHISPER = {
    "max_source_positions": 15, "max_target_positions": 40, "num_mel_bins": 8, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 9, "decoder_start_token_id": 3,
}  # fmt: skip
# One layer each where what is shown does not depend on their number: captures take half the time.
SHALLOW = {
    "bigbird_pegasus": {"encoder_layers": 1, "decoder_layers": 1},
    "prophetnet": {"num_encoder_layers": 1, "num_decoder_layers": 1},
    "switch_transformers": {"num_layers": 2, "num_decoder_layers": 1},
    "whisper": WHISPER | {"encoder_layers": 1, "decoder_layers": 1},
}
SOUND = np.random.default_rng(0).normal(size=(3, 8, 30)).astype("float32")


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


@cache
def checkpoint(model_type: str):
    """A tiny checkpoint with every parameter random, and the name of its class."""
    config = tiny.tiny_config(model_type, **SHALLOW.get(model_type, {}))
    is_whisper = model_type == "whisper"
    name = "WhisperForConditionalGeneration" if is_whisper else torch_name(config, "TFAutoModelForSeq2SeqLM")
    folder = new_folder()
    load_torch_model(getattr(transformers, name), None, config, torch.float32).save_pretrained(folder)
    return folder, name


@cache
def pair(model_type: str, dtype: str = "float32"):
    """Our model and PyTorch's of a tiny checkpoint."""
    folder, name = checkpoint(model_type)
    theirs = getattr(transformers, name).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    return ported_class(name).from_pretrained(folder, dtype=dtype), theirs


def written(model, **options) -> np.ndarray:
    """Tokens that either library's model writes, from sound if it hears."""
    hears = model.main_input_name != "input_ids"
    inputs = {"input_features": SOUND} if hears else {"input_ids": IDS, "attention_mask": MASK}
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": 9} | options
    if isinstance(model, torch.nn.Module):
        options = {name: torch.tensor(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
        inputs = {name: torch.tensor(x) for name, x in inputs.items()}
        # Not Whisper's own, which cuts sound into pieces and takes no tokens to start with.
        return transformers.GenerationMixin.generate(model, **inputs, **options).numpy()
    return model.generate(**inputs, **options).numpy()


# ----------------------------------------------------------------------------------------------------- equal to PyTorch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "kind"),
    [*itertools.product([*QUICK, *OTHERS, "whisper"], ["greedy"]),
     *itertools.product([*QUICK, "t5gemma", "whisper"], ["beams", "start"])],
)  # fmt: skip
def test_tokens_equal_torch(model_type, kind):
    options = {
        "greedy": {}, "beams": {"num_beams": 4, "num_return_sequences": 2}, "start": {"decoder_input_ids": START}
    }[kind]  # fmt: skip
    ours, theirs = pair(model_type)
    assert isinstance(ours.stepper(), CrossSteps), ours.graph.notes
    result = written(ours, **options)
    np.testing.assert_array_equal(result, written(theirs, **options))
    assert result.shape[1] > 4


@pytest.mark.slow
def test_whisper_writes_as_its_own_generate_does():
    ours, theirs = pair("whisper")
    expected = theirs.generate(torch.tensor(SOUND), max_new_tokens=12, do_sample=False, return_dict_in_generate=True)
    np.testing.assert_array_equal(written(ours), expected["sequences"].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
def test_steps_equal_the_whole_text(model_type):
    ours, _ = pair(model_type, "float64")
    tokens = torch.tensor(np.random.default_rng(0).integers(10, 90, (3, 20)))
    source = {"input_ids": torch.tensor(IDS, dtype=torch.int32), "attention_mask": torch.tensor(MASK)}
    text = gate_cross._Translation(source, tokens, 2, "")
    steps = gate_cross.generated_logits(ours.stepper(), text, 40)
    again = gate_cross.generated_logits(Recomputing(ours), text, 40)
    assert steps.shape == (3, 19, ours.config.get_text_config(decoder=True).vocab_size)
    assert np.abs(steps - again).max() <= 1e-10 * max(1.0, np.abs(again).max())
    assert np.abs(again).max() > 0.1


@pytest.mark.slow
def test_source_is_read_once():
    ours, _ = pair("plbart")
    step = ours.find_step().graph
    encode, cross, decode = parts(ours.graph, step)
    layers = ours.config.decoder_layers
    assert len(cross.outputs) == 2 * layers
    assert "encoded" in cross.inputs and "encoded" not in decode.inputs
    assert not any(".k_proj" in node.module and "encoder_attn" in node.module for node in decode.nodes)
    assert not any("decoder" in node.module for node in encode.nodes)
    assert not any(".encoder." in node.module for node in step.nodes)
    assert [node.op for node in decode.nodes].count("tf_pipeline.write.default") == 2 * layers


@pytest.mark.slow
def test_state_keeps_its_shape_and_follows_beams():
    stepper = pair("plbart")[0].stepper()
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": START}
    _, state = stepper.prefill({name: tf.constant(x, tf.int32) for name, x in inputs.items()}, 64)
    _, after = stepper.step(tf.constant([5, 6, 7]), state)
    assert {x.shape[2] for x in after.slots.values()} == {64}
    assert int(after.length) == 4
    assert not after.slots["keys_0"][:, :, 4:].numpy().any()
    assert np.abs(after.slots["keys_0"][:, :, :4].numpy()).min(axis=(1, 3)).min() > 0
    turned = stepper.reorder(after, tf.constant([1, 1, 0, 2]))
    np.testing.assert_array_equal(turned.source["attention_mask"], MASK[[1, 1, 0, 2]])
    np.testing.assert_array_equal(turned.source["cross_keys_1"][2], after.source["cross_keys_1"][0])


# ------------------------------------------------------------------------------------------------------------- the gate


def _slot(step):
    last = max(i for i, node in enumerate(step.nodes) if node.op == "tf_pipeline.write.default")
    nodes = list(step.nodes)
    nodes[last] = replace(nodes[last], args=[*nodes[last].args[:2], 0])
    return replace(step, nodes=nodes)


def _swapped(step):
    keys, values = step.outputs["cross_keys_1"], step.outputs["cross_values_1"]
    return replace(step, outputs=step.outputs | {"cross_keys_1": values, "cross_values_1": keys})


def _unmasked(step):
    """The padding of the source is seen."""
    nodes = [
        replace(node, op="aten.ones_like.default")
        if node.args[:1] == ["%attention_mask"] and node.dtype == "bool"
        else node
        for node in step.nodes
    ]
    assert nodes != step.nodes
    return replace(step, nodes=nodes)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", exhaustive([_slot, _swapped, _unmasked], [_swapped]))
def test_planted_mistake_is_caught(mistake):
    ours, _ = pair("plbart")
    found, torch_class = ours.find_step(), transformers.PLBartForConditionalGeneration
    rest = (torch_class, ours.config, ours.graph, ours.constants())
    checks = gate_cross.check_cross(Captured(found.graph, dict(found.constants)), *rest)
    assert {check.dtype for check in checks} == {"float64", "float32"}
    with pytest.raises(PortError, match="the step does not compute what PyTorch does"):
        gate_cross.check_cross(Captured(mistake(found.graph), dict(found.constants)), *rest)


@pytest.mark.slow
def test_gate_pads_sources_of_unequal_lengths_on_either_side():
    ours, _ = pair("plbart")
    texts = list(gate_cross._translations(transformers.PLBartForConditionalGeneration, ours.config, ours.graph))
    assert len({text.source["input_ids"].shape[1] for text in texts}) > 1
    masks = [text.source["attention_mask"].numpy() for text in texts]
    assert any((mask[:, 0] == 0).any() for mask in masks) and any((mask[:, -1] == 0).any() for mask in masks)
    assert {text.prompt == 1 for text in texts} == {True, False}
    assert max(text.ids.shape[1] for text in texts) == ours.max_generated_length


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("prophetnet", "decoder_input_ids` of length 1"), ("fsmt", "something else than from a whole")],
)
def test_without_a_cache_the_text_is_read_again(model_type, reason):
    ours, theirs = pair(model_type)
    assert ours.stepper() is None
    assert ours.graph.notes[-1].startswith(NO_STEP) and reason in ours.graph.notes[-1]
    np.testing.assert_array_equal(written(ours), written(theirs))


# ----------------------------------------------------------------------------------------------------- inputs and files


@pytest.mark.slow
def test_a_text_that_does_not_fit_is_refused():
    ours, _ = pair("plbart")
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than the 64 positions"):
        ours.generate(np.full((1, 65), 11), max_new_tokens=3)
    with pytest.raises(ValueError, match="64 positions"):
        written(ours, max_new_tokens=65)


@pytest.mark.slow
def test_whisper_reads_its_positions_off_the_table():
    ours, _ = pair("whisper")
    assert ours.max_generated_length == WHISPER["max_target_positions"]
    with pytest.raises(ValueError, match="40 positions"):
        written(ours, max_new_tokens=41)
    with pytest.raises(ValueError, match="8, 30"):
        ours.generate(SOUND[:, :, :20])
    with pytest.raises(TypeError, match="attention_mask"):
        ours.generate(SOUND, attention_mask=MASK)


@pytest.mark.slow
def test_whisper_does_not_guess_language_and_task():
    ours, _ = pair("whisper")
    with pytest.raises(ValueError, match="decoder_input_ids"):
        written(ours, generation_config=_with_languages(ours))
    given = written(ours, generation_config=_with_languages(ours), decoder_input_ids=START)
    np.testing.assert_array_equal(given, written(ours, decoder_input_ids=START))


def _with_languages(model):
    config = transformers.GenerationConfig.from_dict(model.generation_config.to_dict())
    config.lang_to_id = {"<|en|>": 41}
    return config


@pytest.mark.slow
def test_penalties_of_a_source_without_tokens_have_no_effect():
    ours, _ = pair("whisper")
    with pytest.warns(UserWarning, match="encoder_repetition_penalty has no effect"):
        result = written(ours, encoder_repetition_penalty=1.5)
    np.testing.assert_array_equal(result, written(ours))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["plbart", "whisper"])
def test_generate_from_a_saved_model(model_type, tmp_path):
    ours, _ = pair(model_type)
    holder = tf.Module()
    holder.model = ours
    signature = ours.generate_signature(max_new_tokens=12, pad_token_id=0, eos_token_id=9, do_sample=False)
    tf.saved_model.save(holder, str(tmp_path), {"generate": signature})
    given = {"input_ids": tf.constant(IDS, tf.int32), "attention_mask": tf.constant(MASK, tf.int32)}
    given = {"input_features": tf.constant(SOUND)} if model_type == "whisper" else given
    result = tf.saved_model.load(str(tmp_path)).signatures["generate"](**given)
    np.testing.assert_array_equal(result["sequences"], written(ours))


GENERATE = """
import sys
import numpy as np
from tf_pipeline import TFAutoModelForSeq2SeqLM
from tf_pipeline.port.cross_step import CrossSteps
model = TFAutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
assert isinstance(model.stepper(), CrossSteps)
ids = np.array(eval(sys.argv[2]))
options = {"max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": 9, "num_beams": 4}
out = model.generate(ids, attention_mask=(ids != 0).astype(int), **options)
assert "torch" not in sys.modules
print(out.numpy().tolist())
"""


@pytest.mark.slow
def test_a_saved_step_needs_no_torch(tmp_path):
    port(checkpoint("plbart")[0], tmp_path / "saved")
    command = [sys.executable, "-c", WITHOUT_TORCH + GENERATE, str(tmp_path / "saved"), str(IDS.tolist())]
    environment = os.environ | {"TF_PIPELINE_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(json.loads(done.stdout), written(pair("plbart")[1], num_beams=4))
    step = tmp_path / "saved" / STEP
    step.write_text(step.read_text().replace('"%cross_keys_0"', '"%cross_values_0"', 1))
    with pytest.raises(GraphError, match="was altered"):
        ported_class("PLBartForConditionalGeneration").from_pretrained(tmp_path / "saved")
