"""Greedy generation without a cache, for ported models."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.heads import head_of


def greedy(
    model, input_ids: Any, attention_mask: Any, max_new_tokens: int, eos_token_id, pad_token_id, decoder_input_ids: Any
) -> tf.Tensor:
    """See :meth:`tf_pipeline.port.model.PortedModel.generate`."""
    head = head_of(model.graph.model_class)
    if "logits" not in model.graph.outputs or head is None or not head.generates:
        raise ValueError(
            f"{type(model).__name__} predicts no tokens; load it with TFAutoModelForCausalLM or …Seq2SeqLM."
        )
    config = model.config.get_text_config(decoder=True)
    ends = _as_list(config.eos_token_id if eos_token_id is None else eos_token_id)
    pad = config.pad_token_id if pad_token_id is None else pad_token_id
    pad = ends[0] if pad is None and ends else pad or 0
    ids = np.asarray(input_ids)
    mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
    step = tf.function(
        lambda inputs: model(inputs, training=False).logits[:, -1], autograph=False, reduce_retracing=True
    )
    if "decoder_input_ids" in model.graph.inputs:
        if decoder_input_ids is None:
            decoder_input_ids = np.full((len(ids), 1), _start_token(model.config))
        return _extend(np.asarray(decoder_input_ids), max_new_tokens, ends, pad, lambda written, _: step(
            _int32(input_ids=ids, attention_mask=mask, decoder_input_ids=written)
        ))  # fmt: skip

    def next_logits(written: np.ndarray, added: int) -> tf.Tensor:
        seen = np.concatenate([mask, np.ones((len(ids), added), mask.dtype)], 1)
        inputs = {"input_ids": written, "attention_mask": seen}
        if "position_ids" in model.graph.inputs:  # counted over tokens, as `generate` of PyTorch does
            inputs["position_ids"] = np.maximum(np.cumsum(seen, 1) - 1, 0)
        return step(_int32(**{name: value for name, value in inputs.items() if name in model.graph.inputs}))

    return _extend(ids, max_new_tokens, ends, pad, next_logits)


def _extend(written: np.ndarray, steps: int, ends: list[int], pad: int, next_logits) -> tf.Tensor:
    done = np.zeros(len(written), bool)
    for added in range(steps):
        token = np.argmax(next_logits(written, added).numpy(), -1)
        token = np.where(done, pad, token).astype(written.dtype)
        written = np.concatenate([written, token[:, np.newaxis]], 1)
        done |= np.isin(token, ends)
        if done.all():
            break
    return tf.constant(written)


def _start_token(config) -> int:
    if getattr(config, "decoder_start_token_id", None) is None:
        raise ValueError("The config has no decoder_start_token_id: give decoder_input_ids.")
    return config.decoder_start_token_id


def _int32(**arrays: np.ndarray) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value, tf.int32) for name, value in arrays.items()}


def _as_list(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
