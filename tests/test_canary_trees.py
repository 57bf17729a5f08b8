"""The processes of each launch as last seen: who belongs to one, for how long, and what is on disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from circus_failover import process_table
from circus_failover.canary import trees, watched
from circus_failover.canary.trees import WHOLE_SECS, Tree, TreeFile, follow
from circus_failover.process_table import Origin, ProcessId
from tests.live.fleet import wait_for

AGENT, TOOL, SHELL, DAEMON = (ProcessId(pid, pid) for pid in (100, 110, 120, 130))


def seen(*processes: tuple[ProcessId, int]) -> dict[int, Origin]:
    """Return the origins of processes, given with their parents' pids."""
    return {p.pid: Origin(p, parent, f"name-{p.pid}", p.start, True) for p, parent in processes}


def pids(found: Mapping[str, Tree], launch: str = "one") -> set[int]:
    return {process.pid for process in found[launch].processes} if launch in found else set()


def look(
    before: Mapping[str, Tree],
    origins: Mapping[int, Origin],
    root: ProcessId | None = AGENT,
    apart: tuple[ProcessId, ...] = (),
    now: float = 0.0,
) -> dict[str, Tree]:
    """Look once at a fleet of one launch."""
    return follow(before, {} if root is None else {"one": root}, apart, origins, now)


WORLD = seen((AGENT, 50), (TOOL, 100), (SHELL, 110), (DAEMON, 120), (ProcessId(140, 140), 50))


# -- a launch that lives --------------------------------------------------------------------------------


def test_a_tree_is_the_agent_and_all_that_is_below_it() -> None:
    found = look({}, WORLD)
    assert found["one"].processes == {p: f"name-{p.pid}" for p in (AGENT, TOOL, SHELL, DAEMON)}
    assert found["one"].ended is None


def test_a_daemon_stays_known_for_as_long_as_it_lives_and_so_does_what_it_starts() -> None:
    found = look({}, WORLD)
    child = ProcessId(150, 150)
    without_shell = seen((AGENT, 50), (DAEMON, 1), (child, 130))
    found = look(found, without_shell)
    assert pids(found) == {100, 130, 150}
    found = look(found, seen((AGENT, 50), (child, 1)))
    assert pids(found) == {100, 150}
    assert pids(look(found, seen((AGENT, 50)))) == {100}


def test_whoever_has_the_pid_of_a_daemon_now_is_not_taken_for_it() -> None:
    found = look(look({}, WORLD), seen((AGENT, 50), (ProcessId(130, 999), 1)))
    assert pids(found) == {100}


def test_an_older_process_is_no_child_of_the_one_that_has_its_parents_pid_now() -> None:
    # Its parent 120 has ended, and a tool of the agent has been given that pid.
    orphan, tool = ProcessId(130, 130), ProcessId(120, 500)
    assert pids(look({}, seen((AGENT, 50), (tool, 100), (orphan, 120)))) == {100, 120}


def test_a_server_or_a_circusd_started_from_an_agents_shell_is_not_the_agents() -> None:
    found = look({}, WORLD, apart=(SHELL,))
    assert pids(found) == {100, 110}
    found = look(look({}, WORLD), WORLD, apart=(DAEMON,))
    assert pids(found) == {100, 110, 120}, "nor when it had been taken for one"


def test_another_launchs_agent_is_not_in_the_tree_it_was_started_from() -> None:
    found = follow({}, {"one": AGENT, "two": SHELL}, (), WORLD, 0.0)
    assert (pids(found), pids(found, "two")) == ({100, 110}, {120, 130})


# -- a launch that has ended ----------------------------------------------------------------------------


@pytest.mark.parametrize("root", [AGENT, None], ids=["its end is not known yet", "its end is known"])
def test_the_tree_of_one_that_has_died_stays_whole_for_the_snapshot(root: ProcessId | None) -> None:
    before = look({}, WORLD)
    child = ProcessId(150, 150)
    found = look(before, seen((DAEMON, 1), (child, 130)), root, now=1.0)
    assert pids(found) == {100, 110, 120, 130, 150}
    assert pids(look(found, {}, root, now=1.0 + WHOLE_SECS)) == {100, 110, 120, 130, 150}
    assert "one" not in look(found, {}, root, now=1.1 + WHOLE_SECS)


def test_what_is_left_of_a_launch_stays_known_for_as_long_as_it_lives() -> None:
    survivor = seen((DAEMON, 1))
    found = look(look({}, WORLD), survivor, None, now=10.0)
    for now in (100.0, 1e7):
        found = look(found, survivor, None, now=now)
        assert pids(found) == {130}
    assert "one" not in look(found, {}, None, now=1e7 + 1)


def test_a_launch_whose_process_was_never_seen_has_no_tree() -> None:
    assert look({}, {}) == {}


# -- any history ----------------------------------------------------------------------------------------


@dataclass
class World:
    """Processes that start, end and are reparented, with few pids, which are given away again."""

    parents: dict[ProcessId, ProcessId | None] = field(default_factory=dict)
    """Whoever runs, and its parent as the kernel has it now; None: init."""
    ancestors: dict[ProcessId, tuple[ProcessId, ...]] = field(default_factory=dict)
    """Where everybody really comes from."""
    clock: int = 0

    def start(self, pid: int, parent: ProcessId | None) -> ProcessId | None:
        self.clock += 1
        if any(process.pid == pid for process in self.parents):
            return None
        process = ProcessId(pid, self.clock)
        self.parents[process] = parent
        self.ancestors[process] = () if parent is None else (parent, *self.ancestors[parent])
        return process

    def end(self, process: ProcessId) -> None:
        del self.parents[process]
        self.parents = {one: None if p == process else p for one, p in self.parents.items()}

    def origins(self, before: Mapping[int, Origin]) -> dict[int, Origin]:
        found = {}
        for process, parent in self.parents.items():
            known = before.get(process.pid)
            if known is not None and known.id == process:
                found[process.pid] = known
            else:
                found[process.pid] = Origin(process, parent.pid if parent else 1, "x", process.start, True)
        return found

    def below(self, root: ProcessId) -> set[ProcessId]:
        """Return who is below a process as the kernel has it now."""
        found = {root}
        while more := {one for one, parent in self.parents.items() if parent in found} - found:
            found |= more
        return found


STEPS = some.lists(some.tuples(some.sampled_from("ssselo"), some.integers(2, 9), some.integers(0, 20)))


@given(STEPS)
def test_through_any_history_a_tree_holds_who_comes_from_the_agent_and_lives_and_nobody_else(
    steps: list[tuple[str, int, int]],
) -> None:
    world = World()
    root = world.start(2, None)
    assert root is not None
    found: dict[str, Tree] = {}
    origins = world.origins({})
    for step, pid, which in [*steps, ("l", 0, 0)]:
        others = [process for process in world.parents if process != root]
        if step == "s":
            choices = [None, *world.parents]
            world.start(pid, choices[which % len(choices)])
        elif step == "e" and others:
            world.end(others[which % len(others)])
        elif step == "l":
            known = {process for process in pids_of(found) if process in world.parents}
            origins = world.origins(origins)
            found = follow(found, {"one": root}, (), origins, 0.0)
            here = pids_of(found)
            assert here >= world.below(root) | known
            assert all(one in world.parents for one in here)
            assert all(one == root or root in world.ancestors[one] for one in here)


def pids_of(found: Mapping[str, Tree]) -> set[ProcessId]:
    return set(found["one"].processes) if "one" in found else set()


# -- real processes -------------------------------------------------------------------------------------


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with a sleep below it, which lives on without it; both are ended afterwards."""
    started = subprocess.Popen(["sh", "-c", "sleep 300 & wait"], stdin=subprocess.DEVNULL)
    me = process_table.identify(started.pid)
    assert me is not None
    sleep = wait_for("the sleep runs", lambda: process_table.descendants(me)[1:])[0]
    wait_for("it is one", lambda: process_table.origins({})[sleep.pid].name == "sleep")
    try:
        yield started
    finally:
        process_table.send(sleep, signal.SIGKILL)
        started.kill()
        started.wait()


def sleep_of(shell: subprocess.Popen[bytes]) -> ProcessId:
    return next(one.id for one in process_table.origins({}).values() if one.parent == shell.pid)


def end(shell: subprocess.Popen[bytes]) -> None:
    shell.kill()
    shell.wait()


@pytest.mark.skipif(not process_table.LINUX, reason="by the inodes of /proc")
def test_an_origin_keeps_the_first_parent_and_is_not_read_again(shell: subprocess.Popen[bytes]) -> None:
    sleep = sleep_of(shell)
    before = process_table.origins({})
    settled = {**before, sleep.pid: before[sleep.pid]._replace(settled=True, name="as it was")}
    end(shell)
    after = process_table.origins(settled)
    assert after[sleep.pid] == settled[sleep.pid] and shell.pid not in after
    assert after[sleep.pid].parent == shell.pid
    # What is young is read again, for its name, and is still who it was.
    after = process_table.origins(before)
    assert (after[sleep.pid].id, after[sleep.pid].parent) == (sleep, shell.pid)


@pytest.mark.skipif(not process_table.LINUX, reason="by the inodes of /proc")
def test_another_process_with_a_known_pid_is_read(shell: subprocess.Popen[bytes]) -> None:
    sleep = sleep_of(shell)
    found = process_table.origins({})
    of_another = Origin(ProcessId(sleep.pid, 1), 1, "gone", found[sleep.pid].node + 1, True)
    assert process_table.origins({sleep.pid: of_another})[sleep.pid] == found[sleep.pid]


@pytest.mark.skipif(not process_table.LINUX, reason="writes to /proc/self/comm")
def test_a_young_process_that_changes_its_name_is_known_by_the_new_one() -> None:
    rename = "open('/proc/self/comm', 'w').write('a (b) c'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        before = process_table.origins({})
        assert process.stdout is not None
        process.stdout.readline()
        assert process_table.origins(before)[process.pid].name == "a (b) c"
        process.kill()


def state_dir(folder: Path) -> str:
    (folder / watched.FOLDER).mkdir()
    return str(folder)


def test_the_file_is_for_its_owner_and_is_written_only_when_something_has_changed(
    tmp_path: Path, shell: subprocess.Popen[bytes]
) -> None:
    path, root, sleep = tmp_path / watched.TREES, process_table.identify(shell.pid), sleep_of(shell)
    assert root is not None
    kept = TreeFile(state_dir(tmp_path), same_boot=False)
    kept.look({"one": root}, (), 0.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert trees.read(str(tmp_path)) == {"one": {root: "sh", sleep: "sleep"}}
    written = path.stat().st_ino, path.stat().st_mtime_ns
    kept.look({"one": root}, (), 5.0)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == written
    kept.look({"one": root}, (sleep,), 10.0)
    assert trees.read(str(tmp_path)) == {"one": {root: "sh"}}
    assert os.listdir(path.parent) == [path.name]


def test_a_successor_goes_on_with_the_trees_of_this_boot_only(
    tmp_path: Path, shell: subprocess.Popen[bytes]
) -> None:
    root, sleep = process_table.identify(shell.pid), sleep_of(shell)
    assert root is not None
    TreeFile(state_dir(tmp_path), same_boot=False).look({"one": root}, (), 0.0)
    end(shell)
    TreeFile(str(tmp_path), same_boot=True).look({}, (), 100.0)
    assert set(trees.read(str(tmp_path))["one"]) == {root, sleep}
    TreeFile(str(tmp_path), same_boot=False).look({}, (), 100.0)
    assert trees.read(str(tmp_path)) == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[1]", '{"one": 1}', '{"one": [[1]]}', '{"one": [["x", 1, 1]]}']
)
def test_a_file_that_makes_no_sense_is_no_trees(tmp_path: Path, text: str) -> None:
    folder = state_dir(tmp_path)
    (tmp_path / watched.TREES).write_text(text)
    assert trees.read(folder) == {}
    TreeFile(folder, same_boot=True).look({}, (), 0.0)


def test_what_could_not_be_written_is_written_at_the_next_look(
    tmp_path: Path, shell: subprocess.Popen[bytes]
) -> None:
    root = process_table.identify(shell.pid)
    assert root is not None
    kept = TreeFile(str(tmp_path), same_boot=False)
    with pytest.raises(OSError):
        kept.look({"one": root}, (), 0.0)
    state_dir(tmp_path)
    kept.look({"one": root}, (), 5.0)
    assert root in trees.read(str(tmp_path))["one"]
