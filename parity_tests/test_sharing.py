"""Uploads to a server that speaks the hub's protocol, and the cards that go with them."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import transformers

import tf_pipeline
from parity_tests.checkpoint_helpers import WITHOUT_TORCH, checkpoint, ours, weights
from tf_pipeline.callbacks import PushToHubCallback
from tf_pipeline.hub import RepositoryError
from tf_pipeline.optimization import create_optimizer

CLASS = "TFBertForSequenceClassification"

# The environment is read when the hub's library is imported.
CHILD = (
    WITHOUT_TORCH
    + """
import sys
import numpy as np
from tf_pipeline import TFBertForSequenceClassification
model = TFBertForSequenceClassification.from_pretrained(sys.argv[1])
"""
)
PUSH = """
try:
    print(model.push_to_hub("org/new", commit_message="First", private=True, token=sys.argv[2]))
except OSError as error:
    print(type(error).__name__, error)
"""
TRAIN = """
from tf_pipeline.callbacks import PushToHubCallback
model.compile("sgd")
x = {"input_ids": np.array([[5, 7, 9]] * 4), "labels": np.array([1, 2, 0, 1])}
options = eval(sys.argv[3])
callback = PushToHubCallback(hub_token=sys.argv[2], finetuned_from="org/old", tags=["test"], **options)
model.fit(x, batch_size=1, epochs=2, callbacks=[callback], verbose=0)
"""


class Hub(BaseHTTPRequestHandler):
    """Takes commits of small files: ``/api/repos/create``, ``preupload``, ``commit``."""

    created: list[dict]
    commits: list[dict]
    folder: Path
    address: str

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer({"error": "no such thing"}, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path != "/api/validate-yaml" and self.headers.get("Authorization") != "Bearer hf_secret":
            self.answer({"error": "Invalid user token."}, 401)
        elif self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            self.answer({"url": f"http://{self.headers['Host']}/{json.loads(body)['organization']}/new"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [file | {"uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.answer({"error": f"unknown {self.path}"}, 404)

    def commit(self, lines):
        for line in lines:
            if line["key"] == "header":
                self.commits.append({"path": self.path, "files": [], **line["value"]})
            else:
                path = self.folder / line["value"]["path"]
                path.write_bytes(base64.b64decode(line["value"]["content"]))
                self.commits[-1]["files"].append(path.name)
        self.answer({"commitUrl": f"{self.address}/org/new/commit/{len(self.commits)}", "commitOid": "a" * 40})

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    """A running server; what it was sent is on its handler's class."""
    (tmp_path / "hub").mkdir()
    handler = type("Handler", (Hub,), {"created": [], "commits": [], "folder": tmp_path / "hub"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handler.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield handler
        server.shutdown()


def child(hub, code: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """A process whose hub is the server."""
    hidden = ("HF_", "HUGGING")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    kept |= {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", CHILD + code, str(checkpoint(CLASS)), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=kept | environment, cwd=Path(__file__).parent.parent, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def assert_pushed(hub, said: str) -> None:
    """A private repository with a commit of the checkpoint, whose address is said."""
    assert said == f"{hub.address}/org/new/commit/1"
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    [commit] = hub.commits
    assert commit["path"] == "/api/models/org/new/commit/main" and commit["summary"] == "First"
    assert {"config.json", "model.safetensors"} <= {*commit["files"]}
    theirs = transformers.BertForSequenceClassification.from_pretrained(hub.folder)
    for key, value in weights(ours(CLASS, checkpoint(CLASS))).items():
        np.testing.assert_array_equal(theirs.state_dict()[key].numpy(), value)


def test_push_to_hub(hub, monkeypatch):
    for name, value in {"ENDPOINT": hub.address, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    model = ours(CLASS, checkpoint(CLASS))
    assert_pushed(hub, model.push_to_hub("org/new", commit_message="First", private=True, token="hf_secret"))


@pytest.mark.slow
def test_push_to_hub_without_torch(hub):
    assert_pushed(hub, child(hub, PUSH, "hf_secret").stdout.strip())


@pytest.mark.slow
def test_save_and_push(hub, tmp_path):
    code = 'model.save_pretrained(sys.argv[3], push_to_hub=True, repo_id="org/new", token=sys.argv[2])'
    child(hub, code, "hf_secret", tmp_path / "saved")
    for name in ("config.json", "model.safetensors"):
        assert (hub.folder / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


def test_a_save_without_the_hub_says_that_it_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = ours(CLASS, checkpoint(CLASS))
    with pytest.raises(RepositoryError) as error:
        model.save_pretrained(tmp_path / "saved", push_to_hub=True)
    assert str(error.value).startswith(
        f"The checkpoint is saved in {tmp_path / 'saved'}, but was not uploaded: 'saved'"
    )
    assert "offline" in str(error.value) and "Log in" not in str(error.value) and "push_to_hub" in str(error.value)
    assert ours(CLASS, tmp_path / "saved").config.num_labels == model.config.num_labels


def test_a_network_that_is_down_is_said(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fails)
    with pytest.raises(RepositoryError, match="'mine' could not be written to on the hub: .*service not known$"):
        ours(CLASS, checkpoint(CLASS)).push_to_hub("mine")


@pytest.mark.slow
def test_what_the_hub_refuses_is_said(hub):
    done = child(hub, PUSH, "hf_wrong")
    assert done.stdout.startswith("RepositoryError") and "'org/new'" in done.stdout and "token=" in done.stdout
    assert not hub.commits
    assert "offline" in child(hub, PUSH, "hf_secret", HF_HUB_OFFLINE="1").stdout


@pytest.mark.slow
def test_a_callback_uploads_each_epoch(hub, tmp_path):
    options = {"output_dir": str(tmp_path / "out"), "hub_model_id": "org/new"}
    child(hub, TRAIN, "hf_secret", options)
    assert [commit["summary"] for commit in hub.commits] == [
        "Training in progress, epoch 1", "Training in progress, epoch 2", "End of training",
    ]  # fmt: skip
    transformers.BertForSequenceClassification.from_pretrained(hub.folder)
    card = (hub.folder / "README.md").read_text()
    assert "base_model: org/old" in card and "- test" in card and "| 2 |" in card


@pytest.mark.slow
def test_a_failed_upload_does_not_end_the_training(hub, tmp_path):
    options = {"output_dir": str(tmp_path / "out"), "save_strategy": "steps", "save_steps": 3}
    done = child(hub, TRAIN, "hf_wrong", options)
    assert done.stderr.count("was not uploaded") == 3 and not hub.commits  # after batch 3 of each epoch, and at the end
    assert ours(CLASS, tmp_path / "out").config.num_labels == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_strategy": "daily"}, "daily.*epoch"),
        ({"save_strategy": "steps"}, "save_steps"),
        ({"checkpoint": True}, "BackupAndRestore"),
    ],
)
def test_strategies_that_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        PushToHubCallback(tmp_path, **options)


@pytest.mark.slow
def test_a_card_says_how_a_model_was_trained(tmp_path):
    model = ours(CLASS, checkpoint(CLASS))
    model.compile(create_optimizer(1e-3, 4)[0], metrics=["accuracy"])
    inputs = {"input_ids": np.array([[5, 7, 9]] * 4), "labels": np.array([1, 2, 0, 1])}
    model.fit(inputs, epochs=2, verbose=0)
    path = model.create_model_card(
        tmp_path / "new", "my-model", language="en", license="mit", tags="one", finetuned_from="org/old",
        tasks="text-classification", dataset=["first", "second"],
    )  # fmt: skip
    from huggingface_hub import ModelCard

    card = ModelCard.load(path)
    assert card.data.tags == ["generated_from_keras_callback", "one"] and card.data.license == "mit"
    assert card.data.base_model == "org/old" and card.data.pipeline_tag == "text-classification"
    assert card.data.datasets == ["first", "second"]
    text = card.text
    assert card.data.metrics == ["accuracy"] and card.data.library_name == "transformers"
    assert f"| 2 | {model.history.history['accuracy'][1]:.4g} |" in text
    assert "| optimizer | AdamWeightDecay |\n| learning rate | 0.001, PolynomialDecay |" in text and "{" not in text
    assert (
        'pipeline("text-classification", model="my-model")' in text and f"tf-pipeline {tf_pipeline.__version__}" in text
    )
    place = [text.index(f"\n## {name}\n") for name in ("Usage", "Results", "Training", "Versions")]
    assert place == sorted(place)
    untrained = ours(CLASS, checkpoint(CLASS)).create_model_card(tmp_path, "plain")
    assert "## Training" not in untrained.read_text() and "## Results" not in untrained.read_text()
