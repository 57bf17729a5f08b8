"""Start and stop circusd from outside, and nothing else: no agent is started or ended here.

`up` starts one circusd for a circus.ini, detached, however many call it at once; `down` stops it and
leaves its agents alone. Both know circusd by the lock of its state directory, by pid and start time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from circus.exc import CallError

from circus_failover import claims, fleet_file, problems, process_table, settings, state_dir
from circus_failover.agent_settings import KEEPER
from circus_failover.circusd_site import Answer, Site, absolute, ask, listens, site_of
from circus_failover.failure import UNREACHABLE, Failed
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.state_dir import Holder, StateDir, StateDirError
from circus_failover.store import StoreError, open_reader

UP_SECS = 60.0
DOWN_SECS = 45.0
"""Longer than circusd waits for a plugin that hangs: its `graceful_timeout`, 30 s (Circus 0.19)."""
QUIT_SECS = 5.0
AGAIN_SECS = 2.0
"""A SIGTERM that reaches circusd while it runs another command is lost (Circus 0.19), so it is sent again."""
DEAF_SECS = 10.0
"""How long a circusd that holds the lock may take until it answers; it takes the lock before it binds."""
TAIL_LINES = 15


@dataclass(frozen=True)
class Running:
    """A circusd that answers: what `fleet` says, and which agents took too long to settle."""

    pid: int
    already: bool
    answer: Answer
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stopped:
    """What `down` found: the pid that it stopped, None when none ran, and the agents that live on."""

    pid: int | None
    alive: tuple[str, ...]


# -- up ----------------------------------------------------------------------------------------------


def up(site: Site, timeout: float, say: Callable[[str], None]) -> Running:
    """Start circusd unless it runs, and wait until it answers and every agent has settled.

    Args:
        site: which one.
        timeout: seconds for all of it.
        say: is told what is being waited for.

    Raises:
        Failed: it cannot be started, ended again, does not answer, or belongs to another circus.ini.
    """
    until = time.monotonic() + timeout
    try:
        site.state.prepare()
    except StateDirError as error:
        raise Failed(str(error), UNREACHABLE) from error
    say("waiting for another `up`")
    with _turn(site.state.path / "up.lock", until):
        found = state_dir.holder(site.state)
        if found is not None:
            return _already(site, found, until)
        if listens(site.endpoint):
            raise Failed(
                f"another program listens on {site.endpoint} and does not hold {site.state.path}: "
                f"stop it (failoverctl --endpoint {site.endpoint} quit) or give {site.ini} another endpoint"
            )
        say("starting circusd")
        offset = _size(site.state.circusd_log)
        process = _spawn(site)
        running = _await_answer(site, process, offset, until)
    return running if running.already else _settle(site, running, until, say)


@contextlib.contextmanager
def _turn(path: Path, until: float) -> Iterator[None]:
    """Hold a lock file, so that of several `up` one starts circusd and the others find it running."""
    with _opened(path) as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Failed(
                        f"another `failoverctl up` holds {path} and does not finish", UNREACHABLE
                    ) from None
                time.sleep(0.05)
        yield


def _opened(path: Path) -> IO[bytes]:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise Failed(f"{path} cannot be opened: {error.strerror}") from error


def _already(site: Site, found: Holder, until: float) -> Running:
    _same_fleet(site, found)
    pid, endpoint = found.process.pid, _endpoint_of(site, found)
    deaf_at = min(until, time.monotonic() + DEAF_SECS)
    while True:
        with contextlib.suppress(CallError):
            answer = ask(endpoint, "fleet")
            return Running(pid, True, _checked(site, pid, answer))
        if time.monotonic() > deaf_at:
            raise Failed(
                f"circusd pid {pid} holds {site.state.path} but does not answer on {endpoint}: "
                f"look at {site.state.circusd_log}; `failoverctl down {site.ini}` stops it, "
                f"or kill -KILL {pid}: agents live on either way"
            )


def _same_fleet(site: Site, found: Holder) -> None:
    if found.ini != "unknown" and os.path.realpath(found.ini) != os.path.realpath(site.ini):
        raise Failed(
            f"{site.state.path} is held by circusd pid {found.process.pid} of {found.ini}, "
            f"not of {site.ini}: name that one, or give each fleet a state_dir of its own"
        )


def _endpoint_of(site: Site, found: Holder) -> str:
    return site.endpoint if found.endpoint == "unknown" else absolute(found.endpoint, site.ini)


def _checked(site: Site, pid: int, answer: Answer) -> Answer:
    if answer.get("status") == "ok":
        return answer
    raise Failed(
        f"circusd pid {pid} runs and does not know its agents: {answer.get('reason')}; "
        f"look at {site.options['logoutput'] or site.state.circusd_log}"
    )


def _spawn(site: Site) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in claims.SCRUBBED}
    bin_dir = str(Path(sys.executable).parent)
    if shutil.which(KEEPER) is None:
        environment["PATH"] = os.pathsep.join(filter(None, (os.environ.get("PATH"), bin_dir)))
    arguments = [sys.executable, "-m", "circus.circusd", str(site.ini)]
    if not site.options["logoutput"]:
        arguments += ["--log-output", str(site.state.circusd_log)]
    with _opened(site.state.circusd_log) as log:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=site.ini.parent,
            start_new_session=True,
        )


def _await_answer(site: Site, process: subprocess.Popen[bytes], offset: int, until: float) -> Running:
    while True:
        with contextlib.suppress(CallError):
            return Running(process.pid, False, _checked(site, process.pid, ask(site.endpoint, "fleet")))
        status = process.poll()
        if status is not None:
            found = state_dir.holder(site.state)
            if found is not None and found.process.pid != process.pid:
                return _already(site, found, until)
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise Failed(f"circusd ended at once ({how}):\n{_tail(site.state.circusd_log, offset)}")
        if time.monotonic() > until:
            raise Failed(
                f"circusd pid {process.pid} runs and does not answer on {site.endpoint}: "
                f"look at {site.state.circusd_log}, or wait longer (--timeout-secs)",
                UNREACHABLE,
            )


def _settle(site: Site, running: Running, until: float, say: Callable[[str], None]) -> Running:
    """Wait until nothing changes any more; Circus tells nobody when it has tried its last watcher."""
    quiet_secs = 0.5 + float(site.options["warmup_delay"])
    first = {str(agent["name"]) for agent in site.fleet.agents if agent.get("autostart", True)}
    seen: object = None
    changed = time.monotonic()
    answer = running.answer
    while True:
        waiting = unsettled(answer, first)
        snapshot = [(agent["identity"], agent["phase"], agent["generation"]) for agent in answer["agents"]]
        if snapshot != seen:
            seen, changed = snapshot, time.monotonic()
        if not waiting and time.monotonic() - changed >= quiet_secs:
            return Running(running.pid, False, answer)
        if time.monotonic() > until:
            return Running(running.pid, False, answer, tuple(waiting))
        say(f"circusd runs (pid {running.pid}); {len(waiting)} of {len(answer['agents'])} agents start")
        time.sleep(0.1)
        try:
            answer = _checked(site, running.pid, ask(site.endpoint, "fleet", 5.0))
        except CallError as error:
            raise Failed(
                f"circusd pid {running.pid} does not answer any more: {error}", UNREACHABLE
            ) from error


def unsettled(answer: Answer, autostarted: set[str]) -> list[str]:
    """Return the agents of a `fleet` answer of which more is to be seen soon: starting, or about to start."""
    return [
        str(agent["identity"])
        for agent in answer["agents"]
        if agent["phase"] == "starting"
        or (agent["phase"] == "down" and not agent["generation"] and agent["identity"] in autostarted)
    ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tail(path: Path, offset: int) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(offset, _size(path) - 65536))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"its log {path} cannot be read: {error.strerror}"
    shown = [problems.printable(line) for line in lines[-TAIL_LINES:]]
    return "\n".join(shown) or f"it wrote nothing to {path}"


# -- down --------------------------------------------------------------------------------------------


def down(ini: Path, endpoint: str | None, by: str, say: Callable[[str], None]) -> Stopped:
    """Stop the circusd of a circus.ini, and wait until it is gone. Agents are not touched.

    Args:
        ini: which one; when its failover.yaml cannot be read now, circusd is known by the endpoint alone.
        endpoint: where to reach it; None: where it says it listens.
        by: who asks, for circusd's records.
        say: is told what is being waited for.

    Returns:
        Its pid, None when it did not run, and the agents that are alive.

    Raises:
        Failed: it belongs to another circus.ini, or does not end within `DOWN_SECS`.
        SettingsError: `ini` itself cannot be read.
    """
    try:
        site = site_of(ini)
    except (settings.SettingsError, Failed):
        return down_at(endpoint or absolute(fleet_file.read(ini).endpoint, ini), by, say)
    if os.path.exists(site.state.path) and not os.access(site.state.path, os.R_OK | os.W_OK | os.X_OK):
        # The lock cannot be looked at, so "not running" would be a guess.
        raise Failed(f"{site.state.path} cannot be used by this user: run this as the user that runs circusd")
    found = state_dir.holder(site.state)
    if found is None:
        if listens(endpoint or site.endpoint):
            return down_at(endpoint or site.endpoint, by, say)
        return Stopped(None, living_agents(site.state))
    _same_fleet(site, found)
    process = found.process
    say(f"circusd (pid {process.pid}) is stopping")
    quitted = _quit(endpoint or _endpoint_of(site, found), by)
    if not quitted and process.pid == 0:
        raise Failed(
            f"{site.state.lock} is held by a process that wrote no pid into it and does not answer: "
            f"find it (fuser {site.state.lock}) and end it with SIGTERM"
        )
    _await_gone(process, quitted, lambda: state_dir.holder(site.state) is None)
    return Stopped(process.pid, living_agents(site.state))


def down_at(endpoint: str, by: str, say: Callable[[str], None]) -> Stopped:
    """Stop whatever circusd answers on an endpoint, as `down` does; for when no circus.ini is at hand.

    Raises:
        Failed: somebody listens there and does not answer (exit 1), or does not end.
    """
    if not listens(endpoint):
        return Stopped(None, ())
    state: StateDir | None = None
    try:
        circusd = ask(endpoint, "fleet", QUIT_SECS).get("circusd") or {}
        pid = int(circusd.get("pid") or ask(endpoint, "dstats", QUIT_SECS)["info"]["pid"])
        state = StateDir(Path(circusd["state_dir"])) if circusd.get("state_dir") else None
    except (CallError, KeyError, TypeError, ValueError) as error:
        raise Failed(
            f"something listens on {endpoint} and does not answer as circusd does ({error}): "
            "name its circus.ini, so that it is known by its lock: failoverctl down circus.ini",
            UNREACHABLE,
        ) from error
    process = process_table.identify(pid)
    say(f"circusd (pid {pid}) is stopping")
    if process is not None and _quit(endpoint, by):
        _await_gone(process, True, lambda: True)
    return Stopped(pid, living_agents(state) if state else ())


def _quit(endpoint: str, by: str) -> bool:
    try:
        return ask(endpoint, "quit", QUIT_SECS, by=by).get("status") == "ok"
    except CallError:
        return False


def _await_gone(process: ProcessId, quitted: bool, free: Callable[[], bool]) -> None:
    until = time.monotonic() + DOWN_SECS
    again = 0.0
    while True:
        try:
            runs = process.pid != 0 and process_table.alive(process)
        except ProbeFailed:
            runs = True
        if not runs and free():
            return
        if time.monotonic() > until:
            raise Failed(
                f"circusd pid {process.pid} did not stop within {DOWN_SECS:g} s: look at its log; "
                f"kill -KILL {process.pid} ends it, and agents live on"
            )
        if runs and not quitted and time.monotonic() >= again:
            process_table.send(process, signal.SIGTERM)
            again = time.monotonic() + AGAIN_SECS
        time.sleep(0.05)


def living_agents(state: StateDir) -> tuple[str, ...]:
    """Return the agents whose stored process runs right now; none when there is no store to say so."""
    try:
        reader = open_reader(state.store)
    except StoreError:
        return ()
    try:
        rows, boot = reader.agents().values(), process_table.boot_id()
    finally:
        reader.close()
    return tuple(row.identity for row in rows if row.boot == boot and row.process and _alive(row.process))


def _alive(process: ProcessId) -> bool:
    try:
        return process_table.alive(process)
    except ProbeFailed:
        return False
