"""Where does a text hold terms of a query? For readers; what is ranked does not pass here."""

from __future__ import annotations

from itertools import groupby

from tiercel.index.analysis import Analyzer
from tiercel.index.lexical import analyze_queries
from tiercel.index.tokens import CJK, SEPARATOR, WORD, character_classes
from tiercel.types import Span

_HAN_END = 0x40000


def matched_spans(analyzer: Analyzer, query: str, text: str) -> list[Span]:
    """Start and end, in characters, of what of the text is a term of the query, in order and without overlap."""
    asked = set(analyze_queries(analyzer, [query]).terms)
    spans = _token_spans(text, cjk_bigrams=analyzer.cjk_bigrams)
    terms = analyzer.terms([text[start:end] for start, end in spans])
    matched: list[Span] = []
    for (start, end), term in zip(spans, terms, strict=True):
        if term is None or term.encode() not in asked:
            continue
        if matched and start < matched[-1][1]:  # the next pair of a run of CJK characters
            matched[-1] = matched[-1][0], end
        else:
            matched.append((start, end))
    return matched


def _token_spans(text: str, *, cjk_bigrams: bool) -> list[Span]:
    """As `tokens.py` cuts, but that a run longer than its longest token is one."""
    classes = character_classes(cjk_bigrams)
    above = CJK if cjk_bigrams else WORD  # what lies beyond the table: Han of planes 2 and 3

    def kind_at(place: int) -> int:
        point = ord(text[place])
        return int(classes[point]) if point < len(classes) else above if point < _HAN_END else SEPARATOR

    spans: list[Span] = []
    for kind, run in groupby(range(len(text)), kind_at):
        places = list(run)
        start, end = places[0], places[-1] + 1
        if kind == CJK and end - start > 1:
            spans += [(place, place + 2) for place in places[:-1]]
        elif kind != SEPARATOR:
            spans.append((start, end))
    return spans
