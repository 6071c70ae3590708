"""Quantized models against float32: size of the file, speed, and answers over film reviews.

    pip install ".[bench]"
    python benchmarks/quantize.py
    python benchmarks/quantize.py --data movieReviewSnippets_GroundTruth.txt --texts 200 --rounds 3

The model is the real MiniLM-L6 as a body: of each mode, the size of its ``.keras`` file and texts per second as a part
of float32's (medians of one run), the mean cosine of its sentence vectors with float32's, and in how many of the texts
the nearest other text is the same.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from harness import (
    add_common_options,
    environment,
    film_reviews,
    interleave,
    minilm_checkpoint,
    positive,
    print_environment,
    print_table,
    watch_others,
    work_folder,
    write_json,
)

MODES = ("float32", "int8", "int4")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, rounds=5)
    parser.add_argument("--data", type=Path, help="file of film reviews; from the package index if not given")
    parser.add_argument("--texts", type=positive, default=500, help="number of sentences")
    options = parser.parse_args()
    facts = environment()
    print_environment(facts)
    with work_folder(options.work) as folder, watch_others(facts):
        report = measure(folder, film_reviews(options.data, folder)[: options.texts], options.rounds)
    rows = [[mode, *(f"{value:.3f}" for value in values.values())] for mode, values in report.items()]
    print_table("Quantized MiniLM-L6", ["mode", "size", "speed", "cosine", "same neighbour"], rows)
    write_json(options.json, {"environment": facts, "results": report})


def measure(folder: Path, texts: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Sizes, speeds and answers of each mode, as parts of float32's."""
    from tf_pipeline import pipeline

    checkpoint = minilm_checkpoint(folder, "BertModel")
    pipes, sizes, vectors = {}, {}, {}
    for mode in MODES:
        pipe = pipes[mode] = pipeline("feature-extraction", model=checkpoint, pooling="mean", normalize=True)
        if mode != "float32":
            pipe.model.quantize(mode)
        pipe.model.save(folder / f"{mode}.keras")
        sizes[mode] = (folder / f"{mode}.keras").stat().st_size
        vectors[mode] = np.array(pipe(texts)).reshape(len(texts), -1)

    def seconds(mode: str) -> float:
        begun = time.perf_counter()
        pipes[mode](texts)
        return time.perf_counter() - begun

    times = {mode: statistics.median(of) for mode, of in interleave(MODES, rounds, seconds, "Quantized").items()}
    exact = vectors["float32"]
    return {
        mode: {
            "size": sizes[mode] / sizes["float32"],
            "speed": times["float32"] / times[mode],
            "cosine": float((vectors[mode] * exact).sum(1).mean()),
            "same neighbour": float((nearest(vectors[mode]) == nearest(exact)).mean()),
        }
        for mode in MODES
    }


def nearest(vectors: np.ndarray) -> np.ndarray:
    """The place of the other text that is nearest to each."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -1)
    return similar.argmax(1)


if __name__ == "__main__":
    main()
