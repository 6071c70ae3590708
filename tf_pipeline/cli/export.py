"""``tf-pipeline export``: a checkpoint as a SavedModel for TensorFlow Serving."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tf_pipeline.arguments import ArgumentError
from tf_pipeline.cli.options import (
    AggregationStrategy,
    AlignToWords,
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
    ReturnFullText,
    Seed,
    SrcLang,
    Stride,
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
from tf_pipeline.cli.run import fail
from tf_pipeline.pipelines.tasks import task_name
from tf_pipeline.terminal import Verbose, load_frameworks

OPTIONS = options_with(
    zero_shot_classification=("hypothesis_template", "multi_label"),
    **writing(
        text_generation=("return_full_text",),
        text2text_generation=(),
        summarization=(),
        translation=("src_lang", "tgt_lang"),
    ),
)
_KNOWN = {option for options in OPTIONS.values() for option in options}


def export(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a checkpoint.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the model in the server; versions are folders in it.")],
    task: Annotated[
        str | None,
        typer.Option(
            callback=known_task,
            help="text-classification (sentiment-analysis), token-classification (ner), question-answering, "
            "zero-shot-classification, feature-extraction, fill-mask, text-generation, text2text-generation, "
            "summarization or translation (translation_en_to_fr); by default what the checkpoint is for.",
        ),
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="Number of the version; it must not exist yet.")] = 1,
    name: Annotated[str | None, typer.Option(help="Of the model in URLs; by default the folder's.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens that texts are cut to; by default all that the model takes.")
    ] = None,
    batch_sizes: Annotated[
        str, typer.Option(help="Rows of the warm-up requests; the largest is what the server puts in a batch.")
    ] = "1,32",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or a Keras policy.")] = None,
    text: Annotated[
        bool, typer.Option(help="Take strings, with the tokenizer in the graph, or token ids only.")
    ] = True,
    warmup: Annotated[bool, typer.Option(help="Write warm-up requests (needs tensorflow-serving-api).")] = True,
    server_version: Annotated[str, typer.Option(help="The TensorFlow Serving that will run it.")] = "2.19.1",
    top_k: TopK = None,
    function: Function = None,
    aggregation_strategy: AggregationStrategy = None,
    stride: Stride = None,
    ignore_labels: IgnoreLabels = None,
    doc_stride: DocStride = None,
    max_seq_len: MaxSeqLen = None,
    max_answer_len: MaxAnswerLen = None,
    handle_impossible_answer: HandleImpossibleAnswer = None,
    align_to_words: AlignToWords = None,
    targets: Targets = None,
    hypothesis_template: HypothesisTemplate = None,
    multi_label: MultiLabel = None,
    pooling: Annotated[str | None, typer.Option(help="mean (the default) or cls. (feature-extraction)")] = None,
    normalize: Normalize = None,
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
    """Export a checkpoint for TensorFlow Serving: strings go in, labels, answers, vectors or texts come out.

    FOLDER/VERSION is a SavedModel with the tokenizer and the task's post-processing in its graph; next to it are the
    files that a server and its users need: configuration, a compose file, serve.sh, and a README with the calls.
    Nothing is written unless the tokenizer in the graph equals Hugging Face's on a corpus, the SavedModel answers as
    the local pipeline does, and the server has all of its ops.

    tf-pipeline export ./sentiment ./served/sentiment

    tf-pipeline export ./ner ./served/ner --task ner --aggregation-strategy first --stride 32

    tf-pipeline export ./minilm ./served/embed --task feature-extraction --normalize --dtype bfloat16

    tf-pipeline export ./gpt2 ./served/writer --task text-generation --max-length 128 --max-new-tokens 64

    ./served/sentiment/serve.sh

    tf-pipeline run sentiment-analysis --model http://localhost:8501/v1/models/sentiment "What a lovely film."
    """
    given = {name: value for name, value in locals().items() if name in _KNOWN and value is not None}
    arguments = {"dtype": "dtype"}
    try:
        load_frameworks(verbose)
        from tf_pipeline.serving.export import export, resolve_task

        task = resolve_task(checkpoint, task)
        arguments |= OPTIONS[task_name(task)]
        with Console(stderr=True).status("Loading") as status:
            done = export(
                checkpoint, None, folder, task, version=version, name=name, max_length=max_length,
                batch_sizes=_numbers(batch_sizes), dtype=dtype, text=text, warmup=warmup,
                server_version=server_version, progress=status.update, **parameters_of(task_name(task), given, OPTIONS),
            )  # fmt: skip
    except ArgumentError as error:
        raise typer.BadParameter(as_options(error, arguments)) from None
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        fail(as_options(error, arguments), 1)
    done.print()


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--batch-sizes are numbers with commas between them, such as 1,32; got {text!r}."
        ) from None
