from __future__ import annotations

import re

from tests.explained_by_hand import STAGES, explanation
from tiercel.html.explanation import explanation_page


def test_every_stage_is_there_with_its_parts_and_its_text() -> None:
    html = explanation_page("bm25+dense,late@5", [explanation(), explanation(*STAGES[:1])])
    assert "<h1>Why here? falcon &amp; owl</h1>" in html
    assert html.count("<section>") == 2
    assert re.findall(r"<summary>(.*?)</summary>", html) == [*(stage.stage for stage in STAGES), "bm25"]
    assert '<p class="verdict">Dropped by cross@1' in html
    assert "d&lt;1&gt;: &lt;i&gt;title&lt;/i&gt;" in html
    assert "<b>" not in html


def test_what_matched_is_marked_and_what_was_cut_is_crossed_out() -> None:
    html = explanation_page("p", [explanation()])
    # The term once, and once the token that late interaction found.
    assert re.findall(r"<mark [^>]*>(.*?)</mark>", html) == ["falcon", "falcon"]
    # The dense leg read 13 of 23 characters; of each cross-encoder the second window three of six.
    assert re.findall(r'<span class="cut"[^>]*>(.*?)</span>', html) == ["&lt;/b&gt; hunts", "ond", "ond"]
    assert html.count("Window 2, with the score 0.7000, counts.") == 2
    assert "Passage: characters 5 to 29 of the document. 10 of 23 characters were cut" in html


def test_a_stage_that_was_not_reached_says_so() -> None:
    html = explanation_page("p", [explanation()])
    assert html.count("The document did not get here") == 1
