"""Exports answer as the local pipeline does, for every task, option and tokenizer, and nothing sent breaks them."""

import json
import logging
import os
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tf_pipeline
from parity_tests.conftest import ASSETS
from parity_tests.pipeline_helpers import CONLL, labels_of, tiny_with_tokenizer, trained_tokenizer
from parity_tests.test_pipelines_tokens import TEXTS
from parity_tests.tiers import exhaustive
from tf_pipeline.pipelines import pipeline
from tf_pipeline.serving import export as exporting
from tf_pipeline.serving.export import TASKS, ExportError, compare_answers, resolve_task
from tf_pipeline.serving.export.base import input_specs
from tf_pipeline.serving.export.warmup import FILE
from tf_pipeline.serving.saved_model import read_saved_model, signatures
from tf_pipeline.tokenization.in_graph import UnsupportedTokenizer, compile_tokenizer

KINDS = ["WordPiece", "BPE", "Unigram"]
HEADS = {
    "feature-extraction": ("Model", {}),
    "fill-mask": ("ForMaskedLM", {}),
    "question-answering": ("ForQuestionAnswering", {}),
    "text-classification": ("ForSequenceClassification", {"num_labels": 3}),
    "token-classification": ("ForTokenClassification", labels_of(CONLL)),
    "zero-shot-classification": (
        "ForSequenceClassification", {"num_labels": 3, **labels_of(["contradiction", "neutral", "entailment"])}
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def serve(minilm, reviews):
    """The graph of a task on a small random checkpoint, with BERT's tokenizer or one trained here."""
    made = {}

    def tokenizer(kind):
        if kind == "WordPiece":
            return transformers.AutoTokenizer.from_pretrained(minilm)
        return trained_tokenizer(kind, reviews)

    def make(task, kind="WordPiece", max_length=None, side="right", **options):
        if (task, kind, side) not in made:
            own = tokenizer(kind)
            own.padding_side = side
            head, values = HEADS[task]
            pipe = pipeline(task, model=tiny_with_tokenizer(f"TFBert{head}", own, **values))
            made[task, kind, side] = pipe, compile_tokenizer(pipe.tokenizer)
        pipe, compiled = made[task, kind, side]
        pipe.tokenizer.model_max_length = max_length or (512 if task == "question-answering" else 64)
        return TASKS[task](pipe, compiled, options)

    return make


@cache
def signatures_of(served):
    """Its functions, traced once."""
    return served.signatures()


def check(served, inputs):
    compared, difference = compare_answers(signatures_of(served), served, inputs)
    assert compared == len(inputs) > 0 and difference <= 2e-6


def bytes_of(value) -> list:
    return value.numpy().tolist()


# ------------------------------------------------------------------------------------------------ the tasks' graphs


@pytest.mark.slow  # the export below is of this task
@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"function_to_apply": "none", "top_k": 9}],
    ids=str,
)
def test_text_classification(serve, reviews, options):
    texts = [*TEXTS, *reviews[:40], " ".join(reviews[:9]), ""]
    pairs = [{"text": one, "text_pair": other} for one, other in zip(texts, reversed(texts), strict=True)]
    served = serve("text-classification", **options)
    for inputs in (texts, pairs):
        check(served, inputs)


def test_classify_takes_examples(loaded):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=["Où est-il ?".encode()]))
    examples = [tf.train.Example(features=tf.train.Features(feature={"text": feature})), tf.train.Example()]
    answers = loaded["classify"](inputs=tf.constant([one.SerializeToString() for one in examples]))
    expected = loaded["serving_default"](text=tf.constant(["Où est-il ?", ""]))
    assert bytes_of(answers["classes"]) == bytes_of(expected["labels"])
    np.testing.assert_array_equal(answers["scores"], expected["scores"])


@pytest.mark.parametrize(
    "options",
    exhaustive(
        [{}, {"pooling": "cls", "normalize": True}, {"normalize": True}], [{"pooling": "cls", "normalize": True}]
    ),
    ids=str,
)
@pytest.mark.parametrize("side", exhaustive(["right", "left"], ["left"]))
def test_feature_extraction(serve, reviews, side, options):
    served = serve("feature-extraction", side=side, **options)
    check(served, [*TEXTS, *reviews[:30], " ".join(reviews[:9])])
    tokens = signatures_of(served)["token_embeddings"](text=tf.constant(reviews[:5]))
    local = served.pipe.value(reviews[:5], 1, truncation=True, normalize=options.get("normalize", False))
    for states, mask, expected in zip(tokens["last_hidden_state"], tokens["attention_mask"], local, strict=True):
        np.testing.assert_allclose(tf.boolean_mask(states, mask), expected[0], atol=2e-6)


@pytest.mark.parametrize(
    "options",
    exhaustive(
        [{}, {"top_k": 2, "targets": ["good", "bad", "film"]}], [{"top_k": 2, "targets": ["good", "bad", "film"]}]
    ),
    ids=str,
)
@pytest.mark.parametrize("kind", exhaustive(KINDS, ["WordPiece"]))
def test_fill_mask(serve, reviews, kind, options):
    served = serve("fill-mask", kind, **options)
    texts = [" ".join([*words[:3], "[MASK]", *words[3:9]]) for words in map(str.split, reviews[:25])]
    check(served, [*texts, "A [MASK] film, isn't it?", "[MASK] and [MASK] again.", "[MASK] [MASK] [MASK]"])
    signatures = signatures_of(served)
    first, every = (
        signatures[name](text=tf.constant(["none", "[MASK] x [MASK]"])) for name in ("serving_default", "all_masks")
    )
    assert every["num_masks"].numpy().tolist() == [0, 2]
    assert set(first) == set(every) - {"num_masks"}
    for name, value in first.items():
        if name == "score":  # a product of another number of rows is rounded differently
            np.testing.assert_allclose(value[1], every[name][1, 0], rtol=1e-6)
        else:
            assert bytes_of(value[1]) == bytes_of(every[name][1, 0])
        assert not any(bytes_of(value[0])) and not any(bytes_of(tf.reshape(every[name][0], [-1])))


STRATEGIES = [
    *(("WordPiece", one) for one in ("none", "simple", "first", "average", "max")), ("BPE", "max"), ("BPE", "first"),
    ("Unigram", "none"), ("Unigram", "average"),
]  # fmt: skip
CUTS = [{"max_length": 24}, {"max_length": 24, "stride": 5}, {"ignore_labels": ["PER", "B-ORG"]}]


@pytest.mark.parametrize(
    ("kind", "strategy", "options"),
    exhaustive(
        [(*how, cut) for how in STRATEGIES for cut in CUTS if how[1] != "none" or "stride" not in cut],
        [("WordPiece", "average", CUTS[1])],
    ),
)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_token_classification(serve, reviews, kind, strategy, options):
    texts = [*TEXTS, *reviews[:20], " ".join(reviews[:6]), "", " "]
    side = "left" if strategy == "none" and "max_length" in options else "right"
    check(serve("token-classification", kind, side=side, aggregation_strategy=strategy, **options), texts)


SEVERAL = {"top_k": 4, "handle_impossible_answer": True}
SHORT = {"align_to_words": False, "max_answer_len": 4, "top_k": 3}


@pytest.mark.parametrize(
    ("kind", "options"),
    exhaustive(
        [*(("WordPiece", one) for one in ({}, SEVERAL, SHORT, {"handle_impossible_answer": True})), ("BPE", SEVERAL),
         ("BPE", {}), ("Unigram", SHORT)],
        [("WordPiece", SEVERAL)],
    ),
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("side", exhaustive(["right", "left"], ["right"]))
def test_question_answering(serve, reviews, kind, options, side):
    questions = ["Who came?", "What is this film about?", reviews[0][:50], "Où?"] * 4
    contexts = [*TEXTS, " ".join(reviews[:12]), reviews[3], "Σίσυφος ΣΊΣΥΦΟΣ σίσυφος The the THE a\x00B A\x00b"]
    contexts = [*contexts, *reviews[30:40]][:16]
    inputs = [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]
    inputs.append({"question": "the " * 40, "context": "A b."})  # which needs no windows
    windows = {"max_seq_len": 48, "doc_stride": 8, "max_question_len": 4}
    check(serve("question-answering", kind, side=side, **windows, **options), inputs)


@pytest.mark.slow
def test_a_question_that_leaves_no_room_is_cut_in_the_graph(serve, reviews):
    served = serve("question-answering", max_seq_len=48, doc_stride=8)
    answer = served.signatures()["serving_default"]
    long, cut = (
        answer(question=tf.constant(["the " * count, "Who?"]), context=tf.constant([" ".join(reviews[:9])] * 2))
        for count in (70, served.longest_question)
    )
    for name, value in long.items():
        np.testing.assert_array_equal(value, cut[name])


LABELS = ["politics", "public health", "café", "7", "art and many other things " * 20]
ZERO_SHOT = {"hypothesis_template": "{0}? {0} and {{that}}.", "multi_label": True}


@pytest.mark.parametrize("options", exhaustive([{}, ZERO_SHOT, {"multi_label": True}], [ZERO_SHOT]), ids=str)
@pytest.mark.parametrize("kind", exhaustive(KINDS, ["WordPiece"]))
def test_zero_shot_classification(serve, reviews, kind, options, monkeypatch):
    served = serve("zero-shot-classification", kind, **options)
    texts = [*(text for text in TEXTS if text.strip()), *reviews[:20], " ".join(reviews[:9])]
    for labels in (LABELS[:4], LABELS[1:2], ["one", "one"]):
        monkeypatch.setattr(served, "comparison", lambda labels=labels: {"candidate_labels": labels})
        check(served, texts)


def test_labels_of_each_text(serve):
    served = serve("zero-shot-classification")
    signature = served.signatures()["serving_default"]
    text, labels = ["A good film.", "A good film.", "", "x"], [" art ,, sport", "sport", ",", "\xff," + LABELS[4]]
    answers = signature(text=tf.constant(text), candidate_labels=tf.constant(labels))
    assert answers["num_labels"].numpy().tolist() == [2, 1, 0, 2]
    assert {*bytes_of(answers["labels"])[0]} == {b"art", b"sport"} and bytes_of(answers["labels"])[1:3] == [
        [b"sport", b""], [b"", b""]
    ]  # fmt: skip
    scores = answers["scores"].numpy()
    assert scores[0].sum() == pytest.approx(1) and 0 < scores[1, 0] < 1 and not scores[1:3, 1].any()
    assert not scores[2].any()
    alone = served.pipe.value("A good film.", "sport")
    np.testing.assert_allclose(scores[1, 0], alone["scores"][0], atol=1e-6)


def test_zero_shot_options_that_are_refused(serve):
    with pytest.raises(TypeError, match="without candidate_labels: they come with each text"):
        serve("zero-shot-classification", candidate_labels="art")
    with pytest.raises(ValueError, match="changes the label"):
        serve("zero-shot-classification", hypothesis_template="It is {:>20}.")


@pytest.mark.slow
def test_empty_questions_have_empty_answers(serve):
    signature = serve("question-answering").signatures()["serving_default"]
    answers = signature(question=tf.constant(["", "Who?"]), context=tf.constant(["Ann came.", ""]))
    assert answers["answer"].numpy()[1] == b"" and answers["score"].numpy()[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("task", HEADS)
def test_no_rows_give_no_rows(serve, task):
    for name, function in serve(task).signatures().items():
        specs = input_specs(function)
        outputs = function(**{key: tf.zeros([0, 4][: spec.shape.rank], spec.dtype) for key, spec in specs.items()})
        assert all(len(value) == 0 for value in outputs.values()), name


@pytest.mark.slow
@pytest.mark.parametrize("task", exhaustive(HEADS, ["question-answering"]))
def test_unknown_ids_leave_other_rows_alone(serve, task):
    tokens = serve(task).signatures()["tokens"]
    inputs = {name: np.full([2, 3], name == "attention_mask", np.int64) for name in input_specs(tokens)}
    inputs["input_ids"] = np.array([[5, 6, 7], [5, 10**6, -1]])
    together = tokens(**{name: tf.constant(value) for name, value in inputs.items()})
    alone = tokens(**{name: tf.constant(value[:1]) for name, value in inputs.items()})
    for name, value in together.items():
        np.testing.assert_allclose(value[0], alone[name][0], atol=1e-5)
        assert np.isnan(value[1]).all()


def test_arguments_that_nothing_would_heed_are_refused(serve):
    with pytest.raises(TypeError, match="no argument 'max_lenght'; did you mean max_length"):
        serve("text-classification", max_lenght=3)
    with pytest.raises(TypeError, match="exported without padding"):
        serve("fill-mask", tokenizer_kwargs={"padding": True})
    with pytest.raises(ValueError, match="return_all_scores=True is not supported in an export"):
        serve("text-classification", return_all_scores=True)
    with pytest.raises(ValueError, match="return_tensors is chosen in a call of the client"):
        serve("feature-extraction", return_tensors=True)
    with pytest.raises(ValueError, match="texts are strings"):
        serve("token-classification", is_split_into_words=True)
    with pytest.raises(ValueError, match=r"max_seq_len=32 tokens that overlap by doc_stride=28 leave no room"):
        serve("question-answering", max_seq_len=32, doc_stride=28)


# ------------------------------------------------------------------------------------------------------ the folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "senti ment"
    steps = []
    options = {"max_length": 64, "batch_sizes": [1, 3], "function_to_apply": "none", "top_k": 1}
    done = tf_pipeline.export(ASSETS, None, folder, progress=steps.append, **options)
    return folder, done, steps


@pytest.fixture(scope="module")
def loaded(exported):
    """Its functions, loaded again."""
    return tf.saved_model.load(exported[1].folder).signatures


def test_folder_of_an_export(exported, capsys):
    folder, done, steps = exported
    assert done.folder == folder / "1" and done.task == "text-classification" and len(steps) >= 5
    assert sorted(path.name for path in folder.iterdir()) == [
        "1", "README.md", "compose.yaml", "models.config", "serve.sh"
    ]  # fmt: skip
    assert os.access(folder / "serve.sh", os.X_OK) and not os.access(folder / "README.md", os.X_OK)
    assert (done.folder / "assets" / "labels.txt").read_text() == "NEGATIVE\nPOSITIVE\n"
    assert "/v1/models/senti-ment:predict" in (folder / "README.md").read_text()
    assert done.tokenizer.equal and done.tokenizer.texts > 2000 and done.compared >= 64
    assert 0 < done.largest_difference < 1e-5
    done.print()
    shown = capsys.readouterr().out
    assert "serving_default" in shown and "0 of input_ids" in shown and "warm-up requests, replayed" in shown


def test_pairs_of_an_export(loaded):
    pairs = [{"text": one, "text_pair": other} for one, other in zip(TEXTS, reversed(TEXTS), strict=True)]
    columns = {name: tf.constant([pair[name] for pair in pairs]) for name in ("text", "text_pair")}
    pipe = pipeline("text-classification", model=ASSETS, function_to_apply="none")
    expected, answers = pipe(pairs, truncation=True, max_length=64), loaded["pairs"](**columns)
    assert bytes_of(answers["labels"]) == [[one["label"].encode()] for one in expected]
    np.testing.assert_allclose(answers["scores"][:, 0], [one["score"] for one in expected], atol=1e-5)


def test_classify_is_declared(exported):
    """A server refuses the classify API where the signature has another method name."""
    meta_graph = read_saved_model(exported[1].folder).meta_graphs[0]
    methods = {name: one.method_name.rpartition("/")[2] for name, one in signatures(meta_graph).items()}
    assert methods == {"serving_default": "predict", "pairs": "predict", "classify": "classify", "tokens": "predict"}


def test_weights_are_stored_once(exported):
    done = exported[1]
    assert _stored(done.folder) < 1.1 * 4 * PARAMETERS


PARAMETERS = 4_804_226  # of the bundled checkpoint, each of 4 bytes in float32


def _stored(folder) -> int:
    return sum(file.stat().st_size for file in (folder / "variables").iterdir())


def test_warmup_requests_run(exported, loaded):
    from tensorflow_serving.apis import prediction_log_pb2

    done = exported[1]
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(done.folder / FILE))
    ]
    requests = [log.predict_log.request for log in logs]
    assert {request.model_spec.signature_name for request in requests} == set(loaded)
    assert len(requests) == done.warmup_requests
    rows = set()
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = loaded[request.model_spec.signature_name](**inputs)
        assert request.model_spec.name == "senti-ment" and all(
            np.isfinite(v).all() for v in (outputs.get("scores", 0),)
        )
        rows |= {len(value) for value in outputs.values()}
    assert rows == {1, 3}


def test_version_that_exists_is_kept(exported):
    folder, done, _ = exported
    before = (done.folder / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="export as another version"):
        tf_pipeline.export(ASSETS, None, folder)
    assert (done.folder / "saved_model.pb").stat().st_mtime_ns == before


@pytest.mark.slow
def test_large_numbers_are_compared_by_their_size(tmp_path):
    pipe = tf_pipeline.pipeline("text-classification", model=ASSETS)
    for variable in pipe.model.classifier.variables:
        variable.assign(1e5 * variable)
    done = tf_pipeline.export(pipe.model, pipe.tokenizer, tmp_path / "out", max_length=16, function_to_apply="none")
    assert done.largest_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["lint", "answers", "tokenizer", "warm-up"])
def test_failed_export_leaves_nothing(tmp_path, monkeypatch, fault):
    if fault == "lint":
        monkeypatch.setattr(exporting, "lint", lambda *_: ["op PyFunc"])
    elif fault == "answers":
        monkeypatch.setattr(exporting, "_difference", lambda *_: 1.0)
    elif fault == "tokenizer":
        monkeypatch.setattr(exporting, "adversarial_texts", lambda: ["fine", "other"])
        compiled = compile_tokenizer(transformers.AutoTokenizer.from_pretrained(ASSETS, do_lower_case=False))
        monkeypatch.setattr(exporting, "compile_tokenizer", lambda _: compiled)
        monkeypatch.setattr(exporting, "adversarial_texts", lambda: ["Upper CASE"])
    else:
        monkeypatch.setattr(exporting, "requests", lambda *_: [("tokens", {"input_ids": np.zeros([1], np.int64)})])
    with pytest.raises((ExportError, TypeError, ValueError)) as error:
        tf_pipeline.export(ASSETS, None, tmp_path / "out", max_length=16)
    expected = {"lint": "op PyFunc", "answers": "local pipeline", "tokenizer": "not Hugging Face's"}
    assert expected.get(fault, "") in str(error.value)
    assert not (tmp_path / "out").exists()


def test_ids_only_in_bfloat16(tmp_path):
    done = tf_pipeline.export(ASSETS, None, tmp_path / "ids", text=False, dtype="bfloat16", batch_sizes=[2])
    signatures = tf.saved_model.load(done.folder).signatures
    assert set(signatures) == {"serving_default", "tokens"} and done.tokenizer is None
    assert signatures["serving_default"].structured_outputs["logits"].dtype == tf.float32
    assert _stored(done.folder) < 1.1 * 2 * PARAMETERS


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "summarisation"}, ValueError, "not supported"),
        ({"task": "image-classification"}, ValueError, "cannot be exported; feature-extraction"),
        ({"version": 0}, ValueError, "version=0"),
        ({"name": "a b"}, ValueError, "name='a b' is not supported"),
        ({"batch_sizes": [0]}, ValueError, "batch_sizes are"),
        ({"max_length": 3}, ValueError, "more than 3 special tokens"),
        ({"max_length": 10_000}, ValueError, "at most"),
        ({"server_version": "new"}, ValueError, "server_version"),
        ({"top_k": 0}, ValueError, "top_k is 0"),
    ],
)
def test_wrong_arguments(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        tf_pipeline.export(ASSETS, None, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_head_that_was_never_trained_is_refused(tmp_path):
    with pytest.raises(
        ExportError, match=r"lacks qa_outputs.*answers of TFDistilBertForQuestionAnswering would be random"
    ):
        tf_pipeline.export(ASSETS, None, tmp_path / "out", "question-answering")
    assert not (tmp_path / "out").exists()


def test_options_of_the_hub_find_model_and_tokenizer(monkeypatch):
    seen = []
    load = exporting.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        exporting.AutoTokenizer, "from_pretrained", lambda *given, **options: seen.append(options) or load(*given)
    )
    pipe = exporting._pipeline(ASSETS, None, "text-classification", None, {"revision": "main"})
    assert seen == [{"revision": "main"}] and pipe("A lovely film.")[0]["label"] == "POSITIVE"


@pytest.mark.slow
def test_model_as_an_object(tmp_path):
    pipe = pipeline("text-classification", model=ASSETS)
    with pytest.raises(ValueError, match="load the model with the dtype"):
        tf_pipeline.export(pipe.model, pipe.tokenizer, tmp_path / "out", dtype="bfloat16")
    done = tf_pipeline.export(pipe.model, pipe.tokenizer, tmp_path / "out", max_length=32, warmup=False, top_k=1)
    assert done.task == "text-classification" and done.warmup_requests == 0
    assert tf.saved_model.load(done.folder).signatures["serving_default"].structured_outputs["labels"].shape[1] == 1
    assert pipe.tokenizer.model_max_length != 32  # what was given is left as it was


def test_task_is_that_of_the_class(tmp_path):
    assert resolve_task(ASSETS, None) == "text-classification"
    assert resolve_task(ASSETS, "ner") == "token-classification"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForPreTraining"]}))
    with pytest.raises(ValueError, match="BertForPreTraining does not tell the task"):
        resolve_task(tmp_path, None)


def test_tokenizer_that_cannot_be_compiled_says_what_to_do(tmp_path, monkeypatch):
    def refuse(_):
        raise UnsupportedTokenizer("Model 'WordLevel' is not compiled.")

    monkeypatch.setattr(exporting, "compile_tokenizer", refuse)
    with pytest.raises(UnsupportedTokenizer, match=r"'WordLevel' is not compiled\. Without text \(--no-text\)"):
        tf_pipeline.export(ASSETS, None, tmp_path / "out")


# ------------------------------------------------------------------------------------------------- arbitrary bytes

ANY = st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def fuzzed(serve):
    made = {}

    def make(task, **options):
        if task not in made:
            served = serve(task, **options)
            made[task] = served, served.signatures()
        return made[task]

    return make


@pytest.mark.slow
@FUZZ
@given(data=st.lists(ANY, min_size=1, max_size=4))
def test_any_bytes_leave_other_rows_alone(fuzzed, data):
    """Whatever the bytes: an answer for each row, the same as alone; Hugging Face's where they are UTF-8."""
    served, signatures = fuzzed("text-classification")
    classify = signatures["serving_default"]
    together = classify(text=tf.constant(["A steady text.", *data, "Another."]))
    steady = classify(text=tf.constant(["A steady text.", "Another."]))
    texts = [one.decode("utf-8", "replace") for one in data]
    local = served.pipe.value(texts, top_k=None, truncation=True)
    for row, expected in ((0, steady["scores"][0]), (-1, steady["scores"][1])):
        np.testing.assert_allclose(together["scores"][row], expected, atol=1e-5)
    for row, answer in enumerate(local, 1):
        np.testing.assert_allclose(together["scores"][row], [one["score"] for one in answer], atol=1e-5)
    encoded = served.encode(tf.constant(data))
    for row, text in enumerate(texts):
        ids = encoded["input_ids"][row][: tf.reduce_sum(encoded["attention_mask"][row])].numpy().tolist()
        assert ids == served.pipe.value.tokenizer(text, truncation=True)["input_ids"]


@pytest.mark.slow
@FUZZ
@given(data=st.lists(ANY, min_size=1, max_size=3))
def test_any_bytes_have_entities_and_answers(fuzzed, data):
    """The post-processing that cuts strings by offsets takes them too."""
    entities = fuzzed("token-classification", aggregation_strategy="max", stride=4, max_length=24)[1]
    found = entities["serving_default"](text=tf.constant([*data, "Ann came."]))
    assert len(found["num_entities"]) == len(data) + 1
    answers = fuzzed("question-answering")[1]["serving_default"]
    answered = answers(question=tf.constant(data), context=tf.constant([*data[1:], data[0]]))
    assert len(answered["answer"]) == len(data)
    for text, start, end in zip([*data[1:], data[0]], answered["start"].numpy(), answered["end"].numpy(), strict=True):
        assert 0 <= start <= end <= len(text.decode("utf-8", "replace"))
    masks = fuzzed("fill-mask")[1]["all_masks"]
    assert len(masks(text=tf.constant(data))["num_masks"]) == len(data)


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("tf_pipeline").setLevel(logging.ERROR)
    yield
    logging.getLogger("tf_pipeline").setLevel(logging.NOTSET)
