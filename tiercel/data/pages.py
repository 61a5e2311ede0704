"""Pages: plain text, Markdown and HTML files, one document each, alone or as a folder tree."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tiercel.data.files import Source, ending_of, is_unicode, read_text, source_name
from tiercel.errors import InputError
from tiercel.types import DocId, Document

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

PageFormat: TypeAlias = Literal["text", "markdown", "html"]

PAGE_ENDINGS: dict[str, PageFormat] = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}

_UNSEEN_TAGS = frozenset({"script", "style", "template", "noscript", "title"})
_BLOCK_NAMES = """
address article aside blockquote body br caption dd details dialog div dl dt fieldset figcaption figure footer form
h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol option p pre section summary table tbody td tfoot
th thead tr ul
"""
_BLOCK_TAGS = frozenset(_BLOCK_NAMES.split())
_HEADING = re.compile(r" {0,3}(#{1,6})(?=[ \t])")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}+(?!.*`)|~{3,})")  # a line like ```this``` is code within a paragraph
# What dashes can make a heading of: no indented code, quotation or list item, and not only signs.
_PROSE = re.compile(r" {0,3}(?![ \t>]|[-+*][ \t]|\d+[.)][ \t]).*\w")


@dataclass(frozen=True, slots=True)
class MarkdownHeading:
    """One heading of a Markdown text.

    Attributes:
        start: where its line begins, in characters.
        end: where its line ends, or the one that underlines it; exclusive, without the line end.
        level: 1 for the outermost, at most 6.
        title: its words, never empty.
        is_dashed: whether dashes under its line make it a heading.
    """

    start: int
    end: int
    level: int
    title: str
    is_dashed: bool = False


def page_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The (id, path) of every page under a folder, ordered by id: its path below the folder, parts joined by `/`.

    Hidden files and folders (a name that starts with a dot) and links to folders are left out. Memory is that of the
    folders on one path, whatever the size of the tree.
    """
    return _pages_below(folder, "")


def read_page(source: Source, doc_id: str, form: PageFormat) -> Document:
    """One file as one document; an empty file is a document without text."""
    text = read_text(source)
    if form == "markdown":
        return Document(DocId(doc_id), text, markdown_title(text))
    if form == "html":
        title, text = html_title_and_text(text, source_name(source))
        return Document(DocId(doc_id), text, title)
    return Document(DocId(doc_id), text)


def markdown_title(text: str) -> str:
    """The first heading outside front matter and fenced code; "" when there is none. Dashes make no title."""
    return next((heading.title for heading in markdown_headings(text) if not heading.is_dashed), "")


def markdown_headings(text: str) -> Iterator[MarkdownHeading]:
    """The headings outside front matter and fenced code, in the order of the text; one without words is none.

    CommonMark's rules as far as single lines tell: `=` makes a heading of the line above only, and dashes do where that
    line is the whole paragraph, as they also end a paragraph or draw a line.
    """
    lines = text.split("\n")
    skipped = _front_matter_lines(lines)
    end_of_line = sum(len(line) + 1 for line in lines[:skipped])
    fence = above = ""
    above_start, above_is_alone = 0, False
    for ended_line in lines[skipped:]:
        start, end_of_line = end_of_line, end_of_line + len(ended_line) + 1
        line = ended_line.removesuffix("\r")
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        elif mark:
            fence, above = mark[1], ""
        elif (heading := _HEADING.match(line)) and (title := _without_closing_marks(line[heading.end() :])):
            yield MarkdownHeading(start, start + len(line), len(heading[1]), title)
            above = ""
        elif above.strip() and _UNDERLINE.fullmatch(line) and ("=" in line or (above_is_alone and _PROSE.match(above))):
            is_dashed = "-" in line
            yield MarkdownHeading(above_start, start + len(line), 2 if is_dashed else 1, above.strip(), is_dashed)
            above = ""
        else:
            above_start, above_is_alone, above = start, not above.strip(), line


def html_title_and_text(markup: str, name: str) -> tuple[str, str]:
    """The <title> and the visible text: one line per block, runs of white space made one space, no empty lines.

    Raises InputError for markup that cannot be parsed at all.
    """
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    with warnings.catch_warnings():
        # It warns of markup that looks like a file name or like XML; a short page or an XHTML page is neither's fault.
        warnings.simplefilter("ignore")
        try:
            soup = BeautifulSoup(markup, "html.parser")
        except (ParserRejectedMarkup, AssertionError) as error:
            reason = str(error).rpartition("\n")[2].strip()
            raise InputError(
                f"the HTML cannot be parsed ({reason})", next_step="Save the page as plain text instead", where=name
            ) from error
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    return title, _visible_text(soup)


def _pages_below(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for entry in _sorted_entries(folder):
        doc_id = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _pages_below(Path(entry.path), f"{doc_id}/")
        elif ending_of(entry.name) in PAGE_ENDINGS and entry.is_file():
            if not is_unicode(entry.name):
                raise InputError(
                    "a file name that is not UTF-8, which cannot serve as an id",
                    next_step="Rename the file",
                    where=source_name(entry.path),
                )
            yield doc_id, Path(entry.path)


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"the folder cannot be listed ({error.strerror or error})",
            next_step="Check its permissions",
            where=source_name(folder),
        ) from error
    # A folder sorts as if its name ended in "/": then the ids of the whole tree come out sorted.
    return sorted(shown, key=lambda entry: f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)


def _without_closing_marks(title: str) -> str:
    title = title.strip()
    opened = title.rstrip("#")
    return opened.rstrip() if not opened or opened[-1].isspace() else title


def _front_matter_lines(lines: list[str]) -> int:
    if lines[0].rstrip() != "---":
        return 0
    for number, line in enumerate(lines[1:], 2):
        if line.rstrip() in {"---", "..."}:
            return number
    return 0


def _visible_text(soup: BeautifulSoup) -> str:
    from bs4.element import CData, NavigableString, PageElement, Tag

    pieces: list[str] = []
    # An explicit stack, not recursion: pages nested deeper than Python's call stack exist.
    waiting: list[PageElement | str] = [soup]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Tag):
            if node.name in _UNSEEN_TAGS:
                continue
            is_block = node.name in _BLOCK_TAGS
            if is_block:
                pieces.append("\n")
                waiting.append("\n")
            waiting.extend(reversed(node.contents))
        elif type(node) is str:
            pieces.append(node)
        elif type(node) in (NavigableString, CData):  # not a comment, a doctype or a declaration
            pieces.append(re.sub(r"\s+", " ", str(node)))
    lines = (" ".join(line.split()) for line in "".join(pieces).split("\n"))
    return "\n".join(line for line in lines if line)
