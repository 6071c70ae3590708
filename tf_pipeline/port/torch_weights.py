"""Read a checkpoint by way of PyTorch, whose loading renames, splits and joins what it stores."""

import contextlib
import os
from typing import Any

import torch
from transformers import PreTrainedConfig

from tf_pipeline.parity.run import no_progress_bar


def without_caches(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of a config whose model returns no caches."""
    config = type(config).from_dict(config.to_dict())
    for name in ("use_cache", "use_mems"):
        if hasattr(config, name):
            setattr(config, name, False)
    return config


@contextlib.contextmanager
def seeded():
    """The same random numbers every time, and the caller's as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def load_torch_model(
    model_class: type, source: str | os.PathLike | None, config: PreTrainedConfig, dtype: torch.dtype, **options: Any
) -> torch.nn.Module:
    """A PyTorch model in evaluation mode: a checkpoint's, or of every parameter random if there is no source.

    The random ones are far from PyTorch's own first values, whose zeros would hide what is not used.

    Args:
        model_class: a class of ``transformers``.
        source: folder or hub id.
        config: its config.
        dtype: dtype of its weights.
        **options: hub options and ``attn_implementation``.
    """
    config = without_caches(config)
    # The grouped products of the other implementation have no float64.
    config._experts_implementation = "eager"
    with no_progress_bar(), seeded():
        if source is not None:
            return model_class.from_pretrained(source, config=config, dtype=dtype, **options).eval()
        model = model_class._from_config(config, dtype=dtype, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def load_with_report(
    model_class: type, source: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype, **options: Any
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A checkpoint in evaluation mode, and PyTorch's report of the keys that were missing or unexpected.

    Args:
        model_class: a class of ``transformers``.
        source: folder or hub id.
        config: its config.
        dtype: dtype of its weights.
        **options: hub options and others of ``from_pretrained``.
    """
    config = without_caches(config)
    config._experts_implementation = "eager"
    with no_progress_bar(), seeded():
        model, report = model_class.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, attn_implementation="eager", **options
        )
    return model.eval(), report
