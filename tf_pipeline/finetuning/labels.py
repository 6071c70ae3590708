"""The labels that rows of classification have, which the config of a model has to name."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tf_pipeline.data.sources import Row

# More classes than this are taken for numbers that someone forgot to call so.
_MOST_CLASSES = 1000


def label_values(task: str, rows: Callable[[], Iterator[Row]], problem_type: str | None) -> dict[str, Any]:
    """The values of a config for the labels of rows.

    Args:
        task: ``"text-classification"`` or ``"token-classification"``; other tasks have no labels to name.
        rows: reads them.
        problem_type: of texts; guessed if not given: numbers with a fraction are regression, lists several labels.

    Returns:
        ``id2label``, ``label2id`` and ``problem_type``, or ``num_labels`` for numbers; nothing for other tasks.

    Raises:
        RowError: for a row whose label is of another kind than those before.
        ValueError: for too few or too many classes.
    """
    if task == "token-classification":
        return _named(label for row in rows() for label in row.get("labels", "tags", "ner_tags"))
    if task != "text-classification":
        return {}
    kind, length, labels = problem_type, 1, set()
    for row in rows():
        value = row.get("label", "labels")
        found = _kind(value)
        kind = kind or found
        if kind == "regression":
            length = len(value) if isinstance(value, list) else 1
            continue
        if (kind == "multi_label_classification") != isinstance(value, list) or found == "regression":
            raise row.error(
                f"has the label {value!r:.80}, which is not of {kind}, as those of the rows before are or "
                "--problem-type says"
            )
        labels.update(value if isinstance(value, list) else [value])
    if kind == "regression":
        return {"num_labels": length, "problem_type": kind}
    return _named(labels, 1 if kind == "multi_label_classification" else 2) | {"problem_type": kind}


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return "regression"
    return "multi_label_classification" if isinstance(value, list) else "single_label_classification"


def _named(found: Iterable[Any], least: int = 2) -> dict[str, Any]:
    """Names of labels in a fixed order: numbers by value, ``O`` before the tags of entities."""
    labels = set(found)
    if all(isinstance(label, int) or str(label).isdecimal() for label in labels):
        names = [f"LABEL_{place}" for place in range(max(map(int, labels), default=0) + 1)]
    else:
        names = sorted(map(str, labels), key=lambda name: (name != "O", name))
    if not least <= len(names) <= _MOST_CLASSES:
        classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
        raise ValueError(
            f"The rows have {classes}, and a classifier needs from {least} to {_MOST_CLASSES}; numbers are predicted "
            "with --problem-type regression."
        )
    return {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}


def fitting(values: dict[str, Any], config: Any) -> dict[str, Any]:
    """The values to load a checkpoint with: its own labels stay where they name all that the rows have.

    Labels that are numbers are those of a checkpoint with as many labels.
    """
    own, names = list(config.label2id or ()), list(values.get("label2id", ()))
    numbered = all(name.startswith("LABEL_") for name in names) and len(names) == len(own)
    if names and (numbered or set(names) <= set(own)):
        return {name: value for name, value in values.items() if name == "problem_type"}
    return values
