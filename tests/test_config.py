from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from tiercel.config import Settings
from tiercel.errors import UsageError


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings.cache_dir.name == "tiercel"
    assert settings.offline is False
    assert 1 <= settings.threads <= (os.cpu_count() or 1)


def test_the_variables_are_read() -> None:
    environment = {"TIERCEL_CACHE_DIR": "some/folder", "TIERCEL_OFFLINE": "1", "TIERCEL_THREADS": "3"}
    assert Settings.from_environment(environment) == Settings(Path("some/folder"), offline=True, threads=3)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCEL_THREADS", "7")
    assert Settings.from_environment().threads == 7


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings.from_environment({"TIERCEL_CACHE_DIR": "~/models"}).cache_dir == tmp_path / "models"


@pytest.mark.parametrize(
    ("value", "offline"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        (" on ", True),
        ("0", False),
        ("", False),
        ("False", False),
        ("no", False),
    ],
)
@pytest.mark.parametrize("name", ["TIERCEL_OFFLINE", "HF_HUB_OFFLINE"])
def test_flags(name: str, value: str, offline: bool) -> None:
    assert Settings.from_environment({name: value}).offline is offline


def test_either_flag_is_enough_to_be_offline() -> None:
    assert Settings.from_environment({"TIERCEL_OFFLINE": "0", "HF_HUB_OFFLINE": "1"}).offline is True


@pytest.mark.parametrize("name", ["TIERCEL_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_flag_that_is_neither_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({name: "maybe"})
    assert str(caught.value) == f"{name}='maybe'; expected 1 or 0"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " 2"])
def test_threads_that_cannot_be_meant_are_refused(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({"TIERCEL_THREADS": value})
    assert str(caught.value) == f"TIERCEL_THREADS={value!r}; expected a whole number of at least 1"


def test_settings_are_frozen() -> None:
    settings = Settings(Path("x"), offline=False, threads=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.threads = 2  # type: ignore[misc]
