"""``fill-mask`` gives what ``transformers``' own PyTorch pipeline gives, token by token."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

from parity_tests.pipeline_helpers import assert_same_answers, tiny_with_tokenizer, torch_pipeline, trained_tokenizer
from parity_tests.tiers import exhaustive
from tf_pipeline import TFBertForMaskedLM
from tf_pipeline.pipelines import fill_mask, pipeline
from tf_pipeline.pipelines.fill_mask import FillMaskPipeline, top_places

TEXTS = ["Paris is the [MASK] of France.", "[MASK] 🤗 e\u0301lan 東京", "[MASK] and [MASK] or [MASK]!", "What a [MASK]"]


@pytest.fixture(scope="module")
def folder(minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    return tiny_with_tokenizer("TFBertForMaskedLM", tokenizer)


@pytest.fixture(scope="module")
def ours(folder):
    return pipeline("fill-mask", model=folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return torch_pipeline("fill-mask", folder)


@pytest.mark.parametrize(
    "inputs", exhaustive([TEXTS, *TEXTS, TEXTS[:1], TEXTS[2:3]], [TEXTS, TEXTS[0], TEXTS[2]]), ids=str
)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"top_k": 1}, {"top_k": 100}, {"targets": ["london", "paris", "rome", "paris"]}, {"targets": "london"},
        {"targets": ["london", "paris"], "top_k": 1}, {"tokenizer_kwargs": {"padding": "max_length", "max_length": 20}},
    ],
    ids=str,
)  # fmt: skip
def test_it_is_transformers_own(ours, theirs, inputs, options):
    assert_same_answers(ours(inputs, **options), theirs(inputs, **options))


def test_targets_outside_the_vocabulary(ours, theirs, caplog):
    options = {"targets": ["antidisestablishment", "london", ""]}
    with caplog.at_level(logging.WARNING):
        result = ours(TEXTS[0], **options)
    assert "`antidisestablishment` does not exist in the model vocabulary. Replacing with `anti`." in caplog.text
    assert "target token `` does not exist" in caplog.text and "ignoring it" in caplog.text
    assert len(result) == 2
    assert_same_answers(result, theirs(TEXTS[0], **options))


def test_truncation(ours, theirs):
    text = TEXTS[0] + " more words" * 600
    options = {"tokenizer_kwargs": {"truncation": True}}
    assert_same_answers(ours(text, **options), theirs(text, **options))
    with pytest.raises(ValueError, match="truncation=True"):
        ours(text)


def test_a_byte_level_tokenizer(reviews):
    folder = tiny_with_tokenizer("TFDistilBertForMaskedLM", trained_tokenizer("BPE", reviews))
    texts = ["A[MASK] film 🤗.", "A [MASK] or[MASK]."]
    assert_same_answers(pipeline("fill-mask", model=folder)(texts), torch_pipeline("fill-mask", folder)(texts))


def test_batches_in_order_and_of_bounded_size(folder, ours, reviews):
    texts = [f"{review} [MASK]" for review in reviews[:30]]
    expected = [ours(text) for text in texts]
    assert_same_answers(list(ours(text for text in texts)), expected)
    assert_same_answers(pipeline("fill-mask", model=folder, token_budget=50)(texts), expected)
    assert ours.token_budget == 2048 and ours.trace_count == 1


def test_the_logits_of_a_batch_are_bounded(folder, ours, monkeypatch):
    texts = ["[MASK] " * 7, "One [MASK].", *["[MASK] two [MASK]."] * 5]
    expected = ours(texts)
    monkeypatch.setattr(fill_mask, "LOGITS_BYTES", 4 * len(ours.tokenizer) * 4)
    shapes = []
    monkeypatch.setattr(ours, "score_masks", lambda inputs, count: shapes.append((len(inputs["input_ids"]), count)) or (
        ours._score_masks(inputs, tf.constant(count))
    ))  # fmt: skip
    assert_same_answers(ours(texts), expected)
    assert max(rows * count for rows, count in shapes if rows > 1) <= 4 and (1, 7) in shapes


def test_the_vocabulary_is_scored_at_masks_alone(ours, monkeypatch):
    sizes = []
    plain = TFBertForMaskedLM.prediction_logits

    def recorded(self, states):
        scores = plain(self, states)
        tf.py_function(lambda shape: sizes.append(shape.numpy().tolist()), [tf.shape(scores)[:2]], [])
        return scores

    monkeypatch.setattr(TFBertForMaskedLM, "prediction_logits", recorded)
    FillMaskPipeline(ours.model, ours.tokenizer)(["[MASK] and three more words", "[MASK] or [MASK]"])
    assert sizes == [[2, 2]]


def test_padding_on_the_left(ours, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    left = pipeline("fill-mask", model=ours.model, tokenizer=tokenizer)
    fixed = {"tokenizer_kwargs": {"padding": "max_length", "max_length": 20}}
    theirs = torch_pipeline("fill-mask", folder, tokenizer=tokenizer)
    assert_same_answers(left(TEXTS, **fixed), theirs(TEXTS, **fixed))


def test_the_stages_by_hand(ours, theirs):
    for text in TEXTS:
        outputs = ours.forward(ours.preprocess(text))
        assert outputs["logits"].shape == (1, outputs["input_ids"].shape[1], 30522)
        assert_same_answers(ours.postprocess(outputs, top_k=3), theirs(text, top_k=3))


def test_scores_are_probabilities_of_the_whole_vocabulary(ours, theirs):
    answers = ours(TEXTS[0], top_k=30522)
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-4)
    assert len({answer["token"] for answer in answers}) == 30522


def test_repr(ours):
    assert "mask_token='[MASK]', vocabulary=30522" in repr(ours)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe("No blank."), r"No mask_token \(\[MASK\]\) found on the input 'No blank.'"),
        (lambda pipe: pipe([TEXTS[0], "No blank."]), "found on the input 'No blank.'"),
        (lambda pipe: pipe(TEXTS[0], top_k=0), "top_k is 0"),
        (lambda pipe: pipe(TEXTS[0], targets=[""]), "At least one target"),
        (lambda pipe: pipe(TEXTS[0], targets=[]), "At least one target"),
        (
            lambda pipe: pipe(TEXTS[0] + " a" * 900, tokenizer_kwargs={"truncation": True, "truncation_side": "left"}),
            "No",
        ),
    ],
)
def test_errors(ours, call, message):
    with pytest.raises(ValueError, match=message):
        call(ours)


def test_a_tokenizer_without_a_mask_is_refused(ours, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="does not define a `mask_token`"):
        pipeline("fill-mask", model=ours.model, tokenizer=tokenizer)


@pytest.mark.parametrize("size", [1, 5, 2049, 30522])
@pytest.mark.parametrize("count", [1, 5, 64, 65, 3000])
def test_the_largest_values(size, count):
    random = np.random.default_rng(size)
    for values in (random.normal(size=size).astype(np.float32), random.integers(0, 9, size).astype(np.float32)):
        expected = np.argsort(-values, kind="stable")[:count]
        np.testing.assert_array_equal(top_places(values, count), expected)
    assert torch.equal(torch.tensor(values[top_places(values, 1)]), torch.tensor(values).topk(1).values)


def test_parity_of_a_checkpoint_covers_its_pipeline(folder):
    from tf_pipeline.parity import compare

    report = compare(str(folder), None, None, ["One text.", "Another."], dtypes=("float64",), groups=["pipeline"])
    assert report.passed and len(report.checks) == 6 and all(skip.group != "pipeline" for skip in report.skipped)


def test_padding_stays_out_of_the_text_by_hand_too(ours, theirs):
    options = {"tokenizer_kwargs": {"padding": "max_length", "max_length": 20}}
    outputs = ours.forward(ours.preprocess(TEXTS[2], **options))
    assert_same_answers(ours.postprocess(outputs), theirs(TEXTS[2], **options))
