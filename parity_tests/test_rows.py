"""Rows of files: what is read, what is written where, and that every row is answered or fails by itself."""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import transformers
from safetensors.numpy import load_file, save_file

from parity_tests.pipeline_helpers import tiny_with_tokenizer
from parity_tests.test_cli import run
from parity_tests.test_cli_run import HEADS
from tf_pipeline.cli import rows
from tf_pipeline.cli import run as cli_run
from tf_pipeline.cli.row_files import Unfinished, unfinished_folder
from tf_pipeline.pipelines import pipeline
from tf_pipeline.pipelines.batching import windows
from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

COMMAND = [sys.executable, "-m", "tf_pipeline.cli", "run", "sentiment-analysis"]


@pytest.fixture(scope="module")
def loaded():
    return pipeline("sentiment-analysis", top_k=None, truncation=True)


@pytest.fixture
def answer(loaded, monkeypatch, tmp_path):
    """Run the command in a folder of its own, with the checkpoint that comes with the package, loaded once."""
    monkeypatch.setattr(cli_run, "pipeline", lambda *_, **__: loaded)
    monkeypatch.chdir(tmp_path)

    def answer(content, *options, output="out.jsonl", source="in.jsonl"):
        if content is not None:
            (tmp_path / source).write_bytes(content if isinstance(content, bytes) else content.encode())
        outputs = ["--output", str(output)] if output else []
        return run("run", "sentiment-analysis", "--input", str(source), *outputs, *options)

    return answer


def strict(path) -> list:
    """The values of a file of strict JSON."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_bytes().splitlines()]


def numbers(path) -> list[int]:
    return [record["line"] for record in strict(path)]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -------------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("kind", ["fifo", "stdin"])
def test_a_pipe_is_read_once(answer, tmp_path, kind):
    reader, writer = os.pipe()
    source = tmp_path / "fifo" if kind == "fifo" else f"/proc/self/fd/{reader}"
    if kind == "fifo":
        os.mkfifo(source)

    def feed():
        with open(source if kind == "fifo" else os.dup(writer), "wb") as file:
            file.write(b'"good"\n"bad"\n')

    thread = threading.Thread(target=feed)
    thread.start()
    os.close(writer) if kind == "fifo" else thread.join()
    if kind == "stdin":
        os.close(writer)
    result = answer(None, source=source)
    thread.join()
    os.close(reader)
    assert result.exit_code == 0, result.output
    assert numbers(tmp_path / "out.jsonl") == [1, 2]


@pytest.mark.slow
def test_standard_input_in_a_process_of_its_own():
    done = subprocess.run([*COMMAND, "--input", "/dev/stdin"], input=b'"good"\n"bad"\n', capture_output=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1, 2]


def test_lines_that_are_odd_fail_by_themselves(answer, tmp_path):
    lines = [
        b'\xef\xbb\xbf"after a mark"\r\n',
        b"\r\n",
        b'"caf\xe9"\n',
        b"   \n",
        b"[" * 100_000 + b"]" * 100_000 + b"\n",
        b"[" * 900 + b"]" * 900 + b"\n",
        b'{"text": "a", "id": ' + b"7" * 5000 + b"}\n",
        b'{"text": "a", "id": NaN}\n',
        b'{"text": "a", "id": Infinity}\n',
        b'{"other": 1e999}\n',
        b'"\\ud800 lone"\n',
        b'{"text": "a", "text_pair": "\\udfff"}\n',
        b'{"text": "a", "text": "b"}\n',
        b'{"text": "a", "more": {"key": 1, "key": 1}}\n',
        b'"the last line has no end"',
    ]
    result = answer(b"".join(lines))
    assert result.exit_code == 3, result.output
    assert [record["line"] for record in strict(tmp_path / "out.jsonl")] == [1, 15]
    errors = {record["line"]: record for record in strict(tmp_path / "out.errors.jsonl")}
    assert sorted(errors) == [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert errors[13]["error"] == "The key 'text' is there more than once." and "'key'" in errors[14]["error"]
    assert errors[13]["input"] == '{"text": "a", "text": "b"}'
    assert errors[3]["input"] == '"caf\\xe9"' and "0xe9 at position 4" in errors[3]["error"]
    assert "nested too deeply" in errors[5]["error"] and errors[5]["input"].startswith("[[[")
    assert "5000 digits" in errors[7]["error"] and "777" in errors[7]["input"]
    assert errors[8]["error"] == "NaN is not JSON." and errors[10]["input"] == '{"other": 1e999}'
    assert errors[11]["input"] == "\ud800 lone" and "surrogate" in errors[11]["error"]
    assert names(tmp_path) == ["in.jsonl", "out.errors.jsonl", "out.jsonl"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(answer, tmp_path, encoding):
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    result = answer((mark + '"good"\n').encode(encoding))
    assert result.exit_code == 1 and encoding[:6].upper() in result.stderr and "iconv" in result.stderr
    assert names(tmp_path) == ["in.jsonl"]


def test_lines_of_standard_input_fail_by_themselves(answer):
    result = run("run", "sentiment-analysis", "--json", stdin=b"\xef\xbb\xbfgood\r\ncaf\xe9\n\nbad\n")
    assert result.exit_code == 3
    assert len([json.loads(line) for line in result.stdout.splitlines()]) == 2
    assert json.loads(result.stderr)["line"] == 2 and json.loads(result.stderr)["input"] == "caf\\xe9"


def test_each_line_of_standard_input_is_answered_before_the_next_is_read(monkeypatch, capsys):
    pipe, printed = pipeline("sentiment-analysis", batch_size=1), []

    def lines():
        for number, line in enumerate((b"good\n", b"caf\xe9\n", b"bad\n", b"fine\n")):
            printed.extend(capsys.readouterr().out.splitlines())
            assert len(printed) == (0, 1, 1, 2)[number]
            yield line

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=lines(), isatty=lambda: False))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=io.BytesIO()))
    assert cli_run._run_texts(lambda: pipe, cli_run.Rows("text-classification", {}), None, as_json=True) == 1
    assert len(printed) == 2 and len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda path: path.open("ab").write(b'\n"more"\n'), False),
        (lambda path: path.open("ab").write(b' "and the rest of the line'), False),
        (lambda path: path.open("r+b").write(b'"best"'), True),
        (lambda path: os.truncate(path, 6), True),
    ],
)
def test_an_input_that_changes_while_it_is_read(answer, tmp_path, monkeypatch, change, changed):
    """What is appended belongs to another run; other rows than those that were hashed are no answers to keep."""
    content_of = rows.content_of

    def then_changed(file):
        content = content_of(file)
        change(tmp_path / "in.jsonl")
        return content

    monkeypatch.setattr(rows, "content_of", then_changed)
    result = answer('"good"\n"bad"')
    if changed:
        assert result.exit_code == 1 and "The input changed while it was read. " in result.stderr
        assert "as the input changed, the run cannot be resumed" in result.stderr.replace("\n", " ")
        assert names(tmp_path) == ["in.jsonl", "out.jsonl.unfinished"]
    else:
        assert result.exit_code == 0 and numbers(tmp_path / "out.jsonl") == [1, 2]


def test_an_id_outside_the_embeddings_fails_its_row(answer, loaded, tmp_path, monkeypatch):
    encode = type(loaded).encode

    def broken(self, inputs, **options):
        encoded = encode(self, inputs, **options)
        for place, text in enumerate(inputs):
            if text == "outside":
                encoded.columns["input_ids"][place][1] = 10**6
        return encoded

    monkeypatch.setattr(type(loaded), "encode", broken)
    result = answer('"good"\n"outside"\n"bad"\n' * 5)
    assert result.exit_code == 3, result.output
    assert numbers(tmp_path / "out.jsonl") == [n for n in range(1, 16) if n % 3 != 2]
    assert numbers(tmp_path / "out.errors.jsonl") == [2, 5, 8, 11, 14]


def test_a_tokenizer_fits_if_its_largest_id_does(loaded):
    def with_ids(ids):
        class Other(type(loaded.tokenizer)):
            def get_vocab(self):
                return ids

        tokenizer = pipeline("sentiment-analysis").tokenizer
        tokenizer.__class__ = Other
        return tokenizer

    size = loaded.model.config.vocab_size
    with pytest.raises(ValueError, match=f"'far' has the id {size}, but"):
        type(loaded)(loaded.model, with_ids({"a": 0, "far": size}))
    type(loaded)(loaded.model, with_ids({"a": 0, "near": size - 1, "same": size - 1}))


def test_an_answer_that_is_not_finite_is_an_error(answer, loaded, tmp_path, monkeypatch):
    run_batch = type(loaded)._run_batch

    def with_nan(self, encoded, batch):
        for row, outputs in zip(batch, run_batch(self, encoded, batch), strict=True):
            nan = len(encoded.columns["input_ids"][row]) == 4
            yield outputs | {"logits": outputs["logits"] * (np.nan if nan else 1)}

    monkeypatch.setattr(type(loaded), "_run_batch", with_nan)
    assert answer('"good"\n"good film"\n').exit_code == 3
    assert numbers(tmp_path / "out.jsonl") == [1]
    assert "NaN" in strict(tmp_path / "out.errors.jsonl")[0]["error"]


@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_no_answer_hides_nan(minilm, tmp_path, task):
    class_name, values = HEADS[task]
    folder = tiny_with_tokenizer(class_name, transformers.AutoTokenizer.from_pretrained(minilm), **values)
    weights = load_file(folder / "model.safetensors")
    table = weights["bert.embeddings.word_embeddings.weight"]
    table[transformers.AutoTokenizer.from_pretrained(minilm).convert_tokens_to_ids("film")] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    texts = ["good", "a film", "bad"]
    rows = [{"question": "What?", "context": text} for text in texts] if task == "question-answering" else texts
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert run("run", task, "--model", str(folder), *files).exit_code == 3
    assert numbers(tmp_path / "out.jsonl") == [1, 3]
    assert "NaN" in strict(tmp_path / "out.errors.jsonl")[0]["error"]


# ------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("name", ["out.jsonl.part", "out.jsonl.tmp", ".out.jsonl", "out.part"])
def test_no_file_of_the_user_is_written_to(answer, tmp_path, name):
    assert answer('"good"\n', source=name).exit_code == 0
    assert (tmp_path / name).read_text() == '"good"\n' and numbers(tmp_path / "out.jsonl") == [1]


def test_a_file_in_the_place_of_the_unfinished_run_is_left_alone(answer, tmp_path):
    folder = tmp_path / "out.jsonl.unfinished"
    for make in (lambda: folder.write_text("mine"), folder.mkdir, lambda: folder.symlink_to(tmp_path)):
        make()
        if folder.is_dir() and not folder.is_symlink():
            (folder / "mine").write_text("mine")
        result = answer('"good"\n', "--overwrite")
        assert result.exit_code == 1 and "in the way" in result.stderr
        assert folder.is_symlink() or (folder if folder.is_file() else folder / "mine").read_text() == "mine"
        if folder.is_dir() and not folder.is_symlink():
            (folder / "mine").unlink()
            folder.rmdir()
        else:
            folder.unlink()


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl"])
def test_the_input_under_another_name_is_no_output(answer, tmp_path, link, name):
    (tmp_path / "in.jsonl").write_text('"good"\n')
    link(tmp_path / "in.jsonl", tmp_path / name)
    result = answer(None, "--overwrite")
    assert result.exit_code == 1 and "overwrite the input" in result.stderr
    assert (tmp_path / "in.jsonl").read_text() == '"good"\n' and len(names(tmp_path)) == 2


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_errors_that_would_go_into_the_output(answer, tmp_path, link):
    (tmp_path / "out.jsonl").write_text("")
    link(tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl")
    result = answer('"good"\n', "--overwrite")
    assert result.exit_code == 1 and "are the same file" in result.stderr


def test_files_that_exist_are_kept_unless_asked(answer, tmp_path):
    for name in ("out.jsonl", "out.errors.jsonl"):
        (tmp_path / name).write_text("of another program")
        result = answer('"good"\n')
        assert result.exit_code == 1 and name in result.stderr and "--overwrite" in result.stderr
        assert answer(None, "--resume").exit_code == 1
        assert (tmp_path / name).read_text() == "of another program"
        assert names(tmp_path) == ["in.jsonl", name]
        (tmp_path / name).unlink()
    (tmp_path / "out.jsonl").write_text("of another program")
    (tmp_path / "out.jsonl").chmod(0o640)
    (tmp_path / "out.errors.jsonl").write_text("of another program")
    assert answer(None, "--overwrite").exit_code == 0
    assert names(tmp_path) == ["in.jsonl", "out.jsonl"] and numbers(tmp_path / "out.jsonl") == [1]
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_complete_run_says_so(answer, tmp_path):
    assert answer('"good"\noops\n').exit_code == 3
    said = answer(None).stderr
    assert "out.errors.jsonl and" in said and "out.jsonl exist, as after a run that is complete; --overwrite" in said


def test_a_folder_that_is_not_there_is_named(answer, tmp_path):
    result = answer('"good"\n', output="nodir/x.out")
    assert result.exit_code == 1 and "nodir/x.out does not exist." in result.stderr
    assert "unfinished" not in result.stderr and names(tmp_path) == ["in.jsonl"]


def test_one_answer_is_no_plural(answer, stopped):
    assert "1 answered row is kept in" in stopped(CONTENT, after=1, kill=ValueError).stderr
    assert "1 answer is in" in answer(None).stderr


def test_a_dash_is_standard_input(answer, tmp_path):
    (tmp_path / "in.jsonl").write_text('"good"\n\n"bad"\n')
    before = os.dup(0)
    with (tmp_path / "in.jsonl").open("rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        result = answer(None, source="-")
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert result.exit_code == 0 and numbers(tmp_path / "out.jsonl") == [1, 3]


def test_links_are_followed(answer, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "out.jsonl").symlink_to("far/real.jsonl")
    assert answer('"good"\noops\n').exit_code == 3
    assert (tmp_path / "out.jsonl").is_symlink() and numbers(tmp_path / "far" / "real.jsonl") == [1]
    assert answer('"good"\n\n"bad"\n').exit_code == 1
    assert answer(None, "--overwrite").exit_code == 0
    assert (tmp_path / "out.jsonl").is_symlink() and numbers(tmp_path / "far" / "real.jsonl") == [1, 3]
    assert names(tmp_path / "far") == ["real.jsonl"]


def test_errors_on_another_file_system(answer, tmp_path, monkeypatch):
    replace = os.replace

    def across(source, target):
        if "unfinished" in str(source) and "errors" in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", across)
    assert answer('"good"\noops\n').exit_code == 3
    assert numbers(tmp_path / "out.errors.jsonl") == [2] and len(names(tmp_path)) == 3


def test_what_is_no_file_is_written_through(answer, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found = []
    thread = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    thread.start()
    result = answer('"good"\noops\n', output=fifo)
    thread.join()
    assert result.exit_code == 3 and json.loads(found[0])["line"] == 1 and fifo.is_fifo()
    assert '"line": 2' in result.stderr
    before = os.stat("/dev/null")
    (tmp_path / "null").symlink_to("/dev/null")
    for output in ("/dev/null", "null"):
        assert answer('"good"\n', output=output).exit_code == 0
    assert os.stat("/dev/null").st_rdev == before.st_rdev and (tmp_path / "null").is_symlink()
    assert "--resume needs an --output that is a file" in answer(None, "--resume", output="/dev/null").stderr
    (tmp_path / "out.errors.jsonl").symlink_to("/dev/null")
    assert answer('"good"\noops\n').exit_code == 3
    assert (tmp_path / "out.errors.jsonl").is_symlink() and numbers(tmp_path / "out.jsonl") == [1]


def test_a_descriptor_is_written_where_it_is(answer, tmp_path):
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        link = tmp_path / "link"
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        assert answer('"good"\n', output=link).exit_code == 0
        file.write(b"after\n")
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert lines[0] == b"before" and lines[2] == b"after" and json.loads(lines[1])["line"] == 1


@pytest.mark.slow
def test_standard_output_by_its_path(tmp_path):
    (tmp_path / "in.jsonl").write_text('"good"\n')
    before = os.readlink("/dev/stdout")
    command = [*COMMAND, "--input", str(tmp_path / "in.jsonl"), "--output", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["line"] == 1 and os.readlink("/dev/stdout") == before


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(tmp_path):
    (tmp_path / "in.jsonl").write_text('"good"\n' * 20_000)
    command = [*COMMAND, "--input", str(tmp_path / "in.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["line"] == 1
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in said and "Error" not in said and "Broken" not in said and "ignored" not in said


def test_a_second_run_is_refused(answer, tmp_path):
    asked = {"input": None}
    with Unfinished(tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl", asked, False, False):
        for options in ([], ["--overwrite"], ["--resume"]):
            result = answer('"good"\n', *options)
            assert result.exit_code == 1 and "Another run is writing" in result.stderr
    assert names(tmp_path) == ["in.jsonl"]
    assert answer(None).exit_code == 0


def test_advice_counts_the_rows_that_are_kept(tmp_path, monkeypatch):
    asked = {"input": {"size": 1}}
    with Unfinished(tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl", asked, False, False) as outputs:
        outputs.answers.write({"line": 1, "result": "good"})
        outputs.answers.file.write(b'{"line": 2, "result": "good"}\n')  # interrupted before it is counted
        assert outputs.advice().startswith("2 answered rows are kept")
    with Unfinished(tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl", asked, False, True) as outputs:
        monkeypatch.setattr(Unfinished, "__exit__", lambda *_: None)  # the folder of a run that is not over
        outputs.finish()
        assert outputs.advice().startswith("2 answered rows are kept")  # where the file is, no count is read


@pytest.mark.parametrize("options", [["--overwrite"], ["--resume"]])
def test_options_that_need_an_output(answer, options):
    result = answer('"good"\n', *options, output=None)
    assert result.exit_code == 2 and "needs --output" in " ".join(result.stderr.split())


# ------------------------------------------------------------------------------------------------------ resuming


class _Stops(Exception):
    """Something that no row is to blame for."""


@pytest.fixture
def stopped(answer, loaded, tmp_path, monkeypatch):
    """Run until some answers are written, and die."""

    def stop(content, after=3, kill=_Stops, options=()):
        write = rows.Unfinished.has  # called for each row that is read
        with monkeypatch.context() as patch:
            stream = type(loaded).stream

            def dying(self, inputs, **parameters):
                for place, one in enumerate(stream(self, inputs, **parameters)):
                    if place == after:
                        raise kill
                    yield one

            patch.setattr(type(loaded), "stream", dying)
            result = answer(content, *options)
        assert rows.Unfinished.has is write and result.exit_code != 0
        return result

    return stop


CONTENT = 'oops\n"good"\n{"text": 1}\n"bad"\n\n"fine"\n"dull"\nno\n"last"\n'


def test_a_run_is_resumed(answer, stopped, tmp_path):
    stopped(CONTENT)
    folder = unfinished_folder(tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists() and len(strict(folder / "answers.jsonl")) == 3
    kept = (folder / "answers.jsonl").read_bytes()
    result = answer(None)
    assert result.exit_code == 1 and "3 answers are in" in result.stderr and "--resume" in result.stderr
    result = answer(None, "--resume")
    assert result.exit_code == 3 and "5 answered" in result.stderr and "3 failed" in result.stderr
    assert (tmp_path / "out.jsonl").read_bytes().startswith(kept)
    assert numbers(tmp_path / "out.jsonl") == [2, 4, 6, 7, 9]
    assert sorted(numbers(tmp_path / "out.errors.jsonl")) == [1, 3, 8]
    assert names(tmp_path) == ["in.jsonl", "out.errors.jsonl", "out.jsonl"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_last_line_that_was_cut_off_is_done_again(answer, stopped, tmp_path, cut):
    stopped(CONTENT)
    for name in ("answers.jsonl", "errors.jsonl"):
        path = unfinished_folder(tmp_path / "out.jsonl") / name
        path.write_bytes(path.read_bytes()[:-cut])
    assert answer(None, "--resume").exit_code == 3
    assert numbers(tmp_path / "out.jsonl") == [2, 4, 6, 7, 9]
    assert sorted(numbers(tmp_path / "out.errors.jsonl")) == [1, 3, 8]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda text: text.replace("last", "lost"), [], "input changed"),
        (lambda text: text + '"more"\n', [], "input changed"),
        (lambda text: text.replace("good", "best"), [], "input changed"),
        (lambda text: text, ["--top-k", "1"], "options changed"),
        (lambda text: text, ["--dtype", "float64"], "dtype changed"),
    ],
)
def test_what_changed_is_not_resumed(answer, stopped, tmp_path, change, options, message):
    stopped(CONTENT)
    before = (unfinished_folder(tmp_path / "out.jsonl") / "answers.jsonl").read_bytes()
    result = answer(change(CONTENT), "--resume", *options)
    assert result.exit_code == 1 and message in " ".join(result.stderr.split())
    assert (unfinished_folder(tmp_path / "out.jsonl") / "answers.jsonl").read_bytes() == before
    assert answer(None, "--overwrite", *options).exit_code == 3
    assert len(numbers(tmp_path / "out.jsonl")) >= 5 and "out.jsonl.unfinished" not in names(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_answers_of_two_models_are_not_mixed(answer, stopped, tmp_path, monkeypatch, name):
    monkeypatch.setattr("tf_pipeline.hub._READ", 10_000)  # the weights are larger
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED_CHECKPOINT, folder)
    stopped(CONTENT, options=["--model", "model"])
    (folder / "notes.md").write_text("not of the model")
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(before.replace(b" ", b"  ") if name == "config.json" else before)
    result = answer(None, "--resume", "--model", "model")
    assert result.exit_code == 1 and "files of the model changed" in result.stderr
    assert answer(None, "--overwrite", "--model", "model").exit_code == 3


def test_what_is_no_file_of_the_model_may_change(answer, stopped, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED_CHECKPOINT, folder)
    stopped(CONTENT, options=["--model", "model"])
    (folder / "notes.md").write_text("not of the model")
    assert answer(None, "--resume", "--model", "model").exit_code == 3


def test_a_run_that_may_overwrite_may_be_resumed(answer, stopped, tmp_path):
    (tmp_path / "out.jsonl").write_text("earlier")
    stopped(CONTENT, options=["--overwrite"])
    assert (tmp_path / "out.jsonl").read_text() == "earlier"
    assert answer(None, "--resume").exit_code == 3
    assert numbers(tmp_path / "out.jsonl") == [2, 4, 6, 7, 9]


def test_a_file_that_came_in_between_is_kept(answer, stopped, tmp_path):
    stopped(CONTENT)
    (tmp_path / "out.jsonl").write_text("of another program")
    result = answer(None, "--resume")
    assert result.exit_code == 1 and "exists," in result.stderr and "5 answered rows are kept" in result.stderr
    assert (tmp_path / "out.jsonl").read_text() == "of another program"
    assert answer(None, "--resume", "--overwrite").exit_code == 3
    assert numbers(tmp_path / "out.jsonl") == [2, 4, 6, 7, 9]
    assert names(tmp_path) == ["in.jsonl", "out.errors.jsonl", "out.jsonl"]


@pytest.mark.parametrize("step", range(4))
def test_files_half_in_place_are_put_there(answer, tmp_path, monkeypatch, step):
    calls = []

    def dying(call):
        def then(*arguments, **options):
            calls.append(call)
            if len(calls) == step + 1:
                raise _Stops
            return call(*arguments, **options)

        return then

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr("tf_pipeline.cli.row_files.Unfinished.__exit__", lambda self, *_: self._lock.release())
        patch.setattr("tf_pipeline.cli.row_files.Unfinished._place", dying(Unfinished._place))
        result = answer(CONTENT)
    assert isinstance(result.exception, _Stops) == (step < 4)
    assert answer(None, "--resume").exit_code == 3
    assert numbers(tmp_path / "out.jsonl") == [2, 4, 6, 7, 9]
    assert names(tmp_path) == ["in.jsonl", "out.errors.jsonl", "out.jsonl"]


def test_a_pipe_cannot_be_resumed(answer, stopped, tmp_path):
    stopped(CONTENT)
    os.mkfifo(tmp_path / "fifo")

    def feed():
        with contextlib.suppress(BrokenPipeError):
            (tmp_path / "fifo").write_text(CONTENT)

    thread = threading.Thread(target=feed)
    thread.start()
    result = answer(None, "--resume", source="fifo")
    thread.join()
    assert result.exit_code == 1 and "cannot be known" in result.stderr


def test_a_run_without_answers_leaves_nothing(answer, stopped, tmp_path):
    stopped('"good"\n', after=0)
    assert names(tmp_path) == ["in.jsonl"]


# ---------------------------------------------------------------------------------------------------- generators


def test_what_was_read_is_answered_before_a_generator_fails(loaded):
    def texts():
        yield "good"
        yield "bad"
        raise KeyError("third")

    for stream in (loaded(texts()), loaded.stream(texts())):
        assert len([next(stream), next(stream)]) == 2
        with pytest.raises(KeyError, match="third"):
            next(stream)


def test_windows_of_a_generator_grow():
    assert [len(window) for window in windows(iter(range(40)), 8)] == [1, 2, 4, 8, 8, 8, 8, 1]
    assert [len(window) for window in windows(list(range(20)), 8)] == [8, 8, 4]


def test_a_slow_source_is_not_waited_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tf_pipeline.pipelines.batching.time.monotonic", lambda: now[0])

    def slow():
        for place in range(6):
            now[0] += 0.6
            yield place

    assert [len(window) for window in windows(slow(), 8)] == [1, 2, 2, 1]


def test_a_data_set_of_unknown_length(loaded):
    texts = tf.data.Dataset.from_generator(lambda: iter(["good", "bad"]), output_signature=tf.TensorSpec([], tf.string))
    assert len(list(loaded(texts))) == 2
