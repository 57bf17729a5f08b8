"""Processes by number: real ones, with hostile names, gone ones, zombies, and pids given away again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from circus_failover import process_table
from circus_failover.process_table import ProbeFailed, ProcessId

linux = pytest.mark.skipif(not process_table.LINUX, reason="reads /proc")


def await_true(probe: Callable[[], object], timeout: float = 10.0) -> None:
    until = time.monotonic() + timeout
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes that are ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*argv: str, **options: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        started.append(process)
        return process  # type: ignore[no-any-return]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_a_process_is_known_by_pid_and_start_time(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start("sleep", "600")
    found = process_table.identify(process.pid)
    assert found is not None and found.pid == process.pid
    assert process_table.identify(process.pid) == found
    assert process_table.alive(found)
    assert not process_table.alive(ProcessId(found.pid, found.start + 1))


def test_a_process_that_ended_is_not_there() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert process_table.read(process.pid) is None
    assert process_table.identify(process.pid) is None
    assert not process_table.alive(ProcessId(process.pid, 1))


def test_a_zombie_has_ended(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start("sleep", "600")
    found = process_table.identify(process.pid)
    assert found is not None
    os.kill(process.pid, signal.SIGKILL)
    await_true(lambda: (stat := process_table.read(process.pid)) is not None and stat.run_state == "Z")
    assert not process_table.alive(found)


def test_a_stopped_process_is_alive(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start("sleep", "600")
    os.kill(process.pid, signal.SIGSTOP)
    await_true(lambda: (stat := process_table.read(process.pid)) is not None and stat.run_state == "T")
    found = process_table.identify(process.pid)
    assert found is not None and process_table.alive(found)


@linux
@pytest.mark.parametrize("name", ["a) Z 1 1", "(((", ")", "a b\n", "é) R 0"])
def test_a_process_with_any_name_is_read_rightly(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, name: str
) -> None:
    ready = tmp_path / "ready"
    code = (
        f"import ctypes, time; ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0); "
        f"open({str(ready)!r}, 'w').close(); time.sleep(600)"
    )
    process = start(sys.executable, "-c", code)
    await_true(ready.exists)
    # It may wait for the disk for a moment.
    await_true(lambda: (stat := process_table.read(process.pid)) is not None and stat.run_state in "SR")
    stat = process_table.read(process.pid)
    assert stat is not None
    assert (stat.id.pid, stat.parent) == (process.pid, os.getpid())
    assert process_table.table()[process.pid].id == stat.id


@linux
def test_a_table_that_cannot_be_read_is_unknown_and_not_gone() -> None:
    """As with hidepid, or with no descriptor left."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    me = process_table.identify(os.getpid())
    assert me is not None
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(ProbeFailed):
            process_table.alive(me)
        with pytest.raises(ProbeFailed):
            process_table.identify(os.getpid())
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert process_table.alive(me)


def test_a_tree_is_found_parents_first_and_a_given_away_pid_has_none(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = start("sh", "-c", "sleep 600 & sh -c 'sleep 600 & wait' & wait")
    root = process_table.identify(process.pid)
    assert root is not None
    await_true(lambda: len(process_table.descendants(root)) == 4)
    found = process_table.descendants(root)
    assert found[0] == root
    parents = {stat.id: stat.parent for stat in process_table.table().values()}
    for place, child in enumerate(found[1:], start=1):
        assert parents[child] in [above.pid for above in found[:place]]
    assert process_table.descendants(ProcessId(root.pid, root.start + 1)) == []
    for child in reversed(found[1:]):
        process_table.send(child, signal.SIGKILL)


@linux
def test_what_carries_a_launch_s_name_is_found_wherever_it_went(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    def given(launch: str) -> dict[str, str]:
        return {**os.environ, "FAILOVER_LAUNCH": launch}

    one = f"one-{uuid.uuid4()}"  # nobody else's, also where these tests run twice at once
    mine = start("sleep", "600", env=given(one), start_new_session=True)
    start("sleep", "600", env=given(f"{one}2"))
    start("sleep", "600", env=given(one.upper()))
    start("sleep", "600", env={**os.environ, "XFAILOVER_LAUNCH": one, "OTHER": f"FAILOVER_LAUNCH={one}"})
    await_true(lambda: process_table.carrying(f"{one}2"))
    assert [found.pid for found in process_table.carrying(one)] == [mine.pid]


@linux
def test_a_zombie_carries_nothing(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    two = f"two-{uuid.uuid4()}"
    process = start("sleep", "600", env={**os.environ, "FAILOVER_LAUNCH": two})
    await_true(lambda: process_table.carrying(two))
    os.kill(process.pid, signal.SIGKILL)
    await_true(lambda: not process_table.carrying(two))


@linux
def test_a_server_like_process_with_a_huge_environment_is_still_read(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    filler = {f"FILL{number}": "x" * 60000 for number in range(20)}
    three = f"three-{uuid.uuid4()}"
    process = start("sleep", "600", env={"PATH": os.environ["PATH"], **filler, "FAILOVER_LAUNCH": three})
    await_true(lambda: process_table.carrying(three))
    assert [found.pid for found in process_table.carrying(three)] == [process.pid]


def test_a_signal_reaches_this_very_process_only(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start("sleep", "600")
    found = process_table.identify(process.pid)
    assert found is not None
    assert not process_table.send(ProcessId(found.pid, found.start - 1), signal.SIGKILL)
    assert process.poll() is None
    assert process_table.send(found, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    assert not process_table.send(found, signal.SIGTERM)


def test_a_signal_without_pidfds_reaches_this_very_process_only(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = start("sleep", "600")
    found = process_table.identify(process.pid)
    assert found is not None
    assert not process_table._send_by_pid(ProcessId(found.pid, found.start - 1), signal.SIGKILL)
    assert process_table._send_by_pid(found, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM


def test_signalling_leaks_no_descriptor(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start("sleep", "600")
    found = process_table.identify(process.pid)
    assert found is not None
    gone = ProcessId(found.pid, found.start + 1)
    before = os.dup(0)
    os.close(before)
    for _ in range(50):
        process_table.send(found, signal.SIGCONT)
        process_table.send(gone, signal.SIGCONT)
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_the_boot_has_one_name() -> None:
    assert process_table.boot_id() and process_table.boot_id() == process_table.boot_id()


def test_the_portable_way_agrees_with_the_kernel_s(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start("sleep", "600")
    portable = process_table._read_portable(process.pid)
    assert portable is not None
    assert (portable.id.pid, portable.parent) == (process.pid, os.getpid())
    assert process_table._read_portable(process.pid) is not None
    again = process_table._read_portable(process.pid)
    assert again is not None and again.id == portable.id
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process_table._read_portable(process.pid) is None


def test_a_terminal_is_named_and_dev_null_is_none(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start("sleep", "600")
    assert process_table.terminal(process.pid) is None
    assert process_table.terminal(2**22 + 1) is None
    controller, user = os.openpty()
    try:
        on_terminal = subprocess.Popen(["sleep", "600"], stdin=user)
        try:
            assert process_table.terminal(on_terminal.pid) == os.ttyname(user)
        finally:
            on_terminal.kill()
            on_terminal.wait()
    finally:
        os.close(controller)
        os.close(user)
