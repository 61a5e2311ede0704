"""Which measures does a well-known set go by? MS MARCO's and TREC Deep Learning's conventions, by the set's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tiercel.evaluation.measures import Measure, of_grade, parse_measure, parse_measures
from tiercel.types import Qrels


@dataclass(frozen=True, slots=True)
class Convention:
    """How a set is measured by those who made it.

    Attributes:
        name: of the set.
        measures: those that are usual for it.
        grade: from which on a document is relevant to measures that only tell relevant from not.
        queries: how many are judged; None where that is not fixed.
    """

    name: str
    measures: tuple[str, ...]
    grade: int = 1
    queries: int | None = None

    def parse(self, texts: Sequence[str]) -> tuple[Measure, ...]:
        """The measures of these texts with the set's grade, where they take one and name none; each once."""
        measures = [
            of_grade(measure, 1 if _NAMES_GRADE.search(text) else self.grade)
            for text, measure in zip(texts, map(parse_measure, texts), strict=True)
        ]
        return tuple(dict.fromkeys(measures))

    def note(self, qrels: Qrels) -> str:
        """In words, what was applied, and what does not look like the set."""
        said = f"measured as {self.name}"
        if self.grade > 1:
            said += f": grade {self.grade} and up is relevant to measures that name no grade"
        judged = sum(map(bool, qrels.values()))
        if self.queries is not None and judged != self.queries:
            said += f"; {judged:,} queries are judged, where the whole set has {self.queries:,}"
        return said


_MSMARCO_DEV_SMALL = Convention("MS MARCO dev small", ("RR@10", "R@1000"), queries=6980)
_TREC_DL = ("nDCG@10", "RR", "AP", "R@1000")

_NAMES_GRADE = re.compile(r"\brel\s*=")

# Names as the organisers, ir_datasets, BEIR (whose split dev is the small one) and Anserini write them.
_DEV_SMALL = re.compile(r"dev[._/-]small|(?:^|[/:])msmarco/(?:qrels/)?dev(?:\.tsv(?:\.gz)?)?$")
_DL = re.compile(
    r"(?:trec[._/-]?dl|dl)[._/-]?(?:20)?(19|2[0-3])(?![0-9])|(?<![0-9])20(19|2[0-3])\.?qrels-(?:pass|docs)"
)


def convention_of(name: str) -> Convention | None:
    """The convention of a set by the name of its judgments, a path or an id; None for a set that is not known."""
    folded = name.casefold()
    if found := _DL.search(folded):
        return Convention(f"TREC DL 20{found[1] or found[2]}", _TREC_DL, grade=2)
    return _MSMARCO_DEV_SMALL if _DEV_SMALL.search(folded) else None


def measures_of(convention: Convention | None, asked: Sequence[str], usual: Sequence[str]) -> tuple[Measure, ...]:
    """The measures that were asked for, else those of the set, else the usual ones; the set's grade applied."""
    if convention is None:
        return parse_measures(asked or usual)
    return convention.parse(asked or convention.measures)
