"""A BERT body inside a functional Keras model of your own, next to another input, trained with ``fit``.

Whether a customer comes back depends on the words of a review and on how many days the parcel took. The data is made
up, and so is the vocabulary: the lower half of the ids praises, the upper half complains.

python examples/keras_body_in_your_model.py
"""

import keras
import numpy as np
from transformers import BertConfig

from tf_pipeline import TFBertModel

VOCABULARY, LENGTH, ROWS = 100, 12, 3000


def reviews(seed: int):
    """Token ids padded with 0, their mask, days in transit (standardised); whether the customer comes back."""
    random = np.random.default_rng(seed)
    mask = np.arange(LENGTH) < random.integers(4, LENGTH + 1, (ROWS, 1))
    ids = random.integers(1, VOCABULARY, (ROWS, LENGTH)) * mask
    days = random.normal(size=(ROWS, 1))
    praise = np.where(ids < VOCABULARY // 2, 1, -1) * mask
    returns = praise.mean(axis=1, keepdims=True) * 4 - days > 0
    return {"input_ids": ids, "attention_mask": mask.astype(int), "days": days}, returns.astype(int)


def build() -> keras.Model:
    """The body's mean hidden state next to the days, and dense layers on both."""
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    body = TFBertModel(config, add_pooling_layer=False, name="bert")  # or TFBertModel.from_pretrained(...)
    tokens = {name: keras.Input([None], dtype="int32", name=name) for name in ("input_ids", "attention_mask")}
    days = keras.Input([1], name="days")
    text = keras.layers.GlobalAveragePooling1D()(body(tokens).last_hidden_state, mask=tokens["attention_mask"])
    joined = keras.layers.Dense(32, activation="relu")(keras.layers.concatenate([text, days]))
    return keras.Model({**tokens, "days": days}, keras.layers.Dense(1, activation="sigmoid")(joined))


def main():
    keras.utils.set_random_seed(0)
    model = build()
    model.summary()
    model.compile(keras.optimizers.Adam(2e-3), "binary_crossentropy", metrics=["accuracy"])
    model.fit(*reviews(seed=1), epochs=4, batch_size=50, verbose=2)

    inputs, returns = reviews(seed=2)
    shuffled = inputs | {"days": np.random.default_rng(3).permutation(inputs["days"])}
    accuracy, without = (model.evaluate(x, returns, verbose=0)[1] for x in (inputs, shuffled))
    print(f"\nNew reviews: accuracy {accuracy:.3f}, {without:.3f} if the days are shuffled", end="")
    print(f", {max(returns.mean(), 1 - returns.mean()):.3f} for the more common answer.")
    assert accuracy > 0.9 > without


if __name__ == "__main__":
    main()
