from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercel.html.plots import Point, bars, differences, scatter

VALUES = st.floats(0.001, 1e6)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def shapes(html: str, kind: str) -> list[dict[str, str]]:
    """Attributes of the shapes that have a title, which are those that show a value."""
    return [element.attrib for element in ET.fromstring(html).iter(kind) if element.find("title") is not None]


def test_points_by_hand() -> None:
    html = scatter("t", [Point("slow", 10, 1.0), Point("fast", 5, 0.0)], x="ms", y="nDCG")
    first, _, second, _ = shapes(html, "circle")
    # Ticks from 4 to 10 in steps of 2 would not begin at 5: they go from 5 to 10 by 1. The plot is 552 wide, 260 high.
    assert (float(first["cx"]), float(first["cy"])) == (616, 16)
    assert (float(second["cx"]), float(second["cy"])) == (64, 276)
    assert "slow: ms 10, nDCG 1.0000" in html


def test_what_differs_by_much_is_drawn_on_a_logarithmic_scale() -> None:
    html = scatter("t", [Point("a", 1, 0.1), Point("b", 10, 0.2), Point("c", 100, 0.3)], x="ms", y="q")
    assert "ms, logarithmic" in html
    xs = [float(circle["cx"]) for circle in shapes(html, "circle")[::2]]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])


@given(st.lists(st.builds(Point, st.text(max_size=5), VALUES, st.floats(-1, 1)), min_size=1, max_size=6))
def test_every_point_is_inside_the_picture(points: list[Point]) -> None:
    html = scatter("t", points, x="ms", y="q").replace("\ufffd", "?")
    found = [(float(circle["cx"]), float(circle["cy"])) for circle in shapes(html, "circle")[::2]]
    assert len(found) == len(points)
    assert all(63 <= x <= 617 and 15 <= y <= 277 for x, y in found)


def test_bars_are_as_long_as_their_values() -> None:
    half, whole, none = shapes(bars("t", [("a", 0.5), ("b", 1.0), ("c", 0.0)]), "rect")
    assert 2 * float(half["width"]) == float(whole["width"]) > 0
    assert float(none["width"]) == 0


def test_differences_stand_above_and_below_zero_the_largest_first() -> None:
    up, same, down = shapes(differences("t", [("x", -0.5), ("y", 0.0), ("z", 1.0)], y="q"), "rect")
    zero = 146.0
    assert (float(up["y"]), float(up["height"])) == (16, zero - 16)
    assert float(same["height"]) == 0
    assert (float(down["y"]), float(down["height"])) == (zero, (zero - 16) / 2)
    assert float(up["x"]) < float(same["x"]) < float(down["x"])


def test_many_differences_are_one_shape_of_as_many_steps() -> None:
    html = differences("t", [(str(n), (n % 7 - 3) / 3) for n in range(7000)], y="q")
    (polygon,) = list(ET.fromstring(html).iter("polygon"))
    assert len(_NUMBER.findall(polygon.attrib["points"])) == 2 * (2 * 7000 + 2)
    assert shapes(html, "rect") == []


def test_equal_values_have_a_place_too() -> None:
    assert len(shapes(scatter("t", [Point("a", 1, 0.5), Point("b", 1, 0.5)], x="ms", y="q"), "circle")) == 4
    assert len(shapes(differences("t", [("a", 0.0)], y="q"), "rect")) == 1
