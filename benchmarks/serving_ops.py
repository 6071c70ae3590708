"""Write ``tf_pipeline/serving/ops.json``: the ops that each version of TensorFlow registers.

A server of version 2.x is built from TensorFlow 2.x, so it knows that version's ops and no others. For every version
the wheel of ``tensorflow-cpu`` is downloaded (200 to 280 MB; one at a time, deleted at once), its C library is loaded
in a process of its own and asked for all registered ops. Takes a few minutes, and 1.2 GB of disk for a while.

    python benchmarks/serving_ops.py            # the versions that the file covers
    python benchmarks/serving_ops.py 2.22.0     # these as well
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TABLE = Path(__file__).parent.parent / "tf_pipeline" / "serving" / "ops.json"
RELEASES = "2.12.0 2.13.0 2.14.0 2.15.0 2.16.1 2.17.0 2.18.0 2.19.0 2.20.0 2.21.0".split()
PYTHON = "3.11"  # all of them have a wheel for it
LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")


class Buffer(ctypes.Structure):
    """``TF_Buffer`` of TensorFlow's C API."""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


def registered_ops(framework: str, library: str) -> bytes:
    """The serialized ``OpList`` of a TensorFlow that is not installed, from its two libraries."""
    ctypes.CDLL(framework, ctypes.RTLD_GLOBAL)
    list_ops = ctypes.CDLL(library).TF_GetAllOpList
    list_ops.restype = ctypes.POINTER(Buffer)
    buffer = list_ops().contents
    return ctypes.string_at(buffer.data, buffer.length)


def ops_of_release(release: str) -> bytes:
    """Download a wheel and ask it; nothing stays on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", folder]
        target = ["--python-version", PYTHON, "--only-binary=:all:", f"tensorflow-cpu=={release}"]
        subprocess.run(pip + target, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            paths = [archive.extract(f"tensorflow/{name}", folder) for name in LIBRARIES]
        command = [sys.executable, __file__, "--libraries", *paths]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def differences(releases: Sequence[str], lists: Sequence[bytes]) -> dict:
    """What each version adds to the one before it, and takes away.

    Args:
        releases: such as ``2.19.0``, in rising order.
        lists: the serialized ``OpList`` of each.

    Returns:
        The content of ``ops.json``: under ``ops`` and ``removed`` names of ops by version, under ``attributes``
        attributes by version and op, and under ``types`` dtypes by version, op and attribute.
    """
    table = {"versions": [], "ops": {}, "removed": {}, "attributes": {}, "types": {}}
    before: dict = {}
    for release, serialized in zip(releases, lists, strict=True):
        version = release.rpartition(".")[0]
        now = _by_name(serialized)
        table["versions"].append(version)
        table["ops"][version] = sorted(now.keys() - before.keys())
        table["removed"][version] = sorted(before.keys() - now.keys())
        shared = sorted(now.keys() & before.keys())
        table["attributes"][version] = {
            name: sorted(new) for name in shared if (new := now[name].keys() - before[name].keys())
        }
        table["types"][version] = {name: new for name in shared if (new := _new_types(before[name], now[name]))}
        before = now
    for part in ("removed", "attributes", "types"):
        table[part] = {version: value for version, value in table[part].items() if value}
    return table


def _by_name(serialized: bytes) -> dict[str, dict[str, set[str]]]:
    """The dtypes that each attribute of each op allows; the empty set for an attribute that allows all."""
    from tensorflow.core.framework import op_def_pb2, types_pb2

    name_of = types_pb2.DataType.Name
    return {
        op.name: {attr.name: {name_of(dtype) for dtype in attr.allowed_values.list.type} for attr in op.attr}
        for op in op_def_pb2.OpList.FromString(serialized).op
    }


def _new_types(before: dict[str, set[str]], now: dict[str, set[str]]) -> dict[str, list[str]]:
    shared = sorted(now.keys() & before.keys())
    return {name: sorted(new) for name in shared if before[name] and (new := now[name] - before[name])}


def main(further: Sequence[str]) -> None:
    releases = sorted({*RELEASES, *further}, key=lambda release: [int(part) for part in release.split(".")])
    lists = []
    for release in releases:
        print(f"tensorflow-cpu {release}", file=sys.stderr)
        lists.append(ops_of_release(release))
    text = json.dumps(differences(releases, lists), indent=None, separators=(",", ":"))
    unfinished = TABLE.with_suffix(".new")
    unfinished.write_text(text.replace('"],', '"],\n').replace("},", "},\n") + "\n", encoding="utf-8")
    unfinished.replace(TABLE)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--libraries"]:
        sys.stdout.buffer.write(registered_ops(*sys.argv[2:]))
    else:
        main(sys.argv[1:])
