"""Run one of our models, in every way that TensorFlow runs it; :mod:`tf_pipeline.reference` runs PyTorch's."""

import tempfile
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.checkpoint import named_slots
from tf_pipeline.reference.outputs import array, named_tensors, objective
from tf_pipeline.tracing import compiled

MODES = ("eager", "function", "xla", "saved")


def as_tensors(model, inputs: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Inputs of one of our models, floats in its dtype."""
    return {
        name: tf.constant(value, model.compute_dtype if np.issubdtype(value.dtype, np.floating) else tf.int32)
        for name, value in inputs.items()
    }


def parameters(model) -> dict[str, np.ndarray]:
    """The parameters of one of our models by checkpoint key, in the checkpoint's layout."""
    return {key: slot.read() for key, slot in named_slots(model)}


class TensorFlowRunner:
    """Runs one of our models on any inputs; a graph is traced once for each set of input names and shapes.

    Args:
        model: the model.
        mode: ``"eager"``, ``"function"`` (a graph), ``"xla"`` (a compiled graph) or ``"saved"`` (a SavedModel, written
            and loaded again).
        gradients: whether to differentiate the :func:`objective`.
    """

    def __init__(self, model, mode: str = "function", gradients: bool = False):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}.")
        self.model, self.gradients = model, gradients
        trained = {id(variable) for variable in model.trainable_variables} if gradients else ()
        self.slots = {key: slot for key, slot in named_slots(model) if id(slot.variable) in trained}
        self._xla, self._graphs = mode == "xla", {}
        self._call = {"eager": self._run, "saved": self._run_saved}.get(mode, self._run_graph)

    def _run_graph(self, tensors):
        """Call a graph of its own for each set of shapes: TensorFlow warns of a function that is traced for many."""
        shapes = tuple((name, *value.shape) for name, value in tensors.items())
        if shapes not in self._graphs:
            self._graphs[shapes] = compiled(self._run, jit_compile=self._xla)
        return self._graphs[shapes](tensors)

    def _run(self, tensors):
        variables = {key: slot.variable.value for key, slot in self.slots.items()}
        with tf.GradientTape() as tape:
            outputs = self.model(tensors, output_hidden_states=True, output_attentions=True)
            loss = objective(outputs) if self.gradients else None
        gradients = tape.gradient(loss, variables) if self.gradients else {}
        gradients = {key: tf.convert_to_tensor(value) for key, value in gradients.items() if value is not None}
        return named_tensors(outputs), gradients

    def _run_saved(self, tensors):
        """Export with open shapes, as a server's model is, load that and call it."""
        signature = {
            name: tf.TensorSpec([None] * value.shape.rank, value.dtype, name) for name, value in tensors.items()
        }
        archive = keras.export.ExportArchive()
        archive.track(self.model)
        archive.add_endpoint("serve", lambda given: self._run(given)[0], [signature])
        with tempfile.TemporaryDirectory() as folder:
            archive.write_out(folder, verbose=False)
            loaded = tf.saved_model.load(folder)
            return loaded.serve(tensors), {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs, and with ``gradients`` those by checkpoint key, in the checkpoint's layout."""
        outputs, gradients = self._call(as_tensors(self.model, inputs))
        results = {name: array(value) for name, value in outputs.items()}
        for key, value in gradients.items():
            value = array(value)
            results[f"gradient.{key}"] = value.T if self.slots[key].parameter.transpose else value
        return results
