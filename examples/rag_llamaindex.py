"""Tiercel as the retriever of a LlamaIndex program. `pip install 'tiercel[llamaindex]'`, then run this file."""

from __future__ import annotations

from collection import indexed
from llama_index.core.schema import MetadataMode, NodeWithScore

from tiercel.adapters.llamaindex import TiercelRetriever


def generate(question: str, nodes: list[NodeWithScore]) -> str:
    """Stands in for a language model: quotes the first source."""
    best = nodes[0].node
    return f"[{best.node_id}] {best.get_content(MetadataMode.NONE)}"


def main() -> None:
    """One question."""
    question = "How fast does a peregrine stoop?"
    print(generate(question, TiercelRetriever(indexed(), similarity_top_k=2).retrieve(question)))


if __name__ == "__main__":
    main()
