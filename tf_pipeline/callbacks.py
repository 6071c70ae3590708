"""Callbacks of ``transformers`` 4 for ``fit``: metrics over whole data sets, and uploads to the hub."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.sharing import push_folder, write_model_card

logger = logging.getLogger(__name__)

SAVE_STRATEGIES = ("epoch", "steps", "no")
# Steps of an epoch whose draws do not meet those of the next.
_DRAWS = 2**20


class KerasMetricCallback(keras.callbacks.Callback):
    """Computes metrics over a whole data set at the end of each epoch, also of texts that the model writes.

    Args:
        metric_fn: a function of ``(predictions, labels)`` that returns numbers by name. Both are arrays, or arrays by
            name if there are several; rows of different lengths are filled up with -100.
        eval_dataset: a ``tf.data.Dataset`` of batches, each inputs or ``(inputs, labels)``; or such inputs as arrays.
        output_cols: outputs to predict; all but the loss and caches if not given.
        label_cols: names of the labels, if they are among the inputs; the model's own if not given.
        batch_size: rows per batch, of arrays.
        predict_with_generate: whether predictions are the tokens that ``generate`` writes.
        use_xla_generation: taken for old code; ``generate`` is compiled in any case.
        generate_kwargs: options of ``generate``.

    Raises:
        TypeError: if ``metric_fn`` returns no dictionary.
        ValueError: if there are no labels, or if arrays come without ``batch_size``.
    """

    def __init__(
        self,
        metric_fn: Callable[[Any], Mapping[str, Any]],
        eval_dataset: Any,
        output_cols: Sequence[str] | None = None,
        label_cols: Sequence[str] | None = None,
        batch_size: int | None = None,
        predict_with_generate: bool = False,
        use_xla_generation: bool = False,
        generate_kwargs: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not isinstance(eval_dataset, tf.data.Dataset):
            if batch_size is None:
                raise ValueError("batch_size is needed: eval_dataset is not made of batches.")
            eval_dataset = tf.data.Dataset.from_tensor_slices(eval_dataset).batch(batch_size)
        self.metric_fn, self.eval_dataset = metric_fn, eval_dataset
        self.output_cols, self.label_cols = output_cols, label_cols
        self.predict_with_generate, self.generate_kwargs = predict_with_generate, dict(generate_kwargs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the metrics to the logs of the epoch."""
        predictions, labels = [], []
        for batch in self.eval_dataset:
            inputs, given, _ = keras.utils.unpack_x_y_sample_weight(batch)
            labels.append(self._labels(inputs, given))
            predictions.append(self._predictions(inputs))
        metrics = self.metric_fn((_joined(predictions), _joined(labels)))
        if not isinstance(metrics, Mapping):
            raise TypeError(f"metric_fn has to return numbers by name, and returned {metrics!r:.80}.")
        if logs is not None:
            logs.update(metrics)

    def _labels(self, inputs: Mapping[str, Any], given: Any) -> Any:
        if given is not None:
            return given
        labels = {name: inputs[name] for name in self.label_cols or self.model.label_names if name in inputs}
        if not labels:
            raise ValueError(
                f"The batches of eval_dataset have no labels: neither pairs, nor any of "
                f"{', '.join(self.label_cols or self.model.label_names)} among {', '.join(inputs)}."
            )
        return labels

    def _predictions(self, inputs: Mapping[str, Any]) -> Any:
        if self.predict_with_generate:
            taken = {name: inputs[name] for name in (self.model.main_input_name, "attention_mask") if name in inputs}
            return self.model.generate(**taken, **self.generate_kwargs)
        outputs = self.model.predict_on_batch({k: v for k, v in inputs.items() if k not in self.model.label_names})
        left_out = {"loss", *getattr(self.model.config, "keys_to_ignore_at_inference", ())}
        return {name: outputs[name] for name in self.output_cols or [key for key in outputs if key not in left_out]}


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays of several batches as one each; one alone is not put into a dictionary."""
    if not isinstance(parts[0], Mapping):
        return _stacked([np.asarray(part) for part in parts])
    joined = {name: _stacked([np.asarray(part[name]) for part in parts]) for name in parts[0]}
    return next(iter(joined.values())) if len(joined) == 1 else joined


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays one after another; behind shorter rows there is -100."""
    sizes = np.max([array.shape[1:] for array in arrays], axis=0).astype(int) if arrays[0].ndim > 1 else ()
    filled = [
        np.pad(array, [(0, 0), *((0, size - own) for size, own in zip(sizes, array.shape[1:], strict=True))],
               constant_values=-100)
        for array in arrays
    ]  # fmt: skip
    return np.concatenate(filled)


class EpochOrder(keras.callbacks.Callback):
    """Makes all that is drawn in an epoch of ``fit`` depend on the seeds and the number of the epoch alone.

    That is the order, masks and spans of a data set of :func:`tf_pipeline.data.prepare`, and dropout, whose state Keras
    saves neither with weights nor in ``BackupAndRestore``. A training that goes on after an interruption draws what it
    would have drawn then.

    Args:
        dataset: the result of ``prepare``, and not of a method of it; other data may be left out.

    Raises:
        TypeError: for another data set.
    """

    def __init__(self, dataset: tf.data.Dataset | None = None):
        super().__init__()
        if dataset is not None and not hasattr(dataset, "batches"):
            raise TypeError(
                "EpochOrder needs the data set that tf_pipeline.data.prepare() returns, not one derived from it with "
                "map(), take() and so on."
            )
        self._batches = getattr(dataset, "batches", None)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the number of the next iteration, and the states of dropout."""
        if self._batches is not None:
            self._batches.epoch = epoch
        for layer in self.model._flatten_layers():
            if (generator := getattr(layer, "seed_generator", None)) is not None:
                seed, _ = np.asarray(generator.state)
                generator.state.assign(np.array([seed, epoch * _DRAWS % 2**32], np.uint32))


class PushToHubCallback(keras.callbacks.Callback):
    """Saves the model while it is trained, and uploads it to the hub.

    A failed upload does not end the training: it is logged, and the next one has all that is new.

    Args:
        output_dir: folder that holds the newest model, its tokenizer and its card.
        save_strategy: when to save: after each ``"epoch"``, after ``save_steps`` ``"steps"``, or at the end alone
            (``"no"``).
        save_steps: number of batches, of ``"steps"``.
        tokenizer: a tokenizer to put next to the model.
        hub_model_id: ``"name"`` or ``"organization/name"``; the folder's name if not given.
        hub_token: of the hub; that of ``hf auth login`` if not given.
        checkpoint: not supported; ``keras.callbacks.BackupAndRestore`` keeps what it takes to go on.
        **model_card_args: of ``create_model_card``, such as ``tags`` or ``finetuned_from``.

    Raises:
        ValueError: for an unknown strategy, or ``"steps"`` without a number.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        save_strategy: str = "epoch",
        save_steps: int | None = None,
        tokenizer: Any = None,
        hub_model_id: str | None = None,
        hub_token: str | None = None,
        checkpoint: bool = False,
        **model_card_args: Any,
    ):
        super().__init__()
        save_strategy = getattr(save_strategy, "value", save_strategy)  # an enumeration of transformers
        if save_strategy not in SAVE_STRATEGIES:
            raise ValueError(f"save_strategy {save_strategy!r} is not one of {', '.join(SAVE_STRATEGIES)}.")
        if save_strategy == "steps" and not (isinstance(save_steps, int) and save_steps > 0):
            raise ValueError(f"save_strategy='steps' needs a positive number of save_steps, not {save_steps!r}.")
        if checkpoint:
            raise ValueError("checkpoint=True is not supported: use keras.callbacks.BackupAndRestore to go on later.")
        self.output_dir, self.save_strategy, self.save_steps = Path(output_dir), save_strategy, save_steps
        self.tokenizer, self.hub_token, self.model_card_args = tokenizer, hub_token, model_card_args
        self.hub_model_id = hub_model_id or self.output_dir.absolute().name

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Upload after every ``save_steps`` batches."""
        if self.save_strategy == "steps" and (batch + 1) % self.save_steps == 0:
            self._push(f"Training in progress, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Upload after each epoch."""
        if self.save_strategy == "epoch":
            self._push(f"Training in progress, epoch {epoch + 1}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Upload the trained model."""
        self._push("End of training")

    def _push(self, message: str) -> None:
        self.model.save_pretrained(self.output_dir)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(self.output_dir)
        write_model_card(
            self.model, self.output_dir, **{"model_name": self.hub_model_id.split("/")[-1]} | self.model_card_args
        )
        try:
            push_folder(self.output_dir, self.hub_model_id, message, token=self.hub_token)
        except OSError as error:
            logger.warning("%s is in %s, and was not uploaded: %s", message, self.output_dir, error)
