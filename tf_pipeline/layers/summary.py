"""One vector for each text, of all the vectors of its tokens."""

import keras
import tensorflow as tf

from tf_pipeline.layers.activations import get_activation
from tf_pipeline.layers.core import Linear
from tf_pipeline.layers.dropout import Dropout


def _at(hidden_states: tf.Tensor, places: tf.Tensor | None) -> tf.Tensor:
    """``[..., seq, hidden]`` at places ``[...]``, or at the last token, to ``[..., hidden]``."""
    if places is None:
        return hidden_states[..., -1, :]
    return tf.gather(hidden_states, places, batch_dims=places.shape.rank)


class SequenceSummary(keras.layers.Layer):
    """One vector per text, projected (config: ``summary_type``, ``summary_use_proj``, ``summary_activation``, …).

    Of states ``[batch, choices, seq, hidden]``, ``"first"``, ``"last"`` and ``"mean"`` go by the second axis, which is
    that of the choices: PyTorch's do. ``"cls_index"`` goes by tokens.

    Raises:
        ValueError: for a ``summary_type`` that is not one of ``READERS``, which PyTorch refuses or fails on.
    """

    READERS = {
        "first": lambda hidden_states, places: hidden_states[:, 0],
        "last": lambda hidden_states, places: hidden_states[:, -1],
        "cls_index": _at,
        "mean": lambda hidden_states, places: tf.reduce_mean(hidden_states, axis=1),  # padding included
    }

    def __init__(self, config, dtype=None):
        super().__init__(dtype=dtype)
        if config.summary_type not in self.READERS:
            raise ValueError(f"summary_type {config.summary_type!r} is not one of {', '.join(self.READERS)}.")
        self.read = self.READERS[config.summary_type]
        self.summary = self.first_dropout = self.last_dropout = None
        if config.summary_use_proj:
            to_labels = getattr(config, "summary_proj_to_labels", False) and config.num_labels > 0
            size = config.num_labels if to_labels else config.hidden_size
            self.summary = Linear(config.hidden_size, size, config.initializer_range, dtype=dtype)
        self.activation = get_activation(config.summary_activation or "linear")
        if rate := getattr(config, "summary_first_dropout", 0.0):
            self.first_dropout = Dropout(rate, dtype=dtype)
        if rate := getattr(config, "summary_last_dropout", 0.0):
            self.last_dropout = Dropout(rate, dtype=dtype)

    def call(self, hidden_states, places=None, training=None):
        """``[..., seq, hidden]`` to the summaries; ``places`` ``[...]`` are those of ``"cls_index"``."""
        vectors = self.read(hidden_states, places)
        if self.first_dropout is not None:
            vectors = self.first_dropout(vectors, training=training)
        vectors = self.activation(vectors if self.summary is None else self.summary(vectors))
        return vectors if self.last_dropout is None else self.last_dropout(vectors, training=training)
