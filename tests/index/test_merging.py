from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.index import merging
from tiercel.index.analysis import analyzer
from tiercel.index.merging import merge_postings
from tiercel.index.postings import Postings, PostingsBuilder, map_postings, write_postings

Part = tuple[list[str], list[bool] | None]
"""Texts of a segment, and which of them stay; None: all."""


def collected(texts: Sequence[str]) -> Postings:
    builder = PostingsBuilder(analyzer("none"))
    builder.add(texts)
    return builder.finish()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def merged(folder: Path, parts: Sequence[Part]) -> Postings:
    """The parts, each mapped from a folder of its own, merged into `folder / "merged"`."""
    inputs = []
    for number, (texts, stays) in enumerate(parts):
        write_postings(folder / str(number), collected(texts))
        postings = map_postings(folder / str(number), len(texts))
        inputs.append((postings, None if stays is None else np.array(stays, dtype=bool)))
    return merge_postings(folder / "merged", inputs)


def check(folder: Path, parts: Sequence[Part]) -> Postings:
    """Merge, and hold the files against those that the texts that stay give."""
    result = merged(folder, parts)
    staying = [
        text for texts, stays in parts for text in compress(texts, [True] * len(texts) if stays is None else stays)
    ]
    write_postings(folder / "built", collected(staying))
    assert files(folder / "merged") == files(folder / "built")
    built = map_postings(folder / "built", len(staying))
    for name in Postings._fields:
        array, other = getattr(result, name), getattr(built, name)
        assert array.dtype == other.dtype
        assert array.tolist() == other.tolist()
        assert not array.flags.writeable
    return result


def test_merging_by_hand(tmp_path: Path) -> None:
    parts: list[Part] = [
        (["falcon dove", "owl", "dove dove"], [True, False, True]),
        (["", "dove"], None),
        (["falcon"], [False]),
    ]
    postings = check(tmp_path, parts)
    assert postings.term_bytes.tobytes() == b"dovefalcon"
    assert postings.starts.tolist() == [0, 3, 4]
    assert postings.documents.tolist() == [0, 1, 3, 0]
    assert postings.frequencies.tolist() == [1, 2, 1, 1]
    assert postings.lengths.tolist() == [2, 2, 0, 1]
    assert postings.max_frequencies.tolist() == [2, 1]
    assert postings.min_lengths.tolist() == [1, 2]


words = st.sampled_from(["a", "b", "ab", "ba", "é", "z", "東京", "𐐨", "\u309a", "a1", "a " * 300])
texts = st.lists(st.lists(words, max_size=5).map(" ".join), max_size=8)


@st.composite
def segments(draw: st.DrawFn) -> list[Part]:
    parts: list[Part] = []
    for of_part in draw(st.lists(texts, max_size=4)):
        some = st.lists(st.booleans(), min_size=len(of_part), max_size=len(of_part))
        every = st.sampled_from([[True] * len(of_part), [False] * len(of_part)])
        parts.append((of_part, draw(st.none() | some | every)))
    return parts


@settings(deadline=None)
@given(segments(), st.sampled_from([1, 3, merging._BLOCK]))
def test_merged_postings_are_those_of_the_texts_that_stay(parts: list[Part], block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_BLOCK", block)
        check(Path(folder), parts)


@pytest.mark.parametrize("parts", [[], [([], None)], [([], []), ([], None)], [(["a"], [False])], [(["", "..."], None)]])
def test_nothing_to_merge(tmp_path: Path, parts: list[Part]) -> None:
    postings = check(tmp_path, parts)
    assert postings.documents.size == 0


@pytest.mark.parametrize("times", [255, 256, 65_535, 65_536])
@pytest.mark.parametrize("stays", [True, False])
def test_types_are_as_small_as_what_stays_allows(tmp_path: Path, times: int, stays: bool) -> None:
    postings = check(tmp_path, [(["dove", "falcon " * times], [True, stays]), (["falcon dove"], None)])
    assert postings.frequencies.dtype == (np.min_scalar_type(times) if stays else np.uint8)
    assert postings.lengths.dtype == (np.uint32 if stays and times > 65_535 else np.uint16)


def test_segments_of_unlike_types(tmp_path: Path) -> None:
    long: list[Part] = [(["a " * 70_000, "b"], None), (["a " * 300], None), (["a", "b b"], [True, True])]
    assert check(tmp_path, long).frequencies.tolist() == [70_000, 300, 1, 1, 2]


def test_many_small_segments(tmp_path: Path) -> None:
    drawn = np.random.default_rng(4)
    names = np.array([f"w{i}" for i in range(200)])
    parts: list[Part] = []
    for _ in range(30):
        of_part = [" ".join(drawn.choice(names, drawn.integers(0, 20))) for _ in range(drawn.integers(0, 12))]
        stays: Any = (drawn.random(len(of_part)) < 0.7).tolist()
        parts.append((of_part, stays))
    check(tmp_path, parts)


def test_the_parts_may_be_in_memory(tmp_path: Path) -> None:
    one, other = collected(["a b", "c"]), collected(["b b"])
    postings = merge_postings(tmp_path / "merged", [(one, np.array([True, False])), (other, None)])
    write_postings(tmp_path / "built", collected(["a b", "b b"]))
    assert files(tmp_path / "merged") == files(tmp_path / "built")
    assert postings.lengths.tolist() == [2, 2]


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    with pytest.raises(FileExistsError):
        merge_postings(tmp_path / "merged", [])
