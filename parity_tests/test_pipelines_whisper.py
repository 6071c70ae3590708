"""``automatic-speech-recognition`` by Whisper writes what ``transformers``' own PyTorch pipeline writes."""

import json
import logging
from functools import cache

import numpy as np
import pytest
import soundfile
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from typer.testing import CliRunner

from benchmarks import tiny
from parity_tests.checkpoint_helpers import copied
from parity_tests.pipeline_helpers import saved, torch_pipeline
from parity_tests.port_helpers import shared_cache
from parity_tests.sense_helpers import RATE, sound
from tf_pipeline.cli.main import app
from tf_pipeline.pipelines import pipeline
from tf_pipeline.pipelines.automatic_speech_recognition import AutomaticSpeechRecognitionPipeline
from tf_pipeline.pipelines.whisper import WhisperPipeline

pytestmark = pytest.mark.slow

TASK = "automatic-speech-recognition"
LANGUAGES, TASKS = ("en", "fr", "de"), ("translate", "transcribe")
SPECIALS = [
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in (*LANGUAGES, *TASKS)), "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip
WRITE = {"max_new_tokens": 9}


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
        "whisper", vocab_size=len(words) + 40, max_source_positions=50, max_target_positions=32, pad_token_id=end,
        bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, forced_decoder_ids=None,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    known = {
        "lang_to_id": {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in TASKS}, "is_multilingual": True,
        "no_timestamps_token_id": ids["<|notimestamps|>"], "begin_suppress_tokens": [end],
        "suppress_tokens": [*(i for token, i in ids.items() if i != end), *range(len(words), len(words) + 40)],
        "decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    folder = saved(model, words)
    transformers.GenerationConfig(**known).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=1).save_pretrained(folder)
    return folder


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
    texts = [answers(SOUNDS[0], {"generate_kwargs": {"language": name}})["text"] for name in LANGUAGES]
    texts.append(answers(SOUNDS[0], {"generate_kwargs": {"language": "en", "task": "translate"}})["text"])
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
        ({"return_timestamps": True}, "return_timestamps=True is not supported for Whisper"),
        ({"return_timestamps": "word"}, "not supported for Whisper"),
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


def test_a_sound_that_is_too_long_says_how_to_read_it():
    with pytest.raises(ValueError, match=r"1\.5 seconds, but Whisper reads 1 at a time: pass chunk_length_s=1"):
        pipes()[0](sound(0, 24000))
