"""Bad input is refused in words of this package's own: the value, what is wrong with it, and what is supported."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tensorflow as tf
import torch
import transformers

import tf_pipeline
from parity_tests.checkpoint_helpers import (
    WEIGHTS,
    assert_same_outputs,
    checkpoint,
    copied,
    edited,
    example_inputs,
    ours,
    twin,
    weights,
)
from parity_tests.families import FOLLOWERS, MODELS
from parity_tests.test_arguments import HEADS, INPUTS, TEXT, folder_of
from parity_tests.test_arguments import ours as pipe_of
from parity_tests.tiers import exhaustive
from tf_pipeline import pipeline
from tf_pipeline.checkpoint import CheckpointError
from tf_pipeline.config import AutoConfig
from tf_pipeline.parity import compare_outputs
from tf_pipeline.parity.inputs import random_inputs
from tf_pipeline.pipelines.factory import pipeline_class
from tf_pipeline.pipelines.tasks import TASKS

BODY, CLASSIFIER = "TFBertModel", "TFBertForSequenceClassification"
INDEX = "model.safetensors.index.json"


def with_text(source: Path, name: str, text: str) -> Path:
    """A copy of a folder with another text in a file."""
    folder = copied(source, *([WEIGHTS] if name == INDEX else []))
    (folder / name).write_text(text)
    return folder


# ------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize("heads", [0, -1, -4])
@pytest.mark.parametrize("class_name", [BODY, "TFDistilBertModel", "TFAlbertModel", "TFModernBertModel"])
def test_sizes_that_are_not_positive(class_name, heads):
    key = "n_heads" if "Distil" in class_name else "num_attention_heads"
    with pytest.raises(ValueError, match=rf"has {key}={heads}, but {class_name} needs a number of at least 1"):
        ours(class_name, edited(checkpoint(class_name), **{key: heads}))


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("TFDistilBertModel", "n_layers"),
        (BODY, "num_hidden_layers"),
        ("TFAlbertModel", "num_hidden_groups"),
        ("TFAlbertModel", "inner_group_num"),
        ("TFT5Model", "num_layers"),
        ("TFT5Model", "num_decoder_layers"),
        ("TFBartModel", "encoder_layers"),
        ("TFBartModel", "decoder_layers"),
    ],
)
def test_more_layers_than_any_model_has(body, key):
    with pytest.raises(ValueError, match=rf"{key}=1000000, but {body} needs a number of at least . and at most 2048"):
        ours(body, checkpoint(body), **{key: 10**6})


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_more_layers_than_any_decoder_has(model_type):
    config = AutoConfig.for_model(model_type, num_hidden_layers=10**6)
    with pytest.raises(ValueError, match="layers?=1000000, but .* and at most 2048"):
        tf_pipeline.TFAutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("names", [{0: "a", 7: "b"}, {1: "a", 2: "b"}])
@pytest.mark.parametrize("class_name", [CLASSIFIER, "TFBertForTokenClassification"])
def test_labels_without_names(class_name, names):
    with pytest.raises(ValueError, match=rf"id2label of the config names the labels \[{min(names)}, {max(names)}\]"):
        ours(class_name, edited(checkpoint(class_name), id2label=names, label2id=None))
    ours(BODY, edited(checkpoint(BODY), id2label=names))  # a body has no labels


def test_numbers_of_labels_may_be_strings():
    model = ours(CLASSIFIER, checkpoint(BODY), id2label={str(i): name for i, name in enumerate("abc")})
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"} and model.config.num_labels == 3


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "", "{", '{"a":' * 100_000, "\udcff"])
def test_a_config_that_is_no_object(text):
    folder = copied(checkpoint(BODY))
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        OSError, match=rf"{folder}/config\.json (holds .* rather than a JSON object|is not a valid JSON)"
    ):
        tf_pipeline.TFAutoModel.from_pretrained(folder)


@pytest.mark.parametrize("key, value", [("num_attention_heads", "4"), ("vocab_size", None), ("id2label", ["a"])])
def test_a_value_of_another_kind(key, value):
    folder = edited(checkpoint(BODY), **{key: value})
    with pytest.raises(ValueError, match=rf"{folder}/config\.json has {key}=.*, which its architecture does not take"):
        tf_pipeline.TFAutoModel.from_pretrained(folder)


@pytest.mark.parametrize("family", sorted(set(MODELS) - {"deberta-v2", "modernbert", "t5", "mt5", "bart", *FOLLOWERS}))
def test_a_body_of_no_layers(family):
    body = MODELS[family][0]
    source = checkpoint(body, **{"n_layers" if family == "distilbert" else "num_hidden_layers": 0})
    model, torch_model = ours(body, source, dtype="float64"), twin(body, source, dtype="float64")
    assert_same_outputs(model, torch_model)
    ids = example_inputs(model)
    states = torch_model(**{name: torch.tensor(x) for name, x in ids.items()}, output_hidden_states=True).hidden_states
    assert len(model(ids, output_hidden_states=True).hidden_states) == len(states) == (family == "mpnet")


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        *((body, ("num_layers", "num_decoder_layers")) for body in ("TFT5Model", "TFMT5Model")),
        ("TFBartModel", ("encoder_layers", "decoder_layers")),
    ],
)
def test_an_encoder_decoder_of_no_layers(body, counts):
    source = checkpoint(body, **dict.fromkeys(counts, 0))
    inputs = random_inputs(ours(body, source))
    report = compare_outputs(source, body, settings={"right padding": inputs}, dtypes=["float64"], mode="eager")
    report.raise_if_unequal()
    assert {"last_hidden_state", "encoder_last_hidden_state"} <= {check.name for check in report.checks}


def test_no_layers_where_pytorch_fails():
    with pytest.raises(ValueError, match="num_hidden_layers=0, but TFDebertaV2Model needs a number of at least 1"):
        tf_pipeline.TFAutoModel.from_pretrained(edited(checkpoint("TFDebertaV2Model"), num_hidden_layers=0))


# -------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", [3, None, [], {}, ""])
def test_an_index_names_files(name):
    folder = with_text(checkpoint(BODY), INDEX, json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=rf"{folder}/{INDEX} is not an index of shards: it names .* as a file"):
        ours(BODY, folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..\\x", "C:\\x"])
def test_an_index_names_only_files_of_its_folder(name):
    folder = with_text(checkpoint(BODY), INDEX, json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=r"the files of an index are in its own folder"):
        ours(BODY, folder)


@pytest.mark.slow
def test_links_of_an_index(tmp_path):
    """Out of the folder they are refused; the hub's cache has its files in another folder, and is read."""
    source = checkpoint(BODY)
    keys = json.dumps({"weight_map": {"a": "a.safetensors"}})
    folder = with_text(source, INDEX, keys)
    (folder / "a.safetensors").symlink_to(source / WEIGHTS)
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors, which .* names, is a link out of the checkpoint's folder"
    ):
        ours(BODY, folder)
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "f00", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (snapshot / INDEX).write_text(keys)
    (blobs / "123").write_bytes((source / WEIGHTS).read_bytes())
    (snapshot / "a.safetensors").symlink_to("../../blobs/123")
    (snapshot / "config.json").write_text((source / "config.json").read_text())
    for key, value in weights(ours(BODY, source)).items():
        np.testing.assert_array_equal(weights(ours(BODY, snapshot))[key], value)


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_float8_is_read_exactly(dtype, kind):
    folder = copied(checkpoint(BODY))
    state = safetensors.torch.load_file(folder / WEIGHTS)
    state = {key: value.to(getattr(torch, dtype)) for key, value in state.items()}
    if kind == "bin":
        (folder / WEIGHTS).unlink()
        torch.save(state, folder / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(state, folder / WEIGHTS)
    for key, value in weights(ours(BODY, folder)).items():
        np.testing.assert_array_equal(value, state[key].float().numpy(), err_msg=key)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda x: x.to_sparse(), "a tensor of layout torch.sparse_coo"),
        (lambda x: x.to("meta"), "a tensor without values"),
        (lambda x: {"a": x}, "a dict"),
        (lambda x: None, "a NoneType"),
    ],
)
def test_what_is_no_dense_tensor(edit, words):
    folder = copied(checkpoint(BODY), WEIGHTS)
    state = safetensors.torch.load_file(checkpoint(BODY) / WEIGHTS)
    state["pooler.dense.bias"] = edit(state["pooler.dense.bias"])
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError,
        match=rf"{folder}/pytorch_model.bin is not a state dict.* holds {words}.* under 'pooler.dense.bias'",
    ):
        ours(BODY, folder)


def test_a_compressed_archive_is_not_unpacked():
    folder = copied(checkpoint(BODY), WEIGHTS)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("archive/data.pkl", bytes(2**24))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a compressed archive"):
        ours(BODY, folder)


def test_two_shards_with_one_tensor():
    source = checkpoint(BODY)
    folder = with_text(source, INDEX, json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes((source / WEIGHTS).read_bytes())
    with pytest.raises(
        CheckpointError, match=r"b\.safetensors has \['embeddings.LayerNorm.bias', .* other shards have too"
    ):
        ours(BODY, folder)


# -------------------------------------------------------------------------------------------------------- calls


def test_bytes_and_string_tensors_are_texts():
    pipe = pipe_of("text-classification")
    assert pipe(TEXT.encode()) == pipe(tf.constant(TEXT)) == pipe(np.array(TEXT)) == pipe(TEXT)
    with pytest.raises(ValueError, match="A text has to be a string; got int: 3"):
        pipe(np.array(3))
    assert pipe(TEXT.encode(), top_k=None) == pipe(TEXT, top_k=None)
    with pytest.raises(ValueError, match=r"The bytes b'\\xff' are not a text in UTF-8"):
        pipe(b"\xff")


@pytest.mark.parametrize(
    "given, words",
    [
        ({"max_length": -5}, "max_length is -5, but has to be a whole number of at least 1"),
        ({"max_length": "9"}, "max_length is '9', but has to be a whole number"),
        ({"stride": -1}, "stride is -1, but has to be a whole number of at least 0"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of is 0"),
        ({"pad_to_multiple_of": 100}, "pad_to_multiple_of=100 pads to 100, but TFBert.* takes at most 64"),
        ({"max_length": 2**70}, f"max_length is {2**70}, but has to be a whole number of at most"),
        ({"max_length": 2**30, "padding": "max_length"}, f"has {2**30} tokens, but TFBert.* takes at most 64"),
        ({"padding": "x"}, "padding is 'x', but has to be one of True, False, 'longest', 'max_length', 'do_not_pad'"),
        ({"padding_side": "up"}, "padding_side is 'up', but has to be one of 'left', 'right'"),
        ({"truncation": "only_second", "max_length": 4}, "cut with truncation='only_second', max_length=4: Second seq"),
        ({"add_special_tokens": "x"}, "add_special_tokens is 'x', but has to be True or False"),
        ({"return_overflowing_tokens": True}, "return_overflowing_tokens=True is not supported"),
        ({"is_split_into_words": True}, "only token-classification takes words"),
    ],
)
def test_arguments_of_the_tokenizer_out_of_range(given, words):
    with pytest.raises(ValueError, match=words):
        pipe_of("text-classification")(TEXT, **given)
    with pytest.raises(ValueError, match=words):
        pipe_of("feature-extraction")(TEXT, tokenize_kwargs=given)


@pytest.mark.parametrize(
    "task, other, needed",
    [
        ("fill-mask", "token-classification", "TFBertForMaskedLM"),
        ("ner", "text-classification", "TFBertForTokenClassification"),
        ("text-classification", "feature-extraction", "TFBertForSequenceClassification"),
        ("zero-shot-classification", "fill-mask", "TFBertForSequenceClassification"),
        ("question-answering", "text-classification", "TFBertForQuestionAnswering"),
        ("feature-extraction", "text-classification", "TFBertModel"),
        ("summarization", "text-generation", "a model of another architecture"),
        ("text-generation", "summarization", "a model of another architecture"),
    ],
)
def test_a_model_with_another_head_is_refused(task, other, needed):
    pipe = pipe_of(other)
    auto = pipeline_class(task).auto_class().__name__
    given = type(pipe.model).__name__
    with pytest.raises(ValueError, match=f"^{given} is not for {pipeline_class(task).task}: .* {needed}, as {auto} "):
        pipeline(task, model=pipe.model, tokenizer=pipe.tokenizer)


@pytest.mark.parametrize(
    "task, class_name",
    [
        ("feature-extraction", "TFT5EncoderModel"),
        ("feature-extraction", "TFBartModel"),
        ("fill-mask", "TFBartForConditionalGeneration"),
        ("text-generation", "TFBertLMHeadModel"),
        ("text2text-generation", "TFMarianMTModel"),
        ("text-classification", "TFElectraForSequenceClassification"),
    ],
)
def test_a_model_whose_outputs_fit_is_taken(task, class_name):
    own = type("Own", (getattr(tf_pipeline, class_name),), {})
    for model_class in (getattr(tf_pipeline, class_name), own):
        auto = pipeline_class(task).auto_class()
        auto.check_head(model_class.__new__(model_class), task)


@pytest.mark.parametrize(
    "task, given, words",
    [
        ("text-generation", {"padding": "x"}, "padding is 'x', but has to be one of"),
        ("text-generation", {"prefix": 5}, "prefix is 5, but has to be a text"),
        ("question-answering", {"padding": "x"}, "padding is 'x', but has to be one of"),
        (
            "feature-extraction",
            {"return_tensors": "pt"},
            "return_tensors is 'pt', but has to be one of True, False, 'tf'",
        ),
    ],
)
def test_arguments_of_a_task_out_of_range(task, given, words):
    with pytest.raises(ValueError, match=words):
        pipe_of(task)(*INPUTS.get(task, (TEXT,)), **given)


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "Pass a task, a model or both; tasks are .*, fill-mask, "),
        ({"task": 5}, "A task is a name; got 5. Supported are .*, fill-mask, "),
        ({"task": "ner", "model": 5}, "int is no model of tf_pipeline: pass one, or a folder or a hub id"),
        ({"task": "ner", "model": "own", "tokenizer": 5}, "tokenizer is 5, but has to be a tokenizer, a folder or a "),
        ({"task": "ner", "model": "own", "tokenizer": ()}, r"tokenizer is \(\), but has to be a tokenizer"),
        ({"task": "ner", "model": "own", "tokenizer": ("a", "b")}, r"tokenizer is \('a', 'b'\), but has to be"),
        ({"task": "ner", "model": "own", "model_kwargs": 5}, "model_kwargs is 5, but has to be a dictionary"),
        ({"task": "ner", "model": "own", "config": {}}, "A config is read from a folder or a hub id, but this is {}"),
        ({"model": "own", "num_labels": "3"}, "text-classification takes no argument 'num_labels'"),
        ({"model": "own", "model_kwargs": {"num_labels": "3"}}, "^/.* has num_labels='3', which its"),
        (
            {"model": "own", "model_kwargs": {"use_safetensors": "x"}},
            "use_safetensors is 'x', but has to be one of True",
        ),
    ],
)
def test_arguments_of_pipeline_out_of_range(given, words):
    if given.get("model") == "own":
        given = given | {"model": folder_of("text-classification")}
    with pytest.raises((ValueError, TypeError), match=words):
        pipeline(**given)


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction", "text-generation"])
def test_a_model_tells_its_task(task):
    pipe = pipe_of(task)
    assert type(pipeline(model=folder_of(task))) is type(pipe)
    assert type(pipeline(model=pipe.model, tokenizer=pipe.tokenizer)) is type(pipe)


def test_a_model_that_does_not_tell_its_task():
    pipe = pipe_of("summarization")
    for model in (folder_of("summarization"), pipe.model):
        with pytest.raises(
            ValueError, match="T5ForConditionalGeneration does not tell the task; name one: .* summariz"
        ):
            pipeline(model=model, tokenizer=pipe.tokenizer)


def test_code_that_is_not_needed_is_not_spoken_of(monkeypatch):
    said = []
    monkeypatch.setattr(transformers.configuration_utils.logger, "warning", said.append)
    pipeline("text-classification", model=folder_of("text-classification"), trust_remote_code=True)
    assert not said


@pytest.mark.parametrize("size", [None, -5, 0, "-1GB", float("nan"), True, "x", "5"])
def test_sizes_of_shards(tmp_path, size):
    with pytest.raises(
        ValueError, match=f"max_shard_size is {size!r}, but has to be a number of bytes, or a text such"
    ):
        pipe_of("text-classification").model.save_pretrained(tmp_path, max_shard_size=size)
    assert not [*tmp_path.iterdir()]


def test_a_folder_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for one in (pipe_of("text-classification"), pipe_of("text-classification").model):
        with pytest.raises(ValueError, match="The name of the folder to save to is empty"):
            one.save_pretrained("")
    assert not [*tmp_path.iterdir()]


def test_forms_of_features():
    pipe = pipe_of("feature-extraction")
    plain = pipe(TEXT)
    for form, kind in (("np", np.ndarray), ("tf", tf.Tensor), (True, tf.Tensor)):
        assert isinstance(features := pipe(TEXT, return_tensors=form), kind)
        np.testing.assert_array_equal(features, np.float32(plain))


def test_return_text_changes_nothing():
    pipe = pipe_of("text2text-generation")
    expected = pipe(TEXT, max_new_tokens=3)
    for given in ({"return_text": False}, {"return_text": True}, {"return_text": False, "return_tensors": False}):
        assert pipe(TEXT, max_new_tokens=3, **given) == expected
    assert "generated_token_ids" in pipe(TEXT, max_new_tokens=3, return_text=True, return_tensors=True)[0]


@pytest.mark.parametrize("template", ["{} {}", "{label}", "{", "no label", "{0} {1}", 3, None])
def test_a_template_takes_one_label(template):
    with pytest.raises(ValueError, match="hypothesis_template .* was not able to be formatted"):
        pipe_of("zero-shot-classification")(TEXT, ["a"], hypothesis_template=template)


SPOILT = {
    "bert.encoder.layer.1.output.LayerNorm.bias", "encoder.layer.1.output.LayerNorm.bias",
    "transformer.h.1.mlp.c_proj.bias", "decoder.final_layer_norm.weight", "classifier.1.bias", "layernorm.bias",
    "lm_head.bias", "classifier.bias", "visual_projection.weight", "tapas.encoder.layer.1.output.LayerNorm.bias",
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "value"),
    exhaustive(
        [*((task, "nan") for task in sorted(TASKS)), ("text-classification", "inf"), ("text-generation", "inf"),
         ("automatic-speech-recognition", "inf")],
        [(task, "nan") for task in ("text-classification", "feature-extraction", "question-answering",
                                    "text-generation")],
    ),
)  # fmt: skip
def test_a_model_that_gives_nan_says_so(task, value):
    def spoil(tensors):
        for key in SPOILT & tensors.keys():
            tensors[key][:] = float(value)

    folder = edited(folder_of(task), spoil)
    pipe = pipeline(task, model=folder, **dict.fromkeys(pipeline_class(task).processors, str(folder_of(task))))
    inputs = INPUTS.get(task, (TEXT,))
    with pytest.raises(ValueError, match=rf"{HEADS[task]} gives (NaN|infinity) for this (text|image|sound|table)"):
        pipe(*inputs)


@pytest.mark.parametrize(
    "class_name, labels, words",
    [
        (CLASSIFIER, [[7]], "labels holds 7, which is outside 0 … 2 "),
        (CLASSIFIER, [[-1]], "labels holds -1, which is outside 0 … 2 "),
        ("TFBertForTokenClassification", [[0, -100, 1, 3]], "labels holds 3, which is outside 0 … 2 "),
        ("TFBertForMaskedLM", [[0, -100, 1, 10**6]], "labels holds 1000000, which is outside 0 … "),
        ("TFBertForNextSentencePrediction", [[2]], "labels holds 2, which is outside 0 … 1 "),
        ("TFBertLMHeadModel", [[0, -100, 1, -3]], "labels holds -3, which is outside 0 … "),
    ],
)
def test_labels_out_of_range(class_name, labels, words):
    model, ids = ours(class_name, checkpoint(class_name, num_labels=3, num_hidden_layers=1)), np.full((1, 4), 5)
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        model(ids, labels=labels)
    assert "\n" not in str(caught.value)
    good = np.where(np.array(labels) == labels[0][-1], -100, labels)
    good[0, 0] = 1
    inputs = {"input_ids": ids, "labels": tf.constant(good)}
    np.testing.assert_allclose(tf.function(model)(inputs).loss, model(inputs).loss, rtol=1e-5)


def test_a_text_without_its_end():
    class_name = "TFBartForSequenceClassification"
    model = ours(class_name, checkpoint(class_name, num_hidden_layers=1))
    end = model.config.eos_token_id
    plain, twice = np.full((2, 5), end + 3), np.full((2, 5), end + 3)
    twice[:, 4] = twice[0, 2] = end
    for ids, words in (
        (plain, f"Each row of input_ids must hold the end of a text, eos_token_id {end}."),
        (twice, f"All rows of input_ids must hold eos_token_id {end} as often."),
    ):
        with pytest.raises(ValueError, match=f"^{words}$"):
            model(ids)
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            tf.function(model)(tf.constant(ids))


def test_keras_adds_nothing_to_a_message():
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER))
    for call in (
        lambda: model(np.full((1, 50), 5)),
        lambda: model(np.full((1, 5), 500)),
        lambda: model(np.full(5, 5)),
        lambda: model({"attention_mask": np.ones((1, 5))}),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert "Exception encountered" not in str(caught.value) and "\x1b" not in str(caught.value)
        assert "Arguments received" not in str(caught.value)
