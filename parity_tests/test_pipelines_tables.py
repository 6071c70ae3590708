"""TAPAS and its pipeline against those of ``transformers``, on the same tiny random checkpoints."""

import json
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import torch
import transformers
from transformers import logging as transformers_logging

import tf_pipeline
from benchmarks.tiny import tiny_config
from parity_tests.pipeline_helpers import answer_without_torch, bart_checkpoint, tiny_with_tokenizer, torch_pipeline
from parity_tests.port_helpers import shared_cache, use_cache_of
from parity_tests.table_helpers import ACTORS, OPERATIONS, QUERIES, STARS, table_checkpoint
from parity_tests.tiers import exhaustive
from tf_pipeline import pipeline
from tf_pipeline.engines import EngineError
from tf_pipeline.parity import compare
from tf_pipeline.port import capture, port
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.rules import RULES
from tf_pipeline.port.rules.registry import Rule
from tf_pipeline.port.sample import default_inputs, sample_inputs
from tf_pipeline.reference.precision import lifted_upcasts

TASK = "table-question-answering"
MANY = [{"table": table, "query": query} for table in (STARS, ACTORS) for query in (*QUERIES, QUERIES[:2])]


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


@cache
def ours(folder=None, **options):
    return pipeline(TASK, model=folder or table_checkpoint(**OPERATIONS), **options)


@cache
def theirs(folder=None):
    return torch_pipeline(TASK, folder or table_checkpoint(**OPERATIONS))


def by_torch(inputs, folder=None, **arguments):
    """Answers of the pipeline of ``transformers``, which changes its inputs."""
    copies = [{"table": pd.DataFrame(one["table"]), "query": _copied(one["query"])} for one in inputs]
    return [theirs(folder)(one, **arguments) for one in copies]


def _copied(query):
    return list(query) if isinstance(query, list) else query


# --------------------------------------------------------------------------------------------------------- the answers


@pytest.mark.parametrize("sequential", exhaustive([False, True], [True]))
def test_answers_of_tables(sequential):
    expected = by_torch(MANY, sequential=sequential)
    assert len({json.dumps(answer) for answer in expected}) > 4
    for options in ({}, {"batch_size": 2}, {"batch_size": 1}):
        assert ours()(MANY, sequential=sequential, **options) == expected
        assert list(ours()((one for one in MANY), sequential=sequential, **options)) == expected
    assert ours()(MANY[-1], sequential=sequential) == expected[-1] and len(expected[-1]) == 2
    assert pipeline(TASK, model=ours().model, tokenizer=ours().tokenizer, sequential=sequential)(MANY) == expected
    assert ours().trace_count == 1


def test_questions_that_follow_one_another():
    """The answer to a question changes that to the next one, and not those of other tables."""
    several = [{"table": table, "query": QUERIES} for table in (STARS, ACTORS, STARS)]
    expected = by_torch(several, sequential=True)
    assert ours()(several, sequential=True) == expected != ours()(several)
    assert ours()(several, sequential=True, batch_size=1) == expected
    assert ours()(several) == by_torch(several)


def test_every_form_of_a_table():
    expected = by_torch(MANY[:1])[0]
    frame, query = pd.DataFrame(STARS), QUERIES[0]
    rows = frame.to_dict("records")
    for table in (STARS, frame, rows, frame.astype("string"), frame.astype(object)):
        assert ours()(table, query) == ours()(table=table, query=query) == expected
        assert ours()({"table": table, "query": query}) == ours()([{"table": table, "query": query}]) == expected
        assert ours()(table, [query]) == expected
    several = by_torch([{"table": STARS, "query": QUERIES}])[0]
    assert ours()(table=STARS, query=tuple(QUERIES)) == ours()(STARS, QUERIES) == several
    assert list(STARS) == ["Repository", "Stars", "Contributors", "Programming language"]  # as it was
    assert ours()([]) == []

    class Tables(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, place):
            return MANY[place]

    assert list(ours()(Tables())) == by_torch(MANY[:2])


def test_rows_count_from_0_whatever_the_index():
    frame = pd.DataFrame(ACTORS)
    part = frame[frame["age"] != "45"]
    assert ours()(part, QUERIES[2]) == by_torch([{"table": part.reset_index(drop=True), "query": QUERIES[2]}])[0]
    assert list(part.index) == [0, 2, 3]


@pytest.mark.parametrize("label", exhaustive([0, 3, None], [3]))
def test_the_operation_that_stands_for_none(label):
    """Names of operations are no part of the graph, so that nothing is captured again."""
    values = OPERATIONS | {"no_aggregation_label_index": label, "aggregation_labels": dict(enumerate("ABCD"))}
    folder = table_checkpoint(**values)
    expected = by_torch(MANY, folder)
    assert ours(folder)(MANY) == expected
    assert "aggregators=['A', 'B', 'C', 'D']" in repr(ours(folder))
    assert ours(folder).model.graph == ours().model.graph


@pytest.mark.parametrize(
    "truncation", exhaustive([True, "drop_rows_to_fit", None, False, "do_not_truncate"], [None, False])
)
def test_tables_that_are_too_long(truncation, caplog):
    folder = table_checkpoint(model_max_length=80, **OPERATIONS)
    long = {name: [*cells, *cells] for name, cells in ACTORS.items()}
    inputs = [{"table": long, "query": QUERIES[2]}, {"table": STARS, "query": QUERIES[:2]}]
    theirs(folder).tokenizer.deprecation_warnings.clear()
    ours(folder).tokenizer.deprecation_warnings.clear()
    transformers_logging.enable_propagation()
    try:
        answers = ours(folder)(inputs, truncation=truncation)
    finally:
        transformers_logging.disable_propagation()
    assert ("Token indices sequence length is longer" in caplog.text) == (truncation in (False, "do_not_truncate"))
    assert answers == by_torch(inputs, folder, truncation=truncation)
    encoded = ours(folder).preprocess(inputs[0], truncation=truncation)
    assert (encoded["input_ids"].shape[1] <= 80) == (truncation in (True, "drop_rows_to_fit", None))


def test_questions_that_leave_room_for_unlike_numbers_of_rows():
    """PyTorch's pipeline looks for the earlier answer in rows that the question before it had no room for."""
    folder = table_checkpoint(model_max_length=80, **OPERATIONS)
    asked = {"table": {name: cells * 2 for name, cells in ACTORS.items()}, "query": [QUERIES[0] * 2, QUERIES[2]]}
    rows = ours(folder).preprocess(asked)["token_type_ids"].numpy()[..., 2].max(axis=1)
    assert rows[0] < rows[1]
    with pytest.raises(KeyError):
        by_torch([asked], folder, sequential=True)
    assert len(ours(folder)(asked, sequential=True)) == 2


def test_the_stages_one_by_one():
    for sequential in (False, True):
        encoded = ours().preprocess({"table": STARS, "query": QUERIES}, sequential=sequential)
        assert encoded["token_type_ids"].shape == (*encoded["input_ids"].shape, 7)
        assert encoded["token_type_ids"].dtype == encoded["input_ids"].dtype == tf.int32
        outputs = ours().forward(encoded)
        assert outputs["logits"].shape == encoded["input_ids"].shape
        assert outputs["logits_aggregation"].shape == (len(QUERIES), 4)
        assert ours().postprocess(outputs) == ours()(STARS, QUERIES, sequential=sequential)
    one = ours().forward(ours().preprocess({"table": ACTORS, "query": QUERIES[2]}))
    assert ours().postprocess(one) == ours()(ACTORS, QUERIES[2])


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "arguments, words",
    [
        (({}, "Who?"), "table is empty"),
        (({"a": []}, "Who?"), "table is empty"),
        ((STARS, ""), "query is empty"),
        ((STARS, []), "query is empty"),
        (({"table": STARS, "query": None},), "query is empty"),
        ((None, "Who?"), "Keyword argument `table` cannot be None."),
        (({"table": None, "query": "Who?"},), "Table cannot be None."),
        ((STARS,), "\"query\": …}; got a dictionary of 'Repository', 'Stars', "),
        ((["Who?", "What?"],), "\"query\": …}; got str: 'Who\\?'."),
        ((pd.DataFrame(STARS),), "query is missing: give table= and query="),
        (("a table", "Who?"), "pandas makes no table of str: 'a table': "),
        (({"a": ["1"], "b": ["1", "2"]}, "Who?"), "pandas makes no table of dict: .* same length"),
        (({"a": ["1", 2]}, "Who?"), "in row 1 of column 'a' is int: 2. Make them strings: table.astype"),
        (({"a": ["1", None]}, "Who?"), "in row 1 of column 'a' is "),
        ((pd.DataFrame([["1", "2"]]), "Who?"), "Names of columns have to be strings; got int: 0"),
        ((STARS, 3), "A text has to be a string; got int: 3"),
        ((STARS, ["Who?", 3]), "A text has to be a string; got int: 3"),
        ((3, "Who?"), "pandas makes no table of int: 3: "),
        ((3,), "Inputs are a text, a list, a generator or a dataset; got int"),
    ],
    ids=str,
)
def test_what_is_no_table_or_question_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        ours()(*arguments)


def test_without_pandas_the_extra_is_named(monkeypatch, tmp_path):
    from typer import BadParameter

    from tf_pipeline.cli.run import _table
    from tf_pipeline.pipelines.table_question_answering import as_table

    path = tmp_path / "cities.csv"
    path.write_text("city\nOslo\n", encoding="utf-8")
    assert _table(str(path)) == {"city": ["Oslo"]}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"tf-pipeline\[tables\]"):
        as_table(STARS)
    with pytest.raises(BadParameter, match=r"tf-pipeline\[tables\]"):
        _table(str(path))


def test_a_wrong_table_fails_by_itself():
    answers = list(ours().stream([MANY[0], {"table": STARS}, MANY[1]]))
    assert isinstance(answers[1], ValueError)
    assert [answers[0], answers[2]] == ours()(MANY[:2])


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"truncation": "longest_first"}, "truncation is 'longest_first', but has to be one of True, False, 'drop_ro"),
        ({"padding": "shortest"}, "padding is 'shortest', but has to be one of "),
        ({"sequential": 1}, "sequential is 1, but has to be True or False"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        ours()(STARS, QUERIES, **arguments)


def test_a_table_of_more_rows_than_the_model_has():
    """PyTorch raises an IndexError from within its embeddings."""
    tall = {"n": [str(number % 10) for number in range(300)]}
    with pytest.raises(ValueError, match=r"has a row 300, but TFTapasForQuestionAnswering takes at most 255 \(type_vo"):
        ours()(tall, "Which?")


def test_tokenizers_and_models_of_another_kind(minilm):
    with pytest.raises(ValueError, match="needs a tokenizer of tables, such as TapasTokenizer; Bert.* reads texts"):
        pipeline(TASK, model=ours().model, tokenizer=str(minilm))
    with pytest.raises(ValueError, match="TapasTokenizer reads tables, but text-classification takes texts"):
        model = tf_pipeline.TFAutoModelForSequenceClassification.from_pretrained(
            tiny_with_tokenizer("TFBertForSequenceClassification", ours().tokenizer)
        )
        pipeline("text-classification", model=model, tokenizer=ours().tokenizer)
    with pytest.raises(ValueError, match="'bart': models that write answers from tables, as TAPEX does, need its"):
        pipeline(TASK, model=bart_checkpoint())
    with pytest.raises(ValueError, match="TFAutoModelForTableQuestionAnswering does not support model_type 'bert'"):
        pipeline(TASK, model=str(minilm))
    with pytest.raises(ValueError, match="TFBertModel is not for table-question-answering"):
        pipeline(TASK, model=tf_pipeline.TFAutoModel.from_pretrained(minilm), tokenizer=ours().tokenizer)
    with pytest.raises(EngineError, match="engine='xla' does not run table-question-answering; use tensorflow"):
        ours(engine="xla")
    with pytest.raises(ValueError, match=r"names the operations \[0, 1\]; it has to name 0 to 3"):
        ours(table_checkpoint(**OPERATIONS | {"aggregation_labels": {0: "A", 1: "B"}}))


def test_the_task_is_found_by_the_model():
    assert pipeline(model=ours().model, tokenizer=ours().tokenizer)(MANY[0]) == ours()(MANY[0])


@pytest.mark.slow
def test_a_ported_folder_needs_no_torch(tmp_path):
    port(table_checkpoint(**OPERATIONS), tmp_path / "ported", task=TASK)
    ours().save_pretrained(tmp_path / "saved")
    assert pipeline(TASK, model=tmp_path / "saved")(MANY) == ours()(MANY)
    expected = json.loads(json.dumps(by_torch(MANY, sequential=True)))
    assert answer_without_torch(tmp_path, TASK, MANY, sequential=True) == expected


@pytest.mark.slow
@pytest.mark.parametrize("padding", [True, False, "max_length"])
def test_a_model_that_may_choose_no_column(padding):
    """Such a model looks at padding: it has to be that of PyTorch's pipeline, whatever is run together."""
    folder = table_checkpoint(model_max_length=128, allow_empty_column_selection=True, **OPERATIONS)
    alone = [one for one in MANY if not isinstance(one["query"], list)] if padding is False else MANY
    expected = by_torch(alone, folder, padding=padding)
    assert ours(folder)(alone, padding=padding) == expected
    assert ours(folder)(alone[::-1], padding=padding, batch_size=3) == expected[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("sequential", [False, True])
def test_a_model_without_operations(sequential):
    folder = table_checkpoint()
    expected = by_torch(MANY, folder, sequential=sequential)
    assert set(expected[0]) == {"answer", "coordinates", "cells"}
    assert ours(folder)(MANY, sequential=sequential) == expected


# --------------------------------------------------------------------------------------------------------- the port


def encoded(folder, **options):
    """Inputs of several questions on one table, as the tokenizer makes them."""
    tokenizer = tf_pipeline.AutoTokenizer.from_pretrained(folder)
    return tokenizer(pd.DataFrame(ACTORS), list(QUERIES), padding=True, return_tensors="tf", **options)


def as_torch(inputs):
    return {name: torch.tensor(value.numpy().astype("int64")) for name, value in inputs.items()}


def test_outputs_are_those_of_torch():
    folder = table_checkpoint(**OPERATIONS)
    model, inputs = ours().model, dict(encoded(folder))
    with torch.no_grad():
        expected = theirs().model(**as_torch(inputs), output_hidden_states=True, output_attentions=True)
    got = model(inputs, output_hidden_states=True, output_attentions=True)
    for name in ("logits", "logits_aggregation"):
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-5, atol=2e-4)
    for name in ("hidden_states", "attentions"):
        assert len(got[name]) == len(expected[name])
        np.testing.assert_allclose(got[name][-1], expected[name][-1], atol=2e-4)
    without = {name: value for name, value in inputs.items() if name != "token_type_ids"}
    with torch.no_grad():
        expected = theirs().model(**as_torch(without))
    np.testing.assert_allclose(model(without).logits, expected.logits, rtol=2e-5, atol=2e-4)
    assert type(model) is tf_pipeline.TFTapasForQuestionAnswering and not model.label_names
    assert model.default_signature()["token_type_ids"].shape.as_list() == [None, None, 7]


def test_inputs_of_a_wrong_form():
    model, inputs = ours().model, dict(encoded(table_checkpoint(**OPERATIONS)))
    types = inputs["token_type_ids"].numpy()
    large = types.copy()
    large[0, 5, 1] = 256
    for wrong, words in (
        (
            types[..., 0],
            r"token_type_ids has shape \(5, \d+\), but TFTapas.* takes \[batch, seq, 7\]. The tokenizer ret",
        ),
        (types[..., :6], r"token_type_ids has shape \(5, \d+, 6\), which does not fit input_ids"),
        (types[:, :-1], "which does not fit input_ids"),
        (large, r"token_type_ids\[..., 1\] holds 256, which is outside 0 … 255 \(type_vocab_sizes\[1\]=256 in"),
    ):
        with pytest.raises(ValueError, match=words):
            model(inputs | {"token_type_ids": wrong})
    with pytest.raises(TypeError, match="TFTapasForQuestionAnswering does not take labels; it takes input_ids, "):
        model(inputs | {"labels": inputs["input_ids"]})


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"reset_position_index_per_cell": False},
        {"temperature": 0.5, "max_num_rows": 3, "max_num_columns": 2},
        {"type_vocab_sizes": [3, 4, 5, 2, 9, 9, 10]},
        {"allow_empty_column_selection": True},
        {"max_position_embeddings": 4},
    ],
    ids=str,
)
def test_values_of_the_config(changes):
    """Each is captured by itself and equal to PyTorch, or would not load."""
    folder = table_checkpoint(**OPERATIONS, **changes)
    model = tf_pipeline.TFAutoModelForTableQuestionAnswering.from_pretrained(folder)
    plain = ours().model.graph
    assert [node.args for node in model.graph.nodes] != [node.args for node in plain.nodes] or changes.get(
        "max_position_embeddings"
    )
    assert (
        ("position_ids" in model.graph.inputs)
        == (model.max_length == 64)
        == (changes.get("reset_position_index_per_cell") is False)
    )


@pytest.mark.slow
def test_positions_that_do_not_start_again_in_each_cell_end():
    folder = table_checkpoint(reset_position_index_per_cell=False, model_max_length=64, **OPERATIONS)
    long = [{"table": {name: cells * 4 for name, cells in ACTORS.items()}, "query": "Who?"}]
    assert ours(folder)(long) == by_torch(long, folder)[0]
    with pytest.raises(ValueError, match="Table 1 has .* tokens, but TFTapas.* takes at most 64. Leave truncation on"):
        ours(folder)([{"table": STARS, "query": "Who?"}, *long], truncation=False)
    with pytest.raises(IndexError):
        by_torch(long, folder, truncation=False)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification"])
def test_other_heads(head):
    folder = table_checkpoint(head)
    auto = f"TFAuto{head if head == 'Model' else f'Model{head}'}"
    model = getattr(tf_pipeline, auto).from_pretrained(folder, dtype="float64")
    other = getattr(transformers, f"Tapas{head}").from_pretrained(folder).double().eval()
    assert type(model).__name__ == f"TFTapas{head}" and "position_ids" not in model.graph.inputs
    inputs = dict(encoded(folder))
    labels = {}
    if head == "ForMaskedLM":
        labels = {"labels": tf.where(inputs["attention_mask"] == 1, inputs["input_ids"], -100)}
    elif head == "ForSequenceClassification":
        labels = {"labels": tf.constant([0, 1, 1, 0, 1])}
    with torch.no_grad(), lifted_upcasts(other):
        expected = other(**as_torch(inputs | labels))
    got = model(inputs | labels)
    for name in ("last_hidden_state", "pooler_output", "logits", "loss"):
        assert (name in got) == (expected.get(name) is not None)
        if name in got:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_the_rest_is_compared_by_the_parity_command():
    report = compare(table_checkpoint(**OPERATIONS), groups=("outputs", "gradients", "execution"))
    assert report.passed, str(report.finding)
    compared = {check.setting for check in report.checks}
    assert {"token_type_ids", "no token_type_ids"} <= compared
    assert {"XLA", "SavedModel"} <= {setting.split(",")[0] for setting in compared}


def test_samples_are_tables():
    config = tiny_config("tapas", type_vocab_sizes=[3, 4, 5, 2, 9, 9, 10])
    model = transformers.TapasModel(config)
    seen = set()
    for seed in range(5):
        for side in ("right", "left", None):
            inputs = sample_inputs(model, config, batch=4, length=40, padding_side=side, seed=seed)
            types, mask = inputs["token_type_ids"].numpy(), inputs["attention_mask"].numpy()
            assert types.shape == (4, 40, 7) and (types[mask == 0] == 0).all()
            assert (types.reshape(-1, 7).max(axis=0) < config.type_vocab_sizes).all() and types.min() == 0
            segment, column, row = np.moveaxis(types[..., :3], -1, 0)
            assert ((column > 0) == (segment == 1)).all() and (row[segment == 0] == 0).all()
            for text in range(4):
                places = [tuple(x) for x in types[text, segment[text] == 1, :3]]
                assert places == sorted(places, key=lambda x: (x[2], x[1]))  # row by row
                seen |= {max(column[text]), f"{len(places) > len(set(places))} cells of several tokens"}
    assert {1, 2, 3, "True cells of several tokens"} <= seen
    plain = sample_inputs(transformers.BertModel(tiny_config("bert")), tiny_config("bert"))
    assert not plain["token_type_ids"].any() and plain["token_type_ids"].ndim == 2


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["amin", "mean", "sum"])
def test_a_wrong_reduction_is_seen(reduction, monkeypatch):
    """Tables of zeros alone would show the gate none of these."""
    right = RULES["aten.scatter_reduce.two"]
    other = {"amin": ("amin", True), "mean": ("amax", False), "sum": ("mean", False)}[reduction]

    def wrong(x, dim, index, src, reduce, include_self=True):
        return right.function(x, dim, index, src, *(other if reduce == reduction else (reduce, include_self)))

    monkeypatch.setitem(RULES, "aten.scatter_reduce.two", Rule(wrong, right.extras))
    monkeypatch.setenv("TF_PIPELINE_CACHE", "/dev/null/nowhere")
    with pytest.raises(PortError, match="the graph does not compute what PyTorch does"):
        tf_pipeline.TFAutoModelForTableQuestionAnswering.from_pretrained(table_checkpoint(**OPERATIONS))


@pytest.mark.slow
def test_the_axis_of_types_is_fixed():
    captured = capture.capture(transformers.TapasModel, tiny_config("tapas"))
    assert captured.graph.inputs["token_type_ids"].shape == ["batch", "length", 7]
    assert captured.graph.inputs["token_type_ids"].default == "zeros"


def test_positions_that_depend_on_the_table_are_no_input():
    """Also where they change scores little, as those of a head that starts with small weights."""

    def defaults(model_class, **changes):
        config = tiny_config("tapas", vocab_size=107, **changes)
        return default_inputs(capture.build(model_class, config, "eager", torch.float32).eval(), config)

    for model_class in (transformers.TapasForSequenceClassification, transformers.TapasForMaskedLM):
        assert defaults(model_class) == {"input_ids": None, "attention_mask": "ones", "token_type_ids": "zeros"}
    assert defaults(transformers.TapasModel, reset_position_index_per_cell=False)["position_ids"] == "positions"
