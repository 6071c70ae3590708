"""The base of all pipelines: three stages, one by one or together over many texts."""

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from transformers.tokenization_utils_base import LARGE_INTEGER

from tf_pipeline.arguments import (
    PIPELINE_ARGUMENTS,
    TOKENIZER_ARGUMENTS,
    TOKENIZER_EXPLAINED,
    refuse_unknown,
    settled,
    whole_number,
)
from tf_pipeline.config import text_value
from tf_pipeline.engines import (
    Conversion,
    OpenVinoFunction,
    XlaFunction,
    check_precision,
    check_quantization,
    chosen_engine,
)
from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.outputs import ModelOutput
from tf_pipeline.pipelines.batching import batches_by_length, pad_rows, padding_values, windows
from tf_pipeline.pipelines.calls import Calls, EngineError, text_arguments
from tf_pipeline.pipelines.shortening import Shortener
from tf_pipeline.tokenization import with_tensorflow
from tf_pipeline.tracing import Following, compiled

# Inputs, and characters in them, tokenized and sorted at a time: enough for batches of like length, few enough for any
# memory.
WINDOW = 4096
WINDOW_CHARACTERS = 2**20
# Devices of a pipeline where engines besides TensorFlow can run its model.
ON_CPU = (None, "/device:CPU:0")
NO_TOKENS = "has no tokens; give a text that is not empty, or leave add_special_tokens on."


@dataclass
class Rows:
    """Prepared inputs: the model's inputs, row by row, and other values that the answers need.

    Attributes:
        columns: model inputs by name, each a list of rows: unpadded ids, or arrays ``[1, …]`` of pixels or sound.
        owners: for each row, the place of its input; the rows of one input follow one another.
        beside: values that go round the model to ``postprocess``, by name, one for each row.
        side: side on which rows are padded, ``"right"`` or ``"left"``.
        multiple: padded lengths are a multiple of this, if given.
        shared: further inputs of the model by name, the same for every row.
    """

    columns: dict[str, list[Any]]
    owners: Sequence[int]
    beside: dict[str, list[Any]] = field(default_factory=dict)
    side: str = "right"
    multiple: int | None = None
    shared: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.owners)


class Stages(Calls):
    """The parts that pipelines share, whatever their inputs are: arguments, the model, and windows of inputs.

    Subclasses turn inputs into :class:`Rows` in ``encode``, say by ``_sizes`` and ``_batches`` which of them the model
    runs together, run it in ``_run_batch``, and answer in ``postprocess``.

    A task declares its needs by its attributes:

    - ``output_names``: the outputs of the model that ``postprocess`` reads;
    - ``processors``: names of what prepares inputs and reads answers, which are arguments and attributes;
    - ``beside``: names of values that go round the model, from ``preprocess`` to ``postprocess``;
    - ``has_labels``: whether answers name labels of the config;
    - ``engines``: the engines besides TensorFlow that can run the model.

    Args:
        model: a model of this package.
        batch_size: maximum number of rows in a batch, if given.
        device: device of the model, as :func:`device_name` takes it; if not given, TensorFlow chooses.
        engine: the engine that runs the model: see :mod:`tf_pipeline.engines`.
        precision: dtype that OpenVINO computes in.
        quantize: ``"int8"`` for weights that OpenVINO keeps as eight-bit integers.
        **parameters: defaults for the arguments of a call.

    Raises:
        TypeError: for an argument that the task does not have.
        ValueError: for a value out of range, or a device that is not there.
    """

    output_names: tuple[str, ...] = ("logits",)
    processors: tuple[str, ...] = ("tokenizer",)
    beside: tuple[str, ...] = ()
    has_labels = False
    engines: tuple[str, ...] = ("openvino",)
    # How arguments of the tokenizer are given: among the others (``True``), as a dictionary of this name, or not.
    tokenizer_arguments: bool | str = False

    def __init__(
        self,
        model,
        batch_size: int | None = None,
        device=None,
        engine: str = "tensorflow",
        precision: str = "float32",
        quantize: str | None = None,
        **parameters: Any,
    ):
        if batch_size is not None:
            whole_number("batch_size", batch_size, 1)
        parameters = settled(parameters, PIPELINE_ARGUMENTS)
        self.auto_class().check_head(model, self.task)
        self.device = device_name(device)
        _check_place(model, self.device)
        self.model = model
        self.engine = self._chosen(engine)
        check_quantization(quantize, self.engine)
        check_precision(precision, self.engine)
        self._conversion = Conversion(precision, quantize, engine != "auto")
        self.batch_size = batch_size
        self._defaults = parameters
        self._split({})  # fails now rather than at the first call

    def _chosen(self, engine: str) -> str:
        """The engine that a name stands for, once the task is known to run on it."""
        if engine == "tensorflow":
            return engine
        name = chosen_engine(engine, self.model.compute_dtype)
        if name not in ("tensorflow", *self.engines):
            if engine == "auto":
                return "tensorflow"
            raise EngineError(
                f"engine={engine!r} does not run {self.task}; use {' or '.join(('tensorflow', *self.engines))}."
            )
        if self.device not in ON_CPU:
            if engine == "auto":
                return "tensorflow"
            raise EngineError(f"engine={engine!r} runs on the CPU, not on {self.device}.")
        return name

    def _compile(self, run: Callable[..., Any], *signature: Any) -> Any:
        """A function that the engine runs, for the specs of its arguments, and of the model as it is."""
        counters = ("changes", "weight_changes") if self.engine == "openvino" else ("changes",)
        changes = lambda: [getattr(self.model, name, 0) for name in counters]  # noqa: E731
        return Following(partial(self._on_engine, run, *signature), changes)

    def _on_engine(self, run: Callable[..., Any], *signature: Any) -> Any:
        if self.engine == "openvino":
            return OpenVinoFunction(run, *signature, **self._conversion._asdict())
        return compiled(run, *signature)

    @classmethod
    def check_names(cls, names: Iterable[str]) -> None:
        """Require that the task has arguments of these names.

        Raises:
            TypeError: naming one that it does not have, and similar names.
        """
        known = cls.argument_names()
        for name in set(names).difference(known):
            hint = ""
            if name in TOKENIZER_ARGUMENTS or name in TOKENIZER_EXPLAINED:
                goes = f"goes into {cls.tokenizer_arguments}" if cls.tokenizer_arguments else "the task sets itself"
                hint = f" It is an argument of the tokenizer, which {goes}."
            refuse_unknown(cls.task, [name], [*known, "batch_size"], PIPELINE_ARGUMENTS, hint)

    @classmethod
    def argument_names(cls) -> list[str]:
        """Names of the arguments of a call."""
        functions = [vars(base)["sanitize_parameters"] for base in cls.__mro__ if "sanitize_parameters" in vars(base)]
        parameters = [one for function in functions for one in inspect.signature(function).parameters.values()]
        names = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"]
        return names + [*TOKENIZER_ARGUMENTS, *TOKENIZER_EXPLAINED] * (cls.tokenizer_arguments is True)

    def _split(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        given = settled(parameters, PIPELINE_ARGUMENTS)
        self.check_names({**self._defaults, **given})
        return super()._split(given)

    @classmethod
    def auto_class(cls) -> type:
        """The auto class that loads this task's models."""
        raise NotImplementedError

    @classmethod
    def class_for(cls, config: Any) -> type:
        """The class that runs models of a config: this one, unless the task has another for some models."""
        return cls

    def encode(self, inputs: list[Any], **preprocess_kwargs: Any) -> Rows:
        """Turn many inputs into rows of the model's inputs."""
        raise NotImplementedError

    def postprocess(self, model_outputs: Mapping[str, Any], **parameters: Any) -> Any:
        """Third stage: turn the outputs for one text, each ``[1, …]``, into the task's answer."""
        raise NotImplementedError

    def read(self, model_outputs: Mapping[str, Any], name: str) -> np.ndarray:
        """One of the model's outputs for a text.

        Raises:
            ValueError: if it holds NaN or infinity, from which no score can be made.
        """
        values = np.asarray(model_outputs[name])
        self.check_numbers(values, name)
        return values

    def check_numbers(self, values: np.ndarray, name: str) -> None:
        """Refuse NaN and infinity; minus infinity, which excludes a label, is a number here.

        Raises:
            ValueError: naming the model and its output.
        """
        if not (values < np.inf).all():
            what = "NaN" if np.isnan(values).any() else "infinity"
            raise ValueError(
                f"{type(self.model).__name__} gives {what} for this {self.unit} ({name}, computed in "
                f"{getattr(self.model, 'compute_dtype', None)}): its weights hold NaN, or numbers that are too large "
                "for the dtype."
            )

    def _answer(self, outputs: list[dict[str, Any]], task_kwargs: Mapping[str, Any]) -> Any:
        """The answer for an input, from the outputs for its rows."""
        return self.postprocess(outputs[0], **task_kwargs)

    def _run_window(self, window: list[Any], offset: int, parameters, batch_size, bar) -> list[Any]:
        refuse_if_forked(type(self).__name__)
        preprocess_kwargs, task_kwargs = parameters
        rows = self.encode(window, **preprocess_kwargs)
        sizes = self._sizes(rows, offset)
        missing = Counter(rows.owners)
        outputs_by_row: list[dict[int, Any]] = [{} for _ in window]
        results: list[Any] = [None] * len(window)
        for batch in self._batches(rows, sizes, batch_size):
            for row, outputs in zip(batch, self._run_batch(rows, batch), strict=True):
                owner = rows.owners[row]
                outputs_by_row[owner][row] = outputs
                missing[owner] -= 1
                if not missing[owner]:
                    answered, outputs_by_row[owner] = outputs_by_row[owner], {}
                    results[owner] = self._answer([answered[row] for row in sorted(answered)], task_kwargs)
                    bar.update(1)
        return results

    def _sizes(self, rows: Rows, offset: int) -> list[Any]:
        """The size of each row, once the model is known to take it."""
        raise NotImplementedError

    def _batches(self, rows: Rows, sizes: Sequence[Any], batch_size: int | None) -> Iterator[list[int]]:
        """Places of the rows that the model runs together."""
        raise NotImplementedError

    def _run_batch(self, rows: Rows, batch: list[int]) -> Iterator[dict[str, Any]]:
        """The model's outputs for some rows, each with a leading axis of 1."""
        raise NotImplementedError

    def _run_model(self, inputs: dict[str, tf.Tensor], **options: Any) -> ModelOutput:
        with tf.device(self.device):
            outputs = self.model(inputs, training=False, **options)
        return tf.nest.map_structure(lambda x: tf.cast(x, tf.float32) if x.dtype.size < 4 else x, outputs)

    @property
    def trace_count(self) -> int:
        """Number of times the model has been traced; new lengths and batch sizes do not add to it."""
        return self._compiled.experimental_get_tracing_count()

    def __repr__(self) -> str:
        config = self.model.config
        name = config._name_or_path or "made from a config"
        dtype = getattr(self.model, "compute_dtype", None)
        facts = {"task": repr(self.task), "model": f"{type(self.model).__name__} ({name})", "dtype": repr(dtype)}
        facts |= {"engine": repr(self.engine)} if self.engine != "tensorflow" else {}
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in (facts | self.facts()).items())})"

    def facts(self) -> dict[str, Any]:
        """Facts that ``repr`` shows besides checkpoint and task: those that matter to the task, such as its labels."""
        return {"labels": list(self.model.config.id2label.values())} if self.has_labels else {}


class Pipeline(Stages):
    """Tokenizer, model and post-processing for one task.

    ``preprocess``, ``forward`` and ``postprocess`` do one text in three stages. Calling the pipeline does any number:
    texts are tokenized together, sorted by length, cut into batches by a budget of tokens, and run through one
    compiled graph that is traced once for all lengths; results come in the order of the inputs.

    A task declares its needs by its attributes:

    - those of :class:`Stages`;
    - ``per_token``: whether outputs have a token axis, from which padding is removed;
    - ``reads_tables``: whether its tokenizer is one of tables.

    Args:
        model: a model of this package.
        tokenizer: its Hugging Face tokenizer.
        batch_size: maximum number of texts in a batch; by default only ``token_budget`` counts.
        token_budget: maximum number of tokens in a batch, padding included.
        device: device of the model, as :func:`device_name` takes it; if not given, TensorFlow chooses.
        engine: the engine that runs the model: see :mod:`tf_pipeline.engines`.
        **parameters: defaults for the arguments of a call.

    Raises:
        TypeError: for an argument that the task does not have.
        ValueError: for a value out of range, a device that is not there, or a model and tokenizer that do not fit.
    """

    per_token = False
    reads_tables = False
    engines = ("xla", "openvino")
    long_text_hint = "Pass truncation=True to cut it, or split it into windows."

    def __init__(
        self,
        model,
        tokenizer,
        batch_size: int | None = None,
        token_budget: int = 2048,
        device=None,
        engine: str = "tensorflow",
        **parameters: Any,
    ):
        whole_number("token_budget", token_budget, 1)
        self._check_tokenizer(tokenizer)
        check_fit(model, tokenizer)
        self.tokenizer = with_tensorflow(tokenizer)
        self._shortener = Shortener(self.tokenizer)
        self.token_budget = token_budget
        super().__init__(model, batch_size, device, engine, **parameters)
        self.input_names = tuple(name for name in model.tensor_names if name in tokenizer.model_input_names)
        self._signature = {
            name: tf.TensorSpec([None, None, *model.further_axes.get(name, ())], tf.int32, name)
            for name in self.input_names
        }
        self._compiled = self._compile(self._run_model, self._signature)

    def _check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse a tokenizer of texts for a task on tables, and the other way round."""
        if hasattr(tokenizer, "convert_logits_to_predictions") == self.reads_tables:
            return
        name = type(tokenizer).__name__
        if self.reads_tables:
            raise ValueError(f"{self.task} needs a tokenizer of tables, such as TapasTokenizer; {name} reads texts.")
        raise ValueError(f"{name} reads tables, but {self.task} takes texts; table-question-answering takes tables.")

    def _on_engine(self, run: Callable[..., Any], *signature: Any) -> Any:
        if self.engine != "xla":
            return super()._on_engine(run, *signature)
        if "attention_mask" not in self.input_names:
            raise EngineError(f'engine="xla" pads texts, and {type(self.model).__name__} takes no attention_mask.')
        if getattr(self.model, "takes_one_text", False):
            raise EngineError(
                f'engine="xla" pads texts, and {type(self.model).__name__} cannot tell padding from the last token: '
                "its config has no pad_token_id."
            )
        fill = padding_values(self.tokenizer)
        dtype = self.model.compute_dtype
        return XlaFunction(run, *signature, fill, self.output_names, self.per_token, self.max_length, dtype)

    # ------------------------------------------------------------------------------------------------ the stages

    def encode(self, inputs: list[Any], **tokenizer_kwargs: Any) -> Rows:
        """Tokenize many inputs at once; here, one row for each.

        Raises:
            ValueError: for an input of a form that the task does not take.
        """
        encoded, layout = self._tokenize(text_arguments(inputs), tokenizer_kwargs)
        return Rows({name: encoded[name] for name in self.input_names}, range(len(inputs)), **layout)

    def preprocess(self, inputs: Any, **parameters: Any) -> dict[str, Any]:
        """First stage: tokenize one text, or a pair ``{"text": …, "text_pair": …}``, into int32 ``[1, seq]``.

        ``parameters`` are those of a call.
        """
        return self._stage_inputs(self._encode_one(inputs, parameters), 0)

    def _encode_one(self, inputs: Any, parameters: Mapping[str, Any]) -> Rows:
        return self.encode([inputs], **self._split(parameters)[0])

    def forward(self, model_inputs: Mapping[str, Any]) -> ModelOutput | dict[str, Any]:
        """Second stage: run the model, compiled, on int ``[batch, seq]`` inputs; its tensors are float32 or wider."""
        refuse_if_forked(type(self).__name__)
        inputs = {name: tf.cast(model_inputs[name], tf.int32) for name in self.input_names if name in model_inputs}
        self._check_length(inputs["input_ids"].shape[-1])
        if not inputs["input_ids"].shape[-1]:
            raise ValueError(f"The text {NO_TOKENS}")
        if len(inputs) < len(self.input_names):
            inputs = self._complete(inputs)
        outputs = self._compiled(inputs)
        beside = {name: model_inputs[name] for name in self.beside if name in model_inputs}
        return {**outputs, **beside} if beside else outputs

    def _stage_inputs(self, rows: Rows, row: int) -> dict[str, Any]:
        """One row as tensors ``[1, seq]``, with the values that go round the model."""
        batch = self._batch(rows, [row])
        beside = {name: values[row] for name, values in rows.beside.items()}
        return {name: tf.constant(value) for name, value in batch.items()} | beside

    def _windows(self, inputs: Iterable[Any], batch_size: int | None) -> Iterator[list[Any]]:
        return windows(inputs, WINDOW, WINDOW_CHARACTERS)

    # ------------------------------------------------------------------------------------------------ all at once

    def _sizes(self, rows: Rows, offset: int) -> list[int]:
        lengths = [len(ids) for ids in rows.columns["input_ids"]]
        longest = int(np.argmax(lengths))
        self._check_length(lengths[longest], f"{self.unit.capitalize()} {offset + rows.owners[longest]}", rows.multiple)
        masks = rows.columns.get("attention_mask")
        for row, length in enumerate(lengths):
            if not (length if masks is None else any(masks[row])):
                raise ValueError(f"{self.unit.capitalize()} {offset + rows.owners[row]} {NO_TOKENS}")
        return lengths

    def _batches(self, rows: Rows, lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
        if getattr(self.model, "takes_one_text", False):
            batch_size = 1
        return batches_by_length(lengths, self.token_budget, batch_size)

    def _run_batch(self, rows: Rows, batch: list[int]) -> Iterator[dict[str, Any]]:
        """The model's outputs for some rows, each with a leading axis of 1 and without padding."""
        inputs = self._batch(rows, batch)
        outputs = self._compiled(inputs)
        # Not .numpy(), which copies: the logits of a vocabulary are large.
        arrays = {name: np.asarray(outputs[name]) for name in self.output_names}
        arrays |= {name: inputs[name] for name in self.beside if name in inputs}
        for place, row in enumerate(batch):
            place_of_tokens: tuple[slice, ...] = (slice(place, place + 1),)
            if self.per_token:
                place_of_tokens += (self._own_tokens(rows, row, inputs, place),)
            row_outputs = {name: value[place_of_tokens] for name, value in arrays.items()}
            yield row_outputs | {name: values[row] for name, values in rows.beside.items()}

    def _own_tokens(self, rows: Rows, row: int, inputs: Mapping[str, np.ndarray], place: int) -> slice:
        """Place of a row's own tokens in the padded row; padding that the caller asked for is not among them."""
        if "attention_mask" in inputs:
            places = np.flatnonzero(inputs["attention_mask"][place])
            return slice(places[0], places[-1] + 1) if len(places) else slice(0)
        padded, length = inputs["input_ids"].shape[1], len(rows.columns["input_ids"][row])
        return slice(0, length) if rows.side == "right" else slice(padded - length, padded)

    def _batch(self, rows: Rows, batch: list[int]) -> dict[str, np.ndarray]:
        """Some rows padded to one length, each input int32 ``[batch, seq]``."""
        fill = padding_values(self.tokenizer)
        return {
            name: pad_rows([column[row] for row in batch], fill[name], rows.side, rows.multiple)
            for name, column in rows.columns.items()
        }

    def _tokenize(self, arguments: Mapping[str, Any], tokenizer_kwargs: Mapping[str, Any]):
        """Tokenize, unpadded unless to a fixed length: padding to the longest is done batch by batch.

        Returns:
            The tokenizer's result, and how to pad it: ``side`` and ``multiple`` of :class:`Rows`.
        """
        kwargs = dict(tokenizer_kwargs)
        layout = {"side": kwargs.get("padding_side") or self.tokenizer.padding_side, "multiple": None}
        if str(kwargs.get("padding")) == "max_length":
            self._check_length(kwargs.get("max_length") or 0, "A text that is padded to max_length")
        else:
            kwargs["padding"] = False
            layout["multiple"] = kwargs.pop("pad_to_multiple_of", None)
        for name in ("return_tensors", "return_attention_mask"):
            kwargs.pop(name, None)
        kwargs = self._with_length(kwargs)
        try:
            with self.tokenizer.lock:  # the shortener reads on which side the tokenizer cuts
                arguments = self._shortener.shorten_all(dict(arguments), kwargs)
                return self.tokenizer(**arguments, return_attention_mask=True, **kwargs), layout
        except Exception as error:  # tokenizers has no class of its own for this
            if "Truncation error" not in str(error):
                raise
            given = ", ".join(f"{name}={kwargs[name]!r}" for name in ("truncation", "max_length") if name in kwargs)
            raise ValueError(f"A text cannot be cut with {given}: {str(error).partition(': ')[2]}.") from error

    def _with_length(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the tokenizer, with the length that truncation cuts to if none is given."""
        if not kwargs.get("truncation") or self.truncation_length >= LARGE_INTEGER:
            return kwargs
        return {"max_length": self.truncation_length} | kwargs

    def _complete(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Add the inputs that a caller left out: all tokens count, all are of the first text."""
        defaults = {"attention_mask": tf.ones_like, "token_type_ids": tf.zeros_like}
        return {
            name: inputs[name] if name in inputs else defaults[name](inputs["input_ids"]) for name in self.input_names
        }

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Save the model and the tokenizer in a folder, from which the pipeline can be made again."""
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)

    @property
    def max_length(self) -> int:
        """Maximum number of tokens that the model takes."""
        return self.model.max_length or self.tokenizer.model_max_length

    @property
    def truncation_length(self) -> int:
        """Number of tokens that truncation leaves by default: as many as model and tokenizer allow."""
        return min(self.max_length, self.tokenizer.model_max_length)

    def _check_length(self, length: int, what: str = "The text", multiple: int | None = None) -> None:
        padded = length if multiple is None else -(-length // multiple) * multiple
        if padded > self.max_length >= length:
            raise ValueError(
                f"{what} has {length} tokens, which pad_to_multiple_of={multiple} pads to {padded}, but "
                f"{type(self.model).__name__} takes at most {self.max_length}."
            )
        if length > self.max_length:
            raise ValueError(
                f"{what} has {length} tokens, but {type(self.model).__name__} takes at most {self.max_length}. "
                f"{self.long_text_hint}"
            )


class OfManyRows:
    """The part of a pipeline whose ``postprocess`` takes the list of outputs for all rows of an input."""

    def _answer(self, outputs: list[dict[str, Any]], task_kwargs: Mapping[str, Any]) -> Any:
        return self.postprocess(outputs, **task_kwargs)


class ChunkPipeline(OfManyRows, Pipeline):
    """A pipeline that may run several rows of the model for one input, as in ``transformers``.

    ``preprocess`` gives a list of rows, ``forward`` runs one of them, and ``postprocess`` takes the list of outputs.
    """

    def preprocess(self, inputs: Any, **parameters: Any) -> list[dict[str, Any]]:
        """First stage: tokenize one input into rows, each int32 ``[1, seq]`` with the values that go round the model.

        ``parameters`` are those of a call.
        """
        rows = self._encode_one(inputs, parameters)
        return [self._stage_inputs(rows, row) for row in range(len(rows))]

    def postprocess(self, model_outputs: list[Mapping[str, Any]], **parameters: Any) -> Any:
        """Third stage: turn the outputs for all rows of one input into the task's answer."""
        raise NotImplementedError


def device_name(device: Any) -> str | None:
    """TensorFlow's name of a device that is given as in ``transformers``.

    Args:
        device: the number of a GPU, or -1 for the CPU; a name such as ``"cpu"``, ``"cuda:1"``, ``"gpu:0"`` or
            ``"/device:GPU:0"``; a ``torch.device``; or ``None``.

    Raises:
        ValueError: for a device that TensorFlow does not see.
    """
    if device is None:
        return None
    name = "cpu" if device == -1 else f"gpu:{device}" if isinstance(device, int) else str(device)
    kind, _, number = name.lower().replace("cuda", "gpu").split("device:")[-1].lstrip("/").partition(":")
    name = f"/device:{kind.upper()}:{number or 0}"
    seen = [one.name for one in tf.config.list_logical_devices()]
    if name not in seen:
        raise ValueError(f"device {device!r} is not there; TensorFlow sees {', '.join(seen)}.")
    return name


def _check_place(model, device: str | None) -> None:
    """Refuse a model whose variables are on another device than the one that was asked for."""
    if device is None:
        return
    places = {variable.value.device for variable in model.variables if variable.value.device}
    wrong = sorted(place for place in places if not place.endswith(device))
    if wrong:
        raise ValueError(f"The model is on {wrong[0]}; to have it on {device}, load it under `with tf.device(…)`.")


def check_fit(model, tokenizer) -> None:
    """Refuse a tokenizer with an id that the model has no embedding for; there may be fewer tokens than ids.

    Raises:
        ValueError: naming the id and the number of embeddings.
    """
    vocab_size = text_value(model.config, "vocab_size")
    if vocab_size is None:
        return
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if largest >= vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, and {token!r} has the id {largest}, but "
            f"{type(model).__name__} has embeddings for {vocab_size} (vocab_size): they do not belong together."
        )
