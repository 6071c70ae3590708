"""Locate and explain a difference: the first tensor that differs, the keys that feed it, and the likely mistake.

A mistake is recognised by experiment: PyTorch's model is given it, and if its result then is ours, that was it.
"""

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.checkpoint import named_slots
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import GROUPS, Check, Finding
from tf_pipeline.parity import run
from tf_pipeline.parity.comparison import Comparison, Inputs
from tf_pipeline.parity.labels import configured
from tf_pipeline.reference.outputs import named_tensors
from tf_pipeline.reference.running import named_torch_parameters, run_torch, torch_parameters

EPSILONS = (1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3)
ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "relu", "silu", "tanh")
MASKED_OUT = "a row masked out"


def find(comparison: Comparison) -> Finding | None:
    """The first difference of a comparison, or ``None`` if there is none."""
    order = {name: place for place, name in enumerate([*list(GROUPS)[1:], "tokenization"])}
    failures = sorted(comparison.report.failures, key=lambda check: order[check.group])
    if not failures:
        return None
    first = failures[0]
    if first.group == "weights":
        return Finding(first, (first.name,), tuple(_weight_hints(comparison, first.name)))
    if first.group == "gradients":
        return Finding(first, (first.name.removeprefix("gradient."),), tuple(_gradient_hints(comparison, first)))
    if first.group != "outputs" or not first.elements:
        return Finding(first)
    inputs, changes = comparison.inputs(first.setting)
    keys = feeding_keys(comparison.ours(), inputs, first.name)
    with configured(changes, comparison.ours(), comparison.theirs()):
        return Finding(first, tuple(keys), tuple(_output_hints(comparison, first, inputs, keys)))


def feeding_keys(model, inputs: Inputs, name: str) -> list[str]:
    """Checkpoint keys of the parameters that a tensor depends on and no tensor before it does.

    Args:
        model: one of our models.
        inputs: its inputs.
        name: the tensor, as :func:`tf_pipeline.parity.named_tensors` calls it.
    """
    variables = {key: slot.variable.value for key, slot in named_slots(model)}
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(run.as_tensors(model, inputs), output_hidden_states=True, output_attentions=True)
        tensors = named_tensors(outputs)
    if name not in tensors:
        return []
    before = itertools.takewhile(lambda other: other != name, tensors)
    seen = tape.gradient([tensors[other] for other in before], variables) if next(iter(tensors)) != name else {}
    own = tape.gradient(tensors[name], variables)
    return [key for key, value in own.items() if value is not None and seen.get(key) is None]


# ------------------------------------------------------------------------------------------------------- weights


def _weight_hints(comparison: Comparison, key: str) -> Iterator[str]:
    ours = run.parameters(comparison.ours())
    theirs = torch_parameters(comparison.theirs(), ours)
    if key not in ours:
        yield f"our model has no {key}: {'a bias is missing' if key.endswith('bias') else 'the parameter is missing'}."
        return
    if key not in theirs:
        yield f"PyTorch's model has no {key}."
        return
    value, truth = ours[key], theirs[key]
    if value.shape == truth.shape[::-1] and value.ndim == 2 and np.array_equal(value.T, truth):
        yield "the kernel is transposed."
    if not value.any() and truth.any():
        yield f"ours is all zero: {'the bias is missing or' if key.endswith('bias') else 'it'} was never loaded."
    for other, candidate in theirs.items():
        if other != key and candidate.shape == value.shape and np.array_equal(candidate, value) and value.any():
            yield f"ours holds {other}: two parameters are swapped, or wrongly tied."


def _gradient_hints(comparison: Comparison, check: Check) -> Iterator[str]:
    key = check.name.removeprefix("gradient.")
    at = check.worst
    if check.problem.startswith("shape (0,)") or (at is not None and abs(at.ours) < 1e-9 * abs(at.truth)):
        what = "the bias is not added" if key.endswith("bias") else "it is not used, or its gradient is blocked"
        yield f"the outputs do not depend on {key} in our model: {what}."
    else:
        yield "the outputs agree and the gradient does not: look for a stopped or custom gradient, and for the loss."


# ------------------------------------------------------------------------------------------------------- outputs


@dataclass
class _Mistake:
    """A mistake that PyTorch's model can be given.

    Attributes:
        hint: message if it explains the difference.
        make: returns a context in which the model makes the mistake.
        inputs: inputs to use instead.
    """

    hint: str
    make: Callable[[Any], contextlib.AbstractContextManager] = field(default=lambda model: contextlib.nullcontext())
    inputs: Inputs | None = None


def _output_hints(comparison: Comparison, first: Check, inputs: Inputs, keys: list[str]) -> Iterator[str]:
    failures = [check for check in comparison.report.failures if check.group == "outputs"]
    if all(check.dtype != "float64" for check in failures) and "float64" in comparison.dtypes:
        yield "float64 agrees, so the formula is right: our rounding is worse than PyTorch's in this dtype."
        return
    runner = run.TensorFlowRunner(comparison.ours(), "eager")
    result = runner(inputs)
    if any(not np.array_equal(value, result[name], equal_nan=True) for name, value in runner(inputs).items()):
        yield "two runs of ours on the same inputs differ: dropout is left on, or something else is random."
        return
    if first.name not in result:
        yield f"our model returns no {first.name}."
        return
    if first.name == "loss":
        yield from _loss_hints(float(result["loss"]), comparison.truth(first.setting, inputs), inputs)
        return
    for mistake in _mistakes(comparison, inputs, keys):
        with mistake.make(comparison.theirs()):
            mistaken = run_torch(comparison.theirs(), mistake.inputs or inputs)
        if rules.judge_float64(first.name, first.setting, result[first.name], mistaken[first.name]).passed:
            yield mistake.hint
    yield from _pattern_hints(failures, first)


def _pattern_hints(failures: list[Check], first: Check) -> Iterator[str]:
    settings = {check.setting for check in failures}
    if settings == {MASKED_OUT}:
        yield (
            "only rows without a visible token differ: the constant that hides a token has to be the dtype's minimum, "
            "which swallows every score."
        )
    elif settings <= {"left padding", MASKED_OUT}:
        yield "only padding on the left differs: look at the mask and at the positions."
    if first.name.startswith(("logits", "prediction_logits", "start_logits")):
        yield "all hidden states agree, so the difference is in the head, or in the weight it is tied to."


def _mistakes(comparison: Comparison, inputs: Inputs, keys: list[str]) -> Iterator[_Mistake]:
    config = comparison.ours().config
    yield from _input_mistakes(inputs)
    yield from _module_mistakes(config)
    yield from _parameter_mistakes(comparison.theirs(), keys, config)


def _loss_hints(loss: float, truth: Mapping[str, np.ndarray], inputs: Inputs) -> Iterator[str]:
    """Known mistakes of a loss for token labels that would explain ours."""
    logits, labels = truth.get("logits"), inputs.get("labels")
    if logits is not None and labels is not None and logits.ndim == 3 and labels.shape == logits.shape[:2]:
        mistakes = {
            "labels are not shifted: position t scores label t.": (logits, labels),
            "labels are shifted: position t scores label t + 1.": (logits[:, :-1], labels[:, 1:]),
            "labels are shifted twice.": (logits[:, :-2], labels[:, 2:]),
            "labels of -100 are counted.": (logits, np.maximum(labels, 0)),
        }
        yield from (hint for hint, pair in mistakes.items() if math.isclose(_cross_entropy(*pair), loss, rel_tol=1e-9))
    yield "the logits agree, so the difference is in the loss."


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy over the labels that are not -100."""
    logits, labels = logits[labels != -100], labels[labels != -100]
    largest = logits.max(-1, keepdims=True)
    normal = np.log(np.exp(logits - largest).sum(-1)) + largest[:, 0]
    return float(np.mean(normal - np.take_along_axis(logits, labels[:, None], -1)[:, 0]))


def _input_mistakes(inputs: Inputs) -> Iterator[_Mistake]:
    for key, hint in (
        ("attention_mask", "the attention mask is ignored."),
        ("token_type_ids", "token types are ignored."),
    ):
        if key in inputs:
            yield _Mistake(hint, inputs={name: value for name, value in inputs.items() if name != key})
    mask = inputs.get("attention_mask")
    if mask is not None and mask.ndim == 2 and not mask[:, 0].all() and mask.any():
        visible = np.maximum.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
        yield _Mistake("the mask is ignored on the left.", inputs=inputs | {"attention_mask": visible})
    if "position_ids" in inputs:
        yield _Mistake("position_ids are ignored.", inputs={k: v for k, v in inputs.items() if k != "position_ids"})


def _module_mistakes(config) -> Iterator[_Mistake]:
    for epsilon in EPSILONS:
        yield _Mistake(
            f"the epsilon of the normalisation is {epsilon:g} in ours.", _attribute("LayerNorm", "eps", epsilon)
        )
    for activation in ACTIVATIONS:
        yield _Mistake(
            f"the activation is {activation!r} in ours (config: {_activation(config)!r}).", _activated(activation)
        )


def _activation(config) -> str | None:
    names = ("hidden_act", "activation", "activation_function", "dense_act_fn")
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _parameter_mistakes(model, keys: list[str], config) -> Iterator[_Mistake]:
    shapes = {name: tuple(value.shape) for name, value in named_torch_parameters(model)}
    keys = [key for key in keys if key in shapes]
    weights = [key for key in keys if key.endswith("weight") and len(shapes[key]) == 2]
    for key in weights:
        if re.search(r"position", key):
            for step in (1, -1):
                hint = f"positions are off by {step:+d}."
                yield _Mistake(hint, _edited({key: lambda value, step=step: value.roll(-step, 0)}))
        elif shapes[key][0] == shapes[key][1]:
            yield _Mistake(f"the kernel of {key} is transposed.", _edited({key: lambda value: value.T}))
    for one, other in itertools.combinations([key for key in weights if "embeddings" not in key], 2):
        if shapes[one] == shapes[other]:
            yield _Mistake(f"{_module(one)} and {_module(other)} are swapped.", _swapped(_module(one), _module(other)))
    for key in keys:
        if key.endswith("bias"):
            yield _Mistake(f"{key} is not added.", _edited({key: lambda value: value * 0}))
    heads = getattr(config, "num_attention_heads", None)
    scale = math.sqrt(config.hidden_size // heads) if heads else 1.0
    for key in weights if heads else ():
        edits = {f"{_module(key)}.{part}": lambda value: value * scale for part in ("weight", "bias")}
        yield _Mistake(f"the attention scores lack the scale of 1/{scale:g}.", _edited(edits))


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _edited(edits: Mapping[str, Callable]) -> Callable[[Any], contextlib.AbstractContextManager]:
    """A context in which parameters are other functions of themselves."""

    @contextlib.contextmanager
    def edit(model):
        import torch

        parameters = {key: value for key, value in named_torch_parameters(model) if key in edits}
        own = {key: value.detach().clone() for key, value in parameters.items()}
        with torch.no_grad():
            for key, value in parameters.items():
                value.copy_(edits[key](own[key]))
        try:
            yield
        finally:
            with torch.no_grad():
                for key, value in parameters.items():
                    value.copy_(own[key])

    return edit


def _swapped(one: str, other: str) -> Callable[[Any], contextlib.AbstractContextManager]:
    def swap(model):
        values = {key: value.detach().clone() for key, value in named_torch_parameters(model)}
        pairs = [(f"{a}.{part}", f"{b}.{part}") for a, b in ((one, other), (other, one)) for part in ("weight", "bias")]
        return _edited({key: lambda _, source=source: values[source] for key, source in pairs if source in values})(
            model
        )

    return swap


def _attribute(class_part: str, name: str, value: Any) -> Callable[[Any], contextlib.AbstractContextManager]:
    """A context in which an attribute of all modules of a kind has another value."""

    @contextlib.contextmanager
    def set_all(model):
        modules = [m for m in model.modules() if class_part in type(m).__name__ and hasattr(m, name)]
        own = [getattr(module, name) for module in modules]
        for module in modules:
            setattr(module, name, value)
        try:
            yield
        finally:
            for module, previous in zip(modules, own, strict=True):
                setattr(module, name, previous)

    return set_all


def _activated(name: str) -> Callable[[Any], contextlib.AbstractContextManager]:
    """A context in which the config's activation is another one."""

    @contextlib.contextmanager
    def activate(model):
        from transformers.activations import ACT2FN

        kind = type(ACT2FN[_activation(model.config)])
        places = [(m, attr) for m in model.modules() for attr, child in m.named_children() if type(child) is kind]
        own = [getattr(module, attr) for module, attr in places]
        for module, attr in places:
            setattr(module, attr, ACT2FN[name])
        try:
            yield
        finally:
            for (module, attr), previous in zip(places, own, strict=True):
                setattr(module, attr, previous)

    return activate
