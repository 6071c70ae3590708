"""Fine-tuning of a checkpoint: rows in, a checkpoint with its card and its learning curve out."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from tf_pipeline.arguments import check_choice, whole_number
from tf_pipeline.callbacks import EpochOrder
from tf_pipeline.checkpoint import checkpoint_folder
from tf_pipeline.config import AutoConfig
from tf_pipeline.data import prepare
from tf_pipeline.data.sources import rows_of
from tf_pipeline.data.tasks import spaces_words
from tf_pipeline.files import write_text
from tf_pipeline.finetuning.curve import learning_curve
from tf_pipeline.finetuning.labels import fitting, label_values
from tf_pipeline.finetuning.measures import callbacks_of, metrics_of
from tf_pipeline.losses import PROBLEM_TYPES
from tf_pipeline.optimization import create_optimizer
from tf_pipeline.pipelines.factory import pipeline_class
from tf_pipeline.pipelines.tasks import task_name
from tf_pipeline.sharing import write_model_card
from tf_pipeline.tokenization import AutoTokenizer

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
    learning_rate: float = 5e-5,
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
        learning_rate: the highest.
        warmup: part of the steps, from 0 to 1, in which the rate rises.
        schedule: ``lr_scheduler_type`` of :func:`~tf_pipeline.optimization.create_optimizer`.
        weight_decay: see there.
        clip: maximum norm of all gradients together; 0 for any.
        accumulation: batches whose gradients are averaged for one step.
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
        RowError: for rows that cannot be used, before anything is trained.
        ValueError: for values out of their range.
    """
    task = _checked(task, output, overwrite, epochs, warmup, accumulation, patience, validation, problem_type)
    keras.utils.set_random_seed(whole_number("seed", seed, 0, 2**32 - 1))
    read, judged = rows_of(train), None if validation is None else rows_of(validation)
    tokenizer = AutoTokenizer.from_pretrained(model)
    if task == "token-classification" and not spaces_words(tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(model, add_prefix_space=True)
    network = _loaded(task, model, label_values(task, read, problem_type), dtype)
    if lora is not None:
        network.enable_lora(**lora)
        network.check_mergeable("written into the checkpoint")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    options = {"batch_size": batch_size, "max_length": max_length, **(data_options or {})}
    batches = prepare(train, network, tokenizer, shuffle=True, seed=seed, **options)
    _require_labels(batches, train)
    measured = None if validation is None else prepare(validation, network, tokenizer, seed=seed, **options)
    steps = max(len(batches) * epochs // accumulation, 1)
    optimizer, _ = create_optimizer(
        learning_rate,
        steps,
        int(steps * warmup),
        weight_decay_rate=weight_decay,
        adam_global_clipnorm=clip or None,
        lr_scheduler_type=schedule,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
    )
    network.compile(optimizer, metrics=metrics_of(task, network), label_smoothing=label_smoothing)
    every = [EpochOrder(batches), *callbacks_of(task, network, tokenizer, measured, judged, batch_size)]
    if measured is not None:
        every.append(SameMasks(measured))
    if patience is not None:
        every.append(keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True))
    history = network.fit(
        batches, validation_data=measured, epochs=epochs, callbacks=[*every, *(callbacks or [])], verbose=0
    ).history
    _write(network, tokenizer, Path(output), task, str(model), history)
    return history


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
    folder = Path(output)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; --overwrite (overwrite=True) replaces the checkpoint in it.")
    return name


def _loaded(task: str, source: Any, values: Mapping[str, Any], dtype: str | None) -> Any:
    """The model to train, with a new head where that of the checkpoint does not fit the labels."""
    values = fitting(dict(values), AutoConfig.from_pretrained(source))
    loader = pipeline_class(task).auto_class()
    return loader.from_pretrained(source, dtype=dtype, ignore_mismatched_sizes=True, **values)


def _require_labels(batches: Any, source: Any) -> None:
    if not isinstance(batches.element_spec, tuple):
        raise ValueError(f"The rows of {source!s:.80} have no labels to learn.")


def _write(model: Any, tokenizer: Any, output: Path, task: str, source: str, history: Mapping[str, Any]) -> None:
    """Write the checkpoint, its tokenizer, its card and its learning curve, all of them or nothing."""
    name = output.absolute().name
    origin = None if os.path.isdir(source) else source
    with checkpoint_folder(output, obsolete=f"{ADAPTER}/") as staging:
        if model.active_adapters():
            model.save_adapter(staging / ADAPTER)
            model.merge_and_unload()
        model.write_checkpoint(staging)
        tokenizer.save_pretrained(staging)
        card = write_model_card(model, staging, name, finetuned_from=origin, tasks=task)
        losses = {key: values for key, values in history.items() if key in ("loss", "val_loss")}
        write_text(staging / CURVE, learning_curve(losses, f"{name}: loss"))
        write_text(card, card.read_text(encoding="utf-8") + f"\n![The loss of each epoch]({CURVE})\n")
