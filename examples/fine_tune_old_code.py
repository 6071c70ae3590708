"""Fine-tune a classifier with code of ``transformers`` 4 for TensorFlow, whose imports alone have changed.

A few sentences about the weather and about food are told apart; then the model is saved, loaded again and asked.
"""

import tempfile

import keras
import numpy as np

from tf_pipeline import (
    AutoTokenizer,
    DataCollatorWithPadding,
    KerasMetricCallback,
    TFAutoModelForSequenceClassification,
    create_optimizer,
    pipeline,
)
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

keras.utils.set_random_seed(0)

WEATHER = [
    "It rains all day.", "The sun is out.", "Snow fell in the night.", "A cold wind blows.", "The sky is grey.",
    "We had a storm.", "It is hot outside.", "Fog hides the hills.", "The rain has stopped.", "Tomorrow it will snow.",
]  # fmt: skip
FOOD = [
    "The soup is salty.", "We had bread and cheese.", "This cake is sweet.", "I cooked rice.", "The apples are ripe.",
    "Dinner is ready.", "He fried two eggs.", "The tea is too strong.", "They eat no meat.", "Lunch was a salad.",
]  # fmt: skip

# %% Rows: ids of the tokens, and a label
tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
encoded = tokenizer(WEATHER + FOOD, truncation=True)
rows = [
    {"input_ids": ids, "attention_mask": mask, "label": int(place >= len(WEATHER))}
    for place, (ids, mask) in enumerate(zip(encoded["input_ids"], encoded["attention_mask"], strict=True))
]

# %% A trained body with a new head
model = TFAutoModelForSequenceClassification.from_pretrained(
    BUNDLED_CHECKPOINT, id2label={0: "weather", 1: "food"}, label2id={"weather": 0, "food": 1}
)

# %% Batches, optimizer and metric
collator = DataCollatorWithPadding(tokenizer=tokenizer, return_tensors="tf")
train = model.prepare_tf_dataset(rows, batch_size=4, shuffle=True, collate_fn=collator, seed=1)
check = model.prepare_tf_dataset(rows, batch_size=8, shuffle=False, collate_fn=collator)
epochs = 6
optimizer, schedule = create_optimizer(
    init_lr=2e-3, num_warmup_steps=3, num_train_steps=len(train) * epochs, weight_decay_rate=0.01
)


def accuracy(predictions):
    logits, labels = predictions
    return {"accuracy": float(np.mean(np.argmax(logits, axis=-1) == labels))}


# %% No loss is given, so that the model computes its own
model.compile(optimizer=optimizer)
history = model.fit(train, epochs=epochs, callbacks=[KerasMetricCallback(accuracy, check)], verbose=0).history
print("loss:", np.round(history["loss"], 3).tolist())
print("accuracy:", history["accuracy"])
assert history["accuracy"][-1] > 0.9

# %% What is saved is what PyTorch and the pipeline load
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    answers = pipeline("text-classification", model=folder)(["It will rain.", "The bread is fresh."])
print(answers)
assert len(answers) == 2
