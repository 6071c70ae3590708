"""Read all of a long document, in windows that overlap.

Question: Truncation throws text away. What if the answer is at the end?
"""

import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
text = "A dull and tedious film. " * 120 + "The end is wonderful, moving and beautiful! " * 60

# %% The tokenizer cuts windows of 128 tokens, each beginning 32 tokens before the last one ended
windows = tokenizer(
    text, truncation=True, max_length=128, stride=32, return_overflowing_tokens=True, return_offsets_mapping=True,
    padding=True,
)  # fmt: skip
spans = [(offsets[1][0], max(end for _, end in offsets)) for offsets in windows["offset_mapping"]]
print(len(spans), "windows; the first ones cover the characters", spans[:3])
assert spans[0][0] == 0 and spans[-1][1] == len(text.rstrip())
assert all(following[0] < this[1] for this, following in zip(spans, spans[1:], strict=False))

# %% They are a batch like any other
inputs = {name: np.array(windows[name]) for name in ("input_ids", "attention_mask")}
logits = model(inputs).logits.numpy()
probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
for (start, end), row in zip(spans, probabilities, strict=True):
    print(f"{start:5}-{end:5}  POSITIVE {row[1]:.2f}  {'#' * int(40 * row[1])}")
assert probabilities[0, 1] < 0.5 < probabilities[-1, 1]  # truncation would have seen the beginning alone

# %% How to join them depends on the task: here, the mean over the windows. Pipelines for entities (stride=...) and for
# questions (doc_stride=...) cut windows by themselves and give places in the whole text
print("mean over all windows: POSITIVE", probabilities[:, 1].mean().round(3))
