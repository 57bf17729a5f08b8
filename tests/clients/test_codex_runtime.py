"""The `codex` runtime with the real Codex: what that does is seen as what it is, from start to death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from circus_failover import agent_settings, process_table, tmux
from circus_failover.agent_settings import AgentSettings
from circus_failover.agents.codex import CodexRuntime
from circus_failover.agents.runtime import Boot, Place, Screen
from circus_failover.policy.health import Fault as Shown
from circus_failover.policy.health import Health, decide
from circus_failover.settings import Account, Settings, Shared
from circus_failover.words import BootStage, Credentials, FaultKind, State
from tests import proc
from tests.clients.accounts import CodexHome
from tests.clients.client import Client, Start
from tests.clients.faults import Fault
from tests.clients.mock_api import Mock
from tests.clients.waiting import wait_for

MakeHome = Callable[..., CodexHome]
LONG_TOOL = "[[bash tail -f /dev/null]]"
SOON_SECS = 5.0
"""The time in which a state has to be right. It is waited for the client first, whose time it is not."""
MENU = "Approaching rate limits"
"""What asks for another model says at its head."""
IDLE_TITLE = r"^\w+$"
"""The name of its working directory, and nothing before it."""
codex = CodexRuntime()
DIALOGS = {dialog.name: dialog for dialog in codex.dialogs}


def agent(home: CodexHome, work: Path, **options: str) -> AgentSettings:
    """Return an agent with this account's home."""
    account = Account(home.name, "codex", home.folder)
    settings = Settings(home.folder / "failover.yaml", home.folder, Shared(), (account,), {})
    watcher = {"name": "bob", "cmd": "failover-session", "working_dir": str(work)}
    ours = {"runtime": "codex", "account": home.name, "socket": str(work / "s"), **options}
    return agent_settings.parse({**watcher, **{f"failover.{k}": v for k, v in ours.items()}}, settings, "ini")


def runs_the_tool(client: Client) -> bool:
    """Say whether the long tool runs below a client."""
    tree = process_table.descendants(client.process())
    return any(proc.command_line(process.pid).startswith(b"tail\0") for process in tree)


class Launch:
    """One launch, looked at as the supervisor does."""

    def __init__(
        self, start: Start, home: CodexHome, argv: Sequence[str], directory: Path, recorded: str | None = None
    ) -> None:
        self.home = home
        self.recorded = recorded
        self.launched_at = time.time()
        self.client: Client = start(home, *argv[1:], directory=directory, TZ="UTC")
        self.directory = directory

    @property
    def place(self) -> Place:
        return Place(
            self.client.process(),
            self.home.folder,
            self.directory,
            self.recorded,
            self.launched_at,
            screen=self.screen,
        )

    def screen(self) -> Screen | None:
        found = tmux.screen(self.client.socket, self.client.pane, 30)
        return found[1] if found is not None else None

    def boots(self, stage: BootStage) -> Boot:
        """Wait until the boot has come to a stage, and return it."""
        last = Boot(BootStage.WAIT)

        def look() -> Boot | None:
            nonlocal last
            last = codex.boot(self.place)
            return last if last.stage is stage else None

        try:
            found = wait_for(f"the boot is at {stage}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}\n{self.client.screen()}") from None
        self.recorded = found.conversation
        return found

    def health(self) -> Health:
        return decide(codex.look(self.place).signs, self.launched_at, time.time())

    def becomes(self, state: State, kind: FaultKind | None = None, what: str | None = None) -> Health:
        """Wait until it is seen in a state, with a fault of a kind or none."""
        last = self.health()

        def look() -> Health | None:
            nonlocal last
            last = self.health()
            right = last.state is state and (last.fault.kind if last.fault else None) is kind
            return last if right and (what is None or last.what == what) else None

        try:
            return wait_for(f"it is {state} ({kind}, {what})", look, SOON_SECS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}\n{self.client.title()}\n{self.client.screen()}") from None

    def retries(self) -> Shown | None:
        fault = self.health().fault
        return fault if fault is not None and fault.retrying else None

    def turns_ended(self) -> int:
        lines = [line for path in self.home.rollouts() for line in path.read_text().splitlines()]
        return sum('"type":"task_complete"' in line.replace(" ", "") for line in lines)


EXPECTED: dict[Fault, tuple[State, FaultKind | None]] = {
    Fault.RATE: (State.IDLE, FaultKind.RATE_LIMIT),
    Fault.OVERLOADED: (State.IDLE, FaultKind.OVERLOAD),
    Fault.BROKEN: (State.IDLE, FaultKind.SERVER_ERROR),
    Fault.UNAUTHORIZED: (State.WAITING, FaultKind.CREDENTIALS),
    Fault.FORBIDDEN: (State.WAITING, FaultKind.CREDENTIALS),
    Fault.CREDIT: (State.LIMITED, FaultKind.CREDIT),
    Fault.CUT: (State.IDLE, FaultKind.NETWORK),
    Fault.NEAR_LIMIT: (State.WAITING, None),
    Fault.LIMIT_WEEK: (State.LIMITED, FaultKind.USAGE_LIMIT),
    Fault.LIMIT_5H: (State.LIMITED, FaultKind.USAGE_LIMIT),
}


def test_every_fault_of_its_account_is_told_and_over_when_it_answers_again(
    start: Start, codex_home: MakeHome, mock: Mock, work: Path
) -> None:
    home = codex_home("a")
    launch = Launch(start, home, codex.fresh(agent(home, work), str(uuid.uuid4())), work)
    launch.boots(BootStage.READY)
    launch.becomes(State.IDLE)
    for number, (fault, (state, kind)) in enumerate(EXPECTED.items(), start=1):
        set_ = mock.fail(fault, home.key, resets_in=7200 + number)
        launch.client.prompt(f"prompt {number}")
        if fault is Fault.BROKEN:
            # It says nothing of this in its transcript before it gives up.
            wait_for("it works", lambda: launch.health().state is State.WORKING)
            shown = wait_for("it says so", launch.retries)
            assert shown.kind is kind
        wait_for(f"turn {number} has ended", lambda n=number: launch.turns_ended() >= n)  # type: ignore[misc]
        health = launch.becomes(state, kind)
        if kind is FaultKind.USAGE_LIMIT:
            assert health.fault is not None and health.fault.resets_at == set_.resets_at
            assert health.fault.window == ("5-hour" if fault is Fault.LIMIT_5H else "weekly")
        if fault is Fault.NEAR_LIMIT:
            assert health.what == "dialog: model", "it takes what is typed, and Enter changes the model"
            launch.client.await_screen(MENU)
            launch.client.press(*DIALOGS["model"].answers["keep"])
            wait_for("its menu is away", lambda: MENU not in launch.client.screen())
            launch.becomes(State.IDLE)
    mock.fail(Fault.HANG, home.key)
    launch.client.prompt("hang")
    launch.client.await_title("^[⠁-⣿]")
    assert launch.becomes(State.WORKING).fault is None
    mock.heal()
    launch.client.await_screen("heard: hang")
    launch.client.await_title(IDLE_TITLE)
    launch.becomes(State.IDLE)


def test_from_a_question_about_trust_to_a_death_in_the_middle_of_a_tool(
    start: Start, codex_home: MakeHome, mock: Mock, work: Path
) -> None:
    subprocess.run(["git", "init", "--quiet", str(work)], check=True)
    home = codex_home("a", trusted=[], asks=True, shared=True)
    (work / "below").mkdir()
    below = agent(home, work / "below")
    (problem,) = codex.check_home(below, home.folder, home.variables, ("sessions",)).problems
    assert problem.key == "trust" and str(work.resolve()) in problem.found
    argv = codex.fresh(below, "no id of ours")
    first = Launch(start, home, argv, work / "below")
    asked = first.boots(BootStage.DIALOG)
    assert (asked.dialog, asked.chosen, home.locked()) == ("trust", "accept", [])
    assert first.health().what == "dialog: trust"
    first.client.answer("Trust this folder?", "Enter")
    ready = first.boots(BootStage.READY)

    def noted() -> Credentials | None:
        report = codex.check_home(below, home.folder, home.variables, ())
        return report.credentials if report.problems == () else None

    assert wait_for("its answer is noted and understood", noted) is Credentials.PRESENT
    assert [ready.conversation] == home.locked()
    first.becomes(State.IDLE)
    assert codex.resume(below, str(ready.conversation), home.folder) is None, "there is no turn to go on with"

    # A second one in the same directory has a conversation of its own.
    second = Launch(start, home, argv, work / "below")
    other = second.boots(BootStage.READY).conversation
    assert other != ready.conversation
    second.client.prompt("remember KIWI [[hold]]")
    wait_for("the answer is held", lambda: mock.held)
    first.client.prompt("remember PAPAYA [[ask touch made]]")
    first.client.await_screen("Would you like to run")
    first.becomes(State.WAITING, what="permission: command")
    second.becomes(State.WORKING)
    mock.release()
    first.client.press("Escape")
    first.client.await_screen("Conversation interrupted")
    first.client.await_title(IDLE_TITLE)
    first.becomes(State.IDLE)
    second.client.await_screen("heard: remember KIWI")
    second.client.await_title(IDLE_TITLE)
    second.becomes(State.IDLE)
    seen = [codex.look(launch.place) for launch in (first, second)]
    assert [one.conversation for one in seen] == [ready.conversation, other]
    assert all(one.last_activity is not None and one.last_activity >= first.launched_at for one in seen)

    first.client.prompt(f"do {LONG_TOOL}")
    wait_for("its tool runs", lambda: runs_the_tool(first.client))
    first.becomes(State.WORKING, what="exec_command")
    tree = process_table.descendants(first.client.process())
    homes = [home.folder, codex_home("c", shared=True).folder]
    (writer,) = codex.writers(homes, str(ready.conversation))
    assert writer.process in tree and writer.home == home.folder
    heir = codex_home("b", shared=True)
    resumed = codex.resume(agent(heir, work), str(ready.conversation), heir.folder)
    assert resumed is not None
    early = Launch(start, heir, resumed, work)
    assert "open in another app" in early.boots(BootStage.FAILED).evidence
    assert {one.process for one in codex.writers(homes, str(ready.conversation))} > {writer.process}
    early.client.end(signal.SIGKILL)
    first.client.end(signal.SIGKILL)
    wait_for("nobody has it open", lambda: codex.writers(homes, str(ready.conversation)) == ())
    wait_for("its tool has ended", lambda: not any(map(process_table.alive, tree)))
    third = Launch(start, heir, resumed, work, ready.conversation)
    assert third.boots(BootStage.READY).conversation == ready.conversation, "in another directory, unasked"
    third.becomes(State.IDLE)
    assert third.health().fault is None, "the turn that was killed is none of this launch"
    third.client.prompt("go on")
    third.client.await_screen("heard: go on; before: remember PAPAYA, do")
    third.client.await_title(IDLE_TITLE)
    third.becomes(State.IDLE)
    assert codex.look(third.place).conversation == ready.conversation


def test_a_background_server_is_found_and_has_no_part_in_an_agent(
    start: Start, codex_home: MakeHome, work: Path
) -> None:
    home = codex_home("a", daemon=True)
    assert codex.background(home.folder) is None
    start(home)
    daemon = wait_for("the server runs", lambda: codex.background(home.folder))
    launch = Launch(start, home, codex.fresh(agent(home, work), ""), work)
    ready = launch.boots(BootStage.READY)
    (writer,) = codex.writers([home.folder], str(ready.conversation))
    assert writer.process in process_table.descendants(launch.client.process())
    config = home.folder / "config.toml"
    config.write_text(config.read_text() + "[features]\ndaemon_auto_start = true\n")
    assert "--no-daemon" not in codex.fresh(agent(home, work), ""), "an operator's word counts"
    (problem,) = codex.check_home(agent(home, work), home.folder, home.variables, ()).problems
    assert problem.refuses and str(daemon.pid) in problem.found
    os.kill(daemon.pid, signal.SIGKILL)
    wait_for("the server has ended", lambda: codex.background(home.folder) is None)
    assert json.loads((home.folder / "app-server-daemon" / "daemon.pid").read_text())["pid"] == daemon.pid
