from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.conftest import FeedStdin, Write
from tiercel.data.history import read_history
from tiercel.errors import InputError


def test_turns_are_strings_or_objects_oldest_first(write: Write, feed_stdin: FeedStdin) -> None:
    content = '"who hunts?"\n\n{"text": "a falcon", "speaker": "b"}\r\n""\n'
    assert read_history(write("turns.jsonl", content)) == ("who hunts?", "a falcon", "")
    feed_stdin(content.encode())
    assert read_history("-") == ("who hunts?", "a falcon", "")


def test_a_conversation_that_begins_has_no_turns(write: Write) -> None:
    assert read_history(write("turns.jsonl", "\n")) == ()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a falcon", "this is not JSON"),
        ("7", "a line that holds the number 7"),
        ('["a", "b"]', "a line that holds a list of 2"),
        ('{"turn": "a"}', "a line that holds an object with keys: 'turn'"),
        ('{"text": null}', "a line that holds an object with keys: 'text'"),
    ],
)
def test_lines_that_are_no_turns(write: Write, line: str, found: str) -> None:
    path = write("turns.jsonl", f'"first"\n{line}\n')
    with pytest.raises(InputError) as caught:
        read_history(path)
    assert caught.value.where == f"{path}:2"
    assert caught.value.found.startswith(found)
    assert caught.value.expected.endswith('a turn: a string, or an object with "text"')


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_history(tmp_path / "turns.jsonl")
