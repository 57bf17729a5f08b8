"""What a test in the browser gets: one Chromium for all, a fleet, its console, and pages that are watched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import chromium, pages
from tests.browser.console import Console
from tests.browser.pages import Watched
from tests.live.conftest import FAILED, fleet, pytest_runtest_makereport
from tests.live.fleet import Fleet

__all__ = ["fleet", "pytest_runtest_makereport"]

Open = Callable[..., Watched]

expect.set_options(timeout=pages.PAGE_MS)


def must_be(wanted: str) -> None:
    """End the test where it cannot have a browser.

    Args:
        wanted: what FAILOVER_BROWSER says: without one the test fails (`require`) or is skipped; with `skip`
            it is skipped also where there is one.
    """
    if wanted not in ("", "require", "skip"):
        pytest.fail(f"{chromium.WANTED}={wanted}: expected require, skip, or nothing")
    if wanted == "skip":
        pytest.skip(f"no browser: {chromium.WANTED}=skip")
    if chromium.find() is None:
        if wanted == "require":
            pytest.fail(f"no browser, and {chromium.WANTED}=require: {chromium.missing()}", pytrace=False)
        pytest.skip(f"no browser: {chromium.missing()}")


# For the package, not the session: while playwright runs (1.65, sync API), this thread has a running loop,
# and the tests of other folders in the same worker could not use asyncio.run.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The browser."""
    must_be(os.environ.get(chromium.WANTED, ""))
    with pages.launched() as started:
        yield started


@pytest.fixture
def console(request: pytest.FixtureRequest, browser: Browser, fleet: Fleet) -> Iterator[Console]:
    """The console of the fleet, not started yet."""
    made = Console(fleet.endpoint, fleet.state, fleet.folder, fleet.environment)
    try:
        yield made
    finally:
        made.end()
        if request.node.stash.get(FAILED, False) and made.log.exists():
            print(made.log.read_text()[-6000:])


@pytest.fixture
def opened(request: pytest.FixtureRequest, browser: Browser, console: Console) -> Iterator[Open]:
    """Opens pages of the console: `opened()` signed in as operator, `opened(role=...)`, `opened(role=None)`.

    Each is a browser of its own to the console. At the end of the test none may have complained of anything.
    """
    made: list[Watched] = []

    def open_one(role: str | None = "operator", path: str = "/", **options: Any) -> Watched:
        watched = Watched(browser, console.url, **options)
        made.append(watched)
        if role is not None:
            watched.sign_in(console.token(role), path)
        return watched

    yield open_one
    failed = request.node.stash.get(FAILED, False)
    try:
        for number, watched in enumerate(made):
            if failed:
                _keep(watched, f"{request.node.name}-{number}")
        for watched in made:
            watched.verify()
    finally:
        for watched in made:
            watched.close()


def _keep(watched: Watched, name: str) -> None:
    """Leave a picture of a page whose test failed where FAILOVER_BROWSER_PICTURES says."""
    print(f"{watched.page.url}: {watched.findings}")
    folder = os.environ.get("FAILOVER_BROWSER_PICTURES")
    if folder:
        watched.page.screenshot(path=Path(folder) / f"{name}.png")
