"""Start and stop circusd from outside, and nothing else: no agent is started or ended here.

`up` starts one circusd for a circus.ini, detached, however many call it at once; `down` stops it and leaves its
agents alone. Both know circusd by the lock of its state directory, by pid and start time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from circus.client import CircusClient
from circus.config import get_config
from circus.exc import CallError

from circus_failover import fleet_file, process_table, settings, state_dir
from circus_failover.agent_settings import KEEPER
from circus_failover.claims import SCRUBBED
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.state_dir import Holder, StateDir, StateDirError
from circus_failover.store import StoreError, open_reader

UNREACHABLE, FAILED = 1, 3
UP_SECS = 60.0
DOWN_SECS = 30.0
ANSWER_SECS = 1.0
DEAF_SECS = 10.0
"""How long a circusd that holds the lock may take until it answers; it takes the lock before it binds."""
TAIL_LINES = 15
LIVING = ("starting", "up", "stopping", "observed")
Answer = dict[str, Any]


class Failed(Exception):
    """Something asked for on the command line failed: one message, and the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Site:
    """One circus.ini and what it says about where its circusd is.

    `options` is what Circus's get_config() makes of it; `endpoint` can be connected to from any folder.
    """

    ini: Path
    fleet: fleet_file.FleetFile
    options: Mapping[str, Any]
    endpoint: str
    state: StateDir


@dataclass(frozen=True)
class Running:
    """A circusd that answers. `answer` is that of `fleet`."""

    pid: int
    already: bool
    answer: Answer


@dataclass(frozen=True)
class Stopped:
    """What `down` found: the pid that it stopped, None when none ran, and the agents that live on."""

    pid: int | None
    alive: tuple[str, ...]


def existing_ini(given: str | None) -> Path:
    """Return the circus.ini that is meant: the one named, else the one in this folder.

    Raises:
        Failed: it is not there (exit 1).
    """
    path = Path(given if given is not None else "circus.ini")
    if not path.is_file():
        found = "a folder is there" if path.is_dir() else "no such file"
        hint = "" if given is not None else "; name another: failoverctl VERB PATH"
        raise Failed(f"{settings.printable(str(path.absolute()))}: {found}, expected a circus.ini{hint}", 1)
    return path.absolute()


def circus_options(ini: Path) -> dict[str, Any]:
    """Return a circus.ini as Circus reads it; one that `fleet_file.read` accepted raises nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = get_config(str(ini))
    return options


def site_of(ini: Path) -> Site:
    """Read a circus.ini and the failover.yaml files that its agents name.

    Raises:
        SettingsError: one of them cannot be read, or no agent names one; every problem is in it.
        Failed: it has no agents, so nothing of ours would run (exit 1).
    """
    fleet = fleet_file.read(ini)
    if not fleet.agents:
        raise Failed(f"{ini}: no watcher names the enrol hook, so there are no agents to run", 1)
    loaded: list[settings.Settings] = []
    problems: list[settings.Problem] = []
    for path in fleet.config_paths():
        try:
            loaded.append(settings.load(path))
        except settings.SettingsError as error:
            problems.extend(error.problems)
    if not loaded and not problems:
        expected = "FAILOVER_CONFIG, the path of a failover.yaml"
        problems.append(settings.Problem(str(ini), "FAILOVER_CONFIG", None, expected, section="env"))
    if problems:
        raise settings.SettingsError(problems)
    return Site(
        ini, fleet, circus_options(ini), absolute(fleet.endpoint, ini), StateDir(loaded[0].state_dir)
    )


def absolute(endpoint: str, ini: Path) -> str:
    """Return an endpoint with a relative ipc path resolved: `up` and our units run circusd in ini's folder."""
    kind, _, path = endpoint.partition("://")
    if kind != "ipc" or path.startswith(("/", "@")):
        return endpoint
    return f"ipc://{ini.absolute().parent / path}"


def ask(endpoint: str, command: str, timeout: float = ANSWER_SECS, **properties: Any) -> Answer:
    """Send one message to circusd and return its answer.

    Args:
        endpoint: where circusd listens.
        command: the verb.
        timeout: seconds to wait.
        properties: of the message.

    Raises:
        CallError: no answer in time, or the endpoint cannot be used.
    """
    import zmq

    try:
        client = CircusClient(endpoint=endpoint, timeout=timeout)
    except zmq.ZMQError as error:
        raise CallError(f"{endpoint} cannot be used: {error}") from error
    try:
        answer: Answer = client.call({"command": command, "properties": properties})
        return answer
    finally:
        client.stop()


def listens(endpoint: str) -> bool:
    """Say whether anybody accepts connections on an ipc or tcp endpoint; nothing is sent."""
    kind, _, where = endpoint.partition("://")
    if kind == "ipc":
        family, address = socket.AF_UNIX, ("\0" + where[1:] if where.startswith("@") else where)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(ANSWER_SECS)
            return _connects(lambda: probe.connect(address))
    host, _, port = where.rpartition(":")
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(host, host.strip("[]"))

    def connect() -> None:
        socket.create_connection((host, int(port)), ANSWER_SECS).close()

    return kind == "tcp" and port.isdigit() and _connects(connect)


def _connects(connect: Callable[[], None]) -> bool:
    try:
        connect()
    except OSError:
        return False
    return True


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
                    raise Failed(f"another `failoverctl up` holds {path} and does not finish", 1) from None
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
            f"{site.state.path} is held by circusd pid {found.process.pid} of {found.ini}, not of {site.ini}: "
            "name that one, or give each fleet a state_dir of its own"
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
    environment = {name: value for name, value in os.environ.items() if name not in SCRUBBED}
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
            return Running(running.pid, False, answer)
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
    shown = [settings.printable(line) for line in lines[-TAIL_LINES:]]
    return "\n".join(shown) or f"it wrote nothing to {path}"


# -- down --------------------------------------------------------------------------------------------
