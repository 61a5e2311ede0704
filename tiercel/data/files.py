r"""Text files and standard streams: numbered lines in, whole files out, nothing half-written.

Text is UTF-8, strictly; a byte order mark at the start is passed over. A line ends at `\n` or `\r\n` and nowhere
else: `str.splitlines` would also cut at U+2028 and its kin, which occur inside real texts.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import secrets
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, TextIO, TypeAlias, cast

from tiercel.errors import InputError

Source: TypeAlias = str | Path
"""A path, or `-` for the standard stream. A name ending in `.gz` is read and written compressed."""

_BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BESIDE = ".tmp"
_GZIP_LEVEL = 6  # the default of the gzip program: level 9 takes about three times as long for one percent


def is_stdio(source: Source) -> bool:
    """Whether this names the standard stream."""
    return str(source) == "-"


def source_name(source: Source) -> str:
    """What messages call a source; always printable as UTF-8, whatever bytes the file name holds."""
    return "<stdin>" if is_stdio(source) else _printable(source)


def ending_of(source: Source) -> str:
    """The lower-case ending of a file name with its dot, looking through `.gz`; "" when there is none."""
    name = os.path.basename(str(source)).lower()
    return os.path.splitext(name.removesuffix(".gz"))[1]


def is_stream(target: Source) -> bool:
    """Whether what is written there is gone: standard output, a device or a pipe, as against a file or a new name."""
    return is_stdio(target) or (os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target))


def check_source(source: Source) -> None:
    """Raise InputError for a path that leads nowhere, without opening it. Standard input always passes."""
    if not is_stdio(source):
        with _reading(source_name(source)):
            os.stat(source)


def check_target(target: Source) -> None:
    """Raise InputError for a folder and for a file in no folder, without opening it. Standard output always passes."""
    if is_stdio(target):
        return
    path = Path(os.path.realpath(_without_nul(target)))
    with writing(_printable(target), path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def read_byte_lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """Lines numbered from 1, undecoded, without their line ends; an empty source yields nothing.

    Raises InputError for what cannot be opened or decompressed.
    """
    with _reading(source_name(source)), _open_binary(source) as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(_BOM)
            if line[-1:] == b"\n":
                line = line[:-2] if line[-2:-1] == b"\r" else line[:-1]
            yield number, line


def decode_lines(lines: Iterable[tuple[int, bytes]], name: str) -> Iterator[tuple[int, str]]:
    """Decode numbered lines. Raises InputError at the first line that is not UTF-8."""
    for number, line in lines:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(line, error, f"{name}:{number}") from None
        yield number, text


def read_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Lines numbered from 1, without their line ends; an empty source yields nothing."""
    return decode_lines(read_byte_lines(source), source_name(source))


def read_text(source: Source) -> str:
    """A whole file as one string, line ends as they are in the file."""
    name = source_name(source)
    with _reading(name), _open_binary(source) as stream:
        content = stream.read().removeprefix(_BOM)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line_number = content.count(b"\n", 0, error.start) + 1
        raise _not_utf8(content, error, f"{name}:{line_number}") from None


def raise_unless_utf8(line: bytes, where: str) -> None:
    """Raise InputError when a line is not UTF-8, for a reader that found it unreadable in its own way."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(line, error, where) from None


@contextmanager
def write_text(target: Source) -> Iterator[TextIO]:
    """A UTF-8 text stream that becomes the target only when the block ends without an exception.

    The text is written beside the target, synced, and renamed over it: after an exception nothing is left behind and an
    older file is as it was. `-` is standard output and a device or pipe is written to directly: what went there stays
    there. `.gz` compresses, the same text giving the same bytes. Raises InputError when the target cannot be written.
    """
    if is_stdio(target):
        with _borrowed_stdout() as text:
            yield text
        return
    check_target(target)
    # Through links, so that the file is replaced and not the link that leads to it.
    path = Path(os.path.realpath(target))
    # Renaming over /dev/null or a pipe would take the device away.
    with writing(_printable(target), path), open(path, "wb") if is_stream(path) else _replacing(path) as stream:
        compressed = str(target).endswith(".gz")
        with _text_over(stream, compressed=compressed) as text:
            yield text


@contextmanager
def _open_binary(source: Source) -> Iterator[BinaryIO]:
    if is_stdio(source):
        yield sys.stdin.buffer
        return
    if os.path.isdir(source):
        raise IsADirectoryError(str(source))
    with open(source, "rb") as stream:
        if str(source).endswith(".gz"):
            # GzipFile hands out lines through a Python method; the reader around it does so in C.
            with gzip.GzipFile(fileobj=stream) as plain, io.BufferedReader(cast(io.RawIOBase, plain)) as buffered:
                yield buffered
        else:
            yield stream


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Say in words why a source cannot be read."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise _not_readable(error, name) from error
    except ValueError as error:
        # os.stat and open raise it for a path with a NUL; nothing else under this guard does.
        raise InputError(f"this is no path ({error})", where=name) from error


def _not_readable(error: Exception, name: str) -> InputError:
    again = "Copy or download it again"
    expected = next_step = ""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            found, next_step = "there is no such file or folder", "Check the path"
        case IsADirectoryError():
            found, expected = "this is a folder", "a file"
        case PermissionError():
            found, next_step = "no permission to read it", "Check the permissions of the file and of its folders"
        case EOFError():
            found, expected, next_step = "the gzip file ends too early", "a complete gzip file", again
        case gzip.BadGzipFile() | zlib.error():
            found, expected = f"the gzip file is damaged or is none ({error})", "gzip, as its name says"
            next_step = f"{again}, or take .gz off the name of a plain file"
        case _:
            found = f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    return InputError(found, expected=expected, next_step=next_step, where=name)


def _without_nul(target: Source) -> Source:
    if "\0" in str(target):
        raise InputError("a NUL in a path", where=repr(str(target)))
    return target


@contextmanager
def writing(name: str, path: Path) -> Iterator[None]:
    """Say in words why a target cannot be written; what went wrong with another file passes through untouched.

    Raises InputError, which calls the target by `name`, for an OSError that concerns `path`.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if not _concerns(error, path):
            raise
        raise _not_writable(error, name) from error


def _concerns(error: OSError, path: Path) -> bool:
    if error.filename is None:  # a failed write names no file
        return True
    failed = Path(os.fsdecode(error.filename))
    return failed == path or (failed.parent == path.parent and failed.suffix == _BESIDE)


def _not_writable(error: OSError, name: str) -> InputError:
    match error:
        case IsADirectoryError():
            return InputError("this is a folder", expected="a file name to write to", where=name)
        case FileNotFoundError() | NotADirectoryError():
            return InputError("its folder does not exist", next_step="Create the folder first", where=name)
        case PermissionError():
            step = "Check the permissions of the folder"
            return InputError("no permission to write there", next_step=step, where=name)
    return InputError(f"it cannot be written ({error.strerror or error})", where=name)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside the path, renamed over it at the end, removed on any exception."""
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}{_BESIDE}")
    # Not tempfile: its files are readable by their owner only, and a run is to be as readable as any other file.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def _text_over(stream: BinaryIO, *, compressed: bool) -> Iterator[TextIO]:
    """Text over bytes; the bytes are complete at the end of the block and the stream is still open."""
    # No name and no time in the gzip header: the same text gives the same bytes.
    packed = gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0) if compressed else None
    text = io.TextIOWrapper(cast(IO[bytes], packed or stream), encoding="utf-8", newline="\n")
    try:
        yield text
    finally:
        try:
            text.detach()  # flushes, and leaves the bytes below open
        finally:
            if packed is not None:
                packed.close()


@contextmanager
def _borrowed_stdout() -> Iterator[TextIO]:
    sys.stdout.flush()
    with _text_over(sys.stdout.buffer, compressed=False) as text:
        yield text
    sys.stdout.buffer.flush()


def _not_utf8(content: bytes, error: UnicodeDecodeError, where: str) -> InputError:
    if content.startswith(_GZIP_MAGIC):
        next_step = "It looks gzip-compressed: give the file a name that ends in .gz"
    elif content.startswith(_UTF16_MARKS):
        next_step = "It looks like UTF-16: convert it, for example with `iconv -f UTF-16 -t UTF-8`"
    else:
        next_step = "Convert it, for example with `iconv -f LATIN1 -t UTF-8`"
    byte = content[error.start]
    return InputError(f"byte 0x{byte:02x} is not UTF-8", expected="UTF-8 text", next_step=next_step, where=where)


def _printable(source: Source) -> str:
    return str(source).encode("utf-8", "backslashreplace").decode("utf-8")


def is_unicode(name: str) -> bool:
    """Whether UTF-8 can hold a name: what the system or the shell gives in other bytes has half surrogate pairs."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
