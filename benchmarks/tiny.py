"""Tiny configs of any architecture: the sizes in its default config made small, by the names that configs give them.

They let every architecture be tried in seconds. What is not a size (activations, position kinds, windows, routing)
stays as the architecture's default has it.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tf_pipeline.port.mappings import mapping

HIDDEN, HEADS, HEAD_SIZE, LAYERS, VOCABULARY, POSITIONS = 32, 4, 8, 2, 99, 64

# What a config value is made, by what its name says it is; the first pattern that matches counts.
_SIZES: tuple[tuple[str, Any], ...] = (
    (r"(^|_)vocab(ulary)?_size(_|$)", VOCABULARY),
    (r"^mamba_(n|num)_heads$", 8),
    (r"^mamba_(d_head|head_dim|headdim)$", 8),
    (r"^(num_key_value_heads|num_kv_heads|n_kv_heads|n_head_kv|multi_query_group_num|swa_num_key_value_heads)$", 2),
    (r"^num_(expert|node|n_)?_?groups?$|^n_group$|^topk_group$", 1),
    (r"^(num_experts_per_tok|num_experts_per_token|moe_topk|moe_k|top_k_experts|moe_top_k|num_selected_experts)$", 2),
    (r"^(num|n)_shared_experts?$|^moe_num_shared_experts$", 1),
    (r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_routed_experts|n_experts)$", 4),
    (r"^(q_lora_rank|kv_lora_rank|o_lora_rank)$", 16),
    (r"^(qk_rope_head_dim|rotary_dim)$", 4),
    (r"^(qk_head_dim|qk_nope_head_dim|v_head_dim|head_dim|global_head_dim|swa_head_dim|d_kv|kv_channels)$", HEAD_SIZE),
    (r"^(attention_head_size|linear_key_head_dim|linear_value_head_dim)$", HEAD_SIZE),
    (r"(^|_)(n|num)_?(attention_|linear_attention_|linear_(key_|value_)?)?heads?$|(^|_)attention_heads$", HEADS),
    (r"^(num_hidden_layers|n_layers?|num_layers|num_(de|en)coder_layers|(en|de)coder_layers)$", LAYERS),
    (r"^(hidden_size|d_model|n_embd|dim|d_embed|embed_dim|emb_dim|model_dim|cross_attention_hidden_size)$", HIDDEN),
    (r"(^|_)embedding_size$|^word_embed_proj_dim$|^d_embedding$", 16),
    (
        r"intermediate_size|ffn_dim|ffn_hidden_size|^(d_ff|n_inner|hidden_dim|d_inner|dff|feedforward_size|ffw_size)$",
        40,
    ),
    (r"^(max_position_embeddings|n_positions|max_(target|source)_positions|n_ctx|max_seq_len|block_size)$", POSITIONS),
    (r"^(sliding_window|attention_window|local_attention_window|window_size)$", 8),
    (r"(ssm_)?state_size$|^mamba_d_state$", 8),
)

# The same for sizes of each stage or layer: by the place of one.
_LISTS = {"conv_dim": lambda place: 16, "depths": lambda place: 1, "hidden_sizes": lambda place: 8 * (place + 1)}

_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
_SECTIONS = _ROTARY | {"mrope_section": [1, 1, 2]}

# What names alone do not tell.
_SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"],
                            "rope_parameters": {"sliding_attention": _ROTARY, "full_attention": _ROTARY}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"per_layer_config": {}, "head_dim": 12, "index_head_dim": HEAD_SIZE, "index_topk": 8},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "position_embedding_type": "rotary"},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_groups": 2},
    "fastspeech2_conformer": {"num_mel_bins": 8, "encoder_linear_units": 40, "decoder_linear_units": 40,
                              "speech_decoder_postnet_units": 16, "duration_predictor_channels": 16,
                              "energy_predictor_channels": 16, "pitch_predictor_channels": 16},
    "funnel": {"block_sizes": [1, 1], "n_head": HEADS, "d_head": HEAD_SIZE, "d_inner": 40},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4,
                     "num_kv_shared_layers": 2, "intermediate_size": [40] * 4, "laurel_rank": 8,
                     "activation_sparsity_pattern": [0.95, 0.0, 0.95, 0.0], "hidden_size_per_layer_input": 8},
    "glm4v_moe_text": {"rope_parameters": _SECTIONS | {"partial_rotary_factor": 1.0}},
    "glm4v_text": {"rope_parameters": _SECTIONS},
    "glm5_next_text": {"qk_rope_head_dim": 0, "head_dim": 0, "linear_head_dim": HEAD_SIZE, "linear_num_heads": HEADS,
                       "index_kpool": 4, "index_topk": 8},
    "glm_image_text": {"rope_parameters": _SECTIONS},
    "glm_ocr_text": {"rope_parameters": _SECTIONS},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hunyuan_vl_text": {"rope_parameters": _ROTARY | {"mrope_section": [1, 1, 1, 1]}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 4, "qk_head_dim": 12},
    "mamba2": {"num_heads": 8},
    "markuplm": {"max_depth": 4, "xpath_unit_hidden_size": 8, "max_xpath_tag_unit_embeddings": 20,
                 "max_xpath_subs_unit_embeddings": 20},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 8},
    "muse_spark_text": {"moe_hidden_size": 16},
    "nemotron": {"head_dim": HEAD_SIZE, "num_key_value_heads": 2},
    "pvt": {"num_attention_heads": [1, 2, 2, 4]},
    "qwen2_5_vl_text": {"rope_parameters": _SECTIONS},
    "qwen2_vl_text": {"rope_parameters": _SECTIONS},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": HEAD_SIZE, "indexer_budget": 8,
                       "indexer_compress_ratio": 4, "hc_lowrank": 8, "linear_num_key_heads": 2,
                       "linear_num_value_heads": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8]},
    "resnet": {"embedding_size": 8},
    "segformer": {"num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16},
    "squeezebert": {"embedding_size": HIDDEN},
    "swin": {"embed_dim": 8, "window_size": 7, "depths": [2, 2, 1, 1], "num_heads": [1, 2, 2, 4]},
    "tapas": {"num_aggregation_labels": 4},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": {"default_language": "en_XX"},
    "yolos": {"image_size": [64, 48]},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip

# Parts of a config that take more than text.
_OTHER_PARTS = {"vision_config", "audio_config", "codec_config", "text_encoder", "audio_encoder", "flow_head_config",
                "encoder_config", "model_config", "protein_encoder_config"}  # fmt: skip
_OTHER_INPUTS = {"pixel_values", "input_features", "input_values", "bbox", "image", "visual_feats", "input_audio",
                 "speaker_embeddings", "speaker_id", "xpath_tags_seq"}  # fmt: skip

# Architectures of images and sound whose body takes one simple input.
OTHER_TYPES = (
    "audio-spectrogram-transformer", "beit", "convnext", "data2vec-audio", "data2vec-vision", "deit", "dinov2",
    "hubert", "ijepa", "mobilenet_v2", "poolformer", "pvt", "resnet", "segformer", "swin", "unispeech", "vit",
    "vit_mae", "wav2vec2", "wavlm", "yolos",
)  # fmt: skip


def text_model_types() -> list[str]:
    """Every ``model_type`` of the installed ``transformers`` whose body reads token ids and nothing else."""
    return [name for name in mapping("MODEL_MAPPING_NAMES") if name in CONFIG_MAPPING and _reads_text(name)]


def _reads_text(model_type: str) -> bool:
    if _OTHER_PARTS & set(getattr(CONFIG_MAPPING[model_type], "sub_configs", None) or ()):
        return False
    try:
        names = set(inspect.signature(body_class(model_type).forward).parameters)
    except (AttributeError, ImportError):  # the architecture needs a library that is not there
        return False
    return "input_ids" in names and not _OTHER_INPUTS & names


def body_class(model_type: str) -> type:
    """PyTorch's class of the body."""
    return getattr(transformers, mapping("MODEL_MAPPING_NAMES")[model_type][0])


def tiny_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """A config of ``model_type`` whose model has some ten thousand parameters.

    Args:
        model_type: such as ``"xlnet"``.
        **changes: values to set on top.
    """
    config_class = CONFIG_MAPPING[model_type]
    values = _shrunk(config_class()) | _SPECIAL.get(model_type, {}) | changes
    return config_class(**values)


def _shrunk(config: PreTrainedConfig) -> dict[str, Any]:
    """The constructor arguments of ``config`` that are sizes, made small."""
    own = config.to_dict()
    values: dict[str, Any] = {}
    for name, value in own.items():
        if re.fullmatch(r"layer_types|layers_block_type|mlp_layer_types", name) and isinstance(value, list):
            kinds = list(dict.fromkeys(value))
            values[name] = (kinds * LAYERS)[: max(LAYERS, len(kinds))]
        elif name in _LISTS and isinstance(value, (list, tuple)):
            values[name] = [_LISTS[name](place) for place in range(len(value))]
        elif re.fullmatch(r"\w+_token_id", name) and isinstance(value, int):
            values[name] = value if value < VOCABULARY else 2
        elif (name == "head_dim" and value is None) or (isinstance(value, int) and not isinstance(value, bool)):
            values |= {name: small} if (small := _small(name)) is not None else {}
    values |= {name: _shrunk(part) for name, part in vars(config).items() if isinstance(part, PreTrainedConfig)}
    values |= _related(own, values)
    if config.is_encoder_decoder and own.get("decoder_start_token_id") is None:
        values["decoder_start_token_id"] = 2
    return values


def _related(own: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Sizes that go with others."""
    related: dict[str, Any] = {}
    if own.get("num_key_value_heads") == own.get("num_attention_heads") and "num_key_value_heads" in values:
        related["num_key_value_heads"] = HEADS
    if own.get("qk_rope_head_dim") is not None and own.get("head_dim") == own["qk_rope_head_dim"]:
        related["head_dim"] = values["qk_rope_head_dim"]
    for name in ("rope_parameters", "rope_scaling"):
        if "mrope_section" in (own.get(name) or {}):
            related[name] = own[name] | {"mrope_section": [1, 1, HEAD_SIZE // 2 - 2]}
    kinds = values.get("layer_types") or values.get("layers_block_type")
    if kinds:
        related |= {name: len(kinds) for name in ("num_hidden_layers", "n_layer", "num_layers") if name in values}
    return related


def _small(name: str) -> int | None:
    return next((small for pattern, small in _SIZES if re.search(pattern, name)), None)


def try_model(model_class: type, config: PreTrainedConfig) -> None:
    """Make a tiny PyTorch model and run it once.

    Raises:
        ValueError: if it is not tiny.
    """
    import torch

    from tf_pipeline.port.sample import sample_inputs

    with torch.device("meta"):
        parameters = sum(tensor.numel() for tensor in model_class._from_config(config).parameters())
    if parameters > 3_000_000:
        raise ValueError(f"its config has sizes of unknown names: {parameters:,} parameters are left")
    model = model_class._from_config(config).eval()
    with torch.no_grad():
        model(**sample_inputs(model, config), return_dict=True)
