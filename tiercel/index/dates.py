"""Which moment does a text name? ISO 8601 dates and timestamps, a whole column at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

INSTANT = pa.decimal128(38, 0)
"""What `instants` gives: seconds since 1970 in the upper 64 bits, nanoseconds in the lower. Only its order counts."""


def instants(texts: Any) -> Any:
    """The moments that an array of strings names, as INSTANT; null for a null and for a string that names none.

    Read are `2020-05-17`, with a time `2020-05-17T10:00` or `2020-05-17 10:00:00.123456789`, and after a time `Z` or
    `+02:00`. A day is its midnight; UTC where no zone is. The calendar is Python's: years 1 to 9999, no 31 February.
    """
    count = len(texts)
    _, bounds, content = texts.buffers()
    if not count or content is None or not content.size:
        return pa.nulls(count, INSTANT)
    bounds = np.frombuffer(bounds, np.int32, count + 1, 4 * texts.offset).astype(np.int64)
    starts, lengths, content = bounds[:-1], np.diff(bounds), np.frombuffer(content, np.uint8)
    good = texts.is_valid().to_numpy(zero_copy_only=False) & (lengths >= 10)

    def characters(place: Any) -> Any:  # those of a neighbour where a string is too short
        return content.take(starts + place, mode="clip")

    def digits(place: Any, width: int, there: Any = np.True_) -> Any:  # as one number, 0 for those that are not there
        nonlocal good
        found = characters(place + np.arange(width)[:, None]) - np.uint8(ord("0"))  # what is no digit is above 9
        good &= ((found <= 9) | ~there).all(axis=0)
        return 10 ** np.arange(width)[::-1] @ (found * there)

    good &= (characters(4) == ord("-")) & (characters(7) == ord("-"))
    year, month, day = digits(0, 4), digits(5, 2), digits(8, 2)
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    begin = months.astype("datetime64[D]").astype(np.int64)
    days = (months + 1).astype("datetime64[D]").astype(np.int64) - begin
    good &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= days)
    moments = np.zeros((count, 2), np.int64)  # nanoseconds, seconds
    moments[:, 1] = (begin + day - 1) * 86_400

    if (timed := lengths > 10).any():
        sign = characters(lengths - 6)
        shifted = (lengths >= 22) & ((sign == ord("+")) | (sign == ord("-"))) & (characters(lengths - 3) == ord(":"))
        ends = lengths - np.where(shifted, 6, characters(lengths - 1) == ord("Z"))
        counted, split = ends >= 19, ends >= 21
        good &= ~timed | (ends == 16) | (ends == 19) | (split & (ends <= 29))
        good &= ~timed | (characters(10) == ord("T")) | (characters(10) == ord(" "))
        good &= ~timed | (characters(13) == ord(":"))
        good &= ~counted | (characters(16) == ord(":"))
        good &= ~split | (characters(19) == ord("."))
        hour, minute, second = digits(11, 2, timed), digits(14, 2, timed), digits(17, 2, counted)
        hours, minutes = digits(ends + 1, 2, shifted), digits(ends + 4, 2, shifted)
        good &= (hour <= 23) & (minute <= 59) & (second <= 59) & (hours <= 23) & (minutes <= 59)
        shift = (hours * 3600 + minutes * 60) * np.where(sign == ord("-"), -1, 1)
        moments[:, 1] += hour * 3600 + minute * 60 + second - shift
        moments[:, 0] = digits(20, 9, split & (ends > np.arange(20, 29)[:, None]))
    valid = pa.py_buffer(np.packbits(good, bitorder="little"))
    return pa.Array.from_buffers(INSTANT, count, [valid, pa.py_buffer(moments)])
