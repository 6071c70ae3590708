"""``tf-pipeline batch``: as many rows out as in, in every format, also after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from parity_tests.pipeline_helpers import labels_of, tiny_with_tokenizer
from tf_pipeline import AutoTokenizer, files
from tf_pipeline.cli import row_formats
from tf_pipeline.cli.main import app
from tf_pipeline.pipelines import pipeline
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

beam = pytest.importorskip("apache_beam")
pytestmark = pytest.mark.slow

TEXTS = [f"Film {place} was {'good' if place % 2 else 'bad'}. " * (1 + place % 5) for place in range(50)]


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "tf_pipeline.cli", "batch", "text-classification", *map(str, arguments)]


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)


def rows_of(folder: Path) -> tuple[dict[int, object], dict[int, dict]]:
    """Answers and failures by number, none of which may be there twice."""
    kinds = []
    for kind in ("answers", "errors"):
        records = [r for path in sorted((folder / kind).iterdir()) for r in read(path)]
        kinds.append({record["row"]: record for record in records})
        assert len(kinds[-1]) == len(records)
    assert not kinds[0].keys() & kinds[1].keys()
    return {row: record["result"] for row, record in kinds[0].items()}, kinds[1]


def read(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path).to_pylist()
        return [row | {"result": json.loads(row["result"])} for row in table]
    features = [tf.train.Example.FromString(r.numpy()).features.feature for r in tf.data.TFRecordDataset(str(path))]
    return [
        {"row": f["row"].int64_list.value[0], "result": json.loads(f["result"].bytes_list.value[0])} for f in features
    ]


def written(folder: Path, name: str) -> Path:
    """The texts as a file of a format."""
    path = folder / f"rows.{name}"
    if name == "txt":
        path.write_text("\n\n".join(text.strip() for text in TEXTS))
    elif name == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    elif name == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), path, row_group_size=17)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for text in TEXTS:
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
                writer.write(
                    tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()
                )
    return path


@pytest.fixture(scope="module")
def expected() -> list:
    return pipeline("text-classification")(TEXTS, top_k=None)


def assert_answers(results: dict[int, object], expected: list) -> None:
    assert sorted(results) == list(range(1, len(expected) + 1))
    for place, answers in enumerate(expected):
        mine = results[place + 1]
        assert [one["label"] for one in mine] == [one["label"] for one in answers]
        assert [one["score"] for one in mine] == pytest.approx([one["score"] for one in answers], abs=1e-5)


@pytest.mark.parametrize("name", ["txt", "jsonl", "parquet", "tfrecord"])
def test_formats(name, tmp_path, expected):
    done = run(written(tmp_path, name), tmp_path / "out", "--chunk-rows", 12)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "50 rows: 50 answered, 0 failed.\n"
    results, failed = rows_of(tmp_path / "out")
    assert not failed
    assert_answers(results, expected)
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text()) == {"rows": 50, "answered": 50, "failed": 0}


def test_rows_that_fail(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'"good"\n{"x": 1}\nnot json\n"\xff"\n\n"bad"\n')
    done = run(path, tmp_path / "out")
    assert done.returncode == 3 and "5 rows: 2 answered, 3 failed." in done.stdout
    results, failed = rows_of(tmp_path / "out")
    assert set(results) == {1, 5} and set(failed) == {2, 3, 4}
    assert "The key text is missing" in failed[2]["error"] and failed[2]["input"] == {"x": 1}
    assert failed[3]["input"] == "not json" and "not UTF-8" in failed[4]["error"]
    again = run(path, tmp_path / "out")
    assert again.returncode == 1 and "holds the answers already" in again.stderr
    other = run(path, tmp_path / "out", "--chunk-rows", 2)
    assert other.returncode == 1 and "a job of other chunk_rows" in other.stderr
    assert run(path, tmp_path / "out", "--chunk-rows", 2, "--overwrite").returncode == 3
    assert len(list((tmp_path / "out" / "answers").iterdir())) == 3


def test_a_killed_job_goes_on(tmp_path, expected):
    path, folder = written(tmp_path, "jsonl"), tmp_path / "out"
    arguments = [path, folder, "--chunk-rows", 1]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done = folder / "done"
    while not done.is_dir() or len(list(done.iterdir())) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "_SUCCESS").exists()
    finished = {place.name: place.stat().st_mtime_ns for place in done.glob("[0-9]*")}
    assert 3 <= len(finished) < 50
    (folder / "answers" / files._new_name()).write_text("half")  # as a writer that is killed leaves it
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert_answers(rows_of(folder)[0], expected)
    for name, time_of_old in finished.items():
        assert (done / name).stat().st_mtime_ns == time_of_old
    assert not list(folder.rglob(".*"))


def test_several_processes(tmp_path, expected):
    options = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    done = run(written(tmp_path, "jsonl"), tmp_path / "out", "--chunk-rows", 10, *options)
    assert done.returncode == 0, done.stderr
    assert_answers(rows_of(tmp_path / "out")[0], expected)


def test_handler_in_a_pipeline_of_ones_own(expected):
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.testing.test_pipeline import TestPipeline
    from apache_beam.testing.util import assert_that

    from tf_pipeline.beam import PipelineModelHandler

    def check(results):
        assert sorted(round(r[0]["score"], 4) for r in results) == sorted(round(r[0]["score"], 4) for r in expected)

    with TestPipeline() as p:
        answers = (
            p
            | beam.Create(TEXTS)
            | RunInference(PipelineModelHandler("text-classification", parameters={"top_k": None}))
        )
        assert_that(answers, check)


@pytest.mark.parametrize("arguments, message", [
    (["missing.jsonl", "out"], "No file is named missing.jsonl"),
    (["setup.cfg", "out"], "ends in none of .txt"),
    (["setup.cfg", "out", "--format", "csv"], "'csv' is no format"),
    (["setup.cfg", "out", "--parameters", "[]"], "is a JSON object"),
    (["setup.cfg", "out", "--format", "text", "--parameters", '{"top_kk": 2}'], "top_k"),
])  # fmt: skip
def test_wrong_usage(arguments, message, tmp_path):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)
    assert done.returncode in (1, 2) and message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr and not Path("out").exists()


def test_a_record_file_that_is_cut(tmp_path):
    path = written(tmp_path, "tfrecord")
    path.write_bytes(path.read_bytes()[:-3])
    with path.open("rb") as file, pytest.raises(ValueError, match="cut off"):
        list(row_formats.FORMATS["tfrecord"].read(file, 0, 50))


def test_texts_are_cut_as_by_run_in_every_task(tmp_path):
    """The default of the command line, which fill-mask takes by another name; a bad row is one failure."""
    source = tmp_path / "rows.jsonl"
    texts = [{"text": "a [MASK] film"}, {"text": "a [MASK] film " * 400}, {"text": "no mask"}]
    lines = [*map(json.dumps, texts), r'{"text": "\ud800", "more": NaN}']
    source.write_text("\n".join(lines))
    arguments = [sys.executable, "-m", "tf_pipeline.cli", "batch", "fill-mask", str(source), str(tmp_path / "out")]
    model = Path(__file__).parents[1] / "tf_pipeline" / "assets" / "sentiment"
    done = subprocess.run([*arguments, "--model", str(model)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 3, done.stderr
    answers, failures = rows_of(tmp_path / "out")
    assert answers.keys() == {1, 2} and failures.keys() == {3, 4}
    assert failures[4]["input"].strip() == lines[3]


HEADS = {
    "question-answering": ("TFBertForQuestionAnswering", {}, {"question": "Who works?"}),
    "zero-shot-classification": (
        "TFBertForSequenceClassification",
        labels_of(["contradiction", "neutral", "entailment"]),
        {"candidate_labels": ["art", "sport"]},
    ),
    "feature-extraction": ("TFBertModel", {}, {"pooling": "mean", "tokenize_kwargs": {"truncation": False}}),
}


@pytest.mark.parametrize("task", HEADS)
def test_parameters_of_a_task(task, tmp_path):
    class_name, values, parameters = HEADS[task]
    model = tiny_with_tokenizer(class_name, AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT), **values)
    key = "context" if task == "question-answering" else "text"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({key: text}) + "\n" for text in TEXTS[:3]))
    arguments = [sys.executable, "-m", "tf_pipeline.cli", "batch", task, tmp_path / "rows.jsonl", tmp_path / "out"]
    options = ["--model", model, "--parameters", json.dumps(parameters)]
    done = subprocess.run(list(map(str, [*arguments, *options])), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    answers, failures = rows_of(tmp_path / "out")
    assert not failures and sorted(answers) == [1, 2, 3]
    if task == "question-answering":
        pipe = pipeline(task, str(model))
        answer = pipe(question="Who works?", context=TEXTS[0].strip())
        assert answers[1]["answer"] == answer["answer"]


def test_a_job_is_told_from_one_of_other_languages(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr("tf_pipeline.beam.run_job", lambda job, _: found.append(job) or 1 / 0)
    arguments = [str(tmp_path / "rows.txt"), str(tmp_path / "out"), "--model", str(BUNDLED_CHECKPOINT)]
    for task in ("translation_en_to_fr", "translation_en_to_de", "sentiment-analysis"):
        CliRunner().invoke(app, ["batch", task, *arguments])
    names = ["translation_en_to_fr", "translation_en_to_de", "text-classification"]
    assert [job.asked["task"] for job in found] == names


def test_what_cannot_begin_is_one_sentence(tmp_path):
    (tmp_path / "rows.txt").write_text("a film", encoding="utf-16")
    done = run(tmp_path / "rows.txt", tmp_path / "out")
    assert done.returncode == 1 and "Convert it: iconv" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "rows.txt").write_text("a film")
    done = run(tmp_path / "rows.txt", tmp_path / "new", "--model", tmp_path / "absent")
    assert done.returncode == 1 and "absent" in done.stderr and "Traceback" not in done.stderr
