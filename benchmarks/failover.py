"""From a limit to the answer on another account, with the real Claude Code, beside its own bare start-up.

The turn is in the middle of a tool when its account reaches the limit. Counted is from letting the tool end,
whose result the account refuses, to the request on the other account that goes on with the turn: seeing the
limit, ending the client, the gate, its start as a resume, the proof that it is ready, and typing. Nothing
here uses a network.
"""

from __future__ import annotations

import shlex
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.clients import READY_SECS, Yard, ready, until
from benchmarks.ground import say
from benchmarks.result import Figure, Result, middle
from tests.clients import install
from tests.clients.accounts import Home
from tests.clients.client import Client
from tests.clients.faults import Fault
from tests.clients.install import Clients, NotInstalled
from tests.live.fleet import wait_for

BYPASS = "--dangerously-skip-permissions"
GOAL_SECS = 15.0
MOVED_SECS = 600.0
"""How long many agents may take to be moved."""


def benchmark(rounds: int, many: int) -> list[Result]:
    """Let one agent reach its limit again and again, and many agents at once.

    Args:
        rounds: how often one agent does.
        many: how many agents do at once.

    Raises:
        RuntimeError: the clients are not installed, or what was awaited did not come.
    """
    try:
        clients = install.ensure()
    except NotInstalled as error:
        raise RuntimeError(str(error)) from error
    try:
        return [_one(clients, rounds), *_many(clients, many)]
    except AssertionError as error:  # of the harness: what was awaited did not come
        raise RuntimeError(str(error)) from error


def _yard(stack: ExitStack, clients: Clients, **plugin: str) -> tuple[Yard, Home, Home]:
    yard = Yard(stack, clients)
    use = "circus_failover.plugins.AccountFailover"
    yard.real.fleet.plugins["plugin:failover"] = {"use": use, **plugin}
    # The default interval: an operator's fleet is not looked at every second.
    yard.real.fleet.states()
    return yard, yard.account("claude", "a"), yard.account("claude", "b")


def _heard(yard: Yard, home: Home, words: str) -> int:
    """Return how many requests of conversations on an account went on with a turn that began so."""
    asked = (one.prompts for one in yard.mock.asked(home.key) if one.conversation)
    return sum(words in prompts[:-1] for prompts in asked)


def _await_heard(yard: Yard, home: Home, words: str) -> None:
    wait_for(f"{words} goes on", lambda: _heard(yard, home, words), MOVED_SECS)


def _one(clients: Clients, rounds: int) -> Result:
    say(f"{rounds} limits in the middle of a turn of a claude agent, and as many starts of claude alone")
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    with ExitStack() as stack:
        yard, a, b = _yard(stack, clients)
        real, fleet = yard.real, yard.real.fleet
        real.agent("x", a, yard.work, BYPASS)
        real.agent("bare", a, yard.work, BYPASS, autostart="False")
        fleet.start()
        fleet.await_phase("x", "up", READY_SECS)
        bare = _parked_conversation(yard)
        here, there = a, b
        for number in range(rounds):
            gate, words = yard.folder / f"gate-{number}", f"turn {number}"
            real.task("x", f"{words} [[bash until test -e {shlex.quote(str(gate))}; do sleep 0.05; done]]")
            wait_for("its tool runs", lambda: real.tools("x", "bash"), READY_SECS)
            yard.mock.fail(Fault.LIMIT_5H, here.key)
            begun = time.perf_counter()
            gate.touch()
            _await_heard(yard, there, words)
            taken["ours"].append(time.perf_counter() - begun)
            real.await_state("x", "idle")
            yard.mock.heal(here.key)
            fleet.ctl("accounts", "forget", here.name)
            taken["bare"].append(_bare(yard, clients, a, bare, number))
            here, there = there, here
        launches = fleet.launches("x")
    assert len(launches) == rounds + 1, "a limit is one switch"
    ratio = middle([ours / bare for ours, bare in zip(taken["ours"], taken["bare"], strict=True)])
    return Result(
        benchmark="failover",
        what="from a limit in a turn to its going on on another account, claude",
        ours=Figure(middle(taken["ours"]), "s", f"median of {rounds}; at most {max(taken['ours']):.1f}"),
        beside=Figure(middle(taken["bare"]), "s", "claude alone in tmux, to ready"),
        ratio=ratio,
        goal=GOAL_SECS,
        details={f"{name}_secs": values for name, values in taken.items()},
    )


def _parked_conversation(yard: Yard) -> str:
    """Return a conversation that a client alone resumes: it has ended, and nobody else has it."""
    real, fleet = yard.real, yard.real.fleet
    real.task("bare", "I am bare")
    real.await_state("bare", "idle")
    conversation = str(fleet.view("bare")["conversation"])
    fleet.ctl("stop", "bare", "--waiting")
    return conversation


def _bare(yard: Yard, clients: Clients, home: Home, conversation: str, number: int) -> float:
    """Return how long the client by itself takes to be ready, as a resume."""
    own = yard.folder / f"t{number}"
    own.mkdir()
    begun = time.perf_counter()
    argv = [str(clients.claude), "--resume", conversation, BYPASS]
    client = Client(own, yard.network, argv, home.variables, yard.work, str(yard.folder))
    until(ready("claude", home, client, yard.work, conversation))
    taken = time.perf_counter() - begun
    client.end(signal.SIGTERM)
    return taken


def _many(clients: Clients, many: int) -> list[Result]:
    """Let many agents reach the limit of their account at once: all are moved, one after another, once."""
    say(f"{many} claude agents limited at once")
    with ExitStack() as stack:
        yard, a, b = _yard(stack, clients)
        real, fleet = yard.real, yard.real.fleet
        names = [f"x-{number}" for number in range(many)]
        gate: Path = yard.folder / "gate"
        for name in names:
            real.agent(name, a, yard.work, BYPASS)
        fleet.start()
        for name in names:
            fleet.await_phase(name, "up", MOVED_SECS)
        for name in names:
            real.task(
                name, f"I am {name}. [[bash until test -e {shlex.quote(str(gate))}; do sleep 0.5; done]]"
            )
        yard.mock.fail(Fault.LIMIT_5H, a.key)
        begun = time.perf_counter()
        gate.touch()
        for name in names:
            _await_heard(yard, b, f"I am {name}.")
        taken = time.perf_counter() - begun
        for name in names:
            real.await_state(name, "idle", timeout=MOVED_SECS)
        moved = sum([launch.account for launch in fleet.launches(name)] == ["b", "a"] for name in names)
        told = {name: _heard(yard, b, f"I am {name}.") for name in names}
    doubled = sum(count != 1 for count in told.values())
    return [
        Result("failover", f"{many} claude agents limited at once: all go on", Figure(taken, "s")),
        Result(
            benchmark="failover",
            what="of these, not moved exactly once, or told twice",
            ours=Figure(many - moved + doubled, "agents"),
            goal=0.0,
            details={"told": told},
        ),
    ]
