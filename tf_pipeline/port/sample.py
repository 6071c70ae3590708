"""Inputs that a PyTorch model takes: examples to capture it with, and what it makes of an input that is left out."""

import inspect

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

from tf_pipeline.parity.inputs import padding_mask

# Sizes of the example: no two the same, none that a model might compute with.
BATCH, LENGTH, DECODER_LENGTH, CHOICES = 3, 11, 7, 2


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

    Args:
        model: the model.
        config: its config.
        batch: rows.
        length: positions.
        decoder_length: positions of the decoder, if there is one.
        padding_side: where all rows but the first are padded; ``None`` for no padding.
        seed: seed.
    """
    generator = torch.Generator().manual_seed(seed)
    taken = inspect.signature(type(model).forward).parameters
    main = model.main_input_name
    if main != "input_ids":
        return {main: _signal(main, config, batch, length, generator)}
    text = config.get_text_config()
    shape = (batch, CHOICES, length) if type(model).__name__.endswith("MultipleChoice") else (batch, length)
    inputs = {"input_ids": _ids(text, shape, generator), "attention_mask": _mask(shape, padding_side, generator)}
    if "attention_mask" in taken and padding_side is not None:
        inputs["input_ids"] = torch.where(
            inputs["attention_mask"] != 0, inputs["input_ids"], getattr(text, "pad_token_id", None) or 0
        )
    inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.int64)
    inputs["position_ids"] = torch.arange(length).expand(shape).clone()
    if "decoder_input_ids" in taken and config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _ids(text, (batch, decoder_length), generator)
        inputs["decoder_attention_mask"] = torch.ones(batch, decoder_length, dtype=torch.int64)
    return {name: value for name, value in inputs.items() if name in taken}


def _ids(config: PreTrainedConfig, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
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


def _signal(name: str, config: PreTrainedConfig, batch: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Pixels ``[batch, channels, height, width]``, a spectrogram, or sound ``[batch, samples]``."""
    if name == "pixel_values":
        size = getattr(config, "image_size", 32)
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        shape: tuple[int, ...] = (batch, getattr(config, "num_channels", 3), height, width)
    elif name == "input_features":
        bins = getattr(config, "num_mel_bins", None) or getattr(config, "feature_size", 80)
        shape = (batch, bins, 2 * getattr(config, "max_source_positions", length))
    else:
        shape = (batch, 400 + 320 * (length - 1))  # so many frames of wav2vec and its kin
    return torch.randn(shape, generator=generator)


def default_inputs(model: torch.nn.Module, config: PreTrainedConfig) -> dict[str, str | None]:
    """The inputs to capture a model with, and what stands for each when a caller leaves it out.

    The model itself is asked: an input has a default if leaving it out computes the same. Positions whose default
    depends on more than the length stay the model's own business, and are no input.

    Args:
        model: a PyTorch model in evaluation mode, in float32.
        config: its config.
    """
    inputs = sample_inputs(model, config, padding_side="left")
    names = {"attention_mask": "ones", "token_type_ids": "zeros", "position_ids": "positions",
             "decoder_attention_mask": "ones"}  # fmt: skip
    defaults: dict[str, str | None] = {}
    for name, value in inputs.items():
        default = names.get(name)
        if default is not None:
            rest = {key: x for key, x in inputs.items() if key != name and (key in defaults or key not in names)}
            given = rest | {name: torch.ones_like(value) if default == "ones" else value}
            if not _same(model, given, rest):
                if name == "position_ids" or (name == "token_type_ids" and name not in tokenizer_inputs(config)):
                    continue
                default = None
        defaults[name] = default
    return defaults


def tokenizer_inputs(config: PreTrainedConfig) -> list[str]:
    """What the architecture's tokenizer makes."""
    tokenizer_class = TOKENIZER_MAPPING.get(type(config), None)
    tokenizer_class = (
        tokenizer_class[-1] or tokenizer_class[0] if isinstance(tokenizer_class, tuple) else tokenizer_class
    )
    return list(getattr(tokenizer_class, "model_input_names", ("input_ids", "attention_mask")))


def _same(model: torch.nn.Module, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether a model computes the same from both; not if it takes one of them alone."""
    from tf_pipeline.port.capture import tensors_of

    try:
        with torch.no_grad():
            results = [tensors_of(model(**inputs, return_dict=True)) for inputs in (first, second)]
    except Exception:  # whatever the model raises, it does not take both
        return False
    pairs = zip(results[0].values(), results[1].values(), strict=True)
    return all(
        torch.is_tensor(a) and torch.allclose(a, b, 1e-4, 1e-5, equal_nan=True) for a, b in pairs if torch.is_tensor(a)
    )
