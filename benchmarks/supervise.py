"""What it costs to look at every agent once: a tick of each plugin, beside a script that asks one by one.

The fleets are real: every agent in a tmux server of its own, so that there are terminals to look at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Circusd, Ground, last_started, say
from benchmarks.result import Figure, Result, middle
from circus_failover.store import open_reader

PLUGINS = ("IdleReaper", "CrashLoopGuard")
GOAL_MS, GOAL_RATIO = 20.0, 0.01
SETTLE_SECS = 3.0
TIMEOUT_SECS = 300.0


@dataclass(frozen=True)
class Ticks:
    """What ticks took: seconds each, and the programs that were started in all of them."""

    cpu: tuple[float, ...]
    clock: tuple[float, ...]
    programs: int


def benchmark(sizes: Sequence[int], ticks: int) -> list[Result]:
    """Measure fleets of all sizes, one after the other; the goals are for the largest.

    Args:
        sizes: how many agents.
        ticks: how many ticks of each plugin; the first, which opens the store, does not count.
    """
    return [result for size in sizes for result in _fleet(size, ticks, with_goal=size == max(sizes))]


def _fleet(size: int, ticks: int, with_goal: bool) -> list[Result]:
    with Ground() as ground:
        say(f"supervise ticks over {size} agents")
        circusd, times = Circusd(ground, "fleet"), ground.folder / "times.json"
        started = ground.started("started")
        circusd.agents(size, started=started, check_delay=1.0)
        circusd.start(times=times)
        last_started(started, size)
        circusd.await_all()
        _is_healthy(circusd)
        time.sleep(SETTLE_SECS)
        settled = time.time()
        pubsub = f"ipc://{circusd.folder}/pub"
        ours = [_run(ground, name, circusd.endpoint, pubsub, ticks) for name in PLUGINS]
        _had_no_errors(circusd, ticks)
        naive = _run(ground, "naive", circusd.state / "failover.db")
        circusd.end()
        own = [
            (name, clock - without_core)
            for name, at, clock, without_core in json.loads(times.read_text())
            if at >= settled
        ]
    return _results(size, ours, naive, [secs for name, secs in own if name == "full tick"], with_goal)


def _run(ground: Ground, *arguments: object) -> Ticks:
    """Run `timed_ticks.py` and return what it measured.

    Raises:
        RuntimeError: it failed.
    """
    script = Path(__file__).with_name("timed_ticks.py")
    done = subprocess.run(
        [sys.executable, str(script), *(str(argument) for argument in arguments)],
        env=ground.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script.name} {arguments[0]}: exit {done.returncode}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    return Ticks(tuple(said["cpu"]), tuple(said["clock"]), said["programs"])


def _is_healthy(circusd: Circusd) -> None:
    """See that there is something to look at: every agent is up on a terminal.

    Raises:
        RuntimeError: one is not.
    """
    bad = [
        agent["identity"]
        for agent in circusd.call("fleet")["agents"]
        if agent["phase"] != "up" or agent["last_activity"] is None
    ]
    if bad:
        raise RuntimeError(f"not up, or on no terminal: {', '.join(bad[:10])}")


def _had_no_errors(circusd: Circusd, ticks: int) -> None:
    """See that every tick did its work, report to circusd included.

    Raises:
        RuntimeError: one did not.
    """
    reader = open_reader(circusd.state / "failover.db")
    try:
        rows = reader.plugins()
    finally:
        reader.close()
    for name in PLUGINS:
        row = rows.get(name)
        if row is None or row.ticks < ticks or row.errors:
            raise RuntimeError(f"{name} did not tick {ticks} times without an error: {row}")


def _results(
    size: int, ours: Sequence[Ticks], naive: Ticks, circusd: Sequence[float], with_goal: bool
) -> list[Result]:
    # Each plugin ticks in a process of its own; together they look at everything once.
    each = {name: [secs * 1000 for secs in run.cpu[1:]] for name, run in zip(PLUGINS, ours, strict=True)}
    both = sum(middle(cpu) for cpu in each.values())
    beside = naive.cpu[0] * 1000
    counted = sum(len(run.cpu) for run in ours)
    parts = " + ".join(f"{middle(cpu):.1f}" for cpu in each.values())
    results = [
        Result(
            benchmark="supervise",
            what=f"supervise tick, {size} agents, CPU",
            ours=Figure(both, "ms", f"{' + '.join(PLUGINS)}: {parts}"),
            beside=Figure(beside, "ms", "a tmux and a scan of the processes an agent"),
            ratio=both / beside,
            goal=GOAL_MS if with_goal else None,
            details={
                "cpu_ms": each,
                "first_cpu_ms": {name: run.cpu[0] * 1000 for name, run in zip(PLUGINS, ours, strict=True)},
                "clock_ms": {
                    name: [secs * 1000 for secs in run.clock] for name, run in zip(PLUGINS, ours, strict=True)
                },
                "naive_clock_ms": naive.clock[0] * 1000,
            },
        )
    ]
    if with_goal:
        results += [
            Result(
                benchmark="supervise",
                what=f"the same, {size} agents, by the naive one's",
                ours=Figure(both, "ms"),
                beside=Figure(beside, "ms"),
                ratio=both / beside,
                goal=GOAL_RATIO,
                goal_of="ratio",
            ),
            Result(
                benchmark="supervise",
                what=f"programs started in {counted} ticks, {size} healthy agents",
                ours=Figure(sum(run.programs for run in ours), "programs"),
                beside=Figure(naive.programs, "in one naive tick"),
                goal=0,
            ),
        ]
    if circusd:
        results.append(
            Result(
                benchmark="supervise",
                what=f"circusd's own look at every process, {size} agents",
                ours=Figure(middle([secs * 1000 for secs in circusd]), "ms", "every 10 s"),
                details={"ms": [secs * 1000 for secs in circusd]},
            )
        )
    return results
