from __future__ import annotations
import json
from tests.clients.test_real_failover import *  # noqa
from tests.clients.test_real_failover import fleet, real, heard, until_open, transcripts, await_account  # noqa


def test_claude_midturn(real, claude_home, work, folder):
    fleet, a, b = real.fleet, claude_home("a", shared=True), claude_home("b", shared=True)
    fleet.plugins.pop("plugin:failover")
    gate = folder / "gate"
    real.account(a, folder / "shared")
    real.account(b)
    real.agent("x", a, work, BYPASS)
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    real.task("x", "remember PAPAYA")
    real.await_heard(a.key, "remember PAPAYA")
    real.await_state("x", "idle")
    real.task("x", f"what did I say? {until_open(gate)}")
    wait_for("its tool runs", lambda: real.tools("x", "bash"), LONGEST_SECS)
    real.task("x", "and the second task that waits inside")
    wait_for("taken", lambda: not fleet.view("x")["tasks"], LONGEST_SECS)
    r = fleet.call("switch", name="x", to="b", waiting=True, timeout=100)
    print(r)
    for t in transcripts(folder):
        for line in t.read_text().splitlines():
            d = json.loads(line)
            print(d.get("type"), d.get("timestamp"), json.dumps(d.get("message") or d.get("attachment") or d)[:300])
    gate.touch()
    import time; time.sleep(6)
    print(heard(real, b, "remember PAPAYA"))
    for l in fleet.lifecycle():
        if l["ev"] in ("wake","switch","task"): print(l)
    for t in transcripts(folder):
        for line in t.read_text().splitlines():
            d = json.loads(line)
            print(d.get("type"), d.get("timestamp"), json.dumps(d.get("message") or d.get("attachment") or d)[:200])
    assert 0


def test_codex_midturn(real, codex_home, work, folder):
    fleet, a, b = real.fleet, codex_home("a", shared=True), codex_home("b", shared=True)
    fleet.plugins.pop("plugin:failover")
    real.account(a, folder / "shared-codex")
    real.account(b)
    real.agent("x", a, work)
    gate = folder / "gate"
    fleet.start()
    fleet.await_phase("x", "up", LONGEST_SECS)
    real.task("x", "remember PAPAYA")
    real.await_heard(a.key, "remember PAPAYA")
    real.await_state("x", "idle")
    real.task("x", f"what did I say? {until_open(gate)}")
    import time; time.sleep(4)
    real.task("x", "and the second task that waits inside")
    time.sleep(3)
    r = fleet.call("switch", name="x", to="b", waiting=True, timeout=100)
    print(r)
    for t in (folder/"shared-codex").rglob("*.jsonl"):
        for line in t.read_text().splitlines():
            d = json.loads(line)
            if "UserMessage" in line or "\"user\"" in line: print("REC", line[:900])
    gate.touch()
    time.sleep(6)
    print(heard(real, b, "remember PAPAYA"))
    for l in fleet.lifecycle():
        if l["ev"] in ("wake","switch","task"): print(l)
    assert 0
