"""The engines that run a pipeline's model, and ``generate``: TensorFlow, its graph compiled by XLA, and OpenVINO."""

import contextlib
import importlib.util
import io
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_pipeline.arguments import EngineError
from tf_pipeline.layers.products import for_another_engine
from tf_pipeline.tracing import compiled

logger = logging.getLogger(__name__)

ENGINES = ("tensorflow", "xla", "openvino", "auto")

# Dtypes that OpenVINO computes in on a CPU, its names for them, and the largest difference from TensorFlow's float32
# outputs that rounding explains, as a share of the largest output.
PRECISIONS = {"float32": ("f32", 1e-4), "bfloat16": ("bf16", 0.1), "float16": ("f16", 0.02)}

# Integer types for OpenVINO weights, and the largest relative difference each may cause: a model that is quantized
# computes something close, and how close is known from its answers alone.
QUANTIZATIONS = {"int8": 0.5}

# Lengths and numbers of rows that XLA compiles are powers of two, and lengths no less than this.
_LEAST_LENGTH = 16


def check_quantization(quantize: str | None, engine: str) -> None:
    """Require that an engine can quantize.

    Raises:
        EngineError: naming what can.
    """
    if quantize is None:
        return
    if quantize not in tuple(QUANTIZATIONS):
        raise EngineError(f"quantize={quantize!r} is not supported; supported are {', '.join(QUANTIZATIONS)}.")
    if engine != "openvino":
        raise EngineError(f"quantize={quantize!r} needs OpenVINO, and engine is {engine!r}: pass engine='openvino'.")
    if importlib.util.find_spec("nncf") is None:
        raise EngineError(
            f'quantize={quantize!r} takes NNCF, which is not installed: pip install "tf-pipeline[openvino]"'
        )


def check_precision(precision: str, engine: str) -> None:
    """Require that an engine can compute in a dtype that is not the model's own.

    Raises:
        EngineError: naming what can.
    """
    if precision not in tuple(PRECISIONS):
        raise EngineError(f"precision={precision!r} is not supported; supported are {', '.join(PRECISIONS)}.")
    if precision != "float32" and engine != "openvino":
        raise EngineError(
            f'precision={precision!r} is OpenVINO\'s, and engine is {engine!r}: pass engine="openvino", or load the '
            "model in this dtype."
        )


def chosen_engine(engine: str, dtype: str = "float32") -> str:
    """The engine that a name stands for.

    Args:
        engine: one of ``ENGINES``; ``"auto"`` is OpenVINO where it is installed and can run the model.
        dtype: the model's compute dtype.

    Raises:
        EngineError: for an engine that is unknown, not installed, or does not run models of that dtype.
    """
    if engine not in ENGINES:
        raise EngineError(f"engine={engine!r} is not supported; engines are {', '.join(ENGINES)}.")
    installed = importlib.util.find_spec("openvino") is not None
    if engine == "auto":
        return "openvino" if installed and dtype == "float32" else "tensorflow"
    if engine == "openvino" and not installed:
        raise EngineError(
            'engine="openvino" takes OpenVINO, which is not installed: pip install "tf-pipeline[openvino]"'
        )
    if engine == "openvino" and dtype != "float32":
        raise EngineError(
            f'engine="openvino" converts float32 models, and this one computes in {dtype}: load it in float32; '
            'pipeline(…, engine="openvino", dtype="bfloat16") then lets OpenVINO compute in bfloat16.'
        )
    return engine


class Conversion(NamedTuple):
    """The way that OpenVINO runs a function: arguments of :class:`OpenVinoFunction`."""

    precision: str = "float32"
    quantize: str | None = None
    required: bool = True


def conversion_of(engine: str, precision: str, quantize: str | None, dtype: str) -> Conversion | None:
    """The conversion that arguments ask for; ``None`` if TensorFlow runs the function.

    Args:
        engine: one of ``ENGINES``.
        precision: dtype that OpenVINO computes in.
        quantize: ``"int8"`` for weights that OpenVINO keeps as eight-bit integers.
        dtype: the model's compute dtype.

    Raises:
        EngineError: for an engine that is unknown, not installed, or cannot do this.
    """
    name = engine if engine == "tensorflow" else chosen_engine(engine, dtype)
    check_quantization(quantize, name)
    check_precision(precision, name)
    return Conversion(precision, quantize, engine != "auto") if name == "openvino" else None


class OpenVinoFunction:
    """A function of tensors that OpenVINO computes, converted at the first call from the graph that TensorFlow traces.

    The answers to the first call are compared with TensorFlow's. The weights are those of the first call.

    Args:
        run: the function.
        *signature: specs of its arguments, trees of ``tf.TensorSpec``.
        precision: dtype that OpenVINO computes in, one of ``PRECISIONS``.
        quantize: numbers that weights are kept as, one of ``QUANTIZATIONS``; what they are multiplied by is rounded as
            it comes.
        required: whether it is an error if OpenVINO cannot; if not, TensorFlow runs the function, with a warning.
    """

    def __init__(self, run: Callable[..., Any], *signature: Any, precision: str, quantize: str | None, required: bool):
        def traced(*inputs):
            with for_another_engine():
                return run(*inputs)

        self._run, self._function = run, compiled(traced, *signature)
        self._precision, tolerance = PRECISIONS[precision]
        self._differ = partial(_differ, tolerance=max(tolerance, QUANTIZATIONS.get(quantize or "", 0)))
        self._quantize, self._required = quantize, required
        self._model: Any = None
        self._failure: str | None = None
        self._structure: Any = None
        self._order: list[int] = []
        self._ports: list[Any] = []
        self._lock, self._own = threading.Lock(), threading.local()

    def experimental_get_tracing_count(self) -> int:
        """Number of traces, as a ``tf.function`` counts them."""
        return self._function.experimental_get_tracing_count()

    def __call__(self, *inputs: Any) -> Any:
        """Compute the function, as a ``tf.function`` does; arrays in place of tensors."""
        outputs = self._prepare(inputs)
        if outputs is not None:
            return outputs
        return self._function(*inputs) if self._model is self._function else self._infer(inputs)

    def steps(self, inputs: Sequence[Any], fed: Mapping[int, str]) -> "OpenVinoSteps | None":
        """The function for a loop in which outputs become inputs, or ``None`` if TensorFlow has to run it.

        Args:
            inputs: of the first step, a flat sequence.
            fed: keys of outputs by the places of inputs that they become.
        """
        self._prepare(inputs)
        if self._model is self._function:
            return None
        ports = dict(zip(self._order, self._model.inputs, strict=True))
        return OpenVinoSteps(
            self._model, ports, dict(zip(sorted(self._structure), self._ports, strict=True)), inputs, fed
        )

    def _prepare(self, inputs: Sequence[Any]) -> Any:
        """Convert the function if it is not yet; the outputs of that first call, or ``None``."""
        with self._lock:
            if self._failure is not None:
                raise EngineError(self._failure)
            if self._model is None:
                try:
                    return self._first(inputs)
                except EngineError as error:
                    if self._required:
                        self._failure = str(error)
                        raise
                    logger.warning("%s TensorFlow runs it.", error)
                    self._model = self._function = compiled(self._run, *self._function.input_signature)
        return None

    def _first(self, inputs: Sequence[Any]) -> Any:
        """Convert the function, and compare it on its first inputs."""
        import openvino

        expected = self._function(*inputs)  # what it refuses is no fault of OpenVINO's
        concrete = self._function.get_concrete_function()
        try:
            with ThreadPoolExecutor(1) as pool:  # an interrupt comes to the main thread, where C++ would swallow it
                model = pool.submit(_converted, concrete).result()
            if self._quantize:
                model = _quantized(model)
            self._model = openvino.Core().compile_model(
                model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._precision}
            )
            self._read_interface(concrete)
            outputs = self._infer(inputs)
            if any(map(self._differ, tf.nest.flatten(outputs), tf.nest.flatten(expected))):
                raise EngineError("OpenVINO computes something else than TensorFlow for this model.")
        except BaseException as error:
            self._model = None  # it is not proven
            if isinstance(error, EngineError) or not isinstance(error, Exception):
                raise
            raise EngineError(f"OpenVINO cannot run this model: {_reason(error):.300}") from error
        return outputs

    def _read_interface(self, concrete: Any) -> None:
        """Find the inputs and outputs of the function among those of the model, which go by other orders."""
        places = {tensor.name: place for place, tensor in enumerate(concrete.inputs)}
        self._order = [places[name] for port in self._model.inputs for name in port.names & places.keys()]
        ports = {name: port for port in self._model.outputs for name in port.names}

        def port_of(output: Any) -> Any:
            while output.name not in ports and output.op.type == "Identity":  # of an input, which has no other name
                (output,) = output.op.inputs
            return ports[output.name]

        self._structure, self._ports = concrete.structured_outputs, [*map(port_of, concrete.outputs)]

    def _infer(self, inputs: Sequence[Any]) -> Any:
        if getattr(self._own, "model", None) is not self._model:  # a request serves one thread
            self._own.model, self._own.request = self._model, self._model.create_infer_request()
        given = [np.asarray(value) for value in tf.nest.flatten(list(inputs))]
        results = self._own.request.infer([given[place] for place in self._order])
        return tf.nest.pack_sequence_as(self._structure, [results[port] for port in self._ports])


class OpenVinoSteps:
    """A function on OpenVINO whose outputs become inputs of its next call, without copies.

    Args:
        model: of OpenVINO's.
        inputs: its inputs by their places among the function's.
        outputs: its outputs by key.
        first: the inputs of the first call.
        fed: keys of outputs by the places of inputs that they become.
    """

    def __init__(
        self, model: Any, inputs: Mapping[int, Any], outputs: Mapping[str, Any], first: Sequence[Any], fed: Mapping
    ):
        import openvino

        self._tensor = openvino.Tensor
        self._inputs = inputs
        self._read = {key: port for key, port in outputs.items() if key not in fed.values()}
        fed = {place: key for place, key in fed.items() if place in inputs}
        old = {place: self._copied(value) for place, value in enumerate(first) if place in inputs}
        new = {place: self._copied(first[place]) for place in fed}
        # Each of two requests writes the buffers that the other reads.
        self._requests = []
        for read, written in ((old, new), (old | new, old)):
            request = model.create_infer_request()
            for place, value in read.items():
                request.set_tensor(inputs[place], value)
            for place, key in fed.items():
                request.set_tensor(outputs[key], written[place])
            self._requests.append(request)

    def _copied(self, value: Any) -> Any:
        return self._tensor(np.array(value, order="C"))

    def __call__(self, given: Mapping[int, Any]) -> dict[str, np.ndarray]:
        """One call: the outputs by key that become no inputs, from the inputs by place that are not fed."""
        request = self._requests[0]
        self._requests.reverse()
        for place, value in given.items():
            if place in self._inputs:
                request.set_tensor(self._inputs[place], self._copied(value))
        request.infer()
        return {key: np.array(request.get_tensor(port).data) for key, port in self._read.items()}


def _converted(concrete: Any) -> Any:
    """A model of OpenVINO's from a traced function.

    This is the front end that ``openvino.convert_model`` calls. Around it, that function reports each step to Intel,
    by threads that cost more than the conversion, and the longer where there is no network.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.tensorflow.graph_iterator import GraphIteratorTFGraph

    front_end = FrontEndManager().load_by_framework("tf")
    front_end.add_extension(_slot_writes())
    # A copy of the weights: TensorFlow frees those that others are assigned to.
    graph = GraphIteratorTFGraph(concrete.graph, share_weights=False)  # lives until it is converted
    return front_end.convert(front_end.load(graph))


def _reason(error: Exception) -> str:
    """The line of OpenVINO's error that says what is wrong: of a list, the first; the rest is where in its code."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line.removeprefix("-- ") for line in lines if line.startswith("-- ")), lines[0])


def _slot_writes() -> Any:
    """The rule by which OpenVINO converts the writing of one token into the slots of a cache."""
    from openvino import opset15 as ops
    from openvino.frontend.tensorflow import ConversionExtension

    def scatter(node: Any) -> Any:
        buffer, begin, new = (node.get_input(place) for place in (0, 1, 4))
        if new.get_partial_shape()[2] != 1:
            raise NotImplementedError("slots of several tokens are written at once")
        axis, zero = (ops.constant(number, np.int32) for number in (2, 0))
        return ops.scatter_update(buffer, ops.gather(begin, ops.constant([2], np.int32), zero), new, axis).outputs()

    return ConversionExtension("TensorStridedSliceUpdate", scatter)


def _differ(ours: np.ndarray, theirs: Any, tolerance: float) -> bool:
    """Whether an engine's output is another than TensorFlow's, by more than a share of TensorFlow's largest number."""
    theirs = np.asarray(theirs)
    finite = np.isfinite(theirs)
    most = tolerance * np.abs(theirs[finite], dtype=np.float64).max(initial=1)
    return ours.shape != theirs.shape or not np.allclose(ours[finite], theirs[finite], rtol=0, atol=most)


def _quantized(model: Any) -> Any:
    """A model of OpenVINO's whose weights are eight-bit integers with a scale for each output."""
    import nncf

    log = logging.getLogger("nncf")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where NNCF shows its progress
            return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    finally:
        log.setLevel(level)


class XlaFunction:
    """A model's run that XLA compiles once for each pair of powers of two that batches and lengths are padded to.

    The answers to the first call of each size are compared with TensorFlow's.

    Args:
        run: takes inputs by name, int32 ``[batch, seq]`` and an ``attention_mask`` among them, and returns outputs by
            name.
        signature: specs of the inputs by name.
        fill: values of padding by input.
        names: the outputs to return.
        per_token: whether these have a token axis behind the batch's.
        longest: maximum number of tokens that the model takes.
        dtype: the model's compute dtype.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]],
        signature: Mapping[str, tf.TensorSpec],
        fill: Mapping[str, int],
        names: Sequence[str],
        per_token: bool,
        longest: int,
        dtype: str,
    ):
        def outputs(inputs):
            results = run(inputs)
            return {name: results[name] for name in names}

        self._function, self._plain = compiled(outputs, jit_compile=True), compiled(outputs, signature)
        self._fill, self._per_token, self._longest = fill, per_token, longest
        self._tolerance = PRECISIONS.get(dtype, PRECISIONS["float32"])[1]
        self._compared: set[tuple[int, int]] = set()

    def experimental_get_tracing_count(self) -> int:
        """Number of sizes that were compiled."""
        return self._function.experimental_get_tracing_count()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the model on inputs of any size; outputs are cut to it."""
        rows, length = np.shape(inputs["input_ids"])
        padded_length = max(length, min(self._longest, max(_LEAST_LENGTH, _power_of_two(length))))
        padded = {}
        for name, value in inputs.items():
            value = np.pad(value, [[0, 0], [0, padded_length - length]], constant_values=self._fill[name])
            # The last row again, as one of padding alone is nothing that a model reads.
            padded[name] = tf.constant(np.pad(value, [[0, _power_of_two(rows) - rows], [0, 0]], mode="edge"))
        cut = (slice(rows), slice(length)) if self._per_token else (slice(rows),)
        results = {name: np.asarray(value)[cut] for name, value in self._function(padded).items()}
        size = (_power_of_two(rows), padded_length)
        if size not in self._compared:
            self._compare(inputs, results)
            self._compared.add(size)
        return results

    def _compare(self, inputs: Mapping[str, Any], results: Mapping[str, np.ndarray]) -> None:
        """Require that results are TensorFlow's; those of padding mean nothing.

        Raises:
            EngineError: if they are not.
        """
        counted = np.asarray(inputs["attention_mask"], bool) if self._per_token else slice(None)
        expected = self._plain({name: tf.constant(value) for name, value in inputs.items()})
        if any(
            _differ(results[name][counted], np.asarray(expected[name])[counted], self._tolerance) for name in results
        ):
            raise EngineError("XLA computes something else than TensorFlow for this model.")


def _power_of_two(number: int) -> int:
    """The least power of two that is not less than a number."""
    return 1 << (number - 1).bit_length()
