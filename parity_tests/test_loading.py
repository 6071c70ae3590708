"""Loading and saving: how checkpoints are laid out, what is reported, what is refused, what is written."""

import json
import logging
import pickle
import sys
import warnings

import keras
import numpy as np
import pytest
import safetensors.torch
import tensorflow as tf
import torch
import transformers
from transformers.activations import ACT2FN

import tf_pipeline
from parity_tests.checkpoint_helpers import (
    WEIGHTS,
    assert_same_outputs,
    assert_same_weights,
    checkpoint,
    copied,
    edited,
    example_inputs,
    new_folder,
    ours,
    run_both,
    twin,
    weights,
)
from parity_tests.families import BODIES, CLASSES, DISTINCT, FAMILY, FOLLOWERS, MASKED_LMS, MODELS
from parity_tests.tiers import exhaustive, thinned
from parity_tests.tiny import tiny_config
from tf_pipeline import auto
from tf_pipeline import checkpoint as checkpoints
from tf_pipeline.checkpoint import CheckpointError
from tf_pipeline.heads import head_of
from tf_pipeline.layers import ACTIVATIONS

CLASSIFIER = "TFBertForSequenceClassification"
SOME_MASKED_LMS = exhaustive(MASKED_LMS, ["TFBertForMaskedLM", "TFModernBertForMaskedLM"])
INDEX = "model.safetensors.index.json"


def sharded(class_name: str = CLASSIFIER, size: str = "20KB"):
    folder = new_folder()
    twin(class_name, checkpoint(class_name)).save_pretrained(folder, max_shard_size=size)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def assert_refused(source, pattern: str, class_name: str = CLASSIFIER, **kwargs):
    with pytest.raises(CheckpointError, match=pattern):
        ours(class_name, source, **kwargs)


# ------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("class_name", exhaustive(CLASSES, BODIES[::3]))
def test_every_class_loads_with_nothing_to_report(class_name):
    model, report = ours(class_name, checkpoint(class_name), output_loading_info=True)
    assert (report.missing, report.unused, report.mismatched) == ([], [], [])
    assert_same_weights(model, twin(class_name, checkpoint(class_name)))


def test_saving_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(CLASSIFIER, checkpoint(CLASSIFIER)).save_pretrained(tmp_path, max_shard_size="20KB")


def test_shards_with_an_index():
    assert_same_weights(ours(CLASSIFIER, sharded()), twin(CLASSIFIER, checkpoint(CLASSIFIER)))


def test_a_missing_shard_is_named():
    folder = sharded()
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert_refused(folder, rf"incomplete: model\.safetensors\.index\.json names \['{shard.name}'\]")


def test_a_shard_that_the_index_does_not_name_is_not_read():
    folder = sharded()
    (folder / "model-00009-of-00009.safetensors").write_bytes(b"left over")
    assert_same_weights(ours(CLASSIFIER, folder), twin(CLASSIFIER, checkpoint(CLASSIFIER)))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": ["a"]}'])
def test_an_index_that_is_none_is_named(content):
    folder = copied(checkpoint(CLASSIFIER), WEIGHTS)
    (folder / INDEX).write_text(content)
    assert_refused(folder, r"index\.json is not an index of shards")


@pytest.mark.parametrize("kind", exhaustive(["object", "folder"], ["folder"]))
def test_a_bare_file_takes_a_config(kind):
    folder = checkpoint(CLASSIFIER)
    config = transformers.AutoConfig.from_pretrained(folder) if kind == "object" else folder
    expected = twin(CLASSIFIER, folder)
    assert_same_weights(ours(CLASSIFIER, folder / WEIGHTS, config=config), expected)
    model = tf_pipeline.TFAutoModelForSequenceClassification.from_pretrained(str(folder / WEIGHTS), config=config)
    assert_same_weights(model, expected)


@pytest.mark.parametrize("load", [CLASSIFIER, "TFAutoModel"])
def test_a_bare_file_without_a_config_says_to_give_one(load):
    with pytest.raises(ValueError, match=r"model\.safetensors holds weights and no config; pass config="):
        ours(load, checkpoint(CLASSIFIER) / WEIGHTS)


def test_subfolder():
    folder = new_folder()
    copied(checkpoint(CLASSIFIER)).rename(folder / "inner")
    assert_same_weights(ours(CLASSIFIER, folder, subfolder="inner"), twin(CLASSIFIER, checkpoint(CLASSIFIER)))
    with pytest.raises(OSError, match=r"has no config\.json"):
        ours(CLASSIFIER, folder)


def test_a_folder_without_weights_lists_what_was_looked_for():
    assert_refused(
        copied(checkpoint(CLASSIFIER), WEIGHTS), r"no weights: none of model\.safetensors, .*pytorch_model\.bin"
    )


# ------------------------------------------------------------------------------------------------------- reports


def torch_report(class_name, source, **kwargs):
    """What PyTorch misses, does not use and finds of another shape, tied names left out."""
    model, info = twin(class_name, source, output_loading_info=True, **kwargs)
    mismatched = {(key, tuple(there), tuple(here)) for key, there, here in info["mismatched_keys"]}
    return info["missing_keys"] - set(model.all_tied_weights_keys), info["unexpected_keys"], mismatched


def our_report(class_name, source, **kwargs):
    _, report = ours(class_name, source, output_loading_info=True, **kwargs)
    assert dict(report) == {  # as transformers returns it
        "missing_keys": report.missing, "unexpected_keys": report.unused, "mismatched_keys": report.mismatched,
        "error_msgs": [],
    }  # fmt: skip
    return set(report["missing_keys"]), set(report["unexpected_keys"]), set(report["mismatched_keys"])


@pytest.mark.parametrize("body", exhaustive(BODIES, ["TFBertModel"]))
@pytest.mark.parametrize(
    "saved, loaded",
    exhaustive(
        [
            ("LM", "ForSequenceClassification"),
            ("LM", "Model"),
            ("ForSequenceClassification", "ForTokenClassification"),
            ("ForSequenceClassification", "ForMultipleChoice"),
            ("ForSequenceClassification", "LM"),
            ("ForTokenClassification", "Model"),
            ("Model", "ForTokenClassification"),
            ("Model", "LM"),
        ],
        [("LM", "ForSequenceClassification"), ("ForTokenClassification", "Model"), ("Model", "LM")],
    ),
)
def test_heads_are_reported_as_pytorch_reports_them(body, saved, loaded):
    names = [_of_kind(body, kind) for kind in (saved, loaded)]
    if None in names:
        pytest.skip(f"the family has no {saved} or no {loaded}")
    source, name = checkpoint(names[0]), names[1]
    options = {"ignore_mismatched_sizes": True}
    if body == "TFT5Model" and (saved, loaded) == ("ForTokenClassification", "Model"):
        with pytest.raises(CheckpointError, match=r"missing: \['decoder\."):  # PyTorch starts a whole half at random
            ours(name, source, **options)
        return
    report = our_report(name, source, **options)
    assert report == torch_report(name, source, **options)
    keys = [
        {
            key.removeprefix(f"{model.base_model_prefix}.")
            for key in weights(model)
            if not model.implied_keys.search(key)
        }
        for model in (ours(name, source, **options), ours(names[0], source))
    ]
    # ModernBERT's classifiers of texts and tokens have the same keys, as have GPT-2 and its language model.
    assert any(report) or keys[0] == keys[1]


@pytest.mark.parametrize("ends", [("LMHeadModel", "DoubleHeadsModel"), ("DoubleHeadsModel", "LMHeadModel")])
def test_a_second_head_is_reported_as_pytorch_reports_it(ends):
    saved, loaded = (f"TFGPT2{end}" for end in ends)
    source = checkpoint(saved)
    report = our_report(loaded, source)
    assert report == torch_report(loaded, source) and any(report)


def test_a_lone_decoder_does_not_begin_with_words_at_random():
    source = checkpoint("TFBartForConditionalGeneration")  # PyTorch looks for the decoder's words, which it shares
    with pytest.raises(CheckpointError, match=r"missing: \['model\.decoder\.embed_tokens\.weight'\]"):
        ours("TFBartForCausalLM", source)


def _of_kind(body, kind):
    """The class of a body's family that has a head, or is its language model."""
    if kind == "Model":
        return body
    ends = ("ForMaskedLM", "LMHeadModel", "ForConditionalGeneration", "ForCausalLM") if kind == "LM" else (kind,)
    family = MODELS[FAMILY[body]]
    return next((name for end in ends for name in family if name.endswith(end)), None)


def test_a_new_head_is_announced_by_name(caplog):
    with caplog.at_level(logging.WARNING):
        ours(CLASSIFIER, checkpoint("TFBertForMaskedLM"))
    assert "newly initialized: ['bert.pooler.dense.bias', 'bert.pooler.dense.weight', 'classifier.bias'" in caplog.text
    assert "were not used when initializing TFBertForSequenceClassification: ['cls.predictions.bias'" in caplog.text


def test_an_exact_checkpoint_is_loaded_in_silence(caplog):
    with caplog.at_level(logging.WARNING):
        ours(CLASSIFIER, checkpoint(CLASSIFIER))
    assert not caplog.records


def test_another_shape_names_the_key_and_both_shapes():
    source = checkpoint(CLASSIFIER)
    assert_refused(source, r"classifier\.weight: checkpoint \[5, 32\], model \[6, 32\]\nPass ignore_", num_labels=6)
    with pytest.raises(RuntimeError):
        twin(CLASSIFIER, source, num_labels=6)


def test_another_shape_can_be_ignored(caplog):
    source, options = checkpoint(CLASSIFIER), {"num_labels": 6, "ignore_mismatched_sizes": True}
    with caplog.at_level(logging.WARNING):
        assert our_report(CLASSIFIER, source, **options) == torch_report(CLASSIFIER, source, **options)
    assert "classifier.weight (checkpoint [5, 32], model [6, 32])" in caplog.text
    model, original = ours(CLASSIFIER, source, **options), weights(ours(CLASSIFIER, source))
    for key, value in weights(model).items():
        if key.startswith("classifier."):
            assert value.shape[0] == 6
            assert np.isfinite(value).all()
        else:
            np.testing.assert_array_equal(value, original[key])
    assert model(example_inputs(model)).logits.shape == (2, 6)
    assert list(model.config.id2label) == list(range(6))


def test_a_body_that_lacks_a_weight_is_refused():
    key = "bert.encoder.layer.1.output.dense.bias"
    assert_refused(edited(checkpoint(CLASSIFIER), lambda tensors: tensors.pop(key)), rf"missing: \['{key}'\]")


@pytest.mark.parametrize(
    "class_name, key",
    exhaustive(
        [(CLASSIFIER, "bert.encoder.extra"), ("TFBertModel", "encoder.extra")], [(CLASSIFIER, "bert.encoder.extra")]
    ),
)
def test_a_body_with_a_weight_too_many_is_refused(class_name, key):
    source = edited(checkpoint(class_name), lambda tensors: tensors.update({key: torch.zeros(2)}))
    assert_refused(source, rf"unexpected: \['{key}'\]", class_name)
    assert_refused(source, r"unexpected: \['(bert\.)?encoder\.extra'\]", "TFBertForMaskedLM")
    assert_refused(source, r"unexpected: \['(bert\.)?encoder\.extra'\]", "TFBertModel")


def test_another_family_is_refused():
    with pytest.raises(ValueError, match=r"TFDistilBertModel is a distilbert model.*model_type 'bert'"):
        ours("TFDistilBertModel", checkpoint("TFBertModel"))


def test_integers_in_place_of_weights_are_refused():
    def quantize(tensors):
        tensors["classifier.weight"] = tensors["classifier.weight"].to(torch.int8)

    assert_refused(edited(checkpoint(CLASSIFIER), quantize), r"classifier\.weight holds int8")


# ------------------------------------------------------------------------------------------------- names of keys


def rename(source, change):
    """A copy of a checkpoint whose keys went through ``change``."""

    def edit(tensors):
        renamed = {change(key): value.clone() for key, value in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    return edited(source, edit)


@pytest.mark.parametrize("body", thinned(BODIES, 6))
def test_a_prefix_too_many(body):
    prefix = getattr(tf_pipeline, body).base_model_prefix
    source = rename(checkpoint(body), lambda key: f"{prefix}.{key}")
    assert our_report(body, source) == (set(), set(), set())
    assert_same_weights(ours(body, source), twin(body, checkpoint(body)))


@pytest.mark.parametrize("class_name", thinned(MASKED_LMS, 6))
def test_a_prefix_too_few(class_name):
    prefix = f"{getattr(tf_pipeline, class_name).base_model_prefix}."
    source = rename(checkpoint(class_name), lambda key: key.removeprefix(prefix))
    assert our_report(class_name, source) == (set(), set(), set())
    assert_same_weights(ours(class_name, source), twin(class_name, checkpoint(class_name)))


def test_early_names_of_norms():
    def legacy(key):
        return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    source = rename(checkpoint(CLASSIFIER), legacy)
    assert "bert.embeddings.LayerNorm.gamma" in safetensors.torch.load_file(source / WEIGHTS)
    assert our_report(CLASSIFIER, source) == (set(), set(), set())
    assert_same_weights(ours(CLASSIFIER, source), twin(CLASSIFIER, checkpoint(CLASSIFIER)))


def test_a_key_under_two_names_is_refused():
    def repeat(tensors):
        tensors["bert.embeddings.LayerNorm.gamma"] = tensors["bert.embeddings.LayerNorm.weight"] + 1

    assert_refused(edited(checkpoint(CLASSIFIER), repeat), r"bert\.embeddings\.LayerNorm\.weight twice")


@pytest.mark.parametrize("class_name", (CLASSIFIER, "TFBertModel", "TFDistilBertModel"))
def test_position_id_buffers_are_ignored(class_name):
    prefix = "bert." if class_name == CLASSIFIER else ""

    def add(tensors):
        tensors[f"{prefix}embeddings.position_ids"] = torch.arange(48)[None]

    source = edited(checkpoint(class_name), add)
    assert our_report(class_name, source) == (set(), set(), set())


def tied_weights(class_name):
    """Names of tied weights by their other name."""
    return ours(class_name, checkpoint(class_name)).tied_weights()


@pytest.mark.parametrize("class_name", SOME_MASKED_LMS)
@pytest.mark.parametrize("both", thinned([True, False], 2))
def test_tied_weights_under_either_name(class_name, both):
    def edit(tensors):
        for alias, key in tied_weights(class_name).items():
            tensors[alias] = tensors[key].clone() if both else tensors.pop(key)

    source = edited(checkpoint(class_name), edit)
    assert our_report(class_name, source) == (set(), set(), set())
    assert_same_weights(ours(class_name, source), twin(class_name, checkpoint(class_name)))


@pytest.mark.parametrize("class_name", SOME_MASKED_LMS)
def test_tied_weights_that_differ_are_refused(class_name):
    def edit(tensors):
        alias, key = next(iter(tied_weights(class_name).items()))
        tensors[alias] = tensors[key] + 1

    source = edited(checkpoint(class_name), edit)
    assert_refused(source, r"are tied by the config but differ.*tie_word_embeddings=False", class_name)


@pytest.mark.parametrize("class_name", SOME_MASKED_LMS)
def test_untied_weights(class_name, tmp_path):
    source = checkpoint(class_name, tie_word_embeddings=False)
    expected = twin(class_name, source, dtype="float64")
    assert set(tied_weights(class_name)) <= set(safetensors.torch.load_file(source / WEIGHTS))
    model = ours(class_name, source, dtype="float64")
    assert_same_weights(model, expected)
    assert_same_outputs(model, expected)
    model.save_pretrained(tmp_path)
    saved, info = twin(class_name, tmp_path, dtype="float64", output_loading_info=True)
    assert not any(info.values())
    assert_same_weights(model, saved)


# ------------------------------------------------------------------------------------------- PyTorch's own format


def torch_bin(class_name=CLASSIFIER, dtype="float32", **save_options):
    folder = copied(checkpoint(class_name), WEIGHTS)
    torch.save(
        twin(class_name, checkpoint(class_name), dtype=dtype).state_dict(), folder / "pytorch_model.bin", **save_options
    )
    return folder


@pytest.mark.parametrize("dtype", thinned(["float32", "bfloat16", "float16", "float64"], 2))
def test_pytorch_model_bin(dtype):
    assert_same_weights(
        ours(CLASSIFIER, torch_bin(dtype=dtype), dtype=dtype), twin(CLASSIFIER, checkpoint(CLASSIFIER), dtype=dtype)
    )


def test_pytorch_model_bin_of_tied_weights():
    source = torch_bin("TFBertForMaskedLM")
    assert our_report("TFBertForMaskedLM", source) == (set(), set(), set())
    assert_same_weights(ours("TFBertForMaskedLM", source), twin("TFBertForMaskedLM", checkpoint("TFBertForMaskedLM")))


def test_pytorch_model_bin_from_before_torch_1_6():
    source = torch_bin(_use_new_zipfile_serialization=False)
    assert_same_weights(ours(CLASSIFIER, source), twin(CLASSIFIER, checkpoint(CLASSIFIER)))


def test_a_bare_bin_file_takes_a_config():
    model = ours(CLASSIFIER, torch_bin() / "pytorch_model.bin", config=checkpoint(CLASSIFIER))
    assert_same_weights(model, twin(CLASSIFIER, checkpoint(CLASSIFIER)))


def sharded_bin():
    folder = copied(checkpoint(CLASSIFIER), WEIGHTS)
    state = list(twin(CLASSIFIER, checkpoint(CLASSIFIER)).state_dict().items())
    names = {}
    for part in (0, 1):
        name = f"pytorch_model-0000{part + 1}-of-00002.bin"
        torch.save(dict(state[part::2]), folder / name)
        names |= dict.fromkeys([key for key, _ in state[part::2]], name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


def test_pytorch_model_bin_in_shards():
    folder = sharded_bin()
    assert_same_weights(ours(CLASSIFIER, folder), twin(CLASSIFIER, checkpoint(CLASSIFIER)))
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert_refused(folder, r"pytorch_model-00002-of-00002\.bin")


def test_safetensors_are_preferred_to_a_pickle():
    folder = copied(checkpoint(CLASSIFIER))
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert_same_weights(ours(CLASSIFIER, folder), twin(CLASSIFIER, checkpoint(CLASSIFIER)))


@pytest.mark.parametrize("make", [torch_bin, sharded_bin])
def test_without_pytorch_the_error_says_how_to_convert(make, monkeypatch):
    folder = make()
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]  # transformers, which saw PyTorch when it was imported, would look the dtype up there
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_refused(folder, r"takes PyTorch to read.*pip install torch.*save_pretrained\(Y\).*model\.safetensors")


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_that_runs_code_is_refused_and_not_run(save, tmp_path):
    folder = copied(checkpoint(CLASSIFIER), WEIGHTS)
    save({"classifier.weight": torch.zeros(5, 32), "x": _Payload(str(tmp_path / "ran"))}, folder / "pytorch_model.bin")
    assert_refused(folder, r"pytorch_model\.bin was not unpickled.*could run code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [{"state_dict": {}, "epoch": 3}, [torch.zeros(2)]])
def test_a_training_checkpoint_is_not_a_state_dict(value):
    folder = copied(checkpoint(CLASSIFIER), WEIGHTS)
    torch.save(value, folder / "pytorch_model.bin")
    assert_refused(folder, r"not a state dict")


# -------------------------------------------------------------------------------------------------- config values


def test_labels_follow_their_number():
    name = "TFBertForTokenClassification"
    model = ours(name, checkpoint("TFBertModel"), num_labels=6)
    assert model.config.id2label == {i: f"LABEL_{i}" for i in range(6)}
    assert model(example_inputs(model)).logits.shape == (2, 7, 6)


@pytest.mark.parametrize("class_name", thinned([CLASSIFIER, "TFDistilBertForSequenceClassification"], 2))
def test_fewer_layers(class_name):
    source = checkpoint(class_name)
    model = ours(class_name, source, num_hidden_layers=2, dtype="float64")
    report = our_report(class_name, source, num_hidden_layers=2)
    assert report == torch_report(class_name, source, num_hidden_layers=2)
    assert report[1]
    assert all(".layer.2." in key for key in report[1])
    assert_same_outputs(model, twin(class_name, source, num_hidden_layers=2, dtype="float64"))


def test_more_layers_are_new_and_announced(caplog):
    with caplog.at_level(logging.WARNING):
        report = our_report(CLASSIFIER, checkpoint(CLASSIFIER), num_hidden_layers=4)
    assert report == torch_report(CLASSIFIER, checkpoint(CLASSIFIER), num_hidden_layers=4)
    assert len(report[0]) == 16
    assert "newly initialized: ['bert.encoder.layer.3.attention.output.LayerNorm.bias'" in caplog.text


@pytest.mark.parametrize("layers", [2, 4])
@pytest.mark.parametrize("key", ["bert.encoder.layer.1.output.dense.bias", "bert.embeddings.LayerNorm.weight"])
def test_another_number_of_layers_does_not_excuse_other_gaps(layers, key):
    source = edited(checkpoint(CLASSIFIER), lambda tensors: tensors.pop(key))
    assert_refused(source, rf"missing: \['{key}'\]", num_hidden_layers=layers)


@pytest.mark.parametrize("body", thinned(["TFBertModel", "TFDistilBertModel"], 2))
def test_heads_regroup_the_same_weights(body):
    source = checkpoint(body)
    model = ours(body, source, num_attention_heads=8, dtype="float64")
    assert_same_outputs(model, twin(body, source, num_attention_heads=8, dtype="float64"))
    mine, theirs = run_both(model, twin(body, source, dtype="float64"))
    assert np.abs(mine[0] - theirs[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["bogus", "to_dict", "_name_or_path"])
def test_an_unknown_value_is_a_type_error(name):
    with pytest.raises(TypeError, match=rf"BertConfig has no value {name}, and"):
        ours(CLASSIFIER, checkpoint(CLASSIFIER), **{name: "float16"})


@pytest.mark.parametrize("body", ["TFBertModel", "TFDistilBertModel"])
def test_heads_that_do_not_divide_the_size_are_refused(body):
    with pytest.raises(ValueError, match=r"32 is not a multiple of (num_attention_heads|n_heads) 5"):
        ours(body, checkpoint(body), num_attention_heads=5)


# --------------------------------------------------------------------------------------------------------- dtypes

DTYPES = ("float32", "float64", "bfloat16", "float16")


def stored_as(dtype, **config_changes):
    def convert(tensors):  # thirds, which no dtype holds exactly: a detour through a smaller one would show
        tensors.update({key: (value.double() / 3).to(getattr(torch, dtype)) for key, value in tensors.items()})

    return edited(checkpoint("TFDistilBertModel"), convert, dtype=dtype, **config_changes)


@pytest.mark.parametrize("stored", exhaustive(DTYPES, ["float64"]))
@pytest.mark.parametrize("wanted", DTYPES)
def test_every_stored_dtype_loads_into_every_dtype(stored, wanted):
    source = stored_as(stored)
    model = ours("TFDistilBertModel", source, dtype=wanted)
    assert model.dtype_policy.name == wanted
    assert_same_weights(model, twin("TFDistilBertModel", source, dtype=wanted))


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("said", exhaustive([True, False], [False]))
def test_auto_keeps_the_checkpoints_dtype(stored, said):
    source = stored_as(stored)
    if not said:
        source = edited(source, dtype=None)
    assert_same_weights(
        ours("TFDistilBertModel", source, dtype="auto"), twin("TFDistilBertModel", source, dtype="auto")
    )


def test_float64_survives_loading_and_saving(tmp_path):
    source = stored_as("float64")
    ours("TFDistilBertModel", source, dtype="auto").save_pretrained(tmp_path)
    first, second = (safetensors.torch.load_file(folder / WEIGHTS) for folder in (source, tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert any((value.float().double() != value).any() for value in first.values())


def test_auto_reads_the_older_name_of_the_key():
    source = edited(stored_as("float16"), dtype=None, torch_dtype="float16")
    assert ours("TFDistilBertModel", source, dtype="auto").dtype_policy.name == "float16"


@pytest.mark.parametrize("dtype", [tf.bfloat16, torch.bfloat16, keras.DTypePolicy("bfloat16"), np.dtype("float16")])
def test_dtypes_are_objects_too(dtype):
    model = ours("TFDistilBertModel", checkpoint("TFDistilBertModel"), dtype=dtype)
    assert model.compute_dtype in ("bfloat16", "float16")


def test_mixed_precision_keeps_float32_weights(tmp_path):
    model = ours("TFDistilBertModel", checkpoint("TFDistilBertModel"), dtype="mixed_bfloat16")
    assert_same_weights(model, twin("TFDistilBertModel", checkpoint("TFDistilBertModel")))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("dtype", ["int8", "float8", "bogus", 32])
def test_a_bad_dtype_lists_the_good_ones(dtype):
    with pytest.raises(ValueError, match=r"not supported; use one of float32, float64, bfloat16, float16, 'auto'"):
        ours("TFDistilBertModel", checkpoint("TFDistilBertModel"), dtype=dtype)


# --------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("class_name", exhaustive(DISTINCT, BODIES))
@pytest.mark.parametrize(
    "dtype, size",
    thinned([("bfloat16", "20KB"), ("float32", "50GB"), ("float16", 10_000)], 3),
)
def test_what_is_saved_pytorch_loads_bit_for_bit(class_name, dtype, size, tmp_path):
    model = ours(class_name, checkpoint(class_name), dtype=dtype)
    model.config.architectures = ["Another"]
    model.save_pretrained(tmp_path / "new", max_shard_size=size)
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert config["architectures"] == [class_name.removeprefix("TF")]
    assert config["dtype"] == dtype
    assert (tmp_path / "new" / INDEX).exists() == (size != "50GB")
    saved, info = twin(class_name, tmp_path / "new", dtype="auto", output_loading_info=True)
    assert not any(info.values())
    assert_same_weights(model, saved)


def test_saving_again_leaves_no_stale_shards(tmp_path):
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER))
    (tmp_path / "notes.txt").write_text("mine")
    for size in ("10KB", "40KB", "50GB", "40KB"):
        model.save_pretrained(tmp_path, max_shard_size=size)
        if (tmp_path / INDEX).exists():
            expected = set(json.loads((tmp_path / INDEX).read_text())["weight_map"].values()) | {INDEX}
        else:
            expected = {WEIGHTS}
        assert {file.name for file in tmp_path.iterdir()} == expected | {"config.json", "notes.txt"}
        assert_same_weights(ours(CLASSIFIER, tmp_path), twin(CLASSIFIER, tmp_path))


@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_save_changes_nothing(existing, tmp_path, monkeypatch):
    target = tmp_path / "model"
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER))
    if existing:
        model.save_pretrained(target)
    before = {file.name: file.read_bytes() for file in target.iterdir()} if existing else {}
    real, calls = checkpoints.save_file, []

    def fail(tensors, path, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("No space left on device")
        real(tensors, path, **kwargs)

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(target, max_shard_size="20KB")
    assert len(calls) == 2
    assert target.exists() == existing
    assert ({file.name: file.read_bytes() for file in target.iterdir()} if existing else {}) == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"] * existing


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError, match=r"taken is a file; give a folder"):
        ours(CLASSIFIER, checkpoint(CLASSIFIER)).save_pretrained(tmp_path / "taken")


def test_saved_files_are_as_readable_as_their_folder(tmp_path):
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER))
    for mode, expected in ((0o755, 0o644), (0o700, 0o600)):
        tmp_path.chmod(mode)
        model.save_pretrained(tmp_path)
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {expected}


def test_lora_is_merged_when_saved(tmp_path):
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER), dtype="float64")
    for layer in (model.bert.encoder.layer[1].intermediate.dense, model.bert.embeddings.word_embeddings):
        layer.enable_lora(2)
    for variable in model.trainable_variables:
        if "lora" in variable.path:
            variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    model.save_pretrained(tmp_path)
    assert_same_outputs(model, twin(CLASSIFIER, tmp_path, dtype="float64"))
    mine, theirs = run_both(model, twin(CLASSIFIER, checkpoint(CLASSIFIER), dtype="float64"))
    assert np.abs(mine[0] - theirs[0]).max() > 1e-3


def test_quantized_layers_are_not_saved_as_weights(tmp_path):
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER))
    model.bert.encoder.layer[1].intermediate.dense.quantize("int8", type_check=False)
    with pytest.raises(CheckpointError, match=r"is quantized \(int8\)"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- from_config


SINUSOIDAL = ("marian", "pegasus")


@pytest.mark.parametrize(
    "class_name", exhaustive(DISTINCT, ["TFBertModel", "TFGPT2Model", "TFModernBertModel", "TFT5Model"])
)
def test_random_weights_start_as_pytorchs(class_name):
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "initializer_range": 0.07}
    config = tiny_config(FAMILY[class_name], class_name, **sizes)
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    theirs = getattr(transformers, class_name.removeprefix("TF"))(config).state_dict()
    model = getattr(tf_pipeline, class_name)(config)
    for key, mine in weights(model).items():
        expected = theirs[key].numpy()
        if expected.std() == 0 or (key.endswith("embed_positions.weight") and FAMILY[class_name] in SINUSOIDAL):
            np.testing.assert_array_equal(mine, expected, err_msg=key)
            continue
        error = 5 / np.sqrt(mine.size)
        assert abs(mine.std() / expected.std() - 1) < error, key
        assert abs(mine.mean()) < error * expected.std(), key
        assert np.array_equal((mine == 0).all(-1), (expected == 0).all(-1)), key  # the padding row


def test_sinusoidal_positions_are_pytorchs():
    config = tiny_config("distilbert", "TFDistilBertModel", sinusoidal_pos_embds=True)
    expected = transformers.DistilBertModel(config).embeddings.position_embeddings.weight.detach().numpy()
    mine = weights(tf_pipeline.TFDistilBertModel(config))["embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("class_name", thinned([CLASSIFIER, "TFDistilBertForMaskedLM"], 2))
def test_seeds_fix_random_weights(class_name):
    config = tiny_config(FAMILY[class_name], class_name)
    models = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        models.append(weights(getattr(tf_pipeline, class_name)(config)))
    same, different = models[1:]
    for key, value in models[0].items():
        np.testing.assert_array_equal(value, same[key])
        assert value.std() == 0 or (value != different[key]).any(), key
    matrices = [value for value in models[0].values() if value.shape == (32, 32)]
    assert len({value.tobytes() for value in matrices}) == len(matrices)


HEADS = {
    "TFAutoModel": "Model",
    "TFAutoModelForTextEncoding": "Model",
    "TFAutoModelForPreTraining": {"bert": "ForPreTraining", "distilbert": "ForMaskedLM"},
    "TFAutoModelForCausalLM": {"bert": "LMHeadModel"},
    "TFAutoModelForMaskedLM": "ForMaskedLM",
    "TFAutoModelForSequenceClassification": "ForSequenceClassification",
    "TFAutoModelForTokenClassification": "ForTokenClassification",
    "TFAutoModelForQuestionAnswering": "ForQuestionAnswering",
    "TFAutoModelForTableQuestionAnswering": {},
    "TFAutoModelForMultipleChoice": "ForMultipleChoice",
    "TFAutoModelForNextSentencePrediction": {"bert": "ForNextSentencePrediction"},
    "TFAutoModelForSeq2SeqLM": {},
    "TFAutoModelForImageClassification": {},
    "TFAutoModelForZeroShotImageClassification": {},
    "TFAutoModelForAudioClassification": {},
    "TFAutoModelForCTC": {},
    "TFAutoModelForSpeechSeq2Seq": {},
}


@pytest.mark.parametrize("auto_class", HEADS)
@pytest.mark.parametrize("family, name", thinned([("bert", "TFBert"), ("distilbert", "TFDistilBert")], 2))
def test_auto_classes_pick_the_class_of_the_head(auto_class, family, name):
    head = HEADS[auto_class] if isinstance(HEADS[auto_class], str) else HEADS[auto_class].get(family)
    config = tiny_config(family, name + (head or "Model"))
    picked = getattr(tf_pipeline, auto_class)
    if head is None:
        with pytest.raises(
            ValueError, match=rf"{auto_class} does not support model_type '{family}'.*it has {name}Model, "
        ):
            picked.from_config(config)
    else:
        assert type(picked.from_config(config)) is getattr(tf_pipeline, name + head)
        assert type(picked.from_pretrained(checkpoint(name + head))) is getattr(tf_pipeline, name + head)


@pytest.mark.parametrize("family", MODELS)
def test_every_class_is_picked_by_an_auto_class(family):
    config = tiny_config(family, MODELS[family][0])
    picked = {getattr(tf_pipeline, name)._class_or_none(config) for name in HEADS}
    listed = {name for name in MODELS[family] if head_of(name).mappings}  # of which transformers has an auto class
    assert {found.__name__ for found in picked if found} == listed


def test_every_auto_class_is_tested():
    assert set(HEADS) == {name for name in vars(auto) if name.startswith("TFAuto")} == set(tf_pipeline._AUTO_CLASSES)


def test_an_unsupported_family_lists_the_supported_ones():
    with pytest.raises(ValueError, match=r"'gpt_neo' is not supported; supported are (.*, )?bert, (.*, )?distilbert"):
        auto.family_module("gpt_neo")


def test_auto_classes_are_not_constructed():
    with pytest.raises(TypeError, match=r"TFAutoModel is made by from_pretrained\(source\) or from_config\(config\)"):
        tf_pipeline.TFAutoModel()


# --------------------------------------------------------------------------------- config values change the output


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_pytorchs(name):
    x = np.concatenate([np.linspace(-30, 30, 2001), [-1e3, -1e-9, 0.0, 1e-9, 1e3]])
    mine = np.asarray(ACTIVATIONS[name](tf.constant(x)))
    np.testing.assert_allclose(mine, ACT2FN[name](torch.tensor(x)).numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "class_name, key, name",
    exhaustive(
        [("TFBertForMaskedLM", "hidden_act", name) for name in sorted(ACTIVATIONS)]
        + [("TFDistilBertForMaskedLM", "activation", name) for name in ("gelu_new", "relu", "silu")],
        [("TFBertForMaskedLM", "hidden_act", "gelu_new"), ("TFDistilBertForMaskedLM", "activation", "relu")],
    ),
)
def test_models_use_the_activation_of_their_config(class_name, key, name):
    source, options = checkpoint(class_name, num_hidden_layers=1), {"dtype": "float64", key: name}
    assert_same_outputs(ours(class_name, source, **options), twin(class_name, source, **options))


def test_no_other_activation_of_transformers_is_left_out():
    assert set(ACT2FN) - set(ACTIVATIONS) == {"prelu", "xielu"}  # both hold weights


@pytest.mark.parametrize(
    "class_name, change",
    [
        ("TFBertModel", {"layer_norm_eps": 0.1}),
        ("TFBertModel", {"type_vocab_size": 7}),
        ("TFBertModel", {"max_position_embeddings": 11}),
        ("TFBertModel", {"intermediate_size": 13}),
        ("TFBertModel", {"is_decoder": True}),
        ("TFBertModel", {"pad_token_id": None}),
        ("TFBertLMHeadModel", {"is_decoder": True}),
        ("TFDistilBertModel", {"sinusoidal_pos_embds": True}),
        ("TFDistilBertModel", {"max_position_embeddings": 11}),
        ("TFDistilBertModel", {"hidden_dim": 13}),
        ("TFDistilBertModel", {"pad_token_id": None}),
    ],
)
def test_config_values_are_honoured(class_name, change):
    source = checkpoint(class_name, **change)
    assert_same_outputs(ours(class_name, source, dtype="float64"), twin(class_name, source, dtype="float64"))


@pytest.mark.parametrize("body", ["TFBertModel", "TFDistilBertModel", "TFRobertaModel"])
def test_the_padding_row_is_the_configs(body):
    config = tiny_config(FAMILY[body], body, pad_token_id=3)
    table = weights(getattr(tf_pipeline, body)(config))["embeddings.word_embeddings.weight"]
    assert np.flatnonzero((table == 0).all(-1)).tolist() == [3]


def dropout_rates(model):
    """Rate of each dropout layer by path."""

    def walk(layer, path):
        if isinstance(layer, keras.layers.Dropout):
            yield path.rstrip("."), layer.rate
        elif isinstance(layer, (list, tuple)):
            for index, item in enumerate(layer):
                yield from walk(item, f"{path}{index}.")
        elif isinstance(layer, keras.layers.Layer):
            for name, child in vars(layer).items():
                if not name.startswith("_"):
                    yield from walk(child, f"{path}{name.removesuffix('_')}.")

    return dict(walk(model, ""))


def rates(family, class_name):
    """A rate of its own for each dropout in the family's config."""
    names = sorted(name for name in tiny_config(family, class_name).to_dict() if "drop" in name)
    return {name: round(0.11 + index / 100, 2) for index, name in enumerate(names)}


def functional_rates(torch_model):
    """Rates that BART's modules keep as numbers; that of dropping a layer belongs to the half, and so to each layer."""
    for name, module in torch_model.named_modules():
        for attribute in ("dropout", "activation_dropout"):
            if isinstance(rate := getattr(module, attribute, None), float):
                yield f"{name}.{attribute}", rate
        for index in range(len(module.layers)) if hasattr(module, "layerdrop") else ():
            yield f"{name}.layers.{index}.layerdrop", module.layerdrop


def assert_same_dropout(class_name, **changes):
    config = tiny_config(FAMILY[class_name], class_name, num_hidden_layers=1, **changes)
    torch_model = getattr(transformers, class_name.removeprefix("TF"))(config)
    expected = {name: layer.p for name, layer in torch_model.named_modules() if isinstance(layer, torch.nn.Dropout)}
    if FAMILY[class_name] in ("bart", *FOLLOWERS):
        expected |= functional_rates(torch_model)
    assert dropout_rates(getattr(tf_pipeline, class_name)(config)) == expected


@pytest.mark.parametrize("class_name", exhaustive(DISTINCT, [*BODIES, CLASSIFIER]))
def test_dropout_rates_are_pytorchs(class_name):
    changes = rates(FAMILY[class_name], class_name)
    assert_same_dropout(class_name, **changes)
    if tiny_config(FAMILY[class_name], class_name).to_dict().get("classifier_dropout", 0) is None:
        assert_same_dropout(class_name, **changes | {"classifier_dropout": None})


def test_arguments_of_save_pretrained(tmp_path):
    """Those of version 4 are honoured, or refused with a replacement."""
    model = ours(CLASSIFIER, checkpoint(CLASSIFIER, num_hidden_layers=1))
    inputs = example_inputs(model)
    model.save_pretrained(save_directory=tmp_path, saved_model=True, version=3, safe_serialization=True)
    served = tf.saved_model.load(str(tmp_path / "saved_model" / "3"))
    zeros = np.zeros_like(inputs["input_ids"])
    given = {name: tf.constant(inputs.get(name, zeros), tf.int32) for name in model.default_signature()}
    np.testing.assert_allclose(served.serve(given)["logits"], model(given).logits, atol=1e-6)
    ours(CLASSIFIER, tmp_path)
    for options, message in (
        ({"safe_serialization": False}, "safetensors"),
        ({"signatures": "x"}, "export"),
        ({"is_main_process": False}, "main process"),
    ):
        with pytest.raises(ValueError, match=message):
            model.save_pretrained(tmp_path / "other", **options)
    with pytest.raises(TypeError, match=r"no argument 'max_shard'; did you mean max_shard_size\?"):
        model.save_pretrained(tmp_path / "other", max_shard=3)
    assert not (tmp_path / "other").exists()
