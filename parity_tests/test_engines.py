"""The engines of pipelines: their answers are TensorFlow's, and what they cannot do is said."""

import importlib.util
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from parity_tests.checkpoint_helpers import checkpoint, ours
from parity_tests.families import BODIES
from parity_tests.pipeline_helpers import decoder_classifier_checkpoint, tiny_with_tokenizer
from parity_tests.port_helpers import checkpoint as port_checkpoint
from parity_tests.port_helpers import shared_cache, use_cache_of
from parity_tests.tiers import exhaustive
from tf_pipeline import AutoTokenizer, TFAutoModel, engines, pipeline
from tf_pipeline.cli.main import app
from tf_pipeline.engines import EngineError, OpenVinoFunction
from tf_pipeline.pipelines import base, factory
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT, pipeline_class
from tf_pipeline.tracing import Following

TEXTS = ["a good film", "not what I had expected of this director, to say the least", "", "bad"]
QUESTIONS = [{"question": "Who?", "context": text} for text in TEXTS[:2]]
TASKS = {
    "text-classification": ("TFBertForSequenceClassification", TEXTS, {"top_k": None}),
    "token-classification": ("TFBertForTokenClassification", TEXTS[:2], {}),
    "zero-shot-classification": ("TFBertForSequenceClassification", TEXTS[:2], {"candidate_labels": ["art", "sport"]}),
    "question-answering": ("TFBertForQuestionAnswering", QUESTIONS, {}),
    "feature-extraction": ("TFBertModel", TEXTS, {}),
    "fill-mask": ("TFBertForMaskedLM", ["a [MASK] film", "the [MASK] is [MASK]"], {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)


@pytest.fixture
def sentiment():
    return pipeline("text-classification", top_k=None)


def on(engine: str, pipe, **options):
    """The pipeline of the same model on another engine."""
    return type(pipe)(pipe.model, pipe.tokenizer, engine=engine, **options)


def assert_close(got, expected, atol: float = 1e-5) -> None:
    """The same answers, whose numbers differ by less than a bound."""
    assert type(got) is type(expected)
    if isinstance(got, dict):
        assert got.keys() == expected.keys()
        got, expected = list(got.values()), list(expected.values())
    if isinstance(got, (list, tuple)):
        assert len(got) == len(expected)
        for pair in zip(got, expected, strict=True):
            assert_close(*pair, atol)
    elif isinstance(got, float):
        assert abs(got - expected) <= atol * max(1.0, abs(expected))
    else:
        assert got == expected


# --------------------------------------------------------------------------------------------------- the same answers


# What XLA answers, `test_layers_that_change_are_seen` compares too.
@pytest.mark.parametrize("task", exhaustive(TASKS, {"text-classification"}))
@pytest.mark.parametrize("engine", exhaustive(["openvino", "xla"], ["openvino"]))
def test_answers_of_every_task(task, engine, tokenizer):
    class_name, texts, options = TASKS[task]
    values = (
        {"num_labels": 3, "id2label": {0: "entailment", 1: "neutral", 2: "other"}} if task.startswith("zero") else {}
    )
    folder = tiny_with_tokenizer(class_name, tokenizer, **values)
    expected = pipeline(task, model=str(folder), **options)(texts)
    if (task, engine) == ("fill-mask", "xla"):
        with pytest.raises(EngineError, match="engine='xla' does not run fill-mask; use tensorflow or openvino"):
            pipeline(task, model=str(folder), engine=engine, **options)
        return
    pipe = pipeline(task, model=str(folder), engine=engine, **options)
    assert engine in repr(pipe)
    assert_close(pipe(texts), expected)
    assert_close([pipe(text, **options) for text in texts], [pipe(text, **options) for text in texts])
    assert_close(pipe(texts, batch_size=1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("class_name", BODIES)
def test_outputs_of_every_native_family(class_name):
    model = ours(class_name, checkpoint(class_name))
    names = [name for name in ("input_ids", "attention_mask", "decoder_input_ids") if name in model.tensor_names]
    signature = {name: tf.TensorSpec([None, None], tf.int32, name) for name in names}
    run = lambda inputs: {"states": model(inputs, training=False).last_hidden_state}  # noqa: E731
    function = OpenVinoFunction(run, signature, precision="float32", quantize=None, required=True)
    for rows, length in ((2, 9), (1, 4), (3, 17)):
        ids = np.random.default_rng(length).integers(5, 40, (rows, length)).astype(np.int32)
        mask = (np.arange(length) < length - np.arange(rows)[:, np.newaxis]).astype(np.int32)
        inputs = {name: mask if name == "attention_mask" else ids for name in names}
        got, expected = function(inputs)["states"], run({name: tf.constant(x) for name, x in inputs.items()})["states"]
        real = mask == 1
        difference = np.abs(got - expected.numpy())[real].max()
        assert difference <= 1e-5 * max(1.0, np.abs(expected.numpy()[real]).max()), (rows, length)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["xlnet", "esm", "roformer"])
def test_outputs_of_ports(model_type, monkeypatch):
    use_cache_of(monkeypatch, shared_cache())
    model = TFAutoModel.from_pretrained(port_checkpoint(model_type))
    signature = {name: tf.TensorSpec([None, None], tf.int32, name) for name in ("input_ids", "attention_mask")}
    run = lambda inputs: {"states": model(inputs, training=False).last_hidden_state}  # noqa: E731
    function = OpenVinoFunction(run, signature, precision="float32", quantize=None, required=True)
    ids = np.random.default_rng(0).integers(5, 25, (2, 12)).astype(np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    np.testing.assert_allclose(function(inputs)["states"], run(inputs)["states"], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_stages_and_threads(sentiment):
    pipe = on("openvino", sentiment, top_k=None)
    outputs = pipe.forward(pipe.preprocess(TEXTS[0]))
    assert_close(pipe.postprocess(outputs, top_k=None), sentiment(TEXTS[:1])[0])
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda text: pipe([text])[0], TEXTS * 8))
    assert_close(answers, sentiment(TEXTS) * 8)
    assert pipe.trace_count == 1


@pytest.mark.slow
def test_xla_compiles_powers_of_two(sentiment):
    pipe = on("xla", sentiment)
    pipe([TEXTS[0]])
    pipe([TEXTS[3]])
    assert pipe.trace_count == 1  # of 1 × 16
    pipe([TEXTS[0]] * 3)
    assert pipe.trace_count == 2  # of 4 × 16


def test_what_xla_gets_wrong_is_noticed(sentiment, monkeypatch):
    pipe = on("xla", sentiment)
    pipe(TEXTS[0])
    function = pipe._compiled._current()
    monkeypatch.setattr(function, "_plain", lambda inputs: {"logits": np.ones([len(inputs["input_ids"]), 2])})
    pipe(TEXTS[3])  # of a size that was compared
    assert pipe.trace_count == 1
    for texts in ([TEXTS[1] * 2], TEXTS):
        with pytest.raises(EngineError, match="XLA computes something else than TensorFlow"):
            pipe(texts)


def test_a_decoder_without_a_padding_token_does_not_run_on_xla():
    pipe = pipeline("text-classification", decoder_classifier_checkpoint())
    with pytest.raises(EngineError, match="TFGPT2ForSequenceClassification cannot tell padding from the last token"):
        on("xla", pipe)


@pytest.mark.parametrize("engine", exhaustive(["openvino", "xla"], ["xla"]))
def test_layers_that_change_are_seen(engine, tokenizer):
    plain = pipeline("text-classification", str(tiny_with_tokenizer("TFBertForSequenceClassification", tokenizer)))
    pipe, texts = on(engine, plain, top_k=None), TEXTS[:1]
    before = pipe(texts)
    plain.model.enable_lora(2, ["query", "value"], init_lora_weights=False)
    after = on("tensorflow", plain, top_k=None)(texts)
    assert_close(pipe(texts), after)
    plain.model.disable_adapters()
    assert_close(pipe(texts), before)
    with pytest.raises(AssertionError):
        assert_close(before, after, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_weights_that_change_are_seen(quantize, tokenizer, tmp_path):
    plain = pipeline("text-classification", str(tiny_with_tokenizer("TFBertForSequenceClassification", tokenizer)))
    pipe = on("openvino", plain, top_k=None, quantize=quantize)
    before = pipe(TEXTS)
    plain.model.save_weights(tmp_path / "own.weights.h5")
    plain.model.set_weights([value * 0.5 for value in plain.model.get_weights()])
    changed = on("openvino", plain, top_k=None, quantize=quantize)(TEXTS)
    assert_close(pipe(TEXTS), changed)
    with pytest.raises(AssertionError):
        assert_close(before, changed, 1e-3)
    plain.model.load_weights(tmp_path / "own.weights.h5")
    assert_close(pipe(TEXTS), before)


def test_threads_that_see_a_change_wait_for_its_function():
    model, made = SimpleNamespace(changes=0), []

    def make():
        made.append(model.changes)
        time.sleep(0.05 * model.changes)
        return partial(int, model.changes)

    following = Following(make, lambda: model.changes)
    model.changes = 1
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: following(), range(4))) == [1] * 4
    assert made == [0, 1]


@pytest.mark.slow
def test_half_precision(tokenizer):
    folder = tiny_with_tokenizer("TFBertForSequenceClassification", tokenizer)
    expected = pipeline("text-classification", model=str(folder), top_k=None)(TEXTS)
    pipe = pipeline("text-classification", model=str(folder), top_k=None, engine="openvino", dtype="bfloat16")
    assert pipe.model.compute_dtype == "float32"
    got = pipe(TEXTS)
    assert got != pipeline("text-classification", model=str(folder), top_k=None, engine="openvino")(TEXTS)
    scores = [{one["label"]: one["score"] for one in answer} for answer in (*got, *expected)]
    for mine, own in zip(scores[: len(got)], scores[len(got) :], strict=True):
        assert all(abs(mine[label] - own[label]) < 0.1 for label in own)


@pytest.mark.slow
def test_integers_give_close_answers(sentiment, capfd):
    pytest.importorskip("nncf")
    pipe, texts = on("openvino", sentiment, top_k=None, quantize="int8"), ["dull", "a masterpiece", *TEXTS]
    capfd.readouterr()
    got, expected = pipe(texts), sentiment(texts)
    assert capfd.readouterr().out == ""
    assert got != expected
    scores = [[{one["label"]: one["score"] for one in answer} for answer in answers] for answers in (got, expected)]
    for mine, own in zip(*scores, strict=True):
        assert all(abs(mine[label] - own[label]) < 0.05 for label in own)


# ------------------------------------------------------------------------------------------------------ what is chosen


def test_the_best_engine_that_is_there(sentiment, monkeypatch):
    assert on("auto", sentiment).engine == "openvino"
    assert sentiment.engine == "tensorflow"
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        assert on("auto", sentiment).engine == "tensorflow"
        with pytest.raises(EngineError, match=r'pip install "tf-pipeline\[openvino\]"'):
            on("openvino", sentiment)
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else name)
        with pytest.raises(EngineError, match="takes NNCF, which is not installed"):
            on("openvino", sentiment, quantize="int8")


def test_unknown_engines_and_dtypes_are_refused(sentiment):
    with pytest.raises(EngineError, match="'onnx' is not supported; engines are tensorflow, xla, openvino, auto"):
        on("onnx", sentiment)
    assert engines.chosen_engine("auto", "float64") == "tensorflow"
    with pytest.raises(EngineError, match="converts float32 models, and this one computes in float64"):
        engines.chosen_engine("openvino", "float64")
    with pytest.raises(EngineError, match="quantize='int8' needs OpenVINO, and engine is 'tensorflow'"):
        on("tensorflow", sentiment, quantize="int8")
    with pytest.raises(EngineError, match="precision='bfloat16' is OpenVINO's, and engine is 'tensorflow'"):
        on("tensorflow", sentiment, precision="bfloat16")
    with pytest.raises(
        EngineError, match="precision='int4' is not supported; supported are float32, bfloat16, float16"
    ):
        on("tensorflow", sentiment, precision="int4")
    with pytest.raises(EngineError, match="quantize='int3' is not supported; supported are int8"):
        on("openvino", sentiment, quantize="int3")
    with pytest.raises(ValueError, match="engine: only a model that runs in this process takes that"):
        pipeline("text-classification", model="http://localhost:1/v1/models/m", engine="openvino")


@pytest.mark.parametrize(
    ("model_type", "device", "engine", "dtype"),
    [
        ("wav2vec2", "/device:CPU:0", "auto", "float32"),
        ("wav2vec2", "/device:GPU:0", "auto", "bfloat16"),
        ("whisper", None, "auto", "bfloat16"),
        ("whisper", None, "openvino", "float32"),  # which is refused later
    ],
)
def test_dtypes_stay_where_tensorflow_runs_the_model(monkeypatch, model_type, device, engine, dtype):
    monkeypatch.setattr(engines, "chosen_engine", lambda engine: "openvino")
    monkeypatch.setattr(base, "device_name", lambda device: device)
    task_pipeline, source = pipeline_class("automatic-speech-recognition"), SimpleNamespace(model_type=model_type)
    loading, options = factory._for_engine(engine, task_pipeline, source, device, {}, {"dtype": "bfloat16"}, {})
    assert loading == {"dtype": dtype}
    assert options == ({"precision": "bfloat16"} if dtype == "float32" else {})


def test_what_openvino_gets_wrong_is_noticed(sentiment, monkeypatch, caplog):
    infer = OpenVinoFunction._infer
    monkeypatch.setattr(OpenVinoFunction, "_infer", lambda *inputs: {"logits": infer(*inputs)["logits"] + 0.01})
    with pytest.raises(EngineError, match="computes something else than TensorFlow"):
        on("openvino", sentiment)(TEXTS)
    with caplog.at_level(logging.WARNING):
        assert on("auto", sentiment, top_k=None)(TEXTS) == sentiment(TEXTS)
    assert "TensorFlow runs it" in caplog.text


def test_what_openvino_cannot_convert_is_said(sentiment, monkeypatch):
    def fails(function):
        raise RuntimeError("No translator for tf.Strange\nand a page of a graph")

    monkeypatch.setattr(engines, "_converted", fails)
    pipe = on("openvino", sentiment)
    with pytest.raises(EngineError, match="OpenVINO cannot run this model: No translator for tf.Strange$"):
        pipe(TEXTS)
    monkeypatch.undo()
    with pytest.raises(EngineError, match="No translator for tf.Strange$"):  # which is not tried again
        pipe(TEXTS)


def test_an_operation_that_openvino_lacks_is_named():
    run = OpenVinoFunction(
        lambda x: {"y": tf.linalg.svd(x, compute_uv=False)}, tf.TensorSpec([None, None], tf.float32, name="x"),
        precision="float32", quantize=None, required=True,
    )  # fmt: skip
    with pytest.raises(EngineError, match="model: No conversion rule found for operations: Svd$"):
        run(tf.ones((2, 2)))


def test_outputs_that_are_inputs_or_each_other():
    def run(x, y):
        return {"twice": x + x, "same": x, "b": {"again": x, "other": y}}

    specs = [tf.TensorSpec([None], tf.float32, name=name) for name in "xy"]
    function = OpenVinoFunction(run, *specs, precision="float32", quantize=None, required=True)
    for _ in range(2):  # both engines
        outputs = function(tf.constant([1.0]), tf.constant([2.0]))
    assert tf.nest.map_structure(np.ndarray.item, outputs) == {"twice": 2, "same": 1, "b": {"again": 1, "other": 2}}


@pytest.mark.parametrize("stage", ["_converted", "_infer", "_differ"])
def test_an_interrupted_conversion_is_none(stage, monkeypatch):
    function = OpenVinoFunction(
        lambda x: {"y": x + 1}, tf.TensorSpec([None], tf.float32, name="x"),
        precision="float32", quantize=None, required=True,
    )  # fmt: skip

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines if stage == "_converted" else function, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        function(tf.constant([1.0]))
    assert function._model is None
    monkeypatch.undo()
    assert function(tf.constant([1.0]))["y"] == 2


def test_refused_inputs_are_no_fault_of_the_engine(sentiment):
    pipe = on("openvino", sentiment)
    with pytest.raises(ValueError, match="takes at most"):
        pipe("word " * 600)


@pytest.mark.slow
def test_on_the_command_line():
    result = CliRunner().invoke(app, ["run", "text-classification", "--engine", "openvino", "--json", *TEXTS[:2]])
    plain = CliRunner().invoke(app, ["run", "text-classification", "--json", *TEXTS[:2]])
    assert result.exit_code == 0, result.output
    assert_close(*([json.loads(line) for line in one.stdout.splitlines()] for one in (result, plain)))
    result = CliRunner().invoke(app, ["run", "text-classification", "--engine", "onnx", "good"])
    assert result.exit_code != 0
    assert "engines are tensorflow" in result.output
