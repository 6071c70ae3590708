"""``token-classification`` gives what ``transformers``' own PyTorch pipeline gives, entity by entity."""

import warnings

import pytest
import transformers

from parity_tests.pipeline_helpers import (
    CONLL,
    assert_same_answers,
    labels_of,
    tiny_with_tokenizer,
    torch_pipeline,
    trained_tokenizer,
)
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline.pipelines import pipeline

STRATEGIES = ["none", "simple", "first", "average", "max"]
TEXTS = [
    "My name is Sylvain and I work at Hugging Face in Brooklyn.",
    "Antidisestablishmentarianism bewilders the Saskatchewanian pteranodons.",
    "Emoji 🤗🧑‍🚀 before names: Zoë Müller-Lüdenscheidt, and e\u0301le\u0300ve with combining marks.",
    "我在巴黎工作。東京は日本の首都です。 mixed 한국어 Seoul",
    "A rare sign ⸘ and \u200b nothing; tabs\tand\nlines.",
    "O",
]


@pytest.fixture(scope="module")
def bert(minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    return tiny_with_tokenizer("TFBertForTokenClassification", tokenizer, **labels_of(CONLL))


@pytest.fixture(scope="module")
def ours(bert):
    return pipeline("ner", model=bert)


@pytest.fixture(scope="module")
def theirs(bert):
    return torch_pipeline("ner", bert)


def spans(answers) -> list[str]:
    """All texts of entities, to see that a comparison had something to compare."""
    return [entity["word"] for entities in answers for entity in entities]


@pytest.mark.parametrize("strategy", [None, *STRATEGIES])
@pytest.mark.parametrize("ignored", exhaustive([None, [], ["PER", "B-PER", "O"]], [["PER", "B-PER", "O"]]), ids=str)
def test_every_strategy_is_transformers_own(ours, theirs, reviews, strategy, ignored):
    texts = [*TEXTS, *reviews[:25]]
    options = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    result, expected = ours(texts, **options), theirs(texts, **options)
    assert len(spans(expected)) > 100
    assert_same_answers(result, expected)


def test_the_strategies_differ(ours):
    answers = [str(ours(TEXTS, aggregation_strategy=strategy)) for strategy in STRATEGIES]
    assert len(set(answers)) == len(STRATEGIES)


@pytest.mark.parametrize("kind", exhaustive(["BPE", "Unigram"], ["Unigram"]))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tokenizers_without_words(reviews, kind, strategy, checkpoints_by_kind):
    ours, theirs = checkpoints_by_kind(kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ours([*TEXTS, *reviews[:5]], aggregation_strategy=strategy)
        heuristic = [w for w in caught if "fallback heuristic" in str(w.message)]
        assert bool(heuristic) == (strategy in ("first", "average", "max"))
        assert_same_answers(result, theirs([*TEXTS, *reviews[:5]], aggregation_strategy=strategy))


@pytest.fixture(scope="module")
def checkpoints_by_kind(reviews):
    made = {}

    def make(kind):
        if kind not in made:
            tokenizer = trained_tokenizer(kind, reviews)
            folder = tiny_with_tokenizer("TFDistilBertForTokenClassification", tokenizer, **labels_of(CONLL))
            made[kind] = pipeline("ner", model=folder), torch_pipeline("ner", folder)
        return made[kind]

    return make


def test_offsets_are_code_points_of_the_text(ours):
    for text in TEXTS:
        for entity in ours(text, ignore_labels=[]):
            piece = text[entity["start"] : entity["end"]]
            if entity["word"].removeprefix("##").isascii() and entity["word"].isalnum() and piece.isascii():
                assert entity["word"].removeprefix("##") == piece.lower()
    entities = ours("🤗🤗 Paris e\u0301te\u0301 東京", ignore_labels=[])
    assert [(e["word"], e["start"], e["end"]) for e in entities] == [
        ("🤗🤗", 0, 2), ("paris", 3, 8), ("et", 9, 12), ("##e", 12, 13), ("東", 15, 16), ("京", 16, 17)
    ]  # fmt: skip


@pytest.mark.parametrize("strategy", exhaustive(STRATEGIES[1:], ["average"]))
@pytest.mark.parametrize("stride", thinned([0, 3, 10], 3))
def test_windows_over_a_long_text(bert, reviews, strategy, stride):
    """Windows of 24 tokens; entities in the overlaps are found twice and resolved."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert, model_max_length=24)
    theirs = torch_pipeline("ner", bert, tokenizer=tokenizer)
    ours = pipeline("ner", model=bert, tokenizer=transformers.AutoTokenizer.from_pretrained(bert, model_max_length=24))
    texts = [" ".join(reviews[:6]), "Short.", " ".join(TEXTS), *reviews[:3]]
    options = {"aggregation_strategy": strategy, "stride": stride}
    expected = theirs(texts, **options)
    assert max(entity["end"] for entity in expected[0]) > 200
    assert_same_answers(ours(texts, **options), expected)


def test_windows_over_words(bert, reviews):
    tokenizers = [transformers.AutoTokenizer.from_pretrained(bert, model_max_length=24) for _ in range(2)]
    theirs = torch_pipeline("ner", bert, tokenizer=tokenizers[0])
    ours = pipeline("ner", model=bert, tokenizer=tokenizers[1])
    inputs = [" ".join(reviews[:4]).split(), ["Short", "one"]]
    strategy = transformers.pipelines.token_classification.AggregationStrategy.MAX
    options = {"aggregation_strategy": strategy, "stride": 5, "is_split_into_words": True}
    assert_same_answers(ours(inputs, **options), theirs(inputs, **options))


def test_windows_reach_the_end(ours):
    text = "word " * 3000 + "Sylvain"
    entities = ours(text, aggregation_strategy="simple", stride=64, ignore_labels=[])
    assert entities[-1]["end"] == len(text)
    starts = [entity["start"] for entity in entities]
    assert starts == sorted(set(starts))


def test_a_text_that_is_cut_says_so(ours, theirs, caplog):
    text = "Sylvain works. " * 300
    result = ours(text)
    assert "was cut; pass stride=" in caplog.text
    assert_same_answers(result, theirs(text))
    caplog.clear()
    ours("word " * 510)  # just fits
    assert not caplog.text


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("delimiter", [None, "", " / "], ids=repr)
def test_words_that_are_split_already(ours, theirs, strategy, delimiter):
    inputs = [
        ["Sylvain", "Gugger-Smith", "works", "at", "Hugging", "Face🤗"],
        ["東京", "e\u0301le\u0300ve", "unbelievably"],
    ]
    options = {"is_split_into_words": True, "aggregation_strategy": strategy, "ignore_labels": []}
    if delimiter is not None:
        options["delimiter"] = delimiter
    assert_same_answers(ours(inputs, **options), theirs(inputs, **options))
    one = ours(inputs[0], **options)
    assert_same_answers(one, theirs(inputs[0], **options))
    joined = (" " if delimiter is None else delimiter).join(inputs[0])
    assert joined[one[0][-1]["start"] : one[0][-1]["end"]].endswith("🤗")


def test_offsets_that_the_caller_gives(ours, theirs):
    text = "one two"
    given = [(0, 0), (10, 13), (14, 17), (0, 0)]
    assert_same_answers(
        ours([text], offset_mapping=[given], ignore_labels=[]), theirs([text], offset_mapping=[given], ignore_labels=[])
    )
    assert [entity["start"] for entity in ours(text, offset_mapping=given, ignore_labels=[])] == [10, 14]


def test_offsets_of_more_texts_than_are_read_at_a_time(ours, monkeypatch):
    monkeypatch.setattr("tf_pipeline.pipelines.base.WINDOW", 2)
    texts, given = ["one two"] * 5, [[(0, 0), (place, place + 1), (9, 10), (0, 0)] for place in range(5)]
    options = {"offset_mapping": given, "ignore_labels": []}
    for answers in (ours(texts, **options), list(ours(iter(texts), **options)), list(ours.stream(texts, **options))):
        assert [[entity["start"] for entity in one] for one in answers] == [[place, 9] for place in range(5)]
    with pytest.raises(ValueError, match="0 entries|for 1 texts"):
        list(ours(iter([*texts, "more"]), **options))


@pytest.mark.parametrize(
    "batching",
    exhaustive([{"batch_size": 1}, {"token_budget": 40}, {"token_budget": 5000}], [{"token_budget": 40}]),
    ids=str,
)
def test_batching_and_order(bert, ours, reviews, batching):
    options = {"aggregation_strategy": "average", "stride": 8}
    other = pipeline("ner", model=bert, **batching)
    texts = [*TEXTS, *reviews[:20]]
    assert_same_answers(other(texts, **options), ours(texts, **options))
    assert_same_answers(list(other(text for text in texts)), [ours(text) for text in texts])
    assert other.trace_count == 1


def test_the_stages_by_hand(ours):
    text = "Sylvain works. " * 300
    chunks = ours.preprocess(text, stride=16, aggregation_strategy="first")
    assert len(chunks) > 2 and chunks[0]["input_ids"].shape == (1, 512)
    outputs = [ours.forward(chunk) for chunk in chunks]
    result = ours.postprocess(outputs, aggregation_strategy="first")
    assert_same_answers(result, ours(text, stride=16, aggregation_strategy="first"), tolerance=1e-5)


def test_a_slow_tokenizer_gives_no_offsets(bert, ours):
    class Slow(type(ours.tokenizer)):
        is_fast = False

    pipe = pipeline("ner", model=ours.model, tokenizer=transformers.AutoTokenizer.from_pretrained(bert))
    pipe.tokenizer.__class__ = Slow
    entities = pipe("Sylvain works.", ignore_labels=[])
    assert [entity["start"] for entity in entities] == [None] * len(entities)
    assert [e["entity"] for e in entities] == [e["entity"] for e in ours("Sylvain works.", ignore_labels=[])]
    for options in ({"aggregation_strategy": "max"}, {"is_split_into_words": True}):
        with pytest.raises(ValueError, match="is not a fast tokenizer"):
            pipe("Sylvain works.", **options)


def test_empty_texts(ours, theirs):
    for options in ({}, {"aggregation_strategy": "simple"}, {"aggregation_strategy": "max"}):
        assert ours(["", " "], **options) == theirs(["", " "], **options) == [[], []]
    assert ours([]) == []


def test_repr_names_labels_and_strategy(bert):
    said = repr(pipeline("ner", model=bert, aggregation_strategy="max"))
    assert "B-MISC" in said and "'max'" in said and "token-classification" in said and str(bert) in said


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe("a", aggregation_strategy="median"), "none, simple, first, average, max"),
        (lambda pipe: pipe("a", stride=4), "aggregation_strategy='none'"),
        (lambda pipe: pipe("a", stride=510, aggregation_strategy="max"), "less than 510.*512 tokens"),
        (lambda pipe: pipe("a", stride=-1, aggregation_strategy="max"), "stride is -1"),
        (lambda pipe: pipe(["a", ["b", "c"]]), "is_split_into_words=True"),
        (lambda pipe: list(pipe((text for text in "ab"), is_split_into_words=True)), "a list of words; got"),
        (lambda pipe: pipe("a", ignore_labels="O"), "list of labels"),
        (lambda pipe: pipe(["a", "b"], offset_mapping=[[(0, 1)]]), "for 1 texts, but there are 2"),
        (lambda pipe: pipe("a", offset_mapping=[[(0, 1)]] * 2), "for 2 texts, but there are 1"),
        (lambda pipe: pipe("a", offset_mapping=[[(0, 1)]]), "1 entries, but the text has 3 tokens"),
        (lambda pipe: pipe(3), "got int"),
    ],
)
def test_errors(ours, call, message):
    with pytest.raises(ValueError, match=message):
        call(ours)
    with pytest.raises(TypeError, match="truncation"):
        ours("a", truncation=True)


def test_parity_of_a_checkpoint_covers_its_pipeline(bert):
    from tf_pipeline.parity import compare

    report = compare(str(bert), None, None, TEXTS, dtypes=("float64",), groups=["pipeline"])
    assert report.passed and len(report.checks) == 12 and all(skip.group != "pipeline" for skip in report.skipped)
    assert sum(check.elements for check in report.checks) > 300
