"""Waking: one agent of a large fleet, from the message to its process, and a hundred at once.

Beside them is what nobody can undercut: a plain `tmux new-session` and, for one typed by hand, the start-up
of the client alone. Every agent was parked before, and its wake is a resume.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq
from circus.client import CircusClient

from benchmarks.ground import BIN, Circusd, Ground, last_started, say
from benchmarks.large import LargeFleet
from benchmarks.result import Figure, Result, middle, percentile
from benchmarks.starting import plain_loop
from circus_failover import tmux
from circus_failover.store import open_reader
from circus_failover.words import WakeMode

ONE_GOAL_MS, MANY_GOAL = 60.0, 2.0
TIMEOUT_SECS = 30.0
SETTLE_SECS = 1.0


class Gate:
    """A named pipe in the place of an agent's file: the agent's first act is seen at once, not looked for."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        self._path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def passed(self) -> float:
        """Wait until the agent has opened and closed it, and return when, in `time.perf_counter` seconds.

        Raises:
            TimeoutError: it did not.
        """
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        # A reader that nobody has written to yet waits; it is told of a writer's end (POLLHUP, Linux).
        events = poll.poll(TIMEOUT_SECS * 1000)
        now = time.perf_counter()
        os.close(self._reader)
        self._path.unlink()
        if not events:
            raise TimeoutError(f"not within {TIMEOUT_SECS:g} s: an agent opens {self._path}")
        return now


class Operator:
    """A client of circusd that is already started and connected."""

    def __init__(self, circusd: Circusd) -> None:
        self._client = CircusClient(endpoint=circusd.endpoint, timeout=TIMEOUT_SECS)
        self._client.send_message("numwatchers")

    def ask(self, command: str, **properties: Any) -> None:
        """Send a message and do not wait for the answer."""
        message = {"id": uuid.uuid4().hex, "command": command, "properties": properties}
        self._client.socket.send_json(message)

    def hear(self) -> None:
        """Wait for the answer.

        Raises:
            RuntimeError: there is none, or it is an error.
        """
        if not self._client.socket.poll(TIMEOUT_SECS * 1000, zmq.POLLIN):
            raise RuntimeError("circusd does not answer")
        answer = self._client.socket.recv_json()
        if answer.get("status") != "ok":
            raise RuntimeError(str(answer))

    def close(self) -> None:
        """Close the connection."""
        self._client.stop()


def one(ground: Ground, fleet: LargeFleet, rounds: int) -> list[Result]:
    """Wake single agents of a fleet that is up, each way once a round.

    Args:
        ground: where the plain sessions go.
        fleet: all of its agents are up.
        rounds: how often.
    """
    circusd = fleet.run()
    say(f"{rounds} wakes of one agent among {fleet.count}")
    step = max(1, len(circusd.names) // rounds)
    chosen = [circusd.names[number * step % len(circusd.names)] for number in range(rounds)]
    operator = Operator(circusd)
    ways: dict[str, Callable[[int, str], float]] = {
        "wake": lambda number, name: _wake(operator, fleet, name),
        "tmux": lambda number, name: _plain(ground, number),
        "client": lambda number, name: _client(circusd, "--version"),
        "typed": lambda number, name: _typed(operator, circusd, fleet, name),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for number, name in enumerate(chosen):
            for way, measure in ways.items():
                taken[way].append(measure(number, name) * 1000)
        circusd.await_all()
        _were_resumes(circusd, chosen)
    finally:
        operator.close()

    def result(what: str, ours: float, beside: float, note: str, goal: float | None) -> Result:
        return Result(
            benchmark="wake",
            what=f"wake of one of {fleet.count} agents, {what}",
            ours=Figure(ours, "ms"),
            beside=Figure(beside, "ms", note),
            ratio=ours / beside,
            goal=goal,
            details={f"{name}_ms": values for name, values in taken.items()},
        )

    def slow(values: list[float]) -> float:
        return percentile(values, 0.95)

    new_session, client = "plain tmux new-session", "failoverctl --version"
    wake, plain = taken["wake"], taken["tmux"]
    return [
        result(f"median of {rounds}", middle(wake), middle(plain), new_session, ONE_GOAL_MS),
        result(f"p95 of {rounds}", slow(wake), slow(plain), new_session, ONE_GOAL_MS),
        result("typed (exec of failoverctl)", middle(taken["typed"]), middle(taken["client"]), client, None),
    ]


def _park(operator: Operator, fleet: LargeFleet, name: str) -> Gate:
    operator.ask("park", names=[name], waiting=True)
    operator.hear()
    return Gate(fleet.started / name)


def _wake(operator: Operator, fleet: LargeFleet, name: str) -> float:
    """Return the seconds from a message to the agent's own first act."""
    gate = _park(operator, fleet, name)
    begun = time.perf_counter()
    operator.ask("wake", names=[name])
    ended = gate.passed()
    operator.hear()
    return ended - begun


def _typed(operator: Operator, circusd: Circusd, fleet: LargeFleet, name: str) -> float:
    """Return the seconds from the exec of `failoverctl wake` to the agent's own first act."""
    gate = _park(operator, fleet, name)
    begun = time.perf_counter()
    client = circusd.ground.popen(
        [BIN / "failoverctl", "--endpoint", circusd.endpoint, "wake", name], circusd.ground.folder / "log"
    )
    ended = gate.passed()
    if client.wait(TIMEOUT_SECS) != 0:
        raise RuntimeError(f"failoverctl wake {name}: exit {client.returncode}")
    return ended - begun


def _client(circusd: Circusd, *arguments: str) -> float:
    """Return the seconds that failoverctl itself takes."""
    begun = time.perf_counter()
    command = [str(BIN / "failoverctl"), *arguments]
    subprocess.run(command, env=circusd.ground.environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def _plain(ground: Ground, number: int) -> float:
    """Return the seconds from the start of a tmux client to the first act of what its new server runs."""
    path, socket = ground.folder / f"plain-{number}", ground.folder / f"plain-{number}.sock"
    config = ground.folder / "plain.conf"
    config.write_text(tmux.OWN_SERVER_CONFIG)
    gate = Gate(path)
    place: list[str | Path] = ["-S", socket, "-f", config]
    shape: list[str | Path] = ["-x", "220", "-y", "50", "-c", ground.work]
    begun = time.perf_counter()
    client = ground.popen(
        ["tmux", *place, "new-session", "-d", "-s", "agent", *shape, "sh", ground.script, path],
        ground.folder / "log",
    )
    ended = gate.passed()
    client.wait(TIMEOUT_SECS)
    subprocess.run(["tmux", "-S", str(socket), "kill-server"], env=ground.environment, check=True)
    return ended - begun


def many(count: int, rounds: int) -> list[Result]:
    """Wake parked agents by one message, beside a plain loop that starts as many sessions.

    Args:
        count: how many agents.
        rounds: how often; the median counts.
    """
    ours, loops = [], []
    with Ground() as ground:
        started = ground.started("started")
        circusd = Circusd(ground, "fleet")
        circusd.agents(count, started=started, check_delay=1.0)
        circusd.start()
        last_started(started, count)
        circusd.await_all()
        operator = Operator(circusd)
        try:
            for number in range(1, rounds + 1):
                say(f"waking {count} agents, round {number} of {rounds}")
                _park_all(operator, circusd, started)
                loops.append(plain_loop(count))
                ours.append(_wake_all(operator, circusd, started))
        finally:
            operator.close()
    ratios = [one / other for one, other in zip(ours, loops, strict=True)]
    return [
        Result(
            benchmark="wakes",
            what=f"wake of {count} parked agents, one message",
            ours=Figure(middle(ours), "s"),
            beside=Figure(middle(loops), "s", "plain loop of tmux new-session"),
            ratio=middle(ratios),
            goal=MANY_GOAL,
            goal_of="ratio",
            details={"seconds": ours, "loop_seconds": loops, "ratios": ratios},
        )
    ]


def _park_all(operator: Operator, circusd: Circusd, started: Path) -> None:
    operator.ask("park", names=circusd.names, waiting=True)
    operator.hear()
    for file in started.iterdir():
        file.unlink()
    time.sleep(SETTLE_SECS)  # what is still done after the answer to `park` is no part of the wake


def _wake_all(operator: Operator, circusd: Circusd, started: Path) -> float:
    begun = time.time()
    operator.ask("wake", names=circusd.names)
    ended = last_started(started, len(circusd.names))
    operator.hear()
    circusd.await_all()
    _were_resumes(circusd, circusd.names)
    return ended - begun


def _were_resumes(circusd: Circusd, names: Sequence[str]) -> None:
    """See that what was measured is the wake of a parked agent.

    Raises:
        RuntimeError: an agent's last launch is none.
    """
    reader = open_reader(circusd.state / "failover.db")
    try:
        fresh = [name for name in names if reader.launches(name, 1)[0].mode != WakeMode.RESUME]
    finally:
        reader.close()
    if fresh:
        raise RuntimeError(f"woken, but not by resume: {', '.join(fresh[:10])}")
