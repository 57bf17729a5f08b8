"""How long each hook keeps circusd's only loop, in a large fleet: starting, adopting, and day by day."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Circusd, Ground, say
from benchmarks.large import LargeFleet
from benchmarks.result import Figure, Result, middle, percentile

STEADY_MS, MASS_MS, GATE_MS = 5.0, 25.0, 1.0
HOOKS = ("before_start", "before_spawn", "after_spawn", "before_stop", "extended_stats")


@dataclass(frozen=True)
class Taken:
    """One call of a hook."""

    hook: str
    at: float
    """Epoch seconds at its begin."""
    clock_ms: float
    own_ms: float
    """Without the time in which circusd was ready to run and other processes had the cores."""


def benchmark(ground: Ground, fleet: LargeFleet, cycles: int) -> list[Result]:
    """Measure hooks in a circusd that starts the whole fleet, works with single agents, and adopts it.

    Args:
        ground: where the measurements go.
        fleet: not started yet.
        cycles: how many single agents are reloaded, and half as many stopped and started.
    """
    first, second = ground.folder / "times-first.json", ground.folder / "times-second.json"
    circusd = fleet.run(times=first)
    time.sleep(1.0)
    steady_from = time.time()
    say(f"{cycles} reloads and {cycles // 2} stops and starts of single agents")
    _work(circusd, cycles)
    fleet.end()
    ended_from = _read(first)
    # The last before_stop calls belong to circusd's own end, when all keepers go at once.
    steady_until = time.time()
    taken = [each for each in ended_from if each.at < steady_until]
    quit_from = _begin_of_quit(taken, fleet.count)
    fleet.run(times=second)
    fleet.end()
    phases = (
        ("mass start", MASS_MS, [each for each in taken if each.at < steady_from]),
        ("adopting all", MASS_MS, [each for each in _read(second) if each.hook != "before_stop"]),
        ("single agents", STEADY_MS, [each for each in taken if steady_from <= each.at < quit_from]),
    )
    results = []
    for phase, goal, calls in phases:
        for name in (*HOOKS, "gate"):
            of_hook = [each for each in calls if each.hook == name]
            if len(of_hook) >= 10:
                results.append(_result(f"{fleet.count} agents, {phase}", name, of_hook, goal))
    return results


def _begin_of_quit(taken: list[Taken], count: int) -> float:
    """When circusd began to end: it stops every watcher then."""
    stops = [each.at for each in taken if each.hook == "before_stop"]
    return stops[-count] if len(stops) >= count else float("inf")


def _result(phase: str, name: str, calls: list[Taken], goal: float) -> Result:
    own, clock = [each.own_ms for each in calls], [each.clock_ms for each in calls]
    what = "the gate alone (3 links, 2 accounts)" if name == "gate" else name
    return Result(
        benchmark="hooks",
        what=f"{phase}: {what}",
        ours=Figure(percentile(own, 0.99), "ms", f"p99; median {middle(own):.2f}"),
        beside=Figure(percentile(clock, 0.99), "ms", "p99 by the clock"),
        goal=GATE_MS if name == "gate" else goal,
        details={"calls": len(calls), "own_ms": _spread(own), "clock_ms": _spread(clock)},
    )


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": middle(values),
        "p90": percentile(values, 0.9),
        "p99": percentile(values, 0.99),
        "max": max(values),
    }


def _read(path: Path) -> list[Taken]:
    measured: Iterable[tuple[str, float, float, float]] = json.loads(path.read_text())
    return [
        Taken(name, at, clock * 1000, (clock - without_core) * 1000)
        for name, at, clock, without_core in measured
    ]


def _work(circusd: Circusd, cycles: int) -> None:
    """What operators do all day, two at a time."""
    chosen = random.Random(1).sample(circusd.names, min(cycles, len(circusd.names)))

    def one(task: tuple[int, str]) -> None:
        number, name = task
        circusd.call("stats", name=name, extended=True)
        circusd.call("reload", name=name, graceful=True, waiting=True)
        if number % 2 == 0:
            circusd.call("stop", name=name, waiting=True)
            circusd.call("start", name=name, waiting=True)

    with ThreadPoolExecutor(2) as operators:
        list(operators.map(one, enumerate(chosen)))
