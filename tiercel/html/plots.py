"""Plots as inline SVG: points, bars and differences. Small, without a script, and readable by a screen reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tiercel.html.page import Html, tag

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 44
_COLOURS = 6
_ROW = 24
_BAR_LEFT = 260
_MOST_BARS = 400
_LOGARITHMIC = 20
"""Values of one axis that differ by more than this factor are drawn on a logarithmic scale."""

_SAME = 1e-9  # what differs by less, relatively, is drawn as if it did not


class Point(NamedTuple):
    """One thing by two of its values."""

    label: str
    x: float
    y: float


def scatter(title: str, points: Sequence[Point], *, x: str, y: str) -> Html:
    """Numbered points, and below them what each is; `x` and `y` name the axes. At least one point, all x above 0."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    is_log = max(xs) > _LOGARITHMIC * min(xs) > 0
    across = _scale(xs, _LEFT, _WIDTH - _RIGHT, is_log=is_log)
    up = _scale(ys, _HEIGHT - _BOTTOM, _TOP)
    drawn = [*_axes(across, up, x=f"{x}, logarithmic" if is_log else x, y=y)]
    for number, point in enumerate(points):
        row = _HEIGHT + 16 + number * _ROW
        shown = f"{point.label}: {x} {point.x:.4g}, {y} {point.y:.4f}"
        for left, top in ((across.place(point.x), up.place(point.y)), (_LEFT, row)):
            drawn.append(tag("circle", tag("title", shown), cx=_at(left), cy=_at(top), r=6, class_=_colour(number)))
            drawn.append(tag("text", str(number + 1), x=_at(left + 10), y=_at(top + 4)))
        drawn.append(tag("text", shown, x=_LEFT + 32, y=row + 4))
    return _figure(title, _HEIGHT + 16 + len(points) * _ROW, drawn)


def bars(title: str, values: Sequence[tuple[str, float]], *, highest: float = 1.0) -> Html:
    """One bar for each value from 0 to `highest`, which is above 0, in their order, with label and number beside it."""
    width = _WIDTH - _BAR_LEFT - 70
    drawn = []
    for row, (label, value) in enumerate(values):
        top = row * _ROW + 8
        length = max(0.0, min(1.0, value / highest)) * width
        drawn += [
            tag("text", _short(label), tag("title", label), x=_BAR_LEFT - 8, y=top + 13, text_anchor="end"),
            tag("rect", tag("title", f"{label}: {value:.4f}"), x=_BAR_LEFT, y=top, width=_at(length), height=_ROW - 6,
                class_=_colour(0)),
            tag("text", f"{value:.4f}", x=_at(_BAR_LEFT + length + 6), y=top + 13),
        ]  # fmt: skip
    return _figure(title, len(values) * _ROW + 16, drawn)


def differences(title: str, values: Sequence[tuple[str, float]], *, y: str) -> Html:
    """A bar for each value, above or below 0, the largest first; more than 400 are drawn as one shape.

    `y` names the axis. At least one value.
    """
    ordered = sorted(values, key=lambda value: (-value[1], value[0]))
    reach = max(abs(value) for _, value in ordered) or 1.0
    up = _scale([-reach, reach], _HEIGHT - _BOTTOM, _TOP)
    across = _Scale(_LEFT, _WIDTH - _RIGHT, lambda value: value / len(ordered), ())
    zero = up.place(0)
    drawn = [*_axes(across, up, x=f"{len(ordered):,} queries, the largest difference first", y=y)]
    drawn.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_at(zero), y2=_at(zero), class_="axis"))
    if len(ordered) > _MOST_BARS:
        corners = [
            f"{_at(across.place(n + half))},{_at(up.place(v))}" for n, (_, v) in enumerate(ordered) for half in (0, 1)
        ]
        ends = (f"{_LEFT},{_at(zero)}", f"{_WIDTH - _RIGHT},{_at(zero)}")
        drawn.append(tag("polygon", points=" ".join([ends[0], *corners, ends[1]]), class_=_colour(0)))
        return _figure(title, _HEIGHT, drawn)
    width = max(1.0, (_WIDTH - _RIGHT - _LEFT) / len(ordered) - 1)
    for number, (label, value) in enumerate(ordered):
        top, bottom = sorted((up.place(value), zero))
        drawn.append(
            tag("rect", tag("title", f"{label}: {value:+.4f}"), x=_at(across.place(number)), y=_at(top),
                width=_at(width), height=_at(bottom - top), class_=_colour(2 if value > 0 else 4))
        )  # fmt: skip
    return _figure(title, _HEIGHT, drawn)


class _Scale(NamedTuple):
    """From values to pixels. `share` takes a value to its part of the way from `start` to `end`."""

    start: float
    end: float
    share: Callable[[float], float]
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where a value is, in pixels."""
        return self.start + (self.end - self.start) * self.share(value)


def _scale(values: Sequence[float], start: float, end: float, *, is_log: bool = False) -> _Scale:
    """A scale that has room for all values, and round numbers to show on it."""
    low, high = min(values), max(values)
    if is_log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        ticks = tuple(10.0**power for power in range(first, last + 1))
        return _Scale(start, end, lambda value: (math.log10(value) - first) / (last - first), ticks)
    spread = high - low
    if spread < _SAME * max(1.0, abs(low), abs(high)):
        spread = abs(high) if abs(high) > _SAME else 1.0
    step = 10.0 ** math.floor(math.log10(spread / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if spread / (step * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    last += first == last
    ticks = tuple(number * step for number in range(first, last + 1))
    return _Scale(start, end, lambda value: (value / step - first) / (last - first), ticks)


def _axes(across: _Scale, up: _Scale, *, x: str, y: str) -> list[Html]:
    bottom, right = max(up.start, up.end), max(across.start, across.end)
    drawn = [
        tag("line", x1=_LEFT, x2=_at(right), y1=_at(bottom), y2=_at(bottom), class_="axis"),
        tag("line", x1=_LEFT, x2=_LEFT, y1=_TOP, y2=_at(bottom), class_="axis"),
        tag("text", x, x=_at((_LEFT + right) / 2), y=_at(bottom + 36), text_anchor="middle", class_="soft"),
        tag("text", y, x=14, y=_at((_TOP + bottom) / 2), text_anchor="middle", class_="soft",
            transform=f"rotate(-90 14 {_at((_TOP + bottom) / 2)})"),
    ]  # fmt: skip
    for tick in across.ticks:
        drawn.append(
            tag(
                "text",
                f"{tick:.4g}",
                x=_at(across.place(tick)),
                y=_at(bottom + 18),
                text_anchor="middle",
                class_="soft",
            )
        )
    for tick in up.ticks:
        place = up.place(tick)
        drawn.append(tag("line", x1=_LEFT, x2=_at(right), y1=_at(place), y2=_at(place), class_="axis"))
        drawn.append(tag("text", f"{tick:.4g}", x=_LEFT - 8, y=_at(place + 4), text_anchor="end", class_="soft"))
    return drawn


def _figure(title: str, height: float, drawn: Sequence[Html]) -> Html:
    picture = tag("svg", *drawn, viewBox=f"0 0 {_WIDTH} {_at(height)}", width=_WIDTH, role="img", aria_label=title)
    return tag("figure", tag("figcaption", title), picture)


def _colour(number: int) -> str:
    return f"s{number % _COLOURS}"


def _short(label: str) -> str:
    return label if len(label) <= 38 else f"{label[:37]}…"


def _at(place: float) -> str:
    return f"{place:.1f}".removesuffix(".0")
