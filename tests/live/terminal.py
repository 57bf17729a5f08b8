"""One program in a real tmux, on a private socket, and the workers that act on it: no circusd.

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from circus_failover import process_table, tmux
from circus_failover.process_table import ProcessId
from tests import proc
from tests.live.fleet import remove, wait_for

Open = Callable[..., "Terminal"]
STANDIN = (sys.executable, "-m", "circus_failover.standin")
SESSION = "bob"


class Terminal:
    """A session `bob` whose only pane runs a program; orders for workers are made to its measure."""

    def __init__(self, folder: Path, *command: str, width: int = 100, height: int = 30) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.spool = folder / "spool"
        self.spool.mkdir(mode=0o700)
        self.lock = folder / "bob.lock"
        self.journal = folder / "task.journal"
        self.home = folder / "home"
        self.launch = str(uuid.uuid4())
        self.workers: list[subprocess.Popen[bytes]] = []
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TMUX")}
        size = ["-x", str(width), "-y", str(height)]
        home = ["-e", f"FAILOVER_HOME={self.home}"]
        # One sequence, so that a program that ends at once leaves its pane too.
        keep = [";", "set-option", "-w", "-t", f"={SESSION}:", "remain-on-exit", "on"]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "-s", SESSION, *home, "--", *command, *keep)
        self.pane = self.ask("#{pane_id}")
        self.server = _known(int(self.ask("#{pid}")))
        self.agent = _known(int(self.ask("#{pane_pid}")))

    # -- tmux, as a person uses it -----------------------------------------------------------------

    def tmux(self, *arguments: str) -> str:
        """Run tmux on this server, and return what it prints."""
        return subprocess.run(
            ["tmux", "-S", str(self.socket), *arguments],
            env=self.environment,
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout

    def tmux_started(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start tmux with a command that does not return at once; it is ended when the terminal is closed."""
        command = ["tmux", "-S", str(self.socket), *arguments]
        self.workers.append(subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL))
        return self.workers[-1]

    def ask(self, form: str) -> str:
        """Return what tmux says of the pane."""
        return self.tmux("display-message", "-p", "-t", f"={SESSION}:", form).strip()

    def press(self, *keys: str) -> None:
        """Press keys in the pane."""
        self.tmux("send-keys", "-t", self.pane, *keys)

    def screen(self) -> str:
        """Return what the pane shows."""
        return tmux.capture(self.socket, self.pane)

    def await_screen(self, text: str) -> str:
        """Wait until the pane shows a text."""

        def look() -> str | None:
            shown = self.screen()
            return shown if text in shown else None

        return wait_for(f"the screen shows {text!r}", look)

    # -- orders and workers --------------------------------------------------------------------------

    def order(self, name: str, **order: Any) -> Path:
        """Write an order as circusd does."""
        content: dict[str, Any] = {
            "identity": "bob",
            "generation": 3,
            "launch": self.launch,
            "agent": [self.agent.pid, self.agent.start],
            "server": [self.server.pid, self.server.start],
            "socket": str(self.socket),
            "session": SESSION,
            "pane": self.pane,
            "spool": str(self.spool),
            "lock": str(self.lock),
            **order,
        }
        return self._private(name, json.dumps(content))

    def task(self, text: str, **changes: Any) -> Path:
        """Write the order to type a task."""
        number = changes.get("task", 7)
        wanted = {"kind": "type", "task": number, "journal": str(self.journal), "secs": 30.0}
        file = self._private(f"task-{number}.text", text)
        return self.order(f"task-{number}.json", **{**wanted, "text_file": str(file), **changes})

    def _private(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        return path

    def start(self, order: Path, crash_at: str | None = None) -> subprocess.Popen[bytes]:
        """Start a worker as circusd does."""
        extra = {"FAILOVER_CRASH_AT": crash_at} if crash_at else {}
        worker = subprocess.Popen(
            [sys.executable, "-m", "circus_failover.worker", str(order)],
            stdin=subprocess.DEVNULL,
            env={**self.environment, **extra},
            start_new_session=True,
            cwd="/",
        )
        self.workers.append(worker)
        return worker

    def run(self, order: Path, crash_at: str | None = None, timeout: float = 60.0) -> int:
        """Run a worker and return its exit code."""
        return self.start(order, crash_at).wait(timeout)

    def report(self, order: Path) -> dict[str, Any]:
        """Run a worker to its end, and return its only report."""
        assert self.run(order) == 0
        (found,) = self.reports()
        return found

    def reports(self) -> list[dict[str, Any]]:
        """Take the reports out of the spool, as circusd does, oldest first."""
        found = []
        for path in sorted(self.spool.glob("*.json")):
            found.append(json.loads(path.read_bytes()))
            path.unlink()
        return found

    # -- the stand-in --------------------------------------------------------------------------------

    def prompts(self) -> list[str]:
        """Return what the stand-in was told, in order, as its transcript has it."""
        found = []
        for path in self.home.glob("projects/*/*.jsonl"):
            entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found += [entry["message"]["content"] for entry in entries if entry["type"] == "user"]
        return found

    def idle(self) -> None:
        """Wait until the stand-in has answered everything and its line is empty."""
        wait_for("an empty prompt", lambda: self.screen().endswith("❯"))

    # -- the end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """End what was started here, workers first."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        left = {self.agent, *process_table.descendants(self.agent), *process_table.descendants(self.server)}

        def ended() -> bool:
            return not [process for process in left if process_table.send(process, signal.SIGKILL)]

        wait_for("every process of the terminal has ended", ended)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder with a path that is short enough for a socket, and remove it afterwards."""
    made = Path(tempfile.mkdtemp(prefix="cf-"))
    try:
        yield made
    finally:
        remove(made)


@contextlib.contextmanager
def terminals(folder: Path) -> Iterator[Open]:
    """Return what opens terminals below a folder; all of them are closed afterwards."""
    opened: list[Terminal] = []

    def open_one(*command: str, **size: int) -> Terminal:
        opened.append(Terminal(folder, *command, **size))
        return opened[-1]

    try:
        yield open_one
    finally:
        for one in opened:
            one.close()
        # One that could not be opened whole has left its server all the same.
        if (left := tmux.server_pid(folder / "s")) is not None:
            os.kill(left, signal.SIGKILL)


def _known(pid: int) -> ProcessId:
    process = process_table.identify(pid)
    assert process is not None
    return process


def command_lines() -> list[bytes]:
    """Return the command line of every process, as `ps` shows them to everybody."""
    # Not Path.glob, which fails where a process ends just then (Python 3.11).
    return [proc.command_line(int(name)) for name in filter(str.isdigit, os.listdir("/proc"))]


def shell(script: str, *arguments: str) -> Sequence[str]:
    """Return the argv of a shell script."""
    return ["sh", "-c", script, "sh", *arguments]
