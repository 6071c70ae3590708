"""A model takes several sequences at a time, even when there is only one.

Question: Why does the model refuse the ids that I made by hand?
"""

import numpy as np
import tensorflow as tf

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
text = "I've been waiting for a HuggingFace course my whole life."

# %% Tokens to ids by hand: a tensor of one axis
ids = tf.constant(tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)))
try:
    model(ids)
except ValueError as error:
    print(f"Shape {ids.shape} is refused: {error}")
else:
    raise AssertionError("a sequence without a batch dimension was accepted")

# %% The tokenizer adds the batch dimension, and the special tokens too
inputs = tokenizer(text, return_tensors="tf")
print("The tokenizer's shape:", inputs["input_ids"].shape)

# %% By hand it is one more axis in front
logits = model(tf.expand_dims(ids, axis=0)).logits
print("Logits without special tokens:", logits.numpy(), "with them:", model(**inputs).logits.numpy())
assert logits.shape == (1, 2)

# %% A batch of the same sequence twice gives the same row twice
twice = model(tf.stack([ids, ids])).logits.numpy()
print(twice)
assert np.allclose(twice, np.repeat(logits, 2, axis=0), atol=1e-5)
