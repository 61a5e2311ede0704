"""What of a hit goes into a framework's metadata, under which names? The same for all frameworks."""

from __future__ import annotations

from typing import Any

from tiercel.types import FoundDocument

TITLE = "title"
RETRIEVAL_SCORE = "retrieval_score"
STAGE_SCORES = "stage_scores"

OURS = (RETRIEVAL_SCORE, STAGE_SCORES)
"""What says how a document was found, not what is in it: not for a prompt."""


def hit_metadata(hit: FoundDocument) -> dict[str, Any]:
    """The document's metadata, its title where it has one, the last stage's score, and those of all stages by name.

    These names are ours: metadata of the document under them are covered.
    """
    title = {TITLE: hit.document.title} if hit.document.title else {}
    return {**hit.document.metadata, **title, RETRIEVAL_SCORE: hit.score, STAGE_SCORES: dict(hit.scores)}
