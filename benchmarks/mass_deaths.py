"""Arming all servers, and all of them killed at once: the canary beside the classic design."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.deathwatch import CLASSIC, Canary, Site, Spent, two_designs
from benchmarks.ground import say
from benchmarks.lone_servers import TIMEOUT_SECS, Server, kill
from benchmarks.result import Figure, Result, middle

BATCH_GOAL_MS, ARMING_GOAL_MS = 300.0, 200.0
SETTLE_SECS = 1.0
QUIET_SECS = 0.5
"""Without a word for so long, the reports are counted."""


@dataclass(frozen=True)
class Round:
    """Everything that is done with all servers at once, in milliseconds."""

    at_start: float
    pokes: float
    """One after another, each answered."""
    burst: float
    """Told as circusd does, without waiting for the canary."""
    untold: int
    """How many of these could not be told at first."""
    classic_arming: float
    durable: float
    """From the first SIGKILL until the last record was durable."""
    classic_durable: float
    kills: float
    """From the first SIGKILL to the last."""
    cpu: tuple[float, float, float, float]
    """What the canary itself used for the first three and for the deaths."""
    reports: int
    recorded: list[float]
    """The times of death as recorded, after the first SIGKILL."""
    noticed: list[float]
    """The same, each after its own SIGKILL."""

    def as_details(self) -> dict[str, Any]:
        """Return what tells of the deaths."""
        return {
            "durable_ms": self.durable,
            "classic_ms": self.classic_durable,
            "kills_ms": self.kills,
            "cpu_ms": self.cpu,
            "reports": self.reports,
            "distinct_times": len(set(self.recorded)),
            "recorded_ms": [min(self.recorded), max(self.recorded)],
            "noticed_ms": [min(self.noticed), middle(self.noticed), max(self.noticed)],
        }


def benchmark(size: int, rounds: int) -> list[Result]:
    """Arm so many servers in every way, and kill them.

    Args:
        size: how many servers each design watches.
        rounds: how often; the median counts.
    """
    measured = []
    for number in range(1, rounds + 1):
        say(f"arming and killing {size} servers, round {number} of {rounds}")
        with two_designs(size) as site:
            measured.append(_round(site))
    details = {"rounds": [each.as_details() for each in measured]}

    def result(what: str, ours: str, beside: str, goal: float, part: int, note: str = "") -> Result:
        cpu = middle([each.cpu[part] for each in measured])
        pairs = [(getattr(each, ours), getattr(each, beside)) for each in measured]
        return Result(
            benchmark="canary",
            what=what,
            ours=Figure(middle([one for one, _ in pairs]), "ms", f"(its CPU {cpu:.0f}){note}"),
            beside=Figure(middle([other for _, other in pairs]), "ms", CLASSIC),
            ratio=middle([one / other for one, other in pairs]),
            goal=goal,
        )

    untold = max(each.untold for each in measured)
    remark = f", {untold} not at the first try" if untold else ""
    distinct = min(measured, key=lambda each: len(set(each.recorded)))
    late = max(max(each.noticed) for each in measured)
    arming, durable = "classic_arming", "classic_durable"
    return [
        result(f"{size} killed at once, until all are durable", "durable", durable, BATCH_GOAL_MS, 3),
        Result(
            benchmark="canary",
            what=f"times of death among these {size}, told apart",
            ours=Figure(
                len(set(distinct.recorded)),
                "times",
                f"over {max(distinct.recorded) - min(distinct.recorded):.0f} ms, at most {late:.1f} ms late",
            ),
            beside=Figure(distinct.kills, "ms", "from the first SIGKILL to the last"),
            details=details,
        ),
        result(f"arming {size}: exec of the canary, all on its list", "at_start", arming, ARMING_GOAL_MS, 0),
        result(f"arming {size}: one after another, each answered", "pokes", arming, ARMING_GOAL_MS, 1),
        result(f"arming {size}: pokes without waiting", "burst", arming, ARMING_GOAL_MS, 2, remark),
    ]


def _round(site: Site) -> Round:
    canary, shells = site.canary, site.shells
    for server in site.ours:
        canary.put(server)
    at_start = canary.start()
    cpu = [Spent.of(canary.pids()).cpu_ms]
    canary.armed(site.ours)
    canary.end()
    canary.start()
    before = Spent.of(canary.pids())
    begun = time.perf_counter()
    for server in site.ours:
        canary.arm(server)
    pokes = time.perf_counter() - begun
    cpu.append(Spent.of(canary.pids()).cpu_ms - before.cpu_ms)
    canary.armed(site.ours)
    canary.end()
    canary.start()
    before = Spent.of(canary.pids())
    burst, untold = _burst(canary, site.ours)
    cpu.append(Spent.of(canary.pids()).cpu_ms - before.cpu_ms)
    classic_arming = shells.arm(*site.beside)
    time.sleep(SETTLE_SECS)
    before = Spent.of(canary.pids())
    killed, durable, reports, deaths = _kill_all(canary, site.ours)
    cpu.append(Spent.of([canary.process().pid]).cpu_ms - before.cpu_ms)
    canary.check(site.ours, deaths)
    canary.settle(deaths)
    at = dict(zip((server.process.pid for server in site.ours), killed, strict=True))
    time.sleep(SETTLE_SECS)
    first = kill(site.beside)[0]
    stamps = [shells.stamps.next()[1] for _ in site.beside]
    shells.check(site.beside)
    return Round(
        at_start=at_start * 1e3,
        pokes=pokes * 1e3,
        burst=burst * 1e3,
        untold=untold,
        classic_arming=classic_arming * 1e3,
        durable=(durable - killed[0]) / 1e6,
        classic_durable=(max(stamps) - first) / 1e6,
        cpu=(cpu[0], cpu[1], cpu[2], cpu[3]),
        kills=(killed[-1] - killed[0]) / 1e6,
        reports=reports,
        recorded=[each["at"] * 1e3 - killed[0] / 1e6 for each in deaths],
        noticed=[each["at"] * 1e3 - at[each["pid"]] / 1e6 for each in deaths],
    )


def _burst(canary: Canary, servers: Sequence[Server]) -> tuple[float, int]:
    """Tell the canary of servers without waiting for it, and again where it could not be told.

    Returns:
        The seconds until all are armed, and how many could not be told at first.
    """
    begun = time.time()
    waiting = []
    for server in servers:
        canary.put(server)
        if not canary.poke(server):
            waiting.append(server)
    untold = len(waiting)
    for server in waiting:
        canary.look(server)
    return max(canary.armed(servers)) - begun, untold


def _kill_all(canary: Canary, servers: Sequence[Server]) -> tuple[list[int], int, int, list[dict[str, Any]]]:
    """Kill servers at once.

    Returns:
        When each was killed, when the last record was durable (both in epoch nanoseconds), how many reports
        there were, and all deaths in them.
    """
    killed = kill(servers)
    deaths: list[dict[str, Any]] = []
    last, begun, reports, until = 0, 0, 0, time.monotonic() + TIMEOUT_SECS
    # Nothing is parsed while the canary works: it would have a core less, and only 10 datagrams are queued.
    while len(deaths) < len(servers):
        try:
            while True:
                _, last = canary.stamps.next(QUIET_SECS)
        except TimeoutError as error:
            for report in canary.take():
                begun, reports, deaths = report.begun, reports + 1, deaths + report.deaths
            if len(deaths) < len(servers) and time.monotonic() > until:
                raise RuntimeError(
                    f"{len(deaths)} of {len(servers)} deaths in {reports} reports: {canary.state_of_things()}"
                ) from error
    while last < begun:
        # It was taken before the canary told of it.
        _, last = canary.stamps.next()
    return killed, last, reports, deaths
