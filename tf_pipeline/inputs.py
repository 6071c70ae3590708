"""Turn a caller's inputs into tensors, with clear messages about invalid ones."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.config import text_value

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")

# Inputs that index a table, and the config key of its size.
_TABLES = {"input_ids": "vocab_size", "token_type_ids": "type_vocab_size", "position_ids": "max_position_embeddings"}


def as_inputs(model, first: Any, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Gather the inputs of a call, however they were passed, into one dictionary of tensors.

    Raises:
        TypeError: for an input that the model does not take, or that is given twice.
        ValueError: for lists of unequal length.
    """
    if isinstance(first, (list, tuple)) and first and all(rank_of(value) >= _rank_of_inputs(model) for value in first):
        first, args = first[0], (*first[1:], *args)  # inputs in their order, as Keras once took them
    positional = dict(zip(INPUT_NAMES[1:], args, strict=False))
    if len(args) > len(positional) or positional.keys() & kwargs.keys():
        raise TypeError(f"Give each input once; by position they are {', '.join(INPUT_NAMES)}.")
    inputs = positional | dict(kwargs)
    if isinstance(first, Mapping):
        inputs = dict(first) | inputs
    elif first is not None:
        inputs[model.main_input_name] = first
    if unknown := [name for name in inputs if name not in model.input_names]:
        names, takes = ", ".join(map(str, unknown)), ", ".join(model.input_names)
        raise TypeError(f"{type(model).__name__} does not take {names}; it takes {takes}.")
    return {name: as_tensor(name, value) for name, value in inputs.items() if value is not None}


def rank_of(value: Any) -> int:
    """Number of axes of an array or a tensor; 0 of anything else."""
    shape = getattr(value, "shape", ())
    return shape.rank or 0 if isinstance(shape, tf.TensorShape) else len(shape)


def _rank_of_inputs(model) -> int:
    shape = model.signal_shapes.get(model.main_input_name)
    return model.input_rank if shape is None else len(shape)


def as_tensor(name: str, value: Any) -> Any:
    """A tensor of an input.

    Raises:
        ValueError: if it cannot be one; the message says how to pad.
    """
    if isinstance(value, tf.RaggedTensor):
        raise ValueError(f"{name} is a ragged tensor; give a padded one: {name}.to_tensor(), with an attention_mask.")
    if keras.ops.is_tensor(value) or isinstance(value, (keras.KerasTensor, tf.Variable)):
        return value
    try:
        return tf.convert_to_tensor(value)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} cannot be made a tensor ({error}). If its rows have different lengths, pad them: "
            "tokenizer(texts, padding=True, return_tensors='tf')."
        ) from error


def arrays_of(inputs: Any) -> Any:
    """Inputs by name as a dictionary of arrays, which Keras takes; anything else as it is.

    Args:
        inputs: such as a tokenizer returns, with or without ``return_tensors=``.

    Raises:
        ValueError: for lists of unequal length.
    """
    if not isinstance(inputs, Mapping):
        return inputs
    lists = (list, tuple)
    return {name: as_tensor(name, value) if isinstance(value, lists) else value for name, value in inputs.items()}


def refuse_strings(values: Any) -> None:
    """Require that labels are no strings.

    Args:
        values: an array, a tensor, a list, or anything else, which passes.

    Raises:
        ValueError: naming one of them, and what to do.
    """
    is_tensor = isinstance(values, tf.Tensor) and values.dtype == tf.string
    first = values.numpy() if is_tensor and hasattr(values, "numpy") else values
    while isinstance(first, (list, tuple, np.ndarray)) and len(first):
        first = first[0]
    if is_tensor or isinstance(first, (str, bytes)):
        first = first.decode() if isinstance(first, bytes) else first
        such = f", such as {str(first)!r:.80}" if isinstance(first, str) else ""
        raise ValueError(
            f"The labels are strings{such}, and have to be numbers: [model.config.label2id[label] for label in "
            "labels], with label2id= and id2label= given to from_pretrained. Or tf_pipeline.data.prepare makes the "
            "batches, which takes names."
        )


# What a check in a graph says, each of its values in brackets, and what TensorFlow adds about the values compared.
_ASSERTION = re.compile(r"assertion failed: ((?:\[[^\[\]]*\] ?)+)")
_COMPARED = " Condition x "


@contextlib.contextmanager
def own_words_of_graphs() -> Iterator[None]:
    """Keep TensorFlow from wrapping what a check in a graph says in a trace of the graph.

    Raises:
        ValueError: with the words of a check that failed, as the same check raises outside of a graph.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if (found := _ASSERTION.search(error.message)) is None:
            raise
        words = " ".join(re.findall(r"\[([^\[\]]*)\]", found[1]))
        raise ValueError(words.split(_COMPARED)[0]) from None


def check_inputs(model, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse inputs of a wrong rank, shape or (when values are at hand) value.

    Shapes are checked when they are known: at once in eager mode and while tracing. Dynamic sizes are checked in the
    graph.

    Returns:
        The inputs; any computation on them waits for the checks in the graph.

    Raises:
        ValueError: naming the input, the mistake and the expected form.
    """
    leading, rank = _leading(model, inputs), model.rank_of_ids(inputs)
    for name, value in inputs.items():
        _check_dtype(name, value)
        if name in model.signal_shapes:
            check_signal(model, name, value)
        else:
            _check_rank(model, name, value, rank)
    _check_shapes(model, inputs, leading)
    for name, key in _TABLES.items():
        if name in inputs:
            check_ids(model, name, inputs[name], key)
    inputs = waiting(inputs, _size_checks(model, inputs, leading))
    return inputs | {leading: _check_length(model, inputs, leading)}


def _leading(model, inputs: Mapping[str, Any]) -> str:
    """The input that the sizes of the others follow."""
    main = model.main_input_name
    if main != "input_ids":
        if main not in inputs:
            raise ValueError(f"{type(model).__name__} needs {main}; its processor returns it.")
        return main
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise ValueError("Give exactly one of input_ids and inputs_embeds.")
    return "input_ids" if "input_ids" in inputs else "inputs_embeds"


def _shared_axes(model, inputs: Mapping[str, Any], leading: str) -> int:
    """Number of leading axes, the batch first, that other inputs share: an image shares no more than the batch."""
    if leading not in model.signal_shapes:
        return model.rank_of_ids(inputs)
    return next((axis for axis, size in enumerate(model.signal_shapes[leading]) if size is not None), 2)


def check_sizes(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Refuse, in the graph, inputs that are not of one shape.

    Args:
        inputs: tensors of one rank, such as the texts ``[batch]`` of a signature.

    Returns:
        The inputs; any computation on them waits for the check.
    """
    (leading, first), *others = inputs.items()
    return waiting(inputs, [_equal_sizes(name, tf.shape(value), leading, tf.shape(first)) for name, value in others])


def waiting(inputs: Mapping[str, tf.Tensor], checks: Sequence[tf.Operation]) -> dict[str, tf.Tensor]:
    """The same inputs, once the checks have passed."""
    if not checks:
        return dict(inputs)
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in inputs.items()}


def _equal_sizes(name: str, sizes: tf.Tensor, leading: str, wanted: tf.Tensor) -> tf.Operation:
    # Sizes belong to a whole request, so that this fails no caller but the one who is wrong.
    message = f"{name} does not fit {leading}: each row of the one belongs to a row of the other, and so do columns."
    return tf.debugging.assert_equal(sizes, wanted, message=message, summarize=4)


def _size_checks(model, inputs: Mapping[str, Any], leading: str) -> list[tf.Operation]:
    """Checks in the graph of the sizes that are not known yet; the rules are those of :func:`_check_shapes`."""
    checks, leads = [], _decoders(inputs) or leading
    for name, value in inputs.items():
        # A decoder's inputs have a length of their own.
        is_decoders = name.startswith("decoder_")
        like, axes = (leads, model.input_rank) if is_decoders else (leading, _shared_axes(model, inputs, leading))
        if name == like:
            like, axes = leading, 1
        rank = value.shape.rank if name == "attention_mask" else axes
        if name == leading or name in model.signal_shapes:
            continue
        if value.shape[:rank].is_fully_defined() and inputs[like].shape[:axes].is_fully_defined():
            continue
        sizes, wanted = tf.shape(value)[:rank], tf.shape(inputs[like])[:axes]
        if name == "position_ids":  # of all rows, or one row for all
            wanted = tf.concat([tf.where(sizes[:1] == 1, 1, wanted[:1]), wanted[1:]], 0)
        if rank > axes:  # [batch, query, key] or [batch, heads or 1, query, key]
            wanted = tf.concat([wanted[:1], sizes[1:-2], wanted[-1:], wanted[-1:]], 0)
        checks.append(_equal_sizes(name, sizes, like, wanted))
    return checks


def _decoders(inputs: Mapping[str, Any]) -> str | None:
    """The input that says how long a decoder's text is, if there is one."""
    return next((name for name in ("decoder_input_ids", "decoder_inputs_embeds") if name in inputs), None)


def _check_dtype(name: str, value: tf.Tensor) -> None:
    dtype = tf.as_dtype(value.dtype)
    if name in _TABLES and not dtype.is_integer:
        hint = " Encode text first: tokenizer(text, return_tensors='tf')." if dtype == tf.string else ""
        raise ValueError(f"{name} has dtype {dtype.name}, but ids are integers.{hint}")
    if name == "attention_mask" and dtype.is_floating and value.shape.rank == 4:
        raise ValueError(
            "attention_mask is a float tensor of rank 4, as additive masks are (0 where visible); give integers or "
            "booleans that are nonzero where a token may be seen: attention_mask == 0."
        )


def _check_rank(model, name: str, value: tf.Tensor, rank_of_ids: int) -> None:
    rank = value.shape.rank
    is_embedded = name.endswith("inputs_embeds")
    further = model.further_axes.get(name, ())
    allowed = (rank_of_ids + is_embedded + len(further),)
    if name == "attention_mask":
        allowed = (2, 3, 4) if rank_of_ids == 2 else (3,)
    if rank in allowed:
        return
    _check_rank_known(name, value, allowed[0])
    shape = ["batch", "choices", "seq"] if rank_of_ids == 3 else ["batch", "seq"]
    wanted = ", ".join([*shape, *["hidden"] * is_embedded, *map(str, further)])
    hint = " The tokenizer returns it so." if further else ""
    if rank == min(allowed) - 1 and not further:
        what = "choices" if rank_of_ids == 3 else "batch"
        hint = (
            f" The {what} dimension is missing: models take several sequences at a time. Add it with "
            f"tf.expand_dims({name}, axis={1 if what == 'choices' else 0})."
        )
    raise ValueError(f"{name} has shape {tuple(value.shape)}, but {type(model).__name__} takes [{wanted}].{hint}")


def _check_rank_known(name: str, value: tf.Tensor | tf.TensorSpec, rank: int) -> None:
    if value.shape.rank is None:
        axes = ", ".join(["None"] * rank)
        raise ValueError(f"{name} has no known rank; state it where it is lost: tf.ensure_shape({name}, [{axes}]).")


def check_signal(model, name: str, value: tf.Tensor | tf.TensorSpec) -> None:
    """Refuse an image or a sound of a shape that a model does not take.

    Raises:
        ValueError: naming its shape and those that the model takes.
    """
    wanted = model.signal_shapes[name]
    least = model.least_length if name == model.main_input_name else 1
    _check_rank_known(name, value, len(wanted))
    if value.shape.is_compatible_with(wanted) and (value.shape[1] is None or value.shape[1] >= least):
        return
    axes = ", ".join(f"{least} or more" if size is None else str(size) for size in wanted[1:])
    raise ValueError(f"{name} has shape {tuple(value.shape)}, but {type(model).__name__} takes [batch, {axes}].")


def _check_shapes(model, inputs: Mapping[str, Any], leading: str) -> None:
    rank = _shared_axes(model, inputs, leading)
    expected = inputs[leading].shape[:rank]
    if leading == "inputs_embeds" and inputs[leading].shape[-1] not in (None, size := model.embedding_size):
        key = "embedding_size" if hasattr(model.config, "embedding_size") else "hidden_size"
        raise ValueError(f"inputs_embeds has shape {tuple(inputs[leading].shape)}, but {key} is {size}.")
    for name, value in inputs.items():
        if name == leading or name in model.signal_shapes:  # there may be as many images as texts, or not
            continue
        shape = value.shape
        if name.startswith("decoder_"):  # of a length of its own
            fits = shape[:2].is_compatible_with([expected[0], inputs[_decoders(inputs) or name].shape[1]])
        elif name == "attention_mask" and shape.rank is not None and shape.rank > rank:
            seq = expected[-1]
            fits = shape.is_compatible_with(
                [expected[0], seq, seq] if shape.rank == 3 else [expected[0], None, seq, seq]
            ) and (shape.rank == 3 or shape[1] in (None, 1, model.num_mask_heads))
        else:
            fits = shape.is_compatible_with([*expected, *model.further_axes.get(name, ())]) or (
                name == "position_ids" and shape[0] == 1 and shape[-1] == expected[-1]
            )
        if not fits:
            raise ValueError(
                f"{name} has shape {tuple(shape)}, which does not fit {leading} of shape "
                f"{tuple(inputs[leading].shape)}."
            )


def _check_length(model, inputs: Mapping[str, Any], leading: str) -> tf.Tensor:
    """The leading input, once it is known not to be too long."""
    limit = model.max_length
    if limit is None or "position_ids" in inputs or leading in model.signal_shapes:
        return inputs[leading]
    axis = model.rank_of_ids(inputs) - 1
    length = inputs[leading].shape[axis]
    if length == 0:
        raise ValueError(f"{leading} has shape {tuple(inputs[leading].shape)}: there are no tokens in it.")
    return check_size(
        {leading: inputs[leading]},
        tf.shape(inputs[leading])[axis] if length is None else length,
        limit,
        type(model).__name__,
    )[leading]


def check_size(
    inputs: Mapping[str, tf.Tensor], length: tf.Tensor | int, limit: int, name: str, what: str = "positions"
) -> dict[str, tf.Tensor]:
    """Refuse more tokens than there are positions: now if the length is known, else in the graph.

    Args:
        inputs: inputs of the computation.
        length: number of tokens, a scalar.
        limit: the maximum.
        name: of the model, for the message.
        what: there are ``limit`` of.

    Returns:
        The inputs; any computation on them waits for the check.
    """
    key = " (max_position_embeddings)" if what == "positions" else ""
    message = (
        f"The sequence is longer than the {limit} {what} of {name}{key}. "
        f"Shorten it with tokenizer(text, truncation=True, max_length={limit}), or split it into windows."
    )
    if (known := tf.get_static_value(length)) is None:
        return waiting(inputs, [tf.debugging.assert_less_equal(length, limit, message=message)])
    if known > limit:
        raise ValueError(f"{message} It has {known} tokens.")
    return dict(inputs)


def assertions(condition: tf.Tensor, message: str) -> list[tf.Operation]:
    """Check a condition, a scalar: now if it is known, else in the graph.

    Returns:
        Operations that fail in the graph, if any are needed.

    Raises:
        ValueError: with the message.
    """
    if (known := tf.get_static_value(condition)) is None:
        return [tf.debugging.Assert(condition, [message])]
    if not known:
        raise ValueError(message)
    return []


def check_ids(model, name: str, value: tf.Tensor, key: str) -> None:
    """Refuse ids that no row of a table belongs to, where their values are at hand.

    Args:
        model: the model.
        name: of the input.
        value: the ids.
        key: of the table's size in the config.

    Raises:
        ValueError: naming an id and the size.
    """
    if name in model.further_axes:
        for place, size in enumerate(getattr(model.config, f"{key}s", ())):
            check_range(f"{name}[..., {place}]", value[..., place], size, f"({key}s[{place}]={size} in the config).")
        return
    size = model.num_positions if name == "position_ids" else text_value(model.config, key)
    hint = " Do the tokenizer and the model belong together?" if name == "input_ids" else ""
    if size:
        check_range(name, value, size, f"({key}={size} in the config).{hint}")


def check_places(name: str, places: tf.Tensor, leading: str, tokens: tf.Tensor) -> tf.Tensor:
    """Refuse places of tokens that are not one for each text, or in none.

    Args:
        name: of the input.
        places: int ``[...]``.
        leading: name of the ids.
        tokens: the ids, ``[..., seq]``.

    Returns:
        The places, once the checks have passed.

    Raises:
        ValueError: naming the input and the mistake.
    """
    if not tf.as_dtype(places.dtype).is_integer:
        raise ValueError(f"{name} has dtype {tf.as_dtype(places.dtype).name}, but places are integers.")
    _check_rank_known(name, places, tokens.shape.rank - 1)
    texts, length = tokens.shape[:-1], tokens.shape[-1]
    if not places.shape.is_compatible_with(texts):
        raise ValueError(
            f"{name} has shape {tuple(places.shape)}, but {leading} of shape {tuple(tokens.shape)} "
            "needs one place for each text, of the last axis."
        )
    if length is not None:
        check_range(name, places, length, f"(the text has {length} tokens).")
    if places.shape.is_fully_defined() and texts.is_fully_defined():
        return places
    return waiting({name: places}, [_equal_sizes(name, tf.shape(places), leading, tf.shape(tokens)[:-1])])[name]


def check_range(name: str, value: tf.Tensor, size: int, words: str) -> None:
    """Refuse places outside an axis, where their values are at hand: not every device does.

    Args:
        name: of the input.
        value: the places.
        size: of the axis.
        words: the end of the message, which says where the size is from.

    Raises:
        ValueError: naming a place and the size.
    """
    if not isinstance(value, tf.Tensor) or not hasattr(value, "numpy") or not tf.executing_eagerly():
        return
    low, high = int(tf.reduce_min(value)), int(tf.reduce_max(value))
    if low < 0 or high >= size:
        raise ValueError(f"{name} holds {low if low < 0 else high}, which is outside 0 … {size - 1} {words}")


def without_autotuning(data: Any) -> Any:
    """A data set of ``tf.data`` that is not tuned while it runs, unless its own options say so; all else as it is.

    TensorFlow 2.21 tunes in a thread that wakes after 10, 20, 40, … ms. Keras does not read an iterator to its end, and
    that thread does not always notice that it is gone: an epoch, an evaluation or a prediction then ends only when the
    thread wakes again, which may take as long as all that came before.
    """
    if not isinstance(data, tf.data.Dataset) or data.options().autotune.enabled is not None:
        return data
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)
