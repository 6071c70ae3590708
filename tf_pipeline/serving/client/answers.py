"""Turn the answers of an export into those of the task's local pipeline: the same dictionaries, nested alike."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pipeline.pipelines.batching import windows
from tf_pipeline.pipelines.calls import (
    Calls,
    FillMaskCalls,
    QuestionAnsweringCalls,
    TextClassificationCalls,
    old_pair,
    question_and_context,
    text_arguments,
)
from tf_pipeline.serving.client.transport import ServingError, Signature

DEFAULT_SIGNATURE = "serving_default"
# Arguments of tokenizers: an export has them built in, whatever its task.
OF_TOKENIZERS = frozenset(
    ("add_special_tokens", "max_length", "pad_to_multiple_of", "padding", "padding_side", "tokenize_kwargs",
     "tokenizer_kwargs", "truncation", "truncation_side")
)  # fmt: skip

Predict = Callable[[str, Mapping[str, list[str]]], dict[str, np.ndarray]]


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

    def choose(self, columns: Mapping[str, list[str]]) -> str:
        """Name of the signature for some columns."""
        return self.signature or DEFAULT_SIGNATURE

    def answer(self, outputs: Mapping[str, Any], value: Any, **arguments: Any) -> Any:
        """The answer to one input, from the outputs of its row."""
        raise NotImplementedError

    def _windows(self, inputs: Iterable[Any], batch_size: int | None) -> Iterator[list[Any]]:
        return windows(inputs, batch_size, first=batch_size)

    def _run_window(self, window: list[Any], offset: int, parameters, batch_size, bar) -> list[Any]:
        columns = self.columns(window)
        name = self.choose(columns)
        if set(columns) != (takes := set(self.signatures[name].inputs)):
            raise ValueError(
                f"Signature {name} takes {', '.join(sorted(takes))}; the input has {', '.join(sorted(columns))}."
            )
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
        return ranked[0] if top_k == "" else _first(ranked, top_k, "labels")


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

    def answer(self, outputs: Mapping[str, Any], value: Any, return_tensors: bool = False) -> Any:
        """``[hidden]``, or ``[1, seq, hidden]`` without padding."""
        if "sentence_embedding" in outputs:
            features = outputs["sentence_embedding"]
        else:
            places = np.flatnonzero(outputs["attention_mask"])
            own = slice(places[0], places[-1] + 1) if len(places) else slice(0)
            features = outputs["last_hidden_state"][None, own]
        if return_tensors:
            import tensorflow as tf

            return tf.convert_to_tensor(features)
        return features.tolist()


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


REMOTE_TASKS: dict[str, type[RemoteTask]] = {
    served.task: served
    for served in (TextClassification, TokenClassification, QuestionAnswering, FeatureExtraction, FillMask)
}


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
