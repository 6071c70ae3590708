"""Pipelines that write: answers are those of PyTorch's pipeline, or of its parts where ``transformers`` 5 has none."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers.pipelines.text_generation import ReturnType
from typer.testing import CliRunner

from parity_tests.checkpoint_helpers import copied, edited
from parity_tests.pipeline_helpers import (
    SPECIFIC,
    bart_checkpoint,
    decoder_checkpoint,
    encoder_decoder_checkpoint,
    languages_checkpoint,
    torch_pipeline,
)
from parity_tests.tiers import exhaustive
from tf_pipeline import pipeline
from tf_pipeline.cli.main import app
from tf_pipeline.pipelines.tasks import LEFT_OUT

PROMPTS = ["Once upon a time", "My tart", "Hello, how are you doing today my friend? I have", "The answer is"]
CHAT = [{"role": "user", "content": "Hello"}]
BEGUN = [*CHAT, {"role": "assistant", "content": "Well, "}]
GREEDY = {"do_sample": False, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def decoder() -> Path:
    return decoder_checkpoint()


@pytest.fixture(scope="module")
def encoder_decoder() -> Path:
    return encoder_decoder_checkpoint()


@pytest.fixture(scope="module")
def generators(decoder):
    return pipeline("text-generation", decoder), torch_pipeline("text-generation", decoder)


@pytest.mark.parametrize(
    "inputs",
    exhaustive([PROMPTS[0], PROMPTS, PROMPTS[1:2], CHAT, [CHAT, BEGUN]], [PROMPTS[0], PROMPTS, CHAT]),
    ids=repr,
)
@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        {"do_sample": False, "max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2},
        GREEDY | {"return_full_text": False},
        GREEDY | {"return_tensors": True},
        GREEDY | {"return_type": ReturnType.NEW_TEXT},
        {"do_sample": False, "max_length": 40},
        GREEDY | {"eos_token_id": [5, 270], "skip_special_tokens": False},
    ],
    ids=repr,
)
def test_continuations(generators, inputs, options):
    ours, theirs = generators
    assert ours(inputs, **options) == theirs(inputs, **options)


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ("", GREEDY),
        (PROMPTS, GREEDY | {"prefix": "Hello "}),
        (PROMPTS, GREEDY | {"max_new_tokens": 20, "stop_sequence": "a"}),
        (PROMPTS[2] * 9, GREEDY | {"handle_long_generation": "hole"}),
        (BEGUN, GREEDY | {"continue_final_message": False}),
        (CHAT, GREEDY | {"continue_final_message": True}),
        (CHAT, GREEDY | {"tokenizer_encode_kwargs": {"loud": True}}),
        (PROMPTS, GREEDY | {"truncation": True, "tokenizer_encode_kwargs": {"max_length": 5}}),
        (PROMPTS, {"do_sample": False, "generation_config": transformers.GenerationConfig(max_new_tokens=4)}),
    ],
    ids=repr,
)
def test_arguments_of_continuations(generators, inputs, options):
    ours, theirs = generators
    assert ours(inputs, **options) == theirs(inputs, **options)


def test_forms_of_inputs(generators):
    ours, _ = generators
    expected = ours(PROMPTS, **GREEDY)
    assert list(ours(iter(PROMPTS), **GREEDY)) == expected
    assert ours([{"text": prompt} for prompt in PROMPTS], **GREEDY) == expected
    assert ours(PROMPTS, batch_size=2, **GREEDY) == expected
    assert ours({"messages": CHAT}, **GREEDY) == ours(CHAT, **GREEDY)
    assert ours(text_inputs=PROMPTS, tokenizer=ours.tokenizer, stop_strings="zz", **GREEDY) == expected
    stages = ours.forward(ours.preprocess(PROMPTS[0]), **GREEDY)
    assert stages["generated_sequence"].shape[:2] == (1, 1)
    assert ours.postprocess(stages) == expected[0]


def test_samples_by_default_and_within_the_positions(generators):
    ours, _ = generators
    config = ours.settings().config
    assert (config.do_sample, config.temperature, config.max_new_tokens) == (True, 0.7, 256)
    drawn = ours(PROMPTS[0], seed=1, return_tensors=True)
    assert len(drawn[0]["generated_token_ids"]) <= 65  # of 64 positions; the last token takes none
    assert ours(PROMPTS[0], seed=1, return_tensors=True) == drawn
    assert ours(PROMPTS[0], seed=2, return_tensors=True) != drawn


def test_default_length_does_not_depend_on_the_other_prompts(generators):
    ours, _ = generators
    prompts = [PROMPTS[0], PROMPTS[2], PROMPTS[0]]
    together = ours(prompts, do_sample=False, return_tensors=True)
    assert together == [ours(prompt, do_sample=False, return_tensors=True) for prompt in prompts]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temprature": 2.0}, TypeError, "did you mean temperature"),
        ({"return_full_text": True, "return_tensors": True}, ValueError, "Only one of return_full_text"),
        ({"stop_sequence": "a", "stop_strings": "b"}, ValueError, "pass one of them"),
        ({"output_scores": True}, ValueError, "call pipe.model.generate"),
        ({"handle_long_generation": "cut"}, ValueError, "None or 'hole'"),
        ({"assistant_model": "gpt2"}, ValueError, "no second model proposes tokens"),
        ({"max_new_tokens": 100}, ValueError, "more than the 64 positions"),
        ({"temperature": -1.0, "do_sample": True}, ValueError, "temperature is -1.0"),
        ({"max_new_tokens": "3"}, ValueError, "max_new_tokens is '3', but has to be a whole number"),
        ({"generation_config": {"max_new_tokens": 3}}, TypeError, "has to be a GenerationConfig"),
        ({"tokenizer_encode_kwargs": {"enable_thinking": False}}, TypeError, "no argument 'enable_thinking'"),
        ({"return_type": 3}, ValueError, "return_type is 3, but has to be a number from 0 to 2"),
    ],
    ids=repr,
)
def test_arguments_that_cannot_be_honoured(generators, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        generators[0](PROMPTS[0], **options)


@pytest.mark.parametrize("chat", [[{"role": "user"}], [CHAT[0], {"content": "a"}]], ids=repr)
def test_messages_without_role_or_content(generators, chat):
    with pytest.raises(ValueError, match="A message of a chat is"):
        generators[0](chat)


def expected_texts(folder: Path, texts: list[str], prefix: str, **options) -> list[list[str]]:
    """What PyTorch writes from each text alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    written = [model.generate(**tokenizer(prefix + text, return_tensors="pt"), **options) for text in texts]
    return [tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in written]


TEXTS_FROM_TEXTS = [
    ("text2text-generation", "generated", "", {"num_beams": 4}, {"max_new_tokens": 7}),
    ("text2text-generation", "generated", "", {}, {"max_new_tokens": 7, "num_beams": 1}),
    ("summarization", "summary", "summarize: ", {"num_beams": 4, "max_length": 12, "min_length": 5,
                                                 "no_repeat_ngram_size": 2}, {}),
    ("summarization", "summary", "summarize: ", {"num_beams": 4, "min_length": 5, "no_repeat_ngram_size": 2},
     {"max_new_tokens": 6}),
    ("summarization", "summary", "summarize: ", {"num_beams": 4, "no_repeat_ngram_size": 2},
     {"max_length": 8, "min_length": 2}),
    ("translation_en_to_fr", "translation", "translate English to French: ", {"num_beams": 2, "max_length": 9}, {}),
    ("translation_en_to_de", "translation", "", {"num_beams": 4}, {"max_new_tokens": 5}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "key", "prefix", "defaults", "options"),
    exhaustive(TEXTS_FROM_TEXTS, [TEXTS_FROM_TEXTS[2], TEXTS_FROM_TEXTS[5]]),
    ids=repr,
)
def test_texts_from_texts(encoder_decoder, task, key, prefix, defaults, options):
    ours = pipeline(task, encoder_decoder)
    expected = expected_texts(encoder_decoder, PROMPTS, prefix, **defaults | options)
    assert ours(PROMPTS, **options) == [{f"{key}_text": texts[0]} for texts in expected]
    assert ours(PROMPTS[0], **options) == [{f"{key}_text": expected[0][0]}]
    assert list(ours(iter(PROMPTS), **options)) == [[{f"{key}_text": texts[0]}] for texts in expected]
    assert ours(PROMPTS, batch_size=1, truncation=True, **options) == ours(PROMPTS, **options)


def test_several_texts_and_token_ids(encoder_decoder):
    ours = pipeline("text2text-generation", encoder_decoder)
    options = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2}
    expected = expected_texts(encoder_decoder, PROMPTS, "", **options)
    assert ours(PROMPTS, **options) == [[{"generated_text": text} for text in texts] for texts in expected]
    (tokens,) = ours(PROMPTS[0], max_new_tokens=6, return_tensors=True)
    assert (
        ours.tokenizer.decode(tokens["generated_token_ids"], skip_special_tokens=True)
        == (ours(PROMPTS[0], max_new_tokens=6)[0]["generated_text"])
    )
    stages = ours.postprocess(ours.forward(ours.preprocess(PROMPTS[0]), max_new_tokens=6))
    assert stages == ours(PROMPTS[0], max_new_tokens=6)


def test_a_decoder_that_starts_from_the_token_that_ends_texts():
    """Its first token is no end of the text."""
    folder, options = bart_checkpoint(), {"max_new_tokens": 8, "num_beams": 2}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = model.generate(**tokenizer("A film.", return_tensors="pt", return_token_type_ids=False), **options)[0]
    pipe = pipeline("summarization", model=folder, **options)
    assert pipe("A film.") == [{"summary_text": tokenizer.decode(ids, skip_special_tokens=True)}]
    assert pipe("A film.", return_tensors=True)[0]["summary_token_ids"].tolist() == ids.tolist() and len(ids) > 2


def test_stop_sequence_is_its_first_token(encoder_decoder):
    ours = pipeline("text2text-generation", encoder_decoder)
    plain = ours(PROMPTS[0], max_new_tokens=8, num_beams=1, return_tensors=True)[0]["generated_token_ids"]
    stop = ours.tokenizer.decode(plain[3:4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(ours.tokenizer), "encode", lambda *_, **__: [int(plain[3]), 7])
        with pytest.warns(UserWarning, match="of which the first ends"):
            cut = ours(PROMPTS[0], max_new_tokens=8, num_beams=1, return_tensors=True, stop_sequence=stop + "!")
    first = list(plain).index(plain[3])
    np.testing.assert_array_equal(cut[0]["generated_token_ids"], plain[: first + 1])


@pytest.mark.slow
def test_lengths_that_make_no_sense_are_warned_of(encoder_decoder, caplog):
    with caplog.at_level(logging.WARNING):
        pipeline("summarization", encoder_decoder)(PROMPTS, max_length=30, min_length=40)
        assert "min_length=40 is more than max_length=30" in caplog.text
        assert "A summary may have 30 tokens, but the shortest text has only" in caplog.text
        caplog.clear()
        pipeline("translation_en_to_fr", encoder_decoder)(PROMPTS[0], max_new_tokens=3)
        assert "a translation may have no more than 3" in caplog.text
        caplog.clear()
        pipeline("summarization", encoder_decoder)(PROMPTS[2] * 3, max_new_tokens=3, min_length=0)
        assert not caplog.text
    with pytest.warns(UserWarning, match="translation_en_to_fr"):
        named = pipeline("translation", encoder_decoder)
    assert named.prefix == SPECIFIC["translation_en_to_fr"]["prefix"]


def test_languages_of_a_checkpoint_that_names_its_tasks(encoder_decoder):
    prefix = SPECIFIC["translation_en_to_fr"]["prefix"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe = pipeline("translation", encoder_decoder, src_lang="en", tgt_lang="fr")
    assert pipe.prefix == prefix
    assert len(pipe(PROMPTS[0], src_lang="en", tgt_lang="fr", max_new_tokens=2)) == 1
    with pytest.raises(ValueError, match="is of 'translation_en_to_fr', not from 'de' to 'ja'"):
        pipe(PROMPTS[0], src_lang="de", tgt_lang="ja")
    with pytest.raises(ValueError, match="is of 'translation_en_to_fr', not from 'de' to 'ja'"):
        pipeline("translation", encoder_decoder, src_lang="de", tgt_lang="ja")
    with pytest.warns(UserWarning, match="no prefix for 'translation_de_to_ja', .* it knows translation_en_to_fr"):
        assert pipeline("translation_de_to_ja", encoder_decoder).prefix == ""
    nameless = edited(encoder_decoder, task_specific_params={"translation": {"prefix": "translate: "}})
    named = {"tokenizer": pipe.tokenizer, "src_lang": "de", "tgt_lang": "ja"}
    assert pipeline("translation", nameless, **named).prefix == "translate: "


def test_languages():
    folder, *_ = languages_checkpoint("mbart")
    ours = pipeline("translation", folder)
    options = {"max_new_tokens": 6, "num_beams": 2}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, src_lang="de_DE")
    expected = expected_texts_of_language(folder, tokenizer, "fr_XX", **options)
    given = ours(PROMPTS, src_lang="de_DE", tgt_lang="fr_XX", return_tensors=True, **options)
    for one, tokens in zip(given, expected, strict=True):
        np.testing.assert_array_equal(one["translation_token_ids"], tokens)
    for languages, message in [
        ({}, "pass src_lang= and tgt_lang="),
        ({"src_lang": "de_DE"}, "pass src_lang= and tgt_lang="),
        ({"src_lang": "de_DE", "tgt_lang": "xx_XX"}, "has no language 'xx_XX'"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            ours(PROMPTS[0], **languages)


def test_long_texts_are_cut_for_models_of_many_languages():
    folder, source, target = languages_checkpoint("mbart")
    ours = pipeline("translation", folder, src_lang=source, tgt_lang=target, max_new_tokens=3, num_beams=1)
    text = "once upon a time " * 20
    ids = ours.preprocess(text, truncation=True)["input_ids"][0].numpy().tolist()
    whole = ours.tokenizer(text)["input_ids"]
    assert len(ids) == 64 < len(whole) and {whole[0], whole[-1]} & set(ids)
    assert ours(text, truncation=True)[0]["translation_text"] is not None
    with pytest.raises(ValueError, match="takes at most 64"):
        ours(text)


def test_threads_do_not_share_languages(monkeypatch):
    folder, *_ = languages_checkpoint("mbart")
    ours = pipeline("translation", folder, tgt_lang="fr_XX")
    original = type(ours.tokenizer).set_truncation_and_padding

    def slowly(self, *args, **kwargs):
        time.sleep(0.02)
        original(self, *args, **kwargs)

    monkeypatch.setattr(type(ours.tokenizer), "set_truncation_and_padding", slowly)
    languages = ["de_DE", "en_XX"] * 3
    with ThreadPoolExecutor(len(languages)) as pool:
        inputs = list(pool.map(lambda one: ours.preprocess(PROMPTS[0], src_lang=one)["input_ids"][0], languages))
    for language, ids in zip(languages, inputs, strict=True):
        assert ours.tokenizer.convert_tokens_to_ids(language) in ids.numpy()


def expected_texts_of_language(folder: Path, tokenizer, language: str, **options) -> list[np.ndarray]:
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    first = tokenizer.convert_tokens_to_ids(language)
    rows = [tokenizer(text, return_tensors="pt") for text in PROMPTS]
    return [model.generate(**row, forced_bos_token_id=first, **options)[0].numpy() for row in rows]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"messages": []}, "The chat is empty"),
        ([CHAT[0] | {"content": 3}], "The tokenizer's chat template does not take this chat: "),
        ([1, 2], "A text has to be a string; got int: 1."),
        (" word" * 300, "handle_long_generation='hole'"),
    ],
    ids=["empty", "template", "numbers", "long"],
)
def test_inputs_that_cannot_be_continued(generators, inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        generators[0](inputs, max_new_tokens=3)
    assert "text_pair" not in str(caught.value) and "truncation" not in str(caught.value)


def test_saved_as_a_whole(generators, tmp_path):
    generators[0].save_pretrained(tmp_path / "saved")
    again = pipeline("text-generation", tmp_path / "saved")
    assert again(PROMPTS[0], **GREEDY) == generators[0](PROMPTS[0], **GREEDY)
    with pytest.raises(ValueError, match="GPT2LMHeadModel is no model of tf_pipeline"):
        pipeline("text-generation", generators[1].model, tokenizer=again.tokenizer)


def test_models_and_tasks_that_do_not_fit(encoder_decoder):
    for task, message in LEFT_OUT.items():
        with pytest.raises(ValueError, match=f"Task '{task}' is not supported: {message}"):
            pipeline(task, encoder_decoder)
    with pytest.raises(ValueError, match="not supported"):
        pipeline("translation_en", encoder_decoder)


def command(*arguments: str, **options) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "tf_pipeline.cli", "run", *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.slow
def test_command_line_writes(decoder, generators, tmp_path):
    (expected,) = generators[0](PROMPTS[0], **GREEDY)
    options = ["--model", str(decoder), "--max-new-tokens", "8", "--no-do-sample"]
    result = command("text-generation", *options, PROMPTS[0])
    assert result.returncode == 0 and result.stdout.strip() == expected["generated_text"].strip()
    rows = [PROMPTS[1], {"messages": CHAT}, 3]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = command("text-generation", *options, "--input", str(tmp_path / "rows.jsonl"))
    answers = [json.loads(line)["result"] for line in result.stdout.splitlines()]
    assert result.returncode == 3
    assert answers == [generators[0](PROMPTS[1], **GREEDY), generators[0](CHAT, **GREEDY)]
    assert "got a number" in result.stderr


@pytest.mark.slow
def test_command_line_chats(decoder, generators):
    master, slave = pty.openpty()
    arguments = ["text-generation", "--model", str(decoder), "--max-new-tokens", "8", "--no-do-sample"]
    os.write(master, b"Hello\n/new\nHello\n\n")
    result = command(*arguments, stdin=slave)
    os.close(master), os.close(slave)
    (expected,) = generators[0](CHAT, return_full_text=False, **GREEDY)
    assert result.returncode == 0 and "/new begins another" in result.stderr
    assert result.stdout.count(expected["generated_text"].strip()) == 2


@pytest.mark.slow
def test_command_line_translates(encoder_decoder):
    result = command(
        "translation_en_to_fr", "--model", str(encoder_decoder), "--json", "--max-new-tokens", "4", *PROMPTS
    )
    ours = pipeline("translation_en_to_fr", encoder_decoder)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert answers == [[one] for one in ours(PROMPTS, max_new_tokens=4)]


# ------------------------------------------------------------------------------------------------------ long documents

# Each part is there once, and the end has no spaces.
LONG = (
    "\n".join(f"Fox {n}, naïve 日本{n} 🙂, jumps over it {n} times." for n in range(6))
    + " 東京都は日本の首都です。大阪"
)


@pytest.fixture(scope="module")
def summarizer():
    """A pipeline whose tokenizer takes 40 tokens."""
    pipe = pipeline("summarization", model=str(encoder_decoder_checkpoint()))
    pipe.tokenizer.model_max_length = 40
    return pipe


@pytest.mark.slow
def test_windows_on_the_command_line():
    """A model that takes 40 tokens, and a text of more."""
    folder = copied(encoder_decoder_checkpoint())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=40)
    tokenizer.save_pretrained(folder)
    options = ["--model", str(folder), "--max-new-tokens", "4", "--json"]
    done = CliRunner().invoke(app, ["run", "summarization", *options, "--stride", "3", "--second-pass", LONG])
    assert done.exit_code == 0, done.output
    pipe = pipeline("summarization", model=str(folder), max_new_tokens=4)
    assert json.loads(done.stdout) == pipe(LONG, stride=3, second_pass=True)
    refused = CliRunner().invoke(app, ["run", "summarization", *options, "--stride", "3", "--truncation", LONG])
    assert refused.exit_code == 2 and "truncation" in refused.stderr


@pytest.mark.parametrize("stride", [0, 4, 15])
def test_windows_hold_the_whole_text_and_fit(summarizer, stride):
    pieces = summarizer.cut(LONG, stride)
    assert len(pieces) > 5
    assert all(len(summarizer.tokenizer(summarizer.prefix + piece)["input_ids"]) <= 40 for piece in pieces)
    place = overlaps = 0
    for piece in pieces:
        begin = LONG.index(piece)
        assert not LONG[place:begin].strip()
        overlaps += begin < place
        assert begin == 0 or LONG[begin - 1].isspace() or begin > LONG.index("東京")
        place = begin + len(piece)
    assert place == len(LONG) and bool(overlaps) == bool(stride)
    assert summarizer.cut("A short text.", stride) == ["A short text."]


def test_a_long_text_is_summarized_window_by_window(summarizer):
    options = {"max_new_tokens": 5, "num_beams": 1}
    texts = [LONG, "A short text.", LONG[:180], ""]
    for text, answer in zip(texts, summarizer(texts, stride=4, **options), strict=True):
        alone = [summarizer(piece, **options)[0]["summary_text"] for piece in summarizer.cut(text, 4)]
        assert answer["summary_text"] == (" ".join(one.strip() for one in alone) if len(alone) > 1 else alone[0])


def test_second_passes_go_on_until_a_summary_fits(summarizer, monkeypatch):
    """With a model whose summary of a window is its first two words."""

    def first_words(outputs, **_):
        window = summarizer.tokenizer.decode(outputs["input_ids"][0], skip_special_tokens=True)
        return [{"summary_text": " ".join(window.removeprefix(summarizer.prefix).split()[:2])}]

    monkeypatch.setattr(summarizer, "postprocess", first_words)
    options = {"stride": 0, "max_new_tokens": 1, "num_beams": 1}
    texts = [LONG, "Short and sweet it is.", LONG[:120]]
    passes, answers = 0, [summarizer(text, **options)[0]["summary_text"] for text in texts]
    for place, text in enumerate(texts):
        while len(summarizer.cut(text, 0)) > 1 and len(answers[place]) < len(text):
            text = answers[place]
            answers[place] = summarizer(text, **options)[0]["summary_text"]
            passes += 1
    assert passes >= 3
    assert summarizer(texts, second_pass=True, **options) == [{"summary_text": answer} for answer in answers]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"second_pass": True}, "pass stride="),
        ({"stride": -1}, "stride is -1"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"stride": 40}, "less than the 3. tokens of a window"),
        ({"stride": 4, "truncation": True}, "which truncation does not go with"),
        ({"stride": 4, "return_tensors": True}, "which return_tensors does not go with"),
        ({"stride": 4, "num_return_sequences": 2, "num_beams": 2}, "which num_return_sequences does not go with"),
    ],
)
def test_windows_that_make_no_sense_are_refused(summarizer, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        summarizer(LONG, **options)
