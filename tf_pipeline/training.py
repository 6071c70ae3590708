"""Training by Keras of models that bring their own loss: labels, weights of texts and of classes, label smoothing."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline import recompute
from tf_pipeline.arguments import whole_number
from tf_pipeline.forks import refuse_if_forked
from tf_pipeline.heads import head_of
from tf_pipeline.inputs import (
    arrays_of,
    as_tensor,
    own_words_of_graphs,
    rank_of,
    refuse_strings,
    without_autotuning,
)
from tf_pipeline.layers.fused import fusing
from tf_pipeline.losses import check_smoothing, class_weights_for
from tf_pipeline.outputs import LogitsOutput, ModelOutput

# Number of weights from which on steps take long enough to compile loops for them, half a second for each shape.
_MANY_WEIGHTS = 10_000_000

_CROSS_ENTROPIES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")


class TrainingMixin:
    """Methods that Keras' ``fit`` and ``evaluate`` call, for heads that compute the loss."""

    _fuses_loops = False
    _label_smoothing = 0.0
    _class_weight: tf.Tensor | None = None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *args: Any,
        jit_compile: bool | str = "auto",
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Keras' ``compile``; without a loss, the head's own is used.

        Args:
            optimizer: of Keras.
            loss: of Keras, on the logits; the head's own if there is none, or one of the names that version 4 of
                ``transformers`` had for it: ``"passthrough"``, ``model.hf_compute_loss``, ``model.compute_loss``.
            *args: of Keras.
            jit_compile: whether XLA compiles the steps: ``True``, again for every shape of a batch; ``False``, never:
                a graph of dynamic shape is traced once; or ``"auto"``, activations, norms and dropout of ``fit`` and
                ``train_on_batch`` alone, on a CPU, for a model of at least 10 million weights, where all texts have the
                same length. Dropout draws other elements then.
            label_smoothing: share of each label, from 0 to below 1, that is spread over all classes in the head's own
                cross entropy, as by ``torch.nn.CrossEntropyLoss``; in ``evaluate`` too, as by Keras' losses.
            **kwargs: of Keras.

        Raises:
            ValueError: for a share out of its range, or next to a loss of your own, and for another ``jit_compile``.
        """
        if not isinstance(jit_compile, (bool, np.bool_)) and str(jit_compile) != "auto":
            raise ValueError(f'jit_compile is True, False or "auto"; got {jit_compile!r:.80}.')
        label_smoothing = check_smoothing(label_smoothing)
        if _is_own_loss(loss):
            loss = None
        if label_smoothing and loss is not None:
            raise ValueError("label_smoothing is of the model's own loss; give it to the loss that you pass.")
        if any(map(_takes_probabilities, keras.tree.flatten(loss))) and self.label_names:
            warnings.warn(
                f"The loss takes probabilities, and {type(self).__name__} gives logits: pass from_logits=True, or no "
                "loss for the head's own.",
                stacklevel=2,
            )
        if loss is None:
            self._compile_loss = self.loss = None  # Keras keeps the loss of an earlier compile()
        self._fuses_loops = jit_compile == "auto"
        jit_compile = bool(jit_compile) and not self._fuses_loops
        super().compile(optimizer, loss, *args, jit_compile=jit_compile, **kwargs)
        self._label_smoothing = label_smoothing

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of :meth:`compile`, for ``.keras`` files."""
        config = super().get_compile_config()
        own = {"jit_compile": "auto"} if self._fuses_loops else {}
        if self._label_smoothing:
            own["label_smoothing"] = self._label_smoothing
        return config | own if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the model in a ``.keras`` file was; Keras leaves that to classes with their own ``compile``."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    # --------------------------------------------------------------------------------------------------- weights

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Keras' ``fit``.

        With the head's own loss, ``class_weight`` (numbers by class) weighs every label, of tokens too;
        ``sample_weight`` is ``[batch]``, or of the shape of the labels. The loss is the sum of weighted losses over the
        number of labels that are not -100, as by ``keras.losses.SparseCategoricalCrossentropy``. Labels may be among
        the inputs, which may be what a tokenizer returns, and lists.

        Raises:
            ValueError: for labels that are strings or no classes, and for inputs that a call would refuse.
        """
        arguments = self._arguments(keras.Model.fit, args, kwargs)
        if isinstance(arguments.get("x"), tf.data.Dataset):
            arguments.setdefault("shuffle", False)  # Keras only warns about it for a data set
        try:
            with self._weighing(arguments), own_words_of_graphs():
                return super().fit(**arguments)
        finally:  # an interrupted training has changed weights too
            self.weight_changes += 1

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' ``evaluate``; see :meth:`fit` for ``sample_weight``."""
        with own_words_of_graphs():
            return super().evaluate(**self._arguments(keras.Model.evaluate, args, kwargs))

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' ``predict``; see :meth:`fit` for the inputs."""
        arguments = self._arguments(keras.Model.predict, args, kwargs)
        if self._distribute_strategy is None:
            arguments = _as_data_set(arguments)
        with own_words_of_graphs():
            return super().predict(**arguments)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' ``train_on_batch``; see :meth:`fit` for ``class_weight`` and ``sample_weight``."""
        arguments = self._arguments(keras.Model.train_on_batch, args, kwargs)
        self.weight_changes += 1
        with self._weighing(arguments), own_words_of_graphs():
            return super().train_on_batch(**arguments)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' ``test_on_batch``; see :meth:`fit` for ``sample_weight``."""
        with own_words_of_graphs():
            return super().test_on_batch(**self._arguments(keras.Model.test_on_batch, args, kwargs))

    def predict_on_batch(self, x: Any) -> Any:
        """Keras' ``predict_on_batch``; see :meth:`fit` for the inputs."""
        with own_words_of_graphs():
            return super().predict_on_batch(arrays_of(x))

    def _arguments(self, method: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, with inputs and labels that Keras takes.

        Move labels from ``x`` to ``y`` where there are weights, which Keras would otherwise drop.
        """
        arguments = dict(inspect.signature(method).bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        arguments |= arguments.pop("kwargs", {})
        arguments |= {name: self._given(name, arguments[name]) for name in ("x", "y") if name in arguments}
        if isinstance(given := arguments.get("validation_data"), (tuple, list)):
            parts = (self._given(name, value) for name, value in zip("xy", given, strict=False))
            arguments["validation_data"] = (*parts, *given[2:])
        if arguments.get("sample_weight") is not None:
            arguments["x"], arguments["y"] = self._apart(arguments.get("x"), arguments.get("y"))
        validation = arguments.get("validation_data")
        if isinstance(validation, tuple) and len(validation) == 3 and validation[2] is not None:
            arguments["validation_data"] = (*self._apart(*validation[:2]), validation[2])
        return arguments

    def _given(self, name: str, value: Any) -> Any:
        """Inputs (``"x"``) or labels (``"y"``), as arrays if they are lists."""
        if name == "x" or isinstance(value, Mapping):
            value = arrays_of(value)
        elif len(self.label_names) < 2 and isinstance(value, (list, tuple)) and not any(map(rank_of, value)):
            refuse_strings(value)
            value = as_tensor("labels", value)
        labels = value if isinstance(value, Mapping) else {} if name == "x" else {"labels": value}
        for name in ("labels", *self.label_names):
            refuse_strings(labels.get(name))
        return value

    def _apart(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Inputs and labels, which may be among the inputs."""
        labels = {name: x[name] for name in self.label_names if name in x} if isinstance(x, Mapping) else {}
        if y is not None or not labels:
            return x, y
        x = {name: value for name, value in x.items() if name not in labels}
        return x, next(iter(labels.values())) if len(labels) == 1 else labels

    @contextlib.contextmanager
    def _weighing(self, arguments: dict[str, Any]) -> Iterator[None]:
        """Apply ``class_weight`` in ``train_step``; if ``compile`` was given a loss, leave it to Keras.

        Raises:
            ValueError: for invalid weights, or together with weights of texts, which Keras refuses too.
        """
        if self._compile_loss is not None or (class_weight := arguments.pop("class_weight", None)) is None:
            yield
            return
        if arguments.get("sample_weight") is not None:
            raise ValueError("class_weight and sample_weight cannot be given together: multiply them.")
        if len(self.label_names) != 1:
            raise ValueError(f"class_weight needs a model with one kind of labels; {type(self).__name__} has "
                             f"{', '.join(self.label_names) or 'none'}.")  # fmt: skip
        self._class_weight, self.train_function = self._checked(class_weight), None  # a graph holds them as constants
        try:
            yield
        finally:
            self._class_weight = self.train_function = None

    def _checked(self, class_weight: Mapping[int, float]) -> tf.Tensor:
        """Weights ``[classes]``, 1 for those that are not named."""
        if not isinstance(class_weight, Mapping) or not class_weight:
            raise ValueError(f"class_weight has to be numbers by class, such as {{0: 1.0, 1: 3.0}}; got "
                             f"{class_weight!r:.80}.")  # fmt: skip
        places = [whole_number("A class of class_weight", place, 0) for place in class_weight]
        values = np.ones(max(places) + 1)
        self._check_classes(len(values))
        values[places] = np.asarray([*class_weight.values()], dtype=float)
        if not np.isfinite(values).all():
            raise ValueError(f"class_weight has to be finite numbers; got {class_weight!r:.80}.")
        return tf.constant(values)

    def _check_classes(self, number: int) -> None:
        """Require that labels are classes, and that there are so many.

        Raises:
            ValueError: if not.
        """
        head = head_of(type(self).__name__)
        if head is None or not head.names_labels:
            return
        kind = "regression" if self.config.num_labels == 1 else getattr(self.config, "problem_type", None)
        if kind in ("regression", "multi_label_classification"):
            raise ValueError(f"class_weight is for labels that are classes; the model's problem_type is {kind!r}.")
        if number > self.config.num_labels:
            raise ValueError(
                f"class_weight names the class {number - 1}; the model has {self.config.num_labels}, from 0."
            )

    def train_step(self, data: Any) -> Mapping[str, Any]:
        """One batch of ``fit``, with the weights of its labels; reports are of all workers, if there are several."""
        if self._class_weight is not None:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
            if weights is not None:
                raise ValueError("class_weight is given, but the data set has weights of its own: multiply them.")
            labels = self._labels(x, y)
            if len(labels) != 1:
                raise ValueError(f"class_weight is given, but the batches have no {', '.join(self.label_names)}.")
            (label,) = labels.values()
            weights = class_weights_for(label, self._class_weight)
            data = (x, label if y is None else y, weights)
        with fusing(self._fuses_loops and self._is_worth_loops(data)):
            return self._of_all_workers(super().train_step(data))

    def _is_worth_loops(self, data: Any) -> bool:
        """Whether compiled loops make steps faster: on a CPU, for many steps of the same shape that take long."""
        shapes = [tf.TensorShape(one.shape) for one in tf.nest.flatten(keras.utils.unpack_x_y_sample_weight(data)[0])]
        is_fixed = all(shape.rank and None not in shape[1:] for shape in shapes)
        is_graph_on_cpu = not tf.executing_eagerly() and not tf.config.list_physical_devices("GPU")
        return is_fixed and is_graph_on_cpu and self.count_params() >= _MANY_WEIGHTS

    def test_step(self, data: Any) -> Mapping[str, Any]:
        """One batch of ``evaluate``; reports are of all workers, if there are several."""
        return self._of_all_workers(super().test_step(data))

    def _of_all_workers(self, logs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Reports with an axis, along which Keras takes the mean over workers; scalars have none."""
        if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return logs
        return tf.nest.map_structure(lambda value: tf.reshape(value, [1]), logs)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Keras' preparation of ``fit`` and ``evaluate``, whose data is not tuned while it is read.

        Under ``tf.distribute``, Keras is given one replica's part of the first batch: it takes the mean over replicas,
        which TensorFlow refuses for dictionaries if there are several processes.
        """
        if hasattr(iterator, "_distributed_dataset"):  # which Keras makes of arrays too
            iterator._distributed_dataset = without_autotuning(iterator._distributed_dataset)
        if iterator is not None and self._distribute_strategy is not None:
            for _, _, batches in iterator:
                parts = self.distribute_strategy.experimental_local_results
                data_batch = tf.nest.map_structure(lambda x, parts=parts: parts(x)[0], next(batches))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    # ------------------------------------------------------------------------------------------ losses and metrics

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The user's loss on the logits if ``compile`` was given one, else the head's own."""
        if self._compile_loss is not None:
            return super().compute_loss(x, self._targets(x, y, y_pred), _scores(y_pred), sample_weight, training)
        if y_pred is None:
            raise TypeError(
                "compute_loss is Keras', of x, y and y_pred; that of version 4 is hf_compute_loss(labels, logits)."
            )
        labels = self._labels(x, y)
        self._warn_of_float_labels(labels)
        options = {} if sample_weight is None else {"weights": _one_tensor(sample_weight)}
        if self._label_smoothing:
            options["label_smoothing"] = self._label_smoothing
        loss = self.compute_task_loss(y_pred, labels | self._loss_inputs(x), **options) if labels else None
        if loss is None:
            labels = f"give {', '.join(self.label_names)} with the inputs or as y, or " if self.label_names else ""
            raise ValueError(
                f"{type(self).__name__} has no labels to compute its loss from: {labels}pass loss= to compile()."
            )
        # Replicas of tf.distribute add their gradients up, so that each contributes its share of the mean.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:  # one that is left without rows of the last batch has no mean
            loss = tf.where(tf.shape(tf.nest.flatten(x)[0])[0] > 0, loss, tf.zeros_like(loss))
        return tf.add_n([loss, *(tf.cast(extra, loss.dtype) for extra in self.losses)]) / replicas

    def hf_compute_loss(self, labels: Any, logits: Any) -> tf.Tensor:
        """The head's own loss, under the name of version 4 of ``transformers``.

        ``compile(loss=model.hf_compute_loss)`` is ``compile()``. Version 4 returned the loss of each text here.

        Args:
            labels: as in a call.
            logits: of the same call.

        Returns:
            The mean loss, a scalar.

        Raises:
            ValueError: for a head whose loss takes more than one kind of logits or labels.
        """
        if len(self.label_names) != 1:
            names = "=…, ".join(self.label_names)
            words = f"call it with labels, model(inputs, {names}=…).loss" if names else "it has no loss of its own"
            raise ValueError(f"hf_compute_loss takes one kind of labels, which {type(self).__name__} has not: {words}.")
        return self.compute_task_loss(LogitsOutput(logits=logits), {self.label_names[0]: labels})

    def _warn_of_float_labels(self, labels: Mapping[str, Any]) -> None:
        """Say that labels which are floats are judged class by class, which is not meant of one-hot vectors."""
        head, label = head_of(type(self).__name__), labels.get("labels")
        if head is None or head.loss != "sequence_classification" or label is None:
            return
        if self.config.num_labels > 1 and self.config.problem_type is None and tf.as_dtype(label.dtype).is_floating:
            warnings.warn(
                "The labels are floats, and the config has no problem_type: each class is learned by itself, as of "
                "texts with several labels. For one class per text, give its number (np.argmax(labels, -1)); otherwise "
                'load the model with problem_type="multi_label_classification".',
                stacklevel=2,
            )

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The user's metrics, on the logits and the labels."""
        return super().compute_metrics(x, self._targets(x, y, y_pred), _scores(y_pred), sample_weight)

    def _labels(self, x, y) -> dict[str, Any]:
        """Labels by name: those of ``y`` (by name, or in order), or those among the inputs if there is no ``y``."""
        given = x if y is None else y
        if not isinstance(given, Mapping):
            given = {} if y is None else dict(zip(self.label_names, tf.nest.flatten(y), strict=False))
        return {name: given[name] for name in self.label_names if name in given}

    def _loss_inputs(self, x) -> dict[str, Any]:
        """Inputs that the loss needs, if the inputs are given by name."""
        return {name: x[name] for name in self.loss_inputs if isinstance(x, Mapping) and name in x}

    def _targets(self, x, y, outputs: ModelOutput):
        """Labels that a user's loss and metrics compare with the outputs, by the name of the logits they belong to."""
        if not self.label_names:
            return y
        scores = [name for name in outputs if name.endswith("logits")]
        labels = self._labels(x, y)
        return {
            score: labels[name] for name, score in zip(self.label_names, scores, strict=True) if name in labels
        } or y

    # ------------------------------------------------------------------------------------------------------ memory

    def gradient_checkpointing_enable(self) -> None:
        """Compute the layers again for their gradients while training, rather than keep their activations.

        A step takes about a third longer, and memory for one layer at a time. Gradients stay the same, dropout too.

        Raises:
            ValueError: for a ported model, whose graph has no layers.
        """
        recompute.enable(self)
        self.train_function = None

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations of all layers again."""
        recompute.disable(self)
        self.train_function = None

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again for their gradients."""
        return recompute.is_enabled(self)

    # ------------------------------------------------------------------------------------------------------- steps

    def predict_step(self, data):
        """One batch of ``predict``; the loss is left out, because it has no batch axis."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self(
            {name: value for name, value in x.items() if name not in self.label_names} if isinstance(x, Mapping) else x,
            training=False,
        )

    def make_train_function(self, force: bool = False):
        """Keras' step of ``fit`` and ``train_on_batch``, which ask for it at each call."""
        refuse_if_forked(type(self).__name__)
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False):
        """Keras' step of ``evaluate`` and ``test_on_batch``."""
        refuse_if_forked(type(self).__name__)
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False):
        """Keras' step of ``predict`` and ``predict_on_batch``."""
        refuse_if_forked(type(self).__name__)
        return super().make_predict_function(force)

    def prepare_tf_dataset(self, dataset: Any, batch_size: int = 8, shuffle: bool = True, **options: Any):
        """Batches of tokenized rows for ``fit``, ``evaluate`` and ``predict`` of this model.

        Args:
            dataset: ``datasets.Dataset``, a list of dictionaries, a dictionary of columns or a pandas DataFrame.
                Columns that the model does not take are left out.
            batch_size: rows per batch.
            shuffle: whether to draw a new order for every epoch.
            **options: ``tokenizer`` or ``collate_fn`` and ``collate_fn_args``, ``drop_remainder``, ``prefetch``,
                ``seed``: see :func:`tf_pipeline.data.prepare_tf_dataset`.

        Returns:
            A ``tf.data.Dataset`` of known length.
        """
        from tf_pipeline.data.tokenized import prepare_tf_dataset

        return prepare_tf_dataset(dataset, self.tensor_names, self.label_names, batch_size, shuffle, **options)


def _as_data_set(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``predict`` with arrays as the data set that Keras makes of them, which is not tuned.

    With ``steps``, Keras itself finds the size of a batch.
    """
    x = arguments["x"]
    arrays = [*x.values()] if isinstance(x, Mapping) else [x]
    if arguments.get("steps") is None and all(isinstance(one, (np.ndarray, tf.Tensor)) and one.ndim for one in arrays):
        if len({len(array) for array in arrays}) == 1:
            batch_size = arguments.pop("batch_size", None) or 32
            x = tf.data.Dataset.from_tensor_slices(dict(x) if isinstance(x, Mapping) else x).batch(batch_size)
    return arguments | {"x": without_autotuning(x)}


def _scores(outputs: ModelOutput) -> dict[str, Any]:
    """Outputs that a user's loss and metrics judge, by name: the logits, or everything if there are none."""
    return {name: value for name, value in outputs.items() if name.endswith("logits")} or dict(outputs)


def _one_tensor(weights: Any) -> Any:
    """The weights of texts, which the head's own loss takes as one tensor."""
    parts = tf.nest.flatten(weights)
    if len(parts) != 1:
        raise ValueError(
            f"The model's own loss takes one sample_weight, and got {len(parts)}; pass loss= to compile()."
        )
    return parts[0]


def _is_own_loss(loss: Any) -> bool:
    """Whether a loss is a name that version 4 had for the head's own."""
    own = (TrainingMixin.hf_compute_loss, TrainingMixin.compute_loss)
    return (isinstance(loss, str) and loss == "passthrough") or getattr(loss, "__func__", None) in own


def _takes_probabilities(loss: Any) -> bool:
    """Whether a loss of Keras' is a cross-entropy that was not told of logits."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None)
    return name in _CROSS_ENTROPIES or getattr(loss, "from_logits", None) is False
