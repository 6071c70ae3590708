"""The inputs that a PyTorch model takes, and in which form."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

# Classes that give their body every input without the axis of choices but the positions.
_ROWS_OF_POSITIONS = ("DistilBertForMultipleChoice", "GPT2DoubleHeadsModel")


def torch_inputs(model) -> tuple[str, ...]:
    """Names of the arguments of a PyTorch model."""
    return tuple(inspect.signature(model.forward).parameters)


def as_torch_tensors(model, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Inputs of a PyTorch model, floats in its dtype."""
    import torch

    inputs = _with_added_mask(model, inputs)
    tensors = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in inputs.items()}
    if type(model).__name__ in _ROWS_OF_POSITIONS and "position_ids" in tensors and tensors["position_ids"].ndim == 3:
        tensors["position_ids"] = tensors["position_ids"].flatten(0, 1)
    return {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in tensors.items()}


def _with_added_mask(model, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Inputs with a mask of pairs of tokens, if they have one, in PyTorch's form: numbers to add to scores.

    PyTorch takes such a mask as it is, so that it hides the tokens that a decoder must not see.
    """
    import torch

    mask, ids = inputs.get("attention_mask"), inputs.get("input_ids")
    if mask is None or ids is None or ids.ndim != 2 or mask.ndim == 2:
        return inputs
    visible = mask != 0
    if mask.ndim == 3:
        visible = visible[:, np.newaxis]
        if any(getattr(module, "is_causal", False) for module in model.modules()):
            visible = visible & np.tril(np.ones(visible.shape[-2:], bool))
    hidden = torch.finfo(model.dtype).min
    return {**inputs, "attention_mask": np.where(visible, 0.0, hidden)}


def padding_mask(lengths: np.ndarray, length: int, side: str) -> np.ndarray:
    """1 for tokens and 0 for padding, int64 ``[..., length]``, for rows of so many tokens ``[...]``."""
    steps = np.arange(length)
    kept = steps < lengths[..., None] if side == "right" else steps >= length - lengths[..., None]
    return kept.astype(np.int64)


def output_options(model, attentions: bool) -> dict[str, bool]:
    """The arguments by which a PyTorch model returns all that it computes, and no cache; those that it takes."""
    accepted = inspect.signature(type(model).forward).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    wanted = {"return_dict": True, "output_hidden_states": True, "use_cache": False}
    wanted |= {"output_attentions": True} if attentions else {}
    return {name: value for name, value in wanted.items() if name in accepted or open_ended}
