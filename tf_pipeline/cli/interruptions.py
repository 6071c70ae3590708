"""SIGINT and SIGTERM as an exception, so that a command that one of them ends leaves nothing half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InterruptedRunError(BaseException):
    """SIGINT or SIGTERM ended a command.

    Attributes:
        status: exit status that a shell would report, 128 and the signal's number.
        advice: how to go on, for a person.
    """

    def __init__(self, signal_number: int, advice: str = ""):
        super().__init__(signal_number)
        self.status, self.advice = 128 + signal_number, advice


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise :class:`InterruptedRunError` in the block; only the main thread can."""
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
