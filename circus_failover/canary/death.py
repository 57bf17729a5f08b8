"""One server's death as it is written down: the line in exits.log and the report to circusd."""

from __future__ import annotations

from collections import namedtuple

from circus_failover.canary.watched import Watched
from circus_failover.logfmt import line, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EV = "server-exit"


class Death(
    namedtuple(
        "Death",
        "watched at up number status how cause detected seen evidence forensics",
    )
):
    """How one tmux server ended."""

    __slots__ = ()
    watched: Watched
    at: float
    """Epoch seconds at which its end was noticed; `detected` says whether it was just then."""
    up: float | None
    """Seconds it had been up, as far as it was seen."""
    number: int | None
    """The signal that ended it."""
    status: int | None
    """Its exit status; both None: the kernel did not tell."""
    how: str
    """How that is known: `pidfd-info`, `proc-stat` or `none`."""
    cause: str
    """A `words.ServerCause`."""
    detected: str
    """`live`, or `post-factum`: nobody watched it end."""
    seen: float | None
    """Epoch seconds at which it was last seen alive, where nobody watched."""
    evidence: str
    """What the cause rests on, for people."""
    forensics: str | None
    """Path of its snapshot, which may not be there yet."""

    def line(self) -> str:
        """Return the line of exits.log."""
        return line(self.at, EV, self.fields())

    def fields(self) -> dict[str, Any]:
        """Return what that line says beyond time and kind."""
        agents = [agent.identity for agent in self.watched.agents]
        fields: dict[str, Any] = {
            "identity": agents[0] if len(agents) == 1 else None,
            "socket": self.watched.socket,
            "server_pid": self.watched.server.pid,
            "up": None if self.up is None else round(self.up, 3),
        }
        if self.number is not None:
            fields["signal"] = self.number
        else:
            fields["status"] = "unknown" if self.status is None else self.status
        fields.update(
            how=self.how,
            cause=self.cause,
            detected=self.detected,
            agents=",".join(agents),
            forensics=self.forensics,
            last_seen=None if self.seen is None else timestamp(self.seen),
            evidence=self.evidence,
        )
        return fields

    def report(self) -> dict[str, Any]:
        """Return what circusd is told, as JSON takes it."""
        return {
            "socket": self.watched.socket,
            "pid": self.watched.server.pid,
            "start": self.watched.server.start,
            "boot": self.watched.boot,
            "at": self.at,
            "up": self.up,
            "signal": self.number,
            "status": self.status,
            "how": self.how,
            "cause": self.cause,
            "detected": self.detected,
            "seen": self.seen,
            "evidence": self.evidence,
            "forensics": self.forensics,
            "agents": [
                {"identity": agent.identity, "generation": agent.generation} for agent in self.watched.agents
            ],
        }
