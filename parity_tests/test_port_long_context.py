"""Ported models at lengths on both sides of what their configs name: windows, blocks, the original training, tables."""

from types import SimpleNamespace

import numpy as np
import pytest
import sympy
import tensorflow as tf
import torch
import transformers
from safetensors.numpy import load_file
from torch.utils._sympy.functions import FloorDiv, Mod

import tf_pipeline
from benchmarks import tiny
from parity_tests.port_helpers import checkpoint, proven, shared_cache, use_cache_of
from tf_pipeline.port import capture, complete, sample
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.model import ported_class
from tf_pipeline.reference.loading import torch_model
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import forget_lengths

ROPE = {"rope_theta": 10000.0}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.1, 4.2, 5.3]}
LONG = ROPE | FACTORS | {"rope_type": "longrope", "original_max_position_embeddings": 32}
YARN = ROPE | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = ROPE | {"rope_type": "linear", "factor": 4.0}
LLAMA3 = ROPE | {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
TABLE = {"max_position_embeddings": 128}


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


def assert_equal_at(lengths, model_type: str, attention: str = "eager", **changes) -> None:
    """Compare what a user loads from a folder with PyTorch, in float64 and at each length, padded where it may be."""
    folder = checkpoint.__wrapped__(model_type, **changes)  # dictionaries are no keys of its cache
    ours = ported_class(tiny.body_class(model_type).__name__).from_pretrained(folder, dtype="float64")
    theirs = torch_model(ours.torch_name(), folder, "float64", ours.keeps_tables, attn_implementation=attention)
    for length in lengths:
        inputs = sample.sample_inputs(theirs, theirs.config, 2, length, 5, "right", seed=length)
        inputs = {name: value for name, value in inputs.items() if name in ours.graph.inputs}
        forget_lengths(theirs)
        with torch.no_grad(), lifted_upcasts(theirs):
            expected = theirs(**inputs).last_hidden_state.numpy()
        got = ours({name: tf.constant(value.numpy()) for name, value in inputs.items()}).last_hidden_state.numpy()
        real = inputs["attention_mask"].numpy() == 1 if got.shape[1] == length else slice(None)
        scale = max(1.0, np.abs(expected[real]).max())
        assert np.abs(got[real] - expected[real]).max() <= 1e-10 * scale, length


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"max_position_embeddings": 32, "rope_parameters": ROPE | {"rope_type": "dynamic", "factor": 4.0}}),
        ("phi3", TABLE | {"original_max_position_embeddings": 32, "rope_parameters": LONG}),
        ("llama", TABLE | {"rope_parameters": YARN}),
        ("llama", TABLE | {"rope_parameters": LLAMA3}),
        ("llama", {"rope_parameters": ROPE | {"rope_type": "proportional", "partial_rotary_factor": 0.5}}),
    ],
    ids=lambda value: value["rope_parameters"]["rope_type"] if isinstance(value, dict) else value,
)
def test_rotary_types_on_both_sides_of_the_original_length(model_type, changes):
    # Not in order, so that nothing of a longer text may be left when a shorter one follows.
    assert_equal_at((7, 31, 50, 32, 33, 40), model_type, **changes)


@pytest.mark.slow
def test_alibi_of_falcon_is_that_of_its_default_attention():
    changes = {"alibi": True, "new_decoder_architecture": False, "multi_query": False, "parallel_attn": False}
    assert_equal_at((1, 9, 30), "falcon", "sdpa", **changes, num_kv_heads=tiny.HEADS)


@pytest.mark.slow
def test_blocks_of_long_t5():
    lengths = (1, 15, 23, 24, 25, 60, 200)
    blocks = {"encoder_attention_type": "transient-global", "local_radius": 11, "global_block_size": 8}
    assert_equal_at(lengths, "longt5", **blocks, num_layers=1, num_decoder_layers=1)


@pytest.mark.slow
def test_positions_fewer_than_the_lengths_that_are_compared():
    for positions in (9, 20):
        folder = checkpoint("rembert", max_position_embeddings=positions)
        model = tf_pipeline.TFAutoModel.from_pretrained(folder)
        assert model.max_length == positions
        with pytest.raises(ValueError, match=str(positions)):
            model(np.ones((1, positions + 1), "int32"))
        assert_equal_at((1, positions), "rembert", max_position_embeddings=positions)


@pytest.mark.slow
def test_whisper_takes_sound_and_decoder_tokens():
    folder = checkpoint("whisper")
    ours = tf_pipeline.TFAutoModel.from_pretrained(folder, dtype="float64")
    theirs = torch_model("TFWhisperModel", folder, "float64", keeps_tables=True)
    features = np.random.default_rng(0).normal(size=(2, theirs.config.num_mel_bins, 2 * tiny.POSITIONS))
    for length in (1, 6):
        written = np.random.default_rng(length).integers(3, 90, (2, length))
        with torch.no_grad(), lifted_upcasts(theirs):
            inputs = {"input_features": torch.tensor(features), "decoder_input_ids": torch.tensor(written)}
            expected = theirs(**inputs).last_hidden_state.numpy()
        got = ours({"input_features": features, "decoder_input_ids": written}).last_hidden_state
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * max(1.0, np.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["resnet", pytest.param("wav2vec2", marks=pytest.mark.slow)])
def test_images_and_sound_are_inputs_by_position_and_survive_saving(model_type, tmp_path):
    folder = checkpoint(model_type)
    model = tf_pipeline.TFAutoModel.from_pretrained(folder)
    ((name, shape),) = model.signal_shapes.items()
    sizes = [size or least for size, least in zip(shape, (2, 900, 40, 50), strict=False)]
    signal = np.random.default_rng(0).normal(size=sizes).astype("float32")
    expected = transformers.AutoModel.from_pretrained(folder).eval()(torch.tensor(signal))[0].detach().numpy()
    np.testing.assert_allclose(model(signal)[0], expected, atol=1e-3)
    model.save_pretrained(tmp_path / "again")
    stored, kept = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "again"))
    assert {key: value.shape for key, value in kept.items()} == {key: value.shape for key, value in stored.items()}
    np.testing.assert_array_equal(
        tf_pipeline.TFAutoModel.from_pretrained(tmp_path / "again")(signal)[0], model(signal)[0]
    )
    with pytest.raises(ValueError, match=rf"{name} has shape \(2, 3\), but {type(model).__name__} takes \[batch, "):
        model(signal.reshape(2, -1)[:, :3])
    with pytest.raises(ValueError, match=f"needs {name}; its processor returns it"):
        model({})
    unknown = tf.function(lambda x: model(x)[0], input_signature=[tf.TensorSpec(None)], autograph=False)
    with pytest.raises(ValueError, match=f"{name} has no known rank; state it where it is lost"):
        unknown(signal)


# ----------------------------------------------------------------------------------------------------- what is compared


def test_lengths_beyond_what_a_config_names():
    config = transformers.MistralConfig(sliding_window=40, rope_parameters=YARN | {"factor": 2.0}, num_hidden_layers=2)
    assert sample.boundaries(config) == [32, 40]
    for limits, taken, lengths in [
        ({}, range(1, 100), [1, 17, 24, 33, 41]),
        ({"length": [1, 36]}, range(1, 100), [1, 17, 24, 33, 36]),
        ({}, [*range(1, 30), 40], [1, 17, 24, 29, 40]),
    ]:
        captured = SimpleNamespace(graph=SimpleNamespace(limits=limits, inputs={}), lengths=taken)
        assert [length for _, length, _, _ in complete.shapes(captured, config)] == lengths
    dynamic = transformers.LlamaConfig(
        max_position_embeddings=64, rope_parameters=ROPE | {"rope_type": "dynamic", "factor": 2.0}
    )
    assert sample.boundaries(dynamic) == [64]
    assert sample.boundaries(transformers.MistralConfig(sliding_window=4096)) == []
    assert sample.boundaries(transformers.LongT5Config()) == [16, 32, 127, 128]


@pytest.mark.slow
def test_gate_sees_what_only_shows_beyond_a_window():
    config = tiny.tiny_config("mistral", sliding_window=40)
    captured = capture.capture(transformers.MistralModel, config)
    wider = tiny.tiny_config("mistral", sliding_window=400)
    with pytest.raises(PortError, match=r"41"):
        proven(capture.capture(transformers.MistralModel, wider), transformers.MistralModel, config)
    assert "2 × 41" in {check.setting for check in proven(captured, transformers.MistralModel, config)}


def test_sizes_for_which_a_condition_holds():
    size = sympy.Symbol("input_ids.1", integer=True, positive=True)
    assert capture._sizes_of(sympy.Ge(size, 890))[0] == 890
    divided = capture._sizes_of(sympy.Eq(Mod(size, FloorDiv(size, 4)), 0))
    assert divided[:4] == (4, 5, 6, 7)  # sizes of 1 to 3 divide by 0
    assert capture._sizes_of(sympy.Eq(sympy.zeta(size), 2)) == ()


def test_lengths_that_a_graph_does_not_cover_are_refused_in_words():
    assert capture._ranges([1, 2, 3, 7, 9, 10], 10) == "1 to 3 or 7 or 9 or more"


@pytest.mark.slow
def test_nothing_of_torch_is_printed(capfd):
    with pytest.raises(PortError, match="control flow"):
        capture.capture(transformers.LongformerModel, tiny.tiny_config("longformer", attention_window=[8, 8]))
    captured = capture.capture(transformers.LlamaModel, tiny.tiny_config("llama"))
    assert captured.graph.nodes
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_texts_that_are_too_short_for_a_graph_say_so():
    """DeepSeek V4 keeps blocks of tokens, and is captured for texts of at least two."""
    folder = checkpoint("deepseek_v4", "TFAutoModelForCausalLM", num_hidden_layers=1)
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)
    least = model.graph.limits["length"][0]
    assert least > 1
    ids = np.arange(least)[np.newaxis] % 50 + 5
    assert model(ids).logits.shape[1] == least
    message = f"ported for texts of at least {least} tokens"
    with pytest.raises(ValueError, match=message):
        model(ids[:, 1:])
    with pytest.raises(ValueError, match=message):
        model.generate(ids[:, 1:], max_new_tokens=2)
    inside = tf.function(lambda ids: model(ids).logits, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        inside(tf.constant(ids[:, 1:], tf.int32))
