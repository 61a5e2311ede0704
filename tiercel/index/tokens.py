"""Where does a token begin and end, and which distinct token is it?

A token is a run of letters, marks and digits of any script; everything else separates. Bytes of UTF-8 are read once:
the same pass finds the token, folds ASCII case, hashes it and looks it up, so no token ever becomes a Python object.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_TOKEN_BYTES = 252
"""A longer run (base64, a text without spaces) is cut here, so that no term is without bound."""

SEPARATOR, WORD, CJK = 0, 1, 2
"""Classes of characters: what separates, what makes words, what makes pairs."""
_TABLE_END = 0x20000
_HAN_END = 0x40000
_CJK_RANGES = (
    (0x1100, 0x11FF),  # Hangul jamo
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x3105, 0x318F),  # Bopomofo, Hangul compatibility jamo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han extension A
    (0x4E00, 0x9FFF),  # Han
    (0xA960, 0xA97F),
    (0xAC00, 0xD7FF),  # Hangul syllables
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF66, 0xFFDC),  # half-width Katakana and Hangul
)


@cache
def character_classes(cjk_bigrams: bool) -> NDArray[np.uint8]:
    """Class of every code point below 0x20000, shape (0x20000,), uint8: separator, word or CJK.

    A code point that this Python's Unicode tables do not know counts as a letter: a newer Python then cuts the same
    text in the same places when that code point turns out to be a letter of a new script.
    """
    separators = {"Cc", "Cf", "Cs", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs"}
    category = unicodedata.category
    classes = np.fromiter(
        (SEPARATOR if category(chr(point)) in separators else WORD for point in range(_TABLE_END)),
        dtype=np.uint8,
        count=_TABLE_END,
    )
    if cjk_bigrams:
        for first, last in _CJK_RANGES:
            block = classes[first : last + 1]
            block[block == WORD] = CJK
    classes.setflags(write=False)
    return classes


def character_class(character: str, *, cjk_bigrams: bool) -> int:
    """Class of one character, as `character_classes` has it and beyond its end."""
    point = ord(character)
    if point < _TABLE_END:
        return int(character_classes(cjk_bigrams)[point])
    if point >= _HAN_END:
        return SEPARATOR
    return CJK if cjk_bigrams else WORD  # planes 2 and 3 hold Han and nothing else


class TokenTable:
    """The distinct tokens met so far, numbered in order of first appearance.

    Grows with the vocabulary, never with the text. `count` tokens are known; their bytes lie end to end.
    """

    def __init__(self, *, cjk_bigrams: bool) -> None:
        self._classes = character_classes(cjk_bigrams)
        self._above = np.uint8(character_class(chr(_TABLE_END), cjk_bigrams=cjk_bigrams))
        self.count = 0
        self._slots: NDArray[np.int32] = np.full(1 << 14, -1, dtype=np.int32)
        self._digests: NDArray[np.uint64] = np.zeros(1 << 14, dtype=np.uint64)  # of the token in each slot
        self._starts: NDArray[np.int64] = np.zeros(1 << 13, dtype=np.int64)
        self._bytes: NDArray[np.uint8] = np.zeros(1 << 16, dtype=np.uint8)

    def tokenize(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Cut the texts and number their tokens, adding tokens not met before.

        Returns `tokens`, shape (t,), int32, all texts end to end, and `ends`, shape (len(texts),), int64: where each
        text's tokens end. A text without a token gives an empty slice.
        """
        # Half a surrogate pair, as an undecodable byte of a command line becomes, separates as all of its class do.
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        limits = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        tokens = np.empty(data.size // 2 + len(texts) + 1, dtype=np.int32)
        ends = np.empty(len(texts), dtype=np.int64)
        done = written = 0
        while done < len(texts):
            # A text of n bytes holds at most n/2 + 1 tokens, all of them new at worst. They take up to 2n bytes, as a
            # CJK character is part of two pairs.
            size = int(limits[done]) - (int(limits[done - 1]) if done else 0)
            self._reserve(size // 2 + 1, 2 * size)
            done, written, self.count = _tokenize(
                data, limits, done, self._classes, self._above,
                self._slots, self._digests, self._starts, self._bytes, self.count,
                tokens, ends, written,
            )  # fmt: skip
        return tokens[:written], ends

    def strings(self, start: int = 0) -> list[str]:
        """The tokens numbered `start` and up, in order."""
        blob = self._bytes[: self._starts[self.count]].tobytes()
        starts = self._starts[start : self.count + 1].tolist()
        return [blob[a:b].decode("utf-8") for a, b in pairwise(starts)]

    def _reserve(self, new_tokens: int, new_bytes: int) -> None:
        tokens = self.count + new_tokens
        if tokens >= self._starts.size:
            self._starts = _grown(self._starts, tokens + 1)
        if self._starts[self.count] + new_bytes > self._bytes.size:
            self._bytes = _grown(self._bytes, int(self._starts[self.count]) + new_bytes)
        # At most half full, so that a probe ends soon.
        if 2 * tokens > self._slots.size:
            size = 1 << (2 * tokens - 1).bit_length()
            slots, digests = np.full(size, -1, dtype=np.int32), np.zeros(size, dtype=np.uint64)
            _move_slots(self._slots, self._digests, slots, digests)
            self._slots, self._digests = slots, digests


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    larger = np.zeros(max(size, 2 * array.size), dtype=array.dtype)
    larger[: array.size] = array
    return larger


@njit(cache=True, nogil=True)
def _move_slots(slots, digests, new_slots, new_digests):  # type: ignore[no-untyped-def]  # pragma: no cover
    mask = np.uint64(new_slots.size - 1)
    for old in range(slots.size):
        if slots[old] >= 0:
            slot = digests[old] & mask
            while new_slots[slot] >= 0:
                slot = (slot + np.uint64(1)) & mask
            new_slots[slot] = slots[old]
            new_digests[slot] = digests[old]


@njit(cache=True, nogil=True, inline="always")
def _folded(byte):  # type: ignore[no-untyped-def]  # pragma: no cover
    return np.uint8(byte | 32) if 65 <= byte <= 90 else np.uint8(byte)


@njit(cache=True, nogil=True, inline="always")
def _classify(data, position, classes, above):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Class and width in bytes of the character at `position`."""
    lead = np.int64(data[position])
    if lead < 128:
        return classes[lead], 1
    if lead < 224:
        return classes[(lead & 31) << 6 | (data[position + 1] & 63)], 2
    second = np.int64(data[position + 1] & 63)
    third = np.int64(data[position + 2] & 63)
    if lead < 240:
        return classes[(lead & 15) << 12 | second << 6 | third], 3
    point = (lead & 7) << 18 | second << 12 | third << 6 | np.int64(data[position + 3] & 63)
    if point < classes.size:
        return classes[point], 4
    return (above if point < _HAN_END else np.uint8(0)), 4


@njit(cache=True, nogil=True, inline="always")
def _digest(data, start, end):  # type: ignore[no-untyped-def]  # pragma: no cover
    """64 bits of a token. No two tokens of up to 7 bytes share them, nor does a longer one with such a one.

    Seven bytes fit the word as they are (a token holds no NUL) and the mixing is a bijection; of longer tokens the
    top byte is set. So only long tokens need their bytes compared, and those are few.
    """
    word = np.uint64(0)
    chained = np.uint64(0)
    shift = np.uint64(0)
    for i in range(start, end):
        word |= np.uint64(_folded(data[i])) << shift
        shift += np.uint64(8)
        if shift == np.uint64(64):
            chained = (chained ^ word) * np.uint64(0x9E3779B97F4A7C15)
            chained ^= chained >> np.uint64(29)
            word = np.uint64(0)
            shift = np.uint64(0)
    if end - start > 7:
        word = ((chained ^ word) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1 << 56)
    # Two rounds, as one multiplication leaves the low bits, which choose the slot, blind to the last bytes.
    word = (word ^ (word >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    return word ^ (word >> np.uint64(32))


@njit(cache=True, nogil=True, inline="always")
def _same(data, start, end, store, base):  # type: ignore[no-untyped-def]  # pragma: no cover
    while start < end:
        if store[base] != _folded(data[start]):
            return False
        start += 1
        base += 1
    return True


@njit(cache=True, nogil=True)
def _tokenize(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0915  # pragma: no cover
    data, limits, text, classes, above, slots, digests, starts, store, count, tokens, ends, written
):
    """Tokenise texts from number `text` on, until all are done or the next one might not fit the table.

    Returns (texts done, tokens written, distinct tokens). One long function, because a call per token that is handed
    these arrays costs more than everything else here (measured: 11 ns a byte against 4).
    """
    mask = np.uint64(slots.size - 1)
    position = limits[text - 1] if text else np.int64(0)
    while text < limits.size:
        limit = limits[text]
        worst = (limit - position) // 2 + 1
        fits = count + worst < starts.size and starts[count] + 2 * (limit - position) <= store.size
        if not fits or 2 * (count + worst) > slots.size:
            break
        in_run = False  # the CJK character before this one has given its pair
        while position < limit:
            start = position
            kind, width = _classify(data, position, classes, above)
            position += width
            if kind == 0:
                continue
            end = position
            if kind == 1:
                while position < limit and position - start < MAX_TOKEN_BYTES:
                    kind, width = _classify(data, position, classes, above)
                    if kind != 1:
                        break
                    position += width
                end = position
            else:
                # A run of CJK characters gives its overlapping pairs; a run of one gives that one.
                paired = False
                if position < limit:
                    kind, width = _classify(data, position, classes, above)
                    paired = kind == 2
                if paired:
                    end = position + width
                elif in_run:
                    in_run = False
                    continue
                in_run = paired
            digest = _digest(data, start, end)
            slot = digest & mask
            number = np.int64(-1)
            while slots[slot] >= 0:
                if digests[slot] == digest:
                    known = np.int64(slots[slot])
                    short = end - start <= 7
                    if short or (
                        starts[known + 1] - starts[known] == end - start
                        and _same(data, start, end, store, starts[known])
                    ):
                        number = known
                        break
                slot = (slot + np.uint64(1)) & mask
            if number < 0:
                number = count
                base = starts[count] - start
                for i in range(start, end):
                    store[base + i] = _folded(data[i])
                starts[count + 1] = base + end
                digests[slot] = digest
                slots[slot] = count
                count += 1
            tokens[written] = number
            written += 1
        ends[text] = written
        text += 1
    return text, written, count
