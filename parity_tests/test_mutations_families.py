"""Mistakes in every family, head, loss, tokenizer and pipeline are caught by the comparison that users run.

Each is planted in the code, and a checkpoint folder is compared by ``tf_pipeline.compare``.
"""

import sys
from functools import cache, partial

import pytest
import transformers

from benchmarks import tiny as port_tiny
from parity_tests import (
    mistakes_decoders,  # noqa: F401  adds to the list
    pipeline_helpers,
)
from parity_tests.checkpoint_helpers import new_folder
from parity_tests.conftest import ASSETS
from parity_tests.families import OWN_FAMILIES
from parity_tests.mistakes import MISTAKES, Mistake
from parity_tests.port_helpers import shared_cache, use_cache_of
from parity_tests.tiny import random_checkpoint, tiny_config
from tf_pipeline import compare
from tf_pipeline.auto import find_model_class
from tf_pipeline.judging.check import Check
from tf_pipeline.parity import Report, comparison, outputs, tokenization
from tf_pipeline.parity.corpus import adversarial_texts
from tf_pipeline.reference import loading

# The module, whose name in the package is that of its function.
COMPARE = sys.modules[compare.__module__]

_MADE = {}


def folder_of(mistake: Mistake):
    """The tiny checkpoint in which a mistake is planted, made once for equal ones."""
    key = (mistake.family, mistake.class_name, repr(sorted(mistake.changes.items())))
    if key not in _MADE:
        _MADE[key] = _made(mistake)
    return _MADE[key]


def _made(mistake: Mistake):
    if mistake.family == "with tokenizer":
        tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS)
        values = pipeline_helpers.labels_of(pipeline_helpers.CONLL) if "Token" in mistake.class_name else {}
        values |= {"num_labels": 5} if "Sequence" in mistake.class_name else {}
        return pipeline_helpers.tiny_with_tokenizer(mistake.class_name, tokenizer, **values | mistake.changes)
    if mistake.family == "ported":
        folder = random_checkpoint(new_folder(), mistake.class_name, port_tiny.tiny_config("roformer", num_labels=4))
        find_model_class(mistake.class_name).from_pretrained(folder)  # the graph is remembered without the mistake
        return folder
    config = tiny_config(mistake.family, mistake.class_name, **mistake.changes)
    return random_checkpoint(new_folder(), mistake.class_name, config)


@cache
def torch_model(class_name: str, *args):
    """PyTorch's model of a checkpoint, loaded once: no mistake is made in it."""
    return loading.torch_model(class_name, *args)


@pytest.fixture(autouse=True)
def only_the_verdict(monkeypatch):
    """No look for the cause, which other tests are about; fewer texts and steps of training are as telling here."""
    use_cache_of(monkeypatch, shared_cache())
    monkeypatch.setattr(tokenization, "adversarial_texts", lambda: adversarial_texts()[::20])
    monkeypatch.setattr(comparison, "torch_model", torch_model)
    monkeypatch.setattr(COMPARE.locate, "find", lambda comparison: None)
    monkeypatch.setitem(COMPARE._CHECKS, "training", partial(COMPARE.check_training, steps=2))


def compared(folder, class_name: str, groups, dtypes):
    # Three times PyTorch's own error is what random checkpoints of this harshness are allowed.
    return compare(folder, class_name, dtypes=dtypes, mode="eager", groups=groups, rms_factor=3.0)


class FirstFailure(BaseException):
    """A check that failed. Not an Exception, which the comparison would take for an error of our model."""

    def __init__(self, check: Check):
        super().__init__(str(check))
        self.check = check


class ReportUntilTheFirstFailure(Report):
    """A report that ends its comparison at the first check that fails: one is enough, and the others take time."""

    def extend(self, checks):
        for check in checks:
            super().extend([check])
            if not check.passed:
                raise FirstFailure(check)


def check_that_it_is_caught(mistake: Mistake, monkeypatch, record_property) -> None:
    folder = folder_of(mistake)
    mistake.plant(monkeypatch)
    monkeypatch.setattr(COMPARE, "Report", ReportUntilTheFirstFailure)
    if mistake.needs_labels:
        monkeypatch.setattr(outputs, "_results", lambda comparison, dtype: iter(()))
    with pytest.raises(FirstFailure) as caught:
        compared(folder, mistake.class_name, mistake.groups, mistake.dtypes)
    # An error would say that the mistake no longer fits the code.
    assert not caught.value.check.problem.startswith(("comparing it ended in", "TensorFlow raised")), caught.value
    record_property("mistake", mistake.family)


SAMPLE = [name for name, mistake in MISTAKES.items() if mistake.sample]


@pytest.mark.parametrize("name", SAMPLE)
def test_mistake_is_caught(name, monkeypatch, record_property):
    check_that_it_is_caught(MISTAKES[name], monkeypatch, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in SAMPLE])
def test_every_other_mistake_is_caught(name, monkeypatch, record_property):
    check_that_it_is_caught(MISTAKES[name], monkeypatch, record_property)


def comparisons() -> dict[str, list[Mistake]]:
    """The mistakes by the checkpoint that they are planted in, if its comparison is not that of ``test_models.py``."""
    found: dict[str, list[Mistake]] = {}
    for mistake in MISTAKES.values():
        changes = [f"{key}={value}" for key, value in sorted(mistake.changes.items())]
        found.setdefault(" ".join([mistake.family, mistake.class_name, *changes]), []).append(mistake)
    return {name: mistakes for name, mistakes in found.items() if any(map(_is_compared_here_alone, mistakes))}


def _is_compared_here_alone(mistake: Mistake) -> bool:
    return bool(mistake.changes) or {*mistake.groups} != {"outputs"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*comparisons()][::4])
def test_without_a_mistake_all_is_equal(name):
    mistakes = comparisons()[name]
    groups, dtypes = ({value for m in mistakes for value in getattr(m, part)} for part in ("groups", "dtypes"))
    compared(folder_of(mistakes[0]), mistakes[0].class_name, groups, sorted(dtypes)).raise_if_unequal()


def test_every_family_and_kind_of_head_has_its_mistakes(capsys):
    families = {mistake.family for mistake in MISTAKES.values()}
    assert families >= {*OWN_FAMILIES, "camembert", "xlm-roberta", "ported", "with tokenizer"}
    with capsys.disabled():
        print(f"\n{len(MISTAKES)} mistakes to plant, {len(SAMPLE)} of them in every run")
