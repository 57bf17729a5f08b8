"""`failoverctl switch`: what it would do is what it does, it can be interrupted, and run again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any

from tests.live.account_fleet import AccountFleet
from tests.live.fleet import BIN, Fleet, wait_for
from tests.live.test_canary_verbs import heed_signals


def rows(text: str) -> dict[str, list[str]]:
    """Return the table of a dry run: the cells of each agent."""
    found = [line.split(maxsplit=4) for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in found if len(cells) == 5}


def on(fleet: Fleet) -> dict[str, Any]:
    return {view["identity"]: view["account"] for view in fleet.call("fleet")["agents"]}


def test_a_mass_switch_is_shown_first_may_be_interrupted_and_is_completed_by_running_it_again(
    fleet: Fleet,
) -> None:
    accounts = AccountFleet(fleet, "one", "two")
    for name in ("a1", "a2", "a3"):
        accounts.agent(name)
    accounts.agent("down", autostart="False")
    fleet.start()
    before = {view["identity"]: view for view in fleet.await_up("a1", "a2", "a3")}
    fleet.ctl("wake", "a1", "--task", "said on one", "--waiting")

    dry = fleet.ctl("switch", "--account", "one", "--to", "two", "--dry-run")
    assert dry.code == 0, dry
    shown = rows(dry.out)
    assert {name: cells[:2] for name, cells in shown.items() if name in before} == {
        name: ["one", "two"] for name in before
    }
    assert shown["a1"][3] == "ended, and resumed there" and shown["down"][3] == "its next launch is there"
    assert fleet.call("fleet")["agents"][0]["generation"] == 1 and set(on(fleet).values()) == {"one"}
    chosen = fleet.ctl("switch", "a1", "--dry-run")
    assert chosen.code == 0 and rows(chosen.out)["a1"][:2] == ["one", "two"], chosen
    assert "accounts for a1: two: unknown, headroom unknown, agents up on it: 0" in chosen.out
    assert fleet.ctl("switch", "a1").code == 2, "run again it would move it once more"
    assert fleet.ctl("completion", "accounts").out.split() == ["one", "two"]
    refused = fleet.ctl("switch", "a1", "--to", "three", "--dry-run")
    assert refused.code == 3 and "three" in refused.out and "three" in refused.err

    # The client is killed with the first one on its way: circusd completes that, and touches no other.
    client = subprocess.Popen(
        [BIN / "failoverctl", "switch", "--account", "one", "--to", "two", "--pace", "600"],
        env=fleet.environment,
        cwd=fleet.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    with client:
        wait_for(
            "the first one is there", lambda: on(fleet)["a1"] == "two" and fleet.view("a1")["phase"] == "up"
        )
        assert client.stdout is not None and client.stdout.readline().startswith("a1: up on two")
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.kill(client.pid, 0)
    assert client.returncode == 130 and "interrupted: 4 agents: 1 switched, 3 not begun" in err and not out
    assert on(fleet) == {"a1": "two", "a2": "one", "a3": "one", "down": "one"}

    done = fleet.ctl("--json", "switch", "a*", "down", "--to", "two", "--pace", "0.1")
    assert done.code == 0, done
    verdicts = {one["identity"]: one for one in done.json()["agents"]}
    assert {name: one["how"] for name, one in verdicts.items()} == {
        "a1": "already",
        "a2": "switched",
        "a3": "switched",
        "down": "next-launch",
    }
    assert set(on(fleet).values()) == {"two"} and fleet.view("a1")["generation"] == 2
    conversation = before["a1"]["conversation"]
    assert fleet.view("a1")["conversation"] == conversation and accounts.account_of("a1") == "two"
    assert accounts.prompts(conversation) == ["said on one"], "nothing was said twice"
    again = fleet.ctl("switch", "--account", "one", "--to", "two")
    assert again.code == 0 and "nothing to do" in again.out, again
    assert fleet.ctl("switch", "--account", "on", "--to", "two").code == 3

    told = fleet.call("explain", name="a1")["account"]
    assert (told["name"], told["configured"], told["agents"]) == ("two", "one", 3)
    assert "switched: its section names one" in fleet.ctl("explain", "a1").out
