"""Change the number of heads or layers in the config, keep the weights, and look at what comes out.

Question: Which values of a config can be changed once a model is trained?
"""

import numpy as np

from tf_pipeline import AutoConfig, AutoTokenizer, TFAutoModelForSequenceClassification
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

inputs = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)("What a lovely film.", return_tensors="tf")


def logits(**changes):
    """The logits of the bundled checkpoint under a changed config."""
    return TFAutoModelForSequenceClassification.from_pretrained(BUNDLED_CHECKPOINT, **changes)(**inputs).logits.numpy()


own = logits()
config = AutoConfig.from_pretrained(BUNDLED_CHECKPOINT)
print(f"as trained, {config.n_heads} heads and {config.n_layers} layers:", own)

# %% Heads cut the same vectors into other pieces: all weights still fit, nothing complains, the output is another
for heads in (1, 6, 24):
    print(f"{heads} heads:", logits(n_heads=heads), "the same shape, other numbers")
    assert logits(n_heads=heads).shape == own.shape and not np.allclose(logits(n_heads=heads), own, atol=1e-3)

# %% The vectors have to divide evenly
try:
    logits(n_heads=7)
except ValueError as error:
    print("7 heads:", error)

# %% Fewer layers: the last ones of the checkpoint are left out. More: the new ones start at random
print("1 layer:", logits(n_layers=1))
print("4 layers:", logits(n_layers=4))
assert not np.allclose(logits(n_layers=1), own, atol=1e-3)

# %% A width is another matter: the weights themselves have that size, so the checkpoint does not fit
try:
    logits(hidden_dim=1024)
except ValueError as error:
    print("hidden_dim=1024:", "\n".join(str(error).splitlines()[:2]))
else:
    raise AssertionError("a checkpoint of another width was accepted")
