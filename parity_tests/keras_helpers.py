"""Tiny random models and inputs for tests of Keras' own machinery, which need no checkpoint."""

import keras
import numpy as np

import tf_pipeline
from parity_tests.families import FAMILY
from parity_tests.tiny import tiny_config
from tf_pipeline.parity.inputs import random_inputs


def tiny_model(class_name: str, dtype=None, dropout: bool = False, **config_changes):
    """A one-layer model of the class with random weights, the same at every call."""
    keras.utils.set_random_seed(0)
    family = FAMILY[class_name]
    rates = {} if dropout else {key: 0.0 for key in tiny_config(family, class_name).to_dict() if "drop" in key}
    changes = rates | {"num_hidden_layers": 1, "initializer_range": 0.2} | config_changes
    config = tiny_config(family, class_name, **changes)
    return getattr(tf_pipeline, class_name)(config, dtype=dtype)


def tiny_inputs(model, batch: int = 4, length: int = 7) -> dict[str, np.ndarray]:
    """Padded token ids and the other inputs a tokenizer gives, int32."""
    return _int32(random_inputs(model, batch, length))


def tiny_labels(model, batch: int = 4, length: int = 7) -> dict[str, np.ndarray]:
    """The labels that go with :func:`tiny_inputs`, int32."""
    labelled = random_inputs(model, batch, length, labels=True)
    return _int32({name: labelled[name] for name in model.label_names})


def _int32(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.astype("int32") for name, value in arrays.items()}


def symbols(model, inputs: dict[str, np.ndarray]) -> dict[str, keras.KerasTensor]:
    """A ``keras.Input`` of dynamic shape for each input."""
    return {name: keras.Input([None] * (x.ndim - 1), dtype=x.dtype.name, name=name) for name, x in inputs.items()}


def assert_same_outputs(actual, expected, atol: float = 3e-6):
    """The same fields in the same class, with equal values."""
    assert type(actual) is type(expected)
    assert_same_values(actual, expected, atol)


def assert_same_values(actual, expected, atol: float = 3e-6):
    """The same fields with equal values, in whatever kind of dictionary."""
    assert set(actual) == set(expected) and len(expected) > 0
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(actual[name]), np.asarray(value), rtol=1e-5, atol=atol, err_msg=name)
