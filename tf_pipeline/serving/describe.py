"""Print the inputs and outputs of a SavedModel."""

import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tf_pipeline.serving.saved_model import dtype_name, read_saved_model, shown_shape, signatures
from tf_pipeline.terminal import table_console


def describe(path: str | os.PathLike, console: Console | None = None) -> None:
    """Print the signatures of a SavedModel, its tensors with dtype and shape, and its size.

    Args:
        path: folder of a SavedModel, such as ``model/1``.
        console: the console to print on; by default the standard output.

    Raises:
        FileNotFoundError: if there is no SavedModel.
        ValueError: if ``saved_model.pb`` is not a SavedModel.
    """
    console = console or table_console()
    for meta_graph in read_saved_model(path).meta_graphs:
        tags = ", ".join(meta_graph.meta_info_def.tags)
        table = Table("signature", "", "name", "dtype", "shape", title=f"{path} ({tags})", title_justify="left")
        for name, signature in signatures(meta_graph).items():
            first = name
            for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
                for key in sorted(tensors):
                    table.add_row(first, kind, key, dtype_name(tensors[key].dtype), shown_shape(tensors[key]))
                    first = ""
            table.add_section()
        console.print(table)
    graph, variables = (_megabytes(Path(path), pattern) for pattern in ("saved_model.pb", "variables/*"))
    console.print(f"graph {graph:.1f} MB, variables {variables:.1f} MB", highlight=False)


def _megabytes(folder: Path, pattern: str) -> float:
    return sum(file.stat().st_size for file in folder.glob(pattern)) / 1e6
