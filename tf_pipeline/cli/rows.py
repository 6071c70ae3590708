"""Answer the rows of a JSON Lines file: each is answered or fails by itself, whatever the others hold."""

import codecs
import hashlib
import json
import os
import signal
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tf_pipeline.cli.row_files import Streams, Unfinished, errors_file, is_stream, opened, refuse_clashes

# Digits that Python turns into a number by default (sys.set_int_max_str_digits).
MAX_DIGITS = 4300

Outputs = Streams | Unfinished


class InterruptedRunError(BaseException):
    """SIGINT or SIGTERM ended a run.

    Attributes:
        status: exit status that a shell would report, 128 and the signal's number.
        advice: how to go on, for a person.
    """

    def __init__(self, signal_number: int, advice: str = ""):
        super().__init__(signal_number)
        self.status, self.advice = 128 + signal_number, advice


# --------------------------------------------------------------------------------------------------- reading


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, counted from 1; a UTF-8 byte order mark is skipped.

    Raises:
        ValueError: for a byte order mark of UTF-16 or UTF-32.
    """
    for number, line in enumerate(file, start=1):
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
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_integer)
    except RecursionError:
        raise ValueError("The row is nested too deeply.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"A number has {len(digits.lstrip('-'))} digits; at most {MAX_DIGITS} are read.")
    return int(digits)


def digest(file: BinaryIO) -> str | None:
    """A hash of the unread rest of a file, which is then read again; ``None`` if that is not possible."""
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return None
    start, hashed = file.tell(), hashlib.blake2b(digest_size=16)
    while block := file.read(2**20):
        hashed.update(block)
    file.seek(start)
    return hashed.hexdigest()


class _Reader:
    """The inputs of a file's rows, one by one; rows that are not inputs fail at once."""

    def __init__(self, file: BinaryIO, as_input: Callable[[Any], Any], outputs: Outputs):
        self.file, self.as_input, self.outputs = file, as_input, outputs
        self.pending: deque[tuple[int, bytes]] = deque()  # read, but not yet answered

    def __iter__(self) -> Iterator[Any]:
        for number, line in numbered_lines(self.file):
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
        InterruptedRunError: after SIGINT or SIGTERM.
    """
    with _signals(), opened(source, "rb") as file, _outputs(file, target, asked, overwrite, resume) as outputs:
        try:
            if not outputs.complete:
                _answer_all(load(), _Reader(file, as_input, outputs), outputs)
            outputs.finish()
        except InterruptedRunError as interruption:
            interruption.advice = outputs.advice()
            raise
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise ValueError(f"{error} {outputs.advice()}".strip()) from error
    return outputs


def _outputs(file: BinaryIO, target: Path | None, asked: dict[str, Any], overwrite: bool, resume: bool) -> Outputs:
    if target is not None:
        refuse_clashes(file, target)
    if target is None or is_stream(target):
        if resume:
            raise ValueError("--resume needs an --output that is a file.")
        errors = standard("stderr")
        answers = standard("stdout") if target is None else opened(target, "wb")
        return Streams(answers, errors, close=target is not None)
    asked = asked | {"input": digest(file)}
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


@contextmanager
def _signals() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise :class:`InterruptedRunError`; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: Any) -> None:
        raise InterruptedRunError(number)

    earlier = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
