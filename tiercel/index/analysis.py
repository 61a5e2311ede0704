"""What counts as a term: the analysers, by name, as an index stores and enforces them.

Text is cut into tokens by `tokens.py`; an analyser then decides, once per DISTINCT token, which term it becomes.
That is why stemming a million passages costs no more than stemming their vocabulary.
"""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tiercel.errors import UsageError

ENGLISH_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with".split()
)
"""The 33 words that Lucene's English analyser drops, so that BM25 figures compare with published ones."""

_RULES_VERSION = 1
"""Raised whenever the same text would give other terms; part of every fingerprint."""


@dataclass(frozen=True, slots=True)
class Analyzer:
    """How tokens become terms.

    Attributes:
        name: what `--analyzer` takes.
        language: the Snowball stemmer, or "" for none.
        stop_words: terms that are dropped, compared before stemming.
        cjk_bigrams: cut runs of Chinese, Japanese and Korean characters into overlapping pairs.
    """

    name: str
    language: str = ""
    stop_words: frozenset[str] = frozenset()
    cjk_bigrams: bool = False

    @property
    def fingerprint(self) -> str:
        """Changes whenever our rules would give other terms; a newer release of a stemmer is not seen."""
        rules = (_RULES_VERSION, self.language, sorted(self.stop_words), self.cjk_bigrams)
        return hashlib.blake2b(repr(rules).encode(), digest_size=8).hexdigest()

    def terms(self, tokens: Sequence[str]) -> list[str | None]:
        """The term of each token, aligned with `tokens`; None where the token is dropped.

        Every analyser applies NFKC and case folding, so that full-width, composed and upper-case forms meet.
        """
        folded = [token.lower() if token.isascii() else fold(token) for token in tokens]
        if not self.language:
            return [term if term and term not in self.stop_words else None for term in folded]
        import Stemmer

        # Its own cache costs more than it saves: every token comes once.
        stems = Stemmer.Stemmer(self.language, 0).stemWords(folded)
        return [
            stem if stem and term not in self.stop_words else None for term, stem in zip(folded, stems, strict=True)
        ]


def fold(token: str) -> str:
    """NFKC and case folding, twice: folding can undo normal form (`ΐ`) and must be stable to be searched for."""
    once = unicodedata.normalize("NFKC", token).casefold()
    return unicodedata.normalize("NFKC", once).casefold()


def analyzer(name: str) -> Analyzer:
    """The analyser of this name.

    `english`: Lucene's stop words and the Snowball stemmer. `none`: words as they are. `cjk`: words as they are and
    character bigrams. Any other language that Snowball stems goes by its English name, without stop words. The
    languages' analysers cut CJK text into bigrams too, as a run of such characters is no word of any of them.
    Raises UsageError for an unknown name.
    """
    known = analyzer_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"unknown analyzer {name!r}",
            expected=f"one of {', '.join(known)}",
            next_step=f"Did you mean {near[0]!r}?" if near else "",
        )
    if name == "none":
        return Analyzer(name)
    if name == "cjk":
        return Analyzer(name, cjk_bigrams=True)
    stop_words = ENGLISH_STOP_WORDS if name == "english" else frozenset()
    return Analyzer(name, language=name, stop_words=stop_words, cjk_bigrams=True)


def analyzer_names() -> list[str]:
    """Every name `analyzer` takes, the three main ones first."""
    import Stemmer

    return ["english", "none", "cjk", *(name for name in Stemmer.algorithms() if name not in {"english", "porter"})]
