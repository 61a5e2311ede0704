from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.data.conftest import Write
from tiercel.data.pages import html_title_and_text, markdown_headings, markdown_title, page_files, read_page
from tiercel.errors import InputError


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\n\n## Two\n", "One"),
        ("words\n\n### Third ###\r\n# One", "Third"),
        ("#no heading\n#\n# C# and F#\n", "C# and F#"),
        ("```sh\n# a comment\n```\n~~~\n# another\n```\n~~~\n# Real\n", "Real"),
        ("```\n# never closed\n", ""),
        ("---\ntitle: x\n# comment\n---\n\n# Real\n", "Real"),
        ("---\n# Real\n", "Real"),
        ("Over two lines\n====\n", "Over two lines"),
        ("\n====\nwords", ""),
        ("words\n```\n```\n====\n", ""),
        ("    # code\n", ""),
        ("```inline``` words\n# Real\n", "Real"),
        ("# #\n# Real #\n", "Real"),
        ("Over dashes\n---\n# Real\n", "Real"),
        ("words only", ""),
        ("", ""),
    ],
)
def test_the_title_of_markdown_is_its_first_heading(text: str, title: str) -> None:
    assert markdown_title(text) == title


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("# One\nwords\n### Deep ###\r\n", [(1, "One", "# One"), (3, "Deep", "### Deep ###")]),
        ("---\n# no\n---\r\n  ## Yes\n```\n# no\n```\n", [(2, "Yes", "  ## Yes")]),
        ("One\n===\n\nTwo\r\n--\r\n", [(1, "One", "One\n==="), (2, "Two", "Two\r\n--")]),
        ("a paragraph\nof two lines\n---\n", []),
        ("a paragraph\nof two lines\n===\n", [(1, "of two lines", "of two lines\n===")]),
        ("- item\n---\n1. item\n---\n> said\n---\n    code\n---\n***\n---\n", []),
        ("# One\n---\n# \n## ##\n####### seven\n", [(1, "One", "# One")]),
        ("words\n# One\n---\n", [(1, "One", "# One")]),
        ("# One\nTwo\n---\nThree\n---\n", [(1, "One", "# One"), (2, "Two", "Two\n---"), (2, "Three", "Three\n---")]),
        ("", []),
    ],
)
def test_headings_of_markdown(text: str, headings: list[tuple[int, str, str]]) -> None:
    found = list(markdown_headings(text))
    assert [(heading.level, heading.title, text[heading.start : heading.end]) for heading in found] == headings


def test_markdown_text_is_the_whole_file(write: Write) -> None:
    content = "---\ntitle: x\n---\n# Real\r\nwords\n"
    page = read_page(write("a.md", content), "a.md", "markdown")
    assert (page.id, page.title, page.text) == ("a.md", "Real", content)


@pytest.mark.parametrize(
    ("markup", "title", "text"),
    [
        (
            "<!DOCTYPE html><html><head><title> A\n page </title><style>p{}</style><script>var x = 1</script></head>"
            "<body><h1>Head</h1><p>Some <b>bold</b>\n text.</p><!-- unseen --><ul><li>one<li>two</ul></body></html>",
            "A page",
            "Head\nSome bold text.\none\ntwo",
        ),
        ("one<br>two<span>three</span> four", "", "one\ntwothree four"),
        ("a &amp; b &lt; c&nbsp;d", "", "a & b < c d"),
        ("<table><tr><td>1</td><td>2</td></tr></table>", "", "1\n2"),
        ("<?xml version='1.0'?><html xmlns='x'><p>xhtml</p></html>", "", "xhtml"),
        ("page.html", "", "page.html"),
        ("<title></title>", "", ""),
        ("", "", ""),
    ],
)
def test_html(markup: str, title: str, text: str) -> None:
    assert html_title_and_text(markup, "x.html") == (title, text)


def test_html_nested_deeper_than_the_call_stack() -> None:
    assert html_title_and_text("<div>" * 5000 + "core", "x.html") == ("", "core")


def test_html_that_cannot_be_parsed() -> None:
    with pytest.raises(InputError) as caught:
        html_title_and_text("<![x]>", "x.html")
    assert caught.value.where == "x.html"
    assert re.fullmatch(r"the HTML cannot be parsed \(AssertionError: .*\)", caught.value.found)
    assert caught.value.next_step == "Save the page as plain text instead"


def test_pages_come_in_the_order_of_their_ids(write: Write, tmp_path: Path) -> None:
    names = ["b.txt", "a/z.md", "a.txt", "a-b/x.html", "a/sub/y.htm", "A.markdown", "c.txt.gz"]
    for name in [*names, ".hidden.txt", ".git/x.txt", "a/code.py", "notes"]:
        write(name, "")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [doc_id for doc_id, _ in page_files(tmp_path)] == sorted(names)


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    try:
        with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "wb"):
            pass
    except OSError:
        pytest.skip("this file system keeps only UTF-8 names")
    with pytest.raises(InputError, match=r"caf\\udce9.txt: a file name that is not UTF-8.*Rename the file"):
        list(page_files(tmp_path))


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder cannot be listed \(No such file or directory\)"):
        list(page_files(tmp_path / "gone"))
