"""A wish that comes while the remains of a crash are cleared: it is granted, and the crash stays a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.fleet import BIN, STANDIN, Fleet, wait_for


@contextlib.contextmanager
def no_worker(fleet: Fleet, name: str) -> Iterator[None]:
    """Keep every worker of an agent from beginning, as one that hangs would."""
    with (fleet.state / "locks" / f"{name}.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def crashed(fleet: Fleet) -> None:
    os.kill(fleet.view("bob")["pid"], signal.SIGKILL)
    wait_for("its end is noticed", lambda: any(record["ev"] == "clear" for record in fleet.lifecycle()))


@pytest.mark.parametrize(
    "verb, phase", [("stop", "stopped"), ("park", "parked"), ("restart", "up"), ("fresh", "up")]
)
def test_what_overtakes_the_clearing_of_a_crash_is_granted_and_no_park(
    fleet: Fleet, verb: str, phase: str
) -> None:
    fleet.agent("bob", failover__resume_command=f"{STANDIN} --resume {{conversation}}")
    fleet.start()
    fleet.await_up("bob")
    with no_worker(fleet, "bob"):
        crashed(fleet)
        asking = subprocess.Popen([str(BIN / "failoverctl"), verb, "bob"], env=fleet.environment)
        wait_for("the wish is stored", lambda: any(record["ev"] == verb for record in fleet.lifecycle()))
    assert asking.wait(30) == 0
    view = fleet.await_phase("bob", phase, timeout=30.0)
    if phase == "up":
        view = wait_for("the next launch", lambda: (v := fleet.view("bob"))["generation"] == 2 and v)
        fleet.await_up("bob")
    with fleet.store() as store:
        first = store.launches("bob")[-1]
    assert (first.planned, first.end_cause, first.exit_signal) == (False, "signaled", signal.SIGKILL)
    assert view["parked_by"] is None
    assert [record["cause"] for record in fleet.exits()] == ["signaled"]
    gone = [record for record in fleet.lifecycle() if record.get("action") == "reaped-gone"]
    assert len(gone) == 1 and gone[0]["outcome"] == "fresh-next-wake"
    assert fleet.ctl("start", "bob").code == 0
    with fleet.store() as store:
        newest = store.launches("bob")[0]
    assert newest.generation == 2 and newest.mode == "fresh"
    assert newest.wake_cause == ("fresh-requested" if verb == "fresh" else "crash-or-self-close")


def test_a_crash_that_was_overtaken_by_stops_counts_for_the_crash_loop(fleet: Fleet) -> None:
    fleet.agent("bob", failover__crash_max="1")
    fleet.start()
    fleet.await_up("bob")
    with no_worker(fleet, "bob"):
        crashed(fleet)
        fleet.call("stop", names=["bob"], by="test")
    fleet.await_phase("bob", "stopped", timeout=30.0)
    done = fleet.ctl("start", "bob")
    assert done.code == 3 and "reset bob" in done.err
    assert fleet.view("bob")["phase"] == "held"


@pytest.mark.parametrize("verb", ["wake", "start"])
def test_a_stop_that_comes_while_a_launch_waits_for_its_turn_stands(fleet: Fleet, verb: str) -> None:
    fleet.agent("bob", autostart="False")
    # Circus does one thing at a time, and this takes it as long as the test wants.
    fleet.watcher(
        "deaf",
        f'{sys.executable} -c "import signal; signal.signal(15, 1); signal.pause()"',
        graceful_timeout="60",
    )
    fleet.start()
    wait_for("it ignores SIGTERM", lambda: "deaf" in str(fleet.call("status")) and ignores(fleet, "deaf"))
    (deaf,) = fleet.call("list", name="deaf")["pids"]
    asking = subprocess.Popen(
        [str(BIN / "circusctl"), "--timeout", "60", "stop", "deaf", "--waiting"],
        env=fleet.environment,
        stdout=subprocess.DEVNULL,
    )
    wait_for("Circus is at it", lambda: fleet.call("status", name="deaf")["status"] == "stopping")
    if verb == "start":
        assert fleet.call("stop", name="bob", waiting=True)["status"] == "ok"
    told, options = {"wake": ("task", ["--task", "add"]), "start": ("start", [])}[verb]
    launching = subprocess.Popen(
        [str(BIN / "failoverctl"), verb, "bob", *options], env=fleet.environment, stderr=subprocess.DEVNULL
    )
    wait_for("circusd has it", lambda: any(line["ev"] == told for line in fleet.lifecycle()))
    assert fleet.call("stop", name="bob", waiting=True)["status"] == "ok"
    assert fleet.call("status", name="deaf")["status"] == "stopping"
    os.kill(deaf, signal.SIGKILL)
    assert asking.wait(30) == 0
    assert launching.wait(30) == 3
    causes = [line["cause"] for line in fleet.lifecycle() if line["ev"] == "wake"]
    assert causes == (["stopped-mid-wake"] if verb == "wake" else [])
    assert fleet.view("bob")["phase"] == "stopped" and not fleet.launches("bob")


def ignores(fleet: Fleet, watcher: str) -> bool:
    """Say whether a watcher's process ignores SIGTERM already."""
    (pid,) = fleet.call("list", name=watcher)["pids"]
    (line,) = [
        one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("SigIgn")
    ]
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
