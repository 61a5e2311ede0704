"""Tiercel as the retriever and reranker of a framework; each module needs the extra of its name."""
