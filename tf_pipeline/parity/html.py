"""A report as one HTML page that opens offline: no script, no request, light and dark.

The contents are chosen and measured here; ``report.html.j2`` lays it out.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tf_pipeline.judging import rules
from tf_pipeline.judging.check import GROUPS, Check
from tf_pipeline.parity.results import Results

# Rows of the table of all checks beyond which only failures and the worst are shown: a browser gets slow.
MOST_ROWS = 3000
MOST_OFFENDERS = 15
MOST_FAMILIES = 12

# Groups share a table if the smaller has at least this part of the columns; else most of its cells would be empty.
SHARED_COLUMNS = 0.25

# Upper ends of the colours of the heat map; failures have their own.
HEAT_STEPS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

DTYPES = (*rules.EPSILON, "exact")

# The drawing area of a plot, in units of the SVG's viewBox.
WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 14, 48
LANE = 32

_HIDDEN_STATE = re.compile(r"((?:\w+_)?hidden_states)\.(\d+)")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Characters that neither HTML nor UTF-8 can hold: control characters and lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render(report: Results) -> str:
    """Lay a report out as one self-contained HTML page.

    Args:
        report: the comparison; it may be empty.

    Returns:
        The page. Everything that the report says is escaped.

    Raises:
        ImportError: if jinja2 is not installed.
    """
    ranked = sorted(report.checks, key=rank)
    listed = report.checks
    if len(listed) > MOST_ROWS:
        kept = {id(check) for check in ranked[: max(MOST_ROWS, len(report.failures))]}
        listed = [check for check in listed if id(check) in kept]
    page = _template().render(
        report=report,
        failed=len(report.failures),
        elements=sum(check.elements for check in report.checks),
        double=max((finite(c.max_error) for c in report.checks if c.dtype == "float64"), default=None),
        groups=GROUPS,
        panels=drift_panels(report.checks),
        blocks=heat_blocks(report.checks),
        heat_steps=HEAT_STEPS,
        unequal=list(dict.fromkeys((check.group, check.setting) for check in report.failures)),
        offenders=ranked[:MOST_OFFENDERS],
        listed=listed,
        skipped=Counter((skip.group, skip.what, skip.reason) for skip in report.skipped),
        environment=list(flat(report.environment)),
        judge=rules,
    )
    return _UNPRINTABLE.sub("\ufffd", page)


def _template() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ImportError('The HTML report needs jinja2: pip install "tf-pipeline[parity]"') from error
    environment = Environment(
        loader=PackageLoader("tf_pipeline.parity", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "value": value,
        "severity": severity_text,
        "count": "{:,}".format,
        "dotted": lambda name: Markup(".<wbr>").join(name.split(".")),  # long keys break at dots; join escapes
    }
    return environment.get_template("report.html.j2")


# ------------------------------------------------------------------------------------------------------------ numbers


def finite(error: float) -> float:
    """NaN as infinity: as bad, but it can be ordered."""
    return math.inf if math.isnan(error) else error


def rank(check: Check) -> tuple[bool, float]:
    """Sort key: failures first, then the largest shares of the allowed error."""
    return check.passed, -finite(check.severity)


def number(error: float | None, digits: int = 2) -> str:
    """An error in few characters, such as ``2.4e-7``; a dash for none."""
    if error is None:
        return "–"
    if not math.isfinite(error):
        return "NaN" if math.isnan(error) else "∞" if error > 0 else "−∞"
    if not error:
        return "0"
    mantissa, exponent = f"{error:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def value(element: float | None, dtype: str) -> str:
    """An element of a tensor with all the digits that its dtype tells apart."""
    if element is None:
        return "–"
    return repr(float(element)) if dtype == "float64" else f"{element:.9g}"


def severity_text(used: float) -> str:
    """A fraction of the allowed error, or a multiple of it."""
    if not math.isfinite(used) or not 0.01 <= used < 1000:
        return number(used)
    return f"{used:#.2g}" if used < 10 else f"{used:.0f}"


def flat(environment: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """A nested dictionary as rows of text."""
    for key, item in environment.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{prefix}{key} › ")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)


# ----------------------------------------------------------------------------------------------------- drift by layer


@dataclass(frozen=True)
class Point:
    """One layer of a line: its place, and its text on hovering.

    Attributes:
        x: place from the left.
        y: place from the top.
        title: the exact value, the setting and the failure.
        failed: whether a check of the layer failed.
    """

    x: float
    y: float
    title: str
    failed: bool = False


@dataclass(frozen=True)
class Series:
    """The points of a line, and its unbroken parts: a zero or an infinity is off the scale and breaks it.

    Attributes:
        key: ``tensorflow``, ``pytorch`` or ``allowed``.
        points: one per layer; none for ``allowed``, which is only a line.
        lines: ``points`` attributes of polylines.
    """

    key: str
    points: tuple[Point, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """The plot of one dtype.

    Attributes:
        title: its title.
        dtype: its dtype.
        series: its lines, the first drawn first.
        grid: heights and labels of horizontal lines; those without a label are minor.
        layers: places and labels of layers.
        failed: places and numbers of the layers that failed.
    """

    title: str
    dtype: str
    series: tuple[Series, ...]
    grid: tuple[tuple[float, str], ...]
    layers: tuple[tuple[float, str], ...]
    failed: tuple[tuple[float, int], ...]


class Scale:
    """A logarithmic axis of whole decades, with a lane below for zeros and one above for values that are not finite.

    Args:
        errors: everything that is drawn.
    """

    def __init__(self, errors: Iterable[float]):
        errors = [finite(error) for error in errors]
        logs = [math.log10(error) for error in errors if 0 < error < math.inf] or [-16.0]
        self.low, self.high = math.floor(min(logs)), math.ceil(max(logs))
        self.high += self.low == self.high
        self.has_zeros, self.has_infinities = 0 in errors, math.inf in errors
        self.top = TOP + LANE * self.has_infinities
        self.bottom = HEIGHT - BOTTOM - LANE * self.has_zeros

    def __call__(self, error: float) -> float:
        """Height of an error, from the top."""
        if finite(error) == math.inf:
            return TOP + LANE / 4
        if not error:
            return HEIGHT - BOTTOM - LANE / 4
        fraction = (math.log10(error) - self.low) / (self.high - self.low)
        return round(self.bottom - fraction * (self.bottom - self.top), 1)

    def grid(self) -> Iterable[tuple[float, str]]:
        """Heights and labels of the horizontal lines."""
        decades = self.high - self.low
        step = math.ceil(decades / 6)
        for power in range(self.low, self.high + 1):
            if (power - self.low) % step == 0:
                yield self(10.0**power), "10" + str(power).translate(_SUPERSCRIPTS)
            if decades <= 3 and power < self.high:
                yield from ((self(digit * 10.0**power), "") for digit in (2, 5))
        if self.has_zeros:
            yield self(0.0), "0"
        if self.has_infinities:
            yield self(math.inf), "∞"


def drift_panels(checks: Iterable[Check]) -> list[Panel]:
    """One plot a dtype of the hidden states' RMS error against PyTorch in float64, worst over settings."""
    layers: dict[tuple[str, str], dict[int, list[Check]]] = {}
    for check in checks:
        if check.group == "outputs" and (match := _HIDDEN_STATE.fullmatch(check.name)):
            family, layer = match[1], int(match[2])
            layers.setdefault((family, check.dtype), {}).setdefault(layer, []).append(check)
    families = {family for family, _ in layers}
    order = sorted(layers, key=lambda key: (key[0], _dtype_order(key[1])))
    return [_panel(*key, layers[key], named=len(families) > 1) for key in order]


def _panel(family: str, dtype: str, layers: dict[int, list[Check]], named: bool) -> Panel:
    numbers = sorted(layers)
    ours = {n: max(layers[n], key=lambda check: finite(check.rms_error)) for n in numbers}
    # A check that could not be made says nothing about PyTorch's error, nor does float64, which is the truth.
    known = {n: [check for check in layers[n] if dtype != "float64" and not check.problem] for n in numbers}
    theirs = {n: max(known[n], key=lambda check: finite(check.torch_rms_error)) for n in numbers if known[n]}
    # The limit of the check that is drawn: each setting has its own, and only its own says how near it is.
    allowed = {n: ours[n].limit for n in theirs if not ours[n].problem}
    scale = Scale(
        [check.rms_error for check in ours.values()]
        + [check.torch_rms_error for check in theirs.values()]
        + [limit for limit in allowed.values() if 0 < limit < math.inf]
    )
    places = _places(numbers)
    failed = {n: [check.setting for check in layers[n] if not check.passed] for n in numbers}
    series = [
        Series("allowed", (), _lines(places, allowed, scale)),
        _series("pytorch", "PyTorch", places, {n: (c.torch_rms_error, c) for n, c in theirs.items()}, scale, {}),
        _series("tensorflow", "TensorFlow", places, {n: (c.rms_error, c) for n, c in ours.items()}, scale, failed),
    ]
    step = math.ceil(len(numbers) / 9)
    return Panel(
        title=f"{family}, {dtype}" if named else dtype,
        dtype=dtype,
        series=tuple(line for line in series if line.points or line.lines),
        grid=tuple(scale.grid()),
        layers=tuple((places[n], str(n)) for n in numbers[::step]),
        failed=tuple((places[n], n) for n in numbers if failed[n]),
    )


def _places(numbers: list[int]) -> dict[int, float]:
    first, last, margin = numbers[0], numbers[-1], 12
    span = WIDTH - LEFT - RIGHT - 2 * margin
    if first == last:
        return {first: LEFT + margin + span / 2}
    return {n: round(LEFT + margin + (n - first) / (last - first) * span, 1) for n in numbers}


def _series(
    key: str,
    label: str,
    places: dict[int, float],
    errors: dict[int, tuple[float, Check]],
    scale: Scale,
    failed: Mapping[int, list[str]],
) -> Series:
    points = []
    for n, (error, check) in errors.items():
        title = f"{label}, hidden state {n}, {check.dtype}: RMS error {error!r} ({check.setting})"
        if check.problem:
            title = f"{label}, hidden state {n}, {check.dtype}: {check.problem} ({check.setting})"
        if failed.get(n):
            title += f"; not equal in {', '.join(failed[n])}"
        points.append(Point(places[n], scale(error), title, bool(failed.get(n))))
    return Series(key, tuple(points), _lines(places, {n: error for n, (error, _) in errors.items()}, scale))


def _lines(places: dict[int, float], errors: dict[int, float], scale: Scale) -> tuple[str, ...]:
    runs: list[list[str]] = [[]]
    for n in places:
        if n in errors and 0 < errors[n] < math.inf:
            runs[-1].append(f"{places[n]},{scale(errors[n])}")
        elif runs[-1]:
            runs.append([])
    return tuple(" ".join(run) for run in runs if len(run) > 1)


# ------------------------------------------------------------------------------------------------------------ heat map


@dataclass(frozen=True)
class Cell:
    """The checks of a family in one setting and dtype.

    Attributes:
        worst: the one that failed or used the largest share of the allowed error.
        checks: number of checks.
        failed: number of failures.
    """

    worst: Check
    checks: int
    failed: int

    @property
    def level(self) -> int:
        """Step of the colour: 0 for no error, then one per decade."""
        used = finite(self.worst.severity)
        return 0 if not used else 1 + sum(used >= step for step in HEAT_STEPS)


@dataclass(frozen=True)
class Block:
    """A table of groups that share their settings.

    Attributes:
        columns: dtypes by setting.
        groups: by group, the families and their cells by (setting, dtype).
    """

    columns: dict[str, list[str]]
    groups: dict[str, dict[str, dict[tuple[str, str], Cell]]]


def heat_blocks(checks: Iterable[Check]) -> list[Block]:
    """Checks by group and family (rows), setting and dtype (columns).

    A group joins the table of another if one has all columns of the other, and not many more.
    """
    groups: dict[str, list[Check]] = {group: [] for group in GROUPS}
    for check in checks:
        groups.setdefault(check.group, []).append(check)
    blocks: list[tuple[dict[tuple[str, str], None], list[str]]] = []
    for group, members in groups.items():
        columns = dict.fromkeys((check.setting, check.dtype) for check in members)
        if not columns:
            continue
        for known, names in blocks:
            small, large = sorted((columns.keys(), known.keys()), key=len)
            if small <= large and len(small) >= SHARED_COLUMNS * len(large):
                known.update(columns)
                names.append(group)
                break
        else:
            blocks.append((columns, [group]))
    return [Block(_columns(keys), {name: _families(groups[name]) for name in names}) for keys, names in blocks]


def _columns(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {}
    for setting, dtype in keys:
        columns.setdefault(setting, []).append(dtype)
    return {setting: sorted(dtypes, key=_dtype_order) for setting, dtypes in columns.items()}


def _families(checks: list[Check]) -> dict[str, dict[tuple[str, str], Cell]]:
    """Cells by family: ``hidden_states.3`` is one of the ``hidden_states``; too many families are one."""
    names = [check.name.partition(".")[0] for check in checks]
    if len(set(names)) > MOST_FAMILIES:
        names = ["all"] * len(checks)
    members: dict[str, dict[tuple[str, str], list[Check]]] = {}
    for name, check in zip(names, checks, strict=True):
        members.setdefault(name, {}).setdefault((check.setting, check.dtype), []).append(check)
    return {
        name: {
            key: Cell(min(found, key=rank), len(found), sum(not check.passed for check in found))
            for key, found in cells.items()
        }
        for name, cells in members.items()
    }


def _dtype_order(dtype: str) -> tuple[int, str]:
    return (DTYPES.index(dtype) if dtype in DTYPES else len(DTYPES), dtype)
