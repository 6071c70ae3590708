"""What a first run shows: its answer, and no line of the frameworks beneath."""

import os
import subprocess
import sys

import pytest

from tf_pipeline.terminal import _held_back_stderr, table_console

LOADING = (
    "from tf_pipeline.terminal import load_frameworks; load_frameworks({}); import sys; print('keras' in sys.modules)"
)


@pytest.mark.slow
@pytest.mark.parametrize("verbose", [False, True])
def test_loading_prints_nothing(verbose):
    """With ``verbose`` nothing is loaded: whoever imports TensorFlow next shows all that it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", LOADING.format(verbose)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert (result.stdout.strip(), result.stderr) == (str(not verbose), "")


def test_what_was_held_back_is_shown_when_loading_fails(capfd):
    with pytest.raises(ImportError), _held_back_stderr():
        os.write(2, b"the library says why\n")
        raise ImportError("broken")
    assert capfd.readouterr().err == "the library says why\n"
    os.write(2, b"and it goes on\n")
    assert capfd.readouterr().err == "and it goes on\n"


def test_a_table_in_a_file_is_as_wide_as_its_text(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    from rich.table import Table

    table = Table("text")
    table.add_row("word " * 100)
    table_console().print(table)
    assert ("word " * 100).strip() in capsys.readouterr().out
