"""``tf-pipeline batch``: a pipeline on every row of files, on many machines, by Apache Beam."""

import json
from typing import Annotated, Any

import typer

from tf_pipeline.cli.options import known_task
from tf_pipeline.cli.row_formats import CHUNK_ROWS, FORMATS
from tf_pipeline.cli.run import SOME_ROWS_FAILED, Rows, fail, with_defaults, with_languages
from tf_pipeline.hub import fingerprint
from tf_pipeline.pipelines.factory import check_arguments, default_checkpoint
from tf_pipeline.pipelines.tasks import is_server, task_name
from tf_pipeline.terminal import Verbose, load_frameworks


def _json(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise typer.BadParameter(f"--parameters is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise typer.BadParameter('--parameters is a JSON object, such as {"top_k": 2}.')
    return value


def _format(name: str | None) -> str | None:
    if name is not None and name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is no format; there are {', '.join(FORMATS)}.")
    return name


def batch(
    task: Annotated[str, typer.Argument(callback=known_task, help="The task, as for run.")],
    source: Annotated[str, typer.Argument(metavar="IN", help="File of rows, or a pattern of files.")],
    folder: Annotated[str, typer.Argument(metavar="OUT", help="Folder for the answers.")],
    beam_options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- BEAM OPTIONS]", help="Options of Beam and its runner, behind two dashes."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder, hub id or address of a served model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float64, bfloat16, float16 or a Keras policy.")] = None,
    parameters: Annotated[str | None, typer.Option(help="Arguments of the pipeline as a JSON object.")] = None,
    input_format: Annotated[
        str | None, typer.Option("--format", callback=_format, help="text, jsonl, parquet or tfrecord.")
    ] = None,
    output_format: Annotated[
        str | None, typer.Option("--output-format", callback=_format, help="jsonl, parquet or tfrecord.")
    ] = None,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows that are computed and written together.")] = CHUNK_ROWS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier job's answers.")] = False,
    verbose: Verbose = False,
) -> None:
    """Answer every row of files on Apache Beam (pip install "tf-pipeline[beam]").

    OUT/answers gets the answers, OUT/errors the rows that failed, each with its number; together they are as many as
    the rows of IN. The same command goes on with a job that was interrupted or killed, and loses or repeats no row.

    tf-pipeline batch text-classification reviews.jsonl ./answers

    tf-pipeline batch text-classification "rows/*.parquet" ./answers -- --direct_running_mode=multi_processing
    --direct_num_workers=4

    The exit status is 0 if all was answered, 1 if nothing could run, 2 for wrong usage, and 3 if some rows failed.
    """
    name = task_name(task)
    arguments = _json(parameters) | ({"dtype": dtype} if dtype else {})
    with_defaults(name, arguments, is_server(model))
    asked = {"task": with_languages(task), "model": model, "parameters": dict(arguments)}
    rows = Rows(name, arguments)
    for one in rows.known:
        del arguments[one]
    try:
        if not is_server(model):
            asked["files of the model"] = fingerprint(model or default_checkpoint(name))
        load_frameworks(verbose)
        from tf_pipeline.beam import Job, run_job

        if not is_server(model):
            check_arguments(task, arguments)
        job = Job(
            task, model, source, folder.rstrip("/"), rows.of_value, arguments, asked, input_format, output_format,
            chunk_rows, overwrite,
        )  # fmt: skip
        counts = run_job(job, beam_options or ())
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if isinstance(error, ImportError) and "apache_beam" in str(error):
            error = 'tf-pipeline batch needs Apache Beam: pip install "tf-pipeline[beam]".'
        fail(error, 1)
    print(f"{counts['rows']} rows: {counts['answered']} answered, {counts['failed']} failed.")
    raise typer.Exit(SOME_ROWS_FAILED if counts["failed"] else 0)
