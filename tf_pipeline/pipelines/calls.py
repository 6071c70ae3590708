"""Calls of pipelines, whatever runs the model: the forms of inputs, and the nesting of answers.

Nothing here loads TensorFlow, so that a pipeline on a server can be called without it.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import length_hint
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from tf_pipeline.arguments import ArgumentError, EngineError, whole_number
from tf_pipeline.forks import ForkedProcessError

# Seconds after which a progress bar appears.
PROGRESS_DELAY = 2.0


# Exceptions that every input would raise, whatever it is.
ERRORS_OF_ALL = (ForkedProcessError, EngineError, ImportError)


class Calls:
    """Takes one input, a list or a stream, and gives answers in their order.

    Subclasses run the model in ``_run_window``, say how many inputs it takes at a time in ``_windows``, and which
    arguments there are in ``sanitize_parameters``.
    """

    task = ""
    unit = "text"  # of inputs, in messages
    batch_size: int | None = None
    # Exceptions that fail one input; any other ends a stream.
    input_errors: tuple[type[Exception], ...] = (Exception,)
    _defaults: Mapping[str, Any] = {}

    def sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split the arguments of a call into those of the tokenizer and those of ``postprocess``.

        Raises:
            TypeError: for an argument that is neither.
        """
        raise NotImplementedError

    def _split(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of a call and the defaults, split.

        Raises:
            ArgumentError: for a value out of range.
        """
        try:
            return self.sanitize_parameters(**(self._defaults | parameters))
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            raise ArgumentError(str(error)).with_traceback(error.__traceback__) from None

    def _windows(self, inputs: Iterable[Any], batch_size: int | None) -> Iterator[list[Any]]:
        raise NotImplementedError

    def _run_window(self, window: list[Any], offset: int, parameters, batch_size, bar) -> list[Any]:
        raise NotImplementedError

    def __call__(self, inputs: Any, batch_size: int | None = None, **parameters: Any) -> Any:
        """Run all stages.

        Args:
            inputs: a text; a pair ``{"text": …, "text_pair": …}``; a list of these; or a generator, a data set of
                PyTorch's, iterable or with a length and items, or a ``tf.data.Dataset`` of these.
            batch_size: maximum number of rows in a batch, for this call. With 1, each input of a generator is answered
                before the next is read; otherwise several are read ahead.
            **parameters: arguments of the tokenizer (``truncation=True``, ``max_length``, ``padding_side``, …) and of
                the task.

        Returns:
            The answer for one text, a list for a list, and an iterator for anything else.
        """
        arguments = self._split(parameters), self._rows(batch_size)
        if self.is_single(inputs):
            return next(self._run([inputs], *arguments))
        if isinstance(inputs, (list, tuple)):
            return list(self._run(inputs, *arguments))
        if not isinstance(inputs, Iterable) and not is_map_style(inputs):
            raise ValueError(f"Inputs are a text, a list, a generator or a dataset; got {type(inputs).__name__}.")
        return self._run(inputs, *arguments)

    def stream(self, inputs: Iterable[Any], batch_size: int | None = None, **parameters: Any) -> Iterator[Any]:
        """Answers for any number of inputs, in their order; an input that fails gives its exception instead.

        Args:
            inputs: an iterable; if it has a length, the progress bar shows how much is left.
            batch_size: as in a call.
            **parameters: as in a call.
        """
        return self._run(inputs, self._split(parameters), self._rows(batch_size), True)

    def _rows(self, batch_size: int | None) -> int | None:
        """The maximum number of rows in a batch of a call."""
        if batch_size is not None:
            whole_number("batch_size", batch_size, 1)
        return batch_size or self.batch_size

    def is_single(self, inputs: Any) -> bool:
        """Whether this is one input rather than several."""
        is_scalar = isinstance(inputs, np.ndarray) and inputs.ndim == 0 or is_tensor(inputs) and inputs.shape.rank == 0
        return isinstance(inputs, (str, bytes, Mapping)) or is_scalar

    def _elements(self, inputs: Iterable[Any]) -> Iterator[Any]:
        """Inputs of any iterable that has no length."""
        return _elements(inputs)

    def _run(self, inputs: Iterable[Any], parameters, batch_size, keep_errors: bool = False) -> Iterator[Any]:
        total = length_hint(inputs) or None  # a data set may have a length that it does not know
        # disable=None shows the bar on a terminal only.
        with tqdm(total=total, desc=self.task, unit=self.unit, delay=PROGRESS_DELAY, disable=None, leave=False) as bar:
            done = 0
            if is_map_style(inputs):
                inputs = map(inputs.__getitem__, range(len(inputs)))
            elements = inputs if isinstance(inputs, Sequence) else self._elements(inputs)
            if batch_size == 1 and not isinstance(elements, Sequence):
                pieces = ([one] for one in elements)  # the source may need an answer before it goes on
            else:
                pieces = self._windows(elements, batch_size)
            for window in pieces:
                if isinstance(inputs, Sequence) and not keep_errors:
                    yield from self._run_window(window, done, parameters, batch_size, bar)
                else:
                    for answer in self._run_kept(window, done, parameters, batch_size, bar):
                        if isinstance(answer, Exception) and not keep_errors:
                            raise answer
                        yield answer
                done += len(window)

    def _run_kept(self, window: list[Any], offset: int, *arguments: Any) -> Iterator[Any]:
        """As :meth:`_run_window`, with exceptions for the inputs that fail, found by halving the window."""
        bar, answered = arguments[-1], arguments[-1].n
        try:
            answers = self._run_window(window, offset, *arguments)
        except ERRORS_OF_ALL:
            raise
        except self.input_errors as error:
            if len(window) > 1:
                bar.n = answered  # all are run again
                half = len(window) // 2
                yield from self._run_kept(window[:half], offset, *arguments)
                yield from self._run_kept(window[half:], offset + half, *arguments)
                return
            answers = [error]
        yield from answers


class TextClassificationCalls(Calls):
    """A lone string gives a list of one, unless the call has ``top_k``, as in ``transformers``."""

    task = "text-classification"

    def __call__(self, inputs, **parameters: Any):
        """See the class and :class:`Calls`."""
        result = super().__call__(inputs, **parameters)
        lone = self.is_single(inputs) and not isinstance(inputs, Mapping)
        return [result] if lone and "top_k" not in parameters else result


class ZeroShotClassificationCalls(Calls):
    """The labels may come second, without their name."""

    task = "zero-shot-classification"

    def __call__(self, sequences, *args: Any, **parameters: Any):
        """See the class and :class:`Calls`."""
        if len(args) > 1 or (args and "candidate_labels" in parameters):
            raise ValueError(f"Unable to understand extra arguments {args}")
        if args:
            parameters["candidate_labels"] = args[0]
        return super().__call__(sequences, **parameters)


class FillMaskCalls(Calls):
    """A list of one text gives that text's answer, as in ``transformers``."""

    task = "fill-mask"

    def __call__(self, inputs, **parameters: Any):
        """See the class and :class:`Calls`."""
        answers = super().__call__(inputs, **parameters)
        return answers[0] if isinstance(inputs, list) and len(inputs) == 1 else answers


class QuestionAnsweringCalls(Calls):
    """Questions and contexts may be given by name, by position, or together."""

    task = "question-answering"

    def __call__(self, *args: Any, question=None, context=None, X=None, data=None, **parameters: Any):  # noqa: N803
        """See the class and :class:`Calls`; a list of one question gives one answer, as in ``transformers``."""
        inputs = _gather(args, X if data is None else data, question, context)
        if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
            inputs = inputs[0]
        return super().__call__(inputs, **parameters)

    def is_single(self, inputs: Any) -> bool:
        """Whether this is one question rather than several."""
        return super().is_single(inputs) or hasattr(inputs, "question_text")


class TableQuestionAnsweringCalls(Calls):
    """A table and its question may be given by name, by position, or together."""

    task = "table-question-answering"
    unit = "table"

    def __call__(self, table=None, query=None, **parameters: Any):
        """See the class and :class:`Calls`; a list of one table gives one answer, as in ``transformers``."""
        if table is None:
            raise ValueError("Keyword argument `table` cannot be None.")
        inputs = table if query is None else {"table": table, "query": query}
        if hasattr(inputs, "iterrows"):  # which a DataFrame has
            raise ValueError("query is missing: give table= and query=, or a dictionary of both.")
        if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
            inputs = inputs[0]
        return super().__call__(inputs, **parameters)


class TextGenerationCalls(Calls):
    """A chat, which is a list of messages, is one input."""

    task = "text-generation"

    def __call__(self, text_inputs, **parameters: Any):
        """See the class and :class:`Calls`."""
        return super().__call__(text_inputs, **parameters)

    def is_single(self, inputs: Any) -> bool:
        """Whether this is one prompt or chat rather than several."""
        return super().is_single(inputs) or as_chat(inputs) is not None


class TextToTextCalls(Calls):
    """A list of texts gives a list of answers where each text has one, as in ``transformers``."""

    task = "text2text-generation"

    def __call__(self, inputs, **parameters: Any):
        """See the class and :class:`Calls`."""
        answers = super().__call__(inputs, **parameters)
        if isinstance(inputs, (list, tuple)) and all(len(answer) == 1 for answer in answers):
            return [answer[0] for answer in answers]
        return answers


def as_chat(value: Any) -> list[Mapping[str, Any]] | None:
    """The messages of a chat, or ``None`` if the value is no list of dictionaries.

    Raises:
        ValueError: for a message without ``role`` or ``content``.
    """
    if isinstance(value, Mapping) and set(value) == {"messages"}:
        value = value["messages"]
        if not value:
            raise ValueError("The chat is empty: messages holds no message.")
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(one, Mapping) for one in value):
        return None
    if not any("role" in one or "content" in one for one in value):
        return None
    for message in value:
        if not {"role", "content"} <= set(message):
            raise ValueError(f"A message of a chat is {{'role': …, 'content': …}}; got {message!r:.80}.")
    return list(value)


def text_arguments(texts: list[Any]) -> dict[str, Any]:
    """Arguments for the tokenizer from texts, or from pairs."""
    if not any(isinstance(text, Mapping) for text in texts):
        return {"text": [as_text(text) for text in texts]}
    if not all(isinstance(text, Mapping) and set(text) == {"text", "text_pair"} for text in texts):
        wrong = next(t for t in texts if not (isinstance(t, Mapping) and set(t) == {"text", "text_pair"}))
        if isinstance(wrong, Mapping) and set(wrong) == {"text"} and all(set(t) == {"text"} for t in texts):
            return {"text": [as_text(text["text"]) for text in texts]}
        raise ValueError(
            f'A pair is {{"text": …, "text_pair": …}}, and pairs and single texts do not mix; got {wrong!r}.'
        )
    return {name: [as_text(text[name]) for text in texts] for name in ("text", "text_pair")}


def as_text(value: Any, hint: str = ' For a pair, give {"text": …, "text_pair": …}.') -> str:
    """A text from a string, bytes, or a string tensor or array without axes.

    Raises:
        ValueError: for anything else, and for half of a surrogate pair, as badly decoded texts have them.
    """
    if isinstance(value, str):
        return _encodable(value)
    if is_tensor(value):
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return as_text(value.item(), hint)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"The bytes {value!r:.80} are not a text in UTF-8: {error}.") from None
    raise ValueError(f"A text has to be a string; got {type(value).__name__}: {value!r:.80}.{hint}")


def lone_text(value: Any) -> str:
    """A text by itself, or that of ``{"text": …}``.

    Raises:
        ValueError: for anything else.
    """
    return as_text(value["text"] if isinstance(value, Mapping) and set(value) == {"text"} else value, hint="")


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The text has the lone surrogate {text[error.start]!r} at position {error.start}, which is no character "
            "and has no form in UTF-8. Decode the source with errors='replace', or remove it."
        ) from None
    return text


def _elements(inputs: Iterable[Any]) -> Iterator[Any]:
    """Inputs of any iterable; a ``tf.data.Dataset`` may be batched."""
    for element in inputs:
        if _is_batch(element):
            yield from element.numpy()
        elif isinstance(element, Mapping) and element and all(_is_batch(value) for value in element.values()):
            yield from (
                dict(zip(element, row, strict=True)) for row in zip(*(v.numpy() for v in element.values()), strict=True)
            )
        else:
            yield element


def as_labels(given: Any) -> list[str] | None:
    """Labels from a list or another iterable, or from a string with commas; ``None`` if none are given.

    Raises:
        ValueError: for anything else, and for a list of nothing.
    """
    labels = given
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    elif isinstance(labels, Iterable) and not isinstance(labels, Mapping):
        labels = list(labels)
    if given is not None and not (isinstance(labels, list) and labels and all(isinstance(one, str) for one in labels)):
        raise ValueError(
            "You must include at least one label and at least one sequence: candidate_labels is a list of strings or a "
            f"string with commas; got {given!r}."
        )
    return labels


def given_labels(labels: Sequence[str] | None) -> Sequence[str]:
    """The labels.

    Raises:
        ValueError: if there are none.
    """
    if labels is None:
        raise ValueError("Pass candidate_labels, the labels to choose from.")
    return labels


def check_template(template: Any, labels: Sequence[str] | None) -> None:
    """Require that each label gives a text of its own.

    Raises:
        ValueError: for a template without braces, or with more than one label needs.
    """
    if labels and not _takes_one_label(template, labels[0]):
        raise ValueError(
            f'The provided hypothesis_template "{template}" was not able to be formatted with the target labels. Make '
            "sure the passed template includes formatting syntax such as {} where the label should go, once."
        )


def _takes_one_label(template: Any, label: str) -> bool:
    try:
        return template.format(label) != template
    except (IndexError, KeyError, ValueError, AttributeError):  # braces for more, for names, or without an end
        return False


def texts_with_labels(inputs: list[Any], labels: Sequence[str] | None) -> list[str]:
    """The texts that labels are for.

    Raises:
        ValueError: for an empty one, or without labels.
    """
    given_labels(labels)
    texts = [as_text(one) for one in inputs]
    if not all(texts):
        raise ValueError("You must include at least one label and at least one sequence: a text is empty.")
    return texts


def in_form(features: np.ndarray, return_tensors: bool | str | None) -> Any:
    """An array as nested lists, as itself (``"np"``), or as a tensor (``True`` or ``"tf"``)."""
    if not return_tensors:
        return features.tolist()
    if str(getattr(return_tensors, "value", return_tensors)) == "np":
        return features
    import tensorflow as tf

    return tf.convert_to_tensor(features)


def old_pair(value: Any) -> Any:
    """A pair from ``[["text", "pair"]]``, which is how pairs were once written; anything else as it is."""
    if (
        isinstance(value, (list, tuple))
        and len(value) == 1
        and isinstance(value[0], (list, tuple))
        and len(value[0]) == 2
    ):
        return dict(zip(("text", "text_pair"), value[0], strict=True))
    return value


def _gather(args: Sequence[Any], data: Any, question: Any, context: Any) -> Any:
    """The inputs of a call, however they were given."""
    if args:
        if len(args) == 1:
            return args[0]
        return [{"question": args[0], "context": args[1]}] if _are_texts(*args) else list(args)
    if data is not None:
        return data
    if question is None or context is None:
        missing = "question" if question is None else "context"
        raise ValueError(f"Give question= and context=, or a dictionary of both; {missing} is missing.")
    if isinstance(question, str):
        return {"question": question, "context": context}
    contexts = [context] * len(question) if isinstance(context, str) else list(context)
    if len(question) != len(contexts):
        raise ValueError(f"Questions and contexts don't have the same lengths: {len(question)} and {len(contexts)}.")
    return [{"question": q, "context": c} for q, c in zip(question, contexts, strict=True)]


def _are_texts(*values: Any) -> bool:
    return len(values) == 2 and all(isinstance(value, str) for value in values)


def question_and_context(value: Any) -> tuple[str, str]:
    """Question and context of one input."""
    if hasattr(value, "question_text"):
        value = {"question": value.question_text, "context": value.context_text}
    if not isinstance(value, Mapping):
        raise ValueError(f"A question is {{'question': …, 'context': …}}; got {type(value).__name__}: {value!r:.80}.")
    texts = []
    for name in ("question", "context"):
        if value.get(name) is None:
            raise ValueError(f"You need to provide a dictionary with keys question and context; {name} is missing.")
        texts.append(as_text(value[name]))
        if not texts[-1]:
            raise ValueError(f"`{name}` cannot be empty")
    return texts[0], texts[1]


def _is_batch(value: Any) -> bool:
    return is_tensor(value) and bool(value.shape.rank)


def is_map_style(value: Any) -> bool:
    """Whether a value has a length and items and no iterator, as data sets of PyTorch's have."""
    return not isinstance(value, Iterable) and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor; there are none before TensorFlow is loaded."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and tensorflow.is_tensor(value)
