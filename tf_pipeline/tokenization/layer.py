"""A tokenizer as a Keras layer: strings in, ids out, in models, ``tf.data`` and ``.keras`` files."""

import json
import os
from dataclasses import asdict
from typing import Any

import keras
import tensorflow as tf

from tf_pipeline.tokenization.auto import AutoTokenizer
from tf_pipeline.tokenization.in_graph import InGraphTokenizer, compile_tokenizer
from tf_pipeline.tokenization.in_graph.post_processors import Special

# Inputs of models that a tokenizer makes, of which it names those that its models take.
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@keras.saving.register_keras_serializable(package="tf_pipeline")
class TFTokenizer(keras.layers.Layer):
    """A Hugging Face tokenizer compiled to TensorFlow's own ops, as a preprocessing layer.

    It maps texts, string ``[batch]``, and a second text each, if given, to int32 ``[rows, length]`` by name, with the
    ids of the tokenizer it is made of, and the inputs that its models take. A ``.keras`` file holds all of it.

    Args:
        tokenizer: a fast tokenizer of ``transformers``, or a ``tokenizers.Tokenizer``.
        name: name of the layer.
        **options: of each call, such as ``truncation``, ``max_length``, ``padding``: see
            :meth:`~tf_pipeline.tokenization.in_graph.InGraphTokenizer.__call__`.

    Raises:
        UnsupportedTokenizer: for a tokenizer that cannot be compiled exactly.
        TypeError, ValueError: for an unknown option, or a value that it cannot have.
    """

    def __init__(self, tokenizer: Any, name: str | None = None, **options: Any):
        super().__init__(name=name, dtype="int32", trainable=False)
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        compiled = compile_tokenizer(tokenizer)
        wanted = getattr(tokenizer, "model_input_names", _INPUTS)
        self._take(compiled, backend.to_str(), [name for name in _INPUTS if name not in wanted], options)

    def _take(self, compiled: InGraphTokenizer, description: str, left_out: list[str], options: dict[str, Any]) -> None:
        self.compiled, self.description, self.left_out, self.options = compiled, description, left_out, options
        every = compiled(tf.constant(["a"]), **options)  # refuses options that cannot be honoured
        self.names = tuple(name for name in every if name not in left_out)
        self.built = True

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, name: str | None = None, **options: Any) -> "TFTokenizer":
        """The layer of a checkpoint's tokenizer.

        Args:
            source: a folder or a hub id.
            name: name of the layer.
            **options: of each call.
        """
        return cls(AutoTokenizer.from_pretrained(source), name=name, **options)

    def __call__(self, text, text_pair=None, **kwargs: Any):
        """Tokenize texts, which may be a list of strings."""
        return super().__call__(_texts(text), *(() if text_pair is None else (_texts(text_pair),)), **kwargs)

    def call(self, text, text_pair=None):
        """Tokenize string ``[batch]``; returns int32 tensors by name, ``[rows, length]``."""
        tensors = self.compiled(text, text_pair, **self.options)
        return {name: tensors[name] for name in self.names}

    def compute_output_spec(self, text, text_pair=None):
        """The form of the outputs: of a length that the texts decide."""
        ranks = {"offset_mapping": 3, "overflow_to_sample_mapping": 1}
        shapes = {name: [None] * ranks.get(name, 2) for name in self.names}
        return {name: keras.KerasTensor(shape, dtype="int32", name=name) for name, shape in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        """The tokenizer as the text of ``tokenizer.json``, what else it is, and the options."""
        defaults = dict(self.compiled.defaults)
        defaults["pad"] = defaults["pad"] and asdict(defaults["pad"])
        values = {"description": self.description, "defaults": defaults, "left_out": list(self.left_out)}
        return values | {"name": self.name, "options": dict(self.options)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TFTokenizer":
        """The layer of :meth:`get_config`."""
        from tokenizers import Tokenizer

        defaults = dict(config["defaults"])
        defaults["pad"] = defaults["pad"] and Special(**defaults["pad"])
        layer = cls.__new__(cls)
        keras.layers.Layer.__init__(layer, name=config["name"], dtype="int32", trainable=False)
        description = config["description"]
        with tf.init_scope(), tf.device("/CPU:0"):
            compiled = InGraphTokenizer(json.loads(description), Tokenizer.from_str(description), defaults)
        layer._take(compiled, description, list(config["left_out"]), dict(config["options"]))
        return layer


def _texts(texts: Any) -> Any:
    """Texts of Python as a tensor, which Keras wants; other texts stay as they are."""
    return tf.constant(texts, tf.string) if isinstance(texts, (str, bytes, list, tuple)) else texts
