"""Hand-made exports for the tests of the client, and the server that serves them.

An export here is a table: each signature looks its texts up in the graph and gives the outputs that were written down
for them. What is written down are the answers of local pipelines, so that a client has to return exactly these.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import tensorflow as tf

SEPARATOR = "\x1f"


class Table(tf.Module):
    """Signatures that look rows up.

    Args:
        signatures: by name: the inputs, and the rows. A row's key is a tuple of texts, one an input, or the bytes of a
            lone input; its value the outputs by name. The shapes of an output may differ from row to row.
    """

    def __init__(self, signatures: Mapping[str, tuple[Sequence[str], Mapping[tuple[str, ...], Mapping[str, Any]]]]):
        super().__init__()
        self.functions = {name: self._function(*one) for name, one in signatures.items()}

    @staticmethod
    def _function(inputs: Sequence[str], rows: Mapping[tuple[str, ...], Mapping[str, Any]]):
        outputs = {name: _stacked([row[name] for row in rows.values()]) for name in next(iter(rows.values()))}
        keys = [key if isinstance(key, bytes) else SEPARATOR.join(key) for key in rows]

        def look_up(**texts: tf.Tensor) -> dict[str, tf.Tensor]:
            asked = tf.strings.join([texts[name] for name in inputs], SEPARATOR)
            same = asked[:, None] == tf.constant(keys)[None, :]
            # The row of zeros before all others is that of unknown texts.
            place = tf.where(tf.reduce_any(same, 1), tf.argmax(tf.cast(same, tf.int32), 1) + 1, 0)
            return {name: tf.gather(tf.constant(values), place) for name, values in outputs.items()}

        specs = {name: tf.TensorSpec([None], tf.string, name) for name in inputs}
        return tf.function(look_up).get_concrete_function(**specs)

    def save(self, folder: Path) -> None:
        """Write a SavedModel."""
        tf.saved_model.save(self, str(folder), signatures=self.functions)


def _stacked(rows: list[Any]) -> np.ndarray:
    """Rows with one of zeros before them, filled up to the largest shape."""
    arrays = [np.asarray(row) for row in rows]
    kind = {"i": np.int32, "f": np.float32}.get(arrays[0].dtype.kind, object)
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    stacked = np.full((len(rows) + 1, *shape), b"" if kind is object else 0, kind)
    for place, array in enumerate(arrays, 1):
        values = np.vectorize(str.encode, otypes=[object])(array) if kind is object and array.size else array
        stacked[(place, *map(slice, array.shape))] = values[()]  # a lone value, not an array of it
    return stacked


def columns(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Dictionaries of one answer as arrays, one for each key."""
    kinds = {"start": np.int32, "end": np.int32, "index": np.int32, "token": np.int32, "score": np.float32}
    return {name: np.array([one[name] for one in records], kinds.get(name, object)) for name in names}


class Running:
    """A loopback server in a process of its own."""

    def __init__(self, process: subprocess.Popen, name: str):
        self.process, self.name = process, name
        line = process.stdout.readline()
        assert line, "the server did not start"
        ports = json.loads(line)
        self.rest_port, self.grpc_port = ports["rest_port"], ports["grpc_port"]

    def url(self, kind: str, version: int | None = None, label: str | None = None, name: str | None = None) -> str:
        """The address of a version, ``kind`` being ``"rest"`` or ``"grpc"``."""
        name = name or self.name
        start = (
            f"http://127.0.0.1:{self.rest_port}/v1/models/{name}"
            if kind == "rest"
            else f"grpc://127.0.0.1:{self.grpc_port}/{name}"
        )
        return start + (f"/versions/{version}" if version is not None else f"/labels/{label}" if label else "")

    def faults(self, **values: Any) -> None:
        """Set what goes wrong from now on; nothing, without arguments."""
        self._ask("PUT", values)

    def predictions(self) -> int:
        """How many predictions were asked for since faults were set."""
        return self._ask("GET")["predictions"]

    def _ask(self, method: str, values: Any = None) -> dict[str, Any]:
        data = None if values is None else json.dumps(values).encode()
        with urlopen(Request(f"http://127.0.0.1:{self.rest_port}/loopback", data, method=method), timeout=30) as answer:
            return json.loads(answer.read())


@contextmanager
def loopback_server(folder: Path, *options: str, name: str = "m"):
    """Serve a folder of versions until the block ends."""
    command = [
        sys.executable,
        "-m",
        "parity_tests.loopback_server",
        "--base-path",
        str(folder),
        "--name",
        name,
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    try:
        yield Running(process, name)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
