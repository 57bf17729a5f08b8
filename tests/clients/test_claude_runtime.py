"""The `claude` runtime with the real Claude Code: what it sees is what the client does."""

from __future__ import annotations

import math
import re
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from circus_failover import agent_settings, process_table, tmux
from circus_failover.agent_settings import AgentSettings
from circus_failover.agents.claude import ClaudeRuntime
from circus_failover.agents.runtime import Boot, Observation, Place, Screen
from circus_failover.boot_dialogs import SETTLED_SECS
from circus_failover.policy.health import Health, decide
from circus_failover.settings import Account, Settings, Shared
from circus_failover.words import BootStage, Credentials, FaultKind, Source, State
from tests.clients.accounts import CLAUDE_SHARED, ClaudeHome
from tests.clients.client import AGAIN_SECS, Client, Start
from tests.clients.faults import Fault
from tests.clients.mock_api import Mock
from tests.clients.waiting import wait_for

T = TypeVar("T")
MakeHome = Callable[..., ClaudeHome]
BYPASS = "--dangerously-skip-permissions"
LIMITED = (Fault.LIMIT_5H, Fault.LIMIT_WEEK, Fault.LIMIT_OPUS)


class Watched:
    """A real client, as the runtime is shown it."""

    def __init__(
        self, runtime: ClaudeRuntime, client: Client, home: ClaudeHome, work: Path, conversation: str
    ) -> None:
        self.runtime = runtime
        self.client = client
        begun = time.time() - process_table.seconds_since(client.process().start)
        self.place = Place(
            client.process(), home.folder, work, conversation, begun - 0.1, screen=self._screen
        )

    def _screen(self) -> Screen | None:
        found = tmux.screen(self.client.socket, self.client.pane, 30)
        return None if found is None else found[1]

    def boot(self) -> Boot:
        """Return how far its start has come."""
        return self.runtime.boot(self.place)

    def await_boot(self, stage: BootStage) -> Boot:
        """Wait until its start has come so far."""

        def look() -> Boot | None:
            boot = self.boot()
            return boot if boot.stage is stage else None

        return self._await(f"its boot is {stage}", look)

    def answer(self, keys: Sequence[str], answer: str) -> Boot:
        """Give an answer to a dialog by its keys, and return the boot when it is ready.

        In its first moments the client may lose keys, and draw a menu anew, its cursor where it began:
        so a key is pressed for what has stood for a moment, and again when nothing came of it.
        """
        before, since, pressed_for, pressed = Boot(BootStage.WAIT), math.inf, "", -math.inf

        def ready() -> Boot | None:
            nonlocal before, since, pressed_for, pressed
            boot, now = self.boot(), time.monotonic()
            if boot != before:
                before, since = boot, now
            if boot.stage is BootStage.READY:
                return boot
            at = boot.chosen or ""
            due = at != pressed_for or now - pressed > AGAIN_SECS
            if boot.stage is BootStage.DIALOG and now - since >= SETTLED_SECS and due:
                pressed_for, pressed = at, now
                self.client.press(*(keys[-1:] if at == answer else keys[:-1]))
            return None

        return self._await(f"{answer} is taken in", ready)

    def look(self) -> tuple[Health, Observation]:
        """Return what it does, and what is seen of it."""
        seen = self.runtime.look(self.place)
        return decide(seen.signs, self.place.launched_at, time.time()), seen

    def await_state(self, state: State, what: str = "") -> tuple[Health, Observation]:
        """Wait until it is said to do this."""

        def look() -> tuple[Health, Observation] | None:
            health, seen = self.look()
            return (health, seen) if (health.state, health.what) == (state, what) else None

        return self._await(f"it is {state} {what}", look)

    def _await(self, what: str, look: Callable[[], T | None]) -> T:
        try:
            return wait_for(what, look)
        except AssertionError as error:
            said = f"{self.boot()}\n{self.look()}\n{self.client.screen()}"
            raise AssertionError(f"{error}\n{said}") from None


def agent(home: ClaudeHome, work: Path, args: str = BYPASS, dialogs: str = "") -> AgentSettings:
    """Return an agent that uses a home."""
    watcher: dict[str, object] = {"name": "bob", "cmd": "failover-session", "working_dir": str(work)}
    options = {"runtime": "claude", "account": "a", "args": args, "dialogs": dialogs}
    watcher.update({f"failover.{name}": value for name, value in options.items() if value})
    accounts = (Account("a", "claude", home.folder),)
    return agent_settings.parse(
        watcher, Settings(work / "failover.yaml", work, Shared(None), accounts, {}), "circus.ini"
    )


def problems(runtime: ClaudeRuntime, home: ClaudeHome, settings: AgentSettings) -> list[str]:
    """Return what is found wrong with a home that refuses a launch."""
    report = runtime.check_home(settings, home.folder, home.variables, CLAUDE_SHARED)
    assert report.credentials is Credentials.PRESENT
    return [problem.key for problem in report.problems if problem.refuses]


def test_each_dialog_at_a_start_is_foretold_recognised_and_got_past_by_its_keys(
    start: Start, claude_home: MakeHome, work: Path
) -> None:
    runtime = ClaudeRuntime()
    asking = {
        "trust": (claude_home("trust", trusted=[]), "decline"),
        "api-key": (claude_home("key", auth="key", approved=False), "reject"),
        "bypass": (claude_home("bypass", bypass=False), "decline"),
    }
    watched = {}
    for name, (home, _) in asking.items():
        assert problems(runtime, home, agent(home, work)) == [name]
        assert problems(runtime, home, agent(home, work, dialogs=f"{name}=accept")) == []
        conversation = str(uuid.uuid4())
        argv = runtime.fresh(agent(home, work), conversation)
        watched[name] = Watched(runtime, start(home, *argv[1:]), home, work, conversation)
    for name, one in watched.items():
        home, default = asking[name]
        asked = one.await_boot(BootStage.DIALOG)
        assert (asked.dialog, asked.chosen) == (name, default)
        (dialog,) = [dialog for dialog in runtime.dialogs if dialog.name == name]
        ready = one.answer(dialog.answers["accept"], "accept")
        assert (ready.evidence, ready.conversation) == ("status-file: idle", one.place.conversation)
        wait_for(
            "what the client has noted is understood",
            lambda home=home: not problems(runtime, home, agent(home, work)),  # type: ignore[misc]
        )


def test_what_a_client_does_is_seen_from_its_start_to_after_its_end(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path, folder: Path
) -> None:
    runtime = ClaudeRuntime()
    home, other = claude_home("a", shared=True), claude_home("b", shared=True)
    homes = (home.folder, other.folder)
    assert problems(runtime, home, agent(home, work)) == []
    conversation = str(uuid.uuid4())
    assert runtime.resume(agent(home, work), conversation, home.folder) is None
    (work / "log").touch()
    # In the default mode it asks before it does more than look at a file of its working directory.
    client = start(home, "--permission-mode", "default", "--session-id", conversation)
    one = Watched(runtime, client, home, work, conversation)
    ready = one.await_boot(BootStage.READY)
    assert (ready.evidence, ready.conversation) == ("status-file: idle", conversation)
    health, seen = one.await_state(State.IDLE)
    assert (health.source, health.fault, seen.conversation) == (Source.STATUS_FILE, None, conversation)
    assert [writer.process for writer in runtime.writers(homes, conversation)] == [client.process()]

    client.prompt("remember PAPAYA [[hold]]")
    wait_for("the answer is held", lambda: mock.held)
    health, seen = one.await_state(State.WORKING)
    assert health.source is Source.STATUS_FILE and seen.last_activity is not None
    # Nothing but the screen knows the same without the status file.
    status = home.folder / "sessions" / f"{client.pid}.json"
    kept = status.read_bytes()
    status.unlink()
    client.await_screen("esc to interrupt")
    wait_for("it works by its screen", lambda: one.look()[0].state is State.WORKING)
    mock.release()
    client.await_screen("heard: remember PAPAYA")
    wait_for("it is idle by its transcript or screen", lambda: one.look()[0].state is State.IDLE)
    status.write_bytes(kept.replace(b'"busy"', b'"idle"'))

    client.prompt("ask [[bash touch made]]")
    one.await_state(State.WAITING, "permission: Bash")
    client.press("Escape")
    one.await_state(State.IDLE)
    client.prompt("/model")
    one.await_state(State.WAITING, "dialog")
    client.press("Escape")
    one.await_state(State.IDLE)

    mock.fail(Fault.OVERLOADED, home.key)
    client.prompt("again")
    client.await_match(r"retrying in \d+s · attempt \d+/10")

    def retried() -> Health | None:
        health, _ = one.look()
        return health if health.fault is not None else None

    health = wait_for("it says what it tries again", retried)
    assert health.state is State.WORKING and health.fault is not None and health.fault.retrying
    mock.heal()
    client.press("Escape")

    def given_up() -> bool:
        health, _ = one.look()
        return health.state is State.IDLE and health.fault is None

    wait_for("what is not tried any more is no news", given_up)
    client.await_match("^❯\u00a0again$")
    client.press("C-u")

    client.prompt("do [[bash tail -f log]]")
    health, seen = one.await_state(State.WORKING, "tool: Bash")
    process = client.process()
    assert runtime.stale_files(homes, process) == (), "it is not gone"
    assert client.end(signal.SIGKILL) == -signal.SIGKILL
    wait_for("the process is gone", lambda: not process_table.alive(process))
    assert runtime.writers(homes, conversation) == ()
    assert runtime.stale_files(homes, process) == (status,)

    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    other.change(".claude.json", projects={str(elsewhere): {"hasTrustDialogAccepted": True}})
    argv = runtime.resume(agent(other, elsewhere), conversation, other.folder)
    assert argv is not None, "the transcript is found from any working directory"
    client = start(other, *argv[1:], directory=elsewhere)
    # A conversation that is there cannot be begun again: what would begin it says so, and ends.
    twice = start(home, *runtime.fresh(agent(home, work), conversation)[1:])
    again = Watched(runtime, client, other, elsewhere, conversation)
    assert again.await_boot(BootStage.READY).conversation == conversation
    assert again.look()[0].state is State.IDLE
    assert twice.ended() == 1
    refused = Screen(tuple(twice.printed().splitlines()))
    place = replace(one.place, conversation=None, screen=lambda: refused)
    boot = runtime.boot(place)
    assert boot.stage is BootStage.FAILED and "is already in use" in boot.evidence
    client.prompt("go on")
    client.await_screen("heard: go on; before: remember PAPAYA")
    _, seen = again.await_state(State.IDLE)
    client.prompt("/clear")
    wait_for("it is another conversation", lambda: again.look()[1].conversation != conversation)
    again.await_state(State.IDLE)


KINDS: dict[Fault, tuple[State, str, FaultKind | None]] = {
    Fault.LIMIT_5H: (State.LIMITED, "", FaultKind.USAGE_LIMIT),
    Fault.LIMIT_WEEK: (State.LIMITED, "dialog: usage-limit", FaultKind.USAGE_LIMIT),
    Fault.LIMIT_OPUS: (State.LIMITED, "dialog: usage-limit", FaultKind.USAGE_LIMIT),
    Fault.RATE: (State.IDLE, "", FaultKind.RATE_LIMIT),
    Fault.OVERLOADED: (State.IDLE, "", FaultKind.OVERLOAD),
    Fault.BROKEN: (State.IDLE, "", FaultKind.SERVER_ERROR),
    Fault.UNAUTHORIZED: (State.WAITING, "login", FaultKind.CREDENTIALS),
    Fault.FORBIDDEN: (State.WAITING, "login", FaultKind.CREDENTIALS),
    Fault.CREDIT: (State.LIMITED, "", FaultKind.CREDIT),
    Fault.CUT: (State.IDLE, "", FaultKind.NETWORK),
    Fault.NEAR_LIMIT: (State.IDLE, "", None),
}
WINDOWS = {Fault.LIMIT_5H: "5-hour", Fault.LIMIT_WEEK: "weekly", Fault.LIMIT_OPUS: "opus"}


def test_each_fault_of_an_account_is_told_apart_as_soon_as_the_client_has_given_up(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path
) -> None:
    home = claude_home("a", auth="token")
    conversation = str(uuid.uuid4())
    client = start(
        home, BYPASS, "--model", "opus", "--session-id", conversation, CLAUDE_CODE_MAX_RETRIES="0", TZ="UTC"
    )
    one = Watched(ClaudeRuntime(), client, home, work, conversation)
    one.await_boot(BootStage.READY)
    answers = 0
    for fault, (state, what, kind) in KINDS.items():
        reset = 3600 if fault is Fault.LIMIT_5H else 4 * 86400
        failing = mock.fail(fault, home.key, resets_in=reset)
        client.prompt(f"prompt {fault.value}")
        answers += 1

        def came(answers: int = answers) -> bool:
            entries = home.entries(work, conversation)
            said = [entry for entry in entries if entry["type"] == "assistant"]
            return len(said) == answers and home.status(client.pid).get("status") not in (None, "busy")

        wait_for(f"the client has taken in {fault}", came)
        health, _ = one.await_state(state, what)
        if kind is None:
            assert health.fault is None
            continue
        assert health.fault is not None and health.fault.kind is kind, (fault, health)
        assert not health.fault.retrying and re.search(r"\w", health.fault.text)
        if fault in LIMITED:
            assert health.fault.resets_at == failing.resets_at
            assert health.fault.window == WINDOWS[fault]
            assert health.fault.model_only == (fault is Fault.LIMIT_OPUS)
            if fault is Fault.LIMIT_5H:
                client.await_screen("Usage limit reached · continuing automatically at")
            else:
                home.await_status(client.pid, "waiting")
            # An Escape that is followed by a letter too soon would be Alt and that letter.
            client.press("Escape")
            if fault is Fault.LIMIT_5H:
                client.await_screen("Automatic continue cancelled")
            home.await_status(client.pid, "idle")
            assert one.look()[0].state is State.LIMITED, "also when its menu is away"
    mock.fail(Fault.HANG, home.key)
    client.prompt("are you there")
    wait_for("it has asked", lambda: mock.asked(home.key)[-1].fault is Fault.HANG)
    health, _ = one.await_state(State.WORKING)
    assert health.fault is None
