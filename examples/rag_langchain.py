"""Tiercel as the retriever of a LangChain chain. `pip install 'tiercel[langchain]'`, then run this file."""

from __future__ import annotations

from collection import indexed
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from tiercel.adapters.langchain import TiercelRetriever


def cited(documents: list[Document]) -> str:
    """Each document under its id."""
    return "\n".join(f"[{document.id}] {document.page_content}" for document in documents)


def generate(prompt: object) -> str:
    """Stands in for a language model: quotes the first source of the prompt."""
    return next(line for line in str(prompt).replace("\\n", "\n").splitlines() if line.startswith("["))


def main() -> None:
    """One question through the chain."""
    retriever = TiercelRetriever(path=indexed(), k=2)
    prompt = PromptTemplate.from_template("Sources:\n{sources}\nQuestion: {question}")
    chain = {"sources": retriever | cited, "question": RunnablePassthrough()} | prompt | RunnableLambda(generate)
    print(chain.invoke("How fast does a peregrine stoop?"))


if __name__ == "__main__":
    main()
