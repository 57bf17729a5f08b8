"""A launch in a real tmux, made as circusd makes one, and the workers that end it: no circusd.

Everything a test starts is ended by pid at its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from circus_failover import keeper, private_file, process_table, tmux
from circus_failover.canary import watched
from circus_failover.canary.watched import Watched
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir
from tests.live.fleet import remove, wait_for

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TMUX", "FAILOVER"))}


class Host:
    """A state directory, the launches of its agents, and the workers that end them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = StateDir(folder / "state")
        self.state.prepare()
        private_file.write(self.state.tmux_config, tmux.OWN_SERVER_CONFIG)
        self.shared = folder / "shared.sock"
        self.left: list[ProcessId] = []
        self.workers: list[subprocess.Popen[bytes]] = []

    def launch(self, script: str, name: str = "bob", *, own: bool = True, generation: int = 1) -> Launch:
        """Start a shell script as an agent."""
        return Launch(self, script, name, own, generation)

    def beside(self, *command: str, **environment: str) -> ProcessId:
        """Start a process that belongs to no launch of this test, and return it."""
        process = subprocess.Popen(
            command or ("sleep", "600"),
            env={**ENVIRONMENT, **environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.workers.append(process)
        return known(process.pid)

    def trees(self, content: object) -> None:
        """Write down which processes each launch had, as the plugin does; a text is written as it is."""
        text = content if isinstance(content, str) else json.dumps(content)
        (self.state.path / watched.TREES).write_text(text)

    def end(self, launch: Launch, crash_at: str | None = None, **order: Any) -> int:
        """Run a worker with an order to end a launch, and return its exit code."""
        return self.start(launch, crash_at, **order).wait(90)

    def start(self, launch: Launch, crash_at: str | None = None, **order: Any) -> subprocess.Popen[bytes]:
        """Start a worker with an order to end a launch."""
        path = self.folder / f"{launch.name}.json"
        private_file.replace(path, json.dumps({**launch.order(), **order}))
        worker = subprocess.Popen(
            [sys.executable, "-m", "circus_failover.worker", str(path)],
            stdin=subprocess.DEVNULL,
            env={**ENVIRONMENT, **({"FAILOVER_CRASH_AT": crash_at} if crash_at else {})},
            start_new_session=True,
            cwd="/",
        )
        self.workers.append(worker)
        return worker

    def reports(self, kind: str = "ended") -> list[dict[str, Any]]:
        """Return the reports of one kind that are in the spool, oldest first."""
        found = [json.loads(path.read_bytes()) for path in sorted(self.state.spool.glob("*.json"))]
        return [report for report in found if report["kind"] == kind]

    def report(self) -> dict[str, Any]:
        """Return the one report of an end."""
        (found,) = self.reports()
        return found

    def close(self) -> None:
        """End what was started here, workers first."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        for process in list(self.left):
            self.left += process_table.descendants(process)

        def ended() -> bool:
            return not [process for process in self.left if process_table.send(process, signal.SIGKILL)]

        wait_for("every process of the host has ended", ended)


class Launch:
    """One agent's program in a session of its own, in its own server or in the shared one."""

    def __init__(self, host: Host, script: str, name: str, own: bool, generation: int) -> None:
        self.host, self.name, self.own, self.generation = host, name, own, generation
        self.launch = str(uuid.uuid4())
        state = host.state
        self.socket = state.path / "tmux" / f"{name}.sock" if own else host.shared
        arguments = tmux.launch_arguments(
            path=self.socket,
            own_server_config=state.tmux_config if own else Path("/dev/null"),
            session=name,
            working_dir=host.folder,
            environment={
                "FAILOVER_IDENTITY": name,
                "FAILOVER_LAUNCH": self.launch,
                "FAILOVER_STATE_DIR": str(state.path),
            },
            command=["sh", "-c", script],
            log_command=tmux.pane_log_command(state.pane_log(name), keeper.PANE_LOG_BYTES, 2),
            died_command=keeper.died_command(name, generation) if own else None,
        )
        subprocess.run(arguments, env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=True, timeout=20)
        (pane,) = tmux.panes(self.socket, name)
        self.pane = pane.pane
        self.server = known(pane.server_pid)
        self.agent = process_table.identify(pane.pid)
        host.left += [self.server, *([self.agent] if self.agent else [])]
        watched.write(
            str(state.path), Watched(str(self.socket), self.server, process_table.boot_id(), 0.0, False, ())
        )

    def order(self) -> dict[str, Any]:
        """Return what circusd tells a worker; the end is a `stop`."""
        state = self.host.state
        return {
            "action": 1,
            "identity": self.name,
            "generation": self.generation,
            "launch": self.launch,
            "agent": [self.agent.pid, self.agent.start] if self.agent else None,
            "server": [self.server.pid, self.server.start],
            "socket": str(self.socket),
            "session": self.name,
            "pane": self.pane,
            "stop_secs": 10.0,
            "spool": str(state.spool),
            "lock": str(state.agent_lock(self.name)),
            "tree": str(state.path / "run" / f"{self.name}.tree"),
            "supervisor": 2**22 + 1,  # more than a pid may be: no circusd
            "own_server": self.own,
            "state_dir": str(state.path),
            "intent": "stop",
        }

    def intent(self) -> str | None:
        """Return which ends of its server are meant just now."""
        return watched.intent(str(self.host.state.path), self.server)

    def watched(self) -> bool:
        """Say whether its server is on the list."""
        return watched.read(str(self.host.state.path), watched.server_name(self.server)) is not None

    def said(self, name: str) -> str:
        """Wait until the program has written a file of this name into the folder, and return its text."""
        path = self.host.folder / name
        return wait_for(f"{name} is written", lambda: path.exists() and path.read_text().strip())

    def process(self, name: str) -> ProcessId:
        """Wait until the program has written a pid into a file of this name, and return that process."""
        process = known(int(self.said(name)))
        self.host.left.append(process)
        return process

    def lose_server(self) -> None:
        """Kill the server, as the OOM killer does."""
        process_table.send(self.server, signal.SIGKILL)
        wait_for("the server is gone", lambda: not runs(self.server))


def known(pid: int) -> ProcessId:
    """Return a process that runs."""
    process = process_table.identify(pid)
    assert process is not None
    return process


def runs(process: ProcessId) -> bool:
    """Say whether this very process runs."""
    return process_table.alive(process)


@contextlib.contextmanager
def private_host() -> Iterator[Host]:
    """Make a host in a path that is short enough for sockets; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    host = Host(folder)
    try:
        yield host
    finally:
        host.close()
        remove(folder)
