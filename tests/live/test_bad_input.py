"""Whatever is wrong, one clear sentence says so, nothing is queued or lost, and circusd keeps answering."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.live import forked
from tests.live.fleet import BIN, Fleet, Result, alive, remove, wait_for

TOO_LARGE = 4 * 1024 * 1024 + 1
ESCAPE = "end\x1b[201~rm -rf ."


@pytest.fixture(scope="module")
def served() -> Iterator[Fleet]:
    """A fleet that lives through all bad input of this module: an agent that is up, one down, a watcher."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    fleet = Fleet(folder)
    fleet.resumable("bob")
    fleet.agent("eve", autostart="False")
    fleet.watcher("plain", "sleep 600")
    (folder / "folder").mkdir()
    (folder / "large").write_bytes(b"x" * TOO_LARGE)
    (folder / "empty").write_bytes(b"")
    (folder / "blank").write_bytes(b" \n\t\n")
    (folder / "latin").write_bytes(b"caf\xe9")
    (folder / "nul").write_bytes(b"a\0b")
    (folder / "escape").write_bytes(ESCAPE.encode())
    (folder / "c1").write_bytes("a\x9b201~".encode())
    try:
        fleet.start()
        fleet.await_up("bob")
        yield fleet
    finally:
        fleet.close()
        remove(folder)


def command(fleet: Fleet, *arguments: str | bytes, given: bytes = b"") -> Result:
    """Run failoverctl with arguments that need not be text."""
    if not given:
        words = tuple(os.fsdecode(argument) for argument in arguments)
        return Result(*forked.run("failoverctl", words, fleet.environment, fleet.folder))
    done = subprocess.run(
        [str(BIN / "failoverctl"), *arguments],
        env=fleet.environment,
        input=given,
        capture_output=True,
        timeout=60,
        cwd=fleet.folder,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


PYTHON = (
    *("object is not", "has no attribute", "invalid literal", "has no len", "bytes-like", "is not a valid "),
    *("KeyError", "TypeError", "ValueError", "AttributeError", "could not convert", "argument must be"),
)
"""What Python says to programmers, and no operator should read."""


def clear(text: str, *, to_a_programmer: bool = False) -> None:
    """Assert that a text is one sentence for a person, and steers no terminal."""
    assert text.strip() and "Traceback" not in text, text
    assert "\n" not in text.strip(), text
    assert text.strip().isprintable(), text
    assert len(text) < 1000, text
    for word in () if to_a_programmer else PYTHON:
        assert word not in text, text


def unharmed(fleet: Fleet) -> None:
    """Assert that nothing came of it: no task, no launch, no end, and circusd answers."""
    answer = fleet.call("fleet")
    views = {agent["identity"]: agent for agent in answer["agents"]}
    assert (views["bob"]["phase"], views["bob"]["generation"]) == ("up", 1)
    assert views["eve"]["generation"] == 0
    assert fleet.call("tasks")["tasks"] == []
    assert not answer["circusd"]["trouble"]
    assert "Traceback" not in fleet.log.read_text()


USAGE: dict[str, tuple[str | bytes, ...]] = {
    "a verb that there is not": ("wak", "bob"),
    "no names": ("wake",),
    "an option that there is not": ("wake", "bob", "--nonsense"),
    "an option of another verb": ("park", "bob", "--fresh"),
    "an abbreviated option": ("wake", "eve", "--fre"),
    "fresh and resume": ("wake", "eve", "--fresh", "--resume"),
    "task and file": ("wake", "eve", "--task", "a", "--task-file", "large"),
    "an option without its value": ("wake", "eve", "--task"),
    "a missing file": ("wake", "eve", "--task-file", "missing"),
    "a folder": ("wake", "eve", "--task-file", "folder"),
    "a file that is too large": ("wake", "eve", "--task-file", "large"),
    "an empty file": ("wake", "eve", "--task-file", "empty"),
    "a blank file": ("wake", "eve", "--task-file", "blank"),
    "a file in latin-1": ("wake", "eve", "--task-file", "latin"),
    "a file with NUL": ("wake", "eve", "--task-file", "nul"),
    "a file with an escape sequence": ("wake", "eve", "--task-file", "escape"),
    "a file with C1": ("wake", "eve", "--task-file", "c1"),
    "a name of a file with an escape sequence": ("wake", "eve", "--task-file", "\x1b[31m"),
    "an empty name of a file": ("wake", "eve", "--task-file", ""),
    "nothing on standard input": ("wake", "eve", "--task-file", "-"),
    "an empty task": ("wake", "eve", "--task", ""),
    "a blank task": ("wake", "eve", "--task", " \n "),
    "a task in latin-1": ("wake", "eve", "--task", b"caf\xe9"),
    "a task with an escape sequence": ("wake", "eve", "--task", ESCAPE),
    "a task with C1": ("wake", "eve", "--task", "a\x9b201~"),
    "a topic with a newline": ("wake", "eve", "--topic", "a\nb", "--task", "x"),
    "a topic with an escape sequence": ("wake", "eve", "--topic", "\x1b]0;x\x07"),
    "a long topic": ("wake", "eve", "--topic", "x" * 1000),
    "a topic in latin-1": ("wake", "eve", "--topic", b"caf\xe9"),
    "park without names": ("park",),
    "fresh without names": ("fresh",),
    "reset without names": ("reset",),
    "purge without names": ("purge",),
    "purge of two": ("purge", "bob", "eve"),
    "half-open without names": ("half-open",),
    "respawn without names": ("respawn",),
    "what only plugins say": ("ticked", "x"),
    "cancel for nobody": ("tasks", "--cancel", "1"),
    "cancel for two": ("tasks", "bob", "eve", "--cancel", "1"),
    "a negative number": ("tasks", "bob", "--cancel=-1"),
    "a fraction": ("tasks", "bob", "--cancel", "1.5"),
    "a hexadecimal number": ("tasks", "bob", "--cancel", "0x10"),
    "a number of 30 digits": ("tasks", "bob", "--cancel", "9" * 30),
    "an arabic digit": ("tasks", "bob", "--cancel", "\u0661"),
    "a word for a number": ("tasks", "bob", "--cancel", "every\x1b[2J"),
    "a timeout that is no number": ("--timeout", "soon", "fleet"),
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE.keys())
def test_a_command_line_that_is_wrong_is_a_usage_error(
    served: Fleet, arguments: tuple[str | bytes, ...]
) -> None:
    done = command(served, *arguments)
    assert done.code == 2, done
    clear(done.err)
    assert not done.out
    unharmed(served)


REFUSED: dict[str, tuple[str | bytes, ...]] = {
    "a name that there is not": ("wake", "nobody"),
    "the beginning of a name": ("wake", "bo"),
    "a name in capitals": ("wake", "BOB"),
    "a watcher that is no agent": ("wake", "plain", "--task", "x"),
    "an empty name": ("wake", ""),
    "a path": ("wake", "../etc/passwd"),
    "a name with an escape sequence": ("wake", "b\x1b[31mob", "--task", "x"),
    "a name with a newline": ("wake", "bob\neve"),
    "a name in latin-1": ("wake", b"b\xe9b"),
    "a long name": ("wake", "b" * 5000),
    "a pattern that nothing matches": ("wake", "*z*"),
    "half a pattern": ("wake", "["),
    "park of nobody": ("park", "nobody"),
    "park of a watcher": ("park", "plain"),
    "fresh of nobody": ("fresh", "nobody"),
    "reset of nobody": ("reset", "nobody"),
    "purge of nobody": ("purge", "nobody"),
    "purge of one that is there": ("purge", "bob"),
    "purge of a path": ("purge", "../../x"),
    "half-open of one that is up": ("half-open", "bob"),
    "respawn of one that is up": ("respawn", "bob"),
    "tasks of nobody": ("tasks", "nobody"),
    "a task that there is not": ("tasks", "bob", "--cancel", "99"),
    "a large number": ("tasks", "bob", "--cancel", "9" * 15),
    "fresh for one that is up": ("wake", "bob", "--fresh"),
    "a signal that there is not": ("signal", "bob", "NOPE"),
    "a signal with a number that there is not": ("signal", "plain", "99"),
    "a kill with a signal that there is not": ("kill", "bob", "--signum", "a\x1b[31m"),
    "explain of nobody": ("explain", "nobody"),
    "history of nobody": ("history", "nobody"),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_refused_with_a_reason(
    served: Fleet, arguments: tuple[str | bytes, ...]
) -> None:
    done = command(served, *arguments)
    assert done.code == 3, done
    clear(done.err)
    assert not done.out
    unharmed(served)
    done = command(served, "--json", *arguments)
    assert done.code == 3, done
    clear(done.err)
    assert json.loads(done.out)["status"] == "error"


@pytest.mark.parametrize("given", [b"", b" \n", b"a\0b", b"caf\xe9", ESCAPE.encode(), b"x" * TOO_LARGE])
def test_standard_input_is_judged_as_a_file_is(served: Fleet, given: bytes) -> None:
    done = command(served, "wake", "eve", "--task-file", "-", given=given)
    assert done.code == 2, done
    clear(done.err)
    unharmed(served)


OF_PROGRAMS = ("ticked", "self-request")
"""Verbs that only programs of ours send: what Python says is what their programmer needs."""
NAMES: list[Any] = [5, True, {"a": 1}, [5], [None], [[]], [{}], "x"]
TASKS: list[Any] = [5, 0, True, [], ["x"], {}, "", "\0", ESCAPE, "\x9b", "\ud800", "x" * TOO_LARGE]
TOPICS: list[Any] = [5, True, ["x"], {"a": 1}, "a\nb", "x" * 1000, "\ud800"]
MODES: list[Any] = ["x", 5, ["fresh"], {}]
RAW: list[tuple[str, dict[str, Any]]] = [
    *(("wake", {"names": names}) for names in NAMES),
    ("wake", {"name": 5}),
    ("wake", {"name": None}),
    ("wake", {"name": ["bob"]}),
    ("wake", {}),
    *(("wake", {"name": "eve", "task": task}) for task in TASKS),
    *(("wake", {"name": "eve", "task": "x", "topic": topic}) for topic in TOPICS),
    *(("wake", {"name": "eve", "task": "x", "mode": mode}) for mode in MODES),
    *(("park", {"names": names}) for names in (5, {"a": 1}, [5])),
    ("park", {"name": "bob", "parked_by": "x"}),
    ("park", {"name": "bob", "parked_by": {}}),
    ("park", {"name": "bob", "parked_by": "idle-reaper", "generation": "abc"}),
    ("park", {"name": "bob", "parked_by": "idle-reaper", "generation": 1, "idle_since": "abc"}),
    ("park", {"name": "bob", "parked_by": "idle-reaper", "generation": 1, "idle_since": {}}),
    *((verb, {"names": 5}) for verb in ("fresh", "reset", "tasks")),
    *((verb, {"name": 5}) for verb in ("purge", "half-open", "respawn", "explain", "history")),
    *((verb, {}) for verb in ("purge", "half-open", "respawn", "explain", "ticked")),
    ("respawn", {"name": "bob", "generation": "abc"}),
    ("half-open", {"name": "bob", "generation": {}}),
    ("tasks", {"names": ["bob"], "cancel": "x"}),
    ("tasks", {"names": ["bob"], "cancel": -1}),
    ("tasks", {"names": ["bob"], "cancel": True}),
    ("tasks", {"names": ["bob"], "cancel": {"a": 1}}),
    ("tasks", {"names": ["bob"], "cancel": "9" * 5000}),
    ("tasks", {"names": [], "cancel": "all"}),
    ("tasks", {"names": 5, "cancel": "all"}),
    ("tasks", {"cancel": "all"}),
    ("tasks", {"name": 5, "cancel": "all"}),
    ("ticked", {"name": "x", "pid": "abc", "at": 1, "secs": 1, "interval": 1}),
    ("ticked", {"name": "x", "pid": 1, "at": {}, "secs": 1, "interval": 1}),
    ("ticked", {"name": "x", "pid": 1, "at": 1, "secs": None, "interval": 1}),
    ("ticked", {"name": "x", "pid": 1, "at": 1, "secs": 1, "interval": 1, "detail": "x"}),
    ("ticked", {"name": "x", "pid": 1, "at": 1, "secs": 1, "interval": 1, "errors": "many"}),
    ("ticked", {"name": "x", "pid": 1, "at": float("nan"), "secs": 1, "interval": 1}),
    ("ticked", {"name": "x", "pid": 10**30, "at": 1, "secs": 1, "interval": 1}),
    ("ticked", {"name": "x", "pid": 1, "at": 1, "secs": 1, "interval": 1, "findings": 5}),
    ("ticked", {"name": "x", "pid": 1, "at": 1, "secs": 1, "interval": 1, "findings": [5]}),
    (
        "ticked",
        {"name": "x", "pid": 1, "at": 1, "secs": 1, "interval": 1, "findings": [{"age": "old", "action": 5}]},
    ),
    ("self-request", {}),
    ("self-request", {"name": "bob", "what": "explode", "generation": "abc"}),
    ("self-request", {"identity": "bob", "what": 5, "generation": {}}),
    ("wak", {"name": "bob"}),
    ("", {}),
]


@pytest.mark.parametrize(("verb", "properties"), RAW, ids=lambda value: ascii(value)[:60])
def test_a_raw_message_that_makes_no_sense_is_refused(
    served: Fleet, verb: str, properties: dict[str, Any]
) -> None:
    answer = served.call(verb, **properties)
    assert answer["status"] == "error", answer
    assert not answer.get("tb"), answer
    clear(answer["reason"], to_a_programmer=verb in OF_PROGRAMS)
    unharmed(served)


@pytest.mark.parametrize(
    "wanted",
    [
        "x",
        "",
        "-1",
        "1.5",
        "\u0661",
        " 1",
        "+1",
        "0x1",
        "9" * 5000,
        -1,
        99,
        True,
        1.5,
        {"a": 1},
        ["all"],
        "all\n",
        "ALL",
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_task_that_waits_is_cancelled_by_nothing_but_its_number(queued: Fleet, wanted: Any) -> None:
    if not queued.call("tasks")["tasks"]:  # an earlier case has failed
        queued.ctl("wake", "bob", "--task", "kept")
    answer = queued.call("tasks", names=["bob"], cancel=wanted)
    if wanted:
        assert answer["status"] == "error" and not answer.get("tb"), answer
        clear(answer["reason"])
    (task,) = queued.call("tasks")["tasks"]
    assert (task["begins"], task["state"]) == ("kept", "queued")


@pytest.fixture(scope="module")
def queued() -> Iterator[Fleet]:
    """A fleet with an agent for which one task waits, since it cannot come up."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    fleet = Fleet(folder)
    fleet.agent("bob", autostart="False", working_dir=str(folder / "missing"))
    try:
        fleet.start()
        assert fleet.ctl("wake", "bob", "--task", "kept").code == 3
        yield fleet
    finally:
        fleet.close()
        remove(folder)


@pytest.mark.parametrize("properties", [5, "x", [], None, ["name"]])
@pytest.mark.parametrize("verb", ["wake", "park", "tasks", "reset"])
def test_properties_that_are_none_are_refused(served: Fleet, verb: str, properties: Any) -> None:
    context: zmq.Context[Any] = zmq.Context.instance()
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(served.endpoint)
        socket.send(json.dumps({"command": verb, "id": "1", "properties": properties}).encode())
        assert socket.poll(10000), "no answer"
        answer = json.loads(socket.recv())
        assert answer["status"] == "error", answer
    unharmed(served)


# -- the store -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(fleet: Fleet) -> Iterator[None]:
    """Hold the store as a careless tool does, so that circusd cannot write."""
    other = sqlite3.connect(fleet.state / "failover.db", isolation_level=None, timeout=10)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def change_store(fleet: Fleet, statement: str) -> None:
    """Change the store while no circusd holds it."""
    assert fleet.circusd is None
    with contextlib.closing(sqlite3.connect(fleet.state / "failover.db")) as connection, connection:
        connection.execute(statement)


def told(fleet: Fleet) -> list[str]:
    """Return what the agents were told, in all their conversations."""
    found = []
    for path in sorted(fleet.work.glob(".standin/projects/*/*.jsonl"), key=os.path.getmtime):
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        found += [entry["message"]["content"] for entry in entries if entry["type"] == "user"]
    return found


def test_while_the_store_is_locked_every_verb_says_so_and_works_when_it_is_free(fleet: Fleet) -> None:
    fleet.resumable("bob")
    fleet.agent("eve", autostart="False")
    false = {"failover__command": "/bin/false", "failover__ready_secs": "60"}
    fleet.agent("zoe", autostart="False", failover__crash_max="1", **false)
    fleet.start()
    (bob,) = fleet.await_up("bob")
    assert fleet.ctl("wake", "zoe", "--task", "kept").code == 3
    fleet.await_phase("zoe", "held")
    with held(fleet):
        for arguments, words in (
            (("wake", "bob", "--task", "add"), "not queued"),
            (("wake", "eve", "--task", "add"), "not queued"),
            (("park", "bob"), "nothing was ended"),
            (("fresh", "bob"), "nothing was ended"),
            (("reset", "zoe"), "nothing was reset"),
            (("tasks", "zoe", "--cancel", "all"), "nothing was cancelled"),
        ):
            done = fleet.ctl(*arguments)
            assert done.code == 3 and "locked" in done.err and words in done.err, done
            clear(done.err)
        assert alive(bob["pid"])
        phases = {view["identity"]: view["phase"] for view in fleet.call("fleet")["agents"]}
        assert phases == {"bob": "up", "eve": "down", "zoe": "held"}
        assert [task["begins"] for task in fleet.call("tasks")["tasks"]] == ["kept"]
    assert fleet.ctl("wake", "bob", "--task", "add", "--waiting").code == 0
    assert told(fleet) == ["add"]
    assert fleet.view("bob")["pid"] == bob["pid"]
    assert fleet.ctl("fresh", "bob").code == 0
    assert fleet.begun("bob").generation == 2
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    assert fleet.ctl("tasks", "zoe", "--cancel", "all").code == 0
    assert fleet.ctl("reset", "zoe").code == 0
    assert fleet.view("zoe")["phase"] == "down"
    assert fleet.ctl("wake", "eve").code == 0
    wait_for("no trouble", lambda: fleet.call("fleet")["circusd"]["trouble"] is None)


def test_a_task_that_is_typed_while_the_store_is_locked_is_taken_once(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (bob,) = fleet.await_up("bob")
    fleet.converse("bob", "by hand")
    # Stopped, it takes nothing of what is typed.
    os.kill(bob["pid"], signal.SIGSTOP)
    fleet.call_all({"command": "wake", "name": "bob", "task": "add"}, timeout=0)
    wait_for("it is typed", lambda: [t["state"] for t in fleet.call("tasks")["tasks"]] == ["typing"])
    with held(fleet):
        os.kill(bob["pid"], signal.SIGCONT)
        fleet.await_screen("bob", "done: add")
        wait_for("the trouble is seen", lambda: "locked" in (fleet.call("fleet")["circusd"]["trouble"] or ""))
    wait_for("it is delivered", lambda: fleet.call("tasks")["tasks"] == [])
    fleet.await_ticks()
    assert told(fleet) == ["by hand", "add"]


def garbage(fleet: Fleet) -> None:
    for path in fleet.state.glob("failover.db-*"):
        path.unlink()
    (fleet.state / "failover.db").write_bytes(b"no database" * 1000)


def read_only(fleet: Fleet) -> None:
    """SQLite opens a file with a later write format read-only (file format, 1.3.3), also for root."""
    with contextlib.closing(sqlite3.connect(fleet.state / "failover.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (fleet.state / "failover.db").open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")


@pytest.mark.parametrize("spoil", [garbage, read_only])
def test_with_a_store_that_cannot_be_written_a_wake_is_refused_and_agents_live_on(
    fleet: Fleet, spoil: Any
) -> None:
    fleet.resumable("bob")
    fleet.agent("eve", autostart="False")
    fleet.start()
    (bob,) = fleet.await_up("bob")
    fleet.end()
    kept = (fleet.state / "failover.db").read_bytes()
    spoil(fleet)
    fleet.start()
    wait_for("its trouble is shown", lambda: fleet.call("fleet")["circusd"]["trouble"])
    for arguments in (
        ("wake", "eve", "--task", "add"),
        ("wake", "bob", "--task", "add"),
        ("park", "bob"),
        ("fresh", "bob"),
        ("wake", "eve"),
    ):
        done = fleet.ctl(*arguments)
        assert done.code == 3, done
        clear(done.err)
        assert "failover.db" in done.err or "readonly" in done.err, done
        assert "--task" not in arguments or "not queued" in done.err, done
    assert fleet.ctl("--json", "doctor").code == 1
    assert alive(bob["pid"]) and fleet.view("bob")["phase"] == "up"
    # Repaired, it is as it was.
    fleet.end()
    for path in fleet.state.glob("failover.db*"):
        path.unlink()
    (fleet.state / "failover.db").write_bytes(kept)
    fleet.start()
    (view,) = fleet.await_up("bob")
    assert (view["pid"], view["generation"]) == (bob["pid"], 1)
    assert fleet.ctl("wake", "bob", "eve", "--task", "add", "--waiting").code == 0
    assert told(fleet) == ["add", "add"]


def test_what_cannot_be_read_is_not_said_to_be_nothing(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    for path in fleet.state.glob("failover.db*"):
        path.write_bytes(b"no database" * 1000)

    def says(arguments: tuple[str, ...]) -> None:
        done = fleet.ctl(*arguments)
        assert done.code == 3 and "failover.db" in done.err and "command" not in done.err, done
        clear(done.err)

    for arguments in (("history", "bob"), ("explain", "bob"), ("reset", "bob")):
        says(arguments)
    fleet.end()
    fleet.start()
    for arguments in (("history", "bob"), ("tasks",), ("reset", "bob"), ("purge", "eve")):
        says(arguments)


def test_a_circusd_that_finds_no_room_at_its_start_says_so_and_adopts(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (bob,) = fleet.await_up("bob")
    fleet.end()
    config = fleet.state / "tmux.conf"
    config.unlink()
    full = config.with_name("tmux.conf.tmp")
    full.symlink_to("/dev/full")
    fleet.start()
    trouble = fleet.call("fleet")["circusd"]["trouble"]
    assert f"{full}" in trouble and "restart circusd" in trouble
    done = fleet.ctl("wake", "bob", "--task", "add", "--waiting")
    assert done.code == 3 and f"{full}" in done.err and "not queued" in done.err, done
    clear(done.err)
    full.unlink()
    fleet.end()
    fleet.start()
    (view,) = fleet.await_up("bob")
    assert view["pid"] == bob["pid"]
    assert fleet.ctl("wake", "bob", "--task", "add", "--waiting").code == 0


def test_a_launch_for_which_there_is_no_room_names_the_file_and_its_task_waits(fleet: Fleet) -> None:
    fleet.agent("bob", autostart="False")
    fleet.start()
    script = fleet.state / "run" / "bob.1.launch"
    script.symlink_to("/dev/full")
    done = fleet.ctl("wake", "bob", "--task", "add")
    assert done.code == 3 and f"{script}: No space left on device" in done.err, done
    clear(done.err)
    assert "stays queued" in done.err and fleet.launches("bob") == []
    assert fleet.ctl("wake", "bob").code == 0
    fleet.await_screen("bob", "done: add")


# -- a clock that was set back -------------------------------------------------------------------------


def test_a_park_that_lies_ahead_is_resumed(fleet: Fleet) -> None:
    fleet.resumable("bob")
    fleet.start()
    first = fleet.begun("bob")
    fleet.converse("bob")
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    fleet.end()
    ahead = time.time() + 3600
    change_store(fleet, f"UPDATE agents SET parked_at = {ahead}, since = {ahead}")
    change_store(
        fleet, f"UPDATE launches SET started_at = {ahead - 5}, up_at = {ahead - 4}, ended_at = {ahead}"
    )
    fleet.start()
    assert fleet.view("bob")["phase"] == "parked"
    done = fleet.ctl("fleet")
    assert done.code == 0 and "bob" in done.out, done
    assert fleet.ctl("explain", "bob").code == 0 and fleet.ctl("history", "bob").code == 0
    assert fleet.ctl("wake", "bob").code == 0
    launch = fleet.begun("bob")
    assert (launch.mode, launch.wake_cause) == ("resume", "idle-reaped-resume")
    assert launch.conversation == first.conversation


def killed(fleet: Fleet, name: str) -> None:
    """Kill an agent, and wait until it is known how it ended: no later circusd has anything to add."""
    os.kill(fleet.view(name)["pid"], signal.SIGKILL)
    wait_for("how it ended is known", lambda: fleet.view(name)["cause"] == "signaled")


def test_a_hold_that_seems_to_last_for_an_hour_is_over(fleet: Fleet) -> None:
    fleet.guard(interval="0.5")
    for name in ("bob", "eve"):
        fleet.agent(name, autostart="False", failover__restart="lazy", failover__crash_max="2")
    fleet.start()
    for name in ("bob", "eve"):
        assert fleet.ctl("wake", name).code == 0
        killed(fleet, name)
    fleet.end()
    fleet.sections["watcher:bob"]["failover.restart"] = "always"
    ahead = time.time() + 3600
    change_store(
        fleet,
        f"UPDATE agents SET loop = 'open', loop_until = {ahead}, phase = 'held', cause = 'crash-loop',"
        f" since = {ahead - 30}",
    )
    change_store(fleet, f"UPDATE launches SET ended_at = {ahead - 30} WHERE ended_at IS NOT NULL")
    fleet.start()
    wait_for("bob is on trial", lambda: fleet.view("bob")["phase"] == "up", 40.0)
    assert fleet.ctl("wake", "eve").code == 0
    fleet.await_up("bob", "eve")
    with fleet.store() as store:
        assert [store.agents()[name].loop for name in ("bob", "eve")] == ["half-open"] * 2
    # One launch is all that it permits: the next death holds it again, for no longer than it should.
    os.kill(fleet.view("eve")["pid"], signal.SIGKILL)
    view = fleet.await_phase("eve", "held")
    assert time.time() < view["held_until"] < time.time() + 601


def test_a_death_that_lies_ahead_delays_nothing_and_still_counts(fleet: Fleet) -> None:
    fleet.guard(interval="0.5")
    fleet.agent("bob", failover__crash_max="2")
    fleet.start()
    fleet.await_up("bob")
    killed(fleet, "bob")
    fleet.end()
    ahead = time.time() + 3600
    change_store(
        fleet, f"UPDATE launches SET started_at = {ahead - 9}, up_at = {ahead - 8}, ended_at = {ahead}"
    )
    fleet.agent("bob", failover__crash_max="2", failover__restart="always")
    fleet.start()
    wait_for("bob is back", lambda: fleet.view("bob")["generation"] == 2, 40.0)
    (view,) = fleet.await_up("bob")
    os.kill(view["pid"], signal.SIGKILL)
    fleet.await_phase("bob", "held")


# -- the log -------------------------------------------------------------------------------------------


def test_a_log_that_cannot_be_written_stops_no_decision_and_doctor_says_so(fleet: Fleet) -> None:
    fleet.resumable("bob", autostart="False")
    fleet.state.mkdir(mode=0o700)
    for name in ("lifecycle.log", "exits.log"):
        (fleet.state / name).mkdir(mode=0o700)
    fleet.start()
    assert fleet.ctl("wake", "bob", "--task", "add", "--waiting").code == 0
    assert told(fleet) == ["add"]
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    assert fleet.ctl("wake", "bob").code == 0
    assert [launch.mode for launch in fleet.launches("bob")] == ["resume", "fresh"]
    os.kill(fleet.view("bob")["pid"], signal.SIGKILL)
    fleet.await_phase("bob", "down")
    assert fleet.call("fleet")["circusd"]["log_lines_lost"] > 0
    done = fleet.ctl("doctor")
    assert "lifecycle.log" in done.out and "could not be written" in done.out, done
    # Put right, it is written again without a restart.
    for name in ("lifecycle.log", "exits.log"):
        (fleet.state / name).rmdir()
    assert fleet.ctl("wake", "bob").code == 0
    assert [line["mode"] for line in fleet.lifecycle() if line["ev"] == "wake"] == ["fresh"]
