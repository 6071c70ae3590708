"""M2M100 (https://arxiv.org/abs/2010.11125) and NLLB: translation between many languages, by mBART's layers."""

import math
import re

import numpy as np
import tensorflow as tf

from tf_pipeline.layers import token_positions
from tf_pipeline.models import bart, mbart


class M2M100Stack(mbart.MBartStack):
    """The encoder, or the decoder. Positions count tokens that are not padding, and are computed: any number."""

    normalises_embeddings = False

    def add_positions(self, config):
        """Keep the size of the vectors, and the position of padding, whose vector is zero."""
        if config.d_model < 4 or config.pad_token_id is None:
            raise ValueError(
                f"Positions of M2M100 take d_model of 4 or more and a pad_token_id, not {config.d_model} and "
                f"{config.pad_token_id}."
            )
        self.size, self.padding_idx = config.d_model, config.pad_token_id

    def positions(self, vectors, offset, input_ids):
        """Sines and cosines; angles are computed in float32, as in PyTorch, or in float64."""
        ids = token_positions(input_ids, vectors, self.padding_idx, offset)
        wide, half = np.float64 if vectors.dtype == tf.float64 else np.float32, self.size // 2
        frequencies = np.exp(np.arange(half, dtype=wide) * wide(-math.log(10000) / (half - 1)))
        angles = tf.cast(ids, frequencies.dtype)[..., tf.newaxis] * frequencies
        table = tf.concat([tf.sin(angles), tf.cos(angles)] + [tf.zeros_like(angles[..., :1])] * (self.size % 2), -1)
        table = tf.where((ids == self.padding_idx)[..., tf.newaxis], tf.zeros([], table.dtype), table)
        return tf.cast(table, vectors.dtype)


class TFM2M100Model(bart.TFBartModel):
    """The body. See :class:`~tf_pipeline.models.bart.TFBartModel`; the decoder needs inputs of its own."""

    decoder_reads = ()
    stack_class = M2M100Stack
    num_positions = None
    # Tables of positions, in checkpoints of old.
    ignored_keys = re.compile(r"(^|\.)((en|de)coder\.version|embed_positions\.weights)$")


class TFM2M100ForConditionalGeneration(bart.TFBartForConditionalGeneration):
    """Translates. See :class:`~tf_pipeline.models.bart.TFBartForConditionalGeneration`."""

    decoder_reads = ("labels",)
    has_bias = False
    num_positions = None
    ignored_keys = TFM2M100Model.ignored_keys
