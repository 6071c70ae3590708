"""Options of tasks that several commands take, and which task takes which."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tf_pipeline.cli.interruptions import InterruptedRunError, interruptible
from tf_pipeline.pipelines.tasks import task_name

TopK = Annotated[
    int | None,
    typer.Option(
        help="Answers to a text, image or sound (text-classification, audio-classification: all, question-answering: "
        "1, fill-mask, image-classification: 5), or the number of likely tokens to draw from, 0 for all. "
        "(text-generation: 50)",
    ),
]
Function = Annotated[
    str | None,
    typer.Option(
        help="sigmoid, softmax or none; what the config asks for if not given. "
        "(text-classification, image-classification, audio-classification)"
    ),
]
AggregationStrategy = Annotated[
    str | None,
    typer.Option(help="none (each token), simple, first, average or max (entities). (token-classification: none)"),
]
Stride = Annotated[
    int | None,
    typer.Option(
        help="Read long texts in windows that overlap by so many tokens. (token-classification, summarization)"
    ),
]
IgnoreLabels = Annotated[
    list[str] | None, typer.Option("--ignore-label", help="May be repeated. (token-classification: O)")
]
DocStride = Annotated[
    int | None, typer.Option(help="Tokens by which windows of the context overlap. (question-answering: 128)")
]
MaxSeqLen = Annotated[int | None, typer.Option(help="Tokens of a window. (question-answering: 384)")]
MaxAnswerLen = Annotated[int | None, typer.Option(min=1, help="Maximum tokens in an answer. (question-answering: 15)")]
HandleImpossibleAnswer = Annotated[
    bool | None, typer.Option("--handle-impossible-answer", help="Let there be no answer. (question-answering)")
]
AlignToWords = Annotated[
    bool | None, typer.Option(help="Widen answers to whole words, as by default. (question-answering)")
]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="Score this word only; may be repeated. (fill-mask)")
]
HypothesisTemplate = Annotated[
    str | None,
    typer.Option(help='Such as "It is about {}.". (zero-shot-classification, zero-shot-image-classification)'),
]
MultiLabel = Annotated[
    bool | None, typer.Option("--multi-label", help="Each label by itself. (zero-shot-classification)")
]
Pool = Annotated[
    bool | None, typer.Option("--pool", help="One vector per image, by the model's pooler. (image-feature-extraction)")
]
ChunkLength = Annotated[
    float | None,
    typer.Option(
        "--chunk-length-s", min=0, help="Seconds of the pieces of a long sound, 0 for the whole. "
        "(automatic-speech-recognition: 0)"
    ),
]  # fmt: skip
StrideLength = Annotated[
    float | None,
    typer.Option(
        "--stride-length-s", min=0, help="Seconds that pieces share with their neighbours. "
        "(automatic-speech-recognition: a sixth of a piece)"
    ),
]  # fmt: skip
ReturnTimestamps = Annotated[
    str | None,
    typer.Option(
        help="The times of each: char or word, of CTC, or segment or word, of Whisper. (automatic-speech-recognition)"
    ),
]
Sequential = Annotated[
    bool | None,
    typer.Option(
        "--sequential", help="Questions of a row follow one another, each with the answer before. "
        "(table-question-answering)"
    ),
]  # fmt: skip
Normalize = Annotated[bool | None, typer.Option("--normalize", help="Vectors of length 1. (feature-extraction)")]

MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of tokens to write. (tasks that write: 256)")
]
NumBeams = Annotated[int | None, typer.Option(min=1, help="Texts that are followed at a time. (tasks that write)")]
DoSample = Annotated[
    bool | None, typer.Option(help="Draw tokens, as text-generation does by default, or take the likeliest.")
]
Temperature = Annotated[float | None, typer.Option(help="Below 1: likely tokens are drawn more often. (0.7)")]
TopP = Annotated[float | None, typer.Option(help="Draw from the likeliest tokens of this total probability.")]
NumReturnSequences = Annotated[int | None, typer.Option(min=1, help="Texts to write for each. (tasks that write: 1)")]
Seed = Annotated[int | None, typer.Option(min=0, help="Makes what is drawn repeatable. (tasks that write)")]
ReturnFullText = Annotated[
    bool | None, typer.Option(help="Print the prompt too, as by default, or what follows alone. (text-generation)")
]
SrcLang = Annotated[str | None, typer.Option(help="Language of the texts, as the tokenizer names it. (translation)")]
TgtLang = Annotated[str | None, typer.Option(help="Language of the translations. (translation)")]

# Of all tasks that write.
_WRITING = ("max_new_tokens", "num_beams", "do_sample", "temperature", "top_p", "top_k", "num_return_sequences", "seed")

# Options that may be repeated, each time for one of a list.
_REPEATED = {"targets": "target", "ignore_labels": "ignore_label"}

# Which of these a task takes, and their names in its pipeline.
OPTIONS: dict[str, dict[str, str]] = {
    "text-classification": {"top_k": "top_k", "function": "function_to_apply"},
    "image-classification": {"top_k": "top_k", "function": "function_to_apply"},
    "image-feature-extraction": {"pool": "pool"},
    "audio-classification": {"top_k": "top_k", "function": "function_to_apply"},
    "automatic-speech-recognition": {
        name: name for name in ("chunk_length_s", "stride_length_s", "return_timestamps")
    },
    "table-question-answering": {"sequential": "sequential"},
    "feature-extraction": {"pooling": "pooling", "normalize": "normalize"},
    "fill-mask": {"top_k": "top_k", "targets": "targets"},
    "token-classification": {name: name for name in ("aggregation_strategy", "stride", "ignore_labels")},
    "question-answering": {
        name: name
        for name in ("top_k", "doc_stride", "max_seq_len", "max_answer_len", "handle_impossible_answer",
                     "align_to_words")
    },
}  # fmt: skip


def options_with(**more: Sequence[str]) -> dict[str, dict[str, str]]:
    """``OPTIONS`` and more, by task (with ``_`` for ``-``), which are named as in the pipeline."""
    tasks = {name.replace("_", "-"): names for name, names in more.items()}
    return {task: OPTIONS.get(task, {}) | {name: name for name in tasks.get(task, ())} for task in {**OPTIONS, **tasks}}


def writing(**more: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The options of tasks that write, and more of each."""
    return {task: (*_WRITING, *names) for task, names in more.items()}


# Options that are texts, which may be empty.
_MAY_BE_EMPTY = ("question", "context", "prefix")

# Stands for a hyphen where a line may not end.
_HYPHEN = "\N{NON-BREAKING HYPHEN}"


class Command(TyperCommand):
    """A command whose help never breaks a name at its hyphens."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for one in (self, *self.params):
            one.help = (getattr(one, "help", None) or "").replace("-", _HYPHEN)

    def get_help(self, ctx: Any) -> str:
        """The help, as wide as the terminal."""
        return super().get_help(ctx).replace(_HYPHEN, "-")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments.

        Raises:
            typer.BadParameter: for an empty name, such as that of a shell's variable that is not set.
        """
        given, _, _ = self.make_parser(ctx).parse_args(args=[*args])
        for parameter in self.get_params(ctx):
            if parameter.name not in _MAY_BE_EMPTY and given.get(parameter.name) == "":
                raise typer.BadParameter("it is empty; leave it out for its default.", ctx, parameter)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; SIGINT and SIGTERM end it as an error does."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except InterruptedRunError as interruption:
            typer.echo(f"Interrupted. {interruption.advice}".strip(), err=True)
            raise typer.Exit(interruption.status) from None


class Group(TyperGroup):
    """A group of such commands."""

    def get_help(self, ctx: Any) -> str:
        """The help, as wide as the terminal."""
        return super().get_help(ctx).replace(_HYPHEN, "-")


def known_task(task: str | None) -> str | None:
    """The task of a command.

    Raises:
        typer.BadParameter: if there is none of this name.
    """
    try:
        return task and task_name(task) and task
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def flag(name: str) -> str:
    """The option that an argument of a command is given by."""
    return f"--{_REPEATED.get(name, name).replace('_', '-')}"


def as_options(message: object, arguments: Mapping[str, str]) -> str:
    """A message with options in the place of a pipeline's arguments.

    Args:
        message: about arguments, which are named as ``name``, ``name=value``, or by their first word.
        arguments: names of options and of their arguments, as ``OPTIONS`` has them for a task.
    """

    def replaced(match: re.Match) -> str:
        option, value = flag(option_of[match["name"]]), match["value"]
        if value is None:
            return option if "_" in match["name"] or match.start() == 0 else match[0]
        if value in ("True", "False"):
            return option if value == "True" else option.replace("--", "--no-", 1)
        return f"{option} {value.strip(chr(39))}".strip()

    option_of = {argument: option for option, argument in arguments.items()}
    names = "|".join(map(re.escape, option_of))
    pattern = rf"(?<![\w-])`?(?P<name>{names})(?![\w-])`?(?:=(?P<value>True|False|'[^']*'|[\w.]*))?"
    return re.sub(pattern, replaced, str(message)) if names else str(message)


def parameters_of(task: str, given: Mapping[str, Any], options: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The arguments of a pipeline from the options that were given.

    Args:
        task: its name.
        given: options with values.
        options: for each task the options that it takes, and their names in its pipeline.

    Raises:
        typer.BadParameter: for an option of other tasks; the message names them.
    """
    for name in given:
        if name not in options[task]:
            takers = ", ".join(other for other, taken in options.items() if name in taken)
            raise typer.BadParameter(f"{flag(name)} is an option of {takers}, not of {task}.")
    return {options[task][name]: value for name, value in given.items()}
