"""Checkpoints that are damaged or hostile: each is refused in time, by a message that names it, or loads exactly."""

import io
import json
import os
import pickle
import random
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from parity_tests.checkpoint_helpers import WEIGHTS, checkpoint, copied, new_folder, ours, weights
from tf_pipeline.hub import RepositoryError

pytestmark = pytest.mark.slow

CLASS = "TFBertModel"
DRAWS = 400
SECONDS = 20.0  # for one; tenths are usual
GROWTH = 400 * 2**20  # bytes of memory that all of them together may add
INDEX = "model.safetensors.index.json"
BIN = "pytorch_model.bin"


@cache
def source() -> Path:
    return checkpoint(CLASS, hidden_size=8, num_attention_heads=2, intermediate_size=5, num_hidden_layers=1)


@cache
def tensors() -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(source() / WEIGHTS)


def header_of(raw: bytes) -> tuple[dict, bytes]:
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def with_header(header: bytes, data: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + data


# ---------------------------------------------------------------------------------------------- safetensors files


def in_weights(change: Callable[[bytes, random.Random], bytes]):
    """A damage of the bytes of ``model.safetensors``."""

    def damage(folder: Path, rng: random.Random) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(change(raw, rng))

    damage.__name__ = change.__name__
    return damage


def in_header(change: Callable[[dict, random.Random], None]):
    """A damage of the header of ``model.safetensors``."""

    def damage(folder: Path, rng: random.Random) -> None:
        header, data = header_of((folder / WEIGHTS).read_bytes())
        change(header, rng)
        (folder / WEIGHTS).write_bytes(with_header(json.dumps(header).encode(), data))

    damage.__name__ = change.__name__
    return damage


def in_tensors(change: Callable[[dict, random.Random], None]):
    """Other tensors, in a file of safetensors or of PyTorch that is sound."""

    def damage(folder: Path, rng: random.Random) -> None:
        state = {key: value.clone() for key, value in tensors().items()}
        change(state, rng)
        if rng.random() < 0.5:
            safetensors.torch.save_file(state, folder / WEIGHTS)
        else:
            (folder / WEIGHTS).unlink()
            torch.save(state, folder / BIN)

    damage.__name__ = change.__name__
    return damage


def pick(state: dict, rng: random.Random) -> str:
    return rng.choice(sorted(key for key in state if key != "__metadata__"))


@in_weights
def cut(raw, rng):
    return raw[: rng.randrange(len(raw))]


@in_weights
def lengthened(raw, rng):
    return raw + rng.randbytes(rng.randint(1, 64))


@in_weights
def bytes_changed_in_the_header(raw, rng):
    damaged = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(400)] = rng.randrange(256)
    return bytes(damaged)


@in_weights
def bytes_changed_in_the_data(raw, rng):
    damaged = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(raw) - 200, len(raw))] = rng.randrange(256)
    return bytes(damaged)


@in_weights
def header_of_a_wrong_length(raw, rng):
    size = rng.choice([0, 1, 7, len(raw), 2**31, 2**40, 2**63, 2**64 - 1, rng.randrange(5000)])
    return struct.pack("<Q", size) + raw[8:]


@in_weights
def header_that_is_no_object(raw, rng):
    _, data = header_of(raw)
    header = rng.choice([b"[]", b"null", b"3", b'"x"', b"{", b"\xff" * 9, b'{"a":' * 50000, b" " * 50000, b"{}"])
    return with_header(header, data)


@in_weights
def key_twice(raw, rng):
    header, data = header_of(raw)
    key = pick(header, rng)
    text = json.dumps(header)[:-1] + f", {json.dumps(key)}: {json.dumps(header[pick(header, rng)])}}}"
    return with_header(text.encode(), data)


@in_header
def overlapping_offsets(header, rng):
    first, second = pick(header, rng), pick(header, rng)
    header[first]["data_offsets"] = header[second]["data_offsets"]


@in_header
def offsets_out_of_range(header, rng):
    header[pick(header, rng)]["data_offsets"] = rng.choice(
        [[0, 2**40], [-8, 8], [2**62, 2**63], [64, 0], [0], [], "x", None, [0.5, 8]]
    )


@in_header
def shape_of_another_size(header, rng):
    header[pick(header, rng)]["shape"] = rng.choice([[2**40], [2**32, 2**32], [-8], [], [0], "x", None, [1.5], [[8]]])


@in_header
def another_dtype(header, rng):
    header[pick(header, rng)]["dtype"] = rng.choice(["I32", "U32", "F16", "F64", "BF16", "F8_E4M3", "X9", "", None, 7])


@in_header
def header_entries_of_another_kind(header, rng):
    header[rng.choice([pick(header, rng), "__metadata__", "extra"])] = rng.choice([None, 3, [], {}, "x", {"a": 1}])


@in_tensors
def extra_tensor(state, rng):
    name = rng.choice(["cls.extra", "encoder.layer.9.output.dense.weight", "embeddings.more", "x", "", "a.b.c", "../a"])
    state[name] = torch.zeros(3)


@in_tensors
def missing_tensor(state, rng):
    del state[pick(state, rng)]


@in_tensors
def no_tensors(state, rng):
    state.clear()


@in_tensors
def renamed_tensor(state, rng):
    key = pick(state, rng)
    state[rng.choice([f"bert.{key}", key.upper(), f"{key}.weight", key[:-1]])] = state.pop(key)


@in_tensors
def misshapen_tensor(state, rng):
    key = pick(state, rng)
    value = state[key]
    state[key] = rng.choice(
        [value.flatten(), value[:-1], value[None], value.reshape(-1, 1), value.reshape(-1)[:0]]
    ).clone()


@in_tensors
def tensor_of_another_dtype(state, rng):
    key = pick(state, rng)
    dtypes = [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float16, torch.bfloat16, torch.float64]
    state[key] = state[key].to(rng.choice([*dtypes, torch.float8_e4m3fn, torch.float8_e5m2]))


@in_tensors
def not_numbers(state, rng):
    state[pick(state, rng)].view(-1)[0] = rng.choice([float("nan"), float("inf")])


@in_tensors
def names_of_old(state, rng):
    for key in [key for key in state if "LayerNorm" in key and rng.random() < 0.7]:
        state[key.replace("weight", "gamma").replace("bias", "beta")] = state.pop(key)


# ------------------------------------------------------------------------------------------------ PyTorch's files


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(new_folder() / "made-by-the-checkpoint"),)


def torch_file(folder: Path, rng: random.Random) -> None:
    """A ``.bin`` file that holds something else than a state dict."""
    state = tensors()
    key = pick(state, rng)
    made = rng.choice(
        [
            {**state, key: state[key].to_sparse()}, {**state, key: state[key].to("meta")}, {**state, key: Evil()},
            {**state, key: {"a": state[key]}}, {**state, 7: state[key]}, {**state, None: state[key]}, list(state), None,
            {"state_dict": state}, {**state, key: None}, {**state, key: 3.5}, {**state, key: state[key].tolist()}, 17,
            {**state, key: torch.nn.Parameter(state[key])}, {**state, "extra": torch.zeros(1).expand(10**6, 10**5)},
        ]
    )  # fmt: skip
    (folder / WEIGHTS).unlink()
    torch.save(made, folder / BIN, _use_new_zipfile_serialization=rng.random() < 0.7)


def damaged_torch_file(folder: Path, rng: random.Random) -> None:
    """A ``.bin`` file that is cut, changed, garbage or empty."""
    (folder / WEIGHTS).unlink()
    torch.save(tensors(), folder / BIN, _use_new_zipfile_serialization=rng.random() < 0.5)
    raw = bytearray((folder / BIN).read_bytes())
    for _ in range(rng.randint(1, 9)):
        raw[rng.randrange(300)] = rng.randrange(256)
    damaged = [
        raw,
        raw[: rng.randrange(len(raw))],
        rng.randbytes(999),
        b"",
        b"PK\x03\x04" + rng.randbytes(99),
        b"\x80\x02.",
    ]
    (folder / BIN).write_bytes(rng.choice(damaged))


def archive(folder: Path, rng: random.Random) -> None:
    """A ``.bin`` file that is an archive, of other things or compressed."""
    (folder / WEIGHTS).unlink()
    kind = rng.choice(["bomb", "compressed", "other", "empty"])
    method = zipfile.ZIP_STORED if kind == "other" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(folder / BIN, "w", method) as made:
        if kind == "bomb":
            with made.open("archive/data.pkl", "w") as entry:
                for _ in range(300):
                    entry.write(bytes(2**20))
        elif kind == "compressed":
            torch.save(tensors(), inner := io.BytesIO())
            for name in (there := zipfile.ZipFile(inner)).namelist():
                made.writestr(name, there.read(name))
        elif kind == "other":
            made.writestr("archive/data.pkl", pickle.dumps(rng.choice([[1, 2], {"a": 1}, Evil()])))
            made.writestr("archive/version", "3")


# ------------------------------------------------------------------------------------------------ index and config


def index(folder: Path, rng: random.Random) -> None:
    """Two shards, with an index that is right or wrong."""
    keys = sorted(tensors())
    half = rng.randrange(1, len(keys))
    parts = {"a.safetensors": keys[:half], "b.safetensors": keys[half:]}
    if rng.random() < 0.2:
        parts["b.safetensors"].append(keys[0])
    (folder / WEIGHTS).unlink()
    for name, own in parts.items():
        safetensors.torch.save_file({key: tensors()[key] for key in own}, folder / name)
    right = {"weight_map": {key: name for name, own in parts.items() for key in own}}
    other = rng.choice(
        ["../x", "/etc/passwd", 3, None, [], {}, "", "c.safetensors", ".", "a.safetensors/b", "..\\x", "\0"]
    )
    wrong = {"weight_map": right["weight_map"] | {rng.choice(keys): other}}
    garbage = rng.choice(["[]", "null", "", "{", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 50000, "\udcff"])
    text = rng.choice([json.dumps(right), json.dumps(wrong), json.dumps(wrong), garbage])
    (folder / INDEX).write_bytes(text.encode("utf-8", "surrogateescape"))


def links(folder: Path, rng: random.Random) -> None:
    """Files that are links, folders or pipes."""
    name = rng.choice([WEIGHTS, "config.json"])
    kind = rng.choice(["dangling", "loop", "folder", "pipe", "good", "shard"])
    if kind == "shard":
        (folder / WEIGHTS).unlink()
        (folder / "a.safetensors").symlink_to(source() / WEIGHTS)
        (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors(), "a.safetensors")}))
        return
    (folder / name).unlink()
    if kind == "folder":
        (folder / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to({"dangling": "nowhere", "loop": name, "good": source() / name}[kind])


def config(folder: Path, rng: random.Random) -> None:
    """A ``config.json`` that is garbage, or that has one value of another kind."""
    values = json.loads((folder / "config.json").read_text())
    key = rng.choice(sorted(values))
    other = rng.choice([None, [], {}, "x", -1, 2.5, True, {"a": {}}, [None], "\0"])
    garbage = rng.choice(
        [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'{"a":' * 50000, b"[" * 50000, b"NaN", rng.randbytes(99)]
    )
    (folder / "config.json").write_bytes(
        rng.choice([garbage, json.dumps(values | {key: other}).encode(), json.dumps({"model_type": other}).encode()])
    )


DAMAGES = (
    cut, lengthened, bytes_changed_in_the_header, bytes_changed_in_the_data, header_of_a_wrong_length,
    header_that_is_no_object, key_twice, overlapping_offsets, offsets_out_of_range, shape_of_another_size,
    another_dtype, header_entries_of_another_kind, extra_tensor, missing_tensor, no_tensors, renamed_tensor,
    misshapen_tensor, tensor_of_another_dtype, not_numbers, names_of_old, torch_file, damaged_torch_file, archive,
    index, links, config,
)  # fmt: skip


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a folder by the libraries that define the formats."""
    if (folder / BIN).is_file():
        return torch.load(folder / BIN, weights_only=True)
    files = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("?.safetensors"))
    return {key: value for file in files for key, value in safetensors.torch.load_file(file).items()}


def is_exact(model, report, folder: Path) -> bool:
    """Whether every weight is the stored one, bit for bit, or reported as missing."""
    there = {key.replace("gamma", "weight").replace("beta", "bias").removeprefix("bert."): value
             for key, value in stored(folder).items()}  # fmt: skip
    return all(
        key in report.missing or np.array_equal(value, there[key].detach().to(torch.float32).numpy(), equal_nan=True)
        for key, value in weights(model).items()
    )


def outcome(folder: Path) -> tuple[str, str | None]:
    """How loading ends, and what is wrong about that."""
    started = time.monotonic()
    try:
        model, report = ours(CLASS, folder, output_loading_info=True)
        end, fault = "loaded", None if is_exact(model, report, folder) else "its weights are not those in the file"
    except (ValueError, RepositoryError, OSError) as error:
        end, fault = "refused", None if str(folder) in str(error) else f"{type(error).__name__} names no file: {error}"
    except Exception as error:
        end, fault = "failed", f"{type(error).__name__}: {error}"
    if (seconds := time.monotonic() - started) > SECONDS:
        fault = f"it took {seconds:.0f} s"
    return end, fault


def test_hostile_checkpoints(record_property):
    rng = random.Random("hostile checkpoints")
    counts, wrong = {"loaded": 0, "refused": 0, "failed": 0}, []
    ours(CLASS, source())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for draw in range(DRAWS):
        damage = DAMAGES[draw % len(DAMAGES)]
        folder = copied(source())
        damage(folder, rng)
        end, fault = outcome(folder)
        counts[end] += 1
        if fault:
            wrong.append(f"draw {draw}, {damage.__name__}: {fault:.400}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    record_property("parity", ["hostile checkpoints", DRAWS, len(wrong), 0.0, 0.0])
    assert not wrong, "\n".join(wrong)
    assert grown < GROWTH, f"{grown / 2**20:.0f} MiB more"
    assert counts["refused"] > DRAWS / 2 and counts["loaded"] > DRAWS / 20, counts  # both ends were seen
