"""The command line: which benchmarks to run, how large, and how to show what they found."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from circus.exc import CallError

from benchmarks import (
    canary,
    clients,
    dispatch,
    failover,
    fleet_view,
    hook_times,
    idle,
    keepers,
    starting,
    supervise,
    waking,
    web,
    work,
)
from benchmarks.ground import Ground, say
from benchmarks.large import LargeFleet
from benchmarks.result import Result, markdown, table

NAMES = (
    *("start", "wakes", "supervise", "canary", "hooks", "wake", "keepers", "fleet", "idle", "clients"),
    *("dispatch", "work", "failover", "web"),
)


WAITING_FOR_EACH = 20
"""How many assignments wait, by the agents of the large fleet."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    started: int
    rounds: int
    supervised: tuple[int, ...]
    ticks: int
    large: int
    cycles: int
    wakes: int
    keepers: int
    commands: int
    small: tuple[int, ...]
    delays: tuple[float, ...]
    idle_secs: float
    watched: tuple[int, ...]
    kills: int
    still_secs: float
    clients: int
    pool: int
    assignments: int
    work_secs: float
    limits: int
    limited: int
    seen: int
    looked_secs: float
    minutes: int


FULL = Size(
    100,
    3,
    (10, 100, 500),
    20,
    500,
    120,
    30,
    50,
    10,
    (10, 100),
    (1.0, 5.0),
    20.0,
    (1, 100, 500),
    200,
    60.0,
    10,
    50,
    1000,
    10.0,
    10,
    20,
    20,
    60.0,
    10,
)
QUICK = Size(
    20,
    1,
    (10, 60),
    5,
    60,
    30,
    5,
    20,
    3,
    (10,),
    (1.0,),
    10.0,
    (1, 50),
    10,
    5.0,
    2,
    10,
    100,
    2.0,
    2,
    3,
    3,
    5.0,
    1,
)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure what supervising agents costs, beside something comparable in the same run.",
        epilog="Everything runs in temporary directories on private sockets and is ended afterwards. "
        "Linux only. "
        "Exit codes: 0 done, 1 a benchmark failed, or with --strict a goal is not met; "
        "2 usage, or something is missing.",
    )
    names = ", ".join(NAMES)
    made.add_argument(
        "--only", action="append", choices=NAMES, metavar="NAME", help=f"one of {names}; repeatable"
    )
    made.add_argument(
        "--quick", action="store_true", help="small fleets, to see that it works; not to be quoted"
    )
    made.add_argument("--strict", action="store_true", help="exit 1 when a goal is not met")
    made.add_argument(
        "--minutes",
        type=int,
        metavar="N",
        help=f"for how long `web` looks at the console's memory ({FULL.minutes}; 0: not at all)",
    )
    shape = made.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="all figures as JSON")
    shape.add_argument("--markdown", action="store_true", help="the table as Markdown")
    return made


def measure(chosen: tuple[str, ...], size: Size) -> list[Result]:
    """Run benchmarks and return their results, in the table's order."""
    alone: dict[str, Callable[[], list[Result]]] = {
        "start": lambda: starting.benchmark(size.started, size.rounds),
        "wakes": lambda: waking.many(size.started, size.rounds),
        "supervise": lambda: supervise.benchmark(size.supervised, size.ticks),
        "clients": lambda: clients.benchmark(size.clients),
        "canary": lambda: canary.benchmark(size.watched, size.kills, size.rounds, size.still_secs),
        "dispatch": lambda: dispatch.benchmark(size.large, WAITING_FOR_EACH * size.large, size.ticks),
        "work": lambda: work.benchmark(size.pool, size.assignments, size.work_secs),
        "failover": lambda: failover.benchmark(size.limits, size.limited),
        "web": lambda: web.benchmark(size.large, size.seen, size.looked_secs, size.minutes),
    }
    found: dict[str, list[Result]] = {}
    for name, run in alone.items():
        if name in chosen:
            try:
                found[name] = run()
            except (RuntimeError, OSError, CallError) as error:
                say(f"{name} FAILED, the others go on: {error}")
    if set(chosen) - set(alone):
        with Ground() as ground:
            large = LargeFleet(ground, size.large)
            runs: dict[str, Callable[[], list[Result]]] = {
                "hooks": lambda: hook_times.benchmark(ground, large, size.cycles),
                "wake": lambda: waking.one(ground, large, size.wakes),
                "keepers": lambda: keepers.benchmark(ground, large, size.keepers),
                "fleet": lambda: fleet_view.benchmark(ground, large, size.commands),
                "idle": lambda: idle.benchmark(ground, large, size.small, size.delays, size.idle_secs),
            }
            for name, run in runs.items():
                if name in chosen:
                    try:
                        found[name] = run()
                    except (RuntimeError, OSError, CallError) as error:
                        say(f"{name} FAILED, the others go on: {error}")
                        print(large.circusd.last_words(), file=sys.stderr)
            say("ending everything")
    return [result for name in NAMES for result in found.get(name, [])]


def machine() -> str:
    """Return what the figures depend on, in one line."""
    release = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} cores, {platform.system()} {release}, Python {platform.python_version()}"


def load_average() -> str:
    """Return how busy the machine was; other work on it shows in every figure but the ratios."""
    return "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())


def main() -> int:
    """Run the command line and return its exit code."""
    arguments = parser().parse_args()
    if not sys.platform.startswith("linux") or shutil.which("tmux") is None:
        print("benchmarks: they need Linux (for /proc) and tmux on PATH", file=sys.stderr)
        return 2

    def ended(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGHUP, ended)
    begun = time.monotonic()
    chosen = tuple(arguments.only or NAMES)
    size = QUICK if arguments.quick else FULL
    if arguments.minutes is not None:
        size = replace(size, minutes=arguments.minutes)
    try:
        results = measure(chosen, size)
    except KeyboardInterrupt:
        return 130
    took = time.monotonic() - begun
    if arguments.json:
        answer: dict[str, Any] = {"machine": machine(), "seconds": round(took, 1), "load": os.getloadavg()}
        print(json.dumps({**answer, "results": [result.as_json() for result in results]}, indent=2))
    elif arguments.markdown:
        print(markdown(results))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(table(results, width))
        remark = "; --quick: not to be quoted" if arguments.quick else ""
        print(f"\n{machine()}; took {took:.0f} s; load average {load_average()}{remark}")
    failed = {result.benchmark for result in results} != set(chosen)
    return 1 if failed or (arguments.strict and any(result.met is False for result in results)) else 0


if __name__ == "__main__":
    sys.exit(main())
