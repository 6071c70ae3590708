"""Encoder–decoders: what is computed token by token is what is computed at once, and how they are called."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from transformers.models.t5.modeling_t5 import T5Attention

import tf_pipeline
from parity_tests.checkpoint_helpers import (
    assert_same_outputs,
    assert_same_weights,
    checkpoint,
    edited,
    new_folder,
    ours,
    twin,
    weights,
)
from parity_tests.families import FAMILY, FOLLOWERS, MODELS, OWN_FAMILIES
from parity_tests.keras_helpers import tiny_inputs, tiny_labels, tiny_model
from parity_tests.tiers import exhaustive
from parity_tests.tiny import tiny_config
from tf_pipeline.encoder_decoder import Seq2SeqLM
from tf_pipeline.generation.stepper import Stepper
from tf_pipeline.layers import bidirectional_buckets, causal_buckets
from tf_pipeline.outputs import BaseModelOutput

WRITERS = {
    family: name
    for family, names in MODELS.items()
    for name in names
    if issubclass(getattr(tf_pipeline, name), Seq2SeqLM)
}
# T5 and BART; the others share the code of one of them.
EACH = exhaustive(WRITERS, [family for family in WRITERS if family in OWN_FAMILIES and family not in FOLLOWERS])
T5 = "TFT5ForConditionalGeneration"
CAPACITY = 16
# Sources that are padded on the left, one not at all and one to a single token.
MASK = (np.arange(9) >= np.array([0, 4, 8])[:, None]).astype(np.int32)
IDS = np.random.default_rng(0).integers(4, 99, (3, 9)).astype(np.int32)
WRITTEN = np.random.default_rng(1).integers(4, 99, (3, CAPACITY)).astype(np.int32)


def assert_equal(mine, theirs, atol=1e-10):
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=0, atol=atol)


@pytest.fixture(scope="module")
def writer():
    """A family's language model in float64, and its logits of all tokens at once, ``[tokens, rows, vocab]``."""
    made = {}

    def make(family):
        if family not in made:
            model = ours(WRITERS[family], checkpoint(WRITERS[family]), dtype="float64")
            whole = model(IDS, attention_mask=MASK, decoder_input_ids=WRITTEN).logits.numpy()
            made[family] = model, whole.swapaxes(0, 1)
        return made[family]

    return make


def looped(model):
    """A function of source, mask and text of open shapes: the logits of every step of a ``tf.while_loop``."""

    def run(ids, mask, text, start):
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": text[:, :start]}
        logits, state = model.prefill(inputs, CAPACITY)
        results = tf.TensorArray(logits.dtype, 0, dynamic_size=True, element_shape=[None, 99]).write(0, logits)

        def body(i, state, results):
            logits, state = model.step(text[:, i], state)
            return i + 1, state, results.write(i + 1 - start, logits)

        return tf.while_loop(lambda i, *_: i < CAPACITY, body, (start, state, results))[2].stack()

    return run


SPECS = [tf.TensorSpec([None, None], tf.int32)] * 3 + [tf.TensorSpec([], tf.int32)]


@pytest.mark.parametrize("family", exhaustive(WRITERS, ["t5"]))  # `test_generation.py` has loops of BART
def test_steps_of_a_loop_are_the_whole(writer, family):
    model, whole = writer(family)
    assert isinstance(model, Stepper)
    loop = tf.function(looped(model), input_signature=SPECS, autograph=False)
    assert_equal(loop(IDS, MASK, WRITTEN, 1), whole)
    assert_equal(loop(IDS[:1], MASK[:1], WRITTEN[:1], 5), whole[4:, :1])
    assert loop.experimental_get_tracing_count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", EACH)
def test_steps_under_xla_and_in_a_saved_model(writer, family, tmp_path):
    model, whole = writer(family)
    module = tf.Module()
    module.model, module.run = model, tf.function(looped(model), input_signature=SPECS, autograph=False)
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)  # holds the variables of its functions
    assert_equal(loaded.run(IDS, MASK, WRITTEN, 1), whole)
    inputs = {"input_ids": tf.constant(IDS), "attention_mask": tf.constant(MASK)}
    _, state = model.prefill(inputs | {"decoder_input_ids": tf.constant(WRITTEN[:, :5])}, CAPACITY)
    step = tf.function(model.step, jit_compile=True, autograph=False)
    assert_equal(step(tf.constant(WRITTEN[:, 5]), state)[0], whole[5])


@pytest.mark.parametrize("family", EACH)
def test_rows_can_be_reordered_and_repeated(writer, family):
    model, whole = writer(family)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": WRITTEN[:, :1]}
    _, state = model.prefill(inputs, CAPACITY)
    rows = [2, 0, 0, 1]
    state = model.reorder(state, tf.constant(rows))
    for index in (1, 2):
        logits, state = model.step(tf.constant(WRITTEN[rows, index]), state)
        assert_equal(logits, whole[index][rows])


@pytest.mark.parametrize("family", EACH)
def test_what_was_computed_before_can_be_given(writer, family):
    """The encoder's outputs, and the cache, which then needs the encoder's text no more."""
    model, whole = writer(family)
    first = model(IDS, attention_mask=MASK, decoder_input_ids=WRITTEN[:, :9], use_cache=True)
    assert list(first) == ["logits", "past_key_values", "encoder_last_hidden_state"]
    encoded = BaseModelOutput(last_hidden_state=first.encoder_last_hidden_state)
    given = {"encoder_outputs": encoded, "attention_mask": MASK}
    assert_equal(model(decoder_input_ids=WRITTEN, **given).logits, whole.swapaxes(0, 1))
    mask = np.ones((3, 12), np.int32)
    past = {"past_key_values": first.past_key_values, "decoder_attention_mask": mask}
    second = model(decoder_input_ids=WRITTEN[:, 9:12], **given, **past)
    assert_equal(second.logits, whole[9:12].swapaxes(0, 1))
    assert "past_key_values" not in second


@pytest.mark.parametrize("family", EACH)
def test_a_decoder_that_is_padded_or_embedded_is_pytorchs(family):
    name = WRITERS[family]
    model, theirs = (load(name, checkpoint(name), dtype="float64") for load in (ours, twin))
    mask = (np.arange(6) < np.array([6, 2, 4])[:, None]).astype(np.int64)
    inputs = {"input_ids": IDS.astype(np.int64), "decoder_input_ids": WRITTEN[:, :6].astype(np.int64)}
    assert_same_outputs(model, theirs, inputs | {"decoder_attention_mask": mask})
    del inputs["decoder_input_ids"]
    vectors = np.random.default_rng(2).normal(size=(3, 6, 32))
    assert_same_outputs(model, theirs, inputs | {"decoder_inputs_embeds": vectors})


@pytest.mark.parametrize("family", EACH)
def test_labels_are_what_the_decoder_reads_one_place_later(family):
    name = WRITERS[family]
    model, theirs = (load(name, checkpoint(name), dtype="float64") for load in (ours, twin))
    labels = WRITTEN[:, :6].astype(np.int64)
    labels[1, 3:] = -100
    inputs = {"input_ids": IDS.astype(np.int64), "labels": labels}
    assert_same_outputs(model, theirs, inputs)
    assert_equal(model(IDS, labels=labels).logits, model(IDS, decoder_input_ids=model.shifted_right(labels)).logits)


def test_training_without_decoder_inputs():
    """Labels among the inputs and as ``y`` are the same, and are learned."""
    model = tiny_model(T5)
    inputs, labels = tiny_inputs(model), tiny_labels(model)["labels"]
    del inputs["decoder_input_ids"]
    expected = pytest.approx(float(model(**inputs, labels=labels).loss), rel=1e-5)
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    assert model.test_on_batch(inputs | {"labels": labels}) == expected
    assert model.test_on_batch(inputs, labels) == expected
    losses = model.fit(inputs, labels, epochs=3, verbose=0).history["loss"]
    assert losses[0] == expected and losses[-1] < losses[0]


# ------------------------------------------------------------------------------------------------------------------ T5


@pytest.mark.parametrize(
    ("name", "change"),
    exhaustive(
        [
            (T5, {"feed_forward_proj": "gated-gelu"}),
            (T5, {"feed_forward_proj": "relu"}),
            (T5, {"tie_word_embeddings": False}),
            (T5, {"num_decoder_layers": None}),
            ("TFMT5ForConditionalGeneration", {"tie_word_embeddings": False}),
        ],
        [
            (T5, {"feed_forward_proj": "gated-gelu"}),
            (T5, {"tie_word_embeddings": False}),
            (T5, {"num_decoder_layers": None}),
        ],
    ),
)
def test_options(name, change):
    source = checkpoint(name, **change)
    assert_same_outputs(*(load(name, source, dtype="float64") for load in (ours, twin)))


def test_states_are_scaled_where_the_config_says():
    scaled = ours(T5, checkpoint(T5), dtype="float64")
    plain = ours(T5, checkpoint(T5), dtype="float64", scale_decoder_outputs=False)
    inputs = {"input_ids": IDS, "decoder_input_ids": WRITTEN}
    assert_equal(plain(**inputs).logits, scaled(**inputs).logits * 32**0.5, atol=1e-9)


@pytest.mark.parametrize("name", exhaustive([T5, "TFMT5ForConditionalGeneration"], [T5]))
def test_a_head_of_its_own(name, tmp_path):
    """As in checkpoints of version 1.1, whose configs are read as tied all the same."""

    def untie(tensors):
        tensors["lm_head.weight"] = tensors["shared.weight"].flip(0).contiguous()
        tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()

    source = edited(checkpoint(name), untie)
    model, theirs = (load(name, source, dtype="float64") for load in (ours, twin))
    assert_same_outputs(model, theirs)
    assert "lm_head.weight" in weights(model) and "lm_head.weight" not in model.tied_weights()
    model.save_pretrained(tmp_path)
    assert_same_weights(model, twin(name, tmp_path, dtype="float64"))
    model.save(tmp_path / "model.keras")
    inputs = {"input_ids": IDS, "decoder_input_ids": WRITTEN}
    assert_equal(keras.models.load_model(tmp_path / "model.keras")(inputs).logits, model(inputs).logits, atol=0)


def test_sums_are_float32_in_float16():
    model = ours("TFT5Model", checkpoint("TFT5Model"), dtype="float16")
    stored = {key: value.dtype.name for key, value in weights(model).items()}
    assert {kind for key, kind in stored.items() if key.endswith(".wo.weight")} == {"float32"}
    assert {kind for key, kind in stored.items() if not key.endswith(".wo.weight")} == {"float16"}
    outputs = model(IDS, decoder_input_ids=WRITTEN, output_hidden_states=True)
    kinds = [state.dtype.name for state in outputs.encoder_hidden_states]
    theirs = twin("TFT5Model", checkpoint("TFT5Model"), dtype="float16")
    given = {"input_ids": torch.tensor(IDS), "decoder_input_ids": torch.tensor(WRITTEN)}
    with torch.no_grad():
        states = theirs(**given, output_hidden_states=True).encoder_hidden_states
    assert kinds == [str(state.dtype).removeprefix("torch.") for state in states]
    assert kinds[1] == "float32"


@pytest.mark.parametrize("buckets, farthest", [(32, 128), (20, 50), (12, 9)])
def test_buckets_of_every_distance_are_pytorchs(buckets, farthest):
    distances = np.arange(-300, 301)
    for function, bidirectional in ((bidirectional_buckets, True), (causal_buckets, False)):
        mine = function(tf.constant(distances, tf.int32), buckets, farthest).numpy()
        theirs = T5Attention._relative_position_bucket(torch.tensor(distances), bidirectional, buckets, farthest)
        np.testing.assert_array_equal(mine, theirs.numpy())


@pytest.mark.parametrize(
    "name",
    exhaustive(["TFT5ForSequenceClassification", "TFMT5ForSequenceClassification"], ["TFT5ForSequenceClassification"]),
)
def test_texts_are_judged_by_their_last_end(name):
    model, theirs = (load(name, checkpoint(name), dtype="float64") for load in (ours, twin))
    ids = np.array([[3, 8, 3, 9], [5, 3, 3, 7]])
    assert_same_outputs(model, theirs, {"input_ids": ids})
    for wrong, message in (
        ([[3, 8, 3, 9], [5, 3, 6, 7]], "All rows of input_ids must hold eos_token_id 3 as often"),
        ([[4, 8], [9, 8]], "Each row of input_ids must hold the end of a text, eos_token_id 3"),
    ):
        with pytest.raises(ValueError, match=message):
            model(np.array(wrong))


def test_the_encoder_of_a_whole_checkpoint():
    model, report = ours("TFT5EncoderModel", checkpoint(T5), output_loading_info=True)
    assert (report.missing, report.unused) == ([], [])
    whole = ours(T5, checkpoint(T5))
    expected = whole(IDS, decoder_input_ids=WRITTEN).encoder_last_hidden_state
    assert_equal(model(IDS).last_hidden_state, expected, atol=1e-6)


@pytest.mark.parametrize("auto", ["TFAutoModelForSeq2SeqLM", "TFAutoModel", "TFAutoModelForTextEncoding"])
def test_auto_classes_find_the_family(auto):
    config = tiny_config(FAMILY[T5], T5)
    assert type(getattr(tf_pipeline, auto).from_config(config)).__module__ == "tf_pipeline.models.t5"


def test_what_does_not_fit_is_refused(writer):
    model, _ = writer("t5")
    with pytest.raises(ValueError, match="needs decoder_input_ids, or labels to make them from"):
        model(IDS)
    with pytest.raises(ValueError, match=r"decoder_input_ids holds 99, which is outside 0 … 98"):
        model(IDS, decoder_input_ids=[[99]] * 3)
    with pytest.raises(ValueError, match=r"takes an attention_mask \[batch, seq\], which the decoder goes by"):
        model(IDS, decoder_input_ids=WRITTEN, attention_mask=np.ones((3, 9, 9), int))
    with pytest.raises(ValueError, match="decoder_input_ids has shape .* does not fit input_ids"):
        model(IDS, decoder_input_ids=WRITTEN[:2])
    with pytest.raises(ValueError, match="past_key_values is a tuple; give the Cache of 2 layers"):
        model(IDS, decoder_input_ids=WRITTEN, past_key_values=())
    with pytest.raises(TypeError, match="decoder_input_ids, not labels"):
        model.prefill({"input_ids": IDS, "labels": WRITTEN}, CAPACITY)
    with pytest.raises(ValueError, match="longer than the 4 slots of the capacity"):
        model.prefill({"input_ids": IDS, "decoder_input_ids": WRITTEN}, 4)
    for change, message in (
        ({"is_decoder": True}, "does not implement is_decoder=True"),
        ({"relative_attention_max_distance": 3}, "do not fit relative_attention_max_distance 3"),
    ):
        with pytest.raises(ValueError, match=message):
            tf_pipeline.TFT5Model(tiny_config("t5", "TFT5Model", **change))
    folder = new_folder()
    ours("TFT5Model", checkpoint("TFT5Model")).save_pretrained(folder)
    assert_same_weights(ours(T5, folder), twin(T5, folder))


# ---------------------------------------------------------------------------------------------------------------- BART

BART, MBART, M2M100, MARIAN = (
    "TFBartForConditionalGeneration", "TFMBartForConditionalGeneration", "TFM2M100ForConditionalGeneration",
    "TFMarianMTModel",
)  # fmt: skip
SOURCE = {"input_ids": IDS.astype(np.int64)}
BOTH = SOURCE | {"decoder_input_ids": WRITTEN[:, :6].astype(np.int64)}


def both(name, source, **options):
    return tuple(load(name, source, dtype="float64", **options) for load in (ours, twin))


@pytest.mark.parametrize(
    ("name", "change"),
    exhaustive(
        [
            (BART, {"scale_embedding": False}),
            (BART, {"activation_function": "silu"}),
            (BART, {"tie_word_embeddings": False}),
            (MARIAN, {"tie_word_embeddings": False}),
            (MARIAN, {"share_encoder_decoder_embeddings": False}),
            (MARIAN, {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}),
        ],
        [(BART, {"scale_embedding": False}), (MARIAN, {"share_encoder_decoder_embeddings": False})],
    ),
)
def test_options_of_bart_and_its_followers(name, change):
    source = checkpoint(name, **change)
    model, theirs = both(name, source)
    assert_same_outputs(model, theirs)
    folder = new_folder()
    ours(name, source).save_pretrained(folder)
    assert_same_weights(ours(name, source), twin(name, folder))


def test_a_decoder_of_other_words():
    source = checkpoint(MARIAN, share_encoder_decoder_embeddings=False, decoder_vocab_size=61)
    model, theirs = both(MARIAN, source)
    inputs = {"input_ids": IDS.astype(np.int64), "labels": WRITTEN[:, :6].astype(np.int64) % 61}
    assert_same_outputs(model, theirs, inputs)
    assert model(**inputs).logits.shape == (3, 6, 61)
    with pytest.raises(ValueError, match=r"decoder_input_ids holds 61, which is outside 0 … 60 \(decoder_vocab_size"):
        model(IDS, decoder_input_ids=[[61]] * 3)


@pytest.mark.parametrize("name", exhaustive([BART, "TFBartModel", MBART, "TFMBartModel"], [BART, "TFMBartModel"]))
def test_a_decoder_that_reads_the_text_itself(name):
    assert_same_outputs(*both(name, checkpoint(name)), SOURCE)


@pytest.mark.parametrize("family", exhaustive(FOLLOWERS, ["marian"]))
def test_a_decoder_that_has_to_be_given_something(family):
    model = getattr(tf_pipeline, MODELS[family][0])(tiny_config(family, MODELS[family][0]))
    if family == "mbart":
        return
    with pytest.raises(ValueError, match="needs decoder_input_ids; give them or decoder_inputs_embeds"):
        model(IDS)


def test_the_last_bias_is_loaded_kept_and_may_be_left_out():
    def bias(tensors):
        tensors["final_logits_bias"] = torch.arange(99.0)[None]

    model, theirs = both(BART, source := edited(checkpoint(BART), bias))
    assert_same_outputs(model, theirs, BOTH)
    folder = new_folder()
    ours(BART, source).save_pretrained(folder)
    assert_same_weights(ours(BART, source), twin(BART, folder))
    assert not any("final_logits_bias" in variable.path for variable in model.trainable_variables)
    without = edited(checkpoint(BART), lambda tensors: tensors.pop("final_logits_bias"))
    model, report = ours(BART, without, output_loading_info=True)
    assert (report.missing, report.unused) == ([], [])
    assert not weights(model)["final_logits_bias"].any()


def test_checkpoints_of_old():
    """Both halves hold the words, under their own names, and numbers of a version."""

    def old(tensors):
        for half in ("encoder", "decoder"):
            tensors[f"model.{half}.embed_tokens.weight"] = tensors["model.shared.weight"].clone()
            tensors[f"model.{half}.version"] = torch.tensor([2.0])

    model, report = ours(BART, edited(checkpoint(BART), old), output_loading_info=True)
    assert (report.missing, report.unused) == ([], [])
    assert_same_weights(model, twin(BART, checkpoint(BART)))


@pytest.mark.parametrize("name", exhaustive([MARIAN, "TFMarianModel", "TFPegasusModel"], [MARIAN]))
def test_positions_are_loaded_or_computed_and_never_trained(name):
    prefix = "model." if name == MARIAN else ""
    keys = [f"{prefix}{half}.embed_positions.weight" for half in ("encoder", "decoder")]
    source = edited(checkpoint(name), lambda tensors: [tensors.pop(key, None) for key in keys])
    model, report = ours(name, source, output_loading_info=True)
    assert report.missing == []
    assert_same_weights(model, twin(name, source))
    other = edited(source, lambda tensors: tensors.update({key: torch.full([48, 32], 0.5) for key in keys}))
    assert_same_outputs(*both(name, other), BOTH)
    assert not any("embed_positions" in variable.path for variable in model.trainable_variables)


@pytest.mark.parametrize("name", exhaustive([M2M100, MARIAN, MBART], [M2M100, MBART]))
def test_padding_within_a_text_and_vectors_in_place_of_words(name):
    """M2M100 gives padding no position, on whichever side and of either half; the others count it."""
    model, theirs = both(name, checkpoint(name))
    inputs = {key: value.copy() for key, value in BOTH.items()}
    inputs["input_ids"][0, :3] = inputs["input_ids"][1, 6:] = inputs["input_ids"][2, 4] = 1
    inputs["decoder_input_ids"][1, 2:4] = 1
    assert_same_outputs(model, theirs, inputs)
    vectors = np.random.default_rng(2).normal(size=(3, 9, 32))
    assert_same_outputs(model, theirs, {"inputs_embeds": vectors, "decoder_input_ids": inputs["decoder_input_ids"]})
    assert_same_outputs(model, theirs, {"inputs_embeds": vectors, "decoder_inputs_embeds": vectors[:, :4]})


def test_positions_of_m2m100_have_no_end_and_those_of_bart_do():
    model, theirs = both(M2M100, checkpoint(M2M100))
    ids = np.tile(IDS, (1, 9)).astype(np.int64)
    assert_same_outputs(model, theirs, {"input_ids": ids, "decoder_input_ids": ids[:, :70]})
    bart = ours(BART, checkpoint(BART))
    for inputs in ({"input_ids": ids}, {"input_ids": IDS, "decoder_input_ids": ids}):
        with pytest.raises(ValueError, match=r"longer than the 48 positions"):
            bart(**inputs)


def test_odd_sizes_of_m2m100():
    change = {"d_model": 35, "encoder_attention_heads": 5, "decoder_attention_heads": 7}
    assert_same_outputs(*both(M2M100, checkpoint(M2M100, **change)), BOTH)
    for wrong in ({"d_model": 2}, {"pad_token_id": None}):
        with pytest.raises(ValueError, match="take d_model of 4 or more and a pad_token_id, not"):
            tf_pipeline.TFM2M100Model(tiny_config("m2m_100", "TFM2M100Model", **wrong))


def test_labels_of_mbart_start_with_their_language():
    model = ours(MBART, checkpoint(MBART))
    labels = tf.constant([[5, 6, 3, 70], [8, 3, 71, -100]])
    np.testing.assert_array_equal(model.shifted_right(labels), [[70, 5, 6, 3], [71, 8, 3, 71]])
    with pytest.raises(ValueError, match="needs pad_token_id to make decoder_input_ids"):
        tf_pipeline.TFMBartModel(tiny_config("mbart", "TFMBartModel", pad_token_id=None))(IDS)


@pytest.mark.parametrize("half", exhaustive(["encoder", "decoder"], ["decoder"]))
def test_layers_are_dropped_in_training_alone(half):
    config = tiny_config("bart", "TFBartModel", dropout=0.0, **{f"{half}_layerdrop": 1.0})
    model = tf_pipeline.TFBartModel(config)
    plain, dropped = (model(BOTH, training=training, output_hidden_states=True) for training in (False, True))
    first, *others = dropped[f"{half}_hidden_states"]
    for state in others:
        assert_equal(state, first, atol=0)
    assert np.abs(plain[f"{half}_hidden_states"][1] - first).max() > 1e-3
    model = tf_pipeline.TFBartModel(tiny_config("bart", "TFBartModel", dropout=0.0, **{f"{half}_layerdrop": 0.5}))
    results = {model(BOTH, training=True).last_hidden_state.numpy().tobytes() for _ in range(10)}
    assert 2 <= len(results) <= 2 ** len(others)


@pytest.mark.parametrize("name", ["TFBartModel", "TFMBartModel"])
def test_numbers_that_float16_cannot_hold(name):
    """The encoder's are cut where PyTorch cuts them; the last normalisation of mBART's would hide it."""

    def large(tensors):
        key = "final_layer_norm" if name == "TFBartModel" else "fc2"
        tensors[f"encoder.layers.1.{key}.bias"][:4] = torch.tensor([70000.0, -80000.0, 65000.0, 3.0])

    source = edited(checkpoint(name, encoder_layers=2), large)
    model, theirs = (load(name, source, dtype="float16") for load in (ours, twin))
    rows = model.encoder.layers_[1].within_range(tf.constant([[np.inf, -np.inf, 65504.0, 3.0]], tf.float16))
    np.testing.assert_array_equal(rows, np.array([[64512, -64512, 64512, 3]], np.float16))
    finite = model.encoder.layers_[1].within_range(tf.constant([[65504.0, 3.0]], tf.float16))
    assert float(finite[0, 0]) == (65504 if name == "TFBartModel" else 64512)
    states = model(BOTH).encoder_last_hidden_state.numpy()
    with torch.no_grad():
        expected = theirs(**{key: torch.tensor(x) for key, x in BOTH.items()}).encoder_last_hidden_state.numpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(states, expected, rtol=0.01, atol=0.02)
