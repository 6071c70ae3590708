"""The base class of every model: Hugging Face's loading and calling, Keras' training, saving and export."""

import contextlib
import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from transformers import AutoConfig, PreTrainedConfig

from tf_pipeline import checkpoint
from tf_pipeline.adapters import AdapterMixin
from tf_pipeline.arguments import MODEL_ARGUMENTS, SAVE_ARGUMENTS, ArgumentError, refuse_unknown, renamed, settled
from tf_pipeline.config import clear_errors, load_config
from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.former_attributes import former_attribute
from tf_pipeline.garbage import only_new_collected, paused_collection
from tf_pipeline.generation.config import GenerationConfig
from tf_pipeline.generation.mixin import GenerationMixin
from tf_pipeline.heads import head_of
from tf_pipeline.hub import RepositoryError, split_hub_options
from tf_pipeline.inputs import INPUT_NAMES, as_inputs, check_inputs, refuse_strings
from tf_pipeline.layers import Embedding
from tf_pipeline.losses import Loss, check_problem_type
from tf_pipeline.outputs import ModelOutput
from tf_pipeline.training import TrainingMixin
from tf_pipeline.vocabulary import VocabularyMixin

QUANTIZED = ("int8", "int4")
DTYPES = ("float32", "float64", "bfloat16", "float16")


def resolve_dtype(dtype: Any, config: PreTrainedConfig | None = None) -> keras.DTypePolicy:
    """The Keras dtype policy that ``dtype`` names.

    Args:
        dtype: a name in ``DTYPES``, such a dtype of TensorFlow, NumPy or PyTorch, a Keras policy or its name
            (``"mixed_bfloat16"``), ``"auto"`` for the dtype in the config, or ``None`` for Keras' global policy.
        config: read for ``"auto"``.

    Raises:
        ValueError: for a dtype that models cannot compute in.
    """
    if dtype == "auto":
        dtype = getattr(config, "dtype", None) or "float32"
    if dtype is None:
        return keras.config.dtype_policy()
    known = np.dtype(dtype) if isinstance(dtype, type) else dtype
    name = known.name if isinstance(known, (tf.DType, np.dtype)) else str(dtype).removeprefix("torch.")
    try:
        policy = dtype if isinstance(dtype, keras.DTypePolicy) else keras.dtype_policies.get(name)
    except ValueError:
        policy = None
    if policy is None or policy.compute_dtype not in DTYPES:
        raise ArgumentError(
            f"dtype {name!r} is not supported; use one of {', '.join(DTYPES)}, 'auto', or a Keras policy such as "
            "'mixed_bfloat16'."
        )
    return policy


class _ModelType(type(keras.Model)):
    """Names the layers and creates the variables of a model once its constructor has returned.

    A body inside a head waits for the head, so that a variable has the same path however the model was made.
    """

    def __call__(cls, *args: Any, **kwargs: Any):
        with checkpoint.deferred_variables():
            model = super().__call__(*args, **kwargs)
        _name_layers(model)
        if not checkpoint.variables_wait():
            checkpoint.create_variables(model)
        return model


def _name_layers(layer: keras.layers.Layer) -> None:
    """Name the layers below ``layer`` after the attributes that hold them."""
    for attribute, value in vars(layer).items():
        key = attribute.removesuffix("_")
        children = {f"{key}.{i}": item for i, item in enumerate(value)} if isinstance(value, list) else {key: value}
        for name, child in children.items():
            if not name.startswith("_") and isinstance(child, keras.layers.Layer):
                child.name = name
                _name_layers(child)


# Arguments of save_pretrained, for messages.
_SAVED = ("save_directory", "saved_model", "version", "push_to_hub", "max_shard_size")
# Ends of the keys whose values are names.
_NAMES = ("_act", "activation", "norm_rel_ebd")
_SIZES = (
    "vocab_size", "hidden_size", "embedding_size", "intermediate_size", "num_attention_heads",
    "max_position_embeddings", "type_vocab_size", "num_hidden_groups", "inner_group_num",
)  # fmt: skip
# Ends of the keys that count layers, and how many a model may have: more than any has, few enough to be made.
_LAYERS, _MOST_LAYERS = ("layers", "num_hidden_groups", "inner_group_num"), 2048


class TFPreTrainedModel(
    GenerationMixin, VocabularyMixin, AdapterMixin, TrainingMixin, keras.Model, metaclass=_ModelType
):
    """A Keras model with a Hugging Face config, whose attribute paths are the keys of its checkpoint.

    Subclasses construct their layers in ``__init__`` and implement :meth:`forward`. Variables are created after
    ``__init__``, so that those of a checkpoint are created from it.

    Attributes:
        config: the Hugging Face config.
        base_model_prefix: attribute of a head model that holds its body, such as ``"bert"``.
        input_rank: rank of ``input_ids``: 2, or 3 for multiple choice.
        tensor_names: inputs that are not labels.
        main_input_name: input that is given by position and that the sizes of the others follow.
        signal_shapes: shapes of inputs that are images or sound, with ``None`` for axes of any size.
        further_axes: sizes of the axes that inputs have behind the batch and the length, by input.
        label_names: inputs that are labels.
        option_names: arguments of a call that are no inputs.
        task_loss: the loss computed from labels, or ``None``.
        loss_inputs: inputs that the loss needs besides labels, if they are given.
        supported_config: values a config key may have, where not every value is implemented; bases add theirs.
        least_config: the least that numbers in the config may be, where a family has them.
        changes: number of changes to the model's layers, from which compiled functions tell that they are out of date.
        weight_changes: number of times that weights were trained, loaded or set, from which copies of them tell it.
    """

    base_model_prefix = ""
    input_rank = 2
    tensor_names: tuple[str, ...] = INPUT_NAMES
    main_input_name = "input_ids"
    signal_shapes: Mapping[str, tuple[int | None, ...]] = {}
    further_axes: Mapping[str, tuple[int, ...]] = {}
    label_names: tuple[str, ...] = ()
    option_names: tuple[str, ...] = ("output_hidden_states", "output_attentions", "return_dict", "training")
    task_loss: Loss | None = None
    loss_inputs: tuple[str, ...] = ()
    supported_config: dict[str, tuple[Any, ...]] = {}
    least_config: dict[str, float] = dict.fromkeys(_SIZES, 1) | {
        "num_hidden_layers": 0, "initializer_range": 0, "chunk_size_feed_forward": -math.inf
    }  # fmt: skip
    changes = weight_changes = 0
    # Where Keras finds the class by its name; a ported class may have the name of one with a module of its own.
    keras_package = "tf_pipeline"
    # Whether tables that are no weights, such as rotary frequencies, are PyTorch's own, which are float32.
    keeps_tables = False
    # Parts of a body that checkpoints made for another head leave out.
    optional_body = re.compile(r"^pooler\.")
    # Keys that checkpoints leave out where the initial values are meant.
    implied_keys = re.compile(r"(?!)")
    # Keys that checkpoints have and no model of the family uses, which PyTorch passes over too.
    ignored_keys = re.compile(r"(?!)")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package=cls.keras_package)(cls)

    def __init__(self, config: PreTrainedConfig, dtype: Any = None, name: str | None = None):
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                f"tf_pipeline needs Keras on TensorFlow, but Keras runs on {keras.backend.backend()!r}; set the "
                "environment variable KERAS_BACKEND=tensorflow before Keras is imported."
            )
        refuse_if_forked(type(self).__name__)
        super().__init__(dtype=resolve_dtype(dtype, config), name=name)
        self._check_config(config)
        self.config = config

    def _check_config(self, config: PreTrainedConfig) -> None:
        modules = [c.__module__ for c in type(self).__mro__ if c.__module__.startswith("tf_pipeline.models.")]
        if modules and (family := modules[0].rpartition(".")[2]) != config.model_type.replace("-", "_"):
            raise ValueError(
                f"{type(self).__name__} is a {family} model, but the config is of model_type {config.model_type!r}; "
                "TFAutoModel… classes choose the class by the config."
            )
        if modules:
            self._check_numbers(config)
        head = head_of(type(self).__name__)
        if head is not None and head.names_labels:
            _check_label_names(config)
            check_problem_type(config)
        for key, allowed in self.config_limits().items():
            value = getattr(config, key, allowed[0])
            if value not in allowed:
                raise ValueError(
                    f"{type(self).__name__} does not implement {key}={value!r} of the config; supported: "
                    f"{', '.join(map(repr, allowed))}."
                )

    def _check_numbers(self, config: PreTrainedConfig) -> None:
        """Refuse sizes and probabilities that no layer can have."""
        limits = {
            config.attribute_map.get(key, key): (least, _MOST_LAYERS if key.endswith(_LAYERS) else math.inf)
            for key, least in self.least_config.items()
        }
        limits |= {key: (0, 1) for key in config.to_dict() if "drop" in key and hasattr(type(config), key)}
        for key, (least, greatest) in limits.items():
            value = getattr(config, key, None)
            if value is not None and not (isinstance(value, (int, float)) and least <= value <= greatest):
                wanted = "a probability" if greatest == 1 else f"a number of at least {least}"
                wanted += f" and at most {greatest}" * (greatest == _MOST_LAYERS)
                raise ValueError(f"The config has {key}={value!r:.80}, but {type(self).__name__} needs {wanted}.")
        for key, value in config.to_dict().items():
            names = key.endswith(_NAMES) and not key.startswith("is_")
            if names and not isinstance(value, (str, type(None))):
                raise ValueError(f"The config has {key}={value!r:.80}, but {type(self).__name__} needs a name.")

    @classmethod
    def config_limits(cls) -> dict[str, tuple[Any, ...]]:
        """``supported_config`` of this class and all its bases."""
        limits: dict[str, tuple[Any, ...]] = {}
        for base in reversed(cls.__mro__):
            limits |= vars(base).get("supported_config", {})
        return limits

    # ------------------------------------------------------------------------------------------------- structure

    @property
    def base_model(self) -> "TFPreTrainedModel":
        """The body: the model without its head."""
        return getattr(self, self.base_model_prefix, self)

    def __dir__(self):
        # Keras saves everything that dir() lists; this alias would store the body under a second name, and a body
        # inside itself.
        return [name for name in super().__dir__() if name != "base_model"]

    def __getattr__(self, name: str) -> Any:
        """A name that models of version 4 had, where it is no attribute of this one."""
        return former_attribute(self, name)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of parameters, tied ones counted once.

        Args:
            only_trainable: leave frozen ones out.
            exclude_embeddings: leave tables of embeddings out.
        """
        slots = [slot for _, slot in checkpoint.named_slots(self)]
        if only_trainable:
            slots = [slot for slot in slots if slot.variable.trainable]
        if exclude_embeddings:
            slots = [slot for slot in slots if not isinstance(slot.layer, Embedding)]
        return sum(math.prod(slot.parameter.shape) for slot in slots)

    @property
    def dummy_inputs(self) -> dict[str, tf.Tensor]:
        """Inputs that any model of texts can be called with: three rows of five tokens."""
        ids = tf.constant([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]])
        return {name: ids for name in ("input_ids", "decoder_input_ids") if name in self.tensor_names}

    @property
    def num_positions(self) -> int | None:
        """Rows of the position table (config: ``max_position_embeddings``), or ``None`` if there is no table."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens in a sequence, or ``None`` if positions do not limit it."""
        return self.num_positions

    @property
    def num_mask_heads(self) -> int:
        """Number of heads that an attention mask of rank 4 may tell apart (config: ``num_attention_heads``)."""
        return getattr(self.config, "num_attention_heads", 1)

    @property
    def embedding_size(self) -> int:
        """Size of the vectors that ``inputs_embeds`` holds."""
        return getattr(self.config, "embedding_size", self.config.hidden_size)

    def tied_weights(self) -> dict[str, str]:
        """Checkpoint keys that are another name of a key of this model."""
        return {}

    def in_body(self, key: str) -> bool:
        """Whether a checkpoint key belongs to the part of the body that every checkpoint must have."""
        prefix = f"{self.base_model_prefix}."
        if self.base_model is not self:
            if not key.startswith(prefix):
                return False
            key = key.removeprefix(prefix)
        children = {name.removesuffix("_") for name in vars(self.base_model)}
        return key.split(".")[0] in children and not self.optional_body.search(key)

    # --------------------------------------------------------------------------------------------------- calling

    def forward(self, **inputs: Any) -> ModelOutput:
        """Compute the outputs from checked inputs, as the PyTorch class of the same name does."""
        raise NotImplementedError

    def __call__(self, input_ids: Any = None, *args: Any, **kwargs: Any) -> ModelOutput | tuple:
        """Run the model.

        Inputs are given by keyword, by position in the order of ``INPUT_NAMES``, in a list in that order, or as one
        dictionary, such as a tokenizer returns: ``model(**encoded)`` and ``model(encoded)`` are the same.

        Args:
            input_ids: token ids, int ``[batch, seq]``, or the dictionary or list of inputs.
            *args: ``attention_mask``, ``token_type_ids``, … by position.
            **kwargs: ``attention_mask`` (int ``[batch, seq]``, 1 for tokens to attend to; or ``[batch, query, key]``,
                or ``[batch, heads or 1, query, key]``), ``token_type_ids`` and ``position_ids`` (int ``[batch, seq]``),
                ``inputs_embeds`` (float ``[batch, seq, hidden]``, instead of ``input_ids``), the head's labels,
                ``output_hidden_states``, ``output_attentions``, ``return_dict`` and ``training``.

        Returns:
            The outputs, with a ``loss`` if labels were given; a tuple if ``return_dict=False``.

        Raises:
            ValueError: for inputs of a wrong shape or value; the message says how to correct them.
        """
        refuse_if_forked(type(self).__name__)
        options = {name: kwargs.pop(name) for name in self.option_names if name in kwargs}
        inputs = as_inputs(self, input_ids, args, kwargs)
        return super().__call__(inputs, **options)

    def call(self, inputs, output_hidden_states=None, output_attentions=None, return_dict=None, training=None):
        """Check the inputs, run :meth:`forward`, and add the loss if labels are among the inputs."""
        return self.run(
            inputs,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=return_dict,
            training=training,
        )

    def run(self, inputs, *, output_hidden_states, output_attentions, return_dict, training, **options: Any):
        """Do the work of :meth:`call`; ``options`` are those of :meth:`forward` that not every model has."""
        labels = {name: inputs[name] for name in self.label_names if name in inputs}
        with own_words():
            tensors = self.check({name: value for name, value in inputs.items() if name not in labels}, **options)
            outputs = self.forward(
                **tensors,
                **options,
                output_hidden_states=_given(output_hidden_states, self.config.output_hidden_states),
                output_attentions=_given(output_attentions, self.config.output_attentions),
                training=bool(training),
            )
            if labels:
                losses = self.named_losses(outputs, labels | self._loss_inputs(inputs))
                outputs = type(outputs)(outputs, **losses)
        return outputs if _given(return_dict, self.config.return_dict) else outputs.to_tuple()

    def rank_of_ids(self, inputs: Mapping[str, Any]) -> int:
        """Rank that ``input_ids`` have to have, given the inputs of a call."""
        return self.input_rank

    def check(self, inputs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Refuse inputs of a wrong shape or value; see :func:`~tf_pipeline.inputs.check_inputs`."""
        return check_inputs(self, inputs)

    def long_enough(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs; any computation on them waits for a check that texts have as many tokens as the model needs.

        Raises:
            ValueError: if they have fewer, where their number is at hand.
        """
        return inputs

    def named_losses(self, outputs: ModelOutput, labels: Mapping[str, Any]) -> dict[str, tf.Tensor | None]:
        """The losses that a call returns, scalars by the names of the outputs that they are."""
        return {"loss": self.compute_task_loss(outputs, labels)}

    def compute_task_loss(self, outputs: ModelOutput, labels: Mapping[str, Any], **options: Any) -> tf.Tensor | None:
        """The head's own loss, a scalar, from its outputs and its labels (and ``loss_inputs``) by name.

        ``options`` are those of :mod:`tf_pipeline.losses`: ``weights`` and ``label_smoothing``.
        """
        labels = {name: tf.convert_to_tensor(value) for name, value in labels.items()}
        for value in labels.values():
            refuse_strings(value)
        return type(self).task_loss(outputs, labels, self.config, **options)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs that this model takes, labels included."""
        return (*self.tensor_names, *self.label_names)

    def quantize(self, mode: str | None = None, config: Any = None, filters: Any = None, **kwargs: Any) -> None:
        """Keras' ``quantize``: keep linear layers, tables of embeddings and the head of the vocabulary as integers.

        Args:
            mode: ``"int8"`` or ``"int4"``.
            config: a Keras quantization config of such a mode, instead.
            filters: a regular expression of the paths of layers to quantize, a list of them, or a callable.
            **kwargs: ``type_check``.

        Raises:
            ValueError: for another mode, and for a model with adapters.
        """
        name = mode or getattr(config, "mode", None)
        if name not in QUANTIZED:
            raise ValueError(
                f"quantize takes {' or '.join(map(repr, QUANTIZED))}, and not {name!r:.80}: 'gptq' and 'awq' calibrate "
                "blocks of Keras' own layers one after the other, and 'float8' is for training with them."
            )
        if self.adapter_config():
            raise ValueError("The model has adapters: merge_and_unload them, or quantize before enable_lora.")
        with only_new_collected(), warnings.catch_warnings():  # Keras collects for every layer
            warnings.filterwarnings("ignore", message=".* does not have a `quantize` method")  # which has no weights
            super().quantize(mode, config=config, filters=filters, **kwargs)
        self.forget_graphs()

    def forget_graphs(self) -> None:
        """Discard compiled functions, which still read the earlier layers."""
        self.changes += 1
        self.train_function = self.test_function = self.predict_function = None
        vars(self).pop("_generation_graphs", None)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """Parts that ``tf.train.Checkpoint`` follows: all weights too, as it finds no layers in Keras' lists."""
        children = super()._trackable_children(save_type, **kwargs)
        if save_type != "checkpoint":
            return children
        return children | {f"weights/{weight.path}": weight for weight in self.weights}

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Keras' ``load_weights``."""
        super().load_weights(*args, **kwargs)
        self.weight_changes += 1

    def set_weights(self, weights: Any) -> None:
        """Keras' ``set_weights``."""
        super().set_weights(weights)
        self.weight_changes += 1

    # ---------------------------------------------------------------------------------------------------- saving

    def get_config(self) -> dict[str, Any]:
        """The values that ``.keras`` files and :meth:`from_config` need: config, dtype, and what layers have become."""
        quantized = [leaf for _, leaf in checkpoint.named_leaves(self) if getattr(leaf, "quantization_mode", None)]
        configs = {leaf.path: getattr(leaf, "quantization_config", None) for leaf in quantized}
        return {
            "config": self.config.to_dict() | {"model_type": self.config.model_type},
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "name": self.name,
            "quantized": {leaf.path: leaf.quantization_mode for leaf in quantized},
            "quantization": {p: keras.saving.serialize_keras_object(c) for p, c in configs.items() if c is not None},
            "adapters": self.adapter_config(),
            "frozen": [place for place, layer in enumerate(self._flatten_layers()) if not layer.trainable],
            "generation_config": self.generation_config and self.generation_config.to_dict(),
        }

    @classmethod
    def from_config(cls, config: PreTrainedConfig | dict[str, Any], custom_objects=None, **kwargs: Any):
        """A model with random weights, from a Hugging Face config or from the result of :meth:`get_config`."""
        if isinstance(config, PreTrainedConfig):
            return cls(config, **kwargs)
        arguments = dict(config)
        values, quantized = dict(arguments.pop("config")), arguments.pop("quantized", {})
        quantization = arguments.pop("quantization", {})
        frozen, adapters = arguments.pop("frozen", []), arguments.pop("adapters", None)
        generation = arguments.pop("generation_config", None)
        if isinstance(arguments["dtype"], dict):
            arguments["dtype"] = keras.saving.deserialize_keras_object(arguments["dtype"])
        model = cls(AutoConfig.for_model(values.pop("model_type"), **values), **arguments)
        leaves = [leaf for _, leaf in checkpoint.named_leaves(model) if leaf.path in quantized]
        with only_new_collected() if leaves else contextlib.nullcontext():  # Keras collects for every layer
            for leaf in leaves:
                how = quantization.get(leaf.path)
                leaf.quantize(quantized[leaf.path], config=how and keras.saving.deserialize_keras_object(how))
        if adapters is not None:
            model.restore_adapters(adapters)
        for place, layer in enumerate(model._flatten_layers() if frozen else ()):
            layer.trainable = place not in frozen  # of its parts too, which come later
        if adapters is not None and frozen:
            model._activate()
        if generation is not None:
            model.generation_config = GenerationConfig.from_dict(generation)
        return model

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs: Any):
        """Keras' ``export``, with a dynamic batch and length.

        The default signature takes one dictionary with int32 ``[batch, seq]`` ``input_ids``, ``attention_mask`` and
        whatever else :meth:`default_signature` names.
        """
        signature = input_signature or [self.default_signature()]
        return super().export(filepath, format=format, verbose=verbose, input_signature=signature, **kwargs)

    def default_signature(self) -> dict[str, tf.TensorSpec]:
        """Inputs of an exported model, each int32 of ``input_rank`` dynamic axes."""
        names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in self.tensor_names]
        return {name: tf.TensorSpec([None] * self.input_rank, tf.int32, name) for name in names}

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        config: PreTrainedConfig | str | os.PathLike | None = None,
        dtype: Any = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        variant: str | None = None,
        **kwargs: Any,
    ):
        """Load a checkpoint that PyTorch or :meth:`save_pretrained` wrote.

        Args:
            source: a local folder or a hub id.
            config: a config, or where to read it, instead of the checkpoint's own.
            dtype: see :func:`resolve_dtype`; ``"auto"`` keeps the checkpoint's.
            ignore_mismatched_sizes: initialize weights of another shape at random instead of failing.
            output_loading_info: also return the :class:`~tf_pipeline.checkpoint.LoadingReport`.
            use_safetensors: read safetensors alone, or ``.bin`` alone if false; by default whichever is there.
            variant: part of the names of the weights, such as ``"fp16"`` in ``model.fp16.safetensors``.
            **kwargs: hub options (``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``subfolder``) and
                config values to change, such as ``num_labels=6``. Other arguments of ``transformers`` do
                nothing or are refused, with a replacement: see ``tf_pipeline.arguments``.

        Raises:
            TypeError: for an argument that is neither of this method nor a value of the config.
            ValueError: for a value that cannot be honoured.
            CheckpointError: if the weights are absent, corrupt or do not fit; the message names them.
            RepositoryError: if the checkpoint cannot be found.
        """
        kwargs = settled(kwargs, MODEL_ARGUMENTS)
        hub_options = split_hub_options(kwargs)
        kwargs["dtype"] = dtype
        renamed(kwargs, "torch_dtype", "dtype")
        dtype = kwargs.pop("dtype")
        config, layers_changed = load_config(config if config is not None else source, hub_options, kwargs)
        reader = checkpoint.open_checkpoint(source, use_safetensors, variant, **hub_options)
        if dtype == "auto" and config.dtype is None:
            config.dtype = checkpoint.stored_dtype(reader)
        with paused_collection():
            with checkpoint.deferred_variables():
                model = cls._construct(config, dtype, source, **hub_options)
            reader = model._open_weights(reader, source, **hub_options)
            report = checkpoint.load(
                model, source, reader, strict=not layers_changed, ignore_mismatched_sizes=ignore_mismatched_sizes
            )
        model._check_loaded(report, source, **hub_options)
        model._load_generation_config(source, **hub_options)
        return (model, report) if output_loading_info else model

    @classmethod
    def _construct(cls, config: PreTrainedConfig, dtype: Any, source: str | os.PathLike, **hub_options: Any):
        """A model without variables for the checkpoint at ``source``."""
        with clear_errors(str(source)):
            return cls(config, dtype=dtype)

    def _open_weights(self, reader, source: str | os.PathLike, **hub_options: Any):
        """The tensors to load, given those that are stored."""
        return reader

    def _check_loaded(self, report: checkpoint.LoadingReport, source: str | os.PathLike, **hub_options: Any) -> None:
        """Refuse a loaded model that differs from the checkpoint."""

    def _weight_writer(self, slots: dict[str, checkpoint.Slot]) -> checkpoint.WeightWriter:
        """The tensors to save, given the parameters by key."""
        return checkpoint.WeightWriter(slots)

    def _save_extras(self, folder: Path) -> None:
        """Write the files of this model's checkpoint besides weights and config."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        saved_model: bool = False,
        version: int = 1,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        **kwargs: Any,
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` that PyTorch loads bit for bit.

        The new checkpoint takes the place of an earlier one as a whole; other files in the folder stay. Of a save that
        fails, or whose process is killed, nothing is seen. Adapters that are on are merged into what is written.

        Args:
            save_directory: the folder to write into; made if it does not exist.
            saved_model: also :meth:`export` the model, to ``saved_model/VERSION`` below the folder.
            version: number of that export.
            push_to_hub: also upload the checkpoint, to ``repo_id`` or a repository with the folder's name.
            max_shard_size: size past which the weights are split over several files.
            **kwargs: with ``push_to_hub``, those of :meth:`push_to_hub`. Other arguments of ``transformers`` do nothing
                or are refused, with a replacement: see ``tf_pipeline.arguments``.

        Raises:
            TypeError: for an unknown argument.
            ValueError: for a value that cannot be honoured.
            RepositoryError: if the hub does not accept the upload; the folder is written then.
        """
        options = settled(kwargs, SAVE_ARGUMENTS)
        if not push_to_hub:
            options.pop("token", None)
            refuse_unknown(f"{type(self).__name__}.save_pretrained", options, _SAVED, SAVE_ARGUMENTS)
        with checkpoint.checkpoint_folder(save_directory) as staging:
            self.write_checkpoint(staging, max_shard_size)
        if saved_model:
            self.export(Path(save_directory) / "saved_model" / str(version), verbose=False)
        if push_to_hub:
            try:
                self.push_to_hub(**{"repo_id": Path(save_directory).absolute().name} | options)
            except RepositoryError as error:
                raise RepositoryError(
                    f"The checkpoint is saved in {save_directory}, but was not uploaded: {error} model.push_to_hub "
                    "uploads it later."
                ) from error

    def push_to_hub(self, repo_id: str, max_shard_size: int | str = "5GB", **options: Any) -> str:
        """Upload what :meth:`save_pretrained` writes to the hub, as one commit.

        Args:
            repo_id: ``"name"`` or ``"organization/name"``; made if it does not exist.
            max_shard_size: size past which the weights are split over several files.
            **options: ``tokenizer``, ``commit_message``, ``commit_description``, ``private``, ``token``, ``revision``,
                ``create_pr``: see :func:`tf_pipeline.sharing.push_folder`.

        Returns:
            The address of the commit.

        Raises:
            RepositoryError: if the hub cannot be reached or does not accept it.
        """
        from tf_pipeline.sharing import push_model

        renamed(options, "use_auth_token", "token")
        return push_model(self, repo_id, max_shard_size, **options)

    def create_model_card(self, output_dir: str | os.PathLike, model_name: str, **values: Any) -> Path:
        """Write ``README.md`` of a folder: the kind of the model, its use, the numbers of each epoch, its training.

        Args:
            output_dir: the folder, made if it does not exist.
            model_name: name of the model.
            **values: ``language``, ``license``, ``tags``, ``finetuned_from``, ``tasks``, ``dataset``,
                ``details``: see :func:`tf_pipeline.sharing.write_model_card`.

        Returns:
            Path of the file.
        """
        from tf_pipeline.sharing import write_model_card

        return write_model_card(self, output_dir, model_name, **values)

    def write_checkpoint(self, folder: Path, max_shard_size: int | str = "50GB") -> None:
        """Write the files of :meth:`save_pretrained` into an empty folder, one after another."""
        self.check_mergeable("saved as weights")
        checkpoint.save_weights(self, folder, max_shard_size)
        self.config.architectures = [type(self).__name__.removeprefix("TF")]
        self.config.dtype = self.variable_dtype
        self.config.save_pretrained(folder)
        self._save_generation_config(folder)
        self._save_extras(folder)


@contextlib.contextmanager
def own_words():
    """Keep Keras from wrapping messages in its own, which add every argument of the call and escape codes."""
    try:
        yield
    except (ValueError, TypeError) as error:
        wrapped = re.search(r"\x1b\[1m(.*)\x1b\[0m", str(error), re.DOTALL)  # by a layer within
        plain = type(error)(wrapped[1]) if wrapped else error
        plain._keras_call_info_injected = True
        raise plain.with_traceback(error.__traceback__) from None


def _check_label_names(config: PreTrainedConfig) -> None:
    """Refuse an ``id2label`` that does not name each label; numbers may be strings, as in JSON."""
    names = config.id2label
    if names and all(isinstance(key, str) and key.isdecimal() for key in names):
        names = config.id2label = {int(key): name for key, name in names.items()}
    if not names:
        raise ValueError(f"The config has num_labels={config.num_labels}, but a classifier needs at least 1 label.")
    if sorted(names) != list(range(len(names))):
        raise ValueError(
            f"id2label of the config names the labels {sorted(names)}; it has to name 0 to {len(names) - 1}, one for "
            "each row of the classifier."
        )


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value
