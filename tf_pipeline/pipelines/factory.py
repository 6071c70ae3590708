"""``pipeline(task)``: find the pipeline of a task, load its model and tokenizer, put them together."""

import contextlib
import importlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_pipeline.arguments import PIPELINE_ARGUMENTS, settled
from tf_pipeline.hub import split_hub_options
from tf_pipeline.pipelines.tasks import TASKS, is_server, task_name

if TYPE_CHECKING:
    from tf_pipeline.pipelines.base import Pipeline
    from tf_pipeline.serving.client import Client

logger = logging.getLogger(__name__)

# The checkpoints that transformers runs where none is named. The two tasks that are not here have one in the package.
DEFAULT_CHECKPOINTS = {
    "fill-mask": "distilbert/distilroberta-base",
    "question-answering": "distilbert/distilbert-base-cased-distilled-squad",
    "summarization": "sshleifer/distilbart-cnn-12-6",
    "text-generation": "openai-community/gpt2",
    "text2text-generation": "google-t5/t5-base",
    "token-classification": "dbmdz/bert-large-cased-finetuned-conll03-english",
    "translation": "google-t5/t5-base",
    "zero-shot-classification": "facebook/bart-large-mnli",
}

BUNDLED_CHECKPOINT = Path(__file__).parent.parent / "assets" / "sentiment"


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
    config: Any = None,
    tokenizer: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    use_fast: bool = True,
    trust_remote_code: bool | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> "Pipeline | Client":
    """Put a model and its tokenizer together for a task.

    Args:
        task: one of :func:`~tf_pipeline.pipelines.tasks.supported_tasks`.
        model: a model, a local folder, a hub id, or the address of an exported model on a server, such as
            ``"http://localhost:8501/v1/models/name"`` or ``"grpc://localhost:8500/name"``. If not given,
            text-classification and feature-extraction use the checkpoint that comes with the package, and the other
            tasks the one that ``transformers`` would.
        config: a config, a folder or a hub id, instead of the model's own.
        tokenizer: a tokenizer, a folder or a hub id, or one of the latter with arguments as a tuple
            ``(id, {"use_fast": False})``; the model's own if not given.
        dtype: dtype or Keras policy of the model, such as ``"bfloat16"``; formerly ``torch_dtype``.
        device: device of the model; see :func:`tf_pipeline.pipelines.base.device_name`.
        use_fast: load a fast tokenizer.
        trust_remote_code: let a checkpoint bring its own code.
        model_kwargs: more arguments of ``from_pretrained``.
        **kwargs: ``revision``, ``token`` and the other options of the hub, ``batch_size``, ``token_budget``, and
            defaults for the task's own arguments, such as ``top_k``; for a server, the arguments of
            :class:`tf_pipeline.serving.Client`. Other arguments of ``transformers`` do nothing or are refused, with
            a replacement: see ``tf_pipeline.arguments``.

    Returns:
        The task's pipeline; for a server its client, which is called alike.

    Raises:
        ValueError: for an unknown task, a value that cannot be honoured, or a model and tokenizer that do not fit.
        TypeError: for an argument that neither this function nor the task has.
    """
    kwargs, model_kwargs = settled(kwargs, PIPELINE_ARGUMENTS), dict(model_kwargs or {})
    given = {"dtype": dtype, "torch_dtype": kwargs.pop("torch_dtype", None)}
    given = {name: value for name, value in given.items() if value is not None}
    if twice := sorted(given.keys() & model_kwargs.keys()):
        raise ValueError(f"{', '.join(twice)} is given twice: as an argument and in model_kwargs.")
    loading = model_kwargs | given
    hub = {name: value for name, value in split_hub_options(kwargs).items() if value is not None}
    if is_server(model):
        local = {"tokenizer": tokenizer, "config": config, "device": device, **loading, **hub}
        return _client(task_name(task), model, local, **kwargs)
    task_pipeline = pipeline_class(task)
    task_pipeline.check_names(set(kwargs) - {"batch_size", "token_budget"})
    if model is None:
        model = _default_checkpoint(task_pipeline.task)
    if trust_remote_code is not None:
        hub["trust_remote_code"] = trust_remote_code
    if isinstance(model, (str, os.PathLike)):
        tokenizer = model if tokenizer is None else tokenizer
        with _placed(device):
            model = task_pipeline.auto_class().from_pretrained(model, config=config, **loading, **hub)
    elif tokenizer is None:
        raise ValueError("A model given as an object needs its tokenizer too: pass tokenizer=.")
    elif not hasattr(model, "tensor_names"):
        raise ValueError(
            f"{type(model).__name__} is no model of tf_pipeline. Save it with save_pretrained, and pass the folder."
        )
    elif wrong := [name for name, value in {"config": config, **loading, **hub}.items() if value is not None]:
        raise ValueError(f"{', '.join(wrong)}: only a model that is loaded here takes that, and this one is an object.")
    tokenizer = _tokenizer(tokenizer, use_fast, hub | split_hub_options(loading))
    if task_pipeline.task != task and task_pipeline.task == "translation":
        kwargs["task"] = task  # the languages are in its name
    return task_pipeline(model=model, tokenizer=tokenizer, device=device, **kwargs)


def _placed(device: Any):
    """A scope that creates variables on a device, if there is one."""
    if device is None:
        return contextlib.nullcontext()
    import tensorflow as tf

    from tf_pipeline.pipelines.base import device_name

    return tf.device(device_name(device))


def _tokenizer(tokenizer: Any, use_fast: bool, options: dict[str, Any]) -> Any:
    """The tokenizer itself, loaded if it is named."""
    if isinstance(tokenizer, tuple):
        tokenizer, own = tokenizer
        options, use_fast = options | own, own.get("use_fast", use_fast)
    if not isinstance(tokenizer, (str, os.PathLike)):
        return tokenizer
    from tf_pipeline.tokenization import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer, **options | {"use_fast": use_fast})


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
