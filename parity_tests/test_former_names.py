"""Names of ``transformers`` 4: each is one here, or an error that says the way to do without."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tf_pipeline
from parity_tests.tiny import tiny_config
from tf_pipeline.former_names import former_names, name_table, successor
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT


@pytest.mark.parametrize("here", [True, False], ids=["here", "not here"])
def test_every_name_is_one_here_or_has_a_successor(here):
    names = [name for name, is_here in former_names().items() if is_here == here]
    assert len(names) > 150
    for name in names:
        if here:
            assert getattr(tf_pipeline, name).__name__ == name
            assert successor(name) is None and name in dir(tf_pipeline)
        else:
            with pytest.raises(AttributeError, match=f"^tf_pipeline has no {name}: .*\\.$"):
                getattr(tf_pipeline, name)
            assert name not in dir(tf_pipeline)


def test_what_a_successor_names_is_there():
    """Classes here and of ``transformers``, and options of ``generate``."""
    for name, here in former_names().items():
        sentence = successor(name) or ""
        for module, attribute in re.findall(r"(tf_pipeline|transformers)\.(\w+)(?![\w.]*\.in_graph)", sentence):
            assert hasattr({"tf_pipeline": tf_pipeline, "transformers": transformers}[module], attribute), (
                name,
                sentence,
            )
        for option in re.findall(r"generate takes (\w+)=", sentence):
            assert option == "decoder_input_ids" or hasattr(transformers.GenerationConfig(), option), name
        assert here or sentence


def test_names_of_no_library():
    for name in ("TFNonsense", "Nonsense", "nonsenseConfig"):
        with pytest.raises(AttributeError, match=f"module 'tf_pipeline' has no attribute '{name}'$"):
            getattr(tf_pipeline, name)
    with pytest.raises(AttributeError, match="set_random_seed"):
        tf_pipeline.set_seed  # noqa: B018


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TFBertForSequenceClasification", "TFBertForSequenceClassification"),
        ("TFBERTModel", "TFBertModel"),
        ("TFDistillBertModel", "TFDistilBertModel"),
        ("BertForMaskedLM", "TFBertForMaskedLM"),
        ("XLNetModel", "TFXLNetModel"),
        ("AutoModelForCausalLM", "TFAutoModelForCausalLM"),
    ],
)
def test_names_that_are_nearly_right(name, near):
    words = f"module 'tf_pipeline' has no attribute '{name}'; did you mean {near}"
    with pytest.raises(AttributeError, match=words):
        getattr(tf_pipeline, name)
    with pytest.raises(ImportError, match=words):  # Python's own words would be "cannot import name"
        exec(f"from tf_pipeline import {name}")


def test_names_that_were_not_at_the_top_of_version_4():
    from tf_pipeline import outputs

    assert tf_pipeline.TFSequenceClassifierOutput is outputs.SequenceClassifierOutput
    assert tf_pipeline.TFBaseModelOutputWithPooling is outputs.BaseModelOutputWithPooling
    assert tf_pipeline.TFGPT2DoubleHeadsModelOutput is outputs.GPT2DoubleHeadsModelOutput
    for name, words in (
        ("TFTrainer", "model.fit"),
        ("TFTrainingArguments", "create_optimizer"),
        ("TFImageClassifierOutput", "tf_pipeline.outputs"),
        ("TFBaseModelOutputWithPoolingAndCrossAttentions", "tf_pipeline.outputs"),
        ("TFGreedySearchDecoderOnlyOutput", "tf_pipeline.generation.outputs"),
    ):
        assert not hasattr(tf_pipeline, name)
        with pytest.raises(ImportError, match=f"^tf_pipeline has no {name}: .*{words}"):
            exec(f"from tf_pipeline import {name}")


def test_submodules_are_imported_by_their_names():
    code = "from tf_pipeline import environment, files; print(files.__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "tf_pipeline.files\n"


def test_configs_processors_and_tokenizers_are_those_of_transformers(tmp_path):
    assert tf_pipeline.BertConfig is transformers.BertConfig
    assert tf_pipeline.TextStreamer is transformers.TextStreamer
    assert tf_pipeline.ViTImageProcessor is transformers.ViTImageProcessor
    tokenizer = tf_pipeline.BertTokenizerFast.from_pretrained(BUNDLED_CHECKPOINT)
    assert isinstance(tokenizer, transformers.BertTokenizerFast)
    encoded = tokenizer(["A lovely film.", "Bad."], padding=True, return_tensors="tf")
    again = pickle.loads(pickle.dumps(tokenizer))(["A lovely film.", "Bad."], padding=True, return_tensors="tf")
    expected = tf_pipeline.AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)(["A lovely film.", "Bad."], padding=True)
    assert encoded["input_ids"].numpy().tolist() == again["input_ids"].numpy().tolist() == expected["input_ids"]
    tokenizer.save_pretrained(tmp_path)
    assert "BertTokenizer" in (tmp_path / "tokenizer_config.json").read_text()
    assert isinstance(transformers.AutoTokenizer.from_pretrained(tmp_path), transformers.BertTokenizerFast)


def test_listing_names_imports_no_framework():
    code = "import sys, tf_pipeline; dir(tf_pipeline); print([m for m in ('tensorflow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_on_migration_has_the_table():
    page = (Path(__file__).parent.parent / "docs" / "migration.md").read_text(encoding="utf-8")
    assert page.endswith(f"\n\n{name_table()}\n"), "run python -m tf_pipeline.former_names"


def test_former_attributes_of_models():
    model = tf_pipeline.TFGPT2LMHeadModel(tiny_config("gpt2", "TFGPT2LMHeadModel"))
    assert model.input_signature == model.default_signature()
    for name, words in (
        ("serving", r"export\(folder\)"), ("serving_output", r"export\(folder\)"), ("get_lm_head", "get_output_emb"),
        ("num_labels", r"config\.num_labels"),
        ("prune_heads", "removed"), ("eval", "training=True"), ("state_dict", "named_slots"),
    ):  # fmt: skip
        assert not hasattr(model, name) and name not in dir(model)
        with pytest.raises(AttributeError, match=f"^TFGPT2LMHeadModel has no {name}: .*{words}"):
            getattr(model, name)
    with pytest.raises(AttributeError, match="^'TFGPT2LMHeadModel' object has no attribute 'nonsense'$"):
        model.nonsense  # noqa: B018


def test_an_error_of_a_property_is_its_own():
    """``__getattr__`` would otherwise say that there is no such attribute."""

    class Broken(tf_pipeline.TFBertModel):
        @property
        def wrong(self):
            return {}.nothing

    with pytest.raises(AttributeError, match="'dict' object has no attribute 'nothing'"):
        Broken(tiny_config("bert", "TFBertModel")).wrong  # noqa: B018


@pytest.mark.slow
def test_a_model_is_a_layer_of_keras_3():
    """What the page says of functional models and of compiled generation."""
    model = tf_pipeline.TFGPT2LMHeadModel(tiny_config("gpt2", "TFGPT2LMHeadModel"))
    ids = keras.Input([None], dtype="int32")
    whole = keras.Model(ids, model(ids).logits)
    given = np.array([[5, 7, 9]], "int32")
    np.testing.assert_allclose(whole(given), model(given).logits, atol=1e-6)
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    wrapped = tf.function(lambda x: model.generate(x, **options))
    np.testing.assert_array_equal(wrapped(tf.constant(given)), model.generate(given, **options))
