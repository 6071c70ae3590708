"""Processes that save, port and export again and again are killed at random moments: what is there is always whole."""

import logging
import shutil
import time
from types import SimpleNamespace

import pytest
import tensorflow as tf

from parity_tests.checkpoint_helpers import checkpoint, copied, ours, twin, weights
from parity_tests.kill_helpers import contents, ended, forked, killed_at_random, litter, write_files
from parity_tests.pipeline_helpers import tiny_with_tokenizer
from tf_pipeline.pipelines import pipeline
from tf_pipeline.port import port
from tf_pipeline.port import save as port_save
from tf_pipeline.serving import export as exports
from tf_pipeline.serving.export.server_files import write_server_files

MINE = {"README.md": "mine", "notes/today.txt": "mine"}
SEED = 20261123


def visible(folder):
    return {name: digest for name, digest in contents(folder).items() if not name.startswith(".saving-")}


def seconds_of(work) -> float:
    """How long something takes, the second time, in a process of its own: a large one takes a while to fork."""
    ended(forked(work))
    start = time.monotonic()
    ended(forked(work))
    return time.monotonic() - start


def killed_between(tmp_path, saves, check, TRIALS: int) -> str:
    """Kill processes that save one checkpoint and another in turns; require that one of them is there, and load it.

    Args:
        tmp_path: an empty folder.
        saves: saves either to a folder.
        check: loads a folder and compares it with what was saved there.
        TRIALS: how many processes are killed.

    Returns:
        What was counted.
    """
    legal = []
    for number, save in enumerate(saves):
        write_files(tmp_path / str(number), MINE)
        save(tmp_path / str(number))
        legal.append(contents(tmp_path / str(number)))
    folder = tmp_path / "model"
    longest = 2 * seconds_of(lambda: [save(folder) for save in saves])
    shutil.rmtree(folder)
    write_files(folder, MINE)
    saves[0](folder)
    found, left, saved = [], 0, 0
    for complete in killed_at_random(lambda number: saves[number % 2](folder), TRIALS, longest, SEED):
        found.append(legal.index(visible(folder)))
        check[found[-1]](folder)
        assert len(litter(folder)) <= 1  # that of the last one at most
        left, saved = left + len(litter(folder)), saved + complete
    saves[0](folder)
    assert contents(folder) == legal[0] and not litter(folder)
    assert TRIALS < 10 or (set(found) == {0, 1} and left and saved)
    counts = f"{TRIALS} killed, {saved} saves complete, {left} left something behind"
    return f"{counts}; found {found.count(0)} times the one checkpoint, {found.count(1)} times the other"


def same_weights(class_name, model):
    expected = weights(model)

    def check(folder):
        loaded = weights(ours(class_name, folder, dtype="auto"))
        assert {key: value.tobytes() for key, value in loaded.items()} == {
            key: value.tobytes() for key, value in expected.items()
        }

    return check


pytestmark = pytest.mark.slow
TRIALS = 30


def test_save_pretrained(tmp_path, capsys):
    name = "TFBertForSequenceClassification"
    one = ours(name, checkpoint(name))
    other = ours(name, checkpoint(name, num_labels=7, hidden_act="relu"), dtype="bfloat16")
    saves = [one.save_pretrained, lambda folder: other.save_pretrained(folder, max_shard_size="20KB")]
    counts = killed_between(tmp_path, saves, [same_weights(name, one), same_weights(name, other)], TRIALS)
    for number in range(2):  # what was found is what PyTorch reads
        assert twin(name, tmp_path / str(number)).config.num_labels == (one, other)[number].config.num_labels
    with capsys.disabled():
        print(f"\nsave_pretrained: {counts}")


def test_port(tmp_path, capsys, minilm):
    logging.disable(logging.WARNING)
    try:
        sources, saves, checks = [], [], []
        for labels in (2, 7):
            source = copied(checkpoint("TFBertForSequenceClassification", num_labels=labels))
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(minilm / file, source)
            sources.append(source)
            model = port(source, tmp_path / f"port-{labels}", task="text-classification")
            saves.append(lambda folder, model=model, source=source: port_save.save_ported(model, source, folder))
            expected = weights(model)

            def check(folder, expected=expected):
                loaded = weights(port_save.load_ported(folder, None, None))
                assert all(loaded[key].tobytes() == value.tobytes() for key, value in expected.items())

            checks.append(check)
        counts = killed_between(tmp_path, saves, checks, TRIALS)
    finally:
        logging.disable(logging.NOTSET)
    with capsys.disabled():
        print(f"\nport: {counts}")


def test_export(tmp_path, capsys, minilm, monkeypatch):
    """What takes long, and needs TensorFlow's threads, is done once, before processes are forked."""
    from transformers import AutoTokenizer

    source = tiny_with_tokenizer("TFBertForSequenceClassification", AutoTokenizer.from_pretrained(minilm))
    pipe = pipeline("text-classification", str(source))
    exports._save(exports._served(pipe, False, 16, {}), tmp_path / "graph")
    for name, value in {
        "_pipeline": pipe, "_served": None, "_compare_tokenizers": None, "lint": [], "sample_inputs": [],
        "compare_answers": (0, 0.0),
    }.items():  # fmt: skip
        monkeypatch.setattr(exports, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(exports, "_save", lambda served, folder: shutil.copytree(tmp_path / "graph", folder))
    monkeypatch.setattr(tf.saved_model, "load", lambda folder: SimpleNamespace(signatures={}))

    def write(version, folder=tmp_path / "served"):
        exports.export(str(source), None, folder, "text-classification", version=version, name="m", warmup=False)

    def alone(version):
        """The files of an export of a version, from the description of the server's files alone."""
        folder = tmp_path / f"alone-{version}"
        shutil.copytree(tmp_path / "graph", folder / str(version))
        write_server_files(
            folder, name="m", task="text-classification", checkpoint=pipe.model.config._name_or_path, version=version,
            batch_size=32, packed_weights=True,
        )  # fmt: skip
        found = contents(folder)
        shutil.rmtree(folder)
        return found

    folder, before, complete_versions, left, last = tmp_path / "served", {}, 0, 0, 0
    longest = 2 * seconds_of(lambda: [shutil.rmtree(folder, ignore_errors=True), write(1)])
    shutil.rmtree(folder)
    beside = {name for name in alone(1) if not name.startswith("1/")}
    for complete in killed_at_random(lambda number: write(number + 1), TRIALS, longest, SEED):
        versions = range(last + 1, last + complete + 2)
        there = visible(folder) if folder.exists() else {}
        attempted = versions[-1]
        for version in versions:
            mine = {name: digest for name, digest in there.items() if name.startswith(f"{version}/")}
            assert mine or version == attempted
            assert not mine or mine == {n: d for n, d in alone(version).items() if n.startswith(f"{version}/")}
            complete_versions += bool(mine)
        legal = [before, *map(alone, versions[-2:])]
        for name in beside & set(there):
            assert there[name] in [found.get(name) for found in legal], name
        assert not there or beside <= set(there)
        left += len(litter(folder))
        assert len(litter(folder)) <= 1
        before, last = there, attempted
        for path in folder.glob("[0-9]*"):
            shutil.rmtree(path)
    write(last + 1)
    assert not litter(folder) and set(visible(folder)) == set(alone(last + 1))
    assert left and complete_versions
    with capsys.disabled():
        print(f"\nexport: {TRIALS} killed, {complete_versions} versions, all whole; {left} left something behind")
