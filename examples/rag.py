"""Retrieval, a context with citations, and an answer that quotes its sources. Run this file."""

from __future__ import annotations

from collection import indexed

import tiercel


def generate(question: str, context: tiercel.Context) -> str:
    """Stands in for a language model: quotes the first source. Put a call of yours here."""
    if not context.citations:
        return "I do not know."
    source = context.text.partition("\n\n")[0].splitlines()[-1]
    return f'"{source}" [{context.citations[0].number}]'


def main() -> None:
    """Ask two questions, the second of which needs the first to be understood."""
    index = tiercel.open(indexed())
    history: list[str] = []
    for question in ("How fast does a peregrine stoop?", "And is it called back by a lure on a line?"):
        hits = index.search(question, 3, history=history[-1:])
        context = tiercel.context(hits, max_tokens=60, order="best-first")
        print(f"Q: {question}\nA: {generate(question, context)}")
        for citation in context.citations:
            print(f"   [{citation.number}] {citation.title} ({citation.doc_id})")
        history.append(question)


if __name__ == "__main__":
    main()
