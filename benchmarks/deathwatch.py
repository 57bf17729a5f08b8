"""The two designs that the canary's benchmark compares.

Both tell of a durable record by a datagram that the kernel stamps as it is sent: what is measured does
not depend on when this process runs next. Nothing here says what a good figure is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ground import Ground, until
from benchmarks.lone_servers import TIMEOUT_SECS, Server, Servers
from circus_failover import process_table, spool
from circus_failover.canary import asking, starting, watched
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir

CLASSIC = "sh with tmux wait-for"
"""The design that ours is compared with."""
_SO_TIMESTAMPNS = 35
"""asm-generic/socket.h; Python 3.11 has no name for it. A unix socket's datagram is stamped within the call
that sends it (unix_dgram_sendmsg, net/unix/af_unix.c, Linux 6.18)."""
_TIMESPEC = struct.Struct("@qq")
_LAUNCHER = 'while read -r number socket; do sh "$1" "$number" "$socket" "$2" & done'
_CLASSIC = """\
tmux -S "$2" wait-for benchmark >/dev/null 2>&1
status=$?
printf 'ev=server-exit socket=%s status=%s\\n' "$2" "$status" > "$3/$1"
sync "$3/$1" "$3"
printf %s "$1"
"""
"""One server's watch: the record is a new file, so that file and folder are to be synced. Its stdout is the
socket whose datagrams are stamped."""


class Stamps:
    """The receiving end of a datagram socket, with the kernel's own time of each datagram."""

    def __init__(self, receiver: socket.socket) -> None:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        receiver.settimeout(TIMEOUT_SECS)
        self._receiver = receiver

    def next(self, timeout: float = TIMEOUT_SECS) -> tuple[str, int]:
        """Wait for a datagram, and return its text and when it was sent, in epoch nanoseconds.

        Raises:
            TimeoutError: none came.
        """
        self._receiver.settimeout(timeout)
        try:
            data, ancillary, _, _ = self._receiver.recvmsg(64, 64)
        except TimeoutError as error:
            raise TimeoutError(f"no word of a durable record within {timeout:g} s") from error
        for level, kind, raw in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                secs, nanosecs = _TIMESPEC.unpack(raw)
                return data.decode(), secs * 1_000_000_000 + nanosecs
        raise RuntimeError("this kernel does not stamp the datagrams of a unix socket")

    def close(self) -> None:
        """Listen no more."""
        self._receiver.close()


def disk(folder: Path) -> float:
    """Return the milliseconds that the disk alone takes for one death: ours with nothing around it."""
    begun = time.perf_counter()
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, b"x" * 340)
    os.fsync(log)
    os.close(log)
    report = os.open(folder / "report.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(report, b"x" * 520)
    os.fsync(report)
    os.close(report)
    os.rename(folder / "report.tmp", folder / "report")
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    took = (time.perf_counter() - begun) * 1e3
    os.unlink(folder / "report")
    return took


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on; syncs cost nothing on `tmpfs`."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for row in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, rest = row.partition(" - ")
        if mount.split()[2] == wanted:
            return rest.split()[0]
    return "unknown"


def resolution(rounds: int = 200) -> list[float]:
    """Return how much later than noted by the sender datagrams are stamped, in milliseconds."""
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stamps, found = Stamps(receiver), []
    with sender:
        for _ in range(rounds):
            begun = time.time_ns()
            sender.send(b"1")
            found.append((stamps.next()[1] - begun) / 1e6)
    stamps.close()
    return found


@dataclass(frozen=True)
class Report:
    """What the canary told circusd of deaths."""

    begun: int
    """When it was begun, in epoch nanoseconds: their lines in exits.log were durable then."""
    deaths: list[dict[str, Any]]


class Canary:
    """Ours: one failover-canary for a state directory, told and asked as circusd does."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.state = StateDir(ground.folder / name)
        self.state.prepare()
        self._dir = str(self.state.path)
        self._boot = process_table.boot_id()
        receiver = spool.listen(self.state.spool)
        if receiver is None:
            raise RuntimeError(f"{self._dir} is too long for a socket: set TMPDIR to a shorter path")
        # The canary wakes circusd when line and report are synced, with their folders, and the server is off
        # the list (canary/record.py): the last is not part of a durable record, but takes 0.1 ms.
        self.stamps = Stamps(receiver)

    def put(self, server: Server) -> None:
        """Put a server on the list, as circusd does for an agent that is up."""
        agent = watched.WatchedAgent(
            identity=f"agent-{server.number}",
            generation=1,
            launch=f"agent-{server.number}.1",
            session="agent",
            pane="%0",
            process=None,
        )
        entry = watched.Watched(str(server.socket), server.process, self._boot, time.time(), False, (agent,))
        watched.write(self._dir, entry)

    def start(self) -> float:
        """Start the canary; return the seconds from its exec until it has looked at its whole list."""
        begun = time.perf_counter()
        starting.start(self._dir)
        until("the canary answers", lambda: asking.ask(self._dir, ask="look"), TIMEOUT_SECS, every=0.001)
        return time.perf_counter() - begun

    def process(self) -> ProcessId:
        """Return who it is.

        Raises:
            RuntimeError: it does not run; the text says what it left.
        """
        found = asking.holder(self._dir)
        if found is None:
            crash = self.state.path / "canary" / "crash.log"
            why = crash.read_text() if crash.exists() else "it left no word"
            raise RuntimeError(f"the canary does not run: {why}")
        return found

    def pids(self) -> list[int]:
        """Return every process of it: itself, and the child that takes snapshots, while one does."""
        pid = self.process().pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]

    def look(self, server: Server) -> None:
        """Have it arm a server that was put on the list, and wait for its answer."""
        name = watched.server_name(server.process)
        if (asking.ask(self._dir, ask="look", server=name) or {}).get("status") != "ok":
            raise RuntimeError(f"the canary did not answer when it was to look at {name}")

    def poke(self, server: Server) -> bool:
        """Tell it without waiting; whether it could be told."""
        return asking.poke(self._dir, watched.server_name(server.process))

    def arm(self, server: Server) -> None:
        """Have it watch a further server."""
        self.put(server)
        self.look(server)

    def armed(self, servers: Sequence[Server]) -> list[float]:
        """Return since when each is armed, in epoch seconds.

        Raises:
            RuntimeError: it does not watch exactly these servers.
        """
        status = asking.ask(self._dir, TIMEOUT_SECS, ask="status") or {}
        since = {(each["pid"], each["start"]): each["since"] for each in status.get("servers", ())}
        if since.keys() != {server.process for server in servers} or None in since.values():
            held = sum(at is not None for at in since.values())
            raise RuntimeError(
                f"the canary has armed {held} of {len(servers)} servers and knows {len(since)}; "
                f"trouble: {status.get('trouble')}"
            )
        return [float(at) for at in since.values()]

    def state_of_things(self) -> str:
        """Return what the canary says of itself, without its servers, for a failure's report."""
        status = asking.ask(self._dir, TIMEOUT_SECS, ask="status") or {}
        left = len(list(watched.names(self._dir)))
        return f"{left} on its list, it knows {len(status.pop('servers', ()))}; it says {status}"

    def take(self) -> list[Report]:
        """Take in the reports that wait, as circusd would."""
        found = []
        for report in sorted(self.state.spool.glob("[0-9]*.json")):
            found.append(Report(int(report.name.split("-")[0]), json.loads(report.read_bytes())["deaths"]))
            report.unlink()
        return found

    def check(self, servers: Sequence[Server], deaths: Sequence[dict[str, Any]]) -> None:
        """See that line and report of each death are there once, and right.

        Raises:
            RuntimeError: one is not.
        """
        reported = sorted((each["pid"], each["start"], each["socket"], each["signal"]) for each in deaths)
        expected = sorted((*server.process, str(server.socket), 9) for server in servers)
        if reported != expected:
            wrong = [each for each in deaths if each["signal"] != 9]
            raise RuntimeError(f"{len(deaths)} deaths of {len(servers)} are reported, wrong: {wrong[:3]}")
        lines = self.state.exits_log.read_text().splitlines()[-len(servers) :]
        pattern = re.compile(r"ts=\S+ ev=server-exit .* server_pid=(\d+) up=\S+ signal=9 .* detected=live ")
        logged = sorted(int(found[1]) for found in map(pattern.match, lines) if found)
        if logged != sorted(server.process.pid for server in servers):
            raise RuntimeError(f"{len(logged)} deaths of {len(servers)} are logged, the last: {lines[-3:]}")

    def settle(self, deaths: Sequence[dict[str, Any]]) -> None:
        """Wait until what follows from a record is done: the list, and the snapshots."""
        names = [watched.server_name(ProcessId(each["pid"], each["start"])) for each in deaths]

        def done() -> bool:
            listed = any(os.path.exists(watched.path(self._dir, name)) for name in names)
            return not listed and len(self.pids()) == 1

        until("the canary is done with its deaths", done, every=0.005)

    def end(self) -> None:
        """End it, and empty its list."""
        process = asking.holder(self._dir)
        if process is not None:
            process_table.send(process, signal.SIGTERM)
            until("the canary has ended", lambda: asking.holder(self._dir) is None, TIMEOUT_SECS)
        for name in list(watched.names(self._dir)):
            watched.remove(self._dir, name)

    def close(self) -> None:
        """End it, and listen no more."""
        self.end()
        self.stamps.close()


class Shells:
    """Beside: one shell a server that waits in `tmux wait-for`, and then writes its record and syncs it."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.folder = ground.started(name)
        script = ground.folder / f"{name}.sh"
        script.write_text(_CLASSIC)
        receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stamps = Stamps(receiver)
        with sender, (ground.folder / "log").open("ab") as log:
            self._launcher = subprocess.Popen(
                ["sh", "-c", _LAUNCHER, "launcher", str(script), str(self.folder)],
                env=ground.environment,
                stdin=subprocess.PIPE,
                stdout=sender.fileno(),
                stderr=log,
                text=True,
            )

    def arm(self, *servers: Server) -> float:
        """Start a watch for each, and return the seconds until the last of their clients is connected."""
        assert self._launcher.stdin is not None
        begun = time.perf_counter()
        self._launcher.stdin.writelines(f"{server.number} {server.socket}\n" for server in servers)
        self._launcher.stdin.flush()
        wanted = {str(server.socket) for server in servers}
        until("every client is connected", lambda: wanted <= _connected(), TIMEOUT_SECS, every=0.005)
        return time.perf_counter() - begun

    def pids(self) -> list[int]:
        """Return its processes: the shells and their clients, without what started them."""
        launcher = process_table.identify(self._launcher.pid)
        if launcher is None:
            raise RuntimeError("the shell that starts the others is gone")
        return [each.pid for each in process_table.descendants(launcher)[1:]]

    def check(self, servers: Iterable[Server]) -> None:
        """See that each server's record is there and right.

        Raises:
            RuntimeError: one is not.
        """
        for server in servers:
            record = self.folder / str(server.number)
            if record.read_text() != f"ev=server-exit socket={server.socket} status=1\n":
                raise RuntimeError(f"{record}: {record.read_text()!r}")

    def close(self) -> None:
        """End what starts the shells; they end with their servers."""
        assert self._launcher.stdin is not None
        self._launcher.stdin.close()
        self._launcher.wait(TIMEOUT_SECS)
        self.stamps.close()


def _connected() -> set[str]:
    """Return the paths of all unix sockets with a connection: state 3 is SS_CONNECTED (net.h)."""
    found = set()
    for row in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = row.split(maxsplit=7)
        if len(fields) == 8 and fields[5] == "03":
            found.add(fields[7])
    return found


@dataclass(frozen=True)
class Spent:
    """What processes have used since they began."""

    wakes: int
    """How often one of their threads gave up or lost its core."""
    cpu_ms: float

    @staticmethod
    def of(pids: Sequence[int]) -> Spent:
        """Read both, of all threads: status (proc_pid_status(5)) and schedstat, whose first field is ns."""
        wakes, cpu = 0, 0
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                rows = dict(row.split(":", 1) for row in (thread / "status").read_text().splitlines())
                wakes += int(rows["voluntary_ctxt_switches"]) + int(rows["nonvoluntary_ctxt_switches"])
                cpu += int((thread / "schedstat").read_text().split()[0])
        return Spent(wakes, cpu / 1e6)


@dataclass
class Site:
    """Both designs, each with its own servers."""

    folder: Path
    servers: Servers
    canary: Canary
    shells: Shells
    ours: list[Server]
    beside: list[Server]


@contextlib.contextmanager
def two_designs(size: int) -> Iterator[Site]:
    """Start so many servers for each design; nobody watches them yet."""
    with Ground() as ground:
        servers, canary, shells = Servers(ground), Canary(ground, "state"), Shells(ground, "records")
        try:
            ours, beside = servers.start(size), servers.start(size)
            yield Site(ground.started("disk"), servers, canary, shells, ours, beside)
        finally:
            canary.close()
            shells.close()
