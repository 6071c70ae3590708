"""Fine-tune the real MiniLM on film reviews, here and in PyTorch, by one recipe, and compare what comes of it.

    pip install ".[bench]"
    python benchmarks/fine_tune.py --data FOLDER
    python benchmarks/fine_tune.py --data FOLDER --tasks sentiment lora --rows 500 --epochs 1 --seeds 0 --json out.json

FOLDER is the unpacked hutto_ICWSM_2014 of the source distribution of vaderSentiment 0.5. The tasks:

- sentiment: whether people rated a sentence above or below 0. Accuracy.
- regression: the mean of their ratings, from -4 to 4. Pearson's and Spearman's correlation, and the mean squared error.
- tokens: the names in a sentence, which are its capitalised words, but for the first. The tokenizer of MiniLM does not
  tell small letters from capitals, so that the model has to know names. F1 of whole names.
- lora: sentiment, with adapters of rank 8 of the queries and values, and the head, in place of all weights; PyTorch's
  side is peft. Accuracy.

Both sides take the batches of tf_pipeline.data.prepare in the same order, AdamW with PyTorch's rules, a rise and a fall
of the learning rate, clipped gradients, and dropout of their own draws; heads start at random. What is trained here is
then saved and loaded in PyTorch, which has to give the same logits.
"""

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import numpy as np
import torch
import transformers
from fine_tune_sentiment import BATCH, CLIP, DECAY, LABELS, WARM_UP, checkpoint, read, sentences, train
from harness import console, write_json
from rich.table import Table
from transformers.trainer_pt_utils import get_parameter_names

from tf_pipeline import TFAutoModelForSequenceClassification, TFAutoModelForTokenClassification
from tf_pipeline.data import prepare
from tf_pipeline.environment import versions
from tf_pipeline.metrics import SpanF1

PACKAGES = ("tf-pipeline", "tensorflow", "keras", "torch", "transformers", "peft")
UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
TAGS = {0: "O", 1: "B-NAME", 2: "I-NAME"}
LORA = {"rank": 8, "target_modules": ["query", "value"], "alpha": 16}
# Words, and marks of which some end a sentence: what follows those has a capital that tells nothing.
PIECES, ENDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]"), set(".!?:\"'“”()…-;")
MAX_LENGTH = 128


# -------------------------------------------------------------------------------------------------------------- tasks


class Task(NamedTuple):
    """One kind of fine-tuning.

    Attributes:
        read: a function of the folder of the data: rows to train on, and rows to judge.
        measure: a function of a list of logits and one of labels, both by batch: numbers by name, the main one first.
        rate: the highest learning rate, as a multiple of ``--rate``.
        labels: of the config.
        model_class: ours; PyTorch's has the same name without ``TF``.
        lora: arguments of ``enable_lora``, for training an adapter.
    """

    read: Callable[[Path], tuple[list[dict], list[dict]]]
    measure: Callable[[list[np.ndarray], list[np.ndarray]], dict[str, float]]
    rate: float = 1.0
    labels: dict[str, Any] = LABELS
    model_class: type = TFAutoModelForSequenceClassification
    lora: dict[str, Any] | None = None


def read_signs(data: Path) -> tuple[list[dict], list[dict]]:
    """Sentences and the signs of their ratings."""
    return read(data, sys.maxsize)


def read_ratings(data: Path) -> tuple[list[dict], list[dict]]:
    """Sentences and the means of their ratings."""
    known, judged = ([{"text": text, "label": rating} for text, rating in part] for part in sentences(data))
    return known, judged


def read_names(data: Path) -> tuple[list[dict], list[dict]]:
    """Sentences as words in small letters, with the tags of their names, of which each has one at least."""
    known, judged = ([row for text, _ in part if (row := tagged(text)) is not None] for part in sentences(data))
    return known, judged


def tagged(text: str) -> dict | None:
    """Words and tags of a sentence; ``None`` if it has no name, or mostly capitals."""
    words = PIECES.findall(text)
    capital = [word[0].isupper() and word[1:].islower() for word in words]
    tags, before = [], "."
    for word, is_capital in zip(words, capital, strict=True):
        goes_on = bool(tags) and tags[-1] != "O"
        tags.append(("I-NAME" if goes_on else "B-NAME") if is_capital and before not in ENDS else "O")
        before = word
    if "B-NAME" not in tags or sum(capital) > len(words) / 2:
        return None
    return {"tokens": [word.lower() for word in words], "labels": tags}


def accuracy(logits: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, float]:
    """Share of the largest logits that are those of the labels."""
    return {"accuracy": float((np.concatenate(logits).argmax(-1) == np.concatenate(labels)).mean())}


def correlation(logits: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, float]:
    """How near ratings are to those of people."""
    found, truth = np.concatenate(logits)[:, 0].astype(float), np.concatenate(labels).astype(float)
    return {
        "Pearson": float(np.corrcoef(found, truth)[0, 1]),
        "Spearman": float(np.corrcoef(ranks(found), ranks(truth))[0, 1]),
        "MSE": float(np.square(found - truth).mean()),
    }


def ranks(values: np.ndarray) -> np.ndarray:
    """Places in their order; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def span_f1(logits: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, float]:
    """F1 of whole names."""
    width = max(one.shape[1] for one in labels)
    filled = [np.pad(one, [(0, 0), (0, width - one.shape[1])], constant_values=-100) for one in labels]
    scores = [np.pad(one, [(0, 0), (0, width - one.shape[1]), (0, 0)]) for one in logits]
    return {"span F1": SpanF1(TAGS)((np.concatenate(scores), np.concatenate(filled)))["f1"]}


TASKS = {
    "sentiment": Task(read_signs, accuracy),
    "regression": Task(read_ratings, correlation, labels={"num_labels": 1}),
    "tokens": Task(
        read_names, span_f1, 1.0, {"id2label": TAGS, "label2id": {tag: place for place, tag in TAGS.items()}},
        TFAutoModelForTokenClassification,
    ),
    "lora": Task(read_signs, accuracy, 5.0, lora=LORA),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ PyTorch


def torch_model(source: str, task: Task) -> torch.nn.Module:
    """PyTorch's model with a new head."""
    name = task.model_class.__name__.removeprefix("TF")
    return getattr(transformers, name).from_pretrained(source, **task.labels)


def train_torch(source: str, task: Task, batches: Any, epochs: int, rate: float, seed: int) -> torch.nn.Module:
    """A PyTorch model that has been trained as ``fine_tune_sentiment.train`` trains ours."""
    torch.manual_seed(seed)
    model = torch_model(source, task)
    if task.lora:
        import peft

        lora = {"r": task.lora["rank"], "lora_alpha": task.lora["alpha"], "target_modules": task.lora["target_modules"]}
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **lora))
    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], UNDECAYED))
    parts = [(name in decayed, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for own, p in parts if own == kind], "weight_decay": DECAY * kind} for kind in (True, False)
    ]
    steps = len(batches) * epochs
    optimizer = torch.optim.AdamW(groups, lr=rate, eps=1e-8)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(steps * WARM_UP), steps)
    model.train()
    for epoch in range(epochs):
        batches.batches.epoch = epoch
        for inputs, labels in batches.as_numpy_iterator():
            labels = torch.tensor(labels)
            loss = model(**tensors(inputs), labels=labels if labels.is_floating_point() else labels.long()).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def tensors(inputs) -> dict[str, torch.Tensor]:
    """A batch for PyTorch."""
    return {name: torch.tensor(value).long() for name, value in inputs.items()}


def torch_logits(model: torch.nn.Module, batches: Any) -> list[np.ndarray]:
    """What a PyTorch model gives, by batch."""
    with torch.no_grad():
        return [model(**tensors(inputs)).logits.numpy() for inputs, _ in batches.as_numpy_iterator()]


def reloaded(model: Any, source: str, task: Task, folder: str) -> torch.nn.Module:
    """What was trained here, saved, in PyTorch."""
    if not task.lora:
        model.save_pretrained(folder)
        return torch_model(folder, task).eval()
    import peft

    model.save_adapter(folder)
    return peft.PeftModel.from_pretrained(torch_model(source, task), folder).eval()


# --------------------------------------------------------------------------------------------------------- comparison


def run(name: str, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Train both sides for each seed: numbers by measure and side."""
    task, source = TASKS[name], checkpoint(options.model)
    rows, judged = (short(part, options.longest) for part in task.read(options.data))
    rows, judged, rate = rows[: options.rows], judged[: options.judged], options.rate * task.rate
    found: dict[str, dict[str, list[float]]] = {}
    for seed in options.seeds:
        model, tokenizer = train(
            source, rows, options.epochs, rate, seed, task.model_class, task.labels, task.lora, options.batch
        )
        if task.lora and seed == options.seeds[0]:
            model.print_trainable_parameters()
        check = prepare(judged, model, tokenizer, options.batch, max_length=MAX_LENGTH)
        ours = [model.predict_on_batch(inputs)["logits"] for inputs, _ in check]
        with tempfile.TemporaryDirectory() as folder:
            again = torch_logits(reloaded(model, source, task, folder), check)
        if (worst := max(np.abs(one - other).max() for one, other in zip(ours, again, strict=True))) > 1e-3:
            raise SystemExit(f"{name}: PyTorch's logits of the saved model differ from ours by {worst:.1e}.")
        batches = prepare(rows, model, tokenizer, options.batch, True, seed, MAX_LENGTH)
        theirs = torch_logits(train_torch(source, task, batches, options.epochs, rate, seed), check)
        labels = [labels for _, labels in check.as_numpy_iterator()]
        for side, logits in (("tf_pipeline", ours), ("PyTorch", theirs)):
            for measure, value in task.measure(logits, labels).items():
                found.setdefault(measure, {}).setdefault(side, []).append(value)
                print(f"{name}, seed {seed}: {side} {measure} {value:.4f}", flush=True)
    return found


def short(rows: list[dict], longest: int | None) -> list[dict]:
    """The rows whose texts have no more characters than that."""
    return [row for row in rows if longest is None or len(row.get("text") or " ".join(row["tokens"])) <= longest]


def spread(values: list[float]) -> str:
    """A mean with the least and the greatest value."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def main() -> None:
    """Run the tasks, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--model", default="minilm", help="a folder, a hub id or minilm")
    parser.add_argument("--rows", type=int, default=2000, help="sentences to train on (2000)")
    parser.add_argument("--judged", type=int, help="sentences to judge (all)")
    parser.add_argument("--longest", type=int, help="characters of a sentence; longer ones are left out")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=BATCH, help=f"sentences per step ({BATCH})")
    parser.add_argument("--rate", type=float, default=5e-5, help="highest learning rate (5e-5); lora takes 5 ×")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {name: run(name, options) for name in options.tasks}
    table = Table("task", "measure", "tf_pipeline", "PyTorch")
    for name, measures in found.items():
        for measure, sides in measures.items():
            table.add_row(name, measure, spread(sides["tf_pipeline"]), spread(sides["PyTorch"]))
    console.print(table)
    asked = {key: getattr(options, key) for key in ("rows", "judged", "longest", "epochs", "batch", "rate", "seeds")}
    write_json(options.json, {"found": found, **asked, "versions": versions(PACKAGES)})


if __name__ == "__main__":
    main()
