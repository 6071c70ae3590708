"""Blenderbot's small version (https://arxiv.org/abs/2004.13637), by BART's layers."""

import tensorflow as tf

from tf_pipeline.layers import Embedding
from tf_pipeline.models import bart


class BlenderbotSmallStack(bart.BartStack):
    """The encoder, or the decoder, which normalises its words before the positions come and multiplies none."""

    first_position = 0

    def word_vectors(self, words: Embedding, input_ids: tf.Tensor) -> tf.Tensor:
        """Rows of the table ``words``; only the encoder's are multiplied."""
        return words(input_ids) if self.is_decoder else super().word_vectors(words, input_ids)

    def embed(self, vectors, offset=0, training=False, input_ids=None):
        """Sum of words and positions."""
        if not self.is_decoder:
            return super().embed(vectors, offset, training, input_ids)
        hidden_states = self.layernorm_embedding(vectors) + self.positions(vectors, offset, input_ids)
        return self.dropout(hidden_states, training=training)


class TFBlenderbotSmallModel(bart.TFBartModel):
    """The body. See :class:`~tf_pipeline.models.bart.TFBartModel`; the decoder needs inputs of its own."""

    decoder_reads = ()
    stack_class = BlenderbotSmallStack


class TFBlenderbotSmallForConditionalGeneration(bart.TFBartForConditionalGeneration):
    """Replies to a text. See :class:`~tf_pipeline.models.bart.TFBartForConditionalGeneration`."""

    decoder_reads = ("labels",)


class TFBlenderbotSmallForCausalLM(bart.TFBartForCausalLM):
    """The decoder alone. See :class:`~tf_pipeline.models.bart.TFBartForCausalLM`."""
