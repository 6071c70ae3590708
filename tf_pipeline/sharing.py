"""Put a model on the hub, with a card that says how it was made."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_pipeline.environment import versions
from tf_pipeline.files import write_text
from tf_pipeline.hub import RepositoryError

_GENERATED = "generated_from_keras_callback"
_PACKAGES = ("tf-pipeline", "tensorflow", "keras", "transformers")


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
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.HFValidationError, OSError) as error:
        is_offline = isinstance(error, errors.OfflineModeIsEnabled)
        cure = "" if is_offline else " Log in with `hf auth login` or pass token=."
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
) -> Path:
    """Write ``README.md`` of a folder: the kind of the model, its training, and the numbers of each epoch.

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

    Returns:
        Path of the file.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        model_name=model_name,
        language=language,
        license=license,
        library_name="transformers",
        tags=[_GENERATED, *([tags] if isinstance(tags, str) else tags or ())],
        base_model=finetuned_from,
        pipeline_tag=tasks,
        datasets=dataset,
    )
    origin = f"fine-tuned from `{finetuned_from}`" if finetuned_from else "trained"
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {model_name}",
        f"A {model.config.model_type} model ({type(model).__name__.removeprefix('TF')}), {origin} with TensorFlow.",
        *_training(model),
        "## Versions",
        "\n".join(f"- {name} {version}" for name, version in versions(_PACKAGES).items()),
    ]
    path = Path(folder) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _training(model: Any) -> list[str]:
    """Sections about the training, as far as the model knows of it."""
    parts: list[str] = []
    if getattr(model, "optimizer", None) is not None:
        options = json.dumps(model.optimizer.get_config(), default=str, indent=2, sort_keys=True)
        parts += ["## Training", f"Optimizer `{type(model.optimizer).__name__}`, {model.dtype_policy.name}:"]
        parts.append(f"```json\n{options}\n```")
    history = getattr(model, "history", None)
    if history is not None and history.history:
        parts += ["## Results", _table(history.epoch, history.history)]
    return parts


def _table(epochs: Sequence[int], values: Mapping[str, Sequence[Any]]) -> str:
    """The numbers of each epoch as a table of Markdown."""
    lines = [["epoch", *values], ["---"] * (1 + len(values))]
    for row, epoch in enumerate(epochs):
        lines.append(
            [str(epoch + 1), *(_number(column[row]) if row < len(column) else "" for column in values.values())]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
