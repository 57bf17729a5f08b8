"""The fleet that a pool belongs to, for `failoverctl pool`: its circus.ini, its endpoint, its settings.

It reads files and asks circusd at most where its circus.ini is; nothing is changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from circus.exc import CallError
from circus.util import DEFAULT_ENDPOINT_DEALER

from circus_failover import fleet_file, pool_file, settings
from circus_failover.circusd_site import absolute, ask, existing_ini, listens
from circus_failover.failure import Failed
from circus_failover.fleet_file import FleetFile
from circus_failover.pool_file import Pool
from circus_failover.problems import Problem, SettingsError, describe, nearest
from circus_failover.settings import Settings


@dataclass(frozen=True)
class Site:
    """The fleet that a pool belongs to."""

    ini: Path
    fleet: FleetFile
    endpoint: str


def site_of(given: str | None, endpoint: str | None) -> Site:
    """Return the fleet that is meant.

    Args:
        given: its circus.ini; None: the one in this folder, else that of the circusd that answers.
        endpoint: where that listens; None: where circus.ini, or the environment, says.

    Raises:
        SettingsError: its circus.ini cannot be read.
        Failed: there is none.
    """
    named = given
    if named is None and not os.path.isfile("circus.ini"):
        where = endpoint or os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)
        with contextlib.suppress(CallError):
            if listens(where):
                named = (ask(where, "fleet", 5.0).get("circusd") or {}).get("ini")
    ini = existing_ini(named)
    fleet = fleet_file.read(ini)
    return Site(ini, fleet, endpoint or absolute(fleet.endpoint, ini))


def pool_named(site: Site, name: str) -> tuple[Pool, Path]:
    """Return a pool and its file.

    Raises:
        Failed: there is none of this name.
        SettingsError: its section says no pool.
    """
    pools = pool_file.pools_of(site.fleet)
    found = pools.get(name)
    if found is None:
        near = nearest(name, pools) or (f"; there are: {', '.join(pools)}" if pools else "")
        raise Failed(f"{site.ini} has no pool {describe(name)}{near}")
    if isinstance(found, SettingsError):
        raise found
    return found, pool_file.file_of(site.fleet, name)


def settings_of(site: Site, pool: Pool) -> Settings:
    """Return the failover.yaml that a pool's agents use.

    Raises:
        SettingsError: nothing names one, or it cannot be read.
    """
    path = site.fleet.config_path(dict(pool.options))
    if path is None:
        expected = "FAILOVER_CONFIG, the path of a failover.yaml (failoverctl init makes both files)"
        raise SettingsError([Problem(str(site.ini), "FAILOVER_CONFIG", None, expected, section="env")])
    return settings.load(path)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one `pool` at a time write into a folder.

    Raises:
        Failed: another one does.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failed(f"another `failoverctl pool` is writing in {folder}: wait for it") from error
        yield
    finally:
        os.close(handle)
