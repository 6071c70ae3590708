"""The rules that decide whether two tensors are equal.

**float64** measures semantics: both frameworks compute the same formula with rounding far below anything that matters,
so TensorFlow must agree with PyTorch to 1e-10 of the tensor's scale.

**Narrower dtypes** measure rounding. No fixed tolerance is right for every depth and width, but PyTorch's own error
against its float64 result shows the error that the dtype allows. Ours has to stay inside an *envelope* around it: the
RMS error at most ``rms_factor`` times PyTorch's, the largest error at most ``MAX_FACTOR`` times (a maximum is a noisy
statistic), each plus a floor of a few units in the last place of the tensor's scale, without which a lucky PyTorch
result would fail us. ``docs/parity.md`` has a figure.

**Exact** is for values without rounding: ids, masks, offsets, text, stored weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pipeline.judging.check import Check, Worst

FLOAT64_TOLERANCE = 1e-10
RMS_FACTOR = 2.0
HARSH_RMS_FACTOR = 3.0
MAX_FACTOR = 5.0
FLOOR_ULPS = 4.0

# Distance from 1 to the next number of each dtype.
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def judge_float64(
    name: str,
    setting: str,
    ours: np.ndarray,
    truth: np.ndarray,
    group: str = "outputs",
    tolerance: float = FLOAT64_TOLERANCE,
) -> Check:
    """Compare float64 results with PyTorch's, element by element.

    Args:
        name: the tensor.
        setting: the inputs and mode of the run.
        ours: TensorFlow's result.
        truth: PyTorch's result, of the same shape.
        group: group of the check.
        tolerance: largest error, as a fraction of the tensor's largest value (of 1, if that is larger).
    """
    if (failed := _unlike(name, setting, "float64", ours, truth, group)) is not None:
        return failed
    limit = tolerance * max(1.0, _scale(truth))
    errors = _errors(ours, truth)
    return Check(
        **_common(name, setting, "float64", group, errors, ours, truth),
        limit=limit,
        passed=bool(_largest(errors) <= limit),
    )


def judge_envelope(
    name: str,
    setting: str,
    dtype: str,
    ours: np.ndarray,
    torch_result: np.ndarray,
    truth: np.ndarray,
    rms_factor: float = RMS_FACTOR,
    group: str = "outputs",
) -> Check:
    """Compare our error with PyTorch's own in the same dtype, both against PyTorch's float64 result.

    Args:
        name: the tensor.
        setting: the inputs and mode of the run.
        dtype: dtype of the two results.
        ours: TensorFlow's result.
        torch_result: PyTorch's result in ``dtype``.
        truth: PyTorch's result in float64.
        rms_factor: maximum of our RMS error, as a multiple of PyTorch's.
        group: group of the check.
    """
    if (failed := _unlike(name, setting, dtype, ours, truth, group)) is not None:
        return failed
    theirs = _errors(torch_result, truth)
    their_rms, their_largest = _rms(theirs), _largest(theirs)
    del theirs  # as large as the tensor
    errors = _errors(ours, truth)
    floor = FLOOR_ULPS * EPSILON[dtype]
    rms_limit = rms_factor * their_rms + floor * _rms(truth)
    max_limit = MAX_FACTOR * their_largest + floor * _scale(truth)
    common = _common(name, setting, dtype, group, errors, ours, truth, torch_result)
    return Check(
        **common,
        limit=rms_limit,
        torch_max_error=their_largest,
        torch_rms_error=their_rms,
        passed=bool(common["rms_error"] <= rms_limit and common["max_error"] <= max_limit),
    )


def judge_exact(
    name: str, setting: str, ours: Any, theirs: Any, group: str, what: Sequence[str] | None = None
) -> Check:
    """Compare values without rounding.

    Args:
        name: name of the value.
        setting: the inputs and mode of the run.
        ours: an array, or a list of any values.
        theirs: the same from PyTorch.
        group: group of the check.
        what: subject of each entry of the first axis, for the message; such as the texts.
    """
    ours, theirs = list(ours), list(theirs)
    count = sum(np.size(item) for item in theirs)
    problem = ""
    if len(ours) != len(theirs):
        problem = f"{len(ours)} entries, but PyTorch has {len(theirs)}"
    elif not count:
        problem = "nothing was compared"
    unequal = [] if problem else [i for i, pair in enumerate(zip(ours, theirs, strict=True)) if not _same(*pair)]
    if unequal:
        first = unequal[0]
        subject = f" for {what[first]!r:.80}" if what is not None else ""
        problem = f"{len(unequal)} of {len(theirs)} entries differ; entry {first}{subject}: " + (
            f"{_short(ours[first])} is not {_short(theirs[first])}"
        )
    return Check(
        name=name,
        setting=setting,
        dtype="exact",
        shape=(len(theirs),),
        elements=int(count),
        max_error=float(len(unequal)),
        rms_error=0.0,
        limit=0.0,
        passed=not problem,
        problem=problem,
        group=group,
    )


def judge_failure(
    setting: str, dtype: str, error: Exception, group: str = "outputs", what: str = "TensorFlow raised"
) -> Check:
    """A failed check for a setting in which our model raised an error, or for a group that ended in one."""
    problem = f"{what} {type(error).__name__}: {error}"[:500]
    return Check(group, setting, dtype, (), 0, np.inf, np.inf, 0.0, problem=problem, group=group)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, np.ndarray):
        ours = np.asarray(ours)
        return ours.shape == theirs.shape and ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()
    return bool(ours == theirs)


def _short(value: Any) -> str:
    return f"{value.tolist() if isinstance(value, np.ndarray) else value!r}"[:160]


def _common(name, setting, dtype, group, errors, ours, truth, theirs=None) -> dict[str, Any]:
    """Fields of a check that are the same for every rule."""
    largest, scale = _largest(errors), _scale(truth)
    worst = None
    if largest:
        place = np.unravel_index(int(np.argmax(errors)), errors.shape)
        worst = Worst(
            tuple(int(i) for i in place),
            float(ours[place]),
            float(truth[place]),
            None if theirs is None else float(theirs[place]),
        )
    return {
        "name": name,
        "setting": setting,
        "dtype": dtype,
        "group": group,
        "shape": truth.shape,
        "elements": truth.size,
        "max_error": largest,
        "mean_error": float(np.mean(errors)),
        "rms_error": _rms(errors),
        "ulps": largest / (EPSILON[dtype] * scale) if scale else 0.0,
        "worst": worst,
    }


def _unlike(name, setting, dtype, ours, truth, group) -> Check | None:
    """A failed check if there is nothing to compare, another shape, NaN where PyTorch has none, or NaN alone."""
    problem = ""
    if ours.shape != truth.shape:
        problem = f"shape {ours.shape} is not {truth.shape}"
    elif not truth.size:
        problem = "nothing was compared"
    elif not np.array_equal(np.isnan(ours), np.isnan(truth)):
        problem = "NaN in different places"
    elif not np.isfinite(truth).any():
        problem = "nothing was compared: PyTorch's values are all NaN or infinite"
    if not problem:
        return None
    return Check(
        name, setting, dtype, truth.shape, truth.size, np.inf, np.inf, 0.0, passed=False, problem=problem, group=group
    )


def _errors(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    # PyTorch's NaN and infinities, reproduced in the same place, are no error.
    same = (result == truth) | (np.isnan(result) & np.isnan(truth))
    with np.errstate(invalid="ignore"):
        errors = np.asarray(np.abs(result - truth))
    errors[same] = 0.0
    return errors


def _rms(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(finite, out=finite)))) if finite.size else 0.0


def _largest(errors: np.ndarray) -> float:
    return float(errors.max())


def _scale(truth: np.ndarray) -> float:
    finite = truth[np.isfinite(truth)]
    return float(np.abs(finite, out=finite).max(initial=0.0))
