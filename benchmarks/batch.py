"""Rows per second of ``tf-pipeline batch`` on Apache Beam's DirectRunner, against ``tf-pipeline run`` in one process.

    pip install ".[beam]" psutil
    python benchmarks/batch.py
    python benchmarks/batch.py --rows 20000 --workers 1 2 --json batch.json

Both read one file of film-review sentences, each with its number, and classify them with the bundled checkpoint; a
Beam worker is a process of its own. Every row has to come out once with the answer of ``run``, or nothing is reported.
The number is the rows per second over those of ``run``, whole commands with their start included.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from harness import (
    add_common_options,
    add_data_option,
    console,
    environment,
    film_reviews,
    positive,
    print_environment,
    print_table,
    ratio,
    show,
    watch_others,
    work_folder,
    write_json,
)

TASK = "sentiment-analysis"
# Largest difference of a score: batches of other sizes round their sums in another order.
TOLERANCE = 1e-5


def write_rows(path: Path, texts: list[str], number: int) -> None:
    """Sentences in a fixed order, again and again, each with its number, so that no two rows are equal."""
    with path.open("w") as file:
        for row in range(number):
            file.write(json.dumps({"text": f"{row}. {texts[row % len(texts)]}"}) + "\n")


def timed(*arguments: object) -> float:
    """Seconds of a command of ``tf-pipeline``."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tf_pipeline.cli", *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"tf-pipeline {arguments[0]} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def answers(paths: list[Path]) -> dict[int, tuple[str, float]]:
    """The most likely label and its score by row, which ``run`` calls a line."""
    found: dict[int, tuple[str, float]] = {}
    for text in (text for path in paths for text in path.open()):
        answer = json.loads(text)
        number = answer["row"] if "row" in answer else answer["line"]
        if number in found:
            raise SystemExit(f"Row {number} was answered twice.")
        best = answer["result"][0]
        found[number] = best["label"], best["score"]
    return found


def compare(found: dict[int, tuple[str, float]], expected: dict[int, tuple[str, float]], name: str) -> None:
    """Require the same answer to every row.

    Raises:
        SystemExit: naming a row that is missing or answered differently.
    """
    if found.keys() != expected.keys():
        raise SystemExit(f"{name}: {len(found)} rows were answered, not {len(expected)}.")
    for row, (label, score) in expected.items():
        if found[row][0] != label or abs(found[row][1] - score) > TOLERANCE:
            raise SystemExit(f"{name}: row {row} is {found[row]}, and {label, score} by run.")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=positive, default=200_000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--workers", nargs="+", type=positive, default=[2], metavar="N", help="processes of Beam (default: %(default)s)"
    )
    add_data_option(parser)
    add_common_options(parser, rounds=1)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write what was asked for."""
    args = parse()
    facts = environment()
    print_environment(facts)
    with work_folder(args.work) as folder, watch_others(facts):
        rows = folder / "rows.jsonl"
        write_rows(rows, film_reviews(args.data, folder), args.rows)
        names = {"run": None, **{f"batch, {count} processes": count for count in args.workers}}

        def measure(name: str) -> float:
            if names[name] is None:
                return timed("run", TASK, "--input", rows, "--output", folder / "run.jsonl", "--overwrite")
            beam = ["--direct_running_mode=multi_processing", f"--direct_num_workers={names[name]}"]
            return timed("batch", TASK, rows, folder / "batch", "--overwrite", "--", *beam)

        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(args.rounds):
            for name, found in seconds.items():
                with console.status(name):
                    found.append(measure(name))
                if names[name] is None:
                    expected = answers([folder / "run.jsonl"])
                else:
                    compare(answers([*(folder / "batch" / "answers").iterdir()]), expected, name)
    cells = [[name, show(ratio(seconds["run"], seconds[name]))] for name in names]
    print_table(f"{args.rows} rows, {TASK}", ["command", "rows per second, run = 1 (quartiles)"], cells, ours="batch")
    write_json(args.json, {"environment": facts, "rows": args.rows, "seconds": seconds})


if __name__ == "__main__":
    main()
