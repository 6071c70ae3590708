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
from parity_tests.pipeline_helpers import labels_of, saved
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
    return image_checkpoint() if task == "image-classification" else image_checkpoint("vit", "Model")
