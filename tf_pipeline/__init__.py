"""The Hugging Face pipeline (tokenizer, model, post-processing) on TensorFlow and Keras 3.

Public names are imported on first use, so that ``import tf_pipeline`` and ``tf-pipeline --help`` load
neither TensorFlow nor PyTorch.
"""

import importlib
import os

# Keras reads its backend once, at import; a user's own choice wins and is checked when a model is built.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

__version__ = "0.1.0"

_AUTO_CLASSES = (
    "TFAutoModel",
    "TFAutoModelForCausalLM",
    "TFAutoModelForMaskedLM",
    "TFAutoModelForMultipleChoice",
    "TFAutoModelForNextSentencePrediction",
    "TFAutoModelForPreTraining",
    "TFAutoModelForQuestionAnswering",
    "TFAutoModelForSeq2SeqLM",
    "TFAutoModelForSequenceClassification",
    "TFAutoModelForTextEncoding",
    "TFAutoModelForTokenClassification",
)

_LAZY = {name: "tf_pipeline.auto" for name in _AUTO_CLASSES} | {
    "AutoConfig": "tf_pipeline.config",
    "AutoTokenizer": "tf_pipeline.tokenization",
    "compare": "tf_pipeline.parity",
    "export": "tf_pipeline.serving.export",
    "pipeline": "tf_pipeline.pipelines",
    "supported_models": "tf_pipeline.auto",
}

__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name.startswith("TF"):
        from tf_pipeline.auto import find_model_class

        if (model_class := find_model_class(name)) is not None:
            return model_class
    raise AttributeError(f"module 'tf_pipeline' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
