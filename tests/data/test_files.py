from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conftest import FeedStdin, Write
from tiercel.data.files import (
    check_target,
    ending_of,
    is_stream,
    read_byte_lines,
    read_lines,
    read_text,
    source_name,
    write_text,
)
from tiercel.errors import InputError


class Interruption(BaseException):
    pass


def test_lines_end_at_newlines_only(write: Write) -> None:
    path = write("a.txt", "one\r\ntwo\u2028still two\x0b\x85\n\nfour\rfour\r")
    assert list(read_lines(path)) == [(1, "one"), (2, "two\u2028still two\x0b\x85"), (3, ""), (4, "four\rfour\r")]


def test_only_one_line_end_is_taken_off(write: Write) -> None:
    assert list(read_lines(write("a.txt", "one\r\r\n"))) == [(1, "one\r")]


def test_an_empty_file_has_no_lines(write: Write) -> None:
    assert list(read_lines(write("a.txt", ""))) == []


def test_a_byte_order_mark_is_passed_over_at_the_start_only(write: Write) -> None:
    path = write("a.txt", "\ufeffone\n\ufefftwo\n")
    assert list(read_lines(path)) == [(1, "one"), (2, "\ufefftwo")]
    assert read_text(path) == "one\n\ufefftwo\n"


def test_gzip_is_told_by_the_name(write: Write) -> None:
    path = write("a.txt.gz", gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert list(read_byte_lines(path)) == [(1, b"one"), (2, b"two")]
    assert read_text(path) == "one\ntwo\n"


def test_standard_input(feed_stdin: FeedStdin) -> None:
    feed_stdin(b"one\ntwo")
    assert list(read_lines("-")) == [(1, "one"), (2, "two")]
    assert source_name("-") == "<stdin>"


@pytest.mark.parametrize(
    ("content", "line", "found", "next_step"),
    [
        (b"fine\ncaf\xe9\n", 2, "byte 0xe9 is not UTF-8", "iconv -f LATIN1"),
        ("x".encode("utf-16"), 1, "byte 0xff is not UTF-8", "iconv -f UTF-16"),
        (gzip.compress(b"x", mtime=0), 1, "byte 0x8b is not UTF-8", "ends in .gz"),
        (b"\xed\xa0\x80\n", 1, "byte 0xed is not UTF-8", "Convert it"),
    ],
)
def test_bytes_that_are_not_utf8(write: Write, content: bytes, line: int, found: str, next_step: str) -> None:
    path = write("a.txt", content)
    for read in (lambda: list(read_lines(path)), lambda: [read_text(path)]):
        with pytest.raises(InputError) as caught:
            read()
        assert caught.value.where == f"{path}:{line}"
        assert caught.value.found == found
        assert caught.value.expected == "UTF-8 text"
        assert next_step in caught.value.next_step


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        list(read_lines(tmp_path / "no.txt"))
    assert caught.value.where == str(tmp_path / "no.txt")
    assert caught.value.next_step == "Check the path"


def test_a_file_taken_for_a_folder(write: Write) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_lines(write("a.txt", "x") / "b.txt"))


def test_a_folder_where_a_file_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a folder; expected a file"):
        list(read_lines(tmp_path))


def test_a_path_with_a_nul() -> None:
    with pytest.raises(InputError, match="this is no path"):
        list(read_lines("a\0b"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(write: Write) -> None:
    path = write("a.txt", "x")
    path.chmod(0)
    with pytest.raises(InputError, match="no permission to read it"):
        list(read_lines(path))


def test_other_failures_of_the_system_are_said_in_its_words(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    path = write("a.txt", "x")
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(InputError, match=r"no permission to read it\. Check the permissions"):
        list(read_lines(path))
    monkeypatch.setattr("builtins.open", broken)
    with pytest.raises(InputError, match=r"it cannot be read \(Input/output error\)"):
        list(read_lines(path))


def test_a_truncated_gzip_file(write: Write) -> None:
    whole = gzip.compress(os.urandom(5000))
    with pytest.raises(InputError, match="ends too early; expected a complete gzip file") as caught:
        list(read_byte_lines(write("a.txt.gz", whole[:3000])))
    assert caught.value.next_step == "Copy or download it again"


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b"x", mtime=0)[:12] + b"\xff" * 20])
def test_a_gzip_file_that_is_none(write: Write, content: bytes) -> None:
    with pytest.raises(InputError, match=r"damaged or is none .*; expected gzip.*take \.gz off"):
        list(read_byte_lines(write("a.txt.gz", content)))


def test_endings_look_through_gz() -> None:
    assert [ending_of(name) for name in ("A.JSONL", "b.tsv.gz", "dir.d/c", "x.gz")] == [".jsonl", ".tsv", "", ""]


def test_names_that_are_not_unicode_can_be_printed() -> None:
    assert source_name("a\udcff.txt") == "a\\udcff.txt"


@settings(deadline=None)  # each example writes a file
@given(st.binary(max_size=200))
def test_lines_put_together_again_are_the_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(b"x" + content)
    joined = b"\n".join(line for _, line in read_byte_lines(path))
    assert joined == (b"x" + content).replace(b"\r\n", b"\n").removesuffix(b"\n")


def test_written_text_is_there_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with write_text(path) as text:
        text.write("één\n")
        assert not path.exists()
    assert path.read_bytes() == "één\n".encode()
    assert os.listdir(tmp_path) == ["out.txt"]


def test_written_gzip_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with write_text(tmp_path / name) as text:
            text.write("one\ntwo\n" * 100)
    first, second = (tmp_path / "a.gz").read_bytes(), (tmp_path / "b.gz").read_bytes()
    assert first == second
    assert first[3:8] == b"\0\0\0\0\0"  # no name flag, no time
    assert gzip.decompress(first) == b"one\ntwo\n" * 100


@pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, Interruption])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, name: str, failure: type[BaseException]
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")

    def break_off() -> None:
        with write_text(path) as text:
            text.write("new" * 100_000)
            raise failure

    with pytest.raises(failure):
        break_off()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def test_a_link_is_written_through(tmp_path: Path, write: Write) -> None:
    real = write("real.txt", "old")
    link = tmp_path / "link.txt"
    link.symlink_to(real)
    with write_text(link) as text:
        text.write("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with write_text(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs /dev/null")
def test_a_device_stays_a_device() -> None:
    with write_text("/dev/null") as text:
        text.write("x")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
def test_a_full_disk() -> None:
    words = r"/dev/full: it cannot be written \(No space left on device\)"
    with pytest.raises(InputError, match=words), write_text("/dev/full") as text:
        text.write("x" * 100_000)


def test_targets_that_cannot_be_written(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for target, words in [
        (tmp_path, "this is a folder; expected a file name to write to"),
        (tmp_path / "no" / "out.txt", r"its folder does not exist\. Create the folder first"),
        (write("a.txt", "") / "out.txt", "its folder does not exist"),
    ]:
        with pytest.raises(InputError, match=words) as caught, write_text(target):
            pass
        assert caught.value.where == str(target)
    with pytest.raises(InputError, match="a NUL in a path"), write_text("a\0b"):
        pass

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", denied)
    with pytest.raises(InputError, match=r"no permission to write there"), write_text(tmp_path / "b.txt"):
        pass
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_goes_wrong_with_another_file_keeps_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_text(tmp_path / "out.txt"):
        open("/no/such/file")  # noqa: SIM115  it never opens
    assert os.listdir(tmp_path) == []


def test_standard_output_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    with write_text("-") as text:
        text.write("één\n")
    sys.stdout.write("more\n")

    def break_off() -> None:
        with write_text("-") as text:
            text.write("before\n")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        break_off()
    sys.stdout.write("after\n")
    assert capsys.readouterr().out == "één\nmore\nbefore\nafter\n"


def test_targets_are_checked_without_being_opened(tmp_path: Path) -> None:
    check_target("-")
    check_target(tmp_path / "new.trec")
    assert list(tmp_path.iterdir()) == []
    for target, found in ((tmp_path, "this is a folder"), (tmp_path / "no" / "o", "its folder does not exist")):
        with pytest.raises(InputError, match=found):
            check_target(target)
    with pytest.raises(InputError, match="a NUL in a path"):
        check_target("a\0b")


def test_a_stream_is_what_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    assert [is_stream(target) for target in ("-", "/dev/null", tmp_path / "pipe")] == [True] * 3
    assert [is_stream(target) for target in (tmp_path / "file", tmp_path / "new", tmp_path)] == [False] * 3
