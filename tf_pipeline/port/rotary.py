"""Rotary embeddings whose frequencies depend on the length, in a form that ``torch.export`` follows.

PyTorch keeps the frequencies for the longest text so far as the module's state: behind a branch on the value of a
tensor (``dynamic``), or in an attribute that is set in passing (``longrope``). Here each call computes them from its
own positions, as a module does that has seen no other text.
"""

import contextlib
import inspect
from collections.abc import Iterator
from functools import partial

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tf_pipeline.reference.rotary import long_frequencies, rotary_kinds


@contextlib.contextmanager
def stateless_rotary(model: torch.nn.Module) -> Iterator[None]:
    """Let the model's rotary embeddings compute their frequencies from the positions of each call."""
    changed = [module for module in model.modules() if any(rotary_kinds(module))]
    for module in changed:
        module.forward = partial(_forward, module)
        for prefix, layer_type, kind in rotary_kinds(module):
            if kind == "longrope":  # as a buffer, which is written down by its name
                table = long_frequencies(module, layer_type)
                vars(module).pop(f"{prefix}long_inv_freq", None)
                module.register_buffer(f"{prefix}long_inv_freq", table, persistent=False)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
            for prefix, _, _ in rotary_kinds(module):
                module._buffers.pop(f"{prefix}long_inv_freq", None)


def _forward(module: torch.nn.Module, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None):
    """Run the class's own method, with the frequencies for these positions in place of the buffer."""
    own_forward = inspect.unwrap(type(module).forward)
    arguments = {} if layer_type is None else {"layer_type": layer_type}
    found = next(((p, kind) for p, name, kind in rotary_kinds(module) if name == layer_type), None)
    if found is None:
        return own_forward(module, x, position_ids, **arguments)
    prefix, kind = found
    name, before = f"{prefix}inv_freq", module._buffers[f"{prefix}inv_freq"]
    module._buffers[name] = _frequencies(module, position_ids, prefix, layer_type, kind)
    try:
        return own_forward(module, x, position_ids, **arguments)
    finally:
        module._buffers[name] = before


def _frequencies(module, position_ids: torch.Tensor, prefix: str, layer_type: str | None, kind: str) -> torch.Tensor:
    """The frequencies for texts of the length that the positions have: one set below a threshold, another beyond."""
    length = torch.max(position_ids) + 1
    if kind == "longrope":
        parameters = module.config.rope_parameters
        parameters = parameters if layer_type is None else parameters[layer_type]
        threshold, beyond = parameters["original_max_position_embeddings"], getattr(module, f"{prefix}long_inv_freq")
    else:
        threshold = module.original_max_seq_len
        beyond, _ = ROPE_INIT_FUNCTIONS[kind](module.config, length.device, seq_len=length, layer_type=layer_type)
    return torch.where(length > threshold, beyond, getattr(module, f"{prefix}original_inv_freq"))
