"""Marian (https://arxiv.org/abs/1804.00344): translation between two languages, with positions that are not learned."""

import re

import tensorflow as tf

from tf_pipeline.layers import Embedding, sinusoidal_positions
from tf_pipeline.models import bart


def sines_then_cosines(shape: tuple[int, int], dtype=None) -> tf.Tensor:
    """Initial position table ``[positions, dim]``: the sines in one half, the cosines in the other."""
    table = sinusoidal_positions(shape, dtype)
    return tf.concat([table[:, 0::2], table[:, 1::2]], axis=1)


class SinusoidalStack(bart.BartStack):
    """The encoder, or the decoder, whose factor is also that of vectors that are given in place of words."""

    normalises_embeddings = False
    first_position = 0

    def add_positions(self, config):
        """Construct the table, which is not trained."""
        super().add_positions(config)
        self.embed_positions.embeddings_initializer = sines_then_cosines
        self.embed_positions.trainable = False

    def word_vectors(self, words: Embedding, input_ids: tf.Tensor) -> tf.Tensor:
        """Rows of the table ``words``; only the encoder's are multiplied here."""
        return words(input_ids) if self.is_decoder else super().word_vectors(words, input_ids)

    def embed(self, vectors, offset=0, training=False, input_ids=None):
        """Sum of words and positions."""
        vectors = bart.scaled(vectors, self.scale) if self.is_decoder else vectors
        return super().embed(vectors, offset, training, input_ids)


class MarianStack(SinusoidalStack):
    """The encoder, or the decoder, whose vocabularies may differ."""

    def num_words(self, config):
        """Size of the vocabulary of the half."""
        return config.decoder_vocab_size if self.is_decoder else config.vocab_size


class FixedPositions:
    """A model whose checkpoints may leave out the positions."""

    implied_keys = re.compile(r"^final_logits_bias$|(^|\.)(en|de)coder\.embed_positions\.weight$")


class TFMarianModel(FixedPositions, bart.TFBartModel):
    """The body. See :class:`~tf_pipeline.models.bart.TFBartModel`; the decoder needs inputs of its own."""

    decoder_reads = ()
    decoder_words = "decoder_vocab_size"
    stack_class = MarianStack

    @property
    def shares_words(self) -> bool:
        """Whether the halves share one vocabulary (config: ``share_encoder_decoder_embeddings``)."""
        return self.config.share_encoder_decoder_embeddings


class TFMarianMTModel(FixedPositions, bart.TFBartForConditionalGeneration):
    """Translates. See :class:`~tf_pipeline.models.bart.TFBartForConditionalGeneration`."""

    decoder_reads = ("labels",)
    decoder_words = "decoder_vocab_size"


class TFMarianForCausalLM(FixedPositions, bart.TFBartForCausalLM):
    """The decoder alone. See :class:`~tf_pipeline.models.bart.TFBartForCausalLM`."""
