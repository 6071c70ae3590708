"""Find the model class for a checkpoint: ``config.json`` names the family, the auto class names the head.

The family's module is ``tf_pipeline.models.<model_type>`` with ``-`` as ``_``; its classes are named as those that
``transformers`` lists for the head, with ``TF`` before. A new family is therefore found without registering it. What
has no module, or not this head, is ported from PyTorch's class: see :mod:`tf_pipeline.port`.
"""

import importlib
import inspect
import os
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

import transformers
from transformers import PreTrainedConfig

from tf_pipeline import heads, models
from tf_pipeline.config import AutoConfig
from tf_pipeline.hub import split_hub_options
from tf_pipeline.port.mappings import mapping as torch_classes


@cache
def _family_names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(models.__path__)))


def family_module(model_type: str) -> ModuleType:
    """The module of a family.

    Raises:
        ValueError: for a ``model_type`` that is not supported; the message lists those that are.
    """
    name = model_type.replace("-", "_")
    if name not in _family_names():
        supported = ", ".join(map(_model_type, _family_names()))
        raise ValueError(f"model_type {model_type!r} is not supported; supported are {supported}.")
    return importlib.import_module(f"tf_pipeline.models.{name}")


def model_classes(module: ModuleType) -> dict[str, type]:
    """The model classes that a family's module defines, by name, in its own order."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and name.startswith("TF")
        and "PreTrainedModel" not in name
    }


def find_model_class(name: str) -> type | None:
    """The class called ``name``: of a family, or ported from PyTorch's of that name; ``None`` if there is none."""
    for family in _family_names():
        if (found_class := model_classes(family_module(family)).get(name)) is not None:
            return found_class
    torch_name = name.removeprefix("TF")
    if any(torch_name in _names(mapping) for model in _AutoModel.__subclasses__() for mapping in model.mappings):
        return _ported_class(torch_name)
    return None


def _names(mapping: str) -> set[str]:
    """Every class of PyTorch's in one of the mappings of ``transformers``."""
    return {name for names in torch_classes(mapping).values() for name in names}


def _ported_class(torch_name: str) -> type:
    from tf_pipeline.port.model import ported_class

    return ported_class(torch_name)


def supported_models() -> dict[str, list[str]]:
    """The model classes of each ``model_type`` that has a module of its own; others are ported."""
    return {_model_type(family): list(model_classes(family_module(family))) for family in _family_names()}


def _model_type(family: str) -> str:
    """The ``model_type`` of a module, whose name cannot have a ``-``."""
    return family if family in transformers.CONFIG_MAPPING else family.replace("_", "-")


def model_table() -> str:
    """The table of ``docs/models.md``; ``python -m tf_pipeline.auto`` prints it."""
    rows = [("`model_type`", "classes"), ("---", "---")]
    rows += [(f"`{family}`", ", ".join(f"`{name}`" for name in names)) for family, names in supported_models().items()]
    return "\n".join(f"| {family} | {names} |" for family, names in rows)


def _native_classes(config: PreTrainedConfig) -> dict[str, type]:
    """The classes of an architecture that has a module of its own; none for another."""
    known = config.model_type.replace("-", "_") in _family_names()
    return model_classes(family_module(config.model_type)) if known else {}


class _AutoModel:
    """Builds the right class for a checkpoint or a config; the subclasses differ only in the head they ask for."""

    # Where ``transformers`` lists PyTorch's classes of this kind.
    mappings: tuple[str, ...] = ()
    # Where else to look for the class of a family that has a module of its own.
    further_mappings: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any):
        raise TypeError(f"{type(self).__name__} is made by from_pretrained(source) or from_config(config).")

    @classmethod
    def model_class(cls, config: PreTrainedConfig) -> type:
        """The class for ``config``: of its family, else ported.

        Raises:
            ValueError: if ``transformers`` has no such head for this architecture either.
        """
        if (found_class := cls._class_or_none(config)) is not None:
            return found_class
        for mapping in cls.mappings:
            if (names := torch_classes(mapping).get(config.model_type)) is not None:
                return _ported_class(names[0])
        if (name := cls._own_code(config)) is not None:
            return _ported_class(name)
        native = _native_classes(config)
        has = f"; it has {', '.join(native)}" if native else ""
        raise ValueError(
            f"{cls.__name__} does not support model_type {config.model_type!r}: transformers "
            f"{transformers.__version__} has no class of this kind for it{has}."
        )

    @classmethod
    def check_head(cls, model: Any, purpose: str) -> None:
        """Require a model of a class that this one loads.

        Raises:
            ValueError: naming the class, and the one of the same architecture that serves the purpose.
        """
        if heads.is_listed(type(model), cls.mappings):
            return
        names = [name for mapping in cls.mappings for name in torch_classes(mapping).get(model.config.model_type, ())]
        needed = f"TF{names[0]}" if names else "a model of another architecture"
        raise ValueError(
            f"{type(model).__name__} is not for {purpose}: that needs {needed}, as {cls.__name__} loads it."
        )

    @classmethod
    def _own_code(cls, config: PreTrainedConfig) -> str | None:
        """Name of the class that a checkpoint's own code has for this."""
        reference = (getattr(config, "auto_map", None) or {}).get(cls.__name__.removeprefix("TF"))
        return reference.rpartition(".")[2] if reference else None

    @classmethod
    def _class_or_none(cls, config: PreTrainedConfig) -> type | None:
        """The class of the architecture's own module, if it has one with this head."""
        classes = _native_classes(config)
        listed = (
            torch_classes(mapping).get(config.model_type, ()) for mapping in (*cls.mappings, *cls.further_mappings)
        )
        found_classes = (classes.get(f"TF{name}") for names in listed for name in names)
        return next(filter(None, found_classes), None)

    @classmethod
    def from_config(cls, config: PreTrainedConfig, **kwargs: Any):
        """A model of random weights; ``dtype`` and ``name`` may be given."""
        return cls.model_class(config)(config, **kwargs)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, config: PreTrainedConfig | str | None = None, **kwargs: Any):
        """Load a checkpoint; see :meth:`tf_pipeline.model.TFPreTrainedModel.from_pretrained`."""
        hub_options = split_hub_options(kwargs)
        kwargs |= hub_options
        if "trust_remote_code" in kwargs:
            hub_options["trust_remote_code"] = kwargs.pop("trust_remote_code")
        found_config = (
            config
            if isinstance(config, PreTrainedConfig)
            else AutoConfig.from_pretrained(source if config is None else config, **hub_options)
        )
        if hub_options.get("trust_remote_code"):
            config = found_config
        return cls.model_class(found_config).from_pretrained(source, config=config, **kwargs)


class TFAutoModel(_AutoModel):
    """The body, without a head."""

    mappings = heads.BODY.mappings


class TFAutoModelForTextEncoding(TFAutoModel):
    """The body, for encoding text."""

    mappings = ("MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES", "MODEL_MAPPING_NAMES")


class TFAutoModelForPreTraining(_AutoModel):
    """The heads that the architecture was pre-trained with."""

    mappings = heads.PRE_TRAINING.mappings
    further_mappings = heads.MASKED_LM.mappings


class TFAutoModelForCausalLM(_AutoModel):
    """A head that predicts the next token."""

    mappings = heads.CAUSAL_LM.mappings


class TFAutoModelForSeq2SeqLM(_AutoModel):
    """An encoder, and a decoder that predicts the next token."""

    mappings = heads.SEQ_TO_SEQ_LM.mappings


class TFAutoModelForMaskedLM(_AutoModel):
    """A head that predicts masked tokens."""

    mappings = heads.MASKED_LM.mappings


class TFAutoModelForSequenceClassification(_AutoModel):
    """A head that classifies or scores a whole text."""

    mappings = heads.SEQUENCE_CLASSIFICATION.mappings


class TFAutoModelForTokenClassification(_AutoModel):
    """A head that classifies each token."""

    mappings = heads.TOKEN_CLASSIFICATION.mappings


class TFAutoModelForQuestionAnswering(_AutoModel):
    """A head that finds the start and the end of an answer."""

    mappings = heads.QUESTION_ANSWERING.mappings


class TFAutoModelForTableQuestionAnswering(_AutoModel):
    """A head that selects cells of a table, and an operation on them; without PyTorch's loss."""

    mappings = heads.TABLE_QUESTION_ANSWERING.mappings

    @classmethod
    def model_class(cls, config: PreTrainedConfig) -> type:
        """The class for ``config``.

        Raises:
            ValueError: if ``transformers`` has no such head for this architecture.
        """
        if config.model_type in torch_classes(TFAutoModelForSeq2SeqLM.mappings[0]):
            raise ValueError(
                f"{cls.__name__} does not support model_type {config.model_type!r}: models that write answers from "
                "tables, as TAPEX does, need its tokenizer, which transformers 5 no longer has."
            )
        return super().model_class(config)


class TFAutoModelForMultipleChoice(_AutoModel):
    """A head that chooses among several continuations."""

    mappings = heads.MULTIPLE_CHOICE.mappings


class TFAutoModelForImageClassification(_AutoModel):
    """A head that classifies images."""

    mappings = heads.IMAGE_CLASSIFICATION.mappings


class TFAutoModelForZeroShotImageClassification(_AutoModel):
    """An encoder of texts and one of images, which score every text for every image; without PyTorch's loss."""

    mappings = heads.ZERO_SHOT_IMAGE_CLASSIFICATION.mappings


class TFAutoModelForCTC(_AutoModel):
    """A head that gives each frame of a sound the scores of characters; without PyTorch's loss."""

    mappings = heads.CTC.mappings


class TFAutoModelForAudioClassification(_AutoModel):
    """A head that classifies sounds."""

    mappings = heads.AUDIO_CLASSIFICATION.mappings


class TFAutoModelForSpeechSeq2Seq(_AutoModel):
    """An encoder of sounds, and a decoder that predicts the next token."""

    mappings = heads.SEQ_TO_SEQ_LM.elsewhere


class SpeechRecognitionModels(_AutoModel):
    """Loads either kind of model that writes down speech, for the pipeline of that task."""

    mappings = TFAutoModelForCTC.mappings + TFAutoModelForSpeechSeq2Seq.mappings


class TFAutoModelForNextSentencePrediction(_AutoModel):
    """A head that tells whether one text follows another."""

    mappings = heads.NEXT_SENTENCE_PREDICTION.mappings


if __name__ == "__main__":
    print(model_table())
