"""Computation of the encoder–decoders of all families and of their heads, whose layers a family's file constructs.

Either half is a :class:`Stack`. A body is an :class:`EncoderDecoderBody`, a head one of the classes named after its
task: ``class TFT5Model(EncoderDecoderBody, TFT5PreTrainedModel)``. What the decoder asks the encoder's states is
projected once, and kept in the cache next to the decoder's own keys and values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_pipeline import heads
from tf_pipeline.decoder import DecoderInputs
from tf_pipeline.inputs import assertions, check_ids, check_size
from tf_pipeline.layers import Cache, LayerCache, Linear, attention_bias
from tf_pipeline.layers.cache import allocate, reorder
from tf_pipeline.model import TFPreTrainedModel, own_words
from tf_pipeline.outputs import (
    BaseModelOutput,
    ModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
)
from tf_pipeline.shifts import behind_start

INPUT_NAMES = (
    "input_ids",
    "attention_mask",
    "decoder_input_ids",
    "decoder_attention_mask",
    "inputs_embeds",
    "decoder_inputs_embeds",
)


@dataclass(frozen=True, kw_only=True)
class StackInputs(DecoderInputs):
    """Inputs of a layer of either half, besides its rows ``[batch * length, hidden]``.

    A layer is called as ``layer(rows, inputs=inputs, training=training)`` and returns a :class:`LayerResult`.

    Attributes:
        encoded: rows ``[batch * source, hidden]`` of the encoder's last state, for a decoder's layer.
        source: number of tokens that the encoder read, a scalar.
        source_bias: added to the scores over them, broadcast to ``[batch, heads, length, source]``, or ``None``.
        cross: their keys and values, if they were computed before.
    """

    encoded: tf.Tensor | None = None
    source: tf.Tensor | int = 0
    source_bias: tf.Tensor | None = None
    cross: LayerCache | None = None


class LayerResult(NamedTuple):
    """Results of a layer; the last two are empty for an encoder's.

    Attributes:
        rows: ``[batch * length, hidden]``.
        attentions: ``[batch, heads, length, keys]``.
        cache: what :meth:`~tf_pipeline.decoder.DecoderInputs.remember` gave it.
        cross_attentions: ``[batch, heads, length, source]``.
        cross: keys and values of the encoder's tokens.
    """

    rows: tf.Tensor
    attentions: tf.Tensor
    cache: LayerCache
    cross_attentions: Any = ()
    cross: Any = ()


class Stack(keras.layers.Layer):
    """One half of an encoder–decoder: a container of layers, which is not called itself.

    Families implement :attr:`blocks`, and whichever of the other methods they need.
    """

    @property
    def blocks(self) -> Sequence[Callable]:
        """The layers, called as :class:`StackInputs` says."""
        raise NotImplementedError

    def embed(
        self,
        vectors: tf.Tensor,
        offset: tf.Tensor | int = 0,
        training: bool = False,
        input_ids: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Input of the first layer.

        Args:
            vectors: of words, ``[batch, seq, hidden]``.
            offset: number of tokens before them, a scalar.
            training: whether dropout is active.
            input_ids: the words ``[batch, seq]``, unless vectors were given in their place.
        """
        return vectors

    def finish(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Finish the states after the last layer: ``[batch, seq, hidden]`` to the same."""
        return hidden_states

    def position_bias(
        self, queries: tf.Tensor | int, keys: tf.Tensor | int, offset: tf.Tensor | int
    ) -> tf.Tensor | None:
        """Scores by distance ``[1, heads, queries, keys]``, of queries from position ``offset`` on, or none."""
        return None

    def bias(self, hidden: tf.Tensor | None, queries, keys, offset) -> tf.Tensor | None:
        """Sum of the scores by distance and the mask's addend."""
        scores = self.position_bias(queries, keys, offset)
        return scores if hidden is None else hidden if scores is None else scores + hidden

    def encode(
        self,
        vectors: tf.Tensor,
        attention_mask: tf.Tensor | None,
        training: bool = False,
        input_ids: tf.Tensor | None = None,
        **flags: Any,
    ) -> BaseModelOutput:
        """Run as an encoder.

        Args:
            vectors: of words, ``[batch, seq, hidden]``.
            attention_mask: as for :func:`~tf_pipeline.layers.attention_bias`.
            training: whether dropout is active.
            input_ids: as for :meth:`embed`.
            **flags: ``output_hidden_states`` and ``output_attentions``.
        """
        length = tf.shape(vectors)[1]
        hidden_states = self.embed(vectors, training=training, input_ids=input_ids)
        hidden = attention_bias(attention_mask, hidden_states.dtype, queries=length, keys=length)
        inputs = StackInputs(length=length, bias=self.bias(hidden, length, length, 0))
        return self.run(hidden_states, [inputs] * len(self.blocks), training, **flags)[0]

    def run(
        self,
        hidden_states: tf.Tensor,
        inputs: Sequence[StackInputs],
        training: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> tuple[BaseModelOutput, list[LayerResult]]:
        """Run the layers one after the other, from ``[batch, seq, hidden]`` and with the inputs of each.

        Returns:
            The outputs, and the results of each layer.
        """
        size = hidden_states.shape[-1]
        rows, states, results = tf.reshape(hidden_states, [-1, size]), [], []
        for block, block_inputs in zip(self.blocks, inputs, strict=True):
            states.append(hidden_states)
            results.append(LayerResult(*block(rows, inputs=block_inputs, training=training)))
            rows = results[-1].rows
            hidden_states = tf.reshape(rows, [-1, block_inputs.length, size])
        last = self.finish(hidden_states, training=training)
        outputs = BaseModelOutput(
            last_hidden_state=last,
            hidden_states=((*states, last) if states else ()) if output_hidden_states else None,
            attentions=tuple(result.attentions for result in results) if output_attentions else None,
        )
        return outputs, results


class EncoderDecoder:
    """Base of all encoder–decoders: how they are called.

    Attributes:
        decoder_reads: inputs that can stand in for the decoder's: it reads the first that is given, one place later.
            Empty if it needs inputs of its own.
        decoder_words: key of the config for the size of the decoder's vocabulary.
    """

    tensor_names: tuple[str, ...] = INPUT_NAMES
    option_names = (*TFPreTrainedModel.option_names, "encoder_outputs", "past_key_values", "use_cache")
    decoder_reads: tuple[str, ...] = ()
    decoder_words = "vocab_size"

    def call(
        self,
        inputs,
        encoder_outputs=None,
        past_key_values=None,
        use_cache=None,
        output_hidden_states=None,
        output_attentions=None,
        return_dict=None,
        training=None,
    ):
        """Do what every model does (:meth:`tf_pipeline.model.TFPreTrainedModel.__call__`), with two halves.

        Inputs are ``decoder_input_ids`` ``[batch, target]`` (or ``decoder_inputs_embeds``), which labels are made into
        if there are none, and ``decoder_attention_mask``, too. ``encoder_outputs`` of an earlier call, a
        ``BaseModelOutput``, take the place of ``input_ids``. With ``past_key_values`` of an earlier call,
        ``decoder_input_ids`` are the tokens that follow, and ``decoder_attention_mask`` is of all of them. Unlike in
        PyTorch, the config's ``use_cache`` is not the default.
        """
        with own_words():
            inputs = self.with_decoder_inputs(inputs)
        return self.run(
            inputs,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            use_cache=bool(use_cache),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=return_dict,
            training=training,
        )

    def with_decoder_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, and those of the decoder, made from :attr:`decoder_reads` if none are given."""
        given = next((inputs[name] for name in self.decoder_reads if inputs.get(name) is not None), None)
        if given is None or "decoder_input_ids" in inputs or "decoder_inputs_embeds" in inputs:
            return dict(inputs)
        return dict(inputs) | {"decoder_input_ids": self.shifted_right(tf.convert_to_tensor(given))}

    def shifted_right(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids ``[batch, seq]`` one place later, behind ``decoder_start_token_id``, and padding where they are -100."""
        start, pad = (getattr(self.config, f"{name}_token_id", None) for name in ("decoder_start", "pad"))
        if start is None or pad is None:
            raise ValueError(
                f"{type(self).__name__} makes decoder_input_ids from {' or '.join(self.decoder_reads)} with "
                f"decoder_start_token_id and pad_token_id, but the config has {start} and {pad}."
            )
        return behind_start(ids, self.config)

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> tf.Tensor:
        """``decoder_input_ids`` ``[batch, seq]`` from labels, as collators ask for them."""
        return self.shifted_right(tf.convert_to_tensor(labels))

    def train_step(self, data):
        """One batch of ``fit``; the decoder reads labels given as ``y`` too."""
        return super().train_step(self._with_targets(data))

    def test_step(self, data):
        """One batch of ``evaluate``."""
        return super().test_step(self._with_targets(data))

    def _with_targets(self, data):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        read = {*self.decoder_reads} & {*self.label_names}
        if y is not None and isinstance(x, Mapping) and read:
            read = {name: label for name, label in self._labels(x, y).items() if name in read}
            made = self.with_decoder_inputs(dict(x) | read)
            x = {name: value for name, value in made.items() if name in x or name not in read}
        return keras.utils.pack_x_y_sample_weight(x, y, weights)

    def default_signature(self) -> dict[str, tf.TensorSpec]:
        """Inputs of an exported model: those of the decoder too, unless they are made from ``input_ids``."""
        signature = super().default_signature()
        if self.decoder_reads != ("input_ids",):
            signature["decoder_input_ids"] = tf.TensorSpec([None, None], tf.int32, "decoder_input_ids")
        return signature

    def check(
        self,
        inputs: Mapping[str, Any],
        encoder_outputs: ModelOutput | None = None,
        past_key_values: Cache | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Refuse inputs of a wrong shape or value, of either half."""
        inputs = dict(inputs)
        if ("decoder_input_ids" in inputs) == ("decoder_inputs_embeds" in inputs):
            made = f", or {' or '.join(self.decoder_reads)} to make them from" if self.decoder_reads else ""
            raise ValueError(
                f"{type(self).__name__} needs decoder_input_ids{made}; give them or decoder_inputs_embeds."
            )
        stands_in = encoder_outputs is not None and not {"input_ids", "inputs_embeds"} & inputs.keys()
        if stands_in:
            inputs["inputs_embeds"] = encoder_outputs.last_hidden_state
        whole = self._mask_of_past(inputs, past_key_values)
        checked = super().check(inputs)
        if "decoder_input_ids" in checked:
            check_ids(self, "decoder_input_ids", checked["decoder_input_ids"], self.decoder_words)
        if "attention_mask" in checked and checked["attention_mask"].shape.rank != 2:
            raise ValueError(
                f"{type(self).__name__} takes an attention_mask [batch, seq], which the decoder goes by as well, not "
                f"one of shape {tuple(checked['attention_mask'].shape)}."
            )
        if stands_in:
            del checked["inputs_embeds"]
        return self._check_decoder_length(checked, past_key_values) | whole

    def _mask_of_past(self, inputs: dict[str, Any], past: Cache | None) -> dict[str, Any]:
        """Take a mask of past tokens and new ones out of the inputs, once it is known to fit."""
        if past is None:
            return {}
        layers = len(self.base_model.decoder.blocks)
        if not isinstance(past, Cache) or len(past.layers) != layers or len(past.cross) != layers:
            raise ValueError(
                f"past_key_values is a {type(past).__name__}; give the Cache of {layers} layers that an earlier call "
                "returned as outputs.past_key_values."
            )
        mask = inputs.pop("decoder_attention_mask", None)
        if mask is None:
            return {}
        new = inputs.get("decoder_input_ids", inputs.get("decoder_inputs_embeds"))
        message = "decoder_attention_mask has to have a column for each token of past_key_values and of this call."
        check = tf.debugging.assert_equal(tf.shape(mask)[1], past.length + tf.shape(new)[1], message=message)
        with tf.control_dependencies([check]):
            return {"decoder_attention_mask": tf.identity(mask)}

    def _check_decoder_length(self, inputs: dict[str, Any], past: Cache | None) -> dict[str, Any]:
        if self.max_generated_length is None:
            return inputs
        name = "decoder_input_ids" if "decoder_input_ids" in inputs else "decoder_inputs_embeds"
        length = inputs[name].shape[1] if past is None else None
        length = tf.shape(inputs[name])[1] if length is None else length
        total = length if past is None else past.length + length
        return inputs | check_size({name: inputs[name]}, total, self.max_generated_length, type(self).__name__)


class WrittenState(NamedTuple):
    """State of an encoder–decoder between two tokens; see :class:`~tf_pipeline.generation.stepper.Stepper`.

    Attributes:
        cache: of a fixed number of slots.
        mask: bool ``[rows, source]``, false where the encoder's text is padded.
    """

    cache: Cache
    mask: tf.Tensor


class EncoderDecoderBody(EncoderDecoder):
    """Hidden states of the decoder's tokens, each of which sees those before it and all of the encoder's.

    Families hold ``encoder`` and ``decoder``, each a :class:`Stack`, and implement ``word_vectors``: ids
    ``[batch, seq]``, and whether they are the decoder's, to ``[batch, seq, hidden]``.
    """

    def forward(self, **inputs: Any) -> ModelOutput:
        """See :meth:`EncoderDecoder.call`."""
        return self.read(**inputs)

    def read(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        encoder_outputs: ModelOutput | None = None,
        use_cache=False,
        training=False,
        output_hidden_states=False,
        output_attentions=False,
        **decoder_inputs: Any,
    ) -> Seq2SeqModelOutput:
        """Run both halves; the result has a cache if ``use_cache``."""
        flags = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        encoded = encoder_outputs
        if encoded is None:
            vectors = self.word_vectors(input_ids, decoder=False) if inputs_embeds is None else inputs_embeds
            encoded = self.encoder.encode(vectors, attention_mask, training, input_ids, **flags)
        decoded, results, length = self.decode(
            encoded.last_hidden_state, attention_mask, training=training, **flags, **decoder_inputs
        )
        crossed = tuple(result.cross_attentions for result in results)
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=_cache(results, length) if use_cache else None,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=crossed if output_attentions else None,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def decode(
        self,
        encoded: tf.Tensor,
        attention_mask: tf.Tensor | None = None,
        decoder_input_ids=None,
        decoder_inputs_embeds=None,
        decoder_attention_mask=None,
        past_key_values: Cache | None = None,
        training=False,
        **flags: Any,
    ) -> tuple[BaseModelOutput, list[LayerResult], tf.Tensor]:
        """Run the decoder over the encoder's states ``[batch, source, hidden]``.

        Returns:
            The outputs, the results of each layer, and the number of tokens so far.
        """
        vectors = decoder_inputs_embeds
        if vectors is None:
            vectors = self.word_vectors(decoder_input_ids, decoder=True)
        length, blocks = tf.shape(vectors)[1], len(self.decoder.blocks)
        past, layers, cross = 0, [None] * blocks, [None] * blocks
        if past_key_values is not None:
            past, layers, cross = past_key_values.length, past_key_values.layers, past_key_values.cross
        hidden_states = self.decoder.embed(vectors, past, training=training, input_ids=decoder_input_ids)
        hidden = attention_bias(
            decoder_attention_mask, hidden_states.dtype, queries=length, keys=past + length, offset=past, causal=True
        )
        bias = self.decoder.bias(hidden, length, past + length, past)
        shared = {
            "length": length,
            "bias": bias,
            "encoded": tf.reshape(encoded, [-1, encoded.shape[-1]]),
            "source": tf.shape(encoded)[1],
            "source_bias": attention_bias(attention_mask, hidden_states.dtype, queries=1, keys=tf.shape(encoded)[1]),
        }
        inputs = [StackInputs(**shared, past=own, cross=other) for own, other in zip(layers, cross, strict=True)]
        return *self.decoder.run(hidden_states, inputs, training, **flags), past + length

    # -------------------------------------------------------------------------------------------------- one by one

    def read_prompt(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, WrittenState]:
        """The hidden states ``[rows, start, hidden]`` of the decoder's first tokens, and the state."""
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        mask = tf.ones_like(ids, tf.bool) if mask is None else tf.cast(mask, tf.bool)
        encoded = self.encoder.encode(self.word_vectors(ids, decoder=False), mask, input_ids=ids)
        outputs, results, length = self.decode(
            encoded.last_hidden_state, mask, decoder_input_ids=inputs["decoder_input_ids"]
        )
        cache = _cache(results, length)
        layers = tuple(allocate(layer, length, capacity) for layer in cache.layers)
        return outputs.last_hidden_state, WrittenState(cache._replace(layers=layers), mask)

    def read_token(self, tokens: tf.Tensor, state: WrittenState) -> tuple[tf.Tensor, WrittenState]:
        """The hidden state ``[rows, 1, hidden]`` of one more token of each row, and the new state."""
        cache = state.cache
        ids = tokens[:, tf.newaxis]
        hidden_states = self.decoder.embed(self.word_vectors(ids, decoder=True), cache.length, input_ids=ids)
        capacity = cache.layers[0].keys.shape[2] if cache.layers else 0
        free = attention_bias(
            None, hidden_states.dtype, queries=1, keys=capacity, offset=cache.length, causal=True
        )  # free slots come later
        source_bias = attention_bias(state.mask, hidden_states.dtype, queries=1, keys=tf.shape(state.mask)[1])
        inputs = [
            StackInputs(
                length=1,
                bias=self.decoder.bias(free, 1, capacity, cache.length),
                past=own,
                slot=cache.length,
                source=tf.shape(state.mask)[1],
                source_bias=source_bias,
                cross=other,
            )
            for own, other in zip(cache.layers, cache.cross, strict=True)
        ]
        outputs, results = self.decoder.run(hidden_states, inputs)
        return outputs.last_hidden_state, state._replace(cache=_cache(results, cache.length + 1))


def _cache(results: Sequence[LayerResult], length: tf.Tensor) -> Cache:
    return Cache(tuple(result.cache for result in results), length, tuple(result.cross for result in results))


def head_outputs(output_class: type[ModelOutput], body: Seq2SeqModelOutput, **results: tf.Tensor) -> ModelOutput:
    """A head's results with those of its body, except the last hidden state."""
    return output_class({name: value for name, value in body.items() if name != "last_hidden_state"} | results)


@heads.SEQ_TO_SEQ_LM
class Seq2SeqLM(EncoderDecoder):
    """Predicts the decoder's next tokens: all at once, or as a :class:`~tf_pipeline.generation.stepper.Stepper`.

    Labels ``[batch, target]`` are the tokens to write, -100 where none counts. Families implement
    ``prediction_logits``: ``[batch, target, hidden]`` to ``[batch, target, vocab]``.
    """

    decoder_reads = ("labels",)

    def forward(self, **inputs: Any) -> Seq2SeqLMOutput:
        """Scores of every token of the vocabulary."""
        body = self.base_model.read(**inputs)
        return head_outputs(Seq2SeqLMOutput, body, logits=self.prediction_logits(body.last_hidden_state))

    @tf.autograph.experimental.do_not_convert
    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, WrittenState]:
        """See :meth:`~tf_pipeline.generation.stepper.Stepper.prefill`."""
        if unknown := set(inputs) - {"input_ids", "attention_mask", "decoder_input_ids"}:
            raise TypeError(
                f"prefill takes input_ids, attention_mask and decoder_input_ids, not {', '.join(sorted(unknown))}."
            )
        limit = self.max_generated_length
        if limit is not None and capacity > limit:
            raise ValueError(
                f"capacity is {capacity}, but {type(self).__name__} has {limit} positions (max_position_embeddings)."
            )
        checked = self.check({name: tf.convert_to_tensor(value) for name, value in inputs.items()})
        length, ids = tf.shape(checked["decoder_input_ids"])[1], {"input_ids": checked["input_ids"]}
        checked |= check_size(ids, length, capacity, type(self).__name__, "slots of the capacity")
        hidden_states, state = self.base_model.read_prompt(checked, capacity)
        return self._last_logits(hidden_states[:, -1:]), state

    @tf.autograph.experimental.do_not_convert
    def step(self, tokens: tf.Tensor, state: WrittenState) -> tuple[tf.Tensor, WrittenState]:
        """See :meth:`~tf_pipeline.generation.stepper.Stepper.step`."""
        hidden_states, state = self.base_model.read_token(tokens, state)
        return self._last_logits(hidden_states), state

    def reorder(self, state: WrittenState, rows: tf.Tensor) -> WrittenState:
        """See :meth:`~tf_pipeline.generation.stepper.Stepper.reorder`."""
        return WrittenState(reorder(state.cache, rows), tf.gather(state.mask, rows))

    def _last_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(self.prediction_logits(hidden_states), axis=1)


class Seq2SeqClassificationHead(keras.layers.Layer):
    """Scores of a text from one state.

    Args:
        config: a config with ``d_model``, ``num_labels`` and ``classifier_dropout``.
        std: standard deviation of the initial weights.
        dtype: Keras dtype policy.
    """

    def __init__(self, config, std: float, dtype=None):
        super().__init__(dtype=dtype)
        self.dense = Linear(config.d_model, config.d_model, std, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.classifier_dropout, dtype=dtype)
        self.out_proj = Linear(config.d_model, config.num_labels, std, dtype=dtype)

    def call(self, hidden_states, training=None):
        """``[batch, hidden]`` to ``[batch, num_labels]``."""
        inner = tf.tanh(self.dense(self.dropout(hidden_states, training=training)))
        return self.out_proj(self.dropout(inner, training=training))


@heads.SEQUENCE_CLASSIFICATION
class Seq2SeqSequenceClassification(EncoderDecoder):
    """Scores a text by the decoder's state at its last ``eos_token_id``; the decoder reads the text one place later.

    Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression. Families hold
    ``classification_head``.
    """

    decoder_reads = ("input_ids",)
    reads_end_token = True

    def forward(self, input_ids=None, training=False, **inputs: Any) -> Seq2SeqSequenceClassifierOutput:
        """Logits of each text."""
        if input_ids is None:
            raise ValueError(f"{type(self).__name__} finds the end of a text in input_ids; give them.")
        body = self.base_model.read(input_ids=input_ids, training=training, **inputs)
        ends = self._last_ends(input_ids, tf.shape(body.last_hidden_state)[1])
        last = tf.gather(body.last_hidden_state, ends, batch_dims=1)
        logits = self.classification_head(last, training=training)
        return head_outputs(Seq2SeqSequenceClassifierOutput, body, logits=logits)

    def _last_ends(self, input_ids: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Position of the last end, int32 ``[batch]``, if each text has as many as the others."""
        end = self.config.eos_token_id
        if not isinstance(end, int):
            raise ValueError(f"{type(self).__name__} needs one eos_token_id, but the config has {end!r}.")
        is_end = tf.cast(tf.equal(input_ids, tf.cast(end, input_ids.dtype)), tf.int32)
        counts = tf.reduce_sum(is_end, axis=1)
        rules = {
            f"Each row of input_ids must hold the end of a text, eos_token_id {end}.": tf.reduce_all(counts > 0),
            f"All rows of input_ids must hold eos_token_id {end} as often.": tf.reduce_all(counts == counts[:1]),
            "decoder_input_ids must be as long as input_ids.": tf.shape(input_ids)[1] == length,
        }
        checks = [check for message, holds in rules.items() for check in assertions(holds, message)]
        with tf.control_dependencies(checks):
            return tf.reduce_max(is_end * tf.range(tf.shape(input_ids)[1]), axis=1)


@heads.QUESTION_ANSWERING
class Seq2SeqQuestionAnswering(EncoderDecoder):
    """Finds an answer in the decoder's input: the text, one place later. Families hold ``qa_outputs``.

    Labels: ``start_positions`` and ``end_positions`` ``[batch]``.
    """

    supported_config = {"num_labels": (2,)}
    decoder_reads = ("input_ids",)

    def forward(self, **inputs: Any) -> Seq2SeqQuestionAnsweringModelOutput:
        """Start and end logits of each token."""
        body = self.base_model.read(**inputs)
        start, end = tf.unstack(self.qa_outputs(body.last_hidden_state), axis=-1)
        return head_outputs(Seq2SeqQuestionAnsweringModelOutput, body, start_logits=start, end_logits=end)


__all__ = [
    "EncoderDecoder",
    "EncoderDecoderBody",
    "LayerResult",
    "Seq2SeqClassificationHead",
    "Seq2SeqLM",
    "Seq2SeqQuestionAnswering",
    "Seq2SeqSequenceClassification",
    "Stack",
    "StackInputs",
    "WrittenState",
    "head_outputs",
]
