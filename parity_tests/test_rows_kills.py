"""Runs over files that are killed at random moments, and resumed: each row is there exactly once."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zlib import crc32

import pytest

from parity_tests.tiers import exhaustive

COMMAND = [sys.executable, "-m", "tf_pipeline.cli", "run", "sentiment-analysis"]
TEXT = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}]}}
TABLE = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}
SIGNATURE = {"inputs": {"text": TEXT}, "outputs": {"labels": TABLE, "scores": TABLE | {"dtype": "DT_FLOAT"}}}
METADATA = {"metadata": {"signature_def": {"signature_def": {"serving_default": SIGNATURE}}}}
BAD = ["{oops", '{"other": 1}', "7", '"\\ud800"', '"caf\xe9"']


def score(text: str) -> float:
    return crc32(text.encode()) % 1000 / 1000


class Model(BaseHTTPRequestHandler):
    """A served model whose scores are known for each text."""

    def do_GET(self):  # noqa: N802
        self._send(METADATA)

    def do_POST(self):  # noqa: N802
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        texts = texts["text"] if isinstance(texts, dict) else texts
        time.sleep(0.002)
        scores = [[score(text), 0.0] for text in texts]
        self._send({"outputs": {"labels": [["GOOD", "BAD"]] * len(texts), "scores": scores}})

    def _send(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/models/m"
    server.shutdown()
    server.server_close()


class Trial:
    """One input, and the runs that answer it."""

    def __init__(self, folder, chance: random.Random, rows: int, *options: str):
        folder.mkdir()
        self.folder, self.chance = folder, chance
        self.output = folder / "out.jsonl"
        self.part = folder / "out.jsonl.unfinished" / "answers.jsonl"
        self.good, self.bad, lines = {}, set(), []
        for number in range(1, rows + 1):
            kind = chance.random()
            if kind < 0.1:
                self.bad.add(number)
                lines.append(chance.choice(BAD).encode("latin-1"))
            elif kind < 0.15:
                lines.append(b"")
            else:
                self.good[number] = f"film {number} " + "x" * chance.randint(0, 300)
                lines.append(json.dumps(self.good[number]).encode())
        (folder / "in.jsonl").write_bytes(b"\n".join(lines))
        files = ["--input", str(folder / "in.jsonl"), "--output", str(self.output)]
        self.command = [*COMMAND, *options, *files, "--resume"]

    def start(self):
        return subprocess.Popen(self.command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def kill(self) -> bool:
        """Kill a run at a random moment; whether it was still alive."""
        process = self.start()
        if self.chance.random() < 0.8:  # while rows are answered, else while it starts
            wait_for(lambda: self.part.exists() or process.poll() is not None)
            size = self.part.stat().st_size if self.part.exists() else 0
            grown = lambda: not self.part.exists() or self.part.stat().st_size > size  # noqa: E731
            wait_for(lambda: grown() or process.poll() is not None)
        time.sleep(self.chance.uniform(0, 0.25))
        process.kill()
        said = process.communicate()[1].decode()
        assert process.returncode in (-signal.SIGKILL, 3), said
        return process.returncode == -signal.SIGKILL

    def check(self, scores: bool = True) -> None:
        assert sorted(path.name for path in self.folder.iterdir()) == ["in.jsonl", "out.errors.jsonl", "out.jsonl"]
        answers = [json.loads(line) for line in self.output.read_text().splitlines()]
        assert [answer["line"] for answer in answers] == list(self.good)
        if scores:
            assert [answer["result"][0]["score"] for answer in answers] == pytest.approx(
                [score(text) for text in self.good.values()]
            )
        errors = [json.loads(line) for line in (self.folder / "out.errors.jsonl").read_text().splitlines()]
        assert sorted(error["line"] for error in errors) == sorted(self.bad)


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def run_trials(folder, wanted: int, rows: int, *options: str, scores: bool = True) -> str:
    """Kill runs until that many were killed, each input until all is answered."""
    chance, kills, trials, kept = random.Random(5), 0, 0, 0
    while kills < wanted:
        trial = Trial(folder / str(trials), chance, rows, *options)
        trials += 1
        while not trial.output.exists() and kills < wanted:
            kills += trial.kill()
            kept += trial.part.exists() and trial.part.stat().st_size > 0
        if not trial.output.exists():
            process = trial.start()
            assert process.communicate()[1] is not None and process.returncode == 3
        elif trial.part.parent.exists():  # killed when it was all but over
            subprocess.run(trial.command, capture_output=True)
        trial.check(scores)
    assert kept
    return f"{kills} kills of runs over {trials} files of {rows} rows; {kept} left answers, each row is there once"


@pytest.mark.slow
def test_many_kills(served, tmp_path, capsys):
    said = run_trials(tmp_path, 40, 3000, "--model", served)
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.slow
def test_kills_of_a_model_in_the_process(tmp_path, capsys):
    said = run_trials(tmp_path, 3, 20_000, scores=False)
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.parametrize("name", exhaustive(["SIGTERM", "SIGINT"], ["SIGINT"]))
def test_an_interruption_says_how_to_go_on(served, tmp_path, name):
    trial = Trial(tmp_path / "trial", random.Random(3), 3000, "--model", served)
    process = trial.start()
    wait_for(lambda: trial.part.exists() and trial.part.stat().st_size > 0)
    process.send_signal(getattr(signal, name))
    said = " ".join(process.communicate()[1].decode().split())
    assert process.returncode == 128 + getattr(signal, name)
    count = len(trial.part.read_bytes().splitlines())
    assert f"Interrupted. {count} answered rows are kept" in said and "--resume" in said and "Traceback" not in said
    done = subprocess.run(trial.command, capture_output=True)
    assert done.returncode == 3, done.stderr
    trial.check()


@pytest.mark.slow  # `test_rows.py` refuses a second run too
def test_two_runs_at_once(served, tmp_path):
    trial = Trial(tmp_path / "trial", random.Random(4), 3000, "--model", served)
    first = trial.start()
    wait_for(lambda: trial.part.exists() and trial.part.stat().st_size > 0)
    for option in ("--resume", "--overwrite"):
        second = subprocess.run([*trial.command[:-1], option], capture_output=True, text=True)
        assert second.returncode == 1 and "Another run is writing" in second.stderr
        assert first.poll() is None, "the first run was too fast for this test"
    first.communicate()
    assert first.returncode == 3
    trial.check()
