"""Word embeddings: reached, replaced, and given more or fewer rows, as PyTorch's model of the saved folder has them."""

import keras
import numpy as np
import pytest
import torch
import transformers

import tf_pipeline
from parity_tests.tiers import exhaustive
from parity_tests.tiny import tiny_config
from tf_pipeline.checkpoint import named_slots
from tf_pipeline.layers import VocabularyProjector

# One class of each way to hold a vocabulary.
KINDS = {
    "TFBertForMaskedLM": "bert",
    "TFDebertaV2ForMaskedLM": "deberta-v2",
    "TFElectraForMaskedLM": "electra",
    "TFModernBertForMaskedLM": "modernbert",
    "TFGPT2LMHeadModel": "gpt2",
    "TFGPT2DoubleHeadsModel": "gpt2",
    "TFLlamaForCausalLM": "llama",
    "TFBartForConditionalGeneration": "bart",
    "TFMarianMTModel": "marian",
    "TFT5ForConditionalGeneration": "t5",
}
QUICK = ("TFBertForMaskedLM", "TFGPT2LMHeadModel", "TFMarianMTModel")
OLD = 99


def model_of(class_name: str, dtype=None, **changes):
    """A random model of ``OLD`` tokens."""
    keras.utils.set_random_seed(1)
    changes |= {"vocab_size": OLD, "initializer_range": 0.2, "num_hidden_layers": 1}
    config = tiny_config(KINDS[class_name], class_name, **changes)
    return getattr(tf_pipeline, class_name)(config, dtype=dtype)


def torch_scores(folder, ids, names):
    """Logits of PyTorch's model of a folder that ours saved."""
    config = transformers.AutoConfig.from_pretrained(folder)
    theirs, seen = getattr(transformers, config.architectures[0]).from_pretrained(folder, output_loading_info=True)
    assert not any(seen.values()), seen
    return theirs.eval()(**{name: torch.tensor(ids) for name in names}).logits.detach().numpy()


def scores(model, ids):
    """Our logits."""
    return model(**dict.fromkeys(model.dummy_inputs, ids)).logits.numpy()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("class_name", exhaustive(KINDS, QUICK))
def test_resized_is_what_pytorch_loads(class_name, tied, tmp_path):
    model = model_of(class_name, tie_word_embeddings=tied)
    before = {key: slot.read() for key, slot in named_slots(model)}
    known = np.array([[5, 17, 98, 3]])
    old_scores = scores(model, known)
    layer = model.resize_token_embeddings(OLD + 3, pad_to_multiple_of=8)
    assert layer is model.get_input_embeddings() and layer.input_dim == model.config.vocab_size == 104
    np.testing.assert_allclose(scores(model, known)[..., :OLD], old_scores, rtol=0, atol=1e-5)
    for key, slot in named_slots(model):
        np.testing.assert_array_equal(slot.read()[tuple(map(slice, before[key].shape))], before[key], err_msg=key)
    model.save_pretrained(tmp_path)
    new = np.array([[101, 17, 99, 103]])
    expected = torch_scores(tmp_path, new, model.dummy_inputs)
    assert expected.shape[-1] == 104
    np.testing.assert_allclose(scores(model, new), expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("class_name", ["TFBertForMaskedLM", "TFMarianMTModel"])
def test_fewer_tokens(class_name, tmp_path):
    model = model_of(class_name)
    kept = model.get_input_embeddings().embeddings.numpy()[:50]
    model.resize_token_embeddings(50)
    np.testing.assert_array_equal(model.get_input_embeddings().embeddings.numpy(), kept)
    model.save_pretrained(tmp_path)
    ids = np.array([[49, 3, 7]])
    expected = torch_scores(tmp_path, ids, model.dummy_inputs)
    np.testing.assert_allclose(scores(model, ids), expected, rtol=0, atol=1e-5 * abs(expected).max())
    with pytest.raises(ValueError, match="50"):
        scores(model, np.array([[50]]))


def test_new_rows_lie_around_the_mean_of_the_old():
    """Their covariance is a billionth of that of the old rows, as in PyTorch."""
    model = model_of("TFBertForMaskedLM", dtype="float64")
    old = model.get_input_embeddings().embeddings.numpy() + np.linspace(0, 3, model.config.hidden_size)
    model.set_input_embeddings(old)
    model.resize_token_embeddings(OLD + 3000)
    new = (model.get_input_embeddings().embeddings.numpy()[OLD:] - old.mean(0)) / np.sqrt(1e-9)
    covariance, expected = np.cov(new.T, bias=True), np.cov(old.T, bias=True)
    assert abs(covariance - expected).max() < 0.15 * expected.max()
    assert covariance.trace() == pytest.approx(expected.trace(), rel=0.1)


def test_new_rows_by_the_initializer():
    model = model_of("TFBertForMaskedLM")
    model.resize_token_embeddings(OLD + 200, mean_resizing=False)
    assert model.get_input_embeddings().embeddings.numpy()[OLD:].std() == pytest.approx(0.2, rel=0.1)
    assert not dict(named_slots(model))["cls.predictions.bias"].read()[OLD:].any()


@pytest.mark.parametrize("class_name", exhaustive(KINDS, QUICK))
def test_output_embeddings(class_name):
    """The layer whose weight a change of shows in the scores."""
    for tied in (True, False):
        model = model_of(class_name, tie_word_embeddings=tied)
        layer = model.get_output_embeddings()
        ids = np.array([[5, 17, 97, 3]])
        before = scores(model, ids)
        table = layer.kernel if isinstance(layer, VocabularyProjector) else layer.embeddings
        table.assign(np.concatenate([table.numpy()[:-1], 2 * table.numpy()[-1:]]))
        assert abs(scores(model, ids) - before)[..., -1].max() > 0.1, tied


def test_bodies_have_no_output_embeddings():
    assert tf_pipeline.TFBertModel(tiny_config("bert", "TFBertModel")).get_output_embeddings() is None


@pytest.mark.slow
def test_a_resized_model_learns_and_generates(tmp_path):
    """Compiled functions of before are let go; the optimizer is new."""
    model = model_of("TFGPT2LMHeadModel")
    ids = np.array([[5, 17, 98, 3]])
    model.compile("sgd")
    model.fit({"input_ids": ids, "labels": ids}, verbose=0)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    model.generate(ids, **options)
    model.resize_token_embeddings(OLD + 1)
    with pytest.raises(ValueError, match="compile"):
        model.fit({"input_ids": ids, "labels": ids}, verbose=0)
    model.compile("sgd")
    new = np.array([[5, 99, 98, 3]])
    model.fit({"input_ids": new, "labels": new}, verbose=0)
    model.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    expected = theirs.generate(torch.tensor(new), attention_mask=torch.ones(1, 4), **options)
    np.testing.assert_array_equal(model.generate(new, **options), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(scores(loaded, new), scores(model, new), atol=1e-6)


def test_embeddings_given():
    model = model_of("TFBertForMaskedLM")
    table = np.random.default_rng(0).normal(size=(120, model.config.hidden_size)).astype("float32")
    model.set_input_embeddings(table)
    assert model.config.vocab_size == 120
    np.testing.assert_array_equal(model.get_input_embeddings().embeddings.numpy(), table)
    with pytest.raises(ValueError, match=r"\[120, 3\]"):
        model.set_input_embeddings(table[:, :3])


def test_a_number_that_no_vocabulary_has():
    model = model_of("TFBertForMaskedLM")
    for wrong in (0, -3, 2.5, "10"):
        with pytest.raises(ValueError, match="new_num_tokens"):
            model.resize_token_embeddings(wrong)
    with pytest.raises(ValueError, match="pad_to_multiple_of"):
        model.resize_token_embeddings(10, pad_to_multiple_of=0)
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    assert model.config.vocab_size == OLD


def test_tables_with_lora_are_refused(tmp_path):
    model = model_of("TFBertForMaskedLM")
    model.get_input_embeddings().enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        model.resize_token_embeddings(OLD + 1)
    assert model.config.vocab_size == model.get_input_embeddings().input_dim == OLD
    model.save_pretrained(tmp_path)
    merged = tf_pipeline.TFBertForMaskedLM.from_pretrained(tmp_path)
    assert merged.resize_token_embeddings(OLD + 1).input_dim == OLD + 1


def test_tied_models_can_be_quantized_before_their_first_call():
    """Keras refuses layers that are not built, and a tied projector has no variable to build."""
    model = model_of("TFBertForMaskedLM")
    assert model.cls.predictions.decoder.built
    assert all(layer.built for layer in model._flatten_layers())


def test_the_number_of_parameters():
    model = model_of("TFBertForMaskedLM")
    theirs = transformers.BertForMaskedLM(model.config)
    assert model.num_parameters() == theirs.num_parameters()
    assert model.num_parameters(exclude_embeddings=True) == theirs.num_parameters(exclude_embeddings=True)
    model.bert.embeddings.trainable = False
    for parameter in theirs.bert.embeddings.parameters():
        parameter.requires_grad = False
    assert model.num_parameters(only_trainable=True) == theirs.num_parameters(only_trainable=True)
