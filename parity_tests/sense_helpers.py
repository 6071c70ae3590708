"""Tiny checkpoints of models of images and sounds with their processors, and inputs for them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers
from PIL import Image

from benchmarks import tiny
from parity_tests.checkpoint_helpers import new_folder
from parity_tests.pipeline_helpers import byte_level, labels_of, saved
from parity_tests.port_helpers import shared_cache
from tf_pipeline.pipelines.tasks import MEDIA

LABELS = labels_of(["cat", "dog", "bird", "cow", "fox", "hen", "bee"])
RATE = 16000
CHARACTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefgh")
EARS = {
    "conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "num_hidden_layers": 1,
}  # fmt: skip


def image(seed: int, height: int = 50, width: int = 40) -> Image.Image:
    """A random image of Pillow."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@cache
def image_file(seed: int) -> str:
    """The path of a random image."""
    path = new_folder() / f"{seed}.png"
    image(seed).save(path)
    return str(path)


def sound(seed: int, samples: int = 4000) -> np.ndarray:
    """A tone of changing height, with noise: float32 ``[samples]``."""
    drawn, places = np.random.default_rng(seed), np.arange(samples) / RATE
    return (np.sin(2 * np.pi * (200 + 300 * places) * places * (1 + seed)) + drawn.normal(0, 0.1, samples)).astype("f4")


@cache
def sound_file(seed: int) -> str:
    """The path of a sound."""
    path = new_folder() / f"{seed}.wav"
    soundfile.write(path, sound(seed), RATE, "FLOAT")
    return str(path)


@cache
def sound_checkpoint(model_type: str = "wav2vec2", head: str = "ForCTC") -> Path:
    """A checkpoint of sounds with its feature extractor and a tokenizer of characters; a frame is 20 samples."""
    shared_cache()
    config = tiny.tiny_config(model_type, **LABELS, **EARS)
    config.vocab_size = len(CHARACTERS)
    model_class = getattr(transformers, type(config).__name__.removesuffix("Config") + head)
    folder = saved(model_class(config), _tokenizer())
    model = model_class.from_pretrained(folder)
    with torch.no_grad():  # by which frames differ, and so do their characters
        for name, parameter in model.named_parameters():
            if "norm" in name or name == "lm_head.bias":
                parameter.fill_(float(name.endswith("weight")))
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE).save_pretrained(folder)
    return folder


def _tokenizer() -> transformers.Wav2Vec2CTCTokenizer:
    path = new_folder() / "vocab.json"
    path.write_text(json.dumps({character: place for place, character in enumerate(CHARACTERS)}))
    return transformers.Wav2Vec2CTCTokenizer(path)


@cache
def image_checkpoint(model_type: str = "resnet", head: str = "ForImageClassification", size: int = 48) -> Path:
    """A checkpoint of images with an image processor that makes ``size`` pixels of each side."""
    shared_cache()
    config = tiny.tiny_config(model_type, **LABELS)
    eyes = getattr(config, "vision_config", config)
    if getattr(eyes, "image_size", None) is not None:
        eyes.image_size = size
    name = type(config).__name__.removesuffix("Config") + head
    processor = transformers.ViTImageProcessorPil(size={"height": size, "width": size})
    return saved(getattr(transformers, name)(config), processor)


def pair_config(model_type: str, **texts) -> transformers.PreTrainedConfig:
    """A tiny config of a model of texts and images, which have 32 pixels of each side.

    Args:
        model_type: such as ``"clip"``.
        **texts: values of the part about texts.
    """
    config = tiny.tiny_config(model_type)
    if model_type == "align":  # sizes of stages are products of these
        eyes = {"num_block_repeats": [1] * 7, "width_coefficient": 0.25, "depth_coefficient": 1.0}
        config.projection_dim = 80
    else:
        eyes = {"patch_size": 8}
    if model_type == "blip-2":
        config.qformer_config.use_qformer_text_input = True
    for part, values in ((config.vision_config, eyes | {"image_size": 32}), (config.get_text_config(), texts)):
        for name, value in values.items():
            setattr(part, name, value)
    return config


@cache
def pair_checkpoint(model_type: str = "clip") -> Path:
    """A checkpoint of CLIP or SigLIP with a tokenizer and its image processor."""
    shared_cache()
    specials = ["<|start|>", "<|end|>", "<pad>"]  # of an end whose id is 2, CLIP takes the largest id instead
    # CLIP is padded with the token that ends texts, and takes the first; SigLIP's tokenizer returns no mask.
    options = {"clip": {"pad_token": "<|end|>", "model_input_names": ["input_ids", "attention_mask"]},
               "siglip": {"pad_token": "<pad>", "model_input_names": ["input_ids"]}}[model_type]  # fmt: skip
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(specials, "<|end|>"), eos_token="<|end|>", model_max_length=64, **options
    )
    texts = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 0,
             "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    config = pair_config(model_type, **texts)
    processor = {"clip": transformers.CLIPImageProcessorPil, "siglip": transformers.SiglipImageProcessorPil}[model_type]
    size = {"height": 32, "width": 32}
    model = transformers.AutoModelForZeroShotImageClassification.from_config(config)
    folder = saved(model, tokenizer)
    with torch.no_grad():  # by which labels differ, and SigLIP's scores are neither 0 nor 1
        model.logit_scale.fill_(4.0)
        if model_type == "siglip":
            model.logit_bias.fill_(12.0)
    model.save_pretrained(folder)
    processor(size=size, crop_size=size).save_pretrained(folder)
    return folder


def medium_of(task: str) -> Image.Image | np.ndarray:
    """An input of a task on images or sounds."""
    return image(0) if MEDIA[task] == "image" else sound(0)


def file_of(task: str, seed: int) -> str:
    """The path of an input of a task on images or sounds."""
    return (image_file if MEDIA[task] == "image" else sound_file)(seed)


def checkpoint_of(task: str) -> Path:
    """A checkpoint of a task on images or sounds."""
    if task == "audio-classification":
        return sound_checkpoint(head="ForSequenceClassification")
    if task == "automatic-speech-recognition":
        return sound_checkpoint()
    if task == "zero-shot-image-classification":
        return pair_checkpoint()
    return image_checkpoint() if task == "image-classification" else image_checkpoint("vit", "Model")
