"""Rows from lists, columns, DataFrames, files, ``datasets`` and ``tf.data``, each with its place for messages."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_pipeline import strict_json

# Characters; those of Python's csv, 131072, are fewer than a long document has.
_LONGEST_CELL = 2**31 - 1
# Half of a character, which has no form in UTF-8, so that no tokenizer takes it.
_HALF = re.compile("[\\ud800-\\udfff]")


class RowError(ValueError):
    """A row that cannot be used; the message says which it is."""


class Row(NamedTuple):
    """One row.

    Attributes:
        place: its number and file, for messages.
        values: by key.
    """

    place: str
    values: Mapping[str, Any]

    def get(self, *names: str, default: Any = ...) -> Any:
        """The value of the first of some keys that the row has.

        Raises:
            RowError: if it has none of them, and there is no default.
        """
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        if default is not ...:
            return default
        if empty := next((name for name in names if name in self.values), None):
            raise self.error(f"has null as its {empty!r}")
        raise self.error(f"has no {' or '.join(map(repr, names))}; its keys are {', '.join(map(repr, self.values))}")

    def text(self, *names: str, default: Any = ...) -> Any:
        """Return the value as :meth:`get` does; it has to be a text."""
        value = self.get(*names, default=default)
        if value is not default and not isinstance(value, str):
            raise self.error(f"needs a text as {names[0]!r}, and has {value!r:.80}")
        self._refuse_halves(names[0], value)
        return value

    def listed(self, *names: str, default: Any = ...) -> Any:
        """Return the value as :meth:`get` does; it has to be a list."""
        value = self.get(*names, default=default)
        if value is default:
            return value
        if not isinstance(value, (list, tuple)):
            kind = "words" if names[0] == "tokens" else names[0]
            raise self.error(f"needs a list of {kind} as {names[0]!r}, and has {value!r:.80}")
        for item in value:
            self._refuse_halves(names[0], item)
        return list(value)

    def _refuse_halves(self, name: str, value: Any) -> None:
        if isinstance(value, str) and _HALF.search(value):
            raise self.error(f"has half a character in its {name!r}, a surrogate without the other half: {value!r:.80}")

    def error(self, message: str) -> RowError:
        """An error about this row."""
        return RowError(f"{self.place} {message}.")


def rows_of(data: Any) -> Callable[[], Iterator[Row]]:
    """A function that reads rows of data of any supported kind, again at each call.

    Args:
        data: a path of a ``.jsonl``, ``.csv``, ``.tsv`` or ``.txt`` file; a ``datasets.Dataset`` or
            ``IterableDataset``; a ``tf.data.Dataset`` of dictionaries, of texts or of pairs of texts and labels; a
            DataFrame; a dictionary of columns; a sequence of dictionaries, of texts or of such pairs; or a function
            that returns an iterator of any of these.

    Raises:
        FileNotFoundError: for a file that is not there.
        TypeError: for data of another kind.
        ValueError: for a file of another kind.
    """
    if isinstance(data, (str, os.PathLike)):
        return _file(Path(data))
    if isinstance(data, tf.data.Dataset):
        return lambda: _numbered(map(_plain, data.as_numpy_iterator()))
    if hasattr(data, "iterrows"):  # a DataFrame
        if not data.columns.is_unique:
            raise ValueError(f"The DataFrame has the column {data.columns[data.columns.duplicated()][0]!r:.80} twice.")
        data = {str(name): list(data[name]) for name in data.columns}
    if isinstance(data, Mapping):
        if not all(
            isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, str) for values in data.values()
        ):
            raise TypeError(
                f"The dictionary has {', '.join(map(str, data))}, which are not all lists: give the columns of one "
                "data set, or one of several splits."
            )
        if len({len(values) for values in data.values()}) > 1:
            raise ValueError(f"The columns {', '.join(data)} are not of one length.")
        names = list(data)
        return lambda: _numbered(
            dict(zip(names, map(_plain, row), strict=True)) for row in zip(*data.values(), strict=True)
        )
    if callable(data) and not hasattr(data, "__iter__"):
        return lambda: _numbered(map(_plain, data()))
    if isinstance(data, Iterable) and not isinstance(data, (Iterator, bytes)):
        return lambda: _numbered(map(_plain, data))
    raise TypeError(
        f"{type(data).__name__} is not supported; give a file, a list of rows, a dictionary of columns, a DataFrame, a "
        "data set of datasets or tf.data, or a function that returns an iterator."
    )


def chunks(rows: Iterable[Row], size: int = 1000) -> Iterator[list[Row]]:
    """Lists of rows, which are tokenized at a time."""
    rows = iter(rows)
    while chunk := list(islice(rows, size)):
        yield chunk


def _numbered(values: Iterable[Any]) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        yield _row(f"Row {number}", value)


def _row(place: str, value: Any) -> Row:
    """A row of a dictionary, a text, or a pair of a text and a label."""
    if isinstance(value, str):
        value = {"text": value}
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        value = {"text": value[0], "label": value[1]}
    if not isinstance(value, Mapping):
        raise RowError(f"{place} is neither a dictionary, nor a text, nor a text and its label: {value!r:.80}.")
    return Row(place, value)


def _plain(value: Any) -> Any:
    """Values of NumPy and TensorFlow as those of Python."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist()) if value.dtype.kind in "OS" else value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


# ------------------------------------------------------------------------------------------------------------ files


def _file(path: Path) -> Callable[[], Iterator[Row]]:
    readers = {".jsonl": _json_rows, ".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows, ".txt": _text_rows}
    if path.suffix not in readers:
        raise ValueError(f"{path} is not supported; give a file of {', '.join(readers)}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return lambda: readers[path.suffix](path)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, with their places."""
    for number, line in enumerate(_decoded(path), start=1):
        if line.strip():
            yield f"Line {number} of {path}", line.rstrip("\r\n")


def _decoded(path: Path) -> Iterator[str]:
    """All lines with their ends."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                place = f"Line {number} of {path}"
                raise RowError(f"{place} is not UTF-8: {error.reason} at byte {error.start}.") from None


def _text_rows(path: Path) -> Iterator[Row]:
    for place, line in _lines(path):
        yield Row(place, {"text": line})


def _json_rows(path: Path) -> Iterator[Row]:
    for place, line in _lines(path):
        try:
            value = strict_json.loads(line, has_constants=True)
        except ValueError as error:
            raise RowError(f"{place} is not JSON: {str(error).rstrip('.')}; give one object per line.") from None
        if not isinstance(value, dict):
            raise RowError(f"{place} is not an object of JSON: {line:.80}; give one object per line.")
        yield Row(place, value)


def _csv_rows(path: Path) -> Iterator[Row]:
    # Cells of TSV, as GLUE has it, are not quoted: a quote is a part of the text.
    kind = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {"strict": True}
    csv.field_size_limit(_LONGEST_CELL)
    reader, start = csv.DictReader(_decoded(path), **kind), 1
    try:
        if repeated := [name for name, count in Counter(reader.fieldnames or ()).items() if name and count > 1]:
            raise RowError(f"Line 1 of {path} names the column {repeated[0]!r:.80} more than once.")
        for values in reader:
            place = f"Line {reader.line_num} of {path}"
            if None in values or None in values.values():
                raise RowError(f"{place} has not as many cells as there are columns ({len(reader.fieldnames)}).")
            yield Row(place, values)
            start = reader.line_num + 1
    except csv.Error as error:
        raise RowError(f"Line {start} of {path} cannot be read: {error}; is a quote in it not closed?") from None
