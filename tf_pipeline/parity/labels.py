"""Labels for every head and every kind of loss, with those among them that do not count."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tf_pipeline import losses
from tf_pipeline.heads import head_of
from tf_pipeline.parity.inputs import random_labels, text_labels

# Fewest rows that labels are for: one of them may be ignored, and the mean of the others is still a mean.
ROWS = 4


class Labelled(NamedTuple):
    """Inputs with labels, and the values of the config that go with them."""

    inputs: dict[str, np.ndarray]
    config: dict[str, Any]


def labelled_settings(model, inputs: Mapping[str, np.ndarray], without_mask: bool = True) -> dict[str, Labelled]:
    """Labels of every kind that the model's head takes, by name of the setting; the config's own kind comes first.

    Args:
        model: one of our models.
        inputs: its inputs; their rows are repeated if there are fewer than ``ROWS``.
        without_mask: whether to add the first kind without an attention mask.
    """
    rng = np.random.default_rng(1)
    inputs = {name: value[np.arange(max(len(value), ROWS)) % len(value)] for name, value in inputs.items()}
    head = head_of(type(model).__name__)
    if head is not None and head.task == "text-classification":
        settings = {
            name: Labelled(inputs | {"labels": _with_ignored(labels)}, {"problem_type": kind})
            for name, (kind, labels) in _kinds_of_text_labels(model, len(inputs["input_ids"]), rng).items()
        }
    else:
        labels = with_edge_cases(model, inputs, random_labels(model, inputs, rng))
        settings = {"labels": Labelled(inputs | labels, {})}
    if not without_mask:
        return settings
    # Padding is seen then, so that training on it by mistake shows.
    name, (labelled, changes) = next(iter(settings.items()))
    bare = {key: value for key, value in labelled.items() if key != "attention_mask"}
    return settings | {f"{name}, no attention_mask": Labelled(bare, changes)}


def _kinds_of_text_labels(model, rows: int, rng: np.random.Generator) -> dict[str, tuple[str | None, np.ndarray]]:
    """``problem_type`` and labels by name: each type that the number of labels allows, and those that are guessed."""
    several = model.config.num_labels > 1
    names = dict(zip(losses.PROBLEM_TYPES, ("regression", "class labels", "multi-label"), strict=True))
    if not several:
        del names["single_label_classification"]  # which configs refuse then
    kinds = {name: (kind, text_labels(model, kind, rows, rng)) for kind, name in names.items()}
    kinds["kind guessed"] = (None, text_labels(model, None, rows, rng))
    if several:
        kinds["kind guessed from floats"] = (
            None,
            rng.dirichlet(np.ones(model.config.num_labels), rows).astype(np.float32),
        )
    return dict(sorted(kinds.items(), key=lambda kind: kind[1][0] != model.config.problem_type))


def with_edge_cases(model, inputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Labels of four rows or more that hold what counts for nothing, or for something else than it looks like.

    Positions at the end of the sequence and past it are ignored, and negative ones are taken for the first token. Of
    labels of tokens per row, and one label of a text, is -100; ids of padding count.
    """
    length = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[-1]
    cases = {}
    for place, (name, value) in enumerate(labels.items()):
        if name.endswith("_positions"):
            edges = np.roll([length, -1, length + 5, length - 1], place)
            cases[name] = np.concatenate([edges, value[ROWS:]])
        elif model.task_loss is losses.replaced_tokens:
            cases[name] = value
        else:
            cases[name] = _with_ignored(value)
            if value.ndim == 2:
                pad = getattr(model.config, "pad_token_id", None) or 0
                kept = [label for label in (0, pad) if label <= value.max()][:length]
                cases[name][0, : len(kept)] = kept
    return cases


def all_ignored(labels: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray] | None:
    """The same labels, none of which counts; ``None`` where every label counts whatever it is."""
    if any(not np.issubdtype(value.dtype, np.integer) for value in labels.values()):
        return None
    return {
        name: np.full_like(value, length if name.endswith("_positions") else losses.IGNORE_INDEX)
        for name, value in labels.items()
    }


def _with_ignored(labels: np.ndarray) -> np.ndarray:
    """Labels of which the last row does not count, if they are integers."""
    labels = labels.copy()
    if np.issubdtype(labels.dtype, np.integer):
        labels[-1] = losses.IGNORE_INDEX
    return labels


@contextlib.contextmanager
def configured(changes: Mapping[str, Any], *models) -> Iterator[None]:
    """Let models of either framework have other config values, and forget the kind of problem that PyTorch guesses."""
    own = [{name: getattr(model.config, name, None) for name in changes} for model in models]
    try:
        for model in models:
            _set(model.config, changes)
        yield
    finally:
        for model, values in zip(models, own, strict=True):
            _set(model.config, values)


def _set(config, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(config, name, value)
