"""Warm-up requests, which TensorFlow Serving runs when it loads a model, so that the first caller does not wait."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pipeline.serving.client.answers import AS_EXPORTED
from tf_pipeline.serving.export.base import input_specs

# The place where a server looks for them, and the maximum number that it reads.
FILE = "assets.extra/tf_serving_warmup_requests"
MOST = 1000
TEXTS = ("A.", "A short sentence.", "A sentence that is a little longer than the others, and says no more. " * 3)
LENGTHS = (8, 64)

Request = tuple[str, dict[str, np.ndarray]]


def requests(signatures: Mapping[str, Any], batch_sizes: Sequence[int]) -> list[Request]:
    """Requests for every signature, by batch size and length.

    Args:
        signatures: loaded functions by name.
        batch_sizes: rows of a request.

    Returns:
        Name of the signature and inputs by name; at most as many as a server reads.
    """
    made = [
        (name, {key: _values(spec, rows, length) for key, spec in input_specs(function).items()})
        for rows in batch_sizes
        for name, function in signatures.items()
        for length in _lengths(function)
    ]
    return made[:MOST]


def _lengths(function: Any) -> range:
    """Places of the lengths that are sent: all, or the longest alone to what writes, which takes most of the time."""
    takes_texts = any(spec.dtype == tf.string for spec in input_specs(function).values())
    count = len(TEXTS if takes_texts else LENGTHS)
    return range(count - 1 if "num_generated_tokens" in function.structured_outputs else 0, count)


def _values(spec: tf.TensorSpec, rows: int, length: int) -> np.ndarray:
    if spec.shape.rank == 1 and spec.dtype != tf.string:
        return np.full([rows], AS_EXPORTED, spec.dtype.as_numpy_dtype)
    if spec.dtype != tf.string:
        return np.full([rows, LENGTHS[length]], spec.name.startswith("attention_mask"), np.int64)
    text = b"" if spec.name == "state" else TEXTS[length].encode()
    if spec.name.startswith("inputs"):  # the classify API
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
        text = tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()
    return np.array([text] * rows, object)


def write_requests(folder: Path, name: str, sent: Sequence[Request]) -> None:
    """Write requests next to a SavedModel.

    Args:
        folder: of the SavedModel.
        name: of the model in the server.
        sent: the requests, which have to be right: one that fails keeps a server from loading the model.

    Raises:
        ImportError: without ``tensorflow-serving-api``.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        raise ImportError(
            'Warm-up requests need tensorflow-serving-api: pip install "tf-pipeline[serving]", or leave them out with '
            "warmup=False (--no-warmup)."
        ) from None
    file = Path(folder) / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs in sent:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())
