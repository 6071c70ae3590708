"""Answer the rows of a JSON Lines file: each is answered or fails by itself, whatever the others hold."""

import codecs
import hashlib
import json
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tf_pipeline import strict_json
from tf_pipeline.cli.interruptions import InterruptedRunError
from tf_pipeline.cli.row_files import Streams, Unfinished, errors_file, is_stream, opened, refuse_clashes

Outputs = Streams | Unfinished


# --------------------------------------------------------------------------------------------------- reading


def numbered_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, counted from 1; a UTF-8 byte order mark is skipped.

    Raises:
        ValueError: for a byte order mark of UTF-16 or UTF-32.
    """
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = without_mark(line)
        if line.strip():
            yield number, line


def without_mark(line: bytes) -> bytes:
    """The first line of a file without a byte order mark.

    Raises:
        ValueError: for the mark of another encoding than UTF-8.
    """
    marks = {"UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}
    for name, marked in marks.items():
        if line.startswith(marked):
            raise ValueError(f"The input is {name}; rows are UTF-8. Convert it: iconv -f {name} -t UTF-8.")
    return line.removeprefix(codecs.BOM_UTF8)


def text_of(line: bytes) -> str:
    """A line as text, without its end.

    Raises:
        ValueError: for bytes that are not UTF-8.
    """
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The line is not UTF-8: the byte 0x{line[error.start]:02x} at position {error.start} ({error.reason})."
        ) from None


def escaped(line: bytes) -> str:
    """A line as text, without its end; bytes that are not UTF-8 are written in hexadecimal."""
    return line.decode("utf-8", errors="backslashreplace").rstrip("\r\n")


def value_of(line: bytes) -> Any:
    """The JSON value of a line.

    Raises:
        ValueError: for a value that is not strict JSON in UTF-8, or cannot be held.
    """
    text = text_of(line)
    try:
        return strict_json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"The row is not JSON: {error}. A text is in quotation marks; plain lines are read from the standard "
            "input, without --input."
        ) from None


class Content(NamedTuple):
    """The content of a file when a run began.

    Attributes:
        hash: of its bytes.
        size: their number.
    """

    hash: str
    size: int

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """The lines of the file; what has been appended to it since is left out.

        Raises:
            ChangedInputError: if they are others now.
        """
        left, hashed = self.size, _hash()
        while left and (line := file.readline(left)):
            left -= len(line)
            hashed.update(line)
            yield line
        if hashed.hexdigest() != self.hash:
            raise ChangedInputError("The input changed while it was read.")


class ChangedInputError(ValueError):
    """The input is not the one with which a run began."""


def content_of(file: BinaryIO) -> Content | None:
    """The unread rest of a file, which is then read again; ``None`` if that is not possible."""
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return None
    start, hashed = file.tell(), _hash()
    while block := file.read(2**20):
        hashed.update(block)
    size = file.tell() - start
    file.seek(start)
    return Content(hashed.hexdigest(), size)


def _hash() -> Any:
    return hashlib.blake2b(digest_size=16)


class _Reader:
    """The inputs of a file's rows, one by one; rows that are not inputs fail at once."""

    def __init__(self, lines: Iterable[bytes], as_input: Callable[[Any], Any], outputs: Outputs):
        self.lines, self.as_input, self.outputs = lines, as_input, outputs
        self.pending: deque[tuple[int, bytes]] = deque()  # read, but not yet answered

    def __iter__(self) -> Iterator[Any]:
        for number, line in numbered_lines(self.lines):
            if self.outputs.has(number):
                continue
            try:
                row = self.as_input(value_of(line))
            except ValueError as error:
                fail_row(self.outputs, number, error, line)
                continue
            self.pending.append((number, line))
            yield row


def fail_row(outputs: Outputs, number: int, error: Exception, line: bytes) -> None:
    """Record a row that failed, with its value, or its text if that is not strict JSON."""
    record = {"line": number, "error": str(error) or type(error).__name__}
    try:
        outputs.errors.write(record | {"input": value_of(line)})
    except (ValueError, RecursionError):
        outputs.errors.write(record | {"input": escaped(line)})


# -------------------------------------------------------------------------------------------------- answering


def answer_rows(
    load: Callable[[], Any],
    as_input: Callable[[Any], Any],
    source: Path,
    target: Path | None,
    asked: dict[str, Any],
    overwrite: bool = False,
    resume: bool = False,
) -> Outputs:
    """Answer every row of a file.

    Args:
        load: makes the pipeline, once it is certain that the answers have somewhere to go.
        as_input: makes an input of the pipeline from a JSON value, or raises a ``ValueError``.
        source: the file, pipe or device to read.
        target: the output: a file, which appears when all is done, a device or FIFO; standard output if
            ``None``.
        asked: everything that decides the answers; a run is resumed only if it is the same.
        overwrite: replace files that are there, and discard an unfinished run.
        resume: go on with an unfinished run.

    Returns:
        Where the answers and errors went, with their counts.

    Raises:
        ValueError: if a file is in the way, or an unfinished run cannot be resumed; nothing was changed then.
        InterruptedRunError: after SIGINT or SIGTERM, with advice.
    """
    with opened(source, "rb") as file, ExitStack() as stack:
        content = None
        if target is not None:
            refuse_clashes(file, target)
            content = None if is_stream(target) else content_of(file)
        outputs = stack.enter_context(_outputs(content, target, asked, overwrite, resume))
        try:
            if not outputs.complete:
                lines = file if content is None else content.lines(file)
                _answer_all(load(), _Reader(lines, as_input, outputs), outputs)
            outputs.finish()
        except InterruptedRunError as interruption:
            interruption.advice = outputs.advice()
            raise
        except (ValueError, TypeError, OSError, ImportError) as error:
            if isinstance(error, ChangedInputError):
                outputs.not_resumable = "the input changed"
            said = str(error) if str(error).endswith((".", "!", "?")) else f"{error}."
            raise ValueError(f"{said} {outputs.advice()}".strip()) from error
    return outputs


def _outputs(
    content: Content | None, target: Path | None, asked: dict[str, Any], overwrite: bool, resume: bool
) -> Outputs:
    if target is None or is_stream(target):
        if resume:
            raise ValueError("--resume needs an --output that is a file.")
        errors = standard("stderr")
        answers = standard("stdout") if target is None else opened(target, "wb")
        return Streams(answers, errors, close=target is not None)
    asked = asked | {"input": content and content.hash}
    return Unfinished(Path(os.path.realpath(target)), errors_file(target), asked, overwrite, resume)


def standard(name: str) -> BinaryIO:
    """Standard output or error, ``"stdout"`` or ``"stderr"``, for bytes.

    Raises:
        ValueError: if it is closed.
    """
    stream = getattr(sys, name)
    if stream is None:
        raise ValueError(f"{name} is closed, and rows have to be written there.")
    return stream.buffer


def _answer_all(pipe: Any, rows: _Reader, outputs: Outputs) -> None:
    for answer in pipe.stream(rows):
        number, line = rows.pending.popleft()
        if isinstance(answer, Exception):
            fail_row(outputs, number, answer, line)
            continue
        try:
            outputs.answers.write({"line": number, "result": answer})
        except ValueError:
            error = ValueError("The model's answer holds a number that is not finite (NaN or infinity).")
            fail_row(outputs, number, error, line)
