"""Bodies and heads of encoders: they run the layers that a family's file constructs.

A body is an :class:`EncoderBody`; a head is one of the classes named after its task. They are mixed into a family's own
base class: ``class TFBertForMaskedLM(MaskedLM, TFBertPreTrainedModel)``.
"""

import logging
from typing import Any

import tensorflow as tf

from tf_pipeline import heads
from tf_pipeline.inputs import check_range
from tf_pipeline.layers import LayerInputs, attention_bias, flatten_choices
from tf_pipeline.model import TFPreTrainedModel
from tf_pipeline.outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    CausalLMOutput,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    PreTrainingOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

logger = logging.getLogger(__name__)


class EncoderBody:
    """Hidden states, and a pooled first token if the body has a ``pooler``.

    Families hold ``embeddings`` and ``encoder``, or override :meth:`embed` and :meth:`encode`.

    Attributes:
        output_class: class of the body's outputs.
        encoder_inputs: inputs that the layers take and the embeddings do not, such as rotary positions.
        states_without_layers: whether a body of no layers returns its embeddings as a hidden state. Most of PyTorch's
            record the inputs of their layers, and so return none.
    """

    output_class: type[ModelOutput] = BaseModelOutputWithPooling
    encoder_inputs: tuple[str, ...] = ()
    states_without_layers = False

    def embed(self, training: bool = False, **tokens: Any) -> tf.Tensor:
        """The vectors ``[batch, seq, hidden]`` that enter the first layer."""
        return self.embeddings(**tokens, training=training)

    def layer_inputs(self, embeddings: tf.Tensor, attention_mask: tf.Tensor | None) -> LayerInputs:
        """Inputs of all layers, causal if the config says ``is_decoder=True``."""
        length, causal = tf.shape(embeddings)[1], getattr(self.config, "is_decoder", False)
        bias = attention_bias(attention_mask, embeddings.dtype, queries=length, keys=length, causal=causal)
        return LayerInputs(length=length, bias=bias)

    def encode(self, embeddings: tf.Tensor, attention_mask: tf.Tensor | None, **options: Any) -> BaseModelOutput:
        """The last hidden state, and the hidden states and attentions that are asked for."""
        return self.encoder(embeddings, inputs=self.layer_inputs(embeddings, attention_mask), **options)

    def forward(
        self,
        attention_mask=None,
        output_hidden_states=False,
        output_attentions=False,
        first_token_only=False,
        training=False,
        **tokens: Any,
    ) -> ModelOutput:
        """See :meth:`tf_pipeline.model.TFPreTrainedModel.__call__`; ``tokens`` are ids or embeddings, types, positions.

        ``first_token_only`` spares the last layer all but the first token, for heads that read no other; the last
        hidden state is ``[batch, 1, hidden]`` then, unless hidden states or attentions are to be returned too.
        """
        encoding = {name: tokens.pop(name) for name in self.encoder_inputs if name in tokens}
        embeddings = self.embed(training=training, **tokens)
        first_token_only = first_token_only and not (output_hidden_states or output_attentions)
        encoded = self.encode(
            embeddings,
            attention_mask,
            first_token_only=first_token_only,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            training=training,
            **encoding,
        )
        if output_hidden_states and len(encoded.hidden_states) == 1 and not self.states_without_layers:
            encoded = type(encoded)(encoded, hidden_states=())
        if getattr(self, "pooler", None) is None:
            return self.output_class(encoded)
        return self.output_class(encoded, pooler_output=self.pooler(encoded.last_hidden_state))


def head_outputs(output_class: type[ModelOutput], body: ModelOutput, **results: tf.Tensor) -> ModelOutput:
    """A head's results with the hidden states and attentions of its body."""
    return output_class(results, hidden_states=body.hidden_states, attentions=body.attentions)


class LanguageModel:
    """Scores the vocabulary at each token.

    Families implement ``prediction_logits``: ``[batch, seq, hidden]`` to ``[batch, seq, vocab]``.
    """

    output_class: type[ModelOutput]

    def forward(self, mask_positions: tf.Tensor | None = None, **inputs: Any) -> ModelOutput:
        """Scores of every token of the vocabulary, at all tokens or at ``mask_positions`` ``[batch, n]`` alone."""
        body = self.base_model.forward(**inputs)
        states = body.last_hidden_state
        if mask_positions is not None:
            states = tf.gather(states, mask_positions, batch_dims=1)
        return head_outputs(self.output_class, body, logits=self.prediction_logits(states))


@heads.MASKED_LM
class MaskedLM(LanguageModel):
    """Predicts masked tokens. Labels: ``[batch, seq]``, -100 where nothing is to be predicted.

    A call takes ``mask_positions``, int ``[batch, n]``: the vocabulary is scored at these tokens alone, and logits are
    ``[batch, n, vocab]``. PyTorch has no such argument; scoring all tokens takes most of the time and memory.
    """

    option_names = (*TFPreTrainedModel.option_names, "mask_positions")
    output_class = MaskedLMOutput

    def call(
        self,
        inputs,
        mask_positions=None,
        output_hidden_states=None,
        output_attentions=None,
        return_dict=None,
        training=None,
    ):
        """See :meth:`tf_pipeline.model.TFPreTrainedModel.__call__`; labels are not taken with ``mask_positions``."""
        if mask_positions is not None:
            if "labels" in inputs:
                raise ValueError("labels are of all tokens: leave them out, or mask_positions.")
            mask_positions = tf.convert_to_tensor(mask_positions)
            length = next(inputs[name].shape[1] for name in ("input_ids", "inputs_embeds") if name in inputs)
            if length is not None:
                check_range("mask_positions", mask_positions, length, f"(the text has {length} tokens).")
        return self.run(
            inputs,
            mask_positions=mask_positions,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=return_dict,
            training=training,
        )


@heads.CAUSAL_LM
class CausalLM(LanguageModel):
    """Predicts the next token; the config should say ``is_decoder=True``. Labels ``[batch, seq]`` are shifted here."""

    output_class = CausalLMOutput

    def __init__(self, config, **kwargs: Any):
        super().__init__(config, **kwargs)
        if not config.is_decoder:
            logger.warning("%s without is_decoder=True in its config sees the tokens it predicts.", type(self).__name__)


class PreTraining:
    """Masked-language and sentence-pair heads; the loss takes both labels.

    Labels: ``labels`` ``[batch, seq]`` and the family's own of the pair ``[batch]``. Families name the pair's label and
    output class, and implement ``prediction_logits`` and ``pair_logits``.
    """

    output_class: type[ModelOutput] = PreTrainingOutput

    def forward(self, training=False, **inputs: Any) -> ModelOutput:
        """Both heads' logits."""
        body = self.base_model.forward(training=training, **inputs)
        _, words, pair, *_ = self.output_class.fields
        results = {
            words: self.prediction_logits(body.last_hidden_state),
            pair: self.pair_logits(body.pooler_output, training=training),
        }
        return head_outputs(self.output_class, body, **results)


class TextHead:
    """Scores texts as a whole. Families implement ``text_logits``, of the result of :meth:`pool`."""

    reads_first_token = True  # and no other, so that the last layer need not compute them

    def pool(self, body: ModelOutput, attention_mask: tf.Tensor | None) -> Any:
        """The body's outputs; ``text_logits`` takes the parts it needs."""
        return body

    def score_texts(self, inputs: dict[str, Any], training: bool) -> tuple[ModelOutput, tf.Tensor]:
        """The body's outputs, and the scores ``[batch, scores]``."""
        body = self.base_model.forward(first_token_only=self.reads_first_token, training=training, **inputs)
        return body, self.text_logits(self.pool(body, inputs.get("attention_mask")), training=training)


@heads.SEQUENCE_CLASSIFICATION
class SequenceClassification(TextHead):
    """Scores a text or a pair. Labels: ``[batch]``, or ``[batch, num_labels]`` for multi-label and regression.

    Families implement ``text_logits``: the body's outputs to ``[batch, num_labels]``.
    """

    def forward(self, training=False, **inputs: Any) -> SequenceClassifierOutput:
        """Logits of each text."""
        body, logits = self.score_texts(inputs, training)
        return head_outputs(SequenceClassifierOutput, body, logits=logits)


@heads.MULTIPLE_CHOICE
class MultipleChoice(TextHead):
    """Chooses among texts. Inputs are ``[batch, choices, seq]``, labels ``[batch]``.

    Families implement ``text_logits``: the body's outputs to ``[batch * choices, 1]``.
    """

    def forward(self, training=False, **inputs: Any) -> MultipleChoiceModelOutput:
        """One logit per choice."""
        inputs, choices = flatten_choices(inputs)
        body, logits = self.score_texts(inputs, training)
        return head_outputs(MultipleChoiceModelOutput, body, logits=tf.reshape(logits, [-1, choices]))


@heads.TOKEN_CLASSIFICATION
class TokenClassification:
    """Labels each token. Labels: ``[batch, seq]``, -100 where none counts.

    Families hold ``dropout`` and ``classifier``, or override :meth:`token_logits`.
    """

    def token_logits(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, num_labels]``."""
        return self.classifier(self.dropout(hidden_states, training=training))

    def forward(self, training=False, **inputs: Any) -> TokenClassifierOutput:
        """Logits of each token."""
        body = self.base_model.forward(training=training, **inputs)
        logits = self.token_logits(body.last_hidden_state, training=training)
        return head_outputs(TokenClassifierOutput, body, logits=logits)


@heads.QUESTION_ANSWERING
class QuestionAnswering:
    """Finds an answer in a context. Labels: ``start_positions`` and ``end_positions`` ``[batch]``.

    Families hold ``qa_outputs``, or override :meth:`span_logits`.
    """

    supported_config = {"num_labels": (2,)}

    def span_logits(self, hidden_states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``[batch, seq, hidden]`` to ``[batch, seq, 2]``."""
        return self.qa_outputs(hidden_states)

    def forward(self, training=False, **inputs: Any) -> QuestionAnsweringModelOutput:
        """Start and end logits of each token."""
        body = self.base_model.forward(training=training, **inputs)
        start, end = tf.unstack(self.span_logits(body.last_hidden_state, training=training), axis=-1)
        return head_outputs(QuestionAnsweringModelOutput, body, start_logits=start, end_logits=end)
