"""The word embeddings of a model and its scores over the vocabulary: find them, and give them more or fewer rows."""

import copy
from typing import Any

import keras
import numpy as np
from transformers import PreTrainedConfig

from tf_pipeline import checkpoint
from tf_pipeline.arguments import whole_number
from tf_pipeline.layers import Embedding, VocabularyProjector

# Variance of new rows around the mean of the old, as a part of that of the old rows: PyTorch's number.
_SPREAD = 1e-9


class VocabularyMixin:
    """Gives models access to what depends on the vocabulary. Mixed into :class:`~tf_pipeline.model.TFPreTrainedModel`.

    A ported model computes a graph and has no layers: change its vocabulary in PyTorch, and port the result.
    """

    def get_input_embeddings(self) -> Embedding:
        """The layer that looks up tokens: of an encoder–decoder, the encoder's.

        Raises:
            ValueError: for a ported model.
        """
        for _, slot in checkpoint.named_slots(self):
            if isinstance(slot.layer, Embedding):
                return slot.layer
        raise ValueError(
            f"{type(self).__name__} is ported and has no layers: change its embeddings in PyTorch, and port the result."
        )

    def set_input_embeddings(self, value: Any) -> None:
        """Give the word embeddings new values, and the model as many tokens as there are rows.

        Args:
            value: a layer of embeddings, or an array ``[tokens, dim]``.

        Raises:
            ValueError: for another shape, and for a ported model.
        """
        layer = self.get_input_embeddings()
        table = np.asarray(keras.ops.convert_to_numpy(getattr(value, "embeddings", value)))
        if table.ndim != 2 or table.shape[1] != layer.output_dim:
            raise ValueError(
                f"Embeddings of shape {list(table.shape)} do not fit {type(self).__name__}, which takes [tokens, "
                f"{layer.output_dim}]."
            )
        self.resize_token_embeddings(len(table))
        layer.embeddings.assign(table)

    def get_output_embeddings(self) -> Embedding | VocabularyProjector | None:
        """The layer whose weight scores the vocabulary, which may be one of word embeddings; ``None`` without a head.

        Raises:
            ValueError: for a ported model.
        """
        self.get_input_embeddings()
        layers = [layer for layer in self._flatten_layers() if isinstance(layer, VocabularyProjector)]
        if not layers:
            return None
        tables = [table for key, table in self.tied_weights().items() if key.endswith(f"{layers[0].name}.weight")]
        return dict(checkpoint.named_slots(self))[tables[0]].layer if layers[0].tied else layers[0]

    def tie_weights(self) -> None:
        """Do nothing: weights that the config ties are one variable from the start."""

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> Embedding:
        """Give every weight of the vocabulary another number of rows, and tell the config.

        These are the weights whose shapes differ between a model of the config and one of the new number. Rows that
        are there already keep their values. The model has to be compiled again, because its optimizer knows the
        variables of before.

        Args:
            new_num_tokens: the number of tokens; as many as there are if not given.
            pad_to_multiple_of: round the number up to a multiple of this.
            mean_resizing: draw new rows around the mean of the old ones, with a billionth of their covariance, as
                PyTorch does; with the layers' own initializers if false.

        Returns:
            The word embeddings.

        Raises:
            ValueError: for a number that is not positive, for a ported model, and for one with adapters.
        """
        layer = self.get_input_embeddings()
        size = layer.input_dim if new_num_tokens is None else whole_number("new_num_tokens", new_num_tokens, 1)
        if pad_to_multiple_of is not None:
            multiple = whole_number("pad_to_multiple_of", pad_to_multiple_of, 1)
            size = -(-size // multiple) * multiple
        if size != layer.input_dim:
            _resize(self, size, mean_resizing)
        return layer


def _resize(model: keras.Model, size: int, around_mean: bool) -> None:
    config = _resized_config(model.config, size)
    with checkpoint.deferred_variables():
        other = type(model)(config, dtype=model.dtype_policy)
    slots, others = dict(checkpoint.named_slots(model)), dict(checkpoint.named_slots(other))
    changed = [key for key, slot in slots.items() if slot.parameter.shape != others[key].parameter.shape]
    for key in changed:
        if getattr(slots[key].layer, "lora_enabled", False) or model.adapter_config():
            raise ValueError(
                f"{key} has a LoRA update of the old number of tokens: save_pretrained merges it; resize what it saves."
            )
    values = {key: slots[key].read() for key in changed}
    for key in changed:
        _start_again(slots[key], others[key].layer)
    checkpoint.create_variables(model)
    for key in changed:
        slot = slots[key] = checkpoint.Slot(slots[key].layer, others[key].parameter)
        value = _resized(values[key], slot.read(), around_mean)
        slot.variable.assign(value.T if slot.parameter.transpose else value)
    for key, value in _sizes(config).items():
        setattr(model.config, key, value)
    model.compiled = False
    model.forget_graphs()


def _sizes(config: PreTrainedConfig) -> dict[str, int]:
    """The values of a config that are numbers of tokens; encoder and decoder may have vocabularies of their own."""
    own = not getattr(config, "share_encoder_decoder_embeddings", True)
    names = ["vocab_size"] if own or not hasattr(config, "decoder_vocab_size") else ["vocab_size", "decoder_vocab_size"]
    return {name: getattr(config, name) for name in names}


def _resized_config(config: PreTrainedConfig, size: int) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    for name in _sizes(config):
        setattr(config, name, size)
    return config


def _start_again(slot: checkpoint.Slot, other: keras.layers.Layer) -> None:
    """Take the variable of a slot from its layer, which gets the sizes of another, as if it had not been built."""
    layer = slot.layer
    layer._untrack_variable(slot.variable)
    layer._tracker.unlock()
    for name, value in vars(other).items():
        if isinstance(value, (int, tuple)) and not name.startswith("_") and name != "built":
            setattr(layer, name, value)
    layer.built = False


def _resized(old: np.ndarray, new: np.ndarray, around_mean: bool) -> np.ndarray:
    """The rows of ``old``, and after them those of ``new``, or rows around the mean of the old."""
    kept = tuple(slice(min(sizes)) for sizes in zip(old.shape, new.shape, strict=True))
    result = new.copy()
    if around_mean and len(new) > len(old):
        result[len(old) :] = _around_mean(old.astype(np.float32), len(new) - len(old))
    result[kept] = old[kept]
    return result


def _around_mean(rows: np.ndarray, count: int) -> np.ndarray:
    """``count`` draws from a normal distribution with the mean of ``rows`` and a billionth of their covariance.

    Sums of the centered rows with independent normal weights have their covariance, times the number of rows.
    """
    mean = rows.mean(0)
    weights = keras.ops.convert_to_numpy(keras.random.normal([count, len(rows)]))
    return mean + np.tensordot(weights, rows - mean, 1) * np.sqrt(_SPREAD / len(rows))
