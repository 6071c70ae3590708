"""Keep the weights of a model as integers of 8 or 4 bits, save it, and see how much smaller and how near it is."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

TEXTS = ["A wonderful film.", "I hate this so much!", "The plot is thin, but the actors are good.", "Never again."]

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="tf"))
sizes, scores = {}, {}
with tempfile.TemporaryDirectory() as folder:
    for mode in (None, "int8", "int4"):
        model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
        if mode:
            model.quantize(mode)
        path = Path(folder, f"{mode}.keras")
        model.save(path)
        sizes[mode] = path.stat().st_size
        loaded = keras.models.load_model(path)
        scores[mode] = keras.ops.convert_to_numpy(keras.ops.softmax(loaded(inputs).logits))[:, 1]
        print(f"{mode or 'float32'}: {sizes[mode]:,} bytes, positive: {np.round(scores[mode], 3).tolist()}")

assert sizes["int8"] < 0.35 * sizes[None] and sizes["int4"] < 0.25 * sizes[None]
assert np.abs(scores["int8"] - scores[None]).max() < 0.1
