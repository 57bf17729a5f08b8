"""The canary beside the classic design, one shell a server that waits in `tmux wait-for`.

Each design watches as many servers of its own, at the same time, and each figure is taken of both in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import mass_deaths
from benchmarks.deathwatch import CLASSIC, Canary, Site, Spent, disk, file_system, resolution, two_designs
from benchmarks.ground import say
from benchmarks.keepers import pss
from benchmarks.lone_servers import Server, kill
from benchmarks.result import Figure, Result, middle, percentile

MEDIAN_GOAL_MS, P99_GOAL_MS, MEMORY_GOAL_MB = 2.0, 10.0, 12.0
SETTLE_SECS = 1.0
PAUSE_SECS = 0.03
"""Before a death: what its replacement's start left to do is over then."""


def benchmark(sizes: Sequence[int], kills: int, rounds: int, still_secs: float) -> list[Result]:
    """Measure single deaths at all sizes, and everything else at the largest.

    Args:
        sizes: how many servers each design watches, ascending.
        kills: how many single servers are killed at each size.
        rounds: how often all are armed, and all are killed at once.
        still_secs: how long to look while nothing happens.
    """
    results, largest, own = [], sizes[-1], resolution()
    for size in sizes:
        say(f"starting twice {size} servers")
        with two_designs(size) as site:
            for server in site.ours:
                site.canary.put(server)
            site.canary.start()
            site.canary.armed(site.ours)
            site.shells.arm(*site.beside)
            time.sleep(SETTLE_SECS)
            before = _memory(site)
            still = _still(site, still_secs) if size == largest else []
            where = file_system(site.folder)
            say(f"{kills} single deaths among {size} servers, records on {where}")
            results += _singles(site, kills, own)
            if size == largest:
                after = _memory(site)
                results += [_weight(size, "", before), _weight(size, f" after {kills} deaths", after)]
                results += still
    results += _first_deaths(max(5, kills // 10))
    return results + mass_deaths.benchmark(largest, rounds)


# ---- single deaths


def _singles(site: Site, kills: int, own: list[float]) -> list[Result]:
    """Kill one server of each design in turn, and start and arm another in its place."""
    ours: list[Death] = []
    beside, bare = [], []
    size = len(site.ours)
    for _ in range(kills):
        time.sleep(PAUSE_SECS)
        ours.append(_death(site.canary, site.ours.pop(0)))
        site.ours += site.servers.start(1)
        site.canary.arm(site.ours[-1])
        time.sleep(PAUSE_SECS)
        server = site.beside.pop(0)
        (at,) = kill([server])
        _, stamp = site.shells.stamps.next()
        site.shells.check([server])
        beside.append((stamp - at) / 1e6)
        site.beside += site.servers.start(1)
        site.shells.arm(site.beside[-1])
        time.sleep(PAUSE_SECS)
        bare.append(disk(site.folder))
    durable = [death.durable for death in ours]
    noticed, line = middle([death.noticed for death in ours]), middle([death.line for death in ours])
    details = {
        "ours_ms": [vars(death) for death in ours],
        "beside_ms": beside,
        "disk_ms": bare,
        "resolution_ms": [middle(own), max(own)],
        "file_system": file_system(site.folder),
    }
    what = f"SIGKILL to durable record, {size} watched"
    pairs = [one / other for one, other in zip(durable, beside, strict=True)]
    tails = percentile(durable, 0.99), percentile(beside, 0.99)
    return [
        Result(
            benchmark="canary",
            what=f"{what}, median of {kills}",
            ours=Figure(middle(durable), "ms", f"(noticed {noticed:.2f}, line {line:.2f})"),
            beside=Figure(middle(beside), "ms", f"{CLASSIC}; disk alone {middle(bare):.2f}"),
            ratio=middle(pairs),
            goal=MEDIAN_GOAL_MS,
            details=details,
        ),
        Result(
            benchmark="canary",
            what=f"{what}, p99",
            ours=Figure(tails[0], "ms"),
            beside=Figure(tails[1], "ms", f"{CLASSIC}; disk alone {percentile(bare, 0.99):.2f}"),
            ratio=tails[0] / tails[1],
            goal=P99_GOAL_MS,
        ),
    ]


@dataclass(frozen=True)
class Death:
    """What came when, in milliseconds after SIGKILL."""

    noticed: float
    """The time of death as recorded."""
    line: float
    """The line in exits.log was durable, and the report begun."""
    durable: float
    """The report was durable, too."""


def _death(canary: Canary, server: Server) -> Death:
    """Kill one server, and wait until its record is durable and what follows is done."""
    (at,) = kill([server])
    _, stamp = canary.stamps.next()
    (report,) = canary.take()
    canary.check([server], report.deaths)
    canary.settle(report.deaths)
    return Death(
        noticed=report.deaths[0]["at"] * 1e3 - at / 1e6,
        line=(report.begun - at) / 1e6,
        durable=(stamp - at) / 1e6,
    )


def _first_deaths(count: int) -> list[Result]:
    """The same for canaries that have not seen a death before, each with one server."""
    say(f"the first death of {count} canaries")
    ours, beside = [], []
    with two_designs(count) as site:
        site.shells.arm(*site.beside)
        for server, other in zip(site.ours, site.beside, strict=True):
            site.canary.put(server)
            site.canary.start()
            site.canary.armed([server])
            time.sleep(SETTLE_SECS)
            ours.append(_death(site.canary, server).durable)
            site.canary.end()
            (at,) = kill([other])
            beside.append((site.shells.stamps.next()[1] - at) / 1e6)
    return [
        Result(
            benchmark="canary",
            what=f"the same, the first death a canary sees, median of {count}",
            ours=Figure(middle(ours), "ms"),
            beside=Figure(middle(beside), "ms", CLASSIC),
            ratio=middle([one / other for one, other in zip(ours, beside, strict=True)]),
            goal=MEDIAN_GOAL_MS,
            details={"ours_ms": ours, "beside_ms": beside},
        )
    ]


# ---- memory and rest


def _memory(site: Site) -> tuple[float, float, float]:
    """Return the PSS in MB of each design, and the RSS of ours."""
    pids = site.canary.pids()
    resident = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return (
        sum(map(pss, pids)) / 1000,
        sum(map(pss, site.shells.pids())) / 1000,
        resident * os.sysconf("SC_PAGESIZE") / 1024 / 1000,
    )


def _weight(size: int, when: str, memory: tuple[float, float, float]) -> Result:
    ours, beside, resident = memory
    return Result(
        benchmark="canary",
        what=f"PSS, {size} watched{when}",
        ours=Figure(ours, "MB", f"(RSS {resident:.1f})"),
        beside=Figure(beside, "MB", CLASSIC),
        ratio=ours / beside,
        goal=MEMORY_GOAL_MB,
    )


def _still(site: Site, seconds: float) -> list[Result]:
    """Look at both designs while nothing happens."""
    size = len(site.ours)
    say(f"looking at {size} idle servers for {seconds:g} s")
    all_pids = site.canary.pids(), site.shells.pids()
    before = [Spent.of(pids) for pids in all_pids]
    time.sleep(seconds)
    after = [Spent.of(pids) for pids in all_pids]
    wakes = [now.wakes - was.wakes for was, now in zip(before, after, strict=True)]
    cpu = [now.cpu_ms - was.cpu_ms for was, now in zip(before, after, strict=True)]
    return [
        Result(
            benchmark="canary",
            what=f"{words} in {seconds:g} s in which nothing happens, {size} watched",
            ours=Figure(values[0], unit),
            beside=Figure(values[1], unit, CLASSIC),
            goal=0.0,
        )
        for words, unit, values in (("wake-ups", "times", wakes), ("CPU", "ms", cpu))
    ]
