"""Read exits.log back: which deaths have their line already. Writes nothing."""

from __future__ import annotations

import os
import re
from datetime import datetime

from circus_failover.canary import watched as lists
from circus_failover.canary.death import EV, Death
from circus_failover.logfmt import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from circus_failover.canary.watched import Watched

EXITS_LOG = "exits.log"
TAIL = 1024 * 1024
"""How much of the end of a log is read: where it is open whether a death was recorded, it is a recent one."""

_FIELD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^" ]*)(?= |$)')


def recorded(state_dir: str, servers: Collection[tuple[Watched, float]]) -> dict[str, Death]:
    """Return the deaths of these servers that have their line already, by the server's name.

    Args:
        state_dir: the state directory.
        servers: servers that are gone, each with an epoch time at which it lived: what was written before
            is of another server with the same pid.
    """
    found: dict[str, Death] = {}
    for base, drill in ((EXITS_LOG, False), (lists.DRILL_LOG, True)):
        wanted = {
            (server.socket, str(server.server.pid)): (server, timestamp(lived))
            for server, lived in servers
            if server.drill == drill
        }
        for name in (f"{base}.1", base) if wanted else ():
            for text in _tail(os.path.join(state_dir, name)):
                if f" ev={EV} " not in text:
                    continue
                line = fields(text)
                server, since = wanted.get((line.get("socket", ""), line.get("server_pid", "")), (None, ""))
                death = None if server is None or line.get("ts", "") < since else _death(server, line)
                if death is not None:
                    found[death.watched.name] = death
    return found


def fields(line: str) -> dict[str, str]:
    """Return the keys and values of one line in logfmt."""
    return {key: _unquoted(value) for key, value in _FIELD.findall(line)}


def _tail(path: str) -> list[str]:
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL))
            # The first one may lack its beginning, and with it its time: then it is nobody's.
            return file.read(TAIL).decode(errors="replace").split("\n")
    except OSError:
        return []


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    return value[1:-1].encode("ascii", "backslashreplace").decode("unicode_escape")


def _death(server: Watched, line: dict[str, str]) -> Death | None:
    """Return the death a line tells of, so that line and report agree; None: it is no whole line."""
    if not line.get("evidence"):
        # It comes last, and is never empty.
        return None
    try:
        return Death(
            watched=server,
            at=_epoch(line["ts"]),
            up=float(line["up"]) if line["up"] else None,
            number=int(line["signal"]) if "signal" in line else None,
            status=int(line["status"]) if line.get("status", "unknown") != "unknown" else None,
            how=line["how"],
            cause=line["cause"],
            detected=line["detected"],
            seen=_epoch(line["last_seen"]) if line["last_seen"] else None,
            evidence=line["evidence"],
            forensics=line["forensics"] or None,
        )
    except (KeyError, ValueError):
        return None


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
