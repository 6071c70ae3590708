"""Where a comparison ran: versions, processor, threads and settings that change results."""

import os
import platform
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

    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0"
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _cpu_field("model name") or platform.processor(),
        "instructions": [flag for flag in INSTRUCTIONS if flag in _cpu_field("flags").split()],
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_field(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def available_memory() -> int | None:
    """Bytes that a process may still use, or ``None`` where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
