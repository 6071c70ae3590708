"""Find the cells of a table that answer a question, and what to do with them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from transformers.tokenization_utils_base import LARGE_INTEGER

from tf_pipeline.arguments import check_choice
from tf_pipeline.pipelines.base import Pipeline, Rows
from tf_pipeline.pipelines.batching import batches_by_length
from tf_pipeline.pipelines.calls import TableQuestionAnsweringCalls, as_text

TRUNCATIONS = (True, False, "drop_rows_to_fit", "do_not_truncate")
# The types of a token, in the order of the last axis of token_type_ids; those of a cell's value have no name here.
SEGMENT, COLUMN, ROW, EARLIER_ANSWER = range(4)
_IN_WORDS = {COLUMN: "column", ROW: "row"}


class TableQuestionAnsweringPipeline(TableQuestionAnsweringCalls, Pipeline):
    """Answers questions from tables by TAPAS, as ``transformers`` does.

    Inputs are ``table=`` and ``query=``, both by position, a dictionary ``{"table": …, "query": …}``, or a list, a
    generator or a dataset of such dictionaries. A table is a dictionary of columns, a list of rows that are
    dictionaries, or a DataFrame of pandas; its cells and the names of its columns are texts. A query is a question or
    a list of them.

    Arguments of a call:

    - ``sequential``: read the questions of a table one after the other, each with the answer to the one before, as
      models of conversations (SQA) need it. Tables are still read several at a time.
    - ``truncation``: ``"drop_rows_to_fit"`` or true, the default, leaves out the last rows of a table that is longer
      than the tokenizer's ``model_max_length``; ``"do_not_truncate"`` or false does not.
    - ``padding``: of the questions of a table to one length, true by default. It changes answers only of models that
      may choose no column (``allow_empty_column_selection``), which look at padding then.

    The answer to a question is a dictionary: ``answer``, the cells' texts with commas between them, behind the name of
    an operation such as ``"SUM > "`` if the model chooses one; ``coordinates``, a list of tuples of row and column;
    ``cells``, a list of their texts; and, of models that choose operations, ``aggregator``, its name. A cell is chosen
    if the mean probability of its tokens is greater than a half. A list of several questions gives a list.

    Rows count from 0, whatever the index of a DataFrame. BART fine-tuned as TAPEX, which ``transformers`` 4 ran here as
    well, is refused: ``transformers`` 5 no longer has its tokenizer.

    Source: https://arxiv.org/abs/2004.02349, section 3.
    """

    reads_tables = True
    beside = ("input_ids", "attention_mask", "token_type_ids", "table", "turn")
    engines = ()
    long_text_hint = "Leave truncation on, which drops rows, or give a table of fewer columns."

    def __init__(self, model, tokenizer, *args: Any, **kwargs: Any):
        super().__init__(model, tokenizer, *args, **kwargs)
        config = model.config
        names, count = config.aggregation_labels, config.num_aggregation_labels
        self.aggregates = bool(names and count)
        if self.aggregates and not set(range(count)) <= set(names):
            raise ValueError(
                f"aggregation_labels of the config names the operations {sorted(names)}; it has to name 0 to "
                f"{count - 1}."
            )
        self.output_names = ("logits", "logits_aggregation") if self.aggregates else ("logits",)

    @classmethod
    def auto_class(cls) -> type:
        """Table question answering."""
        from tf_pipeline.auto import TFAutoModelForTableQuestionAnswering

        return TFAutoModelForTableQuestionAnswering

    def sanitize_parameters(self, sequential: bool | None = None, padding: Any = None, truncation: Any = None):
        """See the class."""
        check_choice("padding", padding)
        check_choice("truncation", truncation, TRUNCATIONS)
        if not isinstance(sequential, bool | None):
            raise ValueError(f"sequential is {sequential!r:.80}, but has to be True or False.")
        given = {"padding": True if padding is None else padding}
        given["truncation"] = "drop_rows_to_fit" if truncation is None else truncation
        return given | {"sequential": bool(sequential)}, {}

    @property
    def max_length(self) -> int:
        """Maximum number of tokens that the model takes: any number if positions start again in each cell."""
        return self.model.max_length or LARGE_INTEGER

    # ------------------------------------------------------------------------------------------------ the stages

    def encode(self, inputs: list[Any], sequential: bool, **tokenizer_kwargs: Any) -> Rows:
        """Tokenize tables with their questions: one row for each question.

        Raises:
            ValueError: for what is no table of texts or no question, and for a table that the model has no room for.
        """
        columns: dict[str, list[Any]] = {name: [] for name in self.input_names}
        owners, tables, turns = [], [], []
        for owner, value in enumerate(inputs):
            table, queries = table_and_queries(value)
            with self.tokenizer.lock:
                encoded = self.tokenizer(table, queries, **tokenizer_kwargs)
            for name, rows in columns.items():
                rows += encoded[name]
            self._check_types(encoded["token_type_ids"])
            count = len(queries)
            owners += [owner] * count
            tables += [table] * count
            turns += range(count) if sequential else [0] * count
        # What is padded for a batch is padded on the right, where it does not move the positions of tokens.
        return Rows(columns, owners, {"table": tables, "turn": turns}, "right")

    def _check_types(self, rows: Sequence[Any]) -> None:
        """Refuse a table of more rows or columns than the model has embeddings for."""
        most = np.max([np.max(types, axis=0) for types in rows], axis=0)
        for place, (largest, size) in enumerate(zip(most, self.model.config.type_vocab_sizes, strict=True)):
            if largest >= size:
                what = _IN_WORDS.get(place, "value of a token's type")
                raise ValueError(
                    f"The table has a {what} {largest}, but {type(self.model).__name__} takes at most {size - 1} "
                    f"(type_vocab_sizes[{place}]={size} in the config)."
                )

    def preprocess(self, inputs: Any, **parameters: Any) -> dict[str, Any]:
        """First stage: tokenize a table with its questions into int32 ``[queries, seq]``.

        ``token_type_ids`` are ``[queries, seq, types]``. With them are the table, a DataFrame, and the turn of each
        question, which is 0 unless they are ``sequential``. ``parameters`` are those of a call.
        """
        rows = self._encode_one(inputs, parameters)
        tensors = {name: tf.constant(value) for name, value in self._batch(rows, list(range(len(rows)))).items()}
        return tensors | {"table": rows.beside["table"][0], "turn": rows.beside["turn"]}

    def forward(self, model_inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Second stage: run the model, compiled, on the questions of a table, together or one after the other."""
        if not any(model_inputs.get("turn", ())):
            return super().forward(model_inputs)
        beside = {name: model_inputs[name] for name in ("table", "turn")}
        results: list[dict[str, Any]] = []
        for row in range(len(model_inputs["turn"])):
            one = {name: model_inputs[name][row : row + 1] for name in self.input_names}
            if results:
                one["token_type_ids"] = self._following(one["token_type_ids"][0], results[-1])[np.newaxis]
            results.append(super().forward(one))
        names = (*self.output_names, *self.input_names)
        return {name: tf.concat([result[name] for result in results], 0) for name in names} | beside

    def postprocess(self, model_outputs: Mapping[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """Third stage: logits of tokens ``[queries, seq]`` and of operations ``[queries, labels]`` to answers."""
        table, config = model_outputs["table"], self.model.config
        answers = []
        logits = [self.read(model_outputs, name) for name in self.output_names]
        for row in range(len(logits[0])):
            data = {name: tf.constant(model_outputs[name][row : row + 1]) for name in self.input_names}
            own = (tf.constant(values[row : row + 1]) for values in logits)
            coordinates, *operations = self.tokenizer.convert_logits_to_predictions(data, *own)
            places = coordinates[0] if coordinates else []  # nothing of the table was left
            cells = [table.iat[place] for place in places]
            answer = {"answer": ", ".join(cells), "coordinates": places, "cells": cells}
            for (operation,) in operations:
                answer["aggregator"] = config.aggregation_labels[operation]
                if operation != config.no_aggregation_label_index:
                    answer["answer"] = f"{answer['aggregator']} > {answer['answer']}"
            answers.append(answer)
        return answers if len(answers) > 1 else answers[0]

    def _answer(self, outputs: list[dict[str, Any]], task_kwargs: Mapping[str, Any]) -> Any:
        answers = [self.postprocess(one) for one in outputs]
        return answers if len(answers) > 1 else answers[0]

    # ------------------------------------------------------------------------------------------------ all at once

    def _batches(self, rows: Rows, lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
        turns = rows.beside["turn"]
        for turn in range(max(turns) + 1):
            own = [row for row, number in enumerate(turns) if number == turn]
            for alike in self._alike(own, lengths):
                for batch in batches_by_length([lengths[row] for row in alike], self.token_budget, batch_size):
                    yield [alike[place] for place in batch]

    def _alike(self, rows: list[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows that may be padded to one length: only those of one length if the model looks at padding."""
        if not self.model.config.allow_empty_column_selection:
            yield rows
            return
        for length in sorted({lengths[row] for row in rows}, reverse=True):
            yield [row for row in rows if lengths[row] == length]

    def _run_batch(self, rows: Rows, batch: list[int]) -> Iterator[dict[str, Any]]:
        turns, types = rows.beside["turn"], rows.columns["token_type_ids"]
        for row, outputs in zip(batch, super()._run_batch(rows, batch), strict=True):
            if row + 1 < len(rows) and turns[row + 1] > turns[row]:
                types[row + 1] = self._following(types[row + 1], outputs)
            yield outputs

    def _following(self, types: Any, outputs: Mapping[str, Any]) -> np.ndarray:
        """Types ``[seq, types]`` of a question with those of the tokens that answered the question before it."""
        types = np.array(types)
        mask, earlier = (np.asarray(outputs[name])[0] for name in ("attention_mask", "token_type_ids"))
        chosen = _chosen_cells(self.read(outputs, "logits")[0], mask, earlier)
        types[:, EARLIER_ANSWER] = [place in chosen for place in _places(types)]
        return types

    def facts(self) -> dict[str, Any]:
        """The operations that the model chooses among."""
        return {"aggregators": list(self.model.config.aggregation_labels.values())} if self.aggregates else {}


def table_and_queries(value: Any) -> tuple[Any, list[str]]:
    """The table of one input, see :func:`as_table`, and its questions.

    Raises:
        ValueError: for another form, and for a table or a question that is empty.
    """
    if not isinstance(value, Mapping) or not {"table", "query"} <= set(value):
        keys = f"a dictionary of {', '.join(map(repr, value))}" if isinstance(value, Mapping) else _shown(value)
        raise ValueError(f'A table with its question is {{"table": …, "query": …}}; got {keys}.')
    table, query = as_table(value["table"]), value["query"]
    if query is None or (isinstance(query, (str, list, tuple)) and not query):
        raise ValueError("query is empty")
    queries = query if isinstance(query, (list, tuple)) else [query]
    return table, [as_text(one, hint="") for one in queries]


def as_table(value: Any) -> Any:
    """A DataFrame whose rows are counted from 0, from one or from what pandas makes one of.

    Raises:
        ImportError: without pandas.
        ValueError: for anything else, for a table without rows or columns, and for cells that are no texts.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError('Tables need pandas: pip install "tf-pipeline[tables]"') from error
    if value is None:
        raise ValueError("Table cannot be None.")
    try:
        table = pandas.DataFrame(value).reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"pandas makes no table of {_shown(value)}: {error}") from None
    if table.empty:
        raise ValueError("table is empty")
    for name in table.columns:
        if not isinstance(name, str):
            raise ValueError(f"Names of columns have to be strings; got {_shown(name)}.")
    for row, cells in enumerate(table.itertuples(index=False, name=None)):
        for name, cell in zip(table.columns, cells, strict=True):
            if not isinstance(cell, str):
                raise ValueError(
                    f"Cells of a table have to be strings; the one in row {row} of column {name!r} is {_shown(cell)}. "
                    "Make them strings: table.astype(str)."
                )
    return table


def _shown(value: Any) -> str:
    return f"{type(value).__name__}: {value!r:.80}"


def _places(types: np.ndarray) -> list[tuple[int, ...]]:
    """Segment, column and row of each token."""
    return list(map(tuple, types[:, [SEGMENT, COLUMN, ROW]].tolist()))


def _chosen_cells(logits: np.ndarray, mask: np.ndarray, types: np.ndarray) -> set[tuple[int, ...]]:
    """The cells that answer a question, by segment, column and row.

    Args:
        logits: of tokens, ``[seq]``.
        mask: 1 for tokens and 0 for padding, ``[seq]``.
        types: of tokens, ``[seq, types]``.
    """
    probabilities = mask / (1 + np.exp(-np.maximum(logits, -88.0)))
    cells = defaultdict(list)
    for place, probability in zip(_places(types), probabilities.tolist(), strict=True):
        if all(place):
            cells[place].append(probability)
    return {place for place, values in cells.items() if np.mean(values) > 0.5}
