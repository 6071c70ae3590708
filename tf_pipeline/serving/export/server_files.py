"""Write the files that serve a SavedModel: configuration of the server, ways to start it, a README."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tf_pipeline.files import atomic_file
from tf_pipeline.serving.saved_model import dtype_name, read_saved_model, shape_of, shown_shape, signatures

_TEMPLATES = Path(__file__).with_name("templates")
_TEXTS = ("What a wonderful film.", "I want my money back.")
_LARGEST_REQUEST = 1024
_OPTIONS = "\n\nIn `with_options` each row has its own options; -1 leaves one as it was exported."


class _Template(Template):
    """``@{name}`` stands for a value, so that ``$`` keeps its meaning in a shell; ``@@`` is an ``@``."""

    delimiter = "@"


def write_server_files(
    folder: str | os.PathLike,
    *,
    name: str,
    task: str,
    checkpoint: str,
    version: int = 1,
    server_version: str = "2.19.1",
    batch_size: int = 32,
    batch_timeout_micros: int = 1000,
    packed_weights: bool = False,
) -> None:
    """Write configuration, ways to start a server, and a README next to a SavedModel.

    These are ``models.config``, ``compose.yaml``, ``serve.sh`` and ``README.md`` in the folder, and
    ``batching_params.pbtxt`` in that of the version. Files of these names are replaced. The requests in
    them fit the signatures of the SavedModel.

    Args:
        folder: the folder of the model; ``folder/<version>`` is a SavedModel.
        name: of the model in the server, and in its URLs: letters, digits, ``_`` and ``-``.
        task: such as ``text-classification``, for the README.
        checkpoint: source of the model, for the README.
        version: the SavedModel's.
        server_version: tag of the image ``tensorflow/serving``, such as ``"2.19.1"``.
        batch_size: maximum number of rows that the server runs at once.
        batch_timeout_micros: how long it waits for more rows, in microseconds.
        packed_weights: whether oneDNN may keep weights in the layout of its kernels; not if the model multiplies by
            other matrices than weights.

    Raises:
        ValueError: for a value that a server would not take; the message names it.
        FileNotFoundError: if there is no SavedModel.
    """
    check_values(name, version, server_version, batch_size, batch_timeout_micros)
    found = signatures(read_saved_model(Path(folder) / str(version)).meta_graphs[0])
    if "serving_default" not in found:
        raise ValueError(f"{folder}/{version} has no signature serving_default; it has {sorted(found)}.")
    split = _can_be_split(found)
    values = {
        "name": name,
        "task": task,
        "checkpoint": checkpoint,
        "version": str(version),
        "server_version": server_version,
        "batch_timeout_micros": str(batch_timeout_micros),
        "batch_size": _batch_size(batch_size, split),
        "packed_weights": str(int(packed_weights)),
        "limits": _limits(found, batch_size, split),
        "signatures": _table(found) + (_OPTIONS if "with_options" in found else ""),
        **_examples(found["serving_default"]),
    }
    for template in sorted(_TEMPLATES.iterdir()):
        inner = str(version) if template.name == "batching_params.pbtxt" else ""
        _write(Path(folder) / inner / template.name, template, values)


def check_values(
    name: str, version: int, server_version: str, batch_size: int = 1, batch_timeout_micros: int = 0
) -> None:
    """Refuse values that a server would not take; see :func:`write_server_files`.

    Raises:
        ValueError: naming the value.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"name={name!r} is not supported: letters, digits, _ and - are, with a letter or digit first.")
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[a-z0-9-]+)?", server_version):
        raise ValueError(f"server_version={server_version!r} is no tag of tensorflow/serving, such as '2.19.1'.")
    if version < 1 or not 1 <= batch_size <= _LARGEST_REQUEST or batch_timeout_micros < 0:
        raise ValueError(
            f"version={version}, batch_size={batch_size}, batch_timeout_micros={batch_timeout_micros}: the first has "
            f"to be at least 1, the second 1 to {_LARGEST_REQUEST}, the third at least 0."
        )


def _write(target: Path, template: Path, values: Mapping[str, str]) -> None:
    """Fill in a template; the file appears whole or not at all."""
    with atomic_file(target) as file:
        file.write_text(_Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
        file.chmod(0o755 if target.suffix == ".sh" else 0o644)


# --------------------------------------------------------------------------------------------------------- batching


def _can_be_split(found: Mapping[str, meta_graph_pb2.SignatureDef]) -> bool:
    """Whether a large request may run in parts: their outputs are joined, so only rows may differ in number."""
    outputs = [shape_of(info) for signature in found.values() for info in signature.outputs.values()]
    return all(shape is not None and None not in shape[1:] for shape in outputs)


def _batch_size(batch_size: int, split: bool) -> str:
    if not split:
        return f"# The most rows of a batch, and of a request.\nmax_batch_size {{ value: {batch_size} }}"
    return (
        "# The most rows of a request, which runs in parts, and of a batch.\n"
        f"max_batch_size {{ value: {_LARGEST_REQUEST} }}\n"
        "enable_large_batch_splitting { value: true }\n"
        f"max_execution_batch_size {{ value: {batch_size} }}"
    )


def _limits(found: Mapping[str, meta_graph_pb2.SignatureDef], batch_size: int, split: bool) -> str:
    """Advice about batching for writers of clients."""
    rows = _LARGEST_REQUEST if split else batch_size
    sentences = [f"A request may have up to {rows} rows."]
    if not split:
        sentences.append("It is not split, because the width of some outputs depends on the rows of a batch.")
    inputs = {name: [shape_of(info) or () for info in found[name].inputs.values()] for name in found}
    if uneven := [f"`{name}`" for name in found if any(None in shape[1:] for shape in inputs[name])]:
        sentences.append(
            f"Requests to {' and '.join(uneven)} run in one batch only if their rows have the same length, and fail "
            "otherwise: pad all to one length, or leave out `--enable_batching`."
        )
    return "\n".join(sentences)


# ----------------------------------------------------------------------------------------------------------- README


def _table(found: Mapping[str, meta_graph_pb2.SignatureDef]) -> str:
    rows = ["| signature | | name | dtype | shape |", "|---|---|---|---|---|"]
    for name, signature in found.items():
        first = f"`{name}`"
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for key in sorted(tensors):
                info = tensors[key]
                rows.append(f"| {first} | {kind} | `{key}` | {dtype_name(info.dtype)} | {shown_shape(info)} |")
                first = ""
    return "\n".join(rows)


def _examples(signature: meta_graph_pb2.SignatureDef) -> dict[str, str]:
    """A request of two rows, as REST, as Python and for ``saved_model_cli``."""
    rows = {key: _example(key, signature.inputs[key]) for key in sorted(signature.inputs)}
    if len(rows) == 1:
        (instances,) = rows.values()
    else:
        instances = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    dtypes = {key: tf.as_dtype(info.dtype).name for key, info in signature.inputs.items()}
    return {
        "rest": json.dumps({"instances": instances}),
        "grpc": "\n".join(
            f'request.inputs["{key}"].CopyFrom(tf.make_tensor_proto({json.dumps(value)}, tf.{dtypes[key]}))'
            for key, value in rows.items()
        ),
        "expressions": ";".join(f"{key}={json.dumps(value)}" for key, value in rows.items()),
    }


def _example(key: str, info: meta_graph_pb2.TensorInfo) -> list[Any]:
    if info.dtype == types_pb2.DT_STRING:
        return list(_TEXTS)
    shape = [2, *(3 if dim is None else dim for dim in (shape_of(info) or (None,))[1:])]
    return np.full(shape, 0 if key == "token_type_ids" else 1).tolist()
