"""Random inputs for a model: ids, masks padded on either side, types, labels."""

from typing import Any

import numpy as np

from tf_pipeline.heads import MULTIPLE_CHOICE, NEXT_SENTENCE_PREDICTION, head_of
from tf_pipeline.reference.inputs import padding_mask


def random_inputs(
    model, batch: int = 5, length: int = 13, padding: str | None = "right", labels: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """Inputs as NumPy arrays.

    Args:
        model: a model of this package.
        batch: number of rows.
        length: number of positions.
        padding: ``"right"`` or ``"left"`` for rows of different lengths, the first of them full; ``None`` for no mask.
        labels: whether to add the head's labels.
        seed: seed.
    """
    rng = np.random.default_rng(seed)
    config = model.config
    shape = (batch, length) if model.input_rank == 2 else (batch, 3, length)
    inputs = {"input_ids": rng.integers(2, config.vocab_size, shape)}
    if padding is not None:
        lengths = rng.integers(1, length + 1, shape[:-1])
        lengths[0] = length
        inputs["attention_mask"] = mask = padding_mask(lengths, length, padding)
        inputs["input_ids"] = np.where(mask, inputs["input_ids"], config.pad_token_id or 0)
    if "token_type_ids" in model.tensor_names:
        inputs["token_type_ids"] = random_types(model, shape, rng)
    if getattr(model, "reads_end_token", False):
        inputs["input_ids"] = _with_one_end(inputs, config.eos_token_id)
    if "mc_token_ids" in model.tensor_names:
        inputs["mc_token_ids"] = _places(inputs, rng)
    inputs |= decoder_inputs(model, batch, rng)
    if labels:
        inputs |= random_labels(model, inputs, rng)
    return inputs


def _with_one_end(inputs: dict[str, np.ndarray], end: int) -> np.ndarray:
    """Ids in which every row has the end of a text once, at its last token."""
    ids = np.where(inputs["input_ids"] == end, end + 1, inputs["input_ids"])
    mask = inputs.get("attention_mask", np.ones_like(ids))
    last = (mask * np.arange(1, ids.shape[1] + 1)).argmax(axis=1)
    ids[np.arange(len(ids)), last] = end
    return ids


def _places(inputs: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The place of a token of each text ``[...]``, of those that are not padding."""
    ids = inputs["input_ids"]
    return (inputs.get("attention_mask", np.ones_like(ids)) * rng.random(ids.shape)).argmax(axis=-1)


def random_types(model, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Types of tokens, int ``[*shape]``; an architecture without a table of them takes any.

    Of an architecture whose tokens have several types they are ``[*shape, types]``, of tables of few rows and columns.
    """
    sizes = getattr(model.config, "type_vocab_sizes", None)
    if sizes:
        return rng.integers(0, np.minimum(sizes, 4), (*shape, len(sizes)))
    return rng.integers(0, max(getattr(model.config, "type_vocab_size", 2), 1), shape)


def decoder_inputs(model, batch: int, rng: np.random.Generator, length: int = 7) -> dict[str, np.ndarray]:
    """Inputs of a sequence-to-sequence model's decoder; nothing if it has none, or reads the encoder's text."""
    if "decoder_input_ids" not in model.tensor_names or getattr(model, "reads_end_token", False):
        return {}
    return {
        "decoder_input_ids": rng.integers(2, model.config.get_text_config(decoder=True).vocab_size, (batch, length))
    }


def random_labels(model, inputs: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Labels for each of the head's label inputs; a third of token labels is -100."""
    shape = inputs.get("decoder_input_ids", inputs["input_ids"]).shape
    head = head_of(type(model).__name__)
    labels: dict[str, Any] = {}
    for name in model.label_names:
        if name.endswith("_positions"):
            labels[name] = rng.integers(0, shape[-1] + 2, shape[0])  # some beyond the end, which do not count
        elif head is not None and head.loss == "replaced_tokens":
            labels[name] = rng.integers(0, 2, shape)
        elif name.endswith("_label") or head is NEXT_SENTENCE_PREDICTION:
            labels[name] = rng.integers(0, 2, shape[0])  # of a pair of texts
        elif name == "mc_labels" or head is MULTIPLE_CHOICE:
            labels[name] = rng.integers(0, shape[1], shape[0])
        elif head is not None and head.task == "text-classification":
            labels[name] = text_labels(model, model.config.problem_type, shape[0], rng)
        else:
            classes = (
                model.config.num_labels
                if head is not None and head.task == "token-classification"
                else model.config.vocab_size
            )
            tokens = rng.integers(0, classes, shape)
            labels[name] = np.where(rng.random(shape) < 1 / 3, -100, tokens)
    return labels


def text_labels(model, problem_type: str | None, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Labels of texts for a ``problem_type``: classes ``[rows]``, or floats ``[rows, num_labels]``.

    Regression of one value takes ``[rows]`` floats. Without a type the labels are classes, or values if there is one.
    """
    count = model.config.num_labels
    if problem_type == "multi_label_classification":
        return rng.integers(0, 2, (rows, count)).astype(np.float32)
    if problem_type == "regression" or (problem_type is None and count == 1):
        return rng.normal(size=(rows, count) if count > 1 else rows).astype(np.float32)
    return rng.integers(0, count, rows)
