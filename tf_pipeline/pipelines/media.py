"""Read images and sounds from wherever they are: files, the web, bytes, arrays."""

import math
import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.request import urlopen

import numpy as np

from tf_pipeline.arguments import whole_number
from tf_pipeline.pipelines.calls import is_tensor

# Seconds to wait for a sound of the web.
SECONDS = 10
# Zero crossings of the sinc on each side by which sounds are resampled.
ZEROS = 6


def as_image(value: Any, timeout: float | None = None) -> Any:
    """An image, upright and in RGB, as ``transformers`` reads it.

    Args:
        value: a path, an address on the web, a text in base64, the bytes of a file, or an image of Pillow; an array or
            a tensor ``[height, width, channels]`` or ``[channels, height, width]`` is left as it is.
        timeout: seconds to wait for the web; without it, any number.

    Returns:
        An image of Pillow, or the array.

    Raises:
        ImportError: without Pillow.
        ValueError: for anything else, and what cannot be read; the message names it.
    """
    try:
        from PIL import Image
        from transformers.image_utils import load_image
    except ImportError as error:
        raise ImportError('Images need Pillow: pip install "tf-pipeline[vision]"') from error
    value = plain(value)
    if isinstance(value, np.ndarray):
        if value.ndim != 3 or not value.size or value.dtype.kind not in "buif":
            raise ValueError(
                f"An array of shape {value.shape} and dtype {value.dtype} is no image; an image is [height, width, "
                "channels] or [channels, height, width], of numbers. Several are given as a list."
            )
        return value
    try:
        return load_image(Image.open(BytesIO(value)) if isinstance(value, bytes) else value, timeout)
    except Exception as error:  # of Pillow, of the system, or of the web
        raise ValueError(
            f"{value!r:.80} is no image that can be read ({type(error).__name__}); an image is a path, an http or "
            "https address, base64, bytes, an image of Pillow or an array."
        ) from error


def plain(value: Any) -> Any:
    """A path as a text, a tensor of TensorFlow or PyTorch as an array or bytes; anything else as it is."""
    if _is_torch_tensor(value):
        value = value.detach().cpu()
    if is_tensor(value) or _is_torch_tensor(value):
        value = value.numpy()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_torch_tensor(value: Any) -> bool:
    """Whether a value is a tensor or a parameter of PyTorch's; data sets and loaders are in other modules."""
    return type(value).__module__ in ("torch", "torch.nn.parameter")


def named(value: Any) -> str:
    """An image or a sound in a message."""
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"{value!r:.80}"


def is_medium(value: Any) -> bool:
    """Whether a value is a single image or sound: no list, generator or data set."""
    known = isinstance(value, (np.ndarray, os.PathLike)) or is_tensor(value) or _is_torch_tensor(value)
    return known or type(value).__module__.partition(".")[0] == "PIL"


def as_sound(value: Any, rate: int) -> np.ndarray:
    """A sound, one channel of a sampling rate.

    Args:
        value: a path, an address on the web or the bytes of a file; an array or a tensor ``[samples]`` or ``[channels,
            samples]`` of one or two channels and of this rate; or ``{"array": …, "sampling_rate": …}`` of any rate,
            with the array under ``"raw"`` or ``"array"``.
        rate: sampling rate of the result, in samples per second.

    Returns:
        The samples ``[samples]``, float32 or float64; integers that are of this rate already stay as they are.

    Raises:
        ImportError: for a file without soundfile.
        ValueError: for anything else, and what cannot be read; the message names it.
    """
    value, own_rate = plain(value), rate
    if isinstance(value, Mapping):
        array = next((value[name] for name in ("raw", "array") if value.get(name) is not None), None)
        if array is None or "sampling_rate" not in value:
            keys = ", ".join(map(str, value))
            raise ValueError(f'A sound is {{"array": …, "sampling_rate": …}}; got the keys {keys}.')
        value, own_rate = plain(array), whole_number("sampling_rate", value["sampling_rate"], 1)
    if isinstance(value, (str, bytes)):
        value, own_rate = _sound_of_file(value)
    return resampled(_one_channel(value), own_rate, rate)


def _one_channel(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        raise ValueError(
            f"{value!r:.80} is no sound; a sound is a path, an http or https address, bytes, an array or "
            '{"array": …, "sampling_rate": …}.'
        )
    if value.ndim not in (1, 2) or not value.size or (value.ndim == 2 and len(value) > 2):
        raise ValueError(
            f"An array of shape {value.shape} is no sound; a sound is [samples], or [channels, samples] of one or two "
            "channels. Several are given as a list."
        )
    return value if value.ndim == 1 else value.mean(axis=0)


def _sound_of_file(source: str | bytes) -> tuple[np.ndarray, int]:
    """The samples ``[samples]`` of a file, the mean of its channels, and their rate."""
    try:
        import soundfile
    except ImportError as error:
        raise ImportError('Files of sound need soundfile: pip install "tf-pipeline[audio]"') from error
    try:
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            with urlopen(source, timeout=SECONDS) as answer:
                source = answer.read()
        file = BytesIO(source) if isinstance(source, bytes) else source
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except Exception as error:  # of soundfile, of the system, or of the web
        raise ValueError(f"{source!r:.80} is no sound that can be read: {error}") from error
    return samples.mean(axis=1), rate


def resampled(sound: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """A sound ``[samples]`` of another sampling rate, by a windowed sinc as torchaudio's ``resample`` has it."""
    if rate == new_rate:
        return sound
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    cutoff = 0.99 * min(old, new)
    width = math.ceil(ZEROS * old / cutoff)
    places = np.arange(-width, width + old) / old - np.arange(new)[:, np.newaxis] / new
    places = np.clip(places * cutoff, -ZEROS, ZEROS)
    kernel = np.sinc(places) * np.cos(places * np.pi / ZEROS / 2) ** 2 * cutoff / old
    padded = np.pad(sound, (width, width + old))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[1])[::old]
    dtype = sound.dtype if sound.dtype.kind == "f" else np.float32  # integers would be cut off, and wrap around
    return (pieces @ kernel.T).reshape(-1)[: math.ceil(new * len(sound) / old)].astype(dtype)
