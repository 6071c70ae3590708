"""Checkpoints by hub id: downloaded from a server that speaks the hub's protocol, from the cache, and neither.

The hub's address and cache are read when its library is imported, so each setting is a process of its own, for which
PyTorch is not installed. It evaluates many short expressions at once; each test looks at some of the results.
"""

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from parity_tests.checkpoint_helpers import (
    WEIGHTS,
    WITHOUT_TORCH,
    checkpoint,
    copied,
    edited,
    new_folder,
    ours,
    twin,
    weights,
)
from parity_tests.tiers import exhaustive

CLASS = "TFBertForSequenceClassification"
SOURCE = functools.partial(checkpoint, CLASS, num_hidden_layers=1)
COMMITS = {"main": "a" * 40, "v2": "b" * 40}

CHILD = (
    WITHOUT_TORCH
    + """
import hashlib, json, sys, time
time.sleep = lambda seconds: None  # between the retries of a failed request
answers, sys.stdout = sys.stdout, sys.stderr
from tf_pipeline import AutoConfig, TFAutoModel, TFAutoModelForSequenceClassification, TFBertModel
from tf_pipeline.checkpoint import named_slots

def offline(source):
    from huggingface_hub import constants
    constants.HF_HUB_OFFLINE = True
    return load(source)

def load(source, **options):
    model, report = TFAutoModelForSequenceClassification.from_pretrained(source, output_loading_info=True, **options)
    assert not (report.missing or report.unused or report.mismatched), report
    values = [key.encode() + slot.read().tobytes() for key, slot in sorted(named_slots(model))]
    return hashlib.sha256(b"".join(values)).hexdigest()

def outcome(code):
    try:
        return eval(code)
    except Exception as error:
        return [type(error).__name__, str(error)]

for line in sys.stdin:
    print(json.dumps({name: outcome(code) for name, code in json.loads(line).items()}), file=answers, flush=True)
"""
)


@functools.cache
def digest(source: Path) -> str:
    """What the child's ``load`` returns for this checkpoint."""
    values = [key.encode() + value.tobytes() for key, value in sorted(weights(ours(CLASS, source)).items())]
    return hashlib.sha256(b"".join(values)).hexdigest()


class Child:
    """A process with the hub's files in ``home`` and this environment."""

    def __init__(self, home: Path, **environment: str):
        hidden = ("HF_", "HUGGING", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(hidden)}
        kept |= {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.log = home / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=kept | environment, cwd=Path(__file__).parent.parent,
            )  # fmt: skip

    def evaluate(self, cases: dict[str, str]) -> dict:
        """Value of each expression, or the class and message of what it raised."""
        print(json.dumps(cases), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        return json.loads(answer)

    def end(self):
        """Close its input, which ends it."""
        self.process.communicate()


# --------------------------------------------------------------------------------------------------- repositories


def with_other_weights() -> Path:
    return edited(SOURCE(), lambda tensors: tensors.update({k: v + 1 for k, v in tensors.items()}))


def in_shards() -> Path:
    folder = new_folder()
    twin(CLASS, SOURCE()).save_pretrained(folder, max_shard_size="20KB")
    return folder


def as_pickle() -> Path:
    folder = copied(SOURCE(), WEIGHTS)
    torch.save(twin(CLASS, SOURCE()).state_dict(), folder / "pytorch_model.bin")
    return folder


def without_a_shard() -> Path:
    folder = in_shards()
    sorted(folder.glob("model-*"))[1].unlink()
    return folder


def with_a_web_page() -> Path:
    folder = copied(SOURCE())
    (folder / WEIGHTS).write_text("<!DOCTYPE html><html><body>Log in to the network</body></html>")
    return folder


def nested(source: Path) -> Path:
    folder = new_folder()
    copied(source).rename(folder / "inner")
    return folder


def repositories() -> dict[tuple[str, str], Path]:
    """Folder of each repository and revision."""
    return {
        ("org/plain", "main"): SOURCE(),
        ("org/plain", "v2"): with_other_weights(),
        ("org/nested", "main"): nested(SOURCE()),
        ("org/sharded", "main"): in_shards(),
        ("org/pickled", "main"): as_pickle(),
        ("org/incomplete", "main"): without_a_shard(),
        ("org/portal", "main"): with_a_web_page(),
        ("org/unweighted", "main"): copied(SOURCE(), WEIGHTS),
        ("org/private", "main"): SOURCE(),
        ("plain", "main"): SOURCE(),
    }


# What the hub answers for repositories that cannot be read: status, X-Error-Code, X-Error-Message.
REFUSALS = {
    "org/gated": (403, "GatedRepo", "Access to model org/gated is restricted."),
    "org/gated-anonymous": (401, "GatedRepo", "Access to model org/gated-anonymous is restricted. Please log in."),
    "org/absent": (404, "RepoNotFound", "Repository not found"),
    "org/absent-anonymous": (401, "RepoNotFound", "Repository not found"),
    "org/disabled": (403, "", "Access to this resource is disabled."),
    "org/broken": (500, "", "Internal Server Error"),
}


class Hub(BaseHTTPRequestHandler):
    """Answers ``/{repository}/resolve/{revision}/{file}`` as the hub does."""

    repositories: dict[tuple[str, str], Path] = {}
    downloads: Counter = Counter()

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def log_message(self, *_):
        pass

    def answer(self, body: bool):
        repository, found, rest = self.path.split("?")[0].lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        revision = next((key for key, commit in COMMITS.items() if commit == revision), revision)
        private = repository == "org/private" and self.headers.get("Authorization") != "Bearer hf_secret"
        folder = self.repositories.get((repository, revision))
        if private or repository in REFUSALS:
            self.refuse(*REFUSALS["org/absent-anonymous" if private else repository])
        elif not found or (repository, "main") not in self.repositories:
            self.refuse(*REFUSALS["org/absent"])
        elif folder is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif not (folder / name).is_file():
            self.refuse(404, "EntryNotFound", "Entry not found", COMMITS[revision])
        else:
            self.downloads[repository, revision, name] += body
            self.send(folder / name, COMMITS[revision], body)

    def refuse(self, status: int, code: str, message: str, commit: str | None = None):
        self.send_response(status)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit, "Content-Length": "0"}
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def send(self, path: Path, commit: str, body: bool):
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


# ------------------------------------------------------------------------------------------------------- settings

ONLINE = {
    "plain": "load('org/plain')",
    "again": "load('org/plain')",
    "no namespace": "load('plain')",
    "branch": "load('org/plain', revision='v2')",
    "commit": f"load('org/plain', revision='{COMMITS['v2']}')",
    "wrong revision": "load('org/plain', revision='v3')",
    "subfolder": "load('org/nested', subfolder='inner')",
    "wrong subfolder": "load('org/nested', subfolder='outer')",
    "no config": "load('org/nested')",
    "sharded": "load('org/sharded')",
    "pickled": "load('org/pickled')",
    "incomplete": "load('org/incomplete')",
    "portal": "load('org/portal')",
    "unweighted": "load('org/unweighted')",
    "private": "load('org/private')",
    "token": "load('org/private', token='hf_secret')",
    "forced": "load('org/plain', force_download=True)",
    "local files only": "load('org/never-fetched', local_files_only=True)",
    "config": "AutoConfig.from_pretrained('org/plain').num_labels",
    "changed config": "AutoConfig.from_pretrained('org/plain', num_labels=9).num_labels",
    "class": "type(TFBertModel.from_pretrained('org/plain', num_attention_heads=8)).__name__",
    "other config": "load('org/unweighted', config='org/plain')",
    "relative path": "load('./no-such-folder')",
    "absolute path": "load('/no/such/folder')",
}
ONLINE |= {repository: f"load({repository!r})" for repository in REFUSALS}
ONLINE |= {f"config of {repository}": f"AutoConfig.from_pretrained({repository!r})" for repository in REFUSALS}

CUT_OFF = {
    "cached": "load('org/cached')",
    "cached revision": "load('org/cached', revision='v2')",
    "cached commit": f"load('org/cached', revision='{COMMITS['v2']}')",
    "other revision": "load('org/cached', revision='v3')",
    "cached shards": "load('org/cached-shards')",
    "cached subfolder": "load('org/cached-nested', subfolder='inner')",
    "config only": "load('org/cached-config')",
    "forced": "load('org/cached', force_download=True)",
    "absent": "load('org/elsewhere')",
    "absent body": "TFAutoModel.from_pretrained('org/elsewhere')",
    "absent config": "AutoConfig.from_pretrained('org/elsewhere')",
    "cache_dir": "load('org/cached', cache_dir='/no/such/cache')",
}


def write_cache(home: Path) -> None:
    """Lay out the hub's cache by hand, as its documentation describes it: blobs, refs and snapshots of links."""
    cached = {
        "cached": {"main": SOURCE(), "v2": with_other_weights()},
        "cached-shards": {"main": in_shards()},
        "cached-nested": {"main": nested(in_shards())},
        "cached-config": {"main": copied(SOURCE(), WEIGHTS)},
    }
    for name, revisions in cached.items():
        root = home / "hub" / f"models--org--{name}"
        (root / "blobs").mkdir(parents=True)
        (root / "refs").mkdir()
        for revision, folder in revisions.items():
            (root / "refs" / revision).write_text(COMMITS[revision])
            snapshot = root / "snapshots" / COMMITS[revision]
            snapshot.mkdir(parents=True)
            for file in filter(Path.is_file, folder.rglob("*")):
                blob = root / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
                blob.write_bytes(file.read_bytes())
                link = snapshot / file.relative_to(folder)
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Results by case with a hub, and with a cache while the hub is down."""
    Hub.repositories = repositories()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write_cache(home := tmp_path_factory.mktemp("home"))
    connected = Child(home, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
    results = {"online": connected.evaluate(ONLINE)}
    server.shutdown()
    server.server_close()
    results |= {"unreachable": connected.evaluate(CUT_OFF)}
    results |= connected.evaluate({"turned offline": "offline('org/elsewhere')"})
    connected.end()
    return results


@pytest.fixture(scope="module")
def offline(settings, tmp_path_factory):
    """Results of a process that begins in offline mode."""
    write_cache(home := tmp_path_factory.mktemp("home"))
    child = Child(home, HF_HUB_OFFLINE="1")
    results = child.evaluate(CUT_OFF)
    child.end()
    return results


@pytest.fixture(scope="module")
def online(settings):
    return settings["online"]


def assert_error(result, kind: str, *parts: str):
    assert isinstance(result, list), result
    assert result[0] == kind, result
    for part in parts:
        assert part in result[1], result[1]


# --------------------------------------------------------------------------------------------------------- online


@pytest.mark.parametrize("case", ["plain", "again", "no namespace", "subfolder", "sharded", "token", "forced"])
def test_a_hub_id_loads_the_weights_it_names(case, online):
    assert online[case] == digest(SOURCE())


@pytest.mark.parametrize("case", ["branch", "commit"])
def test_a_revision_loads_other_weights(case, online):
    assert online[case] == digest(Hub.repositories["org/plain", "v2"]) != online["plain"]


def test_files_are_downloaded_once_unless_forced(online):
    assert Hub.downloads["org/plain", "v2", WEIGHTS] == 1  # by the name and by the commit of the revision
    assert Hub.downloads["org/plain", "main", WEIGHTS] == 2


def test_configs_are_read_and_changed(online):
    assert online["config"] == 5
    assert online["changed config"] == 9
    assert online["class"] == "TFBertModel"


@pytest.mark.parametrize("what", ["", "config of "])
@pytest.mark.parametrize(
    "repository, parts",
    [
        ("org/gated", ["is gated", "ask for access", "hf auth login", "token="]),
        ("org/gated-anonymous", ["is gated", "ask for access", "hf auth login", "token="]),
        ("org/absent", ["neither a local folder nor a hub repository", "404"]),
        ("org/absent-anonymous", ["neither a local folder nor a hub repository", "401"]),
        ("org/disabled", ["disabled"]),
        ("org/broken", ["cannot be reached", "500"]),
    ],
)
def test_repositories_that_cannot_be_read(what, repository, parts, online):
    assert_error(online[what + repository], "RepositoryError", repr(repository), *parts)


@pytest.mark.parametrize(
    "case, parts",
    [
        ("wrong revision", ["'org/plain' has no revision 'v3'"]),
        ("no config", ["org/nested has no config.json; it is not a checkpoint"]),
        ("wrong subfolder", ["org/nested has no outer/config.json"]),
        ("private", ["'org/private' is neither"]),
        ("local files only", ["'org/never-fetched'", "local_files_only=True was given"]),
        (
            "relative path",
            ["'./no-such-folder' is neither a local folder nor a hub repository, whose id"],
        ),
        ("absolute path", ["'/no/such/folder' is neither a local folder nor a hub repository, whose id"]),
    ],
)
def test_what_is_not_there_is_named(case, parts, online):
    assert_error(online[case], "RepositoryError", *parts)


@pytest.mark.parametrize(
    "case, parts",
    [
        ("incomplete", ["org/incomplete is incomplete", "model-00002-of-0000"]),
        ("portal", ["model.safetensors is cut off, corrupt or not a safetensors file"]),
        ("unweighted", ["org/unweighted has no weights", "model.safetensors, ", "pytorch_model.bin"]),
        ("pickled", ["pytorch_model.bin, which takes PyTorch", "pip install torch", "save_pretrained(Y)"]),
        ("other config", ["org/unweighted has no weights"]),
    ],
)
def test_weights_that_cannot_be_read(case, parts, online):
    assert_error(online[case], "CheckpointError", *parts)


# -------------------------------------------------------------------------------------------------------- offline


@pytest.fixture(scope="module", params=exhaustive(["offline", "unreachable"], ["unreachable"]))
def cut_off(request, settings):
    """Results without a hub, and what errors say about it."""
    if request.param == "offline":
        return request.getfixturevalue("offline"), "HF_HUB_OFFLINE is set"
    return settings["unreachable"], "Connection refused"


def test_offline_mode_is_named(settings):
    assert_error(settings["turned offline"], "RepositoryError", "config.json of 'org/elsewhere'", "HF_HUB_OFFLINE is")


@pytest.mark.parametrize("case, revision", [("cached", "main"), ("cached revision", "v2"), ("cached commit", "v2")])
def test_the_cache_is_enough(case, revision, cut_off):
    expected = SOURCE() if revision == "main" else Hub.repositories["org/plain", "v2"]
    assert cut_off[0][case] == digest(expected)


@pytest.mark.parametrize("case", ["cached shards", "cached subfolder"])
def test_shards_in_the_cache_are_enough(case, cut_off):
    assert cut_off[0][case] == digest(SOURCE())


def test_a_download_cannot_be_forced_without_a_hub(cut_off):
    assert_error(
        cut_off[0]["forced"], "RepositoryError", "config.json of 'org/cached' could not be fetched from the hub"
    )


@pytest.mark.parametrize("case", ["absent", "absent body", "absent config", "other revision", "cache_dir"])
def test_without_a_hub_the_error_names_the_id_and_the_reason(case, cut_off):
    results, reason = cut_off
    source = "org/cached" if case in ("other revision", "cache_dir") else "org/elsewhere"
    parts = (f"config.json of '{source}'", "not in the local cache and the hub cannot be reached", reason)
    assert_error(results[case], "RepositoryError", *parts, "pass the path of a local folder")


def test_weights_that_were_never_cached_are_said_to_be_absent_from_the_cache(cut_off):
    assert_error(
        cut_off[0]["config only"], "CheckpointError", "org/cached-config has no weights", "or in the cache, if"
    )
