"""Assignments for a pool whose agents die: none lost, none done twice, and how close to the ideal it comes.

Stand-ins work for a fixed time on each assignment and report it by the spool. One agent in ten is killed at
random moments and comes back by itself. What was told and done is counted in the transcripts, which only the
agents write. Beside the time from the first `assign` to the last report: the work alone, spread over all
agents without a gap and without a death.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from circus.client import CircusClient

from benchmarks.ground import Circusd, Ground, say, until
from benchmarks.idle import cpu
from benchmarks.result import Figure, Result, middle, percentile
from circus_failover import process_table
from circus_failover.store import open_reader

POOL = "workers"
STANDIN = f"{sys.executable} -m circus_failover.standin"
ONE_IN = 10
"""One agent in so many is killed."""
SEED = 6


@dataclass(frozen=True)
class Told:
    """What the transcripts say."""

    begun: Counter[str]
    """How often each assignment was told in full."""
    done: Counter[str]
    gaps: list[float]
    """Seconds from the end of an agent's assignment to its next one, in order of size."""


@dataclass(frozen=True)
class Run:
    """What happened from the first `assign` to the last report."""

    told: Told
    given_secs: float
    """How long giving all of them took."""
    secs: float
    killed: int
    died_with: Counter[str]
    """How many launches died with each assignment, as the store says."""
    states: Counter[str]
    circusd_secs: float
    """CPU time of circusd itself."""
    workers_secs: float
    """CPU time of what it has started and waited for: typists, keepers, launches."""


class Pool(Circusd):
    """A circusd with a pool of stand-ins that come back when they die."""

    def stand_ins(self, count: int) -> None:
        """Write the fleet."""
        self._accounts()
        self.names = [f"worker-{number:03}" for number in range(count)]
        section = {
            "cmd": "failover-session",
            "hooks.before_start": "circus_failover.hooks.enrol",
            "failover.command": STANDIN,
            "failover.resume_command": f"{STANDIN} --resume {{conversation}}",
            "failover.account": "one",
            "failover.pool": POOL,
            "failover.restart": "always",
            "failover.ready_secs": "0.2",
            "working_dir": str(self.ground.work),
        }
        self._write(dict.fromkeys(self.names, section), 1.0, {"FAILOVER_CONFIG": "failover.yaml"})
        with self.ini.open("a") as ini:
            ini.write("[plugin:guard]\nuse = circus_failover.plugins.CrashLoopGuard\n")

    def give(self, jobs: int, secs: float) -> None:
        """Assign everything, over one connection."""
        client = CircusClient(endpoint=self.endpoint, timeout=30)
        try:
            for number in range(jobs):
                name = f"job-{number:04}"
                given = {"pool": POOL, "id": name, "task": f"/job {secs:g} {name}", "by": "benchmark"}
                answer = client.call({"command": "assign", "properties": given})
                if answer.get("status") != "ok":
                    raise RuntimeError(f"assign {name}: {answer.get('reason')}")
        finally:
            client.stop()

    def transcripts(self) -> Iterator[list[dict[str, Any]]]:
        """Return what each conversation's transcript says."""
        for path in sorted((self.folder / "shared" / "projects").glob("*/*.jsonl")):
            yield [json.loads(line) for line in path.read_text().splitlines()]


def benchmark(agents: int, jobs: int, secs: float) -> list[Result]:
    """Measure and count.

    Args:
        agents: how many stand-ins.
        jobs: how many assignments.
        secs: how long the work on each takes.
    """
    with Ground() as ground:
        pool = Pool(ground, "pool")
        pool.stand_ins(agents)
        pool.start()
        pool.await_all()
        try:
            run = _run(pool, jobs, secs)
        except (RuntimeError, OSError):
            print(pool.last_words(), file=sys.stderr)
            raise
        say("ending everything")
    return _results(run, agents, jobs, secs)


def _run(pool: Pool, jobs: int, secs: float) -> Run:
    agents, chance = len(pool.names), random.Random(SEED)
    victims = chance.sample(pool.names, max(1, agents // ONE_IN))
    moments = sorted(chance.randrange(jobs) for _ in victims)
    say(f"{jobs} assignments of {secs:g} s for {agents} agents, of which {len(victims)} are killed")
    store = open_reader(pool.state / "failover.db")
    try:
        before, begun = cpu(pool.pid), time.monotonic()
        first = time.time()
        pool.give(jobs, secs)
        given = time.monotonic() - begun
        killed = 0

        def over() -> bool:
            nonlocal killed
            left = len(store.assignments())
            while killed < len(victims) and jobs - left >= moments[killed]:
                row = store.agent(victims[killed])
                if row is None or row.process is None:
                    break
                process_table.send(row.process, signal.SIGKILL)
                killed += 1
            return left == 0 and killed == len(victims)

        ideal = jobs * secs / agents
        until("every assignment is over", over, timeout=120 + 10 * ideal, every=0.1)
        took, used = time.monotonic() - begun, cpu(pool.pid)
        ended = [launch for launch in store.launches_since(first) if launch.ended_at is not None]
        return Run(
            told=_told(pool),
            given_secs=given,
            secs=took,
            killed=killed,
            died_with=Counter(launch.assignment for launch in ended if launch.assignment is not None),
            states=Counter(row.state for row in store.assignments(over_since=0.0)),
            circusd_secs=used.own - before.own,
            workers_secs=used.children - before.children,
        )
    finally:
        store.close()


def _told(pool: Pool) -> Told:
    begun: Counter[str] = Counter()
    done: Counter[str] = Counter()
    gaps = []
    for entries in pool.transcripts():
        free_since: float | None = None
        for entry in entries:
            content = entry["message"]["content"]
            if entry["type"] == "user":
                if content.startswith("/job "):
                    begun[content.split()[2]] += 1
                if free_since is not None:
                    gaps.append(_seconds(entry["timestamp"]) - free_since)
                free_since = None
            elif content[0]["text"].startswith("done: /job "):
                done[content[0]["text"].split()[3]] += 1
                free_since = _seconds(entry["timestamp"])
    return Told(begun, done, sorted(gaps))


def _seconds(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()


def _results(run: Run, agents: int, jobs: int, secs: float) -> list[Result]:
    names = [f"job-{number:04}" for number in range(jobs)]
    told, died = run.told, run.died_with
    lost = jobs - run.states["done"] + sum(told.done[name] == 0 for name in names)
    # A launch that died with an assignment is a reason to do it once more, whatever it had done by then.
    doubled = sum(max(told.done[name] - 1 - died[name], 0) for name in names)
    repeated = sum(max(told.begun[name] - 1 - died[name], 0) for name in names)
    again = sum(told.done[name] > 1 for name in names) - sum(
        told.done[name] > 1 + died[name] for name in names
    )
    ideal = jobs * secs / agents
    what = f"{jobs} assignments of {secs:g} s, {agents} agents, {run.killed} killed"
    details = {
        "given_secs": run.given_secs,
        "states": dict(run.states),
        "circusd_cpu_secs": run.circusd_secs,
        "children_cpu_secs": run.workers_secs,
        "assignments_a_second": jobs / run.secs,
    }

    def line(words: str, figure: Figure, **more: Any) -> Result:
        return Result(benchmark="work", what=words, ours=figure, **more)

    gaps = told.gaps or [0.0]
    return [
        line(
            what,
            Figure(run.secs, "s", f"({jobs / run.secs:.1f} a second)"),
            beside=Figure(ideal, "s", "ideal: the work over the agents"),
            ratio=run.secs / ideal,
            details=details,
        ),
        line("lost", Figure(lost, "assignments"), goal=0),
        line(
            "done twice, or told twice, by the supervisor", Figure(doubled + repeated, "assignments"), goal=0
        ),
        line("begun again since their agent died with them", Figure(sum(died.values()), "times")),
        line(
            "of these, done twice: killed after the work and before the report", Figure(again, "assignments")
        ),
        line(
            "from an agent's report to its next assignment, median",
            Figure(middle(gaps), "s", f"(95 %: {percentile(gaps, 0.95):.2f} s)"),
        ),
        line("giving one assignment (`assign`), durably", Figure(run.given_secs / jobs * 1000, "ms")),
        line("circusd's CPU time an assignment", Figure(run.circusd_secs / jobs * 1000, "ms")),
    ]
