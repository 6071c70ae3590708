"""Write to the terminal without delay: tables that are never cut, and frameworks that load silently.

Frameworks import whatever else is installed, which takes longer than they do. The command line owns its process, and
lets them load without what it does not use.
"""

import gc
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

from tf_pipeline.garbage import paused_collection

# Columns of a table that goes to a file or a pipe, where there is no edge to break lines at.
_UNBOUNDED = 100_000

Verbose = Annotated[bool, typer.Option("--verbose", help="Show what TensorFlow and transformers print while loading.")]


def table_console() -> Console:
    """Return a console whose tables are as wide as the terminal, or as wide as their text where there is none."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_UNBOUNDED)


# Packages that Keras has a use for if they are installed, and the command line has none.
_OPTIONAL = ("matplotlib", "pandas", "sklearn")


def load_frameworks(verbose: bool = False, packed_weights: bool = False) -> None:
    """Import TensorFlow, Keras and transformers without the lines that they print while loading.

    Their output is shown after all if the import fails. Where TensorFlow is loaded already, nothing happens. PyTorch
    loads when it is first used, as by a port.

    Args:
        verbose: whether to show those lines, and TensorFlow's later ones.
        packed_weights: whether oneDNN may keep weights in the layout of its kernels, which makes products of few rows
            faster, and answers of a model whose weights change wrong.
    """
    if "tensorflow" in sys.modules:
        return
    if packed_weights:
        os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "PyTorch was not found"
    quiet = nullcontext() if verbose else _held_back_stderr()
    with quiet, _hidden(_OPTIONAL), _loaded_later("torch"), paused_collection():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
        from transformers import AutoConfig, PreTrainedTokenizerFast, configuration_utils  # noqa: F401

        configuration_utils.is_torch_available = lambda: False  # dtypes of configs stay names, as without PyTorch
    gc.freeze()  # as all of it lives as long as the process


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Let packages look as if they were not installed."""
    names = tuple(name for name in names if name not in sys.modules)
    sys.modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class _Later(ModuleType):
    """A package that is imported when something of it is first used, and then takes its own place."""

    def __init__(self, spec: Any):
        super().__init__(spec.name)
        self.__spec__ = spec

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        package = importlib.import_module(self.__name__)
        for module in list(sys.modules.values()):
            for key in [key for key, value in list(getattr(module, "__dict__", {}).items()) if value is self]:
                setattr(module, key, package)
        return getattr(package, name)


@contextmanager
def _loaded_later(name: str) -> Iterator[None]:
    """Let modules that import a package have one that loads when they use it."""
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None:
        yield
        return
    later = sys.modules[name] = _Later(spec)
    try:
        yield
    finally:
        if sys.modules.get(name) is later:
            del sys.modules[name]


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
