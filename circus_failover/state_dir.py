"""The state directory: where each file lives, made 0700, and the lock of the circusd that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from circus_failover import process_table
from circus_failover.canary import watched
from circus_failover.process_table import ProcessId

FOLDERS = (
    *("tmux", "spool", "run", "locks", "panes", "beats"),
    *(watched.FOLDER, watched.SERVERS, watched.FORENSICS),
)


class StateDirError(Exception):
    """The state directory cannot be used; the text says what to do."""


class StateDirHeld(StateDirError):
    """Another circusd holds it."""


@dataclass(frozen=True)
class StateDir:
    """The paths below one state directory."""

    path: Path

    @property
    def store(self) -> Path:
        """The SQLite database."""
        return self.path / "failover.db"

    @property
    def lock(self) -> Path:
        """Locked by the running circusd; never removed."""
        return self.path / "arbiter.lock"

    @property
    def lifecycle_log(self) -> Path:
        """Every decision."""
        return self.path / "lifecycle.log"

    @property
    def exits_log(self) -> Path:
        """Every unplanned end."""
        return self.path / "exits.log"

    @property
    def tmux_config(self) -> Path:
        """Configuration of the servers that hold one agent each."""
        return self.path / "tmux.conf"

    @property
    def spool(self) -> Path:
        """Reports to circusd."""
        return self.path / "spool"

    @property
    def circusd_log(self) -> Path:
        """What circusd writes when `failoverctl up` started it."""
        return self.path / "circusd.log"

    def launch_file(self, identity: str, generation: int) -> Path:
        """The script of one launch."""
        return self.path / "run" / f"{identity}.{generation}.launch"

    def launch_error(self, identity: str, generation: int) -> Path:
        """Where the keeper says why tmux refused a launch."""
        return self.path / "run" / f"{identity}.{generation}.error"

    def worker_spec(self, action: int) -> Path:
        """What one worker was told."""
        return self.path / "run" / f"action-{action}.json"

    def worker_tree(self, action: int) -> Path:
        """The processes a worker found before it signalled the first."""
        return self.path / "run" / f"action-{action}.tree"

    def task_stem(self, task: int) -> Path:
        """What one typist is told: its order, the text, and how far it is, by their endings."""
        return self.path / "run" / f"task-{task}"

    def boot_order(self, identity: str, generation: int) -> Path:
        """What the watch of one boot is told."""
        return self.path / "run" / f"{identity}.{generation}.boot"

    def boot_lock(self, identity: str) -> Path:
        """Held by the watch of an agent's boot."""
        return self.path / "locks" / f"{identity}.boot.lock"

    def agent_lock(self, identity: str) -> Path:
        """Held by the worker that acts on an agent."""
        return self.path / "locks" / f"{identity}.lock"

    def own_socket(self, identity: str) -> Path:
        """Where an agent's own tmux server listens."""
        return self.path / "tmux" / f"{identity}.sock"

    def pane_log(self, identity: str) -> Path:
        """What an agent's pane printed."""
        return self.path / "panes" / f"{identity}.log"

    @property
    def web(self) -> Path:
        """Return the folder of the web console: its tokens, and where it listens."""
        return self.path / "web"

    @property
    def audit_log(self) -> Path:
        """Return the log of what people asked for in the web console."""
        return self.path / "audit.log"

    def prepare(self) -> None:
        """Make the directory and its folders, for this user only.

        Raises:
            StateDirError: it cannot be made, belongs to somebody else, or is open to others.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid != os.geteuid():
                raise StateDirError(
                    f"state_dir {self.path} belongs to uid {found.st_uid}, expected {os.geteuid()}: "
                    "run circusd as its owner or name another state_dir"
                )
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise StateDirError(
                    f"state_dir {self.path} has mode {stat.S_IMODE(found.st_mode):04o}, expected 0700: "
                    f"chmod 700 {self.path}"
                )
            for name in FOLDERS:
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StateDirError(f"state_dir {self.path} cannot be used: {error}") from error


@dataclass(frozen=True)
class Holder:
    """Who holds the lock of a state directory."""

    process: ProcessId
    endpoint: str
    ini: str


def claim(state: StateDir, endpoint: str, ini: str) -> int:
    """Lock a state directory for this circusd, for as long as the process lives.

    Returns:
        The descriptor that holds the lock; closing it, or the process's end, frees it.

    Raises:
        StateDirHeld: another circusd holds it; the text names it.
        StateDirError: the lock file cannot be opened.
    """
    try:
        handle = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirError(f"the lock {state.lock} cannot be opened: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        found = holder(state)
        who = (
            f"circusd pid {found.process.pid} ({found.ini}, endpoint {found.endpoint})"
            if found
            else "a circusd"
        )
        raise StateDirHeld(f"state_dir {state.path} is held by {who}: one circusd at a time") from error
    me = process_table.identify(os.getpid())
    content = {"pid": os.getpid(), "start": me.start if me else 0, "endpoint": endpoint, "ini": ini}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(content).encode(), 0)
    return handle


def holder(state: StateDir) -> Holder | None:
    """Return the living circusd that holds a state directory, or None when nobody does.

    The lock itself decides; the file's text only says who.
    """
    try:
        # Only to be read: who holds it is to be known also where nothing can be written any more.
        handle = os.open(state.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            pass
        try:
            content = json.loads(os.pread(handle, 65536, 0))
            return Holder(
                ProcessId(int(content["pid"]), int(content["start"])),
                str(content["endpoint"]),
                str(content["ini"]),
            )
        except (ValueError, KeyError, TypeError):
            return Holder(ProcessId(0, 0), "unknown", "unknown")
    finally:
        os.close(handle)
