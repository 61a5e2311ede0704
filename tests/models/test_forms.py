from __future__ import annotations

import importlib.util

import pytest

from tiercel.errors import ModelError
from tiercel.models.forms import FORMS, Form, Wanted, find_form, require_backend


@pytest.mark.parametrize(
    ("wanted", "form"),
    [
        (Wanted(), Form("onnxruntime", "cpu", "int8")),
        (Wanted("bf16"), Form("openvino", "cpu", "bf16")),
        (Wanted(backend="openvino"), Form("openvino", "cpu", "int8")),
        (Wanted("fp32"), Form("onnxruntime", "cpu", "fp32")),
        (Wanted(provider="cuda"), Form("onnxruntime", "cuda", "fp16")),
        (Wanted("fp16", provider=None), Form("onnxruntime", "cuda", "fp16")),
    ],
)
def test_the_first_form_that_fits_is_taken(wanted: Wanted, form: Form) -> None:
    assert find_form(wanted) == form


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            Wanted("fp16"),
            r"fp16 does not run on the provider 'cpu'; expected one of onnxruntime int8, onnxruntime fp32,",
        ),
        (Wanted("int8", provider="cuda"), r"int8 does not run on .*'cuda'; expected one of onnxruntime fp16, onnxr"),
        (Wanted("bf16", "onnxruntime"), "onnxruntime bf16 does not run on the provider 'cpu'"),
        (Wanted(backend="openvino", provider="tensorrt"), "openvino does not run on the provider 'tensorrt'"),
        (Wanted(provider="abacus"), "unknown provider 'abacus'; expected cpu or cuda or tensorrt"),
        (Wanted("fp16", "openvino", provider=None), "openvino fp16 does not run on any provider"),
    ],
)
def test_what_cannot_run_is_refused_in_words(wanted: Wanted, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_form(wanted)


def test_no_form_is_there_twice() -> None:
    assert len(set(FORMS)) == len(FORMS)


def test_a_backend_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"runs on openvino, which is not installed.*tiercel\[openvino\]"):
        require_backend("openvino")
