"""Port a checkpoint into a folder of its own."""

import logging
import os
from typing import Any

from transformers import PreTrainedConfig

from tf_pipeline.auto import find_model_class
from tf_pipeline.checkpoint import checkpoint_folder
from tf_pipeline.config import AutoConfig
from tf_pipeline.hub import HUB_OPTIONS, PROCESSOR_FILES, copy_files, refuse_checkpoint
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.model import PortedModel, ported_class

logger = logging.getLogger(__name__)


def port_checkpoint(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    task: str | None,
    model_class: str | None,
    overwrite: bool = False,
    **kwargs: Any,
) -> PortedModel:
    """See :func:`tf_pipeline.port.port`."""
    refuse_checkpoint(folder, source, overwrite)
    model = load_ported(source, task, model_class, **kwargs)
    save_ported(model, source, folder, **{key: value for key, value in kwargs.items() if key in HUB_OPTIONS})
    return model


def load_ported(
    source: str | os.PathLike, task: str | None, model_class: str | None, trust_remote_code: bool = False, **kwargs: Any
) -> PortedModel:
    """A checkpoint as a ported model, also of an architecture that has a module of its own."""
    options = {key: value for key, value in kwargs.items() if key in HUB_OPTIONS}
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **options)
    name = _class_name(config, task, model_class).removeprefix("TF")
    return ported_class(name).from_pretrained(source, **({"config": config} if trust_remote_code else {}), **kwargs)


def save_ported(model: PortedModel, source: str | os.PathLike, folder: str | os.PathLike, **options: Any) -> None:
    """Write a ported model, and the tokenizer and processors of the checkpoint it comes from, as a whole."""
    model.find_step()
    with checkpoint_folder(folder) as staging:
        model.write_checkpoint(staging)
        _save_tokenizer(source, staging, **options)
        copy_files(source, PROCESSOR_FILES, staging, **options)


def _class_name(config: PreTrainedConfig, task: str | None, model_class: str | None) -> str:
    if model_class is not None:
        if find_model_class(f"TF{model_class.removeprefix('TF')}") is None:
            raise ValueError(f"There is no class {model_class}; give PyTorch's name, such as XLNetModel.")
        return model_class
    if task is not None:
        from tf_pipeline.pipelines.factory import pipeline_class

        return pipeline_class(task).auto_class().model_class(config).__name__
    if not config.architectures:
        raise PortError("The config names no class (architectures); say which: --task or --class.")
    return config.architectures[0]


def _save_tokenizer(source: str | os.PathLike, folder: str | os.PathLike, **options: Any) -> None:
    from tf_pipeline.tokenization import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        logger.warning("No tokenizer was saved next to the model: %s", error)
        return
    tokenizer.save_pretrained(folder)
