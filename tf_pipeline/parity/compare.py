"""Compare a checkpoint in TensorFlow with the same checkpoint in PyTorch: everything, or some of it."""

import gc
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_pipeline.environment import available_memory, environment
from tf_pipeline.judging import rules
from tf_pipeline.judging.check import ENDED, GROUPS, Finding
from tf_pipeline.parity import behaviour, locate, outputs
from tf_pipeline.parity.comparison import SAMPLE_TEXTS, Comparison
from tf_pipeline.parity.generation import check_generation
from tf_pipeline.parity.pipelines import check_pipeline
from tf_pipeline.parity.report import Report
from tf_pipeline.parity.results import NOT_ASKED
from tf_pipeline.parity.training import check_training

# Bytes in float64 for each parameter: the two models, and with training their copies, gradients and two moments.
BYTES_TO_RUN = 8 * 2
BYTES_TO_TRAIN = 8 * (2 + 2 * 4)


def compare(
    checkpoint: str | os.PathLike,
    class_name: str | None = None,
    task: str | None = None,
    texts: Sequence[str] = SAMPLE_TEXTS,
    dtypes: Sequence[str] = ("float64", "float32"),
    mode: str = "function",
    groups: Sequence[str] | None = None,
    rms_factor: float = rules.RMS_FACTOR,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Is the TensorFlow model the PyTorch model? Compare a checkpoint in every respect.

    Args:
        checkpoint: folder or hub id.
        class_name: one of our classes; by default the one in the config's ``architectures``.
        task: or the task of a pipeline, which chooses the class.
        texts: texts to compare on, with the checkpoint's tokenizer.
        dtypes: dtypes to run; float64 is the truth and always run in PyTorch.
        mode: how TensorFlow runs outputs: ``"function"``, ``"eager"``, ``"xla"`` or ``"saved"``.
        groups: names in ``GROUPS`` to compare; all by default.
        rms_factor: width of the envelope; see :mod:`tf_pipeline.judging.rules`.
        progress: called with the name of each group before it is compared.

    Returns:
        The report; ``report.passed`` is the answer, ``report.finding`` says where the models part and why.

    Raises:
        ImportError: if torch is not installed.
        MemoryError: if the two models do not fit into memory.
        ValueError: for a class, dtype, mode or group that is not supported, or a checkpoint that does not load.
    """
    start = time.perf_counter()
    _check_arguments(dtypes, mode, groups, texts)
    class_name = class_name or _class_for(checkpoint, task)
    report = Report(checkpoint=str(checkpoint), model_class=class_name, environment=environment())
    comparison = Comparison(checkpoint, class_name, report, texts, dtypes, mode, rms_factor)
    trainable = _check_memory(comparison)
    if groups is None or set(groups) != {"tokenization"}:
        _check_inputs(comparison.ours(), groups)
        comparison.theirs()  # loaded here, because an error of loading is no difference
    for name, check in _CHECKS.items():
        if groups is not None and name not in groups:
            report.skip(name, GROUPS[name], NOT_ASKED)
        elif name == "training" and not trainable:
            report.skip(name, GROUPS[name], "The memory does not hold both models with gradients and moments.")
        else:
            if progress:
                progress(name)
            _run(check, name, comparison)
            gc.collect()  # a model and the graphs traced from it hold each other, and it may be large
    report.finding = _finding(comparison)
    report.seconds = time.perf_counter() - start
    return report


def _check_inputs(model: Any, groups: Sequence[str] | None) -> None:
    """Refuse a model of images or sounds, but for groups that compare no outputs."""
    without = ("tokenization", "weights", "round trip")
    if model.signal_shapes and not set(GROUPS if groups is None else groups) <= set(without):
        raise ValueError(
            f"{type(model).__name__} reads {', '.join(model.signal_shapes)}, and parity compares outputs of models of "
            f"texts alone. Outputs of a port are compared with PyTorch when it is made; here, ask for "
            f"{' and '.join(without[1:])} alone (--only, groups=)."
        )


def _run(check: Callable[[Comparison], Any], group: str, comparison: Comparison) -> None:
    """Compare a group; if it ends in an error it has not passed, and the checks until then are kept."""
    try:
        check(comparison)
    except MemoryError:
        raise
    except Exception as error:
        comparison.report.extend([rules.judge_failure("the whole group", "exact", error, group, ENDED)])


def _finding(comparison: Comparison) -> Finding | None:
    try:
        return locate.find(comparison)
    except Exception as error:  # the experiments run models that are known to be wrong
        first = comparison.report.failures[0]
        return Finding(first, hints=(f"the cause was not found: {type(error).__name__}: {error}"[:200],))


def _tokenization(comparison: Comparison) -> None:
    from tf_pipeline.parity.tokenization import check_tokenization

    check_tokenization(comparison.report, comparison.checkpoint, comparison.texts)


_CHECKS: dict[str, Callable[[Comparison], Any]] = {
    "tokenization": _tokenization,
    "weights": behaviour.check_weights,
    "outputs": outputs.check_outputs,
    "gradients": outputs.check_gradients,
    "training": check_training,
    "invariance": behaviour.check_invariance,
    "execution": behaviour.check_execution,
    "generation": check_generation,
    "round trip": behaviour.check_round_trip,
    "pipeline": check_pipeline,
}


def _check_arguments(dtypes: Sequence[str], mode: str, groups: Sequence[str] | None, texts: Sequence[str]) -> None:
    from tf_pipeline.parity.run import MODES

    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'Parity is measured against PyTorch, which is not installed: pip install "tf-pipeline[parity]".'
        ) from error
    if not dtypes:
        raise ValueError(f"Give dtypes to compare in, of {', '.join(rules.EPSILON)}: there are none.")
    if unknown := [dtype for dtype in dtypes if dtype not in rules.EPSILON]:
        raise ValueError(f"dtype {unknown[0]!r} is not one of {', '.join(rules.EPSILON)}.")
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}.")
    if unknown := [group for group in groups or () if group not in GROUPS]:
        raise ValueError(f"There is no group {unknown[0]!r}; there are {', '.join(GROUPS)}.")
    if not texts:
        raise ValueError("Give texts to compare on: there are none.")


def _class_for(checkpoint: str | os.PathLike, task: str | None) -> str:
    from tf_pipeline.config import AutoConfig
    from tf_pipeline.pipelines.factory import pipeline_class

    config = AutoConfig.from_pretrained(checkpoint)
    if task is not None:
        return pipeline_class(task).auto_class().model_class(config).__name__
    if not config.architectures:
        raise ValueError(f"The config of {checkpoint} names no architecture; name the class (--class) or the task.")
    return f"TF{config.architectures[0]}"


def _check_memory(comparison: Comparison) -> bool:
    """Refuse models larger than memory before they are loaded; returns whether they can be trained in it too."""
    from tf_pipeline.checkpoint import open_checkpoint

    reader = open_checkpoint(comparison.checkpoint)
    parameters = sum(int(np.prod(reader.shape(key))) for key in reader)
    available = available_memory()
    if available is None:
        return True
    if parameters * BYTES_TO_RUN > available:
        raise MemoryError(
            f"{comparison.checkpoint} has {parameters:,} parameters: two models in float64 take "
            f"{parameters * BYTES_TO_RUN / 1e9:.1f} GB, but {available / 1e9:.1f} GB of memory are free."
        )
    return parameters * BYTES_TO_TRAIN < available
