"""The client of served models waits no longer and reads no more than it was told to, whatever a server sends."""

import contextlib
import gzip
import itertools
import json
import os
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures

import pytest

from parity_tests.kill_helpers import ended, forked
from parity_tests.tiers import thinned
from tf_pipeline.serving import Client, ServingError

METADATA = json.dumps(
    {
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"text": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}]}}},
                        "outputs": {
                            name: {"dtype": dtype, "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}
                            for name, dtype in {"labels": "DT_STRING", "scores": "DT_FLOAT"}.items()
                        },
                    }
                }
            }
        }
    }
).encode()
GOOD = {"labels": [["A", "B"]], "scores": [[0.75, 0.25]]}
FOREVER = 30.0  # seconds in which a client that does not look at the clock would not come back


def http(
    body: bytes = b"{}", status: str = "200 OK", headers: dict[str, str] | None = None, length: int | None = None
) -> bytes:
    """An answer as it goes over the wire; a length of -1 leaves the header out."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def outputs(**changes) -> bytes:
    """An answer of the signature, in which some outputs are others."""
    return http(json.dumps({"outputs": GOOD | changes}).encode())


class Wire:
    """A server of raw bytes: answers the metadata of a model, and anything else as it is told to.

    Args:
        talk: sends the answer to a prediction.
    """

    def __init__(self, talk: Callable[[socket.socket], None]):
        self.talk, self.connections, self.requests, self.paths = talk, 0, 0, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1/models/m"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader, contextlib.suppress(OSError):
            while request := reader.readline():
                headers = dict(line.lower().split(b":", 1) for line in iter(reader.readline, b"\r\n"))
                reader.read(int(headers.get(b"content-length", 0)))
                self.requests += 1
                self.paths.append(request.split()[1].decode())
                if b"/metadata" in request:
                    connection.sendall(http(METADATA))
                else:
                    self.talk(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # if it is only closed, a thread in accept keeps it open
        self._listener.close()


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    """Start servers that answer predictions with bytes, or by a function that is given the connection."""
    started = []

    def start(answer: bytes | Callable[[socket.socket], None]) -> Wire:
        started.append(Wire(answer if callable(answer) else lambda connection: connection.sendall(answer)))
        return started[-1]

    yield start
    for server in started:
        server.close()


def drip(*parts: bytes, pause: float = 0.1) -> Callable[[socket.socket], None]:
    """Send the first part at once, and a byte of the second again and again."""
    head, *rest = parts

    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        for byte in itertools.cycle(b"".join(rest)):
            time.sleep(pause)
            connection.sendall(bytes([byte]))

    return talk


# ------------------------------------------------------------------------------------------------------------ time


@pytest.mark.parametrize(
    "talk",
    thinned(
        [
            drip(b"", b"HTTP/1.1 200 OK\r\n"),
            drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.01),
            drip(http(length=10**6), b" "),
            drip(http(headers={"Transfer-Encoding": "chunked"}, body=b"", length=-1), b"1\r\n \r\n"),
            drip(http(body=b"", length=-1), b" "),
            drip(http(b"", headers={"Content-Encoding": "gzip"}, length=10**6) + gzip.compress(b" " * 99)[:10], b"\0"),
            drip(http(b"", "500 Oh", length=10**6), b"x"),
            lambda connection: time.sleep(FOREVER),
        ],
        3,
    ),
    ids=["status", "headers", "continue", "body", "chunks", "to the end", "gzip", "error", "nothing"],
)
def test_an_answer_has_to_be_complete_in_time(wire, talk):
    server, start = wire(talk), time.monotonic()
    with pytest.raises(ServingError, match=r"127\.0\.0\.1.*No answer within 0\.6 s \(timeout=\)"):
        Client(server.url, timeout=0.6)("a")
    assert 0.5 < time.monotonic() - start < 5


def test_a_request_has_to_be_sent_in_time():
    """To a server that accepts a connection and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/models/m", timeout=0.6)
        with pytest.raises(ServingError, match="No answer within 0.6 s"):
            client._transport._json("POST", client.url, b"x" * 10**8)
    assert 0.5 < time.monotonic() - start < 5


def test_repetitions_count(wire):
    busy = http(b'{"error": "Busy"}', "503 Busy")
    server, start = wire(busy), time.monotonic()
    with pytest.raises(ServingError, match=r"Busy \(tried \d+ times, of 1 s \(timeout=\) none are left"):
        Client(server.url, timeout=1.0, retries=1000, backoff=0.05)("a")
    assert time.monotonic() - start < 5 and server.requests > 3
    server = wire(http(b'{"error": "Busy"}', "503 Busy", {"Retry-After": "30"}))
    with pytest.raises(ServingError, match=r"Busy \(the server asks to wait 30 s, of 5 s \(timeout=\) none are left"):
        Client(server.url, timeout=5.0)("a")
    assert server.requests == 2 and time.monotonic() - start < 10


def test_a_slow_answer_in_time_is_fine(wire):
    def talk(connection):
        for byte in outputs():
            time.sleep(0.003)
            connection.sendall(bytes([byte]))

    assert Client(wire(talk).url, timeout=20)("a") == [{"label": "A", "score": 0.75}]


def test_a_connection_is_kept_and_its_time_begins_anew(wire):
    def slowly(connection):
        time.sleep(0.5)
        connection.sendall(outputs())

    server = wire(slowly)
    with Client(server.url, timeout=3) as client:
        for _ in range(4):
            assert client("a")
    assert server.connections == 1 and server.requests == 5


def test_the_explanation_of_an_error_is_in_time_too(wire):
    """A model that is not there is explained by its status, which the server is asked for."""

    def talk(connection):
        if server.paths[-1].endswith(":predict"):
            time.sleep(0.4)
            connection.sendall(http(b'{"error": "Servable not found"}', "404 No"))
        else:
            time.sleep(FOREVER)

    server, start = wire(talk), time.monotonic()
    with pytest.raises(ServingError, match="Servable not found"):
        Client(server.url, timeout=0.8)("a")
    assert time.monotonic() - start < 5


# ------------------------------------------------------------------------------------------------------------ size


def bomb(size: int) -> bytes:
    """Spaces, compressed a thousandfold."""
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(b" " * 2**20) for _ in range(size // 2**20)) + packer.flush()


def test_a_bomb_is_not_inflated(wire):
    server = wire(http(bomb(2**27), headers={"Content-Encoding": "gzip"}))
    client = Client(server.url, max_answer_bytes=10**6)
    client.check()
    tracemalloc.start()
    with pytest.raises(ServingError, match=r"has more than 1000000 bytes\. Send fewer rows .*max_answer_bytes="):
        client("a")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    assert server.requests == 2  # it is not asked again


@pytest.mark.slow
def test_the_default_refuses_a_bomb_of_300_megabytes(wire):
    server = wire(http(bomb(300 * 2**20), headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ServingError, match=r"127\.0\.0\.1.*has more than 268435456 bytes"):
        Client(server.url)("a")


@pytest.mark.parametrize("length", [None, -1])
def test_an_endless_answer(wire, length):
    def talk(connection):
        connection.sendall(http(b"", length=10**12 if length is None else -1))
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b" " * 2**16)

    with pytest.raises(ServingError, match="has more than 1000000 bytes"):
        Client(wire(talk).url, max_answer_bytes=10**6, timeout=20)("a")


def test_a_limit_that_is_just_met(wire):
    body = json.dumps({"outputs": GOOD}).encode().ljust(len(METADATA))
    for headers, data in (({}, body), ({"Content-Encoding": "gzip"}, gzip.compress(body)),
                          ({"Content-Encoding": "deflate"}, zlib.compress(body))):  # fmt: skip
        server = wire(http(data, headers=headers))
        assert Client(server.url, max_answer_bytes=len(body))("a")[0]["label"] == "A"
        client = Client(server.url, max_answer_bytes=len(body) - 1)
        client._signatures = Client(server.url).signatures()
        with pytest.raises(ServingError, match=f"has more than {len(body) - 1} bytes"):
            client("a")


def test_a_long_error_is_an_error_of_its_status(wire):
    with pytest.raises(ServingError, match="HTTP 500: The answer has more than 1048576 bytes"):
        Client(wire(http(b"x" * (2**20 + 1), "500 Oh")).url)("a")


# --------------------------------------------------------------------------------------------------------- garbage

PACKED = gzip.compress(json.dumps({"outputs": GOOD}).encode(), mtime=0)  # a part of test names, alike in all workers
CHUNKED = {"Transfer-Encoding": "chunked"}
ZIPPED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http(b"[" * 10**5 + b"]" * 10**5), "nested too deeply"),
        (http(b'{"outputs": ' + b"[" * 10**5, "400 No"), r"HTTP 400: \{"),
        (http(b"<html></html>", headers={"Content-Type": "text/html"}), "not JSON.*<html>"),
        (http(b""), "not JSON"),
        (http(b"\xff\xfe\xfd"), "not JSON"),
        (http(b'{"outputs": ' + b"9" * 5000 + b"}"), "not JSON"),
        (http(PACKED[:-9], headers=ZIPPED), "gzip that was cut off after"),
        (http(PACKED[:20], headers=ZIPPED), "gzip that was cut off after"),
        (http(b"", headers=ZIPPED), "gzip that was cut off after 0 bytes"),
        (http(b"no gzip", headers=ZIPPED), "not gzip, as it says"),
        (http(PACKED[:15] + b"xxxx" + PACKED[19:], headers=ZIPPED), "not gzip, as it says"),
        (http(PACKED, headers={"Content-Encoding": "br"}), "encoded as 'br', which was not asked for"),
        (http(PACKED, headers={"Content-Encoding": "gzip, gzip"}), "encoded as 'gzip, gzip'"),
        (http(b"garbage\r\n", headers=CHUNKED, length=-1), "The answer is garbled: .*garbage"),
        (http(b"-5\r\nabc\r\n", headers=CHUNKED, length=-1), "The answer is garbled"),
        (http(b"5" * 10**6, headers=CHUNKED, length=-1), "The answer is garbled|exceeded maximum allowed length"),
        (http(b"5\r\nab", headers=CHUNKED, length=-1), r"The connection broke.*tried 2 times"),
        (http(b"{}", length=100), r"The connection broke.*tried 2 times"),
        (http(b"", headers={"Content-Length": "many"}, length=-1), "not JSON|garbled"),
        (http(b"", headers={"Content-Length": "1, 2"}, length=-1), "garbled"),
        (http(b"", "301 Moved", {"Location": "http://there/"}), "HTTP 301: The server points to http://there/"),
        (http(b"", "302 Found"), "HTTP 302: The server points to another address, but does not say which"),
        (http(b"", "204 None", length=-1), "HTTP 204"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10**5 + b"\r\n\r\n", "The connection broke.*header"),
        (b"\0\1\2\3\r\n\r\n", "does not speak HTTP"),
        (outputs(scores=[0.75]), "scores came back as float32 .1., but the signature promises float32 .-1, 2"),
        (outputs(scores=[[[0.75, 0.25]]]), r"scores came back as float32 \[1, 1, 2\]"),
        (outputs(scores=[[0.5, 0.25, 0.25]]), r"scores came back as float32 \[1, 3\]"),
        (outputs(scores=0.5), r"came back with the shape \(\)"),
        (outputs(scores=[[None, 0.5]]), "float32 should be there, but .*None"),
        (outputs(scores=[["0.75", "0.25"]]), "float32 should be there, but .*'0.75'"),
        (outputs(scores=[[True, False]]), "float32 should be there, but .*True"),
        (outputs(scores=[[10**400, 1]]), "float32 should be there"),
        (outputs(scores={"a": 1}), "float32 should be there"),
        (outputs(labels=[["A", None]]), "a text should be there, but None is"),
        (outputs(labels=[["A"], ["B", "C"]]), "a text should be there, but .'A'. is"),
        (outputs(labels=[[1, 2]]), "a text should be there, but 1 is"),
        (http(json.dumps({"outputs": {"labels": [["A", "B"]]}}).encode()), "lacks scores"),
    ],
)  # fmt: skip
def test_answers_that_are_none(wire, answer, message):
    def talk(connection):
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    with pytest.raises(ServingError, match=rf"(?s)127\.0\.0\.1.*{message}"):
        Client(wire(talk).url, retries=1, backoff=0.01, timeout=20)("a")


@pytest.mark.parametrize("wait", ["²", "-1", "soon", "1e3", "Thu, 99 Foo 2020", "Mon, 01 Jan 0000 00:00:00 GMT", ""])
def test_a_wait_that_is_none_does_not_count(wire, wait):
    def talk(connection):
        busy = http(b"{}", "503 Busy", {"Retry-After": wait})
        connection.sendall(busy if server.requests == 2 else outputs())

    server = wire(talk)
    assert Client(server.url, backoff=0.01, timeout=20)("a")


@pytest.mark.parametrize("wait", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "3600", "Fri, 31 Dec 9999 23:59:59"])
def test_a_wait_that_is_too_long_is_an_error(wire, wait):
    server = wire(http(b'{"error": "Busy"}', "503 Busy", {"Retry-After": wait}))
    with pytest.raises(ServingError, match=r"127\.0\.0\.1.*HTTP 503: Busy \(the server asks to wait"):
        Client(server.url)("a")
    assert server.requests == 2


@pytest.mark.parametrize(
    "metadata",
    ['{"metadata": {"signature_def": {"signature_def": {"a": 1}}}}', '{"metadata": []}', "{}", '{"metadata": null}',
     METADATA.decode().replace('"-1"', "1e999"), METADATA.decode().replace("DT_STRING", "").replace('"dtype"', '"d"')],
)  # fmt: skip
def test_metadata_that_are_none(wire, monkeypatch, metadata):
    monkeypatch.setitem(globals(), "METADATA", metadata.encode())
    with pytest.raises(ServingError, match=r"127\.0\.0\.1.*not the metadata of a model"):
        Client(wire(b"").url)("a")


@pytest.mark.parametrize("status", ['{"model_version_status": 3}', '{"model_version_status": [{"version": "x"}]}',
                                    '{"model_version_status": [3]}', '{"model_version_status": [{}]}'])  # fmt: skip
def test_a_status_that_is_none(wire, status):
    with pytest.raises(ServingError, match=r"127\.0\.0\.1.*not the status of a model"):
        Client(wire(http(status.encode())).url).status()


# -------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("kind", ["http://localhost:8501/v1/models/m", "grpc://localhost:8500/m"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["timeout", "backoff"], [float("nan"), float("inf"), -1, "2", None, True, 1e9]),
        *itertools.product(["retries", "max_batch_size", "max_answer_bytes"], [float("nan"), -1, 1.5, "2", True]),
        ("timeout", 0), ("timeout", 1e-9), ("max_batch_size", 0), ("max_answer_bytes", 0), ("max_answer_bytes", 2**31),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be(kind, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}, but has to be"):
        Client(kind, **{name: value})


# ------------------------------------------------------------------------------------------------------------- gRPC


@pytest.fixture
def grpc_server():
    """Start gRPC servers that answer predictions by a function of the request."""
    grpc = pytest.importorskip("grpc")
    from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

    started = []

    def start(predict, metadata=None, compression=None):
        def describe(request, context):
            import tensorflow as tf

            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            found = get_model_metadata_pb2.SignatureDefMap()
            signature = found.signature_def["serving_default"]
            for side, names in ((signature.inputs, {"text": 7}), (signature.outputs, {"labels": 7, "scores": 1})):
                for name, dtype in names.items():
                    side[name].dtype = dtype
                    sizes = [None] if name == "text" else [None, 2]
                    side[name].tensor_shape.CopyFrom(tf.TensorShape(sizes).as_proto())
            answer.metadata["signature_def"].Pack(found)
            return answer if metadata is None else metadata

        class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
            calls = 0

            def Predict(self, request, context):  # noqa: N802
                Service.calls += 1
                return predict(context)

            def GetModelMetadata(self, request, context):  # noqa: N802
                return describe(request, context)

        server = grpc.server(futures.ThreadPoolExecutor(2), compression=compression,
                             options=(("grpc.max_send_message_length", -1),))  # fmt: skip
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        started.append(server)
        return f"grpc://127.0.0.1:{port}/m", Service

    yield start
    for server in started:
        server.stop(None)


def answered(**changes):
    """An answer of the signature as a protocol buffer, in which some outputs are others."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    answer = predict_pb2.PredictResponse()
    for name, value in ({"labels": [["A", "B"]], "scores": [[0.75, 0.25]]} | changes).items():
        proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
        answer.outputs[name].CopyFrom(proto)
    return answer


def broadcast(*sizes: int):
    """One float that stands for many."""
    from tensorflow.core.framework import tensor_pb2, types_pb2

    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


def test_grpc_answers_that_fit(grpc_server):
    url, _ = grpc_server(lambda context: answered())
    assert Client(url)("a") == [{"label": "A", "score": 0.75}]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_grpc_answer_that_is_too_large(grpc_server, compressed):
    import grpc

    large = answered(labels=[[b"A" * 10**7, b"B"]])
    url, service = grpc_server(lambda context: large, compression=grpc.Compression.Gzip if compressed else None)
    assert Client(url)("a")
    with pytest.raises(ServingError, match=r"127\.0\.0\.1.*The answer is too large.*max_answer_bytes=1000000"):
        Client(url, max_answer_bytes=10**6)("a")
    assert service.calls == 2  # it is not asked again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.5]}, r"scores came back as float32 \[1\], but the signature promises float32 \[-1, 2\]"),
        ({"scores": [[1, 2]]}, r"scores came back as int32 \[1, 2\]"),
        ({"labels": [[0.5, 0.5]]}, r"labels came back as float32 \[1, 2\], but the signature promises string"),
        ({"labels": [[b"\xff", b"B"]]}, "not what the signature serving_default promises.*utf-8"),
        ({"scores": broadcast(10**6, 10**6)}, "a tensor of 4000000000000 bytes"),
        ({"scores": broadcast(-1, 2)}, "a tensor of -8 bytes"),
    ],
)
def test_grpc_answers_that_are_none(grpc_server, changes, message):
    url, _ = grpc_server(lambda context: answered(**changes))
    with pytest.raises(ServingError, match=rf"127\.0\.0\.1.*{message}"):
        Client(url)("a")


def test_grpc_metadata_that_are_none(grpc_server):
    from tensorflow_serving.apis import get_model_metadata_pb2

    url, _ = grpc_server(lambda context: answered(), get_model_metadata_pb2.GetModelMetadataResponse())
    with pytest.raises(ServingError, match=r"127\.0\.0\.1.*not the metadata of a model"):
        Client(url)("a")


def test_the_repetitions_of_grpc_count(grpc_server):
    import grpc

    url, service = grpc_server(lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "Busy"))
    start = time.monotonic()
    with pytest.raises(ServingError, match=r"UNAVAILABLE: Busy \(tried \d+ times, of 1 s \(timeout=\) none are left"):
        Client(url, timeout=1.0, retries=1000, backoff=0.05)("a")
    assert time.monotonic() - start < 5 and service.calls > 3


# ------------------------------------------------------------------------------------------------------------ forks


def test_a_forked_process_has_connections_of_its_own(wire):
    """Over one connection, two processes would read the answers to each other's requests."""
    server = wire(outputs())
    with Client(server.url) as client:
        client("a")
        assert ended(forked(lambda: client("b")))
        client("c")
    assert server.connections == 2 and os.getpid() == client._transport._process
