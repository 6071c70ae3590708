"""Build a Keras model that takes strings, save it as one file, and tokenize in ``tf.data``."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline import TFAutoModelForSequenceClassification, TFTokenizer, pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

TEXTS = ["A wonderful film.", "I hate this so much!", "The plot is thin, but the actors are good."]

tokenize = TFTokenizer.from_pretrained(BUNDLED_CHECKPOINT, truncation=True, max_length=128)
batches = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2).map(tokenize)
print("batches:", [batch["input_ids"].shape.as_list() for batch in batches])

text = keras.Input([], dtype="string")
logits = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)(tokenize(text)).logits
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "strings_in.keras")
    keras.Model(text, keras.layers.Softmax()(logits)).save(path)
    loaded = keras.models.load_model(path)
scores = loaded(tf.constant(TEXTS)).numpy()[:, 1]
print("positive:", np.round(scores, 4).tolist())

answers = pipeline("text-classification", model=BUNDLED_CHECKPOINT)(TEXTS, top_k=None)
expected = [next(one["score"] for one in answer if one["label"] == "POSITIVE") for answer in answers]
np.testing.assert_allclose(scores, expected, atol=1e-5)
