"""Read and write Hugging Face checkpoints by walking the attribute paths of a model.

The path of an attribute is the checkpoint key: ``model.bert.encoder.layer[0].output_.dense`` holds
``bert.encoder.layer.0.output.dense.weight`` (a trailing underscore, needed where Keras reserves a name, is not part of
the key). There are no mapping tables.
"""

import contextlib
import gc
import json
import logging
import mmap
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tf_pipeline.files import atomic_folder
from tf_pipeline.hub import repository_file
from tf_pipeline.layers import Parameter

logger = logging.getLogger(__name__)

CONFIG = "config.json"
SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TORCH_BIN = "pytorch_model.bin"
TORCH_BIN_INDEX = "pytorch_model.bin.index.json"

# Buffers that old checkpoints carry and that hold no information.
_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids)$")
# Files of an earlier checkpoint that a new one replaces, and that would not belong to its config.
_REPLACED = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|(graph|step)\.(json|safetensors)")
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


@dataclass
class Slot:
    """A place for one tensor: a leaf layer of a model and the parameter of it."""

    layer: keras.layers.Layer
    parameter: Parameter

    @property
    def variable(self) -> keras.Variable:
        """The Keras variable."""
        return getattr(self.layer, self.parameter.variable)

    def read(self) -> np.ndarray:
        """The value in the checkpoint's layout, LoRA merged.

        Raises:
            CheckpointError: for a quantized layer, whose integers are not the weights.
        """
        if getattr(self.layer, "quantization_mode", None):
            raise CheckpointError(
                f"{self.layer.path} is quantized ({self.layer.quantization_mode}), which this format cannot hold; call "
                "save_pretrained before quantizing, or save a .keras file."
            )
        # Keras' `kernel` and `embeddings` are `_kernel` and `_embeddings` with the LoRA update added.
        merged = getattr(self.layer, self.parameter.variable.removeprefix("_"))
        value = np.asarray(keras.ops.convert_to_numpy(merged)).astype(self.variable.dtype, copy=False)
        return np.asarray(value.T if self.parameter.transpose else value, order="C")


@dataclass
class LoadingReport:
    """The outcome of loading each key of a checkpoint.

    Attributes:
        missing: keys of the model that the checkpoint lacks; they are newly initialised.
        unused: keys of the checkpoint that the model has no place for.
        mismatched: ``(key, shape in the checkpoint, shape in the model)``; they are newly initialised.
    """

    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def warn(self, model_name: str, source: str) -> None:
        """Log differences from the checkpoint."""
        if self.unused:
            logger.warning(
                "Some weights of the checkpoint at %s were not used when initializing %s: %s. This is expected if the "
                "checkpoint was made for another task.", source, model_name, self.unused
            )  # fmt: skip
        new = self.missing + [
            f"{key} (checkpoint {list(there)}, model {list(here)})" for key, there, here in self.mismatched
        ]
        if new:
            logger.warning(
                "Some weights of %s were not initialized from the checkpoint at %s and are newly initialized: %s. "
                "Train the model on a downstream task before using it.", model_name, source, new
            )  # fmt: skip


# ------------------------------------------------------------------------------------------------ walking a model


def named_slots(layer: Any, prefix: str = "") -> Iterator[tuple[str, Slot]]:
    """Yield ``(checkpoint key, slot)`` for every parameter below ``layer``, in the order of construction."""
    if isinstance(layer, (list, tuple)):
        for index, item in enumerate(layer):
            yield from named_slots(item, f"{prefix}{index}.")
    elif hasattr(layer, "checkpoint_parameters"):
        for parameter in layer.checkpoint_parameters():
            yield f"{prefix}{parameter.name}".removesuffix("."), Slot(layer, parameter)
    elif isinstance(layer, keras.layers.Layer):
        for name, child in vars(layer).items():
            if not name.startswith("_") and isinstance(child, (keras.layers.Layer, list, tuple)):
                yield from named_slots(child, f"{prefix}{name.removesuffix('_')}.")


def create_variables(model: keras.Model, tensors: Mapping[str, np.ndarray] | None = None) -> None:
    """Create every variable of ``model`` that is not there yet, from ``tensors`` where they have its key.

    Args:
        model: a model whose layers are constructed.
        tensors: a reader of the checkpoint: arrays by key, in the checkpoint's layout; other variables start at random.
    """
    tensors = tensors or {}
    leaves: dict[int, tuple[str, keras.layers.Layer, dict[str, Parameter]]] = {}
    for key, slot in named_slots(model):
        path = key.removesuffix(f".{slot.parameter.name}") if slot.parameter.name else key
        leaves.setdefault(id(slot.layer), (path, slot.layer, {}))[2][key] = slot.parameter
    for path, layer, parameters in leaves.values():
        if not layer.built:
            with contextlib.ExitStack() as stack:
                for key, parameter in parameters.items():
                    if key in tensors:
                        stack.enter_context(_initialised_with(layer, parameter, tensors, key))
                for part in path.split(".")[:-1]:
                    stack.enter_context(keras.name_scope(part))
                layer.create_variables()
    for layer in model._flatten_layers():
        if type(layer).build is keras.layers.Layer.build:  # a container: all there was to build is its leaves
            layer.built = True


@contextlib.contextmanager
def _initialised_with(layer, parameter: Parameter, tensors: Mapping[str, np.ndarray], key: str):
    """Let ``layer`` create ``parameter`` from the tensor ``key`` instead of by its own initialiser."""
    own = getattr(layer, parameter.initializer)

    def from_checkpoint(shape, dtype=None):
        value = tensors[key]
        if value.dtype.itemsize == 1:
            value = value.astype(np.float32)  # TensorFlow has few kernels for float8
        tensor = _transposed(value) if parameter.transpose else tf.raw_ops.DeepCopy(x=value)
        tensors.release(key)
        return tf.cast(tensor, dtype)

    setattr(layer, parameter.initializer, from_checkpoint)
    try:
        yield
    finally:
        setattr(layer, parameter.initializer, own)


def _transposed(value: np.ndarray) -> tf.Tensor:
    """A transposed copy of a view of a file, which may change and so must not share its memory with a variable.

    ``tf.transpose`` of an array would copy twice, and ``Transpose`` not at all if one of the axes is of size 1.
    """
    return tf.raw_ops.DeepCopy(x=value.T) if 1 in value.shape else tf.raw_ops.Transpose(x=value, perm=[1, 0])


# --------------------------------------------------------------------------------------------- reading checkpoints


@dataclass(frozen=True)
class _Entry:
    """Place of a tensor in a mapped file."""

    file: mmap.mmap
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsReader(Mapping):
    """Tensors of safetensors files by key: views of the mapped files, in which nothing is read before it is used.

    Args:
        entries: place of each tensor.
    """

    def __init__(self, entries: Mapping[str, _Entry]):
        self._entries = dict(entries)

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

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._entries[key].shape

    def dtype(self, key: str) -> np.dtype:
        """Dtype of one tensor."""
        return self._entries[key].dtype

    def release(self, key: str) -> None:
        """Give the pages of a tensor back: they are in the variable now, and need not count twice in memory."""
        entry = self._entries[key]
        first = -(-entry.start // mmap.PAGESIZE) * mmap.PAGESIZE  # the pages at both ends hold other tensors too
        length = entry.end // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            entry.file.madvise(mmap.MADV_DONTNEED, first, length)

    def __getitem__(self, key: str) -> np.ndarray:
        entry = self._entries[key]
        return np.ndarray(entry.shape, entry.dtype, entry.file, entry.start)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


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


class StateReader(Mapping):
    """PyTorch's tensors by key, given as a reader of a file gives them.

    Args:
        tensors: a state dict.
    """

    def __init__(self, tensors: Mapping[str, Any]):
        self._tensors = dict(tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self._tensors[key].shape)

    def dtype(self, key: str) -> np.dtype:
        """Dtype of one tensor."""
        return np.dtype(str(self._tensors[key].dtype).removeprefix("torch."))

    def release(self, key: str) -> None:
        """Forget a tensor that has been read."""
        del self._tensors[key]

    def __getitem__(self, key: str) -> np.ndarray:
        import torch

        tensor = self._tensors[key].detach().contiguous()
        if hasattr(ml_dtypes, name := str(tensor.dtype).removeprefix("torch.")):  # a dtype that NumPy itself lacks
            bits = tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int8)
            return bits.numpy().view(getattr(ml_dtypes, name))
        return tensor.numpy()

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


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
            _add(self._tensors, tensors, path)


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


class RenamedReader(Mapping):
    """A reader seen through other names: ``{name: name in the file}``."""

    def __init__(self, reader, names: Mapping[str, str]):
        self._reader, self._names = reader, dict(names)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._reader.shape(self._names[key])

    def dtype(self, key: str) -> np.dtype:
        """Dtype of one tensor."""
        return self._reader.dtype(self._names[key])

    def release(self, key: str) -> None:
        """Forget a tensor that has been read."""
        self._reader.release(self._names[key])

    def __getitem__(self, key: str) -> np.ndarray:
        return self._reader[self._names[key]]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def open_checkpoint(
    source: str | os.PathLike, use_safetensors: bool | None = None, variant: str | None = None, **hub_options: Any
):
    """Find the weights of a checkpoint and open them without reading tensors.

    Args:
        source: a local folder, a ``.safetensors`` or ``.bin`` file, or a hub id.
        use_safetensors: look for safetensors alone, or for ``.bin`` alone if false; by default for both.
        variant: part of the names of the files, such as ``"fp16"``.
        **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``subfolder``.

    Returns:
        A mapping from checkpoint keys to tensors, with ``shape(key)``.

    Raises:
        CheckpointError: if there are no weights, a shard is missing, or a file is corrupt.
    """
    if Path(source).is_file():
        return TorchReader([Path(source)]) if Path(source).suffix == ".bin" else SafetensorsReader.open([Path(source)])
    readers = {
        _variant(SAFETENSORS, variant): SafetensorsReader.open,
        _variant(SAFETENSORS_INDEX, variant): SafetensorsReader.open,
        _variant(TORCH_BIN, variant): TorchReader,
        _variant(TORCH_BIN_INDEX, variant): TorchReader,
    }
    if use_safetensors is not None:
        readers = {name: reader for name, reader in readers.items() if (reader is not TorchReader) == use_safetensors}
    for name, reader in readers.items():
        path = repository_file(source, name, required=False, **hub_options)
        if path is not None:
            return reader(_shards(source, path, **hub_options) if name.endswith(".json") else [path])
    cache = "" if Path(source).is_dir() else " (or in the cache, if the hub cannot be reached)"
    raise CheckpointError(f"{source} has no weights: none of {', '.join(readers)} is there{cache}.")


def _variant(name: str, variant: str | None) -> str:
    """A file's name with the variant before its last ending, as ``transformers`` writes it."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{variant}.{ending}" if variant else name


def stored_dtype(reader) -> str | None:
    """Name of the dtype that a checkpoint is stored in: that of its first floating tensor."""
    return next((reader.dtype(key).name for key in reader if _is_floating(reader.dtype(key))), None)


def _is_floating(dtype: np.dtype) -> bool:
    if dtype.kind == "c":
        return False
    try:
        return bool(ml_dtypes.finfo(dtype).bits)
    except ValueError:
        return False


def _shards(source, index: Path, **hub_options: Any) -> list[Path]:
    try:
        names = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {error!r:.200}.") from error
    if wrong := [name for name in names if not isinstance(name, str) or not name]:
        raise CheckpointError(f"{index} is not an index of shards: it names {wrong[0]!r:.80} as a file.")
    if not names:
        raise CheckpointError(f"{index} is not an index of shards: it names none.")
    names = sorted(set(names))
    if outside := [name for name in names if not _is_inside(name)]:
        raise CheckpointError(f"{index} names {outside}; the files of an index are in its own folder.")
    paths = [repository_file(source, name, required=False, **hub_options) for name in names]
    if absent := [name for name, path in zip(names, paths, strict=True) if path is None]:
        raise CheckpointError(f"{source} is incomplete: {index.name} names {absent}, which are not there.")
    for path in paths:
        if not any(path.resolve().is_relative_to(root) for root in _roots(index.parent)):
            raise CheckpointError(f"{path}, which {index.name} names, is a link out of the checkpoint's folder.")
    return paths


def _is_inside(name: str) -> bool:
    """Whether a relative path stays below where it starts, on any system."""
    parts = re.split(r"[/\\]", name)
    return ".." not in parts and parts[0] != "" and ":" not in parts[0] and "\0" not in name


def _roots(folder: Path) -> list[Path]:
    """Folders that may hold a folder's files: itself, and the blobs if it is a snapshot in the hub's cache."""
    blobs = [parent.parent / "blobs" for parent in folder.absolute().parents if parent.name == "snapshots"]
    return [root.resolve() for root in (folder, *blobs)]


# ----------------------------------------------------------------------------------------------------- loading


@contextlib.contextmanager
def paused_garbage_collection():
    """Construct a model without the collector, which would walk its thousands of living objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load(
    model, source: str | os.PathLike, reader, strict: bool = True, ignore_mismatched_sizes: bool = False
) -> LoadingReport:
    """Create the variables of ``model`` from a checkpoint.

    A head that the checkpoint lacks is newly initialised and reported; tensors of another head are reported unused.

    Args:
        model: a model constructed under :func:`tf_pipeline.model.deferred_variables`.
        source: name of the checkpoint in messages.
        reader: the result of :func:`open_checkpoint`.
        strict: whether the body must have as many layers as the checkpoint; not if the caller asked for more or fewer.
        ignore_mismatched_sizes: initialise tensors of another shape at random instead of failing.

    Returns:
        The report, also logged as warnings.

    Raises:
        CheckpointError: naming the keys that do not fit.
    """
    slots = dict(named_slots(model))
    try:
        names = match_names(model, slots, reader)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    tensors = RenamedReader(reader, {key: name for key, name in names.items() if key in slots})
    report = LoadingReport()
    for key in [key for key in tensors if tensors.shape(key) != slots[key].parameter.shape]:
        report.mismatched.append((key, tensors.shape(key), slots[key].parameter.shape))
    if report.mismatched and not ignore_mismatched_sizes:
        lines = "\n".join(f"  {key}: checkpoint {list(a)}, model {list(b)}" for key, a, b in report.mismatched)
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}; these shapes differ:\n{lines}\n"
            "Pass ignore_mismatched_sizes=True to initialize them at random."
        )
    for key in tensors:
        if not (slots[key].parameter.counts or _is_floating(tensors.dtype(key))):
            raise CheckpointError(
                f"{source}: {key} holds {tensors.dtype(key).name} rather than floats; is the checkpoint quantized?"
            )
    wrong = {key for key, *_ in report.mismatched}
    report.missing = sorted(key for key in set(slots) - set(tensors) if not model.implied_keys.search(key))
    report.unused = sorted(name for key, name in names.items() if key not in slots)
    _check_body(model, source, slots, names, strict)
    create_variables(model, RenamedReader(reader, {k: n for k, n in names.items() if k in slots and k not in wrong}))
    report.warn(type(model).__name__, str(source))
    return report


def match_names(model, slots: Mapping[str, Slot], reader) -> dict[str, str]:
    """Map model keys to names in the file; names the model has no place for map from themselves, prefix adjusted.

    Accepts a base-model prefix too many or too few, ``LayerNorm.gamma``/``beta``, and tied weights under either name.
    """
    prefix = f"{model.base_model_prefix}."
    in_file = any(name.startswith(prefix) for name in reader)
    in_model = any(key.startswith(prefix) for key in slots)
    names: dict[str, str] = {}
    for name in reader:
        if _BUFFERS.search(name):
            continue
        key = re.sub(r"(LayerNorm|layer_norm)\.(gamma|beta)$", _modern_norm, name)
        if in_file and not in_model:
            key = key.removeprefix(prefix)
        elif in_model and not in_file and (prefix + key in slots or model.in_body(prefix + key)):
            key = prefix + key
        if key not in slots and model.ignored_keys.search(key):
            continue
        if key in names:
            raise CheckpointError(f"The checkpoint has {key} twice, as {names[key]} and as {name}.")
        names[key] = name
    for alias, key in model.tied_weights().items():
        if alias in names and key in names:
            if not np.array_equal(reader[names[alias]], reader[names[key]]):
                raise CheckpointError(
                    f"{alias} and {key} are tied by the config but differ in the checkpoint; pass "
                    "tie_word_embeddings=False to keep both."
                )
            del names[alias]
        elif alias in names:
            names[key] = names.pop(alias)
    return names


def _modern_norm(match: re.Match) -> str:
    return f"{match[1]}.{'weight' if match[2] == 'gamma' else 'bias'}"


def _check_body(model, source, slots: Mapping[str, Slot], names: Mapping[str, str], strict: bool) -> None:
    """Refuse a checkpoint whose body is not exactly the model's, whole layers more or fewer excepted if not strict."""
    missing = [key for key in slots if key not in names and model.in_body(key) and not model.implied_keys.search(key)]
    unexpected = [key for key in names if key not in slots and model.in_body(key)]
    if not strict:
        missing = [key for key in missing if _layer(key) in set(map(_layer, names))]
        unexpected = [key for key in unexpected if _layer(key) in set(map(_layer, slots))]
    if missing or unexpected:
        parts = [f"missing: {missing}"] * bool(missing) + [f"unexpected: {unexpected}"] * bool(unexpected)
        raise CheckpointError(f"The body of {source} does not fit {type(model).__name__}; {'; '.join(parts)}.")


def _layer(key: str) -> str:
    """The numbered layer that a key belongs to, such as ``bert.encoder.layer.3.``; empty outside of layers."""
    return re.match(r"(.*?\.\d+\.)?", key)[0]


# ------------------------------------------------------------------------------------------------------ saving


def checkpoint_folder(path: str | os.PathLike) -> contextlib.AbstractContextManager[Path]:
    """An empty folder whose files become the checkpoint at ``path``, as a whole; see :func:`~files.atomic_folder`.

    Weights, index and graph of the checkpoint that was there go; other files stay.
    """
    return atomic_folder(path, seal=CONFIG, obsolete=lambda name: _REPLACED.fullmatch(name) is not None)


class WeightWriter:
    """The tensors that a checkpoint of a model holds.

    Args:
        slots: the model's parameters by key.
    """

    def __init__(self, slots: Mapping[str, Slot]):
        self.slots = dict(slots)

    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor by name."""
        return {
            key: slot.variable.value.dtype.size * int(np.prod(slot.parameter.shape)) for key, slot in self.slots.items()
        }

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Tensors by name."""
        return {name: self.slots[name].read() for name in names}


def save_weights(model, folder: Path, max_shard_size: int | str = "50GB") -> None:
    """Write the weights of ``model`` as safetensors that PyTorch loads bit for bit.

    Args:
        model: the model.
        folder: the folder to write into.
        max_shard_size: size past which the weights are split, in bytes or as ``"5GB"``.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    writer = model._weight_writer(dict(named_slots(model)))
    sizes = writer.sizes()
    plan = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for name, keys in plan.filename_to_tensors.items():
        save_file(writer.read(keys), folder / name, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / SAFETENSORS_INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
