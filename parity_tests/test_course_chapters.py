"""What chapters 2, 3 and 7 of the Hugging Face course do with TensorFlow in ``transformers`` 4, with other imports.

The calls, their arguments and their order are those of the course; functions are written anew, data sets and models are
small, and learning rates are high enough for these to learn in seconds.
"""

import collections
import itertools
import json
import math

import keras
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
import torch
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value, concatenate_datasets
from tokenizers import decoders
from tqdm import tqdm

import tf_pipeline
from parity_tests import tokenizer_stacks
from parity_tests.checkpoint_helpers import new_folder
from parity_tests.pipeline_helpers import assert_same_answers, tiny_with_tokenizer, torch_pipeline
from parity_tests.sentences import film_reviews
from parity_tests.tiny import random_checkpoint
from tf_pipeline import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    PushToHubCallback,
    TFAutoModel,
    TFAutoModelForMaskedLM,
    TFAutoModelForQuestionAnswering,
    TFAutoModelForSeq2SeqLM,
    TFAutoModelForSequenceClassification,
    TFAutoModelForTokenClassification,
    TFBertModel,
    TFGPT2LMHeadModel,
    create_optimizer,
    pipeline,
)
from tf_pipeline.metrics import span_scores, squad

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


# ---------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def bert():
    """The folder of a small BERT for masked words with a cased tokenizer."""
    pieces = tokenizer_stacks.bert(lowercase=False)
    pieces.decoder = decoders.WordPiece()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    return str(
        tiny_with_tokenizer(
            "TFBertForMaskedLM", tokenizer, 0.1, num_hidden_layers=1, max_position_embeddings=128, **NO_DROPOUT
        )
    )


@pytest.fixture
def pushed(monkeypatch):
    """What ``PushToHubCallback`` would upload: the folder, the repository and the message of each time."""
    uploads = []
    monkeypatch.setattr(
        "tf_pipeline.callbacks.push_folder", lambda *values, **options: uploads.append(values[:3]), raising=True
    )
    return uploads


@pytest.fixture(autouse=True)
def float32_again():
    """Seed all draws, and take back the policy of a test."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


# --------------------------------------------------------------------------------------------------------- chapter 2


def test_chapter_2_stages(bert, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    texts = ["A lovely film, though it is long.", "Bad."]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="tf")
    assert TFAutoModel.from_pretrained(bert)(inputs).last_hidden_state.shape == (2, inputs["input_ids"].shape[1], 32)
    model = TFAutoModelForSequenceClassification.from_pretrained(bert)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    predictions = tf.math.softmax(model(inputs).logits, axis=-1).numpy()
    answers = pipeline("sentiment-analysis", model=str(tmp_path))(texts)
    for answer, scores in zip(answers, predictions, strict=True):
        assert answer["label"] == model.config.id2label[int(scores.argmax())]
        assert answer["score"] == pytest.approx(scores.max(), abs=1e-5)


def test_chapter_2_batches_by_hand(bert, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model = TFAutoModelForSequenceClassification.from_pretrained(bert)
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("A lovely film."))
    assert tokenizer.decode(ids) == "A lovely film."
    with pytest.raises(ValueError, match="batch"):
        model(tf.constant(ids))
    alone = [model(tf.constant([row])).logits.numpy()[0] for row in ([200, 200, 200], [200, 200])]
    batched = tf.constant([[200, 200, 200], [200, 200, tokenizer.pad_token_id]])
    masked = model(batched, attention_mask=tf.constant([[1, 1, 1], [1, 1, 0]])).logits.numpy()
    np.testing.assert_allclose(masked, alone, atol=1e-5)
    assert np.abs(model(batched).logits.numpy() - alone).max() > 1e-3
    for kind, of in (("tf", tf.Tensor), ("np", np.ndarray), ("pt", torch.Tensor)):
        assert isinstance(tokenizer(["A", "A film"], padding=True, return_tensors=kind)["input_ids"], of)


def test_chapter_2_a_model_of_a_config(tmp_path):
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = TFBertModel(config)
    ids = tf.constant([[1, 5, 9, 2], [1, 6, 9, 2]])
    output = model(ids)
    model.save_pretrained(tmp_path)
    again = TFBertModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(ids).last_hidden_state, output.last_hidden_state)


# --------------------------------------------------------------------------------------------------------- chapter 3


def sentence_pairs() -> DatasetDict:
    """Sentences and what is said of them: the same again (1), or the contrary."""
    texts = [text for text in film_reviews() if len(text) < 60][:17]
    rows = [
        {
            "sentence1": text,
            "sentence2": f"I never said: {text}" if place % 2 else text,
            "label": 1 - place % 2,
            "idx": place,
        }
        for place, text in enumerate(text for text in texts for _ in range(2))
    ]
    return DatasetDict({"train": Dataset.from_list(rows[:24]), "validation": Dataset.from_list(rows[24:])})


def test_chapter_3_batches(bert):
    raw_datasets = sentence_pairs()
    tokenizer = AutoTokenizer.from_pretrained(bert)
    columns = raw_datasets["train"]["sentence1"], raw_datasets["train"]["sentence2"]
    whole = tokenizer(*columns, padding=True, truncation=True)
    assert whole["input_ids"] == tokenizer(*map(list, columns), padding=True, truncation=True)["input_ids"]
    tokenized_datasets = raw_datasets.map(
        lambda rows: tokenizer(rows["sentence1"], rows["sentence2"], truncation=True), batched=True
    )
    data_collator = DataCollatorWithPadding(tokenizer=tokenizer, return_tensors="tf")
    samples = tokenized_datasets["train"][:8]
    samples = {k: v for k, v in samples.items() if k not in ["idx", "sentence1", "sentence2"]}
    batch = data_collator(samples)
    longest = max(map(len, samples["input_ids"]))
    assert {k: v.shape for k, v in batch.items()} == {
        **dict.fromkeys(["attention_mask", "input_ids", "token_type_ids"], (8, longest)), "labels": (8,),
    }  # fmt: skip
    padded = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    for row, mask, ids in zip(*padded, samples["input_ids"], strict=True):
        assert row[mask == 1].tolist() == ids and set(row[mask == 0]) <= {tokenizer.pad_token_id}


def pairs_for_keras(tokenizer, raw_datasets):
    """Both splits as the course batches them."""

    def tokenize_function(example):
        return tokenizer(example["sentence1"], example["sentence2"], truncation=True)

    tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
    data_collator = DataCollatorWithPadding(tokenizer=tokenizer, return_tensors="tf")
    return [
        tokenized_datasets[split].to_tf_dataset(
            columns=["attention_mask", "input_ids", "token_type_ids"],
            label_cols=["labels"],
            shuffle=shuffle,
            collate_fn=data_collator,
            batch_size=8,
        )
        for split, shuffle in (("train", True), ("validation", False))
    ]


def test_chapter_3_training(bert, tmp_path):
    raw_datasets, tokenizer = sentence_pairs(), AutoTokenizer.from_pretrained(bert)
    tf_train_dataset, tf_validation_dataset = pairs_for_keras(tokenizer, raw_datasets)
    truth = np.array(raw_datasets["validation"]["label"])
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in tf_validation_dataset]), truth)
    num_epochs = 3
    num_train_steps = len(tf_train_dataset) * num_epochs
    lr_scheduler = keras.optimizers.schedules.PolynomialDecay(
        initial_learning_rate=1e-2, end_learning_rate=0.0, decay_steps=num_train_steps
    )
    opt = tf.keras.optimizers.Adam(learning_rate=lr_scheduler)
    model = TFAutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=opt, loss=loss, metrics=["accuracy"])
    history = model.fit(tf_train_dataset, validation_data=tf_validation_dataset, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] and float(opt.learning_rate) == 0.0
    preds = model.predict(tf_validation_dataset, verbose=0)["logits"]
    class_preds = np.argmax(preds, axis=1)
    assert preds.shape == (10, 2) and np.mean(class_preds == truth) == pytest.approx(history["val_accuracy"][-1])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    answers = pipeline("text-classification", model=str(tmp_path))(
        [{"text": row["sentence1"], "text_pair": row["sentence2"]} for row in raw_datasets["validation"]]
    )
    assert [answer["label"] for answer in answers] == [model.config.id2label[place] for place in class_preds.tolist()]


@pytest.mark.slow
def test_chapter_3_training_by_names(bert):
    """The first trials of the chapter: losses and optimizers by name, and one batch."""
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model = TFAutoModelForSequenceClassification.from_pretrained(bert)
    batch = dict(tokenizer(["A lovely film.", "Bad."], padding=True, truncation=True, return_tensors="tf"))
    with pytest.warns(UserWarning, match="from_logits"):
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    assert np.isfinite(model.train_on_batch(batch, tf.convert_to_tensor([1, 1])))
    tf_train_dataset, tf_validation_dataset = pairs_for_keras(tokenizer, sentence_pairs())
    model.compile(
        optimizer="adam",
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    first = model.evaluate(tf_train_dataset, verbose=0)[0]
    model.fit(tf_train_dataset, validation_data=tf_validation_dataset, epochs=10, verbose=0)
    assert model.evaluate(tf_train_dataset, verbose=0)[0] < first


# ------------------------------------------------------------------------------- chapter 7: classes of the tokens


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
PEOPLE, PLACES = ["Spielberg", "Todd Solondz", "Bullock", "Morton"], ["Afghanistan", "New York", "Metropolis", "Paris"]


def tagged_words() -> DatasetDict:
    """Sentences as words with a tag each."""
    rows = []
    for person, place in itertools.product(PEOPLE, PLACES):
        parts = [(person, 1), ("makes films in", 0), (place, 3), (".", 0)]
        words = [(word, tag + (1 if tag and i else 0)) for text, tag in parts for i, word in enumerate(text.split())]
        rows.append({"tokens": [word for word, _ in words], "ner_tags": [tag for _, tag in words]})
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=TAGS))})
    made = {"train": rows, "validation": rows[::5]}
    return DatasetDict({split: Dataset.from_list(part, features=features) for split, part in made.items()})


def aligned(labels, word_ids):
    """A label for each token: that of its word, as inside where a word goes on, and -100 of special tokens."""
    new_labels = []
    for before, word in itertools.pairwise([None, *word_ids]):
        label = -100 if word is None else labels[word]
        new_labels.append(label + 1 if word is not None and word == before and label % 2 else label)
    return new_labels


def tokens_and_labels(tokenizer, raw_datasets):
    def tokenize_and_align_labels(examples):
        tokenized_inputs = tokenizer(examples["tokens"], truncation=True, is_split_into_words=True)
        tokenized_inputs["labels"] = [
            aligned(labels, tokenized_inputs.word_ids(i)) for i, labels in enumerate(examples["ner_tags"])
        ]
        return tokenized_inputs

    return raw_datasets.map(tokenize_and_align_labels, batched=True, remove_columns=raw_datasets["train"].column_names)


def test_chapter_7_labels_of_tokens(bert):
    raw_datasets = tagged_words()
    tokenizer = AutoTokenizer.from_pretrained(bert)
    assert tokenizer.is_fast and raw_datasets["train"].features["ner_tags"].feature.names == TAGS
    inputs = tokenizer(raw_datasets["train"][1]["tokens"], is_split_into_words=True)
    assert len(inputs.tokens()) == len(inputs.word_ids())
    tokenized_datasets = tokens_and_labels(tokenizer, raw_datasets)
    data_collator = DataCollatorForTokenClassification(tokenizer=tokenizer, return_tensors="tf")
    batch = data_collator([tokenized_datasets["train"][i] for i in range(2)])
    for i, row in enumerate(batch["labels"].numpy().tolist()):
        labels = tokenized_datasets["train"][i]["labels"]
        assert row == labels + [-100] * (len(row) - len(labels)) and labels[0] == labels[-1] == -100
        words = raw_datasets["train"][i]["tokens"]
        whole = tokenizer(words, is_split_into_words=True).word_ids()
        first = [labels[whole.index(place)] for place in range(len(words))]
        assert first == raw_datasets["train"][i]["ner_tags"]


@pytest.mark.slow
def test_chapter_7_token_classification(bert, tmp_path, pushed):
    raw_datasets, tokenizer = tagged_words(), AutoTokenizer.from_pretrained(bert)
    label_names = raw_datasets["train"].features["ner_tags"].feature.names
    tokenized_datasets = tokens_and_labels(tokenizer, raw_datasets)
    data_collator = DataCollatorForTokenClassification(tokenizer=tokenizer, return_tensors="tf")
    tf_train_dataset, tf_eval_dataset = (
        tokenized_datasets[split].to_tf_dataset(
            columns=["attention_mask", "input_ids", "labels", "token_type_ids"],
            collate_fn=data_collator,
            shuffle=shuffle,
            batch_size=16,
        )
        for split, shuffle in (("train", True), ("validation", False))
    )
    id2label = {i: label for i, label in enumerate(label_names)}
    label2id = {v: k for k, v in id2label.items()}
    model = TFAutoModelForTokenClassification.from_pretrained(bert, id2label=id2label, label2id=label2id)
    assert model.config.num_labels == 5
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    num_epochs = 25
    num_train_steps = len(tf_train_dataset) * num_epochs
    optimizer, schedule = create_optimizer(
        init_lr=1e-2, num_warmup_steps=0, num_train_steps=num_train_steps, weight_decay_rate=0.01
    )
    model.compile(optimizer=optimizer)
    callback = PushToHubCallback(output_dir=tmp_path / "finetuned-ner", tokenizer=tokenizer)
    history = model.fit(
        tf_train_dataset, validation_data=tf_eval_dataset, callbacks=[callback], epochs=num_epochs, verbose=0
    ).history
    assert history["val_loss"][-1] < history["val_loss"][0] / 5
    assert len(pushed) == num_epochs + 1 and pushed[-1][1:] == ("finetuned-ner", "End of training")

    all_predictions, all_labels = [], []
    for batch in tf_eval_dataset:
        logits = model.predict_on_batch(batch)["logits"]
        predictions = np.argmax(logits, axis=-1)
        for prediction, label in zip(predictions, batch["labels"], strict=True):
            for predicted_idx, label_idx in zip(prediction, label, strict=True):
                if label_idx == -100:
                    continue
                all_predictions.append(label_names[predicted_idx])
                all_labels.append(label_names[label_idx])
    assert span_scores([all_predictions], [all_labels])["f1"] == 1.0

    token_classifier = pipeline("token-classification", model=str(pushed[-1][0]), aggregation_strategy="simple")
    answers = token_classifier("Bullock makes films in New York .")
    assert [(one["entity_group"], one["word"]) for one in answers] == [("PER", "Bullock"), ("LOC", "New York")]
    keras.config.set_dtype_policy("float32")
    theirs = torch_pipeline("token-classification", pushed[-1][0], aggregation_strategy="simple")
    ours = pipeline("token-classification", model=str(pushed[-1][0]), aggregation_strategy="simple")
    for text in ("Bullock makes films in New York .", "Morton is in Paris ."):
        assert_same_answers(ours(text), theirs(text), 1e-5)


# ------------------------------------------------------------------------------- chapter 7: masked language models

CHUNK_SIZE = 16


def tokenize_with_words(tokenizer, texts):
    """Rows with the number of the word of each token."""

    def tokenize_function(examples):
        result = tokenizer(examples["text"])
        if tokenizer.is_fast:
            result["word_ids"] = [result.word_ids(i) for i in range(len(result["input_ids"]))]
        return result

    return texts.map(tokenize_function, batched=True, remove_columns=["text", "label"])


def group_texts(examples):
    """Chunks of one length of all texts in a row; the rest is left out."""
    joined = {k: list(itertools.chain.from_iterable(parts)) for k, parts in examples.items()}
    length = len(joined["input_ids"]) // CHUNK_SIZE * CHUNK_SIZE
    result = {k: [t[i : i + CHUNK_SIZE] for i in range(0, length, CHUNK_SIZE)] for k, t in joined.items()}
    result["labels"] = result["input_ids"].copy()
    return result


def chunks_of_reviews(tokenizer):
    texts = DatasetDict({"train": Dataset.from_dict({"text": film_reviews()[:60], "label": [0] * 60})})
    return tokenize_with_words(tokenizer, texts).map(group_texts, batched=True)


def whole_word_collator(tokenizer, probability):
    """A function of one's own that masks whole words, as the course has one."""

    def collate(features):
        for feature in features:
            word_ids = feature.pop("word_ids")
            mapping = collections.defaultdict(list)
            starts = itertools.accumulate(
                word is not None and word != before for before, word in itertools.pairwise([None, *word_ids])
            )
            for idx, (word, number) in enumerate(zip(word_ids, starts, strict=True)):
                if word is not None:
                    mapping[number].append(idx)
            labels, new_labels = feature["labels"], [-100] * len(feature["labels"])
            for draw, places in zip(np.random.binomial(1, probability, len(mapping)), mapping.values(), strict=True):
                for idx in places if draw else ():
                    new_labels[idx] = labels[idx]
                    feature["input_ids"][idx] = tokenizer.mask_token_id
            feature["labels"] = new_labels
        return tf_pipeline.tf_default_data_collator(features)

    return collate


def test_chapter_7_masks(bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    lm_datasets = chunks_of_reviews(tokenizer)
    assert {len(ids) for ids in lm_datasets["train"]["input_ids"]} == {CHUNK_SIZE}
    data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
    samples = [lm_datasets["train"][i] for i in range(2)]
    for sample in samples:
        _ = sample.pop("word_ids")
    batch = data_collator(samples)
    assert tf.is_tensor(batch["input_ids"]) and batch["labels"].shape == (2, CHUNK_SIZE)
    hidden = batch["labels"].numpy() != -100
    np.testing.assert_array_equal(batch["labels"].numpy()[hidden], np.array([s["labels"] for s in samples])[hidden])
    assert isinstance(tokenizer.decode(batch["input_ids"][0]), str)

    samples = [lm_datasets["train"][i] for i in range(20)]
    batch = whole_word_collator(tokenizer, 0.2)(samples)
    for i in range(20):
        row = lm_datasets["train"][i]
        hidden = batch["labels"][i].numpy() != -100
        np.testing.assert_array_equal(hidden, batch["input_ids"][i].numpy() == tokenizer.mask_token_id)
        for before, after in itertools.pairwise(range(CHUNK_SIZE)):  # words are hidden as a whole
            if row["word_ids"][before] == row["word_ids"][after] is not None:
                assert hidden[before] == hidden[after]
    assert 0 < (batch["labels"].numpy() != -100).mean() < 0.6


def test_chapter_7_words_of_ones_own_collator(bert):
    """Its exercise: the function asks for a column that models do not take."""
    tokenizer, model = AutoTokenizer.from_pretrained(bert), TFAutoModelForMaskedLM.from_pretrained(bert)
    lm_datasets = chunks_of_reviews(tokenizer)
    made = model.prepare_tf_dataset(
        lm_datasets["train"], collate_fn=whole_word_collator(tokenizer, 0.5), shuffle=True, batch_size=32
    )
    inputs, labels = next(iter(made))
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    np.testing.assert_array_equal(labels.numpy() != -100, inputs["input_ids"].numpy() == tokenizer.mask_token_id)


@pytest.mark.slow
def test_chapter_7_masked_language_model(bert, tmp_path, pushed):
    tokenizer, model = AutoTokenizer.from_pretrained(bert), TFAutoModelForMaskedLM.from_pretrained(bert)
    model.summary(print_fn=lambda *_: None)
    text = "This is a great [MASK]."
    inputs = tokenizer(text, return_tensors="np")
    token_logits = model(**inputs).logits
    mask_token_index = np.argwhere(inputs["input_ids"] == tokenizer.mask_token_id)[0, 1]
    mask_token_logits = token_logits[0, mask_token_index, :]
    top_5_tokens = np.argsort(-mask_token_logits)[:5].tolist()
    expected = pipeline("fill-mask", model=bert)(text)
    assert [one["token"] for one in expected] == top_5_tokens
    assert [one["token_str"] for one in expected] == [tokenizer.decode([token]) for token in top_5_tokens]

    data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15, seed=0)
    downsampled_dataset = chunks_of_reviews(tokenizer)["train"].train_test_split(train_size=64, test_size=32, seed=42)
    tf_train_dataset = model.prepare_tf_dataset(
        downsampled_dataset["train"], collate_fn=data_collator, shuffle=True, batch_size=32
    )
    tf_eval_dataset = model.prepare_tf_dataset(
        downsampled_dataset["test"], collate_fn=data_collator, shuffle=False, batch_size=32
    )
    assert set(next(iter(tf_train_dataset))[0]) == {"input_ids", "attention_mask", "token_type_ids"}
    num_train_steps = len(tf_train_dataset)
    # An epoch of the course has fewer steps, too.
    with pytest.warns(UserWarning, match="2 steps ends within its 1000 steps of warm-up"):
        optimizer, schedule = create_optimizer(
            init_lr=1.0, num_warmup_steps=1_000, num_train_steps=num_train_steps, weight_decay_rate=0.01
        )
    model.compile(optimizer=optimizer)
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    callback = PushToHubCallback(output_dir=tmp_path / "finetuned-imdb", tokenizer=tokenizer)
    before = model.evaluate(tf_eval_dataset, verbose=0)
    model.fit(tf_train_dataset, validation_data=tf_eval_dataset, callbacks=[callback], epochs=8, verbose=0)
    eval_loss = model.evaluate(tf_eval_dataset, verbose=0)
    assert math.exp(eval_loss) < math.exp(before)
    preds = pipeline("fill-mask", model=str(pushed[-1][0]))(text)
    assert len(preds) == 5 and all(pred["sequence"] for pred in preds)


# --------------------------------------------------------------------------------------------- chapter 7: translation

PHRASES = [
    ("Default to expanded threads", "Par défaut, développer les fils"), ("Open the file", "Ouvrir le fichier"),
    ("Close the window", "Fermer la fenêtre"), ("Save as", "Enregistrer sous"), ("Print", "Imprimer"),
    ("The file is not there", "Le fichier n'est pas là"), ("Unable to import %1", "Impossible d'importer %1"),
    ("This window is open", "Cette fenêtre est ouverte"), ("Save the file", "Enregistrer le fichier"),
    ("Print the file", "Imprimer le fichier"),
]  # fmt: skip


@pytest.fixture(scope="module")
def marian():
    """The folder of a small Marian with its own tokenizer of two SentencePiece models."""
    folder = new_folder()
    for place, name in enumerate(("source", "target")):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([pair[place] for pair in PHRASES] * 5), model_prefix=str(folder / name),
            vocab_size=70, hard_vocab_limit=False, minloglevel=2, bos_id=-1, eos_id=0, unk_id=1, pad_id=-1,
        )  # fmt: skip
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
    pieces = [
        sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm")) for name in ("source", "target")
    ]
    known = dict.fromkeys(["</s>", "<unk>", *(one.id_to_piece(i) for one in pieces for i in range(len(one))), "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(known)}))
    tokenizer = transformers.MarianTokenizer(
        source_spm=str(folder / "source.spm"), target_spm=str(folder / "target.spm"), vocab=str(folder / "vocab.json"),
        source_lang="en", target_lang="fr", model_max_length=64,
    )  # fmt: skip
    config = transformers.MarianConfig(
        vocab_size=len(known), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128, dropout=0.0,
        pad_token_id=len(known) - 1, decoder_start_token_id=len(known) - 1, eos_token_id=0, forced_eos_token_id=0,
    )  # fmt: skip
    made = new_folder()
    random_checkpoint(made, "TFMarianMTModel", config, 0.1)
    tokenizer.save_pretrained(made)
    return str(made)


def translations(tokenizer, max_length=60):
    rows = [{"id": str(i), "translation": {"en": en, "fr": fr}} for i, (en, fr) in enumerate(PHRASES)]
    raw_datasets = DatasetDict({"train": Dataset.from_list(rows), "validation": Dataset.from_list(rows[:3])})

    def preprocess_function(examples):
        inputs = [ex["en"] for ex in examples["translation"]]
        targets = [ex["fr"] for ex in examples["translation"]]
        return tokenizer(inputs, text_target=targets, max_length=max_length, truncation=True)

    return raw_datasets.map(preprocess_function, batched=True, remove_columns=raw_datasets["train"].column_names)


def test_chapter_7_batches_of_translations(marian):
    tokenizer = AutoTokenizer.from_pretrained(marian, return_tensors="pt")
    inputs = tokenizer("Open the file", text_target="Ouvrir le fichier")
    assert inputs["labels"] != tokenizer("Ouvrir le fichier")["input_ids"]
    assert tokenizer.decode(inputs["labels"], skip_special_tokens=True) == "Ouvrir le fichier"
    assert tokenizer.convert_ids_to_tokens(inputs["labels"])[-1] == "</s>"
    tokenized_datasets = translations(tokenizer)
    model = TFAutoModelForSeq2SeqLM.from_pretrained(marian, from_pt=True)
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model, return_tensors="tf")
    batch = data_collator([tokenized_datasets["train"][i] for i in range(1, 3)])
    assert set(batch.keys()) == {"input_ids", "attention_mask", "labels", "decoder_input_ids"}
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(marian)
    expected = theirs.prepare_decoder_input_ids_from_labels(torch.tensor(batch["labels"].numpy()).long())
    np.testing.assert_array_equal(batch["decoder_input_ids"], expected)
    for i, row in enumerate(batch["labels"].numpy().tolist()):
        labels = tokenized_datasets["train"][i + 1]["labels"]
        assert row == labels + [-100] * (len(row) - len(labels))


@pytest.mark.slow
def test_chapter_7_translation(marian, tmp_path, pushed):
    tokenizer = AutoTokenizer.from_pretrained(marian, return_tensors="pt")
    model = TFAutoModelForSeq2SeqLM.from_pretrained(marian, from_pt=True)
    tokenized_datasets = translations(tokenizer)
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model, return_tensors="tf")
    tf_train_dataset = model.prepare_tf_dataset(
        tokenized_datasets["train"], collate_fn=data_collator, shuffle=True, batch_size=32, drop_remainder=False
    )
    tf_eval_dataset = model.prepare_tf_dataset(
        tokenized_datasets["validation"], collate_fn=data_collator, shuffle=False, batch_size=16
    )
    tf_generate_dataset = model.prepare_tf_dataset(
        tokenized_datasets["validation"],
        collate_fn=DataCollatorForSeq2Seq(tokenizer, model=model, return_tensors="tf", pad_to_multiple_of=16),
        shuffle=False,
        batch_size=8,
    )

    @tf.function(jit_compile=True)
    def generate_with_xla(batch):
        return model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=40)

    def written():
        all_preds, all_labels = [], []
        for batch, labels in tqdm(tf_generate_dataset):
            assert batch["input_ids"].shape[1] % 16 == 0
            predictions = generate_with_xla(batch)
            decoded_preds = tokenizer.batch_decode(predictions, skip_special_tokens=True)
            labels = labels.numpy()
            labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
            decoded_labels = tokenizer.batch_decode(labels, skip_special_tokens=True)
            all_preds.extend(pred.strip() for pred in decoded_preds)
            all_labels.extend(label.strip() for label in decoded_labels)
        return all_preds, all_labels

    preds, labels = written()
    assert labels == [fr for _, fr in PHRASES[:3]] and preds != labels
    num_epochs = 60
    num_train_steps = len(tf_train_dataset) * num_epochs
    optimizer, schedule = create_optimizer(
        init_lr=1e-2, num_warmup_steps=0, num_train_steps=num_train_steps, weight_decay_rate=0.01
    )
    model.compile(optimizer=optimizer)
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    callback = PushToHubCallback(output_dir=tmp_path / "finetuned-kde4", save_strategy="no", tokenizer=tokenizer)
    history = model.fit(
        tf_train_dataset, validation_data=tf_eval_dataset, callbacks=[callback], epochs=num_epochs, verbose=0
    ).history
    assert history["val_loss"][-1] < history["val_loss"][0] / 5
    preds, labels = written()
    assert preds == labels  # of functions that were compiled before the training
    keras.config.set_dtype_policy("float32")
    translator = pipeline("translation", model=str(pushed[-1][0]))
    assert [translator(en)[0]["translation_text"] for en, _ in PHRASES[:3]] == labels
    theirs = transformers.MarianMTModel.from_pretrained(pushed[-1][0]).eval()
    for en, fr in PHRASES[:3]:
        ids = theirs.generate(**tokenizer(en, return_tensors="pt"), max_new_tokens=40)
        assert tokenizer.decode(ids[0], skip_special_tokens=True) == fr


# ------------------------------------------------------------------------------------------- chapter 7: summarization


@pytest.fixture(scope="module")
def mt5():
    """The folder of a small mT5."""
    pieces = tokenizer_stacks.t5()
    pieces.decoder = decoders.Metaspace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=512
    )
    config = transformers.MT5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, dropout_rate=0.0,
        eos_token_id=1, pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    folder = new_folder()
    random_checkpoint(folder, "TFMT5ForConditionalGeneration", config, 0.1)
    tokenizer.save_pretrained(folder)
    return str(folder)


def books() -> DatasetDict:
    """Reviews with the title that their first words make, in two languages' data sets joined."""
    texts = [text for text in film_reviews() if 20 < len(text) < 60]
    rows = [
        {"review_body": text, "review_title": " ".join(text.split()[:3]), "product_category": ("book", "shoes")[i % 2]}
        for i, text in enumerate(texts[:24])
    ]

    def kept(part):
        return Dataset.from_list(part).filter(lambda example: example["product_category"] == "book")

    made = DatasetDict()
    for split, part in {"train": rows, "validation": rows[:8]}.items():
        made[split] = concatenate_datasets([kept(part[:4]), kept(part[4:])]).shuffle(seed=42)
    return made.filter(lambda x: len(x["review_title"].split()) > 2)


@pytest.mark.slow
def test_chapter_7_summarization(mt5, tmp_path, pushed):
    books_dataset, tokenizer = books(), AutoTokenizer.from_pretrained(mt5)
    books_dataset.set_format("pandas")
    assert set(books_dataset["train"][:]["product_category"].value_counts().index) == {"book"}
    books_dataset.reset_format()

    def preprocess_function(examples):
        model_inputs = tokenizer(examples["review_body"], max_length=64, truncation=True)
        labels = tokenizer(examples["review_title"], max_length=30, truncation=True)
        model_inputs["labels"] = labels["input_ids"]
        return model_inputs

    tokenized_datasets = books_dataset.map(preprocess_function, batched=True)
    model = TFAutoModelForSeq2SeqLM.from_pretrained(mt5)
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model, return_tensors="tf")
    tokenized_datasets = tokenized_datasets.remove_columns(books_dataset["train"].column_names)
    features = [tokenized_datasets["train"][i] for i in range(2)]
    assert set(data_collator(features)) == {"input_ids", "attention_mask", "labels", "decoder_input_ids"}
    tf_train_dataset = model.prepare_tf_dataset(
        tokenized_datasets["train"], collate_fn=data_collator, shuffle=True, batch_size=8
    )
    tf_eval_dataset = model.prepare_tf_dataset(
        tokenized_datasets["validation"], collate_fn=data_collator, shuffle=False, batch_size=8
    )
    num_train_epochs = 8
    num_train_steps = len(tf_train_dataset) * num_train_epochs
    optimizer, schedule = create_optimizer(
        init_lr=3e-2, num_warmup_steps=0, num_train_steps=num_train_steps, weight_decay_rate=0.01
    )
    model.compile(optimizer=optimizer)
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    callback = PushToHubCallback(output_dir=tmp_path / "finetuned-amazon", save_strategy="no", tokenizer=tokenizer)
    history = model.fit(
        tf_train_dataset, validation_data=tf_eval_dataset, callbacks=[callback], epochs=8, verbose=0
    ).history
    assert history["val_loss"][-1] < history["val_loss"][0]

    generation_data_collator = DataCollatorForSeq2Seq(
        tokenizer, model=model, return_tensors="tf", pad_to_multiple_of=32
    )
    tf_generate_dataset = model.prepare_tf_dataset(
        tokenized_datasets["validation"], collate_fn=generation_data_collator, shuffle=False, batch_size=2,
        drop_remainder=True,
    )  # fmt: skip

    @tf.function(jit_compile=True)
    def generate_with_xla(batch):
        return model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=12)

    all_preds, all_labels = [], []
    for batch, labels in tqdm(tf_generate_dataset):
        assert batch["input_ids"].shape == (2, 32)
        all_preds.extend(tokenizer.batch_decode(generate_with_xla(batch), skip_special_tokens=True))
        labels = np.where(labels.numpy() != -100, labels.numpy(), tokenizer.pad_token_id)
        all_labels.extend(tokenizer.batch_decode(labels, skip_special_tokens=True))
    validation = books_dataset["validation"]
    assert all_labels == validation["review_title"][: len(all_labels)]
    keras.config.set_dtype_policy("float32")
    summarizer = pipeline("summarization", model=str(pushed[-1][0]))
    theirs = transformers.MT5ForConditionalGeneration.from_pretrained(pushed[-1][0]).eval()
    for text, pred in zip(validation["review_body"], all_preds, strict=False):
        assert summarizer(text, max_new_tokens=12, num_beams=1)[0]["summary_text"].strip() == pred.strip()
        ids = theirs.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=12)
        assert tokenizer.decode(ids[0], skip_special_tokens=True) == pred


# ---------------------------------------------------------------------------------- chapter 7: a causal language model

CONTEXT_LENGTH = 32


def lines_of_code() -> DatasetDict:
    """Code in which few names come again and again."""
    code = "import pandas as pd\n" + "".join(f"x{i} = np.random.randn({i})\nplt.plot(x{i})\n" for i in range(60))
    return DatasetDict(
        {"train": Dataset.from_dict({"content": [code] * 3}), "valid": Dataset.from_dict({"content": [code]})}
    )


@pytest.fixture(scope="module")
def gpt2():
    """The folder of a tokenizer and of a config, as of ``gpt2``."""
    pieces = tokenizer_stacks.gpt2()
    pieces.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    folder = new_folder()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, bos_token=end, eos_token=end, unk_token=end, model_max_length=64
    ).save_pretrained(folder)
    transformers.GPT2Config(
        n_embd=32, n_layer=1, n_head=4, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ).save_pretrained(folder)
    return str(folder)


def chunks_of_code(tokenizer):
    def tokenize(element):
        outputs = tokenizer(
            element["content"],
            truncation=True,
            max_length=CONTEXT_LENGTH,
            return_overflowing_tokens=True,
            return_length=True,
        )
        kept = zip(outputs["length"], outputs["input_ids"], strict=True)
        return {"input_ids": [input_ids for length, input_ids in kept if length == CONTEXT_LENGTH]}

    raw_datasets = lines_of_code()
    return raw_datasets.map(tokenize, batched=True, remove_columns=raw_datasets["train"].column_names)


def test_chapter_7_chunks_of_code(gpt2):
    tokenizer = AutoTokenizer.from_pretrained(gpt2)
    outputs = tokenizer(
        lines_of_code()["train"][:2]["content"],
        truncation=True,
        max_length=CONTEXT_LENGTH,
        return_overflowing_tokens=True,
        return_length=True,
    )
    assert set(outputs["overflow_to_sample_mapping"]) == {0, 1} and max(outputs["length"]) == CONTEXT_LENGTH
    tokenized_datasets = chunks_of_code(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    data_collator = DataCollatorForLanguageModeling(tokenizer, mlm=False, return_tensors="tf")
    out = data_collator([tokenized_datasets["train"][i] for i in range(5)])
    assert {key: value.shape for key, value in out.items()} == dict.fromkeys(
        ["input_ids", "attention_mask", "labels"], (5, CONTEXT_LENGTH)
    )
    np.testing.assert_array_equal(out["labels"], out["input_ids"])


@pytest.mark.slow
def test_chapter_7_causal_language_model(gpt2, tmp_path, pushed):
    tokenizer = AutoTokenizer.from_pretrained(gpt2)
    tokenized_datasets = chunks_of_code(tokenizer)
    config = AutoConfig.from_pretrained(
        gpt2,
        vocab_size=len(tokenizer),
        n_ctx=CONTEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = TFGPT2LMHeadModel(config)
    model(model.dummy_inputs)
    printed = []
    model.summary(print_fn=lambda line, **_: printed.append(line))
    assert f"{model.count_params():,}" in "".join(printed)
    tokenizer.pad_token = tokenizer.eos_token
    data_collator = DataCollatorForLanguageModeling(tokenizer, mlm=False, return_tensors="tf")
    tf_train_dataset = model.prepare_tf_dataset(
        tokenized_datasets["train"], collate_fn=data_collator, shuffle=True, batch_size=8
    )
    tf_eval_dataset = model.prepare_tf_dataset(
        tokenized_datasets["valid"], collate_fn=data_collator, shuffle=False, batch_size=8
    )
    num_train_steps = len(tf_train_dataset) * 8
    optimizer, schedule = create_optimizer(
        init_lr=3e-2, num_warmup_steps=2, num_train_steps=num_train_steps, weight_decay_rate=0.01
    )
    model.compile(optimizer=optimizer)
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    callback = PushToHubCallback(output_dir=tmp_path / "codeparrot-ds", save_strategy="no", tokenizer=tokenizer)
    history = model.fit(
        tf_train_dataset, validation_data=tf_eval_dataset, callbacks=[callback], epochs=8, verbose=0
    ).history
    assert history["val_loss"][-1] < history["val_loss"][0] / 3
    keras.config.set_dtype_policy("float32")
    course_model = TFGPT2LMHeadModel.from_pretrained(pushed[-1][0])
    course_tokenizer = AutoTokenizer.from_pretrained(pushed[-1][0])
    with pytest.raises(ValueError, match="device 0 is not there; TensorFlow sees"):
        pipeline("text-generation", model=course_model, tokenizer=course_tokenizer, device=0)
    pipe = pipeline("text-generation", model=course_model, tokenizer=course_tokenizer, device=-1)
    text = "x7 = np.random"
    options = {"num_return_sequences": 1, "max_new_tokens": 12, "do_sample": False}
    written = pipe(text, **options)[0]["generated_text"]
    assert written.startswith("x7 = np.random.randn(")
    assert written == torch_pipeline("text-generation", pushed[-1][0])(text, **options)[0]["generated_text"]
    assert pipe(text, num_return_sequences=1)[0]["generated_text"].startswith(text)


# --------------------------------------------------------------------------------------- chapter 7: question answering


def questions() -> DatasetDict:
    """Questions about who and where, with the answers in a context that is longer than a window."""
    rows = []
    for i, (person, place) in enumerate(itertools.product(PEOPLE, PLACES)):
        context = f"Films are made in many places. {person} makes films in {place}. Nobody else does."
        for question, answer in ((" Who makes films?", person), ("Where are films made?", place)):
            answers = {"text": [answer], "answer_start": [context.index(answer)]}
            rows.append({"id": f"{i} {question}", "context": context, "question": question, "answers": answers})
    return DatasetDict({"train": Dataset.from_list(rows), "validation": Dataset.from_list(rows[:6])})


def windows(tokenizer, examples, max_length=24, stride=8):
    return tokenizer(
        [q.strip() for q in examples["question"]],
        examples["context"],
        max_length=max_length,
        truncation="only_second",
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
    )


def training_windows(tokenizer, dataset):
    """Windows with the first and the last token of the answer, or 0 and 0 where it is not in them as a whole."""

    def preprocess_training_examples(examples):
        inputs = windows(tokenizer, examples)
        offset_mapping, sample_map = inputs.pop("offset_mapping"), inputs.pop("overflow_to_sample_mapping")
        spans = []
        for i, offset in enumerate(offset_mapping):
            answer = examples["answers"][sample_map[i]]
            start_char = answer["answer_start"][0]
            end_char = start_char + len(answer["text"][0])
            context = [k for k, sequence in enumerate(inputs.sequence_ids(i)) if sequence == 1]
            if offset[context[0]][0] > start_char or offset[context[-1]][1] < end_char:
                spans.append((0, 0))
            else:
                first = max(k for k in context if offset[k][0] <= start_char)
                spans.append((first, min(k for k in context if offset[k][1] >= end_char)))
        inputs["start_positions"], inputs["end_positions"] = map(list, zip(*spans, strict=True))
        return inputs

    return dataset.map(preprocess_training_examples, batched=True, remove_columns=dataset.column_names)


def validation_windows(tokenizer, dataset):
    """Windows with the offsets of their context, ``None`` elsewhere, and the number of the question."""

    def preprocess_validation_examples(examples):
        inputs = windows(tokenizer, examples)
        sample_map = inputs.pop("overflow_to_sample_mapping")
        inputs["example_id"] = [examples["id"][place] for place in sample_map]
        inputs["offset_mapping"] = [
            [o if sequence == 1 else None for o, sequence in zip(offset, inputs.sequence_ids(i), strict=True)]
            for i, offset in enumerate(inputs["offset_mapping"])
        ]
        return inputs

    return dataset.map(preprocess_validation_examples, batched=True, remove_columns=dataset.column_names)


def best_answers(start_logits, end_logits, features, examples, n_best=20, max_answer_length=30):
    """The text of the best pair of positions for each question, of all of its windows."""
    example_to_features = collections.defaultdict(list)
    for idx, feature in enumerate(features):
        example_to_features[feature["example_id"]].append(idx)
    found = []
    for example in tqdm(examples):
        answers = [{"text": "", "logit_score": -math.inf}]
        for feature_index in example_to_features[example["id"]]:
            start_logit, end_logit = start_logits[feature_index], end_logits[feature_index]
            offsets = features[feature_index]["offset_mapping"]
            start_indexes, end_indexes = (
                np.argsort(logit)[-1 : -n_best - 1 : -1].tolist() for logit in (start_logit, end_logit)
            )
            for start, end in itertools.product(start_indexes, end_indexes):
                if offsets[start] is None or offsets[end] is None or not 0 <= end - start < max_answer_length:
                    continue
                text = example["context"][offsets[start][0] : offsets[end][1]]
                answers.append({"text": text, "logit_score": start_logit[start] + end_logit[end]})
        found.append(max(answers, key=lambda one: one["logit_score"])["text"])
    return found


def test_chapter_7_windows_of_questions(bert, tmp_path):
    raw_datasets, tokenizer = questions(), AutoTokenizer.from_pretrained(bert)
    assert not len(raw_datasets["train"].filter(lambda x: len(x["answers"]["text"]) != 1))
    train_dataset = training_windows(tokenizer, raw_datasets["train"])
    assert len(train_dataset) > len(raw_datasets["train"])
    texts = {
        tokenizer.decode(row["input_ids"][row["start_positions"] : row["end_positions"] + 1]) for row in train_dataset
    }
    assert texts - {"[CLS]"} == {*PEOPLE, *PLACES}
    model = TFAutoModelForQuestionAnswering.from_pretrained(bert)
    eval_set = validation_windows(tokenizer, raw_datasets["validation"])
    made = model.prepare_tf_dataset(
        eval_set, collate_fn=DefaultDataCollator(return_tensors="tf"), shuffle=False, batch_size=16
    )  # offsets, of which some are None, and numbers are left out
    inputs = next(iter(made))
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}

    eval_set_for_model = eval_set.remove_columns(["example_id", "offset_mapping"])
    eval_set_for_model.set_format("numpy")
    batch = {k: eval_set_for_model[k] for k in eval_set_for_model.column_names}
    outputs = model(**batch)
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs.eval()(**{name: torch.tensor(np.array(value)) for name, value in batch.items()})
    np.testing.assert_allclose(outputs.start_logits.numpy(), expected.start_logits, atol=1e-4)


@pytest.mark.slow
def test_chapter_7_question_answering(bert, tmp_path, pushed):
    raw_datasets, tokenizer = questions(), AutoTokenizer.from_pretrained(bert)
    train_dataset = training_windows(tokenizer, raw_datasets["train"])
    validation_dataset = validation_windows(tokenizer, raw_datasets["validation"])
    model = TFAutoModelForQuestionAnswering.from_pretrained(bert)
    data_collator = DefaultDataCollator(return_tensors="tf")
    tf_train_dataset = model.prepare_tf_dataset(train_dataset, collate_fn=data_collator, shuffle=True, batch_size=16)
    tf_eval_dataset = model.prepare_tf_dataset(
        validation_dataset, collate_fn=data_collator, shuffle=False, batch_size=16
    )
    num_train_epochs = 24  # so that every seed knows all answers
    num_train_steps = len(tf_train_dataset) * num_train_epochs
    optimizer, schedule = create_optimizer(
        init_lr=1e-2, num_warmup_steps=0, num_train_steps=num_train_steps, weight_decay_rate=0.01
    )
    model.compile(optimizer=optimizer)
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    callback = PushToHubCallback(output_dir=tmp_path / "finetuned-squad", save_strategy="no", tokenizer=tokenizer)
    history = model.fit(tf_train_dataset, callbacks=[callback], epochs=num_train_epochs, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 5
    predictions = model.predict(tf_eval_dataset, verbose=0)
    examples = raw_datasets["validation"]
    found = best_answers(predictions["start_logits"], predictions["end_logits"], validation_dataset, examples)
    assert squad(found, [ex["answers"]["text"] for ex in examples]) == {"exact_match": 1.0, "f1": 1.0}
    keras.config.set_dtype_policy("float32")
    question_answerer = pipeline("question-answering", model=str(pushed[-1][0]))
    options = {"max_seq_len": 24, "doc_stride": 8}
    for example in examples:
        answer = question_answerer(question=example["question"], context=example["context"], **options)
        assert answer["answer"] == example["answers"]["text"][0]


# ------------------------------------------------------------------------------------------ chapter 7: mixed precision


@pytest.mark.slow
def test_chapter_7_a_policy_before_the_model(bert, tmp_path):
    """The course sets it after the model is made, which then stays as it is; before, steps are of float16."""
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tf_train_dataset, tf_validation_dataset = pairs_for_keras(tokenizer, sentence_pairs())
    model = TFAutoModelForSequenceClassification.from_pretrained(bert)
    optimizer, schedule = create_optimizer(init_lr=1e-2, num_warmup_steps=0, num_train_steps=9, weight_decay_rate=0.01)
    model.compile(optimizer=optimizer, metrics=["accuracy"])
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    history = model.fit(tf_train_dataset, validation_data=tf_validation_dataset, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert model.predict(tf_validation_dataset, verbose=0)["logits"].dtype == np.float16
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.dtype == torch.float32 and int(model.optimizer.inner_optimizer.iterations) > 0
