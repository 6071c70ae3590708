"""``tf-pipeline train``: from rows of every task to a folder that PyTorch, the pipeline and ``parity`` take."""

import io
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from rich.console import Console
from typer.testing import CliRunner

from parity_tests.kill_helpers import write_files
from parity_tests.pipeline_helpers import (
    CONLL,
    SPECIFIC,
    decoder_checkpoint,
    encoder_decoder_checkpoint,
    labels_of,
    tiny_with_tokenizer,
)
from parity_tests.sentences import film_reviews
from parity_tests.tiers import exhaustive
from tf_pipeline import AutoTokenizer, pipeline
from tf_pipeline.checkpoint import checkpoint_folder
from tf_pipeline.cli.interruptions import InterruptedRunError
from tf_pipeline.cli.main import app
from tf_pipeline.data import prepare
from tf_pipeline.data.sources import RowError, rows_of
from tf_pipeline.data.tasks import Task
from tf_pipeline.finetuning import train
from tf_pipeline.finetuning.curve import learning_curve
from tf_pipeline.finetuning.labels import class_names, fitting, label_values
from tf_pipeline.finetuning.measures import callbacks_of, metrics_of
from tf_pipeline.finetuning.progress import EpochTable
from tf_pipeline.finetuning.train import RemainderStep, _keep_prefix, _replaced
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT
from tf_pipeline.pipelines.tasks import task_name

TEXTS = [text[:60] for text in film_reviews()[:12]]


@cache
def body(layers=2):
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    return tiny_with_tokenizer("TFBertModel", tokenizer, std=0.05, num_hidden_layers=layers)


def answers_of(text):
    word = text.split()[1]
    return {"text": [word], "answer_start": [text.index(word)]}


# Task: checkpoint, rows, options, and names of the numbers of an epoch besides the losses.
CASES = {
    "text-classification": (body, [{"text": t, "label": ["bad", "good"][i % 2]} for i, t in enumerate(TEXTS)], {},
                            {"accuracy", "f1"}),
    "regression": (body, [{"text": t, "label": i / 4} for i, t in enumerate(TEXTS)], {}, {"mean_absolute_error"}),
    "several labels": (body, [{"text": t, "label": [["a"], ["b", "c"], []][i % 3]} for i, t in enumerate(TEXTS)], {},
                       {"f1"}),
    "token-classification": (body, [{"tokens": t.split(), "labels": [CONLL[i % 3] for i in range(len(t.split()))]}
                                    for t in TEXTS], {}, {"f1", "precision", "recall", "accuracy"}),
    "question-answering": (body, [{"question": "Who?", "context": t, "answers": answers_of(t)} for t in TEXTS], {},
                           {"exact_match", "f1"}),
    "fill-mask": (body, [{"text": t} for t in TEXTS], {"data_options": {"mlm_probability": 0.5}},
                  {"accuracy", "perplexity"}),
    "text-generation": (decoder_checkpoint, [{"text": t} for t in TEXTS], {"data_options": {"pack": True}},
                        {"perplexity"}),
    "summarization": (encoder_decoder_checkpoint, [{"text": t, "target": t[:9]} for t in TEXTS],
                      {"data_options": {"prefix": "sum: "}, "max_length": 32},
                      {"perplexity", "rouge1", "rouge2", "rougeL", "rougeLsum"}),
    "translation_en_to_fr": (encoder_decoder_checkpoint, [{"text": t, "target": t[::-1]} for t in TEXTS],
                             {"max_length": 32}, {"perplexity"}),
}  # fmt: skip


def task_of(case):
    return "text-classification" if case in ("regression", "several labels") else case


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_is_trained_is_loaded_by_pytorch_and_the_pipeline(case, tmp_path):
    source, rows, options, names = CASES[case]
    task, output = task_of(case), tmp_path / "out"
    history = train(
        task, source(), rows, output, rows[:6], epochs=3, batch_size=4, learning_rate=3e-3, seed=1, **options
    )
    assert {name.removeprefix("val_") for name in history} == names | {"loss"}
    assert all(f"val_{name}" in history and len(history[f"val_{name}"]) == 3 for name in names)
    assert history["loss"][-1] < history["loss"][0]
    assert {"config.json", "model.safetensors", "README.md", "learning_curve.svg", "tokenizer.json"} <= {
        path.name for path in output.iterdir()
    }
    card = (output / "README.md").read_text()
    assert (
        f"{history['val_loss'][-1]:.4g} |" in card
        and "learning_curve.svg" in card
        and f"pipeline_tag: {task_name(task)}\n" in card
    )
    assert transformers.AutoConfig.from_pretrained(output).architectures
    pipe = pipeline(task, model=str(output))
    asked = {"token-classification": TEXTS[0], "fill-mask": f"{TEXTS[0]} [MASK]"}.get(case, TEXTS[0])
    if case == "question-answering":
        assert pipe(question="Who?", context=TEXTS[0])["score"] > 0
    else:
        assert pipe(asked)
    theirs, loading = getattr(transformers, type(pipe.model).__name__[2:]).from_pretrained(
        output, output_loading_info=True
    )
    assert not any(loading[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = {"input_ids": np.array([[5, 6, 7, 8]])}
    if "decoder_input_ids" in pipe.model.tensor_names:
        ids["decoder_input_ids"] = np.array([[5, 6]])
    expected = theirs.eval()(**{name: torch.tensor(value) for name, value in ids.items()})[0].detach().numpy()
    np.testing.assert_allclose(pipe.model(**ids)[0], expected, atol=2e-5)


def rows_in(folder, name, rows):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def command(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture
def arguments(tmp_path):
    """Arguments of a short training, and the folder that it writes."""
    _, rows, _, _ = CASES["text-classification"]
    given = {
        "--model": str(body(layers=1)), "--train": rows_in(tmp_path, "train.jsonl", rows), "--output": tmp_path / "out",
        "--validation": rows_in(tmp_path, "validation.jsonl", rows[:6]), "--epochs": 2, "--batch-size": 4,
    }  # fmt: skip
    return [part for pair in given.items() for part in pair], tmp_path


@pytest.fixture
def eagerly():
    """Run what would be traced for a single step."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_the_command(arguments):
    given, folder = arguments
    old = ("model.safetensors", "adapter/adapter_config.json", "special_tokens_map.json")
    write_files(folder / "out", dict.fromkeys(old, "old") | {"notes.txt": "mine"})
    refused = command("text-classification", *given)
    assert refused.exit_code == 1 and "is not empty; --overwrite" in refused.stderr
    assert (folder / "out" / "model.safetensors").read_text() == "old"
    done = command("text-classification", *given, "--seed", 3, "--overwrite")
    assert done.exit_code == 0, done.output
    assert (folder / "out" / "notes.txt").read_text() == "mine"
    assert not {"adapter", "special_tokens_map.json"} & set(os.listdir(folder / "out"))
    lines = [line.split() for line in done.stderr.splitlines()]
    header = next(line for line in lines if line[:1] == ["epoch"] and "val_f1" in line)
    rows = lines[lines.index(header) + 1 :]
    assert [row[0] for row in rows[:2]] == ["1", "2"] and len(rows[0]) == len(header) == 7
    assert f"The checkpoint is in {folder / 'out'}." in done.stderr
    labels = transformers.AutoConfig.from_pretrained(folder / "out").id2label
    assert labels == {0: "bad", 1: "good"}
    card = (folder / "out" / "README.md").read_text()
    assert "metrics:\n- accuracy\n- f1\n" in card and 'pipeline("text-classification", model="out")' in card
    for name, value in {
        "0": "bad", "base model": Path(given[given.index("--model") + 1]).name, "training rows": "12 of train.jsonl",
        "validation rows": "6 of validation.jsonl", "epochs": "2", "batch size": "4",
        "learning rate": "5e-05, linear, after a warm-up of 10% of the steps", "seed": "3",
        "optimizer": "AdamW, weight decay 0.01, gradients clipped to a norm of 1",
    }.items():  # fmt: skip
        assert f"| {name} | {value} |" in card
    assert card.index("learning_curve.svg") < card.index("## Training") and "The weights are those of epoch 2." in card
    assert json.loads((folder / "out" / "config.json").read_text())["problem_type"] == "single_label_classification"


@pytest.mark.slow
def test_the_command_with_one_seed_writes_the_same_weights(arguments):
    given, folder = arguments
    assert command("text-classification", *given, "--seed", 3).exit_code == 0
    before = (folder / "out" / "model.safetensors").read_bytes()
    again = command("text-classification", *given)
    assert again.exit_code == 1 and "is not empty; --overwrite" in again.stderr
    assert (folder / "out" / "model.safetensors").read_bytes() == before
    repeated = command("sentiment-analysis", *given, "--seed", 3, "--overwrite")
    assert repeated.exit_code == 0 and (folder / "out" / "model.safetensors").read_bytes() == before


def test_what_a_training_replaces(tmp_path):
    write_files(tmp_path, {"adapter/adapter_model.safetensors": "old"})
    assert {"adapter/", "vocab.txt", "special_tokens_map.json"} <= _replaced(tmp_path)
    write_files(tmp_path, {"adapter/notes.txt": "mine"})
    assert "adapter/" not in _replaced(tmp_path)


def test_bad_rows_are_named_and_nothing_is_written(arguments):
    given, folder = arguments
    rows = CASES["text-classification"][1]
    rows_in(folder, "validation.jsonl", [{"text": "a", "label": "good"}, {"text": "b", "label": "great"}])
    done = command("text-classification", *given)
    assert done.exit_code == 1 and "Line 2 of" in done.stderr and "has the label 'great'" in done.stderr
    rows_in(folder, "validation.jsonl", [{"text": "a", "label": "good"}, {"text": "b \ud800", "label": "good"}])
    done = command("text-classification", *given)
    assert done.exit_code == 1 and "Line 2 of" in done.stderr and "a surrogate without the other half" in done.stderr
    (folder / "train.jsonl").write_text('{"text": "a", "label": "good"}\n{"text": "b"}\n')
    done = command("text-classification", *given)
    assert done.exit_code == 1 and "Line 2 of" in done.stderr and "has no 'label'" in done.stderr
    (folder / "train.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + "\n")
    (folder / "validation.jsonl").write_text('{"text": "a"}\n')
    done = command("text-classification", *given)
    assert done.exit_code == 1 and "validation.jsonl have no labels to learn" in done.stderr
    assert "epoch" not in done.stderr
    (folder / "train.jsonl").write_text("{")
    assert "Line 1 of" in command("text-classification", *given).stderr
    assert not (folder / "out").exists() and not list(folder.glob(".saving*"))


def test_wrong_usage(arguments):
    given, _ = arguments
    for options, message in (
        (["--pack"], "--pack is an option of text-generation, not of text-classification"),
        (["--epochs", "0"], "--epochs"),
        (["--warmup", "2"], "--warmup"),
        (["--lora-alpha", "2"], "are of --lora RANK"),
    ):
        done = command("text-classification", *given, *options)
        assert done.exit_code == 2 and message in done.stderr, done.stderr
    for task, status, message in (
        ("feature-extraction", 1, "cannot be trained; those that can are text-classification"),
        ("nothing", 2, "not supported"),
    ):
        done = command(task, *given)
        assert done.exit_code == status and message in done.stderr
    done = command("text-classification", *given, "--schedule", "sawtooth")
    assert done.exit_code == 1 and "'sawtooth' is not supported" in done.stderr


class Seen(keras.callbacks.Callback):
    """Keeps the model that is trained, and its weights at the start."""

    def on_train_begin(self, logs=None):
        self.start = self.model.get_weights()


@pytest.mark.slow
def test_all_options_of_the_recipe_reach_the_optimizer(tmp_path):
    """Five batches and two for a step make three steps per epoch, of which the last one is for one batch."""
    seen, (_, rows, _, _) = Seen(), CASES["text-classification"]
    train(
        "text-classification", body(), rows[:10], tmp_path / "out", epochs=1, batch_size=2, learning_rate=1e-2,
        accumulation=2, clip=0.5, weight_decay=0.2, label_smoothing=0.1, schedule="cosine", warmup=0.5,
        dtype="mixed_bfloat16", callbacks=[seen],
    )  # fmt: skip
    optimizer = seen.model.optimizer
    config = optimizer.get_config()
    expected = {"global_clipnorm": 0.5, "weight_decay_rate": 0.2, "gradient_accumulation_steps": 2}
    assert {name: config[name] for name in expected} == expected
    assert int(optimizer.iterations) == 3 and optimizer._learning_rate.warmup_steps == 2
    assert type(optimizer._learning_rate.decay_schedule_fn) is keras.optimizers.schedules.CosineDecay
    assert seen.model._label_smoothing == 0.1 and seen.model.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.slow
def test_fewer_batches_than_make_a_step_are_learned_too(tmp_path):
    seen, (_, rows, _, _) = Seen(), CASES["text-classification"]
    train("text-classification", body(), rows, tmp_path / "out", epochs=1, batch_size=4, accumulation=4,
          warmup=0.0, callbacks=[seen])  # fmt: skip
    assert int(seen.model.optimizer.iterations) == 1
    changed = [(one != other).any() for one, other in zip(seen.start, seen.model.get_weights(), strict=True)]
    assert np.mean(changed) > 0.5


@pytest.mark.parametrize("clip", exhaustive([None, 0.5], [0.5]))
def test_the_last_step_of_an_epoch_is_of_the_batches_that_are_left(clip):
    """SGD over six batches, four of them to a step, against the sums by hand."""
    x, y = np.random.default_rng(0).normal(size=(2, 6, 1)).astype("float32")
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4, global_clipnorm=clip), "mse")
    model.fit(x, y, batch_size=1, epochs=2, shuffle=False, verbose=0, callbacks=[RemainderStep()])
    weight = 1.0
    for part in (slice(4), slice(4, 6)) * 2:
        gradient = np.mean(2 * (weight * x[part] - y[part]) * x[part])
        weight -= 0.1 * (gradient if clip is None else np.clip(gradient, -clip, clip))
    assert model.layers[0].kernel.numpy().item() == pytest.approx(weight, rel=1e-5)
    assert int(model.optimizer.iterations) == 4


def test_a_folder_that_cannot_be_written_costs_no_training(tmp_path):
    class Never(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("was trained")

    _, rows, _, _ = CASES["text-classification"]
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            train("text-classification", body(), rows, output, callbacks=[Never()])


@pytest.mark.slow
def test_a_training_that_diverges_writes_nothing(tmp_path):
    _, rows, _, _ = CASES["text-classification"]
    with pytest.raises(
        ValueError, match=r"The loss became NaN in epoch 1; lower --learning-rate .*Nothing was written"
    ):
        train("text-classification", body(), rows, tmp_path / "out", epochs=2, batch_size=4, learning_rate=1e20)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_masks_of_validation_are_the_same_in_every_epoch(tmp_path):
    """Without a change of the weights, the loss stays the same, while that of training has its own masks."""
    rows = [{"text": text} for text in TEXTS]
    history = train("fill-mask", body(), rows, tmp_path / "out", rows, epochs=2, learning_rate=0.0, batch_size=4)
    assert history["val_loss"][0] == history["val_loss"][1] and history["loss"][0] != history["loss"][1]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "prefix"), [("summarization", "sum: "), ("translation", "to: "),
                                              ("translation_en_to_fr", "fr: ")])  # fmt: skip
def test_the_pipeline_puts_the_prefix_of_the_training_before_texts(task, prefix, tmp_path):
    seen = Seen()
    rows = [{"text": text[:20], "target": text[:9]} for text in TEXTS[:4]]
    train(task, encoder_decoder_checkpoint(), rows, tmp_path / "out", rows[:1], epochs=1, max_length=32,
          callbacks=[seen], data_options={"prefix": prefix})  # fmt: skip
    assert pipeline(task, model=seen.model, tokenizer=AutoTokenizer.from_pretrained(tmp_path / "out")).prefix == prefix
    assert pipeline(task, model=str(tmp_path / "out")).prefix == prefix
    train(task, tmp_path / "out", rows, tmp_path / "plain", epochs=1, max_length=32)
    assert pipeline(task, model=str(tmp_path / "plain")).prefix == ""


@pytest.mark.slow
def test_one_question_is_asked_in_the_windows_of_the_training(tmp_path):
    rows = CASES["question-answering"][1]
    seen = Seen()
    history = train("question-answering", body(), rows, tmp_path / "out", rows[:1], epochs=1, callbacks=[seen],
                    max_length=24, data_options={"doc_stride": 4})  # fmt: skip
    assert len(history["val_exact_match"]) == 1
    batches = prepare(rows, seen.model, AutoTokenizer.from_pretrained(body()), max_length=24, doc_stride=4)
    (asked,) = callbacks_of("question-answering", seen.model, None, batches, lambda: iter(()), 4)
    assert asked.options == {"max_seq_len": 24, "doc_stride": 4, "max_answer_len": 30}


@pytest.mark.slow
def test_a_decoder_without_padding_classifies(tmp_path):
    rows = [{"text": text[:40], "label": ["bad", "good"][i % 2]} for i, text in enumerate(TEXTS)]
    train("text-classification", decoder_checkpoint(), rows, tmp_path / "out", rows[:5], epochs=1, batch_size=4)
    pipe = pipeline("text-classification", model=str(tmp_path / "out"))
    texts = [row["text"] for row in rows]
    together, alone = pipe(texts, batch_size=4), [pipe(text)[0] for text in texts]
    assert [one["label"] for one in together] == [one["label"] for one in alone]
    np.testing.assert_allclose([one["score"] for one in together], [one["score"] for one in alone], atol=1e-5)


def test_tags_that_name_no_entities_are_judged_one_by_one():
    batches = tf.data.Dataset.range(1)

    def judged(names):
        config = transformers.BertConfig(**labels_of(names))
        model = type("Model", (), {"config": config})
        names = [metric.name for metric in metrics_of("token-classification", model)]
        return names, len(callbacks_of("token-classification", model, None, batches, lambda: iter(()), 4))

    assert judged(["O", "B-X", "I-X"]) == ([], 1)
    assert judged(["LABEL_0", "LABEL_1"]) == judged(["NOUN", "VERB"]) == (["accuracy", "f1"], 0)


def test_a_training_without_a_prefix_hides_those_of_the_checkpoint():
    config = transformers.T5Config(task_specific_params=SPECIFIC)
    _keep_prefix(config, "translation", "")
    _keep_prefix(config, "summarization", "")
    assert config.task_specific_params["translation"] == {"prefix": ""}
    assert config.task_specific_params["summarization"] == SPECIFIC["summarization"] | {"prefix": ""}
    plain = transformers.T5Config()
    _keep_prefix(plain, "summarization", "")
    assert getattr(plain, "task_specific_params", None) is None


def test_names_of_classes_are_those_of_the_data_set():
    import datasets

    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-X", "I-X"]))
    features = datasets.Features(tokens=datasets.Sequence(datasets.Value("string")), ner_tags=tags)
    rows = datasets.Dataset.from_list([{"tokens": ["a", "b"], "ner_tags": [0, 1]}], features=features)
    names = class_names(rows)
    values = label_values("token-classification", rows_of(rows), None, names)
    assert values["id2label"] == {0: "O", 1: "B-X", 2: "I-X"}
    own = transformers.BertConfig(**labels_of(["B-X", "I-X", "O"]))
    assert fitting(values, own, numbered=True) == values and fitting(values, own) == {}
    assert class_names([{"text": "a"}]) is class_names(datasets.Dataset.from_list([{"label": 1}])) is None


def test_an_interrupted_training_gives_the_cursor_back():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    written = io.StringIO()
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with (
        pytest.raises(KeyboardInterrupt),
        EpochTable(Console(file=written, force_terminal=True, _environ={"TERM": "xterm"})) as table,
    ):
        model.fit(np.ones([2, 1]), np.ones([2, 1]), verbose=0, callbacks=[table, Stop()])
    hidden, shown = written.getvalue().rfind("\x1b[?25l"), written.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown


@pytest.mark.parametrize(
    ("error", "message"),
    [(tf.errors.ResourceExhaustedError(None, None, "OOM"), "lower --batch-size or --max-length"),
     (tf.errors.InternalError(None, None, "no kernel"), "Error: no kernel")],
)  # fmt: skip
def test_errors_of_tensorflow_are_told_in_a_line(arguments, monkeypatch, error, message):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("tf_pipeline.finetuning.train", fails)
    done = command("text-classification", *arguments[0])
    assert done.exit_code == 1 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_interruption_leaves_nothing(arguments, monkeypatch, name):
    def interrupted(task, model, rows, output, *_, **__):
        with checkpoint_folder(output):
            raise InterruptedRunError(getattr(signal, name))  # of which `test_rows_kills.py` sends real ones

    monkeypatch.setattr("tf_pipeline.finetuning.train", interrupted)
    given, folder = arguments
    before = sorted(folder.iterdir())
    done = command("text-classification", *given)
    assert done.exit_code == 128 + getattr(signal, name) and done.stderr.strip() == "Interrupted."
    assert sorted(folder.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_in_the_middle_leaves_nothing(arguments, name):
    given, folder = arguments
    before = sorted(folder.iterdir())
    given = [*map(str, given), "--epochs", "100000"]
    started = [sys.executable, "-m", "tf_pipeline.cli", "train", "text-classification", *given]
    with subprocess.Popen(started, stderr=subprocess.PIPE, text=True) as process:
        assert any(line.split()[:1] == ["3"] for line in process.stderr)  # the row of an epoch
        process.send_signal(getattr(signal, name))
        errors = process.communicate()[1]
    assert process.returncode == 128 + getattr(signal, name)
    assert errors.strip().splitlines()[-1] == "Interrupted." and "Traceback" not in errors
    assert sorted(folder.iterdir()) == before


def test_what_cannot_be_trained(tmp_path):
    rows = CASES["text-classification"][1]

    def fails(message, task="text-classification", error=ValueError, rows=rows, **options):
        with pytest.raises(error, match=message):
            train(task, body(), rows, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    fails("epochs is 0", epochs=0)
    fails("accumulation is 0", accumulation=0)
    fails("patience watches the loss of validation rows", patience=2)
    fails("patience is 0", patience=0, validation=rows)
    fails("warmup is the part", warmup=1.5)
    fails("learning_rate is inf, but has to be a finite number", learning_rate=float("inf"))
    fails("learning_rate is -1, but has to be at least 0", learning_rate=-1)
    fails("weight_decay is nan, but has to be a finite number", weight_decay=float("nan"))
    fails("clip is inf, but has to be a finite number", clip=float("inf"))
    fails("epsilon of 1e-08 is 0 in float16", dtype="float16")
    fails("problem_type is 'ranking'", problem_type="ranking")
    fails("of text-classification, not of fill-mask", task="fill-mask", problem_type="regression")
    fails("fits no module of", lora={"rank": 2, "target_modules": ["query", "nothing"]})
    fails("data_options has stream=True", data_options={"stream": True})
    fails("has no .labels. or", task="token-classification", error=RowError, rows=[{"tokens": ["a"]}])
    fails("The rows have 1 class, and a classifier needs from 2", rows=[{"text": "a", "label": "x"}])


@pytest.mark.slow
def test_an_adapter_is_trained_alone_and_merged(arguments):
    """The checkpoint is the one that training started from with peft's adapter, merged by peft."""
    import peft

    given, folder = arguments
    options = ["--lora", 4, "--lora-alpha", 16, "--lora-modules", "query, value", "--learning-rate", 1e-2]
    done = command("text-classification", *given, *options)
    assert done.exit_code == 0, done.output
    adapter = folder / "out" / "adapter"
    saved = json.loads((adapter / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["target_modules"]) == (4, 16, ["query", "value"])
    start = transformers.AutoModelForSequenceClassification.from_pretrained(body(layers=1), num_labels=2)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    theirs = peft.PeftModel.from_pretrained(start, adapter).merge_and_unload().state_dict()
    ours = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "out").state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-6, err_msg=name)
    changed = {name for name, value in before.items() if not torch.equal(value, ours[name])}
    assert changed and all(name.endswith(("query.weight", "value.weight")) or "classifier" in name for name in changed)
    card = (folder / "out" / "README.md").read_text()
    assert "| LoRA | rank 4, alpha 16, dropout 0, of query, value |" in card
    for left_out in ("adapter_model.safetensors", "adapter_config.json"):
        assert not (folder / "out" / left_out).exists()
    without = command("text-classification", *given, "--overwrite")
    assert without.exit_code == 0 and not adapter.exists()


@pytest.mark.slow
def test_layers_that_a_checkpoint_lacks_are_in_its_adapter(tmp_path):
    """A pooler, here: peft draws one of its own otherwise."""
    import peft

    source = tiny_with_tokenizer("TFBertForMaskedLM", AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT), std=0.2)
    rows = CASES["text-classification"][1]
    train("text-classification", source, rows, tmp_path / "out", epochs=1, lora={"rank": 2})
    start = transformers.AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    theirs = peft.PeftModel.from_pretrained(start, tmp_path / "out" / "adapter").merge_and_unload().eval()
    ours = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(theirs(ids).logits, ours(ids).logits, atol=1e-5, rtol=0)
    assert "| learning rate | 0.001, linear" in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_that_was_filled_meanwhile_is_left_alone(tmp_path, eagerly):
    class Fill(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "config.json").write_text("{}")

    with pytest.raises(FileExistsError, match="is not empty"):
        train("text-classification", body(layers=1), CASES["text-classification"][1], tmp_path / "out", epochs=1,
              callbacks=[Fill()])  # fmt: skip
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


@pytest.mark.slow
def test_a_head_for_other_classes_is_named(tmp_path, caplog):
    rows = [{"text": "a", "label": "food"}, {"text": "b", "label": "weather"}]
    train("text-classification", BUNDLED_CHECKPOINT, rows, tmp_path / "out", epochs=1)
    assert "for NEGATIVE, POSITIVE, is trained on as one for food, weather" in caplog.text


@pytest.mark.slow
def test_training_stops_without_progress_and_keeps_the_best(tmp_path):
    _, rows, _, _ = CASES["text-classification"]
    wrong = [row | {"label": {"bad": "good", "good": "bad"}[row["label"]]} for row in rows]
    history = train(
        "text-classification",
        body(),
        rows,
        tmp_path / "out",
        wrong,
        epochs=30,
        batch_size=4,
        learning_rate=3e-3,
        patience=1,
    )
    assert 2 <= len(history["val_loss"]) < 30
    card, best = (tmp_path / "out" / "README.md").read_text(), 1 + int(np.argmin(history["val_loss"]))
    assert f"The weights are those of epoch {best}." in card and f"| {len(history['loss'])} of at most 30 |" in card
    judged = pipeline("text-classification", model=str(tmp_path / "out"))
    loss = np.mean([
        -np.log(next(one["score"] for one in judged(row["text"], top_k=None) if one["label"] == row["label"]))
        for row in wrong
    ])  # fmt: skip
    assert loss == pytest.approx(min(history["val_loss"]), rel=1e-3)


def test_labels_of_rows():
    def found(*labels, kind=None):
        return label_values("text-classification", rows_of([("a", label) for label in labels]), kind)

    assert found("b", "a", "b")["id2label"] == {0: "a", 1: "b"}
    assert found("10", "2")["id2label"] == {place: f"LABEL_{place}" for place in range(11)}
    assert found("01", "1", "10")["id2label"] == {0: "01", 1: "1", 2: "10"}
    rows = rows_of([("a", "2"), ("b", "1")])  # which are the names of a checkpoint's classes
    kept = label_values("text-classification", rows, None, known=["1", "2", "3"])
    assert kept["label2id"] == {"1": 0, "2": 1, "3": 2}
    many = label_values("text-classification", rows, None, known=[str(place) for place in range(2000)])
    assert len(many["label2id"]) == 2000  # of which the rows have two
    with pytest.raises(ValueError, match="The rows have 1 class, and a classifier needs from 2"):
        label_values("text-classification", rows_of([("a", "1")]), None, known=["1", "2"])
    assert found(1, 0)["problem_type"] == "single_label_classification"
    assert found(0.5, 2) == {"num_labels": 1, "problem_type": "regression"}
    assert found([0.5, 1.0], kind="regression")["num_labels"] == 2
    assert found(["x"], []) == {
        "id2label": {0: "x"}, "label2id": {"x": 0}, "problem_type": "multi_label_classification",
    }  # fmt: skip
    for numbers in (("0.5", "1.25", "3.0"), tuple(np.float32([0.5, 2])), (np.float64(1.0), 2)):
        assert found(*numbers) == {"num_labels": 1, "problem_type": "regression"}
    assert found(np.int64(1), np.int32(0))["problem_type"] == "single_label_classification"
    with pytest.raises(RowError, match="Row 2 has the label 'a', which is a name; a label before it is a number"):
        found(1, "a", "b")
    with pytest.raises(RowError, match="Row 1 has the label {'a': 1}, which is neither a name nor a number"):
        found({"a": 1})
    assert found("1", "2", kind="regression") == {"num_labels": 1, "problem_type": "regression"}
    with pytest.raises(RowError, match=r"Row 2 has the label \['x'\], which is not of single_label_classification"):
        found("x", ["x"])
    with pytest.raises(RowError, match="Row 2 has an empty label"):
        found("x", "")
    with pytest.raises(ValueError, match="The rows have 100000000000 classes, and a classifier needs from"):
        found(0, 99999999999)
    with pytest.raises(RowError, match="Row 2 has the label 0.5"):
        found(1, 0.5)
    tags = rows_of([{"tokens": ["a", "b"], "labels": ["I-X", "O"]}, {"tokens": ["c"], "labels": ["B-X"]}])
    assert label_values("token-classification", tags, None)["id2label"] == {0: "O", 1: "B-X", 2: "I-X"}
    assert label_values("fill-mask", tags, None) == {}


def test_numbers_are_no_places_among_names_that_look_like_numbers():
    def class_of(label, *names):
        config = SimpleNamespace(label2id={name: place for place, name in enumerate(names)}, num_labels=len(names))
        return Task._class_of(
            SimpleNamespace(model=SimpleNamespace(config=config)), next(rows_of([("a", label)])()), label
        )

    assert [class_of(label, "1", "2") for label in ("1", "2", 0)] == [0, 1, 0]
    assert [class_of(label, "NEGATIVE", "POSITIVE") for label in ("1", 1, "NEGATIVE")] == [1, 1, 0]
    for label, *names in (("0", "1", "2"), ("0", "01", "1"), ("0", "-1", "1"), ("c", "a", "b")):
        with pytest.raises(RowError, match=f"has the label {label!r}, but the model's are {names[0]}, {names[1]}"):
            class_of(label, *names)


@pytest.mark.slow
def test_a_checkpoint_keeps_labels_that_name_all_of_the_rows(tmp_path):
    for label in ("NEGATIVE", 1):
        rows = [{"text": "a", "label": label}, {"text": "b", "label": {1: 0}.get(label, "POSITIVE")}]
        output = tmp_path / str(label)
        train("text-classification", BUNDLED_CHECKPOINT, rows, output, epochs=1)
        assert transformers.AutoConfig.from_pretrained(output).id2label == {0: "NEGATIVE", 1: "POSITIVE"}


@pytest.mark.slow
def test_parity_of_what_was_trained(arguments):
    from tf_pipeline import compare

    given, folder = arguments
    assert command("text-classification", *given, "--dtype", "float32").exit_code == 0
    assert compare(folder / "out", groups=["weights", "outputs"]).passed


def test_the_picture_is_of_the_numbers():
    picture = ElementTree.fromstring(
        learning_curve({"loss": [3.0, 1.0, 2.0], "a<b": [2.0, float("nan"), 1.0]}, "x & y")
    )
    lines = picture.findall("{*}polyline")
    heights = [[float(point.split(",")[1]) for point in line.get("points").split()] for line in lines]
    assert heights[0][0] < heights[0][2] < heights[0][1] and len(heights[1]) == 2
    texts = [text.text for text in picture.findall("{*}text")]
    assert {"loss", "a<b", "x & y", "1", "2", "3", "epoch"} <= set(texts)
    assert ElementTree.fromstring(learning_curve({"loss": [1.0]}, "one")) is not None
