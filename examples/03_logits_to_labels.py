"""From logits through softmax to labels, and what the other activations say.

Question: The model gives numbers such as 1.2 and -0.8. How do they become 88% POSITIVE?
"""

import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

texts = ["A lovely film.", "I hate this so much!", "It has a beginning and an end."]
tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
logits = model(**tokenizer(texts, padding=True, return_tensors="tf")).logits.numpy()
print("logits\n", logits.round(3))

# %% Logits are scores without a scale: adding the same number to all of a row changes nothing that follows
exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
print("softmax\n", probabilities.round(3), "\neach row sums to", probabilities.sum(axis=-1))

# %% The config says what the columns are called
for text, row in zip(texts, probabilities, strict=True):
    print(f"{model.config.id2label[int(row.argmax())]} {row.max():.3f}  {text}")

# %% The pipeline can leave the activation out, or score every label by itself
pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
for function in ("softmax", "sigmoid", "none"):
    print(f"{function:8}", pipe(texts[0], top_k=None, function_to_apply=function))

assert np.allclose([answer["score"] for answer in pipe(texts)], probabilities.max(axis=-1), atol=1e-5)
assert np.allclose(pipe(texts[0], top_k=1, function_to_apply="none")[0]["score"], logits[0].max(), atol=1e-4)
