"""Ports of models whose outputs are larger than they are: what the comparison with PyTorch holds at once."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

from benchmarks import tiny
from parity_tests.port_helpers import use_cache_of
from tf_pipeline.judging import rules
from tf_pipeline.port import capture, complete, gate
from tf_pipeline.port.gate_step import copied
from tf_pipeline.port.graph import Input
from tf_pipeline.port.runner import GraphRunner, in_dtype, weights_of
from tf_pipeline.reference.precision import in_float64

# Bytes of one number of an output that the comparison may hold: the truth in float64 with ours in float64, or with ours
# and PyTorch's in float32.
BYTES = 16


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    return use_cache_of(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def vit():
    """A port of 257 patches, whose attention is larger than its weights, and what it is measured by."""
    config = tiny.tiny_config("vit", image_size=64, patch_size=4)
    captured = capture.capture(transformers.ViTModel, config)
    return complete.complete(captured, transformers.ViTModel, config)


@pytest.fixture(scope="module")
def checks(vit):
    """What is compared."""
    return gate.check(*vit)


class Held:
    """Counts the bytes of tensors that were made and are still there, whenever two are compared."""

    def __init__(self, monkeypatch):
        self.tensors: list[tuple[weakref.ref, int]] = []
        self.moments: list[tuple[str, int]] = []
        self._watch(monkeypatch, gate, "reference_tensors")
        self._watch(monkeypatch, GraphRunner, "tensors")
        for rule in ("judge_float64", "judge_envelope"):
            self._count_at(monkeypatch, rule)

    def _watch(self, monkeypatch, owner, name: str) -> None:
        make = getattr(owner, name)

        def watched(*arguments):
            results = make(*arguments)
            width = 8 if any(x.dtype in (tf.float64, torch.float64) for x in results.values()) else 4
            self.tensors += [(weakref.ref(x), width * int(np.prod(x.shape))) for x in results.values()]
            return results

        monkeypatch.setattr(owner, name, watched)

    def _count_at(self, monkeypatch, rule: str) -> None:
        judge = getattr(rules, rule)

        def counted(name, setting, *arguments):
            self.moments.append((setting, sum(size for tensor, size in self.tensors if tensor() is not None)))
            return judge(name, setting, *arguments)

        monkeypatch.setattr(rules, rule, counted)


def test_a_comparison_holds_the_results_of_one_shape_and_dtype(vit, monkeypatch):
    held = Held(monkeypatch)
    checks = gate.check(*vit)
    sizes = {}
    for check in checks:
        if check.dtype == "float64":
            sizes[check.setting] = sizes.get(check.setting, 0) + check.elements
    weights = sum(weight.shape.num_elements() for weight in vit[1].weights.values())
    assert min(sizes.values()) > 5 * weights
    most = {setting: max(size for other, size in held.moments if other == setting) for setting in sizes}
    assert held.moments and all(0 < most[setting] <= BYTES * sizes[setting] for setting in sizes)
    # Each is let go of when it was compared.
    last = {setting: [size for other, size in held.moments if other == setting][-1] for setting in sizes}
    assert all(last[setting] < most[setting] / 4 for setting in sizes)


def test_signals_of_one_size_are_compared_alone_and_in_pairs(vit, checks):
    completed, measured = vit
    assert [tuple(inputs["pixel_values"].shape) for inputs in measured.samples] == [(1, 3, 64, 64), (2, 3, 64, 64)]
    assert completed.graph.sample[0] == 2
    compared = {(check.setting, check.dtype, check.name) for check in checks}
    outputs = [f"attentions.{i}" for i in range(2)] + [f"hidden_states.{i}" for i in range(3)]
    for setting in ("1 × 3 × 64 × 64", "2 × 3 × 64 × 64"):
        for dtype in ("float64", "float32"):
            assert {(setting, dtype, name) for name in [*outputs, "last_hidden_state"]} <= compared


def test_attention_that_is_too_large_is_compared_for_one_row(vit, checks, monkeypatch):
    captured, measured = vit
    one = [check for check in checks if check.setting.startswith("1 ×")]
    numbers = sum(check.elements for check in one if check.name.startswith("att") and check.dtype == "float64")
    monkeypatch.setattr(gate, "MOST_ATTENTION", 2 * numbers)
    assert len(gate.check(captured, measured)) == len(checks)
    monkeypatch.setattr(gate, "MOST_ATTENTION", 2 * numbers - 1)
    held = Held(monkeypatch)
    fewer = {(check.setting, check.dtype, check.name) for check in gate.check(captured, measured)}
    every = {(check.setting, check.dtype, check.name) for check in checks}
    two = "2 × 3 × 64 × 64"
    assert every - fewer == {(two, dtype, f"attentions.{i}") for dtype in ("float64", "float32") for i in range(2)}
    most = max(size for setting, size in held.moments if setting == two)
    assert most <= BYTES * sum(check.elements for check in one if check.dtype == "float64") / 2


def test_lengths_of_a_decoder_behind_a_signal_are_compared(vit):
    captured, config = vit[0], tiny.tiny_config("whisper")
    graph = captured.graph.part(("last_hidden_state",))
    graph.inputs = graph.inputs | {"decoder_input_ids": Input("int64", ["batch", "decoder_length"])}
    speech = capture.Captured(graph, {})
    assert complete.shapes(speech, config) == list(complete.SIGNAL_SHAPES)
    graph.inputs = graph.inputs | {"input_ids": Input("int64", ["batch", "length"])}
    assert complete.shapes(speech, config)[:3] == list(complete.SHAPES)


def test_runners_share_weights_and_let_go_of_them(vit):
    completed, measured = vit
    inputs = measured.samples[0]
    widened = in_dtype(measured.weights, "float64")
    key = next(key for key, weight in widened.items() if weight.dtype == tf.float64)
    kept, passing = weakref.ref(measured.weights[key]), weakref.ref(widened[key])
    runner = GraphRunner(completed, widened, "float64")
    exact = runner(inputs)
    del widened
    assert passing() is not None
    gc.disable()
    try:
        del runner
        assert passing() is None
    finally:
        gc.enable()
    again = GraphRunner(completed, measured.weights, "float64")(inputs)
    assert kept() is measured.weights[key] and kept().dtype == tf.float32
    for name, value in exact.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_model_is_of_float64_for_a_while(vit):
    model = torch.nn.BatchNorm1d(3)
    model.register_buffer("table", torch.tensor([1 / 3], dtype=torch.bfloat16))
    table, weight = model.table, model.weight.detach().clone()
    with pytest.raises(KeyError), in_float64(model):
        assert {x.dtype for x in model.state_dict().values()} == {torch.float64, torch.int64}
        model.weight.data *= 0.5  # as RWKV does when it first runs
        raise KeyError
    assert model.table is table and model.weight.dtype == torch.float32
    assert torch.equal(model.weight, weight * 0.5)
    assert vit[1].model.dtype == torch.float32


def test_weights_are_a_copy():
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    weights = weights_of(model)
    model.weight.data += 1
    np.testing.assert_array_equal(weights["weight"], before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_logits_of_one_token_do_not_hold_all(dtype):
    logits = torch.arange(24, dtype=dtype).reshape(2, 4, 3)
    last = copied(logits[:, -1])
    assert last.flags.owndata and last.dtype == np.float64
    np.testing.assert_array_equal(last, logits.numpy()[:, -1])
