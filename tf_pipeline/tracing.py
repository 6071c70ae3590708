"""Compile functions that are made for each model, without TensorFlow's warnings of retracing."""

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


class _Alone:
    """Wraps a function, of whose code TensorFlow counts the traces whatever model they are for."""

    def __init__(self, run: Callable[..., Any]):
        self._run = run

    def __call__(self, *inputs: Any) -> Any:
        return self._run(*inputs)
