"""Make ``h5.zip``: checkpoints as version 4 of ``transformers`` saved them for TensorFlow, with what they compute.

Run in an environment of its own: transformers 4.57.1, TensorFlow 2.19, tf-keras 2.19.
"""

import os
import sys
import zipfile
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import transformers

ENCODER = {
    "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16,
}  # fmt: skip
SEQ_TO_SEQ = {
    "vocab_size": 30, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 16,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
T5 = {"vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2}
SMALL = ENCODER | {"embedding_size": 6}
CASES = {
    "TFAlbertForMaskedLM": SMALL, "TFAlbertForSequenceClassification": SMALL,
    "TFBartForConditionalGeneration": SEQ_TO_SEQ, "TFBertForMaskedLM": ENCODER, "TFBertForMultipleChoice": ENCODER,
    "TFBertForPreTraining": ENCODER, "TFBertForQuestionAnswering": ENCODER, "TFBertForSequenceClassification": ENCODER,
    "TFBertModel": ENCODER, "TFCamembertForMaskedLM": ENCODER,
    "TFDebertaV2ForSequenceClassification": ENCODER | {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
        "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 4,
    },
    "TFDistilBertForMaskedLM": {
        "vocab_size": 30, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 16,
    },
    "TFElectraForMaskedLM": SMALL, "TFElectraForPreTraining": SMALL, "TFElectraForSequenceClassification": SMALL,
    "TFGPT2DoubleHeadsModel": {"vocab_size": 30, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16},
    "TFGPT2ForSequenceClassification": {"vocab_size": 30, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16,
                                        "pad_token_id": 0},
    "TFGPT2LMHeadModel": {"vocab_size": 30, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16},
    "TFMBartForConditionalGeneration": SEQ_TO_SEQ, "TFMPNetForMaskedLM": ENCODER,
    "TFMT5ForConditionalGeneration": T5, "TFMarianMTModel": SEQ_TO_SEQ,
    "TFMistralForCausalLM": ENCODER | {"num_key_value_heads": 1}, "TFPegasusForConditionalGeneration": SEQ_TO_SEQ,
    "TFRobertaForMaskedLM": ENCODER, "TFRobertaForSequenceClassification": ENCODER,
    "TFT5ForConditionalGeneration": T5, "TFXLMRobertaForTokenClassification": ENCODER,
    "TFXLNetForSequenceClassification": {"vocab_size": 30, "d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 12},
}  # fmt: skip
SHARDED = ("TFBertForMaskedLM", "TFT5ForConditionalGeneration")


def main(folder: Path) -> None:
    """Save each in a folder, and all folders in an archive."""
    tf.random.set_seed(0)
    drawn = np.random.default_rng(0)
    for name, values in CASES.items():
        model_class = getattr(transformers, name)
        model = model_class(model_class.config_class(**values))
        ids = drawn.integers(3, 30, (2, 6))
        has_choices = name.endswith(("MultipleChoice", "DoubleHeadsModel"))
        inputs = {"input_ids": ids[:, None].repeat(3, 1) if has_choices else ids}
        if name.endswith("DoubleHeadsModel"):
            inputs["mc_token_ids"] = drawn.integers(0, 6, (2, 3))
        if values in (SEQ_TO_SEQ, T5):
            inputs["decoder_input_ids"] = drawn.integers(3, 30, (2, 4))
        model(inputs)
        for weight in model.weights:
            if weight.dtype.is_floating:
                weight.assign_add(0.2 * tf.random.normal(weight.shape))
        outputs = {key: value.numpy() for key, value in model(inputs).items() if tf.is_tensor(value)}
        for place, size in ((name, "1GB"), *([(f"{name} sharded", "1KB")] * (name in SHARDED))):
            model.save_pretrained(folder / place, max_shard_size=size)
            np.savez(folder / place / "inputs.npz", **inputs)
            np.savez(folder / place / "outputs.npz", **outputs)
    with zipfile.ZipFile("h5.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(folder.glob("*/*")):
            archive.write(path, path.relative_to(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
