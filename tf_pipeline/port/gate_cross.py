"""Compare the step of an encoder–decoder with PyTorch before anybody generates with it; refuse it if they differ."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from transformers import PreTrainedConfig

from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.judging.check import Check
from tf_pipeline.port.capture import Captured
from tf_pipeline.port.capture_step import cache_argument
from tf_pipeline.port.complete import MOST_SIGNALS, reads_fixed_signals
from tf_pipeline.port.cross_step import CrossSteps, Part, parts
from tf_pipeline.port.gate_step import Runs, compare, copied, lengths
from tf_pipeline.port.graph import Graph
from tf_pipeline.port.runner import GraphRunner, Weights
from tf_pipeline.port.sample import sample_inputs, token_ids
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import forget_lengths


@dataclass(frozen=True)
class _Translation:
    """A source, and a text that is written from it.

    Attributes:
        source: inputs of the encoder by name.
        ids: the decoder's tokens, ``[rows, tokens]``.
        prompt: number of tokens that the decoder starts with.
        name: the shape, in words.
    """

    source: dict[str, torch.Tensor]
    ids: torch.Tensor
    prompt: int
    name: str


def check_cross(
    step: Captured, model_class: type, config: PreTrainedConfig, whole: Graph, constants: Mapping[str, np.ndarray]
) -> list[Check]:
    """Prove that an encoder–decoder which writes token after token computes what PyTorch does.

    The comparison is that of :func:`~tf_pipeline.port.gate_step.check_step`, over sources of unequal lengths that are
    padded on either side.

    Args:
        step: the graph of one step.
        model_class: PyTorch's class.
        config: its config.
        whole: the graph that computes a whole text, which has the encoder.
        constants: values of its constants.

    Returns:
        The checks.

    Raises:
        PortError: if something is unequal.
    """

    def stepper(weights: Weights, dtype: str) -> CrossSteps:
        values = (constants, step.constants, step.constants)
        return CrossSteps(
            *(_part(*each, weights, dtype) for each in zip(parts(whole, step.graph), values, strict=True))
        )

    runs = Runs(stepper, generated_logits, _stepwise, _at_once)
    return compare(runs, list(_translations(model_class, config, whole)), model_class, config, whole)


def _part(graph: Graph, constants: Mapping[str, np.ndarray], weights: Weights, dtype: str) -> Part:
    runner = GraphRunner(Captured(graph, dict(constants)), weights, dtype)
    return Part(graph, runner.compute, runner.dtype)


def generated_logits(stepper: Stepper, text: _Translation, capacity: int) -> np.ndarray:
    """Logits behind the tokens that a decoder starts with and behind each further one.

    Args:
        stepper: reads the source and the tokens.
        text: a source and tokens.
        capacity: number of slots.

    Returns:
        float64 ``[rows, 1 + tokens, vocab]``.
    """
    tokens = tf.constant(text.ids.numpy(), tf.int32)
    source = {name: tf.constant(value.numpy()) for name, value in text.source.items()}
    logits, state = stepper.prefill(source | {"decoder_input_ids": tokens[:, : text.prompt]}, capacity)
    every = [logits]
    for place in range(text.prompt, tokens.shape[1]):
        logits, state = stepper.step(tokens[:, place], state)
        every.append(logits)
    return np.stack([x.numpy().astype(np.float64) for x in every], axis=1)


def _translations(model_class: type, config: PreTrainedConfig, whole: Graph) -> Iterator[_Translation]:
    with torch.device("meta"):
        model = model_class._from_config(config)
    generator = torch.Generator().manual_seed(3)
    shapes = [*lengths(config, whole), (3, 1, 4), (3, 2, 3)]
    if reads_fixed_signals(whole):
        shapes = [(min(rows, MOST_SIGNALS), prompt, new) for rows, prompt, new in shapes]
    sources = itertools.cycle(_sources(whole))
    for seed, ((rows, prompt, new), (size, side)) in enumerate(zip(shapes, sources, strict=False)):
        inputs = sample_inputs(model, config, rows, size, 1, side, seed)
        source = {name: x for name, x in inputs.items() if name in whole.inputs and not name.startswith("decoder_")}
        ids = token_ids(config.get_text_config(decoder=True), (rows, prompt + new), generator)
        yield _Translation(source, ids, prompt, f"{rows} × {size} → {prompt} + {new}")


def _sources(whole: Graph) -> list[tuple[int, str]]:
    """Lengths of sources, and the side on which they are padded."""
    length, (least, most) = whole.sample[1], whole.limits.get("length", [1, None])
    others = [(1, "right"), (2 * length, "left")]
    if any(node.op.startswith("aten._assert") for node in whole.nodes):
        others = []  # of a graph with checks, the length of its sample alone is known to be taken
    others = [(size, side) for size, side in others if least <= size <= (most or size)]
    return [*others, (length, "right"), (length, "left")]


def _run(module: torch.nn.Module, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], **options: Any) -> Any:
    """The outputs of a model, or of a part of it."""
    given = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in inputs.items()}
    with torch.no_grad(), lifted_upcasts(model):
        return module(**given, return_dict=True, **options)


def _stepwise(model: torch.nn.Module, text: _Translation) -> np.ndarray:
    """PyTorch's logits behind the prompt and each further token, with its own cache."""
    forget_lengths(model)
    encoded = _run(model.get_encoder(), model, text.source)
    mask = {name: x for name, x in text.source.items() if name == "attention_mask"}
    name, past, every, length = cache_argument(type(model)), {}, [], text.ids.shape[1]
    for start, end in [(0, text.prompt), *((place, place + 1) for place in range(text.prompt, length))]:
        tokens = {"decoder_input_ids": text.ids[:, start:end]}
        outputs = _run(model, model, mask | tokens, encoder_outputs=encoded, use_cache=True, **past)
        past = {name: getattr(outputs, name)}
        every.append(copied(outputs.logits[:, -1]))
    return np.stack(every, axis=1)


def _at_once(model: torch.nn.Module, text: _Translation) -> np.ndarray:
    """The same from one call with the whole text."""
    forget_lengths(model)
    outputs = _run(model, model, text.source | {"decoder_input_ids": text.ids}, use_cache=False)
    return copied(outputs.logits[:, text.prompt - 1 :])
