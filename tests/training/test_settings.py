from __future__ import annotations

from pathlib import Path

import pytest

from tiercel.errors import InputError, TiercelError, UsageError
from tiercel.training.settings import CrossSettings, DistilSettings, LateSettings, changes, read_settings


def test_a_file_then_what_is_given_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('epochs = 3\nlearning_rate = 1\nresidual = "fused"\n')
    settings = read_settings(CrossSettings, file, ["epochs=2", "distil=kl"])
    assert settings == CrossSettings(epochs=2, learning_rate=1.0, residual="fused", distil="kl")
    assert read_settings(LateSettings, None, ["frozen=false"]) == LateSettings(frozen=False)
    assert read_settings(DistilSettings, None).label == "none"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("learningrate=1", "the setting 'learningrate' is not known; expected 'learning_rate'?"),
        ("qqq=1", "expected one of seed"),
        ("epochs", "expected NAME=VALUE"),
        ("epochs=two", "epochs = 'two'; expected a value of type int"),
        ("frozen=1", "expected a value of type bool"),
        ("label=listwize", "expected one of listwise, bce, none"),
        ("epochs=0", "epochs = 0; expected a number above 0"),
        ("temperature=inf", "temperature = inf; expected a finite number"),
        ("warmup=2", "expected a number from 0 to 1"),
        ("dropout=1", "dropout = 1.0; expected a number from 0 to below 1"),
        ("label=none", "label and distil are both none"),
        ("precision=fp16", "fp16 on the cpu"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(LateSettings, None, [given])
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    for name in ("bad.toml", "none.toml"):
        with pytest.raises((InputError, TiercelError), match=name):
            read_settings(CrossSettings, tmp_path / name)


def test_changes_in_words() -> None:
    assert changes({"a": 1, "b": 2}, {"a": 1, "b": 3}) == ["b = 3 (was 2)"]
    assert changes({"checkpoint_minutes": 1}, {"checkpoint_minutes": 2}) == []
