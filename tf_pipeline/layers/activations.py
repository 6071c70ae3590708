"""Activation functions, keyed by the spelling that configs use (``hidden_act``, ``activation``).

The table mirrors ``transformers.activations.ACT2FN``. Constants are made in the tensor's own dtype: a Python float that
TensorFlow casts passes through float32, which would cost float64 models nine digits.
"""

import functools
import math
from collections.abc import Callable

import tensorflow as tf

from tf_pipeline.layers.fused import fused, is_fusing


def _constant(value: float, x: tf.Tensor) -> tf.Tensor:
    return tf.constant(value, x.dtype)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """The exact GELU, ``x Φ(x)`` by the error function (https://arxiv.org/abs/1606.08415)."""
    return _constant(0.5, x) * x * (_constant(1.0, x) + tf.math.erf(x * _constant(math.sqrt(0.5), x)))


def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """The tanh approximation of GELU, as GPT-2 and ``gelu_pytorch_tanh`` compute it (same paper)."""
    inner = _constant(math.sqrt(2.0 / math.pi), x) * (x + _constant(0.044715, x) * x * x * x)
    return _constant(0.5, x) * x * (_constant(1.0, x) + tf.tanh(inner))


def _gelu_fast(x):
    inner = x * _constant(0.7978845608, x) * (_constant(1.0, x) + _constant(0.044715, x) * x * x)
    return _constant(0.5, x) * x * (_constant(1.0, x) + tf.tanh(inner))


def _gelu_10(x):
    return tf.clip_by_value(gelu(x), _constant(-10.0, x), _constant(10.0, x))


def _quick_gelu(x):
    return x * tf.sigmoid(_constant(1.702, x) * x)


def _silu(x):
    return x * tf.sigmoid(x)


def _mish(x):
    return x * tf.tanh(tf.math.softplus(x))


def _laplace(x):
    scaled = (x - _constant(0.707107, x)) / _constant(0.282095 * math.sqrt(2.0), x)
    return _constant(0.5, x) * (_constant(1.0, x) + tf.math.erf(scaled))


def _leaky_relu(x):
    return tf.where(x >= 0, x, _constant(0.01, x) * x)


def _relu6(x):
    return tf.clip_by_value(x, _constant(0.0, x), _constant(6.0, x))


def _hardswish(x):
    return x * _relu6(x + _constant(3.0, x)) / _constant(6.0, x)


ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": gelu,
    "gelu_10": _gelu_10,
    "gelu_accurate": gelu_tanh,
    "gelu_fast": _gelu_fast,
    "gelu_new": gelu_tanh,
    "gelu_python": gelu,
    "gelu_python_tanh": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "hardswish": _hardswish,
    "laplace": _laplace,
    "leaky_relu": _leaky_relu,
    "linear": tf.identity,
    "mish": _mish,
    "quick_gelu": _quick_gelu,
    "relu": tf.nn.relu,
    "relu2": lambda x: tf.square(tf.nn.relu(x)),
    "relu6": _relu6,
    "sigmoid": tf.sigmoid,
    "silu": _silu,
    "sqrtsoftplus": lambda x: tf.sqrt(tf.math.softplus(x)),
    "swish": _silu,
    "tanh": tf.tanh,
}


def get_activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The activation that a config names, as one loop where a training step is made of such.

    Raises:
        ValueError: for a name that is not in the table; the message lists the table.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"Activation {name!r} is not supported; supported are {', '.join(sorted(ACTIVATIONS))}.")
    return functools.partial(_activate, name)


def _activate(name: str, x: tf.Tensor) -> tf.Tensor:
    return (_loop_of(name) if is_fusing() else ACTIVATIONS[name])(x)


@functools.cache
def _loop_of(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    def rounded_once(x: tf.Tensor) -> tf.Tensor:  # half precision, as by PyTorch's kernels
        wide = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
        return tf.cast(ACTIVATIONS[name](wide), x.dtype)

    return fused(rounded_once)
