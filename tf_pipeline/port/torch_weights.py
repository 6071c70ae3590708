"""Read a checkpoint by way of PyTorch, whose loading renames, splits and joins what it stores."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch
from transformers import PreTrainedConfig

from tf_pipeline.parity.run import no_progress_bar


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
    config = type(config).from_dict(config.to_dict())
    # The grouped products of the other implementation have no float64.
    config._experts_implementation = "eager"
    with no_progress_bar(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if source is not None:
            return model_class.from_pretrained(source, config=config, dtype=dtype, **options).eval()
        model = model_class._from_config(config, dtype=dtype, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


class TorchModelReader(Mapping):
    """The tensors of a PyTorch model by key, as a reader of a checkpoint's file gives them."""

    def __init__(self, model_class: type, source: str | os.PathLike, config: PreTrainedConfig, **hub_options: Any):
        config = type(config).from_dict(config.to_dict())
        with no_progress_bar():
            model, report = model_class.from_pretrained(
                source, config=config, dtype=torch.float32, output_loading_info=True, **hub_options
            )
        # PyTorch makes up what is missing; that is no part of the checkpoint.
        stored = {key: x for key, x in model.state_dict().items() if key not in report["missing_keys"]}
        seen: set[int] = set()
        self._tensors: dict[str, torch.Tensor] = {}
        for key, tensor in stored.items():
            if tensor.data_ptr() not in seen or not tensor.numel():
                self._tensors[key] = tensor
                seen.add(tensor.data_ptr())

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
        tensor = self._tensors[key].detach().contiguous()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
