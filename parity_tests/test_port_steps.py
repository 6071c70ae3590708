"""Ported causal models that read token after token with a cache: captured, gated, saved, and equal to PyTorch."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

import tf_pipeline
from benchmarks import tiny
from parity_tests.checkpoint_helpers import WITHOUT_TORCH
from parity_tests.generation_helpers import IDS, MASK
from parity_tests.port_helpers import causal_pair, checkpoint, shared_cache, torch_name, use_cache_of
from parity_tests.tiers import exhaustive
from tf_pipeline.generation.recompute import Recomputing
from tf_pipeline.port import find, gate_step, port
from tf_pipeline.port.capture import Captured
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import CONSTANTS, GRAPH, STEP, STEP_CONSTANTS, Graph, GraphError
from tf_pipeline.port.model import NO_STEP
from tf_pipeline.port.step import CachedSteps

CAUSAL = "TFAutoModelForCausalLM"
QUICK = ["gpt_neox"]
# Learned positions, ALiBi, one head of keys, a table of visible tokens, and windows with experts; more of each kind are
# in `benchmarks/coverage.py`.
OTHERS = ["opt", "bloom", "falcon", "gpt_neo", "gpt_oss"]
MODELS = exhaustive([*QUICK, *OTHERS], QUICK)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


def written(model, ids=IDS, mask=MASK, **options) -> np.ndarray:
    """Tokens that either library's model writes."""
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": 9} | options
    if isinstance(model, torch.nn.Module):
        return model.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), **options).numpy()
    return model.generate(ids, attention_mask=mask, **options).numpy()


# ----------------------------------------------------------------------------------------------------- equal to PyTorch


@pytest.mark.parametrize("model_type", MODELS)
def test_tokens_equal_torch(model_type):
    ours, theirs = causal_pair(model_type)
    assert isinstance(ours.stepper(), CachedSteps), ours.graph.notes
    np.testing.assert_array_equal(written(ours), written(theirs))


@pytest.mark.parametrize("model_type", exhaustive([*QUICK, "opt", "gpt_neo", "plbart"], QUICK))
def test_beams_equal_torch(model_type):
    options = {"num_beams": 3, "num_return_sequences": 2}
    ours, theirs = causal_pair(model_type)
    np.testing.assert_array_equal(written(ours, **options), written(theirs, **options))


@pytest.mark.parametrize("model_type", MODELS)
def test_steps_equal_the_whole_text(model_type):
    ours, _ = causal_pair(model_type, "float64")
    rng = np.random.default_rng(0)
    length, prompt = 22, 8
    ids = torch.tensor(np.concatenate([np.pad(IDS, [[0, 0], [3, 0]]), rng.integers(10, 90, (3, length - prompt))], 1))
    mask = torch.tensor(np.concatenate([np.pad(MASK, [[0, 0], [3, 0]]), np.ones((3, length - prompt), int)], 1))
    steps = gate_step.generated_logits(ours.stepper(), ids, mask, prompt, 40)
    again = gate_step.generated_logits(Recomputing(ours), ids, mask, prompt, 40)
    assert steps.shape == (3, 1 + length - prompt, ours.config.vocab_size)
    assert np.abs(steps - again).max() <= 1e-10 * max(1.0, np.abs(again).max())
    assert np.abs(again).max() > 0.1


def test_cache_is_written_in_place_and_keeps_its_shape():
    ours, _ = causal_pair("gpt_neox")
    stepper = ours.stepper()
    _, state = stepper.prefill({"input_ids": tf.constant(IDS, tf.int32)}, 64)
    _, after = stepper.step(tf.constant([5, 6, 7]), state)
    assert {x.shape.as_list()[2] for x in after.slots.values()} == {64}
    assert int(after.length) == IDS.shape[1] + 1
    keys = after.slots["keys_0"].numpy()
    assert np.abs(keys[:, :, :6]).min(axis=(1, 3)).min() > 0
    assert not keys[:, :, 6:].any()
    operators = [node.op for node in ours.find_step().graph.nodes]
    assert operators.count("tf_pipeline.write.default") == 2 * ours.config.num_hidden_layers
    assert not any(operator.startswith("aten._assert") for operator in operators)


# ------------------------------------------------------------------------------------------------------------- the gate


def _mistaken(step: Captured, operator: str, place: int, value) -> Captured:
    """The same step with another argument in the last node of an operator."""
    nodes = list(step.graph.nodes)
    last = max(i for i, node in enumerate(nodes) if node.op == operator)
    args = list(nodes[last].args)
    args[place] = value
    nodes[last] = replace(nodes[last], args=args)
    return replace(step, graph=replace(step.graph, nodes=nodes))


@pytest.mark.parametrize(
    ("operator", "place", "value"),
    exhaustive(
        [("tf_pipeline.write.default", 2, 0), ("aten.layer_norm.default", 4, 1e-4)],
        [("tf_pipeline.write.default", 2, 0)],
    ),
    ids=["slot", "epsilon"],
)
def test_planted_mistake_is_caught(operator, place, value):
    ours, _ = causal_pair("gpt_neox")
    config, torch_class = ours.config, transformers.GPTNeoXForCausalLM
    found = ours.find_step()
    step = Captured(found.graph, dict(found.constants))
    checks = gate_step.check_step(step, torch_class, config, ours.graph)
    assert {check.dtype for check in checks} == {"float64", "float32"}
    with pytest.raises(PortError, match="the step does not compute what PyTorch does"):
        gate_step.check_step(_mistaken(step, operator, place, value), torch_class, config, ours.graph)


@pytest.mark.slow
def test_gate_crosses_windows_and_fills_tables():
    config = tiny.tiny_config("starcoder2", sliding_window=16)
    whole = causal_pair("opt")[0].graph
    lengths = [(text.prompt, text.ids.shape[1]) for text in gate_step._texts(config, whole)]
    assert any(prompt < 16 < length for prompt, length in lengths)
    assert any(prompt > 16 for prompt, _ in lengths)
    assert max(length for _, length in lengths) == whole.limits["length"][1]


@pytest.mark.slow
def test_without_a_cache_the_text_is_read_again(tmp_path, monkeypatch):
    expected = written(causal_pair("gpt_neox")[1])
    use_cache_of(monkeypatch, tmp_path / "cache")
    folder = checkpoint("gpt_neox", CAUSAL)
    monkeypatch.setattr(find, "_make_step", lambda *_: (_ for _ in ()).throw(PortError("no step today.\nDetails")))
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)
    assert not any(note.startswith(NO_STEP) for note in model.graph.notes)
    np.testing.assert_array_equal(written(model), expected)
    assert model.graph.notes[-1] == f"{NO_STEP}: no step today."
    monkeypatch.setattr(find, "_make_step", lambda *_: pytest.fail("it is tried again"))
    again = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)
    assert again.stepper() is None
    again.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / STEP).exists()


@pytest.mark.slow
def test_an_error_of_the_code_is_a_reason_to_read_again(monkeypatch):
    ours, _ = causal_pair("gpt_neox")
    monkeypatch.setattr(gate_step, "check_step", lambda *_: [][0])
    with pytest.raises(PortError, match="GPTNeoXForCausalLM raised IndexError"):
        find._make_step("GPTNeoXForCausalLM", ours.config, ours.graph, "")


@pytest.mark.slow
def test_a_model_that_does_not_generate_has_no_step(monkeypatch):
    monkeypatch.setattr(find, "find_step", lambda *_: pytest.fail("a step is captured"))
    model = tf_pipeline.TFAutoModel.from_pretrained(checkpoint("gpt_neox"))
    assert model.find_step() is None
    tf_pipeline.TFAutoModelForCausalLM.from_pretrained(checkpoint("gpt_neox", CAUSAL))  # nor is one to load


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a step."""
    shared_cache()
    folder = tmp_path_factory.mktemp("saved")
    port(checkpoint("gpt_neox", CAUSAL), folder)
    return folder


GENERATE = """
import sys
import numpy as np
import tf_pipeline
from tf_pipeline.port.step import CachedSteps
model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(sys.argv[1])
assert isinstance(model.stepper(), CachedSteps)
ids = np.array(eval(sys.argv[2]))
out = model.generate(ids, attention_mask=(ids != 0).astype(int), max_new_tokens=12, pad_token_id=0, eos_token_id=9)
assert "torch" not in sys.modules
print(out.numpy().tolist())
"""


@pytest.mark.slow
def test_a_saved_step_needs_no_torch(saved, tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH + GENERATE, str(saved), str(IDS.tolist())]
    environment = os.environ | {"TF_PIPELINE_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(json.loads(done.stdout), written(causal_pair("gpt_neox")[1]))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (STEP, lambda text: text.replace('"%past"', "0", 1), "was altered"),
        (STEP, lambda text: text[: len(text) // 2], "cut off"),
        (STEP, lambda text: text.replace('"version": 2', '"version": 9'), "of version 9"),
    ],
)
def test_altered_step_is_refused(saved, tmp_path, name, change, message):
    folder = _copy(saved, tmp_path)
    text = (folder / name).read_text()
    assert change(text) != text
    (folder / name).write_text(change(text))
    with pytest.raises(GraphError, match=message):
        tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)


def test_step_of_another_model_is_refused(saved, tmp_path):
    folder = _copy(saved, tmp_path)
    graph, constants = Graph.read(folder / STEP, folder / STEP_CONSTANTS)
    replace(graph, model_class="OPTForCausalLM").write(folder, constants, (STEP, STEP_CONSTANTS))
    with pytest.raises(GraphError, match="does not belong to the graph next to it"):
        tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)
    whole = Graph.read(folder / GRAPH, folder / CONSTANTS)
    whole[0].write(folder, whole[1], (STEP, STEP_CONSTANTS))
    with pytest.raises(GraphError, match="does not belong to the graph next to it"):
        tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)


def test_a_folder_without_a_step_loads_and_generates(saved, tmp_path, monkeypatch):
    expected = written(causal_pair("gpt_neox")[1])
    folder = _copy(saved, tmp_path)
    for name in (STEP, STEP_CONSTANTS):
        (folder / name).unlink()
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)
    use_cache_of(monkeypatch, tmp_path / "empty")
    monkeypatch.setattr(find.importlib.util, "find_spec", lambda name: None)
    assert model.stepper() is None
    assert not any(note.startswith(NO_STEP) for note in model.graph.notes)
    np.testing.assert_array_equal(written(model), expected)


@pytest.mark.slow
def test_a_new_checkpoint_takes_an_old_step_along(saved, tmp_path):
    folder = _copy(saved, tmp_path)
    tf_pipeline.TFAutoModel.from_pretrained(checkpoint("esm")).save_pretrained(folder)
    assert not {STEP, STEP_CONSTANTS} & {path.name for path in folder.iterdir()}


def _copy(folder, target):
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_step_is_remembered_and_made_again_if_damaged(tmp_path, monkeypatch, caplog):
    ours, _ = causal_pair("gpt_neox")
    graph, step, name = ours.graph, ours.find_step(), torch_name(ours.config, CAUSAL)
    use_cache_of(monkeypatch, tmp_path)
    made = []
    monkeypatch.setattr(find, "_make_step", lambda *_: made.append(1) or Captured(step.graph, dict(step.constants)))
    for _ in range(2):
        assert find.find_step(name, ours.config, graph, "").graph == step.graph
    assert len(made) == 1
    (file,) = tmp_path.glob(f"ports/*/{STEP}")
    file.write_text(file.read_text()[:300])
    assert find.find_step(name, ours.config, graph, "").graph == step.graph
    assert len(made) == 2
    assert "what was remembered is damaged" in caplog.text


@pytest.mark.slow
def test_generate_inside_a_graph_and_from_a_saved_model(tmp_path):
    ours, _ = causal_pair("opt")
    signature = ours.generate_signature(max_length=17, pad_token_id=0, eos_token_id=9, do_sample=False)
    holder = tf.Module()
    holder.model = ours
    tf.saved_model.save(holder, str(tmp_path), {"generate": signature})
    given = {"input_ids": tf.constant(IDS, tf.int32), "attention_mask": tf.constant(MASK, tf.int32)}
    result = tf.saved_model.load(str(tmp_path)).signatures["generate"](**given)
    np.testing.assert_array_equal(result["sequences"], written(ours))
