"""Bodies and heads of decoders: they run the layers that a family's file constructs.

A family's base class is a :class:`TFDecoderPreTrainedModel`, its body a :class:`DecoderBody`, and a head one of the
classes named after its task: ``class TFGPT2LMHeadModel(CausalLM, TFGPT2PreTrainedModel)``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from tf_pipeline import heads
from tf_pipeline.encoder import LanguageModel, QuestionAnswering, TokenClassification
from tf_pipeline.inputs import check_size
from tf_pipeline.layers import Cache, Dropout, LayerCache, attention_bias
from tf_pipeline.layers.cache import allocate, extend, reorder, tokens_in_slots, write
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    ModelOutput,
    SequenceClassifierOutputWithPast,
)


@dataclass(frozen=True, kw_only=True)
class DecoderInputs:
    """Inputs of a decoder's layer besides its rows ``[batch * length, hidden]``.

    A layer is called as ``layer(rows, inputs=inputs, training=training)``. It returns the new rows, its attentions
    ``[batch, heads, length, keys]``, and the result of :meth:`remember`; anything more is left alone.

    Attributes:
        length: number of tokens of each sequence that are computed, a scalar.
        bias: added to the scores, broadcast to ``[batch, heads, length, keys]``, or ``None``.
        rotary: cosines and sines ``[batch or 1, 1, length, size]`` of their positions, if the layer turns by them.
        past: keys and values of tokens before, or ``None``.
        slot: the slot of ``past`` to write into, a scalar; ``None`` if it grows instead.
    """

    length: tf.Tensor | int
    bias: tf.Tensor | None
    rotary: tuple[tf.Tensor, tf.Tensor] | None = None
    past: LayerCache | None = None
    slot: tf.Tensor | None = None

    def remember(self, keys: tf.Tensor, values: tf.Tensor) -> LayerCache:
        """Keys and values ``[batch, kv_heads, keys, size]`` to attend to: those of the past, and the given new ones."""
        new = LayerCache(keys, values)
        if self.past is None:
            return new
        return extend(self.past, new) if self.slot is None else write(self.past, new, self.slot)


class DecoderState(NamedTuple):
    """State of a decoder between two tokens; see :class:`~tf_pipeline.generation.stepper.Stepper`.

    Attributes:
        cache: of a fixed number of slots.
        mask: bool ``[rows, capacity]``, false where a prompt is padded.
        positions: int32 ``[rows]``, of the next token.
    """

    cache: Cache
    mask: tf.Tensor
    positions: tf.Tensor


class TFDecoderPreTrainedModel(TFPreTrainedModel):
    """Base class of all decoders: calls may give and ask for ``past_key_values``."""

    option_names = (*TFPreTrainedModel.option_names, "past_key_values", "use_cache")

    def call(
        self,
        inputs,
        past_key_values=None,
        use_cache=None,
        output_hidden_states=None,
        output_attentions=None,
        return_dict=None,
        training=None,
    ):
        """Run the model as :meth:`tf_pipeline.model.TFPreTrainedModel.__call__` does, with a cache.

        With ``past_key_values`` of an earlier call, ``input_ids`` are the tokens that follow, and ``attention_mask`` is
        of all tokens, ``[batch, past + seq]``. The outputs have ``past_key_values`` if ``use_cache`` is true. Unlike in
        PyTorch, the config's ``use_cache`` is not the default, so that ``fit``, ``predict`` and exports have no cache
        among their outputs.
        """
        return self.run(
            inputs,
            past_key_values=past_key_values,
            use_cache=bool(use_cache),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=return_dict,
            training=training,
        )

    def default_signature(self) -> dict[str, tf.TensorSpec]:
        """Inputs of an exported model; token types are not among them, because no decoder's tokenizer makes them."""
        return {name: spec for name, spec in super().default_signature().items() if name != "token_type_ids"}

    def check(self, inputs: Mapping[str, Any], past_key_values: Cache | None = None, **options: Any) -> dict[str, Any]:
        """Refuse inputs of a wrong shape or value; a mask has a column for each token of the past too."""
        if past_key_values is None:
            return super().check(inputs)
        layers = len(self.base_model.blocks)
        if not isinstance(past_key_values, Cache) or len(past_key_values.layers) != layers:
            raise ValueError(
                f"past_key_values is a {type(past_key_values).__name__}; give the Cache of {layers} layers that an "
                "earlier call returned as outputs.past_key_values."
            )
        masks = {name: value for name, value in inputs.items() if name == "attention_mask"}
        checked = super().check({name: value for name, value in inputs.items() if name not in masks})
        leading, rank = checked.get("input_ids", checked.get("inputs_embeds")), self.rank_of_ids(checked)
        total = past_key_values.length + tf.shape(leading)[rank - 1]
        if self.max_length is not None and "position_ids" not in inputs:
            checked |= check_size(checked, total, self.max_length, type(self).__name__)
        for name, mask in masks.items():
            if mask.shape.rank == rank:
                message = "attention_mask has to have a column for each token of past_key_values and of this call."
                with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(mask)[-1], total, message=message)]):
                    mask = tf.identity(mask)
            checked[name] = mask
        return checked


class DecoderBody:
    """Hidden states of tokens that see those before them.

    Families hold ``layers_`` or name their own in :attr:`blocks`, and implement :meth:`embed` and :meth:`finish`.
    """

    # Whether positions are rows of a table, which is looked up while embedding.
    embeds_positions = False

    @property
    def blocks(self) -> Sequence[Callable]:
        """The layers, called as :class:`DecoderInputs` says."""
        return self.layers_

    @property
    def windows(self) -> Sequence[int | None]:
        """Number of tokens that each layer sees, up to the one that is computed; ``None`` for all."""
        return [None] * len(self.blocks)

    def embed(self, input_ids=None, inputs_embeds=None, position_ids=None, training=False) -> tf.Tensor:
        """The vectors ``[batch, seq, hidden]`` that enter the first layer."""
        raise NotImplementedError

    def rotary_tables(self, positions: tf.Tensor) -> Sequence[tuple[tf.Tensor, tf.Tensor] | None]:
        """Cosines and sines for each layer, at positions ``[batch or 1, seq]``."""
        return [None] * len(self.blocks)

    def finish(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """Apply everything behind the last layer: ``[batch, seq, hidden]`` to the same."""
        raise NotImplementedError

    def forward(
        self,
        attention_mask=None,
        position_ids=None,
        past_key_values: Cache | None = None,
        use_cache=False,
        training=False,
        output_hidden_states=False,
        output_attentions=False,
        **tokens: Any,
    ) -> BaseModelOutputWithPast:
        """See :meth:`TFDecoderPreTrainedModel.call`; ``tokens`` are ids or embeddings, and types."""
        given = tokens.get("input_ids", tokens.get("inputs_embeds"))
        length = tf.shape(given)[1]
        past = 0 if past_key_values is None else past_key_values.length
        positions = (past + tf.range(length))[tf.newaxis] if position_ids is None else position_ids
        counted = position_ids is None and past_key_values is None  # from zero, as the rows of a table are
        embeddings = self.embed(position_ids=None if counted else positions, training=training, **tokens)
        biases = {
            window: attention_bias(
                attention_mask, embeddings.dtype,
                queries=length, keys=past + length, offset=past, causal=True, window=window,
            )
            for window in set(self.windows)
        }  # fmt: skip
        layers = [None] * len(self.blocks) if past_key_values is None else past_key_values.layers
        inputs = [
            DecoderInputs(length=length, bias=biases[window], rotary=rotary, past=layer)
            for window, rotary, layer in zip(self.windows, self.rotary_tables(positions), layers, strict=True)
        ]
        outputs, caches = self.run_layers(embeddings, inputs, training, output_hidden_states, output_attentions)
        return outputs if not use_cache else type(outputs)(outputs, past_key_values=Cache(caches, past + length))

    def run_layers(
        self,
        hidden_states: tf.Tensor,
        inputs: Sequence[DecoderInputs],
        training: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> tuple[BaseModelOutputWithPast, tuple[LayerCache, ...]]:
        """Run the layers one after the other.

        Args:
            hidden_states: ``[batch, seq, hidden]``.
            inputs: of each layer.
            training: whether dropout is active.
            output_hidden_states: whether to return the input of each layer, and the last state.
            output_attentions: whether to return the attentions of all layers.

        Returns:
            The outputs, and the cache of each layer.
        """
        size = hidden_states.shape[-1]
        rows, all_states, all_attentions, caches = tf.reshape(hidden_states, [-1, size]), [], [], []
        for block, block_inputs in zip(self.blocks, inputs, strict=True):
            all_states.append(hidden_states)
            rows, attentions, cache, *_ = block(rows, inputs=block_inputs, training=training)
            hidden_states = tf.reshape(rows, [-1, block_inputs.length, size])
            all_attentions.append(attentions)
            caches.append(cache)
        last = self.finish(hidden_states)
        states = (*all_states, last) if all_states else ()  # PyTorch records the inputs of layers
        outputs = BaseModelOutputWithPast(
            last_hidden_state=last,
            hidden_states=states if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
        )
        return outputs, tuple(caches)

    # -------------------------------------------------------------------------------------------------- one by one

    def check_capacity(self, capacity: int) -> None:
        """Refuse a number of tokens whose keys cannot be kept from step to step."""

    def slots(self, capacity: int) -> list[int]:
        """Number of slots in each layer's cache: no more than the layer sees."""
        return [capacity if window is None else min(window, capacity) for window in self.windows]

    def prompt_positions(self, mask: tf.Tensor) -> tf.Tensor:
        """Positions int32 ``[rows, prompt]`` under a mask of that shape; -1 for padding in front, if it has none."""
        return tf.cumsum(tf.cast(mask, tf.int32), axis=1) - 1

    def read_prompt(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, DecoderState]:
        """The hidden states ``[rows, prompt, hidden]`` of prompts that are padded on the left, and the state."""
        mask = inputs.get("attention_mask")
        mask = tf.ones_like(inputs["input_ids"], tf.bool) if mask is None else tf.cast(mask, tf.bool)
        positions = self.prompt_positions(mask)
        length = tf.shape(mask)[1]
        outputs = self.forward(
            input_ids=inputs["input_ids"],
            attention_mask=mask,
            position_ids=tf.maximum(positions, 0),
            use_cache=True,
        )
        layers = tuple(
            allocate(cache, length, slots)
            for cache, slots in zip(outputs.past_key_values.layers, self.slots(capacity), strict=True)
        )
        free = tf.ones([tf.shape(mask)[0], capacity - length], tf.bool)
        mask = tf.ensure_shape(tf.concat([mask, free], axis=1), [None, capacity])
        return outputs.last_hidden_state, DecoderState(Cache(layers, length), mask, positions[:, -1] + 1)

    def read_tokens(self, tokens: tf.Tensor, state: DecoderState) -> tuple[tf.Tensor, DecoderState]:
        """The hidden states ``[rows, n, hidden]`` of ``n`` more tokens of each row, and the new state.

        Of a model whose layers see windows, ``n`` is 1.
        """
        length, capacity = state.cache.length, state.mask.shape[1]
        count = tf.shape(tokens)[1] if tokens.shape[1] is None else tokens.shape[1]
        positions = state.positions[:, tf.newaxis] + tf.range(count)
        embeddings = self.embed(input_ids=tokens, position_ids=positions)
        each = self.slots(capacity)
        biases = {slots: _bias_of_slots(state.mask, length, count, slots, embeddings.dtype) for slots in set(each)}
        inputs = [
            DecoderInputs(length=count, bias=biases[slots], rotary=rotary, past=layer, slot=length % slots)
            for slots, rotary, layer in zip(each, self.rotary_tables(positions), state.cache.layers, strict=True)
        ]
        outputs, layers = self.run_layers(embeddings, inputs)
        return outputs.last_hidden_state, DecoderState(
            Cache(layers, length + count), state.mask, state.positions + count
        )


def _bias_of_slots(mask: tf.Tensor, first: tf.Tensor, count: tf.Tensor | int, slots: int, dtype: tf.DType) -> tf.Tensor:
    """Hide the slots that are free, padding, or of later tokens: ``[rows, 1, count, slots]``.

    ``first`` is the index of the first of ``count`` tokens that are read.
    """
    held = tokens_in_slots(first + count - 1, slots)
    if slots < mask.shape[1]:
        mask = tf.gather(mask, tf.maximum(held, 0), axis=1)
    visible = (mask & (held >= 0))[:, tf.newaxis, tf.newaxis]
    if tf.is_tensor(count) or count > 1:
        visible &= held <= (first + tf.range(count))[:, tf.newaxis]
    return tf.where(visible, tf.constant(0.0, dtype), tf.constant(dtype.min, dtype))


def decoder_outputs(output_class: type[ModelOutput], body: ModelOutput, **results: tf.Tensor) -> ModelOutput:
    """A head's results with the cache, hidden states and attentions of its body."""
    return output_class(
        results, past_key_values=body.past_key_values, hidden_states=body.hidden_states, attentions=body.attentions
    )


def classifier_dropout(config, dtype) -> Dropout:
    """The dropout before a classifier of tokens: ``classifier_dropout``, else ``hidden_dropout``, else 0.1."""
    rates = (getattr(config, name, None) for name in ("classifier_dropout", "hidden_dropout"))
    return Dropout(next((rate for rate in rates if rate is not None), 0.1), dtype=dtype)


@heads.CAUSAL_LM
class CausalLM(LanguageModel):
    """Predicts the next token: all at once, or one by one as a :class:`~tf_pipeline.generation.stepper.Stepper`.

    Labels ``[batch, seq]`` are shifted here. Families implement ``prediction_logits``: ``[batch, seq, hidden]`` to
    ``[batch, seq, vocab]``.
    """

    def forward(self, **inputs: Any) -> CausalLMOutputWithPast:
        """Scores of every token of the vocabulary."""
        body = self.base_model.forward(**inputs)
        return decoder_outputs(CausalLMOutputWithPast, body, logits=self.prediction_logits(body.last_hidden_state))

    @tf.autograph.experimental.do_not_convert
    def prefill(self, inputs: Mapping[str, tf.Tensor], capacity: int) -> tuple[tf.Tensor, DecoderState]:
        """See :meth:`~tf_pipeline.generation.stepper.Stepper.prefill`."""
        if unknown := set(inputs) - {"input_ids", "attention_mask"}:
            raise TypeError(f"prefill takes input_ids and attention_mask, not {', '.join(sorted(unknown))}.")
        if self.max_length is not None and capacity > self.max_length:
            raise ValueError(
                f"capacity is {capacity}, but {type(self).__name__} has {self.max_length} positions "
                "(max_position_embeddings)."
            )
        self.base_model.check_capacity(capacity)
        inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        checked = check_size(
            self.check(inputs), tf.shape(inputs["input_ids"])[1], capacity, type(self).__name__, "slots of the capacity"
        )
        hidden_states, state = self.base_model.read_prompt(inputs | checked, capacity)
        return self._last_logits(hidden_states[:, -1:]), state

    @tf.autograph.experimental.do_not_convert
    def step(self, tokens: tf.Tensor, state: DecoderState) -> tuple[tf.Tensor, DecoderState]:
        """See :meth:`~tf_pipeline.generation.stepper.Stepper.step`."""
        hidden_states, state = self.base_model.read_tokens(tokens[:, tf.newaxis], state)
        return self._last_logits(hidden_states), state

    def check_ahead(self, capacity: int) -> None:
        """See :meth:`~tf_pipeline.generation.lookup.ReadsAhead.check_ahead`."""
        slots = min(self.base_model.slots(capacity))
        if slots < capacity:
            raise ValueError(
                f"prompt_lookup_num_tokens: {type(self).__name__} keeps the last {slots} tokens of a text in some "
                "layers (sliding_window), so that none can be read on trial. Leave it out."
            )

    @tf.autograph.experimental.do_not_convert
    def read_ahead(self, tokens: tf.Tensor, state: DecoderState) -> tuple[tf.Tensor, DecoderState]:
        """See :meth:`~tf_pipeline.generation.lookup.ReadsAhead.read_ahead`."""
        hidden_states, state = self.base_model.read_tokens(tokens, state)
        return self.prediction_logits(hidden_states), state

    def forget(self, state: DecoderState, count: tf.Tensor) -> DecoderState:
        """See :meth:`~tf_pipeline.generation.lookup.ReadsAhead.forget`."""
        cache = state.cache._replace(length=state.cache.length - count)
        return DecoderState(cache, state.mask, state.positions - count)

    def reorder(self, state: DecoderState, rows: tf.Tensor) -> DecoderState:
        """See :meth:`~tf_pipeline.generation.stepper.Stepper.reorder`."""
        return DecoderState(reorder(state.cache, rows), tf.gather(state.mask, rows), tf.gather(state.positions, rows))

    def _last_logits(self, hidden_states: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(self.prediction_logits(hidden_states), axis=1)


@heads.SEQUENCE_CLASSIFICATION
class SequenceClassification:
    """Scores a text by its last token. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression.

    The last token is the rightmost one that is not ``pad_token_id``, on whichever side the padding is; of
    ``inputs_embeds`` it is the last vector. Families hold ``score``.
    """

    @property
    def takes_one_text(self) -> bool:
        """Whether texts come one at a time: without a ``pad_token_id``, padding would be taken for the last token."""
        return self.config.pad_token_id is None

    def forward(self, **inputs: Any) -> SequenceClassifierOutputWithPast:
        """Logits of each text."""
        body = self.base_model.forward(**inputs)
        last = self._last_tokens(body.last_hidden_state, inputs.get("input_ids"))
        return decoder_outputs(SequenceClassifierOutputWithPast, body, logits=self.score(last))

    def _last_tokens(self, hidden_states: tf.Tensor, input_ids: tf.Tensor | None) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        pad, batch = self.config.pad_token_id, hidden_states.shape[0]
        if pad is None and batch != 1:
            message = f"{type(self).__name__} takes one text at a time, because its config has no pad_token_id."
            if batch is not None:
                raise ValueError(message)
            check = tf.debugging.assert_equal(tf.shape(hidden_states)[0], 1, message=message)
            with tf.control_dependencies([check]):
                hidden_states = tf.identity(hidden_states)
        if pad is None or input_ids is None:
            return hidden_states[:, -1]
        real = tf.cast(tf.not_equal(input_ids, tf.cast(pad, input_ids.dtype)), tf.int32)
        last = tf.argmax(tf.range(tf.shape(input_ids)[1]) * real, axis=1, output_type=tf.int32)
        return tf.gather(hidden_states, last, batch_dims=1)


__all__ = [
    "CausalLM",
    "DecoderBody",
    "DecoderInputs",
    "DecoderState",
    "QuestionAnswering",
    "SequenceClassification",
    "TFDecoderPreTrainedModel",
    "TokenClassification",
    "classifier_dropout",
    "decoder_outputs",
]
