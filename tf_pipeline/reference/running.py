"""Run a PyTorch model: its outputs and gradients as float64 arrays by name."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pipeline.reference.inputs import as_torch_tensors, output_options
from tf_pipeline.reference.outputs import (
    flatten,
    named_tensors,
    objective,
    tensors_of,
    torch_array,
    without_caches,
)
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import forget_lengths


def run_torch(model, inputs: Mapping[str, np.ndarray], gradients: bool = False) -> dict[str, np.ndarray]:
    """All outputs of a PyTorch model, and the gradient of its :func:`objective` by parameter if asked for."""
    import torch

    tensors = as_torch_tensors(model, inputs)
    forget_lengths(model)
    model.zero_grad()
    with torch.set_grad_enabled(gradients), lifted_upcasts(model):
        outputs = model(**tensors, output_hidden_states=True, output_attentions=True)
    results = flatten(without_caches(outputs))
    if type(model).__name__ == "DebertaV2ForSequenceClassification" and results["logits"].ndim == 1:
        results["logits"] = results["logits"][:, np.newaxis]  # its loss of one label takes the axis of labels away
    if gradients:
        objective(outputs).backward()
        for name, parameter in named_torch_parameters(model):
            if parameter.grad is not None:
                results[f"gradient.{name}"] = torch_array(parameter.grad)
    return results


def raw_torch(model, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The outputs of a PyTorch model as they come, in order, with hidden states and without attentions."""
    import torch

    with torch.no_grad(), lifted_upcasts(model):
        return without_caches(model(**as_torch_tensors(model, inputs), output_hidden_states=True))


def run_reference(model, inputs: Mapping[str, Any], attentions: bool = True) -> dict[str, np.ndarray]:
    """All outputs of a PyTorch model that it offers, from PyTorch's tensors; see :func:`run_torch` for arrays.

    In a float64 model nothing is computed in float32.

    Args:
        model: the model.
        inputs: PyTorch's tensors by name.
        attentions: whether attention probabilities are asked for.
    """
    return {name: torch_array(value) for name, value in reference_tensors(model, inputs, attentions).items()}


def reference_tensors(model, inputs: Mapping[str, Any], attentions: bool = True) -> dict[str, Any]:
    """As :func:`run_reference`, in the dtypes in which the model computes them: PyTorch's tensors by name."""
    import torch

    own = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    forget_lengths(model)
    with torch.no_grad(), lifted_upcasts(model):
        # The fused implementation has none, and steps back to the other if they are asked for.
        attentions = attentions and model.config._attn_implementation == "eager"
        outputs = model(**own, **output_options(model, attentions))
    return named_tensors(tensors_of(outputs))


def torch_parameters(model, names: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The parameters of a PyTorch model by checkpoint key, and its buffers among ``names``."""
    buffers = {name: buffer.numpy() for name, buffer in model.named_buffers() if name in names}
    return buffers | {name: parameter.detach().numpy() for name, parameter in named_torch_parameters(model)}


def named_torch_parameters(model) -> Iterator[tuple[str, Any]]:
    """The parameters of a PyTorch model, each once and under the name that checkpoints have it by.

    PyTorch names a tied parameter after the module that it finds first, which may be the head.
    """
    aliases = getattr(model, "all_tied_weights_keys", {})
    seen = set()
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False), key=lambda item: item[0] in aliases):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            yield name, parameter
