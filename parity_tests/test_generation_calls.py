"""Calls of ``generate``: where options come from, what is refused, streams, stop strings, graphs and SavedModels."""

import json
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from tensorflow.python.eager.polymorphic_function import polymorphic_function
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.generation.stopping_criteria import StopStringCriteria
from transformers.generation.streamers import BaseStreamer

import tf_pipeline
from parity_tests.generation_helpers import IDS, MASK, generate, pair
from parity_tests.sentences import film_reviews
from parity_tests.tiers import exhaustive
from tf_pipeline.generation import processors
from tf_pipeline.generation.config import _IDLE, _RULES, DEFAULTS, REFUSED, options_of
from tf_pipeline.generation.loop import bucket
from tf_pipeline.generation.stopping import stop_string_met, stop_tables

PAD = {"pad_token_id": 1}
BEAMS = pytest.mark.parametrize("beams", exhaustive([1, 3], [1]))


@pytest.fixture(scope="module")
def gpt2():
    return pair("gpt2")[0]


# ------------------------------------------------------------------------------------------------------------- options


def test_every_option_of_transformers_is_known():
    """Each is honoured, refused by name, or has no meaning without one that is refused."""
    honoured = {*DEFAULTS, *_RULES, *_IDLE}
    honoured |= {*processors.PROCESSORS, *processors.SAMPLERS, *processors.LAST}
    honoured |= {
        "guidance_scale",
        "early_stopping",
        "pad_token_id",
        "bos_token_id",
        "decoder_start_token_id",
        "transformers_version",
    }
    assert options_of(GenerationConfig()).keys() - honoured - REFUSED.keys() == set()
    assert not honoured & REFUSED.keys()


def test_defaults_are_those_of_torch():
    theirs = GenerationConfig._get_default_generation_params()
    assert {name: value for name, value in theirs.items() if name in DEFAULTS} == DEFAULTS
    assert {name for name, value in theirs.items() if value is not None} - DEFAULTS.keys() <= {*REFUSED, *_IDLE}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"penalty_alpha": 0.6}, ValueError, "contrastive"),
        ({"num_beam_groups": 2}, ValueError, "groups of beams"),
        ({"assistant_model": object()}, ValueError, "no second model proposes tokens"),
        ({"output_attentions": True}, ValueError, "call the model on the sequences"),
        ({"cache_implementation": "quantized"}, ValueError, "one kind"),
        ({"guidance_scale": "strong"}, ValueError, "guidance_scale is 'strong', but has to be a number"),
        ({"negative_prompt_ids": IDS}, ValueError, "with guidance_scale alone"),
        ({"guidance_scale": 2.0, "negative_prompt_ids": IDS[:2]}, ValueError, "2 rows, but input_ids have 3"),
        ({"guidance_scale": 2.0, "negative_prompt_attention_mask": MASK}, ValueError, "without negative_prompt_ids"),
        (
            {"guidance_scale": 2.0, "negative_prompt_ids": np.tile(IDS + 1, (1, 12)), "max_new_tokens": 9},
            ValueError,
            "exceed 64 positions",
        ),
        ({"temprature": 0.5}, TypeError, "did you mean temperature"),
        ({"max_new_token": 5}, TypeError, "did you mean max_new_tokens"),
        ({"temperature": 0.0, "do_sample": True}, ValueError, "leave do_sample out"),
        ({"top_p": 1.5, "do_sample": True}, ValueError, "top_p is 1.5, but has to be a number from 0 to 1"),
        ({"repetition_penalty": -1.0}, ValueError, "greater than 0"),
        ({"no_repeat_ngram_size": 1.5}, ValueError, "whole number"),
        ({"bad_words_ids": [3]}, ValueError, "list of lists"),
        ({"sequence_bias": {"a": 1.0}}, ValueError, "dictionary of tuples"),
        ({"sequence_bias": [[[99], 1.0]]}, ValueError, "token 99, which is outside 0 … 98"),
        ({"forced_eos_token_id": 400}, ValueError, "token 400"),
        ({"num_beams": 2, "num_return_sequences": 3}, ValueError, "num_return_sequences"),
        ({"num_return_sequences": 3}, ValueError, "num_return_sequences"),
        ({"early_stopping": "always", "num_beams": 2}, ValueError, "early_stopping"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens"),
        ({"max_length": 5}, ValueError, "have 5 columns already, but max_length is 5"),
        ({"max_new_tokens": 61}, ValueError, "5 tokens and 61 new ones are more than the 64 positions"),
        ({"exponential_decay_length_penalty": (1, 1.1), "eos_token_id": None}, ValueError, "eos_token_id"),
        ({"stop_strings": "x"}, ValueError, "pass tokenizer="),
        ({"seed": "x", "do_sample": True}, ValueError, "seed"),
        ({"attention_mask": MASK[:, 1:]}, ValueError, "attention_mask has shape"),
        ({"input_ids": IDS}, TypeError, "input_ids is given twice"),
        ({"decoder_input_ids": IDS}, TypeError, "does not take"),
        ({"generation_config": MASK}, TypeError, "pass attention_mask="),
        ({"streamer": BaseStreamer(), "num_beams": 2}, ValueError, "num_beams=1"),
        ({"streamer": 5}, ValueError, "streamer is 5, but has to have put and end"),
        ({"logits_processor": 5}, ValueError, "logits_processor is 5, but has to be a list of callables"),
        ({"stopping_criteria": [5]}, ValueError, r"stopping_criteria is \[5\], but has to be a list of callables"),
        ({"stop_strings": "x", "tokenizer": 5}, ValueError, "pass tokenizer= to generate; got 5"),
        ({"pad_token_id": "x"}, ValueError, "pad_token_id is 'x', but has to be a token id"),
        ({"pad_token_id": [1]}, ValueError, "pad_token_id is"),
        ({"pad_token_id": 1.5}, ValueError, "pad_token_id is 1.5"),
    ],
)
def test_what_cannot_be_honoured_is_refused(gpt2, options, error, message):
    with warnings.catch_warnings(), pytest.raises(error, match=message):
        warnings.simplefilter("ignore")
        gpt2.generate(IDS, **options)


@pytest.mark.parametrize(
    "options",
    exhaustive(
        [
            {"no_repeat_ngram_size": 10**9},
            {"no_repeat_ngram_size": 10**12},
            {"encoder_no_repeat_ngram_size": 10**9},
            {"min_length": 10**12, "eos_token_id": 2},
            {"suppress_tokens": [10**12]},
            {"eos_token_id": 10**12},
            {"prompt_lookup_num_tokens": 10**10, "max_matching_ngram_size": 10**10},
        ],
        [{"no_repeat_ngram_size": 10**12}, {"eos_token_id": 10**12}],
    ),
)
def test_numbers_beyond_all_tokens_change_nothing(gpt2, options):
    expected = gpt2.generate(IDS[1:2], max_new_tokens=9, **PAD)
    np.testing.assert_array_equal(gpt2.generate(IDS[1:2], max_new_tokens=9, **PAD | options), expected)


@pytest.mark.slow
def test_more_likely_tokens_than_there_are(gpt2):
    drawn = [gpt2.generate(IDS, max_new_tokens=9, do_sample=True, seed=1, top_k=count, **PAD) for count in (0, 10**12)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros([2, 0], int), "no token to go on from"),
        (np.array([1, 2]), "batch dimension"),
        (np.array([[1.0]]), "ids are integers"),
        (np.array([["text"]]), "Encode text first"),
        ([[1, 2], [3]], "padding=True"),
        (np.array([[99]]), "holds 99, which is outside"),
        (np.array([[-1]]), "holds -1"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(gpt2, ids, message):
    with pytest.raises(ValueError, match=message):
        gpt2.generate(ids, max_new_tokens=2)


def test_a_text_fills_all_positions(gpt2):
    """The last token is not read, and needs no position."""
    theirs = pair("gpt2")[1]
    options = {"max_new_tokens": 60, "eos_token_id": None} | PAD
    written = generate(gpt2, IDS[1:2], MASK[1:2], **options)
    np.testing.assert_array_equal(written, generate(theirs, IDS[1:2], MASK[1:2], **options))
    assert written.shape == [1, 65]


def test_warnings_of_torch_are_given(gpt2):
    with pytest.warns(UserWarning, match="padded on the right"):
        gpt2.generate(IDS[:, ::-1].copy(), attention_mask=MASK[:, ::-1].copy(), max_new_tokens=2, **PAD)
    with pytest.warns(UserWarning, match="without an attention_mask"):
        gpt2.generate(IDS, max_new_tokens=2)
    with pytest.warns(UserWarning, match="max_length=9 is not"):
        generate(gpt2, max_new_tokens=2, max_length=9, **PAD)
    with pytest.warns(UserWarning, match="min_length=9 cannot be reached"):
        generate(gpt2, max_length=7, min_length=9, **PAD)
    with pytest.warns(UserWarning, match="up to 20 tokens"):
        assert generate(gpt2, eos_token_id=None, **PAD).shape[1] == 25


def test_options_come_from_the_checkpoint_then_the_config_then_the_call(tmp_path, gpt2):
    gpt2.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "generation_config.json").read_text())
    assert stored["eos_token_id"] == gpt2.config.eos_token_id
    GenerationConfig(max_new_tokens=3, eos_token_id=None, pad_token_id=1, num_beams=2).save_pretrained(tmp_path)
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    np.testing.assert_array_equal(generate(model), generate(theirs))
    assert generate(model).shape[1] == 8
    assert generate(model, generation_config=GenerationConfig(max_new_tokens=4)).shape[1] == 9
    assert generate(model, max_new_tokens=5).shape[1] == 10
    model.generation_config.max_new_tokens = 2
    assert generate(model).shape[1] == 7
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["max_new_tokens"] == 2


def test_a_dictionary_of_a_tokenizer_is_an_input(gpt2):
    encoded = {"input_ids": tf.constant(IDS), "attention_mask": tf.constant(MASK)}
    np.testing.assert_array_equal(
        gpt2.generate(encoded, max_new_tokens=3, **PAD), generate(gpt2, max_new_tokens=3, **PAD)
    )


@BEAMS
def test_own_processors_and_criteria_are_called(gpt2, beams):
    def no_even_tokens(input_ids, scores):
        return tf.where(tf.range(tf.shape(scores)[1]) % 2 == 0, float("-inf"), scores)

    def after_two(input_ids, scores):
        return tf.fill(tf.shape(input_ids)[:1], tf.shape(input_ids)[1] >= 7)

    written = generate(
        gpt2, max_new_tokens=6, num_beams=beams, eos_token_id=2, **PAD,
        logits_processor=[no_even_tokens], stopping_criteria=[after_two],
    ).numpy()  # fmt: skip
    assert written.shape[1] == 7
    assert (written[:, 5:] % 2 == 1).all()


def test_a_buckets_capacity_grows_with_the_length():
    assert [bucket(n) for n in (1, 64, 65, 512, 513, 1024, 1025, 5000)] == [64, 64, 128, 512, 640, 1024, 1280, 5120]
    assert bucket(100, 120) == 120


# ------------------------------------------------------------------------------------------------------------- streams


class Recorder(BaseStreamer):
    def __init__(self):
        self.values, self.is_over = [], False

    def put(self, value):
        assert not self.is_over
        self.values.append(np.asarray(value).tolist())

    def end(self):
        self.is_over = True


def test_a_stream_has_the_tokens_in_turn(gpt2):
    ids, mask = IDS[1:2], MASK[1:2]
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True} | PAD
    ours, theirs = Recorder(), Recorder()
    streamed = generate(gpt2, ids, mask, streamer=ours, **options)
    generate(pair("gpt2")[1], ids, mask, streamer=theirs, **options)
    assert ours.values == theirs.values
    assert ours.is_over
    whole = generate(gpt2, ids, mask, **options)
    np.testing.assert_array_equal(streamed.sequences, whole.sequences)
    np.testing.assert_allclose(streamed.scores, whole.scores, atol=1e-5)


def test_a_stream_samples_as_a_loop_does(gpt2):
    options = {"do_sample": True, "seed": 3, "max_new_tokens": 6} | PAD
    np.testing.assert_array_equal(generate(gpt2, streamer=Recorder(), **options), generate(gpt2, **options))


@BEAMS
def test_time_ends_a_text(gpt2, beams):
    options = {"max_new_tokens": 50, "eos_token_id": None, "num_beams": beams} | PAD
    assert generate(gpt2, max_time=1e3, **options).shape[1] == 55
    assert generate(gpt2, max_time=0.0, **options).shape[1] == 6


class Slow(Recorder):
    def put(self, value):
        time.sleep(0.05)


def test_time_is_seen_between_tokens(gpt2):
    written = generate(gpt2, max_time=0.2, streamer=Slow(), max_new_tokens=50, eos_token_id=None, **PAD)
    assert 6 < written.shape[1] < 20


# -------------------------------------------------------------------------------------------------------- stop strings


def trained_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE() if kind != "WordPiece" else models.WordPiece(unk_token="[UNK]"))
    if kind == "ByteLevel":
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"])
    backend.train_from_iterator(film_reviews()[:200], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]" if kind == "WordPiece" else None)


@pytest.mark.parametrize("kind", ["ByteLevel", "WordPiece"])
def test_stop_strings_are_met_where_torch_meets_them(kind):
    tokenizer = trained_tokenizer(kind)
    strings = ["the", "is a", "s", "e e e", "ana", "nana"]
    theirs = StopStringCriteria(tokenizer, strings)
    table = stop_tables(strings, tokenizer)
    ids = np.random.default_rng(0).integers(0, len(tokenizer) + 5, [3000, 7])
    text = tokenizer(" ".join(film_reviews()[:40]), add_special_tokens=False)["input_ids"]
    ids = np.concatenate([ids, np.lib.stride_tricks.sliding_window_view(text, 7)])
    met = stop_string_met(tf.constant(ids, tf.int32), tf.constant(7), table).numpy()
    expected = theirs(torch.tensor(ids), None).numpy()
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(met, expected)


@BEAMS
def test_stop_strings_end_texts_as_in_torch(gpt2, beams):
    """The model's vocabulary is smaller than the tokenizer's, so that each of its tokens has a text."""
    tokenizer = trained_tokenizer("ByteLevel")
    theirs = pair("gpt2")[1]
    written = generate(gpt2, max_new_tokens=8, eos_token_id=None, **PAD).numpy()
    third = tokenizer.convert_ids_to_tokens(int(written[1, 7]))
    options = {"stop_strings": [third, "zz"], "max_new_tokens": 8, "eos_token_id": 2, "num_beams": beams} | PAD
    ours = generate(gpt2, tokenizer=tokenizer, **options)
    np.testing.assert_array_equal(ours, generate(theirs, tokenizer=tokenizer, **options))


def test_stop_strings_that_no_token_ends_are_refused():
    with pytest.raises(ValueError, match="No token"):
        stop_tables("→", trained_tokenizer("WordPiece"))


# -------------------------------------------------------------------------------------------------------------- graphs


def test_generate_runs_inside_a_graph(gpt2, caplog):
    """AutoGraph leaves it alone: what it cannot convert, it warns of."""
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    caplog.set_level("WARNING", logger=logger.name)

    @tf.function
    def written(ids, mask):
        return gpt2.generate(ids, attention_mask=mask, max_new_tokens=5, **PAD)

    expected = generate(gpt2, max_new_tokens=5, **PAD)
    for result in (
        written(tf.constant(IDS), tf.constant(MASK)),
        tf.function(gpt2.generate)(tf.constant(IDS), attention_mask=tf.constant(MASK), max_new_tokens=5, **PAD),
    ):
        np.testing.assert_array_equal(result, expected)
    logger.removeHandler(caplog.handler)
    assert "AutoGraph" not in caplog.text


@pytest.mark.parametrize("model_type", exhaustive(["gpt2", "bart", "plbart"], ["gpt2"]))
def test_a_saved_model_generates(model_type, tmp_path):
    ours, theirs = pair(model_type)
    options = {"max_new_tokens": 6, "num_beams": 2, "eos_token_id": [5, 17]} | PAD
    holder = tf.Module()
    holder.model = ours
    tf.saved_model.save(holder, str(tmp_path), {"generate": ours.generate_signature(**options)})
    signature = tf.saved_model.load(str(tmp_path)).signatures["generate"]
    for ids, mask in ((IDS, MASK), (IDS[:1, 2:], MASK[:1, 2:])):
        result = signature(input_ids=tf.constant(ids, tf.int32), attention_mask=tf.constant(mask, tf.int32))
        np.testing.assert_array_equal(result["sequences"], generate(theirs, ids, mask, **options))
    too_long = tf.ones([1, 70], tf.int32)
    if model_type == "gpt2":
        with pytest.raises(tf.errors.InvalidArgumentError, match="exceed 64 positions"):
            signature(input_ids=too_long, attention_mask=too_long)


def test_a_graph_refuses_what_needs_python(gpt2):
    with pytest.raises(ValueError, match="between tokens"):
        tf.function(lambda: gpt2.generate(IDS, max_time=1.0, max_new_tokens=2, **PAD), autograph=False)()


@pytest.mark.slow
def test_weights_and_layers_may_change(tmp_path):
    """New values are read by the graph that there is; quantized layers have other variables, and get another graph."""
    pair("gpt2")[0].save_pretrained(tmp_path)
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(tmp_path)
    options = {"max_new_tokens": 1, "eos_token_id": None} | PAD
    seen = []
    for change in (
        lambda: None,
        lambda: model.set_weights([np.random.default_rng(1).permutation(weights) for weights in model.get_weights()]),
        lambda: model.quantize("int8"),
    ):
        change()
        written = generate(model, IDS[1:2], MASK[1:2], **options, return_dict_in_generate=True, output_logits=True)
        np.testing.assert_allclose(written.logits[0], model(IDS[1:2]).logits[:, -1], atol=1e-5)
        seen.append(written.logits[0].numpy())
    assert not np.allclose(seen[0], seen[1], atol=1e-3)
    assert not np.allclose(seen[1], seen[2], atol=1e-3)


def test_a_body_does_not_generate():
    from parity_tests.port_helpers import checkpoint

    with pytest.raises(ValueError, match="predicts no tokens"):
        tf_pipeline.TFAutoModel.from_pretrained(checkpoint("gpt2", "TFAutoModelForCausalLM")).generate(IDS)


@pytest.mark.slow
def test_graphs_of_several_kinds_and_models_warn_of_no_retracing(monkeypatch):
    monkeypatch.setattr(
        polymorphic_function,
        "_frequent_tracing_detector_manager",
        polymorphic_function._FrequentTracingDetectorManager(),
    )
    said = []
    monkeypatch.setattr(tf.get_logger(), "warning", lambda text, *_, **__: said.append(text))
    kinds = [{"num_beams": beams} for beams in range(1, 8)]  # a graph each
    model = tf_pipeline.TFAutoModelForCausalLM.from_pretrained(pair("gpt2")[1].config._name_or_path)
    for options in kinds:
        model.generate(IDS, max_new_tokens=2, **PAD, **options)
    assert not said
