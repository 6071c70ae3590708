"""Read the files that hold the weights of a checkpoint: safetensors, PyTorch's ``.bin``, and ``.h5`` of old.

Each reader is a mapping from checkpoint keys to arrays with ``shape(key)``, ``dtype(key)`` and ``release(key)``, and
reads a tensor when it is asked for.
"""

import json
import mmap
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

SAFETENSORS = "model.safetensors"

# Names that safetensors gives to dtypes.
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit the model; the message names the file or the keys."""


class _Reader(Mapping):
    """A mapping from checkpoint keys to arrays, which are made of what is held for each key when they are asked for.

    Args:
        held: what is held, by key: each has a ``shape`` and a ``dtype``.
    """

    def __init__(self, held: Mapping[str, Any]):
        self._held = dict(held)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self._held[key].shape)

    def dtype(self, key: str) -> np.dtype:
        """Dtype of one tensor."""
        return self._held[key].dtype

    def __contains__(self, key: object) -> bool:  # without reading a tensor, as a mapping's own does
        return key in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


@dataclass(frozen=True)
class _Entry:
    """Place of a tensor in a mapped file."""

    file: mmap.mmap
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsReader(_Reader):
    """Tensors of safetensors files by key: views of the mapped files, in which nothing is read before it is used."""

    @classmethod
    def open(cls, paths: list[Path]) -> "SafetensorsReader":
        """Map files and learn their keys.

        Raises:
            CheckpointError: if a file is cut off or is not a safetensors file, or has a dtype that NumPy lacks.
        """
        entries: dict[str, _Entry] = {}
        for path in paths:
            _add(entries, _entries(path), path)
        return cls(entries)

    def release(self, key: str) -> None:
        """Give the pages of a tensor back: they are in the variable now, and need not count twice in memory."""
        entry = self._held[key]
        first = -(-entry.start // mmap.PAGESIZE) * mmap.PAGESIZE  # the pages at both ends hold other tensors too
        length = entry.end // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            entry.file.madvise(mmap.MADV_DONTNEED, first, length)

    def __getitem__(self, key: str) -> np.ndarray:
        entry = self._held[key]
        return np.ndarray(entry.shape, entry.dtype, entry.file, entry.start)


def _entries(path: Path) -> dict[str, _Entry]:
    """Map one file; the format is eight bytes of length, a JSON header of that length, and the data."""
    try:
        with safe_open(path, framework="np"):  # refuses every header that does not describe its file
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is cut off, corrupt or not a safetensors file ({error}). Fetch or save it again."
        ) from error
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = 8 + int.from_bytes(mapped[:8], "little")
    entries = {}
    for key, entry in json.loads(mapped[8:data]).items():
        if key == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{path} stores {key} as {entry['dtype']}; supported are {', '.join(_DTYPES)}.")
        start, end = (data + offset for offset in entry["data_offsets"])
        entries[key] = _Entry(mapped, np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"]), start, end)
    return entries


def _add(tensors: dict[str, Any], more: Mapping[str, Any], path: Path) -> None:
    """Add the tensors of a further file."""
    if twice := sorted(tensors.keys() & more.keys()):
        raise CheckpointError(f"{path} has {twice}, which other shards have too.")
    tensors.update(more)


class StateReader(_Reader):
    """PyTorch's tensors of a state dict by key, given as a reader of a file gives them."""

    def dtype(self, key: str) -> np.dtype:
        """Dtype of one tensor."""
        return np.dtype(str(self._held[key].dtype).removeprefix("torch."))

    def release(self, key: str) -> None:
        """Forget a tensor that has been read."""
        del self._held[key]

    def __getitem__(self, key: str) -> np.ndarray:
        import torch

        tensor = self._held[key].detach().contiguous()
        if hasattr(ml_dtypes, name := str(tensor.dtype).removeprefix("torch.")):  # a dtype that NumPy itself lacks
            bits = tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int8)
            return bits.numpy().view(getattr(ml_dtypes, name))
        return tensor.numpy()


class TorchReader(StateReader):
    """Tensors of ``pytorch_model.bin`` files by key, read by torch with ``weights_only=True``."""

    def __init__(self, paths: list[Path]):
        try:
            import torch
        except ImportError as error:
            raise CheckpointError(
                f"{paths[0].parent} holds only {paths[0].name}, which takes PyTorch to read. Install it (pip install "
                "torch), or convert the checkpoint once on a machine that has it: "
                f"AutoModel.from_pretrained(X).save_pretrained(Y) of transformers writes {SAFETENSORS}."
            ) from error
        super().__init__({})
        for path in paths:
            mapped = zipfile.is_zipfile(path)
            if mapped:
                _check_archive(path)
            try:
                # Only the zip format, of torch 1.6 and later, can be mapped; early checkpoints are plain pickles.
                tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except pickle.UnpicklingError as error:
                raise CheckpointError(
                    f"{path} was not unpickled: it is corrupt, or holds more than tensors and could run code."
                ) from error
            except Exception as error:
                raise CheckpointError(f"{path} is not a readable PyTorch checkpoint: {error}") from error
            if not isinstance(tensors, dict):
                raise CheckpointError(f"{path} is not a state dict: it holds a {type(tensors).__name__}.")
            for key, tensor in tensors.items():
                if (wrong := _unreadable(key, tensor)) is not None:
                    raise CheckpointError(
                        f"{path} is not a state dict of dense tensors: it holds {wrong} under {key!r}."
                    )
            _add(self._held, tensors, path)


def _check_archive(path: Path) -> None:
    """Refuse a compressed archive: PyTorch compresses nothing, and maps the file as if it were plain."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is not a readable PyTorch checkpoint: {error}") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{path} is a compressed archive, as no checkpoint of PyTorch is; unpack and save it again."
        )


def _unreadable(key: Any, tensor: Any) -> str | None:
    """Describe an entry that is not a dense tensor with a name; ``None`` if it is one."""
    import torch

    if not isinstance(key, str) or not torch.is_tensor(tensor):
        return f"a {type(tensor).__name__}"
    if tensor.is_meta:
        return "a tensor without values (of the device 'meta')"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return f"a tensor of layout {tensor.layout} and dtype {tensor.dtype}"
    try:
        np.dtype(str(tensor.dtype).removeprefix("torch."))
    except TypeError:
        return f"a tensor of dtype {tensor.dtype}"
    return None


class _Variable(NamedTuple):
    """A variable in a ``.h5`` file, and how PyTorch stores it."""

    dataset: h5py.Dataset
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the array."""
        return self.dataset.dtype


class TensorFlowReader(_Reader):
    """Weights of ``tf_model.h5`` files by PyTorch's key, as version 4 of ``transformers`` wrote them for TensorFlow.

    A variable's name is its path, such as ``tf_bert_for_masked_lm/mlm___cls/predictions/transform/dense/kernel:0``,
    which is ``cls.predictions.transform.dense.weight``: the model's own name is left out, and what stands before
    ``___``; ``layer_._0`` is ``layer.0``; ``kernel``, ``embeddings`` and ``gamma`` are ``weight`` and ``beta`` is
    ``bias``. Kernels have PyTorch's axes in reverse, those of convolutions too, and GPT-2's biases one axis more.
    In shards, names are without the model's.

    Args:
        paths: the files.

    Raises:
        CheckpointError: if a file is of another kind, or holds a separable convolution.
    """

    def __init__(self, paths: list[Path]):
        super().__init__({})
        for path in paths:
            try:
                found = dict(_datasets(h5py.File(path, "r")))
            except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
                raise CheckpointError(
                    f"{path} was not written by save_pretrained of transformers' TensorFlow models, or is cut off: "
                    f"{error!r:.200}."
                ) from error
            if not found:
                raise CheckpointError(f"{path} holds no weights.")
            for name, dataset in found.items():
                wrong = _foreign(dataset, path) if name.removesuffix(":0").strip("/") else "no name"
                if wrong is not None:
                    raise CheckpointError(f"{path} is not a file of weights: {name} is {wrong}.")
            variables = {_torch_key(name): _as_torch(name, dataset) for name, dataset in found.items()}
            _add(self._held, variables, path)
        for key in [key for key in self._held if key.endswith(".decoder.bias")]:
            self._held.pop(key.removesuffix(".decoder.bias") + ".bias", None)  # ALBERT had both, and used one

    def release(self, key: str) -> None:
        """Do nothing: an array that was read is a copy."""

    def __getitem__(self, key: str) -> np.ndarray:
        dataset, axes, shape = self._held[key]
        return np.ascontiguousarray(dataset[()].transpose(axes).reshape(shape))


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """The variables of a file by name, each once: layers that share one both list it."""
    for layer in map(_as_text, file.attrs["layer_names"]):
        held = file[layer]
        if isinstance(held, h5py.Dataset):  # of a shard
            yield layer, held
            continue
        for name in map(_as_text, held.attrs["weight_names"]):
            yield name.partition("/")[2] or name, held[name]


def _foreign(dataset: Any, path: Path) -> str | None:
    """Describe a variable that is no array of numbers in the file itself; ``None`` if it is one."""
    if not isinstance(dataset, h5py.Dataset):
        return "no array"
    if dataset.dtype.kind not in "fiub":
        return f"an array of {dataset.dtype}"
    is_elsewhere = dataset.external or dataset.is_virtual or Path(dataset.file.filename) != Path(path)
    return "in another file" if is_elsewhere else None


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_H5_NAMES = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias",
             "moving_mean": "running_mean", "moving_variance": "running_var"}  # fmt: skip


def _torch_key(name: str) -> str:
    """PyTorch's key of a variable, whose name is without the model's own."""
    parts = name.removesuffix(":0").replace("_._", "/").split("/")
    parts = [part.rpartition("___")[2] for part in parts if part]
    return ".".join([*parts[:-1], _H5_NAMES.get(parts[-1], parts[-1])])


def _as_torch(name: str, dataset: h5py.Dataset) -> _Variable:
    last, shape = name.removesuffix(":0").rpartition("/")[2], dataset.shape
    axes = tuple(range(len(shape)))
    if last.endswith("_kernel"):
        raise CheckpointError(
            f"{dataset.file.filename} holds {name}, of a separable convolution, which has no equal here; "
            "AutoModel.from_pretrained(X, from_tf=True).save_pretrained(Y) of transformers 4 converts it."
        )
    if last == "kernel":
        axes = axes[::-1]
    if last == "bias" and len(shape) == 2 and shape[0] == 1:
        return _Variable(dataset, axes, shape[1:])
    return _Variable(dataset, axes, tuple(shape[axis] for axis in axes))


class RenamedReader(_Reader):
    """A reader seen through other names: ``{name: name in the file}``."""

    def __init__(self, reader, names: Mapping[str, str]):
        super().__init__(names)
        self._reader = reader

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._reader.shape(self._held[key])

    def dtype(self, key: str) -> np.dtype:
        """Dtype of one tensor."""
        return self._reader.dtype(self._held[key])

    def release(self, key: str) -> None:
        """Forget a tensor that has been read."""
        self._reader.release(self._held[key])

    def __getitem__(self, key: str) -> np.ndarray:
        return self._reader[self._held[key]]
