"""Activations, norms and dropout of a training step as loops that XLA compiles.

TensorFlow runs a norm and its gradient as dozens of operations, most of which read and write all activations.
Matrix products stay with oneDNN, which computes them faster than XLA.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from tf_pipeline.tracing import compiled

_FUSING: ContextVar[bool] = ContextVar("fusing", default=False)

# Of loops, which all models share: TensorFlow makes the gradients of a function at their first use, without a lock.
_TRACING = threading.RLock()


@contextmanager
def fusing(enabled: bool = True) -> Iterator[None]:
    """Trace activations, norms and dropout as loops, which XLA compiles for each shape of a batch.

    One thread at a time traces such, except for the threads of several replicas, which take turns and wait for one
    another.
    """
    takes_turns = tf.distribute.has_strategy() and len(tf.distribute.get_strategy().extended.worker_devices) > 1
    with _TRACING if enabled and not takes_turns else nullcontext():
        token = _FUSING.set(enabled)
        try:
            yield
        finally:
            _FUSING.reset(token)


def is_fusing() -> bool:
    """Whether activations, norms and dropout are to be loops."""
    return _FUSING.get()


def fused(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Make two loops of a function: its value, and its gradients, for which the value is computed again.

    Args:
        function: of float tensors, to a tensor of the shape of the first.
    """

    def with_gradients(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradients(upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = function(*inputs)
            return tape.gradient(outputs, inputs, upstream)

        return function(*inputs), gradients

    return loops(with_gradients)


def loops(with_gradients: Callable[..., Any]) -> Callable[..., tf.Tensor]:
    """Make two loops of a function that is written with its gradients, as ``tf.custom_gradient`` takes it.

    ``tf.custom_gradient`` registers each of its traces for good, with the graph around it. Here that is the small graph
    of a loop, which all models share: make loops once per process.

    Args:
        with_gradients: of tensors, to a tensor of the shape of the first, and the function of its gradients.
    """

    @functools.cache
    def taking(number: int) -> Callable[..., tf.Tensor]:  # as traces of one function generalise arguments in place
        return compiled(tf.custom_gradient(with_gradients), jit_compile=True, reduce_retracing=True)

    def call(x: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
        outputs = taking(1 + len(others))(x, *others)
        outputs.set_shape(x.shape)
        return outputs

    return call
