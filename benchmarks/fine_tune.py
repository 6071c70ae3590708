"""Fine-tune the real MiniLM on rated film reviews, here and in PyTorch, by one recipe, and compare what comes of it.

    pip install ".[bench]"
    python benchmarks/fine_tune.py --data FOLDER
    python benchmarks/fine_tune.py --data FOLDER --rows 500 --epochs 1 --seeds 0 --json fine_tune.json

FOLDER is the unpacked hutto_ICWSM_2014 of the source distribution of vaderSentiment 0.5. Both sides take the batches of
tf_pipeline.data.prepare in the same order, AdamW with PyTorch's rules, a rise and a fall of the learning rate, clipped
gradients, and dropout of their own draws; heads start at random. Accuracy is reported per seed. The models trained here
are then saved and loaded in PyTorch, which has to label the sentences as they did.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import numpy as np
import torch
import transformers
from fine_tune_sentiment import BATCH, CLIP, DECAY, NAMES, WARM_UP, checkpoint, read, train
from harness import write_json
from transformers.trainer_pt_utils import get_parameter_names

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.data import prepare
from tf_pipeline.environment import versions

PACKAGES = ("tf-pipeline", "tensorflow", "keras", "torch", "transformers")
UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def train_torch(source: str, rows: list[dict], epochs: int, rate: float, seed: int):
    """A PyTorch model that has been trained as ``fine_tune_sentiment.train`` trains ours."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(source, id2label=NAMES)
    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], UNDECAYED))
    parts = [(name in decayed, parameter) for name, parameter in model.named_parameters()]
    groups = [
        {"params": [p for own, p in parts if own == kind], "weight_decay": DECAY * kind} for kind in (True, False)
    ]
    batches = prepare(rows, ours_for(source), AutoTokenizer.from_pretrained(source), BATCH, True, seed, 128)
    steps = len(batches) * epochs
    optimizer = torch.optim.AdamW(groups, lr=rate, eps=1e-8)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(steps * WARM_UP), steps)
    model.train()
    for epoch in range(epochs):
        batches.batches.epoch = epoch
        for inputs, labels in batches.as_numpy_iterator():
            loss = model(**tensors(inputs), labels=torch.tensor(labels).long()).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def ours_for(source: str):
    """One of our models, which tells ``prepare`` the task and the labels."""
    return TFAutoModelForSequenceClassification.from_pretrained(source, id2label=NAMES)


def tensors(inputs) -> dict[str, torch.Tensor]:
    """A batch for PyTorch."""
    return {name: torch.tensor(value).long() for name, value in inputs.items()}


def labels_of(model, batches) -> np.ndarray:
    """The labels that a PyTorch model gives."""
    with torch.no_grad():
        return np.concatenate([model(**tensors(x)).logits.argmax(-1).numpy() for x, _ in batches.as_numpy_iterator()])


def main() -> None:
    """Train both for each seed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, judged = read(options.data, options.rows)
    source, truth = checkpoint(options.model), np.array([row["label"] for row in judged])
    found: dict[str, list[float]] = {"tf_pipeline": [], "PyTorch": []}
    for seed in options.seeds:
        model, tokenizer = train(source, rows, options.epochs, options.rate, seed)
        batches = prepare(judged, model, tokenizer, BATCH, max_length=128)
        ours = model.predict(batches, verbose=0)["logits"].argmax(-1)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            again = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        if (other := int((labels_of(again, batches) != ours).sum())) > 1:  # two scores may be as good as equal
            raise SystemExit(f"PyTorch gives another label to {other} of {len(ours)} sentences with the saved model.")
        theirs = labels_of(train_torch(source, rows, options.epochs, options.rate, seed), batches)
        for name, labels in (("tf_pipeline", ours), ("PyTorch", theirs)):
            found[name].append(float((labels == truth).mean()))
            print(f"seed {seed}: {name} {found[name][-1]:.4f}", flush=True)
    for name, values in found.items():
        print(f"{name}: mean {statistics.mean(values):.4f}, from {min(values):.4f} to {max(values):.4f}")
    result = {
        "accuracy": found,
        "rows": len(rows),
        "judged": len(judged),
        "epochs": options.epochs,
        "seeds": options.seeds,
        "versions": versions(PACKAGES),
    }
    write_json(options.json, result)


if __name__ == "__main__":
    main()
