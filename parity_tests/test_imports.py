"""The modules of the package import each other in one direction, so that any of them can be imported first."""

import ast
import graphlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tf_pipeline

PACKAGE = Path(tf_pipeline.__file__).parent

# Modules that users and the command line start from, and those that most others are built on.
FIRST = (
    "auto", "checkpoint", "config", "encoder", "heads", "judging.tensors", "model", "models.camembert", "parity.html",
    "parity.tokenization", "pipelines.base", "port.capture", "port.find", "port.gate", "port.model", "port.save",
    "reference.running", "serving.client", "serving.export", "tokenization.in_graph",
)  # fmt: skip

# Everything is imported once, so that other libraries are there; then some modules first, each in its own process.
EACH_ALONE = """
import importlib, os, sys, traceback

everything, first = (names.split() for names in sys.argv[1:])
for name in everything:
    importlib.import_module(name)
for name in first:
    if not (child := os.fork()):
        for loaded in [one for one in sys.modules if one.split(".")[0] == "tf_pipeline"]:
            del sys.modules[loaded]
        try:
            importlib.import_module(name)
        except BaseException:
            print(name, traceback.format_exc(), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
"""


def modules(package: Path) -> dict[str, Path]:
    """Files of a package by the names that they are imported by."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """The modules that each names in an import, wherever in it that stands: in a function, under TYPE_CHECKING."""
    return {name: _imported(name, path, files.keys()) - {name} for name, path in files.items()}


def _imported(name: str, path: Path, known) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            base = base if node.level else node.module
            submodules = {f"{base}.{alias.name}" for alias in node.names}
            found |= submodules & known if submodules <= known else submodules | {base}
    return found & known


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in turn, the first again at the end; empty if there are none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return []


def test_no_module_imports_itself_by_way_of_others():
    graph = imports(modules(PACKAGE))
    assert graph["tf_pipeline.auto"] >= {"tf_pipeline.heads", "tf_pipeline.port.model"}  # the latter in a function
    assert not circle(graph), " → ".join(circle(graph))


@pytest.mark.parametrize(
    "text",
    [
        "from package import b",
        "import package.b",
        "from package.b import name",
        "from . import b",
        "from .b import name",
        "def function():\n    from package.b import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package.b import name",
    ],
)
def test_a_circle_is_found(text, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    for name, content in {"__init__": "", "a": text, "b": "from package.c import x", "c": "import package.a"}.items():
        (package / f"{name}.py").write_text(content)
    assert set(circle(imports(modules(package)))) == {"package.a", "package.b", "package.c"}
    (package / "c.py").write_text("")
    assert not circle(imports(modules(package)))


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_each_module_can_be_imported_and_some_first():
    everything, first = set(modules(PACKAGE)), [f"tf_pipeline.{name}" for name in FIRST]
    if importlib.util.find_spec("apache_beam") is None:  # of an extra that the tests do not need
        everything.remove("tf_pipeline.beam")
    done = run(EACH_ALONE, " ".join(sorted(everything)), " ".join(first))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_neither_framework_is_imported_before_it_is_needed():
    done = run(
        "import sys, tf_pipeline, tf_pipeline.cli.main\n"
        "print(sorted({'torch', 'tensorflow', 'keras', 'transformers'} & set(sys.modules)))"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_functions_are_compiled_in_one_place():
    """Elsewhere TensorFlow would count the traces of all models together, and warn."""
    makers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "tf.function"
    }
    assert makers == {"tracing.py", "serving/export/base.py"}  # the latter makes concrete functions, which do not count
