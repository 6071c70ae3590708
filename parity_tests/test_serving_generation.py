"""Exports of tasks that write give PyTorch's tokens, whatever else is in a batch, and take options with a request."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
import torch
import transformers
from typer.testing import CliRunner

import tf_pipeline
from parity_tests.loader_helpers import run
from parity_tests.pipeline_helpers import (
    SPECIFIC,
    bart_checkpoint,
    decoder_checkpoint,
    encoder_decoder_checkpoint,
    languages_checkpoint,
    saved,
    trained_tokenizer,
)
from parity_tests.serving_helpers import loopback_server
from parity_tests.tiers import exhaustive
from tf_pipeline.cli.main import app
from tf_pipeline.pipelines import pipeline
from tf_pipeline.serving import export as exporting
from tf_pipeline.serving.client.answers import REMOTE_TASKS
from tf_pipeline.serving.export import compare_answers, sample_inputs
from tf_pipeline.serving.lint import lint

PROMPTS = ["A film", "I want my money back, and so do all the others who were there.", "?", "The best", "naïve 日本"]
HOSTILE = [b"", b"\xff\x00\xe2\x82", b"\n\x00", b"<|endoftext|></s><pad>", b"a" * 5000, "日本🙂".encode() * 99]
LENGTH, NEW, SEED = 24, 10, 7
SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
KINDS = dict(zip(SAMPLING, (np.int32, np.float32, np.int32, np.float32, np.int32), strict=True))


def serve(folder, task, max_length=LENGTH, **options):
    """The graph of a task, as it is exported."""
    return exporting._served(pipeline(task, model=folder), True, max_length, options)


def texts_of(value) -> list[str]:
    return [text.decode() for text in value.numpy().ravel()]


def with_options(functions, texts, **options):
    """Answers to texts, with options for all rows or for each."""
    takes = exporting.input_specs(functions["with_options"])
    columns = {name: tf.fill([len(texts)], KINDS[name](-1)) for name in takes if name != "text"}
    for name, value in options.items():
        columns[name] = tf.constant(value, KINDS[name], None if np.ndim(value) else [len(texts)])
    return functions["with_options"](text=tf.constant(texts), **columns)


def theirs(folder, texts, prefix="", **options):
    """New tokens and texts of PyTorch's ``generate``, each text cut and written alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, truncation_side="left")
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    if config.is_encoder_decoder:
        tokenizer.truncation_side = "right"
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    tokens, written = [], []
    for text in texts:
        rows = tokenizer(prefix + text, truncation=True, max_length=LENGTH, return_tensors="pt")
        rows = {name: rows[name] for name in ("input_ids", "attention_mask")}
        ids = model.generate(**rows, pad_token_id=config.pad_token_id or 0, **options)
        new = ids[:, 1 if config.is_encoder_decoder else rows["input_ids"].shape[1] :]
        tokens.append(new.tolist())
        written.append([tokenizer.decode(row, skip_special_tokens=True) for row in new])
    return tokens, written


def assert_tokens(functions, folder, texts, tokens, prefix="", side="left"):
    """The signature of ids gives these new tokens for texts that are padded together."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, truncation_side=side, padding_side=side)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = tokenizer([prefix + t for t in texts], truncation=True, max_length=LENGTH, padding=True, return_tensors="np")
    rows = {name: tf.constant(rows[name], tf.int64) for name in ("input_ids", "attention_mask")}
    found = functions["tokens"](**rows)
    rows = zip(found["generated_ids"].numpy(), found["num_generated_tokens"].numpy(), tokens, strict=True)
    for ids, count, (expected,) in rows:
        pad = tokenizer.pad_token_id
        assert ids.tolist() == expected + [pad] * (NEW - len(expected))
        # At the end, padding that a model wrote is not told from padding that fills a row.
        assert count == len(expected) or set(expected[count:]) == {pad}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """GPT-2, which draws tokens, by one seed unless a request has another."""
    folder = tmp_path_factory.mktemp("served") / "writer"
    return tf_pipeline.export(
        decoder_checkpoint(), None, folder, "text-generation", max_length=LENGTH, max_new_tokens=NEW, seed=SEED,
        batch_sizes=[2],
    )  # fmt: skip


@pytest.fixture(scope="module")
def loaded(exported):
    """The functions of that export."""
    return tf.saved_model.load(exported.folder).signatures


@pytest.fixture(scope="module", params=exhaustive(["traced", "loaded"], ["traced"]))
def drawing(request):
    """The same functions, or those that the export saves."""
    if request.param == "loaded":
        return request.getfixturevalue("loaded")
    return serve(decoder_checkpoint(), "text-generation", max_new_tokens=NEW, seed=SEED).signatures()


@pytest.fixture(scope="module")
def local():
    """The local pipeline, which cuts and draws as the export does."""
    cut = {"tokenizer_encode_kwargs": {"truncation": True, "max_length": LENGTH}}
    pipe = pipeline("text-generation", model=decoder_checkpoint(), max_new_tokens=NEW, seed=SEED, **cut)
    pipe.tokenizer.truncation_side = "left"
    return pipe


@pytest.fixture(scope="module")
def served():
    """The graph of T5 with beams, for summaries."""
    return serve(encoder_decoder_checkpoint(), "summarization", max_new_tokens=NEW, num_beams=3)


@pytest.fixture(scope="module")
def beams(served):
    """Its functions."""
    return served.signatures()


# ---------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.slow
def test_a_fresh_process_gives_the_tokens_of_pytorch(exported):
    """The likeliest of one token is PyTorch's greedy choice."""
    tokens, written = theirs(decoder_checkpoint(), PROMPTS, max_new_tokens=NEW, do_sample=False)
    rows = {name: np.full(len(PROMPTS), 1 if name == "top_k" else -1, kind) for name, kind in KINDS.items()}
    rows["text"] = np.array([text.encode() for text in PROMPTS], object)
    answers = run("load", exported.folder, "with_options", [rows])
    assert [text.decode() for text in answers["generated_text"]] == [
        prompt + text[0] for prompt, text in zip(PROMPTS, written, strict=True)
    ]
    assert answers["num_generated_tokens"].tolist() == [len(one[0]) for one in tokens]
    assert exported.warmup_requests == 4 and exported.compared == exporting.WRITTEN_SAMPLE
    readme = (exported.folder.parent / "README.md").read_text()
    assert (
        "Task: text-generation" in readme
        and "-1 leaves one as it was exported" in readme
        and "takes the `state` that the last one gave" in readme
        and lint(exported.folder) == []
    )


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["c", "session", "cli"])
def test_other_loaders(exported, loaded, loader):
    rows = [{"text": np.array([*(t.encode() for t in PROMPTS), *HOSTILE], object)}]
    found = run(loader, exported.folder, "serving_default", rows)
    expected = loaded["serving_default"](text=tf.constant(rows[0]["text"]))
    assert found["generated_text"].tolist() == expected["generated_text"].numpy().tolist()
    assert found["num_generated_tokens"].tolist() == expected["num_generated_tokens"].numpy().tolist()


@pytest.mark.slow
def test_beams_are_those_of_pytorch(served, beams):
    options = {**SPECIFIC["summarization"], "max_new_tokens": NEW, "num_beams": 3}
    prefix, _ = options.pop("prefix"), options.pop("max_length")
    tokens, written = theirs(encoder_decoder_checkpoint(), PROMPTS, prefix, **options)
    found = beams["serving_default"](text=tf.constant(PROMPTS))
    assert texts_of(found["summary_text"]) == [text[0] for text in written]
    assert_tokens(beams, encoder_decoder_checkpoint(), PROMPTS, tokens, prefix, "right")
    assert compare_answers(beams, served, PROMPTS)[0] == len(PROMPTS)


# ------------------------------------------------------------------------------------------------- rows on their own


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loaded", "beams"])
def test_rows_do_not_depend_on_others(kind, request):
    function = request.getfixturevalue(kind)["serving_default"]
    alone = [function(text=tf.constant([text])) for text in [*PROMPTS, *HOSTILE]]
    together = function(text=tf.constant([*PROMPTS, *HOSTILE]))
    for name, value in together.items():
        assert value.numpy().tolist() == [one[name].numpy()[0] for one in alone]
    texts_of(next(value for value in together.values() if value.dtype == tf.string))  # UTF-8, whatever went in
    nothing = function(text=tf.constant([], tf.string))
    assert {name: value.shape[0] for name, value in nothing.items()} == dict.fromkeys(together, 0)


@pytest.mark.slow
def test_ids_that_are_none_leave_other_rows_alone(beams):
    ids = np.full([3, LENGTH + 9], 7)
    ids[1, 2] = 10_000
    found = beams["tokens"](input_ids=tf.constant(ids), attention_mask=tf.ones_like(ids))
    found = {name: value.numpy() for name, value in found.items()}
    assert (found["generated_ids"][1] == -1).all() and found["num_generated_tokens"][1] == -1
    assert (found["generated_ids"][0] == found["generated_ids"][2]).all() and (found["generated_ids"][0] >= 0).all()


# ---------------------------------------------------------------------------------------------- options of requests


@pytest.mark.slow
def test_seeds_give_the_draws_of_the_local_pipeline(loaded, local):
    seeds = range(len(PROMPTS))
    found = texts_of(with_options(loaded, PROMPTS, seed=[*seeds])["generated_text"])
    assert found == [local(text, seed=seed)[0]["generated_text"] for text, seed in zip(PROMPTS, seeds, strict=True)]
    same = texts_of(with_options(loaded, [PROMPTS[0]] * 4, seed=[1, 2, 1, 3])["generated_text"])
    assert same[0] == same[2] and len(set(same)) == 3
    as_exported = texts_of(loaded["serving_default"](text=tf.constant(PROMPTS))["generated_text"])
    assert as_exported == [one[0]["generated_text"] for one in local(PROMPTS, batch_size=1)]


ROWS = [
    {"max_new_tokens": 3},
    {"temperature": 5.0},
    {"temperature": 0.3, "top_p": 0.5},
    {"top_k": 2},
    {"top_k": 0, "top_p": 0.9, "max_new_tokens": 7},
]


@pytest.mark.parametrize("rows", exhaustive([ROWS, ROWS[2:]], [ROWS[2:]]), ids=len)
def test_options_of_a_row_do_what_they_should(drawing, local, rows):
    names = {name for row in rows for name in row}
    columns = {name: [row.get(name, -1) for row in rows] for name in names}
    found = with_options(drawing, [PROMPTS[1]] * len(rows), **columns)
    expected = [local(PROMPTS[1], **row)[0]["generated_text"] for row in rows]
    assert texts_of(found["generated_text"]) == expected and len(set(expected)) == len(rows)
    assert found["num_generated_tokens"].numpy().tolist() == [row.get("max_new_tokens", NEW) for row in rows]


def test_options_of_other_rows_than_the_texts_are_refused(drawing):
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not fit"):
        with_options(drawing, PROMPTS[:2], seed=[1, 2, 3])


@pytest.mark.slow
def test_values_that_no_option_has_are_those_of_the_export(loaded, local):
    rows = [{"max_new_tokens": 10**9}, {"temperature": 0.0}, {"temperature": np.nan}, {"top_p": 2.0}, {"top_k": -5}]
    names = {name for row in rows for name in row}
    columns = {name: [row.get(name, -1) for row in rows] for name in names}
    found = texts_of(with_options(loaded, [PROMPTS[1]] * len(rows), **columns)["generated_text"])
    assert set(found) == {local(PROMPTS[1])[0]["generated_text"]}


def client(task, functions):
    """What asks these functions, without a server."""
    signatures = {name: exporting._signature(function) for name, function in functions.items()}
    return REMOTE_TASKS[task](None, signatures, None, 32)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("A film", {"num_beams": 2}, "num_beams was decided when the model was exported"),
        ("A film", {"max_new_tokens": 0}, "max_new_tokens is 0, but has to be"),
        ("A film", {"temperature": float("nan")}, "temperature is nan, but has to be"),
        ([{"role": "user", "content": "Hello"}], {}, "apply the tokenizer's chat template"),
    ],
)
def test_what_a_client_refuses(drawing, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        client("text-generation", drawing)(inputs, **options)


@pytest.mark.slow
def test_what_a_client_of_beams_refuses(beams):
    asked = client("summarization", beams)
    with pytest.raises(ValueError, match="takes no top_p in a call: its signature with_options takes max_n"):
        asked("A film", top_p=0.5)
    with pytest.raises(ValueError, match="no signature step, which those with num_beams"):
        asked.stream_text("A film")


@pytest.mark.slow
def test_a_client_answers_as_the_local_pipeline(exported, local):
    with loopback_server(exported.folder.parent) as server:
        for url in map(server.url, ("rest", "grpc")):
            asked = pipeline("text-generation", model=url)
            assert asked(PROMPTS) == local(PROMPTS, batch_size=1)
            assert asked(PROMPTS[0]) == local(PROMPTS[0])
            options = {"max_new_tokens": 3, "temperature": 2.0, "seed": 8}
            assert asked(PROMPTS, **options) == local(PROMPTS, batch_size=1, **options)
            named = pipeline("text-generation", model=url, signature="with_options", top_k=1)
            assert named(PROMPTS[0]) == local(PROMPTS[0], do_sample=False)
            with tf_pipeline.serving.Client(url) as untold:
                assert untold(PROMPTS) == local(PROMPTS, batch_size=1) and untold.task == "text-generation"
                for step in (1, 4, None):
                    pieces = [*untold.stream_text(PROMPTS[4], step_tokens=step, seed=3)]
                    assert PROMPTS[4] + "".join(pieces) == local(PROMPTS[4], seed=3)[0]["generated_text"]
                    assert len(pieces) > 1 if step == 1 else len(pieces) < 4
        rest = ["run", "text-generation", "--model", server.url("rest"), PROMPTS[0], "--max-new-tokens", "7"]
        result = CliRunner().invoke(app, rest)
        expected = local(PROMPTS[0], max_new_tokens=7)[0]["generated_text"]
        assert result.exit_code == 0 and result.stdout == expected + "\n", result.output


# ---------------------------------------------------------------------------------------------------- step by step


def steps(functions, texts, states, tokens, **options):
    """The outputs of ``step``, with one state and number of tokens for each text."""
    takes = exporting.input_specs(functions["step"])
    columns = {name: tf.fill([len(texts)], KINDS[name](-1)) for name in takes if name in KINDS}
    columns |= {name: tf.fill([len(texts)], KINDS[name](value)) for name, value in options.items()}
    return functions["step"](
        text=tf.constant(texts), state=tf.constant(states), step_tokens=tf.constant(tokens), **columns
    )


def assert_steps_are_one_call(functions, texts, **options):
    """Texts that are written in steps, each of its own length, are those of one call, and no piece is taken back."""
    whole = with_options(functions, texts, **options)
    key = next(name for name in whole if name.endswith("_text"))
    expected = [
        text.removeprefix(one if key == "generated_text" else "")
        for text, one in zip(texts_of(whole[key]), texts, strict=True)
    ]
    states, found = [b""] * len(texts), None
    for turn in range(2 * NEW):
        found = steps(functions, texts, states, [1 + (place + turn) % 3 for place in range(len(texts))], **options)
        states = found["state"].numpy().tolist()
        shown = texts_of(found["new_text"])
        assert all(text.startswith(piece) for text, piece in zip(expected, shown, strict=True))
        if found["is_done"].numpy().all():
            break
        assert (found["num_generated_tokens"].numpy()[~found["is_done"].numpy()] > turn).all()
    assert shown == expected and found["is_done"].numpy().all()
    assert found["num_generated_tokens"].numpy().tolist() == whole["num_generated_tokens"].numpy().tolist()


def test_steps_are_one_call(drawing):
    assert_steps_are_one_call(drawing, PROMPTS, seed=3, temperature=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"do_sample": False, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.2},
    {"do_sample": False, "stop_strings": ["f", " it"]},
    {"generation_config": transformers.GenerationConfig(max_length=28, min_length=12)},
    {"forced_eos_token_id": 0, "exponential_decay_length_penalty": (2, 1.5), "min_new_tokens": 3},
    {"prefix": "The ", "return_full_text": False, "begin_suppress_tokens": [5, 9], "encoder_no_repeat_ngram_size": 2},
], ids=str)  # fmt: skip
def test_steps_of_options(options):
    options = {"max_new_tokens": NEW, "seed": SEED} | options
    if "generation_config" in options:
        options.pop("max_new_tokens")
    functions = serve(decoder_checkpoint(), "text-generation", **options).signatures()
    assert "step" in functions
    texts = PROMPTS if "return_full_text" not in options else [""]
    if texts == PROMPTS:
        assert_steps_are_one_call(functions, [*PROMPTS, *("", "a" * 300)])
        return
    whole = texts_of(functions["serving_default"](text=tf.constant(PROMPTS))["generated_text"])
    found = steps(functions, PROMPTS, [b""] * len(PROMPTS), [4] * len(PROMPTS))
    found = steps(functions, PROMPTS, found["state"].numpy(), [NEW] * len(PROMPTS))
    assert texts_of(found["new_text"]) == whole


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [encoder_decoder_checkpoint, bart_checkpoint])
def test_steps_with_an_encoder(checkpoint):
    """Rows that are not equally far choose again what others have not written yet."""
    options = {"num_beams": 1, "max_new_tokens": NEW, "min_length": 4, "no_repeat_ngram_size": 2}
    assert_steps_are_one_call(serve(checkpoint(), "text2text-generation", **options).signatures(), PROMPTS)


def test_states_that_are_none_leave_other_rows_alone(drawing):
    good = steps(drawing, PROMPTS[:1], [b""], [3], seed=1)["state"].numpy()[0]
    wrong = [b"x", b"1 2 9999", b"1", b"1 2 -1 5", b"1  2", b" 1 2", b"9" * 11 + b" 2 5", b"1 2" + b" 5" * NEW, b"\xff"]
    found = steps(drawing, PROMPTS[:1] * (1 + len(wrong)), [good, *wrong], [3] * (1 + len(wrong)))
    assert texts_of(found["new_text"][:1]) == texts_of(steps(drawing, PROMPTS[:1], [good], [3])["new_text"])
    assert found["num_generated_tokens"].numpy().tolist() == [6] + [-1] * len(wrong)
    assert set(texts_of(found["new_text"][1:])) == {""} and found["is_done"].numpy().tolist() == [False] + [True] * len(
        wrong
    )
    nothing = steps(drawing, np.array([], object), np.array([], object), np.array([], np.int32))
    assert {name: value.shape[0] for name, value in nothing.items()} == dict.fromkeys(found, 0)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([("ab", 1, False), ("ac", 2, True)], "The text was 'ab', and is now 'ac'"),
        ([("ab", 1, False), ("ab", 1, False)], "does not go on from its state"),
        ([("", -1, True)], "does not go on from its state"),
        ([("ab", 1, False), ("a", 2, False), ("abc", 3, True)], None),
    ],
)
def test_a_client_believes_no_text_that_changes(drawing, answers, message):
    signatures = {name: exporting._signature(function) for name, function in drawing.items()}
    left = iter(answers)

    def predict(name, columns):
        text, count, is_done = next(left)
        return {"new_text": [text], "num_generated_tokens": [count], "is_done": [is_done], "state": [f"{count}"]}

    asked = REMOTE_TASKS["text-generation"](predict, signatures, None, 32)
    if message is None:
        assert [*asked.stream_text("A film")] == ["ab", "c"]
    else:
        with pytest.raises(tf_pipeline.serving.ServingError, match=message):
            [*asked.stream_text("A film")]
    for wrong in ({"step_tokens": 0}, {"step_tokens": True}, {"num_beams": 2}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} "):
            asked.stream_text("A film", **wrong)


# ------------------------------------------------------------------------------------------------ other checkpoints


def byte_level_llama():
    """A checkpoint of Llama whose tokenizer begins every text with a token."""
    tokenizer = trained_tokenizer("BPE", PROMPTS * 20)
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B:1", special_tokens=[("[CLS]", 2)]
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return saved(transformers.LlamaForCausalLM(config), tokenizer)


def unigram_t5():
    """A checkpoint of T5 with a Unigram tokenizer, padded with the token that also starts the decoder."""
    tokenizer = trained_tokenizer("Unigram", PROMPTS * 20)
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, eos_token_id=3,
        pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    return saved(transformers.T5ForConditionalGeneration(config), tokenizer)


FAMILIES = {
    "llama": ("text-generation", byte_level_llama),
    "gpt2": ("text-generation", decoder_checkpoint),
    "bart": ("text2text-generation", bart_checkpoint),
    "t5": ("text2text-generation", unigram_t5),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_beams": 4, "early_stopping": True, "min_new_tokens": 4}])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, options):
    task, checkpoint = FAMILIES[family]
    folder, options = checkpoint(), {"num_beams": 1, "do_sample": False, "max_new_tokens": NEW, **options}
    served = serve(folder, task, **options)
    functions, is_decoder = served.signatures(), task == "text-generation"
    tokens, written = theirs(folder, PROMPTS, **options)
    found = texts_of(functions["serving_default"](text=tf.constant(PROMPTS))["generated_text"])
    assert found == [(t if is_decoder else "") + new[0] for t, new in zip(PROMPTS, written, strict=True)]
    assert_tokens(functions, folder, PROMPTS, tokens, side="left" if is_decoder else "right")
    assert compare_answers(functions, served, sample_inputs(served))[0] > 0


def llama2_with_bytes():
    """A checkpoint of Llama that writes characters it has no token for byte by byte."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghilmnorstwyAIT"]
    model = tokenizers.models.BPE({piece: place for place, piece in enumerate(pieces)}, [], unk_token="<unk>",
                                  fuse_unk=True, byte_fallback=True)  # fmt: skip
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    decoders = tokenizers.decoders
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return saved(transformers.LlamaForCausalLM(config), tokenizer)


@pytest.mark.slow
def test_bytes_of_characters_wait_for_the_rest():
    functions = serve(llama2_with_bytes(), "text-generation", do_sample=True, max_new_tokens=NEW).signatures()
    for seed in range(3):
        assert_steps_are_one_call(functions, PROMPTS, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mbart", "nllb"])
def test_languages_of_an_export(family):
    """Tokens of the languages begin the source and the translation; M2M's tokenizer is not in the graph."""
    folder, source, target = languages_checkpoint(family)
    options = {"num_beams": 2, "max_new_tokens": NEW}
    served = serve(folder, "translation", src_lang=source, tgt_lang=target, **options)
    functions, texts = served.signatures(), ["once upon a time", "hello", "the answer is"]
    found = texts_of(functions["serving_default"](text=tf.constant(texts))["translation_text"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, src_lang=source)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    begin = tokenizer.convert_tokens_to_ids(target)
    ids = [model.generate(**tokenizer(t, return_tensors="pt"), forced_bos_token_id=begin, **options)[0] for t in texts]
    assert found == [tokenizer.decode(one, skip_special_tokens=True) for one in ids]
    for text, one in zip(texts, ids, strict=True):
        row = {name: tf.constant(x, tf.int64) for name, x in tokenizer(text, return_tensors="np").items()}
        tokens = functions["tokens"](**row)
        assert tokens["generated_ids"].numpy()[0, : len(one) - 1].tolist() == one[1:].tolist() and one[1] == begin
    greedy = serve(folder, "translation", src_lang=source, tgt_lang=target, num_beams=1, max_new_tokens=NEW)
    assert_steps_are_one_call(greedy.signatures(), texts)
    with pytest.raises(ValueError, match="pass src_lang= and tgt_lang="):
        serve(folder, "translation", max_new_tokens=NEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("text-generation", {"num_return_sequences": 3, "return_full_text": False, "max_new_tokens": NEW}),
        ("text-generation", {"num_beams": 3, "max_new_tokens": NEW, "skip_special_tokens": False}),
        ("text-generation", {"do_sample": False, "stop_strings": ["f", " it"], "max_new_tokens": NEW}),
        ("text-generation", {"generation_config": transformers.GenerationConfig(max_length=26, min_length=12)}),
        ("text-generation", {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "forced_eos_token_id": 0}),
        ("text-generation", {"do_sample": False, "guidance_scale": 1.5, "prefix": "The ", "max_new_tokens": NEW}),
        ("summarization", {"num_return_sequences": 2, "num_beams": 2}),
        ("translation", {"early_stopping": "never"}),
    ],
)
def test_options_of_an_export(task, options):
    folder = decoder_checkpoint() if task == "text-generation" else encoder_decoder_checkpoint()
    served = serve(folder, task, **options)
    functions = served.signatures()
    assert compare_answers(functions, served, PROMPTS)[0] == len(PROMPTS)
    seed = {"seed": 3} if "seed" in served._row_options else {}
    together = with_options(functions, PROMPTS, **seed)
    for place, prompt in enumerate(PROMPTS):
        alone = with_options(functions, [prompt], **seed)
        assert all((alone[name][0] == together[name][place]).numpy().all() for name in together)


@pytest.mark.slow
def test_draws_differ_without_a_seed():
    functions = serve(decoder_checkpoint(), "text-generation", max_new_tokens=NEW).signatures()
    drawn = [texts_of(functions["serving_default"](text=tf.constant(["A"] * 3))["generated_text"]) for _ in range(2)]
    assert len({*drawn[0], *drawn[1]}) == 6
    drawn = [texts_of(with_options(functions, ["A"] * 3)["generated_text"]) for _ in range(2)]
    assert len({*drawn[0], *drawn[1]}) == 6


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision(dtype, tmp_path):
    done = tf_pipeline.export(
        decoder_checkpoint(), None, tmp_path / "m", "text-generation", dtype=dtype, warmup=False, max_new_tokens=NEW
    )
    assert done.compared == exporting.WRITTEN_SAMPLE


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_length": 60}, ValueError, "max_length is 60, but has to be more than 0 special tokens and at most 33"),
        ({"return_tensors": True}, TypeError, "exported without return_tensors"),
        ({"handle_long_generation": "hole"}, TypeError, "exported without handle_long_generation"),
        ({"max_time": 1.0}, TypeError, "exported without max_time"),
        ({"generation_config": transformers.GenerationConfig(max_length=60)}, ValueError, "counts the prompt too"),
    ],
)
def test_what_is_not_exported(options, error, message):
    with pytest.raises(error, match=message):
        serve(decoder_checkpoint(), "text-generation", **{"max_length": None, **options})


@pytest.mark.slow
def test_a_ported_model_with_a_cached_step(tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder_checkpoint())
    config = transformers.GPTNeoXConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    folder = saved(transformers.GPTNeoXForCausalLM(config), tokenizer)
    options = {"max_new_tokens": NEW, "num_beams": 2, "do_sample": False}
    done = tf_pipeline.export(
        folder, None, tmp_path / "m", "text-generation", max_length=LENGTH, warmup=False, **options
    )
    _, written = theirs(folder, PROMPTS, **options)
    found = tf.saved_model.load(done.folder).signatures["serving_default"](text=tf.constant(PROMPTS))
    assert texts_of(found["generated_text"]) == [text + new[0] for text, new in zip(PROMPTS, written, strict=True)]


@pytest.mark.slow
def test_the_command_line(tmp_path):
    arguments = ["--max-length", "40", "--max-new-tokens", "6", "--num-beams", "2", "--batch-sizes", "1"]
    folder = str(encoder_decoder_checkpoint())
    result = CliRunner().invoke(
        app, ["export", folder, str(tmp_path / "m"), "--task", "translation_en_to_fr", *arguments]
    )
    assert result.exit_code == 0 and "translation_text" in result.stdout, result.output
    with loopback_server(tmp_path / "m") as server:
        asked = ["run", "translation", "--model", server.url("rest"), "--json", "A film"]
        result = CliRunner().invoke(app, [*asked, "--max-new-tokens", "4"])
    local = pipeline("translation_en_to_fr", model=folder, num_beams=2)
    assert result.exit_code == 0 and json.loads(result.stdout) == local(["A film"], max_new_tokens=4)
