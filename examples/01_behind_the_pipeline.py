"""Take ``pipeline("sentiment-analysis")`` apart: tokenizer, model, post-processing.

Question: What happens between a text and its label?
"""

import tensorflow as tf

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

texts = ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"]
expected = pipeline("sentiment-analysis")(texts)
print("The pipeline says", expected)

# %% 1. The tokenizer turns texts into ids, and a mask that tells padding from tokens
tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="tf")
print(inputs["input_ids"].shape, tokenizer.convert_ids_to_tokens(inputs["input_ids"][1].numpy()))

# %% 2. The model turns ids into logits
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
logits = model(**inputs).logits
print(logits.shape, logits.numpy().round(2).tolist())

# %% 3. Post-processing turns logits into probabilities, and those into the names in the config
probabilities = tf.nn.softmax(logits, axis=-1)
labels = [model.config.id2label[index] for index in tf.argmax(probabilities, axis=-1).numpy()]
print(labels, tf.reduce_max(probabilities, axis=-1).numpy())

assert labels == [answer["label"] for answer in expected]
for answer, score in zip(expected, tf.reduce_max(probabilities, axis=-1).numpy(), strict=True):
    assert abs(answer["score"] - score) < 1e-5  # the pipeline's own answer
