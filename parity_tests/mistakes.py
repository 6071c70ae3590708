"""Mistakes in every family, head, loss, tokenizer and pipeline, as patches of this side alone.

Each says which checkpoint it is planted in and which groups of the comparison are to see it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_pipeline
from tf_pipeline import checkpoint, encoder, losses, model, outputs
from tf_pipeline.layers import (
    Embedding,
    LayerNorm,
    Linear,
    RotaryEmbedding,
    SequenceSummary,
    VocabularyProjector,
    activations,
    attention,
    rows,
)
from tf_pipeline.layers import core as core_layers
from tf_pipeline.models import albert, bert, deberta_v2, distilbert, electra, modernbert, mpnet, roberta
from tf_pipeline.pipelines import (
    base,
    feature_extraction,
    fill_mask,
    question_answering,
    text_classification,
    token_classification,
)
from tf_pipeline.port.interpret import Interpreter
from tf_pipeline.port.rules.registry import RULES
from tf_pipeline.tokenization import auto as tokenization


@dataclass(frozen=True)
class Mistake:
    """A mistake and where it is planted.

    Attributes:
        plant: takes pytest's ``monkeypatch``.
        family: the family of the checkpoint; ``"ported"`` for an architecture without a module of its own.
        class_name: the class.
        changes: config values of the checkpoint.
        groups: what is compared.
        dtypes: dtypes to compare in.
        sample: whether it is planted in every run of the tests, or only in the long ones.
        needs_labels: whether only results of inputs with labels show it.
    """

    plant: Callable[[Any], None]
    family: str
    class_name: str
    changes: dict[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] = ("outputs",)
    dtypes: tuple[str, ...] = ("float64",)
    sample: bool = False
    needs_labels: bool = False


MISTAKES: dict[str, Mistake] = {}


def mistake(family, class_name, *groups, dtypes=("float64",), sample=False, needs_labels=False, **changes):
    """Put a patch into the list, under its name, for one class or for several."""

    def add(plant):
        name = f"{class_name}: {plant.__name__.replace('_', ' ')}"
        assert name not in MISTAKES
        MISTAKES[name] = Mistake(
            plant, family, class_name, changes, groups or ("outputs",), dtypes, sample, needs_labels
        )
        return plant

    return add


mistake_in_the_loss = partial(mistake, needs_labels=True)


def wrapped(patch, owner, name: str, wrap: Callable) -> None:
    """Replace a method by ``wrap(method)``."""
    own = getattr(owner, name)
    patch.setattr(owner, name, wraps(own)(wrap(own)))


def results(change: Callable) -> Callable:
    """What wraps a function so that its result goes through ``change``."""
    return lambda own: lambda *args, **kwargs: change(own(*args, **kwargs))


def arguments(**changed: Any) -> Callable:
    """What wraps a function so that it gets other keyword arguments."""
    return lambda own: lambda *args, **kwargs: own(*args, **(kwargs | changed))


def loss(patch, class_name: str, function: Callable) -> None:
    """Give a class another loss."""
    patch.setattr(getattr(tf_pipeline, class_name), "task_loss", staticmethod(function))


# -------------------------------------------------------------------------------------------------------------- losses


@mistake_in_the_loss("bert", "TFBertForQuestionAnswering", sample=True)
@mistake_in_the_loss("modernbert", "TFModernBertForQuestionAnswering")
def positions_past_the_sequence_counted(patch):
    def counted(outputs, labels, config):
        last = tf.shape(outputs.start_logits)[1] - 1
        each = [
            losses.cross_entropy(outputs[f"{name}_logits"], tf.clip_by_value(labels[f"{name}_positions"], 0, last))
            for name in ("start", "end")
        ]
        return (each[0] + each[1]) / 2

    for class_name in ("TFBertForQuestionAnswering", "TFModernBertForQuestionAnswering"):
        loss(patch, class_name, counted)


@mistake_in_the_loss("albert", "TFAlbertForQuestionAnswering")
def negative_positions_ignored(patch):
    def ignoring(outputs, labels, config):
        length = tf.shape(outputs.start_logits)[1]
        moved = {name: tf.where(value < 0, tf.cast(length, value.dtype), value) for name, value in labels.items()}
        return losses.question_answering(outputs, moved, config)

    loss(patch, "TFAlbertForQuestionAnswering", ignoring)


@mistake_in_the_loss("electra", "TFElectraForQuestionAnswering")
def start_and_end_added_instead_of_averaged(patch):
    loss(patch, "TFElectraForQuestionAnswering", lambda *args: 2 * losses.question_answering(*args))


@mistake_in_the_loss("roberta", "TFRobertaForTokenClassification")
def mean_over_ignored_labels_too(patch):
    def diluted(outputs, labels, config):
        counted = tf.reduce_mean(tf.cast(labels["labels"] != -100, outputs.logits.dtype))
        return losses.classification(outputs, labels, config) * counted

    loss(patch, "TFRobertaForTokenClassification", diluted)


@mistake_in_the_loss("modernbert", "TFModernBertForMaskedLM")
def mean_of_the_means_of_texts(patch):
    def by_text(outputs, labels, config):
        each = [losses.cross_entropy(a, b) for a, b in zip(outputs.logits, labels["labels"], strict=True)]
        return tf.reduce_mean(tf.boolean_mask(each, ~tf.math.is_nan(each)))

    loss(patch, "TFModernBertForMaskedLM", by_text)


@mistake_in_the_loss("deberta-v2", "TFDebertaV2ForMaskedLM")
def padding_id_ignored_as_well(patch):
    def ignoring(outputs, labels, config):
        target = labels["labels"]
        target = tf.where(target == config.pad_token_id, tf.constant(-100, target.dtype), target)
        return losses.cross_entropy(outputs.logits, target)

    loss(patch, "TFDebertaV2ForMaskedLM", ignoring)


@mistake_in_the_loss("electra", "TFElectraForPreTraining")
def loss_over_padding(patch):
    def everywhere(outputs, labels, config):
        return losses.replaced_tokens(outputs, {"labels": labels["labels"]}, config)

    loss(patch, "TFElectraForPreTraining", everywhere)


@mistake_in_the_loss("albert", "TFAlbertForPreTraining")
def losses_of_words_and_pair_averaged(patch):
    loss(patch, "TFAlbertForPreTraining", lambda *args: losses.pre_training(*args) / 2)


@mistake_in_the_loss("bert", "TFBertForPreTraining")
def loss_of_words_without_a_pair(patch):
    def partial_loss(outputs, labels, config):
        if set(labels) == {"labels"}:
            return losses.cross_entropy(outputs.prediction_logits, labels["labels"])
        return losses.pre_training(outputs, labels, config)

    loss(patch, "TFBertForPreTraining", partial_loss)


@mistake_in_the_loss("bert", "TFBertForPreTraining")
def ignored_pair_counted(patch):
    def counted(outputs, labels, config):
        pair = tf.maximum(labels["next_sentence_label"], 0)
        return losses.pre_training(outputs, dict(labels) | {"next_sentence_label": pair}, config)

    loss(patch, "TFBertForPreTraining", counted)


@mistake_in_the_loss("bert", "TFBertForNextSentencePrediction")
def ignored_text_counted(patch):
    loss(
        patch,
        "TFBertForNextSentencePrediction",
        lambda outputs, labels, config: losses.cross_entropy(outputs.logits, tf.maximum(labels["labels"], 0)),
    )


@mistake_in_the_loss("roberta", "TFRobertaForSequenceClassification")
def ignored_class_counted(patch):
    def counted(outputs, labels, config):
        target = labels["labels"]
        if target.dtype.is_integer and target.shape.rank == 1:
            return losses.cross_entropy(outputs.logits, tf.maximum(target, 0))
        return losses.sequence_classification(outputs, labels, config)

    loss(patch, "TFRobertaForSequenceClassification", counted)


@mistake_in_the_loss("mpnet", "TFMPNetForMultipleChoice")
def ignored_choice_counted(patch):
    loss(
        patch,
        "TFMPNetForMultipleChoice",
        lambda outputs, labels, config: losses.cross_entropy(outputs.logits, tf.maximum(labels["labels"], 0)),
    )


@mistake_in_the_loss("bert", "TFBertForSequenceClassification", problem_type="multi_label_classification", num_labels=3)
def labels_of_a_text_added_up(patch):
    def added(outputs, labels, config):
        return 3 * losses.sequence_classification(outputs, labels, config)

    loss(patch, "TFBertForSequenceClassification", added)


@mistake_in_the_loss("distilbert", "TFDistilBertForSequenceClassification", num_labels=1)
def absolute_error(patch):
    def absolute(outputs, labels, config):
        target = tf.reshape(tf.cast(labels["labels"], outputs.logits.dtype), tf.shape(outputs.logits))
        return tf.reduce_mean(tf.abs(outputs.logits - target))

    loss(patch, "TFDistilBertForSequenceClassification", absolute)


@mistake_in_the_loss("camembert", "TFCamembertForSequenceClassification", num_labels=2, problem_type="regression")
@mistake_in_the_loss(
    "xlm-roberta", "TFXLMRobertaForSequenceClassification", num_labels=1, problem_type="multi_label_classification"
)
def problem_type_guessed(patch):
    def guessed(config, labels):
        if config.num_labels == 1:
            return "regression"
        return "single_label_classification" if labels.dtype.is_integer else "multi_label_classification"

    patch.setattr(losses, "problem_type", guessed)


@mistake_in_the_loss("modernbert", "TFModernBertForSequenceClassification", num_labels=3, problem_type="regression")
def regression_of_the_first_value_alone(patch):
    def first(outputs, labels, config):
        return tf.reduce_mean((outputs.logits[:, 0] - tf.cast(labels["labels"], outputs.logits.dtype)[:, 0]) ** 2)

    loss(patch, "TFModernBertForSequenceClassification", first)


@mistake_in_the_loss("deberta-v2", "TFDebertaV2ForSequenceClassification")
def labels_below_zero_counted(patch):
    def counted(outputs, labels, config):
        target = labels["labels"]
        if target.dtype.is_integer:
            return losses.cross_entropy(outputs.logits, tf.maximum(tf.reshape(target, [-1]), 0))
        return deberta_v2.sequence_loss(outputs, labels, config)

    loss(patch, "TFDebertaV2ForSequenceClassification", counted)


@mistake_in_the_loss("deberta-v2", "TFDebertaV2ForSequenceClassification")
def probabilities_taken_for_several_labels(patch):
    loss(patch, "TFDebertaV2ForSequenceClassification", losses.sequence_classification)


@mistake_in_the_loss("xlm-roberta", "TFXLMRobertaForCausalLM")
def labels_shifted_the_other_way(patch):
    def other_way(outputs, labels, config):
        return losses.cross_entropy(outputs.logits[:, 1:], labels["labels"][:, :-1])

    loss(patch, "TFXLMRobertaForCausalLM", other_way)


@mistake_in_the_loss("camembert", "TFCamembertForTokenClassification")
def labels_smoothed(patch):
    def smoothed(outputs, labels, config):
        even = -tf.reduce_mean(tf.nn.log_softmax(outputs.logits))
        return 0.9 * losses.classification(outputs, labels, config) + 0.1 * even

    loss(patch, "TFCamembertForTokenClassification", smoothed)


# --------------------------------------------------------------------------------------------- heads and their layers


@mistake("roberta", "TFRobertaForMaskedLM")
@mistake("mpnet", "TFMPNetForMaskedLM")
def activation_of_the_config_in_the_head(patch):
    wrapped(
        patch,
        roberta.RobertaLMHead,
        "__init__",
        lambda own: (
            lambda self, config, dtype=None: (
                own(self, config, dtype),
                setattr(self, "activation", activations.get_activation(config.hidden_act)),
            )[0]
        ),
    )


@mistake("roberta", "TFRobertaForTokenClassification")
def padding_inside_a_text_has_a_position(patch):
    own = roberta.token_positions

    def positions(ids, vectors, padding_idx, *rest):
        if ids is not None:
            real = tf.cast(ids != padding_idx, tf.int32)
            inside = (tf.cumsum(real, axis=1) > 0) & (tf.cumsum(real, axis=1, reverse=True) > 0)
            ids = tf.where(inside, tf.cast(padding_idx + 1, ids.dtype), ids)
        return own(ids, vectors, padding_idx, *rest)

    patch.setattr(roberta, "token_positions", positions)


@mistake("electra", "TFElectraForMaskedLM")
def generator_activated_by_the_config(patch):
    wrapped(
        patch,
        electra.ElectraGeneratorPredictions,
        "__init__",
        lambda own: (
            lambda self, config, dtype=None: (
                own(self, config, dtype),
                setattr(self, "activation", activations.get_activation(config.hidden_act)),
            )[0]
        ),
    )


@mistake("electra", "TFElectraForPreTraining")
def discriminator_always_gelu(patch):
    def call(self, hidden_states):
        return tf.squeeze(self.dense_prediction(activations.gelu(self.dense(hidden_states))), axis=-1)

    patch.setattr(electra.ElectraDiscriminatorPredictions, "call", call)


@mistake("electra", "TFElectraForSequenceClassification")
def classifier_squashed_by_tanh(patch):
    wrapped(
        patch,
        roberta.ClassificationHead,
        "__init__",
        lambda own: lambda self, config, dropout, activation, dtype=None: own(self, config, dropout, "tanh", dtype),
    )


@mistake("mpnet", "TFMPNetForSequenceClassification")
def classifier_not_activated(patch):
    wrapped(
        patch,
        roberta.ClassificationHead,
        "__init__",
        lambda own: lambda self, config, dropout, activation, dtype=None: own(self, config, dropout, "linear", dtype),
    )


@mistake("distilbert", "TFDistilBertForSequenceClassification")
@mistake("distilbert", "TFDistilBertForMultipleChoice")
def classifier_without_relu(patch):
    def text_logits(self, body, training=False):
        return self.classifier(self.dropout(self.pre_classifier(body.last_hidden_state[:, 0]), training=training))

    patch.setattr(distilbert.TFDistilBertPreTrainedModel, "text_logits", text_logits)


@mistake("deberta-v2", "TFDebertaV2ForMultipleChoice")
def pooler_activated_by_gelu(patch):
    def call(self, hidden_states, training=None):
        return activations.gelu(self.dense(self.dropout(hidden_states[:, 0], training=training)))

    patch.setattr(deberta_v2.ContextPooler, "call", call)


@mistake("deberta-v2", "TFDebertaV2Model")
def convolution_squashed_by_tanh(patch):
    wrapped(
        patch,
        deberta_v2.ConvLayer,
        "__init__",
        lambda own: (
            lambda self, config, dtype=None: (
                own(self, config, dtype),
                setattr(self, "activation", tf.tanh),
            )[0]
        ),
    )


@mistake("modernbert", "TFModernBertForTokenClassification")
def head_activated_as_the_layers(patch):
    wrapped(
        patch,
        modernbert.ModernBertPredictionHead,
        "__init__",
        lambda own: (
            lambda self, config, dtype=None: (
                own(self, config, dtype),
                setattr(self, "activation", activations.get_activation(config.hidden_activation)),
            )[0]
        ),
    )


@mistake("albert", "TFAlbertForMaskedLM")
def norm_left_out_of_the_head(patch):
    patch.setattr(
        albert.AlbertMLMHead,
        "transformed",
        lambda self, hidden_states: self.activation(self.dense(hidden_states)),
    )


@mistake("deberta-v2", "TFDebertaV2ForMaskedLM", legacy=False)
@mistake("bert", "TFBertForMaskedLM")
def bias_of_the_vocabulary_left_out(patch):
    patch.setattr(core_layers.Bias, "call", lambda self, inputs: inputs)


@mistake("modernbert", "TFModernBertForMaskedLM", tie_word_embeddings=False)
def scored_by_the_word_embeddings_all_the_same(patch):
    def call(self, hidden_states, word_embeddings):
        shape = tf.shape(hidden_states)
        scores = tf.matmul(tf.reshape(hidden_states, [-1, self.hidden_size]), word_embeddings, transpose_b=True)
        return tf.reshape(scores + self.bias, [shape[0], shape[1], self.vocab_size])

    patch.setattr(VocabularyProjector, "call", call)


@mistake("bert", "TFBertForMaskedLM", tie_word_embeddings=False)
def wrong_one_of_two_biases(patch):
    def call(self, hidden_states, word_embeddings):
        scores = self.decoder(self.transformed(hidden_states), word_embeddings)
        return scores if self.tied else scores - self.decoder.bias + self.bias.value

    patch.setattr(core_layers.VocabularyHead, "call", call)


@mistake("camembert", "TFCamembertModel")
@mistake("bert", "TFBertForNextSentencePrediction")
def pooler_reads_the_mean(patch):
    patch.setattr(bert.BertPooler, "call", lambda self, states: tf.tanh(self.dense(tf.reduce_mean(states, axis=1))))


@mistake("albert", "TFAlbertModel")
def pooler_reads_the_last_token(patch):
    def call(self, hidden_states, training=None):
        return tf.tanh(Linear.call(self, hidden_states[:, -1]))

    patch.setattr(albert.AlbertPooler, "call", call)


@mistake("modernbert", "TFModernBertForSequenceClassification", classifier_pooling="mean")
@mistake("modernbert", "TFModernBertForMultipleChoice", classifier_pooling="mean")
def mean_of_padding_too(patch):
    patch.setattr(modernbert, "mean_of_tokens", lambda states, mask: tf.reduce_mean(states, axis=1))


@mistake("modernbert", "TFModernBertForMultipleChoice", classifier_pooling="cls")
def first_place_instead_of_the_first_token(patch):
    def pool(self, body, attention_mask):
        return body.last_hidden_state[:, 0]

    patch.setattr(modernbert.TFModernBertForMultipleChoice, "pool", pool)


@mistake("electra", "TFElectraForMultipleChoice", summary_type="last")
def always_the_first_token(patch):
    patch.setitem(SequenceSummary.READERS, "last", lambda states, places: states[:, 0])


@mistake("electra", "TFElectraForMultipleChoice", summary_type="mean")
def mean_without_the_first_token(patch):
    patch.setitem(SequenceSummary.READERS, "mean", lambda states, places: tf.reduce_mean(states[:, 1:], axis=1))


@mistake("roberta", "TFRobertaForMultipleChoice")
def choices_and_texts_exchanged(patch):
    def forward(self, training=False, **inputs):
        inputs, choices = encoder.flatten_choices(inputs)
        body, logits = self.score_texts(inputs, training)
        logits = tf.transpose(tf.reshape(logits, [choices, -1]))
        return encoder.head_outputs(outputs.MultipleChoiceModelOutput, body, logits=logits)

    patch.setattr(encoder.MultipleChoice, "forward", forward)


@mistake("xlm-roberta", "TFXLMRobertaForQuestionAnswering")
def start_and_end_exchanged(patch):
    def exchanged(own):
        def forward(self, *args, **kwargs):
            found = own(self, *args, **kwargs)
            return type(found)(found, start_logits=found.end_logits, end_logits=found.start_logits)

        return forward

    wrapped(patch, encoder.QuestionAnswering, "forward", exchanged)


# -------------------------------------------------------------------------------------------------------------- dropout


@mistake("modernbert", "TFModernBertModel", mlp_dropout=0.1)
def dropout_left_on_in_the_feed_forward_layer(patch):
    def call(self, rows, training=None):
        states, gate = tf.split(self.Wi(rows), 2, axis=-1)
        return self.Wo(self.drop(self.activation(states) * gate, training=True))

    patch.setattr(modernbert.ModernBertMLP, "call", call)


@mistake("electra", "TFElectraForMultipleChoice", summary_last_dropout=0.3)
def dropout_left_on_in_the_summary(patch):
    wrapped(
        patch,
        SequenceSummary,
        "call",
        lambda own: lambda self, states, training=None: own(self, states, training=True),
    )


@mistake("bert", "TFBertForSequenceClassification", "training", classifier_dropout=0.4)
@mistake("roberta", "TFRobertaForTokenClassification", "training", classifier_dropout=0.4)
def classifier_dropout_ignored(patch):
    def dropout(config, dtype):
        return keras.layers.Dropout(config.hidden_dropout_prob, dtype=dtype)

    for module in (bert, roberta, electra):
        patch.setattr(module, "classifier_dropout", dropout)


@mistake("distilbert", "TFDistilBertForQuestionAnswering", "training", qa_dropout=0.4)
def dropout_of_answers_left_out(patch):
    patch.setattr(
        distilbert.TFDistilBertForQuestionAnswering,
        "span_logits",
        lambda self, states, training=False: self.qa_outputs(states),
    )


@mistake("bert", "TFBertModel", "training")
def attention_dropout_left_out(patch):
    wrapped(
        patch,
        bert,
        "dot_product_attention",
        lambda own: (
            lambda query, key, value, inputs, heads, dropout=None, training=None: own(query, key, value, inputs, heads)
        ),
    )


@mistake("albert", "TFAlbertModel", "training", hidden_dropout_prob=0.2)
def dropout_that_PyTorch_does_not_apply(patch):
    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attention(rows, inputs=inputs, training=training)
        states = self.dropout(self.ffn_output(self.activation(self.ffn(attended))), training=training)
        return self.full_layer_layer_norm(albert.add_residual(states, attended)), probabilities

    patch.setattr(albert.AlbertLayer, "call", call)


@mistake("mpnet", "TFMPNetModel", "training")
def dropout_after_the_norm(patch):
    def call(self, rows, inputs, training=None):
        attended, probabilities = self.attn(rows, inputs=inputs, training=training)
        states = self.LayerNorm(mpnet.add_residual(attended, inputs.computed(rows)))
        return self.dropout(states, training=training), probabilities

    patch.setattr(mpnet.MPNetAttention, "call", call)


# ------------------------------------------------------------------------------------------------ positions and types


@mistake("roberta", "TFRobertaModel", sample=True)
@mistake("camembert", "TFCamembertForMaskedLM")
def positions_count_padding(patch):
    def counted(input_ids, inputs_embeds, padding_idx):
        length = tf.shape(input_ids if inputs_embeds is None else inputs_embeds)[1]
        return tf.range(length)[tf.newaxis] + padding_idx + 1

    patch.setattr(roberta, "token_positions", counted)


@mistake("mpnet", "TFMPNetModel", pad_token_id=3)
def positions_counted_from_the_padding_of_the_config(patch):
    def call(self, input_ids=None, position_ids=None, inputs_embeds=None, training=None):
        if position_ids is None:
            position_ids = mpnet.token_positions(input_ids, inputs_embeds, 3)
        embeds = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        return self.dropout(self.LayerNorm(embeds + self.position_embeddings(position_ids)), training=training)

    patch.setattr(mpnet.MPNetEmbeddings, "call", call)


@mistake("xlm-roberta", "TFXLMRobertaModel")
def positions_of_embeddings_from_zero(patch):
    own = roberta.token_positions

    def zero(input_ids, inputs_embeds, padding_idx):
        if input_ids is None:
            return tf.range(tf.shape(inputs_embeds)[1])[tf.newaxis]
        return own(input_ids, inputs_embeds, padding_idx)

    patch.setattr(roberta, "token_positions", zero)


@mistake("distilbert", "TFDistilBertModel")
def positions_given_ignored(patch):
    wrapped(
        patch,
        distilbert,
        "position_vectors",
        lambda own: lambda table, position_ids, length: own(table, None, length),
    )


@mistake("modernbert", "TFModernBertModel")
def rotary_positions_given_ignored(patch):
    def counted(own):
        def table(self, positions, dtype, heads_axis=1):
            return own(self, tf.range(tf.shape(positions)[1])[tf.newaxis], dtype, heads_axis)

        return table

    wrapped(patch, RotaryEmbedding, "__call__", counted)


@mistake("roberta", "TFRobertaForSequenceClassification", "gradients")
@mistake("albert", "TFAlbertForTokenClassification", "gradients")
def padding_is_trained(patch):
    wrapped(
        patch,
        core_layers,
        "lookup",
        lambda own: lambda table, ids, padding=None, dtype=None: own(table, ids, None, dtype),
    )


@mistake("deberta-v2", "TFDebertaV2Model", type_vocab_size=2)
def tokens_are_of_the_second_text_by_default(patch):
    def call(own):
        def embed(self, input_ids=None, token_type_ids=None, **kwargs):
            types = tf.ones([1, 1], tf.int32) if token_type_ids is None else token_type_ids
            return own(self, input_ids, token_type_ids=types, **kwargs)

        return embed

    wrapped(patch, deberta_v2.DebertaV2Embeddings, "call", call)


@mistake("electra", "TFElectraModel")
def types_of_the_first_text_for_all(patch):
    def call(own):
        def embed(self, input_ids=None, token_type_ids=None, **kwargs):
            return own(self, input_ids, None if token_type_ids is None else token_type_ids[:1], **kwargs)

        return embed

    wrapped(patch, bert.BertEmbeddings, "call", call)


# ------------------------------------------------------------------------------------- relative positions and windows


@mistake("mpnet", "TFMPNetModel")
def later_keys_taken_for_earlier(patch):
    wrapped(patch, mpnet, "relative_positions", results(lambda x: -x))


@mistake("mpnet", "TFMPNetForTokenClassification")
def buckets_rounded_to_the_nearest(patch):
    def rounded(relative, num_buckets=32, max_distance=128):
        half = num_buckets // 2
        exact = half // 2
        far = np.arange(max_distance + 1)
        shared = exact + np.round(np.log(np.maximum(far, 1) / exact) / np.log(max_distance / exact) * (half - exact))
        table = np.where(far < exact, far, np.minimum(shared, half - 1)).astype(np.int32)
        return tf.gather(table, tf.minimum(tf.abs(relative), max_distance)) + tf.where(relative > 0, half, 0)

    patch.setattr(mpnet, "bidirectional_buckets", rounded)


@mistake("mpnet", "TFMPNetModel")
def number_of_buckets_of_the_config(patch):
    patch.setattr(mpnet, "NUM_BUCKETS", 40)


@mistake("mpnet", "TFMPNetModel")
def farthest_bucket_at_64(patch):
    wrapped(patch, mpnet, "bidirectional_buckets", lambda own: lambda relative, buckets: own(relative, buckets, 64))


@mistake("deberta-v2", "TFDebertaV2Model")
def buckets_rounded_down(patch):
    def floored(distances, num_buckets, max_distance):
        exact = num_buckets // 2
        far = np.maximum(np.arange(512), exact).astype(np.float32)
        scaled = np.log(far / exact) / np.log((max_distance - 1) / exact) * (exact - 1)
        table = np.where(np.arange(512) <= exact, np.arange(512), np.minimum(np.floor(scaled) + exact, num_buckets))
        return tf.sign(distances) * tf.gather(table.astype(np.int32), tf.abs(distances))

    patch.setattr(deberta_v2, "log_buckets", floored)


@mistake("deberta-v2", "TFDebertaV2ForQuestionAnswering")
def distances_to_and_from_a_key_confused(patch):
    def distance_scores(self, query, key, inputs, training):
        table, places = inputs.distances
        vectors = tf.gather(table, places)
        scale = tf.constant(self.scale, query.dtype)
        first = self._scores(query * scale, self.pos_key_proj(vectors), inputs.queries, inputs.length)
        second = self._scores(key * scale, self.pos_query_proj(vectors), inputs.length, inputs.length)
        return first + tf.transpose(second[..., : inputs.queries], [0, 1, 3, 2])

    patch.setattr(deberta_v2.DisentangledSelfAttention, "distance_scores", distance_scores)


@mistake("deberta-v2", "TFDebertaV2ForTokenClassification", pos_att_type=["c2p"])
def scale_of_three_kinds_of_scores(patch):
    wrapped(
        patch,
        deberta_v2.DisentangledSelfAttention,
        "__init__",
        lambda own: (
            lambda self, config, dtype=None: (
                own(self, config, dtype),
                setattr(self, "scale", (config.hidden_size // config.num_attention_heads * 3) ** -0.5),
            )[0]
        ),
    )


@mistake("deberta-v2", "TFDebertaV2Model")
def convolution_sees_padding(patch):
    wrapped(
        patch,
        deberta_v2.ConvLayer,
        "call",
        lambda own: (
            lambda self, embeddings, states, real=None, training=None: own(
                self, embeddings, states, real=None, training=training
            )
        ),
    )


@mistake("deberta-v2", "TFDebertaV2Model", position_buckets=-1, max_relative_positions=6)
def distances_end_one_too_late(patch):
    def distances(self, length):
        table = self.LayerNorm(self.rel_embeddings.table())
        steps = tf.clip_by_value(tf.range(length - 1, -length, -1), -self.span + 1, self.span - 1)
        return table, steps + self.span

    patch.setattr(deberta_v2.DebertaV2Encoder, "distances", distances)


@mistake("modernbert", "TFModernBertModel", sample=True)
def window_too_narrow(patch):
    wrapped(
        patch,
        modernbert,
        "attention_bias",
        lambda own: (
            lambda mask, dtype, window=None, **options: own(
                mask, dtype, window=None if window is None else window - 1, **options
            )
        ),
    )


@mistake("modernbert", "TFModernBertForMaskedLM")
def one_rotary_base_for_all_layers(patch):
    wrapped(
        patch, RotaryEmbedding, "__init__", lambda own: lambda self, config, kind: own(self, config, "full_attention")
    )


@mistake("modernbert", "TFModernBertForQuestionAnswering")
def kinds_of_layers_one_place_off(patch):
    def encode(own):
        def call(self, *args, **kwargs):
            kept = self.config.layer_types
            self.config.layer_types = [*kept[1:], kept[0]]
            try:
                return own(self, *args, **kwargs)
            finally:
                self.config.layer_types = kept

        return call

    wrapped(patch, modernbert.TFModernBertModel, "encode", encode)


@mistake("modernbert", "TFModernBertModel")
def neighbours_turned_as_pairs(patch):
    def rotate_rows(rows, table, length, num_heads):
        cosines, sines = table
        x = tf.reshape(rows, [-1, length, num_heads, rows.shape[-1] // num_heads])
        pairs = tf.reshape(x, [-1, length, num_heads, x.shape[-1] // 2, 2])
        turned = tf.reshape(tf.stack([-pairs[..., 1], pairs[..., 0]], axis=-1), tf.shape(x))
        return tf.reshape(x * cosines + turned * sines, [-1, rows.shape[-1]])

    patch.setattr(modernbert, "rotate_rows", rotate_rows)


@mistake("modernbert", "TFModernBertModel")
def gate_and_gated_exchanged(patch):
    def call(self, rows, training=None):
        gate, states = tf.split(self.Wi(rows), 2, axis=-1)
        return self.Wo(self.drop(self.activation(states) * gate, training=training))

    patch.setattr(modernbert.ModernBertMLP, "call", call)


# --------------------------------------------------------------------------------------------------- masks and layers


@mistake("distilbert", "TFDistilBertForTokenClassification", sample=True)
@mistake("electra", "TFElectraForCausalLM")
def softmax_over_the_queries(patch):
    own = tf.nn.softmax
    patch.setattr(
        attention.tf.nn,
        "softmax",
        lambda scores, **kw: own(scores, axis=-2) if scores.shape.rank == 4 else own(scores, **kw),
    )


@mistake("albert", "TFAlbertForMultipleChoice")
def heads_merged_in_the_wrong_order(patch):
    patch.setattr(
        rows, "merge_heads", lambda x: tf.reshape(tf.transpose(x, [0, 2, 3, 1]), [-1, x.shape[1] * x.shape[3]])
    )


@mistake("roberta", "TFRobertaForCausalLM")
def tokens_see_what_comes_later(patch):
    wrapped(patch, encoder, "attention_bias", arguments(causal=False))


@mistake("camembert", "TFCamembertForCausalLM")
def tokens_do_not_see_themselves(patch):
    wrapped(patch, attention, "relative_positions", results(lambda distances: distances + 1))


@mistake("bert", "TFBertModel")
def mask_of_pairs_transposed(patch):
    def transposed(own):
        def bias(mask, *args, **kwargs):
            if mask is not None and mask.shape.rank == 3:
                mask = tf.transpose(mask, [0, 2, 1])
            return own(mask, *args, **kwargs)

        return bias

    wrapped(patch, encoder, "attention_bias", transposed)


@mistake("distilbert", "TFDistilBertModel")
def mask_of_the_first_head_for_all(patch):
    def first(own):
        def bias(mask, *args, **kwargs):
            if mask is not None and mask.shape.rank == 4:
                mask = mask[:, :1]
            return own(mask, *args, **kwargs)

        return bias

    wrapped(patch, encoder, "attention_bias", first)


@mistake("mpnet", "TFMPNetForQuestionAnswering")
def text_padded_on_the_left_sees_everything(patch):
    def blind(own):
        def bias(mask, *args, **kwargs):
            if mask is not None and mask.shape.rank == 2:
                mask = tf.where(mask[:, :1] == 0, tf.ones_like(mask), mask)
            return own(mask, *args, **kwargs)

        return bias

    wrapped(patch, encoder, "attention_bias", blind)


@mistake("distilbert", "TFDistilBertForMaskedLM")
@mistake("electra", "TFElectraForTokenClassification")
def epsilon_of_another_family(patch):
    wrapped(
        patch,
        LayerNorm,
        "__init__",
        lambda own: lambda self, dim, eps, dtype=None, use_bias=True: own(self, dim, 1e-4, dtype, use_bias),
    )


@mistake(
    "albert",
    "TFAlbertForSequenceClassification",
    num_hidden_groups=2,
    num_hidden_layers=4,
    inner_group_num=1,
    sample=True,
)
def groups_take_turns(patch):
    wrapped(
        patch,
        albert.AlbertTransformer,
        "__init__",
        lambda own: (
            lambda self, config, dtype=None: (
                own(self, config, dtype),
                setattr(self, "group_of_layer", [index % 2 for index in range(config.num_hidden_layers)]),
            )[0]
        ),
    )


@mistake("electra", "TFElectraModel")
def bias_of_the_projected_embeddings_left_out(patch):
    def embed(self, training=False, **tokens):
        embeddings = self.embeddings(**tokens, training=training)
        return self.embeddings_project(embeddings) - self.embeddings_project.bias

    patch.setattr(electra.TFElectraModel, "embed", embed)


# ------------------------------------------------------------------------------------------------------------ outputs


@mistake("bert", "TFBertModel")
def pooled_vector_comes_first(patch):
    patch.setattr(
        outputs.BaseModelOutputWithPooling,
        "fields",
        ("pooler_output", "last_hidden_state", "hidden_states", "attentions"),
    )


@mistake_in_the_loss("distilbert", "TFDistilBertForSequenceClassification")
def loss_comes_last(patch):
    patch.setattr(outputs.SequenceClassifierOutput, "fields", ("logits", "hidden_states", "attentions", "loss"))


@mistake("xlm-roberta", "TFXLMRobertaForMaskedLM")
def embeddings_left_out_of_the_hidden_states(patch):
    def shifted(own):
        def forward(self, *args, **kwargs):
            found = own(self, *args, **kwargs)
            if found.hidden_states is None:
                return found
            return type(found)(found, hidden_states=(*found.hidden_states[1:], found.hidden_states[-1]))

        return forward

    wrapped(patch, encoder.EncoderBody, "forward", shifted)


@mistake("modernbert", "TFModernBertModel")
def last_hidden_state_not_normalised_in_the_list(patch):
    def encode(own):
        def call(self, *args, **kwargs):
            ran = []
            with patch.context() as inner:
                wrapped(
                    inner, modernbert, "run_layers", results(lambda found: ran.append(found.hidden_states) or found)
                )
                states = own(self, *args, **kwargs)
            return type(states)(states, hidden_states=ran[0])

        return call

    wrapped(patch, modernbert.TFModernBertModel, "encode", encode)


@mistake("albert", "TFAlbertModel")
def attentions_of_the_first_of_inner_layers_alone(patch):
    def forward(own):
        def call(self, *args, **kwargs):
            found = own(self, *args, **kwargs)
            if found.attentions is None:
                return found
            return type(found)(found, attentions=found.attentions[::2])

        return call

    wrapped(patch, encoder.EncoderBody, "forward", forward)


@mistake("electra", "TFElectraForSequenceClassification")
def attentions_before_the_softmax(patch):
    def attend(query, key, value, scale, bias=None, dropout=None, visible=None):
        scores = tf.matmul(query * tf.constant(scale, query.dtype), key, transpose_b=True)
        probabilities = tf.nn.softmax(scores if bias is None else scores + bias)
        return tf.matmul(probabilities, value), scores

    patch.setattr(rows, "attend", attend)


@mistake("bert", "TFBertModel", "training")
def attentions_before_dropout(patch):
    def attend(query, key, value, scale, bias=None, dropout=None, visible=None):
        scores = tf.matmul(query * tf.constant(scale, query.dtype), key, transpose_b=True)
        probabilities = tf.nn.softmax(scores if bias is None else scores + bias)
        return tf.matmul(probabilities if dropout is None else dropout(probabilities), value), probabilities

    patch.setattr(rows, "attend", attend)


@mistake_in_the_loss("roberta", "TFRobertaForQuestionAnswering")
def tuple_without_the_loss(patch):
    def call(own):
        def run(self, inputs, *args, return_dict=None, **kwargs):
            found = own(self, inputs, *args, return_dict=True, **kwargs)
            if return_dict is not False:
                return found
            return tuple(value for name, value in found.items() if name != "loss")

        return run

    wrapped(patch, model.TFPreTrainedModel, "call", call)


# ------------------------------------------------------------------------------------------------------------- dtypes


@mistake("camembert", "TFCamembertForQuestionAnswering")
def logits_pass_through_float32(patch):
    wrapped(
        patch,
        encoder.QuestionAnswering,
        "span_logits",
        results(lambda x: tf.cast(tf.cast(x, tf.float32), x.dtype)),
    )


@mistake("bert", "TFBertForTokenClassification", dtypes=("float32",))
def logits_wider_than_the_model(patch):
    wrapped(patch, encoder.TokenClassification, "token_logits", results(lambda x: tf.cast(x, tf.float64)))


@mistake("modernbert", "TFModernBertModel", dtypes=("bfloat16",))
def angles_in_half_precision(patch):
    def table(self, positions, dtype, heads_axis=1):
        frequencies = tf.constant(self.frequencies.values, tf.bfloat16)
        angles = tf.cast(positions, tf.bfloat16)[..., tf.newaxis] * frequencies
        angles = tf.expand_dims(tf.cast(tf.concat([angles, angles], axis=-1), dtype), heads_axis)
        return tf.cos(angles), tf.sin(angles)

    patch.setattr(RotaryEmbedding, "__call__", table)


@mistake_in_the_loss("modernbert", "TFModernBertForMaskedLM", dtypes=("bfloat16",))
def loss_in_half_precision(patch):
    patch.setattr(losses, "_at_least_float32", lambda x: x)


# ---------------------------------------------------------------------------------------------- gradients and training


@mistake("deberta-v2", "TFDebertaV2ForTokenClassification", "gradients")
def gradient_stopped_at_the_distances(patch):
    wrapped(
        patch,
        deberta_v2.DebertaV2Encoder,
        "distances",
        results(lambda found: (tf.stop_gradient(found[0]), found[1])),
    )


@mistake("mpnet", "TFMPNetForMaskedLM", "gradients")
def tied_weights_learn_from_lookups_alone(patch):
    wrapped(patch, Embedding, "table", results(tf.stop_gradient))


@mistake("distilbert", "TFDistilBertForMultipleChoice", "gradients")
def body_frozen(patch):
    wrapped(
        patch,
        distilbert.TFDistilBertPreTrainedModel,
        "text_logits",
        lambda own: (
            lambda self, body, training=False: own(
                self, type(body)(body, last_hidden_state=tf.stop_gradient(body.last_hidden_state)), training=training
            )
        ),
    )


@mistake("electra", "TFElectraForTokenClassification", "training")
@mistake("camembert", "TFCamembertForSequenceClassification", "training", sample=True)
def norms_are_not_trained(patch):
    def init(own):
        def untrained(self, dim, eps, dtype=None, use_bias=True):
            own(self, dim, eps, dtype, use_bias)
            self.trainable = False

        return untrained

    wrapped(patch, LayerNorm, "__init__", init)


@mistake("albert", "TFAlbertForMaskedLM", "training")
def bias_of_the_vocabulary_not_trained(patch):
    wrapped(
        patch,
        core_layers.Bias,
        "build",
        lambda own: lambda self, *args: (own(self, *args), setattr(self.value, "trainable", False))[0],
    )


@mistake("xlm-roberta", "TFXLMRobertaForTokenClassification", "training")
def loss_of_training_doubled(patch):
    wrapped(patch, model.TFPreTrainedModel, "compute_loss", results(lambda x: 2 * x))


# --------------------------------------------------------------------------------------------------- loading and saving


@mistake("bert", "TFBertForMultipleChoice", "round trip")
@mistake("deberta-v2", "TFDebertaV2Model", "round trip")
def square_kernels_saved_transposed(patch):
    def read(self):
        value = np.asarray(self.variable)
        square = len(set(value.shape)) == 1 and value.ndim == 2
        return np.ascontiguousarray(value.T if self.parameter.transpose and not square else value)

    patch.setattr(checkpoint.Slot, "read", read)


@mistake("mpnet", "TFMPNetForTokenClassification", "round trip", sample=True)
def labels_lost_on_saving(patch):
    def save(own):
        def run(self, folder, **kwargs):
            kept = self.config.id2label
            self.config.id2label = {index: f"LABEL_{index + 1}" for index in kept}
            try:
                return own(self, folder, **kwargs)
            finally:
                self.config.id2label = kept

        return run

    wrapped(patch, model.TFPreTrainedModel, "save_pretrained", save)


@mistake("modernbert", "TFModernBertModel", "weights")
def weights_rounded_on_loading(patch):
    def slots(own):
        def load(*args, **kwargs):
            report = own(*args, **kwargs)
            for _, slot in checkpoint.named_slots(args[0]):
                slot.variable.assign(tf.cast(tf.cast(slot.variable.value, tf.bfloat16), slot.variable.dtype))
            return report

        return load

    wrapped(patch, checkpoint, "load", slots)


@mistake("electra", "TFElectraForQuestionAnswering", "execution")
def graph_without_a_mask(patch):
    def check(own):
        def checked(model, given):
            found = own(model, given)
            if not tf.executing_eagerly():
                found.pop("attention_mask", None)
            return found

        return checked

    wrapped(patch, model, "check_inputs", check)


# ------------------------------------------------------------------------------------------------------------- ported


@mistake("ported", "TFRoFormerForSequenceClassification")
@mistake("ported", "TFRoFormerForQuestionAnswering")
def ported_norm_without_a_bias(patch):
    rule = RULES["aten.layer_norm.default"]
    patch.setitem(
        RULES,
        "aten.layer_norm.default",
        replace(
            rule, function=lambda x, shape, weight=None, bias=None, *rest: rule.function(x, shape, weight, None, *rest)
        ),
    )


@mistake("ported", "TFRoFormerForMaskedLM")
def ported_gelu_by_tanh(patch):
    rule = RULES["aten.gelu.default"]
    patch.setitem(RULES, "aten.gelu.default", replace(rule, function=lambda x, **kwargs: activations.gelu_tanh(x)))


@mistake("ported", "TFRoFormerForTokenClassification", "gradients")
def ported_linear_without_a_gradient(patch):
    rule = RULES["aten.linear.default"]
    patch.setitem(
        RULES,
        "aten.linear.default",
        replace(rule, function=lambda x, *args, **kwargs: rule.function(tf.stop_gradient(x), *args, **kwargs)),
    )


@mistake("ported", "TFRoFormerForSequenceClassification", "training")
def ported_dropout_left_out(patch):
    for name in ("aten.dropout.default", "aten.native_dropout.default"):
        rule = RULES[name]
        patch.setitem(
            RULES,
            name,
            replace(rule, function=lambda x, *args, training, own=rule.function: own(x, *args, training=False)),
        )


@mistake("ported", "TFRoFormerForQuestionAnswering")
def ported_mask_ignored(patch):
    def run(own):
        def interpreted(self, fields, inputs, *args, **kwargs):
            inputs = dict(inputs) | {"attention_mask": tf.ones_like(inputs["attention_mask"])}
            return own(self, fields, inputs, *args, **kwargs)

        return interpreted

    wrapped(patch, Interpreter, "run", run)


@mistake_in_the_loss("ported", "TFRoFormerForTokenClassification")
def ported_labels_counted_where_ignored(patch):
    from tf_pipeline.port.model import ported_class

    patch.setattr(
        ported_class("RoFormerForTokenClassification"),
        "task_loss",
        staticmethod(lambda found, labels, config: losses.cross_entropy(found.logits, tf.maximum(labels["labels"], 0))),
    )


# ------------------------------------------------------------------------------------------ tokenizers and pipelines


def tokenizer_results(patch, change: Callable) -> None:
    """Let what our tokenizers return go through ``change``."""
    wrapped(patch, tokenization.TensorFlowTensors, "__call__", results(change))


@mistake("with tokenizer", "TFBertForSequenceClassification", "tokenization")
def padding_side_ignored(patch):
    wrapped(
        patch,
        tokenization.TensorFlowTensors,
        "__call__",
        lambda own: lambda self, *args, padding_side=None, **kwargs: own(self, *args, **kwargs),
    )


@mistake("with tokenizer", "TFBertForSequenceClassification", "tokenization")
def truncation_side_ignored(patch):
    wrapped(
        patch,
        tokenization.TensorFlowTensors,
        "__call__",
        lambda own: lambda self, *args, truncation_side=None, **kwargs: own(self, *args, **kwargs),
    )


@mistake("with tokenizer", "TFBertForSequenceClassification", "tokenization")
def types_of_the_second_text_zero(patch):
    def zero(found):
        if "token_type_ids" in found and hasattr(found["token_type_ids"], "numpy"):
            found["token_type_ids"] = tf.zeros_like(found["token_type_ids"])
        return found

    tokenizer_results(patch, zero)


@mistake("with tokenizer", "TFBertForSequenceClassification", "tokenization")
def no_special_tokens(patch):
    wrapped(patch, tokenization.TensorFlowTensors, "__call__", arguments(add_special_tokens=False))


@mistake("with tokenizer", "TFBertForSequenceClassification", "tokenization", sample=True)
def offsets_one_too_far(patch):
    def moved(found):
        if "offset_mapping" in found and hasattr(found["offset_mapping"], "numpy"):
            found["offset_mapping"] += 1
        elif "offset_mapping" in found:
            found["offset_mapping"] = [
                [(a, b + 1) for a, b in row] if isinstance(row, list) else row for row in found["offset_mapping"]
            ]
        return found

    tokenizer_results(patch, moved)


@mistake("with tokenizer", "TFBertForSequenceClassification", "tokenization")
def special_tokens_not_skipped_when_decoding(patch):
    wrapped(patch, tokenization.TensorFlowTensors, "decode", arguments(skip_special_tokens=False))


PIPES = "pipeline"


@mistake("with tokenizer", "TFBertForSequenceClassification", PIPES, problem_type="multi_label_classification")
def softmax_of_several_labels(patch):
    patch.setattr(text_classification.TextClassificationPipeline, "default_function", lambda self: "softmax")


@mistake("with tokenizer", "TFBertForSequenceClassification", PIPES, num_labels=1)
def softmax_of_a_single_label(patch):
    patch.setattr(text_classification.TextClassificationPipeline, "default_function", lambda self: "softmax")


@mistake("with tokenizer", "TFBertForSequenceClassification", PIPES, sample=True)
def worst_label_first(patch):
    wrapped(
        patch,
        text_classification.TextClassificationPipeline,
        "postprocess",
        results(lambda found: found[::-1] if isinstance(found, list) else found),
    )


@mistake("with tokenizer", "TFBertForSequenceClassification", PIPES)
def function_to_apply_ignored(patch):
    wrapped(
        patch,
        text_classification.TextClassificationPipeline,
        "postprocess",
        lambda own: lambda self, found, function_to_apply=None, **kwargs: own(self, found, **kwargs),
    )


@mistake("with tokenizer", "TFBertForSequenceClassification", PIPES)
def names_of_labels_one_off(patch):
    def named(own):
        def postprocess(self, *args, **kwargs):
            kept = self.model.config.id2label
            self.model.config.id2label = {i: kept[(i + 1) % len(kept)] for i in kept}
            try:
                return own(self, *args, **kwargs)
            finally:
                self.model.config.id2label = kept

        return postprocess

    wrapped(patch, text_classification.TextClassificationPipeline, "postprocess", named)


@mistake("with tokenizer", "TFBertForSequenceClassification", PIPES)
def second_text_of_a_pair_dropped(patch):
    def alone(own):
        def encode(self, inputs, **kwargs):
            return own(self, [one["text"] if isinstance(one, dict) else one for one in inputs], **kwargs)

        return encode

    wrapped(patch, base.Pipeline, "encode", alone)


@mistake("with tokenizer", "TFBertForSequenceClassification", PIPES)
def answers_in_the_order_of_lengths(patch):
    def by_length(own):
        def run(self, window, *args, **kwargs):
            found = own(self, window, *args, **kwargs)
            return [found[i] for i in sorted(range(len(window)), key=lambda i: -len(str(window[i])))]

        return run

    wrapped(patch, base.Pipeline, "_run_window", by_length)


@mistake("with tokenizer", "TFBertForTokenClassification", PIPES)
def labels_of_special_tokens_kept(patch):
    def kept(own):
        def of(found, tokenizer):
            return own(dict(found) | {"special_tokens_mask": [0] * len(found["special_tokens_mask"])}, tokenizer)

        return of

    own = token_classification._Tokens.of
    patch.setattr(token_classification._Tokens, "of", kept(own))


@mistake("with tokenizer", "TFBertForTokenClassification", PIPES)
def words_scored_by_their_first_token(patch):
    wrapped(
        patch,
        token_classification,
        "_word_scores",
        lambda own: lambda scores, bounds, strategy: own(scores, bounds, "first"),
    )


@mistake("with tokenizer", "TFBertForTokenClassification", PIPES)
def neighbours_of_one_kind_joined(patch):
    patch.setattr(token_classification, "tag", lambda label: ("I", label[2:] if "-" in label else label))


@mistake("with tokenizer", "TFBertForQuestionAnswering", PIPES)
def answers_of_any_length(patch):
    wrapped(
        patch,
        question_answering,
        "best_spans",
        lambda own: lambda start, end, inside, null, count, longest: own(start, end, inside, null, count, 1000),
    )


@mistake("with tokenizer", "TFBertForQuestionAnswering", PIPES)
def answers_in_the_question(patch):
    wrapped(
        patch,
        question_answering,
        "best_spans",
        lambda own: lambda start, end, inside, *rest: own(start, end, np.ones_like(inside), *rest),
    )


@mistake("with tokenizer", "TFBertForMaskedLM", PIPES)
def probabilities_among_the_best_alone(patch):
    def best(own):
        def among(*args):
            tokens, scores = own(*args)
            return tokens, [score / sum(scores) for score in scores]

        return among

    wrapped(patch, fill_mask, "_best", best)


@mistake("with tokenizer", "TFBertForMaskedLM", PIPES)
def targets_ignored(patch):
    wrapped(patch, fill_mask, "_best", lambda own: lambda logits, top_k, targets: own(logits, top_k, None))


@mistake("with tokenizer", "TFBertModel", PIPES)
def features_without_the_first_token(patch):
    wrapped(
        patch,
        feature_extraction.FeatureExtractionPipeline,
        "postprocess",
        results(lambda found: [found[0][1:]] if isinstance(found, list) else found),
    )
