"""The names of the tasks, and the test that tells a model on a server from one that runs here."""

from typing import Any

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


def is_server(model: Any) -> bool:
    """Whether a model is given as the address of a server."""
    return isinstance(model, str) and model.startswith(("http://", "https://", "grpc://", "grpcs://"))
