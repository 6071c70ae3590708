"""Load saved models where PyTorch has never been imported and cannot be. Used by ``coverage.py``, not run by itself.

A process of its own hides PyTorch, imports TensorFlow and tf_pipeline once, and forks for each request. TensorFlow
computes in the forks alone, so that it may.
"""

import contextlib
import importlib.util
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SECONDS = 600  # of a processor, for each request

Arrays = Mapping[str, np.ndarray]


class Request(NamedTuple):
    """What to load and run.

    Attributes:
        folder: of the saved model.
        class_name: one of our auto classes, or a class to port.
        inputs: of a call, arrays by name.
        prompts: of ``generate``, arrays by name; nothing is generated without any.
        new_tokens: how many tokens to generate.
    """

    folder: str
    class_name: str
    inputs: Arrays
    prompts: Arrays | None = None
    new_tokens: int = 8


class Reloaded(NamedTuple):
    """What a loaded model holds and computes.

    Attributes:
        parameters: arrays by checkpoint key.
        outputs: float64 arrays by name, hidden states among them.
        generated: token ids ``[batch, seq]``, or why there are none, or ``None`` if no prompts were given.
    """

    parameters: Arrays
    outputs: Arrays
    generated: np.ndarray | str | None


class ReloadError(RuntimeError):
    """A model that could not be loaded or run without PyTorch; the message says why."""


class Reloader:
    """The process that loads without PyTorch, for as long as the context lasts; it may be used from forks.

    Environment variables, such as those of threads, are those of the moment when the context is entered.
    """

    def __enter__(self) -> "Reloader":
        self._folder = tempfile.TemporaryDirectory(prefix="reload-")
        self._address = str(Path(self._folder.name) / "socket")
        # No graph that is remembered elsewhere may help.
        environment = os.environ | {"TF_PIPELINE_CACHE": str(Path(self._folder.name) / "cache")}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.reload"]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen()
            self._process = subprocess.Popen(
                [*command, str(listener.fileno())], pass_fds=[listener.fileno()], stdin=subprocess.PIPE,
                cwd=Path(__file__).parent.parent, env=environment, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *error: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the forks too
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def load(self, request: Request) -> Reloaded:
        """Load and run a model in a new fork.

        Raises:
            ReloadError: if that fails; the message says why.
        """
        try:
            with Client(self._address, "AF_UNIX") as connection:
                connection.send(tuple(request))  # this module has another name there
                answer = connection.recv()
        except (EOFError, OSError) as error:
            raise ReloadError("the process without PyTorch ended and gave no answer (memory or time?)") from error
        if isinstance(answer, str):
            raise ReloadError(answer)
        return Reloaded(*answer)


def hide_torch() -> None:
    """Make torch as absent as if it had never been installed."""
    from importlib.machinery import PathFinder

    find_spec = PathFinder.find_spec

    def without_torch(name, *rest, **named):
        return None if name.split(".")[0] == "torch" else find_spec(name, *rest, **named)

    PathFinder.find_spec = staticmethod(without_torch)  # of instances too


def _serve(listener: socket.socket) -> None:
    """Fork for each connection until the parent, which holds the other end of the standard input, is no more."""
    import transformers

    import tf_pipeline.port.model  # noqa: F401
    import tf_pipeline.reference.outputs  # noqa: F401

    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        accepted, _ = listener.accept()
        if not os.fork():
            _answer(Connection(accepted.detach()))
        accepted.close()


def _answer(connection: Connection) -> None:
    """Serve one request, and end the process."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            answer = tuple(_reload(Request(*connection.recv())))
        except Exception as error:  # whatever loading raises is told
            answer = f"{type(error).__name__}: {error}"
        connection.send(answer)
    finally:
        os._exit(0)


def _reload(request: Request) -> Reloaded:
    from tf_pipeline import auto
    from tf_pipeline.checkpoint import named_slots
    from tf_pipeline.port.model import ported_class
    from tf_pipeline.reference.outputs import flatten

    loader = getattr(auto, request.class_name, None) or ported_class(request.class_name.removeprefix("TF"))
    model = loader.from_pretrained(request.folder)
    parameters = {key: slot.read() for key, slot in named_slots(model)}
    outputs = flatten(model(dict(request.inputs), output_hidden_states=True))
    generated = None if request.prompts is None else _generated(model, request)
    if "torch" in sys.modules or importlib.util.find_spec("torch") is not None:
        raise ReloadError("PyTorch was there after all.")
    return Reloaded(parameters, outputs, generated)


def _generated(model, request: Request) -> np.ndarray | str:
    """The likeliest tokens, or why there are none."""
    try:
        return model.generate(dict(request.prompts), max_new_tokens=request.new_tokens, do_sample=False).numpy()
    except Exception as error:  # the model was loaded all the same
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    hide_torch()
    _serve(socket.socket(fileno=int(sys.argv[1])))
