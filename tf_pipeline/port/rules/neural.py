"""Operators of neural networks: dropout, normalization, convolution, pooling, resizing, Fourier transforms."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_pipeline.layers.core import normalize
from tf_pipeline.port.rules.registry import Size, axis_of, constant, rule, size_of, sizes_of
from tf_pipeline.port.rules.shape import chunk


@rule("dropout.default")
def dropout(x: tf.Tensor, p: float, train: bool = True, *, training: bool) -> tf.Tensor:
    """``x`` with each element zero with probability ``p``, the others scaled up; only while training.

    Schema::

        aten::dropout(Tensor input, float p, bool train) -> Tensor
    """
    if not (train and training) or p == 0:
        return x
    return tf.nn.dropout(x, p)


@rule("native_dropout.default")
def native_dropout(x: tf.Tensor, p: float, train: bool | None = True, *, training: bool):
    """Dropout, and a mask of the elements that were kept.

    Schema::

        aten::native_dropout(Tensor input, float p, bool? train) -> (Tensor, Tensor)
    """
    dropped = dropout(x, p, bool(train), training=training)
    return dropped, tf.ones_like(x, tf.bool) if dropped is x else tf.not_equal(dropped, 0)


@rule("glu.default")
def glu(x: tf.Tensor, dim: int = -1) -> tf.Tensor:
    """The first half along an axis times the sigmoid of the second.

    Schema::

        aten::glu(Tensor self, int dim=-1) -> Tensor
    """
    first, second = chunk(x, 2, dim, pieces=2)
    return first * tf.sigmoid(second)


# ----------------------------------------------------------------------------------------------------- normalization


@rule("layer_norm.default")
def layer_norm(
    x: tf.Tensor,
    normalized_shape: Sequence[int],
    weight: tf.Tensor | None = None,
    bias: tf.Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> tf.Tensor:
    """Mean 0 and variance 1 over the last axes, then scaled and shifted; half precision in float32.

    Schema::

        aten::layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float
            eps=1.0000000000000001e-05, bool cudnn_enable=True) -> Tensor
    """
    return normalize(x, weight, bias, eps, axes=range(-len(normalized_shape), 0))


@rule("native_layer_norm.default")
def native_layer_norm(x, normalized_shape, weight, bias, eps):
    """Layer normalization, with mean and inverse deviation, which nothing reads.

    Schema::

        aten::native_layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight, Tensor? bias, float eps) ->
            (Tensor, Tensor, Tensor)
    """
    result = layer_norm(x, normalized_shape, weight, bias, eps)
    return result, None, None


@rule("rms_norm.default")
def rms_norm(
    x: tf.Tensor, normalized_shape: Sequence[int], weight: tf.Tensor | None = None, eps: float | None = None
) -> tf.Tensor:
    """Root mean square 1 over the last axes, then scaled; half precision in float32.

    Schema::

        aten::rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, float? eps=None) -> Tensor
    """
    wide = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
    eps = (
        {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7, tf.float32: 2.0**-23}.get(x.dtype, 2.0**-52)
        if eps is None
        else eps
    )
    axes = list(range(-len(normalized_shape), 0))
    normal = wide * tf.math.rsqrt(tf.reduce_mean(tf.square(wide), axes, keepdims=True) + constant(eps, wide.dtype))
    return tf.cast(normal if weight is None else normal * tf.cast(weight, wide.dtype), x.dtype)


def _per_channel(vector: tf.Tensor | None, rank: int, dtype: tf.DType) -> tf.Tensor | None:
    return None if vector is None else tf.cast(tf.reshape(vector, [1, -1] + [1] * (rank - 2)), dtype)


def _scaled(x: tf.Tensor, weight: tf.Tensor | None, bias: tf.Tensor | None) -> tf.Tensor:
    weight, bias = (_per_channel(v, x.shape.rank, x.dtype) for v in (weight, bias))
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@rule("group_norm.default")
def group_norm(x, num_groups: int, weight=None, bias=None, eps: float = 1e-5, cudnn_enabled: bool = True) -> tf.Tensor:
    """Mean 0 and variance 1 in each group of channels, then scaled and shifted by channel.

    Schema::

        aten::group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, float
            eps=1.0000000000000001e-05, bool cudnn_enabled=True) -> Tensor
    """
    sizes = sizes_of(x)
    grouped = tf.reshape(x, tf.stack([sizes[0], num_groups, -1]))
    return tf.cast(_scaled(tf.reshape(normalize(grouped, None, None, eps), tf.stack(sizes)), weight, bias), x.dtype)


@rule("instance_norm.default")
def instance_norm(x, weight=None, bias=None, mean=None, var=None, use_input_stats=True, momentum=0.1, eps=1e-5, *_):
    """Mean 0 and variance 1 in each channel, then scaled and shifted.

    Schema::

        aten::instance_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool
            use_input_stats, float momentum, float eps, bool cudnn_enabled) -> Tensor
    """
    return group_norm(x, x.shape[1], weight, bias, eps)


@rule("batch_norm.default")
def batch_norm(
    x: tf.Tensor, weight, bias, running_mean, running_var, batch_statistics: bool, momentum: float, eps: float, *_
) -> tf.Tensor:
    """Shifted and scaled by the stored mean and variance of each channel.

    Schema::

        aten::batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool
            training, float momentum, float eps, bool cudnn_enabled) -> Tensor
    """
    if batch_statistics:
        raise NotImplementedError("batch_norm by the statistics of the batch")
    mean, variance = (_per_channel(v, x.shape.rank, x.dtype) for v in (running_mean, running_var))
    normal = (x - mean) * tf.math.rsqrt(variance + constant(eps, x.dtype))
    return _scaled(normal, weight, bias)


@rule("_native_batch_norm_legit_no_training.default")
def native_batch_norm(x: tf.Tensor, weight, bias, running_mean, running_var, momentum: float, eps: float):
    """:func:`batch_norm`, and empty statistics of the batch.

    Schema::

        aten::_native_batch_norm_legit_no_training(Tensor input, Tensor? weight, Tensor? bias, Tensor running_mean,
            Tensor running_var, float momentum, float eps) -> (Tensor, Tensor, Tensor)
    """
    none = tf.zeros([0], x.dtype)
    return batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps), none, none


@rule("_weight_norm_interface.default")
def weight_norm(v: tf.Tensor, g: tf.Tensor, dim: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """``v`` with the length of each slice along an axis made that of ``g``, and the lengths before.

    Schema::

        aten::_weight_norm_interface(Tensor v, Tensor g, int dim=0) -> (Tensor, Tensor)
    """
    axes = [axis for axis in range(v.shape.rank) if axis != axis_of(v, dim)]
    length = tf.sqrt(tf.reduce_sum(tf.square(v), axes, keepdims=True))
    return v * (g / length), length


# ------------------------------------------------------------------------------------------- convolution and pooling


_FORMATS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def _each(value: int | Sequence[int], rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _channels_last(x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def _channels_first(x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, [0, x.shape.rank - 1, *range(1, x.shape.rank - 1)])


def _same_padding(padding: str | int | Sequence[int], kernel: list[int], dilation: list[int]) -> list[list[int]]:
    if padding == "valid":
        return [[0, 0]] * len(kernel)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [[t // 2, t - t // 2] for t in total]
    return [[p, p] for p in _each(padding, len(kernel))]


@rule("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding")
def conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups: int = 1) -> tf.Tensor:
    """Cross-correlation of ``[batch, in, …]`` with a weight ``[out, in / groups, …]``.

    Schemas::

        aten::conv1d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=[1], SymInt[1] padding=[0],
            SymInt[1] dilation=[1], SymInt groups=1) -> Tensor
        aten::conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], SymInt[2] padding=[0, 0],
            SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor
        aten::conv3d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[3] stride=[1, 1, 1], SymInt[3] padding=[0,
            0, 0], SymInt[3] dilation=[1, 1, 1], SymInt groups=1) -> Tensor
        aten::conv1d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=[1], str padding="valid",
            SymInt[1] dilation=[1], SymInt groups=1) -> Tensor
        aten::conv2d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], str
            padding="valid", SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor
    """
    rank = x.shape.rank - 2
    kernel = weight.shape.as_list()[2:]
    stride, dilation = _each(stride, rank), _each(dilation, rank)
    pads = _same_padding(padding, kernel, dilation)
    last = tf.pad(_channels_last(x), [[0, 0], *pads, [0, 0]])
    filters = tf.transpose(weight, [*range(2, rank + 2), 1, 0])
    if groups == 1 and 1 in (max(stride), max(dilation)):
        result = tf.nn.convolution(last, filters, stride, "VALID", _FORMATS[rank], dilation)
    else:  # TensorFlow's CPU kernels have no groups, and no steps between windows together with gaps inside them
        result = _grouped(last, filters, stride, dilation, groups)
    result = _channels_first(result)
    return result if bias is None else result + tf.reshape(bias, [1, -1] + [1] * rank)


def _grouped(x: tf.Tensor, filters: tf.Tensor, stride: list[int], dilation: list[int], groups: int) -> tf.Tensor:
    """Convolution by groups: one product for each place of the kernel, which is short where there are many groups."""
    rank = x.shape.rank - 2
    kernel, out = filters.shape.as_list()[:rank], filters.shape[-1]
    inside, result = x.shape[-1] // groups, None
    size = tf.shape(x)
    lengths = [(size[i + 1] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(rank)]
    for place in itertools.product(*map(range, kernel)):
        window = tuple(
            slice(place[i] * dilation[i], place[i] * dilation[i] + (lengths[i] - 1) * stride[i] + 1, stride[i])
            for i in range(rank)
        )
        rows = tf.reshape(x[(slice(None), *window)], tf.stack([size[0], *lengths, groups, inside]))
        weights = tf.reshape(filters[place], [inside, groups, out // groups])
        part = tf.einsum("...gi,igo->...go", rows, weights)
        result = part if result is None else result + part
    return tf.reshape(result, tf.stack([size[0], *lengths, out]))


@rule("convolution.default")
def convolution(x, weight, bias, stride, padding, dilation, transposed: bool, output_padding, groups: int):
    """Convolution of any rank.

    Schema::

        aten::convolution(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, SymInt[]
            dilation, bool transposed, SymInt[] output_padding, SymInt groups) -> Tensor
    """
    if transposed:
        return conv_transpose(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(x, weight, bias, stride, padding, dilation, groups)


@rule("conv_transpose1d.default", "conv_transpose2d.input")
def conv_transpose(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups: int = 1, dilation=1):
    """The gradient of a convolution: ``[batch, in, …]`` with a weight ``[in, out, …]``.

    Schemas::

        aten::conv_transpose1d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=[1], SymInt[1]
            padding=[0], SymInt[1] output_padding=[0], SymInt groups=1, SymInt[1] dilation=[1]) -> Tensor
        aten::conv_transpose2d.input(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], SymInt[2]
            padding=[0, 0], SymInt[2] output_padding=[0, 0], SymInt groups=1, SymInt[2] dilation=[1, 1]) -> Tensor
    """
    rank = x.shape.rank - 2
    stride, padding, extra, dilation = (_each(v, rank) for v in (stride, padding, output_padding, dilation))
    if groups != 1 or any(d != 1 for d in dilation):
        raise NotImplementedError("transposed convolution with groups or dilation")
    filters = tf.transpose(weight, [*range(2, rank + 2), 1, 0])
    kernel, sizes = weight.shape.as_list()[2:], sizes_of(x)
    full = [(sizes[i + 2] - 1) * stride[i] + kernel[i] for i in range(rank)]
    shape = tf.stack([sizes[0], *full, weight.shape[1]])
    result = tf.nn.conv_transpose(_channels_last(x), filters, shape, stride, "VALID")
    result = tf.pad(result, [[0, 0], *[[0, e] for e in extra], [0, 0]])
    ends = [full[i] + extra[i] - padding[i] for i in range(rank)]
    result = result[(slice(None), *(slice(p, e) for p, e in zip(padding, ends, strict=True)))]
    result = _channels_first(result)
    return result if bias is None else result + tf.reshape(bias, [1, -1] + [1] * rank)


class _Windows:
    """The windows that ``x`` is pooled in.

    Attributes:
        size: number of elements in a window.
        padding: elements that are added on both sides of each axis.
        behind: elements behind those that the last window reaches over, with ``ceil_mode``.
    """

    def __init__(self, x: tf.Tensor, kernel, stride, padding, dilation=1, ceil_mode: bool = False):
        rank = x.shape.rank - 2
        self._kernel, self.padding, self._dilation = (_each(value, rank) for value in (kernel, padding, dilation))
        self.size = math.prod(self._kernel)
        self._stride = _each(stride, rank) if stride not in (None, [], ()) else self._kernel
        self.behind = [self._behind(i, size_of(x, i + 2)) if ceil_mode else 0 for i in range(rank)]

    def _behind(self, axis: int, size: Size) -> Size:
        stride, padding = self._stride[axis], self.padding[axis]
        reach = self._dilation[axis] * (self._kernel[axis] - 1) + 1
        steps = (size + 2 * padding - reach + stride - 1) // stride
        starts_behind = steps * stride >= size + padding  # a window that would hold padding alone is left out
        steps -= tf.cast(starts_behind, tf.int32) if tf.is_tensor(size) else int(starts_behind)
        behind = steps * stride + reach - size - 2 * padding
        return tf.maximum(behind, 0) if tf.is_tensor(size) else max(behind, 0)

    def pooled(self, x: tf.Tensor, kind: str, fill: float, is_padded: bool = False) -> tf.Tensor:
        """``"MAX"`` or ``"AVG"`` of each window of ``x``, which may have its padding already."""
        start = [0] * len(self.padding) if is_padded else self.padding
        pads = [[0, 0], *([p, p + b] for p, b in zip(start, self.behind, strict=True)), [0, 0]]
        last = tf.pad(_channels_last(x), pads, constant_values=constant(fill, x.dtype))
        return _channels_first(tf.nn.pool(last, self._kernel, kind, self._stride, "VALID", dilations=self._dilation))


@rule("max_pool1d.default", "max_pool2d.default")
def max_pool(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False) -> tf.Tensor:
    """The largest in each window.

    Schemas::

        aten::max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=[0], int[1] dilation=[1],
            bool ceil_mode=False) -> Tensor
        aten::max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool
            ceil_mode=False) -> Tensor
    """
    return _Windows(x, kernel_size, stride, padding, dilation, ceil_mode).pooled(x, "MAX", x.dtype.min)


@rule("avg_pool1d.default", "avg_pool2d.default")
def avg_pool(
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tf.Tensor:
    """The mean of each window, or its sum divided by ``divisor_override``.

    Schemas::

        aten::avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=[0], bool ceil_mode=False,
            bool count_include_pad=True) -> Tensor
        aten::avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, bool
            count_include_pad=True, int? divisor_override=None) -> Tensor
    """
    windows = _Windows(x, kernel_size, stride, padding, ceil_mode=ceil_mode)
    mean, counted = windows.pooled(x, "AVG", 0.0), tf.ones_like(x)
    if divisor_override is not None:
        return mean * constant(windows.size / divisor_override, x.dtype)
    if not ceil_mode and (count_include_pad or not any(windows.padding)):
        return mean
    if count_include_pad:
        counted = tf.pad(counted, [[0, 0], [0, 0], *([p, p] for p in windows.padding)], constant_values=1)
    return mean / windows.pooled(counted, "AVG", 0.0, is_padded=count_include_pad)


@rule("im2col.default")
def im2col(x: tf.Tensor, kernel_size, dilation=1, padding=0, stride=1) -> tf.Tensor:
    """Windows of ``[batch, channels, height, width]`` as columns ``[batch, channels * places, windows]``.

    Schema::

        aten::im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> Tensor
    """
    kernel, dilation, padding, stride = (_each(v, 2) for v in (kernel_size, dilation, padding, stride))
    x = tf.pad(x, [[0, 0], [0, 0], *[[p, p] for p in padding]])
    index = []
    for axis in range(2):
        span = size_of(x, axis + 2) - dilation[axis] * (kernel[axis] - 1)
        index.append(
            tf.range(kernel[axis])[:, tf.newaxis] * dilation[axis] + tf.range(0, span, stride[axis])[tf.newaxis]
        )
    windows = tf.gather(tf.gather(x, index[0], axis=2), index[1], axis=4)  # batch, channels, kh, rows, kw, columns
    windows = tf.transpose(windows, [0, 1, 2, 4, 3, 5])
    size = sizes_of(x)
    return tf.reshape(windows, tf.stack([size[0], x.shape[1] * kernel[0] * kernel[1], -1]))


@rule("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "_adaptive_avg_pool2d.default")
def adaptive_avg_pool(x: tf.Tensor, output_size: Sequence[int]) -> tf.Tensor:
    """The means of a given number of windows of about equal size.

    Schemas::

        aten::adaptive_avg_pool1d(Tensor self, int[1] output_size) -> Tensor
        aten::adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor
        aten::_adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor
    """
    for axis, size in zip(range(-len(output_size), 0), output_size, strict=True):
        length = x.shape[axis]
        if size == 1:
            x = tf.reduce_mean(x, axis, keepdims=True)
            continue
        if length is None:
            raise NotImplementedError("adaptive pooling of an axis of open size")
        axis = axis_of(x, axis)
        bounds = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        windows = [tf.reduce_mean(tf.gather(x, tf.range(*bound), axis=axis), axis) for bound in bounds]
        x = tf.stack(windows, axis)
    return x


@rule("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest2d.default")
def upsample_nearest(x: tf.Tensor, output_size: Sequence[Size] | None, *scales) -> tf.Tensor:
    """Resized by repeating the nearest element.

    Schemas::

        aten::upsample_nearest1d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor
        aten::upsample_nearest2d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor
        aten::upsample_nearest2d(Tensor self, SymInt[2] output_size, float? scales_h=None, float? scales_w=None) ->
            Tensor
    """
    factors = [s for s in (scales[0] if scales and isinstance(scales[0], (list, tuple)) else scales) if s is not None]
    rank = x.shape.rank - 2
    for i in range(rank):
        axis, size = i + 2, size_of(x, i + 2)
        target = (
            output_size[i]
            if output_size is not None
            else tf.cast(tf.floor(tf.cast(size, tf.float32) * factors[i]), tf.int32)
        )
        place = tf.cast(tf.range(target), tf.float32) * (tf.cast(size, tf.float32) / tf.cast(target, tf.float32))
        x = tf.gather(x, tf.minimum(tf.cast(tf.floor(place), tf.int32), size - 1), axis=axis)
    return x


@rule("upsample_bilinear2d.vec")
def upsample_bilinear(
    x: tf.Tensor, output_size: Sequence[int] | None, align_corners: bool, scales: Sequence[float] | None
) -> tf.Tensor:
    """The last two axes stretched to other sizes, linearly between the elements.

    Schema::

        aten::upsample_bilinear2d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors)
            -> Tensor
    """
    for i, axis in enumerate((2, 3)):
        size, scale = x.shape[axis], scales[i] if scales else None
        if size is None:
            raise NotImplementedError("stretching an axis of open size")
        target = output_size[i] if output_size else int(size * scale)
        x = _stretched(x, axis, target, 1 / scale if scale else size / target, align_corners)
    return x


def _stretched(x: tf.Tensor, axis: int, target: int, step: float, align_corners: bool) -> tf.Tensor:
    last = x.shape[axis] - 1
    places = np.arange(target, dtype="float64")
    places = places * last / max(1, target - 1) if align_corners else np.maximum((places + 0.5) * step - 0.5, 0)
    below = np.minimum(places.astype("int32"), last)
    above = np.minimum(below + 1, last)
    share = constant((places - below).reshape([-1] + [1] * (x.shape.rank - axis - 1)), x.dtype)
    return tf.gather(x, below, axis=axis) * (1 - share) + tf.gather(x, above, axis=axis) * share


# ---------------------------------------------------------------------------------------------------------- Fourier


@rule("fft_fft.default", "fft_fft2.default", "fft_fftn.default", "_fft_c2c.default", "_fft_r2c.default")
def fft(x: tf.Tensor, first=None, dim=-1, norm=None, forward: bool = True) -> tf.Tensor:
    """The discrete Fourier transform along some axes, unscaled.

    Schemas::

        aten::fft_fft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor
        aten::fft_fft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor
        aten::fft_fftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor
        aten::_fft_c2c(Tensor self, SymInt[] dim, int normalization, bool forward) -> Tensor
        aten::_fft_r2c(Tensor self, int[] dim, int normalization, bool onesided) -> Tensor
    """
    axes = first if isinstance(first, (list, tuple)) else [dim] if isinstance(dim, int) else dim
    x = x if x.dtype.is_complex else tf.complex(x, tf.zeros_like(x))
    for axis in axes:
        order = list(range(x.shape.rank))
        order[axis_of(x, axis)], order[-1] = order[-1], order[axis_of(x, axis)]
        x = tf.transpose(tf.signal.fft(tf.transpose(x, order)), order)
    return x
