"""Put a model on the hub, with a card that says how it was made."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_pipeline.environment import versions
from tf_pipeline.files import write_text
from tf_pipeline.heads import head_of
from tf_pipeline.hub import RepositoryError

_GENERATED = "generated_from_keras_callback"
_PACKAGES = ("tf-pipeline", "tensorflow", "keras", "transformers")
# Names of metrics that the hub has another name for, and options of optimizers that limit gradients.
_HUB_METRICS = {"mean_absolute_error": "mae"}
_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
# What the pipelines of some tasks are asked in the card; a text, unless it is said here.
_ASKED = {
    "question-answering": 'question="Who came?", context="Ann came."',
    "fill-mask": 'f"A text with a {pipe.tokenizer.mask_token}."',
}


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_description: str | None = None,
) -> str:
    """Upload the files of a folder as one commit to a repository of the hub, which is made if it does not exist.

    Args:
        folder: the folder.
        repo_id: ``"name"`` or ``"organization/name"``.
        commit_message: first line of the commit.
        private: whether a new repository is private.
        token: of the hub; that of ``hf auth login`` if not given.
        revision: the branch; the main one if not given.
        create_pr: open a pull request rather than commit.
        commit_description: text of the commit.

    Returns:
        The address of the commit.

    Raises:
        RepositoryError: if the hub cannot be reached or does not accept it; the folder stays as it is.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload model",
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )
    except Exception as error:  # of the hub's library, the network or a file
        was_answered = isinstance(error, errors.HfHubHTTPError)
        cure = " Log in with `hf auth login` or pass token=." if was_answered else ""
        raise RepositoryError(f"{repo_id!r} could not be written to on the hub: {str(error).strip()}{cure}") from error
    return str(commit.commit_url)


def push_model(model: Any, repo_id: str, max_shard_size: int | str = "5GB", tokenizer: Any = None, **options: Any):
    """Save a model, and its tokenizer if given, into a temporary folder, and upload it.

    Args:
        model: one of our models.
        repo_id: see :func:`push_folder`.
        max_shard_size: size past which the weights are split over several files.
        tokenizer: a tokenizer to put next to it.
        **options: of :func:`push_folder`.

    Returns:
        The address of the commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        return push_folder(folder, repo_id, **options)


def write_model_card(
    model: Any,
    folder: str | os.PathLike,
    model_name: str,
    language: str | Sequence[str] | None = None,
    license: str | None = None,
    tags: str | Sequence[str] | None = None,
    finetuned_from: str | None = None,
    tasks: str | None = None,
    dataset: str | Sequence[str] | None = None,
    details: Mapping[str, Any] | None = None,
    kept_epoch: int | None = None,
    curve: str | None = None,
) -> Path:
    """Write ``README.md`` of a folder: the kind of the model, its use, the numbers of each epoch, and its training.

    The optimizer and the numbers are those that the Keras model knows of its own training.

    Args:
        model: one of our models.
        folder: the folder, made if it does not exist.
        model_name: its name.
        language: code of its language, or several.
        license: name of its license.
        tags: further tags for the hub.
        finetuned_from: hub id of the checkpoint it started from.
        tasks: the hub's name of its task, such as ``"text-classification"``.
        dataset: hub id of the data, or several.
        details: further facts of its training by name, which take the place of those of the optimizer.
        kept_epoch: number of the epoch, from 1, whose weights it has.
        curve: name of a picture of its learning curve in the folder.

    Returns:
        Path of the file.
    """
    from huggingface_hub import ModelCardData

    history = getattr(getattr(model, "history", None), "history", None) or {}
    data = ModelCardData(
        model_name=model_name,
        language=language,
        license=license,
        library_name="transformers",
        tags=[_GENERATED, *([tags] if isinstance(tags, str) else tags or ())],
        base_model=finetuned_from,
        pipeline_tag=tasks,
        datasets=dataset,
        metrics=_metrics(history) or None,
    )
    base = finetuned_from or (details or {}).get("base model")
    origin = f"fine-tuned from `{base}`" if base else "trained"
    purpose = f" for {tasks}" if tasks else ""
    name = type(model).__name__.removeprefix("TF")
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {model_name}",
        f"A {model.config.model_type} model ({name}), {origin}{purpose} with TensorFlow.",
        *_usage(model_name, tasks, name),
        *_labels(model),
        *_results(model, history, kept_epoch, curve),
        *_training(model, details),
        "## Versions",
        "\n".join(f"- {name} {version}" for name, version in versions(_PACKAGES).items()),
    ]
    path = Path(folder) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _metrics(history: Mapping[str, Any]) -> list[str]:
    """The hub's names of the numbers of an epoch."""
    names = [name.removeprefix("val_") for name in history if not name.endswith("loss")]
    return sorted({"rouge" if name.startswith("rouge") else _HUB_METRICS.get(name, name) for name in names})


def _usage(model_name: str, task: str | None, class_name: str) -> list[str]:
    """A section on how the model is called."""
    if task is None:
        return []
    call = f"""from tf_pipeline import pipeline

pipe = pipeline("{task}", model="{model_name}")
print(pipe({_ASKED.get(task, '"A text."')}))"""
    both = f"`transformers.{class_name}.from_pretrained` loads the same files in PyTorch."
    return ["## Usage", f"```python\n{call}\n```", both]


def _labels(model: Any) -> list[str]:
    """A section on the labels, unless they have no names."""
    head, names = head_of(type(model).__name__), model.config.id2label or {}
    if head is None or not head.names_labels or all(name == f"LABEL_{place}" for place, name in names.items()):
        return []
    return ["## Labels", _table(["number", "label"], sorted(names.items()))]


def _results(model: Any, history: Mapping[str, Any], kept_epoch: int | None, curve: str | None) -> list[str]:
    """A section on the numbers of each epoch, as far as the model knows of them."""
    if not history:
        return []
    rows = [
        [epoch + 1, *(_number(column[row]) if row < len(column) else "" for column in history.values())]
        for row, epoch in enumerate(model.history.epoch)
    ]
    kept = [f"The weights are those of epoch {kept_epoch}."] if kept_epoch else []
    return [
        "## Results",
        *kept,
        _table(["epoch", *history], rows),
        *([f"![The loss of each epoch]({curve})"] if curve else []),
    ]


def _training(model: Any, details: Mapping[str, Any] | None) -> list[str]:
    """A section on the training, as far as it is told, or the model knows of it."""
    if details is None and getattr(model, "optimizer", None) is not None:
        options = model.optimizer.get_config()
        given = {name.replace("_", " "): options.get(name) for name in ("weight_decay", *_CLIPS)}
        details = {
            "optimizer": type(model.optimizer).__name__,
            "learning rate": _rate(options["learning_rate"]),
            **{name: value for name, value in given.items() if value},
            "precision": model.dtype_policy.name,
        }
    return ["## Training", _table(["", ""], details.items())] if details else []


def _rate(value: Any) -> str:
    """A learning rate: a number, or the schedules of one, from the outermost to the innermost."""
    if not isinstance(value, Mapping):
        return f"{value:g}"
    names, config = [], value
    while isinstance(config, Mapping) and "class_name" in config:
        names.append(config["class_name"])
        config, last = config["config"].get("decay_schedule_fn"), config["config"]
    highest = last.get("initial_learning_rate")
    return ", ".join([f"{highest:g}"] * isinstance(highest, float) + names)


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of Markdown."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
