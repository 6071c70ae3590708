"""``zero-shot-classification`` gives what ``transformers``' own PyTorch pipeline gives."""

import pytest
import transformers

from parity_tests.pipeline_helpers import assert_same_answers, labels_of, tiny_with_tokenizer, torch_pipeline
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline.pipelines import pipeline

NLI = ["contradiction", "neutral", "Entailment"]
LABELS = ["politics", "public health", "sport 🏉", "art", "東京"]
TEXTS = ["Who are you voting for in 2020?", "🤗 e\u0301lan 東京", "One more text."]


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return transformers.AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="module")
def make(tokenizer):
    def both(names):
        folder = tiny_with_tokenizer("TFBertForSequenceClassification", tokenizer, **labels_of(names))
        return pipeline("zero-shot-classification", model=folder), torch_pipeline("zero-shot-classification", folder)

    return both


@pytest.fixture(scope="module")
def pair(make):
    return make(NLI)


@pytest.mark.parametrize("inputs", exhaustive([TEXTS, TEXTS[0], TEXTS[:1]], [TEXTS, TEXTS[0]]), ids=str)
@pytest.mark.parametrize("labels", [LABELS, "politics, public health,art,, ", ["art"], LABELS * 4], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"multi_label": True}, {"hypothesis_template": "It is about {}, no?", "multi_label": False}],
    ids=str,
)
def test_it_is_transformers_own(pair, inputs, labels, options):
    ours, theirs = pair
    expected = theirs(inputs, candidate_labels=labels, **options)
    for answer in expected if isinstance(expected, list) else [expected]:
        assert len(answer["labels"]) == 1 or max(answer["scores"]) - min(answer["scores"]) > 1e-4
    if len(labels) == 20:  # equal labels give ties, whose order is that of a rounding error
        result = ours(inputs, candidate_labels=labels, **options)
        for mine, other in zip(*([one] if isinstance(one, dict) else one for one in (result, expected)), strict=True):
            assert mine["scores"] == pytest.approx(other["scores"], abs=2e-6)
            assert mine["labels"][::4] == other["labels"][::4]
    else:
        assert_same_answers(ours(inputs, candidate_labels=labels, **options), expected)
        assert_same_answers(ours(inputs, labels, **options), expected)


@pytest.mark.parametrize(
    "names", [["ENTAILMENT", "neutral", "contradiction"], ["no", "entails"], ["a", "b", "c"]], ids=str
)
@pytest.mark.parametrize("multi_label", exhaustive([False, True], [False]))
def test_where_entailment_is(make, names, multi_label, caplog):
    ours, theirs = make(names)
    assert ours.entailment_id == theirs.entailment_id == {"E": 0, "n": 1, "a": -1}[names[0][0]]
    assert ("Failed to determine 'entailment' label id" in caplog.text) == (names[0] == "a")
    options = {"candidate_labels": LABELS, "multi_label": multi_label}
    assert_same_answers(ours(TEXTS, **options), theirs(TEXTS, **options))


def test_a_long_text_is_cut_and_its_hypothesis_is_not(pair):
    ours, theirs = pair
    texts = ["word " * 700, TEXTS[0], "other " * 520]
    assert_same_answers(ours(texts, candidate_labels=LABELS), theirs(texts, candidate_labels=LABELS))
    chunk = ours.preprocess(texts[0], candidate_labels=LABELS)[1]
    assert chunk["input_ids"].shape == (1, 512)
    assert "this example is public health" in ours.tokenizer.decode(chunk["input_ids"][0])


def test_a_hypothesis_that_fills_the_model(pair):
    """Next to it a text cannot be cut to fit; others in the batch are still cut."""
    ours, theirs = pair
    template = "word " * 503 + "{}"
    assert_same_answers(
        ours(["a", "b"], ["art", "sport"], hypothesis_template=template),
        theirs(["a", "b"], ["art", "sport"], hypothesis_template=template),
    )
    with pytest.raises(ValueError, match="Text 1 has .* tokens.* at most 512"):
        ours(["a", "b c d e f g h i j"], ["art"], hypothesis_template="word " * 508 + "{}")


@pytest.mark.parametrize("options", thinned([{"token_budget": 30}, {"batch_size": 3}], 2), ids=str)
def test_batching_changes_nothing(pair, reviews, options):
    ours, _ = pair
    other = pipeline("zero-shot-classification", model=ours.model, tokenizer=ours.tokenizer, **options)
    result = other(reviews[:15], LABELS)
    assert [answer["sequence"] for answer in result] == reviews[:15]
    assert_same_answers(result, ours(reviews[:15], LABELS))
    assert_same_answers(list(other((text for text in reviews[:15]), LABELS)), result)
    assert other.trace_count == 1


def test_labels_as_a_default_and_the_stages_by_hand(pair):
    ours, _ = pair
    pipe = pipeline(
        "zero-shot-classification", model=ours.model, tokenizer=ours.tokenizer, candidate_labels="art,sport"
    )
    outputs = [pipe.forward(chunk) for chunk in pipe.preprocess(TEXTS[0])]
    assert len(outputs) == 2
    assert_same_answers(pipe.postprocess(outputs), pipe(TEXTS[0]))
    assert "entailment_id=2" in repr(pipe)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe("a"), "Pass candidate_labels"),
        (lambda pipe: pipe("a", []), "at least one label"),
        (lambda pipe: pipe("a", " , "), "at least one label"),
        (lambda pipe: pipe("a", [1]), "list of strings"),
        (lambda pipe: pipe("a", 5), "list of strings"),
        (lambda pipe: pipe("a", {"b": 1}), "list of strings"),
        (lambda pipe: pipe("a", (label for label in ())), "at least one label"),
        (lambda pipe: pipe("", ["b"]), "a text is empty"),
        (lambda pipe: pipe("a", ["b"], hypothesis_template="It is."), "not able to be formatted"),
        (lambda pipe: pipe("a", ["b"], candidate_labels=["c"]), "Unable to understand extra arguments"),
        (lambda pipe: pipe("a", ["b"], "c"), "Unable to understand extra arguments"),
        (lambda pipe: pipe([["a"]], ["b"]), "has to be a string"),
    ],
)
def test_errors(pair, call, message):
    with pytest.raises(ValueError, match=message):
        call(pair[0])


@pytest.mark.parametrize(
    "labels", [{"one": 0}.keys(), {"one"}, (label for label in ["one"])], ids=["keys", "set", "generator"]
)
def test_labels_of_any_iterable(pair, labels):
    assert pair[0](TEXTS, labels) == pair[0](TEXTS, ["one"])


def test_rows_come_to_the_answer_in_their_order(pair, monkeypatch):
    """Whatever the order in which batches by length ran them."""
    ours, _ = pair
    labels = ["one", "a label of many more words", "two words", "a label of even more words than that"]
    monkeypatch.setattr(ours, "postprocess", lambda outputs, **_: [one["candidate_label"] for one in outputs])
    assert ours(TEXTS, labels, batch_size=1) == [labels] * len(TEXTS)
