"""Load a checkpoint of BERT-base's size (438 MB in float32): time and peak memory, against transformers on PyTorch.

    pip install ".[bench]"
    python benchmarks/load.py
    python benchmarks/load.py --rounds 9 --json load.json

Each measurement is a fresh process that has done its imports and run one operation; the file is in the page cache.
``from_pretrained`` of PyTorch maps the file and reads a weight when it is first used, ours reads all of it. So the
second line counts more: ``from_pretrained`` with a first forward pass of 1 × 16 tokens. PyTorch has then read all but
the word embeddings that these tokens do not use. Memory is the process's peak above what it held before, as a multiple
of the file; pages of a mapped file, which other processes may share, count like any other.

The last contender reads no file: it makes as many of Keras' own layers as the model has, with variables of zeros, which
is what a model of Keras takes at least.
"""

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness import (
    Apart,
    add_common_options,
    bert_base,
    console,
    environment,
    interleave,
    print_environment,
    print_table,
    ratio,
    show,
    watch_others,
    work_folder,
    write_json,
)

SHAPE = (1, 16)


class Loader:
    """One way to load, made inside a fresh process; making it does the imports.

    Attributes:
        label: name in the report.
    """

    label = ""

    def _load(self, checkpoint: Path) -> Any:
        """Load the checkpoint."""
        raise NotImplementedError

    def _forward(self, model: Any) -> np.ndarray:
        """Logits of a first forward pass."""
        raise NotImplementedError

    def measure(self, checkpoint: Path) -> dict[str, Any]:
        """Seconds and bytes of loading, and of loading with the first forward pass."""
        before = reset_peak()
        start = time.perf_counter()
        model = self._load(checkpoint)
        loaded, peak_loaded = time.perf_counter() - start, peak_memory() - before
        logits = self._forward(model)
        run, peak_run = time.perf_counter() - start, peak_memory() - before
        held = psutil.Process().memory_info().rss - before
        return {
            "seconds": {"load": loaded, "first": run},
            "bytes": {"load": peak_loaded, "first": peak_run, "held": held},
            "logits": logits.tolist(),
        }


class Torch(Loader):
    """transformers on PyTorch."""

    label = "PyTorch"

    def __init__(self):
        import torch
        from transformers import BertForSequenceClassification

        self.torch, self.model_class = torch, BertForSequenceClassification
        torch.ones(8, 8) @ torch.ones(8, 8)

    def _load(self, checkpoint):
        return self.model_class.from_pretrained(checkpoint)

    def _forward(self, model):
        with self.torch.inference_mode():
            return model(self.torch.ones(SHAPE, dtype=self.torch.long)).logits.numpy()


class Ours(Loader):
    """tf_pipeline, the model called directly."""

    label = "tf_pipeline"

    def __init__(self):
        import tensorflow as tf

        from tf_pipeline import TFBertForSequenceClassification

        self.tf, self.model_class = tf, TFBertForSequenceClassification
        tf.matmul(tf.ones([8, 8]), tf.ones([8, 8])).numpy()

    def _load(self, checkpoint):
        return self.model_class.from_pretrained(checkpoint)

    def _forward(self, model):
        return model(self.tf.ones(SHAPE, self.tf.int32)).logits.numpy()


class OursCompiled(Ours):
    """tf_pipeline, the forward pass as one graph; tracing it is part of the time."""

    label = "tf_pipeline, tf.function"

    def _forward(self, model):
        signature = [self.tf.TensorSpec([None, None], self.tf.int32)]
        graph = self.tf.function(lambda ids: model(ids).logits, signature, autograph=False)
        return graph(self.tf.ones(SHAPE, self.tf.int32)).numpy()


class KerasLayers(Loader):
    """Keras' own layers, as many as the model has and of its sizes, with zeros and without a file; none computes."""

    label = "Keras' layers alone"

    def __init__(self):
        import keras
        import transformers

        self.layers, self.config_class = keras.layers, transformers.BertConfig
        self._dense(2, 3)

    def _dense(self, units: int, inputs: int) -> None:
        self.layers.Dense(units, kernel_initializer="zeros").build((None, inputs))

    def _norm_and_dropout(self, width: int) -> None:
        self.layers.LayerNormalization().build((None, width))
        self.layers.Dropout(0.1)

    def _load(self, checkpoint):
        config = self.config_class.from_pretrained(checkpoint)
        width, inner = config.hidden_size, config.intermediate_size
        for words in (config.vocab_size, config.max_position_embeddings, config.type_vocab_size):
            self.layers.Embedding(words, width, embeddings_initializer="zeros").build(None)
        self._norm_and_dropout(width)
        for _ in range(config.num_hidden_layers):
            for _ in range(4):  # queries, keys, values and what joins the heads
                self._dense(width, width)
            self.layers.Dropout(0.1)  # of attention
            self._norm_and_dropout(width)
            self._dense(inner, width)
            self._dense(width, inner)
            self._norm_and_dropout(width)
        self._dense(width, width)  # the pooler
        self.layers.Dropout(0.1)
        self._dense(config.num_labels, width)

    def _forward(self, model):
        return np.empty(0)


LOADERS: dict[str, type[Loader]] = {loader.label: loader for loader in (Torch, Ours, OursCompiled, KerasLayers)}


def reset_peak() -> int:
    """Forget the peak so far, where the system can; returns the bytes now resident."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
        return psutil.Process().memory_info().rss
    return peak_memory()


def peak_memory() -> int:
    """Most bytes resident since :func:`reset_peak`."""
    if sys.platform == "linux":
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(checkpoint: Path, rounds: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Measurements of every loader, in turns; the first of each only warms the page cache and is dropped."""

    def fresh(label: str) -> dict[str, Any]:
        with Apart(LOADERS[label], log=folder / "load.log") as process:
            return process.call("measure", checkpoint)

    return {label: found[1:] for label, found in interleave(LOADERS, rounds + 1, fresh, "Loading").items()}


def check(results: dict[str, list[dict[str, Any]]]) -> float:
    """Largest difference of a logit from PyTorch's.

    Raises:
        SystemExit: if it is too large for a measurement to mean anything.
    """
    reference = np.array(results[Torch.label][0]["logits"])
    worst = max(
        float(np.max(np.abs(np.array(one["logits"]) - reference)))
        for found in results.values()
        for one in found
        if one["logits"]
    )
    if not worst <= 1e-3:
        raise SystemExit(f"wrong: logits differ from PyTorch's by {worst:.1e}")
    return worst


def print_results(results: dict[str, list[dict[str, Any]]], size: int) -> None:
    """Two tables: speed against PyTorch, and memory as a multiple of the file."""

    def seconds(label: str, what: str) -> list[float]:
        return [one["seconds"][what] for one in results[label]]

    def multiple(label: str, what: str) -> str:
        return f"{statistics.median(one['bytes'][what] for one in results[label]) / size:.2f}"

    def speed(label: str, what: str) -> str:
        return show(ratio(seconds(Torch.label, what), seconds(label, what)))

    columns = ["", "from_pretrained (PyTorch has not read the weights)", "from_pretrained + first forward"]
    rows = [
        [label, speed(label, "load"), speed(label, "first") if found[0]["logits"] else "–"]
        for label, found in results.items()
    ]
    print_table("Speed, PyTorch = 1 (quartiles)", columns, rows)
    rows = [[label, *(multiple(label, what) for what in ("load", "first", "held"))] for label in results]
    columns = ["", "peak of from_pretrained", "peak with first forward", "held after it"]
    print_table(f"Memory above the imports, the file's {size / 1e6:.0f} MB = 1", columns, rows)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, rounds=7)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write what was asked for."""
    args = parse()
    facts = environment()
    print_environment(facts)
    with work_folder(args.work) as folder, watch_others(facts):
        checkpoint = bert_base(folder)
        size = (checkpoint / "model.safetensors").stat().st_size
        results = run(checkpoint, args.rounds, folder)
    difference = check(results)
    print_results(results, size)
    console.print(f"Largest difference of a logit: {difference:.1e}")
    write_json(args.json, {"environment": facts, "file_bytes": size, "results": results})


if __name__ == "__main__":
    main()
