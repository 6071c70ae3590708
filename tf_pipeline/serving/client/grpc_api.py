"""The gRPC API of TensorFlow Serving, with its own protocol buffers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.serving.client.transport import (
    Address,
    Deadline,
    RequestRefusedError,
    ServingError,
    Signature,
    TensorInfo,
    Transport,
    TryAgainError,
    with_texts,
)

TRY_AGAIN = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
# Message of gRPC about a server that answers in another protocol.
NOT_GRPC = re.compile(r"http1\.x|HTTP/1|parsing HTTP/2|SETTINGS frame")
# Message of gRPC about an answer that is larger than max_answer_bytes, compressed or not.
TOO_LARGE = re.compile(r"message larger than max")
# No limit to the size of requests: the server has its own. A lost server is looked for again soon, so that Retries
# decides how long.
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcTransport(Transport):
    """Speaks PredictionService and ModelService.

    Source: https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis

    Raises:
        ImportError: if tensorflow-serving-api is not installed.
    """

    def __init__(self, address: Address, *options: Any):
        super().__init__(address, *options)
        try:
            import grpc
            from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(f'{address.url} needs gRPC: pip install "tf-pipeline[serving]" ({error})') from error
        limits = (("grpc.max_receive_message_length", self.max_answer_bytes), *OPTIONS)
        if address.scheme == "grpcs":
            self._channel = grpc.secure_channel(address.server, grpc.ssl_channel_credentials(), options=limits)
        else:
            self._channel = grpc.insecure_channel(address.server, options=limits)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._metadata = tuple((name.lower(), value) for name, value in self.headers.items())

    def predict(self, name: str, signature: Signature, columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """See :class:`Transport`."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._fill(request.model_spec)
        request.model_spec.signature_name = name
        for key, values in columns.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(values, dtype=signature.inputs[key].dtype))
        answer = self._call(self._prediction.Predict, request)
        try:
            return {key: with_texts(self._array(value)) for key, value in answer.outputs.items()}
        except (ValueError, TypeError) as error:
            wrong = f"The answer is not what the signature {name} promises: {error}"
            raise ServingError(self.address.url, None, wrong) from error

    def signatures(self) -> dict[str, Signature]:
        """See :class:`Transport`."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec)
        signatures_by_name = get_model_metadata_pb2.SignatureDefMap()
        answer = self._call(self._prediction.GetModelMetadata, request)
        if not answer.metadata["signature_def"].Unpack(signatures_by_name):
            raise ServingError(self.address.url, None, f"This is not the metadata of a model: {answer!s:.200}")
        return {
            name: Signature(_tensors(one.inputs), _tensors(one.outputs))
            for name, one in signatures_by_name.signature_def.items()
            if one.inputs
        }

    def status(self, deadline: Deadline | None = None) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.address.name
        answer = self._call(self._model.GetModelStatus, request, explain=False, deadline=deadline)
        return [
            {
                "version": one.version,
                "state": type(one).State.Name(one.state),
                "error_code": _code_name(one.status.error_code),
                "error_message": one.status.error_message,
            }
            for one in answer.model_version_status
        ]

    def close(self) -> None:
        """See :class:`Transport`."""
        self._channel.close()

    def _fill(self, spec: Any) -> None:
        spec.name = self.address.name
        if self.address.version is not None:
            spec.version.value = self.address.version
        elif self.address.label is not None:
            spec.version_label = self.address.label

    def _array(self, proto: Any) -> np.ndarray:
        """The array of a tensor, which may hold one value for all elements, and so be small in the answer only."""
        import tensorflow as tf

        size = math.prod(dimension.size for dimension in proto.tensor_shape.dim) * tf.as_dtype(proto.dtype).size
        if not 0 <= size <= self.max_answer_bytes:
            raise ValueError(self._too_large(f"a tensor of {size} bytes."))
        return tf.make_ndarray(proto)

    def _call(
        self, method: Callable[..., Any], request: Any, explain: bool = True, deadline: Deadline | None = None
    ) -> Any:
        """Send a request, again if need be."""
        refuse_if_forked("A gRPC client")
        deadline = deadline or Deadline(self.timeout)
        return self.retries.run(lambda: self._send(method, request, explain, deadline), deadline)

    def _send(self, method: Callable[..., Any], request: Any, explain: bool, deadline: Deadline) -> Any:
        import grpc

        try:
            return method(request, timeout=deadline.left, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._explained(error.code().name, error.details() or "No message.", explain, deadline) from error
        except ValueError as error:
            if "closed channel" not in str(error):
                raise
            raise ServingError(self.address.url, None, f"The client is closed: {error}") from error

    def _explained(self, code: str, message: str, explain: bool, deadline: Deadline) -> Exception:
        """The exception to raise for a gRPC code."""
        url = self.address.url
        if code == "RESOURCE_EXHAUSTED" and TOO_LARGE.search(message):
            return ServingError(url, code, self._too_large(f"The answer is too large: {message}."))
        if code in TRY_AGAIN and not NOT_GRPC.search(message):
            if "onnection refused" in message:
                message = "Connection refused: is the server running, and on this port?"
            return TryAgainError(ServingError(url, code, message))
        if code == "UNAVAILABLE":
            rest = f"http://{self.address.server}/v1/models/{self.address.name}"
            message = (
                f"The server does not speak gRPC. The port of REST is usually 8501 and its address {rest}; {message}"
            )
        elif code == "DEADLINE_EXCEEDED":
            message = f"No answer within {self.timeout:g} s (timeout=). {message}"
        elif explain and (code == "NOT_FOUND" or "version label" in message):
            message = self._not_found(message, deadline)
        elif code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            message += " Pass headers= with what the server wants to see."
        return (RequestRefusedError if code == "INVALID_ARGUMENT" else ServingError)(url, code, message)


def _code_name(code: int) -> str:
    import grpc

    return next((known.name for known in grpc.StatusCode if known.value[0] == code), str(code))


def _tensors(found: Mapping[str, Any]) -> dict[str, TensorInfo]:
    from tensorflow.core.framework import types_pb2

    return {
        name: TensorInfo.of(
            types_pb2.DataType.Name(one.dtype),
            [dimension.size for dimension in one.tensor_shape.dim],
            one.tensor_shape.unknown_rank,
        )
        for name, one in found.items()
    }
