"""Work given to a pool of real clients: told again after a death, gone on with after a lost server."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.accounts import ClaudeHome
from tests.clients.install import Clients
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.real_fleet import RealFleet
from tests.clients.waiting import LONGEST_SECS
from tests.live.conftest import fleet as fleet  # a fixture
from tests.live.fleet import BIN, Fleet, wait_for

BYPASS = "--dangerously-skip-permissions"


@pytest.fixture
def real(mock: Mock, fleet: Fleet, clients: Clients, network: Network) -> RealFleet:
    """A fleet in the network of the clients.

    Their homes outlive it: the folder of these comes first, with `mock`.
    """
    return RealFleet(fleet, clients, network, mock)


def assignment(fleet: Fleet, name: str) -> dict[str, Any]:
    """Return what `work` says of one assignment."""
    (found,) = (one for one in fleet.call("work", all=True)["assignments"] if one["id"] == name)
    return dict(found)


def await_work(fleet: Fleet, name: str, state: str, shared: Path) -> dict[str, Any]:
    """Wait until an assignment is in a state; else say what its owner's client wrote."""

    def look() -> dict[str, Any] | None:
        found = assignment(fleet, name)
        return found if found["state"] == state else None

    try:
        return wait_for(f"{name} is {state}", look, LONGEST_SECS)
    except AssertionError as error:
        found = assignment(fleet, name)
        view = fleet.view(found["owner"] or "w-1")
        lines = [line for line in fleet.lifecycle() if line["ev"] in ("work", "task", "up", "exit")]
        (path,) = shared.rglob(f"{view['conversation']}.jsonl")
        rows = [row[:200] for row in path.read_text().splitlines()]
        told = [error, f"{path}: {time.ctime(path.stat().st_mtime)}", *rows[-8:], *lines[-8:], found, view]
        screen = fleet.screen(view["identity"])
        raise AssertionError("\n".join(map(str, [*told, screen]))) from None


def test_a_pool_of_clients_does_its_work_through_a_death_and_a_lost_server(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path
) -> None:
    fleet, home, shared = real.fleet, claude_home("a", shared=True), folder / "shared"
    gate = folder / "gate"
    real.account(home, shared)
    for name in ("w-1", "w-2"):
        real.agent(
            name,
            home,
            work,
            BYPASS,
            failover__pool="w",
            failover__restart="on-work",
            failover__done_on_idle="true",
        )
    fleet.guard(interval="0.5")
    fleet.start()
    for name in ("w-1", "w-2"):
        fleet.await_phase(name, "up", LONGEST_SECS)
        real.await_state(name, "idle")
    # One reports by itself that it is done; the other's finished turn says so.
    report = f"{shlex.quote(str(BIN / 'failoverctl'))} self done beta --note built"
    until_open = f"until test -e {shlex.quote(str(gate))}; do sleep 0.1; done"
    assert (
        fleet.ctl("assign", "--pool", "w", "--id", "alpha", "--task", f"alpha [[bash {until_open}]]").code
        == 0
    )
    assert fleet.ctl("assign", "--pool", "w", "--id", "beta", "--task", f"beta [[bash {report}]]").code == 0
    beta = await_work(fleet, "beta", "done", shared)
    alpha = await_work(fleet, "alpha", "working", shared)
    assert {alpha["owner"], beta["owner"]} == {"w-1", "w-2"} and beta["note"] == "built"

    # It dies in the middle of it: another conversation of the same agent is told all of it again.
    owner = alpha["owner"]
    wait_for("its tool runs", lambda: real.tools(owner, "bash"), LONGEST_SECS)
    os.kill(fleet.view(owner)["pid"], signal.SIGKILL)
    wait_for("it is told again", lambda: assignment(fleet, "alpha")["retries"] == 1, LONGEST_SECS)
    alpha = await_work(fleet, "alpha", "working", shared)
    assert (alpha["owner"], fleet.launches(owner)[0].wake_cause) == (owner, "crash-or-self-close")
    assert fleet.launches(owner)[1].assignment == "alpha"

    # Its tmux server is lost: the same conversation goes on, and is told so.
    wait_for("its tool runs again", lambda: real.tools(owner, "bash"), LONGEST_SECS)
    conversation = fleet.view(owner)["conversation"]
    os.kill(fleet.view(owner)["server_pid"], signal.SIGKILL)
    wait_for("it is told to go on", lambda: assignment(fleet, "alpha")["retries"] == 2, LONGEST_SECS)
    gate.touch()
    assert await_work(fleet, "alpha", "done", shared)["owner"] == owner
    view = fleet.view(owner)
    assert (fleet.launches(owner)[0].wake_cause, view["conversation"]) == ("lost-resume", conversation)
    (heard, *_) = [asked.prompts for asked in reversed(real.mock.asked(home.key)) if "alpha" in asked.prompts]
    assert heard[0] == "alpha" and "alpha" in heard[1] and len(heard) == 2
    assert view["assignment"] is None
