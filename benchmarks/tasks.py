"""Every pipeline over real sentences: tf_pipeline against transformers on PyTorch.

    pip install ".[bench]"
    python benchmarks/tasks.py
    python benchmarks/tasks.py --tasks fill-mask question-answering --texts 500 --batch-sizes 8 32 --json tasks.json

Both read one checkpoint: the real MiniLM-L6 with a random head. The number reported is texts per second over PyTorch's
at the best of its batch sizes, tokenising and post-processing included. transformers 5 has no question-answering, so
that PyTorch there is a loop over the same windows, batched, with the post-processing that transformers 4 had. It has
no summarization and no translation either: there, PyTorch is a loop of tokenizer, ``generate`` and tokenizer, over a
model of T5-small's shape with random weights, which writes as many tokens for every text; fewer texts are enough.

The limit is the time that the matrix products of the layers over the real tokens, without any padding, take at the rate
of the processor's multiply-adds (see ``limits.py``); the share is the limit over the time measured.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import (
    Apart,
    ContenderError,
    add_common_options,
    add_pipeline_options,
    environment,
    film_reviews,
    interleave,
    measured_limits,
    minilm_checkpoint,
    operations,
    positive,
    print_environment,
    print_table,
    ratio,
    run_apart,
    show,
    watch_others,
    work_folder,
    write_json,
)
from limits import Limits
from transformers import AutoConfig, AutoTokenizer

WARM_UP = 32
# Largest difference of a score from PyTorch's, and largest share of texts whose answer is another one because two
# scores are as good as equal.
TOLERANCE, OTHER_SHARE = 1e-4, 0.01

CONLL = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for prefix in "BI")]
LABELS = ["comedy", "drama", "horror"]
# Sentences that make up one context of question-answering, or one text to be summarized.
CONTEXT_SENTENCES = 20
# Inputs and new tokens of tasks that write.
WRITTEN, NEW_TOKENS = {"summarization": 20, "translation_en_to_fr": 100}, 32

# What two contenders are compared by: for each text, words that have to be equal, and numbers that have to be close.
Answer = tuple[list[Any], list[float]]


@dataclass
class Task:
    """How a task is measured.

    Attributes:
        name: Hugging Face's name.
        class_name: PyTorch's class.
        labels: what the head's labels are called.
        options: arguments of each call, for both.
        suffix: what tells two measurements of one task apart.
    """

    name: str
    class_name: str
    labels: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""

    @property
    def title(self) -> str:
        """Name in the report."""
        return f"{self.name} {self.suffix}".strip()


TASKS = [
    Task("text-classification", "BertForSequenceClassification", ("NEGATIVE", "POSITIVE"), {"truncation": True}),
    Task("token-classification", "BertForTokenClassification", tuple(CONLL)),
    Task(
        "token-classification", "BertForTokenClassification", tuple(CONLL), {"aggregation_strategy": "first"},
        "(first)",
    ),
    Task("question-answering", "BertForQuestionAnswering"),
    Task("fill-mask", "BertForMaskedLM", (), {"tokenizer_kwargs": {"truncation": True}}),
    Task(
        "zero-shot-classification", "BertForSequenceClassification", ("contradiction", "neutral", "entailment"),
        {"candidate_labels": LABELS},
    ),
    Task("feature-extraction", "BertModel", (), {"truncation": True, "return_tensors": True}),
    Task(
        "summarization", "T5ForConditionalGeneration", (),
        {"truncation": True, "num_beams": 4, "max_new_tokens": NEW_TOKENS},
    ),
    Task(
        "translation_en_to_fr", "T5ForConditionalGeneration", (),
        {"truncation": True, "num_beams": 1, "max_new_tokens": NEW_TOKENS},
    ),
]  # fmt: skip


def inputs_of(task: str, texts: list[str]) -> list[Any]:
    """The inputs that a task makes of sentences."""
    if task == "fill-mask":
        masked = [text.split() for text in texts]
        for words in masked:
            words[len(words) // 2] = "[MASK]"
        return [" ".join(words) for words in masked]
    if task in ("question-answering", "summarization"):
        starts = range(0, len(texts), CONTEXT_SENTENCES)
        texts = [" ".join(texts[start : start + CONTEXT_SENTENCES]) for start in starts]
    if task == "question-answering":
        return [{"question": "What is this film about?", "context": text} for text in texts]
    return texts[: WRITTEN.get(task)]


def checkpoint_of(task: Task, folder: Path) -> Path:
    """A checkpoint for a task, made once."""
    if task.name not in WRITTEN:
        return minilm_checkpoint(folder, task.class_name, task.labels)
    target = folder / "t5-with-tokenizer"
    if not (target / "tokenizer.json").exists():
        run_apart(_save_writer, target, minilm_checkpoint(folder, "BertModel"))
    return target


def _save_writer(target: Path, body: Path) -> None:
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(body, model_max_length=512)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Logits of first values are so alike that rounding would choose the tokens.
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.generation_config.eos_token_id = None
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def compact(answer: Any) -> Answer:
    """An answer as words and numbers; of hidden states, the first token's, because batches of PyTorch keep padding."""
    if hasattr(answer, "shape"):
        return [answer.shape[-1]], answer.numpy()[0, 0].tolist()
    words, numbers = [], []
    for one in answer if isinstance(answer, list) else [answer]:
        for name, value in one.items():
            if name in ("score", "scores"):
                numbers.extend([float(value)] if name == "score" else map(float, value))
            else:
                words.append(value)
    return words, numbers


class Runner:
    """A pipeline in its own process."""

    pipe: Callable[..., Any]

    def run(self, inputs: list[Any], options: dict[str, Any], batch_size: int | None) -> tuple[float, list[Answer]]:
        """Answer all inputs; returns the seconds and the answers."""
        if batch_size is not None:
            options = options | {"batch_size": batch_size}
        start = time.perf_counter()
        found = self.pipe(inputs, **options)
        seconds = time.perf_counter() - start
        return seconds, [compact(answer) for answer in found]


class TorchRunner(Runner):
    """transformers' own pipeline, or one of the loops below for tasks that it has not."""

    def __init__(self, task: str, checkpoint: Path):
        import torch
        from transformers import pipeline

        if task == "question-answering":
            self.pipe = TorchQuestionAnswering(checkpoint)
        elif task in WRITTEN:
            self.pipe = TorchWriting(checkpoint)
        else:
            self.pipe = pipeline(task, model=str(checkpoint), dtype=torch.float32, device="cpu")


class OurRunner(Runner):
    """tf_pipeline."""

    def __init__(self, task: str, checkpoint: Path):
        from tf_pipeline import pipeline

        self.pipe = pipeline(task, model=str(checkpoint), dtype="float32")


class TorchQuestionAnswering:
    """Question answering on PyTorch: windows of 384 tokens that overlap by 128, in batches, in their order."""

    def __init__(self, checkpoint: Path):
        import torch
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.model = AutoModelForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def __call__(self, examples: list[dict[str, str]], batch_size: int = 1) -> list[dict[str, Any]]:
        """The best answer for each question."""
        encoded = self.tokenizer(
            [one["question"] for one in examples], [one["context"] for one in examples], truncation="only_second",
            max_length=384, stride=128, return_overflowing_tokens=True,
        )  # fmt: skip
        owners = encoded.pop("overflow_to_sample_mapping")
        found: list[dict[str, dict]] = [{} for _ in examples]
        for start in range(0, len(owners), batch_size):
            rows = range(start, min(start + batch_size, len(owners)))
            inputs = self.tokenizer.pad({name: [encoded[name][row] for row in rows] for name in encoded},
                                        return_tensors="pt")  # fmt: skip
            with self.torch.inference_mode():
                outputs = self.model(**inputs)
            logits = outputs.start_logits.numpy(), outputs.end_logits.numpy()
            for place, row in enumerate(rows):
                context = examples[owners[row]]["context"]
                self.collect(found[owners[row]], encoded.encodings[row], context, logits[0][place], logits[1][place])
        return [max(answers.values(), key=lambda answer: answer["score"]) for answers in found]

    def collect(self, answers: dict[str, dict], encoding: Any, context: str, start: Any, end: Any) -> None:
        """Add the twelve best spans of a window, widened to words, to the answers of its question."""
        import numpy as np

        own = np.array([place == 0 or index == 1 for place, index in enumerate(encoding.sequence_ids)])
        start, end = (np.where(own, logits[: len(own)], -10000.0) for logits in (start, end))
        start, end = (np.exp(logits - logits.max()) for logits in (start, end))
        start, end = start / start.sum(), end / end.sum()
        start[0] = end[0] = 0.0
        scores = np.tril(np.triu(np.outer(start, end)), 14).ravel()
        best = np.argpartition(-scores, 12)[:12]
        for place in best[np.argsort(-scores[best])]:
            first, last = np.unravel_index(place, (len(own), len(own)))
            words = encoding.token_to_word(int(first)), encoding.token_to_word(int(last))
            begin, stop = encoding.word_to_chars(words[0], 1)[0], encoding.word_to_chars(words[1], 1)[1]
            text = context[begin:stop]
            answer = answers.setdefault(text.lower(), {"score": 0.0, "start": begin, "end": stop, "answer": text})
            answer["score"] += float(scores[place])


class TorchWriting:
    """Texts from texts on PyTorch, in batches, in their order."""

    def __init__(self, checkpoint: Path):
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def __call__(self, texts: list[str], batch_size: int = 1, truncation: bool = True, **options: Any) -> list[dict]:
        """What is written for each text."""
        written: list[str] = []
        for start in range(0, len(texts), batch_size):
            inputs = self.tokenizer(
                texts[start : start + batch_size], padding=True, truncation=truncation, return_tensors="pt"
            )
            inputs.pop("token_type_ids", None)
            with self.torch.inference_mode():
                ids = self.model.generate(**inputs, **options)
            written += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [{"text": text} for text in written]


RUNNERS = {"PyTorch": TorchRunner, "tf_pipeline": OurRunner}


@dataclass
class Row:
    """One contender at one task; ``against_torch`` is its texts per second over those of PyTorch at its best."""

    task: str
    library: str
    batch_size: int | None = None
    seconds: list[float] = field(default_factory=list)
    against_torch: dict[str, float] | None = None
    other_answers: int | None = None
    difference: float | None = None
    share: float | None = None
    reason: str | None = None

    @property
    def label(self) -> str:
        """Name in the report."""
        return self.library + (f", batch size {self.batch_size}" if self.batch_size else "")


def lengths_of(task: str, tokenizer: Any, inputs: list[Any]) -> list[int]:
    """Numbers of tokens that a task reads of its inputs, in each pass through the model."""
    if task == "question-answering":
        questions, contexts = ([one[key] for one in inputs] for key in ("question", "context"))
        windows = {"truncation": "only_second", "max_length": 384, "stride": 128, "return_overflowing_tokens": True}
        return [*map(len, tokenizer(questions, contexts, **windows)["input_ids"])]
    if task == "zero-shot-classification":
        pairs = [(text, f"This example is {label}.") for text in inputs for label in LABELS]
        return [*map(len, tokenizer(pairs, truncation="only_first")["input_ids"])]
    return [*map(len, tokenizer(inputs, truncation=True)["input_ids"])]


def least_seconds(limits: Limits | None, task: str, checkpoint: Path, inputs: list[Any]) -> float | None:
    """Seconds that the products of an encoder's layers take at least; of tasks that write it is not known."""
    if limits is None or task in WRITTEN:
        return None
    lengths = lengths_of(task, AutoTokenizer.from_pretrained(checkpoint), inputs)
    return limits.seconds("float32", operations(AutoConfig.from_pretrained(checkpoint), lengths), 0)


def measure(
    task: Task, texts: list[str], folder: Path, sizes: list[int], rounds: int, limits: Limits | None
) -> list[Row]:
    """Time PyTorch at each batch size and ours in turns, and compare every answer of every round.

    Raises:
        ContenderError: if PyTorch, against which all is compared, does not run.
    """
    rows = [*(Row(task.title, "PyTorch", size) for size in sizes), Row(task.title, "tf_pipeline")]
    inputs = inputs_of(task.name, texts)
    checkpoint = checkpoint_of(task, folder)
    processes: dict[str, Apart] = {}
    try:
        for library, runner in RUNNERS.items():
            log = folder / f"tasks-{library}.log"
            processes[library] = Apart(runner, task.name, checkpoint, log=log)

        def run(row: Row, some: list[Any]) -> tuple[float, list[Answer]]:
            return processes[row.library].call("run", some, task.options, row.batch_size)

        for row in rows:
            run(row, inputs[:WARM_UP])
        by_label = {row.label: row for row in rows}
        found = interleave(by_label, rounds, lambda label: run(by_label[label], inputs), task.title)
    finally:
        for process in processes.values():
            process.close()
    reference = found[rows[0].label][0][1]
    for label, row in by_label.items():
        row.seconds = [seconds for seconds, _ in found[label]]
        for _, answers in found[label]:
            compare(row, answers, reference)
    best = min(rows[:-1], key=lambda row: statistics.median(row.seconds))
    least = least_seconds(limits, task.name, checkpoint, inputs)
    for row in rows:
        row.against_torch = None if row.reason else ratio(best.seconds, row.seconds)
        row.share = least and least / statistics.median(row.seconds)
    return rows


def compare(row: Row, answers: list[Answer], reference: list[Answer]) -> None:
    """Count other answers and find the largest difference of a number, keeping the worst of all rounds."""
    pairs = list(zip(answers, reference, strict=True))
    same = [(mine[1], truth[1]) for mine, truth in pairs if mine[0] == truth[0]]
    difference = max((abs(a - b) for mine, truth in same for a, b in zip(mine, truth, strict=True)), default=0.0)
    row.other_answers = max(len(pairs) - len(same), row.other_answers or 0)
    row.difference = max(difference, row.difference or 0.0)
    if not row.difference <= TOLERANCE or row.other_answers > OTHER_SHARE * len(pairs):
        row.reason = f"wrong: {row.other_answers} other answers, a score is off by {row.difference:.1e}"


def report(rows: list[Row], number: int) -> None:
    """Print the table."""
    cells = [
        [
            row.label,
            row.task,
            show(row.against_torch) if row.reason is None else row.reason,
            "–" if row.other_answers is None else str(row.other_answers),
            "–" if row.difference is None else f"{row.difference:.1e}",
            "–" if row.share is None else f"{row.share:.0%}",
        ]
        for row in rows
    ]
    speed = "texts/s, best PyTorch = 1 (quartiles)"
    columns = ["pipeline", "task", speed, "other answers", "score difference", "of the limit"]
    print_table(f"{number} film-review sentences, MiniLM-L6 with a head, or T5-small's shape", columns, cells)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(task.name for task in TASKS))
    parser.add_argument("--tasks", nargs="+", choices=names, default=names, metavar="TASK", help="default: all")
    add_pipeline_options(parser, batch_sizes=[1, 8, 32])
    parser.add_argument(
        "--texts", type=positive, default=2000, metavar="N", help="the first N sentences (default: %(default)s)"
    )
    add_common_options(parser, rounds=3)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write what was asked for."""
    args = parse()
    facts = environment()
    print_environment(facts)
    rows: list[Row] = []
    with work_folder(args.work) as folder, watch_others(facts):
        limits = measured_limits(os.cpu_count() or 1, facts)
        texts = film_reviews(args.data, folder)[: args.texts]
        for task in TASKS:
            if task.name in args.tasks:
                try:
                    rows += measure(task, texts, folder, args.batch_sizes, args.rounds, limits)
                except ContenderError as error:
                    rows.append(Row(task.title, "tf_pipeline", reason=str(error)))
    report(rows, len(texts))
    write_json(args.json, {"environment": facts, "texts": len(texts), "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
