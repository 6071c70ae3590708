"""Outputs and gradients: what both models compute from the same inputs."""

import contextlib
import os
from collections.abc import Mapping, Sequence

from tf_pipeline.parity import judge, run
from tf_pipeline.parity.comparison import Comparison, Inputs, judge_float64
from tf_pipeline.parity.report import Report


def check_outputs(comparison: Comparison) -> None:
    """Every tensor of every setting in every dtype, and every loss."""
    report = comparison.report
    for dtype in comparison.dtypes:
        ours = comparison.ours(dtype)
        runner = run.TensorFlowRunner(ours, comparison.mode)
        results = {}
        for setting, inputs in comparison.settings.items():
            try:
                results[setting] = runner(inputs), inputs
            except Exception as error:  # whatever our model raises is a difference: PyTorch's did not
                report.extend([judge.judge_failure(setting, dtype, error)])
        report.extend(comparison.judge_all(dtype, results))
        results.clear()
        for setting, (inputs, kind) in comparison.labelled.items():
            with problem_type(kind, ours, comparison.theirs(dtype), comparison.theirs()):
                # A graph holds the kind of problem it was traced with.
                result = run.TensorFlowRunner(ours, comparison.mode)(inputs)
                report.extend(comparison.judge(setting, dtype, result, inputs))


def check_gradients(comparison: Comparison) -> None:
    """The gradient by every parameter in float64: of each kind of loss, or of a projection of the first output."""
    model = comparison.ours()
    for setting, (inputs, kind) in comparison.objectives.items():
        with problem_type(kind, model, comparison.theirs()):
            result = run.TensorFlowRunner(model, "eager", gradients=True)(inputs)
            truth = run.run_torch(comparison.theirs(), inputs, gradients=True)
        gradients = [{k: v for k, v in r.items() if k.startswith("gradient.")} for r in (result, truth)]
        comparison.report.extend(judge_float64(setting, *gradients))


@contextlib.contextmanager
def problem_type(kind: str | None, *models):
    """Let models of either framework take labels of this kind; PyTorch's remember the first they see."""
    own = [getattr(model.config, "problem_type", None) for model in models]
    for model in models:
        model.config.problem_type = kind if kind is not None else model.config.problem_type
    try:
        yield
    finally:
        for model, value in zip(models, own, strict=True):
            model.config.problem_type = value


def compare_outputs(
    checkpoint: str | os.PathLike,
    class_name: str,
    settings: Mapping[str, Inputs],
    dtypes: Sequence[str] = ("float64", "float32"),
    mode: str = "function",
    rms_factor: float = judge.RMS_FACTOR,
    gradients: bool = False,
) -> Report:
    """Run a checkpoint in both frameworks on inputs of one's own and judge every tensor.

    Args:
        checkpoint: folder or hub id.
        class_name: one of our classes.
        settings: inputs by name of the setting; see :func:`tf_pipeline.parity.inputs.random_inputs`.
        dtypes: dtypes to run; float64 is the truth and always run in PyTorch.
        mode: how TensorFlow runs: one of ``run.MODES``.
        rms_factor: width of the envelope; see :mod:`tf_pipeline.parity.judge`.
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
        results = {setting: (runner(inputs), inputs) for setting, inputs in settings.items()}
        comparison.report.extend(comparison.judge_all(dtype, results))
    return comparison.report
