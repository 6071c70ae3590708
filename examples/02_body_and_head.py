"""A body gives hidden states, a head turns them into an answer; the same body serves many heads.

Question: What is the difference between ``TFAutoModel`` and ``TFAutoModelForSequenceClassification``?
"""

import numpy as np

from tf_pipeline import (
    AutoTokenizer,
    TFAutoModel,
    TFAutoModelForSequenceClassification,
    TFAutoModelForTokenClassification,
)
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

inputs = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)("A lovely film.", return_tensors="tf")

# %% The body: one vector for each token
body = TFAutoModel.from_pretrained(BUNDLED_CHECKPOINT)
hidden = body(**inputs).last_hidden_state
print("body:", list(body(**inputs)), hidden.shape, f"{body.num_parameters():,} parameters")

# %% Body and head: one row of logits for the text
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
logits = model(**inputs).logits
in_the_head = model.num_parameters() - body.num_parameters()
print("text classification:", logits.shape, f"{in_the_head:,} parameters in the head")

# %% The head is small enough to compute by hand, from the vector of the first token
first = hidden[:, 0]
by_hand = model.classifier(np.maximum(model.pre_classifier(first), 0))
print("by hand:", by_hand.numpy().round(4).tolist(), "by the model:", logits.numpy().round(4).tolist())
assert np.allclose(by_hand, logits, atol=1e-5)

# %% Another head on the same body: logits for each token. It is not in the checkpoint, so it starts at random
tagger = TFAutoModelForTokenClassification.from_pretrained(
    BUNDLED_CHECKPOINT, num_labels=9, ignore_mismatched_sizes=True
)
print("token classification:", tagger(**inputs).logits.shape)
assert tagger(**inputs).logits.shape == (1, hidden.shape[1], 9)
