"""``question-answering``, which ``transformers`` 5 no longer has: hand-made logits, and its rules written out anew."""

import types

import numpy as np
import pytest
import tensorflow as tf
import transformers

from parity_tests.pipeline_helpers import (
    assert_same_answers,
    expected_answers,
    tiny_with_tokenizer,
    trained_tokenizer,
)
from parity_tests.tiers import thinned
from tf_pipeline.outputs import QuestionAnsweringModelOutput
from tf_pipeline.pipelines import pipeline
from tf_pipeline.pipelines.question_answering import best_spans

QUESTION = "Where does Sylvain work?"
CONTEXT = "Sylvain works at Hugging Face in Brooklyn. 🤗 He likes e\u0301lan and 東京."


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return transformers.AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="module", params=["WordPiece", "BPE"])
def folder(request, tokenizer, reviews):
    if request.param == "WordPiece":
        return tiny_with_tokenizer("TFBertForQuestionAnswering", tokenizer, std=0.3)
    return tiny_with_tokenizer("TFDistilBertForQuestionAnswering", trained_tokenizer("BPE", reviews), std=0.3)


@pytest.fixture(scope="module")
def ours(folder):
    return pipeline("question-answering", model=folder)


# ------------------------------------------------------------------------------------------------ the span search


def test_spans_by_hand():
    """Probabilities of start 1/2, 1/4, 1/4 and of end 1/4, 1/4, 1/2 over the three tokens of the context."""
    start, end = np.full((2, 6), 99.0, np.float32)
    start[2:5], end[2:5] = np.log([2, 1, 1]), np.log([1, 1, 2])
    context = np.array([False, False, True, True, True, False])
    spans, null = best_spans(start, end, context, None, count=3, max_answer_len=15)
    assert null == 0
    assert [span[:2] for span in spans] == [(2, 4), (2, 2), (2, 3)] or spans[0][:2] == (2, 4)
    assert spans[0][2] == pytest.approx(1 / 4) and spans[1][2] == spans[2][2] == pytest.approx(1 / 8)
    every, _ = best_spans(start, end, context, None, count=99, max_answer_len=15)
    assert sorted(span[:2] for span in every) == [(2, 2), (2, 3), (2, 4), (3, 3), (3, 4), (4, 4)]
    short, _ = best_spans(start, end, context, None, count=99, max_answer_len=2)
    assert sorted(span[:2] for span in short) == [(2, 2), (2, 3), (3, 3), (3, 4), (4, 4)]


def test_the_empty_answer_by_hand():
    """[CLS] takes 3/4 of the start and 1/2 of the end; what is left goes to the one token of the context."""
    start, end = np.log(np.array([[3, 7, 1], [1, 7, 1]], np.float32))
    spans, null = best_spans(start, end, np.array([False, False, True]), 0, count=9, max_answer_len=15)
    assert null == pytest.approx(3 / 8)
    assert spans == [(2, 2, pytest.approx(1 / 8))]


OPTIONS = [
    {},
    {"top_k": 4},
    {"handle_impossible_answer": True},
    {"handle_impossible_answer": True, "top_k": 99},
    {"align_to_words": False, "top_k": 3},
    {"max_answer_len": 1, "top_k": 2},
    {"max_answer_len": 40},
    {"max_seq_len": 48, "top_k": 3},
    {"max_seq_len": 48, "doc_stride": 4, "top_k": 3, "handle_impossible_answer": True},
    {"max_seq_len": 48, "doc_stride": 20, "align_to_words": False},
]


@pytest.mark.parametrize("options", thinned(OPTIONS, 2), ids=str)
def test_answers_follow_the_rules(folder, ours, reviews, options):
    contexts = [CONTEXT, " ".join(reviews[:20]), "Paris. PARIS! paris? " * 12]
    for context in contexts:
        expected = expected_answers(folder, QUESTION, context, **options)
        assert_same_answers(ours(question=QUESTION, context=context, **options), expected, tolerance=1e-5)


def test_equal_answers_are_summed_whatever_their_case(ours):
    answers = ours(question=QUESTION, context="Paris. PARIS! paris? " * 12, top_k=30, max_answer_len=1)
    texts = [answer["answer"].lower() for answer in answers]
    assert len(set(texts)) == len(texts) and "paris" in texts


# ------------------------------------------------------------------------------------------ a model that is a rule


class Finder:
    """A model by rule: it points at one token, and has nothing but what every tier of models has."""

    tensor_names = ("input_ids", "attention_mask", "token_type_ids")
    further_axes = {}
    max_length = 512

    def __init__(self, token: int, cls: float = 0.0):
        self.token, self.cls = token, cls
        self.config = types.SimpleNamespace(
            vocab_size=30522, max_position_embeddings=512, _name_or_path="finder", id2label={}
        )

    def __call__(self, inputs, training=False):
        logits = tf.where(inputs["input_ids"] == self.token, 9.0, tf.where(inputs["input_ids"] == 101, self.cls, 0.0))
        return QuestionAnsweringModelOutput(start_logits=logits, end_logits=logits)


@pytest.fixture(scope="module")
def finder(tokenizer):
    def make(word: str, **options):
        token = tokenizer.convert_tokens_to_ids(word)
        assert token != tokenizer.unk_token_id
        return pipeline("question-answering", model=Finder(token, **options), tokenizer=tokenizer)

    return make


def test_the_answer_near_the_end_of_50000_characters(finder, reviews):
    text = ""
    while len(text) < 50_000:
        text += " ".join(reviews) + " 🤗 東京 "
    place = 49_900
    context = text[:place] + " PARIS " + text[place:50_000]
    pipe = finder("paris")
    answer = pipe(question="Where?", context=context)
    assert (answer["start"], answer["end"], answer["answer"]) == (place + 1, place + 6, "PARIS")
    assert answer["score"] > 0.5
    assert pipe.trace_count == 1


def test_windows_overlap_and_cover_the_context(finder):
    pipe = finder("paris")
    context = " ".join(f"w{number}" for number in range(900))
    chunks = pipe.preprocess(
        {"question": "Where?", "context": context}, doc_stride=32, max_seq_len=128, max_question_len=9
    )
    spans = []
    for chunk in chunks:
        encoding = chunk["encoding"]
        assert chunk["input_ids"].shape == (1, len(encoding.ids)) and len(encoding.ids) <= 128
        spans.append([o for o, s in zip(encoding.offsets, encoding.sequence_ids, strict=True) if s == 1])
    assert spans[0][0][0] == 0 and spans[-1][-1][1] == len(context)
    for one, other in zip(spans, spans[1:], strict=False):
        assert one[-32:] == other[:32]


def test_an_impossible_question(finder):
    pipe = finder("paris", cls=20.0)
    assert pipe(question="Where?", context="Nowhere at all.")["answer"] != ""
    impossible = pipe(question="Where?", context="Nowhere at all.", handle_impossible_answer=True)
    assert impossible == {"score": pytest.approx(1, abs=1e-6), "start": 0, "end": 0, "answer": ""}


def test_the_empty_answer_has_its_least_score_of_all_windows(finder):
    """Where Paris is, it and [CLS] share the probability; in all other windows [CLS] has nearly all of it."""
    context = "x " * 300 + "Paris " + "x " * 300
    options = {"max_seq_len": 64, "handle_impossible_answer": True, "top_k": 2}
    answers = finder("paris", cls=9.0)(question="Where?", context=context, **options)
    assert {answer["answer"] for answer in answers} == {"Paris", ""}
    assert next(answer["score"] for answer in answers if not answer["answer"]) == pytest.approx(0.25, abs=0.01)


def test_padding_on_the_left_puts_the_context_first(tokenizer, finder, minilm):
    left = transformers.AutoTokenizer.from_pretrained(minilm, padding_side="left")
    pipe = pipeline("question-answering", model=finder("paris").model, tokenizer=left)
    examples = [
        {"question": "Is it Paris or Rome?", "context": c} for c in ("In Paris.", "It may well be in Paris, say I.")
    ]
    answers = pipe(examples)
    assert [answer["answer"] for answer in answers] == ["Paris", "Paris"]
    assert [answer["start"] for answer in answers] == [3, 18]


def test_words_or_pieces(finder):
    example = {"question": "What?", "context": "Rome, tokenization!"}
    assert finder("##ization")(example)["answer"] == "tokenization"
    piece = finder("##ization")(example, align_to_words=False)
    assert (piece["answer"], piece["start"], piece["end"]) == ("ization", 11, 18)


def test_offsets_are_code_points(finder):
    for word in ("東", "paris"):
        context = "🤗🧑‍🚀 e\u0301lan, 東京 Paris"
        answer = finder(word)(question="Where?", context=context)
        assert answer["answer"].lower() == word and context[answer["start"] : answer["end"]] == answer["answer"]


def test_a_context_of_spaces_has_no_answer(finder):
    assert finder("paris")(question="Where?", context="  ") == {"score": 0.0, "start": 0, "end": 0, "answer": ""}


def test_a_long_question_is_not_cut(finder, caplog):
    question = "where " * 100
    for length in (None, 9, 200):
        chunk = finder("paris").preprocess({"question": question, "context": "In Paris."}, max_question_len=length)
        assert chunk[0]["encoding"].sequence_ids.count(0) == 100
    assert finder("paris")(question=question, context="In Paris.")["answer"] == "Paris"
    assert finder("paris")(question="where " * 375, context="In Paris.")["answer"] == "Paris"  # no windows are needed
    assert not caplog.text
    message = r"^The question '(where ){13}w…' has 300 tokens, which leaves 81 of max_seq_len=384 .* doc_stride=128"
    with pytest.raises(ValueError, match=message):
        finder("paris")(question="where " * 300, context="In Paris. " * 100)


# -------------------------------------------------------------------------------------------------------- inputs


def test_every_kind_of_input(finder):
    pipe = finder("paris")
    one = {"question": "Where?", "context": "In Paris."}
    squad = one | {"id": "1", "title": "Cities", "answers": {"text": ["Paris"], "answer_start": [3]}}
    example = types.SimpleNamespace(question_text=one["question"], context_text=one["context"])
    expected = pipe(one)
    assert expected["answer"] == "Paris" and expected["start"] == 3
    for inputs in (one, squad, example, [one]):
        assert pipe(inputs) == pipe(data=inputs) == pipe(X=inputs) == expected
    assert pipe("Where?", "In Paris.") == pipe(question="Where?", context="In Paris.") == expected
    assert pipe(question=["Where?"], context=["In Paris."]) == expected
    assert pipe(question=["Where?", "Where?"], context="In Paris.") == [expected] * 2
    assert pipe(question=["Where?"] * 2, context=["In Paris."] * 2) == [expected] * 2
    assert pipe([one, squad, example]) == pipe(one, squad, example) == [expected] * 3
    assert list(pipe(row for row in [one, squad])) == [expected] * 2
    columns = {name: [one[name]] * 3 for name in one}
    for dataset in (tf.data.Dataset.from_tensor_slices(columns), tf.data.Dataset.from_tensor_slices(columns).batch(2)):
        assert list(pipe(dataset)) == [expected] * 3


def test_the_order_of_a_batch_whatever_its_windows(finder):
    pipe = finder("paris")
    contexts = ["Paris", "x " * 700 + "Paris", "In Paris.", "y " * 400 + "Paris"]
    answers = pipe(question=["Where?"] * 4, context=contexts, batch_size=2)
    assert [answer["start"] for answer in answers] == [context.index("Paris") for context in contexts]


def test_top_k(ours):
    assert isinstance(ours(question=QUESTION, context=CONTEXT, top_k=1), dict)
    with pytest.warns(UserWarning, match="topk parameter is deprecated"):
        assert len(ours(question=QUESTION, context=CONTEXT, topk=3)) == 3


def test_the_stages_by_hand(ours, reviews):
    example = {"question": QUESTION, "context": " ".join(reviews[:40])}
    outputs = [ours.forward(chunk) for chunk in ours.preprocess(example)]
    assert len(outputs) > 1
    assert_same_answers(ours.postprocess(outputs, top_k=2), ours(example, top_k=2), tolerance=1e-5)


def test_repr_shows_the_windows(ours):
    assert "max_seq_len=384, doc_stride=128, max_answer_len=15" in repr(ours)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe(question="a"), "context is missing"),
        (lambda pipe: pipe({"question": "a"}), "context is missing"),
        (lambda pipe: pipe({"question": "a", "context": None}), "context is missing"),
        (lambda pipe: pipe(question="a", context=""), "`context` cannot be empty"),
        (lambda pipe: pipe(["a"]), "A question is"),
        (lambda pipe: pipe(question=["a", "b"], context=["c"]), "same lengths: 2 and 1"),
        (
            lambda pipe: pipe(question="a", context="b", top_k=0),
            "top_k is 0, but has to be a whole number of at least 1",
        ),
        (lambda pipe: pipe(question="a", context="b", max_answer_len=0), "max_answer_len"),
        (lambda pipe: pipe(question="a", context="b", max_seq_len=600), "at most 512"),
        (lambda pipe: pipe(question="a", context="b", doc_stride=400), "larger than `max_seq_len`"),
        (lambda pipe: pipe(question="a " * 30, context="b " * 99, max_seq_len=40), "30 tokens, which leaves 7 of"),
        (lambda pipe: pipe(3), "got int"),
    ],
)
def test_errors(finder, call, message):
    with pytest.raises(ValueError, match=message):
        call(finder("paris"))


def test_a_question_that_leaves_little_room_may_have_a_short_context(finder):
    assert finder("paris")(question="a " * 30, context="Paris", max_seq_len=40)["answer"] == "Paris"


def test_a_slow_tokenizer_is_refused(finder, minilm):
    pipe = finder("paris")
    slow = transformers.AutoTokenizer.from_pretrained(minilm)
    slow.__class__ = type("Slow", (type(slow),), {"is_fast": False})
    with pytest.raises(ValueError, match="needs a fast tokenizer"):
        pipeline("question-answering", model=pipe.model, tokenizer=slow)
