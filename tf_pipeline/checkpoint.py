"""Read and write Hugging Face checkpoints by walking the attribute paths of a model.

The path of an attribute is the checkpoint key: ``model.bert.encoder.layer[0].output_.dense`` holds
``bert.encoder.layer.0.output.dense.weight`` (a trailing underscore, needed where Keras reserves a name, is not part of
the key). There are no mapping tables.
"""

import contextlib
import contextvars
import json
import logging
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import save_file

from tf_pipeline.arguments import check_choice
from tf_pipeline.files import atomic_folder
from tf_pipeline.hub import lacking, repository_file
from tf_pipeline.layers import Parameter
from tf_pipeline.layers.lora import Adaptable, LoraUpdate
from tf_pipeline.readers import (
    SAFETENSORS,
    CheckpointError,
    RenamedReader,
    SafetensorsReader,
    TensorFlowReader,
    TorchReader,
)

logger = logging.getLogger(__name__)

CONFIG = "config.json"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TORCH_BIN = "pytorch_model.bin"
TORCH_BIN_INDEX = "pytorch_model.bin.index.json"
H5 = "tf_model.h5"
H5_INDEX = "tf_model.h5.index.json"

# Buffers that old checkpoints carry and that hold no information, unless a model has them as its own.
_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids)$")
# Files of an earlier checkpoint that a new one replaces, and that would not belong to its config.
_REPLACED = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|(graph|step)\.(json|safetensors)")


@dataclass
class Slot:
    """A place for one tensor: a leaf layer of a model and the parameter of it."""

    layer: keras.layers.Layer
    parameter: Parameter

    @property
    def variable(self) -> keras.Variable:
        """The Keras variable."""
        quantized = getattr(self.layer, "quantized", None)  # of the head of the vocabulary
        is_there = quantized is None or self.parameter.variable != "kernel"
        return getattr(self.layer, self.parameter.variable) if is_there else quantized._embeddings

    def read(self) -> np.ndarray:
        """The value in the checkpoint's layout, LoRA and the adapters that are on merged.

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
        value = np.asarray(tf.convert_to_tensor(merged)).astype(self.variable.dtype, copy=False)
        value = np.asarray(self.of_variable(value), order="C")
        if updates := self.layer.active_updates() if self.is_updated else ():
            value = sum((self.delta(update) for update in updates), value).astype(value.dtype)
        return value

    @property
    def is_updated(self) -> bool:
        """Whether adapters of the layer update this tensor."""
        return isinstance(self.layer, Adaptable) and len(self.parameter.shape) == 2

    def delta(self, update: LoraUpdate) -> np.ndarray:
        """The addend of an adapter to the tensor, in the checkpoint's layout."""
        delta = update.delta()
        return delta if update.rows_are_inputs else delta.T

    def of_variable(self, value: np.ndarray) -> np.ndarray:
        """Convert a value from the variable's layout to the checkpoint's, or back."""
        return value.T if self.parameter.transpose else value


@dataclass
class LoadingReport:
    """The outcome of loading each key of a checkpoint.

    It is read as the dictionary that ``transformers`` returns, too: ``missing_keys``, ``unexpected_keys``,
    ``mismatched_keys`` and ``error_msgs``.

    Attributes:
        missing: keys of the model that the checkpoint lacks; they are newly initialised.
        unused: keys of the checkpoint that the model has no place for.
        mismatched: ``(key, shape in the checkpoint, shape in the model)``; they are newly initialised.
    """

    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def keys(self) -> list[str]:
        """The names in ``transformers``."""
        return ["missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"]

    def __getitem__(self, name: str) -> list[Any]:
        lists = (self.missing, self.unused, self.mismatched, [])  # what goes wrong otherwise is raised
        return dict(zip(self.keys(), lists, strict=True))[name]

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


def named_slots(layer: Any) -> Iterator[tuple[str, Slot]]:
    """Yield ``(checkpoint key, slot)`` for every parameter below ``layer``, in the order of construction."""
    for path, leaf in named_leaves(layer):
        for parameter in leaf.checkpoint_parameters():
            yield f"{path}.{parameter.name}".strip("."), Slot(leaf, parameter)


def named_leaves(layer: Any, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield ``(attribute path, leaf)`` for every leaf below ``layer``, in the order of construction."""
    if isinstance(layer, (list, tuple)):
        for index, item in enumerate(layer):
            yield from named_leaves(item, f"{path}.{index}".strip("."))
    elif hasattr(layer, "checkpoint_parameters"):
        yield path, layer
    elif isinstance(layer, keras.layers.Layer):
        for name, child in vars(layer).items():
            if not name.startswith("_") and isinstance(child, (keras.layers.Layer, list, tuple)):
                yield from named_leaves(child, f"{path}.{name.removesuffix('_')}".strip("."))


# Threads that copy tensors ahead of the variables, and how many copies wait at most.
_READERS, _AHEAD = 2, 8

_DEFERRED = contextvars.ContextVar("deferred", default=False)


@contextlib.contextmanager
def deferred_variables():
    """Construct models without creating variables, so that a checkpoint can create them from its tensors."""
    token = _DEFERRED.set(True)
    try:
        yield
    finally:
        _DEFERRED.reset(token)


def variables_wait() -> bool:
    """Whether a model that is constructed now is to have no variables yet."""
    return _DEFERRED.get()


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
    waiting = [(path, layer, parameters) for path, layer, parameters in leaves.values() if not layer.built]
    wanted = {key: parameter for *_, parameters in waiting for key, parameter in parameters.items() if key in tensors}
    with _ReadAhead(tensors, wanted) as values:
        for path, layer, parameters in waiting:
            with contextlib.ExitStack() as stack:
                for key, parameter in parameters.items():
                    if key in wanted:
                        stack.enter_context(_initialised_with(layer, parameter, values, key))
                for part in path.split(".")[:-1]:
                    stack.enter_context(keras.name_scope(part))
                layer.create_variables()
    for layer in model._flatten_layers():
        if type(layer).build is keras.layers.Layer.build:  # a container: all there was to build is its leaves
            layer.built = True
        elif hasattr(layer, "create_variables") and not layer.built:  # a leaf whose only weight is another's
            layer.create_variables()


@contextlib.contextmanager
def _initialised_with(layer, parameter: Parameter, values: "_ReadAhead", key: str):
    """Let ``layer`` create ``parameter`` from the tensor ``key`` instead of by its own initialiser."""
    own = getattr(layer, parameter.initializer)

    def from_checkpoint(shape, dtype=None):
        return tf.cast(values.take(key), dtype)

    setattr(layer, parameter.initializer, from_checkpoint)
    try:
        yield
    finally:
        setattr(layer, parameter.initializer, own)


class _ReadAhead:
    """Copies of a checkpoint's tensors in the variables' layout, made by other threads while variables are created.

    Args:
        tensors: a reader of the checkpoint.
        wanted: the parameters by key, in the order in which they are taken.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], wanted: Mapping[str, Parameter]):
        self._tensors, self._wanted = tensors, wanted
        self._keys = iter(wanted)
        self._copies: dict[str, Future[tf.Tensor]] = {}
        self._threads = ThreadPoolExecutor(_READERS, "read-ahead")

    def __enter__(self) -> "_ReadAhead":
        for _ in range(_AHEAD):
            self._begin()
        return self

    def __exit__(self, *_: Any) -> None:
        self._threads.shutdown(cancel_futures=True)

    def take(self, key: str) -> tf.Tensor:
        """One tensor; the next one is begun."""
        if key not in self._copies:
            return self._copy(key)  # not in its turn
        self._begin()
        return self._copies.pop(key).result()

    def _begin(self) -> None:
        if (key := next(self._keys, None)) is not None:
            self._copies[key] = self._threads.submit(self._copy, key)

    def _copy(self, key: str) -> tf.Tensor:
        value = self._tensors[key]
        if value.dtype.itemsize == 1:
            value = value.astype(np.float32)  # TensorFlow has few kernels for float8
        with tf.device("cpu"):
            tensor = _transposed(value) if self._wanted[key].transpose else tf.raw_ops.DeepCopy(x=value)
        self._tensors.release(key)
        return tensor


def _transposed(value: np.ndarray) -> tf.Tensor:
    """A transposed copy of a view of a file, which may change and so must not share its memory with a variable.

    ``tf.transpose`` of an array would copy twice, and ``Transpose`` not at all if one of the axes is of size 1.
    """
    return tf.raw_ops.DeepCopy(x=value.T) if 1 in value.shape else tf.raw_ops.Transpose(x=value, perm=[1, 0])


# --------------------------------------------------------------------------------------------- reading checkpoints


def open_checkpoint(
    source: str | os.PathLike, use_safetensors: bool | None = None, variant: str | None = None, **hub_options: Any
):
    """Find the weights of a checkpoint and open them without reading tensors.

    Args:
        source: a local folder, a ``.safetensors``, ``.bin`` or ``.h5`` file, or a hub id.
        use_safetensors: look for safetensors alone, or for other files alone if false; by default for all, in the order
            safetensors, ``pytorch_model.bin``, ``tf_model.h5``.
        variant: part of the names of the files, such as ``"fp16"``.
        **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``subfolder``.

    Returns:
        A mapping from checkpoint keys to tensors, with ``shape(key)``.

    Raises:
        CheckpointError: if there are no weights, a shard is missing, or a file is corrupt.
    """
    check_choice("use_safetensors", use_safetensors, (True, False))
    if Path(source).is_file():
        readers = {".bin": TorchReader, ".h5": TensorFlowReader}
        return readers.get(Path(source).suffix, SafetensorsReader.open)([Path(source)])
    readers = {
        _variant(SAFETENSORS, variant): SafetensorsReader.open,
        _variant(SAFETENSORS_INDEX, variant): SafetensorsReader.open,
        _variant(TORCH_BIN, variant): TorchReader,
        _variant(TORCH_BIN_INDEX, variant): TorchReader,
        _variant(H5, variant): TensorFlowReader,
        _variant(H5_INDEX, variant): TensorFlowReader,
    }
    if use_safetensors is not None:
        readers = {name: reader for name, reader in readers.items() if (".safetensors" in name) == use_safetensors}
    for name, reader in readers.items():
        path = repository_file(source, name, required=False, **hub_options)
        if path is not None:
            return reader(_shards(source, path, **hub_options) if name.endswith(".json") else [path])
    cache = "" if Path(source).is_dir() else " (or in the cache, if the hub cannot be reached)"
    what = f"has no weights: none of {', '.join(readers)} is there{cache}."
    raise CheckpointError(lacking(source, what, **hub_options))


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


def load(
    model, source: str | os.PathLike, reader, strict: bool = True, ignore_mismatched_sizes: bool = False
) -> LoadingReport:
    """Create the variables of ``model`` from a checkpoint.

    A head that the checkpoint lacks is newly initialised and reported; tensors of another head are reported unused.

    Args:
        model: a model constructed under :func:`deferred_variables`.
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
        key = re.sub(r"(LayerNorm|layer_norm)\.(gamma|beta)$", _modern_norm, name)
        if in_file and not in_model:
            key = key.removeprefix(prefix)
        elif in_model and not in_file and (prefix + key in slots or model.in_body(prefix + key)):
            key = prefix + key
        if key not in slots and (_BUFFERS.search(name) or model.ignored_keys.search(key)):
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


def checkpoint_folder(
    path: str | os.PathLike, obsolete: Container[str] = ()
) -> contextlib.AbstractContextManager[Path]:
    """An empty folder whose files become the checkpoint at ``path``, as a whole; see :func:`~files.atomic_folder`.

    Weights, index and graph of the checkpoint that was there go, and what is in ``obsolete``; other files stay.
    """
    return atomic_folder(path, seal=CONFIG, obsolete=lambda name: name in obsolete or bool(_REPLACED.fullmatch(name)))


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
    write_tensors(model._weight_writer(dict(named_slots(model))), folder, max_shard_size)


# Sizes of files that huggingface_hub reads.
_SIZE = re.compile(r"\s*\d+(\.\d+)?\s*[KMGT]B\s*", re.IGNORECASE)


def write_tensors(writer: Any, folder: Path, max_shard_size: int | str) -> None:
    """Write tensors as safetensors, with an index if there are several files.

    Args:
        writer: tells the ``sizes()`` of tensors by name, and reads some of them, as :class:`WeightWriter` does.
        folder: the folder to write into.
        max_shard_size: as for :func:`save_weights`.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    is_size = isinstance(max_shard_size, str) and _SIZE.fullmatch(max_shard_size)
    if not is_size and (type(max_shard_size) is not int or max_shard_size < 1):
        raise ValueError(
            f"max_shard_size is {max_shard_size!r:.80}, but has to be a number of bytes, or a text such as '5GB'."
        )
    plan = split_state_dict_into_shards_factory(
        writer.sizes(),
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for name, keys in plan.filename_to_tensors.items():
        try:
            save_file(writer.read(keys), folder / name, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, for one
            raise OSError(f"{name} cannot be written: {error}") from error
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / SAFETENSORS_INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
