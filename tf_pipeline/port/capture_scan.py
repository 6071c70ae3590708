"""Capture one token of a language model that keeps states, alone or with keys and values.

The states behind the tokens before are inputs and outputs of the graph: those of fixed size, such as a recurrence's or
the last columns of a convolution's input, and keys and values in slots, as in :mod:`tf_pipeline.port.capture_step`. The
graph reads one token, for which PyTorch's code has the recurrence itself; whole texts are read in a loop, also those of
models whose code for several tokens cannot be captured.
"""

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedConfig

from tf_pipeline.port.capture import (
    Captured,
    Writer,
    attention_implementation,
    build,
    by_name,
    explained,
    export,
    train_dropout_only,
)
from tf_pipeline.port.capture_step import StepWriter
from tf_pipeline.port.errors import MissingRuleError, PortError
from tf_pipeline.port.graph import CAPACITY, PAST, Graph, State
from tf_pipeline.port.sample import LENGTH, default_inputs, example_lengths, sample_inputs, token_ids
from tf_pipeline.port.step import misfit
from tf_pipeline.port.torch_states import ROWS, TorchStates
from tf_pipeline.reference.inputs import output_options
from tf_pipeline.reference.outputs import tensors_of

# Sizes of the example: no two the same, none that a model might compute with.
_HELD, _SLOTS = 7, 23
# Inputs that have a column for each token.
_TEXTS = ("input_ids", "attention_mask", "position_ids")
# The function by which PyTorch's code hides padding from recurrences.
_MASKER = "create_recurrent_attention_mask"


class TokenModule(torch.nn.Module):
    """A model that takes its states as tensors by name, and returns them so with the outputs of one token.

    Args:
        model: the PyTorch model.
        states: the states that it keeps.
        names: inputs, which become the signature that ``torch.export`` reads.
        filled: whether attention sees the filled slots alone.
        whole: whether to return all outputs rather than the logits alone.
    """

    def __init__(self, model: torch.nn.Module, states: TorchStates, names: list[str], filled: bool, whole: bool):
        super().__init__()
        self.model, self.output_class, self.filled, self.whole = model, "", filled, whole
        self.states = states
        self.options = output_options(model, attentions=False) if whole else {"return_dict": True}
        self.forward = by_name(self._run, names)

    def _run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        held = inputs[PAST].shape[0]
        texts = {name: value for name, value in inputs.items() if name in _TEXTS}
        if self.filled and self.states.slots and "attention_mask" in texts:
            texts["attention_mask"] = texts["attention_mask"][:, : held + 1]
        arguments = self.states.put(inputs, held, self.filled)
        outputs = self.model(**texts, **{**self.options, **arguments})
        self.output_class = type(outputs).__name__
        results = tensors_of(outputs) if self.whole else {"logits": outputs.logits}
        return results | self.states.take(arguments)


def capture_scan(model_class: type, config: PreTrainedConfig, filled: bool = False) -> Captured:
    """Capture a PyTorch class with a config as a graph of one token; the weights do not matter.

    Args:
        model_class: a class of ``transformers`` that reads a text from left to right.
        config: its config.
        filled: whether attention sees the filled slots alone.

    Raises:
        UncachedError: if it keeps no states.
        PortError: if ``torch.export`` cannot capture it; the message says why.
    """
    attention = attention_implementation(model_class, config)
    try:
        precise = build(model_class, config, attention, torch.float32).eval()
        settles = TorchStates(precise, config).settles
        defaults = default_inputs(precise, config, example_lengths(precise, config))
    except PortError:
        raise
    except Exception as error:  # whatever the model's code makes of a text alone
        raise explained(model_class, error) from error
    # A model that its first run settles for inference computes something else while training.
    modes = [(dtype, training) for training in (True, False)[settles:] for dtype in (torch.bfloat16, torch.float32)]
    return _capture_token(model_class, config, precise, modes, defaults, filled, whole=True)


class _Counter(TorchDispatchMode):
    """Counts operators."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def loops_over_tokens(model_class: type, config: PreTrainedConfig) -> bool:
    """Whether the code of a class runs more operators for longer texts, so that none captures it for all lengths.

    Args:
        model_class: a class of ``transformers``; only one that says that it keeps states is tried.
        config: its config.
    """
    if not getattr(model_class, "_is_stateful", False):
        return False
    counts = []
    try:
        model = build(model_class, config, attention_implementation(model_class, config), torch.float32).eval()
        for length in (LENGTH, 2 * LENGTH):
            with torch.no_grad(), _Counter() as counter:
                model(**sample_inputs(model, config, length=length), return_dict=True)
            counts.append(counter.count)
    except Exception:  # whatever the model's code makes of the config, the capture will say
        return False
    return counts[1] > counts[0]


def capture_token(model_class: type, config: PreTrainedConfig, whole: Graph, filled: bool = False) -> Captured:
    """Capture the step of a model whose whole text is captured too; see :func:`capture_scan` for the arguments.

    Args:
        model_class: a class of ``transformers`` that predicts tokens from those before them.
        config: its config.
        whole: the graph that computes a whole text, whose parameters the step shares.
        filled: whether attention sees the filled slots alone.
    """
    precise = build(model_class, config, attention_implementation(model_class, config), torch.float32).eval()
    taken = inspect.signature(model_class.forward).parameters
    defaults = {name: None for name in _TEXTS if name in taken}
    modes = ((torch.bfloat16, False), (torch.float32, False))
    captured = _capture_token(model_class, config, precise, modes, defaults, filled, whole=False)
    if reason := misfit(captured.graph, whole):
        raise PortError(f"The step of {model_class.__name__} does not fit its graph: {reason}.")
    return captured


def _capture_token(model_class, config, precise, modes, defaults: dict, filled: bool, whole: bool) -> Captured:
    """Capture a class in the first dtype and mode that it allows."""
    failure: Exception | None = None
    for dtype, training in modes:
        try:
            model = build(model_class, config, attention_implementation(model_class, config), dtype).eval()
            states = TorchStates(model, config)
            if training:
                train_dropout_only(model)
            inputs = _example(states, config, defaults)
            wrapper = TokenModule(model, states, list(inputs), filled, whole)
            with _recurrences_see_padding(model, bool(states.slots)):
                program = export(wrapper, inputs, partial(_is_open, states))
            return _TokenWriter(program, wrapper, precise, defaults, training).write()
        except MissingRuleError as error:
            failure = error
            if not training:
                raise
        except PortError:
            raise
        except Exception as error:  # torch.export raises whatever the model's code makes of symbolic sizes
            failure = error
    raise explained(model_class, failure) from failure


def _is_open(states: TorchStates, name: str, axis: int) -> bool:
    has_tokens = (name in states.slots and axis == 2) or (name == "attention_mask" and states.slots and axis == 1)
    return axis == 0 or bool(has_tokens)


def _example(states: TorchStates, config: PreTrainedConfig, defaults: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Inputs of one token behind a few others, one row of which is padded."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(ROWS, _SLOTS if states.slots else 1, dtype=torch.int64)
    mask[1, :1] = 0
    inputs = {
        "input_ids": token_ids(config.get_text_config(), (ROWS, 1), generator),
        "attention_mask": mask,
        "position_ids": torch.full((ROWS, 1), _HELD),
    }
    inputs = {name: value for name, value in inputs.items() if name in defaults}
    inputs[PAST] = torch.zeros(_HELD)
    for name, state in states.examples.items():
        shape = list(state.shape)
        if name in states.slots:
            shape[2] = _SLOTS
        inputs[name] = torch.randn(shape, generator=generator).to(state.dtype)
    return inputs


@contextlib.contextmanager
def _recurrences_see_padding(model: torch.nn.Module, from_all: bool) -> Iterator[None]:
    """Let recurrences see the mask of the token, which PyTorch leaves out for single tokens: none is padding there.

    Args:
        model: the PyTorch model.
        from_all: whether the mask has a column for each slot rather than that of the token alone.
    """

    def mask_of_token(config, inputs_embeds, attention_mask, cache=None, **kwargs):
        if attention_mask is None or not from_all:
            return attention_mask
        return attention_mask.select(1, cache.get_seq_length())[:, None]

    modules = {sys.modules[type(module).__module__] for module in model.modules()}
    changed = [(module, getattr(module, _MASKER)) for module in modules if hasattr(module, _MASKER)]
    for module, _ in changed:
        setattr(module, _MASKER, mask_of_token)
    try:
        yield
    finally:
        for module, function in changed:
            setattr(module, _MASKER, function)


class _TokenWriter(StepWriter):
    """Turns an exported token into a graph with states."""

    def __init__(self, program, wrapper: TokenModule, precise: torch.nn.Module, defaults: dict, training: bool):
        super().__init__(program, wrapper, precise, (PAST, *wrapper.states.examples), None)
        self.defaults, self.training = self.defaults | defaults, training

    def write(self) -> Captured:
        """The graph.

        Raises:
            PortError: if it would be right for the example alone, or an output is not one of each token.
        """
        captured = super().write()
        graph = captured.graph
        states = {
            name: State(spec.dtype, spec.shape, graph.outputs[name], self.wrapper.states.initial.get(name, 0.0))
            for name, spec in graph.inputs.items()
            if name in self.wrapper.states.examples
        }
        texts = {
            name: replace(spec, shape=["batch", "length"]) for name, spec in graph.inputs.items() if name in _TEXTS
        }
        outputs = {name: value for name, value in graph.outputs.items() if name not in self.wrapper.states.examples}
        graph = replace(
            graph, inputs=texts, states=states, outputs=outputs, limits={"batch": [1, None], "length": [1, None]}
        )
        self._check_outputs(graph)
        graph.nodes = graph.one_token().needed((*outputs, *states))
        return replace(captured, graph=graph)

    def _check_outputs(self, graph: Graph) -> None:
        for name, value in graph.outputs.items():
            for reference in value if isinstance(value, list) else [value]:
                shape = graph.by_name[reference[1:]].shape
                if len(shape) != 3 or shape[:2] != ["batch", 1]:
                    raise PortError(f"{graph.model_class} returns {name} that is not of single tokens: {shape}.")

    def _axis_names(self, name: str, value: torch.Tensor) -> list[str]:
        if name in self.wrapper.states.slots:
            return ["batch", "", CAPACITY]
        return [PAST] if name == PAST else ["batch", CAPACITY if name == "attention_mask" else ""]

    def _is_open(self, name: str, axis: int) -> bool:
        return axis == 0 or _is_open(self.wrapper.states, name, axis)

    def _notes(self) -> list[str]:
        return Writer._notes(self) if self.wrapper.whole else []
