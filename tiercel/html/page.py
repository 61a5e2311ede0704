"""Elements whose text is always escaped, and the one page that they go into: styles, dark and light, no script."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from tiercel.data.files import Source, write_text
from tiercel.parts import Mark, Read

_UNCARRIED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that HTML or UTF-8 has no place for."""


class Html(str):
    """A piece of a page: escaped already. Only `tag` and `join` make it."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: object) -> Html:
    """An element. A child that is not `Html` is text and is escaped, and so are all attributes.

    An attribute may end in "_" where Python has a word of that name; "_" within it is written "-". None leaves it out.
    """
    named = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    written = "".join(f' {key}="{_escaped(str(value))}"' for key, value in named)
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Pieces one after the other."""
    return Html("".join(child if isinstance(child, Html) else _escaped(child) for child in children))


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table whose first column heads its rows; it scrolls by itself where it is too wide, by the keyboard too."""
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [
        tag("tr", *(tag("td", cell) if place else tag("th", cell, scope="row") for place, cell in enumerate(row)))
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", whole, class_="wide", tabindex=0, role="region", aria_label=caption)


def folded(summary: str, *children: str, is_open: bool = False) -> Html:
    """What can be folded away, by mouse and keyboard."""
    return tag("details", tag("summary", summary), *children, open="" if is_open else None)


def marked(read: Read, marks: Sequence[Mark]) -> Html:
    """What was read, the marks coloured by their weight, and behind a line what was cut."""
    highest = max((mark.weight for mark in marks), default=0.0)
    pieces: list[str] = []
    for start, end, weight in _slices(read.end, marks):
        text = read.text[start:end]
        share = max(0.0, weight / highest) if highest > 0 else 0.0
        pieces.append(tag("mark", text, style=f"--w:{share:.2f}", title=f"{weight:.4f}") if weight else text)
    if read.cut:
        pieces.append(tag("span", read.text[read.end :], class_="cut", title="not read"))
    return tag("p", *pieces, class_="text", dir="auto")


def page(title: str, *sections: str) -> str:
    """A whole document of its own: nothing is fetched, and its policy forbids that anything be."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        Html(f"<style>{_STYLE}</style>"),
    )
    skip = tag("a", "Skip to the content", href="#content", class_="skip")
    body = tag("body", skip, tag("main", tag("h1", title), *sections, id="content"))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def write_page(target: Source, text: str) -> None:
    """Write a page to a file, in place of what was there, or to stdout. Raises InputError where that cannot be done."""
    with write_text(target) as file:
        file.write(text)


def _escaped(text: str) -> str:
    return escape(_UNCARRIED.sub("\ufffd", text))


def _slices(end: int, marks: Sequence[Mark]) -> Iterator[Mark]:
    """The text up to `end` in slices; where marks overlap the heaviest counts, where there is none the weight is 0."""
    edges = {0, end} | {min(edge, end) for mark in marks for edge in (mark.start, mark.end)}
    places = sorted(edges)
    weights = dict.fromkeys(places, 0.0)
    for mark in marks:
        for place in places[bisect_left(places, mark.start) : bisect_left(places, mark.end)]:
            weights[place] = max(weights[place], mark.weight)
    for start, following in pairwise(places):
        yield Mark(start, following, weights[start])


_STYLE = """
:root { --ink: #1b1f24; --paper: #fff; --soft: #59636e; --line: #d1d9e0; --mark: #f2a900; --main: #0b57a4;
  --s0: #0b57a4; --s1: #b3500c; --s2: #1a7f4b; --s3: #8a3fa0; --s4: #a6263c; --s5: #51606f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9198a1; --line: #3d444d; --mark: #9e6a03; --main: #79b8ff;
    --s0: #79b8ff; --s1: #f0a35e; --s2: #6fd49b; --s3: #d2a8ff; --s4: #ff9492; --s5: #b0bac4; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin-top: 2rem; }
h2, h3, p { overflow-wrap: anywhere; } h3 { font-size: 1rem; }
.note { margin: .25rem 0; color: var(--soft); }
.verdict { font-weight: 600; }
.skip { position: absolute; left: -100rem; } .skip:focus { position: static; }
:focus-visible { outline: 3px solid var(--main); outline-offset: 2px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: right; }
th[scope=row], thead th:first-child { text-align: left; font-weight: 500; }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap; }
details { margin: 1rem 0; border-top: 1px solid var(--line); } summary { cursor: pointer; padding: .5rem 0; }
.text { white-space: pre-wrap; border-left: 3px solid var(--line); padding-left: 1rem; }
mark { color: inherit; border-radius: 3px;
  background: color-mix(in srgb, var(--mark) calc(15% + 65% * var(--w)), transparent); }
.cut { color: var(--soft); border-left: 2px dashed var(--s4); padding-left: .25rem; text-decoration: line-through; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
svg { max-width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .soft { fill: var(--soft); } svg .axis { stroke: var(--line); }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); }
.s3 { fill: var(--s3); } .s4 { fill: var(--s4); } .s5 { fill: var(--s5); }
@media print { details { display: block; } }
"""
