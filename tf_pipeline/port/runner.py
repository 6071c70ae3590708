"""Run a captured graph with TensorFlow on PyTorch's inputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import torch

from tf_pipeline.port.capture import Captured
from tf_pipeline.port.graph import COMPUTE, Input
from tf_pipeline.port.interpret import Interpreter
from tf_pipeline.reference.outputs import flatten

Arrays = dict[str, np.ndarray]


class GraphRunner:
    """Runs a captured graph with TensorFlow, as one graph of open axes that is traced once for all shapes.

    Args:
        captured: the graph and its constants.
        weights: arrays by checkpoint key.
        dtype: dtype that the graph runs in.
        outputs: references by name, instead of the graph's own outputs.
    """

    def __init__(
        self, captured: Captured, weights: Mapping[str, np.ndarray], dtype: str, outputs: dict[str, Any] | None = None
    ):
        graph = captured.graph if outputs is None else replace(captured.graph, outputs=outputs)
        interpreter = Interpreter(graph, dtype)
        # Made outside of the function, which would hold them as constants and be optimized over all of them.
        held = {
            key: tf.constant(weights[key], dtype if spec.dtype == COMPUTE else None)
            for key, spec in graph.parameters.items()
        }
        constants = {key: tf.constant(value) for key, value in captured.constants.items()}
        signature = {
            name: tf.TensorSpec([None if isinstance(size, str) else size for size in spec.shape], _kind(spec), name)
            for name, spec in graph.inputs.items()
        }

        @tf.function(autograph=False, input_signature=[signature])
        def compute(tensors):
            return interpreter.run(tuple(graph.outputs), tensors, held.__getitem__, constants.__getitem__)

        self._compute = compute

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Arrays:
        """Every output, as float64 arrays by name."""
        return flatten(self._compute({name: tf.constant(value.numpy()) for name, value in inputs.items()}))


def _kind(spec: Input) -> str:
    """The dtype of an example input: floats are given in float32."""
    return "float32" if spec.dtype == COMPUTE else spec.dtype
