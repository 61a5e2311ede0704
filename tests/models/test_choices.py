from __future__ import annotations

from pathlib import Path

import pytest

from tiercel.errors import ModelError
from tiercel.models import zoo
from tiercel.models.choices import choice_file, read_choice, write_choice
from tiercel.models.description import read_description
from tiercel.models.forms import Form, Wanted


def test_a_choice_is_kept_for_one_model_family_and_provider(bert_folder: Path, tmp_path: Path) -> None:
    source = zoo.find_source(str(bert_folder), offline=True)
    path = choice_file(source, tmp_path, family="encoder", provider="cpu")
    assert read_choice(source, tmp_path, family="encoder", provider="cpu") is None
    write_choice(path, Form("onnxruntime", "cpu", "fp32"), [{"rate": 1.0}])
    assert list(path.parent.iterdir()) == [path]
    assert read_choice(source, tmp_path, family="encoder", provider="cpu") == Form("onnxruntime", "cpu", "fp32")
    assert read_choice(source, tmp_path, family="encoder", provider="cuda") is None
    assert read_choice(source, tmp_path, family="cross-encoder", provider="cpu") is None


def test_later_uses_take_the_choice_unless_told(bert_folder: Path, tmp_path: Path) -> None:
    source = zoo.find_source(str(bert_folder), offline=True)
    path = choice_file(source, tmp_path, family="encoder", provider="cpu")
    write_choice(path, Form("onnxruntime", "cpu", "fp32"), [])
    chosen, told = (
        zoo.prepare_model(str(bert_folder), cache_dir=tmp_path, wanted=wanted, offline=True)
        for wanted in (Wanted(), Wanted("int8"))
    )
    assert (read_description(chosen).precision, read_description(told).precision) == ("fp32", "int8")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 9, "backend": "onnxruntime", "precision": "int8"}', "format 9"),
        ('{"format": 1, "backend": "abacus", "precision": "int8"}', "abacus int8 on cpu"),
    ],
)
def test_a_choice_that_says_nothing_is_refused(bert_folder: Path, tmp_path: Path, content: str, found: str) -> None:
    source = zoo.find_source(str(bert_folder), offline=True)
    path = choice_file(source, tmp_path, family="encoder", provider="cpu")
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ModelError, match=rf"{found}.*Remove the file, or run `tiercel export --bench` again"):
        zoo.prepare_model(str(bert_folder), cache_dir=tmp_path, offline=True)
