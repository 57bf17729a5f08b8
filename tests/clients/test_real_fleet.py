"""A fleet of the real clients: launched, given work, parked, resumed, killed in the middle, and limited."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table
from tests.clients.accounts import ClaudeHome, CodexHome
from tests.clients.client import Client, Start
from tests.clients.faults import Fault
from tests.clients.install import Clients
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.real_fleet import RealFleet
from tests.clients.waiting import LONGEST_SECS
from tests.live.conftest import fleet as fleet  # a fixture
from tests.live.fleet import Fleet, wait_for

BYPASS = "--dangerously-skip-permissions"
FOREVER = "[[bash tail -f /dev/null]]"


@pytest.fixture
def real(mock: Mock, fleet: Fleet, clients: Clients, network: Network) -> RealFleet:
    """A fleet in the network of the clients.

    Their homes outlive it: the folder of these comes first, with `mock`.
    """
    return RealFleet(fleet, clients, network, mock)


def test_claude_is_resumed_after_a_park_and_after_a_kill_in_the_middle_of_a_tool(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path
) -> None:
    fleet, home = real.fleet, claude_home("a", shared=True)
    real.account(home, folder / "shared")
    real.account(claude_home("b", shared=True))
    real.agent("x", home, work, BYPASS)
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    conversation = fleet.view("x")["conversation"]
    real.task("x", "remember PAPAYA")
    real.await_heard(home.key, "remember PAPAYA")
    real.await_state("x", "idle")
    assert fleet.ctl("park", "x", "--waiting").code == 0
    assert not list(home.folder.glob("sessions/*.json"))

    real.task("x", f"what did I say? {FOREVER}")
    real.await_heard(home.key, "remember PAPAYA", "what did I say?")
    launch = fleet.launches("x")[0]
    assert (launch.mode, launch.wake_cause) == ("resume", "idle-reaped-resume")
    assert fleet.view("x")["conversation"] == launch.conversation == conversation
    wait_for("its tool runs", lambda: real.tools("x"), LONGEST_SECS)
    assert real.await_state("x", "working")["state_source"] == "status-file"
    # The client saves a prompt a moment after it has sent it: what a kill overtakes is lost with it.
    saved = home.transcript(work, conversation)
    wait_for("the prompt is saved", lambda: "what did I say?" in saved.read_text())

    tools = real.tools("x")
    os.kill(fleet.view("x")["pid"], signal.SIGKILL)
    fleet.await_phase("x", "down")
    # Its tool outlived it; a resume begins only when that is gone, and so is what says that it runs.
    assert fleet.ctl("wake", "x", "--resume", timeout=LONGEST_SECS).code == 0
    assert not any(process_table.may_run(tool) for tool in tools)
    view = fleet.view("x")
    assert (view["phase"], view["conversation"]) == ("up", conversation)
    assert [path.stem for path in home.folder.glob("sessions/*.json")] == [str(view["pid"])]
    real.task("x", "and now?")
    real.await_heard(home.key, "remember PAPAYA", "what did I say?", "and now?")
    assert len(list((folder / "shared" / "projects").glob("*/*.jsonl"))) == 1


def test_a_conversation_that_somebody_has_open_by_hand_is_not_resumed(
    real: RealFleet,
    claude_home: Callable[..., ClaudeHome],
    work: Path,
    folder: Path,
    start: Start,
) -> None:
    fleet, home, other = real.fleet, claude_home("a", shared=True), claude_home("b", shared=True)
    real.account(home, folder / "shared")
    real.account(other)
    real.agent("x", home, work, BYPASS)
    fleet.start()
    real.task("x", "hello")
    real.await_heard(home.key, "hello")
    real.await_state("x", "idle")
    conversation = fleet.view("x")["conversation"]
    assert fleet.ctl("park", "x", "--waiting").code == 0
    client = start(other, BYPASS, "--resume", conversation)
    other.await_status(client.pid, "idle")
    refused = fleet.ctl("wake", "x")
    assert refused.code == 3
    assert f"pid {client.pid} has it open" in refused.err
    assert fleet.view("x")["cause"] == "conversation-in-use"
    client.end(signal.SIGTERM)
    assert fleet.ctl("wake", "x", timeout=LONGEST_SECS).code == 0
    assert fleet.launches("x")[0].wake_cause == "idle-reaped-resume"


def test_a_client_typed_into_a_shell_is_adopted_as_it_is_and_resumed_later(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path, network: Network
) -> None:
    fleet, home = real.fleet, claude_home("a", shared=True)
    real.account(home, folder / "shared")
    fleet.agent("other")
    fleet.start()
    (folder / "t").mkdir()
    shell = ["/bin/sh", "-c", '"$0" "$@"; :', str(real.clients.claude), BYPASS]
    client = Client(folder / "t", network, shell, home.variables, work, str(folder))
    (program,) = wait_for("the client", lambda: process_table.children(client.process()), LONGEST_SECS)
    home.await_status(program.pid, "idle")
    client.prompt("remember KIWI")
    client.await_screen("heard: remember KIWI")
    conversation = home.await_status(program.pid, "idle")["sessionId"]
    adopted = fleet.ctl("adopt", "--socket", str(client.socket), "--name", "x", "--yes", timeout=LONGEST_SECS)
    assert adopted.code == 0, adopted
    assert fleet.view("x")["pid"] == client.pid
    wait_for("its conversation is known", lambda: fleet.view("x")["conversation"] == conversation)
    assert real.await_state("x", "idle")["state_source"] == "status-file"
    assert fleet.ctl("park", "x", "--waiting").code == 0
    real.task("x", "what was it?")
    real.await_heard(home.key, "remember KIWI", "what was it?")
    assert fleet.view("x")["conversation"] == conversation
    again = fleet.ctl("--json", "adopt", "--socket", str(client.socket), "--yes")
    assert again.code == 0 and not again.json()["adopted"]


CLAUDE_FAULTS = [
    # fault, the states it may be in, the kind and the window of the fault
    (Fault.LIMIT_5H, "limited", "usage-limit", "5-hour"),
    (Fault.LIMIT_WEEK, "limited", "usage-limit", "weekly"),
    (Fault.LIMIT_OPUS, "limited", "usage-limit", "opus"),
    (Fault.CREDIT, "limited", "credit", None),
    (Fault.UNAUTHORIZED, "waiting", "credentials", None),
    (Fault.FORBIDDEN, "waiting", "credentials", None),
    (Fault.OVERLOADED, "working", "overload", None),
    (Fault.RATE, "working", "rate-limit", None),
    (Fault.BROKEN, "working", "server-error", None),
    (Fault.CUT, "working", "network", None),
]


def test_each_fault_of_an_account_is_told_by_its_agents_state(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path
) -> None:
    fleet = real.fleet
    homes = {fault: claude_home(fault.value, shared=True) for fault, *_ in CLAUDE_FAULTS}
    for fault, home in homes.items():
        real.account(home, folder / "shared")
        real.agent(
            fault.value, home, work, f"{BYPASS} --model {'opus' if fault is Fault.LIMIT_OPUS else 'sonnet'}"
        )
    fleet.start()
    for name in homes:
        fleet.await_phase(name.value, "up", LONGEST_SECS)
    resets = {fault: real.mock.fail(fault, home.key).resets_at for fault, home in homes.items()}
    wrong, secs = {}, {}
    for fault, state, kind, window in CLAUDE_FAULTS:
        real.type(fault.value, "hello")
        wait_for(
            f"{fault} happens", lambda key=homes[fault].key: any(a.fault for a in real.mock.asked(key)), 30
        )
        begun = time.monotonic()

        def told(name: str = fault.value, expected: tuple[str, str] = (kind, state)) -> dict[str, Any] | None:
            # Its status file may say for a moment more that it works, once its screen has told the fault.
            found = fleet.view(name)
            return found if found["fault"] and (found["fault"]["kind"], found["state"]) == expected else None

        try:
            view = wait_for(f"{fault.value} is {state} by {kind}", told, 20)
        except AssertionError as error:
            wrong[fault.value] = f"{error}: {fleet.view(fault.value)}\n{fleet.screen(fault.value)}"
            continue
        secs[fault.value] = time.monotonic() - begun
        if view["fault"]["window"] != window:
            wrong[fault.value] = f"{window} expected: {view}\n{fleet.screen(fault.value)}"
        if kind == "usage-limit" and abs((view["fault"]["resets_at"] or 0) - resets[fault]) > 60:
            wrong[fault.value] = f"resets at {view['fault']}, and not {resets[fault]}"
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())
    print("seconds from the fault to the state:", {name: round(value, 1) for name, value in secs.items()})


def test_agents_in_one_directory_keep_a_conversation_each(
    real: RealFleet, claude_home: Callable[..., ClaudeHome], work: Path, folder: Path
) -> None:
    names = [f"a{number}" for number in range(10)]
    homes = [claude_home("a", shared=True), claude_home("b", shared=True)]
    for home in homes:
        real.account(home, folder / "shared")
    for number, name in enumerate(names):
        real.agent(name, homes[number % 2], work, BYPASS)
    real.fleet.start()
    for name in names:
        real.fleet.await_phase(name, "up", LONGEST_SECS)
    conversations = {name: real.fleet.view(name)["conversation"] for name in names}
    assert len(set(conversations.values())) == 10
    for name in names:
        real.type(name, f"I am {name}")
    for number, name in enumerate(names):
        real.await_heard(homes[number % 2].key, f"I am {name}")
        real.await_state(name, "idle")
    assert real.fleet.ctl("park", *names, "--waiting", timeout=LONGEST_SECS).code == 0
    assert real.fleet.ctl("wake", *names, timeout=LONGEST_SECS).code == 0
    for name in names:
        real.type(name, "and who was I?")
    for number, name in enumerate(names):
        real.await_heard(homes[number % 2].key, f"I am {name}", "and who was I?")
    assert {name: real.fleet.view(name)["conversation"] for name in names} == conversations


def test_codex_is_resumed_after_a_park_and_after_a_kill_in_the_middle_of_a_tool(
    real: RealFleet, codex_home: Callable[..., CodexHome], work: Path, folder: Path
) -> None:
    fleet, home = real.fleet, codex_home("a", shared=True)
    real.account(home, folder / "shared-codex")
    real.account(codex_home("b", shared=True))
    real.agent("x", home, work)
    real.agent("y", home, work)
    fleet.start()
    for name in ("x", "y"):
        fleet.await_phase(name, "up", LONGEST_SECS)
        real.task(name, f"remember {name} PAPAYA")
        real.await_heard(home.key, f"remember {name} PAPAYA")
        real.await_state(name, "idle")
    conversation = fleet.view("x")["conversation"]
    assert conversation in home.locked() and fleet.view("y")["conversation"] not in (None, conversation)
    assert fleet.ctl("park", "x", "--waiting").code == 0
    real.task("x", f"what did I say? {FOREVER}")
    real.await_heard(home.key, "remember x PAPAYA", "what did I say?")
    assert fleet.launches("x")[0].wake_cause == "idle-reaped-resume"
    wait_for("its tool runs", lambda: real.tools("x"), LONGEST_SECS)
    real.await_state("x", "working")
    (saved,) = [path for path in home.rollouts() if str(conversation) in path.name]
    wait_for("the prompt is saved", lambda: "what did I say?" in saved.read_text())
    tools = real.tools("x")
    os.kill(fleet.view("x")["pid"], signal.SIGKILL)
    fleet.await_phase("x", "down")
    assert fleet.ctl("wake", "x", "--resume", timeout=LONGEST_SECS).code == 0
    assert not any(process_table.may_run(tool) for tool in tools)
    assert (fleet.view("x")["phase"], fleet.view("x")["conversation"]) == ("up", conversation)
    real.task("x", "and now?")
    real.await_heard(home.key, "remember x PAPAYA", "what did I say?", "and now?")
    real.mock.fail(Fault.LIMIT_5H, home.key)
    real.task("y", "go on")
    view = real.await_state("y", "limited", timeout=20)
    assert view["fault"]["kind"] == "usage-limit"
