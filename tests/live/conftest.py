"""Each test has a fleet of its own, in a short path (tmux sockets), and leaves nothing running."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.fleet import Fleet, remove
from tests.live.terminal import Open, private_folder, terminals


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet that is described, started and killed by the test, and cleared away after it."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    made = Fleet(folder)
    try:
        yield made
    finally:
        made.close()
        failed = request.node.stash.get(FAILED, False)
        if failed and made.log.exists():
            print(made.log.read_text()[-6000:])
        if failed and (made.state / "lifecycle.log").exists():
            print((made.state / "lifecycle.log").read_text()[-6000:])
        remove(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with private_folder() as made:
        yield made


@pytest.fixture
def terminal(folder: Path) -> Iterator[Open]:
    """Opens a terminal with a program."""
    with terminals(folder) as opener:
        yield opener


FAILED: pytest.StashKey[bool] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
