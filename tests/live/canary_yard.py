"""A state directory with real tmux servers on its list, canaries that watch it, and what they wrote."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket as sockets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from circus_failover import process_table
from circus_failover.canary import asking, exits_log, starting, watched
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir
from tests.live.fleet import remove, wait_for


class Yard:
    """Everything that one test starts, ended by pid and start time with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = StateDir(folder / "state")
        self.dir = str(self.state.path)
        self._started: list[ProcessId] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._numbers = itertools.count(1)

    # -- servers

    def server(self, socket: Path | None = None) -> tuple[Path, ProcessId]:
        """Start a tmux server with one session, `main`, and return its socket and who it is."""
        socket = socket or self.folder / f"s{next(self._numbers)}"
        shown = tmux(
            socket, "-f", os.devnull, "new-session", "-d", "-s", "main", "-PF", "#{pid}", "sleep 600"
        )
        server = process_table.identify(int(shown))
        assert server is not None
        self._started.append(server)
        return socket, server

    def listed(
        self,
        socket: Path,
        server: ProcessId,
        *,
        agents: tuple[str, ...] | None = None,
        asked_at: float | None = None,
        drill: bool = False,
        boot: str | None = None,
    ) -> Watched:
        """Put a server on the list, without telling anybody."""
        entry = Watched(
            socket=str(socket),
            server=server,
            boot=boot or process_table.boot_id(),
            asked_at=time.time() if asked_at is None else asked_at,
            drill=drill,
            agents=tuple(
                WatchedAgent(identity, 1, f"launch-{identity}", identity, "%0", None)
                for identity in agents or (f"agent-{server.pid}",)
            ),
        )
        watched.write(self.dir, entry)
        return entry

    def watched_server(self, **options: Any) -> Watched:
        """Start a server and put it on the list."""
        return self.listed(*self.server(), **options)

    def watched_servers(self, number: int) -> list[Watched]:
        """Start many."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda _: self.watched_server(), range(number)))

    def own_server(self) -> tuple[Watched, subprocess.Popen[bytes]]:
        """Start a server that this process reaps, when it wants to, and put it on the list."""
        socket = self.folder / f"s{next(self._numbers)}"
        process = subprocess.Popen(["tmux", "-S", str(socket), "-f", os.devnull, "-D"])
        server = process_table.identify(process.pid)
        assert server is not None
        self._children.append(process)
        wait_for("the server", lambda: connects(socket))
        return self.listed(socket, server), process

    # -- canaries

    def canary(self, *options: str, crash_at: str | None = None) -> ProcessId:
        """Start a canary and return who it is; all that is on the list and lives is armed."""
        done = run_canary(self.dir, *options, crash_at=crash_at)
        assert done.returncode == 0, done.stderr
        # Answered after the first look at the list; not at all where the path is too long for a socket.
        asking.ask(self.dir, ask="status", timeout=10.0)
        return self.adopt(self.holder())

    def adopt(self, process: ProcessId) -> ProcessId:
        """End a process with the test that was started otherwise."""
        self._started.append(process)
        return process

    def holder(self) -> ProcessId:
        """Return the canary that the lock's text names."""
        content = json.loads((self.state.path / watched.LOCK).read_text())
        return ProcessId(content["pid"], content["start"])

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask the canary, which must answer."""
        answer = asking.ask(self.dir, timeout=10.0, **request)
        assert answer is not None, (self.state.path / "canary" / "crash.log").exists()
        return answer

    def look(self) -> None:
        """Have the canary look at its list."""
        assert self.ask(ask="look", server=None) == {"status": "ok"}

    def armed(self) -> set[int]:
        """Return the pids of the servers that are armed."""
        return {each["pid"] for each in self.ask(ask="status")["servers"] if each["since"] is not None}

    # -- what they wrote

    def lines(self, name: str = "exits.log") -> list[dict[str, str]]:
        """Return the whole lines of a log of deaths."""
        path = self.state.path / name
        text = path.read_text() if path.exists() else ""
        return [fields for line in text.split("\n") if "evidence" in (fields := exits_log.fields(line))]

    def line(self, server: Watched) -> dict[str, str]:
        """Return the one line of a server."""
        (found,) = [line for line in self.lines() if line["server_pid"] == str(server.server.pid)]
        return found

    def deaths(self) -> list[dict[str, Any]]:
        """Return the deaths of all reports to circusd that wait."""
        names = sorted(name for name in os.listdir(self.state.spool) if name.endswith(".json"))
        reports = [json.loads((self.state.spool / name).read_text()) for name in names]
        assert all(report["kind"] == "server-exits" for report in reports)
        return [death for report in reports for death in report["deaths"]]

    def await_settled(self, *servers: Watched, timeout: float = 20.0) -> None:
        """Wait until these servers are off the list on disk."""
        paths = [watched.path(self.dir, server.name) for server in servers]
        wait_for("the list to be done", lambda: not [path for path in paths if os.path.exists(path)], timeout)

    def await_deaths(self, *servers: Watched) -> None:
        """Wait until the reports of these servers are there, and they are off the list."""
        wanted = {server.server.pid for server in servers}
        wait_for("the reports", lambda: wanted <= {death["pid"] for death in self.deaths()})
        self.await_settled(*servers)

    def close(self) -> None:
        """End what was started."""
        for child in self._children:
            child.kill()
            child.wait()
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                process_table.send(process, signal.SIGCONT)
                process_table.send(process, signal.SIGKILL)
        for process in self._started:
            await_gone(process)


@contextlib.contextmanager
def opened() -> Iterator[Yard]:
    """A yard in a short path (tmux sockets); nothing of it is left running."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    made = Yard(folder)
    made.state.prepare()
    try:
        yield made
    finally:
        made.close()
        remove(folder)


def run_canary(
    state_dir: str, *options: str, crash_at: str | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Start a canary, and return what the process that stays behind said."""
    environment = {"PATH": os.environ["PATH"], **({"FAILOVER_CRASH_AT": crash_at} if crash_at else {})}
    return subprocess.run(
        [sys.executable, "-I", "-S", str(starting.PROCESS), state_dir, *options],
        env=more.pop("env", environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **more,
    )


def tmux(socket: Path | str, *arguments: str) -> str:
    """Run tmux and return what it printed."""
    command = ["tmux", "-S", str(socket), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


def connects(socket: Path) -> bool:
    """Say whether somebody serves a socket."""
    with sockets.socket(sockets.AF_UNIX) as client:
        return client.connect_ex(str(socket)) == 0


def kill(process: ProcessId, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to this very process, which must be there."""
    assert process_table.send(process, number)


def await_gone(process: ProcessId) -> None:
    """Wait until a process has ended."""
    wait_for(f"{process} to end", lambda: not process_table.alive(process))
