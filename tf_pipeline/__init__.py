"""The Hugging Face pipeline (tokenizer, model, post-processing) on TensorFlow and Keras 3.

Public names are imported on first use, so that ``import tf_pipeline`` and ``tf-pipeline --help`` load
neither TensorFlow nor PyTorch.
"""

import importlib
import os
import sys

import wrapt

from tf_pipeline.registry import register_classes

# Keras reads its backend once, at import; a user's own choice wins and is checked when a model is built.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
wrapt.register_post_import_hook(register_classes, "keras")  # so that `keras.models.load_model` knows our classes

__version__ = "0.1.0"

_AUTO_CLASSES = (
    "TFAutoModel",
    "TFAutoModelForAudioClassification",
    "TFAutoModelForCTC",
    "TFAutoModelForCausalLM",
    "TFAutoModelForImageClassification",
    "TFAutoModelForMaskedLM",
    "TFAutoModelForMultipleChoice",
    "TFAutoModelForNextSentencePrediction",
    "TFAutoModelForPreTraining",
    "TFAutoModelForQuestionAnswering",
    "TFAutoModelForSeq2SeqLM",
    "TFAutoModelForSequenceClassification",
    "TFAutoModelForSpeechSeq2Seq",
    "TFAutoModelForTableQuestionAnswering",
    "TFAutoModelForTextEncoding",
    "TFAutoModelForTokenClassification",
    "TFAutoModelForZeroShotImageClassification",
)

_COLLATORS = (
    "DataCollatorForLanguageModeling",
    "DataCollatorForMultipleChoice",
    "DataCollatorForPermutationLanguageModeling",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
    "DefaultDataCollator",
    "tf_default_data_collator",
)

_LAZY = (
    dict.fromkeys(_AUTO_CLASSES, "tf_pipeline.auto")
    | dict.fromkeys(_COLLATORS, "tf_pipeline.data")
    | {
        "AdamWeightDecay": "tf_pipeline.optimization",
        "AutoConfig": "tf_pipeline.config",
        "AutoTokenizer": "tf_pipeline.tokenization",
        "GenerationConfig": "tf_pipeline.generation.config",
        "KerasMetricCallback": "tf_pipeline.callbacks",
        "PushToHubCallback": "tf_pipeline.callbacks",
        "TFPreTrainedModel": "tf_pipeline.model",
        "TFTokenizer": "tf_pipeline.tokenization.layer",
        "WarmUp": "tf_pipeline.optimization",
        "compare": "tf_pipeline.parity",
        "create_optimizer": "tf_pipeline.optimization",
        "export": "tf_pipeline.serving.export",
        "pipeline": "tf_pipeline.pipelines",
        "supported_models": "tf_pipeline.auto",
    }
)

__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name.startswith("TF"):
        from tf_pipeline.auto import find_model_class

        if (model_class := find_model_class(name)) is not None:
            return model_class
    if name.startswith("_"):  # Python and its tools ask for many such names
        raise AttributeError(f"module 'tf_pipeline' has no attribute {name!r}")
    from tf_pipeline.former_names import resolve

    return resolve(name, __dir__(), is_import=sys._getframe(1).f_code.co_name == "_handle_fromlist")


def __dir__():
    from tf_pipeline.former_names import former_names

    return sorted({*__all__, *(name for name, here in former_names().items() if here)})
