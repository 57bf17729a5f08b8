"""Looks whether agents that have work get on with it, and has those nudged or ended that do not.

What follows from what is seen is the table of `policy.heartbeat`; circusd looks again before it ends anyone.
It also tells what has been queued for too long. It starts, types and ends nothing itself, and what it cannot
look at leads to nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from typing import Any

from circus_failover import agent_health, heartbeats, process_table, queued_long
from circus_failover.agent_health import LOOKER
from circus_failover.heartbeats import Heard
from circus_failover.idle_evidence import Terminals
from circus_failover.observing import Observer
from circus_failover.plugin import FailoverPlugin, Refused, Said
from circus_failover.plugin_input import AgentPolicy, Event, agent_policy
from circus_failover.policy import heartbeat
from circus_failover.policy.heartbeat import (
    Beat,
    Evidence,
    HeartbeatAction,
    HeartbeatVerdict,
    Thresholds,
    Told,
    Work,
)
from circus_failover.policy.idle import Clock
from circus_failover.queued_long import Limits, Waiting
from circus_failover.records import AgentRow, AssignmentRow
from circus_failover.store import Reader
from circus_failover.words import NoticeKind, Phase, State

LOOKS_AT_ONCE = 8
"""A tmux server that does not answer holds one of them for 2 s."""
MOST_NAMED = 10
"""How many things that are queued too long are named in one line."""
_LOOKED_AT = (Phase.UP, Phase.OBSERVED)


@dataclass(frozen=True)
class _Case:
    """One agent, as it is judged in one tick."""

    row: AgentRow
    thresholds: Thresholds
    evidence: Evidence
    told: Told


class Heartbeat(FailoverPlugin):
    """Nudges agents that do not get on with their work, and has those ended that broke their contract."""

    name = "heartbeat"
    default_interval = 15.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self._clock: Clock | None = None
        self._here = False
        """The last clock was read by this very process."""
        self._floor: float | None = None
        self._done: dict[str, tuple[int, Told]] = {}
        """What was told and done, by agent: of which launch, and what."""
        self._queued: set[str] = set()
        """What was told to be queued for too long."""
        self._stuck: dict[str, tuple[_Case, HeartbeatVerdict]] = {}
        """Who is stuck, and why."""
        self._wedged: frozenset[str] = frozenset()
        self._terminals = Terminals()
        self._observer = Observer()
        self._reported = Said()

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look at every agent, and at what is queued."""
        rows, assignments = list(store.agents(*_LOOKED_AT).values()), store.assignments()
        self._forget(rows)
        self._tell(rows)
        before, self._stuck = self._stuck, {}
        await self._judge(store, rows, assignments)
        changed = before.keys() ^ self._stuck.keys()
        if changed:
            # That it is stuck shows before it is ended, and also where it is not.
            self._tell([row for row in rows if row.identity in changed])
        for case, verdict in self._stuck.values():
            self._end(case, verdict)
        self._look_at_queues(store, assignments)

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Look at these agents alone: somebody is waited for."""
        rows = [row for identity in identities if (row := store.agent(identity)) is not None]
        await self._judge(store, rows, store.assignments())

    def concerns(self, event: Event) -> bool:
        """That an agent waits for somebody is told at once; everything else takes its time."""
        return event.state == State.WAITING

    def remember(self, detail: Mapping[str, Any]) -> None:
        """Take in what was told and done before, so that no episode begins anew with this process."""
        if detail.get("boot") != process_table.boot_id():
            return
        clock, floor = detail["clock"], detail["floor"]
        told = {
            str(identity): (int(generation), Told(*values))
            for identity, (generation, values) in detail["told"].items()
        }
        queued = {str(name) for name in detail["queued"]}
        self._clock = None if clock is None else Clock(float(clock[0]), float(clock[1]))
        self._floor = None if floor is None else float(floor)
        self._done, self._queued = told, queued

    def remembered(self) -> dict[str, Any]:
        """Return what was told and done."""
        clock = self._clock
        return {
            "boot": process_table.boot_id(),
            "clock": None if clock is None else [clock.wall, clock.steady],
            "floor": self._floor,
            "told": {
                identity: [generation, list(astuple(told))]
                for identity, (generation, told) in self._done.items()
            },
            "queued": sorted(self._queued),
        }

    def _forget(self, rows: Iterable[AgentRow]) -> None:
        """Forget agents that are not up any more, and launches that have ended."""
        living = {row.identity: row.generation for row in rows}
        self._done = {name: told for name, told in self._done.items() if living.get(name) == told[0]}
        self._reported.keep(living)
        processes = {row.process for row in rows if row.process is not None}
        self._terminals.keep(processes)
        self._observer.keep(processes)

    def _look_at_clock(self) -> float:
        """Return the time, after noticing whether the host stood still since the last tick."""
        clock = Clock(time.time(), time.monotonic())
        # Between two processes of this plugin there may be any time; the clocks tell a suspend all the same.
        interval = self.options.interval if self._here else float("inf")
        if self._clock is not None and heartbeat.interrupted(self._clock, clock, interval):
            self._floor = clock.wall
            evidence = "the host was suspended or stood still, or its clock was set: ages count anew"
            self.find("", "alive", outcome="counted-anew", evidence=evidence)
        self._clock, self._here = clock, True
        return clock.wall

    # -- looking ---------------------------------------------------------------------------------------

    async def _judge(
        self, store: Reader, rows: Sequence[AgentRow], assignments: Sequence[AssignmentRow]
    ) -> None:
        """Judge agents; whose client has to be looked at for it is judged again then."""
        now = self._look_at_clock()
        taken = {row.owner: row for row in assignments if row.state in heartbeats.TAKEN}
        plugin = store.plugins().get(LOOKER)
        looked, cases = None if plugin is None else plugin.at, []
        for row in rows:
            try:
                work = heartbeats.work_of(taken.get(row.identity), row.generation)
                case = self._case(row, work, looked, now)
                if case is not None and self._is_to_be_looked_at(case, now):
                    cases.append(case)
            except Exception as error:
                self.trouble(row.identity, error)
        if not cases:
            return
        pool = ThreadPoolExecutor(min(LOOKS_AT_ONCE, len(cases)))
        try:
            await asyncio.gather(*(self._look(case, pool) for case in cases))
        finally:
            pool.shutdown(wait=False)

    def _case(self, row: AgentRow, work: Work | None, looked: float | None, now: float) -> _Case | None:
        """Return what is known of an agent at hardly a cost; None where its settings are not known."""
        policy, process = agent_policy(row.policy), row.process
        if policy is None or row.phase not in _LOOKED_AT:
            return None
        seen = agent_health.read(row.health)
        if seen is not None and (
            looked is None
            or not seen.of(row.generation, process)
            # What stays the same is not stored again.
            or not replace(seen, at=max(seen.at, looked)).holds(now)
        ):
            seen = None
        health = None if seen is None else seen.health
        here = process is not None and row.boot == process_table.boot_id()
        contract = _promises(policy, row)
        evidence = Evidence(
            phase=Phase(row.phase),
            observed=policy.observed or row.phase == Phase.OBSERVED,
            wedged=row.identity in self._wedged,
            tells=self._observer.tells(row),
            state=None if health is None else health.state,
            question="" if health is None else health.what or health.evidence,
            looked=False,
            work=work,
            proven=here and process is not None and process_table.may_run(process),
            launched_at=row.launched_at if row.launch is not None else row.ready_at,
            ready_at=row.ready_at,
            beat=_beat(policy, row),
            activity=None if seen is None else seen.last_activity,
            terminal=None if process is None or work is None else self._terminals.last_activity(process, now),
            typed_at=row.last_task,
        )
        known = self._done.get(row.identity)
        told = known[1] if known is not None and known[0] == row.generation else Told()
        return _Case(row, heartbeats.thresholds(policy, contract), evidence, told)

    def _is_to_be_looked_at(self, case: _Case, now: float) -> bool:
        """Judge an agent, and say whether its client has to be looked at first."""
        verdict = heartbeat.decide(case.thresholds, case.evidence, case.told, self._floor, now)
        if verdict.action is HeartbeatAction.LOOK:
            return True
        self._carry_out(case, verdict, now)
        return False

    async def _look(self, case: _Case, pool: ThreadPoolExecutor) -> None:
        """Look at an agent's client, beside the others, and do what follows from it."""
        row = case.row
        try:
            loop = asyncio.get_running_loop()
            health, seen = await loop.run_in_executor(pool, self._observer.observe, row, time.time())
            evidence = replace(
                case.evidence,
                looked=True,
                state=health.state,
                question=health.what or health.evidence,
                activity=seen.last_activity,
            )
            now = time.time()
            verdict = heartbeat.decide(case.thresholds, evidence, case.told, self._floor, now)
            self._carry_out(replace(case, evidence=evidence), verdict, now)
        except Exception as error:
            self.trouble(row.identity, error)

    # -- doing -----------------------------------------------------------------------------------------

    def _carry_out(self, case: _Case, verdict: HeartbeatVerdict, now: float) -> None:
        """Do what follows from a verdict, once an episode; an end is asked for when all are judged."""
        identity, action, evidence = case.row.identity, verdict.action, case.evidence
        if action is HeartbeatAction.STUCK:
            self._stuck[identity] = case, verdict
            return
        work = "" if evidence.work is None else f"; assignment {evidence.work.id}"
        if evidence.beat.failed and self._reported.changed("beat", identity, evidence.beat.failed):
            reason = f"its heartbeat cannot be looked at: {evidence.beat.failed}"
            self.find(identity, "error", outcome="left-alone", evidence=reason)
        if verdict.nudge and not self._nudge(case, verdict):
            return
        if action is HeartbeatAction.WAITING:
            self.find(identity, "waiting", outcome="left-alone", evidence=verdict.reason)
        elif action is HeartbeatAction.SILENT:
            reason = verdict.reason + work
            self.find(identity, "silent", age=verdict.age, outcome="left-alone", evidence=reason)
        elif action is HeartbeatAction.NO_PROGRESS:
            self.find(
                identity,
                "no-progress",
                age=verdict.age,
                outcome="nudged" if verdict.nudge and not self.options.dry_run else "left-alone",
                evidence=verdict.reason + work,
                notice=NoticeKind.NO_PROGRESS,
            )
        elif self.log_verbose and action is not HeartbeatAction.NUDGE:
            self.find(
                identity,
                "skipped-observe" if evidence.observed else "alive",
                age=verdict.age,
                outcome=str(action),
                evidence=verdict.reason,
            )
        told = heartbeat.after(case.thresholds, evidence, case.told, verdict, now)
        self._done[identity] = (case.row.generation, told)

    def _nudge(self, case: _Case, verdict: HeartbeatVerdict) -> bool:
        """Have an agent nudged; say whether that was taken, so that it need not be asked again."""
        row, work = case.row, case.evidence.work
        assert work is not None
        reason = f"{verdict.reason}; assignment {work.id}"
        if self.options.dry_run:
            self.find(row.identity, "nudged", age=verdict.age, outcome="dry-run", evidence=reason)
            return True
        try:
            self.ask(
                "nudge",
                name=row.identity,
                generation=row.generation,
                assignment=work.id,
                age=verdict.age,
                evidence=verdict.reason,
                by=self.name,
            )
        except Refused as refusal:
            self._refused(row, verdict.age, refusal, nudge=True)
            return False
        return True

    def _end(self, case: _Case, verdict: HeartbeatVerdict) -> None:
        """Have an agent ended that is stuck: circusd looks again first, and brings it back."""
        row, evidence, process = case.row, case.evidence, case.row.process
        assert evidence.work is not None and process is not None
        reason = f"{verdict.reason}; assignment {evidence.work.id}"
        if self.options.dry_run:
            if self._reported.changed("dry-run", row.identity, (row.generation, evidence.beat.at)):
                self.find(row.identity, "stuck", age=verdict.age, outcome="dry-run", evidence=reason)
            return
        try:
            self.ask(
                "end-stuck",
                name=row.identity,
                generation=row.generation,
                pid=process.pid,
                pid_start=process.start,
                beat=evidence.beat.at,
                assignment=evidence.work.id,
                state=None if evidence.state is None else str(evidence.state),
                floor=self._floor,
                age=verdict.age,
                evidence=reason,
                by=self.name,
            )
        except Refused as refusal:
            self._refused(row, verdict.age, refusal, nudge=False)

    def _refused(self, row: AgentRow, age: float | None, refusal: Refused, *, nudge: bool) -> None:
        outcome = "not-nudged" if nudge else "not-ended"
        if self._reported.changed(outcome, row.identity, (row.generation, str(refusal))):
            self.find(row.identity, "error", age=age, outcome=outcome, evidence=str(refusal))

    # -- telling ---------------------------------------------------------------------------------------

    def _tell(self, rows: Iterable[AgentRow]) -> None:
        """Tell circusd of the heartbeats of these agents, and learn whose tmux server does not answer."""
        said = []
        for row in rows:
            policy, process = agent_policy(row.policy), row.process
            if policy is None or process is None or not _promises(policy, row):
                continue
            at, stuck = _beat(policy, row).at, self._stuck.get(row.identity)
            if at is not None and at < (row.launched_at or 0.0):
                at = None
            evidence = "" if stuck is None else stuck[1].reason
            said.append(
                heartbeats.told(Heard(row.identity, row.generation, process, at, stuck is not None, evidence))
            )
        answer = self.ask("beats", interval=self.options.interval, agents=said)
        self._wedged = frozenset(answer["wedged"])

    def _look_at_queues(self, store: Reader, assignments: Sequence[AssignmentRow]) -> None:
        """Tell once of each task and assignment that has been queued for too long."""
        waiting, now = queued_long.waiting(store, assignments), time.time()
        self._queued &= {thing.key for thing in waiting}
        if not waiting:
            return
        limits = Limits(list(store.agents().values()))
        late: dict[str, list[tuple[float, Waiting]]] = {}
        for thing in waiting:
            age = heartbeat.waits_too_long(thing.since, limits.of(thing), self._floor, now)
            if age is not None and thing.key not in self._queued:
                late.setdefault(thing.where, []).append((age, thing))
        for where, things in late.items():
            things.sort(key=lambda found: -found[0])
            named = ", ".join(thing.key for _, thing in things[:MOST_NAMED])
            more = f" and {len(things) - MOST_NAMED} more" if len(things) > MOST_NAMED else ""
            self.find(
                things[0][1].identity or "",
                "queued-long",
                age=things[0][0],
                outcome="waits",
                evidence=f"queued for {where} for longer than failover.queue_max_age_secs: {named}{more}",
                notice=NoticeKind.QUEUED_LONG,
                key=f"{where}: {things[0][1].key}",
            )
            self._queued.update(thing.key for _, thing in things)


def _promises(policy: AgentPolicy, row: AgentRow) -> bool:
    """Say whether an agent has a heartbeat contract: one that somebody else started was told of none."""
    return policy.heartbeat is not None and row.launch is not None


def _beat(policy: AgentPolicy, row: AgentRow) -> Beat:
    """Look at an agent's heartbeat; nothing where it promises none."""
    path = policy.heartbeat if _promises(policy, row) else None
    return Beat() if path is None else heartbeats.read(path)
