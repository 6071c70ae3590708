"""Collators and data sets: what ``transformers`` collates, as tensors; every row once an epoch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

from parity_tests.checkpoint_helpers import checkpoint, ours
from tf_pipeline import AutoTokenizer, TFBertForSequenceClassification
from tf_pipeline import data as collators
from tf_pipeline.data import prepare_tf_dataset
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

TEXTS = ["A lovely film.", "Bad.", "I would see it again and again.", "No", "Not too bad, really."]
INPUTS = ("input_ids", "attention_mask")


@pytest.fixture(scope="module")
def tokenizer():
    """That of the bundled checkpoint."""
    return AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)


def rows_of(tokenizer, texts=TEXTS, **columns):
    encoded = tokenizer(texts)
    return [
        {"input_ids": ids, "attention_mask": [1] * len(ids), **{name: values[i] for name, values in columns.items()}}
        for i, ids in enumerate(encoded["input_ids"])
    ]


LABELS = {
    "DataCollatorWithPadding": {"label": [0, 1, 2, 1, 0]},
    "DataCollatorForTokenClassification": None,  # a label for each token
    "DataCollatorForSeq2Seq": None,
    "DataCollatorForLanguageModeling": {},
}


@pytest.mark.parametrize("name", LABELS)
def test_batches_are_those_of_transformers(tokenizer, name):
    labels = LABELS[name]
    rows = rows_of(tokenizer, **(labels or {}))
    if labels is None:
        rows = [row | {"labels": list(range(len(row["input_ids"])))} for row in rows]
    options = {"mlm": False} if name == "DataCollatorForLanguageModeling" else {}
    batch = getattr(collators, name)(tokenizer, **options)(rows)
    theirs = transformers.AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    expected = getattr(transformers, name)(theirs, **options, return_tensors="np")(rows)
    assert set(batch) == set(expected)
    for key, value in expected.items():
        assert tf.is_tensor(batch[key]) and batch[key].dtype == tf.int32, key
        np.testing.assert_array_equal(batch[key], value)


def test_other_kinds_of_tensors(tokenizer):
    collator = collators.DataCollatorWithPadding(tokenizer, return_tensors="np")
    assert isinstance(collator(rows_of(tokenizer))["input_ids"], np.ndarray)
    assert tf.is_tensor(collator(rows_of(tokenizer), return_tensors="tf")["input_ids"])
    assert collator.return_tensors == "np"
    with pytest.raises(ValueError, match="different lengths"):
        collators.DefaultDataCollator()(rows_of(tokenizer))


@pytest.mark.parametrize("name", ["DataCollatorForLanguageModeling", "DataCollatorForWholeWordMask"])
def test_masks_differ_by_batch_and_repeat_by_seed(tokenizer, name):
    def drawn(seed):
        collator = getattr(collators, name)(tokenizer, mlm_probability=0.4, seed=seed)
        options = {"return_offsets_mapping": True} if "WholeWord" in name else {}
        encoded = tokenizer(TEXTS, padding=True, **options)
        rows = [{key: values[i] for key, values in encoded.items()} for i in range(len(TEXTS))]
        return [collator(rows) for _ in range(3)]

    first, second, other = drawn(3), drawn(3), drawn(4)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a["input_ids"], b["input_ids"])
    assert any((a["input_ids"].numpy() != b["input_ids"].numpy()).any() for a, b in zip(first, other, strict=True))
    assert (first[0]["input_ids"].numpy() != first[1]["input_ids"].numpy()).any()
    masked = first[0]["labels"].numpy() != -100
    assert 0 < masked.mean() < 0.8
    plain = collators.DataCollatorWithPadding(tokenizer)(rows_of(tokenizer))["input_ids"].numpy()
    np.testing.assert_array_equal(first[0]["labels"].numpy()[masked], plain[masked])


def test_whole_words_are_masked_in_a_data_set(tokenizer):
    encoded = tokenizer(TEXTS, padding=True, return_offsets_mapping=True, return_special_tokens_mask=True)
    rows = [{name: values[place] for name, values in encoded.items()} for place in range(len(TEXTS))]
    collator = collators.DataCollatorForWholeWordMask(tokenizer, mlm_probability=0.5, seed=0)
    batches = prepare_tf_dataset(rows, ["input_ids", "attention_mask"], ["labels"], 5, False, collate_fn=collator)
    inputs, labels = next(iter(batches))
    assert set(inputs) == {"input_ids", "attention_mask"} and (labels.numpy() != -100).any()


def test_choices_are_padded_together(tokenizer):
    rows = [
        {"input_ids": [ids, ids[:2]], "attention_mask": [[1] * len(ids), [1, 1]], "label": 1}
        for ids in tokenizer(TEXTS)["input_ids"]
    ]
    batch = collators.DataCollatorForMultipleChoice(tokenizer)(rows)
    with pytest.raises(ValueError, match="return_tensors is 'pt', but has to be one of 'tf', 'np'"):
        collators.DataCollatorForMultipleChoice(tokenizer, return_tensors="pt")(rows)
    length = max(len(row["input_ids"][0]) for row in rows)
    assert batch["input_ids"].shape == (5, 2, length) and batch["labels"].numpy().tolist() == [1] * 5
    for row, ids, mask in zip(rows, batch["input_ids"].numpy(), batch["attention_mask"].numpy(), strict=True):
        for choice in range(2):
            assert ids[choice][: mask[choice].sum()].tolist() == row["input_ids"][choice]


def test_decoder_inputs_come_from_labels(tokenizer):
    model = ours("TFT5ForConditionalGeneration", checkpoint("TFT5ForConditionalGeneration"))
    rows = [row | {"labels": [5, 6, 7][: i % 3 + 1]} for i, row in enumerate(rows_of(tokenizer))]
    batch = collators.DataCollatorForSeq2Seq(tokenizer, model=model)(rows)
    theirs = transformers.T5ForConditionalGeneration(model.config)
    import torch

    expected = theirs.prepare_decoder_input_ids_from_labels(torch.tensor(batch["labels"].numpy()).long())
    np.testing.assert_array_equal(batch["decoder_input_ids"], expected)


def datasets_of(tokenizer):
    """The same rows in every kind of container."""
    import datasets
    import pandas

    rows = [row | {"label": i, "text": TEXTS[i]} for i, row in enumerate(rows_of(tokenizer))]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "list": rows,
        "columns": columns,
        "BatchEncoding": transformers.BatchEncoding(columns),
        "DataFrame": pandas.DataFrame(columns),
        "datasets.Dataset": datasets.Dataset.from_list(rows),
    }


def test_every_row_once_from_every_container(tokenizer):
    model = TFBertForSequenceClassification.from_config(
        transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
    )
    for kind, rows in datasets_of(tokenizer).items():
        made = model.prepare_tf_dataset(rows, 2, shuffle=False, tokenizer=tokenizer)
        assert len(made) == 3, kind
        batches = list(made.as_numpy_iterator())
        assert [label for _, labels in batches for label in labels] == [0, 1, 2, 3, 4], kind
        for inputs, labels in batches:
            assert set(inputs) == set(INPUTS), kind
            for ids, mask, label in zip(inputs["input_ids"], inputs["attention_mask"], labels, strict=True):
                assert ids[: mask.sum()].tolist() == tokenizer(TEXTS[label])["input_ids"], kind
        longest = [max(len(tokenizer(TEXTS[label])["input_ids"]) for label in labels) for _, labels in batches]
        assert [inputs["input_ids"].shape[1] for inputs, _ in batches] == longest, kind


def test_orders(tokenizer):
    rows = rows_of(tokenizer, TEXTS * 4, label=list(range(20)))

    def epochs(seed, **options):
        made = prepare_tf_dataset(rows, INPUTS, ["labels"], 3, tokenizer=tokenizer, seed=seed, **options)
        return [[int(label) for _, labels in made for label in labels] for _ in range(2)]

    first, second = epochs(1, drop_remainder=False)
    assert sorted(first) == sorted(second) == list(range(20)) and first != second
    assert epochs(1, drop_remainder=False) == [first, second] != epochs(2, drop_remainder=False)
    drawn = []
    for seed in (7, 7, 8):
        keras.utils.set_random_seed(seed)
        drawn += [epochs(None), epochs(None)]
    assert drawn[:2] == drawn[2:4] != drawn[4:] and drawn[0] != drawn[1]
    assert [len(epoch) for epoch in epochs(1)] == [18, 18]  # as in transformers 4, a shuffled epoch leaves the rest out
    assert epochs(1, shuffle=False)[0] == list(range(20))


@pytest.mark.slow
def test_a_model_is_trained_evaluated_and_predicts(tokenizer):
    keras.utils.set_random_seed(0)
    model = TFBertForSequenceClassification.from_config(
        transformers.BertConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=16, num_attention_heads=2, num_hidden_layers=1,
            intermediate_size=16, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    rows = rows_of(tokenizer, TEXTS * 4, label=[i % 2 for i in range(20)])
    made = model.prepare_tf_dataset(rows, 4, tokenizer=tokenizer, seed=1)
    model.compile(keras.optimizers.Adam(1e-2), metrics=["accuracy"])
    history = model.fit(made, validation_data=made, epochs=8, verbose=0).history
    assert len(history["val_loss"]) == 8 and history["val_loss"][-1] < history["val_loss"][0]
    rows = [{"input_ids": row["input_ids"]} for row in rows]
    unlabelled = model.prepare_tf_dataset(rows, 8, False, tokenizer=tokenizer)
    assert model.predict(unlabelled, verbose=0)["logits"].shape == (20, 2)


def test_labels_of_their_own_names(tokenizer):
    rows = rows_of(tokenizer, start_positions=[0, 1, 2, 0, 1], end_positions=[1, 2, 3, 1, 2])
    made = prepare_tf_dataset(rows, INPUTS, ["start_positions", "end_positions"], 5, False, tokenizer)
    [(inputs, labels)] = made
    assert set(inputs) == set(INPUTS) and labels["end_positions"].numpy().tolist() == [1, 2, 3, 1, 2]


def test_what_makes_no_data_set(tokenizer):
    with pytest.raises(ValueError, match="no rows"):
        prepare_tf_dataset([], INPUTS)
    with pytest.raises(ValueError, match="Tokenize"):
        prepare_tf_dataset([{"text": "abc"}], INPUTS)
    with pytest.raises(TypeError, match="generator"):
        prepare_tf_dataset((row for row in ()), INPUTS)
    with pytest.raises(ValueError, match="batch_size"):
        prepare_tf_dataset(rows_of(tokenizer), INPUTS, batch_size=0)
    with pytest.raises(ValueError, match="do not fill"):
        prepare_tf_dataset(rows_of(tokenizer), INPUTS, batch_size=9, drop_remainder=True, tokenizer=tokenizer)
    for name, labels in (("label", list("abcde")), ("labels", [["a", "b"]] * 5)):
        with pytest.raises(ValueError, match="labels are strings, such as 'a', .*label2id.*data.prepare"):
            prepare_tf_dataset(rows_of(tokenizer, **{name: labels}), INPUTS, ["labels"], tokenizer=tokenizer)
    with pytest.raises(ValueError, match="different lengths"):  # neither a tokenizer nor rows of one length
        prepare_tf_dataset(rows_of(tokenizer), INPUTS)


def test_collators_of_datasets(tokenizer):
    """``datasets.Dataset.to_tf_dataset``, as the course has it."""
    dataset = datasets_of(tokenizer)["datasets.Dataset"]
    made = dataset.to_tf_dataset(
        columns=list(INPUTS), label_cols=["labels"], batch_size=2, shuffle=False,
        collate_fn=collators.DataCollatorWithPadding(tokenizer, return_tensors="tf"),
    )  # fmt: skip
    assert [label for _, labels in made.as_numpy_iterator() for label in labels] == [0, 1, 2, 3, 4]
