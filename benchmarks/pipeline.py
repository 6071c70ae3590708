"""Film reviews through ``pipeline("sentiment-analysis")``: tf_pipeline against transformers on PyTorch.

    pip install ".[bench]"
    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --texts 0 --rounds 5 --json pipeline.json
    python benchmarks/pipeline.py --data movieReviewSnippets_GroundTruth.txt --texts 500 --batch-sizes 8 32

Both read one checkpoint: the real MiniLM-L6 with a random head of two labels. The number reported is texts per second
over PyTorch's at the best of its batch sizes, tokenising and post-processing included. Two more rows of PyTorch say
what its user could do: sort the texts by length first, or compute in bfloat16.

The limit is the time that the matrix products of the real tokens, without any padding, take at the rate of the
processor's multiply-adds (see ``limits.py``); the share is the limit over the time measured.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness import (
    Apart,
    ContenderError,
    add_common_options,
    add_pipeline_options,
    console,
    environment,
    film_reviews,
    interleave,
    measured_limits,
    minilm_checkpoint,
    operations,
    print_environment,
    print_table,
    ratio,
    show,
    watch_others,
    work_folder,
    write_json,
)
from limits import Limits
from transformers import AutoConfig, AutoTokenizer

# Texts run before anything is timed: enough to trace our graph and to settle every thread pool.
WARM_UP = 64
# Batch size of the rows of PyTorch that sort or compute in bfloat16.
EXTRA_BATCH_SIZE = 32
# Largest difference of a score from PyTorch's in float32.
TOLERANCE = 1e-4

CLASS, LABELS = "BertForSequenceClassification", ("NEGATIVE", "POSITIVE")

Answers = list[dict]


class TorchPipeline:
    """transformers' own pipeline; made inside its own process."""

    def __init__(self, checkpoint: Path, dtype: str):
        import torch
        from transformers import pipeline

        self.pipe = pipeline("sentiment-analysis", model=str(checkpoint), dtype=getattr(torch, dtype), device="cpu")

    def run(self, texts: list[str], batch_size: int | None, by_length: bool) -> tuple[float, Answers]:
        """Classify; returns the seconds and the answers in the order of the texts."""
        start = time.perf_counter()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i])) if by_length else range(len(texts))
        found = self.pipe([texts[i] for i in order], batch_size=batch_size, truncation=True)
        answers: Answers = [{}] * len(texts)
        for position, answer in zip(order, found, strict=True):
            answers[position] = answer
        return time.perf_counter() - start, answers

    def trace_count(self) -> int | None:
        """PyTorch runs eagerly: nothing is traced."""
        return None


class OurPipeline:
    """tf_pipeline; made inside its own process."""

    def __init__(self, checkpoint: Path, dtype: str):
        from tf_pipeline import pipeline

        self.pipe = pipeline("sentiment-analysis", model=str(checkpoint), dtype=dtype)

    def run(self, texts: list[str], batch_size: int | None, by_length: bool) -> tuple[float, Answers]:
        """Classify; returns the seconds and the answers in the order of the texts."""
        start = time.perf_counter()
        answers = self.pipe(texts, truncation=True)
        return time.perf_counter() - start, answers

    def trace_count(self) -> int | None:
        """How often the model was traced so far."""
        return getattr(self.pipe, "trace_count", None)


class OurPipelineOnOpenVino(OurPipeline):
    """tf_pipeline on OpenVINO, with weights as eight-bit integers where the dtype is int8."""

    def __init__(self, checkpoint: Path, dtype: str):
        from tf_pipeline import pipeline

        how = {"quantize": "int8"} if dtype == "int8" else {"dtype": dtype}
        self.pipe = pipeline("sentiment-analysis", model=str(checkpoint), engine="openvino", **how)


OPENVINO = "tf_pipeline, OpenVINO"
LIBRARIES = {"torch": TorchPipeline, "tf_pipeline": OurPipeline, OPENVINO: OurPipelineOnOpenVino}


@dataclass
class Row:
    """One contender and what became of it.

    Attributes:
        batch_size: maximum number of texts in a batch; ``None`` where the pipeline decides.
        by_length: whether the texts are sorted before they are handed over.
        seconds: of each round.
        against_torch: texts per second over those of PyTorch at its best batch size.
        other_labels: number of texts whose label is not that of float32 PyTorch at the first batch size.
        score_difference: largest difference of a text's score for PyTorch's label.
        traces: number of traces of the model over all rounds.
        share: of the time measured, the least that the processor takes.
        reason: why its speed is not reported.
    """

    library: str
    dtype: str
    batch_size: int | None = None
    by_length: bool = False
    seconds: list[float] = field(default_factory=list)
    against_torch: dict[str, float] | None = None
    other_labels: int | None = None
    score_difference: float | None = None
    traces: int | None = None
    share: float | None = None
    reason: str | None = None

    @property
    def label(self) -> str:
        """Name in the report."""
        name = "PyTorch" if self.library == "torch" else self.library
        parts = [f"batch size {self.batch_size}"] * bool(self.batch_size) + ["sorted by length"] * self.by_length
        return ", ".join([f"{name} {self.dtype}", *parts])


def contenders(batch_sizes: list[int]) -> list[Row]:
    """PyTorch at each batch size, PyTorch with help, and ours."""
    return [
        *(Row("torch", "float32", size) for size in batch_sizes),
        Row("torch", "float32", EXTRA_BATCH_SIZE, by_length=True),
        Row("torch", "bfloat16", EXTRA_BATCH_SIZE, by_length=True),
        Row("tf_pipeline", "float32"),
        Row("tf_pipeline", "bfloat16"),
        *(Row(OPENVINO, dtype) for dtype in ("float32", "bfloat16", "int8")),
    ]


def start(rows: list[Row], checkpoint: Path, folder: Path) -> dict[tuple[str, str], Apart]:
    """A process for each library and dtype; a row whose process fails gets the reason."""
    processes: dict[tuple[str, str], Apart] = {}
    for library, dtype in dict.fromkeys((row.library, row.dtype) for row in rows):
        with console.status(f"Loading {library}, {dtype}"):
            try:
                log = folder / f"pipeline-{library}-{dtype}.log"
                processes[library, dtype] = Apart(LIBRARIES[library], checkpoint, dtype, log=log)
            except ContenderError as error:
                for row in rows:
                    if (row.library, row.dtype) == (library, dtype):
                        row.reason = str(error)
    return processes


def warm_up(rows: list[Row], run: Callable[[Row, list[str]], object], texts: list[str]) -> None:
    """Run every contender over a few texts; one that fails gets the reason.

    Raises:
        SystemExit: if PyTorch itself, against which all is compared, does not run.
    """
    for row in rows:
        if row.reason is None:
            with console.status(f"Warming up {row.label}"):
                try:
                    run(row, texts[:WARM_UP])
                except ContenderError as error:
                    row.reason = str(error)
        if row.library == "torch" and row.reason:
            raise SystemExit(f"{row.label} does not run: {row.reason}")


def measure(rows: list[Row], processes: dict[tuple[str, str], Apart], texts: list[str], rounds: int) -> None:
    """Time all contenders in turns, compare every answer of every round, and fill the rows."""

    def run(row: Row, chosen: list[str]) -> tuple[float, Answers]:
        return processes[row.library, row.dtype].call("run", chosen, row.batch_size, row.by_length)

    warm_up(rows, run, texts)
    running = {row.label: row for row in rows if row.reason is None}
    found = interleave(running, rounds, lambda label: run(running[label], texts), f"{len(texts)} texts")
    reference = found[rows[0].label][0][1]
    for label, row in running.items():
        row.seconds = [seconds for seconds, _ in found[label]]
        row.traces = processes[row.library, row.dtype].call("trace_count")
        for _, answers in found[label]:
            compare(row, answers, reference)
    best = best_torch(rows)
    for row in rows:
        row.against_torch = None if row.reason else ratio(best.seconds, row.seconds)


def compare(row: Row, answers: Answers, reference: Answers) -> None:
    """Count other labels and find the largest difference of a score, keeping the worst of all rounds."""
    pairs = list(zip(answers, reference, strict=True))
    other = [a["label"] != b["label"] for a, b in pairs]
    difference = max(
        abs((1 - a["score"] if differs else a["score"]) - b["score"])
        for (a, b), differs in zip(pairs, other, strict=True)
    )
    row.other_labels = max(sum(other), row.other_labels or 0)
    row.score_difference = max(difference, row.score_difference or 0.0)
    if row.dtype == "float32" and not row.score_difference <= TOLERANCE:
        row.reason = f"wrong: a score is off by {row.score_difference:.1e}, limit {TOLERANCE:.0e}"


def fill_shares(rows: list[Row], limits: Limits | None, number: float) -> None:
    """Compare times with the limit of ``number`` operations, where it is known for the dtype."""
    for row in rows:
        least = limits and limits.seconds(row.dtype, number, 0)
        if least and row.seconds:
            row.share = least / statistics.median(row.seconds)


def best_torch(rows: list[Row]) -> Row:
    """PyTorch in float32, unsorted, at its fastest batch size."""
    plain = [row for row in rows if row.library == "torch" and row.dtype == "float32" and not row.by_length]
    return min((row for row in plain if row.seconds), key=lambda row: statistics.median(row.seconds))


def report_rows(rows: list[Row], number: int) -> None:
    """Print the table."""
    cells = [
        [
            row.label,
            show(row.against_torch) if row.reason is None else row.reason,
            "–" if row.other_labels is None else str(row.other_labels),
            "–" if row.score_difference is None else f"{row.score_difference:.1e}",
            "–" if row.traces is None else str(row.traces),
            "–" if row.share is None else f"{row.share:.0%}",
        ]
        for row in rows
    ]
    columns = [
        "pipeline",
        "texts/s, best PyTorch = 1 (quartiles)",
        "other labels",
        "score difference",
        "traces",
        "of the limit",
    ]
    print_table(f"{number} film-review sentences, MiniLM-L6 with a head", columns, cells)
    console.print(f"Best PyTorch: {best_torch(rows).label}. Labels and scores of all texts against {rows[0].label}.")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pipeline_options(parser, batch_sizes=[1, 8, 16, 32, 64])
    parser.add_argument(
        "--texts", type=int, default=2000, metavar="N", help="the first N sentences; 0 for all (default: %(default)s)"
    )
    add_common_options(parser, rounds=3)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write what was asked for."""
    args = parse()
    facts = environment()
    print_environment(facts)
    rows = contenders(args.batch_sizes)
    with work_folder(args.work) as folder, watch_others(facts):
        texts = film_reviews(args.data, folder)[: max(0, args.texts) or None]
        limits = measured_limits(os.cpu_count() or 1, facts)
        checkpoint = minilm_checkpoint(folder, CLASS, LABELS)
        processes = start(rows, checkpoint, folder)
        try:
            measure(rows, processes, texts, args.rounds)
        finally:
            for process in processes.values():
                process.close()
        tokenized = AutoTokenizer.from_pretrained(checkpoint)(texts, truncation=True)["input_ids"]
        fill_shares(rows, limits, operations(AutoConfig.from_pretrained(checkpoint), map(len, tokenized)))
    report_rows(rows, len(texts))
    write_json(args.json, {"environment": facts, "texts": len(texts), "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
