"""What do requests and answers look like? Ours, and those of Cohere, Jina, Text Embeddings Inference and OpenAI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tiercel.serving.engine import MOST_HITS

Text = Annotated[str, Field(min_length=0)]
Name = Annotated[str, Field(min_length=1, max_length=512)]
Turns = Annotated[list[Text], Field(max_length=64)]
Count = Annotated[int, Field(ge=1, le=MOST_HITS)]

MOST_TEXTS = 2048

Texts = Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]


class Strict(BaseModel):
    """A body of ours: a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Lenient(BaseModel):
    """A body in a shape of others, whose further fields are theirs."""

    model_config = ConfigDict(extra="ignore")


class SearchRequest(Strict):
    """`query` is one text or several; `explain` asks for what every stage ranked, and for what matched.

    `history` holds earlier turns, oldest first, for stages that read a history; all others, the recall legs among them,
    read the query alone.
    """

    query: Text | Annotated[list[Text], Field(min_length=1, max_length=256)]
    k: Count = 10
    pipeline: Annotated[str, Field(max_length=512)] = ""
    where: Annotated[str, Field(max_length=4096)] = ""
    history: Turns = []
    explain: bool = False


class TokenPair(BaseModel):
    """A token of the query, and the most similar one of the document; `span` is None if that is not of the text."""

    asked: str
    found: str | None
    span: tuple[int, int] | None
    similarity: float


class TokenPairs(BaseModel):
    """What late interaction compared: the tokens of the query, in order, with those of `text` up to `end`."""

    text: str
    end: int
    score: float
    pairs: list[TokenPair]


class FoundHit(BaseModel):
    """A document with its scores; `text` is the passage that matched, `matches` where it holds terms of the query.

    `tokens` is there where late interaction reranked it. Offsets count characters.
    """

    id: str
    score: float
    scores: dict[str, float]
    title: str
    text: str
    span: tuple[int, int] | None
    metadata: dict[str, Any]
    matches: list[tuple[int, int]] | None = None
    tokens: TokenPairs | None = None


class StageHits(BaseModel):
    """What a stage ranked, best first, and what it took for the batch that the query was part of."""

    name: str
    seconds: float
    hits: list[tuple[str, float]]


class Found(BaseModel):
    """The answer to one query."""

    query: str
    hits: list[FoundHit]
    stages: list[StageHits] | None = None


class SearchResponse(BaseModel):
    """One answer for each query, in their order, and the commit of the index that answered."""

    results: list[Found]
    commit: int


class RerankDocument(BaseModel):
    """A candidate with a text; its further fields come back with it."""

    model_config = ConfigDict(extra="allow")

    text: Text


class RerankRequest(Lenient):
    """Cohere's and Jina's; `history` is ours: earlier turns, oldest first, for a model that reads them."""

    query: Text
    history: Turns = []
    documents: Annotated[list[Text | RerankDocument], Field(min_length=1)]
    model: Name | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None


class RerankResult(BaseModel):
    """`index` is the candidate's position in the request."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class RerankResponse(BaseModel):
    """Best first."""

    id: str
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]


class TeiRerankRequest(Lenient):
    """Of Text Embeddings Inference, with `history` as in `RerankRequest`."""

    query: Text
    history: Turns = []
    texts: Annotated[list[Text], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool = False
    truncation_direction: Literal["Right", "right"] = "Right"


class TeiRank(BaseModel):
    """`index` is the text's position in the request."""

    index: int
    score: float
    text: str | None = None


class EmbeddingsRequest(Lenient):
    """OpenAI's; `input_type` is ours: which prompt the model is given, where it has any."""

    input: Texts
    model: Name | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: Literal["document", "query"] = "document"


class Embedding(BaseModel):
    """Base64 is of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(BaseModel):
    """In the order of the texts; usage counts words and marks, as no tokens of ours are charged."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: dict[str, int]


class TeiEmbedRequest(Lenient):
    """Of Text Embeddings Inference; with `truncate` false a text that is longer than the model reads is refused."""

    inputs: Texts
    normalize: bool = True
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = "Right"
    prompt_name: Literal["document", "query"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None


class NewDocument(BaseModel):
    """What else it holds is metadata."""

    model_config = ConfigDict(extra="allow")

    id: Name
    text: Text
    title: Text = ""


class AddRequest(Strict):
    """Documents of one commit."""

    documents: Annotated[list[NewDocument], Field(min_length=1)]


class Added(BaseModel):
    """`added` came in, `replaced` of them in place of others; the index holds `documents` now."""

    added: int
    replaced: int
    documents: int


class DeleteRequest(Strict):
    """Either ids or an expression over the metadata."""

    ids: list[Name] = []
    where: Annotated[str, Field(max_length=4096)] = ""


class Deleted(BaseModel):
    """`deleted` went, `documents` are left, of `unknown` ids there was none."""

    deleted: int
    documents: int
    unknown: list[str]


class StoredDocument(BaseModel):
    """As it was indexed."""

    id: str
    text: str
    title: str
    metadata: dict[str, Any]


class Problem(BaseModel):
    """Every refusal."""

    error: str
    error_type: str
