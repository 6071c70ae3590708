"""Convert a checkpoint to safetensors under PyTorch's names, whatever it was saved by and of whatever architecture."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_pipeline.checkpoint import CONFIG, checkpoint_folder, open_checkpoint, write_tensors
from tf_pipeline.hub import PROCESSOR_FILES, TOKENIZER_FILES, copy_files, refuse_checkpoint, repository_file

# What may lie next to the weights: settings, tokenizers and processors.
_OTHERS = ("generation_config.json", *TOKENIZER_FILES, *PROCESSOR_FILES)


class _Tensors:
    """The tensors of a reader, as :func:`~tf_pipeline.checkpoint.write_tensors` takes them."""

    def __init__(self, reader):
        self._reader = reader

    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor by name."""
        shapes = {key: (self._reader.shape(key), self._reader.dtype(key)) for key in self._reader}
        return {key: int(np.prod(shape)) * dtype.itemsize for key, (shape, dtype) in shapes.items()}

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Tensors by name."""
        return {name: np.ascontiguousarray(self._reader[name]) for name in names}


def convert(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    use_safetensors: bool | None = None,
    variant: str | None = None,
    max_shard_size: int | str = "50GB",
    overwrite: bool = False,
    **hub_options: Any,
) -> list[str]:
    """Write a checkpoint as safetensors, with its config, tokenizer and processors.

    The tensors are those of the file, bit for bit, under the names that PyTorch gives them. No model is made, so that
    any architecture will do.

    Args:
        source: a folder or a hub id with ``tf_model.h5`` (of TensorFlow and ``transformers`` 4), ``pytorch_model.bin``
            or safetensors, whole or in shards.
        folder: where to write; files of other names stay.
        use_safetensors: as for :func:`~tf_pipeline.checkpoint.open_checkpoint`; false skips safetensors.
        variant: part of the names of the files, such as ``"fp16"``.
        max_shard_size: size past which the weights are split, in bytes or as ``"5GB"``.
        overwrite: replace a checkpoint that is in the folder. That of ``source`` itself needs no leave: safetensors
            come next to its other files.
        **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``subfolder``.

    Returns:
        The names of the tensors.

    Raises:
        CheckpointError: if there are no weights, or they cannot be read.
        RepositoryError: if there is no config.
        FileExistsError: if the folder holds another checkpoint, and ``overwrite`` is false.
    """
    refuse_checkpoint(folder, source, overwrite)
    repository_file(source, CONFIG, **hub_options)
    reader = open_checkpoint(source, use_safetensors, variant, **hub_options)
    with checkpoint_folder(folder) as staging:
        write_tensors(_Tensors(reader), staging, max_shard_size)
        copy_files(source, (CONFIG, *_OTHERS), staging, **hub_options)
    return sorted(reader)
