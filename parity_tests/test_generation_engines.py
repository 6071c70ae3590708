"""``generate`` on OpenVINO: its tokens are TensorFlow's, changed weights are seen, and what it cannot do is said."""

import importlib.util
import logging
import math

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from parity_tests.checkpoint_helpers import checkpoint, ours
from parity_tests.generation_helpers import IDS, MASK, generate, pair
from parity_tests.pipeline_helpers import decoder_checkpoint, encoder_decoder_checkpoint
from parity_tests.tiers import exhaustive
from tf_pipeline import pipeline
from tf_pipeline.cli.main import app
from tf_pipeline.engines import EngineError, OpenVinoFunction, OpenVinoSteps
from tf_pipeline.generation.on_openvino import Step, _checksum, wide_bucket
from tf_pipeline.layers.cache import write_slots
from tf_pipeline.layers.products import dense, for_another_engine
from tf_pipeline.tracing import compiled

GREEDY = {"max_new_tokens": 8}
BEAMS = {"max_new_tokens": 8, "num_beams": 3, "num_return_sequences": 2}
DRAWN = {"max_new_tokens": 8, "do_sample": True, "seed": 3, "top_k": 20, "num_return_sequences": 2}
WAYS = [
    *((model_type, options) for model_type in ("gpt2", "llama", "t5", "bart") for options in (GREEDY, BEAMS, DRAWN)),
    *((model_type, BEAMS) for model_type in ("mistral", "gemma3_text", "mbart", "m2m_100", "marian")),
    *((model_type, GREEDY) for model_type in ("gpt_neo", "plbart")),
]
QUICK = [("t5", BEAMS)]  # of a decoder alone: `test_one_text_is_what_openvino_is_chosen_for`


class Stream:
    """Keeps what a streamer gets."""

    def __init__(self):
        self.got, self.ended = [], False

    def put(self, value):
        self.got.append(value)

    def end(self):
        self.ended = True


@pytest.fixture
def used(monkeypatch):
    """The steps that OpenVINO computes."""
    calls, compute = [], OpenVinoSteps.__call__
    monkeypatch.setattr(OpenVinoSteps, "__call__", lambda self, given: calls.append(given) or compute(self, given))
    return calls


@pytest.fixture
def gpt2():
    """A model of its own, which a test may change."""
    return ours("TFGPT2LMHeadModel", checkpoint("TFGPT2LMHeadModel"))


@pytest.mark.parametrize(("model_type", "options"), exhaustive(WAYS, QUICK), ids=repr)
def test_tokens_are_those_of_tensorflow(model_type, options, used):
    model, _ = pair(model_type)
    kept = options | {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    expected = generate(model, **kept)
    for _ in range(2):  # the first call converts
        used.clear()
        got = generate(model, engine="openvino", **kept)
        assert len(used) == len(got.scores) - 1 > 1
        assert type(got) is type(expected)
        np.testing.assert_array_equal(got.sequences, expected.sequences)
        for name in ("scores", "logits"):
            np.testing.assert_allclose(np.stack(got[name]), np.stack(expected[name]), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_other_batches_processors_and_criteria(used):
    model, _ = pair("gpt2")

    def after_three(ids, scores):
        return tf.fill([tf.shape(ids)[0]], tf.shape(ids)[1] >= IDS.shape[1] + 3)

    for ids, mask in ((IDS[1:2], MASK[1:2]), (np.repeat(IDS, 2, axis=0), np.repeat(MASK, 2, axis=0))):
        options = {"max_new_tokens": 9, "repetition_penalty": 1.5, "stopping_criteria": [after_three]}
        expected = generate(model, ids, mask, **options).numpy()
        np.testing.assert_array_equal(generate(model, ids, mask, engine="openvino", **options), expected)
        assert expected.shape[1] == IDS.shape[1] + 3
    assert used


@pytest.mark.slow
def test_a_prompt_that_guides(used):
    model, _ = pair("gpt2")
    options = {"max_new_tokens": 6, "guidance_scale": 1.5, "negative_prompt_ids": IDS[1:2, ::-1].copy()}
    expected = generate(model, IDS[1:2], MASK[1:2], **options)
    got = generate(model, IDS[1:2], MASK[1:2], engine="openvino", **options)
    np.testing.assert_array_equal(got, expected)
    assert used


@pytest.mark.slow
def test_a_stream_has_the_tokens_in_turn(used):
    model, _ = pair("gpt2")
    streams = {}
    for engine in ("tensorflow", "openvino"):
        streams[engine] = Stream()
        generate(model, IDS[1:2], MASK[1:2], streamer=streams[engine], engine=engine, **GREEDY)
        assert streams[engine].ended
    assert used
    for got, expected in zip(streams["openvino"].got, streams["tensorflow"].got, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_a_stream_may_generate_between_tokens():
    model, _ = pair("gpt2")
    expected = generate(model, engine="openvino", **GREEDY).numpy()

    class Nested(Stream):
        def put(self, value):
            np.testing.assert_array_equal(generate(model, engine="openvino", **GREEDY), expected)

    np.testing.assert_array_equal(generate(model, streamer=Nested(), engine="openvino", **GREEDY), expected)


@pytest.mark.slow
def test_weights_that_change_are_seen(gpt2, tmp_path):
    before = generate(gpt2, engine="openvino", **GREEDY).numpy()
    gpt2.save_weights(tmp_path / "own.weights.h5")
    gpt2.set_weights([-value for value in gpt2.get_weights()])
    after = generate(gpt2, engine="openvino", **GREEDY).numpy()
    np.testing.assert_array_equal(after, generate(gpt2, **GREEDY))
    assert (after != before).any()
    gpt2.load_weights(tmp_path / "own.weights.h5")
    np.testing.assert_array_equal(generate(gpt2, engine="openvino", **GREEDY), before)
    gpt2.weights[0].assign(-gpt2.weights[0])  # of which the model knows nothing
    np.testing.assert_array_equal(generate(gpt2, engine="openvino", **GREEDY), generate(gpt2, **GREEDY))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "int8", "bool"])
@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (5,), ()])
def test_a_checksum_sees_what_changes(dtype, shape):
    values = np.random.default_rng(0).permutation(100)[: math.prod(shape)].reshape(shape) - 50
    change = [
        values + (values == values.flat[0]),
        -values,
        values.T if len(shape) > 1 else values[::-1] if shape else 9,
    ]
    if dtype == "bool":
        values, change = values > 0, [values <= 0]
    before = _checksum(tf.cast(values, dtype)).numpy()
    for other in change:
        other = np.reshape(other, shape)
        assert (values == other).all() or (_checksum(tf.cast(other, dtype)).numpy() != before).any()


@pytest.mark.slow
def test_layers_that_change_are_seen(gpt2, used):
    before = generate(gpt2, engine="openvino", **GREEDY).numpy()
    gpt2.enable_lora(4, ["c_attn"], init_lora_weights=False)
    after = generate(gpt2, engine="openvino", **GREEDY).numpy()
    np.testing.assert_array_equal(after, generate(gpt2, **GREEDY))
    assert (after != before).any()
    assert used


@pytest.mark.slow
@pytest.mark.parametrize("conversion", [{"precision": "bfloat16"}, {"quantize": "int8"}], ids=repr)
def test_narrower_numbers_give_close_logits(conversion, gpt2):
    kept = GREEDY | {"return_dict_in_generate": True, "output_logits": True}
    got, expected = generate(gpt2, engine="openvino", **kept, **conversion), generate(gpt2, **kept)
    # Those behind the prompt are TensorFlow's; those of the first step are OpenVINO's, of the same tokens.
    np.testing.assert_array_equal(got.logits[0], expected.logits[0])
    difference = np.abs(got.logits[1] - expected.logits[1]).max()
    assert 0 < difference < 0.1 * np.abs(expected.logits[1]).max()


# -------------------------------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "xla"}, "engine='xla' does not run generate; use tensorflow or openvino"),
        ({"engine": "onnx"}, "'onnx' is not supported; engines are"),
        ({"engine": "openvino", "precision": ["bfloat16"]}, r"precision=\['bfloat16'\] is not supported"),
        ({"engine": "openvino", "quantize": ["int8"]}, r"quantize=\['int8'\] is not supported; supported are int8"),
        ({"precision": "bfloat16"}, "precision='bfloat16' is OpenVINO's, and engine is 'tensorflow'"),
        ({"quantize": "int8"}, "quantize='int8' needs OpenVINO, and engine is 'tensorflow'"),
        ({"engine": "openvino", "prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens reads several tokens"),
    ],
    ids=repr,
)
def test_what_is_refused(options, message):
    with pytest.raises(EngineError, match=message):
        generate(pair("gpt2")[0], IDS[1:2], MASK[1:2], **GREEDY, **options)


def test_dtypes_and_graphs_are_refused(monkeypatch):
    with pytest.raises(EngineError, match="converts float32 models, and this one computes in float64"):
        generate(pair("gpt2", "float64")[0], engine="openvino", **GREEDY)
    with pytest.raises(EngineError, match="needs Python between tokens; leave it out inside a tf.function"):
        pair("gpt2")[0].generate_signature(engine="openvino", **GREEDY).get_concrete_function()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="takes OpenVINO, which is not installed"):
        generate(pair("gpt2")[0], engine="openvino", **GREEDY)


@pytest.mark.slow
def test_a_step_that_differs_is_noticed(gpt2, monkeypatch, caplog):
    infer = OpenVinoFunction._infer
    monkeypatch.setattr(
        OpenVinoFunction, "_infer", lambda *inputs: infer(*inputs) | {"logits": infer(*inputs)["logits"] + 0.1}
    )
    with pytest.raises(EngineError, match="computes something else than TensorFlow"):
        generate(gpt2, engine="openvino", **GREEDY)
    with caplog.at_level(logging.WARNING):
        got = generate(gpt2, IDS[1:2], MASK[1:2], engine="auto", **GREEDY)
    assert "TensorFlow runs it" in caplog.text
    np.testing.assert_array_equal(got, generate(gpt2, IDS[1:2], MASK[1:2], **GREEDY))


@pytest.mark.parametrize(("rows", "options"), [(1, GREEDY), (3, GREEDY), (1, BEAMS), (1, DRAWN)], ids=repr)
def test_one_text_is_what_openvino_is_chosen_for(rows, options, used):
    model, _ = pair("gpt2")
    got = generate(model, IDS[-rows:], MASK[-rows:], engine="auto", **options)
    assert bool(used) == (rows == 1 and options is GREEDY)
    np.testing.assert_array_equal(got, generate(model, IDS[-rows:], MASK[-rows:], **options))


def test_what_openvino_alone_can_do_is_not_left_to_tensorflow(monkeypatch):
    class Begun(Exception):  # what is converted, other tests compare
        pass

    def begin(step, progress):
        raise Begun

    monkeypatch.setattr(Step, "begin", begin)
    with pytest.raises(Begun):
        generate(pair("gpt2")[0], IDS, MASK, engine="auto", precision="bfloat16", **GREEDY)


def test_graphs_and_prompt_lookup_are_left_to_tensorflow():
    model, _ = pair("gpt2")
    expected = generate(model, IDS[1:2], MASK[1:2], **GREEDY).numpy()
    got = generate(model, IDS[1:2], MASK[1:2], engine="auto", prompt_lookup_num_tokens=3, **GREEDY)
    np.testing.assert_array_equal(got, expected)
    written = compiled(lambda ids: model.generate(ids, engine="auto", **GREEDY))(tf.constant(IDS[1:2], tf.int32))
    np.testing.assert_array_equal(written, expected)


def test_writes_of_several_slots_are_not_converted():
    specs = (tf.TensorSpec([1, 2, 8, 4], name="buffer"), tf.TensorSpec([1, 2, 3, 4], name="new"))
    run = lambda buffer, new: {"slots": write_slots(buffer, new, tf.constant(1))}  # noqa: E731
    function = OpenVinoFunction(run, *specs, precision="float32", quantize=None, required=True)
    before = logging.root.level, [*logging.root.filters], [*logging.root.handlers]
    with pytest.raises(EngineError, match="OpenVINO cannot run this model"):
        function(tf.zeros([1, 2, 8, 4]), tf.ones([1, 2, 3, 4]))
    assert (logging.root.level, logging.root.filters, logging.root.handlers) == before  # OpenVINO silences it


# ----------------------------------------------------------------------------------------------------------- the parts


@pytest.mark.slow
def test_calls_of_several_options_share_a_step(gpt2):
    generate(gpt2, engine="openvino", **GREEDY)
    generate(gpt2, engine="openvino", **DRAWN | {"num_return_sequences": 1})
    kept = vars(gpt2)["_generation_graphs"].made
    assert sum(key[0] == "step" for key in kept) == 1


def test_capacities_are_few():
    assert [wide_bucket(length, None) for length in (1, 128, 129, 700)] == [128, 128, 256, 1024]
    assert wide_bucket(700, 900) == 900


def test_products_for_another_engine_have_no_branches():
    def product(rows):
        return dense(rows, tf.ones([50, 4]), transposed=True)

    def for_another(rows):
        with for_another_engine():
            return product(rows)

    def has_branches(run) -> bool:
        graph = compiled(run, tf.TensorSpec([None, 4])).get_concrete_function().graph
        return any(operation.type == "StatelessIf" for operation in graph.get_operations())

    assert has_branches(product)
    assert not has_branches(for_another)


# ------------------------------------------------------------------------------------------ pipelines, the command line


def writer(task):
    return decoder_checkpoint() if task == "text-generation" else encoder_decoder_checkpoint()


@pytest.mark.parametrize("task", exhaustive(["text-generation", "text2text-generation"], ["text-generation"]))
def test_a_pipeline_hands_its_engine_to_generate(task, monkeypatch):
    pipe, given = pipeline(task, writer(task), engine="openvino"), []
    assert "openvino" in repr(pipe)
    monkeypatch.setattr(type(pipe.model), "generate", lambda *_, **options: given.append(options["engine"]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipe("My tart")
    assert given == ["openvino"]
    with pytest.raises(EngineError, match=f"engine='xla' does not run {task}; use tensorflow or openvino"):
        pipeline(task, writer(task), engine="xla")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text-generation", "text2text-generation"])
def test_a_pipeline_writes_the_same(task, used):
    folder = writer(task)
    texts = ["Once upon a time", "My tart"]
    expected = pipeline(task, folder, do_sample=False, max_new_tokens=6)(texts)
    pipe = pipeline(task, folder, do_sample=False, max_new_tokens=6, engine="openvino")
    assert pipe(texts) == expected
    assert used
    assert pipe.trace_count == 1


@pytest.mark.slow
def test_a_pipeline_that_chooses_falls_back(monkeypatch, caplog):
    monkeypatch.setattr(OpenVinoFunction, "_infer", lambda self, inputs: {"logits": np.zeros(1)})
    pipe = pipeline("text-generation", decoder_checkpoint(), do_sample=False, max_new_tokens=6, engine="auto")
    with caplog.at_level(logging.WARNING):
        got = pipe("My tart")
    assert "TensorFlow runs it" in caplog.text
    assert got == pipeline("text-generation", decoder_checkpoint(), do_sample=False, max_new_tokens=6)("My tart")


@pytest.mark.slow
def test_the_command_line_writes_the_same(used):
    options = ["--model", str(decoder_checkpoint()), "--max-new-tokens", "6", "--no-do-sample", "My tart"]
    plain = CliRunner().invoke(app, ["run", "text-generation", *options])
    assert not used
    result = CliRunner().invoke(app, ["run", "text-generation", "--engine", "openvino", *options])
    assert result.exit_code == plain.exit_code == 0, result.output
    assert used
    assert result.stdout == plain.stdout
