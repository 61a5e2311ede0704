"""`tiercel mcp` asked by the official client over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import tiercel
from tests.conftest import Models, UniModel, environment

pytest.importorskip("mcp", reason="the extra mcp is not installed")

from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.types import CallToolResult, TextContent


def asked(arguments: list[str], conversation: Callable[[ClientSession], Awaitable[None]], **variables: str) -> None:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "tiercel.cli", "mcp", *arguments],
        env=environment(TIERCEL_OFFLINE="1", **variables),
    )

    async def main() -> None:
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            await conversation(session)

    asyncio.run(asyncio.wait_for(main(), 60))


async def call(session: ClientSession, name: str, **arguments: Any) -> CallToolResult:
    result = await session.call_tool(name, arguments)
    assert isinstance(result, CallToolResult)
    return result


def value(result: CallToolResult) -> Any:
    assert not result.is_error, result
    assert isinstance(result.structured_content, dict)
    return result.structured_content.get("result", result.structured_content)


def said(result: CallToolResult) -> str:
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def test_search_get_document_and_rerank(models: Models, dense_index: Path) -> None:
    async def conversation(session: ClientSession) -> None:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert set(tools) == {"search", "get_document", "rerank"}
        assert all(tool.description for tool in tools.values())
        assert tools["search"].input_schema["required"] == ["query"]

        found = value(await call(session, "search", query="falcons in winter", k=2))
        expected = tiercel.open(dense_index).search("falcons in winter", 2)
        assert [(hit["id"], hit["score"]) for hit in found] == [(hit.document.id, hit.score) for hit in expected]
        assert (found[0]["title"], found[0]["metadata"]) == ("Falcons", {"year": 2020})
        only = value(await call(session, "search", query="falcon", where="year = 2021"))
        assert [hit["id"] for hit in only] == ["d2"]

        document = value(await call(session, "get_document", doc_id="d2"))
        assert document == {"id": "d2", "title": "", "text": "bread is sold by the bridge", "metadata": {"year": 2021}}

        texts = ["bread is sold", "the falcon hunts in winter"]
        order = [int(hit.document.id) for hit in tiercel.rerank("falcon", texts, model=models.cross)]
        ranked = value(await call(session, "rerank", query="falcon", texts=texts))
        assert [one["index"] for one in ranked] == order

    asked([str(dense_index), "--reranker", models.cross], conversation, TIERCEL_CACHE_DIR=str(models.cache))


def test_a_history_is_handed_on(dense_index: Path, uni_models: dict[str, UniModel]) -> None:
    model, history = str(uni_models["one-way"].exported), ["bread is sold", "by the bridge"]
    texts = ["the river", "a falcon hunts in winter"]
    pipeline = f"bm25,uni:{model}"

    async def conversation(session: ClientSession) -> None:
        for turns in ([], history):
            ranked = value(await call(session, "rerank", query="falcon", texts=texts, history=turns))
            expected = tiercel.rerank("falcon", texts, model=model, history=turns)
            assert [one["score"] for one in ranked] == pytest.approx([hit.score for hit in expected])
            found = value(await call(session, "search", query="falcon", history=turns))
            answers = tiercel.open(dense_index).search("falcon", pipeline=pipeline, history=turns)
            assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in answers])

    asked([str(dense_index), "--pipeline", pipeline, "--reranker", model], conversation)


def test_mistakes_are_told_and_changes_are_seen(place: Path) -> None:
    long = "falcon " * 1000
    options = tiercel.IndexOptions(encoder="none")
    index = tiercel.create(place / "docs.tiercel", [{"id": "d1", "text": long, "year": 2020}], options=options)

    async def conversation(session: ClientSession) -> None:
        assert {tool.name for tool in (await session.list_tools()).tools} == {"search", "get_document"}
        assert "no document has the id 'd2'" in said(await call(session, "get_document", doc_id="d2"))
        assert "yaer" in said(await call(session, "search", query="x", where="yaer = 1"))
        assert "less than or equal to 1000" in said(await call(session, "search", query="x", k=5000))
        (hit,) = value(await call(session, "search", query="falcon"))
        assert hit["text"].endswith(" …")
        assert len(hit["text"]) < len(long)
        index.add([{"id": "d2", "text": "a tower"}])
        assert [hit["id"] for hit in value(await call(session, "search", query="tower"))] == ["d2"]

    asked([str(index.path)], conversation)


def test_an_index_that_is_not_there_is_refused(refused: Callable[..., str]) -> None:
    assert json.dumps("none").strip('"') in refused(4, "mcp", "none")
