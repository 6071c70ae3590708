"""``pipeline(task)``: find the pipeline of a task, load its model and tokenizer, put them together."""

import contextlib
import importlib
import inspect
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_pipeline.arguments import PIPELINE_ARGUMENTS, settled
from tf_pipeline.hub import PROCESSOR_FILES, RepositoryError, repository_file, split_hub_options
from tf_pipeline.pipelines.tasks import TASKS, is_server, supported_tasks, task_name

if TYPE_CHECKING:
    from tf_pipeline.pipelines.base import Pipeline
    from tf_pipeline.serving.client import Client

logger = logging.getLogger(__name__)

# The checkpoints that transformers runs where none is named. The two tasks that are not here have one in the package.
DEFAULT_CHECKPOINTS = {
    "audio-classification": "superb/wav2vec2-base-superb-ks",
    "automatic-speech-recognition": "facebook/wav2vec2-base-960h",
    "fill-mask": "distilbert/distilroberta-base",
    "image-classification": "google/vit-base-patch16-224",
    "image-feature-extraction": "google/vit-base-patch16-224",
    "question-answering": "distilbert/distilbert-base-cased-distilled-squad",
    "summarization": "sshleifer/distilbart-cnn-12-6",
    "table-question-answering": "google/tapas-base-finetuned-wtq",
    "text-generation": "openai-community/gpt2",
    "text2text-generation": "google-t5/t5-base",
    "token-classification": "dbmdz/bert-large-cased-finetuned-conll03-english",
    "translation": "google-t5/t5-base",
    "zero-shot-classification": "facebook/bart-large-mnli",
    "zero-shot-image-classification": "openai/clip-vit-base-patch32",
}

# Arguments of every pipeline that is made here, besides those of its task.
_OF_PIPELINES = {"batch_size", "token_budget"}

BUNDLED_CHECKPOINT = Path(__file__).parent.parent / "assets" / "sentiment"


def pipeline_class(task: str) -> "type[Pipeline]":
    """The class that runs a task.

    Raises:
        ValueError: for an unknown task.
    """
    name = task_name(task)
    module = importlib.import_module(f"tf_pipeline.pipelines.{name.replace('-', '_')}")
    return getattr(module, TASKS[name])


def inferred_task(model: Any, tasks: Iterable[str], config: Any = None, **hub_options: Any) -> str:
    """The task of a model that is given without one.

    Args:
        model: a model, a folder or a hub id.
        tasks: those that there are.
        config: a config, a folder or a hub id, instead of the model's own.
        **hub_options: options of the hub, such as ``revision``.

    Raises:
        ValueError: if neither the model's class nor the one that its config names is for a single task.
    """
    from tf_pipeline.heads import head_of

    if isinstance(model, (str, os.PathLike)):
        source = model if config is None else config
        known = source if hasattr(source, "architectures") else _config(source, **hub_options)
        names = known.architectures or []
    else:
        names = [base.__name__ for base in type(model).__mro__]
    head = next(filter(None, map(head_of, names)), None)
    if head is not None and head.task in tasks:
        return head.task
    raise ValueError(
        f"{names[0] if names else 'The config'} does not tell the task; name one: {', '.join(sorted(tasks))}."
    )


def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    feature_extractor: Any = None,
    image_processor: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    engine: str | None = None,
    quantize: str | None = None,
    use_fast: bool = True,
    trust_remote_code: bool | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> "Pipeline | Client":
    """Put a model and its tokenizer together for a task.

    Args:
        task: one of :func:`~tf_pipeline.pipelines.tasks.supported_tasks`; if not given, the one that the model is
            for, if its class, or the one that its config names, tells one.
        model: a model, a local folder, a hub id, or the address of an exported model on a server, such as
            ``"http://localhost:8501/v1/models/name"`` or ``"grpc://localhost:8500/name"``. If not given,
            text-classification and feature-extraction use the checkpoint that comes with the package, and the other
            tasks the one that ``transformers`` would.
        config: a config, a folder or a hub id, instead of the model's own.
        tokenizer: a tokenizer, a folder or a hub id, or one of the latter with arguments as a tuple
            ``(id, {"use_fast": False})``; the model's own if not given.
        feature_extractor: likewise, for tasks on sounds.
        image_processor: likewise, for tasks on images.
        dtype: dtype or Keras policy of the model, such as ``"bfloat16"``; formerly ``torch_dtype``.
        device: device of the model; see :func:`tf_pipeline.pipelines.base.device_name`.
        engine: the engine that runs the model: ``"tensorflow"`` (the default), ``"openvino"``, ``"xla"``, or
            ``"auto"`` for OpenVINO where it is installed and runs the task; see :mod:`tf_pipeline.engines`.
        quantize: ``"int8"`` for weights that OpenVINO keeps as eight-bit integers; answers are then close, not equal.
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
    if task is None and model is None:
        raise ValueError(f"Pass a task, a model or both; tasks are {', '.join(supported_tasks())}.")
    if not isinstance(model_kwargs, Mapping | None):
        raise ValueError(f"model_kwargs is {model_kwargs!r:.80}, but has to be a dictionary of arguments.")
    kwargs, model_kwargs = settled(kwargs, PIPELINE_ARGUMENTS), dict(model_kwargs or {})
    given = {"dtype": dtype, "torch_dtype": kwargs.pop("torch_dtype", None)}
    given = {name: value for name, value in given.items() if value is not None}
    if twice := sorted(given.keys() & model_kwargs.keys()):
        raise ValueError(f"{', '.join(twice)} is given twice: as an argument and in model_kwargs.")
    loading = model_kwargs | given
    loading |= split_hub_options(loading)
    hub = {name: value for name, value in split_hub_options(kwargs).items() if value is not None}
    processors = {"tokenizer": tokenizer, "feature_extractor": feature_extractor, "image_processor": image_processor}
    if is_server(model):
        local = {
            **processors,
            "config": config,
            "device": device,
            "engine": engine,
            "quantize": quantize,
            **loading,
            **hub,
        }
        return _client(task and task_name(task), model, local, **kwargs)
    is_named = isinstance(model, (str, os.PathLike))
    if not is_named and model is not None and not hasattr(model, "tensor_names"):
        raise ValueError(
            f"{type(model).__name__} is no model of tf_pipeline: pass one, or a folder or a hub id. Save another "
            "library's with save_pretrained, and pass the folder."
        )
    if trust_remote_code is not None:
        hub["trust_remote_code"] = trust_remote_code
    if task is None:
        task = inferred_task(model, TASKS, config, **(hub if is_named else {}))
    task_pipeline = pipeline_class(task)
    task_pipeline.check_names(set(kwargs) - _OF_PIPELINES)
    if model is None:
        model = _named_default(task_pipeline.task)
    needed = task_pipeline.processors
    for name, value in processors.items():
        if value is not None and name not in needed:
            what = f"{task_pipeline.task} has inputs for its {' and '.join(needed).replace('_', ' ')} alone."
            raise ValueError(f"{name}={value!r:.80} is not supported: {what}")
    if isinstance(model, (str, os.PathLike)):
        if engine is not None:
            source = model if config is None else config
            loading, kwargs = _for_engine(engine, task_pipeline, source, device, hub, loading, kwargs)
        processors |= {name: model for name in needed if processors[name] is None}
        with _placed(device):
            model = task_pipeline.auto_class().from_pretrained(model, config=config, **loading, **hub)
    elif missing := next((name for name in needed if processors[name] is None), None):
        words = missing.replace("_", " ")
        raise ValueError(f"A model given as an object needs its {words} too: pass {missing}=.")
    elif wrong := [name for name, value in {"config": config, **loading, **hub}.items() if value is not None]:
        raise ValueError(f"{', '.join(wrong)}: only a model that is loaded here takes that, and this one is an object.")
    options = hub | split_hub_options(loading)
    kwargs |= {
        name: _processor(name, value, use_fast, options) for name, value in processors.items() if value is not None
    }
    if task_pipeline.task != task and task_pipeline.task == "translation":
        kwargs["task"] = task  # the languages are in its name
    return task_pipeline(model=model, device=device, engine=engine or "tensorflow", quantize=quantize, **kwargs)


def check_arguments(task: str, arguments: Mapping[str, Any]) -> None:
    """Require that :func:`pipeline` takes arguments of these names for a task and a model that is loaded here.

    Raises:
        TypeError: for one that it does not take.
    """
    own = inspect.signature(pipeline).parameters
    others = settled({name: value for name, value in arguments.items() if name not in own}, PIPELINE_ARGUMENTS)
    split_hub_options(others)  # which leaves those of the task
    pipeline_class(task).check_names(set(others) - _OF_PIPELINES - {"torch_dtype"})


def _for_engine(
    engine: str,
    task_pipeline: type,
    source: Any,
    device: Any,
    hub: dict[str, Any],
    loading: dict[str, Any],
    kwargs: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of loading and of the pipeline: OpenVINO computes in half precision from float32 weights.

    They are left as they are wherever TensorFlow will run the model.
    """
    from tf_pipeline.engines import PRECISIONS, chosen_engine
    from tf_pipeline.model import resolve_dtype
    from tf_pipeline.pipelines.base import ON_CPU, device_name

    name = next((name for name in ("dtype", "torch_dtype") if loading.get(name) not in (None, "auto")), None)
    if name is None or "openvino" not in task_pipeline.engines or chosen_engine(engine) != "openvino":
        return loading, kwargs
    if engine == "auto":
        known = source if hasattr(source, "model_type") else _config(source, **hub)
        if device_name(device) not in ON_CPU or "openvino" not in task_pipeline.class_for(known).engines:
            return loading, kwargs
    precision = resolve_dtype(loading[name]).compute_dtype
    if precision not in PRECISIONS:
        return loading, kwargs
    return loading | {name: "float32"}, kwargs | {"precision": precision}


def _config(source: str | os.PathLike, **hub_options: Any) -> Any:
    from tf_pipeline.config import AutoConfig

    return AutoConfig.from_pretrained(source, **hub_options)


def _placed(device: Any):
    """A scope that creates variables on a device, if there is one."""
    if device is None:
        return contextlib.nullcontext()
    import tensorflow as tf

    from tf_pipeline.pipelines.base import device_name

    return tf.device(device_name(device))


def _processor(kind: str, processor: Any, use_fast: bool, options: dict[str, Any]) -> Any:
    """A tokenizer, feature extractor or image processor itself, loaded if it is named."""
    given = processor
    if isinstance(processor, tuple) and len(processor) == 2 and isinstance(processor[1], Mapping):
        processor, own = processor
        options, use_fast = options | own, own.get("use_fast", use_fast)
    if callable(processor):
        return processor
    if not isinstance(processor, (str, os.PathLike)):
        raise ValueError(
            f"{kind} is {given!r:.80}, but has to be a {kind.replace('_', ' ')}, a folder or a hub id, or a tuple of "
            "one of the latter and a dictionary of arguments."
        )
    if kind == "tokenizer":
        from tf_pipeline.tokenization import AutoTokenizer

        return AutoTokenizer.from_pretrained(processor, **options | {"use_fast": use_fast})
    import transformers

    hub = split_hub_options(dict(options))
    if not any(repository_file(processor, name, required=False, **hub) for name in PROCESSOR_FILES):
        raise RepositoryError(f"{processor} has no {kind}: none of {', '.join(PROCESSOR_FILES)} is there.")
    auto = transformers.AutoImageProcessor if kind == "image_processor" else transformers.AutoFeatureExtractor
    return auto.from_pretrained(processor, **options)


def _client(
    task: str | None, url: str, local: dict[str, Any], batch_size: int | None = None, **kwargs: Any
) -> "Client":
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


def default_checkpoint(task: str) -> str | Path:
    """The checkpoint of a task for which none is named."""
    return DEFAULT_CHECKPOINTS.get(task, BUNDLED_CHECKPOINT)


def _named_default(task: str) -> str | Path:
    """The checkpoint of a task for which none was named, with a warning."""
    name = default_checkpoint(task)
    if task in DEFAULT_CHECKPOINTS:
        logger.warning("No model was given, so %s is used, from the hub. Name a model for anything that matters.", name)
        return name
    logger.warning(
        "No model was given, so the checkpoint that comes with tf_pipeline is used: a small English film-review "
        "classifier (%s). Name a model for anything that matters.", name
    )  # fmt: skip
    return name
