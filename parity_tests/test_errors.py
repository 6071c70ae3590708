"""What goes wrong says so: calls, configs and files that are not right, and the masks at the edge of right."""

import json
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

import tf_pipeline
from benchmarks import tiny
from parity_tests.checkpoint_helpers import (
    WEIGHTS,
    assert_same_outputs,
    checkpoint,
    copied,
    edited,
    new_folder,
    ours,
    twin,
)
from parity_tests.families import FAMILY
from parity_tests.tiers import exhaustive
from parity_tests.tiny import tiny_config
from tf_pipeline.checkpoint import CheckpointError
from tf_pipeline.hub import fingerprint

BODIES = ("TFBertModel", "TFDistilBertModel")
CHOICES = "TFBertForMultipleChoice"
LIMIT, WORDS = 48, 99


@cache
def model_of(class_name: str):
    """One random model a class, made once."""
    return getattr(tf_pipeline, class_name)(tiny_config(FAMILY[class_name], class_name, num_hidden_layers=1))


@cache
def graph_of(class_name: str, xla: bool):
    """The hidden states of that model as a graph."""
    model = model_of(class_name)
    return tf.function(lambda inputs: model(inputs).last_hidden_state, jit_compile=xla, autograph=False)


@pytest.fixture
def bert():
    return model_of("TFBertModel")


def ids(*shape: int) -> np.ndarray:
    return np.full(shape, 5, np.int32)


# -------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("body", BODIES)
def test_one_sequence_lacks_the_batch_dimension(body):
    with pytest.raises(ValueError, match=rf"\(7,\), but {body} takes \[batch, seq\]\. The batch dimension is missing"):
        model_of(body)(ids(7))
    with pytest.raises(ValueError, match=r"Add it with tf\.expand_dims\(input_ids, axis=0\)"):
        tf.function(model_of(body))(tf.constant(ids(7)))


def test_a_mask_or_embedding_lacks_the_batch_dimension(bert):
    with pytest.raises(ValueError, match=r"tf\.expand_dims\(attention_mask, axis=0\)"):
        bert(ids(1, 2), attention_mask=[1, 1])
    with pytest.raises(ValueError, match=r"takes \[batch, seq, hidden\].*tf\.expand_dims\(inputs_embeds, axis=0\)"):
        bert(inputs_embeds=np.zeros((2, 32), np.float32))


def test_multiple_choice_takes_three_axes():
    with pytest.raises(ValueError, match=r"takes \[batch, choices, seq\]\. The choices dimension is missing.*axis=1\)"):
        model_of(CHOICES)(ids(2, 7))
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 7\), but TFBertForMultipleChoice takes \[batch, choices, seq\]"):
        model_of(CHOICES)(ids(1, 2, 3, 7))


def test_rows_of_different_lengths_are_to_be_padded(bert):
    with pytest.raises(ValueError, match=r"input_ids cannot be made a tensor.*padding=True, return_tensors='tf'"):
        bert([[1, 2], [3]])
    with pytest.raises(ValueError, match=r"attention_mask cannot be made a tensor"):
        bert(ids(2, 2), attention_mask=[[1, 1], [1]])


@pytest.mark.parametrize("call", [lambda m, x: m(x), lambda m, x: m(input_ids=x), lambda m, x: m({"input_ids": x})])
def test_ragged_tensors_are_to_be_padded(bert, call):
    with pytest.raises(ValueError, match=r"ragged tensor; give a padded one: input_ids\.to_tensor\(\)"):
        call(bert, tf.ragged.constant([[1, 2], [3]]))


@pytest.mark.parametrize(
    "name, shape",
    [
        ("attention_mask", (2, 6)),
        ("attention_mask", (1, 7)),
        ("attention_mask", (2, 1, 7)),
        ("attention_mask", (2, 7, 6)),
        ("attention_mask", (2, 1, 1, 7)),
        ("attention_mask", (2, 3, 7, 7)),
        ("attention_mask", (1, 1, 7, 7)),
        ("token_type_ids", (2, 6)),
        ("token_type_ids", (3, 7)),
        ("position_ids", (2, 6)),
        ("position_ids", (1, 6)),
    ],
)
def test_inputs_that_do_not_fit_each_other(bert, name, shape):
    with pytest.raises(
        ValueError, match=rf"{name} has shape \({shape[0]}, .* does not fit input_ids of shape \(2, 7\)"
    ):
        bert(ids(2, 7), **{name: np.ones(shape, np.int32)})


def test_embeddings_of_another_size(bert):
    with pytest.raises(ValueError, match=r"inputs_embeds has shape \(1, 2, 31\), but hidden_size is 32"):
        bert(inputs_embeds=np.zeros((1, 2, 31), np.float32))


@pytest.mark.parametrize("class_name", ["TFBertModel", "TFBertForSequenceClassification", "TFDistilBertForMaskedLM"])
def test_an_empty_batch_gives_empty_outputs(class_name):
    outputs = model_of(class_name)(ids(0, 7), attention_mask=ids(0, 7))
    assert outputs[0].shape[0] == 0


@pytest.mark.parametrize("body", BODIES)
def test_a_batch_of_no_tokens_is_refused(body):
    with pytest.raises(ValueError, match=r"input_ids has shape \(2, 0\): there are no tokens"):
        model_of(body)(ids(2, 0))


# ---------------------------------------------------------------------------------------------- names and dtypes


def test_exactly_one_of_ids_and_embeddings(bert):
    embeddings = np.zeros((2, 7, 32), np.float32)
    for inputs in ({"input_ids": ids(2, 7), "inputs_embeds": embeddings}, {"attention_mask": ids(2, 7)}, {}):
        with pytest.raises(ValueError, match="Give exactly one of input_ids and inputs_embeds"):
            bert(**inputs)


@pytest.mark.parametrize("body, name", [(BODIES[0], "labels"), (BODIES[0], "inputs"), (BODIES[1], "token_type_ids")])
def test_an_unknown_input_lists_the_known_ones(body, name):
    with pytest.raises(TypeError, match=rf"{body} does not take {name}; it takes input_ids, attention_mask"):
        model_of(body)(ids(2, 7), **{name: ids(2, 7)})


def test_inputs_are_given_once(bert):
    with pytest.raises(TypeError, match="Give each input once"):
        bert(ids(2, 7), ids(2, 7), attention_mask=ids(2, 7))
    with pytest.raises(TypeError, match="Give each input once; by position they are input_ids, attention_mask"):
        bert(*[ids(2, 7)] * 6)


def test_ids_are_integers(bert):
    with pytest.raises(ValueError, match="input_ids has dtype float32, but ids are integers"):
        bert([[1.0, 2.0]])
    with pytest.raises(ValueError, match="token_type_ids has dtype float32, but ids are integers"):
        tf.function(bert)(tf.constant(ids(1, 2)), token_type_ids=tf.zeros([1, 2]))
    with pytest.raises(ValueError, match="input_ids has dtype float32, but ids are integers"):
        bert(keras.Input((None,)))


@pytest.mark.parametrize("text", ["good film", ["good film", "bad film"]])
def test_text_is_to_be_encoded(bert, text):
    with pytest.raises(ValueError, match=r"dtype string, but ids are integers. Encode text first: tokenizer\(text"):
        bert(text)


def test_additive_masks_are_not_mistaken_for_visibility(bert):
    with pytest.raises(ValueError, match="attention_mask is a float tensor of rank 4, as additive masks are"):
        bert(ids(1, 2), attention_mask=np.zeros((1, 1, 2, 2), np.float32))


# ---------------------------------------------------------------------------------------------- out of the tables

TOO_LONG = rf"longer than the {LIMIT} positions of \w+ \(max_position_embeddings\).*truncation=True, max_length={LIMIT}"
DYNAMIC = [tf.TensorSpec([None, None], tf.int32)]


@pytest.mark.parametrize("body", exhaustive(BODIES, ["TFDistilBertModel"]))
@pytest.mark.parametrize("xla", [False, True])
def test_a_sequence_beyond_the_positions(body, xla):
    model, longest, long = model_of(body), tf.constant(ids(1, LIMIT)), tf.constant(ids(1, LIMIT + 1))
    with pytest.raises(ValueError, match=TOO_LONG + rf".*It has {LIMIT + 1} tokens"):
        model(long)
    with pytest.raises(ValueError, match=TOO_LONG):
        tf.function(model, jit_compile=xla, autograph=False)(long)
    dynamic = tf.function(lambda x: model(x).last_hidden_state, input_signature=DYNAMIC, jit_compile=xla)
    # XLA drops assertions; the slice of the position table fails there, and does not clamp.
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Expected size\[0\] in \[0, 48\]" if xla else TOO_LONG):
        dynamic(long)
    np.testing.assert_allclose(dynamic(longest), model(longest).last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("body", BODIES)
def test_embeddings_beyond_the_positions(body):
    with pytest.raises(ValueError, match=TOO_LONG):
        model_of(body)(inputs_embeds=np.zeros((1, LIMIT + 1, 32), np.float32))


@pytest.mark.parametrize(
    "name, value, size, key",
    [
        ("input_ids", WORDS, WORDS, "vocab_size"),
        ("input_ids", -1, WORDS, "vocab_size"),
        ("token_type_ids", 3, 3, "type_vocab_size"),
        ("token_type_ids", -1, 3, "type_vocab_size"),
        ("position_ids", LIMIT, LIMIT, "max_position_embeddings"),
        ("position_ids", -1, LIMIT, "max_position_embeddings"),
    ],
)
def test_ids_outside_their_table(bert, name, value, size, key):
    inputs = {"input_ids": ids(2, 7), "token_type_ids": ids(2, 7) % 3, "position_ids": ids(2, 7)}
    inputs[name][1, 4] = value
    with pytest.raises(ValueError, match=rf"{name} holds {value}, which is outside 0 … {size - 1} \({key}={size} in"):
        bert(inputs)
    tensors = {key: tf.constant(array) for key, array in inputs.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"= {value} is not in \[0, {size}\)"):
        graph_of("TFBertModel", xla=False)(tensors)
    # XLA clamps out-of-range rows; the row is poisoned, and attention spreads it over its sequence.
    states = graph_of("TFBertModel", xla=True)(tensors).numpy()
    assert np.isfinite(states[0]).all()
    assert np.isnan(states[1]).all()


def test_the_last_rows_of_the_tables_are_in(bert):
    inputs = {"input_ids": WORDS - 1, "token_type_ids": 2, "position_ids": LIMIT - 1}
    inputs = {name: tf.fill([2, 7], value) for name, value in inputs.items()}
    assert np.isfinite(bert(inputs).last_hidden_state).all()
    assert np.isfinite(graph_of("TFBertModel", xla=True)(inputs)).all()


def test_a_foreign_tokenizer_is_suspected(bert):
    with pytest.raises(ValueError, match="Do the tokenizer and the model belong together"):
        bert([[1, WORDS]])


# --------------------------------------------------------------------------------------------------------- masks


def pairs(body: str, **changes):
    """Our model and PyTorch's, in float64."""
    source = checkpoint(body, num_hidden_layers=1, **changes)
    return ours(body, source, dtype="float64"), twin(body, source, dtype="float64")


def additive(visible: np.ndarray) -> np.ndarray:
    return np.where(visible, 0.0, np.finfo(np.float64).min)


@pytest.mark.parametrize("body, changes", [(BODIES[0], {}), (BODIES[0], {"is_decoder": True}), (BODIES[1], {})])
def test_rows_that_are_masked_entirely(body, changes):
    model, expected = pairs(body, **changes)
    mask = np.ones((3, 7), np.int64)
    mask[0] = 0
    mask[1, :3] = 0
    inputs = {"input_ids": np.random.default_rng(0).integers(2, WORDS, (3, 7)), "attention_mask": mask}
    assert np.isfinite(model(inputs).last_hidden_state).all()
    assert_same_outputs(model, expected, inputs)


@pytest.mark.parametrize("body, changes", [(BODIES[0], {}), (BODIES[0], {"is_decoder": True}), (BODIES[1], {})])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("dtype", exhaustive([np.int32, np.bool_], [np.int32]))
def test_masks_by_query_and_head(body, changes, heads, dtype):
    model, expected = pairs(body, **changes)
    rng = np.random.default_rng(1)
    visible = rng.random((2, heads, 7, 7)) < 0.5
    visible[0, 0, 2] = False
    words = {"input_ids": rng.integers(2, WORDS, (2, 7))}
    mine, theirs = ({"attention_mask": mask} for mask in (visible.astype(dtype), additive(visible)))
    assert_same_outputs(model, expected, words | mine, words | theirs)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("dtype", exhaustive([np.int64, np.bool_, np.float32], [np.bool_]))
def test_masks_by_query(body, dtype):
    model, expected = pairs(body)
    rng = np.random.default_rng(2)
    visible = rng.random((2, 7, 7)) < 0.5
    words = {"input_ids": rng.integers(2, WORDS, (2, 7))}
    mine, theirs = ({"attention_mask": mask} for mask in (visible.astype(dtype), additive(visible[:, None])))
    assert_same_outputs(model, expected, words | mine, words | theirs)


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.float32, np.float64])
def test_the_dtype_of_a_mask_does_not_matter(bert, dtype):
    mask = np.array([[1, 1, 0]])
    expected = bert(ids(1, 3), attention_mask=mask).last_hidden_state
    np.testing.assert_array_equal(bert(ids(1, 3), attention_mask=mask.astype(dtype)).last_hidden_state, expected)


# ------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    "class_name, change, message",
    [
        ("TFBertModel", {"add_cross_attention": True}, "TFBertModel does not implement add_cross_attention=True"),
        ("TFBertModel", {"is_encoder_decoder": True}, "does not implement is_encoder_decoder=True"),
        ("TFBertModel", {"position_embedding_type": "relative_key"}, "='relative_key' of the config.*'absolute'"),
        ("TFBertModel", {"hidden_act": "prelu"}, "'prelu' is not supported; supported are gelu, .*, tanh"),
        ("TFBertModel", {"num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ("TFBertForQuestionAnswering", {"num_labels": 6}, "does not implement num_labels=6 .*supported: 2"),
        ("TFDistilBertModel", {"activation": "gleu"}, "'gleu' is not supported; supported are gelu, .*, tanh"),
        ("TFDistilBertModel", {"is_decoder": True}, "TFDistilBertModel does not implement is_decoder=True"),
        ("TFDistilBertModel", {"n_heads": 5}, "dim 32 is not a multiple of n_heads 5"),
    ],
)
def test_config_values_that_are_not_implemented_are_refused(class_name, change, message):
    config = tiny_config(FAMILY[class_name], class_name, **change)
    with pytest.raises(ValueError, match=message):
        getattr(tf_pipeline, class_name)(config)
    if "num_labels" in change:  # config.json holds the labels instead
        change = {"id2label": {str(index): label for index, label in config.id2label.items()}}
    with pytest.raises(ValueError, match=message):
        ours(class_name, edited(checkpoint(class_name), **change))


def test_an_unknown_problem_type_lists_the_known_ones():
    name = "TFBertForSequenceClassification"
    make, message = getattr(tf_pipeline, name), "problem_type 'ranking' is not supported; supported are regression, "
    with pytest.raises(ValueError, match=message):
        make(tiny_config("bert", name, num_hidden_layers=1, problem_type="ranking"))
    model = make(tiny_config("bert", name, num_hidden_layers=1))
    model.config.problem_type = "ranking"
    with pytest.raises(ValueError, match=message):
        model(ids(2, 7), labels=[0, 1])


def test_a_config_value_of_the_wrong_type_is_named():
    with pytest.raises(Exception, match=r"hidden_size.*expected int, got str"):
        ours("TFBertModel", edited(checkpoint("TFBertModel"), hidden_size="wide"))
    with pytest.raises(Exception, match=r"num_hidden_layers.*expected int, got str"):
        ours("TFBertModel", checkpoint("TFBertModel"), num_hidden_layers="five")


# --------------------------------------------------------------------------------------------------------- files


def header_size(path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize("cut", ["empty", "in the length", "in the header", "after the header", "half", "last byte"])
def test_a_file_that_is_cut_off(cut):
    folder = copied(checkpoint("TFBertModel"))
    path = folder / WEIGHTS
    size, header = path.stat().st_size, header_size(path)
    ends = {"empty": 0, "in the length": 5, "in the header": header // 2, "after the header": header, "half": size // 2}
    path.write_bytes(path.read_bytes()[: ends.get(cut, size - 1)])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is cut off, corrupt or not a safetensors file \(.+\)"
    ):
        ours("TFBertModel", folder)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 440449768\n",
        (8).to_bytes(8, "little") + b"not json",
        (2**62).to_bytes(8, "little") + b"{}",
        b"\x40" + bytes(7) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(64) + bytes(4),
    ],
)
def test_a_file_that_is_something_else(content):
    folder = copied(checkpoint("TFBertModel"))
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is cut off, corrupt or not a safetensors file"):
        ours("TFBertModel", folder)


def test_a_corrupt_shard_is_named():
    folder = new_folder()
    twin("TFBertModel", checkpoint("TFBertModel")).save_pretrained(folder, max_shard_size="20KB")
    shard = sorted(folder.glob("model-*"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=shard.name):
        ours("TFBertModel", folder)


def test_an_adapter_is_no_checkpoint(tmp_path):
    """Whatever is asked of it first says what it is; below a checkpoint that has it in its weights, that too."""
    model = ours("TFBertForSequenceClassification", checkpoint("TFBertForSequenceClassification"))
    model.enable_lora(2)
    model.save_adapter(tmp_path / "adapter")
    advice = rf"holds a LoRA adapter, which is no .*load {model.config._name_or_path} and call model\.load_adapter"
    for load in (tf_pipeline.TFAutoModel, tf_pipeline.TFBertModel, tf_pipeline.AutoConfig, tf_pipeline.AutoTokenizer):
        with pytest.raises(OSError, match=advice) as raised:
            load.from_pretrained(tmp_path / "adapter")
        assert "tf-pipeline train" not in str(raised.value)
    with pytest.raises(ValueError, match=advice):
        tf_pipeline.TFAutoModel.from_pretrained(tmp_path / "adapter", config=model.config)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OSError, match=rf"If tf-pipeline train wrote it, {tmp_path} is the checkpoint"):
        tf_pipeline.pipeline("text-classification", model=str(tmp_path / "adapter"))


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "/no/where", "~/nowhere", "no/where/at/all"])
def test_what_is_no_folder_and_no_id_has_one_message(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = f"^'{name}' is neither a local folder nor a hub repository, whose id would be like 'owner/name'.$"
    for load in (
        tf_pipeline.TFAutoModel.from_pretrained,
        tf_pipeline.TFBertModel.from_pretrained,
        tf_pipeline.AutoConfig.from_pretrained,
        tf_pipeline.AutoTokenizer.from_pretrained,
        lambda name: tf_pipeline.pipeline("text-classification", model=name),
        fingerprint,
    ):
        with pytest.raises(OSError, match=message):
            load(name)


@pytest.mark.parametrize("load", ["TFBertModel", "TFAutoModel", "AutoConfig"])
@pytest.mark.parametrize(
    "content, error, message",
    [
        (None, OSError, r"has no config\.json; it is not a checkpoint folder"),
        ("{", OSError, r"config\.json is not a valid JSON file"),
        ("", OSError, r"config\.json is not a valid JSON file"),
        ("{}", ValueError, r"Should have a `model_type` key in its config\.json"),
        ('{"model_type": "no-such"}', ValueError, r"model type `no-such`"),
    ],
)
def test_a_config_that_is_absent_or_not_one(load, content, error, message):
    folder = copied(checkpoint("TFBertModel"), "config.json")
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(error, match=message):
        getattr(tf_pipeline, load).from_pretrained(folder)


def test_a_checkpoint_of_another_family_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_PIPELINE_CACHE", str(tmp_path))
    folder = copied(checkpoint("TFBertModel"), "config.json")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"} | tiny.tiny_config("gpt2").to_diff_dict()))
    with pytest.raises(CheckpointError, match=r"does not fit TFGPT2Model; missing: \['wte.weight'"):
        tf_pipeline.TFAutoModel.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"TFBertModel is a bert model, but the config is of model_type 'gpt2'"):
        tf_pipeline.TFBertModel.from_pretrained(folder)


def test_a_head_that_a_family_lacks_lists_those_it_has():
    with pytest.raises(
        ValueError, match=r"does not support model_type 'distilbert'.*it has TFDistilBertModel, .*MultipleChoice"
    ):
        tf_pipeline.TFAutoModelForCausalLM.from_pretrained(checkpoint("TFDistilBertModel"))


def test_a_config_of_another_class_is_refused():
    config = transformers.DistilBertConfig()
    with pytest.raises(ValueError, match=r"TFBertModel is a bert model, but the config is of model_type 'distilbert'"):
        tf_pipeline.TFBertModel(config)


def test_nan_weights_are_loaded_as_they_are():
    def spoil(tensors):
        tensors["embeddings.LayerNorm.bias"][0] = torch.nan

    model = ours("TFBertModel", edited(checkpoint("TFBertModel"), spoil))
    assert np.isnan(model(ids(1, 2)).last_hidden_state).any()
