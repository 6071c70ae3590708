"""Ported models: captured from PyTorch, gated, and then the same as models that have a module of their own."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from typer.testing import CliRunner

import tf_pipeline
from benchmarks import tiny
from parity_tests.checkpoint_helpers import WITHOUT_TORCH, copied, edited
from parity_tests.conftest import ASSETS
from parity_tests.pipeline_helpers import assert_same_answers, expected_answers, labels_of, torch_pipeline
from parity_tests.port_helpers import checkpoint, proven, shared_cache, use_cache_of
from parity_tests.tiers import exhaustive
from tf_pipeline.checkpoint import CheckpointError, named_slots
from tf_pipeline.cli.main import app
from tf_pipeline.parity import compare
from tf_pipeline.port import capture, complete, find, gate, port
from tf_pipeline.port.errors import PortError
from tf_pipeline.port.graph import CONSTANTS, GRAPH, Graph, GraphError, Tensor, listing
from tf_pipeline.port.model import PortedModel, ported_class
from tf_pipeline.port.rules import RULES
from tf_pipeline.port.rules.registry import Rule

# Diverse in attention, positions, routing, recurrence and shape; `benchmarks/coverage.py` tries all there are.
# Other decoders are captured in `test_port_steps.py`.
SAMPLE = [
    "bart", "deberta", "fnet", "gpt_neo", "mixtral", "roformer", "xlnet",
]  # fmt: skip
SEQUENCE = "TFAutoModelForSequenceClassification"


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """Graphs are remembered for this run, and nowhere else."""
    return use_cache_of(monkeypatch, shared_cache())


@pytest.mark.parametrize("model_type", exhaustive(SAMPLE, ["fnet"]))
def test_architecture_is_ported_and_equal(model_type):
    config = tiny.tiny_config(model_type)
    model_class = tiny.body_class(model_type)
    captured = capture.capture(model_class, config)
    before = captured.graph.to_dict()
    completed, measured = complete.complete(captured, model_class, config)
    finished = completed.graph.to_dict()
    checks = gate.check(completed, measured)
    assert (captured.graph.to_dict(), completed.graph.to_dict()) == (before, finished)
    compared = {check.dtype for check in checks}
    assert compared == {"float64", "float32"}
    assert len({check.setting for check in checks if "×" in check.setting}) == len(complete.shapes(completed, config))
    assert "last_hidden_state" in {check.name for check in checks}
    assert any(check.elements > 100 for check in checks)


# ---------------------------------------------------------------------------------------------------------- the graph


@pytest.fixture(scope="module")
def xlnet():
    shared_cache()
    return tf_pipeline.TFAutoModelForSequenceClassification.from_pretrained(checkpoint("xlnet", SEQUENCE))


# Models without a language head. Others capture GPT-NeoX too.
PORTED = {"gpt_neox": "TFAutoModel", "xlnet": SEQUENCE}


@pytest.fixture(scope="module", params=exhaustive(PORTED, ["gpt_neox"]))
def ported(request):
    """A model and its auto class."""
    shared_cache()
    auto = getattr(tf_pipeline, PORTED[request.param])
    return auto.from_pretrained(checkpoint(request.param, PORTED[request.param])), auto


@pytest.fixture(scope="module")
def gpt_neo():
    shared_cache()
    return tf_pipeline.TFAutoModelForCausalLM.from_pretrained(checkpoint("gpt_neo", "TFAutoModelForCausalLM"))


@pytest.fixture(scope="module")
def helium():
    shared_cache()
    return tf_pipeline.TFAutoModelForCausalLM.from_pretrained(checkpoint("helium", "TFAutoModelForCausalLM"))


@pytest.fixture(scope="module")
def t5():
    shared_cache()
    folder = checkpoint("t5", "TFAutoModelForSeq2SeqLM")
    return ported_class("T5ForConditionalGeneration").from_pretrained(folder)


@pytest.mark.slow
def test_graph_file_is_the_same_every_time(tmp_path):
    config = tiny.tiny_config("esm")
    texts = []
    for name in ("first", "second"):
        captured = capture.capture(transformers.EsmModel, config)
        (tmp_path / name).mkdir()
        captured.graph.write(tmp_path / name, captured.constants)
        texts.append((tmp_path / name / GRAPH).read_text())
        texts.append((tmp_path / name / CONSTANTS).read_bytes())
    assert texts[:2] == texts[2:]
    assert Graph.read(tmp_path / "first" / GRAPH, tmp_path / "first" / CONSTANTS)[0] == captured.graph


@pytest.mark.slow
def test_graph_keeps_composite_operators_and_names_modules(gpt_neo):
    operators = [node.op for node in gpt_neo.graph.nodes]
    assert operators.count("aten.layer_norm.default") == 5
    assert "aten.linear.default" in operators
    lines = list(listing(gpt_neo.graph))
    assert lines[0].startswith("GPTNeoForCausalLM(input_ids: int64[batch, length]")
    assert any("# transformer.h.0.attn.attention" in line for line in lines)
    assert any("= linear(" in line and "compute[batch, length, 99]" in line for line in lines)
    assert lines[-1].startswith("  return")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cut off or no JSON"),
        (
            lambda text: text.replace('"version": 2', '"version": 7'),
            "is of version 7, but this release reads version 2",
        ),
        (lambda text: text.replace("tf_pipeline.port", "onnx"), "is not a graph of a ported model"),
        (lambda text: text.replace('"limits"', '"borders"'), "was altered"),
        (lambda text: text.replace('"%input_ids"', '"%nothing"'), "was altered"),
    ],
)
def test_damaged_graph_is_refused(ported, tmp_path, change, message):
    ported[0].save_pretrained(tmp_path)
    text = (tmp_path / GRAPH).read_text()
    changed = change(text)
    assert changed != text
    (tmp_path / GRAPH).write_text(changed)
    with pytest.raises(GraphError, match=message):
        ported[1].from_pretrained(tmp_path)


@pytest.mark.slow
def test_constants_of_another_graph_are_refused(helium, tmp_path):
    helium.save_pretrained(tmp_path)
    (tmp_path / CONSTANTS).write_bytes((tmp_path / CONSTANTS).read_bytes()[:20])
    with pytest.raises(GraphError, match="cut off or corrupt"):
        tf_pipeline.TFAutoModelForCausalLM.from_pretrained(tmp_path)


# ---------------------------------------------------------------------------------------------------- the same model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "auto", "groups"),
    [
        ("xlnet", SEQUENCE, ["weights", "outputs"]),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in [
                ("xlnet", SEQUENCE, ["gradients", "training", "invariance", "round trip"]),
                ("umt5", "TFAutoModelForSeq2SeqLM", ["outputs", "gradients", "invariance"]),
                ("gpt_neo", "TFAutoModelForCausalLM", ["outputs", "execution"]),
            ]
        ),
    ],
)
def test_parity_of_ported_checkpoints(model_type, auto, groups, judge):
    folder = checkpoint(model_type, auto)
    name = getattr(tf_pipeline, auto).model_class(tf_pipeline.AutoConfig.from_pretrained(folder)).__name__
    report = compare(folder, name, groups=groups, rms_factor=3.0)
    judge(report, "ported: random, std 0.2")
    assert {check.group for check in report.checks} == set(groups)


@pytest.mark.slow
def test_outputs_are_named_as_in_torch(xlnet, t5):
    ids = np.array([[5, 6, 7, 8]])
    assert list(xlnet(ids)) == ["logits"]
    assert len(xlnet(ids, output_hidden_states=True).hidden_states) == 3
    assert [a.shape for a in xlnet(ids, output_attentions=True).attentions] == [(1, 4, 4, 4)] * 2
    assert xlnet(ids, return_dict=False)[0].shape == (1, 2)
    outputs = t5(ids, labels=np.array([[5, -100, 1]]), output_hidden_states=True, output_attentions=True)
    assert set(outputs) >= {"loss", "logits", "encoder_last_hidden_state", "cross_attentions", "decoder_hidden_states"}


@pytest.mark.slow
def test_inputs_that_do_not_fit_are_refused(t5):
    gpt2 = ported_class("GPT2Model").from_config(tiny.tiny_config("gpt2"))
    with pytest.raises(ValueError, match="longer than the 64 positions"):
        gpt2(np.ones((1, 65), int))
    with pytest.raises(ValueError, match="batch dimension is missing"):
        gpt2(np.ones(5, int))
    with pytest.raises(TypeError, match="does not take"):
        gpt2(np.ones((1, 5), int), inputs_embeds=np.zeros((1, 5, 32)))
    with pytest.raises(ValueError, match="needs decoder_input_ids, or labels"):
        t5(np.ones((1, 5), int))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "mixed_bfloat16"])
def test_dtype_policies(dtype):
    folder = checkpoint("esm")
    model = tf_pipeline.TFAutoModel.from_pretrained(folder, dtype=dtype)
    compute, variables = dtype.removeprefix("mixed_"), "float32" if dtype.startswith("mixed") else dtype
    for key, slot in named_slots(model):
        fixed = model.graph.parameters[key].dtype != "compute"
        assert slot.variable.dtype == ("float32" if fixed and variables != "float64" else variables), key
    ids = np.arange(4, 14)[np.newaxis]
    result = model(ids).last_hidden_state
    assert result.dtype == compute
    expected = transformers.EsmModel.from_pretrained(folder, dtype="float32").eval()(torch.tensor(ids))
    error = np.abs(tf.cast(result, tf.float64) - expected.last_hidden_state.detach().double().numpy()).max()
    assert error < {"bfloat16": 0.2, "float16": 0.03, "float64": 1e-4}[compute]


@pytest.mark.slow
def test_fit_learns_and_freezing_by_prefix_holds():
    model = tf_pipeline.TFAutoModelForSequenceClassification.from_pretrained(checkpoint("xlnet", SEQUENCE))
    model.transformer.word_embedding.trainable = False
    model.transformer.layer[0].trainable = False
    before = {key: slot.read().copy() for key, slot in named_slots(model)}
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 90, (32, 8))
    labels = (ids[:, 0] > 47).astype(int)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = model.fit({"input_ids": ids, "labels": labels}, epochs=20, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    changed = {key for key, slot in named_slots(model) if not np.array_equal(before[key], slot.read())}
    assert not [key for key in changed if "word_embedding" in key or "transformer.layer.0." in key]
    assert any(key.startswith("transformer.layer.1.") for key in changed)
    assert "logits_proj.weight" in changed


@pytest.mark.slow
def test_dropout_is_live_while_training_only():
    dropouts = {"resid_dropout": 0.4, "embed_dropout": 0.4, "attention_dropout": 0.4}
    model = tf_pipeline.TFAutoModel.from_pretrained(checkpoint("gpt_neo", **dropouts))
    ids = np.arange(5, 15)[np.newaxis]
    calm = [model(ids).last_hidden_state.numpy() for _ in range(2)]
    live = [model(ids, training=True).last_hidden_state.numpy() for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    assert np.abs(live[0] - live[1]).max() > 0.1
    assert sum(node.op == "aten.native_dropout.default" for node in model.graph.nodes) == 7


def test_keras_file(ported, tmp_path):
    model, ids = ported[0], np.arange(5, 15)[np.newaxis]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded(ids)[0], model(ids)[0])


def test_saved_model(ported, tmp_path):
    model, ids = ported[0], tf.constant([[5, 6, 7, 8, 9]])
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    given = {"input_ids": ids, "attention_mask": tf.ones_like(ids), "token_type_ids": tf.zeros_like(ids)}
    given, name = {name: given[name] for name in model.tensor_names if name in given}, next(iter(model(ids)))
    np.testing.assert_allclose(loaded.serve(given)[name], model(ids)[0], atol=1e-6)


@pytest.mark.slow
def test_what_is_saved_is_a_torch_checkpoint(t5, tmp_path):
    t5.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", GRAPH, CONSTANTS,
    }  # fmt: skip
    loaded, report = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    original = transformers.T5ForConditionalGeneration.from_pretrained(
        checkpoint("t5", "TFAutoModelForSeq2SeqLM")
    ).state_dict()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, original[key]), key


@pytest.mark.slow
def test_tied_weights_are_one_variable(t5):
    assert t5.graph.tied
    keys = [key for key, _ in named_slots(t5)]
    assert "shared.weight" in keys
    assert not set(keys) & set(t5.graph.tied)


# ------------------------------------------------------------------------------------------------------------ generate


def test_a_model_without_a_language_head_does_not_generate(ported):
    with pytest.raises(ValueError, match="predicts no tokens"):
        ported[0].generate(np.array([[5, 6]]))


# ------------------------------------------------------------------------------------------------- without PyTorch


def _without_torch(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", WITHOUT_TORCH + code, *arguments], capture_output=True, text=True)


LOAD = """
import sys
import numpy as np
import tf_pipeline
model = getattr(tf_pipeline, sys.argv[2]).from_pretrained(sys.argv[1])
assert "torch" not in sys.modules
print(" ".join(f"{x:.6f}" for x in np.ravel(model(np.arange(5, 15)[np.newaxis])[0])[:6]))
"""


@pytest.mark.slow
def test_a_port_loads_without_torch(xlnet, tmp_path):
    xlnet.save_pretrained(tmp_path)
    done = _without_torch(LOAD, str(tmp_path), SEQUENCE)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.array(done.stdout.split()[-2:], float), np.ravel(xlnet(np.arange(5, 15)[np.newaxis]).logits), atol=2e-6
    )


@pytest.mark.slow
def test_a_remembered_graph_needs_no_torch(xlnet):
    done = _without_torch(LOAD, str(checkpoint("xlnet", SEQUENCE)), SEQUENCE)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_torch_the_error_says_how_to_port_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(tmp_path))
    done = _without_torch(LOAD, str(checkpoint("xlnet", SEQUENCE)), SEQUENCE)
    assert done.returncode == 1
    assert "tf-pipeline port CHECKPOINT FOLDER" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_constants_without_axes_are_read_again(tmp_path):
    captured = capture.capture(transformers.LlamaModel, tiny.tiny_config("llama"))
    constants = captured.constants | {"scale": np.float32(0.3)}
    graph = replace(captured.graph, constants=captured.graph.constants | {"scale": Tensor("float32", [])})
    graph.write(tmp_path, constants)
    assert Graph.read(tmp_path / GRAPH, tmp_path / CONSTANTS)[1]["scale"].shape == ()


@pytest.mark.slow
def test_a_damaged_cache_is_made_anew(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(tmp_path))
    config = tiny.tiny_config("esm")
    find.find_graph("EsmModel", config)
    (graph,) = tmp_path.glob(f"ports/*/{GRAPH}")
    graph.write_text(graph.read_text()[:500])
    find.find_graph("EsmModel", config)
    assert "what was remembered is damaged" in caplog.text
    assert Graph.read(graph, graph.with_name(CONSTANTS))[0].model_class == "EsmModel"


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(tmp_path / "file"))
    graph = find.find_graph("EsmModel", tiny.tiny_config("esm")).graph
    assert graph.model_class == "EsmModel"
    assert "is not remembered" in caplog.text


# ------------------------------------------------------------------------------------------------------------- refusals


def test_control_flow_on_values_is_refused():
    with pytest.raises(PortError, match="LongformerModel cannot be ported: its control flow depends on the values"):
        capture.capture(
            transformers.LongformerModel, tiny.tiny_config("longformer", num_hidden_layers=1, attention_window=[2])
        )


def test_flash_attention_is_refused():
    config = tiny.tiny_config("llama")
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(PortError, match="attn_implementation='flash_attention_2', whose kernels cannot be exported"):
        capture.capture(transformers.LlamaModel, config)


@pytest.mark.slow
def test_operator_without_a_rule_is_written_by_simpler_ones(monkeypatch):
    monkeypatch.delitem(RULES, "aten.layer_norm.default")
    config = tiny.tiny_config("roformer")
    captured = capture.capture(transformers.RoFormerModel, config)
    assert "aten.native_layer_norm.default" in captured.graph.operators()
    proven(captured, transformers.RoFormerModel, config)


def test_operator_without_any_rule_is_named_with_its_place(monkeypatch):
    monkeypatch.delitem(RULES, "aten.tanh.default")
    with pytest.raises(PortError, match=r"these operators have no rule:\n  aten.tanh.default: tanh .*modeling_bert.py"):
        capture.capture(transformers.BertModel, tiny.tiny_config("bert", num_hidden_layers=1))


@pytest.mark.slow
def test_what_only_training_needs_may_lack_a_rule():
    graph = capture.capture(transformers.PhimoeModel, tiny.tiny_config("phimoe")).graph  # its router draws numbers
    assert graph.notes == ["Captured without dropout: training=True computes what inference does."]


@pytest.mark.slow
def test_numbers_in_the_code_are_not_rounded_to_the_dtype_of_the_capture():
    config = tiny.tiny_config("t5gemma")
    graph = capture.capture(transformers.T5GemmaModel, config).graph
    scales = [node.args[1] for node in graph.nodes if node.op == "aten.full.default" and node.dtype == "compute"]
    assert scales.count(config.encoder.hidden_size**0.5) == 2  # of the encoder and of the decoder


def test_stochastic_depth_is_left_out_and_said():
    graph = capture.capture(transformers.BeitModel, tiny.tiny_config("beit", drop_path_rate=0.5)).graph
    assert "Stochastic depth is not ported: while training, no path is left out." in graph.notes
    assert not any("rand" in op for op in graph.operators())


@pytest.mark.slow
def test_unequal_port_is_refused_with_the_first_node_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(tmp_path / "cache"))
    wrong = Rule(lambda x, approximate="none": tf.nn.relu(x), frozenset())
    monkeypatch.setitem(RULES, "aten.gelu.default", wrong)
    with pytest.raises(
        PortError, match=r"does not compute what PyTorch does. The first that differs is gelu\w* .* in encoder.layer.0"
    ):
        port(checkpoint("roformer"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_gate_notices_a_wrong_constant():
    config = tiny.tiny_config("llama")
    captured = capture.capture(transformers.LlamaModel, config)
    (key,) = [key for key in captured.constants if key.endswith("inv_freq")][:1]
    captured.constants[key] = captured.constants[key] * np.float32(1 + 1e-6)
    with pytest.raises(PortError, match="float64"):
        proven(captured, transformers.LlamaModel, config)


def test_remote_code_is_refused_unless_trusted(tmp_path):
    folder = _with_own_code(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        tf_pipeline.TFAutoModel.from_pretrained(folder)


def test_trusted_remote_code_is_ported_and_needs_none_afterwards(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = _with_own_code(tmp_path / "original")
    model = tf_pipeline.TFAutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__name__ == "TFDoublingModel"
    ids = np.arange(5, 10)[np.newaxis]
    model.save_pretrained(tmp_path / "ported")
    loaded = tf_pipeline.TFAutoModel.from_pretrained(tmp_path / "ported")
    np.testing.assert_array_equal(loaded(ids)[0], model(ids)[0])


def _with_own_code(folder):
    """A checkpoint whose architecture `transformers` lacks, with its code beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "modeling_doubling.py").write_text(
        "import torch\n"
        "from transformers import PreTrainedConfig, PreTrainedModel\n"
        "from transformers.modeling_outputs import BaseModelOutput\n"
        "class DoublingConfig(PreTrainedConfig):\n"
        "    model_type = 'doubling'\n"
        "    vocab_size: int = 99\n"
        "    hidden_size: int = 8\n"
        "class DoublingModel(PreTrainedModel):\n"
        "    config_class = DoublingConfig\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.table = torch.nn.Embedding(config.vocab_size, config.hidden_size)\n"
        "        self.post_init()\n"
        "    def forward(self, input_ids, attention_mask=None, return_dict=True, **kwargs):\n"
        "        return BaseModelOutput(last_hidden_state=2 * self.table(input_ids))\n"
    )
    config = {
        "model_type": "doubling",
        "architectures": ["DoublingModel"],
        "vocab_size": 99,
        "hidden_size": 8,
        "auto_map": {
            "AutoConfig": "modeling_doubling.DoublingConfig",
            "AutoModel": "modeling_doubling.DoublingModel",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    from safetensors.numpy import save_file

    table = np.random.default_rng(0).normal(size=(99, 8)).astype("float32")
    save_file({"table.weight": table}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_missing_weights_and_unknown_classes(tmp_path):
    with pytest.raises(CheckpointError, match="has no weights"):
        port(copied(checkpoint("esm"), "model.safetensors"), tmp_path / "out")
    with pytest.raises(ValueError, match="There is no class NoSuchModel"):
        port(checkpoint("esm"), tmp_path / "out", model_class="NoSuchModel")
    with pytest.raises(PortError, match="names no class"):
        port(edited(checkpoint("esm"), architectures=None), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_that_transformers_lacks_is_refused():
    with pytest.raises(
        ValueError, match="does not support model_type 'fnet': transformers .* has no class of this kind"
    ):
        tf_pipeline.TFAutoModelForCausalLM.from_config(tiny.tiny_config("fnet"))


@pytest.mark.slow
def test_a_graph_of_another_head_is_not_used(xlnet, tmp_path, caplog):
    xlnet.save_pretrained(tmp_path)
    body = tf_pipeline.TFAutoModel.from_pretrained(tmp_path)
    assert type(body).__name__ == "TFXLNetModel"
    assert "holds the graph of XLNetForSequenceClassification, not of XLNetModel" in caplog.text


# --------------------------------------------------------------------------------------------------------------- usage


@pytest.mark.slow
def test_command_line(tmp_path):
    runner = CliRunner()
    done = runner.invoke(app, ["port", str(checkpoint("esm")), str(tmp_path / "out"), "--show"])
    assert done.exit_code == 0, done.output
    assert "EsmModel(input_ids: int64[batch, length]" in done.output
    assert "rotary_embeddings" in done.output
    assert isinstance(tf_pipeline.TFAutoModel.from_pretrained(tmp_path / "out"), PortedModel)
    refused = runner.invoke(app, ["port", str(tmp_path), str(tmp_path / "other")])
    assert refused.exit_code == 1
    assert not (tmp_path / "other").exists()
    assert runner.invoke(app, ["port", "x"]).exit_code == 2


@pytest.mark.slow
def test_a_model_from_a_config_starts_as_one_of_torch_does():
    config = tiny.tiny_config("xlnet")
    model_class = tiny.body_class("xlnet")
    theirs = model_class(config).state_dict()
    ours = {key: slot.read() for key, slot in named_slots(ported_class(model_class.__name__)(config))}
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        like = theirs[key].numpy()
        if like.std() == 0:  # the scale or the shift of a normalization
            np.testing.assert_array_equal(value.squeeze(), like.squeeze(), err_msg=key)
        elif like.size > 200:
            assert value.std() == pytest.approx(like.std(), rel=0.3), key
            assert abs(value.mean() - like.mean()) < 0.3 * like.std(), key


@pytest.mark.slow
def test_a_native_family_can_be_ported_too(tmp_path):
    config = tiny.tiny_config("bert")
    native, ported = tf_pipeline.TFBertModel(config), ported_class("BertModel").from_config(config)
    for (key, slot), (other, twin) in zip(
        sorted(named_slots(native)), sorted(named_slots(ported), key=lambda item: item[0]), strict=True
    ):
        assert key == other
        twin.variable.assign(slot.read().T if twin.parameter.transpose else slot.read())
    ids = np.arange(5, 25).reshape(2, 10)
    np.testing.assert_allclose(ported(ids)[0], native(ids)[0], atol=1e-5)
    for model in (native, ported):  # of one name, and each is read again as itself
        model.save(tmp_path / "model.keras")
        assert type(keras.models.load_model(tmp_path / "model.keras")) is type(model)


TEXTS = ["A lovely film.", "Not one scene of it was worth the ticket."]
PIPELINES = {
    "text-classification": (SEQUENCE, [TEXTS], {"top_k": None}),
    "token-classification": ("TFAutoModelForTokenClassification", [TEXTS], {"aggregation_strategy": "simple"}),
    "feature-extraction": ("TFAutoModel", [TEXTS], {}),
    "zero-shot-classification": (SEQUENCE, [TEXTS], {"candidate_labels": ["praise", "blame", "weather"]}),
    "fill-mask": ("TFAutoModelForMaskedLM", [["A [MASK] film.", "Not one [MASK] of [MASK]."]], {"top_k": 3}),
    "question-answering": (
        "TFAutoModelForQuestionAnswering", [], {"question": "What was lovely?", "context": " ".join(TEXTS * 2)}
    ),
}  # fmt: skip


@pytest.mark.slow
# PyTorch has no XLNet that fills masks.
@pytest.mark.parametrize(
    ("model_type", "task"),
    [("roformer" if task in ("fill-mask", "question-answering") else "xlnet", task) for task in PIPELINES],
)
def test_pipelines_equal_those_of_transformers(task, model_type):
    # On the left as XLNet's own tokenizer: its head reads the last token.
    side = "left" if model_type == "xlnet" else "right"
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS, padding_side=side)
    auto, arguments, options = PIPELINES[task]
    labels = labels_of(["entailment", "contradiction"]) if auto == SEQUENCE else {}
    folder = edited(checkpoint(model_type, auto, vocab_size=len(tokenizer)), **labels)
    tokenizer.save_pretrained(folder)
    results = tf_pipeline.pipeline(task, model=str(folder))(*arguments, **options)
    reference = partial(expected_answers, folder) if task == "question-answering" else torch_pipeline(task, folder)
    tolerance = 1e-4 if task == "feature-extraction" else 1e-5
    assert_same_answers(results, reference(*arguments, **options), tolerance)
