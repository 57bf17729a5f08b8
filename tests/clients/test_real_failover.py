"""Real clients whose account reaches its limit: they go on in the same conversation on another account."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from circus_failover.policy.continuing import GO_ON
from tests.clients.accounts import ClaudeHome, CodexHome, Home
from tests.clients.faults import Fault
from tests.clients.install import Clients
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.real_fleet import RealFleet
from tests.clients.waiting import LONGEST_SECS
from tests.live.conftest import fleet as fleet  # a fixture
from tests.live.fleet import Fleet, wait_for

BYPASS = "--dangerously-skip-permissions"
SECOND = "and the second one, which waits inside the client"


@pytest.fixture
def real(mock: Mock, fleet: Fleet, clients: Clients, network: Network) -> RealFleet:
    """A fleet in the network of the clients, whose agents change their accounts.

    Their homes outlive it: the folder of these comes first, with `mock`.
    """
    fleet.plugins["plugin:failover"] = {
        "use": "circus_failover.plugins.AccountFailover",
        "interval": "0.5",
        "pace": "0.2",
    }
    return RealFleet(fleet, clients, network, mock)


def two_accounts(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], folder: Path
) -> tuple[ClaudeHome, ClaudeHome]:
    """Add two accounts of Claude Code that share their conversations, and return their homes."""
    a, b = claude_home("a", shared=True), claude_home("b", shared=True)
    real.account(a, folder / "shared")
    real.account(b)
    return a, b


def accounts(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """Return what `accounts` says, by name."""
    said = fleet.ctl("--json", "accounts")
    assert said.code == 0, said
    return {one["name"]: one for one in json.loads(said.out)["accounts"]}


def heard(real: RealFleet, home: Home, *first: str) -> list[tuple[str, ...]]:
    """Return what was said in conversations on an account that began with these prompts."""
    asked = (one.prompts for one in real.mock.asked(home.key) if one.conversation)
    return [prompts for prompts in asked if prompts[: len(first)] == first]


def await_account(fleet: Fleet, name: str, account: str) -> dict[str, Any]:
    """Wait until an agent is up on an account."""

    def look() -> dict[str, Any] | None:
        view = fleet.view(name)
        return view if (view["account"], view["phase"]) == (account, "up") else None

    return wait_for(f"{name} is up on {account}", look, LONGEST_SECS)


def went_on(real: RealFleet, home: Home, turn: str) -> list[tuple[str, ...]]:
    """Return the requests on an account that went on with a turn that was cut off."""
    return [prompts for prompts in heard(real, home) if turn in prompts[-2:-1]]


def kill_in_the_midst(fleet: Fleet, who: str, generation: int) -> None:
    """Kill somebody while the switch of `x` is under way: the plugin, the keeper, or the new client.

    Args:
        fleet: whose `x` it is.
        who: `plugin`, `keeper` or `client`.
        generation: of the launch that is switched.
    """
    if who == "plugin":

        def under_way() -> bool:
            view = fleet.view("x")
            return view["phase"] != "up" or view["generation"] > generation

        wait_for("its end is under way", under_way, LONGEST_SECS)
        with fleet.store() as store:
            os.kill(store.plugins()["AccountFailover"].pid, signal.SIGKILL)
        return
    begun = wait_for(
        "it is launched",
        lambda: (view := fleet.view("x"))["generation"] > generation and view["pid"] and view,
        LONGEST_SECS,
    )
    os.kill(fleet.keeper("x") if who == "keeper" else begun["pid"], signal.SIGKILL)


def until_open(gate: Path) -> str:
    """Return a tool call that goes on until a file is there."""
    return f"[[bash until test -e {shlex.quote(str(gate))}; do sleep 0.1; done]]"


def transcripts(folder: Path) -> list[Path]:
    """Return the transcripts that two accounts share."""
    return list((folder / "shared" / "projects").glob("*/*.jsonl"))


def test_a_turn_that_a_limit_cuts_off_is_answered_on_another_account_in_the_same_conversation(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path
) -> None:
    fleet, gate = real.fleet, folder / "gate"
    a, b = two_accounts(real, claude_home, folder)
    real.agent("x", a, work, BYPASS)
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    conversation = fleet.view("x")["conversation"]
    real.task("x", "remember PAPAYA")
    real.await_heard(a.key, "remember PAPAYA")
    real.await_state("x", "idle")

    real.task("x", f"what did I say? {until_open(gate)}")
    wait_for("its tool runs", lambda: real.tools("x", "bash"), LONGEST_SECS)
    real.mock.fail(Fault.LIMIT_5H, a.key)
    gate.touch()
    said = ("remember PAPAYA", "what did I say?")
    (told,) = wait_for("it is answered on b", lambda: set(heard(real, b, *said)), LONGEST_SECS)
    assert len(told) == 3, "the interrupted turn goes on, and is told so once"
    real.await_state("x", "idle")
    view, (now, before, *_) = fleet.view("x"), fleet.launches("x")
    assert (view["account"], view["conversation"]) == ("b", conversation)
    assert (now.account, now.cause, now.wake_cause) == ("b", "switched", "resume-requested")
    assert (before.account, before.planned, before.end_cause) == ("a", True, "switched")
    assert set(heard(real, b, *said)) == {told} and not heard(real, a, *told)
    assert len(transcripts(folder)) == 1
    wait_for("b is known to work", lambda: accounts(fleet)["b"]["state"] == "available")
    limited = accounts(fleet)["a"]
    assert limited["state"] == "limited" and limited["until"] > time.time() + 3000

    # The other one reaches its limit too: it is held, and goes on by itself after the reset.
    resets_at = real.mock.fail(Fault.LIMIT_5H, b.key, resets_in=20).resets_at
    real.task("x", "and now?")
    held = fleet.await_phase("x", "held", LONGEST_SECS)
    assert held["cause"] == "limited" and held["held_until"] >= resets_at
    refused = fleet.ctl("wake", "x")
    assert refused.code == 3 and "limit" in refused.err
    real.mock.heal(b.key)
    # The request that was refused is one of them; the one that goes on says so behind it.
    wait_for("it goes on", lambda: heard(real, b, *told, "and now?", told[-1]), LONGEST_SECS)
    assert fleet.launches("x")[0].started_at >= resets_at
    real.await_state("x", "idle")
    assert fleet.view("x")["conversation"] == conversation and len(transcripts(folder)) == 1
    with fleet.store() as store:
        assert not [launch for launch in store.launches("x") if launch.end_cause and not launch.planned]
    secrets = [home.key for home in (a, b)]
    for path in (*(Path(at, name) for at, _, names in os.walk(fleet.state) for name in names), fleet.log):
        with contextlib.suppress(FileNotFoundError):  # reports come and go
            if path.is_file():
                assert not any(secret.encode() in path.read_bytes() for secret in secrets), path


def test_whoever_is_killed_at_any_step_of_a_switch_no_turn_is_lost_or_doubled(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path
) -> None:
    fleet, (here, there) = real.fleet, two_accounts(real, claude_home, folder)
    hold, program = folder / "hold", folder / "client"
    # A launch that is to be killed in the midst must not have come to its end by then.
    waits = f"while test -e {hold}; do sleep 0.1; done"
    program.write_text(f'#!/bin/sh\n{waits}\nexec {shlex.quote(str(real.clients.claude))} "$@"\n')
    program.chmod(0o700)
    real.agent("x", here, work, BYPASS, failover__command=str(program))
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    conversation, killed = fleet.view("x")["conversation"], ("plugin", "keeper", "client")
    steps = ("intent-written", "worker-started", "switch-ended", "launch-recorded", "switch-up")
    turns: list[str] = []
    for number, step in enumerate((*steps, *killed)):
        gate, turn = folder / f"gate-{number}", f"turn {step}"
        turns.append(turn)
        real.task("x", f"{turn} {until_open(gate)}")
        wait_for("its tool runs", lambda: real.tools("x", "bash"), LONGEST_SECS)
        if step in steps:
            fleet.end(signal.SIGKILL)
            fleet.start(crash_at=step)
        if step == "client":
            hold.touch()
        generation = fleet.launches("x")[0].generation
        real.mock.fail(Fault.LIMIT_5H, here.key)
        gate.touch()
        if step in steps:
            fleet.crashed(timeout=LONGEST_SECS)
            fleet.start()
        else:
            kill_in_the_midst(fleet, step, generation)
        if step == "client":
            # Its launch on the other account was killed: it is parked where it was, and loses nothing.
            parked = fleet.await_phase("x", "parked", LONGEST_SECS)
            assert (parked["account"], parked["cause"]) == (here.name, "switch-failed")
            hold.unlink()
            real.mock.heal(here.key)
            fleet.ctl("accounts", "forget", here.name)
            assert fleet.ctl("wake", "x", timeout=LONGEST_SECS).code == 0
            here, there = there, here
        wait_for(f"{turn} goes on", partial(went_on, real, there, turn), LONGEST_SECS)
        view = await_account(fleet, "x", there.name)
        real.await_state("x", "idle")
        assert view["conversation"] == conversation and len(transcripts(folder)) == 1
        assert [path.stem for path in folder.glob("claude-*/sessions/*.json")] == [str(view["pid"])]
        assert len(went_on(real, there, turn)) == 1 and not went_on(real, here, turn)
        real.mock.heal()
        fleet.ctl("accounts", "forget", here.name)
        here, there = there, here
    *_, (*said, _) = heard(real, here)
    assert [prompt for prompt in said if prompt in turns] == turns
    with fleet.store() as store:
        agent = store.agent("x")
    assert agent is not None and (agent.loop, agent.switching) == ("closed", None)


def test_codex_goes_on_on_another_account_too(
    real: RealFleet, codex_home: Callable[..., CodexHome], work: Path, folder: Path
) -> None:
    fleet, a, b = real.fleet, codex_home("a", shared=True), codex_home("b", shared=True)
    real.account(a, folder / "shared-codex")
    real.account(b)
    real.agent("x", a, work)
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    real.task("x", "remember PAPAYA")
    real.await_heard(a.key, "remember PAPAYA")
    real.await_state("x", "idle")
    conversation = fleet.view("x")["conversation"]
    real.mock.fail(Fault.LIMIT_5H, a.key)
    real.task("x", "what did I say?")
    said = ("remember PAPAYA", "what did I say?")
    (told,) = wait_for("it is answered on b", lambda: set(heard(real, b, *said)), LONGEST_SECS)
    assert len(told) == 3
    view = await_account(fleet, "x", "b")
    assert view["conversation"] == conversation
    assert accounts(fleet)["a"]["state"] == "limited"


def test_an_account_that_is_nearly_used_up_is_left_between_two_tasks(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path
) -> None:
    fleet, (a, b) = real.fleet, two_accounts(real, claude_home, folder)
    real.agent("x", a, work, BYPASS, failover__switch_at="90")
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    real.mock.fail(Fault.NEAR_LIMIT, a.key)
    real.task("x", "remember PAPAYA")
    await_account(fleet, "x", "b")
    usage = {one["window"]: one["used"] for one in accounts(fleet)["a"]["usage"]}
    assert usage == {"5-hour": pytest.approx(0.95), "weekly": pytest.approx(0.4)}
    real.task("x", "what did I say?")
    real.await_heard(b.key, "remember PAPAYA", "what did I say?")
    assert [launch.account for launch in fleet.launches("x")] == ["b", "a"]


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_a_turn_and_a_prompt_that_waits_inside_the_client_survive_a_switch_by_hand(
    real: RealFleet,
    claude_home: Callable[..., ClaudeHome],
    codex_home: Callable[..., CodexHome],
    work: Path,
    folder: Path,
    client: str,
) -> None:
    """It is ended by SIGTERM: neither client writes that its turn was interrupted, nor keeps what waits."""
    fleet = real.fleet
    del fleet.plugins["plugin:failover"]
    make: Callable[..., Home] = claude_home if client == "claude" else codex_home
    a, b = make("a", shared=True), make("b", shared=True)
    real.account(a, folder / ("shared" if client == "claude" else "shared-codex"))
    real.account(b)
    real.agent("x", a, work, *((BYPASS,) if client == "claude" else ()))
    gate = folder / "gate"
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    real.task("x", f"what did I say? {until_open(gate)}")
    real.await_heard(a.key, "what did I say?")
    real.task("x", SECOND)
    wait_for("it is typed", lambda: not fleet.view("x")["tasks"], LONGEST_SECS)
    done = fleet.call("switch", name="x", to="b", waiting=True, timeout=LONGEST_SECS)
    assert done["status"] == "ok" and done["agents"][0]["account"] == "b", done
    gate.touch()
    said = ("what did I say?", GO_ON, SECOND)
    wait_for("all of it is answered on b", lambda: said in heard(real, b, *said), LONGEST_SECS)
    assert all(prompts == said[: len(prompts)] for prompts in heard(real, b, said[0])), "each of it once"
