from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.html.browser import opened
from tiercel.errors import InputError
from tiercel.html.page import Html, folded, join, marked, page, table, tag, write_page
from tiercel.parts import Mark, Read

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\x1b\x00\ud800"


class _Read(HTMLParser):
    """Names of the elements, and all of the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_is_escaped_and_elements_are_not() -> None:
    assert tag("p", "a < b", tag("b", "&"), class_="x", aria_label='"', hidden=None) == (
        '<p class="x" aria-label="&quot;">a &lt; b<b>&amp;</b></p>'
    )
    assert join("<", Html("<br>")) == "&lt;<br>"


@given(st.text())
def test_whatever_a_text_holds_it_makes_no_element_and_no_attribute(text: str) -> None:
    read = _Read(tag("p", text, title=text))
    assert read.names == ["p"]
    assert [name for name, _ in read.attributes] == ["title"]


def test_marks_are_cut_where_they_overlap_and_at_the_end_of_what_was_read() -> None:
    html = marked(Read("the falcon hunts", 12), [Mark(4, 10, 2.0), Mark(8, 16, 1.0)])
    assert html == (
        '<p class="text" dir="auto">the <mark style="--w:1.00" title="2.0000">falc</mark>'
        '<mark style="--w:1.00" title="2.0000">on</mark><mark style="--w:0.50" title="1.0000"> h</mark>'
        '<span class="cut" title="not read">unts</span></p>'
    )


@given(
    st.text(max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.floats(-1, 9))),
    st.integers(0, 40),
)
def test_marking_keeps_the_text(text: str, places: list[tuple[int, int, float]], end: int) -> None:
    marks = [Mark(min(a, b, len(text)), min(max(a, b), len(text)), weight) for a, b, weight in places]
    shown = _Read(marked(Read(text, min(end, len(text))), marks)).text
    assert len(shown) == len(_Read(tag("p", text)).text)


def test_a_page_opens_without_a_network_and_its_texts_do_nothing(tmp_path: Path) -> None:
    html = page(HOSTILE, table(HOSTILE, ["a", HOSTILE], [[HOSTILE, HOSTILE]]), folded(HOSTILE, tag("p", HOSTILE)))
    write_page(tmp_path / "page.html", html)
    names = _Read(html).names
    assert "script" not in names
    assert "img" not in names
    assert not {"src", "href"} & {name for name, value in _Read(html).attributes if value != "#content"}
    document = opened(tmp_path / "page.html")
    assert "<script" not in document
    assert "&lt;script&gt;alert(1)" in document


def test_a_page_can_be_used_by_keyboard() -> None:
    html = page("t", table("caption", ["a"], [["b"]]), folded("more", is_open=True))
    assert 'class="skip"' in html
    assert 'tabindex="0" role="region" aria-label="caption"' in html
    assert '<details open="">' in html


def test_nothing_is_written_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_page(tmp_path / "nowhere" / "page.html", "x")
