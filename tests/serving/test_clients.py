"""The clients of others, pointed at a real server."""

from __future__ import annotations

import base64
import math
from contextlib import closing
from typing import Any

import numpy as np
import pytest

import tiercel
from tests.conftest import Models

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from tests.serving.served import KEY, Server


def test_the_official_cohere_client(server: Server, models: Models) -> None:
    cohere, httpx = pytest.importorskip("cohere"), pytest.importorskip("httpx")
    texts = ["the falcon hunts in winter", "bread is sold", "nobody swims"]
    expected = tiercel.rerank("falcon", texts, model=models.cross)
    with closing(httpx.Client()) as http:
        second = cohere.ClientV2(KEY, base_url=server.url, httpx_client=http)
        first = cohere.Client(KEY, base_url=server.url, httpx_client=http)
        answers = [client.rerank(model="any", query="falcon", documents=texts, top_n=2) for client in (first, second)]
        documents = [{"text": text, "source": "s"} for text in texts]
        whole = first.rerank(query="falcon", documents=documents, return_documents=True)
    for answer in answers:
        assert [result.index for result in answer.results] == [int(hit.document.id) for hit in expected[:2]]
        for result, hit in zip(answer.results, expected, strict=False):
            assert result.relevance_score == pytest.approx(1 / (1 + math.exp(-hit.score)))
    assert whole.results[0].document.text == expected[0].text


def test_the_official_openai_client(server: Server, models: Models) -> None:
    openai = pytest.importorskip("openai")
    texts = ["falcon", "bread is sold"]
    expected = tiercel.encode(texts, model=models.encoder)
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client:
        answers = [
            client.embeddings.create(model="any", input=texts, **form)
            for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"})
        ]
    for answer in answers:
        vectors = [
            np.frombuffer(base64.b64decode(one.embedding), "<f4") if isinstance(one.embedding, str) else one.embedding
            for one in answer.data
        ]
        np.testing.assert_allclose(np.array(vectors, dtype=np.float32), expected, atol=1e-6)
    assert answer.usage.total_tokens == 4
    wrong = openai.OpenAI(api_key="wrong", base_url=f"{server.url}/v1", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.embeddings.create(model="any", input="x")


def test_langchains_cohere_client(server: Server, models: Models) -> None:
    lc = pytest.importorskip("langchain_cohere")
    cohere, httpx = pytest.importorskip("cohere"), pytest.importorskip("httpx")
    with closing(httpx.Client()) as http:
        client = cohere.ClientV2(KEY, base_url=server.url, httpx_client=http)
        compressor = lc.CohereRerank(client=client, model="any", top_n=1)
        (best,) = compressor.rerank(["bread is sold", "the falcon hunts in winter"], "falcon")
    expected = tiercel.rerank("falcon", ["bread is sold", "the falcon hunts in winter"], model=models.cross, k=1)
    assert best["index"] == int(expected[0].document.id)


def test_text_embeddings_inferences_shape(server: Server, models: Models) -> None:
    texts = ["bread is sold", "the falcon hunts in winter"]
    expected = tiercel.rerank("falcon", texts, model=models.cross)
    raw = server.post("/rerank", query="falcon", texts=texts, raw_scores=True, return_text=True)
    assert [(one["index"], one["text"]) for one in raw] == [(int(hit.document.id), hit.text) for hit in expected]
    assert [one["score"] for one in raw] == pytest.approx([hit.score for hit in expected])
    shown = server.post("/rerank", query="falcon", texts=texts)
    assert [set(one) for one in shown] == [{"index", "score"}] * 2
    assert [one["score"] for one in shown] == pytest.approx([1 / (1 + math.exp(-hit.score)) for hit in expected])


def test_text_embeddings_inferences_vectors(server: Server, models: Models) -> None:
    texts = ["falcon", "bread is sold"]
    expected = tiercel.encode(texts, model=models.encoder)
    np.testing.assert_array_equal(np.array(server.post("/embed", inputs=texts), dtype=np.float32), expected)
    (alone,) = server.post("/embed", inputs=texts[1], normalize=True, truncate=None, prompt_name="query")
    asked = tiercel.encode(texts[1:], model=models.encoder, kind="query")
    np.testing.assert_array_equal(np.array([alone], dtype=np.float32), asked)
    long = "falcon " * 500
    assert server.post("/embed", inputs=["falcon", long], truncate=True)[1]

    def embed(status: int, **body: Any) -> str:
        return server.refused(status, "POST", "/embed", json=body)["error"]

    assert f"a text of {len(long)} characters, of which the model reads" in embed(422, inputs=long, truncate=False)
    assert "normalize false" in embed(422, inputs="x", normalize=False)
    assert "dimensions 3; expected 16" in embed(422, inputs="x", dimensions=3)
    assert "inputs" in embed(422, inputs=[])
    assert "valid string" in embed(422, inputs=[[1, 2]])


def llama_nodes(texts: list[str]) -> list[Any]:
    schema = pytest.importorskip("llama_index.core.schema")
    return [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.5) for text in texts]


TEXTS = ["bread is sold", "the falcon hunts in winter", "nobody swims"]


def reranked(models: Models) -> list[tuple[str, Any]]:
    expected = tiercel.rerank("falcon", TEXTS, model=models.cross, k=2)
    return [(hit.text, pytest.approx(1 / (1 + math.exp(-hit.score)))) for hit in expected]


def test_llamaindexs_cohere_client(server: Server, models: Models) -> None:
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    rerank = module.CohereRerank(api_key=KEY, base_url=server.url, model="any", top_n=2, max_retries=1)
    with closing(rerank._client._client_wrapper.httpx_client.httpx_client):  # it cannot be given one, nor be closed
        found = rerank.postprocess_nodes(llama_nodes(TEXTS), query_str="falcon")
    assert [(node.text, node.score) for node in found] == reranked(models)


def test_llamaindexs_clients_of_text_embeddings_inference(server: Server, models: Models) -> None:
    reranking = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    embedding = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    rerank = reranking.TextEmbeddingInference(base_url=server.url, auth_token=f"Bearer {KEY}", top_n=2)
    found = rerank.postprocess_nodes(llama_nodes(TEXTS), query_str="falcon")
    assert [(node.text, node.score) for node in found] == reranked(models)
    embed = embedding.TextEmbeddingsInference("any", base_url=server.url, auth_token=KEY)
    vectors = embed.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(vectors, tiercel.encode(TEXTS, model=models.encoder), atol=1e-6)


def test_llamaindexs_openai_client(server: Server, models: Models) -> None:
    module, httpx = pytest.importorskip("llama_index.embeddings.openai"), pytest.importorskip("httpx")
    with closing(httpx.Client()) as http:
        client = module.OpenAIEmbedding(
            model_name="any", api_key=KEY, api_base=f"{server.url}/v1", max_retries=0, http_client=http
        )
        vectors = [*client.get_text_embedding_batch(TEXTS[:2]), client.get_query_embedding(TEXTS[2])]
    np.testing.assert_allclose(vectors, tiercel.encode(TEXTS, model=models.encoder), atol=1e-6)


def test_langchains_openai_client(server: Server, models: Models) -> None:
    lc, httpx = pytest.importorskip("langchain_openai"), pytest.importorskip("httpx")
    with closing(httpx.Client()) as http:
        client = lc.OpenAIEmbeddings(
            model="any", api_key=KEY, base_url=f"{server.url}/v1", max_retries=0, http_client=http,
            check_embedding_ctx_length=False,  # else it sends numbers of OpenAI's tokens, whose table it fetches
        )  # fmt: skip
        vectors = client.embed_documents(TEXTS)
        assert client.embed_query(TEXTS[0]) == vectors[0]
    np.testing.assert_allclose(vectors, tiercel.encode(TEXTS, model=models.encoder), atol=1e-6)
