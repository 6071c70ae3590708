"""Prompt lookup: the text is the one without it, and PyTorch's; where it repeats itself, fewer reads write it."""

import numpy as np
import pytest
import tensorflow as tf

from parity_tests.generation_helpers import IDS, MASK, generate, pair
from parity_tests.tiers import exhaustive
from tf_pipeline.generation.lookup import followers

LOOKUP = {"prompt_lookup_num_tokens": 4, "max_new_tokens": 24, "pad_token_id": 1, "eos_token_id": None}
TEXT, ITS_MASK = IDS[1:2], MASK[1:2]
REPEATED = np.tile([[21, 22, 23, 24, 25, 26]], 3)
OPTIONS = {
    "greedy": {},
    "longer matches": {"max_matching_ngram_size": 3},
    "processed": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "suppress_tokens": [3, 4]},
    "ended": {"eos_token_id": list(range(20, 60, 4))},
    "one token": {"max_new_tokens": 1},
}


def reads(monkeypatch, model, prompt, **options) -> tuple[np.ndarray, list[int]]:
    """The text, and how many tokens each read of the model had, run without graphs."""
    counts = []
    read = type(model).read_ahead

    def counted(self, tokens, state):
        counts.append(int(tokens.shape[1]))
        return read(self, tokens, state)

    monkeypatch.setattr(type(model), "read_ahead", counted)
    tf.config.run_functions_eagerly(True)
    try:
        return generate(model, prompt, np.ones_like(prompt), **LOOKUP | options).numpy(), counts
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("options", exhaustive(OPTIONS, ["greedy", "one token"]))
@pytest.mark.parametrize("model_type", exhaustive(["gpt2", "llama"], ["gpt2"]))
def test_no_token_changes(model_type, options):
    ours, theirs = pair(model_type)
    options = LOOKUP | OPTIONS[options]
    plain = {name: value for name, value in options.items() if "lookup" not in name and "matching" not in name}
    for prompt in (TEXT, REPEATED):
        mask = np.ones_like(prompt)
        written = generate(ours, prompt, mask, **options).numpy()
        np.testing.assert_array_equal(written, generate(ours, prompt, mask, **plain).numpy())
        np.testing.assert_array_equal(written, generate(theirs, prompt, mask, **plain).numpy())


def test_torch_writes_the_same_with_its_own_lookup():
    ours, theirs = pair("gpt2")
    written = generate(ours, REPEATED, np.ones_like(REPEATED), **LOOKUP)
    theirs_written = generate(theirs, REPEATED, np.ones_like(REPEATED), use_cache=True, **LOOKUP)
    np.testing.assert_array_equal(written, theirs_written)


@pytest.mark.slow
def test_scores_and_logits_are_of_each_token():
    ours, _ = pair("gpt2")
    kept = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    plain = {name: value for name, value in LOOKUP.items() if name != "prompt_lookup_num_tokens"}
    ahead, alone = (generate(ours, REPEATED, np.ones_like(REPEATED), **kept, **o) for o in (LOOKUP, plain))
    for name in ("scores", "logits"):
        assert len(ahead[name]) == len(alone[name]) == 24
        np.testing.assert_allclose(ahead[name], alone[name], atol=1e-5)


@pytest.mark.slow
def test_a_seed_draws_the_same_text():
    ours, _ = pair("gpt2")
    drawn = [
        generate(ours, REPEATED, np.ones_like(REPEATED), do_sample=True, temperature=0.7, seed=5, **options).numpy()
        for options in (LOOKUP, {name: value for name, value in LOOKUP.items() if "lookup" not in name})
    ]
    np.testing.assert_array_equal(*drawn)


def test_a_padded_prompt_is_the_prompt():
    ours, _ = pair("gpt2")
    padded = np.concatenate([[[0, 0, 0]], REPEATED], axis=1)
    written = generate(ours, padded, (padded != 0).astype(int), **LOOKUP).numpy()
    alone = generate(ours, REPEATED, np.ones_like(REPEATED), **LOOKUP).numpy()
    np.testing.assert_array_equal(written[:, 3:], alone)


def test_a_text_that_repeats_itself_takes_fewer_reads(monkeypatch):
    """Random models come to repeat a token: most of what is proposed is right."""
    ours, _ = pair("gpt2")
    written, counts = reads(monkeypatch, ours, REPEATED)
    assert written.shape[1] == REPEATED.shape[1] + 24
    assert len(counts) < 23 and max(counts) == 1 + LOOKUP["prompt_lookup_num_tokens"]


def test_tokens_that_are_forgotten_leave_no_trace():
    """Reading on after wrong proposals gives the logits of a text without them, at float64."""
    model, _ = pair("gpt2", "float64")
    inputs = {"input_ids": tf.constant(TEXT, tf.int32)}
    _, state = model.prefill(inputs, 16)
    expected, _ = model.read_ahead(tf.constant([[7, 8, 9]]), state)
    _, state = model.prefill(inputs, 16)
    read, tried = model.read_ahead(tf.constant([[7, 50, 51, 52]]), state)
    logits, _ = model.read_ahead(tf.constant([[8, 9]]), model.forget(tried, tf.constant(3)))
    np.testing.assert_allclose(read[:, 0], expected[:, 0], atol=1e-12)
    np.testing.assert_allclose(logits, expected[:, 1:], atol=1e-12)
    whole = model(np.concatenate([TEXT, [[7, 8, 9]]], axis=1)).logits[:, -3:]
    np.testing.assert_allclose(expected, whole, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "matching", "most", "expected"),
    [
        ([5, 6, 7, 8, 5, 6], 2, 3, [7, 8, 5]),
        ([5, 6, 7, 8, 5, 6], 2, 9, [7, 8, 5, 6]),
        ([9, 6, 1, 5, 6, 2, 5, 6], 2, 1, [2]),  # a match of two goes before an earlier one of one
        ([9, 6, 1, 5, 6, 2, 5, 6], 1, 2, [1, 5]),
        ([1, 2, 3], 2, 3, []),
        ([4, 4], 2, 3, [4]),
        ([4], 2, 3, []),
        ([5, 6, 5, 6], 2, 0, []),
    ],
)
def test_what_followed_is_found(text, matching, most, expected):
    ids = tf.constant([*text, 6, 6, 6])  # room behind the text, which counts for nothing
    assert followers(ids, tf.constant(len(text)), tf.constant(most), matching).numpy().tolist() == expected


@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        ("gpt2", {"num_beams": 2}, "num_beams has to be 1 when doing assisted generate, but is 2"),
        ("gpt2", {"num_return_sequences": 2, "do_sample": True}, "num_return_sequences has to be 1"),
        ("gpt2", {"guidance_scale": 1.5}, "reads one token at a time with guidance_scale"),
        ("gpt2", {"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens is 0, but has to be a whole number, 1"),
        ("gpt2", {"max_matching_ngram_size": "two"}, "max_matching_ngram_size is 'two'"),
        ("mistral", {}, "keeps the last 8 tokens of a text in some layers"),
        ("t5", {}, "TFT5ForConditionalGeneration reads one token at a time;"),
    ],
)
def test_what_cannot_look_up_says_so(model_type, options, message):
    with pytest.raises(ValueError, match=message):
        generate(pair(model_type)[0], TEXT, ITS_MASK, **LOOKUP | options)


def test_several_texts_are_refused():
    with pytest.raises(ValueError, match="only supported for batch_size = 1"):
        generate(pair("gpt2")[0], **LOOKUP)


def test_a_graph_of_open_sizes_looks_up_and_refuses_several_texts():
    model, _ = pair("gpt2")
    options = LOOKUP | {"max_length": 30, "max_new_tokens": None}
    write = model.generate_signature(**options)
    given = {"input_ids": tf.constant(REPEATED, tf.int32), "attention_mask": tf.ones_like(REPEATED, tf.int32)}
    np.testing.assert_array_equal(write(given)["sequences"], generate(model, REPEATED, None, **options))
    several = {name: tf.repeat(value, 2, axis=0) for name, value in given.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch_size = 1"):
        write(several)
