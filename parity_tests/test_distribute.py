"""``tf.distribute``: two devices, and two processes, take the steps that one device takes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def start(*arguments) -> subprocess.Popen:
    """The worker in a process of its own, because devices are fixed once TensorFlow runs."""
    text = [argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "parity_tests.distribute_worker", *text]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)


def finished(*processes: subprocess.Popen) -> None:
    for process in processes:
        errors = process.communicate(timeout=600)[1]
        assert process.returncode == 0, errors.decode()[-3000:]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> list[np.ndarray]:
    target = tmp_path_factory.mktemp("one") / "weights.npz"
    finished(start("one", str(target)))
    return list(np.load(target).values())


def assert_same_training(target, expected: list[np.ndarray]) -> None:
    losses, *weights = np.load(target).values()
    np.testing.assert_allclose(losses, expected[0], rtol=3e-7)  # Keras adds reports up in float32
    for mine, wanted in zip(weights, expected[1:], strict=True):
        assert mine.dtype == wanted.dtype
        np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-10 * max(1, np.abs(wanted).max()))


def test_two_devices(one_device, tmp_path):
    target = tmp_path / "weights.npz"
    finished(start("mirrored", str(target)))
    assert_same_training(target, one_device)


def test_two_processes(one_device, tmp_path):
    target = tmp_path / "weights.npz"
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (first, second)]
    finished(*(start("workers", str(target), index, ports) for index in (0, 1)))
    assert_same_training(target, one_device)
