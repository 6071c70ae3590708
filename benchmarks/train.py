"""Training steps of a BERT-base classifier: ``fit`` of tf_pipeline against PyTorch and KerasHub, in one run.

    pip install ".[bench]"
    python benchmarks/train.py
    python benchmarks/train.py --dtypes float32 --engines ours torch --batch 8 --length 64
    python benchmarks/train.py --json train.json

Every contender starts from the same random weights and takes the same batches with AdamW. First without dropout: the
losses of three steps have to be those of float32 PyTorch. Then with dropout 0.1, as in fine-tuning, the steps are
timed. In bfloat16, weights are float32 and products bfloat16: autocast in PyTorch, ``mixed_bfloat16`` in Keras. The
number reported is PyTorch eager's median time over the contender's, in the same dtype. Memory is what a process of its
own takes at most to load the model and take three steps, without what its imports take, as a multiple of PyTorch's.
KerasHub's classifier has a pooler of its own, so that its losses are not compared.
"""

import argparse
import importlib
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    Apart,
    ContenderError,
    add_common_options,
    add_engine_options,
    bert_base,
    chosen_engines,
    console,
    environment,
    interleave,
    missing_packages,
    positive,
    print_environment,
    print_table,
    ratio,
    show,
    tensorflow_with,
    watch_others,
    work_folder,
    write_json,
)
from load import peak_memory, reset_peak

DTYPES = ("float32", "bfloat16")
RATE, DECAY = 2e-5, 0.01
# Steps whose losses are compared, and the largest difference from float32 PyTorch.
CHECKED, TOLERANCE = 3, {"float32": 1e-3, "bfloat16": 3e-2}
VOCABULARY = 30522


def batches(number: int, batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens ``[number · batch, length]`` and labels."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, VOCABULARY, (number * batch, length)).astype(np.int32)
    return ids, random.integers(0, 2, number * batch).astype(np.int32)


class Trainer:
    """One way to train, made inside a process of its own.

    Attributes:
        label: name in the report.
        packages: modules that it needs.
        imports: modules that are no part of the memory which training takes.
        is_compared: whether its losses have to be PyTorch's.
    """

    label, packages, imports, is_compared = "", (), (), True

    def __init__(self, checkpoint: Path, dtype: str, threads: int, batch: int):
        self.checkpoint, self.dtype, self.threads, self.batch = checkpoint, dtype, threads, batch

    def _make(self, dropout: float) -> Any:
        """A model that is ready to train."""
        raise NotImplementedError

    def _train(self, model: Any, ids: np.ndarray, labels: np.ndarray) -> list[float]:
        """Take a step for each batch; returns losses."""
        raise NotImplementedError

    def losses(self, ids: np.ndarray, labels: np.ndarray) -> list[float]:
        """Losses without dropout."""
        return self._train(self._make(0.0), ids, labels)

    def memory(self, ids: np.ndarray, labels: np.ndarray) -> int:
        """Bytes that it takes at most to make the model with dropout and train it a little, in a new process."""
        for module in self.imports:
            importlib.import_module(module)
        before = reset_peak()
        self._train(self._make(0.1), ids, labels)
        return peak_memory() - before

    def warm_up(self, ids: np.ndarray, labels: np.ndarray) -> float:
        """Make the model with dropout and train it a little: seconds of that."""
        self.model = self._make(0.1)
        start = time.perf_counter()
        self._train(self.model, ids, labels)
        return time.perf_counter() - start

    def time(self, ids: np.ndarray, labels: np.ndarray) -> float:
        """Seconds of a step, in the mean of all batches."""
        start = time.perf_counter()
        self._train(self.model, ids, labels)
        return (time.perf_counter() - start) / (len(ids) / self.batch)


class Torch(Trainer):
    """PyTorch eager, with its fused AdamW."""

    label, packages, is_compiled = "PyTorch eager", ("torch",), False
    imports = ("torch", "transformers.models.bert.modeling_bert")

    def _make(self, dropout):
        import torch
        from transformers import BertForSequenceClassification

        torch.set_num_threads(self.threads)
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        model = BertForSequenceClassification.from_pretrained(self.checkpoint, **rates).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, eps=1e-7, fused=True)
        run = torch.compile(model) if self.is_compiled else model
        return run, optimizer

    def _train(self, model, ids, labels):
        import torch

        run, optimizer = model
        losses = []
        for start in range(0, len(ids), self.batch):
            part = slice(start, start + self.batch)
            inputs = {"input_ids": torch.from_numpy(ids[part]).long(), "labels": torch.from_numpy(labels[part]).long()}
            with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
                loss = run(**inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses


class TorchCompile(Torch):
    """PyTorch through torch.compile."""

    label, is_compiled = "torch.compile", True


class _Keras(Trainer):
    """A Keras model and ``fit``, which reports the mean of all losses so far."""

    def __init__(self, checkpoint: Path, dtype: str, threads: int, batch: int):
        super().__init__(checkpoint, dtype, threads, batch)
        tensorflow_with(threads)

    def _policy(self) -> str:
        return "float32" if self.dtype == "float32" else "mixed_bfloat16"

    def _inputs(self, ids: np.ndarray, labels: np.ndarray) -> tuple:
        raise NotImplementedError

    def _train(self, model, ids, labels):
        import keras

        means: list[float] = []
        each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: means.append(logs["loss"]))
        x, y = self._inputs(ids, labels)
        model.fit(x, y, batch_size=self.batch, shuffle=False, verbose=0, callbacks=[each])
        sums = [mean * number for number, mean in enumerate(means, 1)]
        return [after - before for before, after in zip([0.0, *sums], sums, strict=False)]


class Ours(_Keras):
    """tf_pipeline, with the model's own loss."""

    label, packages, imports = "tf_pipeline", ("tensorflow",), ("keras", "tf_pipeline.models.bert")

    def _make(self, dropout):
        from tf_pipeline import AdamWeightDecay, TFBertForSequenceClassification

        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        model = TFBertForSequenceClassification.from_pretrained(self.checkpoint, dtype=self._policy(), **rates)
        model.compile(AdamWeightDecay(RATE, weight_decay_rate=DECAY))
        return model

    def _inputs(self, ids, labels):
        return {"input_ids": ids, "labels": labels}, None


class KerasHub(_Keras):
    """KerasHub's classifier over the same body."""

    label, packages, imports = "KerasHub", ("keras_hub", "tensorflow"), ("keras", "keras_hub")
    is_compared = False

    def _make(self, dropout):
        import keras
        import keras_hub

        backbone = keras_hub.models.BertBackbone.from_preset(
            str(self.checkpoint), dtype=self._policy(), dropout=dropout
        )
        model = keras_hub.models.BertTextClassifier(backbone, 2, dropout=dropout)
        optimizer = keras.optimizers.AdamW(RATE, weight_decay=DECAY)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def _inputs(self, ids, labels):
        return {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}, labels


ENGINES: dict[str, type[Trainer]] = {
    "ours": Ours, "torch": Torch, "torch-compile": TorchCompile, "kerashub": KerasHub,
}  # fmt: skip


@dataclass
class Row:
    """Result of one contender in one dtype.

    Attributes:
        losses: of the first steps, without dropout.
        first: seconds of the first steps with dropout, compilation included.
        bytes: peak of memory, the model's included.
        seconds: of a step, by round.
        against_torch: ratio of medians, PyTorch eager's over this one's.
        reason: why it was not timed.
    """

    engine: str
    dtype: str
    losses: list[float] = field(default_factory=list)
    first: float | None = None
    bytes: int | None = None
    seconds: list[float] = field(default_factory=list)
    against_torch: dict[str, float] | None = None
    reason: str | None = None


def start(args: argparse.Namespace, dtype: str, checkpoint: Path, folder: Path) -> tuple[list[Row], dict[str, Apart]]:
    """A row and a process for each contender; one that cannot run, or computes something else, gets the reason."""
    rows, processes = [], {}
    few, reference = batches(CHECKED, args.batch, args.length), None
    for name in sorted(args.engines, key=lambda name: name != "torch"):
        trainer = ENGINES[name]
        row = Row(trainer.label, dtype)
        rows.append(row)
        if missing := missing_packages(trainer.packages):
            row.reason = f"{', '.join(missing)} not installed"
            continue
        with console.status(f"Warming up {trainer.label}, {dtype}"):
            try:
                given = (trainer, checkpoint, dtype, args.threads, args.batch)
                with Apart(*given, log=folder / f"train-{name}-{dtype}-memory.log") as process:
                    row.bytes = process.call("memory", *few)
                log = folder / f"train-{name}-{dtype}.log"
                process = processes[trainer.label] = Apart(*given, log=log)
                row.losses = process.call("losses", *few)
                reference = row.losses if reference is None else reference
                difference = np.abs(np.subtract(row.losses, reference)).max()
                if trainer.is_compared and not difference <= TOLERANCE[dtype]:
                    row.reason = f"wrong: a loss is off by {difference:.1e}, limit {TOLERANCE[dtype]:.0e}"
                else:
                    row.first = process.call("warm_up", *few)
            except ContenderError as error:
                row.reason = str(error)
    if rows[0].reason:
        raise SystemExit(f"PyTorch does not run: {rows[0].reason}")
    return rows, processes


def measure(args: argparse.Namespace, dtype: str, checkpoint: Path, folder: Path) -> list[Row]:
    """Time every contender in one dtype, in turns."""
    rows, processes = start(args, dtype, checkpoint, folder)
    try:
        data = batches(args.steps, args.batch, args.length)
        running = {row.engine: row for row in rows if row.reason is None}
        found = interleave(running, args.rounds, lambda name: processes[name].call("time", *data), f"Training, {dtype}")
    finally:
        for process in processes.values():
            process.close()
    for name, row in running.items():
        row.seconds = found[name]
        row.against_torch = ratio(found[Torch.label], row.seconds)
    return rows


def print_rows(rows: list[Row], title: str) -> None:
    """One table for a dtype."""
    unit = rows[0].bytes
    cells = [
        [
            row.engine,
            show(row.against_torch) if row.reason is None else f"not run: {row.reason}",
            "–" if row.bytes is None else f"{row.bytes / unit:.2f}",
            "–" if row.first is None else f"{row.first:.1f}",
        ]
        for row in rows
    ]
    columns = ["engine", "speed, PyTorch eager = 1 (quartiles)", "memory, PyTorch = 1", f"first {CHECKED} steps, s"]
    print_table(title, columns, cells)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_engine_options(parser, ENGINES, DTYPES, ". Each takes 3 to 5 GB")
    parser.add_argument(
        "--batch", type=positive, default=16, metavar="N", help="texts in a step (default: %(default)s)"
    )
    parser.add_argument(
        "--length", type=positive, default=128, metavar="N", help="tokens of each (default: %(default)s)"
    )
    parser.add_argument("--steps", type=positive, default=4, metavar="N", help="in a round (default: %(default)s)")
    add_common_options(parser, rounds=5)
    args = parser.parse_args()
    args.engines = chosen_engines(args.engines, ENGINES)
    return args


def main() -> None:
    """Measure, print, and write what was asked for."""
    args = parse()
    facts = environment(args.threads)
    print_environment(facts)
    with work_folder(args.work) as folder, watch_others(facts):
        checkpoint = bert_base(folder)
        rows = [row for dtype in args.dtypes for row in measure(args, dtype, checkpoint, folder)]
    for dtype in args.dtypes:
        title = f"BERT-base, {args.batch} × {args.length} tokens, AdamW, {dtype}"
        print_rows([row for row in rows if row.dtype == dtype], title)
    write_json(args.json, {"environment": facts, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
