"""The ends of an agent's launches, as the policies take them: which count, and which the restart policy sees.

Light on purpose: plugins import it.
"""

from __future__ import annotations

from circus_failover.policy.crash_loop import Ended
from circus_failover.records import AgentRow, LaunchRow
from circus_failover.store import Reader
from circus_failover.words import Cause

ENDS_READ = 200
"""More than `failover.crash_max` may be."""


def ended_of(launch: LaunchRow) -> Ended:
    """Return the end of a launch as the policies take it.

    One that was to end a switch and never became ready is no death: its agent is parked on its old account.
    """
    unproven = launch.cause == str(Cause.SWITCHED) and launch.up_at is None
    return Ended(
        generation=launch.generation,
        up_at=launch.up_at,
        ended_at=launch.ended_at or 0.0,
        planned=bool(launch.planned) or unproven,
        cause=launch.end_cause or "",
        exit_status=launch.exit_status,
    )


def that_count(store: Reader, row: AgentRow) -> list[Ended]:
    """Return the ends that a crash loop is judged by, the newest first: those that were not forgiven."""
    return [ended_of(launch) for launch in store.ended_launches(row.identity, row.loop_from, ENDS_READ)]


def to_follow(store: Reader, row: AgentRow, limit: int = ENDS_READ) -> list[Ended]:
    """Return the ends that a restart policy follows, the newest first.

    The newest is always among them, also when it was forgiven: `reset` forgets how often an agent died, not
    that it is down.
    """
    ends = [ended_of(launch) for launch in store.ended_launches(row.identity, row.born, limit)]
    return [end for index, end in enumerate(ends) if index == 0 or end.generation > row.loop_from]
