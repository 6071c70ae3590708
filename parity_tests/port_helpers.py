"""Tiny PyTorch checkpoints of architectures that have no module of their own, made once a run."""

import os
from functools import cache
from pathlib import Path

import torch
import transformers

import tf_pipeline
from benchmarks import tiny
from parity_tests.checkpoint_helpers import new_folder
from tf_pipeline.port import gate
from tf_pipeline.port.complete import complete
from tf_pipeline.reference.loading import load_torch_model


@cache
def checkpoint(model_type: str, auto: str = "TFAutoModel", **changes) -> Path:
    """A checkpoint with every parameter random; shared, so nobody writes to it."""
    config = tiny.tiny_config(model_type, **changes)
    torch_class = getattr(transformers, torch_name(config, auto))
    folder = new_folder()
    load_torch_model(torch_class, None, config, torch.float32).save_pretrained(folder)
    return folder


@cache
def causal_pair(model_type: str, dtype: str = "float32", **changes):
    """Our language model and PyTorch's of a tiny checkpoint; shared, so nobody changes them."""
    folder = checkpoint(model_type, "TFAutoModelForCausalLM", **changes)
    ours = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    torch_class = getattr(transformers, type(ours).__name__.removeprefix("TF"))
    if dtype == "float64":  # which PyTorch's usual code for experts does not take
        return ours, load_torch_model(torch_class, folder, ours.config, torch.float32).double()
    return ours, torch_class.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def torch_name(config, auto: str) -> str:
    """PyTorch's class of a config for one of our auto classes."""
    return getattr(tf_pipeline, auto).model_class(config).__name__.removeprefix("TF")


def use_cache_of(monkeypatch, folder: Path) -> Path:
    """Keep ported graphs in a folder of a test's own."""
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(folder))
    return folder


@cache
def shared_cache() -> Path:
    """Where the graphs of this run are kept, by all of its processes, so that each architecture is captured once."""
    os.environ["TF_PIPELINE_CACHE"] = os.environ["TF_PIPELINE_TEST_CACHE"]
    return Path(os.environ["TF_PIPELINE_CACHE"])


def proven(captured, model_class: type, config) -> list:
    """The checks of a captured graph, which is completed first."""
    return gate.check(*complete(captured, model_class, config))
