"""The outcome of a comparison: the tensors, the distance between them, and whether it is allowed."""

from dataclasses import dataclass

# The groups of a comparison, in the order of a report.
GROUPS = {
    "tokenization": "ids, masks, token types, offsets and decoded text",
    "weights": "every parameter against the one that PyTorch loads",
    "outputs": "embeddings, hidden states, attentions, logits, probabilities and losses",
    "gradients": "the gradient of the loss by every parameter",
    "training": "one AdamW step, and a trajectory of them",
    "invariance": "the same row alone, in a batch, and padded on either side",
    "execution": "eager, graph, XLA and the reloaded SavedModel",
    "generation": "tokens that follow a cache, and the texts of generate",
    "round trip": "saved here, loaded by PyTorch, saved there: bit for bit",
    "pipeline": "the dictionaries that pipelines return",
}


# How the problem of a group begins whose comparison ended in an error, of either side or of its own.
ENDED = "comparing it ended in"


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
        setting: the inputs and mode of the run, such as ``left padding``.
        dtype: dtype of the run; ``exact`` for values without rounding, such as ids.
        shape: shape of the tensor.
        elements: number of elements that were compared; a check of none fails.
        max_error: largest absolute error against PyTorch in float64; number of unequal elements if ``exact``.
        rms_error: root mean square of the errors.
        limit: the largest value that is allowed: of ``rms_error`` if PyTorch's own error is the measure, else of
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
        """Our RMS error as a multiple of PyTorch's; 0 without an error of PyTorch to compare with."""
        return self.rms_error / self.torch_rms_error if self.torch_rms_error else 0.0

    @property
    def severity(self) -> float:
        """The share of the allowed error that was used: above 1 for a failure."""
        if self.problem or not self.limit:
            return 0.0 if self.passed else float("inf")
        used = (self.rms_error if self.torch_rms_error else self.max_error) / self.limit
        return used if self.passed else max(used, 1.0)

    @property
    def is_error(self) -> bool:
        """Whether a comparison ended in an error, so that it tells nothing about the models."""
        return self.problem.startswith(ENDED)

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
    """The place where two models part: the first tensor, in the order of computation, that is not equal.

    Attributes:
        check: that tensor.
        keys: checkpoint keys of the parameters that it depends on and the tensors before it do not.
        hints: mistakes that would explain it, the most likely first.
    """

    check: Check
    keys: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The finding in words."""
        check, lines = self.check, [f"{'Error' if self.check.is_error else 'First difference'}: {self.check}"]
        if check.worst is not None:
            at = check.worst
            theirs = "" if at.theirs is None else f", PyTorch {at.theirs:.9g}"
            lines.append(f"  at {list(at.index)}: TensorFlow {at.ours:.9g}{theirs}, truth {at.truth:.9g}")
        if self.keys:
            shown = ", ".join(self.keys[:16]) + (f" and {len(self.keys) - 16} more" if len(self.keys) > 16 else "")
            lines.append(f"  fed by {shown}")
        return lines + [f"  hint: {hint}" for hint in self.hints]
