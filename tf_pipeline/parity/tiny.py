"""Tiny random checkpoints of every family and head: one row of config values a family.

Values are away from the defaults (eps, activation, head count, positions, types), so that a constant written where a
config value belongs shows. A new family adds its row here and is tested everywhere.
"""

import os
from typing import Any

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 48,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "distilbert": {
        "vocab_size": 99,
        "dim": 32,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 37,
        "activation": "relu",
        "max_position_embeddings": 48,
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "roberta": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 48,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "xlm-roberta": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "silu",
        "max_position_embeddings": 48,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-6,
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "camembert": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "relu",
        "max_position_embeddings": 48,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-3,
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "electra": {
        "vocab_size": 99,
        "embedding_size": 24,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "relu",
        "max_position_embeddings": 48,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
        "summary_activation": "tanh",
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "mpnet": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "relu",
        "max_position_embeddings": 48,
        "layer_norm_eps": 1e-5,
        "relative_attention_num_buckets": 40,
        "num_labels": 5,
    },
    "albert": {
        "vocab_size": 99,
        "embedding_size": 24,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_hidden_groups": 1,
        "inner_group_num": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "relu",
        "max_position_embeddings": 48,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "deberta-v2": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_act": "relu",
        "max_position_embeddings": 48,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "conv_kernel_size": 3,
        "conv_act": "gelu",
        "pooler_hidden_act": "silu",
        "pad_token_id": 1,
        "num_labels": 5,
    },
    "modernbert": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_activation": "silu",
        "norm_eps": 1e-3,
        "local_attention": 6,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 1000.0,
        "local_rope_theta": 50.0,
        "classifier_activation": "relu",
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "num_labels": 5,
    },
    "gpt2": {
        "vocab_size": 99,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_inner": 37,
        "activation_function": "silu",
        "n_positions": 48,
        "layer_norm_epsilon": 1e-3,
        "scale_attn_by_inverse_layer_idx": True,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 1,
        "num_labels": 5,
    },
}


def tiny_config(model_type: str, class_name: str, **changes: Any):
    """The tiny config of a family, fit for one of its classes."""
    from transformers import AutoConfig

    from tf_pipeline import losses
    from tf_pipeline.auto import find_model_class

    model_class = find_model_class(class_name)
    values = dict(TINY_CONFIGS[model_type])
    for key, allowed in model_class.config_limits().items():
        if key in values and values[key] not in allowed:
            values[key] = allowed[0]
    if model_class.task_loss is losses.causal_lm:
        values["is_decoder"] = True
    return AutoConfig.for_model(model_type, **(values | changes))


def random_checkpoint(
    folder: str | os.PathLike, class_name: str, config: Any, std: float = 0.2, seed: int = 0
) -> str | os.PathLike:
    """Write a PyTorch checkpoint in which every parameter is random.

    Hugging Face's own initial values (zero biases, unit norms, weights of 0.02) would hide a bias that is not used or a
    wrong GELU; normal noise of ``std`` is added to all of them.

    Args:
        folder: where to write.
        class_name: our class, such as ``"TFBertModel"``; PyTorch's is named the same without ``TF``.
        config: its config.
        std: standard deviation of the noise.
        seed: seed of the noise.

    Returns:
        ``folder``.
    """
    import torch
    import transformers

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = getattr(transformers, class_name.removeprefix("TF"))(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    model.float().save_pretrained(folder)
    return folder
