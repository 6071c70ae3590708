"""An exported model, and the programs that load one without this package."""

import atexit
import functools
import importlib.util
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import tf_pipeline
from parity_tests.conftest import ASSETS

TOKENS = ("input_ids", "attention_mask")
Batch = Mapping[str, np.ndarray]


def exported(folder: Path, text: bool = True) -> Path:
    """The bundled classifier, exported.

    Args:
        folder: an empty folder.
        text: whether there is a signature that takes strings; without it ``serving_default`` takes tokens.

    Returns:
        The version folder.
    """
    return tf_pipeline.export(ASSETS, None, folder, text=text).folder


def run(loader: str, folder: Path, signature: str, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    """Run a signature with another program than this package.

    Args:
        loader: ``"c"``, TensorFlow's C API; ``"session"``, its loader of version 1; ``"load"``, that of version 2;
            ``"openvino"``; or ``"cli"``, ``saved_model_cli run``.
        folder: version folder of an export.
        signature: its name; OpenVINO reads ``serving_default`` only.
        batches: for each request the inputs by name; strings as objects of type bytes.

    Returns:
        The outputs by name, rows of all requests one below the other; strings as bytes.
    """
    answers = _LOADERS[loader](folder, signature, batches)
    assert len(answers) == len(batches) > 0
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _process(command: Sequence[str | os.PathLike], given: bytes = b"") -> bytes:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, input=given, capture_output=True, env=environment)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stderr.decode(errors='replace')[-3000:]}"
    return done.stdout


# ------------------------------------------------------------------------------------------------ the C program


@functools.cache
def c_program() -> Path:
    """Build ``load_and_run``, or skip the test and say why.

    ``TENSORFLOW_LIBRARIES`` may name a folder with the two libraries of another version, unpacked from its wheel: those
    of 2.19 load a model as TensorFlow Serving 2.19 does.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or $CC): the C program cannot be built")
    include = Path(tf.sysconfig.get_include())
    libraries = Path(os.environ.get("TENSORFLOW_LIBRARIES", tf.sysconfig.get_lib()))
    needed = [include / "tensorflow/c/c_api.h", libraries / "libtensorflow_cc.so.2"]
    if missing := [str(file) for file in needed if not file.exists()]:
        pytest.skip(f"this build of TensorFlow ships no C API: {', '.join(missing)}")
    source = Path(__file__).parent / "c_loader" / "load_and_run.c"
    folder = tempfile.TemporaryDirectory(prefix="load_and_run")
    atexit.register(folder.cleanup)
    program = Path(folder.name) / "load_and_run"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{include}", f"-L{libraries}"]
    linked = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{libraries}"]
    _process([compiler, *flags, source, "-o", program, *linked])
    return program


def _run_c(folder: Path, signature: str, batches: Sequence[Batch]) -> list[dict[str, np.ndarray]]:
    file = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    tensors = file.meta_graphs[0].signature_def[signature]
    inputs, outputs = sorted(tensors.inputs), sorted(tensors.outputs)
    names = [part for key in inputs for part in ("-i", tensors.inputs[key].name)]
    names += [part for key in outputs for part in ("-o", tensors.outputs[key].name)]
    requests = b"".join(_written(np.asarray(batch[key])) for batch in batches for key in inputs)
    answers = io.BytesIO(_process([c_program(), folder, *names], requests))
    return [{key: _read(answers) for key in outputs} for _ in batches]


def _written(tensor: np.ndarray) -> bytes:
    """A tensor as ``load_and_run`` reads it."""
    kind = "int64" if tensor.dtype == np.int64 else "string"
    head = " ".join([kind, str(tensor.ndim), *map(str, tensor.shape)])
    elements = [b"%d\n" % e if kind == "int64" else b"%d\n%s\n" % (len(e), e) for e in tensor.ravel().tolist()]
    return head.encode() + b"\n" + b"".join(elements)


def _read(answers: io.BytesIO) -> np.ndarray:
    """A tensor as ``load_and_run`` writes it."""
    kind, _, *shape = answers.readline().decode().split()
    shape = tuple(map(int, shape))
    lines = [answers.readline().decode().rstrip("\n") for _ in range(int(np.prod(shape)))]
    parse, dtype = {
        "float": (float.fromhex, np.float32),
        "int32": (int, np.int32),
        "int64": (int, np.int64),
        "string": (bytes.fromhex, object),
    }[kind]
    return np.array([parse(line) for line in lines], dtype).reshape(shape)


# -------------------------------------------------------------------------------------------------- the others


def _run_openvino(folder: Path, signature: str, batches: Sequence[Batch]) -> list[dict[str, np.ndarray]]:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    return _run_worker("openvino", folder, signature, batches)


def _run_worker(how: str, folder: Path, signature: str, batches: Sequence[Batch]) -> list[dict[str, np.ndarray]]:
    worker = Path(__file__).parent / "serving_worker.py"
    # -I: neither PYTHONPATH nor the folder of this package is looked into.
    command = [sys.executable, "-I", worker, how, folder, signature]
    return pickle.loads(_process(command, pickle.dumps(list(batches))))


def _run_cli(folder: Path, signature: str, batches: Sequence[Batch]) -> list[dict[str, np.ndarray]]:
    answers = []
    for batch in batches:
        with tempfile.TemporaryDirectory() as work:
            np.savez(Path(work, "inputs.npz"), **batch)
            inputs = ";".join(f"{key}={work}/inputs.npz[{key}]" for key in batch)
            command = [Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", folder, "--tag_set", "serve"]
            _process([*command, "--signature_def", signature, "--inputs", inputs, "--outdir", f"{work}/answers"])
            files = Path(work, "answers").glob("*.npy")
            answers.append({file.stem: np.load(file, allow_pickle=True) for file in files})
    return answers


_LOADERS: dict[str, Callable] = {
    "c": _run_c,
    "session": functools.partial(_run_worker, "session"),
    "load": functools.partial(_run_worker, "load"),
    "openvino": _run_openvino,
    "cli": _run_cli,
}
