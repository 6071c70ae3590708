"""The command line: ``tf-pipeline``. TensorFlow is imported only once there is work to do."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tf_pipeline import __version__
from tf_pipeline.cli.batch import batch
from tf_pipeline.cli.export import export
from tf_pipeline.cli.options import Command, Group, known_task
from tf_pipeline.cli.run import fail, run
from tf_pipeline.cli.train import train
from tf_pipeline.hub import refuse_checkpoint
from tf_pipeline.terminal import Verbose, load_frameworks

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # which cuts names of options on narrow terminals
    help="Hugging Face checkpoints on TensorFlow and Keras 3.",
)


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint that FOLDER holds.")]


def _version(show: bool) -> None:
    if show:
        print(f"tf-pipeline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command(cls=Command)(run)
app.command(cls=Command, short_help="Fine-tune a checkpoint on rows.")(train)
app.command(cls=Command, short_help="Export a checkpoint for TensorFlow Serving.")(export)
app.command(cls=Command, short_help="Answer the rows of files on Apache Beam.")(batch)


@app.command(cls=Command, short_help="Compare a checkpoint with PyTorch, tensor by tensor.")
def parity(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a checkpoint that PyTorch can load too.")],
    task: Annotated[
        str | None,
        typer.Option(callback=known_task, help="Compare the model of this task, such as text-classification."),
    ] = None,
    model_class: Annotated[
        str | None,
        typer.Option("--class", help="Or this class, such as TFBertModel; by default what the config names."),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File of texts, one per line, to compare on.")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="May be repeated; float64 and float32 by default.")] = None,
    mode: Annotated[str, typer.Option(help="How TensorFlow runs: function, eager, xla or saved.")] = "function",
    only: Annotated[list[str] | None, typer.Option(help="Compare this group alone; may be repeated.")] = None,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write a page for the browser here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every check here.")] = None,
    verbose: Verbose = False,
) -> None:
    """Prove that a checkpoint computes the same in TensorFlow and in PyTorch, or show the first difference and why.

    Compared are tokenization, weights, outputs (hidden states, attentions, logits, losses), gradients, training,
    invariance (batches, padding), execution (eager, graph, XLA, SavedModel), generation (caches, texts), round trip
    (saving and loading) and pipeline. float64 has to agree with PyTorch to 1e-10; in narrower dtypes our rounding error
    has to stay within twice PyTorch's own. Needs torch.

    The exit status is 0 if all is equal, 1 if not, and 2 if it could not be compared, in part or at all.

    tf-pipeline parity ./my-checkpoint --report parity.html

    tf-pipeline parity ./my-checkpoint --dtype bfloat16 --only outputs --texts reviews.txt --json parity.json
    """
    try:
        load_frameworks(verbose)
        from tf_pipeline.parity import SAMPLE_TEXTS, compare

        lines = texts.read_text(encoding="utf-8").splitlines() if texts else SAMPLE_TEXTS
        options = {"dtypes": dtype or ("float64", "float32"), "mode": mode, "groups": only}
        with Console(stderr=True).status("Loading") as status:
            report = compare(
                checkpoint,
                model_class,
                task,
                [line for line in lines if line.strip()],
                **options,
                progress=lambda group: status.update(f"Comparing {group}"),
            )
        for path, write in ((json_file, report.write_json), (report_file, report.write_html)):
            if path is not None:
                write(path)
    except (ValueError, OSError, ImportError, AttributeError, MemoryError) as error:
        fail(error, 2)
    report.print()
    raise typer.Exit(0 if report.passed else 2 if report.is_broken else 1)


@app.command(cls=Command, short_help="Port a checkpoint of an architecture without a module.")
def port(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a checkpoint of any architecture.")],
    folder: Annotated[Path | None, typer.Argument(help="Folder for the port; may be left out with --show.")] = None,
    task: Annotated[
        str | None, typer.Option(callback=known_task, help="Port the model of this task, such as text-classification.")
    ] = None,
    model_class: Annotated[
        str | None,
        typer.Option("--class", help="Or this class, such as XLNetModel; by default what the config names."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the graph, one operation per line.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with the checkpoint.")
    ] = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Port a checkpoint whose architecture has no module of its own, so that it loads where there is no PyTorch.

    PyTorch builds the model once, torch.export captures its computation, and TensorFlow runs the graph, which is
    compared with PyTorch: at three shapes, padded on either side, in float64 to 1e-10 and in float32 within PyTorch's
    own rounding. Nothing is written unless all of it is equal, nor over another checkpoint. The folder holds
    config.json, model.safetensors (which PyTorch loads too), graph.json and the tokenizer. Needs torch.

    tf-pipeline port ./xlnet-sentiment ./ported --task text-classification

    tf-pipeline port ./esm2 --class EsmModel --show
    """
    if folder is None and not show:
        raise typer.BadParameter("Give a FOLDER to save to, or --show.")
    try:
        load_frameworks(verbose)
        from tf_pipeline.port.graph import listing
        from tf_pipeline.port.save import load_ported, save_ported

        if folder is not None:
            refuse_checkpoint(folder, checkpoint, overwrite)
        with Console(stderr=True).status("Capturing with torch.export, and comparing with PyTorch"):
            model = load_ported(checkpoint, task, model_class, trust_remote_code=trust_remote_code)
        if folder is not None:
            save_ported(model, checkpoint, folder)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        fail(error, 1)
    if show:
        for line in listing(model.graph):
            print(line)
    for note in model.graph.notes:
        Console(stderr=True).print(f"Note: {note}", soft_wrap=True, highlight=False)
    if folder is not None:
        Console(stderr=True).print(f"{type(model).__name__}: {len(model.graph.nodes)} operations, in {folder}")


@app.command(cls=Command, short_help="Convert a checkpoint to safetensors.")
def convert(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a checkpoint.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    max_shard_size: Annotated[str, typer.Option(help="Size past which the weights are split.")] = "50GB",
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Convert a checkpoint to safetensors, which tf_pipeline and PyTorch load.

    Takes tf_model.h5, in which version 4 of transformers saved models of TensorFlow, and pytorch_model.bin (needs
    torch), whole or in shards, of any architecture. Config, tokenizer and processors are copied. A FOLDER with
    another checkpoint is refused; with that of CHECKPOINT itself, the safetensors files come next to the others.

    tf-pipeline convert ./my-old-model ./my-model
    """
    try:
        load_frameworks(verbose)
        from tf_pipeline.convert import convert as write

        names = write(checkpoint, folder, max_shard_size=max_shard_size, overwrite=overwrite)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        fail(error, 1)
    Console(stderr=True).print(f"{len(names)} tensors, in {folder}", soft_wrap=True, highlight=False)


def main() -> None:
    """Entry point of ``tf-pipeline``."""
    app()


if __name__ == "__main__":
    main()
