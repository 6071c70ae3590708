"""Test equipment, NOT TensorFlow Serving: serves a SavedModel on this machine by TF Serving's documented protocols.

    python -m parity_tests.loopback_server --base-path OUT --name m --rest-port 0 --grpc-port 0

prints one line of JSON with the ports and serves until it is ended. The model runs as on the real server: loaded in
session mode from the folder alone, without a line of this package. What it cannot show: the C++ server's own loader,
thread pools, memory and speed. Written after https://www.tensorflow.org/tfx/serving/api_rest and the behaviour of
``json_tensor.cc``, ``predict_util.cc``, ``http_server.cc`` and ``batching_session.cc`` in tensorflow/serving.

Beyond the protocol, ``PUT /loopback`` sets faults (see :class:`Faults`), and ``GET /loopback`` tells how many
predictions were asked for since, and how often the model ran in all.
"""

import argparse
import base64
import binascii
import dataclasses
import json
import os
import queue
import re
import socket
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY = "tensorflow/serving/classify"
HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
GRPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class StatusError(Exception):
    """An error as TensorFlow has them: the name of a code and a message."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> StatusError:
    return StatusError("INVALID_ARGUMENT", message)


@dataclass
class Faults:
    """What goes wrong with predictions.

    Attributes:
        fail: how many of the next predictions fail with ``status`` (and ``retry_after``, a header, if given).
        drop: how many of the next predictions get no answer but a closed connection (REST only).
        delay: seconds before any answer.
        lose_rows: rows that are left out at the end of every answer.
        body: what REST answers instead of the prediction.
        predictions: how many were asked for; reset when faults are set.
    """

    fail: int = 0
    status: int = 503
    retry_after: str | None = None
    drop: int = 0
    delay: float = 0.0
    lose_rows: int = 0
    body: str | None = None
    predictions: int = 0

    def __post_init__(self):
        self._lock = threading.Lock()

    def reset(self, values: dict[str, Any]) -> None:
        for name, value in dataclasses.asdict(Faults(**values)).items():
            setattr(self, name, value)

    def strike(self) -> str:
        """Count a prediction and say what is to become of it: ``"fail"``, ``"drop"`` or nothing."""
        with self._lock:
            self.predictions += 1
            for name in ("fail", "drop"):
                if (left := getattr(self, name)) > 0:
                    setattr(self, name, left - 1)
                    return name
        time.sleep(self.delay)
        return ""


# ------------------------------------------------------------------------------------------------------- the model


class Version:
    """One version of a model, in a session."""

    def __init__(self, path: Path, threads: int, batching: "Batching | None"):
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
        self.session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self.session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self.session, [tf.saved_model.SERVING], str(path))
        self.signatures = dict(meta_graph.signature_def)
        self.batching = batching
        self.runs = 0
        self._batchers: dict[str, Batcher] = {}
        self._lock = threading.Lock()

    def signature(self, name: str, code: str, message: str):
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise StatusError(code, message.format(name))
        return name, self.signatures[name]

    def predict(self, name: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a signature; with batching, together with what others ask at the same time."""
        if self.batching is None:
            return self.run(name, feeds)
        sizes = {np.shape(value)[:1] for value in feeds.values()}
        if () in sizes:
            raise invalid("Batching Run() input tensors must have at least one dimension")
        if len(sizes) > 1:
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        with self._lock:
            if name not in self._batchers:
                self._batchers[name] = Batcher(self, name, self.batching)
            batcher = self._batchers[name]
        return batcher.predict(feeds, sizes.pop()[0])

    def run(self, name: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        signature = self.signatures[name]
        with self._lock:
            self.runs += 1
        try:
            return self.session.run(
                {key: info.name for key, info in signature.outputs.items()},
                {signature.inputs[key].name: value for key, value in feeds.items()},
            )
        except tf.errors.OpError as error:
            raise StatusError(_code_name(error.error_code), error.message) from error
        except (ValueError, TypeError) as error:
            raise invalid(str(error)) from error


def _code_name(code: int) -> str:
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")


@dataclass
class Batching:
    """The batching parameters of TF Serving that matter here."""

    max_batch_size: int = 32
    batch_timeout_micros: int = 1000
    max_enqueued_batches: int = 1000


class Batcher:
    """Merges requests for one signature and splits the answer by rows."""

    def __init__(self, version: Version, name: str, options: Batching):
        self.version, self.name, self.options = version, name, options
        self.waiting: queue.Queue = queue.Queue(options.max_enqueued_batches * options.max_batch_size)
        threading.Thread(target=self._work, daemon=True).start()

    def predict(self, feeds: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        if rows > self.options.max_batch_size:
            largest = self.options.max_batch_size
            raise invalid(f"Task size {rows} is larger than maximum input batch size {largest}")
        if rows == 0:
            return self.version.run(self.name, feeds)
        future: Future = Future()
        try:
            self.waiting.put_nowait((feeds, rows, future))
        except queue.Full:
            raise StatusError(
                "UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full"
            ) from None
        return future.result()

    def _work(self) -> None:
        left = None
        while True:
            batch = [left or self.waiting.get()]
            left, rows = None, batch[0][1]
            deadline = time.monotonic() + self.options.batch_timeout_micros / 1e6
            while rows < self.options.max_batch_size:
                try:
                    task = self.waiting.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if rows + task[1] > self.options.max_batch_size or not _stackable(batch[0][0], task[0]):
                    left = task
                    break
                batch.append(task)
                rows += task[1]
            self._run(batch, rows)

    def _run(self, batch: list[tuple], rows: int) -> None:
        """Run tasks as one; if it fails, all of them fail, as on the real server."""
        try:
            feeds = {key: np.concatenate([task[0][key] for task in batch]) for key in batch[0][0]}
            outputs = self.version.run(self.name, feeds)
            for key, value in outputs.items():
                if not np.ndim(value) or len(value) != rows:
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"Batched output tensor {key} has a 0th dimension that is not the sum of those of the inputs",
                    )
        except Exception as error:
            for _, _, future in batch:
                future.set_exception(error)
            return
        start = 0
        for _, count, future in batch:
            future.set_result({key: value[start : start + count] for key, value in outputs.items()})
            start += count


def _stackable(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.shape(one[key])[1:] == np.shape(other[key])[1:] for key in one)


@dataclass
class Model:
    """All versions of a model under its name."""

    name: str
    versions: dict[int, Version]
    labels: dict[str, int] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    def find(self, name: str, version: int | None, label: str | None) -> tuple[int, Version]:
        if label is not None and name == self.name:
            if label not in self.labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        if name != self.name or (version is not None and version not in self.versions):
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise StatusError("NOT_FOUND", f"Servable not found for request: {asked}")
        number = max(self.versions) if version is None else version
        return number, self.versions[number]

    def status(self, name: str, version: int | None) -> list[int]:
        if name != self.name:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {name}")
        if version is not None and version not in self.versions:
            raise StatusError("NOT_FOUND", f"Could not find version {version} of model {name}")
        return sorted(self.versions, reverse=True) if version is None else [version]

    def predict(self, version: Version, name: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = version.predict(name, feeds)
        if lost := self.faults.lose_rows:
            return {key: value[:-lost] for key, value in outputs.items()}
        return outputs


# ------------------------------------------------------------------------------------------- JSON to tensors and back


def dense(value: Any, dtype: tf.DType) -> np.ndarray:
    """A tensor from nested lists, whose first elements tell the shape."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    leaves: list[Any] = []
    _collect(value, 0, shape, dtype, leaves)
    array = np.empty(len(leaves), object if dtype == tf.string else dtype.as_numpy_dtype)
    array[:] = leaves
    return array.reshape(shape)


def _collect(value: Any, level: int, shape: list[int], dtype: tf.DType, leaves: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {json.dumps(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
                f"level: {len(shape)}"
            )
        leaves.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for one in value:
        _collect(one, level + 1, shape, dtype, leaves)


def _leaf(value: Any, dtype: tf.DType) -> Any:
    if dtype == tf.string:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        if isinstance(value, dict):
            return _base64(value)
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, int if dtype.is_integer else (int, float)) and not isinstance(value, bool):
        return value
    raise invalid(f"JSON Value: {json.dumps(value)} is not of expected type: {dtype.name}")


def is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _base64(value: dict[str, Any]) -> bytes:
    if not is_base64(value):
        raise invalid(f"JSON Value: {json.dumps(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error:
        raise invalid("Unable to base64 decode") from None


def from_instances(instances: Any, inputs: dict[str, tf.DType]) -> dict[str, np.ndarray]:
    """Tensors from rows, which all have to have one shape."""
    if not isinstance(instances, list):
        raise invalid("JSON Value: Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid("JSON Value: No values in 'instances' array")
    objects = isinstance(instances[0], dict) and not is_base64(instances[0])
    if not objects and len(inputs) > 1:
        raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in inputs}
    for place, one in enumerate(instances):
        if objects != (isinstance(one, dict) and not is_base64(one)):
            raise invalid(f"Expecting {'object' if objects else 'value/list'} at item {place} of input list")
        one = one if objects else {next(iter(inputs)): one}
        if set(one) != set(inputs):
            raise invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: {json.dumps(one)} keys must be "
                f"equal to: {','.join(sorted(inputs))}"
            )
        for name, value in one.items():
            tensor = dense(value, inputs[name])
            if rows[name] and rows[name][0].shape != tensor.shape:
                raise invalid(
                    f"Failed to process element: {place} key: {name} of 'instances' list. Error: Expecting shape "
                    f"{list(rows[name][0].shape)} but got: {list(tensor.shape)}"
                )
            rows[name].append(tensor)
    return {name: np.stack(values) for name, values in rows.items()}


def from_inputs(value: Any, inputs: dict[str, tf.DType]) -> dict[str, np.ndarray]:
    """Tensors from columns; a lone one may come without its name."""
    if not isinstance(value, dict) or is_base64(value):
        if len(inputs) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required")
        value = {next(iter(inputs)): value}
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: dense(value[name], dtype) for name, dtype in inputs.items()}


def to_values(name: str, array: np.ndarray) -> Any:
    """Nested lists; text as it is, bytes in base64 if the name ends in ``_bytes``, float32 with 9 digits."""
    array = np.asarray(array)
    if array.dtype == object:
        return _map(array.tolist(), _encoded if name.endswith("_bytes") else _decoded)
    if array.dtype == np.float32:
        return np.char.mod("%.9g", array).astype(np.float64).tolist()
    return array.tolist()


def _map(value: Any, function) -> Any:
    return [_map(one, function) for one in value] if isinstance(value, list) else function(value)


def _encoded(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")  # the server writes bytes as they are


# ------------------------------------------------------------------------------------------------------------- REST

PREDICTION = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)")
INFORMATION = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?")


class Rest(BaseHTTPRequestHandler):
    """The REST API."""

    model: Model
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:  # noqa: N802
        self.model.faults.reset(json.loads(self._body() or b"{}"))
        self._reply(200, {})

    def do_GET(self) -> None:  # noqa: N802
        if self.path == "/loopback":
            runs = sum(version.runs for version in self.model.versions.values())
            return self._reply(200, dataclasses.asdict(self.model.faults) | {"runs": runs})
        self._answer(self._get)

    def do_POST(self) -> None:  # noqa: N802
        body = self._body()
        struck = self.model.faults.strike() if PREDICTION.fullmatch(self.path) else ""
        if struck == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif struck == "fail":
            after = self.model.faults.retry_after
            self._reply(self.model.faults.status, {"error": "A fault"}, {"Retry-After": after} if after else {})
        elif self.model.faults.body is not None:
            self._send(200, self.model.faults.body.encode())
        else:
            self._answer(lambda: self._post(body))

    def _get(self) -> Any:
        match = INFORMATION.fullmatch(self.path)
        if not match:
            raise invalid(f"Malformed request: GET {self.path}")
        name, version, label, metadata = match.groups()
        number = int(version) if version else None
        if metadata:
            number, found = self.model.find(name, number, label)
            return {
                "model_spec": {"name": name, "signature_name": "", "version": str(number)},
                "metadata": {"signature_def": json_format.MessageToDict(
                    _signature_map(found), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )},
            }  # fmt: skip
        status = {"error_code": "OK", "error_message": ""}
        versions = [
            {"version": str(one), "state": "AVAILABLE", "status": status} for one in self.model.status(name, number)
        ]
        return {"model_version_status": versions}

    def _post(self, body: bytes) -> Any:
        match = PREDICTION.fullmatch(self.path)
        if not match:
            raise invalid(f"Malformed request: POST {self.path}")
        name, version, label, method = match.groups()
        try:
            document = json.loads(body)
        except ValueError as error:
            raise invalid(f"JSON Parse error: {error}") from None
        if not isinstance(document, dict):
            raise invalid("JSON Value: Is not object")
        asked = document.get("signature_name", "")
        if not isinstance(asked, str):
            raise invalid("JSON Value not formatted correctly. 'signature_name' key must be a string value.")
        found = self.model.find(name, int(version) if version else None, label)[1]
        if method == "regress":
            raise StatusError("UNIMPLEMENTED", "The loopback server has no regress")
        return (self._classify if method == "classify" else self._predict)(found, asked, document)

    def _predict(self, version: Version, asked: str, document: dict[str, Any]) -> Any:
        message = 'Serving signature name: "{}" not found in signature def'
        name, signature = version.signature(asked, "INVALID_ARGUMENT", message)
        inputs = {key: tf.as_dtype(info.dtype) for key, info in signature.inputs.items()}
        if "instances" in document and "inputs" in document:
            raise invalid("JSON Value: Not formatted correctly expecting only one of 'inputs' or 'instances' keys")
        if "instances" in document:
            outputs = self.model.predict(version, name, from_instances(document["instances"], inputs))
            return {"predictions": _rows({key: to_values(key, value) for key, value in outputs.items()})}
        if "inputs" not in document:
            raise invalid("Missing 'inputs' or 'instances' key")
        outputs = self.model.predict(version, name, from_inputs(document["inputs"], inputs))
        values = {key: to_values(key, value) for key, value in outputs.items()}
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}

    def _classify(self, version: Version, asked: str, document: dict[str, Any]) -> Any:
        if not isinstance(document.get("examples"), list) or not document["examples"]:
            raise invalid("JSON Value: When method is classify, key 'examples' is expected to be a list with values")
        context = document.get("context", {})
        examples = [_example(context | one).SerializeToString() for one in document["examples"]]
        classes, scores = classify(self.model, version, asked, examples)
        return {
            "results": [[[_decoded(label), float(f"{score:.9g}")] for label, score in zip(*row, strict=True)]
                        for row in zip(classes, scores, strict=True)]
        }  # fmt: skip

    def _answer(self, compute) -> None:
        try:
            self._reply(200, compute())
        except StatusError as error:
            self._reply(HTTP.get(error.code, 500), {"error": error.message})
        except Exception as error:
            self._reply(500, {"error": f"{type(error).__name__}: {error}"})
            raise

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogateescape"), headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def _rows(columns: dict[str, list]) -> list:
    if len({len(values) for values in columns.values()}) > 1:
        raise invalid("Tensors have inconsistent batch sizes")
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _example(values: Any) -> tf.train.Example:
    if not isinstance(values, dict):
        raise invalid("Example must be JSON object")
    example = tf.train.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, (str, dict)):
                feature.bytes_list.value.append(_leaf(one, tf.string))
            elif isinstance(one, float):
                feature.float_list.value.append(one)
            elif isinstance(one, int):
                feature.int64_list.value.append(int(one))
            else:
                raise invalid(f"Feature: {name} has element with unexpected JSON type")
    return example


def classify(model: Model, version: Version, asked: str, examples: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Classes and scores of serialized examples, by a signature that is declared to classify."""
    name, signature = version.signature(asked, "INVALID_ARGUMENT", 'No signature was found with the name "{}"')
    if signature.method_name != CLASSIFY:
        raise invalid(f"Expected classification signature method_name to be {CLASSIFY}. Was: {signature.method_name}")
    if list(signature.inputs) != ["inputs"]:
        raise invalid("No classification inputs found in SignatureDef")
    outputs = model.predict(version, name, {"inputs": np.array(examples, object)})
    return outputs["classes"], outputs["scores"]


def _signature_map(version: Version):
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in version.signatures.items():
        found.signature_def[name].CopyFrom(signature)
    return found


# ------------------------------------------------------------------------------------------------------------- gRPC


def answering(method):
    """Turn :class:`StatusError` into the status of the call."""

    def answer(self, request, context):
        try:
            return method(self, request, context)
        except StatusError as error:
            context.abort(grpc.StatusCode[error.code], error.message)

    return answer


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """PredictionService: Predict, Classify and GetModelMetadata."""

    def __init__(self, model: Model):
        self.model = model

    @answering
    def Predict(self, request, context):  # noqa: N802
        if self.model.faults.strike():
            raise StatusError(GRPC[self.model.faults.status], "A fault")
        _, version = self._find(request)
        asked = request.model_spec.signature_name
        message = 'Serving signature key "{}" not found.'
        name, signature = version.signature(asked, "FAILED_PRECONDITION", message)
        sent, takes = set(request.inputs), set(signature.inputs)
        if len(sent) != len(takes):
            extra, missing = (",".join(sorted(one)) for one in (sent - takes, takes - sent))
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(takes)}. Sent extra: {{{extra}}}. Missing but "
                f"required: {{{missing}}}."
            )
        if unknown := sorted(sent - takes):
            raise invalid(f"input tensor alias not found in signature: {unknown[0]}.")
        outputs = self.model.predict(version, name, {key: tf.make_ndarray(one) for key, one in request.inputs.items()})
        answer = predict_pb2.PredictResponse()
        for key in request.output_filter or outputs:
            if key not in outputs:
                raise invalid(f"output tensor alias not found in signature: {key}")
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return answer

    @answering
    def Classify(self, request, context):  # noqa: N802
        _, version = self._find(request)
        examples = [one.SerializeToString() for one in request.input.example_list.examples]
        answer = classification_pb2.ClassificationResponse()
        for row in zip(*classify(self.model, version, request.model_spec.signature_name, examples), strict=True):
            one = answer.result.classifications.add()
            for label, score in zip(*row, strict=True):
                one.classes.add(label=label.decode(), score=score)
        return answer

    @answering
    def GetModelMetadata(self, request, context):  # noqa: N802
        if list(request.metadata_field) != ["signature_def"]:
            raise invalid("Metadata field is not supported")
        number, version = self._find(request)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name, answer.model_spec.version.value = self.model.name, number
        answer.metadata["signature_def"].Pack(_signature_map(version))
        return answer

    def _find(self, request) -> tuple[int, Version]:
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        return self.model.find(spec.name, version, spec.version_label or None)


class Information(model_service_pb2_grpc.ModelServiceServicer):
    """ModelService: GetModelStatus."""

    def __init__(self, model: Model):
        self.model = model

    @answering
    def GetModelStatus(self, request, context):  # noqa: N802
        spec = request.model_spec
        answer = get_model_status_pb2.GetModelStatusResponse()
        for number in self.model.status(spec.name, spec.version.value if spec.HasField("version") else None):
            state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            answer.model_version_status.add(version=number, state=state)
        return answer


# ------------------------------------------------------------------------------------------------------------- main


class Server(ThreadingHTTPServer):
    """An HTTP server whose threads end with it, and which many clients may reach at once."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients may leave
            super().handle_error(request, client_address)


def start_rest(model: Model, port: int) -> int:
    server = Server(("127.0.0.1", port), type("Handler", (Rest,), {"model": model}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def start_grpc(model: Model, port: int) -> tuple[grpc.Server, int]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(32), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Information(model), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-path", type=Path, required=True, help="folder with a folder for each version")
    parser.add_argument("--name", default="m", help="name of the model (default: %(default)s)")
    parser.add_argument("--rest-port", type=int, default=0, help="0 for any (default)")
    parser.add_argument("--grpc-port", type=int, default=0, help="0 for any (default)")
    parser.add_argument("--all-versions", action="store_true", help="not only the latest")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VERSION", help="may be repeated")
    parser.add_argument("--threads", type=int, default=1, help="threads of a session (default: %(default)s)")
    parser.add_argument("--batching", action="store_true", help="merge requests for one signature")
    for option in dataclasses.fields(Batching):
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=int, default=option.default)
    parser.add_argument("--faults", type=json.loads, default={}, metavar="JSON", help="see the class Faults")
    return parser.parse_args()


def main() -> None:
    args = parse()
    numbers = sorted(int(path.name) for path in args.base_path.iterdir() if path.name.isdigit())
    if not numbers:
        raise SystemExit(f"{args.base_path} has no version: no folder whose name is a number.")
    options = {option.name: getattr(args, option.name) for option in dataclasses.fields(Batching)}
    batching = Batching(**options) if args.batching else None
    versions = {
        number: Version(args.base_path / str(number), args.threads, batching)
        for number in (numbers if args.all_versions else numbers[-1:])
    }
    labels = {name: int(number) for name, number in (label.split("=") for label in args.label)}
    model = Model(args.name, versions, labels, Faults(**args.faults))
    rest_port = start_rest(model, args.rest_port)
    server, grpc_port = start_grpc(model, args.grpc_port)
    print(json.dumps({"rest_port": rest_port, "grpc_port": grpc_port}), flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
