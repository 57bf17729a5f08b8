"""What a keeper weighs, beside a shell that waits for a tmux client."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.large import LargeFleet
from benchmarks.result import Figure, Result, middle
from circus_failover import process_table

GOAL_KB = 500.0


def pss(pid: int) -> float:
    """Return a process's proportional set size in kB (Linux)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def benchmark(ground: Ground, fleet: LargeFleet, count: int) -> list[Result]:
    """Measure `count` keepers of a fleet, and as many shells with a client each on the same servers."""
    circusd = fleet.run()
    chosen = circusd.names[:: max(1, len(circusd.names) // count)][:count]
    keepers = [pid for name in chosen for pid in circusd.call("list", name=name)["pids"]]
    ours = [pss(pid) for pid in keepers]
    shells = [
        ground.popen(
            ["sh", "-c", f"tmux -S {circusd.state}/tmux/{name}.sock wait-for benchmark; :"],
            ground.folder / "log",
        )
        for name in chosen
    ]
    try:
        time.sleep(1.0)
        table = process_table.table()
        beside = []
        for shell in shells:
            pids = [shell.pid, *(pid for pid, stat in table.items() if stat.parent == shell.pid)]
            beside.append(sum(pss(pid) for pid in pids))
    finally:
        for shell in shells:
            for process in process_table.descendants(process_table.ProcessId(shell.pid, _start(shell.pid))):
                with contextlib.suppress(process_table.ProbeFailed):
                    process_table.send(process, signal.SIGKILL)
            shell.wait()
    return [
        Result(
            benchmark="keepers",
            what=f"PSS of a keeper, {words} of {len(ours)}",
            ours=Figure(value, "kB"),
            beside=Figure(other, "kB", "sh -c with tmux wait-for"),
            ratio=value / other,
            goal=GOAL_KB,
            details={"fleet": fleet.count},
        )
        for words, value, other in (
            ("median", middle(ours), middle(beside)),
            ("maximum", max(ours), max(beside)),
        )
    ]


def _start(pid: int) -> int:
    stat = process_table.read(pid)
    return stat.id.start if stat else 0
