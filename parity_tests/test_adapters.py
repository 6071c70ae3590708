"""LoRA adapters: equal to peft's in outputs and gradients, stored in its files, switched, merged, refused."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import tf_pipeline
from parity_tests import port_helpers
from parity_tests.checkpoint_helpers import checkpoint, example_inputs, new_folder, ours, twin, weights
from parity_tests.families import MODELS
from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline import adapters
from tf_pipeline.adapters import AdapterError
from tf_pipeline.checkpoint import named_leaves
from tf_pipeline.reference.loading import load_torch_model
from tf_pipeline.reference.precision import lifted_upcasts
from tf_pipeline.reference.rotary import widen_tables

peft = pytest.importorskip("peft")

CLASSIFIER = "TFBertForSequenceClassification"
WRITER = "TFGPT2LMHeadModel"


def head_for(family: str) -> str:
    """A class of a family that has as many kinds of modules as there are."""
    ends = ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel")
    return next(name for end in ends for name in MODELS[family] if name.endswith(end))


FAMILIES = exhaustive(MODELS, {"bert", "gpt2"})


def torch_adapter(torch_model, folder, targets, **options):
    """PyTorch's model with an adapter of random values, which is written to a folder."""
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, init_lora_weights=False, **options)
    model = peft.get_peft_model(torch_model, config).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model.save_pretrained(folder, save_embedding_layers=False)
    return model


def modules(model) -> list[str]:
    """Everything that can be updated at once: tables that are one with others cannot."""
    every = model.adapter_targets()

    def fits(name: str) -> bool:
        try:
            adapters._check_targets(model, [name], every, [])
        except AdapterError:
            return False
        return True

    leaves = {id(every[name].leaf): name for name in reversed(every) if fits(name)}
    return list(leaves.values())


def assert_equal_to_peft(model, torch_model, inputs, names=None):
    """Outputs and gradients of every A and B, to 1e-10."""
    folder = new_folder()
    names = names or modules(model)
    theirs = torch_adapter(torch_model, folder, names)
    model.load_adapter(folder, is_trainable=True)
    field = "logits" if "logits" in model(inputs) else "last_hidden_state"
    widen_tables(theirs)
    with lifted_upcasts(theirs):
        expected = theirs(**{name: torch.tensor(value) for name, value in inputs.items()})[field]
        cotangent = np.random.default_rng(2).normal(size=expected.shape)
        (expected * torch.tensor(cotangent)).sum().backward()
    with tf.GradientTape() as tape:
        outputs = model(inputs)[field]
        loss = tf.reduce_sum(outputs * cotangent)
    expected = expected.detach().numpy()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()))
    trained = model.trainable_variables
    gradients = dict(zip([id(v) for v in trained], tape.gradient(loss, [v.value for v in trained]), strict=True))
    assert len(trained) == 2 * len(names)
    theirs = {key.replace(".default", ""): p.grad for key, p in theirs.named_parameters() if p.requires_grad}
    for name, target in model.adapter_targets().items():
        for update in (target.leaf.adapters or {}).values():
            if update.target != name:
                continue
            parts = ("lora_embedding_A", "lora_embedding_B") if update.is_table else ("lora_A.weight", "lora_B.weight")
            for variable, part in zip((update.a, update.b), parts, strict=True):
                expected = theirs[f"base_model.model.{name}.{part}"]
                mine = gradients[id(variable)]
                if expected is None:  # PyTorch does not run this module
                    assert mine is None or not np.any(mine), name
                    continue
                scale = max(1, float(expected.abs().max()))
                np.testing.assert_allclose(np.transpose(mine), expected, rtol=0, atol=1e-10 * scale, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_equal_to_peft(family):
    name = head_for(family)
    folder = checkpoint(name)
    model = ours(name, folder, dtype="float64")
    assert_equal_to_peft(model, twin(name, folder, dtype="float64"), example_inputs(model))


@pytest.mark.slow
@pytest.mark.parametrize("model_type, auto", [
    ("xlnet", "TFAutoModelForSequenceClassification"), ("opt", "TFAutoModelForCausalLM"),
    ("openai-gpt", "TFAutoModelForCausalLM"), ("rembert", "TFAutoModelForMaskedLM"),
])  # fmt: skip
def test_ported_models_are_equal_to_peft(model_type, auto):
    port_helpers.shared_cache()
    folder = port_helpers.checkpoint(model_type, auto)
    model = getattr(tf_pipeline, auto).from_pretrained(folder, dtype="float64")
    import transformers

    torch_class = getattr(transformers, type(model).__name__.removeprefix("TF"))
    torch_model = load_torch_model(torch_class, folder, model.config, torch.float32).double()
    assert_equal_to_peft(model, torch_model, tiny_inputs(model))


@pytest.mark.parametrize("family", exhaustive(MODELS, {"gpt2"}))
def test_all_linear_and_usual_modules_are_those_of_peft(family):
    for name in {head_for(family), *(n for n in MODELS[family] if n.endswith("ForSequenceClassification"))}:
        folder = checkpoint(name)
        task = "SEQ_CLS" if name.endswith("ForSequenceClassification") else None
        for asked in (adapters.ALL_LINEAR, None):
            model = ours(name, folder)
            config = peft.LoraConfig(target_modules=asked, task_type=task)
            try:
                theirs = peft.get_peft_model(twin(name, folder), config).base_model.model
            except (ValueError, TypeError):
                continue  # peft has no usual modules for the type, or would update and copy DistilBERT's pre_classifier
            chosen = {n for n, m in theirs.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
            model.enable_lora(target_modules=asked, task_type=task)
            assert model._adapters.by_name["default"].ranks.keys() == chosen, (name, asked)


# ------------------------------------------------------------------------------------------------------- one's own


def trained(name: str = CLASSIFIER, dtype: str = "float64", steps: int = 2, **options):
    """A model with an adapter that was trained for a while, and inputs."""
    model = ours(name, checkpoint(name), dtype=dtype)
    model.enable_lora(4, **{"alpha": 6, "init_lora_weights": False} | options)
    inputs = example_inputs(model)
    words = inputs.get("decoder_input_ids", inputs["input_ids"])
    labels = {"labels": words if model.can_generate() else np.array([1, 3])}
    model.compile(keras.optimizers.Adam(0.05), run_eagerly=True)
    for _ in range(steps):
        model.train_on_batch(inputs | labels)
    return model, inputs


def peft_of(name: str, folder):
    """Peft's model of one of our checkpoints with the adapter in a folder."""
    return peft.PeftModel.from_pretrained(twin(name, checkpoint(name), dtype="float64"), folder).double().eval()


def logits(model, inputs) -> np.ndarray:
    if isinstance(model, torch.nn.Module):
        widen_tables(model)
        with torch.no_grad(), lifted_upcasts(model):
            return model(**{name: torch.tensor(value) for name, value in inputs.items()}).logits.numpy()
    return model(inputs).logits.numpy()


UPDATES = [
    (CLASSIFIER, {"target_modules": ["query", "dense"], "rank_pattern": {"layer.1.attention.self.query": 2}}),
    (CLASSIFIER, {"target_modules": r".*\.(word_embeddings|value)", "alpha_pattern": {"value": 2.5}}),
    ("TFDistilBertForSequenceClassification", {"use_rslora": True}),
    (WRITER, {"target_modules": ["c_attn", "c_proj", "c_fc", "lm_head"]}),
    ("TFLlamaForCausalLM", {"exclude_modules": ["layers.0.self_attn.q_proj"]}),
    ("TFT5ForConditionalGeneration", {"modules_to_save": ["final_layer_norm"]}),
]


@pytest.mark.parametrize("name, options", thinned(UPDATES, 3))
def test_peft_loads_what_is_saved(name, options, tmp_path):
    model, inputs = trained(name, **options)
    model.save_adapter(tmp_path)
    expected = logits(peft_of(name, tmp_path), inputs)
    np.testing.assert_allclose(logits(model, inputs), expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()))
    base = ours(name, checkpoint(name), dtype="float64")
    assert np.abs(logits(base, inputs) - expected).max() > 1e-3
    base.load_adapter(tmp_path)
    np.testing.assert_array_equal(logits(base, inputs), logits(model, inputs))
    assert base.trainable_variables == []
    base.save_adapter(tmp_path / "again")
    first, second = (path / adapters.WEIGHTS for path in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_only_the_adapter_and_the_head_are_trained():
    before = weights(ours(CLASSIFIER, checkpoint(CLASSIFIER), dtype="float64"))
    model, _ = trained()
    model.print_trainable_parameters()
    changed = {key for key, slot in weights(model).items() if not np.array_equal(slot, before[key])}
    queries = {f"bert.encoder.layer.{i}.attention.self.{part}.weight" for i in range(3) for part in ("query", "value")}
    assert changed == queries | {"classifier.weight", "classifier.bias"}  # updates are merged where weights are read
    model.disable_adapters()
    assert all(np.array_equal(value, before[key]) for key, value in weights(model).items())
    assert model.trainable_variables == []


def test_parameters_are_counted_as_peft_does(tmp_path, capsys):
    model, _ = trained(steps=0)
    model.save_adapter(tmp_path)
    model.print_trainable_parameters()
    theirs = peft.get_peft_model(twin(CLASSIFIER, checkpoint(CLASSIFIER)), peft.LoraConfig(r=4, task_type="SEQ_CLS"))
    theirs.print_trainable_parameters()
    mine, expected = capsys.readouterr().out.splitlines()[-2:]
    assert mine == expected


def test_initial_values_are_those_of_peft():
    model = tiny_model("TFBertForMaskedLM", hidden_size=400, num_attention_heads=4)
    inputs = tiny_inputs(model)
    before = model(inputs).logits
    model.enable_lora(50, ["query", "word_embeddings"])
    np.testing.assert_array_equal(model(inputs).logits, before)
    update = model.bert.encoder.layer[0].attention.self_.query.adapters["default"]
    a = update.a.numpy()
    assert abs(np.abs(a).max() - 1 / 20) < 1e-3 and abs(a.std() - 1 / 20 / np.sqrt(3)) < 1e-3
    assert not update.b.numpy().any()
    table = model.bert.embeddings.word_embeddings.adapters["default"]
    assert not table.a.numpy().any() and abs(table.b.numpy().std() - 1) < 0.05
    model.enable_lora(50, ["query"], init_lora_weights="gaussian", adapter_name="second")
    drawn = model.bert.encoder.layer[0].attention.self_.query.adapters["second"].a.numpy()
    assert abs(drawn.std() - 1 / 50) < 1e-3


def test_dropout_of_inputs_while_training_alone():
    model = tiny_model(CLASSIFIER)
    model.enable_lora(2, ["query"], dropout=0.5, init_lora_weights=False)
    inputs = tiny_inputs(model)
    still = model(inputs).logits
    np.testing.assert_array_equal(model(inputs, training=False).logits, still)
    first, second = (model(inputs, training=True).logits.numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-4
    query = model.bert.encoder.layer[0].attention.self_.query
    x = np.ones([2000, query.in_features], "float32")
    update = query.adapters["default"]
    mean = update(x, training=True).numpy().mean(0)
    np.testing.assert_allclose(mean, update(x).numpy()[0], atol=0.2 * np.abs(update(x)).max())


def test_switching(tmp_path):
    model, inputs = trained()
    base = logits(ours(CLASSIFIER, checkpoint(CLASSIFIER), dtype="float64"), inputs)
    first = logits(model, inputs)
    model.enable_lora(2, ["key"], init_lora_weights=False, adapter_name="second")
    second = logits(model, inputs)
    assert model.active_adapters() == ["second"] and np.abs(second - first).max() > 1e-3
    model.set_adapter("default")
    np.testing.assert_array_equal(logits(model, inputs), first)
    with model.disable_adapter():
        assert model.active_adapters() == []
        np.testing.assert_array_equal(logits(model, inputs), base)
        with model.disable_adapter():
            pass
        assert model.active_adapters() == []
    np.testing.assert_array_equal(logits(model, inputs), first)
    with pytest.raises(AdapterError, match="default, second have modules of their own"):
        model.set_adapter(["default", "second"])
    model.delete_adapter("default")
    assert model.active_adapters() == ["second"]
    np.testing.assert_array_equal(logits(model, inputs), second)
    assert model.unload() is model
    np.testing.assert_array_equal(logits(model, inputs), base)
    assert len(model.trainable_variables) == len(list(weights(model)))
    assert not [layer for layer in model._flatten_layers() if layer.name == "lora"]


def test_a_keras_file_knows_whose_parameters_are_whose(tmp_path):
    """Whatever adapters there were before."""
    model, inputs = trained()
    model.enable_lora(2, ["key"], adapter_name="second")
    model.delete_adapter("second")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(loaded, inputs), logits(model, inputs))
    with model.disable_adapter(), loaded.disable_adapter():
        np.testing.assert_array_equal(logits(loaded, inputs), logits(model, inputs))


def test_several_at_once_add_up():
    model = tiny_model("TFGPT2LMHeadModel", dtype="float64")
    inputs, name = tiny_inputs(model), "transformer.h.0.attn.c_attn"
    for adapter in ("a", "b"):
        model.enable_lora(2, ["c_attn"], init_lora_weights=False, adapter_name=adapter)
    model.set_adapter(["a", "b"])
    leaf = model.adapter_targets()[name].leaf
    together = logits(model, inputs)
    delta = sum(update.delta() for update in leaf.adapters.values())
    model.unload()
    leaf.kernel.assign(leaf.kernel.numpy() + delta)
    np.testing.assert_allclose(logits(model, inputs), together, rtol=0, atol=1e-12)


def test_merging():
    model, inputs = trained(target_modules=["query", "word_embeddings"])
    expected = logits(model, inputs)
    kernel = model.bert.encoder.layer[0].attention.self_.query.kernel
    before = kernel.numpy()
    model.merge_adapter()
    assert np.abs(kernel.numpy() - before).max() > 1e-3
    np.testing.assert_allclose(logits(model, inputs), expected, rtol=0, atol=1e-12)
    model.unmerge_adapter()
    np.testing.assert_allclose(kernel.numpy(), before, rtol=0, atol=1e-14)
    np.testing.assert_allclose(logits(model, inputs), expected, rtol=0, atol=1e-12)
    model.merge_adapter()
    assert model.merge_and_unload() is model
    np.testing.assert_allclose(logits(model, inputs), expected, rtol=0, atol=1e-12)
    assert model.adapter_config() is None and len(model.trainable_variables) == len(weights(model))


def test_save_pretrained_merges(tmp_path):
    model, inputs = trained(WRITER)
    model.save_pretrained(tmp_path)
    expected = logits(model, inputs)
    merged = twin(WRITER, tmp_path, dtype="float64").eval()
    np.testing.assert_allclose(logits(merged, inputs), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("target", exhaustive(["wte", "lm_head"], ["lm_head"]))
def test_tied_weights_are_not_merged(target, tmp_path):
    model, _ = trained(WRITER, target_modules=[target])
    for refused in (model.merge_adapter, lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(AdapterError, match=f"The update of .*{target} cannot be"):
            refused()
    assert not list(tmp_path.iterdir())


def test_graphs_are_made_again():
    pipe = tf_pipeline.pipeline("sentiment-analysis")
    model, text = pipe.model, "It was a film."
    before = pipe(text)[0]["score"]
    model.enable_lora(2, adapters.ALL_LINEAR, init_lora_weights=False)
    assert abs(pipe(text)[0]["score"] - before) > 1e-4
    assert pipe.trace_count == 1
    model.disable_adapters()
    assert pipe(text)[0]["score"] == pytest.approx(before)


@pytest.mark.slow
def test_generation_follows_the_adapters():
    model, inputs = trained(WRITER, "float32", steps=0)
    ids = inputs["input_ids"][1:]
    peft_ids = {}
    for name in ("default", "second"):
        if name == "second":
            model.enable_lora(3, ["c_attn"], init_lora_weights=False, adapter_name=name)
        written = model.generate(ids, max_new_tokens=8, do_sample=False).numpy()
        folder = new_folder()
        model.save_adapter(folder)
        theirs = peft.PeftModel.from_pretrained(twin(WRITER, checkpoint(WRITER)), folder).eval()
        peft_ids[name] = theirs.generate(input_ids=torch.tensor(ids), max_new_tokens=8, do_sample=False).numpy()
        np.testing.assert_array_equal(written, peft_ids[name])
    assert not np.array_equal(peft_ids["default"], peft_ids["second"])
    model.set_adapter("default")
    np.testing.assert_array_equal(model.generate(ids, max_new_tokens=8, do_sample=False), peft_ids["default"])


@pytest.mark.slow
def test_keras_files_and_exports_keep_adapters(tmp_path):
    model, inputs = trained(dtype="float32", dropout=0.1)
    model.enable_lora(2, ["key"], init_lora_weights=False, adapter_name="second")
    model.set_adapter("default")
    expected = logits(model, inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(logits(loaded, inputs), expected, rtol=1e-5, atol=3e-6)
    assert [v.path for v in loaded.trainable_variables] == [v.path for v in model.trainable_variables]
    for each in (model, loaded):
        each.set_adapter("second")
    np.testing.assert_allclose(logits(loaded, inputs), logits(model, inputs), rtol=1e-5, atol=3e-6)
    model.set_adapter("default")
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    values = {name: tf.constant(inputs[name], tf.int32) for name in ("input_ids", "attention_mask")}
    values["token_type_ids"] = tf.zeros_like(values["input_ids"])
    np.testing.assert_allclose(served.serve(values)["logits"], expected, rtol=1e-5, atol=3e-6)


def test_fit_goes_on_from_a_keras_file(tmp_path):
    model = tiny_model(CLASSIFIER)
    model.enable_lora(2, ["query"], init_lora_weights=False)
    batch = tiny_inputs(model) | tiny_labels(model)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(batch, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.train_on_batch(batch) == pytest.approx(model.train_on_batch(batch), rel=1e-5)


@pytest.mark.parametrize("mode", exhaustive(["int8", "int4"], ["int8"]))
def test_adapters_of_quantized_layers(mode, tmp_path):
    model = tiny_model(CLASSIFIER)
    inputs = tiny_inputs(model)
    model.quantize(mode, filters="query|key|value|dense")
    model.enable_lora(2, ["query"], init_lora_weights=False)
    exact = tiny_model(CLASSIFIER)
    model.save_adapter(tmp_path)
    exact.load_adapter(tmp_path)
    with_adapter = logits(model, inputs)
    assert np.abs(with_adapter - logits(exact, inputs)).max() < (0.1 if mode == "int8" else 1.5)
    model.disable_adapters()
    assert np.abs(with_adapter - logits(model, inputs)).max() > 1e-3
    model.enable_adapters()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = model.trainable_variables[0].numpy()
    model.train_on_batch(inputs | tiny_labels(model))
    assert np.abs(model.trainable_variables[0].numpy() - before).max() > 0
    with pytest.raises(AdapterError, match="its weight is quantized"):
        model.merge_adapter()


@pytest.mark.parametrize("dtype", thinned(["bfloat16", "float16", "mixed_bfloat16"], 3))
def test_half_precision_has_wide_adapters(dtype):
    model = tiny_model(CLASSIFIER, dtype=dtype)
    model.enable_lora(2, ["query"], init_lora_weights=False)
    assert {v.dtype for v in model.trainable_variables if "lora" in v.path} == {"float32"}
    assert model(tiny_inputs(model)).logits.dtype == model.compute_dtype


def test_names_of_peft_are_taken():
    model = tiny_model(CLASSIFIER)
    model.enable_lora(r=3, lora_alpha=5, lora_dropout=0.25, target_modules=["query"])
    config = model.adapter_config()["by_name"]["default"]["config"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (3, 5, 0.25)
    with pytest.raises(TypeError, match="enable_lora takes no argument 'bias'"):
        tiny_model(CLASSIFIER).enable_lora(r=3, bias="none")


def test_a_quantized_head_is_not_trained_and_the_message_says_how_to_leave_it_out(tmp_path):
    model = tiny_model(CLASSIFIER)
    model.quantize("int8")
    with pytest.raises(AdapterError, match=r"filters='\^\(\?!\.\*\(classifier\)\)'"):
        model.enable_lora(2, ["query"])
    model = tiny_model(CLASSIFIER)
    model.quantize("int8", filters="^(?!.*classifier)")
    modes = {name: leaf.quantization_mode for name, leaf in named_leaves(model) if hasattr(leaf, "quantization_mode")}
    assert modes["classifier"] is None and modes["bert.encoder.layer.0.attention.self.query"] == "int8"
    plain = model(tiny_inputs(model)).logits
    model.enable_lora(2, ["query"], init_lora_weights=False)
    expected = model(tiny_inputs(model)).logits
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not np.array_equal(plain, expected)
    np.testing.assert_array_equal(loaded(tiny_inputs(model)).logits, expected)


@pytest.mark.parametrize("options, message", [
    ({"target_modules": ["query", "vaule"]}, r"\['vaule'\] fits no module of TFBertForSequenceClassification"),
    ({"target_modules": ["nothing"]}, "fits no module of TFBertForSequenceClassification; ends of names"),
    ({"target_modules": ["LayerNorm"]}, "only linear layers, GPT-2's Conv1D and tables"),
    ({"modules_to_save": ["nothing"]}, "no module 'nothing'"),
    ({"rank": 0}, "rank is 0"),
    ({"dropout": 1.0}, "dropout is 1.0, but has to be from 0"),
    ({"alpha": "8"}, "alpha is '8', but has to be a finite number"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not implemented"),
    ({"task_type": "SEQUENCE"}, "task_type is 'SEQUENCE'"),
    ({"adapter_name": "a.b"}, "is no name for an adapter"),
    ({"target_modules": ["dense"], "modules_to_save": ["attention"], "exclude_modules": "bert.pooler.*"}, None),
])  # fmt: skip
def test_what_cannot_be_enabled(options, message):
    model = tiny_model(CLASSIFIER)
    if message is None:
        model.enable_lora(**options)
        names = model._adapters.by_name["default"].ranks
        assert set(names) == {f"bert.encoder.layer.0.{part}.dense" for part in ("intermediate", "output")}
        return
    with pytest.raises(ValueError, match=message):
        model.enable_lora(**options)
    assert model.adapter_config() is None and len(model.trainable_variables) == len(weights(model))


@pytest.mark.parametrize("change, message", [
    ({"peft_type": "LOHA"}, "peft_type='LOHA' is not implemented"),
    ({"use_dora": True}, "use_dora=True is not implemented"),
    ({"bias": "all"}, "bias='all' is not implemented"),
    ({"lora_alpha": "much"}, "is no config of an adapter"),
])  # fmt: skip
def test_adapters_that_are_not_loaded(change, message, tmp_path):
    model, _ = trained(steps=0)
    model.save_adapter(tmp_path)
    path = tmp_path / adapters.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AdapterError, match=message):
        ours(CLASSIFIER, checkpoint(CLASSIFIER)).load_adapter(tmp_path)


def test_adapters_that_do_not_fit(tmp_path):
    model, _ = trained(steps=0)
    model.save_adapter(tmp_path)
    other = tiny_model(WRITER)
    with pytest.raises(AdapterError, match="has no bert.encoder"):
        other.load_adapter(tmp_path)
    with pytest.raises(AdapterError, match=r"lora_A: adapter \[4, 32\], model \[4, 16\]"):
        tiny_model(CLASSIFIER, hidden_size=16, num_hidden_layers=3).load_adapter(tmp_path)
    with pytest.raises(AdapterError, match="an adapter 'default' already"):
        model.load_adapter(tmp_path)
    with pytest.raises(AdapterError, match="no adapter 'x'; there are: default"):
        model.set_adapter("x")
    with pytest.raises(AdapterError, match="The model has no adapter"):
        other.merge_adapter()
    (tmp_path / adapters.WEIGHTS).write_bytes(b"cut")
    with pytest.raises(AdapterError, match="cut off or corrupt"):
        ours(CLASSIFIER, checkpoint(CLASSIFIER)).load_adapter(tmp_path)
    (tmp_path / adapters.WEIGHTS).unlink()
    with pytest.raises(AdapterError, match="safe_serialization"):
        ours(CLASSIFIER, checkpoint(CLASSIFIER)).load_adapter(tmp_path)


def test_one_table_for_two_is_refused():
    model = tiny_model("TFT5ForConditionalGeneration")
    with pytest.raises(AdapterError, match="it is one table with another"):
        model.enable_lora(target_modules=["shared"])
    with pytest.raises(AdapterError, match="in its own way"):
        tiny_model("TFBartForConditionalGeneration").enable_lora(target_modules=["embed_positions"])
    with pytest.raises(AdapterError, match="tied to another weight"):
        model.enable_lora(modules_to_save=["lm_head"])


@pytest.mark.slow
def test_ported_models_are_trained_switched_and_saved(tmp_path):
    port_helpers.shared_cache()
    folder = port_helpers.checkpoint("opt", "TFAutoModelForCausalLM")
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(folder)
    inputs = tiny_inputs(model)
    before = logits(model, inputs)
    model.enable_lora(2, dropout=0.1, init_lora_weights=False)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(inputs | {"labels": inputs["input_ids"]}, verbose=0)
    expected = logits(model, inputs)
    assert np.abs(expected - before).max() > 1e-3
    written = model.generate(inputs["input_ids"], max_new_tokens=5, do_sample=False).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(logits(loaded, inputs), expected, rtol=1e-5, atol=3e-6)
    model.save_pretrained(tmp_path / "merged")
    merged = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(logits(merged, inputs), expected, rtol=1e-4, atol=3e-5)
    np.testing.assert_array_equal(merged.generate(inputs["input_ids"], max_new_tokens=5, do_sample=False), written)
    model.disable_adapters()
    np.testing.assert_allclose(logits(model, inputs), before, rtol=1e-5, atol=3e-6)
