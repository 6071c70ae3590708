"""The names of the tasks, and the test that tells a model on a server from one that runs here."""

import re
from typing import Any

# Classes by task; their modules, named after the task, are imported when they are needed.
TASKS = {
    "audio-classification": "AudioClassificationPipeline",
    "automatic-speech-recognition": "AutomaticSpeechRecognitionPipeline",
    "feature-extraction": "FeatureExtractionPipeline",
    "fill-mask": "FillMaskPipeline",
    "image-classification": "ImageClassificationPipeline",
    "image-feature-extraction": "ImageFeatureExtractionPipeline",
    "question-answering": "QuestionAnsweringPipeline",
    "summarization": "SummarizationPipeline",
    "table-question-answering": "TableQuestionAnsweringPipeline",
    "text-classification": "TextClassificationPipeline",
    "text-generation": "TextGenerationPipeline",
    "text2text-generation": "Text2TextGenerationPipeline",
    "token-classification": "TokenClassificationPipeline",
    "translation": "TranslationPipeline",
    "zero-shot-classification": "ZeroShotClassificationPipeline",
    "zero-shot-image-classification": "ZeroShotImageClassificationPipeline",
}
# The tasks whose inputs are no texts, and the key that these have in a row.
MEDIA = {
    "audio-classification": "audio",
    "automatic-speech-recognition": "audio",
    "image-classification": "image",
    "image-feature-extraction": "image",
    "zero-shot-image-classification": "image",
}
# A task that names the languages of a translation.
_LANGUAGES = re.compile(r"translation_[^_]+_to_[^_]+")
ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}
# Tasks of transformers that are not here, and why.
LEFT_OUT = {
    "conversational": "text-generation takes chats, as lists of messages",
}


def supported_tasks() -> list[str]:
    """Names of the tasks, aliases included; ``xx`` and ``yy`` stand for codes of languages."""
    return sorted([*TASKS, *ALIASES, "translation_xx_to_yy"])


def task_name(task: str) -> str:
    """The name of a task, of which ``task`` may be an alias.

    Raises:
        ValueError: for an unknown task.
    """
    if not isinstance(task, str):
        raise ValueError(f"A task is a name; got {task!r:.80}. Supported are {', '.join(supported_tasks())}.")
    name = "translation" if _LANGUAGES.fullmatch(task) else ALIASES.get(task, task)
    if name in LEFT_OUT:
        raise ValueError(f"Task {task!r} is not supported: {LEFT_OUT[name]}.")
    if name not in TASKS:
        raise ValueError(f"Task {task!r} is not supported; supported are {', '.join(supported_tasks())}.")
    return name


def is_server(model: Any) -> bool:
    """Whether a model is given as the address of a server."""
    return isinstance(model, str) and model.startswith(("http://", "https://", "grpc://", "grpcs://"))
