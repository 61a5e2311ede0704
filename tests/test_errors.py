from __future__ import annotations

import pytest

import tiercel
from tiercel import errors
from tiercel.errors import (
    IndexStoreError,
    InputError,
    ModelError,
    PartialFailure,
    TiercelError,
    UsageError,
)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "line 3 is empty"),
        ({"expected": "a JSON object"}, "line 3 is empty; expected a JSON object"),
        ({"next_step": "Remove it"}, "line 3 is empty. Remove it"),
        ({"where": "docs.jsonl:3"}, "docs.jsonl:3: line 3 is empty"),
        (
            {"expected": "a JSON object", "next_step": "Remove it", "where": "docs.jsonl:3"},
            "docs.jsonl:3: line 3 is empty; expected a JSON object. Remove it",
        ),
    ],
)
def test_the_message_says_where_what_and_what_next(keywords: dict[str, str], message: str) -> None:
    error = InputError("line 3 is empty", **keywords)
    assert str(error) == message
    assert error.found == "line 3 is empty"
    assert (error.expected, error.next_step, error.where) == tuple(
        keywords.get(name, "") for name in ("expected", "next_step", "where")
    )


@pytest.mark.parametrize(
    ("kind", "code"),
    [(TiercelError, 1), (UsageError, 2), (InputError, 3), (IndexStoreError, 4), (ModelError, 5), (PartialFailure, 6)],
)
def test_every_branch_has_its_exit_code(kind: type[TiercelError], code: int) -> None:
    assert kind.exit_code == code
    assert issubclass(kind, TiercelError)
    assert getattr(tiercel, kind.__name__) is kind
    # The tree in the module's docstring is the one the shell sees.
    assert f"{kind.__name__} " in str(errors.__doc__)
    assert any(kind.__name__ in line and f" {code}" in line for line in str(errors.__doc__).splitlines())


def test_branches_do_not_catch_each_other() -> None:
    kinds = [UsageError, InputError, IndexStoreError, ModelError, PartialFailure]
    assert not any(issubclass(one, other) for one in kinds for other in kinds if one is not other)
