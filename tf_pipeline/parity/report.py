"""What was compared, and how it went."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Check:
    """One tensor compared in one setting.

    Attributes:
        name: the tensor, such as ``hidden_states.3`` or ``gradient.bert.pooler.dense.weight``.
        setting: what was run, such as ``left padding``.
        dtype: dtype of the run.
        shape: shape of the tensor.
        elements: how many elements were compared; a check of none fails.
        max_error: largest absolute error against PyTorch in float64.
        rms_error: root mean square of the errors.
        limit: the most that counts as equal: for float64 of ``max_error``, else of ``rms_error``.
        torch_max_error: largest error of PyTorch in the same dtype; 0 for float64.
        torch_rms_error: RMS error of PyTorch in the same dtype; 0 for float64.
        passed: the verdict.
        problem: why the tensors could not be compared, if they could not.
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

    @property
    def ratio(self) -> float:
        """Our RMS error as a multiple of PyTorch's; 0 where there is none to compare with."""
        return self.rms_error / self.torch_rms_error if self.torch_rms_error else 0.0

    def __str__(self) -> str:
        theirs = f", PyTorch's own {self.torch_rms_error:.2e}" if self.torch_rms_error else ""
        detail = self.problem or (
            f"largest error {self.max_error:.2e}, RMS {self.rms_error:.2e}{theirs}, limit {self.limit:.2e}"
        )
        return f"{self.name} {list(self.shape)} ({self.setting}, {self.dtype}): {detail}"


@dataclass
class Report:
    """All checks of a comparison."""

    checks: list[Check] = field(default_factory=list)

    def extend(self, checks: Iterable[Check]) -> None:
        """Add checks."""
        self.checks.extend(checks)

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
        """Largest of our RMS errors as a multiple of PyTorch's, over tensors of at least 64 elements."""
        return max((check.ratio for check in self.checks if check.elements >= 64), default=0.0)

    def raise_if_unequal(self) -> None:
        """Fail with the checks that did not pass, in the order of the model: the first is nearest the cause.

        Raises:
            AssertionError: naming the first failures.
        """
        if not self.checks:
            raise AssertionError("Nothing was compared.")
        if self.failures:
            shown = "\n".join(f"  {check}" for check in self.failures[:8])
            raise AssertionError(f"{len(self.failures)} of {len(self.checks)} checks are not equal:\n{shown}")

    def write_json(self, path: str | os.PathLike) -> None:
        """Write the verdict and every check, through a temporary file that is moved into place."""
        content = {"schema": 1, "passed": self.passed, "checks": [asdict(check) for check in self.checks]}
        temporary = Path(f"{path}.part")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, path)

    def print(self, console: Console | None = None) -> None:
        """Print one line a setting and dtype."""
        table = Table("setting", "dtype", "tensors", "largest error", "worst RMS ratio to torch", "verdict")
        groups: dict[tuple[str, str], list[Check]] = {}
        for check in self.checks:
            groups.setdefault((check.setting, check.dtype), []).append(check)
        for (setting, dtype), checks in groups.items():
            failed = sum(not check.passed for check in checks)
            ratio = max(check.ratio for check in checks)
            table.add_row(
                setting,
                dtype,
                str(len(checks)),
                f"{max(check.max_error for check in checks):.1e}",
                f"{ratio:.2f}" if ratio else "-",
                f"[red]{failed} not equal" if failed else "[green]equal",
            )
        (console or Console()).print(table)
