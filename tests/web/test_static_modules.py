"""What the browser is given: the first page's modules are asked for at once, and none can insert markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circus_failover import web

STATIC = Path(web.__file__).resolve().parent / "static"
OURS = sorted(path for path in STATIC.rglob("*.js"))
IMPORT = re.compile(r"(?:import|export)\s[^;]*?from\s*\"([^\"]+)\"|import\s+\"([^\"]+)\"")
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|createContextualFragment|setHTML"
    r"|\beval\(|new Function|javascript:|dangerouslySetInnerHTML"
)


def _needs(module: Path) -> list[Path]:
    """Return the modules that one imports before it runs, without those that it loads later."""
    found = IMPORT.findall(module.read_text(encoding="utf-8"))
    return [(module.parent / (one or other)).resolve() for one, other in found]


def _all_needs(*modules: Path) -> set[Path]:
    seen: set[Path] = set()
    left = list(modules)
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += _needs(module) if module.suffix == ".js" else []
    return seen


def test_the_first_page_is_asked_for_in_one_go_and_nothing_else_is() -> None:
    """One module after the other, each found in the one before, would cost a round trip each."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'rel="modulepreload" href="/static/([^"]+)"', page))
    app = STATIC / "app.js"
    first = _all_needs(app, STATIC / "pages" / "fleet.js") - {app}
    assert named == {str(path.relative_to(STATIC)) for path in first}


@pytest.mark.parametrize("module", OURS, ids=lambda path: str(path.relative_to(STATIC)))
def test_a_module_of_the_console_has_no_way_to_insert_markup_or_run_text(module: Path) -> None:
    """Names, tasks and pane contents are hostile: they go through text nodes only."""
    code = re.sub(r"^\s*(//|\*|/\*).*$", "", module.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert MARKUP.findall(code) == []


@pytest.mark.parametrize("module", OURS, ids=lambda path: str(path.relative_to(STATIC)))
def test_a_module_imports_only_files_that_are_there(module: Path) -> None:
    """A page with a missing module shows an error instead of itself."""
    loaded = re.findall(r"import\(\"([^\"]+)\"\)", module.read_text(encoding="utf-8"))
    needed = [*_needs(module), *((module.parent / one).resolve() for one in loaded)]
    assert [path.name for path in needed if not path.is_file()] == []


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    """The policy of the page would refuse them."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", page) == []
    assert "<style" not in page
    assert re.findall(r"\s(?:on\w+|style)=", page) == []
