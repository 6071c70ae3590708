"""Options of tasks that several commands take, and which task takes which."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

TopK = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Answers to a text (text-classification: all, question-answering: 1, fill-mask: 5), or the number of "
        "likely tokens to draw from, 0 for all. (text-generation: 50)",
    ),
]
Function = Annotated[
    str | None,
    typer.Option(help="sigmoid, softmax or none; what the config asks for if not given. (text-classification)"),
]
AggregationStrategy = Annotated[
    str | None,
    typer.Option(help="none (each token), simple, first, average or max (entities). (token-classification: none)"),
]
Stride = Annotated[
    int | None,
    typer.Option(help="Read long texts in windows that overlap by so many tokens. (token-classification)"),
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

# Which of these a task takes, and their names in its pipeline.
OPTIONS: dict[str, dict[str, str]] = {
    "text-classification": {"top_k": "top_k", "function": "function_to_apply"},
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
            raise typer.BadParameter(f"--{name.replace('_', '-')} is an option of {takers}, not of {task}.")
    return {options[task][name]: value for name, value in given.items()}
