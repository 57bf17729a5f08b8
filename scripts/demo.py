"""The demo: a real circusd with four stand-in agents, one of them stopped, one killed, and what follows.

Everything happens below one temporary directory that is HOME for the fleet, so that circus.ini.example
runs as it stands. At the end, however it comes, everything that was started is ended; a process is ended
only when it is proven to be the demo's own: a tmux server by its socket in that directory, any other by
its environment, which names that directory as HOME.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # Ctrl-C during the imports just ends it; `end_on_signals` takes over then.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from circus_failover import process_table, tmux

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
UP_SECS, END_SECS = 60.0, 30.0
POLL_SECS = 0.05
GENTLE_LOOKS, LOOKS = 20, 100
"""So often is it looked what is left: what ends by itself has time to, and the rest is killed."""
STOPPED, KILLED = "reviewer", "scout"
PARKED = "writer"
POOL = "review"
T = TypeVar("T")


class Failed(Exception):
    """The demo could not go on; the text says why."""


class Ended(BaseException):
    """A signal asks the demo to end."""


class DemoFleet:
    """The fleet of circus.ini.example in a directory of its own; a context that leaves nothing behind."""

    def __init__(self) -> None:
        # tmux sockets need a short path, and macOS's own temporary directory has a long one.
        short = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else None
        self.home = Path(os.path.realpath(tempfile.mkdtemp(prefix="fleet-", dir=short)))
        self.ini = ROOT / "circus.ini.example"
        self.state = self.home / ".circus-failover" / "state"
        self.endpoint = f"ipc://{self.state}/circusd.sock"
        self.log = self.home / "circusd.log"
        self.circusd: subprocess.Popen[bytes] | None = None
        self.console: subprocess.Popen[bytes] | None = None
        hidden = ("TMUX", "TMUX_PANE", "FAILOVER_CONFIG")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.environment.update(
            HOME=str(self.home),
            PATH=f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            CIRCUSCTL_ENDPOINT=self.endpoint,
        )

    def __enter__(self) -> DemoFleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- running it -------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the account homes and start circusd; returns when every agent is up."""
        self.ctl("validate", "--create", str(self.ini))
        self.circusd = self._started("circusd", str(self.ini))
        wait_for("all agents are up", self._all_up, UP_SECS)

    def serve(self) -> None:
        """Start the web console, on any free port of this machine; returns when it can be opened."""
        self.console = self._started("failover-web", "--port", "0")
        wait_for("the console can be opened", lambda: (self.state / "web/console.json").exists(), UP_SECS)

    def _started(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in this terminal is for the demo alone.
            return subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.home,
            )

    def _all_up(self) -> bool:
        assert self.circusd is not None
        if self.circusd.poll() is not None:
            raise Failed(f"circusd ended with {self.circusd.returncode}")
        agents = self.agents()
        refused = [
            f"{agent['identity']}: {agent['reason']}" for agent in agents if agent["phase"] == "refused"
        ]
        if refused:
            raise Failed("refused: " + "; ".join(refused))
        return bool(agents) and all(agent["phase"] == "up" for agent in agents)

    def agents(self) -> list[dict[str, Any]]:
        """Return what `failoverctl --json fleet` says; empty while circusd does not answer."""
        done = subprocess.run(
            [str(BIN / "failoverctl"), "--json", "--timeout", "2", "fleet"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            cwd=self.home,
        )
        return list(json.loads(done.stdout)["agents"]) if done.returncode == 0 else []

    def agent(self, name: str) -> dict[str, Any]:
        """Return one agent of the fleet."""
        return next((agent for agent in self.agents() if agent["identity"] == name), {"phase": "unknown"})

    def ctl(self, *arguments: str) -> str:
        """Run failoverctl and return what it printed.

        Raises:
            Failed: it did not exit with 0.
        """
        done = subprocess.run(
            [str(BIN / "failoverctl"), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            cwd=self.home,
            timeout=END_SECS,
        )
        if done.returncode != 0:
            raise Failed(f"failoverctl {shlex.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def kill(self, name: str) -> int:
        """Kill an agent's own process behind the supervisor's back; return its pid once that was noticed."""
        agent = self.agent(name)
        process = process_table.identify(agent["pid"])
        if process is None or not self._owns(process.pid):
            raise Failed(f"{name} has no process of this fleet: {agent}")
        process_table.send(process, signal.SIGKILL)
        wait_for(
            f"the supervisor knows how {name} ended",
            lambda: (found := self.agent(name))["phase"] == "down" and found["cause"] == "signaled",
            END_SECS,
        )
        return process.pid

    def lifecycle(self, *names: str) -> list[str]:
        """Return the lines of lifecycle.log about some agents."""
        wanted = {f"identity={name}" for name in names}
        lines = (self.state / "lifecycle.log").read_text().splitlines()
        return [line for line in lines if wanted & set(line.split())]

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the agents, then circusd, then whatever is left of them, and remove the directory."""
        with _undisturbed():
            if self.console is not None:
                self.console.terminate()
                self.console.wait(END_SECS)
            if self.circusd is not None:
                if self.circusd.poll() is None:
                    with contextlib.suppress(Failed, subprocess.TimeoutExpired):
                        self.ctl("stop", "--waiting", "--timeout", "25")
                self._end_circusd(self.circusd)
            self._end_servers()
            left = self._end_processes()
            shutil.rmtree(self.home, ignore_errors=True)
            if left:
                print(f"demo: still running: {left}", file=sys.stderr)

    def _end_circusd(self, circusd: subprocess.Popen[bytes]) -> None:
        if circusd.poll() is None:
            with contextlib.suppress(Failed, subprocess.TimeoutExpired):
                self.ctl("quit")
        harder: tuple[Callable[[], object], ...] = (lambda: None, circusd.terminate, circusd.kill)
        for ask in harder:
            ask()
            try:
                circusd.wait(10)
                return
            except subprocess.TimeoutExpired:
                continue

    def _end_servers(self) -> None:
        """tmux servers that are left when circusd could not be asked; known by their sockets' place."""
        for socket in sorted((self.state / "tmux").glob("*.sock")):
            with contextlib.suppress(tmux.TmuxError):
                if tmux.serves(socket):
                    tmux.run(socket, ["kill-server"])

    def _owns(self, pid: int) -> bool:
        return f"HOME={self.home}".encode() in (process_table.environ(pid) or ())

    def _end_processes(self) -> list[int]:
        """End what still runs with this fleet's HOME; Linux only, as elsewhere no environment can be read."""

        def left() -> list[process_table.ProcessId]:
            found = process_table.table().values()
            return [stat.id for stat in found if stat.run_state not in "ZX" and self._owns(stat.id.pid)]

        # By looks and not by the clock: this process too may be kept waiting by a busy machine.
        for look in range(LOOKS):
            if not (running := left()):
                return []
            if look >= GENTLE_LOOKS:
                for process in running:
                    process_table.send(process, signal.SIGKILL)
            time.sleep(POLL_SECS)
        return [process.pid for process in left()]


def wait_for(what: str, probe: Callable[[], T], timeout: float) -> T:
    """Return the first true answer of `probe`.

    Raises:
        Failed: there was none within `timeout` seconds.
    """
    until = time.monotonic() + timeout
    while not (answer := probe()):
        if time.monotonic() > until:
            raise Failed(f"not within {timeout:g} s: {what}")
        time.sleep(POLL_SECS)
    return answer


class _undisturbed(contextlib.AbstractContextManager[None]):
    """A second Ctrl-C must not stop the clearing away."""

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end the program through its `with` blocks."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, end)


# -- what is shown --------------------------------------------------------------------------------


def say(text: str = "") -> None:
    """Print a line that is the demo's own."""
    bold = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() and text else ("", "")
    print(f"{bold[0]}{text}{bold[1]}", flush=True)


def show(fleet: DemoFleet, *arguments: str) -> None:
    """Print a command and let it write to this very terminal, whose Ctrl-C is for the demo alone."""
    say(f"\n$ failoverctl {shlex.join(arguments)}")
    try:
        subprocess.run(
            [str(BIN / "failoverctl"), *arguments],
            env=fleet.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=fleet.home,
            timeout=END_SECS,
            check=True,
        )
    except BaseException:
        if sys.stdout.isatty():  # it hides the cursor while it waits, and was killed
            print("\r\x1b[K\x1b[?25h", end="", flush=True)
        raise


def play(fleet: DemoFleet) -> None:
    """The demo itself."""
    say(f"Starting circusd from {fleet.ini.name}, with {fleet.home} as its home ...")
    fleet.start()
    show(fleet, "fleet")
    say(f"\n{STOPPED} is stopped by an operator; the answer comes when it has ended.")
    show(fleet, "stop", STOPPED, "--waiting")
    pid = fleet.kill(KILLED)
    say(f"\n{KILLED}'s process was killed behind the supervisor's back: kill -9 {pid}")
    show(fleet, "fleet")
    say(f"\nWhat the supervisor knows, and why: {STOPPED} was wanted so, {KILLED} was not.")
    show(fleet, "explain", STOPPED)
    show(fleet, "explain", KILLED)
    show(fleet, "history", KILLED)
    say(f"\n$ grep -E 'identity=({STOPPED}|{KILLED}) ' {fleet.state}/lifecycle.log")
    for line in fleet.lifecycle(STOPPED, KILLED):
        print(line)
    say(f"\n{KILLED} is started again, as its next launch.")
    show(fleet, "start", KILLED)
    say(f"\n{PARKED} is parked, which frees its memory, and woken with a task: its conversation goes on.")
    show(fleet, "park", PARKED, "--waiting")
    show(fleet, "wake", PARKED, "--task", "add a note on the new port", "--waiting")
    say("\nWork is given to a pool: whoever of it is free gets it, and says when it is done.")
    show(fleet, "assign", "--pool", POOL, "--id", "port-note", "--task", "/job 1", "--wait")
    show(fleet, "work", "--all")
    show(fleet, "fleet")
    say("\nThe same in a browser: the web console, on this machine alone.")
    fleet.serve()
    show(fleet, "web", "--no-open")


def stay(fleet: DemoFleet) -> None:
    """Leave the fleet running until it is ended from here or from another terminal."""
    assert fleet.circusd is not None
    say("\nThe fleet runs on. In another terminal:")
    print(f"  export CIRCUSCTL_ENDPOINT={fleet.endpoint} PATH={BIN}:$PATH")
    print("  failoverctl fleet                 failoverctl attach writer    (C-b d leaves it)")
    print("  failoverctl explain scout         failoverctl restart writer")
    print("  failoverctl start reviewer        failoverctl --help")
    print("  failoverctl assign --pool review --task '/job 5'")
    print("  failoverctl web                   (opens the console, or prints another link into it)")
    print(f"  tail -f {fleet.state}/lifecycle.log")
    say("Ctrl-C here ends everything and clears it away.")
    fleet.circusd.wait()
    say("circusd has ended; its agents live on without it, until they are cleared away now.")


def main() -> int:
    """Return the exit status: 0 shown or Ctrl-C, 1 failed, 2 usage, 128 and more ended by a signal."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--once"]):
        print("usage: scripts/demo [--once]", file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    end_on_signals()
    try:
        with DemoFleet() as fleet:
            try:
                play(fleet)
            except (Failed, subprocess.SubprocessError):
                if fleet.log.exists():
                    print(f"circusd's log:\n{fleet.log.read_text()[-3000:]}", file=sys.stderr)
                raise
            if not arguments:
                stay(fleet)
    except Ended as ended:
        say(f"\n{ended}: everything has been cleared away.")
        number = signal.Signals[str(ended)]
        return 0 if number == signal.SIGINT and not arguments else 128 + number
    except (Failed, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
