"""Run a model in one framework or the other and flatten what comes out into float64 arrays by name."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.checkpoint import named_slots

MODES = ("eager", "function", "xla")


def torch_model(class_name: str, checkpoint: str | os.PathLike, dtype: str, **kwargs: Any):
    """PyTorch's own class for one of ours, in evaluation mode, with its plain attention.

    Args:
        class_name: our class.
        checkpoint: folder or hub id.
        dtype: name of a dtype.
        **kwargs: passed to ``from_pretrained``.
    """
    import torch
    import transformers

    torch_class = getattr(transformers, class_name.removeprefix("TF"))
    model = torch_class.from_pretrained(checkpoint, dtype=getattr(torch, dtype), attn_implementation="eager", **kwargs)
    return model.eval()


def run_torch(model, inputs: Mapping[str, np.ndarray], gradients: bool = False) -> dict[str, np.ndarray]:
    """All outputs of a PyTorch model, and the gradient of its loss by parameter if asked for."""
    import torch

    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    for name, value in tensors.items():
        if value.is_floating_point():
            tensors[name] = value.to(model.dtype)
    model.zero_grad()
    with torch.set_grad_enabled(gradients), lifted_upcasts():
        outputs = model(**tensors, output_hidden_states=True, output_attentions=True)
    results = flatten(outputs)
    if gradients:
        outputs.loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                results[f"gradient.{name}"] = _torch_array(parameter.grad)
    return results


@contextlib.contextmanager
def lifted_upcasts():
    """Let ``tensor.float()`` leave float64 alone.

    ``transformers`` calls it to widen half precision, in its causal language-model loss for one; on a float64 reference
    it would throw nine digits away.
    """
    import torch

    own = torch.Tensor.float

    def widen(tensor, *args, **kwargs):
        return tensor if tensor.dtype == torch.float64 else own(tensor, *args, **kwargs)

    torch.Tensor.float = widen
    try:
        yield
    finally:
        torch.Tensor.float = own


class TensorFlowRunner:
    """Runs one of our models on any inputs; a graph is traced once for each set of input names and shapes.

    Args:
        model: the model.
        mode: ``"eager"``, ``"function"`` (a graph) or ``"xla"`` (a compiled graph).
        gradients: whether to differentiate the loss, which needs labels among the inputs.
    """

    def __init__(self, model, mode: str = "function", gradients: bool = False):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}.")
        self.model, self.gradients = model, gradients
        self.slots = dict(named_slots(model)) if gradients else {}
        self._call = self._run
        if mode != "eager":
            self._call = tf.function(self._run, jit_compile=mode == "xla", autograph=False)

    def _run(self, tensors):
        variables = {key: slot.variable.value for key, slot in self.slots.items()}
        with tf.GradientTape() as tape:
            outputs = self.model(tensors, output_hidden_states=True, output_attentions=True)
        gradients = tape.gradient(outputs.loss, variables) if self.gradients else {}
        return outputs, {key: tf.convert_to_tensor(value) for key, value in gradients.items() if value is not None}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs, and with ``gradients`` those by checkpoint key, in the checkpoint's layout."""
        outputs, gradients = self._call({name: _tensor(value, self.model) for name, value in inputs.items()})
        results = flatten(outputs)
        for key, value in gradients.items():
            value = _array(value)
            results[f"gradient.{key}"] = value.T if self.slots[key].parameter.transpose else value
        return results


def flatten(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Outputs by name, with ``hidden_states.0``, ``hidden_states.1``, … for tuples, in the order of the model."""
    results: dict[str, np.ndarray] = {}
    # Inner tensors first: the first difference found is then the one nearest its cause.
    order = sorted(outputs, key=lambda name: {"hidden_states": 0, "attentions": 1, "loss": 3}.get(name, 2))
    for name in order:
        value = outputs[name]
        if isinstance(value, (tuple, list)):
            results.update({f"{name}.{index}": _array(item) for index, item in enumerate(value)})
        else:
            results[name] = _array(value)
    return results


def _tensor(value: np.ndarray, model) -> tf.Tensor:
    if np.issubdtype(value.dtype, np.floating):
        return tf.constant(value, model.compute_dtype)
    return tf.constant(value, tf.int32)


def _array(value: Any) -> np.ndarray:
    if tf.is_tensor(value):
        return value.numpy().astype(np.float64)
    return _torch_array(value)


def _torch_array(value: Any) -> np.ndarray:
    return value.detach().double().numpy()
