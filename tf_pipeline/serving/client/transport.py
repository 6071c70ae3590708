"""The shared part of REST and gRPC: addresses, signatures, errors, and rules for sending a request again."""

import itertools
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

Answer = TypeVar("Answer")

# Seconds that a server may ask to wait before a request is sent again; if it asks for more, the request fails.
LONGEST_WAIT = 60.0
# Range of a time-out, in seconds: a millisecond to a day.
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 1e-3, 86_400.0

REST_PATH = re.compile(
    r"(?P<prefix>.*)/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
)
GRPC_PATH = re.compile(r"/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?")
FORMS = {
    "http": "http://host:8501/v1/models/name",
    "https": "https://host:8501/v1/models/name",
    "grpc": "grpc://host:8500/name",
    "grpcs": "grpcs://host:8500/name",
}

# TensorFlow's names of the dtypes that exports have, and NumPy's.
DTYPES = {
    "DT_STRING": "string",
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
    "DT_HALF": "float16",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_BOOL": "bool",
}


# ------------------------------------------------------------------------------------------------------- errors


class ServingError(OSError):
    """A server that cannot be reached, or that does not do its task.

    Attributes:
        url: the address of the request.
        status: the HTTP status, or the name of the gRPC code; ``None`` if there was no answer.
        message: the failure.
    """

    def __init__(self, url: str, status: int | str | None, message: str):
        what = f"HTTP {status}: " if isinstance(status, int) else f"{status}: " if status else ""
        super().__init__(f"{url}: {what}{message}")
        self.url = url
        self.status = status
        self.message = message

    def __reduce__(self):
        return type(self), (self.url, self.status, self.message)


class RequestRefusedError(ServingError, ValueError):
    """The server found the request itself wrong (HTTP 400, ``INVALID_ARGUMENT``): sending it again will not help."""


class Deadline:
    """A point in time by which a request has to be answered.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; less than 0 if it has passed."""
        return self._end - time.monotonic()


class TryAgainError(Exception):
    """A failure that may pass: the exception to raise if it does not, and the seconds that the server asks to wait."""

    def __init__(self, error: ServingError, wait: float | None = None):
        super().__init__(str(error))
        self.error = error
        self.wait = wait


@dataclass(frozen=True)
class Retries:
    """Number of times that a request is sent again, and the waits between them.

    Attributes:
        retries: maximum number of repetitions, besides the first request.
        backoff: seconds before the first repetition; they double with each. Of these a random part, half at least, is
            waited, so that clients that failed together do not return together.
    """

    retries: int
    backoff: float

    def run(self, send: Callable[[], Answer], deadline: Deadline) -> Answer:
        """Send until there is an answer, or an error other than :class:`TryAgainError`, or no repetition or time left.

        Raises:
            ServingError: the last one.
        """
        for attempt in itertools.count():
            try:
                return send()
            except TryAgainError as again:
                wait = max(again.wait or 0.0, self.backoff * 2**attempt * random.uniform(0.5, 1.0))
                last = attempt >= self.retries or (again.wait or 0.0) > LONGEST_WAIT
                if last or wait >= deadline.left:
                    raise self._given_up(again, attempt + 1, None if last else deadline) from again.__cause__
                time.sleep(wait)

    @staticmethod
    def _given_up(again: TryAgainError, attempts: int, deadline: Deadline | None) -> ServingError:
        error = again.error
        notes = [f"tried {attempts} times"] if attempts > 1 else []
        if again.wait is not None:
            notes.append(f"the server asks to wait {again.wait:g} s")
        if deadline is not None:
            notes.append(f"of {deadline.seconds:g} s (timeout=) none are left to try again")
        noted = f"{error.message} ({', '.join(notes)})" if notes else error.message
        return type(error)(error.url, error.status, noted)


# ---------------------------------------------------------------------------------------------------- addresses


@dataclass(frozen=True)
class Address:
    """Address of a served model.

    Attributes:
        url: as it was given.
        scheme: ``http``, ``https``, ``grpc`` or ``grpcs``.
        server: host and port.
        name: of the model.
        version: number of the version, if one was asked for.
        label: label of the version, if one was asked for.
        prefix: the path before ``/v1``, if a gateway is in front of the server.
    """

    url: str
    scheme: str
    server: str
    name: str
    version: int | None = None
    label: str | None = None
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Take an address apart.

        Raises:
            ValueError: if it has another form.
        """
        parts = urlsplit(url)
        if parts.scheme not in FORMS:
            raise ValueError(f"{url!r} is not the address of a model; one looks like {' or '.join(FORMS.values())}.")
        pattern = REST_PATH if parts.scheme.startswith("http") else GRPC_PATH
        match = pattern.fullmatch(parts.path.rstrip("/"))
        if parts.username is not None:
            raise ValueError("The address of a model holds a user or password: pass headers= instead.")
        complete = parts.hostname and (parts.port or parts.scheme.startswith("http"))
        if match is None or not complete or parts.query or parts.fragment:
            raise ValueError(
                f"{url!r} is not the address of a model; with {parts.scheme} it looks like {FORMS[parts.scheme]}, and "
                "may end in /versions/3 or /labels/stable."
            )
        groups = match.groupdict()
        version = None if groups["version"] is None else int(groups["version"])
        prefix = groups.get("prefix") or ""
        return cls(url, parts.scheme, parts.netloc, groups["name"], version, groups["label"], prefix)

    @property
    def model_url(self) -> str:
        """The model's URL, whatever its version."""
        return f"{self.scheme}://{self.server}{self.prefix}/v1/models/{self.name}"

    @property
    def version_url(self) -> str:
        """The URL of the version or label that was asked for."""
        part = (
            f"/versions/{self.version}" if self.version is not None else f"/labels/{self.label}" if self.label else ""
        )
        return self.model_url + part


# --------------------------------------------------------------------------------------------------- signatures


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature: its dtype and its shape, where ``None`` is any length or any rank."""

    dtype: str
    shape: tuple[int | None, ...] | None

    @classmethod
    def of(cls, dtype: str, sizes: Iterable[int], unknown_rank: bool) -> "TensorInfo":
        """From TensorFlow's name of the dtype and the sizes of dimensions; -1 is any size."""
        shape = None if unknown_rank else tuple(None if size < 0 else size for size in sizes)
        return cls(DTYPES.get(dtype, dtype), shape)

    def describes(self, array: np.ndarray) -> bool:
        """Whether an array has this dtype and shape. JSON does not tell the shape of an empty array."""
        named = self.dtype not in DTYPES.values() or array.dtype == (object if self.dtype == "string" else self.dtype)
        if self.shape is None or not array.size:
            return named
        sizes = zip(self.shape, array.shape, strict=False)
        return named and len(self.shape) == array.ndim and all(size in (None, other) for size, other in sizes)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any rank"
        return f"{self.dtype} [{', '.join('-1' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a served function, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


class Transport:
    """A way to a server: subclasses speak REST or gRPC. Safe for several threads.

    Args:
        address: of the model.
        timeout: seconds for a request with all its repetitions.
        retries: the number of repetitions, and the waits between them.
        headers: sent with every request.
        max_answer_bytes: how large an answer may be, decompressed.
    """

    def __init__(
        self, address: Address, timeout: float, retries: Retries, headers: Mapping[str, str], max_answer_bytes: int
    ):
        self.address = address
        self.timeout = timeout
        self.retries = retries
        self.headers = dict(headers)
        self.max_answer_bytes = max_answer_bytes

    def predict(self, name: str, signature: Signature, columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Run a signature; outputs are numbers, or strings as an array of objects.

        Args:
            name: of the signature.
            signature: its inputs and outputs.
            columns: for each input a list with a value for each row.
        """
        raise NotImplementedError

    def signatures(self) -> dict[str, Signature]:
        """The model's signatures by name."""
        raise NotImplementedError

    def status(self, deadline: Deadline | None = None) -> list[dict[str, Any]]:
        """The model's versions, each with ``version``, ``state``, ``error_code`` and ``error_message``.

        Args:
            deadline: that of the request on whose behalf this is asked; by default ``timeout`` from now.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError

    def _too_large(self, message: str) -> str:
        return (
            f"{message} Send fewer rows at a time (max_batch_size=), or allow larger answers (max_answer_bytes="
            f"{self.max_answer_bytes})."
        )

    def _not_found(self, message: str, deadline: Deadline) -> str:
        """A server's message that there is no such model, with those that there are."""
        try:
            versions = ", ".join(f"{one['version']} ({one['state']})" for one in self.status(deadline))
        except ServingError:
            versions = ""
        if not versions:
            return (
                f"{message} The server has no model {self.address.name!r}: compare with its --model_name or its "
                "model_config_file (the name is not the folder's)."
            )
        return f"{message} The server has these versions of {self.address.name!r}: {versions}."


def with_texts(values: np.ndarray) -> np.ndarray:
    """Strings decoded from UTF-8; numbers as they are."""
    if values.dtype != object:
        return values
    texts = np.empty(values.size, object)
    texts[:] = [value.decode("utf-8") for value in values.ravel()]
    return texts.reshape(values.shape)
