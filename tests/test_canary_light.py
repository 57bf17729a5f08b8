"""The canary watches 500 servers in little memory, so what it imports stays light, and is written down."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from circus_failover import process_table

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("dataclasses", "typing", "pathlib", "subprocess", "socket", "logging", "sqlite3", "ctypes")
IMPORTING = """
import json, sys
bare = set(sys.modules)
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)
print(json.dumps(sorted(set(sys.modules) - bare)))
"""

pytestmark = pytest.mark.skipif(not process_table.LINUX, reason="elsewhere it needs psutil")


@cache
def loaded(*modules: str) -> frozenset[str]:
    """Return what a Python that was started as the canary is has loaded when it has imported these."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORTING, str(ROOT), *modules],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return frozenset(json.loads(done.stdout))


def watching() -> frozenset[str]:
    """Return what the watching process has loaded."""
    return loaded("circus_failover.canary.process", "circus_failover.canary.watching")


def with_snapshots() -> frozenset[str]:
    """Return what its child for snapshots has loaded."""
    return loaded(
        "circus_failover.canary.process",
        "circus_failover.canary.watching",
        "circus_failover.canary.document",
    )


def ours(modules: frozenset[str]) -> set[str]:
    """Return the files of circus_failover among these, as they are called in its folder."""
    files = set()
    for module in modules:
        path = ROOT / Path(*module.split(".")).with_suffix(".py")
        if module.startswith("circus_failover.") and path.exists():
            files.add(str(path.relative_to(ROOT / "circus_failover")))
    return files


def imported_at_once(path: Path) -> Iterator[str]:
    """Yield the modules that a file of ours imports when it is imported itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


@pytest.mark.parametrize("module", HEAVY)
def test_the_watching_process_does_not_load(module: str) -> None:
    assert "circus_failover.canary.watching" in watching()
    assert module not in watching()


def test_the_standard_library_it_imports_is_what_is_written_down() -> None:
    text = " ".join((ROOT / "docs" / "contributing.md").read_text(encoding="utf-8").split())
    told = re.search(r"import no more than (.*?), and nothing of other packages", text)
    assert told
    imported = {
        module
        for name in ours(watching())
        for module in imported_at_once(ROOT / "circus_failover" / name)
        if not module.startswith("circus_failover") and module != "__future__"
    }
    assert imported == set(re.findall(r"`([^`]+)`", told[1]))


def test_nothing_of_other_packages_is_loaded() -> None:
    names = {module.partition(".")[0] for module in watching()} - {"circus_failover"}
    assert names <= set(sys.stdlib_module_names)


def test_the_files_of_the_canary_run_where_the_table_says() -> None:
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `([a-z_]+\.py)` \| (the canary|the child for snapshots|others) \|", text)
    told = {place: {f"canary/{name}" for name, where in rows if where == place} for _, place in rows}
    mine = {name for name in ours(watching()) if name.startswith("canary/")}
    childs = {name for name in ours(with_snapshots()) if name.startswith("canary/")} - mine
    every = {f"canary/{path.name}" for path in (ROOT / "circus_failover" / "canary").glob("*.py")}
    assert told == {
        "the canary": mine,
        "the child for snapshots": childs,
        "others": every - mine - childs - {"canary/__init__.py"},
    }
