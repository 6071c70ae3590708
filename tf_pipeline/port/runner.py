"""Run a captured graph with TensorFlow on PyTorch's inputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import torch

from tf_pipeline.port.capture import Captured, shared_tensors
from tf_pipeline.port.scan import interpreter_of
from tf_pipeline.reference.outputs import array, named_tensors
from tf_pipeline.tracing import compiled

Arrays = dict[str, np.ndarray]
Weights = Mapping[str, tf.Tensor]


class GraphRunner:
    """Runs a captured graph with TensorFlow, as one graph of open axes that is traced once for all shapes.

    Args:
        captured: the graph and its constants.
        weights: tensors by checkpoint key, from :func:`weights_of`. Runners share them: those of another dtype are cast
            in each run.
        dtype: dtype that the graph runs in.
        outputs: references by name, instead of the graph's own outputs.

    Attributes:
        compute: computes all outputs by name from TensorFlow's tensors by name, floats in ``dtype``.
        dtype: the dtype that a graph's name for it stands for.
    """

    def __init__(self, captured: Captured, weights: Weights, dtype: str, outputs: dict[str, Any] | None = None):
        graph = captured.graph if outputs is None else replace(captured.graph, outputs=outputs)
        interpreter = interpreter_of(graph, dtype)
        # Made outside of the function, which would hold them as constants and be optimized over all of them. Weights
        # are given to it: what a function captures is in a cycle, and would outlive the runner.
        constants = {key: tf.constant(value) for key, value in captured.constants.items()}
        self._kinds = {name: interpreter.dtype(spec.dtype) for name, spec in graph.inputs.items()}
        signature = {
            name: tf.TensorSpec([None if isinstance(s, str) else s for s in spec.shape], self._kinds[name], name)
            for name, spec in graph.inputs.items()
        }

        weights = {key: weights[key] for key in graph.parameters}

        def compute(tensors, weights):
            def weight(key: str) -> tf.Tensor:
                return tf.cast(weights[key], interpreter.dtype(graph.parameters[key].dtype))

            return interpreter.run(tuple(graph.outputs), tensors, weight, constants.__getitem__)

        specs = {key: tf.TensorSpec(weight.shape, weight.dtype) for key, weight in weights.items()}
        run = compiled(compute, signature, specs)
        self.compute, self.dtype = lambda tensors: run(tensors, weights), interpreter.dtype

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Arrays:
        """Every output, as float64 arrays by name."""
        return {name: array(value) for name, value in self.tensors(inputs).items()}

    def tensors(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, tf.Tensor]:
        """Every output by name, in the dtype that the graph computes it in."""
        return named_tensors(self.compute({name: tf.cast(x.numpy(), self._kinds[name]) for name, x in inputs.items()}))


def weights_of(model: torch.nn.Module) -> Weights:
    """A copy of a PyTorch model's weights by checkpoint key."""
    return {key: tf.constant(tensor.detach().numpy()) for key, tensor in shared_tensors(model)}


def in_dtype(weights: Weights, dtype: str) -> Weights:
    """Weights, those that are floats in another dtype, for a runner that is called many times."""
    return {key: tf.cast(weight, dtype) if weight.dtype.is_floating else weight for key, weight in weights.items()}
