"""circusd as it is, with a clock around every hook of an agent and around the gate.

Run in place of the `circusd` script. It changes nothing but wraps four functions: `Watcher.call_hook`, so
that what is measured is what a hook keeps circusd's only loop for, Circus's own event about it included;
`stats.replace_with_tree`, which is all that the `extended_stats` hook does (Circus 0.19 calls that one past
call_hook); `shared_state.check`, the gate alone; and `Supervisor.tick`. At its end it writes what it measured
to `FAILOVER_BENCHMARK_TIMES`, a JSON list of (name, epoch seconds at its begin, seconds by the clock, seconds
of these in which it was ready to run and had no core).
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circus.circusd import main
from circus.watcher import Watcher

from circus_failover import shared_state, stats
from circus_failover.supervisor import FULL_CHECK_TICKS, Supervisor

Measured = tuple[str, float, float, float]
measured: list[Measured] = []


def waited() -> float:
    """Return the seconds that circusd's loop was ready to run and had no core (schedstat, Linux)."""
    with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
        return int(file.read(256).split()[1]) / 1e9


def timed(function: Callable[..., Any], name: Callable[..., str | None]) -> Callable[..., Any]:
    """Return `function` with a clock around it; `name` says what a call is noted as, None for not at all."""

    def call(*args: Any, **kw: Any) -> Any:
        noted = name(*args, **kw)
        if noted is None:
            return function(*args, **kw)
        at, before, begun = time.time(), waited(), time.perf_counter()
        try:
            return function(*args, **kw)
        finally:
            took = time.perf_counter() - begun
            measured.append((noted, at, took, min(took, waited() - before)))

    return call


def hook_of_an_agent(watcher: Any, hook_name: str, **details: Any) -> str | None:
    """Return the hook's name when an agent has it; other watchers have none of ours."""
    return hook_name if hook_name in watcher.hooks else None


def tick_of_circusd(held: Any) -> str:
    """Return what the supervisor's next tick is: every so many, all processes are looked at."""
    return "full tick" if (held._ticks + 1) % FULL_CHECK_TICKS == 0 else "tick"


def write(path: Path) -> None:
    """Write what was measured."""
    path.write_text(json.dumps(measured))


if __name__ == "__main__":
    Watcher.call_hook = timed(Watcher.call_hook, hook_of_an_agent)
    shared_state.check = timed(shared_state.check, lambda *args: "gate")
    stats.replace_with_tree = timed(stats.replace_with_tree, lambda *args: "extended_stats")
    Supervisor.tick = timed(Supervisor.tick, tick_of_circusd)  # type: ignore[method-assign]
    atexit.register(write, Path(os.environ.pop("FAILOVER_BENCHMARK_TIMES")))
    sys.argv[0] = "circusd"
    sys.exit(main())
