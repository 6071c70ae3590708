"""Write a model, its tokenizer and its post-processing as a SavedModel that TensorFlow Serving takes as it is."""

import copy
import dataclasses
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console

from tf_pipeline.files import atomic_folder
from tf_pipeline.hub import split_hub_options
from tf_pipeline.parity.corpus import adversarial_texts
from tf_pipeline.pipelines.base import Pipeline
from tf_pipeline.pipelines.factory import inferred_task, pipeline, pipeline_class
from tf_pipeline.pipelines.generating import GeneratingPipeline
from tf_pipeline.pipelines.tasks import task_name
from tf_pipeline.port.model import PortedModel
from tf_pipeline.serving.client.answers import REMOTE_TASKS
from tf_pipeline.serving.client.transport import Signature, TensorInfo, with_texts
from tf_pipeline.serving.describe import describe
from tf_pipeline.serving.export.base import ExportedTask, input_specs
from tf_pipeline.serving.export.feature_extraction import ExportedFeatureExtraction
from tf_pipeline.serving.export.fill_mask import ExportedFillMask
from tf_pipeline.serving.export.generation import ExportedGeneration, ExportedTextGeneration, ExportedTranslation
from tf_pipeline.serving.export.question_answering import ExportedQuestionAnswering
from tf_pipeline.serving.export.server_files import check_values, write_server_files
from tf_pipeline.serving.export.text_classification import ExportedTextClassification
from tf_pipeline.serving.export.token_classification import ExportedTokenClassification
from tf_pipeline.serving.export.warmup import requests, write_requests
from tf_pipeline.serving.export.zero_shot_classification import ExportedZeroShotClassification
from tf_pipeline.serving.lint import lint
from tf_pipeline.terminal import table_console
from tf_pipeline.tokenization import AutoTokenizer
from tf_pipeline.tokenization.in_graph import UnsupportedTokenizer, VerificationReport, compile_tokenizer, verify
from tf_pipeline.tokenization.in_graph.verification import added_token_texts

TASKS: dict[str, type[ExportedTask]] = {
    "feature-extraction": ExportedFeatureExtraction,
    "fill-mask": ExportedFillMask,
    "question-answering": ExportedQuestionAnswering,
    "summarization": ExportedGeneration,
    "text-classification": ExportedTextClassification,
    "text-generation": ExportedTextGeneration,
    "text2text-generation": ExportedGeneration,
    "token-classification": ExportedTokenClassification,
    "translation": ExportedTranslation,
    "zero-shot-classification": ExportedZeroShotClassification,
}
IDS = ("input_ids", "token_type_ids", "special_tokens_mask")
PLACES = ("offset_mapping", "word_ids", "sequence_ids")
# On how many texts answers from the SavedModel are compared with the local pipeline's; on fewer for tasks that write.
SAMPLE, WRITTEN_SAMPLE = 64, 8
# How far scores may differ.
TOLERANCE = {"float64": 1e-6, "float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}


class ExportError(RuntimeError):
    """An export that does not answer as the local pipeline does, or that a server would refuse; nothing was written."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Record of an export.

    Attributes:
        folder: the SavedModel, ``path/<version>``.
        task: its task.
        tokenizer: how the tokenizer in the graph compares with Hugging Face's; ``None`` for ids only.
        compared: on how many texts answers were compared with the local pipeline's.
        largest_difference: the largest difference of a score or a vector's element there, as a share of the largest
            number in its answer if that is more than 1.
        warmup_requests: number of requests that a server will run when it loads the model.
        load_seconds: how long TensorFlow took to load the model, in seconds.
    """

    folder: Path
    task: str
    tokenizer: VerificationReport | None
    compared: int
    largest_difference: float
    warmup_requests: int
    load_seconds: float

    def print(self, console: Console | None = None) -> None:
        """Print signatures, sizes and checks."""
        console = console or table_console()
        describe(self.folder, console)
        lines = [f"loaded in {self.load_seconds:.1f} s; {self.warmup_requests} warm-up requests, replayed"]
        if self.tokenizer is not None:
            counts = ", ".join(f"{count} of {name}" for name, count in self.tokenizer.counts.items())
            lines.append(f"tokenizer on {self.tokenizer.texts} texts, differing from Hugging Face's: {counts}")
            lines.append(
                f"answers to {self.compared} texts are the local pipeline's; largest difference of a number "
                f"{self.largest_difference:.1e}"
            )
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False)


def export(
    model: Any,
    tokenizer: Any,
    path: str | os.PathLike,
    task: str | None = None,
    *,
    version: int = 1,
    name: str | None = None,
    max_length: int | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    dtype: Any = None,
    text: bool = True,
    warmup: bool = True,
    server_version: str = "2.19.1",
    progress: Callable[[str], None] = lambda step: None,
    **options: Any,
) -> Export:
    """Export a model for TensorFlow Serving: strings go in, answers as of the local pipeline come out.

    ``path/<version>`` is the SavedModel, with warm-up requests and batching parameters; next to it are
    ``models.config``, ``compose.yaml``, ``serve.sh`` and a README with the calls. Before anything is put in place the
    tokenizer in the graph is compared with Hugging Face's on a corpus, the model is loaded again, its answers are
    compared with those of the local pipeline, and its graph is searched for ops that a server does not have.

    Args:
        model: a model, a folder or a hub id.
        tokenizer: its tokenizer, a folder or a hub id; ``None`` for that of a folder or hub id.
        path: folder of the model in the server; versions are folders in it.
        task: text-classification, token-classification, question-answering, feature-extraction, fill-mask,
            zero-shot-classification, text-generation, text2text-generation, summarization or translation
            (translation_xx_to_yy); by default what the model's class is for.
        version: number of the version; it must not exist yet.
        name: of the model in the server and in its URLs; by default the folder's.
        max_length: tokens that texts are cut to (question-answering: of a window); by default all the model takes, of
            texts to continue up to 1024.
        batch_sizes: rows of the warm-up requests; the largest is the number that a server puts in a batch.
        dtype: dtype or Keras policy of a model that is loaded here.
        text: whether there are signatures that take strings; otherwise only ids are taken.
        warmup: whether warm-up requests are written, which needs ``tensorflow-serving-api``.
        server_version: the TensorFlow Serving that is going to run it.
        progress: called with the name of each step.
        **options: arguments of a call of the pipeline, which are baked in (``top_k``, ``aggregation_strategy``, …), and
            of where to find the model (``revision``, ``token``, …).

    Returns:
        A record of the files and of the comparison.

    Raises:
        ValueError: for an argument that is not supported.
        UnsupportedTokenizer: for a tokenizer that cannot be compiled exactly; the message names the part.
        ExportError: if the export differs from the local pipeline.
        FileExistsError: if the version exists.
    """
    target = Path(path) / str(version)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).resolve().name).strip("-_") if name is None else name
    _check(target, name, version, server_version, batch_sizes)
    hub = split_hub_options(options)
    progress("Loading")
    pipe = _pipeline(model, tokenizer, resolve_task(model, task, **hub), dtype, hub)
    progress("Compiling the tokenizer")
    served = _served(pipe, text, max_length, options)
    report = _compare_tokenizers(served, progress) if text else None
    with atomic_folder(path) as staging:
        folder = staging / str(version)
        progress("Tracing and saving")
        _save(served, folder)
        source = pipe.model.config._name_or_path or type(pipe.model).__name__
        write_server_files(
            staging, name=name, task=pipe.task, checkpoint=source, version=version, server_version=server_version,
            batch_size=max(batch_sizes), packed_weights=not isinstance(pipe.model, PortedModel),
        )  # fmt: skip
        progress("Searching for what a server does not have")
        if problems := lint(folder, server_version):
            raise ExportError("TensorFlow Serving would not take this:\n" + "\n".join(map(str, problems)))
        progress("Loading it again and comparing answers")
        began = time.perf_counter()
        loaded = tf.saved_model.load(folder)
        seconds = time.perf_counter() - began
        compared, difference = compare_answers(loaded.signatures, served, sample_inputs(served)) if text else (0, 0.0)
        records = _write_warmup(folder, name, loaded.signatures, batch_sizes) if warmup else 0
    return Export(target, pipe.task, report, compared, difference, records, seconds)


def _check(target: Path, name: str, version: int, server_version: str, batch_sizes: Sequence[int]) -> None:
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_sizes are {list(batch_sizes)}, but have to be positive numbers.")
    check_values(name, version, server_version, max(batch_sizes))
    if target.exists():
        raise FileExistsError(
            f"{target} exists, and a server may be using it: export as another version, or remove it first."
        )


def _pipeline(model: Any, tokenizer: Any, task: str, dtype: Any, hub: Mapping[str, Any]) -> Pipeline:
    if isinstance(model, (str, os.PathLike)):
        tokenizer = model if tokenizer is None else tokenizer
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer, **hub)
        auto = pipeline_class(task).auto_class()
        model, report = auto.from_pretrained(model, dtype=dtype, output_loading_info=True, **hub)
        if report.missing and task != "feature-extraction":  # whose outputs no head makes
            raise ExportError(
                f"The checkpoint lacks {', '.join(report.missing)}, so the answers of {type(model).__name__} would be "
                f"random: export a checkpoint that was trained for {task}."
            )
        hub = {}
    elif dtype is not None:
        raise ValueError("dtype is for a model that is loaded here; give the folder, or load the model with the dtype.")
    return pipeline(task, model, tokenizer=tokenizer, **hub)


def resolve_task(model: Any, task: str | None, **hub_options: Any) -> str:
    """Name of the task, with the languages if it names them; if not given, the one that the class is for.

    That is the model's class, or the class its config names.

    Raises:
        ValueError: for a task that cannot be exported, or a class that is not for one.
    """
    if task is not None:
        if (known := task_name(task)) not in TASKS:
            raise ValueError(f"Task {task!r} cannot be exported; {', '.join(TASKS)} can.")
        return task if known == "translation" else known
    return inferred_task(model, TASKS, **hub_options)


def _served(pipe: Pipeline, text: bool, max_length: int | None, options: Mapping[str, Any]) -> ExportedTask:
    exported = TASKS[pipe.task]
    pipe.tokenizer = copy.deepcopy(pipe.tokenizer)
    pipe._shortener.tokenizer = pipe.tokenizer
    exported.prepare(pipe, options)
    longest = exported.longest(pipe, options)
    limit = min(longest, exported.default_length or longest) if max_length is None else max_length
    specials = pipe.tokenizer.num_special_tokens_to_add(pair=True)
    if not specials < limit <= longest:
        raise ValueError(
            f"max_length is {limit}, but has to be more than {specials} special tokens and at most {longest}, what the "
            "model and its tokenizer take."
        )
    if limit > 10**6:
        raise ValueError("Neither the model nor its tokenizer limits the length of texts: give max_length.")
    pipe.tokenizer.model_max_length = limit  # which the pipeline's own truncation and checks go by
    try:
        return exported(pipe, compile_tokenizer(pipe.tokenizer) if text else None, options)
    except UnsupportedTokenizer as error:
        raise UnsupportedTokenizer(f"{error} Without text (--no-text) the model takes token ids.") from None


def _compare_tokenizers(served: ExportedTask, progress: Callable[[str], None]) -> VerificationReport:
    """Compare the tokenizer in the graph with Hugging Face's on the corpus and its added tokens; ids have to be equal.

    Raises:
        ExportError: if ids differ, with the first texts.
    """
    progress("Comparing the tokenizer with Hugging Face's")
    outputs = IDS + PLACES if served.needs_offsets else IDS
    tokenizer = served.pipe.value.tokenizer
    texts = adversarial_texts() + added_token_texts(tokenizer)
    report = verify(served.tokenizer, tokenizer, texts, outputs=outputs, limit=5)
    if any(report.counts[name] for name in IDS):
        raise ExportError(f"The tokenizer in the graph is not Hugging Face's:\n{report}")
    return report


def _save(served: ExportedTask, folder: Path) -> None:
    functions = served.signatures()
    tf.saved_model.save(served, folder, signatures=functions)
    if "classify" in functions:
        _declare_classify(folder)
    _write_labels(folder, served)


def _declare_classify(folder: Path) -> None:
    """Give ``classify`` the method name that a server looks for; TensorFlow writes predict's everywhere."""
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
    updater.replace_method_name("classify", tf.compat.v1.saved_model.signature_constants.CLASSIFY_METHOD_NAME)
    updater.save()


def _write_labels(folder: Path, served: ExportedTask) -> None:
    if served.has_labels:
        (folder / "assets").mkdir(exist_ok=True)
        (folder / "assets" / "labels.txt").write_text("\n".join(served.labels) + "\n", encoding="utf-8")


def _write_warmup(folder: Path, name: str, signatures: Mapping[str, Any], batch_sizes: Sequence[int]) -> int:
    """Write the requests that a server runs when it loads the model; each has been run here."""
    sent = requests(signatures, batch_sizes)
    for signature, inputs in sent:
        signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
    write_requests(folder, name, sent)
    return len(sent)


# ------------------------------------------------------------------------------------------------------ comparison


def compare_answers(signatures: Mapping[str, Any], served: ExportedTask, inputs: Sequence[Any]) -> tuple[int, float]:
    """Compare a loaded SavedModel's answers to batches with those of the local pipeline to each input alone.

    Args:
        signatures: of the loaded SavedModel.
        served: the graph that was saved.
        inputs: as the pipeline takes them.

    Returns:
        On how many texts, and the largest difference of a number.

    Raises:
        ExportError: if an answer differs.
    """
    pipe, local = served.pipe.value, served.local_options()

    known = {name: _signature(one) for name, one in signatures.items()}

    def predict(name: str, columns: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
        kinds = known[name].inputs
        outputs = signatures[name](**{key: tf.constant(values, kinds[key].dtype) for key, values in columns.items()})
        return {key: with_texts(value.numpy()) for key, value in outputs.items()}

    remote = REMOTE_TASKS[pipe.task](predict, known, None, 32)
    asked, largest = served.comparison(), 0.0
    expected = pipe(inputs, batch_size=1, **(local | asked))
    for value, one, other in zip(inputs, remote(inputs, **asked), expected, strict=True):
        difference = _difference(one, other) / max(1.0, _largest(other))
        if difference > TOLERANCE[tf.as_dtype(pipe.model.compute_dtype).name]:
            raise ExportError(f"The SavedModel answers {value!r:.200} with {one}, the local pipeline with {other}.")
        largest = max(largest, difference)
    return len(inputs), largest


def _signature(function: Any) -> Signature:
    """Inputs and outputs of a loaded function."""
    specs = input_specs(function), function.structured_outputs
    return Signature(
        *({name: TensorInfo(spec.dtype.name, tuple(spec.shape)) for name, spec in s.items()} for s in specs)
    )


def _difference(one: Any, other: Any) -> float:
    """Largest difference of numbers; infinite where anything else differs."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and list(one) == list(other):
        return max((_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(itertools.starmap(_difference, zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if type(one) is type(other) and one == other else float("inf")


def _largest(answer: Any) -> float:
    """Largest magnitude of a finite number in an answer, which may be made of vectors or logits."""
    if isinstance(answer, (Mapping, list)):
        parts = answer.values() if isinstance(answer, Mapping) else answer
        return max(map(_largest, parts), default=0.0)
    return abs(answer) if isinstance(answer, float) and math.isfinite(answer) else 0.0


def sample_inputs(served: ExportedTask) -> list[Any]:
    """Texts of all kinds, as the task takes them."""
    pipe = served.pipe.value
    texts = [text for text in adversarial_texts() if text.strip()]
    texts = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    if pipe.task == "fill-mask":
        return [f"{text[:60]} {pipe.tokenizer.mask_token} {text[60:90]}" for text in texts]
    if isinstance(pipe, GeneratingPipeline):
        return texts[:: SAMPLE // WRITTEN_SAMPLE]
    if pipe.task == "question-answering":
        lengths = map(len, pipe.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
        return [
            {"question": question, "context": " ".join((context, *texts[:2], question))}
            for question, context, length in zip(texts, reversed(texts), lengths, strict=True)
            if length <= served.longest_question
        ]
    return texts
