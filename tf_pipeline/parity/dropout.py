"""Compare places and rates of dropout: while training, each multiplies by a factor instead of dropping at random."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.judging.tensors import judge_float64
from tf_pipeline.parity import run
from tf_pipeline.parity.comparison import Comparison
from tf_pipeline.parity.labels import configured
from tf_pipeline.reference.outputs import flatten
from tf_pipeline.reference.running import run_torch


def check_dropout(comparison: Comparison) -> None:
    """Every tensor of a model in training, in float64, where dropout multiplies by 1 + its rate on both sides.

    A factor passes through what follows as chance does not, so that a dropout that is left out, put elsewhere or of
    another rate shows in every tensor after it.
    """
    ours, theirs, report = comparison.ours(), comparison.theirs(), comparison.report
    if notes := _of_training(ours):
        report.skip("training", "dropout", " ".join(notes))
        return
    setting, (inputs, changes) = next(iter(comparison.objectives.items()))
    with configured(changes, ours, theirs), as_factors():
        truth = _trained(theirs, inputs)
        result = flatten(
            ours(run.as_tensors(ours, inputs), training=True, output_hidden_states=True, output_attentions=True)
        )
        still = run_torch(theirs, inputs)
    if all(np.array_equal(truth[name], value, equal_nan=True) for name, value in still.items()):
        report.skip("training", "dropout", "The config has PyTorch's model drop nothing.")
    report.extend(judge_float64(f"{setting}, dropout as a factor", result, truth, "training"))


def _of_training(model) -> list[str]:
    """Notes of a ported graph that concern training."""
    notes = getattr(getattr(model, "graph", None), "notes", ())
    return [note for note in notes if "training" in note]


def _trained(model, inputs) -> dict[str, np.ndarray]:
    """Results of a PyTorch model in training mode, except for its batch statistics."""
    import torch

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    try:
        return run_torch(model, inputs)
    finally:
        model.eval()


@contextlib.contextmanager
def as_factors() -> Iterator[None]:
    """Let dropout in both frameworks, while training, multiply by 1 + its rate."""
    import torch

    def layer(self, inputs, training=False):
        return inputs * tf.constant(1 + self.rate, inputs.dtype) if training and self.rate else inputs

    def function(input, p=0.5, training=True, inplace=False):
        return input * (1 + p) if training else input

    places = (
        (keras.layers.Dropout, "call", layer),
        (tf.nn, "dropout", lambda x, rate, **_: x * tf.constant(1 + rate, x.dtype)),
        (torch.nn.functional, "dropout", function),
    )
    own = [getattr(owner, name) for owner, name, _ in places]
    for owner, name, factor in places:
        setattr(owner, name, factor)
    try:
        yield
    finally:
        for (owner, name, _), previous in zip(places, own, strict=True):
            setattr(owner, name, previous)
