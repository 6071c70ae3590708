"""Outputs of models: ordered results read by attribute, by key and by integer.

Each class lists its fields in the order of its PyTorch twin in ``transformers.modeling_outputs``; a field that was
not computed (no labels, so no loss) is absent, so ``outputs[0]`` is the first tensor there is.
"""

from collections import OrderedDict
from typing import Any

import optree


class ModelOutput(OrderedDict):
    """Named results in a fixed order; fields that are ``None`` are left out.

    ``outputs.logits``, ``outputs["logits"]`` and ``outputs[0]`` name the same tensor. Instances are understood by
    ``tf.nest`` and by Keras' own tree functions, so they pass through ``tf.function``, ``fit``, ``predict`` and the
    functional API.
    """

    fields: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.fields = tuple(cls.__dict__.get("__annotations__", ())) or cls.fields
        optree.register_pytree_node(
            cls, _flatten, lambda keys, values: cls(zip(keys, values, strict=True)), namespace="keras"
        )

    def __init__(self, items: Any = (), /, **values: Any):
        given = dict(items, **values)
        if unknown := set(given) - set(self.fields):
            names = ", ".join(sorted(unknown))
            raise TypeError(f"{type(self).__name__} has no field {names}; it has {', '.join(self.fields)}.")
        super().__init__((name, given[name]) for name in self.fields if given.get(name) is not None)

    def __getattr__(self, name: str) -> Any:
        if name in type(self).fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name}; it has {', '.join(type(self).fields)}.")

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """All results that are present, in the order of the fields."""
        return tuple(self.values())


def _flatten(output: ModelOutput):
    return tuple(output.values()), tuple(output.keys()), tuple(output.keys())


class BaseModelOutput(ModelOutput):
    """A body's result. ``last_hidden_state`` is ``[batch, seq, hidden]``.

    ``hidden_states`` holds the embeddings and then each layer's output, each ``[batch, seq, hidden]``;
    ``attentions`` holds each layer's probabilities ``[batch, heads, seq, seq]``.
    """

    last_hidden_state: Any
    hidden_states: tuple | None
    attentions: tuple | None


class BaseModelOutputWithPast(ModelOutput):
    """A decoder's result; see :class:`BaseModelOutput`.

    ``past_key_values`` is the :class:`~tf_pipeline.layers.Cache` of all tokens so far, if it was asked for.
    """

    last_hidden_state: Any
    past_key_values: Any
    hidden_states: tuple | None
    attentions: tuple | None


class BaseModelOutputWithPooling(ModelOutput):
    """A body's result with ``pooler_output`` ``[batch, hidden]``, made from the first token."""

    last_hidden_state: Any
    pooler_output: Any
    hidden_states: tuple | None
    attentions: tuple | None


class PreTrainingOutput(ModelOutput):
    """``prediction_logits`` ``[batch, seq, vocab]`` and ``seq_relationship_logits`` ``[batch, 2]``."""

    loss: Any
    prediction_logits: Any
    seq_relationship_logits: Any
    hidden_states: tuple | None
    attentions: tuple | None


class LogitsOutput(ModelOutput):
    """One tensor of ``logits``: the shape depends on the head, and each subclass states it."""

    loss: Any
    logits: Any
    hidden_states: tuple | None
    attentions: tuple | None


class CausalLMOutput(LogitsOutput):
    """``logits`` are ``[batch, seq, vocab]``; position ``t`` scores token ``t + 1``."""


class LogitsOutputWithPast(ModelOutput):
    """One tensor of ``logits``, and the ``past_key_values`` of a :class:`BaseModelOutputWithPast`."""

    loss: Any
    logits: Any
    past_key_values: Any
    hidden_states: tuple | None
    attentions: tuple | None


class CausalLMOutputWithPast(LogitsOutputWithPast):
    """``logits`` are ``[batch, seq, vocab]``; position ``t`` scores token ``t + 1``."""


class SequenceClassifierOutputWithPast(LogitsOutputWithPast):
    """``logits`` are ``[batch, num_labels]``."""


class GPT2DoubleHeadsModelOutput(ModelOutput):
    """``logits`` are ``[batch, choices, seq, vocab]`` and ``mc_logits`` ``[batch, choices]``.

    Each has a loss of its own. Choices are rows of the body, which has ``[batch * choices, seq]`` tokens; the last of
    its hidden states alone is ``[batch, choices, seq, hidden]``.
    """

    loss: Any
    mc_loss: Any
    logits: Any
    mc_logits: Any
    past_key_values: Any
    hidden_states: tuple | None
    attentions: tuple | None


class MaskedLMOutput(LogitsOutput):
    """``logits`` are ``[batch, seq, vocab]``."""


class SequenceClassifierOutput(LogitsOutput):
    """``logits`` are ``[batch, num_labels]``."""


class TokenClassifierOutput(LogitsOutput):
    """``logits`` are ``[batch, seq, num_labels]``."""


class MultipleChoiceModelOutput(LogitsOutput):
    """``logits`` are ``[batch, num_choices]``."""


class NextSentencePredictorOutput(LogitsOutput):
    """``logits`` are ``[batch, 2]``: is the next sentence, is not."""


class QuestionAnsweringModelOutput(ModelOutput):
    """``start_logits`` and ``end_logits`` are ``[batch, seq]``."""

    loss: Any
    start_logits: Any
    end_logits: Any
    hidden_states: tuple | None
    attentions: tuple | None


class Seq2SeqModelOutput(ModelOutput):
    """An encoder–decoder's result. ``last_hidden_state`` is the decoder's, ``[batch, target, hidden]``.

    ``encoder_last_hidden_state`` is ``[batch, source, hidden]``. Hidden states and attentions are those of
    :class:`BaseModelOutput`, of either half; ``cross_attentions`` are ``[batch, heads, target, source]``.
    """

    last_hidden_state: Any
    past_key_values: Any
    decoder_hidden_states: tuple | None
    decoder_attentions: tuple | None
    cross_attentions: tuple | None
    encoder_last_hidden_state: Any
    encoder_hidden_states: tuple | None
    encoder_attentions: tuple | None


class Seq2SeqLogitsOutput(ModelOutput):
    """One tensor of ``logits``, and what a :class:`Seq2SeqModelOutput` holds besides the last state."""

    loss: Any
    logits: Any
    past_key_values: Any
    decoder_hidden_states: tuple | None
    decoder_attentions: tuple | None
    cross_attentions: tuple | None
    encoder_last_hidden_state: Any
    encoder_hidden_states: tuple | None
    encoder_attentions: tuple | None


class Seq2SeqLMOutput(Seq2SeqLogitsOutput):
    """``logits`` are ``[batch, target, vocab]``; position ``t`` scores the token that follows the decoder's ``t``."""


class Seq2SeqSequenceClassifierOutput(Seq2SeqLogitsOutput):
    """``logits`` are ``[batch, num_labels]``."""


class Seq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """``start_logits`` and ``end_logits`` are ``[batch, target]``; see :class:`Seq2SeqModelOutput`."""

    loss: Any
    start_logits: Any
    end_logits: Any
    past_key_values: Any
    decoder_hidden_states: tuple | None
    decoder_attentions: tuple | None
    cross_attentions: tuple | None
    encoder_last_hidden_state: Any
    encoder_hidden_states: tuple | None
    encoder_attentions: tuple | None
