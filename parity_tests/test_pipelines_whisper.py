"""``automatic-speech-recognition`` by Whisper writes what ``transformers``' own PyTorch pipeline writes."""

import json
import logging
from functools import cache

import numpy as np
import pytest
import soundfile
import tensorflow as tf
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import WhisperForConditionalGeneration
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor
from typer.testing import CliRunner

from benchmarks import tiny
from parity_tests.checkpoint_helpers import copied
from parity_tests.pipeline_helpers import answer_without_torch, saved, torch_pipeline
from parity_tests.port_helpers import shared_cache
from parity_tests.sense_helpers import RATE, sound
from tf_pipeline.cli.main import app
from tf_pipeline.pipelines import pipeline
from tf_pipeline.pipelines.automatic_speech_recognition import AutomaticSpeechRecognitionPipeline
from tf_pipeline.pipelines.whisper import WhisperPipeline
from tf_pipeline.pipelines.whisper_times import TimesInPairs, finished_tokens

pytestmark = pytest.mark.slow

TASK = "automatic-speech-recognition"
LANGUAGES, TASKS = ("en", "fr", "de"), ("translate", "transcribe")
SPECIALS = [
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in (*LANGUAGES, *TASKS)), "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip
WRITE = {"max_new_tokens": 9}
# Of the decoder, whose attention tells when words were said.
HEADS = [[0, 1], [1, 2], [1, 0]]


def tokenizer() -> transformers.WhisperTokenizer:
    letters = {letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}
    made = transformers.WhisperTokenizer(vocab=letters | {SPECIALS[0]: len(letters)}, merges=[])
    made.add_special_tokens({"additional_special_tokens": SPECIALS[1:]})
    return made


@cache
def checkpoint():
    """A Whisper that reads a second at a time, whose language and task tokens differ in what they lead to."""
    shared_cache()
    words = tokenizer()
    ids = dict(zip(SPECIALS, words.convert_tokens_to_ids(SPECIALS), strict=True))
    start, end = ids["<|startoftranscript|>"], ids["<|endoftext|>"]
    config = tiny.tiny_config(
        "whisper", vocab_size=len(words) + 51, max_source_positions=50, max_target_positions=32, pad_token_id=end,
        bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, forced_decoder_ids=None,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config)
    known = {
        "lang_to_id": {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in TASKS}, "is_multilingual": True,
        "no_timestamps_token_id": ids["<|notimestamps|>"], "begin_suppress_tokens": [end],
        "suppress_tokens": [*(i for token, i in ids.items() if i != end), *range(len(words), len(words) + 51)],
        "decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    folder = saved(model, words)
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight[list(ids.values())] *= 4
    model.save_pretrained(folder)
    transformers.GenerationConfig(**known).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=1).save_pretrained(folder)
    return folder


@cache
def timed():
    """Pipelines of the same model whose tokens of time are not suppressed, ours and PyTorch's."""
    folder = copied(checkpoint())
    path = folder / "generation_config.json"
    known = json.loads(path.read_text())
    first = known["no_timestamps_token_id"] + 1
    known["suppress_tokens"] = [token for token in known["suppress_tokens"] if token < first]
    path.write_text(json.dumps(known | {"max_initial_timestamp_index": 5, "alignment_heads": HEADS}))
    return pipeline(TASK, folder), torch_pipeline(TASK, folder)


@cache
def pipes():
    folder = checkpoint()
    return pipeline(TASK, folder), torch_pipeline(TASK, folder)


def answers(inputs, options=None):
    """Our answers, which are those of PyTorch's pipeline."""
    ours, theirs = pipes()
    options = options or {}
    options |= {"generate_kwargs": WRITE | options.get("generate_kwargs", {})}
    found = ours(inputs, **options)
    assert found == theirs(inputs, **options)
    return found


SOUNDS = [sound(seed, samples) for seed, samples in enumerate((4000, 16000, 9000))]


@pytest.mark.parametrize(
    "options",
    [{}, {"language": "french"}, {"language": "de", "task": "translate"}, {"task": "transcribe", "num_beams": 1}],
    ids=str,
)
def test_texts_are_those_of_pytorch(options):
    found = answers(SOUNDS, {"generate_kwargs": options})
    assert len({one["text"] for one in found}) > 1
    assert pipes()[0](SOUNDS, batch_size=1, generate_kwargs=WRITE | options) == found


def test_language_and_task_change_a_text():
    kinds = [*({"language": name} for name in LANGUAGES), {"language": "en", "task": "translate"}]
    texts = [tuple(answers(one, {"generate_kwargs": kind})["text"] for one in SOUNDS) for kind in kinds]
    assert len({*texts}) > 1


@pytest.mark.parametrize("options", [{"chunk_length_s": 0.5}, {"chunk_length_s": 1, "stride_length_s": [0.2, 0.1]}])
def test_long_sounds_in_pieces(options, caplog):
    long = {"raw": sound(3, 3 * RATE + 777), "sampling_rate": RATE, "speaker": "Ann"}
    ours, theirs = pipes()
    with caplog.at_level(logging.WARNING):
        found = ours(dict(long), generate_kwargs=WRITE, **options)
    assert "pieces of a sound" in caplog.text
    assert found["text"] == theirs(dict(long), generate_kwargs=WRITE, **options)["text"] and len(found["text"]) > 9
    assert set(found["speaker"]) == {"Ann"}
    caplog.clear()
    ours(dict(long), generate_kwargs=WRITE, ignore_warning=True, **options)
    assert not caplog.text


LONG = [sound(seed, samples) for seed, samples in ((5, 3 * RATE + 777), (6, RATE // 2), (7, 2 * RATE))]


@pytest.mark.parametrize(
    "options",
    [
        {}, {"return_timestamps": True}, {"return_timestamps": True, "return_language": True},
        {"return_timestamps": True, "chunk_length_s": 0.8}, {"generate_kwargs": {"return_timestamps": True}},
        {"return_timestamps": True, "generate_kwargs": {"language": "fr", "num_beams": 1, "max_new_tokens": 14}},
    ],
    ids=str,
)  # fmt: skip
def test_times_and_windows_are_those_of_pytorch(options):
    """A sound of several windows is read from the last time that was written, and a short one too."""
    ours, theirs = timed()
    options = options | {"generate_kwargs": WRITE | options.get("generate_kwargs", {})}
    expected = [theirs(one, **options) for one in LONG]
    assert ours(LONG, **options) == expected
    assert ("return_timestamps" in options) == ("chunks" in expected[0])
    if "chunks" in expected[0]:
        assert any(len(one["chunks"]) > 2 for one in expected)
        assert any(chunk["timestamp"][0] > 1 for one in expected for chunk in one["chunks"])


def test_the_checkpoint_may_ask_for_times():
    ours, _ = timed()
    ours.model.generation_config.return_timestamps = True
    try:
        assert ours(LONG[1], generate_kwargs=WRITE)["chunks"]
    finally:
        del ours.model.generation_config.return_timestamps


@pytest.mark.parametrize(
    "options",
    [
        {}, {"generate_kwargs": {"language": "fr", "num_beams": 1, "max_new_tokens": 14}},
        {"generate_kwargs": {"num_beams": 3, "max_new_tokens": 20}}, {"generate_kwargs": {"max_new_tokens": 2}},
        {"chunk_length_s": 0.8}, {"chunk_length_s": 1, "stride_length_s": [0.2, 0.1]},
    ],
    ids=str,
)  # fmt: skip
def test_times_of_words_are_those_of_pytorch(options):
    """By attention, in sounds of several windows, of less than one, and in pieces, together and one by one."""
    ours, theirs = timed()
    options = options | {"return_timestamps": "word", "generate_kwargs": WRITE | options.get("generate_kwargs", {})}
    expected = [theirs(one, **options) for one in LONG]
    assert ours(LONG, **options) == expected
    assert ours(LONG[1], **options) == expected[1]
    words = [chunk for one in expected for chunk in one["chunks"]]
    assert len({time for word in words for time in word["timestamp"]}) > 2
    assert any(word["timestamp"][0] > 1 for word in words)


def test_words_with_their_language_have_the_same_times():
    """PyTorch's pipeline gives them those of the next token: it puts the language before the tokens alone."""
    ours, _ = timed()
    found = ours(LONG, return_timestamps="word", generate_kwargs=WRITE)
    with_language = ours(LONG, return_timestamps="word", return_language=True, generate_kwargs=WRITE)
    assert {word.pop("language") for one in with_language for word in one["chunks"]} <= {"english", "french", "german"}
    assert with_language == found


def test_words_take_the_heads_that_the_checkpoint_names_now():
    ours, theirs = timed()
    options = {"return_timestamps": "word", "generate_kwargs": WRITE}
    before = ours(LONG[0], **options)
    configs = [pipe.model.generation_config for pipe in timed()]
    try:
        for config in configs:
            config.alignment_heads = [[0, 3]]
        found = ours(LONG[0], **options)
        assert found == theirs(LONG[0], **options)
    finally:
        for config in configs:
            config.alignment_heads = HEADS
    assert found["text"] == before["text"] and found != before
    assert ours(LONG[0], **options) == before


def test_words_may_be_asked_for_where_the_checkpoint_asks_for_segments_and_by_generate_alone():
    ours, theirs = timed()
    words = ours(LONG[1], return_timestamps="word", generate_kwargs=WRITE)
    ours.model.generation_config.return_timestamps = True
    try:
        assert ours(LONG[1], return_timestamps="word", generate_kwargs=WRITE) == words
    finally:
        del ours.model.generation_config.return_timestamps
    options = WRITE | {"return_timestamps": "word"}
    assert ours(LONG[1], generate_kwargs=options) == theirs(LONG[1], generate_kwargs=options) == {"text": words["text"]}


def test_words_of_translations_are_warned_of(caplog):
    for kinds in ({"task": "transcribe"}, {"task": "translate"}):
        with caplog.at_level(logging.WARNING):
            timed()[0](LONG[1], return_timestamps="word", generate_kwargs=WRITE | kinds)
        assert ("those of a translation" in caplog.text) == (kinds["task"] == "translate")


def test_times_of_words_without_pytorch(tmp_path):
    """From a folder that the pipeline has saved."""
    ours, _ = timed()
    ours.save_pretrained(tmp_path / "ported")
    soundfile.write(tmp_path / "sound.wav", LONG[2], RATE, "FLOAT")
    options = {"return_timestamps": "word", "generate_kwargs": WRITE}
    found = answer_without_torch(tmp_path, TASK, "sound.wav", **options)
    assert found == json.loads(json.dumps(ours(LONG[2], **options)))


def test_words_that_the_model_cannot_time(monkeypatch):
    ours, _ = timed()
    config, model = ours.model.generation_config, ours.model
    for heads, message in (([[0, 1], [1, 4]], r"names \[1, 4\], but the decoder has 2 layers of 4 heads"),
                           ([], "take alignment_heads in the checkpoint's"), ([[2, 0]], r"names \[2, 0\]"),
                           *((wrong, "has to be a list of pairs")
                             for wrong in ([[0]], [0, 1], 5, [None], [[0.0, 1.0]], "abc"))):  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=message):
            patch.setattr(config, "alignment_heads", heads)
            ours(LONG[1], return_timestamps="word")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="median_filter_width of config.json is 4"):
        patch.setattr(model.config, "median_filter_width", 4)
        ours(LONG[1], return_timestamps="word")
    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match="ported without the attentions"),
    ):
        patch.delitem(model.graph.outputs, "cross_attentions")
        ours(LONG[1], return_timestamps="word")


def test_rules_of_times_are_those_of_pytorch():
    """On texts of every kind at random, not only on those that a model writes."""
    rng, first, end = np.random.default_rng(0), 20, 9
    for latest in (None, 3):
        config = transformers.GenerationConfig(eos_token_id=end)
        config.no_timestamps_token_id, config.max_initial_timestamp_index = first - 1, latest
        theirs = WhisperTimeStampLogitsProcessor(config, begin_index=2)
        for length in range(2, 9):
            ids = np.where(rng.random((40, length)) < 0.5, rng.integers(0, first, (40, length)), 0)
            ids = np.where(ids > 0, ids, first + np.sort(rng.integers(0, 12, (40, length)))).astype(np.int32)
            scores = rng.normal(size=(40, 32)).astype(np.float32) * 2
            found = TimesInPairs(2, first, end, latest)(tf.constant(ids), tf.constant(scores)).numpy()
            expected = theirs(torch.tensor(ids), torch.tensor(scores)).numpy()
            np.testing.assert_array_equal(found, expected)


def test_what_was_heard_of_a_window_is_pytorchs():
    """On tokens with times at random: which count, and where the next window begins."""
    rng, first = np.random.default_rng(0), 20
    lengths = set()
    for _ in range(400):
        tokens = np.where(rng.random(rng.integers(1, 9)) < 0.5, rng.integers(0, first, 1), first + rng.integers(1, 40))
        segments, offset = WhisperForConditionalGeneration._retrieve_segment(
            torch.tensor(tokens), [{}], torch.zeros(1), first, torch.tensor([90]), 0.02, 0.01, 2, 0, 0, False,
            torch.zeros(1, 3),
        )  # fmt: skip
        kept, frames = finished_tokens(tokens, first, 90, 2)
        assert kept.tolist() == torch.cat([one["tokens"] for one in segments]).tolist() and frames == int(offset)
        lengths.add(len(tokens) - len(kept))
    assert len(lengths) > 2


def test_languages_that_were_heard():
    found = answers(SOUNDS, {"return_language": True})
    assert {chunk["language"] for one in found for chunk in one["chunks"]} <= {"english", "french", "german"}


@pytest.mark.parametrize(
    "values",
    [
        {"language": "fr", "task": "translate"},
        {"is_multilingual": False, "lang_to_id": None, "task_to_id": None},
        {"forced_decoder_ids": [[1, None], [2, 262]]},
        {"forced_decoder_ids": [[1, None], [2, 262]], "lang_to_id": None},
    ],
    ids=str,
)
def test_beginnings_that_the_checkpoint_names(values):
    folder = copied(checkpoint())
    path = folder / "generation_config.json"
    known = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))
    ours, theirs = pipeline(TASK, folder), torch_pipeline(TASK, folder)
    assert ours(SOUNDS, generate_kwargs=WRITE) == theirs(SOUNDS, generate_kwargs=WRITE)


def test_stages_by_hand():
    ours, _ = pipes()
    (row,) = ours.preprocess(SOUNDS[0])
    outputs = ours.forward(row, generate_kwargs=WRITE)
    assert outputs["tokens"].dtype == np.int32 and len(outputs["tokens"]) == 1
    assert ours.postprocess([outputs]) == ours(SOUNDS[0], generate_kwargs=WRITE)
    ours, _ = timed()
    rows = ours.preprocess({"raw": LONG[0], "sampling_rate": RATE}, chunk_length_s=0.8, ignore_warning=True)
    outputs = [ours.forward(row, return_timestamps="word", generate_kwargs=WRITE) for row in rows]
    assert all(one["token_timestamps"].shape == one["tokens"].shape for one in outputs) and len(outputs) > 3
    assert {one["token_timestamps"].dtype for one in outputs} == {np.dtype("float32")}
    expected = ours(LONG[0], return_timestamps="word", chunk_length_s=0.8, ignore_warning=True, generate_kwargs=WRITE)
    assert ours.postprocess(outputs, return_timestamps="word") == expected


def test_the_class_of_the_pipeline_follows_the_model(tmp_path):
    ours, _ = pipes()
    assert type(ours) is WhisperPipeline
    again = AutomaticSpeechRecognitionPipeline(ours.model, feature_extractor=ours.feature_extractor,
                                               tokenizer=ours.tokenizer)  # fmt: skip
    assert type(again) is WhisperPipeline
    ours.save_pretrained(tmp_path / "saved")
    loaded = pipeline(TASK, tmp_path / "saved")
    assert loaded(SOUNDS[0], generate_kwargs=WRITE) == ours(SOUNDS[0], generate_kwargs=WRITE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stride_length_s": 1}, "stride_length_s is 1, and there are no pieces: pass chunk_length_s= too"),
        ({"return_timestamps": "word"}, "Times of words take alignment_heads in the checkpoint's generation_config"),
        ({"generate_kwargs": {"return_timestamps": "word"}}, "Times of words take alignment_heads"),
        ({"return_timestamps": "char"}, "not supported for Whisper, which gives times of segments, True, or of words"),
        ({"generate_kwargs": {"no_speech_threshold": 0.6}}, "no_speech_threshold=0.6 is not supported for Whisper"),
        ({"decoder_kwargs": {"x": 1}}, "not supported for Whisper"),
        ({"generate_kwargs": {"language": "klingon"}}, "'klingon' is not supported by .*; it has de, en, fr"),
        ({"generate_kwargs": {"language": "spanish"}}, "'spanish' is not supported by this checkpoint"),
        ({"generate_kwargs": {"task": "sing"}}, "'sing' is not supported; transcribe, translate can be"),
        ({"generate_kwargs": {"nonsense": 3}}, "nonsense"),
        ({"chunk_length_s": 2}, "at most 1 seconds at a time"),
        ({"chunk_length_s": 0.5, "stride_length_s": 0.3}, "superior to stride"),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_are_refused(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pipes()[0](SOUNDS[0], **given)


def test_the_command_line_takes_a_language(tmp_path):
    ours, _ = pipes()
    path = tmp_path / "sound.wav"
    soundfile.write(path, SOUNDS[0], RATE, "FLOAT")
    command = ["run", TASK, "--model", str(checkpoint()), "--language", "french", "--to-english", "--json", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    expected = ours(str(path), generate_kwargs={"language": "french", "task": "translate"})
    assert json.loads(result.stdout) == expected, result.stdout
    result = CliRunner().invoke(app, [*command, "--return-timestamps", "segment"])
    assert result.exit_code == 0 and json.loads(result.stdout).keys() == {"text", "chunks"}, result.output
    result = CliRunner().invoke(app, [*command, "--return-timestamps", "word"])
    assert result.exit_code == 2 and "take alignment_heads" in result.output


def test_the_command_line_gives_words(tmp_path):
    ours, _ = timed()
    path = tmp_path / "sound.wav"
    soundfile.write(path, LONG[2], RATE, "FLOAT")
    folder = ours.model.config._name_or_path
    command = ["run", TASK, "--model", folder, "--return-timestamps", "word", "--json", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    expected = ours(str(path), return_timestamps="word")
    assert json.loads(result.stdout) == json.loads(json.dumps(expected)) and len(expected["chunks"]) > 2


def test_a_long_sound_needs_tokens_of_time():
    folder = copied(checkpoint())
    path = folder / "generation_config.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in known.items() if name != "no_timestamps_token_id"}))
    ours = pipeline(TASK, folder)
    for sounds, options in ((LONG[0], {}), (LONG[1], {"return_timestamps": True})):
        with pytest.raises(ValueError, match="take no_timestamps_token_id in the checkpoint's"):
            ours(sounds, **options)
