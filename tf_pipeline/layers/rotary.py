"""Rotary position embeddings (https://arxiv.org/abs/2104.09864), by every frequency rule of ``transformers``.

Frequencies are computed in NumPy's float64 when a model is made. Those of rules that depend on the length of the text
are computed in the graph, without a branch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from transformers import PreTrainedConfig


class Frequencies(NamedTuple):
    """Angles by which one step turns each pair of numbers, as a rule gives them.

    Attributes:
        values: float64 ``[pairs]``.
        scaling: factor of cosines and sines.
        limit: number of tokens beyond which ``beyond`` replaces ``values``, if there is one.
        beyond: from the length of the text, a float scalar tensor, to frequencies ``[pairs]`` of its dtype.
    """

    values: np.ndarray
    scaling: float = 1.0
    limit: int | None = None
    beyond: Callable[[tf.Tensor], tf.Tensor] | None = None


class Rope(NamedTuple):
    """Values of a config that the rules read.

    Attributes:
        parameters: ``rope_parameters`` of a type of layers.
        head_size: size of a head.
        max_positions: ``max_position_embeddings``.
        truncate: whether YaRN's range is rounded to whole dimensions.
    """

    parameters: Mapping[str, Any]
    head_size: int
    max_positions: int | None
    truncate: bool

    @property
    def size(self) -> int:
        """Number of elements of a head that are rotated."""
        return int(self.head_size * self.parameters.get("partial_rotary_factor", 1.0))

    @property
    def extension(self) -> float:
        """The factor by which texts became longer than those of the pretraining."""
        factor = self.parameters.get("factor")
        return self.max_positions / self.parameters["original_max_position_embeddings"] if factor is None else factor

    def frequencies(self) -> np.ndarray:
        """The original rule's: ``theta ** -(2 i / size)``."""
        return self.parameters["rope_theta"] ** -(np.arange(0, self.size, 2) / self.size)


def _default(rope: Rope) -> Frequencies:
    return Frequencies(rope.frequencies())


def _linear(rope: Rope) -> Frequencies:
    return Frequencies(rope.frequencies() / rope.parameters["factor"])


def _proportional(rope: Rope) -> Frequencies:
    """Turn a part of the head, but by the wavelengths of the whole."""
    turned = int(rope.parameters.get("partial_rotary_factor", 1.0) * rope.head_size // 2)
    values = rope.parameters["rope_theta"] ** -(np.arange(0, 2 * turned, 2) / rope.head_size)
    still = np.zeros(rope.head_size // 2 - turned)
    return Frequencies(np.concatenate([values, still]) / rope.parameters.get("factor", 1.0))


def _dynamic(rope: Rope) -> Frequencies:
    """Raise the base with the length, beyond ``max_position_embeddings`` (NTK scaling)."""
    factor, limit, size = rope.parameters["factor"], rope.max_positions, rope.size
    if size <= 2:
        raise ValueError(f"rope_type 'dynamic' needs more than two rotary numbers a head, not {size}.")
    theta, steps = rope.parameters["rope_theta"], np.arange(0, size, 2) / size

    def beyond(length: tf.Tensor) -> tf.Tensor:
        base = theta * (factor * length / limit - (factor - 1)) ** (size / (size - 2))
        return base ** tf.constant(-steps, length.dtype)

    return Frequencies(rope.frequencies(), limit=limit, beyond=beyond)


def _longrope(rope: Rope) -> Frequencies:
    """Divide by factors of each frequency's own, others for long texts (https://arxiv.org/abs/2402.13753)."""
    limit, values = rope.parameters["original_max_position_embeddings"], rope.frequencies()
    short, long = (np.asarray(rope.parameters[key], np.float64) for key in ("short_factor", "long_factor"))
    if not values.shape == short.shape == long.shape:
        raise ValueError(f"short_factor and long_factor have {len(short)} and {len(long)} numbers, not {len(values)}.")
    scaling = rope.parameters.get("attention_factor")
    if scaling is None:
        scaling = 1.0 if rope.extension <= 1 else math.sqrt(1 + math.log(rope.extension) / math.log(limit))
    return Frequencies(values / short, scaling, limit, lambda length: tf.constant(values / long, length.dtype))


def _yarn(rope: Rope) -> Frequencies:
    """Keep fast frequencies, divide slow ones, blend those between (https://arxiv.org/abs/2309.00071)."""
    get, factor, size, values = rope.parameters.get, rope.extension, rope.size, rope.frequencies()

    def magnitude(weight: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    scaling, weights = get("attention_factor"), (get("mscale"), get("mscale_all_dim"))
    if scaling is None:
        scaling = magnitude(weights[0]) / magnitude(weights[1]) if all(weights) else magnitude()
    theta, original = get("rope_theta"), get("original_max_position_embeddings")
    turns = get("beta_fast") or 32, get("beta_slow") or 1
    low, high = (size * math.log(original / (n * 2 * math.pi)) / (2 * math.log(theta)) for n in turns)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    slow = np.clip((np.arange(len(values)) - low) / (high - low or 0.001), 0, 1)
    return Frequencies(values / factor * slow + values * (1 - slow), scaling)


def _llama3(rope: Rope) -> Frequencies:
    """Keep fast frequencies, divide slow ones, blend those between by wavelength (Llama 3.1)."""
    factor, original = rope.parameters["factor"], rope.parameters["original_max_position_embeddings"]
    low, high = rope.parameters["low_freq_factor"], rope.parameters["high_freq_factor"]
    values = rope.frequencies()
    turns = original * values / (2 * math.pi)
    keep = (turns - low) / (high - low)
    blended = (1 - keep) * values / factor + keep * values
    return Frequencies(np.where(turns > high, values, np.where(turns < low, values / factor, blended)))


RULES: dict[str, Callable[[Rope], Frequencies]] = {
    "default": _default,
    "dynamic": _dynamic,
    "linear": _linear,
    "llama3": _llama3,
    "longrope": _longrope,
    "proportional": _proportional,
    "yarn": _yarn,
}


class RotaryEmbedding:
    """Cosines and sines of the angles by which positions turn pairs of numbers.

    Rules and their parameters are those of ``transformers.modeling_rope_utils``. A rule that depends on the length of
    the text takes the last position of the batch for it, as PyTorch does; but PyTorch's ``dynamic`` also remembers
    longer texts of earlier calls, until a short one comes, and here each call stands alone.

    Args:
        config: a config with ``rope_parameters``, and ``head_dim`` or ``hidden_size`` and ``num_attention_heads``.
        layer_type: type of the layers, such as ``sliding_attention``, if each has parameters of its own.
        head_size: size of a head, if it is not the config's.

    Attributes:
        frequencies: the :class:`Frequencies`.
        size: number of elements of a head that are rotated, the first ones.

    Raises:
        ValueError: for a ``rope_type`` that is not supported, or parameters that do not fit.
    """

    def __init__(self, config: PreTrainedConfig, layer_type: str | None = None, head_size: int | None = None):
        config.standardize_rope_params()
        outer = config.rope_parameters or {}
        parameters = (outer if layer_type is None else outer.get(layer_type)) or {}
        kind = parameters.get("rope_type")
        if kind not in RULES or parameters.get("rope_theta") is None:
            where = "" if layer_type is None else f" of {layer_type!r}"
            raise ValueError(
                f"rope_parameters{where} have rope_type {kind!r} and rope_theta {parameters.get('rope_theta')}; "
                f"supported types are {', '.join(RULES)}, with a rope_theta."
            )
        size = head_size or getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # PyTorch looks for `truncate` next to the types of layers, not in the parameters of one.
        rope = Rope(parameters, size, getattr(config, "max_position_embeddings", None), outer.get("truncate", True))
        self.frequencies = RULES[kind](rope)
        self.size = 2 * len(self.frequencies.values)
        if self.size > size:
            raise ValueError(f"Rotary positions turn pairs of numbers, but head_dim is {size}.")

    def __call__(self, positions: tf.Tensor, dtype: tf.DType, heads_axis: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
        """The table of some positions.

        Args:
            positions: integers ``[batch or 1, tokens]``; those of a cached step go on from the tokens in the cache.
            dtype: dtype of the table, which :func:`rotate` computes in. Angles are computed in float32 or wider.
            heads_axis: axis of size 1 where the states to be turned have their heads.

        Returns:
            Cosines and sines ``[batch or 1, 1, tokens, size]``, or ``[batch or 1, tokens, 1, size]``.
        """
        values, scaling, limit, beyond = self.frequencies
        wide = tf.float32 if dtype.size < 4 else dtype
        frequencies = tf.constant(values, wide)
        if beyond is not None:
            length = tf.cast(tf.reduce_max(positions) + 1, wide)
            frequencies = tf.where(length > limit, beyond(length), frequencies)
        angles = tf.cast(positions, wide)[..., tf.newaxis] * frequencies
        angles = tf.expand_dims(tf.concat([angles, angles], axis=-1), heads_axis)
        table = tf.cos(angles), tf.sin(angles)
        return tuple(tf.cast(part if scaling == 1 else part * scaling, dtype) for part in table)


def rotate(states: tf.Tensor, table: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Turn queries or keys by their positions.

    The two halves make the pairs: the first number with the first of the second half, and so on.

    Args:
        states: ``[batch, heads, tokens, size]`` or ``[batch, tokens, heads, size]``. Numbers beyond the table's size
            are left alone.
        table: of a :class:`RotaryEmbedding`; the states are turned in its dtype.

    Returns:
        The shape and dtype of ``states``.
    """
    cosines, sines = table
    size = cosines.shape[-1]
    x = tf.cast(states if size == states.shape[-1] else states[..., :size], cosines.dtype)
    first, second = tf.split(x, 2, axis=-1)
    turned = tf.cast(x * cosines + tf.concat([-second, first], axis=-1) * sines, states.dtype)
    return turned if size == states.shape[-1] else tf.concat([turned, states[..., size:]], axis=-1)


def rotate_rows(rows: tf.Tensor, table: tuple[tf.Tensor, tf.Tensor], length: tf.Tensor | int, num_heads: int):
    """:func:`rotate` for rows ``[batch * length, heads * size]``; the table has its heads at axis 2."""
    x = tf.reshape(rows, [-1, length, num_heads, rows.shape[-1] // num_heads])
    return tf.reshape(rotate(x, table), [-1, rows.shape[-1]])
