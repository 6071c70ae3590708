"""Rows of each task as tokens and labels, and batches of them.

A subclass of :class:`Task` says how rows are tokenized (:meth:`Task.features`, once) and what a batch is made of
(:meth:`Task.finished`, for every batch, where chance is involved).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pipeline import losses
from tf_pipeline.arguments import refuse_unknown, whole_number
from tf_pipeline.data.masking import corrupt_spans, mask_tokens, sentinels_of
from tf_pipeline.data.sources import Row, chunks
from tf_pipeline.losses import IGNORE_INDEX

Feature = dict[str, Any]
# Tokens of a text whose model has no limit.
_LONGEST = 512


class Task:
    """Makes batches for one kind of model.

    Args:
        tokenizer: of the model; a fast one.
        model: one of ours.
        max_length: of a text, in tokens; that of the model and the tokenizer if not given.
        **options: those that :attr:`options` names.

    Attributes:
        options: names and defaults of what the task may be told.
        fill: values that shorter rows are filled up with, by name; others are filled with 0.

    Raises:
        TypeError: for an unknown option.
        ValueError: for a value out of its range, or a slow tokenizer.
    """

    options: Mapping[str, Any] = {}
    fill: Mapping[str, int] = {"labels": IGNORE_INDEX}

    def __init__(self, tokenizer: Any, model: Any, max_length: int | None = None, **options: Any):
        refuse_unknown(f"prepare() for {type(model).__name__}", options, self.options)
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"prepare needs a fast tokenizer; {type(tokenizer).__name__} is not one.")
        self.tokenizer, self.model = tokenizer, model
        limits = [limit for limit in (model.max_length, tokenizer.model_max_length) if limit and limit < 10**9]
        limit = min(limits, default=None)
        self.max_length = whole_number("max_length", limit or _LONGEST if max_length is None else max_length, 2)
        if limit is not None and self.max_length > limit:
            raise ValueError(f"max_length is {max_length}, but the model takes at most {limit} tokens.")
        self.__dict__ |= dict(self.options) | options
        self.check()

    def check(self) -> None:
        """Refuse options out of their range."""

    def features(self, rows: Iterable[Row]) -> Iterator[Feature]:
        """Tokens and labels of rows, which are tokenized in chunks, on all cores."""
        for chunk in chunks(self._alike(rows)):
            yield from self.encoded(chunk)

    def optional(self, row: Row) -> dict[str, Any]:
        """The values of a row that either all rows have or none, ``None`` where it has none."""
        return {}

    def _alike(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, if each has what the first has.

        Raises:
            RowError: for the first row that has more or less.
        """
        expected: dict[str, bool] | None = None
        for row in rows:
            found = {name: value is not None for name, value in self.optional(row).items()}
            expected = expected or found
            for name, there in found.items():
                if there != expected[name]:
                    verb, others = ("has", "lack") if there else ("has no", "have")
                    raise row.error(f"{verb} {name!r}, which the rows before it {others}")
            yield row

    def encoded(self, rows: Sequence[Row]) -> Iterator[Feature]:
        """Tokens and labels of some rows."""
        raise NotImplementedError

    def finished(self, feature: Feature, random: np.random.Generator) -> Feature:
        """The inputs and labels of a row, lists of any length or numbers, as they go into a batch."""
        return feature

    def batch(self, features: Sequence[Feature], random: np.random.Generator) -> dict[str, np.ndarray]:
        """Arrays of a batch, as long as its longest row."""
        made = [self.finished(feature, random) for feature in features]
        return {name: self._padded(name, [one[name] for one in made]) for name in made[0] if name[0] != "_"}

    def _padded(self, name: str, values: Sequence[Any]) -> np.ndarray:
        first = next(iter(values[0]), None) if isinstance(values[0], list) else values[0]
        if isinstance(first, float):
            return np.array(values, np.float32)
        if not isinstance(values[0], list):
            return np.array(values, np.int32)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        padded = np.full([len(values), max(map(len, values))], (fill | dict(self.fill)).get(name, 0), np.int32)
        left = self.tokenizer.padding_side == "left" and not (name == "labels" and self.writes)
        for row, value in zip(padded, values, strict=True):
            row[len(row) - len(value) if left else 0 : len(row) if left else len(value)] = value
        return padded

    # Whether labels are a text of their own, next to the inputs.
    writes = False

    def _inputs(self, encoded: Mapping[str, Any], place: int) -> Feature:
        """The model's inputs of one row of what a tokenizer returned."""
        return {name: list(encoded[name][place]) for name in encoded if name in self.model.tensor_names}

    def _class_of(self, row: Row, value: Any) -> int:
        """The number of a label, given by its name or, unless names look like numbers, by its number.

        Raises:
            RowError: if there is none.
        """
        config = self.model.config
        if isinstance(value, str):
            if value in config.label2id:
                return config.label2id[value]
            if is_number(value) and not any(str(name).lstrip("-").isdecimal() for name in config.label2id):
                value = int(value)
        if isinstance(value, (int, np.integer)) and 0 <= int(value) < config.num_labels:
            return int(value)
        names = ", ".join(map(str, list(config.label2id)[:10]))
        raise row.error(f"has the label {value!r:.80}, but the model's are {names}, or 0 to {config.num_labels - 1}")


def is_number(label: str) -> bool:
    """Whether a label is a number as one writes it: ``01`` and ``1`` are names of two classes."""
    return re.fullmatch("0|[1-9][0-9]{,17}", label) is not None


# Names of the first and the second text of a row in GLUE, XNLI and their kin; QNLI asks a "question" of a "sentence".
_FIRST = ("text", "sentence1", "premise", "question1", "question", "sentence")
_SECOND = ("text_pair", "sentence2", "hypothesis", "question2")


class TextClassification(Task):
    """Rows ``{"text", "label"}``, and ``"text_pair"``: a class, a number, or a list of classes.

    Texts and pairs may have the names that GLUE gives them: ``"sentence1"`` and ``"sentence2"``, ``"premise"`` and
    ``"hypothesis"``, ``"question1"`` and ``"question2"``, ``"question"`` and ``"sentence"``.
    """

    def optional(self, row: Row) -> dict[str, Any]:
        """Its label, and its second text."""
        asked = next((name for name in _FIRST if row.get(name, default=None) is not None), None) == "question"
        second = row.text(*_SECOND, *(["sentence"] if asked else []), default=None)
        return {"label": row.get("label", "labels", default=None), "text_pair": second}

    def encoded(self, rows: Sequence[Row]) -> Iterator[Feature]:
        """Tokens of texts and pairs, each with its label, if it has one."""
        given = [self.optional(row) for row in rows]
        pairs = None if given[0]["text_pair"] is None else [one["text_pair"] for one in given]
        texts = [row.text(*_FIRST) for row in rows]
        encoded = self.tokenizer(texts, pairs, truncation=True, max_length=self.max_length, verbose=False)
        for place, (row, own) in enumerate(zip(rows, given, strict=True)):
            label = own["label"]
            yield self._inputs(encoded, place) | ({} if label is None else {"labels": self._label(row, label)})

    def _label(self, row: Row, value: Any) -> Any:
        config = self.model.config
        kind = config.problem_type or ("regression" if config.num_labels == 1 else None)
        if kind == "regression":
            values = value if isinstance(value, (list, tuple)) else [value]
            if len(values) != config.num_labels:
                raise row.error(f"has {len(values)} numbers as its label, but the model gives {config.num_labels}")
            numbers = [self._number(row, one) for one in values]
            return numbers[0] if config.num_labels == 1 else numbers
        if kind == "multi_label_classification":
            if not isinstance(value, (list, tuple)):
                raise row.error(f"needs a list of labels, and has {value!r:.80}")
            chosen = {self._class_of(row, one) for one in value}
            return [float(place in chosen) for place in range(config.num_labels)]
        return self._class_of(row, value)

    def _number(self, row: Row, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number):
            raise row.error(f"needs a number as its label, and has {value!r:.80}")
        return number


class TokenClassification(Task):
    """Rows ``{"tokens": [words], "labels": [one for each]}``; the first piece of a word has its label.

    Options: ``label_all_tokens`` to label the other pieces too (as the inside of an entity, where there is such a
    label). Words past ``max_length`` are left out.
    """

    options = {"label_all_tokens": False}

    def check(self) -> None:
        """Refuse a tokenizer that would join words without the space between them."""
        if not spaces_words(self.tokenizer):
            raise ValueError(
                f"{type(self.tokenizer).__name__} needs a space before each word: load it with add_prefix_space=True."
            )

    def optional(self, row: Row) -> dict[str, Any]:
        """Its labels."""
        return {"labels": row.listed("labels", "tags", "ner_tags", default=None)}

    def encoded(self, rows: Sequence[Row]) -> Iterator[Feature]:
        """Tokens of words, and their labels."""
        words = [self._words(row) for row in rows]
        encoded = self.tokenizer(
            words, is_split_into_words=True, truncation=True, max_length=self.max_length, verbose=False
        )
        for place, row in enumerate(rows):
            inputs, labels = self._inputs(encoded, place), self.optional(row)["labels"]
            if labels is None:
                yield inputs
                continue
            if len(labels) != len(words[place]):
                raise row.error(f"has {len(words[place])} tokens and {len(labels)} labels")
            classes = [self._class_of(row, label) for label in labels]
            yield inputs | {"labels": self._aligned(encoded.word_ids(place), classes)}

    def _words(self, row: Row) -> list[str]:
        words = row.listed("tokens", "words")
        if not words or not all(isinstance(word, str) for word in words):
            raise row.error(f"needs a list of words as 'tokens', and has {words!r:.80}")
        return words

    def _aligned(self, words: Sequence[int | None], classes: Sequence[int]) -> list[int]:
        labels, earlier = [], None
        for word in words:
            if word is None:
                labels.append(IGNORE_INDEX)
            elif word != earlier:
                labels.append(classes[word])
            else:
                labels.append(self._inside(classes[word]) if self.label_all_tokens else IGNORE_INDEX)
            earlier = word
        return labels

    def _inside(self, label: int) -> int:
        """The label of a word's further pieces: ``I-X`` for ``B-X``."""
        config = self.model.config
        name = str(config.id2label[label])
        return config.label2id.get(f"I-{name[2:]}", label) if name.startswith("B-") else label


def spaces_words(tokenizer: Any) -> bool:
    """Whether words that come one by one are read as those of a text, with spaces between them."""
    words = tokenizer(["a", "b"], is_split_into_words=True, verbose=False)
    return words["input_ids"] == tokenizer("a b", verbose=False)["input_ids"]


class QuestionAnswering(Task):
    """Rows ``{"question", "context", "answers": {"text": [...], "answer_start": [...]}}``, as in SQuAD.

    Answers may also be a list of ``{"text", "answer_start"}``, as in SQuAD's own files. A context is read in windows of
    ``max_length`` tokens (384 at most, if not given) that overlap by ``doc_stride`` (128, or half a window if that is
    less). A window without the answer, and one of a question without answers, is trained to point at its first token.
    Where padding is on the left, the context comes before the question, as in the pipeline.
    """

    options = {"doc_stride": None}

    def __init__(self, tokenizer: Any, model: Any, max_length: int | None = None, **options: Any):
        super().__init__(tokenizer, model, max_length, **options)
        if max_length is None:
            self.max_length = min(self.max_length, 384)
        if self.doc_stride is None:
            self.doc_stride = min(128, self.max_length // 2)
        self._special = tokenizer.num_special_tokens_to_add(pair=True)
        if self.doc_stride >= self.max_length - self._special:
            raise ValueError(
                f"doc_stride is {self.doc_stride}, but has to be less than the {self.max_length - self._special} "
                f"tokens that max_length={self.max_length} leaves to a question and its context."
            )
        self._context = 0 if tokenizer.padding_side == "left" else 1

    def check(self) -> None:
        """Require a valid ``doc_stride``."""
        if self.doc_stride is not None:
            whole_number("doc_stride", self.doc_stride, 0)

    def encoded(self, rows: Sequence[Row]) -> Iterator[Feature]:
        """Windows over contexts, with the places of their answers."""
        questions, contexts = [row.text("question") for row in rows], [row.text("context") for row in rows]
        answers = [self._answer(row) for row in rows]
        lengths = map(len, self.tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"])
        for row, context, length in zip(rows, contexts, lengths, strict=True):
            room = self.max_length - self._special - length
            # A context that fits as a whole needs no windows.
            if room <= self.doc_stride and len(self.tokenizer.tokenize(context)) > room:
                raise row.error(f"has a question of {length} tokens, which leaves its context no room in max_length="
                                f"{self.max_length} with doc_stride={self.doc_stride}")  # fmt: skip
        texts = (questions, contexts) if self._context else (contexts, questions)
        encoded = self.tokenizer(
            *texts, truncation="only_second" if self._context else "only_first", max_length=self.max_length,
            stride=self.doc_stride, return_overflowing_tokens=True, return_offsets_mapping=True, verbose=False,
        )  # fmt: skip
        for place, owner in enumerate(encoded["overflow_to_sample_mapping"]):
            start, end = self._span(encoded, place, answers[owner])
            yield self._inputs(encoded, place) | {"start_positions": start, "end_positions": end}

    def batch(self, features: Sequence[Feature], random: np.random.Generator) -> dict[str, np.ndarray]:
        """Arrays of a batch; places count the padding that is on the left of some tokenizers' rows."""
        arrays = super().batch(features, random)
        if self.tokenizer.padding_side == "left":
            shifts = arrays["input_ids"].shape[1] - np.array([len(one["input_ids"]) for one in features], np.int32)
            arrays |= {name: arrays[name] + shifts for name in ("start_positions", "end_positions")}
        return arrays

    def _answer(self, row: Row) -> tuple[int, int] | None:
        """First and last character of a row's first answer; ``None`` if it has no answer."""
        texts, starts = answers_of(row)
        if not texts:
            return None
        if len(starts) != len(texts):
            raise row.error(f"has {len(texts)} answers and {len(starts)} places of them ('answer_start')")
        text, start = texts[0], starts[0]
        if not text or row.text("context")[start : start + len(text)] != text:
            raise row.error(f"has the answer {text!r:.80}, which is not at place {start} of its context")
        return start, start + len(text) - 1

    def _span(self, encoded: Any, place: int, answer: tuple[int, int] | None) -> tuple[int, int]:
        """Tokens of the answer, if the window holds all of it."""
        ids, special = encoded["input_ids"][place], self.tokenizer.cls_token_id
        first = ids.index(special) if special in ids else 0
        if answer is None:
            return first, first
        offsets = encoded["offset_mapping"][place]
        tokens = [
            token for token, part in enumerate(encoded.sequence_ids(place))
            if part == self._context and offsets[token][0] <= answer[1] and offsets[token][1] > answer[0]
        ]  # fmt: skip
        whole = tokens and offsets[tokens[0]][0] <= answer[0] and offsets[tokens[-1]][1] > answer[1]
        return (tokens[0], tokens[-1]) if whole else (first, first)


def answers_of(row: Row) -> tuple[list[str], list[int]]:
    """Texts and places of a row's answers, both empty if it has none.

    Raises:
        RowError: for answers of another form than SQuAD's.
    """
    answers = row.get("answers", "answer", default={})
    if isinstance(answers, (list, tuple)) and all(isinstance(one, Mapping) for one in answers):
        answers = {name: [one[name] for one in answers if name in one] for name in ("text", "answer_start")}
    if isinstance(answers, Mapping):
        texts, starts = answers.get("text", []), answers.get("answer_start", [])
        texts, starts = ([one] if isinstance(one, (str, int)) else one for one in (texts, starts))
        if _all_are(str, texts) and _all_are(int, starts):
            return list(texts), list(starts)
    raise row.error(f"needs answers such as {{'text': ['red'], 'answer_start': [6]}}, and has {answers!r:.80}")


def _all_are(kind: type, values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kind) for value in values)


class FillMask(Task):
    """Rows ``{"text"}``; tokens are masked again for every epoch.

    Options: ``mlm_probability`` (0.15), and ``whole_word`` to mask the pieces of a word together.
    """

    options = {"mlm_probability": 0.15, "whole_word": False}

    def check(self) -> None:
        """Refuse a tokenizer without a mask token and a probability out of range."""
        if self.tokenizer.mask_token_id is None:
            raise ValueError(
                f"{type(self.tokenizer).__name__} has no mask token, which {type(self.model).__name__} needs."
            )
        if not 0 < self.mlm_probability <= 1:
            raise ValueError(f"mlm_probability has to be more than 0 and at most 1; got {self.mlm_probability!r:.80}.")

    def encoded(self, rows: Sequence[Row]) -> Iterator[Feature]:
        """Tokens of texts, and the words that they belong to."""
        encoded = self.tokenizer(
            [row.text("text") for row in rows], truncation=True, max_length=self.max_length,
            return_special_tokens_mask=True, verbose=False,
        )  # fmt: skip
        for place, row in enumerate(rows):
            words = encoded.word_ids(place) if self.whole_word else range(len(encoded["input_ids"][place]))
            special = encoded["special_tokens_mask"][place]
            groups = [None if alone else word for word, alone in zip(words, special, strict=True)]
            if all(group is None for group in groups):
                raise row.error("has a text without a token that could be masked")
            yield self._inputs(encoded, place) | {"_groups": groups}

    def finished(self, feature: Feature, random: np.random.Generator) -> Feature:
        """Masked tokens, and the originals as labels."""
        ids, labels = mask_tokens(
            feature["input_ids"], feature["_groups"], random, self.tokenizer.mask_token_id,
            self.model.config.vocab_size, self.mlm_probability,
        )  # fmt: skip
        return feature | {"input_ids": ids, "labels": labels}


class TextGeneration(Task):
    """Rows ``{"text"}``, or ``{"prompt", "completion"}``, of which the completion alone is learned; each gets an end.

    Options: ``pack`` to join texts and cut them into blocks of ``max_length`` tokens, where a token sees those of
    other texts before it, as in pre-training; the last block is shorter.
    """

    options = {"pack": False}

    def features(self, rows: Iterable[Row]) -> Iterator[Feature]:
        """Tokens of texts, or of blocks of texts."""
        made = super().features(rows)
        return self._blocks(made) if self.pack else made

    def encoded(self, rows: Sequence[Row]) -> Iterator[Feature]:
        """Tokens of texts with an end, and the same as labels."""
        prompts = [row.text("prompt", default="") for row in rows]
        texts = [
            row.text("completion") if prompt else row.text("text") for row, prompt in zip(rows, prompts, strict=True)
        ]
        whole = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
        ids = self.tokenizer(whole, verbose=False, return_offsets_mapping=True)
        end = self.tokenizer.eos_token_id
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            tokens = list(ids["input_ids"][place])
            learned = [after > len(prompt) or not prompt for _, after in ids["offset_mapping"][place]]
            if end is not None and tokens[-1:] == [end]:
                learned[-1] = True
            elif end is not None:
                tokens, learned = [*tokens, end], [*learned, True]
            if not self.pack:
                length = len(tokens)
                tokens, learned = tokens[: self.max_length], learned[: self.max_length]
                if not any(learned[1:]):
                    raise row.error(
                        f"has a completion that begins after max_length={self.max_length} of its {length} tokens"
                        if prompt and length > 1 else f"has a text of {length} tokens, and at least 2 are needed"
                    )  # fmt: skip
            labels = [token if own else IGNORE_INDEX for token, own in zip(tokens, learned, strict=True)]
            yield {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}

    def _blocks(self, features: Iterable[Feature]) -> Iterator[Feature]:
        rest: Feature = {"input_ids": [], "attention_mask": [], "labels": []}
        for feature in features:
            rest = {name: values + feature[name] for name, values in rest.items()}
            while len(rest["input_ids"]) >= self.max_length:
                yield from self._taught({name: values[: self.max_length] for name, values in rest.items()})
                rest = {name: values[self.max_length :] for name, values in rest.items()}
        yield from self._taught(rest)

    def _taught(self, block: Feature) -> Iterator[Feature]:
        """A block, unless nothing in it is learned, as in a part of a long prompt."""
        if any(label != IGNORE_INDEX for label in block["labels"][1:]):
            yield block

    def finished(self, feature: Feature, random: np.random.Generator) -> Feature:
        """The labels as the model's loss takes them: at their tokens, or at those before."""
        if type(self.model).task_loss is losses.causal_lm:
            return feature
        return feature | {"labels": [*feature["labels"][1:], IGNORE_INDEX]}


class TextToText(Task):
    """Rows ``{"text", "target"}``; also ``"summary"`` or ``"translation"`` for the target, ``"article"`` for the text.

    Options: ``prefix``, put in front of every text; ``max_target_length`` (that of the text if not given);
    ``corrupt_spans`` to ask for spans of the text itself, as T5 was pre-trained, with ``noise_density`` (0.15) and
    ``mean_span_length`` (3).
    """

    options = {
        "prefix": "", "max_target_length": None, "corrupt_spans": False, "noise_density": 0.15, "mean_span_length": 3.0,
    }  # fmt: skip
    writes = True

    def check(self) -> None:
        """Refuse options out of their range, and a tokenizer without sentinels."""
        if not 0 < self.noise_density < 1:
            raise ValueError(f"noise_density has to be between 0 and 1; got {self.noise_density!r:.80}.")
        if not self.mean_span_length >= 1:
            raise ValueError(f"mean_span_length has to be at least 1; got {self.mean_span_length!r:.80}.")
        self._sentinels = sentinels_of(self.tokenizer) if self.corrupt_spans else []

    def optional(self, row: Row) -> dict[str, Any]:
        """Its target, unless the text itself is asked for."""
        names = ("target", "summary", "highlights", "translation", "label")
        return {} if self.corrupt_spans else {"target": row.text(*names, default=None)}

    def encoded(self, rows: Sequence[Row]) -> Iterator[Feature]:
        """Tokens of texts, and of their targets as labels."""
        texts = [self.prefix + row.text("text", "article", "document", "source") for row in rows]
        if self.corrupt_spans:
            room = self.max_length - 1  # for the end
            tokens = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            for row, ids in zip(rows, tokens, strict=True):
                if len(ids[:room]) < 2:
                    raise row.error(f"has a text of {len(ids[:room])} tokens, and spans need at least 2")
                yield {"input_ids": list(ids[:room])}
            return
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, verbose=False)
        targets = [self.optional(row)["target"] for row in rows]
        written = None if None in targets else self.tokenizer(
            text_target=targets, truncation=True, max_length=self.max_target_length or self.max_length, verbose=False
        )["input_ids"]  # fmt: skip
        for place in range(len(rows)):
            yield self._inputs(encoded, place) | ({} if written is None else {"labels": list(written[place])})

    def finished(self, feature: Feature, random: np.random.Generator) -> Feature:
        """The text and its target, or a text whose spans are drawn."""
        if not self.corrupt_spans:
            return feature
        read, written = corrupt_spans(
            feature["input_ids"], random, self._sentinels, self.noise_density, self.mean_span_length
        )
        end = self.tokenizer.eos_token_id
        return {"input_ids": [*read, end], "attention_mask": [1] * (len(read) + 1), "labels": [*written, end]}


TASKS: dict[str, type[Task]] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "fill-mask": FillMask,
    "text-generation": TextGeneration,
    "text2text-generation": TextToText,
}
