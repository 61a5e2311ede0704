"""What each reranker costs for one query, by the formulas of the package: the table of docs/RERANKERS.md.

python benchmarks/costs.py
"""

from __future__ import annotations

from collections.abc import Iterator

from tiercel.rerankers import costs
from tiercel.rerankers.costs import Cost, Lengths

SHAPES = {
    "a conversation of 256 tokens, 10 answers of 32": Lengths(256, 32, 10),
    "a question of 16, 10 passages of 120": Lengths(16, 120, 10),
    "a question of 16, 100 passages of 120": Lengths(16, 120, 100),
    "a question of 16, 50 documents of 2,000": Lengths(16, 2000, 50),
    "a document of 200, 50 titles of 16": Lengths(200, 16, 50),
}


def lines() -> Iterator[str]:
    """The table in Markdown: tokens read, billions of operations, and the cross-encoder's tokens over these."""
    yield "| what is asked | stage | tokens read | 10^9 operations | a cross-encoder reads |"
    yield "|---|---|---|---|---|"
    for shape, asked in SHAPES.items():
        whole = costs.cross_encoder(asked).tokens
        for number, (stage, cost) in enumerate(stages(asked)):
            name = "" if number else shape
            times = f"{whole / cost.tokens:,.2f} times"
            yield f"| {name} | {stage} | {cost.tokens:,} | {cost.operations / 1e9:,.2f} | {times} |"


def stages(asked: Lengths) -> Iterator[tuple[str, Cost]]:
    """Every reranker over this backbone: MiniLM with 6 layers, for local attention its first 2."""
    yield "`cross`", costs.cross_encoder(asked)
    yield "`uni`, arrow", costs.uni_encoder(asked, arrow=True)
    yield "`uni`, one-way", costs.uni_encoder(asked, arrow=False)
    yield "`late`, nothing stored", costs.late_interaction(asked, stored=False)
    yield "`late`, stored", costs.late_interaction(asked, stored=True)
    yield "`pair`, stored", costs.pair_head(asked, stored=True)
    yield "`local`, nothing stored", costs.local_attention(asked, stored=False)
    yield "`local`, stored", costs.local_attention(asked, stored=True)


if __name__ == "__main__":
    print("\n".join(lines()))
