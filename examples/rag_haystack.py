"""Tiercel as the retriever of a Haystack pipeline. `pip install 'tiercel[haystack]'`, then run this file."""

from __future__ import annotations

from collection import indexed
from haystack import Document, Pipeline, component

from tiercel.adapters.haystack import TiercelRetriever


@component
class Quoting:
    """Stands in for a generator: quotes the first source."""

    @component.output_types(reply=str)
    def run(self, documents: list[Document]) -> dict[str, str]:
        """The reply."""
        return {"reply": f"[{documents[0].id}] {documents[0].content}"}


def main() -> None:
    """One question through the pipeline."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", TiercelRetriever(indexed(), top_k=2))
    pipeline.add_component("generator", Quoting())
    pipeline.connect("retriever.documents", "generator.documents")
    print(pipeline.run({"retriever": {"query": "How fast does a peregrine stoop?"}})["generator"]["reply"])


if __name__ == "__main__":
    main()
