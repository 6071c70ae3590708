"""One attempt of ``benchmarks/coverage.py`` is equal, and one with a planted mistake is not."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.reload import Reloader, Request
from parity_tests.checkpoint_helpers import WEIGHTS
from parity_tests.port_helpers import shared_cache, use_cache_of
from tf_pipeline.port.graph import CONSTANTS, GRAPH, Graph

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CAUSAL_LM = "TFAutoModelForCausalLM"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reloader():
    with Reloader() as started:
        yield started


@pytest.fixture
def benchmark(monkeypatch, reloader):
    """The script as a module, which finds those beside it as a script does."""
    use_cache_of(monkeypatch, shared_cache())
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("coverage_benchmark", BENCHMARKS / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Planting(Reloader):
    """Changes what was saved before it is loaded again."""

    def __init__(self, reloader, change):
        self._reloader, self._change = reloader, change

    def load(self, request: Request):
        self._change(Path(request.folder))
        return self._reloader.load(request)


def change_a_weight(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.bias"
    tensors[name][0] += 1e-3
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def change_the_graph(folder: Path) -> None:
    graph, constants = Graph.read(folder / GRAPH, folder / CONSTANTS)
    place, node = next((i, node) for i, node in enumerate(graph.nodes) if node.op == "aten.gelu.default")
    graph.nodes[place] = replace(node, op="aten.relu.default", kwargs={})
    graph.write(folder, constants)


def test_an_attempt_is_equal(benchmark, reloader, tmp_path):
    result = benchmark.attempt("gpt_neox", CAUSAL_LM, tmp_path, reloader)
    assert (result["outcome"], result["class"]) == ("equal", "GPTNeoXForCausalLM"), result
    assert result["generates"] == "equal"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_a_weight, "gpt_neox.layers.1.mlp.dense_h_to_4h.bias is read again with other values"),
        (change_the_graph, "does not compute what PyTorch does"),
    ],
)
def test_a_planted_mistake_is_unequal(benchmark, reloader, tmp_path, change, reason):
    result = benchmark.attempt("gpt_neox", CAUSAL_LM, tmp_path, Planting(reloader, change))
    assert result["outcome"] == "unequal"
    assert reason in result["reason"], result
