"""What the verbs about assignments take and refuse, what they say, and how `--wait` waits."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circus.exc import ArgumentError, CallError

from circus_failover import assignment_text, completion, ctl, heartbeat_file, screen
from circus_failover.failure import REFUSED, UNREACHABLE, Failed
from circus_failover.records import AssignmentRow
from circus_failover.self_requests import SelfRequests
from circus_failover.verb_progress import assignment_progress
from circus_failover.verbs import about_self, explained_work, work_verbs
from circus_failover.verbs.fleet import Fleet
from circus_failover.verbs.work_changes import Cancel, Reassign, Release
from circus_failover.verbs.work_messages import line
from circus_failover.verbs.work_verbs import Assign, Work

BARE: dict[str, Any] = {"pool": None, "id": None, "task": None, "task-file": None, "topic": "", "wait": False}
LISTED: dict[str, Any] = {"pool": None, "agent": None, "state": None, "all": False, "limit": "1000"}
ESCAPE = "\x1b]0;x\x07"


def item(state: str = "queued", **more: Any) -> dict[str, Any]:
    """Return an assignment as circusd gives it."""
    times = dict.fromkeys(("dispatched_at", "delivered_at", "working_at", "done_at"))
    return {
        "id": "j1",
        "state": state,
        "owner": None,
        "wanted": None,
        "pool": "crew",
        "note": None,
        "position": None,
        "queued_at": 1.0,
        "retries": 0,
        "who": "ann",
        "begins": "do it",
        **times,
        "interrupted": None,
        "waits_for": None,
        **more,
    }


# -- what comes in -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "given", "said"),
    [
        ((), {"task": "x"}, "one agent or --pool"),
        (("bob", "eve"), {"task": "x"}, "one agent or --pool"),
        (("bob",), {"pool": "crew", "task": "x"}, "one agent or --pool"),
        (("bob",), {}, "--task or --task-file"),
        (("bob",), {"task": " "}, "empty"),
        (("bob",), {"task": ESCAPE}, "control character"),
        (("bob",), {"task": "x", "task-file": "f"}, "exclude each other"),
        (("bob",), {"task-file": "/nonexistent"}, "/nonexistent"),
        (("bob",), {"task": "x", "topic": "a\nb"}, "--topic"),
        (("bob",), {"task": "x", "id": ""}, "1 to 100"),
        (("bob",), {"task": "x", "id": "-x"}, "1 to 100"),
        (("bob",), {"task": "x", "id": "a" * 101}, "1 to 100"),
        (("bob",), {"task": "x", "id": "../x"}, "1 to 100"),
        (("bob",), {"task": "x", "id": ESCAPE}, "1 to 100"),
    ],
)
def test_an_assignment_that_cannot_be_given_is_refused_in_one_line(
    args: tuple[str, ...], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArgumentError) as error:
        Assign().message(*args, **{**BARE, **given})
    assert said in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize("name", ["a", "0", "job-1", "PROJ-12", "a.b_c:d-e", "a" * 100])
def test_an_id_that_others_have_made_can_be_used(name: str) -> None:
    message = Assign().message("bob", **{**BARE, "task": "x\n", "id": name, "wait": True})
    assert message["properties"] == {"name": "bob", "task": "x", "id": name, "wait": True}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (lambda: Work().message(**{**LISTED, "state": "queud"}), "did you mean 'queued'"),
        (lambda: Work().message("/", **LISTED), "1 to 100"),
        (lambda: Work().message(**{**LISTED, "limit": "0"}), "--limit '0'"),
        (lambda: Work().message(**{**LISTED, "limit": "9" * 5000}), "--limit"),
        (lambda: Work().message(**{**LISTED, "limit": "²"}), "--limit"),
        (lambda: Release().message(), "release takes the ids"),
        (lambda: Cancel().message("a b"), "1 to 100"),
        (lambda: Reassign().message(pool=None), "reassign takes the id"),
        (lambda: Reassign().message("j1", pool=None), "one agent or --pool"),
        (lambda: Reassign().message("j1", "bob", pool="crew"), "one agent or --pool"),
        (lambda: Reassign().message("j1", "bob", "eve", pool=None), "one agent or --pool"),
    ],
)
def test_what_a_verb_cannot_take_is_refused_in_one_line(message: Callable[[], Any], said: str) -> None:
    with pytest.raises(ArgumentError) as error:
        message()
    assert said in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("args", "note", "said"),
    [
        ((), None, "takes one of"),
        (("don",), None, "did you mean 'done'"),
        (("park", "j1"), None, "for done and failed"),
        (("beat",), "x", "for done and failed"),
        (("done", "j1", "j2"), None, "one assignment"),
        (("done", ESCAPE), None, "1 to 100"),
        (("failed",), ESCAPE, "U+001B"),
        (("failed",), "x" * 1001, "at most 1000"),
    ],
)
def test_an_agent_is_told_what_it_can_say_of_itself(
    args: tuple[str, ...], note: str | None, said: str
) -> None:
    with pytest.raises(ArgumentError) as error:
        about_self.Self().run({}, *args, note=note)
    assert said in str(error.value) and str(error.value).isprintable()


def test_a_note_is_one_line_however_it_was_written() -> None:
    assert assignment_text.note_of(" all\r\n\tright \n") == "all right"
    assert assignment_text.note_of(" \n") is None and assignment_text.note_of(None) is None
    for bad in (1, ["x"], "a\x00b", "a\u2028b", "\ud800"):
        with pytest.raises(ValueError, match="the note"):
            assignment_text.note_of(bad)


# -- what is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (item(position=3), "j1: queued for pool crew (position 3)"),
        (item(position=1, wanted="bob", pool=None, waits_for="it is down"), ": it is down"),
        (item(owner="bob"), "j1: queued for bob, which has yet to take it"),
        (item("delivered", owner="bob"), "j1: delivered to bob"),
        (item("working", owner="bob"), "j1: working in bob"),
        (item("done", owner="bob", note="all right"), "j1: done by bob: all right"),
        (item("failed", owner="bob", note="no disk"), "j1: failed in bob: no disk"),
        (item("orphaned", note="bob died\x1b[2J"), "j1: orphaned: bob died\\x1b[2J"),
        (item("cancelled", note="cancelled by ann", owner="bob"), "j1: cancelled by ann (bob had it)"),
    ],
)
def test_an_assignment_is_said_with_who_has_it_and_why(found: dict[str, Any], said: str) -> None:
    assert line(found).endswith(said)
    assert line(found, already=True).startswith("j1: already there, ")


def test_the_list_counts_what_it_lists_and_says_what_it_leaves_out() -> None:
    items = [item(position=1, waits_for="none is free"), item("working", id="j2", owner="b", note="x" * 200)]
    counts = {"queued": 4, "working": 1}
    text = Work().console_msg({"status": "ok", "assignments": items, "counts": counts, "more": 3})
    heading, _, first, second, *_, last = text.splitlines()
    assert heading.split() == ["ID", "STATE", "FOR", "OWNER", "AGE", "RETRIES", "BY", "NOTE", "BEGINS"]
    assert "pool crew" in first and "none is free" in first and second.endswith("do it")
    assert last == "queued 4, working 1 (3 more are not shown: --limit)"
    assert Work().console_msg({"status": "ok", "assignments": [], "counts": {}}) == "no assignment"


def test_what_an_old_owner_may_go_on_with_is_said_with_what_to_do() -> None:
    advice = "bob was told j1, and its process may go on with it"
    answer = {
        "status": "ok",
        "assignments": [{**item(position=1), "advice": advice}, {**item(), "advice": None}],
    }
    assert Release().console_msg(answer).splitlines()[1] == advice
    assert len(Release().console_msg(answer).splitlines()) == 3


def test_the_fleet_has_a_column_for_work_only_where_there_is_some() -> None:
    from circus_failover.agent import Agent
    from circus_failover.records import AgentRow

    view = {**Agent(watcher=None, identity="x", row=AgentRow("x")).view(None), "since": None}
    without = Fleet().console_msg({"status": "ok", "agents": [view]})
    assert "WORK" not in without
    busy = {**view, "identity": "y", "assignment": "j" * 100, "assignment_state": "working"}
    text = Fleet().console_msg({"status": "ok", "agents": [view, busy]})
    assert text.splitlines()[0].split()[-2:] == ["WORK", "REASON"]
    assert f"  {'j' * (screen.ASSIGNMENT_WIDTH - 1)}…" in text


def test_explain_says_what_an_agent_has_and_what_waits_for_it() -> None:
    has = item("working", owner="bob", working_at=2.0, retries=1, interrupted="parked")
    work = {"assignment": has, "work_retries": 3, "waiting": [item(waits_for="all busy")], "waiting_count": 9}
    ((name, fact),) = explained_work.facts(work)
    assert name == "assignment" and fact.startswith("j1 (working for ")
    for words in ("by ann to pool crew", "died with it: 1 of 3", "interrupted: parked", "): do it"):
        assert words in fact
    first, last = explained_work.lines({"work": work, "tasks": [], "agent": {"identity": "bob"}})
    assert first.startswith("assignment j1: for pool crew, ") and "(all busy): do it" in first
    assert last == "and 8 more assignments: failoverctl work"


def test_while_it_is_waited_for_state_owner_and_seconds_are_shown() -> None:
    assert assignment_progress(item(position=2), 1.2, lost=False) == "j1: queued (position 2), 1 s"
    shown = assignment_progress(item("working", owner="bob"), 61, lost=True)
    assert shown == "j1: working in bob, 61 s; circusd does not answer"


# -- waiting -------------------------------------------------------------------------------------------


class Circusd:
    """Answers one request after another with what it was given; an exception is raised."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers: Iterator[dict[str, Any] | Exception] = iter(answers)
        self.warned: list[str] = []
        self.shown: list[str] = []

    def __call__(self, message: dict[str, Any]) -> dict[str, Any]:
        assert message == {"command": "work", "properties": {"ids": ["j1"]}}
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, first: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """Wait as `assign --wait` does, but for the time, and return the verdict."""
        answer = {"status": "ok", "assignment": first, "already": False}
        verb = Assign()
        last = verb.follow(self, answer, seconds, self.shown.append, self.warned.append, lambda secs: None)
        return verb.verdict(last)


def ok(found: dict[str, Any]) -> dict[str, Any]:
    return {"status": "ok", "assignments": [found]}


def test_who_waits_is_told_when_it_is_done_and_meanwhile_how_far_it_is() -> None:
    circusd = Circusd(ok(item("working", owner="bob")), ok(item("done", owner="bob")))
    verdict = circusd.wait(item(position=1))
    assert verdict["status"] == "ok" and verdict["assignment"]["state"] == "done"
    assert [text.partition(",")[0] for text in circusd.shown] == [
        "j1: queued (position 1)",
        "j1: working in bob",
    ]
    assert circusd.warned == []


@pytest.mark.parametrize("state", ["failed", "orphaned", "cancelled"])
def test_whatever_else_it_comes_to_is_a_failure_with_its_note(state: str) -> None:
    verdict = Circusd(ok(item(state, note="because"))).wait(item())
    assert verdict["status"] == "error" and "because" in verdict["reason"]
    assert Circusd().wait(item(state, note="because"))["status"] == "error", "it was so from the beginning"


def test_a_circusd_that_is_gone_is_asked_again_and_that_is_said_once() -> None:
    silent, broken = CallError("timed out"), {"status": "error", "reason": "no store"}
    circusd = Circusd(silent, silent, broken, ok(item()), ok(item("done")))
    assert circusd.wait(item())["status"] == "ok"
    assert len(circusd.warned) == 2
    assert "does not answer (timed out)" in circusd.warned[0] and "answers again" in circusd.warned[1]
    assert "circusd does not answer" in circusd.shown[1]


def test_only_a_timeout_that_was_given_ends_the_waiting_and_says_where_it_is() -> None:
    with pytest.raises(Failed) as error:
        Circusd().wait(item("working", owner="bob"), 0)
    assert error.value.code == UNREACHABLE and "working in bob" in str(error.value)
    commands = {"assign": Assign()}
    assert ctl.parse_arguments(["assign", "bob", "--task", "x", "--wait"], commands)["bound"] is None
    assert ctl.parse_arguments(["--timeout", "9", "assign", "bob"], commands)["bound"] == 9


def test_an_assignment_that_is_forgotten_is_not_waited_for() -> None:
    gone = {"status": "error", "reason": "no assignment j1", "unknown": ["j1"]}
    with pytest.raises(Failed) as error:
        Circusd(gone).wait(item())
    assert error.value.code == REFUSED


# -- what agents report --------------------------------------------------------------------------------


class Known:
    """One agent's assignments, as `Assignments` would give them, and what was reported of them."""

    def __init__(self, has: AssignmentRow | None, *over: AssignmentRow) -> None:
        self._has, self._over = has, over
        self.reported: list[tuple[Any, ...]] = []
        row = SimpleNamespace(generation=2, launch="L", launched_at=10.0)
        self._agent: Any = SimpleNamespace(identity="bob", row=row)
        store = SimpleNamespace(assignments=lambda over_since, owner: [one for one in (has, *over) if one])
        supervisor: Any = SimpleNamespace(assignments=self, store=store)
        self._requests = SelfRequests(supervisor)

    def of(self, agent: Any) -> AssignmentRow | None:
        return self._has

    def get(self, name: str) -> AssignmentRow | None:
        return next((one for one in (self._has, *self._over) if one is not None and one.id == name), None)

    def report(self, agent: Any, what: str, name: str | None, note: str | None, at: Any = None) -> str | None:
        self.reported.append((what, name, note))
        return None if self._has and self._has.delivered_at else "it has not been told of it yet"

    def say(self, what: str, name: str | None = None, at: float = 50.0, launch: str = "L") -> Any:
        said = {"assignment": name, "note": "n", "at": at}
        return self._requests.report(self._agent, what, 2, launch, said)


def row(name: str, state: str, **more: Any) -> AssignmentRow:
    return AssignmentRow(1, name, "text", "ann", 20.0, owner="bob", state=state, generation=2, **more)


def test_a_report_without_an_id_is_about_what_the_agent_has() -> None:
    known = Known(
        row("new", "working", dispatched_at=30.0, delivered_at=31.0), row("old", "done", done_at=25.0)
    )
    assert known.say("done").why_not is None and known.reported == [("done", None, "n")]


def test_a_report_from_before_it_was_given_anything_new_is_about_the_last_one_again() -> None:
    old = row("old", "done", done_at=25.0)
    known = Known(row("new", "delivered", dispatched_at=30.0, delivered_at=31.0), old)
    told = known.say("done", at=26.0)
    assert (told.row, told.already, known.reported) == (old, True, [])
    told = Known(row("new", "queued", dispatched_at=30.0), old).say("done", at=32.0)
    assert (told.row, told.already) == (old, True)


def test_without_an_assignment_there_is_nothing_to_report() -> None:
    assert Known(None).say("done").why_not == "it has no assignment"
    assert Known(None, row("old", "failed", done_at=25.0)).say("done").why_not == "it has no assignment"
    assert Known(None).say("done", "nope").why_not == "there is no assignment nope"


def test_the_same_report_again_changes_nothing_and_that_of_an_older_launch_is_refused() -> None:
    known = Known(None, row("old", "done", done_at=25.0))
    assert known.say("done", "old").already and known.say("done").already and known.reported == []
    assert "older launch" in str(known.say("done", "old", launch="K").why_not)


@pytest.mark.parametrize("said", [{"assignment": 1}, {"assignment": "../x"}, {"note": "\x00"}, {"at": "now"}])
def test_a_report_that_makes_no_sense_is_refused(said: dict[str, Any]) -> None:
    known = Known(None)
    with pytest.raises(ValueError, match="the id|the note|at "):
        known._requests.report(known._agent, "done", 2, "L", said)


# -- the heartbeat -------------------------------------------------------------------------------------


def test_a_beat_touches_the_file_and_makes_its_folder_for_this_user_only(tmp_path: Path) -> None:
    beat = tmp_path / "beats" / "bob"
    environment = {"FAILOVER_HEARTBEAT": str(beat), "FAILOVER_STATE_DIR": str(tmp_path)}
    heartbeat_file.touch(environment)
    assert stat.S_IMODE(beat.parent.stat().st_mode) == 0o700 and stat.S_IMODE(beat.stat().st_mode) == 0o600
    os.utime(beat, (1, 1))
    heartbeat_file.touch(environment)
    assert beat.stat().st_mtime > 1


def test_a_heartbeat_that_cannot_be_touched_is_said_and_waits_for_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in ("", "beat", str(tmp_path), str(tmp_path / "fifo"), "/nonexistent/x/y", f"{tmp_path}/a\0b"):
        with pytest.raises(heartbeat_file.NoHeartbeat) as error:
            heartbeat_file.touch({"FAILOVER_HEARTBEAT": path, "FAILOVER_STATE_DIR": str(tmp_path)})
        assert str(error.value).isprintable()


def test_a_beat_imports_next_to_nothing(tmp_path: Path) -> None:
    """An agent may do it every few seconds, for months."""
    code = (
        "import sys; bare = set(sys.modules); sys.argv[1:] = ['self', 'beat']\n"
        "from circus_failover.failoverctl import main\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0, end\n"
        "print(*sorted(set(sys.modules) - bare))"
    )
    environment = {"PATH": os.environ["PATH"], "FAILOVER_HEARTBEAT": str(tmp_path / "beat")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    ours = [name for name in done.stdout.split() if name.startswith("circus")]
    assert ours == ["circus_failover", "circus_failover.failoverctl", "circus_failover.heartbeat_file"]
    assert (tmp_path / "beat").exists() and len(done.stdout.split()) < 8, done.stdout


# -- completion ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("work", ["assignments", "--state"]),
        ("--json cancel", ["assignments"]),
        ("reassign j1", ["assignments", "names"]),
        ("assign --pool", ["pools"]),
        ("assign --id x", ["names", "--task-file"]),
        ("work --agent", ["names"]),
        ("work --state", ["queued", "orphaned"]),
        ("self", ["done", "beat"]),
        ("explain", ["names"]),
    ],
)
def test_bash_completes_what_the_place_asks_for(tmp_path: Path, words: str, found: list[str]) -> None:
    """failoverctl is one that only repeats what it is asked for."""
    verbs = {"work": Work(), "assign": Assign(), "cancel": Cancel(), "self": about_self.Self()}
    (tmp_path / "failoverctl").write_text('#!/bin/sh\necho "$2"\n')
    (tmp_path / "failoverctl").chmod(0o755)
    text = f"{completion.script('bash', verbs)}\n_failoverctl_words {words}\n"
    done = subprocess.run(
        ["bash", "--norc", "-c", text],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    printed = done.stdout.split()
    assert set(found) <= set(printed)
    assert set(printed) & set(completion.ASKED) == set(found) & set(completion.ASKED)


def test_an_agent_in_no_pool_gives_the_pools_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = [{"identity": "bob", "pool": None}, {"identity": "eve", "pool": "crew"}]
    monkeypatch.setattr(completion, "_asked", lambda endpoint, verb, key: agents)
    assert completion.pools(None) == ["crew"] and completion.names(None) == ["bob", "eve"]


def test_every_state_can_be_asked_for() -> None:
    for state in work_verbs.STATES:
        Work().message(**{**LISTED, "state": state})
        assert screen.assignment_state(state).style, f"{state} has a colour"
