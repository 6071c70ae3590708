"""Run a captured graph with TensorFlow on PyTorch's inputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import torch

from tf_pipeline.port.capture import Captured
from tf_pipeline.port.graph import COMPUTE
from tf_pipeline.port.scan import interpreter_of
from tf_pipeline.reference.outputs import flatten
from tf_pipeline.tracing import compiled

Arrays = dict[str, np.ndarray]


class GraphRunner:
    """Runs a captured graph with TensorFlow, as one graph of open axes that is traced once for all shapes.

    Args:
        captured: the graph and its constants.
        weights: arrays by checkpoint key.
        dtype: dtype that the graph runs in.
        outputs: references by name, instead of the graph's own outputs.

    Attributes:
        compute: computes all outputs by name from TensorFlow's tensors by name, floats in ``dtype``.
        dtype: the dtype that a graph's name for it stands for.
    """

    def __init__(
        self, captured: Captured, weights: Mapping[str, np.ndarray], dtype: str, outputs: dict[str, Any] | None = None
    ):
        graph = captured.graph if outputs is None else replace(captured.graph, outputs=outputs)
        interpreter = interpreter_of(graph, dtype)
        # Made outside of the function, which would hold them as constants and be optimized over all of them.
        held = {
            key: tf.constant(weights[key], dtype if spec.dtype == COMPUTE else None)
            for key, spec in graph.parameters.items()
        }
        constants = {key: tf.constant(value) for key, value in captured.constants.items()}
        self._kinds = {name: interpreter.dtype(spec.dtype) for name, spec in graph.inputs.items()}
        signature = {
            name: tf.TensorSpec([None if isinstance(s, str) else s for s in spec.shape], self._kinds[name], name)
            for name, spec in graph.inputs.items()
        }

        def compute(tensors):
            return interpreter.run(tuple(graph.outputs), tensors, held.__getitem__, constants.__getitem__)

        self.compute, self.dtype = compiled(compute, signature), interpreter.dtype

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Arrays:
        """Every output, as float64 arrays by name."""
        return flatten(self.compute({name: tf.cast(x.numpy(), self._kinds[name]) for name, x in inputs.items()}))
