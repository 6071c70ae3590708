"""Processes that write files and are killed: at every step in turn, or at random moments."""

import hashlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tf_pipeline import files

# What changes a file system, one step at a time; `_exchange` calls the system directly.
STEPS = ("rename", "replace", "link", "unlink", "mkdir", "rmdir", "chmod", "chown", "utime")


def forked(work: Callable[[], None]) -> int:
    """Start a process that does some work, which must run no TensorFlow graph, and return its id."""
    if child := os.fork():
        return child
    try:
        work()
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def ended(child: int) -> bool:
    """Wait for a process: whether it came to its end rather than being killed.

    Raises:
        AssertionError: if it failed.
    """
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"The process ended with {status}."
    return status == 0


def _count_down(steps: int) -> None:
    """Let this process kill itself before the step after so many."""
    left = itertools.count(steps, -1)

    def counted(function):
        def step(*args, **kwargs):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    files._exchange = counted(files._exchange)


def killed_at_every_step(prepare: Callable[[], None], write: Callable[[], None]) -> Iterator[int]:
    """Prepare, and kill a process that writes before its first step, then before its second, …, until it ends.

    Yields:
        After each, the number of steps that were done.
    """
    for steps in itertools.count():
        prepare()

        def work(steps=steps):
            _count_down(steps)
            write()

        complete = ended(forked(work))
        yield steps
        if complete:
            return


def killed_at_random(write: Callable[[int], None], trials: int, longest: float, seed: int) -> Iterator[int]:
    """Kill processes that write again and again, after random times of up to ``longest`` seconds.

    Args:
        write: writes for the time whose number it is given; a process begins where the last one was killed.
        trials: how many processes.
        longest: in seconds.
        seed: of the times.

    Yields:
        After each process, how often it had written to the end.
    """
    times, begun = random.Random(seed), 0
    for _ in range(trials):
        reader, writer = os.pipe()

        def work(begun=begun, writer=writer):
            os.write(writer, b"s")
            for number in itertools.count(begun):
                write(number)
                os.write(writer, b".")

        child = forked(work)
        os.close(writer)
        os.read(reader, 1)
        time.sleep(times.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        assert not ended(child)
        with os.fdopen(reader, "rb") as progress:
            complete = len(progress.read())
        begun += complete + 1
        yield complete


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder, by its path; a link counts as what it says."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        ).hexdigest()
        for path in paths
    }


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts by their paths below a folder."""
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def litter(folder: Path) -> list[str]:
    """Names of what writers left in a folder and beside it."""
    return [path.name for path in (*folder.parent.iterdir(), *folder.rglob("*")) if path.name.startswith(".saving-")]
