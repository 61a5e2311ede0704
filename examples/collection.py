"""A handful of documents about falcons, for the examples beside this file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tiercel

DOCUMENTS = [
    {"id": "tiercel", "title": "Tiercel", "text": "A tiercel is a male falcon, a third smaller than the female."},
    {
        "id": "stoop",
        "title": "The stoop",
        "text": "A peregrine falcon stoops on its prey at over 300 kilometres an hour.",
    },
    {"id": "lure", "title": "The lure", "text": "A falconer calls a falcon back by swinging a lure on a line."},
    {"id": "moult", "title": "Moult", "text": "Falcons change their feathers once a year, from spring to autumn."},
    {"id": "bread", "title": "Bread", "text": "Rye bread keeps for a week in a dry cupboard."},
]


def indexed() -> str:
    """The folder of an index of them: words alone, so that no model is needed. Drop the options for vectors as well."""
    path = Path(tempfile.mkdtemp()) / "falcons.tiercel"
    tiercel.create(path, DOCUMENTS, options=tiercel.IndexOptions(encoder="none"))
    return str(path)
