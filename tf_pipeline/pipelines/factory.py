"""``pipeline(task)``: find the pipeline of a task, load its model and tokenizer, put them together."""

import importlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_pipeline.pipelines.base import Pipeline
    from tf_pipeline.serving.client import Client

logger = logging.getLogger(__name__)

# Classes by task; their modules, named after the task, are imported when they are needed.
TASKS = {
    "feature-extraction": "FeatureExtractionPipeline",
    "fill-mask": "FillMaskPipeline",
    "question-answering": "QuestionAnsweringPipeline",
    "text-classification": "TextClassificationPipeline",
    "token-classification": "TokenClassificationPipeline",
    "zero-shot-classification": "ZeroShotClassificationPipeline",
}
ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}

# The checkpoints that transformers runs where none is named. The two tasks that are not here have one in the package.
DEFAULT_CHECKPOINTS = {
    "fill-mask": "distilbert/distilroberta-base",
    "question-answering": "distilbert/distilbert-base-cased-distilled-squad",
    "token-classification": "dbmdz/bert-large-cased-finetuned-conll03-english",
    "zero-shot-classification": "facebook/bart-large-mnli",
}

BUNDLED_CHECKPOINT = Path(__file__).parent.parent / "assets" / "sentiment"


def supported_tasks() -> list[str]:
    """Names of the tasks, aliases included."""
    return sorted([*TASKS, *ALIASES])


def task_name(task: str) -> str:
    """The name of a task, of which ``task`` may be an alias.

    Raises:
        ValueError: for an unknown task.
    """
    name = ALIASES.get(task, task)
    if name not in TASKS:
        raise ValueError(f"Task {task!r} is not supported; supported are {', '.join(supported_tasks())}.")
    return name


def pipeline_class(task: str) -> "type[Pipeline]":
    """The class that runs a task.

    Raises:
        ValueError: for an unknown task.
    """
    name = task_name(task)
    module = importlib.import_module(f"tf_pipeline.pipelines.{name.replace('-', '_')}")
    return getattr(module, TASKS[name])


def pipeline(
    task: str,
    model: Any = None,
    tokenizer: Any = None,
    config: Any = None,
    dtype: Any = None,
    model_kwargs: dict[str, Any] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    **kwargs: Any,
) -> "Pipeline | Client":
    """Put a model and its tokenizer together for a task.

    Args:
        task: one of :func:`supported_tasks`.
        model: a model, a local folder, a hub id, or the address of an exported model on a server, such as
            ``"http://localhost:8501/v1/models/name"`` or ``"grpc://localhost:8500/name"``. If not given,
            text-classification and feature-extraction use the checkpoint that comes with the package, and the other
            tasks the one that ``transformers`` would.
        tokenizer: a tokenizer, a folder or a hub id; the model's own if not given.
        config: a config, a folder or a hub id, instead of the model's own.
        dtype: dtype or Keras policy of the model, such as ``"bfloat16"``.
        model_kwargs: more arguments of ``from_pretrained``.
        revision: branch, tag or commit on the hub.
        token: access token of the hub.
        **kwargs: ``batch_size``, ``token_budget``, and defaults for the task's own arguments, such as ``top_k``; for a
            server, the arguments of :class:`tf_pipeline.serving.Client`.

    Returns:
        The task's pipeline; for a server its client, which is called alike.

    Raises:
        ValueError: for an unknown task, or a model and tokenizer that do not fit.
    """
    local = {"tokenizer": tokenizer, "config": config, "dtype": dtype, "model_kwargs": model_kwargs}
    if is_server(model):
        return _client(task_name(task), model, local | {"revision": revision, "token": token}, **kwargs)
    task_pipeline = pipeline_class(task)
    if model is None:
        model = _default_checkpoint(task_pipeline.task)
    hub = {key: value for key, value in (("revision", revision), ("token", token)) if value is not None}
    if isinstance(model, (str, os.PathLike)):
        tokenizer = model if tokenizer is None else tokenizer
        model = task_pipeline.auto_class().from_pretrained(
            model, config=config, dtype=dtype, **hub, **(model_kwargs or {})
        )
    elif tokenizer is None:
        raise ValueError("A model given as an object needs its tokenizer too: pass tokenizer=.")
    if isinstance(tokenizer, (str, os.PathLike)):
        from tf_pipeline.tokenization import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer, **hub)
    return task_pipeline(model=model, tokenizer=tokenizer, **kwargs)


def is_server(model: Any) -> bool:
    """Whether a model is given as the address of a server."""
    return isinstance(model, str) and model.startswith(("http://", "https://", "grpc://", "grpcs://"))


def _client(task: str, url: str, local: dict[str, Any], batch_size: int | None = None, **kwargs: Any) -> "Client":
    """The client of a served model, once the model is known to do the task."""
    from tf_pipeline.serving.client import Client

    local["token_budget"] = kwargs.pop("token_budget", None)
    if given := [name for name, value in local.items() if value is not None]:
        raise ValueError(
            f"{', '.join(given)}: only a model that runs in this process takes that; the one at {url} has what it was "
            "exported with."
        )
    if batch_size is not None:
        kwargs["max_batch_size"] = batch_size
    client = Client(url, task=task, **kwargs)
    client.check()
    return client


def _default_checkpoint(task: str) -> str | Path:
    """The checkpoint of a task for which none was named, with a warning."""
    if task in DEFAULT_CHECKPOINTS:
        name = DEFAULT_CHECKPOINTS[task]
        logger.warning("No model was given, so %s is used, from the hub. Name a model for anything that matters.", name)
        return name
    logger.warning(
        "No model was given, so the checkpoint that comes with tf_pipeline is used: a small English film-review "
        "classifier (%s). Name a model for anything that matters.", BUNDLED_CHECKPOINT
    )  # fmt: skip
    return BUNDLED_CHECKPOINT
