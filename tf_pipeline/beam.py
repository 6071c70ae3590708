"""Pipelines on Apache Beam: its ``ModelHandler``, and a job that answers files of rows in chunks.

A chunk is a few thousand rows of the input. Its answers, and the rows that failed, are a file each, which appear whole;
a marker follows when both are there. So a job that was killed, or a bundle that a runner tries again, loses no row and
writes none twice: chunks with a marker are not computed again, others take the place of what there was.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from tf_pipeline.cli.row_files import encoded
from tf_pipeline.cli.row_formats import CHUNK_ROWS, FORMATS, Chunk, Row, Stored, format_of
from tf_pipeline.files import atomic_file

PLAN, SUCCESS, DONE = "_plan.json", "_SUCCESS", "done"


class PipelineModelHandler(ModelHandler):
    """Beam's handler of a pipeline of this package: inputs of the pipeline in, answers out.

    An input that cannot be answered gives the exception in place of its answer. Within a batch, texts are sorted by
    length and cut into batches of like length, as the pipeline does with any list.

    Args:
        task: name of the task.
        model: folder, hub id or address of a served model; the task's default if not given.
        min_batch_size: minimum number of inputs that Beam hands over at once.
        max_batch_size: maximum of that.
        parameters: arguments of :func:`tf_pipeline.pipeline`.
        **options: of Beam's ``ModelHandler``.
    """

    def __init__(
        self,
        task: str,
        model: str | None = None,
        *,
        min_batch_size: int = 64,
        max_batch_size: int = 1024,
        parameters: dict[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(min_batch_size=min_batch_size, max_batch_size=max_batch_size, **options)
        self.task, self.model, self.parameters = task, model, parameters or {}

    def load_model(self) -> Any:
        """The pipeline, made once in each process."""
        from tf_pipeline.pipelines import pipeline

        return pipeline(self.task, model=self.model, **self.parameters)

    def run_inference(
        self, batch: Sequence[Any], model: Any, inference_args: dict[str, Any] | None = None
    ) -> list[Any]:
        """The answers to a batch, in its order."""
        return list(model.stream(list(batch), **(inference_args or {})))


class _ChunkHandler(PipelineModelHandler):
    """Answers whole chunks: ``(chunk, rows)`` to ``(chunk, rows, answers)``, of rows that are inputs."""

    def run_inference(self, batch, model, inference_args=None):
        """Answer each chunk."""
        for chunk, rows in batch:
            inputs = [row.input for row in rows if row.error is None]
            yield chunk, rows, super().run_inference(inputs, model)


class Job(NamedTuple):
    """A job.

    Attributes:
        task: name of the task.
        model: see :class:`PipelineModelHandler`.
        source: pattern of the files of rows.
        folder: folder of the answers.
        as_input: makes an input of the pipeline from a row's value, or raises a ``ValueError``.
        parameters: arguments of the pipeline.
        asked: everything that decides the answers.
        input_format: name of a format, or ``None`` to tell it from the names of the files.
        output_format: name of a format, or ``None`` for the input's.
        chunk_rows: number of rows in a chunk.
        overwrite: whether an earlier job's output is replaced.
    """

    task: str
    model: str | None
    source: str
    folder: str
    as_input: Callable[[Any], Any]
    parameters: dict[str, Any]
    asked: dict[str, Any]
    input_format: str | None = None
    output_format: str | None = None
    chunk_rows: int = CHUNK_ROWS
    overwrite: bool = False


def run_job(job: Job, beam_options: Sequence[str] = ()) -> dict[str, int]:
    """Answer every row, or go on with a job of the same output that did not finish.

    Args:
        job: the job.
        beam_options: options of Beam's runner, such as ``"--runner=FlinkRunner"``.

    Returns:
        The numbers of ``rows``, of those ``answered`` and of those that ``failed``.

    Raises:
        ValueError: if there is no input, or the output holds something else.
        RuntimeError: if rows are missing in the end.
    """
    files = _files(job.source)
    read = FORMATS[job.input_format or format_of(files[0].path)]
    written = FORMATS[job.output_format or read.output]
    _claim(
        job, {"format": written.name, "chunk_rows": job.chunk_rows, "files": [[f.path, f.size_in_bytes] for f in files]}
    )
    chunks = list(_chunks(read, [file.path for file in files], job.chunk_rows))
    pending = [chunk for chunk in chunks if not FileSystems.exists(_marker(job.folder, chunk.index))]
    if pending:
        handler = _ChunkHandler(job.task, job.model, min_batch_size=1, max_batch_size=1, parameters=job.parameters)
        with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
            _ = (
                pipeline
                | "Chunks" >> beam.Create(pending)
                | "SpreadOut" >> beam.Reshuffle()
                | "Read" >> beam.Map(_rows_of, read.name, job.as_input)
                | "Answer" >> RunInference(handler)
                | "Write" >> beam.Map(_write, written.name, job.folder)
            )
    return _finish(job.folder, chunks)


def _files(pattern: str) -> list[Any]:
    """The files that a pattern stands for, in the order of their names."""
    (result,) = FileSystems.match([pattern])
    files = sorted(result.metadata_list, key=lambda file: file.path)
    if not files:
        raise ValueError(f"No file is named {pattern}.")
    return files


def opened(path: str) -> Any:
    """A file opened to read its bytes, not decompressed, on any file system that Beam knows."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def _chunks(read: Any, paths: Iterable[str], size: int) -> Iterator[Chunk]:
    index, first = 0, 1
    for path in paths:
        with opened(path) as file:
            for begin, count in read.places(file, size):
                yield Chunk(index, path, begin, count, first)
                index, first = index + 1, first + count


def _rows_of(chunk: Chunk, name: str, as_input: Callable[[Any], Any]) -> tuple[Chunk, list[Row]]:
    with opened(chunk.path) as file:
        values = list(FORMATS[name].read(file, chunk.begin, chunk.count))
    return chunk, [_row(chunk.first + place, value, as_input) for place, value in enumerate(values)]


def _row(number: int, stored: Stored, as_input: Callable[[Any], Any]) -> Row:
    """A row of a file; one that is no input carries the reason."""
    try:
        value = stored.value()
        return Row(number, value, as_input(value), None)
    except ValueError as error:
        return Row(number, stored.shown(), None, str(error))


def _write(element: tuple[Chunk, list[Row], list[Any]], name: str, folder: str) -> None:
    """Write the files of a chunk, its marker last."""
    chunk, rows, answers = element
    results, failed, pending = [], [], iter(answers)
    for row in rows:
        answer = ValueError(row.error) if row.error is not None else next(pending)
        try:
            if isinstance(answer, Exception):
                raise answer
            results.append({"row": row.number, "result": encoded(answer).decode()})
        except Exception as error:
            failed.append({"row": row.number, "error": str(error) or type(error).__name__, "input": row.value})
    ending = FORMATS[name].ending
    _put(f"{folder}/answers/part-{chunk.index:05d}{ending}", FORMATS[name].encode(results))
    _put(f"{folder}/errors/part-{chunk.index:05d}.jsonl", b"".join(map(_failure, failed)))
    counts = {"answered": len(results), "failed": len(failed)}
    _put(_marker(folder, chunk.index), json.dumps(counts).encode())


def _failure(record: dict[str, Any]) -> bytes:
    """A line of the errors; an input that JSON cannot hold is written as text."""
    try:
        return encoded(record) + b"\n"
    except (ValueError, TypeError, RecursionError):
        return encoded(record | {"input": str(record["input"])}) + b"\n"


def _marker(folder: str, index: int) -> str:
    return f"{folder}/{DONE}/{index:05d}.json"


def _put(path: str, content: bytes) -> None:
    """Write a file, which appears whole, in place of one that is there."""
    if FileSystems.get_scheme(path) is None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
        return
    head, tail = FileSystems.split(path)
    temporary = FileSystems.join(head, f".{tail}.{uuid.uuid4().hex}")
    with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)
    FileSystems.rename([temporary], [path])


def _claim(job: Job, more: dict[str, Any]) -> None:
    """Take the folder of the output, if it is empty or holds the same job unfinished.

    Raises:
        ValueError: if it holds something else.
    """
    asked = json.loads(json.dumps(job.asked | more, default=str))
    plan, folder = f"{job.folder}/{PLAN}", job.folder
    if job.overwrite and FileSystems.exists(plan):
        FileSystems.delete([folder])
    if FileSystems.exists(plan):
        with opened(plan) as file:
            earlier = json.loads(file.read())
        if changed := sorted(key for key in asked if asked[key] != earlier.get(key)):
            raise ValueError(
                f"{folder} holds a job of other {', '.join(changed)}; --overwrite replaces it, or take another folder."
            )
        if FileSystems.exists(f"{folder}/{SUCCESS}"):
            raise ValueError(f"{folder} holds the answers already; --overwrite replaces them.")
        return
    if any(result.metadata_list for result in FileSystems.match([f"{folder}/*"])):
        raise ValueError(f"{folder} holds files of something else; take another folder.")
    _put(plan, json.dumps(asked, indent=2).encode())


def _finish(folder: str, chunks: Sequence[Chunk]) -> dict[str, int]:
    """Count the rows, and mark the output as complete."""
    counts = {"rows": sum(chunk.count for chunk in chunks), "answered": 0, "failed": 0}
    for chunk in chunks:
        with opened(_marker(folder, chunk.index)) as file:
            for key, count in json.loads(file.read()).items():
                counts[key] += count
    if counts["rows"] != counts["answered"] + counts["failed"]:
        raise RuntimeError(f"{counts['rows']} rows went in, but {counts['answered']} answers and {counts['failed']} "
                           "failures came out; was the input changed meanwhile?")  # fmt: skip
    _put(f"{folder}/{SUCCESS}", json.dumps(counts).encode())
    return counts
