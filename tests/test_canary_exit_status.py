"""How a process ended, as the kernel tells it to one that is not its parent: right, or not at all."""

from __future__ import annotations

import faulthandler
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from circus_failover import process_table
from circus_failover.canary import exit_status
from circus_failover.canary.exit_status import NONE, PIDFD_INFO, PROC_STAT, UNKNOWN, Ended
from circus_failover.process_table import ProcessId

pytestmark = pytest.mark.skipif(
    not process_table.LINUX or not hasattr(os, "pidfd_open"), reason="asks the Linux kernel"
)
reaped_are_told = pytest.mark.skipif(
    tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2]) < (6, 15)
    if process_table.LINUX
    else True,
    reason="Linux 6.15 tells of reaped processes",
)

ENDS: list[tuple[str, Callable[[], object]]] = [
    ("status 0", lambda: os._exit(0)),
    ("status 1", lambda: os._exit(1)),
    ("status 255", lambda: os._exit(255)),
    # These look like signals to whoever takes a status for a wait status.
    ("status 9", lambda: os._exit(9)),
    ("status 139", lambda: os._exit(139)),
    ("KILL", lambda: os.kill(os.getpid(), signal.SIGKILL)),
    ("TERM", lambda: os.kill(os.getpid(), signal.SIGTERM)),
    ("HUP", lambda: os.kill(os.getpid(), signal.SIGHUP)),
    ("SEGV", lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    ("a real-time signal", lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3)),
]
every_end = pytest.mark.parametrize("end", [end for _, end in ENDS], ids=[name for name, _ in ENDS])


def _limit_core(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (size, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class Child:
    """A process of this test's own, so that it is known who reaps it and when."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number in (signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                faulthandler.disable()
                _limit_core(0)
                act()
            finally:
                os._exit(99)
        self.handle = os.pidfd_open(self.pid)
        found = process_table.identify(self.pid)
        assert found is not None
        self.process: ProcessId = found
        self.told: int | None = None

    def await_end(self) -> None:
        """Return when it is a zombie."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        """Take its exit status, as its parent."""
        if self.told is None:
            self.told = os.waitpid(self.pid, 0)[1]

    def expected(self, how: str) -> Ended:
        """Return what its parent was told."""
        self.reap()
        code = os.waitstatus_to_exitcode(self.told or 0)
        core = os.WCOREDUMP(self.told or 0)
        return Ended(-code if code < 0 else None, None if code < 0 else code, core, how)


@pytest.fixture
def child() -> Iterator[Callable[[Callable[[], object]], Child]]:
    """Fork children, which are gone with the test."""
    started: list[Child] = []

    def begin(act: Callable[[], object]) -> Child:
        started.append(Child(act))
        return started[-1]

    yield begin
    for each in started:
        if each.told is None:
            os.kill(each.pid, signal.SIGKILL)
            each.reap()
        os.close(each.handle)


@every_end
def test_a_zombie_tells_what_its_parent_would_be_told(
    child: Callable[..., Child], end: Callable[[], object]
) -> None:
    process = child(end)
    process.await_end()
    told = exit_status.once(process.handle, process.process)
    without_pidfd = exit_status.once(None, process.process)
    zombie = exit_status.of_zombie(process.process)
    assert told == without_pidfd == zombie == process.expected(PROC_STAT)


@reaped_are_told
@every_end
def test_a_reaped_process_tells_what_its_parent_was_told(
    child: Callable[..., Child], end: Callable[[], object]
) -> None:
    process = child(end)
    process.reap()
    assert exit_status.once(process.handle, process.process) == process.expected(PIDFD_INFO)
    assert exit_status.of_zombie(process.process) is None


def test_a_core_dump_is_told(child: Callable[..., Child], tmp_path: Path) -> None:
    def dump() -> None:
        os.chdir(tmp_path)
        _limit_core(resource.getrlimit(resource.RLIMIT_CORE)[1])
        os.kill(os.getpid(), signal.SIGABRT)

    process = child(dump)
    process.await_end()
    told = exit_status.of_zombie(process.process)
    if not process.expected(PROC_STAT).core:
        pytest.skip("no core dumps here")
    assert told == Ended(signal.SIGABRT, None, True, PROC_STAT)


def test_who_was_reaped_with_no_pidfd_left_is_unknown_and_no_status_is_made_up(
    child: Callable[..., Child],
) -> None:
    process = child(lambda: os._exit(0))
    process.reap()
    assert exit_status.once(None, process.process) == UNKNOWN == Ended(None, None, False, NONE)
    assert exit_status.learn([(None, process.process)]) == [UNKNOWN]


def test_a_process_that_runs_has_not_ended(child: Callable[..., Child]) -> None:
    process = child(signal.pause)
    assert exit_status.once(process.handle, process.process) is None
    assert exit_status.learn([(process.handle, process.process), (None, process.process)]) == [None, None]
    assert exit_status.of_zombie(process.process) is None


def test_a_stopped_process_has_not_ended_by_the_signal_that_stopped_it(child: Callable[..., Child]) -> None:
    process = child(signal.pause)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert exit_status.once(process.handle, process.process) is None
    assert exit_status.learn([(process.handle, process.process)]) == [None]


def test_a_zombie_that_has_the_pid_of_an_earlier_process_says_nothing_of_it(
    child: Callable[..., Child],
) -> None:
    process = child(lambda: os._exit(5))
    process.await_end()
    earlier = ProcessId(process.pid, process.process.start - 1)
    assert exit_status.once(None, earlier) == UNKNOWN
    assert exit_status.of_zombie(earlier) is None


@reaped_are_told
def test_a_pidfd_of_another_process_says_nothing_of_one_that_runs(child: Callable[..., Child]) -> None:
    runs, other = child(signal.pause), child(lambda: os._exit(5))
    other.reap()
    assert exit_status.once(other.handle, runs.process) is None


def test_processes_of_one_moment_keep_their_order(child: Callable[..., Child]) -> None:
    ends = [child(lambda number=number: os._exit(number)) for number in range(1, 6)]
    for each in ends:
        each.await_end()
    ends[1].reap()
    ends[3].reap()
    told = exit_status.learn([(each.handle, each.process) for each in ends])
    assert [None if each is None else each.status for each in told][::2] == [1, 3, 5]
    assert all(each in (UNKNOWN, ends[at].expected(PIDFD_INFO)) for at, each in enumerate(told) if at % 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_zombie_that_we_may_not_look_at_has_no_status_0(child: Callable[..., Child]) -> None:
    # The kernel shows 0 in field 52 to who may not know (fs/proc/array.c): here it was 7.
    zombie = child(lambda: os._exit(7))
    zombie.await_end()

    def ask() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        told = exit_status.learn([(None, zombie.process)])
        os._exit(0 if told == [UNKNOWN] and exit_status.of_zombie(zombie.process) is None else 1)

    stranger = child(ask)
    assert stranger.expected(NONE).status == 0


def test_the_host_says_what_it_can_tell_and_leaves_no_process_behind() -> None:
    before = _children()
    word, why = exit_status.capability()
    assert _children() <= before
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if release >= (6, 15):
        assert (word, why) == (PIDFD_INFO, None)
    else:
        assert word in (PROC_STAT, NONE)
        assert why is not None and "6.15" in why


def _children() -> set[int]:
    return {pid for pid, stat in process_table.table().items() if stat.parent == os.getpid()}


def test_it_is_light_enough_for_the_canary(tmp_path: Path) -> None:
    import subprocess

    heavy = ("dataclasses", "typing", "pathlib", "subprocess", "socket", "logging", "sqlite3", "ctypes")
    root = Path(exit_status.__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import circus_failover.canary.watching, "
        f"circus_failover.canary.process; print([name for name in {heavy!r} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"
