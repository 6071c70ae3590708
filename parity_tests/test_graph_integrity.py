"""Graphs that were altered, or that this release cannot run, are refused when they are loaded."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf_pipeline
from benchmarks import tiny
from parity_tests.checkpoint_helpers import copied, new_folder
from parity_tests.port_helpers import checkpoint, shared_cache, use_cache_of
from tf_pipeline.port import find
from tf_pipeline.port.graph import CONSTANTS, GRAPH, Graph, GraphError

IDS = np.arange(5, 15)[np.newaxis]


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


@cache
def saved() -> Path:
    """A ported model's folder; shared, so nobody writes to it."""
    shared_cache()
    folder = new_folder()
    tf_pipeline.TFAutoModel.from_pretrained(checkpoint("gpt_neox")).save_pretrained(folder)
    return folder


def alter(path: Path, change) -> None:
    """Change the JSON of a graph."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def use_relu(values: dict) -> None:
    """Another activation, and nothing else."""
    nodes = [node for node in values["nodes"] if node["op"] == "aten.gelu.default"]
    assert nodes
    for node in nodes:
        node["op"] = "aten.relu.default"
        node.pop("kwargs", None)


def no_checksums(values: dict) -> None:
    """Another activation, and no checksum that could tell."""
    use_relu(values)
    del values["checksums"]


def empty_checksums(values: dict) -> None:
    """Another activation, and checksums of nothing."""
    use_relu(values)
    values["checksums"] = {}


def older_version(values: dict) -> None:
    """A file of the version that had no checksums."""
    no_checksums(values)
    values["version"] = 1


def sign(values: dict) -> None:
    """Make the checksum right again."""
    rest = {key: value for key, value in values.items() if key != "checksums"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    values["checksums"]["graph"] = hashlib.sha256(text.encode()).hexdigest()


def unknown_operator(values: dict) -> None:
    """An operator of a later release, in a graph whose checksum is right."""
    values["nodes"][-1]["op"] = "aten.from_the_future.default"
    sign(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (use_relu, "was altered"),
        (no_checksums, "was altered"),
        (empty_checksums, "was altered"),
        (older_version, "is of version 1, but this release reads version 2"),
        (unknown_operator, "no rule in this release: aten.from_the_future.default"),
        (lambda values: values["checksums"].pop("constants"), "was altered"),
        (lambda values: values["layouts"].clear(), "was altered"),
    ],
)
def test_a_checkpoints_own_graph_that_was_altered_is_refused(change, message):
    folder = copied(saved())
    alter(folder / GRAPH, change)
    with pytest.raises(GraphError, match=message):
        tf_pipeline.TFAutoModel.from_pretrained(folder)


def test_what_is_written_otherwise_and_says_the_same_is_read():
    folder = copied(saved())
    alter(folder / GRAPH, lambda values: None)  # without its lines
    model = tf_pipeline.TFAutoModel.from_pretrained(folder)
    np.testing.assert_array_equal(model(IDS)[0], tf_pipeline.TFAutoModel.from_pretrained(saved())(IDS)[0])


def altered_constants(path: Path) -> None:
    """Other numbers in a file of the same shape."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_altered_constants_are_refused():
    folder = copied(saved())
    altered_constants(folder / CONSTANTS)
    with pytest.raises(GraphError, match=f"{CONSTANTS} was altered"):
        tf_pipeline.TFAutoModel.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", [GRAPH, CONSTANTS])
def test_a_remembered_graph_that_was_altered_is_ported_again(name, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(tmp_path))
    folder = checkpoint("gpt_neox")
    before = tf_pipeline.TFAutoModel.from_pretrained(folder)(IDS)[0]
    (path,) = tmp_path.glob(f"ports/*/{name}")
    alter(path, no_checksums) if name == GRAPH else altered_constants(path)
    after = tf_pipeline.TFAutoModel.from_pretrained(folder)(IDS)[0]
    np.testing.assert_array_equal(before, after)
    assert "is ported again: what was remembered is damaged" in caplog.text
    graph, _ = Graph.read(path.with_name(GRAPH), path.with_name(CONSTANTS))
    assert "aten.gelu.default" in graph.operators()


def test_graphs_of_other_code_are_not_used(monkeypatch):
    config = tiny.tiny_config("gpt_neox")
    before = find._cache_folder("GPTNeoXModel", config)
    assert before == find._cache_folder("GPTNeoXModel", config)
    monkeypatch.setattr(find, "_code", lambda: "other code")
    assert before != find._cache_folder("GPTNeoXModel", config)


@pytest.mark.parametrize("changed", ["port/find.py", "port/rules/linear.py", "reference/rotary.py"])
def test_the_digest_is_of_all_code_that_makes_graphs(changed, monkeypatch, tmp_path):
    monkeypatch.setattr(find, "__file__", str(tmp_path / "port" / "find.py"))
    digests = []
    for text in ("a = 1", "a = 2"):
        for name in ("port/find.py", "port/rules/linear.py", "reference/rotary.py"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text if name == changed else "")
        digests.append(find._code.__wrapped__())
    assert digests[0] != digests[1]


def test_constants_are_saved_as_captured_whatever_the_dtype():
    folder, half = checkpoint("gpt_neox"), new_folder()
    tf_pipeline.TFAutoModel.from_pretrained(folder, dtype="bfloat16").save_pretrained(half)
    single = new_folder()
    tf_pipeline.TFAutoModel.from_pretrained(folder).save_pretrained(single)
    assert tf.io.gfile.exists(str(half / CONSTANTS))
    assert (half / CONSTANTS).read_bytes() == (single / CONSTANTS).read_bytes()
