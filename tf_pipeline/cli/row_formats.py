"""Formats of files of rows: lines of text, JSON Lines, Parquet and TFRecord, read and written in chunks."""

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from tf_pipeline.cli.rows import escaped, text_of, value_of, without_mark

CHUNK_ROWS = 4096


class Chunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        index: number of the chunk among all.
        path: the file.
        begin: place of its first row: a byte, or in Parquet a row.
        count: number of its rows.
        first: number of the first among all rows of the input, from 1.
    """

    index: int
    path: str
    begin: int
    count: int
    first: int


class Row(NamedTuple):
    """A row.

    Attributes:
        number: its number among all, from 1.
        value: its value.
        input: the input of a pipeline that it stands for.
        error: the reason why it stands for none.
    """

    number: int
    value: Any
    input: Any
    error: str | None


@dataclass(frozen=True)
class Stored:
    """A row as its file has it."""

    content: Any

    def value(self) -> Any:
        """The value; a ``ValueError`` if there is none."""
        return self.content

    def shown(self) -> Any:
        """The row in a report of errors."""
        return self.content


class _TextLine(Stored):
    def value(self) -> str:
        return text_of(self.content)

    def shown(self) -> str:
        return escaped(self.content)


class _JSONLine(_TextLine):
    def value(self) -> Any:
        return value_of(self.content)

    def shown(self) -> Any:
        try:
            return value_of(self.content)
        except ValueError:
            return escaped(self.content)


class Lines:
    """Text, one row a line; blank lines are none. Answers are JSON Lines.

    Args:
        name: name of the format.
        row: kind of the rows.
    """

    ending, output = ".jsonl", "jsonl"

    def __init__(self, name: str, row: type[Stored]):
        self.name, self._row = name, row

    def places(self, file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
        """The byte where each chunk of at most ``size`` rows begins, and its number of rows."""
        begin, count, place = 0, 0, 0
        for line in file:
            if not place:
                without_mark(line)  # refuses what is not UTF-8 before anything is computed
            place += len(line)
            count += bool(line.strip())
            if count == size:
                yield begin, count
                begin, count = place, 0
        if count:
            yield begin, count

    def read(self, file: BinaryIO, begin: int, count: int) -> Iterator[Stored]:
        """The rows of a chunk."""
        file.seek(begin)
        for place, line in enumerate(file):
            if begin == place == 0:
                line = without_mark(line)
            if line.strip():
                yield self._row(line)
                count -= 1
            if not count:
                return

    def encode(self, records: Sequence[dict[str, Any]]) -> bytes:
        """Answers as a file: ``{"row": …, "result": …}`` a line."""
        return "".join(f'{{"row": {record["row"]}, "result": {record["result"]}}}\n' for record in records).encode()


class Parquet:
    """Parquet, whose columns are the keys of a row. Answers have the columns ``row`` and ``result``, which is JSON."""

    name, ending, output = "parquet", ".parquet", "parquet"

    def places(self, file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
        """The row where each chunk begins, and its number of rows."""
        import pyarrow.parquet

        rows = pyarrow.parquet.ParquetFile(file).metadata.num_rows
        for begin in range(0, rows, size):
            yield begin, min(size, rows - begin)

    def read(self, file: BinaryIO, begin: int, count: int) -> Iterator[Stored]:
        """The rows of a chunk."""
        import pyarrow.parquet

        parquet, past = pyarrow.parquet.ParquetFile(file), 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            low, high = max(begin, past), min(begin + count, past + rows)
            if low < high:
                for row in parquet.read_row_group(group).slice(low - past, high - low).to_pylist():
                    yield Stored(row)
            past += rows

    def encode(self, records: Sequence[dict[str, Any]]) -> bytes:
        """Answers as a file."""
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.schema([("row", pyarrow.int64()), ("result", pyarrow.string())])
        target = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(records), schema), target)
        return target.getvalue()


class TFRecord:
    """TFRecord of ``tf.train.Example``, whose features of bytes are the keys of a row, UTF-8.

    Answers have the features ``row`` (int64) and ``result`` (bytes: JSON).
    """

    name, ending, output = "tfrecord", ".tfrecord", "tfrecord"

    def places(self, file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
        """The byte where each chunk begins, and its number of rows."""
        begin, count, place = 0, 0, 0
        while head := file.read(8):
            place += 16 + self._length(head)
            file.seek(place)
            count += 1
            if count == size:
                yield begin, count
                begin, count = place, 0
        if count:
            yield begin, count

    def read(self, file: BinaryIO, begin: int, count: int) -> Iterator[Stored]:
        """The rows of a chunk."""
        file.seek(begin)
        for _ in range(count):
            size = self._length(file.read(8))
            content = file.read(4 + size + 4)[4:-4]
            if len(content) != size:
                raise ValueError("A TFRecord file is cut off.")
            yield _Example(content)

    def _length(self, head: bytes) -> int:
        if len(head) != 8:
            raise ValueError("A TFRecord file is cut off.")
        return struct.unpack("<Q", head)[0]

    def encode(self, records: Sequence[dict[str, Any]]) -> bytes:
        """Answers as a file."""
        import tempfile
        from pathlib import Path

        import tensorflow as tf

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records")
            with tf.io.TFRecordWriter(str(path)) as writer:
                for record in records:
                    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[record["row"]]))
                    result = tf.train.Feature(bytes_list=tf.train.BytesList(value=[record["result"].encode()]))
                    features = tf.train.Features(feature={"row": number, "result": result})
                    writer.write(tf.train.Example(features=features).SerializeToString())
            return path.read_bytes()


class _Example(Stored):
    def value(self) -> dict[str, str]:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        try:
            features = tf.train.Example.FromString(self.content).features.feature
        except DecodeError as error:
            raise ValueError("The record is no tf.train.Example.") from error
        return {key: text_of(feature.bytes_list.value[0]) for key, feature in features.items() if
                len(feature.bytes_list.value) == 1}  # fmt: skip

    def shown(self) -> Any:
        try:
            return self.value()
        except ValueError:
            return escaped(self.content)


FORMATS = {
    format.name: format for format in (Lines("text", _TextLine), Lines("jsonl", _JSONLine), Parquet(), TFRecord())
}
_ENDINGS = {".txt": "text", ".text": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
            ".tfrecord": "tfrecord", ".tfrecords": "tfrecord"}  # fmt: skip


def format_of(path: str) -> str:
    """The name of the format of a file, by its ending.

    Raises:
        ValueError: for another ending.
    """
    for ending, name in _ENDINGS.items():
        if path.endswith(ending):
            return name
    raise ValueError(
        f"{path} ends in none of {', '.join(_ENDINGS)}; say what it is with --format: {', '.join(FORMATS)}."
    )
