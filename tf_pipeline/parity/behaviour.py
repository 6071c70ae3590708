"""Checks of everything that must not change the result: batch, padding, execution, saving and loading."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tf_pipeline.config import AutoConfig
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import Check
from tf_pipeline.judging.tensors import judge_float64
from tf_pipeline.parity import run
from tf_pipeline.parity.comparison import Comparison
from tf_pipeline.reference.loading import no_progress_bar, torch_model
from tf_pipeline.reference.running import run_torch, torch_parameters


def check_weights(comparison: Comparison) -> None:
    """Every parameter, bit by bit, against the one that PyTorch loads."""
    ours = run.parameters(comparison.ours())
    theirs = torch_parameters(comparison.theirs(), ours)
    comparison.report.extend(_judge_parameters("as loaded", ours, theirs, "weights"))


def _judge_parameters(
    setting: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], group: str
) -> Iterator[Check]:
    """Judge bit by bit; a parameter that one side lacks is unequal."""
    for key in sorted(ours.keys() | theirs.keys()):
        pair = [[side[key]] if key in side else [] for side in (ours, theirs)]
        yield rules.judge_exact(key, setting, *pair, group)


def check_invariance(comparison: Comparison) -> None:
    """Rows in a batch, padded on either side, in float64: each equals PyTorch's result for the row alone.

    A result that PyTorch itself computes differently in a batch, such as of a head that reads the first token and finds
    padding there, is left out and said.
    """
    model = comparison.ours()
    if model.input_rank != 2:
        comparison.report.skip("invariance", "padding", f"{comparison.class_name} takes several choices a row.")
        return
    runner = run.TensorFlowRunner(model, "eager")
    for side in ("right", "left"):
        inputs = comparison.settings[f"{side} padding"]
        mask = inputs["attention_mask"]
        if side == "left" and "position_ids" in model.tensor_names:
            # Absolute positions count padding, in PyTorch too; positions from the mask do not.
            inputs = inputs | {"position_ids": np.maximum(np.cumsum(mask, axis=1) - 1, 0)}
        batch, theirs = runner(inputs), run_torch(comparison.theirs(), inputs)
        dependent: set[str] = set()
        for row in range(len(mask)):
            kept = mask[row] != 0
            setting = f"row {row}, {side} padding"
            truth = comparison.truth(setting, {name: _alone(name, x, row, kept) for name, x in inputs.items()})
            own = judge_float64(setting, {name: _row(theirs[name], truth[name], row, kept) for name in truth}, truth)
            dependent |= {check.name for check in own if not check.passed}
            wanted = {name: value for name, value in truth.items() if name not in dependent}
            result = {name: _row(batch[name], value, row, kept) for name, value in wanted.items()}
            comparison.report.extend(judge_float64(setting, result, wanted, "invariance"))
        if dependent:
            reason = f"PyTorch's own {', '.join(sorted(dependent))} depend on padding."
            comparison.report.skip("invariance", f"{side} padding", reason)


def _alone(name: str, value: np.ndarray, row: int, kept: np.ndarray) -> np.ndarray:
    """One row of an input without its padding; a decoder's inputs have none."""
    return value[row : row + 1] if name.startswith("decoder_") else value[row : row + 1, kept]


def _row(value: np.ndarray, alone: np.ndarray, row: int, kept: np.ndarray) -> np.ndarray:
    """One row of a batch, as if it had been alone and unpadded, which has the shape of ``alone``."""
    value = value[row : row + 1]
    for axis in range(1, value.ndim):
        if value.shape[axis] == len(kept) and value.shape[axis] != alone.shape[axis]:
            value = np.compress(kept, value, axis)
    return value


def check_execution(comparison: Comparison) -> None:
    """Eager, graph, XLA and the reloaded SavedModel, on a batch padded on the left."""
    setting = "left padding" if "left padding" in comparison.settings else next(iter(comparison.settings))
    inputs = comparison.settings[setting]
    for dtype in comparison.dtypes:
        for mode in run.MODES:
            result = run.TensorFlowRunner(comparison.ours(dtype), mode)(inputs)
            checks = comparison.judge(setting, dtype, result, inputs, "execution")
            comparison.report.extend(_renamed(checks, mode))


def _renamed(checks: Iterator[Check], mode: str) -> Iterator[Check]:
    label = {"eager": "eager", "function": "tf.function", "xla": "XLA", "saved": "SavedModel, reloaded"}[mode]
    return (replace(check, setting=f"{label}, {check.setting}") for check in checks)


def check_round_trip(comparison: Comparison) -> None:
    """Save here and load in PyTorch, and the other way round: the parameters are the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder, "here"), Path(folder, "there")
        ours, theirs = comparison.ours("float32"), comparison.theirs("float32")
        ours.save_pretrained(here)
        with no_progress_bar():
            theirs.save_pretrained(there)
        comparison.report.extend([_judge_configs(here, comparison.checkpoint)])
        loaded = torch_model(comparison.class_name, here, "float32")
        comparison.report.extend(
            _judge_parameters(
                "saved here, loaded by PyTorch",
                torch_parameters(theirs),
                torch_parameters(loaded),
                "round trip",
            )
        )
        if ours.can_generate():
            comparison.report.extend([_judge_generation_options(loaded, theirs)])
        loaded = comparison.model_class.from_pretrained(there, dtype="float32")
        comparison.report.extend(
            _judge_parameters(
                "saved by PyTorch, loaded here", run.parameters(loaded), run.parameters(ours), "round trip"
            )
        )


# Keys that describe the config's file rather than the model.
_OF_THE_FILE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


def _judge_configs(here: Path, checkpoint: str | os.PathLike) -> Check:
    """Judge the config saved here by the checkpoint's own, value by value."""
    configs = [AutoConfig.from_pretrained(folder).to_dict() for folder in (here, checkpoint)]
    keys = sorted({*configs[0], *configs[1]} - set(_OF_THE_FILE))
    values = [[f"{key}: {config.get(key)!r}" for key in keys] for config in configs]
    return rules.judge_exact("config", "saved here", *values, "round trip", what=keys)


def _judge_generation_options(loaded, theirs) -> Check:
    """Judge the options of ``generate`` that PyTorch finds next to a model saved here, value by value."""
    values = [model.generation_config.to_dict() for model in (loaded, theirs)]
    keys = sorted({*values[0], *values[1]} - {"_from_model_config", "transformers_version"})
    pair = [[f"{key}: {side.get(key)!r}" for key in keys] for side in values]
    return rules.judge_exact("options of generation", "saved here", *pair, "round trip", what=keys)
