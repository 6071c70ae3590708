"""Every other architecture of ``transformers``, ported from PyTorch to TensorFlow.

PyTorch builds the model once and ``torch.export`` captures its computation (:mod:`~tf_pipeline.port.capture`) as a
graph of ATen operators (:mod:`~tf_pipeline.port.graph`). Each operator has a rule in TensorFlow
(:mod:`~tf_pipeline.port.rules`), and the whole is compared with PyTorch before anybody uses it
(:mod:`~tf_pipeline.port.gate`). A saved port needs no PyTorch.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_pipeline.port.model import PortedModel

__all__ = ["port"]


def port(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    task: str | None = None,
    model_class: str | None = None,
    overwrite: bool = False,
    **kwargs: Any,
) -> "PortedModel":
    """Port a checkpoint and save it, with its tokenizer, so that it loads where there is no PyTorch.

    Args:
        source: a local folder or a hub id.
        folder: folder of the port; nothing is written unless the port is equal to PyTorch.
        task: port the model of this task, such as ``"text-classification"``.
        model_class: or this class, such as ``"TFXLNetModel"``; by default the one that the config's ``architectures``
            names.
        overwrite: replace another checkpoint that is in the folder.
        **kwargs: arguments of ``from_pretrained``.

    Returns:
        The model.

    Raises:
        PortError: if the architecture cannot be ported; the message says why.
        ValueError: if there is no such task or class.
        FileExistsError: if the folder holds another checkpoint, and ``overwrite`` is false.
    """
    from tf_pipeline.port.save import port_checkpoint

    return port_checkpoint(source, folder, task, model_class, overwrite, **kwargs)
