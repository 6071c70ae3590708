"""Six labels instead of two: the body stays, the head starts again at random.

Question: How do I use a trained model for labels of my own?
"""

import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

labels = ["sadness", "joy", "love", "anger", "fear", "surprise"]
names = {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}
tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
inputs = tokenizer(["I love you.", "You scare me."], padding=True, return_tensors="tf")

# %% The head in the checkpoint has two rows; that it does not fit is an error unless one asks for a new one
try:
    TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT, **names)
except ValueError as error:
    print("Refused:", "\n".join(str(error).splitlines()[:2]))
else:
    raise AssertionError("a head of two labels was taken for one of six")

model, report = TFAutoModelForSequenceClassification.from_pretrained(
    BUNDLED_CHECKPOINT, ignore_mismatched_sizes=True, output_loading_info=True, **names
)
print(report)

# %% Six columns of logits, which mean nothing yet: all probabilities are near one sixth
logits = model(**inputs).logits.numpy()
probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
print(logits.shape, probabilities.round(3).tolist())
assert logits.shape == (2, 6) and abs(probabilities - 1 / 6).max() < 0.2

# %% A few steps of training on the head alone tell the two texts apart
model.distilbert.trainable = False
model.compile("adam")  # the head brings its own loss
model.optimizer.learning_rate = 1e-2
before = model.evaluate(dict(inputs), np.array([2, 4]), verbose=0)
model.fit(dict(inputs), np.array([2, 4]), epochs=30, verbose=0)
found = model.predict(dict(inputs), verbose=0).logits.argmax(axis=-1)
print("After training:", [model.config.id2label[int(index)] for index in found], "loss before", before)
assert found.tolist() == [2, 4]
