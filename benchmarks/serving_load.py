"""Many clients at once on an exported model: is every answer right, does memory stay?

    pip install ".[bench]"
    tf-pipeline export CHECKPOINT OUT --task text-classification
    python benchmarks/serving_load.py OUT --checkpoint CHECKPOINT
    python benchmarks/serving_load.py OUT --checkpoint CHECKPOINT --requests 2000 --grpc --json load.json

    tf-pipeline export WRITER OUT --task text-generation --no-do-sample --max-length 32 --max-new-tokens 16
    python benchmarks/serving_load.py OUT --checkpoint WRITER --task text-generation --max-length 32 --max-new-tokens 16

Starts the loopback server of the tests with batching on, so that rows of several requests run together. That is test
equipment in Python: right answers and the memory of TensorFlow's runtime can be judged with it, the speed of TensorFlow
Serving cannot. With ``--url`` the requests go to a server that runs already; its memory is then not measured.

Each request holds 1 to 4 texts of 1 to 400 words. What the local pipeline answers to the same texts is computed
beforehand, each text by itself: padding to the other rows of a batch must not change a label, nor a score by more than
1e-5, nor one character of a text that was written. Every tenth request is wrong in some way, and has to be refused, or
to leave the good rows of its batch alone. Of the others to a model that writes, every third reads its text as a stream,
some tokens at a time.

The exit status is 1 if an answer was wrong or lost, or if the server's memory grew by more than ``--most-growth``
percent after the first 2,000 requests (fewer than some 3,000 are too few to tell), or ``--warm-up`` of them.
"""

import argparse
import base64
import contextlib
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import urllib3
from harness import (
    console,
    environment,
    positive,
    print_environment,
    print_table,
    run_apart,
    watch_others,
    work_folder,
    write_json,
)

from tf_pipeline.serving import Client

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = ROOT / "parity_tests" / "data" / "film_reviews.txt"
# Words that no review has: other scripts, combining marks, emoji, quotes, and characters that JSON has to escape.
RARE_WORDS = [
    "東京",
    "e\u0301lan",
    "🤗",
    "naïve",
    "Straße",
    '"quoted"',
    "back\\slash",
    "tab\there",
    "\u2028",
    "İstanbul",
    "\0",
]
LONGEST_TEXT = 400
MOST_TEXTS = 4
# Share of the requests that are wrong.
WRONG_SHARE = 0.1
# Requests after which memory is first measured: while new lengths and batch sizes come up, a runtime's pools fill.
WARM_UP = 2000
SCORE_TOLERANCE = 1e-5
# Bytes that are no UTF-8.
BAD_BYTES = (b"\xff\xfe", b"caf\xe9 au lait", b"\xed\xa0\x80", b"good \xf0\x9f film")

# Share of good requests to a model that writes that read a stream, and the tokens of a step.
STREAM_SHARE, STEP_TOKENS = 1 / 3, (1, 8)

Labels = list[dict[str, Any]]
CLASSIFICATION, GENERATION = "text-classification", "text-generation"


# ------------------------------------------------------------------------------------------------------- the requests


def make_texts(count: int, generator: random.Random) -> list[str]:
    """Texts of 1 to 400 words, short ones more often, from sentences of film reviews."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if not line.startswith("#") for word in line.split()]
    texts = []
    for _ in range(count):
        length = round(LONGEST_TEXT ** generator.random())
        start = generator.randrange(len(words) - length)
        text = words[start : start + length]
        if generator.random() < 0.2:
            text[generator.randrange(length)] = generator.choice(RARE_WORDS)
        texts.append(" ".join(text))
    return list(dict.fromkeys(texts))


def local_answers(task: str, checkpoint: str, texts: list[str], options: dict[str, Any]) -> list[Any]:
    """What the local pipeline says, text by text; runs in a process of its own."""
    from tf_pipeline import pipeline

    pipe = pipeline(task, model=checkpoint)
    if task == GENERATION:
        pipe.tokenizer.truncation_side = "left"
        cut = {"truncation": True, "max_length": options.pop("max_length")}
        answers = pipe(texts, batch_size=1, do_sample=False, tokenizer_encode_kwargs=cut, **options)
        return [one["generated_text"] for (one,) in answers]
    return pipe(texts, batch_size=1, top_k=None, truncation=True, **options)


def same(found: Labels | str, expected: Labels | str) -> bool:
    """Whether texts, or labels and scores, agree, best first; an export may give fewer labels than there are."""
    if isinstance(expected, str):
        return found == expected
    scores = {one["label"]: one["score"] for one in expected}
    close = all(abs(one["score"] - scores.get(one["label"], float("nan"))) <= SCORE_TOLERANCE for one in found)
    falling = all(one["score"] >= two["score"] for one, two in zip(found, found[1:], strict=False))
    best = bool(found) and found[0]["score"] >= max(scores.values()) - SCORE_TOLERANCE
    return close and falling and best


@dataclass
class Wrong:
    """A request that is wrong, sent by hand: what is sent, and what has to come back.

    Attributes:
        kind: name in the report.
        body: of the request.
        statuses: that are right.
        rows: places of good texts among the rows, whose answers still have to be right, by the text's number.
    """

    kind: str
    body: bytes
    statuses: tuple[int, ...] = (400,)
    rows: dict[int, int] = field(default_factory=dict)


def wrong_request(generator: random.Random, texts: list[str]) -> Wrong:
    """One of the ways in which a request can be wrong."""
    number = generator.randrange(len(texts))
    good = json.dumps({"inputs": {"text": [texts[number]]}}).encode()
    bad = {"b64": base64.b64encode(generator.choice(BAD_BYTES)).decode()}
    ways = [
        Wrong("cut JSON", good[: generator.randrange(1, len(good))]),
        Wrong("no JSON", b"text=" + texts[number].encode()),
        Wrong("other inputs", json.dumps({"inputs": {"texts": [texts[number]]}}).encode()),
        Wrong("numbers", json.dumps({"inputs": {"text": [1, 2]}}).encode()),
        Wrong("ragged lists", json.dumps({"inputs": {"text": [["a"], ["b", "c"]]}}).encode()),
        Wrong("other signature", json.dumps({"signature_name": "none", "inputs": {"text": ["a"]}}).encode()),
        Wrong("no rows", b'{"instances": []}'),
        # TF Serving runs a batch of no rows; that may succeed or be refused, but may not hurt anybody.
        Wrong("empty list", b'{"inputs": {"text": []}}', (200, 400)),
        Wrong("no UTF-8", json.dumps({"inputs": {"text": [texts[number], bad, texts[number]]}}).encode(), (200,),
              {0: number, 2: number}),
    ]  # fmt: skip
    return generator.choice(ways)


# -------------------------------------------------------------------------------------------------------- the server


class Server:
    """The loopback server in a process of its own, with batching."""

    def __init__(self, export: Path, batch_size: int, log: Path):
        command = [sys.executable, "-m", "parity_tests.loopback_server", "--base-path", str(export.resolve()), "--name",
                   "model", "--batching", "--max-batch-size", str(batch_size)]  # fmt: skip
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, cwd=ROOT)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The server did not start: {log.read_text()[-2000:]}")
        ports = json.loads(line)
        self.rest = f"http://127.0.0.1:{ports['rest_port']}/v1/models/model"
        self.grpc = f"grpc://127.0.0.1:{ports['grpc_port']}/model"
        self.counts = f"http://127.0.0.1:{ports['rest_port']}/loopback"

    def memory(self) -> int:
        """Resident bytes."""
        return psutil.Process(self.process.pid).memory_info().rss

    def runs(self) -> int:
        """How often the model ran."""
        with urlopen(self.counts, timeout=30) as answer:
            return json.loads(answer.read())["runs"]

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(30)


@contextlib.contextmanager
def serving(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, Server | None]]:
    """Addresses for good and for wrong requests, and the server if it is ours."""
    if args.url:
        yield args.url, args.url, None
        return
    with console.status("Starting the server"):
        server = Server(args.export, args.batch_size, folder / "server.log")
    try:
        yield server.grpc if args.grpc else server.rest, server.rest, server
    finally:
        server.close()


# ---------------------------------------------------------------------------------------------------------- the load


class Load:
    """Sends requests from many threads and judges every answer.

    Attributes:
        sent: number of requests of each kind.
        wrong: number of wrong answers of each kind.
        lost: number of requests of each kind without an answer.
        seconds: of each good request.
        memory: the server's resident bytes, by the number of requests that were done.
        examples: what went wrong, the first few times.
    """

    def __init__(self, task: str, url: str, raw_url: str, texts: list[str], expected: list[Any], server: Server | None):
        self.task = task
        self.url, self.raw_url = url, f"{raw_url}:predict"
        self.texts, self.expected, self.server = texts, expected, server
        self.pool = urllib3.PoolManager(maxsize=64)
        self.sent, self.wrong, self.lost = Counter(), Counter(), Counter()
        self.seconds: list[float] = []
        self.memory: dict[int, int] = {}
        self.examples: list[str] = []
        self._lock = threading.Lock()
        self._here = threading.local()

    def run(self, requests: int, clients: int) -> float:
        """Send all requests; returns the seconds that took."""
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads, console.status("") as status:
            for done, _ in enumerate(threads.map(self.one, range(requests)), 1):
                if done % max(1, requests // 50) == 0:
                    status.update(f"{done} of {requests} requests, {sum(self.wrong.values())} wrong")
                    if self.server is not None:
                        self.memory[done] = self.server.memory()
        return time.perf_counter() - start

    def one(self, number: int) -> None:
        """Send one request and judge the answer."""
        generator = random.Random(number)
        if generator.random() < WRONG_SHARE:
            request = wrong_request(generator, self.texts)
            self._judge(request.kind, lambda: self._send_wrong(request))
        else:
            numbers = [generator.randrange(len(self.texts)) for _ in range(generator.randint(1, MOST_TEXTS))]
            if self.task == GENERATION and generator.random() < STREAM_SHARE:
                step = generator.randint(*STEP_TOKENS)
                self._judge("stream", lambda: self._read_stream(numbers[0], step))
            else:
                self._judge("good", lambda: self._send_good(numbers))

    def _judge(self, kind: str, send: Callable[[], str | None]) -> None:
        start = time.perf_counter()
        try:
            problem, table = send(), self.wrong
        except Exception as error:
            problem, table = f"{type(error).__name__}: {error}", self.lost
        seconds = time.perf_counter() - start
        with self._lock:
            self.sent[kind] += 1
            if kind == "good":
                self.seconds.append(seconds)
            if problem:
                table[kind] += 1
                if len(self.examples) < 10:
                    self.examples.append(f"{kind}: {problem:.300}")

    @property
    def _client(self) -> Client:
        """The client of this thread."""
        if not hasattr(self._here, "client"):
            self._here.client = Client(self.url, task=self.task)
        return self._here.client

    def _send_good(self, numbers: list[int]) -> str | None:
        texts = [self.texts[number] for number in numbers]
        if self.task == GENERATION:
            found = [one["generated_text"] for (one,) in self._client(texts)]
        else:
            found = self._client(texts, top_k=None)
        if len(found) != len(numbers):
            return f"{len(numbers)} texts, {len(found)} answers"
        return next(filter(None, map(self._problem, numbers, found)), None)

    def _read_stream(self, number: int, step: int) -> str | None:
        return self._problem(
            number, self.texts[number] + "".join(self._client.stream_text(self.texts[number], step_tokens=step))
        )

    def _problem(self, number: int, found: Any, where: str = "") -> str | None:
        """Whether an answer to a text is not the local pipeline's, in words."""
        if same(found, self.expected[number]):
            return None
        return f"{self.texts[number]!r:.80}{where} gave {found!r:.200}, not {self.expected[number]!r:.200}"

    def _send_wrong(self, request: Wrong) -> str | None:
        answer = self.pool.request("POST", self.raw_url, body=request.body, timeout=60, retries=False)
        document = json.loads(answer.data)
        if answer.status not in request.statuses:
            return f"HTTP {answer.status}: {document}"
        if answer.status == 400:
            return None if document.get("error") else "refused without a reason"
        outputs = document["outputs"]
        if self.task == GENERATION:
            rows: list[Any] = outputs["generated_text"]
        else:
            pairs = zip(outputs["labels"], outputs["scores"], strict=True)
            rows = [[{"label": label, "score": score} for label, score in zip(*row, strict=True)] for row in pairs]
        problems = (self._problem(number, rows[place], " beside a bad row") for place, number in request.rows.items())
        return next(filter(None, problems), None)


# ---------------------------------------------------------------------------------------------------------- the report


def growth(memory: list[int]) -> float | None:
    """Percent by which memory grew after warming up: the median of the last samples over that of the first ones."""
    if len(memory) < 6:
        return None
    return (statistics.median(memory[-3:]) / statistics.median(memory[:3]) - 1) * 100


def print_report(load: Load, report: dict[str, Any]) -> None:
    """What was sent and what became of it, then speed and memory."""
    rows = [[kind, str(sent), str(load.wrong[kind]), str(load.lost[kind])] for kind, sent in sorted(load.sent.items())]
    rows.append(["all", *(str(sum(table.values())) for table in (load.sent, load.wrong, load.lost))])
    print_table("Requests", ["kind", "sent", "wrong", "lost"], rows, ours="all")
    latency = report["latency_ms"]
    rows = [
        ["requests/s", f"{report['requests_per_second']:.0f}"],
        ["requests for a run of the model", show(report["requests_per_run"], ".2f")],
        *([f"latency, {name}, ms", f"{value:.1f}"] for name, value in latency.items()),
        ["memory after warming up, MB", show(report["memory_mb"] and report["memory_mb"][0], ".0f")],
        ["memory at the end, MB", show(report["memory_mb"] and report["memory_mb"][-1], ".0f")],
        ["growth, %", show(report["growth_percent"], ".1f")],
    ]
    print_table("Server", ["", ""], rows)
    for example in load.examples:
        console.print(example, style="red", markup=False)


def show(value: float | None, form: str) -> str:
    """A number, or that there is none."""
    return "–" if value is None else format(value, form)


def summary(load: Load, seconds: float, requests: int, runs: int | None, warm_up: int) -> dict[str, Any]:
    """The numbers of the report."""
    percentiles = statistics.quantiles(load.seconds, n=100, method="inclusive")
    memory = [size for done, size in sorted(load.memory.items()) if done >= warm_up]
    points = {"median": percentiles[49], "90 %": percentiles[89], "99 %": percentiles[98], "worst": max(load.seconds)}
    return {
        "requests": requests,
        "sent": dict(load.sent),
        "wrong": dict(load.wrong),
        "lost": dict(load.lost),
        "requests_per_second": requests / seconds,
        "requests_per_run": requests / runs if runs else None,
        "latency_ms": {name: value * 1000 for name, value in points.items()},
        "memory_mb": [size / 2**20 for size in memory] or None,
        "growth_percent": growth(memory),
        "examples": load.examples,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, nargs="?", help="folder of the export: with a folder for each version")
    parser.add_argument("--checkpoint", required=True, help="what was exported: a folder or a hub id")
    parser.add_argument(
        "--task", choices=[CLASSIFICATION, GENERATION], default=CLASSIFICATION, help="(default: %(default)s)"
    )
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="of an export that writes")
    parser.add_argument(
        "--warm-up", type=positive, default=WARM_UP, metavar="N",
        help="requests before memory is measured (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--url", help="instead of the folder: REST address of the model on a server that runs already")
    parser.add_argument("--requests", type=positive, default=10_000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--clients", type=positive, default=8, metavar="N", help="at once (default: %(default)s)")
    parser.add_argument(
        "--texts", type=positive, default=500, metavar="N", help="different ones (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="of the server (default: %(default)s)"
    )
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="tokens, if the export cuts texts at another length"
    )
    parser.add_argument("--function", help="function_to_apply of the export, if not the checkpoint's own")
    parser.add_argument("--grpc", action="store_true", help="send good requests by gRPC (wrong ones always by REST)")
    parser.add_argument("--most-growth", type=float, default=5.0, metavar="PERCENT", help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep the server's log here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file")
    args = parser.parse_args()
    if (args.export is None) == (args.url is None):
        parser.error("give the folder of an export, or --url")
    if args.task == GENERATION and None in (args.max_length, args.max_new_tokens):
        parser.error("text-generation needs --max-length and --max-new-tokens, those of the export")
    return args


def main() -> None:
    """Send, judge, print, and write what was asked for."""
    args = parse()
    facts = environment()
    print_environment(facts)
    options = {"max_length": args.max_length, "function_to_apply": args.function, "max_new_tokens": args.max_new_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    with work_folder(args.work) as folder, watch_others(facts):
        texts = make_texts(args.texts, random.Random(0))
        with console.status(f"Answers of the local pipeline to {len(texts)} texts"):
            expected = run_apart(local_answers, args.task, args.checkpoint, texts, options)
        with serving(args, folder) as (url, raw_url, server):
            load = Load(args.task, url, raw_url, texts, expected, server)
            seconds = load.run(args.requests, args.clients)
            report = summary(load, seconds, args.requests, server and server.runs(), args.warm_up)
    print_report(load, report)
    write_json(args.json, {"environment": facts, "clients": args.clients, **report})
    if sum(load.wrong.values()) + sum(load.lost.values()):
        raise SystemExit("Some answers were wrong or lost.")
    if report["growth_percent"] is not None and report["growth_percent"] > args.most_growth:
        raise SystemExit(f"The server's memory grew by more than {args.most_growth:g} %.")


if __name__ == "__main__":
    main()
