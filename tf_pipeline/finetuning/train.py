"""Fine-tuning of a checkpoint: rows in, a checkpoint with its card and its learning curve out."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pipeline.adapters import HEAD_MODULES, is_adapter_file
from tf_pipeline.arguments import check_choice, real_number, whole_number
from tf_pipeline.callbacks import EpochOrder
from tf_pipeline.checkpoint import checkpoint_folder
from tf_pipeline.config import AutoConfig
from tf_pipeline.data import prepare
from tf_pipeline.data.sources import rows_of
from tf_pipeline.data.tasks import spaces_words
from tf_pipeline.files import write_text
from tf_pipeline.finetuning.curve import learning_curve
from tf_pipeline.finetuning.labels import class_names, fitting, label_values
from tf_pipeline.finetuning.measures import callbacks_of, metrics_of
from tf_pipeline.hub import TOKENIZER_FILES
from tf_pipeline.losses import PROBLEM_TYPES
from tf_pipeline.optimization import create_optimizer
from tf_pipeline.pipelines.factory import pipeline_class
from tf_pipeline.pipelines.tasks import task_name
from tf_pipeline.sharing import write_model_card
from tf_pipeline.tokenization import AutoTokenizer, pad_with_end

logger = logging.getLogger(__name__)

# Highest learning rates: of all weights as in PyTorch's recipe, of adapters as in the examples of peft.
_RATE, _LORA_RATE = 5e-5, 1e-3
CURVE, ADAPTER = "learning_curve.svg", "adapter"
TASKS = (
    "text-classification", "token-classification", "question-answering", "fill-mask", "text-generation",
    "summarization", "translation", "text2text-generation",
)  # fmt: skip


def train(
    task: str,
    model: str | os.PathLike,
    train: Any,
    output: str | os.PathLike,
    validation: Any = None,
    epochs: int = 3,
    batch_size: int = 16,
    learning_rate: float | None = None,
    warmup: float = 0.1,
    schedule: str = "linear",
    weight_decay: float = 0.01,
    clip: float = 1.0,
    accumulation: int = 1,
    label_smoothing: float = 0.0,
    patience: int | None = None,
    problem_type: str | None = None,
    max_length: int | None = None,
    lora: Mapping[str, Any] | None = None,
    seed: int = 0,
    dtype: str | None = None,
    overwrite: bool = False,
    callbacks: list[keras.callbacks.Callback] | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> dict[str, list[float]]:
    """Fine-tune a checkpoint, and write one that ``run``, ``parity``, ``export`` and PyTorch take.

    The recipe is that of PyTorch's ``Trainer``: AdamW that leaves biases and norms out of its decay, a rise and a fall
    of the learning rate, clipped gradients. Nothing is written unless the training ends well.

    Args:
        task: one of ``TASKS``, or an alias.
        model: a folder or hub id.
        train: rows; see :func:`tf_pipeline.data.prepare` for sources and keys.
        output: folder to write to.
        validation: rows to measure on after each epoch.
        epochs: times that all rows are seen.
        batch_size: rows per batch.
        learning_rate: the highest; if not given, 5e-5, and 1e-3 with ``lora``, which takes more.
        warmup: part of the steps, from 0 to 1, in which the rate rises.
        schedule: ``lr_scheduler_type`` of :func:`~tf_pipeline.optimization.create_optimizer`.
        weight_decay: see there.
        clip: maximum norm of all gradients together; 0 for any.
        accumulation: batches whose gradients are averaged for one step; those left at the end of an epoch make a step
            too.
        label_smoothing: see ``compile`` of a model.
        patience: epochs without a better validation loss after which to stop; the weights of the best epoch are kept
            then. If not given, all epochs are trained and the last one is kept.
        problem_type: of text classification; guessed from the labels if not given.
        max_length: of a text, in tokens.
        lora: arguments of ``enable_lora``, such as ``{"rank": 8}``, to train an adapter and nothing else. The
            checkpoint has it in its weights; it is also in the folder ``adapter`` by itself, as ``peft`` has it.
        seed: of new weights, orders, masks and dropout.
        dtype: dtype or Keras policy, such as ``"mixed_bfloat16"``.
        overwrite: whether a folder that is not empty may be written to.
        callbacks: further ones.
        data_options: further arguments of ``prepare``, such as ``prefix``.

    Returns:
        The numbers of each epoch, by name.

    Raises:
        FileExistsError: for an output folder with files in it.
        OSError: for one that cannot be written, before anything is trained.
        RowError: for rows that cannot be used, before anything is trained.
        ValueError: for values out of their range, and for a loss that became NaN.
    """
    given = task
    task = _checked(task, output, overwrite, epochs, warmup, accumulation, patience, validation, problem_type)
    if learning_rate is None:
        learning_rate = _RATE if lora is None else _LORA_RATE
    for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay), ("clip", clip)):
        real_number(name, value, 0)
    if (data_options or {}).get("stream"):
        raise ValueError("data_options has stream=True: train needs to know the number of batches; leave it out.")
    keras.utils.set_random_seed(whole_number("seed", seed, 0, 2**32 - 1))
    read, judged = rows_of(train), None if validation is None else rows_of(validation)
    tokenizer = AutoTokenizer.from_pretrained(model)
    if task == "token-classification" and not spaces_words(tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(model, add_prefix_space=True)
    names = class_names(train)
    config = AutoConfig.from_pretrained(model)
    found = label_values(task, read, problem_type, names, list(config.label2id or ()))
    values = fitting(found, config, names is not None)
    _warn_of_other_labels(config, values.get("id2label"))
    loader = pipeline_class(task).auto_class()
    # A head that does not fit the labels is made new.
    network, loaded = loader.from_pretrained(
        model, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True, **values
    )
    if lora is not None:
        network.enable_lora(**_with_new_layers(lora, loaded["missing_keys"]))
        network.check_mergeable("written into the checkpoint")
    pad_with_end(tokenizer)
    if getattr(network.config, "pad_token_id", None) is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    options = {"batch_size": batch_size, "max_length": max_length, **(data_options or {})}
    batches = prepare(train, network, tokenizer, shuffle=True, seed=seed, **options)
    _require_labels(batches, train)
    measured = None
    if validation is not None:
        measured = prepare(validation, network, tokenizer, seed=seed, **options)
        _require_labels(measured, validation)
    if batches.batches.task.writes:
        _keep_prefix(network.config, given if task == "translation" else task, options.get("prefix", ""))
    steps = epochs * math.ceil(len(batches) / accumulation)
    optimizer, _ = create_optimizer(
        learning_rate,
        steps,
        math.ceil(steps * warmup),
        weight_decay_rate=weight_decay,
        adam_global_clipnorm=clip or None,
        lr_scheduler_type=schedule,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
    )
    network.compile(optimizer, metrics=metrics_of(task, network), label_smoothing=label_smoothing)
    every = [EpochOrder(batches), *callbacks_of(task, network, tokenizer, measured, judged, batch_size)]
    if accumulation > 1:
        every.append(RemainderStep())
    if measured is not None:
        every.append(SameMasks(measured))
    stopping = None if patience is None else keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
    every += [one for one in (stopping, *(callbacks or ())) if one is not None]
    decay = f"weight decay {weight_decay:g}" + (f", gradients clipped to a norm of {clip:g}" if clip else "")
    told = {
        "base model": Path(model).name if os.path.isdir(model) else model,
        "training rows": _counted(train, read),
        "validation rows": judged and _counted(validation, judged),
        "epochs": None,
        "batch size": f"{batch_size}" + (f", {accumulation} batches to a step" if accumulation > 1 else ""),
        "learning rate": f"{learning_rate:g}, {schedule}, after a warm-up of {warmup:.0%} of the steps",
        "optimizer": f"AdamW, {decay}",
        "label smoothing": label_smoothing,
        "problem type": getattr(network.config, "problem_type", None),
        "maximum length": max_length,
        **{name.replace("_", " "): value for name, value in (data_options or {}).items()},
        "LoRA": _adapter_in_words(network) if lora is not None else None,
        "precision": network.dtype_policy.name,
        "seed": f"{seed}",
    }
    # The folder is opened first, so that one that cannot be written costs no training.
    with checkpoint_folder(output, obsolete=_replaced(Path(output))) as staging:
        history = network.fit(batches, validation_data=measured, epochs=epochs, callbacks=every, verbose=0).history
        _require_finite(network, history["loss"])
        _require_empty(Path(output), overwrite)  # still
        kept = len(history["loss"]) if stopping is None else stopping.best_epoch + 1
        told["epochs"] = f"{len(history['loss'])}" + (f" of at most {epochs}" if stopping else "")
        _write(network, tokenizer, staging, Path(output).absolute().name, task, str(model), history, told, kept)
    return history


class RemainderStep(keras.callbacks.Callback):
    """Takes a step for the batches that are left when an epoch ends, as PyTorch's ``Trainer`` does.

    Keras' optimizers would keep their gradients for the next epoch, and lose them after the last one.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Apply the mean of the gradients that there are after the last batch of an epoch."""
        if batch + 1 != self.params["steps"]:
            return
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        size = optimizer.gradient_accumulation_steps
        taken = int(optimizer._iterations) % size
        if not taken:
            return
        # Variables without a gradient, which Keras leaves alone, have had nothing added up.
        pairs = [
            (total, variable)
            for total, variable in zip(optimizer._accumulated_gradients, optimizer._trainable_variables, strict=True)
            if total is not None and tf.reduce_any(total.value != 0)
        ]
        for total, _ in pairs:
            total.assign(total * (size / taken))
        optimizer._iterations.assign_add(size - taken - 1)
        optimizer.apply([tf.zeros_like(total.value) for total, _ in pairs], [variable for _, variable in pairs])


class SameMasks(keras.callbacks.Callback):
    """Masks and spans of validation rows that are the same in every epoch, so that their numbers can be compared."""

    def __init__(self, dataset: Any):
        super().__init__()
        self._batches = dataset.batches

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Go back to the first iteration."""
        self._batches.epoch = 0


def _checked(
    task: str, output: Any, overwrite: bool, epochs: int, warmup: float, accumulation: int, patience: Any,
    validation: Any, problem_type: str | None,
) -> str:  # fmt: skip
    """The task's name, if all values can be honoured."""
    name = task_name(task)
    if name not in TASKS:
        raise ValueError(f"Task {task!r} cannot be trained; those that can are {', '.join(TASKS)}.")
    whole_number("epochs", epochs, 1)
    whole_number("accumulation", accumulation, 1)
    if patience is not None:
        whole_number("patience", patience, 1)
        if validation is None:
            raise ValueError("patience watches the loss of validation rows: give validation too.")
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup is the part of the steps in which the rate rises, from 0 to 1; got {warmup!r:.80}.")
    if problem_type is not None:
        check_choice("problem_type", problem_type, PROBLEM_TYPES)
        if name != "text-classification":
            raise ValueError(f"problem_type is of text-classification, not of {name}.")
    _require_empty(Path(output), overwrite)
    return name


def _warn_of_other_labels(config: Any, labels: Mapping[int, str] | None) -> None:
    """Say that a head of as many labels with other names is trained on, as ``transformers`` does."""
    own = list(config.id2label.values())
    if labels is not None and len(labels) == len(own) and not all(name.startswith("LABEL_") for name in own):
        logger.warning(
            "The head of the checkpoint, for %s, is trained on as one for %s.",
            ", ".join(own),
            ", ".join(labels.values()),
        )


def _require_empty(folder: Path, overwrite: bool) -> None:
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; --overwrite (overwrite=True) replaces the checkpoint in it.")


def _with_new_layers(lora: Mapping[str, Any], missing: Iterable[str]) -> dict[str, Any]:
    """Arguments of ``enable_lora`` that also train layers which the checkpoint does not have, such as a pooler."""
    modules = {name.rpartition(".")[0] for name in missing}
    new = sorted(module for module in modules if not HEAD_MODULES & set(module.split(".")))
    return {**lora, "modules_to_save": [*(lora.get("modules_to_save") or ()), *new] or None}


def _require_labels(batches: Any, source: Any) -> None:
    if not isinstance(batches.element_spec, tuple):
        name = source if isinstance(source, (str, os.PathLike)) else type(source).__name__
        raise ValueError(f"The rows of {name} have no labels to learn.")


def _keep_prefix(config: Any, task: str, prefix: str) -> None:
    """Let the pipeline put in front of texts what training does, which may be nothing."""
    specific = dict(getattr(config, "task_specific_params", None) or {})
    if specific or prefix:
        config.task_specific_params = specific | {task: dict(specific.get(task) or {}) | {"prefix": prefix}}


def _require_finite(model: Any, losses: Sequence[float]) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        ValueError: naming the epoch.
    """
    if all(bool(tf.reduce_all(tf.math.is_finite(variable.value))) for variable in model.trainable_variables):
        return
    broken = next((epoch for epoch, loss in enumerate(losses, start=1) if not np.isfinite(loss)), None)
    what = f"The weights became NaN in epoch {len(losses)}" if broken is None else (
        f"The loss became {'NaN' if np.isnan(losses[broken - 1]) else 'infinite'} in epoch {broken}"
    )  # fmt: skip
    raise ValueError(f"{what}; lower --learning-rate (learning_rate). Nothing was written.")


def _counted(source: Any, rows: Callable[[], Iterator[Any]]) -> str:
    """The number of rows, and the file that they are from."""
    number = f"{sum(1 for _ in rows()):,}"
    return f"{number} of {Path(source).name}" if isinstance(source, (str, os.PathLike)) else number


def _adapter_in_words(model: Any) -> str:
    """The settings of the adapter that is trained."""
    (adapter,) = model.adapter_config()["by_name"].values()
    config = adapter["config"]
    modules = config["target_modules"]
    modules = modules if isinstance(modules, str) else ", ".join(sorted(modules))
    return f"rank {config['r']}, alpha {config['lora_alpha']:g}, dropout {config['lora_dropout']:g}, of {modules}"


def _replaced(output: Path) -> set[str]:
    """Files of an earlier checkpoint's tokenizer and of an earlier adapter, which would not belong to the new one."""
    names = {"generation_config.json", *TOKENIZER_FILES}
    adapter = output / ADAPTER
    is_own = adapter.is_dir() and all(is_adapter_file(name) for name in os.listdir(adapter))
    return names | {f"{ADAPTER}/"} if is_own else names


def _write(
    model: Any, tokenizer: Any, folder: Path, name: str, task: str, source: str, history: Mapping[str, Any],
    told: Mapping[str, Any], kept: int,
) -> None:  # fmt: skip
    """Write the checkpoint, its tokenizer, its card and its learning curve."""
    if model.active_adapters():
        model.save_adapter(folder / ADAPTER)
        model.merge_and_unload()
    model.write_checkpoint(folder)
    tokenizer.save_pretrained(folder)
    losses = {key: values for key, values in history.items() if key in ("loss", "val_loss")}
    write_text(folder / CURVE, learning_curve(losses, f"{name}: loss"))
    write_model_card(
        model,
        folder,
        name,
        finetuned_from=None if os.path.isdir(source) else source,
        tasks=task,
        details={fact: value for fact, value in told.items() if value},
        kept_epoch=kept,
        curve=CURVE,
    )
