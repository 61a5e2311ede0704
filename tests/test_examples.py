"""The examples run, and quote the right source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, environment, python

STOOP = "A peregrine falcon stoops on its prey at over 300 kilometres an hour."


@pytest.mark.parametrize(
    ("name", "needs", "said"),
    [
        ("rag", "tiercel", f'A: "{STOOP}" [1]'),
        ("rag_langchain", "langchain_core", f"[stoop] {STOOP}"),
        ("rag_llamaindex", "llama_index.core", f"[stoop] {STOOP}"),
        ("rag_haystack", "haystack", f"[stoop] {STOOP}"),
    ],
)
def test_an_example_answers(name: str, needs: str, said: str, tmp_path: Path) -> None:
    pytest.importorskip(needs, reason=f"{needs} is not installed")
    env = environment(TMPDIR=str(tmp_path), HAYSTACK_TELEMETRY_ENABLED="False", TIERCEL_OFFLINE="1")
    outcome = python(str(REPOSITORY / "examples" / f"{name}.py"), env=env)
    assert outcome.code == 0, outcome
    assert said in outcome.out.splitlines()
    if name == "rag":
        assert "called back" in outcome.out
        assert "[1] The lure (lure)" in outcome.out
