"""``tf-pipeline train``: from rows to a checkpoint."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tf_pipeline.cli.options import flag, known_task
from tf_pipeline.cli.run import fail
from tf_pipeline.pipelines.tasks import task_name
from tf_pipeline.terminal import Verbose, load_frameworks

# Options of the rows of some tasks, and the task each belongs to.
_DATA = {
    "prefix": ("summarization", "translation", "text2text-generation"),
    "max_target_length": ("summarization", "translation", "text2text-generation"),
    "doc_stride": ("question-answering",),
    "mlm_probability": ("fill-mask",),
    "whole_word": ("fill-mask",),
    "pack": ("text-generation",),
}


def train(
    task: Annotated[str, typer.Argument(callback=known_task, help="Such as text-classification: one of those above.")],
    model: Annotated[str, typer.Option(help="Folder or hub id of the checkpoint to start from.")],
    rows: Annotated[Path, typer.Option("--train", help="Rows to learn: .jsonl, .csv, .tsv or .txt.")],
    output: Annotated[Path, typer.Option(help="Folder to write the trained checkpoint to.")],
    validation: Annotated[Path | None, typer.Option(help="Rows to measure on after each epoch.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that all rows are seen.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per batch.")] = 16,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Peak learning rate; if not given, 5e-5, and 1e-3 with --lora.")
    ] = None,
    warmup: Annotated[float, typer.Option(min=0, max=1, help="Part of the steps in which the rate rises.")] = 0.1,
    schedule: Annotated[
        str, typer.Option(help="Shape of the fall after the warm-up: linear, cosine, constant.")
    ] = "linear",
    weight_decay: Annotated[float, typer.Option(min=0, help="Of all but biases and norms.")] = 0.01,
    clip: Annotated[float, typer.Option(min=0, help="Maximum norm of the gradients; 0 turns clipping off.")] = 1.0,
    accumulation: Annotated[int, typer.Option(min=1, help="Batches whose gradients make one step.")] = 1,
    label_smoothing: Annotated[float, typer.Option(min=0, help="Part of a label that all classes share.")] = 0.0,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better val_loss; keep the best one.")
    ] = None,
    problem_type: Annotated[
        str | None,
        typer.Option(
            help="regression, single_label_classification or multi_label_classification; guessed from the labels if "
            "not given. (text-classification)"
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Maximum tokens per text; the model's limit if not given.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Put before every text. (tasks with a target)")] = None,
    max_target_length: Annotated[int | None, typer.Option(min=1, help="Tokens of a target.")] = None,
    doc_stride: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens by which windows overlap. (question-answering: 128, or half a window)"),
    ] = None,
    mlm_probability: Annotated[float | None, typer.Option(help="Share of masked tokens. (fill-mask: 0.15)")] = None,
    whole_word: Annotated[bool | None, typer.Option("--whole-word", help="Mask whole words. (fill-mask)")] = None,
    pack: Annotated[
        bool | None, typer.Option("--pack", help="Join texts into blocks of --max-length. (text-generation)")
    ] = None,
    lora: Annotated[
        int | None, typer.Option(min=1, help="Train a LoRA adapter of this rank, and nothing else but a new head.")
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Updates are scaled by alpha / rank; 8 if not given.")
    ] = None,
    lora_dropout: Annotated[
        float | None, typer.Option(help="Dropout rate of the inputs of updates; 0 if not given.")
    ] = None,
    lora_modules: Annotated[
        str | None,
        typer.Option(
            help='PyTorch names of the modules to update: "query,value", or all-linear; those of peft if not given.'
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of new weights, orders, masks and dropout.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="Such as mixed_bfloat16; float32 if not given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint in the folder.")] = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune a checkpoint on rows, and write one that run, parity, export and PyTorch take.

    Rows are JSON objects, one per line, or lines of a table with a header:

    text-classification {"text": …, "label": …}, and "text_pair" for pairs; a label is a class, a number (regression) or
    a list of classes. token-classification {"tokens": […], "labels": […]}. question-answering {"question": …,
    "context": …, "answers": {"text": […], "answer_start": […]}}. fill-mask {"text": …}. text-generation {"text": …} or
    {"prompt": …, "completion": …}. summarization, translation, text2text-generation {"text": …, "target": …}.

    The folder also holds the tokenizer, a model card with the numbers of each epoch, and the learning curve. It appears
    when all is done, or not at all. With --lora, the adapter is in the folder "adapter" too, for peft and load_adapter;
    the checkpoint has it in its weights. The exit status is 1 if something was wrong with the rows or the checkpoint.

    tf-pipeline train text-classification --model ./bert --train rows.jsonl --validation more.jsonl --output ./mine
    """
    given = {
        "prefix": prefix, "max_target_length": max_target_length, "doc_stride": doc_stride,
        "mlm_probability": mlm_probability, "whole_word": whole_word, "pack": pack,
    }  # fmt: skip
    data_options = _data_options(task_name(task), given)
    adapter = _adapter(lora, {"alpha": lora_alpha, "dropout": lora_dropout, "target_modules": lora_modules})
    console = Console(stderr=True)
    try:
        load_frameworks(verbose)
        from tf_pipeline.finetuning import train as fine_tune
        from tf_pipeline.finetuning.progress import EpochTable

        with EpochTable(console) as table:
            fine_tune(
                task,
                model,
                rows,
                output,
                validation,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                warmup=warmup,
                schedule=schedule,
                weight_decay=weight_decay,
                clip=clip,
                accumulation=accumulation,
                label_smoothing=label_smoothing,
                patience=patience,
                problem_type=problem_type,
                max_length=max_length,
                lora=adapter,
                seed=seed,
                dtype=dtype,
                overwrite=overwrite,
                callbacks=[table],
                data_options=data_options,
            )
    except (ValueError, OSError, ImportError, MemoryError) as error:
        fail(error, 1)
    except Exception as error:
        import tensorflow as tf

        if not isinstance(error, tf.errors.OpError):
            raise
        full = isinstance(error, tf.errors.ResourceExhaustedError)
        fail("The memory is exhausted; lower --batch-size or --max-length." if full else error.message, 1)
    console.print(f"The checkpoint is in {output}.", soft_wrap=True, highlight=False)


def _data_options(task: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, if the task has them.

    Raises:
        typer.BadParameter: for one that it has not.
    """
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if task not in _DATA[name]:
            raise typer.BadParameter(f"{flag(name)} is an option of {', '.join(_DATA[name])}, not of {task}.")
    return options


def _adapter(rank: int | None, given: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments of ``enable_lora``.

    Raises:
        typer.BadParameter: for options of an adapter without its rank.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if rank is None:
        if options:
            raise typer.BadParameter("--lora-alpha, --lora-dropout and --lora-modules are of --lora RANK: give it too.")
        return None
    modules = options.get("target_modules", "all-linear")
    if modules != "all-linear":
        options["target_modules"] = [name.strip() for name in modules.split(",") if name.strip()]
    return {"rank": rank, **options}
