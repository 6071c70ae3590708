"""Compare the graph of one step with PyTorch before anybody generates with it, and refuse it if they differ."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import torch
from transformers import PreTrainedConfig

from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.judging.tensors import judge_envelopes
from tf_pipeline.port.capture import Captured
from tf_pipeline.port.complete import FUSED_ALONE, set_attention
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import CAPACITY, Graph
from tf_pipeline.port.runner import GraphRunner, Weights, in_dtype, weights_of
from tf_pipeline.port.sample import LONGEST, boundaries, token_ids
from tf_pipeline.port.scan import stepper_of
from tf_pipeline.port.step import most_tokens
from tf_pipeline.port.torch_states import LISTED, first_arguments, forget
from tf_pipeline.reference.inputs import padding_mask
from tf_pipeline.reference.loading import load_torch_model
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import forget_lengths

# Rows, tokens of the prompt and tokens behind it. All rows but the first are padded on the left.
_SHAPES = ((1, 1, 4), (3, 9, 6))
_FREE = 5  # slots that stay free


@dataclass(frozen=True)
class _Text:
    """A prompt and its continuation.

    Attributes:
        ids: ``[rows, tokens]``.
        mask: the same, 0 where the prompt is padded.
        prompt: number of tokens of the prompt.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    prompt: int

    @property
    def name(self) -> str:
        """The shape, in words."""
        return f"{self.ids.shape[0]} × {self.prompt} + {self.ids.shape[1] - self.prompt}"

    @property
    def positions(self) -> torch.Tensor:
        """The positions that ``generate`` of PyTorch gives: ``[rows, tokens]``."""
        return (self.mask.cumsum(1) - 1).clamp(min=0) * self.mask


def check_step(step: Captured, model_class: type, config: PreTrainedConfig, whole: Graph) -> list[Check]:
    """Prove that a model which reads token after token computes what PyTorch does.

    Compared are the logits behind the prompt and behind each further token, of random weights: in float64 to 1e-10 with
    PyTorch's own cache and with PyTorch reading the whole text at once, and in float32 inside the envelope of
    PyTorch's own rounding. The texts cross every length that the config names.

    Args:
        step: the graph of one step.
        model_class: PyTorch's class.
        config: its config.
        whole: the graph that computes a whole text.

    Returns:
        The checks.

    Raises:
        PortError: if something is unequal.
    """
    sees_all = not step.graph.states or any(CAPACITY in state.shape for state in step.graph.states.values())

    def stepper(weights: Weights, dtype: str) -> Stepper:
        runner = GraphRunner(replace(step, graph=step.graph.one_token()), weights, dtype)
        return stepper_of(step.graph, runner.compute, runner.dtype)

    def generated(own: Stepper, text: _Text, capacity: int) -> np.ndarray:
        return generated_logits(own, text.ids, text.mask, text.prompt, capacity)

    runs = Runs(stepper, generated, partial(_stepwise, sees_all=sees_all), _at_once)
    return compare(runs, list(_texts(config, whole)), model_class, config, whole)


class Runs(NamedTuple):
    """Ways to compute the logits behind the prompt of a text and behind each further token.

    Attributes:
        stepper: makes ours of weights and a dtype.
        generated: ours, from that stepper, a text and a number of slots.
        stepwise: PyTorch's, from its model and a text, with its own cache.
        at_once: the same from one call with the whole text.
    """

    stepper: Callable[[Weights, str], Stepper]
    generated: Callable[[Stepper, Any, int], np.ndarray]
    stepwise: Callable[[torch.nn.Module, Any], np.ndarray]
    at_once: Callable[[torch.nn.Module, Any], np.ndarray]


def compare(runs: Runs, texts: Sequence[Any], model_class: type, config: PreTrainedConfig, whole: Graph) -> list[Check]:
    """Compare our logits of texts with PyTorch's; see :func:`check_step`.

    Args:
        runs: ways to compute them.
        texts: texts with ``ids`` and a ``name``.
        model_class: PyTorch's class.
        config: its config.
        whole: the graph that computes a whole text.

    Raises:
        PortError: if something is unequal.
    """
    model = load_torch_model(model_class, None, config, torch.float32, attn_implementation="eager")
    set_attention(model, "sdpa" if FUSED_ALONE in whole.notes else "eager")
    weights = weights_of(model)
    own = [runs.stepwise(model, text) for text in texts]
    model = model.double()
    truths, at_once = ([run(model, text) for text in texts] for run in (runs.stepwise, runs.at_once))
    del model  # as large as ours
    if not all(rules.judge_float64("logits", "", *pair).passed for pair in zip(truths, at_once, strict=True)):
        name = whole.model_class
        raise PortError(f"With its cache, {name} of PyTorch computes something else than from a whole text.")
    most = most_tokens(whole)
    capacities = [text.ids.shape[1] + _FREE for text in texts]
    capacities = capacities if most is None else [min(free, most) for free in capacities]

    def generated(dtype: str) -> list[np.ndarray]:
        stepper = runs.stepper(in_dtype(weights, dtype), dtype)
        return [runs.generated(stepper, *each) for each in zip(texts, capacities, strict=True)]

    checks, narrow = [], []
    results = zip(texts, generated("float64"), generated("float32"), own, truths, at_once, strict=True)
    for text, exact, single, theirs, truth, whole_text in results:
        checks += [rules.judge_float64("logits", f"{text.name}, cached", exact, truth)]
        checks += [rules.judge_float64("logits", f"{text.name}, at once", exact, whole_text)]
        narrow.append((text.name, "logits", (single, theirs, truth)))
    checks += judge_envelopes(narrow, "float32", rules.HARSH_RMS_FACTOR)
    if failures := [str(check) for check in checks if not check.passed]:
        raise PortError(f"{whole.model_class}: the step does not compute what PyTorch does.\n" + "\n".join(failures))
    return checks


def generated_logits(stepper: Stepper, ids: torch.Tensor, mask: torch.Tensor, prompt: int, capacity: int) -> np.ndarray:
    """Logits behind a prompt and behind each token after it, float64 ``[rows, 1 + tokens, vocab]``.

    Args:
        stepper: reads the tokens.
        ids: ``[rows, prompt + tokens]``.
        mask: the same, 0 where the prompt is padded.
        prompt: number of tokens of the prompt.
        capacity: number of slots.
    """
    tokens = tf.constant(ids.numpy(), tf.int32)
    inputs = {"input_ids": tokens[:, :prompt], "attention_mask": tf.constant(mask[:, :prompt].numpy(), tf.int32)}
    logits, state = stepper.prefill(inputs, capacity)
    every = [logits]
    for place in range(prompt, ids.shape[1]):
        logits, state = stepper.step(tokens[:, place], state)
        every.append(logits)
    return np.stack([x.numpy().astype(np.float64) for x in every], axis=1)


def lengths(config: PreTrainedConfig, whole: Graph) -> list[tuple[int, int, int]]:
    """Rows, tokens of the prompt and tokens behind it of the texts to compare.

    A few shapes, some that cross the lengths which the config names, and one that fills the table of positions.
    """
    most = most_tokens(whole)
    edges = [edge for edge in boundaries(config) if most is None or edge + 3 < most]
    crossing = [(2, size, 4) for edge in edges for size in (max(1, edge - 2), edge + 3)]
    if most is not None and 8 < most <= LONGEST:
        crossing.append((2, most - 3, 3))
    shapes = []
    for rows, prompt, new in dict.fromkeys([*_SHAPES, *crossing]):
        length = prompt + new if most is None else min(prompt + new, most)
        shapes.append((rows, min(prompt, length - 1), length - min(prompt, length - 1)))
    return shapes


def _texts(config: PreTrainedConfig, whole: Graph) -> Iterator[_Text]:
    """Texts of these lengths, padded on the left."""
    least = whole.limits.get("length", [1, None])[0]
    generator = torch.Generator().manual_seed(3)
    for rows, prompt, new in lengths(config, whole):
        length = prompt + new
        if prompt < max(1, least):
            continue
        real = torch.randint(max(1, prompt // 2), prompt + 1, (rows,), generator=generator)
        real[0] = prompt
        mask = torch.ones(rows, length, dtype=torch.int64)
        mask[:, :prompt] = torch.tensor(padding_mask(real.numpy(), prompt, "left"))
        yield _Text(token_ids(config.get_text_config(), (rows, length), generator), mask, prompt)


def _run(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor | None, places: torch.Tensor, **options
) -> Mapping[str, Any]:
    taken = inspect.signature(type(model).forward).parameters
    given = {name: x for name, x in (("position_ids", places), ("attention_mask", mask)) if name in taken}
    with torch.no_grad(), lifted_upcasts(model):
        return model(input_ids=ids, return_dict=True, **given, **options)


def _stepwise(model: torch.nn.Module, text: _Text, sees_all: bool = True) -> np.ndarray:
    """PyTorch's logits behind the prompt and each further token, with its own cache.

    Args:
        model: the PyTorch model.
        text: what it reads.
        sees_all: whether further tokens need the mask of those before.
    """
    forget_lengths(model)
    options = first_arguments(model, model.config)
    if LISTED in options and len(text.ids) > 1:  # RWKV's code for one token is right for a single row
        rows = [_Text(text.ids[i : i + 1], text.mask[i : i + 1], text.prompt) for i in range(len(text.ids))]
        return np.concatenate([_stepwise(model, row, sees_all) for row in rows])
    every, length = [], text.ids.shape[1]
    for start, end in [(0, text.prompt), *((place, place + 1) for place in range(text.prompt, length))]:
        span = slice(start, end)
        mask = text.mask[:, :end] if sees_all or not start else None
        outputs = _run(model, text.ids[:, span], mask, text.positions[:, span], **options)
        options |= {name: outputs[name] for name in options if outputs.get(name) is not None}
        every.append(copied(outputs.logits[:, -1]))
    forget(model)
    return np.stack(every, axis=1)


def copied(logits: torch.Tensor) -> np.ndarray:
    """Some tokens' logits in float64, without those of all others, of which they are a part."""
    return logits.double().numpy().copy()


def _at_once(model: torch.nn.Module, text: _Text) -> np.ndarray:
    """The same from one call with the whole text."""
    forget_lengths(model)
    outputs = _run(model, text.ids, text.mask, text.positions, use_cache=False)
    return copied(outputs.logits[:, text.prompt - 1 :])
