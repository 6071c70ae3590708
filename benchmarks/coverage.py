"""Try to port every text architecture of the installed transformers, and write down what came of it.

Each architecture is made tiny from its own default config, with random weights, and runs in a process of its own with
limits of time and memory. Results are kept as they come, so that a run that was stopped goes on where it was::

    python benchmarks/coverage.py                         # all of them, a minute for every five on two cores
    python benchmarks/coverage.py xlnet esm --again       # some of them, anew
    python benchmarks/coverage.py --table-only            # only write the tables

The results are ``docs/coverage.json`` and ``docs/coverage.md``.
"""

import argparse
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tf_pipeline.files import write_text

DOCS = Path(__file__).parent.parent / "docs"
RESULTS, TABLE = DOCS / "coverage.json", DOCS / "coverage.md"
SECONDS, BYTES = 600, 8 * 2**30

# What each outcome means, in the order of the table's summary.
OUTCOMES = {
    "equal": "Ported, and equal to PyTorch at three shapes unlike the example, in float64 and float32.",
    "refused": "Captured by torch.export, but refused: an operator without a rule, or a difference from PyTorch.",
    "not captured": "torch.export cannot capture it for sizes that vary.",
    "not tried": "No tiny model of it could be made, or PyTorch itself fails on it.",
}


def main() -> None:
    """Run what is asked for."""
    options = _options()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.table_only:
        _run(options, results)
    _write(results)
    print(_summary(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types; all text types if none")
    parser.add_argument("--again", action="store_true", help="try what has been tried before")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--table-only", action="store_true", help="write the tables from the results there are")
    return parser.parse_args()


def _run(options: argparse.Namespace, results: dict[str, Any]) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from tqdm import tqdm

    from tf_pipeline.port import capture, gate, tiny  # noqa: F401  imported once, before the processes fork

    torch.set_num_threads(1)
    types = options.types or [*tiny.text_model_types(), *tiny.OTHER_TYPES]
    todo = [name for name in types if options.again or name not in results]
    with tqdm(total=len(todo), unit="model", disable=None) as bar:
        running: dict[str, tuple[Any, Any, float]] = {}
        while todo or running:
            while todo and len(running) < options.workers:
                name = todo.pop(0)
                running[name] = _start(name)
            for name, (process, pipe, start) in list(running.items()):
                if process.is_alive() and time.monotonic() - start < SECONDS and not pipe.poll():
                    continue
                results[name] = _result(process, pipe, start)
                del running[name]
                _write(results)
                bar.set_postfix_str(f"{name}: {results[name]['outcome']}")
                bar.update()
            time.sleep(0.05)


def _start(name: str) -> tuple[Any, Any, float]:
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_try, args=(name, theirs))
    process.start()
    theirs.close()
    return process, ours, time.monotonic()


def _result(process, pipe, start: float) -> dict[str, Any]:
    try:
        if pipe.poll(max(0.0, SECONDS - (time.monotonic() - start))):
            return pipe.recv()
        return {"outcome": "refused", "reason": f"it took longer than {SECONDS} seconds"}
    except EOFError:
        process.join()
        return {"outcome": "refused", "reason": f"the process ended with status {process.exitcode} (memory?)"}
    finally:
        process.kill()
        process.join()


def _try(name: str, pipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        pipe.send(attempt(name))
    os._exit(0)


def attempt(model_type: str) -> dict[str, Any]:
    """Port a tiny model of a type, and say what came of it.

    Returns:
        ``outcome`` (a key of ``OUTCOMES``) and ``reason``; of a port also its ``class``, ``nodes`` and ``operators``.
    """
    import warnings

    import transformers

    from tf_pipeline.port import tiny
    from tf_pipeline.port.capture import capture
    from tf_pipeline.port.errors import MissingRuleError
    from tf_pipeline.port.gate import check

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    _limit_memory()
    try:
        config = tiny.tiny_config(model_type)
        model_class = tiny.body_class(model_type)
        tiny.try_model(model_class, config)
    except Exception as error:  # PyTorch's models raise all kinds
        return {"outcome": "not tried", "reason": _line(error)}
    captured = None
    try:
        captured = capture(model_class, config)
        check(captured, model_class, config)
    except Exception as error:
        known = captured is not None or isinstance(error, MissingRuleError)
        return {"outcome": "refused" if known else "not captured", "reason": _line(error)}
    graph = captured.graph
    return {"outcome": "equal", "reason": " ".join(graph.notes), "class": graph.model_class, "nodes": len(graph.nodes),
            "operators": len(graph.operators())}  # fmt: skip


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))


def _line(error: Exception) -> str:
    kind = "" if type(error).__name__ == "PortError" else f"{type(error).__name__}: "
    text = re.sub(r'"[^"]*/site-packages/', '"', " ".join(str(error).split()))
    return kind + text[:300]


def _summary(results: dict[str, Any]) -> str:
    from tf_pipeline.port.tiny import OTHER_TYPES

    lines = []
    for kind, others in (("text", False), ("images and sound", True)):
        outcomes = [result["outcome"] for name, result in results.items() if (name in OTHER_TYPES) == others]
        counts = {name: outcomes.count(name) for name in OUTCOMES}
        captured = counts["equal"] + counts["refused"]
        share = f"; {counts['equal'] / captured:.1%} of what torch.export captures is equal" if captured else ""
        lines.append(f"Of {len(outcomes)} for {kind}: {', '.join(f'{n} {name}' for name, n in counts.items())}{share}.")
    return "\n".join(lines)


def _write(results: dict[str, Any]) -> None:
    """Write both files aside and move them into place."""
    ordered = dict(sorted(results.items()))
    lines = [
        "# Which architectures can be ported", "",
        "Made by `python benchmarks/coverage.py`: every text architecture of transformers, and some of images and",
        "sound, tiny and with random weights.",
        "", _summary(ordered), "",
        *(f"- **{name}**: {meaning}" for name, meaning in OUTCOMES.items()), "",
        "| model type | outcome | operations | note |", "|---|---|---|---|",
        *(f"| {name} | {r['outcome']} | {r.get('nodes', '')} | {_cell(r['reason'])} |" for name, r in ordered.items()),
    ]  # fmt: skip
    for path, text in ((RESULTS, json.dumps(ordered, indent=1)), (TABLE, "\n".join(lines))):
        write_text(path, text + "\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
