"""Fine-tune a model that answers with a number: how people rated a film review, from -4 to 4.

It learns from 400 sentences of rated_films.tsv and is judged by 200 others: how near its numbers are (the mean squared
error), and how well they keep the order (Pearson's correlation). The small encoder that comes with the package was
trained on the signs of such ratings. benchmarks/fine_tune.py does the same with a larger encoder, here and in PyTorch.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np

from tf_pipeline import AutoTokenizer, TFAutoModelForSequenceClassification, create_optimizer, pipeline
from tf_pipeline.data import prepare
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

keras.utils.set_random_seed(0)

# %% Rows whose labels are numbers with a fraction
lines = Path(__file__).with_name("rated_films.tsv").read_text("utf-8").splitlines()
pairs = [line.split("\t") for line in lines if not line.startswith("#")]
rows = [{"text": text, "label": float(rating)} for rating, text in pairs]
known, judged = rows[:400], rows[400:]

# %% One label makes it a regression: the loss is the mean squared error
tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
model = TFAutoModelForSequenceClassification.from_pretrained(
    BUNDLED_CHECKPOINT, num_labels=1, ignore_mismatched_sizes=True
)
batches = prepare(known, model, tokenizer, 16, shuffle=True, max_length=64)
epochs = 2
optimizer, _ = create_optimizer(5e-4, len(batches) * epochs, num_warmup_steps=10, weight_decay_rate=0.01)
model.compile(optimizer)
model.fit(batches, epochs=epochs, verbose=2)

# %% Numbers for sentences that it has not seen
truth = np.array([row["label"] for row in judged])
found = model.predict(prepare(judged, model, tokenizer, 16, max_length=64), verbose=0)["logits"][:, 0]
error, guess = np.mean((found - truth) ** 2), np.var(truth)
pearson = np.corrcoef(found, truth)[0, 1]
print(f"mean squared error {error:.2f} ({guess:.2f} of the mean of all ratings), Pearson {pearson:.2f}")
assert error < guess / 1.5 and pearson > 0.6

# %% What PyTorch and the pipeline load; a number is no probability, so that no function is applied to it
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rate = pipeline("text-classification", model=folder)
    for text in ("A lovely film, and very funny.", "It is neither good nor bad.", "A bad film."):
        print(f"{rate(text, function_to_apply='none')[0]['score']:5.2f}  {text}")
