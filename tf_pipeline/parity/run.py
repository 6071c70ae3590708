"""Run a model in one framework or the other and flatten what comes out into float64 arrays by name."""

import contextlib
import inspect
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.checkpoint import named_slots

MODES = ("eager", "function", "xla", "saved")
# Outputs of PyTorch's models that spare work later on, and are no result.
CACHES = ("past_key_values", "mems", "cache_params", "state", "encoder_past_key_values")


def torch_model(class_name: str, checkpoint: str | os.PathLike, dtype: str, **kwargs: Any):
    """PyTorch's own class for one of ours, in evaluation mode, with its plain attention.

    Args:
        class_name: our class.
        checkpoint: folder or hub id.
        dtype: name of a dtype.
        **kwargs: passed to ``from_pretrained``.
    """
    import torch
    import transformers

    from tf_pipeline.auto import find_model_class

    torch_class = getattr(transformers, class_name.removeprefix("TF"))
    # Tables that are no weights are float32 whatever the dtype; a model made in float64 would have others.
    loaded = "float32" if dtype == "float64" else dtype
    options = {"dtype": getattr(torch, loaded), "attn_implementation": "eager"} | kwargs
    with no_progress_bar():
        model = torch_class.from_pretrained(checkpoint, **options).eval()
    model = model.double() if dtype == "float64" else model
    if not find_model_class(class_name).keeps_tables:
        widen_tables(model)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # a cache is no result
    return model


@contextlib.contextmanager
def no_progress_bar():
    """Without the bar that ``transformers`` draws for every model it loads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def run_torch(model, inputs: Mapping[str, np.ndarray], gradients: bool = False) -> dict[str, np.ndarray]:
    """All outputs of a PyTorch model, and the gradient of its :func:`objective` by parameter if asked for."""
    import torch

    tensors = as_torch_tensors(model, inputs)
    forget_lengths(model)
    model.zero_grad()
    with torch.set_grad_enabled(gradients), lifted_upcasts(model):
        outputs = model(**tensors, output_hidden_states=True, output_attentions=True)
    results = flatten(without_caches(outputs))
    if gradients:
        objective(outputs).backward()
        for name, parameter in named_torch_parameters(model):
            if parameter.grad is not None:
                results[f"gradient.{name}"] = _torch_array(parameter.grad)
    return results


def raw_torch(model, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The outputs of a PyTorch model as they come, in order, with hidden states and without attentions."""
    import torch

    with torch.no_grad(), lifted_upcasts(model):
        return without_caches(model(**as_torch_tensors(model, inputs), output_hidden_states=True))


def torch_inputs(model) -> tuple[str, ...]:
    """Names of what a PyTorch model may be called with."""
    return tuple(inspect.signature(model.forward).parameters)


def without_caches(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of a PyTorch model that are results."""
    return {name: value for name, value in outputs.items() if name not in CACHES and value is not None}


def as_torch_tensors(model, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Inputs of a PyTorch model, floats in its dtype."""
    import torch

    inputs = _with_added_mask(model, inputs)
    tensors = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in inputs.items()}
    if type(model).__name__ == "DistilBertForMultipleChoice" and "position_ids" in tensors:
        # It gives its body every input without the axis of choices but this one.
        tensors["position_ids"] = tensors["position_ids"].flatten(0, 1)
    return {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in tensors.items()}


def _with_added_mask(model, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Inputs with a mask of pairs of tokens, if they have one, in the form that PyTorch takes: what is added to scores.

    PyTorch takes such a mask as it is, so that what a decoder must not see is hidden in it.
    """
    import torch

    mask, ids = inputs.get("attention_mask"), inputs.get("input_ids")
    if mask is None or ids is None or ids.ndim != 2 or mask.ndim == 2:
        return inputs
    visible = mask != 0
    if mask.ndim == 3:
        visible = visible[:, np.newaxis]
        if getattr(model.config, "is_decoder", False):
            visible = visible & np.tril(np.ones(visible.shape[-2:], bool))
    hidden = torch.finfo(model.dtype).min
    return {**inputs, "attention_mask": np.where(visible, 0.0, hidden)}


def as_tensors(model, inputs: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Inputs of one of our models, floats in its dtype."""
    return {
        name: tf.constant(value, model.compute_dtype if np.issubdtype(value.dtype, np.floating) else tf.int32)
        for name, value in inputs.items()
    }


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


def widen_tables(model) -> None:
    """Compute again what PyTorch keeps in float32 in a float64 model: rotary frequencies, and factors of embeddings."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for module in model.modules() if model.dtype == torch.float64 else ():
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
        if not hasattr(module, "compute_default_rope_parameters"):
            continue
        for kind in getattr(module, "layer_types", [None]):
            arguments, prefix = ({}, "") if kind is None else ({"layer_type": kind}, f"{kind}_")
            rule = getattr(module, "rope_type", "default")
            rule = rule if kind is None else rule[kind]
            compute = ROPE_INIT_FUNCTIONS.get(rule, module.compute_default_rope_parameters)
            with lifted_upcasts(model):
                frequencies, _ = compute(module.config, **arguments)
            fresh = {"inv_freq": frequencies, "original_inv_freq": frequencies.clone()}
            fresh["max_seq_len_cached"] = getattr(module, "original_max_seq_len", None)  # of a rule that remembers
            for name, value in fresh.items():
                if hasattr(module, prefix + name):
                    setattr(module, prefix + name, value)


def rotary_kinds(module) -> Iterator[tuple[str, str | None, str]]:
    """The rotary embeddings of a module whose frequencies depend on the length of the text.

    Yields:
        Prefix of their attributes, kind of layer (``None`` if there is but one), and ``"longrope"`` or ``"dynamic"``.
    """
    types = getattr(module, "rope_type", None)
    types = types if isinstance(types, Mapping) else {None: types}
    for layer_type, kind in types.items():
        prefix = "" if layer_type is None else f"{layer_type}_"
        if kind in ("longrope", "dynamic") and hasattr(module, f"{prefix}original_inv_freq"):
            yield prefix, layer_type, kind


def long_frequencies(module, layer_type: str | None):
    """The second set of ``longrope``, for texts beyond the length of the original training."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = module.config.rope_parameters
    parameters = parameters if layer_type is None else parameters[layer_type]
    beyond = parameters["original_max_position_embeddings"] + 1
    return ROPE_INIT_FUNCTIONS["longrope"](module.config, None, seq_len=beyond, layer_type=layer_type)[0]


def forget_lengths(model) -> None:
    """Let a model's rotary embeddings be as if they had seen no text: frequencies of their own dtype, none grown.

    PyTorch makes the second set of ``longrope`` when it first runs; made in a float64 model it would not be the float32
    table that every other dtype has. Those of ``dynamic`` stay what the longest text so far needed.
    """
    for module in model.modules():
        for prefix, layer_type, kind in rotary_kinds(module):
            if kind == "longrope":
                setattr(module, f"{prefix}long_inv_freq", long_frequencies(module, layer_type))
            else:
                setattr(module, f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"))
                name = f"{prefix}max_seq_len_cached"
                name = name if hasattr(module, name) else "max_seq_len_cached"
                setattr(module, name, module.original_max_seq_len)


def parameters(model) -> dict[str, np.ndarray]:
    """The parameters of one of our models by checkpoint key, in the checkpoint's layout."""
    return {key: slot.read() for key, slot in named_slots(model)}


def torch_parameters(model) -> dict[str, np.ndarray]:
    """The parameters of a PyTorch model by checkpoint key."""
    return {name: parameter.detach().numpy() for name, parameter in named_torch_parameters(model)}


def named_torch_parameters(model) -> Iterator[tuple[str, Any]]:
    """The parameters of a PyTorch model, each once and under the name that checkpoints have it by.

    PyTorch names a tied parameter after the module that it finds first, which may be the head.
    """
    aliases = getattr(model, "all_tied_weights_keys", {})
    seen = set()
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False), key=lambda item: item[0] in aliases):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            yield name, parameter


class TensorFlowRunner:
    """Runs one of our models on any inputs; a graph is traced once for each set of input names and shapes.

    Args:
        model: the model.
        mode: ``"eager"``, ``"function"`` (a graph), ``"xla"`` (a compiled graph) or ``"saved"`` (a SavedModel, written
            and loaded again).
        gradients: whether to differentiate the :func:`objective`.
    """

    def __init__(self, model, mode: str = "function", gradients: bool = False):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}.")
        self.model, self.gradients = model, gradients
        self.slots = dict(named_slots(model)) if gradients else {}
        self._call = self._run
        if mode == "saved":
            self._call = self._run_saved
        elif mode != "eager":
            self._call = tf.function(self._run, jit_compile=mode == "xla", autograph=False)

    def _run(self, tensors):
        variables = {key: slot.variable.value for key, slot in self.slots.items()}
        with tf.GradientTape() as tape:
            outputs = self.model(tensors, output_hidden_states=True, output_attentions=True)
            loss = objective(outputs) if self.gradients else None
        gradients = tape.gradient(loss, variables) if self.gradients else {}
        gradients = {key: tf.convert_to_tensor(value) for key, value in gradients.items() if value is not None}
        return named_tensors(outputs), gradients

    def _run_saved(self, tensors):
        """Export with open shapes, as a server's model is, load that and call it."""
        signature = {
            name: tf.TensorSpec([None] * value.shape.rank, value.dtype, name) for name, value in tensors.items()
        }
        archive = keras.export.ExportArchive()
        archive.track(self.model)
        archive.add_endpoint("serve", lambda given: self._run(given)[0], [signature])
        with tempfile.TemporaryDirectory() as folder:
            archive.write_out(folder, verbose=False)
            loaded = tf.saved_model.load(folder)
            return loaded.serve(tensors), {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs, and with ``gradients`` those by checkpoint key, in the checkpoint's layout."""
        outputs, gradients = self._call(as_tensors(self.model, inputs))
        results = {name: _array(value) for name, value in outputs.items()}
        for key, value in gradients.items():
            value = _array(value)
            results[f"gradient.{key}"] = value.T if self.slots[key].parameter.transpose else value
        return results


def objective(outputs: Mapping[str, Any]) -> Any:
    """What is differentiated, a scalar of either framework: the loss; without labels, a random projection.

    The sum of a body's normalised states is almost constant, and so is that of their squares: neither would have a
    gradient worth comparing. Fixed random weights for every element do.
    """
    if outputs.get("loss") is not None:
        return outputs["loss"]
    value = next(value for name, value in outputs.items() if name not in ("hidden_states", "attentions"))
    weights = np.random.default_rng(0).normal(size=tuple(value.shape)) / math.prod(value.shape)
    if tf.is_tensor(value):
        return tf.reduce_sum(value * tf.constant(weights, value.dtype))
    return (value * value.new_tensor(weights)).sum()


def flatten(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Outputs as float64 arrays by name; see :func:`named_tensors`."""
    return {name: _array(value) for name, value in named_tensors(outputs).items()}


def named_tensors(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs by name in the order of computation, so that the first difference is the one nearest its cause.

    ``hidden_states.0``, ``attentions.0``, ``hidden_states.1``, …, then the other outputs, then the loss.
    """
    layers, others = {}, {}
    for index, (name, value) in enumerate(outputs.items()):
        place = {"hidden_states": 0, "attentions": 1}.get(name)
        items = {f"{name}.{i}": item for i, item in enumerate(value)} if isinstance(value, tuple) else {name: value}
        for i, (key, item) in enumerate(items.items()):
            if place is not None:
                layers[key] = ((0, i, place), item)
            elif item is not None:
                others[key] = ((2 if name == "loss" else 1, index, i), item)
    ordered = sorted((layers | others).items(), key=lambda entry: entry[1][0])
    return {name: value for name, (_, value) in ordered}


def _array(value: Any) -> np.ndarray:
    if tf.is_tensor(value):
        return value.numpy().astype(np.float64)
    return _torch_array(value)


def _torch_array(value: Any) -> np.ndarray:
    return value.detach().double().numpy()
