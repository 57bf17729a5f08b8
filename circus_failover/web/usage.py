"""What agents and other watchers use of the machine: cpu and memory of their process trees, sampled.

Memory is flat: each name has rings of a fixed size, made once and given back when the name is gone. Reads
the process table and nothing else; never signals anything.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circus_failover import process_table
from circus_failover.process_table import ProcessId, ProcessUsage

Table = dict[int, ProcessUsage]

MOST_ANCESTORS = 1000


@dataclass
class _Rings:
    """The samples of one tree; at which place each one is, the book knows."""

    cpu: array[float]
    rss: array[float]
    first: int
    """The number of its first sample."""
    said: list[float] = field(default_factory=list)
    """What was returned last."""


class UsageBook:
    """The last samples of every tree."""

    def __init__(
        self,
        interval: float = 5.0,
        samples: int = 720,
        *,
        look: Callable[[], Table] = process_table.usages,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        interval: seconds between two samples, as they are meant to be taken.
        samples: how many are kept of each tree.
        look: returns what each process has used, by pid.
        clock: seconds that nobody sets.
        """
        self.interval = interval
        self._samples = samples
        self._look, self._clock = look, clock
        # One that samples, and others that read what was sampled.
        self._lock = threading.Lock()
        self._at = array("d", bytes(8 * samples))
        self._taken = 0
        """How many samples were taken since the start."""
        self._rings: dict[str, _Rings] = {}
        self._before: Table = {}
        self._before_at = 0.0

    def sample(
        self, roots: Mapping[str, Sequence[ProcessId | int]], now: float
    ) -> dict[str, list[float] | None]:
        """Take one sample of every tree: one pass over the process table, in any one thread.

        Cpu is what the whole tree has used since the last sample, with what ended meanwhile as far as a
        process of the tree has waited for it. Memory that processes share counts for each of them.

        Args:
            roots: by name, the processes at the head of its tree; a name that is not there any more is
                forgotten, one without processes uses nothing.
            now: this moment, in epoch seconds.

        Returns:
            What changed since the last sample: by name, cpu in percent of one core and resident bytes; None
            for a name that is gone.
        """
        moment, table = self._clock(), self._look()
        used = _used(table, self._before) if self._before else {}
        # One percent is what a hundredth of the time between two samples would be.
        each = 100.0 / (process_table.TICKS_PER_SEC * max(moment - self._before_at, 0.001))
        self._before, self._before_at = table, moment
        children: dict[int, list[int]] = {}
        for pid, process in table.items():
            children.setdefault(process.parent, []).append(pid)
        said: dict[str, list[float] | None] = {}
        with self._lock:
            place = self._taken % self._samples
            self._at[place] = now
            for name, heads in roots.items():
                tree = _tree(heads, table, children)
                cpu = round(sum(used.get(pid, 0) for pid in tree) * each, 1)
                rss = sum(table[pid].rss for pid in tree)
                rings = self._rings.get(name)
                if rings is None:
                    rings = self._rings[name] = self._new_rings()
                rings.cpu[place], rings.rss[place] = cpu, rss
                if rings.said != [cpu, rss]:
                    rings.said = [cpu, rss]
                    said[name] = [cpu, rss]
            for name in self._rings.keys() - roots.keys():
                del self._rings[name]
                said[name] = None
            self._taken += 1
        return said

    def latest(self) -> dict[str, list[float]]:
        """Return the newest sample of each tree, as `sample` returns it, for somebody who has none before."""
        with self._lock:
            return {name: list(rings.said) for name, rings in self._rings.items()}

    def history(self, name: str) -> dict[str, list[float]]:
        """Return all samples kept of one tree, oldest first: `at` (epoch seconds), `cpu`, `rss`."""
        with self._lock:
            rings = self._rings.get(name)
            if rings is None:
                return {"at": [], "cpu": [], "rss": []}
            return {
                "at": [round(at, 1) for at in self._read(self._at, rings.first, self._samples)],
                **self._shown(rings, self._samples),
            }

    def recent(self, samples: int = 60) -> dict[str, Any]:
        """Return the newest samples of all trees: `interval` (seconds), and `trees` with `cpu` and `rss`."""
        with self._lock:
            trees = {name: self._shown(rings, samples) for name, rings in self._rings.items()}
        return {"interval": self.interval, "trees": trees}

    def _new_rings(self) -> _Rings:
        size = self._samples
        return _Rings(array("f", bytes(4 * size)), array("d", bytes(8 * size)), self._taken)

    def _shown(self, rings: _Rings, number: int) -> dict[str, list[float]]:
        return {
            "cpu": [round(cpu, 1) for cpu in self._read(rings.cpu, rings.first, number)],
            "rss": [int(rss) for rss in self._read(rings.rss, rings.first, number)],
        }

    def _read(self, ring: array[float], first: int, number: int) -> array[float]:
        """Return the newest samples of a ring, at most `number`, none from before its first."""
        begin = max(first, self._taken - min(max(number, 0), self._samples))
        if begin >= self._taken:
            return ring[:0]
        start, end = begin % self._samples, (self._taken - 1) % self._samples + 1
        return ring[start:end] if start < end else ring[start:] + ring[:end]


def _used(table: Table, before: Table) -> dict[int, int]:
    """Return the ticks that each process has used since the look before, with those of ended children.

    What a child has used is added to its parent's count when the parent waits for it (wait4(2); a parent that
    ignores SIGCHLD never hears of it), all at once: what was counted of it while it ran is taken off.
    """
    newest = max((process.start for process in before.values()), default=0)
    counted: dict[int, int] = {}
    for pid, was in before.items():
        same = table.get(pid)
        if same is not None and same.start == was.start:
            continue
        # Ended: its next ancestor that still runs was told of it, if anybody was. Pids that are given away
        # while the table is read may make a circle.
        parent = was.parent
        for _ in range(MOST_ANCESTORS):
            above, still = before.get(parent), table.get(parent)
            if above is None or (still is not None and still.start == above.start):
                break
            parent = above.parent
        counted[parent] = counted.get(parent, 0) + was.own + was.children
    used = {}
    for pid, now in table.items():
        earlier = before.get(pid)
        if earlier is not None and earlier.start == now.start:
            waited = now.children - earlier.children - counted.get(pid, 0)
            used[pid] = max(0, now.own - earlier.own) + max(0, waited)
        elif now.start >= newest:
            # Started since: all that it has used, it used since.
            used[pid] = now.own + now.children
    return used


def _tree(heads: Sequence[ProcessId | int], table: Table, children: Mapping[int, list[int]]) -> list[int]:
    """Return the pids of the processes that head a tree, as far as they run, and of all below them."""
    found: dict[int, None] = {}
    queue = [pid for pid in (_there(head, table) for head in heads) if pid is not None]
    while queue:
        pid = queue.pop()
        if pid not in found:
            found[pid] = None
            queue.extend(children.get(pid, ()))
    return list(found)


def _there(head: ProcessId | int, table: Table) -> int | None:
    pid, start = (head.pid, head.start) if isinstance(head, ProcessId) else (head, None)
    process = table.get(pid)
    return pid if process is not None and start in (None, process.start) else None
