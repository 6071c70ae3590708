"""Run a graph, one rule after the other, with TensorFlow."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_pipeline.port.graph import ATTENTION, COMPUTE, LINEAR, Graph, Node
from tf_pipeline.port.rules import find_rule
from tf_pipeline.port.rules.elementwise import cast


class Interpreter:
    """Runs a graph in one dtype.

    Args:
        graph: the graph.
        compute_dtype: dtype that the model runs in. In float64 everything that floats is float64, also where PyTorch's
            code asks for float32 by name.
        kernels: keys of the weights that are given ``[in, out]``.
        updated: returns what adapters make of the result of a node, given the node, the result, its arguments, and
            whether the model is trained.
    """

    def __init__(
        self,
        graph: Graph,
        compute_dtype: str,
        kernels: frozenset[str] = frozenset(),
        updated: Callable[[Node, Any, list[Any], bool], Any] | None = None,
    ):
        self.graph, self.kernels, self._updated = graph, kernels, updated
        self.compute_dtype = tf.as_dtype(compute_dtype)

    def dtype(self, name: str) -> tf.DType:
        """The dtype that a graph's name for it stands for."""
        if name == COMPUTE:
            return self.compute_dtype
        dtype = tf.as_dtype(name)
        if self.compute_dtype == tf.float64 and dtype.is_floating:
            return tf.float64
        return tf.complex128 if self.compute_dtype == tf.float64 and dtype.is_complex else dtype

    def run(
        self,
        fields: tuple[str, ...],
        inputs: Mapping[str, tf.Tensor],
        parameter: Callable[[str], tf.Tensor],
        constant: Callable[[str], tf.Tensor],
        training: bool = False,
    ) -> dict[str, Any]:
        """Compute some of the outputs.

        Args:
            fields: names of the outputs.
            inputs: tensors by name, all that the graph has.
            parameter: returns the tensor of a checkpoint key.
            constant: returns the tensor of a constant's key.
            training: whether dropout is active.

        Returns:
            Tensors by name, tuples of them where the graph has lists.
        """
        values: dict[str, Any] = {
            name: cast(inputs[name], self.dtype(i.dtype)) for name, i in self.graph.inputs.items()
        }
        tensors = {"p.": (parameter, self.graph.parameters), "c.": (constant, self.graph.constants)}

        def value_of(reference: str) -> Any:
            if reference not in values:
                read, specs = tensors[reference[:2]]
                key = reference[2:]
                values[reference] = tf.cast(read(key), self.dtype(specs[key].dtype))
            return values[reference]

        for node in self.graph.needed(fields):
            values[node.name] = self._compute(node, value_of, training, values)
        decoded = {name: self._decode(self.graph.outputs[name], value_of) for name in fields}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in decoded.items()}

    def _compute(self, node: Node, value_of: Callable[[str], Any], training: bool, values: dict[str, Any]) -> Any:
        rule = find_rule(node.op)
        args = self._decode(node.args, value_of)
        kwargs = {key: self._decode(value, value_of) for key, value in node.kwargs.items()}
        kwargs.pop("dtype", None) if "out_dtype" in rule.extras else None
        attentions: list[tf.Tensor] = []
        extras = {"training": training, "attentions": attentions}
        if "pieces" in rule.extras:
            extras["pieces"] = len(node.dtype)
        if "out_dtype" in rule.extras:
            extras["out_dtype"] = self.dtype(node.dtype if isinstance(node.dtype, str) else node.dtype[0])
        kwargs |= {name: extras[name] for name in rule.extras}
        if node.op == LINEAR and node.args[1][3:] in self.kernels:
            kwargs["kernel"] = True
        try:
            result = rule.function(*args, **kwargs)
        except NotImplementedError as error:
            raise NotImplementedError(f"{node.op} at {node.name} ({node.module}): {error} is not supported.") from error
        if self._updated is not None:
            result = self._updated(node, result, args, training)
        if attentions:
            values[node.name + ATTENTION] = attentions[0]
        return self._typed(node, result)

    def _typed(self, node: Node, result: Any) -> Any:
        """Results in the dtypes that PyTorch gives them, and of the axes that are known."""
        if isinstance(node.dtype, list):
            return [
                x if dtype is None or not tf.is_tensor(x) else cast(x, self.dtype(dtype))
                for x, dtype in zip(result, node.dtype, strict=False)
            ]
        if node.dtype is None or not tf.is_tensor(result):
            return result
        result = result if result.dtype == self.dtype(node.dtype) else cast(result, self.dtype(node.dtype))
        shape = [size if isinstance(size, int) else None for size in node.shape or []]
        return result if result.shape.is_fully_defined() else tf.ensure_shape(result, shape)

    def _decode(self, value: Any, value_of: Callable[[str], Any]) -> Any:
        if isinstance(value, str) and value.startswith("%"):
            return value_of(value[1:])
        if isinstance(value, list):
            return [self._decode(item, value_of) for item in value]
        if isinstance(value, dict):
            ((kind, content),) = value.items()
            if kind == "dtype":
                return self.dtype(content)
            return float(content) if kind == "float" else self._limit(content)
        return value

    def _limit(self, name: str) -> float:
        """A limit of the compute dtype, or of another as this model has it."""
        from ml_dtypes import finfo

        dtype, _, limit = name.rpartition(".")
        return float(getattr(finfo(self.dtype(dtype or COMPUTE).as_numpy_dtype), limit))
