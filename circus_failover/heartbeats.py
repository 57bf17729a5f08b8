"""Heartbeats of agents: the file is looked at, and what was found goes from the plugin to circusd as JSON.

It only looks. That a file is not there is no failure: nobody has beaten yet. What else goes wrong is said,
and nothing follows from it. Light on purpose: plugins import it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus_failover.agent_health import MISSED_LOOKS, SLACK_SECS
from circus_failover.policy.heartbeat import Beat, Thresholds, Work
from circus_failover.process_table import ProcessId
from circus_failover.records import AssignmentRow
from circus_failover.words import AssignmentState

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings
    from circus_failover.plugin_input import AgentPolicy

VARIABLE = "FAILOVER_HEARTBEAT"
"""Where an agent finds the path of its heartbeat file."""
EVIDENCE_SHOWN = 500
TAKEN = frozenset({str(AssignmentState.DELIVERED), str(AssignmentState.WORKING)})
"""The states of an assignment that its owner has taken."""


def thresholds(settings: AgentPolicy | AgentSettings, contract: bool) -> Thresholds:
    """Return an agent's settings as the policy takes them.

    Args:
        settings: as circusd holds them, or as plugins are given them.
        contract: whether it has a heartbeat contract.
    """
    return Thresholds(
        contract=contract,
        grace_secs=settings.grace_secs,
        nudge_secs=settings.nudge_secs,
        stuck_secs=settings.stuck_secs,
        progress_secs=settings.progress_secs,
        nudge_no_progress=settings.nudge_no_progress,
    )


def read(path: Path) -> Beat:
    """Return when a heartbeat file was last changed; never raises."""
    try:
        return Beat(os.stat(path).st_mtime)
    except FileNotFoundError:
        return Beat()
    except (OSError, ValueError) as error:
        return Beat(failed=str(error))


def work_of(row: AssignmentRow | None, generation: int) -> Work | None:
    """Return an assignment as the policy takes it; None when this launch of its owner has not taken it."""
    if row is None or row.state not in TAKEN or row.generation != generation or row.delivered_at is None:
        return None
    return Work(row.id, row.delivered_at, max(row.delivered_at, row.working_at or 0.0))


@dataclass(frozen=True)
class Heard:
    """What a plugin last found of one launch's heartbeat."""

    identity: str
    generation: int
    process: ProcessId
    at: float | None
    """When it beat the last time in this launch, in epoch seconds; None: not yet."""
    stuck: bool
    """It has broken its contract."""
    evidence: str = ""
    told_at: float = 0.0
    """When the plugin said so, in epoch seconds."""
    interval: float = 0.0
    """Seconds until it says so again."""

    def of(self, generation: int, process: ProcessId | None) -> bool:
        """Say whether this is about this very launch and process."""
        return self.generation == generation and self.process == process

    def holds(self, now: float) -> bool:
        """Say whether it is still to be believed, at a time in epoch seconds."""
        return abs(now - self.told_at) <= MISSED_LOOKS * self.interval + SLACK_SECS


def told(heard: Heard) -> dict[str, Any]:
    """Return what was found as JSON takes it."""
    return {
        "identity": heard.identity,
        "generation": heard.generation,
        "pid": heard.process.pid,
        "pid_start": heard.process.start,
        "at": heard.at,
        "stuck": heard.stuck,
        "evidence": heard.evidence[:EVIDENCE_SHOWN],
    }


def heard(said: object, now: float, interval: float) -> Heard | None:
    """Return what `told` made this of; None when it is anything else.

    Args:
        said: that.
        now: when it was said, in epoch seconds.
        interval: seconds until it is said again.
    """
    if not isinstance(said, dict):
        return None
    numbers: list[Any] = [said.get(name) for name in ("generation", "pid", "pid_start")]
    at, identity, evidence = said.get("at"), said.get("identity"), said.get("evidence", "")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        return None
    if at is not None and (type(at) not in (int, float) or not math.isfinite(at)):
        return None
    if not isinstance(identity, str) or type(said.get("stuck")) is not bool or not isinstance(evidence, str):
        return None
    generation, pid, start = numbers
    return Heard(
        identity=identity,
        generation=generation,
        process=ProcessId(pid, start),
        at=at,
        stuck=said["stuck"],
        evidence=evidence[:EVIDENCE_SHOWN],
        told_at=now,
        interval=interval,
    )
