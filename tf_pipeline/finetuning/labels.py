"""The labels that rows of classification have, which the config of a model has to name."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tf_pipeline.data.sources import Row
from tf_pipeline.data.tasks import is_number

# More distinct labels than this are probably numbers to predict.
_MOST_CLASSES = 1000
# A number with a fraction, as files of text hold it.
_FRACTION = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?")


def class_names(data: Any) -> Sequence[str] | None:
    """Names of the classes that ``datasets.Dataset`` keeps for the numbers in its labels."""
    features = getattr(data, "features", None)
    features = features if isinstance(features, Mapping) else {}  # a DataFrame may have such a column
    for name in ("label", "labels", "tags", "ner_tags"):
        feature = features.get(name)
        if names := getattr(getattr(feature, "feature", feature), "names", None):
            return list(names)
    return None


def label_values(
    task: str,
    rows: Callable[[], Iterator[Row]],
    problem_type: str | None,
    names: Sequence[str] | None = None,
    known: Sequence[str] = (),
) -> dict[str, Any]:
    """The values of a config for the labels of rows.

    Args:
        task: ``"text-classification"`` or ``"token-classification"``; other tasks have no labels to name.
        rows: reads them.
        problem_type: of texts; guessed if not given: numbers with a fraction are regression, lists several labels.
        names: of the classes, where the source of the rows has them.
        known: names of the checkpoint's classes, which stay if they are all that the rows have.

    Returns:
        ``id2label``, ``label2id`` and ``problem_type``, or ``num_labels`` for numbers; nothing for other tasks.

    Raises:
        RowError: for a row whose label is of another kind than those before.
        ValueError: for too few or too many classes.
    """
    found = _Classes(names, known)
    if task == "token-classification":
        for row in rows():
            found.add(row, row.listed("labels", "tags", "ner_tags"))
        return found.values()
    if task != "text-classification":
        return {}
    kind, length = problem_type, 1
    for row in rows():
        value = row.get("label", "labels")
        own = _kind(value)
        kind = kind or own
        if kind == "regression":
            length = len(value) if isinstance(value, list) else 1
            continue
        if (kind == "multi_label_classification") != isinstance(value, list) or own == "regression":
            raise row.error(
                f"has the label {value!r:.80}, which is not of {kind}, as those of the rows before are or "
                "--problem-type says"
            )
        found.add(row, value if isinstance(value, list) else [value])
    if kind == "regression":
        return {"num_labels": length, "problem_type": kind}
    return found.values(1 if kind == "multi_label_classification" else 2) | {"problem_type": kind}


def _kind(value: Any) -> str:
    if isinstance(value, float) or (isinstance(value, str) and _FRACTION.fullmatch(value)):
        return "regression"
    return "multi_label_classification" if isinstance(value, list) else "single_label_classification"


class _Classes:
    """Collects the classes of rows, which are names or numbers, but not both.

    Args:
        names: of the classes, where the source of the rows has them.
        known: names of the checkpoint's classes.
    """

    def __init__(self, names: Sequence[str] | None, known: Sequence[str]):
        self.names, self.known, self.found, self._kind = names, list(known), set(), None

    def add(self, row: Row, labels: Sequence[Any]) -> None:
        """Take the labels of a row.

        Raises:
            RowError: for one that is neither a name nor a number, or not what those before are.
        """
        for label in labels:
            kind = "a name" if isinstance(label, str) else "a number" if isinstance(label, int) else None
            self._kind = self._kind or kind
            if label == "":
                raise row.error("has an empty label")
            if kind is None:
                raise row.error(f"has the label {label!r:.80}, which is neither a name nor a number")
            if kind != self._kind:
                raise row.error(f"has the label {label!r:.80}, which is {kind}; a label before it is {self._kind}")
            self.found.add(label)

    def values(self, least: int = 2) -> dict[str, Any]:
        """``id2label`` and ``label2id``; the order of names that are found is fixed."""
        if not self.names and self.found <= set(self.known):
            _check_count(len(self.found), least)
            names = self.known
        else:
            names = self.names or _sorted(self.found, least)
            _check_count(len(names), least)
        return {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}


def _sorted(labels: set[Any], least: int) -> list[str]:
    """Names of labels in a fixed order: numbers by value, ``O`` before the tags of entities."""
    if all(isinstance(label, int) or is_number(label) for label in labels):
        count = max(map(int, labels), default=-1) + 1
        _check_count(count, least)
        return [f"LABEL_{place}" for place in range(count)]
    return sorted(labels, key=lambda name: (name != "O", name))


def _check_count(count: int, least: int) -> None:
    """Refuse too few or too many classes, before they are named."""
    if not least <= count <= _MOST_CLASSES:
        classes = "1 class" if count == 1 else f"{count} classes"
        raise ValueError(
            f"The rows have {classes}, and a classifier needs from {least} to {_MOST_CLASSES}; numbers are predicted "
            "with --problem-type regression."
        )


def fitting(values: Mapping[str, Any], config: Any, numbered: bool = False) -> dict[str, Any]:
    """The values to load a checkpoint with: its own labels stay where they name all that the rows have.

    Labels that are numbers are those of a checkpoint with as many labels. Where rows have the numbers of labels with
    names (``numbered``), those of the checkpoint have to be the same in the same order.
    """
    own, names = list(config.label2id or ()), list(values.get("label2id", ()))
    nameless = all(name.startswith("LABEL_") for name in names) and len(names) == len(own)
    if names and (nameless or (names == own if numbered else set(names) <= set(own))):
        return {name: value for name, value in values.items() if name == "problem_type"}
    return dict(values)
