"""A learning curve as a picture."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 400, 64, 44, 24, 170
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


def learning_curve(values: Mapping[str, Sequence[float]], title: str) -> str:
    """An SVG picture of numbers by epoch.

    Args:
        values: numbers of each epoch, by name; those that are not finite are left out.
        title: above the picture.
    """
    points = [
        (name, [(epoch, value) for epoch, value in enumerate(column, start=1) if np.isfinite(value)])
        for name, column in values.items()
    ]
    numbers = [value for _, found in points for _, value in found] or [0.0]
    epochs = max((len(column) for column in values.values()), default=1)
    low, high = min(numbers), max(numbers)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)

    def at(epoch: float, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (epoch - 1) / max(epochs - 1, 1)
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low)
        return f"{x:.1f},{y:.1f}"

    def text(place: str, words: str, anchor: str = "middle") -> str:
        x, y = place.split(",")
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'

    parts = [text(f"{(_WIDTH - _RIGHT + _LEFT) / 2},16", title)]
    for value in np.linspace(low, high, 5):
        x, y = at(1, value).split(",")
        parts.append(f'<path d="M{x},{y} H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(text(f"{_LEFT - 8},{float(y) + 4:.1f}", f"{value:.4g}", "end"))
    for epoch in sorted({round(one) for one in np.linspace(1, epochs, min(epochs, 10))}):
        parts.append(text(f"{at(epoch, low).split(',')[0]},{_HEIGHT - _BOTTOM + 18}", str(epoch)))
    parts.append(text(f"{(_WIDTH - _RIGHT + _LEFT) / 2},{_HEIGHT - 6}", "epoch"))
    for place, (name, found) in enumerate(points):
        colour = _COLOURS[place % len(_COLOURS)]
        line = " ".join(at(*point) for point in found)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in (one.split(",") for one in line.split())
        ]
        y = _TOP + 8 + 20 * place
        parts.append(f'<path d="M{_WIDTH - _RIGHT + 16},{y} h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(f"{_WIDTH - _RIGHT + 40},{y + 4}", name, "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
