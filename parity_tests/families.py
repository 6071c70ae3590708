"""The classes under test, and which of them stand for others where a test of all would only be slower.

Every class is compared with PyTorch (outputs, losses, gradients), loaded, saved and counted. What is left to a few are
other ways to run the same computation, and Keras' machinery, which does not know one class from another.
"""

from collections.abc import Iterable

import tf_pipeline
from parity_tests.tiers import exhaustive
from tf_pipeline.auto import supported_models

MODELS = supported_models()
FAMILY = {name: family for family, names in MODELS.items() for name in names}
CLASSES = tuple(FAMILY)
HEADS = tuple(name for name in CLASSES if getattr(tf_pipeline, name).label_names)


def _modules(family: str) -> set[str]:
    """The families whose code the family's body has, its own among them."""
    body, package = getattr(tf_pipeline, MODELS[family][0]), "tf_pipeline.models."
    return {base.__module__.removeprefix(package) for base in body.__mro__ if base.__module__.startswith(package)}


def _has_own_code(family: str) -> bool:
    """Whether the family's body is more than a subclass of another family's, as XLM-RoBERTa's is of RoBERTa's."""
    return len(_modules(family)) == 1


# Families whose computation no other has, and their classes.
OWN_FAMILIES = tuple(family for family in MODELS if _has_own_code(family))
OWN_CLASSES = tuple(name for name in CLASSES if FAMILY[name] in OWN_FAMILIES)
BODIES = tuple(MODELS[family][0] for family in OWN_FAMILIES)
MASKED_LMS = tuple(name for name in OWN_CLASSES if name.endswith("ForMaskedLM"))


def _computes_by_itself(name: str) -> bool:
    """Whether a head has a ``forward`` or a pair of labels of its own, where others differ in their layers alone."""
    model_class = getattr(tf_pipeline, name)
    return "forward" in vars(model_class) or name.endswith("ForPreTraining")


# What each family has of its own: the body, the head that reads the first token alone, and unusual heads.
REPRESENTATIVES = tuple(
    name
    for name in OWN_CLASSES
    if name in BODIES or name.endswith("ForSequenceClassification") or _computes_by_itself(name)
)

# Classes that stand for all in tests that would only be slower with more: the body of each family, every head of
# BERT's, and unusual heads.
STAND_INS = {*filter(_computes_by_itself, OWN_CLASSES), *MODELS["bert"], *(names[0] for names in MODELS.values())}

# Classes that differ in more than their names: all of families with code of their own, and the bodies of the others.
DISTINCT = tuple(name for name in CLASSES if name in OWN_CLASSES or name in STAND_INS)

# Encoder–decoders after BART's pattern, whose differences `test_encoder_decoders.py` shows.
FOLLOWERS = tuple(family for family in MODELS if "bart" in _modules(family) - {family})


def marked(names: Iterable[str]) -> list:
    """Those of :data:`DISTINCT` as parameters of tests, all of which but :data:`STAND_INS` are marked slow."""
    return exhaustive([name for name in names if name in DISTINCT], STAND_INS.intersection(names))
