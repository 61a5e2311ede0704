"""Every error Tiercel raises on purpose, and the exit code the shell sees.

    TiercelError            1
    ├── UsageError          2   arguments that cannot be meant: an unknown stage, k = 0
    ├── InputError          3   a file or line that cannot be read as what it should be
    ├── IndexStoreError     4   an index that is missing, damaged, newer, locked or of other settings
    ├── ModelError          5   a model that is missing, unusable, or a backend that is not there
    └── PartialFailure      6   the rest was done, this was not

A message says what was found, what was expected and the next step. Library code raises; only `cli.py` exits.
"""

from __future__ import annotations

from typing import ClassVar


class TiercelError(Exception):
    """Base of the tree. `str(error)` is one line: `where: found; expected …. next step`."""

    exit_code: ClassVar[int] = 1

    def __init__(self, found: str, *, expected: str = "", next_step: str = "", where: str = "") -> None:
        self.found = found
        self.expected = expected
        self.next_step = next_step
        self.where = where
        message = f"{where}: {found}" if where else found
        if expected:
            message += f"; expected {expected}"
        if next_step:
            message += f". {next_step}"
        super().__init__(message)


class UsageError(TiercelError):
    """Arguments that cannot be meant."""

    exit_code = 2


class InputError(TiercelError):
    """A file, line or field that cannot be read as what it should be."""

    exit_code = 3


class IndexStoreError(TiercelError):
    """An index that is missing, damaged, of a newer format, locked, or built with other settings."""

    exit_code = 4


class ModelError(TiercelError):
    """A model that is missing or unusable, or a backend that was asked for and is not there."""

    exit_code = 5


class PartialFailure(TiercelError):
    """Part of the work could not be done; the rest was."""

    exit_code = 6
