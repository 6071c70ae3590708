"""Fine-tune with the tools of Keras: early stopping, a training that can be interrupted, TensorBoard, less memory.

Question: Which of Keras' callbacks and optimizer arguments work with these models?
"""

import importlib.util
import tempfile
from pathlib import Path

import keras

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, create_optimizer
from tf_pipeline.callbacks import EpochOrder
from tf_pipeline.data import prepare
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

keras.utils.set_random_seed(0)

# %% Rows of a file: people rated sentences about films from -4 to 4
lines = Path(__file__).with_name("rated_films.tsv").read_text("utf-8").splitlines()
rated = [line.split("\t") for line in lines if not line.startswith("#")]
rows = [{"text": text, "label": "good" if float(rating) > 0 else "bad"} for rating, text in rated[:160]]

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(
    BUNDLED_CHECKPOINT, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}
)
train = prepare(rows[:128], model, tokenizer, batch_size=16, shuffle=True, seed=1)
check = prepare(rows[128:], model, tokenizer, batch_size=32)

# %% A rise and a fall of the rate, lower rates for lower layers, and two batches to a step
epochs = 3
optimizer, _ = create_optimizer(
    5e-4, num_train_steps=len(train) * epochs // 2, num_warmup_steps=2, weight_decay_rate=0.01, layer_decay=0.9,
    adam_global_clipnorm=1.0, gradient_accumulation_steps=2,
)  # fmt: skip
model.gradient_checkpointing_enable()  # activations of one layer at a time
model.compile(optimizer, metrics=["accuracy"], label_smoothing=0.1)

# %% Interrupted, the same script goes on behind the last epoch, with the order that the next one would have had
with tempfile.TemporaryDirectory() as folder:
    callbacks = [
        EpochOrder(train),
        keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
        keras.callbacks.BackupAndRestore(Path(folder, "backup")),
    ]
    if importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(Path(folder, "logs")))
    history = model.fit(
        train, validation_data=check, epochs=epochs, callbacks=callbacks, class_weight={0: 1.2}, verbose=0
    )

print({name: [round(value, 3) for value in values] for name, values in history.history.items()})
assert history.history["val_loss"][-1] < 0.9
