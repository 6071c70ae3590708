"""Show a training on the terminal: a bar of steps, and a table that grows by a row with each epoch."""

from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_WIDTH = 10


class EpochTable(keras.callbacks.Callback):
    """Prints the numbers of each epoch, and moves a bar, within a ``with`` block that removes the bar however it ends.

    Args:
        console: takes both.
    """

    def __init__(self, console: Console):
        super().__init__()
        self.console, self._names = console, []
        columns = TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, TextColumn("loss {task.fields[loss]}"), console=console, transient=True)

    def __enter__(self) -> "EpochTable":
        return self

    def __exit__(self, *failure: Any) -> None:
        self._bar.stop()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Show the bar."""
        total = self.params["steps"] * self.params["epochs"] if self.params["steps"] else None
        self._task = self._bar.add_task("train", total=total, epoch=1, loss="…")
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show its number."""
        self._bar.update(self._task, epoch=epoch + 1)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move on."""
        loss = (logs or {}).get("loss")
        self._bar.update(self._task, advance=1, loss="…" if loss is None else f"{float(loss):.4g}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print a row."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        if list(values) != self._names:
            self._names = list(values)
            self._print("epoch", *self._names)
        self._print(str(epoch + 1), *(f"{value:.4g}" for value in values.values()))

    def _print(self, first: str, *cells: str) -> None:
        widths = [max(len(name), _WIDTH) for name in self._names]
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        self.console.print(f"{first:>5}  {line}", soft_wrap=True, highlight=False, markup=False)
