"""Files of answered rows: they appear complete or not at all, and a run that was killed can be resumed.

A run writes into a folder next to its output, ``OUT.unfinished``, which holds ``answers.jsonl``, ``errors.jsonl``,
``run.jsonl`` (the request, and whether all rows are done) and ``lock``. Making the folder never touches a file of
another program, and the lock dies with its process. When all rows are done the files are moved into place and the
folder goes.
"""

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from tf_pipeline.files import atomic_file

ANSWERS, ERRORS, RUN, LOCK = "answers.jsonl", "errors.jsonl", "run.jsonl", "lock"


class ReaderGoneError(Exception):
    """Nobody reads the answers any more, as when they are piped into ``head``."""


class Records:
    """Writes records to a file, one JSON value per line; each is handed on before the next is taken.

    Attributes:
        count: number of lines in the file.
    """

    def __init__(self, file: BinaryIO, count: int = 0):
        self.file, self.count = file, count

    def write(self, record: dict[str, Any]) -> None:
        """Write one record.

        Raises:
            ValueError: for a number that is not finite, which JSON cannot hold.
            RecursionError: for values that are nested too deeply.
            ReaderGoneError: if the file is a pipe that nobody reads.
        """
        rest = memoryview(encoded(record) + b"\n")
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
            self.file.flush()
        except BrokenPipeError:
            raise ReaderGoneError from None
        self.count += 1


def encoded(record: Any) -> bytes:
    """A value as strict JSON in UTF-8; text that has no UTF-8 form is escaped."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False).encode("utf-8")


def number_of(count: int, noun: str) -> str:
    """The subject of a sentence and its verb, such as "1 row is" or "2 rows are"."""
    return f"{count} {noun} is" if count == 1 else f"{count} {noun}s are"


class Streams:
    """Answers and errors that go to open streams, where nothing is replaced and nothing can be resumed."""

    complete = False
    errors_path: Path | None = None

    def __init__(self, answers: BinaryIO, errors: BinaryIO, close: bool = False):
        self.answers, self.errors = Records(answers), Records(errors)
        self._close = close

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._close:
            self.answers.file.close()

    def has(self, number: int) -> bool:
        """Whether a row is done already; here, none is."""
        return False

    def finish(self) -> None:
        """Do nothing: the rows have been handed on."""

    def advice(self) -> str:
        """Nothing: the reader has all answers."""
        return ""


class Unfinished:
    """Answers and errors of a run whose output is not in place yet.

    Args:
        target: the file of the answers; links have been followed.
        errors: the file of the rows that fail.
        asked: everything that decides the answers; ``"input"`` is ``None`` if the input cannot be read twice.
        overwrite: whether files that are there already may be replaced, and an unfinished run discarded.
        resume: whether to go on with an unfinished run.

    Attributes:
        answers, errors: take the records.
        complete: whether all rows were done before the run was killed.
        not_resumable: why the run cannot be resumed, if so.

    Raises:
        ValueError: if a file is in the way, another run has the output, or the run to resume was asked differently.
    """

    def __init__(self, target: Path, errors: Path, asked: dict[str, Any], overwrite: bool, resume: bool):
        self.target, self.errors_path = target, errors
        self.folder = unfinished_folder(target)
        self.places = {ERRORS: Path(os.path.realpath(errors)), ANSWERS: target}  # the answers come last
        self.asked, self.overwrite = asked, overwrite
        self.not_resumable = "--input is not a file" if asked["input"] is None else ""
        self.finished = False
        self._open = ExitStack()
        self._take_folder()
        try:
            self._begin(resume)
        except BaseException:
            self.__exit__()
            raise

    # ---------------------------------------------------------------------------------------------- beginning

    def _take_folder(self) -> None:
        """Make the folder, or take over that of a run that is dead."""
        if not self.target.parent.is_dir():
            raise ValueError(f"The folder of --output {self.target} does not exist.")
        try:
            self.folder.mkdir()
        except FileExistsError:
            ours = self.folder.is_dir() and not self.folder.is_symlink()
            if not ours or set(os.listdir(self.folder)) - {ANSWERS, ERRORS, RUN, LOCK}:
                raise ValueError(
                    f"{self.folder} is in the way: answers are written there until they are complete."
                ) from None
        self._lock = FileLock(self.folder / LOCK, timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(f"Another run is writing {self.target}.") from None

    def _begin(self, resume: bool) -> None:
        earlier = _lines(self.folder / RUN)
        self.complete = len(earlier) > 1
        kept = {name: _kept_numbers(self.folder / name) for name in (ANSWERS, ERRORS)} if earlier else {}
        self.kept = any(kept.values()) or self.complete
        if self.kept and resume:
            self._check_resumable(earlier[0])
        elif self.kept and not self.overwrite:
            answers = number_of(len(kept[ANSWERS]), "answer")
            raise ValueError(
                f"A run for {self.target} was not finished; {answers} in {self.folder}. "
                "--resume goes on with it, --overwrite discards it."
            )
        else:
            self._refuse_existing()
            self._start_afresh()
            kept = {}
        self._answered = max(kept.get(ANSWERS, ()), default=0)
        self._failed = set(kept.get(ERRORS, ()))
        counts = earlier[1]["complete"] if self.complete else {name: len(numbers) for name, numbers in kept.items()}
        self.answers, self.errors = (Records(self._opened(name), counts.get(name, 0)) for name in (ANSWERS, ERRORS))

    def _opened(self, name: str) -> BinaryIO:
        """A file of the folder to go on with; none is made if it may be in place already."""
        path = os.devnull if self.complete else self.folder / name
        return self._open.enter_context(open(path, "ab", buffering=0))

    def _check_resumable(self, earlier: dict[str, Any]) -> None:
        kept = f"What it answered is kept in {self.folder}; --overwrite discards it."
        if earlier["asked"].get("input") is None or self.asked["input"] is None:
            raise ValueError(
                f"Only a run whose --input is a file can be resumed: whether a pipe holds the same rows again cannot "
                f"be known. {kept}"
            )
        names = earlier["asked"].keys() | self.asked.keys()
        if changed := sorted(name for name in names if earlier["asked"].get(name) != self.asked.get(name)):
            raise ValueError(
                f"The unfinished run for {self.target} cannot be resumed: {', '.join(changed)} changed since. {kept}"
            )
        self.overwrite = self.overwrite or earlier["overwrite"]

    def _refuse_existing(self) -> None:
        there = [str(place) for place in self.places.values() if place.is_file()]
        if there and not self.overwrite:
            raise ValueError(
                f"{' and '.join(there)} exist{'s' * (len(there) == 1)}, as after a run that is complete; --overwrite "
                "answers all rows again and replaces the files."
            )

    def _start_afresh(self) -> None:
        for name in (ANSWERS, ERRORS, RUN):
            (self.folder / name).unlink(missing_ok=True)
        self.complete = self.kept = False
        self._note({"asked": self.asked, "overwrite": self.overwrite})

    def _note(self, record: dict[str, Any]) -> None:
        with (self.folder / RUN).open("ab") as file:
            Records(file).write(record)
            os.fsync(file.fileno())

    # ------------------------------------------------------------------------------------------- while it runs

    def __enter__(self) -> "Unfinished":
        return self

    def has(self, number: int) -> bool:
        """Whether a row is done already: answers are in the order of the rows, errors may be ahead of them."""
        return number <= self._answered or number in self._failed

    def advice(self) -> str:
        """Tell the user how to go on after an interruption."""
        if not self._keeps_rows():
            return "Nothing was answered yet."
        # An interruption may come between writing a row and counting it; a complete file may be in its place already.
        count = self.answers.count if self.complete else len(_kept_numbers(self.folder / ANSWERS))
        done = f"{number_of(count, 'answered row')} kept in {self.folder}; "
        if self.not_resumable:
            return done + f"as {self.not_resumable}, the run cannot be resumed, and --overwrite discards it."
        return done + "the same command with --resume goes on."

    # ------------------------------------------------------------------------------------------------- ending

    def finish(self) -> None:
        """Move the files into place, the answers last; the next ``--resume`` does the moves that a kill leaves undone.

        Raises:
            ValueError: if a file has come there since the run began.
        """
        if not self.complete:
            self._refuse_existing()
            for records in (self.answers, self.errors):
                os.fsync(records.file.fileno())
            self._note({"complete": {ANSWERS: self.answers.count, ERRORS: self.errors.count}})
            self.complete = True
        self._open.close()
        for name, place in self.places.items():
            if (self.folder / name).exists():  # not if an earlier attempt came as far as this
                self._place(self.folder / name, place, wanted=name == ANSWERS or self.errors.count > 0)
        self.finished = True

    def _place(self, part: Path, place: Path, wanted: bool) -> None:
        if place.is_file():
            self._refuse_existing()
            shutil.copymode(place, part)
        if wanted:
            _move(part, place)
        else:
            if place.is_file():  # of the run that is overwritten
                place.unlink()
            part.unlink()

    def _keeps_rows(self) -> bool:
        return self.kept or self.complete or self.answers.count + self.errors.count > 0

    def __exit__(self, *_: Any) -> None:
        """Let go of the output; the folder stays only if it holds rows."""
        self._open.close()
        opened = hasattr(self, "errors")
        if self.finished or not (self._keeps_rows() if opened else getattr(self, "kept", True)):
            for name in (RUN, ANSWERS, ERRORS, LOCK):
                (self.folder / name).unlink(missing_ok=True)
        self._lock.release()
        try:
            self.folder.rmdir()
        except OSError:  # rows are in it, or the next run is
            pass


# ---------------------------------------------------------------------------------------------- lines of earlier runs


def _lines(path: Path) -> list[Any]:
    """The records of a file, but for a last line that was cut off."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}).") from None


def _kept_numbers(path: Path) -> list[int]:
    """The numbers of the rows in a file of records; a last line that was cut off is removed from it."""
    if not path.exists():
        return []
    with path.open("r+b") as file:
        numbers, end = [], 0
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(end)
                break
            end += len(line)
            numbers.append(_number(path, line))
    return numbers


def _number(path: Path, line: bytes) -> int:
    match = re.match(rb'\{"line": (\d+), "(?:result|error)": ', line)
    if match is None:
        raise ValueError(f"{path} is damaged: {line[:40]!r} is no record of a row.")
    return int(match[1])


# ------------------------------------------------------------------------------------------------------ paths


def errors_file(output: Path) -> Path:
    """The file of the rows that could not be answered: ``out.jsonl`` has ``out.errors.jsonl`` next to it."""
    return output.with_name(f"{output.stem}.errors.jsonl")


def unfinished_folder(target: Path) -> Path:
    """The folder that a run writes into before its output is complete."""
    return target.with_name(f"{target.name}.unfinished")


def opened(path: Path, mode: str) -> BinaryIO:
    """A file opened for bytes; ``/dev/stdin`` and its like are the descriptor itself, not opened a second time."""
    number = _descriptor(path)
    # Unbuffered writing, so that closing a pipe that nobody reads has nothing left to fail with.
    return open(path if number is None else os.dup(number), mode, buffering=-1 if mode == "rb" else 0)


def is_stream(path: Path) -> bool:
    """Whether a path leads to an open descriptor, a device or a FIFO, which are written to and never replaced."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file())


def _descriptor(path: Path) -> int | None:
    """The descriptor of this process that a path such as ``/dev/stdout`` leads to."""
    for step in _links(path):
        folder = os.path.realpath(step.parent)
        ours = re.fullmatch(rf"/proc/{os.getpid()}/(task/\d+/)?fd|/dev/fd", folder)
        if ours and step.name.isdigit():
            return int(step.name)
    return None


def _links(path: Path, most: int = 40) -> Iterator[Path]:
    """A path and, while it is a link, its target."""
    for _ in range(most):
        yield path
        if not path.is_symlink():
            return
        path = path.parent / os.readlink(path)


def refuse_clashes(source: BinaryIO, target: Path) -> None:
    """Refuse an output that is the input under whatever name, or a file of errors that is either.

    Raises:
        ValueError: naming the file.
    """
    errors = errors_file(target)
    folder = unfinished_folder(Path(os.path.realpath(target)))
    for path in (target, errors, folder / ANSWERS, folder / ERRORS):
        if _same(path, os.fstat(source.fileno())):
            raise ValueError(f"--output would overwrite the input {path}.")
    if os.path.realpath(target) == os.path.realpath(errors) or (errors.exists() and _same(target, errors.stat())):
        raise ValueError(f"{target} and the file of its errors, {errors}, are the same file.")


def _same(path: Path, other: os.stat_result) -> bool:
    """Whether a regular file is at a path, the one with these facts: links and case make other names of it."""
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(facts.st_mode) and os.path.samestat(facts, other)


def _move(part: Path, place: Path) -> None:
    """Move a file into place at once, also from one file system to another; a device or FIFO gets its content."""
    if place.exists() and not place.is_file():
        with part.open("rb") as source, place.open("wb") as file:
            shutil.copyfileobj(source, file)
        part.unlink()
        return
    try:
        os.replace(part, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_file(place) as copy:
            shutil.copy(part, copy)
        part.unlink()
