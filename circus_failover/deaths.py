"""The deaths of tmux servers and agents as people ask for them: one server's end is one incident.

Reads the store, what waits in the spool and the canary's list. It changes nothing and needs no circusd.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from circus_failover import process_table
from circus_failover.canary import asking, watched
from circus_failover.failure import Failed
from circus_failover.policy import server_exit
from circus_failover.problems import describe, nearest
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.records import LaunchRow, ServerExitRow
from circus_failover.state_dir import StateDir
from circus_failover.store import StoreError, open_reader
from circus_failover.words import Cause

REPORT = "server-exits"
"""The kind of a report that tells of servers' ends."""
WITH_SERVER = frozenset((str(Cause.SERVER_LOST), str(Cause.SERVER_ENDED)))
BEFORE_SECS = 5.0
"""An agent that ended by itself so long before its server did not die of that."""
BACK_SECS = 86400.0
"""How far before the time asked for agents' deaths are read, for servers whose end was noticed later."""
EVERY = 10_000_000
"""As `limit` of a reader: all of them."""
CANARY_SECS = 1.0


# -- since when --------------------------------------------------------------------------------------

_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400),
}
_PART = r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)"
_SPAN = re.compile(rf"(?:{_PART}\s*)+?(?:\s*ago)?")
_MOMENT = re.compile(
    r"(?:([0-9]{4})-([0-9]{2})-([0-9]{2}))?"
    r"(?:(?:(?<=[0-9])[T ]|^)([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?)?"
    r"\s*([A-Za-z]{1,6}|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_EXAMPLES = "2h, 30m, 1d, 2026-11-21, '2026-11-21 14:30', 2026-11-21T14:30:00Z, 14:30, today or yesterday"


def since(text: str, now: float) -> float:
    """Return the epoch seconds that somebody means who writes since when.

    Args:
        text: how long ago (`2h`, `1d12h`, `30 minutes ago`), a date, a time of today, a date with a time (in
            this reader's zone, or with its own), `today` or `yesterday`.
        now: epoch seconds.

    Raises:
        ValueError: it means nothing, or a time that has not come.
    """
    asked = text.strip()
    try:
        found = _moment(asked, now)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise ValueError(f"--since {describe(text)}: expected {_EXAMPLES}")
    if found > now:
        raise ValueError(f"--since {describe(text)}: that time has not come; expected one before now")
    return max(found, 0.0)


def _moment(asked: str, now: float) -> float | None:
    if asked in ("today", "yesterday"):
        day = datetime.fromtimestamp(now).date() - timedelta(days=asked == "yesterday")
        return datetime(day.year, day.month, day.day).timestamp()
    if _SPAN.fullmatch(asked):
        parts = re.findall(_PART, asked.removesuffix("ago"))
        if all(unit in _UNITS for _, unit in parts):
            return now - sum(float(number) * _UNITS[unit] for number, unit in parts)
        return None
    match = _MOMENT.fullmatch(asked)
    if match is None or (match[1] is None and match[4] is None):
        return None
    *date, hour, minute, second, fraction, zone = match.groups()
    today = datetime.fromtimestamp(now)
    year, month, day_ = (today.year, today.month, today.day) if date[0] is None else map(int, date)
    micro = int(f"{fraction or 0:0<6}"[:6])
    clock = (int(hour or 0), int(minute or 0), int(second or 0), micro)
    # Without a zone, and with the name of this reader's own as we print it, it is this reader's time.
    local = zone is None or (zone in time.tzname and zone not in ("UTC", "GMT"))
    return datetime(year, month, day_, *clock, tzinfo=None if local else _zone(zone)).timestamp()


def _zone(text: str) -> timezone:
    if text.upper() in ("Z", "UTC", "GMT"):
        return timezone.utc
    if text[0] not in "+-":
        raise ValueError(text)
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if text[0] == "-" else offset)


# -- incidents ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Victim:
    """An agent that died, or that lived in a server that did."""

    identity: str
    generation: int
    launch: LaunchRow | None
    """Its launch that ended; None: that is not recorded, or came before its server's end."""


@dataclass(frozen=True)
class Incident:
    """The end of a server with the deaths of those that lived in it, or the death of one agent."""

    server: ServerExitRow | None
    """None: an agent died, and its server is not known to have."""
    victims: tuple[Victim, ...]
    taken_in: bool = True
    """False: it is still in the spool; circusd has not stored it yet."""

    @property
    def at(self) -> float:
        """When it was noticed, in epoch seconds."""
        if self.server is not None:
            return self.server.at
        return next((v.launch.ended_at or 0.0 for v in self.victims if v.launch is not None), 0.0)

    @property
    def last(self) -> float:
        """When the last death that belongs to it was noticed, in epoch seconds."""
        return max([self.at, *(v.launch.ended_at or 0.0 for v in self.victims if v.launch is not None)])


def incidents(
    stored: Iterable[ServerExitRow], waiting: Iterable[ServerExitRow], launches: Iterable[LaunchRow]
) -> list[Incident]:
    """Group deaths: those of a server's agents belong to that server's end.

    Args:
        stored: the ends of servers that circusd has taken in.
        waiting: those it has not; one that is in both has been taken in meanwhile.
        launches: those that ended by themselves.

    Returns:
        Incidents, the oldest first.
    """
    ended = {(row.identity, row.generation): row for row in launches}
    servers = {(row.boot, row.pid, row.start): (row, False) for row in waiting}
    servers.update({(row.boot, row.pid, row.start): (row, True) for row in stored})
    found = []
    for server, taken_in in servers.values():
        victims = []
        for agent in server.agents:
            key = str(agent["identity"]), int(agent["generation"])
            own = key in ended and _died_before(ended[key], server)
            victims.append(Victim(*key, None if own else ended.pop(key, None)))
        found.append(Incident(server, tuple(victims), taken_in))
    for row in ended.values():
        found.append(Incident(None, (Victim(row.identity, row.generation, row),)))
    return sorted(found, key=lambda one: one.at)


def _died_before(launch: LaunchRow, server: ServerExitRow) -> bool:
    """Say whether an agent ended on its own account while its server lived on."""
    if launch.end_cause in WITH_SERVER or launch.ended_at is None:
        return False
    alive = server.at - BEFORE_SECS if server.seen is None else server.seen
    return launch.ended_at < alive


def chosen(found: Sequence[Incident], names: Sequence[str], known: Iterable[str]) -> list[Incident]:
    """Return the incidents that somebody with one of these names was in.

    Args:
        found: incidents.
        names: agents, by name or glob; none: all incidents.
        known: agents that are known beside those in `found`.

    Raises:
        Failed: a name is nobody's.
    """
    dead = {victim.identity for one in found for victim in one.victims}
    everybody = dead | set(known)
    for name in names:
        if not fnmatch.filter(everybody, name):
            hint = nearest(name[:120], everybody)
            raise Failed(f"no agent {describe(name)} is known here, dead or alive{hint}")
    if not names:
        return list(found)
    wanted = {one for name in names for one in fnmatch.filter(dead, name)}
    return [one for one in found if any(victim.identity in wanted for victim in one.victims)]


# -- what there is to read ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What was read: incidents, the names of all agents that are known, and what cannot be shown yet."""

    incidents: list[Incident]
    known: set[str]
    notes: list[str]


def read(state: StateDir, at: float) -> Found:
    """Return the deaths since a time.

    Args:
        state: the state directory.
        at: epoch seconds.

    Raises:
        StoreError: the store is there and cannot be read.
    """
    # In this order nothing slips through: a death leaves the list for the spool, and the spool for the store.
    listed = unrecorded(str(state.path))
    waiting = in_spool(state.spool)
    stored: list[ServerExitRow] = []
    launches: list[LaunchRow] = []
    known: set[str] = set()
    if state.store.exists():
        reader = open_reader(state.store)
        try:
            stored = reader.server_exits(limit=EVERY)
            launches = reader.deaths_since(at - BACK_SECS, EVERY)
            known = set(reader.agents())
        except sqlite3.Error as error:
            raise StoreError(f"the store {state.store} cannot be read: {error}") from error
        finally:
            reader.close()
    found = [one for one in incidents(stored, waiting, launches) if one.last >= at]
    written = {(row.boot, row.pid, row.start) for row in (*stored, *waiting)}
    left = [one for one in listed if (one.boot, *one.server) not in written]
    return Found(found, known, [*_in_memory(state), *_not_recorded(left)])


def in_spool(folder: Path) -> list[ServerExitRow]:
    """Return the ends of servers that wait in the spool for circusd, the oldest first."""
    found = []
    try:
        names = sorted(entry for entry in os.listdir(folder) if entry.endswith(f"-{REPORT}.json"))
    except OSError:
        return []
    for name in names:
        if name.startswith("."):
            continue
        try:
            report = json.loads((folder / name).read_bytes())
            found += [_exit(raw) for raw in report["deaths"]]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # Taken in just now, or one that circusd will set aside.
            continue
    return found


def _exit(raw: dict[str, Any]) -> ServerExitRow:
    def number(value: Any) -> float | None:
        return None if value is None else float(value)

    def whole(value: Any) -> int | None:
        return None if value is None else int(value)

    return ServerExitRow(
        boot=str(raw["boot"]),
        pid=int(raw["pid"]),
        start=int(raw["start"]),
        socket=str(raw["socket"]),
        at=float(raw["at"]),
        up=number(raw["up"]),
        signal=whole(raw["signal"]),
        status=whole(raw["status"]),
        how=str(raw["how"]),
        cause=str(raw["cause"]),
        detected=str(raw["detected"]),
        seen=number(raw["seen"]),
        evidence=str(raw["evidence"]),
        forensics=None if raw["forensics"] is None else str(raw["forensics"]),
        agents=[
            {"identity": str(one["identity"]), "generation": int(one["generation"])} for one in raw["agents"]
        ],
    )


def unrecorded(state_dir: str) -> list[watched.Watched]:
    """Return the servers on the canary's list that are gone though nobody said that they would be."""
    found = []
    for name in watched.names(state_dir):
        one = watched.read(state_dir, name)
        if one is None or one.drill or one.boot != process_table.boot_id() or not gone(one.server):
            continue
        if server_exit.recorded(watched.intent(state_dir, one.server), None, None):
            found.append(one)
    return found


def gone(process: ProcessId) -> bool:
    """Say whether a process is proven to have ended."""
    try:
        return not process_table.alive(process)
    except ProbeFailed:
        return False


def _in_memory(state: StateDir) -> list[str]:
    answer = asking.ask(str(state.path), CANARY_SECS, ask="status")
    held = (answer or {}).get("waiting")
    if not held:
        return []
    why = (answer or {}).get("trouble")
    more = f"{held} more {'is' if held == 1 else 'are'} known to the canary, which cannot write them down yet"
    return [f"{more}: {why}" if why else more]


def _not_recorded(left: Sequence[watched.Watched]) -> list[str]:
    if not left:
        return []
    names = sorted({agent.identity for one in left for agent in one.agents})
    servers = "a tmux server is" if len(left) == 1 else f"{len(left)} tmux servers are"
    whose = f" (of {', '.join(names)})" if names else ""
    return [f"{servers} gone and not recorded yet{whose}: a canary does that when it starts"]


# -- as JSON -----------------------------------------------------------------------------------------


def signal_name(number: int | None) -> str | None:
    """Return a signal by its name; one without a name by its number."""
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def as_json(one: Incident) -> dict[str, Any]:
    """Return an incident as JSON takes it; what is not known is null."""
    server, launch = one.server, one.victims[0].launch if one.server is None else None
    ended: dict[str, Any] = {"signal": None, "status": None, "cause": None}
    if server is not None:
        ended = {"signal": server.signal, "status": server.status, "cause": server.cause}
    elif launch is not None:
        ended = {"signal": launch.exit_signal, "status": launch.exit_status, "cause": launch.end_cause}
    return {
        "what": "agent" if server is None else "server",
        "at": one.at,
        **ended,
        "signal_name": signal_name(ended["signal"]),
        "how": server and server.how,
        "detected": server and server.detected,
        "last_seen": server and server.seen,
        "evidence": server and server.evidence,
        "forensics": server and server.forensics,
        "forensics_there": bool(server and server.forensics and os.path.exists(server.forensics)),
        "socket": server and server.socket,
        "server_pid": server and server.pid,
        "server_start": server and server.start,
        "boot": server and server.boot,
        "up": server and server.up,
        "taken_in": one.taken_in,
        "agents": [
            {
                "identity": victim.identity,
                "generation": victim.generation,
                "death": None if victim.launch is None else asdict(victim.launch),
            }
            for victim in one.victims
        ],
    }
