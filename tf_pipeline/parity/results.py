"""The checks of a comparison, and their verdict."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tf_pipeline.judging.check import Check, Finding, Skip

# Why a group is left out that ``groups`` does not name.
NOT_ASKED = "Not asked for."


@dataclass
class Results:
    """All checks of a comparison.

    Attributes:
        checks: the tensors and values that were compared.
        skipped: those that were not, with reasons.
        finding: the place where the models part, if they do.
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
        """Add checks as they come; making one may add others, such as that our model raised an error."""
        for check in checks:
            self.checks.append(check)

    def skip(self, group: str, what: str, reason: str) -> None:
        """Note a part that is not compared, with the reason."""
        self.skipped.append(Skip(group, what, reason))

    @property
    def failures(self) -> list[Check]:
        """Checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    @property
    def is_broken(self) -> bool:
        """Whether comparisons that ended in an error are all that speaks against equality."""
        return bool(self.failures) and all(check.is_error for check in self.failures)

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
        ended = [check.group for check in self.failures if check.is_error]
        error = f"comparing {', '.join(ended)} ended in an error"
        failed, others = len(self.failures) - len(ended), len(self.checks) - len(ended)
        if self.is_broken:
            return f"{subject} was not compared with PyTorch in full: {error}; the other {others} checks passed."
        also = f", and {error}" if ended else ""
        return f"{subject} does not equal PyTorch: {failed} of {others} checks failed{also}."

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


def worst_ratio(checks: Iterable[Check]) -> float:
    """Largest of our RMS errors as a multiple of PyTorch's, over tensors of at least 64 elements.

    The error of a few numbers is luck: PyTorch's may be next to nothing.
    """
    return max((check.ratio for check in checks if check.elements >= 64), default=0.0)
