"""The forward pass of a ported BERT-base against that of our own module, on the same weights.

    pip install ".[bench]"
    python benchmarks/port.py
    python benchmarks/port.py --rounds 30 --json port.json

Both run as graphs of open shapes in this process, a call of each in turn. What is quoted is the ratio of medians: a
ported model may take a tenth more time than one with a module of its own.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from harness import (
    add_common_options,
    bert_base,
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

SHAPES = ((1, 16), (8, 128), (32, 64))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, rounds=15)
    options = parser.parse_args()
    facts = environment()
    print_environment(facts)
    with work_folder(options.work) as folder, watch_others(facts):
        calls = _contenders(bert_base(folder), folder)
        rows, report = [], {}
        for shape in SHAPES:
            times = interleave(list(calls), options.rounds, _timer(calls, shape), f"{shape[0]} × {shape[1]}")
            report[f"{shape[0]}x{shape[1]}"] = found = ratio(times["ported"], times["native"])
            rows.append([f"{shape[0]} × {shape[1]}", show(found)])
    print_table("Time of the ported body as a multiple of our own", ["batch × length", "ratio of medians"], rows)
    write_json(options.json, {"environment": facts, "ported / native": report})


def _contenders(checkpoint: Path, folder: Path) -> dict[str, Any]:
    os.environ.setdefault("TF_PIPELINE_CACHE", str(folder / "ported"))
    import tensorflow as tf

    from tf_pipeline import TFBertModel
    from tf_pipeline.port.model import ported_class

    models = {"native": TFBertModel, "ported": ported_class("BertModel")}
    names = ("input_ids", "attention_mask", "token_type_ids")
    signature = {name: tf.TensorSpec([None, None], tf.int32, name) for name in names}
    calls = {}
    for name, model_class in models.items():
        model = model_class.from_pretrained(checkpoint)
        calls[name] = tf.function(
            lambda inputs, model=model: model(inputs)[0], input_signature=[signature], autograph=False
        )
    return calls


def _timer(calls: dict[str, Any], shape: tuple[int, int]):
    import numpy as np
    import tensorflow as tf

    ids = tf.constant(np.random.default_rng(0).integers(5, 30_000, shape), tf.int32)
    inputs = {"input_ids": ids, "attention_mask": tf.ones_like(ids), "token_type_ids": tf.zeros_like(ids)}
    for call in calls.values():
        call(inputs)

    def measure(name: str) -> float:
        start = time.perf_counter()
        calls[name](inputs).numpy()
        return time.perf_counter() - start

    return measure


if __name__ == "__main__":
    main()
