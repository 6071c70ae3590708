"""Batches from rows of texts: every kind of source and of task, orders, masks and spans, and rows that are no rows."""

import json
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import transformers

from parity_tests import tokenizer_stacks
from parity_tests.keras_helpers import tiny_model
from parity_tests.pipeline_helpers import decoder_checkpoint, encoder_decoder_checkpoint, labels_of
from parity_tests.sentences import film_reviews
from parity_tests.tiers import exhaustive
from tf_pipeline import AutoTokenizer, TFAutoModelForCausalLM, TFAutoModelForSeq2SeqLM, pipeline
from tf_pipeline.callbacks import EpochOrder
from tf_pipeline.data import prepare
from tf_pipeline.data.masking import corrupt_spans, mask_tokens
from tf_pipeline.data.sources import RowError, rows_of
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

TEXTS = ["A lovely film.", "Bad.", "I would see it again and again.", "No", "Not too bad, really."]
NAMES = ["bad", "fair", "good"]
ROWS = [{"text": text, "label": NAMES[i % 3]} for i, text in enumerate(TEXTS)]


@cache
def tokenizer():
    """That of the bundled checkpoint."""
    return AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)


def model_of(class_name="TFBertForSequenceClassification", names=NAMES, **changes):
    """A model that is shared, whose weights and config say nothing about batches."""
    return _model_of(class_name, tuple(names), **changes)


@cache
def _model_of(class_name, names, **changes):
    return tiny_model(class_name, vocab_size=len(tokenizer()), num_labels=len(names), **labels_of(names), **changes)


def texts_of(batches, own=None):
    """The texts of all batches, and their labels."""
    found = []
    for inputs, labels in batches.as_numpy_iterator():
        for ids, label in zip(inputs["input_ids"], labels, strict=True):
            found.append(((own or tokenizer()).decode(ids, skip_special_tokens=True), label))
    return found


def expected_texts(rows=ROWS):
    return [
        (tokenizer().decode(tokenizer()(row["text"])["input_ids"][1:-1]), NAMES.index(row["label"])) for row in rows
    ]


# ----------------------------------------------------------------------------------------------------------- sources


def sources(folder):
    """The same rows in every kind of container."""
    import datasets
    import pandas

    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    (folder / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + "\n\n".join(map(json.dumps, ROWS)).encode())
    pandas.DataFrame(columns).to_csv(folder / "rows.csv", index=False)
    pandas.DataFrame(columns).to_csv(folder / "rows.tsv", index=False, sep="\t")
    return {
        "list": ROWS,
        "pairs": [(row["text"], row["label"]) for row in ROWS],
        "columns": columns,
        "DataFrame": pandas.DataFrame(columns),
        "function": lambda: iter(ROWS),
        "jsonl": folder / "rows.jsonl",
        "csv": str(folder / "rows.csv"),
        "tsv": folder / "rows.tsv",
        "datasets": datasets.Dataset.from_list(ROWS),
        "streamed datasets": datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
        "tf.data": tf.data.Dataset.from_tensor_slices(columns),
        "tf.data of pairs": tf.data.Dataset.from_tensor_slices((columns["text"], columns["label"])),
    }


@pytest.mark.parametrize("stream", [False, True])
def test_every_row_once_from_every_source(stream, tmp_path):
    model = model_of()
    for kind, rows in sources(tmp_path).items():
        made = prepare(rows, model, tokenizer(), 2, stream=stream)
        assert len(list(made)) == 3 and (stream or len(made) == 3), kind
        assert texts_of(made) == texts_of(made) == expected_texts(), kind
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n\n")
    lines = prepare(tmp_path / "texts.txt", model, tokenizer(), 5)
    assert next(iter(lines))["input_ids"].shape[0] == 5  # without labels, for predict


def test_batches_are_as_long_as_their_longest_row():
    lengths = [len(ids) for ids in tokenizer()(TEXTS)["input_ids"]]
    for place, (inputs, _) in enumerate(prepare(ROWS, model_of(), tokenizer(), 2)):
        own = lengths[2 * place : 2 * place + 2]
        assert inputs["input_ids"].shape == (len(own), max(own))
        assert inputs["attention_mask"].numpy().sum(1).tolist() == own
        assert inputs["input_ids"].dtype == tf.int32
    (inputs, _), *_ = prepare(ROWS, model_of(), tokenizer(), 5, max_length=4)
    assert inputs["input_ids"].shape[1] == 4


def test_a_data_set_larger_than_memory_streams():
    """Rows are made while batches are taken, and never all at a time."""
    made = 0

    def rows():
        nonlocal made
        for number in range(10**9):
            made += 1
            yield {"text": TEXTS[number % 5], "label": number % 3}

    batches = prepare(rows, model_of(), tokenizer(), 4, shuffle=True, stream=True, buffer_size=100, seed=1)
    taken = list(batches.take(5).as_numpy_iterator())
    assert len(taken) == 5 and made < 20_000


# ------------------------------------------------------------------------------------------------------------ orders


def many(count=230):
    return [{"text": text, "label": i % 3} for i, text in enumerate((film_reviews() * 3)[:count])]


@pytest.mark.parametrize("stream", exhaustive([False, True], [True]))
def test_orders_are_new_and_repeatable(stream):
    rows, model = many(60), model_of()

    def epochs(seed, **options):
        made = prepare(rows, model, tokenizer(), 4, shuffle=True, seed=seed, stream=stream, buffer_size=16, **options)
        return [texts_of(made) for _ in range(2)]

    first, second = epochs(1)
    key = str
    assert first != second and sorted(first, key=key) == sorted(second, key=key)
    assert len(first) == 60 and len({text for text, _ in first}) == 60
    assert epochs(1) == [first, second] != epochs(2)
    assert [len(epoch) for epoch in epochs(1, drop_remainder=True)] == [60, 60]


def test_batches_are_of_like_lengths():
    model = model_of()

    def padding(**options):
        made = prepare(many(), model, tokenizer(), 8, shuffle=True, **options)
        masks = [inputs["attention_mask"] for inputs, _ in made.as_numpy_iterator()]
        assert sum(len(mask) for mask in masks) == 230
        return sum((1 - mask).sum() for mask in masks) / sum(mask.sum() for mask in masks)

    assert padding() < 0.1 < 0.3 < padding(bucket=False)
    lengths = [inputs["input_ids"].shape[1] for inputs, _ in prepare(many(), model, tokenizer(), 8, shuffle=True)]
    assert lengths != sorted(lengths)  # batches come in any order
    assert len(prepare(many(), model, tokenizer(), 8, drop_remainder=True)) == 28


def test_epochs_of_fit_have_their_own_order():
    """A training that goes on at epoch 2 sees what it would have seen."""
    rows, model, seen = many(12), tiny_model("TFBertForSequenceClassification", vocab_size=len(tokenizer())), []
    made = prepare(rows, model, tokenizer(), 12, shuffle=True, bucket=False, seed=3)
    all_epochs = [texts_of(made) for _ in range(4)]

    model.compile("sgd", run_eagerly=True)
    step = model.train_step
    model.__dict__["train_step"] = lambda data: seen.append(data[0]["input_ids"].numpy()) or step(data)
    again = prepare(rows, model, tokenizer(), 12, shuffle=True, bucket=False, seed=3)
    model.fit(again, epochs=4, initial_epoch=2, callbacks=[EpochOrder(again)], verbose=0)
    assert again.batches.epoch == 4
    assert [[tokenizer().decode(ids, skip_special_tokens=True) for ids in batch] for batch in seen] == [
        [text for text, _ in epoch] for epoch in all_epochs[2:]
    ]
    again.batches.epoch = 2
    assert texts_of(again) == all_epochs[2]
    with pytest.raises(TypeError, match=r"prepare\(\) returns, not one derived"):
        EpochOrder(again.map(lambda *pair: pair))


# ------------------------------------------------------------------------------------------------------------- tasks


def only(batches):
    """Inputs and labels of the only batch."""
    ((inputs, labels),) = batches.as_numpy_iterator()
    return inputs, labels


@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ({}, ["bad", 2, "1"], [0, 2, 1]),
        ({"problem_type": "regression"}, [1, "2.5", 3.0], [1.0, 2.5, 3.0]),
        ({"problem_type": "multi_label_classification"}, [["bad", 2], [], ["fair"]], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        ({"problem_type": "regression"}, [[1, 2, 3], [4, 5, 6], [7, 8, 9.5]], [[1, 2, 3], [4, 5, 6], [7, 8, 9.5]]),
    ],
)
def test_labels_of_texts(changes, given, expected):
    names = ["score"] if changes and not isinstance(given[0], list) else NAMES
    model = model_of(names=names, **changes)
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, given, strict=False)]
    batches = prepare(rows, model, tokenizer(), 3)
    inputs, labels = only(batches)
    assert labels.tolist() == expected and labels.dtype == (np.float32 if "problem_type" in changes else np.int32)
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.evaluate(batches, verbose=0))


def test_pairs():
    rows = [{"text": "One.", "text_pair": "Two words.", "label": 0}, {"text": "A", "text_pair": "B", "label": 1}]
    inputs, _ = only(prepare(rows, model_of(), tokenizer()))
    expected = tokenizer()(["One.", "A"], ["Two words.", "B"], padding=True, return_tensors="np")
    for name in inputs:
        np.testing.assert_array_equal(inputs[name], expected[name])


@pytest.mark.parametrize(
    "names",
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence"), ("question1", "question2"),
     ("sentence", None)],
)  # fmt: skip
def test_texts_have_the_names_of_glue(names):
    row = {name: text for name, text in zip(names, ["One.", "Two words."], strict=True) if name}
    inputs, _ = only(prepare([row | {"label": 0}], model_of(), tokenizer()))
    expected = tokenizer()(*list(row.values()), return_tensors="np")
    np.testing.assert_array_equal(inputs["input_ids"], expected["input_ids"])


@pytest.mark.parametrize("everywhere", [False, True])
def test_labels_of_words_are_aligned(everywhere):
    names = ["O", "B-X", "I-X"]
    model = model_of("TFBertForTokenClassification", names)
    rows = [{"tokens": ["Uncharacteristically", "good"], "labels": ["B-X", "O"]}, {"tokens": ["a"], "labels": [2]}]
    batches = prepare(rows, model, tokenizer(), label_all_tokens=everywhere)
    inputs, labels = only(batches)
    pieces = len(tokenizer()(["Uncharacteristically"], is_split_into_words=True)["input_ids"]) - 2
    assert pieces > 2
    inside = [2 if everywhere else -100] * (pieces - 1)
    assert labels[0].tolist() == [-100, 1, *inside, 0, -100]
    assert labels[1].tolist() == [-100, 2] + [-100] * (labels.shape[1] - 2)
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.evaluate(batches, verbose=0))


def test_words_of_tokenizers_that_keep_spaces(tmp_path):
    """RoBERTa's would read ["good", "day"] as "goodday"."""
    names = {"pad": "<pad>", "cls": "<s>", "sep": "</s>", "mask": "<mask>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_stacks.roberta(), **{f"{kind}_token": name for kind, name in names.items()}
    ).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": "RobertaTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    own = AutoTokenizer.from_pretrained(tmp_path)
    model = tiny_model("TFRobertaForTokenClassification", vocab_size=len(own), num_labels=2, **labels_of(["O", "X"]))
    rows = [{"tokens": ["good", "day"], "labels": ["X", "O"]}]
    with pytest.raises(ValueError, match="load it with add_prefix_space=True"):
        prepare(rows, model, own)
    inputs, _ = only(prepare(rows, model, AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=True)))
    assert own.decode(inputs["input_ids"][0], skip_special_tokens=True) == " good day"


@pytest.mark.parametrize("side", exhaustive(["right", "left"], ["left"]))
def test_windows_of_contexts(side):
    own = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT, padding_side=side)
    model = model_of("TFBertForQuestionAnswering", ["start", "end"], max_position_embeddings=64)
    context = " ".join(film_reviews()[:4])
    answer = film_reviews()[2].split(".")[0][:20].strip()
    rows = [
        {
            "question": "What?",
            "context": context,
            "answers": {"text": [answer], "answer_start": [context.index(answer)]},
        },
        {"question": "And this?", "context": "It is red.", "answers": {"text": [], "answer_start": []}},
        {"question": "Colour?", "context": "It is red.", "answer": {"text": "red", "answer_start": 6}},
        {"question": "Colour?", "context": "It is red.", "answers": [{"text": "red", "answer_start": 6}]},
    ]
    batches = prepare(rows, model, own, 64, max_length=32, doc_stride=8)
    inputs, labels = only(batches)
    asked = pipeline("question-answering", model=model, tokenizer=own).encode(rows, doc_stride=8, max_seq_len=32)
    read = [ids[mask == 1].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    assert read == list(map(list, asked.columns["input_ids"]))
    spans = [
        own.decode(ids[start : end + 1]) if own.cls_token_id != ids[start] else None
        for ids, start, end in zip(inputs["input_ids"], labels["start_positions"], labels["end_positions"], strict=True)
    ]
    assert len(spans) > 5 and spans[-3:] == [None, "red", "red"]
    found = [span for span in spans[:-3] if span]
    assert found and set(found) == {own.decode(own(answer)["input_ids"][1:-1])}
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.evaluate(batches, verbose=0))


def test_windows_overlap_by_half_of_a_short_one():
    model = model_of("TFBertForQuestionAnswering", ["start", "end"])
    row = {"question": "What?", "context": "It is red. " * 20, "answers": {"text": ["red"], "answer_start": [6]}}

    def windows(**options):
        return only(prepare([row], model, tokenizer(), 64, max_length=32, **options))[0]["input_ids"].tolist()

    assert windows() == windows(doc_stride=16) != windows(doc_stride=8)
    short = row | {"question": "What " * 20, "context": "It is red."}
    inputs, labels = only(prepare([short], model, tokenizer(), max_length=32))  # fits as a whole
    place = int(labels["start_positions"][0])
    assert tokenizer().decode(inputs["input_ids"][0][place : place + 1]) == "red"


def test_a_text_has_a_masked_token_at_least():
    ids, labels = mask_tokens([1, 5, 6, 2], [None, 0, 1, None], np.random.default_rng(0), 7, 50, 1e-9)
    assert sum(label != -100 for label in labels) == 1 and labels[0] == labels[3] == -100


@pytest.mark.parametrize("whole_word", [False, True])
def test_masks(whole_word):
    model = model_of("TFBertForMaskedLM")
    rows = [{"text": text} for text in film_reviews()[:60]]
    options = {"mlm_probability": 0.3, "whole_word": whole_word, "seed": 5}
    batches = prepare(rows, model, tokenizer(), 60, **options)
    inputs, labels = only(batches)
    again, other = only(prepare(rows, model, tokenizer(), 60, **options)), only(batches)
    np.testing.assert_array_equal(again[0]["input_ids"], inputs["input_ids"])
    assert (other[0]["input_ids"] != inputs["input_ids"]).any()  # the next epoch
    chosen = labels != -100
    options = {"truncation": True, "max_length": model.max_length}
    plain = tokenizer()([row["text"] for row in rows], padding=True, return_tensors="np", **options)
    np.testing.assert_array_equal(np.where(chosen, labels, inputs["input_ids"]), plain["input_ids"])
    words = plain["attention_mask"].sum() - 2 * 60
    assert abs(chosen.sum() / words - 0.3) < 0.06
    masked = inputs["input_ids"][chosen]
    assert abs((masked == tokenizer().mask_token_id).mean() - 0.8) < 0.08
    assert 0.04 < (masked == labels[chosen]).mean() < 0.16
    encoded = tokenizer()([row["text"] for row in rows], **options)
    split = 0
    for place in range(60):
        words = encoded.word_ids(place)
        assert not chosen[place][[word is None for word in words] + [True] * (chosen.shape[1] - len(words))].any()
        for word in {word for word in words if word is not None}:
            pieces = chosen[place][: len(words)][[one == word for one in words]]
            split += pieces.any() and not pieces.all()
    assert (split == 0) == whole_word
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.evaluate(batches, verbose=0))


def test_a_token_may_be_masked_by_any_other():
    random = np.random.default_rng(0)
    ids, labels = mask_tokens(list(range(100, 2100)), list(range(1999)) + [None], random, 7, 50, 1.0)
    replaced = {one for one, label in zip(ids[:-1], labels[:-1], strict=True) if one not in (7, label)}
    assert len(replaced) > 45 and max(replaced) < 50 and labels[-1] == -100 and ids[-1] == 2099


def causal():
    folder = decoder_checkpoint()
    return TFAutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_texts_to_continue():
    model, own = causal()
    rows = [{"prompt": "Say:", "completion": " yes."}, {"text": "Once upon a time"}]
    inputs, labels = only(prepare(rows, model, own))
    learned = [own.decode(row[row != -100]) for row in labels]
    assert learned == [" yes.<|endoftext|>", "Once upon a time<|endoftext|>"]
    assert own.decode(inputs["input_ids"][0][inputs["attention_mask"][0] == 1]) == "Say: yes.<|endoftext|>"
    expected = transformers.GPT2LMHeadModel.from_pretrained(decoder_checkpoint())
    import torch

    theirs = expected(**{name: torch.tensor(value).long() for name, value in inputs.items()},
                      labels=torch.tensor(labels).long()).loss  # fmt: skip
    model.compile("sgd", run_eagerly=True)
    assert model.evaluate(prepare(rows, model, own), verbose=0) == pytest.approx(float(theirs), rel=1e-4)


def test_texts_are_packed_into_blocks():
    model, own = causal()
    rows = [{"text": text} for text in film_reviews()[:20]]
    whole = [token for row in rows for token in [*own(row["text"])["input_ids"], own.eos_token_id]]
    batches = prepare(rows, model, own, 1, max_length=32, pack=True)
    blocks = [inputs["input_ids"][0].tolist() for inputs, _ in batches.as_numpy_iterator()]
    assert [token for block in blocks for token in block] == whole
    assert {len(block) for block in blocks[:-1]} == {32} and 2 <= len(blocks[-1]) <= 32


def test_the_end_is_learned_where_the_tokenizer_writes_it():
    own = AutoTokenizer.from_pretrained(encoder_decoder_checkpoint())
    model = tiny_model("TFGPT2LMHeadModel", vocab_size=len(own))
    _, labels = only(prepare([{"prompt": "ab", "completion": "c"}], model, own))
    assert own.decode(labels[0][labels[0] != -100]).endswith("c</s>")


def test_texts_that_teach_nothing_are_refused():
    model, own = causal()
    long = {"prompt": "long " * 20, "completion": "yes"}
    for row, message in (
        (long, r"Row 2 has a completion that begins after max_length=8 of its \d+ tokens"),
        ({"text": ""}, "Row 2 has a text of 1 tokens, and at least 2 are needed"),
    ):
        with pytest.raises(RowError, match=message):
            prepare([{"text": "one"}, row], model, own, max_length=8)
    blocks = [labels for _, labels in prepare([long, ""], model, own, 1, max_length=8, pack=True)]
    learned = [label for block in blocks for label in block.numpy().ravel().tolist() if label != -100]
    assert own.decode(learned).strip().startswith("yes" + own.eos_token)
    assert all((block.numpy()[:, 1:] != -100).any() for block in blocks)  # none of the prompt alone
    masked = model_of("TFBertForMaskedLM")
    fails(["one", ""], "Row 2 has a text without a token that could be masked", masked)
    t5 = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_stacks.t5(), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    writer = tiny_model("TFT5ForConditionalGeneration", vocab_size=len(t5))
    with pytest.raises(RowError, match="Row 2 has a text of 0 tokens, and spans need at least 2"):
        prepare(["one two three", ""], writer, t5, corrupt_spans=True)


def test_labels_of_decoders_whose_loss_does_not_shift():
    model = tiny_model("TFBartForCausalLM", vocab_size=len(tokenizer()))
    inputs, labels = only(prepare(["one two"], model, tokenizer()))
    ids = inputs["input_ids"][0]
    assert labels[0].tolist() == [*ids[1:], -100]


def test_texts_and_their_targets():
    folder = encoder_decoder_checkpoint()
    model, own = TFAutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [{"text": "abc", "target": "d"}, {"article": "a longer one", "summary": "e f g h"}]
    batches = prepare(rows, model, own, prefix="do: ", max_target_length=4)
    inputs, labels = only(batches)
    assert own.decode(inputs["input_ids"][0], skip_special_tokens=True) == "do: abc"
    assert labels.shape == (2, 4) and labels[0].tolist()[-1] == -100
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.evaluate(batches, verbose=0))


def test_spans_of_t5():
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_stacks.t5(), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    model = tiny_model("TFT5ForConditionalGeneration", vocab_size=len(own))
    texts = film_reviews()[:20]
    batches = prepare(texts, model, own, 20, corrupt_spans=True, max_length=20, mean_span_length=1.0, seed=2)
    inputs, labels = only(batches)
    sentinels = own.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(4)])
    for text, ids, asked in zip(texts, inputs["input_ids"], labels, strict=True):
        ids, asked = [int(i) for i in ids if i != own.pad_token_id], [int(i) for i in asked if i != -100]
        assert ids[-1] == asked[-1] == own.eos_token_id and asked[0] == sentinels[0]
        spans, parts = {}, []
        for token in asked[:-1]:
            if token in sentinels:
                parts = spans[token] = []
            else:
                parts.append(token)
        assert parts == []  # behind the last sentinel
        restored = [token for one in ids[:-1] for token in spans.get(one, [one])]
        assert restored == own(text, add_special_tokens=False)["input_ids"][:19]
    again = only(batches)[0]["input_ids"]
    assert again.shape != inputs["input_ids"].shape or (again != inputs["input_ids"]).any()
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.evaluate(batches, verbose=0))


def test_sizes_of_spans():
    random = np.random.default_rng(0)
    read, written = corrupt_spans(list(range(1000)), random, list(range(2000, 2100)), 0.15, 3.0)
    assert len(written) - 51 == 150 and len(read) == 850 + 50
    for length in range(2, 40):
        read, written = corrupt_spans(list(range(length)), random, list(range(2000, 2100)), 0.5, 1.0)
        assert len(read) + len(written) == length + 2 * sum(token >= 2000 for token in read) + 1
    with pytest.raises(ValueError, match="50 spans, and there are 4 sentinels"):
        corrupt_spans(list(range(1000)), random, [1, 2, 3, 4])


# ------------------------------------------------------------------------------------------------------------ errors


def fails(rows, message, model=None, error=RowError, **options):
    with pytest.raises(error, match=message):
        prepare(rows, model or model_of(), tokenizer(), **options)


def test_rows_that_are_no_rows(tmp_path):
    def file(name, text):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    good = json.dumps(ROWS[0])
    fails(file("a.jsonl", good + "\n\n{\n"), r"Line 3 of .*a\.jsonl is not JSON")
    fails(file("b.jsonl", good + "\n[1]"), r"Line 2 of .*b\.jsonl is not an object of JSON: \[1\]")
    fails(file("c.jsonl", b'{"text": "\xff"}'), "Line 1 of .* is not UTF-8")
    fails(file("d.jsonl", '{"text": "a", "label": "great"}'),
          "Line 1 of .* has the label 'great', but the model's are bad, fair, good, or 0 to 2")  # fmt: skip
    fails(file("e.jsonl", '{"label": 1}'), "Line 1 of .* has no 'text' or .*; its keys are 'label'")
    fails(file("f.jsonl", '{"text": 3}'), "Line 1 of .* needs a text as 'text', and has 3")
    fails(file("g.csv", "text,label\na\n"), r"Line 2 of .*g\.csv has not as many cells as there are columns \(2\)")
    fails(file("h.csv", "text,label\na,1,2\n"), "Line 2 of .* has not as many cells")
    fails(file("o.csv", "text,label,text\na,1,b\n"), r"Line 1 of .*o\.csv names the column 'text' more than once")
    frame = pytest.importorskip("pandas").DataFrame([["a", 1, "b"]], columns=["text", "label", "text"])
    fails(frame, "The DataFrame has the column 'text' twice", error=ValueError)
    fails(file("o.jsonl", '{"text": "a", "label": 1, "label": 0}\n'), "Line 1 of .*'label' is there more than once")
    fails(file("p.jsonl", '{"text": "a", "label": ' + "1" * 5000 + "}"), "Line 1 of .*has 5000 digits")
    fails(file("i.csv", b'text,label\na,1\n"\xff",1\n'), "Line 3 of .* is not UTF-8")
    fails(file("l.csv", 'text,label\na,1\n"b,1\nc,1\n'), "Line 3 of .* cannot be read: .*; is a quote in it not closed")
    fails(file("m.json", '[\n{"text": "a"}]'), "Line 1 of .* is not JSON: .*; give one object per line")
    fails(file("n.json", '[{"text": "a"}]'), "Line 1 of .* is not an object of JSON: .*; give one object per line")
    fails(file("j.jsonl", ""), "There are no rows", error=ValueError)
    fails(file("k.parquet", ""), r"k\.parquet is not supported; give a file of \.jsonl", error=ValueError)
    fails(tmp_path / "none.jsonl", "There is no file", error=FileNotFoundError)
    fails([1], "Row 1 is neither a dictionary")
    fails(3, "int is not supported", error=TypeError)
    fails((row for row in ROWS), "generator is not supported", error=TypeError)
    fails({"train": rows_of}, "The dictionary has train, which are not all lists", error=TypeError)
    fails({"text": ["a"], "label": []}, "text, label are not of one length", error=ValueError)


def test_cells_of_tables(tmp_path):
    """Quotes in TSV are part of the text, as in GLUE; in CSV they hold lines together."""
    (tmp_path / "a.tsv").write_text('text\tlabel\n"open\t1\n"so" he said\t2\nclose"\t0\n')
    assert [row.values["text"] for row in rows_of(tmp_path / "a.tsv")()] == ['"open', '"so" he said', 'close"']
    (tmp_path / "b.csv").write_text('text,label\n"one\n\n""two""",1\n' + "x" * 200_000 + ",2\n")
    assert [len(row.values["text"]) for row in rows_of(tmp_path / "b.csv")()] == [10, 200_000]


def test_rows_have_all_that_the_first_one_has():
    texts = [{"text": "a"}, {"text": "b"}]
    labelled = [{"text": "a", "label": 0}]
    fails(texts + labelled, "Row 3 has 'label', which the rows before it lack", batch_size=3)
    fails(labelled + texts, "Row 2 has no 'label', which the rows before it have")
    fails(
        [*labelled, {"text": "b \ud800", "label": 0}], "Row 2 has half a character in its 'text', a surrogate without"
    )
    fails(labelled * 1000 + texts, "Row 1001 has no 'label'")  # tokenized apart from those before
    fails(
        [("a", 0), {"text": "a", "text_pair": "b", "label": 0}], "Row 2 has 'text_pair', which the rows before it lack"
    )
    tagger = model_of("TFBertForTokenClassification", ["O", "X"])
    fails([{"tokens": ["a"], "labels": ["O"]}, {"tokens": ["a"]}], "Row 2 has no 'labels'", tagger)
    writer = tiny_model("TFT5ForConditionalGeneration", vocab_size=len(tokenizer()))
    fails([{"text": "a"}, {"text": "a", "target": "b"}], "Row 2 has 'target', which the rows before it lack", writer)
    fails(labelled * 2 + texts, "Row 3 has no 'label'", stream=True)


def test_labels_that_are_none():
    several = model_of(problem_type="multi_label_classification")
    fails([("a", "bad")], "Row 1 needs a list of labels", several)
    fails([("a", ["bad", "worse"])], "has the label 'worse'", several)
    fails([("a", True), ("b", 3)], "Row 2 has the label 3")
    number = model_of(names=["score"])
    fails([("a", "much")], "Row 1 needs a number as its label, and has 'much'", number)
    fails([("a", float("nan"))], "needs a number", number)
    fails([("a", [1.0, 2.0])], "has 2 numbers as its label, but the model gives 1", number)
    fails([{"text": "a", "text_pair": "b"}, {"text": "c"}], "Row 2 has no 'text_pair'")
    tagger = model_of("TFBertForTokenClassification", ["O", "X"])
    fails([{"tokens": ["a", "b"], "labels": ["O"]}], "Row 1 has 2 tokens and 1 labels", tagger)
    fails([{"tokens": "a b", "labels": ["O"]}], "needs a list of words as 'tokens'", tagger)
    fails([{"tokens": ["a"], "labels": 1}], "needs a list of labels as 'labels', and has 1", tagger)
    answers = model_of("TFBertForQuestionAnswering", ["start", "end"])
    fails(
        [{"question": "a", "context": "b", "answers": "red"}], "needs answers such as {'text'.*, and has 'red'", answers
    )
    fails(ROWS, "has no 'question'", answers)
    for stride in (29, 200):
        fails(ROWS, f"doc_stride is {stride}, but has to be less than the 29 tokens that max_length=32", answers,
              ValueError, max_length=32, doc_stride=stride)  # fmt: skip
    row = {"question": "a?", "context": "It is red."}
    blue = {"text": ["blue"], "answer_start": [6]}
    fails([row | {"answers": blue}], "has the answer 'blue', which is not at place 6", answers)
    fails([row | {"answers": {"text": ["red"], "answer_start": []}}], "1 answers and 0 places", answers)
    fails([row | {"question": "long " * 40}], "which leaves its context no room", answers, max_length=32, doc_stride=4)
    writer = tiny_model("TFT5ForConditionalGeneration", vocab_size=len(tokenizer()))
    fails([{"text": "a", "target": "b"}, {"text": "c"}], "Row 2 has no 'target'", writer)


def test_options_that_are_none():
    fails(ROWS, "takes no argument 'pack'", error=TypeError, pack=True)
    for options, message in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"buffer_size": 0}, "buffer_size is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 10**6}, "max_length is 1000000, but the model takes at most"),
        ({"batch_size": 9, "drop_remainder": True}, "do not fill a batch of 9"),
    ):
        fails(ROWS, message, error=ValueError, **options)
    fails(ROWS, "TFBertModel has no head", tiny_model("TFBertModel"), ValueError)
    masked = model_of("TFBertForMaskedLM")
    fails(TEXTS, "mlm_probability has to be", masked, ValueError, mlm_probability=0)
    writer = tiny_model("TFT5ForConditionalGeneration", vocab_size=len(tokenizer()))
    fails(TEXTS, "noise_density has to be", writer, ValueError, noise_density=1.0)
    fails(TEXTS, "mean_span_length has to be", writer, ValueError, mean_span_length=0.5)
    fails(TEXTS, "has no <extra_id_0>", writer, ValueError, corrupt_spans=True)
    own, endless = causal()[1], model_of("TFBertForMaskedLM")
    with pytest.raises(ValueError, match="has no mask token, which TFBertForMaskedLM needs"):
        prepare(TEXTS, endless, own)
    with pytest.raises(ValueError, match="needs a fast tokenizer; object is not one"):
        prepare(TEXTS, masked, object())
