"""Gradient checkpointing: a layer's activations are computed again for its gradients rather than kept."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

# Names of layers in lists, such as those of a stack.
_NUMBERED = re.compile(r"\.\d+$")


def blocks_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the stacks of a model, outermost ones, which are computed again as a whole."""
    found: list[keras.layers.Layer] = []

    def walk(layer: keras.layers.Layer) -> None:
        for child in layer._flatten_layers(include_self=False, recursive=False):
            if _NUMBERED.search(child.name):
                found.append(child)
            else:
                walk(child)

    walk(model)
    return list({id(block): block for block in found}.values())


def enable(model: keras.Model) -> None:
    """Have the layers of a model's stacks computed again for their gradients, in training.

    Raises:
        ValueError: for a model without stacks of layers, as ported ones are.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError(
            f"{type(model).__name__} has no stack of layers to compute again: gradient checkpointing is for the "
            "architectures with a module of their own."
        )
    for block in blocks:
        block.__dict__["call"] = _recomputed(block, type(block).call.__get__(block))


def disable(model: keras.Model) -> None:
    """Keep all activations again."""
    for block in blocks_of(model):
        block.__dict__.pop("call", None)


def is_enabled(model: keras.Model) -> bool:
    """Whether layers of a model are computed again."""
    return any("call" in block.__dict__ for block in blocks_of(model))


def _recomputed(block: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's ``call`` that keeps nothing but its arguments while training."""

    def run(*args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        if not training:
            return call(*args, training=training, **kwargs)
        # Gradients flow to tensors among the fields of an argument too, such as a bias of all layers, but
        # tf.recompute_grad sees those alone that it is given one by one.
        given, rebuild = _apart((args, kwargs))
        seeds = [layer.seed_generator.state for layer in block._flatten_layers() if _draws(layer)]
        before: list[tf.Tensor] = []
        shape: list[Callable[[list[tf.Tensor]], Any]] = []

        @tf.recompute_grad
        def flat(*tensors: tf.Tensor) -> list[tf.Tensor]:
            after = [tf.identity(seed.value) for seed in seeds]
            if before:  # dropout draws what it drew
                for seed, value in zip(seeds, before, strict=True):
                    seed.assign(value)
            else:
                before.extend(after)
            new_args, new_kwargs = rebuild(list(tensors))
            results, put_together = _apart(call(*new_args, training=training, **new_kwargs))
            if shape:
                for seed, value in zip(seeds, after, strict=True):
                    seed.assign(value)
            else:
                shape.append(put_together)
            return results

        results = list(flat(*given))
        return shape[0](results)

    return run


def _draws(layer: keras.layers.Layer) -> bool:
    return getattr(layer, "seed_generator", None) is not None


def _apart(value: Any) -> tuple[list[tf.Tensor], Callable[[list[tf.Tensor]], Any]]:
    """The tensors in a value, and a function that makes such a value of others."""
    tensors: list[tf.Tensor] = []
    pattern = _marked(value, tensors)
    return tensors, lambda others: _filled(pattern, others)


class _Place(int):
    """Stands for a tensor."""


def _marked(value: Any, tensors: list[tf.Tensor]) -> Any:
    if tf.is_tensor(value):
        tensors.append(value)
        return _Place(len(tensors) - 1)
    return _mapped(value, lambda part: _marked(part, tensors))


def _filled(pattern: Any, tensors: list[tf.Tensor]) -> Any:
    return tensors[pattern] if isinstance(pattern, _Place) else _mapped(pattern, lambda part: _filled(part, tensors))


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A value with a function applied to its parts; what has none stays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: function(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    if isinstance(value, Mapping):
        return {name: function(part) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [function(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return [function(part) for part in value] if isinstance(value, list) else value
