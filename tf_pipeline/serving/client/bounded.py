"""HTTP answers that are bounded in time and in size, on urllib3's connections."""

import functools
import http.client
import io
import time
import zlib
from typing import Any

import urllib3

CHUNK = 2**16
LONGEST_LINE = 2**16
# Seconds that a socket gets where none are left; 0 would mean not to wait at all, which is another mode.
SHORTEST = 1e-3
# Encodings of answers that are read, though none is asked for.
ENCODINGS = {"gzip", "x-gzip", "deflate"}


class UnreadableAnswerError(Exception):
    """An answer that is too large or garbled; the message says how."""


class AnswerTooLargeError(UnreadableAnswerError):
    """An answer of more bytes than are allowed."""


class _TimedReader(io.RawIOBase):
    """The bytes of a socket, until a point in time of the monotonic clock."""

    def __init__(self, raw: io.RawIOBase, sock: Any, end: float):
        self._raw, self._sock, self._end = raw, sock, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BufferedReader(io.BufferedReader):
    """Has no lines without an end: older releases of urllib3 read the sizes of chunks as lines of any length."""

    def readline(self, size: int | None = -1) -> bytes:
        return super().readline(LONGEST_LINE if size is None or size < 0 else size)


class _TimedResponse(http.client.HTTPResponse):
    """Headers and body that have to be there after some seconds; the socket's own time-out is for each read."""

    def __init__(self, sock: Any, *args: Any, seconds: float, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        self.fp = _BufferedReader(_TimedReader(self.fp.detach(), sock, time.monotonic() + seconds))


class _TimedConnection:
    """A connection whose ``timeout`` runs from when urllib3 sets it: each step of a request has the rest of it."""

    _end = 0.0

    @property
    def timeout(self) -> float:
        return max(self._end - time.monotonic(), SHORTEST)

    @timeout.setter
    def timeout(self, seconds: Any) -> None:
        if isinstance(seconds, (int, float)):  # and not urllib3's mark for none
            self._end = time.monotonic() + seconds

    @property
    def response_class(self):
        return functools.partial(_TimedResponse, seconds=self.timeout)

    def _new_conn(self):
        sock = super()._new_conn()
        sock.settimeout(self.timeout)  # for the handshake of TLS
        return sock

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.timeout)
        super().send(data)


class _HTTPConnection(_TimedConnection, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_TimedConnection, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def bounded(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """The same manager, whose answers have to be complete within the ``timeout`` of a request."""
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return manager


def read_body(answer: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    """Read a body that was not preloaded, and decompress it as it comes.

    Args:
        answer: urllib3's response.
        limit: bytes that it may have, decompressed.

    Raises:
        AnswerTooLargeError: if it has more.
        UnreadableAnswerError: if it is compressed in a way that is not known, or damaged.
        urllib3.exceptions.HTTPError: if it does not come, or the connection breaks.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", ""} | ENCODINGS:
        raise UnreadableAnswerError(f"The answer is encoded as {encoding!r}, which was not asked for.")
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ENCODINGS else None
    body = bytearray()
    try:
        for chunk in answer.stream(CHUNK, decode_content=False):
            body += decoder.decompress(chunk, limit + 1 - len(body)) if decoder else chunk
            if len(body) > limit:
                raise AnswerTooLargeError(f"The answer has more than {limit} bytes.")
    except zlib.error as error:
        raise UnreadableAnswerError(f"The answer is not {encoding}, as it says: {error}.") from error
    except ValueError as error:  # urllib3 takes a negative size of a chunk for one
        raise UnreadableAnswerError(f"The answer is garbled: {error}") from error
    if decoder and not decoder.eof:
        raise UnreadableAnswerError(f"The answer is {encoding} that was cut off after {len(body)} bytes.")
    return bytes(body)
