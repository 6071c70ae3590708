"""Tell Keras the names of all classes that saved models may hold, before any of them is imported."""

import importlib
import re
from importlib.resources import files
from types import ModuleType
from typing import Any

_OTHERS = {
    "metrics": ("Accuracy", "F1", "Perplexity"),
    "optimization": ("AdamWeightDecay", "WarmUp"),
    "tokenization.layer": ("TFTokenizer",),
}


class _Later:
    """A class in Keras' registry until its module is imported, which puts the class itself there."""

    def __init__(self, module: str, name: str):
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(importlib.import_module(self._module), self._name), name)


def register_classes(keras: ModuleType) -> None:
    """Add the names of the models, metrics, optimizers and layers to the registry of Keras."""
    registry = keras.saving.get_custom_objects()
    for module, name in _classes():
        registry.setdefault(f"tf_pipeline>{name}", _Later(module, name))


def _classes() -> list[tuple[str, str]]:
    """Module and name of every class; models are found in the source, as importing all of them takes long."""
    found = [(f"tf_pipeline.{module}", name) for module, names in _OTHERS.items() for name in names]
    for file in files("tf_pipeline.models").iterdir():
        if file.name.endswith(".py"):
            names = re.findall(r"^class (TF\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
            found += [(f"tf_pipeline.models.{file.name.removesuffix('.py')}", name) for name in names]
    return found
