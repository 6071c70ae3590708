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
from parity_tests.tiers import exhaustive
from tf_pipeline import adapters
from tf_pipeline.adapters import AdapterError
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


FAMILIES = exhaustive(MODELS, {"bert", "gpt2", "t5", "deberta-v2"})


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
    """Everything that can be updated: tables that are one with others, and what ``whole`` trains, cannot."""
    every = adapters.adaptable(model)

    def fits(name: str) -> bool:
        try:
            adapters._check_targets(model, [name], every, [])
        except AdapterError:
            return False
        return True

    return [name for name in every if fits(name)]


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
    for name, target in adapters.adaptable(model).items():
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


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_and_usual_modules_are_those_of_peft(family):
    for name in {head_for(family), *(n for n in MODELS[family] if n.endswith("ForSequenceClassification"))}:
        folder = checkpoint(name)
        task = "SEQ_CLS" if name.endswith("ForSequenceClassification") else None
        for asked in (adapters.ALL_LINEAR, None):
            model = ours(name, folder)
            config = peft.LoraConfig(target_modules=asked, task_type=task)
            try:
                theirs = peft.get_peft_model(twin(name, folder), config).base_model.model
            except ValueError:
                continue  # peft has no usual modules for the type
            chosen = {n for n, m in theirs.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
            model.enable_lora(target_modules=asked, task_type=task)
            if name == "TFDistilBertForSequenceClassification":  # peft updates and copies it both
                chosen -= {"pre_classifier"}
            assert model._adapters.by_name["default"].ranks.keys() == chosen, (name, asked)
