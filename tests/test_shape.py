"""Is the code still as small, as documented and as quiet as the house style wants it?"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from tests.conftest import REPOSITORY
from tiercel.cli import app

MODULES = sorted((REPOSITORY / "tiercel").rglob("*.py"))
MODULE_LINES = 600
FUNCTION_LINES = 80
LONG_FUNCTIONS = {"tiercel/index/bm25.py::_search": "numba kernel: one loop over postings with its state in registers"}
"""Functions that may be longer, with the reason; a compiled kernel cannot always be cut without a cost per call."""

PAGES = [
    page
    for page in [
        *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]
    if page.is_file()
]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_NAMED_PATH = re.compile(r"`((?:tiercel|tests|docs|benchmarks|examples)/[\w./-]*)`")
_HOMES = ("home", "root", "Users", "work", "mnt")
_MACHINE_PATH = re.compile(rf"(?<![\w.])/(?:{'|'.join(_HOMES)})/\w")

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def test_every_module_is_small() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > MODULE_LINES} == {}


def test_every_function_is_short_or_excused() -> None:
    lengths = {
        name: (node.end_lineno or node.lineno) - node.lineno + 1
        for name, node in _definitions()
        if not isinstance(node, ast.ClassDef)
    }
    too_long = {name for name, length in lengths.items() if length > FUNCTION_LINES}
    assert too_long - set(LONG_FUNCTIONS) == set()


def test_every_public_function_and_class_says_what_it_is_for() -> None:
    def is_public(name: str) -> bool:
        return not any(part.startswith("_") for part in name.partition("::")[2].split("."))

    silent = [name for name, node in _definitions() if is_public(name) and not ast.get_docstring(node)]
    assert silent == []


def test_every_module_says_what_it_is_for() -> None:
    assert [_name(path) for path in MODULES if not ast.get_docstring(_tree(path))] == []


def test_nothing_is_printed_past_the_command_line() -> None:
    printing = [
        f"{_name(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_no_file_names_a_place_on_one_machine() -> None:
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".json", ".cfg", ".sh"}
    folders = ["tiercel", "tests", "docs", "benchmarks", ".github"]
    files = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.suffix in suffixes]
    files += [path for path in REPOSITORY.iterdir() if path.suffix in suffixes or path.name == "Makefile"]
    found = [
        f"{_name(path)}: {match[0]}"
        for path in files
        if path.is_file()
        for match in _MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = [match[1] for match in _LINK.finditer(_FENCED.sub("", page.read_text(encoding="utf-8")))]
    relative = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


def test_paths_in_the_architecture_page_exist() -> None:
    page = REPOSITORY / "ARCHITECTURE.md"
    if not page.is_file():
        pytest.skip("no ARCHITECTURE.md yet")
    named = {match[1] for match in _NAMED_PATH.finditer(page.read_text(encoding="utf-8"))}
    assert sorted(path for path in named if not (REPOSITORY / path).exists()) == []


def test_the_readme_mentions_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if not re.search(rf"(?:tiercel |`){name}\b", readme)] == []


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _definitions() -> Iterator[tuple[str, _Definition]]:
    """Every function and class, named `file::Outer.inner`."""
    for path in MODULES:
        waiting: list[tuple[str, ast.AST]] = [(f"{_name(path)}::", _tree(path))]
        while waiting:
            prefix, parent = waiting.pop()
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, _Definition):
                    name = f"{prefix}{node.name}"
                    yield name, node
                    if isinstance(node, ast.ClassDef):
                        waiting.append((f"{name}.", node))
                else:
                    waiting.append((prefix, node))
