"""The report of a comparison: in Python, as JSON, as a table in the terminal."""

import json
import os
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tf_pipeline.files import write_text
from tf_pipeline.judging.check import Check
from tf_pipeline.parity import html
from tf_pipeline.parity.results import NOT_ASKED, Results, worst_ratio
from tf_pipeline.terminal import table_console

SCHEMA = 1


class Report(Results):
    """All checks of a comparison; they can be printed and written.

    Its attributes are those of :class:`~tf_pipeline.parity.results.Results`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Everything, in the stable schema of :meth:`write_json`."""
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "verdict": self.verdict,
            "checkpoint": self.checkpoint,
            "model_class": self.model_class,
            "seconds": self.seconds,
            "finding": asdict(self.finding) if self.finding else None,
            "skipped": [asdict(skip) for skip in self.skipped],
            "environment": self.environment,
            "checks": [asdict(check) for check in self.checks],
        }

    def write_json(self, path: str | os.PathLike) -> None:
        """Write the verdict and every check. Infinity and NaN, which JSON lacks, are ``"inf"`` and ``"nan"``."""
        write_text(path, json.dumps(_jsonable(self.to_dict()), indent=1, allow_nan=False) + "\n")

    def write_html(self, path: str | os.PathLike) -> None:
        """Write one self-contained page: the verdict, the drift by layer, every check, the environment."""
        write_text(path, html.render(self))

    def print(self, console: Console | None = None) -> None:
        """Print one line per group, setting and dtype, the skipped parts, and the verdict."""
        parts: list[Any] = [_table(self.checks)]
        left_out: dict[str, dict[str, None]] = {}
        for skip in self.skipped:
            left_out.setdefault(skip.reason, {})[skip.group if skip.reason == NOT_ASKED else skip.what] = None
        parts += [Text(f"Not compared: {', '.join(what)}: {reason}", style="dim") for reason, what in left_out.items()]
        if self.finding:
            parts += [Text(line, style="bold red" if not i else "red") for i, line in enumerate(self.finding.lines())]
        parts.append(Text(self.verdict, style="bold green" if self.passed else "bold red"))
        (console or table_console()).print(Group(*parts))


def _table(checks: list[Check]) -> Table:
    """One row a group and dtype for all settings that are equal, and one for each that is not."""
    table = Table("what", "settings", "dtype", "checks", "largest error", "worst RMS / torch's", "verdict")
    unequal = {(check.group, check.dtype, check.setting) for check in checks if not check.passed}
    rows: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        setting = check.setting if (check.group, check.dtype, check.setting) in unequal else ""
        rows.setdefault((check.group, check.dtype, setting), []).append(check)
    for (group, dtype, setting), members in rows.items():
        failed = sum(not check.passed for check in members)
        ratio = worst_ratio(members)
        error = max(check.max_error for check in members)
        table.add_row(
            escape(group),
            escape(setting) or str(len({check.setting for check in members})),
            escape(dtype),
            str(len(members)),
            f"{error:.1e}" if error else "0",
            f"{ratio:.2f}" if ratio else "-",
            "[green]equal" if not failed else "[red]error" if members[-1].is_error else f"[red]{failed} not equal",
        )
    return table


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # infinite or NaN
        return str(value)
    return value
