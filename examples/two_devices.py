"""Train on two devices, here two virtual ones of one CPU, and on one: the steps are the same."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

TEXTS = ["Good.", "Bad.", "A fine film.", "A dull film.", "I laughed.", "I slept.", "What a joy!", "What a bore!"]
tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
rows = dict(tokenizer(TEXTS, padding=True, return_tensors="np")) | {"labels": np.array([1, 0] * 4)}

weights = []
for strategy in (None, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)
        model.compile(keras.optimizers.SGD(1e-2))
    losses = model.fit(rows, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    print(f"{strategy.num_replicas_in_sync if strategy else 1} device(s), loss: {np.round(losses, 4).tolist()}")
    weights.append(model.classifier.kernel.numpy())

print("largest difference of the classifier:", np.abs(weights[0] - weights[1]).max())
assert model.dropout.rate == 0 or np.abs(weights[0] - weights[1]).max() < 0.1  # each device draws its own dropout
