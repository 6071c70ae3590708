"""A client of TensorFlow Serving that is called, and answers, as the local pipeline of its task."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline.arguments import real_number, whole_number
from tf_pipeline.pipelines.tasks import task_name
from tf_pipeline.serving.client.answers import DEFAULT_SIGNATURE, REMOTE_TASKS, RemoteTask
from tf_pipeline.serving.client.transport import (
    LONGEST_TIMEOUT,
    SHORTEST_TIMEOUT,
    Address,
    Retries,
    ServingError,
    Signature,
    TensorInfo,
    Transport,
)


class Client:
    """An exported model on a server.

    Called with the arguments of the task's local pipeline, it returns the same dictionaries, nested alike:

        with Client("http://localhost:8501/v1/models/sentiment") as client:
            client("A lovely film.")                    # [{'label': 'POSITIVE', 'score': 0.99…}]
            client(["Good.", "Bad."], top_k=None)       # a sorted list of all labels for each text
            for answer in client(lines_of_a_file):      # a generator is answered as a stream
                ...
        with Client("http://localhost:8501/v1/models/writer") as client:
            for piece in client.stream_text("Once upon a time"):
                print(piece, end="", flush=True)

    Options that were fixed at export (``function_to_apply``, ``aggregation_strategy``, ``truncation``, …) cannot be
    changed in a call and are refused. ``top_k`` may be less than that of the export, and more only where the export
    gives all labels. Tasks that write take ``max_new_tokens``, up to that of the export, and if it draws tokens
    ``temperature``, ``top_k``, ``top_p`` and ``seed``.

    A client may be used by several threads at once. Nothing is sent before it is first used. REST needs neither
    TensorFlow nor PyTorch; gRPC needs tensorflow-serving-api: ``pip install "tf-pipeline[serving]"``. Certificates of
    one's own are named by the environment, as usual: ``SSL_CERT_FILE`` for https, ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH``
    for grpcs; proxies too: ``http_proxy``, ``https_proxy``, ``no_proxy``.

    Args:
        url: ``http(s)://host:8501/v1/models/name`` for REST, ``grpc://host:8500/name`` for gRPC, or ``grpcs://…`` for
            gRPC with TLS; ``/versions/3`` or ``/labels/stable`` may follow. Without either the server takes the latest
            version.
        task: such as ``"text-classification"``; if not given, that of the model's signature. One that the model does
            not do is refused.
        signature: name of the signature to use; the task's own if not given (``serving_default``; ``pairs`` for pairs;
            ``all_masks`` for fill-mask, if it is there).
        timeout: seconds that a request may take, from the connection to the last byte of the answer, with all its
            repetitions and the waits between them; at most a day. Only the look-up of the host's name has a time-out of
            its own, the system's.
        retries: maximum number of times that a request is sent again if the server is busy or not there: HTTP 429 and
            503, UNAVAILABLE, RESOURCE_EXHAUSTED, a connection that is refused or breaks.
        backoff: seconds before the first repetition, doubled for each further one; at random half to all of it. The
            server's ``Retry-After`` counts if it is longer; one of more than a minute, or than is left of ``timeout``,
            is an error.
        headers: sent with every request: HTTP headers, or gRPC metadata.
        max_batch_size: maximum number of rows in a request; more are sent as several, one after another. Not more than
            the server allows (``max_batch_size`` of its batching parameters).
        max_answer_bytes: how large an answer may be, decompressed; a larger one is an error, and not read to its end.
        **parameters: defaults for the arguments of a call, such as ``top_k``.

    Raises:
        ValueError: for an invalid address, an unknown task, or a number out of range.
        ImportError: for gRPC without tensorflow-serving-api.
    """

    def __init__(
        self,
        url: str,
        *,
        task: str | None = None,
        signature: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        headers: Mapping[str, str] | None = None,
        max_batch_size: int = 32,
        max_answer_bytes: int = 2**28,
        **parameters: Any,
    ):
        real_number("timeout", timeout, SHORTEST_TIMEOUT, LONGEST_TIMEOUT)
        whole_number("retries", retries, 0)
        real_number("backoff", backoff, 0, LONGEST_TIMEOUT)
        whole_number("max_batch_size", max_batch_size, 1)
        whole_number("max_answer_bytes", max_answer_bytes, 1, 2**31 - 1)
        self.url = url
        self.signature = signature
        self.max_batch_size = max_batch_size
        self._task = None if task is None else _remote_task(task)
        self._parameters = parameters
        self._transport = _transport(
            Address.parse(url), timeout, Retries(retries, backoff), headers or {}, max_answer_bytes
        )
        self._lock = threading.Lock()
        self._signatures: dict[str, Signature] | None = None
        self._served: RemoteTask | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the server.

        Args:
            *args: inputs as the local pipeline of the task takes them: one, a list, or a generator or dataset.
            **kwargs: as the local pipeline takes them, but for those fixed at export; ``batch_size`` is the maximum
                rows in a request.

        Returns:
            As the local pipeline: the answer to one input, a list for a list, an iterator for anything else.

        Raises:
            ValueError: for an input or argument that the task or the export does not take; nothing was sent then.
            RequestRefusedError: if the server finds the request wrong.
            ServingError: if the server cannot be reached, or fails.
        """
        return self.check()(*args, **kwargs)

    def stream(self, inputs: Iterable[Any], batch_size: int | None = None, **parameters: Any) -> Iterator[Any]:
        """Answers in the order of the inputs; one that is wrong gives its exception instead.

        Args:
            inputs: an iterable.
            batch_size: maximum number of rows in a request; with 1, each input of a generator is answered before the
                next is read.
            **parameters: as in a call.

        Raises:
            ServingError: if the server cannot be reached, or fails for another reason than a single input.
        """
        return self.check().stream(inputs, batch_size, **parameters)

    def stream_text(self, inputs: str, *, step_tokens: int | None = None, **parameters: Any) -> Iterator[str]:
        """Pieces of a text while the server writes it; together they are what one call writes behind the text.

        Each piece is a request, which reads text and pieces so far and writes ``step_tokens`` further tokens. Whatever
        a later token can change, such as half a character, waits for it.

        Args:
            inputs: a text.
            step_tokens: number of new tokens in a request; few come soon, and many cost less. By default 16.
            **parameters: as in a call: ``max_new_tokens``, ``temperature``, ``top_k``, ``top_p``, ``seed``.

        Raises:
            ValueError: if the model's task does not write, or the export has no signature ``step``.
            ServingError: if the server cannot be reached, or fails, while pieces are asked for.
        """
        served = self.check()
        if not hasattr(served, "stream_text"):
            raise ValueError(f"{served.task} writes no texts; stream() answers any number of inputs.")
        return served.stream_text(inputs, step_tokens, **parameters)

    @property
    def task(self) -> str:
        """The task, asked of the server if it was not given."""
        return self._task or self.check().task

    def check(self) -> RemoteTask:
        """Ask the server what the model does, once, and require that it is the task.

        Returns:
            The task, which takes calls.

        Raises:
            ValueError: if the model does not do the task, or lacks the signature.
        """
        if self._served is None:
            signatures = self.signatures()
            served = REMOTE_TASKS[self._fitting_task(signatures)]
            self._served = served(self.predict, signatures, self.signature, self.max_batch_size, **self._parameters)
        return self._served

    def signatures(self) -> dict[str, Signature]:
        """The model's signatures by name, with their inputs and outputs; asked of the server once."""
        with self._lock:
            if self._signatures is None:
                self._signatures = self._transport.signatures()
            return self._signatures

    def status(self) -> list[dict[str, Any]]:
        """The model's versions: ``version``, ``state`` (such as ``"AVAILABLE"``), ``error_code``, ``error_message``."""
        return self._transport.status()

    def predict(self, signature: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Run a signature as it is, such as ``tokens``.

        Args:
            signature: its name.
            columns: for each input a list with a value for each row.

        Returns:
            The outputs by name, with as many rows as were sent; strings as an array of objects.

        Raises:
            ValueError: for other inputs than the signature's, and rows of different lengths.
            ServingError: if the answer does not have the outputs of the signature, or another number of rows.
        """
        info = self._known(signature, self.signatures())
        if set(columns) != set(info.inputs):
            takes, has = (", ".join(sorted(names)) for names in (info.inputs, columns))
            raise ValueError(f"Signature {signature} takes {takes}; the input has {has}.")
        counts = {name: len(values) for name, values in columns.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"The inputs have different numbers of rows: {counts}.")
        for name, values in columns.items():
            if len({len(row) for row in values if isinstance(row, (list, tuple, np.ndarray))}) > 1:
                raise ValueError(f"The rows of {name} have different lengths: pad them.")
        rows = next(iter(counts.values()))
        outputs = self._transport.predict(signature, info, columns)
        if missing := sorted(set(info.outputs) - set(outputs)):
            raise ServingError(self.url, None, f"The answer of {signature} lacks {', '.join(missing)}.")
        for name, array in outputs.items():
            if wrong := _contradiction(name, array, rows, info.outputs.get(name)):
                raise ServingError(self.url, None, wrong)
        return outputs

    def close(self) -> None:
        """Close the connections; with REST, the next use opens new ones."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        task = self._task or (self._served and self._served.task)
        facts = {"url": self.url, "task": task, "signature": self.signature, "max_batch_size": self.max_batch_size}
        shown = ", ".join(
            f"{name}={value!r}" for name, value in (facts | self._parameters).items() if value is not None
        )
        return f"Client({shown})"

    def _known(self, name: str, signatures: Mapping[str, Signature]) -> Signature:
        if name not in signatures:
            raise ValueError(f"{self.url} has no signature {name!r}; it has {', '.join(sorted(signatures))}.")
        return signatures[name]

    def _fitting_task(self, signatures: Mapping[str, Signature]) -> str:
        """The task that the signature does, which has to be the one that was asked for."""
        name = self.signature or DEFAULT_SIGNATURE
        signature = self._known(name, signatures)
        found = [task for task, served in REMOTE_TASKS.items() if served.fits(signature)]
        if self._task is None and len(found) > 1:
            raise ValueError(f"{self.url} may be a model for {' or for '.join(found)}: pass task=.")
        if (self._task or (found and found[0])) in found:
            return self._task or found[0]
        takes, gives = (", ".join(sorted(side)) for side in (signature.inputs, signature.outputs))
        does = f"does {found[0]}" if found else "is none of a task on texts"
        hint = "" if found else " Export the model with its tokenizer, or use predict() of the client."
        raise ValueError(
            f"{self.url} is not a model for {self._task or 'a known task'}: its signature {name} (from {takes} to "
            f"{gives}) {does}.{hint}"
        )


def _contradiction(name: str, array: np.ndarray, rows: int, info: TensorInfo | None) -> str | None:
    """Describe the first thing wrong with an output, if anything is."""
    if array.ndim == 0 or len(array) != rows:
        return f"{rows} rows were sent, but {name} came back with the shape {array.shape}."
    if info is not None and not info.describes(array):
        return f"{name} came back as {array.dtype.name} {list(array.shape)}, but the signature promises {info}."
    return None


def _remote_task(task: str) -> str:
    if (name := task_name(task)) not in REMOTE_TASKS:
        raise ValueError(f"{task} does not run on a server; these do: {', '.join(sorted(REMOTE_TASKS))}.")
    return name


def _transport(address: Address, *options: Any) -> Transport:
    if address.scheme.startswith("grpc"):
        from tf_pipeline.serving.client.grpc_api import GrpcTransport

        return GrpcTransport(address, *options)
    from tf_pipeline.serving.client.rest import RestTransport

    return RestTransport(address, *options)
