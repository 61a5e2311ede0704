from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError
from tiercel.index.analysis import analyzer
from tiercel.index.postings import (
    Postings,
    PostingsBuilder,
    dead_frequencies,
    find_terms,
    map_postings,
    write_postings,
)


def collected(*batches: list[str], name: str = "none") -> Postings:
    builder = PostingsBuilder(analyzer(name))
    for batch in batches:
        builder.add(batch)
    return builder.finish()


def arrays(postings: Postings) -> list[NDArray[Any]]:
    return list(postings._asdict().values())


def vocabulary(postings: Postings) -> list[str]:
    blob, starts = postings.term_bytes.tobytes(), postings.term_starts.tolist()
    return [blob[a:b].decode() for a, b in pairwise(starts)]


def by_term(postings: Postings) -> dict[str, dict[int, int]]:
    """Frequency by document by term."""
    return {
        term: dict(
            zip(
                postings.documents[start:end].tolist(),
                postings.frequencies[start:end].tolist(),
                strict=True,
            )
        )
        for term, start, end in zip(
            vocabulary(postings), postings.starts[:-1].tolist(), postings.starts[1:].tolist(), strict=True
        )
    }


def test_postings_by_hand() -> None:
    postings = collected(["the falcon hunts the dove", "a dove"], ["", "falcon falcon falcon"], name="english")
    assert by_term(postings) == {"dove": {0: 1, 1: 1}, "falcon": {0: 1, 3: 3}, "hunt": {0: 1}}
    assert postings.lengths.tolist() == [3, 1, 0, 3]
    assert postings.starts.tolist() == [0, 2, 4, 5]
    assert postings.max_frequencies.tolist() == [1, 3, 1]
    assert postings.min_lengths.tolist() == [1, 3, 3]
    assert postings.frequencies.dtype == np.uint8


def test_tokens_that_become_the_same_term_are_counted_together() -> None:
    postings = collected(["falcons Falcon FALCONS ＦＡＬＣＯＮ"], ["falconing"], name="english")
    assert by_term(postings) == {"falcon": {0: 4, 1: 1}}


def test_terms_are_in_order_of_their_bytes() -> None:
    words = ["b", "ab", "a", "é", "z", "東", "𐐨", "ﾟ", "a1", "ａ"]
    assert vocabulary(collected([" ".join(words)])) == sorted(
        {"b", "ab", "a", "é", "z", "東", "𐐨", "\u309a", "a1"}, key=lambda term: term.encode()
    )


@pytest.mark.parametrize(
    ("times", "dtype"),
    [(1, np.uint8), (255, np.uint8), (256, np.uint16), (300, np.uint16), (65_535, np.uint16), (70_000, np.uint32)],
)
def test_frequencies_take_the_smallest_type_that_holds_them(times: int, dtype: type) -> None:
    postings = collected(["dove", "falcon " * times, "falcon"])
    assert postings.frequencies.dtype == dtype
    assert by_term(postings) == {"dove": {0: 1}, "falcon": {1: times, 2: 1}}
    assert postings.lengths.tolist() == [1, times, 1]
    assert postings.max_frequencies.tolist() == [1, times]
    assert postings.min_lengths.tolist() == [1, 1]


@pytest.mark.parametrize("batches", [(), ([],), ([""],), (["", "the of"], ["..."])])
def test_collections_without_a_term(batches: tuple[list[str], ...]) -> None:
    postings = collected(*batches, name="english")
    assert by_term(postings) == {}
    assert postings.lengths.tolist() == [0] * sum(map(len, batches))
    assert postings.starts.tolist() == postings.term_starts.tolist() == [0]
    assert find_terms(postings, [b"a", b""]).tolist() == [-1, -1]


texts = st.lists(
    st.lists(st.sampled_from(["a", "b", "ab", "the", "the", "Ａ", "é", "e\u0301", "東京都", "ba"])).map(" ".join)
)


@settings(deadline=None)
@given(st.lists(texts, max_size=4), st.sampled_from(["none", "english", "cjk"]))
def test_postings_count_what_a_counter_counts(batches: list[list[str]], name: str) -> None:
    terms_of = {
        "none": {"Ａ": ["a"], "e\u0301": ["é"]},
        "english": {"Ａ": [], "a": [], "the": [], "e\u0301": ["é"], "東京都": ["東京", "京都"]},
        "cjk": {"Ａ": ["a"], "e\u0301": ["é"], "東京都": ["東京", "京都"]},
    }[name]
    counters = [
        Counter(term for word in text.split() for term in terms_of.get(word, [word]))
        for batch in batches
        for text in batch
    ]
    expected = {
        term: {document: counter[term] for document, counter in enumerate(counters) if term in counter}
        for term in sorted(set().union(*counters), key=str.encode)
    }
    postings = collected(*batches, name=name)
    assert by_term(postings) == expected
    assert vocabulary(postings) == list(expected)
    assert [list(documents) for documents in by_term(postings).values()] == [sorted(d) for d in expected.values()]
    assert postings.lengths.tolist() == [counter.total() for counter in counters]
    assert postings.max_frequencies.tolist() == [max(d.values()) for d in expected.values()]
    assert postings.min_lengths.tolist() == [min(counters[i].total() for i in d) for d in expected.values()]


def test_batching_changes_nothing() -> None:
    words = ["a b a", "", "c", "b b b", "d a", "東京 c"]
    whole = collected(words)
    for size in (1, 2, 3, 5):
        parts = collected(*(words[i : i + size] for i in range(0, len(words), size)))
        for array, other in zip(arrays(whole), arrays(parts), strict=True):
            assert array.dtype == other.dtype
            assert array.tolist() == other.tolist()


def test_dead_frequencies_by_hand() -> None:
    postings = collected(["falcon dove", "falcon falcon owl", "", "dove"])
    terms, counts = dead_frequencies(postings, np.array([False, True, True, True]))
    assert terms.dtype == counts.dtype == np.int32
    assert [vocabulary(postings)[term] for term in terms] == ["dove", "falcon", "owl"]
    assert counts.tolist() == [1, 1, 1]


@settings(deadline=None)
@given(texts, st.randoms(use_true_random=False), st.sampled_from([0.0, 0.3, 1.0]))
def test_dead_frequencies_count_what_the_dead_hold(batch: list[str], drawn: Any, share: float) -> None:
    postings = collected(batch)
    dead = np.array([drawn.random() < share for _ in batch], dtype=bool)
    held = Counter(
        term for term, of_term in by_term(postings).items() for document in of_term if dead[document]
    )  # fmt: skip
    terms, counts = dead_frequencies(postings, dead)
    names = vocabulary(postings)
    assert terms.tolist() == sorted(terms.tolist())
    assert dict(zip([names[term] for term in terms], counts.tolist(), strict=True)) == held


def test_terms_are_found_whole_and_nothing_else_is() -> None:
    postings = collected(["falcon falconry fal dove é 東京 z"])
    words = vocabulary(postings)
    assert find_terms(postings, [word.encode() for word in words]).tolist() == list(range(len(words)))
    absent = [
        "",
        "f",
        "fa",
        "falc",
        "falconr",
        "falconrys",
        "dov",
        "doves",
        "a",
        "zz",
        "~",
        "東",
        "東京都",
        "\U0010ffff",
    ]
    assert find_terms(postings, [word.encode() for word in absent]).tolist() == [-1] * len(absent)
    assert find_terms(postings, [b"\xc3", b"\xff"]).tolist() == [-1, -1]  # no UTF-8, but bytes all the same


def test_no_terms_wanted_none_found() -> None:
    assert find_terms(collected(["a"]), []).tolist() == []


@settings(deadline=None)
@given(st.sets(st.text("ab", max_size=5), max_size=30), st.lists(st.text("abc", max_size=6), max_size=30))
def test_finding_terms_is_looking_them_up(known: set[str], wanted: list[str]) -> None:
    postings = collected([" ".join(known)])
    places = {word: place for place, word in enumerate(sorted(known - {""}))}
    assert find_terms(postings, [word.encode() for word in wanted]).tolist() == [places.get(w, -1) for w in wanted]


@pytest.mark.parametrize("batch", [["a b a", "", "b"], [], ["", ""]])
def test_postings_come_back_from_disk_as_they_were(tmp_path: Path, batch: list[str]) -> None:
    postings = collected(batch)
    write_postings(tmp_path / "lexical", postings)
    mapped = map_postings(tmp_path / "lexical", len(batch))
    for array, again in zip(arrays(postings), arrays(mapped), strict=True):
        assert array.dtype == again.dtype
        assert array.tolist() == again.tolist()
        assert not again.flags.writeable
    assert find_terms(mapped, [b"a", b"b", b"c"]).tolist() == find_terms(postings, [b"a", b"b", b"c"]).tolist()


def test_postings_of_another_segment_are_refused(tmp_path: Path) -> None:
    write_postings(tmp_path / "lexical", collected(["a b", "c"]))
    with pytest.raises(IndexStoreError, match="the sizes of its arrays do not fit together"):
        map_postings(tmp_path / "lexical", 3)


@pytest.mark.parametrize("name", Postings._fields)
def test_an_array_of_another_segment_is_refused(tmp_path: Path, name: str) -> None:
    write_postings(tmp_path / "small", collected(["a b", "c"]))
    write_postings(tmp_path / "large", collected(["a b dd", "c e", "f"]))
    (tmp_path / "large" / f"{name}.npy").replace(tmp_path / "small" / f"{name}.npy")
    with pytest.raises(IndexStoreError, match="the sizes of its arrays do not fit together"):
        map_postings(tmp_path / "small", 2)
