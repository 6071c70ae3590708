"""A graph of one token, run over texts: each token in turn, in a loop that hands the states on."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_pipeline.port.graph import CAPACITY, PAST, Graph
from tf_pipeline.port.interpret import Interpreter
from tf_pipeline.port.step import CachedSteps, Held

Tensors = Mapping[str, tf.Tensor]


def interpreter_of(graph: Graph, *options: Any) -> "Interpreter | Scanner":
    """Return a runner of a graph's nodes, once or, if it has states, for each token; see :class:`Interpreter`."""
    return (Scanner if graph.states else Interpreter)(graph, *options)


class Scanner:
    """Runs a graph of one token over the tokens of a text; for the arguments see :class:`Interpreter`."""

    def __init__(self, graph: Graph, *options: Any):
        self.graph = graph
        self._token = Interpreter(graph.one_token(), *options)
        self.dtype = self._token.dtype

    def run(
        self,
        fields: tuple[str, ...],
        inputs: Tensors,
        parameter: Callable[[str], tf.Tensor],
        constant: Callable[[str], tf.Tensor],
        training: bool = False,
    ) -> dict[str, Any]:
        """Compute some of the outputs of a text; see :meth:`Interpreter.run`."""
        step = self._token.graph
        wanted = (*fields, *self.graph.states)
        # Read once, not for every token.
        used = {name for node in step.needed(wanted) for name in node.references()}
        weights = {name: parameter(name[2:]) for name in used if name.startswith("p.")}
        tables = {name: constant(name[2:]) for name in used if name.startswith("c.")}

        def run(given: Tensors) -> dict[str, Any]:
            read = (lambda key: weights[f"p.{key}"]), (lambda key: tables[f"c.{key}"])
            return self._token.run(wanted, _with_own_mask(step, given), *read, training)

        rows, length = tf.unstack(tf.shape(inputs["input_ids"]))
        states = fresh_states(self.graph, self.dtype, rows, length)
        return scan(run, inputs, states, length, self._element_specs(fields))[0]

    def _element_specs(self, fields: tuple[str, ...]) -> dict[str, Any]:
        """The form of outputs of one token."""
        outputs = {name: self.graph.outputs[name] for name in fields}
        nodes = self.graph.by_name

        def spec(reference: str) -> tf.TensorSpec:
            node = nodes[reference[1:]]
            return tf.TensorSpec([None, *node.shape[1:]], self.dtype(node.dtype))

        return {
            name: tuple(map(spec, value)) if isinstance(value, list) else spec(value) for name, value in outputs.items()
        }


def fresh_states(
    graph: Graph, dtype: Callable[[str], tf.DType], rows: tf.Tensor, capacity: int | tf.Tensor
) -> dict[str, tf.Tensor]:
    """The states of a graph before the first token.

    Args:
        graph: a graph with states.
        dtype: the dtype that a graph's name for it stands for.
        rows: number of texts.
        capacity: number of tokens that they have room for.
    """
    sizes = {"batch": rows, CAPACITY: capacity}
    fixed = {CAPACITY: capacity if isinstance(capacity, int) else None}
    states = {}
    for name, state in graph.states.items():
        value = tf.fill([sizes.get(size, size) for size in state.shape], tf.constant(state.initial, dtype(state.dtype)))
        states[name] = tf.ensure_shape(value, [None, *(fixed.get(size, size) for size in state.shape[1:])])
    return states


def scan(
    run: Callable[[Tensors], Mapping[str, Any]], inputs: Tensors, states: Tensors, count: Any, specs: Any
) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
    """Read the first tokens of texts, one after the other.

    Args:
        run: computes the outputs of one token, and the states behind it, from the inputs of ``graph.one_token()`` and
            the whole mask.
        inputs: ``[rows, length]`` each.
        states: those before the first token.
        count: number of tokens to read.
        specs: the forms of the outputs of one token that are wanted, ``[rows, 1, size]``.

    Returns:
        These outputs of all tokens, ``[rows, count, size]``, and the states behind the last.
    """
    flat = tf.nest.flatten(specs)
    arrays = [tf.TensorArray(spec.dtype, count, element_shape=spec.shape, infer_shape=False) for spec in flat]

    def read(place: tf.Tensor, states: dict[str, tf.Tensor], arrays: list[tf.TensorArray]):
        here = {name: x if name == "attention_mask" else _column(x, place) for name, x in inputs.items()}
        results = run(here | {PAST: place} | states)
        after = {name: tf.ensure_shape(results[name], state.shape) for name, state in states.items()}
        values = tf.nest.flatten({name: results[name] for name in specs})
        return place + 1, after, [array.write(place, value) for array, value in zip(arrays, values, strict=True)]

    start = (tf.constant(0), dict(states), arrays)
    _, states, arrays = tf.while_loop(lambda place, *_: place < count, read, start, maximum_iterations=count)
    # From tokens × rows × 1 × size.
    every = [tf.squeeze(tf.transpose(array.stack(), [1, 0, 2, 3]), 2) for array in arrays]
    return tf.nest.pack_sequence_as(specs, every), states


def _with_own_mask(token: Graph, inputs: Tensors) -> Tensors:
    """Inputs of a graph of one token, with the part of the text's mask that its nodes read: all, or their column."""
    spec = token.inputs.get("attention_mask")
    if spec is None or spec.shape[1] == CAPACITY:
        return inputs
    return {**inputs, "attention_mask": _column(inputs["attention_mask"], inputs[PAST])}


def _column(x: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The column ``[rows, 1]`` at a place; a gather, because XLA needs to know its size."""
    return tf.gather(x, place[tf.newaxis], axis=1)


class ScannedSteps(CachedSteps):
    """A :class:`~tf_pipeline.generation.stepper.Stepper` over a graph with states.

    Args:
        graph: it has logits among its outputs.
        run: computes the logits of one token, and the states behind it, from the inputs of ``graph.one_token()``.
        dtype: the dtype that a graph's name for it stands for.
    """

    def __init__(self, graph: Graph, run: Callable[[Tensors], Mapping[str, Any]], dtype: Callable[[str], tf.DType]):
        token = graph.one_token()

        def read(inputs: Tensors) -> dict[str, Any]:
            results = run(_with_own_mask(token, inputs))
            return {**results, "logits": results["logits"][:, -1]}

        super().__init__(token, read, dtype)
        self._graph, self._dtype = graph, dtype

    def prefill(self, inputs: Tensors, capacity: int) -> tuple[tf.Tensor, Held]:
        """See :class:`~tf_pipeline.generation.stepper.Stepper`."""
        ids, places, state = self._begun(inputs, capacity)
        rows, length = tf.unstack(tf.shape(ids))
        texts = {"input_ids": ids, "attention_mask": state.mask, "position_ids": places}
        states = fresh_states(self._graph, self._dtype, rows, capacity)
        # The last token apart, as only its logits are needed.
        texts = {name: tf.cast(texts[name], self._kinds[name]) for name in self._graph.inputs}
        _, states = scan(self._run, texts, states, length - 1, {})
        return self._read(ids[:, -1:], places[:, -1:], state._replace(slots=states, length=length - 1), 1)


def stepper_of(
    graph: Graph, run: Callable[[Tensors], Mapping[str, Any]], dtype: Callable[[str], tf.DType]
) -> CachedSteps:
    """The graph of a step, with states or without, as a stepper; see :class:`ScannedSteps` and :class:`CachedSteps`."""
    return (ScannedSteps if graph.states else CachedSteps)(graph, run, dtype)
