"""What a first run shows: its answer, and no line of the frameworks beneath."""

import json
import os
import subprocess
import sys

import pytest

from tf_pipeline import pipeline
from tf_pipeline.cli.run import _is_native
from tf_pipeline.terminal import _held_back_stderr, _hidden, _loaded_later, load_frameworks, table_console

PACKED = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"

LOADING = """
import sys
from tf_pipeline.terminal import load_frameworks
load_frameworks({})
print(*(name for name in ("keras", "matplotlib", "pandas", "sklearn", "torch", "transformers") if name in sys.modules))
import transformers
from transformers import modeling_rope_utils
print(transformers.is_torch_available(), modeling_rope_utils.torch.arange(2).sum().item(), "torch" in sys.modules)
import sklearn, torch
print(modeling_rope_utils.torch is torch)
"""


@pytest.mark.slow
@pytest.mark.parametrize("verbose", [False, True])
def test_frameworks_load_alone_and_print_only_if_asked_to(verbose):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", LOADING.format(verbose)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.splitlines() == ["keras transformers", "True 1 True", "True"]
    assert bool(result.stderr) == verbose


def test_a_package_that_loads_later_takes_its_place_at_first_use(tmp_path, monkeypatch):
    (tmp_path / "sums").mkdir()
    (tmp_path / "sums" / "__init__.py").write_text("import sums.parts\nfrom sums.parts import two\n")
    (tmp_path / "sums" / "parts.py").write_text("two = 2\n")
    (tmp_path / "user.py").write_text("import sums\nimport sums as other\n")
    monkeypatch.syspath_prepend(tmp_path)
    with _loaded_later("sums"):
        import user
    assert not {"sums", "sums.parts"} & set(sys.modules)
    later = user.sums
    assert later.two == later.parts.two == 2
    assert user.sums is user.other is sys.modules["sums"] is not later
    with _loaded_later("sums"):
        assert sys.modules["sums"] is user.sums
    with _loaded_later("absent_package"):
        assert "absent_package" not in sys.modules
    for name in ("sums", "sums.parts", "user"):
        del sys.modules[name]


def test_a_hidden_package_is_there_afterwards(tmp_path, monkeypatch):
    (tmp_path / "plots.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with _hidden(("plots", "sys")):
        with pytest.raises(ImportError):
            import plots
        import sys as loaded  # what is loaded already stays
    assert loaded is sys
    import plots

    assert sys.modules.pop("plots") is plots


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


@pytest.mark.slow
def test_the_command_line_keeps_packed_weights_of_native_models_alone(tmp_path):
    """In a process of its own, as the setting is read once; answers of many lengths are those of this process."""
    texts = ["good", "a very " * 20 + "bad film", "not bad at all", "good"]
    command = (
        "import os, sys; sys.argv[1:] = {}; from tf_pipeline.cli.main import main\ntry: main()\nfinally: print({})"
    )
    shown = "os.environ.get('TF_ONEDNN_ASSUME_FROZEN_WEIGHTS')"
    arguments = ["run", "text-classification", "--json", "--batch-size", "2", *texts]
    environment = {name: value for name, value in os.environ.items() if name != PACKED}
    result = subprocess.run(
        [sys.executable, "-c", command.format(arguments, shown)], capture_output=True, text=True, env=environment
    )
    *answers, packed = result.stdout.splitlines()
    assert packed == "1", result.stderr
    expected = pipeline("text-classification", top_k=None)(texts)
    for answer, scores in zip(map(json.loads, answers), expected, strict=True):
        for mine, own in zip(answer, scores, strict=True):
            assert (mine["label"], round(mine["score"], 5)) == (own["label"], round(own["score"], 5))
    assert not _is_native(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "xlnet"}')
    assert not _is_native(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    assert _is_native(tmp_path)
    load_frameworks(packed_weights=True)  # where TensorFlow is loaded, and may train
    assert PACKED not in os.environ
