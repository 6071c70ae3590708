"""``AutoTokenizer`` is Hugging Face's own; ``return_tensors="tf"``, which ``transformers`` 5 dropped, works again.

Tokenizers are made to return NumPy arrays, which become int32 tensors, as in ``transformers`` 4. Everything else, and
every other value of ``return_tensors``, is untouched.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import transformers
from transformers.utils import TensorType

from tf_pipeline.hub import RepositoryError, lacking, repository_file, split_hub_options


class AutoTokenizer:
    """Loads the tokenizer of a checkpoint."""

    def __init__(self):
        raise TypeError("AutoTokenizer is made by AutoTokenizer.from_pretrained(source).")

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, *args: Any, **kwargs: Any):
        """Load a tokenizer as ``transformers.AutoTokenizer`` does.

        Args:
            source: a local folder or a hub id.
            *args: passed on.
            **kwargs: passed on: ``revision``, ``use_fast``, ``padding_side``, ``model_max_length``, …

        Returns:
            The tokenizer. Its calls take ``return_tensors="tf"``, and ``padding_side`` and ``truncation_side``
            (``"left"`` or ``"right"``) for one call.

        Raises:
            RepositoryError: if ``source`` is neither a folder nor a hub repository that can be read.
            ImportError: if the tokenizer reads tables, and pandas is not installed.
        """
        hub_options = split_hub_options(kwargs)
        _check_found(source, **hub_options)
        try:
            return with_tensorflow(transformers.AutoTokenizer.from_pretrained(source, *args, **kwargs, **hub_options))
        except ImportError as error:
            if "Pandas" not in str(error):
                raise
            raise ImportError('A tokenizer of tables needs pandas: pip install "tf-pipeline[tables]"') from error


def _check_found(source: str | os.PathLike, **hub_options: Any) -> None:
    """Fail early and clearly: without any tokenizer file, ``transformers`` guesses and fails far from the cause."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
    if not any(repository_file(source, name, required=False, **hub_options) for name in names):
        what = f"has no tokenizer: none of {', '.join(names)} is there."
        raise RepositoryError(lacking(source, what, **hub_options))


def with_tensorflow(tokenizer):
    """Let a Hugging Face tokenizer take ``return_tensors="tf"``; returns the same object."""
    if not isinstance(tokenizer, TensorFlowTensors):
        tokenizer.__class__ = tensorflow_class(type(tokenizer))
    return tokenizer


@cache
def tensorflow_class(base: type) -> type:
    """The class of a Hugging Face tokenizer whose calls take ``return_tensors="tf"``."""
    # The name stays: save_pretrained writes it into tokenizer_config.json.
    return type(base.__name__, (TensorFlowTensors, base), {"__module__": base.__module__, "__doc__": base.__doc__})


class TensorFlowTensors:
    """Adds ``return_tensors="tf"`` and ``truncation_side=`` to the calls of a tokenizer, one thread at a time."""

    @property
    def lock(self) -> Any:
        """The lock of a call: truncation, padding and languages are state of the tokenizer, which threads share."""
        return self.__dict__.setdefault("_lock", threading.RLock())

    def __call__(self, *args: Any, truncation_side: str | None = None, **kwargs: Any):
        """Tokenize, as the class beneath does; texts may also be a column of ``datasets``."""
        args, kwargs = map(_listed, args), {name: _listed(value) for name, value in kwargs.items()}
        with self._truncating(truncation_side):
            return _with_tensors(super().__call__, *args, **kwargs)

    def encode(self, *args: Any, truncation_side: str | None = None, **kwargs: Any):
        """Token ids of one text, as the class beneath gives them."""
        with self._truncating(truncation_side):
            return _with_tensors(super().encode, *args, **kwargs)

    def pad(self, encoded_inputs, *args: Any, **kwargs: Any):
        """Pad encoded inputs, which may hold TensorFlow tensors."""
        with self.lock:
            return _with_tensors(super().pad, _as_numpy(encoded_inputs), *args, **kwargs)

    def apply_chat_template(self, *args: Any, **kwargs: Any):
        """Format and tokenize a conversation, as the class beneath does."""
        with self.lock:
            return _with_tensors(super().apply_chat_template, *args, **kwargs)

    def decode(self, token_ids, *args: Any, **kwargs: Any):
        """Text of token ids, which may be a TensorFlow tensor."""
        return super().decode(_as_numpy(token_ids), *args, **kwargs)

    def batch_decode(self, sequences, *args: Any, **kwargs: Any):
        """Texts of a batch of token ids, which may be a TensorFlow tensor."""
        return super().batch_decode(_as_numpy(sequences), *args, **kwargs)

    @contextlib.contextmanager
    def _truncating(self, side: str | None):
        if side not in (None, "left", "right"):
            raise ValueError(f"truncation_side {side!r} is not supported; use 'left' or 'right'.")
        with self.lock:
            own = self.truncation_side
            self.truncation_side = side or own
            try:
                yield
            finally:
                self.truncation_side = own

    def __reduce__(self):
        # The class is made at run time; pickle the one beneath and wrap it again.
        return _restore, (type(self).__mro__[2], {k: v for k, v in self.__dict__.items() if k != "_lock"})


def _listed(value: Any) -> Any:
    """A list of a column, which ``datasets`` has been reading lazily since its version 4; any other value itself."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes, list, tuple)) else value


def _restore(base: type, state: dict[str, Any]):
    tokenizer = base.__new__(base)
    tokenizer.__dict__.update(state)
    return with_tensorflow(tokenizer)


def _with_tensors(method, *args: Any, return_tensors: Any = None, **kwargs: Any):
    kinds = tuple(dict.fromkeys(["tf", *(kind.value for kind in TensorType)]))
    if return_tensors is not None and return_tensors not in kinds:
        raise ValueError(f"return_tensors is {return_tensors!r:.80}, but has to be one of {', '.join(kinds)}.")
    if return_tensors != "tf":
        return method(*args, return_tensors=return_tensors, **kwargs)
    result = method(*args, return_tensors="np", **kwargs)
    if not hasattr(result, "items"):
        return _as_tensor(result)
    for name, value in result.items():
        result[name] = _as_tensor(value, name)
    return result


def _as_tensor(value: Any, name: str = "input_ids"):
    import tensorflow as tf

    array = np.asarray(value)
    if array.dtype == object:
        raise ValueError(
            f"The rows of {name} have different lengths, so they make no tensor: pass padding=True (and "
            "truncation=True where texts may be longer than the model takes)."
        )
    return tf.convert_to_tensor(array.astype(np.int32) if array.dtype.kind in "iub" else array)


def _as_numpy(value: Any):
    if hasattr(value, "items"):
        return type(value)({name: _as_numpy(item) for name, item in value.items()})
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], int):
        return [_as_numpy(item) for item in value]
    return value.numpy() if hasattr(value, "numpy") and type(value).__module__.startswith("tensorflow") else value


def pad_with_end(tokenizer: Any) -> None:
    """Let a tokenizer without a padding token, such as GPT-2's, pad with the token that ends texts: masks hide it."""
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
