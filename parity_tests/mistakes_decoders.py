"""Mistakes in decoders, as patches of this side alone; see :mod:`parity_tests.mistakes`."""

import tensorflow as tf
import transformers

from parity_tests.mistakes import loss, mistake, mistake_in_the_loss, results, wrapped
from tf_pipeline import decoder, encoder_decoder, losses
from tf_pipeline.generation import search
from tf_pipeline.generation.mixin import GenerationMixin
from tf_pipeline.layers import RotaryEmbedding, SequenceSummary, activations
from tf_pipeline.models import (
    bart,
    blenderbot_small,
    gemma2,
    gpt2,
    granite,
    llama,
    m2m_100,
    marian,
    mbart,
    olmo2,
    qwen3,
    smollm3,
    t5,
)


@mistake("gpt2", "TFGPT2Model", sample=True)
def scores_not_divided_by_the_number_of_the_layer(patch):
    def constructor(own):
        def init(self, config, index, dtype=None):
            own(self, config, 0, dtype=dtype)

        return init

    wrapped(patch, gpt2.GPT2Attention, "__init__", constructor)


@mistake("gpt2", "TFGPT2Model")
def keys_and_values_exchanged(patch):
    def split(value, parts, axis=0):
        first, *rest = tf.split(value, parts, axis=axis)
        return [first, *reversed(rest)]

    patch.setattr(gpt2, "tf", _Replaced(tf, split=split))


@mistake("gpt2", "TFGPT2Model")
def positions_from_one(patch):
    own = gpt2.position_vectors
    patch.setattr(gpt2, "position_vectors", lambda table, ids, length: tf.roll(own(table, ids, length), 1, 1))


@mistake("gpt2", "TFGPT2LMHeadModel")
def last_normalisation_left_out(patch):
    patch.setattr(gpt2.TFGPT2Model, "finish", lambda self, hidden_states: hidden_states)


@mistake_in_the_loss("gpt2", "TFGPT2DoubleHeadsModel")
def tokens_not_shifted_next_to_a_choice(patch):
    def unshifted(outputs, labels, config):
        if "mc_labels" in labels:
            return losses.double_heads(outputs, labels, config)
        return losses.classification(outputs, labels, config)

    loss(patch, "TFGPT2DoubleHeadsModel", unshifted)


@mistake_in_the_loss("gpt2", "TFGPT2DoubleHeadsModel", "training")
def fit_of_words_without_a_choice(patch):
    def alone(outputs, labels, config):
        kept = {name: value for name, value in labels.items() if name == "labels" or len(labels) == 1}
        return losses.double_heads(outputs, kept, config)

    loss(patch, "TFGPT2DoubleHeadsModel", alone)


@mistake("gpt2", "TFGPT2DoubleHeadsModel")
def places_of_tokens_left_alone(patch):
    patch.setitem(SequenceSummary.READERS, "cls_index", lambda states, places: states[..., -1, :])


@mistake("gpt2", "TFGPT2DoubleHeadsModel", summary_type="last")
def last_token_instead_of_the_last_choice(patch):
    patch.setitem(SequenceSummary.READERS, "last", lambda states, places: states[..., -1, :])


@mistake("gpt2", "TFGPT2ForSequenceClassification")
def last_position_instead_of_the_last_token(patch):
    patch.setattr(
        decoder.SequenceClassification, "_last_tokens", lambda self, hidden_states, input_ids: hidden_states[:, -1]
    )


@mistake("qwen3", "TFQwen3ForSequenceClassification")
def a_text_ends_before_its_first_padding(patch):
    def last_tokens(self, hidden_states, input_ids):
        if input_ids is None:
            return hidden_states[:, -1]
        real = input_ids != self.config.pad_token_id
        after = tf.cumsum(tf.cast(real, tf.int32), axis=1) > 0
        ends = tf.concat([after & ~real, tf.ones_like(real[:, :1])], axis=1)
        return tf.gather(hidden_states, tf.argmax(tf.cast(ends, tf.int32), axis=1) - 1, batch_dims=1)

    patch.setattr(decoder.SequenceClassification, "_last_tokens", last_tokens)


@mistake("gpt2", "TFGPT2ForTokenClassification")
def a_token_late(patch):
    wrapped(patch, decoder.TokenClassification, "token_logits", results(lambda x: tf.roll(x, 1, 1)))


@mistake("llama", "TFLlamaForCausalLM")
def pairs_of_neighbours_are_turned(patch):
    def rotate(states, table):
        half = table[0].shape[-1] // 2
        first, second = states[..., 0::2], states[..., 1::2]
        cosines, sines = (part[..., :half] for part in table)
        turned = tf.stack([first * cosines - second * sines, second * cosines + first * sines], -1)
        return tf.reshape(turned, tf.shape(states))

    patch.setattr(llama, "rotate", rotate)


@mistake("llama", "TFLlamaForCausalLM")
def heads_of_keys_in_turn(patch):
    own = llama.attend

    def attend(query, key, value, *rest, **options):
        groups = query.shape[1] // key.shape[1]
        return own(query, tf.tile(key, [1, groups, 1, 1]), tf.tile(value, [1, groups, 1, 1]), *rest, **options)

    patch.setattr(llama, "attend", attend)


@mistake("llama", "TFLlamaForCausalLM")
def the_other_half_is_the_gate(patch):
    def call(self, rows):
        return self.down_proj(self.gate_proj(rows) * self.activation(self.up_proj(rows)))

    patch.setattr(llama.LlamaMLP, "call", call)


@mistake("llama", "TFLlamaForCausalLM")
def gelu_by_tanh(patch):
    patch.setitem(activations.ACTIVATIONS, "gelu", activations.gelu_tanh)


@mistake("llama", "TFLlamaForCausalLM")
def a_token_sees_the_next(patch):
    own = decoder.attention_bias
    patch.setattr(
        decoder,
        "attention_bias",
        lambda mask, dtype, *, offset=0, **options: own(mask, dtype, offset=offset + 1, **options),
    )


@mistake("llama", "TFLlamaForQuestionAnswering")
def start_and_end_exchanged(patch):
    wrapped(patch, decoder.QuestionAnswering, "span_logits", results(lambda x: tf.reverse(x, [-1])))


@mistake("mistral", "TFMistralForCausalLM")
def window_a_token_too_wide(patch):
    own = decoder.attention_bias
    patch.setattr(
        decoder,
        "attention_bias",
        lambda mask, dtype, *, window=None, **options: own(mask, dtype, window=window and window + 1, **options),
    )


@mistake("qwen3", "TFQwen3ForCausalLM")
def keys_not_normalised(patch):
    def projections(self, rows, length):
        query, key, value = llama.LlamaAttention.projections(self, rows, length)
        return self.q_norm(query), key, value

    patch.setattr(qwen3.Qwen3Attention, "projections", projections)


@mistake("smollm3", "TFSmolLM3ForCausalLM")
def every_layer_knows_positions(patch):
    patch.setattr(smollm3.TFSmolLM3Model, "rotary_tables", llama.TFLlamaModel.rotary_tables)


@mistake("olmo2", "TFOlmo2ForCausalLM")
def queries_normalised_by_head(patch):
    def projections(self, rows, length):
        query, key, value = llama.LlamaAttention.projections(self, rows, length)
        scale = tf.math.rsqrt(tf.reduce_mean(tf.square(query), -1, keepdims=True) + self.q_norm.epsilon)
        gamma = tf.reshape(tf.convert_to_tensor(self.q_norm.gamma), [1, self.heads, 1, self.size])
        return query * scale * gamma, key, value

    patch.setattr(olmo2.Olmo2Attention, "projections", projections)


@mistake("granite", "TFGraniteForCausalLM")
def residual_multiplier_left_out(patch):
    patch.setattr(granite, "times", lambda x, factor: x)


@mistake("gemma2", "TFGemma2ForCausalLM")
def scores_without_a_cap(patch):
    def constructor(own):
        def init(self, config, index, dtype=None):
            own(self, config, index, dtype=dtype)
            self.softcap = None

        return init

    wrapped(patch, gemma2.Gemma2Attention, "__init__", constructor)


@mistake("gemma3_text", "TFGemma3ForCausalLM")
def embeddings_not_multiplied(patch):
    def embed(self, input_ids=None, inputs_embeds=None, position_ids=None, training=False):
        return self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds

    patch.setattr(gemma2.TFGemma2Model, "embed", embed)


@mistake("t5", "TFT5ForConditionalGeneration", sample=True)
def buckets_of_the_encoder_in_the_decoder(patch):
    own = t5.bidirectional_buckets
    patch.setattr(t5, "causal_buckets", own)


@mistake("t5", "TFT5ForConditionalGeneration")
def scores_of_heads_divided(patch):
    own = t5.attend
    patch.setattr(
        t5, "attend", lambda query, key, value, scale, *rest: own(query, key, value, query.shape[-1] ** -0.5, *rest)
    )


@mistake("t5", "TFT5ForConditionalGeneration")
def the_source_is_not_masked(patch):
    def call(self, rows, inputs, training=None):
        normal = self.layer_norm(rows)
        cross = self.EncDecAttention.keys_and_values(inputs.encoded, inputs.source)
        attended, probabilities = self.EncDecAttention(normal, length=inputs.length, cache=cross, bias=None)
        return t5.add(attended, rows), probabilities, cross

    patch.setattr(t5.T5LayerCrossAttention, "call", call)


@mistake("t5", "TFT5EncoderModel")
def the_last_normalisation_of_the_encoder_left_out(patch):
    patch.setattr(t5.T5Stack, "finish", lambda self, hidden_states, training=False: hidden_states)


@mistake("bart", "TFBartForConditionalGeneration", sample=True)
def positions_from_the_first_row(patch):
    patch.setattr(bart.BartStack, "positions", lambda self, vectors, offset, input_ids: self.embed_positions(
        (tf.range(tf.shape(vectors)[1]) + offset)[tf.newaxis]
    ))  # fmt: skip


@mistake("bart", "TFBartForConditionalGeneration")
def words_not_multiplied(patch):
    patch.setattr(bart, "scaled", lambda vectors, scale: vectors)


@mistake("bart", "TFBartModel")
def the_heads_of_the_encoder_in_the_decoder(patch):
    def constructor(own):
        def init(self, config, num_heads, dtype=None):
            own(self, config, config.encoder_attention_heads, dtype=dtype)

        return init

    wrapped(patch, bart.BartAttention, "__init__", constructor)


@mistake("bart", "TFBartForSequenceClassification")
def the_first_end_of_a_text(patch):
    own = encoder_decoder.Seq2SeqSequenceClassification._last_ends
    patch.setattr(
        encoder_decoder.Seq2SeqSequenceClassification, "_last_ends", lambda *args: tf.maximum(own(*args) - 1, 0)
    )


@mistake("bart", "TFBartForSequenceClassification")
def the_first_of_two_ends(patch):
    def first(self, input_ids, length):
        return tf.argmax(tf.cast(input_ids == self.config.eos_token_id, tf.int32), axis=1, output_type=tf.int32)

    patch.setattr(encoder_decoder.Seq2SeqSequenceClassification, "_last_ends", first)


@mistake("bart", "TFBartForConditionalGeneration")
def the_id_of_padding_hidden_in_the_decoder(patch):
    def decode(own):
        def call(self, encoded, mask=None, decoder_input_ids=None, decoder_attention_mask=None, **inputs):
            if decoder_attention_mask is None and decoder_input_ids is not None:
                decoder_attention_mask = decoder_input_ids != self.config.pad_token_id
            inputs |= {"decoder_input_ids": decoder_input_ids, "decoder_attention_mask": decoder_attention_mask}
            return own(self, encoded, mask, **inputs)

        return call

    wrapped(patch, encoder_decoder.EncoderDecoderBody, "decode", decode)


@mistake_in_the_loss("bart", "TFBartForCausalLM")
def labels_of_a_lone_decoder_shifted(patch):
    loss(patch, "TFBartForCausalLM", losses.causal_lm)


@mistake("mbart", "TFMBartForConditionalGeneration")
def sums_normalised(patch):
    patch.setattr(mbart.MBartBlock, "norm_first", False)


@mistake("mbart", "TFMBartModel")
def the_end_not_normalised(patch):
    patch.setattr(bart.BartStack, "finish", lambda self, hidden_states, training=False: hidden_states)


@mistake("marian", "TFMarianMTModel")
def sines_and_cosines_in_turn(patch):
    patch.setattr(marian, "sines_then_cosines", marian.sinusoidal_positions)


@mistake("pegasus", "TFPegasusForConditionalGeneration")
def words_of_the_decoder_multiplied_twice(patch):
    patch.setattr(marian.SinusoidalStack, "word_vectors", bart.BartStack.word_vectors)


@mistake("blenderbot", "TFBlenderbotForConditionalGeneration")
def positions_from_the_second_row(patch):
    own = bart.BartStack.positions
    patch.setattr(
        bart.BartStack, "positions", lambda self, vectors, offset, ids: tf.roll(own(self, vectors, offset, ids), 1, 1)
    )


@mistake("blenderbot-small", "TFBlenderbotSmallForConditionalGeneration")
def positions_of_the_decoder_normalised(patch):
    patch.setattr(blenderbot_small.BlenderbotSmallStack, "embed", bart.BartStack.embed)


@mistake("m2m_100", "TFM2M100ForConditionalGeneration")
def padding_has_a_position(patch):
    own = m2m_100.token_positions
    patch.setattr(m2m_100, "token_positions", lambda ids, vectors, *rest: own(None, vectors, *rest))


# -------------------------------------------------------------------------------------------------- one after the other


@mistake("llama", "TFLlamaForCausalLM", "generation")
def padding_seen_after_a_cache(patch):
    def forward(own):
        def call(self, attention_mask=None, past_key_values=None, **inputs):
            mask = attention_mask if past_key_values is None else None
            return own(self, attention_mask=mask, past_key_values=past_key_values, **inputs)

        return call

    wrapped(patch, decoder.DecoderBody, "forward", forward)


@mistake(
    "llama",
    "TFLlamaForCausalLM",
    "generation",
    max_position_embeddings=14,
    rope_parameters={"rope_type": "dynamic", "rope_theta": 50.0, "factor": 2.0},
)
def length_of_the_call_taken_for_that_of_the_text(patch):
    def call(own):
        def table(self, positions, dtype, heads_axis=1):
            limit = self.frequencies.limit + tf.cast(tf.reduce_min(positions), dtype)
            frequencies, self.frequencies = self.frequencies, self.frequencies._replace(limit=limit)
            result = own(self, positions, dtype, heads_axis)
            self.frequencies = frequencies
            return result

        return table

    wrapped(patch, RotaryEmbedding, "__call__", call)


@mistake("gemma2", "TFGemma2ForCausalLM", "generation")
def window_after_a_cache_a_token_too_wide(patch):
    own = decoder.attention_bias

    def bias(mask, dtype, *, offset=0, window=None, **options):
        is_first = isinstance(offset, int)
        return own(mask, dtype, offset=offset, window=window if is_first or not window else window + 1, **options)

    patch.setattr(decoder, "attention_bias", bias)


@mistake("mistral", "TFMistralForCausalLM", "generation")
def the_beginning_of_a_long_prompt_kept(patch):
    own = decoder.allocate
    patch.setattr(decoder, "allocate", lambda cache, length, slots: own(cache, tf.minimum(length, slots), slots))


@mistake("gpt2", "TFGPT2LMHeadModel", "generation")
def padding_in_front_counted_in_positions(patch):
    patch.setattr(
        decoder.DecoderBody,
        "prompt_positions",
        lambda self, mask: tf.broadcast_to(tf.range(tf.shape(mask)[1]), tf.shape(mask)),
    )


@mistake("t5", "TFT5ForConditionalGeneration", "generation")
def distances_after_a_cache_from_its_beginning(patch):
    wrapped(
        patch, t5.T5Stack, "position_bias", lambda own: lambda self, queries, keys, offset: own(self, queries, keys, 0)
    )


@mistake("bart", "TFBartForConditionalGeneration", "generation")
def padding_seen_in_states_of_an_encoder_that_are_given(patch):
    def read(own):
        def call(self, attention_mask=None, encoder_outputs=None, **inputs):
            mask = attention_mask if encoder_outputs is None else None
            return own(self, attention_mask=mask, encoder_outputs=encoder_outputs, **inputs)

        return call

    wrapped(patch, encoder_decoder.EncoderDecoderBody, "read", read)


@mistake("m2m_100", "TFM2M100ForConditionalGeneration", "generation")
def the_first_end_alone_ends_a_text(patch):
    own = search.have_ended
    patch.setattr(
        search,
        "have_ended",
        lambda ids, tokens, length, rules, stopping: own(
            ids, tokens, length, rules._replace(ends=rules.ends[:1]), stopping
        ),
    )


@mistake("marian", "TFMarianMTModel", "generation")
def the_start_counted_in_the_length_of_beams(patch):
    own = search._lengthened
    patch.setattr(search, "_lengthened", lambda length, penalty: own(length + 1, penalty))


@mistake("granite", "TFGraniteForCausalLM", "round trip")
def options_of_generation_not_saved(patch):
    patch.setattr(
        GenerationMixin,
        "_save_generation_config",
        lambda self, folder: transformers.GenerationConfig().save_pretrained(folder),
    )


class _Replaced:
    """A module with some of its functions replaced."""

    def __init__(self, module, **functions):
        self.__dict__.update(functions)
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)
