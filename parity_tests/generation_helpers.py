"""Pairs of models, ours and PyTorch's, and prompts for them."""

from functools import cache

import numpy as np
import torch
import transformers

import tf_pipeline
from parity_tests.port_helpers import checkpoint, shared_cache

IDS = np.array([[0, 0, 0, 11, 12], [21, 22, 23, 24, 25], [0, 31, 32, 33, 34]])
MASK = (IDS != 0).astype(np.int64)
ENDS = [9, 2, 33]
CAUSAL, SEQ_TO_SEQ = "TFAutoModelForCausalLM", "TFAutoModelForSeq2SeqLM"
KINDS = dict.fromkeys(("gpt2", "llama", "mistral", "gemma3_text", "gpt_neo"), CAUSAL)
KINDS |= dict.fromkeys(("t5", "bart", "mbart", "m2m_100", "marian", "plbart"), SEQ_TO_SEQ)


@cache
def pair(model_type: str, dtype: str = "float32"):
    """Our model and PyTorch's of a tiny checkpoint; shared, so nobody changes them."""
    shared_cache()
    folder = checkpoint(model_type, KINDS[model_type])
    ours = getattr(tf_pipeline, KINDS[model_type]).from_pretrained(folder, dtype=dtype)
    torch_class = getattr(transformers, type(ours).__name__.removeprefix("TF"))
    return ours, torch_class.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def generate(model, ids=IDS, mask=MASK, **options):
    """What ``generate`` of either library returns."""
    if isinstance(model, torch.nn.Module):
        return model.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), **options)
    return model.generate(ids, attention_mask=mask, **options)


def assert_same(model_type: str, dtype: str = "float32", ids=IDS, mask=MASK, **options) -> np.ndarray:
    """Require the same tokens of both libraries, and return them."""
    ours, theirs = pair(model_type, dtype)
    written = generate(ours, ids, mask, **options).numpy()
    np.testing.assert_array_equal(written, generate(theirs, ids, mask, **options).numpy(), err_msg=str(options))
    return written
