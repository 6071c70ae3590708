"""The environment of a run: versions, processor, threads and settings that change results."""

import contextlib
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("tf-pipeline", "tensorflow", "keras", "torch", "transformers", "tokenizers", "numpy")
INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16", "sve")
VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "TF_XLA_FLAGS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def environment() -> dict[str, Any]:
    """Names and values, JSON types only."""
    import tensorflow as tf
    import torch

    name, flags = processor()
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0"
    return {
        "versions": dict.fromkeys(PACKAGES, "not installed") | versions(PACKAGES),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": name,
        "instructions": [flag for flag in INSTRUCTIONS if flag in flags],
        "cores": os.cpu_count(),
        "tensorflow threads": {
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads() or "all cores",
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads() or "all cores",
        },
        "torch threads": torch.get_num_threads(),
        "oneDNN": {"TensorFlow": onednn, "PyTorch": torch.backends.mkldnn.is_available()},
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    installed = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def processor() -> tuple[str, set[str]]:
    """Name of the processor and its instruction sets."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return values.get("model name") or platform.processor() or platform.machine(), set(
        values.get("flags", values.get("Features", "")).split()
    )


def available_memory() -> int | None:
    """Bytes that a process may still use, or ``None`` where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
