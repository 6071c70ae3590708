"""The client of served models: over REST and gRPC it answers what local pipelines do, and says what went wrong."""

import json
import math
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tensorflow as tf
import transformers
from tensorflow.core.protobuf import saved_model_pb2

from parity_tests.pipeline_helpers import CONLL, assert_same_answers, labels_of, tiny_with_tokenizer
from parity_tests.serving_helpers import Table, columns, loopback_server
from parity_tests.test_cli import run
from parity_tests.tiers import thinned
from tf_pipeline.pipelines import pipeline
from tf_pipeline.serving import Client, RequestRefusedError, ServingError
from tf_pipeline.serving.client.answers import FeatureExtraction
from tf_pipeline.serving.client.transport import Address, Signature, TensorInfo

KINDS = ["rest", "grpc"]
# Versions of the one model that the server has; the latest is what an address without a version means.
TOKENS, GROUPS, SINGLE, ANSWER, ANSWERS, VECTORS, ONE_MASK, MASKS, ODD, LABELS = range(1, 11)

TEXTS = [
    "A lovely film.",
    "Dull.",
    "東京 🤗 e\u0301lan",
    "Sylvain works in Brooklyn.",
    'Quotes " and \\ \n\t new\u2028lines \0 here.',
]
PAIRS = [{"text": "A lovely film.", "text_pair": "Dull."}, {"text": "Dull.", "text_pair": "東京"}]
QUESTIONS = [
    {"question": "Who works?", "context": "Sylvain works in Brooklyn, and Ann in Rome."},
    {"question": "Where?", "context": "東京 🤗 or e\u0301lan."},
    {"question": "Who?", "context": "Ann"},  # has one answer, however many are asked for
]
MASKED = ["A [MASK] film.", "[MASK] or [MASK].", "Dull: [MASK]!"]
ENTITY_GROUP = ("entity_group", "score", "word", "start", "end")
ENTITY = ("entity", "score", "index", "word", "start", "end")
ANSWER_KEYS = ("score", "start", "end", "answer")
FILLED = ("score", "token", "token_str", "sequence")


class Local:
    """Local pipelines on small random checkpoints, made when they are asked for."""

    HEADS = {
        "text-classification": ("TFBertForSequenceClassification", labels_of(["BAD", "GOOD", "SO-SO"])),
        "token-classification": ("TFBertForTokenClassification", labels_of(CONLL)),
        "question-answering": ("TFBertForQuestionAnswering", {}),
        "feature-extraction": ("TFBertModel", {}),
        "fill-mask": ("TFBertForMaskedLM", {}),
    }

    def __init__(self, minilm):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
        self.made = {}

    def __call__(self, task: str, **parameters):
        key = (task, str(parameters))
        if key not in self.made:
            if task not in self.made:
                class_name, values = self.HEADS[task]
                folder = tiny_with_tokenizer(class_name, self.tokenizer, **values)
                self.made[task] = pipeline(task, str(folder))
            first = self.made[task]
            self.made[key] = type(first)(first.model, first.tokenizer, **parameters) if parameters else first
        return self.made[key]


@pytest.fixture(scope="module")
def local(minilm):
    return Local(minilm)


def labels(local, inputs):
    def row(one):
        ranked = local("text-classification")(one, top_k=None)
        return {"labels": [label["label"] for label in ranked], "scores": np.float32([x["score"] for x in ranked])}

    return {tuple([one] if isinstance(one, str) else one.values()): row(one) for one in inputs}


def entities(local, strategy, names):
    pipe = local("token-classification", aggregation_strategy=strategy)
    return {(text,): columns(found := pipe(text), names) | {"num_entities": len(found)} for text in TEXTS}


def answers(local, count):
    rows = {}
    for one in QUESTIONS:
        found = local("question-answering")(one, top_k=count)
        found = columns(found if isinstance(found, list) else [found], ANSWER_KEYS)
        extra = {"num_answers": len(found["score"])} if count > 1 else {}
        rows[tuple(one.values())] = {k: v if count > 1 else v[0] for k, v in found.items()} | extra
    return rows


def vectors(local):
    pooled, tokens = local("feature-extraction", pooling="mean"), local("feature-extraction")
    states = {(text,): np.float32(tokens(text)[0]) for text in TEXTS}
    return {
        "serving_default": (["text"], {(text,): {"sentence_embedding": np.float32(pooled(text))} for text in TEXTS}),
        "token_embeddings": (
            ["text"],
            {
                key: {"last_hidden_state": value, "attention_mask": np.ones(len(value), int)}
                for key, value in states.items()
            },
        ),
    }


def masks(local, count):
    first, every = {}, {}
    for text in MASKED:
        found = local("fill-mask")(text, top_k=count)
        filled = [columns(one, FILLED) for one in (found if isinstance(found[0], list) else [found])]
        first[text,] = filled[0]
        every[text,] = {name: np.stack([one[name] for one in filled]) for name in FILLED} | {"num_masks": len(filled)}
    return {"serving_default": (["text"], first), "all_masks": (["text"], every)}


def classified(rows):
    """The rows of ``text`` as those of TF Serving's classify: by serialized example."""
    examples = {}
    for (text,), row in rows.items():
        example = tf.train.Example()
        example.features.feature["text"].bytes_list.value.append(text.encode())
        examples[example.SerializeToString()] = {"classes": row["labels"], "scores": row["scores"]}
    return ["inputs"], examples


class Tokens(tf.Module):
    """A model of token ids, without texts."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int64, name) for name in ("input_ids", "attention_mask")]
    )
    def __call__(self, input_ids, attention_mask):
        return {"logits": tf.cast(input_ids * attention_mask, tf.float32)}


def save_odd(folder):
    """Scores that are no numbers, one answer for all rows, and bytes that are no UTF-8."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def nan(text):
        rows = tf.shape(text)[0]
        return {"labels": tf.fill([rows, 2], "GOOD"), "scores": tf.fill([rows, 2], float("nan")) / [[1.0, 0.0]]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def single(text):
        return {"labels": tf.fill([1, 2], tf.strings.reduce_join(text)), "scores": tf.fill([1, 2], float("inf"))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def announced(text):
        rows = tf.shape(text)[0]
        texts, numbers = tf.fill([rows, 2], "x"), tf.fill([rows, 2], 1)
        spans = dict.fromkeys(("entity_group", "word"), texts) | dict.fromkeys(("start", "end"), numbers)
        return spans | {"score": tf.fill([rows, 2], 0.5), "num_entities": tf.fill([rows], 3)}

    functions = {"serving_default": nan, "single": single, "announced": announced}
    module = tf.Module()
    module.functions = functions
    tf.saved_model.save(module, str(folder), signatures=functions)


@pytest.fixture(scope="module")
def exports(tmp_path_factory, local):
    folder = tmp_path_factory.mktemp("exports")
    singles = labels(local, TEXTS)
    Table({"serving_default": (["text"], singles), "pairs": (["text", "text_pair"], labels(local, PAIRS)),
           "classify": classified(singles)}).save(folder / str(LABELS))  # fmt: skip
    _declare_classify(folder / str(LABELS))
    for number, strategy, names in ((GROUPS, "simple", ENTITY_GROUP), (SINGLE, "none", ENTITY)):
        Table({"serving_default": (["text"], entities(local, strategy, names))}).save(folder / str(number))
    for number, count in ((ANSWER, 1), (ANSWERS, 3)):
        Table({"serving_default": (["question", "context"], answers(local, count))}).save(folder / str(number))
    Table(vectors(local)).save(folder / str(VECTORS))
    Table(masks(local, 7)).save(folder / str(MASKS))
    Table({"serving_default": masks(local, 3)["serving_default"]}).save(folder / str(ONE_MASK))
    tokens = Tokens()
    tf.saved_model.save(tokens, str(folder / str(TOKENS)), signatures=tokens.__call__)
    save_odd(folder / str(ODD))
    return folder


def _declare_classify(folder):
    """Keras and ``tf.saved_model`` declare every signature as predict; TF Serving's classify wants its own name."""
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    model.meta_graphs[0].signature_def["classify"].method_name = "tensorflow/serving/classify"
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def server(exports):
    with loopback_server(exports, "--all-versions", "--label", f"stable={GROUPS}") as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(request):
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").faults()


@pytest.fixture
def connect(server):
    """Make clients, closed at the end."""
    made = []

    def make(kind, version=None, **options):
        made.append(Client(server.url(kind, version), **({"backoff": 0.01, "timeout": 30.0} | options)))
        return made[-1]

    yield make
    for client in made:
        client.close()


def everything(result):
    """A list instead of an iterator, all the way."""
    return result if isinstance(result, (list, dict)) else list(result)


# --------------------------------------------------------------------------------------------- the same as locally

LABELED = {
    "text": lambda pipe: pipe(TEXTS[0]),
    "text, top_k": lambda pipe: pipe(TEXTS[0], top_k=1),
    "text, all": lambda pipe: pipe(TEXTS[4], top_k=None),
    "list of one": lambda pipe: pipe([TEXTS[2]]),
    "list": lambda pipe: pipe(TEXTS),
    "tuple, top_k": lambda pipe: pipe(tuple(TEXTS), top_k=2),
    "none": lambda pipe: pipe([]),
    "pair": lambda pipe: pipe(PAIRS[0]),
    "pair, all": lambda pipe: pipe(PAIRS[0], top_k=None),
    "pairs": lambda pipe: pipe(PAIRS),
    "dictionary": lambda pipe: pipe({"text": TEXTS[1]}),
    "old pair": lambda pipe: pipe([[["Dull.", "東京"]]]),
    "bytes": lambda pipe: pipe([TEXTS[2].encode()]),
    "batches of two": lambda pipe: pipe(TEXTS, batch_size=2),
    "generator": lambda pipe: everything(pipe((text for text in TEXTS), batch_size=2)),
    "dataset": lambda pipe: everything(pipe(tf.data.Dataset.from_tensor_slices(TEXTS))),
    "dataset of batches": lambda pipe: everything(
        pipe(tf.data.Dataset.from_tensor_slices(TEXTS).batch(2), batch_size=3)
    ),
    "dataset of pairs": lambda pipe: everything(pipe(tf.data.Dataset.from_tensors(PAIRS[1]), top_k=None)),
}
TEXT_FORMS = {
    "text": lambda pipe: pipe(TEXTS[3]),
    "list of one": lambda pipe: pipe(TEXTS[:1]),
    "list": lambda pipe: pipe(TEXTS, batch_size=3),
    "generator": lambda pipe: everything(pipe(iter(TEXTS))),
}
QUESTION, CONTEXT = QUESTIONS[0].values()
QUESTION_FORMS = {
    "names": lambda pipe: pipe(question=QUESTION, context=CONTEXT),
    "position": lambda pipe: pipe(QUESTION, CONTEXT),
    "dictionary": lambda pipe: pipe(QUESTIONS[1] | {"id": 3}),
    "list of one": lambda pipe: pipe([QUESTIONS[0]]),
    "list": lambda pipe: pipe(QUESTIONS),
    "data": lambda pipe: pipe(data=QUESTIONS),
    "lists by name": lambda pipe: pipe(question=[one["question"] for one in QUESTIONS],
                                       context=[one["context"] for one in QUESTIONS]),
    "generator": lambda pipe: everything(pipe(iter(QUESTIONS))),
}  # fmt: skip
MASK_FORMS = {
    "text": lambda pipe: pipe(MASKED[0]),
    "two masks": lambda pipe: pipe(MASKED[1]),
    "list of one": lambda pipe: pipe([MASKED[0]]),
    "list of two masks": lambda pipe: pipe([MASKED[1]]),
    "list": lambda pipe: pipe(MASKED),
    "top_k": lambda pipe: pipe(MASKED, top_k=7),
    "fewer": lambda pipe: pipe(MASKED[1], top_k=1),
    "generator": lambda pipe: everything(pipe(iter(MASKED))),
}
CASES = [
    (LABELS, "text-classification", {}, {}, LABELED),
    (LABELS, "text-classification", {"top_k": 2}, {"top_k": 2}, TEXT_FORMS),
    (GROUPS, "token-classification", {"aggregation_strategy": "simple"}, {}, TEXT_FORMS),
    (SINGLE, "token-classification", {}, {}, TEXT_FORMS),
    (ANSWER, "question-answering", {}, {}, QUESTION_FORMS),
    (ANSWERS, "question-answering", {}, {}, QUESTION_FORMS),
    (ANSWERS, "question-answering", {"top_k": 3}, {"top_k": 3}, QUESTION_FORMS),
    (ANSWERS, "question-answering", {"top_k": 2}, {"top_k": 2}, QUESTION_FORMS),
    (VECTORS, "feature-extraction", {"pooling": "mean"}, {}, TEXT_FORMS),
    (VECTORS, "feature-extraction", {}, {"signature": "token_embeddings"}, TEXT_FORMS),
    (MASKS, "fill-mask", {}, {}, MASK_FORMS),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("version", "task", "parameters", "options", "forms"), thinned(CASES, 2))
def test_answers_are_those_of_the_local_pipeline(local, connect, kind, version, task, parameters, options, forms):
    client, pipe = connect(kind, version, **options), local(task, **parameters)
    # Written down were the answers to single texts; in a batch, hidden states (up to 4 here) are rounded otherwise.
    tolerance = 4e-6 if task == "feature-extraction" else 1e-6
    for name, form in forms.items():
        expected = form(pipe)
        assert expected or name == "none"
        assert_same_answers(form(client), expected, tolerance)
    assert client.task == task


@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_are_not_all_alike(local, kind, connect):
    """What the test above compares differs from text to text, and some texts have several entities, others few."""
    assert len({str(one) for one in connect(kind, LABELS)(TEXTS)}) == len(TEXTS)
    assert len({len(one) for one in connect(kind, GROUPS)(TEXTS)}) > 1
    assert isinstance(connect(kind, MASKS)(MASKED[1])[0], list)
    assert [type(one) for one in connect(kind, ANSWERS)(QUESTIONS, top_k=3)] == [list, list, dict]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_for_one_mask(local, connect, kind):
    client, pipe = connect(kind, ONE_MASK), local("fill-mask")
    assert_same_answers(client(MASKED[0]), pipe(MASKED[0], top_k=3), 1e-6)  # the export has no more than 3
    assert_same_answers(client(MASKED[1], top_k=2), pipe(MASKED[1], top_k=2)[0], 1e-6)
    with pytest.raises(ValueError, match="No mask_token found on the input 'no mask'"):
        client("no mask")


def test_tensors_if_asked(local, connect):
    vector = connect("rest", VECTORS)(TEXTS[0], return_tensors=True)
    assert tf.is_tensor(vector) and vector.dtype == tf.float32
    assert_same_answers(vector.numpy().tolist(), local("feature-extraction", pooling="mean")(TEXTS[0]), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_keeps_errors_with_their_inputs(connect, server, kind):
    client = connect(kind, MASKS, max_batch_size=4)
    inputs = [MASKED[0], "no mask", MASKED[1], 3, "\ud800 [MASK]", MASKED[2]]
    found = list(client.stream(iter(inputs)))
    assert [isinstance(one, ValueError) for one in found] == [False, True, False, True, True, False]
    assert found[5] == client(MASKED[2]) and "no mask" in str(found[1]) and "surrogate" in str(found[4])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_sent_in_batches_as_it_is_read(connect, server, kind):
    client = connect(kind, max_batch_size=2)
    client.check()
    server.faults()
    read = []
    stream = client(text for text in TEXTS if not read.append(text))
    assert not read
    assert next(stream)["label"] and read == TEXTS[:2] and server.predictions() == 1
    assert len(list(stream)) == 4 and server.predictions() == 3


@pytest.mark.parametrize("kind", KINDS)
def test_eight_threads_share_a_client(connect, kind):
    client = connect(kind)
    expected = {text: client(text, top_k=None) for text in TEXTS}

    def ask(number):
        return all(client(text, top_k=None) == expected[text] for text in (TEXTS[number % 5], TEXTS[number % 3]) * 8)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_bar_on_a_terminal_only(connect, capsys, monkeypatch):
    monkeypatch.setattr("tf_pipeline.pipelines.calls.PROGRESS_DELAY", 0)
    client = connect("rest")
    client(TEXTS)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    client(TEXTS)
    assert "text-classification" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what the server has


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_and_status(connect, kind):
    client = connect(kind, VECTORS)
    text = {"text": TensorInfo("string", (None,))}
    assert set(client.signatures()) == {"serving_default", "token_embeddings"}
    assert client.signatures()["serving_default"] == Signature(
        text, {"sentence_embedding": TensorInfo("float32", (None, 32))}
    )
    states = {one["version"]: (one["state"], one["error_code"], one["error_message"]) for one in client.status()}
    assert states == dict.fromkeys(range(1, 11), ("AVAILABLE", "OK", ""))


@pytest.mark.parametrize("kind", KINDS)
def test_versions_and_labels(server, kind):
    with Client(server.url(kind, label="stable")) as client:
        assert client.task == "token-classification"
    with Client(server.url(kind)) as client:
        assert client.task == "text-classification"
    with Client(server.url(kind, VECTORS) + "/", signature="token_embeddings") as client:
        assert client.task == "feature-extraction"


def test_a_text_without_tokens_is_refused():
    outputs = {"last_hidden_state": np.ones([3, 2], np.float32), "attention_mask": np.zeros(3, int)}
    with pytest.raises(ValueError, match="The text '' has no tokens"):
        FeatureExtraction.answer(None, outputs, "")


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_by_hand(connect, kind):
    client = connect(kind, TOKENS)
    outputs = client.predict("serving_default", {"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 0], [1, 1]]})
    assert outputs["logits"].dtype == np.float32 and outputs["logits"].tolist() == [[1, 0], [3, 4]]
    with pytest.raises(ValueError, match="different numbers of rows"):
        client.predict("serving_default", {"input_ids": [[1], [2]], "attention_mask": [[1]]})
    with pytest.raises(ValueError, match="serving_default takes attention_mask, input_ids; the input has ids"):
        client.predict("serving_default", {"ids": [[1]]})
    with pytest.raises(ValueError, match="The rows of input_ids have different lengths: pad them"):
        client.predict("serving_default", {"input_ids": [[1, 2], [3]], "attention_mask": [[1, 0], [1, 1]]})
    with pytest.raises(ValueError, match="known task.*none of a task on texts.*Export the model with its tokenizer"):
        client("text")


def test_repr(server):
    url = server.url("rest")
    assert repr(Client(url)) == f"Client(url='{url}', max_batch_size=32)"
    client = Client(url, task="sentiment-analysis", top_k=2)
    assert repr(client) == f"Client(url='{url}', task='text-classification', max_batch_size=32, top_k=2)"


@pytest.mark.parametrize("kind", KINDS)
def test_not_a_number(connect, kind):
    best, other = connect(kind, ODD)("text", top_k=None)
    assert math.isnan(best["score"]) and math.isnan(other["score"]) and best["label"] == "GOOD"


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_client(server, kind):
    client = Client(server.url(kind))
    with client:
        client("Dull.")
    if kind == "grpc":
        with pytest.raises(ServingError, match="The client is closed"):
            list(client.stream(["Dull.", "Fine."]))
    else:
        client("Dull.")


# ------------------------------------------------------------------------------------------------- wrong questions

WRONG_CALLS = [
    (
        LABELS,
        lambda c: c(TEXTS, function_to_apply="none"),
        ValueError,
        "function_to_apply was decided when the model was",
    ),
    (LABELS, lambda c: c(TEXTS, truncation=True), ValueError, "truncation was decided when"),
    (LABELS, lambda c: c(TEXTS, tone="kind"), TypeError, "does not take tone; it takes top_k"),
    (LABELS, lambda c: c(TEXTS, top_k=4), ValueError, "top_k is 4, but the export gives 3 labels"),
    (LABELS, lambda c: c(TEXTS, top_k=0), ValueError, "top_k is 0"),
    (LABELS, lambda c: c(TEXTS, return_all_scores=True), ValueError, "pass top_k=None for all labels"),
    (LABELS, lambda c: c(["a", "half \ud83e of one"]), ValueError, r"lone surrogate '\\ud83e' at position 5"),
    (LABELS, lambda c: c([b"caf\xe9"]), ValueError, "utf-8"),
    (LABELS, lambda c: c(["a", None]), ValueError, "A text has to be a string; got NoneType"),
    (LABELS, lambda c: c(3), ValueError, "got int"),
    (LABELS, lambda c: c([PAIRS[0], "a"]), ValueError, "do not mix"),
    (GROUPS, lambda c: c(TEXTS[0], aggregation_strategy="max"), ValueError, "aggregation_strategy was decided"),
    (GROUPS, lambda c: c(TEXTS[0], top_k=1), TypeError, "it takes no arguments"),
    (GROUPS, lambda c: c(PAIRS[0]), ValueError, "takes text; the input has text, text_pair"),
    (ANSWERS, lambda c: c(QUESTION, CONTEXT, doc_stride=3), ValueError, "doc_stride was decided"),
    (ANSWERS, lambda c: c(QUESTION, CONTEXT, top_k=4), ValueError, "top_k is 4, but the export gives 3 answers"),
    (ANSWER, lambda c: c(QUESTION, CONTEXT, top_k=2), ValueError, "top_k is 2, but the export gives 1 answers"),
    (ANSWERS, lambda c: c(QUESTION, ""), ValueError, "`context` cannot be empty"),
    (ANSWERS, lambda c: c(question=QUESTION), ValueError, "context is missing"),
    (ANSWERS, lambda c: c(question=["a", "b"], context=["c"]), ValueError, "same lengths"),
    (VECTORS, lambda c: c(TEXTS[0], pooling="cls"), ValueError, "pooling was decided"),
    (MASKS, lambda c: c(MASKED[0], targets="good"), ValueError, "targets was decided"),
    (MASKS, lambda c: c(MASKED[0], top_k=8), ValueError, "top_k is 8, but the export gives 7 tokens"),
    (MASKS, lambda c: c(["no mask"]), ValueError, "No mask_token found on the input 'no mask'"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_call_refuses(connect, kind):
    for version, call, error, message in WRONG_CALLS:
        with pytest.raises(error, match=message):
            call(connect(kind, version))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_sent_for_a_wrong_input(connect, server, kind):
    client = connect(kind)
    client.check()
    server.faults()
    with pytest.raises(ValueError, match="surrogate"):
        client(["fine", "\udc80"])
    assert server.predictions() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_without_pairs(connect, kind):
    with pytest.raises(ValueError, match="takes no pairs: it has the signatures announced, serving_default, single"):
        connect(kind, ODD)(PAIRS[0])


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_that_do_not_fit(connect, kind):
    with pytest.raises(ValueError, match="has no signature 'other'; it has .*pairs, serving_default"):
        connect(kind, signature="other")("a")
    with pytest.raises(ValueError, match="not a model for fill-mask.* does text-classification"):
        connect(kind, task="fill-mask")("a")
    with pytest.raises(ValueError, match="Signature pairs takes text, text_pair; the input has text"):
        connect(kind, signature="pairs")("a")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:8501", {}, "is not the address of a model"),
        ("http://localhost:8501/m", {}, "looks like http://host:8501/v1/models/name"),
        ("http://localhost:8501/v1/models/m:predict", {}, "looks like http"),
        ("http://localhost:8501/v1/models/m/versions/new", {}, "may end in /versions/3"),
        ("grpc://localhost:8500/v1/models/m", {}, "looks like grpc://host:8500/name"),
        ("grpc://localhost/m", {}, "looks like grpc"),
        ("http://me:secret@localhost:8501/v1/models/m", {}, "pass headers="),
        ("http://localhost:8501/v1/models/m", {"retries": -1}, "retries is -1"),
        ("http://localhost:8501/v1/models/m", {"timeout": 0}, "timeout is 0"),
        ("http://localhost:8501/v1/models/m", {"max_batch_size": 0}, "max_batch_size is 0"),
        ("http://localhost:8501/v1/models/m", {"task": "summarise"}, "supported are audio-classification"),
        ("http://localhost:8501/v1/models/m", {"task": "image-classification"}, "does not run on a server"),
    ],
)
def test_clients_that_cannot_be(url, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Client(url, **options)
    assert "secret" not in str(caught.value)


def test_addresses():
    found = Address.parse("https://gateway/team/v1/models/my-model/labels/stable")
    assert (found.name, found.label, found.version) == ("my-model", "stable", None)
    assert found.version_url == "https://gateway/team/v1/models/my-model/labels/stable"
    found = Address.parse("grpcs://[::1]:8500/m/versions/12")
    assert (found.server, found.name, found.version) == ("[::1]:8500", "m", 12)


# --------------------------------------------------------------------------------------------- servers with trouble


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def address(kind: str, port: int) -> str:
    return f"http://127.0.0.1:{port}/v1/models/m" if kind == "rest" else f"grpc://127.0.0.1:{port}/m"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("status", "name"), [(503, "UNAVAILABLE"), (429, "RESOURCE_EXHAUSTED")])
def test_a_busy_server_is_asked_again(connect, server, kind, status, name):
    client = connect(kind, retries=3)
    expected = client(TEXTS)
    server.faults(fail=3, status=status)
    assert client(TEXTS) == expected and server.predictions() == 4
    server.faults(fail=9, status=status)
    with pytest.raises(ServingError, match=r"A fault \(tried 4 times\)") as caught:
        client(TEXTS)
    assert caught.value.status == (status if kind == "rest" else name) and server.predictions() == 4
    assert str(status if kind == "rest" else name) in str(caught.value) and "127.0.0.1" in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))  # as processes hand errors on
    assert str(copy) == str(caught.value) and copy.status == caught.value.status
    server.faults(fail=1, status=status)
    with pytest.raises(ServingError, match="A fault$"):
        connect(kind, retries=0)(TEXTS)
    assert server.predictions() == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(400, RequestRefusedError, "A fault"), (500, ServingError, "A fault"), (401, ServingError, "Pass headers=")],
)
def test_other_errors_are_not_sent_again(connect, server, kind, status, error, message):
    client = connect(kind)
    client.check()
    server.faults(fail=2, status=status)
    with pytest.raises(error, match=message):
        client("a")
    assert server.predictions() == 1


def test_the_wait_doubles_and_is_random(connect, server, monkeypatch):
    waits = []
    monkeypatch.setattr("tf_pipeline.serving.client.transport.time.sleep", waits.append)
    client = connect("rest", backoff=0.5)
    client.check()
    for _ in range(4):
        server.faults(fail=3)
        client("a")
    assert len(set(waits)) == 12
    for place, wait in enumerate(waits):
        assert 0.25 * 2 ** (place % 3) <= wait <= 0.5 * 2 ** (place % 3)


def test_the_server_says_when(connect, server, monkeypatch):
    waits = []
    monkeypatch.setattr("tf_pipeline.serving.client.transport.time.sleep", waits.append)
    client = connect("rest")
    client.check()
    server.faults(fail=1, status=429, retry_after="7")
    client("a")
    assert waits == [7.0]
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))
    server.faults(fail=1, status=503, retry_after=later)
    client("a")
    assert 15 < waits[1] <= 20
    server.faults(fail=1, status=503, retry_after="3600")
    with pytest.raises(ServingError, match=r"HTTP 503: A fault \(the server asks to wait 3600 s\)"):
        client("a")
    server.faults(fail=1, status=503, retry_after="soon")
    client("a")
    assert len(waits) == 3 and waits[2] < 1


def test_a_connection_that_breaks(connect, server):
    client = connect("rest", retries=2)
    expected = client(TEXTS)
    server.faults(drop=2)
    assert client(TEXTS) == expected and server.predictions() == 3
    server.faults(drop=9)
    with pytest.raises(ServingError, match="The connection broke.*tried 3 times"):
        client(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_server(connect, server, kind):
    client = connect(kind, timeout=0.4)
    client.check()
    server.faults(delay=1.2)
    with pytest.raises(ServingError, match="No answer within 0.4 s"):
        client("a")
    assert server.predictions() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_listens(kind):
    start = time.monotonic()
    with pytest.raises(ServingError, match=r"Connection refused.*tried 3 times"):
        Client(address(kind, free_port()), retries=2, backoff=0.05)("a")
    assert 0.07 < time.monotonic() - start < 10


def test_no_such_host():
    with pytest.raises(ServingError, match="There is no such host"):
        Client("http://no-such-host.invalid:8501/v1/models/m", retries=0)("a")


class Stub(BaseHTTPRequestHandler):
    """Answers GET with what the server says it shall."""

    def do_GET(self):  # noqa: N802
        status, headers, body = self.server.answer
        self.server.seen = dict(self.headers)
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def stub():
    """An HTTP server that says what it is told to; it starts when it is called."""
    started = []

    def start(status=200, headers=None, body=b"{}", port=0):
        server = HTTPServer(("127.0.0.1", port), Stub)
        server.answer = (status, headers or {}, body)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_a_server_that_comes_late(stub):
    port = free_port()
    threading.Timer(0.4, stub, kwargs={"port": port}).start()
    assert Client(address("rest", port), retries=6, backoff=0.1).status() == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"body": b"<html>Hello</html>"}, "not JSON, so this is no TensorFlow Serving: b'<html>"),
        ({"body": b"[1]"}, "not a JSON object"),
        ({"body": b'{"metadata": 3}'}, "not the metadata of a model"),
        ({"status": 301, "headers": {"Location": "https://there"}}, "points to https://there"),
        ({"status": 403, "body": b'{"error": "Who?"}'}, r"HTTP 403: Who\? Pass headers="),
        ({"status": 500, "body": b'{ "error": "\\303\\251" }'}, r"HTTP 500: .*303"),
        ({"status": 502, "body": b""}, "HTTP 502: No message"),
    ],
)
def test_servers_that_are_something_else(stub, answer, message):
    with pytest.raises(ServingError, match=message):
        Client(address("rest", stub(**answer).server_port)).check()


def test_headers_are_sent(stub):
    server = stub(body=b'{"model_version_status": []}')
    Client(address("rest", server.server_port), headers={"Authorization": "Bearer abc"}).status()
    assert server.seen["Authorization"] == "Bearer abc"


def test_a_proxy_from_the_environment(stub, monkeypatch):
    server = stub(body=b'{"model_version_status": []}')
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "")
    assert Client("http://model.invalid:8501/v1/models/m").status() == []
    assert server.seen["Host"] == "model.invalid:8501"
    monkeypatch.setenv("no_proxy", "model.invalid")
    with pytest.raises(ServingError, match="no such host"):
        Client("http://model.invalid:8501/v1/models/m").status()


def test_ports_that_were_mixed_up(server):
    with pytest.raises(ServingError, match=f"does not speak HTTP.*grpc://127.0.0.1:{server.grpc_port}/m"):
        Client(address("rest", server.grpc_port), retries=0)("a")
    with pytest.raises(ServingError, match=f"does not speak gRPC.*http://127.0.0.1:{server.rest_port}/v1/models/m"):
        Client(address("grpc", server.rest_port), retries=0)("a")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there(server, kind):
    status = "404" if kind == "rest" else "NOT_FOUND"
    with pytest.raises(
        ServingError, match=rf"{status}: Servable not found.*versions of 'm': 10 \(AVAILABLE\), 9 "
    ) as found:
        Client(server.url(kind, 77))("a")
    assert "m, 77" in str(found.value)
    with pytest.raises(ServingError, match=f"{status}.*has no model 'other': compare with its --model_name"):
        Client(server.url(kind, name="other"))("a")
    with pytest.raises(ServingError, match="label: canary The server has these versions"):
        Client(server.url(kind, label="canary"))("a")
    with pytest.raises(ServingError, match="Could not find any versions of model other"):
        Client(server.url(kind, name="other")).status()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_with_other_rows_is_never_used(connect, server, kind):
    client = connect(kind)
    client.check()
    server.faults(lose_rows=1)
    with pytest.raises(ServingError, match=r"5 rows were sent, but \w+ came back with the shape \(4, 3\)"):
        client(TEXTS)
    server.faults()
    with pytest.raises(ServingError, match=r"2 rows were sent, but \w+ came back with the shape \(1, 2\)"):
        connect(kind, ODD, signature="single")(["a", "b"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_announces_more_than_it_has(connect, kind):
    with pytest.raises(ServingError, match="3 entries are announced, 2 are there"):
        connect(kind, ODD, signature="announced")("a")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"outputs": {"labels": [["A"]]}}', "lacks scores"),
        ('{"outputs": {"labels": [["A"]], "scores": [["x"]]}}', "not what the signature serving_default promises"),
        ('{"outputs": {"labels": [["A"]], "scores": [[1.0], [1.0, 2.0]]}}', "not what the signature"),
        ('{"outputs": {"labels": [["A"]], "scores": [[1.0]], "more": 1}}', "not what the signature"),
        ('{"outputs": [1]}', "no outputs by name"),
        ('{"predictions": [1]}', "no outputs by name: None"),
        ("oops", "not JSON"),
    ],
)
def test_answers_that_are_none(connect, server, body, message):
    client = connect("rest")
    client.check()
    server.faults(body=body)
    with pytest.raises(ServingError, match=message):
        client("a")


def test_a_stream_ends_if_the_server_fails(connect, server):
    client = connect("rest", retries=1)
    client.check()
    server.faults(fail=99)
    with pytest.raises(ServingError, match="tried 2 times"):
        list(client.stream(TEXTS))
    assert server.predictions() == 2
    server.faults(fail=99, status=400)
    assert all(isinstance(one, RequestRefusedError) for one in client.stream(TEXTS))


# ------------------------------------------------------------------------------------ pipeline(), command line, imports


def test_pipeline_with_an_address(server, local):
    with pipeline("sentiment-analysis", server.url("rest"), top_k=2, batch_size=4) as pipe:
        assert isinstance(pipe, Client) and pipe.max_batch_size == 4
        assert_same_answers(pipe(TEXTS), local("text-classification", top_k=2)(TEXTS), 1e-6)
    with pipeline("ner", server.url("grpc", GROUPS)) as pipe:
        assert pipe(TEXTS[3]) == Client(server.url("rest", GROUPS))(TEXTS[3])
    with pytest.raises(ValueError, match="not a model for question-answering"):
        pipeline("question-answering", server.url("rest"))
    with pytest.raises(ValueError, match="tokenizer, dtype: only a model that runs in this process"):
        pipeline("ner", server.url("rest"), tokenizer="x", dtype="bfloat16")
    with pytest.raises(ValueError, match="token_budget: only a model"):
        pipeline("ner", server.url("rest"), token_budget=3)
    with pytest.raises(ValueError, match="does not run on a server"):
        pipeline("image-classification", server.url("rest"))
    with pytest.raises(ValueError, match="function_to_apply was decided"):
        pipeline("text-classification", server.url("rest"), function_to_apply="none")


@pytest.mark.parametrize(
    ("task", "version", "row", "options"),
    [
        ("sentiment-analysis", LABELS, TEXTS[0], ["--top-k", "2"]),
        ("text-classification", LABELS, PAIRS[0], []),
        ("ner", GROUPS, TEXTS[3], []),
        ("question-answering", ANSWERS, QUESTIONS[0], ["--top-k", "2"]),
        ("fill-mask", MASKS, MASKED[0], []),
        ("feature-extraction", VECTORS, TEXTS[0], []),
    ],
)
def test_the_command_line(server, tmp_path, task, version, row, options):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"{json.dumps(row)}\noops\n{json.dumps(row)}\n", encoding="utf-8")
    arguments = ["run", task, "--model", server.url("rest", version), *options]
    result = run(*arguments, "--input", str(source), "--output", str(target))
    assert result.exit_code == 3, result.output
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    given = {"top_k": 2} if options else {"top_k": None} if version == LABELS else {}
    expected = Client(server.url("rest", version))(row, **given)
    assert [line["line"] for line in lines] == [1, 3] and lines[0]["result"] == lines[1]["result"] == expected
    if isinstance(row, str):
        result = run(*arguments, "--json", row)
        assert result.exit_code == 0 and json.loads(result.stdout) == expected


def test_the_command_line_says_what_is_wrong(server):
    for options, message in (
        (["--truncation"], "truncation was decided"),
        (["--dtype", "float32"], "dtype: only a model"),
        (["--top-k", "9"], "the export gives 3"),
    ):
        result = run("run", "text-classification", "--model", server.url("rest"), *options, "text")
        assert result.exit_code == 1 and message in result.stderr, result.output
    result = run("run", "text-classification", "--model", address("rest", server.grpc_port), "text")
    assert result.exit_code == 1 and "does not speak HTTP" in result.stderr


def test_rest_loads_neither_tensorflow_nor_torch(server):
    code = f"""
import sys
from tf_pipeline import pipeline
pipe = pipeline("text-classification", model="{server.url("rest")}")
assert pipe("Dull.")[0]["score"] > 0 and list(pipe(iter(["Dull."])))
loaded = {{"tensorflow", "torch", "keras", "transformers", "grpc"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_grpc_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r'pip install "tf-pipeline\[serving\]"'):
        Client("grpc://localhost:8500/m")


# ------------------------------------------------------------------------------- the equipment: what the protocol says


def ask(server, path, document=None):
    """Status and answer of a request that is written by hand."""
    data = document if isinstance(document, bytes) or document is None else json.dumps(document).encode()
    try:
        with urlopen(Request(f"http://127.0.0.1:{server.rest_port}{path}", data), timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())["error"]


def test_rows_columns_and_base64(server):
    path = "/v1/models/m:predict"
    _, columnar = ask(server, path, {"inputs": ["Dull.", TEXTS[2]]})
    names = ("labels", "scores")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(columnar["outputs"][k] for k in names), strict=True)]
    assert ask(server, path, {"instances": ["Dull.", TEXTS[2]]}) == (200, {"predictions": rows})
    assert ask(server, path, {"instances": [{"text": "Dull."}, {"text": TEXTS[2]}]}) == (200, {"predictions": rows})
    encoded = {"b64": "RHVsbC4="}
    assert ask(server, path, {"instances": [encoded]}) == (200, {"predictions": rows[:1]})
    assert (
        ask(server, path, {"inputs": {"text": [encoded]}})[1]["outputs"]["labels"] == columnar["outputs"]["labels"][:1]
    )
    _, vectors = ask(server, f"/v1/models/m/versions/{VECTORS}:predict", {"inputs": ["Dull."]})
    assert np.shape(vectors["outputs"]) == (1, 32)  # a lone output has no name
    assert ask(server, path, {"signature_name": "pairs", "instances": [PAIRS[0]]})[0] == 200


def test_classify(server):
    status, answer = ask(
        server,
        "/v1/models/m:classify",
        {"signature_name": "classify", "examples": [{"text": "Dull."}, {"text": ["other"]}]},
    )
    first, unknown = answer["results"]
    expected = Client(server.url("rest"))("Dull.", top_k=None)
    assert status == 200
    assert [one[0] for one in first] == [one["label"] for one in expected]
    assert [one[1] for one in first] == pytest.approx([one["score"] for one in expected], abs=1e-7)
    assert unknown == [["", 0.0]] * 3
    assert "method_name to be" in ask(server, "/v1/models/m:classify", {"examples": [{"text": "a"}]})[1]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{oops", "JSON Parse error"),
        (b"", "JSON Parse error"),
        (b'{"inputs": ["\xe9"]}', "JSON Parse error"),
        ([1], "Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"inputs": ["a"], "instances": ["a"]}, "expecting only one of"),
        ({"instances": "a"}, "to be an list/array"),
        ({"instances": []}, "No values in 'instances'"),
        ({"instances": ["a", ["b"]]}, "Expecting shape"),
        ({"instances": ["a", {"text": "b"}]}, "at item 1"),
        ({"instances": [{"text": "a", "more": "b"}]}, "keys must be equal to: text"),
        ({"instances": [3]}, "is not of expected type: string"),
        ({"inputs": {"other": ["a"]}}, "Missing named input: text in 'inputs' object"),
        ({"inputs": {"text": [["a"], ["b", "c"]]}}, "Encountered list at unexpected size: 2"),
        ({"inputs": {"text": [["a"]]}}, "Cannot feed value of shape"),
        ({"inputs": {"text": [{"b64": "***"}]}}, "Unable to base64 decode"),
        ({"inputs": ["a"], "signature_name": 3}, "must be a string value"),
        ({"inputs": ["a"], "signature_name": "other"}, 'Serving signature name: "other" not found'),
        ({"inputs": ["a"], "signature_name": "pairs"}, "plain value/list, but expecting an object"),
    ],
)
def test_requests_that_are_wrong(server, document, message):
    status, error = ask(server, "/v1/models/m:predict", document)
    assert status == 400 and message in error


def test_paths_that_are_wrong(server):
    assert ask(server, "/v1/models/m:explain", {}) == (400, "Malformed request: POST /v1/models/m:explain")
    assert ask(server, "/v1/nothing")[0] == 400
    assert ask(server, "/v1/models/other:predict", {"inputs": ["a"]})[0] == 404
    assert ask(server, "/v1/models/m/versions/77") == (404, "Could not find version 77 of model m")


@pytest.mark.slow
def test_requests_are_merged_and_split(exports, tmp_path):
    (tmp_path / "1").symlink_to(exports / str(LABELS))
    options = ("--batching", "--max-batch-size", "4", "--batch-timeout-micros", "50000")
    with loopback_server(tmp_path, *options) as server:
        client = Client(server.url("rest"))
        alone = {text: client(text) for text in TEXTS}
        start = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda number: client(TEXTS[number % 5]), range(40)))
        # One by one, each would have waited for the 50 ms.
        assert time.monotonic() - start < 40 * 0.05 / 2
        assert together == [alone[TEXTS[number % 5]] for number in range(40)]
        with pytest.raises(RequestRefusedError, match="Task size 5 is larger than maximum input batch size 4"):
            client(TEXTS)
        assert [[one] for one in client(TEXTS, batch_size=3)] == list(alone.values())
