"""Starting agents through circusd, beside a plain loop of `tmux new-session`, each with its own server."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Circusd, Ground, last_started, say, until
from benchmarks.result import Figure, Result, middle
from circus_failover import tmux
from circus_failover.store import open_reader

LOOP = """\
number=0
while [ "$number" -lt "$1" ]; do
  tmux -S "$2/$number.sock" -f "$3" new-session -d -s agent -x 220 -y 50 -c "$4" sh "$5" "$6/$number"
  number=$((number + 1))
done
"""


@dataclass(frozen=True)
class Round:
    """Seconds from different beginnings until the last of all agents ran."""

    loop: float
    from_exec: float
    from_first_launch: float
    from_start_verb: float


def benchmark(count: int, rounds: int) -> list[Result]:
    """Measure and compare.

    Args:
        count: how many agents.
        rounds: how often; the median counts.
    """
    measured = []
    for number in range(1, rounds + 1):
        say(f"starting {count} agents, round {number} of {rounds}")
        measured.append(_round(count))
    beside = Figure(middle([each.loop for each in measured]), "s", "plain loop of tmux new-session")
    lines = (
        ("from circusd's first launch", "from_first_launch", 2.0),
        ("from `start '*'`, circusd running", "from_start_verb", 2.0),
        ("from exec of circusd", "from_exec", None),
    )
    results = []
    for words, name, goal in lines:
        seconds = [getattr(each, name) for each in measured]
        ratios = [getattr(each, name) / each.loop for each in measured]
        results.append(
            Result(
                benchmark="start",
                what=f"start {count} agents, {words}",
                ours=Figure(middle(seconds), "s"),
                beside=beside,
                ratio=middle(ratios),
                goal=goal,
                goal_of="ratio",
                details={
                    "seconds": seconds,
                    "loop_seconds": [each.loop for each in measured],
                    "ratios": ratios,
                },
            )
        )
    return results


def _round(count: int) -> Round:
    loop = plain_loop(count)
    from_exec, from_first_launch = _circusd(count)
    return Round(loop, from_exec, from_first_launch, _start_verb(count))


def plain_loop(count: int) -> float:
    """Return the seconds that a shell needs to start so many sessions, each with its own server."""
    with Ground() as ground:
        started, sockets = ground.started("started"), ground.started("sockets")
        config = ground.folder / "tmux.conf"
        config.write_text(tmux.OWN_SERVER_CONFIG)
        begun = time.time()
        loop: list[str | Path] = ["sh", "-c", LOOP, "loop", str(count)]
        child = ground.popen(
            [*loop, sockets, config, ground.work, ground.script, started], ground.folder / "log"
        )
        if child.wait(180) != 0:
            raise subprocess.CalledProcessError(child.returncode, "tmux new-session")
        return last_started(started, count) - begun


def _circusd(count: int) -> tuple[float, float]:
    """Return the seconds since exec of circusd, and since the first launch it recorded."""
    with Ground() as ground:
        started = ground.started("started")
        circusd = Circusd(ground, "fleet")
        circusd.agents(count, started=started, check_delay=1.0)
        begun = time.time()
        circusd.start()
        ended = last_started(started, count)
        circusd.await_all()
        reader = open_reader(circusd.state / "failover.db")
        try:
            first = min(reader.launches(name, 1)[0].started_at for name in circusd.names)
        finally:
            reader.close()
        return ended - begun, ended - first


def _start_verb(count: int) -> float:
    with Ground() as ground:
        started = ground.started("started")
        circusd = Circusd(ground, "fleet")
        circusd.agents(count, started=started, check_delay=1.0, autostart=False)
        circusd.start()
        until("circusd answers", circusd.answers)
        time.sleep(0.5)  # what circusd still does after its first answer is not part of `start`
        begun = time.time()
        circusd.call("start", name="*", waiting=True)
        return last_started(started, count) - begun
