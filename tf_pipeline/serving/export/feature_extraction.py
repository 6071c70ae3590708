"""Signatures of feature-extraction: one vector per text, or one per token."""

from typing import Any

import tensorflow as tf

from tf_pipeline.serving.export.base import TEXT, ExportedTask


class ExportedFeatureExtraction(ExportedTask):
    """``sentence_embedding`` ``[batch, hidden]``; signature ``token_embeddings`` gives hidden states and their mask."""

    def _configure(self, encoding: dict[str, Any], answering: dict[str, Any]) -> None:
        super()._configure(encoding, answering)
        if answering["return_tensors"]:
            raise ValueError("return_tensors is chosen in a call of the client, not in an export: leave it out.")
        self._pooling = answering["pooling"] or "mean"
        self._normalize = answering["normalize"]

    def local_options(self) -> dict[str, Any]:
        """The mean over the tokens by default, with texts cut to the model's length."""
        return {"pooling": "mean", "truncation": True} | self.options

    def text_signatures(self):
        """See :class:`ExportedTask`."""
        return {
            "serving_default": (self._embed, {"text": TEXT}),
            "token_embeddings": (self._embed_tokens, {"text": TEXT}),
        }

    def _embed_tokens(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded = self.encode(text)
        states = self.run_model(encoded)["last_hidden_state"]
        return {
            "last_hidden_state": self._unit(states) if self._normalize else states,
            "attention_mask": encoded["attention_mask"],
        }

    def _embed(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded = self.encode(text)
        states, mask = self.run_model(encoded)["last_hidden_state"], encoded["attention_mask"]
        if self._pooling == "cls":
            pooled = tf.gather(states, tf.argmax(mask, axis=1), batch_dims=1)
        else:
            weights = tf.cast(mask, states.dtype)[:, :, tf.newaxis]
            pooled = tf.reduce_sum(states * weights, axis=1) / tf.maximum(tf.reduce_sum(weights, axis=1), 1)
        return {"sentence_embedding": self._unit(pooled) if self._normalize else pooled}

    @staticmethod
    def _unit(vectors: tf.Tensor) -> tf.Tensor:
        return vectors / tf.maximum(tf.norm(vectors, axis=-1, keepdims=True), 1e-12)
