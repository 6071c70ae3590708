"""Load a model in PyTorch: a checkpoint's, or one with random weights."""

import contextlib
import os
from typing import TYPE_CHECKING, Any

import transformers
from transformers import PreTrainedConfig

from tf_pipeline.reference.rotary import widen_tables

if TYPE_CHECKING:
    import torch


def caching_off(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of a config whose model returns no caches."""
    config = type(config).from_dict(config.to_dict())
    for name in ("use_cache", "use_mems"):
        if hasattr(config, name):
            setattr(config, name, False)
    return config


def _comparable(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of a config whose model can be run in float64 and returns no caches."""
    config = caching_off(config)
    # The grouped products of the other implementation have no float64.
    config._experts_implementation = "eager"
    return config


@contextlib.contextmanager
def seeded():
    """The same random numbers every time, and the caller's as they were."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def no_progress_bar():
    """Without the bar that ``transformers`` draws for every model it loads."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def torch_model(
    class_name: str, checkpoint: str | os.PathLike, dtype: str, keeps_tables: bool = False, **kwargs: Any
) -> "torch.nn.Module":
    """PyTorch's own class for one of ours, in evaluation mode, with its plain attention.

    Args:
        class_name: our class, or PyTorch's.
        checkpoint: folder or hub id.
        dtype: name of a dtype.
        keeps_tables: leave tables that are no weights in float32 in a float64 model, as our class does.
        **kwargs: passed to ``from_pretrained``.
    """
    import torch

    torch_class = getattr(transformers, class_name.removeprefix("TF"))
    # Tables that are no weights are float32 whatever the dtype; a model made in float64 would have others.
    loaded = "float32" if dtype == "float64" else dtype
    options = {"dtype": getattr(torch, loaded), "attn_implementation": "eager"} | kwargs
    with no_progress_bar():
        model = torch_class.from_pretrained(checkpoint, **options).eval()
    model = model.double() if dtype == "float64" else model
    if not keeps_tables:
        widen_tables(model)
        freeze_positions(model)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # a cache is no result
    return model


def freeze_positions(model) -> None:
    """Freeze tables of sines that a class freezes itself (Marian's); PyTorch forgets it when it loads a checkpoint."""
    for module in model.modules():
        if type(module).__name__.endswith("SinusoidalPositionalEmbedding"):
            module.requires_grad_(False)


def load_torch_model(
    model_class: type, source: str | os.PathLike | None, config: PreTrainedConfig, dtype: "torch.dtype", **options: Any
) -> "torch.nn.Module":
    """A PyTorch model in evaluation mode: a checkpoint's, or of every parameter random if there is no source.

    The random ones are far from PyTorch's own first values, whose zeros would hide unused parameters.

    Args:
        model_class: a class of ``transformers``.
        source: folder or hub id.
        config: its config.
        dtype: dtype of its weights.
        **options: hub options and ``attn_implementation``.
    """
    import torch

    config = _comparable(config)
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
    model_class: type, source: str | os.PathLike, config: PreTrainedConfig, dtype: "torch.dtype", **options: Any
) -> "tuple[torch.nn.Module, dict[str, Any]]":
    """A checkpoint in evaluation mode, and PyTorch's report of the keys that were missing or unexpected.

    Args:
        model_class: a class of ``transformers``.
        source: folder or hub id.
        config: its config.
        dtype: dtype of its weights.
        **options: hub options and others of ``from_pretrained``.
    """
    config = _comparable(config)
    with no_progress_bar(), seeded():
        model, report = model_class.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, attn_implementation="eager", **options
        )
    return model.eval(), report
