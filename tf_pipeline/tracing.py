"""Compile functions that are made for each model, without TensorFlow's warnings of retracing."""

import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled(run: Callable[..., Any], *signature: Any, **options: Any) -> Any:
    """A ``tf.function`` whose traces are counted alone.

    Args:
        run: a function of positional arguments.
        *signature: specs of the arguments, for which it is traced once; if none are given, for all that it gets.
        **options: of ``tf.function``.
    """
    return tf.function(_Alone(run), input_signature=signature or None, autograph=False, **options)


class Following:
    """A compiled function of a model, made again when the model has changed.

    Args:
        make: makes the function of the model as it is.
        state: returns what differs after a change of which the function knows nothing.
    """

    def __init__(self, make: Callable[[], Any], state: Callable[[], Any]):
        self._make, self._state = make, state
        self._made_for, self._function = state(), make()
        self._lock = threading.Lock()

    def __call__(self, *inputs: Any) -> Any:
        """Call the function."""
        return self._current()(*inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current(), name)

    def _current(self) -> Any:
        """The function of the model as it is now."""
        with self._lock:
            state = self._state()
            if self._made_for != state:
                self._function, self._made_for = self._make(), state
            return self._function


class _Alone:
    """Wraps a function so that its traces are counted alone: TensorFlow counts them by code, which all models share."""

    def __init__(self, run: Callable[..., Any]):
        self._run = run

    def __call__(self, *inputs: Any) -> Any:
        return self._run(*inputs)
