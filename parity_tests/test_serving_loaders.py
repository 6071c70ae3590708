"""An export runs in programs that know nothing of this package, and gives what PyTorch gives."""

import subprocess
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
import transformers

from parity_tests.conftest import ASSETS
from parity_tests.loader_helpers import TOKENS, c_program, exported, run
from tf_pipeline.serving.lint import lint

BATCH = 50
TOLERANCE = 1e-5


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def with_text(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def without_text(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("tokens"), text=False)


@pytest.fixture(scope="module")
def texts(reviews):
    """A thousand real texts: 600 sentences, 399 pairs of neighbouring ones, and one that has to be truncated."""
    pairs = [" ".join(pair) for pair in islice(pairwise(reviews), 999 - len(reviews))]
    return [*reviews, *pairs, " ".join(reviews[:30])]


@pytest.fixture(scope="module")
def requests(texts):
    """Texts in batches, their tokens padded by Hugging Face, and PyTorch's logits."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(ASSETS, dtype=torch.float32).eval()
    limit = model.config.max_position_embeddings
    answers = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        rows = tokenizer(batch, truncation=True, max_length=limit, padding=True, return_tensors="pt")
        rows = {name: rows[name] for name in TOKENS}
        with torch.no_grad():
            logits = model(**rows).logits
        strings = {"text": np.array([text.encode() for text in batch], object)}
        answers.append((strings, {name: value.numpy() for name, value in rows.items()}, logits.numpy()))
    assert answers[-1][1]["input_ids"].shape == (BATCH, limit)  # something was truncated
    names = np.array([model.config.id2label[place].encode() for place in range(model.config.num_labels)], object)
    return answers, names


@pytest.fixture
def compare(requests, record_property):
    """Run a loader on requests, and compare what it answers with PyTorch."""

    def compared(loader, folder, signature, count=None):
        answers, names = requests
        strings, tokens, logits = zip(*answers[:count], strict=True)
        truth, takes_text = np.concatenate(logits), signature == "serving_default" and loader != "openvino"
        found = run(loader, folder, signature, strings if takes_text else tokens)
        if takes_text:
            truth = np.exp(truth) / np.exp(truth).sum(axis=-1, keepdims=True)
            order = np.argsort(-truth, axis=-1)
            assert sorted(found) == ["labels", "scores"]
            assert (found["labels"] == names[order]).all()
            found, truth = found["scores"], np.take_along_axis(truth, order, -1)
        else:
            assert sorted(found) == ["logits"]
            found = found["logits"]
            assert (found.argmax(-1) == truth.argmax(-1)).all()
        assert found.dtype == np.float32 and found.shape == truth.shape == (len(tokens) * BATCH, len(names))
        error = float(np.abs(found - truth).max())
        record_property("parity", [f"{loader}, {signature}: within {error:.1e}", 1, 0, 0.0, 0.0])
        assert error < TOLERANCE

    return compared


@pytest.mark.parametrize("signature", ["serving_default", "tokens"])
@pytest.mark.parametrize("loader", ["c", "session"])
def test_a_thousand_texts_in_sessions_without_this_package(loader, signature, with_text, compare):
    compare(loader, with_text, signature)


def test_a_thousand_texts_in_openvino(without_text, compare):
    compare("openvino", without_text, "serving_default")


@pytest.mark.parametrize("signature", ["serving_default", "tokens"])
def test_fifty_texts_in_saved_model_cli(signature, with_text, compare):
    compare("cli", with_text, signature, 1)  # it takes seconds to start, and does so for every request


def test_bytes_that_are_no_text_reach_the_model(with_text):
    """The C program hands over any bytes; a row that is no UTF-8, or empty, fails nobody else's request."""
    odd = [b"", b"\n", b"\x00\xff", b"good \xe2\x82 film", "naïve 日本 🙂".encode(), b"A very good film."]
    rows = [{"text": np.array(odd, object)}, {"text": np.array(odd[-1:], object)}]
    answers = {loader: run(loader, with_text, "serving_default", rows) for loader in ("c", "session")}
    assert (answers["c"]["labels"] == answers["session"]["labels"]).all()
    np.testing.assert_allclose(answers["c"]["scores"], answers["session"]["scores"], atol=1e-6)
    assert np.isfinite(answers["c"]["scores"]).all()
    np.testing.assert_allclose(answers["c"]["scores"][-2], answers["c"]["scores"][-1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "request_", "message"),
    [
        ([], "", "usage: load_and_run MODEL_DIR"),
        (["-i", "nothing:0", "-o", "y:0"], "", "nothing:0: no such operation in the graph"),
        (["-i", "serving_default_text:0", "-o", "StatefulPartitionedCall:0"], "string 1 1\n9\nx", "is cut short"),
        (["-i", "serving_default_text:0", "-o", "StatefulPartitionedCall:0"], "int64 1 1\n9\n", "TF_SessionRun: "),
    ],
)
def test_the_c_program_says_what_is_wrong(arguments, request_, message, with_text):
    command = [c_program(), with_text, *arguments]
    done = subprocess.run(command, input=request_, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "load_and_run: " in done.stderr and message in done.stderr


def test_exports_pass_the_lint(with_text, without_text):
    for folder in (with_text, without_text):
        assert lint(folder) == []
