"""Inputs that a PyTorch model takes: examples to capture it with, and defaults of inputs that are left out."""

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

from tf_pipeline.heads import head_of
from tf_pipeline.reference.inputs import padding_mask
from tf_pipeline.reference.outputs import tensors_of

# Sizes of the example: no two the same, none that a model might compute with.
BATCH, LENGTH, DECODER_LENGTH, CHOICES = 3, 11, 7, 2
# Texts times images where a model reads both: so many texts go with as many images as make this, never with as many
# images as texts, and with a single one of either.
PAIRS = 6
# Inputs that are no texts, and what the first axis counts where a model reads texts as well.
SIGNALS = {"pixel_values": "images", "pixel_values_videos": "videos", "input_features": "sounds",
           "input_values": "sounds"}  # fmt: skip
# Lengths of the text and the decoder's for models whose tables of positions are shorter than the example.
_SHORTER = ((LENGTH, DECODER_LENGTH), (7, 5), (5, 4), (4, 3))

# Values of a config at which the computation may change: windows, blocks, buckets of distances, lengths of training.
_BOUNDARIES = re.compile(
    r"(^|_)(window|window_size|radius|block_size|block_len|chunk_size|chunk_length|max_distance|num_buckets|kpool"
    r"|compress_(ratio|rate)s?|index_topk|max_relative_positions?|position_buckets)$|^original_max_position_embeddings$"
)
LONGEST = 512  # no boundary beyond is looked at


def sample_inputs(
    model: torch.nn.Module,
    config: PreTrainedConfig,
    batch: int = BATCH,
    length: int = LENGTH,
    decoder_length: int = DECODER_LENGTH,
    padding_side: str | None = "right",
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Random inputs of every kind that a PyTorch model takes.

    A model that takes texts as well as images, or sounds, is given both if its head scores the ones for the others, or
    if it does not run on its main input. Then there are ``PAIRS // batch`` images.

    Args:
        model: the model, in evaluation mode.
        config: its config.
        batch: rows, of texts if there are images as well.
        length: positions.
        decoder_length: positions of the decoder, if there is one.
        padding_side: side on which all rows but the first are padded; ``None`` for no padding.
        seed: seed.
    """
    generator = torch.Generator().manual_seed(seed)
    taken = inspect.signature(type(model).forward).parameters
    main = model.main_input_name
    text = config.get_text_config()
    decoder = {}
    if "decoder_input_ids" in taken and config.is_encoder_decoder:
        decoder["decoder_input_ids"] = token_ids(text, (batch, decoder_length), generator)
        decoder["decoder_attention_mask"] = torch.ones(batch, decoder_length, dtype=torch.int64)
    head = head_of(type(model).__name__)
    shape = (batch, CHOICES, length) if head is not None and head.input_rank == 3 else (batch, length)
    texts = partial(_texts, text, shape, padding_side, "attention_mask" in taken, generator)
    alone = texts() if main == "input_ids" else {main: _signal(main, config, batch, length, generator)}
    inputs = {name: value for name, value in (alone | decoder).items() if name in taken}
    signal = next((name for name in (main, *SIGNALS) if name in taken and name != "input_ids"), None)
    pairs = head is not None and head.pairs
    if signal is None or "input_ids" not in taken or (not pairs and _runs(model, inputs)):
        return inputs
    ended = _with_ends(text, alone if main == "input_ids" else texts())
    both = ended | {signal: _signal(signal, config, max(1, PAIRS // batch), length, generator)}
    return {name: value for name, value in both.items() if name in taken}


def batch_axis(name: str, names: Collection[str]) -> str:
    """Name of the first axis of an input: ``"batch"``, or, of a model of texts and images, of which kind it is.

    Args:
        name: the input.
        names: all inputs of the model.
    """
    both = "input_ids" in names and not SIGNALS.keys().isdisjoint(names)
    return SIGNALS.get(name, "texts") if both else "batch"


def _texts(
    config: PreTrainedConfig, shape: tuple[int, ...], side: str | None, has_mask: bool, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Inputs of texts, padded on a side if the model can be told."""
    inputs = {"input_ids": token_ids(config, shape, generator), "attention_mask": _mask(shape, side, generator)}
    if has_mask and side is not None:
        inputs["input_ids"] = torch.where(
            inputs["attention_mask"] != 0, inputs["input_ids"], getattr(config, "pad_token_id", None) or 0
        )
    sizes = type_sizes(config)
    zeros = torch.zeros(shape, dtype=torch.int64)
    inputs["token_type_ids"] = _table_types(inputs["attention_mask"], sizes, generator) if sizes else zeros
    inputs["position_ids"] = torch.arange(shape[-1]).expand(shape).clone()
    return inputs


def _with_ends(config: PreTrainedConfig, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Texts whose last token is the one that ends texts, which encoders of texts and images look for."""
    end, ids = getattr(config, "eos_token_id", None), inputs["input_ids"]
    if not isinstance(end, int) or not 0 <= end < getattr(config, "vocab_size", 0):
        return inputs
    places = torch.arange(ids.shape[-1])
    last = (inputs["attention_mask"] * (places + 1)).argmax(dim=-1, keepdim=True)
    return inputs | {"input_ids": torch.where(places == last, end, ids)}


def _runs(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Whether a model runs on inputs, floats of which are made its dtype."""
    own = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    try:
        with torch.no_grad():
            model(**own, return_dict=True)
    except Exception:  # whatever its code makes of what is missing
        return False
    return True


def boundaries(config: PreTrainedConfig) -> list[int]:
    """Lengths, in ascending order, that a config names and beyond which a model may compute something else.

    Those of windows, blocks, buckets of distances and the original training, up to :data:`LONGEST`; with rotary
    frequencies that grow with the length, that of the table of positions as well.
    """
    values = config.to_dict()
    lengths = {value for name, value in _numbers(values) if _BOUNDARIES.search(name)}
    if "dynamic" in str(values.get("rope_parameters")):
        lengths.add(values.get("max_position_embeddings"))
    return sorted(value for value in lengths if isinstance(value, int) and 1 < value < LONGEST)


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every whole number of a config, of its parts and of its lists, with the name that it has there."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
            items = value.values()
        else:
            items = value if isinstance(value, (list, tuple)) else [value]
        yield from ((name, item) for item in items if isinstance(item, int) and not isinstance(item, bool))


def example_lengths(model: torch.nn.Module, config: PreTrainedConfig, least: int = 0) -> dict[str, int]:
    """Lengths of an example that a PyTorch model takes: shorter than usual if its tables of positions are.

    Args:
        model: the model.
        config: its config.
        least: length that the text should have, if the model takes it.
    """
    attempts = [(least, DECODER_LENGTH)] * (least > LENGTH) + list(_SHORTER)
    for length, decoder_length in attempts:
        sizes = {"length": length, "decoder_length": decoder_length}
        try:
            with torch.no_grad():
                model(**sample_inputs(model, config, **sizes), return_dict=True)
        except (IndexError, RuntimeError, ValueError):  # beyond a table; what else is wrong the capture will say
            continue
        return sizes
    return {"length": LENGTH, "decoder_length": DECODER_LENGTH}


def token_ids(config: PreTrainedConfig, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Token ids without those that mean something of their own, which some models look for."""
    special = [getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "mask", "sep", "cls")]
    taken = {i for value in special for i in (value if isinstance(value, list) else [value])}
    free = torch.tensor([i for i in range(min(getattr(config, "vocab_size", 256), 5000)) if i not in taken])
    return free[torch.randint(0, len(free), shape, generator=generator)]


def _mask(shape: tuple[int, ...], side: str | None, generator: torch.Generator) -> torch.Tensor:
    if side is None:
        return torch.ones(shape, dtype=torch.int64)
    length = shape[-1]
    lengths = torch.randint(1, length + 1, shape[:-1], generator=generator)
    lengths[0] = length
    return torch.tensor(padding_mask(lengths.numpy(), length, side))


def type_sizes(config: PreTrainedConfig) -> tuple[int, ...]:
    """Sizes of the tables of types, of a model whose tokens have several (TAPAS); none for any other."""
    return tuple(getattr(config, "type_vocab_sizes", None) or ())


def _table_types(mask: torch.Tensor, sizes: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Types ``[batch, length, types]`` of questions with a table behind each, as TAPAS' tokenizer makes them.

    The tokens of a table are cells of one to three tokens, row by row, of as many columns as fall to its question. The
    types of a token are its segment, its column and its row, from 1 (headers are row 0), and those of its cell's
    value, which are random here. Questions and padding have zeros.
    """

    def drawn(low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, max(high, low + 1), (count,), generator=generator)

    types = torch.zeros(*mask.shape, len(sizes), dtype=torch.int64)
    for row, own in zip(types, mask, strict=True):
        places = own.nonzero().flatten()
        places = places[1 + len(places) // 4 :]
        count, columns = len(places), int(drawn(1, min(5, sizes[1]), 1))
        cells = torch.arange(count).repeat_interleave(drawn(1, 4, count))[:count].clamp(max=columns * sizes[2] - 1)
        structure = [torch.ones_like(cells), cells % columns + 1, cells // columns]
        row[places] = torch.stack([*structure, *(drawn(0, size, count) for size in sizes[3:])], 1)
    return types


def _signal(name: str, config: PreTrainedConfig, batch: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Pixels ``[batch, channels, height, width]``, a spectrogram, or sound ``[batch, samples]``."""
    if name == "pixel_values":
        height, width = _image_size(config, length)
        shape: tuple[int, ...] = (batch, getattr(_eyes(config), "num_channels", 3), height, width)
    elif name == "input_features":
        bins = getattr(config, "num_mel_bins", None) or getattr(config, "feature_size", 80)
        shape = (batch, bins, 2 * getattr(config, "max_source_positions", length))
    else:
        shape = (batch, 400 + 320 * (length - 1))  # so many frames of wav2vec and its kin
    return torch.randn(shape, generator=generator)


def _image_size(config: PreTrainedConfig, length: int) -> tuple[int, int]:
    """Height and width: those of the config, or any that grow with a length, of several pixels after many halvings."""
    size = getattr(_eyes(config), "image_size", None) or (80 + length - LENGTH, 110 + length - LENGTH)
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def has_open_images(config: PreTrainedConfig) -> bool:
    """Whether a model may take images of any size, because its config names none."""
    return getattr(_eyes(config), "image_size", None) is None


def _eyes(config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of a config that is about images."""
    return getattr(config, "vision_config", None) or config


def default_inputs(
    model: torch.nn.Module, config: PreTrainedConfig, sizes: Mapping[str, int] | None = None
) -> dict[str, str | None]:
    """The inputs to capture a model with, and the default of each that a caller leaves out.

    The model itself is asked: an input has a default if leaving it out computes the same. Positions whose default
    depends on more than the length stay the model's own business, and are no input.

    Args:
        model: a PyTorch model in evaluation mode, in float32.
        config: its config.
        sizes: lengths of the example, from :func:`example_lengths`.
    """
    inputs = sample_inputs(model, config, padding_side="left", **sizes or {})
    names = {"attention_mask": "ones", "token_type_ids": "zeros", "position_ids": "positions",
             "decoder_attention_mask": "ones"}  # fmt: skip
    defaults: dict[str, str | None] = {}
    for name, value in inputs.items():
        default = names.get(name)
        if default is not None:
            rest = {key: x for key, x in inputs.items() if key != name and (key in defaults or key not in names)}
            given = rest | {name: {"ones": torch.ones_like, "zeros": torch.zeros_like}.get(default, torch.clone)(value)}
            if not _same(model, given, rest):
                if name == "position_ids" or (name == "token_type_ids" and name not in tokenizer_inputs(config)):
                    continue
                default = None
        defaults[name] = default
    return defaults


def tokenizer_inputs(config: PreTrainedConfig) -> list[str]:
    """Names of the tensors that the architecture's tokenizer makes."""
    tokenizer_class = TOKENIZER_MAPPING.get(type(config), None)
    tokenizer_class = (
        tokenizer_class[-1] or tokenizer_class[0] if isinstance(tokenizer_class, tuple) else tokenizer_class
    )
    return list(getattr(tokenizer_class, "model_input_names", ("input_ids", "attention_mask")))


def _same(model: torch.nn.Module, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether a model computes the same from both; not if it takes one of them alone."""
    try:
        with torch.no_grad():
            results = [tensors_of(model(**inputs, return_dict=True)) for inputs in (first, second)]
    except Exception:  # whatever the model raises, it does not take both
        return False
    pairs = zip(results[0].values(), results[1].values(), strict=True)
    return all(torch.allclose(a, b, 1e-4, _rounding(b), equal_nan=True) for a, b in pairs if torch.is_tensor(a))


def _rounding(values: torch.Tensor) -> float:
    """A difference that says nothing: in the scores of a head with small random weights, smaller than elsewhere."""
    largest = float(values.abs().max()) if values.is_floating_point() and values.numel() else 1.0
    return 1e-5 * min(1.0, largest)
