"""Models whose architecture has no module of its own: a graph, run with TensorFlow, on the checkpoint's own weights."""

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from transformers import PreTrainedConfig

from tf_pipeline import checkpoint, outputs
from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.heads import head_of
from tf_pipeline.inputs import assertions, waiting
from tf_pipeline.layers import Parameter
from tf_pipeline.layers.lora import Adaptable, Target
from tf_pipeline.model import TFPreTrainedModel, own_words
from tf_pipeline.outputs import ModelOutput
from tf_pipeline.port.adapters import graph_targets, updates_of
from tf_pipeline.port.cross_step import CrossSteps, Part, parts
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import COMPUTE, STEP_FILES, Graph, Layout, Tensor, WeightTensor
from tf_pipeline.port.interpret import Interpreter
from tf_pipeline.port.layout import ConvertedWriter
from tf_pipeline.port.scan import interpreter_of, stepper_of
from tf_pipeline.port.step import most_tokens
from tf_pipeline.shifts import SHIFTS

# Begins the note of a graph that has no step.
NO_STEP = "generate computes the text so far again for every token"


class Weight(Adaptable, keras.layers.Layer):
    """One tensor of a checkpoint; its key is the attribute path of this layer.

    Args:
        spec: dtype and shape; ``"compute"`` is a variable of the model's dtype policy.
        kernel: whether the variable is the transpose of the checkpoint's tensor.
        dtype: Keras dtype policy.
    """

    def __init__(self, spec: WeightTensor, kernel: bool = False, dtype=None):
        super().__init__(dtype=dtype)
        self.spec, self.kernel = spec, kernel
        self.trainable = spec.trainable
        self.counts = not tf.as_dtype(_numpy_name(spec.dtype, self.variable_dtype)).is_floating
        random = keras.initializers.RandomNormal(spec.mean, spec.deviation)
        self.initializer = keras.initializers.Zeros() if self.counts else random

    def build(self, input_shape=None):
        """Create the variable."""
        self.value = self.add_weight(
            shape=self.spec.shape[::-1] if self.kernel else self.spec.shape,
            initializer=self.initializer,
            dtype=_numpy_name(self.spec.dtype, self.variable_dtype),
            trainable=self.spec.trainable,
            autocast=False,
            name="value",
        )

    def create_variables(self) -> None:
        """Create the variable."""
        self.build()

    def checkpoint_parameters(self) -> tuple[Parameter, ...]:
        """The tensor, under the layer's own path."""
        return (Parameter("", tuple(self.spec.shape), "value", "initializer", self.kernel, self.counts),)


class Constant(keras.layers.Layer):
    """A tensor that the graph needs and no checkpoint holds.

    Args:
        spec: dtype and shape.
        value: its value; zeros until a ``.keras`` file is read.
        dtype: Keras dtype policy.
    """

    def __init__(self, spec: Tensor, value: np.ndarray | None, dtype=None):
        super().__init__(dtype=dtype)
        name = _numpy_name(spec.dtype, self.variable_dtype)
        values = np.zeros(spec.shape, "float32") if value is None else value
        self.value = self.add_weight(
            shape=spec.shape,
            initializer=lambda shape, dtype=None: tf.cast(tf.constant(values), dtype),
            dtype=name,
            trainable=False,
            autocast=False,
            name="value",
        )
        self.built = True


def _numpy_name(dtype: str, variables: str) -> str:
    """The dtype of a variable: in a float64 model no float is narrower."""
    floating = dtype in ("float32", "float16", "bfloat16")
    return variables if dtype == "compute" or (floating and variables == "float64") else dtype


class PortedModel(TFPreTrainedModel):
    """A model that runs a graph captured from PyTorch; see :mod:`tf_pipeline.port`.

    It is called, trained, saved and exported as the models that have a module of their own are. Differences:
    ``inputs_embeds`` and caches are not taken by calls. ``generate`` has a cache if one step could be captured too,
    which is tried when it is first called; else it computes the text so far again for every token, and the notes say
    why.

    Subclasses, named as PyTorch's with ``TF`` in front, are made by :func:`ported_class`.

    Args:
        config: the config.
        graph: the graph; ported from the config if not given, which takes PyTorch unless it was done before.
        constants: values of the graph's constants.
        dtype: see :func:`tf_pipeline.model.resolve_dtype`.
        name: name of the Keras model.
    """

    keras_package = "tf_pipeline.port"
    keeps_tables = True
    # Whether the graph lies next to the checkpoint that the model was loaded from.
    graph_beside = False

    def __init__(
        self,
        config: PreTrainedConfig,
        graph: Graph | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
        dtype: Any = None,
        name: str | None = None,
    ):
        super().__init__(config, dtype=dtype, name=name)
        if graph is None:
            from tf_pipeline.port.find import find_graph

            graph, constants = find_graph(self.torch_name(), config)[:2]
        self._graph = graph
        self._layout = graph.layouts[0] if graph.layouts else None
        self._values = constants
        self._step: Any = None
        kernels = graph.kernels()
        self._interpreter = interpreter_of(graph, *self._interpreting())
        self._set_inputs(graph)
        for key, spec in graph.parameters.items():
            _place(self, key.split("."), Weight(spec, key in kernels, dtype=self.dtype_policy), self.dtype_policy)
        self._constants = [
            Constant(spec, None if constants is None else constants[key], dtype=self.dtype_policy)
            for key, spec in graph.constants.items()
        ]

    @classmethod
    def torch_name(cls) -> str:
        """Name of PyTorch's class."""
        return cls.__name__.removeprefix("TF")

    def _set_inputs(self, graph: Graph) -> None:
        self.tensor_names = tuple(graph.inputs)
        if "input_ids" not in graph.inputs:
            self.main_input_name = self.tensor_names[0]
        shapes = {
            name: tuple(size if isinstance(size, int) else None for size in spec.shape)
            for name, spec in graph.inputs.items()
        }
        # Ids and masks are integers.
        self.signal_shapes = {name: shape for name, shape in shapes.items() if graph.inputs[name].dtype == COMPUTE}
        further = {name: tuple(filter(None, shape)) for name, shape in shapes.items() if name not in self.signal_shapes}
        self.further_axes = {name: sizes for name, sizes in further.items() if sizes}
        self.base_model_prefix = graph.base_model_prefix
        self.output_type = _output_type(graph.output_class, tuple(graph.outputs))

    def _interpreting(self) -> tuple[Any, ...]:
        """The options of all interpreters of the model's graphs."""
        graph = self._graph
        updated = updates_of(graph, lambda: dict(checkpoint.named_slots(self)))
        return self.compute_dtype, graph.kernels(), lambda *node: updated(*node) if self.active_adapters() else node[1]

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to.

        Raises:
            ValueError: always; a graph computes with the weights as they are.
        """
        raise ValueError(f"{type(self).__name__} is ported: its graph takes no quantized weights.")

    def adapter_targets(self) -> dict[str, Target]:
        """The modules that may be updated, by PyTorch's names."""
        return graph_targets(self)

    @property
    def graph(self) -> Graph:
        """The computation of the model."""
        return self._graph

    @property
    def num_positions(self) -> int | None:
        """As :attr:`max_length`: positions beyond have no row in the table."""
        return self.max_length

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens that the model takes, or ``None`` without a limit."""
        return self._graph.limits.get("length", [1, None])[1]

    @property
    def least_length(self) -> int:
        """Minimum length that the model takes, of a text in tokens, of a sound in samples."""
        return self._graph.limits.get("length", [1, None])[0]

    @property
    def max_generated_length(self) -> int | None:
        """Maximum number of tokens that the decoder takes, or the model if it has no other part."""
        return most_tokens(self._graph)

    def constants(self) -> Mapping[str, np.ndarray]:
        """Values of the graph's constants, as captured and not as the model's dtype rounds them.

        Only a model from a ``.keras`` file has no others than those it computes with.
        """
        if self._values is not None:
            return self._values
        layers = zip(self._graph.constants, self._constants, strict=True)
        return {key: layer.value.numpy() for key, layer in layers}

    def tied_weights(self) -> dict[str, str]:
        """Other names that the checkpoint may have for a parameter."""
        return self._graph.tied

    def forward(
        self, output_hidden_states: bool = False, output_attentions: bool = False, training: bool = False, **inputs: Any
    ) -> ModelOutput:
        """See :meth:`tf_pipeline.model.TFPreTrainedModel.__call__`.

        Raises:
            ValueError: if attentions are asked for and the graph does not have them.
        """
        if output_attentions and not any(name.endswith("attentions") for name in self._graph.outputs):
            raise ValueError(f"{type(self).__name__} is ported without attentions; leave output_attentions out.")
        asked = {"hidden_states": output_hidden_states, "attentions": output_attentions}
        left_out = tuple(name for name, wanted in asked.items() if not wanted)
        fields = tuple(name for name in self._graph.outputs if not name.endswith(left_out))
        results = self._interpreter.run(fields, self._complete(inputs), self._parameters(), self._tables(), training)
        return self.output_type(results)

    def _parameters(self) -> Callable[[str], tf.Tensor]:
        """The values of parameters by checkpoint key."""
        slots = dict(checkpoint.named_slots(self))
        return lambda key: tf.convert_to_tensor(slots[key].variable)

    def _tables(self) -> Callable[[str], tf.Tensor]:
        """The values of the graph's constants by key."""
        constants = dict(zip(self._graph.constants, self._constants, strict=True))
        return lambda key: tf.convert_to_tensor(constants[key].value)

    # ------------------------------------------------------------------------------------------------------ one by one

    def stepper(self) -> Stepper | None:
        """The model as one that reads token after token with a cache; ``None`` if its step is not known.

        The step is captured now, if it was not before and PyTorch is installed.
        """
        if self._graph.states and self._continues():
            graph, constants = self._graph, self.constants()
        elif (step := self.find_step()) is None:
            return None
        elif "decoder_input_ids" in self._graph.inputs:
            return self._cross_steps(step)
        else:
            graph, constants = step.graph, step.constants
        interpreter = Interpreter(graph.one_token(), *self._interpreting())
        fields = tuple(interpreter.graph.outputs)

        def run(inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
            return interpreter.run(fields, inputs, self._parameters(), lambda key: tf.constant(constants[key]))

        return stepper_of(graph, run, interpreter.dtype)

    def _cross_steps(self, step: Any) -> CrossSteps:
        """The stepper of an encoder–decoder, from the graph of one step and its constants."""
        options = self._interpreting()

        def part(graph: Graph, constant: Callable[[str], tf.Tensor]) -> Part:
            interpreter, fields = Interpreter(graph, *options), tuple(graph.outputs)
            run = lambda inputs: interpreter.run(fields, inputs, self._parameters(), constant)  # noqa: E731
            return Part(graph, run, interpreter.dtype)

        def checked(inputs: Mapping[str, tf.Tensor]) -> Mapping[str, Any]:
            source = {name: x for name, x in inputs.items() if not name.startswith("decoder_")}
            return encode(self._complete({**inputs, **self.check(source)}))

        encode, *steps = parts(self._graph, step.graph)
        encode = part(encode, self._tables())
        return CrossSteps(checked, *(part(graph, lambda key: tf.constant(step.constants[key])) for graph in steps))

    def find_step(self) -> Any:
        """The graph of one step and its constants, captured if need be; ``None`` if there is none.

        A capture that fails is not tried again; the graph's notes then give the reason.
        """
        if self._step is not None or not self._may_step():
            return self._step
        from tf_pipeline.port.find import find_step, remember

        try:
            with tf.init_scope():  # the step is compared with PyTorch, also while another graph is traced
                self._step = find_step(
                    self.torch_name(), self.config, self._graph, self.config._name_or_path, self.constants()
                )
        except PortError as error:
            reason = str(error).splitlines()[0]
            self._graph.notes = [*self._graph.notes, f"{NO_STEP}: {reason}"]
            if not self.graph_beside:
                remember(self._graph, self.constants(), self.torch_name(), self.config)
        return self._step

    def _may_step(self) -> bool:
        """Whether the model continues texts, and its step is another graph and was not given up."""
        given_up = any(note.startswith(NO_STEP) for note in self._graph.notes)
        return self._continues() and not self._graph.states and not given_up

    def _continues(self) -> bool:
        """Whether the model continues texts."""
        has_text = self.main_input_name == "input_ids" or "decoder_input_ids" in self._graph.inputs
        return self.can_generate() and has_text

    def _complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs that were left out, from those that were given."""
        if "decoder_input_ids" in self._graph.inputs and "decoder_input_ids" not in inputs:
            raise ValueError(f"{type(self).__name__} needs decoder_input_ids, or labels to make them from.")
        complete = dict(inputs)
        for name, spec in self._graph.inputs.items():
            if name in complete:
                continue
            like = inputs["decoder_input_ids" if name.startswith("decoder_") else self.main_input_name]
            if spec.default is None:
                source = "processor" if name in self.signal_shapes else "tokenizer"
                raise ValueError(f"{type(self).__name__} needs {name} too; its {source} returns it.")
            complete[name] = {
                "ones": tf.ones_like,
                "zeros": partial(_zeros_like, sizes=self.further_axes.get(name, ())),
                "positions": lambda x: tf.broadcast_to(tf.range(tf.shape(x)[-1], dtype=x.dtype), tf.shape(x)),
            }[spec.default](like)
        return complete

    def check(self, inputs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Refuse inputs of a wrong shape or value, and texts that are shorter than the graph takes."""
        return self.long_enough(super().check(inputs, **options))

    def long_enough(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`tf_pipeline.model.TFPreTrainedModel.long_enough`."""
        least = self.least_length
        if least == 1 or self.main_input_name in self.signal_shapes:
            return inputs
        message = f"{type(self).__name__} is ported for texts of at least {least} tokens; pad shorter ones."
        length = inputs[self.main_input_name].shape[-1]
        holds = tf.constant(length >= least) if length else tf.shape(inputs[self.main_input_name])[-1] >= least
        return waiting(inputs, assertions(holds, message))

    def call(self, inputs, output_hidden_states=None, output_attentions=None, return_dict=None, training=None):
        """Run the model; a sequence-to-sequence model makes its decoder's inputs from labels if it has no others."""
        if "decoder_input_ids" in self._graph.inputs and "labels" in inputs and "decoder_input_ids" not in inputs:
            with own_words():
                inputs = dict(inputs) | {"decoder_input_ids": self._shifted(inputs["labels"])}
        return super().call(inputs, output_hidden_states, output_attentions, return_dict, training)

    def _shifted(self, labels: tf.Tensor) -> tf.Tensor:
        """Decoder inputs from labels, as PyTorch makes them."""
        if not self._graph.shift:
            raise ValueError(
                f"PyTorch's {self.torch_name()} does not make decoder_input_ids from labels: give them too."
            )
        return SHIFTS[self._graph.shift](labels, self.config)

    # --------------------------------------------------------------------------------------------------------- saving

    def get_config(self) -> dict[str, Any]:
        """As for other models, and the graph."""
        return super().get_config() | {"graph": self._graph.to_dict()}

    @classmethod
    def from_config(cls, config: PreTrainedConfig | dict[str, Any], custom_objects=None, **kwargs: Any):
        """A model with random weights, from a Hugging Face config or from the result of :meth:`get_config`."""
        if isinstance(config, dict) and "graph" in config:
            config = dict(config)
            kwargs["graph"] = Graph.from_dict(config.pop("graph"))
            return super().from_config(config | {"graph": kwargs["graph"]}, custom_objects)
        return super().from_config(config, custom_objects, **kwargs)

    def default_signature(self) -> dict[str, tf.TensorSpec]:
        """Inputs of an exported model: all but positions, which have a default."""
        return {
            name: tf.TensorSpec(
                [size if isinstance(size, int) else None for size in spec.shape],
                self.compute_dtype if spec.dtype == COMPUTE else tf.int32,
                name,
            )
            for name, spec in self._graph.inputs.items()
            if spec.default != "positions"
        }

    @classmethod
    def _construct(cls, config: PreTrainedConfig, dtype: Any, source: str | os.PathLike, **hub_options: Any):
        from tf_pipeline.port.find import find_graph

        found_graph = find_graph(cls.torch_name(), config, source, **hub_options)
        model = cls(config, found_graph.graph, found_graph.constants, dtype=dtype)
        model.graph_beside, model._step = found_graph.beside, found_graph.step
        return model

    def _open_weights(self, reader, source: str | os.PathLike, **hub_options: Any):
        from tf_pipeline.port.find import open_weights

        return open_weights(self, reader, source, **hub_options)

    def _check_loaded(self, report: checkpoint.LoadingReport, source: str | os.PathLike, **hub_options: Any) -> None:
        from tf_pipeline.port.find import check_loaded

        check_loaded(self, report, source, **hub_options)

    def use_layout(self, layout: Layout) -> None:
        """Save as PyTorch does after it has loaded a checkpoint of this layout."""
        self._layout = layout

    @property
    def layout(self) -> Layout | None:
        """Storage of the parameters in the checkpoint that the model was loaded from."""
        return self._layout

    def _weight_writer(self, slots: dict[str, checkpoint.Slot]) -> checkpoint.WeightWriter:
        if self._layout is None:
            return super()._weight_writer(slots)
        return ConvertedWriter(slots, self._graph.tied, self._layout.saving)

    def _save_extras(self, folder) -> None:
        from tf_pipeline.port.find import remembered_step

        self._graph.write(folder, self.constants())
        step = self._step
        if step is None and self._may_step():
            step = remembered_step(self.torch_name(), self.config, self._graph)
        if step is not None:
            step.graph.write(folder, step.constants, STEP_FILES)


def _zeros_like(x: tf.Tensor, sizes: tuple[int, ...]) -> tf.Tensor:
    """Zeros of the shape of ``x``, and of further axes behind it."""
    zeros = tf.zeros_like(x)
    for size in sizes:
        zeros = tf.stack([zeros] * size, -1)
    return zeros


def _place(layer: keras.layers.Layer, path: list[str], leaf: keras.layers.Layer, policy) -> None:
    """Set a leaf at an attribute path below a layer; a trailing underscore avoids the names that Keras keeps."""
    name = path[0]
    attribute = f"{name}_" if name.endswith("_") or hasattr(keras.Model, name) else name
    if len(path) == 1:
        setattr(layer, attribute, leaf)
        return
    if not isinstance(getattr(layer, attribute, None), keras.layers.Layer):
        setattr(layer, attribute, Module(dtype=policy))
    _place(getattr(layer, attribute), path[1:], leaf, policy)


class Module(keras.layers.Layer):
    """A part of a model, by which its weights are reached: ``model.encoder.layer[0].trainable = False``."""

    def __getitem__(self, index: int) -> keras.layers.Layer:
        """A numbered part."""
        return getattr(self, str(index))


@cache
def _output_type(name: str, fields: tuple[str, ...]) -> type[ModelOutput]:
    """The class of outputs: the package's of PyTorch's name if it has these fields, else one made for them."""
    known = getattr(outputs, name, None)
    if known is not None and set(fields) <= set(known.fields):
        return known
    annotations = dict.fromkeys(("loss", *(field for field in fields if field != "loss")), Any)
    return type(name, (ModelOutput,), {"__annotations__": annotations, "__doc__": f"What {name} of PyTorch holds."})


@cache
def ported_class(torch_name: str) -> type[PortedModel]:
    """The class of ported models that mirrors a PyTorch class, such as ``TFXLNetModel`` for ``"XLNetModel"``."""
    head = head_of(torch_name)
    attributes = head.attributes() if head else {}
    doc = f"``{torch_name}`` of ``transformers``, ported; see :class:`PortedModel`."
    return type(f"TF{torch_name}", (PortedModel,), {"__doc__": doc, "__module__": __name__, **attributes})
