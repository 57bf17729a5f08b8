"""What each of doctor's findings means: evidence comes in, a line comes out, and nothing is looked at here.

A check's level is `fail` when agents cannot run, can be lost, or can be commanded by others; `warn` when
something is near that, unusual, or could not be looked at.
"""

from __future__ import annotations

import datetime
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circus_failover.records import AgentRow, TaskRow
from circus_failover.words import Cause, Phase, Word

MIB, GIB = 1024**2, 1024**3
CLOCK_BEHIND_SECS = 60.0
CHECK_DELAY_SECS = 5.0
TICK_LATE_SECS = 10.0
TASK_LATE_SECS = 600.0
EARLIEST = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc).timestamp()


class Level(Word):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line: what was checked, what was found, and what to do about it."""

    level: Level
    check: str
    finding: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the line for `--json`."""
        return {
            "level": str(self.level),
            "check": self.check,
            "finding": self.finding,
            "remedy": self.remedy,
        }


def ok(check: str, finding: str) -> Check:
    """Return a line that says all is well."""
    return Check(Level.OK, check, finding)


def warn(check: str, finding: str, remedy: str = "") -> Check:
    """Return a warning."""
    return Check(Level.WARN, check, finding, remedy)


def fail(check: str, finding: str, remedy: str) -> Check:
    """Return a failure."""
    return Check(Level.FAIL, check, finding, remedy)


# -- programs ----------------------------------------------------------------------------------------


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def python(version: tuple[int, int], text: str) -> Check:
    """Judge this Python."""
    if version < (3, 10):
        return fail("python", f"{text} is too old", "run circus-failover with Python 3.10 to 3.13")
    if version > (3, 13):
        return warn("python", f"{text} is newer than what is tested", "Python 3.10 to 3.13 are")
    return ok("python", text)


def tmux(found: str | None) -> Check:
    """Judge tmux by what `tmux -V` says; `new-session -e` came with 3.2 (its CHANGES)."""
    if found is None:
        return fail("tmux", "not on PATH: every agent is refused", "install it, e.g. apt install tmux")
    numbers = _numbers(found)
    if not numbers:
        return warn("tmux", f"{found!r} says no version", "3.2 or newer is needed")
    if numbers < (3, 2):
        return fail("tmux", f"{found} is too old: it cannot set an agent's environment", "install tmux 3.2")
    return ok("tmux", found)


def package(name: str, found: str | None, least: str, below: str | None = None) -> Check:
    """Judge an installed distribution.

    Args:
        name: the distribution.
        found: its version; None: not installed.
        least: the oldest that works.
        below: versions from this one on are not tested.
    """
    remedy = f"pip install '{name}>={least}{f',<{below}' if below else ''}'"
    if found is None:
        return fail(name, "not installed", remedy)
    if _numbers(found) < _numbers(least):
        return fail(name, f"{found} is older than {least}", remedy)
    if below is not None and _numbers(found) >= _numbers(below):
        return warn(name, f"{found} is newer than what is tested", remedy)
    return ok(name, found)


# -- who can command circusd -------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A file or folder: where, who owns it, its permissions; `mode` None: not there."""

    path: str
    mode: int | None
    owner: int = 0


def tcp_endpoint(name: str, endpoint: str) -> Check:
    """Judge a tcp endpoint: ZeroMQ's own has no credentials here, whoever connects commands."""
    host = endpoint.partition("://")[2].rpartition(":")[0].strip("[]").lower()
    remedy = f"{name} = ipc:///a/folder/with/mode/0700/{name.partition('_')[0]} in [circus]"
    if host == "localhost" or host == "::1" or re.fullmatch(r"127(\.\d+){3}", host):
        return warn(name, f"{endpoint}: any user of this host can use it and command every agent", remedy)
    return fail(name, f"{endpoint} is open to the network: anybody can command every agent", remedy)


def ipc_endpoint(name: str, endpoint: str, socket: Entry, folders: Sequence[Entry], uid: int) -> Check:
    """Judge an ipc endpoint by the permissions on its socket and the folders above it.

    Some systems ignore a socket's own permissions (unix(7)): only a folder that lets nobody else in protects.

    Args:
        name: the setting.
        endpoint: its value.
        socket: the socket file.
        folders: the folders above it, the nearest first.
        uid: who runs circusd.
    """
    if endpoint.startswith("ipc://@"):
        remedy = f"{name} = ipc:///a/folder/with/mode/0700/name in [circus]"
        return fail(name, f"{endpoint}: an abstract socket has no permissions, any user can use it", remedy)
    for folder in folders:
        private = folder.mode is not None and not folder.mode & 0o077
        if private and folder.owner in (uid, 0):
            return ok(name, f"{endpoint}, private by {folder.path}")
    nearest = folders[0]
    if socket.mode is not None and socket.mode & 0o022:
        modes = f"the socket {socket.path} ({stat.S_IMODE(socket.mode):04o}) can be used by others"
    elif nearest.mode is None:
        return warn(
            name, f"{endpoint}: the folder {nearest.path} is not there", f"mkdir -m 700 {nearest.path}"
        )
    else:
        modes = f"its folder {nearest.path} ({stat.S_IMODE(nearest.mode):04o}) is open to others"
    if nearest.mode is not None and (nearest.mode & stat.S_ISVTX or nearest.owner != uid):
        remedy = f"give it a folder of its own with mode 0700, not {nearest.path}"
    else:
        remedy = f"chmod 700 {nearest.path}"
    return fail(name, f"{endpoint}: {modes}", remedy)


# -- the state directory -----------------------------------------------------------------------------


def state_dir(found: Entry, uid: int) -> Check:
    """Judge the state directory's owner and mode."""
    if found.mode is None:
        return ok("state_dir", f"{found.path} is not there yet; circusd makes it")
    mode = stat.S_IMODE(found.mode)
    if not stat.S_ISDIR(found.mode):
        return fail("state_dir", f"{found.path} is no folder", "name another state_dir in failover.yaml")
    if found.owner != uid:
        return fail(
            "state_dir",
            f"{found.path} belongs to uid {found.owner}, not to uid {uid}",
            "run this as its owner, or name another state_dir",
        )
    if mode & 0o077:
        return fail("state_dir", f"{found.path} has mode {mode:04o}", f"chmod 700 {found.path}")
    return ok("state_dir", f"{found.path}, mode {mode:04o}")


def clock(now: float, newest: float | None) -> Check:
    """Judge the wall clock against the newest time that is stored (epoch seconds)."""
    shown = _utc(now)
    if now < EARLIEST:
        return fail("clock", f"{shown} cannot be", "set the clock (timedatectl set-ntp true)")
    if newest is not None and newest - now > CLOCK_BEHIND_SECS:
        finding = f"{shown} is {newest - now:.0f} s behind the newest record: it was set back, or was ahead"
        return warn("clock", finding, "compare it with another host (timedatectl)")
    return ok("clock", shown)


def _utc(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def disk(path: str, free_bytes: int, inodes: int, free_inodes: int) -> Check:
    """Judge the file system of the state directory.

    Args:
        path: a folder on it.
        free_bytes: what this user may still write.
        inodes: how many it has in all; 0 where it does not count them (btrfs).
        free_inodes: how many this user may still use.
    """
    free = f"{free_bytes / GIB:.1f} GB" if free_bytes >= GIB else f"{free_bytes / MIB:.0f} MB"
    if free_bytes < 100 * MIB:
        return fail("disk", f"{path} has {free} free: nothing can be recorded soon", "free some")
    if inodes and free_inodes < 1000:
        return fail("disk", f"{path} has {free_inodes} inodes left", "remove files nobody needs")
    if free_bytes < GIB:
        return warn("disk", f"{path} has {free} free", "free some")
    return ok("disk", f"{path} has {free} free")


# -- what circusd says -------------------------------------------------------------------------------


def check_delay(seconds: float) -> Check:
    """Judge how often Circus looks after its processes."""
    if seconds > CHECK_DELAY_SECS:
        finding = f"{seconds:g} s: the end of a keeper or a plugin is made good only that late"
        return warn("check_delay", finding, "check_delay = 1 in [circus]")
    return ok("check_delay", f"{seconds:g} s")


def supervisor(circusd: Mapping[str, Any], now: float) -> list[Check]:
    """Judge what circusd says of its supervisor: trouble, lost log lines, a tick that does not come."""
    found = []
    if circusd.get("trouble"):
        found.append(fail("supervisor", str(circusd["trouble"]), "see the finding; agents live on meanwhile"))
    tick = circusd.get("last_tick")
    if isinstance(tick, (int, float)) and now - tick > TICK_LATE_SECS:
        finding = f"its last tick was {now - tick:.0f} s ago"
        found.append(fail("supervisor", finding, "look at circusd's log; failoverctl down and up restart it"))
    if circusd.get("log_lines_lost"):
        finding = f"{circusd['log_lines_lost']} lines of lifecycle.log or exits.log could not be written"
        if circusd.get("log_trouble"):
            finding += f": {circusd['log_trouble']}"
        found.append(warn("lifecycle.log", finding, "look at the disk and the permissions of the state_dir"))
    return found or [ok("supervisor", "ticks, and nothing was lost")]


def agents(views: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Judge the agents as `fleet` shows them: refused, held, wedged."""
    found: list[Check] = []
    held: list[str] = []
    limited: list[str] = []
    for view in views:
        name = view["identity"]
        if view.get("wedged"):
            finding = f"{name}: its tmux server does not answer (pid {view['server_pid']})"
            remedy = f"look at pid {view['server_pid']}: stopped (kill -CONT), or hanging on its disk"
            found.append(fail("tmux server", finding, remedy))
        if view["phase"] == "refused":
            finding = f"{name} is refused: {view['reason']}"
            found.append(fail("agent", finding, f"failoverctl explain {name}"))
        elif view["phase"] == "held":
            because = limited if view.get("cause") == str(Cause.LIMITED) else held
            because.append(f"{name} ({_held(view)})")
    if held:
        remedy = "failoverctl explain NAME says why; failoverctl reset NAME lets it start again"
        found.append(warn("held", f"held back: {', '.join(held)}", remedy))
    if limited:
        remedy = "failoverctl accounts says what is known of each; failoverctl explain NAME what can be done"
        found.append(warn("limited", f"held because of their accounts: {', '.join(limited)}", remedy))
    return found or [ok("agents", f"{len(views)}, none refused, every tmux server answers")]


def _held(view: Mapping[str, Any]) -> str:
    if view.get("cause") == str(Cause.GIVEN_UP):
        return "given up"
    if view.get("held_until") is not None:
        return f"until {_utc(view['held_until'])}"
    return str(view["reason"])


def tasks(next_ones: Iterable[TaskRow], rows: Mapping[str, AgentRow], now: float) -> list[Check]:
    """Judge the queues of agents that are up: a task should be typed as soon as its turn has come.

    Args:
        next_ones: the task of each agent whose turn is next.
        rows: what is remembered of the agents, by identity.
        now: epoch seconds.
    """
    found = []
    for task in next_ones:
        row = rows.get(task.identity)
        if row is None or row.phase != Phase.UP:
            continue
        waits = now - max(task.queued_at, row.ready_at or 0.0)
        if waits > TASK_LATE_SECS:
            finding = f"task {task.id} waits for {waits / 60:.0f} minutes for {task.identity}, which is up"
            note = f": {task.note}" if task.note else ""
            remedy = f"failoverctl attach {task.identity} shows why; failoverctl tasks {task.identity}"
            found.append(warn("tasks", finding + note, remedy))
    return found or [ok("tasks", "none waits for long for an agent that is up")]


def undeclared(running: Sequence[str], gone: Mapping[str, str]) -> list[Check]:
    """Judge agents that the store knows and no section names any more.

    Args:
        running: those that run.
        gone: the phase of the others, by identity; not those that `rm` took out.
    """
    found = []
    if running:
        finding = f"run, and no section of circus.ini names them: {', '.join(running)}"
        remedy = "put their sections back and reloadconfig, then `rm` ends them; or end them by hand (attach)"
        found.append(warn("undeclared", finding, remedy))
    if gone:
        names = ", ".join(f"{name} ({phase})" for name, phase in gone.items())
        finding = f"no section of circus.ini names them any more: {names}"
        remedy = (
            "they come back as they were when their sections do; "
            "failoverctl purge NAME deletes what is kept of one"
        )
        found.append(warn("undeclared", finding, remedy))
    return found or [ok("undeclared", "every agent that is remembered has a section, or was removed")]
