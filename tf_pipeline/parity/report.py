"""What was compared, and how it went: in Python, as JSON, as a table in the terminal."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tf_pipeline.files import write_text
from tf_pipeline.terminal import table_console

SCHEMA = 1

# What is compared, in the order in which a report tells it.
GROUPS = {
    "tokenization": "ids, masks, token types, offsets and decoded text",
    "weights": "every parameter against the one that PyTorch loads",
    "outputs": "embeddings, hidden states, attentions, logits, probabilities and losses",
    "gradients": "the gradient of the loss by every parameter",
    "training": "one AdamW step, and a trajectory of them",
    "invariance": "the same row alone, in a batch, and padded on either side",
    "execution": "eager, graph, XLA and the reloaded SavedModel",
    "round trip": "saved here, loaded by PyTorch, saved there: bit for bit",
    "pipeline": "the dictionaries that pipelines return",
}


@dataclass(frozen=True)
class Worst:
    """The element that is furthest off.

    Attributes:
        index: its place in the tensor.
        ours: TensorFlow's value.
        truth: PyTorch's in float64.
        theirs: PyTorch's in the dtype of the check, if that is not float64.
    """

    index: tuple[int, ...]
    ours: float
    truth: float
    theirs: float | None = None


@dataclass(frozen=True)
class Check:
    """One tensor compared in one setting.

    Attributes:
        name: the tensor, such as ``hidden_states.3`` or ``gradient.bert.pooler.dense.weight``.
        setting: what was run, such as ``left padding``.
        dtype: dtype of the run; ``exact`` for what has no rounding, such as ids.
        shape: shape of the tensor.
        elements: how many elements were compared; a check of none fails.
        max_error: largest absolute error against PyTorch in float64; number of unequal elements if ``exact``.
        rms_error: root mean square of the errors.
        limit: the most that counts as equal: of ``rms_error`` if PyTorch's own error is the measure, else of
            ``max_error``.
        torch_max_error: largest error of PyTorch in the same dtype; 0 for float64.
        torch_rms_error: RMS error of PyTorch in the same dtype; 0 for float64.
        passed: the verdict.
        problem: why the tensors could not be compared, if they could not.
        group: one of ``GROUPS``.
        mean_error: mean absolute error.
        ulps: ``max_error`` in units in the last place of the tensor's largest value.
        worst: the element that is furthest off, if any is.
    """

    name: str
    setting: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    max_error: float
    rms_error: float
    limit: float
    torch_max_error: float = 0.0
    torch_rms_error: float = 0.0
    passed: bool = False
    problem: str = ""
    group: str = "outputs"
    mean_error: float = 0.0
    ulps: float = 0.0
    worst: Worst | None = None

    @property
    def ratio(self) -> float:
        """Our RMS error as a multiple of PyTorch's; 0 where there is none to compare with."""
        return self.rms_error / self.torch_rms_error if self.torch_rms_error else 0.0

    @property
    def severity(self) -> float:
        """How much of what is allowed was used: above 1 for a failure."""
        if self.problem or not self.limit:
            return 0.0 if self.passed else float("inf")
        used = (self.rms_error if self.torch_rms_error else self.max_error) / self.limit
        return used if self.passed else max(used, 1.0)

    def __str__(self) -> str:
        theirs = f", PyTorch's own {self.torch_rms_error:.2e}" if self.torch_rms_error else ""
        detail = self.problem or (
            f"largest error {self.max_error:.2e}, RMS {self.rms_error:.2e}{theirs}, limit {self.limit:.2e}"
        )
        return f"{self.name} {list(self.shape)} ({self.setting}, {self.dtype}): {detail}"


@dataclass(frozen=True)
class Skip:
    """Something that was not compared, and why."""

    group: str
    what: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """Where two models part: the first tensor, in the order of computation, that is not equal.

    Attributes:
        check: that tensor.
        keys: checkpoint keys of the parameters that it depends on and the tensors before it do not.
        hints: what the pattern looks like, the likeliest first.
    """

    check: Check
    keys: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The finding in words."""
        check, lines = self.check, [f"First difference: {self.check}"]
        if check.worst is not None:
            at = check.worst
            theirs = "" if at.theirs is None else f", PyTorch {at.theirs:.9g}"
            lines.append(f"  at {list(at.index)}: TensorFlow {at.ours:.9g}{theirs}, truth {at.truth:.9g}")
        if self.keys:
            shown = ", ".join(self.keys[:16]) + (f" and {len(self.keys) - 16} more" if len(self.keys) > 16 else "")
            lines.append(f"  fed by {shown}")
        return lines + [f"  hint: {hint}" for hint in self.hints]


@dataclass
class Report:
    """All checks of a comparison.

    Attributes:
        checks: what was compared.
        skipped: what was not, and why.
        finding: where the models part, if they do.
        checkpoint: folder or hub id.
        model_class: our class.
        environment: versions, processor and settings.
        seconds: how long it took.
    """

    checks: list[Check] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    finding: Finding | None = None
    checkpoint: str = ""
    model_class: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def extend(self, checks: Iterable[Check]) -> None:
        """Add checks."""
        self.checks.extend(checks)

    def skip(self, group: str, what: str, reason: str) -> None:
        """Note what is not compared, and why."""
        self.skipped.append(Skip(group, what, reason))

    @property
    def failures(self) -> list[Check]:
        """Checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    @property
    def passed(self) -> bool:
        """Whether everything that was compared is equal; nothing compared is not equal."""
        return bool(self.checks) and not self.failures

    @property
    def worst_ratio(self) -> float:
        """Largest of our RMS errors as a multiple of PyTorch's; see :func:`worst_ratio`."""
        return worst_ratio(self.checks)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if not self.checks:
            return "Nothing was compared."
        subject = f"{self.model_class} of {self.checkpoint} in TensorFlow"
        if self.passed:
            return f"{subject} equals PyTorch: all {len(self.checks)} checks passed."
        return f"{subject} does not equal PyTorch: {len(self.failures)} of {len(self.checks)} checks failed."

    def raise_if_unequal(self) -> None:
        """Fail with the checks that did not pass, in the order of the model: the first is nearest the cause.

        Raises:
            AssertionError: naming the first failures.
        """
        if not self.checks:
            raise AssertionError("Nothing was compared.")
        if self.failures:
            shown = "\n".join(f"  {check}" for check in self.failures[:8])
            found = "\n".join(self.finding.lines()) + "\n" if self.finding else ""
            raise AssertionError(f"{found}{len(self.failures)} of {len(self.checks)} checks are not equal:\n{shown}")

    # ---------------------------------------------------------------------------------------------------- writing

    def to_dict(self) -> dict[str, Any]:
        """Everything, in the stable schema of :meth:`write_json`."""
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "verdict": self.verdict,
            "checkpoint": self.checkpoint,
            "model_class": self.model_class,
            "seconds": self.seconds,
            "finding": asdict(self.finding) if self.finding else None,
            "skipped": [asdict(skip) for skip in self.skipped],
            "environment": self.environment,
            "checks": [asdict(check) for check in self.checks],
        }

    def write_json(self, path: str | os.PathLike) -> None:
        """Write the verdict and every check. Infinity and NaN, which JSON lacks, are ``"inf"`` and ``"nan"``."""
        write_text(path, json.dumps(_jsonable(self.to_dict()), indent=1, allow_nan=False) + "\n")

    def write_html(self, path: str | os.PathLike) -> None:
        """Write one self-contained page: the verdict, the drift by layer, every check, the environment."""
        from tf_pipeline.parity.html import render

        write_text(path, render(self))

    def print(self, console: Console | None = None) -> None:
        """Print one line a group, setting and dtype, what was left out, and the verdict."""
        parts: list[Any] = [_table(self.checks)]
        parts += [
            Text(f"Not compared: {what}: {reason}", style="dim")
            for what, reason in Counter((skip.what, skip.reason) for skip in self.skipped)
        ]
        if self.finding:
            parts += [Text(line, style="bold red" if not i else "red") for i, line in enumerate(self.finding.lines())]
        parts.append(Text(self.verdict, style="bold green" if self.passed else "bold red"))
        (console or table_console()).print(Group(*parts))


def worst_ratio(checks: Iterable[Check]) -> float:
    """Largest of our RMS errors as a multiple of PyTorch's, over tensors of at least 64 elements.

    The error of a few numbers is luck: PyTorch's may be next to nothing.
    """
    return max((check.ratio for check in checks if check.elements >= 64), default=0.0)


def _table(checks: list[Check]) -> Table:
    """One row a group and dtype for all settings that are equal, and one for each that is not."""
    table = Table("what", "settings", "dtype", "checks", "largest error", "worst RMS / torch's", "verdict")
    unequal = {(check.group, check.dtype, check.setting) for check in checks if not check.passed}
    rows: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        setting = check.setting if (check.group, check.dtype, check.setting) in unequal else ""
        rows.setdefault((check.group, check.dtype, setting), []).append(check)
    for (group, dtype, setting), members in rows.items():
        failed = sum(not check.passed for check in members)
        ratio = worst_ratio(members)
        error = max(check.max_error for check in members)
        table.add_row(
            escape(group),
            escape(setting) or str(len({check.setting for check in members})),
            escape(dtype),
            str(len(members)),
            f"{error:.1e}" if error else "0",
            f"{ratio:.2f}" if ratio else "-",
            f"[red]{failed} not equal" if failed else "[green]equal",
        )
    return table


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # infinite or NaN
        return str(value)
    return value
