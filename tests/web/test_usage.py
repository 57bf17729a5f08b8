"""What process trees use: right in sum, whoever ends meanwhile, and in memory that does not grow."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover import process_table
from circus_failover.process_table import TICKS_PER_SEC, ProcessId, ProcessUsage
from circus_failover.web.usage import UsageBook

SECOND = TICKS_PER_SEC
"""One second of cpu, in ticks."""


class Machine:
    """A process table and a clock that are set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ticks = 100
        self.table: dict[int, ProcessUsage] = {1: ProcessUsage(0, 0, 0, 0, 0)}

    def run(self, pid: int, parent: int, rss: int = 1000) -> None:
        self.ticks += 1
        self.table[pid] = ProcessUsage(self.ticks, parent, 0, 0, rss)

    def work(self, pid: int, ticks: int) -> None:
        self.table[pid] = self.table[pid]._replace(own=self.table[pid].own + ticks)

    def end(self, pid: int, waited: bool = True) -> None:
        gone = self.table.pop(pid)
        parent = self.table[gone.parent]
        if waited:
            self.table[gone.parent] = parent._replace(children=parent.children + gone.own + gone.children)
        for child, process in self.table.items():
            if process.parent == pid:
                self.table[child] = process._replace(parent=1)

    def look(self) -> dict[int, ProcessUsage]:
        return dict(self.table)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def sample(machine: Machine) -> Callable[..., dict[str, list[float] | None]]:
    book = UsageBook(samples=4, look=machine.look, clock=lambda: machine.now)

    def take(**roots: list[int | ProcessId]) -> dict[str, list[float] | None]:
        machine.now += 10.0
        return book.sample(roots, machine.now)

    take.book = book  # type: ignore[attr-defined]
    return take


Sample = Callable[..., dict[str, "list[float] | None"]]


def test_a_tree_is_all_its_processes_and_only_what_changed_is_told(machine: Machine, sample: Sample) -> None:
    machine.run(10, 1)
    machine.run(11, 10, rss=500)
    machine.run(12, 11)
    machine.run(20, 1)
    assert sample(a=[10], b=[20], c=[]) == {"a": [0.0, 2500], "b": [0.0, 1000], "c": [0.0, 0]}
    machine.work(10, 2 * SECOND)
    machine.work(12, 3 * SECOND)
    assert sample(a=[10], b=[20], c=[]) == {"a": [50.0, 2500]}
    assert sample(a=[10], b=[20], c=[]) == {"a": [0.0, 2500]}
    assert sample(a=[10], b=[20], c=[]) == {}


def test_what_ended_meanwhile_makes_nothing_negative_and_is_not_counted_twice(
    machine: Machine, sample: Sample
) -> None:
    machine.run(10, 1)
    machine.run(11, 10)
    sample(a=[10])
    machine.work(11, 4 * SECOND)
    assert sample(a=[10]) == {"a": [40.0, 2000]}
    # It worked for one second more, was waited for, and its parent has five more seconds of children now.
    machine.work(11, 1 * SECOND)
    machine.end(11)
    assert sample(a=[10]) == {"a": [10.0, 1000]}
    # One that nobody waits for takes nothing away from what the others did.
    machine.run(12, 10)
    machine.work(12, 1 * SECOND)
    assert sample(a=[10]) == {"a": [10.0, 2000]}
    machine.end(12, waited=False)
    machine.work(10, 3 * SECOND)
    assert sample(a=[10]) == {"a": [30.0, 1000]}


def test_what_came_and_went_between_two_samples_is_counted(machine: Machine, sample: Sample) -> None:
    machine.run(10, 1)
    sample(a=[10])
    machine.run(11, 10)
    machine.run(12, 11)
    machine.work(12, 6 * SECOND)
    machine.end(12)
    machine.end(11)
    assert sample(a=[10]) == {"a": [60.0, 1000]}


def test_a_pid_given_away_again_is_another_process(machine: Machine, sample: Sample) -> None:
    machine.run(10, 1)
    machine.work(10, 50 * SECOND)
    first = ProcessId(10, machine.table[10].start)
    sample(a=[first], b=[10])
    machine.end(10)
    machine.run(10, 1)
    machine.work(10, 2 * SECOND)
    assert sample(a=[first], b=[10]) == {"a": [0.0, 0], "b": [20.0, 1000]}


def test_what_a_process_used_before_it_was_first_seen_is_not_counted(
    machine: Machine, sample: Sample
) -> None:
    machine.run(10, 1)
    machine.work(10, 500 * SECOND)
    assert sample(a=[10]) == {"a": [0.0, 1000]}
    # One that could not be read the last time.
    machine.run(20, 1)
    machine.run(30, 1)
    unread = machine.table.pop(20)
    sample(a=[10])
    machine.table[20] = unread._replace(own=500 * SECOND)
    assert sample(a=[10], c=[20]) == {"c": [0.0, 1000]}
    # Another name gets a tree that was there before.
    machine.work(10, 1 * SECOND)
    assert sample(b=[10]) == {"b": [10.0, 1000], "a": None, "c": None}


@given(st.integers(0, 2**32))
def test_all_that_a_tree_uses_is_counted_once(seed: int) -> None:
    chance, machine = random.Random(seed), Machine()
    machine.run(10, 1)
    book = UsageBook(look=machine.look, clock=lambda: machine.now)
    book.sample({"a": [10]}, 0.0)
    counted, done, pid = 0.0, 0, 10
    for _ in range(60):
        living = [one for one in machine.table if one != 1]
        what, who = chance.random(), chance.choice(living)
        if what < 0.3:
            pid += 1
            machine.run(pid, who)
        elif what < 0.6:
            ticks = chance.randrange(500)
            machine.work(who, ticks)
            done += ticks
        elif what < 0.8:
            # Nobody is left without a parent here: where its cpu goes is not the tree's any more.
            if who != 10 and all(process.parent != who for process in machine.table.values()):
                machine.end(who)
        else:
            machine.now += 10.0
            book.sample({"a": [10]}, machine.now)
            counted += book.latest()["a"][0]
    machine.now += 10.0
    book.sample({"a": [10]}, machine.now)
    counted += book.latest()["a"][0]
    assert counted * 10 / 100 * SECOND == pytest.approx(done, abs=0.05 / 10 * SECOND * 62)


def test_a_circle_of_parents_ends(machine: Machine, sample: Sample) -> None:
    machine.table[30] = ProcessUsage(5, 31, 0, 0, 0)
    machine.table[31] = ProcessUsage(5, 30, 0, 0, 0)
    sample(a=[30])
    del machine.table[30], machine.table[31]
    assert sample(a=[30]) == {}


def test_the_newest_samples_are_kept_in_order_and_no_more(machine: Machine, sample: Sample) -> None:
    book: UsageBook = sample.book  # type: ignore[attr-defined]
    machine.run(10, 1)
    for second in range(7):
        machine.work(10, second * SECOND)
        sample(a=[10])
    assert book.history("a") == {
        "at": [40.0, 50.0, 60.0, 70.0],
        "cpu": [30.0, 40.0, 50.0, 60.0],
        "rss": [1000, 1000, 1000, 1000],
    }
    # A name that is new has no samples from before it was there.
    machine.work(10, 1 * SECOND)
    sample(a=[10], b=[])
    assert book.history("b") == {"at": [80.0], "cpu": [0.0], "rss": [0]}
    assert book.recent(2) == {
        "interval": 5.0,
        "trees": {"a": {"cpu": [60.0, 10.0], "rss": [1000, 1000]}, "b": {"cpu": [0.0], "rss": [0]}},
    }
    assert book.recent(0)["trees"]["a"] == {"cpu": [], "rss": []}


def test_a_name_that_is_gone_is_told_once_and_leaves_nothing_behind(machine: Machine, sample: Sample) -> None:
    book: UsageBook = sample.book  # type: ignore[attr-defined]
    sample(a=[], b=[])
    assert sample(b=[]) == {"a": None}
    assert sample(b=[]) == {}
    assert book.history("a") == {"at": [], "cpu": [], "rss": []} and list(book.latest()) == ["b"]


def test_memory_is_the_same_after_many_samples(machine: Machine) -> None:
    import tracemalloc

    for pid in range(100, 250):
        machine.run(pid, 1)
    roots = {f"agent-{pid}": [pid] for pid in range(100, 250)}
    book = UsageBook(samples=50, look=machine.look, clock=lambda: machine.now)

    def hour() -> int:
        for _ in range(120):
            machine.now += 5
            machine.work(random.choice(range(100, 250)), 1)
            book.sample(roots, machine.now)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = hour()
        assert hour() - before < 20_000
    finally:
        tracemalloc.stop()


def test_the_real_process_table_says_what_this_process_and_its_children_used(tmp_path: Path) -> None:
    # A name that looks like the fields that follow it.
    strange = tmp_path / ") S 1 (x"
    strange.symlink_to("/bin/sleep")
    process = subprocess.Popen([strange, "600"])
    try:
        until = time.monotonic() + 10
        while process_table.LINUX and b"(x" not in Path(f"/proc/{process.pid}/stat").read_bytes():
            assert time.monotonic() < until
        # Pages are counted by each CPU for itself, and summed now and then (Linux 6.18, mm_counter).
        while process_table.usages()[process.pid].rss == 0:
            assert time.monotonic() < until
        table, times = process_table.usages(), os.times()
        me, child = table[os.getpid()], process_table.read(process.pid)
        assert child is not None and table[process.pid].start == child.id.start
        assert table[process.pid].parent == os.getpid() and 0 < table[process.pid].rss < me.rss
        assert abs(me.own / TICKS_PER_SEC - times.user - times.system) < 1
        assert abs(me.children / TICKS_PER_SEC - times.children_user - times.children_system) < 1
    finally:
        process.kill()
        process.wait()


def test_it_is_read_while_it_samples(machine: Machine) -> None:
    book = UsageBook(samples=8, look=machine.look, clock=lambda: machine.now)
    machine.run(10, 1)
    over = threading.Event()

    def take() -> None:
        for _ in range(300):
            machine.now += 1
            book.sample({"a": [10]}, machine.now)
        over.set()

    thread = threading.Thread(target=take)
    thread.start()
    while not over.is_set():
        read = book.history("a")
        assert len(read["at"]) == len(read["cpu"]) == len(read["rss"]) <= 8
        assert read["at"] == sorted(read["at"])
    thread.join()
