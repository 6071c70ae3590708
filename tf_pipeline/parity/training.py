"""Training: AdamW in both frameworks from the same weights on the same batch, dropout off, in float64.

Keras adds epsilon before it corrects the bias of the second moment and PyTorch after, so epsilon is corrected by hand,
step by step. Keras rounds its hyperparameters to float32, so they are powers of two and sums of them, which have no
rounding.
"""

import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.judging.tensors import judge_float64
from tf_pipeline.parity import run
from tf_pipeline.parity.comparison import Comparison, Inputs
from tf_pipeline.parity.dropout import check_dropout
from tf_pipeline.parity.labels import configured
from tf_pipeline.reference.inputs import as_torch_tensors
from tf_pipeline.reference.loading import torch_model
from tf_pipeline.reference.outputs import objective, total_loss
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.running import run_torch, torch_parameters
from tf_pipeline.tracing import compiled

STEPS = 20
ADAMW = {"learning_rate": 2.0**-10, "beta_1": 1 - 2.0**-3, "beta_2": 1 - 2.0**-10, "weight_decay": 2.0**-7}
EPSILON = 2.0**-20


def check_training(comparison: Comparison, steps: int = STEPS) -> None:
    """Every parameter after one step and after all, the loss before each, and where dropout is."""
    check_dropout(comparison)
    setting, (inputs, changes) = next(iter(comparison.objectives.items()))
    ours = comparison.model_class.from_pretrained(comparison.checkpoint, dtype="float64")
    theirs = torch_model(comparison.class_name, comparison.checkpoint, "float64", comparison.model_class.keeps_tables)
    losses = []
    with configured(changes, ours, theirs):
        if comparison.labelled:
            comparison.report.extend(_judge_loss_of_fit(ours, theirs, setting, inputs))
        turns = zip(keras_steps(ours, inputs, steps), torch_steps(theirs, inputs, steps), strict=True)
        for step, pair in enumerate(turns, start=1):
            losses.append(pair)
            if step in (1, steps):
                after = "1 AdamW step" if step == 1 else f"{step} AdamW steps"
                result = run.parameters(ours)
                truth = torch_parameters(theirs, result)
                comparison.report.extend(judge_float64(f"{setting}, {after}", result, truth, "training"))
    columns = np.array(losses).T
    comparison.report.extend(
        [rules.judge_float64("loss", f"{setting}, {steps} AdamW steps", columns[0], columns[1], "training")]
    )


def _judge_loss_of_fit(ours, theirs, setting: str, inputs: Inputs) -> Iterator[Check]:
    """Judge the loss that ``fit`` takes from the labels among its inputs, which is not the one that a call returns."""
    tensors = run.as_tensors(ours, inputs)
    unlabelled = {name: value for name, value in tensors.items() if name not in ours.label_names}
    loss = ours.compute_loss(x=tensors, y_pred=ours(unlabelled))
    truth = total_loss(run_torch(theirs, inputs))
    yield rules.judge_float64("loss of fit", setting, np.asarray(loss, np.float64), truth, "training")


def keras_steps(model, inputs: Inputs, steps: int) -> Iterator[float]:
    """Take steps of Keras' AdamW; yields the objective before each, when it is taken, and after the last."""
    variables = model.trainable_variables  # not all there are: a parameter that Keras does not train is a difference
    epsilon = tf.Variable(EPSILON, dtype=tf.float64)
    optimizer = keras.optimizers.AdamW(**ADAMW, epsilon=epsilon)
    optimizer.build(variables)

    def step(tensors):
        with tf.GradientTape() as tape:
            loss = objective(model(tensors))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        used = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        optimizer.apply_gradients(used)
        return loss

    step, tensors = compiled(step), run.as_tensors(model, inputs)
    for count in range(1, steps + 1):
        epsilon.assign(EPSILON * math.sqrt(1 - ADAMW["beta_2"] ** count))
        yield float(step(tensors))
    yield float(objective(model(tensors)))


def torch_steps(model, inputs: Inputs, steps: int) -> Iterator[float]:
    """The same with PyTorch's AdamW."""
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=ADAMW["learning_rate"],
        betas=(ADAMW["beta_1"], ADAMW["beta_2"]),
        eps=EPSILON,
        weight_decay=ADAMW["weight_decay"],
    )
    tensors = as_torch_tensors(model, inputs)
    for _ in range(steps):
        with lifted_upcasts(model):  # and not while others compute
            optimizer.zero_grad()
            loss = objective(model(**tensors))
            loss.backward()
            optimizer.step()
        yield loss.item()
    with lifted_upcasts(model):
        loss = objective(model(**tensors))
    yield loss.item()
