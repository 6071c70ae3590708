"""Sentences of unequal length in one batch, with the attention mask and without it.

Question: Why do the logits of a sentence change when it is padded?
"""

import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
texts = ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"]

# %% Rows of unequal length make no tensor
try:
    tokenizer(texts, return_tensors="tf")
except ValueError as error:
    print("Refused:", error)

# %% Each by itself: the truth to compare with
alone = np.concatenate([model(**tokenizer(text, return_tensors="tf")).logits for text in texts])
print("one by one:\n", alone)

# %% Padded to one length, without a mask: attention looks at the padding, and the shorter sentence comes out otherwise
batch = tokenizer(texts, padding=True, return_tensors="tf")
print("ids:\n", batch["input_ids"].numpy(), "\nmask:\n", batch["attention_mask"].numpy())
without = model(batch["input_ids"]).logits.numpy()
print("without the mask:\n", without, "\nlargest difference:", abs(without - alone).max())

# %% With the mask: the padding is not seen
masked = model(**batch).logits.numpy()
print("with the mask:\n", masked, "\nlargest difference:", abs(masked - alone).max())
assert np.allclose(masked, alone, atol=1e-5)
assert np.allclose(without[0], alone[0], atol=1e-5) and not np.allclose(without[1], alone[1], atol=1e-3)
