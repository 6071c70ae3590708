"""Compare outputs and gradients of both models for the same inputs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline import losses
from tf_pipeline.judging import rules
from tf_pipeline.judging.tensors import judge_envelopes, judge_float64
from tf_pipeline.parity import run
from tf_pipeline.parity.comparison import Comparison, Inputs
from tf_pipeline.parity.labels import all_ignored, configured
from tf_pipeline.parity.report import Report
from tf_pipeline.reference.outputs import LOSSES, flatten
from tf_pipeline.reference.running import raw_torch, run_torch


def check_outputs(comparison: Comparison) -> None:
    """Every tensor of every setting in every dtype, every loss, and the class of the output object."""
    for dtype in comparison.dtypes:
        comparison.report.extend(comparison.judge_all(dtype, _results(comparison, dtype)))
        _check_losses(comparison, dtype)
        _check_form(comparison, dtype)
    if comparison.labelled:
        _check_labels_that_do_not_count(comparison)
        _check_labels_alone(comparison)


def _results(comparison: Comparison, dtype: str) -> Iterator[tuple[str, dict[str, np.ndarray], Inputs]]:
    """Ours of every setting, one at a time: those of long sequences are large."""
    runner = run.TensorFlowRunner(comparison.ours(dtype), comparison.mode)
    for setting, inputs in comparison.settings.items():
        if (result := _result(comparison, runner, setting, dtype, inputs)) is not None:
            yield setting, result, inputs


def _result(comparison: Comparison, runner, setting: str, dtype: str, inputs: Inputs) -> dict[str, np.ndarray] | None:
    try:
        return runner(inputs)
    except Exception as error:  # whatever our model raises is a difference: PyTorch's did not
        comparison.report.extend([rules.judge_failure(setting, dtype, error)])
        return None


def _check_losses(comparison: Comparison, dtype: str) -> None:
    """Every kind of labels; losses in a narrow dtype are judged together, because the error of one number is luck."""
    ours, tensors = comparison.ours(dtype), []
    for setting, (inputs, changes) in comparison.labelled.items():
        with configured(changes, ours, comparison.theirs(dtype), comparison.theirs()):
            # A graph holds the kind of problem it was traced with.
            runner = run.TensorFlowRunner(ours, comparison.mode)
            if (result := _result(comparison, runner, setting, dtype, inputs)) is None:
                continue
            if dtype == "float64":
                comparison.report.extend(comparison.judge(setting, dtype, result, inputs))
            else:
                tensors += comparison.tensors(setting, dtype, result, inputs)
    comparison.report.extend(judge_envelopes(tensors, dtype, comparison.rms_factor))


def _check_labels_that_do_not_count(comparison: Comparison) -> None:
    """The loss of labels that are all ignored, which is NaN in most heads and 0 in some."""
    ours, theirs = comparison.ours(), comparison.theirs()
    for setting, (inputs, changes) in comparison.labelled.items():
        length = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[-1]
        labels = all_ignored({name: inputs[name] for name in ours.label_names}, length)
        if labels is None or ours.task_loss is losses.replaced_tokens:
            continue
        with configured(changes, ours, theirs):
            both = [
                [repr(float(side[name])) for name in LOSSES if name in side]
                for side in (
                    flatten(ours(run.as_tensors(ours, inputs | labels))),
                    run_torch(theirs, inputs | labels),
                )
            ]
        comparison.report.extend([rules.judge_exact("loss", f"{setting}, all ignored", *both, "outputs")])


def _check_labels_alone(comparison: Comparison) -> None:
    """Of a head with two labels, one without the other, from which PyTorch's computes a loss or none."""
    ours, theirs = comparison.ours(), comparison.theirs()
    setting, (inputs, _) = next(iter(comparison.labelled.items()))
    for name in ours.label_names if len(ours.label_names) > 1 else ():
        alone = {key: value for key, value in inputs.items() if key == name or key not in ours.label_names}
        both = [list(side) for side in (flatten(ours(run.as_tensors(ours, alone))), raw_torch(theirs, alone))]
        has_loss = ([loss in side for loss in LOSSES] for side in both)
        comparison.report.extend([rules.judge_exact("has a loss", f"{setting}, {name} alone", *has_loss, "outputs")])


def _check_form(comparison: Comparison, dtype: str) -> None:
    """Names and order of the outputs, their dtypes, and the tuple that they are without names."""
    ours, theirs = comparison.ours(dtype), comparison.theirs(dtype)
    objective = next(iter((comparison.labelled or comparison.objectives).items()))
    setting, (inputs, changes) = objective
    tensors = run.as_tensors(ours, inputs)
    with configured(changes, ours, theirs):
        named, unnamed = (ours(tensors, output_hidden_states=True, return_dict=named) for named in (True, False))
        truth = raw_torch(theirs, inputs)
    report, half = comparison.report, dtype in ("float16", "bfloat16")
    # Some of PyTorch's heads take the loss in float32 then and some do not; ours may be wider, and not narrower.
    forms = [_form({k: v for k, v in side.items() if not (half and k in LOSSES)}) for side in (named, truth)]
    for name in LOSSES if half else ():
        if name not in truth:
            continue
        narrower = named[name].dtype.size < truth[name].element_size()
        report.extend(
            [rules.judge_exact(f"width of the {name}", f"{setting}, {dtype}", [narrower], [False], "outputs")]
        )
    report.extend([rules.judge_exact("names and dtypes of the outputs", f"{setting}, {dtype}", *forms, "outputs")])
    pair = [_form(dict(enumerate(side))) for side in (unnamed, named.to_tuple())]
    report.extend([rules.judge_exact("outputs as a tuple", f"{setting}, {dtype}", *pair, "outputs")])


def _form(outputs: Mapping[Any, Any]) -> list[str]:
    """Names, numbers of tensors and dtypes, in order."""
    forms = []
    for name, value in outputs.items():
        first, count = (value[0], len(value)) if isinstance(value, (list, tuple)) else (value, 1)
        dtype = first.dtype.name if hasattr(first.dtype, "name") else str(first.dtype).removeprefix("torch.")
        forms.append(f"{name}: {count} of {dtype}")
    return forms


def check_gradients(comparison: Comparison) -> None:
    """The gradient by every parameter in float64: of each kind of loss, or of a projection of the first output."""
    model, report, told = comparison.ours(), comparison.report, 0
    small: dict[str, list[str]] = {}
    for setting, (inputs, changes) in comparison.objectives.items():
        with configured(changes, model, comparison.theirs()):
            result = run.TensorFlowRunner(model, "eager", gradients=True)(inputs)
            truth = run_torch(comparison.theirs(), inputs, gradients=True)
        ours, theirs = ({k: v for k, v in r.items() if k.startswith("gradient.")} for r in (result, truth))
        report.extend(judge_float64(setting, ours, theirs))
        near_zero = [name for name, value in theirs.items() if not np.abs(value).max() > rules.FLOAT64_TOLERANCE]
        if near_zero:
            small.setdefault(_listed(near_zero), []).append(setting)
        told += len(theirs) > len(near_zero)
    reason = f"PyTorch's gradient is not larger than {rules.FLOAT64_TOLERANCE:g}, so that any small one equals it."
    for names, settings in small.items():  # in which they are within the tolerance of zero everywhere
        report.skip("gradients", f"{names} ({', '.join(settings)})", reason)
    if not told:
        report.extend([rules.judge_exact("gradients", "every objective", [], [], "gradients")])


def _listed(names: Sequence[str], shown: int = 4) -> str:
    names = [name.removeprefix("gradient.") for name in names]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def compare_outputs(
    checkpoint: str | os.PathLike,
    class_name: str,
    settings: Mapping[str, Inputs],
    dtypes: Sequence[str] = ("float64", "float32"),
    mode: str = "function",
    rms_factor: float = rules.RMS_FACTOR,
    gradients: bool = False,
) -> Report:
    """Run a checkpoint in both frameworks on inputs of one's own and judge every tensor.

    Args:
        checkpoint: folder or hub id.
        class_name: one of our classes.
        settings: inputs by name of the setting; see :func:`tf_pipeline.parity.inputs.random_inputs`.
        dtypes: dtypes to run; float64 is the truth and always run in PyTorch.
        mode: how TensorFlow runs: one of ``run.MODES``.
        rms_factor: width of the envelope; see :mod:`tf_pipeline.judging.rules`.
        gradients: whether to compare gradients too, in float64; of the loss if there are labels.

    Returns:
        The report; ``report.passed`` is the answer, ``report.failures`` says where it is not equal.
    """
    comparison = Comparison(
        checkpoint, class_name, Report(), dtypes=dtypes, mode=mode, rms_factor=rms_factor, settings=settings
    )
    for dtype in dtypes:
        differentiated = gradients and dtype == "float64"
        runner = run.TensorFlowRunner(comparison.ours(dtype), mode, differentiated)
        for setting, inputs in settings.items() if differentiated else ():
            comparison.truth(setting, inputs, gradients=True)
        results = ((setting, runner(inputs), inputs) for setting, inputs in settings.items())
        comparison.report.extend(comparison.judge_all(dtype, results))
    return comparison.report
