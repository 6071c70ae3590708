"""Compare a checkpoint in TensorFlow with the same checkpoint in PyTorch."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.parity import judge, run
from tf_pipeline.parity.report import Check, Report

# What is compared on if nobody says otherwise: texts of very different lengths, scripts and symbols.
SAMPLE_TEXTS = (
    "I've been waiting for a HuggingFace course my whole life.",
    "I hate this so much!",
    "No.",
    "The committee, which had met twice since the spring, could not agree on whether the bridge should be repaired, "
    "replaced or simply closed, and so the river was crossed by boat for another year.",
    "Ünïcödé, naïve cafés and 3½ × 10⁻⁴ €.",
    "数学は楽しい。 Математика — это весело. الرياضيات ممتعة.",
    "def f(x): return {k: v**2 for k, v in x.items()}  # 🤗",
)


def compare(
    checkpoint: str | os.PathLike,
    class_name: str | None = None,
    texts: Sequence[str] | None = None,
    settings: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    dtypes: Sequence[str] = ("float64", "float32"),
    mode: str = "function",
    rms_factor: float = judge.RMS_FACTOR,
    gradients: bool = False,
) -> Report:
    """Run a checkpoint in both frameworks and judge every tensor.

    Args:
        checkpoint: folder or hub id.
        class_name: one of our classes; by default the one in the config's ``architectures``.
        texts: texts to tokenize with the checkpoint's tokenizer: unpadded, padded right and padded left.
        settings: or inputs by name of the setting; see :func:`tf_pipeline.parity.inputs.random_inputs`.
        dtypes: dtypes to run; float64 is the truth and always run in PyTorch.
        mode: how TensorFlow runs: one of ``run.MODES``.
        rms_factor: width of the envelope; see :mod:`tf_pipeline.parity.judge`.
        gradients: whether to compare the loss's gradients too (inputs need labels), for float64.

    Returns:
        The report; ``report.passed`` is the answer, ``report.failures`` says where it is not equal.

    Raises:
        ImportError: if torch is not installed.
        ValueError: if neither texts nor settings are given, or the class is not supported.
    """
    _require_torch()
    class_name = class_name or _class_in_config(checkpoint)
    settings = settings if settings is not None else text_settings(checkpoint, texts)
    model_class = _our_class(class_name)
    truth_model = run.torch_model(class_name, checkpoint, "float64")
    report = Report()
    truths = {name: run.run_torch(truth_model, inputs, gradients) for name, inputs in settings.items()}
    for dtype in dtypes:
        ours = model_class.from_pretrained(checkpoint, dtype=dtype)
        runner = run.TensorFlowRunner(ours, mode, gradients and dtype == "float64")
        theirs = None if dtype == "float64" else run.torch_model(class_name, checkpoint, dtype)
        for name, inputs in settings.items():
            result = runner(inputs)
            if theirs is None:
                report.extend(_judge_float64(name, result, truths[name]))
            else:
                reference = run.run_torch(theirs, inputs)
                report.extend(_judge_envelope(name, dtype, result, reference, truths[name], inputs, rms_factor))
    return report


def text_settings(checkpoint: str | os.PathLike, texts: Sequence[str] | None) -> dict[str, dict[str, np.ndarray]]:
    """Texts as model inputs: the first alone, all padded on the right, all padded on the left."""
    from tf_pipeline.tokenization import AutoTokenizer

    if not texts:
        raise ValueError("Give texts, or settings, to compare on.")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    options = {"truncation": True, "return_tensors": "np"}
    return {
        "unpadded": dict(tokenizer(texts[:1], **options)),
        "right padding": dict(tokenizer(list(texts), padding=True, padding_side="right", **options)),
        "left padding": dict(tokenizer(list(texts), padding=True, padding_side="left", **options)),
    }


def _judge_float64(setting: str, ours: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> Iterable[Check]:
    for name, value in truth.items():
        yield judge.judge_float64(name, setting, ours.get(name, np.empty(0)), value)
    for name in ours.keys() - truth.keys():
        yield judge.judge_float64(name, setting, ours[name], np.empty(0))


def _judge_envelope(setting, dtype, ours, theirs, truth, inputs, rms_factor) -> Iterable[Check]:
    mask = inputs.get("attention_mask")
    for name, value in theirs.items():
        arrays = (ours.get(name, np.empty(0)), value, truth[name])
        arrays = [real_positions(name, array, mask) for array in arrays]
        yield judge.judge_envelope(name, setting, dtype, *arrays, rms_factor)


def real_positions(name: str, value: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The part of a tensor that belongs to tokens, as ``[tokens, …]``, if it has a token axis at all.

    Args:
        name: the tensor's name.
        value: ``[batch, seq, …]``, attentions ``[batch, heads, query, key]``, or something without tokens.
        mask: ``[batch, seq]`` or ``[batch, choices, seq]``.
    """
    if mask is None:
        return value
    mask = mask.reshape(-1, mask.shape[-1]) != 0
    if name.startswith("attentions"):
        value = np.moveaxis(value, 1, 2)
    return value[mask] if value.shape[:2] == mask.shape else value


def _class_in_config(checkpoint: str | os.PathLike) -> str:
    from tf_pipeline.auto import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint)
    if not config.architectures:
        raise ValueError(f"The config of {checkpoint} names no architecture; pass class_name.")
    return f"TF{config.architectures[0]}"


def _our_class(name: str) -> Any:
    from tf_pipeline.auto import find_model_class, supported_models

    if (found := find_model_class(name)) is None:
        families = ", ".join(supported_models())
        raise ValueError(f"There is no class {name}; supported families are {families}.")
    return found


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError("Parity is measured against PyTorch, which is not installed: pip install torch.") from error
