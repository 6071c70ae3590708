"""Signatures of fill-mask: the likeliest tokens of the first mask, or of every mask."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_pipeline.serving.export.base import TEXT, ExportedTask
from tf_pipeline.tokenization.in_graph import compile_decoder


class ExportedFillMask(ExportedTask):
    """``token``, ``token_str``, ``score`` and ``sequence``, ``[batch, K]`` for the first mask of a text.

    Signature ``all_masks`` gives ``[batch, masks, K]`` and ``num_masks`` ``[batch]``. Where a text has no (further)
    mask, strings are empty and numbers 0.
    """

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        super()._configure(encoding, answering)
        pipe = self.pipe.value
        targets = answering.get("target_ids")
        self._targets = None if targets is None else tf.constant(targets, tf.int32)
        choices = pipe.model.config.vocab_size if targets is None else len(targets)
        self._top_k = min(answering["top_k"], choices)
        self._mask_id, self._pad_id = pipe.tokenizer.mask_token_id, pipe.tokenizer.pad_token_id
        self._decoder = None if self.tokenizer is None else compile_decoder(pipe.tokenizer)

    def local_options(self) -> dict[str, Any]:
        """Never too long a text."""
        return {"tokenizer_kwargs": {"truncation": True}} | self.options

    def text_signatures(self):
        """See :class:`ExportedTask`."""
        return {
            "serving_default": (self._fill_first, {"text": TEXT}),
            "all_masks": (self._fill_all, {"text": TEXT}),
        }

    def _fill_first(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        filled, _ = self._fill(text, lambda counts: tf.constant(1))
        return {name: value[:, 0] for name, value in filled.items()}

    def _fill_all(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        filled, counts = self._fill(text, lambda counts: tf.maximum(tf.reduce_max(tf.concat([counts, [0]], 0)), 1))
        return filled | {"num_masks": counts}

    def _fill(self, text: tf.Tensor, most: Callable[[tf.Tensor], tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The best tokens of the first masks, each ``[batch, masks, K]``, and how many masks there are, ``[batch]``."""
        pipe, encoded = self.pipe.value, self.encode(text)
        counts = tf.reduce_sum(tf.cast(encoded["input_ids"] == self._mask_id, tf.int32), axis=1)
        inputs = {name: encoded[name] for name in pipe.input_names}
        logits, places, is_mask = pipe.score_masks(inputs, most(counts))
        scores = tf.nn.softmax(logits)
        if self._targets is not None:
            logits, scores = (tf.gather(value, self._targets, axis=-1) for value in (logits, scores))
        best = tf.math.top_k(logits, self._top_k).indices
        score = tf.gather(scores, best, batch_dims=2)
        token = best if self._targets is None else tf.gather(self._targets, best)
        real = tf.broadcast_to(is_mask[:, :, tf.newaxis], tf.shape(token))
        sequence = self._sequences(encoded["input_ids"], places, token, counts == 1)
        flat = tf.reshape(token, [-1, 1])
        token_str = tf.reshape(self._decoder.decode(flat, tf.ones_like(flat, tf.bool), False), tf.shape(token))
        return {
            "token": tf.where(real, token, 0),
            "token_str": tf.where(real, token_str, ""),
            "score": tf.where(real, score, 0.0),
            "sequence": tf.where(real, sequence, ""),
        }, counts

    def _sequences(self, ids: tf.Tensor, place: tf.Tensor, token: tf.Tensor, readable: tf.Tensor) -> tf.Tensor:
        """Texts ``[batch, masks, K]`` with tokens in place of masks; ``readable`` ones lose special tokens."""
        shape, length = tf.shape(token), tf.shape(ids)[1]
        here = tf.range(length) == place[:, :, tf.newaxis, tf.newaxis]
        filled = tf.where(here, token[..., tf.newaxis], ids[:, tf.newaxis, tf.newaxis, :])
        readable = tf.broadcast_to(readable[:, tf.newaxis, tf.newaxis], shape)
        filled, readable = tf.reshape(filled, [-1, length]), tf.reshape(readable, [-1])
        return tf.reshape(self._decoder.decode(filled, filled != self._pad_id, readable), shape)
