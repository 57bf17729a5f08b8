"""Takes the pictures of the web console: docs/console-*.png, each a page as Chromium shows it.

The fleet is a real one of stand-ins, to which a day's events happen: work, a limit, a death, a lost server, a
park and a stop. Nothing is drawn by hand. Everything runs below one temporary directory and is ended by pid.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import Ended, end_on_signals
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, expect

from tests.browser.console import Console, NotStarted
from tests.browser.pages import Watched, launched
from tests.live.account_fleet import AccountFleet
from tests.live.fleet import Fleet, wait_for

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
STANDIN = "python -m circus_failover.standin"
MOST_BYTES = 200_000
TALL = {"width": 1280, "height": 860}
LOW = {"width": 1280, "height": 600}
SMALL = {"width": 390, "height": 780}
USAGE_SECS = 90
"""For how long the console watches before the pictures, so that there is something in the charts."""
RUNNER = r"""
import sys, time
green, red, yellow, dim, bold, off = (f"\x1b[{n}m" for n in ("32", "31", "33", "2", "1", "0"))
tests = ["gate/test_limits.py", "gate/test_accounts.py", "store/test_rows.py", "web/test_access.py",
         "web/test_frames.py", "policy/test_wake.py", "policy/test_idle.py"]
print(f"{bold}watching 7 files, running what has changed{off}\n")
for number in range(10**6):
    for place, name in enumerate(tests):
        dots = green + "." * (9 + place) + (red + "F" if (number + place) % 11 == 10 else "") + off
        clock, part = time.strftime("%H:%M:%S"), f"{yellow}[{(place + 1) * 14:3d}%]{off}"
        print(f"{dim}{clock}{off} tests/{name:<24} {dots} {part}")
        sys.stdout.flush()
        busy = time.process_time() + 0.15 * (1 + (number + place) % 4)
        while time.process_time() < busy:
            pass
        time.sleep(1)
    failed = any((number + place) % 11 == 10 for place in range(len(tests)))
    print(f"{red}{bold}1 failed{off}, " * failed + f"{green}{bold}84 passed{off}{green} in 10.5s{off}\n")
"""
"""An agent with a colourful terminal, and some work for the processor."""


def snapshot(page: Page) -> None:
    """Open what was known when a server died."""
    row = page.get_by_test_id("death-row").filter(has_text="server of")
    row.get_by_role("button").first.click()
    expect(page.get_by_test_id("snapshot")).to_contain_text("Agents in it")


@dataclass(frozen=True)
class Shot:
    """One picture: where it is, how it is made ready, and how large it is."""

    name: str
    path: str
    ready: Callable[[Page], object]
    viewport: dict[str, int] = field(default_factory=lambda: TALL)
    scheme: str = "light"


SHOTS = (
    Shot(
        "fleet",
        "/",
        lambda page: expect(page.get_by_test_id("phase-importer")).to_contain_text("down"),
        viewport=LOW,
    ),
    Shot(
        "agent",
        "/agents/local/tests",
        lambda page: expect(page.get_by_test_id("terminal")).to_contain_text("passed"),
        scheme="dark",
    ),
    Shot("deaths", "/deaths", snapshot),
    Shot(
        "accounts",
        "/accounts",
        lambda page: page.get_by_test_id("account-night").first.wait_for(),
        viewport=LOW,
    ),
    Shot("work", "/work", lambda page: page.get_by_text("upgrade-deps").first.wait_for()),
    Shot("circus", "/circus", lambda page: page.get_by_test_id("watcher-proxy").first.wait_for()),
    Shot(
        "phone",
        "/",
        lambda page: page.get_by_test_id("agent-row-api-1").wait_for(),
        viewport=SMALL,
        scheme="dark",
    ),
)


def describe(fleet: Fleet) -> AccountFleet:
    """Enter the agents, accounts and plugins."""
    accounts = AccountFleet(fleet, "team-a", "team-b", "night")
    client = f"{STANDIN} --claude --turn 3"
    for name, account, pool in (
        *((f"api-{number}", "team-a", "api") for number in (1, 2, 3)),
        *((f"web-{number}", "team-b", "web") for number in (1, 2)),
        ("docs", "team-b", ""),
        ("triage", "night", ""),
    ):
        accounts.agent(name, account, client, failover__pool=pool, failover__restart="on-work")
    runner = fleet.folder / "run-tests.py"
    runner.write_text(RUNNER)
    fleet.agent("tests", failover__command=f"python {runner}")
    for name in ("importer", "release", "reviewer"):
        fleet.resumable(
            name, failover__command=STANDIN, failover__resume_command=f"{STANDIN} --resume {{conversation}}"
        )
    fleet.watcher("proxy", "python -m http.server --bind 127.0.0.1 0", numprocesses="2")
    fleet.states(interval="1")
    fleet.guard()
    fleet.canary(interval="1")
    fleet.plugins["plugin:failover"] = {
        "use": "circus_failover.plugins.AccountFailover",
        "interval": "1",
        "dry_run": "True",
    }
    return accounts


def live_a_day(fleet: Fleet, accounts: AccountFleet) -> None:
    """Let happen what the pages are to show."""
    fleet.await_up("api-1", "api-2", "api-3", "web-1", "web-2", "docs", "triage", "tests", "importer")
    accounts.used("team-a", 62)
    accounts.used("team-b", 18)
    fleet.ctl("tell", "docs", "/work 900 describe the console's settings")
    fleet.ctl("tell", "api-3", "summarise the failures of last night")
    for name, pool, task in (
        ("port-note", "web", "/job 900 add a note on the new port"),
        ("login-form", "web", "/job 900 label the fields of the login form"),
        ("flaky-gate", "api", "/job 900 find out why test_gate fails now and then"),
        ("upgrade-deps", "web", "/job 900 upgrade the pinned packages, one commit each"),
        ("slow-query", "web", "/job 900 explain the slow query of the report"),
    ):
        fleet.ctl("assign", "--pool", pool, "--id", name, "--task", task)
    accounts.limit("night", 5400)
    fleet.ctl("tell", "triage", "sort the new issues")
    fleet.converse("reviewer", "look at the last three changes")
    fleet.ctl("park", "reviewer", "--waiting")
    fleet.ctl("stop", "release", "--waiting")
    os.kill(fleet.view("api-2")["pid"], signal.SIGKILL)
    fleet.await_phase("api-2", "down")
    os.kill(fleet.view("importer")["server_pid"], signal.SIGKILL)
    fleet.await_phase("importer", "down")
    wait_for("the death of its server is recorded", fleet.exits)
    accounts.await_state("triage", "limited")


def take(shot: Shot, watched: Watched) -> None:
    """Take one picture and write it."""
    page = watched.page
    page.set_viewport_size(shot.viewport)  # type: ignore[arg-type]
    page.emulate_media(color_scheme=shot.scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.goto(shot.path)
    shot.ready(page)
    page.wait_for_timeout(1500)  # a picture, no test: what is drawn by and by is there
    file = DOCS / f"console-{shot.name}.png"
    png = page.screenshot()
    if len(png) > MOST_BYTES:
        raise ValueError(f"{file.name}: {len(png)} bytes, expected at most {MOST_BYTES}")
    file.write_bytes(png)
    print(f"wrote {file.relative_to(ROOT)} ({len(png) // 1000} kB)", flush=True)


def pictures(folder: Path, wanted: list[str]) -> None:
    """Run the fleet and its console, and take the pictures."""
    fleet = Fleet(folder)
    fleet.environment["HOME"] = str(folder)
    accounts = describe(fleet)
    console = Console(fleet.endpoint, fleet.state, folder, fleet.environment)
    try:
        fleet.start()
        console.start()
        live_a_day(fleet, accounts)
        with launched() as browser:
            watched = Watched(browser, console.url, viewport=TALL, locale="en-GB", timezone_id="UTC")
            page: Any = watched.sign_in(console.token())
            page.wait_for_timeout(USAGE_SECS * 1000)
            for shot in SHOTS:
                if not wanted or shot.name in wanted:
                    take(shot, watched)
            watched.verify()
    except BaseException:
        for log in (console.log, fleet.log):
            print(log.read_text()[-2000:] if log.exists() else "", file=sys.stderr)
        raise
    finally:
        console.end()
        fleet.close()


def main() -> int:
    """Return the exit status: 0 written, 1 the fleet or a page did not come to what is pictured, 2 usage."""
    wanted, names = sys.argv[1:], [shot.name for shot in SHOTS]
    if set(wanted) - set(names):
        print(f"usage: scripts/screenshots [{'|'.join(names)} ...]", file=sys.stderr)
        return 2
    end_on_signals()
    folder = Path(tempfile.mkdtemp(prefix="fleet-", dir="/tmp"))
    try:
        pictures(folder, wanted)
    except (AssertionError, BrowserError, NotStarted, OSError, ValueError, Ended) as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # playwright's errors are in colours
        print(f"screenshots: {plain}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
