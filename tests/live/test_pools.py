"""Pools on a real circusd: made, filled, resized and removed by the verb, and no other agent touched."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.live.fleet import STANDIN, Fleet, alive, wait_for

CREATE = (
    *("pool", "create", "squad-", "--start-index", "3", "--min", "2", "--max", "4", "--command", STANDIN),
    *("--working-dir", "work/{name}", "--make-dirs"),
    *("--set", "failover.ready_secs=0.2", "--set", "failover.stop_secs=3"),
    *("--set", "failover.prepare=while test -e hold; do sleep 0.05; done"),
)


def killed_at(fleet: Fleet, point: str, *arguments: str) -> None:
    """Run failoverctl until it kills itself at a crash point."""
    fleet.environment["FAILOVER_CRASH_AT"] = point
    try:
        done = fleet.ctl(*arguments)
    finally:
        del fleet.environment["FAILOVER_CRASH_AT"]
    assert done.code == -signal.SIGKILL, done


def views(fleet: Fleet) -> dict[str, dict[str, Any]]:
    return {view["identity"]: view for view in fleet.call("fleet")["agents"]}


def test_a_pool_keeps_its_minimum_up_and_changes_only_its_own(fleet: Fleet) -> None:
    fleet.circus["include_dir"] = "fleet.d"
    (fleet.folder / "fleet.d").mkdir()
    file = fleet.folder / "fleet.d" / "failover-pool-squad.ini"
    fleet.agent("squad-0")
    fleet.agent("friend", failover__pool="squad")
    fleet.guard()
    fleet.start()
    before = {view["identity"]: view["pid"] for view in fleet.await_up("squad-0", "friend")}

    # Killed between the file and circusd: the same command again completes it.
    killed_at(fleet, "pool-written", *CREATE)
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(views(fleet)) == {"squad-0", "friend"}
    made = fleet.ctl("--json", *CREATE)
    assert (made.code, made.json()["circusd"]) == (0, "reloaded"), made
    first, second = fleet.await_up("squad-3", "squad-4")
    assert {name: view["phase"] for name, view in views(fleet).items() if name in ("squad-5", "squad-6")} == {
        "squad-5": "down",
        "squad-6": "down",
    }
    assert Path(f"/proc/{first['pid']}/cwd").resolve() == fleet.work / "squad-3"

    # What dies comes back as its restart policy says, what is parked is woken, and nobody stands in for them.
    os.kill(first["pid"], signal.SIGKILL)
    wait_for("it is back", lambda: _back(fleet, first))
    assert fleet.ctl("park", "squad-4", "--waiting").code == 0
    wait_for("both are back", lambda: _back(fleet, first, second))
    (woken,) = [line for line in fleet.lifecycle() if line.get("action") == "pool-start"]
    assert (woken["identity"], woken["outcome"]) == ("squad-4", "starting")
    assert woken["evidence"] == "pool squad: 1 of 2 are up or starting"

    # Whom an operator has stopped stays stopped, and the next one stands in.
    assert fleet.ctl("stop", "squad-4", "--waiting").code == 0
    grown = fleet.ctl("--json", "pool", "resize", "squad", "--min", "3", "--max", "5", "--make-dirs")
    assert grown.code == 0, grown
    fleet.await_up("squad-5", "squad-6")
    shown = fleet.ctl("--json", "pool", "show", "squad").json()["pools"][0]
    assert [one["identity"] for one in shown["members"]] == [f"squad-{index}" for index in range(3, 8)]
    assert [one["identity"] for one in shown["others"]] == ["friend"]
    assert shown["counts"] == {"up": 3, "stopped": 1, "down": 1}

    # An agent with work does not leave, nor does one that runs without anybody's consent.
    hold, text = fleet.work / "squad-7" / "hold", file.read_text()
    hold.touch()
    fleet.call_all({"command": "wake", "names": ["squad-7"], "task": "count"}, timeout=0)
    wait_for("a task waits for it", lambda: views(fleet)["squad-7"]["tasks"] == 1)
    stays = fleet.call("rm", name="squad-7", free=True)
    assert (stays["status"], stays["reason"]) == ("error", "squad-7 stays: tasks wait for it: 1")
    refused = fleet.ctl("pool", "resize", "squad", "--min", "1", "--max", "2", "--yes")
    assert (refused.code, "squad-7: tasks wait for it: 1" in refused.err) == (3, True), refused
    unasked = fleet.ctl("pool", "remove", "squad")
    assert unasked.code == 3
    assert file.read_text() == text
    assert fleet.ctl("tasks", "squad-7", "--cancel", "all").code == 0
    hold.unlink()
    fleet.await_up("squad-7")

    # Killed when one has left: the rest follows when it is run again.
    living = {name: views(fleet)[name]["pid"] for name in ("squad-3", "squad-5", "squad-6", "squad-7")}
    killed_at(fleet, "pool-member-left", "pool", "resize", "squad", "--min", "1", "--max", "2", "--yes")
    assert file.read_text() == text
    shrunk = fleet.ctl("pool", "resize", "squad", "--min", "1", "--max", "2", "--yes")
    assert shrunk.code == 0, shrunk
    assert set(views(fleet)) == {"squad-0", "friend", "squad-3", "squad-4"}
    assert alive(living["squad-3"])
    assert not any(alive(living[name]) for name in ("squad-5", "squad-6", "squad-7"))

    removed = fleet.ctl("pool", "remove", "squad", "--yes")
    assert removed.code == 0, removed
    assert not file.exists()
    assert not alive(living["squad-3"])
    assert {name: view["pid"] for name, view in views(fleet).items()} == before
    assert all(view["phase"] == "up" for view in views(fleet).values())


def _back(fleet: Fleet, *before: dict[str, Any]) -> bool:
    found = views(fleet)
    return all(
        found[was["identity"]]["phase"] == "up" and found[was["identity"]]["generation"] > was["generation"]
        for was in before
    )
