"""The watch of a boot: it says when the screen shows what it must, and ends whatever the pattern is."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table
from circus_failover.agents import RUNTIMES
from circus_failover.agents.command import CommandRuntime
from circus_failover.agents.runtime import Boot, Dialog, Place
from circus_failover.boot_work import Order
from circus_failover.words import BootStage
from tests.live.fleet import alive, wait_for
from tests.live.terminal import STANDIN, Open, Terminal, shell


def boot(opened: Terminal, match: str | None, **changes: Any) -> Path:
    wanted: dict[str, Any] = {"kind": "boot", "match": match, "secs": 30.0, "lock": None}
    return opened.order("boot.json", **{**wanted, **changes})


def outcome(opened: Terminal, order: Path) -> str:
    report = opened.report(order)
    assert isinstance(report.pop("at"), float)
    found: str = report.pop("outcome")
    assert (report["kind"], report["identity"], report["generation"]) == ("ready", "bob", 3)
    return found


def test_a_boot_is_ready_when_the_screen_shows_the_pattern_and_not_before(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "1")
    order = boot(opened, r"^standin ready .* [0-9a-f-]{36}$")
    worker = opened.start(order)
    while not (found := list(opened.spool.glob("*.json"))):
        assert worker.poll() is None or list(opened.spool.glob("*.json"))
    assert "standin ready" in opened.screen()
    assert json.loads(found[0].read_bytes())["outcome"] == "ready"
    assert worker.wait(10) == 0


def test_a_pattern_is_searched_for_line_by_line(terminal: Open) -> None:
    opened = terminal(*shell("echo one; echo two; echo three; exec sleep 600"))
    assert outcome(opened, boot(opened, "^two$")) == "ready"
    assert outcome(opened, boot(opened, "^wo$", secs=0.3)) == "timeout"


def test_a_screen_that_never_shows_it_is_watched_until_the_time_is_over(terminal: Open) -> None:
    opened = terminal(*STANDIN)
    assert outcome(opened, boot(opened, "never", secs=0.3)) == "timeout"


def test_an_agent_that_ends_meanwhile_is_gone(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "600")
    worker = opened.start(boot(opened, "ready", lock=str(opened.lock)))
    wait_for("the watch", opened.lock.exists)
    os.kill(opened.agent.pid, signal.SIGKILL)
    assert worker.wait(20) == 0
    assert [report["outcome"] for report in opened.reports()] == ["gone"]


def test_the_last_screen_of_an_agent_that_is_gone_proves_nothing(terminal: Open) -> None:
    opened = terminal(*shell("echo ready; read x; exit 1"))
    opened.await_screen("ready")
    opened.press("Enter")
    wait_for("its end", lambda: not alive(opened.agent.pid))
    assert outcome(opened, boot(opened, "ready")) == "gone"


def test_another_process_in_the_pane_proves_nothing(terminal: Open) -> None:
    opened = terminal(*shell("echo ready; exec sleep 600"))
    opened.await_screen("ready")
    me = process_table.identify(os.getpid())
    assert me is not None
    assert outcome(opened, boot(opened, "ready", agent=[me.pid, me.start], secs=0.3)) == "timeout"


def test_a_pattern_that_backtracks_for_ever_ends_with_its_time(terminal: Open) -> None:
    opened = terminal(*shell("echo " + "a" * 60 + "b; exec sleep 600"))
    opened.await_screen("aab")
    assert outcome(opened, boot(opened, "(a+)+$", secs=1.0)) == "timeout"


def test_a_pattern_that_backtracks_on_an_early_screen_still_matches_a_later_one(terminal: Open) -> None:
    script = f"echo {'a' * 60}b; read x; printf '\\033[H\\033[2J\\033[3Jready\\n'; exec sleep 600"
    opened = terminal(*shell(script))
    opened.await_screen("aab")
    worker = opened.start(boot(opened, "ready|(a+)+$", lock=str(opened.lock)))
    wait_for("the watch", opened.lock.exists)
    opened.press("Enter")
    assert worker.wait(40) == 0
    assert [report["outcome"] for report in opened.reports()] == ["ready"]


def test_a_server_that_does_not_answer_proves_nothing(terminal: Open) -> None:
    opened = terminal(*STANDIN)
    opened.await_screen("standin ready")
    os.kill(opened.server.pid, signal.SIGSTOP)
    try:
        assert outcome(opened, boot(opened, "standin ready", secs=0.3)) == "timeout"
        worker = opened.start(boot(opened, "standin ready", lock=str(opened.lock)))
        wait_for("the watch", opened.lock.exists)
    finally:
        os.kill(opened.server.pid, signal.SIGCONT)
    assert worker.wait(20) == 0
    assert [report["outcome"] for report in opened.reports()] == ["ready"]


def test_one_boot_is_watched_by_one_worker_and_not_kept_from_it_by_the_agents_lock(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "600")
    order = boot(opened, "ready", lock=str(opened.folder / "boot.bob"))
    first = opened.start(order)
    wait_for("the watch", (opened.folder / "boot.bob").exists)
    wait_for("a second is turned away", lambda: opened.run(order) == 75)
    assert not opened.lock.exists()
    os.kill(opened.agent.pid, signal.SIGKILL)
    assert first.wait(20) == 0
    assert [report["outcome"] for report in opened.reports()] == ["gone"]


def test_a_watch_that_dies_is_started_again(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "0.5")
    order = boot(opened, "ready")
    assert opened.run(order, crash_at="worker-before-report") == -signal.SIGKILL
    assert opened.reports() == []
    assert outcome(opened, order) == "ready"


def test_watching_types_nothing(terminal: Open) -> None:
    opened = terminal(*STANDIN)
    opened.await_screen("standin ready")
    before = opened.screen()
    assert outcome(opened, boot(opened, "never", secs=0.5)) == "timeout"
    assert opened.screen() == before and opened.prompts() == []


# -- what a runtime says -------------------------------------------------------------------------------


class Told(CommandRuntime):
    """A runtime that says one thing after the other, and the last one for ever; it notes what it is asked."""

    name = "told"
    tells = True
    dialogs = (Dialog("trust", "whether it is trusted", {"accept": ("y",)}),)

    def __init__(self, *says: Boot | Exception, looks: bool = False) -> None:
        self.says, self.looks = list(says), looks
        self.places: list[Place] = []

    def boot(self, place: Place) -> Boot:
        self.places.append(place)
        if self.looks:
            # As often as it likes: it is one screen.
            assert place.screen() is place.screen()
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said


WAIT, READY = Boot(BootStage.WAIT), Boot(BootStage.READY, "status-file: idle", conversation="c")
FAILED = Boot(BootStage.FAILED, "no conversation found")
ASKS = Boot(BootStage.DIALOG, "screen", "trust")


@pytest.fixture
def watched(terminal: Open, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Watches a program of whose boot a runtime says what a test wants; returns the report."""

    def watch(told: Told, script: str = "exec sleep 600", **changes: Any) -> dict[str, Any]:
        monkeypatch.setitem(RUNTIMES, "told", told)
        opened = terminal(*shell(script))
        if "shown" in script:
            opened.await_screen("shown")
        order = boot(opened, **{"match": None, "runtime": "told", **changes})
        return Order.load(json.loads(order.read_bytes())).carry_out()

    return watch


def test_a_client_is_ready_when_its_runtime_says_so_and_the_report_says_what_proves_it(
    watched: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    events = tmp_path / "events"
    events.write_text('{"SessionStart": {"at": 5.0}, "Stop": null}')
    told = Told(WAIT, ValueError("a file that is half written"), READY)
    report = watched(told, home="/h", working_dir="/w", conversation="c", launched_at=4.0, events=str(events))
    assert (report["outcome"], report["evidence"]) == ("ready", "status-file: idle")
    assert (report["conversation"], report["answered"]) == ("c", "")
    place = told.places[0]
    assert (place.home, place.working_dir) == (Path("/h"), Path("/w"))
    assert (place.conversation, place.launched_at) == ("c", 4.0)
    assert place.events == {"SessionStart": {"at": 5.0}}


def test_ready_needs_both_the_runtime_and_the_pattern(watched: Callable[..., dict[str, Any]]) -> None:
    both = watched(Told(WAIT, READY), "echo shown; exec sleep 600", match="^shown$")
    assert (both["outcome"], both["evidence"]) == (
        "ready",
        "status-file: idle; screen: failover.ready_match",
    )


@pytest.mark.parametrize(("says", "match"), [(READY, "never"), (WAIT, "shown")])
def test_one_of_both_is_not_enough(watched: Callable[..., dict[str, Any]], says: Boot, match: str) -> None:
    report = watched(Told(says), "echo shown; exec sleep 600", match=match, secs=0.5)
    assert report["outcome"] == "timeout" and report["reason"].endswith("its screen: shown")


def test_a_client_that_will_not_become_ready_is_believed_when_it_says_so_twice(
    watched: Callable[..., dict[str, Any]],
) -> None:
    assert watched(Told(FAILED, WAIT, FAILED, READY))["outcome"] == "ready"


def test_a_client_that_will_not_become_ready_fails_its_boot_with_its_own_words(
    watched: Callable[..., dict[str, Any]],
) -> None:
    report = watched(Told(WAIT, FAILED))
    assert (report["outcome"], report["reason"]) == ("hopeless", "no conversation found")


def test_a_dialog_that_shows_on_one_screen_alone_is_not_judged(
    watched: Callable[..., dict[str, Any]],
) -> None:
    told = Told(ASKS, WAIT, READY, looks=True)
    assert watched(told, dialogs={})["outcome"] == "ready"


def test_a_dialog_without_a_setting_is_judged_on_the_second_screen(
    watched: Callable[..., dict[str, Any]],
) -> None:
    report = watched(Told(WAIT, ASKS, looks=True), dialogs={})
    assert (report["outcome"], report["answered"]) == ("hopeless", "")
    assert report["reason"].endswith("(dialog trust): set failover.dialogs = trust=accept")


@pytest.mark.parametrize("other", [fcntl.LOCK_UN, fcntl.LOCK_EX], ids=["alone", "beside a typist"])
def test_keys_are_pressed_only_while_no_other_worker_is_at_the_agent(
    watched: Callable[..., dict[str, Any]], folder: Path, other: int
) -> None:
    """One writer at a time, across all processes: a watch that is late types into nobody's text."""
    script = f"stty -icanon -echo; dd bs=1 count=1 of={folder}/pressed 2>/dev/null; exec sleep 600"
    with (folder / "bob.lock").open("w") as lock:
        fcntl.flock(lock, other)
        dialogs = {"trust": "accept"}
        watched(Told(ASKS, looks=True), script, agent_lock=lock.name, dialogs=dialogs, secs=2.0)
    wanted = "y" if other == fcntl.LOCK_UN else ""
    wait_for("it reads", lambda: (folder / "pressed").read_text() == wanted)


def test_an_adapter_that_fails_is_shown_when_the_time_is_over(
    watched: Callable[..., dict[str, Any]],
) -> None:
    report = watched(Told(KeyError("status")), secs=0.3)
    assert report["outcome"] == "timeout" and "KeyError: 'status'" in report["reason"]
