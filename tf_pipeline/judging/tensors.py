"""Judge the tensors of a whole result by name, over the positions that hold tokens."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check

# Setting, name, and ours, PyTorch's and the truth.
Tensor = tuple[str, str, tuple[np.ndarray, ...]]

# A root mean square over fewer numbers than this says little.
FEW_ELEMENTS = 64


def judge_float64(
    setting: str, ours: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], group: str = "outputs"
) -> Iterator[Check]:
    """Judge results in float64, those that only one side has included."""
    for name, value in truth.items():
        yield rules.judge_float64(name, setting, ours.get(name, np.empty(0)), value, _group(name, group))
    for name in ours.keys() - truth.keys():
        yield rules.judge_float64(name, setting, ours[name], np.empty(0), _group(name, group))


def judge_envelopes(
    tensors: Iterable[Tensor], dtype: str, rms_factor: float, group: str = "outputs"
) -> Iterator[Check]:
    """Judge tensors in a narrow dtype, those of few numbers together over all settings.

    The error of a few numbers is luck, PyTorch's as well as ours.

    Args:
        tensors: setting, name, and the results of :func:`real_arrays`: ours, PyTorch's and the truth.
        dtype: the dtype.
        rms_factor: width of the envelope.
        group: group of the checks.
    """
    few: dict[str, dict[str, tuple[np.ndarray, ...]]] = {}
    for setting, name, arrays in tensors:
        if are_few(arrays):
            few.setdefault(name, {})[setting] = arrays
        else:
            yield rules.judge_envelope(name, setting, dtype, *arrays, rms_factor, group)
    for name, members in few.items():
        together = next(iter(members)) if len(members) == 1 else f"{len(members)} settings together"
        arrays = [np.concatenate([array.ravel() for array in kind]) for kind in zip(*members.values(), strict=True)]
        yield rules.judge_envelope(name, together, dtype, *arrays, rms_factor, group)


def are_few(arrays: tuple[np.ndarray, ...]) -> bool:
    """Whether a tensor has too few numbers to be judged alone."""
    return arrays[0].shape == arrays[2].shape and 0 < arrays[2].size < FEW_ELEMENTS


def real_arrays(
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    mask: np.ndarray | None,
) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    """Each tensor of three results by name, over the positions that hold tokens."""
    for name, value in theirs.items():
        arrays = (ours.get(name, np.empty(0)), value, truth[name])
        yield name, tuple(real_positions(name, array, mask) for array in arrays)


def _group(name: str, group: str) -> str:
    return "gradients" if name.startswith("gradient.") and group == "outputs" else group


def real_positions(name: str, value: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The part of a tensor that belongs to tokens, as ``[tokens, …]``, if it has a token axis at all.

    Args:
        name: the tensor's name.
        value: ``[batch, seq, …]``, several of these ``[streams, batch, seq, …]``, attentions ``[batch, heads, query,
            key]``, or something without tokens.
        mask: ``[batch, seq]`` or ``[batch, choices, seq]``.
    """
    if mask is None:
        return value
    mask = mask.reshape(-1, mask.shape[-1]) != 0
    if name.startswith("attentions"):
        value = np.moveaxis(value, 1, 2)
    elif value.shape[:2] != mask.shape == value.shape[1:3]:
        value = np.moveaxis(value, 0, 2)
    return value[mask] if value.shape[:2] == mask.shape else value
