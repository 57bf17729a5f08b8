"""A boot of a client that can be told about: proven, its dialogs answered as settings say, or explained."""

from __future__ import annotations

import json
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table
from tests.clients.accounts import CLAUDE_SHARED, make_claude_home
from tests.live.fleet import Fleet, alive, wait_for
from tests.live.terminal import Open, Terminal
from tests.proc import command_line

PROGRAM = str(Path(__file__).with_name("dialog_client.py"))
CLIENT = (sys.executable, "-I", "-S", PROGRAM)
ANSWERS = {"trust": "accept", "bypass": "accept", "api-key": "accept"}
ALL = " ".join(f"{name}={answer}" for name, answer in ANSWERS.items())


class Asking:
    """The home of one client, and what it is going to ask."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder = folder
        home = make_claude_home(folder, folder.name, "http://127.0.0.1:9", [work])
        home.link(folder.parent / "shared", CLAUDE_SHARED)

    def asks(self, *steps: str) -> None:
        """Let the next client that starts ask this, see `dialog_client`."""
        (self.folder / "asks.json").write_text(json.dumps(steps))
        for name in ("keys.log", "heard", "go"):
            (self.folder / name).unlink(missing_ok=True)

    def touch(self, name: str) -> None:
        """Let a client go on that waits for a file."""
        (self.folder / name).touch()

    @property
    def keys(self) -> list[str]:
        """Which keys it took, each with the dialog that was open."""
        path = self.folder / "keys.log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def ready(self) -> bool:
        """Whether a client says in a file what it does."""
        return any(self.folder.glob("sessions/*.json"))


@pytest.fixture
def asking(fleet: Fleet) -> Asking:
    """The home of an account of the fleet, whose agents run the stand-in."""
    made = Asking(fleet.folder / "homes" / "one", fleet.work)
    fleet.settings["shared"] = {"root": "homes/shared"}
    fleet.settings["accounts"] = [{"name": "one", "runtime": "claude", "home": str(made.folder)}]
    return made


def agent(fleet: Fleet, name: str = "bob", **options: str) -> None:
    """Add an agent whose client is the stand-in."""
    given = {"failover__dialogs": ALL, "failover__boot_secs": "60", "autostart": "False", **options}
    fleet.agent(
        name,
        failover__runtime="claude",
        failover__account="one",
        failover__command=" ".join(CLIENT),
        **given,
    )


def of(fleet: Fleet, ev: str) -> list[dict[str, str]]:
    return [line for line in fleet.lifecycle() if line["ev"] == ev]


def wake(fleet: Fleet, *names: str) -> None:
    """Ask for wakes, and do not wait for what becomes of them."""
    fleet.call_all(*({"command": "wake", "name": name} for name in names), timeout=0)


def test_a_client_that_asks_for_a_login_is_down_with_that_cause_and_is_not_held(
    fleet: Fleet, asking: Asking
) -> None:
    asking.asks("login")
    agent(fleet, failover__crash_max="1")
    fleet.start()
    wake(fleet, "bob")
    wait_for("it is known why it failed", lambda: fleet.view("bob")["cause"] == "credentials")
    view = fleet.view("bob")
    assert view["phase"] == "down" and "log in with /login" in view["reason"]
    launch = fleet.launches("bob")[0]
    assert (launch.end_cause, launch.planned, launch.up_at) == ("credentials", False, None)
    assert [line["cause"] for line in of(fleet, "wake") if line["mode"] == "failed"] == ["credentials"]
    (account,) = fleet.call("accounts")["accounts"]
    assert (account["state"], account["seen_by"]) == ("credentials", "bob")
    assert asking.keys == []


def test_a_client_is_up_when_it_says_so_itself_and_its_screen_shows_what_it_must(
    fleet: Fleet, asking: Asking
) -> None:
    asking.asks("gone:go")
    agent(fleet, failover__ready_match="bypass permissions on")
    fleet.start()
    wake(fleet, "bob")
    wait_for("a pid", lambda: fleet.view("bob")["pid"])
    fleet.await_ticks()
    assert fleet.view("bob")["phase"] == "starting"
    asking.touch("go")
    view = fleet.await_phase("bob", "up")
    launch = fleet.launches("bob")[0]
    (up,) = of(fleet, "up")
    assert up["evidence"].startswith("status-file: idle") and up["evidence"].endswith("failover.ready_match")
    assert up["conversation"] == launch.conversation == view["conversation"]
    assert "answered" not in up and asking.keys == []
    assert not [path for path in (fleet.state / "run").iterdir() if path.name.startswith("bob.")]


def test_dialogs_are_answered_as_the_setting_says_and_each_gets_its_own_keys_alone(
    fleet: Fleet, asking: Asking
) -> None:
    asking.asks("trust", "bypass", "api-key")
    agent(fleet)
    fleet.start()
    assert fleet.ctl("wake", "bob").code == 0
    assert asking.keys == [
        "trust Down",
        "trust Enter",
        "bypass Down",
        "bypass Enter",
        "api-key Up",
        "api-key Enter",
    ]
    assert of(fleet, "up")[0]["answered"] == ALL


def test_a_dialog_that_no_setting_answers_fails_the_boot_untouched_and_keeps_the_park(
    fleet: Fleet, asking: Asking
) -> None:
    asking.asks()
    agent(fleet, failover__dialogs="bypass=accept")
    fleet.start()
    assert fleet.ctl("wake", "bob").code == 0
    first = fleet.launches("bob")[0]
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    asking.asks("bypass", "trust")
    done = fleet.ctl("wake", "bob", "--resume")
    reason = (
        "claude asks whether the working directory is trusted (dialog trust): "
        "set failover.dialogs = trust=accept, or start `claude` once by hand"
    )
    assert done.code == 3 and reason in " ".join(done.err.split()), done
    assert asking.keys == ["bypass Down", "bypass Enter"], "nobody has pressed a key at the other one"
    view = fleet.view("bob")
    assert (view["phase"], view["cause"], view["parked_by"]) == ("down", "launch-failed", "park")
    assert reason in view["reason"] and reason in fleet.ctl("explain", "bob").out.replace("\n", "")
    assert reason in fleet.ctl("--json", "history", "bob").out
    assert not asking.ready and not [one for one in fleet.processes() if is_client(one.pid)]
    asking.asks()
    assert fleet.ctl("wake", "bob").code == 0
    again = fleet.launches("bob")[0]
    assert (again.mode, again.conversation) == ("resume", first.conversation)


def is_client(pid: int) -> bool:
    return PROGRAM.encode() in command_line(pid)


def test_a_dialog_that_nobody_knows_is_shown_when_the_time_is_over(fleet: Fleet, asking: Asking) -> None:
    asking.asks("news")
    agent(fleet, failover__boot_secs="3")
    fleet.start()
    done = fleet.ctl("wake", "bob")
    assert done.code == 3 and "not ready within 3 s" in done.err, done
    said = "Something new wants to be agreed to for [key] / ❯ Leave / Agree"
    assert said in done.err and said in fleet.view("bob")["reason"]
    assert "Marker" not in (fleet.state / "lifecycle.log").read_text(), "what may be a key goes no further"
    assert asking.keys == []


def test_whoever_dies_in_the_middle_of_a_boot_it_goes_on_and_no_dialog_is_answered_twice(
    fleet: Fleet, asking: Asking
) -> None:
    asking.asks("trust", "gone:one", "bypass", "gone:two")
    agent(fleet)
    fleet.start()
    wake(fleet, "bob")
    wait_for("the first dialog is answered", lambda: len(asking.keys) == 2)
    pid = fleet.view("bob")["pid"]
    fleet.end(signal.SIGKILL)
    asking.touch("one")
    fleet.start()
    wait_for("the second dialog is answered", lambda: len(asking.keys) == 4)
    # That of the first circusd, and perhaps one of the second that is just being turned away.
    for one in fleet.processes():
        if watches(one.pid):
            process_table.send(one, signal.SIGKILL)
    asking.touch("two")
    view = fleet.await_phase("bob", "up")
    assert (view["pid"], view["generation"]) == (pid, 1)
    assert asking.keys == ["trust Down", "trust Enter", "bypass Down", "bypass Enter"]


def watches(pid: int) -> bool:
    return b"circus_failover.worker" in command_line(pid)


# -- the worker alone ----------------------------------------------------------------------------------


class Booting:
    """A client that boots, and the order to watch it."""

    def __init__(self, terminal: Open, folder: Path, *steps: str) -> None:
        self.home = Asking(folder / "one", folder)
        self.home.asks(*steps)
        self.conversation = str(uuid.uuid4())
        before = time.time()
        command = ("env", f"CLAUDE_CONFIG_DIR={self.home.folder}", *CLIENT, "--session-id", self.conversation)
        self.terminal: Terminal = terminal(*command)
        self._order: dict[str, Any] = {
            "kind": "boot",
            "match": None,
            "lock": None,
            "runtime": "claude",
            "home": str(self.home.folder),
            "working_dir": str(folder),
            "conversation": self.conversation,
            "launched_at": before,
            "dialogs": ANSWERS,
            "journal": str(folder / "answers"),
        }
        self.watch_for(30.0)

    def watch_for(self, secs: float) -> None:
        """Write the order: the boot may take so long from when a worker begins."""
        self.order = self.terminal.order("boot.json", **self._order, secs=secs)

    def report(self) -> dict[str, Any]:
        """Run a worker to its end, and return its only report."""
        return self.terminal.report(self.order)

    def dies_at(self, point: str) -> None:
        """Run a worker that is killed at a crash point."""
        assert self.terminal.run(self.order, crash_at=point) == -signal.SIGKILL
        assert self.terminal.reports() == []


@pytest.mark.parametrize("point", ["boot-before-answer", "boot-after-answer"])
def test_a_watch_that_dies_while_it_answers_is_taken_over_and_the_next_dialog_gets_no_key_of_this_one(
    terminal: Open, folder: Path, point: str
) -> None:
    boot = Booting(terminal, folder, "slow:trust", "bypass")
    boot.dies_at(point)
    # Another one looks for a while, and sees the same screen; only then the client reads its keys.
    boot.watch_for(1.0)
    assert boot.report()["outcome"] == "timeout"
    boot.home.touch("go")
    boot.watch_for(30.0)
    report = boot.report()
    assert (report["outcome"], report["conversation"]) == ("ready", boot.conversation)
    assert boot.home.keys == ["trust Down", "trust Enter", "bypass Down", "bypass Enter"]


def test_what_a_client_has_yet_to_read_is_not_pressed_again_and_what_it_lost_is(
    terminal: Open, folder: Path
) -> None:
    boot = Booting(terminal, folder, "deaf:trust")
    worker = boot.terminal.start(boot.order)
    wait_for("keys are pressed", (folder / "answers").exists)
    boot.home.touch("heard")
    assert worker.wait(60) == 0
    assert boot.home.keys == ["trust Down", "trust Enter"]
    assert alive(boot.terminal.agent.pid)
