"""What is loaded when? Nothing heavy before a command needs it."""

from __future__ import annotations

import pytest

from tests.conftest import python

HEAVY = [
    "numpy", "pyarrow", "faiss", "onnxruntime", "onnx", "numba", "tokenizers", "torch", "transformers",
    "sentence_transformers", "huggingface_hub", "ir_measures", "bs4", "rich", "Stemmer", "filelock",
    "fastapi", "uvicorn", "mcp",
]  # fmt: skip

_NEW_MODULES = """
import sys
before = set(sys.modules)
import tiercel
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names)))
"""

_HEAVY_MODULES = """
import sys
from tiercel.cli import main
try:
    main(sys.argv[2:])
except SystemExit as left:
    assert not left.code, left.code
print("LOADED", *(name for name in sys.argv[1].split() if name in sys.modules))
"""


def test_the_package_loads_nothing_but_the_standard_library() -> None:
    outcome = python("-c", _NEW_MODULES)
    assert (outcome.code, outcome.out.split()) == (0, ["tiercel"]), outcome


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["search", "--help"], ["index", "--help"]])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    outcome = python("-c", _HEAVY_MODULES, " ".join(HEAVY), *arguments)
    assert outcome.code == 0, outcome
    assert outcome.out.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize("module", ["tiercel.app", "tiercel.retrieve.spec", "tiercel.data.corpus", "tiercel.protocols"])
def test_a_module_that_only_wires_loads_no_network(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    outcome = python("-c", script)
    assert outcome.code == 0, outcome
    assert not {"torch", "onnxruntime", "faiss", "numba", "transformers"} & set(outcome.out.split())
