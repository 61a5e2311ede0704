from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tiercel.data.partial import PartialRun
from tiercel.errors import InputError
from tiercel.types import DocId, Query, QueryId, Ranking

ASKED = {"-k": "10", "corpus": "a1b2c3d4e5f60718"}


def ranking(name: str, **scores: float) -> Ranking:
    ids = [DocId(doc_id) for doc_id in scores]
    return Ranking.from_scores(Query(QueryId(name), "q", ("before",)), ids, scores.values(), stage="cross", keep=9)


FIRST, SECOND, THIRD = ranking("1", a=0.1, b=-1 / 3), ranking("2"), ranking("3", c=1e-30)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A target of which two batches are there."""
    with contextlib.suppress(KeyboardInterrupt), PartialRun(tmp_path / "out.trec", ASKED) as partial:
        partial.append([FIRST, SECOND])
        partial.append([THIRD])
        raise KeyboardInterrupt
    return tmp_path / "out.trec"


def kept(target: Path) -> list[Ranking]:
    with PartialRun(target, ASKED) as partial:
        rankings = list(partial.rankings())
        assert partial.queries == len(rankings)
        return rankings


def test_what_was_kept_is_there_again(target: Path) -> None:
    assert [path.name for path in target.parent.iterdir()] == ["out.trec.partial"]
    assert kept(target) == [FIRST, SECOND, THIRD]
    with PartialRun(target, ASKED) as partial:
        assert (partial.batches, partial.queries) == (2, 3)
        partial.append([ranking("4")])
    assert kept(target) == [FIRST, SECOND, THIRD, ranking("4")]


def test_what_is_forgotten_is_gone(target: Path) -> None:
    with PartialRun(target, ASKED) as partial:
        partial.forget()
    assert list(target.parent.iterdir()) == []


def test_nothing_kept_leaves_nothing(tmp_path: Path) -> None:
    with PartialRun(tmp_path / "out.trec", ASKED):
        assert (tmp_path / "out.trec.partial").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_is_cut_short_anywhere_is_dropped(target: Path) -> None:
    path = target.with_name("out.trec.partial")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    ends = [len(lines[0]), len(lines[0] + lines[1]), len(whole)]
    for size in sorted({*range(0, len(whole), 23), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:2])}):
        path.write_bytes(whole[:size])
        batches = sum(end <= size for end in ends[1:])
        with PartialRun(target, ASKED) as partial:
            assert partial.batches == batches
            assert list(partial.rankings()) == [FIRST, SECOND, THIRD][: batches + (batches > 0)]
            if batches < 1:
                partial.append([FIRST, SECOND])
            if batches < 2:
                partial.append([THIRD])
        assert path.read_bytes() == whole


def test_a_line_of_a_damaged_disk_is_dropped(target: Path) -> None:
    path = target.with_name("out.trec.partial")
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second + b"\0" * 10 + b"\n" + third)
    assert kept(target) == [FIRST, SECOND]


def test_other_settings_are_refused_by_name(target: Path) -> None:
    before = target.with_name("out.trec.partial").read_bytes()
    asked = {"-k": "5", "corpus": "ffffffffffffffff", "--long": "max"}
    with pytest.raises(InputError) as caught, PartialRun(target, asked):
        pass
    assert str(caught.value) == (
        f"{target}.partial: it was begun with -k 10, corpus a1b2c3d4e5f6, --long not told; "
        "expected -k 5, corpus ffffffffffff, --long max. Give the command as it was, or begin anew with --restart"
    )
    assert target.with_name("out.trec.partial").read_bytes() == before
    with PartialRun(target, asked, restart=True) as partial:
        assert partial.queries == 0
        partial.append([FIRST])
    with PartialRun(target, asked) as partial:
        assert list(partial.rankings()) == [FIRST]


def test_a_digest_that_looks_alike_is_told_only_if_it_is_all_that_differs(target: Path) -> None:
    alike = {**ASKED, "corpus": "a1b2c3d4e5f6ffff"}
    with pytest.raises(InputError, match=r"begun with corpus a1b2c3d4e5f6; exp"), PartialRun(target, alike):
        pass
    with (
        pytest.raises(InputError, match=r"begun with -k 10; expected -k 9\. "),
        PartialRun(target, {**alike, "-k": "9"}),
    ):
        pass


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("content", ["not JSON\n", "no line", "{}\n", '{"tiercel":"other"}\n', "\n"])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: str, restart: bool) -> None:
    path = tmp_path / "out.trec.partial"
    path.write_text(content)
    partial = PartialRun(tmp_path / "out.trec", ASKED, restart=restart)
    with pytest.raises(InputError, match=r"out\.trec\.partial: this is no partial run"):
        partial.__enter__()
    assert path.read_text() == content


def test_one_process_at_a_time(target: Path) -> None:
    other = PartialRun(target, ASKED)
    with PartialRun(target, ASKED), pytest.raises(InputError, match=r"out\.trec\.partial: another process is at this"):
        other.__enter__()
    assert kept(target) == [FIRST, SECOND, THIRD]


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a folder"), PartialRun(tmp_path, ASKED):
        pass
    with pytest.raises(InputError, match="its folder does not exist"), PartialRun(tmp_path / "no" / "o.trec", ASKED):
        pass
    (tmp_path / "o.trec.partial").mkdir()
    with pytest.raises(InputError, match=r"o\.trec\.partial: this is a folder"), PartialRun(tmp_path / "o.trec", ASKED):
        pass


def test_it_lies_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.trec").symlink_to(tmp_path / "there" / "out.trec")
    with PartialRun(tmp_path / "link.trec", ASKED) as partial:
        partial.append([FIRST])
    (line, _) = (tmp_path / "there" / "out.trec.partial").read_text().splitlines()
    assert json.loads(line)["asked"] == ASKED
