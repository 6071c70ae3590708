"""Exported models on TensorFlow Serving. Names are imported on first use."""

import importlib

_LAZY = {
    "Client": "tf_pipeline.serving.client",
    "RequestRefusedError": "tf_pipeline.serving.client.transport",
    "ServingError": "tf_pipeline.serving.client.transport",
}

__all__ = [*_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tf_pipeline.serving' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
