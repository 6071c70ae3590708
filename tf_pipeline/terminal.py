"""Write to the terminal: tables that are never cut, and none of the lines that frameworks print while they load."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

# Columns of a table that goes to a file or a pipe, where there is no edge to break lines at.
_UNBOUNDED = 100_000

Verbose = Annotated[bool, typer.Option("--verbose", help="Show what TensorFlow and transformers print while loading.")]


def table_console() -> Console:
    """Return a console whose tables are as wide as the terminal, or as wide as their text where there is none."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_UNBOUNDED)


def load_frameworks(verbose: bool = False) -> None:
    """Import TensorFlow, Keras and transformers without the lines that they print while loading.

    Their output is shown after all if the import fails. Where TensorFlow is loaded already, nothing happens.

    Args:
        verbose: whether to show those lines, and TensorFlow's later ones.
    """
    if verbose or "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "PyTorch was not found"
    with _held_back_stderr():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
        import transformers  # noqa: F401


@contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Keep output to standard error, of C++ code too, and show it only if the block raises."""
    if sys.stderr is None:  # closed by whoever started the process
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
