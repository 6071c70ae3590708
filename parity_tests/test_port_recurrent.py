"""Ported language models that keep states other than keys and values: their steps, and whole texts read in a loop."""

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

import tf_pipeline
from benchmarks import tiny
from parity_tests.checkpoint_helpers import WITHOUT_TORCH
from parity_tests.generation_helpers import IDS, MASK
from parity_tests.port_helpers import causal_pair, checkpoint, shared_cache, use_cache_of
from parity_tests.tiers import exhaustive
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.generation.recompute import Recomputing
from tf_pipeline.port import capture_scan, gate_step, torch_states
from tf_pipeline.port.capture import Captured
from tf_pipeline.port.errors import PortError, UncachedError
from tf_pipeline.port.graph import GRAPH, STEP, Graph
from tf_pipeline.port.model import NO_STEP
from tf_pipeline.port.scan import ScannedSteps
from tf_pipeline.reference.running import run_reference

CAUSAL = "TFAutoModelForCausalLM"
CHANGES = {
    "jamba": {"num_hidden_layers": 2},
    "mamba": {"num_hidden_layers": 1, "use_bias": True},
    "rwkv": {"num_hidden_layers": 7},  # from the seventh on, PyTorch halves weights for inference
}
QUICK = ["mamba"]
# Code of theirs for whole texts cannot be captured for all lengths: a graph of one token is all there is.
SCANNED = ["mamba", "jamba", "rwkv"]
# A graph of whole texts, and a step next to it; more of both kinds are in `benchmarks/coverage.py`.
STEPPED = ["bamba", "minimax"]


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


def pair(model_type: str, dtype: str = "float32"):
    """Our model and PyTorch's of a tiny checkpoint."""
    return causal_pair(model_type, dtype, **CHANGES.get(model_type, {}))


def written(model, ids=IDS, **options) -> np.ndarray:
    """Tokens that either library's model writes behind padded prompts."""
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": 9} | options
    if isinstance(model, torch.nn.Module):
        return model.generate(torch.tensor(ids), attention_mask=torch.tensor(ids != 0).long(), **options).numpy()
    return model.generate(ids, attention_mask=(ids != 0).astype(int), **options).numpy()


# ----------------------------------------------------------------------------------------------------- equal to PyTorch


@pytest.mark.parametrize(
    ("model_type", "beams"),
    exhaustive(
        [*((name, 1) for name in [*SCANNED, *STEPPED]), ("mamba", 4), ("jamba", 4), ("bamba", 4)],
        [("mamba", 1)],
    ),
)
def test_tokens_equal_torch(model_type, beams):
    options = {"num_beams": beams}
    ours, theirs = pair(model_type)
    assert isinstance(ours.stepper(), ScannedSteps), ours.graph.notes
    assert bool(ours.graph.states) == (model_type in SCANNED)
    if "attention_mask" in ours.tensor_names:
        np.testing.assert_array_equal(written(ours, **options), written(theirs, **options))
        return
    # These read padding as text, and PyTorch's RWKV mixes rows.
    ids = tf.constant(IDS[1:2])
    tokens = ours.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=9, **options)
    np.testing.assert_array_equal(tokens.numpy(), written(theirs, IDS[1:2], **options))


@pytest.mark.parametrize("shape", [(1, 1), (3, 13)])
@pytest.mark.parametrize("model_type", exhaustive(SCANNED, QUICK))
def test_whole_texts_equal_torch(model_type, shape):
    ours, theirs = pair(model_type, "float64")
    ids = np.random.default_rng(1).integers(10, 90, shape)
    inputs = {"input_ids": torch.tensor(ids)}
    if "attention_mask" in ours.tensor_names:
        inputs["attention_mask"] = torch.ones(shape, dtype=torch.int64)
        inputs["attention_mask"][1:, 9:] = 0
    expected = run_reference(theirs, inputs)
    results = ours({name: value.numpy() for name, value in inputs.items()}, output_hidden_states=True)
    real = inputs.get("attention_mask", torch.ones(shape)).numpy() != 0
    assert len(results.hidden_states) == sum(name.startswith("hidden_states") for name in expected) > 1
    for name, ours_now in [("logits", results.logits)] + [
        (f"hidden_states.{i}", x) for i, x in enumerate(results.hidden_states)
    ]:
        scale = max(1.0, np.abs(expected[name]).max())
        assert np.abs(ours_now.numpy() - expected[name])[real].max() <= 1e-10 * scale, name


# MiniMax's graph of whole texts takes no text of this length; its step is compared with PyTorch's tokens above.
WHOLE = ["mamba", "jamba", *(name for name in STEPPED if name != "minimax")]


@pytest.mark.parametrize("model_type", exhaustive(WHOLE, QUICK))
def test_steps_equal_the_whole_text(model_type):
    ours, _ = pair(model_type, "float64")
    rng = np.random.default_rng(0)
    ids = torch.tensor(np.concatenate([IDS, rng.integers(10, 90, (3, 9))], 1))
    mask = torch.tensor(np.concatenate([MASK, np.ones((3, 9), int)], 1))
    steps = gate_step.generated_logits(ours.stepper(), ids, mask, 5, 40)
    again = gate_step.generated_logits(Recomputing(ours), ids, mask, 5, 40)
    assert np.abs(steps - again).max() <= 1e-10 * max(1.0, np.abs(again).max())
    assert np.abs(again).max() > 0.1


def test_gradients_through_the_loop_equal_torch():
    ours, theirs = pair("mamba", "float64")
    ids = np.random.default_rng(2).integers(10, 90, (2, 6))
    inputs = {"input_ids": ids, "attention_mask": np.array([[1] * 6, [1] * 4 + [0] * 2]), "labels": ids}
    with gate_step.lifted_upcasts(theirs):
        theirs.zero_grad()
        loss = theirs(**{name: torch.tensor(value) for name, value in inputs.items()}).loss
        loss.backward()
    with tf.GradientTape() as tape:
        result = ours(inputs, training=True).loss
    slots = {key: slot.variable for key, slot in named_slots(ours) if slot.variable.trainable}
    gradients = tape.gradient(result, list(slots.values()))
    assert abs(float(result) - loss.item()) <= 1e-10
    expected = dict(theirs.named_parameters())
    kernels = ours.graph.kernels()
    assert kernels and set(slots) == {key for key in expected if key != "lm_head.weight"}
    for key, gradient in zip(slots, gradients, strict=True):
        value = tf.convert_to_tensor(gradient).numpy()
        value = value.T if key in kernels else value
        np.testing.assert_allclose(value, expected[key].grad.numpy(), rtol=0, atol=1e-12, err_msg=key)


def test_compiled_by_xla():
    ours, _ = pair("mamba", "float64")
    inputs = {"input_ids": tf.constant(IDS), "attention_mask": tf.constant(MASK)}
    compiled = tf.function(lambda given: ours(given).logits, jit_compile=True, autograph=False)(inputs)
    np.testing.assert_allclose(compiled, ours(inputs).logits, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_body_and_fit():
    ours = tf_pipeline.TFAutoModel.from_pretrained(checkpoint("mamba", **CHANGES["mamba"]))
    assert ours.graph.states
    assert ours({"input_ids": IDS}).last_hidden_state.shape == (3, 5, 32)
    assert ours.stepper() is None
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(checkpoint("mamba", CAUSAL, **CHANGES["mamba"]))
    model.compile("adam")
    losses = model.fit({"input_ids": IDS, "attention_mask": MASK, "labels": IDS}, epochs=3, verbose=0).history["loss"]
    assert losses[2] < losses[1] < losses[0]


# ------------------------------------------------------------------------------------------------------------- the gate


@cache
def hybrid() -> tuple[Captured, type, transformers.PreTrainedConfig]:
    """A convolution's states beside keys and values, as a graph of one token."""
    config = tiny.tiny_config("lfm2")
    return capture_scan.capture_scan(transformers.Lfm2ForCausalLM, config), transformers.Lfm2ForCausalLM, config


@pytest.mark.slow
def test_a_hybrid_is_proven():
    captured, torch_class, config = hybrid()
    graph = captured.graph
    kinds = {name.rsplit("_", 1)[-1]: state.shape[2] for name, state in graph.states.items()}
    assert kinds == {"0": 3, "keys": "capacity", "values": "capacity"}
    checks = gate_step.check_step(captured, torch_class, config, graph)
    assert {check.dtype for check in checks} == {"float64", "float32"}
    assert Graph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


@pytest.mark.slow  # `test_port_steps.py` plants mistakes too
@pytest.mark.parametrize("mistake", ["forgotten", "start", "padding"])
def test_planted_mistake_is_caught(mistake):
    captured, torch_class, config = hybrid()
    graph = captured.graph
    name = next(name for name in graph.states if name.endswith("0"))
    state, nodes = graph.states[name], list(graph.nodes)
    if mistake == "forgotten":
        state = replace(state, following=f"%{name}")
    elif mistake == "start":
        state = replace(state, initial=0.5)
    else:
        place = next(i for i, node in enumerate(nodes) if node.args[:1] == ["%attention_mask"] and "select" in node.op)
        nodes[place] = replace(nodes[place], args=["%attention_mask", 1, -1])
    broken = replace(graph, states=graph.states | {name: state}, nodes=nodes)
    with pytest.raises(PortError, match="the step does not compute what PyTorch does"):
        gate_step.check_step(replace(captured, graph=broken), torch_class, config, graph)


@pytest.mark.slow
def test_a_cache_that_computes_something_else_in_torch_is_not_used():
    ours, _ = pair("zamba2")
    assert ours.stepper() is None
    assert ours.graph.notes[-1].startswith(NO_STEP)
    assert "computes something else than from a whole text" in ours.graph.notes[-1]


# ---------------------------------------------------------------------------------------------------------- the capture


def test_code_that_loops_over_tokens_is_known():
    loops = {
        name: capture_scan.loops_over_tokens(getattr(transformers, class_name), tiny.tiny_config(name))
        for name, class_name in [
            ("mamba", "MambaModel"),
            ("recurrent_gemma", "RecurrentGemmaModel"),
            ("mamba2", "Mamba2Model"),
            ("gpt_neox", "GPTNeoXModel"),
        ]
    }
    assert loops == {"mamba": True, "recurrent_gemma": True, "mamba2": False, "gpt_neox": False}


def test_states_are_found_wherever_a_model_keeps_them():
    config = tiny.tiny_config("recurrent_gemma")
    model = transformers.RecurrentGemmaForCausalLM._from_config(config).eval()
    states = torch_states.TorchStates(model, config)
    assert states.slots == {"held_layers_2_keys", "held_layers_2_values"}
    assert sum("conv1d_state" in name for name in states.examples) == 2
    assert not any(torch.is_tensor(value) for m in model.modules() for value in vars(m).values() if value is not None)
    config = tiny.tiny_config("rwkv")
    states = torch_states.TorchStates(transformers.RwkvForCausalLM._from_config(config).eval(), config)
    assert set(states.examples) == {f"held_{i}" for i in range(5)}
    assert states.initial == {"held_4": -1e30}
    assert states.settles
    config = tiny.tiny_config("distilbert")
    with pytest.raises(UncachedError, match="takes no cache"):
        torch_states.TorchStates(transformers.DistilBertModel._from_config(config).eval(), config)


# ---------------------------------------------------------------------------------------------------------------- files

GENERATE = """
import sys
import numpy as np
import tf_pipeline
from tf_pipeline.port.scan import ScannedSteps
model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(sys.argv[1])
assert isinstance(model.stepper(), ScannedSteps)
ids = np.array(eval(sys.argv[2]))
options = {"attention_mask": (ids != 0).astype(int), "max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": 9}
outs = [model.generate(ids, num_beams=n, **options).numpy().tolist() for n in (1, 4)]
assert "torch" not in sys.modules
print(outs)
"""


@pytest.mark.slow
@pytest.mark.parametrize("model_type", exhaustive(["mamba", "jamba", *STEPPED[:1]], QUICK))
def test_saved_needs_no_torch(model_type, tmp_path):
    ours, theirs = pair(model_type)
    ours.find_step()
    ours.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / GRAPH).exists()
    assert (tmp_path / "saved" / STEP).exists() == (model_type in STEPPED)
    command = [sys.executable, "-c", WITHOUT_TORCH + GENERATE, str(tmp_path / "saved"), str(IDS.tolist())]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"TF_PIPELINE_CACHE": str(tmp_path / "empty")}
    )
    assert done.returncode == 0, done.stderr
    for tokens, beams in zip(json.loads(done.stdout), (1, 4), strict=True):
        np.testing.assert_array_equal(tokens, written(theirs, num_beams=beams))


@pytest.mark.slow
def test_generate_from_a_saved_model(tmp_path):
    ours, theirs = pair("mamba")
    holder = tf.Module()
    holder.model = ours
    signature = ours.generate_signature(max_length=17, pad_token_id=0, eos_token_id=9, do_sample=False)
    tf.saved_model.save(holder, str(tmp_path), {"generate": signature})
    given = {"input_ids": tf.constant(IDS, tf.int32), "attention_mask": tf.constant(MASK, tf.int32)}
    result = tf.saved_model.load(str(tmp_path)).signatures["generate"](**given)
    np.testing.assert_array_equal(result["sequences"], written(theirs))
