"""What circusd costs when nothing happens, beside plain Circus with as many watchers that sleep."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Circusd, Ground, say
from benchmarks.large import LargeFleet
from benchmarks.result import Figure, Result

SETTLE_SECS = 3.0


@dataclass(frozen=True)
class Cpu:
    """Seconds of CPU a process has used, itself and the children it has waited for."""

    own: float
    children: float


def cpu(pid: int) -> Cpu:
    """Read utime, stime, cutime and cstime (fields 14 to 17 of /proc/PID/stat, proc(5))."""
    raw = Path(f"/proc/{pid}/stat").read_bytes()
    fields = raw[raw.rindex(b")") + 2 :].split()
    ticks = os.sysconf("SC_CLK_TCK")
    utime, stime, cutime, cstime = (int(field) / ticks for field in fields[11:15])
    return Cpu(utime + stime, cutime + cstime)


def benchmark(
    ground: Ground, fleet: LargeFleet, sizes: Sequence[int], delays: Sequence[float], seconds: float
) -> list[Result]:
    """Measure fleets of all sizes side by side, for each check_delay.

    Args:
        ground: where the smaller fleets and the plain circusds go.
        fleet: the largest one.
        sizes: how many agents, besides those of `fleet`.
        delays: Circus's check_delay, in seconds.
        seconds: how long to look.
    """
    smaller = {size: Circusd(ground, f"agents-{size}") for size in sizes}
    plain = {size: Circusd(ground, f"plain-{size}") for size in (*sizes, fleet.count)}
    for size, circusd in smaller.items():
        circusd.agents(size, started=ground.started(f"started-{size}"), check_delay=1.0)
    results = []
    for delay in delays:
        for size, circusd in plain.items():
            circusd.sleeps(size, check_delay=delay)
        for circusd in smaller.values():
            circusd.set_check_delay(delay)
        # The large fleet first: starting it would be seen in what the others are measured by.
        agents = {**smaller, fleet.count: fleet.run(check_delay=delay)}
        others = [*smaller.values(), *plain.values()]
        for circusd in others:
            circusd.start()
        for circusd in others:
            circusd.await_all()
        time.sleep(SETTLE_SECS)
        say(f"looking at {len(agents) + len(plain)} idle circusds for {seconds:g} s, check_delay {delay:g} s")
        used = _used([*agents.values(), *plain.values()], seconds)
        for size, circusd in agents.items():
            own, beside = used[circusd.pid], used[plain[size].pid]
            results.append(
                Result(
                    benchmark="idle",
                    what=f"idle CPU, {size} agents, check_delay {delay:g} s",
                    ours=_percent(own),
                    beside=_percent(beside, "plain Circus"),
                    ratio=_all(own) / _all(beside) if _all(beside) else None,
                    details={
                        "own_percent": own.own,
                        "children_percent": own.children,
                        "beside_own_percent": beside.own,
                        "beside_children_percent": beside.children,
                    },
                )
            )
        for circusd in others:
            circusd.end()
    return results


def _used(circusds: Sequence[Circusd], seconds: float) -> dict[int, Cpu]:
    """Return what each used, in per cent of one core, by pid."""
    before = {circusd.pid: cpu(circusd.pid) for circusd in circusds}
    begun = time.monotonic()
    time.sleep(seconds)
    after = {pid: cpu(pid) for pid in before}
    per_cent = 100 / (time.monotonic() - begun)
    return {
        pid: Cpu((after[pid].own - was.own) * per_cent, (after[pid].children - was.children) * per_cent)
        for pid, was in before.items()
    }


def _all(used: Cpu) -> float:
    return used.own + used.children


def _percent(used: Cpu, note: str = "") -> Figure:
    children = f"(children {used.children:.2f})" if used.children >= 0.005 else ""
    return Figure(round(_all(used), 2), "%", " ".join(text for text in (children, note) if text))
