"""Train two LoRA adapters on one model, store them alone, and switch between them.

One tells sentences about the weather from sentences about food, the other statements from questions.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

keras.utils.set_random_seed(0)

WEATHER = ["It rains all day.", "Is the sun out?", "Snow fell at night.", "Does a cold wind blow?", "The sky is grey."]
FOOD = ["The soup is salty.", "Is there bread?", "This cake is sweet.", "Who cooked the rice?", "Dinner is ready."]
TEXTS = WEATHER + FOOD
TASKS = {
    "topic": [int(text in FOOD) for text in TEXTS],
    "question": [int(text.endswith("?")) for text in TEXTS],
}

tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="tf"))
model = TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT)

# %% One adapter for each task; the rest of the model is frozen
for task, labels in TASKS.items():
    model.enable_lora(4, "all-linear", alpha=8, adapter_name=task)
    model.print_trainable_parameters()
    model.compile(keras.optimizers.Adam(5e-3))
    losses = model.fit(inputs, np.array(labels), epochs=30, verbose=0).history["loss"]
    print(task, "loss:", np.round(losses[:: len(losses) - 1], 3).tolist())

# %% Stored alone, loaded into the model as it was, and switched: graphs follow
with tempfile.TemporaryDirectory() as folder:
    for task in TASKS:
        model.save_adapter(Path(folder, task), task)
    size = sum(path.stat().st_size for path in Path(folder, "topic").iterdir())
    print(f"an adapter takes {size:,} bytes, the model {4 * model.num_parameters():,}")
    pipe = pipeline("text-classification", model=BUNDLED_CHECKPOINT)
    for task in TASKS:
        pipe.model.load_adapter(Path(folder, task), adapter_name=task)

names = [pipe.model.config.id2label[label] for label in (0, 1)]
for task, labels in TASKS.items():
    pipe.model.set_adapter(task)
    answers = [names.index(answer["label"]) for answer in pipe(TEXTS)]
    print(task, "right:", sum(np.equal(answers, labels)), "of", len(labels))
    assert answers == labels
