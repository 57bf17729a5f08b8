"""Where a circusd is and how it is reached, known from its circus.ini or an endpoint; nothing is changed.

Everything that runs in `failoverctl` itself (`up`, `down`, `attach`, `doctor`) begins here.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus.client import CircusClient
from circus.config import get_config
from circus.exc import CallError

from circus_failover import fleet_file, problems, settings
from circus_failover.failure import FOUND, Failed
from circus_failover.state_dir import StateDir

ANSWER_SECS = 1.0
Answer = dict[str, Any]


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


def existing_ini(given: str | None) -> Path:
    """Return the circus.ini that is meant: the one named, else the one in this folder.

    Raises:
        Failed: it is not there (exit 1).
    """
    path = Path(given if given is not None else "circus.ini")
    if not os.path.isfile(path):  # Path.is_file() raises where a folder above may not be read
        found = "a folder is there" if os.path.isdir(path) else _missing(path)
        hint = "" if given is not None else "; name another: failoverctl VERB PATH"
        raise Failed(
            f"{problems.printable(str(path.absolute()))}: {found}, expected a circus.ini{hint}", FOUND
        )
    return path.absolute()


def _missing(path: Path) -> str:
    try:
        os.stat(path)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return error.strerror or str(error)
    return "no regular file"


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
        raise Failed(f"{ini}: no watcher names the enrol hook, so there are no agents to run", FOUND)
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
    return Site(ini, fleet, circus_options(ini), absolute(fleet.endpoint, ini), StateDir(loaded[0].state_dir))


def absolute(endpoint: str, ini: Path) -> str:
    """Return an endpoint with a relative ipc path resolved: circusd is run in its circus.ini's folder."""
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
