"""Try to port every text architecture of the installed transformers, with every head, and write down what came of it.

Each architecture is made tiny from its own default config, with random weights, and runs in a process of its own with
limits of time and memory. A model goes the way that a user's does: PyTorch saves it into a folder, our auto class loads
the folder, the object it hands out is compared with PyTorch's of that folder, is saved, and is loaded again in a
process in which PyTorch was never imported and cannot be. There it also generates, if PyTorch's model can. Results are
kept as they come, so that a run that was stopped goes on where it was::

    python benchmarks/coverage.py --again                 # all of them, from the start
    python benchmarks/coverage.py                         # those that have not been tried: goes on where it stopped
    python benchmarks/coverage.py xlnet esm --again       # some of them, again
    python benchmarks/coverage.py --table-only            # only write the tables

The results are ``docs/coverage.json`` and ``docs/coverage.md``.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from tf_pipeline.files import write_text
from tf_pipeline.serving.client.answers import REMOTE_TASKS

if TYPE_CHECKING:
    from benchmarks.reload import Reloaded, Reloader

DOCS = Path(__file__).parent.parent / "docs"
RESULTS, TABLE = DOCS / "coverage.json", DOCS / "coverage.md"
SECONDS, BYTES = 1200, 8 * 2**30
SEED, NEW_TOKENS = 3, 8

# What each outcome means, in the order of the table's summary.
OUTCOMES = {
    "equal": "Ported, loaded, saved and loaded again without PyTorch, and equal to PyTorch every time.",
    "unequal": "Handed out, and not what PyTorch loads, saves or loads again.",
    "refused": "Captured by torch.export, but refused: an operator without a rule, or a difference from PyTorch.",
    "not captured": "torch.export cannot capture it for sizes that vary.",
    "not tried": "No tiny model of it could be made, or PyTorch itself fails on it.",
}
BODY, TABLES = "TFAutoModel", "TFAutoModelForTableQuestionAnswering"


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
    # There are as many processes as cores: threads of several would only wait for one another.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    from reload import Reloader

    with Reloader() as reloader:
        _run_all(options, results, reloader)


def _run_all(options: argparse.Namespace, results: dict[str, Any], reloader: "Reloader") -> None:
    from tqdm import tqdm

    _warm_up()
    import tiny

    types = options.types or [*tiny.text_model_types(), *tiny.OTHER_TYPES]
    todo = [name for name in types if options.again or "heads" not in results.get(name, ())]
    with tqdm(total=len(todo), unit="model", disable=None) as bar, tempfile.TemporaryDirectory() as folder:
        running: dict[str, _Attempt] = {}
        while todo or running:
            while todo and len(running) < options.workers:
                name = todo.pop(0)
                running[name] = _Attempt(name, folder, reloader)
            for name, attempt in list(running.items()):
                if attempt.goes_on():
                    continue
                results[name] = attempt.result()
                del running[name]
                _write(results)
                bar.set_postfix_str(f"{name}: {results[name]['outcome']}")
                bar.update()
            time.sleep(0.05)


def _warm_up() -> None:
    """Import and compute, before processes fork, what each would have to for itself; nothing that starts threads."""
    import tiny
    import torch
    import transformers

    from tf_pipeline.port import capture, gate, torch_layout  # noqa: F401

    torch.set_num_threads(1)
    capture.capture(transformers.GPTNeoXModel, tiny.tiny_config("gpt_neox"))


class _Attempt:
    """One architecture in a process of its own, which sends the result of each head when it has it.

    Args:
        name: the model type.
        folder: where to keep checkpoints and graphs meanwhile.
        reloader: loads without PyTorch.
    """

    def __init__(self, name: str, folder: str, reloader: "Reloader"):
        context = multiprocessing.get_context("fork")
        self._name, self._start, self._heads = name, time.monotonic(), {}
        self._trying, self._ended = "", False
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_try, args=(name, Path(folder) / name, reloader, theirs))
        self._process.start()
        theirs.close()

    def goes_on(self) -> bool:
        """Receive what has been sent, and say whether there is more to come."""
        with contextlib.suppress(EOFError):
            while self._pipe.poll():
                head, result = self._pipe.recv()
                self._trying = head
                self._heads |= {head: result} if result else {}
            return time.monotonic() - self._start < SECONDS
        self._ended = True
        return False

    def result(self) -> dict[str, Any]:
        """What came of it: that of the body, and ``heads``, by auto class."""
        self._process.kill() if not self._ended else None
        self._process.join()
        if not self._ended or self._process.exitcode:
            why = f"the process ended with status {self._process.exitcode} (memory?)"
            reason = why if self._ended else f"it took longer than {SECONDS} seconds"
            self._heads[self._trying or BODY] = {"outcome": "refused", "reason": reason}
        heads = {head: result for head, result in self._heads.items() if head != BODY}
        seconds = round(time.monotonic() - self._start)
        return self._heads.get(BODY, {"outcome": "not tried", "reason": ""}) | {"heads": heads, "seconds": seconds}


def _try(name: str, folder: Path, reloader: "Reloader", pipe) -> None:
    import warnings

    import transformers

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    os.environ["TF_PIPELINE_CACHE"] = str(folder / "cache")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        _limit_memory()
        for head, auto, changes in variants(name):
            pipe.send((head, None))
            pipe.send((head, attempt(name, auto, folder / head, reloader, changes)))
        pipe.close()
    os._exit(0)


def variants(model_type: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What is tried of an architecture: a name for it, the auto class, and changes of the config.

    The body comes first. A head that predicts tokens is tried tied and untied, if the config allows both.
    """
    import tiny

    from tf_pipeline import auto

    yield BODY, BODY, {}
    if model_type in tiny.OTHER_TYPES:
        return
    config = tiny.tiny_config(model_type)
    seen = {tiny.body_class(model_type).__name__}
    for model in [auto.TFAutoModelForTextEncoding, *auto._AutoModel.__subclasses__()]:
        torch_name = _torch_name(model, config)
        if torch_name is None or torch_name in seen:
            continue
        seen.add(torch_name)
        tied = [True, False] if _predicts_tokens(model.__name__) and hasattr(config, "tie_word_embeddings") else [None]
        for value in tied:
            named = {None: "", True: ", tied", False: ", untied"}[value]
            yield f"{model.__name__}{named}", model.__name__, {} if value is None else {"tie_word_embeddings": value}


def _predicts_tokens(auto: str) -> bool:
    return auto.endswith(("LM", "PreTraining"))


def _torch_name(model: type, config: Any) -> str | None:
    from tf_pipeline.port.mappings import mapping

    names = (mapping(name).get(config.model_type) for name in model.mappings)
    return next((found[0] for found in names if found), None)


def attempt(
    model_type: str, auto: str, folder: Path, reloader: "Reloader", changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Take a tiny model of a type along the way of a user's.

    Args:
        model_type: such as ``"xlnet"``.
        auto: our auto class.
        folder: where to save.
        reloader: loads without PyTorch.
        changes: values of the config to change.

    Returns:
        ``outcome`` (a key of ``OUTCOMES``) and ``reason``; of a port also its ``class``, ``nodes`` and ``operators``;
        of one that PyTorch can generate with ``generates`` (``"equal"``, or the difference) and ``cache`` (``"yes"``,
        or the reason that it has none).
    """
    from tf_pipeline.port import capture, capture_scan
    from tf_pipeline.port.errors import MissingRuleError

    try:
        loader, torch_class = _save_theirs(model_type, auto, folder, changes or {})
    except Exception as error:  # PyTorch's models raise all kinds
        return {"outcome": "not tried", "reason": _line(error)}
    captured: list[Any] = []

    def noted(run):
        return lambda *given: captured.append(run(*given)) or captured[-1]

    try:
        with (
            mock.patch.object(capture, "capture", noted(capture.capture)),
            mock.patch.object(capture_scan, "capture_scan", noted(capture_scan.capture_scan)),
        ):
            model, report = loader.from_pretrained(folder / "theirs", output_loading_info=True)
    except Exception as error:
        known = captured or isinstance(error, MissingRuleError)
        return {"outcome": "refused" if known else "not captured", "reason": _line(error)}
    result = {"outcome": "equal", "reason": " ".join(model.graph.notes), "class": torch_class.__name__,
              "nodes": len(model.graph.nodes), "operators": len(model.graph.operators())}  # fmt: skip
    try:
        theirs = _compare_files(model, report, torch_class, folder)
        result |= _compare_reloaded(model, theirs, loader.__name__, folder / "ours", reloader)
    except Exception as error:
        result |= {"outcome": "unequal", "reason": _line(error)}
    return result


def _save_theirs(model_type: str, auto: str, folder: Path, changes: dict[str, Any]) -> tuple[type, type]:
    """Save a random model of PyTorch's; returned are our class to load it with, and PyTorch's."""
    import tiny
    import torch
    import transformers

    from tf_pipeline import auto as autos
    from tf_pipeline.port.model import PortedModel, ported_class
    from tf_pipeline.reference.loading import load_torch_model

    config = tiny.tiny_config(model_type, **changes)
    if getattr(config, "pad_token_id", None) is None:  # PyTorch's classifiers look for the last token before it
        config.pad_token_id = 0
    loader = getattr(autos, auto)
    torch_class = getattr(transformers, _torch_name(loader, config))
    if not issubclass(loader.model_class(config), PortedModel):  # it has a module of its own: ported all the same
        loader = ported_class(torch_class.__name__)
    tiny.try_model(torch_class, config)
    load_torch_model(torch_class, None, config, torch.float32).save_pretrained(folder / "theirs")
    return loader, torch_class


def _compare_files(model, report, torch_class: type, folder: Path):
    """Save ours, and compare the files with those that PyTorch's model saves, which is returned.

    Raises:
        ValueError: saying what differs.
    """
    import torch

    from tf_pipeline.checkpoint import open_checkpoint
    from tf_pipeline.reference.loading import load_with_report

    theirs, seen = load_with_report(torch_class, folder / "theirs", model.config, torch.float32)
    _require(not (report.missing or report.unused or report.mismatched), f"our report is not empty: {report}")
    _require(not any(seen.values()), f"PyTorch does not read what it saved: {seen}")
    theirs.save_pretrained(folder / "theirs again")
    model.find_step()  # saved too, so that the model generates with a cache where PyTorch is not installed
    model.save_pretrained(folder / "ours")
    ours, again = open_checkpoint(folder / "ours"), open_checkpoint(folder / "theirs again")
    _require(set(ours) == set(again), f"other names are saved: {sorted(set(ours) ^ set(again))[:4]}")
    for name in again:
        _require(_same_bits(ours[name], again[name]), f"{name} is saved with other values")
    _, seen = load_with_report(torch_class, folder / "ours", model.config, torch.float32)
    _require(not any(seen.values()), f"PyTorch does not read what ours saved: {seen}")
    return theirs


def _compare_reloaded(model, theirs, class_name: str, folder: Path, reloader: "Reloader") -> dict[str, str]:
    """Load what ours saved without PyTorch, and compare it, and ours itself, with PyTorch's model.

    Returns:
        ``generates`` and ``cache``, if PyTorch's model can generate.

    Raises:
        ValueError: saying what differs.
    """
    from reload import Request

    from tf_pipeline.checkpoint import named_slots
    from tf_pipeline.port import gate
    from tf_pipeline.port.complete import sample

    inputs = {
        name: value.numpy()
        for name, value in sample(model.graph, theirs, model.config, model.graph.sample, SEED).items()
    }
    prompts, expected = _generated(theirs, model.config)
    copy = reloader.load(Request(str(folder), class_name, inputs, prompts, NEW_TOKENS))
    held = {key: slot.read() for key, slot in named_slots(model)}
    _require(
        set(copy.parameters) == set(held), f"others are read again: {sorted(set(copy.parameters) ^ set(held))[:4]}"
    )
    for key, value in held.items():
        _require(_same_bits(copy.parameters[key], value), f"{key} is read again with other values")
    gate.compare_outputs(model, theirs, SEED)
    gate.compare_outputs(model, theirs, SEED, lambda same_inputs: copy.outputs)
    return {} if expected is None else {"generates": _as_expected(copy, expected), "cache": _cache(model)}


def _cache(model) -> str:
    """``"yes"``, or the reason that the model generates without a cache."""
    from tf_pipeline.port.model import NO_STEP

    if model.stepper() is not None:
        return "yes"
    return next((note for note in model.graph.notes if note.startswith(NO_STEP)), "")


def _generated(theirs, config) -> tuple[dict[str, Any] | None, Any]:
    """Prompts padded on the left, and the likeliest tokens after them; ``None`` if PyTorch's model has none."""
    import torch

    from tf_pipeline.heads import head_of
    from tf_pipeline.port.sample import sample_inputs

    head = head_of(type(theirs).__name__)
    if head is None or not head.generates or not theirs.can_generate():
        return None, None
    prompts = sample_inputs(theirs, config, batch=3, length=7, padding_side="left", seed=SEED)
    prompts = {name: prompts[name] for name in ("input_ids", "attention_mask") if name in prompts}
    try:
        with torch.no_grad():
            tokens = theirs.generate(**prompts, max_new_tokens=NEW_TOKENS, do_sample=False)
    except Exception:  # PyTorch's models raise all kinds
        return None, None
    return {name: value.numpy() for name, value in prompts.items()}, tokens.numpy()


def _as_expected(copy: "Reloaded", tokens: Any) -> str:
    import numpy as np

    if isinstance(copy.generated, str):
        return " ".join(copy.generated.split())[:300]
    return "equal" if np.array_equal(copy.generated, tokens) else "other tokens than PyTorch's"


def _same_bits(a: Any, b: Any) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))


def _line(error: Exception) -> str:
    kind = "" if type(error).__name__ == "PortError" else f"{type(error).__name__}: "
    text = re.sub(r'"[^"]*/site-packages/', '"', " ".join(str(error).split()))
    return kind + text[:300]


def _summary(results: dict[str, Any]) -> str:
    from tiny import OTHER_TYPES

    lines, heads = [], [head for result in results.values() for head in result.get("heads", {}).values()]
    for kind, others in (("text", False), ("images and sound", True)):
        chosen = [result for name, result in results.items() if (name in OTHER_TYPES) == others]
        lines.append(f"Of {len(chosen)} for {kind}: {_counted(chosen)}.")
    lines.append(f"Of {len(heads)} heads that were tried, tied and untied: {_counted(heads)}.")
    tokens = [head["generates"] for head in heads if "generates" in head]
    cached = sum(head["generates"] == "equal" and head.get("cache") == "yes" for head in heads if "generates" in head)
    lines.append(
        f"Of {len(tokens)} heads that generate, {tokens.count('equal')} give PyTorch's tokens, {cached} with a cache."
    )
    return "\n".join(lines)


def _counted(results: list[dict[str, Any]]) -> str:
    outcomes = [result["outcome"] for result in results]
    counts = {name: outcomes.count(name) for name in OUTCOMES}
    captured = counts["equal"] + counts["unequal"] + counts["refused"]
    share = f"; {counts['equal'] / captured:.1%} of what torch.export captures is equal" if captured else ""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) + share


def _write(results: dict[str, Any]) -> None:
    """Write both files aside and move them into place."""
    ordered = dict(sorted(results.items()))
    lines = [
        "# Which architectures can be ported", "",
        "Made by `python benchmarks/coverage.py`: every text architecture of transformers, with every head, and some",
        "of images and sound, tiny and with random weights. PyTorch saves the model into a folder, and our auto class",
        "loads it from there. The object that is handed out is compared with PyTorch's of the same folder. It is",
        "saved, and its files are compared with PyTorch's. It is loaded again in a process in which PyTorch cannot be",
        "imported, and compared again. Families that have a module of their own are tried as ports.", "",
        "The column generates counts heads whose `generate` gives PyTorch's tokens there, greedily and after prompts",
        f"padded on the left, {NEW_TOKENS} for each row, of those that PyTorch generates with; the column cached those",
        "that need not compute the whole text again for every token. The column pipelines names the tasks whose heads",
        "are equal, and exported counts those of them that `tf-pipeline export` makes a SavedModel of.",
        *_older(ordered),
        "", _summary(ordered), "",
        *(f"- **{name}**: {meaning}" for name, meaning in OUTCOMES.items()), "",
        "| model type | outcome | operations | heads | generates | cached | pipelines | exported | note |",
        "|---|---|---|---|---|---|---|---|---|",
        *(f"| {name} | {r['outcome']} | {r.get('nodes', '')} | {_heads(r)} | {_generates(r)} | {_cached(r)} "
          f"| {', '.join(_tasks(r))} | {_exported(r)} | {_cell(r['reason'])} |"
          for name, r in ordered.items()), "",
        "## Heads that are not equal", "",
        "| model type | head | outcome | note |", "|---|---|---|---|",
        *(f"| {name} | {head} | {r['outcome']} | {_cell(r['reason'])} |" for name, result in ordered.items()
          for head, r in result.get("heads", {}).items() if r["outcome"] != "equal"), "",
        "## Heads that do not generate as PyTorch's", "",
        "| model type | head | note |", "|---|---|---|",
        *(f"| {name} | {head} | {_cell(r['generates'])} |" for name, result in ordered.items()
          for head, r in result.get("heads", {}).items() if r.get("generates", "equal") != "equal"), "",
        "## Heads that generate without a cache", "",
        "| model type | head | note |", "|---|---|---|",
        *(f"| {name} | {head} | {_cell(r['cache'])} |" for name, result in ordered.items()
          for head, r in result.get("heads", {}).items() if r.get("cache", "yes") != "yes"),
    ]  # fmt: skip
    for path, text in ((RESULTS, json.dumps(ordered, indent=1)), (TABLE, "\n".join(lines))):
        write_text(path, text + "\n")


def _older(results: dict[str, Any]) -> list[str]:
    """What results prove less, in words."""
    count = sum("heads" not in result for result in results.values())
    if not count:
        return []
    return ["", f"The {count} rows with — in place of heads are from an earlier run, which tried the body alone and",
            "without saved checkpoints: there, equal says that the captured graph computes what PyTorch does, at three",
            "shapes unlike the example, in float64 and float32."]  # fmt: skip


def _heads(result: dict[str, Any]) -> str:
    """How many heads are equal, of how many."""
    if "heads" not in result:
        return "—"
    return _share([head["outcome"] for head in result["heads"].values()])


def _generates(result: dict[str, Any]) -> str:
    """How many heads generate PyTorch's tokens, of how many that PyTorch generates with."""
    return _share([head["generates"] for head in result.get("heads", {}).values() if "generates" in head])


def _cached(result: dict[str, Any]) -> str:
    """How many heads generate with a cache, of how many that PyTorch generates with."""
    heads = [head for head in result.get("heads", {}).values() if "cache" in head]
    return _share(["equal" if head["cache"] == "yes" else head["cache"] for head in heads])


# Tasks by the auto class of their head. Heads of speech are not among those that are tried.
PIPELINES = {
    "TFAutoModelForCausalLM": ("text-generation",),
    "TFAutoModelForImageClassification": ("image-classification",),
    "TFAutoModelForMaskedLM": ("fill-mask",),
    "TFAutoModelForQuestionAnswering": ("question-answering",),
    "TFAutoModelForSeq2SeqLM": ("summarization", "text2text-generation", "translation"),
    "TFAutoModelForSequenceClassification": ("text-classification", "zero-shot-classification"),
    "TFAutoModelForTableQuestionAnswering": ("table-question-answering",),
    "TFAutoModelForTokenClassification": ("token-classification",),
}


def _tasks(result: dict[str, Any]) -> list[str]:
    """The pipelines whose head is equal in every variant."""
    outcomes: dict[str, list[str]] = {}
    for head, tried in result.get("heads", {}).items():
        outcomes.setdefault(head.partition(",")[0], []).append(tried["outcome"])
    equal = [auto for auto, tried in outcomes.items() if set(tried) == {"equal"}]
    if TABLES in outcomes:  # of an architecture whose tokenizer reads no texts
        equal = [auto for auto in equal if auto == TABLES]
    return sorted(task for auto in equal for task in PIPELINES.get(auto, ()))


def _exported(result: dict[str, Any]) -> str:
    """Share of the pipelines that are exported for servers."""
    return _share(["equal" if task in REMOTE_TASKS else "" for task in _tasks(result)])


def _share(outcomes: list[str]) -> str:
    return f"{outcomes.count('equal')} of {len(outcomes)}" if outcomes else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
