"""What each option does to scores, compared with the processors that PyTorch makes of the same GenerationConfig."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import torch
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin

from parity_tests.tiers import exhaustive
from tf_pipeline.generation import processors
from tf_pipeline.generation.processors import Written, prepared, process

ROWS, VOCABULARY, FEW = 6, 37, 6
ENDS = [3, 7]
# With top_h of 1, PyTorch compares a sum with itself, added up in another order: rounding decides, and it is left out.
VALUES = {
    "sequence_bias": [
        {(4,): 2.0, (1, 2): -3.5, (0, 1, 2): 5.0, (*[5] * 11, 1): 1.0, (3, 2): float("-inf")},
        [[[4], 2.0], [[1, 2], 1.5], [[0, 2], 2.5], [[2, 2], 0.25]],
    ],
    "encoder_repetition_penalty": [1.7, 0.3],
    "repetition_penalty": [1.3, 0.6],
    "no_repeat_ngram_size": [1, 2, 3, 9, 10, 12],
    "encoder_no_repeat_ngram_size": [1, 2, 3, 9, 10, 12],
    "bad_words_ids": [[[4], [3], [1, 2], [2, 2], [0, 1, 5], [5] * 12]],
    "min_length": [0, 9, 10],
    "min_new_tokens": [0, 4, 5],
    "forced_bos_token_id": [5],
    "forced_eos_token_id": [5, [5, 9]],
    "remove_invalid_values": [True],
    "exponential_decay_length_penalty": [(0, 1.3), (2, 1.3), (4, 1.3), (5, 0.9)],
    "suppress_tokens": [[1, 5, 36, 400], []],
    "begin_suppress_tokens": [[1, 5]],
    "temperature": [0.7, 3.0],
    "top_h": [0.1, 0.5, 0.9],
    "top_k": [1, 2, 5, 36, 100],
    "top_p": [0.0, 0.1, 0.5, 0.9, 0.999],
    "min_p": [0.0, 0.05, 0.5, 1.0],
    "typical_p": [0.1, 0.5, 0.95],
    "epsilon_cutoff": [0.01, 0.1, 0.9],
    "eta_cutoff": [0.001, 0.05, 0.9],
    "renormalize_logits": [True],
}
SAMPLING = set(processors.SAMPLERS)
# Written columns, columns of the prompt, columns in the end, with an encoder.
PLACES = [(9, 5, 10, False), (9, 9, 20, False), (5, 5, 6, False), (1, 1, 9, True), (2, 1, 9, True)]


class Torch(GenerationMixin):
    """As much of a PyTorch model as its processors need."""

    def __init__(self, has_encoder: bool):
        self.config = SimpleNamespace(is_encoder_decoder=has_encoder)


def drawn_scores(kind: str, rng: np.random.Generator) -> np.ndarray:
    scores = rng.normal(0, 3, [ROWS, VOCABULARY]).astype(np.float32)
    if kind == "infinite":
        scores[rng.random(scores.shape) < 0.3] = -np.inf
        scores[:, 0] = 1.0
    if kind == "tied":
        scores = np.round(scores / 2)
    if kind == "invalid":
        scores[0, 1], scores[1, 2], scores[2, 3] = np.nan, np.inf, -np.inf
    return scores


def both(options: dict, kind: str, beams: int, place: tuple[int, int, int, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Scores by this package and by PyTorch."""
    length, prompt, most, has_encoder = place
    rng = np.random.default_rng(length + beams)
    ids, source = rng.integers(0, FEW, [ROWS, length]), rng.integers(0, FEW, [ROWS // beams, 8])
    mask = np.ones([ROWS, prompt], int)
    if not has_encoder:
        mask[0, :2], mask[3, :1] = 0, 0
    config = GenerationConfig(max_length=most, eos_token_id=ENDS, num_beams=beams, **options)
    config._eos_token_tensor = torch.tensor(ENDS)
    scores = drawn_scores(kind, rng)
    theirs = Torch(has_encoder)._get_logits_processor(
        config,
        prompt,
        torch.tensor(source),
        device="cpu",
        model_kwargs={} if has_encoder else {"attention_mask": torch.tensor(mask)},
    )
    tensors = prepared(config)
    assert len(theirs) == len(tensors)
    written = Written(
        ids=tf.constant(np.pad(ids, [[0, 0], [0, 4]], constant_values=5), tf.int32),  # what is behind is not text
        length=tf.constant(length),
        prompt=tf.constant(prompt),
        most=tf.constant(most),
        first=tf.constant((mask != 0).argmax(1), tf.int32),
        source=tf.constant(np.repeat(source, beams, 0), tf.int32),
        ends=tf.constant(ENDS),
        keep=1 if beams == 1 else 1 + len(ENDS),
    )
    return process(tf.constant(scores), written, tensors).numpy(), theirs(
        torch.tensor(ids), torch.tensor(scores)
    ).numpy()


def assert_equal(ours: np.ndarray, theirs: np.ndarray, ordered: bool) -> None:
    if not ordered:
        ours, theirs = np.sort(ours), np.sort(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("kind", exhaustive(["plain", "infinite", "tied"], ["infinite"]))
@pytest.mark.parametrize("name", VALUES)
def test_an_option_does_what_it_does_in_torch(name, kind):
    changed = 0
    for value in VALUES[name]:
        options = {name: value}
        if name in SAMPLING:
            options |= {"do_sample": True} | ({} if name == "top_k" else {"top_k": 0})
        for beams, places in ((1, PLACES), (3, PLACES[::2])):
            for place in places:
                ours, theirs = both(options, kind, beams, place)
                # Which of equal scores are kept is up to PyTorch's sort.
                assert_equal(ours, theirs, ordered=kind != "tied")
                changed += len(np.unique(ours)) > 1
    assert changed


def test_what_no_score_may_be_is_removed():
    for place in PLACES:
        assert_equal(*both({"remove_invalid_values": True}, "invalid", 1, place), ordered=True)


def test_the_first_token_to_suppress_is_that_behind_a_forced_start():
    options = {"begin_suppress_tokens": [1, 5], "forced_bos_token_id": 4}
    for place in PLACES:
        assert_equal(*both(options, "plain", 1, place), ordered=True)


def test_options_act_in_torchs_order():
    options = {
        "sequence_bias": [[[4], 2.0]],
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[5]],
        "min_length": 10,
        "exponential_decay_length_penalty": (0, 1.3),
        "suppress_tokens": [6],
        "do_sample": True,
        "temperature": 0.7,
        "top_h": 0.9,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.001,
        "eta_cutoff": 0.001,
        "renormalize_logits": True,
    }
    for beams in (1, 3):
        for place in PLACES:
            assert_equal(*both(options, "plain", beams, place), ordered=True)


def test_scores_of_more_ids_than_the_vocabulary_are_left_alone():
    """Embedding tables may be larger than what is predicted."""
    ids = tf.constant([[50, 1, 50, 2]])
    written = Written(ids, 4, 4, 9, tf.constant([0]), ids, tf.constant([3]), 1)
    scores = tf.ones([1, 10])
    for name in ("repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size"):
        value = 2 if name.endswith("size") else 2.0
        config = GenerationConfig(eos_token_id=3, **{name: value})
        assert process(scores, written, prepared(config)).shape == [1, 10], name


def test_own_processors_act_before_those_of_sampling():
    seen = []

    def own(input_ids, scores):
        seen.append((input_ids.shape, scores.numpy().copy()))
        return scores + 1

    ids = tf.constant([[1, 2, 3, 0, 0]])
    written = Written(ids, 3, 3, 9, tf.constant([0]), ids, tf.constant([3]), 1)
    config = GenerationConfig(do_sample=True, temperature=2.0, top_k=0, suppress_tokens=[0])
    scores = process(tf.constant([[1.0, 3.0]]), written, prepared(config), [own])
    np.testing.assert_array_equal(seen[0][1], [[-np.inf, 3.0]])
    assert seen[0][0] == [1, 3]
    np.testing.assert_array_equal(scores, [[-np.inf, 2.0]])
