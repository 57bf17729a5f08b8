"""failover-canary: notices how and when tmux servers die, and writes it down.

Run as `PYTHON -I -S process.py STATE_DIR`; it detaches itself, and ends at once where one runs already. This
file begins and ends the process; what it does in between is in `watching`. It keeps nothing of the session
and the environment it was started in, and writes nothing to its terminal once it is detached.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import contextlib
import gc
import json
import signal
import time

from circus_failover import file_lock, process_table
from circus_failover.canary import watched
from circus_failover.canary.environment import kept
from circus_failover.process_table import ProcessId

USAGE = "usage: process.py STATE_DIR [--means pidfd|kqueue|client]"
NAME = "failover-canary"
REMIND_SECS = 0.5
"""How long one that starts waits for the one that runs to listen, or to end."""
CRASH_LOG = f"{watched.FOLDER}/crash.log"
"""Why the last canary that failed did, for people."""


def main(argv: list[str]) -> int:
    """Become the canary of a state directory.

    Args:
        argv: the state directory, and options.

    Returns:
        0: one has begun, detached, or runs already; 1: it could not begin, and stderr says why; 2: usage.
    """
    options = _parse(argv)
    if options is None:
        print(USAGE, file=sys.stderr)
        return 2
    state_dir, means = options
    _cleanse(argv)
    try:
        # For as long as it is open; another canary holds it otherwise.
        lock = file_lock.take(os.path.join(state_dir, watched.LOCK))
        if lock is None:
            lock = _remind(state_dir)
        if lock is None:
            return 0
        says = _detach()
    except OSError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    if isinstance(says, bool):
        if not says:
            print(f"{NAME}: it ended at once, {os.path.join(state_dir, CRASH_LOG)} says why", file=sys.stderr)
        return 0 if says else 1
    return _watch(state_dir, lock, says, means)


def _parse(argv: list[str]) -> tuple[str, str | None] | None:
    """Return the state directory and the means that are wanted; None: that is no way to call it."""
    if len(argv) == 3 and argv[1] == "--means" and argv[2] in ("pidfd", "kqueue", "client"):
        means = argv[2]
    elif len(argv) == 1:
        means = None
    else:
        return None
    return None if argv[0].startswith("-") or not argv[0] else (os.path.abspath(argv[0]), means)


def _cleanse(argv: list[str]) -> None:
    """Begin again with a clean environment, where this one is an agent's.

    Survivors of a launch are found by their environment, and the kernel shows the one a program began with.
    """
    clean = kept(os.environ)
    if any(name.startswith("FAILOVER_") and name not in clean for name in os.environ):
        command = [sys.executable, "-I", "-S", os.path.abspath(__file__), *argv]
        os.execve(sys.executable, command, clean)
    os.environ.clear()
    os.environ.update(clean)


def _remind(state_dir: str) -> int | None:
    """See to it that the canary that runs listens; return the lock in case it was about to end."""
    socket, path = os.path.join(state_dir, watched.SOCKET), os.path.join(state_dir, watched.LOCK)
    until = time.monotonic() + REMIND_SECS
    while not os.path.exists(socket) and time.monotonic() < until:
        # Before the lock's text names it, it ignores HUP or heeds it.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, process_table.ProbeFailed):
            with open(path) as file:
                content = json.load(file)
            process_table.send(ProcessId(int(content["pid"]), int(content["start"])), signal.SIGHUP)
        time.sleep(0.02)
        lock = file_lock.take(path)
        if lock is not None:
            return lock
    return None


def _detach() -> int | bool:
    """Leave session, terminal and parent behind.

    Returns:
        In the canary: the descriptor to close when it has begun, after a byte. In the process that stays
        behind, once that has happened: True; False where the canary ended before.
    """
    null = os.open(os.devnull, os.O_RDWR)
    hears, says = os.pipe()
    middle = os.fork()
    if middle:
        os.close(says)
        os.waitpid(middle, 0)
        return os.read(hears, 1) != b""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    for handle in (0, 1, 2):
        os.dup2(null, handle)
    os.close(null)
    os.close(hears)
    return says


def _watch(state_dir: str, lock: int, says: int, means: str | None) -> int:
    """Be the canary."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(NAME)
    try:
        me = process_table.identify(os.getpid())
        content = {"pid": os.getpid(), "start": me.start if me else 0}
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(content).encode(), 0)
        from circus_failover.canary.watching import Canary

        canary = Canary(state_dir, lock, _descriptors(), means)
        canary.begin()
        os.write(says, b"1")
        os.close(says)
        gc.collect()
        # What is there now stays: it need not be looked through again.
        gc.freeze()
        canary.run()
        # Now, and not when the interpreter is done: somebody may be about to start the next one.
        os.close(lock)
        return 0
    except Exception:
        _confess(os.path.join(state_dir, CRASH_LOG))
        return 1


def _descriptors() -> int:
    """Let this process have as many descriptors open as it may ever have, and return how many."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def _confess(path: str) -> None:
    """Leave a note of the error that ends this canary; the next one goes on from the list."""
    import traceback

    text = f"pid {os.getpid()}, Python {sys.version.split()[0]}\n{traceback.format_exc()}"
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(handle, text.encode(errors="backslashreplace"))
        os.close(handle)


if __name__ == "__main__":
    if not process_table.LINUX:
        # psutil, which reads the process table there, is outside of the standard library.
        import site

        site.main()
    sys.exit(main(sys.argv[1:]))
