"""Evidence of kills for memory: real processes, cgroups and kernel logs where this host permits them."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from circus_failover import process_table
from circus_failover.canary import host

linux = pytest.mark.skipif(not process_table.LINUX, reason="reads /proc")
pytestmark = linux

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = itertools.count()
# Joins a cgroup, says so, waits for a word, and then takes memory until it is killed.
HUNGRY = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
print("joined", flush=True)
sys.stdin.readline()
kept = [bytearray(1024 * 1024) for _ in range(256)]
"""


def await_true(probe: Callable[[], object], timeout: float = 10.0) -> None:
    until = time.monotonic() + timeout
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def cgroup() -> Iterator[Callable[[], Path]]:
    """Make memory cgroups of 16 MB."""
    made: list[Path] = []

    def make() -> Path:
        one = Path("/sys/fs/cgroup/memory")
        two = Path("/sys/fs/cgroup")
        name = f"failover-test-{os.getpid()}-{next(NUMBERS)}"
        try:
            if (one / "memory.oom_control").exists():
                limits, folder = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), one / name
            elif "memory" in (two / "cgroup.subtree_control").read_text().split():
                limits, folder = ("memory.max", "memory.swap.max"), two / name
            else:
                pytest.skip("no memory controller can be used here")
            folder.mkdir()
            made.append(folder)
            for limit in limits:
                if (folder / limit).exists():
                    (folder / limit).write_text("0" if limit == "memory.swap.max" else str(16 * 1024 * 1024))
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        return folder

    yield make

    def gone(folder: Path) -> bool:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    for folder in made:
        await_true(lambda folder=folder: gone(folder))  # type: ignore[misc]


@pytest.fixture
def kernel_log() -> Callable[[str], None]:
    """Write lines into the kernel log, as root can."""
    if host.kernel_lines({}) is None:
        pytest.skip("the kernel log cannot be read here")

    def write(text: str) -> None:
        try:
            handle = os.open(host.KMSG, os.O_WRONLY)
        except OSError as error:
            pytest.skip(f"nothing can be written to the kernel log here: {error}")
        try:
            os.write(handle, f"<4>{text}\n".encode())
        finally:
            os.close(handle)

    return write


def nobodys_pid() -> int:
    """Return a pid that no process can have: above the largest pid_max (include/linux/threads.h)."""
    return random.randrange(5_000_000, 2_000_000_000)


def boot_secs() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# -- a process that is really killed for memory ------------------------------------------------------


def test_a_process_killed_for_memory_moves_its_counter_and_is_named_by_the_kernel(
    start: Callable[..., subprocess.Popen[str]], cgroup: Callable[[], Path]
) -> None:
    folder = cgroup()
    victim = start(sys.executable, "-I", "-S", "-c", HUNGRY, str(folder))
    assert victim.stdout is not None and victim.stdin is not None
    assert victim.stdout.readline() == "joined\n"
    identity = process_table.identify(victim.pid)
    assert identity is not None
    since = identity.start / os.sysconf("SC_CLK_TCK")
    armed = host.counters(victim.pid)
    assert host.cgroup_of(armed) == str(folder)
    assert host.moved(armed, host.counters_of(armed)) is None
    assert host.kernel_line(victim.pid, since) is None

    victim.stdin.write("go\n")
    victim.stdin.flush()
    assert victim.wait(30) == -9

    said = host.moved(armed, host.counters_of(armed))
    assert said is not None and str(folder) in said and said.endswith("from 0 to 1 since it was armed")
    if host.kernel_lines({}) is None:
        pytest.skip("the counter moved; the kernel log cannot be read here")
    await_true(lambda: host.kernel_line(victim.pid, since))
    line = host.kernel_line(victim.pid, since)
    assert line is not None and f"Killed process {victim.pid} (" in line
    assert host.kernel_line(victim.pid) == line
    assert host.kernel_line(victim.pid, boot_secs() + 3600) is None, "it is of a process that was here before"
    lines = host.kernel_lines({victim.pid: since, os.getpid(): None})
    assert lines is not None
    assert any("Killed process" in line for line in lines[victim.pid])
    assert not any("Killed process" in line for line in lines[os.getpid()])


def test_a_process_killed_by_somebody_is_not_blamed_on_memory_although_another_one_was(
    start: Callable[..., subprocess.Popen[str]], cgroup: Callable[[], Path]
) -> None:
    mine, other = cgroup(), cgroup()
    killed = start(sys.executable, "-I", "-S", "-c", HUNGRY, str(mine))
    hungry = start(sys.executable, "-I", "-S", "-c", HUNGRY, str(other))
    for process in (killed, hungry):
        assert process.stdout is not None and process.stdout.readline() == "joined\n"
    armed = host.counters(killed.pid)
    hungry.communicate("go\n", 30)
    killed.kill()
    killed.wait()
    now = host.counters_of(armed)
    assert now[host.VMSTAT] > armed[host.VMSTAT]
    assert host.moved(armed, now) is None
    assert host.kernel_line(killed.pid) is None


def test_the_counter_of_a_cgroup_that_is_gone_is_left_out(
    start: Callable[..., subprocess.Popen[str]], cgroup: Callable[[], Path]
) -> None:
    folder = cgroup()
    process = start(sys.executable, "-I", "-S", "-c", HUNGRY, str(folder))
    assert process.stdout is not None and process.stdout.readline() == "joined\n"
    armed = host.counters(process.pid)
    assert set(armed) == set(host.counters_of(armed)) and len(armed) == 2
    assert host.cgroup_values(str(folder))
    process.kill()
    process.communicate()
    await_true(lambda: not [*folder.glob("cgroup.procs")] or not (folder / "cgroup.procs").read_text())

    def removed() -> bool:
        try:
            folder.rmdir()
        except OSError:
            return False
        return True

    await_true(removed)
    assert list(host.counters_of(armed)) == [host.VMSTAT]
    assert host.cgroup_values(str(folder)) == {}


# -- counters -----------------------------------------------------------------------------------------


def test_counters_are_named_so_that_they_can_be_read_again() -> None:
    armed = host.counters(os.getpid())
    assert host.VMSTAT in armed
    assert set(host.counters_of(armed)) == set(armed)
    for key in armed:
        path, _, field = key.rpartition(":")
        assert os.path.isfile(path) and field == "oom_kill"


def test_a_process_that_is_gone_has_the_hosts_counter_alone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert list(host.counters(process.pid)) == [host.VMSTAT]


A, B = "/sys/fs/cgroup/a/memory.events:oom_kill", "/sys/fs/cgroup/memory/b/memory.oom_control:oom_kill"
MOVED: list[tuple[str, dict[str, int], dict[str, int], str | None]] = [
    ("nothing moved", {A: 3, host.VMSTAT: 7}, {A: 3, host.VMSTAT: 7}, None),
    ("its cgroup's", {A: 0, host.VMSTAT: 7}, {A: 2, host.VMSTAT: 9}, A),
    ("its cgroup's, of v1", {B: 0, host.VMSTAT: 7}, {B: 1, host.VMSTAT: 7}, B),
    ("another's", {A: 3, host.VMSTAT: 7}, {A: 3, host.VMSTAT: 8}, None),
    ("the host's, and there is no cgroup", {host.VMSTAT: 7}, {host.VMSTAT: 8}, host.VMSTAT),
    ("the host's, and the cgroup is gone", {A: 3, host.VMSTAT: 7}, {host.VMSTAT: 8}, host.VMSTAT),
    ("the host's, the cgroup is a new one", {A: 3, host.VMSTAT: 7}, {A: 1, host.VMSTAT: 8}, host.VMSTAT),
    ("nothing, and the cgroup is gone", {A: 3, host.VMSTAT: 7}, {host.VMSTAT: 7}, None),
    ("nothing can be read now", {A: 3, host.VMSTAT: 7}, {}, None),
    ("it was never armed", {}, {host.VMSTAT: 8}, None),
    ("nothing could be read when it was armed", {}, {}, None),
]


@pytest.mark.parametrize("before, now, which", [row[1:] for row in MOVED], ids=[row[0] for row in MOVED])
def test_the_cgroups_counter_decides_and_the_hosts_only_where_there_is_none(
    before: dict[str, int], now: dict[str, int], which: str | None
) -> None:
    said = host.moved(before, now)
    if which is None:
        assert said is None
        return
    path, _, field = which.rpartition(":")
    assert said == f"{field} in {path} went from {before[which]} to {now[which]} since it was armed"


# -- where a process's cgroup is ----------------------------------------------------------------------


def file(path: Path, text: str = "oom_kill 0\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_v2_takes_the_nearest_cgroup_that_has_the_memory_controller(tmp_path: Path) -> None:
    events = file(tmp_path / "user.slice/user-1000.slice/memory.events")
    (tmp_path / "user.slice/user-1000.slice/session-3.scope").mkdir()
    mounts = {"cgroup2": (str(tmp_path), "/")}
    inner = "0::/user.slice/user-1000.slice/session-3.scope\n"
    assert host._find_counter(inner, mounts) == f"{events}:oom_kill"
    own = file(tmp_path / "user.slice/user-1000.slice/session-3.scope/memory.events")
    assert host._find_counter(inner, mounts) == f"{own}:oom_kill"


def test_v1_takes_its_own_cgroup_alone(tmp_path: Path) -> None:
    file(tmp_path / "a/memory.oom_control")
    own = file(tmp_path / "a/b/memory.oom_control")
    mounts = {"cgroup": (str(tmp_path), "/"), "cgroup2": (str(tmp_path / "unified"), "/")}
    assert host._find_counter("9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n", mounts) == f"{own}:oom_kill"
    assert host._find_counter("4:memory:/a/c\n0::/\n", mounts) is None


@pytest.mark.parametrize(
    "text",
    [
        "0::/\n",
        "4:memory:/\n0::/\n",
        "0::/../../elsewhere\n",
        "4:memory:/../x\n",
        "",
        "nonsense\n",
        "4:cpu:/a\n",
    ],
)
def test_a_process_in_the_root_or_outside_of_what_is_mounted_has_no_cgroup_counter(
    tmp_path: Path, text: str
) -> None:
    for path in (
        "v1/release_agent",
        "v1/memory.oom_control",
        "x/memory.oom_control",
        "memory.events",
        "v2/a/memory.events",
    ):
        file(tmp_path / path)
    mounts = {"cgroup": (str(tmp_path / "v1"), "/"), "cgroup2": (str(tmp_path / "v2"), "/")}
    assert host._find_counter(text, mounts) is None


def test_a_process_in_the_real_root_has_the_hosts_counter_alone(
    start: Callable[..., subprocess.Popen[str]], cgroup: Callable[[], Path]
) -> None:
    folder = cgroup()
    if host._find_counter("4:memory:/\n0::/\n", host._mount_points()) is not None:
        pytest.skip("the real root cannot be reached from here")
    process = start(sys.executable, "-I", "-S", "-c", HUNGRY, str(folder))
    assert process.stdout is not None and process.stdout.readline() == "joined\n"
    assert len(host.counters(process.pid)) == 2
    (folder.parent / "cgroup.procs").write_text(str(process.pid))
    await_true(lambda: list(host.counters(process.pid)) == [host.VMSTAT])


def test_what_a_container_takes_for_the_root_is_a_cgroup_like_others(tmp_path: Path) -> None:
    events, control = file(tmp_path / "v2/memory.events"), file(tmp_path / "v1/memory.oom_control")
    mounts = {"cgroup": (str(tmp_path / "v1"), "/"), "cgroup2": (str(tmp_path / "v2"), "/")}
    assert host._find_counter("4:memory:/\n0::/\n", mounts) == f"{control}:oom_kill"
    assert host._find_counter("0::/\n", mounts) == f"{events}:oom_kill"
    assert host._find_counter("0::/agents\n", mounts) == f"{events}:oom_kill"


def test_the_cgroup_of_a_container_is_found_below_its_mount(tmp_path: Path) -> None:
    own = file(tmp_path / "agents/memory.oom_control")
    file(tmp_path / "release_agent")
    mounts = {"cgroup": (str(tmp_path), "/docker/abc")}
    assert host._find_counter("4:memory:/docker/abc/agents\n", mounts) == f"{own}:oom_kill"
    assert host._find_counter("4:memory:/docker/abcdef\n", mounts) is None


MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
30 23 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 /docker/abc /else\040where/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 /a\134b /sys/fs/cgroup/uni\040fied rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:39 / /broken
"""


def test_mount_points_are_taken_from_mountinfo() -> None:
    assert host._parse_mounts(MOUNTS) == {
        "cgroup": ("/sys/fs/cgroup/memory", "/"),
        "cgroup2": ("/sys/fs/cgroup/uni fied", "/a\\b"),
    }
    assert host._parse_mounts("") == {}


# -- the kernel log -----------------------------------------------------------------------------------


# As kernels write them; the pid is 12345 in each.
KILL_LINES = [
    # 6.18
    "Memory cgroup out of memory: Killed process 12345 (python3) total-vm:82104kB, anon-rss:16128kB,"
    " file-rss:6596kB, shmem-rss:0kB, UID:0 pgtables:96kB oom_score_adj:0",
    "Out of memory: Killed process 12345 (tmux: server) total-vm:1kB, anon-rss:1kB, UID:0 pgtables:1kB",
    "Out of memory (oom_kill_allocating_task): Killed process 12345 (tmux: server) total-vm:1kB",
    "oom_reaper: reaped process 12345 (tmux: server), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
    # 4.18
    "Killed process 12345 (tmux: server) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
    # 3.10
    "Killed process 12345 (tmux: server), UID 0, total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
    r"Memory cgroup out of memory: Killed process 12345 (a\x0aKilled process 2 (b) total-vm:1kB",
]
OTHER_LINES = [
    # 4.18: the one chosen, of whom a child may be sacrificed
    "Out of memory: Kill process 12345 (tmux: server) score 900 or sacrifice child",
    "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
    "[  12345]     0 12345    20526     5681     4032     1649         0    98304        0   0 python3",
    "tmux: server[12345]: segfault at 0 ip 0000000000000000 sp 00007ffd error 14 in tmux[400000+1000]",
    "systemd[1]: said: Out of memory: Killed process 12345 (x)",
    "Out of memory: Killed process (x) 12345",
    "Killed process",
    "",
]


def looked_through(lines: list[str]) -> Callable[[int], str | None]:
    """Return what finds kills in a log of these lines: a socket passes one record a read, as the log does."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading.setblocking(False)
    for number, line in enumerate(lines):
        writing.send(f"4,{number},{number}000000,-;{line}\n SUBSYSTEM=x\n".encode())
    log = host._KernelLog()
    log.opener, log.handle = os.getpid(), reading.fileno()
    assert log.look()
    reading.close()
    writing.close()
    return lambda pid: log.find(pid, None)


@pytest.mark.parametrize("line", KILL_LINES)
def test_a_line_that_says_it_was_killed_is_found(line: str) -> None:
    find = looked_through(["booting", *OTHER_LINES, line, "more"])
    assert find(12345) == line
    assert [find(pid) for pid in (1, 2, 123, 1234, 123456, 345, 0)] == [None] * 7


@pytest.mark.parametrize("line", OTHER_LINES)
def test_other_lines_that_name_it_say_nothing_of_the_kind(line: str) -> None:
    assert looked_through([line])(12345) is None


def test_the_first_line_since_it_was_started_is_the_one_told() -> None:
    find = looked_through([KILL_LINES[0], KILL_LINES[3]])
    assert find(12345) == KILL_LINES[0]


@pytest.mark.parametrize(
    "raw", [b"", b";", b"4,1;x\n", b"a,b,c,-;x\n", b"\xff\x00", b"4,1,", b"no semicolon"]
)
def test_a_record_that_makes_no_sense_is_passed_over(raw: bytes) -> None:
    assert host._parse_record(raw) is None


def test_a_record_is_read_whatever_its_text_holds() -> None:
    assert host._parse_record(b"6,343,1380114,-;a;b,c\xff\n KEY=1\n") == (1.380114, True, "a;b,c\ufffd")
    assert host._parse_record(b"12,343,1380114,-,caller=T1;by a program\n") == (
        1.380114,
        False,
        "by a program",
    )


def test_lines_are_found_as_they_come_and_only_those_of_this_very_process(
    kernel_log: Callable[[str], None],
) -> None:
    pid = nobodys_pid()
    assert host.kernel_line(pid) is None
    assert host.kernel_line(pid) is None, "the end of the log is no end of looking"
    kernel_log(f"Out of memory: Killed process {pid} (tmux: server) total-vm:1kB")
    assert host.kernel_line(pid) == f"Out of memory: Killed process {pid} (tmux: server) total-vm:1kB"
    assert host.kernel_line(pid, boot_secs() - 60) is not None
    assert host.kernel_line(pid, boot_secs() + 3600) is None
    assert host.kernel_line(pid + 1) is None
    assert host.kernel_line(int(str(pid)[:-1])) is None


def test_a_child_that_looks_takes_no_line_from_its_parent(kernel_log: Callable[[str], None]) -> None:
    pid = nobodys_pid()
    assert host.kernel_line(pid) is None
    kernel_log(f"Out of memory: Killed process {pid} (tmux: server) total-vm:1kB")
    child = os.fork()
    if child == 0:
        os._exit(0 if host.kernel_line(pid) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert host.kernel_line(pid) is not None


def test_lines_for_the_snapshot_are_the_kernels_own(kernel_log: Callable[[str], None]) -> None:
    pid = nobodys_pid()
    kernel_log(f"login[{pid}]: started as --password=hunter2")
    kernel_log(f"audit: type=1309 pid={pid} a0=--password=hunter2")
    kernel_log(f"Out of memory: Killed process {pid} (tmux: server) total-vm:1kB")
    found = host.kernel_lines({pid: boot_secs() - 60, pid + 1: None})
    assert found is not None
    assert [line.partition("] ")[2] for line in found[pid]] == [
        f"Out of memory: Killed process {pid} (tmux: server) total-vm:1kB"
    ]
    assert found[pid + 1] == []
    assert host.kernel_lines({pid: boot_secs() + 3600}) == {pid: []}


@pytest.mark.parametrize(
    "line",
    [
        "tmux: server[12345]: segfault at 0 ip 0000000000000000 sp 00007ffd2a error 14 in tmux[400000+1000]",
        "traps: tmux: server[12345] general protection fault ip:1 sp:2 error:0 in tmux[400000+1000]",
        "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/a,task=tmux: server,pid=12345,uid=0",
        "[  12345]     0 12345    20526     5681     4032     1649         0    98304        0   0 python3",
        "CPU: 1 UID: 0 PID: 12345 Comm: tmux: server Not tainted 6.18.44 #1 PREEMPT(none)",
        "INFO: task tmux: server:12345 blocked for more than 122 seconds.",
        *KILL_LINES,
    ],
)
def test_lines_that_name_a_process_are_recognised(line: str) -> None:
    assert "12345" in host._NAMED.findall(line)


@pytest.mark.parametrize("line", ["took 12345 ms", "usb 1-1: 12345 blocks", "rss 12345kB", "port:x12345"])
def test_other_numbers_are_nobodys_pid(line: str) -> None:
    assert "12345" not in host._NAMED.findall(line)


def test_a_kernel_log_that_may_not_be_read_says_nothing() -> None:
    if os.geteuid() != 0 or host.kernel_lines({}) is None:
        pytest.skip("needs somebody who may read the kernel log, and another who may not")
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0":
        pytest.skip("everybody may read the kernel log here")
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(65534)
        os._exit(0 if host.kernel_line(1) is None and host.kernel_lines({1: None}) is None else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_pids_of_another_namespace_are_not_looked_for_in_the_kernels_log(
    kernel_log: Callable[[str], None],
) -> None:
    pid = nobodys_pid()
    kernel_log(f"Out of memory: Killed process {pid} (tmux: server) total-vm:1kB")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from circus_failover.canary import host\n"
        "print(host.kernel_line(int(sys.argv[2])) is not None)\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(ROOT), str(pid)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "True\n"
    found = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *argv], capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        pytest.skip(f"no pid namespace can be made here: {found.stderr}")
    assert found.stdout == "False\n"


# -- figures, and what is not there -------------------------------------------------------------------


def test_figures_of_the_host_are_there() -> None:
    assert host.memory()["MemTotal"] > host.memory()["MemFree"] > 0
    assert set(host.swap()) <= set(host.SWAP_FIELDS)
    assert host.load()["processors"] == os.cpu_count()
    for lines in host.pressure().values():
        assert lines[0].startswith("some avg10=")


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert host.read(str(tmp_path / "none")) is None
    assert host.read(str(tmp_path)) is None
    assert host.cgroup_values(str(tmp_path)) == {}
    assert host.cgroup_of({host.VMSTAT: 1}) is None
    assert host.cgroup_of({}) is None
    assert host.counters_of({f"{tmp_path}/memory.events:oom_kill": 1}) == {}


def test_limits_and_use_of_a_cgroup_are_read_by_line(tmp_path: Path) -> None:
    file(tmp_path / "memory.events", "oom 1\noom_kill 2\n")
    file(tmp_path / "memory.max", "max\n")
    file(tmp_path / "cgroup.procs", "1\n")
    assert host.cgroup_values(str(tmp_path)) == {
        "memory.events": ["oom 1", "oom_kill 2"],
        "memory.max": ["max"],
    }


def test_a_pipe_in_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "memory.events")
    assert not host.read(str(tmp_path / "memory.events"))


def test_the_watching_process_pays_for_nothing_heavy() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from circus_failover.canary import forensics, host\n"
        "print(*sorted({'dataclasses', 'typing', 'pathlib', 'subprocess', 'socket', 'logging',\n"
        "    'sqlite3', 'ctypes', 'psutil', 'glob', 'circus_failover.canary.document'} & set(sys.modules)))\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "\n"
