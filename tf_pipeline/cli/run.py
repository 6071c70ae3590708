"""``tf-pipeline run``: a pipeline on a few texts, or on every row of a file."""

import json
import os
import pkgutil
import signal
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tf_pipeline import models
from tf_pipeline.arguments import ArgumentError
from tf_pipeline.cli.options import (
    AggregationStrategy,
    AlignToWords,
    ChunkLength,
    DocStride,
    DoSample,
    Function,
    HandleImpossibleAnswer,
    HypothesisTemplate,
    IgnoreLabels,
    MaxAnswerLen,
    MaxNewTokens,
    MaxSeqLen,
    MultiLabel,
    Normalize,
    NumBeams,
    NumReturnSequences,
    Pool,
    ReturnFullText,
    ReturnTimestamps,
    Seed,
    Sequential,
    SrcLang,
    Stride,
    StrideLength,
    Targets,
    Temperature,
    TgtLang,
    TopK,
    TopP,
    as_options,
    known_task,
    options_with,
    parameters_of,
    writing,
)
from tf_pipeline.cli.row_files import ReaderGoneError, Records
from tf_pipeline.cli.rows import answer_rows, escaped, numbered_lines, standard, text_of
from tf_pipeline.hub import fingerprint, repository_file
from tf_pipeline.pipelines.calls import as_chat
from tf_pipeline.pipelines.factory import default_checkpoint, pipeline
from tf_pipeline.pipelines.tasks import MEDIA, is_server, task_name
from tf_pipeline.terminal import Verbose, load_frameworks, table_console

# Exit status when every other row was answered but some were not.
SOME_ROWS_FAILED = 3

OPTIONS = options_with(
    text_classification=("truncation",),
    feature_extraction=("truncation",),
    fill_mask=("truncation",),
    token_classification=("is_split_into_words",),
    question_answering=("question", "context"),
    table_question_answering=("truncation", "table"),
    zero_shot_classification=("candidate_labels", "hypothesis_template", "multi_label"),
    zero_shot_image_classification=("candidate_labels", "hypothesis_template"),
    automatic_speech_recognition=("language", "to_english"),
    **writing(
        text_generation=("return_full_text",),
        text2text_generation=("truncation",),
        summarization=("truncation", "stride", "second_pass"),
        translation=("truncation", "src_lang", "tgt_lang"),
    ),
)


def _source(name: str) -> Path:
    """The file of rows that a name or a dash stands for."""
    path = Path("/dev/stdin" if name == "-" else name)
    if not path.exists() or path.is_dir():
        raise typer.BadParameter(f"{name!r} is a folder." if path.is_dir() else f"file {name!r} does not exist.")
    return path


def _table(name: str) -> dict[str, list[str]]:
    """The columns of a file of a table."""
    try:
        import pandas
    except ImportError as error:
        raise typer.BadParameter('tables need pandas: pip install "tf-pipeline[tables]"') from error
    try:
        return pandas.read_csv(name, dtype=str, keep_default_na=False).to_dict("list")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{name!r} is no CSV file that can be read: {error}") from None


def run(
    task: Annotated[
        str,
        typer.Argument(
            callback=known_task,
            help="text-classification (sentiment-analysis), token-classification (ner), question-answering, fill-mask, "
            "zero-shot-classification, feature-extraction, text-generation, summarization, translation "
            "(translation_en_to_fr), text2text-generation, table-question-answering, image-classification, "
            "image-feature-extraction, zero-shot-image-classification, automatic-speech-recognition or "
            "audio-classification.",
        ),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts, or paths of images or sounds; read from standard input, one per line, if there is no "
            "--input (blank lines are no texts; with --json, answers are printed as they come). Without any, "
            "text-generation on a terminal is a chat."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder, hub id, or http://host:8501/v1/models/name or grpc://host:8500/name of a served model; the "
            "task's default if not given."
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float64, bfloat16, float16 or a Keras policy.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="What runs the model: tensorflow, openvino, xla (of tasks that read but do not write), or auto for "
            "OpenVINO where it is installed."
        ),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: weights as eight-bit integers, with --engine openvino; answers are close.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows in a batch.")] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            parser=_source,
            metavar="<file>",
            help="File, pipe or device of rows, one JSON value per line; - for standard input.",
        ),
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", dir_okay=False, help="File of the answers; standard output if not given."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the files of --output if they exist; discard an unfinished run."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run for this --output that was not finished.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value per text rather than a table.")] = False,
    truncation: Annotated[
        bool | None,
        typer.Option(
            help="Cut texts that are longer than the model takes, as by default, or refuse them. "
            "(text-classification, feature-extraction, fill-mask, summarization, translation, text2text-generation, "
            "table-question-answering, which leaves out rows of the table)"
        ),
    ] = None,
    top_k: TopK = None,
    function: Function = None,
    aggregation_strategy: AggregationStrategy = None,
    stride: Stride = None,
    second_pass: Annotated[
        bool | None,
        typer.Option("--second-pass", help="Summarize the summaries of --stride's windows. (summarization)"),
    ] = None,
    ignore_labels: IgnoreLabels = None,
    is_split_into_words: Annotated[
        bool | None, typer.Option("--is-split-into-words", help="Rows hold words. (token-classification)")
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="The question for rows without one. (question-answering)")
    ] = None,
    context: Annotated[str | None, typer.Option(help="The context for rows without one. (question-answering)")] = None,
    table: Annotated[
        Any,
        typer.Option(
            parser=_table,
            metavar="<file>",
            help="CSV file of the table for rows without one; texts are questions. (table-question-answering)",
        ),
    ] = None,
    sequential: Sequential = None,
    doc_stride: DocStride = None,
    max_seq_len: MaxSeqLen = None,
    max_answer_len: MaxAnswerLen = None,
    handle_impossible_answer: HandleImpossibleAnswer = None,
    align_to_words: AlignToWords = None,
    targets: Targets = None,
    candidate_labels: Annotated[
        str | None,
        typer.Option(
            help="The labels, with commas between them. (zero-shot-classification, zero-shot-image-classification)"
        ),
    ] = None,
    hypothesis_template: HypothesisTemplate = None,
    multi_label: MultiLabel = None,
    pooling: Annotated[str | None, typer.Option(help="mean or cls: one vector per text. (feature-extraction)")] = None,
    normalize: Normalize = None,
    pool: Pool = None,
    chunk_length_s: ChunkLength = None,
    language: Annotated[
        str | None,
        typer.Option(help="Language of the sound; heard if not given. (automatic-speech-recognition by Whisper)"),
    ] = None,
    to_english: Annotated[
        bool | None, typer.Option("--to-english", help="Translate. (automatic-speech-recognition by Whisper)")
    ] = None,
    stride_length_s: StrideLength = None,
    return_timestamps: ReturnTimestamps = None,
    max_new_tokens: MaxNewTokens = None,
    num_beams: NumBeams = None,
    do_sample: DoSample = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    num_return_sequences: NumReturnSequences = None,
    seed: Seed = None,
    return_full_text: ReturnFullText = None,
    src_lang: SrcLang = None,
    tgt_lang: TgtLang = None,
    verbose: Verbose = False,
) -> None:
    """Run a pipeline on texts, or on the rows of a file.

    tf-pipeline run sentiment-analysis "What a lovely film."

    tf-pipeline run ner --model ./ner --aggregation-strategy first "Sylvain works in Brooklyn."

    tf-pipeline run question-answering --model ./squad --question "Who came?" --context "Ann came."

    tf-pipeline run table-question-answering --model ./tapas --table cities.csv "Which is the largest?"

    tf-pipeline run fill-mask --model ./bert --target good --target bad "A [MASK] film."

    tf-pipeline run zero-shot-classification --model ./mnli --candidate-labels "art, sport" "A goal!"

    tf-pipeline run feature-extraction --pooling mean --input texts.jsonl --output vectors.jsonl

    tf-pipeline run sentiment-analysis --model http://localhost:8501/v1/models/sentiment "What a lovely film."

    tf-pipeline run text-generation --model ./gpt2 --max-new-tokens 40 "Once upon a time"

    tf-pipeline run translation_en_to_fr --model ./t5 --input texts.jsonl --output french.jsonl

    tf-pipeline run image-classification --model ./vit cat.png

    tf-pipeline run zero-shot-image-classification --model ./clip --candidate-labels "cat, dog" cat.png

    tf-pipeline run automatic-speech-recognition --model ./wav2vec2 --chunk-length-s 10 talk.flac

    The text of text-generation is printed as it is written; several texts are answered in a table.

    A row of --input is a string or an object with the key text (and text_pair for pairs, words with
    --is-split-into-words, question and context, table and query, messages of a chat, or image or audio, which is a path
    or an address). A table is an object of columns or a list of objects, and a query one question or a list of them.
    Other keys are ignored, and so are blank lines, which are counted as lines. Rows are streamed, several at a time, or
    with --batch-size 1 one by one, for a program that waits for each answer; each answer is a line {"line": n,
    "result": ...} in the order of the rows. A row that cannot be answered (no JSON, no UTF-8, a key missing or there
    twice, a wrong type, too long a text) becomes a line {"line": n, "error": ..., "input": ...} in the sibling file
    that ends in .errors.jsonl (on standard error if there is no --output, or it is a pipe or a device).

    Both files appear when all rows are done; until then answers are in a folder that ends in .unfinished. After an
    interruption the same command with --resume goes on, if neither the input, which has to be a file, nor the files of
    the model have changed (of a hub id, the commit; a served model is known by its address). Files that exist are
    replaced only with --overwrite; pipes and devices, such as /dev/stdout, are written to as rows are answered.

    The exit status is 0 if all was answered, 1 if nothing could run, 2 for wrong usage, 3 if some rows failed, and 128
    and the signal's number if one ended the run.
    """  # noqa: D301
    given = {name: value for name, value in locals().items() if name in _KNOWN and value is not None}
    name = task_name(task)
    served = is_server(model)
    parameters = _parameters(name, given, served)
    if input_file is not None and texts:
        raise typer.BadParameter("Give texts or --input, not both.")
    if output_file is not None and input_file is None:
        raise typer.BadParameter("--output needs --input.")
    if output_file is None and (overwrite or resume):
        raise typer.BadParameter(f"{'--overwrite' if overwrite else '--resume'} needs --output.")
    rows, arguments = Rows(name, given), OPTIONS[name] | {"dtype": "dtype", "engine": "engine", "quantize": "quantize"}

    def load() -> Any:
        if not served:
            load_frameworks(verbose, packed_weights=_is_native(model or default_checkpoint(name)))
        try:
            return pipeline(
                task, model=model, dtype=dtype, engine=engine, quantize=quantize, batch_size=batch_size, **parameters
            )
        except ArgumentError as error:
            raise typer.BadParameter(as_options(error, arguments)) from None

    try:
        if input_file is not None:
            asked = {
                "task": with_languages(task),
                "model": model,
                "dtype": dtype,
                "engine": engine,
                "quantize": quantize,
                "options": given,
            }
            if output_file is not None and not served:
                asked["files of the model"] = fingerprint(model or default_checkpoint(name))
            failed = _run_file(load, rows, input_file, output_file, asked, overwrite, resume)
        elif name == "text-generation" and not as_json and not served and (is_chat := _is_chat(texts)) is not None:
            failed = _write(load, None if is_chat else texts[0], given.get("return_full_text") is not False)
        elif name == "text-generation" and not as_json and served and len(texts or ()) == 1:
            failed = _write_served(load, rows, texts)
        else:
            failed = _run_texts(load, rows, texts, as_json or name.endswith("feature-extraction"))
        if sys.stdout is not None:
            sys.stdout.flush()
    except (ReaderGoneError, BrokenPipeError):
        _leave_quietly()
    except (ValueError, TypeError, OSError, ImportError) as error:
        fail(as_options(error, arguments), 1)
    raise typer.Exit(SOME_ROWS_FAILED if failed else 0)


def _is_native(source: str | os.PathLike) -> bool:
    """Whether a checkpoint's family has a module of its own, which multiplies by weights alone where it adds a bias."""
    try:
        config = json.loads(Path(repository_file(source, "config.json")).read_text(encoding="utf-8"))
        family = config["model_type"].replace("-", "_")
    except Exception:  # whatever is wrong is said when the checkpoint is loaded
        return False
    return family in {module.name for module in pkgutil.iter_modules(models.__path__)}


# Options whose values are parts of the rows.
_OF_ROWS = ("question", "context", "table")
_KNOWN = {option for options in OPTIONS.values() for option in options}


def fail(error: object, status: int) -> None:
    """End with a message and a status."""
    Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
    raise typer.Exit(status) from None


def _parameters(task: str, given: dict[str, Any], served: bool) -> dict[str, Any]:
    """The arguments of the pipeline from the options that were given."""
    parameters = parameters_of(task, given, OPTIONS)
    for name in _OF_ROWS:
        parameters.pop(name, None)
    if "candidate_labels" in OPTIONS[task] and "candidate_labels" not in parameters:
        raise typer.BadParameter("Pass --candidate-labels, the labels to choose from, with commas between them.")
    if task == "automatic-speech-recognition":
        spoken = {"language": parameters.pop("language")} if "language" in parameters else {}
        if parameters.pop("to_english", False):
            spoken["task"] = "translate"
        if spoken:
            parameters["generate_kwargs"] = spoken
        if parameters.get("return_timestamps") == "segment":
            parameters["return_timestamps"] = True
    with_defaults(task, parameters, served)
    return parameters


def with_languages(task: str) -> str:
    """A task's own name, or of translation the one that was given, which may hold the languages."""
    name = task_name(task)
    return task if name == "translation" else name


def with_defaults(task: str, parameters: dict[str, Any], served: bool) -> None:
    """Add the arguments that the command line sets by itself; a served model cuts texts as it was exported."""
    windows = task == "summarization" and "stride" in parameters  # which read all of a text
    is_given = task == "feature-extraction" and "truncation" in (parameters.get("tokenize_kwargs") or {})
    if "truncation" in OPTIONS[task] and not served and not windows and not is_given:
        parameters.setdefault("truncation", True)
    if task == "text-classification":
        parameters.setdefault("top_k", None)
    if task == "fill-mask" and "truncation" in parameters:
        own = parameters.get("tokenizer_kwargs") or {}
        parameters["tokenizer_kwargs"] = {"truncation": parameters.pop("truncation")} | own


# ------------------------------------------------------------------------------------------------------- the rows


class Rows:
    """Turns texts or JSON values into inputs of a task's pipeline."""

    def __init__(self, task: str, given: dict[str, Any]):
        self.task = task
        self.words = bool(given.get("is_split_into_words"))
        self.known = {name: given[name] for name in _OF_ROWS if name in given}

    def of_texts(self, texts: list[str]) -> list[Any]:
        """Inputs from texts of the command line; for question-answering, whichever of both was not an option."""
        if self.task == "table-question-answering":
            if "table" not in self.known:
                raise typer.BadParameter("Give --table, the file that the questions are about, or --input.")
            return [self._of_table(text) for text in texts]
        if self.task != "question-answering":
            return [text.split() for text in texts] if self.words else texts
        missing = [name for name in ("question", "context") if name not in self.known]
        if len(missing) > 1 or bool(missing) != bool(texts):
            raise typer.BadParameter("Give --question and --context, or one of them and texts, or --input.")
        return [self.known | {missing[0]: text} for text in texts] if missing else [self.known]

    def of_value(self, value: Any) -> Any:
        """The input that a JSON value stands for.

        Raises:
            ValueError: for a value of another form; the message says which form is expected.
        """
        if self.task == "question-answering":
            return self._question(value)
        if self.task == "table-question-answering":
            return self._of_table(value)
        if self.task == "text-generation":
            if isinstance(value, dict) and "messages" in value:
                if "text" in value:
                    raise ValueError("A row has the key text or the key messages, not both.")
                value = {"messages": value["messages"]}
            if chat := as_chat(value):
                return chat
        if self.words:
            words = value.get("words") if isinstance(value, dict) else value
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError(
                    f"A row is a list of strings, or an object with one under the key words; got {_kind(value)}."
                )
            return words
        if isinstance(value, dict) and "text_pair" in value and self.task == "text-classification":
            return {name: _text(value, name) for name in ("text", "text_pair")}
        return _text(value, MEDIA.get(self.task, "text"))

    def _question(self, value: Any) -> dict[str, str]:
        missing = [name for name in ("question", "context") if name not in self.known]
        if isinstance(value, str) and len(missing) == 1:
            value = {missing[0]: value}
        if not isinstance(value, dict):
            raise ValueError(f"A row is an object with the keys question and context; got {_kind(value)}.")
        row = self.known | value
        return {name: _text(row, name) for name in ("question", "context")}

    def _of_table(self, value: Any) -> dict[str, Any]:
        """A table and what is asked of it, which is all of a row if an option names the table."""
        if isinstance(value, str) and "table" in self.known:
            value = {"query": value}
        if not isinstance(value, dict) or not {"table", "query"} <= (row := self.known | value).keys():
            has = f"an object with {', '.join(map(repr, value)) or 'none'}" if isinstance(value, dict) else _kind(value)
            hint = "" if "table" in self.known else ", unless --table names a file of the table"
            raise ValueError(f"A row is an object with the keys table and query{hint}; got {has}.")
        return {name: row[name] for name in ("table", "query")}

    def title(self, value: Any) -> str:
        """The text that stands for an input in a table."""
        if self.task == "table-question-answering":
            value = value["query"]
        if isinstance(value, dict):
            value = next((value[name] for name in ("question", "context") if name not in self.known), value["question"])
        return " ".join(value) if isinstance(value, list) else value


def _text(value: Any, key: str) -> str:
    if isinstance(value, dict):
        if key not in value:
            raise ValueError(f"The key {key} is missing; the row has {', '.join(map(repr, value)) or 'none'}.")
        if isinstance(value[key], str):
            return value[key]
        raise ValueError(f"{key} has to be a string; got {_kind(value[key])}.")
    if isinstance(value, str):
        return value
    raise ValueError(f"A row is a string or an object with the key {key}; got {_kind(value)}.")


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "a string",
    }
    return names.get(type(value), "null")


# --------------------------------------------------------------------------------------------- a file, or texts


def _run_file(load, rows: Rows, source: Path, target: Path | None, asked, overwrite: bool, resume: bool) -> int:
    """Answer the rows of a file; returns how many failed."""
    outputs = answer_rows(load, rows.of_value, source, target, asked, overwrite, resume)
    failed = outputs.errors.count
    if target is not None:
        where = f", {failed} failed" + f": {outputs.errors_path}" * (outputs.errors_path is not None) if failed else ""
        answered = f"{outputs.answers.count} answered: {target}{where}"
        Console(stderr=True).print(answered, soft_wrap=True, highlight=False)
    return failed


def _run_texts(load, rows: Rows, texts: list[str] | None, as_json: bool) -> int:
    """Print the answers to texts, or to lines of standard input, each of which may fail; returns how many did.

    Values of JSON are printed one by one, and a table when all of it is known.
    """
    errors = Records(standard("stderr"))
    if texts or ("question" in rows.known and "context" in rows.known):
        inputs = rows.of_texts(texts or [])
        answered = zip(inputs, load()(iter(inputs)), strict=True)
    else:
        answered = _answered_lines(load, rows, errors)
    if as_json:
        for _, result in answered:
            print(json.dumps(result, allow_nan=False), flush=True)
    elif answered := list(answered):
        _print_table([rows.title(one) for one, _ in answered], [result for _, result in answered])
    return errors.count


def _answered_lines(load, rows: Rows, errors: Records) -> Iterator[tuple[Any, Any]]:
    """Inputs of lines of standard input and the answers to them, each as soon as it is known."""
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("Give at least one text, --input, or pipe texts in, one a line.")
    lines = numbered_lines(sys.stdin.buffer)
    if (first := next(lines, None)) is None:
        raise typer.BadParameter("Standard input holds no text.")
    pending: deque[tuple[int, str, Any]] = deque()  # read, but not yet answered

    def inputs() -> Iterator[Any]:
        for number, line in chain([first], lines):
            try:
                text = text_of(line)
            except ValueError as error:
                errors.write({"line": number, "error": str(error), "input": escaped(line)})
                continue
            (one,) = rows.of_texts([text])
            pending.append((number, text, one))
            yield one

    for result in load().stream(inputs()):
        number, text, one = pending.popleft()
        if isinstance(result, Exception):
            errors.write({"line": number, "error": str(result), "input": text})
        else:
            yield one, result


def _is_chat(texts: list[str] | None) -> bool | None:
    """Whether to chat rather than to continue one text; ``None`` for several texts or lines."""
    if texts:
        return False if len(texts) == 1 else None
    return True if sys.stdin is not None and sys.stdin.isatty() else None


def _write(load, text: str | None, is_whole: bool) -> int:
    """Continue a text, or chat; returns how many rows failed, of which there are none."""
    from tf_pipeline.cli.writing import chat, write

    pipe = load()
    if text is None:
        chat(pipe)
    else:
        write(pipe, text, is_whole)
    return 0


def _write_served(load, rows: Rows, texts: list[str]) -> int:
    """Continue a text on a server piece by piece, or as a table if it was exported without; returns 0."""
    from tf_pipeline.cli.writing import write_served
    from tf_pipeline.serving.client.answers import STEP

    client = load()
    if STEP in client.signatures():
        write_served(client, texts[0])
        return 0
    return _run_texts(lambda: client, rows, texts, False)


def _leave_quietly() -> None:
    """End as a Unix tool does whose output nobody reads any more: without a word, as if by SIGPIPE."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # Python flushes both when it ends
        try:
            os.dup2(nowhere, stream.fileno())
        except (AttributeError, OSError):  # closed, or not of the system
            pass
    raise typer.Exit(128 + signal.SIGPIPE)


# ------------------------------------------------------------------------------------------------------- printing


def _print_table(texts: list[str], results: list[Any]) -> None:
    answers = [_answers(result) for result in results]
    columns = next((list(some[0]) for some in answers if some), [])
    table = Table("text", *columns)
    for text, some in zip(texts, answers, strict=True):
        for place, answer in enumerate(some or [dict.fromkeys(columns, "")]):
            cells = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in answer.values()]
            table.add_row(escape(text) if place == 0 else "", *map(escape, cells))
    table_console().print(table)


def _answers(result: Any) -> list[dict[str, Any]]:
    """The answers to a text as one list of dictionaries, whatever the task."""
    if isinstance(result, list):
        return [answer for some in result for answer in _answers(some)]
    if "labels" in result:
        pairs = zip(result["labels"], result["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]
    return [result]
