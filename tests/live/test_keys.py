"""`keys`: what is pressed arrives as it is, in order, in the launch it was meant for, or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

import zmq

from circus_failover import process_table, tmux
from circus_failover.process_table import ProcessId
from tests.live.fleet import Fleet, wait_for

RAW = """
import os, sys, tty
tty.setraw(0)
# Bracketed paste and the application's cursor keys: what is pressed is no paste, and Up is what it wants.
os.write(1, b"\\x1b[?2004h\\x1b[?1hready")
with open(sys.argv[1], "ab", 0) as got:
    while raw := os.read(0, 4096):
        got.write(raw)
"""
"""A program that keeps what it reads, and shows nothing of it."""


def test_keys_arrive_as_they_are_or_are_refused(fleet: Fleet) -> None:
    program, got = fleet.folder / "raw.py", fleet.folder / "got"
    program.write_text(RAW)
    fleet.agent("bob", failover__command=f"{sys.executable} {program} {got}")
    fleet.agent("shown", failover__mode="observe")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "ready")

    def arrived(raw: bytes) -> None:
        wait_for(f"{raw!r} arrived", lambda: got.exists() and len(got.read_bytes()) >= len(raw))
        assert got.read_bytes() == raw
        got.write_bytes(b"")

    # A person looks back in its terminal meanwhile: copy mode takes keys, and not these.
    tmux.run(fleet.socket("bob"), ["copy-mode", "-t", "=bob:"])
    text, keys = "né 漢 'x' $(id);", ("Enter", "Escape", "Up", "C-c", "Tab")
    assert fleet.ctl("keys", "bob", "--text", text, *keys).code == 0
    arrived(f"{text}\r\x1b\x1bOA\x03\t".encode())
    # Raw, as a page sends it: NUL, half a key, what would end a paste, a newline.
    raw = "\x00\x1b[A\x1b[201~\n\x7f\x1b[H;#{pid}\x1b"
    answer = fleet.call("keys", name="bob", keys=raw, generation=1, by="web:operator@127.0.0.1")
    assert answer["status"] == "ok" and answer["agents"][0]["ok"], answer
    arrived(b"\x00\x1bOA\x1b[201~\n\x7f\x1b[1~;#{pid}\x1b")
    # Many at once arrive in the order in which they were asked for.
    many = [{"command": "keys", "name": "bob", "keys": letter} for letter in "in the right order"]
    assert all(answer["status"] == "ok" for answer in fleet.call_all(*many))
    arrived(b"in the right order")
    assert tmux.run(fleet.socket("bob"), ["list-buffers"]) == ""
    # The program showed nothing of all that; somebody is there all the same.
    terminal = process_table.terminal(view["pid"])
    assert terminal is not None
    os.utime(terminal, (1, 1))
    pressed = time.time() - 1
    fleet.call("keys", name="bob", keys="x")
    assert fleet.view("bob")["last_activity"] >= pressed
    arrived(b"x")

    # Refused, with the reason, and nothing is pressed.
    def refused(why: str, **properties: object) -> None:
        answer = fleet.call("keys", **{"name": "bob", "keys": "never", **properties})
        assert answer["status"] == "error" and why in answer["reason"], answer

    refused("launch 2 has ended", generation=2)
    refused("it is observed", name="shown")
    refused("no agent 'bobb'", name="bobb")
    refused("expected 1 to 1000", keys="n" * 1001)
    refused("expected the number of a launch", generation="1")
    with (fleet.state / "locks" / "bob.lock").open("w") as lock:
        # What somebody holds who types a task, or ends the agent.
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused("somebody types into it, or ends it, right now")
    server = process_table.identify(view["server_pid"])
    assert server is not None
    hangs(fleet, server)
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    late = fleet.ctl("keys", "bob", "y")
    assert late.code == 3 and "not pressed: it is not up but parked" in late.err, late
    assert fleet.ctl("keys", "bob", "enter").code == 2
    assert got.read_bytes() == b""

    # Who pressed how many is in the log and in `history`, and nowhere what.
    lines = [line for line in fleet.lifecycle() if line["ev"] == "keys"]
    assert lines[0]["who"].endswith("@failoverctl") and lines[0]["characters"] == str(len(text) + 7), lines
    assert (lines[1]["who"], lines[1]["characters"]) == ("web:operator@127.0.0.1", str(len(raw)))
    assert "keys" in json.dumps(fleet.call("history", name="bob"))
    for kept in fleet.state.glob("*.log"):
        assert "$(id)" not in Path(kept).read_text()


def hangs(fleet: Fleet, server: ProcessId) -> None:
    """A server that hangs holds up nobody, and what it was to be given never arrives."""
    process_table.send(server, signal.SIGSTOP)
    try:
        with zmq.Context.instance().socket(zmq.DEALER) as circusd:
            circusd.connect(fleet.endpoint)
            pressing = {"command": "keys", "properties": {"name": "bob", "keys": "never"}}
            for number, message in enumerate([pressing, pressing, {"command": "numwatchers"}]):
                circusd.send(json.dumps({"id": str(number), "properties": {}, **message}).encode())
            answers = []
            while len(answers) < 3:
                assert circusd.poll(30_000)
                answers.append(json.loads(circusd.recv()))
        assert [answer["id"] for answer in answers] == ["2", "0", "1"]
        assert all("did not answer" in answer["reason"] for answer in answers[1:]), answers
    finally:
        process_table.send(server, signal.SIGCONT)
    # Its own answer comes behind everything that waited for it.
    wait_for("the server answers", lambda: tmux.run(fleet.socket("bob"), ["list-buffers"]) == "" or None)
