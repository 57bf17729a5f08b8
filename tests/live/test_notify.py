"""Telling on a real fleet: an agent that is held is told of once, whoever fails or dies in between."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from circus_failover.store import Store
from tests.live.fleet import Fleet, wait_for
from tests.live.with_plugins import await_ticks

LOG = "cat >> {0}/$1.log"
FLAKY = "echo >> {0}/tries; [ $(wc -l < {0}/tries) -gt 1 ] && cat >> {0}/$1.log"
SECRET = "s3cr3t-tok3n"


def told(fleet: Fleet, target: str) -> list[dict[str, Any]]:
    """Return what a target was told, as JSON."""
    path = fleet.folder / f"{target}.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lines(fleet: Fleet, target: str) -> list[str]:
    """Return what lifecycle.log says became of telling a target."""
    found = [line for line in fleet.lifecycle() if line["ev"] == "notify" and line["target"] == target]
    return [line["action"] for line in found]


def noticed(fleet: Fleet) -> list[tuple[str, str | None, str]]:
    """Return what somebody may want to be told of: kind, agent and text, in order."""
    with fleet.store() as store:
        return [(row.kind, row.identity, row.text) for row in store.notices(0)]


def test_refusals_that_nobody_hears_server_deaths_and_findings_are_noticed(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__command="sleep 1000")
    fleet.agent("bravo", working_dir=str(fleet.folder / "nowhere"))
    fleet.start()
    (view,) = fleet.await_up("alpha")
    fleet.await_phase("bravo", "refused")
    ((kind, identity, text),) = noticed(fleet)
    assert (kind, identity) == ("launch-refused", "bravo") and "bravo is refused (working-dir): " in text
    assert fleet.call("start", name="bravo", waiting=True)["status"] == "error"  # its answer says it
    finding = {"action": "error", "outcome": "x", "evidence": "many died", "notice": "mass-death", "key": "k"}
    report: dict[str, Any] = {"name": "Test", "pid": 1, "at": time.time(), "secs": 0.0, "interval": 1.0}
    answer = fleet.call("ticked", **report, findings=[finding, {**finding, "notice": "no-such-kind"}])
    assert answer["config"] == str(fleet.yaml)
    assert noticed(fleet)[1:] == [("mass-death", None, "many died")]
    os.kill(view["server_pid"], signal.SIGKILL)
    wait_for("the death of its server is noticed", lambda: len(noticed(fleet)) == 3)
    kind, identity, text = noticed(fleet)[2]
    assert (kind, identity) == ("server-death", "alpha")
    assert text.startswith("alpha: its tmux server ") and f"pid {view['server_pid']} on" in text


def test_an_agent_that_is_held_is_told_of_once_though_a_target_fails_and_circusd_is_killed(
    fleet: Fleet,
) -> None:
    fleet.plugins["plugin:notify"] = {"use": "circus_failover.plugins.Notify", "interval": "0.2"}
    # What is no word of the command's script is its arguments: a target's name.
    fleet.settings["notify"] = [
        {"name": name, "command": ["sh", "-c", script.format(fleet.folder), "sh", name], "only": ["held"]}
        for name, script in (("log", LOG), ("flaky", FLAKY))
    ]
    other = {"name": "other", "command": ["false", SECRET], "agents": ["nobody"], "only": ["held"]}
    fleet.settings["notify"].append(other)
    fleet.agent("alpha", failover__command="sh -c 'sleep 0.3; exit 1'", failover__crash_max="1")
    fleet.start()
    fleet.await_phase("alpha", "held")
    wait_for("the target that failed once is told", lambda: "sent" in lines(fleet, "flaky"))
    assert lines(fleet, "flaky") == ["failed", "sent"]
    wait_for("the other one is told", lambda: lines(fleet, "log"))
    for target in ("log", "flaky"):
        (message,) = told(fleet, target)
        assert (message["kind"], message["identity"], message["count"]) == ("held", "alpha", 1)
        assert "alpha" in message["text"] and message["test"] is False
    assert lines(fleet, "log") == ["sent"]
    assert SECRET not in (fleet.state / "lifecycle.log").read_text()

    fleet.end(signal.SIGKILL)
    # Its plugin lives on until the next circusd: one of them tells, and not both.
    store = Store(fleet.state / "failover.db")
    with store.decision(durable=True):
        store.add_notice(time.time(), "held", "bravo", "bravo", "bravo is held", {})
    store.close()
    listed = fleet.ctl("--json", "notify", "list")
    assert [one["name"] for one in listed.json()["targets"]] == ["log", "flaky", "other"]
    assert [one["identity"] for one in listed.json()["notices"]] == ["alpha", "bravo"]
    assert SECRET not in listed.out
    tested = fleet.ctl("notify", "test", "log", "other")
    assert tested.code == 3
    assert "sent    log (command, " in tested.out and "failed  other (command, " in tested.out
    assert "it ended with status 1" in tested.out and SECRET not in tested.out + tested.err

    fleet.start()
    for target, number in (("log", 3), ("flaky", 2)):  # the test of one of them counts
        wait_for(
            f"{target} is told",
            lambda name=target, number=number: len(told(fleet, name)) >= number,  # type: ignore[misc]
        )
    await_ticks(fleet, "Notify", 2)
    kinds = [(one["kind"], one["identity"]) for one in told(fleet, "flaky")]
    assert kinds == [("held", "alpha"), ("held", "bravo")]
    assert sorted((one["kind"], str(one["identity"])) for one in told(fleet, "log")) == [
        *kinds,
        ("test", "None"),
    ]
    assert lines(fleet, "other") == []
