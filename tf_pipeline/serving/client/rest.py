"""The REST API of TensorFlow Serving, with urllib3, whose pools are safe for several threads."""

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import numpy as np
import urllib3

from tf_pipeline.serving.client.bounded import AnswerTooLargeError, UnreadableAnswerError, bounded, read_body
from tf_pipeline.serving.client.transport import (
    Address,
    Deadline,
    RequestRefusedError,
    ServingError,
    Signature,
    TensorInfo,
    Transport,
    TryAgainError,
)

# Connections kept open: as many as threads that use a client at a time, usually; more are opened and closed again.
CONNECTIONS = 32
TRY_AGAIN = (429, 503)
# Bytes that are read of the answer to a request that failed.
LONGEST_MESSAGE = 2**20
# Kinds of NumPy arrays that JSON's numbers make, by the kind that is promised.
NUMBERS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}


class RestTransport(Transport):
    """Speaks the columnar form of the REST API.

    Source: https://www.tensorflow.org/tfx/serving/api_rest
    """

    def __init__(self, address: Address, *options: Any):
        super().__init__(address, *options)
        self._pool, self._process = _pool(address), os.getpid()

    def predict(self, name: str, signature: Signature, columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """See :class:`Transport`."""
        # A lone output comes without its name.
        body = json.dumps({"signature_name": name, "inputs": columns}, ensure_ascii=False).encode("utf-8")
        url = f"{self.address.version_url}:predict"
        outputs = self._json("POST", url, body).get("outputs")
        if len(signature.outputs) == 1:
            outputs = {next(iter(signature.outputs)): outputs}
        if not isinstance(outputs, dict):
            raise ServingError(url, None, f"The answer has no outputs by name: {outputs!r:.80}.")
        try:
            return {key: _array(value, signature.outputs[key]) for key, value in outputs.items()}
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise ServingError(url, None, f"The answer is not what the signature {name} promises: {error}.") from error

    def signatures(self) -> dict[str, Signature]:
        """See :class:`Transport`."""
        url = f"{self.address.version_url}/metadata"
        answer = self._json("GET", url)
        try:
            signatures_by_name = answer["metadata"]["signature_def"]["signature_def"]
            return {name: Signature(*(_tensors(one.get(side, {})) for side in ("inputs", "outputs")))
                    for name, one in signatures_by_name.items() if one.get("inputs")}  # fmt: skip
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ServingError(url, None, f"This is not the metadata of a model: {answer!r:.200}") from error

    def status(self, deadline: Deadline | None = None) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        url = self.address.model_url
        answer = self._json("GET", url, explain=False, deadline=deadline)
        try:
            return [
                {
                    "version": int(one["version"]),
                    "state": one["state"],
                    "error_code": one.get("status", {}).get("error_code", "OK"),
                    "error_message": one.get("status", {}).get("error_message", ""),
                }
                for one in answer.get("model_version_status", [])
            ]
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ServingError(url, None, f"This is not the status of a model: {answer!r:.200}") from error

    def close(self) -> None:
        """See :class:`Transport`."""
        self._pool.clear()

    def _json(
        self, method: str, url: str, body: bytes | None = None, explain: bool = True, deadline: Deadline | None = None
    ) -> dict[str, Any]:
        """Send a request and read the object that answers it."""
        deadline = deadline or Deadline(self.timeout)
        data = self.retries.run(lambda: self._send(method, url, body, explain, deadline), deadline)
        try:
            answer = json.loads(data)
        except RecursionError as error:
            raise ServingError(url, 200, f"The answer is nested too deeply: {data[:80]!r}") from error
        except ValueError as error:
            raise ServingError(
                url, 200, f"The answer is not JSON, so this is no TensorFlow Serving: {data[:80]!r}"
            ) from error
        if not isinstance(answer, dict):
            raise ServingError(url, 200, f"The answer is not a JSON object: {data[:80]!r}")
        return answer

    def _send(self, method: str, url: str, body: bytes | None, explain: bool, deadline: Deadline) -> bytes:
        """Send a request once."""
        if (left := deadline.left) <= 0:
            raise self._late(url)
        try:
            with contextlib.closing(self._request(method, url, body, left)) as answer:
                if answer.status == 200:
                    return read_body(answer, self.max_answer_bytes)
                message = _message(answer)
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(url, error) from error
        except AnswerTooLargeError as error:
            raise ServingError(url, 200, self._too_large(str(error))) from error
        except UnreadableAnswerError as error:
            raise ServingError(url, 200, str(error)) from error
        if answer.status in TRY_AGAIN:
            raise TryAgainError(ServingError(url, answer.status, message), _wait(answer.headers.get("Retry-After")))
        if explain and (answer.status == 404 or "version label" in message):
            message = self._not_found(message, deadline)
        elif answer.status in (401, 403):
            message += " Pass headers= with what the server wants to see."
        elif 300 <= answer.status < 400:
            place = answer.headers.get("Location", "another address, but does not say which")
            message = f"The server points to {place}; give the address that is meant."
        raise (RequestRefusedError if answer.status == 400 else ServingError)(url, answer.status, message)

    def _request(self, method: str, url: str, body: bytes | None, seconds: float) -> urllib3.BaseHTTPResponse:
        """Send a request over the connections of this process: one that was forked shares those of its parent."""
        if self._process != os.getpid():
            self._pool, self._process = _pool(self.address), os.getpid()
        headers = {"Content-Type": "application/json"} | self.headers
        timeout = urllib3.Timeout(total=seconds)
        return self._pool.request(
            method, url, body=body, headers=headers, timeout=timeout, retries=False, redirect=False,
            preload_content=False,
        )  # fmt: skip

    def _late(self, url: str) -> ServingError:
        return ServingError(url, None, f"No answer within {self.timeout:g} s (timeout=). It may still be working.")

    def _no_answer(self, url: str, error: Exception) -> Exception:
        """The exception to raise if no answer came."""
        errors = urllib3.exceptions
        if isinstance(error, errors.ReadTimeoutError) or any(isinstance(one, TimeoutError) for one in error.args):
            return self._late(url)
        if any(isinstance(one, (errors.InvalidChunkLength, errors.InvalidHeader)) for one in (error, *error.args)):
            return ServingError(url, None, f"The answer is garbled: {error}")
        if isinstance(error, errors.NameResolutionError):
            return ServingError(url, None, "There is no such host.")
        if isinstance(error, errors.SSLError):
            return ServingError(url, None, f"No secure connection: {error}")
        if isinstance(error, errors.NewConnectionError):
            return TryAgainError(
                ServingError(url, None, "Connection refused: is the server running, and on this port?")
            )
        if isinstance(error, errors.ConnectTimeoutError):
            return ServingError(url, None, f"No connection within {self.timeout:g} s (timeout=).")
        if isinstance(error, errors.ProtocolError) and "RemoteDisconnected" not in repr(error):
            if "BadStatusLine" in repr(error) or "UnknownProtocol" in repr(error):
                return ServingError(
                    url, None, "The server does not speak HTTP/1.1. The port of gRPC is usually 8500 and its address "
                    f"grpc://{self.address.server}/{self.address.name}; that of REST is 8501."
                )  # fmt: skip
        # The connection broke, or was closed while idle. A prediction has no side effects, so it can be sent again.
        return TryAgainError(ServingError(url, None, f"The connection broke: {error}"))


def _pool(address: Address) -> urllib3.PoolManager:
    """A pool of connections, through the proxy of the environment if there is one for the host."""
    proxy = getproxies().get(address.scheme)
    if proxy and not proxy_bypass(address.server):
        return bounded(urllib3.ProxyManager(proxy, maxsize=CONNECTIONS))
    return bounded(urllib3.PoolManager(maxsize=CONNECTIONS))


def _message(answer: urllib3.BaseHTTPResponse) -> str:
    """A server's words about an error; TensorFlow Serving escapes in ways that are not always JSON."""
    try:
        text = read_body(answer, LONGEST_MESSAGE).decode("utf-8", "replace").strip()
        answer = json.loads(text)
    except UnreadableAnswerError as error:
        return str(error)
    except (ValueError, RecursionError):
        return text[:1000] or "No message."
    return str(answer.get("error", text)) if isinstance(answer, dict) else text


def _wait(value: str | None) -> float | None:
    """Seconds from the header ``Retry-After``, which holds seconds or a date."""
    if not value:
        return None
    if re.fullmatch(r"[0-9]+", value.strip()):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # RFC 9110 has dates in GMT only.
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def _tensors(found: Mapping[str, Any]) -> dict[str, TensorInfo]:
    infos = {}
    for name, one in found.items():
        shape = one.get("tensor_shape", {})
        sizes = [int(dimension["size"]) for dimension in shape.get("dim", [])]
        infos[name] = TensorInfo.of(one["dtype"], sizes, shape.get("unknown_rank", False))
    return infos


def _array(values: Any, info: TensorInfo) -> np.ndarray:
    """An array of the promised dtype, from nested lists.

    Raises:
        ValueError, TypeError, OverflowError: if they hold something else.
    """
    if info.dtype == "string":
        array = np.array(values, object)
        if wrong := [one for one in array.flat if not isinstance(one, str)]:
            raise TypeError(f"a text should be there, but {wrong[0]!r:.80} is")
        return array
    dtype, given = np.dtype(info.dtype), np.array(values)
    if given.size and given.dtype.kind not in NUMBERS.get(dtype.kind, ""):
        raise TypeError(f"{dtype.name} should be there, but {values!r:.80} is")
    return np.array(values, dtype)
