"""Inputs of unequal size are refused in the graph, with their sizes, by every signature and every model."""

import numpy as np
import pytest
import tensorflow as tf
import transformers

from parity_tests.loader_helpers import exported, run
from parity_tests.pipeline_helpers import tiny_with_tokenizer
from parity_tests.tiers import exhaustive
from tf_pipeline.pipelines import pipeline
from tf_pipeline.serving.export import TASKS
from tf_pipeline.serving.lint import lint
from tf_pipeline.tokenization.in_graph import compile_tokenizer

HEADS = {
    "feature-extraction": "Model",
    "fill-mask": "ForMaskedLM",
    "question-answering": "ForQuestionAnswering",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
}


@pytest.fixture(scope="module")
def compiled(minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    return tokenizer, compile_tokenizer(tokenizer)


def _served(compiled, task):
    return TASKS[task](pipeline(task, model=tiny_with_tokenizer(f"TFBert{HEADS[task]}", compiled[0])), compiled[1], {})


def _tokens(names, **shapes):
    return {name: tf.ones(shapes.get(name, (2, 4)), tf.int64) for name in names}


@pytest.mark.parametrize("task", exhaustive(HEADS, ["text-classification"]))
def test_every_signature(compiled, task):
    signatures = _served(compiled, task).signatures()
    refused = 0
    for name, function in signatures.items():
        inputs = list(function.structured_input_signature[1])
        if name == "tokens":
            function(**_tokens(inputs))
            cases = [_tokens(inputs, **{one: shape}) for one in inputs for shape in ((2, 1), (2, 2), (2, 5), (1, 4))]
            sizes = [shape for _ in inputs for shape in ("2 1", "2 2", "2 5", "1 4")]
            cases, sizes = (cases, [(given, "2 4") for given in sizes]) if len(inputs) > 1 else ([], [])
        elif len(inputs) > 1:
            function(**{one: tf.constant(["Rain.", "Wind."]) for one in inputs})
            texts = {1: tf.constant(["Rain."]), 2: tf.constant(["Rain.", "Wind."]), 3: tf.constant(["a", "b", "c"])}
            cases = [{one: texts[n] if one == odd else texts[2] for one in inputs} for odd in inputs for n in (1, 3)]
            sizes = [(str(n), "2") for _ in inputs for n in (1, 3)]
        else:
            continue
        for case, expected in zip(cases, sizes, strict=True):
            with pytest.raises(tf.errors.InvalidArgumentError, match="does not fit") as error:
                function(**case)
            assert all(f"[{size}]" in str(error.value) for size in expected), error.value
            refused += 1
    assert refused == 12 + 4 * (task in ("question-answering", "text-classification"))


SHAPES = {
    "attention_mask": [(2, 1), (2, 5), (1, 4), (2, 4, 5), (2, 1, 4, 5), (1, 1, 4, 4)],
    "token_type_ids": [(2, 1), (1, 4)],
    "position_ids": [(2, 1), (1, 5), (3, 4)],
}
FITTING = {
    "attention_mask": [(2, 4), (2, 4, 4), (2, 1, 4, 4)], "token_type_ids": [(2, 4)], "position_ids": [(2, 4), (1, 4)]
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_models_in_a_graph_of_dynamic_shapes(compiled, name):
    model = _served(compiled, "text-classification").pipe.value.model
    ids = tf.ones((2, 4), tf.int32)

    def run_model(shape):
        spec = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None] * len(shape), tf.int32)]
        function = tf.function(lambda ids, other: model(ids, **{name: other}).logits, spec, autograph=False)
        return function(ids, tf.ones(shape, tf.int32))

    for shape in FITTING[name]:
        np.testing.assert_allclose(run_model(shape), model(ids, **{name: tf.ones(shape, tf.int32)}).logits, atol=1e-6)
    for shape in SHAPES[name]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} does not fit input_ids"):
            run_model(shape)
        with pytest.raises(ValueError, match="does not fit input_ids"):
            model(ids, **{name: tf.ones(shape, tf.int32)})


def test_compiled_tokenizer(compiled):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2\].*\[1\]"):
        compiled[1](["Rain.", "Wind."], ["Rain."])
    assert compiled[1](["Rain.", "Wind."], ["Wind.", "Rain."])["input_ids"].shape[0] == 2
    assert compiled[1]([], [])["input_ids"].shape[0] == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("sizes"))


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["c", "session"])
def test_other_loaders_refuse_too(folder, loader):
    assert lint(folder, "2.12") == []
    tokens = {"input_ids": np.ones((2, 4), np.int64), "attention_mask": np.ones((2, 4), np.int64)}
    assert run(loader, folder, "tokens", [tokens])["logits"].shape == (2, 2)
    with pytest.raises(AssertionError, match=r"does not fit(.|\n)*\[2 4\](.|\n)*\[2 1\]"):
        run(loader, folder, "tokens", [tokens | {"attention_mask": np.ones((2, 1), np.int64)}])
    texts = {"text": np.array([b"Rain.", b"Wind."], object), "text_pair": np.array([b"Rain."], object)}
    with pytest.raises(AssertionError, match="does not fit"):
        run(loader, folder, "pairs", [texts])
