"""The leaf layers that own weights: Keras' own, with PyTorch's names and shapes of the stored tensors.

Each leaf says in :meth:`checkpoint_parameters` how it is stored in a checkpoint, and creates its variables only in
``build``. That lets a model be constructed first, its checkpoint keys be read off the attribute paths, and each
variable be created directly from the tensor on disk.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.layers.fused import fused, is_fusing
from tf_pipeline.layers.lora import Adaptable, unlocked
from tf_pipeline.layers.products import dense, lookup


@dataclass(frozen=True)
class Parameter:
    """Storage of one variable of a leaf layer in a checkpoint.

    Attributes:
        name: last part of the checkpoint key, such as ``weight``; empty if the layer itself is the parameter.
        shape: shape in the checkpoint.
        variable: attribute of the layer that holds the Keras variable.
        initializer: attribute of the layer that holds its initializer.
        transpose: whether the checkpoint stores the transpose of the variable.
        counts: whether it holds integers, as batch normalization counts its batches.
    """

    name: str
    shape: tuple[int, ...]
    variable: str
    initializer: str
    transpose: bool = False
    counts: bool = False


def _normal(std: Any) -> keras.initializers.Initializer:
    """Normal values of a standard deviation, unless an initializer is given instead."""
    return keras.initializers.RandomNormal(stddev=std) if isinstance(std, (int, float)) else std


class Linear(Adaptable, keras.layers.Dense):
    """A dense layer stored as ``torch.nn.Linear``: ``weight`` ``[out, in]`` and ``bias`` ``[out]``.

    ``[..., in]`` to ``[..., out]``. Weights start from a normal distribution, the bias from zeros.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        std: standard deviation of the initial weights (config: ``initializer_range``), or an initializer.
        use_bias: whether there is a bias.
        dtype: Keras dtype policy.
    """

    def __init__(self, in_features: int, out_features: int, std: Any = 0.02, use_bias: bool = True, dtype=None):
        super().__init__(out_features, use_bias=use_bias, kernel_initializer=_normal(std), dtype=dtype)
        self.in_features = in_features

    def create_variables(self) -> None:
        """Create the variables; the shapes are known from the constructor."""
        self.build((None, self.in_features))

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """``weight`` and ``bias``, as PyTorch names them."""
        weight = Parameter("weight", (self.units, self.in_features), "_kernel", "kernel_initializer", transpose=True)
        bias = Parameter("bias", (self.units,), "bias", "bias_initializer")
        return (weight, bias) if self.use_bias else (weight,)

    def quantize(self, mode=None, type_check=True, config=None):
        """Quantize the kernel; Keras leaves subclasses of its layers out unless they ask to be quantized."""
        super().quantize(mode, type_check=False, config=config)

    def call(self, inputs, training=None):
        """Apply the layer to ``[..., in]``; tokens are flattened so that the product is one plain matrix multiply."""
        if self.lora_enabled or self.quantization_mode:
            outputs = super().call(inputs, training=training)
        else:
            outputs = dense(inputs, self.kernel, self.bias if self.use_bias else None)
        return self.updated(outputs, inputs, training) if self.adapters else outputs

    def quantized_call(self, *args: Any, **kwargs: Any):
        """Keras' call of a quantized layer."""
        outputs = super().quantized_call(*args, **kwargs)
        return self.updated(outputs, args[0], kwargs.get("training")) if self.adapters else outputs

    def compute_output_shape(self, input_shape):
        """``[..., out]``."""
        return (*input_shape[:-1], self.units)


class Conv1D(Linear):
    """A dense layer stored as GPT-2's ``Conv1D``: ``weight`` ``[in, out]``, not transposed, and ``bias`` ``[out]``."""

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """``weight`` and ``bias``, as PyTorch names them."""
        weight, *bias = super().checkpoint_parameters()
        return (replace(weight, shape=weight.shape[::-1], transpose=False), *bias)


class Conv1d(keras.layers.Layer):
    """A convolution over tokens stored as ``torch.nn.Conv1d``: ``weight`` ``[out, in / groups, width]``, ``bias``.

    ``[batch, seq, in]`` to ``[batch, seq, out]``, zeros around. One product of windows and weights, in every dtype.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        width: number of tokens that a window covers, an odd number.
        groups: number of groups of features that do not see each other.
        std: standard deviation of the initial weights (config: ``initializer_range``).
        dtype: Keras dtype policy.

    Raises:
        ValueError: for an even width, which would change the length, or groups that do not divide the features.
    """

    def __init__(self, in_features: int, out_features: int, width: int, groups: int, std: float = 0.02, dtype=None):
        super().__init__(dtype=dtype)
        if width % 2 == 0:
            raise ValueError(f"A convolution over {width} tokens changes the length of the text; use an odd number.")
        if in_features % groups or out_features % groups:
            raise ValueError(f"{in_features} and {out_features} features cannot be split into {groups} groups.")
        self.shape, self.width, self.groups = (out_features, in_features // groups, width), width, groups
        self.kernel_initializer = keras.initializers.RandomNormal(stddev=std)
        self.bias_initializer = keras.initializers.Zeros()

    def build(self, input_shape=None):
        """Create the weight and the bias."""
        self.kernel = self.add_weight(shape=self.shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=self.shape[:1], initializer=self.bias_initializer, name="bias")

    def create_variables(self) -> None:
        """Create the variables."""
        self.build()

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """``weight`` and ``bias``, as PyTorch names them."""
        return (
            Parameter("weight", self.shape, "kernel", "kernel_initializer"),
            Parameter("bias", self.shape[:1], "bias", "bias_initializer"),
        )

    def call(self, inputs):
        """Convolve ``[batch, seq, in]``."""
        batch, length = tf.shape(inputs)[0], tf.shape(inputs)[1]
        around = self.width // 2
        padded = tf.pad(inputs, [[0, 0], [around, around], [0, 0]])
        windows = tf.stack([padded[:, start : start + length] for start in range(self.width)], axis=-1)
        windows = tf.reshape(windows, [batch, length, self.groups, *self.shape[1:]])
        kernel = tf.reshape(tf.convert_to_tensor(self.kernel), [self.groups, -1, *self.shape[1:]])
        outputs = tf.einsum("blgik,goik->blgo", windows, kernel)
        return tf.reshape(outputs, [batch, length, self.shape[0]]) + self.bias


class Embedding(Adaptable, keras.layers.Embedding):
    """A lookup table stored as ``torch.nn.Embedding``: ``weight`` ``[num, dim]``.

    Integer ids ``[...]`` to vectors ``[..., dim]``. As in PyTorch, the row ``padding_idx`` starts at zero and gets no
    gradient from lookups. An id outside the table is an error on CPU; where XLA would clamp it silently, the vector
    is NaN.
    """

    def __init__(self, num: int, dim: int, std: float = 0.02, padding_idx: int | None = None, dtype=None):
        initializer = (
            PaddedNormal(std, padding_idx) if padding_idx is not None else keras.initializers.RandomNormal(stddev=std)
        )
        super().__init__(num, dim, embeddings_initializer=initializer, dtype=dtype)
        self.padding_idx = padding_idx

    def create_variables(self) -> None:
        """Create the table."""
        self.build()

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """``weight``, as PyTorch names it."""
        return (Parameter("weight", (self.input_dim, self.output_dim), "_embeddings", "embeddings_initializer"),)

    def quantize(self, mode=None, type_check=True, config=None):
        """Quantize the table; Keras leaves subclasses of its layers out unless they ask to be quantized."""
        super().quantize(mode, type_check=False, config=config)

    def table(self) -> tf.Tensor:
        """All rows, ``[num, dim]``, in the compute dtype."""
        if self.quantization_mode:
            return super().quantized_call(tf.range(self.input_dim))
        return tf.cast(tf.convert_to_tensor(self.embeddings), self.compute_dtype)

    def call(self, ids):
        """Look up ``ids`` ``[...]``; returns ``[..., dim]`` in the compute dtype."""
        if self.lora_enabled or self.quantization_mode:
            vectors = super().call(ids)
        else:
            vectors = lookup(tf.convert_to_tensor(self.embeddings), ids, self.padding_idx, self.compute_dtype)
        return self.updated(vectors, ids) if self.adapters else vectors

    def quantized_call(self, *args: Any, **kwargs: Any):
        """Keras' call of a quantized layer."""
        vectors = super().quantized_call(*args, **kwargs)
        return self.updated(vectors, args[0]) if self.adapters else vectors


class LayerNorm(keras.layers.LayerNormalization):
    """Layer normalisation over the last axis, stored as ``torch.nn.LayerNorm``: ``weight`` and ``bias`` ``[dim]``.

    Half precision is normalised in float32 and rounded once, as PyTorch does. The bias may be left out.
    """

    def __init__(self, dim: int, eps: float, dtype=None, use_bias: bool = True):
        super().__init__(epsilon=eps, center=use_bias, dtype=dtype)
        self.dim = dim

    def create_variables(self) -> None:
        """Create ``gamma`` and ``beta``."""
        self.build((None, self.dim))

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """``weight`` and ``bias``, as PyTorch names them."""
        weight = Parameter("weight", (self.dim,), "gamma", "gamma_initializer")
        bias = Parameter("bias", (self.dim,), "beta", "beta_initializer")
        return (weight, bias) if self.center else (weight,)

    def call(self, inputs):
        """Normalise ``[..., dim]``."""
        if is_fusing():
            parameters = (self.gamma, self.beta) if self.center else (self.gamma,)
            return _layer_norm_loop(self.epsilon)(inputs, *map(tf.convert_to_tensor, parameters))
        return normalize(inputs, self.gamma, self.beta if self.center else None, self.epsilon)


@functools.cache
def _layer_norm_loop(eps: float) -> Callable[..., tf.Tensor]:
    return fused(lambda x, gamma, beta=None: normalize(x, gamma, beta, eps))


def normalize(
    x: tf.Tensor, gamma: tf.Tensor | None, beta: tf.Tensor | None, eps: float, axes: Sequence[int] = (-1,)
) -> tf.Tensor:
    """``x`` with mean 0 and variance 1 over ``axes``, times ``gamma``, plus ``beta``; half precision in float32."""
    wide = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
    centred = wide - tf.reduce_mean(wide, list(axes), keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), list(axes), keepdims=True)
    normal = centred * tf.math.rsqrt(variance + tf.constant(eps, wide.dtype))
    normal = normal if gamma is None else normal * tf.cast(gamma, wide.dtype)
    return tf.cast(normal if beta is None else normal + tf.cast(beta, wide.dtype), x.dtype)


class RMSNorm(keras.layers.Layer):
    """Division by the root of the mean square (https://arxiv.org/abs/1910.07467); ``weight`` ``[dim]``.

    Half precision is normalised in float32. Families differ in when they round: Llama, Mistral, Qwen and T5 multiply
    the rounded result by the weight, the default here; OLMo, GPT-OSS and Gemma round the product.

    Args:
        dim: size of the last axis.
        eps: added to the mean square (config: ``rms_norm_eps``).
        unit_offset: whether the factor is ``1 + weight``, and the weight zero at first, as Gemma's.
        scale_in_float32: whether half precision is rounded after the product with the weight.
        use_scale: whether there is a weight.
        dtype: Keras dtype policy.
    """

    def __init__(
        self,
        dim: int,
        eps: float,
        unit_offset: bool = False,
        scale_in_float32: bool = False,
        use_scale: bool = True,
        dtype=None,
    ):
        super().__init__(dtype=dtype)
        self.dim, self.epsilon, self.use_scale = dim, eps, use_scale
        self.unit_offset, self.scale_in_float32 = unit_offset, scale_in_float32
        self.gamma_initializer = keras.initializers.Zeros() if unit_offset else keras.initializers.Ones()

    def build(self, input_shape=None):
        """Create the weight, if there is one."""
        if self.use_scale:
            self.gamma = self.add_weight(
                shape=(self.dim,), initializer=self.gamma_initializer, name="gamma", autocast=False
            )

    def create_variables(self) -> None:
        """Create the weight, if there is one."""
        self.build()

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """``weight``, as PyTorch names it, if there is one."""
        return (Parameter("weight", (self.dim,), "gamma", "gamma_initializer"),) * self.use_scale

    def call(self, inputs):
        """Normalise ``[..., dim]``."""
        options = (self.epsilon, self.unit_offset, self.scale_in_float32, self.compute_dtype)
        parameters = (tf.convert_to_tensor(self.gamma),) if self.use_scale else ()
        return (_rms_norm_loop if is_fusing() else _rms_norm)(*options)(inputs, *parameters)


def _rms_norm(eps: float, unit_offset: bool, scale_in_float32: bool, dtype: str) -> Callable[..., tf.Tensor]:
    def normalized(x: tf.Tensor, gamma: tf.Tensor | None = None) -> tf.Tensor:
        wide = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
        mean_square = tf.reduce_mean(tf.square(wide), axis=-1, keepdims=True)
        normal = wide * tf.math.rsqrt(mean_square + tf.constant(eps, wide.dtype))
        if gamma is None:
            return tf.cast(normal, dtype)
        normal = normal if scale_in_float32 else tf.cast(normal, dtype)
        scale = tf.cast(gamma, normal.dtype)
        return tf.cast(normal * (1 + scale if unit_offset else scale), dtype)

    return normalized


@functools.cache
def _rms_norm_loop(*options: Any) -> Callable[..., tf.Tensor]:
    return fused(_rms_norm(*options))


class Bias(keras.layers.Layer):
    """A bare parameter vector ``[dim]``, zero at first; its checkpoint key is the attribute path itself."""

    def __init__(self, dim: int, dtype=None):
        super().__init__(dtype=dtype)
        self.dim = dim
        self.initializer = keras.initializers.Zeros()

    def build(self, input_shape=None):
        """Create the vector."""
        self.value = self.add_weight(shape=(self.dim,), initializer=self.initializer, name="bias")

    def create_variables(self) -> None:
        """Create the vector."""
        self.build()

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """The vector, under the layer's own path."""
        return (Parameter("", (self.dim,), "value", "initializer"),)

    def call(self, inputs):
        """Add the vector to ``[..., dim]``."""
        return inputs + self.value


class VocabularyProjector(Adaptable, keras.layers.Layer):
    """Scores over the vocabulary: a :class:`Linear` whose ``weight`` may be the word embeddings.

    Args:
        hidden_size: size of the hidden states.
        vocab_size: number of tokens.
        std: standard deviation of the initial weights, if there are any, or an initializer.
        tied: whether the weight is the word embeddings (config: ``tie_word_embeddings``).
        use_bias: whether there is a bias.
        dtype: Keras dtype policy.
    """

    # The weight, once it is quantized.
    quantized: Embedding | None = None

    def __init__(self, hidden_size: int, vocab_size: int, std: Any, tied: bool, use_bias: bool = True, dtype=None):
        super().__init__(dtype=dtype)
        self.hidden_size, self.vocab_size, self.tied, self.use_bias = hidden_size, vocab_size, tied, use_bias
        self.kernel_initializer = _normal(std)
        self.bias_initializer = keras.initializers.Zeros()

    def build(self, input_shape=None):
        """Create the weight unless it is tied, and the bias if there is one."""
        if not self.tied:
            shape = (self.vocab_size, self.hidden_size)
            self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.vocab_size,), initializer=self.bias_initializer, name="bias")

    def create_variables(self) -> None:
        """Create the variables."""
        self.build()

    def checkpoint_parameters(self) -> Sequence[Parameter]:
        """``weight`` unless it is tied, and ``bias`` if there is one, as PyTorch names them."""
        weight = Parameter("weight", (self.vocab_size, self.hidden_size), "kernel", "kernel_initializer")
        bias = Parameter("bias", (self.vocab_size,), "bias", "bias_initializer")
        return (weight,) * (not self.tied) + (bias,) * self.use_bias

    @property
    def quantization_mode(self) -> str | None:
        """The mode of the weight, ``None`` if it is not quantized or the word embeddings."""
        return None if self.quantized is None else self.quantized.quantization_mode

    @property
    def quantization_config(self) -> Any:
        """The config that the weight was quantized with, ``None`` if there is none."""
        return None if self.quantized is None else self.quantized.quantization_config

    def quantize(self, mode=None, type_check=True, config=None):
        """Keep the weight as integers, unless it is the word embeddings; products are of what they stand for."""
        if self.tied:
            return
        if self.quantized is not None:
            raise ValueError(f"{self.path} is quantized already ({self.quantization_mode}).")
        weight = self.kernel
        self._untrack_variable(weight)
        with unlocked(self):
            del self.kernel
            self.quantized = Embedding(self.vocab_size, self.hidden_size, dtype=self.dtype_policy)
            self.quantized.build()
            self.quantized.embeddings.assign(weight)
            self.quantized.quantize(mode, config=config)

    def quantized_call(self, *args: Any, **kwargs: Any):
        """As :meth:`call`."""
        return self.call(*args, **kwargs)

    def call(self, hidden_states, word_embeddings, training=None):
        """``[batch, seq, hidden]``, and the word embeddings ``[vocab, hidden]``, to ``[batch, seq, vocab]``."""
        if self.quantized is not None:
            table = self.quantized.table()
        else:
            table = word_embeddings if self.tied else tf.convert_to_tensor(self.kernel)
        scores = dense(hidden_states, table, self.bias if self.use_bias else None, transposed=True)
        return self.updated(scores, hidden_states, training) if self.adapters else scores


class VocabularyHead(keras.layers.Layer):
    """The end of a masked-language head: ``decoder`` and ``bias`` after :meth:`transformed`.

    PyTorch has the bias twice, as ``bias`` and as ``decoder.bias``. Tied, they are one; untied, only the second counts,
    and the first is kept for the round trip.

    Args:
        config: a config with ``vocab_size``, ``initializer_range`` and ``tie_word_embeddings``.
        size: size of the word embeddings.
        dtype: Keras dtype policy.
    """

    def __init__(self, config, size: int, dtype=None):
        super().__init__(dtype=dtype)
        std, self.tied = config.initializer_range, config.tie_word_embeddings
        self.decoder = VocabularyProjector(size, config.vocab_size, std, self.tied, use_bias=not self.tied, dtype=dtype)
        self.bias = Bias(config.vocab_size, dtype=dtype)

    def transformed(self, hidden_states):
        """``[batch, seq, hidden]`` to ``[batch, seq, size]``."""
        raise NotImplementedError

    def call(self, hidden_states, word_embeddings):
        """``[batch, seq, hidden]``, and the word embeddings ``[vocab, size]``, to ``[batch, seq, vocab]``."""
        scores = self.decoder(self.transformed(hidden_states), word_embeddings)
        return self.bias(scores) if self.tied else scores


class PaddedNormal(keras.initializers.Initializer):
    """Normal values with the row ``padding_idx`` at zero, as ``torch.nn.Embedding`` starts."""

    def __init__(self, std: float, padding_idx: int):
        self.std, self.padding_idx = std, padding_idx

    def __call__(self, shape, dtype=None) -> Any:
        """Draw ``shape`` ``[num, dim]``."""
        values = keras.initializers.RandomNormal(stddev=self.std)(shape, dtype)
        row = tf.range(shape[0])[:, tf.newaxis] == self.padding_idx
        return tf.where(row, tf.zeros_like(values), values)

    def get_config(self) -> dict[str, Any]:
        """The two arguments."""
        return {"std": self.std, "padding_idx": self.padding_idx}


class TruncatedNormal(keras.initializers.Initializer):
    """Normal values that are drawn again where they are ``cutoff`` standard deviations from zero or more."""

    def __init__(self, std: float, cutoff: float):
        self.std, self.cutoff = std, cutoff

    def __call__(self, shape, dtype=None) -> Any:
        """Draw ``shape``: even values of the distribution function, back to what they belong to."""
        low, high = (0.5 * (1 + math.erf(end / math.sqrt(2))) for end in (-self.cutoff, self.cutoff))
        even = keras.initializers.RandomUniform(low, high)(shape, "float32")
        return tf.cast(self.std * tf.math.ndtri(even), dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """The two arguments."""
        return {"std": self.std, "cutoff": self.cutoff}
