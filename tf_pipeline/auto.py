"""Find the model class for a checkpoint: ``config.json`` names the family, the auto class names the head.

The family's module is ``tf_pipeline.models.<model_type>`` with ``-`` as ``_``; the head is found by the end of the
class name. A new family is therefore found without registering it.
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

from tf_pipeline import models
from tf_pipeline.hub import RepositoryError, repository_file, split_hub_options


class AutoConfig(transformers.AutoConfig):
    """Hugging Face's ``AutoConfig``, whose errors say which file or connection is missing."""

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, **kwargs: Any) -> PreTrainedConfig:
        """Read ``config.json`` of a local folder or hub id; other keywords change its values.

        Raises:
            RepositoryError: if it cannot be found.
            OSError: if it is not valid JSON.
            ValueError: if it names no known ``model_type``, or if ``source`` is a file of weights.
        """
        if str(source).endswith((".safetensors", ".bin")):
            raise ValueError(f"{source} holds weights and no config; pass config= as well, or the folder of both.")
        if not os.path.isfile(source):
            try:
                repository_file(source, "config.json", **split_hub_options(dict(kwargs)))
            except RepositoryError as error:
                raise RepositoryError(f"No config.json for {str(source)!r}. {error}") from error
        return transformers.AutoConfig.from_pretrained(source, **kwargs)


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
        supported = ", ".join(family.replace("_", "-") for family in _family_names())
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
    """The class called ``name`` in any family, or ``None``."""
    for family in _family_names():
        if (found := model_classes(family_module(family)).get(name)) is not None:
            return found
    return None


def supported_models() -> dict[str, list[str]]:
    """The model classes of each supported ``model_type``."""
    return {family.replace("_", "-"): list(model_classes(family_module(family))) for family in _family_names()}


def model_table() -> str:
    """The table of models in the README; ``python -m tf_pipeline.auto`` prints it."""
    rows = [("`model_type`", "classes"), ("---", "---")]
    rows += [(f"`{family}`", ", ".join(f"`{name}`" for name in names)) for family, names in supported_models().items()]
    return "\n".join(f"| {family} | {names} |" for family, names in rows)


class _AutoModel:
    """Builds the right class for a checkpoint or a config; the subclasses differ only in the head they ask for."""

    suffixes: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any):
        raise TypeError(f"{type(self).__name__} is made by from_pretrained(source) or from_config(config).")

    @classmethod
    def model_class(cls, config: PreTrainedConfig) -> type:
        """The class for ``config``.

        Raises:
            ValueError: if the family or this head of it is not supported.
        """
        if (found := cls._class_or_none(config)) is not None:
            return found
        classes = model_classes(family_module(config.model_type))
        raise ValueError(f"{cls.__name__} does not support {config.model_type!r}, which has {', '.join(classes)}.")

    @classmethod
    def _class_or_none(cls, config: PreTrainedConfig) -> type | None:
        classes = model_classes(family_module(config.model_type))
        found = (classes[name] for suffix in cls.suffixes for name in classes if name.endswith(suffix))
        return next(found, None)

    @classmethod
    def from_config(cls, config: PreTrainedConfig, **kwargs: Any):
        """A model of random weights; ``dtype`` and ``name`` may be given."""
        return cls.model_class(config)(config, **kwargs)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, config: PreTrainedConfig | str | None = None, **kwargs: Any):
        """Load a checkpoint; see :meth:`tf_pipeline.model.TFPreTrainedModel.from_pretrained`."""
        hub_options = split_hub_options(dict(kwargs))
        found = (
            config
            if isinstance(config, PreTrainedConfig)
            else AutoConfig.from_pretrained(config or source, **hub_options)
        )
        return cls.model_class(found).from_pretrained(source, config=config, **kwargs)


class TFAutoModel(_AutoModel):
    """The body, without a head."""

    suffixes = ("Model",)  # the first class of a family's module, before ...LMHeadModel


class TFAutoModelForTextEncoding(TFAutoModel):
    """The body, for encoding text."""


class TFAutoModelForPreTraining(_AutoModel):
    """The heads that the architecture was pre-trained with."""

    suffixes = ("ForPreTraining", "ForMaskedLM", "LMHeadModel")


class TFAutoModelForCausalLM(_AutoModel):
    """A head that predicts the next token."""

    suffixes = ("ForCausalLM", "LMHeadModel")


class TFAutoModelForMaskedLM(_AutoModel):
    """A head that predicts masked tokens."""

    suffixes = ("ForMaskedLM",)


class TFAutoModelForSequenceClassification(_AutoModel):
    """A head that classifies or scores a whole text."""

    suffixes = ("ForSequenceClassification",)


class TFAutoModelForTokenClassification(_AutoModel):
    """A head that classifies each token."""

    suffixes = ("ForTokenClassification",)


class TFAutoModelForQuestionAnswering(_AutoModel):
    """A head that finds the start and the end of an answer."""

    suffixes = ("ForQuestionAnswering",)


class TFAutoModelForMultipleChoice(_AutoModel):
    """A head that chooses among several continuations."""

    suffixes = ("ForMultipleChoice",)


class TFAutoModelForNextSentencePrediction(_AutoModel):
    """A head that tells whether one text follows another."""

    suffixes = ("ForNextSentencePrediction",)


if __name__ == "__main__":
    print(model_table())
