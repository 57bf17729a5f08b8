"""circusd, failoverctl and circusctl without what each spends importing: live tests start thousands of them.

One process for each program has imported what the program imports, and only forks. The fork runs the console
script itself, with the arguments, environment, folder and files of the call, and ends as it does otherwise:
with its own pid, its own exit status. Of circus_failover, circusd's has only what defines values and does
nothing: the hooks, the verbs and all that has an effect when it is imported are imported by circusd itself.
What this does not prove, the start of the interpreter and of the scripts, is proven by the tests that run the
programs as they are (tests/test_ctl.py, tests/live/test_up_down.py, tests/live/test_one_circusd.py).
This module knows nothing of fleets, and ends no process that it did not start.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

BIN = Path(sys.executable).parent
IMPORTED = {
    "circusctl": ("circus.circusctl",),
    "circusd": (
        "circus.circusd",
        "circus.config",
        "circus.plugins",
        "pydantic",
        "sqlite3",
        "circus_failover.agent_settings",
        "circus_failover.agents",
        "circus_failover.fleet_file",
        "circus_failover.policy.bringup",
        "circus_failover.policy.dispatch",
        "circus_failover.policy.gate",
        "circus_failover.policy.wake",
        "circus_failover.store",
        "circus_failover.tmux",
    ),
    "failoverctl": (
        "circus_failover.ctl",
        "circus_failover.verbs.local",
        "circus_failover.screen",
        "circus_failover.validation",
        "circus_failover.doctor",
        "circus_failover.verb_progress",
        "rich.console",
        "rich.live",
        "rich.table",
    ),
}
"""What each program imports in the end; circusctl is Circus's own and must not know our verbs."""
AT_START = ("PYTHON", "LANG", "LC_")
"""What variables begin with that the interpreter reads when it starts: others need a start of their own."""
MOST = 1 << 20
"""Bytes of one message; a call is its arguments and variables."""


class Process:
    """A program that was started; a part of what `subprocess.Popen` is, under the same names."""

    def __init__(self, arguments: tuple[str, ...], ended: socket.socket) -> None:
        self._arguments = arguments
        self._ended = ended
        self.pid = int(ended.recv(MOST))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, as `subprocess` says it; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return how.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        if self.returncode is None:
            self._ended.settimeout(timeout)
            try:
                self.returncode = int(self._ended.recv(MOST))
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self._arguments, timeout or 0) from None
            self._ended.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            # It may have been reaped, and nobody has heard of that yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class Program:
    """One program, ready to be started again and again by this process; threads may do so at once."""

    def __init__(self, name: str) -> None:
        self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # It ends when this end of the socket is closed, at the latest with this process.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.live.forked", name, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parent.parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._turn = threading.Lock()

    def start(
        self, arguments: tuple[str, ...], environment: dict[str, str], folder: Path, out: int, err: int
    ) -> Process:
        """Start it in a session of its own; `out` and `err` stay open here."""
        asked = {"arguments": arguments, "environment": environment, "folder": str(folder)}
        ended, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._turn:
            socket.send_fds(self._asking, [json.dumps(asked).encode()], [theirs.fileno(), out, err])
        return Process(arguments, ended)


_programs: dict[str, Program] = {}
_starting = threading.Lock()


def start(
    name: str, arguments: tuple[str, ...], environment: dict[str, str], folder: Path, out: int, err: int
) -> Process | subprocess.Popen[bytes]:
    """Start a program in a session of its own, without standard input.

    Args:
        name: circusd, failoverctl or circusctl.
        arguments: its command line, without the program.
        environment: all variables it gets.
        folder: its working directory.
        out: the file of its standard output; it stays open here, like the next.
        err: the file of its standard error.
    """
    own = {key for key in os.environ.keys() | environment.keys() if key.startswith(AT_START)}
    if sys.platform != "linux" or any(os.environ.get(key) != environment.get(key) for key in own):
        return subprocess.Popen(
            [str(BIN / name), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            cwd=folder,
        )
    with _starting:
        if name not in _programs:
            _programs[name] = Program(name)
    return _programs[name].start(arguments, environment, folder, out, err)


def run(
    name: str, arguments: tuple[str, ...], environment: dict[str, str], folder: Path, timeout: float = 60.0
) -> tuple[int, str, str]:
    """Run a program to its end, and return exit code, standard output and standard error.

    Args:
        name: as for `start`, like the next three.
        arguments: its command line.
        environment: its variables.
        folder: its working directory.
        timeout: seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    until = time.monotonic() + timeout
    (out, its_out), (err, its_err) = os.pipe(), os.pipe()
    with open(out, "rb"), open(err, "rb"):
        try:
            process = start(name, arguments, environment, folder, its_out, its_err)
        finally:
            os.close(its_out)
            os.close(its_err)
        try:
            written = _read_all([out, err], until)
            return process.wait(max(0.0, until - time.monotonic())), written[out], written[err]
        except (TimeoutError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
            raise subprocess.TimeoutExpired(arguments, timeout) from None


def _read_all(pipes: list[int], until: float) -> dict[int, str]:
    """Read pipes up to their ends, as text.

    Raises:
        TimeoutError: they are still open at `until`.
    """
    read = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                piece = os.read(key.fd, 65536)
                read[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
    return {pipe: text.decode().replace("\r\n", "\n") for pipe, text in read.items()}


# -- the process that forks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """What a fork is to become."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    out: int
    err: int


def serve(asking: socket.socket) -> Call | None:
    """Fork for every call that arrives, and say how each fork ended.

    Returns:
        In a fork, what it is to become, with nothing open that is not its own. In the process itself None,
        once nobody can call any more.
    """
    running: dict[int, socket.socket] = {}
    woken, wakes = socket.socketpair()
    with asking, woken, wakes, selectors.DefaultSelector() as selector:
        woken.setblocking(False)
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        selector.register(asking, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                _tell_ends(running)
            if asking not in ready:
                continue
            raw, handles, _, _ = socket.recv_fds(asking, MOST, 3)
            if not raw:
                return None
            ended, out, err = handles
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(ended)
                for other in running.values():
                    other.close()
                return Call(**json.loads(raw), out=out, err=err)
            os.close(out)
            os.close(err)
            running[pid] = socket.socket(fileno=ended)
            running[pid].send(str(pid).encode())


def _tell_ends(running: dict[int, socket.socket]) -> None:
    """Reap the forks that have ended and say how, as `subprocess` does."""
    for pid, caller in list(running.items()):
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if reaped:
            with contextlib.suppress(OSError), caller:
                caller.send(str(os.waitstatus_to_exitcode(status)).encode())
            del running[pid]


def main() -> None:
    """Import what the program needs, serve, and in a fork run the console script to its end."""
    name, handle = sys.argv[1:]
    for module in IMPORTED[name]:
        import_module(module)
    script = BIN / name
    code = compile(script.read_bytes(), str(script), "exec")
    # What is there now is never looked at again, so that forks go on sharing its memory.
    gc.freeze()
    call = serve(socket.socket(fileno=int(handle)))
    if call is None:
        return
    os.setsid()
    for file, standard in ((call.out, 1), (call.err, 2)):
        os.dup2(file, standard)
        os.close(file)
    os.environ.clear()
    os.environ.update(call.environment)
    os.chdir(call.folder)
    sys.argv[:] = [str(script), *call.arguments]
    sys.path[0] = str(script.parent)
    exec(code, {"__name__": "__main__", "__file__": str(script)})


if __name__ == "__main__":
    main()
