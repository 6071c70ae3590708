"""Configs drawn at random: a legal one gives PyTorch's numbers, any other a clear refusal."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import tf_pipeline
from parity_tests.checkpoint_helpers import new_folder
from parity_tests.families import MODELS, OWN_FAMILIES
from parity_tests.tiny import TINY_CONFIGS, tiny_config
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import widen_tables

pytestmark = pytest.mark.slow

DRAWS = 50  # of each family
LENGTH = 7

SIZES = {
    "vocab_size": (9, 31, 99),
    "hidden_size": (8, 16, 24, 32),
    "embedding_size": (8, 12, 24),
    "num_attention_heads": (1, 2, 4, 8),
    "intermediate_size": (1, 5, 37),
    "num_hidden_layers": (0, 1, 2, 3),
    "max_position_embeddings": (12, 16, 48),
    "type_vocab_size": (1, 2, 3),
    "pad_token_id": (0, 1, 2),
    "num_labels": (1, 2, 6),
    "chunk_size_feed_forward": (0, 1, 7),
}
ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "tanh", "gelu_pytorch_tanh", "quick_gelu", "mish", "swish", "linear")
FLAGS = ("is_decoder", "tie_word_embeddings", "output_hidden_states", "output_attentions", "use_cache")
COMMON = SIZES | {
    "hidden_act": ACTIVATIONS,
    "layer_norm_eps": (1e-12, 1e-5, 1e-2, 1.0),
    "initializer_range": (0.02, 1.0),
    "hidden_dropout_prob": (0.0, 0.5),
    "attention_probs_dropout_prob": (0.0, 0.5),
    "classifier_dropout": (None, 0.0, 0.3),
    "problem_type": (None, "regression", "single_label_classification", "multi_label_classification"),
    **dict.fromkeys(FLAGS, (True, False)),
}
# What a family has of its own; a value of None takes the common one away.
OWN = {
    "distilbert": {
        "dim": SIZES["hidden_size"], "n_heads": SIZES["num_attention_heads"], "n_layers": SIZES["num_hidden_layers"],
        "hidden_dim": SIZES["intermediate_size"], "activation": ("gelu", "relu", "silu"),
        "sinusoidal_pos_embds": (True, False), "seq_classif_dropout": (0.0, 0.5), "qa_dropout": (0.0, 0.5),
        **dict.fromkeys(("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "hidden_act",
                         "layer_norm_eps", "type_vocab_size", "embedding_size")),
    },
    "electra": {
        "summary_type": ("first", "last", "mean", "cls_index"), "summary_use_proj": (True, False),
        "summary_activation": ("tanh", "gelu", None), "summary_last_dropout": (0.0, 0.4),
    },
    "mpnet": {"relative_attention_num_buckets": (8, 32, 40), "type_vocab_size": None, "embedding_size": None},
    "albert": {
        "num_hidden_groups": (1, 2, 3), "inner_group_num": (1, 2, 3), "classifier_dropout_prob": (0.0, 0.4),
    },
    "deberta-v2": {
        "relative_attention": (True, False), "position_buckets": (-1, 4, 8), "max_relative_positions": (-1, 4, 16),
        "pos_att_type": (["p2c", "c2p"], ["c2p"], ["p2c"], [], "c2p|p2c", None), "norm_rel_ebd": ("layer_norm", "none"),
        "share_att_key": (True, False), "position_biased_input": (True, False), "conv_kernel_size": (0, 3, 5),
        "conv_act": ("gelu", "tanh"), "pooler_hidden_act": ("gelu", "tanh"), "type_vocab_size": (0, 1, 3),
        "legacy": (True, False), "num_hidden_layers": (1, 2, 3),
    },
    "modernbert": {
        "local_attention": (2, 6, 128), "global_attn_every_n_layers": (1, 2, 3), "mlp_bias": (True, False),
        "attention_bias": (True, False), "norm_bias": (True, False), "decoder_bias": (True, False),
        "classifier_pooling": ("cls", "mean"), "classifier_bias": (True, False), "norm_eps": (1e-12, 1e-2),
        "classifier_activation": ("gelu", "relu"), "hidden_activation": ("gelu", "silu", "relu"),
        "global_rope_theta": (10.0, 160000.0), "local_rope_theta": (10.0, 10000.0), "num_hidden_layers": (1, 2, 3),
        **dict.fromkeys(("hidden_act", "layer_norm_eps", "type_vocab_size", "embedding_size", "hidden_dropout_prob",
                         "attention_probs_dropout_prob")),
    },
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), {"embedding_size": None}),
}  # fmt: skip
_BOTH = (True, False)
_NOT_OF_DECODERS = dict.fromkeys(
    ("layer_norm_eps", "type_vocab_size", "embedding_size", "hidden_dropout_prob", "attention_probs_dropout_prob",
     "chunk_size_feed_forward", "is_decoder", "num_hidden_layers")
)  # fmt: skip
_LLAMA = _NOT_OF_DECODERS | {
    "num_attention_heads": (2, 4), "num_key_value_heads": (1, 2), "rms_norm_eps": (1e-12, 1e-2),
    "attention_dropout": (0.0, 0.4), "hidden_size": (16, 32),
}  # fmt: skip
_BIASES = {"attention_bias": _BOTH, "mlp_bias": _BOTH}
_GEMMA = _LLAMA | {
    "hidden_act": None, "hidden_activation": ("gelu_pytorch_tanh", "silu"), "query_pre_attn_scalar": (1, 9, 256),
    "final_logit_softcapping": (None, 1.0, 30.0), "attn_logit_softcapping": (None, 1.0, 50.0), "head_dim": (8, 12),
    "attention_bias": _BOTH, "sliding_window": (1, 3, 64), "use_bidirectional_attention": (False, None),
}  # fmt: skip
OWN |= {
    "gpt2": _NOT_OF_DECODERS | {
        "hidden_act": None, "intermediate_size": None, "activation_function": ACTIVATIONS, "n_inner": (None, 5, 37),
        "layer_norm_epsilon": (1e-12, 1e-2), "scale_attn_weights": _BOTH, "scale_attn_by_inverse_layer_idx": _BOTH,
        "resid_pdrop": (0.0, 0.4), "embd_pdrop": (0.0, 0.4), "attn_pdrop": (0.0, 0.4), "n_layer": (1, 2, 3),
        "hidden_size": None, "n_embd": (8, 16, 32), "num_attention_heads": None, "n_head": (1, 2, 4),
        "max_position_embeddings": None, "n_positions": (12, 48),
        "summary_type": ("cls_index", "first", "last", "mean"), "summary_use_proj": _BOTH,
        "summary_proj_to_labels": _BOTH, "summary_activation": (None, "tanh", "gelu"),
        "summary_first_dropout": (0.0, 0.4),
    },
    "llama": _LLAMA | _BIASES | {"head_dim": (None, 8, 12)},
    "mistral": _LLAMA | {"head_dim": (None, 8, 12), "sliding_window": (None, 1, 3, 64)},
    "qwen2": _LLAMA | {"sliding_window": (1, 3, 64), "use_sliding_window": _BOTH, "max_window_layers": (0, 1, 3)},
    "qwen3": _LLAMA | {
        "sliding_window": (1, 3, 64), "use_sliding_window": _BOTH, "head_dim": (8, 12), "attention_bias": _BOTH
    },
    "smollm3": _LLAMA | _BIASES | {
        "no_rope_layer_interval": (1, 2, 3), "use_sliding_window": _BOTH, "sliding_window": (3, 64)
    },
    "olmo2": _LLAMA | {"attention_bias": _BOTH},
    "phi3": _LLAMA | {"sliding_window": (None, 1, 3, 64), "resid_pdrop": (0.0, 0.4), "embd_pdrop": (0.0, 0.4)},
    "granite": _LLAMA | _BIASES | {
        "embedding_multiplier": (1.0, 12), "logits_scaling": (1.0, 8), "residual_multiplier": (0.2, 1),
        "attention_multiplier": (0.1, 1),
    },
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA | {"sliding_window_pattern": (1, 2, 3)},
    **dict.fromkeys(("t5", "mt5"), _NOT_OF_DECODERS | {
        "hidden_act": None, "hidden_size": None, "num_attention_heads": None, "intermediate_size": None,
        "initializer_range": None, "max_position_embeddings": None, "d_model": (8, 16, 32), "d_kv": (1, 4, 6),
        "d_ff": (1, 5, 37), "num_layers": (1, 2, 3), "num_decoder_layers": (1, 2, None), "num_heads": (1, 2, 4),
        "relative_attention_num_buckets": (8, 32), "relative_attention_max_distance": (9, 128),
        "layer_norm_epsilon": (1e-12, 1e-2), "dropout_rate": (0.0, 0.4), "initializer_factor": (0.1, 1.0),
        "feed_forward_proj": ("relu", "gated-gelu", "silu", "gated-silu"), "classifier_dropout": (0.0, 0.3),
    }),
    **dict.fromkeys(
        ("bart", "mbart", "marian", "pegasus", "blenderbot", "blenderbot-small", "m2m_100"), _NOT_OF_DECODERS | {
            "hidden_act": None, "hidden_size": None, "num_attention_heads": None, "intermediate_size": None,
            "initializer_range": None, "d_model": (8, 16, 32), "activation_function": ACTIVATIONS,
            "encoder_layers": (3, 4), "decoder_layers": (1, 2, 3), "encoder_attention_heads": (1, 2, 4),
            "decoder_attention_heads": (1, 2, 4), "encoder_ffn_dim": (1, 5, 37), "decoder_ffn_dim": (1, 5, 37),
            "encoder_layerdrop": (0.0, 0.5), "decoder_layerdrop": (0.0, 0.5), "scale_embedding": _BOTH,
            "dropout": (0.0, 0.4), "attention_dropout": (0.0, 0.4), "activation_dropout": (0.0, 0.4),
            "init_std": (0.02, 1.0),
        }
    ),
}  # fmt: skip
WRONG = (0, -1, -8, 3, 2.5, "4", "nonsense", None, True, [], {}, [1, 2], {"0": "a", "7": "b"}, float("nan"))
ALSO_WRONG = ("id2label", "label2id", "architectures", "dtype", "position_embedding_type", "add_cross_attention",
              "is_encoder_decoder", "attention_head_size", "rope_parameters", "layer_types")  # fmt: skip


def pool(family: str) -> dict[str, tuple]:
    """Legal values by key."""
    return {key: values for key, values in (COMMON | OWN[family]).items() if values is not None}


def drawn(family: str, rng: random.Random) -> tuple[str, dict]:
    """A class of a family, and what its config has in other than the tiny one's values."""
    legal = pool(family)
    changes = {key: rng.choice(legal[key]) for key in rng.sample(sorted(legal), rng.randint(1, 5))}
    if rng.random() < 0.4:
        changes[rng.choice((*sorted(legal), *ALSO_WRONG))] = rng.choice(WRONG)
    return rng.choice(MODELS[family]), changes


def written(family: str, class_name: str, changes: dict) -> Path:
    """A folder with the ``config.json``, as a file that someone else wrote."""
    values = TINY_CONFIGS[family] | {"is_decoder": getattr(tiny_config(family, class_name), "is_decoder", False)}
    if class_name.endswith(("QuestionAnswering", "ForPreTraining")):
        values = values | {"num_labels": 2}
    folder = new_folder()
    if "num_labels" in changes:
        values = values | {"id2label": None, "label2id": None}
        values = {key: value for key, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps({"model_type": family} | values | changes))
    return folder


def inputs_of(model, config, rng: random.Random) -> dict[str, np.ndarray]:
    """Ids of the vocabulary and a mask with a padded row."""
    shape = (2, LENGTH) if model.input_rank == 2 else (2, 2, LENGTH)
    generator = np.random.default_rng(rng.randrange(2**32))
    low = min(3, config.vocab_size - 1)
    mask = np.ones(shape, np.int64)
    mask[0, ..., LENGTH - 2 :] = 0
    inputs = {"input_ids": generator.integers(low, config.vocab_size, shape), "attention_mask": mask}
    if getattr(model, "reads_end_token", False):
        inputs["input_ids"][inputs["input_ids"] == config.eos_token_id] = 0
        inputs["input_ids"][:, -1] = config.eos_token_id
    elif "decoder_input_ids" in model.tensor_names:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, ::-2].copy()
    return inputs


def theirs(class_name: str, folder: Path, rank: int, rng: random.Random):
    """Inputs and PyTorch's outputs for random weights, which are saved to the folder; or its error."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, attn_implementation="eager")
        torch.manual_seed(rng.randrange(2**31))
        model = getattr(transformers, class_name.removeprefix("TF"))(config).double().eval()
        with torch.no_grad():
            for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
                parameter += 0.2 * torch.randn(parameter.shape, dtype=parameter.dtype)
        inputs = inputs_of(getattr(tf_pipeline, class_name), config, rng)
        widen_tables(model)
        given = {name: torch.tensor(value) for name, value in inputs.items()}
        with torch.no_grad(), lifted_upcasts(model):
            outputs = model(**given, output_hidden_states=True, output_attentions=True, return_dict=True)
        raw = (folder / "config.json").read_text()
        model.save_pretrained(folder)
        (folder / "config.json").write_text(raw)
        return inputs, outputs
    except Exception as error:
        return inputs_of(
            getattr(tf_pipeline, class_name), transformers.BertConfig(vocab_size=9, eos_token_id=3), rng
        ), error


def ours(class_name: str, folder: Path, inputs):
    """Our outputs, or our refusal."""
    try:
        if (folder / "model.safetensors").exists():
            model = getattr(tf_pipeline, class_name).from_pretrained(folder, dtype="float64")
        else:
            model = getattr(tf_pipeline, class_name)(tf_pipeline.AutoConfig.from_pretrained(folder), dtype="float64")
        return model(inputs, output_hidden_states=True, output_attentions=True, return_dict=True)
    except Exception as error:
        return error


def largest_difference(mine, other) -> float:
    """Of all tensors that both return, on the scale of each; infinity if one returns what the other does not."""
    known = {name: value for name, value in other.items() if name in type(mine).fields or name in mine}
    known = {
        name: value
        for name, value in known.items()
        if name != "past_key_values" and (name != "cross_attentions" or name in mine)
    }
    if set(mine) != set(known):
        return float("inf")
    worst = 0.0
    for name, value in known.items():
        pairs = list(zip(mine[name], value, strict=False)) if isinstance(value, tuple) else [(mine[name], value)]
        if isinstance(value, tuple) and len(mine[name]) != len(value):
            return float("inf")
        for one, two in pairs:
            one, two = np.asarray(one), two.numpy()
            if one.shape != two.shape or not np.array_equal(np.isnan(one), np.isnan(two)):
                return float("inf")
            worst = max(
                worst, float(np.nanmax(np.abs(one - two), initial=0) / max(1.0, np.nanmax(np.abs(two), initial=0)))
            )
    return worst


def verdict(changes: dict, here, there) -> str | None:
    """What is wrong about a draw, if anything is."""
    if isinstance(here, Exception):
        message = str(here)
        if not isinstance(here, (ValueError, TypeError)):
            return f"raw: {type(here).__name__}: {message:.300}"
        named = any(key in message or (isinstance(value, str) and value in message) for key, value in changes.items())
        if "\x1b" in message or "Exception encountered" in message or not named:
            return f"unclear: {type(here).__name__}: {message:.300}"
        if not isinstance(there, Exception) and not any(
            word in message for word in ("does not implement", "supported", "needs", "has to")
        ):
            return f"refused, but PyTorch runs it: {message:.300}"
        return None
    if "multiple of the chunk size" in str(there):
        return None  # which depends on the length of a text; here a text is never computed in chunks
    if isinstance(there, Exception):
        return f"runs, but PyTorch fails: {type(there).__name__}: {str(there):.200}"
    if (error := largest_difference(here, there)) > 1e-10:
        return f"differs by {error:.1e}"
    return None


@pytest.mark.parametrize("family", sorted(OWN_FAMILIES))
def test_drawn_configs(family, record_property):
    rng = random.Random(f"configs of {family}")
    wrong, counts, worst = [], {"equal": 0, "refused": 0}, 0.0
    for draw in range(DRAWS):
        class_name, changes = drawn(family, rng)
        folder = written(family, class_name, changes)
        rank = getattr(tf_pipeline, class_name).input_rank
        inputs, there = theirs(class_name, folder, rank, rng)
        here = ours(class_name, folder, inputs)
        if (what := verdict(changes, here, there)) is not None:
            wrong.append(f"draw {draw}, {class_name} {changes}: {what}")
        counts["refused" if isinstance(here, Exception) else "equal"] += 1
        if not isinstance(here, Exception) and not isinstance(there, Exception):
            worst = max(worst, largest_difference(here, there))
    record_property("parity", [f"{family}: configs drawn", DRAWS, len(wrong), worst, 0.0])
    assert not wrong, "\n".join(wrong)
    assert min(counts.values()) >= DRAWS // 10, counts  # both kinds were tried
