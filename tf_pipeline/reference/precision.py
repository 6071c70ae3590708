"""Float64 models of PyTorch that compute in float64 throughout."""

import contextlib
from typing import Any


@contextlib.contextmanager
def in_float64(model):
    """Let a float32 model be one of float64 for a while; there is no copy of it.

    What it learned is exact in both dtypes. Tables that it computes come back as they were.
    """
    tables = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        yield model.double()
    finally:
        model.float()
        for module, own in tables:
            module._buffers.update(own)


@contextlib.contextmanager
def lifted_upcasts(model):
    """Let a float64 model of PyTorch compute in float64 where it asks for float32.

    ``transformers`` does so to widen half precision: in losses, norms, rotary embeddings, attention. On a float64
    reference it would throw nine digits away. Models in other dtypes are left alone.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    if model.dtype != torch.float64:
        yield
        return

    def lifted(value: Any) -> Any:
        names = {torch.float32: torch.float64, torch.complex64: torch.complex128}
        return names.get(value, value) if isinstance(value, torch.dtype) else value

    class Lifted(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.float:
                function = torch.Tensor.double
            kwargs = {name: lifted(value) for name, value in (kwargs or {}).items()}
            return function(*map(lifted, args), **kwargs)

    own = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of tensors that are made without saying
    try:
        with Lifted():
            yield
    finally:
        torch.set_default_dtype(own)
