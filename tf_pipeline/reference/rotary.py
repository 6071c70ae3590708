"""Tables of positions of PyTorch's models, which depend on the dtype they were made in and on earlier texts."""

from collections.abc import Iterator, Mapping

from tf_pipeline.reference.precision import lifted_upcasts


def widen_tables(model) -> None:
    """Compute again values that stay float32 in PyTorch's float64 models: positions, factors of embeddings."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for module in model.modules() if model.dtype == torch.float64 else ():
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
        if type(module).__name__.endswith("SinusoidalPositionalEmbedding") and hasattr(module, "make_weights"):
            with lifted_upcasts(model):
                module.make_weights(len(module.weights), module.embedding_dim, module.padding_idx)
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
    table that every other dtype has. Those of ``dynamic`` stay those that the longest text so far needed.
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
