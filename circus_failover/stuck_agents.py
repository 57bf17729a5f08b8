"""What circusd does about an agent that has broken its heartbeat contract: it is ended and brought back.

A plugin has found it; circusd looks again, with the same policy, right before the intent is written, and
nothing that has changed meanwhile, or cannot be told, lets it go on. That it is to be brought back is in the
store from its end on (down, cause `stuck`), so that also the next circusd does it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus_failover import heartbeats, liveness, process_table
from circus_failover.agent import Agent
from circus_failover.agents import RUNTIMES
from circus_failover.policy.heartbeat import (
    Evidence,
    HeartbeatAction,
    HeartbeatVerdict,
    Told,
    Work,
    decide,
)
from circus_failover.process_table import ProcessId
from circus_failover.records import ActionRow
from circus_failover.words import (
    Asked,
    Cause,
    IntentAction,
    Liveness,
    NoticeKind,
    Phase,
    State,
    TaskState,
)

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

DETAIL = "stuck"
"""What the order of its end says of the heartbeat that was broken."""
SLACK_SECS = 60.0
"""What a launch may take beyond its own limits before it counts as not brought back."""


@dataclass(frozen=True)
class Finding:
    """What the plugin has found, and whom it means."""

    generation: int
    process: ProcessId | None
    beat: float | None
    """When it beat the last time, in epoch seconds; None: not in this launch."""
    assignment: str | None
    state: State | None
    """What its client was seen to do just now; None: that was not looked at."""
    floor: float | None
    """Since when ages count, in epoch seconds, where the host stood still; None: it did not."""


def look_again(held: Supervisor, agent: Agent, finding: Finding) -> HeartbeatVerdict | str:
    """Look at an agent that a plugin has found stuck; return the verdict, or why it is not ended.

    Args:
        held: the supervisor.
        agent: whom.
        finding: what the plugin has found.
    """
    held.check(agent)
    settings, row = agent.settings, agent.row
    if agent.phase is not Phase.UP or agent.action is not None:
        return f"it is {agent.phase}"
    if finding.generation != row.generation:
        return f"it has generation {row.generation} now, not {finding.generation}: look again"
    if finding.process != row.process or row.process is None:
        return "it is not the process that was looked at"
    if settings is None or settings.heartbeat is None or row.launch is None:
        return "it has no heartbeat contract"
    if not _was_told(row.process, settings.heartbeat):
        return "its launch was not told where its heartbeat is: it has no contract before its next one"
    if any(task.state == str(TaskState.TYPING) for task in held.deliveries.waiting(agent)):
        return "something is being typed into it right now"
    beat = heartbeats.read(settings.heartbeat)
    if beat.at is not None and beat.at > (finding.beat or 0.0) + 0.001 and beat.at >= (row.launched_at or 0):
        return "it has beaten since"
    work = heartbeats.work_of(held.assignments.of(agent), row.generation)
    if work is None or work.id != finding.assignment:
        return f"assignment {finding.assignment} is not with it any more"
    proven = liveness.recorded(row)
    evidence = Evidence(
        phase=agent.phase,
        observed=agent.observed,
        wedged=agent.wedged,
        tells=RUNTIMES[settings.runtime].tells,
        state=_does(agent, finding.state),
        question="",
        looked=True,
        work=work,
        proven=proven is not None and proven.liveness is Liveness.LIVE,
        launched_at=row.launched_at,
        ready_at=row.ready_at,
        beat=beat,
        activity=None,
        terminal=None,
        typed_at=None,
    )
    verdict = decide(
        heartbeats.thresholds(settings, True), evidence, Told(question=""), finding.floor, time.time()
    )
    return verdict if verdict.action is HeartbeatAction.STUCK else verdict.reason


def _does(agent: Agent, told: State | None) -> State | None:
    """Return what an agent does: as it was last said, if that holds, else as the plugin has seen it."""
    seen = agent.last_look()
    return seen.health.state if seen is not None and seen.holds(time.time()) else told


def _was_told(process: ProcessId, path: Path) -> bool:
    """Say whether a launch was given this heartbeat: the setting may be newer. Unknown (no /proc) is yes."""
    entries = process_table.environ(process.pid)
    return entries is None or f"{heartbeats.VARIABLE}={path}".encode() in entries


def end(held: Supervisor, agent: Agent, finding: Finding, verdict: HeartbeatVerdict, who: str) -> None:
    """Write the intent to end an agent that is stuck; the rest follows from it.

    Args:
        held: the supervisor.
        agent: whom.
        finding: what the plugin has found.
        verdict: what circusd itself has found.
        who: who asked.

    Raises:
        StoreError: the intent could not be written, so nothing is ended.
    """
    detail = {"age": verdict.age, "beat": finding.beat, "assignment": finding.assignment}
    held.endings.end(agent, IntentAction.STUCK, who, verdict.reason, detail={DETAIL: detail})


def ended(held: Supervisor, agent: Agent, action: ActionRow, report: dict[str, Any]) -> None:
    """Count the end of an agent that was stuck as the death that it is, which may hold it.

    Args:
        held: the supervisor.
        agent: whose end is stored.
        action: the end.
        report: what its worker has reported.
    """
    held.log_exit(
        agent, Cause.STUCK, report.get("exit_status"), report.get("exit_signal"), report.get("last_output")
    )
    held.crash_loops.ended(agent)
    detail = action.spec.get(DETAIL) or {}
    text = f"{agent.identity} was stuck and was ended: {action.why}; assignment {detail.get('assignment')}"
    held.notices.say(
        NoticeKind.STUCK,
        text,
        identity=agent.identity,
        generation=action.generation,
        assignment=detail.get("assignment"),
        age=detail.get("age"),
    )


def left_behind(agent: Agent) -> bool:
    """Say whether an earlier circusd ended an agent that was stuck and has not brought it back."""
    return agent.phase is Phase.DOWN and agent.row.cause == str(Cause.STUCK) and not agent.row.stay_stopped


async def bring_back(held: Supervisor, agent: Agent, action: ActionRow | None) -> None:
    """Bring an agent back that was stuck and is proven to be gone, and say what became of it.

    Args:
        held: the supervisor.
        agent: whom.
        action: its end; None: what the store says of it.
    """
    if action is None and held.store is not None:
        action = next(iter(held.store.actions(agent.identity, 1)), None)
    if action is None or action.generation != agent.row.generation:
        return
    if agent.coming_back:
        return
    settings, agent.coming_back = agent.settings, True
    try:
        if agent.phase in (Phase.DOWN, Phase.STARTING):
            allowed = settings.boot_secs + settings.prepare_secs if settings is not None else 0.0
            await held.bring_up.start(agent, action.who, allowed + SLACK_SECS, Asked.POLICY)
    finally:
        agent.coming_back = False
    if held.arbiter._stopping or held.roster.agents.get(agent.identity) is not agent:
        return
    found = liveness.recorded(agent.row)
    lives = found is not None and found.liveness is Liveness.LIVE
    detail = action.spec.get(DETAIL) or {}
    if agent.phase is Phase.UP and agent.row.generation > action.generation and lives:
        _say(held, agent, detail, "relaunched", f"{action.why}; generation {action.generation} is gone")
        return
    outcome = "held" if agent.phase is Phase.HELD else "not-relaunched"
    why = f"it is {agent.phase}" + (f": {agent.row.reason}" if agent.row.reason else "")
    _say(held, agent, detail, outcome, f"{action.why}; {why}")
    if agent.phase in (Phase.HELD, Phase.REFUSED, Phase.DOWN, Phase.STARTING):
        assignment = detail.get("assignment")
        held.notices.say(
            NoticeKind.RECOVERY_FAILED,
            f"{agent.identity} was stuck with assignment {assignment} and could not be brought back: {why}",
            identity=agent.identity,
            assignment=assignment,
        )


def _say(held: Supervisor, agent: Agent, detail: dict[str, Any], outcome: str, evidence: str) -> None:
    held.supervise(agent, "stuck", age=detail.get("age"), outcome=outcome, evidence=evidence)


def nudge_text(work: Work, silent_secs: float | None) -> str:
    """Return what an agent is told that does not get on with its assignment."""
    quiet = "" if silent_secs is None else f" for {silent_secs:.0f} s"
    return (
        f"Reminder from the supervisor: you have assignment {work.id}, and nothing was heard of it{quiet}. "
        f"If it is done, run `failoverctl self done {work.id}`. If it cannot be done, run "
        f"`failoverctl self failed {work.id}` and say why with --note. If you are at it, run "
        "`failoverctl self beat` now and from time to time, and go on."
    )
