"""How long an operator waits for `failoverctl fleet`, beside `circusctl status` of the same circusd."""

from __future__ import annotations

import resource
import subprocess
import time

from benchmarks.ground import BIN, Ground, say
from benchmarks.large import LargeFleet
from benchmarks.result import Figure, Result, middle

GOAL_SECS = 0.5
COMMANDS = {
    "failoverctl fleet": ("failoverctl", "fleet"),
    "failoverctl --json fleet": ("failoverctl", "--json", "fleet"),
    "circusctl status": ("circusctl", "status"),
}


def benchmark(ground: Ground, fleet: LargeFleet, rounds: int) -> list[Result]:
    """Run each command `rounds` times, in turn, and compare the medians of the whole processes' times."""
    circusd = fleet.run()
    say(f"{rounds} times each: {', '.join(COMMANDS)}")
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    cores: dict[str, list[float]] = {name: [] for name in COMMANDS}
    environment = {**ground.environment, "CIRCUSCTL_ENDPOINT": circusd.endpoint}
    for _ in range(rounds):
        for name, (program, *arguments) in COMMANDS.items():
            cpu, begun = _cpu_of_children(), time.perf_counter()
            done = subprocess.run(
                [str(BIN / program), *arguments], env=environment, capture_output=True, text=True
            )
            seconds[name].append(time.perf_counter() - begun)
            cores[name].append(_cpu_of_children() - cpu)
            if done.stdout.count("agent-") < fleet.count:
                shown = f"exit {done.returncode}: {done.stdout[:400]}{done.stderr[-400:]}"
                raise RuntimeError(f"{name} does not show {fleet.count} agents: {shown}")

    def figure(name: str, words: str) -> Figure:
        return Figure(middle(seconds[name]), "s", f"{words} ({middle(cores[name]):.2f} s of CPU)")

    beside = figure("circusctl status", "circusctl status")
    return [
        Result(
            benchmark="fleet",
            what=f"{name}, {fleet.count} agents",
            ours=figure(name, f"median of {rounds}"),
            beside=beside,
            ratio=middle(seconds[name]) / beside.value,
            goal=GOAL_SECS,
            details={"seconds": seconds[name], "beside_seconds": seconds["circusctl status"]},
        )
        for name in COMMANDS
        if name != "circusctl status"
    ]


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
