"""The outputs of a model of either framework, as arrays by name, without anything that is no result."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

# Losses that PyTorch's models return next to each other, of which neither holds the other.
LOSSES = ("loss", "mc_loss")
# Outputs of PyTorch's models that spare work later on, and are no result.
CACHES = ("past_key_values", "cache", "mems", "cache_params", "state", "encoder_past_key_values")


def without_caches(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of a PyTorch model that are results."""
    return {name: value for name, value in outputs.items() if name not in CACHES and value is not None}


def tensors_of(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors, and tuples of tensors, among a PyTorch model's outputs."""
    import torch

    result: dict[str, Any] = {}
    for name, value in outputs.items():
        if name in CACHES:
            continue
        if torch.is_tensor(value):
            result[name] = value
        elif isinstance(value, (tuple, list)) and (tensors := tuple(x for x in value if torch.is_tensor(x))):
            result[name] = tensors
    return result


def objective(outputs: Mapping[str, Any]) -> Any:
    """The scalar to differentiate, of either framework: the sum of the losses; without labels, a random projection.

    The sum of a body's normalised states is almost constant, and so is that of their squares: neither would have a
    gradient worth comparing. Fixed random weights for every element do.
    """
    if (loss := total_loss(outputs)) is not None:
        return loss
    value = next(value for name, value in outputs.items() if name not in ("hidden_states", "attentions"))
    weights = np.random.default_rng(0).normal(size=tuple(value.shape)) / math.prod(value.shape)
    if tf.is_tensor(value):
        return tf.reduce_sum(value * tf.constant(weights, value.dtype))
    return (value * value.new_tensor(weights)).sum()


def total_loss(outputs: Mapping[str, Any]) -> Any:
    """The sum of the losses among outputs of either framework, or among arrays of them; ``None`` if there is none."""
    losses = [outputs[name] for name in LOSSES if outputs.get(name) is not None]
    return sum(losses[1:], losses[0]) if losses else None


def flatten(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Outputs as float64 arrays by name; see :func:`named_tensors`."""
    return {name: array(value) for name, value in named_tensors(outputs).items()}


def named_tensors(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs by name in the order of computation, so that the first difference is the one nearest its cause.

    ``hidden_states.0``, ``attentions.0``, ``hidden_states.1``, …, then the other outputs, then the loss.
    """
    layers, others = {}, {}
    for index, (name, value) in enumerate(outputs.items()):
        place = {"hidden_states": 0, "attentions": 1}.get(name)
        items = {f"{name}.{i}": item for i, item in enumerate(value)} if isinstance(value, tuple) else {name: value}
        for i, (key, item) in enumerate(items.items()):
            if place is not None:
                layers[key] = ((0, i, place), item)
            elif item is not None:
                others[key] = ((2 if name in LOSSES else 1, index, i), item)
    ordered = sorted((layers | others).items(), key=lambda entry: entry[1][0])
    return {name: value for name, (_, value) in ordered}


def array(value: Any) -> np.ndarray:
    """A tensor of either framework, or an array, as a float64 array."""
    if tf.is_tensor(value) or isinstance(value, np.ndarray):
        return np.asarray(value, np.float64)
    return torch_array(value)


def torch_array(value: Any) -> np.ndarray:
    """A tensor of PyTorch as a float64 array."""
    return value.detach().double().numpy()
