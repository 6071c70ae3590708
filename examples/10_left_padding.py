"""Padding in front instead of behind.

Question: Does it matter on which side a batch is padded?
"""

import numpy as np
import tensorflow as tf

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
texts = ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"]

# %% The side is a choice of each call
right = tokenizer(texts, padding=True, padding_side="right", return_tensors="tf")
left = tokenizer(texts, padding=True, padding_side="left", return_tensors="tf")
print("right:\n", right["input_ids"].numpy(), "\nleft:\n", left["input_ids"].numpy())

# %% A classifier reads the first token. With padding in front that is padding, so the logits are others
expected = model(**right).logits.numpy()
print("right:\n", expected, "\nleft:\n", model(**left).logits.numpy())
assert not np.allclose(model(**left).logits, expected, atol=1e-2)

# %% The hidden states of the tokens are what they were, once positions count tokens rather than places
positions = tf.maximum(tf.cumsum(left["attention_mask"], axis=1) - 1, 0)
print("positions:\n", positions.numpy())
shifted = model.distilbert(**left, position_ids=positions).last_hidden_state.numpy()
plain = model.distilbert(**right).last_hidden_state.numpy()
for row in range(2):
    own = right["attention_mask"].numpy()[row].astype(bool), left["attention_mask"].numpy()[row].astype(bool)
    print("text", row, "largest difference:", abs(plain[row][own[0]] - shifted[row][own[1]]).max())
    assert np.allclose(plain[row][own[0]], shifted[row][own[1]], atol=1e-4)

# %% So: pad behind for encoders like this one; in front for models that continue a text, which read its last token
