"""Snapshots of deaths: what is in them, what never is, and what no pane log, name or disk can do to them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circus_failover import process_table
from circus_failover.canary import core_dump, document, forensics, host, pane_tail, watched
from circus_failover.canary.death import Death
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.process_table import ProcessId

linux = pytest.mark.skipif(not process_table.LINUX, reason="reads /proc")

ROOT = Path(__file__).resolve().parents[1]
AT = 1763719412.25
SECRET = "hunter2-never-to-be-seen"
# Nobody else's: tests that run at the same time see each other's processes.
FIRST, SECOND = (f"launch-{uuid.uuid4()}-{number}" for number in (1, 2))
TENTH = f"{FIRST}0"
# Names itself as it is told, says so, and stays.
NAMED = """
import sys
with open("/proc/self/comm", "wb") as file:
    file.write(sys.argv[1].encode())
print("named", flush=True)
sys.stdin.read()
"""


def await_true(probe: Callable[[], object], timeout: float = 10.0) -> None:
    until = time.monotonic() + timeout
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def state(tmp_path: Path) -> str:
    for name in ("panes", "canary", "forensics"):
        (tmp_path / name).mkdir()
    return str(tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., ProcessId]]:
    """Start processes that are ended with the test; each is there, under its name, before it is returned."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str = "agent", *arguments: str, **environment: str) -> ProcessId:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", NAMED, name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **environment},
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "named\n"
        found = process_table.identify(process.pid)
        assert found is not None
        return found

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ended() -> ProcessId:
    """Return a process that has ended."""
    process = subprocess.Popen(["sleep", "600"])
    found = process_table.identify(process.pid)
    process.kill()
    process.wait()
    assert found is not None
    return found


def nobody() -> ProcessId:
    """Return a process that never was: its pid is above the largest pid_max (include/linux/threads.h)."""
    return ProcessId(random.randrange(5_000_000, 2_000_000_000), 1)


def agent(identity: str = "bob", launch: str | None = None, process: ProcessId | None = None) -> WatchedAgent:
    return WatchedAgent(identity, 3, launch or f"launch-of-{identity}", identity, "%0", process)


def death(*agents: WatchedAgent, server: ProcessId | None = None, at: float = AT, **known: Any) -> Death:
    values = {
        "number": int(signal.SIGKILL),
        "status": None,
        "how": "pidfd-info",
        "cause": "killed",
        "detected": "live",
        "seen": None,
        "evidence": "SIGKILL",
        "forensics": None,
        **known,
    }
    server = server or nobody()
    return Death(
        watched=Watched("/run/failover/tmux/bob.sock", server, "boot", 1.0, False, agents),
        at=at,
        up=12.5,
        **values,
    )


def snapshots(state_dir: str) -> list[Path]:
    return sorted(Path(state_dir, "forensics").iterdir())


def write(state_dir: str, *deaths: Death, armed: dict[str, dict[str, int]] | None = None) -> list[Any]:
    """Write the snapshots of these deaths, and return what all snapshots say."""
    forensics.write_all(state_dir, list(deaths), armed or {})
    return [json.loads(path.read_text(encoding="utf-8")) for path in snapshots(state_dir)]


def note_trees(state_dir: str, content: object) -> None:
    Path(state_dir, watched.TREES).write_text(json.dumps(content))


def print_pane(state_dir: str, identity: str, raw: bytes) -> None:
    Path(state_dir, "panes", f"{identity}.log").write_bytes(raw)


# -- the file -----------------------------------------------------------------------------------------


def test_names_of_snapshots_sort_by_time() -> None:
    assert forensics.path_for("/state", AT, 77) == "/state/forensics/20251121T100332.250Z-77.json"
    moments = [AT, AT + 0.001, AT + 0.01, AT + 1, AT + 100, AT + 1e6, AT + 1e8]
    paths = [forensics.path_for("/state", at, 77) for at in moments]
    assert paths == sorted(set(paths))


@linux
def test_a_death_is_one_private_file_that_says_what_happened(state: str) -> None:
    one = death(agent())
    (found,) = write(state, one)
    (path,) = snapshots(state)
    assert str(path) == forensics.path_for(state, AT, one.watched.server.pid)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith('{\n "taken_at": ')
    assert found["server"] == {
        "socket": "/run/failover/tmux/bob.sock",
        "pid": one.watched.server.pid,
        "start": 1,
        "drill": False,
        "at": AT,
        "time": "2025-11-21T10:03:32.250Z",
        "up_secs": 12.5,
        "signal": 9,
        "signal_name": "SIGKILL",
        "status": None,
        "how": "pidfd-info",
        "cause": "killed",
        "detected": "live",
        "last_seen": None,
        "evidence": "SIGKILL",
    }
    assert found["trimmed"] is None
    assert found["memory_kb"]["MemTotal"] > 0
    assert found["load"]["processors"] == os.cpu_count()
    assert set(found) == {
        *("taken_at", "trimmed", "server", "agents", "core_dump", "kernel_log", "cgroup"),
        *("memory_kb", "swap_kb", "pressure", "load", "processes"),
    }


def test_it_is_written_where_the_record_says(state: str) -> None:
    path = forensics.path_for(state, AT + 5, 4)
    write(state, death(agent(), forensics=path))
    assert [str(found) for found in snapshots(state)] == [path]


def test_the_folder_is_made_private_when_it_is_missing(state: str) -> None:
    os.rmdir(os.path.join(state, "forensics"))
    assert len(write(state, death(agent()))) == 1
    assert stat.S_IMODE(os.stat(os.path.join(state, "forensics")).st_mode) == 0o700


@linux
def test_deaths_of_one_moment_share_one_look_at_the_host(state: str) -> None:
    found = write(state, *(death(agent(f"bob-{number}"), at=AT + number) for number in range(20)))
    assert len(found) == 20
    assert len({one["taken_at"] for one in found}) == 1
    assert len({json.dumps(one["processes"]) for one in found}) == 1
    assert [one["agents"][0]["identity"] for one in found] == [f"bob-{number}" for number in range(20)]


def test_an_unknown_end_is_told_as_such(state: str) -> None:
    (found,) = write(
        state,
        death(agent(), number=None, how="none", cause="unknown", detected="post-factum", seen=AT - 60),
    )
    server = found["server"]
    assert (server["signal"], server["signal_name"], server["status"]) == (None, None, None)
    assert (server["cause"], server["detected"], server["last_seen"]) == ("unknown", "post-factum", AT - 60)


# -- processes ----------------------------------------------------------------------------------------


@linux
def test_it_says_of_each_known_process_whether_it_still_lives(
    state: str, start: Callable[..., ProcessId]
) -> None:
    gone, alive = ended(), start()
    reused = ProcessId(start().pid, 1)
    note_trees(
        state,
        {
            "launch-1": [[*gone, "claude"], [*reused, "node"], [*alive, "bash"]],
            "launch-2": [[*ended(), "of another"]],
        },
    )
    (found,) = write(state, death(agent("bob", "launch-1", gone)))
    (bob,) = found["agents"]
    assert bob["process"] == {"pid": gone.pid, "start": gone.start, "lives": False}
    assert bob["tree"] == [
        {"pid": alive.pid, "start": alive.start, "name": "bash", "lives": True},
        {"pid": gone.pid, "start": gone.start, "name": "claude", "lives": False},
        {"pid": reused.pid, "start": 1, "name": "node", "lives": False},
    ]
    assert (bob["identity"], bob["generation"], bob["launch"]) == ("bob", 3, "launch-1")


@linux
def test_a_zombie_has_ended(state: str) -> None:
    process = subprocess.Popen(["sleep", "600"])
    try:
        found = process_table.identify(process.pid)
        assert found is not None
        process.kill()
        await_true(lambda: not process_table.alive(found))
        (said,) = write(state, death(agent(process=found)))
        assert said["agents"][0]["process"]["lives"] is False
    finally:
        process.kill()
        process.wait()


@linux
def test_what_else_of_the_launch_lives_is_found_by_its_environment(
    state: str, start: Callable[..., ProcessId]
) -> None:
    own = start("own", FAILOVER_LAUNCH=FIRST)
    noted = start("noted", FAILOVER_LAUNCH=FIRST)
    stray = start("stray", FAILOVER_LAUNCH=FIRST)
    start("another", FAILOVER_LAUNCH=TENTH)
    start("nobodys", OTHER_FAILOVER_LAUNCH=FIRST)
    elsewhere = start("elsewhere", FAILOVER_LAUNCH=SECOND)
    note_trees(state, {FIRST: [[*own, "own"], [*noted, "noted"]], SECOND: []})
    (found,) = write(state, death(agent("bob", FIRST, own), agent("eve", SECOND), agent("joe", "none")))
    bob, eve, joe = found["agents"]
    assert bob["also_living"] == [{"pid": stray.pid, "start": stray.start, "name": "stray"}]
    assert eve["also_living"] == [{"pid": elsewhere.pid, "start": elsewhere.start, "name": "elsewhere"}]
    assert joe["also_living"] == []


@linux
def test_of_an_agent_that_somebody_else_started_no_launch_is_looked_for(
    state: str, start: Callable[..., ProcessId]
) -> None:
    start("x", FAILOVER_LAUNCH="None")
    foreign = agent()._replace(launch=None)
    (found,) = write(state, death(foreign))
    assert (found["agents"][0]["tree"], found["agents"][0]["also_living"]) == (None, None)


@linux
def test_the_largest_processes_are_named_and_nothing_else_is_said_of_them(state: str) -> None:
    (found,) = write(state, death(agent()))
    rows = found["processes"]["top_by_memory"]
    assert 0 < len(rows) <= 25
    assert found["processes"]["number"] >= len(rows)
    assert all(set(row) == {"pid", "name", "rss_kb"} for row in rows)
    sizes = [row["rss_kb"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    mine = int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0])
    assert sizes[0] >= mine / 2


@linux
def test_threads_of_the_kernel_have_no_environment_that_could_not_be_read(state: str) -> None:
    threads = sum(one.parent == 2 for one in process_table.table().values())
    if os.geteuid() != 0 or threads < 10:
        pytest.skip("needs root, and to see the kernel's threads")
    (found,) = write(state, death(agent()))
    assert found["processes"]["environments_unreadable"] < threads, "root can read those of all others"


@linux
def test_no_command_line_and_no_environment_gets_in(state: str, start: Callable[..., ProcessId]) -> None:
    own = start("claude", f"--api-key={SECRET}", FAILOVER_LAUNCH=FIRST, API_KEY=SECRET)
    stray = start("stray", f"--password={SECRET}", FAILOVER_LAUNCH=FIRST, PASSWORD=SECRET)
    note_trees(state, {FIRST: [[*own, "claude"]]})
    (found,) = write(state, death(agent("bob", FIRST, own)))
    assert [row["pid"] for row in found["agents"][0]["also_living"]] == [stray.pid]
    (path,) = snapshots(state)
    assert SECRET not in path.read_text()
    assert "API_KEY" not in path.read_text() and "--password" not in path.read_text()


HOSTILE_NAMES = ['a) R 1 1 "\n', "\x1b[2J\x1b]0;x\x07", "é\u202e\u009b31m", '"}],', "(((", ")))) Z 0"]


@linux
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_process_can_be_called_anything(state: str, start: Callable[..., ProcessId], name: str) -> None:
    process = start(name, FAILOVER_LAUNCH=FIRST)
    note_trees(state, {FIRST: [[*ended(), name]]})
    (found,) = write(state, death(agent("bob", FIRST)))
    (bob,) = found["agents"]
    cut = name.encode()[:15].decode("utf-8", "backslashreplace")
    assert bob["also_living"] == [{"pid": process.pid, "start": process.start, "name": cut}]
    assert bob["tree"][0]["name"] == name
    (path,) = snapshots(state)
    assert path.read_text().replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]",
        b'"error"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"launch-1": 5}',
        b'{"launch-1": [[1, 2]]}',
        b'{"launch-1": [["x", "y", "z"]]}',
        b'{"launch-1": [[1e999, 2, "z"]]}',
        b'{"launch-1": "abc"}',
    ],
)
def test_trees_that_are_missing_or_make_no_sense_cost_only_themselves(
    state: str, content: bytes | None
) -> None:
    if content is not None:
        Path(state, watched.TREES).write_bytes(content)
    print_pane(state, "bob", b"hello\n")
    (found,) = write(state, death(agent("bob", "launch-1")))
    (bob,) = found["agents"]
    assert list(bob["tree"]) == ["error"] and bob["tree"]["error"]
    assert bob["pane_log"]["lines"] == ["hello"]
    assert bob["identity"] == "bob"


# -- what else is known -------------------------------------------------------------------------------


@linux
def test_counters_and_limits_of_the_cgroup_are_there_then_and_now(state: str) -> None:
    one = death(agent())
    armed = host.counters(os.getpid())
    before = dict.fromkeys(armed, 0)
    low = host.counters_of(armed)  # they move whenever anybody on this host is killed for memory
    (found,) = write(state, one, armed={one.watched.name: before})
    high, now = host.counters_of(armed), found["cgroup"]["counters_now"]
    assert found["cgroup"]["counters_at_arming"] == before
    assert set(now) == set(armed) and all(low[name] <= now[name] <= high[name] for name in armed)
    assert found["cgroup"]["folder"] == host.cgroup_of(armed)
    (found,) = write(state, one)
    assert found["cgroup"] == {
        "folder": None,
        "counters_at_arming": {},
        "counters_now": {},
        "values": None,
    }


@linux
def test_lines_of_the_kernel_log_about_the_server_are_there(state: str) -> None:
    if host.kernel_lines({}) is None:
        (found,) = write(state, death(agent()))
        assert list(found["kernel_log"]) == ["error"]
        return
    try:
        log = os.open(host.KMSG, os.O_WRONLY)
    except OSError as error:
        pytest.skip(f"nothing can be written to the kernel log here: {error}")
    one, other = death(agent()), death(agent("eve"), at=AT + 1)
    pid = one.watched.server.pid
    os.write(log, f"<4>Out of memory: Killed process {pid} (tmux: server)\n".encode())
    os.write(log, f"<4>login[{pid}]: {SECRET}\n".encode())
    os.close(log)
    first, second = write(state, one, other)
    (line,) = first["kernel_log"]
    assert line.endswith(f"Out of memory: Killed process {pid} (tmux: server)")
    assert second["kernel_log"] == []


# -- core dumps ---------------------------------------------------------------------------------------


def cores(**known: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"number": 11, "status": None, "pattern": "core", "uses_pid": False, **known}
    return core_dump.find(77, AT, **values)


def put(path: Path, at: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 10)
    os.utime(path, (at, at))


@pytest.mark.parametrize("number", [9, 15, 1, 64])
def test_an_end_that_leaves_no_core_dump_is_said_to(number: int, tmp_path: Path) -> None:
    put(tmp_path / "core.77", AT)
    assert cores(number=number, pattern=f"{tmp_path}/core.%p")["found"] == []
    assert cores(number=None, status=1, pattern=f"{tmp_path}/core.%p")["found"] == []


@pytest.mark.parametrize("pattern", ["core", "", "core.%p", "|/usr/share/apport/apport %p", "|", "| "])
def test_where_nobody_can_know_nothing_is_claimed(pattern: str) -> None:
    found = cores(pattern=pattern)
    assert found["found"] is None and found["why"]


@pytest.mark.parametrize(
    "pattern, uses_pid, name",
    [
        ("core.%p", False, "core.77"),
        ("core.%P", False, "core.77"),
        ("core.%p", True, "core.77"),
        ("core.%e.%p.%t", False, "core.tmux: server.77.1763719412"),
        ("%%-%h/core-%p%", False, "%-host/core-77"),
        ("core", True, "core.77"),
        ("core.%e", True, "core.tmux.77"),
        ("[ab]*.%p", False, "[ab]*.77"),
        ("core", False, "core"),
    ],
)
def test_a_core_dump_is_found_by_the_pattern(pattern: str, uses_pid: bool, name: str, tmp_path: Path) -> None:
    put(tmp_path / name, AT - 1)
    put(tmp_path / "core.777", AT)
    put(tmp_path / "a.77", AT)
    found = cores(pattern=f"{tmp_path}/{pattern}", uses_pid=uses_pid)
    assert found["found"] == [{"path": str(tmp_path / name), "bytes": 10, "written_at": AT - 1}]


def test_a_core_dump_of_long_before_is_another_ones(tmp_path: Path) -> None:
    put(tmp_path / "core.77", AT - 61)
    assert cores(pattern=f"{tmp_path}/core.%p")["found"] == []
    put(tmp_path / "core.77", AT - 59)
    assert len(cores(pattern=f"{tmp_path}/core.%p")["found"]) == 1
    assert len(cores(number=None, pattern=f"{tmp_path}/core.%p")["found"]) == 1


def test_a_core_dump_that_systemd_keeps_is_found_by_the_pid_in_its_name(tmp_path: Path) -> None:
    boot = "0123456789abcdef" * 2
    name = f"core.tmux\\x3a\\x20server.1000.{boot}.77.1763719412000000.zst"
    put(tmp_path / name, AT)
    put(tmp_path / f"core.tmux.77.{boot}.1000.1763719412000000.zst", AT)
    put(tmp_path / f"core.tmux.1000.{boot}.77.1763619412000000.lz4", AT - 100_000)
    pipe = "|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h"
    assert [row["path"] for row in cores(pattern=pipe, systemd=str(tmp_path))["found"]] == [
        str(tmp_path / name)
    ]
    assert cores(pattern=pipe, systemd=str(tmp_path / "none"))["found"] == []


# -- pane logs ----------------------------------------------------------------------------------------


def tail(tmp_path: Path, raw: bytes) -> list[str]:
    path = tmp_path / "x.log"
    path.write_bytes(raw)
    size, lines = pane_tail.tail(str(path))
    assert size == len(raw)
    return lines


PRINTED: list[tuple[str, bytes, list[str]]] = [
    ("lines", b"one\r\ntwo\nthree", ["one", "two", "three"]),
    ("nothing", b"", []),
    ("blank lines", b"\n\r\n  \none\n\n\n", ["one"]),
    ("colours", b"\x1b[1;38;5;12mred\x1b[0m \x1b[4:3mand\x1b[mwavy", ["red andwavy"]),
    ("a title", b"\x1b]0;a title\x07text\x1b]2;another\x1b\\ more", ["text more"]),
    ("the clipboard", b"\x1b]52;c;aHVudGVyMg==\x07text", ["text"]),
    ("passed on by tmux", b"\x1bPtmux;\x1b\x1b]52;c;aHVudGVyMg==\x07\x1b\\text", ["text"]),
    ("8-bit controls", "\u009b31mred\u009d0;title\u009cmore".encode(), ["redmore"]),
    ("a title never ended", b"\x1b]0;title\ntext", ["text"]),
    ("a sequence cut off at the end", b"text\x1b[38;5", ["text"]),
    ("a lone escape", b"text\x1b", ["text"]),
    ("character sets, keypad, save", b"\x1b(B\x1b)0\x1b=\x1b7text\x1b8\x1bM\x1bc", ["text"]),
    ("progress over itself", b"10%\r20%\r\x1b[2K30%\ndone\r\n", ["30%", "done"]),
    ("a screen that is drawn", b"\x1b[2;1Hone\x1b[3;1Htwo\x1b[10Gthree\x1b[Cfour", ["one", "two three four"]),
    ("other controls", b"a\x00b\x08c\x7fd\x0ee\tf", ["abcde f"]),
    ("no UTF-8", b"\xff\xfe ok \xc3", ["\ufffd\ufffd ok \ufffd"]),
    ("any script", "❯ żółw 日本 🐢".encode(), ["❯ żółw 日本 🐢"]),
    ("text that turns others around", "a\u202eb\u2066c\u200bd".encode(), ["abcd"]),
    ("what is no control sequence", b'{"a": "[31m"}', ['{"a": "[31m"}']),
]


@pytest.mark.parametrize("raw, lines", [row[1:] for row in PRINTED], ids=[row[0] for row in PRINTED])
def test_what_a_pane_printed_is_text(tmp_path: Path, raw: bytes, lines: list[str]) -> None:
    assert tail(tmp_path, raw) == lines


def test_the_last_40_lines_are_taken(tmp_path: Path) -> None:
    raw = b"".join(b"line %d\n" % number for number in range(100_000))
    assert tail(tmp_path, raw) == [f"line {number}" for number in range(99_960, 100_000)]


def test_at_most_8_kb_are_taken_also_of_one_line_without_end(tmp_path: Path) -> None:
    lines = tail(tmp_path, b"x" * 1_000_000)
    assert lines == ["x" * (pane_tail.BYTES - 1)]
    lines = tail(tmp_path, ("é" * 3000 + "\n").encode() * 20)
    assert 0 < pane_tail.size(lines) <= pane_tail.BYTES
    assert set("".join(lines)) == {"é"}


def test_lines_are_found_among_many_control_sequences(tmp_path: Path) -> None:
    raw = b"".join(b"line %d\n" % number + b"\x1b[0m" * 200 for number in range(500))
    assert tail(tmp_path, raw) == [f"line {number}" for number in range(460, 500)]


def test_a_log_that_was_turned_a_moment_ago_goes_on_in_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "x.log.1").write_bytes(b"".join(b"old %d\n" % number for number in range(10_000)))
    assert tail(tmp_path, b"new 1\nnew 2\n") == [
        *(f"old {number}" for number in range(10_000 - 38, 10_000)),
        "new 1",
        "new 2",
    ]


def test_a_half_line_at_the_beginning_of_the_look_is_left_out(tmp_path: Path) -> None:
    raw = b"".join(b"line %d" % number + b"\x1b[0m" * 500 + b" ends\n" for number in range(100))
    lines = tail(tmp_path, raw)
    assert len(lines) > 10
    assert lines == [f"line {number} ends" for number in range(100 - len(lines), 100)]


@given(st.binary(max_size=400), st.sampled_from([1, 50, 400]))
@example(b"\x1b]" * 100, 400)
@example(b"\x1bP" * 100, 400)
@example(b"\x9b" * 100, 400)
@example(b"\r" * 200, 400)
@example("\u2028\u2029\x85".encode() * 50, 400)
@example("\U000e0041".encode() * 50, 50)
def test_no_output_makes_a_line_that_is_not_printable(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, times: int
) -> None:
    lines = tail(tmp_path_factory.mktemp("pane"), raw * times)
    assert len(lines) <= pane_tail.LINES and pane_tail.size(lines) <= pane_tail.BYTES
    assert all(line.isprintable() and line.strip() for line in lines)


@given(st.lists(st.text(max_size=40), max_size=8), st.integers(-1, 120))
def test_lines_are_cut_in_front_to_what_fits(lines: list[str], room: int) -> None:
    kept = pane_tail.last(lines, room)
    assert pane_tail.size(kept) <= max(0, room)
    for mine, line in zip(reversed(kept), reversed(lines), strict=False):
        assert line.endswith(mine)
    if pane_tail.size(lines) <= room:
        assert kept == lines


@linux
def test_a_hostile_pane_log_does_nothing_to_the_snapshot(state: str) -> None:
    print_pane(state, "bob", random.Random(4).randbytes(1_000_000) + b'\n"}],\x1b[31m\xff\\')
    (found,) = write(state, death(agent()))
    assert found["agents"][0]["pane_log"]["bytes"] > 1_000_000
    assert found["agents"][0]["pane_log"]["lines"][-1] == '"}],\ufffd\\'
    (path,) = snapshots(state)
    assert path.read_text().replace("\n", "").isprintable()


def test_what_is_no_pane_log_is_not_read_and_holds_nobody_up(state: str, tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.write_text(SECRET)
    os.symlink(secret, os.path.join(state, "panes", "link.log"))
    os.mkfifo(os.path.join(state, "panes", "pipe.log"))
    os.mkdir(os.path.join(state, "panes", "folder.log"))
    (found,) = write(state, death(*(agent(name) for name in ("link", "pipe", "folder", "missing"))))
    assert [list(one["pane_log"]) for one in found["agents"]] == [["error"]] * 4
    assert SECRET not in snapshots(state)[0].read_text()


HOSTILE_IDENTITIES = ["../canary/secret", "a/../../canary/secret", "", ".", "a\x00b", "\n", "x" * 5000, "A b"]


@pytest.mark.parametrize("identity", HOSTILE_IDENTITIES)
def test_no_identity_leads_to_another_file(state: str, identity: str) -> None:
    Path(state, "canary", "secret.log").write_text(SECRET)
    Path(state, "panes", "a").mkdir()
    (found,) = write(state, death(agent(identity), agent("bob")))
    first, bob = found["agents"]
    assert "is no identity" in first["pane_log"]["error"]
    assert first["identity"] == identity[:1000]
    assert bob["identity"] == "bob"
    assert SECRET not in snapshots(state)[0].read_text()


# -- at most 256 KB -----------------------------------------------------------------------------------


def test_what_fits_is_not_trimmed(state: str) -> None:
    agents = [agent(f"bob-{number}") for number in range(10)]
    for one in agents:
        print_pane(state, one.identity, b"x" * 100_000)
    note_trees(state, {one.launch: [[1000, 1, "node"]] * 20 for one in agents})
    (found,) = write(state, death(*agents))
    assert found["trimmed"] is None
    assert all(len(one["pane_log"]["lines"][0]) == pane_tail.BYTES - 1 for one in found["agents"])
    assert all(len(one["tree"]) == 20 for one in found["agents"])


def test_500_agents_of_one_server_are_all_named_and_what_is_left_out_is_said(state: str) -> None:
    agents = [agent(f"bob-{number}") for number in range(500)]
    for one in agents:
        print_pane(state, one.identity, b'"what it said"\n' * 2000)
    note_trees(state, {one.launch: [[1000, 1, "node"]] * 20 for one in agents})
    (found,) = write(state, death(*agents))
    (path,) = snapshots(state)
    assert path.stat().st_size <= 256 * 1024
    assert [one["identity"] for one in found["agents"]] == [one.identity for one in agents]
    shown = [len(one["tree"]) - 1 for one in found["agents"]]
    assert [one["tree"][-1] for one in found["agents"]] == [{"left_out": 20 - number} for number in shown]
    processes = 500 * 20 - sum(shown)
    printed = sum(one["pane_log"]["left_out_bytes"] for one in found["agents"])
    assert found["trimmed"] == (
        f"left out, to stay below 256 KB: {processes} processes, {printed} bytes of pane logs"
    )


@pytest.mark.parametrize("number", [1, 40, 3000])
@pytest.mark.parametrize("text", ['"', "\x01", "é", "\U000e0041", "\ud800"])
def test_nothing_makes_it_larger(state: str, number: int, text: str) -> None:
    long = text * 5000
    agents = [
        WatchedAgent(long, 1, f"launch-{place}{long}"[:2000], long, long, nobody()) for place in range(number)
    ]
    note_trees(state, {one.launch: [[1000, 1, text * 100]] * 50 for one in agents[:50]})
    (found,) = write(state, death(*agents, evidence=long))
    (path,) = snapshots(state)
    assert 0 < path.stat().st_size <= document.LIMIT_BYTES
    assert found["server"]["evidence"] == long[:1000]
    named = [one for one in found["agents"] if "identity" in one]
    assert len(named) + sum(one.get("left_out", 0) for one in found["agents"]) == number
    if len(named) < number:
        assert found["trimmed"].endswith(f"{number - len(named)} agents")


# -- how many are kept --------------------------------------------------------------------------------


def fill(state_dir: str, number: int, size: int = 10) -> list[str]:
    """Put snapshots of the minutes before into the folder, without taking up room on the disk."""
    paths = [forensics.path_for(state_dir, AT - 60 * place, 7) for place in range(number, 0, -1)]
    for path in paths:
        with open(path, "wb") as file:
            file.truncate(size)
    return paths


def test_200_are_kept_and_the_newest_stay(state: str) -> None:
    old = fill(state, 250)
    path = forensics.path_for(state, AT, 4)
    forensics.write_all(state, [death(agent(), forensics=path)], {})
    assert [str(found) for found in snapshots(state)] == [*old[-199:], path]


def test_100_mb_are_kept(state: str) -> None:
    old = fill(state, 150, 1024 * 1024)
    path = forensics.path_for(state, AT, 4)
    forensics.write_all(state, [death(agent(), forensics=path)], {})
    assert [str(found) for found in snapshots(state)] == [*old[-99:], path]


def test_of_500_deaths_at_once_the_newest_200_are_kept(state: str) -> None:
    fill(state, 3)
    deaths = [death(agent(f"bob-{number}"), at=AT + number / 1000) for number in range(500)]
    random.Random(4).shuffle(deaths)
    forensics.write_all(state, deaths, {})
    newest = sorted(deaths, key=lambda one: one.at)[300:]
    assert [str(path) for path in snapshots(state)] == [
        forensics.path_for(state, one.at, one.watched.server.pid) for one in newest
    ]


def test_nothing_else_in_the_folder_is_removed_but_half_files_of_long_ago(state: str) -> None:
    fill(state, 250)
    folder = Path(state, "forensics")
    kept = [folder / "notes.txt", folder / "00000000.json", folder / "20251121T100332.250Z-9.json.tmp"]
    old = folder / "20251121T000000.000Z-9.json.tmp"
    for path in (*kept, old):
        path.write_text("x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    os.utime(kept[0], (0, 0))
    (folder / "20200101T000000.000Z-1.json").mkdir()
    forensics.write_all(state, [death(agent())], {})
    assert all(path.exists() for path in kept)
    assert not old.exists()
    assert len([path for path in folder.iterdir() if path.suffix == ".json" and path.is_file()]) == 201


# -- what goes wrong ----------------------------------------------------------------------------------


def test_a_disk_that_is_full_leaves_no_half_file_and_costs_no_other(state: str) -> None:
    fill(state, 3)
    before = snapshots(state)
    print_pane(state, "bob", b"x" * 100_000)
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.test_canary_forensics import agent, death\n"
        "from circus_failover.canary import forensics\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "deaths = [death(agent('bob')), death(agent('eve'), forensics=sys.argv[3])]\n"
        "forensics.write_all(sys.argv[2], deaths, {})\n"
    )
    small = forensics.path_for(state, AT + 1, 4)
    subprocess.run([sys.executable, "-c", code, str(ROOT), state, small], check=True)
    assert snapshots(state) == [*before, Path(small)]


def test_a_place_that_cannot_be_written_costs_no_other(state: str) -> None:
    lost = death(agent("bob"), forensics=os.path.join(state, "none", "x.json"))
    (found,) = write(state, lost, death(agent("eve")))
    assert found["agents"][0]["identity"] == "eve"


def test_without_a_state_directory_nothing_is_raised(tmp_path: Path) -> None:
    forensics.write_all(str(tmp_path / "none"), [death(agent())], {})
    assert not (tmp_path / "none").exists()
    forensics.write_all(str(tmp_path), [], {})


def test_a_section_that_fails_says_so_and_costs_no_other(state: str) -> None:
    odd = agent()._replace(process="no process", launch=5)
    (found,) = write(state, death(odd, agent("eve"), number=999))
    assert found["server"]["signal"] == 999 and found["server"]["signal_name"] is None
    assert list(found["agents"][0]) == ["error"]
    assert found["agents"][1]["identity"] == "eve"
