"""The gRPC API of TensorFlow Serving, with its own protocol buffers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.serving.transport import (
    Address,
    RequestRefusedError,
    Retries,
    ServingError,
    Signature,
    TensorInfo,
    Transport,
    TryAgainError,
    with_texts,
)

TRY_AGAIN = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
# What gRPC says of a server that answers in another protocol.
NOT_GRPC = re.compile(r"http1\.x|HTTP/1|parsing HTTP/2|SETTINGS frame")
# No limit to the size of messages: hidden states are large, and the server has its own limit. A lost server is looked
# for again soon, so that Retries decides how long.
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
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

    def __init__(self, address: Address, timeout: float, retries: Retries, headers: Mapping[str, str]):
        super().__init__(address, timeout, retries, headers)
        try:
            import grpc
            from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(f'{address.url} needs gRPC: pip install "tf-pipeline[serving]" ({error})') from error
        if address.scheme == "grpcs":
            self._channel = grpc.secure_channel(address.server, grpc.ssl_channel_credentials(), options=OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address.server, options=OPTIONS)
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
        return {key: with_texts(tf.make_ndarray(value)) for key, value in answer.outputs.items()}

    def signatures(self) -> dict[str, Signature]:
        """See :class:`Transport`."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec)
        found = get_model_metadata_pb2.SignatureDefMap()
        self._call(self._prediction.GetModelMetadata, request).metadata["signature_def"].Unpack(found)
        return {
            name: Signature(_tensors(one.inputs), _tensors(one.outputs))
            for name, one in found.signature_def.items()
            if one.inputs
        }

    def status(self) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.address.name
        answer = self._call(self._model.GetModelStatus, request, explain=False)
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

    def _call(self, method: Callable[..., Any], request: Any, explain: bool = True) -> Any:
        """Send a request, again if need be."""
        return self.retries.run(lambda: self._send(method, request, explain))

    def _send(self, method: Callable[..., Any], request: Any, explain: bool) -> Any:
        import grpc

        try:
            return method(request, timeout=self.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._explained(error.code().name, error.details() or "No message.", explain) from error

    def _explained(self, code: str, message: str, explain: bool) -> Exception:
        """What to raise for a gRPC code."""
        url = self.address.url
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
            message = self._not_found(message)
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
