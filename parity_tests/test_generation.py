"""Texts of ``generate`` are those of PyTorch, token for token: greedy, with beams, with every option."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import torch

from parity_tests.generation_helpers import ENDS, IDS, KINDS, MASK, assert_same, generate, pair
from parity_tests.tiers import exhaustive

slow = pytest.mark.slow
MANY_ENDS = list(range(20, 60, 4))
# Texts of random models come to repeat a token, the same in all of them.
VARIED = {"max_new_tokens": 12, "pad_token_id": 1, "no_repeat_ngram_size": 1}
PROCESSED = {
    "repeated": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "bad_words_ids": [[3], [11, 12], [40]]},
    "short": {"min_length": 9, "min_new_tokens": 6, "remove_invalid_values": True},
    "source": {"encoder_repetition_penalty": 1.4, "encoder_no_repeat_ngram_size": 1},
    "suppressed": {"suppress_tokens": [5, 6], "begin_suppress_tokens": [7, 60], "forced_bos_token_id": 8},
    "forced": {"forced_eos_token_id": 9, "exponential_decay_length_penalty": (2, 1.3), "renormalize_logits": True},
    "biased": {"sequence_bias": {(5,): 3.0, (4, 3): 2.0, (6, 1): float("-inf")}},
}


def end_of_one(model_type: str) -> list[int]:
    """A token that ends one text early, and no other."""
    new = generate(pair(model_type)[0], **VARIED, eos_token_id=None).numpy()[:, -12:]
    others = [np.delete(new, row, 0) for row in range(len(new))]
    return next([int(token)] for row, rest in zip(new, others, strict=True) for token in row[:-1] if token not in rest)


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    exhaustive([*itertools.product(KINDS, ["float32"]), ("gpt2", "float64"), ("t5", "float64")],
               [("gpt2", "float32")]),
)  # fmt: skip
def test_greedy(model_type, dtype):
    assert_same(model_type, dtype, max_new_tokens=12, pad_token_id=1, eos_token_id=None)
    written = assert_same(model_type, dtype, **VARIED, eos_token_id=end_of_one(model_type))
    assert (written[:, -1] == 1).any() and (written[:, -1] != 1).any()
    assert_same(model_type, dtype, IDS[1:2, :3], MASK[1:2, :3], max_length=8, pad_token_id=1)


def assert_same_beams(model_type: str, dtype: str, choices) -> None:
    """Length penalties, ways to stop and padding are values of one graph."""
    found = {}
    for penalty, early, pad in choices:
        options = {"length_penalty": penalty, "early_stopping": early, "pad_token_id": pad}
        found[penalty, early, pad] = assert_same(
            model_type, dtype, max_new_tokens=8, num_beams=4, num_return_sequences=3, eos_token_id=MANY_ENDS, **options
        )
    assert any(np.isin(written[:, -8:-1], MANY_ENDS).any() for written in found.values())
    assert len({written.tobytes() for written in found.values()}) > 1


@pytest.mark.parametrize("model_type", exhaustive(["gpt2", "bart"], ["bart"]))
def test_beams(model_type):
    assert_same_beams(model_type, "float32", [(0.0, True, 0), (1.0, False, 1), (2.0, "never", 1), (-1.0, "never", 0)])


@slow
@pytest.mark.parametrize(
    ("model_type", "dtype"), [*itertools.product(KINDS, ["float32"]), ("gpt2", "float64"), ("t5", "float64")]
)
def test_beams_of_every_kind(model_type, dtype):
    assert_same_beams(model_type, dtype, itertools.product((0.0, 1.0, 2.0, -1.0), (True, False, "never"), (0, 1)))


@slow
@pytest.mark.parametrize("model_type", ["gpt2", "llama", "bart", "t5"])
def test_beams_without_an_end_and_with_one(model_type):
    for ends in (None, 2):
        assert_same(model_type, max_new_tokens=10, num_beams=2, pad_token_id=1, eos_token_id=ends)


def assert_same_guided(model_type: str) -> None:
    """Guided by the last token of the prompt, and by another prompt; two scales are values of one graph."""
    other = np.random.default_rng(5).integers(3, 60, (3, 7))
    plain = assert_same(model_type, **VARIED)
    for scale in (1.5, 4.0):
        assert (assert_same(model_type, **VARIED, guidance_scale=scale) != plain).any()
    ours, theirs = pair(model_type)
    options = VARIED | {"guidance_scale": 2.0}
    written = generate(ours, **options, negative_prompt_ids=other).numpy()
    np.testing.assert_array_equal(written, generate(theirs, **options, negative_prompt_ids=torch.tensor(other)))


@pytest.mark.slow
def test_guided():
    assert_same_guided("gpt2")


@slow
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt_neo"])
def test_guided_of_every_kind(model_type):
    assert_same_guided(model_type)


# Kinds of models and numbers of beams: options act on logits, which every kind has.
WAYS = [*itertools.product(["gpt2", "llama", "gpt_neo", "t5", "bart", "plbart"], [1])]
WAYS += itertools.product(["gpt2", "bart", "gpt_neo"], [3])


@pytest.mark.parametrize(("model_type", "beams"), exhaustive(WAYS, [("gpt2", 1)]))
def test_processed(model_type, beams):
    """Every option, in two graphs; one by one below."""
    first = {"forced_bos_token_id", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty"}
    options = {name: value for group in PROCESSED.values() for name, value in group.items()}
    for names in (options.keys() - first, first | {"repetition_penalty"}):
        chosen = {name: options[name] for name in names}
        settings = {"max_new_tokens": 8, "pad_token_id": 1, "eos_token_id": ENDS, "num_beams": beams}
        assert_same(model_type, **settings, **chosen)


@slow
@pytest.mark.parametrize(("model_type", "beams"), [("gpt2", 1), ("t5", 1), ("bart", 3)])
@pytest.mark.parametrize("name", PROCESSED)
def test_processed_in_groups(model_type, name, beams):
    options = {"max_new_tokens": 8, "pad_token_id": 1, "eos_token_id": ENDS, "num_beams": beams}
    assert_same(model_type, **options, **PROCESSED[name])


# Settings of facebook/bart-large-cnn, on the scale of a tiny model.
SUMMARY = {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3}
SUMMARY |= {"min_length": 7, "max_length": 14, "forced_bos_token_id": 0, "forced_eos_token_id": 2}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["bart", pytest.param("m2m_100", marks=slow), pytest.param("mbart", marks=slow)])
def test_a_summary_and_a_translation(model_type):
    """The second starts with the code of a language."""
    assert_same(model_type, pad_token_id=1, eos_token_id=2, **SUMMARY)
    language = {"forced_bos_token_id": 77, "decoder_start_token_id": 2}
    written = assert_same(model_type, pad_token_id=1, eos_token_id=ENDS, max_new_tokens=8, **language)
    assert (written[:, :2] == [2, 77]).all()


def test_scores_and_logits_are_returned():
    for beams in (1, 3):
        options = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "num_beams": beams}
        ours, theirs = (
            generate(model, max_new_tokens=8, pad_token_id=1, eos_token_id=ENDS, **options) for model in pair("gpt2")
        )
        assert type(ours).__name__ == type(theirs).__name__
        assert list(ours) == [name for name in theirs if name != "past_key_values"]
        for name, value in ours.items():
            if not isinstance(value, tuple):
                value, expected = (value,), (theirs[name],)
            else:
                expected = theirs[name]
            for mine, other in zip(value, expected, strict=True):
                np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("model_type", ["bart", pytest.param("plbart", marks=slow)])
def test_a_decoder_that_is_given_a_beginning(model_type):
    ours, theirs = pair(model_type)
    for beginning in ([[7, 8], [9, 10], [11, 12]], [[2, 8], [9, 10], [11, 12]]):
        written = ours.generate(IDS, attention_mask=MASK, decoder_input_ids=beginning, max_new_tokens=4)
        expected = theirs.generate(
            torch.tensor(IDS),
            attention_mask=torch.tensor(MASK),
            decoder_input_ids=torch.tensor(beginning),
            max_new_tokens=4,
        )
        np.testing.assert_array_equal(written, expected)


def test_a_mask_is_found_from_padding():
    ours, theirs = pair("gpt2")
    options = {"max_new_tokens": 6, "pad_token_id": 0, "eos_token_id": 2}
    expected = theirs.generate(torch.tensor(IDS), **options)
    np.testing.assert_array_equal(ours.generate(IDS, **options), expected)
    assert not np.array_equal(ours.generate(IDS, attention_mask=np.ones_like(IDS), **options), expected)


def test_no_prompt_begins_with_the_start_token():
    ours, theirs = pair("gpt2")
    np.testing.assert_array_equal(ours.generate(max_new_tokens=4), theirs.generate(max_new_tokens=4))


def test_prompts_of_any_length_and_values_of_options_share_a_graph():
    ours, _ = pair("gpt2")
    options = {"do_sample": True, "pad_token_id": 1, "max_new_tokens": 5}
    generate(ours, **options, top_k=5, temperature=0.7, seed=1)
    before = dict(vars(ours)["_generation_graphs"].made)
    generate(ours, **options, top_k=9, temperature=1.7, seed=[2, 3])
    generate(ours, IDS[:1, 2:], MASK[:1, 2:], **options, top_k=9, temperature=1.7)
    generate(ours, np.tile(IDS, [2, 3]), np.tile(MASK, [2, 3]), **options, top_k=3, temperature=0.3, eos_token_id=ENDS)
    after = vars(ours)["_generation_graphs"].made
    assert after.keys() == before.keys()
    assert all(graph.run.experimental_get_tracing_count() <= 1 for key, graph in after.items() if key[0] != "stepper")


# ------------------------------------------------------------------------------------------------------------ sampling


SAMPLED = {"do_sample": True, "pad_token_id": 1, "top_k": 20, "top_p": 0.95, "temperature": 1.3}


def frequencies(tokens: np.ndarray) -> np.ndarray:
    return np.bincount(tokens, minlength=99)


def assert_drawn_from(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Pearson's test at about five standard deviations, of the tokens that are expected at least five times."""
    assert not counts[probabilities == 0].any()
    expected = probabilities * counts.sum()
    often = expected >= 5
    assert often.sum() > 3
    statistic = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert statistic < often.sum() + 5 * np.sqrt(2 * often.sum())


def test_tokens_are_drawn_with_their_probabilities():
    ours, theirs = pair("gpt2")
    ids, mask = IDS[1:2], MASK[1:2]
    options = SAMPLED | {"max_new_tokens": 1}
    written = generate(ours, ids, mask, **options, num_return_sequences=4000, seed=3).numpy()
    kept = {"return_dict_in_generate": True, "output_scores": True}
    scores = generate(theirs, ids, mask, **options, **kept).scores[0]
    assert_drawn_from(frequencies(written[:, -1]), torch.softmax(scores[0].double(), -1).numpy())


@pytest.mark.slow
def test_beams_are_drawn_with_their_probabilities():
    """Two beams draw a token and another from what is left; of a text of one token, the likelier is returned."""
    ours, theirs = pair("gpt2")
    ids, mask = np.tile(IDS[1:2], [20000, 1]), np.tile(MASK[1:2], [20000, 1])
    options = {"do_sample": True, "num_beams": 2, "max_new_tokens": 1, "pad_token_id": 1}
    options |= {"top_k": 30, "temperature": 3.0}
    written = generate(ours, ids, mask, **options, seed=5).numpy()
    kept = {"return_dict_in_generate": True, "output_scores": True}
    scores = generate(theirs, ids[:1], mask[:1], **options, **kept).scores[0][0].double()
    drawn = torch.softmax(scores, -1)
    both = drawn[:, None] * drawn * (1 / (1 - drawn[:, None]) + 1 / (1 - drawn))
    likelier = (both * (scores[:, None] > scores)).sum(1)
    assert_drawn_from(frequencies(written[:, -1]), likelier.numpy())


def test_a_seed_repeats_a_text():
    ours, _ = pair("gpt2")
    options = SAMPLED | {"max_new_tokens": 6}
    one, again, other = (generate(ours, **options, seed=seed).numpy() for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    tf.random.set_seed(7)
    first, second = (generate(ours, **options).numpy() for _ in range(2))
    tf.random.set_seed(7)
    np.testing.assert_array_equal(first, generate(ours, **options).numpy())
    assert not np.array_equal(first, second)
