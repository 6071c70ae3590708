"""The pipelines give what ``transformers``' own PyTorch pipelines give, item by item, and count their traces."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers

import tf_pipeline
from parity_tests.pipeline_helpers import (
    assert_same_answers,
    decoder_classifier_checkpoint,
    tiny_with_tokenizer,
    torch_pipeline,
)
from parity_tests.tiers import exhaustive, thinned
from tf_pipeline.pipelines import pipeline, supported_tasks
from tf_pipeline.pipelines.batching import batches_by_length, pad_rows, windows
from tf_pipeline.pipelines.calls import EngineError
from tf_pipeline.pipelines.tasks import MEDIA

PAIR = {"text": "A man eats.", "text_pair": "Somebody has food."}


@pytest.fixture(scope="module")
def folder(minilm, tmp_path_factory):
    """MiniLM with a head of three random labels, and its tokenizer."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("minilm-head")
    model = transformers.BertForSequenceClassification.from_pretrained(
        minilm, id2label={0: "BAD", 1: "SO-SO", 2: "GOOD"}, label2id={"BAD": 0, "SO-SO": 1, "GOOD": 2}
    )
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    model.save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder):
    return pipeline("text-classification", model=folder)


@pytest.fixture(scope="module")
def features(minilm):
    return pipeline("feature-extraction", model=minilm)


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.pipeline("text-classification", model=str(folder), dtype=torch.float32)


def assert_close(result, expected, tolerance=2e-6):
    """The same structure, labels and keys; scores up to float32 rounding."""
    assert type(result) is type(expected)
    if isinstance(expected, list):
        assert len(result) == len(expected)
        for one, other in zip(result, expected, strict=True):
            assert_close(one, other, tolerance)
    elif isinstance(expected, dict):
        assert list(result) == list(expected) and result["label"] == expected["label"]
        assert result["score"] == pytest.approx(expected["score"], abs=tolerance)
    else:
        assert result == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    "inputs",
    exhaustive(
        ["One.", ["One."], ["One.", "Two words here."], PAIR, [PAIR, PAIR | {"text": "No."}], [[["a", "b"]]]],
        ["One.", ["One.", "Two words here."], PAIR],
    ),
    ids=str,
)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"top_k": 99}, {"function_to_apply": "sigmoid"},
        {"function_to_apply": "none", "top_k": None}, {"truncation": True, "max_length": 4},
    ],
    ids=str,
)  # fmt: skip
def test_text_classification_is_transformers_own(ours, theirs, inputs, options):
    assert_close(ours(inputs, **options), theirs(inputs, **options))


@pytest.mark.parametrize(
    ("changes", "function"),
    thinned(
        [
            ({"problem_type": "regression", "num_labels": 1}, "none"),
            ({"num_labels": 1}, "sigmoid"),
            ({"problem_type": "multi_label_classification"}, "sigmoid"),
            ({"problem_type": "single_label_classification"}, "softmax"),
            ({}, "softmax"),
        ],
        3,
    ),
)
def test_the_activation_follows_the_config(folder, changes, function):
    model = transformers.BertForSequenceClassification.from_pretrained(
        folder, **({"num_labels": 3} | changes), ignore_mismatched_sizes=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)("Two words.", top_k=None)
    twin = tf_pipeline.TFAutoModelForSequenceClassification.from_config(model.config)
    pipe = pipeline("text-classification", model=twin, tokenizer=tokenizer)
    assert pipe.default_function() == function
    logits = np.array([[0.3, -1.2, 2.0]][:1])[:, : model.config.num_labels]
    scores = [answer["score"] for answer in pipe.postprocess({"logits": logits}, top_k=None)]
    reference = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    theirs = reference.postprocess({"logits": torch.tensor(logits)}, top_k=None, _legacy=False)
    np.testing.assert_allclose(scores, [answer["score"] for answer in theirs], rtol=1e-6)
    assert len(expected) == model.config.num_labels


@pytest.mark.parametrize(
    "head",
    [
        {"num_labels": 1, "problem_type": "regression"},
        {"num_labels": 4, "problem_type": "regression"},
        {"num_labels": 4, "problem_type": "multi_label_classification"},
        {"num_labels": 1},
        {"num_labels": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "class_name", thinned(["TFBertForSequenceClassification", "TFDistilBertForSequenceClassification"], 2)
)
def test_every_kind_of_head_is_transformers_own(minilm, head, class_name):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    if "Distil" in class_name:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    made = tiny_with_tokenizer(class_name, tokenizer, **head)
    ours, theirs = pipeline("text-classification", model=made), torch_pipeline("text-classification", made)
    for inputs in (["One.", "Two words, and more."], [PAIR, PAIR | {"text": "No."}], "One."):
        for options in ({}, {"top_k": None}, {"top_k": 2}, {"function_to_apply": "softmax", "top_k": None}):
            assert_same_answers(ours(inputs, **options), theirs(inputs, **options))


@pytest.mark.parametrize(
    ("task", "options"),
    [("text-classification", {"top_k": None}), ("zero-shot-classification", {"candidate_labels": ["a", "a film"]})],
)
def test_a_decoder_without_a_padding_token(task, options):
    folder = decoder_classifier_checkpoint()
    ours, theirs = pipeline(task, folder), torch_pipeline(task, folder)
    texts = ["One.", "Two words, and more."]
    assert_same_answers(ours(texts, **options), theirs(texts, **options))


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("text-classification", {}),
        ("feature-extraction", {"pooling": "mean"}),
        ("feature-extraction", {"pooling": "cls"}),
        ("token-classification", {}),
    ],
)
def test_texts_without_tokens_are_refused(task, options):
    pipe = pipeline(task, decoder_classifier_checkpoint(), **options)
    for inputs, message in (("", "Text 0 has no tokens"), (["a film", ""], "Text 1 has no tokens")):
        with pytest.raises(ValueError, match=message):
            pipe(inputs)
    with pytest.raises(ValueError, match="The text has no tokens"):
        pipe.forward(pipe.preprocess("") if task != "token-classification" else pipe.preprocess("")[0])
    answers = list(pipe.stream(["a film", ""]))
    assert isinstance(answers[1], ValueError) and not isinstance(answers[0], ValueError)


def test_a_model_without_a_mask_reads_no_padding(minilm, reviews):
    """Models that take no attention_mask still give each text its own tokens."""
    pipe = pipeline("feature-extraction", model=minilm, token_budget=1000)
    pipe.input_names = ("input_ids",)
    signature = {"input_ids": tf.TensorSpec([None, None], tf.int32, "input_ids")}
    pipe._compiled = tf.function(pipe._run_model, input_signature=[signature])
    for side in ("right", "left"):
        lengths = [len(vectors[0]) for vectors in pipe(reviews[:5], tokenize_kwargs={"padding_side": side})]
        assert lengths == [len(pipe.tokenizer(text)["input_ids"]) for text in reviews[:5]]


def test_windows_are_bounded_in_number_and_in_characters():
    inputs = ["a", "b", "c", {"text": "d" * 6, "text_pair": "e" * 6}, ["f" * 4, b"g" * 6], 1, None]
    assert [len(window) for window in windows(inputs, 3, 10)] == [3, 1, 1, 2]


@pytest.mark.slow
def test_many_real_sentences_in_order(ours, theirs, reviews):
    result = ours(reviews, truncation=True)
    assert_close(result, theirs(reviews, truncation=True, batch_size=8), tolerance=1e-5)


def test_the_forward_pass_is_traced_once(folder, reviews):
    pipe = pipeline("text-classification", model=folder, token_budget=300)
    assert pipe.trace_count == 0
    pipe(reviews[:50])
    pipe("One more of another length, alone.")
    pipe([PAIR])
    pipe.forward(pipe.preprocess("And the stages by hand."))
    assert pipe.trace_count == 1


@pytest.mark.parametrize(
    "options", thinned([{"batch_size": 7}, {"batch_size": 1}, {"token_budget": 99999}, {"token_budget": 1}], 4)
)
def test_batching_changes_nothing(folder, ours, reviews, options):
    other = pipeline("text-classification", model=folder, **options)
    assert_close(other(reviews[:40]), ours(reviews[:40]), tolerance=1e-5)


@pytest.mark.parametrize("side", exhaustive(["left", "right"], ["left"]))
def test_padding_side_and_multiples(ours, theirs, side, reviews):
    options = {"padding": True, "padding_side": side}
    texts = reviews[:8]
    inputs = theirs.tokenizer(texts, return_tensors="pt", pad_to_multiple_of=16, **options)
    with torch.no_grad():
        expected = theirs.model(**inputs).logits.softmax(-1).max(-1).values.tolist()
    wide = pipeline("text-classification", model=ours.model, tokenizer=ours.tokenizer, token_budget=10**6)
    result = wide(texts, pad_to_multiple_of=16, **options)
    assert [answer["score"] for answer in result] == pytest.approx(expected, abs=2e-6)


def test_every_kind_of_input(ours):
    texts = ["one", "two of them", "three of them now"]
    expected = ours(texts)
    datasets = [
        tf.data.Dataset.from_tensor_slices(texts),
        tf.data.Dataset.from_tensor_slices(texts).batch(2),
        (text for text in texts),
        iter([text.encode() for text in texts]),
    ]
    for inputs in datasets:
        result = ours(inputs)
        assert not isinstance(result, list)
        assert_same_answers(list(result), expected)
    pairs = [{"text": text, "text_pair": "x"} for text in texts]
    columns = {"text": texts, "text_pair": ["x"] * 3}
    for dataset in (tf.data.Dataset.from_tensor_slices(columns), tf.data.Dataset.from_tensor_slices(columns).batch(2)):
        assert_same_answers(list(ours(dataset)), ours(pairs))
    assert ours([]) == [] and list(ours(iter([]))) == []


def test_a_generator_is_consumed_lazily(ours, monkeypatch):
    monkeypatch.setattr("tf_pipeline.pipelines.base.WINDOW", 2)
    seen = []

    def texts():
        for index in range(6):
            seen.append(index)
            yield f"text {index}"

    results = ours(texts())
    assert seen == []
    next(results)
    assert len(seen) == 1
    next(results)
    assert len(seen) == 3
    assert len(list(results)) == 4


class MapStyle:
    """A data set with a length and items, and no end of them but its length."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index % len(self.items)]


def test_data_sets_of_pytorch(ours):
    from transformers.pipelines.pt_utils import KeyDataset

    texts = ["good", "bad " * 9, "fair"]
    for dataset in (MapStyle(texts), KeyDataset([{"text": text} for text in texts], "text")):
        answers = ours(dataset)
        assert iter(answers) is answers
        assert_close(list(answers), ours(texts))
        assert_close(list(ours.stream(dataset)), ours(texts))
    assert list(ours(MapStyle([]))) == []
    with pytest.raises(ValueError, match="a list, a generator or a dataset; got int"):
        ours(5)


def test_what_was_read_before_a_bad_item_is_answered(ours):
    texts = [*(f"text {index}" for index in range(11)), None, "more"]
    answers = []
    with pytest.raises(ValueError, match="A text has to be a string; got NoneType"):
        answers.extend(ours(iter(texts)))
    assert_close(answers, ours(texts[:11]))


def test_the_stages_by_hand(ours):
    encoded = ours.preprocess("I hate this so much!")
    assert encoded["input_ids"].shape == (1, 8)
    outputs = ours.forward(encoded)
    assert outputs.logits.shape == (1, 3)
    assert_close([ours.postprocess(outputs)], ours("I hate this so much!"))
    pair = ours.preprocess(PAIR)
    assert set(pair["token_type_ids"].numpy()[0]) == {0, 1}


def test_forward_completes_what_is_missing(ours):
    encoded = ours.preprocess("I hate this so much!")
    np.testing.assert_array_equal(
        ours.forward({"input_ids": encoded["input_ids"]}).logits, ours.forward(encoded).logits
    )


def test_which_model_is_this(ours):
    assert ours.model.config.id2label == {0: "BAD", 1: "SO-SO", 2: "GOOD"}
    assert "TFBertForSequenceClassification" in repr(ours) and "SO-SO" in repr(ours)


@pytest.mark.parametrize(
    "dtype", exhaustive(["bfloat16", "float16", "float64", "mixed_bfloat16"], ["bfloat16", "float64"])
)
def test_dtypes(folder, ours, dtype):
    pipe = pipeline("text-classification", model=folder, dtype=dtype)
    result = pipe(["A good film.", "Bad."])
    assert_close(result, ours(["A good film.", "Bad."]), tolerance=1e-6 if dtype == "float64" else 3e-2)
    assert pipe.forward(pipe.preprocess("x")).logits.dtype == ("float64" if dtype == "float64" else "float32")


def test_feature_extraction_is_transformers_own(features, minilm, reviews):
    ours = features
    theirs = transformers.pipeline("feature-extraction", model=str(minilm), dtype=torch.float32)
    assert np.asarray(ours("hello world")).shape == (1, 4, 384)
    for mine, other in zip(ours(reviews[:20]), theirs(reviews[:20]), strict=True):
        np.testing.assert_allclose(mine, other, atol=5e-6)
    tensor = ours("hello world", return_tensors=True)
    assert tf.is_tensor(tensor) and tensor.shape == (1, 4, 384)
    long = "word " * 600
    assert np.shape(ours(long, truncation=True)) == (1, 512, 384)
    assert np.shape(ours(long, tokenize_kwargs={"truncation": True, "max_length": 9})) == (1, 9, 384)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_leaves_padding_out(features, reviews, side):
    ours = features
    options = {"tokenize_kwargs": {"padding_side": side}}
    states = [np.asarray(ours(text))[0] for text in reviews[:6]]
    if side == "right":
        pooled = ours(reviews[:6], pooling="mean", **options)
        np.testing.assert_allclose(pooled, [state.mean(0) for state in states], atol=1e-5)
        first = ours(reviews[:6], pooling="cls", **options)
        np.testing.assert_allclose(first, [state[0] for state in states], atol=1e-5)
    unit = ours(reviews[:6], pooling="mean", normalize=True, **options)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-6)
    assert [len(features[0]) for features in ours(reviews[:6], **options)] == [len(state) for state in states]


@pytest.mark.parametrize("normalize", exhaustive([False, True], [True]))
@pytest.mark.parametrize("dtype", thinned(["float32", "float64"], 2))
def test_mean_pooling_is_that_of_sentence_transformers(minilm, reviews, dtype, normalize):
    """Sum of the hidden states under the mask over the length of the text, as its Pooling module computes it.

    float32 is held to 1e-6 of a vector's length, the scale on which sentence-transformers normalises MiniLM's.
    """
    texts = reviews[:24]
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(minilm, dtype=getattr(torch, dtype))
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None].to(states.dtype)
    assert mask.min() == 0  # there is padding to leave out
    expected = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    lengths = 1.0 if normalize else expected.norm(dim=1, keepdim=True).numpy()
    if normalize:
        expected = torch.nn.functional.normalize(expected, dim=1)
    ours = pipeline("feature-extraction", model=minilm, dtype=dtype)(texts, pooling="mean", normalize=normalize)
    assert (np.abs(ours - expected.numpy()) <= {"float64": 1e-10, "float32": 1e-6}[dtype] * lengths).all()


def test_streaming_keeps_errors_apart(ours):
    texts = ["fine", "word " * 600, "good", None, "bad", {"text": "a"}, "word " * 700]
    answers = list(ours.stream(texts))
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False, True, False, False, True]
    assert "602 tokens" in str(answers[1]) and "Text 6 has 702" in str(answers[6])
    assert_close([answers[0], answers[2]], ours(["fine", "good"]))


def test_a_source_that_waits_for_each_answer(ours):
    answers = []

    def source():
        for place, text in enumerate(["one", "two of them", "three of them now"]):
            assert len(answers) == place
            yield text

    for answer in ours.stream(source(), batch_size=1):
        answers.append(answer)
    assert_same_answers(answers, ours(["one", "two of them", "three of them now"]))
    answers = []
    for answer in ours(source(), batch_size=1):
        answers.append(answer)
    with pytest.raises(ValueError, match="batch_size is 0"):
        ours.stream(["one"], batch_size=0)


@pytest.mark.parametrize("error", [EngineError, ImportError])
def test_errors_of_every_input_are_not_blamed_on_one(ours, monkeypatch, error):
    calls = []

    def fails(*_):
        calls.append(1)
        raise error("This is of every input.")

    monkeypatch.setattr(type(ours), "encode", fails)
    with pytest.raises(error, match="of every input"):
        list(ours.stream(["one", "two"]))
    assert len(calls) == 1


def test_batch_size_of_one_call(ours, monkeypatch):
    sizes = []
    batch = type(ours)._run_batch
    monkeypatch.setattr(
        type(ours), "_run_batch", lambda self, rows, some: sizes.append(len(some)) or batch(self, rows, some)
    )
    ours(["a", "b", "c"], batch_size=2)
    assert sizes == [2, 1]


def test_no_model_given_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        pipe = pipeline("sentiment-analysis")
    assert "No model was given" in caplog.text
    assert pipe.model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}


def test_progress_bar_on_a_terminal_only(ours, capsys, monkeypatch):
    import sys

    monkeypatch.setattr("tf_pipeline.pipelines.calls.PROGRESS_DELAY", 0)
    ours(["a", "b"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    ours(["a", "b"])
    assert "text-classification" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe("word " * 600), "602 tokens.*at most 512.*truncation=True"),
        (lambda pipe: pipe(["ok", "word " * 600]), "Text 1 has 602"),
        (lambda pipe: pipe.forward(pipe.preprocess("word " * 600)), "truncation=True"),
        (lambda pipe: pipe([["a", "b"]]), "A text has to be a string"),
        (lambda pipe: pipe([PAIR, "single"]), "do not mix"),
        (lambda pipe: pipe({"text": "a", "context": "b"}), "A pair is"),
        (lambda pipe: pipe([None]), "NoneType"),
        (lambda pipe: pipe(3), "got int"),
        (lambda pipe: pipe("a", top_k=0), "top_k is 0"),
        (lambda pipe: pipe("a", function_to_apply="relu"), "sigmoid, softmax, none"),
        (lambda pipe: pipeline("summarise"), "supported are audio-classification"),
        (lambda pipe: pipeline("text-classification", model=pipe.model), "pass tokenizer="),
        (lambda pipe: type(pipe)(pipe.model, pipe.tokenizer, batch_size=0), "batch_size is 0"),
    ],
)
def test_errors(ours, call, message):
    with pytest.raises(ValueError, match=message):
        call(ours)


def test_feature_extraction_errors(features):
    ours = features
    with pytest.raises(ValueError, match="pooling 'max' is not one of mean, cls"):
        ours("a", pooling="max")
    with pytest.raises(ValueError, match="given twice"):
        ours("a", truncation=True, tokenize_kwargs={"truncation": True})
    with pytest.raises(TypeError, match="tokenize_kwargs"):
        ours("a", top_k=1)


def test_a_tokenizer_of_another_model_is_refused(ours, checkpoint):
    small = tf_pipeline.TFAutoModelForSequenceClassification.from_pretrained(
        checkpoint("bert", "TFBertForSequenceClassification")
    )
    with pytest.raises(ValueError, match="30522 tokens.*embeddings for 99"):
        pipeline("text-classification", model=small, tokenizer=ours.tokenizer)


def test_an_input_the_model_does_not_take_is_dropped(folder):
    """A BERT tokenizer makes token types; DistilBERT has none."""
    tokenizer = tf_pipeline.AutoTokenizer.from_pretrained(folder)
    config = transformers.DistilBertConfig(vocab_size=30522, dim=32, n_heads=2, n_layers=1, hidden_dim=32)
    model = tf_pipeline.TFAutoModelForSequenceClassification.from_config(config)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    assert pipe.input_names == ("input_ids", "attention_mask")
    assert pipe("fine")[0]["label"] in ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    "task",
    ["ner", "question-answering", "fill-mask", "zero-shot-classification", "table-question-answering", *MEDIA],
)
def test_the_default_checkpoints_are_those_of_transformers(task, caplog, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "tf_pipeline.auto._AutoModel.from_pretrained",
        classmethod(lambda cls, source, **_: asked.append(source) or 1 / 0),
    )
    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError):
        pipeline(task)
    assert asked[0] in caplog.text
    if task != "question-answering":
        from transformers.pipelines import check_task

        assert check_task(task)[1]["default"]["model"][0] == asked[0]


def test_tasks_are_listed():
    assert supported_tasks() == [
        "audio-classification",
        "automatic-speech-recognition",
        "feature-extraction",
        "fill-mask",
        "image-classification",
        "image-feature-extraction",
        "ner",
        "question-answering",
        "sentiment-analysis",
        "summarization",
        "table-question-answering",
        "text-classification",
        "text-generation",
        "text2text-generation",
        "token-classification",
        "translation",
        "translation_xx_to_yy",
        "zero-shot-classification",
        "zero-shot-image-classification",
    ]


def test_batches_cover_everything_once():
    lengths = list(np.random.default_rng(0).integers(1, 60, 500))
    batches = list(batches_by_length(lengths, token_budget=128, batch_size=20))
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    assert all(len(batch) <= 20 and len(batch) * lengths[batch[0]] <= 128 for batch in batches)
    assert all(lengths[a] >= lengths[b] for batch in batches for a, b in zip(batch, batch[1:], strict=False))


def test_pad_rows():
    np.testing.assert_array_equal(pad_rows([[1, 2, 3], [4]], 9, "right", 4), [[1, 2, 3, 9], [4, 9, 9, 9]])
    np.testing.assert_array_equal(pad_rows([[1, 2], [4]], 0, "left"), [[1, 2], [0, 4]])


def test_a_task_that_is_left_out_says_why():
    with pytest.raises(ValueError, match="'conversational' is not supported: text-generation takes chats"):
        pipeline("conversational")
