"""The numbers that tell how good a model is while it is trained, by task."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from tf_pipeline.callbacks import KerasMetricCallback
from tf_pipeline.data.sources import Row
from tf_pipeline.data.tasks import answers_of
from tf_pipeline.metrics import F1, Accuracy, Perplexity, SpanF1, is_span_tag, rouge, squad


def metrics_of(task: str, model: Any) -> list[keras.metrics.Metric]:
    """Metrics for ``compile``, of one task."""
    config = model.config
    if task == "text-classification":
        if config.problem_type == "regression":
            return [keras.metrics.MeanAbsoluteError(name="mean_absolute_error")]
        if config.problem_type == "multi_label_classification":
            return [F1(config.num_labels, "micro", name="f1")] if config.num_labels > 1 else []
        return [Accuracy(), F1(config.num_labels, "macro", name="f1")]
    if task == "token-classification" and not _names_entities(config):
        return [Accuracy(), F1(config.num_labels, "macro", name="f1")]
    if task == "fill-mask":
        return [Accuracy(), Perplexity()]
    if task == "text-generation":
        return [Perplexity(shift=model.task_loss.__name__ == "causal_lm")]
    if task in ("summarization", "translation", "text2text-generation"):
        return [Perplexity()]
    return []


def callbacks_of(
    task: str, model: Any, tokenizer: Any, batches: Any, rows: Callable[[], Iterator[Row]] | None, batch_size: int
) -> list[keras.callbacks.Callback]:
    """Callbacks that measure what no metric of logits can: entities, answers and written texts of validation rows."""
    if rows is None:
        return []
    if task == "token-classification" and _names_entities(model.config):
        return [KerasMetricCallback(prefixed(SpanF1(model.config.id2label)), batches)]
    if task == "question-answering":
        made = batches.batches.task
        windows = {"max_seq_len": made.max_length, "doc_stride": made.doc_stride, "max_answer_len": 30}
        return [Asked(task, tokenizer, rows, windows)]
    options = {"batch_size": batch_size, "truncation": True}
    return [Asked(task, tokenizer, rows, options)] if task == "summarization" else []


def _names_entities(config: Any) -> bool:
    """Whether the labels are tags of entities, such as ``B-PER``, rather than parts of speech or numbers."""
    return all(map(is_span_tag, config.id2label.values()))


def prefixed(metric: Callable[[Any], dict[str, float]]) -> Callable[[Any], dict[str, float]]:
    """The same metric with ``val_`` before its names, as Keras names numbers of validation."""
    return lambda pair: {f"val_{name}": value for name, value in metric(pair).items()}


class Asked(keras.callbacks.Callback):
    """Asks the pipeline of a task about all validation rows at the end of each epoch, and judges its answers.

    Args:
        task: ``"question-answering"``, whose answers are judged as in SQuAD, or ``"summarization"``, by ROUGE.
        tokenizer: of the model.
        rows: reads the rows.
        options: of the pipeline's call.
    """

    def __init__(self, task: str, tokenizer: Any, rows: Callable[[], Iterator[Row]], options: Mapping[str, Any]):
        super().__init__()
        self.task, self.tokenizer, self.rows, self.options = task, tokenizer, rows, options
        self._pipe: Any = None  # kept, so that its graphs are traced only once

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the numbers to the logs."""
        from tf_pipeline.pipelines.factory import pipeline

        self._pipe = pipe = self._pipe or pipeline(self.task, model=self.model, tokenizer=self.tokenizer)
        rows = list(self.rows())
        if self.task == "question-answering":
            asked = [{name: row.text(name) for name in ("question", "context")} for row in rows]
            known = [answers_of(row)[0] for row in rows]
            answered = pipe(asked, handle_impossible_answer=not all(known), **self.options)
            answered = [answered] if isinstance(answered, Mapping) else answered  # to one question alone
            found = squad([one["answer"] for one in answered], known)
        else:
            texts = [row.text("text", "article", "document", "source") for row in rows]
            written = [one["summary_text"] for one in pipe(texts, **self.options)]
            found = rouge(written, [row.text("target", "summary", "highlights") for row in rows])
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in found.items()})
