"""When are two tensors equal? The two rules that decide.

**float64** measures semantics: both frameworks compute the same formula with rounding far below what matters, so
TensorFlow must agree with PyTorch to 1e-10 of the tensor's scale.

**Narrower dtypes** measure rounding. No fixed tolerance is right for every depth and width, but PyTorch's own error
against its float64 result shows what the dtype allows. Ours has to stay inside an *envelope* around it: the RMS error
at most ``rms_factor`` times PyTorch's, the largest error at most ``MAX_FACTOR`` times (a maximum is a noisy statistic),
each plus a floor of a few units in the last place of the tensor's scale, without which a lucky PyTorch result would
fail us.
"""

import numpy as np

from tf_pipeline.parity.report import Check

FLOAT64_TOLERANCE = 1e-10
RMS_FACTOR = 2.0
HARSH_RMS_FACTOR = 3.0
MAX_FACTOR = 5.0
FLOOR_ULPS = 4.0

# Distance from 1 to the next number of each dtype.
EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def judge_float64(name: str, setting: str, ours: np.ndarray, truth: np.ndarray) -> Check:
    """Compare float64 results with PyTorch's, element by element.

    Args:
        name: the tensor.
        setting: what was run.
        ours: TensorFlow's result.
        truth: PyTorch's result, of the same shape.
    """
    if (failed := _unlike(name, setting, "float64", ours, truth)) is not None:
        return failed
    errors = _errors(ours, truth)
    scale = max(1.0, _scale(truth))
    return Check(
        name=name,
        setting=setting,
        dtype="float64",
        shape=truth.shape,
        elements=truth.size,
        max_error=_largest(errors),
        rms_error=_rms(errors),
        limit=FLOAT64_TOLERANCE * scale,
        passed=bool(_largest(errors) <= FLOAT64_TOLERANCE * scale),
    )


def judge_envelope(
    name: str,
    setting: str,
    dtype: str,
    ours: np.ndarray,
    torch_result: np.ndarray,
    truth: np.ndarray,
    rms_factor: float = RMS_FACTOR,
) -> Check:
    """Compare our error with PyTorch's own in the same dtype, both against PyTorch's float64 result.

    Args:
        name: the tensor.
        setting: what was run.
        dtype: dtype of the two results.
        ours: TensorFlow's result.
        torch_result: PyTorch's result in ``dtype``.
        truth: PyTorch's result in float64.
        rms_factor: most that our RMS error may be, as a multiple of PyTorch's.
    """
    if (failed := _unlike(name, setting, dtype, ours, truth)) is not None:
        return failed
    errors, theirs = _errors(ours, truth), _errors(torch_result, truth)
    ulp = EPSILON[dtype]
    rms_limit = rms_factor * _rms(theirs) + FLOOR_ULPS * ulp * _rms(truth)
    max_limit = MAX_FACTOR * _largest(theirs) + FLOOR_ULPS * ulp * _scale(truth)
    return Check(
        name=name,
        setting=setting,
        dtype=dtype,
        shape=truth.shape,
        elements=truth.size,
        max_error=_largest(errors),
        rms_error=_rms(errors),
        limit=rms_limit,
        torch_max_error=_largest(theirs),
        torch_rms_error=_rms(theirs),
        passed=bool(_rms(errors) <= rms_limit and _largest(errors) <= max_limit),
    )


def _unlike(name, setting, dtype, ours, truth) -> Check | None:
    """A failed check for results that cannot be compared: none, another shape, NaN where PyTorch has none."""
    problem = ""
    if ours.shape != truth.shape:
        problem = f"shape {ours.shape} is not {truth.shape}"
    elif not truth.size:
        problem = "nothing was compared"
    elif not np.array_equal(np.isnan(ours), np.isnan(truth)):
        problem = "NaN in different places"
    if not problem:
        return None
    return Check(name, setting, dtype, truth.shape, truth.size, np.inf, np.inf, 0.0, passed=False, problem=problem)


def _errors(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    # PyTorch's NaN and infinities, reproduced in the same place, are no error.
    same = (result == truth) | (np.isnan(result) & np.isnan(truth))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.abs(result - truth))


def _rms(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


def _largest(errors: np.ndarray) -> float:
    return float(errors.max())


def _scale(truth: np.ndarray) -> float:
    return float(np.abs(truth[np.isfinite(truth)]).max(initial=0.0))
