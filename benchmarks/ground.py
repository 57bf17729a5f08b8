"""Where a benchmark runs: a temporary directory, the circusds started in it, and the end of all of it.

Processes of a ground are known because they carry its directory in their command line or environment, and are
ended by pid and start time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from circus.client import CircusClient
from circus.exc import CallError

from circus_failover import process_table
from circus_failover.process_table import ProcessId

BIN = Path(sys.executable).parent
_BEGUN = time.monotonic()
MARK = "FAILOVER_BENCHMARK"
AGENT_SCRIPT = ': > "$1"\nexec sleep 100000\n'
"""The agent: it leaves a file, whose time says when it ran, and then does nothing."""


def say(text: str) -> None:
    """Show progress, with the seconds since the beginning."""
    print(f"benchmarks: {time.monotonic() - _BEGUN:4.0f} s  {text}", file=sys.stderr, flush=True)


def until(what: str, probe: Callable[[], object], timeout: float = 120.0, every: float = 0.02) -> None:
    """Wait until `probe` answers something true.

    Raises:
        TimeoutError: it did not within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not probe():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(every)


class Ground:
    """A temporary directory with everything a benchmark starts in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cfb-"))
        self.work = self._made("work")
        self.script = self.folder / "agent.sh"
        self.script.write_text(AGENT_SCRIPT)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE")},
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            MARK: str(self.folder),
        }
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Ground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(mode=0o700)
        return path

    def started(self, name: str) -> Path:
        """Return a new folder for the files that agents leave when they run."""
        return self._made(name)

    def popen(
        self, arguments: Sequence[str | Path], log: Path, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a process of this ground, in a process session of its own, with its output in a log."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(argument) for argument in arguments],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self.folder,
            )
        self._children.append(process)
        return process

    def processes(self) -> list[ProcessId]:
        """Return every process that belongs to this ground, by what it carries."""
        mark, folder = f"{MARK}={self.folder}".encode(), f"{self.folder}/".encode()
        found = []
        for pid, stat in process_table.table().items():
            if pid == os.getpid() or stat.run_state in "ZX":
                continue
            with contextlib.suppress(OSError):
                environment = process_table.environ(pid) or frozenset()
                if mark in environment or folder in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(stat.id)
        return found

    def close(self) -> None:
        """End everything that was started here, circusds first, and remove the directory."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

        def ended() -> bool:
            left = self.processes()
            for process in left:
                process_table.send(process, signal.SIGKILL)
            return not left

        until("every process of the benchmark has ended", ended)
        shutil.rmtree(self.folder, ignore_errors=True)


class Circusd:
    """One circusd with its circus.ini, in a ground."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground = ground
        self.folder = ground.folder / name
        self.folder.mkdir(mode=0o700)
        self.ini = self.folder / "circus.ini"
        self.state = self.folder / "state"
        self.endpoint = f"ipc://{self.folder}/ctl"
        self.names: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the circusd that runs."""
        assert self._process is not None
        return self._process.pid

    def agents(self, count: int, *, started: Path, check_delay: float, autostart: bool = True) -> None:
        """Write a fleet of agents with a tmux server each; no two fleets share a name.

        Args:
            count: how many.
            started: the folder where each leaves a file when it runs.
            check_delay: Circus's own, in seconds.
            autostart: whether circusd starts them with itself.
        """
        self._accounts()
        self.names = [f"agent-{self.folder.name}-{number:03}" for number in range(count)]
        sections = {
            name: {
                "cmd": "failover-session",
                "hooks.before_start": "circus_failover.hooks.enrol",
                "failover.command": f"sh {self.ground.script} {started}/{name}",
                "failover.resume_command": f"sh {self.ground.script} {started}/{name}",
                "failover.account": "one",
                "failover.ready_secs": "0.2",
                "working_dir": str(self.ground.work),
                "autostart": str(autostart),
            }
            for name in self.names
        }
        self._write(sections, check_delay, {"FAILOVER_CONFIG": "failover.yaml"})

    def sleeps(self, count: int, *, check_delay: float) -> None:
        """Write plain Circus watchers that do nothing, as many as there are agents elsewhere."""
        self.names = [f"sleep-{number:03}" for number in range(count)]
        self._write({name: {"cmd": "sleep 100000"} for name in self.names}, check_delay, {})

    def _accounts(self) -> None:
        """Two accounts with three links each to the shared folders: what the gate looks at."""
        links = ("projects", "file-history", "session-env")
        shared = self.folder / "shared"
        for link in links:
            (shared / link).mkdir(mode=0o700, parents=True)
        for account in ("one", "two"):
            home = self.folder / f"home-{account}"
            home.mkdir(mode=0o700)
            for link in links:
                (home / link).symlink_to(shared / link)
        settings = {
            "state_dir": str(self.state),
            "shared": {"root": str(shared), "links": list(links)},
            "accounts": [
                {"name": name, "runtime": "command", "home": str(self.folder / f"home-{name}")}
                for name in ("one", "two")
            ],
        }
        (self.folder / "failover.yaml").write_text(json.dumps(settings))  # JSON is YAML

    def _write(
        self, watchers: Mapping[str, Mapping[str, str]], check_delay: float, environment: Mapping[str, str]
    ) -> None:
        sections = {
            "circus": {
                "endpoint": self.endpoint,
                "pubsub_endpoint": f"ipc://{self.folder}/pub",
                "check_delay": f"{check_delay:g}",
            },
            "env": {**environment, MARK: str(self.ground.folder)},
            **{f"watcher:{name}": options for name, options in watchers.items()},
        }
        lines = []
        for section, options in sections.items():
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in options.items()), ""]
        self.ini.write_text("\n".join(lines))

    def set_check_delay(self, check_delay: float) -> None:
        """Change Circus's check_delay for the next start."""
        text = self.ini.read_text().splitlines()
        changed = [
            f"check_delay = {check_delay:g}" if line.startswith("check_delay") else line for line in text
        ]
        self.ini.write_text("\n".join(changed))

    def start(self, *, times: Path | None = None) -> None:
        """Start circusd and return at once.

        Args:
            times: where it writes how long each hook took, when it is to measure that.
        """
        program: list[str | Path] = [BIN / "circusd"]
        environment: dict[str, str] = {}
        if times is not None:
            program = [sys.executable, Path(__file__).with_name("timed_circusd.py")]
            environment["FAILOVER_BENCHMARK_TIMES"] = str(times)
        self._process = self.ground.popen([*program, self.ini], self.folder / "circusd.log", **environment)

    def end(self) -> None:
        """End circusd orderly; its agents live on, its plain watchers do not."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._process = None

    def call(self, command: str, timeout: float = 30.0, **properties: Any) -> dict[str, Any]:
        """Send one message to circusd and return its answer.

        Raises:
            CallError: it did not answer.
            RuntimeError: it answered with an error.
        """
        client = CircusClient(endpoint=self.endpoint, timeout=timeout)
        try:
            answer: dict[str, Any] = client.call({"command": command, "properties": properties})
        finally:
            client.stop()
        if answer.get("status") == "error":
            raise RuntimeError(f"{command} {properties}: {answer.get('reason')}")
        return answer

    def last_words(self) -> str:
        """Return the end of circusd's log, for a failure's report."""
        log = self.folder / "circusd.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def answers(self) -> bool:
        """Say whether circusd answers."""
        try:
            return bool(self.call("numwatchers", timeout=2.0))
        except (CallError, RuntimeError):
            return False

    def await_all(self, timeout: float = 180.0) -> None:
        """Wait until every agent is up and has its keeper, or every plain watcher is active."""
        until(f"{self.ini} answers", self.answers, timeout)

        def settled() -> bool:
            if set(self.call("status")["statuses"].values()) != {"active"}:
                return False
            if not self.state.exists():
                return True
            return all(agent["phase"] == "up" for agent in self.call("fleet")["agents"])

        until(f"{len(self.names)} watchers of {self.ini} are up", settled, timeout, every=0.5)


def last_started(folder: Path, count: int, timeout: float = 180.0) -> float:
    """Wait until `count` agents have left their file, and return the time of the last, in epoch seconds."""
    until(f"{count} agents run", lambda: len(os.listdir(folder)) >= count, timeout)
    return max(entry.stat().st_mtime for entry in os.scandir(folder))
