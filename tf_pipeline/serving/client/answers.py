"""Turn the answers of an export into those of the task's local pipeline: the same dictionaries, nested alike."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pipeline.arguments import RETURN_TENSORS, check_choice
from tf_pipeline.pipelines.batching import windows
from tf_pipeline.pipelines.calls import (
    Calls,
    FillMaskCalls,
    QuestionAnsweringCalls,
    TextClassificationCalls,
    TextGenerationCalls,
    TextToTextCalls,
    ZeroShotClassificationCalls,
    as_chat,
    as_labels,
    as_text,
    in_form,
    lone_text,
    old_pair,
    question_and_context,
    text_arguments,
    texts_with_labels,
)
from tf_pipeline.serving.client.transport import ServingError, Signature

DEFAULT_SIGNATURE = "serving_default"
STEP = "step"
# In a request with options, what stands for an option that the call does not have.
AS_EXPORTED = -1
# Arguments of tokenizers: an export has them built in, whatever its task.
OF_TOKENIZERS = frozenset(
    ("add_special_tokens", "max_length", "pad_to_multiple_of", "padding", "padding_side", "tokenize_kwargs",
     "tokenizer_kwargs", "truncation", "truncation_side")
)  # fmt: skip

Predict = Callable[[str, Mapping[str, list[Any]]], dict[str, np.ndarray]]


class RemoteTask(Calls):
    """A task of a served model: local pipelines' way of being called, over the network.

    Attributes:
        outputs: for each kind of signature that does the task, the outputs that it is known by.
        arguments: names of a call's arguments.
        built_in: arguments of the local pipeline that were decided when the model was exported.

    Args:
        predict: runs a signature, by name, on a list of texts for each of its inputs.
        signatures: the model's.
        signature: the one to use; the task's own choice if not given.
        batch_size: maximum number of rows in a request.
        **parameters: defaults for the arguments of a call.
    """

    outputs: tuple[frozenset[str], ...] = ()
    arguments: tuple[str, ...] = ()
    built_in: frozenset[str] = frozenset()
    input_errors = (ValueError, TypeError, KeyError)

    def __init__(self, predict: Predict, signatures: Mapping[str, Signature], signature: str | None, batch_size: int,
                 **parameters: Any):  # fmt: skip
        self.predict = predict
        self.signatures = signatures
        self.signature = signature
        self.batch_size = batch_size
        self._defaults = parameters
        self.sanitize_parameters(**parameters)

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        """Whether a signature takes texts and answers as the task does."""
        texts = all(info.dtype == "string" for info in signature.inputs.values())
        return texts and any(names <= set(signature.outputs) for names in cls.outputs)

    def sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments that a client can honour.

        Raises:
            ValueError: for one that was decided when the model was exported, or a ``top_k`` that is no number.
            TypeError: for one that the task does not have.
        """
        for name in parameters:
            if name in self.built_in or name in OF_TOKENIZERS:
                raise ValueError(
                    f"{name} was decided when the model was exported and cannot be chosen in a call: leave it out, or "
                    f"export the model again with another {name}."
                )
            if name not in self.arguments:
                takes = ", ".join(self.arguments) or "no arguments"
                raise TypeError(f"{self.task} on a server does not take {name}; it takes {takes}.")
        top_k = parameters.get("top_k")
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k is {top_k!r}, but has to be a positive number.")
        return {}, parameters

    def columns(self, inputs: list[Any]) -> dict[str, list[str]]:
        """The inputs of a signature, by name, from those of a call."""
        return text_arguments(inputs)

    def request(self, inputs: list[Any], arguments: Mapping[str, Any]) -> tuple[str, dict[str, list[Any]]]:
        """Name of the signature for inputs and arguments of a call, and its inputs."""
        columns = self.columns(inputs)
        return self.choose(columns), columns

    def choose(self, columns: Mapping[str, list[str]]) -> str:
        """Name of the signature for some columns."""
        return self.signature or DEFAULT_SIGNATURE

    def answer(self, outputs: Mapping[str, Any], value: Any, **arguments: Any) -> Any:
        """The answer to one input, from the outputs of its row."""
        raise NotImplementedError

    def _windows(self, inputs: Iterable[Any], batch_size: int | None) -> Iterator[list[Any]]:
        return windows(inputs, batch_size, first=batch_size)

    def _run_window(self, window: list[Any], offset: int, parameters, batch_size, bar) -> list[Any]:
        name, columns = self.request(window, parameters[1])
        outputs = self.predict(name, columns)
        rows = [{key: array[row] for key, array in outputs.items()} for row in range(len(window))]
        answers = [self.answer(row, value, **parameters[1]) for row, value in zip(rows, window, strict=True)]
        bar.update(len(window))
        return answers


class TextClassification(TextClassificationCalls, RemoteTask):
    """Labels and scores; ``top_k`` as in the local pipeline."""

    outputs = (frozenset({"labels", "scores"}),)
    arguments = ("top_k",)
    built_in = frozenset({"function_to_apply"})

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        """See :class:`RemoteTask`; labels of a request are another task's."""
        return super().fits(signature) and "candidate_labels" not in signature.inputs

    def sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """See :class:`RemoteTask`."""
        if parameters.pop("return_all_scores", None):
            raise ValueError(
                "return_all_scores=True is not supported on a server, which does not tell the order of the labels in "
                "the config: pass top_k=None for all labels, best first."
            )
        return super().sanitize_parameters(**parameters)

    def columns(self, inputs: list[Any]) -> dict[str, list[str]]:
        """See :class:`RemoteTask`."""
        return text_arguments([old_pair(one) for one in inputs])

    def choose(self, columns: Mapping[str, list[str]]) -> str:
        """Pairs have a signature of their own."""
        if self.signature is not None or "text_pair" not in columns:
            return super().choose(columns)
        if "pairs" not in self.signatures:
            raise ValueError(f"The export takes no pairs: it has the signatures {', '.join(sorted(self.signatures))}.")
        return "pairs"

    def answer(self, outputs: Mapping[str, Any], value: Any, top_k: int | None | str = "") -> Any:
        """The best label, or with ``top_k`` the sorted list."""
        ranked = _records(outputs, {"label": "labels", "score": "scores"}, len(outputs["labels"]))
        if top_k == "":
            return ranked[0]
        return ranked[:top_k] if self._are_all(len(ranked)) else _first(ranked, top_k, "labels")

    def _are_all(self, count: int) -> bool:
        """Whether this many labels are all that the model has, as far as its logits tell."""
        logits = self.signatures["tokens"].outputs.get("logits") if "tokens" in self.signatures else None
        return logits is not None and logits.shape is not None and logits.shape[-1] == count


class ZeroShotClassification(ZeroShotClassificationCalls, RemoteTask):
    """Labels that come with each text, and their scores."""

    outputs = (frozenset({"labels", "scores", "num_labels"}),)
    arguments = ("candidate_labels",)
    built_in = frozenset({"hypothesis_template", "multi_class", "multi_label"})

    def sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """See :class:`RemoteTask`."""
        if "candidate_labels" in parameters:
            parameters["candidate_labels"] = as_labels(parameters["candidate_labels"])
        return super().sanitize_parameters(**parameters)

    def request(self, inputs: list[Any], arguments: Mapping[str, Any]) -> tuple[str, dict[str, list[Any]]]:
        """See :class:`RemoteTask`.

        Raises:
            ValueError: for a label that would not arrive as it is.
        """
        labels = arguments.get("candidate_labels")
        texts = texts_with_labels(inputs, labels)
        if wrong := [label for label in labels if "," in label or not label or label != label.strip()]:
            raise ValueError(
                f"The label {wrong[0]!r} cannot be sent: the export takes labels with commas between them and no space "
                "around them."
            )
        return self.choose({}), {"text": texts, "candidate_labels": [",".join(labels)] * len(texts)}

    def answer(self, outputs: Mapping[str, Any], value: Any, **arguments: Any) -> dict[str, Any]:
        """``sequence``, ``labels``, best first, and ``scores``."""
        ranked = _records(outputs, {"labels": "labels", "scores": "scores"}, int(outputs["num_labels"]))
        return {"sequence": as_text(value)} | {name: [entry[name] for entry in ranked] for name in ("labels", "scores")}


class TokenClassification(RemoteTask):
    """Entities, joined as the export joins them."""

    task = "token-classification"
    outputs = tuple(
        frozenset({name, "word", "score", "start", "end", "num_entities"}) for name in ("entity_group", "entity")
    )
    built_in = frozenset(
        ("aggregation_strategy", "delimiter", "ignore_labels", "is_split_into_words", "offset_mapping", "stride")
    )

    def answer(self, outputs: Mapping[str, Any], value: Any) -> list[dict[str, Any]]:
        """The entities of a text."""
        single = "entity" in outputs
        names = ("entity", "score", "index", "word", "start", "end") if single else (
            "entity_group", "score", "word", "start", "end"
        )  # fmt: skip
        return _records(outputs, dict(zip(names, names, strict=True)), int(outputs["num_entities"]))


class QuestionAnswering(QuestionAnsweringCalls, RemoteTask):
    """Answers; ``top_k`` as in the local pipeline."""

    outputs = (frozenset({"answer", "score", "start", "end"}),)
    arguments = ("top_k",)
    built_in = frozenset(
        ("align_to_words", "doc_stride", "handle_impossible_answer", "max_answer_len", "max_question_len",
         "max_seq_len")
    )  # fmt: skip

    def columns(self, inputs: list[Any]) -> dict[str, list[str]]:
        """See :class:`RemoteTask`."""
        pairs = [question_and_context(one) for one in inputs]
        return dict(zip(("question", "context"), map(list, zip(*pairs, strict=True)), strict=True))

    def answer(self, outputs: Mapping[str, Any], value: Any, top_k: int | None = None) -> Any:
        """The best answer, or a list of several."""
        names = {name: name for name in ("score", "start", "end", "answer")}
        outputs = {name: _column(one) for name, one in outputs.items()}
        available = len(outputs["answer"])
        found = _records(outputs, names, int(outputs.get("num_answers", [available])[0]))
        wanted = 1 if top_k is None else top_k
        if wanted > available:
            raise _too_many(wanted, available, "answers")
        found = found[:wanted] or [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]
        return found[0] if len(found) == 1 else found


class FeatureExtraction(RemoteTask):
    """Vectors: one per text, or with the signature ``token_embeddings`` one per token."""

    task = "feature-extraction"
    outputs = (frozenset({"sentence_embedding"}), frozenset({"last_hidden_state", "attention_mask"}))
    arguments = ("return_tensors",)
    built_in = frozenset({"normalize", "pooling"})

    def sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """See :class:`RemoteTask`."""
        check_choice("return_tensors", parameters.get("return_tensors"), RETURN_TENSORS)
        return super().sanitize_parameters(**parameters)

    def answer(self, outputs: Mapping[str, Any], value: Any, return_tensors: bool | str = False) -> Any:
        """``[hidden]``, or ``[1, seq, hidden]`` without padding."""
        if "sentence_embedding" in outputs:
            features = outputs["sentence_embedding"]
        else:
            places = np.flatnonzero(outputs["attention_mask"])
            if not len(places):
                raise ValueError(f"The text {value!r:.80} has no tokens; give one that is not empty.")
            features = outputs["last_hidden_state"][None, places[0] : places[-1] + 1]
        return in_form(features, return_tensors)


class FillMask(FillMaskCalls, RemoteTask):
    """Tokens for masks; ``top_k`` as in the local pipeline.

    An export with the signature ``all_masks`` answers for each mask of a text, as the local pipeline does. One without
    answers for the first mask only.
    """

    outputs = (frozenset({"token_str", "sequence", "token", "score"}),)
    arguments = ("top_k",)
    built_in = frozenset({"targets"})

    def choose(self, columns: Mapping[str, list[str]]) -> str:
        """All masks, if the export has that."""
        return self.signature or ("all_masks" if "all_masks" in self.signatures else DEFAULT_SIGNATURE)

    def answer(self, outputs: Mapping[str, Any], value: Any, top_k: int | None = None) -> Any:
        """The tokens for the mask, best first, or a list of these for several masks."""
        names = {name: name for name in ("score", "token", "token_str", "sequence")}
        if "num_masks" in outputs:
            masks = int(outputs["num_masks"])
            rows = [{name: outputs[name][mask] for name in names} for mask in range(masks)]
        else:
            masks = int(outputs["score"].any())  # zeros stand for no mask
            rows = [outputs] * masks
        if not masks:
            raise ValueError(f"No mask_token found on the input {value!r:.80}")
        answers = []
        for row in rows:
            ranked = _records(row, names, len(row["token"]))
            # 5 is the local pipeline's default; an export may have fewer.
            answers.append(ranked[:5] if top_k is None else _first(ranked, top_k, "tokens for a mask"))
        return answers[0] if masks == 1 else answers


# An output of tasks that go on with a text, which tells them apart.
_OF_PROMPTS = "num_prompt_tokens"


class _Writing(RemoteTask):
    """Texts. Options of a call go to the signature ``with_options``, the same for every row."""

    key = "generated_text"
    outputs = (frozenset({"generated_text", "num_generated_tokens"}),)
    arguments = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
    built_in = frozenset(
        ("clean_up_tokenization_spaces", "do_sample", "early_stopping", "generation_config", "length_penalty",
         "min_length", "min_new_tokens", "min_p", "no_repeat_ngram_size", "num_beams", "num_return_sequences", "prefix",
         "repetition_penalty", "return_full_text", "return_tensors", "skip_special_tokens", "src_lang", "stop_sequence",
         "stop_strings", "tgt_lang")
    )  # fmt: skip

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        """See :class:`RemoteTask`; there may be options next to the texts."""
        inputs = {name: info for name, info in signature.inputs.items() if name not in cls.arguments}
        return super().fits(Signature(inputs, signature.outputs))

    def sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """See :class:`RemoteTask`.

        Raises:
            ValueError: for a value that ``generate`` does not take either.
        """
        for name, (is_sound, rule) in _ROW_OPTIONS.items():
            if (value := parameters.get(name)) is not None and (isinstance(value, bool) or not is_sound(value)):
                raise ValueError(f"{name} is {value!r:.80}, but has to be {rule}.")
        others = {name: value for name, value in parameters.items() if name != "top_k"}
        super().sanitize_parameters(**others)
        return {}, parameters

    def columns(self, inputs: list[Any]) -> dict[str, list[str]]:
        """See :class:`RemoteTask`."""
        if any(as_chat(one) for one in inputs):
            raise ValueError("The export takes texts, no chats: apply the tokenizer's chat template first.")
        return {"text": [lone_text(one) for one in inputs]}

    def request(self, inputs: list[Any], arguments: Mapping[str, Any]) -> tuple[str, dict[str, list[Any]]]:
        """See :class:`RemoteTask`."""
        asked = any(value is not None for value in arguments.values())
        name = self.signature or ("with_options" if asked else DEFAULT_SIGNATURE)
        return _request(self.signatures, name, self.columns(inputs), arguments, self.arguments)

    def answer(self, outputs: Mapping[str, Any], value: Any, **arguments: Any) -> list[dict[str, str]]:
        """The texts that were written for one."""
        return [{self.key: text} for text in _column(outputs[self.key]).tolist()]

    def stream_text(self, inputs: Any, step_tokens: int | None = None, **parameters: Any) -> Iterator[str]:
        """See :meth:`tf_pipeline.serving.Client.stream_text`."""
        if STEP not in self.signatures:
            raise ValueError(
                f"The export has no signature {STEP}, which those with num_beams, num_return_sequences, guidance_scale "
                "or prompt_lookup_num_tokens lack: call the client for whole texts."
            )
        if step_tokens is not None and not _is_count(step_tokens):
            raise ValueError(f"step_tokens is {step_tokens!r:.80}, but has to be a whole number, 1 or more.")
        arguments = self.sanitize_parameters(**(self._defaults | parameters))[1]
        _, columns = _request(self.signatures, STEP, self.columns([inputs]), arguments, self.arguments)
        columns["step_tokens"] = [AS_EXPORTED if step_tokens is None else step_tokens]
        return self._pieces(columns)

    def _pieces(self, columns: dict[str, list[Any]]) -> Iterator[str]:
        """Parts of one text, from one request after the other."""
        shown, count, outputs = "", -1, {"state": [""], "is_done": [False]}
        while not outputs["is_done"][0]:
            outputs = self.predict(STEP, columns | {"state": [str(outputs["state"][0])]})
            text, before, count = str(outputs["new_text"][0]), count, int(outputs["num_generated_tokens"][0])
            # What is settled may be less than before, but never something else.
            if not (text.startswith(shown) or shown.startswith(text) and not outputs["is_done"][0]):
                raise ServingError("The server's answer", None, f"The text was {shown!r:.80}, and is now {text!r:.80}.")
            if count < 0 or count <= before and not outputs["is_done"][0]:
                raise ServingError("The server's answer", None, "The text does not go on from its state.")
            if len(text) > len(shown):
                yield text[len(shown) :]
                shown = text


class TextGeneration(TextGenerationCalls, _Writing):
    """Texts that are continued."""

    outputs = (_Writing.outputs[0] | {_OF_PROMPTS},)


class Text2TextGeneration(TextToTextCalls, _Writing):
    """Texts from texts."""

    @classmethod
    def fits(cls, signature: Signature) -> bool:
        """See :class:`RemoteTask`; continuations count their prompts, too."""
        return super().fits(signature) and _OF_PROMPTS not in signature.outputs


class Summarization(Text2TextGeneration):
    """Short texts from long ones."""

    task = "summarization"
    key = "summary_text"
    outputs = (frozenset({"summary_text", "num_generated_tokens"}),)


class Translation(Text2TextGeneration):
    """Texts in another language."""

    task = "translation"
    key = "translation_text"
    outputs = (frozenset({"translation_text", "num_generated_tokens"}),)


def _request(
    signatures: Mapping[str, Signature], name: str, columns: Mapping[str, list[str]], arguments: Mapping[str, Any],
    options: tuple[str, ...],
) -> tuple[str, dict[str, list[Any]]]:  # fmt: skip
    """A signature and its inputs: texts, and the options of a call for each."""
    asked = {key: value for key, value in arguments.items() if value is not None}
    takes = [key for key in options if name in signatures and key in signatures[name].inputs]
    if wrong := [key for key in asked if key not in takes]:
        offered = ", ".join(takes) or "no options"
        raise ValueError(f"The export takes no {wrong[0]} in a call: its signature {name} takes {offered}.")
    rows = len(columns["text"])
    return name, {**columns, **{key: [asked.get(key, AS_EXPORTED)] * rows for key in takes}}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, (int, float)) and least <= value <= most


# Which values a row may have, and a rule for messages.
_ROW_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (_is_count, "a whole number, 1 or more"),
    "temperature": (lambda x: _is_number(x, 0, 3e38) and x > 0, "a number greater than 0"),
    "top_k": (lambda x: isinstance(x, int) and 0 <= x < 2**31, "a whole number, 0 or more"),
    "top_p": (lambda x: _is_number(x, 0, 1), "a number from 0 to 1"),
    "seed": (lambda x: isinstance(x, int) and 0 <= x < 2**31, "a whole number, 0 or more, below 2**31"),
}

REMOTE_TASKS: dict[str, type[RemoteTask]] = {
    served.task: served
    for served in (
        TextClassification, TokenClassification, QuestionAnswering, FeatureExtraction, FillMask, TextGeneration,
        Text2TextGeneration, Summarization, Translation, ZeroShotClassification,
    )
}  # fmt: skip


def _first(ranked: list[dict[str, Any]], top_k: int | None, what: str) -> list[dict[str, Any]]:
    if top_k is not None and top_k > len(ranked):
        raise _too_many(top_k, len(ranked), what)
    return ranked[:top_k]


def _too_many(top_k: int, available: int, what: str) -> ValueError:
    return ValueError(
        f"top_k is {top_k}, but the export gives {available} {what}: export the model with a larger top_k, or ask for "
        "fewer."
    )


def _records(outputs: Mapping[str, np.ndarray], names: Mapping[str, str], count: int) -> list[dict[str, Any]]:
    """One dictionary per entry, as plain Python values: keys are their names, values the outputs' names."""
    columns = [outputs[name][:count].tolist() for name in names.values()]
    if any(len(column) != count for column in columns):
        raise ServingError("The server's answer", None, f"{count} entries are announced, {len(columns[0])} are there.")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _column(value: Any) -> np.ndarray:
    """A lone value as an array of one; a string stays one, because NumPy's own strings lose zeros at the end."""
    return np.array([value], object) if isinstance(value, str) else np.atleast_1d(value)
