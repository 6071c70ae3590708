"""What all pipelines share: the three stages, one by one or together over many texts."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tf_pipeline.outputs import ModelOutput
from tf_pipeline.pipelines.batching import batches_by_length, pad_rows, padding_values
from tf_pipeline.tokenization import with_tensorflow

# Texts tokenized and sorted at a time: enough for batches of like length, few enough for any memory.
WINDOW = 4096
# Seconds after which a progress bar appears.
PROGRESS_DELAY = 2.0


class Pipeline:
    """Tokenizer, model and post-processing for one task.

    ``preprocess``, ``forward`` and ``postprocess`` do one text in three stages. Calling the pipeline does any number:
    texts are tokenized together, sorted by length, cut into batches by a budget of tokens, and run through one
    compiled graph that is traced once for all lengths; results come in the order of the inputs.

    Args:
        model: a model of this package.
        tokenizer: its Hugging Face tokenizer.
        batch_size: most texts in a batch; by default only ``token_budget`` counts.
        token_budget: most tokens in a batch, padding included.
        **parameters: defaults for the arguments of a call.
    """

    task = ""

    def __init__(self, model, tokenizer, batch_size: int | None = None, token_budget: int = 2048, **parameters: Any):
        for name, value in (("batch_size", batch_size), ("token_budget", token_budget)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but has to be at least 1.")
        _check_fit(model, tokenizer)
        self.model = model
        self.tokenizer = with_tensorflow(tokenizer)
        self.batch_size = batch_size
        self.token_budget = token_budget
        self._defaults = parameters
        self.sanitize_parameters(**parameters)  # fails now rather than at the first call
        self.input_names = tuple(name for name in model.tensor_names if name in tokenizer.model_input_names)
        signature = {name: tf.TensorSpec([None, None], tf.int32, name) for name in self.input_names}
        self._compiled = tf.function(self._run_model, input_signature=[signature], autograph=False)

    @classmethod
    def auto_class(cls) -> type:
        """The auto class that loads this task's models."""
        raise NotImplementedError

    def sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split the arguments of a call into those of the tokenizer and those of ``postprocess``.

        Raises:
            TypeError: for an argument that is neither.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ the stages

    def preprocess(self, inputs: str | Mapping[str, str], **tokenizer_kwargs: Any) -> Mapping[str, tf.Tensor]:
        """First stage: tokenize one text, or a pair ``{"text": …, "text_pair": …}``, into int32 ``[1, seq]``."""
        return self.tokenizer(**_text_arguments([inputs]), return_tensors="tf", **tokenizer_kwargs)

    def forward(self, model_inputs: Mapping[str, Any]) -> ModelOutput:
        """Second stage: run the model, compiled, on int ``[batch, seq]`` inputs; its tensors are float32 or wider."""
        inputs = {name: tf.cast(model_inputs[name], tf.int32) for name in self.input_names if name in model_inputs}
        self._check_length(inputs["input_ids"].shape[-1])
        if len(inputs) < len(self.input_names):
            inputs = self._complete(inputs)
        return self._compiled(inputs)

    def postprocess(self, model_outputs: ModelOutput, **parameters: Any) -> Any:
        """Third stage: turn the outputs for one text, each ``[1, …]``, into the task's answer."""
        raise NotImplementedError

    def select(self, outputs: Mapping[str, np.ndarray], mask: np.ndarray, row: int) -> dict[str, np.ndarray]:
        """The outputs for one text of a batch, with a batch axis of 1; ``mask`` ``[batch, seq]`` tells its tokens."""
        return {name: value[row : row + 1] for name, value in outputs.items()}

    # ------------------------------------------------------------------------------------------------ all at once

    def __call__(self, inputs: Any, **parameters: Any) -> Any:
        """Run all stages.

        Args:
            inputs: a text; a pair ``{"text": …, "text_pair": …}``; a list of these; or a generator, an iterable data
                set or a ``tf.data.Dataset`` of these.
            **parameters: arguments of the tokenizer (``truncation=True``, ``max_length``, ``padding_side``, …) and of
                the task.

        Returns:
            The answer for one text, a list for a list, and an iterator for anything else.
        """
        tokenizer_kwargs, task_kwargs = self.sanitize_parameters(**(self._defaults | parameters))
        if isinstance(inputs, (str, Mapping)):
            return next(self._run([inputs], tokenizer_kwargs, task_kwargs))
        if isinstance(inputs, (list, tuple)):
            return list(self._run(inputs, tokenizer_kwargs, task_kwargs))
        if not isinstance(inputs, Iterable):
            raise ValueError(f"Inputs are a text, a list, a generator or a dataset; got {type(inputs).__name__}.")
        return self._run(_texts(inputs), tokenizer_kwargs, task_kwargs)

    def _run(self, texts: Iterable[Any], tokenizer_kwargs, task_kwargs) -> Iterator[Any]:
        total = len(texts) if isinstance(texts, Sequence) else None
        iterator = iter(texts)
        # disable=None shows the bar on a terminal only.
        with tqdm(total=total, desc=self.task, unit="text", delay=PROGRESS_DELAY, disable=None, leave=False) as bar:
            done = 0
            while window := list(itertools.islice(iterator, WINDOW)):
                yield from self._run_window(window, done, tokenizer_kwargs, task_kwargs, bar)
                done += len(window)

    def _run_window(self, window: list[Any], offset: int, tokenizer_kwargs, task_kwargs, bar) -> list[Any]:
        encoded, side, multiple = self._encode(window, tokenizer_kwargs)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        longest = int(np.argmax(lengths))
        self._check_length(lengths[longest], f"Text {offset + longest}")
        fill = padding_values(self.tokenizer)
        results: list[Any] = [None] * len(window)
        for rows in batches_by_length(lengths, self.token_budget, self.batch_size):
            batch = {
                name: pad_rows([encoded[name][row] for row in rows], fill[name], side, multiple)
                for name in self.input_names
            }
            outputs = {name: _numpy(value) for name, value in self._compiled(batch).items()}
            mask = batch.get("attention_mask", np.ones_like(batch["input_ids"]))
            for position, row in enumerate(rows):
                results[row] = self.postprocess(self.select(outputs, mask, position), **task_kwargs)
            bar.update(len(rows))
        return results

    def _encode(self, texts: list[Any], tokenizer_kwargs: Mapping[str, Any]):
        """Tokenize, unpadded unless to a fixed length: padding to the longest is done batch by batch."""
        kwargs = dict(tokenizer_kwargs)
        side = kwargs.get("padding_side") or self.tokenizer.padding_side
        multiple = None
        if str(kwargs.get("padding")) != "max_length":
            kwargs["padding"] = False
            multiple = kwargs.pop("pad_to_multiple_of", None)
        for name in ("return_tensors", "return_attention_mask"):
            kwargs.pop(name, None)
        if kwargs.get("truncation") and "max_length" not in kwargs:
            kwargs["max_length"] = min(self.max_length, self.tokenizer.model_max_length)
        encoded = self.tokenizer(**_text_arguments(texts), return_attention_mask=True, **kwargs)
        return encoded, side, multiple

    def _run_model(self, inputs: dict[str, tf.Tensor]) -> ModelOutput:
        outputs = self.model(inputs, training=False)
        return tf.nest.map_structure(lambda x: tf.cast(x, tf.float32) if x.dtype.size < 4 else x, outputs)

    def _complete(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Add the inputs that a caller left out: all tokens count, all are of the first text."""
        defaults = {"attention_mask": tf.ones_like, "token_type_ids": tf.zeros_like}
        return {
            name: inputs[name] if name in inputs else defaults[name](inputs["input_ids"]) for name in self.input_names
        }

    @property
    def max_length(self) -> int:
        """Most tokens the model takes."""
        return self.model.max_length or self.tokenizer.model_max_length

    @property
    def trace_count(self) -> int:
        """How often the model has been traced; new lengths and batch sizes do not add to it."""
        return self._compiled.experimental_get_tracing_count()

    def _check_length(self, length: int, what: str = "The text") -> None:
        if length > self.max_length:
            raise ValueError(
                f"{what} has {length} tokens, but {type(self.model).__name__} takes at most {self.max_length}. Pass "
                "truncation=True to cut it, or split it into windows."
            )

    def __repr__(self) -> str:
        config = self.model.config
        name = config._name_or_path or "made from a config"
        model = f"{type(self.model).__name__} ({name})"
        return f"{type(self).__name__}(task={self.task!r}, model={model}, dtype={self.model.compute_dtype!r})"


def _check_fit(model, tokenizer) -> None:
    """Refuse a tokenizer whose ids the model has no embeddings for."""
    vocab_size = getattr(model.config, "vocab_size", None)
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but {type(model).__name__} has embeddings for {vocab_size} "
            "(vocab_size): they do not belong together."
        )


def _text_arguments(texts: list[Any]) -> dict[str, Any]:
    """Arguments for the tokenizer from texts, or from pairs."""
    if not any(isinstance(text, Mapping) for text in texts):
        return {"text": [_string(text) for text in texts]}
    if not all(isinstance(text, Mapping) and set(text) == {"text", "text_pair"} for text in texts):
        wrong = next(t for t in texts if not (isinstance(t, Mapping) and set(t) == {"text", "text_pair"}))
        if isinstance(wrong, Mapping) and set(wrong) == {"text"} and all(set(t) == {"text"} for t in texts):
            return {"text": [_string(text["text"]) for text in texts]}
        raise ValueError(
            f'A pair is {{"text": …, "text_pair": …}}, and pairs and single texts do not mix; got {wrong!r}.'
        )
    return {name: [_string(text[name]) for text in texts] for name in ("text", "text_pair")}


def _string(value: Any) -> str:
    """A text from a string, bytes, or a scalar string tensor."""
    if isinstance(value, str):
        return value
    if tf.is_tensor(value):
        value = value.numpy()
    if isinstance(value, bytes):
        return value.decode("utf-8")
    raise ValueError(
        f"A text has to be a string; got {type(value).__name__}: {value!r:.80}. For a pair, give "
        '{"text": …, "text_pair": …}.'
    )


def _texts(inputs: Any) -> Iterator[Any]:
    """Texts of any iterable; a ``tf.data.Dataset`` may be batched."""
    for element in inputs:
        if tf.is_tensor(element) and element.shape.rank:
            yield from element.numpy()
        elif isinstance(element, Mapping) and all(tf.is_tensor(v) and v.shape.rank for v in element.values()):
            yield from (
                dict(zip(element, row, strict=True)) for row in zip(*(v.numpy() for v in element.values()), strict=True)
            )
        else:
            yield element


def _numpy(value: Any) -> Any:
    return tf.nest.map_structure(lambda x: x.numpy(), value)
