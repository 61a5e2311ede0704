from __future__ import annotations

from pathlib import Path

import pytest

from tiercel.errors import IndexStoreError, UsageError
from tiercel.index.bm25 import BM25
from tiercel.index.lexical import parameters_of
from tiercel.index.pipelines import (
    CALIBRATIONS,
    PIPELINES,
    check_pipeline_name,
    keep_calibration,
    name_pipeline,
    read_calibrations,
    read_pipelines,
)


def test_a_calibration_is_kept(tmp_path: Path) -> None:
    assert read_calibrations(tmp_path) == {}
    keep_calibration(tmp_path, "bm25", {"method": "platt", "values": [1.0, 2.0]})
    keep_calibration(tmp_path, "dense", {"method": "platt", "values": [0.0, 0.0]})
    assert read_calibrations(tmp_path)["bm25"] == {"method": "platt", "values": [1.0, 2.0]}
    (tmp_path / CALIBRATIONS).write_text('{"bm25": 1}')
    with pytest.raises(IndexStoreError, match=r"calibrations\.json: what is kept of pipelines cannot be read"):
        read_calibrations(tmp_path)


def test_named_and_found_again(tmp_path: Path) -> None:
    assert read_pipelines(tmp_path) == {}
    name_pipeline(tmp_path, "tuned", "bm25+dense")
    name_pipeline(tmp_path, "quick", "bm25@10")
    name_pipeline(tmp_path, "tuned", "bm25")
    assert read_pipelines(tmp_path) == {"quick": "bm25@10", "tuned": "bm25"}


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{"])
def test_a_file_of_another_form(tmp_path: Path, content: str) -> None:
    (tmp_path / PIPELINES).write_text(content)
    with pytest.raises(IndexStoreError, match="what is kept of pipelines cannot be read"):
        read_pipelines(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "1st", "bm25", "a@5", "a,b"])
def test_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="the pipeline name"):
        check_pipeline_name(name, ("bm25", "dense"))
    check_pipeline_name("tuned-1", ("bm25",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", (1.5, 0.5)), ("k1=0.6", (0.6, 0.5)), ("b=0.75:k1=2", (2, 0.75)), ("k1=0:b=1", (0, 1))],
)
def test_parameters_in_a_pipeline_string(text: str, expected: tuple[float, float]) -> None:
    found = parameters_of(text, BM25(k1=1.5, b=0.5, variant="atire"))
    assert (found.k1, found.b, found.variant) == (*expected, "atire")


@pytest.mark.parametrize("text", ["k1", "k2=1", "k1=1:k1=2", "k1=-1", "k1=1:", "b=1.5", "model/name", "k1=nan"])
def test_parameters_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parameters_of(text, BM25())
