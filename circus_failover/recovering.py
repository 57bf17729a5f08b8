"""What becomes of assignments that an agent has: the evidence, and what `policy.recovery` decides from it.

A lookup that fails is evidence of nothing. Nothing is ended or started here: an agent that died with work is
brought back by its restart policy, and finds in its queue that it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus_failover import crashpoint, heartbeats
from circus_failover.agent import Agent
from circus_failover.agents import RUNTIMES
from circus_failover.dispatching import PLANNED_ENDS
from circus_failover.policy import recovery
from circus_failover.policy.recovery import Owned, RecoveryAction, RecoveryVerdict
from circus_failover.records import AssignmentRow, LaunchRow
from circus_failover.store import Store
from circus_failover.words import AssignmentState, NoticeKind, Orphans, Phase, Source, State, TaskState

if TYPE_CHECKING:
    from circus_failover.assignments import Assignments
    from circus_failover.supervisor import Supervisor

COARSE_SECS = 8.0
"""Linux sets the time of a terminal's last output so coarsely (tty_io.c)."""
UNHEARD_SECS = 10.0
"""How long a client that was told something may be idle before it counts as not having heard."""
STEPS = 3
"""At most so many decisions about one assignment at once: recovered, released, and that is where it ends."""


class Recovering:
    """Recovers the assignments of one supervisor."""

    def __init__(self, supervisor: Supervisor, assignments: Assignments) -> None:
        self._supervisor = supervisor
        self._assignments = assignments
        self._said: set[str] = set()
        """The deaths of which somebody was told that the recovery failed."""

    def load(self) -> None:
        """Remember what somebody was told already."""
        store = self._supervisor.store
        told = store.notices(0, limit=1_000_000) if store is not None else []
        self._said = {notice.key for notice in told if notice.kind == NoticeKind.RECOVERY_FAILED}

    def settle(self, row: AssignmentRow) -> None:
        """Do all that is to be done now about an assignment that an agent has.

        Raises:
            StoreError: it could not be stored; nothing was changed.
        """
        for _ in range(STEPS):
            found = self._corrected(row)
            self._say_failed(found)
            owned, launch = self._owned(found)
            verdict = recovery.decide(owned)
            if verdict.action is RecoveryAction.LEAVE:
                return
            self._carry_out(found, verdict, launch)
            again = self._assignments.records.book.number(row.number)
            if again is None or again.owner != row.owner:
                return
            row = again

    # -- evidence ----------------------------------------------------------------------------------------

    def _owned(self, row: AssignmentRow) -> tuple[Owned, LaunchRow | None]:
        """Return an assignment as the policy takes it, and the launch that took it, if that has ended."""
        agent, task = self._assignments.records.owner(row), self._assignments.records.open_task(row)
        taken = row.state != str(AssignmentState.QUEUED)
        ended: bool | None = True if row.generation is not None else None
        launch: LaunchRow | None = None
        if taken:
            ended, launch = self._launch(row, agent)
        settings = agent.settings if agent is not None else None
        return (
            Owned(
                state=AssignmentState(row.state),
                for_pool=row.wanted is None,
                retries=row.retries,
                orphanings=row.orphanings,
                task=TaskState(task.state) if task is not None else None,
                # Settings that cannot be read just now are no reason to take work away.
                owner_known=agent is not None and not agent.removed,
                owner_phase=agent.phase if agent is not None else Phase.DOWN,
                owner_stay_stopped=agent is not None and agent.row.stay_stopped,
                owner_observed=agent is not None and agent.observed,
                owner_ends=agent is not None and agent.action is not None,
                launch_ended=ended,
                launch_planned=launch is not None and bool(launch.planned),
                launch_cause=launch.end_cause if launch is not None else None,
                worked=taken and agent is not None and self._worked(row, agent),
                idle_since_worked=taken and agent is not None and _idle_since(row, agent),
                done_on_idle=settings is not None and settings.done_on_idle,
                work_retries=settings.work_retries if settings is not None else 3,
                on_orphan=settings.on_orphan if settings is not None else Orphans.PERSON,
                owner_state=agent.state() if agent is not None else None,
                unheard=taken and agent is not None and _unheard(row, agent),
            ),
            launch,
        )

    def _launch(self, row: AssignmentRow, agent: Agent | None) -> tuple[bool | None, LaunchRow | None]:
        """Return whether the launch that took an assignment has ended, and how."""
        same = agent is not None and agent.row.generation == row.generation
        if same and agent is not None and agent.phase is Phase.UP:
            return False, None
        store = self._supervisor.store
        if store is None or row.owner is None or row.generation is None:
            return None, None
        ended = store.ended_launches(row.owner, row.generation - 1)
        launch = next((one for one in ended if one.generation == row.generation), None)
        if launch is not None:
            return True, launch
        known = store.agent(row.owner)
        # While nobody has seen its end it lives on, also where no section names it any more.
        return (False if known is not None and known.generation == row.generation else None), None

    def _worked(self, row: AssignmentRow, agent: Agent) -> bool:
        """Say whether an agent was seen to work since it took its assignment."""
        since = row.delivered_at
        if row.working_at is not None:
            return True
        if since is None or agent.row.generation != row.generation:
            return False
        settings, seen = agent.settings, agent.last_look()
        beat = heartbeats.read(settings.heartbeat).at if settings is not None and settings.heartbeat else None
        if beat is not None and beat > since + COARSE_SECS:
            return True
        if _tells(agent):
            if seen is None:
                return False
            if seen.health.state is State.WORKING:
                return seen.at >= since
            # A turn that began and ended between two looks.
            return seen.health.state is State.IDLE and (seen.health.at or 0.0) > since
        moved = self._supervisor.last_activity(agent)
        return moved is not None and moved > since + COARSE_SECS

    # -- what follows ------------------------------------------------------------------------------------

    def _carry_out(self, row: AssignmentRow, verdict: RecoveryVerdict, launch: LaunchRow | None) -> None:
        action, agent = verdict.action, self._assignments.records.owner(row)
        if action is RecoveryAction.WORKING:
            new = replace(row, state=str(AssignmentState.WORKING), working_at=time.time())
            self._assignments.records.decide(new, "working", agent=agent, durable=False)
        elif action is RecoveryAction.DONE:
            self._assignments.finish(row, AssignmentState.DONE, verdict.reason)
        elif action in (RecoveryAction.RECOVER, RecoveryAction.GO_ON):
            self._again(row, verdict, agent, launch)
        elif action is RecoveryAction.RELEASE:
            new = self._unowned(row, state=str(AssignmentState.QUEUED), note=verdict.reason)
            self._give_up(row, new, "released", launch)
        elif action is RecoveryAction.BACK_TO_POOL:
            new = self._unowned(
                row,
                state=str(AssignmentState.QUEUED),
                retries=0,
                orphanings=row.orphanings + 1,
                note=verdict.reason,
            )
            self._give_up(row, new, "orphaned", launch, to="pool")
        elif action is RecoveryAction.ORPHAN:
            self._orphan(row, verdict.reason, launch)

    def _again(
        self, row: AssignmentRow, verdict: RecoveryVerdict, agent: Agent | None, launch: LaunchRow | None
    ) -> None:
        """Its owner is told again, by its next launch."""
        died = verdict.action is RecoveryAction.RECOVER
        cause = launch.end_cause if launch is not None else None
        new = replace(
            row,
            state=str(AssignmentState.QUEUED),
            delivered_at=None,
            working_at=None,
            retries=row.retries + died,
            interrupted=None if died else cause,
            # What its client has never heard it is told as a whole, also in the same conversation.
            conversation=row.conversation if launch is not None else "",
            note=verdict.reason,
        )
        self._assignments.records.decide(
            new,
            "recovered" if died else "interrupted",
            agent=agent,
            tell=True,
            writes=lambda store: _had_it(row, launch, store),
            cause=cause,
            launch=row.generation,
            reason=verdict.reason,
        )
        crashpoint.reached("assignment-recovered")
        if agent is not None:
            self._supervisor.deliveries.work(agent)

    def _give_up(
        self,
        row: AssignmentRow,
        new: AssignmentRow,
        action: str,
        launch: LaunchRow | None,
        notice: Callable[[Store], None] | None = None,
        **fields: Any,
    ) -> None:
        """Its owner has it no longer."""

        def writes(store: Store) -> None:
            _had_it(row, launch, store)
            if notice is not None:
                notice(store)

        self._assignments.records.decide(
            new,
            action,
            agent=self._assignments.records.owner(row),
            drop=self._assignments.records.open_task(row),
            writes=writes,
            cause=launch.end_cause if launch is not None else None,
            was=row.owner,
            reason=new.note,
            **fields,
        )

    def _orphan(self, row: AssignmentRow, reason: str, launch: LaunchRow | None) -> None:
        """A person has to look at it, and is told so."""
        state, orphanings = str(AssignmentState.ORPHANED), row.orphanings + 1
        new = self._unowned(row, state=state, orphanings=orphanings, note=reason)
        notice = self._supervisor.notices.writing(
            NoticeKind.ORPHANED,
            f"assignment {row.id} is orphaned: {reason} (`failoverctl reassign`, or `cancel`)",
            identity=row.owner or row.wanted,
            key=row.id,
            assignment=row.id,
            retries=row.retries,
        )
        self._give_up(row, new, "orphaned", launch, notice, to="person")

    def nobody_left(self, row: AssignmentRow) -> None:
        """The agent that an assignment waits for is no more: a person has to look at it.

        Raises:
            StoreError: it could not be stored; nothing was changed.
        """
        self._orphan(row, f"no section names {row.wanted} any more, to which it was given", None)

    def _unowned(self, row: AssignmentRow, **changes: Any) -> AssignmentRow:
        """Return an assignment that is taken from its owner; an agent by name goes on where it was."""
        dropped = ["owner", "dispatched_at", "delivered_at", "working_at", "task"]
        if row.wanted is None:
            dropped += ["generation", "conversation", "interrupted"]
        return replace(
            row, **{**dict.fromkeys(dropped), "last_owner": row.owner or row.last_owner, **changes}
        )

    def _corrected(self, row: AssignmentRow) -> AssignmentRow:
        """Its task says that it was taken, and it does not: what ran is what counts."""
        store = self._supervisor.store
        if row.state != str(AssignmentState.QUEUED) or row.task is None or store is None:
            return row
        if self._assignments.records.open_task(row) is not None:
            return row
        task = store.task(row.task)
        if task is None or task.state != str(TaskState.DELIVERED):
            return row
        new = replace(
            row,
            state=str(AssignmentState.DELIVERED),
            delivered_at=task.done_at,
            generation=task.generation,
            conversation=None,
        )
        agent = self._assignments.records.owner(row)
        return self._assignments.records.decide(
            new, "corrected", agent=agent, reason=f"its task {task.id} was delivered"
        )

    def _say_failed(self, row: AssignmentRow) -> None:
        """An agent died with an assignment and does not come back to it: that is said, once a death."""
        agent = self._assignments.records.owner(row)
        if agent is None or agent.action is not None or row.state != str(AssignmentState.QUEUED):
            return
        if row.generation is None or not row.retries or row.interrupted is not None:
            return
        again = agent.row.generation > row.generation and agent.last_cause not in PLANNED_ENDS
        if agent.phase not in (Phase.HELD, Phase.REFUSED) and not (agent.phase is Phase.DOWN and again):
            return
        key = f"{row.id}@{agent.row.generation}"
        if key in self._said:
            return
        self._said.add(key)
        error = agent.reason or agent.row.cause or str(agent.phase)
        self._supervisor.notices.say(
            NoticeKind.RECOVERY_FAILED,
            f"{agent.identity} died with assignment {row.id}, and is {agent.phase}: {error}",
            identity=agent.identity,
            key=key,
            assignment=row.id,
            phase=str(agent.phase),
            error=error,
        )


def _had_it(row: AssignmentRow, launch: LaunchRow | None, store: Store) -> None:
    """Within a decision: say which assignment a launch had when it ended."""
    if launch is not None:
        store.update_launch(launch.identity, launch.generation, assignment=row.id)


def _tells(agent: Agent) -> bool:
    name = agent.row.runtime or (agent.settings.runtime if agent.settings is not None else "")
    runtime = RUNTIMES.get(name)
    return runtime is not None and runtime.tells


def _idle_since(row: AssignmentRow, agent: Agent) -> bool:
    """Say whether an agent has finished a turn since it took its assignment; an error is no finished turn."""
    seen, since = agent.last_look(), row.delivered_at
    if seen is None or since is None or agent.row.generation != row.generation or not _tells(agent):
        return False
    if seen.health.state is not State.IDLE or seen.health.fault is not None:
        return False
    told = seen.health.at
    return seen.at > (row.working_at or since) and (told is None or told > since)


def _unheard(row: AssignmentRow, agent: Agent) -> bool:
    """Say whether an agent's client says that it has been idle since before it was told of its assignment.

    Claude Code 2.1.329 on a busy host, resumed a moment before, lets a text vanish from its input line. Its
    status file and its transcript must both say so: either one alone may have stopped being written.
    """
    seen, since = agent.last_look(), row.delivered_at
    if seen is None or since is None or agent.row.generation != row.generation:
        return False
    health = seen.health
    if health.state is not State.IDLE or health.source is not Source.STATUS_FILE or health.at is None:
        return False
    quiet = seen.last_activity is not None and seen.last_activity < since
    return quiet and health.at < since and seen.at > since + UNHEARD_SECS
