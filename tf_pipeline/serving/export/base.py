"""The shared part of all tasks' signatures: strings to ids, ids to outputs, all in one graph."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_pipeline.inputs import check_sizes
from tf_pipeline.pipelines.base import Pipeline
from tf_pipeline.tokenization.in_graph import InGraphTokenizer

# A function of strings, and its inputs by name.
TextSignature = tuple[Callable[..., dict[str, tf.Tensor]], dict[str, tf.TensorSpec]]
TEXT = tf.TensorSpec([None], tf.string)


class ExportedTask(tf.Module):
    """The graph of one task, as saved by :func:`tf_pipeline.export`.

    Signatures are traced from a local pipeline, whose model, tokenizer and options they share. Everything is
    batch-major and per row, as TensorFlow Serving's batching needs; nothing that a row holds can fail its batch.

    Args:
        pipe: the pipeline; texts are cut to its ``truncation_length``.
        tokenizer: its tokenizer, compiled; ``None`` for ids only.
        options: arguments of a call of the pipeline, which are baked in.
    """

    # Whether answers hold places in the text, and whether they name the model's labels.
    needs_offsets = False
    has_labels = False
    # Tokens that texts are cut to if nobody says how many and the model takes more.
    default_length: int | None = None

    @classmethod
    def prepare(cls, pipe: Pipeline, options: Mapping[str, Any]) -> None:
        """Set up the pipeline's tokenizer, a copy of the caller's, before it is compiled."""

    @classmethod
    def longest(cls, pipe: Pipeline, options: Mapping[str, Any]) -> int:
        """Maximum number of tokens that texts can be cut to."""
        return pipe.truncation_length

    def __init__(self, pipe: Pipeline, tokenizer: InGraphTokenizer | None, options: Mapping[str, Any]):
        super().__init__(name="served")
        self.pipe = Untracked(pipe)
        self.tokenizer = tokenizer
        # Not the layers: a SavedModel would hold a graph and an object for each of them.
        self.model_variables = [weight.value for weight in pipe.model.weights]
        # Padding on the left moves absolute positions, and an answer must not depend on the other rows of its batch.
        self._padding_side = "right" if pipe.model.num_positions else pipe.tokenizer.padding_side
        self.options = {**options}
        self._configure(*pipe.sanitize_parameters(**options))

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        """Prepare for the options of ``encode`` and of ``postprocess``, checked by the pipeline."""
        if encoding:
            raise TypeError(f"{self.pipe.value.task} is exported without {', '.join(encoding)}: nothing would heed it.")

    @property
    def labels(self) -> list[str]:
        """The model's labels, in the order of its logits."""
        config = self.pipe.value.model.config
        return [config.id2label[index] for index in range(config.num_labels)]

    def local_options(self) -> dict[str, Any]:
        """Arguments of a call with which the local pipeline answers as the export does."""
        return self.options

    def comparison(self) -> dict[str, Any]:
        """Arguments of a call, of client and local pipeline, with which their answers can be compared."""
        local = self.local_options()
        return {"top_k": local["top_k"]} if "top_k" in local else {}

    def text_signatures(self) -> dict[str, TextSignature]:
        """Functions of strings, by the name of the signature; ``serving_default`` is among them."""
        raise NotImplementedError

    def signatures(self) -> dict[str, Any]:
        """Concrete functions by name, with ``tokens`` for ids."""
        functions = self.text_signatures() if self.tokenizer is not None else {}
        traced = {
            name: tf.function(_checked(function), autograph=False).get_concrete_function(**specs)
            for name, (function, specs) in (functions | {"tokens": (self._tokens, self._token_specs())}).items()
        }
        return traced if self.tokenizer is not None else {"serving_default": traced["tokens"]} | traced

    # ------------------------------------------------------------------------------------------------- the stages

    def encode(self, text: tf.Tensor, text_pair: tf.Tensor | None = None, **options: Any) -> dict[str, tf.Tensor]:
        """Tokenize and cut; there is at least one column."""
        defaults = {"max_length": self.pipe.value.truncation_length, "padding_side": self._padding_side}
        options = {"truncation": True} | defaults | options
        encoded = self.tokenizer(text, text_pair, **options)
        missing = tf.maximum(1 - tf.shape(encoded["input_ids"])[1], 0)  # an empty batch, or texts without tokens
        fill = {"special_tokens_mask": 1, "sequence_ids": -1, "word_ids": -1}

        def widened(name, value):
            if value.shape.rank == 1:
                return value
            paddings = [[0, 0], [0, missing], *([[0, 0]] * (value.shape.rank - 2))]
            return tf.pad(value, paddings, constant_values=fill.get(name, 0))

        return {name: widened(name, value) for name, value in encoded.items()}

    def run_model(self, encoded: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The outputs that the pipeline reads, float32."""
        pipe = self.pipe.value
        outputs = pipe._compiled({name: encoded[name] for name in pipe.input_names})
        return {name: tf.cast(outputs[name], tf.float32) for name in pipe.output_names}

    def _token_specs(self) -> dict[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([None, None], tf.int64, name) for name in self.pipe.value.input_names}

    def _tokens(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Outputs for ids. A row with an id that there is no embedding for gives NaN, and leaves the others alone."""
        good, encoded = self.known_ids(inputs)
        outputs = self.run_model(encoded)
        return {
            name: tf.where(tf.reshape(good, [-1, *([1] * (value.shape.rank - 1))]), value, float("nan"))
            for name, value in outputs.items()
        }

    def known_ids(self, inputs: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Rows whose ids all have an embedding, bool ``[batch]``, and int32 inputs in which every id has one."""
        config = self.pipe.value.model.config
        good, within = tf.constant(True), {}
        for name, key in (("input_ids", "vocab_size"), ("token_type_ids", "type_vocab_size")):
            if name in inputs and (size := getattr(config, key, None)):
                within[name] = tf.clip_by_value(inputs[name], 0, size - 1)
                good &= tf.reduce_all(within[name] == inputs[name], axis=1)
        return good, {name: tf.cast(value, tf.int32) for name, value in (inputs | within).items()}


def _checked(function: Callable[..., dict[str, tf.Tensor]]) -> Callable[..., dict[str, tf.Tensor]]:
    """A function that refuses inputs of unequal size: rows of one input belong to rows of the others."""

    def checked(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(**check_sizes(inputs))

    return checked


class Untracked:
    """Hides an object from the tracking of a SavedModel's contents."""

    def __init__(self, value: Any):
        self.value = value


def input_specs(function: Any) -> dict[str, tf.TensorSpec]:
    """Inputs of a concrete function by name, whether it was traced or loaded."""
    positional, by_name = function.structured_input_signature
    return {spec.name: spec for spec in positional if spec is not None} | by_name


def padded(values: tf.Tensor, row: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Values ``[n]`` of rows ``[n]``, ascending, as ``[rows, longest row]``, filled up with zeros or ``""``."""
    row, rows = tf.cast(row, tf.int64), tf.cast(rows, tf.int64)
    # Unchecked: a check would be an assertion in the graph.
    return tf.RaggedTensor.from_value_rowids(values, row, rows, validate=False).to_tensor()


def substrings(texts: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Parts of valid UTF-8 strings by code points, all of one shape."""
    length = tf.strings.length(texts, unit="UTF8_CHAR")
    start = tf.clip_by_value(start, 0, length)
    return tf.strings.substr(texts, start, tf.maximum(end - start, 0), unit="UTF8_CHAR")
